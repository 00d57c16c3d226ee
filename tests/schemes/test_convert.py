"""`qconvert convert`: models that come quantized, as from quantization-aware training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks.branches import voice, voice_feeds
from onnx import TensorProto, helper, numpy_helper

from qconvert import converting
from qconvert.calibrate.data import DataSpec
from qconvert.converting import ConvertJob, convert
from qconvert.errors import ModelError
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parents[2]

STEP = 0.05


def trained(folder: Path, *, per_channel: bool = True) -> Path:
    """Conv, Relu, Conv with float weights behind Q and DQ, as torch exports fake quantization; the output's step is
    ``STEP``."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    initializers: list[TensorProto] = []

    def constant(name: str, array: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(array, name))
        return name

    def pair(source: str, scale: np.ndarray, zero: np.ndarray) -> str:
        s, z = constant(f"{source}_s", scale.astype(np.float32)), constant(f"{source}_z", zero)
        axis = {"axis": 0} if scale.ndim else {}
        nodes.append(helper.make_node("QuantizeLinear", [source, s, z], [f"{source}_codes"], f"{source}_Q", **axis))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{source}_codes", s, z], [f"{source}_real"], f"{source}_DQ", **axis)
        )
        return f"{source}_real"

    def layer(source: str, name: str, inputs: int, outputs: int) -> str:
        weight = rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32) * 0.2
        learned = np.abs(weight).max(axis=(1, 2, 3)) * rng.uniform(0.7, 1.0, outputs) / 127
        scale = learned if per_channel else np.asarray(learned.max())
        w = pair(constant(f"{name}_w", weight), scale, np.zeros(scale.shape, np.int8))
        b = constant(f"{name}_b", rng.standard_normal(outputs).astype(np.float32))
        nodes.append(helper.make_node("Conv", [source, w, b], [f"{name}_y"], name, pads=[1, 1, 1, 1]))
        return f"{name}_y"

    x = pair("x", np.asarray(0.02), np.asarray(128, np.uint8))
    nodes.append(helper.make_node("Relu", [layer(x, "first", 3, 8)], ["r"], "relu"))
    hidden = pair("r", np.asarray(0.03), np.asarray(0, np.uint8))
    nodes.append(
        helper.make_node(
            "Identity", [pair(layer(hidden, "second", 8, 4), np.asarray(STEP), np.asarray(128, np.uint8))], ["y"], "out"
        )
    )
    graph = helper.make_graph(
        nodes,
        "qat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 10, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 10, 10])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "qat.onnx"
    onnx.save(model, path)
    return path


def outputs(path: Path) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((1, 3, 10, 10)).astype(np.float32)
    result = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert isinstance(result, np.ndarray)
    return result


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_learned_weights_are_stored_as_integers(form: str, per_channel: bool, tmp_path: Path) -> None:
    source = trained(tmp_path, per_channel=per_channel)
    target = tmp_path / "out.onnx"
    convert(ConvertJob(model=source, output=target, to=form))
    assert np.abs(outputs(target) - outputs(source)).max() <= STEP * 1.001
    model = onnx.load(target)
    large = {i.data_type for i in model.graph.initializer if np.prod(i.dims) > 50}
    assert large == {TensorProto.INT8}
    ops = Counter(n.op_type for n in model.graph.node)
    assert ops["QLinearConv"] == (2 if form == "qoperator" else 0)
    assert ops["Conv"] == (0 if form == "qoperator" else 2)


@pytest.mark.parametrize("form", ["float", "fp16"])
def test_it_becomes_a_float_model_again(form: str, tmp_path: Path) -> None:
    source, stored = trained(tmp_path), tmp_path / "stored.onnx"
    convert(ConvertJob(model=source, output=stored, to="qdq"))
    target = tmp_path / "out.onnx"
    convert(ConvertJob(model=stored, output=target, to=form))
    ops = {n.op_type for n in onnx.load(target).graph.node}
    assert not ops & {"QuantizeLinear", "DequantizeLinear"}
    assert np.abs(outputs(target) - outputs(source)).max() < 5 * STEP


@pytest.mark.parametrize("form", ["float", "fp16"])
def test_clamps_that_quantizing_left_to_the_codes_are_there_again(form: str, tmp_path: Path) -> None:
    """Every Relu and Clip of the sample is absorbed into saturation when it is quantized."""
    samples = REPO / "calibration_data" / "digits_cnn" / "calib.npz"
    data = DataSpec(sources=(str(samples),), samples=24)
    quantized, target = tmp_path / "quantized.onnx", tmp_path / "out.onnx"
    job = QuantizeJob(
        model=REPO / "sample_models" / "digits_cnn.onnx",
        output=quantized,
        calib=data,
        recipe=Recipe(recover=("none",)),
    )
    quantize(job)
    done = convert(ConvertJob(model=quantized, output=target, to=form, data=data))
    assert done.comparison is not None
    assert done.comparison.fidelity.sqnr_db > 30


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    source, target = trained(tmp_path), tmp_path / "float.onnx"
    convert(ConvertJob(model=source, output=target, to="float"))
    with pytest.raises(ModelError, match="float model"):
        convert(ConvertJob(model=target, output=tmp_path / "out.onnx", to="qdq"))
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("form", ["qdq", "float", "fp16"])
def test_a_large_model_is_converted_without_running_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what counts as large lowered to 1 kB, the outputs are those of the model that was run."""
    source = trained(tmp_path)
    seen = convert(ConvertJob(model=source, output=tmp_path / "seen.onnx", to=form))
    assert seen.comparison is not None
    monkeypatch.setattr(converting, "PROTO_LIMIT", 1 << 10)
    monkeypatch.setattr(converting, "session_of", None)
    done = convert(ConvertJob(model=source, output=tmp_path / "unseen.onnx", to=form))
    assert done.comparison is None
    assert "not run" in done.notes[-1]
    assert not list(tmp_path.glob(".qconvert*"))
    assert np.abs(outputs(tmp_path / "unseen.onnx") - outputs(tmp_path / "seen.onnx")).max() < 2 * STEP


def floats_of(graph: onnx.GraphProto) -> int:
    """Numbers in float32 initializers of ``graph`` and its bodies."""
    inner = sum(floats_of(a.g) for n in graph.node for a in n.attribute if a.HasField("g"))
    return inner + sum(int(np.prod(i.dims)) for i in graph.initializer if i.data_type == TensorProto.FLOAT)


def test_weights_unpacked_on_loading_become_float_again(tmp_path: Path) -> None:
    """Those of LSTMs and of bodies are cast and scaled, not behind DequantizeLinear."""
    source, data, quantized = tmp_path / "voice.onnx", tmp_path / "data", tmp_path / "int8.onnx"
    source.write_bytes(voice().proto.SerializeToString())
    data.mkdir()
    for i, feed in enumerate(voice_feeds(8)):
        np.savez(data / f"{i}.npz", **feed)
    spec = DataSpec(sources=(str(data),))
    quantize(QuantizeJob(model=source, output=quantized, recipe=Recipe(placement="static"), calib=spec))
    convert(ConvertJob(model=quantized, output=tmp_path / "float.onnx", to="float", data=spec))
    counts = [floats_of(onnx.load(p).graph) for p in (source, quantized, tmp_path / "float.onnx")]
    assert counts[1] < 0.2 * counts[0] and counts[2] >= 0.98 * counts[0]


def test_a_model_that_made_up_inputs_do_not_fit(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Reshape", ["d", "shape"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.uint8(128), "shape": np.array([7, 11, -1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    source, data = tmp_path / "model.onnx", tmp_path / "x.npy"
    source.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with pytest.raises(ModelError) as refused:
        convert(ConvertJob(model=source, output=tmp_path / "out.onnx", to="float"))
    assert refused.value.hint is not None and "--data" in refused.value.hint
    np.save(data, np.ones((2, 77), np.float32))
    done = convert(
        ConvertJob(model=source, output=tmp_path / "out.onnx", to="float", data=DataSpec(sources=(str(data),)))
    )
    assert done.comparison is not None


EXPORTED = Path(__file__).parent / "qat" / "digits_qat.onnx"


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_what_torch_exports_is_stored_within_one_step(form: str, tmp_path: Path) -> None:
    """A model that PyTorch trained with fake quantization (``qat/make_digits_qat.py``): int8, and the same outputs."""
    source, target = onnx.load(EXPORTED), tmp_path / "out.onnx"
    convert(ConvertJob(model=EXPORTED, output=target, to=form))
    (last,) = [n for n in source.graph.node if n.op_type == "DequantizeLinear" and "logits" in n.output]
    known = {n.output[0]: n.attribute[0].t for n in source.graph.node if n.op_type == "Constant"}
    known |= {i.name: i for i in source.graph.initializer}
    step = numpy_helper.to_array(known[last.input[1]]).item()
    images = np.load(REPO / "calibration_data" / "digits_cnn" / "eval.npz")["image"]
    before, after = (
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
        for path in (EXPORTED, target)
    )
    assert np.abs(after - before).max() <= step * 1.001
    labels = np.load(REPO / "calibration_data" / "digits_cnn" / "labels.npy")
    assert (after.argmax(1) == labels).mean() > 0.98
    stored = {i.name: i.data_type for i in onnx.load(target).graph.initializer if np.prod(i.dims) > 50}
    assert len(stored) == 3
    assert set(stored.values()) == {TensorProto.INT8}
