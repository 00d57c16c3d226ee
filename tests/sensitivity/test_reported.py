"""What each operator does to the outputs, in the report of a run that is asked for a page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from qconvert.cli import run
from qconvert.sensitivity import reported

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "sample_models" / "digits_cnn.onnx"
CALIB = ROOT / "calibration_data" / "digits_cnn" / "calib.npz"
ARGUMENTS = f"quantize {CNN} --calib {CALIB} --samples 24 --placement static --recover none --method minmax -q --force"

pytestmark = pytest.mark.slow


def report_of(folder: Path, *options: str) -> dict[str, object]:
    arguments = [*ARGUMENTS.split(), "-o", str(folder / "out.onnx"), "--report", str(folder / "r.json"), *options]
    assert run(arguments) == 0
    found = json.loads((folder / "r.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_page_shows_what_each_operator_does_and_the_model_stays_the_same(tmp_path: Path) -> None:
    plain = report_of(tmp_path)
    bytes_of_plain = (tmp_path / "out.onnx").read_bytes()
    assert all(d["sqnr_db"] is None and not d["error_split"] for d in plain["decisions"])
    full = report_of(tmp_path, "--report", str(tmp_path / "r.html"))
    assert (tmp_path / "out.onnx").read_bytes() == bytes_of_plain
    known = [d for d in full["decisions"] if d["sqnr_db"] is not None]
    assert {d["node"] for d in known} >= {d["node"] for d in full["decisions"] if d["op_type"] in ("Conv", "Gemm")}
    assert all(d["quantized"] and math.isclose(sum(d["error_split"].values()), 1) for d in known)
    together = full["accuracy"]["comparison"]["fidelity"]["sqnr_db"]
    assert min(d["sqnr_db"] for d in known) > together - 1, "one alone does less than all together"
    page = (tmp_path / "r.html").read_text()
    assert all(f'data-sort="{d["sqnr_db"]}"' in page for d in known)
    assert "weight rounding" in page and f"{known[0]['sqnr_db']:.1f} dB" in page


def test_of_a_dear_model_the_worst_are_measured_on_one_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = report_of(tmp_path, "--report", str(tmp_path / "r.html"))
    monkeypatch.setattr(reported, "_OPTIONS", replace(reported._OPTIONS, dearest=2.4e8))
    found = report_of(tmp_path, "--report", str(tmp_path / "r.html"))
    pairs = [(d["sqnr_db"], e["sqnr_db"]) for d, e in zip(full["decisions"], found["decisions"], strict=True)]
    assert [a is None for a, _ in pairs] == [b is None for _, b in pairs]
    assert all(abs(a - b) < 6 for a, b in pairs if a is not None)
    known = [d for d in found["decisions"] if d["sqnr_db"] is not None]
    split, others = ([d["sqnr_db"] for d in known if bool(d["error_split"]) == has] for has in (True, False))
    assert split and others and max(split) <= min(others)
    assert all(math.isclose(sum(d["error_split"].values()), 1) for d in known if d["error_split"])
    note = f"measured for the worst {len(split)} of {len(known)}"
    assert any(note in n and "qconvert sensitivity" in n for n in found["notes"])
    assert note in (tmp_path / "r.html").read_text()
    assert not any("the worst" in n for n in full["notes"])


def test_what_would_take_long_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reported, "_OPTIONS", replace(reported._OPTIONS, dearest=1e6))
    found = report_of(tmp_path, "--report", str(tmp_path / "r.html"))
    assert all(d["sqnr_db"] is None for d in found["decisions"])
    (note,) = [n for n in found["notes"] if "was not measured" in n]
    assert "qconvert sensitivity" in note
