"""A picture belongs to its conversation from the first moment, and a question waits for it."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from PySide6.QtCore import QMimeData, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QGuiApplication, QImage, QKeySequence
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLineEdit, QMenu, QWidget

from cogvlm2_lite.demo.shipped import checkpoint_folder
from gui.background import decoder
from gui.batch.page import BatchPage
from gui.chat.dropped import DroppedContent, is_text, png_bytes, read_mime
from gui.data.history import FILE
from tests.helpers.desk import Desk, Script
from tests.helpers.giving import asked_about, drop, give_bytes
from tests.helpers.pages import three_pages

PICTURES = checkpoint_folder().parent / "pictures"
SIGN = (PICTURES / "sign.png").read_bytes()
CHART = (PICTURES / "chart.png").read_bytes()
SHAPES = (PICTURES / "shapes.png").read_bytes()


class Gate:
    """Holds up the decoder until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def wait(self) -> None:
        assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A decoder that waits, as for a large picture."""
    made = Gate()
    decode = decoder.Decoding.decode

    def late(self: decoder.Decoding, data: bytes, page: int | None = None) -> object:
        made.wait()
        return decode(self, data, page)

    monkeypatch.setattr(decoder.Decoding, "decode", late)
    yield made
    made.open()


def mime_of(*names: str) -> QMimeData:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(PICTURES / name)) for name in names])
    return mime


def press(desk: Desk, keys: str) -> None:
    QTest.keySequence(QApplication.focusWidget() or desk.program.window, QKeySequence(keys))


def asked(desk: Desk) -> None:
    desk.qtbot.waitUntil(lambda: not desk.chat.waiting and not desk.chat.busy, timeout=20_000)


# --- the question waits for the picture ---------------------------------------------------------


def test_paste_and_enter_asks_with_the_picture(desk: Desk, gate: Gate) -> None:
    desk.open_demo()
    desk.chat.composer.setFocus()
    desk.chat.composer.setPlainText("What is it?")
    image = QImage(str(PICTURES / "sign.png"))
    QGuiApplication.clipboard().setImage(image)
    press(desk, "Ctrl+V")
    desk.qtbot.waitUntil(desk.chat.chip.isVisible)
    press(desk, "Return")
    assert desk.chat.status.text() == "Waiting for the picture…"
    assert desk.engine.asked == []
    assert desk.chat.chip.text.text() == "Reading the picture…"
    gate.open()
    asked(desk)
    [ask] = desk.engine.asked
    assert ask.question == "What is it?"
    assert asked_about(ask, png_bytes(image))
    assert desk.chat.composer.toPlainText() == ""
    assert not desk.chat.chip.isVisible()


def test_escape_stops_the_wait_and_keeps_question_and_picture(desk: Desk, gate: Gate) -> None:
    desk.open_demo()
    give_bytes(desk.chat, SIGN)
    desk.chat.composer.setPlainText("What is it?")
    press(desk, "Return")
    press(desk, "Esc")
    gate.open()
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert desk.engine.asked == []
    assert desk.chat.composer.toPlainText() == "What is it?"
    desk.chat.send()
    asked(desk)
    assert asked_about(desk.engine.asked[0], SIGN)


def test_a_broken_picture_keeps_the_question_and_is_not_left_out(desk: Desk, gate: Gate) -> None:
    desk.open_demo()
    give_bytes(desk.chat, b"no picture")
    desk.chat.composer.setPlainText("What is it?")
    desk.chat.send()
    gate.open()
    asked(desk)
    assert "The question was not asked" in desk.chat.message
    assert desk.chat.composer.toPlainText() == "What is it?"
    assert desk.chat.chip.text.property("kind") == "bad"
    desk.chat.send()
    asked(desk)
    assert desk.engine.asked == []
    desk.chat.chip.remove_button.click()
    assert not desk.chat.chip.isVisible()
    desk.chat.send()
    asked(desk)
    assert desk.engine.asked[0].image is None


def test_a_picture_stays_with_its_conversation_whatever_is_shown(desk: Desk, gate: Gate) -> None:
    desk.open_demo()
    desk.ask("Without a picture?")
    first = desk.chat.conversation
    assert first is not None
    desk.chat.start_new()
    desk.chat.take(DroppedContent(files=(PICTURES / "sign.png",)))
    desk.chat.composer.setPlainText("What is written?")
    desk.chat.send()
    desk.chat.list.itemActivated.emit(desk.chat.list.item(0))
    assert desk.chat.conversation is not None
    assert desk.chat.conversation.id == first.id
    assert desk.chat.composer.toPlainText() == ""
    assert not desk.chat.chip.isVisible()
    assert desk.chat.list.item(0).text() == "sign.png"
    gate.open()
    desk.qtbot.waitUntil(lambda: len(desk.engine.asked) == 2, timeout=20_000)
    asked(desk)
    assert desk.chat.conversation.id == first.id
    assert asked_about(desk.engine.asked[1], SIGN)
    assert desk.chat.picture == b""
    desk.chat.list.itemActivated.emit(desk.chat.list.item(0))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    [turn] = desk.chat.conversation.path()
    assert (turn.question, turn.answer) == ("What is written?", "It is **red**.")


def test_a_picture_that_was_not_asked_about_is_kept_when_it_is_left(desk: Desk, gate: Gate) -> None:
    desk.chat.take(DroppedContent(files=(PICTURES / "sign.png",)))
    desk.chat.start_new()
    assert not desk.chat.chip.isVisible()
    assert desk.chat.list.item(0).text() == "sign.png"
    gate.open()
    history = desk.program.history
    desk.qtbot.waitUntil(lambda: bool(history.list()[0].picture))
    assert history.picture(history.list()[0].picture) == SIGN
    desk.chat.list.itemActivated.emit(desk.chat.list.item(0))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert desk.chat.chip.isVisible()


def test_a_picture_is_kept_when_the_pages_are_built_again(desk: Desk, gate: Gate) -> None:
    desk.open_demo()
    give_bytes(desk.chat, SIGN)
    desk.chat.composer.setPlainText("What is it?")
    desk.chat.send()
    before = desk.chat
    desk.program.window.refresh()
    desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    gate.open()
    asked(desk)
    assert asked_about(desk.engine.asked[0], SIGN)
    assert desk.chat.composer.toPlainText() == ""


def test_a_question_waits_until_another_answer_has_ended(desk: Desk, script: Script) -> None:
    desk.open_demo()
    script.hold = True
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    desk.chat.start_new()
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    desk.chat.composer.setPlainText("And this?")
    desk.chat.send()
    assert desk.chat.composer.toPlainText() == "And this?"  # Send is Stop while an answer runs


def test_closing_the_window_keeps_a_picture_that_was_given(desk: Desk) -> None:
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    desk.program.window.close()
    [row] = desk.program.history.list()
    assert desk.program.history.picture(row.picture) == SIGN


# --- another picture -----------------------------------------------------------------------------


def test_a_second_picture_before_the_question_replaces_visibly_with_undo(desk: Desk) -> None:
    chip = desk.chat.chip
    desk.chat.take(DroppedContent(files=(PICTURES / "sign.png",)))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert not chip.undo.isVisible()
    desk.chat.take(DroppedContent(files=(PICTURES / "chart.png",)))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == CHART)
    assert (chip.name.text(), chip.text.text()) == ("chart.png", "It replaces sign.png.")
    chip.undo.click()
    assert (chip.name.text(), desk.chat.picture) == ("sign.png", SIGN)
    chip.remove_button.click()
    assert desk.chat.picture == b""
    chip.undo.click()
    assert desk.chat.picture == SIGN
    assert not chip.choice.isVisible()


def test_the_first_picture_of_a_conversation_is_no_second_one(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("Hello?")
    first = desk.chat.conversation
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert not desk.chat.chip.choice.isVisible()
    desk.ask("What is it?")
    assert desk.chat.conversation is first
    assert asked_about(desk.engine.asked[1], SIGN)
    assert desk.engine.asked[1].history == (("Hello?", "It is **red**."),)


def test_asking_again_is_about_the_earlier_picture(desk: Desk) -> None:
    desk.open_demo()
    give_bytes(desk.chat, SIGN)
    desk.ask("What is it?")
    talk = desk.chat.conversation
    assert talk is not None
    give_bytes(desk.chat, CHART)
    desk.chat.answer_again(talk.path()[0].id)
    asked(desk)
    assert asked_about(desk.engine.asked[1], SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == CHART)
    assert desk.chat.chip.isVisible()


def test_a_second_picture_is_kept_while_another_conversation_is_shown(desk: Desk) -> None:
    desk.open_demo()
    give_bytes(desk.chat, SIGN)
    desk.ask("What is it?")
    give_bytes(desk.chat, CHART)
    desk.chat.start_new()
    assert not desk.chat.chip.isVisible()
    desk.chat.list.itemActivated.emit(desk.chat.list.item(0))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == CHART)
    assert desk.chat.chip.choice.isVisible()


# --- frames and kinds ----------------------------------------------------------------------------


def frames(kind: str) -> bytes:
    out = io.BytesIO()
    images = [Image.new("RGB", (30, 20), color) for color in ("red", "lime", "blue")]
    images[0].save(out, kind, save_all=True, append_images=images[1:], duration=100, lossless=True)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_frame_is_chosen_and_asked_about(desk: Desk, kind: str) -> None:
    desk.open_demo()
    data = frames(kind) if kind != "TIFF" else three_pages()
    give_bytes(desk.chat, data)
    pages = desk.chat.panel.pages
    desk.qtbot.waitUntil(pages.isVisible)
    assert pages.maximum() == 3
    pages.setValue(3)
    desk.ask("Which colour?")
    assert asked_about(desk.engine.asked[0], data, 3)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_of_phones_are_read(desk: Desk, tmp_path: Path, kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / f"photo.{kind.lower()}"
    Image.new("RGB", (40, 30), "red").save(path, kind)
    drop(desk.program.window, urls_of(path))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == path.read_bytes())
    assert desk.chat.chip.name.text() == path.name


def test_a_pdf_is_a_sentence(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "paper.pdf"
    path.write_bytes(b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n")
    drop(desk.program.window, urls_of(path))
    desk.qtbot.waitUntil(lambda: "PDF" in desk.chat.chip.text.text())
    assert "JPEG or PNG" in desk.chat.chip.text.text()


# --- the whole window ----------------------------------------------------------------------------


def urls_of(*paths: Path) -> QMimeData:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    return mime


def fields(desk: Desk) -> list[QWidget]:
    for name in ("batch", "settings", "chat"):
        desk.program.window.show_page(name)
    batch = desk.program.window.page("batch")
    assert isinstance(batch, BatchPage)
    return [desk.chat.composer.viewport(), desk.chat.search, *batch.findChildren(QLineEdit)[:1]]


def test_a_picture_dropped_on_a_text_field_is_a_picture(desk: Desk) -> None:
    for field in fields(desk)[:2]:
        event = drop(field, mime_of("sign.png"), Qt.DropAction.MoveAction)
        assert event.isAccepted()
        assert event.dropAction() is Qt.DropAction.CopyAction
        desk.qtbot.waitUntil(lambda: desk.chat.chip.name.text() == "sign.png")
        desk.chat.chip.remove_button.click()
    assert desk.chat.composer.toPlainText() == desk.chat.search.text() == ""


@pytest.mark.parametrize(
    "page", ["chat", "batch", "convert", "memory", "evaluate", "teach", "settings", "about"]
)
def test_a_picture_is_dropped_on_any_page(desk: Desk, page: str) -> None:
    window = desk.program.window
    window.show_page(page)
    shown = window.page(page)
    assert shown is not None
    event = drop(shown, mime_of("sign.png"), Qt.DropAction.MoveAction)
    assert event.dropAction() is Qt.DropAction.CopyAction
    if page == "batch":
        assert isinstance(shown, BatchPage)
        desk.qtbot.waitUntil(lambda: shown.form.values().only == ("sign.png",))
    else:
        desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
        assert desk.chat.isVisible()


def test_text_is_left_to_the_fields(desk: Desk) -> None:
    mime = QMimeData()
    mime.setText("some words")
    mime.setHtml("some <b>words</b>")
    mime.setImageData(QImage(8, 8, QImage.Format.Format_RGB32))  # as a spreadsheet copies
    assert is_text(mime)
    drop(desk.chat.composer.viewport(), mime)
    assert "some words" in desk.chat.composer.toPlainText()
    assert not desk.chat.chip.isVisible()
    assert not is_text(mime_of("sign.png"))


def copied(**forms: bytes) -> QMimeData:
    mime = QMimeData()
    for form, data in forms.items():
        mime.setData(
            {"text": "text/plain", "html": "text/html", "urls": "text/uri-list"}[form], data
        )
    return mime


ADDRESS = bytes(QUrl.fromLocalFile(str(PICTURES / "sign.png")).toEncoded().data())


@pytest.mark.parametrize(
    ("mime", "text"),
    [
        (copied(text=b"words"), True),
        (copied(text=b"https://example.com/"), True),
        (copied(text=b"see file:///a.png"), True),
        (copied(text=ADDRESS), False),
        (copied(text=ADDRESS, urls=ADDRESS), False),
        (copied(text=b"https://e.com/a.png", urls=b"https://e.com/a.png"), False),
        (copied(html=b'<img src="data:image/png;base64,iVBORw0KGgo=">'), False),
        (copied(text=b"  "), False),
    ],
)
def test_what_a_field_takes_as_text(mime: QMimeData, text: bool) -> None:
    assert is_text(mime) == text


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_an_image_inside_of_html_is_used(quote: str) -> None:
    data = f"<p><img alt=x src={quote}data:image/gif;base64,R0lGODlhAQABAAAAADs={quote} /></p>"
    mime = QMimeData()
    mime.setHtml(data)
    assert read_mime(mime).data.startswith(b"GIF89a")


@pytest.mark.parametrize("where", ["composer", "search", "list", "memory page"])
def test_a_file_is_pasted_wherever_the_focus_is(desk: Desk, where: str) -> None:
    window = desk.program.window
    window.activateWindow()
    QGuiApplication.clipboard().setMimeData(mime_of("sign.png"))
    widgets = {"composer": desk.chat.composer, "search": desk.chat.search, "list": desk.chat.list}
    if where in widgets:
        widgets[where].setFocus()
    else:
        window.show_page("memory")
    press(desk, "Ctrl+V")
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert desk.chat.composer.toPlainText() == desk.chat.search.text() == ""
    assert desk.chat.composer.hasFocus()


def test_a_file_is_pasted_from_the_menu_of_a_field(desk: Desk) -> None:
    QGuiApplication.clipboard().setMimeData(mime_of("sign.png"))
    desk.chat.search.setFocus()
    QTest.mouseClick(desk.chat.search, Qt.MouseButton.LeftButton)
    open_menu(desk.chat.search)
    desk.qtbot.waitUntil(lambda: isinstance(QApplication.activePopupWidget(), QMenu))
    menu = QApplication.activePopupWidget()
    assert isinstance(menu, QMenu)
    [paste] = [action for action in menu.actions() if action.objectName() == "edit-paste"]
    paste.trigger()
    menu.close()
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert desk.chat.search.text() == ""


def open_menu(field: QWidget) -> None:
    from PySide6.QtGui import QContextMenuEvent

    place = field.rect().center()
    event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, place, field.mapToGlobal(place))
    QApplication.sendEvent(field, event)


def test_nothing_is_done_inside_the_drop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that is dragged from waits until the event ends."""
    taken: list[DroppedContent] = []
    monkeypatch.setattr(desk.program.window.drops, "_take", taken.append)
    drop(desk.chat, mime_of("sign.png", "chart.png"))
    assert taken == []
    desk.qtbot.waitUntil(lambda: len(taken) == 1)


def test_folders_and_files_together_are_their_pictures(desk: Desk, tmp_path: Path) -> None:
    for name in ("a/one.png", "b/two.png", "three.png", "a/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(SIGN)
    desk.program.window.show_page("memory")
    drop(desk.program.window, urls_of(tmp_path / "a", tmp_path / "b", tmp_path / "three.png"))
    desk.qtbot.waitUntil(lambda: desk.program.window.page("batch") is not None)
    batch = desk.program.window.page("batch")
    assert isinstance(batch, BatchPage)
    assert batch.form.values().only == ("a/one.png", "b/two.png", "three.png")


def test_a_drag_of_the_window_itself_is_left_alone(desk: Desk) -> None:
    mime = QMimeData()
    mime.setText("words")
    place = desk.chat.rect().center()
    event = QDragEnterEvent(
        place, Qt.DropAction.MoveAction, mime, Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    event.ignore()
    QApplication.sendEvent(desk.chat, event)
    assert not event.isAccepted()


def test_a_long_name_and_a_long_error_fit_a_narrow_window(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / f"{'long name ' * 20}.png"
    path.write_bytes(b"no picture")
    desk.program.window.resize(560, 420)
    desk.chat.take(DroppedContent(files=(path,)))
    chip = desk.chat.chip
    desk.qtbot.waitUntil(lambda: chip.text.property("kind") == "bad")
    desk.qtbot.wait(50)
    assert "…" in chip.name.text()
    assert chip.name.toolTip() == path.name
    tall = chip.text.height()
    assert tall >= chip.text.heightForWidth(chip.text.width())
    desk.program.window.resize(1900, 760)
    desk.qtbot.waitUntil(lambda: chip.text.height() < tall)
    desk.program.window.resize(560, 420)
    desk.qtbot.waitUntil(lambda: chip.text.height() == tall)
    assert desk.program.window.width() == 560


def test_an_error_follows_the_language(desk: Desk) -> None:
    give_bytes(desk.chat, b"no picture")
    desk.qtbot.waitUntil(lambda: desk.chat.chip.text.property("kind") == "bad")
    before = desk.chat
    desk.program.settings.set("language", "zh_CN")
    desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    assert "不是图片" in desk.chat.chip.text.text()


# --- recent pictures -----------------------------------------------------------------------------


def add_menu(desk: Desk) -> list[str]:
    menu = desk.chat.findChild(QMenu, "add")
    menu.aboutToShow.emit()
    return [action.text() for action in menu.actions() if action.text()]


def choose(desk: Desk, text: str) -> None:
    menu = desk.chat.findChild(QMenu, "add")
    [action] = [action for action in menu.actions() if action.text() == text]
    action.trigger()


def test_recent_pictures_are_offered_and_leave_when_their_file_is_gone(
    desk: Desk, tmp_path: Path
) -> None:
    names = ["a&b.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        (tmp_path / name).write_bytes(SIGN)
        desk.chat.take(DroppedContent(files=(tmp_path / name,)))
        desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
        desk.chat.chip.remove_button.click()
    give_bytes(desk.chat, CHART)  # without a file
    desk.qtbot.waitUntil(lambda: desk.chat.picture == CHART)
    assert add_menu(desk)[3:] == ["Recent pictures", "caf\\xe9.png", "a&&b.png", "Clear the list"]
    choose(desk, "caf\\xe9.png")
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    (tmp_path / "a&b.png").unlink()
    choose(desk, "a&&b.png")
    assert "a&b.png no longer exists" in desk.chat.message
    assert add_menu(desk)[3:] == ["Recent pictures", "caf\\xe9.png", "Clear the list"]
    choose(desk, "Clear the list")
    assert len(add_menu(desk)) == 3


def test_a_broken_file_is_not_recent(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    desk.chat.take(DroppedContent(files=(tmp_path / "a.png",)))
    desk.qtbot.waitUntil(lambda: desk.chat.chip.text.property("kind") == "bad")
    assert len(add_menu(desk)) == 3


def test_nothing_is_recent_without_a_history(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / FILE).write_bytes(b"no database, and more than its header has" * 9)
    desk = open_desk(tmp_path / "data")
    assert desk.program.history.folder is None
    desk.chat.take(DroppedContent(files=(PICTURES / "sign.png",)))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert len(add_menu(desk)) == 3
    assert desk.program.settings.get("recent_pictures") == []


# --- a kill before the question ------------------------------------------------------------------


def killed(desk: Desk, to: Path) -> Path:
    """Return a data folder as a kill at this moment would leave it."""
    assert desk.program.history.folder is not None
    shutil.copytree(desk.program.history.folder, to)
    return to


def chip_of(desk: Desk) -> str:
    return desk.chat.chip.name.toolTip() if desk.chat.chip.isVisible() else ""


def test_a_pasted_picture_survives_a_kill_before_it_is_asked_about(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path / "data")
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    desk = open_desk(killed(desk, tmp_path / "killed"))
    assert chip_of(desk) == "Pasted picture"
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert desk.chat.list.count() == 0  # it was not left
    desk.open_demo()
    desk.ask("What is it?")
    assert asked_about(desk.engine.asked[-1], SIGN)
    again = open_desk(killed(desk, tmp_path / "asked"))
    assert chip_of(again) == ""
    assert again.chat.list.count() == 1


def test_a_second_picture_survives_a_kill_with_its_conversation(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path / "data")
    desk.open_demo()
    give_bytes(desk.chat, SIGN)
    desk.ask("What is it?")
    desk.chat.take(DroppedContent(files=(PICTURES / "chart.png",)))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == CHART)
    desk = open_desk(killed(desk, tmp_path / "killed"))
    assert chip_of(desk) == ""
    desk.chat.list.itemActivated.emit(desk.chat.list.item(0))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == CHART, timeout=20_000)
    assert chip_of(desk) == "chart.png"
    assert desk.chat.chip.choice.isVisible()
    desk.program.close()  # also after an ordinary end
    desk = open_desk(tmp_path / "killed")
    desk.chat.list.itemActivated.emit(desk.chat.list.item(0))
    desk.qtbot.waitUntil(lambda: chip_of(desk) == "chart.png")
    desk.chat.chip.remove_button.click()
    again = open_desk(killed(desk, tmp_path / "removed"))
    again.chat.list.itemActivated.emit(again.chat.list.item(0))
    again.qtbot.waitUntil(lambda: again.chat.picture == SIGN, timeout=20_000)
    assert chip_of(again) == ""


def test_a_picture_that_was_removed_is_gone_at_the_next_start(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path / "data")
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    desk.chat.chip.remove_button.click()
    again = open_desk(killed(desk, tmp_path / "removed"))
    assert chip_of(again) == ""
    assert list((tmp_path / "removed" / "pictures").iterdir()) == []
    desk.chat.chip.undo.click()
    again = open_desk(killed(desk, tmp_path / "back"))
    again.qtbot.waitUntil(lambda: again.chat.picture == SIGN)


def test_the_picture_that_replaced_another_one_is_the_one_that_comes_back(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path / "data")
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    desk.chat.take(DroppedContent(files=(PICTURES / "chart.png",)))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == CHART)
    again = open_desk(killed(desk, tmp_path / "killed"))
    assert chip_of(again) == "chart.png"
    desk.chat.start_new()  # leaves it in the list
    again = open_desk(killed(desk, tmp_path / "left"))
    assert chip_of(again) == ""
    assert again.chat.list.item(0).text() == "chart.png"


def test_a_picture_of_a_kill_whose_file_is_gone_says_so_and_can_be_removed(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path / "data")
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    folder = killed(desk, tmp_path / "killed")
    for file in (folder / "pictures").iterdir():
        file.unlink()
    desk = open_desk(folder)
    desk.qtbot.waitUntil(lambda: "no longer exists" in desk.chat.chip.text.text(), timeout=20_000)
    desk.chat.chip.remove_button.click()
    assert chip_of(open_desk(killed(desk, tmp_path / "again"))) == ""
