"""report.html of a comparison: who came how far, with what, and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from dmu_hw.compare import NAMES, Result, Standing
from dmu_hw.files import read_text, write_whole
from dmu_hw.tally import Tally
from dmu_hw.view.amounts import digits, duration, plural
from dmu_hw.view.page import Html, Section, join, page, pairs, paragraph, table, tag, verbatim
from dmu_hw.view.plots import Mark, arms_plot, compression_plot
from dmu_hw.view.versus import versus

_SIGNS = {True: ("✓", "good"), False: ("✗", "bad"), None: ("○", "even")}
_GOOD = {"learned": True, "rival": False}
_COLUMNS = {
    "mse": "MSE", "psnr_db": "PSNR / dB", "ssim": "SSIM", "ap50": "AP@0.5", "dice": "Dice", "count_error": "count error",
    "ridge_mse": "ridge, same frames: MSE",
}  # fmt: skip
_LIMIT = (
    "The limit is no rival. It is trained like the learned arm, but its patterns take any value from −1 to 1, which no "
    "mirror can show: mirrors cannot take light away. Its frames have the photon noise of |H|, the light that such "
    "patterns would need. The distance from the best fixed set to it says how much better patterns could make things "
    "here, with this inverse model and this training; where it is small, there is little to learn, whatever is tried. "
    "It comes of a training too, so it is an estimate of the limit and no proof: where learned patterns pass it, its "
    "training ended early."
)


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
        paragraph("Do learned patterns earn their light? A comparison at equal ", tally.contest.equal),
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
    said = tag("span", asked, tag("b", one.verdict))
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
            "same camera": "Cameras and frame counts as asked for; at equal compression the better one is not singled out.",
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
    inside = [said, *_closed(one), _ranks(tally, one), arms_plot(one, _marks(tally, one))]
    if len(one.all) > len(one.best):
        inside.append(_choices(tally, one))
    inside.append(versus(tally, one, trials))
    return Section(name, _asked(one), tuple(inside))


def _closed(one: Standing) -> Iterator[Html]:
    if one.closed is not None:
        part = f"{100 * one.closed:.0f} %".replace("-", "−")
        yield paragraph(f"Of the distance from the best fixed set to the limit, learned patterns cover {part}.")
    elif one.of("limit") is not None and one.rival is not None:
        yield paragraph("The limit is no better than the best fixed set: this training found nothing to gain here.")


def _ranks(tally: Tally, one: Standing) -> Html:
    metric = one.metric.name
    others = [name for name in _COLUMNS if name != metric and any(name in result.also for result in one.best)]
    spread = ", ± spread over seeds" if tally.contest.seeds > 1 else ""
    with_tv = any(tally.reference(result) for result in one.best)
    columns = ["arm", "T", "d", f"{_COLUMNS[metric]}{spread}", "to the best fixed set"]
    columns += [_COLUMNS[name] for name in others]
    columns += ["total variation: MSE (ridge there)"] if with_tv else []
    columns += ["time under light", "dose"]
    rows = [_rank(tally, one, result, others, with_tv=with_tv) for result in one.best]
    caption = "Test split, best first. Dose: as of full light for so long on the mean object pixel."
    if with_tv:
        caption += " Total variation: on the first images of the test split, one seed."
    return table(caption, columns, rows)


def _rank(tally: Tally, one: Standing, result: Result, others: Sequence[str], *, with_tv: bool) -> list[object]:
    name = Html("<i>limit: no mirror can show it</i>") if result.arm == "limit" else _name(result)
    cells: list[object] = [name, result.choice.count, result.choice.camera_pixel, tag("b", _scored(result))]
    gain = None if one.rival is None or result is one.rival else one.gain(result, one.rival)
    cells.append("–" if gain is None else f"{100 * gain:+.1f} %".replace("-", "−"))
    cells += [digits(result.also[other]) if other in result.also else "–" for other in others]
    if with_tv:
        found = tally.reference(result)
        cells.append("–" if found is None else f"{digits(found['mse'])} ({digits(found['ridge_mse'])})")
    return [*cells, duration(result.light_ms / 1e3), duration(tally.dose_ms(result) / 1e3)]


def _name(result: Result) -> object:
    name = NAMES[result.arm].removeprefix("the ")
    return tag("b", name) if result.arm == "learned" else name


def _scored(result: Result) -> str:
    spread = f" ± {digits(result.spread, 2)}" if len(result.values) > 1 else ""
    return f"{digits(result.mean, 4)}{spread}"


def _marks(tally: Tally, one: Standing) -> Iterator[Mark]:
    """Classical estimates, where arms are ranked by the same error."""
    if one.metric.name != "mse":
        return
    if "ridge" in tally.contest.references:
        yield Mark("ridge on the same frames", "D", tuple(result.ridge_mse for result in one.best))


def _choices(tally: Tally, one: Standing) -> Html:
    """All that arms might have chosen."""
    columns = ("arm", "T", "d", f"validation: {_COLUMNS[one.metric.name]}", f"test: {_COLUMNS[one.metric.name]}", "")
    rows = [
        (
            _name(result) if result.arm != "limit" else "limit",
            result.choice.count,
            result.choice.camera_pixel,
            digits(result.val, 4),
            _scored(result),
            "chosen" if result in one.best else "",
        )
        for result in sorted(one.all, key=lambda result: (result.arm, result.choice.count))
    ]
    told = f"Every arm with every (T, d): {len(one.all)} tried, the best of each on the validation split chosen"
    return tag("details", tag("summary", told), table("Chosen by validation, judged by test.", columns, rows))


# ---------------------------------------------------------------- what was equal, what was not


def _fairness(tally: Tally) -> Section:
    contest, course = tally.contest, tally.course
    lesson, schedule = course.lesson, course.lesson.schedule
    light = {
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
    budgets = _budgets(tally)
    return Section("budget", "What was equal, and what each arm had", (pairs(rows), budgets))


def _data(tally: Tally) -> str:
    data = tally.course.lesson.data
    if data.kind == "folder":
        return data.path.name
    return f"{data.train} synthetic scenes ({data.specimen.kind}), {data.held_back} more each for val and test"


def _budgets(tally: Tally) -> Html:
    rows = []
    for result in _each(tally):
        had = tally.budget(result)
        arm = "limit" if result.arm == "limit" else _name(result)
        best = f"{had['updates']:,.0f} ({had['best_update']:,.0f})"
        rows.append(
            (
                arm, result.choice.count, result.choice.camera_pixel, len(result.values), best, f"{had['batch']:g}",
                duration(had["seconds"]), f"{had['parameters']:,.0f}",
            )
        )  # fmt: skip
    columns = ("arm", "T", "d", "seeds", "updates (best at)", "batch", "time of one", "parameters")
    return table("One training of each, in the mean over its seeds", columns, rows)


def _each(tally: Tally) -> list[Result]:
    """Every arm and (T, d) once, though several questions may hold it."""
    return list({result.trials: result for one in tally.standings for result in one.all}.values())


def _settings(tally: Tally, protocol: Path) -> Section:
    texts = [verbatim(path.name, read_text(path)) for path in (protocol, tally.contest.base)]
    lost = tag("ul", *(tag("li", str(one)) for one in tally.lost)) if tally.lost else None
    failed = join([tag("h3", "Trainings that failed"), lost]) if lost else Html("")
    return Section("settings", "Settings", (failed, *texts))
