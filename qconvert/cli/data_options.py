"""Options of all commands that read samples: which of them, how images are prepared, how many may be bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from qconvert.cli.choices import Choice
from qconvert.cli.options import names_in, stacked

F = TypeVar("F", bound=Callable[..., Any])

SOURCE_HELP = (
    "a folder of .npz or .npy samples, of images or .wav files (or class sub-folders), or test_data_set_* folders; "
    "a stacked .npz, .npy or .safetensors; a .csv, .tsv, .jsonl or .bin file; python:MODULE:FUNCTION; random:N"
)


def data_options(function: F) -> F:
    """--samples, --seed, --preprocess and --skip-bad: the arguments samples, seed, preprocess and skip_bad."""
    options = [
        click.option(
            "--samples",
            type=click.IntRange(min=1),
            metavar="N",
            help="Use N samples, spread over the whole set.  [default: all]",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="Seed of whatever is drawn at random.  [default: 0]",
        ),
        click.option(
            "--preprocess",
            metavar="SPEC",
            help="What is done to images: imagenet, unit, tf, raw, caffe, a line such as "
            "resize=256,crop=224,scale=1/255, or a YAML file.  [default: the model's size, 0..1]",
        ),
        click.option(
            "--skip-bad",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="Pass over up to N samples that are damaged or do not fit.  [default: 0]",
        ),
    ]
    return stacked(options, function)


def label_options(data: str) -> Callable[[F], F]:
    """--labels and --metric, for the samples that the option ``data`` names."""

    def add(function: F) -> F:
        function = click.option(
            "--metric",
            type=Choice(list(names_in("qconvert.evaluate.metrics"))),
            help="What to compute from outputs and labels.  [default: from the labels' type]",
        )(function)
        return click.option(
            "--labels",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"Labels of the {data} samples (.npy, .npz, .txt, .csv).",
        )(function)

    return add


def source_option(name: str, argument: str, what: str, *, required: bool = False) -> Callable[[F], F]:
    """An option that takes sources: --calib or --eval. It may be given once for each input, as input=path."""
    return click.option(
        name,
        argument,
        multiple=True,
        required=required,
        metavar="SOURCE",
        help=f"{what}; for several inputs also INPUT=SOURCE once for each.",
    )
