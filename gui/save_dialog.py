"""Asks where to save something, and once what to do if the file exists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QStandardPaths, Qt
from PySide6.QtWidgets import QDialogButtonBox, QFileDialog, QMessageBox, QPushButton, QWidget

from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.files import free_name
from gui.data.saving import How, Kind, name_from, with_suffix
from gui.data.settings import Preferences
from gui.translation import fill

_MOST_LETTERS = 32
"""A longer file name is shortened in the middle on a button."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where and how to save."""

    file: Path
    how: How = How.NEW


def ask_for_target(
    parent: QWidget, settings: Preferences, *, title: str, name: str, kinds: Sequence[Kind]
) -> Target | None:
    """Return where and how to save, or None if the user cancelled.

    title  of the dialog
    name   what the file is about; the suggested name is made from it
    """
    # With a suffix: the dialog would replace what follows a dot in the title.
    suggested = _folder(settings) / (
        name_from(name, QCoreApplication.translate("Saving", "Conversation")) + kinds[0].suffix
    )
    while True:
        filters = ";;".join(kind.filter for kind in kinds)
        # This program asks what to do with an existing file: the dialog does not know the suffix
        # that is added, and it offers only to replace.
        typed, chosen = QFileDialog.getSaveFileName(
            parent, title, str(suggested), filters, kinds[0].filter,
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if not typed:
            return None
        file = with_suffix(Path(typed), chosen, kinds)
        settings.set("export_folder", str(file.parent))
        if not os.path.lexists(file):
            return Target(file=file)
        kind = next((k for k in kinds if file.suffix.lower() in (k.suffix, *k.others)), kinds[0])
        found, again = _ask_about(parent, file, adds=kind.adds)
        if not again:
            return found
        suggested = file


def _folder(settings: Preferences) -> Path:
    """Return the folder that something was saved to last, or the user's documents."""
    last = settings.get("export_folder")
    if last and Path(last).is_dir():
        return Path(last)
    documents = QStandardPaths.StandardLocation.DocumentsLocation
    found = Path(QStandardPaths.writableLocation(documents) or Path.home())
    return found if found.is_dir() else Path.home()


def _ask_about(parent: QWidget, file: Path, *, adds: bool) -> tuple[Target | None, bool]:
    """Ask what to do with an existing file. Returns the target, and whether to ask for a name."""
    free = free_name(file)
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle(QCoreApplication.translate("Saving", "The file exists"))
    box.setText(
        fill(
            QCoreApplication.translate("Saving", "{file} exists already."),
            file=escape_line(file.name),
        )
    )
    box.setInformativeText(
        fill(
            QCoreApplication.translate("Saving", "It is in {folder}. What should happen?"),
            folder=escape_line(str(file.parent)),
        )
    )
    role = QMessageBox.ButtonRole
    keep = box.addButton(
        fill(
            QCoreApplication.translate("Saving", "Keep it, save as {file}"),
            file=_shortened(free.name),
        ),
        role.AcceptRole,
    )
    add = (
        box.addButton(QCoreApplication.translate("Saving", "Add at its end"), role.AcceptRole)
        if adds
        else None
    )
    replace = box.addButton(
        QCoreApplication.translate("Saving", "Replace it"), role.DestructiveRole
    )
    other = box.addButton(
        QCoreApplication.translate("Saving", "Other name or folder…"), role.ActionRole
    )
    cancel = box.addButton(QCoreApplication.translate("Saving", "Cancel"), role.RejectRole)
    # In a row, long names and large letters would be wider than the widest message box of Qt.
    for buttons in box.findChildren(QDialogButtonBox):
        buttons.setOrientation(Qt.Orientation.Vertical)
    box.setDefaultButton(keep)
    box.setEscapeButton(cancel)
    box.exec()
    answers: dict[QPushButton | None, Target] = {
        keep: Target(file=free),
        replace: Target(file=file, how=How.REPLACE),
    }
    if add is not None:
        answers[add] = Target(file=file, how=How.ADD)
    clicked = box.clickedButton()
    box.deleteLater()
    if clicked is other:
        return None, True
    return next((target for button, target in answers.items() if button is clicked), None), False


def _shortened(name: str) -> str:
    """Return a name for a button; its start and its suffix stay."""
    shown = escape_line(name)
    if len(shown) <= _MOST_LETTERS:
        return shown
    return f"{shown[: _MOST_LETTERS - 14]}…{shown[-12:]}"
