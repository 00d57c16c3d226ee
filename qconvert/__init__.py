"""qconvert: turn an FP32 ONNX model into a quantized one, and show what it cost and what it gained."""

__version__ = "0.1.0"
