"""Lets the tests of faults find the bench of the acquisition tests, and what lies here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "acquisition"), str(Path(__file__).parent)]
