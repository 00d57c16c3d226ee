"""The checks: each file looks for faults of one kind, and registers one or more in ``CHECKS``."""
