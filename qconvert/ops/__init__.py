"""What each ONNX operator needs to be quantized, as facts. ``OPS`` finds the rule of an operator."""

from qconvert.ops.rule import OPS

OPS.discover("qconvert.ops")

__all__ = ["OPS"]
