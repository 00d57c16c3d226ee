"""One small sound file of every kind that qconvert reads: what damaged ones are made from."""

from __future__ import annotations

import io
import json
import struct
import wave
from pathlib import Path

import numpy as np
import onnx
from fuzz.worker import Worker
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 4, 4)
SAMPLES = 6


def fill(folder: Path, run: Worker) -> None:
    """Write them all into ``folder``; ``run`` makes the statistics among them."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(SAMPLES, *SHAPE)).astype(np.float32)
    for name, model in {"model.onnx": float_model(rng), "qdq.onnx": qdq_model(rng), "body.onnx": body_model()}.items():
        (folder / name).write_bytes(model.SerializeToString())
    (folder / "pixels.onnx").write_bytes(float_model(rng, "pixels", (3, 8, 8)).SerializeToString())
    (folder / "sound.onnx").write_bytes(sound_model(rng).SerializeToString())
    (folder / "rows.onnx").write_bytes(rows_model(rng).SerializeToString())
    np.savez(folder / "data.npz", image=images)
    np.save(folder / "data.npy", images)
    np.save(folder / "labels.npy", rng.integers(0, 3, SAMPLES))
    (folder / "data.csv").write_text(table(rng), encoding="utf-8")
    (folder / "data.jsonl").write_text(lines(rng), encoding="utf-8")
    (folder / "data.safetensors").write_bytes(safetensors(images))
    test_data(folder / "pb", images)
    pictures(folder / "png", rng)
    sounds(folder / "wav", rng)
    for name in ("ranges.npz", "other.npz"):
        made = run.run(f"calibrate model.onnx --calib data.npz -o {name} -q".split(), folder, seconds=60)
        if made.code != 0:
            raise RuntimeError(made.err)
    (folder / "recipe.yaml").write_text("version: 1\nmethod: minmax\nexclude: [Softmax]\nplacement: static\n")
    (folder / "pre.yaml").write_text("resize: 8x8\nscale: 1/255\nmean: [0.5, 0.5, 0.5]\nlayout: nchw\n")


def float_model(rng: np.random.Generator, name: str = "image", shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    """Conv, Relu, GlobalAveragePool, Flatten, Gemm: three classes."""
    weight = rng.normal(size=(4, shape[0], 3, 3)).astype(np.float32)
    constants = {"w": weight, "b": np.zeros(4, np.float32), "v": rng.normal(size=(4, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", [name, "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "v"], ["y"], "gemm"),
    ]
    return _model(nodes, name, ["n", *shape], constants)


def qdq_model(rng: np.random.Generator) -> onnx.ModelProto:
    """A quantized convolution, as other tools write it."""
    codes = rng.integers(-127, 128, size=(4, 1, 3, 3)).astype(np.int8)
    constants = {"w": codes, "s": np.float32(0.02), "z": np.uint8(128), "t": np.float32(0.01), "i": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "t", "i"], ["e"]),
        helper.make_node("Conv", ["d", "e"], ["c"], "conv"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["o"]),
        helper.make_node("DequantizeLinear", ["o", "s", "z"], ["y"]),
    ]
    return _model(nodes, "image", ["n", *SHAPE], {k: np.asarray(v) for k, v in constants.items()})


def body_model() -> onnx.ModelProto:
    """A function and a Loop, each with a node inside."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["go"]),
            helper.make_node("Add", ["v", "v"], ["u"]),
        ],
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("go", TensorProto.BOOL, []), value("u", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Twice", ["image"], ["t"], domain="own"),
        helper.make_node("Loop", ["m", "k", "t"], ["l"], body=body),
        helper.make_node("Flatten", ["l"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    own = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    constants = {"m": np.asarray(2, np.int64), "k": np.asarray(True), "w": np.ones((16, 3), np.float32)}
    model = _model(nodes, "image", ["n", *SHAPE], constants)
    model.functions.append(own)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def sound_model(rng: np.random.Generator) -> onnx.ModelProto:
    """A product over 64 values of sound."""
    nodes = [helper.make_node("MatMul", ["sound", "w"], ["y"])]
    return _model(nodes, "sound", ["n", 64], {"w": rng.normal(size=(64, 3)).astype(np.float32)})


def rows_model(rng: np.random.Generator) -> onnx.ModelProto:
    """A product over rows of four numbers."""
    nodes = [helper.make_node("MatMul", ["row", "w"], ["y"])]
    return _model(nodes, "row", ["n", 4], {"w": rng.normal(size=(4, 3)).astype(np.float32)})


def _model(
    nodes: list[onnx.NodeProto], name: str, shape: list[object], constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def table(rng: np.random.Generator) -> str:
    rows = [",".join(f"{v:.3f}" for v in row) for row in rng.normal(size=(SAMPLES, 4))]
    return "\n".join(["row[0],row[1],row[2],row[3]", *rows]) + "\n"


def lines(rng: np.random.Generator) -> str:
    rows = ([round(float(v), 3) for v in row] for row in rng.normal(size=(SAMPLES, 4)))
    return "".join(json.dumps({"row": row}) + "\n" for row in rows)


def safetensors(images: np.ndarray) -> bytes:
    header = json.dumps({"image": {"dtype": "F32", "shape": images.shape, "data_offsets": [0, images.nbytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + images.tobytes()


def test_data(folder: Path, images: np.ndarray) -> None:
    for i in range(3):
        place = folder / f"test_data_set_{i}"
        place.mkdir(parents=True)
        (place / "input_0.pb").write_bytes(numpy_helper.from_array(images[i : i + 1], "image").SerializeToString())


def pictures(folder: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    folder.mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")


def sounds(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    for i in range(3):
        stream = io.BytesIO()
        with wave.open(stream, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(rng.integers(-9000, 9000, 64).astype("<i2").tobytes())
        (folder / f"{i}.wav").write_bytes(stream.getvalue())
