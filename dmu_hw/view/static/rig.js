/** The page of a rig: what its camera sees now, with light only while somebody looks. */

import { marks } from "./colours.js";
import { onKey, pictureKeys } from "./keys.js";
import { Picture, Sight } from "./picture.js";
import { byId, digits, duration, tell, tellMessages, tellNumbers, whole } from "./words.js";

const WATCH_MS = 500;
const KEPT = 300;

export class RigPage {
  constructor(about, line) {
    this.about = about;
    this.line = line;
    this.sight = new Sight();
    this.picture = new Picture(byId("picture"), this.sight, "Dark. Press Light on to see what the camera sees.");
    this.trace = [];
    this.wanted = false;
    this.build();
  }

  build() {
    const { about } = this;
    const { limits } = about;
    tell(byId("name"), about.name);
    tell(byId("subtitle"), `live preview${about.channel ? ` · ${about.channel}` : ""}`);
    byId("light").hidden = byId("abort").hidden = false;
    byId("abort").textContent = "Light off";
    byId("abort").onclick = () => this.lightOff();
    byId("power").value = String(Math.min(1, limits.power_mw));
    byId("power").max = String(limits.power_mw);
    byId("exposure").value = String(Math.min(20, limits.exposure_ms));
    byId("exposure").max = String(limits.exposure_ms);
    const cap = limits.dose_mj_cm2 === null ? "" : `, ${digits(limits.dose_mj_cm2)} mJ/cm²`;
    tell(byId("limits"), `The rig allows ${digits(limits.power_mw)} mW, ${digits(limits.exposure_ms, 5)} ms${cap}.`);
    byId("lamp").onclick = () => this.lamp(!this.wanted);
    for (const id of ["power", "exposure"]) byId(id).onchange = () => { if (this.wanted) this.lamp(true); };
    onKey("A", "light off, at once", () => this.lightOff(), "Shift A");
    onKey("l", "light on, or off", () => this.lamp(!this.wanted));
    pictureKeys(() => this.picture, this.sight);
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.lamp(false); });
    addEventListener("pagehide", () => this.lamp(false));
    setInterval(() => { if (!document.hidden) this.line.order({ do: "watch" }); }, WATCH_MS);
    new ResizeObserver(() => this.drawTrace()).observe(byId("sharpness"));
  }

  lamp(on) {
    const [power, exposure] = [Number(byId("power").value), Number(byId("exposure").value)];
    this.line.order({ do: "lamp", on, power_mw: power > 0 ? power : 1e-3, exposure_ms: exposure > 0 ? exposure : 1 });
    if (!on) this.wanted = false;
  }

  lightOff() {
    this.wanted = false;
    if (!this.line.order({ do: "abort" })) this.changed(false, false);
  }

  hear(post) {
    if (post.kind === "frame") this.showFrame(post);
    else if (post.kind === "state") this.tellState(post);
    else if (post.kind === "messages") tellMessages(byId("messages"), post.lines);
  }

  showFrame(post) {
    this.picture.show(post);
    this.picture.canvas.dataset.number = String(post.number);
    this.trace.push([post.sharpness, post.sharpness_error ?? 0]);
    if (this.trace.length > KEPT) this.trace.shift();
    this.drawTrace();
    this.last = post;
  }

  tellState(state) {
    this.wanted = state.wanted;
    byId("lamp").ariaPressed = String(state.wanted);
    byId("lamp").textContent = state.wanted ? "Light off" : "Light on";
    const unknown = Object.values(state.lights).some((is) => is === null);
    const on = state.lit || Object.values(state.lights).some((is) => is);
    tell(byId("light"), unknown ? "? light unknown" : on ? "● light ON" : "○ dark");
    byId("light").dataset.light = unknown ? "unknown" : on ? "on" : "dark";
    tell(byId("stage"), state.lit ? "looking" : "waiting");
    const clipped = state.clipped ?? 0;
    const most = this.trace.reduce((best, [value]) => Math.max(best, value), 0);
    tellNumbers(byId("numbers"), [
      ["Light", [["dose so far, at most", `${digits(state.dose_mj_cm2)} mJ/cm²`], ["light on", duration(state.light_on_ms / 1e3)]]],
      ["Camera", [["frames", whole(state.frames)], ["mean", `${digits(this.last?.mean)} ADU`],
        ["clipped", `${digits(100 * clipped, 2)} %`, clipped > 1e-4 ? "bad" : "good"]]],
      ["Focus", [["sharpness", digits(state.sharpness)], ["of the best so far", most ? `${digits((100 * state.sharpness) / most)} %` : "–"]]],
    ]);
  }

  /** The focus measure over the last frames, with its error as a band. */
  drawTrace() {
    const canvas = byId("sharpness");
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !this.trace.length) return;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const most = Math.max(...this.trace.map(([value, error]) => value + error), 1e-12) * 1.05;
    const x = (index) => (index / Math.max(1, KEPT - 1)) * width;
    const y = (value) => height - 4 - (Math.max(0, value) / most) * (height - 8);
    context.fillStyle = marks().line;
    this.trace.forEach(([value, error], index) => {
      context.fillRect(x(index), y(value + error), width / KEPT + 1, Math.max(1, y(value - error) - y(value + error)));
    });
    context.strokeStyle = marks().link;
    context.lineWidth = 2;
    context.beginPath();
    this.trace.forEach(([value], index) => context.lineTo(x(index), y(value)));
    context.stroke();
  }

  /** Colours have changed. */
  repaint() { this.drawTrace(); }

  changed(open, ended) {
    const banner = byId("banner");
    const lost = ended ? "dmu has ended; the light is off." : "No connection: the light goes off by itself within 1.5 s.";
    tell(banner, open ? "" : lost);
    banner.classList.toggle("bad", !open && !ended);
    banner.hidden = open;
    if (!open) {
      tell(byId("light"), ended ? "○ no light" : "? light unknown");
      byId("light").dataset.light = ended ? "dark" : "unknown";
    }
  }
}
