"""``qconvert completion``: what a shell needs to complete commands, options, choices and files."""

from __future__ import annotations

import click

from qconvert.cli.choices import Choice

PROGRAM, VARIABLE = "qconvert", "_QCONVERT_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print what bash, zsh or fish needs to complete commands.")
@click.argument("shell", type=Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script for SHELL (bash, zsh or fish).

    bash (4.4 or later) and zsh: put `eval "$(qconvert completion bash)"`, with the shell's name, into ~/.bashrc or
    ~/.zshrc. fish: write the script to ~/.config/fish/completions/qconvert.fish.

    \b
    Example:
      qconvert completion bash
    """
    from click.shell_completion import get_completion_class

    from qconvert.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    # not source(): for bash it would start one, to look at its version
    made = kind(cli, {}, PROGRAM, VARIABLE)
    click.echo(made.source_template % made.source_vars())
