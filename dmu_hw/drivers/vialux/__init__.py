"""DMDs of ViALUX by their ALP-4 interface, which Micro-Manager does not know."""

from dmu_hw.drivers.vialux.dmd import Dmd

__all__ = ["Dmd"]
