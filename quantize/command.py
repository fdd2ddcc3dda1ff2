"""`cogvlm2-lite quantize` and `cogvlm2-lite verify`: options in, events out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from cogvlm2_lite.devices import prepare_threads
from cogvlm2_lite.errors import CogVLM2LiteError, UsageError
from cogvlm2_lite.units import format_bytes, format_seconds, parse_bytes
from quantize.events import Damaged, Event, Failed, Finished, Planned, Progress, Verified
from quantize.recipe import KINDS, Keep, Settings

_STOPPED = 130
"""Exit code after Ctrl-C, as shells count it."""

_QUANTIZE = """\
Make a 4-bit folder out of a 16-bit CogVLM2 checkpoint (round to nearest NF4).

SRC is only read. The work grows in DST.partial and gets the name DST when it is complete, so it can
be stopped or killed at any time: the same command goes on where it was. The result is a normal
Hugging Face folder that CogVLM2 Lite and transformers with bitsandbytes load.
"""

_VERIFY = """\
Read a quantized folder again and compare every byte with its manifest.

Exit code 0 when everything is as it was written, 1 when something is damaged.
"""


def main(argv: list[str] | None) -> int:
    """Run `quantize` and give its exit code.

    argv  arguments after the command's name; None takes the program's
    """
    options = _quantize_parser().parse_args(argv)
    return _run(lambda show: _quantize(options, show), as_json=options.json)


def verify_main(argv: list[str] | None) -> int:
    """Run `verify` and give its exit code; argv as in main."""
    options = _verify_parser().parse_args(argv)
    return _run(lambda show: _verify(options, show), as_json=options.json)


# --- options --------------------------------------------------------------------------------------


def _quantize_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cogvlm2-lite quantize",
        description=_QUANTIZE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The JSON events and the folder are described in docs/format.md.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="the 16-bit checkpoint folder")
    parser.add_argument("destination", metavar="DST", type=Path, help="the folder to be made")
    parser.add_argument(
        "--double-quant",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="store the scales in 8 bits too: 4.13 instead of 4.5 bits per weight (default: on)",
    )
    parser.add_argument(
        "--lm-head",
        choices=list(KINDS),
        default="bf16",
        help="how to store the output matrix; bf16 means as it is in SRC (default: bf16)",
    )
    parser.add_argument(
        "--keep",
        metavar="PATTERN=KIND",
        type=_keep,
        action="append",
        default=[],
        help="store some linear matrices as bf16 (as in SRC) or int8 instead of NF4. PATTERN is "
        "vision-tower, projector, vision-expert, language-expert, lm-head, or a tensor name with "
        "* in it. May be given more than once; the last match counts. int8 can be read by "
        "CogVLM2 Lite only",
    )
    parser.add_argument(
        "--shard-size",
        metavar="SIZE",
        type=_size,
        default=Settings().shard_bytes,
        help="largest size of one file (default: 5GB)",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what would be made and write nothing"
    )
    parser.add_argument(
        "--restart", action="store_true", help="throw away an unfinished DST.partial first"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="when continuing: read again what is already written, instead of trusting its journal",
    )
    parser.add_argument(
        "--threads",
        type=_count,
        default=min(os.cpu_count() or 1, 8),
        help="threads that round (default: one per core, at most 8); the result does not depend "
        "on it",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before the work starts")
    parser.add_argument("--json", action="store_true", help="print one JSON event per line")
    return parser


def _verify_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cogvlm2-lite verify",
        description=_VERIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder to be checked")
    parser.add_argument("--json", action="store_true", help="print one JSON event per line")
    return parser


def _keep(text: str) -> Keep:
    pattern, _, kind = text.rpartition("=")
    if not pattern or kind not in ("bf16", "int8"):
        raise argparse.ArgumentTypeError(f"{text!r} is not like vision-tower=int8 or NAME=bf16")
    return Keep(pattern=pattern, kind=kind)


def _size(text: str) -> int:
    try:
        size = parse_bytes(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from error
    if size == 0:
        raise argparse.ArgumentTypeError("a file can't be of size 0")
    return size


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count of 1 or more")
    return int(text)


# --- the two commands -----------------------------------------------------------------------------

Show = Callable[[Event], None]


def _quantize(options: argparse.Namespace, show: Show) -> int:
    prepare_threads()
    from quantize.pipeline import Effort, convert

    settings = Settings(
        double_quant=options.double_quant,
        lm_head=options.lm_head,
        keep=tuple(options.keep),
        shard_bytes=options.shard_size,
    )
    effort = Effort(threads=options.threads, rehash=options.check, restart=options.restart)
    with closing(convert(options.source, options.destination, settings, effort)) as events:
        for event in events:
            show(event)
            if isinstance(event, Planned) and (options.plan or not _agreed(options)):
                break
    return 0


def _agreed(options: argparse.Namespace) -> bool:
    """Ask before the work, where a person can answer."""
    if options.yes or options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    return input("Start? [Y/n] ").strip().lower() in ("", "y", "yes")


def _verify(options: argparse.Namespace, show: Show) -> int:
    from quantize.verify import verify

    code = 1
    for event in verify(options.folder):
        show(event)
        if isinstance(event, Verified):
            code = 0 if event.ok else 1
    return code


def _run(work: Callable[[Show], int], *, as_json: bool) -> int:
    """Run a command to its exit code; errors and Ctrl-C end in a sentence."""
    show: Show = _JsonLines() if as_json else _Screen()
    try:
        with _stop_on_sigterm():
            return work(show)
    except CogVLM2LiteError as error:
        show(Failed.of(error))
        return error.exit_code
    except KeyboardInterrupt:
        show(
            Failed(
                kind="Stopped",
                message="Stopped.",
                hint="Nothing is lost: run the same command again and it goes on where it was.",
            )
        )
        return _STOPPED


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Treat a polite request to end like Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- showing --------------------------------------------------------------------------------------


class _JsonLines:
    """Every event as one line of JSON on standard output, at once."""

    def __call__(self, event: Event) -> None:
        sys.stdout.write(event.to_json() + "\n")
        sys.stdout.flush()


class _Screen:
    """Events as text: results on standard output, progress and errors on standard error."""

    _PLAIN_STEP = 0.1

    def __init__(self) -> None:
        self._line = sys.stderr.isatty()
        self._open = False
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress(event)
            return
        if self._open:
            sys.stderr.write("\n")
            self._open = False
        stream = sys.stderr if isinstance(event, Failed) else sys.stdout
        stream.write("".join(f"{line}\n" for line in describe(event)))
        stream.flush()

    def _progress(self, event: Progress) -> None:
        text = (
            f"{event.share:6.1%}   {format_bytes(event.done_bytes)} of "
            f"{format_bytes(event.total_bytes)}   {format_bytes(round(event.bytes_per_s))}/s   "
            f"{format_seconds(event.seconds_left)} left"
        )
        if self._line:
            sys.stderr.write(f"\r{text:<78}")
            self._open = True
        elif event.share >= self._next:  # a log file gets ten lines, not thousands
            sys.stderr.write(f"{text}\n")
            self._next = event.share + self._PLAIN_STEP
        sys.stderr.flush()


_WORDS = {"dense": "as in SRC", "nf4": "NF4"}


def describe(event: Event) -> Sequence[str]:
    """Give an event as lines of text. Progress has none: it is one line that changes."""
    if isinstance(event, Planned):
        return _describe_plan(event)
    if isinstance(event, Finished):
        return _describe_finished(event)
    if isinstance(event, Damaged):
        where = f"{event.file}: {event.tensor}" if event.tensor else event.file
        return [f"DAMAGED  {where}: {event.problem}"]
    if isinstance(event, Verified):
        return _describe_verified(event)
    if isinstance(event, Failed):
        return [f"Error: {event.message}", *([f"  {event.hint}"] if event.hint else [])]
    return []


def _describe_plan(plan: Planned) -> list[str]:
    rows = [
        (
            row.part,
            format_bytes(row.source_bytes),
            format_bytes(row.result_bytes),
            ", ".join(f"{n} {_WORDS.get(kind, kind)}" for kind, n in row.kinds.items()) or "-",
            f"{row.bits_per_weight:.2f}",
        )
        for row in plan.parts
    ]
    table = [("part", "now", "then", "matrices", "bits/weight"), *rows]
    lines = [f"{a:<16} {b:>10} {c:>10}   {d:<22} {e:>11}" for a, b, c, d, e in table]
    total = f"{format_bytes(plan.source_bytes):>10} {format_bytes(plan.result_bytes):>10}"
    lines += [f"{'total':<16} {total}", ""]
    lines += _describe_kept(plan)
    lines += [f"Note: {note}" for note in plan.notes]
    ready = f" {format_bytes(plan.ready_bytes)} of it are ready." if plan.ready_bytes else ""
    free = f"{format_bytes(plan.free_bytes)} are free there."
    return [*lines, f"The result goes to {plan.destination}; {free}{ready}"]


def _describe_kept(plan: Planned) -> list[str]:
    """Say once per reason which matrices do not become NF4."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for row in plan.kept:
        by_reason.setdefault((row.reason, row.kind), []).append(row.tensor)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: "
        f"{_WORDS.get(kind, kind)} ({reason})."
        for (reason, kind), names in by_reason.items()
    ]


def _describe_finished(event: Finished) -> list[str]:
    if event.already:
        return [f"{event.folder} is finished already: the same source and settings."]
    return [
        f"Finished in {format_seconds(event.seconds)}: {event.folder}, "
        f"{format_bytes(event.result_bytes)}.",
        f'To check every byte: cogvlm2-lite verify "{event.folder}"',
    ]


def _describe_verified(event: Verified) -> list[str]:
    if not event.ok:
        things = "thing is" if event.damaged == 1 else "things are"
        return [f"{event.folder}: {event.damaged} {things} damaged."]
    if not event.has_manifest:
        return [
            f"{event.folder} has no manifest, so only names, shapes and sizes were checked: "
            "they are right."
        ]
    return [
        f"{event.folder} is as it was written: {format_bytes(event.checked_bytes)} checked in "
        f"{format_seconds(event.seconds)}."
    ]
