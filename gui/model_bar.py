"""The bar above the pages: a button with the model's name and a menu, and the model's state."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from cogvlm2_lite.backends.registry import backends
from cogvlm2_lite.events import Progress
from cogvlm2_lite.worker.client import EngineState, News
from cogvlm2_lite.worker.protocol import Loaded, Loading
from gui import theme
from gui.chat.progress import Estimate, Phase, describe
from gui.context import Context, demo_folder, model_name
from gui.translation import fill

_TICK_MS = 250
_MOST_NAME, _MOST_ADAPTER = 32, 16
"""Letters of a name that a button shows."""


class StateLabel(QLabel):
    """One line of text, cut to the width there is. The tooltip has all of it."""

    def __init__(self) -> None:
        super().__init__()
        self._whole = ""
        self.setProperty("kind", "soft")
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    @property
    def whole(self) -> str:
        """The text, also where there is no room for it."""
        return self._whole

    def show_text(self, text: str) -> None:
        """Show a text."""
        if text != self._whole:
            self._whole = text
            self.setToolTip(text)
            self.setAccessibleDescription(text)
            self._cut()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Cut the text anew."""
        super().resizeEvent(event)
        self._cut()

    def _cut(self) -> None:
        side = Qt.TextElideMode.ElideRight
        self.setText(self.fontMetrics().elidedText(self._whole, side, self.width()))


class ModelBar(QWidget):
    """The model that is open, its state, and a menu to open others.

    Its choices go through the context: a folder is remembered when it is loaded.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._estimate = Estimate(1)
        self.setObjectName("models")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 4, 12, 4)
        row.setSpacing(10)
        self.menu = QMenu(self)
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self._fill)
        self.button = QToolButton()
        self.button.setIcon(theme.icon("model"))
        self.button.setIconSize(QSize(18, 18))
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.button.setMenu(self.menu)
        self.button.setProperty("kind", "menu")
        row.addWidget(self.button)
        self.adapter_menu = QMenu(self)
        self.adapter_menu.setToolTipsVisible(True)
        self.adapter_menu.aboutToShow.connect(self._fill_adapters)
        self.adapter_button = QToolButton()
        self.adapter_button.setIcon(theme.icon("teach"))
        self.adapter_button.setIconSize(QSize(18, 18))
        self.adapter_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.adapter_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.adapter_button.setMenu(self.adapter_menu)
        self.adapter_button.setProperty("kind", "menu")
        row.addWidget(self.adapter_button)
        self.state = StateLabel()
        row.addWidget(self.state, 1)
        self.progress = QProgressBar()
        self.progress.setAccessibleName(self.tr("Progress of loading"))
        self.progress.setFixedWidth(120)
        row.addWidget(self.progress)
        self.cancel_button = QPushButton(self.tr("Cancel"))
        self.cancel_button.setAccessibleName(self.tr("Cancel loading the model"))
        self.cancel_button.clicked.connect(lambda: context.engine.client.cancel_open())
        row.addWidget(self.cancel_button)
        self._clock = QTimer(self)
        self._clock.setInterval(_TICK_MS)
        self._clock.timeout.connect(self._show_progress)
        context.engine.state_changed.connect(self.show_state)
        context.engine.news.connect(self._take_news)
        self.show_state()

    def show_state(self) -> None:
        """Show the model and its state."""
        client = self._context.engine.client
        options, state = client.opening or client.options, client.state
        folder = options.folder if options is not None else None
        name = model_name(folder) if folder is not None else self.tr("No model")
        self.button.setText(_escaped(_short(name, _MOST_NAME)))
        self.button.setToolTip(str(folder) if folder is not None else "")
        self.button.setAccessibleName(fill(self.tr("Model: {name}"), name=_short(name, _MOST_NAME)))
        self._show_adapter(folder)
        loading = state is EngineState.LOADING
        if loading and not self._clock.isActive():
            self._estimate = Estimate(1)
        self.progress.setVisible(loading)
        self.cancel_button.setVisible(loading)
        if loading:
            self._clock.start()
            self._show_progress()
            return
        self._clock.stop()
        self.state.show_text(self._describe(state, client.loaded, opened=options is not None))

    def _show_adapter(self, model: Path | None) -> None:
        """Show which adapter the next answers use."""
        used = self._context.adapters.used(model) if model is not None else None
        name = used.name if used is not None else self.tr("No adapter")
        self.adapter_button.setText(_escaped(_short(name, _MOST_ADAPTER)))
        self.adapter_button.setToolTip(str(used.folder) if used is not None else "")
        self.adapter_button.setAccessibleName(fill(self.tr("Adapter: {name}"), name=name))
        self.adapter_button.setVisible(model is not None)

    def ask_for_adapter(self) -> None:
        """Ask for the folder of an adapter, and use it."""
        begin = str(self._context.data / "adapters")
        folder = QFileDialog.getExistingDirectory(
            self, self.tr("Choose the folder of an adapter"), begin
        )
        if folder:
            self._context.use_adapter(Path(folder))

    def ask_for_folder(self) -> None:
        """Ask for a model folder, and open it."""
        client, begin = self._context.engine.client, ""
        if client.options is not None and client.options.folder != demo_folder():
            begin = str(client.options.folder.parent)
        folder = QFileDialog.getExistingDirectory(self, self.tr("Open a model folder"), begin)
        if folder:
            self._context.open_model(Path(folder))

    def _describe(self, state: EngineState, loaded: Loaded | None, *, opened: bool) -> str:
        if self._context.engine.client.lent:
            return self.tr(
                "Unloaded while a batch, an evaluation or a training run uses the memory."
            )
        if state is EngineState.READY:
            return self._place(loaded.compute if loaded is not None else "")
        if state is EngineState.DEAD:
            return self.tr("The engine has stopped. The next question starts it again.")
        if opened:
            return self.tr("Unloaded. The next question loads it again.")
        return self.tr("Choose a model.")

    def _place(self, compute: str) -> str:
        """Return where a loaded model runs. compute: as in Loaded"""
        device = compute.partition(",")[0]
        if any(backend.uses_ram and backend.kind == device for backend in backends()):
            return self.tr("Ready. It runs on the processor, without a GPU.")
        if device:
            return fill(self.tr("Ready. It runs on the GPU ({device})."), device=device)
        return self.tr("Ready.")

    def _take_news(self, news: News) -> None:
        if isinstance(news, Loading):
            self._estimate.see(
                Progress(
                    phase="load", done=news.done_bytes, total=news.total_bytes,
                    held_bytes=news.done_bytes,
                )
            )  # fmt: skip
            if self._clock.isActive():
                self._show_progress()

    def _show_progress(self) -> None:
        phase = self._estimate.phase()
        known = phase.share is not None
        self.progress.setRange(0, 1000 if known else 0)
        self.progress.setValue(round(1000 * (phase.share or 0.0)))
        self.state.show_text(describe(phase if known else Phase(name="load")))

    # --- the menu ---------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Make the menu: it shows what can be done now."""
        context, menu = self._context, self.menu
        client = context.engine.client
        busy, here = client.answering or client.lent, client.options
        menu.clear()
        recent = [Path(name) for name in context.settings.get("recent_models")]
        for folder in recent:
            action = self._add(_row(folder), partial(context.open_model, folder), enabled=not busy)
            action.setToolTip(str(folder))
            action.setCheckable(True)
            action.setChecked(here is not None and folder == here.folder)
        if recent:
            menu.addSeparator()
        self._add(self.tr("Open a model folder…"), self.ask_for_folder, enabled=not busy)
        demo = demo_folder()
        if demo is not None and demo not in recent:
            opens = partial(context.open_model, demo)
            self._add(self.tr("Open the demo model"), opens, enabled=not busy)
        if here is not None and client.state is not EngineState.READY:
            loads = client.state is not EngineState.LOADING and not busy
            self._add(self.tr("Load again"), context.load_model, enabled=loads)
        else:
            self._add(
                self.tr("Unload"),
                client.unload,
                enabled=client.state is EngineState.READY and not busy,
            )
        menu.addSeparator()
        self._add(
            self.tr("Convert a downloaded checkpoint…"), partial(context.show_page, "convert")
        )
        self._add(self.tr("Memory of the model…"), partial(context.show_page, "memory"))
        if client.answering:
            self._add(self.tr("To change the model, stop the answer first."), None)

    def _fill_adapters(self) -> None:
        """Make the menu of the adapters: it shows what can be done now."""
        context, menu = self._context, self.adapter_menu
        client = context.engine.client
        options = client.options
        menu.clear()
        if options is None:
            return
        busy = client.answering or client.lent or client.opening is not None
        known, used = context.adapters.of(options.folder), context.adapters.used(options.folder)
        none = self._add(self.tr("No adapter"), partial(context.use_adapter, None), menu=menu)
        none.setCheckable(True)
        none.setChecked(used is None)
        for choice in known:
            use = partial(context.use_adapter, choice.folder)
            # Another one that is loaded is used without a wait, also during an answer.
            can = not busy or choice in options.adapters
            action = self._add(_escaped(choice.name), use, menu=menu, enabled=can)
            action.setToolTip(str(choice.folder))
            action.setCheckable(True)
            action.setChecked(choice == used)
        menu.addSeparator()
        self._add(self.tr("Add an adapter…"), self.ask_for_adapter, menu=menu, enabled=not busy)
        self._add(self.tr("Teach a new adapter…"), partial(context.show_page, "teach"), menu=menu)
        if known:
            remove = menu.addMenu(self.tr("Remove from this list"))
            for choice in known:
                forget = partial(context.adapters.forget, options.folder, choice)
                self._add(_escaped(choice.name), forget, menu=remove)

    def _add(
        self, text: str, do: object, *, enabled: bool = True, menu: QMenu | None = None
    ) -> QAction:
        action = (menu or self.menu).addAction(text)
        action.setEnabled(enabled and do is not None)
        if callable(do):
            action.triggered.connect(lambda _=False: do())
        return action


def _row(folder: Path) -> str:
    """Return the text of a recent folder: its name, and where it is."""
    name = model_name(folder)
    place = "" if name == "demo" else f"  ({folder.parent})"
    return _escaped(f"{name}{place}")


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _escaped(text: str) -> str:
    """Return a text for a menu or button, in which "&" marks a key."""
    return text.replace("&", "&&")
