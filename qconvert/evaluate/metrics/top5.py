"""Top-5 accuracy in percent; see ``top1`` for the formula."""

from __future__ import annotations

from qconvert.evaluate.metric import METRICS
from qconvert.evaluate.metrics.top1 import TopK

METRICS.add("top5", TopK(name="top5", k=5))
