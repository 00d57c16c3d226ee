"""Runs command lines, each in a process of its own that is cut off from this one's memory, time and crashes.

The worker imports qconvert with all its libraries once and forks for each line, which takes some 20 ms where a fresh
interpreter takes a second. A line on stdin is a list in JSON (arguments, folder, seconds), one on stdout an Ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

# A guard for the machine only: what a run takes is measured, and judged by the caller.
_MOST_ADDRESS_SPACE = 6 << 30
_POLL_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command line ended.

    Attributes:
        code: its exit code, or minus the number of the signal that ended it.
        seconds: wall time.
        megabytes: the most memory that it held (resident set, the libraries' share included).
        timed_out: it was ended after its time.
        out, err: what it printed.
    """

    code: int
    seconds: float
    megabytes: float
    timed_out: bool
    out: str
    err: str


class Worker:
    """A worker process, from its user's side."""

    def __init__(self) -> None:
        # a Loop may run for 30 s by default; a refusal may take 10
        few = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "QCONVERT_LOOP_SECONDS": "2"}
        few["QCONVERT_LOOP_MB"] = "500"
        environment = {**os.environ, **few, "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, arguments: list[str], folder: Path, *, seconds: float) -> Ended:
        """``qconvert`` with ``arguments`` in ``folder``, ended after ``seconds``."""
        talk_in, talk_out = self._process.stdin, self._process.stdout
        assert talk_in is not None and talk_out is not None
        talk_in.write(json.dumps([arguments, str(folder), seconds]) + "\n")
        talk_in.flush()
        return Ended(**json.loads(talk_out.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)


@contextlib.contextmanager
def worker() -> Iterator[Worker]:
    """A worker, for as long as it is needed."""
    one = Worker()
    try:
        yield one
    finally:
        one.close()


def main() -> None:
    """Serve stdin until it ends."""
    _preload()
    for line in sys.stdin:
        arguments, folder, seconds = json.loads(line)
        print(json.dumps(asdict(_run(arguments, Path(folder), seconds))), flush=True)


def _preload() -> None:
    """Import what commands import when they run; no session is made, so no thread is there to get lost in a fork."""
    import importlib

    from qconvert.cli import COMMANDS
    from qconvert.report.renderer import RENDERERS

    for name in COMMANDS:
        importlib.import_module(f"qconvert.cli.{name}")
    for name in "quantizing calibration converting inspection sensitivity.analysis tuning.tuning".split():
        importlib.import_module(f"qconvert.{name}")
    for name in "evaluate.comparison evaluate.evaluation evaluate.benchmark diagnose.diagnosis".split():
        importlib.import_module(f"qconvert.{name}")
    importlib.import_module("onnxscript.optimizer")
    RENDERERS.names()


def _run(arguments: list[str], folder: Path, seconds: float) -> Ended:
    talk = [folder / ".stdout", folder / ".stderr"]
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        _become(arguments, folder, talk)
    timed_out = False
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.perf_counter() - started > seconds:
            timed_out = True
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(_POLL_S)
    elapsed = time.perf_counter() - started
    out, err = (path.read_text(encoding="utf-8", errors="replace") for path in talk)
    for path in talk:
        path.unlink()
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        seconds=elapsed,
        megabytes=usage.ru_maxrss / 1024,
        timed_out=timed_out,
        out=out,
        err=err,
    )


def _become(arguments: list[str], folder: Path, talk: list[Path]) -> None:
    """Be the command line, and end with its exit code."""
    code = 1
    try:
        os.chdir(folder)
        for number, path in ((1, talk[0]), (2, talk[1])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESS_SPACE, _MOST_ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from qconvert.cli import run

        code = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
