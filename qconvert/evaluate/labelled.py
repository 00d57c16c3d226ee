"""Labels and the samples that they belong to: read, checked before any work is done, and kept together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qconvert.calibrate.feeds import FeedSet
from qconvert.calibrate.labels import Labels, load_labels
from qconvert.errors import DataError, RecipeError
from qconvert.evaluate.compare import Comparison
from qconvert.evaluate.fidelity import leading_axis
from qconvert.evaluate.metric import METRICS, infer_metric
from qconvert.graph.session import Session

LABELS_HINT = "--metric or --fail-if asks for it: give the file with the expected answers, or leave it out"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Evaluation data without its bad samples.

    Attributes:
        samples: all samples.
        numbers: the good ones among them, in order.
        labels: those of the good samples, [N, ...]; None where there are none.
    """

    samples: FeedSet
    numbers: Sequence[int]
    labels: Labels | None

    def origin(self, place: int) -> str:
        """The file, or file and row, of the sample at ``place`` among the good ones."""
        return self.samples.first(self.numbers[place])[0].origin

    def named(self, comparison: Comparison) -> Comparison:
        """``comparison`` of the good samples, its worst ones with their names."""
        worst = tuple(replace(found, name=self.origin(found.number)) for found in comparison.worst_samples)
        return replace(comparison, worst_samples=worst)


def labelled(samples: FeedSet, labels: Labels | None) -> Labelled:
    """Find out which samples are good, where some may be bad, since labels go with samples by number.

    Raises:
        DataError: labels that do not go with single samples cannot follow when bad ones are passed over.
    """
    if not samples.ledger.limit:
        return Labelled(samples=samples, numbers=range(len(samples)), labels=labels)
    good = tuple(number for number, _ in samples.items())
    return Labelled(
        samples=samples, numbers=good, labels=None if labels is None else _labels_of(labels, good, len(samples))
    )


def open_labels(
    path: Path | None, metric: str | None, session: Session, samples: FeedSet, source: str
) -> Labels | None:
    """The labels in ``path``, else those that the data know themselves; None without either.

    Args:
        path: a file of labels.
        metric: as the user named it; None is guessed.
        session: the model, run once to see what it gives.
        samples: what the labels are for.
        source: where the samples come from, for messages.

    Raises:
        DataError: they are damaged, mean nothing to the metric, or are not for as many samples as there are.
        RecipeError: a metric without labels.
    """
    if path is None and samples.labels is None:
        if metric is not None:
            raise RecipeError(f"the metric {metric} needs --labels", hint=LABELS_HINT)
        return None
    labels = load_labels(path) if path is not None else np.asarray(samples.labels).reshape(-1)
    outputs = session.run(samples.feed(0))
    try:
        chosen = METRICS.get(metric or infer_metric(labels, [a.shape for a in outputs]))
    except DataError as error:
        raise DataError(f"{path or 'the data'}: {error.message}", hint=error.hint) from error
    chosen.start(labels)
    needed = chosen.samples_needed(labels)
    # feeds of several samples may end in a part of one: only the comparison itself can count those
    if leading_axis(outputs) == 1 and needed != len(samples):
        raise DataError(
            f"{path or 'the data'} has {len(labels)} labels, which are for {needed} samples ({chosen.name}), "
            f"but {source} holds {len(samples)}",
            hint="give the labels of exactly these samples, in the same order",
        )
    return labels


def _labels_of(labels: Labels, good: Sequence[int], total: int) -> Labels:
    """The labels of the samples with the numbers ``good`` of ``total``, [N * b, ...] -> [len(good) * b, ...]."""
    if len(good) == total:
        return labels
    if len(labels) % total:
        raise DataError(
            f"{total - len(good)} samples are bad, and the labels are not for one sample each",
            hint="repair the samples, or leave them and their labels out",
        )
    by_sample = labels.reshape(total, len(labels) // total, *labels.shape[1:])
    return by_sample[list(good)].reshape(-1, *labels.shape[1:])
