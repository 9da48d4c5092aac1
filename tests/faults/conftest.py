"""Lets the tests of faults find the bench of the acquisition tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "acquisition"))
