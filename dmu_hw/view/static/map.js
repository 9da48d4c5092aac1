/** Where the fields lie on the stage: what was imaged, what is missing, what is doubtful. */

import { marks, paint } from "./colours.js";
import { element } from "./words.js";

const MISSING = 1;
const DOUBTFUL = 2;
const MARGIN_PX = 10;

export class FieldMap {
  /**
   * @param {HTMLElement} root what it is put into
   * @param {[number, number]} fieldUm width and height of a field
   * @param {string[]} names of the fields
   * @param {(field: number) => void} chosen called when somebody picks one
   */
  constructor(root, fieldUm, names, chosen = null) {
    this.fieldUm = fieldUm;
    this.names = names;
    this.chosen = chosen;
    this.places = []; // x, y of the middles, one after the other
    this.parts = []; // how much of a field is done, 0 to 1
    this.flags = [];
    this.now = null;
    this.tiles = []; // canvases
    this.repaint = () => {}; // paints the tiles anew, when colours have changed
    this.canvas = element("canvas", { className: "fields", role: "img", ariaLabel: "Fields on the stage" });
    root.append(this.canvas);
    this.canvas.onpointermove = (event) => { this.canvas.title = this.names[this.at(event)] ?? ""; };
    if (chosen) {
      this.canvas.classList.add("pick");
      this.canvas.onclick = (event) => { const field = this.at(event); if (field !== null) chosen(field); };
    }
    new ResizeObserver(() => this.draw()).observe(root);
  }

  place(places) {
    this.places = places;
    this.draw();
  }

  /** Small pictures of the fields, 0 where there is none; `shown` as the large one is. */
  tile(atlas, shown) {
    this.repaint = () => this.tile(atlas, shown);
    const [count, rows, columns] = atlas.shape;
    for (let field = 0; field < count; field++) {
      const start = field * rows * columns;
      if (!atlas.pixels.subarray(start, start + rows * columns).some((value) => value > 0)) continue;
      this.tiles[field] ??= document.createElement("canvas");
      paint(this.tiles[field], atlas.pixels, [rows, columns], shown, atlas, start);
    }
    this.draw();
  }

  /** Extent in µm: left, top, width, height. */
  get extent() {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < this.places.length; i += 2) {
      left = Math.min(left, this.places[i]);
      right = Math.max(right, this.places[i]);
      top = Math.min(top, this.places[i + 1]);
      bottom = Math.max(bottom, this.places[i + 1]);
    }
    const [width, height] = this.fieldUm;
    return [left - width / 2, top - height / 2, right - left + width, bottom - top + height];
  }

  /** Upper left corner on the screen, and screen pixels of one µm. */
  get geometry() {
    const [left, top, width, height] = this.extent;
    const [across, down] = [this.canvas.clientWidth - 2 * MARGIN_PX, this.canvas.clientHeight - 2 * MARGIN_PX];
    const perUm = Math.min(across / width, down / height);
    const x = MARGIN_PX + (across - width * perUm) / 2 - left * perUm;
    const y = MARGIN_PX + (down - height * perUm) / 2 - top * perUm;
    return [x, y, perUm];
  }

  at(event) {
    if (!this.places.length) return null;
    const [x0, y0, perUm] = this.geometry;
    const [x, y] = [(event.offsetX - x0) / perUm, (event.offsetY - y0) / perUm];
    let [best, nearest] = [null, Math.hypot(...this.fieldUm) / 2];
    for (let field = 0; field < this.places.length / 2; field++) {
      const away = Math.hypot(this.places[2 * field] - x, this.places[2 * field + 1] - y);
      if (away < nearest) [best, nearest] = [field, away];
    }
    return best;
  }

  draw() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!width || !height || !this.places.length) return;
    const sharp = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * sharp);
    this.canvas.height = Math.round(height * sharp);
    const context = this.canvas.getContext("2d");
    context.scale(sharp, sharp);
    const [x0, y0, perUm] = this.geometry;
    const [across, down] = this.fieldUm.map((um) => um * perUm);
    for (let field = 0; field < this.places.length / 2; field++) {
      const x = x0 + this.places[2 * field] * perUm - across / 2;
      const y = y0 + this.places[2 * field + 1] * perUm - down / 2;
      this.drawField(context, field, [x, y, across, down]);
    }
    if (this.now !== null && this.now !== undefined) {
      const x = x0 + this.places[2 * this.now] * perUm - across / 2;
      const y = y0 + this.places[2 * this.now + 1] * perUm - down / 2;
      context.strokeStyle = marks().now;
      context.lineWidth = 2.5;
      context.strokeRect(x, y, across, down);
    }
  }

  drawField(context, field, [x, y, across, down]) {
    const part = this.parts[field] ?? 0;
    const tile = this.tiles[field];
    if (tile) context.drawImage(tile, x, y, across, down);
    context.strokeStyle = marks().line;
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, across - 1, down - 1);
    if (part < 1 && part > 0) {
      context.fillStyle = marks().link;
      context.fillRect(x + 2, y + down - 5, (across - 4) * part, 3);
    }
    const flags = this.flags[field] ?? 0;
    if (flags) this.drawFlag(context, flags & MISSING ? "×" : "?", x + across, y, Math.min(18, across / 2));
  }

  /** × frames are missing, ? the image is doubtful: a shape, not only a colour. */
  drawFlag(context, sign, right, top, size) {
    context.fillStyle = marks().bad;
    context.fillRect(right - size, top, size, size);
    context.fillStyle = "#000";
    context.font = `700 ${size * 0.9}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(sign, right - size / 2, top + size / 2);
  }

  /** @param {ArrayLike<number>} progress bursts of each field, then flags of each. */
  progress(progress, fields, bursts, now) {
    this.parts = Array.from({ length: fields }, (_, field) => Math.min(1, progress[field] / bursts));
    this.flags = Array.from({ length: fields }, (_, field) => progress[fields + field]);
    this.now = now;
    this.draw();
  }

  get missing() { return this.flags.filter((flags) => flags & MISSING).length; }
  get doubtful() { return this.flags.filter((flags) => flags & DOUBTFUL).length; }
}
