"""The window's settings: each declared once, kept in one JSON file. No Qt here.

`SETTINGS` is the declaration; the settings page is drawn from it, and the file is checked by it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cogvlm2_lite.sampling import Sampling
from gui.translatable import QT_TRANSLATE_NOOP

Value = bool | int | float | str | list[str]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    name     in the file and in the code
    default  its type is the setting's type; a list holds texts
    label    what the page calls it, and `help` explains it; both in English, translated when shown
    group    the heading it stands under; "" for what no page shows
    choices  (value, label) pairs where only these are allowed
    lowest, highest  of numbers, both inclusive
    """

    name: str
    default: Value
    label: str = ""
    help: str = ""
    group: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    lowest: float = 0.0
    highest: float = 1e9

    def check(self, value: object) -> Value | None:
        """Give the value in the setting's type; None when it is not allowed."""
        if isinstance(self.default, bool):
            return value if isinstance(value, bool) else None
        if isinstance(self.default, int | float):
            return self._number(value)
        if isinstance(self.default, list):
            texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
            return list(value) if texts and isinstance(value, list) else None
        if not isinstance(value, str):
            return None
        allowed = [choice for choice, _ in self.choices]
        return value if not allowed or value in allowed else None

    def _number(self, value: object) -> int | float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.lowest <= value <= self.highest:
            return None
        return int(value) if isinstance(self.default, int) else float(value)


LOOK = QT_TRANSLATE_NOOP("Settings", "Appearance")
MODEL = QT_TRANSLATE_NOOP("Settings", "Model")
ANSWERS = QT_TRANSLATE_NOOP("Settings", "Answers")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="language",
        default="system",
        label=QT_TRANSLATE_NOOP("Settings", "Language"),
        help=QT_TRANSLATE_NOOP("Settings", "The language of the window."),
        group=LOOK,
        choices=(
            ("system", QT_TRANSLATE_NOOP("Settings", "System")),
            ("en", "English"),
            ("zh_CN", "简体中文"),
        ),
    ),
    Setting(
        name="theme",
        default="system",
        label=QT_TRANSLATE_NOOP("Settings", "Theme"),
        help=QT_TRANSLATE_NOOP("Settings", "Light or dark colours."),
        group=LOOK,
        choices=(
            ("system", QT_TRANSLATE_NOOP("Settings", "System")),
            ("light", QT_TRANSLATE_NOOP("Settings", "Light")),
            ("dark", QT_TRANSLATE_NOOP("Settings", "Dark")),
        ),
    ),
    Setting(
        name="font_points",
        default=11,
        label=QT_TRANSLATE_NOOP("Settings", "Font size"),
        help=QT_TRANSLATE_NOOP("Settings", "In points; Ctrl+Plus and Ctrl+Minus change it too."),
        group=LOOK,
        lowest=8,
        highest=28,
    ),
    Setting(
        name="unload_minutes",
        default=0,
        label=QT_TRANSLATE_NOOP("Settings", "Unload when idle"),
        help=QT_TRANSLATE_NOOP(
            "Settings",
            "Minutes without a question after which the model is unloaded. 0: never.",
        ),
        group=MODEL,
        highest=1440,
    ),
    Setting(
        name="vram",
        default="",
        label=QT_TRANSLATE_NOOP("Settings", "Video memory"),
        help=QT_TRANSLATE_NOOP(
            "Settings", "The most the model may use, for example 6GiB. Empty: all that is free."
        ),
        group=MODEL,
    ),
    Setting(
        name="ram",
        default="",
        label=QT_TRANSLATE_NOOP("Settings", "RAM"),
        help=QT_TRANSLATE_NOOP(
            "Settings", "The most the model may use, for example 12GiB. Empty: all that is free."
        ),
        group=MODEL,
    ),
    Setting(
        name="max_new_tokens",
        default=2048,
        label=QT_TRANSLATE_NOOP("Settings", "Longest answer"),
        help=QT_TRANSLATE_NOOP("Settings", "In tokens; a word has one or two tokens."),
        group=ANSWERS,
        lowest=1,
        highest=8192,
    ),
    Setting(
        name="temperature",
        default=0.0,
        label=QT_TRANSLATE_NOOP("Settings", "Temperature"),
        help=QT_TRANSLATE_NOOP(
            "Settings",
            "0: always the most likely word, best for text and facts. Higher values are more "
            "varied and more often wrong.",
        ),
        group=ANSWERS,
        highest=2,
    ),
    Setting(
        name="top_p",
        default=1.0,
        label=QT_TRANSLATE_NOOP("Settings", "Top p"),
        help=QT_TRANSLATE_NOOP(
            "Settings",
            "Keep only the most likely words that together reach this probability. 1: all words.",
        ),
        group=ANSWERS,
        lowest=0.01,
        highest=1,
    ),
    Setting(
        name="top_k",
        default=0,
        label=QT_TRANSLATE_NOOP("Settings", "Top k"),
        help=QT_TRANSLATE_NOOP(
            "Settings", "Keep only this many of the most likely words. 0: all words."
        ),
        group=ANSWERS,
        highest=1000,
    ),
    Setting(
        name="repetition_penalty",
        default=1.0,
        label=QT_TRANSLATE_NOOP("Settings", "Repetition penalty"),
        help=QT_TRANSLATE_NOOP(
            "Settings", "Above 1, words that already occurred become less likely. 1: off."
        ),
        group=ANSWERS,
        lowest=0.5,
        highest=2,
    ),
    Setting(name="model", default=""),
    Setting(name="recent_models", default=[]),
    Setting(name="presets", default=[]),
    Setting(name="batch_folder", default=""),
    Setting(name="batch_question", default=""),
    Setting(name="batch_output", default=""),
    Setting(name="geometry", default=""),
)


@dataclass
class Preferences:
    """The values, by name; `changed` is told the name of each that gets another value.

    path     of the JSON file; None keeps nothing
    problem  why the file could not be read or written, one sentence; "" when all is well
    """

    path: Path | None = None
    declared: tuple[Setting, ...] = SETTINGS
    problem: str = ""
    _values: dict[str, Value] = field(default_factory=dict)
    _foreign: dict[str, Any] = field(default_factory=dict)
    _listeners: list[Callable[[str], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = {setting.name: setting for setting in self.declared}
        for name, value in self._read().items():
            setting = self._known.get(name)
            checked = setting.check(value) if setting else None
            if setting is None:
                self._foreign[name] = value  # of a newer version, which wants it back
            elif checked is not None:
                self._values[name] = checked

    def get(self, name: str) -> Any:
        """Give a value, or its default; KeyError for a name that is not declared."""
        return self._values.get(name, self._known[name].default)

    def set(self, name: str, value: Value) -> None:
        """Set and save a value; ValueError when the declaration does not allow it."""
        checked = self._known[name].check(value)
        if checked is None:
            raise ValueError(f"{name} can't be {value!r}.")
        if checked == self.get(name):
            return
        self._values[name] = checked
        self.save()
        for listener in list(self._listeners):
            listener(name)

    def add_listener(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the name of each setting that changes."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[str], None]) -> None:
        """Call a listener no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def groups(self) -> Iterable[tuple[str, tuple[Setting, ...]]]:
        """Give each heading with its settings, in the order of the declaration."""
        names = dict.fromkeys(setting.group for setting in self.declared if setting.group)
        for name in names:
            yield name, tuple(setting for setting in self.declared if setting.group == name)

    def save(self) -> None:
        """Write the file whole or not at all; `problem` says so when it can't be."""
        if self.path is None:
            return
        values = self._foreign | self._values
        text = json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True)
        try:
            write_atomic(self.path, text.encode())
        except OSError as error:
            self.problem = f"The settings can't be saved: {error.strerror or error}."
        else:
            self.problem = ""

    def _read(self) -> dict[str, Any]:
        try:
            if self.path is None or not self.path.exists():
                return {}
            data = self.path.read_bytes()
        except OSError as error:
            why = error.strerror or error
            self.problem = f"The settings can't be read, the defaults are used: {why}."
            return {}
        try:
            values = json.loads(data)
        except ValueError:
            return self._put_aside(self.path)
        return values if isinstance(values, dict) else self._put_aside(self.path)

    def _put_aside(self, path: Path) -> dict[str, Any]:
        """Keep a damaged file under another name, out of the way of the next save."""
        aside = path.with_name(f"{path.name}.damaged")
        self.problem = "The settings file is damaged; the defaults are used."
        with suppress(OSError):
            path.replace(aside)
            self.problem += f" The file is kept as {aside.name}."
        return {}


def sampling_of(settings: Preferences) -> Sampling:
    """Give how answers are made."""
    get = settings.get
    return Sampling(
        max_new_tokens=get("max_new_tokens"),
        temperature=get("temperature"),
        top_p=get("top_p"),
        top_k=get("top_k"),
        repetition_penalty=get("repetition_penalty"),
    )


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is the old one or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
