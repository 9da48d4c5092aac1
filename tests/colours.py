"""The small rig with two colours: what changes in it."""

from __future__ import annotations

from typing import Any

FACE = {"driver": "simulated", "connection": "world"}
GREEN: dict[str, Any] = {
    "specimen": {"kind": "nuclei", "seed": 3},
    "light": "light",
    "filters": {"filter": "GFP"},
}
RED: dict[str, Any] = {
    "specimen": {"kind": "beads", "seed": 5, "diameter_um": 2.0, "per_mm2": 20_000.0},
    "light": "light_561",
    "filters": {"filter": "RFP"},
    "truth": {"emission": {"sigma_um": 0.5}, "dye": {"photons_per_um2_mw_ms": 50.0}},
}
TWO_COLOURS: dict[str, Any] = {
    "connections.world.specimen": ...,
    "connections.world.dyes": {"green": GREEN, "red": RED},
    "devices.light_561": FACE,
    "devices.filter": {**FACE, "positions": ["GFP", "RFP", "none"]},
    "devices.shutter": FACE,
    "channels": {
        "green": {"light": "light", "filters": {"filter": "GFP"}},
        "red": {
            "light": "light_561",
            "filters": {"filter": "RFP"},
            "optics": {"emission": {"sigma_um": 0.5}, "dye": {"photons_per_um2_mw_ms": 50.0}},
        },
    },
}
