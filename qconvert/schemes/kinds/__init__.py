"""Schemes, one a file."""
