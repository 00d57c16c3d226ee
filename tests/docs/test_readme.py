"""README.md and docs/ tell the truth: their commands run, what they show appears, their lists match the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.markdown import commands, links
from docs.running import REPO, TIMEOUT_S, wrong_on

PAGES = ("README.md", "docs/ci.md", "docs/data.md", "docs/troubleshooting.md")
EVERY_PAGE = sorted(
    p.relative_to(REPO).as_posix() for p in [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")] if p.is_file()
)
SAMPLES = ("digits_cnn", "digits_transformer", "digits_gru")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="some commands are for a POSIX shell")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_do_what_the_page_says(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All commands of a page in one test: they go on with what those before them made."""
    (place / "build").mkdir()
    count, wrong = wrong_on(page, place, capsys)
    assert not wrong, "\n".join(wrong)
    assert count > 3


def test_commands_are_found() -> None:
    page = (
        "```bash\na\n```\n<!-- not run: no network -->\n```bash\nb\n```\n"
        "<!-- exit: 2 -->\n```console\n$ c \\\n  d\nout\n$ e\n```\n"
        "   ```bash\n   f\n     g\n   ```\n"
    )
    found = [(c.line, c.text, c.shown, c.exit_code, c.not_run) for c in commands(page)]
    assert found == [
        (2, "a\n", None, 0, ""),
        (6, "b\n", None, 0, "no network"),
        (10, "c \\\n  d", ("out",), 2, ""),
        (13, "e", (), 2, ""),
        (16, "f\n  g\n", None, 0, ""),
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/schemes.md"])
def test_the_tables_of_schemes_have_every_scheme(page: str) -> None:
    """A row for each that `--scheme` knows; in it figures, or the number of a reason that stands below."""
    from qconvert.schemes.scheme import SCHEMES

    text = (REPO / page).read_text(encoding="utf-8")
    table = text.partition("<!-- schemes:begin -->")[2].partition("<!-- schemes:end -->")[0]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")]
    assert {row[0].strip("`").split()[0] for row in rows} == set(SCHEMES.names())
    for cell in (c for row in rows for c in row[1:]):
        reason = re.fullmatch(r"none (\(\d+\))", cell)
        assert re.fullmatch(r"[\d.]+, .+, [\d.]+x", cell) if reason is None else f"\n{reason[1]} " in table, cell


# ---- the table of results


def has_vnni() -> bool:
    """Whether the processor has the instructions that the table was made with; others round sums differently."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"\bav(x512_|x_)vnni\b", flags) is not None


def sample_rows() -> dict[str, list[str]]:
    """Model -> its row of the table in README.md, speed left out."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- samples:begin -->")[2].partition("<!-- samples:end -->")[0]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    return {re.sub(r"^`(\w+)`.*", r"\1", row[0]): row[1:-1] for row in rows}


def test_the_table_has_every_sample() -> None:
    models = {p.stem for p in (REPO / "sample_models").glob("*.onnx")}
    assert set(sample_rows()) == models == set(SAMPLES)


@pytest.mark.slow
@pytest.mark.skipif(not has_vnni(), reason="the figures hold on x86 with VNNI")
@pytest.mark.parametrize("model", SAMPLES)
def test_the_table_is_what_a_run_gives(model: str, tmp_path: Path) -> None:
    from qconvert.report.renderers import phrases

    data = REPO / "calibration_data" / model
    command = [sys.executable, "-m", "qconvert", "quantize", str(REPO / "sample_models" / f"{model}.onnx")]
    # what a measured placement chooses may differ from one run to the next
    command += ["--placement", "static", "--calib", str(data / "calib.npz"), "--eval", str(data / "eval.npz")]
    command += ["--labels", str(data / "labels.npy"), "-o", str(tmp_path / "out.onnx"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    before, after = report["model"]["bytes"], report["output"]["bytes"]
    comparison = report["accuracy"]["comparison"]
    assert sample_rows()[model] == [
        f"{before:,} -> {after:,}",
        phrases.size_change(before, after),
        f"{comparison['metric']['reference']:.1f} %",
        f"{comparison['metric']['quantized']:.1f} %",
        f"{comparison['fidelity']['sqnr_db']:.1f} dB",
    ]


# ---- lists, links, messages


def test_generated_pages_are_up_to_date() -> None:
    command = [sys.executable, str(REPO / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_links_lead_somewhere(page: str) -> None:
    path = REPO / page
    dead = [t for t in links(path.read_text(encoding="utf-8")) if not (path.parent / t).exists()]
    assert not dead


def test_files_named_in_the_architecture_exist() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:qconvert|tests|docs|sample_models|calibration_data)/[\w./]+)`", text)
    assert named
    assert [name for name in named if not (REPO / name).exists()] == []


def test_quoted_messages_are_the_ones_in_the_code() -> None:
    """The first cell of a row of messages quotes a message; "..." stands for what differs."""
    text = (REPO / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert quoted
    code = "\n".join(p.read_text(encoding="utf-8") for p in sorted((REPO / "qconvert").rglob("*.py")))
    absent = [q for q in quoted if not all(part.strip() in code for part in q.split("..."))]
    assert not absent
