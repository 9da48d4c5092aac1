"""Adaptive protocols: what somebody who chooses fields promises, and how a protocol names them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import ConfigDict, Field

from dmu_hw import plugin
from dmu_hw.data import Estimate
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Name, Settings, validate

_CLASS = "Chooser"


class Seen(NamedTuple):
    """Where and when an estimate was made."""

    time: int
    field: int
    plane: int
    x_um: float | None
    y_um: float | None


class Chooser(Protocol):
    """The promise of a class `Chooser`; its `Settings` are what a YAML may say. Called in a thread of its own, one
    estimate after the other. What it decides by is a number for each estimate, so that the journal can keep it."""

    def score(self, estimate: Estimate, seen: Seen) -> float: ...

    def choose(self, scores: Mapping[int, Sequence[float]]) -> Collection[int]:
        """Fields to be imaged once more, when all of a time point have their scores, one for each plane. A field of
        which no burst was whole has none."""


class Choice(Settings):
    """Who chooses, and their own settings."""

    model_config = ConfigDict(extra="allow")
    by: Annotated[str, Field(min_length=1)]
    """A name in dmu_hw.adaptive, a dotted path, or a .py file beside the YAML; after a colon the name of the class."""
    channel: Name | None = None
    """Whose reconstructions are looked at, and in which fields are imaged once more; null: the first."""


def chooser_of(choice: Choice, document: Document) -> Chooser:
    """Whom a protocol names, with settings that were checked; `document` is what it says of them."""
    where = document.where(("by",))
    module, _, name = choice.by.partition(":")
    found: Any = plugin.load_class("dmu_hw.adaptive", module, name or _CLASS, where=where, folder=document.path.parent)
    model = getattr(found, "Settings", None)
    if not (isinstance(model, type) and issubclass(model, Settings)):
        raise InputError([Problem(where, f"{name or _CLASS} of {module!r} has no Settings")])
    lacking = [promise for promise in ("score", "choose") if not callable(getattr(found, promise, None))]
    if lacking:
        raise InputError([Problem(where, f"{name or _CLASS} of {module!r} lacks {', '.join(lacking)}")])
    chooser: Chooser = found(validate(document.inside((), without=("by", "channel")), model))
    return chooser
