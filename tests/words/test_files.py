"""What a person writes in a YAML: read strictly, refused with file, line and key, hashed, written whole."""

from __future__ import annotations

import math
import re
import time
import tracemalloc
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from dmu_hw import files
from dmu_hw.errors import InputError
from dmu_hw.files import MAX_NUMBER, Count, FilePath, Name, Positive, Settings, parse_yaml, validate

HERE = Path("lab/protocol.yaml")


class Gaussian(Settings):
    kind: Literal["gaussian"] = "gaussian"
    sigma_um: Positive


class Airy(Settings):
    kind: Literal["airy"]
    na: Positive
    gaussian: float = 1.0
    """Named like a kind on purpose."""


Psf = Annotated[Gaussian | Airy, Field(discriminator="kind")]


class Place(Settings):
    x_um: float = 0.0
    y_um: float = 0.0
    corner_um: tuple[float, float] = (0.0, 0.0)


class Protocol(Settings):
    name: Name = "a"
    exposure_ms: Positive = 1.0
    gain: Positive | Literal["auto"] = 1.0
    frames: Count = 1
    light: bool = False
    note: str = ""
    image: FilePath | None = None
    nearest: Place | None = None
    places: tuple[Place, ...] = ()
    cameras: dict[Name, Place] = Field(default={})
    terms: Annotated[tuple[float, ...], Field(max_length=3)] = ()
    psf: Psf = Gaussian(sigma_um=1.0)
    psfs: tuple[Psf, ...] = ()
    pair: tuple[Gaussian, Place] | None = None
    emission: Psf | None = None

    @model_validator(mode="after")
    def _fits(self) -> Protocol:
        if self.frames > 1000:
            raise ValueError("NA and frames do not fit")
        return self


KEYS = "cameras, emission, exposure_ms, frames, gain, image, light, name, nearest, note, pair, places, psf, psfs, terms"


def read(text: str) -> Protocol:
    return validate(parse_yaml(text, HERE), Protocol)


def refused(text: str) -> list[str]:
    """Every problem of a text, as its author reads it."""
    with pytest.raises(InputError) as caught:
        read(text)
    return str(caught.value).split("\n")


# ---------------------------------------------------------------- what a value is


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-2", -2),
        ("+2", 2),
        ("0", 0),
        ("-0.0", -0.0),
        ("1e5", 1e5),
        ("12345678901234567890", 12345678901234567890),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        *[(word, word) for word in ("on", "off", "yes", "No", "y", "True", "TRUE", "Null", "NULL", "nan", "inf")],
        *[(word, word) for word in ("010", "-010", "1_000", "0x10", "0b1", "0o17", "1e", "e5", ".", "+", "1.2.3")],
        *[(word, word) for word in ("2026-01-01", "12:30:00", "2026-01-01T12:30:00Z", ".inf", "-.inf", ".nan", "=")],
        ("'1'", "1"),
        ('"true"', "true"),
        ('"a\\tb"', "a\tb"),
        ("µm × 3", "µm × 3"),
        ("[1, [on, 2.5]]", (1, ("on", 2.5))),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
    ],
)
def test_a_scalar_is_what_it_looks_like(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}", HERE).value["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["on", "yes", "010", "1_000", "0x10", "2026-01-01", "12:30:00", ".inf", ".nan", "-.inf"]
)
def test_a_number_is_not_guessed(text: str) -> None:
    assert refused(f"exposure_ms: {text}") == [f"{HERE}:1: exposure_ms: should be a number, given '{text}'"]


@pytest.mark.parametrize(
    "text", ["# a comment first\n---\nnote: x\n", "\ufeffnote: x\n", "note: x\r\nframes: 2\r\n", "note: |\n  x\n  y\n"]
)
def test_layouts_that_editors_leave_are_read(text: str) -> None:
    assert read(text).note.startswith("x")


@given(st.floats(-MAX_NUMBER, MAX_NUMBER))
def test_every_float_that_python_prints_is_read_back(value: float) -> None:
    if 0 < abs(value) < 1 / MAX_NUMBER:
        assert "is too small a number" in refused(f"terms: [{value!r}]")[0]
        return
    found = read(f"terms: [{value!r}]").terms[0]
    assert found == value
    assert math.copysign(1, found) == math.copysign(1, value)


# ---------------------------------------------------------------- what is refused as a whole


BOMB = "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n" for i in range(50))

UNSOUND = {
    "key twice": ("note: a\nframes: 1\nnote: b", 3, "key 'note' is given twice"),
    "key twice, nested": ("places:\n  - x_um: 1\n    x_um: 2", 3, "key 'x_um' is given twice"),
    "key twice, quoted once": ("note: a\n'note': b", 2, "key 'note' is given twice"),
    "anchor": ("note: &a x", 1, "anchors and aliases are not allowed"),
    "anchor on a mapping": ("note: x\nnearest: &a {x_um: 1}", 2, "anchors and aliases are not allowed"),
    "alias": ("note: x\nnearest: *a", 2, "anchors and aliases are not allowed"),
    "alias bomb": (BOMB, 1, "anchors and aliases are not allowed"),
    "merge key": ("note: a\n<<: {frames: 1}", 2, "merge keys"),
    "tag that runs code": ("note: !!python/object/apply:os.system [ls]", 1, "tags"),
    "tag of a plain type": ("note: x\nframes: !!int '3'", 2, "tags"),
    "tag without a name": ("frames: ! 3", 1, "tags"),
    "two documents": ("note: x\n---\nnote: y", 2, "a file holds one"),
    "5,000 lists in each other": ("note: x\nterms: " + "[" * 5000 + "]" * 5000, 2, "nested deeper than 40 levels"),
    "5,000 mappings in each other": ("{a: " * 5000 + "}" * 5000, 1, "nested deeper than 40 levels"),
    "block nesting": ("\n".join(" " * i + "a:" for i in range(500)), 40, "nested deeper than 40 levels"),
    "NUL": ("note: x\nname: a\0b", 2, "it holds the character 0x0"),
    "NUL as an escape": ('note: x\nname: "a\\0b"', 2, "an escape that is no character"),
    "half a character": ('note: "\\ud800"', 1, "an escape that is no character"),
    "half a character as a key": ('"\\ud800": 1', 1, "an escape that is no character"),
    "no such character": ('note: x\nname: "\\U00110000"', 2, "a number out of range"),
    "far beyond characters": ('note: x\nname: "\\UFFFFFFFF"', 2, "a number out of range"),
    "directive of 10,000 digits": ("%YAML 1." + "9" * 10_000 + "\n---\na: 1", 1, "a number out of range"),
    "empty": ("", 1, "the file is empty"),
    "only comments": ("# nothing\n\n# here\n", 1, "the file is empty"),
    "list at the top": ("- 1\n- 2", 1, "should be a mapping of keys to values"),
    "text at the top": ("hello", 1, "should be a mapping of keys to values"),
    "nothing after the dashes": ("---\n", 2, "should be a mapping of keys to values"),
    "10,000 digits": ("note: x\nframes: " + "9" * 10_000, 2, "a number of more than 20 digits"),
    "-10,000 digits": ("frames: -" + "9" * 10_000, 1, "a number of more than 20 digits"),
    "1e999": ("note: x\nexposure_ms: 1e999", 2, "1e999 is too large a number"),
    "1e200": ("note: x\nexposure_ms: 1e200", 2, "1e200 is too large a number"),
    "1e-200": ("note: x\nexposure_ms: -1e-200", 2, "-1e-200 is too small a number"),
    "-1e999": ("exposure_ms: -1e999", 1, "-1e999 is too large a number"),
    "a float of 10,000 digits": ("exposure_ms: " + "9" * 10_000 + ".5", 1, "is too large a number"),
    ".inf": ("note: x\nexposure_ms: .inf", 2, "should be a number, given '.inf'"),
    ".nan": ("note: x\nexposure_ms: .nan", 2, "should be a number, given '.nan'"),
    "a list as a key": ("note: x\n? [a, b]\n: 1", 2, "a key must be plain text"),
    "tab": ("nearest:\n\tx_um: 1", 2, "indent with spaces, not with tabs"),
    "no space after a colon": ("note:x\nframes: 1", 2, "is a space missing after a colon"),
    "quote left open": ("note: 'x\nframes: 1\n", 3, "a quoted scalar that starts on line 1"),
    "bracket left open": ("terms: [1, 2\nnote: x\n", 2, "a flow sequence that starts on line 1"),
}


@pytest.mark.parametrize(("text", "line", "what"), UNSOUND.values(), ids=UNSOUND.keys())
def test_unsound_yaml_is_one_problem_with_its_line(text: str, line: int, what: str) -> None:
    start = time.process_time()
    problems = refused(text)
    seconds = time.process_time() - start
    assert len(problems) == 1
    assert problems[0].startswith(f"{HERE}:{line}: ")
    assert what in problems[0]
    assert len(problems[0]) < 300
    assert seconds < 1


@pytest.mark.parametrize("case", ["alias bomb", "5,000 lists in each other", "10,000 digits"])
def test_unsound_yaml_takes_little_memory(case: str) -> None:
    tracemalloc.start()
    refused(UNSOUND[case][0])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 10e6


def test_doubled_keys_and_long_numbers_are_told_together() -> None:
    assert len(refused("note: a\nnote: b\nframes: 999999999999999999999\n<<: {}\nexposure_ms: 1e999")) == 4


UNREADABLE = {
    "latin-1": (b"note: x\nname: \xb5m", ":2: not UTF-8 text; save the file as UTF-8"),
    "utf-16 from PowerShell": ("note: x".encode("utf-16"), ":1: not UTF-8 text; save the file as UTF-8"),
    "too large": (b"#" * (files.MAX_YAML_BYTES + 1), ": larger than 250,000 bytes"),
    "empty": (b"", ":1: the file is empty"),
}


@pytest.mark.parametrize(("raw", "what"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, raw: bytes, what: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        files.load_yaml(path, Protocol)
    assert str(caught.value) == f"{path}{what}"


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"note: x\n".ljust(files.MAX_YAML_BYTES, b"#"))
    assert files.load_yaml(path, Protocol).note == "x"


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b", "x" * 300])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read") as caught:
        files.load_yaml(tmp_path / name, Protocol)
    assert str(caught.value).startswith(str(tmp_path / name))


# ---------------------------------------------------------------- what is wrong inside

WRONG = {
    "type": ("frames: 1.5", ["1: frames: should be a whole number, given 1.5"]),
    "a truth value is no number": ("exposure_ms: true", ["1: exposure_ms: should be a number, given true"]),
    "a number is no truth value": ("light: 1", ["1: light: should be true or false, given 1"]),
    "zero is not false": ("light: 0", ["1: light: should be true or false, given 0"]),
    "a word is no truth value": ("light: on", ["1: light: should be true or false, given 'on'"]),
    "a number is no text": ("note: 17", ["1: note: should be text (put it in quotes), given 17"]),
    "nothing": ("frames: 2\nexposure_ms:", ["2: exposure_ms: should be a number, given nothing"]),
    "range": ("exposure_ms: -5", ["1: exposure_ms: should be greater than 0, given -5"]),
    "a list for a number": ("exposure_ms: [1]", ["1: exposure_ms: should be a number, given a list"]),
    "a mapping for a list": ("places: {}", ["1: places: should be a list, given a mapping"]),
    "a list for a mapping": ("cameras: []", ["1: cameras: should be a mapping of keys to values, given a list"]),
    "two ways to be right, one problem": (
        "gain: -1",
        ["1: gain: should be greater than 0 or should be 'auto', given -1"],
    ),
    "a value of a tuple": (
        "nearest:\n  corner_um: [1,\n    on]",
        ["3: nearest.corner_um.1: should be a number, given 'on'"],
    ),
    "a tuple too short": ("nearest: {corner_um: [1]}", ["1: nearest.corner_um: value 2 of the list is missing"]),
    "a tuple too long": (
        "nearest: {corner_um: [1, 2, 3]}",
        ["1: nearest.corner_um: should have at most 2 items, not 3"],
    ),
    "a value of many": ("terms:\n- 1\n- 2\n- x", ["4: terms.2: should be a number, given 'x'"]),
    "too many": ("terms: [1, 2, 3, 4]", ["1: terms: should have at most 3 items, not 4"]),
    "settings that do not fit together": ("note: x\nframes: 1001", ["1: NA and frames do not fit"]),
    "a very long value": ("frames: " + "x" * 5000, [f"1: frames: should be a whole number, given '{'x' * 59}..."]),
    "unknown key": (
        "frames: 2\nexposre_ms: 5",
        [f"2: exposre_ms: unknown key 'exposre_ms'; did you mean 'exposure_ms'? allowed: {KEYS}"],
    ),
    "unknown key like no other": ("zzz: 5", [f"1: zzz: unknown key 'zzz'; allowed: {KEYS}"]),
    "unknown key in an optional model": (
        "nearest:\n  x_um: 1\n  y_mu: 1",
        ["3: nearest.y_mu: unknown key 'y_mu'; did you mean 'y_um'? allowed: corner_um, x_um, y_um"],
    ),
    "unknown key in a tuple of models": (
        "places:\n  - x_um: 1\n  - y_mu: 1",
        ["3: places.1.y_mu: unknown key 'y_mu'; did you mean 'y_um'? allowed: corner_um, x_um, y_um"],
    ),
    "unknown key in a dict of models": (
        "cameras:\n  psf:\n    y_mu: 1",
        ["3: cameras.psf.y_mu: unknown key 'y_mu'; did you mean 'y_um'? allowed: corner_um, x_um, y_um"],
    ),
    "unknown key in a union": (
        "psf:\n  kind: airy\n  na: 1\n  sigma_um: 2",
        ["4: psf.sigma_um: unknown key 'sigma_um'; allowed: gaussian, kind, na"],
    ),
    "unknown key in an optional union": (
        "emission:\n  kind: gaussian\n  sigma_um: 1\n  sgima_um: 2",
        ["4: emission.sgima_um: unknown key 'sgima_um'; did you mean 'sigma_um'? allowed: kind, sigma_um"],
    ),
    "wrong value in a tuple of unions": (
        "psfs:\n- {kind: airy, na: 1}\n- kind: airy\n  na: -1",
        ["4: psfs.1.na: should be greater than 0, given -1"],
    ),
    "unknown key in the second of a pair": (
        "pair:\n- sigma_um: 1\n- y_mu: 1",
        ["3: pair.1.y_mu: unknown key 'y_mu'; did you mean 'y_um'? allowed: corner_um, x_um, y_um"],
    ),
    "missing key in a union": ("psf:\n  kind: airy", ["1: psf: key 'na' is missing"]),
    "a key named like a kind": (
        "psf:\n  kind: gaussian\n  gaussian: 1",
        [
            "1: psf: key 'sigma_um' is missing",
            "3: psf.gaussian: unknown key 'gaussian'; allowed: kind, sigma_um",
        ],
    ),
    "wrong kind": (
        "psf:\n  sigma_um: 1\n  kind: gausian",
        ["3: psf.kind: unknown kind 'gausian'; did you mean 'gaussian'? allowed: airy, gaussian"],
    ),
    "a kind that is no text": ("psf: {kind: 3}", ["1: psf.kind: unknown kind '3'; allowed: airy, gaussian"]),
    "a kind that is a list": ("psf: {kind: [3]}", ["1: psf.kind: unknown kind '(3,)'; allowed: airy, gaussian"]),
    "missing kind": ("note: x\npsf:\n  na: 1", ["2: psf: key 'kind' is missing; allowed: airy, gaussian"]),
    "missing kind, optional": ("emission: {}", ["1: emission: key 'kind' is missing; allowed: airy, gaussian"]),
    "a number for a union": ("psf: 3", ["1: psf: should be a mapping of keys to values, given 3"]),
    "a key that is no name": (
        "cameras:\n  a/b: {}",
        ["2: cameras.a/b: should be a name of 1 to 64 letters, digits, '-' and '_', given 'a/b'"],
    ),
    "empty path": ("image: ''", ["1: image: should be a path, given ''"]),
    "a number for a path": ("image: 3", ["1: image: should be a path, given 3"]),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_where_it_stands(text: str, said: list[str]) -> None:
    assert refused(text) == [f"{HERE}:{line}" for line in said]


def test_a_key_named_like_the_kind_that_was_chosen_does_not_draw_the_line_away() -> None:
    text = "psf:\n  kind: airy\n  na: 1\n  gaussian: x"
    assert refused(text) == [f"{HERE}:4: psf.gaussian: should be a number, given 'x'"]

    class Odd(Settings):
        kind: Literal["odd"]
        odd: float
        na: Positive

    class Outer(Settings):
        psf: Annotated[Odd | Airy, Field(discriminator="kind")]

    with pytest.raises(InputError) as caught:
        validate(parse_yaml("psf:\n  kind: odd\n  odd: 1\n  na: -1\n", HERE), Outer)
    assert str(caught.value) == f"{HERE}:4: psf.na: should be greater than 0, given -1"


def test_all_problems_of_a_file_are_told_at_once_each_with_its_own_line() -> None:
    """One text of all the wrong bits that can stand side by side: none hides another."""
    bits = {text.split(":", 1)[0]: (text, said) for text, said in WRONG.values() if not text.startswith("note: x\n")}
    text, expected = "", set()
    for bit, said in bits.values():
        above = text.count("\n")
        expected |= {re.sub(r"^\d+", lambda line: str(int(line[0]) + above), problem) for problem in said}  # noqa: B023
        text += f"{bit}\n"
    assert len(expected) >= len(bits) > 10
    assert set(refused(text)) == {f"{HERE}:{problem}" for problem in expected}


def test_a_thousand_problems_are_cut_to_a_hundred() -> None:
    problems = refused("".join(f"k{i}: 1\n" for i in range(1000)))
    assert len(problems) == files.MAX_PROBLEMS + 1
    assert problems[-1] == f"{HERE}: and 900 more problems"


def test_settings_are_frozen_and_refuse_what_is_not_finite() -> None:
    place = Place(x_um=1)
    assert type(place.x_um) is float
    with pytest.raises(ValidationError):
        place.x_um = 2.0
    for value in (math.inf, math.nan):
        with pytest.raises(ValidationError):
            Place(x_um=value)


def test_a_part_of_a_document_is_checked_with_the_lines_of_the_whole() -> None:
    document = parse_yaml("devices:\n  cam:\n    driver: simulated\n    x_um: 1\n    y_mu: 2\n", HERE)
    part = document.inside(("devices", "cam"), without=("driver",))
    assert part.value == {"x_um": 1, "y_mu": 2}
    with pytest.raises(InputError) as caught:
        validate(part, Place)
    assert str(caught.value).startswith(f"{HERE}:5: devices.cam.y_mu: unknown key 'y_mu'; did you mean 'y_um'?")


# ---------------------------------------------------------------- nothing but InputError

GOOD = """\
name: quickstart
exposure_ms: 1e-3   # short
gain: auto
frames: 12
light: true
note: |
  two
  lines
image: ../images/cells.tif
nearest: {x_um: 1, y_um: -.5, corner_um: [1, 2.5]}
places:
  - x_um: 1
    y_um: 2
  - {x_um: 3}
cameras:
  left: {x_um: 1}
  right:
    y_um: 2
psf:
  kind: airy
  na: 0.75
psfs: [{kind: gaussian, sigma_um: 1}, {kind: airy, na: 1.2}]
"""
YAML_ALPHABET = "ab01 \n\t:-[]{}#&*!|>'\"%@`,?.~<=\\xuU\0\x85\u2028\ufeff\ud800é😀"
PIECES = ["- ", "? ", ": ", "---", "...", "&a", "*a", "!!x", "<<: ", "'", "%YAML 1.", "kind: ", '"\\u', "\\U0011"]
piece = st.one_of(st.sampled_from(PIECES), st.text(YAML_ALPHABET, max_size=4), st.text(max_size=2))
cut = st.tuples(st.integers(0, len(GOOD)), st.integers(0, 6), piece)


def problems_of(tree: str | dict[str, Any]) -> tuple[str, ...]:
    """Where the problems of a text or of what it says are: none if it is sound. Nothing else may come out."""
    try:
        validate(parse_yaml(tree, HERE) if isinstance(tree, str) else files.Document(tree, {}, HERE), Protocol)
    except InputError as error:
        return tuple(problem.where for problem in error.problems) or ("nowhere",)
    return ()


def assert_only_refused(tree: str | dict[str, Any]) -> None:
    assert all(where.startswith(f"{HERE}:") for where in problems_of(tree))


def test_the_good_text_is_good() -> None:
    assert read(GOOD).psf == Airy(kind="airy", na=0.75)


@settings(max_examples=400)
@given(st.text(YAML_ALPHABET, max_size=60))
@example('"\\U00110000"')
@example("? {a}")
@example("- " * 100)
def test_no_text_raises_anything_else(text: str) -> None:
    assert_only_refused(text)
    assert_only_refused(f"note: {text}")


@settings(max_examples=400)
@given(st.lists(cut, min_size=1, max_size=6))
def test_no_change_to_a_good_text_raises_anything_else(cuts: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for at, length, new in cuts:
        text = text[:at] + new + text[at + length :]
    assert_only_refused(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.sampled_from(["kind", "x_um", "na", "q"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Protocol.model_fields, "q"]), values, max_size=4))
def test_no_value_at_any_key_raises_anything_else(tree: dict[str, Any]) -> None:
    assert_only_refused(tree)
