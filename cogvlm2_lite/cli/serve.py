"""`cogvlm2-lite serve`: OpenAI's API and a chat page on this computer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress

from cogvlm2_lite.cli.api_key import KEY_VARIABLE, add_key_options, add_origin_option, read_key
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.extras import needs_extra
from cogvlm2_lite.cli.parser import (
    Parser,
    add_adapter_options,
    add_compute_options,
    add_parallel_option,
    add_speculation_option,
    load_options,
)
from cogvlm2_lite.cli.words import as_text
from cogvlm2_lite.demo.shipped import DEMO_WORD, model_folder
from cogvlm2_lite.errors import OutputError, UsageError
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS

_EPILOG = f"""\
The chat page is at http://127.0.0.1:8000, OpenAI's API at http://127.0.0.1:8000/v1. By default only
this computer can reach the server. Any other --host requires an API key, from --api-key-file, from
--api-key or from the environment variable {KEY_VARIABLE}. See docs/server.md.

examples:
  cogvlm2-lite serve my-model
  cogvlm2-lite serve demo --port 8080
  cogvlm2-lite serve my-model --host 0.0.0.0 --api-key-file key.txt
"""


def build_parser() -> Parser:
    """Declare the options of `serve`."""
    parser = Parser(
        usage="serve MODEL [options]",
        description="Serve OpenAI's API and a chat page on this computer.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or `demo`")
    add_compute_options(parser)
    add_adapter_options(parser, one=False)
    add_parallel_option(parser)
    add_speculation_option(parser)
    group = parser.add_argument_group("network and access")
    group.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1)",
    )
    group.add_argument(
        "--port",
        type=int,
        default=8000,
        metavar="N",
        help="port to listen on; 0 picks a free one (default: 8000)",
    )
    add_key_options(group)
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="accept requests for this host name; may be repeated",
    )
    add_origin_option(group)
    group.add_argument(
        "--allow-remote-images",
        action="store_true",
        help="fetch pictures from public http(s) addresses that requests name (never files or "
        "addresses of this computer and its network)",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="reject requests with fields or values that this server does not have, instead of "
        "ignoring them",
    )
    group.add_argument(
        "--pictures",
        choices=("newest", "sheet", "refuse"),
        default="newest",
        help="what to do with several pictures in one conversation: use the newest one, put up to "
        "nine on one sheet with numbers, or refuse the request (default: newest)",
    )
    _add_limits(parser)
    return parser


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--name",
        type=as_text,
        metavar="TEXT",
        help="name of the model in the API (default: the folder's name)",
    )
    group.add_argument(
        "--max-waiting",
        type=int,
        default=64,
        metavar="N",
        help="most requests that may wait (default: 64)",
    )
    group.add_argument(
        "--max-answer-tokens",
        type=int,
        default=8192,
        metavar="N",
        help="most tokens of an answer (default: 8192)",
    )
    group.add_argument(
        "--max-answer-seconds",
        type=float,
        default=1800.0,
        metavar="S",
        help="most seconds of an answer (default: 1800)",
    )
    group.add_argument(
        "--max-megapixels",
        type=float,
        metavar="M",
        help="most megapixels of a picture (default: as many as `ask` takes, "
        f"{DEFAULT_LIMITS.max_pixels / 1e6:.0f})",
    )


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `serve` and return its exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    with needs_extra("server"):
        from cogvlm2_lite.server.run import Options, serve
    from cogvlm2_lite.server.guard import Access
    from cogvlm2_lite.server.limits import Limits

    _check_limits(args)
    folder = model_folder(args.model)
    options = Options(
        load=load_options(args, folder.resolve()),
        model=args.name or (DEMO_WORD if args.model == DEMO_WORD else folder.resolve().name),
        access=Access(
            host=args.host,
            key=read_key(args),
            names=tuple(name.lower() for name in args.allow_host),
            origins=tuple(args.allow_origin),
        ),
        port=args.port,
        limits=Limits(
            answer_tokens=args.max_answer_tokens,
            answer_s=args.max_answer_seconds,
            remote_images=args.allow_remote_images,
            strict=args.strict,
            pictures=args.pictures,
        ),
        max_waiting=args.max_waiting,
    )

    def show(line: str) -> None:
        # The server also runs where nobody reads its output any more.
        with suppress(BrokenPipeError, OutputError):
            console.line(line)

    def show_address(address: str) -> None:
        show(f"Chat page: {address}  API: {address}/v1  Ctrl-C stops the server.")
        show(f"Loading {options.model}.")

    serve(options, on_listening=show_address, on_remark=show)
    return 0


def _check_limits(args: argparse.Namespace) -> None:
    for name in ("max_waiting", "max_answer_tokens", "max_answer_seconds", "max_megapixels"):
        value = getattr(args, name)
        if value is not None and not 0 < value < 1e9:
            raise UsageError("--{name} must be above 0.", name=name.replace("_", "-"))
    if not 0 <= args.port <= 65535:
        raise UsageError("--port must be between 0 and 65535, not {value}.", value=args.port)
