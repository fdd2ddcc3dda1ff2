"""Loads a model and shows its answers, for ask, chat and demo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.engine.quick_start import open_quickly
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import (
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    PictureOpened,
    Prefilled,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TurnsDropped,
)
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.inputs.image import OpenedImage
from cogvlm2_lite.text import Text, with_templates
from cogvlm2_lite.units import format_bytes, format_seconds
from cogvlm2_lite.worker.client import LocalEngine

if TYPE_CHECKING:
    from cogvlm2_lite.engine.model import Model

_PHASES = {
    "load": "Loading the model",
    "encode": "Encoding the picture",
    "prefill": "Reading the prompt",
    "decode": "Next token",
}


Loader = Callable[[LoadOptions], LocalEngine]
"""Opens a model folder; tests pass one that opens a scripted model."""


def load_model(options: LoadOptions) -> Model:
    """Open a model folder with the engine; imports torch."""
    return open_quickly(options)


def open_and_warm(
    load: Loader, options: LoadOptions, console: Console, *, silent: bool = False
) -> LocalEngine:
    """Open a model and load what every token needs, and show the progress."""
    if not silent:
        console.status(_PHASES["load"])
    try:
        model = load(options)
        for step in model.warm_up():
            if not silent:
                console.status(_progress(step))
    finally:
        console.status("")
    return model


class AnswerView:
    """Shows the events of one answer.

    The answer goes to standard output; progress and remarks go to standard error, progress only on
    a terminal.
    """

    def __init__(
        self, console: Console, *, timings: bool, label: str = "", quiet: bool = False
    ) -> None:
        """Prepare to show an answer.

        timings  print a line of sizes and rates at the end
        label    printed before the first word of the answer
        quiet    print only the answer
        """
        self._console = console
        self._timings = timings
        self._label = label
        self._quiet = quiet
        self._started = False
        self._noticed = False
        self._delayed: list[str] = []
        self._encoded: ImageEncoded | None = None
        self._prefilled: Prefilled | None = None

    def show(self, events: Iterator[Event]) -> Finished:
        """Show events until the answer is finished; end the line also if it is interrupted."""
        try:
            for event in events:
                self._show(event)
                if isinstance(event, Finished):
                    return event
        finally:
            self._console.status("")
            self._end_line()
        raise AssertionError("an answer ends with Finished")

    def _show(self, event: Event) -> None:
        match event:
            case Progress():
                if self._quiet:
                    pass
                elif self._started:
                    self._console.aside(f" {event.done / event.total:.0%}", _progress(event))
                else:
                    self._console.status(_progress(event))
            case Streaming():
                if not self._quiet:
                    self._console.remark_once(streaming(event))
            case TurnsDropped():
                turns = "turn was" if event.count == 1 else f"{event.count} turns were"
                self._remark(
                    "The conversation is longer than the model's context, so the oldest "
                    f"{turns} left out."
                )
            case ImageEncoded():
                self._encoded = event
            case Prefilled():
                self._prefilled = event
            case TextDelta():
                self._text(event.text)
            case Notice():
                self._end_line()
                self._noticed = True
                self._remark(event.text)
            case Replanned():
                self._remark_later(event.text)
            case Finished():
                self._finish(event)

    def _remark_later(self, text: str) -> None:
        """Print a remark, but not in the middle of the answer's text."""
        if self._started:
            self._delayed.append(text)
        else:
            self._remark(text)

    def _remark(self, text: str) -> None:
        if not self._quiet:
            self._console.remark(text)

    def _text(self, text: str) -> None:
        # Most answers of the model begin with the space that follows "Answer:".
        text = text if self._started else text.lstrip()
        if text:
            self._console.write(text if self._started else self._label + text)
            self._started = True

    def _end_line(self) -> None:
        if self._started:
            self._console.line()
        self._started = False

    def _finish(self, event: Finished) -> None:
        self._end_line()
        for text in self._delayed:
            self._remark(text)
        if event.reason is FinishReason.CANCELLED:
            self._remark("(stopped)")
        elif event.reason is FinishReason.LENGTH and not self._noticed:
            limit = event.completion_tokens
            self._remark(f"(cut off after {limit} tokens; --max-new-tokens sets the limit)")
        elif not event.text.strip():
            self._remark("(The answer is empty.)")
        if self._timings:
            self._remark(timings(event, self._encoded, self._prefilled))


def _progress(event: Progress) -> str:
    held = f", {format_bytes(event.held_bytes)} in memory" if event.held_bytes else ""
    share = f"{event.done}/{event.total} ({event.done / event.total:.0%})"
    return f"{_PHASES[event.phase]} {share}{held}"


def streaming(event: Streaming) -> str:
    """Return a sentence about the weights that this answer streams."""
    uses = (
        (event.picture_bytes, "for each new picture"),
        (event.prompt_bytes, "for each prompt"),
        (event.token_bytes, "for each token"),
    )
    parts = [f"{format_bytes(count)} {when}" for count, when in uses if count]
    return f"Not all weights fit in memory. Streamed: {', '.join(parts)}."


def timings(finished: Finished, encoded: ImageEncoded | None, prefilled: Prefilled | None) -> str:
    """Return the sizes and times of an answer in one line."""
    parts = []
    if encoded is not None:
        time = "cached" if encoded.reused else format_seconds(encoded.seconds)
        parts.append(f"picture {time}")
    if prefilled is not None:
        parts.append(f"prompt {prefilled.tokens} tokens in {format_seconds(prefilled.seconds)}")
    count = finished.completion_tokens
    rate = f" at {finished.tokens_per_s:.1f}/s" if finished.tokens_per_s else ""
    parts.append(f"answer {count} token{'' if count == 1 else 's'}{rate}")
    if finished.accepted_tokens:
        parts.append(f"{finished.accepted_tokens} of {finished.draft_tokens} draft tokens accepted")
    return "  " + " · ".join(parts)


def event_json(event: Event, **more: object) -> str:
    """Return an event as one line of JSON: {"event": "text_delta", "text": ...}.

    more  fields to add
    """
    values = msgspec.to_builtins(event, enc_hook=str)
    # A Text stays a Text, so that its template is written, too.
    values |= {k: v for k, v in structs.asdict(event).items() if isinstance(v, Text)}
    if isinstance(event, PictureOpened):
        values["notices"] = list(event.notices)
    if isinstance(event, Finished):
        values["tokens_per_s"] = event.tokens_per_s
    values |= more
    return to_json(with_templates(values))


def error_json(error: CogVLM2LiteError) -> str:
    """Return an error as one line of JSON, in the form that quantize also uses."""
    return to_json(with_templates({"event": "error", **error.as_dict()}))


def describe(image: OpenedImage) -> str:
    """Return a picture's name, size and format, and the page of several."""
    page = f", page {image.page} of {image.pages}" if image.pages > 1 else ""
    return f"{image.name}, {image.width} x {image.height} {image.format}{page}"


def show_notices(notices: Iterable[Text], console: Console) -> None:
    """Print what a person should know of how a picture was read, to standard error."""
    for notice in notices:
        console.remark(notice)


def opened_json(image: OpenedImage, notices: Iterable[Text]) -> dict[str, object]:
    """Return the fields of a picture in JSON: its page and the notices."""
    return {"page": image.page, "pages": image.pages, "notices": list(notices)}
