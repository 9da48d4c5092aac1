/** Keys, and the list of them that `?` shows. */

import { byId, element } from "./words.js";

const known = [];

/** @param {string} shown for people @param {(event: KeyboardEvent) => boolean} is @param {string} what it does */
function add(shown, is, what, act) {
  known.push({ shown, is, what, act });
}

/** One key, as `event.key` names it. Letters are meant without Shift unless they are large. */
export function onKey(key, what, act, shown = key) {
  add(shown, (event) => event.key === key, what, act);
}

export function onKeys(keys, what, act, shown) {
  add(shown, (event) => keys.includes(event.key), what, act);
}

export function showKeys() {
  const list = byId("help-keys");
  list.replaceChildren(...known.map(({ shown, what }) => element("div", {},
    element("dt", {}, ...shown.split(" ").map((key) => element("kbd", {}, key))), element("dd", {}, what))));
  byId("help").showModal();
}

/** Whether keys are text now. */
function isTyping(target) {
  return target instanceof HTMLElement && target.matches("input:not([type=range]), select, textarea");
}

export function listen() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    if (event.key === " " && event.target instanceof HTMLButtonElement) return;
    if (event.key.startsWith("Arrow") && event.target instanceof HTMLInputElement) return;
    const found = known.find(({ is }) => is(event));
    if (!found || (byId("help").open && event.key !== "A")) return;
    event.preventDefault();
    found.act(event);
  });
}

/** Those of every picture. */
export function pictureKeys(picture, sight) {
  onKey("a", "automatic contrast", () => { picture().setAuto(true); picture().repaint(); });
  onKeys(["+", "="], "zoom in", () => picture().zoomBy(1.4), "+");
  onKey("-", "zoom out", () => picture().zoomBy(1 / 1.4));
  onKey("0", "the whole picture", () => sight.fit());
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  onKeys(Object.keys(ways), "move what is enlarged", (event) => picture().moveBy(...ways[event.key]), "← → ↑ ↓");
  onKey("o", "objects on, or off", () => {
    sight.pictures.forEach((each) => { each.outlines = !each.outlines; each.draw(); });
  });
}
