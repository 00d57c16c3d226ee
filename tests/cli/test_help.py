"""Help pages have an example each that runs as it stands; wrong names are met with the nearest right one."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import jsonschema
import pytest
import yaml

from qconvert.cli import COMMANDS, cli, run
from qconvert.evaluate.gates import parse_gate
from qconvert.recipe.examples import examples, purpose
from qconvert.recipe.recipe_file import load_recipe, recipe_to_yaml
from qconvert.recipe.schema import schema_text
from qconvert.report.quantities import quantities

ROOT = Path(__file__).resolve().parents[2]
CNN = ROOT / "sample_models" / "digits_cnn.onnx"
CALIB = ROOT / "calibration_data" / "digits_cnn" / "calib.npz"

SHORT = ("--placement", "static", "--recover", "none", "--method", "minmax", "--samples", "8")


def example_of(name: str) -> list[str]:
    """The command lines of a help page."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")[2]
    return re.sub(r" *\\\n *", " ", textwrap.dedent(text)).strip().splitlines()


@pytest.mark.slow
def test_every_page_has_an_example_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder, and no line twice: calibrate, quantize and convert start from the same model."""
    for folder in ("sample_models", "calibration_data"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    lines: dict[str, str] = {}
    for name in COMMANDS:
        found = example_of(name)
        assert any(line.startswith(f"qconvert {name}") for line in found), name
        lines |= dict.fromkeys(found, name)
    for line, name in lines.items():
        # measuring, and recovering accuracy, take their time, and have tests of their own
        short = SHORT if shlex.split(line)[1] in ("quantize", "tune", "sensitivity") else ()
        short = short[:4] if "--ranges" in line else short  # these have been calibrated
        assert run([*shlex.split(line)[1:], *short]) == 0, f"{name}: {line}\n{capsys.readouterr().err}"


def test_the_list_of_commands_says_what_each_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line each, on a terminal of 80 columns, and none cut short."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert [line for line in listed if not line.endswith(".") or line.endswith("...") or len(line) > 79] == []


@pytest.mark.parametrize("name", ["quantize", "compare", "evaluate", "bench"])
def test_the_gates_on_a_help_page_are_ones_of_the_command(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    (option,) = [p for p in command.params if p.name == "fail_if"]
    assert isinstance(option, click.Option) and option.help is not None
    shown = re.findall(r'"([^"]+)"', option.help)
    assert len(shown) > 1
    for text in shown:
        parse_gate(text, quantities(name))  # an unknown name is an error


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["quantise"], "'quantize'"),
        (["quantize", "m", "--mehtod", "mse"], "'--method'"),
        (["quantize", "m", "--method", "mze"], "'mse'"),
        (["quantize", "m", "--scheme", "fp61"], "'fp16'"),
        (["quantize", "m", "--target", "tensort"], "'tensorrt'"),
        (["quantize", "m", "--recover", "smoth"], "'smooth'"),
        (["quantize", "m", "--rounding", "gtpq"], "'gptq'"),
        (["evaluate", "m", "--data", "d", "--metric", "top11"], "'top1'"),
        (["convert", "m", "--to", "qoperater"], "'qoperator'"),
        (["check", "m", "--isa", "avx"], "'avx2'"),
        (["evaluate", "m", "--data", "d", "--fail-if", "tpo1 > 3"], "'top1'"),
        (["inspect", "m", "--recipe", "fasd"], "'fast'"),
        (["recipes", "weigths4"], "'weights4'"),
        (["targets", "x86-vni"], "'x86-vnni'"),
        (["completion", "zssh"], "'zsh'"),
        (["evaluate", "m", "--data", "d", "--track", "mlfow"], "'mlflow'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_nearest_name_is_suggested(arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert re.search(rf"[Dd]id you mean {nearest}|Did you mean one of: .*{nearest}", capsys.readouterr().err)


# ---- recipes


def test_recipes_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    listed = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert listed == {name: purpose(text) for name, text in examples().items()}
    assert run(["recipes", "fast"]) == 0
    assert capsys.readouterr().out == examples()["fast"]


@pytest.mark.parametrize("name", sorted(examples()))
def test_a_recipe_of_ours_is_sound_and_obeys_the_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "--check", name]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: sound; ")
    schema = json.loads(schema_text())
    jsonschema.validate(yaml.safe_load(examples()[name]), schema)
    jsonschema.validate(yaml.safe_load(recipe_to_yaml(load_recipe(Path(name)))), schema)


@pytest.mark.parametrize(
    "text",
    [
        "metod: mse",
        "method: mze",
        "block: 17",
        "per_channel: 3",
        "exclude: Gemm",
        "version: 2",
        "target: x86",
        "recover: [x]",
    ],
)
def test_the_schema_and_the_check_refuse_the_same(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json.loads(schema_text()))
    assert run(["recipes", "--check", str(tmp_path / "r.yaml")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ")


def test_a_file_wins_over_a_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("fast")).method == "minmax"
    (tmp_path / "fast").write_text("method: mse\n")
    assert load_recipe(Path("fast")).method == "mse"


# ---- dry runs


@pytest.mark.parametrize(
    "line",
    [
        f"quantize {CNN} --calib {CALIB}",
        f"calibrate {CNN} --calib {CALIB}",
        f"tune {CNN} --calib {CALIB}",
        f"sensitivity {CNN} --calib {CALIB}",
        "convert tiny.onnx --to float",
        "merge 1.npz 2.npz -o all.npz",
    ],
    ids=lambda line: line.split()[0],
)
def test_a_dry_run_writes_nothing(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if line.startswith("merge"):
        for i in (1, 2):
            shard = f"calibrate {CNN} --calib {CALIB} --samples 8 --method minmax --shard {i}/2 -o {i}.npz -q"
            assert run(shard.split()) == 0
    if line.startswith("convert"):
        from fuzz.seeds import qdq_model
        from numpy.random import default_rng

        Path("tiny.onnx").write_bytes(qdq_model(default_rng(0)).SerializeToString())
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert run([*line.split(), "--dry-run"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("nothing was written")
    assert sorted(tmp_path.iterdir()) == before


# ---- completion


def completions(words: str, shell: str = "bash") -> str:
    """What the program answers to a shell that completes ``words``, in a process as the shell's script starts it."""
    environment = {**os.environ, "_QCONVERT_COMPLETE": f"{shell}_complete", "COMP_WORDS": words}
    environment["COMP_CWORD"] = words.rpartition(" ")[2] if shell == "fish" else str(len(words.split(" ")) - 1)
    command = [sys.executable, "-c", "from qconvert.cli import main; main()"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("words", "shell", "wanted"),
    [
        ("qconvert qu", "bash", "plain,quantize"),
        ("qconvert quantize --plac", "bash", "plain,--placement"),
        ("qconvert quantize m --scheme f", "bash", "plain,fp16"),
        ("qconvert quantize m --target ten", "zsh", "tensorrt"),
        ("qconvert inspect mod", "bash", "file,mod"),
        ("qconvert mer", "fish", "plain,merge"),
        ("qconvert targets tens", "bash", "plain,tensorrt"),
        ("qconvert recipes we", "bash", "plain,weights4"),
        ("qconvert quantize m --recipe we", "bash", "plain,weights4"),
        ("qconvert quantize m --recipe mine", "bash", "file,mine"),
    ],
)
def test_shells_are_answered(words: str, shell: str, wanted: str) -> None:
    assert wanted in completions(words, shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_for_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_QCONVERT_COMPLETE={shell}_complete" in script
    if shutil.which(shell) is not None:
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_itself_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it does when a user presses Tab: what was registered for the command is called, with the words so far."""
    assert run(["completion", "bash"]) == 0
    program = tmp_path / "qconvert"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m qconvert "$@"\n')
    program.chmod(0o755)
    pressed = """
        complete -p qconvert
        COMP_WORDS=(qconvert quantize m.onnx --scheme fp) COMP_CWORD=4
        _qconvert_completion qconvert fp --scheme
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-uc", capsys.readouterr().out + pressed],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    registered, *offered = done.stdout.split("\n")
    assert "_qconvert_completion qconvert" in registered, done.stderr
    assert set(offered) >= {"fp4", "fp8", "fp16"} and "int8" not in offered
