"""Frozen settings, the one strict YAML loader, content hashes, and files that are never half written."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import types
import typing
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from dmu_hw.errors import InputError, Problem
from dmu_hw.moves import move

MAX_YAML_BYTES = 250_000
"""Some 8,000 positions written out one by one; the pure Python parser reads it in about a second."""
MAX_YAML_DEPTH = 40
MAX_INT_DIGITS = 20
MAX_NUMBER = 1e100
"""Nothing in a laboratory is larger, nor smaller than its inverse; and what is computed from such numbers, squares and
cubes, stays finite and none of it becomes 0."""
MAX_PROBLEMS = 100
MAX_SHOWN = 60


class Settings(BaseModel):
    """What a person may write in a YAML file: frozen, no unknown keys, no conversions, no inf or nan."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


SettingsT = TypeVar("SettingsT", bound=Settings)
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if not values[0] < values[1]:
        raise ValueError("should be (lowest, highest) with lowest below highest")
    return values


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


def _to_path(value: object, info: ValidationInfo) -> Path:
    """Paths in a YAML are relative to the folder that it stands in."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise PydanticCustomError("path", "should be a path")
    folder = (info.context or {}).get("folder", Path())
    return Path(os.path.normpath(folder / value))


FilePath = Annotated[Path, BeforeValidator(_to_path, json_schema_input_type=str)]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_DEVICE_NAME = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


def _to_name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise PydanticCustomError("name", "should be a name of 1 to 64 letters, digits, '-' and '_'")
    if _DEVICE_NAME.fullmatch(value):
        raise PydanticCustomError("name", "should be another name: Windows keeps this one for a device")
    return value


Name = Annotated[str, AfterValidator(_to_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
"""Names become file names, so they cannot leave their folder, and are files on Windows too."""


# ---------------------------------------------------------------- YAML

Loc = tuple[str | int, ...]


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe scanner without what surprises people: aliases, tags, `on` as a truth value, octal."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="tags (!...) are not allowed", problem_mark=event.start_mark)
        if self.depth >= MAX_YAML_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_YAML_DEPTH} levels", problem_mark=event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_StrictLoader.yaml_implicit_resolvers = {}
_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("null", r"null|~|", "n~"),
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
)
for _tag, _pattern, _first in _SCALARS:
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])


class Document:
    """A parsed YAML file, or what stands in it under `root`, that remembers on which line each key stands."""

    def __init__(self, value: Any, lines: Mapping[Loc, int], path: Path, root: Loc = ()) -> None:
        self.value = value
        self.lines = lines
        self.path = path
        self.root = root

    def where(self, loc: Loc) -> str:
        """File, line and dotted key of a place; steps that are not in the file (a missing key) are left out."""
        kept = self.root
        for step in loc:
            if (*kept, step) in self.lines:
                kept = (*kept, step)
        key = _cut(".".join(str(step) for step in kept))
        return f"{self.path}:{self.lines.get(kept, 1)}" + (f": {key}" if key else "")

    def inside(self, loc: Loc, without: Iterable[str] = ()) -> Document:
        """What stands at a place, as a document of its own that other settings may check."""
        value = self.value
        for step in loc:
            value = value[step]
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if key not in without}
        return Document(value, self.lines, self.path, (*self.root, *loc))


class _Builder:
    """YAML nodes → plain values, the line of each, and everything that is wrong on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Loc, int] = {}
        self.problems: list[Problem] = []

    def build(self, node: yaml.Node, loc: Loc) -> Any:
        self.lines.setdefault(loc, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.build(child, (*loc, i)) for i, child in enumerate(node.value))
        if not isinstance(node, yaml.MappingNode):
            return self.scalar(node)
        mapping: dict[str, Any] = {}
        for key_node, child in node.value:
            if self.is_key(key_node, mapping):
                key = key_node.value
                self.lines[(*loc, key)] = key_node.start_mark.line + 1
                mapping[key] = self.build(child, (*loc, key))
        return mapping

    def is_key(self, node: yaml.Node, mapping: Mapping[str, Any]) -> bool:
        before = len(self.problems)
        if not isinstance(node, yaml.ScalarNode):
            self.refuse(node, "a key must be plain text")
        elif node.value == "<<":
            self.refuse(node, "merge keys (<<) are not allowed")
        elif node.value in mapping:
            self.refuse(node, f"key {_shown(node.value)} is given twice")
        else:
            self.text(node)
        return len(self.problems) == before

    def scalar(self, node: yaml.Node) -> Any:
        kind = node.tag.rsplit(":", 1)[-1]
        if kind == "null":
            return None
        if kind == "bool":
            return node.value == "true"
        if kind == "int":
            return self.whole_number(node)
        if kind == "float":
            return self.number(node)
        return self.text(node)

    def whole_number(self, node: yaml.Node) -> int:
        if len(node.value) > MAX_INT_DIGITS:
            self.refuse(node, f"a number of more than {MAX_INT_DIGITS} digits")
            return 0
        return int(node.value)

    def number(self, node: yaml.Node) -> float:
        value = float(node.value)
        if abs(value) > MAX_NUMBER:
            self.refuse(node, f"{_cut(node.value)} is too large a number")
        elif 0 < abs(value) < 1 / MAX_NUMBER:
            self.refuse(node, f"{_cut(node.value)} is too small a number")
        return value

    def text(self, node: yaml.Node) -> str:
        text: str = node.value
        if re.search("[\0\ud800-\udfff]", text):
            self.refuse(node, f"{_shown(text)} holds an escape that is no character")
        return text

    def refuse(self, node: yaml.Node, what: str) -> None:
        self.problems.append(Problem(f"{self.path}:{node.start_mark.line + 1}", what))


def parse_yaml(text: str, path: Path) -> Document:
    """Parse one document; anything odd is an InputError with file and line."""
    node = _compose(text, path)
    if node is None:
        raise InputError([Problem(f"{path}:1", "the file is empty")])
    builder = _Builder(path)
    value = builder.build(node, ())
    if builder.problems:
        raise InputError(_capped(builder.problems, path))
    return Document(value, builder.lines, path)


def _compose(text: str, path: Path) -> yaml.Node | None:
    try:
        loader = _StrictLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            [Problem(f"{path}:{line}", f"not text: it holds the character {error.character:#x}")]
        ) from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = (mark.line if mark else loader.line) + 1
        raise InputError([Problem(f"{path}:{line}", f"not sound YAML: {_yaml_sentence(error, line)}")]) from None
    except (ValueError, OverflowError):
        # PyYAML hands "\U00110000" and "%YAML 1.<10,000 digits>" unchecked to chr() and int().
        raise InputError([Problem(f"{path}:{loader.line + 1}", "not sound YAML: a number out of range")]) from None


_YAML_HINTS = {
    "\\t": "indent with spaces, not with tabs",
    "mapping values are not allowed": "is a space missing after a colon, or is the indent wrong?",
    "another document": "a file holds one; the next --- is too much",
}


def _yaml_sentence(error: yaml.MarkedYAMLError, line: int) -> str:
    sentence = _cut(str(error.problem or error.context).removeprefix("but "), 2 * MAX_SHOWN)
    start = error.context_mark.line + 1 if error.context_mark else line
    if start != line:
        sentence += f", {error.context} that starts on line {start}"
    hints = [hint for sign, hint in _YAML_HINTS.items() if sign in sentence]
    return sentence + "".join(f" ({hint})" for hint in hints)


def read_text(path: Path, limit: int = MAX_YAML_BYTES) -> str:
    """A text file of bounded size, or an InputError that names it."""
    try:
        with open(path, "rb") as file:
            raw = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise InputError([Problem(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}")]) from None
    if len(raw) > limit:
        raise InputError([Problem(str(path), f"larger than {limit:,} bytes")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError([Problem(f"{path}:{line}", "not UTF-8 text; save the file as UTF-8")]) from None


def load_yaml(path: Path, model: type[SettingsT]) -> SettingsT:
    """Read a YAML file into its settings; all problems at once, each with file, line and key."""
    document = parse_yaml(read_text(path), path)
    return validate(document, model)


def validate(document: Document, model: type[SettingsT]) -> SettingsT:
    """Check a parsed document against its settings."""
    if not isinstance(document.value, dict):
        raise InputError([Problem(document.where(()), _WORDS["model_type"])])
    try:
        return model.model_validate(document.value, context={"folder": document.path.parent})
    except ValidationError as error:
        raise InputError(_problems(error, document, model)) from None


# ---------------------------------------------------------------- what pydantic found, in plain words

_WORDS = {
    "bool_type": "should be true or false",
    "dict_type": "should be a mapping of keys to values",
    "float_type": "should be a number",
    "int_type": "should be a whole number",
    "model_attributes_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "string_type": "should be text (put it in quotes)",
    "tuple_type": "should be a list",
}


def _problems(error: ValidationError, document: Document, model: type[BaseModel]) -> list[Problem]:
    """One problem a place: of a union pydantic tells what every member thinks."""
    said: dict[Loc, dict[str, str]] = {}
    for detail in error.errors(include_url=False):
        place, options = _trace(model, detail["loc"])
        if detail["type"].startswith("union_tag"):
            place = (*place, "kind")
        said.setdefault(place, {})[_sentence(detail, model, options)] = _given(detail)
    problems = [
        Problem(document.where(place), " or ".join(sentences) + next(iter(sentences.values())))
        for place, sentences in said.items()
    ]
    return _capped(problems, document.path)


def _capped(problems: list[Problem], path: Path) -> list[Problem]:
    more = len(problems) - MAX_PROBLEMS
    return problems if more <= 0 else [*problems[:MAX_PROBLEMS], Problem(str(path), f"and {more:,} more problems")]


def _sentence(detail: ErrorDetails, model: type[BaseModel], options: list[Any]) -> str:
    kind, loc = detail["type"], detail["loc"]
    last = loc[-1] if loc else ""
    if kind == "extra_forbidden":
        _, parents = _trace(model, loc[:-1])
        return f"unknown key {_shown(last)}{_choice(str(last), (name for m in parents for name in _fields(m)))}"
    if kind == "missing":
        return f"value {last + 1} of the list is missing" if isinstance(last, int) else f"key {last!r} is missing"
    if kind == "union_tag_not_found":
        return f"key 'kind' is missing{_choice('', (tag for m in options for tag in _kinds(m)))}"
    if kind == "union_tag_invalid":
        tag = str(detail["ctx"]["tag"])
        return f"unknown kind {_shown(tag)}{_choice(tag, (tag for m in options for tag in _kinds(m)))}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return _WORDS.get(kind, message.replace("Tuple should", "should").replace(" after validation", ""))


def _given(detail: ErrorDetails) -> str:
    if detail["type"] in ("missing", "extra_forbidden", "union_tag_not_found", "union_tag_invalid"):
        return ""
    given = detail["input"]
    if isinstance(given, dict | tuple) and detail["type"] not in _WORDS:
        return ""
    return f", given {_shown(given)}"


def _shown(value: object) -> str:
    """A value as its author wrote it, short enough for a line."""
    if isinstance(value, dict | tuple):
        return "a list" if isinstance(value, tuple) else "a mapping"
    if isinstance(value, bool):
        return str(value).lower()
    return "nothing" if value is None else _cut(repr(value))


def _cut(text: str, length: int = MAX_SHOWN) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _choice(given: str, allowed: Iterable[str]) -> str:
    names = sorted(set(allowed))
    close = difflib.get_close_matches(given, names, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ";") + f" allowed: {', '.join(names)}"


def _trace(model: type[BaseModel], loc: Loc) -> tuple[Loc, list[Any]]:
    """A place as pydantic names it → the place in the file, and the types that may stand there.

    Within a union pydantic adds which member it speaks of; that step is not in the file."""
    place: Loc = ()
    options: list[Any] = [model]
    for step in loc:
        if len(options) > 1:
            options = [option for option in options if step in _labels(option)] or options
        else:
            place = (*place, step)
            options = [inner for option in options for inner in _inside(option, step)]
    return place, options


def _inside(annotation: Any, step: str | int) -> list[Any]:
    """The types that may stand one step further in."""
    fields, args = _fields(annotation), typing.get_args(annotation)
    if step in fields:
        return _options(fields[str(step)].annotation)
    if typing.get_origin(annotation) is dict:
        return _options(args[1])
    if typing.get_origin(annotation) is tuple and isinstance(step, int):
        return _options(args[0] if args[-1] is Ellipsis else args[step])
    return []


def _options(annotation: Any) -> list[Any]:
    """What a type annotation may stand for, one by one; None needs no name."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return _options(args[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [option for arg in args if arg is not types.NoneType for option in _options(arg)]
    return [annotation]


def _fields(annotation: Any) -> dict[str, FieldInfo]:
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}


def _kinds(annotation: Any) -> tuple[str, ...]:
    fields = _fields(annotation)
    return typing.get_args(fields["kind"].annotation) if "kind" in fields else ()


def _labels(annotation: Any) -> tuple[str, ...]:
    """What pydantic calls a member of a union."""
    return (*_kinds(annotation), getattr(annotation, "__name__", ""), str(annotation))


# ---------------------------------------------------------------- hashes and whole files


def content_hash(value: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of settings: the same content, the same hash, whatever the layout."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even when the power fails."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
