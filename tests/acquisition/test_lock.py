"""One controller per rig: the second is refused by name, a dead one is in nobody's way."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from dmu_hw import lock
from dmu_hw.errors import InputError
from dmu_hw.lock import held, rig_held
from dmu_hw.rig import RigFile, load_rig
from dmu_hw.state import machine_folder, state_folder

HOLDER = """
import sys, time
from pathlib import Path
from dmu_hw.lock import rig_held
from dmu_hw.rig import load_rig
with rig_held(load_rig(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMU_STATE", str(tmp_path / "state"))


def test_the_second_is_told_who_holds_the_rig(rig_yaml: Callable[..., Path]) -> None:
    file = load_rig(rig_yaml())
    says = f"^rig small: is in use by process {os.getpid()} since 20[-0-9T:+]*$"
    with rig_held(file), pytest.raises(InputError, match=says), rig_held(load_rig(rig_yaml())):
        pass
    with rig_held(file):
        pass


def test_another_process_holds_it_until_it_dies(rig_yaml: Callable[..., Path]) -> None:
    path = rig_yaml()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is in use by process {child.pid} since"), rig_held(load_rig(path)):
            pass
        child.kill()
        child.wait()
        with rig_held(load_rig(path)):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process")
def test_one_that_stands_still_still_holds_it(rig_yaml: Callable[..., Path]) -> None:
    path = rig_yaml()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(InputError, match="is in use"), rig_held(load_rig(path)):
                pass
        finally:
            child.kill()


def test_rigs_in_two_folders_are_two(rig_yaml: Callable[..., Path], tmp_path: Path) -> None:
    first = load_rig(rig_yaml())
    (tmp_path / "other").mkdir()
    second = load_rig(Path(first.path.rename(tmp_path / "other" / "rig.yaml")))
    with rig_held(first), rig_held(second):
        pass


def test_a_way_round_leads_to_the_same_rig(rig_yaml: Callable[..., Path], tmp_path: Path) -> None:
    first = load_rig(rig_yaml())
    (tmp_path / "link.yaml").symlink_to(first.path)
    for path in (tmp_path / "link.yaml", tmp_path / "state" / ".." / "rig.yaml"):
        with rig_held(first), pytest.raises(InputError, match="rig small: is in use"), rig_held(load_rig(path)):
            pass


def with_light(file: RigFile, **settings: Any) -> Any:
    """A rig file whose light says which piece of hardware it is."""
    parts = {"light": SimpleNamespace(settings=SimpleNamespace(**settings))}
    return SimpleNamespace(path=file.path, settings=file.settings, parts=parts)


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        ({"port": "COM3"}, {"port": "com3"}, True),
        ({"port": "COM3"}, {"port": "COM4"}, False),
        ({"serial_number": 17}, {"serial_number": "17"}, True),
        ({"port": "17"}, {"serial_number": 17}, False),
        ({"port": ""}, {"port": ""}, False),
        ({"port": None}, {"port": None}, False),
    ],
)
def test_two_files_of_one_instrument_collide(
    rig_yaml: Callable[..., Path], mine: dict[str, Any], theirs: dict[str, Any], same: bool
) -> None:
    first, second = load_rig(rig_yaml()), load_rig(rig_yaml(name="second.yaml"))
    with rig_held(with_light(first, **mine)):
        if not same:
            with rig_held(with_light(second, **theirs)):
                return
        ((what, value),) = theirs.items()
        with (
            pytest.raises(InputError, match=f"{what} {value} of rig small: is in use by process"),
            rig_held(with_light(second, **theirs)),
        ):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="a port has one name there")
def test_a_port_by_another_name_is_the_same(rig_yaml: Callable[..., Path], tmp_path: Path) -> None:
    first, second = load_rig(rig_yaml()), load_rig(rig_yaml(name="second.yaml"))
    (tmp_path / "ttyUSB0").write_text("")
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB0")
    with (
        rig_held(with_light(first, port=str(tmp_path / "ttyUSB0"))),
        pytest.raises(InputError, match="by-id of rig small: is in use"),
        rig_held(with_light(second, port=str(tmp_path / "by-id"))),
    ):
        pass


def test_two_devices_on_one_port_do_not_stand_in_each_others_way(rig_yaml: Callable[..., Path]) -> None:
    file = with_light(load_rig(rig_yaml()), port="COM3")
    file.parts["stage"] = file.parts["light"]
    with rig_held(file):
        pass


# ---------------------------------------------------------------- many users of one computer


def test_all_users_look_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DMU_STATE")
    found = set()
    for user in ("anna", "ben"):
        for variable in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_STATE_HOME", "TMPDIR"):
            monkeypatch.setenv(variable, str(tmp_path / user))
        found.add(machine_folder("locks"))
    assert len(found) == 1
    assert state_folder("hours") != machine_folder("hours")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are lists there")
def test_what_one_user_makes_another_can_use(tmp_path: Path, rig_yaml: Callable[..., Path]) -> None:
    before = os.umask(0o077)
    try:
        with rig_held(load_rig(rig_yaml())):
            pass
    finally:
        os.umask(before)
    folder = tmp_path / "state" / "locks"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o1777, 0o1777]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666}


def test_a_file_that_can_only_be_read_is_held_too(
    rig_yaml: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig_held(load_rig(rig_yaml())):
        pass

    def refusing(path: Path, mode: str) -> IO[bytes]:
        if mode == "r+b":
            raise PermissionError(13, "Permission denied")
        return open(path, mode)

    monkeypatch.setattr(lock, "open", refusing, raising=False)
    with (
        rig_held(load_rig(rig_yaml())),
        pytest.raises(InputError, match="is in use by another process"),
        rig_held(load_rig(rig_yaml())),
    ):
        pass


def test_another_user_is_named(rig_yaml: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = load_rig(rig_yaml())
    monkeypatch.setattr("getpass.getuser", lambda: "anna")
    with rig_held(file):
        monkeypatch.setattr("getpass.getuser", lambda: "ben")
        with pytest.raises(InputError, match=rf"in use by process {os.getpid()} of user anna since"), rig_held(file):
            pass


def test_a_file_that_is_not_to_be_had_says_what_helps(
    rig_yaml: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(_path: Path, _mode: str) -> IO[bytes]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock, "open", refusing, raising=False)
    with pytest.raises(InputError, match=r"to lock rig small: Permission denied; .*DMU_STATE"):
        _hold(load_rig(rig_yaml()))


def _hold(file: RigFile) -> None:
    with rig_held(file):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, rig_yaml: Callable[..., Path]) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(InputError, match="DMU_STATE"), rig_held(load_rig(rig_yaml())):
        pass
    with pytest.raises(InputError, match="cannot be opened to lock a thing"), held(tmp_path / "no" / "lock", "a thing"):
        pass
