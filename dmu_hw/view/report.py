"""report.html of a run: what was asked for, what came, how good it is, what it cost, and every setting."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import safe_open

from dmu_hw import __version__
from dmu_hw.files import write_whole
from dmu_hw.plan import Plan, Take
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.amounts import digits, duration, plural, size
from dmu_hw.view.bleaching import bleaching_section
from dmu_hw.view.doubts import doubt_cautions, doubts_section
from dmu_hw.view.gallery import fields_section, patterns_section
from dmu_hw.view.gaps import gaps_section
from dmu_hw.view.objects import objects_section
from dmu_hw.view.page import Html, Section, join, page, pairs, paragraph, table, tag, verbatim
from dmu_hw.view.promptness import live_cautions, live_tiles
from dmu_hw.view.samples import Sampler, chosen
from dmu_hw.view.verdict import verdict, verdict_section
from dmu_hw.view.watching import drift_cautions, watching_section


def write_report(run: RunFolder, plan: Plan, facts: dict[str, Any]) -> None:
    """One file that stands for itself; `facts` are those of the manifest."""
    settings = json.loads(run.settings.read_bytes())
    whole = facts["complete"]
    sections = [
        *(
            section
            for name in plan.parts
            for section in _channel_sections(run, plan.of(name), _of_channel(facts, name))
        ),
        *([watching_section(facts["drift"])] if "drift" in facts else []),
        _price_section(run, plan, facts),
        _settings_section(run, plan, settings, facts),
    ]
    if not whole:
        sections.insert(0, gaps_section(run.journal, plan))
    title = f"{plan.protocol.name}, {_date(facts):%Y-%m-%d %H:%M}" + ("" if whole else " (INCOMPLETE)")
    top = [
        paragraph(f"{_date(facts):%A, %d %B %Y, %H:%M:%S %Z} · rig ", tag("b", settings["rig"]["name"])),
        tag("h1", plan.protocol.name),
        _state(facts),
        *_calibrated(facts),
        *(paragraph(tag("b", "Caution"), f": {caution}", class_="caution") for caution in _cautions(facts)),
        pairs(_glance(plan, facts), class_="tiles"),
    ]
    text = page(title, top, sections)
    write_whole(run.report, text.encode())


def _channel_sections(run: RunFolder, plan: Plan, facts: dict[str, Any]) -> list[Section]:
    """All that there is to be said and seen of one channel."""
    name, objects = plan.takes["patterns"].channel, facts.get("objects")
    sampler = Sampler(run, plan)
    judged = verdict(
        facts["metrics"],
        reconstructed="reconstruction" in sampler.expected,
        truth_known=run.truth.exists(),
        segmented=objects is not None,
    )
    sections = [
        verdict_section(judged, facts["metrics"], complete=facts["complete"]),
        *([objects_section(run, objects)] if objects is not None else []),
        *([doubts_section(run, plan, facts["doubts"])] if facts.get("doubts") is not None else []),
        fields_section(plan, sampler, chosen(plan), facts["actual"]["dose_mj_cm2"]),
        patterns_section(plan),
        *([bleaching_section(facts["bleaching"])] if "bleaching" in plan.takes else []),
    ]
    if not name:
        return sections
    return [replace(part, name=f"{part.name}-{name}", title=f"{part.title}: {name}") for part in sections]


def _of_channel(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """The facts of a run that are those of one channel."""
    if not name:
        return facts
    mark = f"{name}: "
    metrics = {key.removeprefix(mark): value for key, value in facts["metrics"].items() if key.startswith(mark)}
    actual = facts["actual"] | {"dose_mj_cm2": facts["actual"]["channel_dose_mj_cm2"].get(name, {})}
    bleaching, doubts = ((facts.get(what) or {}).get(name) for what in ("bleaching", "doubts"))
    return facts | {"metrics": metrics, "actual": actual, "bleaching": bleaching, "doubts": doubts}


def _date(facts: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(facts["began"])


# ---------------------------------------------------------------- at a glance


def _state(facts: dict[str, Any]) -> Html:
    if facts["complete"]:
        return paragraph("Complete: every frame came and was saved.", class_="state good")
    counts = facts["counts"]
    lost = counts["expected"] - counts["saved"]
    said = f": {lost:,} of {counts['expected']:,} frames are missing."
    if facts.get("aborted"):
        said += f" The run was aborted: {facts['aborted']}."
    return paragraph(tag("strong", "INCOMPLETE"), said, class_="state bad")


def _calibrated(facts: dict[str, Any]) -> list[Html]:
    """Which results the numbers rest on; nothing where all is what the rig's file says."""
    grounds = facts.get("calibration") or {}
    told = [f"{name} of {datetime.fromisoformat(ground['at']):%Y-%m-%d}" for name, ground in grounds.items()]
    return [paragraph("Calibrated by: ", ", ".join(told), ".")] if told else []


def _cautions(facts: dict[str, Any]) -> list[str]:
    """What does not stand against a run, but should be known of it."""
    cautions = list(facts["cautions"])
    if unproven := facts["counts"]["unproven_bursts"]:
        what = "not proven to have the right patterns: this DMD cannot tell what it showed"
        cautions.append(f"{plural(unproven, 'burst')} {what}. Only the count and the times of the frames speak for it.")
    return [
        *cautions,
        *doubt_cautions(facts.get("doubts")),
        *drift_cautions(facts.get("drift")),
        *live_cautions(facts),
        *_mishaps(facts),
    ]


def _mishaps(facts: dict[str, Any]) -> list[str]:
    """Time points that began late, and lives that the run was cut into."""
    told = []
    late, resumed = facts.get("late", {"bursts": 0}), facts.get("resumed", ())
    if late["bursts"]:
        told.append(f"{plural(late['bursts'], 'time point')} began late, the worst by {duration(late['worst_s'])}.")
    if resumed:
        lost = facts["counts"]["unsaved_bursts"]
        again = (
            f" {plural(lost, 'burst')} had light and were lost: taken again, and their dose counts twice."
            if lost
            else ""
        )
        told.append(f"Cut and resumed {plural(len(resumed), 'time')}, last on {resumed[-1]}.{again}")
    return told


def _glance(plan: Plan, facts: dict[str, Any]) -> list[tuple[object, object]]:
    counts, pixel_um = facts["counts"], plan.object_pixel_um
    rows, columns = plan.protocol.field_px
    takes = [part.takes["patterns"] for part in plan.parts.values()]
    objects = facts.get("objects")
    field_um = f"{digits(columns * pixel_um)} × {digits(rows * pixel_um)}"
    return [
        ("frames saved", f"{counts['saved']:,} of {counts['expected']:,}"),
        ("compression", f"{digits(plan.price.compression)}×" if len(takes) > 1 else f"{plan.price.compression:g}×"),
        ("patterns", _each(takes, lambda take: f"{take.stack.count} {take.stack.name}")),
        ("exposure of each", _each(takes, lambda take: duration(take.mode.exposure_ms / 1e3))),
        ("dose per field", f"{_doses(facts)} mJ/cm²"),
        (f"fields of {field_um} µm", f"{plan.positions:,}{_times(plan.planes, 'planes')}{_times(plan.times, 'times')}"),
        *([("objects per field", _mean(objects["mean"]))] if objects is not None else []),
        *live_tiles(facts.get("live")),
    ]


def _each(takes: list[Take], told: Callable[[Take], str]) -> str:
    """Of each channel, by its name if it has one."""
    return ", ".join(f"{take.channel}: {told(take)}" if take.channel else told(take) for take in takes)


def _mean(value: float | None) -> str:
    return "–" if value is None else digits(value)


def _times(count: int, noun: str) -> str:
    return f" × {count:,} {noun}" if count > 1 else ""


def _doses(facts: dict[str, Any]) -> str:
    return _range(facts["actual"]["dose_mj_cm2"])


def _range(fields: dict[Any, float]) -> str:
    """From the least to the most that a field took."""
    low, high = digits(min(fields.values(), default=0.0)), digits(max(fields.values(), default=0.0))
    return low if low == high else f"{low} to {high}"


# ---------------------------------------------------------------- what it cost


def _price_section(run: RunFolder, plan: Plan, facts: dict[str, Any]) -> Section:
    price, counts, actual = plan.price, facts["counts"], facts["actual"]
    used = sum(path.stat().st_size for path in run.files())
    rows = [
        ("time on the rig's clock", duration(price.time_s), duration(actual["time_s"])),
        ("light on", duration(price.light_on_s), duration(actual["light_on_s"])),
        ("dose per field", f"{digits(price.dose_per_field_mj_cm2)} mJ/cm²", f"{_doses(facts)} mJ/cm²"),
        *_channel_doses(plan, actual),
        ("frames", f"{price.frames:,}", f"{counts['saved']:,}"),
        ("bursts taken again", "0", f"{counts['retaken_bursts']:,}"),
        ("disk", size(price.disk_bytes), size(used)),
        ("all in all", "–", duration(facts["wall_s"])),
    ]
    if photons := actual.get("photons_per_um2"):
        rows.insert(3 + len(price.channel_dose_mj_cm2), ("photons per µm² of a field", "–", _range(photons)))
    if hours := facts.get("hours"):
        rows.append(
            ("lamp and mirrors of this rig so far", "–", f"{digits(hours['lamp_h'])} h, {digits(hours['mirrors_h'])} h")
        )
    told = (
        "Disk: planned are the images and twice the frames, which are copied and checked before the first copy goes; "
        "actual is all that stays in the folder, bundle and simulated truth too. "
        "All in all: from the start of the command to this page; computing, storing and reconstructing are in it."
    )
    costs = table("Planned against actual", ("", "planned", "actual"), rows)
    return Section("price", "Price", (costs, paragraph(told, class_="note")))


def _channel_doses(plan: Plan, actual: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What each channel has of the dose of a field."""
    for name, dose in plan.price.channel_dose_mj_cm2.items():
        given = _range(actual["channel_dose_mj_cm2"].get(name, {}))
        yield f"of it {name}", f"{digits(dose)} mJ/cm²", f"{given} mJ/cm²"


# ---------------------------------------------------------------- every setting


def _settings_section(run: RunFolder, plan: Plan, settings: dict[str, Any], facts: dict[str, Any]) -> Section:
    hashes = {what: settings[f"{what}_hash"] for what in ("protocol", "rig")}
    bundles = settings["bundle_hash"]
    for name, part in plan.parts.items():
        mark = f"{name} " if name else ""
        hashes |= {f"{mark}bundle": bundles[name] if name else bundles, f"{mark}patterns": part.stack.hash}
    rows: list[tuple[str, object]] = [("software", _software()), ("run folder", run.path.name), *_channel_rows(plan)]
    rows += [(f"{what}, SHA-256", tag("code", value)) for what, value in hashes.items() if value is not None]
    rows += list(_grounds(facts))
    texts = [
        verbatim("protocol.yaml", run.protocol.read_text(encoding="utf-8")),
        verbatim("rig.yaml", run.rig.read_text(encoding="utf-8")),
        *(
            verbatim("calibration.yaml: what was believed", path.read_text(encoding="utf-8"))
            for path in (run.calibration,)
            if path.exists()
        ),
        verbatim("settings.json: everything, with defaults", run.settings.read_text(encoding="utf-8")),
    ]
    bundle_files = (run.bundle_of(name) for name in plan.parts)
    texts += [verbatim(f"{path.name}: its header", _bundle_header(path)) for path in bundle_files if path.exists()]
    return Section("settings", "Settings", (pairs(rows), *texts))


def _grounds(facts: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """The results that were believed, by their hashes."""
    for name, ground in (facts.get("calibration") or {}).items():
        at, until = (datetime.fromisoformat(ground[when]).astimezone() for when in ("at", "good_until"))
        warned = ", with warnings" if ground["verdict"] == "warn" else ""
        told = f" of {at:%Y-%m-%d %H:%M}{warned}, good until {until:%Y-%m-%d %H:%M}"
        yield f"calibrated by {name}", join((tag("code", ground["hash"]), told))


def _channel_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """Light and filters of each channel of the rig, by its name."""
    for part in plan.parts.values():
        channel = part.channel
        if channel.name:
            stands = "".join(f", {name} at {position}" for name, position in channel.filters.items())
            yield f"channel {channel.name}", f"{channel.light}{stands}"


def _software() -> str:
    parts = [f"dmu-hw {__version__}", f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("numpy", "torch", "zarr")]
    return ", ".join((*parts, f"{platform.system()} {platform.machine()}"))


def _bundle_header(path: Path) -> str:
    """Without the weights, which may be large."""
    with safe_open(path, framework="numpy") as file:
        return json.dumps(json.loads(file.metadata()["dmu"]), indent=1, ensure_ascii=False)
