"""Task metrics, one a file; each registers itself in ``qconvert.evaluate.metric.METRICS``."""
