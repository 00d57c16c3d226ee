"""Pure numpy: integer types, quantization specs, affine quantization. Knows nothing of graphs."""
