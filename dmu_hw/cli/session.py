"""A protocol and all that it needs, put together: rig, patterns or bundle, plan."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from dmu_hw import plugin
from dmu_hw.bundle import Bundle
from dmu_hw.choosing import Chooser, chooser_of
from dmu_hw.cli.output import origin
from dmu_hw.data import PatternStack
from dmu_hw.errors import DeviceError, DmuError, InputError, Problem
from dmu_hw.files import Document, Settings, parse_yaml, read_text, validate
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.plan import Plan
from dmu_hw.planner import make_plan
from dmu_hw.protocol import BundleFile, Protocol
from dmu_hw.rig import Rig, load_rig
from dmu_hw.sources import Sources, filled


@dataclass(frozen=True)
class Session:
    """Everything that a run is made of, checked, nothing opened."""

    path: Path
    text: str
    protocol: Protocol
    rig: Rig
    bundle: Bundle | None
    """The one that the protocol names, if it names one."""
    inverse: Settings | None
    """Settings of the model that is to be computed, if the protocol asks for one."""
    stack: PatternStack
    plan: Plan
    sources: Sources
    """Texts of the files that say where and when, if the protocol names any."""
    then: Bundle | None = None
    """Of fields that were chosen, if they are imaged with one."""
    chooser: Chooser | None = None
    """Who chooses them."""

    @property
    def optics(self) -> Optics:
        return self.rig.optics

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fitted(self, stack: PatternStack, exposure_ms: float) -> Bundle:
        """The bundle that the protocol's inverse makes of some patterns."""
        # fitting needs torch, which takes seconds to load: only those who fit pay for it
        from dmu_hw.cli.fitting import fitted_bundle  # noqa: PLC0415

        if self.protocol.inverse is None or self.inverse is None:
            raise InputError([Problem(str(self.path), "there is no inverse to compute")])
        power_mw = self.protocol.light.power_mw
        with outsiders(f"{self.path}: inverse.model"):
            model = named_model(self.protocol.inverse.model, self.path.parent)
            return fitted_bundle(model, self.inverse, stack, self.optics, power_mw, exposure_ms)


@dataclass(frozen=True)
class Kept:
    """A run's own copies of what it was begun with, to be read in place of the files that they are copies of."""

    protocol: str
    rig: str
    rig_path: Path
    bundle: Path
    sources: Path
    then: Path


def open_session(path: Path, rig_path: Path | None = None, kept: Kept | None = None) -> Session:
    """Read a protocol and what it names; every problem of protocol, rig and bundle at once."""
    text = read_text(path) if kept is None else kept.protocol
    document = parse_yaml(text, path)
    refused = _Refused()
    rig: Rig | None = None
    patterns: _Patterns | None = None
    inverse: Settings | None = None
    plan: Plan | None = None
    then: _Patterns | None = None
    chooser: Chooser | None = None
    with refused:
        if kept is None:
            rig = load_instrument(rig_path or _rig_named_in(document))
        else:
            rig = load_instrument(kept.rig_path, kept.rig)
    protocol = _protocol(document, refused)
    sources = Sources() if kept is None else Sources.in_folder(kept.sources)
    placed: Protocol | None = None
    with refused:
        placed = filled(protocol, document, rig.optics, sources) if rig is not None else None
    with refused:
        inverse = _inverse_settings(document, protocol)
    with refused:
        patterns = _patterns(protocol.patterns, None if kept is None else kept.bundle)
    with refused:
        then = _patterns(protocol.then.patterns, None if kept is None else kept.then) if protocol.then else None
    with refused:
        chooser = _chooser(protocol, document)
    if rig is not None and patterns is not None:
        with refused:
            _check_fit(patterns.bundle, rig, document.where(("patterns", "bundle")))
        with refused:
            _check_fit(then.bundle if then else None, rig, document.where(("then", "patterns", "bundle")))
        with refused:
            stacks = patterns.stack, then.stack if then else None
            plan = None if placed is None else make_plan(placed, document, rig, rig.optics, *stacks)
    if refused.problems or rig is None or patterns is None or placed is None or plan is None:
        raise InputError(refused.problems)
    plan = replace(plan, cautions=(*plan.cautions, *_cautions(patterns.bundle, rig, protocol, document)))
    return Session(
        path,
        text,
        placed,
        rig,
        patterns.bundle,
        inverse,
        patterns.stack,
        plan,
        sources,
        then.bundle if then else None,
        chooser,
    )


@dataclass
class _Refused:
    """Gathers refusals, so that all are said at once."""

    problems: list[Problem] = field(default_factory=list)

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, InputError):
            self.problems.extend(error.problems)
        return isinstance(error, InputError)


@dataclass(frozen=True)
class _Patterns:
    """What a protocol shows, and the bundle that it is from if it is from one."""

    stack: PatternStack
    bundle: Bundle | None = None


def _protocol(document: Document, refused: _Refused) -> Protocol:
    """Without a protocol there is nothing else to look at: what was refused so far is said with it."""
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if isinstance(kind, str) and kind != "run":  # another file altogether: its keys need not be held against it
        raise InputError([Problem(document.where(("kind",)), f"should be 'run', given {kind[:60]!r}")])
    try:
        return validate(document, Protocol)
    except InputError as error:
        raise InputError([*error.problems, *refused.problems]) from None


def _patterns(patterns: BundleFile | PatternSet, kept: Path | None) -> _Patterns:
    if isinstance(patterns, BundleFile):
        bundle = load_bundle(patterns.bundle if kept is None else kept)
        return _Patterns(bundle.patterns, bundle)
    return _Patterns(patterns.make())


def _chooser(protocol: Protocol, document: Document) -> Chooser | None:
    if protocol.adaptive is None:
        return None
    if protocol.inverse is None and not isinstance(protocol.patterns, BundleFile):
        what = "needs reconstructions to choose by: patterns from a bundle, or an inverse"
        raise InputError([Problem(document.where(("adaptive",)), what)])
    with outsiders(document.where(("adaptive", "by"))):
        return chooser_of(protocol.adaptive, document.inside(("adaptive",)))


def _rig_named_in(document: Document) -> Path:
    """The rig, whatever else may be wrong with a protocol."""
    named = document.value.get("rig") if isinstance(document.value, dict) else None
    if not isinstance(named, str):
        raise InputError([])  # the protocol itself is told so
    return document.path.parent / named


def load_instrument(path: Path, text: str | None = None) -> Rig:
    """A rig, checked and built, nothing opened."""
    with outsiders(str(path)):
        return Rig(load_rig(path, text))


def load_bundle(path: Path) -> Bundle:
    """A bundle whose model is here to be used."""
    bundle = Bundle.load(path)
    model, where = bundle.header.model, f"{path}: model"
    if model.endswith(".py"):
        # a bundle may come from anybody: it must not choose a file of this computer to be run
        what = f"{model[:60]!r} is a file; install it as a package and make the bundle again"
        raise InputError([Problem(where, what)])
    if "." in model and model.partition(".")[0] in sys.stdlib_module_names:
        # nor a part of Python: there are some that open a browser or a window when they are imported
        raise InputError([Problem(where, f"{model[:60]!r} is a part of Python and no model")])
    with outsiders(where):
        plugin.load_class("dmu_hw.models", model, "Settings", where=where, folder=Path())
    return bundle


def _check_fit(bundle: Bundle | None, rig: Rig, where: str) -> None:
    misfits = bundle.misfits(rig.optics) if bundle is not None else []
    if misfits:
        raise InputError([Problem(where, misfit) for misfit in misfits])


def _cautions(bundle: Bundle | None, rig: Rig, protocol: Protocol, document: Document) -> list[str]:
    where = document.where(("patterns", "bundle"))
    light = protocol.light.power_mw, protocol.exposure_ms
    return [] if bundle is None else [f"{where}: {caution}" for caution in bundle.cautions(rig.optics, *light)]


def _inverse_settings(document: Document, protocol: Protocol) -> Settings | None:
    if protocol.inverse is None:
        return None
    model, where = protocol.inverse.model, document.where(("inverse", "model"))
    with outsiders(where):
        found = plugin.load_class("dmu_hw.models", model, "Settings", where=where, folder=document.path.parent)
    if not issubclass(found, Settings):
        raise InputError([Problem(where, f"the Settings of {model!r} are no dmu_hw.files.Settings")])
    return validate(document.inside(("inverse",), without=("model",)), found)


def named_model(model: str, folder: Path) -> str:
    """A model's name that means the same wherever the program was started."""
    return str((folder / model).resolve()) if model.endswith(".py") else model


@contextmanager
def outsiders(where: str) -> Iterator[None]:
    """Drivers and models may come from anybody, and anything may go wrong in them while they are loaded: that is
    refused input, and no fault of this program."""
    try:
        yield
    except DeviceError as error:
        raise InputError([Problem(where, str(error))]) from error
    except DmuError:
        raise
    except OverflowError as error:
        what = f"holds numbers that are too large or too small to compute with ({origin(error)})"
        raise InputError([Problem(where, what)]) from error
    except (Exception, SystemExit) as error:
        raise InputError([Problem(where, f"cannot be used: {origin(error)}")]) from error
