"""The light that a guardian has in its charge: named by driver and settings, built in the guardian's process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, cast

from dmu_hw import plugin
from dmu_hw.files import Document, Settings, validate
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import Light, Mount


class Guarded(Light, Protocol):
    """A light whose class says `guarded = True` promises this too."""

    def keep_alive(self) -> None:
        """Called several times within `watchdog_ms` while the light is on."""


class Charge(Settings):
    """What a process needs to know to build a light. Nothing is pickled."""

    driver: str
    """As the rig YAML names it."""
    settings: str
    """JSON of what the rig YAML says of it."""
    name: str
    optics: str
    """JSON."""
    path: str
    """The rig YAML."""

    @classmethod
    def of(cls, driver: str, mount: Mount) -> Charge:
        """What the rig knows of a light, made ready to be sent."""
        settings, optics = json.dumps(mount.document.value), mount.optics.model_dump_json()
        path = str(mount.document.path.absolute())
        return cls(driver=driver, settings=settings, name=mount.name, optics=optics, path=path)

    def built(self) -> Guarded:
        """The light itself, not opened."""
        path = Path(self.path)
        found: Any = plugin.load_class("dmu_hw.drivers", self.driver, "Light", where=self.path, folder=path.parent)
        document = Document(_as_read(json.loads(self.settings)), {}, path, ("devices", self.name))
        mount = Mount(self.name, Optics.model_validate_json(self.optics), document)
        return cast("Guarded", found(validate(document, found.Settings), mount))


def _as_read(value: Any) -> Any:
    """Lists are tuples, as they come from a YAML file."""
    if isinstance(value, dict):
        return {key: _as_read(inner) for key, inner in value.items()}
    return tuple(_as_read(inner) for inner in value) if isinstance(value, list) else value
