"""Each check finds its fault in a model that has it, and in no sound one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diagnose import nets

from qconvert.diagnose.diagnosis import Diagnosis, diagnose
from qconvert.diagnose.finding import CHECKS, Finding, Severity
from qconvert.diagnose.isa import Isa, this_machine
from qconvert.errors import ModelError
from qconvert.graph.session import open_session

ROOT = Path(__file__).resolve().parents[2]

FAULTS: dict[str, tuple[Callable[[], nets.Net], str]] = {
    "pairs": (nets.pairs, "n_e_q"),
    "islands": (nets.islands, "n_c1_dq"),
    "residuals": (nets.residual, "n_sum"),
    "symmetric-clamps": (nets.symmetric, "n_r"),
    "dynamic-convolutions": (nets.dynamic, "n_c"),
    "depthwise-scales": (nets.depthwise, "n_c1"),
    "summed-axis": (nets.summed_axis, "n_y"),
    "unsigned-weights": (nets.unsigned, "n_y"),
    "float-weights": (nets.mostly_float, "v"),
    "float-operators": (nets.mostly_float, "n_y"),
    "unpacked-weights": (nets.unpacked, "n_w_dq"),
    "unquantized": (nets.floating, ""),
    "wide-activations": (nets.wide, "n_c1"),
}


def of(found: Diagnosis, check: str) -> list[Finding]:
    return [f for f in found.findings if f.check == check]


def examined(net: nets.Net, folder: Path, isa: Isa = Isa.VNNI, data: Path | None = None) -> Diagnosis:
    return diagnose(net.save(folder), isa=isa, data=data)


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found_with_node_cost_and_cure(check: str, tmp_path: Path) -> None:
    make, node = FAULTS[check]
    [finding] = of(examined(make(), tmp_path), check)
    assert any(name.startswith(node) for name in finding.nodes) or not node
    assert finding.what
    assert finding.cost
    assert finding.cure


def test_a_sound_model_has_no_fault(tmp_path: Path) -> None:
    found = examined(nets.sound(), tmp_path)
    assert found.findings == ()
    assert found.quantized
    assert found.census is not None
    assert found.census.integer_kernels == 3
    assert found.milliseconds > 0
    assert examined(nets.sound(), tmp_path, Isa.AVX2).findings == ()


def test_float_models_are_told_so_and_nothing_else() -> None:
    found = diagnose(ROOT / "sample_models" / "digits_cnn.onnx")
    assert [f.check for f in found.findings] == ["unquantized"]
    assert not found.quantized


def test_weights_that_are_quantized_on_loading(tmp_path: Path) -> None:
    [finding] = of(examined(nets.late(), tmp_path), "float-weights")
    assert "each time" in finding.what
    assert finding.nodes == ("w",)
    assert finding.bytes == 64 * 32 * 3


def test_the_spread_of_channels_is_measured(tmp_path: Path) -> None:
    [finding] = of(examined(nets.depthwise(), tmp_path), "depthwise-scales")
    assert "20 times" in finding.cost
    assert "5 steps of 100" in finding.cost


def test_16_bit_activations_are_no_defect(tmp_path: Path) -> None:
    found = examined(nets.wide(), tmp_path).findings
    assert [(f.check, f.severity.value) for f in found] == [("wide-activations", "note")]


def test_int8_activations_that_stay(tmp_path: Path) -> None:
    net = nets.Net(4, 16)
    w = net.put("w", net.weights(16, 12), "int8")
    product = net.add("MatMulInteger", [net.q("x", dtype="int8"), w, "x_z"], "p")
    net.add("Cast", [product], "y", to=1)
    path = net.save(tmp_path)
    found = diagnose(path, isa=Isa.VNNI)
    other = diagnose(path, isa=Isa.OTHER)
    assert of(found, "signed-activations")
    assert not of(other, "signed-activations")


def test_the_worst_comes_first(tmp_path: Path) -> None:
    found = examined(nets.islands(), tmp_path, Isa.AVX2)
    ranks = [list(Severity).index(f.severity) for f in found.findings]
    assert len(ranks) > 1
    assert ranks == sorted(ranks)
    assert found.worse_than(Severity.NOTE) == found.findings
    assert all(f.severity is Severity.ERROR for f in found.worse_than(Severity.ERROR))


def test_what_onnx_runtime_refuses_cannot_be_examined(tmp_path: Path) -> None:
    net = nets.Net(1, 4)
    net.add("Mystery", [net.qdq("x")], "y", domain="com.microsoft")
    with pytest.raises(ModelError, match=r"\.onnx: ONNX Runtime .* cannot load the model: .*Mystery") as refused:
        examined(net, tmp_path)
    assert "qconvert inspect" in refused.value.hint
    (tmp_path / "bad.onnx").write_text("hello")
    with pytest.raises(ModelError, match="not an ONNX model"):
        diagnose(tmp_path / "bad.onnx")


def test_a_model_without_usable_inputs_is_examined_all_the_same(tmp_path: Path) -> None:
    net = nets.Net(4, dtype="int64")  # made inputs are ones, which reshape nothing
    net.put("c", np.zeros(6))
    net.add("Reshape", [net.qdq("c"), "x"], "y")
    found = examined(net, tmp_path)
    assert found.milliseconds == 0
    assert any("nothing was timed" in note for note in found.notes)


def test_nodes_without_names(tmp_path: Path) -> None:
    net = nets.residual()
    for node in net.nodes:
        node.name = ""
    [finding] = of(examined(net, tmp_path), "residuals")
    assert "sum" in finding.nodes[0]


# ---- saturation


def samples(path: Path, folder: Path, count: int = 3) -> Path:
    [spec] = open_session(path).inputs
    shape = [count, *(d if isinstance(d, int) else 1 for d in spec.shape[1:])]
    np.savez(folder / "data.npz", **{spec.name: np.random.default_rng(1).uniform(-6, 6, shape).astype(np.float32)})
    return folder / "data.npz"


def test_saturation_is_looked_for_on_avx2_alone(tmp_path: Path) -> None:
    path = nets.islands().save(tmp_path)
    [finding] = of(diagnose(path, isa=Isa.AVX2), "saturation")
    assert finding.severity is Severity.WARNING
    assert set(finding.nodes) == {"n_c1", "n_c2"}
    assert "32 of 32 channels" in finding.cost
    assert not of(diagnose(path, isa=Isa.VNNI), "saturation")


def test_saturation_is_measured_on_data(tmp_path: Path) -> None:
    path = nets.islands().save(tmp_path)
    [finding] = of(diagnose(path, isa=Isa.AVX2, data=samples(path, tmp_path)), "saturation")
    assert "measured by emulation" in finding.cost
    assert "SQNR" in finding.cost


def test_what_cannot_saturate_is_not_blamed(tmp_path: Path) -> None:
    assert not of(examined(nets.unsigned(), tmp_path, Isa.AVX2), "saturation")  # uint8 weights
    assert not of(examined(nets.depthwise(), tmp_path, Isa.AVX2), "saturation")  # depthwise
    net = nets.Net(4, 16)
    net.add("MatMul", [net.qdq("x", zero=128), net.dq("w", net.weights(16, 12, large=False))], "y")
    assert not of(examined(net, tmp_path, Isa.AVX2), "saturation")


def test_every_check_has_a_model_with_its_fault() -> None:
    assert set(CHECKS.names()) <= {*FAULTS, "signed-activations", "saturation"}


def test_this_machine_is_known() -> None:
    assert this_machine() in Isa
    assert Isa.AVX2.title != Isa.VNNI.title


def test_the_documentation_lists_every_check() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = text.partition("## What `qconvert check` finds")[2].partition("\n## ")[0]
    listed = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")}
    assert listed - {"finding"} == {*CHECKS.names(), "unfused"}
