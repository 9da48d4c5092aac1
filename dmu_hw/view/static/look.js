/** The page of a run that has ended: places, times and planes to scroll through, pictures side by side. */

import { onKey, onKeys, pictureKeys } from "./keys.js";
import { FieldMap } from "./map.js";
import { Picture, Sight } from "./picture.js";
import { fetchImage } from "./wire.js";
import { byId, digits, duration, element, tell, tellNumbers, whole } from "./words.js";

const AXES = [["field", "Field", "fields"], ["time", "Time", "times"], ["z", "Plane", "planes"]];
const TILE_PX = 48;
const MOST_TILES = 100;
const NAMES = { reconstruction: "reconstruction", frames: "raw frames", full: "full camera", plain: "plain camera", truth: "truth" };

export class LookPage {
  constructor(about) {
    this.about = about;
    this.place = { field: 0, time: 0, z: 0 };
    this.sight = new Sight();
    this.panes = [];
    this.spread = false;
    this.build();
  }

  build() {
    const { about } = this;
    tell(byId("name"), about.name);
    tell(byId("subtitle"), about.folder);
    const { complete, aborted } = about.facts;
    tell(byId("stage"), complete ? "complete" : aborted ? `aborted: ${aborted}` : complete === false ? "INCOMPLETE" : "was cut");
    byId("stage").dataset.control = complete ? "" : "aborting";
    this.buildSliders();
    byId("add").onclick = () => this.add();
    byId("measure").onclick = () => this.measure();
    this.sight.measured = (um) => tell(byId("measured"), um === null ? "" : `${digits(um, 4)} µm`);
    onKey("n", "one more picture beside", () => this.add());
    onKey("m", "measure the distance of two points", () => this.measure());
    onKeys(["[", "]"], "the field before, and the next", (event) => this.step("field", event.key === "]" ? 1 : -1), "[ ]");
    onKeys([",", "."], "the time before, and the next", (event) => this.step("time", event.key === "." ? 1 : -1), ", .");
    onKeys(["PageUp", "PageDown"], "the plane before, and the next", (event) => this.step("z", event.key === "PageDown" ? 1 : -1), "PgUp PgDn");
    pictureKeys(() => this.panes[0].picture, this.sight);
    if (Object.values(about.stores).some((store) => store.spread)) {
      onKey("u", "how far each pixel may be off", () => { this.spread = !this.spread; this.go({}); });
    }
    this.buildMap();
    this.tellFacts();
    const names = Object.keys(about.stores);
    const wide = window.matchMedia("(min-width: 70rem)").matches;
    const images = names.filter((name) => !name.endsWith("frames"));
    (wide ? images.slice(0, 2) : images.slice(0, 1)).forEach((name) => this.add(name));
    if (!this.panes.length) this.add(names[0]);
  }

  /** How many there are of an axis, in what is shown now. */
  size(axis) {
    const key = AXES.find(([name]) => name === axis)[2];
    return Math.max(1, ...this.panes.map((pane) => this.about.stores[pane.store][key]));
  }

  buildSliders() {
    const most = (key) => Math.max(...Object.values(this.about.stores).map((store) => store[key]));
    this.sliders = {};
    byId("sliders").replaceChildren(...AXES.filter(([, , key]) => most(key) > 1).map(([axis, label, key]) => {
      const slider = element("input", { type: "range", min: "0", max: String(most(key) - 1), step: "1", value: "0", ariaLabel: label });
      const text = element("output", {});
      slider.oninput = () => this.go({ [axis]: Number(slider.value) });
      this.sliders[axis] = [slider, text];
      return element("label", {}, `${label} `, slider, text);
    }));
    this.tellPlace();
  }

  tellPlace() {
    const store = Object.values(this.about.stores)[0];
    for (const [axis, [slider, text]] of Object.entries(this.sliders)) {
      slider.value = String(this.place[axis]);
      const name = axis === "field" ? this.about.fields[this.place.field]?.name : "";
      const step = { time: `${digits(this.place.time * store.time_step_s)} s`, z: `${digits(this.place.z * store.z_step_um)} µm` }[axis];
      tell(text, `${this.place[axis] + 1} of ${Number(slider.max) + 1} · ${name || step || ""}`);
    }
  }

  step(axis, by) {
    const slider = this.sliders[axis]?.[0];
    if (slider) this.go({ [axis]: Math.min(Math.max(this.place[axis] + by, 0), Number(slider.max)) });
  }

  go(change) {
    Object.assign(this.place, change);
    this.tellPlace();
    if (this.map) { this.map.now = this.place.field; this.map.draw(); }
    this.panes.forEach((pane) => pane.load());
  }

  add(store) {
    const names = Object.keys(this.about.stores);
    const used = this.panes.map((pane) => pane.store);
    this.panes.push(new Pane(this, store ?? names.find((name) => !used.includes(name)) ?? names[0]));
    this.tellPanes();
  }

  drop(pane) {
    if (this.panes.length === 1) return;
    this.panes = this.panes.filter((other) => other !== pane);
    pane.remove();
    this.tellPanes();
  }

  tellPanes() {
    byId("panes").style.setProperty("--panes", String(Math.min(3, this.panes.length)));
    this.panes.forEach((pane) => { pane.close.hidden = this.panes.length === 1; });
  }

  measure() {
    this.sight.measuring = !this.sight.measuring;
    byId("measure").ariaPressed = String(this.sight.measuring);
    byId("panes").classList.toggle("measuring", this.sight.measuring);
    if (!this.sight.measuring) this.sight.forget();
    else tell(byId("measured"), "click two points");
  }

  // ---------------------------------------------------------------- beside the pictures

  buildMap() {
    const { fields, stores } = this.about;
    const store = Object.values(stores)[0];
    const sizeUm = [store.shape[1] * store.pixel_um, store.shape[0] * store.pixel_um];
    tell(byId("map-of"), `${whole(store.fields)} on the stage`);
    if (fields.length < 2) { document.querySelector(".map").hidden = true; return; }
    this.map = new FieldMap(byId("map"), sizeUm, fields.map((field) => field.name), (field) => this.go({ field }));
    this.map.now = 0;
    this.map.place(fields.flatMap(({ corner_um: [, y, x] }) => [x + sizeUm[0] / 2, y + sizeUm[1] / 2]));
    if (fields.length <= MOST_TILES) this.fillMap(Object.keys(stores)[0]);
  }

  /** Small pictures, one after the other. */
  async fillMap(store) {
    const { paint } = await import("./colours.js");
    const found = [];
    for (let field = 0; field < this.about.fields.length; field++) {
      found.push(await fetchImage({ store, field, side: TILE_PX }));
    }
    const values = found.flatMap((image) => Array.from(image.pixels)).filter(Number.isFinite).sort((a, b) => a - b);
    const [low, high] = [0.002, 0.998].map((part) => values[Math.round(part * (values.length - 1))] ?? 0);
    this.map.repaint = () => {
      found.forEach((image, field) => {
        if (image.missing) return;
        this.map.tiles[field] ??= document.createElement("canvas");
        paint(this.map.tiles[field], image.pixels, image.shape, { low, high, gamma: 1, map: "grey" }, { low: 0, high: 65535 });
      });
      this.map.draw();
    };
    this.map.repaint();
  }

  /** Colours have changed. */
  repaint() { this.map?.repaint(); }

  tellFacts() {
    const { began, counts, metrics, objects, actual, cautions } = this.about.facts;
    const groups = [];
    if (counts) {
      groups.push(["Frames", [["saved", `${whole(counts.saved)} of ${whole(counts.expected)}`],
        ["missing", whole(counts.missing), counts.missing ? "bad" : "good"]]]);
    }
    const run = began ? [["began", new Date(began).toLocaleString("en-GB")]] : [];
    if (actual) {
      const most = Math.max(0, ...Object.values(actual.dose_mj_cm2 ?? {}));
      run.push(["imaging", duration(actual.time_s)], ["light on", duration(actual.light_on_s)],
        ["dose, at most", `${digits(most)} mJ/cm²`]);
    }
    if (run.length) groups.push(["Run", run]);
    if (objects?.mean !== undefined && objects?.mean !== null) groups.push(["Objects", [["per field", digits(objects.mean)]]]);
    const found = Object.entries(metrics ?? {}).map(([name, value]) => [name, digits(value)]);
    if (found.length) groups.push(["Against the truth", found]);
    if (cautions?.length) groups.push(["Cautions", cautions.map((text, index) => [`${index + 1}`, text, "odd"])]);
    tellNumbers(byId("numbers"), groups);
  }

  hear() { /* nothing changes any more */ }

  changed(open, ended) {
    const banner = byId("banner");
    tell(banner, open ? "" : ended ? "dmu has ended; this page loads no more images." : "No connection to dmu.");
    banner.hidden = open;
  }
}

/** One picture, and which of the run's images it shows. */
class Pane {
  constructor(page, store) {
    this.page = page;
    this.store = store;
    this.channel = 0;
    this.asked = null;
    this.stores = element("select", { ariaLabel: "Images" }, ...Object.keys(page.about.stores).map((name) =>
      element("option", { value: name, selected: name === store }, NAMES[name] ?? name)));
    this.channels = element("select", { ariaLabel: "Channel or pattern" });
    this.told = element("span", { className: "note" });
    this.close = element("button", { type: "button", className: "plain", title: "Close", ariaLabel: "Close" }, "×");
    this.root = element("div", { className: "pane" },
      element("div", { className: "tools" }, this.stores, this.channels, this.told, this.close));
    byId("panes").append(this.root);
    this.picture = new Picture(this.root, page.sight, "Loading …");
    this.stores.onchange = () => { this.store = this.stores.value; this.channel = 0; this.fillChannels(); this.load(); };
    this.channels.onchange = () => { this.channel = Number(this.channels.value); this.load(); };
    this.close.onclick = () => page.drop(this);
    this.fillChannels();
    this.load();
  }

  remove() {
    this.asked?.abort();
    this.picture.remove();
    this.root.remove();
  }

  fillChannels() {
    const { channels, facts } = this.page.about.stores[this.store];
    this.channels.replaceChildren(...channels.map((name, index) => element("option", { value: String(index) }, name)));
    this.channels.hidden = channels.length < 2;
    tell(this.told, facts.bundle ? `${facts.bundle} · ${facts.model ?? ""}` : "");
  }

  /** What the page's place is; an image that nobody wants any more is not waited for. */
  async load() {
    this.asked?.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    const about = this.page.about.stores[this.store];
    const { field, time, z } = this.page.place;
    const bound = (index, size) => String(Math.min(index, size - 1));
    const wanted = { store: this.store, channel: this.channel, field: bound(field, about.fields), time: bound(time, about.times), z: bound(z, about.planes) };
    try {
      const spread = this.page.spread && about.spread;
      const image = await fetchImage(spread ? { ...wanted, spread: 1 } : wanted, signal);
      if (image.missing) { this.picture.showNothing("Missing: frames of this burst were not saved"); return; }
      this.picture.show(image);
      this.picture.doubt(image.doubt);
      this.picture.canvas.dataset.field = String(field);
      this.picture.canvas.ariaLabel = `${this.store} of ${image.name}`;
      const objects = about.labelled ? await fetchImage({ ...wanted, labels: 1 }, signal) : null;
      this.picture.showObjects(objects);
      if (objects?.count !== undefined && objects?.count !== null) tell(this.told, `${whole(objects.count)} objects`);
      else if (spread) tell(this.told, "standard deviation");
      else if (typeof image.residual === "number") tell(this.told, `residual ${digits(image.residual)}`);
    } catch (error) {
      if (error.name !== "AbortError") this.picture.showNothing(error.message);
    }
  }
}
