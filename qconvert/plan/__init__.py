"""The decision as data: which nodes run on integers, which tensors are quantized how, and why."""
