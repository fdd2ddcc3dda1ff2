"""`cogvlm2-lite doctor`: a report about this computer, for a bug report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cogvlm2_lite.cli.answers import Loader, load_model
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import Parser, add_compute_options, load_options
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.doctor.report import check_weights, gather
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.forecast.table import draw_table, plan_as_dict
from cogvlm2_lite.text import with_templates

_EPILOG = """\
With MODEL, the headers of its files and some pages of every matrix are read; nothing is loaded. The
exit code is 0 even if problems are found.

examples:
  cogvlm2-lite doctor
  cogvlm2-lite doctor my-model --vram 8GiB
"""


def build_parser() -> Parser:
    """Declare the options of `doctor`."""
    parser = Parser(
        usage="doctor [MODEL] [options]",
        description="Print versions, devices, memory and kernels for a bug report. Nothing is sent "
        "anywhere.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="also check this model folder and print its memory plan",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_compute_options(parser)
    return parser


def main(argv: Sequence[str], *, load: Loader = load_model, console: Console | None = None) -> int:
    """Run `doctor` and return its exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    with console.working("Checking this computer"):
        report = gather()
        fit = None if args.model is None else _fit(args, load)
    if args.json:
        model = {} if fit is None else {"model": fit[1]}
        console.line(to_json(report.as_dict() | model, indent=2))
        return 0
    console.write(report.text())
    if fit is not None:
        console.line()
        console.line(f"{args.model}\n{fit[0]}")
    return 0


def _fit(args: argparse.Namespace, load: Loader) -> tuple[str, dict[str, object]]:
    """Return a model's memory plan as text and as JSON-ready values."""
    try:
        folder = model_folder(args.model)
        check_weights(folder)
        plan = load(load_options(args, folder)).plan
    except CogVLM2LiteError as error:
        text = f"{error.message}\n{error.hint}".rstrip()
        return text, with_templates({"error": error.message, "hint": error.hint})
    return draw_table(plan), {"plan": plan_as_dict(plan)}
