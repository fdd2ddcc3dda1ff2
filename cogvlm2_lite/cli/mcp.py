"""`cogvlm2-lite mcp`: tools for programs that speak the Model Context Protocol."""

from __future__ import annotations

from collections.abc import Sequence

from cogvlm2_lite import __version__
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
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.places import expand_home

_EPILOG = f"""\
An MCP client starts this command and talks to it over standard input and output. With --http the
client connects to http://127.0.0.1:8001/mcp instead; only this computer can reach it. An API key is
required if there is one, from --api-key-file, --api-key or the environment variable
{KEY_VARIABLE}. See docs/mcp.md.

The tools are ask_picture, extract and list_pictures. They open only files in the folders that
--folder names, and change nothing.

examples:
  cogvlm2-lite mcp my-model --folder ~/Pictures --folder ~/Documents
  cogvlm2-lite mcp demo --folder . --http --port 8080
"""


def build_parser() -> Parser:
    """Declare the options of `mcp`."""
    parser = Parser(
        usage="mcp MODEL --folder FOLDER [options]",
        description="Let programs with an MCP client ask about pictures in some folders.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or `demo`")
    parser.add_argument(
        "--folder",
        action="append",
        default=[],
        metavar="FOLDER",
        help="clients may use the pictures in this folder and its subfolders; may be repeated",
    )
    add_compute_options(parser)
    add_adapter_options(parser, one=False)
    add_parallel_option(parser)
    add_speculation_option(parser)
    group = parser.add_argument_group("network and access")
    group.add_argument(
        "--http",
        action="store_true",
        help="serve streamable HTTP on this computer instead of standard input and output",
    )
    group.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="port to listen on with --http; 0 picks a free one (default: 8001)",
    )
    add_key_options(group)
    add_origin_option(group)
    return parser


def main(argv: Sequence[str], *, console: Console | None = None) -> int:
    """Run `mcp` and return its exit code."""
    args = build_parser().read(argv)
    console = console or Console()
    with needs_extra("mcp"):
        from cogvlm2_lite.mcp_server.run import Options, serve_http, serve_stdio
    from cogvlm2_lite.server.guard import Access

    if not args.folder:
        raise UsageError(
            "No folder is named, so no picture could be used.",
            hint="Add --folder FOLDER with the folder that contains the pictures.",
        )
    of_http = (args.port is not None, args.api_key, args.api_key_file, args.allow_origin)
    if not args.http and any(of_http):
        raise UsageError(
            "--port, --allow-origin and the API key are for --http.", hint="Add --http."
        )
    port = 8001 if args.port is None else args.port
    if not 0 <= port <= 65535:
        raise UsageError("--port must be between 0 and 65535, not {value}.", value=port)

    options = Options(
        load=load_options(args, model_folder(args.model).resolve()),
        folders=tuple(expand_home(folder) for folder in args.folder),
        access=Access(key=read_key(args) if args.http else "", origins=tuple(args.allow_origin)),
        version=__version__,
        port=port,
        on_remark=console.remark,  # standard output carries the protocol
    )
    if not args.http:
        serve_stdio(options)
        return 0

    def show_address(address: str) -> None:
        console.remark(f"MCP: {address}  Ctrl-C stops the server.")

    serve_http(options, on_listening=show_address)
    return 0
