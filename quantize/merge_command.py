"""`cogvlm2-lite merge`: reads the options and shows the events."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cogvlm2_lite.cli.parser import Parser
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.devices import prepare_threads
from cogvlm2_lite.weights.adapter_choice import read_choices
from quantize.command import (
    RESUME_HINT,
    Show,
    add_adapter_options,
    agreed,
    count_option,
    keep_option,
    run,
    size_option,
)
from quantize.events import Planned
from quantize.recipe import TO_BF16, TO_SAME, QuantizeOptions

_MERGE = """\
Write a model folder that has an adapter (LoRA) in its weights.

Each matrix of the adapter becomes W + scale * B A, computed in float32 and rounded to the storage
kind that it has in MODEL; NF4 gets new scales. All other tensors are copied bit for bit. MODEL is
not changed. The result is written to DST.partial, which is renamed to DST when it is complete. You
can stop the command at any time; run it again to resume.
"""

_EPILOG = """\
Several adapters are added up: merge MODEL one two:0.5 DST. DST is the last folder.

An adapter fits the quantized model that it was trained on best: it has learnt the rounding errors,
too. docs/finetune.md has figures.

examples:
  cogvlm2-lite merge cogvlm2-nf4 my-adapter cogvlm2-mine
  cogvlm2-lite merge cogvlm2-nf4 my-adapter cogvlm2-mine-bf16 --to bf16
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `merge` and return its exit code.

    argv  arguments after the command's name; None: the program's own
    """
    return run(_merge, merge_parser(), argv, after_stop=RESUME_HINT)


def merge_parser() -> Parser:
    """Declare the options of `merge`."""
    parser = Parser(
        usage="merge MODEL ADAPTER... DST [options]", description=_MERGE, epilog=_EPILOG
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, 4-bit or 16-bit, or `demo`")
    add_adapter_options(parser, "adapter", nargs="+")
    parser.add_argument("destination", metavar="DST", type=Path, help="the folder to write")
    parser.add_argument(
        "--to",
        choices=(TO_SAME, TO_BF16),
        default=TO_SAME,
        help="storage of the result: same as in MODEL, or all in 16 bits (default: same)",
    )
    parser.add_argument(
        "--keep",
        metavar="PATTERN=KIND",
        type=keep_option,
        action="append",
        default=[],
        help="store matching matrices of the adapter as bf16 or int8. PATTERN is as in quantize. "
        "May be repeated; the last match counts",
    )
    parser.add_argument(
        "--shard-size",
        metavar="SIZE",
        type=size_option,
        default=QuantizeOptions().shard_bytes,
        help="maximum size of a weight file (default: 5GB)",
    )
    parser.add_argument("--plan", action="store_true", help="print what would be written and exit")
    parser.add_argument(
        "--restart", action="store_true", help="delete an unfinished DST.partial first"
    )
    parser.add_argument(
        "--threads",
        type=count_option,
        default=min(os.cpu_count() or 1, 8),
        metavar="N",
        help="threads; the result does not depend on it (default: one per core, at most 8)",
    )
    parser.add_argument(
        "--check",
        metavar="DATA",
        help="then compare the result with MODEL and the adapter: losses, KL and first choices of "
        "at most 64 answers, and the right ones of 16. DATA is as in finetune; `built-in` takes "
        "drawn pictures, `none` skips it (default: 16 answers that the training held out, if "
        "ADAPTER/training has them)",
    )
    parser.add_argument(
        "--original",
        metavar="SRC",
        help="also measure the loss of the adapter in SRC, the 16-bit model of which MODEL was "
        "made, and report which one to merge into",
    )
    parser.add_argument("--yes", action="store_true", help="answer all questions with yes")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    return parser


def _merge(options: argparse.Namespace, show: Show) -> int:
    from quantize.merge import Merge, run_bytes
    from quantize.merge_check import MergeCheck
    from quantize.pipeline import Effort, convert

    prepare_threads()
    settings = QuantizeOptions(
        keep=tuple(options.keep), shard_bytes=options.shard_size, matrices=options.to
    )
    effort = Effort(
        threads=options.threads, run_bytes=run_bytes(options.threads), restart=options.restart
    )
    choices = read_choices(options.adapter, add_up=True)
    merge = Merge(adapters=choices, any_base=options.any_base)
    source = model_folder(options.model)
    original = None if options.original is None else model_folder(options.original)
    check = MergeCheck.read(source, merge, options.check, original)
    with closing(convert(source, options.destination, settings, effort, merge=merge)) as events:
        for event in events:
            if isinstance(event, Planned) and check is not None:
                event = replace(event, notes=[*event.notes, check.note])
            show(event)
            if isinstance(event, Planned) and (options.plan or not agreed(options)):
                return 0
    if check is not None:
        for event in check.run(options.destination):
            show(event)
    return 0
