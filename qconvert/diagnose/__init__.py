"""A doctor for quantized models, whoever made them."""
