"""`cogvlm2-lite plan`: what will be in memory when, and how long it will take.

Nothing is loaded: only headers are read, and for `19b` not even those.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    Parser,
    add_memory_options,
    add_parallel_option,
    check_parallel,
    model_folder,
)
from cogvlm2_lite.config import ModelConfig
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.memory.budget import check_context, read_allowance
from cogvlm2_lite.memory.drawing import about, draw_table, plan_as_dict
from cogvlm2_lite.memory.forecast import QUESTION_TOKENS
from cogvlm2_lite.memory.machine import Machine, find_machine
from cogvlm2_lite.memory.plan import Offload
from cogvlm2_lite.memory.preview import (
    Preview,
    Subject,
    folder_subject,
    preview,
    released_subject,
)
from cogvlm2_lite.memory.rates import CARDS, Rates, named_card
from cogvlm2_lite.units import format_bytes

RELEASED_WORD = "19b"

_EPILOG = """\
examples:
  cogvlm2-lite plan 19b                       the real model in 4 bit, on this computer, before its
                                              download
  cogvlm2-lite plan 19b --vram 8GiB           on a GPU of 8 GiB, whatever is in this computer
  cogvlm2-lite plan 19b --card "RTX 4090" --vram 6GiB
  cogvlm2-lite plan 19b --device cpu --ram 16GiB --measure
  cogvlm2-lite plan my-model --context 4096
  cogvlm2-lite plan 19b --vram 16GiB --parallel 4
                                              for `serve --parallel 4`

Times are arithmetic from the model's shapes and from stated rates, unless --measure is given.
"""


def build_parser() -> Parser:
    """Declare the options of `plan`."""
    parser = Parser(
        usage="plan MODEL [options]",
        description="Show which weights are in memory when, and how long it takes, before anything "
        "is loaded.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"a model folder; `demo`; or `{RELEASED_WORD}`, the released model in 4 bit, which "
        "need not be on disk",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:1"
    )
    parser.add_argument(
        "--card",
        metavar="NAME",
        help="a card to plan for instead of this computer's: "
        + ", ".join(card.name for card in CARDS),
    )
    parser.add_argument("--no-picture", action="store_true", help="plan for text alone")
    parser.add_argument(
        "--lm-head",
        choices=("nf4", "bf16"),
        help=f"how quantize is to store lm_head; only for {RELEASED_WORD} (default: bf16)",
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure the processor first (a second)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_memory_options(parser)
    add_parallel_option(parser)
    return parser


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `plan`; gives the exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    allowance = read_allowance(args.vram, args.ram)
    card = None if args.card is None else named_card(args.card)
    subject = find_subject(args.model, args.lm_head)
    context = check_context(subject.config, args.context)
    check_parallel(args.parallel)
    _check_picture(args, subject.config, context)
    with console.working("Looking at the devices"):
        machine = find_machine(args.device, allowance, card=card, measure=args.measure)
    found = preview(
        subject,
        machine,
        context=context,
        with_picture=not args.no_picture,
        offload=Offload(args.offload),
        eight_bit_cache=args.kv == "int8",
        parallel=args.parallel,
    )
    if args.json:
        console.line(json.dumps(as_dict(subject, machine, found), ensure_ascii=False, indent=2))
    else:
        console.write(text(subject, machine, found))
    return 0


def find_subject(name: str, lm_head: str | None) -> Subject:
    """Find what MODEL names. Raises UsageError and CheckpointError."""
    if name == RELEASED_WORD and not Path(name, "config.json").exists():
        return released_subject(lm_head_nf4=lm_head == "nf4")
    if lm_head is not None:
        raise UsageError(
            f"--lm-head is for `{RELEASED_WORD}` only; a folder's lm_head is stored already.",
            hint="Leave it out.",
        )
    return folder_subject(model_folder(name), name)


def _check_picture(args: argparse.Namespace, config: ModelConfig, context: int) -> None:
    needed = config.vision.image_tokens + 1
    if not args.no_picture and context <= needed:
        raise UsageError(
            f"A picture takes {needed} of the {context} tokens of context, which leaves none for a "
            "question.",
            hint="Give a larger --context, or plan with --no-picture.",
        )


def text(subject: Subject, machine: Machine, found: Preview) -> str:
    """Write a plan for a person."""
    first = f"{subject.name} on {machine.label}. {found.sentence}"
    blocks = [
        _wrapped(first),
        draw_table(found.plan, found.expected),
        "\n".join(_wrapped(note) for note in notes(machine, found)),
    ]
    return "\n\n".join(blocks) + "\n"


def notes(machine: Machine, found: Preview) -> Iterator[str]:
    """Say what the table does not."""
    yield from machine.remarks
    if found.plan.remark:
        yield found.plan.remark
    yield from (d.budget.remark for d in found.plan.devices if d.budget.remark)
    if found.packed_bytes:
        yield (
            "4-bit matrices that every token needs lie in RAM twice, as stored and packed for this "
            f"processor: {format_bytes(found.packed_bytes)} more."
        )
    yield _in_ram(found) if machine.is_cpu else _waiting(found)
    if found.picture_bytes:
        yield _pictures(found)
    does = "reads the weights from disk" + (" and packs them" if found.packed_bytes else "")
    yield f"The first answer also {does}, about {about(found.load_s)}."
    yield (
        f"Expected times are arithmetic, {_source(found)}. A question has {QUESTION_TOKENS} tokens."
    )
    yield "Answers are the same under every plan; --kv alone may change them."


def _in_ram(found: Preview) -> str:
    embedding = format_bytes(found.expected.ram_bytes)
    return f"Embedding rows are read from a mapped file: up to {embedding} of cached pages more."


def _waiting(found: Preview) -> str:
    host = sum(device.budget.host_bytes for device in found.plan.devices)
    kept = f"{format_bytes(found.expected.ram_bytes)} of weights wait in RAM"
    if found.expected.disk_bytes:
        return f"{kept}, where {format_bytes(host)} may be used; the others are on disk."
    return f"{kept} (embedding rows are read there), where {format_bytes(host)} may be used."


def _pictures(found: Preview) -> str:
    room, each = found.plan.picture_cache_bytes, format_bytes(found.picture_bytes)
    if room:
        return (
            f"Pictures that were asked about stay known in up to {format_bytes(room)} of RAM, "
            f"{each} each."
        )
    return (
        f"No RAM is left to keep earlier pictures ({each} each): going back to one reads it again."
    )


def _source(found: Preview) -> str:
    said = {rates.source: _numbers(rates, found) for rates in found.expected.rates}
    return "; ".join(f"from rates {source} ({numbers})" for source, numbers in said.items())


def _numbers(rates: Rates, found: Preview) -> str:
    bus = f", bus {rates.bus_bytes_per_s / 1e9:.1f}" if _has_bus(found) else ""
    return (
        f"{rates.matmul_flops / 1e12:.3g} TFLOP/s, memory {rates.memory_bytes_per_s / 1e9:.3g}"
        f"{bus}, disk {rates.disk_bytes_per_s / 1e9:.1f} GB/s"
    )


def _has_bus(found: Preview) -> bool:
    return found.plan.devices[0].budget.device != "cpu"


def as_dict(subject: Subject, machine: Machine, found: Preview) -> dict[str, Any]:
    """Give a plan as JSON-ready values."""
    return {
        "model": subject.name,
        "machine": machine.label,
        "summary": found.sentence,
        "remarks": list(notes(machine, found)),
        "plan": plan_as_dict(found.plan, found.expected),
        "packed_bytes": found.packed_bytes,
        "load_s": found.load_s,
    }


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=98, subsequent_indent="", break_long_words=False)
