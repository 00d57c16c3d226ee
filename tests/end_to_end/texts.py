"""Models and a recipe, as text, that are refused for what they are."""

RELU = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }'
INTEGERS = '<ir_version: 8, opset_import: ["" : 17]> g (int64[n, 4] x) => (int64[n, 4] y) { y = Add(x, x) }'
NO_INPUTS = """<ir_version: 8, opset_import: ["" : 17]> g () => (float[2] y)
{ c = Constant <value = float[2] {1.0, 2.0}> () y = Relu(c) }"""
SEQUENCE = """<ir_version: 8, opset_import: ["" : 17]> g (seq(float[2]) x) => (float[n] y)
{ y = ConcatFromSequence <axis = 0> (x) }"""
OPTIONAL = """<ir_version: 8, opset_import: ["" : 17]> g (optional(float[2]) x) => (float[2] y)
{ y = OptionalGetElement(x) }"""
CUSTOM = """<ir_version: 8, opset_import: ["" : 17, "my.own" : 1]> g (float[n, 4] x) => (float[n, 4] y)
{ y = my.own.Frobnicate(x) }"""
MISSING_INPUT = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Add(x, nowhere) }'
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
