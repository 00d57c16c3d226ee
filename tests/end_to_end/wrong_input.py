"""Wrong command lines, each with what its refusal must name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from end_to_end.command import calib_of, eval_of, images, labels_of, model_of
from end_to_end.texts import BOMB, CUSTOM, INTEGERS, MISSING_INPUT, NO_INPUTS, OPTIONAL, RELU, SEQUENCE
from onnx import TensorProto, helper, numpy_helper, parser

CNN, CALIB = model_of("digits_cnn"), calib_of("digits_cnn")
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A wrong command line.

    Attributes:
        name: what is wrong.
        make: puts files into an empty folder and returns the arguments after "quantize"; a dict of options stands for
            the sample model and data with these options changed.
        says: what the message must name.
        usage: the command line's own parser refuses it, which names the option and shows no hint of ours.
        hint: whether there is anything to advise beyond the message.
    """

    name: str
    make: Callable[[Path], Sequence[object]]
    says: tuple[str, ...]
    usage: bool = False
    hint: bool = True


def line(folder: Path, *more: object, model: object = CNN, calib: object = CALIB, output: object = "") -> list[object]:
    """A command line that is right but for what is given."""
    return [model, "--calib", calib, "-o", output or folder / "out.onnx", *more]


def with_model(content: bytes, name: str = "model.onnx") -> Callable[[Path], Sequence[object]]:
    """A model file with this content."""

    def make(folder: Path) -> Sequence[object]:
        (folder / name).write_bytes(content)
        return line(folder, model=folder / name)

    return make


def with_calib(**arrays: np.ndarray) -> Callable[[Path], Sequence[object]]:
    """Stacked calibration data with these arrays."""

    def make(folder: Path) -> Sequence[object]:
        np.savez(folder / "calib.npz", **arrays)
        return line(folder, calib=folder / "calib.npz")

    return make


def with_recipe(text: str) -> Callable[[Path], Sequence[object]]:
    """A recipe file with this text."""

    def make(folder: Path) -> Sequence[object]:
        (folder / "recipe.yaml").write_text(text)
        return line(folder, "--recipe", folder / "recipe.yaml")

    return make


def with_options(*options: object) -> Callable[[Path], Sequence[object]]:
    """Options added to a right command line."""
    return lambda folder: line(folder, *options)


def from_text(text: str, feed: dict[str, np.ndarray], **constants: np.ndarray) -> Callable[[Path], Sequence[object]]:
    """A model as ONNX text, with data that fit it."""

    def make(folder: Path) -> Sequence[object]:
        model = parser.parse_model(text)
        model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        if feed:
            np.savez(folder / "calib.npz", **feed)
        return line(folder, model=folder / "model.onnx", calib=folder / "calib.npz" if feed else CALIB)

    return make


def spoiled(value: float) -> np.ndarray:
    """Images of which the third holds one wrong value."""
    x = images().copy()
    x[2, 0, 3, 3] = value
    return x


def empty_folder(folder: Path) -> Sequence[object]:
    (folder / "calib").mkdir()
    return line(folder, calib=folder / "calib")


def corrupt_among_good(folder: Path) -> Sequence[object]:
    calib = folder / "calib"
    calib.mkdir()
    for i in range(8):
        np.savez(calib / f"{i}.npz", image=images()[0])
    (calib / "5.npz").write_bytes((calib / "5.npz").read_bytes()[:150])
    return line(folder, calib=calib)


def pickled(folder: Path) -> Sequence[object]:
    np.save(folder / "calib.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return line(folder, calib=folder / "calib.npy")


def mixed_folder(folder: Path) -> Sequence[object]:
    (folder / "calib").mkdir()
    np.savez(folder / "calib/0.npz", image=images()[0])
    np.save(folder / "calib/1.npy", images()[0])
    return line(folder, calib=folder / "calib")


def short_labels(folder: Path) -> Sequence[object]:
    np.save(folder / "labels.npy", np.load(labels_of("digits_cnn"))[:17])
    return line(folder, "--eval", eval_of("digits_cnn"), "--labels", folder / "labels.npy")


def named_labels(folder: Path) -> Sequence[object]:
    (folder / "labels.txt").write_text("label\ncat\ndog\n")
    return line(folder, "--eval", eval_of("digits_cnn"), "--labels", folder / "labels.txt")


def file_as_parent(folder: Path) -> Sequence[object]:
    """Not writable even for root, who may write into any folder whatever its mode says."""
    (folder / "file").write_bytes(b"")
    return line(folder, output=folder / "file/out.onnx")


def existing_output(folder: Path) -> Sequence[object]:
    (folder / "out.onnx").write_bytes(b"precious")
    return line(folder)


def onto_the_model(folder: Path) -> Sequence[object]:
    model = shutil.copy(CNN, folder / "model.onnx")
    return line(folder, "--force", model=model, output=model)


def onto_the_model_by_link(folder: Path) -> Sequence[object]:
    model = shutil.copy(CNN, folder / "model.onnx")
    (folder / "link.onnx").symlink_to("model.onnx")
    return line(folder, "--force", model=model, output=folder / "link.onnx")


def onto_the_data(folder: Path) -> Sequence[object]:
    calib = shutil.copy(CALIB, folder / "calib.npz")
    return line(folder, "--force", calib=calib, output=calib)


def existing_report(folder: Path) -> Sequence[object]:
    (folder / "r.json").write_text("precious")
    return line(folder, "--report", folder / "r.json")


def two_files_in_one_place(folder: Path) -> Sequence[object]:
    return line(folder, "--report", folder / "r.json", "--save-recipe", folder / "r.json")


def report_onto_the_output(folder: Path) -> Sequence[object]:
    return line(folder, "--report", folder / "r.json", output=folder / "r.json")


def report_onto_the_data(folder: Path) -> Sequence[object]:
    labels = shutil.copy(labels_of("digits_cnn"), folder / "labels.json")
    return line(folder, "--force", "--report", labels, "--eval", eval_of("digits_cnn"), "--labels", labels)


def nested(depth: int) -> bytes:
    """If inside If inside If ..., byte by byte: the protobuf library cannot build what lies deeper than it reads."""

    def field(number: int, payload: bytes) -> bytes:
        size, digits = len(payload), b""
        while size > 127:
            digits, size = digits + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + digits + bytes([size]) + payload

    def value(name: bytes, kind: int, *dims: int) -> bytes:
        shape = b"".join(field(1, bytes([8, d])) for d in dims)
        return field(1, name) + field(2, field(1, bytes([8, kind]) + field(2, shape)))

    def branch(name: bytes, graph: bytes) -> bytes:
        return field(5, field(1, name) + field(6, graph) + b"\xa0\x01\x05")

    output = field(12, value(b"y", TensorProto.FLOAT, 1, 4))
    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu")) + field(2, b"g") + output
    other = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Identity")) + field(2, b"h") + output
    for _ in range(depth):
        node = field(1, b"c") + field(2, b"y") + field(4, b"If")
        graph = field(1, node + branch(b"then_branch", graph) + branch(b"else_branch", other)) + field(2, b"g") + output
    inputs = field(11, value(b"x", TensorProto.FLOAT, 1, 4)) + field(11, value(b"c", TensorProto.BOOL))
    return bytes([8, 8]) + field(7, graph + inputs) + field(8, field(1, b"") + bytes([16, 17]))


def nested_model(depth: int) -> Callable[[Path], Sequence[object]]:
    def make(folder: Path) -> Sequence[object]:
        (folder / "model.onnx").write_bytes(nested(depth))
        np.savez(folder / "calib.npz", x=np.ones([4, 1, 4], np.float32), c=np.ones([4], bool))
        return line(folder, model=folder / "model.onnx", calib=folder / "calib.npz")

    return make


def external(location: str, *, link: str = "", hard: bool = False) -> Callable[[Path], Sequence[object]]:
    """A model whose weight lies at ``location``; secrets lie beside its folder."""

    def make(folder: Path) -> Sequence[object]:
        inside = folder / "inside"
        inside.mkdir()
        secret = folder / "secret.bin"
        secret.write_bytes(bytes(4 * 9 * 4))
        if link:
            (inside / link).symlink_to("../secret.bin" if link == location else "..")
        if hard:
            os.link(secret, inside / location)
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 1, 3, 3])
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", location.replace("ABSOLUTE", str(secret))
        model = conv_model(weight)
        (inside / "model.onnx").write_bytes(model.SerializeToString())
        return line(folder, model=inside / "model.onnx")

    return make


def conv_model(weight: TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def absurd(dims: Sequence[int], *, data: bytes = bytes(64)) -> Callable[[Path], Sequence[object]]:
    """A weight that declares more than it holds."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=data)
    return with_model(conv_model(weight).SerializeToString())


FOUR = {"x": np.ones([8, 4], np.float32)}
MODEL_BYTES = CNN.read_bytes()

WRONG = [
    Wrong(name="text as model", make=with_model(b"this is no model\n" * 20), says=("model.onnx", "not an ONNX")),
    Wrong(name="picture as model", make=with_model(PNG * 30), says=("model.onnx", "not an ONNX")),
    Wrong(name="empty model", make=with_model(b""), says=("model.onnx", "empty")),
    Wrong(
        name="noise as model", make=with_model(np.random.default_rng(0).bytes(5000)), says=("model.onnx", "not an ONNX")
    ),
    Wrong(name="zip as model", make=lambda f: line(f, model=CALIB), says=("calib.npz", "not an ONNX")),
    *(
        Wrong(name=f"model cut at {cut}", make=with_model(MODEL_BYTES[:cut]), says=("model.onnx",))
        for cut in (1, 10, 100, 5_000, 100_000, len(MODEL_BYTES) - 1_000, len(MODEL_BYTES) - 1)
    ),
    Wrong(name="folder as model", make=lambda f: line(f, model=f), says=("is a folder",)),
    Wrong(name="missing model", make=lambda f: line(f, model=f / "none.onnx"), says=("none.onnx", "no such file")),
    Wrong(name="already QDQ", make=lambda f: already(f, "qdq"), says=("quantized already", "QuantizeLinear")),
    Wrong(name="already QOperator", make=lambda f: already(f, "qoperator"), says=("quantized already", "QLinearConv")),
    Wrong(name="only a Relu", make=from_text(RELU, FOUR), says=("nothing to quantize", "Relu")),
    Wrong(
        name="only integers",
        make=from_text(INTEGERS, {"x": np.ones([8, 4], np.int64)}),
        says=("nothing to quantize", "Add"),
    ),
    Wrong(name="no inputs", make=from_text(NO_INPUTS, {}), says=("no inputs",)),
    Wrong(name="sequence input", make=from_text(SEQUENCE, FOUR), says=("'x'", "seq(")),
    Wrong(name="optional input", make=from_text(OPTIONAL, FOUR), says=("'x'", "optional(")),
    Wrong(name="custom operator", make=from_text(CUSTOM, FOUR), says=("cannot load", "Frobnicate")),
    Wrong(name="input from nowhere", make=from_text(MISSING_INPUT, FOUR), says=("model.onnx is damaged", "nowhere")),
    Wrong(name="60 nested graphs", make=nested_model(60), says=("model.onnx",)),
    Wrong(name="absolute external data", make=external("ABSOLUTE"), says=("'w'", "outside the model's folder")),
    Wrong(name="climbing external data", make=external("../secret.bin"), says=("'w'", "outside the model's folder")),
    Wrong(name="hidden climb", make=external("a/../../secret.bin"), says=("'w'", "outside the model's folder")),
    Wrong(name="link to outside", make=external("w.bin", link="w.bin"), says=("'w'", "symbolic link")),
    Wrong(name="linked folder", make=external("up/secret.bin", link="up"), says=("'w'", "symbolic link")),
    Wrong(name="hard link", make=external("w.bin", hard=True), says=("'w'", "hard link")),
    Wrong(name="missing external data", make=external("w.bin"), says=("'w'", "missing")),
    Wrong(name="no location", make=external(""), says=("'w'",)),
    Wrong(name="absurd size", make=absurd([1 << 40, 1, 3, 3]), says=("model.onnx is damaged", "'w'")),
    Wrong(name="sizes beyond 64 bits", make=absurd([1 << 40, 1 << 40, 3, 3]), says=("model.onnx is damaged", "'w'")),
    Wrong(name="negative size", make=absurd([-4, 1, 3, 3]), says=("model.onnx is damaged", "'w'")),
    Wrong(name="too little data", make=absurd([4, 1, 3, 3], data=bytes(20)), says=("model.onnx is damaged", "'w'")),
    Wrong(name="missing data", make=lambda f: line(f, calib=f / "none"), says=("none", "no such file")),
    Wrong(name="empty folder", make=empty_folder, says=("calib", "nothing")),
    Wrong(name="mixed folder", make=mixed_folder, says=("mixes",)),
    Wrong(name="model as data", make=lambda f: line(f, calib=CNN), says=("digits_cnn.onnx", "unknown kind")),
    Wrong(name="no samples", make=with_calib(image=images()[:0]), says=("calib.npz", "no samples")),
    Wrong(
        name="wrong names", make=with_calib(picture=images(), mask=images()), says=("calib.npz", "'image'", "picture")
    ),
    Wrong(
        name="wrong shape",
        make=with_calib(image=np.zeros([4, 1, 9, 9], np.float32)),
        says=("calib.npz[0]", "'image'", "[batch, 1, 8, 8]", "[1, 1, 9, 9]"),
    ),
    Wrong(
        name="channels last",
        make=with_calib(image=np.zeros([4, 8, 8, 1], np.float32)),
        says=("'image'", "transpose"),
    ),
    Wrong(
        name="wrong rank", make=with_calib(image=np.zeros([4, 64], np.float32)), says=("calib.npz", "'image'", "rank")
    ),
    Wrong(
        name="bytes for floats",
        make=with_calib(image=np.zeros([4, 1, 8, 8], np.uint8)),
        says=("'image'", "expects float32", "uint8", "normalise"),
    ),
    Wrong(name="NaN in a later sample", make=with_calib(image=spoiled(np.nan)), says=("calib.npz[2]", "1 NaN or Inf")),
    Wrong(name="Inf in a later sample", make=with_calib(image=spoiled(np.inf)), says=("calib.npz[2]", "1 NaN or Inf")),
    Wrong(
        name="float64 beyond float32",
        make=with_calib(image=images().astype(np.float64) * 1e300),
        says=("calib.npz[", "NaN or Inf"),
    ),
    Wrong(name="pickle", make=pickled, says=("calib.npy", "pickled")),
    Wrong(name="a damaged file among good ones", make=corrupt_among_good, says=("5.npz", "not a sound")),
    Wrong(name="too few labels", make=short_labels, says=("17 labels", "500")),
    Wrong(name="labels that are names", make=named_labels, says=("labels.txt", "line 2", "cat")),
    Wrong(
        name="labels without data", make=with_options("--labels", labels_of("digits_cnn")), says=("--labels", "--eval")
    ),
    Wrong(name="metric without labels", make=with_options("--metric", "top1"), says=("the metric top1", "--labels")),
    Wrong(
        name="missing labels",
        make=with_options("--eval", eval_of("digits_cnn"), "--labels", "none.npy"),
        says=("none.npy",),
    ),
    Wrong(name="unknown metric", make=with_options("--metric", "topp"), says=("--metric", "topp", "top1"), usage=True),
    Wrong(name="unknown method", make=with_options("--method", "max"), says=("--method", "minmax"), usage=True),
    Wrong(name="unknown format", make=with_options("--format", "qqq"), says=("--format", "qoperator"), usage=True),
    Wrong(name="unknown type", make=with_options("--weights", "int3"), says=("--weights", "int8"), usage=True),
    Wrong(name="unknown option", make=with_options("--mehtod", "mse"), says=("--mehtod", "--method"), usage=True),
    Wrong(name="no data option", make=lambda f: [CNN, "-o", f / "out.onnx"], says=("--calib", "--ranges")),
    Wrong(name="missing recipe", make=with_options("--recipe", "none.yaml"), says=("none.yaml",)),
    Wrong(name="unknown key", make=with_recipe("metod: mse\n"), says=("recipe.yaml", "'metod'", "'method'")),
    Wrong(
        name="wrong value",
        make=with_recipe("per_channel: 3\n"),
        says=("recipe.yaml", "per_channel", "true or false"),
        hint=False,
    ),
    Wrong(name="unknown value", make=with_recipe("format: qdp\n"), says=("recipe.yaml", "format", "'qdp'", "qdq")),
    Wrong(name="unknown method in a recipe", make=with_recipe("method: mze\n"), says=("method", "'mze'", "'mse'")),
    Wrong(name="unknown target", make=with_recipe("target: x86-vni\n"), says=("target", "'x86-vni'", "'x86-vnni'")),
    Wrong(name="no YAML", make=with_recipe("a: [1, 2\nb: }"), says=("recipe.yaml", "line")),
    Wrong(name="bytes as recipe", make=lambda f: line(f, "--recipe", CNN), says=("digits_cnn.onnx", "recipe")),
    Wrong(name="YAML bomb", make=with_recipe(BOMB), says=("recipe.yaml", "aliases")),
    Wrong(
        name="objects in YAML", make=with_recipe("!!python/object/apply:os.system ['true']\n"), says=("recipe.yaml",)
    ),
    Wrong(
        name="no such folder", make=lambda f: line(f, output=f / "none/out.onnx"), says=("there is no folder", "none")
    ),
    Wrong(name="file as folder", make=file_as_parent, says=("file", "no folder")),
    Wrong(name="folder as output", make=lambda f: line(f, output=f), says=("it is a folder",)),
    Wrong(name="output exists", make=existing_output, says=("out.onnx exists", "--force")),
    Wrong(name="output is the model", make=onto_the_model, says=("model.onnx", "never replaced")),
    Wrong(name="output is a link to the model", make=onto_the_model_by_link, says=("link.onnx", "never replaced")),
    Wrong(name="output is the data", make=onto_the_data, says=("calib.npz", "never replaced")),
    Wrong(name="report exists", make=existing_report, says=("r.json exists", "--force")),
    Wrong(name="unknown report", make=lambda f: line(f, "--report", f / "r.docx"), says=("r.docx", ".json")),
    Wrong(name="report without suffix", make=lambda f: line(f, "--report", f / "r"), says=("suffix", ".json")),
    Wrong(name="report in no folder", make=lambda f: line(f, "--report", f / "none/r.json"), says=("no folder",)),
    Wrong(name="recipe in no folder", make=lambda f: line(f, "--save-recipe", f / "none/r.yaml"), says=("no folder",)),
    Wrong(name="two files in one place", make=two_files_in_one_place, says=("r.json", "--save-recipe")),
    Wrong(name="report onto the output", make=report_onto_the_output, says=("r.json", "--report")),
    Wrong(name="report onto the data", make=report_onto_the_data, says=("labels.json", "never replaced")),
    Wrong(name="nothing included", make=with_options("--include", "Conv_77"), says=("Conv_77",)),
    Wrong(name="everything excluded", make=with_options("--exclude", "*"), says=("nothing to quantize",)),
]


def already(folder: Path, form: str) -> Sequence[object]:
    """Our own output as input."""
    from qconvert.cli import run

    quantized = folder / "quantized.onnx"
    arguments = line(folder, "--format", form, "-q", "--placement", "static", output=quantized)
    assert run(["quantize", *map(str, arguments)]) == 0
    return line(folder, model=quantized)
