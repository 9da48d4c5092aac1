"""A name in a YAML is one class, or is refused with what is allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmu_hw import plugin
from dmu_hw.errors import InputError

WHERE = "rig.yaml:3: devices.dmd.driver"
PACKAGE = "shelf_of_drivers"

MODULES = {
    "__init__": "",
    "vialux": "from pathlib import Path\nclass Dmd: pass\nclass Camera: pass\nclass _Hidden: pass\nlimit = 3",
    "serial_light": "class Light: pass",
    "_shared": "class Dmd: pass",
    "needy": "import a_library_that_nobody_has",
    "empty": "",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lab folder; a package of plug-ins can be imported beside it."""
    (tmp_path / PACKAGE).mkdir()
    for name, source in MODULES.items():
        (tmp_path / PACKAGE / f"{name}.py").write_text(source)
    (tmp_path / PACKAGE / "camera").mkdir()
    (tmp_path / PACKAGE / "camera" / "__init__.py").write_text(f"from {PACKAGE}.camera.body import Camera")
    (tmp_path / PACKAGE / "camera" / "body.py").write_text("class Camera: pass")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(folder: Path, name: str, attribute: str = "Dmd") -> type:
    return plugin.load_class(PACKAGE, name, attribute, where=WHERE, folder=folder)


def refusal(folder: Path, name: str, attribute: str = "Dmd") -> str:
    with pytest.raises(InputError) as caught:
        load(folder, name, attribute)
    assert len(caught.value.problems) == 1
    said = str(caught.value)
    assert said.startswith(f"{WHERE}: ")
    return said.removeprefix(f"{WHERE}: ")


ALLOWED = "camera, empty, needy, serial_light, vialux, a dotted path, or a .py file beside the YAML"


def test_names_are_those_of_the_package_without_hidden_ones(folder: Path) -> None:
    assert plugin.names(PACKAGE) == ("camera", "empty", "needy", "serial_light", "vialux")


def test_a_name_a_dotted_path_and_a_file_lead_to_their_class(folder: Path) -> None:
    (folder / "mine.py").write_text("class Dmd: pass")
    (folder / "sub").mkdir()
    (folder / "sub" / "my dmd.py").write_text("class Dmd: pass")
    found = [load(folder, name) for name in ("vialux", f"{PACKAGE}.vialux", "mine.py", "sub/my dmd.py")]
    assert [item.__name__ for item in found] == ["Dmd"] * 4
    assert found[0] is found[1]
    assert len(set(found)) == 3
    assert load(folder, "camera", "Camera").__module__ == f"{PACKAGE}.camera.body"


@pytest.mark.parametrize(
    "name",
    ["", "../x", "..", "/", "a/b", "a-b", "_shared", "Vialux", "a.", ".a", "a..b", "1.2", "vialux\n", "os.path x", "é"],
)
def test_what_is_no_name_lists_what_is_allowed(folder: Path, name: str) -> None:
    said = refusal(folder, name)
    assert said.startswith(f"there is no {name!r};")
    assert said.endswith(f" allowed: {ALLOWED}")


def test_a_slip_of_the_pen_is_guessed(folder: Path) -> None:
    assert refusal(folder, "vialx") == f"there is no 'vialx'; did you mean 'vialux'? allowed: {ALLOWED}"


@pytest.mark.parametrize(("name", "attribute", "has"), [
    ("vialux", "Light", "Camera, Dmd"),
    ("vialux", "limit", "Camera, Dmd"),
    ("vialux", "Focus", "Camera, Dmd"),
    ("camera", "Dmd", "Camera"),
    ("empty", "Dmd", "no class"),
    (f"{PACKAGE}.serial_light", "Dmd", "Light"),
])  # fmt: skip
def test_a_missing_class_lists_what_there_is(folder: Path, name: str, attribute: str, has: str) -> None:
    assert refusal(folder, name, attribute) == f"{name!r} has no {attribute}; it has: {has}"


@pytest.mark.parametrize(("name", "what"), [
    ("needy", "No module named 'a_library_that_nobody_has'"),
    ("nowhere.at_all", "No module named 'nowhere'"),
    (f"{PACKAGE}.nothing", f"No module named '{PACKAGE}.nothing'"),
    ("json.decoder.x", "No module named 'json.decoder.x'; 'json.decoder' is not a package"),
])  # fmt: skip
def test_what_cannot_be_imported_says_why(folder: Path, name: str, what: str) -> None:
    assert refusal(folder, name) == f"{name!r} cannot be loaded: {what}"


def test_a_file_that_is_missing_is_named(folder: Path) -> None:
    (folder / "folder.py").mkdir()
    for name in ("mine.py", "../mine.py", "folder.py", ".py", "a\0.py"):
        assert refusal(folder, name) == f"there is no file {folder / name}"


BROKEN = {
    "no Python": ("class Dmd\n", "mine.py, line 1"),
    "no text": ("x = 1\n\0", "cannot be loaded"),
    "a library is missing": ("import a_library_that_nobody_has", "No module named 'a_library_that_nobody_has'"),
}


@pytest.mark.parametrize(("source", "what"), BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_cannot_be_loaded_says_why_and_leaves_nothing(folder: Path, source: str, what: str) -> None:
    (folder / "mine.py").write_text(source)
    before = set(sys.modules)
    assert what in refusal(folder, "mine.py")
    assert not [name for name in set(sys.modules) - before if name.startswith("dmu_plugin_mine")]
    (folder / "mine.py").write_text("class Dmd: mended = True  # longer than before")
    assert load(folder, "mine.py").__dict__["mended"]


def test_a_file_that_raises_shows_its_author_where(folder: Path) -> None:
    (folder / "mine.py").write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load(folder, "mine.py")


def test_a_file_is_loaded_once_and_its_namesake_elsewhere_is_another(folder: Path) -> None:
    (folder / "other").mkdir()
    for place in (folder, folder / "other"):
        (place / "mine.py").write_text("class Dmd: pass\nclass Camera: pass")
    dmd = load(folder, "mine.py")
    assert load(folder, "other/../mine.py") is dmd
    assert load(folder, "mine.py", "Camera").__module__ == dmd.__module__
    assert load(folder, "other/mine.py") is not dmd
    assert load(folder / "other", "mine.py") is load(folder, "other/mine.py")
    assert sys.modules[dmd.__module__].__dict__["Dmd"] is dmd
