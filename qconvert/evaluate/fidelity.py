"""Fidelity: how near the quantized model's outputs are to the reference's, with no labels needed.

For one output, r_i the reference's values and q_i the quantized model's, i over every element of every sample:

    SQNR   = 10 log10( sum r_i^2 / sum (r_i - q_i)^2 )     in dB; 6.02 dB is worth one bit
    cosine = mean over samples s of  <r_s, q_s> / (|r_s| |q_s|),   r_s = one row of the leading axis, flattened

The SQNR is pooled (sums first, one ratio at the end), so loud samples weigh more than quiet ones, and the result does
not depend on how the samples were split into feeds. Sums are float64. Only sums are kept, never a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.errors import InternalError
from qconvert.graph.session import Feed, Session

# Elements widened to float64 at a time: six such buffers are then under 64 MB, however large the logits are.
_CHUNK = 1 << 20

# Below, outputs are not what the float model's are: a tenth of their amplitude is error (docs/decisions/0026).
FLOOR_DB = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFidelity:
    """One output of the quantized model against the reference's.

    Attributes:
        name: the output's name.
        numeric: whether it holds numbers; what does not (bool, string, sequences) is only compared for equality.
        sqnr_db: SQNR in dB, pooled; inf when no compared element differs, -inf when the reference is all zero and the
            other is not, or when nothing could be compared and the two differ; None when not numeric.
        cosine: mean over samples of the cosine of the two vectors, -1..1; None when not numeric.
        max_abs_error: largest |r - q|, in the output's own unit.
        reference_range: least and greatest finite value of the reference; None when there is none.
        equal: every value of every sample is the same.
        elements: elements compared (finite in both).
        mismatched_nonfinite: elements where the two do not hold the same NaN or Inf; positions where both hold the same
            one are left out of everything.
        shape_mismatches: feeds where the shapes differ (NonMaxSuppression and its kind); they count in nothing else.
        top1_agreement: for an output [n, C] or [n, C, 1, 1], C >= 2: share of rows, 0..1, with the same argmax.
    """

    name: str
    numeric: bool
    sqnr_db: float | None
    cosine: float | None
    max_abs_error: float
    reference_range: tuple[float, float] | None
    equal: bool
    elements: int
    mismatched_nonfinite: int
    shape_mismatches: int
    top1_agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityReport:
    """All outputs together.

    Attributes:
        outputs: one entry an output, in the reference's order.
        sqnr_db: pooled over every element of every numeric output, dB.
        worst_sqnr_db: the least SQNR of any numeric output, dB.
        cosine: mean over the numeric outputs of their cosine.
        max_abs_error: the largest of any output.
        top1_agreement: of the first output that looks like class scores, 0..1; None when none does.
        samples: samples seen.
        worst_output: whose SQNR is ``worst_sqnr_db``.
    """

    outputs: tuple[OutputFidelity, ...]
    sqnr_db: float
    worst_sqnr_db: float
    cosine: float
    max_abs_error: float
    top1_agreement: float | None
    samples: int
    worst_output: str | None = None


def sqnr_db(signal: float, noise: float) -> float:
    """SQNR in dB of the energies ``signal`` = sum r^2 and ``noise`` = sum (r - q)^2; inf without noise.

    -inf without a signal, and where the noise is infinite: shapes, or NaN and Inf, differ.
    """
    if noise == 0:
        return math.inf
    ratio = signal / noise
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


class TensorSums:
    """The running sums of one output, or of any other tensor that two models have in common."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.numeric = True
        self.equal = True
        self.signal = self.noise = self.cosines = self.max_abs = 0.0
        self.low, self.high = math.inf, -math.inf
        self.elements = self.mismatched = self.rows = self.shape_mismatches = 0
        self.classes = True
        self.agreeing = 0

    def update(self, reference: object, quantized: object) -> tuple[float, float]:
        """Take in one feed's arrays, [n, ...] both.

        Returns:
            (signal, noise) of this feed alone: the energies of the reference and of the error. The noise is infinite
            where shapes, or NaN and Inf, differ; both are 0 for what holds no numbers.
        """
        self.equal = self.equal and _same(reference, quantized)
        if not (_is_numeric(reference) and _is_numeric(quantized)):
            self.numeric = False
            return 0.0, 0.0
        ref, quant = np.asarray(reference), np.asarray(quantized)
        if ref.shape != quant.shape:
            self.shape_mismatches += 1
            return 0.0, math.inf
        if ref.size == 0:
            return 0.0, 0.0
        self.classes = self.classes and _is_class_scores(ref)
        rows = ref.shape[0] if ref.ndim else 1
        ref, quant = ref.reshape(rows, -1), quant.reshape(rows, -1)
        if self.classes:
            self.agreeing += int(np.count_nonzero(ref.argmax(axis=1) == quant.argmax(axis=1)))
        self.rows += rows
        step = max(1, _CHUNK // ref.shape[1])
        parts = [
            self._add(ref[i : i + step].astype(np.float64), quant[i : i + step].astype(np.float64))
            for i in range(0, rows, step)
        ]
        return sum(s for s, _ in parts), sum(n for _, n in parts)

    def _add(self, ref: NDArray[np.float64], quant: NDArray[np.float64]) -> tuple[float, float]:
        """Add rows [n, width] to the sums; returns their (signal, noise)."""
        both = np.isfinite(ref) & np.isfinite(quant)
        differs = ~both & (ref != quant) & ~(np.isnan(ref) & np.isnan(quant))
        mismatched = int(np.count_nonzero(differs))
        self.mismatched += mismatched
        self.elements += int(np.count_nonzero(both))
        self.low = min(self.low, float(np.min(ref, initial=math.inf, where=both)))
        self.high = max(self.high, float(np.max(ref, initial=-math.inf, where=both)))
        ref, quant = np.where(both, ref, 0.0), np.where(both, quant, 0.0)
        error = ref - quant
        ref_energy, quant_energy = np.einsum("nw,nw->n", ref, ref), np.einsum("nw,nw->n", quant, quant)
        signal, noise = float(ref_energy.sum()), float(np.einsum("nw,nw->", error, error))
        self.signal += signal
        self.noise += noise
        self.max_abs = max(self.max_abs, float(np.abs(error).max()))
        norms = np.sqrt(ref_energy) * np.sqrt(quant_energy)
        # Two zero vectors point the same way; a zero vector and another one do not.
        alike = (ref_energy == 0) & (quant_energy == 0) & ~differs.any(axis=1)
        dots = np.einsum("nw,nw->n", ref, quant)
        cosines = np.divide(dots, norms, out=alike.astype(np.float64), where=norms > 0)
        self.cosines += float(np.clip(cosines, -1.0, 1.0).sum())
        return signal, math.inf if mismatched else noise

    def result(self) -> OutputFidelity:
        """What the sums say."""
        unseen = math.inf if self.equal else -math.inf
        sqnr = sqnr_db(self.signal, self.noise) if self.elements else unseen
        cosine = self.cosines / self.rows if self.rows else float(self.equal)
        return OutputFidelity(
            name=self.name,
            numeric=self.numeric,
            sqnr_db=sqnr if self.numeric else None,
            cosine=cosine if self.numeric else None,
            max_abs_error=self.max_abs,
            reference_range=(self.low, self.high) if self.elements else None,
            equal=self.equal,
            elements=self.elements,
            mismatched_nonfinite=self.mismatched,
            shape_mismatches=self.shape_mismatches,
            top1_agreement=self.agreeing / self.rows if self.classes and self.rows else None,
        )


class Fidelity:
    """Accumulates fidelity over the outputs of many feeds.

    Args:
        names: the outputs' names, in the order in which :meth:`update` gets their arrays.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._outputs = tuple(TensorSums(name) for name in names)
        self._samples = 0

    def update(self, reference: Sequence[object], quantized: Sequence[object], *, samples: int | None = None) -> float:
        """Take in one feed's outputs; returns the SQNR of this feed alone, over its numeric outputs, in dB.

        Args:
            reference: the reference's outputs, [n, ...] each.
            quantized: the quantized model's, in the same order.
            samples: how many samples the feed held; by default the first output's leading axis.
        """
        if not len(reference) == len(quantized) == len(self._outputs):
            raise InternalError(f"{len(self._outputs)} outputs to compare, got {len(reference)} and {len(quantized)}")
        energies = [o.update(r, q) for o, r, q in zip(self._outputs, reference, quantized, strict=True)]
        self._samples += leading_axis(reference) if samples is None else samples
        noise = sum(n for _, n in energies)
        return sqnr_db(sum(s for s, _ in energies), noise) if math.isfinite(noise) else -math.inf

    def report(self) -> FidelityReport:
        """Fidelity of everything seen so far."""
        results = tuple(output.result() for output in self._outputs)
        counted = [o for o in self._outputs if o.numeric and o.elements]
        unseen = math.inf if all(r.equal for r in results) else -math.inf
        pooled = sqnr_db(sum(o.signal for o in counted), sum(o.noise for o in counted)) if counted else unseen
        ranked = [(r.sqnr_db, r.name) for r in results if r.sqnr_db is not None]
        worst, worst_name = min(ranked, key=lambda pair: pair[0], default=(unseen, None))
        cosines = [r.cosine for r in results if r.cosine is not None]
        return FidelityReport(
            outputs=results,
            sqnr_db=pooled,
            worst_sqnr_db=worst,
            cosine=sum(cosines) / len(cosines) if cosines else float(unseen > 0),
            max_abs_error=max((r.max_abs_error for r in results), default=0.0),
            top1_agreement=next((r.top1_agreement for r in results if r.top1_agreement is not None), None),
            samples=self._samples,
            worst_output=worst_name,
        )


def leading_axis(outputs: Sequence[object]) -> int:
    """Samples in one feed's outputs: the leading axis of the first, 1 for a scalar or a sequence."""
    first = outputs[0] if outputs else None
    return first.shape[0] if isinstance(first, np.ndarray) and first.ndim else 1


def _is_class_scores(output: NDArray[np.generic]) -> bool:
    # Wide integers [n, T] are token or box indices; scores are floats, or 8 bits wide in a fully integer model.
    shape, scores = output.shape, output.dtype.kind == "f" or output.dtype.itemsize == 1
    return scores and len(shape) in (2, 4) and shape[1] >= 2 and shape[2:] in ((), (1, 1))


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray | np.number) and value.dtype.kind in "fiu"


def _same(first: object, second: object) -> bool:
    """Equality of outputs of any kind: arrays, and the lists and dicts of sequence and map outputs."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, np.ndarray | np.generic) and isinstance(second, np.ndarray | np.generic):
        return bool(np.array_equal(first, second, equal_nan=first.dtype.kind == second.dtype.kind == "f"))
    return bool(first == second)


def output_energies(reference: Session, quantized: Session, feeds: Iterable[Feed]) -> list[tuple[float, float]]:
    """(energy, energy of the error) of all float outputs together, for each of ``feeds``; (0, 0) without any."""
    names = [spec.name for spec in reference.outputs if spec.dtype.startswith("float")]
    sums = TensorSums("outputs")
    found: list[tuple[float, float]] = []
    for feed in feeds:
        pairs = zip(reference.run(feed, names), quantized.run(feed, names), strict=True)
        each = [sums.update(r, q) for r, q in pairs]
        found.append((sum(signal for signal, _ in each), sum(noise for _, noise in each)))
    return found
