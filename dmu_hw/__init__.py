"""dmu-hw: the acquisition controller for learned-illumination fluorescence microscopy."""

__version__ = "0.1.0"
