"""From spool and journal to OME-Zarr: whole or not there, checked frame by frame, open to other people's tools."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import yaozarrs
import zarr
from fakes import bench_of, bench_rig, lines_of, plan_of, run_plan, seen_exposure, seen_place

from dmu_hw.errors import InputError, RunError
from dmu_hw.journal import Journal, read_journal
from dmu_hw.omezarr import Image, Store, chunk_place
from dmu_hw.plan import Plan
from dmu_hw.rig import Rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import segment_path
from dmu_hw.writer import bursts, write_stores


@pytest.fixture
def finished(tmp_path: Path) -> tuple[RunFolder, Plan]:
    """A run with two time points, whose second burst misses one frame; nothing stored yet."""
    return taken(tmp_path)


def taken(folder: Path, **changes: Any) -> tuple[RunFolder, Plan]:
    rig = bench_rig(folder, side=32)
    keys = {"time": {"loops": 2, "interval_s": 30.0}, "references": {"plain": True}, "retries": 0, **changes}
    plan = plan_of(rig, side=32, **keys)
    bench_of(rig).faults.dropped = {6}
    run, _ = run_plan(folder / "run", rig, plan)
    return run, plan


def test_frames_are_where_they_belong(finished: tuple[RunFolder, Plan]) -> None:
    run, plan = finished
    done: list[tuple[int, int]] = []
    write_stores(run, plan, lambda now, total: done.append((now, total)))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    store = Store(run.frames)
    assert store.array(0).shape == (2, 4, 1, 8, 8)
    times_ms = {(line["shot"], line["pattern"]): line["time_ms"] for line in lines_of(run, "frame")}
    for time, shot, first in [(0, 0, 0), (1, 2, 5)]:
        pixels = store.burst(0, time, 0)
        for pattern in range(4):
            if (time, pattern) == (1, 1):
                assert pixels[pattern].max() == 0
                assert math.isnan(store.times(0)[time, pattern, 0])
                continue
            assert seen_place(pixels[pattern]) == pattern
            assert seen_exposure(pixels[pattern]) == first + pattern
            assert store.times(0)[time, pattern, 0] == times_ms[shot, pattern]
    plain = Store(run.frames_of("plain"))
    assert [seen_place(plain.burst(0, time, 0)[0]) for time in (0, 1)] == [4, 4]
    assert not run.spool.exists()
    assert sorted(path.name for path in run.path.iterdir()) == ["frames.ome.zarr", "journal.jsonl", "plain.ome.zarr"]


def test_every_field_and_plane(tmp_path: Path, small_rig: Callable[..., Rig]) -> None:
    """Time outermost, fields, planes: each burst in its own place, checked against the journal's times."""
    rig = small_rig()
    plan = plan_of(
        rig,
        side=64,
        grid={"rows": 1, "columns": 2, "overlap": 0.25, "centre_um": (100.0, -50.0)},
        focus_um=0.5,
        z={"range_um": 3.0, "step_um": 1.5},
        time={"loops": 2, "interval_s": 2.0},
    )
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert counts.saved == 2 * 2 * 3 * 4
    write_stores(run, plan)
    store = Store(run.frames)
    assert len(store) == 2
    for line in read_journal(run.journal):
        if line["kind"] == "frame":
            shot = plan.shots[line["shot"]]
            assert store.times(shot.position)[shot.time, line["pattern"], shot.z] == line["time_ms"]
    # field of 64 px of 0.5 µm: 32 µm wide, neighbours 24 µm apart; camera pixels of 2 µm
    for field, centre_um in [(0, 88.0), (1, 112.0)]:
        image = store.image(field)
        assert image.name == f"field {field}"
        assert image.shape == (2, 4, 3, 16, 16)
        assert (image.pixel_um, image.z_step_um, image.time_step_s) == (2.0, 1.5, 2.0)
        assert image.corner_um == (-1.0, -50.0 - 16.0 + 1.0, centre_um - 16.0 + 1.0)


# ---------------------------------------------------------------- other people's tools


def test_stores_are_valid_ome_zarr(finished: tuple[RunFolder, Plan]) -> None:
    run, plan = finished
    write_stores(run, plan)
    for store in (run.frames, run.frames_of("plain")):
        yaozarrs.validate_zarr_store(str(store))
        yaozarrs.validate_zarr_store(str(store / "0"))


def test_metadata_of_a_field(finished: tuple[RunFolder, Plan]) -> None:
    run, plan = finished
    write_stores(run, plan)
    group = zarr.open_group(run.frames / "0", mode="r")
    ome: Any = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [(axis["name"], axis["type"], axis.get("unit")) for axis in image["axes"]] == [
        ("t", "time", "second"),
        ("c", "channel", None),
        ("z", "space", "micrometer"),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    assert scale == {"type": "scale", "scale": [30.0, 1.0, 1.0, 2.0, 2.0]}
    assert translation == {"type": "translation", "translation": [0.0, 0.0, 0.0, -7.0, -7.0]}
    hashes = plan.takes["patterns"].stack.hashes
    assert [channel["label"] for channel in ome["omero"]["channels"]] == [
        f"hadamard {index} {pattern}" for index, pattern in enumerate(hashes)
    ]
    array: Any = group["0"]
    assert array.metadata.dimension_names == ("t", "c", "z", "y", "x")
    assert array.dtype == np.uint16
    assert array.chunks == (1, 4, 1, 8, 8)
    facts = Store(run.frames).facts
    assert facts["pattern_hashes"] == list(hashes)
    assert (facts["role"], facts["camera_pixel"], facts["power_mw"], facts["exposure_ms"]) == ("patterns", 4, 1.0, 3.0)


def test_ome_xml_says_the_same(tmp_path: Path) -> None:
    """Names that XML has words for, too."""
    channels = ['a <"b"> & c', "µ"]
    image = Image("field & 0", (3, 2, 4, 5, 6), "uint16", 0.65, 1.5, 2.0, (1.0, 2.0, 3.0), channels, (0.0, 9.0))
    Store.create(tmp_path / "a.ome.zarr", [image, image], {})
    ome = ome_types.from_xml(tmp_path / "a.ome.zarr" / "OME" / "METADATA.ome.xml")
    assert [found.id for found in ome.images] == ["Image:0", "Image:1"]
    pixels = ome.images[1].pixels
    assert ome.images[1].name == "field & 0"
    assert (pixels.size_t, pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == (3, 2, 4, 5, 6)
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z) == (0.65, 0.65, 1.5)
    assert pixels.physical_size_x_unit.value == "µm"
    assert [channel.name for channel in pixels.channels] == channels


def test_napari_opens_fields_and_whole_stores(finished: tuple[RunFolder, Plan]) -> None:
    reader = pytest.importorskip("napari_ome_zarr")
    run, plan = finished
    write_stores(run, plan)
    for path in (run.frames, run.frames / "0"):
        ((data, about, kind),) = reader.napari_get_reader(str(path))(str(path))
        assert kind == "image"
        assert np.asarray(data[0]).shape == (2, 4, 1, 8, 8)
        assert about["channel_axis"] == 1
        assert about["scale"] == [30.0, 1.0, 2.0, 2.0]
        hashes = plan.takes["patterns"].stack.hashes
        assert about["name"] == [f"field 0: hadamard {index} {pattern}" for index, pattern in enumerate(hashes)]


def test_an_image_comes_back_as_it_was_described(tmp_path: Path) -> None:
    image = Image("one", (1, 2, 3, 4, 5), "float32", 0.5, 2.0, 3.0, (1.0, 2.0, 3.0), ["a", "b"], (0.0, 1.0))
    Store.create(tmp_path / "a.ome.zarr", [image], {"any": 1})
    store = Store(tmp_path / "a.ome.zarr")
    assert store.image(0) == image
    assert store.facts == {"any": 1}
    assert np.isnan(store.burst(0, 0, 2)).all()


def test_channels_come_back_with_their_wavelengths_and_colours(tmp_path: Path) -> None:
    what = "one", (1, 3, 1, 4, 5), "float32", 0.5, 2.0, 3.0, (1.0, 2.0, 3.0), ["DAPI", "x", "Cy5"], (0.0, 1.0)
    image = Image(*what, waves_nm=((405.0, 450.0), (488.0, None), (None, 670.0)))
    store = Store.create(tmp_path / "a.ome.zarr", [image], {})
    assert store.image(0) == image
    assert [store.channel(name) for name in image.channels] == [0, 1, 2]
    assert store.has("Cy5")
    assert not store.has("Cy3")
    omero = store.attributes(0)["ome"]["omero"]
    assert [channel["color"] for channel in omero["channels"]] == ["0000FF", "FFFFFF", "FF00FF"]
    assert omero["rdefs"]["model"] == "color"
    same = Image(*what, waves_nm=((405.0, 450.0),) * 3)
    assert {channel["color"] for channel in same.attributes()["ome"]["omero"]["channels"]} == {"FFFFFF"}
    pixels = ome_types.from_xml(tmp_path / "a.ome.zarr" / "OME" / "METADATA.ome.xml").images[0].pixels
    assert [channel.emission_wavelength for channel in pixels.channels] == [450.0, None, 670.0]


def test_chunks_know_their_place() -> None:
    assert chunk_place("3/0/c/7/0/5/0/0") == (3, 7, 5)
    for other in ("3/0/zarr.json", "3/time_ms/c/7/0/5", "3/1/c/7/0/5/0/0", "x/0/c/7/0/5/0/0", "3/0/c/7/0/5/0/0.bak"):
        assert chunk_place(other) is None


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("keep", [True, False])
def test_a_frame_damaged_in_the_spool_is_named_and_the_spool_stays(tmp_path: Path, keep: bool) -> None:
    run, plan = taken(tmp_path, keep_spool=keep)
    line = lines_of(run, "frame")[6]
    path = segment_path(run.spool, 0)
    content = bytearray(path.read_bytes())
    content[line["offset"] + 3] ^= 16
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"shot {line['shot']}, pattern {line['pattern']} is damaged"):
        write_stores(run, plan)
    assert path.exists()
    assert not run.frames.exists()
    assert not run.frames_of("plain").exists()
    # the damage mended, the next attempt clears away what the first one left half made
    content[line["offset"] + 3] ^= 16
    path.write_bytes(content)
    write_stores(run, plan)
    names = {path.name for path in run.path.iterdir()}
    assert names == {"frames.ome.zarr", "plain.ome.zarr", "journal.jsonl"} | ({"spool"} if keep else set())


def test_a_store_that_does_not_keep_what_it_is_given_is_found(
    finished: tuple[RunFolder, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = finished
    real_burst = Store.burst

    def burst(store: Store, field: int, time: int, plane: int) -> Any:
        pixels = real_burst(store, field, time, plane)
        if pixels.shape[0] == 4 and time == 1:
            pixels[2, 0, 0] ^= 1
        return pixels

    monkeypatch.setattr(Store, "burst", burst)
    with pytest.raises(RunError, match="shot 2, pattern 2 was not stored as it was taken"):
        write_stores(run, plan)
    assert run.spool.is_dir()
    assert not run.frames.exists()


def test_a_full_disk_while_storing_leaves_the_spool(
    finished: tuple[RunFolder, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = finished
    real_array = Store.array

    def array(store: Store, field: int) -> Any:
        if "plain" in store.path.name:
            raise OSError(28, "No space left on device")
        return real_array(store, field)

    monkeypatch.setattr(Store, "array", array)
    with pytest.raises((OSError, RunError)):
        write_stores(run, plan)
    assert run.spool.is_dir()
    assert sorted(path.name for path in run.path.glob("*.zarr*")) == ["frames.ome.zarr.part", "plain.ome.zarr.part"]


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([("sealed", {"shots": [0]})], "shot 0 is sealed, but there is no frame of it"),
        ([("missing", {"shot": 9, "pattern": 0, "reason": "x"}), ("sealed", {"shots": [9]})], "tells of shot 9"),
        ([("missing", {"shot": -1, "pattern": 0, "reason": "x"}), ("sealed", {"shots": [-1]})], "tells of shot -1"),
        ([("missing", {"shot": 0, "pattern": 0, "reason": "x"}), ("sealed", {"shots": [0]})], r"journal tells \[0\]"),
        (
            [("missing", {"shot": 0, "pattern": p, "reason": "x"}) for p in (0, 1, 2, 2)]
            + [("sealed", {"shots": [0]})],
            r"4 patterns, the journal tells \[0, 1, 2, 2\]",
        ),
        (
            [("missing", {"shot": 0, "pattern": p, "reason": "x"}) for p in range(4)] + [("sealed", {"shots": [0, 0]})],
            "shot 0 is sealed, but there is no frame of it",
        ),
    ],
)
def test_a_journal_that_makes_no_sense(tmp_path: Path, lines: list[tuple[str, dict[str, Any]]], what: str) -> None:
    rig = bench_rig(tmp_path, side=32)
    plan = plan_of(rig, side=32)
    run = RunFolder(tmp_path)
    journal = Journal(run.journal)
    for kind, fields in lines:
        journal.add(kind, **fields)
    journal.close()
    run.spool.mkdir()
    with pytest.raises(RunError, match=what):
        write_stores(run, plan)
    assert run.spool.is_dir()
    assert not run.frames.exists()


def test_a_frame_of_another_shape_is_refused(tmp_path: Path) -> None:
    run, _ = taken(tmp_path)
    rig = bench_rig(tmp_path, side=64)
    other = plan_of(rig, side=64, time={"loops": 2, "interval_s": 30.0}, references={"plain": True})
    with pytest.raises(RunError, match=r"is \(8, 8\), not \(16, 16\)"):
        write_stores(run, other)


def test_bursts_that_wait_for_their_seal_are_all_that_is_held(tmp_path: Path) -> None:
    """Sealed ones come one by one; one that is never sealed is not a burst."""
    journal = Journal(tmp_path / "journal.jsonl")
    for shot in range(5):
        journal.add("frame", shot=shot, pattern=0)
        journal.add("missing", shot=shot, pattern=1, reason="x")
        if shot in (1, 3):
            journal.add("sealed", shots=[shot - 1, shot])
    journal.close()
    found = [[(line["shot"], line["kind"]) for line in lines] for lines in bursts(tmp_path / "journal.jsonl")]
    assert found == [[(shot, "frame"), (shot, "missing")] for shot in range(4)]


@pytest.mark.parametrize("name", ["0/0/zarr.json", "0/zarr.json", "OME/zarr.json", "zarr.json", "0/0/c/1/0/0/0/0"])
def test_any_damaged_byte_of_a_store_is_noticed_or_changes_no_pixel(
    finished: tuple[RunFolder, Plan], name: str
) -> None:
    """Whoever reads, not only `dmu verify`: one error that names the store, never other pixels."""
    run, plan = finished
    write_stores(run, plan)
    before = Store(run.frames).burst(0, 1, 0)
    path = run.frames / name
    content = path.read_bytes()
    told: set[str] = set()
    for place in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 2]) + content[place + 1 :])
        try:
            store = Store(run.frames)
            assert np.array_equal(store.burst(0, 1, 0), before), f"byte {place} changes pixels"
            store.image(0)
            len(store)
        except RunError as error:
            told.add(str(error).partition(": ")[0])
    assert told == {str(run.frames)}


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no OME-Zarr store"):
        Store(tmp_path)


def test_a_whole_store_is_never_made_over(tmp_path: Path) -> None:
    image = Image("one", (1, 1, 1, 2, 2), "uint16", 1.0, 1.0, 1.0, (0.0, 0.0, 0.0), ["a"], (0.0, 1.0))
    Store.create(tmp_path / "a.ome.zarr", [image], {})
    with pytest.raises(RunError, match=r"a\.ome\.zarr"):
        Store.create(tmp_path / "a.ome.zarr", [image], {})
    assert json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["node_type"] == "group"
