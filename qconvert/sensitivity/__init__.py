"""Which part of a quantized model does how much damage: the stage behind ``qconvert sensitivity``."""
