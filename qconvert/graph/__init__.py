"""Models: reading, checking, canonicalising, running. The only package besides ``emit`` that knows onnx-ir."""

from qconvert.graph.deferred import deferred

# The second is the only module of onnx-ir that uses sympy when it is imported.
with deferred("sympy", "onnx_ir._symbolic_shapes"):
    import onnx_ir as onnx_ir
