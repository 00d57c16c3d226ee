"""The command line: a skin over ``pipeline``. One file a command; nothing heavy is imported until a command runs."""

from __future__ import annotations

import errno
import gc
import importlib
import logging
import signal
import sys
import traceback
from types import FrameType

import click

from qconvert import __version__
from qconvert.cli.choices import near
from qconvert.cli.terminal import show_defect, show_error
from qconvert.errors import InternalError, QConvertError

COMMANDS = tuple(
    """quantize inspect compare evaluate check bench calibrate merge sensitivity tune convert targets recipes
    completion""".split()
)


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order a newcomer meets them."""
        del ctx
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or an error that names the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message}{near(args[0], COMMANDS)}", ctx) from error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called ``cmd_name``."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"qconvert.cli.{cmd_name}").command
        return command if isinstance(command, click.Command) else None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="qconvert")
def cli() -> None:
    """Turn an FP32 ONNX model into a quantized one, and show what it cost and what it gained.

    \b
    Start with:
      qconvert quantize model.onnx --calib data/

    Exit codes: 0 done, 1 a defect of qconvert, 2 bad usage or bad input, 3 a gate was missed, 130 interrupted.
    """


# Graphs are many small objects that live long, and Python looks through them for garbage after every 700 new ones.
_COLLECT_AFTER = 100_000

# what the system says of paths that no file can have
_NO_PLACE = (errno.ENAMETOOLONG, errno.ELOOP)


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _interrupt)
    gc.set_threshold(_COLLECT_AFTER, 20, 100)
    code = run(sys.argv[1:])
    gc.freeze()  # the process ends: a last look at all that there is would take a tenth of a second
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line on ``arguments`` and return its exit code."""
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # what it says of damaged models, an error says too
    try:
        result = cli.main(args=arguments, prog_name="qconvert", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        show_error("interrupted", "no file was left half written")
        return 130
    except InternalError as error:
        show_defect(error.message, error.hint, traceback.format_exc() if {"-v", "--verbose"} & set(arguments) else "")
        return error.exit_code
    except QConvertError as error:
        show_error(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output went away (| head)
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in _NO_PLACE:
            show_defect(f"{type(error).__name__}: {error}", "", traceback.format_exc())
            return 1
        show_error(f"{str(error.filename)[:200]}: {(error.strerror or '').lower()}", "give a shorter or a plainer path")
        return 2
    except MemoryError:
        show_error("out of memory", "use fewer or smaller calibration samples, or a machine with more memory")
        return 2
    except Exception as error:
        show_defect(f"{type(error).__name__}: {error}", "", traceback.format_exc())
        return 1


def _interrupt(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise KeyboardInterrupt
