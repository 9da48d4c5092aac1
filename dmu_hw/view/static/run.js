/** The page of a run that goes on. */

import { paint } from "./colours.js";
import { onKey, pictureKeys } from "./keys.js";
import { FieldMap } from "./map.js";
import { Picture, Sight } from "./picture.js";
import { byId, bytes, digits, duration, element, tell, tellMessages, tellNumbers, whole } from "./words.js";

const STALE_MS = 2500;

export class RunPage {
  constructor(about, line) {
    this.about = about;
    this.line = line;
    this.channel = about.channels[0];
    this.posts = new Map(); // the newest of each kind
    this.state = null;
    this.heardMs = 0;
    this.sight = new Sight();
    this.picture = new Picture(byId("picture"), this.sight, "No reconstruction yet");
    this.map = new FieldMap(byId("map"), about.field_um, about.fields);
    this.shows = "estimate";
    this.build();
  }

  build() {
    tell(byId("name"), this.about.name);
    tell(byId("subtitle"), `${this.about.rig} · ${this.about.folder}`);
    const several = this.about.channels.length > 1;
    byId("channels").replaceChildren(...(several ? this.about.channels.map((name) => element("button", {
      type: "button", ariaPressed: String(name === this.channel), onclick: () => this.choose(name) }, name)) : []));
    byId("pause").hidden = byId("abort").hidden = byId("progress").hidden = byId("light").hidden = false;
    byId("pause").onclick = () => this.pauseOrGo();
    byId("abort").onclick = () => this.abort();
    onKey("A", "abort: end the run at once, in the dark", () => this.abort(), "Shift A");
    onKey(" ", "pause, or go on", () => this.pauseOrGo(), "Space");
    if (several) onKey("c", "the next channel", () => this.next());
    onKey("u", "how unsure the image is, if the bundle tells", () => this.turn());
    pictureKeys(() => this.picture, this.sight);
    this.tellCalibration();
    for (const caution of this.about.cautions) this.caution(caution);
    setInterval(() => { this.tellStage(); this.tellCalibration(); }, 1000);
    this.tellStage();
  }

  caution(text) {
    byId("messages").append(element("li", { className: "caution" }, text));
  }

  next() {
    const place = this.about.channels.indexOf(this.channel);
    this.choose(this.about.channels[(place + 1) % this.about.channels.length]);
  }

  choose(channel) {
    this.channel = channel;
    for (const button of byId("channels").children) button.ariaPressed = String(button.textContent === channel);
    this.picture.showNothing("No reconstruction yet");
    for (const kind of ["patterns", "frames", "estimate", "labels", "tiles"]) {
      const post = this.posts.get(`${kind}/${channel}`);
      if (post) this.show(kind, post);
    }
  }

  /** Colours have changed. */
  repaint() {
    for (const kind of ["frames", "patterns"]) {
      const post = this.posts.get(`${kind}/${this.channel}`);
      if (post) this.show(kind, post);
    }
    this.map.repaint();
  }

  /** Image, or its spread. */
  turn() {
    this.shows = this.shows === "estimate" && this.posts.has(`spread/${this.channel}`) ? "spread" : "estimate";
    const post = this.posts.get(`${this.shows}/${this.channel}`);
    if (post) this.show(this.shows, post);
  }

  // ---------------------------------------------------------------- what is asked for

  abort() {
    if (!this.line.order({ do: "abort" })) this.banner("No connection: the abort did NOT go through. Use Ctrl-C, or the switch.", true);
  }

  pauseOrGo() {
    this.line.order({ do: this.state?.control === "paused" ? "go" : "pause" });
  }

  banner(text, bad) {
    const banner = byId("banner");
    tell(banner, text);
    banner.classList.toggle("bad", bad);
    banner.hidden = !text;
  }

  // ---------------------------------------------------------------- what is heard

  hear(post) {
    this.posts.set(post.kind, post);
    const [kind, channel] = post.kind.split("/");
    if (kind === "state") {
      this.state = post;
      this.heardMs = performance.now();
      this.tellStage();
      this.tellAll();
    } else if (kind === "places") this.map.place(post.pixels);
    else if (kind === "map" && post.pixels) this.showProgress(post);
    else if (kind === "messages") tellMessages(byId("messages"), post.lines);
    else if (kind === "aborted") this.banner(`Aborted. Dark ${Math.round(post.dark_ms)} ms after the order.`, false);
    else if (channel === this.channel) this.show(kind, post);
  }

  show(kind, post) {
    if (kind === this.shows) this.showEstimate(post);
    else if (kind === "labels") this.picture.showObjects(post);
    else if (kind === "frames") this.showFrames(post);
    else if (kind === "patterns") this.showPatterns(post);
    else if (kind === "tiles") this.map.tile(post, { ...this.picture.shown });
  }

  showEstimate(post) {
    this.estimate = post;
    this.picture.show(post);
    this.picture.doubt(post.doubt);
    const canvas = this.picture.canvas;
    canvas.ariaLabel = `Reconstruction of ${post.name}`;
    canvas.dataset.shot = String(post.shot);
    canvas.dataset.firstMs ??= String(Date.now());
    canvas.dataset.firstMadeMs ??= String(post.at * 1e3);
  }

  showProgress(post) {
    this.map.progress(post.pixels, this.about.fields.length, this.about.bursts_per_field, post.now);
    const flagged = [[this.map.missing, "× frames missing"], [this.map.doubtful, "? doubtful"]];
    const told = flagged.filter(([count]) => count).map(([count, what]) => `${whole(count)} ${what}`);
    tell(byId("map-of"), [`${whole(this.about.fields.length)} on the stage`, ...told].join(" · "));
  }

  showFrames(post) {
    const where = `${post.name}, time ${post.time}${this.about.planes > 1 ? `, plane ${post.z}` : ""}`;
    tell(byId("frames-of"), post.frame_px ? `${where} · ${post.frame_px[1]}×${post.frame_px[0]} px each` : where);
    const thumbs = (post.patterns ?? []).map((pattern, index) => ({ pattern, index, why: "" }));
    post.missing.forEach((pattern, index) => thumbs.push({ pattern, index: null, why: post.why[index] }));
    thumbs.sort((one, other) => one.pattern - other.pattern);
    const shown = { low: post.low, high: post.high, gamma: 1, map: "grey" };
    this.fill(byId("frames"), thumbs.length, (canvas, caption, place) => {
      const { pattern, index, why } = thumbs[place];
      tell(caption, why ? `${pattern} missing` : `${pattern}`);
      canvas.parentElement.title = why;
      canvas.parentElement.classList.toggle("bad", Boolean(why));
      if (index === null) { canvas.width = canvas.height = 8; return; }
      const [, rows, columns] = post.shape;
      paint(canvas, post.pixels, [rows, columns], shown, post, index * rows * columns);
    });
  }

  showPatterns(post) {
    const [count, rows, columns] = post.shape;
    tell(byId("patterns-of"), `one tile, ${columns}×${rows} object pixels`);
    const shown = { low: 0, high: 1, gamma: 1, map: "grey" };
    this.fill(byId("patterns"), count, (canvas, caption, place) => {
      tell(caption, `${place}`);
      canvas.classList.add("blocky");
      paint(canvas, post.pixels, [rows, columns], shown, { low: 0, high: 255 }, place * rows * columns);
    });
  }

  /** So many small pictures in a row, each drawn by `draw`. */
  fill(where, count, draw) {
    while (where.children.length < count) {
      where.append(element("figure", {}, element("canvas"), element("figcaption")));
    }
    while (where.children.length > count) where.lastChild.remove();
    [...where.children].forEach((figure, place) => draw(figure.children[0], figure.children[1], place));
  }

  // ---------------------------------------------------------------- what is told

  /** The line to the program; without it nothing that is shown can be trusted, the light least of all. */
  changed(open, ended) {
    this.ended = ended;
    this.open = open;
    const failed = this.posts.get("failed");
    if (ended && failed) this.banner(`The run ended before its time: ${failed.why}. What was taken is kept.`, true);
    else if (ended) this.banner("The run has ended. Its folder holds everything: dmu view RUN shows it.", false);
    else if (open) this.banner("", false);
    else if (this.wasOpen) this.banner("No connection to the program: what is shown is old. Trying again …", true);
    this.wasOpen ||= open;
    this.tellStage();
  }

  tellStage() {
    const { state } = this;
    const stale = !this.open || performance.now() - this.heardMs > STALE_MS;
    document.body.classList.toggle("stale", stale && !this.ended);
    tell(byId("stage"), this.ended ? (this.posts.has("failed") ? "failed" : "ended") : !state ? "waiting" : state.control === "running" ? state.stage : state.control);
    byId("stage").dataset.control = state?.control ?? "";
    this.tellLight(stale);
    if (!state) return;
    byId("pause").textContent = state.control === "paused" ? "Go on" : "Pause";
    const over = this.ended || state.control === "aborting" || state.stage !== "imaging";
    byId("pause").disabled = over;
    byId("abort").disabled = this.ended || state.control === "aborting";
    byId("progress").value = state.total ? state.done / state.total : 0;
  }

  tellLight(stale) {
    const light = byId("light");
    const lit = Object.entries(this.state?.lights ?? {});
    const on = lit.filter(([, is]) => is === true).map(([name]) => name);
    const unknown = lit.some(([, is]) => is === null);
    const imaging = this.state?.stage === "imaging";
    let [sign, text, kind] = ["○", "dark", "dark"];
    if (this.ended || (!stale && !imaging && this.state)) [sign, text, kind] = ["○", "no light", "dark"];
    else if (stale || !lit.length || unknown) [sign, text, kind] = ["?", "light unknown", "unknown"];
    else if (on.length) [sign, text, kind] = ["●", lit.length > 1 ? `${on.join(", ")} ON` : "light ON", "on"];
    tell(light, `${sign} ${text}`);
    light.dataset.light = kind;
  }

  tellAll() {
    const { state, about } = this;
    const { counts, dose, rates, live, now } = state;
    const run = [["time", duration(state.elapsed_s)], ["left", duration(state.left_s)],
      ["bursts", `${whole(state.done)} of ${whole(state.total)}`]];
    if (now.name !== undefined) run.push(["field", `${now.name} (${now.field + 1} of ${about.fields.length})`]);
    if (about.times > 1) run.push(["time point", `${now.time + 1 || "–"} of ${about.times}`]);
    if (about.planes > 1) run.push(["plane", `${now.z + 1 || "–"} of ${about.planes}`]);
    run.push(["rate", `${digits(rates.bursts_s)} bursts/s · ${digits(rates.frames_s)} frames/s`],
      ["data", `${bytes(rates.bytes_s)}/s`]);
    const groups = [["Run", run]];
    if (counts) groups.push(["Frames", this.frameRows(counts)], ["Light", this.lightRows(counts, dose)]);
    groups.push(["Reconstruction", this.liveRows(live)]);
    tellNumbers(byId("numbers"), groups);
  }

  frameRows(counts) {
    const rows = [["saved", `${whole(counts.saved)} of ${whole(counts.expected)}`], ["received", whole(counts.received)],
      ["missing", whole(counts.missing), counts.missing ? "bad" : "good"]];
    if (counts.duplicates) rows.push(["given twice", whole(counts.duplicates)]);
    if (counts.retaken_bursts) rows.push(["bursts taken again", whole(counts.retaken_bursts), "odd"]);
    if (counts.unproven_bursts) rows.push(["order not proven", whole(counts.unproven_bursts), "odd"]);
    if (counts.late_bursts) rows.push(["time points late", whole(counts.late_bursts), "odd"]);
    return rows;
  }

  lightRows(counts, dose) {
    const cap = this.about.cap_mj_cm2;
    const rows = [["dose, here", `${digits(dose.here_mj_cm2)} mJ/cm²`],
      ["dose, at most", `${digits(dose.most_mj_cm2)} mJ/cm²`]];
    if (cap !== null) rows.push(["allowed", `${digits(cap)} mJ/cm²`, dose.most_mj_cm2 > 0.9 * cap ? "odd" : ""]);
    rows.push(["light on", duration(counts.light_on_ms / 1e3)]);
    return rows;
  }

  liveRows(live) {
    const { estimate } = this;
    const rows = [];
    if (live.made !== undefined) rows.push(["made", `${whole(live.made)} of ${whole(live.bursts)}`]);
    if (live.failed) rows.push(["failed", whole(live.failed), "bad"]);
    if (estimate?.latency_ms !== undefined && estimate?.latency_ms !== null) {
      rows.push(["latency", `${digits(estimate.latency_ms)} ms`]);
    }
    if (live.p50_ms) rows.push(["half · 99 % within", `${digits(live.p50_ms)} · ${digits(live.p99_ms)} ms`]);
    if (live.budget_ms) rows.push(["budget", `${digits(live.budget_ms)} ms`, live.budget_kept === false ? "bad" : "good"]);
    if (live.dropped !== undefined) rows.push(["left out, newer came", whole(live.dropped), live.dropped ? "odd" : "good"]);
    if (estimate && estimate.count !== null) rows.push(["objects", whole(estimate.count)]);
    if (estimate && estimate.residual !== null) {
      rows.push(["residual", digits(estimate.residual), estimate.doubt ? "bad" : "good"]);
    }
    if (!rows.length) rows.push(["live", "–"]);
    return rows;
  }

  tellCalibration() {
    const now = Date.now() / 1e3;
    const told = this.about.calibration.map(({ name, at, good_until: until, verdict }) => {
      const stale = now > until;
      const left = stale ? `good until ${duration(now - until)} ago` : `good for ${duration(until - now)} more`;
      return element("li", { className: stale || verdict !== "pass" ? "caution" : "" },
        element("b", {}, name), ` ${duration(now - at)} old, ${left}${verdict === "warn" ? ", with warnings" : ""}`);
    });
    const none = element("li", { className: "caution" }, "nothing measured: the rig's file is believed");
    byId("calibration").replaceChildren(...(told.length ? told : [none]));
  }
}
