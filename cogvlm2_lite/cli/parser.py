"""The argument parser of all commands, and the options that several of them share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cogvlm2_lite.cli.streams import put
from cogvlm2_lite.cli.words import as_text
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import DTYPES, parse_device
from cogvlm2_lite.engine.options import ACTIVATIONS, LoadOptions
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.budget import check_context, read_allowance
from cogvlm2_lite.places import prepare_cache
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import parse_bytes
from cogvlm2_lite.weights.adapter_choice import AdapterChoice, read_choices

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from cogvlm2_lite.sampling import Sampling


DEVICE_HELP = (
    "auto, cpu, cuda (NVIDIA, AMD), xpu (Intel), mps (Apple), or one GPU such as cuda:1 (default: "
    "auto, a GPU if there is one)"
)
DTYPE_HELP = "number type of activations (default: auto, the best one of the device)"


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and reports mistakes as UsageError."""

    def __init__(self, *, usage: str, description: str, epilog: str = "") -> None:
        """Declare a command. usage: its name and arguments, such as "ask MODEL QUESTION"."""
        super().__init__(
            prog=f"cogvlm2-lite {usage.split()[0]}",
            usage=f"cogvlm2-lite {usage}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        put(sys.stdout, self.format_help())

    def error(self, message: str) -> NoReturn:
        sentence = f"{message[:1].upper()}{message[1:]}".removesuffix(".") + "."  # of argparse
        raise UsageError(Text(sentence), hint="See `{command} --help`.", command=self.prog)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse arguments in any order. Raises UsageError for a mistake."""
        args, unknown = self.parse_known_intermixed_args(self._joined(argv))
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = get_close_matches(unknown[0].partition("=")[0], known, n=1)
            hint = "Did you mean {near}?" if near else "See `{command} --help`."
            if unknown[0].startswith("-") and os.path.lexists(unknown[0]):
                hint = "If the file of this name is meant, write ./{name}."
            raise UsageError(
                "{command} has no option {name!r}."
                if unknown[0].startswith("-")
                else "{command} does not take the argument {name!r}.",
                hint=hint,
                command=self.prog,
                name=unknown[0],
                near="".join(near),
            )
        return args

    def _joined(self, argv: Sequence[str]) -> list[str]:
        """Join "--vram -8GiB" to "--vram=-8GiB", so that the error is about the size.

        argparse takes words that begin with a minus for options, unless they are plain numbers.
        """
        takes = {o for action in self._actions if action.nargs != 0 for o in action.option_strings}
        words: list[str] = []
        for word in argv:
            if words and words[-1] in takes and word[:1] == "-" and word[1:2].isdecimal():
                words[-1] += f"={word}"
            else:
                words.append(word)
        return words


def add_model_options(parser: Parser, *, one_adapter: bool) -> None:
    """Declare MODEL, --keep-pictures, --show-plan, options for computing, drafts and adapters.

    one_adapter  as for `add_adapter_options`
    """
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a model folder, as released or written by quantize, or `demo`, the small included "
        "model",
    )
    add_compute_options(parser)
    add_speculation_option(parser)
    add_adapter_options(parser, one=one_adapter)
    parser.add_argument(
        "--keep-pictures",
        metavar="SIZE",
        help="keep up to this much of encoded pictures on disk, so that they need not be encoded "
        "again after a restart; with the 19B model one takes 288 MiB (default: none)",
    )
    parser.add_argument(
        "--show-plan", action="store_true", help="print the memory plan before the answer"
    )


_ADDED_UP = "if it is repeated, the adapters are added up"
_CHOICES = (
    "may be repeated; one or none acts on an answer, at first the first one, and those of one NAME "
    "are added up"
)


def add_adapter_options(parser: Parser, *, one: bool, repeated: str = "") -> None:
    """Declare --adapter and --any-base; `adapters_of` reads them.

    one       all adapters act on every answer, as one; False: each of them is a choice
    repeated  what happens if --adapter is repeated; "": what it means in most commands
    """
    parser.set_defaults(one_adapter=one)
    parser.add_argument(
        "--adapter",
        metavar="[NAME=]FOLDER[:WEIGHT]",
        action="append",
        default=[],
        help="use a LoRA adapter: a folder with adapter_model.safetensors, as peft and other "
        "programs write it. Its effect is multiplied by WEIGHT (default: 1); "
        f"{repeated or (_ADDED_UP if one else _CHOICES)} (default: none)",
    )
    parser.add_argument(
        "--any-base",
        action="store_true",
        help="use adapters even if they were trained on another model of the same shape",
    )


def adapters_of(args: argparse.Namespace) -> tuple[AdapterChoice, ...]:
    """Return the adapters that the options of `add_adapter_options` name."""
    return read_choices(args.adapter, add_up=args.one_adapter)


def add_row_options(group: argparse._ArgumentGroup) -> None:
    """Declare how rows of pictures with answers are read: --format, --labels and --ask."""
    group.add_argument(
        "--format",
        choices=("sft", "json", "table", "captions"),
        help="the form of DATA (default: recognised)",
    )
    group.add_argument(
        "--labels", choices=("en", "zh", "both"), help="labels of a CogVLM-SFT folder"
    )
    group.add_argument(
        "--ask",
        type=as_text,
        metavar="TEXT",
        action="append",
        default=[],
        help="question for captions without one; may be given several times, taken in turn "
        "(default: Describe this image in detail., in the caption's language)",
    )


def add_compute_options(parser: Parser) -> None:
    """Declare the options for device, number types and memory; `load_options` reads them.

    A command may declare --parallel, --speculation, --keep-pictures, --max-megapixels and the
    options of `add_adapter_options` after this.
    """
    parser.set_defaults(
        parallel=1,
        speculation="auto",
        keep_pictures=None,
        max_megapixels=None,
        adapter=[],
        one_adapter=True,
        any_base=False,
    )
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help=DEVICE_HELP,
    )
    group.add_argument("--dtype", default="auto", choices=DTYPES, help=DTYPE_HELP)
    group.add_argument(
        "--rope",
        default="reference",
        choices=("reference", "exact"),
        help="position embedding: reference rounds as the released model does, exact computes in "
        "float32 (default: reference)",
    )
    group.add_argument(
        "--activations",
        default="auto",
        choices=ACTIVATIONS,
        help="int8 computes pictures with activations of 8 bits: faster on a CPU with AVX-VNNI, "
        "AVX512 or AMX, and answers about pictures may differ; auto keeps all bits (default: auto)",
    )
    add_memory_options(parser)


def add_memory_options(parser: Parser) -> None:
    """Declare the options for memory."""
    group = add_budget_options(parser)
    group.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens of conversation to reserve memory for (default: the model's maximum)",
    )
    group.add_argument(
        "--kv",
        default="full",
        choices=[kind.value for kind in KVKind],
        help="int8 stores the key/value cache in 8 bits: about half the memory, and answers may "
        "differ slightly; int4 in 4 bits: little more than a quarter, and answers differ more "
        "often (default: full)",
    )


def add_budget_options(parser: Parser) -> argparse._ArgumentGroup:
    """Declare the options for the memory that may be used; return their group."""
    group = parser.add_argument_group("memory")
    group.add_argument(
        "--vram",
        metavar="SIZE",
        help="video memory to use, such as 8GiB, or 8GiB,12GiB for two GPUs (default: what is "
        "free)",
    )
    group.add_argument(
        "--ram",
        metavar="SIZE",
        help="RAM to use, such as 16GiB (default: what is free)",
    )
    group.add_argument(
        "--offload",
        default="auto",
        choices=("auto", "never"),
        help="auto streams weights from RAM or disk if the model does not fit; never stops with an "
        "error instead (default: auto)",
    )
    return group


def load_options(args: argparse.Namespace, folder: Path) -> LoadOptions:
    """Return the LoadOptions that the options of `add_compute_options` describe.

    All options are checked here, before the model is loaded. Raises UsageError for an invalid one
    and FolderError if pictures are to be kept and the cache can't be written.
    """
    # None: the command decides later, by what memory allows.
    parallel = 1 if args.parallel is None else args.parallel
    check_parallel(parallel)
    read_allowance(args.vram, args.ram)
    parse_device(args.device)
    if args.context is not None:
        _check_context(args.context, folder)
    kept, megapixels = args.keep_pictures, args.max_megapixels
    kept_bytes = None if kept is None else parse_bytes(kept)
    return LoadOptions(
        folder=folder,
        device=args.device,
        dtype=args.dtype,
        rope=args.rope,
        vram=args.vram,
        ram=args.ram,
        offload=args.offload,
        context=args.context,
        kv=args.kv,
        activations=args.activations,
        parallel=parallel,
        pictures=None if kept_bytes is None else (prepare_cache("pictures"), kept_bytes),
        max_picture_pixels=DEFAULT_LIMITS.max_pixels
        if megapixels is None
        else int(megapixels * 1e6),
        adapters=adapters_of(args),
        any_base=args.any_base,
        speculation=args.speculation == "auto",
    )


def _check_context(context: int, folder: Path) -> None:
    """Raise UsageError for a --context that is not possible; the loader reports a bad folder."""
    if context < 1:
        raise UsageError("--context must be 1 or more, not {value}.", value=context)
    if (folder / "config.json").is_file():
        check_context(read_config(folder), context)


def add_speculation_option(parser: Parser) -> None:
    """Declare --speculation."""
    parser.add_argument(
        "--speculation",
        default="auto",
        choices=("auto", "off"),
        help="auto computes several likely tokens in one pass, and keeps those that the model "
        "chooses, too; off computes them one by one. The answer is the same (default: auto)",
    )


def add_draft_option(parser: Parser, *, more: str = "") -> None:
    """Declare --draft-text.

    more  what FILE may be besides a file, put before the explanation
    """
    parser.add_argument(
        "--draft-text",
        metavar="FILE",
        help=f"a text file{more} that the answer probably resembles, such as the text that an OCR "
        "program read from the picture: where its words are right, the answer is made faster. The "
        "answer is the same (default: none)",
    )


MOST_PARALLEL = 32
"""Conversations at once: the GEMV kernels take at most this many rows."""


def add_parallel_option(parser: Parser) -> None:
    """Declare --parallel."""
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="decode up to N conversations at once; fewer if memory is short (default: 1)",
    )


def check_parallel(parallel: int) -> None:
    """Raise UsageError for a number of conversations out of range."""
    if not 1 <= parallel <= MOST_PARALLEL:
        raise UsageError(
            "--parallel must be between 1 and {most}, not {value}.",
            hint="Each conversation needs its own key/value cache; `cogvlm2-lite plan` shows "
            "how large.",
            most=MOST_PARALLEL,
            value=parallel,
        )


def add_picture_options(parser: Parser) -> None:
    """Declare the options for opening a picture."""
    parser.add_argument(
        "--as-stored",
        action="store_true",
        help="ignore the orientation in a photo's EXIF tag, as the released demos do",
    )
    parser.add_argument(
        "--page",
        type=int,
        metavar="N",
        help="the page of a TIFF file or the frame of an animation, from 1 (default: the first, or "
        "the frame of an animation that shows most)",
    )


def add_sampling_options(parser: Parser) -> None:
    """Declare the options for sampling; the defaults are those of the released demos."""
    group = parser.add_argument_group("answer")
    group.add_argument(
        "--template",
        choices=("chat", "vqa", "base"),
        help="prompt template: chat; vqa for short answers; base for the bare question (default: "
        "the model's own)",
    )
    group.add_argument(
        "--max-new-tokens",
        type=int,
        default=2048,
        metavar="N",
        help="maximum length of an answer in tokens (default: 2048)",
    )
    group.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 always takes the most likely token; higher values are more varied, 0.6 to 1.0 is "
        "typical (default: 0)",
    )
    group.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="sample among the most likely tokens whose probabilities add up to P (default: 1, "
        "all)",
    )
    group.add_argument(
        "--top-k",
        type=int,
        default=0,
        metavar="K",
        help="sample among the K most likely tokens (default: 0, all)",
    )
    group.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="R",
        help="make tokens that already occurred less likely; 1.1 to 1.3 is typical (default: 1, "
        "off)",
    )
    group.add_argument(
        "--seed", type=int, metavar="N", help="make sampling repeatable (default: random)"
    )
    group.add_argument(
        "--stop",
        action="append",
        type=as_text,
        default=[],
        metavar="TEXT",
        help="end the answer where TEXT appears; may be repeated",
    )
    group.add_argument(
        "--no-repetition-guard",
        action="store_true",
        help="do not stop answers that repeat themselves",
    )


def sampling_of(args: argparse.Namespace) -> Sampling:
    """Return the settings of `add_sampling_options`; UsageError for a value out of range."""
    from cogvlm2_lite.sampling import Sampling

    return Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop=tuple(args.stop),
        repetition_guard=not args.no_repetition_guard,
    )
