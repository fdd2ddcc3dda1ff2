"""The memory page: bars that are the plan's, a budget that redraws them, a meter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.events import Progress, Replanned, TextDelta
from cogvlm2_lite.forecast.table import rate
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB
from gui import theme
from gui.budget import BudgetBox, Limits, Range, limits_for
from gui.data.report import FILE, PAGE, read_report
from gui.memory.bars import PlanBars, colour_of
from gui.memory.meter import MeterBar, Reading, read
from gui.memory.page import MemoryPage
from gui.memory.plan import (
    Bar,
    Device,
    PlanView,
    devices_of,
    parts_of,
    plan_for,
)
from gui.pages.quality import QualityCard
from gui.part_names import NAMES
from tests.helpers.desk import Desk, Script


def device(**values: object) -> Device:
    bar = Bar(
        phase="decode",
        held=(("language expert", 600), ("key/value cache", 200)),
        from_ram=(("vision tower", 400),),
    )
    return Device(**{"name": "GPU", "budget_bytes": 1000, "bars": (bar,), **values})  # type: ignore[arg-type]


def test_bars_are_the_plans_numbers() -> None:
    shown = plan_for(None, vram="8GiB", ram=None)
    (gpu,) = shown.devices
    assert gpu.peak_bytes <= gpu.budget_bytes <= 8 * GIB
    assert [bar.phase for bar in gpu.bars] == [
        "encode", "prefill with picture", "prefill of text", "decode",
    ]  # fmt: skip
    assert set(gpu.parts_from("from_ram")) == {"vision tower", "projector", "vision expert"}
    assert gpu.parts_from("from_disk") == ()
    assert set(parts_of(shown.devices)) <= set(NAMES)
    assert shown.tables[0].title.startswith(f"{gpu.name}: ")
    assert f"{rate(shown.tokens_per_s)} tokens/s" in shown.summary


def test_a_plan_of_the_engine_without_a_forecast_has_bars_too() -> None:
    phase = {
        "phase": "decode", "resident_bytes": {"lm_head": 5}, "streamed_bytes": {"projector": 3},
        "buffer_bytes": 2, "cache_bytes": 0, "scratch_bytes": 1,
    }  # fmt: skip
    plan = {"devices": [{"device": "cpu", "budget_bytes": 9, "phases": [phase]}]}
    (found,) = devices_of(plan)
    assert found.bars[0].held == (("lm_head", 5), ("stream buffers", 2), ("activations", 1))
    assert found.bars[0].streamed == (("projector", 3),)


def test_what_does_not_fit_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(DoesNotFitError):
        plan_for(None, vram="512MiB", ram=None)


@pytest.mark.parametrize(
    "direction", [Qt.LayoutDirection.LeftToRight, Qt.LayoutDirection.RightToLeft]
)
def test_a_bar_is_as_long_as_its_bytes(qtbot: QtBot, direction: Qt.LayoutDirection) -> None:
    bars = PlanBars()
    qtbot.addWidget(bars)
    bars.setLayoutDirection(direction)
    bars.resize(900, 100)
    bars.show_devices((device(),))
    picture = bars.grab().toImage()
    scale = picture.devicePixelRatio()
    y = round((bars.fontMetrics().height() + 10 + 9) * scale)
    row = [picture.pixelColor(x, y).name() for x in range(picture.width())]
    parts = ("language expert", "key/value cache")
    empty = QColor(theme.current().code)  # the rest of the budget
    room = sum(row.count(colour.name()) for colour in (*map(colour_of, parts), empty))
    assert 400 * scale < room < 900 * scale
    for part, share in zip(parts, (0.6, 0.2), strict=True):
        count = row.count(colour_of(part).name())
        assert abs(count - share * room) <= 3, part
    first, second = (row.index(colour_of(part).name()) for part in parts)
    assert (first < second) is (direction is Qt.LayoutDirection.LeftToRight)


def test_parts_have_colours_of_their_own() -> None:
    parts = [word for word in NAMES if word not in ("embedding", "encode", "decode")]
    parts = [word for word in parts if not word.startswith("prefill")]
    colours = [colour_of(part).name() for part in parts]
    assert len(set(colours)) == len(colours)
    assert QColor("#888888").name() not in colours


def open_page(desk: Desk) -> MemoryPage:
    desk.program.window.show_page("memory")
    page = desk.program.window.page("memory")
    assert isinstance(page, MemoryPage)
    return page


def test_the_slider_redraws_the_plan_and_says_what_is_needed(desk: Desk) -> None:
    page = open_page(desk)
    page.slider.setValue(32)
    desk.qtbot.waitUntil(lambda: "of 7.62 GiB on GPU" in page.needs.text(), timeout=10_000)
    assert page.needs.text().startswith("CogVLM2 19B in 4 bits needs 7.")
    assert page.needs.text().endswith(
        "projector, vision tower, vision expert will be read from RAM."
    )
    assert "looking at a picture" in page.bars.accessibleDescription()
    page.kind.setCurrentIndex(1)
    page.slider.setValue(64)
    desk.qtbot.waitUntil(lambda: " of RAM" in page.needs.text(), timeout=10_000)


@pytest.mark.parametrize(
    ("kind", "shown", "step"),
    [("vram", "at least 2.60 GiB", 11), ("ram", "at least 2.42 GiB", 10)],
)
def test_a_budget_in_which_the_model_does_not_fit_can_not_be_chosen(
    desk: Desk, kind: str, shown: str, step: int
) -> None:
    least = limits_for(None).of(kind).least
    page = open_page(desk)
    page.kind.setCurrentIndex(page.kind.findData(kind))
    page.slider.setValue(1)
    desk.qtbot.waitUntil(lambda: shown in page.reason.text(), timeout=10_000)
    desk.qtbot.waitUntil(lambda: page.slider.value() == step, timeout=10_000)
    page.slider.setValue(0)
    assert page.slider.value() == step, "the first step of 0.25 GiB above the least"
    assert plan_with(kind, least).devices
    with pytest.raises(DoesNotFitError):
        plan_with(kind, least - 1)


def plan_with(kind: str, nbytes: int) -> PlanView:
    amount = str(nbytes)
    return plan_for(
        None, vram=amount if kind == "vram" else None, ram=amount if kind == "ram" else None
    )


def test_what_this_computer_does_not_have_is_planned_and_not_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = Range(least=GIB, most=8 * GIB)
    gpu = Limits(vram=Range(least=GIB, most=6 * GIB), ram=most, gpus=("RTX 3050",))
    cpu = Limits(vram=Range(least=GIB, most=0), ram=most)
    found = [cpu]
    monkeypatch.setattr("gui.memory.page.limits_for", lambda folder: found[0])
    desk.open_demo()
    page = open_page(desk)

    def chosen(kind: str, gib: int) -> tuple[bool, str]:
        page.reason.clear()
        page.kind.setCurrentIndex(page.kind.findData(kind))
        page.slider.setValue(4 * gib)
        page.plan()
        desk.qtbot.waitUntil(lambda: "at least" in page.reason.text(), timeout=10_000)
        return page.use_button.isEnabled(), page.reason.text()

    no_gpu = "This computer has no GPU that can be used: the model runs on the processor, in RAM."
    assert chosen("vram", 4) == (
        False,
        f"{no_gpu} The model needs at least 1.00 GiB of video memory. "
        "This plan is for another computer.",
    )
    assert chosen("ram", 8) == (True, f"{no_gpu} The model needs at least 1.00 GiB of RAM.")
    possible, reason = chosen("ram", 9)
    assert (possible, reason.endswith("has 8.00 GiB of RAM, so this plan is for another one.")) == (
        False, True,
    )  # fmt: skip
    found[0] = gpu
    page.plan()
    desk.qtbot.waitUntil(lambda: "GPU of this computer: RTX 3050." in page.reason.text())
    assert chosen("vram", 6)[0]
    assert not chosen("vram", 7)[0]
    assert not chosen("ram", 4)[0], "the model runs on the GPU"


def test_the_released_model_can_be_planned_while_another_one_is_open(desk: Desk) -> None:
    desk.open_demo()
    page = open_page(desk)
    assert page.model.currentText() == "demo"
    page.model.setCurrentIndex(page.model.findText("CogVLM2 19B in 4 bits"))
    page.model.activated.emit(page.model.currentIndex())
    page.slider.setValue(32)
    desk.qtbot.waitUntil(lambda: "of 7.62 GiB on GPU" in page.needs.text(), timeout=10_000)
    assert page.needs.text().startswith("CogVLM2 19B in 4 bits needs 7.")
    assert not page.use_button.isEnabled()
    assert "To use it, open its folder first." in page.reason.text()
    desk.program.engine.state_changed.emit()
    assert page.model.currentText() == "CogVLM2 19B in 4 bits", "the choice stays"


def budget_box(desk: Desk, label: str) -> BudgetBox:
    desk.program.window.show_page("settings")
    page = desk.program.window.page("settings")
    assert page is not None
    [box] = [b for b in page.findChildren(BudgetBox) if b.accessibleName() == label]
    return box


def test_the_settings_take_only_budgets_that_are_possible(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(
        vram=Range(least=GIB, most=0), ram=Range(least=5 * GIB // 2 - 1, most=8 * GIB + 5)
    )
    monkeypatch.setattr("gui.budget.limits_for", lambda folder: limits)
    box, settings = budget_box(desk, "RAM"), desk.program.settings
    desk.qtbot.waitUntil(lambda: box.maximum() == 8)
    assert box.text() == "All that is free"
    box.stepUp()
    assert settings.get("ram") == "2.5GiB"
    box.stepDown()
    assert settings.get("ram") == ""
    box.selectAll()
    QTest.keyClicks(box, "1")
    QTest.keyClick(box, Qt.Key.Key_Return)
    assert (settings.get("ram"), box.value()) == ("2.5GiB", 2.5)
    box.selectAll()
    QTest.keyClicks(box, "99")
    QTest.keyClick(box, Qt.Key.Key_Return)
    assert LoadOptions(folder=Path(), ram=settings.get("ram")).ram in ("2.5GiB", "8GiB")
    assert box.value() <= 8
    assert not budget_box(desk, "Video memory").isEnabled()
    shown = [label.text() for label in desk.program.window.findChildren(QLabel)]
    assert "This computer has no GPU that can be used." in shown
    assert "The model needs at least 2.50 GiB; this computer has 8.00 GiB." in shown


def test_a_budget_of_an_earlier_version_is_shown_as_it_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.program.settings.set("ram", "512MiB")
    box = budget_box(desk, "RAM")
    desk.qtbot.waitUntil(lambda: box.maximum() < 4096)
    assert box.value() == 0.5
    assert desk.program.settings.get("ram") == "512MiB"


def test_a_budget_is_used_for_the_open_model(desk: Desk) -> None:
    page = open_page(desk)
    assert not page.use_button.isEnabled()
    desk.open_demo()
    page.kind.setCurrentIndex(1)
    page.slider.setValue(10)
    desk.qtbot.waitUntil(page.use_button.isEnabled, timeout=10_000)
    first = desk.engine
    page.use_button.click()
    desk.qtbot.waitUntil(lambda: desk.engine is not first)
    desk.qtbot.waitUntil(lambda: bool(desk.program.settings.get("ram")))
    assert desk.engine.options.ram == "2.5GiB"
    assert desk.program.settings.get("ram") == "2.5GiB"


def test_the_meter_reads_the_engines_process() -> None:
    reading = read(os.getpid())
    assert reading.engine > 10_000_000
    assert reading.engine + reading.others + reading.free == reading.total
    assert read(2**22 + 1).engine == 0  # no such process


def test_the_meter_runs_while_it_is_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([Reading(total=GIB * 8, free=GIB * 6, engine=GIB)] * 99)
    monkeypatch.setattr("gui.memory.page.read", lambda pid: next(readings))
    page = open_page(desk)
    assert page.now.text() == (
        "RAM now: engine 1.00 GiB, other programs 1.00 GiB, 6.00 GiB of 8.00 GiB free."
    )
    (clock,) = (timer for timer in page.findChildren(QTimer) if not timer.isSingleShot())
    assert clock.isActive()
    assert isinstance(page.meter, MeterBar)
    desk.program.window.show_page("chat")
    assert not clock.isActive()


def test_what_the_engine_holds_and_plans_anew_is_shown(desk: Desk, script: Script) -> None:
    page = open_page(desk)
    script.events = [
        Progress(phase="encode", done=1, total=2, held_bytes=3 * GIB),
        Progress(phase="prefill", done=1, total=2, held_bytes=2 * GIB),
        TextDelta(text="x"),
    ]
    desk.open_demo()
    desk.ask("How much?")
    assert page.held.text() == "The model's weights and buffers: 2.00 GiB now, 3.00 GiB at most."
    script.events = [
        Replanned(text=Text("Memory ran out."), budget_bytes=(1,)),
        TextDelta(text="x"),
    ]
    desk.ask("And now?")
    assert page.held.text() == "Memory ran out."


def report(folder: Path, error: float | None) -> None:
    part = {
        "part": "vision tower", "source_bytes": 4000, "bytes": 1000, "bits_per_weight": 4.1,
        "median_error_of_nearest": error,
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps({"parts": [part]}))


def test_a_conversions_report_is_shown_in_short(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        "gui.pages.quality.QDesktopServices.openUrl", lambda url: opened.append(url.toLocalFile())
    )
    card = QualityCard()
    qtbot.addWidget(card)
    report(tmp_path, 0.81)
    (tmp_path / PAGE).write_text("<html>")
    card.show_report(read_report(tmp_path))
    assert card.text.text().startswith("0.98 KiB instead of 3.91 KiB, 4.0 times smaller.")
    assert card.drawing.accessibleDescription() == "vision tower: 3.91 KiB → 0.98 KiB, 81%"
    card.drawing.grab()
    card.open_button.click()
    assert opened == [str(tmp_path / PAGE)]
    report(tmp_path, None)
    card.show_report(read_report(tmp_path))
    assert "not calibrated" in card.text.text()


@pytest.mark.parametrize("content", ["", "[]", '{"parts": [1]}', '{"parts": [{"part": "x"}]}'])
def test_a_report_that_can_not_be_read_is_left_out(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert read_report(tmp_path) is None
    assert read_report(tmp_path / "gone") is None
