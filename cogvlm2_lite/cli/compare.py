"""`cogvlm2-lite compare`: how far a model folder's next words are from another's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import Parser, add_compute_options, load_options
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from cogvlm2_lite.engine.model import Model
    from cogvlm2_lite.evaluate.compare import Comparison
    from cogvlm2_lite.evaluate.metrics import Measured
    from cogvlm2_lite.samples.samples import Sample

_DRAWN = "built-in"
_EPILOG = """\
MODEL_A is the reference, usually the 16-bit checkpoint; MODEL_B was made from the same one. Both
read the same pictures, questions and answers, one model after the other, block by block: each needs
no more memory than it needs for an answer. Where a sample has no answer, MODEL_A writes it first.

  KL       how far B's next words are from A's, in nats, over all words of the answers; 0 is equal
  top-1    share of the words at which both would choose the same next
  changed  share of the answers in which they choose another word somewhere

In brackets, where the number lies in 95 of 100 resamples of the pictures.

examples:
  cogvlm2-lite compare cogvlm2-llama3-chat-19B cogvlm2-nf4
  cogvlm2-lite compare cogvlm2-llama3-chat-19B cogvlm2-nf4 --samples my-invoices.jsonl --json
"""


def build_parser() -> Parser:
    """Declare the options of `compare`."""
    parser = Parser(
        usage="compare MODEL_A MODEL_B [options]",
        description="Measure how far the answers of a model are from those of another.",
        epilog=_EPILOG,
    )
    parser.add_argument("reference", metavar="MODEL_A", help="a model folder, or `demo`")
    parser.add_argument("other", metavar="MODEL_B", help="a model folder of the same architecture")
    parser.add_argument(
        "--samples",
        default=_DRAWN,
        metavar="PICTURES",
        help="a folder of pictures, or a .jsonl file of image, question and answer "
        f"(default: {_DRAWN}, a set that is drawn)",
    )
    parser.add_argument(
        "--count", type=int, metavar="N", help=f"take the first N samples ({_DRAWN}: 32)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write also a page with plots, and the error of every matrix",
    )
    add_compute_options(parser)
    return parser


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `compare`; gives the exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    reference, other = model_folder(args.reference), model_folder(args.other)
    if args.html is not None:
        _check_page(args.html)
    found = _run(args, reference, other, console)
    if args.html is not None:
        _write_page(args.html, found, console)
    if args.json:
        console.line(json.dumps(found.as_dict(), ensure_ascii=False, indent=1))
    else:
        console.line(as_text(found))
    return 0


def _run(args: argparse.Namespace, reference: Path, other: Path, console: Console) -> Comparison:
    from cogvlm2_lite.cli.answers import load_model
    from cogvlm2_lite.evaluate.compare import compare

    def open_model(folder: Path) -> Model:
        return load_model(load_options(args, folder))

    steps = compare(reference, other, _samples(args), open_model)
    console.status("Opening the folders")
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            console.status("")
            found: Comparison = end.value
            return found
        console.status(
            f"{step.model.name}: {step.share:.0%}, {format_seconds(step.seconds_left)} left"
        )


def _check_page(file: Path) -> None:
    """Refuse a place that can't be written, before the long work."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UsageError(
            "{file} can't be written: it is a folder."
            if file.is_dir()
            else "{file} can't be written: the folder {folder} does not exist.",
            hint="Name a file like report.html in a folder that exists.",
            file=file,
            folder=file.parent,
        )


def _write_page(file: Path, found: Comparison, console: Console) -> None:
    from cogvlm2_lite.config import read_config
    from cogvlm2_lite.evaluate.matrices import matrix_errors
    from cogvlm2_lite.evaluate.page import render
    from cogvlm2_lite.weights.catalog import Catalog
    from cogvlm2_lite.weights.writer import write_file_durably

    folders = (found.reference, found.other)
    catalogs = [Catalog.open(folder, read_config(folder)) for folder in folders]
    matrices = []
    for one in matrix_errors(*catalogs):
        matrices.append(one)
        console.status(f"Comparing matrices: {one.name}")
    console.status("")
    write_file_durably(file, render(found, matrices).encode())
    console.remark(f"Written: {file}")


def _samples(args: argparse.Namespace) -> list[Sample]:
    from cogvlm2_lite.samples.drawn import drawn_samples
    from cogvlm2_lite.samples.samples import read_samples

    if args.count is not None and args.count < 1:
        raise UsageError("--count must be 1 or more, not {value}.", value=args.count)
    if args.samples == _DRAWN:
        return drawn_samples(args.count or 32, seed=1)
    return read_samples(Path(args.samples).expanduser())[: args.count]


def as_text(found: Comparison) -> str:
    """Write the result as a short table."""
    summary = found.summary
    rows = [
        ("", "A", "B"),
        ("bytes", *(format_bytes(weight.nbytes) for weight in found.weights)),
        ("bits per weight", *(f"{weight.bits_per_weight:.2f}" for weight in found.weights)),
        *((kind, *_kind_cells(found, kind)) for kind in _kinds(found)),
    ]
    if summary.answers > found.written:
        exact = (summary.reference_exact, summary.other_exact)
        rows.append(("given answer exact", *(f"{one.value:.1%}" for one in exact)))
    lines = [f"{name:20}{a:>12}{b:>12}".rstrip() for name, a, b in rows]
    lines += [
        "",
        f"{'B against A':20}{'':12}95 of 100 resamples",
        _line("KL mean", summary.kl_mean, ".5f"),
        _line("KL 99th percentile", summary.kl_p99, ".5f"),
        _line("top-1 the same", summary.top1, ".2%"),
        _line("answers changed", summary.changed, ".1%"),
        "",
        f"{summary.tokens} words of {summary.answers} answers about {summary.pictures} pictures.",
    ]
    return f"A  {found.reference}\nB  {found.other}\n\n" + "\n".join(lines)


def _kinds(found: Comparison) -> list[str]:
    return sorted(found.weights[0].kinds.keys() | found.weights[1].kinds.keys())


def _kind_cells(found: Comparison, kind: str) -> tuple[str, str]:
    first, second = (format_bytes(weight.kinds.get(kind, 0)) for weight in found.weights)
    return first, second


def _line(name: str, measured: Measured, form: str) -> str:
    low, high = format(measured.low, form), format(measured.high, form)
    return f"{name:20}{format(measured.value, form):>12}   [{low}, {high}]"
