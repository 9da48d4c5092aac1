"""locality: the published inverse. Its settings load without torch."""

from __future__ import annotations

from typing import Any

from dmu_hw.models.locality.settings import LocalitySettings as Settings

__all__ = ["Model", "Settings"]


def __getattr__(name: str) -> Any:
    """The model itself, with torch, once somebody asks for it."""
    if name == "Model":
        from dmu_hw.models.locality.model import Model  # noqa: PLC0415

        return Model
    raise AttributeError(name)
