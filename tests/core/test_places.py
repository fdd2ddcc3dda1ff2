"""The folders of the program where there is no home, or nothing can be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogvlm2_lite.cli.main import main
from cogvlm2_lite.errors import FolderError
from cogvlm2_lite.places import (
    cache_folder,
    check_cache,
    data_folder,
    expand_home,
    prepare_cache,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such users")
Capture = pytest.CaptureFixture[str]
VARIABLES = (
    "HOME", "COGVLM2_LITE_CACHE", "COGVLM2_LITE_DATA", "XDG_CACHE_HOME", "XDG_DATA_HOME",
)  # fmt: skip
BLOCKED = "/proc/cogvlm2-lite"
"""Nobody can make a folder here, not even root."""


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A user without HOME and without an entry in the list of users, as in many containers."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    return monkeypatch


def test_without_a_home_the_error_names_the_variable(homeless: pytest.MonkeyPatch) -> None:
    for find, variable in ((cache_folder, "CACHE"), (data_folder, "DATA")):
        with pytest.raises(FolderError) as caught:
            find()
        assert f"COGVLM2_LITE_{variable}" in caught.value.hint
        homeless.setenv(f"COGVLM2_LITE_{variable}", "~/somewhere")
        with pytest.raises(FolderError):
            find()
        homeless.setenv(f"COGVLM2_LITE_{variable}", "/tmp/somewhere")
        assert find() == Path("/tmp/somewhere")


@pytest.mark.parametrize("argv", [["demo"], ["ask", "demo", "Hi", "--keep-pictures", "1GiB"]])
def test_commands_that_need_the_cache_name_its_variable(
    homeless: pytest.MonkeyPatch, capsys: Capture, argv: list[str]
) -> None:
    for home in (None, "/proc"):
        if home:
            homeless.setenv("HOME", home)
        assert main(argv) == 1
        shown = capsys.readouterr().err
        assert "COGVLM2_LITE_CACHE" in shown
        assert "Traceback" not in shown


def test_commands_that_need_no_cache_work_without_a_home(
    homeless: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    assert main(["plan", "demo"]) == 0
    assert main(["quantize", "~no/such", str(tmp_path / "q"), "--yes"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_window_names_the_variable_of_its_data(
    homeless: pytest.MonkeyPatch, capsys: Capture
) -> None:
    homeless.setenv("QT_QPA_PLATFORM", "offscreen")
    assert main(["gui"]) == 1
    assert "COGVLM2_LITE_DATA" in capsys.readouterr().err
    assert main(["gui", "--install-shortcut"]) == 1
    assert "XDG_DATA_HOME" in capsys.readouterr().err


def test_doctor_goes_on_and_reports_the_cache(
    homeless: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    homeless.chdir(gone)
    gone.rmdir()
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "Plan now" in shown
    assert "working folder" in shown
    assert shown.split("Problems")[1].count("COGVLM2_LITE_CACHE") == 1


def test_a_cache_that_can_not_be_written_is_an_error_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (BLOCKED, str(file), str(file / "below"), "/" + "x" * 300):
        monkeypatch.setenv("COGVLM2_LITE_CACHE", place)
        with pytest.raises(FolderError) as caught:
            prepare_cache("pictures")
        assert "COGVLM2_LITE_CACHE" in caught.value.hint
    monkeypatch.setenv("COGVLM2_LITE_CACHE", str(tmp_path / "new" / "cache"))
    check_cache()
    assert not (tmp_path / "new").exists()
    assert prepare_cache("pictures").is_dir()


def test_a_tilde_is_a_home_only_if_no_file_has_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home("~/a.png") == Path("/home/me/a.png")
    assert expand_home("~nobody-here") == Path("~nobody-here")
    Path("~").mkdir()
    Path("~/a.png").touch()
    Path("~b.png").touch()
    assert expand_home("~/a.png") == Path("~/a.png")
    assert expand_home("~b.png") == Path("~b.png")
