"""Run folders: never one over another, never half made, and a manifest that vouches for itself."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from dmu_hw.errors import InputError, RunError
from dmu_hw.runfolder import RunFolder, new_run, open_run


def test_two_runs_in_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _form: "20260102T030405")
    names = [new_run(tmp_path / "runs", "cells").path.name for _ in range(3)]
    assert names == ["20260102T030405-cells", "20260102T030405-cells-2", "20260102T030405-cells-3"]


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    run = new_run(tmp_path / "a" / "b", "cells")
    assert run.path.is_dir()
    assert open_run(run.path) == run


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_is_no_place_for_runs(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a run folder cannot be made here"):
        new_run(tmp_path / place, "cells")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is read-only for everybody")
def test_a_read_only_system_is_refused() -> None:
    with pytest.raises(InputError, match="/proc/dmu: a run folder cannot be made here"):
        new_run(Path("/proc/dmu"), "cells")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="Permission denied"):
        new_run(tmp_path, "cells")
    tmp_path.chmod(0o755)


def test_what_is_no_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        open_run(tmp_path / "nothing")


def test_the_manifest_names_every_other_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "b").mkdir()
    for name in ("a.txt", "b/c.txt", "b/.hidden"):
        (tmp_path / name).write_text(name)
    run.write_manifest({"complete": True, "counts": {"saved": 1}})
    content = run.read_manifest()
    assert list(content["files"]) == ["a.txt", "b/.hidden", "b/c.txt"]
    assert content["complete"] is True
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b", "manifest.json"}


def test_any_changed_byte_of_the_manifest_is_found(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    run.write_manifest({"complete": True, "counts": {"saved": 1}, "note": ',\n "sha256": "'})
    content = run.manifest.read_bytes()
    for place in range(len(content)):
        for flip in (1, 32, 128):
            run.manifest.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            with pytest.raises(RunError, match="was changed"):
                run.read_manifest()
    for other in (b"", b"{}", content[:-1], content + b"\n", content[: len(content) // 2]):
        run.manifest.write_bytes(other)
        with pytest.raises(RunError, match="was changed"):
            run.read_manifest()
    run.manifest.write_bytes(content)
    assert run.read_manifest()["note"] == ',\n "sha256": "'


def test_a_run_without_a_manifest_was_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the run was cut, or this is no run folder"):
        RunFolder(tmp_path).read_manifest()


def test_a_manifest_without_facts(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_manifest({})
    assert RunFolder(tmp_path).read_manifest()["files"] == {}
