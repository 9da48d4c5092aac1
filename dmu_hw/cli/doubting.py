"""`dmu doubt`: teach a bundle when its images are not to be believed, and how far their pixels may be off."""

from __future__ import annotations

from pathlib import Path

from dmu_hw.cli.adapt import course_of_bundle
from dmu_hw.cli.output import DONE, Output
from dmu_hw.cli.session import load_bundle
from dmu_hw.cli.trusting import taught
from dmu_hw.errors import InputError, Problem


def doubt_bundle(path: Path, protocol: Path | None, out: Path | None, device: str, output: Output) -> None:
    """Inverse and patterns stay as they are, bit for bit; the old file stays unless it is named again."""
    bundle = load_bundle(path)
    target = out or path.with_name(f"{path.stem}-doubting{path.suffix}")
    if target.exists() and target.resolve() != path.resolve():
        raise InputError([Problem(str(target), "exists already: name another file by --out")])
    lesson = course_of_bundle(bundle, path, protocol, bundle.header.optics).lesson
    if not lesson.trust.fields:
        what = "its training has trust.fields: 0, so there is nothing to learn"
        raise InputError([Problem(str(protocol or path), what)])
    made = taught(bundle, lesson, None, None, device, output)
    made.save(target)
    output.finish(DONE, bundle=str(target), hash=made.hash, metrics=made.header.metrics)
