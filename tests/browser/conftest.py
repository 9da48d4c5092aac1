"""Pages, and runs that nobody waits the end of."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsers import launched
from playwright.sync_api import Browser, Page

from dmu_hw.cli.stop import Stopped

SHOTS = "DMU_SCREENSHOTS"
"""Environment variable: the folder that pictures of the pages go to, for people to look at."""
WIDE, NARROW = (1600, 1000), (390, 844)
RUN: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "inverse": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1},
    "light": {"power_mw": 1.0},
    "exposure_ms": 60.0,
    "positions": [{"x_um": 0.0, "y_um": 0.0}, {"x_um": 20.0, "y_um": 0.0}, {"x_um": 0.0, "y_um": 20.0}],
    "time": {"loops": 500, "interval_s": 0.0},
}
REAL_TIME = {"connections.world.realtime": True, "devices.camera.readout_ms": 5.0}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that nothing has gone wrong on when the test ends."""
    context = chromium.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    yield page
    context.close()
    # that the program has ended is what some tests are about, and browsers call it an error
    assert [what for what in wrong if "WebSocket" not in what and "ERR_CONNECTION" not in what] == []


@pytest.fixture
def shoot(page: Page) -> Callable[..., None]:
    """Keeps a picture of the page, if anybody wants to look at it."""

    def take(name: str, *, narrow: bool = False) -> None:
        folder, size = os.environ.get(SHOTS), NARROW if narrow else WIDE
        if folder:
            before = page.viewport_size
            page.set_viewport_size({"width": size[0], "height": size[1]})
            page.wait_for_timeout(300)
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=narrow)
            if before is not None:
                page.set_viewport_size(before)

    return take


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set: as if somebody pressed Ctrl-C."""
    wanted = threading.Event()

    def poll() -> None:
        if wanted.is_set():
            raise Stopped("Ctrl-C")

    monkeypatch.setattr("dmu_hw.cli.viewing.poll", poll)
    return wanted


@pytest.fixture
def run_yaml(tmp_path: Path, rig_yaml: Callable[..., Path]) -> Callable[..., Path]:
    """A run in real time that nobody waits the end of, with some keys changed, and the small rig beside it."""

    def write(changes: Mapping[str, Any] | None = None, rig: Mapping[str, Any] | None = None) -> Path:
        rig_yaml(REAL_TIME | dict(rig or {}))
        protocol = copy.deepcopy(RUN) | dict(changes or {})
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in protocol.items() if value is not ...}))
        return path

    return write
