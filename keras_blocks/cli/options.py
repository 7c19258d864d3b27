"""What all commands share: kinds of arguments, exit codes, and how errors are told."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keras_blocks.errors import KerasBlocksError, UnreadableError

FAILED = 1  # which is click's code for what it raises itself
UNREADABLE = 2  # click itself exits with it where the command line is wrong
WIDTH = 80

# Existence is looked at here, so that a missing file is told like any other usage error.
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)


def _report_file(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    # Before the work, which may take minutes.
    if value is not None and value.suffix not in {".html", ".json"}:
        raise click.BadParameter(f"'{value}' must end in .html or .json")
    return value


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
inputs_file = click.option(
    "--inputs",
    type=FILE,
    metavar="DATA.npz|.npy",
    help="Compare on this data: an array for each input, of a ragged one NAME and "
    "NAME.row_splits; an .npy file for a single input. Without, inputs are drawn.",
)
report_file = click.option(
    "--report",
    type=NEW_FILE,
    callback=_report_file,
    metavar="FILE",
    help="Save the report too: .html, a page, or .json.",
)


class Commands(click.Group):
    """Prints expected errors as one line; a traceback only where --debug asks for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used, which is that of `cli`."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; an error becomes a line and an exit code."""
        try:
            with _ending_orderly():
                return super().invoke(ctx)
        except (KerasBlocksError, OSError) as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            kind = _Unreadable if _is_unreadable(error) else click.ClickException
            raise kind(_message(error)) from error


class _Unreadable(click.ClickException):
    exit_code = UNREADABLE


def show(found: Any, as_json: bool, report: Path | None) -> None:
    """Prints a report, for people or for programs, and saves it where that is asked for."""
    if report is not None:
        found.save(report)
    click.echo(found.to_json() if as_json else found.brief())
    if report is not None and not as_json:
        tell_written("report", report)


def tell_written(what: str, path: Path) -> None:
    """Says where a page or report is."""
    click.echo(f"The {what} is in {path}.")


@contextmanager
def usage_errors() -> Iterator[None]:
    """An argument that our functions refuse is one that the command line got wrong."""
    try:
        yield
    except KerasBlocksError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from error


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """Has SIGTERM unwind the program as Ctrl+C does, so that nothing half-written is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_unreadable(error: Exception) -> bool:
    # An address that is taken is an OSError too, and no fault of the arguments.
    names_file = isinstance(error, OSError) and error.filename is not None
    return names_file or isinstance(error, UnreadableError | FileNotFoundError)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)
