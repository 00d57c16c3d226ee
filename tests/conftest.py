"""Lets tests import what they share (``from networks.builder import Builder``)."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# These need a browser, which is no Python package: `make test-browser` names one and runs them.
collect_ignore = [] if os.environ.get("QCONVERT_BROWSER") else ["browser"]
# MLflow brings 35 packages of 117 MB, and takes half a minute to install: `make test-mlflow` does.
collect_ignore += [] if os.environ.get("QCONVERT_MLFLOW") else ["mlflow_store"]
