"""`cogvlm2-lite plan`: shows memory use and expected times of a model.

Nothing is loaded: only headers are read, and for `19b` not even those.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    DEVICE_HELP,
    Parser,
    add_memory_options,
    add_parallel_option,
    check_parallel,
)
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.forecast.machine import find_machine
from cogvlm2_lite.forecast.preview import preview
from cogvlm2_lite.forecast.rates import CARDS, named_card
from cogvlm2_lite.forecast.text import RELEASED_WORD, as_dict, find_subject, text
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.budget import check_context, read_allowance
from cogvlm2_lite.memory.plan import Offload
from cogvlm2_lite.text import with_templates

_EPILOG = """\
Times are calculated from the model's shapes and from typical rates of the device. --measure
measures the rates of this CPU instead.

examples:
  cogvlm2-lite plan 19b                       the real model in 4 bits on this computer, without
                                              downloading it
  cogvlm2-lite plan 19b --vram 8GiB           on a GPU with 8 GiB, whatever this computer has
  cogvlm2-lite plan 19b --card "RTX 4090" --vram 6GiB
  cogvlm2-lite plan 19b --device cpu --ram 16GiB --measure
  cogvlm2-lite plan my-model --context 4096
  cogvlm2-lite plan 19b --vram 16GiB --parallel 4
                                              for `serve --parallel 4`
"""


def build_parser() -> Parser:
    """Declare the options of `plan`."""
    parser = Parser(
        usage="plan MODEL [options]",
        description="Show which weights are in memory in each phase, and how long a phase takes,\n"
        "before anything is loaded.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"a model folder, `demo`, or `{RELEASED_WORD}`: the released model in 4 bits, which "
        "need not be on disk",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)
    parser.add_argument(
        "--card",
        metavar="NAME",
        help="plan for this GPU instead of the one in this computer: "
        + ", ".join(card.name for card in CARDS),
    )
    parser.add_argument(
        "--no-picture", action="store_true", help="plan for conversations without a picture"
    )
    parser.add_argument(
        "--lm-head",
        choices=("nf4", "bf16"),
        help=f"storage of lm_head, as for quantize; only with {RELEASED_WORD} (default: bf16)",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure the rates of this CPU first, in about a second",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_memory_options(parser)
    add_parallel_option(parser)
    return parser


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `plan` and return its exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    allowance = read_allowance(args.vram, args.ram)
    card = None if args.card is None else named_card(args.card)
    subject = find_subject(args.model, args.lm_head)
    context = check_context(subject.config, args.context)
    check_parallel(args.parallel)
    _check_picture(args, subject.config, context)
    with console.working("Checking the devices"):
        machine = find_machine(args.device, allowance, card=card, measure=args.measure)
    found = preview(
        subject,
        machine,
        context=context,
        with_picture=not args.no_picture,
        offload=Offload(args.offload),
        kv=KVKind(args.kv),
        parallel=args.parallel,
    )
    if args.json:
        console.line(to_json(with_templates(as_dict(subject, machine, found)), indent=2))
    else:
        console.write(text(subject, machine, found))
    return 0


def _check_picture(args: argparse.Namespace, config: ModelConfig, context: int) -> None:
    needed = config.vision.image_tokens + 1
    if not args.no_picture and context <= needed:
        raise UsageError(
            "A picture takes {picture} of the {context} tokens of context, which leaves none for a "
            "question.",
            hint="Use a larger --context, or plan with --no-picture.",
            picture=needed,
            context=context,
        )
