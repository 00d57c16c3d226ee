"""From a solved plan to a quantized model: QDQ first, QOperator as its lowering."""
