"""`cogvlm2-lite bench`: measures encode, prefill and decode on this computer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    DEVICE_HELP,
    DTYPE_HELP,
    Parser,
    adapters_of,
    add_adapter_options,
)
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.devices import DTYPES
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Progress
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.memory.budget import (
    check_context,
    cpu_budget,
    free_ram_bytes,
    gpu_budgets,
    read_allowance,
)
from cogvlm2_lite.memory.plan import DeviceBudget

if TYPE_CHECKING:
    from cogvlm2_lite.bench.measure import BenchedModel, BenchResult
    from cogvlm2_lite.devices import Compute

RELEASED_WORD = COGVLM2.released.word
_CPU_LAYERS = 2
"""Of 63 and 32: two answers then take about a minute on two cores."""
_STEPS = {
    "load": "Loading weights",
    "encode": "Encoding the picture",
    "prefill": "Reading the prompt",
    "decode": "Writing the answer",
}

_EPILOG = """\
The result compares each phase with a plain matrix product and a plain memory read on this device.
Tokens are computed one by one, without speculation.

examples:
  cogvlm2-lite bench 19b                  random weights in the real shapes, nothing is downloaded;
                                          on a CPU 2 layers of each kind, extrapolated to all
  cogvlm2-lite bench 19b --layers all     all layers; on a CPU this takes minutes and 16 GB of RAM
  cogvlm2-lite bench 19b --vram 8GiB      within 8 GiB of video memory
  cogvlm2-lite bench my-model
"""


def build_parser() -> Parser:
    """Declare the options of `bench`."""
    parser = Parser(
        usage="bench [MODEL] [options]",
        description="Measure one answer about a picture: encode, prefill and decode.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default=RELEASED_WORD,
        help=f"a model folder, `demo`, or `{RELEASED_WORD}`: random weights in the shapes of the "
        f"released model in 4 bits (default: {RELEASED_WORD})",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help=DTYPE_HELP)
    parser.add_argument(
        "--vram",
        metavar="SIZE",
        help="memory of the device to use, such as 8GiB; on a CPU, RAM (default: what is free)",
    )
    parser.add_argument(
        "--layers",
        metavar="N",
        help=f"number of vision and of decoder layers of {RELEASED_WORD}, or all (default: all on "
        f"a GPU, {_CPU_LAYERS} on a CPU)",
    )
    parser.add_argument(
        "--tokens", type=int, default=32, metavar="N", help="tokens to produce (default: 32)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="number of answers; only the last one is measured (default: 2; 1 with all layers on a "
        "CPU)",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens to reserve memory for (default: the model's maximum)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads to use")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_adapter_options(
        parser,
        one=True,
        repeated="the answers are measured without it, too; if it is repeated, the adapters are "
        "added up",
    )
    return parser


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `bench` and return its exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    result = run(args, console)
    from cogvlm2_lite.bench.report import as_dict, as_text

    if args.json:
        console.line(to_json(as_dict(result), indent=1))
    else:
        console.line(as_text(result))
    return 0


def run(args: argparse.Namespace, console: Console) -> BenchResult:
    """Measure as the options describe, and show progress."""
    _check_counts(args)
    from cogvlm2_lite.devices import choose_compute

    compute = choose_compute(args.device, args.dtype)
    from cogvlm2_lite.bench.measure import measure

    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    budget = _budget(args, compute)
    subject = _subject(args, compute, budget)
    whole = subject.full_layers == _layers_of(subject)
    on_cpu = compute.backend.uses_ram
    rounds = args.rounds or (1 if on_cpu and whole and args.model == RELEASED_WORD else 2)
    context = check_context(subject.config, args.context)
    console.status("Measuring the device")
    for event in measure(
        subject, compute, budget, tokens=args.tokens, rounds=rounds, context=context
    ):
        if not isinstance(event, Progress):
            console.status("")
            return event
        console.status(f"{_STEPS[event.phase]} {event.done}/{event.total}")
    raise AssertionError("a measurement ends with a result")


def _check_counts(args: argparse.Namespace) -> None:
    for name in ("tokens", "rounds", "threads"):
        value = getattr(args, name)
        least = 2 if name == "tokens" else 1
        if value is not None and value < least:
            raise UsageError(
                "--{name} must be {least} or more, not {value}.",
                param=name,
                name=name,
                least=least,
                value=value,
            )
    if args.layers is not None and args.model != RELEASED_WORD:
        raise UsageError(
            "--layers works only with {model}.",
            hint="A folder is measured with the layers it has.",
            model=RELEASED_WORD,
        )
    if args.adapter and args.model == RELEASED_WORD:
        raise UsageError(
            "--adapter needs the folder of a model: {model} has random weights.",
            hint="Name the model's folder before the options.",
            model=RELEASED_WORD,
        )


def _budget(args: argparse.Namespace, compute: Compute) -> DeviceBudget:
    """Return the budget of the first device; on a CPU, --vram means RAM."""
    if compute.gpus:
        allowance = read_allowance(args.vram, None)
        return gpu_budgets(compute.gpus[:1], allowance, free_ram_bytes())[0]
    given = read_allowance(args.vram, None).vram
    if given is not None:
        return DeviceBudget(device="cpu", device_bytes=given[0], in_ram=True)
    return cpu_budget(read_allowance(None, None), free_ram_bytes())


def _subject(args: argparse.Namespace, compute: Compute, budget: DeviceBudget) -> BenchedModel:
    from cogvlm2_lite.bench.measure import folder_subject, synthetic_subject

    if args.model != RELEASED_WORD:
        folder = model_folder(args.model, released=RELEASED_WORD)
        return folder_subject(
            folder, name=args.model, adapters=adapters_of(args), any_base=args.any_base
        )
    on_cpu = compute.backend.uses_ram
    layers = _layers(args.layers, on_cpu=on_cpu)
    # Streamed weights must be kept in RAM; on a CPU without a budget nothing is streamed.
    return synthetic_subject(layers, keep=not on_cpu or args.vram is not None)


def _layers(text: str | None, *, on_cpu: bool) -> int | None:
    """Return the number in --layers; None means all."""
    if text is None:
        return _CPU_LAYERS if on_cpu else None
    if text == "all":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 32:
        raise UsageError(
            "--layers must be a number from 1 to 32 or all, not {value!r}.", value=text
        )
    return int(text)


def _layers_of(subject: BenchedModel) -> tuple[int, int]:
    from cogvlm2_lite.bench.measure import layers_of

    return layers_of(subject.config)
