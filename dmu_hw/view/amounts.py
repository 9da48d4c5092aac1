"""Numbers for people: a unit, and no more digits than mean something."""

from __future__ import annotations

import math
from collections.abc import Sequence


def digits(value: float, significant: int = 3) -> str:
    """27.639 → 27.6, 12345 → 12,345; never an exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_UNITS = {
    "mj_cm2": "mJ/cm²",
    "um2": "µm²",
    "um": "µm",
    "nm": "nm",
    "px": "px",
    "adu": "ADU",
    "e": "e⁻",
    "us": "µs",
    "ms": "ms",
    "s": "s",
    "mw": "mW",
    "hz": "Hz",
    "deg": "°",
    "percent": "%",
}


def named(figure: str) -> tuple[str, str]:
    """The name of a figure that ends with its unit, for people: `worst_error_px` → worst error, px;
    `scale_px_per_mirror` → scale, px/mirror."""
    most, per, least = figure.rpartition("_per_")
    label, unit = _split(most if per else figure)
    if per and unit:
        return label, f"{unit}/{_UNITS.get(least, least.replace('_', ' '))}"
    label, unit = _split(figure)
    return label, unit


def _split(figure: str) -> tuple[str, str]:
    unit = max((unit for unit in _UNITS if figure.endswith(f"_{unit}")), key=len, default="")
    label = figure.removesuffix(f"_{unit}") if unit else figure
    return label.replace("_", " "), _UNITS.get(unit, "")


def duration(seconds: float) -> str:
    """0.116 → 116 ms, 83 → 1 min 23 s."""
    if seconds < 1:
        return f"{digits(seconds * 1e3)} ms"
    if seconds < 60:
        return f"{digits(seconds)} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest_s:02} s"


def size(count: float) -> str:
    """Bytes."""
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_each:
            return f"{digits(count / bytes_each)} {unit}"
    return f"{count:.0f} bytes"


def decibels(value: float) -> str:
    return f"{value:.1f} dB"


def difference(value_db: float) -> str:
    """With its sign, if there is any."""
    text = f"{value_db:+.1f} dB".replace("-", "−")
    return "0.0 dB" if text[1:] == "0.0 dB" else text


def span(numbers: Sequence[int], most: int = 6) -> str:
    """0, 1, 2, 3 → 0 to 3; 0, 2 → 0, 2."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(str(number) for number in numbers[:most]) + (" …" if len(numbers) > most else "")


def plural(count: int, noun: str) -> str:
    """1 frame, 24 frames."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
