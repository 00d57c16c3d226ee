"""docs/python.md: its blocks run in order, as one session."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import qconvert
from qconvert import errors

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("sample_models", "calibration_data"):
        shutil.copytree(REPO / folder, tmp_path / folder)
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), session)
    printed = capsys.readouterr().out
    assert "top1 99." in printed
    assert "there is no data at nowhere" in printed
    assert {p.name for p in (tmp_path / "build").iterdir()} == {
        *("1.npz", "2.npz", "cnn.onnx", "float.onnx", "mse.onnx", "ranges.npz", "report.html")
    }


def test_every_exception_is_in_the_table() -> None:
    rows = re.findall(r"^\| `qconvert\.(\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    for name, base in rows:
        assert getattr(qconvert, name).__mro__[1] is getattr(errors, base)
    known = {n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, errors.QConvertError)}
    assert {name for name, _ in rows} == known - {"QConvertError", "InputError"}
