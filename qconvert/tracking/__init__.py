"""Where runs are logged: ``--track``. Trackers are one file each in ``trackers/``, or the user's own."""
