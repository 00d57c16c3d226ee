"""The target x86-avx2: what is written cannot saturate, and the rest is as for x86-vnni."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qconvert.cli import run
from qconvert.diagnose.integer_ops import saturable
from qconvert.graph.build_view import view_of
from qconvert.graph.optimized import optimized_model
from qconvert.recipe.recipe import Recipe
from qconvert.recipe.recipe_file import recipe_to_yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def unsafe(path: Path) -> dict[str, int]:
    view = view_of(optimized_model(path, layouts=False))
    found = [s for n in view.nodes.values() if (s := saturable(view, n)) is not None]
    assert found
    return {s.node: s.unsafe for s in found}


def made(folder: Path, name: str, recipe: Recipe) -> tuple[Path, list[str]]:
    """The quantized sample model, and the notes of its report."""
    output, report, written = (folder / f"{recipe.target}{suffix}" for suffix in (".onnx", ".json", ".yaml"))
    written.write_text(recipe_to_yaml(recipe), encoding="utf-8")
    arguments = ["quantize", str(ROOT / "sample_models" / f"{name}.onnx"), "-q", "--recipe", str(written)]
    arguments += ["--placement", "static", "--calib", str(ROOT / "calibration_data" / name / "calib.npz")]
    assert run([*arguments, "--report", str(report), "-o", str(output)]) == 0
    return output, json.loads(report.read_text(encoding="utf-8"))["notes"]


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
