"""Command line: one file per command. Heavy libraries are imported by the command that runs."""

from __future__ import annotations

import re
import sys
from typing import Any, cast

import typer

from safegen.cli import (
    apply,
    attack,
    demo,
    edit,
    erase,
    evaluate,
    export,
    generate,
    harden,
    inspect,
    lab,
    leaderboard,
    play,
    release,
    triplets,
    verify,
)
from safegen.errors import SafegenError
from safegen.files import mend_for
from safegen.version import __version__

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
_RESUMED = (["demo"], ["harden"], ["edit"], ["evaluate"], ["attack"], ["release"], ["lab", "build"])
"""Commands that resume an interrupted run."""
# Click's, of which typer may have a copy of its own.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__bases__[0])
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|std::bad_alloc", re.IGNORECASE)

app = typer.Typer(
    name="safegen",
    help="Harden a text-to-image model from the inside, and show that it held.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("harden")(harden.harden)
app.command("inspect")(inspect.inspect)
app.command("triplets")(triplets.triplets)
app.command("edit")(edit.edit)
app.command("apply")(apply.apply)
app.command("export")(export.export)
app.command("erase")(erase.erase)
app.command("generate")(generate.generate)
app.command("play")(play.play)
app.command("evaluate")(evaluate.evaluate)
app.command("attack")(attack.attack)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("release")(release.release)
app.command("verify")(verify.verify)
app.add_typer(lab.app, name="lab")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"safegen {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Harden a text-to-image model from the inside, and show that it held."""


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
        sys.exit(_interrupted() if code == INTERRUPTED else code)
    except SafegenError as error:
        sys.stderr.write(f"safegen: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        mend = mend_for(error, "check the path and the disk")
        sys.stderr.write(f"safegen: {place}{reason}; {mend}\n")
        sys.exit(2)
    except _UsageError as error:
        sys.exit(_misused(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_interrupted())
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        sys.stderr.write("safegen: out of memory; give a smaller --batch or free some memory\n")
        sys.exit(2)


def _misused(error: Any) -> int:
    """Tell what is wrong with the arguments in one line, or show the help if there are none."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        command = error.ctx.command_path if error.ctx else "safegen"
        sys.stderr.write(
            f"{command}: {' '.join(error.format_message().split())} ({command} --help)\n"
        )
    return 2


def _interrupted() -> int:
    """Print what the same command does next, and return the exit code."""
    given = sys.argv[1:]
    resumed = any(given[: len(command)] == command for command in _RESUMED)
    next_time = "goes on where it was" if resumed else "begins anew"
    sys.stderr.write(f"safegen: interrupted; the same command {next_time}\n")
    return INTERRUPTED
