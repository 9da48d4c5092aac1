"""Numbers of ViALUX's ALP-4 interface, as its header `alp.h` and the package ALP4lib give them."""

from __future__ import annotations

import ctypes
from typing import Final

DEFAULT: Final = 0
AVAILABLE_MEMORY: Final = 2003
"""Binary pictures that there is room for."""
SYNCH_POLARITY: Final = 2004
LEVEL_HIGH, LEVEL_LOW = 2006, 2007
EDGE_FALLING, EDGE_RISING = 2008, 2009
BINARY_MODE: Final = 2104
UNINTERRUPTED: Final = 2106
"""No dark phase between pictures; the last one stays."""
FLUT_MODE: Final = 2118
FLUT_9BIT: Final = 1
FLUT_ENTRIES: Final = 2120
SHORTEST_PICTURE: Final = 2211
"""In µs, of a sequence as it is set."""
STEP: Final = 2329
"""Repeat each picture until an edge on the trigger input."""
FLUT_WRITE: Final = 2325
MOST_FLUT_ENTRIES: Final = 4096
MOST_FRAMES: Final = 512
"""What 9 bits can name."""
LONGEST_US: Final = 10_000_000
"""Of one picture."""


class FlutWrite(ctypes.Structure):
    """Numbers of pictures, to be shown in turn. Of 32 bits each, as `long` is on Windows."""

    _fields_ = (
        ("offset", ctypes.c_int32),
        ("size", ctypes.c_int32),
        ("frames", ctypes.c_uint32 * MOST_FLUT_ENTRIES),
    )
