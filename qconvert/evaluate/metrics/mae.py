"""Mean absolute error; see ``mse`` for the formula."""

from __future__ import annotations

import numpy as np

from qconvert.evaluate.metric import METRICS
from qconvert.evaluate.metrics.mse import MeanError

METRICS.add("mae", MeanError(name="mae", error=np.abs))
