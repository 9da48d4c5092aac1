/** Numbers and elements for people. */

/** 27.639 → 27.6; no more digits than mean something. */
export function digits(value, significant = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const places = Math.max(0, Math.min(12, significant - 1 - Math.floor(Math.log10(Math.abs(value)))));
  return value.toLocaleString("en-US", { maximumFractionDigits: places }).replace("-", "−");
}

/** A whole number, with a comma at the thousands. */
export const whole = (value) => (value ?? 0).toLocaleString("en-US");

/** 0.116 → 116 ms, 83 → 1 min 23 s. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.round(seconds) % 60).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} days`;
}

export function bytes(count) {
  for (const [unit, each] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (count >= each) return `${digits(count / each)} ${unit}`;
  }
  return `${Math.round(count)} bytes`;
}

/** An element. Whatever stands in it comes as text: names are other people's. */
export function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...inside.map((part) => (part instanceof Node ? part : String(part))));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Text of an element, touched only when it changes. */
export function tell(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/**
 * Groups of named numbers, kept up to date in place.
 * rows: [[group, [[name, text, mark]]]]; mark: "" | "good" | "bad" | "odd"
 */
export function tellNumbers(where, groups) {
  const layout = groups.map(([group, rows]) => [group, rows.map((row) => row[0])]);
  const key = JSON.stringify(layout);
  if (where.dataset.layout !== key) {
    where.dataset.layout = key;
    where.replaceChildren(...groups.map(([group, rows]) => element("div", { className: "group" },
      element("h2", {}, group),
      element("dl", {}, ...rows.map(([name]) => element("div", {}, element("dt", {}, name), element("dd")))))));
  }
  const places = where.querySelectorAll("dd");
  groups.flatMap(([, rows]) => rows).forEach(([, text, mark = ""], index) => {
    tell(places[index], text);
    if (places[index].className !== mark) places[index].className = mark;
  });
}

/** The last messages, the newest first. */
export function tellMessages(where, lines) {
  where.replaceChildren(...[...lines].reverse().map((line) => element("li", { className: line.level },
    element("time", {}, new Date(line.at * 1e3).toLocaleTimeString("en-GB")), " ", line.text)));
}
