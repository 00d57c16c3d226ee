"""Forms: ways to write one node other than as itself between QuantizeLinear/DequantizeLinear pairs.

    fused     q(x) -> com.microsoft.MatMulIntegerToFloat(codes, W_q, s_x, s_w, z_x, z_w, b)         MatMul and its bias
              Between pairs the kernel is the same, but the bias is a node of its own behind it, and keeps ONNX Runtime
              from other fusions: Add and Gelu become BiasGelu, which takes 2.7 times as long as Gelu (1.32, AVX512).
    dynamic   x -> DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul -> Add                     MatMul and its bias
              The scale of x comes from x itself, each time the model runs. Where such an operator is in float for the
              accuracy of the outputs, this loses less than fixed ranges do, and is faster than float.
              x -> DynamicQuantizeLinear -> patches -> MatMulInteger -> Cast -> Mul -> Add             likewise, of Conv
              LSTM(x, W, R, ...) -> com.microsoft.DynamicQuantizeLSTM(x, W_q, R_q, ...)                          LSTM
              Likewise, of x and of the state, at every step.
    bounded   Softmax(max(x, max_j x_j - 64))                                                 Softmax, on the last axis
              exp(x_j - max x) below 2**-126 is a subnormal number, which processors are slow with. Masks make them:
              ONNX Runtime's kernel bounds the exponent at -88.4 (1.32), and takes 4 times as long where it does. The
              bound changes probabilities below exp(-64) = 1.6e-28 alone, and by less than that, which is 1e-21 of what
              rounding does to the greatest one: the result is the same for float32, whatever the input.
    activation  DQ(x) -> com.microsoft.QuickGelu(x) = x sigmoid(x)                      Sigmoid and its product with x
              DQ(x) -> com.microsoft.Gelu(x) = x (1 + erf(x / sqrt 2)) / 2                        Erf and all around it
              One float operator between two conversions in place of several, on integers or not, which ONNX Runtime
              does not fuse there: each reader of x has a DequantizeLinear of its own (1.32).
              x -> com.microsoft.FastGelu(x), with tanh in place of erf                         Tanh and all around it
              Also between float operators: on processors ONNX Runtime makes no operator of these nine.
    folded    codes -> Transpose -> Reshape -> Conv -> Reshape -> Transpose -> codes                               Conv
              Neighbouring pixels of a row count as channels of one (plan/folding.py), because the integer kernel is
              slow with few of them. The sums are the same, to the bit.
    widened   between dense convolutions, channels of zeros are added                                  Conv, depthwise
              The integer kernel is fast with a multiple of 16 channels (plan/widening.py). What is computed in those
              that are added is ignored.
    channels-last  codes -> Transpose -> com.microsoft.NhwcMaxPool -> Transpose -> codes                        MaxPool
              Channels first, the kernel for bytes takes 10 to 70 times as long (1.32). ONNX Runtime mostly turns it
              by itself, with the convolutions around; this is for where it does not.
    one-scale  one scale for the whole weight, beside any of the other forms                                     Gemm
              What follows the sums takes less then: a third of all where the input is one row (1.32). In products of
              46 rows it is a twentieth, and not worth the accuracy.
    two-bytes  Mul(Cast(codes of 16 bits), scale)                             whatever computes in float, weights stored
              Weights that 8 bits cannot hold: half the bytes of float, and what is lost is 1/256 of that.

A target lists, for each operator, the forms that its runtime has (``Capability.forms``).
"""

from __future__ import annotations

FUSED, DYNAMIC, BOUNDED, ACTIVATION = "fused", "dynamic", "bounded", "activation"
FOLDED, WIDENED, CHANNELS_LAST, ONE_SCALE = "folded", "widened", "channels-last", "one-scale"
TWO_BYTES = "two-bytes"
PLAIN = "plain"
"""Not in any of the others."""

# Taken by shape, or by what becomes of a node, rather than where a profile shows a gain of it.
UNPROFILED = (FOLDED, WIDENED, CHANNELS_LAST, ONE_SCALE, TWO_BYTES)

FORMS = (FUSED, DYNAMIC, BOUNDED, ACTIVATION, FOLDED, WIDENED, CHANNELS_LAST, ONE_SCALE, TWO_BYTES, PLAIN)

# The least exponent that a bounded Softmax computes with. The row's sum divides what comes of it, and the product with
# the values multiplies it: exp(-64) leaves 2**34 for either before numbers are subnormal.
BOUND = -64.0

TITLES = {
    FUSED: "bias inside (MatMulIntegerToFloat)",
    DYNAMIC: "its input is quantized as the model runs",
    ACTIVATION: "an activation function as one float operator (Gelu, FastGelu, QuickGelu)",
    FOLDED: "pixels of a row read as channels",
    WIDENED: "channels filled up to",
    CHANNELS_LAST: "channels last",
    ONE_SCALE: "one scale for its weight",
    TWO_BYTES: "16 bits each",
    BOUNDED: "bounded from below, so that masks make no subnormal numbers",
}
