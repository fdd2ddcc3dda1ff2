"""The core's sentences in the window's language: real errors, made here, and told in Chinese."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from PySide6.QtCore import QTranslator
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.batch.work import find_pictures
from cogvlm2_lite.config import parse_config, read_config
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.inputs.limits import ImageLimits
from cogvlm2_lite.inputs.prompt import encode_prompt
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.text import Text, join, read_templates, with_templates
from cogvlm2_lite.worker.client import describe_exit
from gui.app import TRANSLATIONS
from gui.background.json_lines import Command
from gui.chat.dropped import read_file
from gui.data.export import export
from gui.data.history import FILE, History
from gui.data.state import Conversation
from gui.memory.plan import plan_for
from gui.translation import CONTEXT, error_text, translate
from gui.wording import WORDING
from quantize import pipeline
from quantize.recipe import QuantizeOptions
from tests.helpers.conversion import CHECKPOINT, QUICK, SMALL_SHARDS, open_catalog, quantize
from tools.templates import PACKAGES, NotATemplateError, find_templates, places
from tools.write_translations import PAGE, page_messages


@pytest.fixture
def chinese(qapp: QApplication) -> Iterator[None]:
    translator = QTranslator()
    assert translator.load(str(TRANSLATIONS / "zh_CN.qm"))
    qapp.installTranslator(translator)
    yield
    qapp.removeTranslator(translator)


class Words:
    """A tokenizer that makes a token of every letter."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 500 for letter in text]


def written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def small_png(folder: Path) -> Path:
    Image.new("RGB", (40, 30)).save(folder / "p.png")
    return folder / "p.png"


def newer(folder: Path) -> None:
    History(folder).close()
    database = sqlite3.connect(folder / FILE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    History(folder)


def foreign(folder: Path) -> None:
    database = sqlite3.connect(folder / FILE)
    database.execute("CREATE TABLE theirs (a)")
    database.close()
    History(folder)


def model(folder: Path, **changed: object) -> Path:
    """Copy the golden checkpoint, with changes of its config.json; None takes a key away."""
    copy = folder / "model"
    if not copy.exists():
        shutil.copytree(CHECKPOINT, copy)
    config = json.loads((copy / "config.json").read_text()) | changed
    kept = {key: value for key, value in config.items() if value is not None}
    (copy / "config.json").write_text(json.dumps(kept))
    return copy


def without(file: str, folder: Path) -> Path:
    (folder / file).unlink()
    return folder


def without_weights(folder: Path) -> Path:
    for file in folder.glob("model*"):
        file.unlink()
    return folder


def only_pickle(folder: Path) -> Path:
    return written(without_weights(folder), "pytorch_model.bin", b"").parent


def cut(folder: Path, count: int) -> Path:
    file = folder / "model-00002-of-00003.safetensors"
    with file.open("r+b") as stream:
        stream.truncate(count if count > 0 else file.stat().st_size + count)
    return folder


def convert(folder: Path, target: Path, **settings: Any) -> None:
    quantize(folder, target, QuantizeOptions(**settings))


def convert_otherwise(folder: Path) -> None:
    """Go on with a conversion that was begun with other settings."""
    steps = pipeline.convert(CHECKPOINT, folder / "q", SMALL_SHARDS, QUICK)
    for _ in itertools.islice(steps, 3):
        pass
    steps.close()
    convert(CHECKPOINT, folder / "q", double_quant=False)


def twice(folder: Path) -> None:
    convert(CHECKPOINT, folder / "q")
    convert(folder / "q", folder / "r")


def made_otherwise(folder: Path) -> None:
    convert(CHECKPOINT, folder / "q")
    convert(CHECKPOINT, folder / "q", double_quant=False)


def ask_too_much(context: int | None) -> None:
    config = parse_config(COGVLM2.released.raw)
    encode_prompt(Words(), config, "?" * 9000, has_image=True, context=context)


FAULTS: dict[str, Callable[[Path], object]] = {
    "folder": lambda d: open_image(d),
    "text": lambda d: open_image(written(d, "x.txt", b"some words")),
    "text without a name": lambda _: open_image(b"some words"),
    "empty": lambda d: open_image(written(d, "x.png", b"")),
    "HEIC": lambda d: open_image(written(d, "x.heic", b"\x00\x00\x00\x18ftypheic" + bytes(50))),
    "PDF": lambda d: open_image(written(d, "x.jpg", b"%PDF-1.7 ...")),
    "unknown": lambda d: open_image(written(d, "x.jpg", bytes(range(1, 99)))),
    "cut": lambda d: open_image(written(d, "x.png", small_png(d).read_bytes()[:60])),
    "bare head": lambda d: open_image(written(d, "x.png", b"\x89PNG\r\n\x1a\n")),
    "many pixels": lambda d: open_image(small_png(d), limits=ImageLimits(max_pixels=500)),
    "many bytes": lambda d: open_image(small_png(d), limits=ImageLimits(max_file_bytes=9)),
    "gone": lambda d: read_file(d / "none.png"),
    "not to be written": lambda d: export(
        Conversation(id=1), b"", written(d, "file", b"") / "x.json"
    ),
    "newer history": newer,
    "foreign history": foreign,
    "damaged history": lambda d: History(written(d, FILE, b"x" * 5000).parent),
    "history in a file": lambda d: History(written(d, "file", b"") / "data"),
    "no conversation": lambda d: History(d).load(77),
    "no picture": lambda d: History(d).picture("0" * 64),
    "too little": lambda _: plan_for(None, vram="300MiB", ram=None),
    "long question": lambda _: ask_too_much(None),
    "longer context": lambda _: ask_too_much(4096),
    "no model": lambda d: read_config(d),
    "another model": lambda d: read_config(model(d, vision_config=None)),
    "unknown keys": lambda d: read_config(model(d, odd=1, strange=2)),
    "no weights": lambda d: open_catalog(without_weights(model(d))),
    "pickle": lambda d: open_catalog(only_pickle(model(d))),
    "no index": lambda d: open_catalog(without("model.safetensors.index.json", model(d))),
    "a file too few": lambda d: open_catalog(without("model-00002-of-00003.safetensors", model(d))),
    "cut off": lambda d: open_catalog(cut(model(d), -100)),
    "cut in its header": lambda d: open_catalog(cut(model(d), 50)),
    "cut to nothing": lambda d: open_catalog(cut(model(d), 5)),
    "more layers": lambda d: open_catalog(model(d, num_hidden_layers=5)),
    "fewer layers": lambda d: open_catalog(model(d, num_hidden_layers=1)),
    "no tokenizer": lambda d: Tokenizer.from_folder(model(d)),
    "no source": lambda d: convert(d / "none", d / "q"),
    "onto itself": lambda d: convert(model(d), d / "model"),
    "into itself": lambda d: convert(model(d), d / "model" / "q"),
    "twice": twice,
    "onto files": lambda d: convert(CHECKPOINT, written(d, "x", b"").parent),
    "made otherwise": made_otherwise,
    "begun otherwise": convert_otherwise,
    "into a file": lambda d: convert(CHECKPOINT, written(d, "x", b"") / "q"),
    "no pictures": lambda d: find_pictures(d, recursive=False),
    "no folder": lambda d: find_pictures(d / "none", recursive=False),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.usefixtures("chinese")
def test_an_error_is_told_in_chinese(name: str, tmp_path: Path) -> None:
    with pytest.raises(CogVLM2LiteError) as caught:
        FAULTS[name](tmp_path)
    check(caught.value.text, error_text(caught.value))
    over_the_wire = read_templates(json.loads(json.dumps(with_templates(caught.value.as_dict()))))
    told = translate(join(over_the_wire["message"], over_the_wire["hint"]))
    assert told == error_text(caught.value)


@pytest.mark.parametrize("code", [3, -9, -6])
@pytest.mark.usefixtures("chinese")
def test_the_end_of_an_engine_is_told_in_chinese(code: int) -> None:
    english = describe_exit(code)
    check(english, translate(english))


def check(english: str, chinese: str) -> None:
    """Every number of a sentence is kept; no words of its English are."""
    assert set(re.findall(r"\d+", chinese)) == set(re.findall(r"\d+", english))
    assert re.search(r"[\u4e00-\u9fff]", chinese)
    chinese = re.sub("No such file or directory|Not a directory", "", chinese)  # the system's words
    common = r"\b(the|that|is|are|was|for|and|a|an|or|it|more|with)\b"
    assert not re.search(common, chinese), chinese


def test_every_template_has_chinese_with_the_same_places() -> None:
    root = ElementTree.parse(TRANSLATIONS / "zh_CN.ts").getroot()
    chinese = {
        message.findtext("source"): message.find("translation")
        for context in root.findall("context")
        if context.findtext("name") == CONTEXT
        for message in context.findall("message")
    }
    templates = find_templates()
    assert len(templates) > 500
    for template in templates:
        where = f"{template.file}:{template.line}: {template.text}"
        found = chinese.pop(template.text, None)
        assert found is not None, f"run tools/write_translations.py for {where}"
        assert found.get("type") is None, f"no Chinese in zh_CN.ts for {where}"
        assert fields(found.text or "") == fields(template.text), where
    assert not chinese, "run tools/write_translations.py: some templates are gone"


def fields(template: str) -> set[tuple[str, str, str]]:
    """Return the places of a template with the way in which each is written."""
    return {
        (name, form or "", how or "") for _, name, form, how in Formatter().parse(template) if name
    }


def test_the_chat_page_has_the_chinese_of_what_the_server_sends() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_messages(), "run tools/write_translations.py"


def test_a_sentence_that_is_put_together_where_it_is_raised_is_found(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "gui" / "bad.py").write_text(
        "class CogVLM2LiteError(Exception): ...\n"
        "class BadError(CogVLM2LiteError): ...\n"
        'raise BadError("{file} is bad.", hint=f"Use {name}.", file=1)\n'
    )
    with pytest.raises(NotATemplateError, match=r"bad\.py:3"):
        find_templates(tmp_path)


def test_the_collector_finds_templates_behind_names_and_conditions(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "quantize" / "good.py").write_text(
        '_HINT = "Try again."\n'
        '_WORDS = {1: "{count} of a", 2: "{count} of b"}\n'
        'Text("one" if x else "two")\n'
        "Text(_WORDS[3], count=4)\n"
        'reject(name, "{param} is bad.")\n'
        "class CogVLM2LiteError(Exception): ...\n"
        'raise CogVLM2LiteError("{file}", hint=_HINT, file=1)\n'
    )
    found = {template.text for template in find_templates(tmp_path)}
    assert found == {
        "one", "two", "{count} of a", "{count} of b", "{param} is bad.", "Try again.",
    }  # fmt: skip


@pytest.mark.usefixtures("chinese")
def test_nested_sentences_are_translated_too() -> None:
    size = Text("{size} can be used", size="5 GiB")
    values = {"least": "6 GiB", "device": "cpu", "usable": size, "missing": "1 GiB"}
    template = (
        "{phase} needs at least {least} on {device}, where {usable}: {missing} more is needed."
    )
    told = translate(Text(template, phase=Text("Decode"), **values))
    assert told == "生成回答在 cpu 上至少需要 6 GiB，可用 5 GiB：还差 1 GiB。"


@pytest.mark.usefixtures("chinese")
def test_the_notes_of_a_plan_are_chinese() -> None:
    shown = plan_for(None, vram="8GiB", ram=None, translate=translate)
    assert "关于新图片的问题，约" in shown.summary
    assert "任何计划下回答都相同" in shown.notes[-1]
    assert "内存中" in [row[0] for row in shown.tables[0].rows]


def test_without_chinese_nothing_changes() -> None:
    for template in find_templates():
        text = Text(template.text, **dict.fromkeys(places(template.text), 7))
        assert translate(text) == text or template.text in WORDING


def test_what_is_no_text_stays_as_it_is() -> None:
    assert translate("The disk is full.") == "The disk is full."
    assert translate("") == ""
    assert translate(Text()) == ""


def test_an_event_of_a_command_keeps_its_templates(qtbot: QtBot) -> None:
    received: list[dict[str, Any]] = []
    command = Command()
    command.event_received.connect(received.append)
    command.event_received.emit({"event": "error", "message": Text("The picture"), "hint": ""})
    assert isinstance(received[0]["message"], Text)
