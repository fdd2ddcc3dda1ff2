"""Another program to drag a file from: python -m tests.helpers.programs.drag_source FILE X Y

A window whose left half drags the file, and whose right half drags the picture itself. It proposes
to move the file, as a file manager does, and deletes it if that is what was done. The file is also
on the clipboard.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PySide6.QtCore import QMimeData, Qt, QUrl
from PySide6.QtGui import QDrag, QImage, QMouseEvent
from PySide6.QtWidgets import QApplication, QLabel


class Source(QLabel):
    def __init__(self, file: Path) -> None:
        super().__init__(file.name)
        self._file = file
        copied = QMimeData()
        copied.setUrls([QUrl.fromLocalFile(str(file))])
        QApplication.clipboard().setMimeData(copied)

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        mime = QMimeData()
        if event.position().x() < self.width() / 2:
            mime.setUrls([QUrl.fromLocalFile(str(self._file))])
        else:
            mime.setImageData(QImage(str(self._file)))
        drag = QDrag(self)
        drag.setMimeData(mime)
        both = Qt.DropAction.CopyAction | Qt.DropAction.MoveAction
        if drag.exec(both, Qt.DropAction.MoveAction) is Qt.DropAction.MoveAction:
            self._file.unlink()


def main() -> None:
    app = QApplication(sys.argv[:1])
    source = Source(Path(sys.argv[1]))
    source.setWindowFlag(Qt.WindowType.FramelessWindowHint)
    source.setGeometry(int(sys.argv[2]), int(sys.argv[3]), 200, 100)
    source.show()
    sys.stdout.write("shown\n")
    sys.stdout.flush()
    app.exec()


if __name__ == "__main__":
    main()
