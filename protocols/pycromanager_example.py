"""Learned bursts in a script of one's own with pycromanager: fields over time, live images, and a check in the end.

    pip install 'dmu-hw[micromanager]' mm-test-adapters
    python protocols/pycromanager_example.py --rig devices/mm-demo.yaml

`Acquisition`, its events and its datasets are pycromanager's own. dmu_hw serves the patterns: how a field is imaged
says the protocol (bundle, field, exposure); where and when says this script. The light is this script's affair too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from pycromanager import Acquisition

from dmu_hw.pycromanager import Learned

HERE = Path(__file__).parent
FIELDS_UM = [(0.0, 0.0), (75.0, 0.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Learned bursts in a script of one's own.")
    parser.add_argument("--protocol", type=Path, default=HERE / "quickstart.yaml")
    parser.add_argument("--rig", type=Path, default=HERE.parent / "devices" / "mm-demo.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--times", type=int, default=2)
    given = parser.parse_args()

    images: dict[str, Any] = {}

    def show(axes: dict[str, Any], estimate: Any) -> None:
        """Called with every image while the acquisition goes on; a viewer would take it here."""
        images["-".join(f"{name}{place}" for name, place in sorted(axes.items()))] = estimate.image

    with Learned(given.protocol, rig=given.rig, on_estimate=show) as learned:
        for caution in learned.cautions:
            print(f"caution: {caution}")  # noqa: T201 - people read it
        # Here the light goes on, and below it goes off again: with `Core()`, or by hand. Mirrors are dark in between.
        with Acquisition(str(given.out), "learned", **learned.hooks) as acquisition:
            for time in range(given.times):
                for position, (x_um, y_um) in enumerate(FIELDS_UM):
                    events = learned.events(
                        {"time": time, "position": position}, x=x_um, y=y_um, min_start_time=1.0 * time
                    )
                    acquisition.acquire(events)  # one call a burst
        learned.check(acquisition)  # raises with all that is missing, doubled or changed
    np.savez(given.out / "images.npz", **images)
    missing = f", {learned.dropped} were left out" if learned.dropped else ""
    print(f"{len(images)} images in {given.out / 'images.npz'}{missing}")  # noqa: T201 - people read it


if __name__ == "__main__":
    main()
