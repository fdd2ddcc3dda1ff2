"""`cogvlm2-lite finetune`: trains an adapter from pictures with answers."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cogvlm2_lite.architectures import find_released
from cogvlm2_lite.cli.console import INTERRUPTED, Console
from cogvlm2_lite.cli.finetune_output import Reporter
from cogvlm2_lite.cli.interrupts import stopped_by_interrupt
from cogvlm2_lite.cli.parser import DEVICE_HELP, Parser, add_budget_options, add_row_options
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.devices import prepare_threads
from cogvlm2_lite.errors import CogVLM2LiteError, DoesNotFitError, OutputError, UsageError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.exclusive import exclusive_folder
from cogvlm2_lite.file_names import valid_text
from cogvlm2_lite.forecast.machine import find_machine
from cogvlm2_lite.forecast.rates import named_card
from cogvlm2_lite.forecast.text import RELEASED_WORD, find_subject
from cogvlm2_lite.memory.budget import read_allowance
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import parse_bytes

if TYPE_CHECKING:
    from cogvlm2_lite.finetune.task import TrainingTask

_EPILOG = """\
DATA is a file or folder of pictures with answers: JSONL or JSON (LLaVA, ShareGPT, OpenAI, Alpaca
and similar keys), CSV or TSV, a folder of pictures with captions in .txt files, answers.jsonl of
`batch`, or a folder of CogVLM-SFT. docs/finetune.md has examples. Rows that can't be used are
listed in OUT/training/skipped.jsonl.

OUT becomes an adapter in peft's form, of the step with the lowest held-out loss; use it with
--adapter OUT. You can stop at any time and run the same command again to go on. Ctrl-C finishes the
step and saves; a second Ctrl-C stops at once.

examples:
  cogvlm2-lite finetune my-model invoices.jsonl my-adapter
  cogvlm2-lite finetune my-model captions/ my-style --preset words --replay old.jsonl:0.3
  cogvlm2-lite finetune 19b captions/ my-style --plan --card "RTX 4060 Ti"
"""


def build_parser() -> Parser:
    """Declare the options of `finetune`."""
    parser = Parser(
        usage="finetune MODEL DATA OUT [options]",
        description="Train an adapter (LoRA) from pictures with answers, on a GPU or the CPU.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or `demo`")
    parser.add_argument("data", metavar="DATA", type=Path, help="pictures with answers")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of the adapter")
    data = parser.add_argument_group("data")
    add_row_options(data)
    data.add_argument(
        "--held-out",
        default="10%",
        metavar="N|FILE",
        help="answers that are not learnt but measured: a share, a number, 0, or the rows of "
        "another file; pictures are never on both sides (default: 10%%, at most 500)",
    )
    data.add_argument(
        "--replay",
        metavar="DATA[:SHARE]",
        help="mix in rows of what the model can do already, so that it stays; SHARE 0.3 takes 30 "
        "%% of their pictures",
    )
    data.add_argument(
        "--allow-skipped",
        action="store_true",
        help="go on even if more than a tenth of the rows can't be used",
    )
    data.add_argument("--template", choices=("chat", "vqa", "base"), help="prompt template")
    data.add_argument(
        "--answer-space",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether answers begin with a space; auto measures what the model expects (default: "
        "auto)",
    )
    data.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="length of a conversation with its answer (default: at most 4096)",
    )
    data.add_argument(
        "--as-stored", action="store_true", help="ignore the orientation in a photo's EXIF tag"
    )
    train = parser.add_argument_group("training")
    train.add_argument(
        "--preset",
        choices=("words", "both", "demo", "tower"),
        default="words",
        help="what is trained. words: the language experts, behind the picture. both: both "
        "experts. demo: what the released demo trains. tower: both, the vision tower and the "
        "projector (default: words)",
    )
    train.add_argument(
        "--bos", action="store_true", help="with words: act on all rows, as in other programs"
    )
    train.add_argument("--rank", type=int, default=16, metavar="N", help="rank (default: 16)")
    train.add_argument(
        "--alpha", type=float, default=32.0, metavar="A", help="scale is A / rank (default: 32)"
    )
    train.add_argument(
        "--lr",
        type=float,
        metavar="R",
        help="highest learning rate (default: by preset and width of the model)",
    )
    train.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="passes over the data (default: 3, and more for small data until there are 200 steps)",
    )
    train.add_argument(
        "--step", type=int, default=16, metavar="N", help="answers in a step (default: 16)"
    )
    train.add_argument("--seed", type=int, default=0, metavar="N", help="seed (default: 0)")
    train.add_argument(
        "--schedule",
        choices=("cosine", "constant"),
        default="cosine",
        help="learning rate after a warm-up: a cosine to a tenth, or constant; epochs can be added "
        "to a run with the latter (default: cosine)",
    )
    train.add_argument(
        "--weight-decay", type=float, default=0.0, metavar="W", help="of AdamW (default: 0)"
    )
    train.add_argument(
        "--clip",
        type=float,
        default=1.0,
        metavar="NORM",
        help="scale longer gradients down to this norm (default: 1)",
    )
    train.add_argument(
        "--lr-b-factor",
        type=float,
        default=1.0,
        metavar="F",
        help="learning rate of lora_B divided by that of lora_A, as in LoRA+ (default: 1)",
    )
    train.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="stop after N evaluations without a lower held-out loss (default: never)",
    )
    device = parser.add_argument_group("device")
    device.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)
    device.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="number type of the computation (default: what suits the device)",
    )
    device.add_argument(
        "--rope", choices=("reference", "exact"), default="reference", help="as in ask"
    )
    add_budget_options(parser)
    parser.add_argument(
        "--cache",
        metavar="FOLDER[:SIZE]",
        help="where features of pictures are stored, so that a resumed run has them, and how much "
        "in all; :0 stores none (default: OUT/training/cache, a fifth of the free disk)",
    )
    parser.add_argument(
        "--answers",
        type=int,
        default=8,
        metavar="N",
        help="held-out questions that are answered before, at each evaluation and after (default: "
        "8)",
    )
    parser.add_argument(
        "--save-every",
        type=int,
        default=50,
        metavar="N",
        help="steps between saved states; one is also saved every 10 minutes (default: 50)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="read the data, show memory, time and disk of the run, and stop; MODEL may be "
        f"`{RELEASED_WORD}`, which need not be on disk, and --vram describes a GPU",
    )
    parser.add_argument(
        "--card", metavar="NAME", help="with --plan: for this GPU, such as RTX 4090, as in plan"
    )
    parser.add_argument(
        "--restart", action="store_true", help="delete the state of the run in OUT and start again"
    )
    parser.add_argument(
        "--adapter-dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="number type of the adapter's file; bfloat16 halves it (default: float32)",
    )
    parser.add_argument(
        "--curve", action="store_true", help="draw the training loss in the terminal"
    )
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    parser.add_argument(
        "--control",
        action="store_true",
        help="read the command stop from standard input: finish the step, save and end; its end "
        "means stop",
    )
    return parser


def main(
    argv: Sequence[str],
    *,
    console: Console | None = None,
    control_lines: Iterable[str] = sys.stdin,
) -> int:
    """Run `finetune` and return 0 when the adapter is finished, 130 if it was interrupted.

    control_lines  the commands that --control reads
    """
    args = build_parser().read(argv)
    report = Reporter(console or Console(), as_json=args.json, curve=args.curve)
    try:
        return _run(args, report, control_lines)
    except CogVLM2LiteError as error:
        if not args.json or isinstance(error, OutputError):
            raise
        report.event("error", **error.as_dict())
        return error.exit_code


def _run(args: argparse.Namespace, report: Reporter, control_lines: Iterable[str]) -> int:
    if args.plan:
        return _plan(args, report)
    if args.card is not None:
        raise UsageError("--card works only with --plan.", param="card")
    task = _task(args, model_folder(args.model))
    _check_out(task.out)
    from cogvlm2_lite.finetune.events import Interrupted
    from cogvlm2_lite.finetune.pages import RunPages, progress_of, use_commands
    from cogvlm2_lite.finetune.prepare import prepare

    prepare_threads()
    with (
        _no_empty_folder(task.out),
        exclusive_folder(task.out, "finetune") as notices,
        _disk_errors(task.out),
    ):
        for notice in notices:
            report.console.remark(valid_text(str(notice)))
        with report.console.working("Reading the data"):
            prepared = prepare(task, report.read)
        for remark in prepared.remarks:
            report.console.remark(valid_text(str(remark)))
        report.planned(prepared, task)
        cancel = Cancel()
        if args.control:
            threading.Thread(
                target=_follow, args=(control_lines, cancel), name="control", daemon=True
            ).start()
        pages = RunPages(task, prepared, args.model)
        try:
            with stopped_by_interrupt(cancel):
                for event in prepared.run.go(cancel):
                    report.learnt(event)
                    pages.update()
                    if isinstance(event, Interrupted):
                        return INTERRUPTED
        finally:
            pages.write_if_possible()
        use = use_commands(task, args.model)
        report.finished(task.out, progress_of(prepared.run), use)
    return 0


def _plan(args: argparse.Namespace, report: Reporter) -> int:
    """Show what a run needs; no weight is read and nothing is written."""
    allowance = read_allowance(args.vram, args.ram)
    card = None if args.card is None else named_card(args.card)
    if card is not None and not card.has_bfloat16 and args.dtype != "float32":
        raise UsageError(
            "{device} has no bfloat16, and small gradients are lost in float16.",
            hint="Use --dtype float32.",
            device=card.name,
        )
    subject = find_subject(args.model, None)
    released = find_released(args.model) is not None and not Path(args.model).is_dir()
    task = _task(args, Path(args.model) if released else model_folder(args.model))
    _check_out(task.out)
    prepare_threads()
    from cogvlm2_lite.finetune.survey import machine_of, survey, training_compute

    if card is not None or allowance.vram is not None:
        machine = find_machine(args.device, allowance, card=card)
        machine = replace(machine, itemsize=4 if args.dtype == "float32" else 2)
    else:
        machine = machine_of(training_compute(task), allowance)
    with report.console.working("Reading the data"):
        found = survey(task, subject, machine, report.read)
    remarks = [*machine.remarks, *found.remarks]
    if not (task.model / "tokenizer.json").is_file():
        remarks.append(Text("There is no tokenizer, so the numbers of tokens are estimates."))
    for remark in remarks:
        report.console.remark(valid_text(str(remark)))
    report.planned(found, task)
    report.phases(found)
    return 0


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """Turn errors of the file system into messages."""
    try:
        yield
    except OSError as error:
        raise DoesNotFitError(
            "{folder} can't be written to: {why}.",
            hint="Free some space, then run the same command again: it continues.",
            folder=out,
            why=error.strerror or error,
        ) from error


def _follow(lines: Iterable[str], cancel: Cancel) -> None:
    """Request a stop at the line `stop`, or at the end: the program that sends them has ended."""
    for line in lines:
        if line.strip() == "stop":
            break
    cancel.set()


def _task(args: argparse.Namespace, model: Path) -> TrainingTask:
    from cogvlm2_lite.finetune.settings import TrainingSettings
    from cogvlm2_lite.finetune.task import TrainingTask

    replay, share = _replay(args.replay)
    cache, cache_bytes = _cache(args.cache)
    settings = TrainingSettings(
        preset=args.preset, rank=args.rank, alpha=args.alpha, rate=args.lr, epochs=args.epochs,
        step=args.step, seed=args.seed, bos=args.bos, schedule=args.schedule,
        max_grad_norm=args.clip, weight_decay=args.weight_decay, rate_factor_up=args.lr_b_factor,
    )  # fmt: skip
    settings.check()
    limits = {
        "--max-tokens": (args.max_tokens, 1), "--save-every": (args.save_every, 1),
        "--patience": (args.patience, 1), "--answers": (args.answers, 0),
    }  # fmt: skip
    for param, (value, least) in limits.items():
        if value is not None and value < least:
            raise UsageError(
                "{param} must be {least} or more, not {value}.",
                param=param,
                least=least,
                value=value,
            )
    return TrainingTask(
        model=model,
        data=args.data,
        out=args.out,
        settings=settings,
        form=args.format,
        labels=args.labels,
        ask=tuple(args.ask),
        held_out=args.held_out,
        replay=replay,
        replay_share=share,
        template=args.template,
        answer_space=args.answer_space,
        max_tokens=args.max_tokens,
        upright=not args.as_stored,
        allow_skipped=args.allow_skipped,
        device=args.device,
        dtype=args.dtype,
        rope=args.rope,
        vram=args.vram,
        ram=args.ram,
        offload=args.offload,
        restart=args.restart,
        save_every=args.save_every,
        patience=args.patience,
        adapter_dtype=args.adapter_dtype,
        cache=cache,
        cache_bytes=cache_bytes,
        answers=args.answers,
    )


def _replay(word: str | None) -> tuple[Path | None, float]:
    if word is None:
        return None, 1.0
    name, colon, share = word.rpartition(":")
    try:
        part = float(share) if colon else 1.0
    except ValueError:  # a colon in the name, as in C:\\old.jsonl
        return Path(word), 1.0
    if not 0 < part <= 1:
        raise UsageError(
            "The share of --replay must be above 0 and at most 1, not {value}.", value=share
        )
    return Path(name if colon else word), part


def _cache(word: str | None) -> tuple[Path | None, int | None]:
    """Return the folder and the limit of FOLDER[:SIZE]; either may be left out."""
    if word is None:
        return None, None
    name, colon, size = word.rpartition(":")
    if not colon or not size[:1].isdigit():  # no size, also in C:\\cache
        name, size = word, ""
    folder = Path(name) if name else None
    if (folder is None and not size) or (folder is not None and _is_file(folder)):
        raise UsageError(
            "{param} needs a folder, not {value!r}.",
            hint="Write it like my-cache, my-cache:50GiB, or :0 for none.",
            param="--cache",
            value=name,
        )
    return folder, parse_bytes(size) if size else None


def _is_file(path: Path) -> bool:
    """Return whether a folder can't be made because a file has its name, or that of a parent."""
    return any(each.is_file() for each in (path, *path.parents))


def _check_out(out: Path) -> None:
    """Raise UsageError if the folder has files of others, which must not be replaced."""
    if not out.is_dir() or (out / "training" / "run.json").is_file():
        return
    if any(each.name != "training" and not each.name.startswith(".") for each in out.iterdir()):
        raise UsageError(
            "{folder} exists and has files that finetune did not write.",
            hint="Choose a new folder for the adapter.",
            folder=out,
        )


@contextmanager
def _no_empty_folder(out: Path) -> Iterator[None]:
    """Delete OUT if the block leaves nothing in it, as after a mistake in the data."""
    try:
        yield
    finally:
        with suppress(OSError):  # it has files, or it was never made
            out.rmdir()
