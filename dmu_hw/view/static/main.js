/** Builds the page that fits what is viewed, and keeps the line to the program. */

import { listen, onKey, showKeys } from "./keys.js";
import { LookPage } from "./look.js";
import { RigPage } from "./rig.js";
import { RunPage } from "./run.js";
import { fetchAbout, Line } from "./wire.js";
import { byId, tell } from "./words.js";

const PAGES = { run: RunPage, look: LookPage, rig: RigPage };

/** Red only, for eyes that must stay used to the dark. */
function setNight(red) {
  document.documentElement.dataset.night = red ? "red" : "";
  byId("night").ariaPressed = String(red);
  localStorage.setItem("dmu-night", red ? "red" : "");
}

async function begin() {
  history.replaceState(null, "", location.pathname); // the token stays in no history
  setNight(localStorage.getItem("dmu-night") === "red");
  byId("keys").onclick = showKeys;
  const about = await fetchAbout();
  document.title = `${about.name} · dmu`;
  document.body.dataset.mode = about.mode;
  byId("main").replaceChildren(byId(`page-${about.mode}`).content.cloneNode(true));
  let page = null;
  const waiting = [];
  const line = new Line(
    (post) => (page ? page.hear(post) : waiting.push(post)),
    (open, ended) => page?.changed(open, ended),
  );
  page = new PAGES[about.mode](about, line);
  page.changed(line.socket.readyState === WebSocket.OPEN, false);
  waiting.forEach((post) => page.hear(post));
  const turn = () => {
    setNight(document.documentElement.dataset.night !== "red");
    page.sight.pictures.forEach((picture) => picture.repaint());
    page.repaint();
  };
  byId("night").onclick = turn;
  onKey("r", "red light only, for dark rooms", turn);
  onKey("?", "these keys", showKeys);
  listen();
}

begin().catch((error) => {
  tell(byId("banner"), `The page cannot be built: ${error.message}`);
  byId("banner").hidden = false;
});
