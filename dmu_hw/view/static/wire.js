/** What goes between this page and the program; see wire.py. */

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array };
const AGAIN_MS = 1000;

/**
 * A message as the program packed it.
 * @param {ArrayBuffer} buffer
 * @returns {{kind: string, pixels?: ArrayLike<number>, shape?: number[]}} the header, with its pixels if it has any
 */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (header.dtype) header.pixels = new ARRAYS[header.dtype](buffer, 4 + length);
  return header;
}

/** A picture that is stored. `wanted`: store, field, time, z, channel; labels: 1; side: the most pixels. */
export async function fetchImage(wanted, signal) {
  const answer = await fetch(`image?${new URLSearchParams(wanted)}`, { signal });
  if (!answer.ok) throw new Error(await answer.text());
  return unpack(await answer.arrayBuffer());
}

export async function fetchAbout() {
  const answer = await fetch("about");
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

/** The line to the program. It is tried again when it breaks, until the program says that it has ended. */
export class Line {
  /**
   * @param {(post: object) => void} heard called with every message
   * @param {(open: boolean, ended: boolean) => void} changed called when the line opens and when it breaks
   */
  constructor(heard, changed) {
    this.heard = heard;
    this.changed = changed;
    this.connect();
  }

  connect() {
    const address = new URL("socket", location.href);
    address.protocol = "ws:";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.changed(true, false);
    this.socket.onmessage = (event) => this.heard(unpack(event.data));
    this.socket.onclose = (event) => {
      const ended = event.code === 1000;
      this.changed(false, ended);
      if (!ended) setTimeout(() => this.connect(), AGAIN_MS);
    };
  }

  /** Ask for something; false if there is nobody to ask. */
  order(order) {
    const open = this.socket.readyState === WebSocket.OPEN;
    if (open) this.socket.send(JSON.stringify(order));
    return open;
  }
}
