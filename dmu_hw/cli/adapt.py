"""`dmu adapt`: fit a bundle to the instrument as it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmu_hw.belief import Belief, believe
from dmu_hw.bundle import Adaptation, Bundle
from dmu_hw.cli.learn import read_course
from dmu_hw.cli.output import DONE, Output
from dmu_hw.cli.session import load_bundle, load_instrument
from dmu_hw.cli.trusting import taught
from dmu_hw.course import Course, course_of
from dmu_hw.data import Float32Array, PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.physics.optics import Optics
from dmu_hw.rig import Rig

if TYPE_CHECKING:
    from dmu_hw.adapt import Adapted, Adapter
    from dmu_hw.train import Learner

_PATTERN = "pattern"
"""The routine that measures what patterns send."""


@dataclass(frozen=True)
class Aim:
    """What a bundle is to be fitted to."""

    rig: Rig
    channel: str
    optics: Optics
    belief: Belief | None
    """None: nothing was measured."""

    @property
    def results(self) -> dict[str, str]:
        return {} if self.belief is None else self.belief.hashes


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line."""

    channel: str | None = None
    protocol: Path | None = None
    runs: tuple[Path, ...] = ()
    updates: int = 200
    refine: bool = False
    out: Path | None = None
    device: str = "auto"


def adapt_bundle(path: Path, rig_path: Path, wish: Wish, output: Output) -> None:
    """Fit, judge on held-back fields, and keep what is better beside the old one."""
    bundle = load_bundle(path)
    aim = _aim(rig_path, wish.channel)
    target = wish.out or path.with_name(f"{path.stem}-{aim.rig.settings.name}{path.suffix}")
    if target.exists():
        raise InputError([Problem(str(target), "exists already: name another file by --out")])
    course = course_of_bundle(bundle, path, wish.protocol, aim.optics)
    if aim.belief is None or not aim.results:
        output.say(f"{rig_path}: nothing was measured of it; what its file says is believed")
    adapter = _adapter(path, course, aim, wish)
    before = adapter.before()
    output.say(f"as it is: {_told(before)}")
    learner = adapter.learner()
    _learn(adapter, learner, output)
    found = adapter.adapted(learner, before)
    if found.learned:
        output.say(f"adapted:  {_told(found.after)}")
    else:
        output.say(
            "nothing that was learned is better on held-back fields: the inverse stays, for this instrument's numbers"
        )
    made = _bundle(bundle, aim, found, adapter.instrument.pairs_count)
    made = taught(made, course.lesson, adapter.images, adapter.instrument.delivered, wish.device, output)
    made.save(target)
    output.say(f"{target}: fitted to rig {aim.rig.settings.name}; {path} is as it was")
    told = {"before": before, "after": found.after, "learned": found.learned}
    output.finish(DONE, bundle=str(target), hash=made.hash, **told)


def _aim(rig_path: Path, channel: str | None) -> Aim:
    rig = load_instrument(rig_path)
    names = ", ".join(rig.channels)
    if channel is None and len(rig.channels) > 1:
        raise InputError([Problem("--channel", f"rig {rig.settings.name} has several, say one of them: {names}")])
    name = next(iter(rig.channels)) if channel is None else channel
    if name not in rig.channels:
        raise InputError([Problem("--channel", f"there is no {name!r}; there are: {names or 'none by name'}")])
    beliefs = believe(rig)
    return Aim(rig, name, rig.channels[name].optics, beliefs.get(name))


def course_of_bundle(bundle: Bundle, path: Path, protocol: Path | None, optics: Optics) -> Course:
    """What the bundle was trained by, on the optics that are believed now."""
    if protocol is not None:
        course = read_course(protocol)
    elif bundle.header.lesson is not None:
        # any optics will do to read it: those of the rig are put in their place
        course = course_of({**bundle.header.lesson, "optics": optics.model_dump(mode="json")})
    else:
        what = "does not say what it was trained by: name the training protocol, with its images, by --protocol"
        raise InputError([Problem(str(path), what)])
    if course.lesson.network.model != bundle.header.model:
        what = f"trains a {course.lesson.network.model!r} inverse, the bundle has a {bundle.header.model!r} one"
        raise InputError([Problem(str(protocol or path), what)])
    if course.lesson.task.kind != bundle.header.task:
        what = f"is for the task {course.lesson.task.kind!r}, the bundle for {bundle.header.task!r}"
        raise InputError([Problem(str(protocol or path), what)])
    return course


def _adapter(path: Path, course: Course, aim: Aim, wish: Wish) -> Adapter:
    from dmu_hw.adapt import Adapter, Effort, Instrument  # noqa: PLC0415 - torch
    from dmu_hw.cli.takings import pairs_of  # noqa: PLC0415
    from dmu_hw.images import Images  # noqa: PLC0415
    from dmu_hw.ranks import device_named  # noqa: PLC0415

    labelled = course.lesson.task.kind == "segment"
    images = Images.load(course.lesson.data, aim.optics.object_pixel_um, labelled=labelled)
    bundle, where = load_bundle(path), device_named(wish.device)
    pairs = None
    if wish.runs:
        margin_px = course.lesson.schedule.margin_px
        pairs = pairs_of(wish.runs, bundle, aim.channel, aim.optics, margin_px, where)
    instrument = Instrument(aim.optics, _delivered(aim, bundle), pairs)
    effort = Effort(wish.updates, refine=wish.refine)
    return Adapter(path, course.lesson, course.network, images, instrument, effort, where)


def _delivered(aim: Aim, bundle: Bundle) -> Float32Array | None:
    """The light that these very patterns were measured to send, if they were."""
    result = None if aim.belief is None else aim.belief.results.get(_PATTERN)
    if result is None:
        return None
    found = result.found()
    if not np.array_equal(found["masks"], bundle.patterns.masks):
        return None
    return np.clip(found["illumination"].astype(np.float32), 0, None)


def _learn(adapter: Adapter, learner: Learner, output: Output) -> None:
    updates = adapter.lesson.schedule.updates
    with output.progress("adapting") as progress:
        for line in adapter.steps(learner):
            output.say(f"update {line.update} of {updates}  val {line.val_error:.4g}")
            progress(line.update, updates)


def _bundle(old: Bundle, aim: Aim, found: Adapted, pairs: int) -> Bundle:
    stack = PatternStack(old.patterns.name, found.masks, old.patterns.camera_pixel)
    adaptation = Adaptation(
        from_bundle=old.hash,
        rig=aim.rig.settings.name,
        objective=aim.rig.settings.objective,
        channel=aim.channel,
        results=aim.results,
        pairs=pairs,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        before=found.before,
        after=found.after,
    )
    header = old.header.model_copy(
        update={
            "name": f"{old.header.name}-{aim.rig.settings.name}",
            "optics": aim.optics,
            "pattern_hashes": stack.hashes,
            "metrics": {f"test_{name}": value for name, value in found.after.items()},
            "adapted": adaptation,
            "command": "dmu adapt",
        }
    )
    return Bundle(header, stack, found.weights)


def _told(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in scores.items())
