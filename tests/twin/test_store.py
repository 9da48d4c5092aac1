"""What is stored stays, whole or not at all, and comes back as it was; what is not whole is told of."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw import store as store_module
from dmu_hw.dump import dump_yaml
from dmu_hw.errors import InputError, RunError
from dmu_hw.files import parse_yaml
from dmu_hw.physics.optics import Dye, GaussianPsf, Optics
from dmu_hw.routine import Evidence
from dmu_hw.store import Key, Record, Result, Store, cut_in, read_result, results_in

KEY = Key(rig="small", objective="main", channel="", routine="sensor")
AT = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
EVIDENCE = Evidence({"frames": np.arange(12, dtype=np.uint16).reshape(1, 3, 4)}, {"exposure_ms": 2.5})


def record(**changes: Any) -> Record:
    psf = GaussianPsf(sigma_um=0.3)
    optics = Optics(
        object_pixel_um=0.5, sensor_pixel_um=0.5, excitation=psf, emission=psf, dye=Dye(photons_per_um2_mw_ms=1.0)
    )
    given: dict[str, Any] = {
        "key": KEY,
        "at": AT,
        "valid_days": 2.0,
        "verdict": "pass",
        "believed": optics,
        "roles": ("camera",),
        "devices": "0" * 64,
        "sensor_shape": (3, 4),
        "mirrors_shape": (5, 6),
        "named": "sensor",
        "software": "test",
    }
    return Record(**{**given, **changes})


def added(store: Store, **changes: Any) -> Result:
    return store.add(record(**changes), EVIDENCE, {"map": np.ones((3, 4))})


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    result = added(
        Store(tmp_path), figures={"offset_adu": 1 / 3, "chance": 1e-200}, settings={"name": "1e5", "on": "no"}
    )
    again = Store(tmp_path).latest(KEY)
    assert again == result
    assert again.record.figures == {"offset_adu": 1 / 3, "chance": 0.0}
    assert again.record.settings == {"name": "1e5", "on": "no"}
    assert np.array_equal(again.evidence().arrays["frames"], EVIDENCE.arrays["frames"])
    assert again.evidence().facts == EVIDENCE.facts
    assert np.array_equal(again.found()["map"], np.ones((3, 4)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(-1e90, 1e90) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_the_strict_loader_reads_what_is_dumped(value: Any) -> None:
    if any(part in repr(value) for part in ("\\x", "\\u", "<<")):
        return  # not every character may stand in a YAML file
    found = parse_yaml(dump_yaml({"value": value}), Path("x.yaml")).value["value"]
    assert plain(found) == small(value)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple) else value


def small(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: small(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [small(inner) for inner in value]
    return 0.0 if isinstance(value, float) and abs(value) < 1e-100 else value


# ---------------------------------------------------------------- order


def test_the_last_is_the_one_that_was_stored_last_though_the_clock_was_set_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ahead = added(store, at=AT + timedelta(days=400))
    then = added(store, at=AT)
    assert store.latest(KEY) == then
    assert then.record.at == AT
    assert store.results(KEY) == [ahead, then]
    assert store.last_good(KEY) == then


def test_zones_do_not_change_the_order(tmp_path: Path) -> None:
    from datetime import timezone

    store = Store(tmp_path)
    first = added(store, at=AT.astimezone(timezone(timedelta(hours=9))))
    second = added(store, at=(AT + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-8))))
    assert store.results(KEY) == [first, second]
    assert first.folder.name == "20260301-120000-000005"


def test_two_within_a_microsecond_are_both_kept(tmp_path: Path) -> None:
    """Twelve at once, as far as the machine can."""
    together, found = threading.Barrier(12), []

    def add() -> None:
        together.wait()
        found.append(added(Store(tmp_path)))

    threads = [threading.Thread(target=add) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.folder for result in found}) == 12
    assert len(Store(tmp_path).results(KEY)) == 12


# ---------------------------------------------------------------- what goes wrong

KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from dmu_hw import store
from tests.twin.test_store import added
real, left = store.write_whole, {after}


def write(path, content):
    global left
    if left == 0:
        if {half}:
            path.with_name(f".{{path.name}}.0123").write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real(path, content)


store.write_whole = write
added(store.Store(Path({folder!r})))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_kill_in_the_middle_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    store, root = Store(tmp_path), str(Path(__file__).parents[2])
    before = added(store, at=AT - timedelta(days=1))
    for after in range(4):
        code = KILLED.format(root=root, folder=str(tmp_path), after=after, half=after % 2 == 0)
        ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert store.results(KEY) == [before]
    assert store.latest(KEY) == before
    assert [path.parent for path in results_in(tmp_path)] == [before.folder]
    assert len(list(cut_in(tmp_path))) == 4
    assert store.latest(KEY) != added(store)


def test_a_full_disk_is_told_and_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = store_module.write_whole, []

    def write(path: Path, content: bytes) -> None:
        written.append(path.name)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    monkeypatch.setattr(store_module, "write_whole", write)
    with pytest.raises(RunError, match=r"20260301-120000-000005: the result could not be stored: No space left"):
        added(Store(tmp_path))
    assert list(cut_in(tmp_path)) == []
    assert Store(tmp_path).latest(KEY) is None


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("verdict: pass", "verdict: warn", "was changed since it was stored"),
        ("verdict: pass", "verdict: fine", "verdict: "),
        ("sensor_pixel_um: 0.5", "sensor_pixel_um: 0.25", "was changed|whole multiple"),
        ("valid_days: 2.0", "valid_days: 1e9", "valid_days"),
        ("2026-03-02T12", "0001-03-02T12", "should be a time that a clock can show"),
        ("000005Z", "000005", "should say its time zone"),
        ("2026-03-02T", "yesterday", "should be a time as ISO 8601 writes it"),
        ("kind: calibration-result", "kind: [", "not sound YAML"),
        ("seal:", "sealed:", "unknown key 'sealed'|key 'seal'"),
    ],
)
def test_a_broken_result_is_refused_by_its_path_and_never_passed_over(
    tmp_path: Path, old: str, new: str, match: str
) -> None:
    store = Store(tmp_path)
    added(store)
    path = added(store, at=AT + timedelta(days=1)).folder / "result.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    for look in (lambda: store.latest(KEY), lambda: store.results(KEY), lambda: read_result(path.parent)):
        with pytest.raises(InputError, match=match) as refused:
            look()
        assert str(path) in str(refused.value)
    found, problems = store.history(KEY, 10)
    assert len(found) == 1
    assert str(path) in problems[0].where
    assert store.last_good(KEY) == found[0]


def test_a_copy_that_lies_among_results_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = added(store).folder
    folder.rename(folder.with_name("copy of the good one"))
    with pytest.raises(InputError, match="copy of the good one: is not called as results are, by their time"):
        store.latest(KEY)


@pytest.mark.parametrize("name", ["found.safetensors", "evidence.safetensors", "evidence.json"])
def test_damage_beside_a_result_is_told(tmp_path: Path, name: str) -> None:
    result = added(Store(tmp_path))
    result.check()
    path = result.folder / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match=f"{name}: is not what was stored"):
        result.check()
    path.unlink()
    with pytest.raises(InputError, match=f"{name}: is missing"):
        result.check()
