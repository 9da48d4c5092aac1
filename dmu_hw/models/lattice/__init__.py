"""lattice: a network at camera resolution. Its settings load without torch."""

from __future__ import annotations

from typing import Any

from dmu_hw.models.lattice.settings import LatticeSettings as Settings

__all__ = ["Model", "Settings"]


def __getattr__(name: str) -> Any:
    """The model itself, with torch, once somebody asks for it."""
    if name == "Model":
        from dmu_hw.models.lattice.model import Model  # noqa: PLC0415

        return Model
    raise AttributeError(name)
