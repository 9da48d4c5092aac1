/** A picture to look into: contrast, zoom, scale bar, objects, distances. Places are in µm from its upper left corner. */

import { MAPS, marks, paint } from "./colours.js";
import { outlines } from "./outlines.js";
import { digits, element, tell } from "./words.js";

const BINS = 128;
const CLOSEST_PX = 40; // screen pixels of a pixel
const KEPT = 0.2; // per cent of pixels that automatic contrast lets go at either end

/** Where several pictures look, and what is measured in them: they move together. */
export class Sight {
  constructor() {
    this.pictures = new Set();
    this.zoom = 1; // 1: the whole picture
    this.centre = null; // in µm; null: the middle
    this.points = []; // of a distance, in µm
    this.measuring = false;
    this.measured = () => {};
  }

  fit() {
    this.zoom = 1;
    this.centre = null;
    this.redraw();
  }

  redraw() {
    this.pictures.forEach((picture) => picture.draw());
  }

  /** One end of a distance; a third point begins anew. */
  mark(point) {
    this.points = this.points.length === 2 ? [point] : [...this.points, point];
    this.measured(this.distance);
    this.redraw();
  }

  forget() {
    this.points = [];
    this.measured(null);
    this.redraw();
  }

  /** In µm; null: there is none. */
  get distance() {
    if (this.points.length < 2) return null;
    const [[x0, y0], [x1, y1]] = this.points;
    return Math.hypot(x1 - x0, y1 - y0);
  }
}

export class Picture {
  /**
   * @param {HTMLElement} root what it is put into
   * @param {Sight} sight where it looks
   * @param {string} empty what is said as long as there is none
   */
  constructor(root, sight, empty) {
    this.sight = sight;
    this.shown = { low: 0, high: 1, gamma: 1, map: "grey" };
    this.auto = true;
    this.outlines = true;
    this.image = null;
    this.picture = document.createElement("canvas");
    this.borders = null;
    this.build(root, empty);
    sight.pictures.add(this);
    this.size = new ResizeObserver(() => this.draw());
    this.size.observe(this.frame);
  }

  remove() {
    this.size.disconnect();
    this.sight.pictures.delete(this);
    this.root.remove();
  }

  build(root, empty) {
    this.canvas = element("canvas", { tabIndex: 0, role: "img", ariaLabel: empty });
    this.where = element("span", { className: "where" });
    this.note = element("p", { className: "empty" }, empty);
    this.flag = element("p", { className: "flag", hidden: true });
    this.frame = element("div", { className: "sheet" }, this.canvas, this.note, this.flag, this.where);
    this.histogram = element("canvas", { className: "histogram", title: "Drag black and bright; double-click: automatic" });
    this.low = element("input", { type: "number", step: "any", ariaLabel: "Black", title: "What is black" });
    this.high = element("input", { type: "number", step: "any", ariaLabel: "Bright", title: "What is brightest" });
    this.gamma = element("input", { type: "range", min: "0.3", max: "3", step: "0.05", value: "1", ariaLabel: "Gamma" });
    this.automatic = element("button", { type: "button", title: "Automatic contrast (a)", ariaPressed: "true" }, "Auto");
    this.map = element("select", { ariaLabel: "Colours" }, ...MAPS.map((name) => element("option", {}, name)));
    this.tools = element("div", { className: "tools contrast" },
      this.histogram, this.low, "to", this.high, element("label", {}, "Gamma ", this.gamma), this.automatic, this.map);
    this.root = element("div", { className: "picture" }, this.frame, this.tools);
    root.append(this.root);
    this.listen();
  }

  listen() {
    const set = (change) => { Object.assign(this.shown, change); this.repaint(); };
    this.low.onchange = () => { this.setAuto(false); set({ low: Number(this.low.value) }); };
    this.high.onchange = () => { this.setAuto(false); set({ high: Number(this.high.value) }); };
    this.gamma.oninput = () => set({ gamma: Number(this.gamma.value) });
    this.gamma.ondblclick = () => { this.gamma.value = "1"; set({ gamma: 1 }); };
    this.map.onchange = () => set({ map: this.map.value });
    this.automatic.onclick = () => { this.setAuto(!this.auto); this.repaint(); };
    this.histogram.ondblclick = () => { this.setAuto(true); this.repaint(); };
    this.histogram.onpointerdown = (event) => this.dragContrast(event);
    this.canvas.onwheel = (event) => { event.preventDefault(); this.zoomAt(event, Math.exp(-event.deltaY / 400)); };
    this.canvas.onpointerdown = (event) => this.grab(event);
    this.canvas.onpointermove = (event) => this.tellWhere(event);
    this.canvas.onpointerleave = () => tell(this.where, "");
    this.canvas.ondblclick = () => this.sight.fit();
  }

  setAuto(auto) {
    this.auto = auto;
    this.automatic.ariaPressed = String(auto);
  }

  // ---------------------------------------------------------------- what is shown

  /** @param {object} image a message with pixels, their shape, pixel_um, and low and high of whole numbers */
  show(image) {
    this.image = image;
    this.note.hidden = true;
    this.scale = image.pixels instanceof Float32Array ? null : { low: image.low ?? 0, high: image.high ?? 65535 };
    this.count();
    this.repaint();
  }

  /** Nothing, and why. */
  showNothing(why) {
    this.image = this.borders = null;
    tell(this.note, why);
    this.note.hidden = false;
    this.draw();
  }

  /** What should make people think twice; empty: nothing. */
  doubt(why) {
    tell(this.flag, why ? `⚠ ${why}` : "");
    this.flag.hidden = !why;
  }

  /** Objects over the image, or null. */
  showObjects(labels) {
    this.borders = labels ? outlines(labels.pixels, labels.shape.slice(-2)) : null;
    this.draw();
  }

  value(i) {
    const raw = this.image.pixels[i];
    if (!this.scale) return raw;
    const most = this.image.pixels instanceof Uint8Array ? 255 : 65535;
    return this.scale.low + (raw / most) * (this.scale.high - this.scale.low);
  }

  /** How often which value comes, of some 60,000 pixels. */
  count() {
    const total = this.image.pixels.length;
    const step = Math.max(1, Math.floor(total / 60000));
    const values = [];
    for (let i = 0; i < total; i += step) {
      const value = this.value(i);
      if (Number.isFinite(value)) values.push(value);
    }
    values.sort((a, b) => a - b);
    this.sorted = values;
  }

  percentile(percent) {
    const place = Math.round((percent / 100) * (this.sorted.length - 1));
    return this.sorted[place] ?? 0;
  }

  repaint() {
    if (!this.image) return;
    if (this.auto) {
      const low = this.percentile(KEPT);
      const high = this.percentile(100 - KEPT);
      Object.assign(this.shown, { low, high: high > low ? high : low + 1e-6 });
    }
    for (const [field, value] of [[this.low, this.shown.low], [this.high, this.shown.high]]) {
      if (document.activeElement !== field) field.value = String(Number(value.toPrecision(4)));
    }
    paint(this.picture, this.image.pixels, this.image.shape.slice(-2), this.shown, this.scale);
    this.drawHistogram();
    this.draw();
  }

  // ---------------------------------------------------------------- geometry

  get widthUm() { return this.image.shape.at(-1) * this.image.pixel_um; }
  get heightUm() { return this.image.shape.at(-2) * this.image.pixel_um; }

  /** Screen pixels of one µm. */
  get perUm() {
    const whole = Math.min(this.frame.clientWidth / this.widthUm, this.frame.clientHeight / this.heightUm);
    return whole * this.sight.zoom;
  }

  /** Where the upper left corner lies on the screen. */
  get origin() {
    const [x, y] = this.sight.centre ?? [this.widthUm / 2, this.heightUm / 2];
    return [this.frame.clientWidth / 2 - x * this.perUm, this.frame.clientHeight / 2 - y * this.perUm];
  }

  /** The place under the pointer, in µm. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const [left, top] = this.origin;
    return [(event.clientX - box.left - left) / this.perUm, (event.clientY - box.top - top) / this.perUm];
  }

  zoomAt(event, factor) {
    if (!this.image) return;
    const [x, y] = this.place(event);
    const [cx, cy] = this.sight.centre ?? [this.widthUm / 2, this.heightUm / 2];
    const whole = this.perUm / this.sight.zoom;
    const most = CLOSEST_PX / (whole * this.image.pixel_um);
    const zoom = Math.min(Math.max(this.sight.zoom * factor, 1), Math.max(1, most));
    const part = 1 - this.sight.zoom / zoom;
    this.sight.centre = zoom === 1 ? null : [cx + (x - cx) * part, cy + (y - cy) * part];
    this.sight.zoom = zoom;
    this.sight.redraw();
  }

  /** By keys: about the middle. */
  zoomBy(factor) {
    const box = this.canvas.getBoundingClientRect();
    this.zoomAt({ clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 }, factor);
  }

  /** By keys: a part of what is seen. */
  moveBy(right, down) {
    if (!this.image || this.sight.zoom === 1) return;
    const [x, y] = this.sight.centre ?? [this.widthUm / 2, this.heightUm / 2];
    const step = (0.15 * this.frame.clientWidth) / this.perUm;
    this.sight.centre = [x + right * step, y + down * step];
    this.sight.redraw();
  }

  grab(event) {
    if (!this.image || event.button !== 0) return;
    if (this.sight.measuring) {
      this.sight.mark(this.place(event));
      return;
    }
    const [x0, y0] = this.place(event);
    this.canvas.setPointerCapture(event.pointerId);
    const move = (moved) => {
      if (this.sight.zoom === 1) return;
      const [x, y] = this.place(moved);
      const [cx, cy] = this.sight.centre ?? [this.widthUm / 2, this.heightUm / 2];
      this.sight.centre = [cx - (x - x0), cy - (y - y0)];
      this.sight.redraw();
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", () => this.canvas.removeEventListener("pointermove", move), { once: true });
  }

  tellWhere(event) {
    if (!this.image) return;
    const [x, y] = this.place(event);
    const [column, row] = [x, y].map((um) => Math.floor(um / this.image.pixel_um));
    const [rows, columns] = this.image.shape.slice(-2);
    const inside = row >= 0 && column >= 0 && row < rows && column < columns;
    tell(this.where, inside ? `${digits(x)}, ${digits(y)} µm: ${digits(this.value(row * columns + column))}` : "");
  }

  // ---------------------------------------------------------------- drawing

  draw() {
    const [width, height] = [this.frame.clientWidth, this.frame.clientHeight];
    const sharp = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * sharp);
    this.canvas.height = Math.round(height * sharp);
    if (!this.image || !width || !height) return;
    const context = this.canvas.getContext("2d");
    context.scale(sharp, sharp);
    const [left, top] = this.origin;
    const size = [this.widthUm * this.perUm, this.heightUm * this.perUm];
    context.imageSmoothingEnabled = this.perUm * this.image.pixel_um < 2;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, left, top, ...size);
    if (this.borders && this.outlines) this.drawBorders(context, left, top);
    this.drawBar(context, width, height);
    this.drawDistance(context);
  }

  drawBorders(context, left, top) {
    const perPixel = this.perUm * this.image.pixel_um;
    context.save();
    context.translate(left, top);
    context.scale(perPixel, perPixel);
    context.strokeStyle = marks().objects;
    context.lineWidth = 1.75 / perPixel;
    context.lineCap = "square";
    context.stroke(this.borders);
    context.restore();
  }

  drawBar(context, width, height) {
    const most = Math.min(width, this.widthUm * this.perUm) / 3 / this.perUm;
    const decade = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((step) => step * decade).find((step) => step <= most) ?? decade;
    const right = Math.min(width, this.origin[0] + this.widthUm * this.perUm) - 14;
    const bottom = Math.min(height, this.origin[1] + this.heightUm * this.perUm) - 14;
    const px = length * this.perUm;
    context.fillStyle = "#000a";
    context.fillRect(right - px - 6, bottom - 22, px + 12, 30);
    context.fillStyle = marks().text;
    context.fillRect(right - px, bottom, px, 3);
    context.font = "13px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText(`${digits(length)} µm`, right - px / 2, bottom - 6);
  }

  drawDistance(context) {
    const points = this.sight.points.map(([x, y]) => [this.origin[0] + x * this.perUm, this.origin[1] + y * this.perUm]);
    context.strokeStyle = marks().link;
    context.fillStyle = marks().link;
    context.lineWidth = 2;
    for (const [x, y] of points) {
      context.beginPath();
      context.arc(x, y, 4, 0, 2 * Math.PI);
      context.stroke();
    }
    if (points.length < 2) return;
    const [[x0, y0], [x1, y1]] = points;
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
    const text = `${digits(this.sight.distance)} µm`;
    context.font = "600 14px system-ui, sans-serif";
    context.textAlign = "center";
    const half = context.measureText(text).width / 2 + 6;
    const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2 - 16];
    context.fillStyle = "#000c";
    context.fillRect(x - half, y - 15, 2 * half, 21);
    context.fillStyle = marks().link;
    context.fillText(text, x, y);
  }

  // ---------------------------------------------------------------- contrast

  /** From the darkest to the brightest value that there is, and what is shown of it. */
  get range() {
    const low = Math.min(this.sorted[0] ?? 0, this.shown.low);
    const high = Math.max(this.percentile(99.95), this.shown.high);
    return [low, high > low ? high : low + 1];
  }

  drawHistogram() {
    const [width, height] = [this.histogram.clientWidth, this.histogram.clientHeight];
    if (!width) return;
    this.histogram.width = width;
    this.histogram.height = height;
    const context = this.histogram.getContext("2d");
    const [low, high] = this.range;
    const step = this.scale ? (this.scale.high - this.scale.low) / 65535 : 0; // no bin is finer than the numbers
    const bins = Math.max(1, Math.min(BINS, step ? Math.floor((high - low) / step) : BINS));
    const counts = new Float64Array(bins);
    for (const value of this.sorted) {
      const bin = Math.floor(((value - low) / (high - low)) * bins);
      if (bin >= 0 && bin < bins) counts[bin]++;
    }
    const most = Math.log1p(Math.max(...counts)) || 1;
    context.fillStyle = marks().line;
    counts.forEach((count, bin) => {
      const tall = (Math.log1p(count) / most) * (height - 2);
      context.fillRect((bin / bins) * width, height - tall, width / bins + 0.5, tall);
    });
    context.fillStyle = marks().link;
    for (const value of [this.shown.low, this.shown.high]) {
      const x = ((value - low) / (high - low)) * width;
      context.fillRect(Math.min(Math.max(x - 1, 0), width - 2), 0, 2, height);
    }
  }

  /** The nearer of the two marks follows the pointer. */
  dragContrast(event) {
    if (!this.image) return;
    const [low, high] = this.range;
    const value = (at) => {
      const box = this.histogram.getBoundingClientRect();
      const part = Math.min(Math.max((at.clientX - box.left) / box.width, 0), 1);
      return low + part * (high - low);
    };
    const first = value(event);
    const which = Math.abs(first - this.shown.low) < Math.abs(first - this.shown.high) ? "low" : "high";
    const move = (at) => {
      this.shown[which] = value(at);
      if (this.shown.high <= this.shown.low) this.shown.high = this.shown.low + (high - low) / 1000;
      this.repaint();
    };
    this.setAuto(false);
    move(event);
    this.histogram.setPointerCapture(event.pointerId);
    this.histogram.onpointermove = move;
    this.histogram.onpointerup = () => { this.histogram.onpointermove = null; };
  }
}
