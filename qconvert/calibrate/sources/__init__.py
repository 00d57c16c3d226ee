"""Kinds of calibration and evaluation data, one a file; ``qconvert.calibrate.source.SOURCES`` finds them.

Modules that begin with an underscore hold what several kinds share.
"""
