"""`cogvlm2-lite compare`: measures how much two models differ."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    Parser,
    adapters_of,
    add_adapter_options,
    add_compute_options,
    load_options,
)
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import OutputError, UsageError
from cogvlm2_lite.file_names import escape_line, to_json
from cogvlm2_lite.files import is_sealed, sealed_page, write_whole
from cogvlm2_lite.places import expand_home
from cogvlm2_lite.units import format_bytes, format_seconds
from cogvlm2_lite.weights.adapter_choice import names_of

if TYPE_CHECKING:
    from cogvlm2_lite.evaluate.compare import Comparison
    from cogvlm2_lite.evaluate.metrics import Measured
    from cogvlm2_lite.samples.samples import Sample

_DRAWN = "built-in"
_EPILOG = """\
MODEL_A is the reference, usually the 16-bit checkpoint; MODEL_B is made from it. Both models read
the same pictures, questions and answers, one model after the other and layer by layer, so each
needs no more memory than for an answer. For samples without an answer, MODEL_A writes one first.
An adapter and --activations act on MODEL_B, which is MODEL_A if it is left out.

  KL       mean KL divergence of B's next-token probabilities from A's, over all tokens of the
           answers, in nats; 0 means equal
  top-1    share of the tokens at which both models choose the same next token
  changed  share of the answers with at least one token at which they choose differently

The interval in brackets contains the number in 95 % of bootstrap resamples of the pictures.

examples:
  cogvlm2-lite compare cogvlm2-llama3-chat-19B cogvlm2-nf4
  cogvlm2-lite compare cogvlm2-llama3-chat-19B cogvlm2-nf4 --samples my-invoices.jsonl --json
  cogvlm2-lite compare my-model --adapter runs/1 --adapter runs/2 --samples my-invoices.jsonl
  cogvlm2-lite compare my-model --activations int8 --samples my-invoices.jsonl
"""


def build_parser() -> Parser:
    """Declare the options of `compare`."""
    parser = Parser(
        usage="compare MODEL_A [MODEL_B] [options]",
        description="Measure how much the answers of two models, or of adapters, differ.",
        epilog=_EPILOG,
    )
    parser.add_argument("reference", metavar="MODEL_A", help="a model folder, or `demo`")
    parser.add_argument(
        "other",
        metavar="MODEL_B",
        nargs="?",
        help="a model folder made from the same checkpoint (default with --adapter or "
        "--activations: MODEL_A)",
    )
    parser.add_argument(
        "--samples",
        default=_DRAWN,
        metavar="PICTURES",
        help="a folder of pictures, or a .jsonl file with image, question and answer per line "
        f"(default: {_DRAWN}, drawn pictures)",
    )
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help=f"use only the first N samples (default with {_DRAWN}: 32)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="also write an HTML page with plots and the error of every matrix; an existing file "
        "is replaced only if this option wrote it",
    )
    add_compute_options(parser)
    add_adapter_options(
        parser,
        one=False,
        repeated="if it is repeated, each adapter has a column, and those of one NAME are added up",
    )
    return parser


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `compare` and return its exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    adapters = names_of(adapters_of(args))
    _check_sides(args, adapters)
    reference = model_folder(args.reference)
    other = reference if args.other is None else model_folder(args.other)
    if args.html is not None:
        _check_page(args.html)
    found = _run(args, reference, other, adapters or (None,), console)
    if args.json:
        values: Any = [one.as_dict() for one in found]
        console.line(to_json(values if len(adapters) > 1 else values[0], indent=1))
    else:
        for notice in found[0].notices:
            console.remark(notice)
        console.line(as_columns(found) if adapters else as_text(found[0]))
    if args.html is not None:  # after the result, which stays if the page can't be written
        _write_page(args.html, found[0], console)
    return 0


def _check_sides(args: argparse.Namespace, adapters: Sequence[str]) -> None:
    if args.other is None and not adapters and args.activations == "auto":
        raise UsageError(
            "There is nothing to compare {folder} with.",
            hint="Name MODEL_B, or add --adapter FOLDER or --activations int8.",
            folder=args.reference,
        )
    if args.html is not None and adapters:
        raise UsageError(
            "--html shows how the matrices of two folders differ, so it can't be combined with "
            "--adapter.",
            hint="`cogvlm2-lite merge` writes a folder that has the adapter in its matrices.",
        )


def _run(
    args: argparse.Namespace,
    reference: Path,
    other: Path,
    adapters: Sequence[str | None],
    console: Console,
) -> list[Comparison]:
    from cogvlm2_lite.cli.answers import load_model
    from cogvlm2_lite.evaluate.compare import compare_each

    options = load_options(args, other)
    without = structs.replace(options, adapters=(), activations="auto", folder=reference)
    steps = compare_each(
        reference,
        other,
        _samples(args),
        lambda _: load_model(options),
        adapters,
        lambda _: load_model(without),
    )
    console.status("Opening the folders")
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            console.status("")
            found: list[Comparison] = end.value
            return found
        console.status(
            f"{step.model.name}: {step.share:.0%}, {format_seconds(step.seconds_left)} left"
        )


def _check_page(file: Path) -> None:
    """Raise UsageError for a file that can't be or must not be written, before the long work."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UsageError(
            "{file} can't be written: it is a folder."
            if file.is_dir()
            else "{file} can't be written: the folder {folder} does not exist.",
            hint="Choose a file such as report.html in a folder that exists.",
            file=file,
            folder=file.parent,
        )
    if file.exists() and not is_sealed(file.read_bytes()):
        raise UsageError(
            "{file} already exists. This program did not write it, or it was edited since.",
            hint="Choose another name.",
            file=file,
        )


def _write_page(file: Path, found: Comparison, console: Console) -> None:
    from cogvlm2_lite.config import read_config
    from cogvlm2_lite.evaluate.matrices import matrix_errors
    from cogvlm2_lite.evaluate.page import render
    from cogvlm2_lite.weights.catalog import Catalog

    folders = (found.reference, found.other)
    catalogs = [Catalog.open(folder, read_config(folder)) for folder in folders]
    matrices = []
    for one in matrix_errors(*catalogs):
        matrices.append(one)
        console.status(f"Comparing matrices: {one.name}")
    console.status("")
    page = sealed_page(render(found, matrices))
    try:
        write_whole(file, lambda temporary: temporary.write_bytes(page))
    except OSError as error:
        raise OutputError(
            "{file} can't be written: {why}.",
            hint="Choose a file in another folder.",
            file=file,
            why=error.strerror or error,
        ) from error
    console.remark(f"Wrote {file}.")


def _samples(args: argparse.Namespace) -> list[Sample]:
    from cogvlm2_lite.samples.drawn import drawn_samples
    from cogvlm2_lite.samples.samples import read_samples

    if args.count is not None and args.count < 1:
        raise UsageError("--count must be 1 or more, not {value}.", value=args.count)
    if args.samples == _DRAWN:
        return drawn_samples(args.count or 32, seed=1)
    return read_samples(expand_home(args.samples))[: args.count]


def as_text(found: Comparison) -> str:
    """Return the result as a short table."""
    summary = found.summary
    rows = [
        ("", "A", "B"),
        ("bytes", *(format_bytes(weight.nbytes) for weight in found.weights)),
        ("bits per weight", *(f"{weight.bits_per_weight:.2f}" for weight in found.weights)),
        *((kind, *_kind_cells(found, kind)) for kind in _kinds(found)),
    ]
    if summary.answers > found.written:
        exact = (summary.reference_exact, summary.other_exact)
        rows.append(("exact answers", *(f"{one.value:.1%}" for one in exact)))
    lines = [f"{name:20}{a:>12}{b:>12}".rstrip() for name, a, b in rows]
    lines += [
        "",
        f"{'B versus A':20}{'':12}95 % interval",
        _line("mean KL", summary.kl_mean, ".5f"),
        _line("99th percentile of KL", summary.kl_p99, ".5f"),
        _line("same top-1", summary.top1, ".2%"),
        _line("answers changed", summary.changed, ".1%"),
        "",
        f"{summary.tokens} tokens of {summary.answers} answers about {summary.pictures} pictures.",
    ]
    return f"A  {found.reference}\nB  {found.other}\n\n" + "\n".join(lines)


def as_columns(found: Sequence[Comparison]) -> str:
    """Return the results of adapters side by side, with a column for each."""
    summaries = [one.summary for one in found]
    first, shown = summaries[0], [escape_line(one.adapter or "B") for one in found]
    rows: list[tuple[str, list[str]]] = [("versus A", shown)]
    if first.answers > found[0].written:
        exact = [f"{one.other_exact.value:.1%}" for one in summaries]
        rows.append((f"exact answers ({first.reference_exact.value:.1%} in A)", exact))
    measures = (
        ("mean KL", [one.kl_mean for one in summaries], ".5f"),
        ("99th percentile of KL", [one.kl_p99 for one in summaries], ".5f"),
        ("same top-1", [one.top1 for one in summaries], ".2%"),
        ("answers changed", [one.changed for one in summaries], ".1%"),
    )
    for name, values, form in measures:
        rows.append((name, [format(one.value, form) for one in values]))
        ends = [f"[{format(one.low, form)}, {format(one.high, form)}]" for one in values]
        rows.append(("", ends))
    wide = max(len(name) for name, _ in rows)
    width = max(len(cell) for _, cells in rows for cell in cells)
    lines = [f"{name:{wide}}" + "".join(f"   {c:>{width}}" for c in cells) for name, cells in rows]
    total = f"{first.tokens} tokens of {first.answers} answers about {first.pictures} pictures."
    adapted = " with each adapter"
    return f"A  {found[0].reference}\nB  {found[0].other}{adapted}\n\n" + "\n".join(
        [*lines, "", "In brackets: 95 % interval.", total]
    )


def _kinds(found: Comparison) -> list[str]:
    return sorted(found.weights[0].kinds.keys() | found.weights[1].kinds.keys())


def _kind_cells(found: Comparison, kind: str) -> tuple[str, str]:
    first, second = (format_bytes(weight.kinds.get(kind, 0)) for weight in found.weights)
    return first, second


def _line(name: str, measured: Measured, form: str) -> str:
    low, high = format(measured.low, form), format(measured.high, form)
    return f"{name:20}{format(measured.value, form):>12}   [{low}, {high}]"
