"""A protocol's burst, for an `Acquisition` of pycromanager's.

Its engine loses what hooks raise, waits for ever for a camera that gives nothing, and leaves out what it cannot do
without a word. Therefore hooks raise nothing and wait for frames themselves: what goes wrong is kept, no further burst
begins, and `check` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from dmu_hw.cli.session import Session, open_session
from dmu_hw.data import Estimate, Uint16Array
from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.journal import crc32c
from dmu_hw.lock import rig_held
from dmu_hw.plan import Take
from dmu_hw.pycromanager.arrivals import Arrivals
from dmu_hw.pycromanager.asked import PATTERN, Asked, Axes, listed, place_of
from dmu_hw.pycromanager.core import dataset_of, lent, running_core
from dmu_hw.pycromanager.faults import Faults
from dmu_hw.pycromanager.hooks import Hooks
from dmu_hw.pycromanager.live import Inverse, Live
from dmu_hw.pycromanager.mirrors import Mirrors
from dmu_hw.upload import mirror_frames


class Learned:
    """Mirrors and camera of a rig, held while the context is; lights are not touched."""

    def __init__(
        self,
        protocol: Path | str,
        *,
        rig: Path | str | None = None,
        channel: str | None = None,
        on_estimate: Callable[[Axes, Estimate], None] | None = None,
        timeout_ms: float = 5000.0,
    ) -> None:
        """`on_estimate` is given the axes and the image of each burst, live, in a thread of its own. A burst may take
        twice its time and `timeout_ms` more."""
        self._session = _session_of(Path(protocol), None if rig is None else Path(rig), channel)
        kit = self._session.kit
        if on_estimate is not None and kit.bundle is None and kit.protocol.inverse is None:
            raise InputError([Problem(str(protocol), "has no inverse: there will be no images for on_estimate")])
        self._take = self._session.plan.takes["patterns"]
        self._on_estimate = on_estimate
        self._timeout_ms = timeout_ms
        self._asked = Asked(self._take.exposures)
        self._arrivals = _arrivals(self._session, self._take)
        self._faults = Faults()
        self._held = ExitStack()
        self._hooks: Hooks | None = None
        self._live: Live | None = None

    @property
    def cautions(self) -> tuple[str, ...]:
        """What should be known before: light or noise unlike those that the bundle is made for."""
        return self._session.plan.cautions

    @property
    def patterns(self) -> int:
        """T. A burst has one frame more where the protocol wants a marker: pattern T proves the others."""
        return self._take.stack.count

    @property
    def dropped(self) -> int:
        """Bursts that were not reconstructed live since they came too fast; `estimate` does it afterwards."""
        return 0 if self._live is None else self._live.dropped

    # ---------------------------------------------------------------- opened and closed

    def __enter__(self) -> Self:
        """A core that runs in this process is lent to the rig (`backend: given`); else the rig starts its own."""
        rig = self._session.rig
        parts = [rig.file.parts[name] for name in ("dmd", "camera")]
        links = dict.fromkeys(part.connection for part in parts if part.connection is not None)
        with ExitStack() as held:
            held.enter_context(rig_held(rig.file))
            held.enter_context(lent())
            for device in (*(rig.connection(name) for name in links), rig.dmd, rig.camera):
                if device is not None:
                    held.callback(device.close)  # before, so that what fails half-way is closed as well
                    device.open()
            core = running_core()
            rig.dmd.load(mirror_frames(self._session.plan))
            rig.camera.configure(self._take.mode)
            mirrors = Mirrors(rig, self._take)
            held.callback(mirrors.end)
            served = self._asked, self._arrivals, self._faults
            self._hooks = Hooks(core, self._take, mirrors, *served, self._timeout_ms)
            if self._on_estimate is not None:
                self._live = self._hooks.live = Live(self._inverse(), self._on_estimate, self._faults.keep)
                held.callback(self._live.close)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """All gets its turn; what nobody was told yet is raised, or is a note to what was."""
        self._hooks = None
        with self._faults:
            self._held.close()
        kept = self._faults.fresh()
        if error is None and kept:
            raise RunError("; ".join(kept))
        if error is not None:
            for what in kept:
                error.add_note(f"dmu: {what}")

    def _inverse(self) -> Inverse:
        """Only those who reconstruct pay for torch, which takes seconds to load."""
        from dmu_hw.reconstruct import Reconstructor  # noqa: PLC0415 - torch
        from dmu_hw.view.window import window_of  # noqa: PLC0415 - torch

        kit, plan = self._session.kit, self._session.plan
        bundle = kit.bundle
        if bundle is None:
            bundle = kit.fitted(self._session.path, kit.stack, self._take.mode.exposure_ms)
        return Reconstructor(bundle, window_of(plan, "patterns"))

    # ---------------------------------------------------------------- for a script

    @property
    def hooks(self) -> dict[str, Callable[..., Any]]:
        """For `Acquisition(directory, name, **learned.hooks)`. A script with hooks of its own calls these in them."""
        if self._hooks is None:
            raise RunError("is not open: use it as a context, `with Learned(…) as learned:`")
        return {
            "post_hardware_hook_fn": self._hooks.post_hardware,
            "post_camera_hook_fn": self._hooks.post_camera,
            "image_process_fn": self._hooks.image_process,
            "image_saved_fn": self._hooks.image_saved,
        }

    def events(self, axes: Mapping[str, Any] | None = None, **where: Any) -> list[dict[str, Any]] | Iterator[Any]:
        """One burst, for one call of `acquire`: `axes` as one likes (position, time, z, …), and `x`, `y`, `z`,
        `min_start_time` and `config_group` as pycromanager has them."""
        events = self._asked.events(axes, where)
        # a list becomes one sequence of the camera; what comes of a generator is taken one by one
        return (event for event in events) if self._session.rig.settings.stepping == "software" else events

    def check(self, acquired: Any) -> None:
        """Of an acquisition that has ended, or of its dataset: everything is there that was asked for, as it came from
        the camera. RunError with all that is not so."""
        asked, sums = self._asked, self._arrivals.sums
        with dataset_of(acquired) as dataset:
            missing = asked.missing(dataset)
            absent = {place_of(axes) for axes in missing}
            there = [axes for axes in asked.frames_asked() if place_of(axes) not in absent]
            changed = [axes for axes in there if sums.get(place_of(axes), "") not in ("", _sum_in(dataset, axes))]
        found = self._faults.fresh()
        for frames, what in (
            (missing, "were not saved"),
            (asked.doubled(), "were saved more than once"),
            (changed, "are not in the dataset as they came"),
            ([axes for axes in there if place_of(axes) not in sums], "did not pass image_process, or it refused them"),
        ):
            if frames:
                found.append(f"{len(frames)} of {asked.total} frames {what}: {listed(frames)}")
        if found:
            raise RunError("; ".join(found))

    def frames(self, acquired: Any, axes: Mapping[str, Any] | None = None) -> Uint16Array:
        """(pattern, y, x) of one burst as it was saved."""
        places = [{**(axes or {}), PATTERN: pattern} for pattern in range(self.patterns)]
        with dataset_of(acquired) as dataset:
            return np.stack([dataset.read_image(**place) for place in places]).astype(np.uint16)

    def estimate(self, acquired: Any, axes: Mapping[str, Any] | None = None) -> Estimate:
        """The image of one burst, afterwards."""
        return self._inverse().estimate(self.frames(acquired, axes))


def _arrivals(session: Session, take: Take) -> Arrivals:
    """They are counted as the rig says that its camera does."""
    camera = session.rig.file.parts["camera"].settings
    given = {name: getattr(camera, name) for name in ("number_tag", "first_number") if hasattr(camera, name)}
    return Arrivals(take, **given)


def _sum_in(dataset: Any, axes: Axes) -> str:
    return crc32c(np.asarray(dataset.read_image(**axes)).astype(np.uint16).tobytes())


def _session_of(protocol: Path, rig: Path | None, channel: str | None) -> Session:
    session = open_session(protocol, rig)
    names = tuple(session.plan.parts)
    if channel is None and len(names) > 1:
        what = f"has several channels: say which one; there are: {', '.join(names)}"
        raise InputError([Problem(str(protocol), what)])
    if channel is not None and channel not in names:
        there = ", ".join(names) if names != ("",) else "none by name"
        raise InputError([Problem(str(protocol), f"has no channel {channel!r}; there are: {there}")])
    return session if channel is None else session.of(channel)
