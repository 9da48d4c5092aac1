"""How Micro-Manager's cores say things: names of calls, errors, lists, values."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any, Final

_DECIMALS: Final = 1e-4
"""Micro-Manager cuts the numbers of properties there."""


def snake(call: str) -> str:
    """setSLMImage → set_slm_image, as pycromanager writes it."""
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", call)).lower()


def said_by(error: Exception) -> str:
    """All lines of an error in one, without the stack of Java that those of the bridge go on with."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = itertools.takewhile(lambda line: not line.startswith("at "), filter(None, lines))
    return "; ".join(told) or type(error).__name__


def texts(values: Any) -> tuple[str, ...]:
    """A list of text as a core gives it, or as the bridge does: an object of Java's."""
    if hasattr(values, "size") and hasattr(values, "get"):
        return tuple(str(values.get(place)) for place in range(values.size()))
    return tuple(map(str, values))


def same(found: str, wanted: str) -> bool:
    """Whether two values are one: Micro-Manager writes 1 as 1.0000."""
    if found == wanted:
        return True
    try:
        return math.isclose(float(found), float(wanted), rel_tol=1e-4, abs_tol=_DECIMALS)
    except ValueError:
        return False
