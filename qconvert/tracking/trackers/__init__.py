"""Experiment trackers, one a file; each registers itself in ``qconvert.tracking.tracker.TRACKERS``."""
