"""The command line in this process, and the sample models with their data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qconvert.cli import run

ROOT = Path(__file__).parents[2]
SAMPLES = ("digits_cnn", "digits_transformer", "digits_gru")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON document on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        return document


Command = Callable[..., Ran]


def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """``qconvert`` as a function of its arguments.

    Placement is measured only where a test asks for it: two measured runs need not agree, and timing takes time.
    """

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        given = [str(a) for a in arguments]
        if given[:1] == ["quantize"] and not {"--placement", "--recipe", "--dry-run", "--help"} & set(given):
            given += ["--placement", "static"]
        code = run(given)
        captured = capsys.readouterr()
        return Ran(code=code, out=captured.out, err=captured.err)

    return call


def model_of(sample: str) -> Path:
    return ROOT / "sample_models" / f"{sample}.onnx"


def calib_of(sample: str) -> Path:
    return ROOT / "calibration_data" / sample / "calib.npz"


def eval_of(sample: str) -> Path:
    return ROOT / "calibration_data" / sample / "eval.npz"


def labels_of(sample: str) -> Path:
    return ROOT / "calibration_data" / sample / "labels.npy"


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def images(count: int = 4) -> np.ndarray:
    """The first calibration images of the convolution net."""
    return arrays_in(calib_of("digits_cnn"))["image"][:count]
