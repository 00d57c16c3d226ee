"""The Python interface: a function for each command, of which ``qconvert`` itself shows the names.

Nothing heavy is imported before a function runs.
"""
