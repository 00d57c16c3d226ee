"""Which samples were bad, and how many may be: one ledger for all views of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field

from qconvert.errors import DataError


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The bad samples of a source, counted once however often they are read.

    Attributes:
        limit: how many may be passed over; 0 refuses the first.
        reasons: sample of the source -> what was wrong with it, one line that names the file.
    """

    limit: int = 0
    reasons: dict[int, str] = field(default_factory=dict)

    def enter(self, sample: int, error: DataError) -> None:
        """Note that ``sample`` is bad.

        Raises:
            DataError: it is one too many.
        """
        if self.limit == 0:
            raise DataError(
                error.message, hint=f"{error.hint}; --skip-bad N passes over up to N bad samples".lstrip("; ")
            ) from error
        self.reasons.setdefault(sample, " ".join(error.message.split()))
        if len(self.reasons) > self.limit:
            raise DataError(
                f"{error.message}; this is bad sample number {len(self.reasons)}, and --skip-bad allows {self.limit}",
                hint=f"{error.hint}; or raise --skip-bad, if so many bad samples are no surprise".lstrip("; "),
            ) from error

    @property
    def lines(self) -> tuple[str, ...]:
        """The reasons, in the order of the samples."""
        return tuple(self.reasons[sample] for sample in sorted(self.reasons))
