"""Every device, unplugged at every command that it is given in a run: dark, the device named, nothing lost that was
sealed, and resumed to the same frames as a run that was never cut.

A device that was unplugged fails at once, or hangs until its driver gives up; and so it does from then on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import bench_of, bench_rig, colour_plan_of, lines_of, plan_of, spooling

from dmu_hw import rig as rig_module
from dmu_hw.engine import Engine
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.past import read_past
from dmu_hw.plan import Plan
from dmu_hw.rig import Rig, load_rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.verify import verify

DEVICES = ("dmd", "camera", "light", "stage", "focus")
COLOURED = ("light_561", "filter", "shutter", "light")
"""In a run in two colours."""
STEPPING = ("dmd", "camera", "software")
COMMANDS = {
    *("open", "close", "load", "show", "start", "stop", "shown", "configure", "arm", "pop", "disarm"),
    *("set_power", "on", "off", "is_on", "interlock_closed", "move_um", "position_um"),
    *("select", "selected", "set_open", "is_open", "block_light"),
}
"""What goes over a wire; all else is answered from settings."""
HANGS_MS = 200.0
DARK_S = 0.1
"""So soon after a device has failed; a busy machine may take longer once."""
REFUSED_S = 0.3
"""The same where it is the light that does not answer: all its tries."""


@dataclass
class Cut:
    """The device, and the command of it at which it is unplugged."""

    device: str = ""
    at: int = -1
    hangs: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    """Commands so far, by device."""
    struck_s: float | None = None
    dark_s: float | None = None
    """When it failed first, and since when there is no light."""

    def mend(self) -> None:
        self.device = ""


class Wire:
    """A device, and what connects it."""

    def __init__(self, name: str, device: Any, cut: Cut, bench: Callable[[], Any]) -> None:
        self._name, self._device, self._cut, self._bench = name, device, cut, bench

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._device, attribute)
        if attribute not in COMMANDS:
            return value

        def command(*arguments: Any) -> Any:
            self._carry()
            try:
                return value(*arguments)
            finally:
                self._look()

        return command

    def _carry(self) -> None:
        cut, name = self._cut, self._name
        number = cut.calls[name]
        cut.calls[name] += 1
        if name != cut.device or number < cut.at:
            return
        cut.struck_s = cut.struck_s or time.monotonic()
        self._look()
        if not cut.hangs:
            raise DeviceError(name, "was unplugged")
        self._bench().clock.sleep_ms(HANGS_MS)
        if name.startswith("light"):  # who waits for this one waits for true
            time.sleep(HANGS_MS / 1e3)
        raise DeviceTimeout(name, f"did not answer within {HANGS_MS:g} ms")

    def _look(self) -> None:
        if self._cut.struck_s is not None and self._cut.dark_s is None and dark(self._bench()):
            self._cut.dark_s = time.monotonic()


def dark(bench: Any) -> bool:
    """The lights are off, or no mirror sends them to the sample."""
    return not (bench.lit or bench.others_lit) or bench.mirrors_at(bench.clock.now_ms() + 1.0) is None


@dataclass
class Table:
    """A bench on which wires can be cut, and a plan for it."""

    folder: Path
    rig: Rig
    plan: Plan
    cut: Cut

    @property
    def bench(self) -> Any:
        return bench_of(self.rig)

    def memory(self) -> dict[str, Any]:
        """The camera's frames tell which exposure they are."""
        return {"exposures": self.bench.exposures}

    def run(self, name: str, *, resumed: bool = False) -> RunFolder:
        with self.rig.opened(), spooling(self.folder / name, resumed=resumed) as (run, spool):
            past = read_past(run.journal) if resumed else None
            if past is not None and past.taken is not None:
                self.bench.exposures = past.taken["exposures"]
            Engine(self.plan, self.rig, spool, past=past, memory=self.memory).run()
        return run

    def whole(self, run: RunFolder) -> list[tuple[Any, ...]]:
        """What is sealed: each pattern of each shot, and its pixels."""
        sealed = {shot for line in lines_of(run, "sealed") for shot in line["shots"]}
        keys = ("shot", "pattern", "pattern_hash", "crc32c_pixels")
        return sorted(tuple(line[key] for key in keys) for line in lines_of(run, "frame") if line["shot"] in sealed)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Table]:
    real: Any = rig_module._built
    monkeypatch.setattr("dmu_hw.spool._RESERVE_BYTES", 100)
    monkeypatch.setattr("dmu_hw.guard._LOOK_S", 0.0)  # as often as possible, and as often in every run

    def make(stepping: str = "dmd", cut: Cut | None = None, *, colours: bool = False) -> Table:
        cut = cut or Cut()
        made: dict[str, Any] = {}

        def built(file: Any) -> dict[str, Any]:
            made.update(real(file))
            names = made.keys() & {*DEVICES, *COLOURED}
            wired = {name: Wire(name, made[name], cut, lambda: made["bench"]) for name in names}
            return {name: wired.get(name, part) for name, part in made.items()}

        monkeypatch.setattr(rig_module, "_built", real)
        path = bench_rig(tmp_path, stepping, side=32, colours=colours).file.path
        content = yaml.safe_load(path.read_text())
        mover = {"driver": str(Path(__file__).with_name("movers.py")), "connection": "bench"}
        content["devices"] |= {"stage": mover, "focus": dict(mover)}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        monkeypatch.setattr(rig_module, "_built", built)
        rig = Rig(load_rig(path))
        positions = ({"x_um": 0.0, "y_um": 0.0, "focus_um": 1.0}, {"x_um": 30.0, "y_um": 0.0, "focus_um": 2.0})
        changes = {"positions": positions, "references": {"plain": True}, "retries": 0}
        plan = colour_plan_of(rig, **changes) if colours else plan_of(rig, side=32, **changes)
        return Table(tmp_path, rig, plan, cut)

    return make


@dataclass
class Ends:
    """What came of many runs."""

    runs: int = 0
    resumed: int = 0
    dark_s: dict[str, list[float]] = field(default_factory=dict)
    """After the failure of each device."""

    def check(self, table: Callable[..., Table], stepping: str, cut: Cut, uncut: list[tuple[Any, ...]]) -> None:
        name = f"{stepping}-{cut.device}-{cut.at}-{cut.hangs}"
        broken, device = table(stepping, cut), cut.device
        with pytest.raises(DeviceError) as caught:
            broken.run(name)
        assert device in str(caught.value), name
        assert ("was unplugged" if not cut.hangs else "did not answer") in _told(caught.value), name
        assert dark(broken.bench), name
        assert device == "shutter" or not broken.bench.shutter_open, name
        self.runs += 1
        assert cut.struck_s is not None
        assert cut.dark_s is not None
        self.dark_s.setdefault(device, []).append(cut.dark_s - cut.struck_s)
        run = RunFolder(broken.folder / name)
        if not run.journal.exists():  # nobody was ready for a run yet
            return
        found = verify(run)
        assert (found.damage, found.cut) == ([], True), name
        kept = broken.whole(run)
        assert set(kept) <= set(uncut), name
        cut.mend()
        healed = table(stepping, Cut())
        assert healed.whole(healed.run(name, resumed=True)) == uncut, name
        self.resumed += 1


def _told(error: BaseException) -> str:
    """What is said of it: the message, its notes, and those that it came from."""
    told: list[str] = []
    step: BaseException | None = error
    while step is not None:
        told += [str(step), *getattr(step, "__notes__", ())]
        step = step.__cause__ or step.__context__
    return "\n".join(told)


def unplugged(table: Callable[..., Table], stepping: str, device: str, *, hangs: bool, every: int) -> Ends:
    """At every so-manieth command; the first and the last are always among them."""
    whole = table(stepping)
    uncut = whole.whole(whole.run(f"{stepping}-{device}-uncut"))
    count, ends = whole.cut.calls[device], Ends()
    assert len(uncut) == whole.plan.price.frames
    for at in sorted({*range(0, count, every), count - 1}):
        ends.check(table, stepping, Cut(device, at, hangs), uncut)
    return ends


def check_times(ends: Ends, *, hangs: bool, most: bool) -> None:
    """All of them, or most where other programs may come in between."""
    for device, times_s in ends.dark_s.items():
        late_s = sorted(times_s)[len(times_s) // 2 if most else -1]
        assert late_s <= _allowed_s(device, hangs=hangs), f"{device}: {1e3 * late_s:.0f} ms"


def _allowed_s(device: str, *, hangs: bool) -> float:
    """The light itself gets its tries first, after the command that it hung in."""
    return DARK_S + (REFUSED_S + HANGS_MS / 1e3 if device.startswith("light") and hangs else 0.0)


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
@pytest.mark.parametrize("device", DEVICES)
def test_unplugged_at_some_commands(table: Callable[..., Table], device: str, hangs: bool) -> None:
    stepping = STEPPING[DEVICES.index(device) % 3]
    ends = unplugged(table, stepping, device, hangs=hangs, every=17 if hangs else 13)
    assert ends.resumed > 0
    check_times(ends, hangs=hangs, most=True)


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
@pytest.mark.parametrize("device", COLOURED)
def test_unplugged_at_some_commands_in_two_colours(table: Callable[..., Table], device: str, hangs: bool) -> None:
    stepping = STEPPING[COLOURED.index(device) % 3]
    ends = unplugged(partial(table, colours=True), stepping, device, hangs=hangs, every=11)
    assert ends.resumed > 0
    check_times(ends, hangs=hangs, most=True)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
@pytest.mark.parametrize("stepping", STEPPING)
def test_unplugged_at_every_command(
    table: Callable[..., Table], figure: Callable[..., None], stepping: str, hangs: bool
) -> None:
    all_ends = {device: unplugged(table, stepping, device, hangs=hangs, every=1) for device in DEVICES}
    what = f"each device {'hangs' if hangs else 'fails'} at each of its commands, stepping by {stepping}"
    tell(figure, what, all_ends, hangs=hangs)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
@pytest.mark.parametrize("stepping", STEPPING)
def test_unplugged_at_every_command_in_two_colours(
    table: Callable[..., Table], figure: Callable[..., None], stepping: str, hangs: bool
) -> None:
    coloured = partial(table, colours=True)
    all_ends = {device: unplugged(coloured, stepping, device, hangs=hangs, every=1) for device in COLOURED}
    fails = "hangs" if hangs else "fails"
    what = f"in two colours, each light, filter and shutter {fails} at each of its commands, stepping by {stepping}"
    tell(figure, what, all_ends, hangs=hangs)


def tell(figure: Callable[..., None], what: str, all_ends: dict[str, Ends], *, hangs: bool) -> None:
    """What came of it, and how long each time took."""
    runs, resumed = (sum(getattr(ends, name) for ends in all_ends.values()) for name in ("runs", "resumed"))
    value = f"{runs} runs, all dark; {resumed} had begun: all resumed to the frames of an uncut one"
    figure("R10", what, value, "dark, 0 lost")
    worst_ms = {device: 1e3 * max(ends.dark_s[device]) for device, ends in all_ends.items()}
    light_ms = max(worst_ms.pop(device) for device in all_ends if device.startswith("light"))
    allowed = " / ".join(f"{1e3 * _allowed_s(device, hangs=hangs):.0f} ms" for device in ("dmd", "light"))
    figure("R10", f"{what}: until dark", f"{max(worst_ms.values()):.1f} ms, {light_ms:.1f} ms if the light", allowed)
    for ends in all_ends.values():
        check_times(ends, hangs=hangs, most=False)


def test_what_failed_first_is_told_though_closing_fails_too(table: Callable[..., Table]) -> None:
    broken = table("dmd", Cut("camera", 3))
    with pytest.raises(DeviceError, match="camera: was unplugged") as caught:
        broken.run("run")
    assert (str(caught.value), caught.value.device) == ("camera: was unplugged", "camera")
    assert any("did not close cleanly" in note for note in caught.value.__notes__)
