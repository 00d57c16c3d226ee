"""A conversion of a model with a data file that is interrupted, or runs out of disk: nothing is left of it."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qconvert.graph.model import load, save

WIDTH, LAYERS = 1536, 12
MOST_SECONDS = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of 113 MB of weights, in a data file."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(LAYERS + 1)]
    weights = [numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH), np.float32), f"w{i}") for i in range(LAYERS)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"m{i}") for i in range(LAYERS)],
        "products",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [1, WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(folder / "model.onnx"), save_as_external_data=True, location="model.data")
    return folder / "model.onnx"


def start(source: Path, output: Path, scheme: str, before: Callable[[], object]) -> subprocess.Popen[str]:
    line = ["quantize", source, "--scheme", scheme, "--no-measure", "--shard", "20", "-o", output, "--force"]
    return subprocess.Popen(
        [sys.executable, "-m", "qconvert", *map(str, line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def old_output(folder: Path) -> dict[str, bytes]:
    """A model of an earlier run, with its data file, in ``folder``."""
    (folder / "out.onnx").write_bytes(b"the old one")
    (folder / "out.onnx.data").write_bytes(b"its weights")
    return contents(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
@pytest.mark.parametrize(("scheme", "until"), [("w4", "weights"), ("fp16", "weights"), ("fp16", "out.onnx.data")])
def test_an_interrupted_conversion_leaves_nothing(
    scheme: str, until: str, number: signal.Signals, source: Path, tmp_path: Path
) -> None:
    """Interrupted once the file ``until`` is in the temporary folder: among weights, and among the output's files."""
    before = old_output(tmp_path)
    process = start(source, tmp_path / "out.onnx", scheme, lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        end = time.monotonic() + MOST_SECONDS
        while not list(tmp_path.glob(f".qconvert-*/{until}")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        process.send_signal(number)
        out, err = process.communicate(timeout=MOST_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, ""), err
    assert "interrupted" in err and "Traceback" not in err
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


_SAVE = """
import sys
from pathlib import Path
from qconvert.errors import OutputError
from qconvert.graph.model import load, save
try:
    save(load(Path(sys.argv[1])), Path(sys.argv[2]), shard=1 << 40)
except OutputError as error:
    sys.exit(f"error: {error.message}")
"""


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (
            ("-m", "qconvert", "quantize", "MODEL", "--scheme", "fp16", "--no-measure", "--force", "-o", "OUT"),
            2,
            "keep",
        ),
        (("-c", _SAVE, "MODEL", "OUT"), 1, "cannot write"),
    ],
    ids=["weights", "output"],
)
def test_a_full_disk_leaves_nothing(
    command: tuple[str, ...], code: int, says: str, source: Path, tmp_path: Path
) -> None:
    """No file may be larger than 8 MB: full while weights are kept for later, or while the output is written."""
    before = old_output(tmp_path)
    places = {"MODEL": str(source), "OUT": str(tmp_path / "out.onnx")}
    ran = subprocess.run(
        [sys.executable, *(places.get(part, part) for part in command)],
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20)),
    )
    assert ran.returncode == code, ran.stderr
    assert says in ran.stderr and "Traceback" not in ran.stderr
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_files_of_one_model_take_their_places_together(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal between two renames waits for the last: no model is ever beside another's weights."""
    replace, moved = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        moved.append(target.name)
        signal.raise_signal(signal.SIGINT)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have another
    try:
        with pytest.raises(KeyboardInterrupt):
            save(load(source), tmp_path / "out.onnx", shard=40 << 20)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(moved) > 2 and moved[-1] == "out.onnx"
    assert sorted(contents(tmp_path)) == sorted(moved)
