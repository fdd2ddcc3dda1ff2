"""Who may use the port of `serve` and `mcp --http`: the API key, and the origins of pages."""

from __future__ import annotations

import argparse
import os

from cogvlm2_lite.cli.words import as_text
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.places import expand_home

KEY_VARIABLE = "COGVLM2_LITE_API_KEY"


def add_key_options(group: argparse._ArgumentGroup) -> None:
    """Declare --api-key and --api-key-file."""
    group.add_argument(
        "--api-key",
        type=as_text,
        metavar="KEY",
        help="require this key; other users can see it in `ps`",
    )
    group.add_argument("--api-key-file", metavar="FILE", help="require the key in this file")


def add_origin_option(group: argparse._ArgumentGroup) -> None:
    """Declare --allow-origin."""
    group.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this website use the API, such as http://localhost:3000; may be "
        "repeated",
    )


def read_key(args: argparse.Namespace) -> str:
    """Return the key from the options or the environment; "" without a key."""
    if args.api_key and args.api_key_file:
        raise UsageError("There are two API keys.", hint="Use only --api-key-file.")
    if args.api_key_file:
        try:
            return expand_home(args.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError(
                "The file {file} with the API key can't be read: {why}.",
                hint="Write a key of at least 16 characters to a file, and name it.",
                file=args.api_key_file,
                why=getattr(error, "strerror", None) or "it is not a text in UTF-8",
            ) from error
    return args.api_key or os.environ.get(KEY_VARIABLE, "")
