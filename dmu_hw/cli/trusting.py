"""The last step of a training, and of an adaptation: a bundle learns how far its images are to be believed; and what is
told of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dmu_hw.bundle import Bundle
from dmu_hw.cli.output import Output
from dmu_hw.data import Float32Array

if TYPE_CHECKING:
    from dmu_hw.images import Images
    from dmu_hw.lesson import Lesson


def taught(
    bundle: Bundle, lesson: Lesson, images: Images | None, delivered: Float32Array | None, device: str, output: Output
) -> Bundle:
    """What comes of it is told. Without `images` those of the lesson are loaded; of synthetic specimens more are drawn
    in any case."""
    import torch  # noqa: PLC0415 - takes a while to load

    from dmu_hw.grounds import images_for  # noqa: PLC0415
    from dmu_hw.ranks import device_named  # noqa: PLC0415
    from dmu_hw.trust import trusted, without_trust  # noqa: PLC0415

    if not lesson.trust.fields:
        return Bundle(bundle.header, bundle.patterns, without_trust(bundle.weights))
    output.say("learning when not to believe its images")
    if images is None or lesson.data.kind == "scenes":
        images = images_for(lesson, bundle)
    light = None if delivered is None else torch.from_numpy(delivered)
    made = trusted(bundle, lesson, images, light, device_named(device))
    for line in told(made.header.metrics):
        output.say(line)
    return made


def told(figures: dict[str, float]) -> list[str]:
    """What a bundle knows of its errors, in words."""
    lines = []
    if "doubt_false_alarms" in figures:
        lines.append(
            f"doubted are {figures['doubt_false_alarms']:.1%} of good fields; a fault can be seen in images from "
            f"{figures['doubt_focus_from_um']:.2g} µm out of focus, or {figures['doubt_shift_from_um']:.2g} µm beside"
        )
    if "spread_within_1" in figures:
        within = (f"{figures[f'spread_within_{count}']:.1%} within {count}" for count in (1, 2))
        lines.append(f"of pixels, {' and '.join(within)} of the spread that is told")
    return lines


def doubt_lines(doubts: dict[str, Any] | None) -> Iterator[str]:
    """Images of a run that are not to be believed; of several channels, each by its name."""
    several = doubts is not None and "judged" not in doubts
    for name, found in (doubts if doubts is not None and several else {"": doubts}).items():
        if found is not None and found["doubted"]:
            why = "; ".join(f"{count:,} × {reason}" for reason, count in found["reasons"].items())
            mark = f"{name}: " if name else ""
            yield f"not to be believed: {mark}{found['doubted']:,} of {found['judged']:,} images ({why})"
