"""unrolled: steps towards the data, and a learned prior between them. Its settings load without torch."""

from __future__ import annotations

from typing import Any

from dmu_hw.models.unrolled.settings import UnrolledSettings as Settings

__all__ = ["Model", "Settings"]


def __getattr__(name: str) -> Any:
    """The model itself, with torch, once somebody asks for it."""
    if name == "Model":
        from dmu_hw.models.unrolled.model import Model  # noqa: PLC0415

        return Model
    raise AttributeError(name)
