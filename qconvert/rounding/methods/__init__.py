"""Rounding methods, one a file."""
