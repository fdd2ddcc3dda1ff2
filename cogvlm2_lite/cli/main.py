"""The command `cogvlm2-lite`: finds the command that was asked for and runs only that.

Every command is a function that takes its arguments and gives an exit code. Nothing of it is
imported before it is called, so help and typing errors cost no second.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TextIO

from cogvlm2_lite import __version__
from cogvlm2_lite.cli.console import INTERRUPTED, Console, has_desktop
from cogvlm2_lite.cli.target import import_target
from cogvlm2_lite.errors import CogVLM2LiteError, UsageError

FAULT = 70
"""An error that is no user's: EX_SOFTWARE of sysexits.h."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One row of the table: where the command lives and what it does in one line."""

    name: str
    target: str
    summary: str


COMMANDS = (
    Command(
        name="demo",
        target="cogvlm2_lite.cli.demo:main",
        summary="make the small shipped model 4-bit and let it answer about a picture",
    ),
    Command(
        name="ask",
        target="cogvlm2_lite.cli.ask:main",
        summary="ask one question, with or without a picture",
    ),
    Command(
        name="chat",
        target="cogvlm2_lite.cli.chat:main",
        summary="talk about a picture in several turns",
    ),
    Command(
        name="batch",
        target="cogvlm2_lite.cli.batch:main",
        summary="ask one question about every picture of a folder, and save the answers",
    ),
    Command(
        name="serve",
        target="cogvlm2_lite.cli.serve:main",
        summary="serve OpenAI's API and a web page on this machine",
    ),
    Command(
        name="gui",
        target="gui.command:main",
        summary="open the window: drop a picture and ask",
    ),
    Command(
        name="plan",
        target="cogvlm2_lite.cli.plan:main",
        summary="show what will be in memory when, and how fast, before anything is loaded",
    ),
    Command(
        name="quantize",
        target="quantize.command:main",
        summary="make a checkpoint 4-bit",
    ),
    Command(
        name="verify",
        target="quantize.command:verify_main",
        summary="check a folder that quantize made, byte by byte",
    ),
    Command(
        name="compare",
        target="cogvlm2_lite.cli.compare:main",
        summary="measure how far a model's answers are from another's",
    ),
    Command(
        name="bench",
        target="cogvlm2_lite.cli.bench:main",
        summary="measure encode, prefill and decode on this computer, without the real weights",
    ),
    Command(
        name="doctor",
        target="cogvlm2_lite.cli.doctor:main",
        summary="report versions, devices, memory and chosen kernels, to paste into a bug report",
    ),
)


def main(argv: Sequence[str] | None = None, *, commands: Sequence[Command] = COMMANDS) -> int:
    """Run one command.

    Gives the exit code: 0 well, 1 failed, 2 misused, 70 fault, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        _use_utf8(stream)
    console = Console()
    try:
        return _dispatch(argv, commands, console)
    except CogVLM2LiteError as error:
        console.error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        console.remark("Stopped.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (head, less) has left. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        console.error("There was not enough memory.", "Close other programs and try again.")
        return 1
    except Exception:  # noqa: BLE001 - the outer edge of the program: nothing is hidden
        traceback.print_exc()
        console.error(
            "This is a fault of the program, not of yours.",
            "Please report it with the lines above and the output of `cogvlm2-lite doctor`.",
        )
        return FAULT


def _dispatch(argv: Sequence[str], commands: Sequence[Command], console: Console) -> int:
    if not argv and _opens_a_window():
        return load_command("gui", commands)([])
    if not argv or argv[0] in ("-h", "--help", "help"):
        console.write(help_text(commands))
        return 0
    if argv[0] in ("-V", "--version"):
        console.line(f"cogvlm2-lite {__version__}")
        return 0
    return load_command(argv[0], commands)(argv[1:])


def _opens_a_window() -> bool:
    """Say whether the command alone opens the window: on a desktop, with PySide6 installed."""
    return has_desktop() and find_spec("PySide6") is not None


def load_command(
    name: str, commands: Sequence[Command] = COMMANDS
) -> Callable[[Sequence[str]], int]:
    """Import the function of a command; UsageError, with the nearest name, for an unknown one."""
    found = {command.name: command for command in commands}
    if name not in found:
        near = get_close_matches(name, found, n=1)
        raise UsageError(
            "Unknown option {name!r}." if name.startswith("-") else "Unknown command {name!r}.",
            hint="Did you mean {near}?" if near else "See `cogvlm2-lite --help`.",
            name=name,
            near="".join(near),
        )
    return import_target(found[name].target)


def help_text(commands: Sequence[Command] = COMMANDS) -> str:
    """Give the text of `cogvlm2-lite --help`."""
    width = max(len(command.name) for command in commands)
    rows = "\n".join(f"  {command.name:{width}}  {command.summary}" for command in commands)
    return f"""\
usage: cogvlm2-lite COMMAND ...

CogVLM2-19B image chat, 4-bit and offline, on one workstation.

commands:
{rows}

options:
  -h, --help     show this text
  -V, --version  show the version

Start with `cogvlm2-lite demo`. On a desktop `cogvlm2-lite` alone opens the window.
`cogvlm2-lite COMMAND --help` explains a command.
"""


def _use_utf8(stream: TextIO) -> None:
    """Read and write UTF-8 whatever the console's code page is (Windows: often cp1252).

    Letters that can't be written are shown as escapes instead of ending the program.
    """
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace")
