"""How long a run may take whose end nobody knows: a Loop asks for its own condition in every trip.

One thread looks at all such runs and asks ONNX Runtime to give up those that are overdue, or that pile up memory. A run
costs two entries in a dictionary by it (under 1 us), so that latencies do not see it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qconvert.errors import GivenUp, RecipeError

VARIABLE = "QCONVERT_LOOP_SECONDS"
"""Environment variable: seconds that a run of a model with Loop may take; 0: any time, and any memory."""

MEMORY_VARIABLE = "QCONVERT_LOOP_MB"
"""Environment variable: megabytes that the first run of a model with Loop may add to what the process holds."""

# A model that decodes step by step may take this long for a sample; one without end is bad input, which is not waited
# for much longer.
DEFAULT_SECONDS = 30.0
# A model that came to its end before may take so many times as long for more samples at a time, and with more outputs.
_MORE = 50.0
# Until one has come to its end, a run may add so many megabytes to what the process holds with the model loaded, or so
# many times that: results that a Loop collects without end come to 3 GB in a second.
DEFAULT_MB, _TIMES = 3000.0, 2.5
_LOOK_EVERY_S = 0.02


class Stoppable(Protocol):
    """ONNX Runtime's RunOptions."""

    terminate: bool


@dataclass(slots=True, kw_only=True)
class _Watched:
    """A run: since when, until when at most, what memory it began with, and what it may add."""

    options: Stoppable
    since: float
    until: float
    memory: int = -1
    most: float = 0.0
    ended_for: str = ""


class _Patience:
    def __init__(self) -> None:
        self._runs: dict[int, _Watched] = {}
        self._thread: threading.Thread | None = None
        self._slowest = 0.0

    @contextlib.contextmanager
    def over(self, options: Stoppable, name: str) -> Iterator[None]:
        """Watch the run in the block, of the model ``name``.

        Raises:
            GivenUp: it did not end.
        """
        allowed = seconds_allowed()
        if not allowed:
            yield
            return
        now = time.perf_counter()
        run = _Watched(
            options=options,
            since=now,
            until=now + max(allowed, _MORE * self._slowest),
            most=_given(MEMORY_VARIABLE, DEFAULT_MB) * 2**20,
        )
        self._runs[id(run)] = run
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="qconvert-patience", daemon=True)
            self._thread.start()
        try:
            yield
        except Exception as error:
            if run.ended_for:
                raise GivenUp(
                    f"{name}: a run was given up {run.ended_for}: it has a Loop that may never end",
                    hint=f"if it does end, allow for it: {VARIABLE}=600 (seconds; 0: no limit at all), "
                    f"{MEMORY_VARIABLE}=9000 (megabytes)",
                ) from error
            raise
        finally:
            del self._runs[id(run)]
        self._slowest = max(self._slowest, time.perf_counter() - now)

    def _look(self) -> None:
        while True:
            for run in list(self._runs.values()):
                run.memory = _held() if run.memory < 0 else run.memory
                if time.perf_counter() > run.until:
                    run.ended_for = f"after {run.until - run.since:.1f} s"
                elif not self._slowest and (taken := _held() - run.memory) > max(run.most, _TIMES * run.memory):
                    run.ended_for = f"when it had taken {taken >> 20} MB of memory"
                if run.ended_for:
                    run.options.terminate = True
            time.sleep(_LOOK_EVERY_S)


def seconds_allowed() -> float:
    """The limit that holds; 0 for none.

    Raises:
        RecipeError: the environment variable holds no such number.
    """
    return _given(VARIABLE, DEFAULT_SECONDS)


def _given(variable: str, default: float) -> float:
    given = os.environ.get(variable, "")
    try:
        number = float(given) if given else default
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise RecipeError(f"{variable} is {given!r}", hint="give a number, such as 600, or 0")
    return number


def _held() -> int:
    """Bytes of memory that this process holds; 0 where nobody says."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


PATIENCE = _Patience()
"""The one that watches all sessions."""
