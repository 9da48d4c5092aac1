"""When a frame was taken, on the rig's clock, from what Micro-Manager's tags say of it.

Cameras count from when they were armed or from a moment of their own; some say when an exposure began, some when the
frame had come. MMCore itself counts whole milliseconds, and knows the computer's time of arrival by microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from dmu_hw.drivers.micromanager.settings import StampSettings

ELAPSED: Final = "ElapsedTime-ms"
RECEIVED: Final = "TimeReceivedByCore"


class Stamps:
    """Of one sequence. The tag and the zero of its clock are those of the first frame, and intervals are as they were
    told, as long as no frame would have come before it was taken."""

    def __init__(self, settings: StampSettings, asked_ms: float, armed_ms: float) -> None:
        """It was armed at some moment between these two."""
        self._settings = settings
        self._asked_ms = asked_ms
        self._armed_ms = armed_ms
        self._tag = ""
        self._zero_ms = 0.0
        self._walls_zero_ms = now_ms() - _wall_ms(datetime.now().astimezone())

    def tags(self) -> tuple[str, ...]:
        """Those that are looked at."""
        return (RECEIVED, ELAPSED if self._settings.tag is None else self._settings.tag)

    def began_ms(self, tags: Mapping[str, str], taken_ms: float) -> float:
        """When the exposure began. `taken_ms` is what passes from there until the frame has come. ValueError where no
        tag tells."""
        first = not self._tag
        if first:
            self._tag = self._chosen(tags)
        if self._tag == RECEIVED:
            return self._arrived_ms(tags) - taken_ms
        if self._tag not in tags:
            raise ValueError(self._tag)
        stamp_ms = float(tags[self._tag]) * self._settings.unit_ms
        if self._settings.tells == "arrival":
            stamp_ms -= taken_ms
        if first:  # counted from arming, unless that would be before it
            self._zero_ms = max(self._armed_ms + stamp_ms, self._asked_ms) - stamp_ms
        # a frame that would not have come yet tells that the clock began at some other time, or that this program was
        # kept from looking at its own when it had armed
        latest_ms = max(self._asked_ms, self._arrived_ms(tags) - taken_ms)
        self._zero_ms = min(self._zero_ms, latest_ms - stamp_ms)
        return self._zero_ms + stamp_ms

    def _chosen(self, tags: Mapping[str, str]) -> str:
        """The finest clock that there is."""
        if self._settings.tag is not None:
            return self._settings.tag
        return ELAPSED if "." in tags.get(ELAPSED, "") or RECEIVED not in tags else RECEIVED

    def _arrived_ms(self, tags: Mapping[str, str]) -> float:
        """When it came into the core; where that does not tell, now at the latest."""
        return self._walls_zero_ms + _wall_ms(datetime.fromisoformat(tags[RECEIVED])) if RECEIVED in tags else now_ms()


def now_ms() -> float:
    """The rig's clock: that of this machine."""
    return time.perf_counter() * 1e3


def _wall_ms(local: datetime) -> float:
    """What the clock on the wall shows, as a number that grows."""
    return local.replace(tzinfo=UTC).timestamp() * 1e3
