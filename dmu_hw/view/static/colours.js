/** From values to colours that a dark-adapted eye bears: none is pure white. */

// viridis by Smith and van der Walt, CC0: as bright in grey as in colour, and safe for the colour-blind
const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const STOPS = { grey: ["000000", "dcdcdc"], viridis: VIRIDIS, red: ["000000", "5a0000", "c01808"] };
export const MAPS = Object.keys(STOPS);
export const STEPS = 1024;
/** Okabe and Ito: the colour-blind can tell them apart. */
export const MARKS = { now: "#e69f00", objects: "#e69f00", bad: "#ff8a4c", line: "#3a444e", text: "#c9ced4", link: "#56b4e9" };
const RED_MARKS = { now: "#ff3b20", objects: "#ff3b20", bad: "#ff3b20", line: "#4a1410", text: "#d0402c", link: "#d0402c" };

const tables = new Map();

export const isRed = () => document.documentElement.dataset.night === "red";
export const marks = () => (isRed() ? RED_MARKS : MARKS);

/** Pixels of a canvas (ABGR in one number) for values from 0 to STEPS - 1. */
export function table(name) {
  const wanted = isRed() ? "red" : name;
  if (!tables.has(wanted)) tables.set(wanted, makeTable(STOPS[wanted]));
  return tables.get(wanted);
}

function makeTable(stops) {
  const colours = stops.map((hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16)));
  const made = new Uint32Array(STEPS);
  for (let i = 0; i < STEPS; i++) {
    const place = (i / (STEPS - 1)) * (colours.length - 1);
    const first = Math.min(Math.floor(place), colours.length - 2);
    const part = place - first;
    const [r, g, b] = colours[first].map((value, k) => Math.round(value + part * (colours[first + 1][k] - value)));
    made[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return made;
}

/**
 * Pixels as a picture.
 * @param {ArrayLike<number>} pixels
 * @param {number[]} shape rows, columns
 * @param {{low: number, high: number, gamma: number, map: string}} shown what is black, what is bright
 * @param {{low: number, high: number} | null} scale values of the darkest and brightest number; null: they are values
 */
export function paint(canvas, pixels, [rows, columns], shown, scale, start = 0) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const out = new Uint32Array(image.data.buffer);
  const colours = table(shown.map);
  const most = pixels instanceof Uint8Array ? 255 : 65535;
  const step = scale ? (scale.high - scale.low) / most : 1;
  const zero = scale ? scale.low : 0;
  const span = shown.high - shown.low || 1e-9;
  const level = (value) => {
    const part = (value - shown.low) / span;
    const bound = part > 0 ? (part < 1 ? part : 1) : 0; // not a number is black
    return colours[Math.round((STEPS - 1) * (shown.gamma === 1 ? bound : bound ** (1 / shown.gamma)))];
  };
  if (pixels instanceof Float32Array) {
    for (let i = 0; i < out.length; i++) out[i] = level(pixels[start + i]);
  } else {
    const known = new Uint32Array(most + 1); // each number once
    for (let i = 0; i < out.length; i++) {
      const value = pixels[start + i];
      out[i] = known[value] || (known[value] = level(zero + value * step));
    }
  }
  context.putImageData(image, 0, 0);
}
