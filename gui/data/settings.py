"""The window's settings: each is declared once, and all are saved in one JSON file. No Qt here.

The settings page is built from the declarations in `SETTINGS`, and the file is checked by them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from gui.translatable import QT_TRANSLATE_NOOP

Value = bool | int | float | str | list[str]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    name     in the file and in the code
    default  its type is the setting's type; a list has strings
    label, help  shown on the settings page; in English here, translated when shown
    group    the heading on the page; "" if no page shows the setting
    choices  the allowed values as (value, label) pairs
    lowest, highest  limits of numbers, inclusive
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
        """Return the value in the setting's type, or None if it is not allowed."""
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


APPEARANCE = QT_TRANSLATE_NOOP("Settings", "Appearance")
MODEL = QT_TRANSLATE_NOOP("Settings", "Model")
ANSWERS = QT_TRANSLATE_NOOP("Settings", "Answers")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="language",
        default="system",
        label=QT_TRANSLATE_NOOP("Settings", "Language"),
        help=QT_TRANSLATE_NOOP("Settings", "The language of the window."),
        group=APPEARANCE,
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
        group=APPEARANCE,
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
        group=APPEARANCE,
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
            "Settings", "The most the model may use on each GPU, the next time it is loaded."
        ),
        group=MODEL,
    ),
    Setting(
        name="ram",
        default="",
        label=QT_TRANSLATE_NOOP("Settings", "RAM"),
        help=QT_TRANSLATE_NOOP(
            "Settings", "The most the model may use, the next time it is loaded."
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
    Setting(name="adapters", default=[]),
    Setting(name="second_picture_new", default=True),
    Setting(name="recent_pictures", default=[]),
    Setting(name="presets", default=[]),
    Setting(name="batch_folder", default=""),
    Setting(name="batch_question", default=""),
    Setting(name="batch_output", default=""),
    Setting(name="batch_prefix", default=""),
    Setting(name="batch_suffix", default=""),
    Setting(name="batch_existing", default=[]),
    Setting(name="evaluate_benchmarks", default=["demo-vqa"]),
    Setting(name="evaluate_data", default=""),
    Setting(name="evaluate_limit", default=0, highest=100_000),
    Setting(name="evaluate_against", default=""),
    Setting(name="evaluate_output", default=""),
    Setting(name="teach_data", default=""),
    Setting(name="teach_output", default=""),
    Setting(name="teach_aim", default="captions"),
    Setting(name="teach_epochs", default=0, highest=1000),
    Setting(name="teach_replay", default=""),
    Setting(name="teach_share", default=30, lowest=1, highest=100),
    Setting(name="teach_question", default=""),
    Setting(name="teach_labels", default=""),
    Setting(name="export_folder", default=""),
    Setting(name="geometry", default=""),
    Setting(name="list_width", default=230),
    Setting(name="picture_share", default=0.56, lowest=0.1, highest=0.9),
    Setting(name="picture_share_narrow", default=0.45, lowest=0.1, highest=0.9),
)


def _at_once(job: Callable[[], None]) -> None:
    job()


def _do_nothing() -> None:
    return


@dataclass
class Preferences:
    """The values of the settings by name.

    path     of the JSON file; None: nothing is saved
    problem  why the file could not be read or written; "" without a problem
    run      runs the writing of the file, perhaps on a thread; of several that wait only the last
             one has to be run
    on_problem  called after `problem` has changed by writing the file, on the thread that writes
    """

    path: Path | None = None
    declared: tuple[Setting, ...] = SETTINGS
    problem: str = ""
    run: Callable[[Callable[[], None]], None] = _at_once
    on_problem: Callable[[], None] = _do_nothing
    _values: dict[str, Value] = field(default_factory=dict)
    _foreign: dict[str, Any] = field(default_factory=dict)
    _listeners: list[Callable[[str], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = {setting.name: setting for setting in self.declared}
        for name, value in self._read().items():
            setting = self._known.get(name)
            checked = setting.check(value) if setting else None
            if setting is None:
                self._foreign[name] = value  # of a newer version; saved again for it
            elif checked is not None:
                self._values[name] = checked

    def get(self, name: str) -> Any:
        """Return a value, or its default. Raises KeyError for an unknown name."""
        return self._values.get(name, self._known[name].default)

    def set(self, name: str, value: Value) -> None:
        """Set and save a value. Raises ValueError if the declaration does not allow it."""
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
        """Stop calling a listener."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def groups(self) -> Iterable[tuple[str, tuple[Setting, ...]]]:
        """Yield each heading with its settings, in the order of the declarations."""
        names = dict.fromkeys(setting.group for setting in self.declared if setting.group)
        for name in names:
            yield name, tuple(setting for setting in self.declared if setting.group == name)

    def save(self) -> None:
        """Write the file atomically. If that fails, set `problem`."""
        if self.path is not None:
            values = self._foreign | self._values
            text = json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True)
            self.run(partial(self._write, self.path, text))

    def _write(self, path: Path, text: str) -> None:
        try:
            write_atomic(path, text.encode())
        except OSError as error:
            why = error.strerror or error
            self.problem = Text("The settings can't be saved: {why}.", why=why)
            self.on_problem()
        else:
            recovered, self.problem = bool(self.problem), ""
            if recovered:
                self.on_problem()

    def _read(self) -> dict[str, Any]:
        try:
            if self.path is None or not self.path.exists():
                return {}
            data = self.path.read_bytes()
        except OSError as error:
            why = error.strerror or error
            self.problem = Text(
                "The settings can't be read; the defaults are used: {why}.", why=why
            )
            return {}
        try:
            values = json.loads(data)
        except ValueError:
            return self._put_aside(self.path)
        return values if isinstance(values, dict) else self._put_aside(self.path)

    def _put_aside(self, path: Path) -> dict[str, Any]:
        """Rename a damaged file, so that the next save does not overwrite it."""
        aside = path.with_name(f"{path.name}.damaged")
        self.problem = Text("The settings file is damaged; the defaults are used.")
        with suppress(OSError):
            path.replace(aside)
            self.problem = Text(
                "The settings file is damaged; the defaults are used. The file is kept as {file}.",
                file=aside.name,
            )
        return {}


def sampling_of(settings: Preferences) -> Sampling:
    """Return the sampling for answers."""
    get = settings.get
    return Sampling(
        max_new_tokens=get("max_new_tokens"),
        temperature=get("temperature"),
        top_p=get("top_p"),
        top_k=get("top_k"),
        repetition_penalty=get("repetition_penalty"),
    )


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old or the new content. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".cogvlm2-")
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
