"""Lets the tests of DMDs find what they share, and what tests of runs have."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "acquisition")]
