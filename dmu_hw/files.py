"""Frozen settings, the one strict YAML loader, content hashes, and files that are never half written."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tempfile
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from dmu_hw.errors import InputError, Problem

MAX_YAML_BYTES = 1_000_000
MAX_YAML_DEPTH = 40


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


def _to_path(value: object, info: ValidationInfo) -> Path:
    """Paths in a YAML are relative to the folder that it stands in."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise PydanticCustomError("path", "a path is wanted")
    folder = (info.context or {}).get("folder", Path())
    return Path(os.path.normpath(folder / value))


FilePath = Annotated[Path, BeforeValidator(_to_path, json_schema_input_type=str)]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Names become file names, so they cannot leave their folder."""


# ---------------------------------------------------------------- YAML


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe scanner without what surprises people: aliases, tags, `on` as a truth value, octal."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if getattr(event, "tag", None) not in (None, "!"):
            raise yaml.MarkedYAMLError(problem=f"tag {event.tag!r} is not allowed", problem_mark=event.start_mark)
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
    """A parsed YAML file that remembers on which line each key stands."""

    def __init__(self, value: Any, lines: Mapping[tuple[str | int, ...], int], path: Path) -> None:
        self.value = value
        self.lines = lines
        self.path = path

    def where(self, loc: tuple[str | int, ...]) -> str:
        """File, line and dotted key of a place, skipping the steps that are not in the file (union tags)."""
        kept: tuple[str | int, ...] = ()
        for step in loc:
            if kept + (step,) in self.lines:
                kept += (step,)
        line = self.lines.get(kept, 1)
        key = ".".join(str(step) for step in kept)
        return f"{self.path}:{line}" + (f": {key}" if key else "")


def _construct(node: yaml.Node, loc: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], path: Path) -> Any:
    lines.setdefault(loc, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return tuple(_construct(child, (*loc, i), lines, path) for i, child in enumerate(node.value))
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError([Problem(f"{path}:{line}", "a key must be plain text")])
            if key_node.value in mapping:
                raise InputError([Problem(f"{path}:{line}", f"key {key_node.value!r} is given twice")])
            lines[(*loc, key_node.value)] = line
            mapping[key_node.value] = _construct(child, (*loc, key_node.value), lines, path)
        return mapping
    return _scalar(node, path)


def _scalar(node: yaml.Node, path: Path) -> Any:
    text: str = node.value
    kind = node.tag.rsplit(":", 1)[-1]
    if kind == "null":
        return None
    if kind == "bool":
        return text == "true"
    if kind == "int":
        if len(text) > 20:
            raise InputError([Problem(f"{path}:{node.start_mark.line + 1}", "a number of more than 20 digits")])
        return int(text)
    if kind == "float":
        return float(text)
    return text


def parse_yaml(text: str, path: Path) -> Document:
    """Parse one document; anything odd is an InputError with file and line."""
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        node = yaml.compose(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError([Problem(where, f"not sound YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise InputError([Problem(str(path), f"not sound YAML: {' '.join(str(error).split())}")]) from None
    if node is None:
        raise InputError([Problem(str(path), "the file is empty")])
    return Document(_construct(node, (), lines, path), lines, path)


def read_text(path: Path, limit: int = MAX_YAML_BYTES) -> str:
    """A text file of bounded size, or an InputError that names it."""
    try:
        with open(path, "rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise InputError([Problem(str(path), f"cannot be read: {error.strerror or error}")]) from None
    if len(raw) > limit:
        raise InputError([Problem(str(path), f"larger than {limit} bytes")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError([Problem(str(path), f"not UTF-8 text: byte {error.start}")]) from None


def load_yaml(path: Path, model: type[SettingsT]) -> SettingsT:
    """Read a YAML file into its settings; all problems at once, each with file, line and key."""
    document = parse_yaml(read_text(path), path)
    return validate(document, model)


def validate(document: Document, model: type[SettingsT]) -> SettingsT:
    """Check a parsed document against its settings."""
    if not isinstance(document.value, dict):
        raise InputError([Problem(document.where(()), "a mapping of keys to values is wanted at the top")])
    try:
        return model.model_validate(document.value, context={"folder": document.path.parent})
    except ValidationError as error:
        problems = [
            Problem(document.where(detail["loc"]), _sentence(detail, model)) for detail in error.errors(include_url=False)
        ]
        raise InputError(problems) from None


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        allowed = sorted(_allowed_keys(model, detail["loc"][:-1]))
        close = difflib.get_close_matches(key, allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        return f"unknown key {key!r}{hint} allowed: {', '.join(allowed)}"
    if detail["type"] == "missing":
        return f"key {key!r} is missing"
    given = detail["input"]
    message = detail["msg"].removeprefix("Value error, ")
    if isinstance(given, str | int | float | bool) or given is None:
        return f"{message[0].lower()}{message[1:]}, given {given!r}"
    return f"{message[0].lower()}{message[1:]}"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a type annotation may stand for."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, list, dict):
        return [model for arg in typing.get_args(annotation) for model in _models_in(arg)]
    return []


def _allowed_keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> set[str]:
    models = [model]
    for step in loc:
        tagged = [m for m in models if "kind" in m.model_fields and step in typing.get_args(m.model_fields["kind"].annotation)]
        if tagged:
            models = tagged
            continue
        nested = [n for m in models if step in m.model_fields for n in _models_in(m.model_fields[str(step)].annotation)]
        models = nested or models
    return {name for m in models for name in m.model_fields}


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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
