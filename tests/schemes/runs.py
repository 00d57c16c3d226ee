"""Whole runs of the main job on networks, from the library on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from networks.all import NETWORKS

from qconvert.calibrate.data import DataSpec
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe
from qconvert.report.model import Report


class Feeds(list):  # type: ignore[type-arg]
    """Samples as the stages take them."""

    def feed(self, i: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = self[i]
        return found


def made(name: str, recipe: Recipe, folder: Path) -> tuple[Report, onnx.ModelProto]:
    """Network ``name`` quantized on its own inputs."""
    net = NETWORKS[name]()
    model, calib, output = folder / "model.onnx", folder / "calib", folder / f"{recipe.scheme}.onnx"
    model.write_bytes(net.proto.SerializeToString())
    calib.mkdir(exist_ok=True)
    for i, feed in enumerate(net.feeds[:6]):
        np.savez(calib / f"{i}.npz", **feed)
    job = QuantizeJob(model=model, calib=DataSpec(sources=(str(calib),)), recipe=recipe, output=output, force=True)
    return quantize(job), onnx.load(output)


def types_of(proto: onnx.ModelProto, op: str, port: int) -> set[str]:
    """Types of the constants at ``port`` of the ``op`` nodes."""
    held = {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in proto.graph.initializer}
    return {held[n.input[port]] for n in proto.graph.node if n.op_type == op and n.input[port] in held}
