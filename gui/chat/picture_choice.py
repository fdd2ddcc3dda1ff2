"""The model takes one picture per conversation: ask what to do with a second one, or with many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QMessageBox, QWidget

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import escape_line
from gui.background.decoder import preview
from gui.chat.dropped import is_folder, read_file
from gui.translation import error_text

MOST_CONVERSATIONS = 20
"""With more pictures, only a batch is offered and not one conversation for each."""


class PictureAction(Enum):
    """What the user chose."""

    CANCEL = "cancel"
    NEW = "new"  # a new conversation, for each
    REPLACE = "replace"
    BATCH = "batch"


@dataclass(frozen=True, kw_only=True)
class ReadPictures:
    """Pictures as (name, bytes), and an error message for each file that is not a picture."""

    pictures: tuple[tuple[str, bytes], ...]
    errors: tuple[str, ...]


def read_pictures(files: Sequence[Path]) -> ReadPictures:
    """Read files, and decode each in a child process to check that it is a picture."""
    pictures: list[tuple[str, bytes]] = []
    errors: list[str] = []
    for file in files:
        try:
            data = read_file(file)
            preview(data)
        except CogVLM2LiteError as error:
            name = escape_line(file.name)
            named = "" if name in error.message else f"{name}: "
            errors.append(f"{named}{error_text(error)}")
        else:
            pictures.append((file.name, data))
    return ReadPictures(pictures=tuple(pictures), errors=tuple(errors))


def ask_about_second(parent: QWidget) -> PictureAction:
    """Ask what to do with a second picture."""
    return _ask(
        parent,
        QCoreApplication.translate("Several", "The model takes one picture per conversation."),
        QCoreApplication.translate(
            "Several",
            "A new conversation keeps this one in the list. If you replace the picture, the "
            "earlier answers stay, although they are about the other picture.",
        ),
        (
            (
                QCoreApplication.translate("Several", "New conversation with this picture"),
                PictureAction.NEW,
            ),
            (QCoreApplication.translate("Several", "Replace the picture"), PictureAction.REPLACE),
        ),
    )


def ask_about_many(parent: QWidget, files: Sequence[Path]) -> PictureAction:
    """Ask what to do with several files, or with a folder."""
    folder = any(map(is_folder, files))
    offers = [
        (
            QCoreApplication.translate("Several", "One question about all of them"),
            PictureAction.BATCH,
        )
    ]
    if not folder and len(files) <= MOST_CONVERSATIONS:
        offers.insert(
            0,
            (QCoreApplication.translate("Several", "One conversation for each"), PictureAction.NEW),
        )
    return _ask(
        parent,
        QCoreApplication.translate("Several", "A folder was dropped.")
        if folder
        else QCoreApplication.translate("Several", "{count} files were dropped.").format(
            count=len(files)
        ),
        QCoreApplication.translate("Several", "The model takes one picture per conversation."),
        offers,
    )


def _ask(
    parent: QWidget, text: str, more: str, offers: Sequence[tuple[str, PictureAction]]
) -> PictureAction:
    box = QMessageBox(parent)
    box.setText(text)
    box.setInformativeText(more)
    choices = {
        box.addButton(label, QMessageBox.ButtonRole.AcceptRole): choice for label, choice in offers
    }
    box.addButton(QMessageBox.StandardButton.Cancel)
    box.exec()
    return next((c for b, c in choices.items() if b is box.clickedButton()), PictureAction.CANCEL)
