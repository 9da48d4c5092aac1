"""A protocol and all that it needs, put together: rig, patterns or bundle, plan."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dmu_hw import plugin
from dmu_hw.belief import believe
from dmu_hw.bundle import Bundle
from dmu_hw.channels import Channel
from dmu_hw.choosing import Chooser, chooser_of
from dmu_hw.cli.output import origin
from dmu_hw.data import PatternStack
from dmu_hw.errors import DeviceError, DmuError, InputError, Problem
from dmu_hw.files import Document, Loc, Settings, file_hash, parse_yaml, read_text, validate
from dmu_hw.kept import KeptBelief, read_kept
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.pixels import PixelMaps
from dmu_hw.plan import Plan
from dmu_hw.planner import plan_channels
from dmu_hw.protocol import AnyProtocol, BundleFile, Protocol, read_protocol
from dmu_hw.rig import Rig, load_rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.sources import Sources, filled
from dmu_hw.taking import Asked


@dataclass(frozen=True)
class Kit:
    """What one channel of a run is imaged and reconstructed with."""

    protocol: Protocol
    """As if there were no other channel."""
    channel: Channel
    """The rig's."""
    stack: PatternStack
    bundle: Bundle | None
    """The one that the protocol names, if it names one."""
    inverse: Settings | None
    """Settings of the model that is to be computed, if the protocol asks for one."""
    then: Bundle | None
    """Of fields that were chosen, if they are imaged with one."""
    then_stack: PatternStack | None

    def fitted(self, path: Path, stack: PatternStack, exposure_ms: float) -> Bundle:
        """The bundle that the inverse of the protocol of that path makes of some patterns."""
        # fitting needs torch, which takes seconds to load: only those who fit pay for it
        from dmu_hw.cli.fitting import fitted_bundle  # noqa: PLC0415

        if self.protocol.inverse is None or self.inverse is None:
            raise InputError([Problem(str(path), "there is no inverse to compute")])
        power_mw = self.protocol.light.power_mw
        with outsiders(f"{path}: inverse.model"):
            model = named_model(self.protocol.inverse.model, path.parent)
            return fitted_bundle(model, self.inverse, stack, self.channel.optics, power_mw, exposure_ms)


@dataclass(frozen=True)
class Session:
    """Everything that a run is made of, checked, nothing opened."""

    path: Path
    text: str
    protocol: AnyProtocol
    rig: Rig
    belief: KeptBelief
    """What the rig believes."""
    kits: dict[str, Kit]
    """By the names of channels; in a run that has one only its name is empty."""
    plan: Plan
    sources: Sources
    """Texts of the files that say where and when, if the protocol names any."""
    chooser: Chooser | None = None
    """Who chooses the fields that are imaged once more."""

    def of(self, channel: str) -> Session:
        """What of it concerns one channel."""
        return replace(self, kits={channel: self.kits[channel]}, plan=self.plan.of(channel))

    @property
    def kit(self) -> Kit:
        """That of the only channel."""
        (kit,) = self.kits.values()
        return kit

    @property
    def then(self) -> Bundle | None:
        """Of fields that were chosen, if they are imaged with one."""
        return next((kit.then for kit in self.kits.values() if kit.then is not None), None)

    @property
    def chosen_in(self) -> str | None:
        """The channel in which fields that were chosen are imaged once more; None without any."""
        return next((name for name, part in self.plan.parts.items() if "chosen" in part.takes), None)

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Kept:
    """A run's own copies of what it was begun with, to be read in place of the files that they are copies of."""

    protocol: str
    rig: str
    rig_path: Path
    run: RunFolder
    belief: KeptBelief | None
    """None: a version that kept none began the run, and believed the rig's file."""

    @classmethod
    def of(cls, run: RunFolder, settings: Mapping[str, Any]) -> Kept:
        """What lies in a run folder, whose settings.json was read."""
        belief = read_kept(run.calibration) if "calibration_hash" in settings else None
        return cls(read_text(run.protocol), read_text(run.rig), Path(settings["rig_path"]), run, belief)


def open_session(path: Path, rig_path: Path | None = None, kept: Kept | None = None) -> Session:
    """Read a protocol and what it names; every problem of protocol, rig and bundles at once."""
    text = read_text(path) if kept is None else kept.protocol
    document = parse_yaml(text, path)
    refused = _Refused()
    rig: Rig | None = None
    belief: KeptBelief | None = None
    kits: list[Kit] = []
    plan: Plan | None = None
    chooser: Chooser | None = None
    with refused:
        if kept is None:
            rig, belief = believing_instrument(rig_path or _rig_named_in(document))
        else:
            rig, belief = _as_it_believed(kept)
    protocol = _protocol(document, refused)
    sources = Sources() if kept is None else Sources.in_folder(kept.run.sources)
    placed: AnyProtocol | None = None
    with refused:
        placed = filled(protocol, document, rig.optics, sources) if rig is not None else None
    looks = _looks(placed or protocol)
    for look in looks:
        with refused:
            kits.append(_kit(look, document, rig, None if kept is None else kept.run, refused))
    with refused:
        chooser = _chooser(looks, document)
    if rig is not None and placed is not None and len(kits) == len(looks):
        asked = [
            Asked(kit.protocol, kit.channel, kit.stack, kit.then_stack, look.name, look.key)
            for look, kit in zip(looks, kits, strict=True)
        ]
        with refused:
            plan = plan_channels(placed, document, rig, asked)
    if refused.problems or rig is None or belief is None or placed is None or plan is None:
        raise InputError(refused.problems)
    cautions = [caution for look, kit in zip(looks, kits, strict=True) for caution in _cautions(look, kit, document)]
    plan = replace(plan, cautions=(*plan.cautions, *cautions))
    named = {look.name: kit for look, kit in zip(looks, kits, strict=True)}
    return Session(path, text, placed, rig, belief, named, plan, sources, chooser)


def session_of(run: RunFolder) -> Session:
    """What a run was begun with, from its own copies."""
    settings = json.loads(read_text(run.settings, limit=10_000_000))
    return open_session(Path(settings["protocol_path"]), kept=Kept.of(run, settings))


@dataclass(frozen=True)
class _Look:
    """What a protocol says of one channel, and where it says it."""

    protocol: Protocol
    name: str
    """Empty in a run that has one channel only."""
    loc: Loc
    several: bool
    chooses: bool
    """Whether its fields are looked at to choose some, and imaged once more."""

    @property
    def key(self) -> str:
        return "".join(f"{step}." for step in self.loc)


def _looks(protocol: AnyProtocol) -> list[_Look]:
    if isinstance(protocol, Protocol):
        return [_Look(protocol, "", (), several=False, chooses=protocol.then is not None)]
    names = [look.channel for look in protocol.channels]
    chooser = (protocol.adaptive.channel or names[0]) if protocol.adaptive is not None else None
    several = len(names) > 1
    return [
        _Look(protocol.of(name), name, ("channels", i), several=several, chooses=name == chooser)
        for i, name in enumerate(names)
    ]


def _kit(look: _Look, document: Document, rig: Rig | None, kept: RunFolder | None, refused: _Refused) -> Kit:
    """Everything that one channel needs; what stands against it is refused together."""
    protocol = look.protocol
    channel: Channel | None = None
    patterns: _Patterns | None = None
    then: _Patterns | None = None
    inverse: Settings | None = None
    with refused:
        channel = _channel(look, document, rig) if rig is not None else None
    with refused:
        inverse = _inverse_settings(document, look)
    with refused:
        patterns = _patterns(protocol.patterns, None if kept is None else kept.bundle_of(look.name))
    if look.chooses and protocol.then is not None:
        with refused:
            then = _patterns(protocol.then.patterns, None if kept is None else kept.then)
    if channel is None or patterns is None:
        raise InputError([])  # all of it is among what was refused
    for found, loc in ((patterns, look.loc), (then, ("then",))):
        if found is not None and found.bundle is not None:
            with refused:
                _check_fit(found.bundle, channel, look, document.where((*loc, "patterns", "bundle")))
    stack = then.stack if then is not None else None
    return Kit(protocol, channel, patterns.stack, patterns.bundle, inverse, then.bundle if then else None, stack)


def _channel(look: _Look, document: Document, rig: Rig) -> Channel:
    """The rig's channel of that name, or the only one that it has."""
    wanted, names = look.protocol.channel, ", ".join(rig.channels)
    where, of = document.where((*look.loc, "channel")), f"rig {rig.settings.name}"
    if wanted is None and len(rig.channels) > 1:
        what = f"{of} has several: say `channel: NAME` for one of them, or `channels` for more; there are: {names}"
        raise InputError([Problem(where, what)])
    if wanted is not None and wanted not in rig.channels:
        what = f"{of} has no channel {wanted!r}; there are: {names or 'none by name'}"
        raise InputError([Problem(where, what)])
    return next(iter(rig.channels.values())) if wanted is None else rig.channels[wanted]


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


def _protocol(document: Document, refused: _Refused) -> AnyProtocol:
    """Without a protocol there is nothing else to look at: what was refused so far is said with it."""
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if isinstance(kind, str) and kind != "run":  # another file altogether: its keys need not be held against it
        raise InputError([Problem(document.where(("kind",)), f"should be 'run', given {kind[:60]!r}")])
    try:
        return read_protocol(document)
    except InputError as error:
        raise InputError([*error.problems, *refused.problems]) from None


def _patterns(patterns: BundleFile | PatternSet, kept: Path | None) -> _Patterns:
    if isinstance(patterns, BundleFile):
        bundle = load_bundle(patterns.bundle if kept is None else kept)
        return _Patterns(bundle.patterns, bundle)
    return _Patterns(patterns.make())


def _chooser(looks: list[_Look], document: Document) -> Chooser | None:
    protocol = next((look.protocol for look in looks if look.chooses), None)
    if protocol is None or protocol.adaptive is None:
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


def believing_instrument(path: Path) -> tuple[Rig, KeptBelief]:
    """A rig that believes what its calibrations measured; refused where one of them is not to be used."""
    rig = load_instrument(path)
    return rig, KeptBelief.of(rig, believe(rig))


def _as_it_believed(kept: Kept) -> tuple[Rig, KeptBelief]:
    """A run ends with the belief that it was begun with, whatever was measured since."""
    rig = load_instrument(kept.rig_path, kept.rig)
    if kept.belief is not None:
        kept.belief.told_to(rig, _kept_pixels(kept.run, kept.belief))
    return rig, kept.belief or KeptBelief.of(rig, {})


def _kept_pixels(run: RunFolder, belief: KeptBelief) -> PixelMaps | None:
    if belief.pixels is None:
        return None
    if not run.pixels.is_file() or file_hash(run.pixels) != belief.pixels:
        what = "is not what was believed of the camera's pixels when the run began: missing, or changed since"
        raise InputError([Problem(str(run.pixels), what)])
    return PixelMaps.unpacked(run.pixels.read_bytes())


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


def _check_fit(bundle: Bundle, channel: Channel, look: _Look, where: str) -> None:
    misfits = bundle.misfits(channel.optics)
    if look.several and bundle.header.task == "segment":
        misfits.append(
            "finds objects, which a run in several channels cannot keep: give it a run of its own (`channel`)"
        )
    if misfits:
        raise InputError([Problem(where, misfit) for misfit in misfits])


def _cautions(look: _Look, kit: Kit, document: Document) -> list[str]:
    where = document.where((*look.loc, "patterns", "bundle"))
    light = look.protocol.light.power_mw, look.protocol.exposure_ms
    found = [] if kit.bundle is None else kit.bundle.cautions(kit.channel.optics, *light)
    return [f"{where}: {caution}" for caution in found]


def _inverse_settings(document: Document, look: _Look) -> Settings | None:
    if look.protocol.inverse is None:
        return None
    model, loc = look.protocol.inverse.model, (*look.loc, "inverse")
    where = document.where((*loc, "model"))
    with outsiders(where):
        found = plugin.load_class("dmu_hw.models", model, "Settings", where=where, folder=document.path.parent)
    if not issubclass(found, Settings):
        raise InputError([Problem(where, f"the Settings of {model!r} are no dmu_hw.files.Settings")])
    return validate(document.inside(loc, without=("model",)), found)


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
