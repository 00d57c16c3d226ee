"""How good and how fast a quantized model is, set against the model it came from."""
