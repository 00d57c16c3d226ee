"""One calibration method a file; each registers itself in :data:`qconvert.calibrate.method.METHODS`."""
