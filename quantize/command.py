"""`cogvlm2-lite quantize` and `cogvlm2-lite verify`: reads the options and shows the events."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.cli.console import INTERRUPTED
from cogvlm2_lite.cli.parser import Parser
from cogvlm2_lite.demo.shipped import DEMO_WORD, model_folder
from cogvlm2_lite.devices import prepare_threads
from cogvlm2_lite.errors import CogVLM2LiteError, OutputError, UsageError
from cogvlm2_lite.text import Text, join
from cogvlm2_lite.units import format_bytes, parse_bytes
from cogvlm2_lite.weights.adapter_choice import read_choices
from quantize.budget import ByteBudget, parse_budget
from quantize.events import Event, Failed, Planned, Verified
from quantize.job import partial_folder, read_identity
from quantize.recipe import (
    AUTO,
    BY_BUDGET,
    BY_GRADIENT,
    CPU_TARGET,
    DEFAULT_TOKEN_WEIGHTS,
    GPU_TARGET,
    KINDS,
    UNIFORM,
    Keep,
    QuantizeOptions,
    Recipe,
)
from quantize.screen import JsonLines, Screen

if TYPE_CHECKING:
    from cogvlm2_lite.samples.pixels import SamplePixels
    from cogvlm2_lite.samples.samples import Sample
    from quantize.calibration.estimate import Estimate, SampleCounts
    from quantize.pipeline import Calibrate

_DEFAULT_BUDGET = "+5%"
"""The budget of a calibration if none is given; docs/quantization.md shows its effect."""

RESUME_HINT = Text("Finished work is kept in DST.partial: run the same command again to continue.")

_QUANTIZE = """\
Convert a 16-bit CogVLM2 checkpoint to a 4-bit folder (NF4, round to nearest or calibrated).

SRC is not changed. The result is written to DST.partial, which is renamed to DST when it is
complete. You can stop the command at any time; run it again to resume. DST is a normal Hugging Face
folder: CogVLM2 Lite can load it, and so can transformers with bitsandbytes.
"""

_EPILOG = """\
docs/format.md describes the folder and the JSON events.

examples:
  cogvlm2-lite quantize cogvlm2-llama3-chat-19B cogvlm2-nf4
  cogvlm2-lite quantize cogvlm2-llama3-chat-19B cogvlm2-nf4 --calibrate photos --budget 12GiB
"""

_VERIFY = """\
Compare every byte of a quantized folder with its manifest.

The exit code is 0 if everything is as it was written, and 1 if something is damaged.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `quantize` and return its exit code.

    argv  arguments after the command's name; None: the program's own
    """
    return run(_quantize, quantize_parser(), argv, after_stop=RESUME_HINT)


def verify_main(argv: Sequence[str] | None = None) -> int:
    """Run `verify` and return its exit code; argv as in main."""
    return run(_verify, verify_parser(), argv)


# --- options --------------------------------------------------------------------------------------


def quantize_parser() -> Parser:
    """Declare the options of `quantize`."""
    parser = Parser(
        usage="quantize SRC DST [options]",
        description=_QUANTIZE,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "source", metavar="SRC", type=Path, help="the 16-bit checkpoint folder, or `demo`"
    )
    parser.add_argument("destination", metavar="DST", type=Path, help="the folder to write")
    parser.add_argument(
        "--double-quant",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="store the scales in 8 bits, too: 4.13 instead of 4.5 bits per weight (default: on)",
    )
    parser.add_argument(
        "--lm-head",
        choices=[AUTO, *KINDS, BY_BUDGET],
        default=AUTO,
        help="storage of the output matrix; bf16 means as in SRC. budget lets --budget choose "
        "among 4, 8 and 16 bits. auto is bf16, or budget if --budget is smaller than that needs "
        "(default: auto)",
    )
    parser.add_argument(
        "--keep",
        metavar="PATTERN=KIND",
        type=keep_option,
        action="append",
        default=[],
        help="store matching linear matrices as bf16 (as in SRC) or int8 instead of NF4. PATTERN "
        "is vision-tower, projector, vision-expert, language-expert, lm-head, or a tensor name "
        "with *. May be repeated; the last match counts. Only CogVLM2 Lite can read int8",
    )
    parser.add_argument(
        "--calibrate",
        metavar="SAMPLES",
        help="calibrate the rounding with samples: a folder of pictures, a .jsonl file of {image, "
        "question, answer}, `built-in` for drawn pictures, or `none`. Default: built-in on a GPU. "
        "On a CPU, where it takes hours, the command asks first; --yes accepts",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=count_option,
        default=64,
        help="use at most N samples (default: 64)",
    )
    parser.add_argument(
        "--token-weights",
        choices=[UNIFORM, BY_GRADIENT],
        default=DEFAULT_TOKEN_WEIGHTS,
        help="how much each token of the samples counts when the rounding is calibrated: `none` "
        "for all alike, or `gradient` for how much the model's answers depend on it, which takes "
        f"longer (default: {DEFAULT_TOKEN_WEIGHTS})",
    )
    add_adapter_options(parser, "--adapter", action="append", default=[])
    parser.add_argument(
        "--budget",
        metavar="SIZE",
        type=_budget,
        help="size of the result: +5%% (more than NF4 alone), 4.6bits (per weight) or 12.0GiB. "
        "Matrices whose rounding changes the model's output most get more bits. Only CogVLM2 "
        "Lite can read the int8 that this uses; +0%% and --target gpu use none (default with "
        "calibration: +5%%)",
    )
    parser.add_argument(
        "--target",
        choices=["auto", CPU_TARGET, GPU_TARGET],
        default="auto",
        help="what DST will run on. For a GPU, --budget uses 16 bits and no int8, which is slower "
        "there. auto is what the calibration runs on (default: auto)",
    )
    parser.add_argument(
        "--work",
        metavar="FOLDER",
        type=Path,
        help="keep the calibration and its measurements in FOLDER, so that another DST with "
        "another --budget can reuse them",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="device for the calibration: auto, cpu, cuda, xpu or mps (default: auto)",
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
        "--check",
        action="store_true",
        help="when resuming, check the hashes of what is already written, too",
    )
    parser.add_argument(
        "--threads",
        type=count_option,
        default=min(os.cpu_count() or 1, 8),
        metavar="N",
        help="threads for rounding; the result does not depend on it (default: one per core, at "
        "most 8)",
    )
    parser.add_argument("--yes", action="store_true", help="answer all questions with yes")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    return parser


def verify_parser() -> Parser:
    """Declare the options of `verify`."""
    parser = Parser(
        usage="verify DIR [options]",
        description=_VERIFY,
        epilog="examples:\n  cogvlm2-lite verify cogvlm2-nf4\n",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder to check")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    return parser


def add_adapter_options(parser: Parser, name: str, **several: Any) -> None:
    """Declare the adapters, as an argument or an option, and --any-base.

    several  how argparse takes more than one
    """
    parser.add_argument(
        name,
        metavar="ADAPTER",
        help="the folder of an adapter (LoRA) that is added to the weights. ADAPTER:0.5 adds half "
        "of its effect. Several are added up",
        **several,
    )
    parser.add_argument(
        "--any-base",
        action="store_true",
        help="accept adapters that were trained on another model of the same shape",
    )


def keep_option(text: str) -> Keep:
    """Return a value of --keep."""
    pattern, _, kind = text.rpartition("=")
    if not pattern or kind not in ("bf16", "int8"):
        raise argparse.ArgumentTypeError(
            f"{text!r} does not have the form vision-tower=int8 or NAME=bf16"
        )
    return Keep(pattern=pattern, kind=kind)


def size_option(text: str) -> int:
    """Return a size of a file."""
    try:
        size = parse_bytes(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from error
    if size == 0:
        raise argparse.ArgumentTypeError("the size of a file can't be 0")
    return size


def _budget(text: str) -> ByteBudget:
    try:
        return parse_budget(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error.message} {error.hint}") from error


def count_option(text: str) -> int:
    """Return a number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


# --- the two commands -----------------------------------------------------------------------------

Show = Callable[[Event], None]


def _quantize(options: argparse.Namespace, show: Show) -> int:
    if options.source == Path(DEMO_WORD):
        options.source = model_folder(DEMO_WORD)
    prepare_threads()
    note = _without_calibration(options) if options.adapter else Text(choose_calibration(options))
    with _sample_pixels(options) as pixels:
        return _convert(options, show, note, pixels)


def _sample_pixels(options: argparse.Namespace) -> AbstractContextManager[SamplePixels | None]:
    """Return where the pictures of the samples are kept; None without a calibration."""
    if options.calibrate == "none" or not options.source.is_dir():
        return nullcontext()
    from cogvlm2_lite.config import read_config
    from cogvlm2_lite.samples.pixels import SamplePixels

    side = read_config(options.source).vision.image_size
    folder = next(p for p in options.destination.resolve().parents if p.is_dir())
    return SamplePixels(side, folder)


def _convert(
    options: argparse.Namespace, show: Show, note: Text, pixels: SamplePixels | None
) -> int:
    from quantize.merge import Merge, run_bytes
    from quantize.pipeline import Effort, convert

    samples, name = _samples(options, pixels)
    settings = QuantizeOptions(
        budget=options.budget or (parse_budget(_DEFAULT_BUDGET) if samples else None),
        calibration=name,
        double_quant=options.double_quant,
        lm_head=options.lm_head,
        target=_target(options) if samples else CPU_TARGET,
        keep=tuple(options.keep),
        shard_bytes=options.shard_size,
    )
    effort = Effort(
        threads=options.threads,
        rehash=options.check,
        restart=options.restart,
        work=options.work,
        run_bytes=run_bytes(options.threads) if options.adapter else Effort.run_bytes,
    )
    calibrate = _calibrate_with(samples, name, options, pixels) if samples else None
    merge = None
    if options.adapter:
        choices = read_choices(options.adapter, add_up=True)
        merge = Merge(adapters=choices, any_base=options.any_base)
    work = convert(options.source, options.destination, settings, effort, calibrate, merge)
    with closing(work) as events:
        for event in events:
            if isinstance(event, Planned) and samples:
                estimate, disk_bytes = _estimate(options, _count_samples(samples))
                time_needed = Text(
                    "Calibrating takes about {time}, and up to {size} of disk space until it is "
                    "finished. You can stop it; the same command resumes it.",
                    time=estimate,
                    size=format_bytes(disk_bytes),
                )
                note = join(time_needed, note)
            if isinstance(event, Planned) and note:
                event = replace(event, notes=[*event.notes, note])
            show(event)
            if isinstance(event, Planned) and (options.plan or not agreed(options)):
                break
    return 0


def _target(options: argparse.Namespace) -> str:
    """Return what the result will run on."""
    if options.target != "auto":
        return str(options.target)
    from cogvlm2_lite.devices import choose_compute

    backend = choose_compute(options.device, "auto").backend
    return CPU_TARGET if backend.uses_ram else GPU_TARGET


def _samples(options: argparse.Namespace, pixels: SamplePixels | None) -> tuple[list[Sample], str]:
    """Return the samples of --calibrate, and a text that identifies them; keep their pictures."""
    if options.calibrate == "none":
        by_budget = options.lm_head == BY_BUDGET
        if options.budget or options.work or by_budget:
            raise UsageError(
                "--{name} needs calibration, because without it nothing is measured.",
                hint="Add --calibrate built-in or --calibrate with your own samples. "
                "--keep chooses by hand.",
                name="budget" if options.budget else "work" if options.work else "lm-head budget",
            )
        return [], ""
    from cogvlm2_lite.samples.drawn import drawn_samples
    from cogvlm2_lite.samples.samples import identify_samples, in_fixed_order, read_samples
    from quantize.calibration.calibrate import check_samples

    if options.calibrate == "built-in":
        found = drawn_samples(options.samples)
    else:
        found = read_samples(Path(options.calibrate))[: options.samples]
    check_samples(found)
    found = in_fixed_order(found) if pixels is None else in_fixed_order(found, decoded=pixels.keep)
    return found, f"{len(found)} samples, {identify_samples(found)[:16]}"


def _calibrate_with(
    samples: list[Sample], name: str, options: argparse.Namespace, pixels: SamplePixels | None
) -> Calibrate:
    from cogvlm2_lite.devices import choose_compute
    from cogvlm2_lite.inputs.tokenizer import Tokenizer
    from quantize.calibration.calibrate import Task
    from quantize.calibration.gptq import Calibration

    compute = choose_compute(options.device, "auto")
    tokenizer = Tokenizer.from_folder(options.source)
    how = Calibration(double_quant=options.double_quant, token_weights=options.token_weights)

    def task(recipe: Recipe, folder: Path) -> Task:
        return Task(
            catalog=recipe.catalog,
            samples=samples,
            tokenizer=tokenizer,
            chosen=frozenset(t.name for t in recipe.tensors if t.kind == "nf4"),
            how=how,
            compute=compute,
            folder=folder,
            pixels=pixels,
            identity=f"{name}, {how.identity}, {compute.dtype} on {compute.device.type}",
        )

    return task


def _without_calibration(options: argparse.Namespace) -> Text:
    """Set --calibrate to none for --adapter; return the note about it. Raises UsageError."""
    if options.calibrate not in (None, "none"):
        raise UsageError(
            "--calibrate and --adapter can't be used together: the calibration would see the "
            "weights without the adapter.",
            hint="Use merge to write a 16-bit folder, and quantize that one with --calibrate.",
            param="calibrate",
        )
    options.calibrate = "none"
    return Text("Rounded to nearest: with --adapter there is no calibration.")


def choose_calibration(options: argparse.Namespace) -> str:
    """Set --calibrate if it is not given; return a note about the choice, or "".

    Calibration on a CPU may take hours, so it needs consent: a person is asked, and a program gets
    plain NF4 and a note.
    """
    if options.calibrate is not None:
        return ""
    if not options.source.is_dir():
        options.calibrate = "none"  # open_source reports the missing folder
        return ""
    earlier = read_identity(partial_folder(options.destination.resolve()))
    if earlier is not None and not options.restart:
        rounding = str(earlier.settings.get("rounding"))
        options.calibrate = "none" if rounding == "nearest" else "built-in"
        return ""
    from cogvlm2_lite.devices import choose_compute

    on_gpu = not choose_compute(options.device, "auto").backend.uses_ram
    options.calibrate = "built-in"
    if on_gpu or options.yes:
        return "Calibrated with the built-in set; --calibrate none rounds to nearest."
    from quantize.calibration.estimate import SampleCounts

    shown = options.samples * 4 // 5  # every fifth sample of the built-in set has no picture
    counts = SampleCounts(samples=options.samples, shown=shown, pictures=shown)
    estimate, _ = _estimate(options, counts)
    if _is_person(options) and not options.plan:
        answer = input(
            f"Calibrate on the built-in samples? It takes about {estimate} on this CPU, and the "
            "answers will be closer to those of SRC. [y/N] "
        )
        if answer.strip().lower() in ("y", "yes"):
            return ""
    options.calibrate = "none"
    return (
        f"Rounded to nearest. --calibrate with built-in or your own samples loses less quality in "
        f"the same bytes; on this CPU that takes about {estimate}."
    )


def _count_samples(samples: Sequence[Sample]) -> SampleCounts:
    from quantize.calibration.estimate import SampleCounts

    pictures = [sample.picture for sample in samples if sample.picture is not None]
    return SampleCounts(samples=len(samples), shown=len(pictures), pictures=len(set(pictures)))


def _estimate(options: argparse.Namespace, counts: SampleCounts) -> tuple[Estimate, int]:
    """Return how long a calibration takes on this machine, and the bytes that it needs on disk."""
    from cogvlm2_lite.config import read_config
    from cogvlm2_lite.devices import choose_compute
    from quantize.calibration.estimate import count_work, estimate, scratch_bytes
    from quantize.calibration.gptq import Calibration

    compute = choose_compute(options.device, "auto")
    spends = options.budget is None or options.budget.share != 0
    config = read_config(options.source)
    how = Calibration(token_weights=options.token_weights)
    work = count_work(config, counts, how, budget=spends)
    found = estimate(work, compute.device, compute.dtype)
    return found, scratch_bytes(config, counts, compute.dtype, work, how)


def agreed(options: argparse.Namespace) -> bool:
    """Return whether to start; ask if a person can answer."""
    if options.yes or not _is_person(options):
        return True
    return input("Start? [Y/n] ").strip().lower() in ("", "y", "yes")


def _is_person(options: argparse.Namespace) -> bool:
    return not options.json and sys.stdin.isatty() and sys.stdout.isatty()


def _verify(options: argparse.Namespace, show: Show) -> int:
    from quantize.verify import verify

    code = 1
    for event in verify(options.folder):
        show(event)
        if isinstance(event, Verified):
            code = 0 if event.ok else 1
    return code


def run(
    command: Callable[[argparse.Namespace, Show], int],
    parser: Parser,
    argv: Sequence[str] | None,
    *,
    after_stop: str = "",
) -> int:
    """Run a command and return its exit code; report errors, Ctrl-C and SIGTERM as a message.

    after_stop  hint shown after Ctrl-C or SIGTERM
    """
    argv = sys.argv[1:] if argv is None else argv
    show: Show = JsonLines() if "--json" in argv else Screen()
    try:
        with _stop_on_sigterm():
            return command(parser.read(argv), show)
    except OutputError:
        raise  # it can't be shown there
    except CogVLM2LiteError as error:
        show(Failed.of(error))
        return error.exit_code
    except KeyboardInterrupt:
        show(Failed(kind="Stopped", message=Text("Stopped."), hint=Text(after_stop)))
        return INTERRUPTED


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
