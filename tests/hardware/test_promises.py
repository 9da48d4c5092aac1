"""The promises of the ports, asked of whole rigs: of those that are simulated in every run of the tests, and of one's
own:

DMU_RIG=devices/mine.yaml pytest -m hardware                    nothing is lit
DMU_RIG=devices/mine.yaml DMU_LIGHT=yes pytest -m hardware      with 1 % of what the rig allows, or DMU_POWER_MW
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from promises import PROMISES, Bench

from dmu_hw.errors import DeviceError
from dmu_hw.lock import rig_held
from dmu_hw.rig import Rig, RigFile, load_rig

DEVICES = Path(__file__).parents[2] / "devices"
SIMULATED = ("simulated", "simulated-two-colour", "own-driver")
OWN = "DMU_RIG"
LOWEST = 0.01
"""Of what the rig allows."""
STEPPED = ("simulated by camera", "own-driver by camera", "own-driver by software")
"""The same with another who sets the pace."""
TWINS = {"dlpc900": "dmu_hw.twins.dlpc900", "vialux": "dmu_hw.twins.alp"}
"""The simulated rig with the DMD of another driver, on a twin of its device."""
RIGS = [*SIMULATED, *STEPPED, *TWINS, pytest.param(OWN, marks=pytest.mark.hardware)]


def own_rig() -> Path:
    given = os.environ.get(OWN, "")
    path = Path(given)
    if not given or not path.is_file():
        what = f"there is no file {given}" if given else "it is not set"
        pytest.exit(f"{OWN} names the rig to be tested, and {what}: {OWN}=devices/mine.yaml pytest -m hardware", 2)
    return path


def file_of(name: str) -> RigFile:
    if name == OWN:
        return load_rig(own_rig())
    if name in TWINS:
        path = DEVICES / "simulated.yaml"
        told = path.read_text(encoding="utf-8")
        return load_rig(path, told.replace("dmd: {driver: simulated", f"dmd: {{driver: {TWINS[name]}"))
    stem, _, stepping = name.partition(" by ")
    path = DEVICES / f"{stem}.yaml"
    told = path.read_text(encoding="utf-8")
    return load_rig(path, told.replace("stepping: dmd", f"stepping: {stepping}") if stepping else told)


@pytest.fixture(scope="module", params=RIGS)
def built(request: pytest.FixtureRequest) -> Iterator[tuple[Rig, float]]:
    """The rig, held against all other programs, and the power that it may light with; 0: it may not."""
    name = request.param
    file = file_of(name)
    assert name == OWN or name.partition(" by ")[2] in ("", file.settings.stepping)
    with pytest.MonkeyPatch.context() as patch:
        if name == OWN:
            patch.delenv("DMU_STATE", raising=False)  # its lock is that which all programs of this computer know
        with rig_held(file):
            rig = Rig(file)
            yield rig, power_of(rig, name)


def power_of(rig: Rig, name: str) -> float:
    allowed_mw = min(rig.highest_mw(light) for light in rig.lights)
    if name != OWN:
        return 0.2 * allowed_mw
    if os.environ.get("DMU_LIGHT", "") != "yes":
        return 0.0
    power_mw = float(os.environ.get("DMU_POWER_MW", "") or LOWEST * allowed_mw)
    assert 0 < power_mw <= allowed_mw, f"DMU_POWER_MW must be up to {allowed_mw:g}"
    with rig.opened():
        for light in rig.lights.values():
            try:
                light.set_power(power_mw)
            except DeviceError as error:
                pytest.exit(f"{error}. Say DMU_POWER_MW= what may fall on the sample", 2)
    return power_mw


@pytest.mark.parametrize("what", PROMISES)
def test_the_rig_keeps_its_promise(built: tuple[Rig, float], what: str) -> None:
    rig, power_mw = built
    if PROMISES[what].lights and not power_mw:
        pytest.skip("it lights, and DMU_LIGHT=yes was not given")
    try:
        PROMISES[what].keep(Bench(rig, power_mw))
    finally:
        rig.close()  # whatever a promise left open when it was broken


@pytest.mark.parametrize(("given", "says"), [("", "it is not set"), ("nowhere.yaml", "there is no file nowhere.yaml")])
def test_without_a_rig_nothing_is_tested(monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    monkeypatch.setenv(OWN, given)
    with pytest.raises(pytest.exit.Exception, match=f"DMU_RIG names the rig to be tested, and {says}"):
        own_rig()
