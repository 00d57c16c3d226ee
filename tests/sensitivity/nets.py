"""Nets whose errors are known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from networks.builder import Builder, Feed
from onnx import numpy_helper

from qconvert.calibrate.data import DataSpec
from qconvert.inputs import ConversionJob
from qconvert.recipe.recipe import Recipe

WIDTH = 24

# Scales of activations are those of the extremes, and nothing is recovered.
# static: what pays on so small a net is not what these tests are about
PLAIN = Recipe(recover=("none",), method="minmax", placement="static")


def chain(layers: int, seed: int = 5) -> tuple[onnx.ModelProto, list[Feed]]:
    """x -> (Gemm -> Relu) x layers -> Gemm -> y."""
    b = Builder(seed=seed)
    x = b.input("x", [1, WIDTH])
    for _ in range(layers):
        x = b.relu(b.gemm(x, WIDTH, WIDTH))
    b.output(b.gemm(x, WIDTH, 6, out="y"), [1, 6])
    return b.model(), b.feeds(48)


def chain_with_an_outlier(loud: float = 2000.0) -> tuple[onnx.ModelProto, list[Feed]]:
    """The same with 4 layers; channel 0 of the second one's result is ``loud`` times the others, and read as softly.

    In 8 bits nothing is left of the other channels. Who reads it is the third Gemm.
    """
    proto, feeds = chain(4)
    weights = {t.name: t for t in proto.graph.initializer}
    gemms = [n for n in proto.graph.node if n.op_type == "Gemm"]
    for node, part, factor in ((gemms[1], np.s_[0, :], loud), (gemms[2], np.s_[:, 0], 1 / loud)):
        tensor = weights[node.input[1]]
        array = numpy_helper.to_array(tensor).copy()
        array[part] *= factor
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    bias = weights[gemms[1].input[2]]
    louder = np.where(np.arange(WIDTH) == 0, loud, 1.0) * numpy_helper.to_array(bias)
    bias.CopyFrom(numpy_helper.from_array(louder.astype(np.float32), bias.name))
    return proto, feeds


def loudest(proto: onnx.ModelProto) -> str:
    """The name of the Gemm that reads the outlier."""
    return [n.name for n in proto.graph.node if n.op_type == "Gemm"][2]


def written(proto: onnx.ModelProto, feeds: list[Feed], folder: Path) -> tuple[Path, Path]:
    """(model, samples) as files."""
    model, data = folder / "net.onnx", folder / "calib.npz"
    onnx.save(proto, model)
    np.savez(data, **{k: np.concatenate([f[k] for f in feeds]) for k in feeds[0]})
    return model, data


def job(proto: onnx.ModelProto, feeds: list[Feed], folder: Path, recipe: Recipe = PLAIN) -> ConversionJob:
    model, data = written(proto, feeds, folder)
    return ConversionJob(model=model, calib=DataSpec(sources=(str(data),)), recipe=recipe)
