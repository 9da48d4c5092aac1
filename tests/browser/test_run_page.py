"""A run that goes on, in a real browser."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, WebSocketRoute, expect
from viewers import running, viewed, wait_for

from dmu_hw.data import Doubt, Estimate
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.live import Live, Outcome
from dmu_hw.spool import Spool

Yaml = Callable[..., Path]
SHOWN_MS = 2000
DARK_MS = 100


def number(text: str) -> float:
    found = re.search(r"\d[\d.,]*", text)
    assert found is not None, text
    return float(found[0].replace(",", ""))


def pixels(page: Page) -> np.ndarray[Any, Any]:
    """Grey levels of some places of the picture as it is seen."""
    js = """() => { const c = document.querySelector('.sheet canvas');
        const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
        return data.filter((_, i) => i % (4 * 97) === 0).join(' ') }"""
    return np.array(page.evaluate(js).split(), float)


@pytest.fixture
def lit(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Whether the light is on, and when it was put off last."""
    seen: dict[str, Any] = {"on": False, "off_s": 0.0}
    on, off = Light.on, Light.off

    def noted_on(light: Light, *given: float) -> None:
        on(light, *given)
        seen["on"] = True

    def noted_off(light: Light) -> None:
        off(light)
        seen.update(on=False, off_s=time.monotonic())

    monkeypatch.setattr(Light, "on", noted_on)
    monkeypatch.setattr(Light, "off", noted_off)
    return seen


def test_a_run_from_its_first_image_to_the_abort(
    page: Page, run_yaml: Yaml, tmp_path: Path, shoot: Callable[..., None], lit: dict[str, Any]
) -> None:
    with viewed(running(run_yaml(), tmp_path / "runs")) as (voice, _):
        page.goto(voice.url)
        canvas = page.locator("#picture canvas").first
        expect(canvas).to_have_attribute("data-shot", re.compile(r"\d+"))
        assert "token" not in page.url, "it stays in no history"
        first_ms, made_ms = (float(canvas.get_attribute(f"data-first{what}-ms") or "nan") for what in ("", "-made"))
        assert 0 <= first_ms - made_ms <= SHOWN_MS
        assert np.ptp(pixels(page)) > 50
        expect(page.locator("#name")).to_have_text("small")
        expect(page.locator("#stage")).to_have_text("imaging")
        expect(page.locator("#light")).to_have_text(re.compile("light ON|dark"))
        expect(page.locator("#frames figure")).to_have_count(4)
        expect(page.locator("#patterns figure")).to_have_count(4)
        numbers = page.locator("#numbers")
        for what in ("time", "left", "bursts", "saved", "missing", "dose, here", "light on", "latency"):
            expect(numbers.get_by_text(what, exact=True)).to_be_visible()
        expect(page.locator("#calibration")).to_contain_text("nothing measured")
        shoot("run-wide")
        shoot("run-narrow", narrow=True)
        _pause_and_go(page, lit)
        wait_for(lambda: lit["on"])
        page.locator("#abort").click()
        expect(page.locator("#banner")).to_contain_text("Aborted. Dark")
        assert number(page.locator("#banner").inner_text()) <= DARK_MS
        assert not lit["on"]
        shoot("run-aborted")
    assert voice.status == 3
    expect(page.locator("#banner")).to_contain_text("has ended")
    expect(page.locator("#light")).to_have_text("○ no light")


def _pause_and_go(page: Page, lit: dict[str, Any]) -> None:
    page.keyboard.press("Space")
    expect(page.locator("#stage")).to_have_text("paused")
    expect(page.locator("#light")).to_have_text("○ dark")
    dark_s = lit["off_s"]
    page.wait_for_timeout(300)
    assert (lit["on"], lit["off_s"]) == (False, dark_s)
    page.locator("#pause").click()
    expect(page.locator("#stage")).to_have_text("imaging")


def test_an_abort_by_keys_while_the_writer_is_stalled(
    page: Page, run_yaml: Yaml, tmp_path: Path, lit: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled, may_write = threading.Event(), threading.Event()
    put = Spool.put
    monkeypatch.setattr(Spool, "put", lambda *given: (stalled.set(), may_write.wait(60), put(*given))[2])
    with viewed(running(run_yaml(), tmp_path / "runs")) as (voice, _):
        try:
            page.goto(voice.url)
            expect(page.locator("#light")).to_have_text("● light ON")
            assert stalled.wait(30)
            wait_for(lambda: lit["on"])
            page.keyboard.press("Shift+A")
            expect(page.locator("#banner")).to_contain_text("Aborted. Dark")
            assert number(page.locator("#banner").inner_text()) <= DARK_MS
            assert not lit["on"]
            assert not may_write.is_set()
        finally:
            may_write.set()
    assert voice.status == 3


def test_a_line_that_breaks_leaves_no_page_that_says_dark(page: Page, run_yaml: Yaml, tmp_path: Path) -> None:
    lines: list[WebSocketRoute] = []
    broken = threading.Event()

    def through(line: WebSocketRoute) -> None:
        if broken.is_set():
            line.close(code=1011)
        else:
            lines.append(line)
            line.connect_to_server()

    page.route_web_socket(re.compile("/socket$"), through)
    with viewed(running(run_yaml(), tmp_path / "runs")) as (voice, _):
        page.goto(voice.url)
        expect(page.locator("#light")).to_have_text(re.compile("light ON|dark"))
        broken.set()
        lines[0].close(code=1011)
        expect(page.locator("#banner")).to_contain_text("what is shown is old")
        expect(page.locator("#light")).to_have_text("? light unknown")
        page.keyboard.press("Shift+A")
        expect(page.locator("#banner")).to_contain_text("the abort did NOT go through")
        broken.clear()
        expect(page.locator("#banner")).to_be_hidden()
        page.keyboard.press("Shift+A")
        expect(page.locator("#banner")).to_contain_text("Aborted. Dark")


def test_words_are_text_and_nothing_else(page: Page, run_yaml: Yaml, tmp_path: Path) -> None:
    """They come from files and devices that anybody may have written."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    with viewed(running(run_yaml(), tmp_path / "runs")) as (voice, _):
        page.goto(voice.url)
        logging.getLogger("dmu_hw.drivers").warning(evil)
        expect(page.locator("#messages")).to_contain_text(evil)
        assert page.locator("img").count() == 0
        page.reload()  # without the token, which is in the cookie now
        expect(page.locator("#stage")).to_have_text("imaging")
        page.locator("#abort").click()


def test_contrast_zoom_and_keys(page: Page, run_yaml: Yaml, tmp_path: Path) -> None:
    with viewed(running(run_yaml(), tmp_path / "runs")) as (voice, _):
        page.goto(voice.url)
        expect(page.locator("#picture canvas").first).to_have_attribute("data-shot", re.compile(r"\d+"))
        page.keyboard.press("Space")
        expect(page.locator("#stage")).to_have_text("paused")
        page.wait_for_timeout(400)
        whole = pixels(page)
        page.get_by_label("Bright", exact=True).fill("100")
        page.keyboard.press("Tab")
        assert pixels(page).mean() < 0.5 * whole.mean()
        page.keyboard.press("Escape")
        page.locator("h1").click()
        page.keyboard.press("a")
        assert abs(pixels(page).mean() - whole.mean()) < 0.05 * whole.mean()
        page.keyboard.press("+")
        assert pixels(page).shape == whole.shape
        assert np.abs(pixels(page) - whole).mean() > 1
        page.keyboard.press("0")
        assert np.abs(pixels(page) - whole).mean() < 1e-6 + 0.01 * whole.mean()
        page.keyboard.press("?")
        expect(page.locator("#help")).to_contain_text("abort: end the run at once, in the dark")
        page.keyboard.press("Escape")
        page.keyboard.press("r")
        red = page.evaluate("() => getComputedStyle(document.body).color")
        assert re.match(r"rgb\(1\d\d, [1-6]\d, [1-6]\d\)", red), "no blue and no green to speak of"
        page.keyboard.press("Shift+A")


def test_objects_spread_and_doubt(
    page: Page, run_yaml: Yaml, tmp_path: Path, shoot: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bundle that segments and doubts would tell them."""
    labels = np.zeros((32, 32), np.int32)
    labels[4:12, 4:12], labels[16:28, 10:30] = 1, 2
    tell = Live._tell

    def telling(live: Live, outcome: Outcome) -> None:
        doubt = Doubt(2.0, ("out of focus",))
        image = outcome.estimate.image
        estimate = Estimate(image, 0.5, "hash", labels, np.full_like(image, 0.1), 3.5, doubt)
        tell(live, Outcome(outcome.shot, outcome.channel, estimate, outcome.latency_ms, outcome.frames))

    monkeypatch.setattr(Live, "_tell", telling)
    with viewed(running(run_yaml(), tmp_path / "runs")) as (voice, _):
        page.goto(voice.url)
        expect(page.locator(".flag")).to_contain_text("out of focus")
        numbers = page.locator("#numbers")
        expect(numbers.locator("div", has_text=re.compile(r"^objects2$"))).to_be_visible()
        expect(numbers.locator("dd.bad", has_text="3.5")).to_be_visible()
        expect(page.locator("#map-of")).to_contain_text("? doubtful")
        shoot("run-doubt")
        page.keyboard.press("u")
        page.wait_for_timeout(300)
        page.locator("#abort").click()


def test_a_run_that_fails_says_so(page: Page, run_yaml: Yaml, tmp_path: Path) -> None:
    """The page has some bursts to be built in."""
    faults = {"connections.world.faults": [{"kind": "camera_death", "at": 36}]}
    with viewed(running(run_yaml(rig=faults), tmp_path / "runs")) as (voice, _):
        page.goto(voice.url)
        expect(page.locator("#stage")).to_have_text("failed", timeout=30_000)
        expect(page.locator("#banner")).to_contain_text("camera")
        expect(page.locator("#light")).to_have_text("○ no light")
    assert voice.status == 1
