"""Wrong input: exit code 2, a message that says what and where, a hint, and not a file changed, made or left behind."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from end_to_end.command import Command
from end_to_end.wrong_input import CNN, WRONG, Wrong, conv_model, images, line, nested_model
from onnx import numpy_helper

# no refusal takes longer, a slow and busy machine included; measured: 0.1 s
MOST_SECONDS = 10.0


def contents(folder: Path) -> dict[str, object]:
    """Everything below ``folder``, hidden files included: bytes of files, targets of links."""
    return {
        str(p.relative_to(folder)): str(p.readlink()) if p.is_symlink() else p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files go to."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.name)
def test_wrong_input_is_refused(wrong: Wrong, qconvert: Command, tmp_path: Path, scratch: Path) -> None:
    arguments = wrong.make(tmp_path)
    before = contents(tmp_path)
    start = time.perf_counter()
    ran = qconvert("quantize", *arguments)
    assert time.perf_counter() - start < MOST_SECONDS
    assert ran.code == 2, f"{ran.out}\n{ran.err}"
    assert ran.out == ""
    missing = [word for word in wrong.says if word not in ran.err]
    assert not missing, f"the message does not say {missing}:\n{ran.err}"
    assert "Traceback" not in ran.err
    assert ("\nError:" in ran.err) if wrong.usage else ran.err.startswith("error: "), ran.err
    assert "hint:" in ran.err or wrong.usage or not wrong.hint, ran.err
    assert contents(tmp_path) == before
    assert contents(scratch) == {}


@pytest.mark.parametrize("name", ["absurd size", "sizes beyond 64 bits", "YAML bomb", "60 nested graphs"])
def test_hostile_sizes_take_no_memory(name: str, tmp_path: Path) -> None:
    """In a process that may not take more than 3 GB of address space, of which the libraries want 1.5."""
    wrong = next(w for w in WRONG if w.name == name)
    limit = 3 << 30
    done = subprocess.run(
        [sys.executable, "-m", "qconvert", "quantize", *map(str, wrong.make(tmp_path))],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "out of memory" not in done.stderr


def test_thirty_nested_graphs_end(qconvert: Command, tmp_path: Path) -> None:
    """As deep as protobuf reads. There is nothing to quantize in it, and that is said in time."""
    start = time.perf_counter()
    ran = qconvert("quantize", *nested_model(30)(tmp_path))
    assert ran.code == 2 and "nothing to quantize" in ran.err
    assert time.perf_counter() - start < MOST_SECONDS


def test_a_damaged_model_never_is_a_defect(qconvert: Command, tmp_path: Path) -> None:
    """Bytes of a small model changed at random: it is the user's file that is wrong then, or it works even so."""
    source = io.BytesIO()
    onnx.save(conv_model(numpy_helper.from_array(np.ones([4, 1, 3, 3], np.float32), "w")), source)
    good = np.frombuffer(source.getvalue(), np.uint8)
    rng = np.random.default_rng(1)
    codes = set()
    for attempt in range(50):  # tests/fuzz has more
        bad = good.copy()
        places = rng.integers(0, len(bad), size=rng.integers(1, 4))
        bad[places] = rng.integers(0, 256, size=len(places))
        (tmp_path / "model.onnx").write_bytes(bad.tobytes())
        ran = qconvert("quantize", *line(tmp_path, "--force", "-q", model=tmp_path / "model.onnx"))
        assert ran.code in (0, 2), f"attempt {attempt}: {places} {ran.err}"
        codes.add(ran.code)
    assert codes == {0, 2}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_an_interrupted_run_leaves_the_old_output_whole(number: signal.Signals, tmp_path: Path) -> None:
    np.save(tmp_path / "calib.npy", np.tile(images(50), (2000, 1, 1, 1)))  # minutes of work
    (tmp_path / "out.onnx").write_bytes(b"the old one")
    before = contents(tmp_path)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "qconvert", "quantize", CNN, "--calib", tmp_path / "calib.npy", "--force"),
            *("-o", tmp_path / "out.onnx", "--report", tmp_path / "r.json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background ignores SIGINT, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until_mapped(process, "calib.npy")
        process.send_signal(number)
        out, err = process.communicate(timeout=MOST_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "interrupted" in err and "Traceback" not in err
    assert contents(tmp_path) == before


def wait_until_mapped(process: subprocess.Popen[str], name: str) -> None:
    """Until the process has the calibration data open, and a little longer."""
    maps = Path(f"/proc/{process.pid}/maps")
    for _ in range(300):
        if not maps.exists() or name in maps.read_text():
            break
        time.sleep(0.1)
    time.sleep(1.0 if maps.exists() else 5.0)
    assert process.poll() is None, "it ended before it could be interrupted"
