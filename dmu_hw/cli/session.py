"""A protocol and all that it needs, put together: rig, patterns or bundle, plan."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dmu_hw import plugin
from dmu_hw.bundle import Bundle
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Settings, parse_yaml, read_text, validate
from dmu_hw.physics.optics import Optics
from dmu_hw.plan import Plan, make_plan
from dmu_hw.protocol import BundleFile, Protocol
from dmu_hw.rig import Rig, load_rig


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

    @property
    def optics(self) -> Optics:
        return self.rig.optics

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.protocol, self.path, self.rig, self.optics, self.stack)

    def fitted(self, stack: PatternStack, exposure_ms: float) -> Bundle:
        """The bundle that the protocol's inverse makes of some patterns."""
        # fitting needs torch, which takes seconds to load: only those who fit pay for it
        from dmu_hw.cli.fitting import fitted_bundle  # noqa: PLC0415

        if self.protocol.inverse is None or self.inverse is None:
            raise InputError([Problem(str(self.path), "there is no inverse to compute")])
        power_mw = self.protocol.light.power_mw
        return fitted_bundle(self.protocol.inverse.model, self.inverse, stack, self.optics, power_mw, exposure_ms)


def open_session(path: Path, rig_path: Path | None = None) -> Session:
    """Read a protocol and what it names; every problem of protocol and rig at once."""
    text = read_text(path)
    document = parse_yaml(text, path)
    protocol = validate(document, Protocol)
    problems: list[Problem] = []
    inverse: Settings | None = None
    bundle: Bundle | None = None
    rig: Rig | None = None
    try:
        rig = Rig(load_rig(rig_path or protocol.rig))
    except InputError as error:
        problems.extend(error.problems)
    try:
        bundle = Bundle.load(protocol.patterns.bundle) if isinstance(protocol.patterns, BundleFile) else None
        if protocol.inverse is not None:
            inverse = _inverse_settings(document, protocol.inverse.model)
    except InputError as error:
        problems.extend(error.problems)
    if problems or rig is None:
        raise InputError(problems)
    if bundle is not None:
        misfits = bundle.misfits(rig.optics)
        if misfits:
            raise InputError([Problem(document.where(("patterns", "bundle")), misfit) for misfit in misfits])
    stack = bundle.patterns if bundle is not None else _made(protocol)
    return Session(path, text, protocol, rig, bundle, inverse, stack)


def _made(protocol: Protocol) -> PatternStack:
    if isinstance(protocol.patterns, BundleFile):
        raise TypeError("a bundle brings its own patterns")
    return protocol.patterns.make()


def _inverse_settings(document: Document, model: str) -> Settings:
    where = document.where(("inverse", "model"))
    found = plugin.load_class("dmu_hw.models", model, "Settings", where=where, folder=document.path.parent)
    if not issubclass(found, Settings):
        raise InputError([Problem(where, f"the Settings of {model!r} are no dmu_hw.files.Settings")])
    return validate(document.inside(("inverse",), without=("model",)), found)
