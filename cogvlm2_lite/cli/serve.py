"""`cogvlm2-lite serve`: OpenAI's API and a web page on this machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import Parser, add_compute_options, add_parallel_option, load_options
from cogvlm2_lite.demo.shipped import DEMO_WORD, model_folder
from cogvlm2_lite.errors import UsageError

KEY_VARIABLE = "COGVLM2_LITE_API_KEY"
_EPILOG = f"""\
examples:
  cogvlm2-lite serve my-model
  cogvlm2-lite serve demo --port 8080
  cogvlm2-lite serve my-model --host 0.0.0.0 --api-key-file key.txt

Programs that speak OpenAI's API use http://127.0.0.1:8000/v1, people the page
http://127.0.0.1:8000. The server can be reached from this machine only, unless
--host says otherwise, which asks for a key. The key may also stand in the
environment variable {KEY_VARIABLE}. See docs/server.md.
"""


def build_parser() -> Parser:
    """Declare the options of `serve`."""
    parser = Parser(
        usage="serve MODEL [options]",
        description="Serve OpenAI's API and a web page to programs and browsers on this machine.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or `demo`")
    add_compute_options(parser)
    add_parallel_option(parser)
    group = parser.add_argument_group("who may ask")
    group.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (127.0.0.1)"
    )
    group.add_argument("--port", type=int, default=8000, metavar="N", help="8000; 0: a free one")
    group.add_argument(
        "--api-key", metavar="KEY", help="ask for this key; other users can see it in `ps`"
    )
    group.add_argument("--api-key-file", metavar="FILE", help="ask for the key in this file")
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name of this machine that requests may use",
    )
    group.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a website whose pages may use the API, such as http://localhost:3000",
    )
    group.add_argument(
        "--allow-remote-images",
        action="store_true",
        help="fetch pictures that a request names by a public http(s) address (never: files, "
        "addresses of this machine or its network)",
    )
    _add_limits(parser)
    return parser


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--name", metavar="TEXT", help="what clients call the model (default: the folder's name)"
    )
    group.add_argument(
        "--max-waiting", type=int, default=64, metavar="N", help="requests that may wait (64)"
    )
    group.add_argument(
        "--max-answer-tokens", type=int, default=8192, metavar="N", help="longest answer (8192)"
    )
    group.add_argument(
        "--max-answer-seconds", type=float, default=1800.0, metavar="S", help="then it ends (1800)"
    )
    group.add_argument(
        "--max-megapixels", type=float, default=60.0, metavar="M", help="largest picture (60)"
    )


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `serve`; gives the exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    try:
        from cogvlm2_lite.server.run import Options, serve
    except ModuleNotFoundError as error:
        raise UsageError(
            "The server needs the package {package}, which is not installed.",
            hint='Install it: pip install "cogvlm2-lite[server]"',
            package=error.name,
        ) from None
    from cogvlm2_lite.server.guard import Access
    from cogvlm2_lite.server.limits import Limits

    _check_limits(args)
    folder = model_folder(args.model)
    options = Options(
        load=load_options(args, folder.resolve()),
        model=args.name or (DEMO_WORD if args.model == DEMO_WORD else folder.resolve().name),
        access=Access(
            host=args.host,
            key=_key(args),
            names=tuple(name.lower() for name in args.allow_host),
            origins=tuple(args.allow_origin),
        ),
        port=args.port,
        limits=Limits(
            answer_tokens=args.max_answer_tokens,
            answer_s=args.max_answer_seconds,
            remote_images=args.allow_remote_images,
        ),
        most_waiting=args.max_waiting,
    )

    def tell(address: str) -> None:
        console.line(f"The page: {address}  The API: {address}/v1  Ctrl-C stops the server.")

    serve(options, on_listening=tell, on_remark=console.line)
    return 0


def _check_limits(args: argparse.Namespace) -> None:
    for name in ("max_waiting", "max_answer_tokens", "max_answer_seconds", "max_megapixels"):
        if not 0 < getattr(args, name) < 1e9:
            raise UsageError("--{name} must be above 0.", name=name.replace("_", "-"))
    if not 0 <= args.port <= 65535:
        raise UsageError("--port must be between 0 and 65535, not {value}.", value=args.port)


def _key(args: argparse.Namespace) -> str:
    """Read the key from where it was given; "" when nowhere."""
    if args.api_key and args.api_key_file:
        raise UsageError("There are two API keys.", hint="Use --api-key-file alone.")
    if args.api_key_file:
        try:
            return Path(args.api_key_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError(
                "The file with the API key can't be read: {why}.", why=error
            ) from error
    return args.api_key or os.environ.get(KEY_VARIABLE, "")
