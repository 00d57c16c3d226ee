"""The target x86-avx2: what is written cannot saturate, and the rest is as for x86-vnni."""

from __future__ import annotations

from pathlib import Path

import pytest

from qconvert.diagnose.integer_ops import saturable
from qconvert.graph.build_view import view_of
from qconvert.graph.optimized import optimized_model
from qconvert.pipeline import QuantizeJob, quantize
from qconvert.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]


def unsafe(path: Path) -> dict[str, int]:
    view = view_of(optimized_model(path, layouts=False))
    found = [s for n in view.nodes.values() if (s := saturable(view, n)) is not None]
    assert found
    return {s.node: s.unsafe for s in found}


def made(folder: Path, name: str, recipe: Recipe) -> tuple[Path, tuple[str, ...]]:
    output = folder / f"{recipe.target}.onnx"
    data = ROOT / "calibration_data" / name / "calib.npz"
    job = QuantizeJob(model=ROOT / "sample_models" / f"{name}.onnx", calib=data, output=output, recipe=recipe)
    return output, quantize(job).notes


@pytest.mark.parametrize(("name", "per_channel"), [("digits_cnn", True), ("digits_gru", False)])
def test_no_channel_can_saturate(name: str, per_channel: bool, tmp_path: Path) -> None:
    plain, notes = made(tmp_path, name, Recipe(per_channel=per_channel))
    assert sum(unsafe(plain).values()) > 0
    assert not any("could saturate" in note for note in notes)
    safe, notes = made(tmp_path, name, Recipe(per_channel=per_channel, target="x86-avx2"))
    assert set(unsafe(safe)) == set(unsafe(plain))
    assert sum(unsafe(safe).values()) == 0
    assert any("could saturate" in note for note in notes)


def test_unsigned_weights_are_left_alone(tmp_path: Path) -> None:
    plain, _ = made(tmp_path, "digits_gru", Recipe(weights="uint8"))
    safe, notes = made(tmp_path, "digits_gru", Recipe(weights="uint8", target="x86-avx2"))
    assert plain.read_bytes() == safe.read_bytes()
    assert not any("could saturate" in note for note in notes)
