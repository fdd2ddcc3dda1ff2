"""The argument parser of all commands, and the options that several of them share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cogvlm2_lite.devices import DTYPES
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.places import cache_folder
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import parse_bytes

if TYPE_CHECKING:
    from cogvlm2_lite.sampling import Sampling


class Parser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and reports mistakes as UsageError."""

    def __init__(self, *, usage: str, description: str, epilog: str = "") -> None:
        """Declare a command. usage: its name and what follows, such as "ask MODEL QUESTION"."""
        super().__init__(
            prog=f"cogvlm2-lite {usage.split()[0]}",
            usage=f"cogvlm2-lite {usage}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        sentence = f"{message[:1].upper()}{message[1:]}."  # argparse's own words
        raise UsageError(Text(sentence), hint="See `{command} --help`.", command=self.prog)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse arguments; options may stand anywhere. Raises UsageError for a mistake."""
        args, unknown = self.parse_known_intermixed_args(self._joined(argv))
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = get_close_matches(unknown[0].partition("=")[0], known, n=1)
            raise UsageError(
                "{command} has no option {name!r}."
                if unknown[0].startswith("-")
                else "{command} does not take the argument {name!r}.",
                hint="Did you mean {near}?" if near else "See `{command} --help`.",
                command=self.prog,
                name=unknown[0],
                near="".join(near),
            )
        return args

    def _joined(self, argv: Sequence[str]) -> list[str]:
        """Write "--vram -8GiB" as "--vram=-8GiB", so that it is refused for its sign.

        argparse takes what begins with a minus for an option, unless it is a plain number.
        """
        takes = {o for action in self._actions if action.nargs != 0 for o in action.option_strings}
        words: list[str] = []
        for word in argv:
            if words and words[-1] in takes and word[:1] == "-" and word[1:2].isdecimal():
                words[-1] += f"={word}"
            else:
                words.append(word)
        return words


def add_model_options(parser: Parser) -> None:
    """Declare MODEL and how to run it; the plan on request."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a model folder, as released or made by quantize; `demo` is the small shipped model",
    )
    add_compute_options(parser)
    parser.add_argument(
        "--keep-pictures",
        metavar="SIZE",
        help="keep up to so much of known pictures on disk, so that the next start need not read "
        "them again; one takes 288 MiB with the 19B model (default: none)",
    )
    parser.add_argument(
        "--show-plan", action="store_true", help="print first how much memory each phase takes"
    )


def add_compute_options(parser: Parser) -> None:
    """Declare the device, the number types and the memory; `load_options` reads them.

    A command may declare --parallel, --keep-pictures and --max-megapixels after this.
    """
    parser.set_defaults(parallel=1, keep_pictures=None, max_megapixels=None)
    group = parser.add_argument_group("how to compute")
    group.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto (a GPU if there is one), cpu, cuda or cuda:1",
    )
    group.add_argument("--dtype", default="auto", choices=DTYPES, help="number type of activations")
    group.add_argument(
        "--rope",
        default="reference",
        choices=("reference", "exact"),
        help="token positions rounded as in the released model, or in float32",
    )
    add_memory_options(parser)


def add_memory_options(parser: Parser) -> None:
    """Declare how much memory may be used, and for what."""
    group = parser.add_argument_group("how much memory")
    group.add_argument(
        "--vram",
        metavar="SIZE",
        help="video memory that may be used, like 8GiB; for two GPUs like 8GiB,12GiB "
        "(default: auto, what is free now)",
    )
    group.add_argument(
        "--ram",
        metavar="SIZE",
        help="RAM that may be used, like 16GiB (default: auto, what is free now)",
    )
    group.add_argument(
        "--offload",
        default="auto",
        choices=("auto", "never"),
        help="never refuses a model that does not fit instead of streaming weights",
    )
    group.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens of conversation to make room for (default: the model's maximum)",
    )
    group.add_argument(
        "--kv",
        default="full",
        choices=("full", "int8"),
        help="int8 keeps the conversation's keys and values in 8 bits: about half the memory, and "
        "answers may differ slightly",
    )


def load_options(args: argparse.Namespace, folder: Path) -> LoadOptions:
    """Build the value that opens a model folder from the options of `add_compute_options`.

    Raises UsageError for a size that can't be read or a number of conversations out of range.
    """
    check_parallel(args.parallel)
    kept, megapixels = args.keep_pictures, args.max_megapixels
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
        parallel=args.parallel,
        pictures=None if kept is None else (cache_folder() / "pictures", parse_bytes(kept)),
        max_picture_pixels=DEFAULT_LIMITS.max_pixels
        if megapixels is None
        else int(megapixels * 1e6),
    )


MOST_PARALLEL = 32
"""Conversations at once. The kernels for few rows end there."""


def add_parallel_option(parser: Parser) -> None:
    """Declare how many conversations are answered at once."""
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="conversations that are decoded at once; fewer where memory does not suffice (1)",
    )


def check_parallel(parallel: int) -> None:
    """Raise UsageError for a number of conversations that can't be."""
    if not 1 <= parallel <= MOST_PARALLEL:
        raise UsageError(
            "--parallel must be between 1 and {most}, not {value}.",
            hint="Each conversation needs its own key/value cache; `cogvlm2-lite plan` shows "
            "how large.",
            most=MOST_PARALLEL,
            value=parallel,
        )


def add_picture_options(parser: Parser) -> None:
    """Declare how a picture is opened."""
    parser.add_argument(
        "--as-stored",
        action="store_true",
        help="do not turn photographs upright by their EXIF tag (nor do the released demos)",
    )


def add_sampling_options(parser: Parser) -> None:
    """Declare how answers are made; the defaults are those of the released demos."""
    group = parser.add_argument_group("the answer")
    group.add_argument(
        "--template",
        choices=("chat", "vqa", "base"),
        help="chat; vqa for short answers; base for the bare question (default: the model's own)",
    )
    group.add_argument(
        "--max-new-tokens", type=int, default=2048, metavar="N", help="longest answer (2048)"
    )
    group.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 takes the likeliest token always (default); 0.6 is lively",
    )
    group.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="keep tokens up to this probability"
    )
    group.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="keep the K likeliest tokens; 0: all"
    )
    group.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="R", help="1 is off; 1.1 is mild"
    )
    group.add_argument("--seed", type=int, metavar="N", help="repeat a random answer exactly")
    group.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end the answer where this text appears; may be given several times",
    )
    group.add_argument(
        "--no-repetition-guard", action="store_true", help="let an answer run in circles"
    )


def sampling_of(args: argparse.Namespace) -> Sampling:
    """Build the settings of `add_sampling_options`; UsageError for a value out of range."""
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
