"""report.html of a comparison: who came how far, with what, and what it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dmu_hw.compare import Standing
from dmu_hw.files import read_text, write_whole
from dmu_hw.tally import Tally
from dmu_hw.view.amounts import digits, duration, plural
from dmu_hw.view.page import Html, Section, join, page, pairs, paragraph, tag, verbatim
from dmu_hw.view.plots import arms_plot, compression_plot
from dmu_hw.view.ranking import budgets, choices, classical_told, limit_told, marks, ranks
from dmu_hw.view.versus import versus

_SIGNS = {True: ("✓", "good"), False: ("✗", "bad"), None: ("○", "even")}
_GOOD = {"learned": True, "rival": False}
_LIMIT = (
    "The limit is no rival. It is trained like the learned arm, but its patterns take any value from −1 to 1, which no "
    "mirror can show: mirrors cannot take light away. Its frames have the photon noise of |H|, the light that such "
    "patterns would need. The distance from the best fixed set to it says how much better patterns could make things "
    "here, with this inverse model and this training; where it is small, there is little to learn, whatever is tried. "
    "It comes of a training too, so it is an estimate of the limit and no proof: where learned patterns pass it, its "
    "training ended early."
)


_EQUAL = {"peak": "peak dose", "dose": "mean dose", "time": "time under light"}


def write_contest(tally: Tally, protocol: Path, trials: Path, report: Path) -> None:
    """One file that stands for itself."""
    sections = [_verdicts(tally), *_against_compression(tally)]
    sections += [_question(tally, number, trials) for number in range(len(tally.standings))]
    sections += [_fairness(tally), Section("limit", "How to read the limit", (paragraph(_LIMIT),))]
    sections.append(_settings(tally, protocol))
    lost = None
    if tally.lost:
        told = f"{len(tally.lost)} of {plural(len(tally.records), 'training')} failed."
        lost = paragraph(tag("strong", "INCOMPLETE"), f": {told}", class_="state bad")
    top = [
        paragraph("Do learned patterns earn their light? A comparison at equal ", _EQUAL[tally.contest.equal]),
        tag("h1", tally.contest.name),
        lost,
        pairs(_glance(tally), class_="tiles"),
    ]
    text = page(f"{tally.contest.name}, comparison", [one for one in top if one is not None], sections)
    write_whole(report, text.encode())


def _glance(tally: Tally) -> list[tuple[object, object]]:
    contest, lesson = tally.contest, tally.course.lesson
    spent = sum(record.seconds for record in tally.records.values())
    return [
        ("questions", str(len(tally.standings))),
        ("arms", str(len(contest.arms))),
        ("seeds", str(contest.seeds)),
        ("trainings", f"{len(tally.records):,}"),
        ("updates of each", f"{lesson.schedule.updates:,}"),
        ("computing", duration(spent)),
    ]


# ---------------------------------------------------------------- answers


def _verdicts(tally: Tally) -> Section:
    items = [_verdict(one, with_question=True) for one in tally.standings]
    how = (
        f"Ranked by {tally.metric.told} on the test split. A difference counts if it is above 2 % and above the spread "
        "(standard deviation over seeds) of both arms."
    )
    if tally.contest.seeds == 1:
        how += " With one seed no spread is known: take small differences for none."
    return Section("verdict", "Verdict", (tag("ul", *items, class_="verdict"), paragraph(how, class_="note")))


def _verdict(one: Standing, *, with_question: bool) -> Html:
    sign, mood = _SIGNS[_GOOD.get(one.outcome or "")]
    asked = tag("span", f"{_asked(one)}: ", class_="asked") if with_question else None
    unbroken = re.sub(r"\b([Td]) (\d)", "\\1\u00a0\\2", one.verdict)
    said = tag("span", asked, tag("b", unbroken))
    return tag("li", tag("span", sign, class_="sign", aria_hidden="true"), said, class_=mood)


def _asked(one: Standing) -> str:
    kind = one.question.kind
    return f"{kind[0].upper()}{kind[1:]}, {one.question.told}"


def _against_compression(tally: Tally) -> Iterator[Section]:
    for kind, group in groupby(tally.standings, key=lambda one: one.question.kind):
        standings = [one for one in group if one.best]
        if len({one.question.compression for one in standings}) < 2:
            continue
        told = {
            "same data": "Each arm with its own best (T, d) for that much data.",
            "same camera": "Frames and camera pixels as asked for.",
        }[kind]
        plot = compression_plot(standings[0].question, standings)
        name = kind.replace(" ", "-")
        yield Section(f"{name}-compression", f"{kind.capitalize()}: against compression", (paragraph(told), plot))


def _question(tally: Tally, number: int, trials: Path) -> Section:
    one = tally.standings[number]
    name = f"question-{number + 1}"
    if not one.best:
        return Section(name, _asked(one), (paragraph(one.verdict),))
    said = tag("ul", _verdict(one, with_question=False), class_="verdict")
    if one.failed:
        told = (
            f"{plural(one.failed, 'training')} failed for this question: arms and seeds without a result are left out."
        )
        said = join([said, paragraph(tag("b", "Caution"), f": {told}", class_="caution")])
    inside = [said, *_closed(tally, one), ranks(tally, one), arms_plot(one, marks(tally, one))]
    if len(one.all) > len(one.best):
        inside.append(choices(one))
    inside.append(versus(tally, one, trials))
    return Section(name, _asked(one), tuple(inside))


def _closed(tally: Tally, one: Standing) -> Iterator[Html]:
    yield from (paragraph(told) for told in (limit_told(one), classical_told(tally, one)) if told is not None)


# ---------------------------------------------------------------- what was equal, what was not


def _fairness(tally: Tally) -> Section:
    contest, course = tally.contest, tally.course
    lesson, schedule = course.lesson, course.lesson.schedule
    light = {
        "peak": "dose of the most lit object pixel, summed over all frames; nowhere is there more, nor on the mean",
        "dose": "dose on the mean object pixel, summed over all frames; sets that light little get longer frames",
        "time": "time under light, summed over all frames; sets that light little give less dose",
    }[contest.equal]
    model = ", ".join(f"{key} {value}" for key, value in course.network.model_dump(mode="json").items())
    rows = [
        ("light", f"equal {light}; {digits(lesson.power_mw)} mW for all"),
        ("images", f"the same for all: {_data(tally)}; crops of {schedule.crop_px} object pixels"),
        ("inverse model", f"the same for all: {lesson.network.model} ({model}), each trained for its own patterns"),
        ("training", f"{schedule.updates:,} updates of {schedule.batch} crops, loss {lesson.loss}, the same rates"),
        ("seeds", f"{contest.seeds} for each arm, the same ones; random patterns are drawn anew for each"),
        ("frames judged", "exact Poisson noise, read noise and rounding; binary patterns as the mirrors show them"),
        ("chosen", "weights, and where it is free (T, d), on the validation split; reported on the test split"),
    ]
    return Section("budget", "What was equal, and what each arm had", (pairs(rows), budgets(tally)))


def _data(tally: Tally) -> str:
    data = tally.course.lesson.data
    if data.kind == "folder":
        return data.path.name
    return f"{data.train} synthetic scenes ({data.specimen.kind}), {data.held_back} more each for val and test"


def _settings(tally: Tally, protocol: Path) -> Section:
    texts = [verbatim(path.name, read_text(path)) for path in (protocol, tally.contest.base)]
    lost = tag("ul", *(tag("li", str(one)) for one in tally.lost)) if tally.lost else None
    failed = join([tag("h3", "Trainings that failed"), lost]) if lost else Html("")
    return Section("settings", "Settings", (failed, *texts))
