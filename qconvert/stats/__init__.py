"""Mergeable streaming statistics of activations: monoids, so the result does not depend on how data was split."""
