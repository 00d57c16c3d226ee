"""Lets tests import what they share (``from networks.builder import Builder``)."""

import gc
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# These need a browser, which is no Python package: `make test-browser` names one and runs them.
collect_ignore = [] if os.environ.get("QCONVERT_BROWSER") else ["browser"]
# MLflow brings 35 packages of 117 MB, and takes half a minute to install: `make test-mlflow` does.
collect_ignore += [] if os.environ.get("QCONVERT_MLFLOW") else ["mlflow_store"]


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at all tests and libraries again in each test.

    Every pass over data ends with a full collection (qconvert/graph/memory.py). With 6000 tests in memory it takes
    0.13 s, which was 70 % of the time of the conformance tests.
    """
    gc.collect()
    gc.freeze()
