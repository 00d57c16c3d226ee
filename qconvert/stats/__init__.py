"""Mergeable streaming statistics of activations: each is a monoid, so the result does not depend on how data was split."""
