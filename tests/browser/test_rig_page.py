"""A live preview, in a real browser."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from viewers import viewed, wait_for

from dmu_hw.cli.viewing import view_rig
from dmu_hw.drivers.simulated.light import Light

Yaml = Callable[..., Path]


def test_light_only_while_somebody_looks(
    page: Page,
    run_yaml: Yaml,
    tmp_path: Path,
    shoot: Callable[..., None],
    stopping: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lit_s: list[float] = []
    on = Light.on
    monkeypatch.setattr(Light, "on", lambda light, *given: (lit_s.append(time.monotonic()), on(light, *given))[1])
    run_yaml()
    with viewed(lambda output: view_rig(tmp_path / "rig.yaml", None, 0, output), stopping) as (voice, _):
        page.goto(voice.url)
        expect(page.locator("#light")).to_have_text("○ dark")
        page.wait_for_timeout(300)
        assert not lit_s
        page.locator("#power").fill("0.5")
        page.locator("#exposure").fill("20")
        page.keyboard.press("Tab")
        page.locator("h1").click()
        page.keyboard.press("l")
        expect(page.locator("#picture canvas").first).to_have_attribute("data-number", re.compile(r"\d+"))
        expect(page.locator("#light")).to_have_text("● light ON")
        expect(page.locator("#numbers")).to_contain_text("sharpness")
        page.wait_for_timeout(1900)
        assert lit_s[-1] > time.monotonic() - 1.0, "somebody looks: it goes on"
        expect(page.locator("#numbers dd").first).not_to_have_text("0 mJ/cm²")
        shoot("rig-wide")
        page.locator("#abort").click()
        expect(page.locator("#light")).to_have_text("○ dark")
        page.keyboard.press("l")
        expect(page.locator("#light")).to_have_text("● light ON")
        page.goto("about:blank")
        left_s = time.monotonic()
        page.wait_for_timeout(600)
        wait_for(lambda: lit_s[-1] < time.monotonic() - 0.5, 5)
        assert lit_s[-1] - left_s < 0.5
    assert voice.status == 0
