"""The command line: parse, call, print. Heavy libraries are imported inside the commands only."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from .commands import judging, shared, stages, sweeping
from .commands.cache import cache_app
from .commands.methods import models
from .commands.reproduce import reproduce
from .commands.weights import weights_app
from .errors import CM2Error, Interrupted

app = typer.Typer(
    help="Multimodal clinical prediction when modalities are missing: "
    "encode once, then train, judge and report in minutes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)
app.add_typer(cache_app, name="cache")
app.add_typer(weights_app, name="weights")


def _version(value: bool) -> None:
    if value:
        from . import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say more; twice for everything.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    shared.set_verbosity(-1 if quiet else verbose)


def _register() -> None:
    """Name the commands in the order of the help page."""
    app.command()(stages.demo)
    app.command()(stages.doctor)
    for name, stage in (("extract", stages.extract), ("fuse", stages.fuse)):
        app.command(name)(stages.configured(name, stage))
    app.command("sweep")(sweeping.configured())
    for command in (judging.evaluate, judging.compare, judging.predict, judging.report):
        app.command()(command)
    app.command()(reproduce)
    app.command()(judging.inspect)
    app.command()(judging.ls)
    app.command()(models)


def main() -> None:
    """Run the command line and turn every deliberate error into its exit code."""
    _register()
    try:
        app()
    except CM2Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as ended:  # typer makes an exit of the interrupt
        if isinstance(ended, SystemExit) and ended.code != Interrupted.exit_code:
            raise
        print("stopped; give the same command again", file=sys.stderr)
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # The text of an unforeseen error may hold clinical data: only its kind and place are shown.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"bug: {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}; "
            "please report it (with -v the full traceback is shown)",
            file=sys.stderr,
        )
        if shared.verbosity() > 0:
            traceback.print_exc()
        sys.exit(1)


__all__ = ["app", "main"]
