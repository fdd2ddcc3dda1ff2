"""What can go wrong for a user, as one small tree.

CogVLM2LiteError
├── UsageError            an option or a question that makes no sense
├── ImageError            a picture that can't be opened
├── PromptTooLongError    a question longer than the context
├── CheckpointError       a model folder that is damaged, incomplete or foreign
├── DoesNotFitError       not enough memory or disk for what was asked
├── ConversionError       quantize or verify can't go on
├── DeviceError           a device that is missing or can't do what was asked
└── EngineError           the engine's process ended, or has a fault

Every error carries a sentence that says what happened, with numbers, and a `hint` that says what to
do next. Programs show both and no traceback.
"""

from __future__ import annotations

from typing import Any

from cogvlm2_lite.text import Text, join


class CogVLM2LiteError(Exception):
    """An error whose message is written for the person at the keyboard.

        raise ImageError("{file} has {count} pixels.", hint="Choose {other}.", file=..., ...)

    message  what happened, one sentence, with numbers
    hint     what to do next; may be empty when the message already says it
    param    the option or request field that is at fault, such as "temperature", which the
             templates may name as {param}; None: no single one

    Message and hint are templates that the values fill in; both stay available (Text), so that the
    window can translate them. Without values they are taken as they are, braces included.
    """

    exit_code = 1

    def __init__(
        self, message: str, /, *, hint: str = "", param: str | None = None, **values: object
    ) -> None:
        filled = values if param is None else {"param": param, **values}
        self.message = Text(message, **filled)
        self.hint = Text(hint, **filled)
        self.param = param
        super().__init__(self.message)

    @property
    def text(self) -> Text:
        """The message and the hint together."""
        return join(self.message, self.hint)

    def as_dict(self) -> dict[str, Any]:
        """Return what is written of an error in JSON."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "param": self.param,
        }


class UsageError(CogVLM2LiteError):
    """An option, a question or a combination of them that makes no sense."""

    exit_code = 2


class ImageError(CogVLM2LiteError):
    """A picture that can't be opened: missing, damaged, too large or of an unknown format."""


class PromptTooLongError(CogVLM2LiteError):
    """A single question that, with its picture, is longer than the model's context."""


class CheckpointError(CogVLM2LiteError):
    """A model folder that is damaged, incomplete or not a CogVLM2 model."""


class DoesNotFitError(CogVLM2LiteError):
    """Not enough memory or disk for what was asked; the message names the missing bytes."""


class ConversionError(CogVLM2LiteError):
    """`quantize` or `verify` can't go on; nothing that existed before was harmed."""


class DeviceError(CogVLM2LiteError):
    """A device that is missing, or that can't do what was asked of it."""


class EngineError(CogVLM2LiteError):
    """The process that computes has ended, or has a fault; what it was asked is lost."""
