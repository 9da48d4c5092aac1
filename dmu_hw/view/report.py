"""report.html of a run: what was asked for, what came, how good it is, what it cost, and every setting."""

from __future__ import annotations

import json
import platform
from collections import Counter, defaultdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

from safetensors import safe_open

from dmu_hw import __version__
from dmu_hw.files import write_whole
from dmu_hw.journal import read_journal
from dmu_hw.plan import Plan
from dmu_hw.runfolder import RunFolder
from dmu_hw.view import verdict
from dmu_hw.view.amounts import decibels, digits, duration, plural, size
from dmu_hw.view.gallery import fields_section, patterns_section
from dmu_hw.view.page import Html, Section, page, pairs, paragraph, table, tag, verbatim
from dmu_hw.view.samples import Sampler, chosen

_MAX_REASONS = 20
_MAX_PLACES = 6
_METRICS = {
    verdict.RECONSTRUCTION: "Reconstruction",
    verdict.BICUBIC: "Plain camera, bicubic",
    verdict.SAME_INVERSE: "Plain camera, same inverse",
}
_SIGNS = {True: "✓", False: "✗", None: "○"}


def write_report(run: RunFolder, plan: Plan, facts: dict[str, Any]) -> None:
    """One file that stands for itself; `facts` are those of the manifest."""
    settings = json.loads(run.settings.read_bytes())
    whole = facts["complete"]
    sections = [
        _verdict_section(run, facts),
        fields_section(plan, Sampler(run, plan), chosen(plan), facts["actual"]["dose_mj_cm2"]),
        patterns_section(plan),
        _price_section(run, plan, facts),
        _settings_section(run, plan, settings),
    ]
    if not whole:
        sections.insert(0, _gaps_section(run, plan, facts))
    title = f"{plan.protocol.name}, {_date(facts):%Y-%m-%d %H:%M}" + ("" if whole else " (INCOMPLETE)")
    top = [
        paragraph(f"{_date(facts):%A, %d %B %Y, %H:%M:%S %Z} · rig ", tag("b", settings["rig"]["name"])),
        tag("h1", plan.protocol.name),
        _state(facts),
        pairs(_glance(plan, facts), class_="tiles"),
    ]
    text = page(title, top, sections)
    write_whole(run.report, text.encode())


def _date(facts: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(facts["began"])


# ---------------------------------------------------------------- at a glance


def _state(facts: dict[str, Any]) -> Html:
    if facts["complete"]:
        return paragraph("Complete: every frame came and was saved.", class_="state good")
    counts = facts["counts"]
    lost = counts["expected"] - counts["saved"]
    return paragraph(
        tag("strong", "INCOMPLETE"), f": {lost:,} of {counts['expected']:,} frames are missing.", class_="state bad"
    )


def _glance(plan: Plan, facts: dict[str, Any]) -> list[tuple[object, object]]:
    counts, optics = facts["counts"], plan.optics
    rows, columns = plan.protocol.field_px
    take = plan.takes["patterns"]
    field_um = f"{digits(columns * optics.object_pixel_um)} × {digits(rows * optics.object_pixel_um)}"
    return [
        ("frames saved", f"{counts['saved']:,} of {counts['expected']:,}"),
        ("compression", f"{plan.price.compression:g}×"),
        ("patterns", f"{plan.stack.count} {plan.stack.name}"),
        ("exposure of each", duration(take.mode.exposure_ms / 1e3)),
        ("dose per field", f"{_doses(facts)} mJ/cm²"),
        (
            f"fields of {field_um} µm",
            f"{plan.positions:,}" + _times(plan.planes, "planes") + _times(plan.times, "times"),
        ),
    ]


def _times(count: int, noun: str) -> str:
    return f" × {count:,} {noun}" if count > 1 else ""


def _doses(facts: dict[str, Any]) -> str:
    doses = facts["actual"]["dose_mj_cm2"].values()
    low, high = digits(min(doses, default=0.0)), digits(max(doses, default=0.0))
    return low if low == high else f"{low} to {high}"


# ---------------------------------------------------------------- what is missing


def _gaps_section(run: RunFolder, plan: Plan, facts: dict[str, Any]) -> Section:
    """Which frames did not come, and why."""
    counts: Counter[str] = Counter()
    places: defaultdict[str, list[str]] = defaultdict(list)
    for line in read_journal(run.journal):
        if line["kind"] == "missing":
            counts[line["reason"]] += 1
            if len(places[line["reason"]]) < _MAX_PLACES:
                places[line["reason"]].append(_place(plan, line["shot"], line["pattern"]))
    rows = [
        (reason, f"{count:,}", "; ".join(places[reason]) + (" …" if count > len(places[reason]) else ""))
        for reason, count in counts.most_common(_MAX_REASONS)
    ]
    if (others := len(counts) - len(rows)) > 0:
        rows.append(
            (f"{plural(others, 'other reason')}", f"{counts.total() - sum(counts[row[0]] for row in rows):,}", "")
        )
    retaken = facts["counts"]["retaken_bursts"]
    told = (
        [paragraph(f"{plural(retaken, 'damaged burst')} {'was' if retaken == 1 else 'were'} taken again.")]
        if retaken
        else []
    )
    body = table("Missing frames, as the journal has them", ("reason", "frames", "where"), rows, numbers=False)
    return Section("missing", "What is missing", (body, *told))


def _place(plan: Plan, index: int, pattern: int) -> str:
    shot = plan.shots[index]
    parts = [f"field {shot.position}"]
    if plan.times > 1:
        parts.append(f"time {shot.time}")
    if plan.planes > 1:
        parts.append(f"plane {shot.z}")
    parts.append(f"pattern {pattern}" if shot.role == "patterns" else f"{shot.role} reference")
    return ", ".join(parts)


# ---------------------------------------------------------------- how good it is


def _verdict_section(run: RunFolder, facts: dict[str, Any]) -> Section:
    metrics = facts["metrics"]
    judged = verdict.verdict(metrics, reconstructed=run.reconstruction.exists(), truth_known=run.truth.exists())
    items = (
        tag(
            "li",
            tag("span", _SIGNS[one.good], class_="sign", aria_hidden="true"),
            tag("span", one.text),
            class_=_mood(one.good),
        )
        for one in judged
    )
    said = tag("ul", *items, class_="verdict")
    if not metrics:
        return Section("verdict", "Verdict", (said,))
    how = (
        "PSNR against the simulated truth, from the mean squared error over all bursts whose truth was kept; "
        "the peak is the brightest dye of the model."
    )
    measured = tag("div", _metrics_table(metrics), paragraph(how, class_="note"))
    return Section("verdict", "Verdict", (tag("div", said, measured, class_="beside"),))


def _mood(good: bool | None) -> str:
    return {True: "good", False: "bad", None: "even"}[good]


def _metrics_table(metrics: dict[str, float]) -> Html:
    ours = metrics.get(verdict.RECONSTRUCTION)

    def against(name: str, value: float) -> str:
        return "" if ours is None or name == verdict.RECONSTRUCTION else f"{value - ours:+.1f} dB".replace("-", "−")

    rows = [(_METRICS.get(name, name), decibels(value), against(name, value)) for name, value in metrics.items()]
    return table("How near each image is to the truth", ("image", "PSNR", "difference"), rows)


# ---------------------------------------------------------------- what it cost


def _price_section(run: RunFolder, plan: Plan, facts: dict[str, Any]) -> Section:
    price, counts, actual = plan.price, facts["counts"], facts["actual"]
    used = sum(path.stat().st_size for path in run.files())
    rows = [
        ("time on the rig's clock", duration(price.time_s), duration(actual["time_s"])),
        ("light on", duration(price.light_on_s), duration(actual["light_on_s"])),
        ("dose per field", f"{digits(price.dose_per_field_mj_cm2)} mJ/cm²", f"{_doses(facts)} mJ/cm²"),
        ("frames", f"{price.frames:,}", f"{counts['saved']:,}"),
        ("bursts taken again", "0", f"{counts['retaken_bursts']:,}"),
        ("disk", f"{size(price.disk_bytes)} at most", size(used)),
        ("all in all", "–", duration(facts["wall_s"])),
    ]
    told = (
        "Disk: planned is what frames and copies take while they are checked, actual is what stays in the folder. "
        "All in all: from the start of the command to this page; computing, storing and reconstructing are in it."
    )
    costs = table("Planned against actual", ("", "planned", "actual"), rows)
    return Section("price", "Price", (costs, paragraph(told, class_="note")))


# ---------------------------------------------------------------- every setting


def _settings_section(run: RunFolder, plan: Plan, settings: dict[str, Any]) -> Section:
    hashes = [(what, settings[f"{what}_hash"]) for what in ("protocol", "rig", "bundle")] + [
        ("patterns", plan.stack.hash)
    ]
    rows = [("software", _software()), ("run folder", run.path.name)]
    rows += [(f"{what}, SHA-256", tag("code", value)) for what, value in hashes if value is not None]
    texts = [
        verbatim("protocol.yaml", run.protocol.read_text(encoding="utf-8")),
        verbatim("rig.yaml", run.rig.read_text(encoding="utf-8")),
        verbatim("settings.json: everything, with defaults", run.settings.read_text(encoding="utf-8")),
    ]
    if run.bundle.exists():
        texts.append(verbatim("bundle.dmu: its header", _bundle_header(run)))
    return Section("settings", "Settings", (pairs(rows), *texts))


def _software() -> str:
    others = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "zarr"))
    return (
        f"dmu-hw {__version__}, Python {platform.python_version()}, {others}, {platform.system()} {platform.machine()}"
    )


def _bundle_header(run: RunFolder) -> str:
    """Without the weights, which may be large."""
    with safe_open(run.bundle, framework="numpy") as file:
        return json.dumps(json.loads(file.metadata()["dmu"]), indent=1, ensure_ascii=False)
