"""ridge: the linear estimate. Its settings load without torch, so that checking a protocol stays quick."""

from __future__ import annotations

from typing import Any

from dmu_hw.models.ridge.settings import RidgeSettings as Settings

__all__ = ["Model", "Settings"]


def __getattr__(name: str) -> Any:
    """The model itself, with torch, once somebody asks for it."""
    if name == "Model":
        from dmu_hw.models.ridge.model import Model  # noqa: PLC0415

        return Model
    raise AttributeError(name)
