"""Models: reading, checking, canonicalising, running. The only package besides ``emit`` that knows onnx-ir."""
