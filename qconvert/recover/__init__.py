"""Accuracy recovery: passes that change weights, weight scales and biases so that integers lose less.

Each pass is a file of :mod:`qconvert.recover.passes`; :mod:`qconvert.recovery` runs them and keeps what helps.
"""
