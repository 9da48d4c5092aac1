"""DMDs behind TI's controller DLPC900 (DLP6500, DLP9000, DLP670S) on USB, which Micro-Manager does not know."""

from dmu_hw.drivers.dlpc900.dmd import Dmd

__all__ = ["Dmd"]
