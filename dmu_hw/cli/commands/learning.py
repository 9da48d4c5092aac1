"""Commands that measure, learn and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmu_hw.cli.output import Output
from dmu_hw.cli.words import DeviceOption, Json
from dmu_hw.errors import InputError

app = typer.Typer()


@app.command()
def calibrate(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="Such as calibration/daily.yaml; not needed with --again.")
    ] = None,
    *,
    rig: Annotated[
        Path | None, typer.Option("--rig", metavar="RIG", help="A rig YAML to use instead of the recipe's.")
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option("--channel", metavar="C", help="Only this channel; may be given several times.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ROUTINE", help="Only this one; may be given several times.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The sample lies there: do not ask for it.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the page's folder goes; runs by default.")
    ] = None,
    again: Annotated[
        Path | None, typer.Option("--again", metavar="RESULT", help="Fit a result's evidence again; nothing is lit.")
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="With --again: keep what was found, as a new result.")] = False,
    json: Json = False,
) -> None:
    """Measure the instrument; fit, judge and store what was found.

    A sample is asked for before the light goes on. Runs believe the results that their rig YAML names. Exit status 3:
    something failed, or was not tried because of that.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.calibrate import Wish, calibrate_rig  # noqa: PLC0415

        if again is not None:
            from dmu_hw.cli.again import fit_result  # noqa: PLC0415

            if rig or channel or only or yes:
                raise InputError(
                    "--again: fits what was measured; --rig, --channel, --only and --yes do not go with it"
                )
            fit_result(again, recipe, output, out=out, keep=store)
        if store:
            raise InputError("--store: goes with --again; what is measured is stored in any case")
        if recipe is None:
            raise InputError("RECIPE is missing; give one, such as calibration/daily.yaml")
        wish = Wish(rig, tuple(channel or ()), tuple(only or ()), yes=yes, out=out or Path("runs"))
        calibrate_rig(recipe, wish, output)


@app.command()
def train(
    protocol: Annotated[Path, typer.Argument(metavar="PROTOCOL", help="Such as protocols/train-simulated.yaml.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the folder TIME-NAME goes.")] = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="FOLDER", help="Go on with a training that was cut.")
    ] = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Learn patterns and their inverse; leave a bundle.

    A checkpoint and a line of the log are kept at each validation. Under torchrun all its processes share each batch.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.learn import train_lesson  # noqa: PLC0415

        train_lesson(protocol, out, resume, device, output)


@app.command()
def adapt(  # noqa: PLR0917 - options have names
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, such as protocols/bundles/nuclei.dmu.")],
    rig: Annotated[Path, typer.Option("--rig", metavar="RIG", help="The instrument, with what was measured of it.")],
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help="Which channel, where the rig has several.")
    ] = None,
    protocol: Annotated[
        Path | None,
        typer.Option(
            "--protocol", metavar="TRAIN", help="What it was trained by, where the bundle itself does not say so."
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option("--pairs", metavar="RUN", help="A run with full references to learn from; may be given often."),
    ] = None,
    updates: Annotated[int, typer.Option("--updates", min=1, help="How long to learn.")] = 200,
    refine: Annotated[bool, typer.Option("--refine", help="Let the patterns learn too.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: BUNDLE-RIG.dmu beside it.")
    ] = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Fit a bundle to the instrument as it was measured.

    The old one stays. Patterns stay as they are unless --refine. What is not better on held-back fields is
    not taken: then the new bundle holds the old inverse, for the numbers of this instrument.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.adapt import Wish, adapt_bundle  # noqa: PLC0415

        wish = Wish(channel, protocol, tuple(pairs or ()), updates, refine, out, device)
        adapt_bundle(bundle, rig, wish, output)


@app.command()
def doubt(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, such as protocols/bundles/nuclei.dmu.")],
    protocol: Annotated[
        Path | None,
        typer.Option(
            "--protocol", metavar="TRAIN", help="What it was trained by, where the bundle itself does not say so."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: BUNDLE-doubting.dmu beside it.")
    ] = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Teach a bundle when not to believe its images.

    It learns how far their pixels may be off, too. dmu train and dmu adapt do so by themselves; this is for bundles
    that were made before. Inverse and patterns stay as they are.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.doubting import doubt_bundle  # noqa: PLC0415

        doubt_bundle(bundle, protocol, out, device, output)


@app.command()
def compare(
    protocol: Annotated[Path, typer.Argument(metavar="PROTOCOL", help="Such as protocols/compare-simulated.yaml.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the folder NAME goes; what is in it is not done again.")
    ] = Path("runs/compare"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many trainings and how long.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Try trainings once more that failed.")] = False,
    json: Json = False,
) -> None:
    """Say whether learned patterns are worth it.

    Against fixed sets and a plain camera, with equal light, images, model and updates for all. The same command goes
    on with what was stopped or killed.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.compare import compare_arms  # noqa: PLC0415

        compare_arms(protocol, out, output, dry_run=dry_run, again=again)


@app.command()
def sweep(
    protocol: Annotated[Path, typer.Argument(metavar="PROTOCOL", help="Such as protocols/sweep-simulated.yaml.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the folder NAME goes; what is in it is not done again.")
    ] = Path("runs/sweeps"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many trials and how long.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Try trials once more that failed.")] = False,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Train with settings varied; leave a table and heat maps.

    The table holds all trials, the maps are over T and d. Any trial may be killed; the same command goes on. Exit
    status 3: some trials failed.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.sweep import sweep_settings  # noqa: PLC0415

        sweep_settings(protocol, out, device, output, dry_run=dry_run, again=again)


@app.command()
def bench(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="train: updates of lattice and of the published model.")],
    json: Json = False,
) -> None:
    """Time two ways of doing the same side by side."""
    with Output(as_json=json) as output:
        from dmu_hw.cli.bench import bench as measure  # noqa: PLC0415

        measure(what, output)
