"""The entry in the menu of a Linux desktop."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PySide6.QtCore import QProcess
from PySide6.QtWidgets import QApplication

from cogvlm2_lite.errors import UsageError
from gui import command, theme
from gui.desktop_entry import LAUNCHER, install, menu_folder, remove


def entry_of(file: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.read(file, encoding="utf-8")
    return parser["Desktop Entry"]


@pytest.mark.skipif(sys.platform == "win32", reason="of Linux desktops")
def test_the_command_writes_an_entry_and_an_icon_and_takes_them_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    other = tmp_path / "applications" / "other.desktop"
    other.parent.mkdir()
    other.write_text("of another program")
    assert command.main(["--install-shortcut"]) == 0
    entry = tmp_path / "applications" / "cogvlm2-lite.desktop"
    icon = tmp_path / "icons" / "hicolor" / "scalable" / "apps" / "cogvlm2-lite.svg"
    assert str(entry) in capsys.readouterr().out
    assert entry_of(entry)["Icon"] == icon.stem
    assert ElementTree.parse(icon).getroot().tag.endswith("svg")
    if shutil.which("desktop-file-validate"):
        subprocess.run(["desktop-file-validate", str(entry)], check=True)
    assert command.main(["--remove-shortcut"]) == 0
    assert not entry.exists()
    assert not icon.exists()
    assert other.exists()
    capsys.readouterr()
    assert command.main(["--remove-shortcut"]) == 0
    assert capsys.readouterr().out == "There was no menu entry.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="of Linux desktops")
def test_the_entry_starts_the_program(tmp_path: Path) -> None:
    entry, _ = install(tmp_path)
    # Qt splits at quotes too; these paths hold nothing that the two would read differently.
    program, *arguments = QProcess.splitCommand(entry_of(entry)["Exec"])
    assert (program, *arguments) == (*LAUNCHER, "%F")
    done = subprocess.run(
        [program, *arguments[:-1], "--help"], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "--install-shortcut" in done.stdout


@pytest.mark.skipif(
    not (shutil.which("gio") and shutil.which("update-desktop-database")),
    reason="needs gio and update-desktop-database",
)
def test_the_desktop_offers_the_program_for_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for kind in ("image/jpeg", "image/webp", "image/heif"):
        found = subprocess.run(["gio", "mime", kind], capture_output=True, text=True, check=False)
        assert "cogvlm2-lite.desktop" in found.stdout


def test_the_entry_names_the_kinds_that_can_be_read(tmp_path: Path) -> None:
    entry, _ = install(tmp_path)
    kinds = entry_of(entry)["MimeType"]
    assert kinds.endswith(";")
    assert set(kinds.split(";")) >= {"image/jpeg", "image/png", "image/heic", "image/avif"}


def test_special_characters_are_quoted_as_the_specification_says(tmp_path: Path) -> None:
    entry, _ = install(tmp_path, ["/a b/$c", "100%", 'say "x"', "\\"])
    assert entry_of(entry)["Exec"] == r'"/a b/\\$c" "100%%" "say \\"x\\"" "\\\\" %F'


def test_a_folder_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "icons").write_text("in the way")
    with pytest.raises(UsageError, match="can't be written"):
        install(tmp_path)


def test_the_folder_is_the_desktops(tmp_path: Path) -> None:
    assert menu_folder({}, tmp_path) == tmp_path / ".local" / "share"
    assert menu_folder({"XDG_DATA_HOME": "/data"}, tmp_path) == Path("/data")
    assert menu_folder({"XDG_DATA_HOME": "relative"}, tmp_path) == tmp_path / ".local" / "share"
    assert remove(tmp_path) == ()


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_told_where_the_recipe_is(platform: str) -> None:
    with pytest.raises(UsageError) as refused:
        command.change_menu(install=True, platform=platform)
    assert "docs/desktop.md" in refused.value.hint


def test_the_window_has_the_same_icon(qapp: QApplication) -> None:
    colour = theme.app_icon().pixmap(64).toImage().pixelColor(32, 6)
    assert colour.name() == "#2f6f63"
