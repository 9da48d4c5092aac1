"""What it costs a run that somebody looks at it."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsers import launched
from playwright.sync_api import Browser, Page
from program import COMMAND

ROOT = Path(__file__).parents[2]
WANTED, MOST = 1.03, 1.08
"""Of the time of a run alone. Here the browsers draw on the run's own two cores, which takes a part by itself."""
PAIRS = 3


@pytest.fixture
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    """Nuclei by the bundle of the quickstart, in real time: 60 bursts of 4 frames, some 9 s."""
    rig = yaml.safe_load((ROOT / "devices/simulated.yaml").read_text())
    rig["connections"]["world"]["realtime"] = True
    rig["devices"]["camera"]["readout_ms"] = 5.0
    del rig["calibration"]
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(rig))
    run = yaml.safe_load((ROOT / "protocols/quickstart.yaml").read_text())
    run |= {"rig": "rig.yaml", "exposure_ms": 30.0, "light": {"power_mw": 0.25}}
    run["patterns"]["bundle"] = str(ROOT / "protocols/bundles/nuclei.dmu")
    run["time"] = {"loops": 15, "interval_s": 0.0}
    del run["references"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


@contextmanager
def begun(path: Path, out: Path, *options: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """A run in a process of its own: its address if it has one, and a way to wait for what it tells at its end."""
    command = [*COMMAND, "run", str(path), "--out", str(out), "--json", *options]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        url = ""
        while options and not url:
            found = re.match(r"view: (\S+)", process.stderr.readline())
            url = found[1] if found else ""
        reading = threading.Thread(target=process.stderr.read, daemon=True)
        reading.start()

        def ended() -> dict[str, Any]:
            assert process.stdout is not None
            told = json.loads(process.stdout.read())
            assert process.wait(60) == 0
            return dict(told)

        yield url, ended


def imaging_s(told: dict[str, Any]) -> float:
    """From the first burst to the last."""
    assert told["counts"]["missing"] == 0
    assert told["counts"]["saved"] == told["counts"]["expected"]
    manifest = json.loads((Path(told["run"]) / "manifest.json").read_text())
    return float(manifest["actual"]["time_s"])


def stall(page: Page) -> None:
    """It takes nothing any more of what it is sent."""
    line = page.context.new_cdp_session(page)
    line.send("Debugger.enable")
    line.send("Debugger.pause")


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_two_browsers_of_which_one_stalls_cost_a_run_nothing(
    protocol: Path, tmp_path: Path, chromium: Browser, figure: Callable[..., None]
) -> None:
    alone_s, viewed_s = [], []
    for pair in range(PAIRS):
        with begun(protocol, tmp_path / f"alone-{pair}") as (_, ended):
            alone_s.append(imaging_s(ended()))
        with begun(protocol, tmp_path / f"viewed-{pair}", "--view") as (url, ended), ExitStack() as closing:
            pages = [chromium.new_page(viewport={"width": 1280, "height": 900}) for _ in range(2)]
            for page in pages:
                closing.callback(page.close)
                page.goto(url)
            pages[0].locator("#picture canvas[data-shot]").wait_for()
            stall(pages[1])
            viewed_s.append(imaging_s(ended()))
    ratio = min(viewed_s) / min(alone_s)
    figure("speed", "run time with two browsers, one stalled, by that of a run alone", f"{ratio:.3f}", f"≤ {WANTED}")
    assert ratio <= MOST
