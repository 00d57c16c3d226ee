"""Networks in half precision, by ONNX Runtime's own converter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from networks.builder import Network
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16


def halved(net: Network, *, keep_io: bool = False, blocked: Sequence[str] = ()) -> Network:
    """``net`` in float16.

    Args:
        net: a float32 network; it is not changed.
        keep_io: inputs and outputs stay float32, behind Casts.
        blocked: operator types that stay float32, between Casts.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(net.proto)
    proto = convert_float_to_float16(copy, keep_io_types=keep_io, op_block_list=[*blocked])
    half = {v.name for v in proto.graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    feeds = [{k: np.asarray(v, np.float16) if k in half else v for k, v in feed.items()} for feed in net.feeds]
    return replace(net, proto=proto, feeds=feeds)
