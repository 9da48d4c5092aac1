"""`dmu train`: from a training protocol to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmu_hw.cli.output import DONE, Output
from dmu_hw.cli.session import believing_instrument, outsiders
from dmu_hw.cli.trusting import taught
from dmu_hw.course import Course, open_course
from dmu_hw.files import parse_yaml, read_text, write_whole
from dmu_hw.physics.optics import Optics
from dmu_hw.rig import load_rig
from dmu_hw.runfolder import new_run

if TYPE_CHECKING:
    from dmu_hw.logbook import Logbook
    from dmu_hw.ranks import Team
    from dmu_hw.train import Learner, Line


CHECKPOINT = "checkpoint.safetensors"


def read_course(path: Path) -> Course:
    """A training protocol and all that it names; what is wrong with it, its rig or its model is said."""
    document = parse_yaml(read_text(path), path.absolute())
    with outsiders(str(path)):
        return open_course(document, optics_of_rig)


def optics_of_rig(path: Path) -> Optics:
    """What is believed of a rig: what its file says, and in its place what was measured; of several channels that of
    the first."""
    with outsiders(str(path)):
        file = load_rig(path)
    return file.settings.optics if file.settings.calibration is None else believing_instrument(path)[0].optics


def train_lesson(path: Path, out: Path, resume: Path | None, device: str, output: Output) -> None:
    """Learn, keep a checkpoint and a log at each validation, and leave a bundle."""
    course = read_course(path)
    from dmu_hw.ranks import Team, device_named  # noqa: PLC0415 - torch

    where = device_named(device)
    team = Team.join(where)
    try:
        learner = _learner(course, team, str(where))
        if resume is not None:
            _restore(learner, resume / CHECKPOINT)
        if team.leads:
            _lead(learner, path, resume or new_run(out, course.lesson.name).path, output)
        else:
            _follow(learner)
    finally:
        team.leave()


def _learner(course: Course, team: Team, device: str) -> Learner:
    from dmu_hw.images import Images  # noqa: PLC0415 - torch
    from dmu_hw.train import Learner  # noqa: PLC0415

    labelled = course.lesson.task.kind == "segment"
    images = Images.load(course.lesson.data, course.optics.object_pixel_um, labelled=labelled)
    return Learner(course.lesson, course.network, course.optics, images, device, team)


def _restore(learner: Learner, path: Path) -> None:
    from dmu_hw.checkpoint import load_state  # noqa: PLC0415 - torch

    learner.restore(load_state(path))


def _follow(learner: Learner) -> None:
    """What every process of a team but the first does."""
    from dmu_hw.train import learn  # noqa: PLC0415 - torch

    for _ in learn(learner):
        pass


def _lead(learner: Learner, path: Path, folder: Path, output: Output) -> None:
    from dmu_hw.judging import bundled  # noqa: PLC0415 - torch
    from dmu_hw.logbook import Logbook  # noqa: PLC0415

    lesson = learner.lesson
    write_whole(folder / "protocol.yaml", read_text(path).encode())
    for problem in learner.images.left_out:
        output.say(f"left out: {problem}")
    output.say(f"{folder}: {learner.images.told}; {lesson.schedule.updates} updates on {learner.device}")
    output.known["folder"] = str(folder)
    with Logbook.of(folder) as book:
        _watch(learner, folder, book, output)
    if not lesson.patterns.binary:
        output.say("no bundle: no mirror can show these patterns")
        output.finish(DONE, bundle=None, updates=learner.progress.update, val_error=learner.progress.best_error)
    bundle = taught(bundled(learner), lesson, learner.images, None, str(learner.device), output)
    file = folder / f"{lesson.name}.dmu"
    bundle.save(file)
    from dmu_hw.view.training import write_training  # noqa: PLC0415 - torch

    report = write_training(folder, learner, bundle, lesson.name)
    reached = {name: value for name, value in bundle.header.metrics.items() if name.startswith("test_")}
    told = ", ".join(f"{name.removeprefix('test_')} {value:.5g}" for name, value in reached.items())
    output.say(f"{file}: {told} on the test split")
    output.say(str(report))
    facts = {"metrics": bundle.header.metrics, "updates": learner.progress.update}
    output.finish(DONE, bundle=str(file), report=str(report), **facts)


def _watch(learner: Learner, folder: Path, book: Logbook, output: Output) -> None:
    """Learn to the end. Checkpoint first: a line of the log says that it is there."""
    from dmu_hw.checkpoint import save_state  # noqa: PLC0415 - torch
    from dmu_hw.train import learn  # noqa: PLC0415

    updates = learner.lesson.schedule.updates
    with output.progress("learning") as progress:
        for line in learn(learner):
            save_state(folder / CHECKPOINT, learner.state())
            book.write(line)
            output.say(_told(line, updates))
            progress(learner.progress.update, updates)


def _told(line: Line, updates: int) -> str:
    loss = "" if line.loss is None else f"  loss {line.loss:.4g}"
    left = "" if line.per_update_s is None else f"  {_duration((updates - line.update) * line.per_update_s)} left"
    return f"update {line.update} of {updates}  {line.stage}{loss}  val {line.val_error:.4g}{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
