"""The filters of a rig: turned to where a channel wants them, and seen to stand there. A filter that stands elsewhere
gives frames that look right and are of another dye."""

from __future__ import annotations

from contextlib import suppress

from dmu_hw.channels import Channel
from dmu_hw.errors import DeviceError
from dmu_hw.ports import Filter
from dmu_hw.rig import Rig

_MARGIN_MS = 5000.0


class Wheels:
    """All filters of one rig. Needs no opened rig for what is expected of them."""

    def __init__(self, rig: Rig) -> None:
        self._filters = rig.filters

    def select(self, channel: Channel) -> None:
        """Before the light goes on: turn what stands elsewhere, and ask each where it stands."""
        for name, position in channel.filters.items():
            wheel, stands = self._filters[name], None
            with suppress(DeviceError):  # between two positions it cannot say where it is, and is turned all the same
                stands = wheel.selected()
            if stands != position:
                wheel.select(position, 2 * _longest_ms(wheel, position) + _MARGIN_MS)
        self.confirm(channel)

    def confirm(self, channel: Channel) -> None:
        """That all stand where a channel wants them; nothing is turned."""
        for name, position in channel.filters.items():
            stands = self._filters[name].selected()
            if stands != position:
                raise DeviceError(name, f"should stand at {position!r} and says that it stands at {stands!r}")

    def switch_ms(self, before: Channel | None, after: Channel) -> float:
        """Expected time from one channel to another; None: from wherever they stand. One is turned after the other."""
        total_ms = 0.0
        for name, position in after.filters.items():
            wheel = self._filters[name]
            if before is None:
                total_ms += _longest_ms(wheel, position)
            elif before.filters[name] != position:
                total_ms += wheel.switch_ms(before.filters[name], position)
        return total_ms


def _longest_ms(wheel: Filter, position: str) -> float:
    """From wherever it stands."""
    return max(wheel.switch_ms(before, position) for before in wheel.positions)
