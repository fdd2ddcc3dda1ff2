"""The program `cogvlm2-lite`: runs the command that its first argument names.

Every command is a function that takes its arguments and returns an exit code. Its module is
imported only when it is called, so help texts and typing errors take no time.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec

from cogvlm2_lite import __version__
from cogvlm2_lite.cli.console import INTERRUPTED, Console, has_desktop
from cogvlm2_lite.cli.streams import prepare_streams
from cogvlm2_lite.cli.target import import_target
from cogvlm2_lite.errors import CogVLM2LiteError, OutputError, UsageError
from cogvlm2_lite.quick_imports import paused_collector

FAULT = 70
"""Exit code of an internal error: EX_SOFTWARE of sysexits.h."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk that is full or read-only, which no code of ours can cause."""

_MISSING = "is not currently implemented for the"
"""torch's words for an operation that a kind of GPU can't compute."""

_HELP, _VERSION = ("-h", "--help", "help"), ("-V", "--version")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One row of the table: the function of a command, and what it does in one line.

    prints_result  whether the command is useless without standard output
    """

    name: str
    target: str
    summary: str
    prints_result: bool = True


COMMANDS = (
    Command(
        name="demo",
        target="cogvlm2_lite.cli.demo:main",
        summary="convert the small included model to 4 bits and ask it about a picture",
    ),
    Command(
        name="ask",
        target="cogvlm2_lite.cli.ask:main",
        summary="ask one question, with or without a picture",
    ),
    Command(
        name="chat",
        target="cogvlm2_lite.cli.chat:main",
        summary="hold a conversation about a picture in the terminal",
    ),
    Command(
        name="batch",
        target="cogvlm2_lite.cli.batch:main",
        summary="ask one question about every picture of a folder and save the answers",
        prints_result=False,
    ),
    Command(
        name="serve",
        target="cogvlm2_lite.cli.serve:main",
        summary="serve OpenAI's API and a chat page on this computer",
        prints_result=False,
    ),
    Command(
        name="mcp",
        target="cogvlm2_lite.cli.mcp:main",
        summary="let programs with an MCP client ask about pictures in some folders",
        prints_result=False,
    ),
    Command(
        name="gui",
        target="gui.command:main",
        summary="open the window",
        prints_result=False,
    ),
    Command(
        name="plan",
        target="cogvlm2_lite.cli.plan:main",
        summary="show memory use and speed of a model before anything is loaded",
    ),
    Command(
        name="quantize",
        target="quantize.command:main",
        summary="convert a checkpoint to 4 bits",
        prints_result=False,
    ),
    Command(
        name="verify",
        target="quantize.command:verify_main",
        summary="check every byte of a folder that quantize wrote",
        prints_result=False,
    ),
    Command(
        name="finetune",
        target="cogvlm2_lite.cli.finetune:main",
        summary="train an adapter (LoRA) from pictures with answers",
        prints_result=False,
    ),
    Command(
        name="merge",
        target="quantize.merge_command:main",
        summary="write a model folder that has an adapter in its weights",
        prints_result=False,
    ),
    Command(
        name="compare",
        target="cogvlm2_lite.cli.compare:main",
        summary="measure how much the answers of two models differ",
    ),
    Command(
        name="evaluate",
        target="cogvlm2_lite.cli.evaluate:main",
        summary="ask a model the questions of benchmarks and score its answers, offline",
    ),
    Command(
        name="bench",
        target="cogvlm2_lite.cli.bench:main",
        summary="measure the speed of a model on this computer, even without the real weights",
    ),
    Command(
        name="doctor",
        target="cogvlm2_lite.cli.doctor:main",
        summary="print versions, devices, memory and kernels for a bug report",
    ),
)


def main(argv: Sequence[str] | None = None, *, commands: Sequence[Command] = COMMANDS) -> int:
    """Run one command.

    Return its exit code: 0 success, 1 failure, 2 wrong usage, 70 internal error, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    closed = prepare_streams()
    console = Console()
    try:
        if closed and _prints_result(argv, commands):
            raise OutputError(
                "Standard output is closed, so the result can't be shown.",
                hint="Redirect it to a file: > result.txt",
            )
        code = _dispatch(argv, commands, console)
        console.flush()
        return code
    except CogVLM2LiteError as error:
        console.error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        console.remark("Stopped.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe (head, less) has closed it
        return 1
    except MemoryError:
        console.error("Not enough memory.", "Close other programs and try again.")
        return 1
    except Exception as error:  # noqa: BLE001 - the outermost handler of the program
        if isinstance(error, OSError) and error.errno in _FULL:
            console.error(
                f"{error.filename or 'A file'} can't be written: {error.strerror}.",
                "Free some space, or use another disk. Then run the same command again.",
            )
            return 1
        if isinstance(error, NotImplementedError) and _MISSING in str(error):
            first = str(error).partition(". ")[0].rstrip(".")
            console.error(
                f"The GPU can't compute this model: {first}.",
                "Use --device cpu, or another version of torch.",
            )
            return 1
        with suppress(OSError):
            traceback.print_exc()
        console.error(
            "This is a bug in CogVLM2 Lite, not a mistake of yours.",
            "Please report it with the lines above and the output of `cogvlm2-lite doctor`.",
        )
        return FAULT


def _dispatch(argv: Sequence[str], commands: Sequence[Command], console: Console) -> int:
    if not argv and _opens_window():
        return load_command("gui", commands)([])
    if not argv or argv[0] in _HELP:
        console.write(help_text(commands))
        return 0
    if argv[0] in _VERSION:
        console.line(f"cogvlm2-lite {__version__}")
        return 0
    return load_command(argv[0], commands)(argv[1:])


def _prints_result(argv: Sequence[str], commands: Sequence[Command]) -> bool:
    """Return whether a command would work for nothing without standard output."""
    if not argv:
        return not _opens_window()
    return argv[0] in (*_HELP, *_VERSION, *(c.name for c in commands if c.prints_result))


def _opens_window() -> bool:
    """Return whether the program without arguments opens the window: a desktop and PySide6."""
    return has_desktop() and find_spec("PySide6") is not None


def load_command(
    name: str, commands: Sequence[Command] = COMMANDS
) -> Callable[[Sequence[str]], int]:
    """Return the function of a command. Raises UsageError for an unknown one."""
    found = {command.name: command for command in commands}
    if name not in found:
        near = get_close_matches(name, found, n=1)
        raise UsageError(
            "Unknown option {name!r}." if name.startswith("-") else "Unknown command {name!r}.",
            hint="Did you mean {near}?" if near else "See `cogvlm2-lite --help`.",
            name=name,
            near="".join(near),
        )
    with paused_collector():
        return import_target(found[name].target)


def help_text(commands: Sequence[Command] = COMMANDS) -> str:
    """Return the text of `cogvlm2-lite --help`."""
    width = max(len(command.name) for command in commands)
    rows = "\n".join(f"  {command.name:{width}}  {command.summary}" for command in commands)
    return f"""\
usage: cogvlm2-lite COMMAND ...

Run the image chat model CogVLM2-19B in 4 bits, offline, on one workstation.

commands:
{rows}

options:
  -h, --help     show this help message and exit
  -V, --version  show the version and exit

Start with `cogvlm2-lite demo`. On a desktop, `cogvlm2-lite` without a command opens the window.
`cogvlm2-lite COMMAND --help` describes a command.
"""
