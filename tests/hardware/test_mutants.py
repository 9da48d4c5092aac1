"""The promises find drivers that break them: the template with one line changed, each in the way that a first driver
goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from promises import PROMISES, Bench

from dmu_hw.errors import DmuError
from dmu_hw.rig import Rig, load_rig

DEVICES = Path(__file__).parents[2] / "devices"
SOURCE = (DEVICES / "own-driver.py").read_text(encoding="utf-8")

MUTANTS: dict[str, tuple[str, str, str]] = {
    "a light that stays on": (
        "self._toy.lit = False  # HERE",
        "pass",
        "light goes on and off and says so",
    ),
    "a light that says that it is off": (
        "self._toy.lit = False  # HERE",
        "self.said = False",
        "light that is off gives none",
    ),
    "a light that is on when opened": (
        'raise DeviceError(self.name, "is on though it was told to be off")\n        self.set_power(0.0)',
        "pass\n        self._toy.lit = True",
        "light is off when opened",
    ),
    "a light that close forgets": (
        "    def close(self) -> None:\n        self.off()",
        "    def close(self) -> None:\n        pass",
        "light that is off gives none",
    ),
    "a light that comes on again": (
        'raise DeviceError(self.name, "is on though it was told to be off")\n        self.set_power(0.0)',
        "pass\n        self._toy.lit = self._toy.power_mw > 0",
        "light that was left on is off when closed and opened again",
    ),
    "a light that goes on with its power": (
        "self._toy.power_mw = power_mw  # HERE",
        "self._toy.power_mw, self._toy.lit = power_mw, True",
        "light of more power than there is is refused",
    ),
    "a light that takes any power": (
        "if not 0 <= power_mw <= self.max_power_mw:",
        "if False:",
        "light of more power than there is is refused",
    ),
    "a light that does not go on": (
        "self._toy.lit = True  # HERE",
        "pass",
        "light goes on and off and says so",
    ),
    "a shutter that does not close": (
        "self._toy.open = wanted  # HERE",
        "self._toy.open = self._toy.open or wanted",
        "shutter opens and closes and says so",
    ),
    "a shutter the wrong way round": (
        "self.lit and self.open and",
        "self.lit and not self.open and",
        "a closed shutter lets no light through",
    ),
    "mirrors that close leaves on": (
        "    def close(self) -> None:\n        self.stop()",
        "    def close(self) -> None:\n        pass",
        "mirrors are dark when opened and closed",
    ),
    "mirrors that keep what was before a refused upload": (
        "        self._loaded = 0\n        check_frames",
        "        check_frames",
        "mirrors refuse what cannot be",
    ),
    "mirrors that take any order": (
        "        check_order(self.name, order, self._loaded)\n",
        "",
        "mirrors refuse what cannot be",
    ),
    "mirrors that begin with their second pattern": (
        "enumerate((*order, None))",
        "enumerate((*order[1:], order[0], None))",
        "light follows the mirrors frame by frame",
    ),
    "mirrors that stay on after a sequence": (
        "enumerate((*order, None))",
        "enumerate((*order, 0))",
        "light follows the mirrors frame by frame",
    ),
    "mirrors that trigger once too seldom": (
        "for at_ms, _ in self._steps[:-1]]",
        "for at_ms, _ in self._steps[:-2]]",
        "a burst has as many frames as patterns in order and in time",
    ),
    "mirrors that trigger once too often": (
        "for at_ms, _ in self._steps[:-1]]",
        "for at_ms, _ in (*self._steps, (self._steps[-1][0] + 20.0, None))]",
        "mirrors trigger once a pattern",
    ),
    "mirrors that step too slowly": (
        "(begin_ms + place * period_ms, index)",
        "(begin_ms + 1.4 * place * period_ms, index)",
        "a burst has as many frames as patterns in order and in time",
    ),
    "mirrors that lie of what they have shown": (
        '        """None: it cannot tell."""\n        return None',
        "        return (0, 1)",
        "mirrors load show start and stop",
    ),
    "mirrors of another size": (
        "self.shape = mount.optics.mirrors.shape",
        "self.shape = (10, 10)",
        "planning needs no open device",
    ),
    "a camera that repeats frames": (
        "            frame = RawFrame(self._toy.picture(start_ms, mode, self.sensor_shape), self._number, start_ms)\n",
        """            new = self._number % 2 == 0
            self.pixels = self._toy.picture(start_ms, mode, self.sensor_shape) if new else self.pixels
            frame = RawFrame(self.pixels, self._number, start_ms)
""",
        "camera counts its frames and gives each once",
    ),
    "a camera that counts from one": (
        "self._left, self._number, self._free_ms = frames, 0, now_ms()",
        "self._left, self._number, self._free_ms = frames, 1, now_ms()",
        "camera counts its frames and gives each once",
    ),
    "a camera that counts on from burst to burst": (
        "self._left, self._number, self._free_ms = frames, 0, now_ms()",
        "self._left, self._free_ms = frames, now_ms()",
        "a burst has as many frames as patterns in order and in time",
    ),
    "a camera that gives a frame too many": (
        "self._left, self._number, self._free_ms = frames, 0, now_ms()",
        "frames += 1\n        self._left, self._number, self._free_ms = frames, 0, now_ms()",
        "camera counts its frames and gives each once",
    ),
    "a camera that does not bin": (
        "self._mode = mode  # HERE: and",
        "self._mode = CameraMode(mode.exposure_ms, 1, mode.roi, mode.trigger)  # and",
        "camera gives frames of the shape asked for",
    ),
    "a camera that keeps to its window": (
        "self._mode = mode  # HERE: and",
        "self._mode = CameraMode(mode.exposure_ms, mode.binning, (self._mode or mode).roi, mode.trigger)  # and",
        "camera gives frames of the shape asked for",
    ),
    "a camera that exposes for as long as it likes": (
        "max(mode.interval_ms, mode.exposure_ms + self.settings.readout_ms)",
        "max(mode.interval_ms, 5.0)",
        "camera exposes as long as it is told",
    ),
    "a camera of bytes": (
        ".astype(np.uint16)",
        ".astype(np.uint8)",
        "camera gives frames of the shape asked for",
    ),
    "a camera that takes any window": (
        "if min(roi.x, roi.y) < 0 or roi.x + roi.width > columns or roi.y + roi.height > rows:",
        "if False:",
        "camera refuses what it cannot do",
    ),
    "a camera that needs no trigger": (
        "            self._toy.pulses_ms.clear()\n        else:",
        "            self._toy.pulses_ms[:] = [self._free_ms]\n        else:",
        "camera without a trigger says so in time",
    ),
    "a camera that gives up at once": (
        "        time.sleep(max(0.0, until_ms - now_ms()) / 1e3)\n        raise DeviceTimeout",
        "        raise DeviceTimeout",
        "camera without a trigger says so in time",
    ),
    "a camera whose silence is no timeout": (
        'raise DeviceTimeout(self.name, f"no frame',
        'raise DeviceError(self.name, f"no frame',
        "camera without a trigger says so in time",
    ),
    "a camera that calls itself otherwise": (
        'raise DeviceError(self.name, f"binning',
        "raise DeviceError('Andor', f\"binning",
        "camera refuses what it cannot do",
    ),
    "a stage that goes elsewhere": (
        "self._at_um = (x_um, y_um)",
        "self._at_um = (y_um, x_um)",
        "stage goes there and back and no further",
    ),
    "a stage without limits": (
        "if not low <= value <= high:",
        "if False:",
        "stage goes there and back and no further",
    ),
    "a camera with a clock of its own": (
        "mode, self.sensor_shape), self._number, start_ms)",
        "mode, self.sensor_shape), self._number, start_ms - 10_000.0)",
        "a burst as a run takes it is whole",
    ),
    "a device that cannot be closed twice": (
        "    def close(self) -> None:\n        self.disarm()",
        "    def close(self) -> None:\n        self.disarm()\n        del self._toy",
        "it opens and closes as often as one likes",
    ),
}


def rig_of(folder: Path, source: str) -> Rig:
    (folder / "own-driver.py").write_text(source, encoding="utf-8")
    path = folder / "own-driver.yaml"
    path.write_text((DEVICES / "own-driver.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return Rig(load_rig(path))


@pytest.mark.parametrize("what", MUTANTS)
def test_a_driver_that_breaks_its_promise_is_found(tmp_path: Path, what: str) -> None:
    """By the promise that it breaks: not by any."""
    right, wrong, broken = MUTANTS[what]
    assert right in SOURCE
    source = SOURCE.replace(right, wrong)
    if what == "a light that says that it is off":
        source = source.replace("return self._toy.lit", "return self._toy.lit and getattr(self, 'said', True)")
        source = source.replace("self._toy.lit = True  # HERE", "self._toy.lit = self.said = True")
    rig = rig_of(tmp_path, source)
    with pytest.raises((AssertionError, DmuError, LookupError, AttributeError)):
        PROMISES[broken].keep(Bench(rig, 2.0))


@pytest.mark.parametrize("what", PROMISES)
def test_every_promise_is_broken_by_somebody(what: str) -> None:
    """But for those that the template has no device for."""
    absent = {"filters arrive where they are told to", "focus goes there and back and no further"}
    others = {"devices keep the methods of their ports", "light is off when its longest time is over"}
    assert (what in {broken for _, _, broken in MUTANTS.values()}) is (what not in absent | others)
