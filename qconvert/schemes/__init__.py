"""Schemes: what a model is quantized to. ``kinds`` holds one a file; the rest is what they share."""
