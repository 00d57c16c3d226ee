"""Canonicalising passes, one a file, and the run of all of them with its proof that the outputs did not change."""
