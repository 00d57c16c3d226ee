"""What each operator does to the outputs, in a report: for the table of layers, and for what to try next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qconvert.conversion import Quantized, quantizes
from qconvert.errors import DataError, QConvertError, described
from qconvert.pipeline import Started
from qconvert.report.model import Report
from qconvert.sensitivity.analysis import GroupDamage, analyze, damages_of
from qconvert.sensitivity.measure import MeasureOptions

# 1e11 multiplications take 1 to 2 s of two cores: a report may cost that, or ten times as much where two samples take
# it; dearer models are looked at on one sample, and the errors of the worst operators split as far as that goes.
# Which errors are larger than others by 10 dB, a few samples show.
_OPTIONS = MeasureOptions(most=8, operations=1e11, dearest=1e12)


def examined(started: Started, quantized: Quantized) -> tuple[tuple[GroupDamage, ...], tuple[str, ...]]:
    """(what each operator of ``quantized`` does, notes); nothing where no samples are there to measure it on.

    Whatever goes wrong costs a note: there is a good model already.
    """
    if not quantizes(quantized.plan) or not started.run.gatherer.collects:
        return (), ()
    try:
        found = damages_of(analyze(started, quantized, _OPTIONS))
        split = sum(bool(_split(damage)) for damage in found)
        if split == sum(damage.noise > 0 for damage in found):
            return found, ()
        which = f"was measured for the worst {split} of {len(found)}" if split else "was not measured"
        left = (
            f"what the error of an operator consists of {which}, and all on one sample, to bound the time: "
            "`qconvert sensitivity` takes its time"
        )
        return found, (left,)
    except DataError:
        raise
    except Exception as error:
        message = described(error)
        hint = f"; {error.hint}" if isinstance(error, QConvertError) and error.hint else ""
        return (), (f"what each operator alone does to the outputs was not measured: {message[:300]}{hint}",)


def with_damages(report: Report, damages: Iterable[GroupDamage]) -> Report:
    """``report`` whose decisions tell what the operators that ``damages`` name do to the outputs."""
    known = {d.name: d for d in damages}
    return replace(
        report,
        decisions=tuple(
            replace(d, sqnr_db=known[d.node].sqnr_db, error_split=_split(known[d.node])) if d.node in known else d
            for d in report.decisions
        ),
    )


def _split(damage: GroupDamage) -> Mapping[str, float]:
    """Cause -> its share of the squared error of the four together, 0..1; empty where there is none."""
    parts = {
        "weight rounding": damage.weight_rounding,
        "weight clipping": damage.weight_clipping,
        "activation rounding": damage.activation_rounding,
        "activation clipping": damage.activation_clipping,
    }
    total = sum(parts.values())
    return {cause: part / total for cause, part in parts.items()} if total > 0 else {}
