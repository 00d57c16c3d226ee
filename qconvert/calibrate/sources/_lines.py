"""A text file as lines by number: one pass finds where they begin, and each is read when it is asked for.

Blank lines are left out. A file that is no text, or of absurd lines, is refused without being held in memory.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from qconvert.errors import DataError

_CHUNK = 1 << 20
LONGEST = 1 << 25  # 32 MiB: three million numbers; a sample of that size belongs into a binary file
_MOST = 20_000_000  # their places take 160 MB
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


class Lines:
    """The lines of a UTF-8 file that are not blank.

    Raises:
        DataError: the file cannot be read, or has lines beyond 32 MiB, or more than 20 million.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts = array("q")
        self._numbers = array("q")
        try:
            self._index()
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror or error}", hint="check its permissions"
            ) from error

    def __len__(self) -> int:
        return len(self._starts)

    def number(self, index: int) -> int:
        """The number of a line in the file, blank ones counted, from 1."""
        return self._numbers[index]

    def __getitem__(self, index: int) -> str:
        where = f"{self.path}, line {self._numbers[index]}"
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._starts[index])
                line = stream.readline(LONGEST + 2)
        except OSError as error:
            raise DataError(f"{where} cannot be read: {error.strerror or error}", hint="check the file") from error
        try:
            return line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is not UTF-8 text", hint="save the file as UTF-8") from error

    def _index(self) -> None:
        with self.path.open("rb") as stream:
            start = len(_BOM) if stream.read(len(_BOM)) == _BOM else 0
            stream.seek(start)
            at, number, blank = start, 1, True  # of the chunk; of the line that is open, and whether it is blank so far
            while chunk := stream.read(_CHUNK):
                begin = 0
                for end in np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10).tolist():
                    if not (blank and not chunk[begin:end].strip(_BLANK)):
                        self._add(start, at + end, number)
                    start, number, begin, blank = at + end + 1, number + 1, end + 1, True
                blank = blank and not chunk[begin:].strip(_BLANK)
                at += len(chunk)
                self._check(start, at, number)
            if not blank:
                self._add(start, at, number)

    def _add(self, start: int, end: int, number: int) -> None:
        self._check(start, end, number)
        if len(self._starts) == _MOST:
            raise DataError(
                f"{self.path} has more than {_MOST:,} lines",
                hint="give a part of it, or save it as .npy, which is mapped",
            )
        self._starts.append(start)
        self._numbers.append(number)

    def _check(self, start: int, end: int, number: int) -> None:
        if end - start > LONGEST:
            raise DataError(
                f"{self.path}, line {number} is longer than {LONGEST >> 20} MiB",
                hint="write one sample a line; samples as large as that belong into .npy or .npz files",
            )
