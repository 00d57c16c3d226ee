"""The ONNX project's own backend test cases as things to quantize, and the main job's stages run on one of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from qconvert.calibrate.feeds import FeedSet, feeds
from qconvert.calibrate.source import Sample, Source, check_interface
from qconvert.delivery import Delivered
from qconvert.errors import InputError, QConvertError
from qconvert.graph.prepare.canonical import Prepared, agreement, prepare
from qconvert.graph.session import Session, open_session
from qconvert.pipeline import least_opset, load_float_model, make_quantized, verify
from qconvert.recipe.recipe import Recipe
from qconvert.run import Run

DATA = Path(onnx.__file__).parent / "backend/test/data"
FOLDERS = ("pytorch-operator", "pytorch-converted", "simple")


@dataclass(frozen=True, kw_only=True)
class BackendCase:
    """A model with the inputs of its first data set, in the model's order; whatever they are, tensors or not."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case under one recipe: refused with a message, or converted (``sqnr_db`` is not None).

    Attributes:
        refusal: the message of the InputError.
        sqnr_db: the quantized outputs against FP32, on the input that was calibrated on.
        faults: what should not have happened, one sentence each.
    """

    refusal: str = ""
    sqnr_db: float | None = None
    faults: tuple[str, ...] = ()


class OneSample(Source):
    """A source of a single sample in memory."""

    name = "in memory"

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample(arrays=self._arrays, origin=self.name, stacked=False)

    def identity(self, index: int) -> str:
        return self.name


def node_cases() -> list[BackendCase]:
    """The cases that ONNX defines in Python: every operator, every opset version's newest form."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero and overflow on purpose
        found = collect_testcases(None)
    return [BackendCase(name=c.name, model=c.model, inputs=tuple(c.data_sets[0][0])) for c in found]


def folder_cases() -> list[BackendCase]:
    """The cases that come as files: exports of PyTorch modules and operators, of old opsets."""
    return [
        BackendCase(name=f"{kind}/{folder.name}", model=onnx.load(folder / "model.onnx"), inputs=_stored(folder))
        for kind in FOLDERS
        for folder in sorted((DATA / kind).glob("*"))
        if (folder / "model.onnx").exists()
    ]


def _stored(folder: Path) -> tuple[object, ...]:
    files = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
    return tuple(_tensor_or_none(file) for file in files)


def _tensor_or_none(file: Path) -> object:
    """The tensor in ``file``; None for a sequence, an optional value, or what numpy cannot hold."""
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        return numpy_helper.to_array(tensor)
    except Exception:  # whatever protobuf and numpy raise on other messages
        return None


def with_constants(case: BackendCase) -> BackendCase | None:
    """The case with all inputs but the first as initializers, like real weights; None if that is no change."""
    graph = case.model.graph
    fixed = {v.name: x for v, x in zip(graph.input[1:], case.inputs[1:], strict=False) if isinstance(x, np.ndarray)}
    fixed = {name: x for name, x in fixed.items() if x.dtype.kind in "fiub"}
    if not fixed or len(graph.input) != len(case.inputs):
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = max(model.ir_version, 4)  # below, initializers have to be inputs too
    del model.graph.input[:]
    model.graph.input.extend(v for v in graph.input if v.name not in fixed)
    model.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in fixed.items())
    left = tuple(x for v, x in zip(graph.input, case.inputs, strict=True) if v.name not in fixed)
    return BackendCase(name=f"{case.name} [constants]", model=model, inputs=left)


def outcomes(case: BackendCase, recipes: Sequence[Recipe], folder: Path) -> Iterator[Outcome]:
    """Take ``case`` through the stages of the main job under every recipe, as far as they go."""
    path = folder / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        source = load_float_model(path)
        reference = open_session(path)
        samples = _samples(case, reference)
        expected = reference.run(samples.feed(0))
        prepared = prepare(source, samples.feed(0), min_opset=max(least_opset(r) for r in recipes))
    except Exception as error:
        yield from [_outcome_of(error)] * len(recipes)
        return
    for recipe in recipes:
        try:
            yield _converted(prepared, recipe, samples, reference, expected)
        except Exception as error:
            yield _outcome_of(error)


def _samples(case: BackendCase, reference: Session) -> FeedSet:
    check_interface(reference.inputs)
    arrays = {s.name: x for s, x in zip(reference.inputs, case.inputs, strict=False) if isinstance(x, np.ndarray)}
    return feeds(OneSample(arrays), reference.inputs)


def _converted(
    prepared: Prepared, recipe: Recipe, samples: FeedSet, reference: Session, expected: list[np.ndarray]
) -> Outcome:
    result = make_quantized(prepared, Run(recipe=recipe, samples=samples))
    verification = verify(result, Delivered(model=result.model), reference, census=False)
    faults = [*verification.interface, *(n for n in result.notes if "went back to float: " in n)]
    if verification.checker:
        faults.append(f"the checker complains: {verification.checker}")
    return Outcome(sqnr_db=agreement(expected, result.session.run(samples.feed(0))), faults=tuple(faults))


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, InputError) and error.message:
        return Outcome(refusal=error.message)
    text = error.message if isinstance(error, QConvertError) else str(error)
    return Outcome(faults=(f"{type(error).__name__}: {text[:300]}",))
