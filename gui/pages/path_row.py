"""A row of a form for a path: its name, a field, and a button that asks for a file or folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QFileDialog, QGridLayout, QLabel, QLineEdit, QMenu, QPushButton

Ask = Callable[[QLineEdit, str], None]
"""Lets the user choose a path for a field. The text is the title of the dialog."""


def add_path_row(
    grid: QGridLayout, row: int, label: str, title: str, *choices: tuple[str, Ask]
) -> QLineEdit:
    """Add a row, with a button that asks for a folder, or a menu of choices. Return its field."""
    text = QLabel(label)
    grid.addWidget(text, row, 0)
    line = QLineEdit()
    text.setBuddy(line)
    line.setAccessibleName(label)
    grid.addWidget(line, row, 1)
    button = QPushButton(QCoreApplication.translate("PathRow", "Choose…"))
    button.setAccessibleName(title)
    if choices:
        menu = QMenu(button)
        for words, ask in choices:
            menu.addAction(words, partial(ask, line, title))
        button.setMenu(menu)
    else:
        button.clicked.connect(lambda _=False: ask_for_folder(line, title))
    grid.addWidget(button, row, 2)
    return line


def ask_for_folder(line: QLineEdit, title: str) -> None:
    """Let the user choose a folder."""
    folder = QFileDialog.getExistingDirectory(line, title, line.text())
    if folder:
        line.setText(folder)


def ask_for_file(kind: str, suffixes: Iterable[str]) -> Ask:
    """Return what lets the user choose a file. kind: of file, as a person calls it"""
    patterns = " ".join(f"*{suffix}" for suffix in suffixes)

    def ask(line: QLineEdit, title: str) -> None:
        file, _ = QFileDialog.getOpenFileName(line, title, line.text(), f"{kind} ({patterns})")
        if file:
            line.setText(file)

    return ask
