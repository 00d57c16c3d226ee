"""Forms of the report, one a file. ``phrases`` and ``tally`` hold what several of them say."""
