"""The tables of a comparison: who came how far, what else was tried, what budget each arm had."""

from __future__ import annotations

from dmu_hw.compare import NAMES, Result, Standing
from dmu_hw.tally import Tally
from dmu_hw.view.amounts import digits, duration
from dmu_hw.view.page import Html, table, tag
from dmu_hw.view.plots import Mark
from dmu_hw.view.powers import Power

COLUMNS = {
    "mse": "MSE",
    "psnr_db": "PSNR / dB",
    "ssim": "SSIM",
    "ap50": "AP@0.5",
    "dice": "Dice",
    "count_error": "count error",
    "ridge_mse": "ridge",
}


def limit_told(one: Standing) -> str | None:
    """How much there was to gain, and how much of it was gained; None where there is no limit to compare with."""
    if one.left is None:
        return None
    gain = f"{100 * abs(one.left):.1f} %"
    if one.closed is None:
        return f"The limit is no better than the best fixed set ({gain} behind): this training found nothing to gain."
    part = f"{100 * one.closed:.0f} %".replace("-", "−")
    little = "only " if one.left <= 0.02 else ""
    return f"The limit is {little}{gain} better than the best fixed set; learned patterns cover {part} of that."


def classical_told(tally: Tally, one: Standing) -> str | None:
    """How far training went beyond an estimate without any, on the frames of the learned patterns."""
    learned = one.of("learned")
    found = None if learned is None else tally.reference(learned)
    if learned is None or found is None or not learned.ridge_mse or one.metric.name != "mse":
        return None
    classical, trained = found["mse"] / found["ridge_mse"], learned.mean / learned.ridge_mse
    told = (
        f"total variation leaves {100 * classical:.0f} % of the ridge's error, the trained model {100 * trained:.0f} %"
    )
    more = ": more training, or a larger model, would do better." if classical < trained else "."
    return f"From the frames of the learned patterns {told}{more}"


def power_of(one: Standing) -> Power:
    """The unit of all errors in a table."""
    return Power.of(result.mean for result in one.best) if one.metric.name == "mse" else Power(0)


def ranks(tally: Tally, one: Standing) -> Html:
    metric = one.metric.name
    others = [name for name in COLUMNS if name != metric and any(name in result.also for result in one.best)]
    power = power_of(one)
    ridges = Power.of(result.ridge_mse for result in one.best if result.ridge_mse)
    errors = power if metric == "mse" else ridges
    units = {metric: power, "ridge_mse": errors}
    with_tv = any(tally.reference(result) for result in one.best)
    columns = ["arm", "T", "d", power.named(COLUMNS[metric]), "to best fixed"]
    columns += [units.get(name, _PLAIN).named(COLUMNS[name]) for name in others]
    columns += [errors.named("TV (ridge)")] if with_tv else []
    columns += ["under light", "dose"]
    rows = [
        [
            *_rank(one, result, power),
            *(_also(result, other, units.get(other, _PLAIN)) for other in others),
            *([_varied(tally, result, errors)] if with_tv else []),
            duration(result.light_ms / 1e3),
            duration(tally.dose_ms(result) / 1e3),
        ]
        for result in one.best
    ]
    caption = "Test split, best first. "
    if tally.contest.seeds > 1:
        caption += "±: standard deviation over seeds. "
    caption += "Ridge: error of the best linear estimate from the same frames. "
    if with_tv:
        caption += "TV: that of total variation, on the first few images (and the ridge's there). "
    caption += "Dose: as of full light for so long on the mean object pixel. Limit: no mirror can show it."
    return table(caption, columns, rows)


_PLAIN = Power(0)


def _rank(one: Standing, result: Result, power: Power) -> list[object]:
    name = tag("i", "limit") if result.arm == "limit" else _name(result)
    gain = None if one.rival is None or result is one.rival else one.gain(result, one.rival)
    ahead = "–" if gain is None else f"{100 * gain:+.1f} %".replace("-", "−")
    return [name, result.choice.count, result.choice.camera_pixel, tag("b", scored(result, power)), ahead]


def _also(result: Result, name: str, power: Power) -> str:
    return digits(power.scaled(result.also[name])) if name in result.also else "–"


def _varied(tally: Tally, result: Result, power: Power) -> str:
    found = tally.reference(result)
    if found is None:
        return "–"
    return f"{digits(power.scaled(found['mse']))} ({digits(power.scaled(found['ridge_mse']))})"


def scored(result: Result, power: Power) -> str:
    """With its spread, if any is known."""
    return power.shown(result.mean, result.spread if len(result.values) > 1 else None)


def _name(result: Result) -> object:
    name = NAMES[result.arm].removeprefix("the ")
    return tag("b", name) if result.arm == "learned" else name


def marks(tally: Tally, one: Standing) -> list[Mark]:
    """Classical estimates, where arms are ranked by the same error."""
    if one.metric.name != "mse" or "ridge" not in tally.contest.references:
        return []
    return [Mark("ridge on the same frames", "D", tuple(result.ridge_mse for result in one.best))]


def choices(one: Standing) -> Html:
    """All that arms might have chosen."""
    power = power_of(one)
    score = power.named(COLUMNS[one.metric.name])
    columns = ("arm", "T", "d", f"validation: {score}", f"test: {score}", "")
    rows = [
        (
            _name(result) if result.arm != "limit" else "limit",
            result.choice.count,
            result.choice.camera_pixel,
            power.shown(result.val),
            scored(result, power),
            "chosen" if result in one.best else "",
        )
        for result in sorted(one.all, key=lambda result: (result.arm, result.choice.count))
    ]
    told = f"Every arm with every (T, d): {len(one.all)} tried, the best of each on the validation split chosen"
    return tag("details", tag("summary", told), table("Chosen by validation, judged by test.", columns, rows))


def budgets(tally: Tally) -> Html:
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
