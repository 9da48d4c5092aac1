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
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Of the bridge to an open Micro-Manager; null: 4827. A core of our own has none that others could hold."""
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


class Pace(Settings):
    """A property that says how far one frame, or pattern, is from the next."""

    property: Text
    unit: Literal["ms", "us", "s", "Hz"] = "ms"

    def text(self, period_ms: float) -> str:
        """What the property is to be set to."""
        if self.unit == "Hz":
            return repr(1e3 / period_ms)
        return repr(period_ms * {"ms": 1.0, "us": 1e3, "s": 1e-3}[self.unit])


class SwitchProperty(Settings):
    """A property that switches."""

    property: Text
    on: Value
    """What it is set to for light."""
    off: Value
    also_off: tuple[Value, ...] = ()
    """Other values at which this one gives no light, as of a wheel that selects one lamp of several. Any other value
    is an error: who knows what is on then."""


class SwitchSettings(DeviceSettings):
    """What is on or off: a shutter of Micro-Manager's, or any device that has a property for it."""

    switch: SwitchProperty | None = None
    """null: `label` is a shutter."""


class StampSettings(Settings):
    """What the tags of frames say of time."""

    tag: Text | None = None
    """null: ElapsedTime-ms where the camera gives it, else the time of arrival, which is only as good as the
    computer's attention."""
    unit_ms: Positive = 1.0
    """What the tag counts in; 0.001 for microseconds."""
    tells: Literal["start", "arrival"] = "arrival"
    """Whether it is the time at which the exposure began, or at which the frame had come."""
