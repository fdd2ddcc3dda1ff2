"""The errors for users.

CogVLM2LiteError
├── UsageError            an invalid option or question
├── ImageError            a picture that can't be opened
│   └── TooManyPixelsError  a picture above the limit
├── PromptTooLongError    a question longer than the context
├── CheckpointError       a model folder that is damaged, incomplete or of another model
│   └── NoFolderError     a model folder that does not exist
├── AdapterError          an adapter (LoRA) that is damaged, not supported or of another model
├── DoesNotFitError       not enough memory or disk space
├── ConversionError       quantize or verify can't continue
├── DeviceError           a device that is missing or can't be used
├── DataError             benchmark files that are missing, damaged or without answers
├── FolderError           a folder of this program that can't be found or written
├── OutputError           standard output that can't be written
└── EngineError           the engine's process ended or failed

Every error has a message that describes what happened, with numbers, and a `hint` about what to do
next. Programs show both, without a traceback.
"""

from __future__ import annotations

from typing import Any

from cogvlm2_lite.text import Text, join


class CogVLM2LiteError(Exception):
    """An error with a message for the user.

        raise ImageError("{file} has {count} pixels.", hint="Choose {other}.", file=..., ...)

    message  what happened, one sentence, with numbers
    hint     what to do next; may be empty
    param    the option or request field at fault, such as "temperature", which the templates can
             use as {param}; None: no single one

    Message and hint are templates, which are filled with the values. Both keep their template
    (Text), so that the window can translate them. Without values, braces are ordinary characters.
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
        """Return the fields of an error in JSON."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "param": self.param,
        }


class UsageError(CogVLM2LiteError):
    """An invalid option, question or combination of them."""

    exit_code = 2


class ImageError(CogVLM2LiteError):
    """A picture that can't be opened: missing, damaged, too large or of an unknown format."""


class TooManyPixelsError(ImageError):
    """A picture that has more pixels than the limit."""


class PromptTooLongError(CogVLM2LiteError):
    """A single question that, with its picture, is longer than the model's context."""


class CheckpointError(CogVLM2LiteError):
    """A model folder that is damaged, incomplete or not a CogVLM2 model."""


class NoFolderError(CheckpointError):
    """A model folder that does not exist: a wrong argument, as for `quantize` and `verify`."""

    exit_code = UsageError.exit_code


class AdapterError(CogVLM2LiteError):
    """An adapter that is damaged, of a kind that is not supported, or of another model."""


class DoesNotFitError(CogVLM2LiteError):
    """Not enough memory or disk space; the message names the missing bytes."""


class ConversionError(CogVLM2LiteError):
    """`quantize` or `verify` can't continue; existing files are unchanged."""


class DeviceError(CogVLM2LiteError):
    """A device that is missing or can't be used as requested."""


class DataError(CogVLM2LiteError):
    """A benchmark's files that are missing, damaged or without answers."""


class FolderError(CogVLM2LiteError):
    """A folder of this program that can't be found or written; the hint names its variable."""


class OutputError(CogVLM2LiteError):
    """Standard output is closed or can't be written, so the result can't be shown."""


class EngineError(CogVLM2LiteError):
    """The engine's process ended or failed; its request is lost."""
