"""What is promised of bad input: exit code 2, a message, no file, in 10 seconds and 1 GB."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fuzz.worker import Ended

MOST_SECONDS = 10.0
MOST_MEGABYTES = 1000.0


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below ``folder``."""
    return {str(p.relative_to(folder)): _stamp(p) for p in folder.rglob("*")}


def _stamp(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return (found.st_size, found.st_mtime_ns) if path.is_file() else (0, 0)


def broken_promise(
    ended: Ended, before: Mapping[str, object], after: Mapping[str, object], *, may_work: bool = False
) -> str:
    """The promise that a run broke, "" if it kept all; ``may_work``: the damage may be harmless."""
    told = (
        f"exit code {ended.code}, {ended.seconds:.1f} s, {ended.megabytes:.0f} MB: {(ended.err or ended.out)[-1500:]}"
    )
    if ended.timed_out or ended.seconds > MOST_SECONDS:
        return f"took too long: {told}"
    if ended.megabytes > MOST_MEGABYTES:
        return f"took too much memory: {told}"
    if ended.code == 0 and may_work:
        return ""
    if ended.code != 2:
        return f"was not refused: {told}"
    if not ended.err.startswith("error: ") and "\nError: " not in ended.err:
        return f"has no message: {told}"
    if "Traceback" in ended.err:
        return f"shows a trace: {told}"
    if before != after:
        return f"left {sorted(set(after) - set(before)) or 'a changed file'}: {told}"
    return ""
