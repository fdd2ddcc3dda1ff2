"""Objects that Python and Qt share are deleted once, and at the time that Qt expects."""

from __future__ import annotations

import ast
import gc
import sys
from pathlib import Path
from types import FrameType

from PySide6.QtGui import QIcon, QPainter

import gui
from gui import theme
from gui.window import PAGES
from tests.helpers.desk import Desk


def test_every_painter_ends_before_its_paint_event_does() -> None:
    # A painter that a frame keeps alive (a debugger's, a profiler's, a traceback's) is deleted
    # after the surface on which it paints, and then the program crashes.
    for path in sorted(Path(gui.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        made = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == QPainter.__name__
        ]
        managed = [
            item.context_expr
            for node in ast.walk(tree)
            if isinstance(node, ast.With)
            for item in node.items
        ]
        assert [node.lineno for node in made if node not in managed] == [], path


def test_painters_have_ended_when_frames_of_paint_events_are_kept(desk: Desk) -> None:
    kept: list[FrameType] = []

    def keep(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "paintEvent":
            kept.append(frame)

    sys.setprofile(keep)
    try:
        for page in PAGES:
            desk.program.window.show_page(page.name)
            desk.program.window.grab()
    finally:
        sys.setprofile(None)
    painters = [v for f in kept for v in f.f_locals.values() if isinstance(v, QPainter)]
    assert painters
    assert not [p for p in painters if p.isActive()]


def test_an_icon_that_qt_copies_is_deleted_once(desk: Desk) -> None:
    for _ in range(4):
        changed = QIcon(theme.icon("plus"))
        changed.addPixmap(theme.icon("plus").pixmap(20, 20))  # so Qt clones the engine
        del changed
        gc.collect()
    assert not theme.icon("plus").pixmap(20, 20).isNull()
