"""Peak signal-to-noise ratio of images, in dB.

    PSNR = mean over samples s of  10 log10( P^2 / mse_s ),   mse_s = mean_w (clip(y_sw) - t_sw)^2

uint8 labels are images: t = label / 255 and P = 1, against float outputs in 0..1 (or uint8 outputs, also / 255). Float
labels are taken as they are, with P = max(1, greatest label). Outputs are clipped to [min(0, least label), P], as a
viewer would clip them. A sample's PSNR stops at 100 dB, so that one perfect sample does not make the mean infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qconvert.evaluate.metric import METRICS, Array, aligned, rows_for, wrong_labels
from qconvert.graph.session import Feed

# 100 dB is mse = 1e-10 P^2: below what float32 images can show.
_FLOOR = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Psnr:
    """PSNR of outputs [n, ...] against uint8 or float images [N, ...] of the same shape."""

    name: str = "psnr"
    higher_is_better: bool = True
    unit: str = "dB"

    def samples_needed(self, labels: Array) -> int:
        """One sample a label."""
        return len(labels)

    def start(self, labels: Array) -> PsnrAccumulator:
        """A fresh sum."""
        if not (labels.dtype == np.uint8 or labels.dtype.kind == "f") or not labels.size:
            raise wrong_labels(self.name, labels, "images of the output's shape: uint8, or float with peak 1")
        return PsnrAccumulator(labels)


class PsnrAccumulator:
    """PSNR, sample by sample."""

    def __init__(self, labels: Array) -> None:
        self._labels = labels
        self._bytes = labels.dtype == np.uint8
        self._low, self._peak = (0.0, 1.0) if self._bytes else _range(labels)
        self._values: list[NDArray[np.float64]] = []

    def update(self, outputs: Sequence[Array], feed: Feed, first: int) -> None:
        """Add the PSNR of each row of the first output, [n, ...]."""
        del feed
        output, labels = aligned("psnr", outputs[0], rows_for("psnr", outputs[0], self._labels, first))
        if self._bytes:
            labels /= 255
            if outputs[0].dtype == np.uint8:
                output /= 255
        errors = np.square(np.clip(output, self._low, self._peak) - labels).mean(axis=1)
        # NaN, from NaN outputs, becomes an infinite error: -inf dB.
        errors = np.where(np.isnan(errors), np.inf, np.maximum(errors / self._peak**2, _FLOOR))
        self._values.append(-10 * np.log10(errors))

    def scores(self) -> NDArray[np.float64]:
        """PSNR of each sample in dB, [N]."""
        return np.concatenate(self._values) if self._values else np.zeros(0)

    def value(self) -> float:
        """Mean PSNR in dB."""
        values = self.scores()
        return float(values.mean()) if len(values) else float("-inf")


def _range(labels: Array) -> tuple[float, float]:
    """What outputs are clipped to, least and greatest; the latter is the peak."""
    return min(0.0, float(labels.min())), max(1.0, float(labels.max()))


METRICS.add("psnr", Psnr())
