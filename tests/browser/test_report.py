"""The HTML report in Chromium: nothing overflows a phone, both themes are readable, and the controls do their work.

Run by ``make test-browser``, which says in QCONVERT_BROWSER where the browser is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from qconvert.calibrate.data import DataSpec
from qconvert.pipeline import QuantizeJob
from qconvert.quantizing import quantize
from qconvert.recipe.recipe import Recipe
from qconvert.report.model import Front, FrontPoint, Report
from qconvert.report.renderer import RENDERERS

REPO = Path(__file__).resolve().parents[2]
WIDTHS = (390, 820, 1440)
QUIET = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
SPLIT = {"weight rounding": 0.4, "weight clipping": 0.1, "activation rounding": 0.3, "activation clipping": 0.2}
LONG = "a_name_without_any_place_to_break_it_" * 6


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of the sample CNN, with every optional part."""
    data = REPO / "calibration_data" / "digits_cnn"
    made = quantize(
        QuantizeJob(
            model=REPO / "sample_models" / "digits_cnn.onnx",
            output=tmp_path_factory.mktemp("model") / "digits.int8.onnx",
            calib=DataSpec(sources=(str(data / "calib.npz"),), samples=16),
            eval_data=DataSpec(sources=(str(data / "eval.npz"),)),
            labels=data / "labels.npy",
            recipe=Recipe(recover=("none",), placement="static"),
        )
    )
    found = [*made.decisions[:-1], replace(made.decisions[-1], quantized=False, absorbed_into=None)]
    assert found[-1].op_type != "Conv"
    decisions = [
        replace(d, sqnr_db=60.0 - i if d.quantized else None, error_split=SPLIT, float_ms=0.25, integer_ms=0.125)
        for i, d in enumerate(found)
    ]
    decisions[0] = replace(decisions[0], node=LONG)
    points = tuple(FrontPoint(label=f"{i} float", speedup=2 - i / 4, value=98 + i / 4, chosen=i == 1) for i in range(4))
    return replace(
        made,
        decisions=tuple(decisions),
        front=Front(quantity="top1", unit="%", points=points, reference=99.0),
        tensors=(replace(made.tensors[0], name=LONG), *made.tensors[1:]),
        warnings=(f"look at {LONG}",),
    )


@pytest.fixture(scope="module")
def address(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(RENDERERS.get("html").render(report), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # inside a container there is no sandbox; the page is our own
        found = playwright.chromium.launch(
            executable_path=os.environ["QCONVERT_BROWSER"], args=QUIET.split(), chromium_sandbox=False
        )
        yield found
        found.close()


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    context.set_default_timeout(5000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert complaints == []


def rows(page: Page) -> Locator:
    return page.locator("#nodes tbody tr:visible")


def column(page: Page, number: int) -> list[str]:
    return rows(page).locator(f":nth-child({number})").and_(page.locator("td, th")).all_inner_texts()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scripts", [True, False])
def test_no_width_makes_the_page_scroll_sideways(browser: Browser, address: str, width: int, scripts: bool) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
    page = context.new_page()
    page.goto(address)
    # evaluated in a world of the browser's own, which the switch leaves alone
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_to_complain_of(browser: Browser, address: str, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(address)
    page.locator("details").evaluate_all("every => every.forEach((d) => { d.open = true; })")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    ratio = [c["id"] for c in found.response["passes"]]
    assert "color-contrast" in ratio, "the contrast was not judged"
    context.close()


def test_without_scripts_everything_is_there_to_read(browser: Browser, address: str, report: Report) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert rows(page).count() == len(report.decisions)
    assert page.locator("figure.tensor:visible").count() == len(report.tensors)
    assert page.locator(".script:visible").count() == 0
    context.close()


def test_a_click_sorts_and_another_turns_the_order_round(opened: Page, report: Report) -> None:
    head = opened.locator("#nodes thead th", has_text="SQNR")
    number = 1 + [t.split()[0] for t in opened.locator("#nodes thead th").all_inner_texts()].index("SQNR")
    known = sum(d.sqnr_db is not None for d in report.decisions)
    for order, sign in (("ascending", 1), ("descending", -1)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        assert opened.locator("#nodes [aria-sort]").count() == 1
        shown = [sign * float(t.split()[0]) for t in column(opened, number)[:known]]
        assert shown == sorted(shown)
        assert set(column(opened, number)[known:]) == {""}, "nodes without a value come last"


def test_filters_narrow_the_table_and_say_how_far(opened: Page, report: Report) -> None:
    opened.locator("#operator").select_option("Conv")
    convolutions = sum(d.op_type == "Conv" for d in report.decisions)
    assert rows(opened).count() == convolutions < len(report.decisions)
    assert opened.locator("#shown").inner_text() == f"{convolutions} of {len(report.decisions)} nodes"
    opened.locator("#runs").select_option("float")
    assert rows(opened).count() == 0
    opened.locator("#operator").select_option("")
    assert rows(opened).count() == sum(not d.quantized for d in report.decisions)
    opened.locator("#runs").select_option("")
    opened.locator("#find").fill("absorbed relu")
    assert 0 < rows(opened).count() == sum(d.op_type == "Relu" and d.quantized for d in report.decisions)


def test_the_keyboard_reaches_and_works_every_control(opened: Page) -> None:
    reached: list[str] = []
    for _ in range(300):
        opened.keyboard.press("Tab")
        where = opened.evaluate("document.activeElement.id || document.activeElement.closest('th')?.innerText || ''")
        reached.append(where.split("\n")[0])
        visible = "getComputedStyle(document.activeElement).outlineStyle"
        assert where == "" or opened.evaluate(visible) != "none", f"{where} does not show that it has the focus"
        if where == "every":
            break
    assert {"theme", "find", "runs", "operator", "Node", "Why", "tensor", "previous", "following", "every"} <= set(
        reached
    )
    opened.locator("#nodes thead th", has_text="Node").locator("button").focus()
    opened.keyboard.press("Enter")
    assert column(opened, 2) == sorted(column(opened, 2), key=str.lower)


def test_a_phone_can_sort_too(browser: Browser, address: str, report: Report) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(address)
    page.locator("#sort").select_option("0 down")
    assert column(page, 1) == [str(i) for i in range(len(report.decisions), 0, -1)]
    context.close()


def test_the_theme_follows_the_system_until_it_is_told(opened: Page) -> None:
    def background() -> str:
        return str(opened.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = background()
    opened.emulate_media(color_scheme="dark")
    dark = background()
    assert dark != light
    opened.locator("#theme").click()
    assert (opened.locator("#theme").inner_text(), background()) == ("Theme: light", light)
    opened.reload()
    assert background() == light, "the choice is kept"
    opened.locator("#theme").click()
    opened.emulate_media(color_scheme="light")
    assert background() == dark


def test_one_tensor_is_shown_and_links_choose_it(opened: Page, report: Report) -> None:
    figures = opened.locator("figure.tensor:visible")
    assert figures.count() == 1
    opened.locator("#tensor").select_option(label=LONG)
    assert figures.locator("h3").all_inner_texts() == [LONG]
    opened.locator("#following").click()
    assert figures.locator("h3").all_inner_texts() == [report.tensors[1].name]
    link = opened.locator("#nodes td[data-label=output] a").last
    link.click()
    expect(opened.locator(f"figure{link.get_attribute('href')}")).to_be_visible()  # the page hears of it a little later
    assert f"#{figures.get_attribute('id')}" == link.get_attribute("href")
    chosen = figures.get_attribute("id")
    opened.locator("#previous").click()
    assert figures.get_attribute("id") != chosen
    link.click()
    expect(opened.locator(f"#{chosen}")).to_be_visible()
    assert figures.get_attribute("id") == chosen, "the same link works again"
    opened.locator("#every").check()
    assert figures.count() == len(report.tensors)


def test_the_strip_leads_to_the_row_even_past_a_filter(opened: Page, report: Report) -> None:
    opened.locator("#find").fill("nothing is called that")
    assert rows(opened).count() == 0
    opened.locator(".strip i").nth(3).click()
    found = opened.locator("#nodes tr.found")
    assert found.locator("th").inner_text() == report.decisions[3].node
    assert rows(opened).count() == len(report.decisions)
