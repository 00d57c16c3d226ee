"""From data to ranges: sources of samples, feeds checked against the model, the collecting pass, range methods."""
