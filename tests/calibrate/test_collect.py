"""The law of the pass, through ONNX Runtime: the statistics are those of the set of samples, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks.all import NETWORKS
from networks.builder import Feed

from qconvert.calibrate import batching
from qconvert.calibrate.batching import can_batch
from qconvert.calibrate.collect import Collected, CollectOptions, collect
from qconvert.calibrate.method import METHODS
from qconvert.calibrate.ranges_file import Origin, Ranges, merge_ranges, ranges_to_bytes
from qconvert.graph.build_view import view_of
from qconvert.graph.model import Model, load
from qconvert.graph.prepare.canonical import prepare
from qconvert.graph.session import IOSpec
from qconvert.stats.statistic import StatRequest

ROOT = Path(__file__).parents[2]
ORIGIN = Origin(
    model="m.onnx",
    model_sha256="0" * 64,
    graph_sha256="1" * 64,
    method="percentile",
    data="0" * 64,
    samples=0,
    qconvert="1",
    onnxruntime="1",
    numpy="1",
)


@cache
def case(name: str) -> tuple[Model, tuple[str, ...], tuple[Feed, ...]]:
    """(canonical model, every float tensor that nodes make, 24 samples)."""
    if name in NETWORKS:
        net = NETWORKS[name]()
        model = Model(ir=ir.from_proto(net.proto))
        first = dict(net.feeds[0])
        rng = np.random.default_rng(0)
        feeds = [
            {
                k: v + rng.normal(0, 1, v.shape).astype(np.float32) if v.dtype == np.float32 else v
                for k, v in first.items()
            }
            for _ in range(24)
        ]
    else:
        model = load(ROOT / "sample_models" / f"{name}.onnx")
        with np.load(ROOT / "calibration_data" / name / "calib.npz") as data:
            feeds = [{k: data[k][i : i + 1] for k in data.files} for i in range(24)]
    canonical = prepare(model, feeds[0]).model
    view = view_of(canonical)
    names = tuple(t.name for t in view.tensors.values() if t.producer is not None and t.is_float)
    return canonical, names, tuple(feeds)


def gathered(name: str, order: Sequence[int], options: CollectOptions, method: str = "percentile") -> Collected:
    model, names, feeds = case(name)
    requests = [StatRequest(tensor=t, make=METHODS.get(method).needs, asked_by="test") for t in names]
    return collect(model, requests, [feeds[i] for i in order], total=len(order), options=options)


def content(*parts: Collected) -> bytes:
    """What a statistics file of these would hold."""
    files = [(Path(f"{i}.npz"), Ranges(origin=ORIGIN, tables={"": p.table})) for i, p in enumerate(parts)]
    return ranges_to_bytes(merge_ranges(files) if len(files) > 1 else files[0][1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("digits_cnn", "percentile"),
        ("digits_transformer", "moving-average"),
        ("digits_gru", "mean-minmax"),
        ("mobilenet_v2", "minmax"),
        ("digits_transformer", "percentile"),
    ],
)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_neither_order_nor_threads_nor_batch_nor_split_change_a_bit(
    name: str, method: str, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(24)), label="order")
    cut = data.draw(st.integers(1, 23), label="cut")
    options = st.builds(
        lambda threads, batch: CollectOptions(threads=threads, batch=batch),
        st.integers(1, 4),
        st.sampled_from([1, 2, 3, 5, 0]),
    )
    whole = gathered(name, range(24), CollectOptions(threads=1, batch=1), method)
    mixed = gathered(name, order, data.draw(options), method)
    halves = [gathered(name, part, data.draw(options), method) for part in (order[:cut], order[cut:])]
    assert content(mixed) == content(whole)
    assert content(*halves) == content(whole)


def test_some_batches_do_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_WORTH", float("inf"))  # a clock must not decide a test
    tried = [gathered(n, range(24), CollectOptions(threads=1, batch=4)) for n in ("digits_cnn", "digits_transformer")]
    assert 4 in [t.batch for t in tried]


def test_a_batch_that_changes_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_WORTH", float("inf"))
    model, names, feeds = case("digits_cnn")
    proto = onnx.load_from_string(model.to_bytes())
    # the mean over the batch makes every sample depend on the others
    source = proto.graph.input[0].name
    mean = onnx.helper.make_node(
        "ReduceMean", [source], ["over_the_batch"], axes=[0], keepdims=1, name="over_the_batch"
    )
    add = onnx.helper.make_node("Add", [source, "over_the_batch"], ["mixed"], name="mixed")
    for node in proto.graph.node:
        node.input[:] = ["mixed" if i == source else i for i in node.input]
    proto.graph.node.insert(0, add)
    proto.graph.node.insert(0, mean)
    mixing = Model(ir=ir.from_proto(proto))
    request = [StatRequest(tensor=names[0], make=METHODS.get("minmax").needs, asked_by="test")]
    found = collect(mixing, request, feeds, total=24, options=CollectOptions(threads=1, batch=4))
    assert found.batch == 1


@pytest.mark.parametrize("name", ["digits_cnn", "mobilenet_v2", "digits_transformer", "resnet"])
def test_parts_observe_what_the_whole_does(name: str) -> None:
    whole = gathered(name, range(8), CollectOptions(threads=1))
    parts = gathered(name, range(8), CollectOptions(threads=2, budget=20_000))
    assert (whole.parts, parts.parts > 1) == (1, True)
    for tensor in whole.table:
        a, b = whole.table[tensor].extremes, parts.table[tensor].extremes
        assert a.total == b.total
        np.testing.assert_allclose([a.lo, a.hi], [b.lo, b.hi], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS.names())
def test_samples_of_different_length(method: str) -> None:
    model, names, feeds = case("digits_transformer")
    ragged = [{k: v[:, : 20 + 3 * (i % 5)] for k, v in f.items()} for i, f in enumerate(feeds)]
    requests = [StatRequest(tensor=t, make=METHODS.get(method).needs, asked_by="test") for t in names]
    found = [
        collect(model, requests, order, total=24, options=CollectOptions(threads=t))
        for order, t in ((ragged, 1), (ragged[::-1], 3))
    ]
    assert content(found[0]) == content(found[1])
    assert not any(found[0].table[t].extremes.empty for t in names)


def test_only_the_requested_tensors_are_there() -> None:
    model, names, feeds = case("digits_cnn")
    request = StatRequest(tensor=names[2], make=METHODS.get("minmax").needs, asked_by="test")
    inputs = StatRequest(tensor="image", make=METHODS.get("minmax").needs, asked_by="test")
    found = collect(model, [request, inputs], feeds)
    assert set(found.table) == {names[2], "image"}
    assert found.table["image"].extremes.hi == max(float(np.max(f["image"])) for f in feeds)


def test_ranges_that_grow_at_the_end_are_named() -> None:
    model, _, feeds = case("digits_cnn")
    request = [StatRequest(tensor="image", make=METHODS.get("minmax").needs, asked_by="test")]
    growing = [*([feeds[0]] * 36), *({"image": feeds[0]["image"] * 3} for _ in range(4))]
    assert collect(model, request, growing, total=40).growing == ("image",)
    assert collect(model, request, growing[::-1], total=40).growing == ()


@pytest.mark.parametrize(
    ("shape", "rows", "free"),
    [(("n", 3), 1, True), ((None, 3), 1, True), ((1, 3), 1, False), (("n", 3), 2, False), ((), 1, False)],
)
def test_which_inputs_can_be_batched(shape: tuple[int | str | None, ...], rows: int, free: bool) -> None:
    spec = IOSpec(name="x", dtype="float32", shape=shape)
    assert can_batch([spec], {"x": np.zeros((rows, 3), np.float32)}) is free
