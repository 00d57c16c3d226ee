"""Malformed inputs made on purpose, each with the command line that meets it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import numpy as np
from fuzz.damages import (
    YAML,
    Damage,
    branches,
    changed,
    content,
    convolution,
    cut,
    endless,
    flip,
    functions,
    grown,
    linked,
    model,
    nothing,
    npy,
    npz,
    objects,
    outside,
    picture,
    safetensors,
    sound,
    weight,
)
from fuzz.lines import OUT
from fuzz.seeds import SHAPE
from onnx import helper

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
    # places, numbers and values that no run can use
    case("a name that no file can have", QUANTIZE.replace(OUT, "x" * 300 + ".onnx"), nothing, "too long"),
    case("a path that no file can have", f"inspect {'/'.join(['x' * 200] * 30)}", nothing, "too long"),
    case("a link to itself", "inspect loop.onnx", lambda f: (f / "loop.onnx").symlink_to("loop.onnx"), "loop.onnx"),
    case("a folder as the model", INSPECT.replace("model.onnx", "png"), nothing, "folder"),
    case("a folder as the output", f"{QUANTIZE.replace(OUT, 'png')} --force", nothing, "folder"),
    case("a folder as labels", f"{EVALUATE} --labels png", nothing, "png"),
    case("an empty folder", CALIBRATE.replace("data.npz", "none"), lambda f: (f / "none").mkdir(), "none"),
    case(
        "the model as the output", f"{QUANTIZE.replace(OUT, 'png/../model.onnx')} --force", nothing, "the model itself"
    ),
    case("the data as the output", f"{QUANTIZE.replace(OUT, 'data.npz')} --force", nothing, "data.npz"),
    case("a device as data", EVALUATE.replace("data.npz", "/dev/zero"), nothing, "/dev/zero"),
    case("a pipe as the model", "inspect pipe", lambda f: os.mkfifo(f / "pipe"), "pipe"),
    case("pickled objects", QUANTIZE, objects, "image"),
    case(
        "no samples", CALIBRATE, lambda f: np.savez(f / "data.npz", image=np.ones((0, *SHAPE), np.float32)), "data.npz"
    ),
    case(
        "not a number",
        QUANTIZE,
        lambda f: np.savez(f / "data.npz", image=np.full((6, *SHAPE), np.nan, np.float32)),
        "NaN",
    ),
    case(
        "complex numbers",
        EVALUATE,
        lambda f: np.savez(f / "data.npz", image=np.ones((6, *SHAPE), np.complex64)),
        "complex64",
    ),
    case(
        "labels of other classes",
        f"{EVALUATE} --labels labels.npy --metric top1",
        lambda f: np.save(f / "labels.npy", np.arange(6) * 99),
        "label",
    ),
    case(
        "too few labels", f"{EVALUATE} --labels labels.npy", lambda f: np.save(f / "labels.npy", np.arange(3)), "labels"
    ),
    case("a gate at infinity", f"{COMPARE.replace('qdq', 'model')} --fail-if sqnr<1e999", nothing, "1e999"),
    case("a gate that is code", f"{COMPARE} --fail-if __import__('os').system('id')>1", nothing, "--fail-if"),
    case("a gate that nothing breaks", "bench model.onnx model.onnx --require-speedup nan", nothing, "nan"),
    case(
        "a function that exits",
        "evaluate model.onnx --data python:bad:f",
        content("bad.py", "def f():\n    exit(0)\n"),
        "bad",
    ),
    case("a model of an opset to come", QUANTIZE, changed(lambda m: setattr(m.opset_import[0], "version", 999)), "999"),
    case("a model without outputs", EVALUATE, changed(lambda m: m.graph.ClearField("output")), "no output"),
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
