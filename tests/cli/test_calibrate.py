"""`dmu calibrate`: what is refused before there is light, asked of people, said, kept, counted, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from program import COMMAND
from toys import recipe, toy

from dmu_hw import store as store_module
from dmu_hw.belief import believe
from dmu_hw.cli import calibrate as calibrate_module
from dmu_hw.cli.session import load_instrument
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.drivers.simulated.world import World
from dmu_hw.errors import InputError
from dmu_hw.files import parse_yaml
from dmu_hw.hours import read_hours
from dmu_hw.lock import rig_held
from dmu_hw.rig import load_rig
from dmu_hw.store import read_result, results_in
from tests.cli.test_fuzz import mutate_text, mutate_tree

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
BELIEVES = {"calibration.results": "results"}
NO_SLIDES = {"connections.world.slides": {}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, rig_yaml: Yaml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rig_yaml({**BELIEVES})
    toy(tmp_path, "sensor")
    toy(tmp_path, "field", needs=("sensor",), per_channel=True)


@pytest.fixture
def unlit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No light may go on."""
    monkeypatch.setattr(Light, "on", None)


@pytest.fixture
def lights(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Light]]:
    """Those that were lit."""
    real, lit = Light.on, []

    def on(light: Light, longest_ms: float) -> None:
        lit.append(light)
        real(light, longest_ms)

    monkeypatch.setattr(Light, "on", on)
    yield lit
    assert not any(light.is_on() for light in lit)


class Terminal(io.StringIO):
    """Somebody who presses Enter now and then."""

    def isatty(self) -> bool:
        return True


# ---------------------------------------------------------------- what comes of it


def test_what_was_measured_is_said_stored_shown_and_believed(dmu: Dmu, tmp_path: Path) -> None:
    path = recipe(tmp_path, {"routine": "sensor.py"}, {"routine": "field.py", "most_adu": 50.0})
    said = dmu("calibrate", path, "--json")
    assert said.status == 0
    first, second = said.told["outcomes"]
    assert (first["routine"], first["channel"], first["verdict"]) == ("sensor", "all", "pass")
    assert (second["routine"], second["channel"], second["verdict"]) == ("field", "", "warn")
    assert first["figures"]["offset_adu"] == pytest.approx(100, abs=2)
    assert said.told["failed"] == []
    assert "sensor: good\n" in said.err
    assert "field: good, with warnings\n" in said.err
    assert "warn  offset_adu is 100, should be at most 50 (refused beyond 100); let the <camera> warm up" in said.err
    assert (Path(first["folder"]) / "report.html").read_text().startswith("<!doctype html>")
    assert Path(said.told["report"]).is_relative_to("runs")
    assert Path(said.told["results"]) == tmp_path / "results"
    assert len(list(results_in(tmp_path / "results"))) == 2


def test_what_fails_keeps_only_those_from_being_tried_that_need_it(dmu: Dmu, tmp_path: Path) -> None:
    toy(tmp_path, "contrast")
    toy(tmp_path, "psf")
    toy(tmp_path, "power")
    steps = [
        {"routine": "sensor.py", "goes": "badly"},
        {"routine": "field.py"},
        {"routine": "contrast.py", "goes": "broken"},
        {"routine": "psf.py", "goes": "unplugged"},
        {"routine": "power.py"},
    ]
    said = dmu("calibrate", recipe(tmp_path, *steps), "--json")
    assert said.status == 3
    assert said.told["failed"] == ["sensor", "field", "contrast", "psf"]
    assert "sensor: FAILED: nothing fits: dust?" in said.err
    assert "field: NO RESULT: needs a good result of sensor" in said.err
    assert "contrast: FAILED: the fit broke off at" in said.err
    assert "KeyError: 'nowhere'" in said.err
    assert "psf: NO RESULT: camera: is not there any more" in said.err
    assert "power: good" in said.err
    assert "1 of 5 good" in said.err
    assert [one["verdict"] for one in said.told["outcomes"] if "verdict" in one] == ["refuse", "refuse", "pass"]
    page = Path(said.told["report"]).read_text()
    assert "NOT ALL GOOD" in page
    assert "nothing fits: dust?" in page


def test_each_channel_has_its_own_results(dmu: Dmu, tmp_path: Path, rig_yaml: Yaml) -> None:
    rig_yaml({**BELIEVES, "channels.red": {}, "channels.green": {"optics": {"sensor": {"offset_adu": 90.0}}}})
    path = recipe(tmp_path, {"routine": "sensor.py"}, {"routine": "field.py"})
    said = dmu("calibrate", path, "--json")
    assert [(one["routine"], one["channel"]) for one in said.told["outcomes"]] == [
        ("sensor", "all"),
        ("field", "red"),
        ("field", "green"),
    ]
    said = dmu("calibrate", path, "--only", "field", "--channel", "green", "--json")
    assert [(one["routine"], one["channel"]) for one in said.told["outcomes"]] == [("field", "green")]


def test_what_no_run_will_believe_is_told(dmu: Dmu, tmp_path: Path, rig_yaml: Yaml) -> None:
    path = recipe(tmp_path, {"routine": "sensor.py"}, results="elsewhere")
    assert f"{tmp_path / 'results'}; these go to {tmp_path / 'elsewhere'}" in dmu("calibrate", path).err
    rig_yaml({})
    assert "names no results, so that no run will believe these" in dmu("calibrate", path).err


# ---------------------------------------------------------------- before there is light


@pytest.mark.usefixtures("unlit")
def test_all_that_is_wrong_with_recipe_and_rig_is_said_at_once(dmu: Dmu, tmp_path: Path, rig_yaml: Yaml) -> None:
    rig_yaml({"limits.power": 1.0, "devices.dmd.speed": 2.0})
    steps = [{"routine": "sensor.py", "most": 3.0}, {"routine": "nothing"}, {"routine": "field.py", "goes": 1}]
    said = dmu("calibrate", recipe(tmp_path, *steps, colour="red"), "--json")
    assert said.status == 2
    found = "\n".join(said.told["problems"])
    for what in ("unknown key 'colour'", "unknown key 'most'", "there is no 'nothing'", "steps.2.goes", "limits.power"):
        assert what in found
    assert "devices.dmd.speed" in found
    assert len(said.told["problems"]) == 6


@pytest.mark.usefixtures("unlit")
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--channel", "blue"), "--channel: there is no 'blue'; there are: none by name"),
        (("--only", "psf"), "--only: the recipe has no 'psf'; it has: sensor, field"),
        (("--only", "field"), "field needs a good result of sensor: .* has none, and no step before it"),
        (("--rig", "gone.yaml"), "gone.yaml: cannot be read"),
        (("--store",), "--store: goes with --again"),
    ],
)
def test_what_cannot_be_is_refused(dmu: Dmu, tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
    path = recipe(tmp_path, {"routine": "sensor.py"}, {"routine": "field.py"})
    said = dmu("calibrate", path, *arguments)
    assert said.status == 2
    assert re.search(what, said.err)
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("unlit")
def test_a_rig_that_is_in_use_is_refused(dmu: Dmu, tmp_path: Path) -> None:
    path = recipe(tmp_path, {"routine": "sensor.py"})
    with rig_held(load_rig(tmp_path / "rig.yaml")):
        said = dmu("calibrate", path)
    assert said.status == 2
    assert "rig small: is in use by process" in said.err


@pytest.mark.usefixtures("unlit")
def test_a_disk_without_room_is_refused(dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    said = dmu("calibrate", recipe(tmp_path, {"routine": "sensor.py"}))
    assert said.status == 2
    assert "0.00 GB are free, the run needs" in said.err


# ---------------------------------------------------------------- people


@pytest.fixture(name="by_hand")
def _by_hand(tmp_path: Path, rig_yaml: Yaml) -> Path:
    """A rig that changes no samples, and a recipe that needs dye."""
    rig_yaml({**BELIEVES, **NO_SLIDES})
    toy(tmp_path, "sensor", sample="dye")
    toy(tmp_path, "contrast", sample="dye")
    toy(tmp_path, "psf", sample="beads")
    return recipe(tmp_path, {"routine": "sensor.py"}, {"routine": "contrast.py"})


@pytest.mark.usefixtures("unlit")
def test_without_a_terminal_somebody_must_have_put_the_sample(dmu: Dmu, by_hand: Path) -> None:
    said = dmu("calibrate", by_hand)
    assert said.status == 2
    assert "needs dye (an even layer of dye" in said.err
    assert "there is no terminal to ask at: put it in place and say so by --yes" in said.err


def test_yes_says_that_the_sample_lies_there(dmu: Dmu, by_hand: Path) -> None:
    said = dmu("calibrate", by_hand, "--yes")
    assert said.status == 0
    assert "put in place" not in said.err


@pytest.mark.usefixtures("unlit")
def test_yes_cannot_speak_for_two_samples(dmu: Dmu, by_hand: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, {"routine": "sensor.py"}, {"routine": "psf.py"})
    said = dmu("calibrate", path, "--yes")
    assert said.status == 2
    assert "--yes: says that one sample lies there, the recipe needs dye and beads" in said.err
    assert dmu("calibrate", path, "--yes", "--only", "sensor").status in (0, 1)


def test_people_are_asked_once_for_each_sample_in_the_dark(
    dmu: Dmu, by_hand: Path, tmp_path: Path, lights: list[Light], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_module, "_somebody_is_there", lambda: True)
    answers = Terminal("\n\n")
    asked_in_the_dark = []
    real = answers.readline

    def readline() -> str:
        asked_in_the_dark.append(not any(light.is_on() for light in lights))
        return real()

    monkeypatch.setattr(answers, "readline", readline)
    monkeypatch.setattr(sys, "stdin", answers)
    steps = [{"routine": f"{name}.py", "lit_ms": 2.0} for name in ("sensor", "contrast", "psf")]
    said = dmu("calibrate", recipe(tmp_path, *steps))
    assert said.status == 0
    assert said.err.count("put in place: an even layer of dye") == 1
    assert said.err.count("put in place: sparse small beads") == 1
    assert said.err.index("contrast: good") < said.err.index("sparse small beads")
    assert asked_in_the_dark == [True, True]
    assert lights


def test_whoever_does_not_answer_gets_no_light(
    dmu: Dmu, by_hand: Path, monkeypatch: pytest.MonkeyPatch, lights: list[Light]
) -> None:
    monkeypatch.setattr(calibrate_module, "_somebody_is_there", lambda: True)
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    said = dmu("calibrate", by_hand)
    assert said.status == 1
    assert "nobody says that dye is in place" in said.err
    assert lights == []


def test_a_rig_that_changes_samples_asks_nobody_and_puts_its_own_back(
    dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, held = World.hold, []

    def hold(world: World, sample: str | None) -> None:
        held.append(sample)
        real(world, sample)

    monkeypatch.setattr(World, "hold", hold)
    toy(tmp_path, "contrast", sample="dye")
    toy(tmp_path, "psf", sample="beads")
    toy(tmp_path, "bleach", sample="specimen")
    steps = [{"routine": f"{name}.py"} for name in ("contrast", "psf", "bleach")]
    assert dmu("calibrate", recipe(tmp_path, *steps)).status == 0
    assert held == ["dye", "beads", None, None]


# ---------------------------------------------------------------- light


def test_the_lamp_is_counted_also_of_what_fails(dmu: Dmu, tmp_path: Path, lights: list[Light]) -> None:
    file = load_rig(tmp_path / "rig.yaml")
    before = read_hours(file).lamp_h
    path = recipe(tmp_path, {"routine": "sensor.py", "lit_ms": 400.0, "goes": "badly"})
    assert dmu("calibrate", path).status == 3
    assert read_hours(file).lamp_h - before > 3 * 400.0 / 3.6e6
    assert lights


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_puts_the_light_off_and_keeps_what_was_measured(
    dmu: Dmu, tmp_path: Path, lights: list[Light], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    path = recipe(tmp_path, {"routine": "sensor.py"}, {"routine": "field.py", "lit_ms": 2.0})
    real = Light.is_on

    def kill(light: Light, longest_ms: float) -> None:
        lights.append(light)
        light_on(light, longest_ms)
        os.kill(os.getpid(), number)

    light_on = Light.on
    monkeypatch.setattr(Light, "on", kill)
    said = dmu("calibrate", path, "--json")
    assert said.status == 1
    assert "; the light is off" in said.told["problems"][0]
    assert f"{tmp_path / 'results'} holds what was measured so far" in said.err
    assert [real(light) for light in lights] == [False] * len(lights)
    assert len(list(results_in(tmp_path / "results"))) == 1
    assert dmu("check", tmp_path / "results").status == 0


def test_a_disk_that_fills_up_is_told(dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "write_whole", full)
    said = dmu("calibrate", recipe(tmp_path, {"routine": "sensor.py"}))
    assert said.status == 1
    assert "the result could not be stored: No space left on device" in said.err


# ---------------------------------------------------------------- again


@pytest.fixture(name="result")
def _result(dmu: Dmu, tmp_path: Path) -> Path:
    said = dmu("calibrate", recipe(tmp_path, {"routine": "sensor.py"}), "--json")
    return Path(said.told["outcomes"][0]["folder"])


@pytest.mark.usefixtures("unlit")
def test_evidence_is_fitted_again_and_the_difference_is_told(dmu: Dmu, tmp_path: Path, result: Path) -> None:
    path = tmp_path / "recipe.yaml"
    said = dmu("calibrate", path, "--again", result, "--json")
    assert (said.status, said.told["changed"], said.told["kept"]) == (0, False, False)
    assert "all 2 figures are as they were" in said.err
    path = recipe(tmp_path, {"routine": "sensor.py", "more_adu": 2.5, "most_adu": 60.0})
    said = dmu("calibrate", path, "--again", result, "--json", "--out", tmp_path / "pages")
    assert (said.status, said.told["changed"]) == (0, True)
    assert "then pass, now warn" in said.err
    assert "(+2.5)" in said.err
    assert "fitted again" in Path(said.told["report"]).read_text()
    assert len(list(results_in(tmp_path / "results"))) == 1
    path = recipe(tmp_path, {"routine": "sensor.py", "goes": "badly"})
    assert dmu("calibrate", path, "--again", result).status == 3


@pytest.mark.usefixtures("unlit")
def test_what_is_fitted_again_is_kept_beside_what_was_found(dmu: Dmu, tmp_path: Path, result: Path) -> None:
    path = recipe(tmp_path, {"routine": "sensor.py", "more_adu": 2.5})
    said = dmu("calibrate", path, "--again", result, "--store", "--json")
    made = Path(said.told["outcomes"][0]["folder"])
    assert said.told["kept"]
    assert made.name > result.name
    assert said.told["outcomes"][0]["at"] == json.loads(json.dumps(said.told["outcomes"][0]["at"]))
    assert len(list(results_in(tmp_path / "results"))) == 2
    said = dmu("calibrate", path, "--again", result, "--store")
    assert said.status == 2
    assert f"was measured before {made.name}, which is what counts" in said.err


@pytest.mark.usefixtures("unlit")
def test_what_cannot_be_fitted_again_is_refused(dmu: Dmu, tmp_path: Path, result: Path) -> None:
    path = tmp_path / "recipe.yaml"
    assert "holds no result" in dmu("calibrate", path, "--again", tmp_path).err
    assert "do not go with it" in dmu("calibrate", path, "--again", result, "--yes").err
    assert "sensor.py lies beside a recipe, which must be named" in dmu("calibrate", "--again", result).err
    other = recipe(tmp_path, {"routine": "field.py"}, name="other.yaml")
    assert "has no routine sensor" in dmu("calibrate", other, "--again", result).err
    (result / "evidence.json").write_text("{}")
    said = dmu("calibrate", path, "--again", result)
    assert said.status == 2
    assert "evidence.json: is not what was stored" in said.err


# ---------------------------------------------------------------- check and schema


@pytest.mark.usefixtures("unlit")
def test_recipes_and_results_can_be_checked(dmu: Dmu, tmp_path: Path, result: Path) -> None:
    said = dmu("check", tmp_path / "recipe.yaml", tmp_path / "results", result, result / "result.yaml")
    assert said.status == 0
    assert said.err.splitlines() == [
        f"{tmp_path / 'recipe.yaml'}: sound, a calibration of 1 step",
        *(
            f"{path}: sound, 1 result of calibrations"
            for path in (tmp_path / "results", result, result / "result.yaml")
        ),
    ]
    dmu("calibrate", recipe(tmp_path, {"routine": "sensor.py", "valid_days": 1e-7}))
    assert "2 results of calibrations; stale: sensor since 20" in dmu("check", tmp_path / "results").err
    dmu("calibrate", recipe(tmp_path, {"routine": "sensor.py", "goes": "badly"}))
    (tmp_path / "results/small/main/all/sensor/20200101-000000-000000").mkdir()
    told = dmu("check", tmp_path / "results").err
    assert "3 results of calibrations; failed: sensor; 1 more were cut while they were stored, and hold none" in told
    (result / "found.safetensors").write_bytes(b"x")
    said = dmu("check", tmp_path / "results")
    assert said.status == 2
    assert str(result / "found.safetensors") in said.err


@pytest.mark.usefixtures("unlit")
def test_a_rig_whose_results_are_not_to_be_used_is_not_sound(dmu: Dmu, tmp_path: Path, result: Path) -> None:
    assert dmu("check", tmp_path / "rig.yaml").status == 0
    dmu("calibrate", recipe(tmp_path, {"routine": "sensor.py", "goes": "badly"}))
    said = dmu("check", tmp_path / "rig.yaml")
    assert said.status == 2
    assert (
        "sensor failed: nothing fits: dust?; run `dmu calibrate` with a recipe that has the routine sensor" in said.err
    )


def test_the_schema_of_recipes_is_printed(dmu: Dmu) -> None:
    assert set(json.loads(dmu("schema", "calibration").out)["properties"]) >= {
        "kind",
        "name",
        "rig",
        "steps",
        "results",
    }


# ---------------------------------------------------------------- whatever is written


@pytest.mark.usefixtures("unlit")
def test_whatever_stands_in_a_result_is_believed_or_refused(tmp_path: Path, result: Path) -> None:
    """Broken by the hundred, every other one with a seal that fits, so that nothing else stands in the way."""
    ends = {"believed": 0, "refused": 0}
    path = result / "result.yaml"
    whole = path.read_text()
    for seed in range(150):
        chance = random.Random(seed)
        text = mutate_text(whole, chance) if chance.random() < 0.3 else mutate_tree(yaml.safe_load(whole), chance)
        path.write_bytes(sealed(text, path).encode("utf-8", "surrogatepass") if seed % 2 else text.encode())
        unclear: list[str] = []
        try:
            believe(load_instrument(tmp_path / "rig.yaml"))
            read_result(result).check()
            ends["believed"] += 1
        except InputError as error:
            told = [str(problem) for problem in error.problems]
            unclear = [problem for problem in told if str(tmp_path) not in problem or len(problem) > 2000]
            ends["refused"] += 1
        assert unclear == [], text
    assert min(ends.values()) > 10, "only one kind of end: the mutations are too mild or too wild"


def sealed(text: str, path: Path) -> str:
    """With the seal that belongs to it, where it is YAML at all."""
    try:
        document = parse_yaml(text, path)
    except InputError:
        return text
    if not isinstance(document.value, dict):
        return text
    seal = store_module._seal(document)
    return re.sub("(?m)^seal: .*$", f"seal: {seal}", text)


# ---------------------------------------------------------------- a real terminal


@pytest.mark.skipif(sys.platform == "win32", reason="opens a POSIX terminal")
@pytest.mark.parametrize(("keys", "status", "says"), [(b"\n", 0, b"sensor: good"), (b"\x03", 1, b"the light is off")])
def test_at_a_terminal_people_answer_by_enter_or_ctrl_c(by_hand: Path, keys: bytes, status: int, says: bytes) -> None:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "calibrate", str(by_hand), "--only", "sensor"],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - this process has no threads that matter
    ) as process:
        os.close(theirs)
        told = b""
        while b"press Enter" not in told:
            told += os.read(ours, 4096)
        assert b"put in place: an even layer of dye" in told
        os.write(ours, keys)
        with contextlib.suppress(OSError):  # Linux: the other end was closed
            while part := os.read(ours, 4096):
                told += part
        assert process.wait(60) == status, told.decode()
    os.close(ours)
    assert says in told


def _take_terminal() -> None:
    """So that Ctrl-C is sent to the new process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
