"""Lets the tests of DMDs find what tests of runs have."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "acquisition"))
