"""MLflow: ``--track mlflow``, or ``--track mlflow:EXPERIMENT``. Needs ``pip install 'qconvert[mlflow]'``.

Where to is MLflow's own business: $MLFLOW_TRACKING_URI names a server or a store, $MLFLOW_EXPERIMENT_NAME the
experiment ("qconvert" where nothing names one). Documentation: mlflow.org/docs/latest/ml/tracking.
"""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from typing import Any

from qconvert.errors import OutputError, RecipeError
from qconvert.tracking.tracker import TRACKERS, TrackedRun, Tracker, TrackerFactory

DEFAULT_EXPERIMENT = "qconvert"
# MLflow refuses longer values of parameters
_LONGEST = 6000


def _open(experiment: str) -> Tracker:
    if find_spec("mlflow") is None:
        raise RecipeError("--track mlflow needs MLflow, which is not installed", hint="pip install 'qconvert[mlflow]'")
    name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "") or DEFAULT_EXPERIMENT
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient()
        found = client.get_experiment_by_name(name)
        number = found.experiment_id if found is not None else client.create_experiment(name)
    except Exception as error:  # a server that does not answer raises what its transport raises
        raise RecipeError(f"--track mlflow: {_line(error)}", hint="check $MLFLOW_TRACKING_URI") from error

    def log(run: TrackedRun) -> None:
        try:
            _log(client, number, run)
        except (MlflowException, OSError) as error:
            raise OutputError(_line(error), hint="check $MLFLOW_TRACKING_URI") from error

    return log


def _log(client: Any, experiment: str, run: TrackedRun) -> None:
    made = client.create_run(experiment, run_name=run.name, tags={"qconvert.command": run.command}).info.run_id
    try:
        for key, value in run.parameters.items():
            client.log_param(made, key, value[:_LONGEST])
        for key, number in run.metrics.items():
            if math.isfinite(number):
                client.log_metric(made, _key(key), number)
        for path in run.artifacts:
            client.log_artifact(made, str(path))
    except Exception:
        client.set_terminated(made, status="FAILED")
        raise
    client.set_terminated(made)


def _key(name: str) -> str:
    """A name that MLflow takes: letters, digits, and what it allows between them."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


TRACKERS.add("mlflow", TrackerFactory(open=_open, description="MLflow: parameters, metrics, reports, the model"))
