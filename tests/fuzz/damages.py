"""What makes malformed inputs, in a folder that holds the files of ``seeds``."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from fuzz.seeds import SHAPE
from onnx import TensorProto, helper, numpy_helper

Damage = Callable[[Path], None]


# ---- bytes


def cut(file: str, share: float) -> Damage:
    """The first part of a file only."""

    def damage(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: int(len(data) * share)])

    return damage


def flip(file: str, *places: float) -> Damage:
    """A bit the other way at each of these shares of the file."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / file).read_bytes())
        for place in places:
            data[int(len(data) * place)] ^= 0x10
        (folder / file).write_bytes(data)

    return damage


def content(file: str, data: bytes | str) -> Damage:
    """A file with this content."""
    raw = data.encode() if isinstance(data, str) else data
    return lambda folder: (folder / file).write_bytes(raw) and None


# ---- arrays


def npy(shape: Sequence[int], data: bytes = bytes(64)) -> bytes:
    """An array that declares this shape."""
    header = str({"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npz(shape: Sequence[int], *, zeros: int = 64) -> Damage:
    """A stacked file whose array declares this shape, over compressed zeros."""

    def damage(folder: Path) -> None:
        with (
            zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("image.npy", "w", force_zip64=True) as member,
        ):
            member.write(npy(shape, b""))
            for _ in range(zeros >> 20):
                member.write(bytes(1 << 20))
            member.write(bytes(zeros & ((1 << 20) - 1)))

    return damage


def safetensors(header: object, *, size: int | None = None) -> Damage:
    raw = json.dumps(header).encode()
    return content("data.safetensors", struct.pack("<Q", len(raw) if size is None else size) + raw + bytes(64))


def picture(width: int, height: int) -> bytes:
    """A PNG that declares this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def sound(size: int, rate: int = 8000, bits: int = 16) -> bytes:
    """A WAV that declares this many bytes."""
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * bits // 8, bits // 8, bits)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size) + bytes(128)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


# ---- models


def model(nodes: Sequence[onnx.NodeProto], constants: Sequence[TensorProto] = (), **more: object) -> Damage:
    """A model of these nodes, from "image" to "y"."""

    def damage(folder: Path) -> None:
        graph = helper.make_graph(
            list(nodes),
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, more.get("shape", ["n", *SHAPE]))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            list(constants),
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=more.get("functions", ()))
        (folder / "model.onnx").write_bytes(made.SerializeToString())

    return damage


def convolution(weight: TensorProto, **attributes: object) -> Damage:
    return model([helper.make_node("Conv", ["image", "w"], ["y"], "conv", **attributes)], [weight])


def weight(dims: Sequence[int] = (4, 1, 3, 3), data: bytes = bytes(144)) -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=data)


def outside(**entries: str) -> Damage:
    """A weight in another file; a secret lies beside the model's folder."""

    def damage(folder: Path) -> None:
        (folder / "w.bin").write_bytes(bytes(144))
        kept = weight(data=b"")
        kept.ClearField("raw_data")
        kept.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            kept.external_data.add(key=key, value=value.replace("ABSOLUTE", str(folder / "w.bin")))
        convolution(kept)(folder)

    return damage


def linked(make: Callable[[Path, Path], None]) -> Damage:
    """The weight's file is replaced by what ``make`` makes of (its path, a file elsewhere)."""

    def damage(folder: Path) -> None:
        outside(location="w.bin")(folder)
        (folder / "w.bin").unlink()
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere" / "w.bin").write_bytes(bytes(144))
        make(folder / "w.bin", folder / "elsewhere" / "w.bin")

    return damage


def grown(op: str, *operands: np.ndarray, **attributes: object) -> Damage:
    """An operator that makes more than any memory holds, before a product with weights."""
    constants = [numpy_helper.from_array(a, f"k{i}") for i, a in enumerate(operands)]
    names = [c.name for c in constants]
    feeding = names if op in ("ConstantOfShape", "Range") else ["image", *names]
    nodes = [
        helper.make_node(op, feeding, ["large"], op, **attributes),
        helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0),
        helper.make_node("Conv", ["image", "w"], ["c"], "conv"),
        helper.make_node("Add", ["c", "most"], ["y"]),
    ]
    return model(nodes, [*constants, numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")])


def branches(depth: int) -> Damage:
    """If inside If inside If."""
    from end_to_end.wrong_input import nested

    return content("model.onnx", nested(depth))


def functions(depth: int, calls: int, *, loop: bool = False) -> Damage:
    """Functions that call the next one so many times; the last one the first, if ``loop``."""
    made = []
    for i in range(depth):
        last = i == depth - 1
        op, domain = ("Relu", "") if last and not loop else (f"F{0 if last else i + 1}", "own")
        names = ["a", *(f"v{k}" for k in range(calls - 1)), "b"]
        body = [helper.make_node(op, [names[k]], [names[k + 1]], domain=domain) for k in range(calls)]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        made.append(helper.make_function("own", f"F{i}", ["a"], ["b"], body, opsets))
    nodes = [
        helper.make_node("F0", ["image"], ["f"], domain="own"),
        helper.make_node("Conv", ["f", "w"], ["y"], "conv"),
    ]
    return model(nodes, [numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")], functions=made)


def endless(
    trips: int | None = None, *, least: bool = False, collect: int = 0, inner: int | None = None, counted: bool = False
) -> Damage:
    """A Loop of so many trips (None: while its condition holds); of at ``least`` that many times the input's size.

    It collects ``collect`` values a trip, and holds another Loop of ``inner`` trips. Its condition is true: by
    construction, or (``counted``) because of what it computes.
    """

    def info(name: str, kind: int, shape: list[int] | None = None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    def loop(count: str, value: str, result: str, last: str, within: Sequence[onnx.NodeProto]) -> onnx.NodeProto:
        step, on, go, carried = (f"{result}_{name}" for name in ("i", "on", "go", "v"))
        nodes, tested = [*within], [helper.make_node("Identity", [on], [go])]
        if counted:
            tested = [helper.make_node("ReduceMax", [last], ["most"], keepdims=0)]
            tested += [helper.make_node("Less", ["most", "two"], [go])]
        outputs = [info(go, TensorProto.BOOL, []), info(last, TensorProto.FLOAT)]
        if collect:
            nodes.append(helper.make_node("ConstantOfShape", ["size"], ["zeros"]))
            outputs.append(info("zeros", TensorProto.FLOAT, [collect]))
        inputs = [info(step, TensorProto.INT64, []), info(on, TensorProto.BOOL, []), info(carried, TensorProto.FLOAT)]
        body = helper.make_graph([*nodes, *tested], "b", inputs, outputs)
        return helper.make_node("Loop", [count, "yes", value], [result, "c"] if collect else [result], body=body)

    steps = [helper.make_node("Sigmoid", ["l_v"], ["u"])]
    if inner is not None:
        steps.append(loop("inner", "u", "t", "s", [helper.make_node("Sigmoid", ["t_v"], ["s"])]))
    numbers = {"trips": np.int64(trips or 0), "inner": np.int64(inner or 0), "two": np.float32(2), "yes": np.True_}
    numbers |= {"size": np.asarray([collect], np.int64)}
    count = "" if trips is None else "product" if least else "trips"
    nodes = [
        helper.make_node("Size", ["image"], ["pixels"]),
        helper.make_node("Mul", ["pixels", "trips"], ["product"]),
        loop(count, "image", "l", "u" if inner is None else "t", steps),
        *([helper.make_node("ReduceSum", ["c"], ["d"], keepdims=0)] if collect else []),
        helper.make_node("Add", ["l", "d" if collect else "two"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["y"], "conv"),
    ]
    kernel = numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")
    return model(nodes, [kernel, *(numpy_helper.from_array(np.asarray(v), k) for k, v in numbers.items())])


# ---- places and values


def nothing(folder: Path) -> None:
    """The files are as they should be."""
    del folder


def objects(folder: Path) -> None:
    """An array that only unpickling could read."""
    np.savez(folder / "data.npz", image=np.array([{"a": 1}] * 6, dtype=object))


def changed(change: Callable[[onnx.ModelProto], None]) -> Damage:
    """The model with a change to its message."""

    def damage(folder: Path) -> None:
        proto = onnx.load(folder / "model.onnx")
        change(proto)
        (folder / "model.onnx").write_bytes(proto.SerializeToString())

    return damage


# ---- YAML

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
YAML = {
    "aliases": BOMB,
    "nested lists": "exclude: " + "[" * 1_500,
    "nested keys": "".join(f"{' ' * i}a:\n" for i in range(900)),
    "two megabytes": "# " + "x" * 2_000_000 + "\nmethod: mse\n",
    "tags": "!!python/object/apply:os.system ['touch out.onnx']\n",
    "endless number": "block: " + "9" * 50_000 + "\n",
    "many keys": "".join(f"k{i}: 1\n" for i in range(1_000)),
}
