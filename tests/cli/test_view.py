"""`dmu run --view` and `dmu view` as a page sees them, without a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewers import heard, running, say, viewed, wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from dmu_hw.cli.stop import Stopped
from dmu_hw.cli.viewing import view_rig, view_run
from dmu_hw.drivers.simulated.camera import Camera
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.omezarr import Store
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import Spool
from dmu_hw.view.wire import unpacked

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
SLOW = {"connections.world.realtime": True, "devices.camera.readout_ms": 5.0}
LONG = {"exposure_ms": 60.0, "time": {"loops": 500, "interval_s": 0.0}}
DARK_MS = 100.0


@contextmanager
def watching(link: ClientConnection) -> Iterator[None]:
    """Say now and then that somebody looks, as a page does."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            say(link, do="watch")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """What the light did, and when."""
    done: list[tuple[str, float]] = []

    def noting(name: str) -> None:
        real = getattr(Light, name)

        def noted(light: Light, *given: float) -> None:
            real(light, *given)
            done.append((name, time.monotonic()))

        monkeypatch.setattr(Light, name, noted)

    noting("on")
    noting("off")
    return done


def is_lit(switched: list[tuple[str, float]]) -> bool:
    return bool(switched) and switched[-1][0] == "on"


# ---------------------------------------------------------------- a run that goes on


def test_a_run_tells_its_page_all_that_there_is_to_see(run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path) -> None:
    path = run_yaml(
        {"inverse": ridge, "time": {"loops": 3, "interval_s": 0.0}}, SLOW | {"limits": {"dose_mj_cm2": 1e6}}
    )
    told: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    with viewed(running(path, tmp_path / "runs")) as (voice, guest):
        about = guest.get("/about")
        with guest.socket() as link:
            for message in link:
                header, pixels = unpacked(bytes(message))
                told.setdefault(header["kind"], []).append((header, pixels))
            assert link.close_code == 1000
    assert voice.status == 0
    assert about[0] == 200
    assert {
        kind: told[kind][-1][1].shape for kind in ("places", "map", "patterns/", "frames/", "estimate/", "tiles/")
    } == {
        "places": (2, 2),
        "map": (2, 2),
        "patterns/": (4, 4, 4),
        "frames/": (4, 8, 8),
        "estimate/": (32, 32),
        "tiles/": (2, 32, 32),
    }
    states = [header for header, _ in told["state"]]
    assert {"imaging"} <= {state["stage"] for state in states}
    assert told["map"][-1][1].tolist() == [[3, 3], [0, 0]]
    header, pixels = told["estimate/"][-1]
    (folder,) = (tmp_path / "runs").iterdir()
    kept = Store(folder / "reconstruction.ome.zarr").burst(header["field"], header["time"], header["z"])[0]
    shown = header["low"] + pixels / 65535 * (header["high"] - header["low"])
    np.testing.assert_allclose(shown, kept, atol=2e-3 * kept.max())
    assert header["latency_ms"] > 0
    assert any("report.html" in line["text"] for line in told["messages"][-1][0]["lines"])


def test_pause_and_go(run_yaml: Yaml, tmp_path: Path, switched: list[tuple[str, float]]) -> None:
    path = run_yaml(LONG, SLOW)
    with viewed(running(path, tmp_path / "runs")) as (voice, guest), guest.socket() as link:
        wait_for(lambda: is_lit(switched))
        say(link, do="pause")
        while heard(link, "state")["control"] != "paused":
            pass
        wait_for(lambda: not is_lit(switched))
        number = len(switched)
        time.sleep(0.5)
        assert not [what for what, _ in switched[number:] if what == "on"], "no light while it is paused"
        wait_for(lambda: heard(link, "state")["lights"] == {"light": False}, 5)
        say(link, do="go")
        wait_for(lambda: is_lit(switched))
        say(link, do="abort")
        assert heard(link, "aborted")["dark_ms"] <= DARK_MS
    assert voice.status == 3
    (folder,) = (tmp_path / "runs").iterdir()
    assert RunFolder(folder).read_manifest()["aborted"] == "abort on the page"


def test_an_abort_while_the_writer_is_stalled(
    run_yaml: Yaml, tmp_path: Path, switched: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled, may_write = threading.Event(), threading.Event()
    put = Spool.put

    def slow(spool: Spool, burst: Any) -> None:
        stalled.set()
        may_write.wait(30)
        put(spool, burst)

    monkeypatch.setattr(Spool, "put", slow)
    path = run_yaml(LONG, SLOW)
    with viewed(running(path, tmp_path / "runs")) as (voice, guest), guest.socket() as link:
        assert stalled.wait(30)
        wait_for(lambda: is_lit(switched))
        began_s = time.monotonic()
        say(link, do="abort")
        assert heard(link, "aborted")["dark_ms"] <= DARK_MS
        assert not is_lit(switched)
        assert switched[-1][1] - began_s < 1.0
        assert not may_write.is_set()
        may_write.set()
    assert voice.status == 3
    assert "aborted: abort on the page" in voice.lines


def test_an_abort_while_the_camera_hangs(
    run_yaml: Yaml, tmp_path: Path, switched: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the engine cannot put the light off; somebody else does."""
    hangs, may_go = threading.Event(), threading.Event()
    pop = Camera.pop

    def hang(camera: Camera, timeout_ms: float) -> Any:
        hangs.set()
        may_go.wait(30)
        return pop(camera, timeout_ms)

    monkeypatch.setattr(Camera, "pop", hang)
    path = run_yaml(LONG, SLOW)
    with viewed(running(path, tmp_path / "runs")) as (voice, guest), guest.socket() as link:
        assert hangs.wait(30)
        assert is_lit(switched)
        say(link, do="abort")
        told = heard(link, "aborted")
        assert (told["forced"], told["dark_ms"] <= 2 * DARK_MS) == (True, True)
        assert not is_lit(switched)
        may_go.set()
    assert voice.status in (1, 3)


def test_strangers_and_junk_do_a_run_no_harm(run_yaml: Yaml, tmp_path: Path) -> None:
    """Ten thousand messages, and strangers in between; a polite guest ends it when they have had their say."""
    path = run_yaml(LONG, SLOW)
    sent = 0
    with viewed(running(path, tmp_path / "runs")) as (voice, guest):
        while sent < 10_000:
            assert guest.get(f"/?token={sent}", Cookie="")[0] == 403
            assert guest.get("/../../protocol.yaml", Host="evil.example")[0] == 403
            with guest.socket() as link, suppress(ConnectionClosed):
                for _ in range(2000):
                    link.send(("x" * 50, '{"do": "abort", "now": true}', b"\xff" * 50)[sent % 3])
                    sent += 1
        with guest.socket() as link:
            assert heard(link, "state")["control"] == "running"
            say(link, do="abort")
            assert heard(link, "aborted")["dark_ms"] <= DARK_MS
    assert voice.status == 3
    (folder,) = (tmp_path / "runs").iterdir()
    manifest = RunFolder(folder).read_manifest()
    assert list(manifest["missing_reasons"]) == ["aborted: abort on the page"]


def test_without_view_there_is_no_server(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs")
    assert said.status == 0
    assert "http://" not in said.err


# ---------------------------------------------------------------- runs that have ended


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set: as if somebody pressed Ctrl-C."""
    wanted = threading.Event()

    def poll() -> None:
        if wanted.is_set():
            raise Stopped("Ctrl-C")

    monkeypatch.setattr("dmu_hw.cli.viewing.poll", poll)
    return wanted


def test_a_run_that_has_ended(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path, stopping: threading.Event
) -> None:
    path = run_yaml({"inverse": ridge, "time": {"loops": 2, "interval_s": 0.0}, "references": {"plain": True}})
    assert dmu("run", path, "--out", tmp_path / "runs").status == 0
    (folder,) = (tmp_path / "runs").iterdir()
    with viewed(lambda output: view_run(folder, 0, output), stopping) as (voice, guest):
        about = guest.get("/about")[2]
        for what in (b'"reconstruction"', b'"frames"', b'"plain"', b'"complete":true'):
            assert what in about
        store = Store(folder / "reconstruction.ome.zarr")
        header, pixels = unpacked(guest.get("/image?store=reconstruction&field=1&time=1")[2])
        assert pixels is not None
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, store.burst(1, 1, 0)[0])
        assert header["corner_um"] == list(store.image(1).corner_um)
        header, pixels = unpacked(guest.get("/image?store=frames&field=0&time=1&channel=3")[2])
        np.testing.assert_array_equal(pixels, Store(folder / "frames.ome.zarr").burst(0, 1, 0)[3])
        assert unpacked(guest.get("/image?store=frames&side=4")[2])[1].shape == (4, 4)  # type: ignore[union-attr]
        beyond = (
            "store=x",
            "store=frames&field=2",
            "store=frames&time=2",
            "store=frames&channel=4",
            "store=frames&z=-1",
        )
        for query in (*beyond, "store=frames&field=9999999999", "store=frames&field=1.5", "store=frames&labels=1", ""):
            assert guest.get(f"/image?{query}")[0] == 404, query
    assert voice.status == 0


def test_what_is_missing_is_said(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_yaml({}, {"connections.world.faults": [{"kind": "dropped_frame", "at": 5}]})
    assert dmu("run", path, "--out", tmp_path / "runs").status == 3
    (folder,) = (tmp_path / "runs").iterdir()
    with viewed(lambda output: view_run(folder, 0, output), stopping) as (_, guest):
        there = [
            unpacked(guest.get(f"/image?store=frames&field={field}&channel={pattern}")[2])[0]["missing"]
            for field in range(2)
            for pattern in range(4)
        ]
        assert there == [False] * 5 + [True] + [False] * 2


def test_what_there_is_nothing_of_is_refused(dmu: Dmu, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").touch()
    for given in (
        [tmp_path],
        [tmp_path / "nowhere"],
        [],
        [tmp_path, "--rig", "x.yaml"],
        ["--rig", tmp_path / "x.yaml"],
    ):
        said = dmu("view", *given)
        assert (said.status, "error" in said.err) == (2, True)


# ---------------------------------------------------------------- a rig


def test_a_rig_is_lit_only_while_somebody_looks(
    run_yaml: Yaml, tmp_path: Path, stopping: threading.Event, switched: list[tuple[str, float]]
) -> None:
    run_yaml(rig=SLOW)
    with viewed(lambda output: view_rig(tmp_path / "rig.yaml", None, 0, output), stopping) as (voice, guest):
        with guest.socket() as link:
            say(link, do="watch")
            time.sleep(0.2)
            assert not any(what == "on" for what, _ in switched), "nobody asked for light"
            say(link, do="lamp", on=True, power_mw=1.0, exposure_ms=2.0)
            assert heard(link, "frame")["sharpness"] >= 0
            wait_for(lambda: heard(link, "state")["dose_mj_cm2"] > 0)
            wait_for(lambda: heard(link, "state")["lit"] is False, 10)  # nothing was heard of the page for 1.5 s
            dark_s = time.monotonic()
            with watching(link):
                time.sleep(0.5)
                assert not [what for what, at in switched if what == "on" and at > dark_s], "nobody asked again"
            say(link, do="lamp", on=True, power_mw=1.0, exposure_ms=2.0)
            wait_for(lambda: is_lit(switched))
        left_s = time.monotonic()
        wait_for(lambda: not is_lit(switched))
        time.sleep(0.5)
        late = [at - left_s for what, at in switched if what == "on" and at > left_s]
        assert not late or late[-1] < 0.3, "the page was closed"
    assert voice.status == 0
    assert not is_lit(switched)


def test_a_page_may_not_ask_for_more_than_the_rig_allows(
    run_yaml: Yaml, tmp_path: Path, stopping: threading.Event, switched: list[tuple[str, float]]
) -> None:
    run_yaml(rig={"limits": {"power_mw": 2.0, "exposure_ms": 50.0}})
    with (
        viewed(lambda output: view_rig(tmp_path / "rig.yaml", None, 0, output), stopping) as (_, guest),
        guest.socket() as link,
    ):
        for power_mw, exposure_ms in ((2.1, 10.0), (1.0, 51.0), (1e300, 1e300)):
            say(link, do="lamp", on=True, power_mw=power_mw, exposure_ms=exposure_ms)
            assert "the rig allows 2 mW and 50 ms" in heard(link, "messages")["lines"][-1]["text"]
        assert not any(what == "on" for what, _ in switched)


def test_a_preview_ends_at_the_dose_that_the_rig_allows(
    run_yaml: Yaml, tmp_path: Path, stopping: threading.Event
) -> None:
    run_yaml(rig={"limits": {"dose_mj_cm2": 5.0}})
    with (
        viewed(lambda output: view_rig(tmp_path / "rig.yaml", None, 0, output), stopping) as (_, guest),
        guest.socket() as link,
    ):
        say(link, do="lamp", on=True, power_mw=1.0, exposure_ms=2.0)
        with watching(link):
            assert "the rig allows 5 mJ/cm²" in heard(link, "messages")["lines"][-1]["text"]
            state = heard(link, "state")
        one_frame = state["dose_mj_cm2"] / state["frames"]
        assert 5.0 <= state["dose_mj_cm2"] < 5.0 + 2 * one_frame


def test_light_goes_off_in_the_middle_of_a_long_exposure(
    run_yaml: Yaml, tmp_path: Path, stopping: threading.Event, switched: list[tuple[str, float]]
) -> None:
    run_yaml(rig=SLOW)
    viewing = viewed(lambda output: view_rig(tmp_path / "rig.yaml", None, 0, output), stopping)
    with viewing as (voice, guest), guest.socket() as link:
        say(link, do="lamp", on=True, power_mw=1.0, exposure_ms=3000.0)
        wait_for(lambda: is_lit(switched))
        asked_s = time.monotonic()
        say(link, do="abort")
        wait_for(lambda: not is_lit(switched))
        assert switched[-1][1] - asked_s < 1.0, "some 5 ms on an idle machine"
        say(link, do="lamp", on=True, power_mw=1.0, exposure_ms=2.0)
        with watching(link):
            assert heard(link, "frame")["number"] == 1, "what was put out half way is no frame"
    assert voice.status == 0
