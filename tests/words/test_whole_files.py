"""Names that stay in their folder, paths beside the YAML, hashes of content, files that are never half written."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dmu_hw import files
from dmu_hw.files import FilePath, Name, Settings, content_hash, parse_yaml, validate, write_whole


class Place(Settings):
    x_um: float = 0.0
    y_um: float = 0.0
    corner_um: tuple[float, float] = (0.0, 0.0)


class Scan(Settings):
    name: Name = "a"
    frames: int = 1
    image: FilePath | None = None


def read(text: str) -> Scan:
    return validate(parse_yaml(text, Path("lab/scan.yaml")), Scan)


LEAVING = ["", "../x", "..", ".", "a.b", "a/b", "a\\b", "/a", "-a", "_a", "a b", "a\n", "a\0b", "é", "a" * 65, "C:"]
WINDOWS = ["CON", "con", "Prn", "AUX", "nul", "COM1", "com9", "LPT1"]


@pytest.mark.parametrize("name", [*LEAVING, *WINDOWS])
def test_a_name_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="should be a"):
        Scan(name=name)


@pytest.mark.parametrize("name", ["a", "A-1_b", "1", "a" * 64, "console", "com10", "nul-1", "lpt"])
def test_a_name_that_is_sound(name: str) -> None:
    assert Scan(name=name).name == name


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("cells.tif", "lab/cells.tif"),
        ("../images/cells.tif", "images/cells.tif"),
        ("./a/../b.tif", "lab/b.tif"),
        ("/data/cells.tif", "/data/cells.tif"),
    ],
)
def test_paths_are_relative_to_the_folder_of_the_yaml(text: str, path: str) -> None:
    assert read(f"image: {text}").image == Path(path)


def test_a_path_in_code_stays_as_it_is() -> None:
    assert Scan(image=Path("a/../b.tif")).image == Path("a/../b.tif")


def test_schema_for_editors_knows_names_and_paths() -> None:
    properties = Scan.model_json_schema()["properties"]
    assert properties["name"]["pattern"] == files.NAME_PATTERN
    assert {"type": "string"} in properties["image"]["anyOf"]


# ---------------------------------------------------------------- hashes and whole files

plain = st.dictionaries(
    st.text(max_size=3), st.integers() | st.text(max_size=3) | st.booleans() | st.none(), min_size=1
)


@given(plain, st.randoms(use_true_random=False))
def test_the_hash_does_not_know_the_order_of_keys(content: dict[str, Any], random: Any) -> None:
    shuffled = list(content.items())
    random.shuffle(shuffled)
    assert content_hash(dict(shuffled)) == content_hash(content)
    assert content_hash({"a": dict(shuffled)}) == content_hash({"a": content})


@given(plain, st.data())
def test_the_hash_knows_every_value(content: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(content)))
    assert content_hash({**content, key: [content[key]]}) != content_hash(content)
    assert content_hash({k: v for k, v in content.items() if k != key}) != content_hash(content)


def test_the_hash_of_settings_knows_every_field_and_no_layout() -> None:
    base = {"x_um": 1.0, "y_um": 2.0, "corner_um": (3.0, 4.0)}
    first = content_hash(Place.model_validate(base))
    changes = {"x_um": 1.5, "y_um": 1.0, "corner_um": (4.0, 3.0)}
    hashes = {content_hash(Place.model_validate({**base, key: value})) for key, value in changes.items()}
    assert len({first, *hashes}) == 4
    assert content_hash(read("name: a\nframes: 2")) == content_hash(read("# other\nframes: 2\n\nname: 'a'"))
    assert content_hash(Place(x_um=1)) == content_hash(Place(x_um=1.0))
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"a": math.nan})


def test_file_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert files.file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_is_replaced_whole_and_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    umask = os.umask(0o022)
    os.umask(umask)
    for content in (b"old", b"new"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.yaml"]  # noqa: PTH208
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = tmp_path / "a.yaml"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    write_whole(path, b"old")
    monkeypatch.setattr(files, "open", lambda *_: Path("/dev/full").open("wb"), raising=False)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "no" / "a.yaml", b"x")
