"""Which images of a run are not to be believed, and why, in its report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dmu_hw.doubtful import Burst, Doubtful
from dmu_hw.omezarr import Store
from dmu_hw.plan import Plan
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.amounts import digits, plural
from dmu_hw.view.canvas import BLUE, LINE, TEXT, grid_of, svg
from dmu_hw.view.page import Html, Section, paragraph, table

MOST = 50
_BAD = "#d55e00"


def doubts_section(run: RunFolder, plan: Plan, doubts: dict[str, Any]) -> Section:
    """A map of the fields, and every image that is doubted; `doubts` are those of the manifest."""
    channel = Store(run.reconstruction).channel(plan.takes["patterns"].channel)
    bursts = list(Doubtful(run.reconstruction).bursts(channel))
    doubted = sorted((burst for burst in bursts if burst.reasons), key=lambda burst: -burst.score)
    told = f"{_share(doubts)}. An image is judged by its frames: how well it explains them, and how like those of good "
    told += "fields of the training they are. A score of 1 is what these stay below."
    if doubts["residual"] is not None:
        median, worst = (digits(doubts["residual"][which]) for which in ("median", "worst"))
        told += " The residual is what an image leaves of its frames, in units of what noise leaves: "
        told += f"{median} in the middle, {worst} at the worst."
    inside = [paragraph(told), _map(plan, bursts)]
    if doubted:
        more = f", the worst {MOST} of {len(doubted):,}" if len(doubted) > MOST else ""
        columns = ("image", "score", "residual", "why")
        inside.append(table(f"Not to be believed{more}", columns, _rows(plan, doubted[:MOST]), numbers=False))
    where = "In reconstruction.ome.zarr/FIELD: doubt (scores), residual, reasons; spread: how far pixels may be off."
    return Section("doubt", "What not to believe", (*inside, paragraph(where, class_="note")))


def doubt_cautions(doubts: dict[str, Any] | None) -> Iterator[str]:
    """At the top of the page, where any image is doubted; of several channels, each by its name."""
    several = doubts is not None and "judged" not in doubts
    for name, found in (doubts if doubts is not None and several else {"": doubts}).items():
        if found is not None and found["doubted"]:
            mark = f"{name}: " if name else ""
            why = "; ".join(f"{reason} ({count:,})" for reason, count in found["reasons"].items())
            yield f"{mark}{_share(found)}: {why}."


def _share(doubts: dict[str, Any]) -> str:
    verb = "is" if doubts["doubted"] == 1 else "are"
    return f"{doubts['doubted']:,} of {plural(doubts['judged'], 'image')} {verb} not to be believed"


def _rows(plan: Plan, doubted: Iterable[Burst]) -> Iterator[Sequence[object]]:
    for burst in doubted:
        residual = digits(burst.residual) if math.isfinite(burst.residual) else "–"
        yield _named(plan, burst), digits(burst.score), residual, "; ".join(burst.reasons)


def _named(plan: Plan, burst: Burst) -> str:
    field, time, plane = burst.place
    name = plan.shots.places[field].name
    parts = [f"field {field}" + (f": {name}" if name else "")]
    parts += [f"time {time}"] if plan.times > 1 else []
    parts += [f"plane {plane}"] if plan.planes > 1 else []
    return ", ".join(parts)


def _map(plan: Plan, bursts: Sequence[Burst]) -> Html:
    """Fields where they lie on the stage, doubted if any image of them is; beside it, the scores of all images."""
    doubted: dict[int, bool] = {}
    for burst in bursts:
        doubted[burst.place[0]] = doubted.get(burst.place[0], False) or bool(burst.reasons)
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415 - heavy

    figure, (stage, course) = grid_of(9.0, 3.2, 1, 2)
    for bad, marker, colour, label in ((False, "o", BLUE, "believed"), (True, "X", _BAD, "doubted")):
        some = [plan.shots.places[field] for field, found in doubted.items() if found == bad]
        x, y = [place.x_um or 0.0 for place in some], [place.y_um or 0.0 for place in some]
        style: dict[str, Any] = {"color": colour, "markersize": 8 if bad else 6, "linestyle": "none"}
        stage.plot(x, y, marker, **style)
        scores = [(number, burst.score) for number, burst in enumerate(bursts) if bool(burst.reasons) == bad]
        if scores:
            course.plot(*zip(*scores, strict=True), marker, **style, label=label)
    stage.set_aspect("equal", adjustable="datalim")
    stage.invert_yaxis()
    stage.set_xlabel("x / µm")
    stage.set_ylabel("y / µm")
    course.axhline(1, color=TEXT, linewidth=1.0, linestyle="--")
    course.set_yscale("log")
    course.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    course.yaxis.set_major_formatter("{x:g}")
    course.yaxis.set_minor_formatter(NullFormatter())
    course.set_xlabel("image")
    course.set_ylabel("score; 1 is the limit")
    course.legend(frameon=False, labelcolor=TEXT, loc="best")
    for axes in (stage, course):
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.margins(0.12)
    return svg(figure, "Fields that are doubted, and the scores of all images")
