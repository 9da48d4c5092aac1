"""The page of a calibration: what each routine found, how it was judged, what it looks like, and what has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from dmu_hw.calibrate import Outcome
from dmu_hw.files import read_text
from dmu_hw.routine import Finding
from dmu_hw.store import ALL_CHANNELS, CheckRecord, Record, Result, Store
from dmu_hw.view.amounts import digits, named
from dmu_hw.view.drift import drift_plot
from dmu_hw.view.looks import looks
from dmu_hw.view.page import Html, Section, join, page, pairs, paragraph, table, tag, verbatim

_MOST = 200
"""Results that a drift is shown over."""
_SAID = {"pass": "Good", "warn": "Good, with warnings", "refuse": "FAILED: not to be used"}
_TINY = 1e-4
_LEAST_PERCENT = 0.01
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SIGN = {"pass": "✓", "warn": "!", "refuse": "✗"}


@dataclass(frozen=True)
class Shown:
    """One routine in one channel."""

    routine: str
    channel: str
    record: Record | None
    """None: there is no result, and `skipped` says why."""
    skipped: str
    finding: Finding | None
    before: Record | None
    """The last good one."""
    history: tuple[Record, ...]
    """Up to this one, the oldest first."""
    text: str
    """Of result.yaml."""
    cautions: tuple[str, ...] = ()

    @classmethod
    def of(cls, outcome: Outcome, store: Store) -> Shown:
        result = outcome.result
        if result is None:
            return cls(outcome.routine, outcome.channel, None, outcome.skipped, None, None, (), "")
        history, problems = store.history(result.record.key, _MOST)
        return cls(
            routine=outcome.routine,
            channel=outcome.channel,
            record=result.record,
            skipped="",
            finding=outcome.finding,
            before=None if outcome.before is None else outcome.before.record,
            history=tuple(one.record for one in history if one.folder <= result.folder),
            text=_text(result),
            cautions=tuple(str(problem) for problem in problems),
        )

    @classmethod
    def again(cls, outcome: Outcome) -> Shown:
        """Evidence that was fitted again, beside what was found then."""
        assert outcome.result is not None  # noqa: S101 - there is one, or nothing could be fitted again
        assert outcome.before is not None  # noqa: S101
        now, then = outcome.result.record, outcome.before
        return cls(
            outcome.routine, outcome.channel, now, "", outcome.finding, then.record, (then.record, now), _text(then)
        )

    @property
    def title(self) -> str:
        return self.routine + (f" of {self.channel}" if self.channel not in ("", ALL_CHANNELS) else "")

    @property
    def anchor(self) -> str:
        return self.title.replace(" ", "-")

    @cached_property
    def section(self) -> Section:
        """All that there is to see of it; drawn once."""
        return Section(self.anchor, self.title, tuple(_inside(self)))

    @property
    def said(self) -> str:
        return "refuse" if self.record is None else self.record.verdict


def _text(result: Result) -> str:
    return read_text(result.folder / "result.yaml", limit=4_000_000)


def calibration_page(name: str, shown: Sequence[Shown], texts: Mapping[str, str]) -> str:
    """One file that stands for itself. `texts` are files that it was made from."""
    records = [one.record for one in shown if one.record is not None]
    at = max((record.at for record in records), default=datetime.now().astimezone())
    whose = [" · rig ", tag("b", records[0].key.rig), f" · objective {records[0].key.objective}"] if records else []
    bad = [one.title for one in shown if one.said == "refuse"]
    top = [
        paragraph(f"{_local(at):%A, %d %B %Y, %H:%M:%S %Z}", *whose),
        tag("h1", name),
        _state(shown, bad),
        *(paragraph(tag("b", "Caution"), f": {what}", class_="caution") for one in shown for what in one.cautions),
        pairs(_glance(shown), class_="tiles"),
    ]
    sections = [one.section for one in shown]
    if len(shown) > 1:
        sections.insert(0, Section("overview", "Overview", (_overview(shown),)))
    if texts:
        opened = tuple(verbatim(file, text) for file, text in texts.items())
        sections.append(Section("settings", "Settings", opened))
    return page(f"{name}, {_local(at):%Y-%m-%d %H:%M}" + (" (FAILED)" if bad else ""), top, sections)


def _local(at: datetime) -> datetime:
    return at.astimezone()


def _moment(at: datetime) -> str:
    return f"{_local(at):%Y-%m-%d %H:%M}"


# ---------------------------------------------------------------- at a glance


def _state(shown: Sequence[Shown], bad: list[str]) -> Html:
    if bad:
        return paragraph(tag("strong", "NOT ALL GOOD"), f": {', '.join(bad)}", class_="state bad")
    warned = [one.title for one in shown if one.said == "warn"]
    said = f"Good, with warnings of {', '.join(warned)}" if warned else "All good"
    return paragraph(said, class_="state good")


def _glance(shown: Sequence[Shown]) -> list[tuple[object, object]]:
    records = [one.record for one in shown if one.record is not None]
    good = [record for record in records if record.verdict != "refuse"]
    tiles: list[tuple[object, object]] = [("good", f"{len(good)} of {len(shown)}")]
    if good:
        tiles.append(("good until", _moment(min(record.good_until for record in good))))
    tiles.append(("dose on the sample", f"{digits(sum(record.dose_mj_cm2 for record in records))} mJ/cm²"))
    tiles.append(("results before these", f"{sum(max(0, len(one.history) - 1) for one in shown):,}"))
    return tiles


def _overview(shown: Sequence[Shown]) -> Html:
    rows = []
    for one in shown:
        name = tag("a", one.title, href=f"#{one.anchor}")
        sign = tag("span", f"{_SIGN[one.said]} {_SAID[one.said] if one.record else 'no result'}", class_=one.said)
        checks = [check for check in (one.record.checks if one.record else ()) if check.value is not None]
        nearest = max(checks, key=_strain, default=None)
        told = "" if nearest is None else f"{_label(nearest.name)}: {_limited(nearest)}"
        until = _moment(one.record.good_until) if one.record and one.record.verdict != "refuse" else "–"
        rows.append((name, sign, gauge(nearest) if nearest else "", told, until))
    columns = ("routine", "", "nearest to its limit", "", "good until")
    return table("Each routine, and the check that comes nearest to its limit", columns, rows, numbers=False)


def _strain(check: CheckRecord) -> float:
    """How far towards its limit: 1 is where people are warned."""
    value = 0.0 if check.value is None else check.value
    one, other = (value, check.warns) if check.refuses >= check.warns else (check.warns, value)
    return one / other if other else 0.0


# ---------------------------------------------------------------- one routine


def _inside(one: Shown) -> Iterator[Html]:
    record = one.record
    if record is None:
        yield paragraph(f"{_SIGN['refuse']} No result: {one.skipped}", class_="said refuse")
        return
    until = f", until {_moment(record.good_until)}" if record.verdict != "refuse" else ""
    why = f": {record.why}" if record.why else ""
    yield paragraph(f"{_SIGN[record.verdict]} {_SAID[record.verdict]}{until}{why}", class_=f"said {record.verdict}")
    tables = [*_checks(record, one.before), *_figures(record, one.before)]
    yield tag("div", *tables, class_="tables")
    if one.finding is not None:
        yield from looks(one.finding, one.title)
    plot = drift_plot(one.history, one.title)
    yield tag("h3", "Drift")
    if plot is None:
        yield paragraph("There is nothing to compare with yet.", class_="note")
    else:
        yield plot
    yield verbatim("result.yaml", one.text)


def _checks(record: Record, before: Record | None) -> Iterator[Html]:
    """What was judged, against its limits and against the last good result."""
    then = {} if before is None else {check.name: check.value for check in before.checks}
    rows = [(*_check_row(check), *_since(check.name, check.value, then, before)) for check in record.checks]
    columns = ("", "found", "", "good", "refused", *_columns(before))
    if rows:
        yield table("Checks", columns, rows, numbers=False)


def _check_row(check: CheckRecord) -> tuple[object, ...]:
    name = tag("span", f"{_SIGN[check.said]} {_label(check.name)}", class_=check.said)
    advice = [tag("br"), tag("span", check.advice, class_="note")] if check.advice and check.said != "pass" else []
    return join((name, *advice)), _amount(check.name, check.value), gauge(check), *_limits(check)


def _limits(check: CheckRecord) -> tuple[str, str]:
    good, bad = ("≤", ">") if check.refuses >= check.warns else ("≥", "<")
    return f"{good} {_amount(check.name, check.warns)}", f"{bad} {_amount(check.name, check.refuses)}"


def _limited(check: CheckRecord) -> str:
    good, bad = _limits(check)
    return f"{_amount(check.name, check.value)}, should be {good} (refused {bad})"


def gauge(check: CheckRecord) -> Html:
    """Where a value lies between what is good and what is refused."""
    above = check.refuses >= check.warns
    span = abs(check.refuses - check.warns) or abs(check.warns) or 1.0
    low, high = check.warns - 2 * span, check.refuses + span
    if above and check.warns > 0:
        low = 0.0  # an error, as most are: nothing is best
    elif above and check.warns == 0:
        low = -0.1 * span  # room for a value that may be nothing else
    elif not above:
        low, high = check.refuses - span, check.warns + 2 * span

    def place(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - low) / (high - low)))

    first, last = ("--good", "--bad") if above else ("--bad", "--good")
    one, two = sorted((place(check.warns), place(check.refuses)))
    style = f"--first: var({first}); --last: var({last}); --one: {one:.1f}%; --two: {two:.1f}%"
    dot = None if check.value is None else tag("i", style=f"--at: {place(check.value):.1f}%")
    return tag("span", dot, class_="gauge", style=style, role="img", aria_label=_limited(check))


def _figures(record: Record, before: Record | None) -> Iterator[Html]:
    """What was found and is not judged."""
    then = {} if before is None else before.figures
    judged = {check.name for check in record.checks}
    rows = [
        (_label(name), _amount(name, value), *_since(name, value, then, before))
        for name, value in record.figures.items()
        if name not in judged
    ]
    columns = ("", "found", *_columns(before))
    if rows:
        yield table("Figures", columns, rows)


def _columns(before: Record | None) -> tuple[str, ...]:
    return () if before is None else (f"since {_local(before.at):%Y-%m-%d}",)


def _since(name: str, value: float | None, then: Mapping[str, float | None], before: Record | None) -> tuple[str, ...]:
    """How far it is from the last good result; nothing where there is none."""
    if before is None:
        return ()
    was = then.get(name)
    return ("–" if was is None or value is None else _change(name, value - was, was),)


def _change(name: str, by: float, was: float) -> str:
    if by == 0:
        return "none"
    sign = "+" if by > 0 else "−"
    if not was:
        return f"{sign}{_amount(name, abs(by))}"
    percent = 100 * abs(by / was)
    part = f"{digits(percent, 2)} %" if percent >= _LEAST_PERCENT else f"below {_LEAST_PERCENT} %"
    return f"{sign}{_amount(name, abs(by))} ({part})"


def _label(name: str) -> str:
    return named(name)[0]


def _amount(name: str, value: float | None) -> str:
    if value is None:
        return "no number"
    unit = named(name)[1]
    sign = "−" if value < 0 else ""
    return f"{sign}{_digits(abs(value))}{'' if unit == '°' else ' '}{unit}".rstrip()


def _digits(value: float) -> str:
    """With a power of ten where nobody would count the zeros."""
    if not 0 < value < _TINY:
        return digits(value, 4)
    most, _, power = f"{value:.1e}".partition("e")
    return f"{most.removesuffix('.0')} × 10{str(int(power)).translate(_RAISED)}"
