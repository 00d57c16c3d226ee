"""The model as it is handed over: with integers at its ends where the target has no float arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qconvert.conversion import Quantized
from qconvert.emit.integer_io import IntegerPort, with_integer_io
from qconvert.errors import InternalError
from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.graph.signature import session_of
from qconvert.numerics.affine import quantize
from qconvert.numerics.dtypes import qtype
from qconvert.numerics.spec import QParams, QuantSpec
from qconvert.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What is written.

    Attributes:
        model: the model.
        ports: its inputs and outputs that are integers where the original has floats.
    """

    model: Model
    ports: tuple[IntegerPort, ...] = ()


def deliver(quantized: Quantized, target: Target, feed: Feed) -> Delivered:
    """The model to write for ``target``; one with integer ends is run on ``feed`` and compared with ``quantized``.

    Raises:
        InternalError: it does not compute the same.
    """
    if not target.integer_only:
        return Delivered(model=quantized.model)
    model, ports = with_integer_io(quantized.model)
    params = {(p.side, p.name): _params(p) for p in ports}
    codes = {n: quantize(np.asarray(a), params["input", n]) if ("input", n) in params else a for n, a in feed.items()}
    session = session_of(model)
    results = zip(session.outputs, session.run(codes), quantized.session.run(feed), strict=True)
    for spec, found, wanted in results:
        key = ("output", spec.name)
        # codes are compared, because an input that is an output, too, has been rounded on the way
        if not np.array_equal(found, quantize(np.asarray(wanted), params[key]) if key in params else wanted):
            raise InternalError(f"the output {spec.name} changes with integers at the model's ends")
    return Delivered(model=model, ports=ports)


def _params(port: IntegerPort) -> QParams:
    kind = qtype(port.dtype)
    return QParams(
        spec=QuantSpec(qtype=kind, symmetric=False),
        scale=np.asarray(port.scale, np.float32),
        zero_point=np.asarray(port.zero_point, kind.dtype),
    )
