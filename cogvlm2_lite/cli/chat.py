"""`cogvlm2-lite chat`: a conversation about one picture, in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from cogvlm2_lite import __version__
from cogvlm2_lite.cli.answers import (
    AnswerView,
    Loader,
    describe,
    load_model,
    open_and_warm,
    show_notices,
)
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.interrupts import stopped_by_interrupt
from cogvlm2_lite.cli.parser import (
    Parser,
    add_draft_option,
    add_model_options,
    add_picture_options,
    add_sampling_options,
    load_options,
    sampling_of,
)
from cogvlm2_lite.cli.transcript import Conversation, Exchange, save_transcript
from cogvlm2_lite.cli.words import dropped_path, file_in, line_as_text, looks_like_path
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import CogVLM2LiteError, OutputError, UsageError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.forecast.table import draw_table
from cogvlm2_lite.inputs.draft_text import open_draft_text
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.adapter_choice import BASE, unknown_adapter
from cogvlm2_lite.worker.client import LocalEngine

_PROMPT = "you> "

HELP = """\
/image FILE   open another picture (or drag a file into the terminal)
/image        show which picture the conversation is about
/page N       show page N of a TIFF file, or frame N of an animation
/clear        start a new conversation about the same picture
/save FILE    write all conversations of this session to FILE (.md or .json)
/adapter NAME let this adapter answer from now on; `base` is the model without one
/adapter      list the adapters (see --adapter)
/plan         show the memory plan
/help         show this text
/quit         end the chat (also Ctrl-D)

The Up key recalls earlier questions. Ctrl-C stops the answer, not the program.
"""

_EPILOG = f"""\
commands in the chat:
{HELP}
The model takes one picture per conversation; a second picture starts a new conversation.

examples:
  cogvlm2-lite chat my-model --image photo.jpg
  cogvlm2-lite chat demo
"""


def build_parser() -> Parser:
    """Declare the options of `chat`."""
    parser = Parser(
        usage="chat MODEL [--image FILE] [options]",
        description="Hold a conversation about a picture in the terminal.",
        epilog=_EPILOG,
    )
    add_model_options(parser, one_adapter=False)
    parser.add_argument("--image", metavar="FILE", help="the picture to ask about")
    add_picture_options(parser)
    add_draft_option(parser)
    add_sampling_options(parser)
    return parser


def main(
    argv: Sequence[str],
    *,
    load: Loader = load_model,
    console: Console | None = None,
    read_line: Callable[[str], str] | None = None,
) -> int:
    """Run `chat` and return its exit code.

    read_line  shows a prompt and returns a line; None: from standard input
    """
    args = build_parser().read(argv)
    console = console or Console()
    first = Conversation()
    if args.image is not None:
        picture = dropped_path(args.image)
        image = open_image(picture, upright=not args.as_stored, page=args.page)
        first = Conversation(image=image, path=picture)
    elif args.page is not None:
        raise UsageError("--page needs a picture.", hint="Add --image FILE.")
    # Check the options before loading, which takes minutes for a large model.
    sampling = sampling_of(args)
    draft = "" if args.draft_text is None else open_draft_text(dropped_path(args.draft_text))
    options = load_options(args, model_folder(args.model))
    model = open_and_warm(load, options, console)
    session = Session(model, _name_of(args.model), args, sampling, console, first, draft)
    session.greet()
    _turn_on_line_editing()
    session.run(read_line or _read_line)
    return 0


def _read_line(prompt: str) -> str:
    # input("") writes an empty text, which a full disk reports as an error.
    return input(prompt) if prompt else input()


def _name_of(model: str) -> str:
    """Return the name of a model's folder, as it can be shown."""
    name = Path(model).name
    return escape_line(name if name not in ("", "..") else Path(model).resolve().name)


class Session:
    """A model, its conversations so far, and the terminal."""

    def __init__(
        self,
        model: LocalEngine,
        model_name: str,
        args: argparse.Namespace,
        sampling: Sampling,
        console: Console,
        first: Conversation,
        draft_text: str = "",
    ) -> None:
        self._model = model
        self._model_name = model_name
        self._args = args
        self._sampling = sampling
        self._console = console
        self._conversations = [first]
        self._draft_text = draft_text
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/page": self._page,
            "/clear": self._clear,
            "/save": self._save,
            "/adapter": self._choose_adapter,
            "/plan": self._show_plan,
            "/help": self._help,
        }

    @property
    def conversation(self) -> Conversation:
        """The current conversation; earlier ones are kept for /save."""
        return self._conversations[-1]

    def greet(self) -> None:
        """Show the model, the picture and, with --show-plan, the memory plan."""
        image = self.conversation.image
        self._console.remark(f"CogVLM2 Lite {__version__} · {self._model_name}")
        for remark in self._model.remarks:
            self._console.remark(remark)
        if self._args.show_plan:
            self._console.remark(draw_table(self._model.plan))
        if self._model.adapters:
            self._show_adapters()
        if image is None:
            self._console.remark("No picture yet. /image FILE opens one.")
        else:
            self._show_picture(image)
        self._console.remark(
            "/help lists the commands. Ctrl-C stops an answer, /quit ends the chat."
        )

    def run(self, read_line: Callable[[str], str]) -> None:
        """Read lines and act on them until the user quits."""
        prompt = _PROMPT if sys.stdin.isatty() else ""
        while True:
            try:
                line = read_line(prompt)
            except EOFError:
                if prompt:
                    self._console.line()
                return
            except KeyboardInterrupt:
                self._console.line()
                self._console.remark("/quit or Ctrl-D ends the chat.")
                continue
            except OSError as error:
                raise UsageError(
                    "Standard input can't be read: {why}.",
                    hint="Check what it is redirected from.",
                    why=error.strerror,
                ) from error
            if line.strip() in ("/quit", "/exit", "/q"):
                return
            try:
                self._act(line)
            except OutputError:
                raise
            except CogVLM2LiteError as error:
                self._console.error(error.message, error.hint)

    def _act(self, line: str) -> None:
        file = file_in(line)
        word, _, rest = line.lstrip().partition(" ")
        if not word.strip() and file is None:
            return
        if file is not None:
            self._look_at(file)
        elif word.strip() in self._commands:
            self._commands[word.strip()](rest)
        elif looks_like_path(line):
            self._look_at(dropped_path(line))
        elif word.startswith("/"):
            near = get_close_matches(word, self._commands, n=1)
            raise UsageError(
                "Unknown command {name}.",
                hint="Did you mean {near}?" if near else "/help lists the commands.",
                name=escape_line(word.strip()),
                near="".join(near),
            )
        else:
            self._ask(line_as_text(line.strip()))

    def _ask(self, question: str) -> None:
        asked_at = datetime.now().astimezone()
        cancel, adapter = Cancel(), self._model.adapter
        events = self._model.answer(
            question,
            self.conversation.image,
            self.conversation.history,
            sampling=self._sampling,
            template=self._args.template,
            cancel=cancel,
            draft_text=self._draft_text,
        )
        view = AnswerView(self._console, timings=self._console.err.isatty())
        with stopped_by_interrupt(cancel):
            finished = view.show(events)
        if self._console.is_interactive:
            self._console.line()
        # The released template puts one space before an answer of the history; it must not be two.
        answer = finished.text.strip()
        if answer:
            self.conversation.exchanges.append(
                Exchange(
                    question=question,
                    answer=answer,
                    asked_at=asked_at,
                    reason=finished.reason,
                    adapter=adapter,
                )
            )

    def _image(self, rest: str) -> None:
        image = self.conversation.image
        if rest.strip():
            self._look_at(dropped_path(rest))
        else:
            self._console.remark(describe(image) if image else "There is no picture yet.")

    def _page(self, rest: str) -> None:
        current, rest = self.conversation, rest.strip()
        if current.image is None or current.path is None:
            raise UsageError("There is no picture yet.", hint="/image FILE opens one.")
        if not rest:
            self._console.remark(f"Page {current.image.page} of {current.image.pages}.")
        elif rest.isdecimal():
            self._look_at(current.path, int(rest))
        else:
            raise UsageError(
                "{text} is not the number of a page.", hint="For example /page 2", text=rest
            )

    def _show_picture(self, image: OpenedImage) -> None:
        self._console.remark(describe(image))
        show_notices(image.notices, self._console)
        if image.pages > 1:
            self._console.remark("/page N opens another one.")

    def _look_at(self, path: Path, page: int | None = None) -> None:
        image = open_image(path, upright=not self._args.as_stored, page=page)
        current = self.conversation
        if current.image is not None and current.exchanges:
            if image.sha256 == current.image.sha256:
                self._console.remark(f"The conversation is already about {current.image.name}.")
                return
            self._console.remark(
                "The model takes one picture per conversation, so a new conversation starts here.\n"
                "The model does not see the earlier turns."
            )
            self._conversations.append(Conversation(image=image, path=path))
        else:
            current.image, current.path = image, path
        self._show_picture(image)

    def _clear(self, rest: str) -> None:
        image, path = self.conversation.image, self.conversation.path
        if self.conversation.exchanges:
            self._conversations.append(Conversation(image=image, path=path))
        about = f" about {image.name}" if image else ""
        self._console.remark(f"A new conversation{about}.")

    def _save(self, rest: str) -> None:
        if not rest.strip():
            raise UsageError("/save needs a file name.", hint="For example /save chat.md")
        path = dropped_path(rest)
        count = save_transcript(
            path, self._conversations, model=self._model_name, replace=path in self._saved
        )
        self._saved.add(path)
        turns = "1 turn" if count == 1 else f"{count} turns"
        self._console.remark(f"Saved {turns} to {escape_line(str(path))}.")

    def _choose_adapter(self, rest: str) -> None:
        name = rest.strip()
        if name:
            if name != BASE and name not in self._model.adapters:
                raise unknown_adapter(name, self._model.adapters)
            self._model.adapter = None if name == BASE else name
        self._show_adapters()

    def _show_adapters(self) -> None:
        adapters, current = self._model.adapters, self._model.adapter
        if not adapters:
            self._console.remark("No adapter is loaded; --adapter FOLDER loads one at the start.")
            return
        names = ", ".join(escape_line(name) for name in (BASE, *adapters))
        answering = BASE if current is None else current
        self._console.remark(f"Adapter: {escape_line(answering)} (of {names})")

    def _show_plan(self, rest: str) -> None:
        self._console.remark(draw_table(self._model.plan))

    def _help(self, rest: str) -> None:
        self._console.remark(HELP.rstrip())


def _turn_on_line_editing() -> None:
    """Turn on line editing and history in input(); Windows has its own and no readline."""
    try:
        import readline
    except ImportError:
        return
    readline.set_auto_history(True)
