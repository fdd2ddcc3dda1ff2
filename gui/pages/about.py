"""The page "About": version, licences, and the report of `doctor` to paste into a bug report."""

from __future__ import annotations

import subprocess
import sys

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QPushButton, QWidget

from cogvlm2_lite import __version__
from cogvlm2_lite.errors import CogVLM2LiteError
from gui import theme
from gui.context import Context
from gui.pages.frame import page
from gui.translation import error_text, fill

_DOCTOR = (sys.executable, "-P", "-m", "cogvlm2_lite", "doctor")


def make(context: Context) -> QWidget:
    """Make the page. A child process writes the report, because that loads torch."""
    widget, column = page(QCoreApplication.translate("About", "About"))
    text = QLabel(
        fill(
            QCoreApplication.translate(
                "About",
                "CogVLM2 Lite {version}. This program and its demo model are under the Apache "
                "License 2.0. Weights of CogVLM2 are under the CogVLM2 License and the Meta "
                "Llama 3 Community License. Qt is used under the LGPL. Nothing leaves this "
                "computer: there are no update checks and no telemetry.",
            ),
            version=__version__,
        )
    )
    text.setWordWrap(True)
    column.addWidget(text)
    report = QPlainTextEdit(QCoreApplication.translate("About", "Checking this computer…"))
    report.setReadOnly(True)
    report.setFont(theme.fixed_font())
    report.setMinimumHeight(360)
    report.setAccessibleName(QCoreApplication.translate("About", "Report about this computer"))
    copy = QPushButton(QCoreApplication.translate("About", "Copy the report"))
    copy.setAccessibleName(QCoreApplication.translate("About", "Copy the report"))
    copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(report.toPlainText()))
    column.addWidget(report)
    column.addWidget(copy, alignment=Qt.AlignmentFlag.AlignLeading)

    def failed(error: CogVLM2LiteError) -> None:
        report.setPlainText(error_text(error))

    context.tasks.run(_report, report.setPlainText, failed, report)
    return widget


def _report() -> str:
    done = subprocess.run(_DOCTOR, capture_output=True, text=True, check=False)
    return done.stdout or done.stderr
