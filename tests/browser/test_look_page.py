"""A run that has ended, in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect
from program import ended
from viewers import viewed

from dmu_hw.cli.viewing import view_run

Yaml = Callable[..., Path]


def click(page: Page, pane: int, x_part: float, y_part: float) -> None:
    box = page.locator(".sheet").nth(pane).bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + x_part * box["width"], box["y"] + y_part * box["height"])


def test_places_times_planes_and_pictures_side_by_side(
    page: Page, run_yaml: Yaml, tmp_path: Path, shoot: Callable[..., None], stopping: threading.Event
) -> None:
    changes: dict[str, Any] = {
        "time": {"loops": 2, "interval_s": 0.0},
        "z": {"range_um": 2.0, "step_um": 1.0},
        "references": {"plain": True},
        "focus_um": 0.0,
    }
    path = run_yaml(changes, {"connections.world.realtime": False})
    assert ended("run", path, "--out", tmp_path / "runs") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    with viewed(lambda output: view_run(folder, 0, output), stopping) as (voice, _):
        page.goto(voice.url)
        canvases = page.locator(".pane .sheet canvas")
        expect(canvases).to_have_count(2)
        expect(canvases.first).to_have_attribute("data-field", "0")
        expect(page.locator("#stage")).to_have_text("complete")
        shown = page.locator("#sliders output")
        expect(shown).to_have_count(3)
        for key, axis, text in (
            ("]", 0, "2 of 3"),
            (".", 1, "2 of 2"),
            ("PageDown", 2, "2 of 3 · 1 µm"),
            ("[", 0, "1 of 3"),
        ):
            page.keyboard.press(key)
            expect(shown.nth(axis)).to_contain_text(text)
        box = page.locator("#map canvas").bounding_box()
        assert box is not None
        page.locator("#map canvas").click(position={"x": box["width"] * 0.7, "y": box["height"] * 0.25})
        expect(canvases.first).to_have_attribute("data-field", "1")
        page.keyboard.press("n")
        expect(canvases).to_have_count(3)
        page.get_by_label("Images", exact=True).nth(2).select_option("frames")
        expect(page.get_by_label("Channel or pattern").nth(2)).to_be_visible()
        _measure(page)
        shoot("look-wide")
        shoot("look-narrow", narrow=True)
        page.locator(".pane .plain").nth(2).click()
        expect(canvases).to_have_count(2)
    expect(page.locator("#banner")).to_contain_text("dmu has ended")


def _measure(page: Page) -> None:
    """Half of a field of 32 pixels of 0.5 µm."""
    page.keyboard.press("m")
    click(page, 0, 0.25, 0.5)
    click(page, 0, 0.75, 0.5)
    expect(page.locator("#measured")).to_have_text(re.compile(r"^(7\.9\d*|8|8\.0\d*) µm$"))


def test_a_narrow_page_fits(page: Page, run_yaml: Yaml, tmp_path: Path, stopping: threading.Event) -> None:
    path = run_yaml({"time": ...}, {"connections.world.realtime": False})
    assert ended("run", path, "--out", tmp_path / "runs") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    page.set_viewport_size({"width": 390, "height": 844})
    with viewed(lambda output: view_run(folder, 0, output), stopping) as (voice, _):
        page.goto(voice.url)
        expect(page.locator(".pane .sheet canvas").first).to_have_attribute("data-field", "0")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
