"""What a run starts from: the FP32 model and its data, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qconvert.calibrate.collect import CollectOptions
from qconvert.calibrate.data import DataSpec, open_data_set
from qconvert.calibrate.feeds import FeedSet, split
from qconvert.errors import ModelError
from qconvert.graph.model import Model, load
from qconvert.graph.quantized import quantized_ops
from qconvert.graph.session import IOSpec
from qconvert.recipe.recipe import Recipe
from qconvert.recipe.resolve import types_for
from qconvert.targets.auto import target_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionJob:
    """What to quantize, with what.

    Attributes:
        model: the FP32 model.
        calib: calibration data; may be left out where there are ranges.
        ranges: a statistics file in place of a pass over the data.
        recipe: the choices.
        eval_data, labels, metric: evaluation data; labels only together with it.
        options: how the calibration pass is run.
        cache: a folder in which statistics are kept and found again; None keeps nothing.
    """

    model: Path
    calib: DataSpec | None = None
    ranges: Path | None = None
    recipe: Recipe = field(default_factory=Recipe)
    eval_data: DataSpec | None = None
    labels: Path | None = None
    metric: str | None = None
    options: CollectOptions = field(default_factory=CollectOptions)
    cache: Path | None = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read and must stay as they are."""
        sources = [path for spec in (self.calib, self.eval_data) if spec is not None for path in spec.paths]
        return tuple(p for p in (self.model, self.ranges, self.labels, *sources) if p is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The samples of a run.

    Attributes:
        calibration: what ranges are made from.
        evaluation: what the result is judged on.
        held_out: no sample is in both.
        evaluation_source: where the latter come from, for the report.
    """

    calibration: FeedSet
    evaluation: FeedSet
    held_out: bool
    evaluation_source: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the sources had to say."""
        return tuple(dict.fromkeys((*self.calibration.warnings, *self.evaluation.warnings)))

    @property
    def skipped(self) -> tuple[str, ...]:
        """The bad samples that were passed over."""
        return tuple(dict.fromkeys((*self.calibration.skipped, *self.evaluation.skipped)))


def load_float_model(path: Path) -> Model:
    """Read the model to quantize.

    Raises:
        ModelError: unreadable, or quantized already.
    """
    model = load(path)
    already = quantized_ops(model)
    if already:
        raise ModelError(
            f"{path} is quantized already: it holds {', '.join(already[:4])}{' ...' if len(already) > 4 else ''}",
            hint="give the FP32 model that it was made from",
        )
    return model


def least_opset(recipe: Recipe) -> int:
    """The least opset whose QuantizeLinear can express ``recipe``: 10 has scales a tensor, 13 a channel, 21 16 bits."""
    return types_for(recipe, target_of(recipe.target)).least_opset


def open_data(calib: DataSpec, evaluation: DataSpec | None, interface: tuple[IOSpec, ...]) -> Data:
    """Open the data of a run. A part of the calibration samples is always held out: for measuring where there are no
    evaluation samples, and so that the same samples make the ranges whether there are or not.

    Raises:
        DataError: a sample does not fit the model.
    """
    kept, held = split(open_data_set(calib, interface))
    if evaluation is not None:
        judged = open_data_set(evaluation, interface)
        return Data(calibration=kept, evaluation=judged, held_out=True, evaluation_source=evaluation.name)
    if len(held) == 0:
        return Data(calibration=kept, evaluation=kept, held_out=False, evaluation_source=calib.name)
    return Data(calibration=kept, evaluation=held, held_out=True, evaluation_source=f"{calib.name} (held out)")
