"""What a rig YAML says of a DMD behind a DLPC900, and what is known of those that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from dmu_hw.drivers.dlpc900.commands import DELAYS_US, LONGEST_US, SHORTEST_US
from dmu_hw.files import Positive, Settings


@dataclass(frozen=True)
class Model:
    """One DMD."""

    shape: tuple[int, int]
    hardware: int
    """What the controller calls it: DLPU018, section 2.1.5."""
    dual: bool
    """Two controllers, each with half of the columns; images go to both."""

    @property
    def halves(self) -> int:
        return 2 if self.dual else 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """Of what goes to one controller."""
        return self.shape[0], self.shape[1] // self.halves


MODELS: Final = {
    "dlp6500": Model((1080, 1920), 1, dual=False),
    "dlp9000": Model((1600, 2560), 2, dual=True),
    "dlp670s": Model((1600, 2716), 3, dual=True),
}


class ControlSettings(Settings):
    """What is the same whatever DMD it is."""

    trigger_out: Literal[1, 2] = 1
    """The output that is wired to the camera: TRIG_OUT_1 is up while a pattern is exposed, and goes down only where a
    dark time follows; TRIG_OUT_2 gives a short pulse when a pattern begins."""
    trigger_out_inverted: bool = False
    trigger_in: Literal["rising", "falling"] | None = None
    """The edge on TRIG_IN_1 that steps a sequence which the camera paces; null: nothing is wired to it. Patterns take
    three lines of the table then instead of one."""
    dark_us: Annotated[int, Field(ge=0, le=LONGEST_US)] = SHORTEST_US
    """All mirrors off after each pattern of a sequence: none, or at least 105."""
    settle_us: Annotated[int, Field(ge=0, le=DELAYS_US[1])] = 20
    """From the beginning of a pattern until its mirrors stand; the pulse to the camera comes so late."""
    timeout_ms: Annotated[float, Field(gt=0, le=10_000)] = 500.0
    """Longest wait for a reply."""
    report_ms: Positive = 1.0
    """Time of one report of 64 bytes on USB, for the price of an upload."""

    @model_validator(mode="after")
    def _the_output_has_edges(self) -> Self:
        if 0 < self.dark_us < SHORTEST_US:
            raise ValueError(f"dark_us should be 0 or at least {SHORTEST_US}, given {self.dark_us}")
        if self.dark_us == 0 and self.trigger_out == 1:
            raise ValueError("trigger_out 1 stays up from pattern to pattern where dark_us is 0: say trigger_out: 2")
        return self

    @property
    def lead_us(self) -> int:
        """From a step until the new pattern begins."""
        return self.dark_us if self.trigger_in is None else max(self.dark_us, SHORTEST_US)


class DmdSettings(ControlSettings):
    """A DMD on USB."""

    model: Literal["dlp6500", "dlp9000", "dlp670s"]
    serial: Annotated[str, Field(min_length=1)] | None = None
    """Where several are connected."""
