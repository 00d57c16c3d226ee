"""Which codes a weight gets: round to nearest, clipped ranges, HQQ, GPTQ, AWQ. numpy only; knows nothing of graphs."""
