"""Where a conversion gets its statistics: from a file, as far as it has them, and from the data for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qconvert.calibrate.collect import Collected, CollectOptions, collect
from qconvert.calibrate.ranges_file import Origin, lacking
from qconvert.calibrate.solve import Weighed
from qconvert.calibrate.suspicion import Suspicion
from qconvert.calibrate.witness import Witness
from qconvert.errors import DataError
from qconvert.graph.model import Model
from qconvert.graph.session import Feed
from qconvert.progress import Progress
from qconvert.stats.statistic import StatRequest, StatsTable

_NAMES = 3

# The share of tensors whose ranges may still grow at the end without a remark.
_GROWING = 0.25


@dataclass(slots=True, kw_only=True)
class Gatherer:
    """Gives statistics on request, and keeps them: planning again costs a pass over the data only for new tensors.

    Attributes:
        options: how a pass over the data is run.
        stored: statistics from a file, by graph.
        origin: where those come from.
        collects: whether missing ones may be collected from data.
        tables: everything that was asked for so far, by graph ("" is the main one).
        witness: saw the samples of the first pass over the main graph.
        passes: what each pass over the data gave.
        weighed: ranges made of ``tables`` so far, by graph and method.
    """

    options: CollectOptions = field(default_factory=CollectOptions)
    stored: Mapping[str, StatsTable] = field(default_factory=dict)
    origin: Origin | None = None
    collects: bool = True
    tables: dict[str, StatsTable] = field(default_factory=dict)
    witness: Witness | None = None
    passes: list[Collected] = field(default_factory=list)
    weighed: dict[tuple[str, str], Weighed] = field(default_factory=dict)

    def table(
        self,
        place: str,
        model: Model,
        requests: Sequence[StatRequest],
        method: str,
        feeds: Iterable[Feed],
        *,
        total: int | None = None,
        progress: Progress | None = None,
    ) -> StatsTable:
        """The statistics that ``requests`` ask for in the graph at ``place``, and perhaps more.

        Raises:
            DataError: a file lacks some, and there are no data to collect them from.
        """
        known = self.tables.setdefault(place, StatsTable())
        if not known.samples and place in self.stored:
            known.entries.update(self.stored[place].entries)
            known.samples = self.stored[place].samples
        wanted = tuple(r.tensor for r in requests)
        missing = lacking(known, wanted, method)
        if missing and not self.collects:
            raise self._lacks(place, missing, method)
        if missing or not known.samples:
            found = self._collected(place, model, [r for r in requests if r.tensor in missing], feeds, total, progress)
            known.entries.update(found.table.entries)
            known.samples = max(known.samples, found.table.samples)
        return StatsTable(entries={t: known[t] for t in wanted}, samples=known.samples)

    def afresh(self) -> Gatherer:
        """One for another model on the same data, which have been looked at already."""
        return Gatherer(options=self.options, witness=self.witness)

    def remarks(self) -> tuple[str, ...]:
        """What looks wrong with the data that were collected from, a sentence each."""
        found = list(self.witness.suspicion.remarks()) if self.witness is not None else []
        growing = {tensor for p in self.passes for tensor in p.growing}
        watched = sum(len(p.table.entries) for p in self.passes)
        if len(growing) > _GROWING * watched:
            found.append(
                f"the last tenth of the samples still widened the ranges of {len(growing)} of {watched} tensors: "
                "more samples would give better ranges"
            )
        return tuple(found)

    def _collected(
        self,
        place: str,
        model: Model,
        requests: Sequence[StatRequest],
        feeds: Iterable[Feed],
        total: int | None,
        progress: Progress | None,
    ) -> Collected:
        if self.witness is None and not place:
            self.witness = Witness(suspicion=Suspicion())
            feeds = self.witness.watch(feeds)
        found = collect(model, requests, feeds, total=total, progress=progress, options=self.options)
        self.passes.append(found)
        return found

    def _lacks(self, place: str, missing: Sequence[str], method: str) -> DataError:
        shown = ", ".join(missing[:_NAMES]) + (f" and {len(missing) - _NAMES} more" if len(missing) > _NAMES else "")
        where = f" in {place}" if place else ""
        made = f" (they were made for {self.origin.method})" if self.origin and self.origin.method != method else ""
        return DataError(
            f"the ranges lack statistics that {method} can use for {shown}{where}{made}",
            hint="calibrate with the options that you quantize with, or give --calib too, to collect what is missing",
        )
