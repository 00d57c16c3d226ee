"""From a solved plan to a quantized model: QDQ first, QOperator as its lowering."""

from qconvert.graph import onnx_ir as onnx_ir  # imported there first, without sympy
