"""What the numbers of a run say, in plain words and no better than they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dmu_hw.view.amounts import decibels, difference
from dmu_hw.view.page import Html, Section, paragraph, table, tag

RECONSTRUCTION = "PSNR reconstruction / dB"
BICUBIC = "PSNR plain camera, bicubic / dB"
SAME_INVERSE = "PSNR plain camera, same inverse / dB"
DICE, FOUND, MISCOUNTED = "Dice", "AP@0.5", "count error"
_NAMES = {
    RECONSTRUCTION: "Reconstruction",
    BICUBIC: "Plain camera, bicubic",
    SAME_INVERSE: "Plain camera, same inverse",
}
_WORTHWHILE_DB = 1.0
_SIGNS = {True: ("✓", "good"), False: ("✗", "bad"), None: ("○", "even")}


@dataclass(frozen=True)
class Judgement:
    """One sentence, and whether it speaks for the patterns; None: neither."""

    good: bool | None
    text: str


def verdict(
    metrics: Mapping[str, float], *, reconstructed: bool, truth_known: bool, segmented: bool = False
) -> tuple[Judgement, ...]:
    """Never empty: what cannot be judged is said as well."""
    if not reconstructed:
        return (
            Judgement(None, "The frames were recorded only: nothing was reconstructed, so there is nothing to judge."),
        )
    if not truth_known:
        what = "the objects that were found are" if segmented else "the reconstruction is"
        return (Judgement(None, f"Nobody knows the truth of a real specimen: {what} shown, not judged."),)
    if segmented:
        return (_objects(metrics),)
    ours = metrics.get(RECONSTRUCTION)
    if ours is None:
        return (
            Judgement(False, "No burst of which the truth is known is complete, so no reconstruction can be judged."),
        )
    judged = tuple(_against_plain(ours, metrics))
    none_db = f"The reconstruction reaches {decibels(ours)}; no plain camera's frame was taken to compare it with."
    return judged or (Judgement(None, none_db),)


def _objects(metrics: Mapping[str, float]) -> Judgement:
    if FOUND not in metrics:
        return Judgement(False, "No burst of which the truth is known is complete, so the objects cannot be judged.")
    return Judgement(
        None,
        f"The objects share {metrics[DICE]:.0%} of their area with the true ones (Dice); of all objects, "
        f"found or true, {metrics[FOUND]:.0%} are found where they are (AP@0.5); "
        f"their number is {metrics[MISCOUNTED]:.0%} off in a field on average.",
    )


def _against_plain(ours: float, metrics: Mapping[str, float]) -> Iterator[Judgement]:
    if BICUBIC in metrics:
        yield _against_bicubic(ours, metrics[BICUBIC])
    if SAME_INVERSE in metrics:
        yield _against_same_inverse(ours, metrics[SAME_INVERSE])
    elif BICUBIC in metrics:
        yield Judgement(
            None,
            "Enlarging knows nothing of the specimen, and the network does: how far a plain camera comes with a "
            "network of its own, trained as long, is not seen here. `dmu compare` tells.",
        )


def _against_bicubic(ours: float, theirs: float) -> Judgement:
    what = "the plain camera's frame of the same compression and dose, enlarged bicubically"
    both = f"({decibels(ours)} against {decibels(theirs)})"
    gain = round(ours - theirs, 1)
    if gain >= _WORTHWHILE_DB:
        return Judgement(True, f"The reconstruction beats {what}, by {decibels(gain)} {both}.")
    if gain > 0:
        return Judgement(False, f"The reconstruction beats {what}, by only {decibels(gain)} {both}: less than 1 dB.")
    if gain == 0:
        return Judgement(False, f"The reconstruction is no better than {what} {both}.")
    return Judgement(False, f"The reconstruction is worse than {what}, by {decibels(-gain)} {both}.")


def _against_same_inverse(ours: float, theirs: float) -> Judgement:
    what = f"the same inverse on the plain camera's frame gives {decibels(theirs)}"
    gain = round(ours - theirs, 1)
    if gain <= 0:
        more = "just as much" if gain == 0 else f"{decibels(-gain)} more"
        return Judgement(False, f"A plain camera is as good here: {what}, {more}.")
    if gain < _WORTHWHILE_DB:
        return Judgement(None, f"The patterns gain little: {what}, only {decibels(gain)} less.")
    return Judgement(True, f"The patterns earn their place: {what}, {decibels(gain)} less.")


def verdict_section(judged: Iterable[Judgement], metrics: Mapping[str, float], *, complete: bool) -> Section:
    """The sentences, and the numbers that they are made from."""
    said = tag("ul", *map(_item, judged), class_="verdict")
    if not metrics:
        return Section("verdict", "Verdict", (said,))
    if FOUND in metrics:
        how = "Against the simulated truth, means over all bursts whose truth was kept."
        measured = tag("div", _objects_table(metrics), paragraph(how + _left_out(complete=complete), class_="note"))
        return Section("verdict", "Verdict", (tag("div", said, measured, class_="beside"),))
    how = (
        "PSNR against the simulated truth, from the mean squared error over all bursts whose truth was kept; "
        "the peak is the brightest dye of the model."
    )
    measured = tag("div", _metrics_table(metrics), paragraph(how + _left_out(complete=complete), class_="note"))
    return Section("verdict", "Verdict", (tag("div", said, measured, class_="beside"),))


def _left_out(*, complete: bool) -> str:
    return "" if complete else " Bursts with missing frames are left out."


def _item(one: Judgement) -> Html:
    sign, mood = _SIGNS[one.good]
    return tag("li", tag("span", sign, class_="sign", aria_hidden="true"), tag("span", one.text), class_=mood)


def _metrics_table(metrics: Mapping[str, float]) -> Html:
    ours = metrics.get(RECONSTRUCTION)
    rows = [
        (
            _NAMES.get(name, name),
            decibels(value),
            "" if ours is None or name == RECONSTRUCTION else difference(value - ours),
        )
        for name, value in metrics.items()
    ]
    return table("How near each image is to the truth", ("image", "PSNR", "difference"), rows)


def _objects_table(metrics: Mapping[str, float]) -> Html:
    rows = [(name, f"{metrics[name]:.3f}") for name in (DICE, FOUND, MISCOUNTED)]
    return table("How near the objects are to the true ones", ("score", "mean"), rows)
