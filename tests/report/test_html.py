"""The HTML report, read with a parser: what is on it, that it needs nothing else, and that names stay names."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from report.page import Element, read

from qconvert.calibrate.data import DataSpec
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe
from qconvert.report.model import Front, FrontPoint, NodeDecision, Report, TensorHistogram, TensorReport
from qconvert.report.renderer import renderer_for
from qconvert.report.summaries import summary_of

REPO = Path(__file__).resolve().parents[2]
HOSTILE = """</script></style></title>--><img src=x onerror=alert(1)>" onfocus="alert(1)' {{ 7*7 }} &lt;"""
SPLIT = {"weight rounding": 0.4, "weight clipping": 0.1, "activation rounding": 0.3, "activation clipping": 0.2}


def made(folder: Path, **recipe: object) -> Report:
    """A report of the sample CNN."""
    data = REPO / "calibration_data" / "digits_cnn"
    job = QuantizeJob(
        model=REPO / "sample_models" / "digits_cnn.onnx",
        output=folder / "digits.int8.onnx",
        calib=DataSpec(sources=(str(data / "calib.npz"),), samples=16),
        eval_data=DataSpec(sources=(str(data / "eval.npz"),), samples=40),
        recipe=Recipe(recover=("none",), placement="static", **recipe),  # type: ignore[arg-type]
        force=True,
    )
    return quantize(job)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return made(tmp_path_factory.mktemp("qdq"))


def html(report: Report) -> str:
    return renderer_for(Path("report.html")).render(report)


def page_of(report: Report) -> Element:
    return read(html(report))


def node_rows(page: Element) -> list[Element]:
    return list(page.one("table", id="nodes").one("tbody").every("tr"))


def measured(report: Report) -> Report:
    """``report`` with everything that other stages may add."""
    decisions = tuple(
        replace(d, sqnr_db=31.0 + i, error_split=SPLIT, float_ms=0.25, integer_ms=0.125)
        for i, d in enumerate(report.decisions)
    )
    points = tuple(
        FrontPoint(label=f"{i} float", speedup=2.0 - i / 4, value=98.0 + i / 4, chosen=i == 1) for i in range(4)
    )
    front = Front(quantity="top1", unit="%", points=points, reference=99.0)
    return replace(report, decisions=decisions, front=front)


# ---- what is on the page


def test_every_node_is_in_the_table_with_its_decision_and_reason(report: Report) -> None:
    page = page_of(report)
    heads = len(list(page.one("table", id="nodes").one("thead").every("th")))
    rows = node_rows(page)
    assert len(rows) == len(report.decisions) > 10
    for row, decision in zip(rows, report.decisions, strict=True):
        cells = [c.text for c in row.children]
        assert len(cells) == heads
        assert (cells[1], cells[2], cells[4]) == (decision.node, decision.op_type, decision.reason)
        assert (cells[3] in ("integer", "absorbed")) == decision.quantized


def test_every_quantized_tensor_has_a_figure_with_its_range_and_all_its_bins(report: Report) -> None:
    page = page_of(report)
    figures = list(page.every("figure", class_="tensor"))
    assert [f.one("h3").text for f in figures] == [t.name for t in report.tensors]
    assert any(t.histogram for t in report.tensors)
    for figure, tensor in zip(figures, report.tensors, strict=True):
        assert f"zero point {tensor.zero_point}" in figure.one("figcaption").text
        if tensor.histogram is not None:
            path = figure.one("path", class_="bars").attributes["d"]
            assert sum(map(int, re.findall(r"h(\d+)", path))) == len(tensor.histogram.counts)


def test_what_a_node_writes_leads_to_the_figure_of_that_tensor(report: Report) -> None:
    page = page_of(report)
    names = {f.attributes["id"]: f.one("h3").text for f in page.every("figure", class_="tensor")}
    linked = 0
    for row, decision in zip(node_rows(page), report.decisions, strict=True):
        for cell, tensors in (("input", decision.reads), ("output", decision.writes)):
            for link in row.one("td", data_label=cell).every("a"):
                assert names[link.attributes["href"].removeprefix("#")] == tensors[0]
                linked += 1
    assert linked > 10


def test_columns_and_sections_are_there_only_with_data(report: Report) -> None:
    def heads(page: Element) -> set[str]:
        return {c.text for c in page.one("table", id="nodes").one("thead").every("th")}

    extra = {"SQNR", "Error", "Float ms", "Integer ms"}
    bare, full = page_of(report), page_of(measured(report))
    assert not heads(bare) & extra
    assert heads(full) - heads(bare) == extra
    assert not list(bare.every("h2", id="front"))
    assert len(list(full.every("circle"))) == 4
    assert "rounding" not in bare.one("table", id="nodes").text
    assert "40 % weight rounding" in node_rows(full)[0].text


def test_the_strip_has_every_node_once_and_changes_sides_where_the_regions_do(report: Report) -> None:
    page = page_of(report)
    regions = [list(span.every("i")) for span in page.one("div", class_="strip few").every("span")]
    assert sum(map(len, regions)) == len(report.decisions)
    sides = ["integers" if any(c.attributes["class"][0] in "ia" for c in r) else "float" for r in regions]
    assert [li.one("b").text for li in page.one("ol", class_="regions").every("li")] == sides
    assert all(a != b for a, b in pairwise(sides))


def test_a_report_without_tensors_runs_or_integers_still_makes_a_page(detector: Report, classifier: Report) -> None:
    for report in (
        detector,
        replace(classifier, tensors=(), decisions=tuple(replace(d, quantized=False) for d in classifier.decisions)),
        replace(classifier, latency=replace(classifier.latency, fp32=replace(classifier.latency.fp32, times_ms=()))),
    ):
        assert len(node_rows(page_of(report))) == len(report.decisions)
    assert "Nodes in a graph must be topologically sorted" in page_of(detector).text


# ---- one file, well made


@pytest.mark.parametrize("full", [False, True])
def test_ids_are_unique_and_references_lead_somewhere(report: Report, full: bool) -> None:
    page = page_of(measured(report) if full else report)
    ids = Counter(e.attributes["id"] for e in page.every() if "id" in e.attributes)
    assert max(ids.values()) == 1
    for element in page.every():
        for name in ("href", "aria-labelledby"):
            target = element.attributes.get(name, "").removeprefix("#")
            assert not target or target in ids, f"{name} of <{element.tag}> leads to {target!r}"


def test_headings_are_a_tree_and_sections_have_names(report: Report) -> None:
    page = page_of(measured(report))
    levels = [int(e.tag[1]) for e in page.every() if re.fullmatch(r"h\d", e.tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all("aria-labelledby" in s.attributes for s in page.every("section"))
    assert page.one("html").attributes["lang"] == "en"


def test_nothing_comes_from_elsewhere_and_only_our_script_may_run(report: Report) -> None:
    text = html(report)
    page = read(text)
    assert not {e.tag for e in page.every()} & {"link", "img", "iframe", "object", "embed", "base", "use"}
    for element in page.every():
        assert "src" not in element.attributes
        assert element.attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in element.attributes)
    assert "url(" not in page.one("style").text and "@import" not in page.one("style").text
    assert "://" not in text
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_names_of_the_user_stay_text(report: Report) -> None:
    plain = measured(report)
    bad = replace(
        plain,
        model=replace(plain.model, path=f"a/{HOSTILE.replace('/', '')}", by_kind={HOSTILE: plain.model.bytes}),
        recipe={**plain.recipe, "exclude": (HOSTILE,)},
        calibration=replace(plain.calibration, source=HOSTILE),
        decisions=tuple(replace(d, node=HOSTILE, op_type=HOSTILE, reason=HOSTILE) for d in plain.decisions),
        tensors=tuple(replace(t, name=HOSTILE, method=HOSTILE) for t in plain.tensors),
        front=replace(plain.front, quantity=HOSTILE, unit=HOSTILE) if plain.front else None,
        notes=(HOSTILE,),
        warnings=(HOSTILE,),
    )
    page, reference = page_of(bad), page_of(plain)

    def tags(page: Element) -> set[str]:
        return {e.tag for e in page.every()}

    assert tags(page) == tags(reference)
    assert {n for e in page.every() for n in e.attributes} == {n for e in reference.every() for n in e.attributes}
    assert page.one("script").text == reference.one("script").text
    assert page.one("style").text == reference.one("style").text
    for row in node_rows(page):
        assert [c.text for c in row.children][1] == HOSTILE
    assert page.one("h1").text == HOSTILE.replace("/", "")


def test_a_report_of_the_size_of_resnet_50_stays_far_below_1_5_mb(report: Report) -> None:
    counts = tuple((i * 7919) % 1000 for i in range(128))
    tensors = tuple(
        TensorReport(
            name=f"resnetv17_stage{i}_conv{i}_batchnorm_relu_fwd",
            dtype="uint8",
            scale=0.02353,
            zero_point=114,
            range=(-2.7, 3.3),
            method="percentile",
            observed=(-3.1, 4.2),
            clipped=0.001,
            histogram=TensorHistogram(start=-4.0, width=0.0625, counts=counts),
        )
        for i in range(125)
    )
    decisions = tuple(
        NodeDecision(
            node=f"resnetv17_stage{i}_conv{i}_fwd",
            op_type="Conv",
            quantized=True,
            reason="integer kernel",
            reads=(tensors[i % 125].name,),
            writes=(tensors[(i + 1) % 125].name,),
            sqnr_db=30.0,
            error_split=SPLIT,
            float_ms=0.1,
            integer_ms=0.05,
        )
        for i in range(175)
    )
    assert len(html(replace(report, decisions=decisions, tensors=tensors)).encode()) < 700_000


# ---- the numbers behind it


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_scales_of_weights_are_those_of_the_written_model(form: str, report: Report, tmp_path: Path) -> None:
    report = report if form == "qdq" else made(tmp_path, format=form)
    weights = [d.weight for d in report.decisions if d.weight is not None]
    assert len(weights) == 10
    assert all(w.scales > 1 and 0 < (w.least_scale or 0) < (w.greatest_scale or 0) < 1 for w in weights)


@pytest.mark.parametrize("kind", ["comparison", "evaluation", "timings"])
def test_results_of_other_commands_have_a_page_with_all_their_tables(kind: str, request: pytest.FixtureRequest) -> None:
    result = request.getfixturevalue(kind)
    page = read(renderer_for(Path("a.html")).render(result))
    cells = [c.text for c in page.every("td")]
    for grid in summary_of(result).grids:
        for row in grid.rows:
            assert [c for c in row if " ".join(c.split()) not in cells] == []
