"""Malformed inputs made on purpose, each with the command line that meets it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from fuzz.lines import OUT
from fuzz.seeds import SHAPE
from onnx import TensorProto, helper, numpy_helper

Damage = Callable[[Path], None]

QUANTIZE = f"quantize model.onnx --calib data.npz -o {OUT} --placement static --method minmax --recover none"
CALIBRATE = f"calibrate model.onnx --calib data.npz -o {OUT}"
EVALUATE = "evaluate model.onnx --data data.npz"
INSPECT = "inspect model.onnx"
CHECK = "check model.onnx"
COMPARE = "compare qdq.onnx model.onnx --data data.npz"
CONVERT = f"convert qdq.onnx --to float -o {OUT}"
BLIND = f"quantize model.onnx --scheme fp16 --no-measure -o {OUT}"
MERGE = f"merge ranges.npz other.npz -o {OUT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One malformed input.

    Attributes:
        name: what is wrong.
        line: the command line that must refuse it.
        damage: makes it, in a folder that holds the files of ``seeds``.
        says: what the message must name.
    """

    name: str
    line: str
    damage: Damage
    says: tuple[str, ...] = ()


def case(name: str, line: str, damage: Damage, *says: str) -> Hostile:
    return Hostile(name=name, line=line, damage=damage, says=says)


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

LARGE = np.asarray([1 << 20, 1 << 20], np.int64)

HOSTILE: tuple[Hostile, ...] = (
    # models cut short and with wrong bits
    case("half a model", QUANTIZE, cut("model.onnx", 0.5), "model.onnx"),
    case("a quarter of a model", INSPECT, cut("model.onnx", 0.25), "model.onnx"),
    case("a model but for its end", CALIBRATE, cut("model.onnx", 0.99), "model.onnx"),
    case("three quarters of a model", EVALUATE, cut("model.onnx", 0.75), "model.onnx"),
    case("half a quantized model", CONVERT, cut("qdq.onnx", 0.5), "qdq.onnx"),
    case("half a model to check", CHECK, cut("model.onnx", 0.4), "model.onnx"),
    case("half a second model", COMPARE, cut("model.onnx", 0.6), "model.onnx"),
    case("bits of a model", QUANTIZE, flip("model.onnx", 0.02, 0.03, 0.1, 0.5), "model.onnx"),
    case("bits of a quantized model", CONVERT, flip("qdq.onnx", 0.05, 0.1, 0.3)),
    case("bits of a function", "inspect body.onnx", flip("body.onnx", 0.02), "body.onnx"),
    # arrays
    case("half an npz", QUANTIZE, cut("data.npz", 0.5), "data.npz"),
    case("bits of an npz", EVALUATE, flip("data.npz", 0.5), "data.npz"),
    case("half an npy", CALIBRATE.replace("npz", "npy"), cut("data.npy", 0.7), "data.npy"),
    case("bits of an npy", EVALUATE.replace("npz", "npy"), flip("data.npy", 0.02), "data.npy"),
    case("half a pb", CALIBRATE.replace("data.npz", "pb"), cut("pb/test_data_set_1/input_0.pb", 0.5), "input_0.pb"),
    case("bits of a pb", EVALUATE.replace("data.npz", "pb"), flip("pb/test_data_set_1/input_0.pb", 0.04), "input_0.pb"),
    case("half a row of a csv", f"calibrate rows.onnx --calib data.csv -o {OUT}", cut("data.csv", 0.8), "data.csv"),
    case("binary csv", "evaluate rows.onnx --data data.csv", content("data.csv", bytes(range(256)) * 9), "data.csv"),
    case("half a line of a jsonl", f"calibrate rows.onnx --calib data.jsonl -o {OUT}", cut("data.jsonl", 0.9), "jsonl"),
    case("nested jsonl", "evaluate rows.onnx --data data.jsonl", content("data.jsonl", "[" * 99_999), "data.jsonl"),
    case(
        "half a safetensors", EVALUATE.replace("npz", "safetensors"), cut("data.safetensors", 0.5), "data.safetensors"
    ),
    case("half a png", f"calibrate pixels.onnx --calib png -o {OUT}", cut("png/1.png", 0.5), "1.png"),
    case("bits of a png", "evaluate pixels.onnx --data png", flip("png/1.png", 0.1, 0.6), "1.png"),
    case("half a wav", f"calibrate sound.onnx --calib wav -o {OUT}", cut("wav/1.wav", 0.15), "1.wav"),
    case("bits of a wav", "evaluate sound.onnx --data wav", flip("wav/1.wav", 0.12, 0.2), "1.wav"),
    case("half of statistics", MERGE, cut("ranges.npz", 0.6), "ranges.npz"),
    case("bits of statistics", MERGE, flip("other.npz", 0.2, 0.5), "other.npz"),
    case("half of ranges", f"quantize model.onnx --ranges ranges.npz -o {OUT}", cut("ranges.npz", 0.4), "ranges.npz"),
    case("labels cut", f"{EVALUATE} --labels labels.npy", cut("labels.npy", 0.9), "labels.npy"),
    # shapes beyond all memory
    case("huge npy", CALIBRATE.replace("npz", "npy"), content("data.npy", npy([1 << 40, *SHAPE])), "data.npy"),
    case("npy of negative size", EVALUATE.replace("npz", "npy"), content("data.npy", npy([-4, *SHAPE])), "data.npy"),
    case("huge npz", QUANTIZE, npz([1 << 40, *SHAPE]), "data.npz"),
    case("huge safetensors", EVALUATE.replace("npz", "safetensors"), safetensors({}, size=1 << 62), "data.safetensors"),
    case(
        "safetensors beyond its file",
        CALIBRATE.replace("npz", "safetensors"),
        safetensors({"image": {"dtype": "F32", "shape": [1 << 40, *SHAPE], "data_offsets": [0, 1 << 46]}}),
        "data.safetensors",
    ),
    case(
        "huge pb",
        EVALUATE.replace("data.npz", "pb"),
        lambda f: content("pb/test_data_set_1/input_0.pb", weight([1 << 40, 1, 4, 4]).SerializeToString())(f),
        "input_0.pb",
    ),
    case("huge png", "evaluate pixels.onnx --data png", content("png/1.png", picture(60_000, 60_000)), "1.png"),
    case("huge wav", "evaluate sound.onnx --data wav", content("wav/1.wav", sound(0xFFFF_FFF0)), "1.wav"),
    case("wav of no rate", "evaluate sound.onnx --data wav", content("wav/1.wav", sound(128, 0, 0)), "1.wav"),
    case("huge weight", INSPECT, convolution(weight([1 << 40, 1, 3, 3])), "'w'"),
    case("weight beyond 64 bits", BLIND, convolution(weight([1 << 62, 1 << 62, 3, 3])), "'w'"),
    case("weight of negative size", CHECK, convolution(weight([-4, 1, 3, 3])), "'w'"),
    case(
        "huge input",
        f"quantize model.onnx --calib random:4 -o {OUT}",
        model([helper.make_node("Conv", ["image", "w"], ["y"])], [weight()], shape=[1, 1, 1 << 20, 1 << 20]),
        "image",
    ),
    case("huge made constant", QUANTIZE, grown("ConstantOfShape", LARGE)),
    case("huge expansion", EVALUATE, grown("Expand", np.asarray([1 << 20, 1 << 10, 4, 4], np.int64))),
    case("huge range", CALIBRATE, grown("Range", *map(np.float32, (0, 1e12, 1)))),
    case("eight gigabytes", CHECK, grown("Expand", np.asarray([1 << 12, 1 << 15, 4, 4], np.int64)), "large"),
    case("huge padding", COMPARE, grown("Pad", np.asarray([0, 0, 1 << 20, 0, 0, 0, 0, 1 << 20], np.int64))),
    case("huge tiles", QUANTIZE, grown("Tile", np.asarray([1 << 10, 1 << 10, 1 << 10, 1 << 10], np.int64))),
    case("padding beyond 64 bits", QUANTIZE, convolution(weight(), pads=[1 << 62] * 4)),
    case("strides of nothing", EVALUATE, convolution(weight(), strides=[0, 0])),
    case("groups of nothing", CALIBRATE, convolution(weight(), group=0)),
    # graphs in graphs
    case("sixty branches deep", INSPECT, branches(60), "model.onnx"),
    case("two thousand branches deep", QUANTIZE, branches(2000), "model.onnx"),
    case("functions that call themselves", QUANTIZE, functions(3, 1, loop=True)),
    case("a function that calls itself", INSPECT, functions(1, 1, loop=True)),
    case("functions that double", QUANTIZE, functions(40, 2)),
    case("functions that double, unrun", BLIND, functions(40, 2)),
    # loops: those whose file says that they do not end, and those that turn out so
    case("a loop of 2^60 trips", QUANTIZE, endless(1 << 60), "over 1,000,000,000 times"),
    case("a loop of 2^60 trips, unrun", INSPECT, endless(1 << 60), "over 1,000,000,000 times"),
    case("a loop without a condition", EVALUATE, endless(), "never end"),
    case("a loop in a loop", CHECK, endless(1 << 20, inner=1 << 20), "over 1,000,000,000 times"),
    case("a loop that piles up", CALIBRATE, endless(1 << 20, collect=1 << 14), "over 4 GiB"),
    case("a loop of so many pixels", QUANTIZE, endless(1 << 50, least=True), "may never end"),
    case("a loop until a sigmoid is two", CHECK, endless(counted=True), "may never end"),
    case(
        "a loop in a loop of pixels", "bench model.onnx", endless(1 << 20, least=True, inner=1 << 20), "may never end"
    ),
    case("a pile of so many pixels", COMPARE, endless(1 << 50, least=True, collect=1 << 20), "MB of memory"),
    # data outside the model
    case("absolute place", QUANTIZE, outside(location="ABSOLUTE"), "outside the model's folder"),
    case("place above", INSPECT, outside(location="../w.bin"), "outside the model's folder"),
    case("place above by a detour", CALIBRATE, outside(location="a/../../w.bin"), "outside the model's folder"),
    case("a device", EVALUATE, outside(location="/dev/zero"), "outside the model's folder"),
    case("a link", CHECK, linked(lambda to, other: to.symlink_to(other)), "symbolic link"),
    case("a hard link", BLIND, linked(lambda to, other: os.link(other, to)), "hard link"),
    case("a pipe", QUANTIZE, linked(lambda to, other: os.mkfifo(to)), "plain file"),
    case("a folder", INSPECT, linked(lambda to, other: shutil.copytree(other.parent, to) and None), "plain file"),
    case("nothing there", COMPARE, outside(location="none.bin"), "missing"),
    case("no place", INSPECT, outside(offset="0"), "'w'"),
    case("offset beyond the file", QUANTIZE, outside(location="w.bin", offset="9999"), "too few"),
    case("offset below zero", EVALUATE, outside(location="w.bin", offset="-4"), "'w'"),
    case("offset no number", INSPECT, outside(location="w.bin", offset="0x10"), "no number"),
    case("length beyond the file", CALIBRATE, outside(location="w.bin", length="999999"), "too few"),
    case("length too short", BLIND, outside(location="w.bin", length="4"), "too few"),
    # YAML
    *(
        case(f"recipe: {n}", f"{INSPECT} --recipe r.yaml", content("r.yaml", text), "r.yaml")
        for n, text in YAML.items()
    ),
    *(
        case(
            f"preprocessing: {n}",
            f"calibrate pixels.onnx --calib png --preprocess p.yaml -o {OUT}",
            content("p.yaml", text),
            "p.yaml",
        )
        for n, text in YAML.items()
    ),
)
