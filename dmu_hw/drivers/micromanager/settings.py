"""What a rig YAML says of a core of Micro-Manager, and what all devices on it have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from dmu_hw.files import Count, FilePath, Positive, Settings


def _to_value(given: object) -> object:
    """Micro-Manager's properties are text: 1 and 2.5 are meant as they are written."""
    return str(given) if isinstance(given, int | float) and not isinstance(given, bool) else given


Text = Annotated[str, Field(min_length=1, max_length=200)]
Value = Annotated[
    str, BeforeValidator(_to_value), Field(max_length=1000), WithJsonSchema({"type": ["string", "number"]})
]
Values = dict[Text, Value]
"""Properties of one device, and what they are set to, in this order."""


class ConnectionSettings(Settings):
    """A core, and where it comes from."""

    backend: Literal["python", "java", "given"] = "python"
    """python: one of our own, without a window, in this process. java: that of an open Micro-Manager, over
    pycromanager's bridge. given: that of a script, which lends it."""
    adapters: FilePath | None = None
    """Folder of Micro-Manager's device adapters; null: where Micro-Manager is installed, or mm-test-adapters."""
    config: FilePath | None = None
    """Micro-Manager's hardware configuration (.cfg) that a core of our own loads."""
    port: Annotated[int, Field(ge=1, le=65535)] = 4827
    """Of the bridge to an open Micro-Manager."""
    buffer_mb: Count = 256
    """Memory for frames that were not fetched yet."""
    timeout_ms: Positive = 5000.0
    """Longest wait for a device that is busy with what it was told, where nobody said another."""
    properties: dict[Text, Values] = Field(default_factory=dict)
    """Properties by device, set in this order once the core is there."""


class DeviceSettings(Settings):
    """One device of Micro-Manager's."""

    label: Text
    """What it is called in Micro-Manager."""
    properties: Values = Field(default_factory=dict)
    """Set when it is opened."""
