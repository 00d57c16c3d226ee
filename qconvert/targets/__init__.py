"""What each runtime runs well, as data. ``TARGETS`` finds a target by name."""

from qconvert.targets.target import TARGETS

TARGETS.discover("qconvert.targets")

__all__ = ["TARGETS"]
