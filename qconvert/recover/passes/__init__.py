"""One recovery pass a file; each registers itself in :data:`qconvert.recover.recovery.RECOVERIES`."""
