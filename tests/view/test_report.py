"""report.html: honest, whole, safe to send, and it loads nothing."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from program import ended

from dmu_hw.cli.session import open_session
from dmu_hw.omezarr import Store
from dmu_hw.plan import Plan
from dmu_hw.runfolder import RunFolder
from dmu_hw.view import samples
from dmu_hw.view.report import write_report
from dmu_hw.view.samples import MAX_FRAMES

PROTOCOL: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
    "positions": [{"x_um": 0.0, "y_um": 0.0, "name": "left"}, {"x_um": 40.0, "y_um": 0.0}],
    "retries": 0,
}
RIDGE = {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1}
EVERYTHING = {"inverse": RIDGE, "references": {"plain": True, "full": True}}
HOSTILE = "# <script>alert('&')</script> <img src=https://evil.example/x.png>\n"


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@dataclass(frozen=True)
class Finished:
    """A run folder, what it was made of, and its page."""

    run: RunFolder
    plan: Plan
    facts: dict[str, Any]

    @property
    def raw(self) -> str:
        return self.run.report.read_text(encoding="utf-8")

    @property
    def page(self) -> Page:
        return Page(self.raw)


Imaging = Callable[..., Finished]


@pytest.fixture
def image(tmp_path: Path, rig_yaml: Callable[..., Path]) -> Imaging:
    """Runs the small protocol with some keys changed, on the small rig."""

    def run(changes: Mapping[str, Any] | None = None, faults: list[dict[str, Any]] | None = None) -> Finished:
        rig_yaml({"connections.world.faults": faults or []})
        path = tmp_path / "run.yaml"
        path.write_text(HOSTILE + yaml.safe_dump(copy.deepcopy(PROTOCOL | dict(changes or {})), sort_keys=False))
        assert ended("run", path, "--out", tmp_path / "runs", "--json") == (3 if faults else 0)
        folder = RunFolder(max((tmp_path / "runs").iterdir()))
        return Finished(folder, open_session(path).plan, folder.read_manifest())

    return run


# ---------------------------------------------------------------- the page of a run


def test_a_whole_run_shows_everything_and_loads_nothing(image: Imaging) -> None:
    done = image(EVERYTHING)
    page = done.page
    assert "Complete" in page.text
    assert "INCOMPLETE" not in page.text
    for sentence in ("Field 0: left", "Field 1", "Raw, pattern 3", "Reconstruction", "Truth (simulated)", "Error"):
        assert sentence in page.text
    pictures = page.all("img")
    assert len(pictures) == 2 * (4 + 5) + 4
    assert all((picture["src"] or "").startswith("data:image/png;base64,") for picture in pictures)
    assert all(picture["alt"] for picture in pictures)
    assert len(done.raw) < 3_000_000

    assert not {"script", "link", "iframe", "object", "base", "form"} & {name for name, _ in page.tags}
    loads = ("src", "srcset", "poster", "data", "action", "background", "xlink:href")
    for _, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")]
        assert all((attributes.get(key) or "data:").startswith("data:") for key in loads)
        assert (attributes.get("href") or "#").startswith("#")
        assert "url(" not in (attributes.get("style") or "")
    assert "url(" not in done.raw
    assert "@import" not in done.raw
    assert any(meta.get("content", "") and "default-src 'none'" in str(meta["content"]) for meta in page.all("meta"))


def test_every_setting_is_there_and_hostile_text_is_only_text(image: Imaging) -> None:
    done = image(EVERYTHING)
    page = done.page
    assert "<script" not in done.raw
    assert HOSTILE in page.text
    for text in (done.run.protocol, done.run.rig, done.run.settings):
        assert text.read_text() in page.text
    settings = json.loads(done.run.settings.read_text())
    for key in ("protocol_hash", "rig_hash", "bundle_hash"):
        assert settings[key] in page.text
    assert done.plan.stack.hash in page.text
    assert all(pattern_hash in page.text for pattern_hash in done.plan.stack.hashes)


def test_headings_do_not_skip_and_links_lead_somewhere(image: Imaging) -> None:
    page = image(EVERYTHING).page
    levels = [int(name[1]) for name, _ in page.tags if name in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - before <= 1 for before, later in itertools.pairwise(levels))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert {str(link["href"])[1:] for link in page.all("a")} <= set(names)
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))


def test_missing_frames_are_said_loudly_with_their_reasons(image: Imaging) -> None:
    done = image(
        {"references": {"plain": True}}, [{"kind": "dropped_frame", "at": 1}, {"kind": "dropped_frame", "at": 4}]
    )
    page = done.page
    lines = [json.loads(line) for line in done.run.journal.read_text().splitlines()]
    reasons = {line["reason"] for line in lines if line["kind"] == "missing"}
    lost = done.facts["counts"]["missing"]
    assert lost > 1
    assert f"INCOMPLETE: {lost} of 10 frames are missing." in page.text
    assert "What is missing" in page.text
    assert all(reason in page.text for reason in reasons)
    assert "field 0, plain reference" in page.text
    assert page.text.count("missingRaw, pattern") == sum(line["kind"] == "missing" for line in lines) - 1
    assert "(INCOMPLETE)" in done.raw.partition("</title>")[0]


def test_cautions_and_unproven_bursts_are_said(image: Imaging) -> None:
    done = image()
    counts = done.facts["counts"] | {"unproven_bursts": 2}
    write_report(done.run, done.plan, done.facts | {"counts": counts, "cautions": ["it is <late>"]})
    assert "Caution: it is <late>" in done.page.text
    assert "Caution: 2 bursts not proven" in done.page.text


def test_without_inverse_truth_and_references_the_frames_alone_are_shown(image: Imaging) -> None:
    done = image()
    page = done.page
    assert "recorded only" in page.text
    assert len(page.all("img")) == 2 * 4 + 4
    assert "PSNR" not in page.text


def test_without_the_truth_nothing_is_judged(image: Imaging) -> None:
    done = image(EVERYTHING)
    done.run.truth.rename(done.run.path / "elsewhere")
    write_report(done.run, done.plan, done.facts | {"metrics": {}})
    page = done.page
    assert "shown, not judged" in page.text
    assert "Truth (simulated)" not in page.text
    assert len(page.all("img")) == 2 * (4 + 3) + 4


def test_a_long_stack_and_a_run_of_many_bursts_stay_small(image: Imaging) -> None:
    patterns = {"set": "random", "count": 16, "camera_pixel": 8, "tile": 4}
    place = [{"x_um": 0.0, "y_um": 0.0}]
    done = image({"patterns": patterns, "positions": place, "focus_um": 0.0, "z": {"range_um": 4.0, "step_um": 0.5}})
    page = done.page
    assert f"Of 16 raw frames of each burst the first {MAX_FRAMES} are shown" in page.text
    assert "Of 16 patterns the first 9 are shown" in page.text
    assert "4 of 9 bursts, from first to last" in page.text
    assert "Field 0, plane 0" in page.text
    assert "Field 0, plane 8" in page.text
    assert len(page.all("img")) == 4 * MAX_FRAMES + 9


def test_of_a_large_field_the_middle_and_an_overview_are_shown(image: Imaging, monkeypatch: pytest.MonkeyPatch) -> None:
    done = image(EVERYTHING)
    monkeypatch.setattr(samples, "WINDOW_PX", 16)
    assert samples.crop_of(done.plan).part == (slice(8, 24), slice(8, 24))
    write_report(done.run, done.plan, done.facts)
    page = done.page
    assert "Of each field the middle 16 × 16 pixels are shown" in page.text
    assert page.text.count("Whole field") == 2
    shapes = {(picture["width"], picture["height"]) for picture in page.all("img")}
    assert shapes == {("4", "4"), ("16", "16")}


def test_one_scale_for_all_pictures_of_a_kind(image: Imaging) -> None:
    """Equal numbers are equally grey, whichever field they are in."""
    done = image(EVERYTHING)
    pictures = {str(picture["alt"]): picture for picture in done.page.all("img")}
    frames = [Store(done.run.frames).burst(field, 0, 0)[0].astype(float) for field in (0, 1)]
    names = ("Field 0: left", "Field 1")
    shown = [_grey(pictures[f"{name}: raw frame of pattern 0, 8 × 8 camera pixels"]) for name in names]
    numbers, greys = np.concatenate([f.ravel() for f in frames]), np.concatenate([g.ravel() for g in shown])
    order = np.argsort(numbers, kind="stable")
    assert (np.diff(greys[order].astype(int)) >= 0).all()
    assert np.ptp(greys) > 200


def _grey(picture: dict[str, str | None]) -> np.ndarray[Any, Any]:
    encoded = str(picture["src"]).partition("base64,")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
