"""Bundles that segment: objects in the run, in the report and in what is exported, judged against the true ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
import yaozarrs

from dmu_hw import segments
from dmu_hw.bundle import Bundle
from dmu_hw.cli.session import open_session
from dmu_hw.omezarr import Labels, Store, chunk_place
from dmu_hw.reconstruct import Reconstructor
from dmu_hw.runfolder import RunFolder
from dmu_hw.segmenter.model import Segmenter
from dmu_hw.segmenter.settings import SegmenterSettings
from dmu_hw.view import samples
from dmu_hw.view.report import write_report
from dmu_hw.view.window import window_of

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
FIELD = {"field_px": [64, 64]}
FAULTS = "connections.world.faults"
SIZE = SegmenterSettings(channels=8, blocks=1, levels=1)


def bright_parts(above: float) -> dict[str, np.ndarray[Any, Any]]:
    """Weights of a segmenter whose foreground is where an image is brighter: it needs no training."""
    segmenter = Segmenter(SIZE)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.zero_()
        first, last = segmenter.fine[0], segmenter.fine[2]
        first.weight[0, 2, 1, 1] = 100.0  # of the two maps and two views, the image itself
        last.weight[0, 0, 1, 1] = 1.0
        last.bias[:] = torch.tensor([-100.0 * above, -100.0])
    return {f"segmenter.{key}": value for key, value in segmenter.weights().items()}


@pytest.fixture
def bundle(run_yaml: Yaml, ridge: dict[str, Any]) -> Bundle:
    """A linear inverse, and a threshold behind it."""
    session = open_session(run_yaml({"inverse": ridge} | FIELD))
    kit = session.kit
    made = kit.fitted(session.path, kit.stack, kit.protocol.exposure_ms)
    header = made.header.model_copy(update={"task": "segment"})
    return replace(made, header=header, weights=made.weights | bright_parts(0.12))


@pytest.fixture
def segmenting(bundle: Bundle, run_yaml: Yaml, tmp_path: Path) -> Yaml:
    """Writes a protocol that uses the bundle."""
    bundle.save(tmp_path / "finder.dmu")

    def write(changes: Mapping[str, Any] | None = None, rig: Mapping[str, Any] | None = None) -> Path:
        return run_yaml({"patterns": {"bundle": "finder.dmu"}} | FIELD | dict(changes or {}), rig)

    return write


def numbers(labels: Any) -> int:
    return int(np.count_nonzero(np.unique(labels)))


def test_objects_are_found_counted_judged_and_exported(dmu: Dmu, segmenting: Yaml, tmp_path: Path) -> None:
    said = dmu("run", segmenting({"references": {"plain": True}}), "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    run = Path(said.told["run"])
    objects, truth = Labels(run / "reconstruction.ome.zarr"), Labels(run / "truth.ome.zarr")

    metrics = said.told["metrics"]
    assert list(metrics) == ["Dice", "AP@0.5", "count error"]  # no PSNR: the image was made for the segmenter
    assert metrics["Dice"] > 0.8
    assert metrics["AP@0.5"] > 0.4
    found = [objects.burst(field, 0, 0)[0] for field in (0, 1)]
    true = [truth.burst(field, 0, 0)[0] for field in (0, 1)]
    off = [abs(numbers(one) - numbers(other)) / numbers(other) for one, other in zip(found, true, strict=True)]
    assert metrics["count error"] == pytest.approx(np.mean(off))

    counts = [numbers(labels) for labels in found]
    assert min(counts) > 1
    assert [int(objects.counts(field)[0, 0]) for field in (0, 1)] == counts
    assert said.told["objects"] == {"fields": counts, "mean": sum(counts) / 2, "bursts": 2}
    assert json.loads((run / "manifest.json").read_text())["objects"] == said.told["objects"]
    assert f"objects per field  {sum(counts) / 2:.1f}\n" in said.err

    for what, labels in (("labels", found), ("truth-labels", true)):
        file = tmp_path / f"{what}.ome.tif"
        assert dmu("export", run, file, "--what", what).status == 0
        with tifffile.TiffFile(file) as tiff:
            exported = [series.asarray().squeeze() for series in tiff.series]
        assert all(np.array_equal(one, other) for one, other in zip(exported, labels, strict=True))


def test_viewers_find_the_labels(dmu: Dmu, segmenting: Yaml, tmp_path: Path) -> None:
    run = Path(dmu("run", segmenting(), "--out", tmp_path / "runs", "--json").told["run"])
    for store in ("reconstruction.ome.zarr", "truth.ome.zarr"):
        for inside in ("", "0", "1/labels", "1/labels/objects"):
            yaozarrs.validate_zarr_store(str(run / store / inside))
    image, labels = Store(run / "reconstruction.ome.zarr").image(1), Labels(run / "reconstruction.ome.zarr").image(1)
    assert image.labelled
    assert labels == replace(image, dtype="int32", channels=["objects"], display=labels.display, labelled=False)
    assert not Store(run / "frames.ome.zarr").labelled


def test_damaged_labels_are_named(dmu: Dmu, segmenting: Yaml, tmp_path: Path) -> None:
    run = Path(dmu("run", segmenting(), "--out", tmp_path / "runs", "--json").told["run"])
    assert dmu("verify", run).status == 0
    chunk = run / "reconstruction.ome.zarr/1/labels/objects/0/c/0/0/0/0"
    assert chunk_place("1/labels/objects/0/c/5/7/0/0") == (1, 5, 7)
    assert chunk_place("1/labels/objects/0/c/5/0/7/0/0") is None
    assert chunk_place("1/labels/objects/count/c/5/0") is None
    assert chunk_place(chunk.relative_to(run / "reconstruction.ome.zarr").as_posix()) == (1, 0, 0)
    chunk.write_bytes(chunk.read_bytes()[:-1])
    said = dmu("verify", run)
    assert said.status == 1
    assert "labels/objects/0/c/0/0/0/0: was changed: field 1, time 0, plane 0" in said.err
    refused = dmu("export", run, tmp_path / "a.ome.tif", "--what", "labels")
    assert refused.status == 1
    assert not (tmp_path / "a.ome.tif").exists()


def test_of_a_burst_with_gaps_no_objects_are_counted(dmu: Dmu, segmenting: Yaml, tmp_path: Path) -> None:
    path = segmenting(rig={FAULTS: [{"kind": "dropped_frame", "at": 1}]})
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 3
    objects = Labels(Path(said.told["run"]) / "reconstruction.ome.zarr")
    assert objects.counts(0)[0, 0] == -1
    assert objects.burst(0, 0, 0).max() == 0
    count = numbers(objects.burst(1, 0, 0))
    assert said.told["objects"] == {"fields": [None, count], "mean": count, "bursts": 1}


def test_the_report_shows_outlines_and_counts_and_no_psnr(
    dmu: Dmu, segmenting: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = dmu("run", segmenting(), "--out", tmp_path / "runs", "--json")
    page = (Path(said.told["run"]) / "report.html").read_text()
    first, second = (int(count) for count in said.told["objects"]["fields"])
    for count in (first, second):
        assert f"Objects found</b> · {count} object" in page
    assert page.count('<svg viewBox="0 0 64 64"') == 4  # found and true, in two fields
    assert "their number is" in page
    assert "PSNR" not in page
    assert " dB" not in page
    assert 'alt="Field 0: Error"' not in page

    monkeypatch.setattr(samples, "WINDOW_PX", 16)  # as of a large field, of which the middle is shown
    folder = RunFolder(Path(said.told["run"]))
    write_report(folder, open_session(tmp_path / "run.yaml").plan, folder.read_manifest())
    middle = folder.report.read_text()
    assert middle.count('<svg viewBox="0 0 16 16"') == 4 + 2 + 4  # objects, places in the whole field, and patterns
    assert f"Objects found</b> · {first} object" in middle  # of the whole field


def test_runs_that_do_not_segment_hold_no_labels(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    said = dmu("run", run_yaml({"inverse": ridge}), "--out", tmp_path / "runs", "--json")
    run = Path(said.told["run"])
    assert said.told["objects"] is None
    assert not list(run.rglob("labels"))
    refused = dmu("export", run, tmp_path / "a.ome.tif", "--what", "labels")
    assert refused.status == 2
    assert "holds no images 'labels' (--what); there are: frames, reconstruction, truth" in refused.err


def test_a_segmenting_bundle_says_so_and_one_without_segmenter_is_refused(
    dmu: Dmu, segmenting: Yaml, bundle: Bundle, tmp_path: Path
) -> None:
    said = dmu("check", tmp_path / "finder.dmu") if segmenting() else None
    assert said is not None
    assert said.err.endswith("a bundle of 4 hadamard patterns for ridge that segments\n")
    inverse = {key: value for key, value in bundle.weights.items() if not key.startswith("segmenter.")}
    replace(bundle, weights=inverse).save(tmp_path / "finder.dmu")
    refused = dmu("run", tmp_path / "run.yaml", "--out", tmp_path / "runs")
    assert refused.status == 2
    assert "is for segmentation, but holds no segmenter" in refused.err
    assert not (tmp_path / "runs").exists()


def test_what_was_learned_is_what_looks(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    """The weights of a training fall apart into those of its inverse and those of its segmenter, none left over."""
    run_yaml()
    lesson = {
        "kind": "train",
        "name": "finder",
        "rig": "rig.yaml",
        "data": {
            "kind": "scenes",
            "specimen": {"kind": "nuclei", "seed": 1},
            "train": 4,
            "held_back": 2,
            "side_px": 64,
        },
        "patterns": {"count": 4, "camera_pixel": 4, "start": "hadamard"},
        "power_mw": 1.0,
        "exposure_ms": 2.0,
        "network": {"model": "lattice", "channels": 8, "blocks": 1},
        "task": {"kind": "segment", "network": SIZE.model_dump()},
        "schedule": {"updates": 5, "batch": 2, "crop_px": 32, "validate_every": 5, "warmup": 1},
    }
    (tmp_path / "lesson.yaml").write_text(yaml.safe_dump(lesson))
    trained = dmu("train", tmp_path / "lesson.yaml", "--out", tmp_path / "trained", "--json")
    path = Path(trained.told["bundle"])
    said = dmu("run", run_yaml({"patterns": {"bundle": str(path)}}), "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    assert set(said.told["metrics"]) == {"Dice", "AP@0.5", "count error"}

    bundle, run = Bundle.load(path), Path(said.told["run"])
    window = window_of(open_session(tmp_path / "run.yaml").plan, "patterns")
    estimate = Reconstructor(bundle, window).estimate(Store(run / "frames.ome.zarr").burst(0, 0, 0))
    key = "segmenter."
    own = {name.removeprefix(key): value for name, value in bundle.weights.items() if name.startswith(key)}
    with torch.no_grad():
        maps = torch.sigmoid(Segmenter.of(own)(torch.from_numpy(estimate.image)[None]))[0].numpy()
    assert estimate.labels is not None
    assert np.array_equal(estimate.labels, segments.instances(maps))
    assert np.array_equal(estimate.labels, Labels(run / "reconstruction.ome.zarr").burst(0, 0, 0)[0])
    assert estimate.count == numbers(estimate.labels)
