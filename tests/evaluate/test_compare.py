"""compare_models on tiny real models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qconvert.errors import DataError, ModelError, RecipeError
from qconvert.evaluate.compare import compare_models
from qconvert.graph.session import Session, open_session

RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(size=(4, 3)).astype(np.float32)
X = RNG.normal(size=(10, 4)).astype(np.float32)
Array = NDArray[Any]


def linear(weight: Array, *, batch: int | str = "n", outputs: Sequence[str] = ("y", "sign")) -> Session:
    """y = x W [n, 3]; sign = y > 0, bool."""
    width = weight.shape[1]
    infos = {"y": TensorProto.FLOAT, "sign": TensorProto.BOOL}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Greater", ["y", "zero"], ["sign"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info(name, infos[name], [batch, width]) for name in outputs],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(0, np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(model.SerializeToString(), threads=1)


def feeds(x: Array = X, batch: int = 4) -> list[dict[str, Array]]:
    return [{"x": x[i : i + batch]} for i in range(0, len(x), batch)]


@pytest.fixture(scope="module")
def reference() -> Session:
    return linear(WEIGHT)


@pytest.fixture(scope="module")
def other() -> Session:
    return linear(np.round(WEIGHT * 2) / 2)


LABELS = (X @ WEIGHT).argmax(1)


def test_fidelity_only(reference: Session, other: Session) -> None:
    result = compare_models(reference, other, iter(feeds()))
    a, b = X @ WEIGHT, X @ (np.round(WEIGHT * 2) / 2)
    assert result.metric is None
    assert result.fidelity.samples == 10
    assert result.fidelity.sqnr_db == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), rel=1e-4)
    assert result.fidelity.top1_agreement == pytest.approx((a.argmax(1) == b.argmax(1)).mean())
    assert [o.numeric for o in result.fidelity.outputs] == [True, False]
    assert dataclasses.asdict(result)["fidelity"]["outputs"][0]["name"] == "y"


def test_a_model_equals_itself(reference: Session) -> None:
    fidelity = compare_models(reference, reference, feeds()).fidelity
    assert (fidelity.sqnr_db, fidelity.top1_agreement) == (math.inf, 1)
    assert all(output.equal for output in fidelity.outputs)


def test_metric_is_guessed(reference: Session, other: Session) -> None:
    metric = compare_models(reference, other, feeds(), labels=LABELS).metric
    b = X @ (np.round(WEIGHT * 2) / 2)
    assert metric is not None
    assert (metric.name, metric.unit, metric.samples, metric.reference) == ("top1", "%", 10, 100)
    assert metric.quantized == pytest.approx(100 * (b.argmax(1) == LABELS).mean())
    assert metric.drop == metric.reference - metric.quantized


def test_drop_is_positive_when_worse_for_lower_is_better(reference: Session, other: Session) -> None:
    metric = compare_models(reference, other, feeds(), metric="mae", labels=X @ WEIGHT).metric
    assert metric is not None
    assert metric.drop == pytest.approx(metric.quantized - metric.reference)
    assert metric.drop > 0


def test_equal_infinities_are_no_drop() -> None:
    broken = linear(np.full((4, 3), np.nan, np.float32))
    metric = compare_models(broken, broken, feeds(), metric="mse", labels=X @ WEIGHT).metric
    assert metric is not None
    assert (metric.reference, metric.drop) == (math.inf, 0)


def test_outputs_are_matched_by_name(reference: Session) -> None:
    swapped = linear(WEIGHT, outputs=("sign", "y"))
    assert compare_models(reference, swapped, feeds()).fidelity.sqnr_db == math.inf


def test_missing_output(reference: Session) -> None:
    with pytest.raises(ModelError, match="'sign'"):
        compare_models(reference, linear(WEIGHT, outputs=("y",)), feeds())


def test_padding_of_a_fixed_batch_is_not_scored() -> None:
    fixed = linear(WEIGHT, batch=4)
    padded = np.concatenate([X, np.repeat(X[-1:], 2, axis=0)])
    result = compare_models(fixed, fixed, feeds(padded), labels=LABELS)
    assert result.metric is not None
    assert result.metric.samples == result.fidelity.samples == 10


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS[:9], "more samples than the labels"),
        (LABELS[:4], "more samples than the labels"),
        (np.concatenate([LABELS, LABELS]), "labels are for 20 samples"),
        (np.array(3), "single number"),
        (LABELS + 1, "0 to 2"),
    ],
)
def test_labels_that_do_not_fit(reference: Session, labels: Array, words: str) -> None:
    with pytest.raises(DataError, match=words):
        compare_models(reference, reference, feeds(), metric="top1", labels=labels)


def test_metric_needs_labels_and_a_known_name(reference: Session) -> None:
    with pytest.raises(DataError, match="needs labels"):
        compare_models(reference, reference, feeds(), metric="top1")
    with pytest.raises(RecipeError):
        compare_models(reference, reference, feeds(), metric="top2", labels=LABELS)


def test_no_data(reference: Session) -> None:
    with pytest.raises(DataError, match="empty"):
        compare_models(reference, reference, [])


def test_other_number_of_rows_cannot_be_scored() -> None:
    def cut(rows: int) -> Session:
        graph = helper.make_graph(
            [helper.make_node("Slice", ["x", "start", "stop"], ["y"])],
            "cut",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 4])],
            [numpy_helper.from_array(np.array([value]), name) for name, value in (("start", 0), ("stop", rows))],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return open_session(model.SerializeToString(), threads=1)

    whole, short = cut(4), cut(2)
    assert compare_models(whole, short, feeds(X[:4])).fidelity.outputs[0].shape_mismatches == 1
    with pytest.raises(ModelError, match="2 rows"):
        compare_models(whole, short, feeds(X[:4]), labels=np.zeros(4, int))


def test_spearman_through_models(reference: Session, other: Session) -> None:
    metric = compare_models(reference, other, feeds(), metric="spearman", labels=np.arange(5.0)).metric
    assert metric is not None
    assert metric.samples == 10
    assert -1 <= metric.quantized <= 1


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.totals: list[int | None] = []

    def track(self, items: Any, *, label: str, total: int | None = None, size: Any = None) -> Iterator[Any]:
        assert label
        self.totals.append(total)
        yield from items

    def note(self, text: str) -> None:
        del text


def test_progress_knows_the_total_when_there_is_one(reference: Session) -> None:
    recorder = Recorder()
    compare_models(reference, reference, feeds(), progress=recorder)
    compare_models(reference, reference, iter(feeds()), progress=recorder)
    assert recorder.totals == [3, None]
