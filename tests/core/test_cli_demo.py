"""`cogvlm2-lite demo`, the cache folder, and what ships with the package."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.demo import choose_picture, converted_folder, main
from cogvlm2_lite.cli.main import main as command_line
from cogvlm2_lite.cli.preview import draw
from cogvlm2_lite.demo.lesson import write_training_data
from cogvlm2_lite.demo.shipped import checkpoint_folder, fingerprint, sample_pictures
from cogvlm2_lite.errors import ImageError, UsageError
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.places import cache_folder, data_folder
from cogvlm2_lite.rows.read import read_rows
from tests.helpers.pages import save_three_pages
from tests.helpers.scripted_model import ScriptedModel

Capture = pytest.CaptureFixture[str]
FIRST = sample_pictures()[0]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a cache"
    monkeypatch.setenv("COGVLM2_LITE_CACHE", str(folder))
    return folder


def right_answers() -> ScriptedModel:
    return ScriptedModel([f" {asked.answer}" for asked in FIRST.questions])


def test_the_demo_converts_plans_asks_and_says_what_is_next(cache: Path, capsys: Capture) -> None:
    model = right_answers()
    assert main([], load=model.load) == 0
    shown = capsys.readouterr().out
    for part in ("quantize", "vision tower", "language expert", FIRST.path.name, "39 GB"):
        assert part in shown
    assert [a.question for a in model.asked] == [q.question for q in FIRST.questions]
    assert [a.history for a in model.asked] == [list(q.history) for q in FIRST.questions]
    for asked in FIRST.questions:
        assert f"Q: {asked.question}\nA: {asked.answer}\n" in shown
    folder = model.loaded[0].folder
    assert folder.parent == cache
    assert (folder / "config.json").is_file()


def test_a_second_start_uses_the_converted_folder_again(cache: Path, capsys: Capture) -> None:
    main([], load=right_answers().load)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    capsys.readouterr()
    main([], load=right_answers().load)
    shown = capsys.readouterr().out
    assert "cogvlm2-lite verify" in shown
    assert "$ cogvlm2-lite quantize" not in shown
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_a_damaged_copy_is_made_again(capsys: Capture) -> None:
    folder = converted_folder(Console())
    weights = next(folder.glob("*.safetensors"))
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert converted_folder(Console()) == folder
    assert weights.read_bytes() == good
    assert "is damaged and is made again." in capsys.readouterr().err


def test_a_question_of_ones_own_is_asked_alone() -> None:
    model = ScriptedModel()
    main([FIRST.path.stem, "What colour is the square?"], load=model.load)
    assert [a.question for a in model.asked] == ["What colour is the square?"]
    assert model.asked[0].history == []


def test_a_picture_of_ones_own_is_asked_three_questions(tmp_path: Path, capsys: Capture) -> None:
    model = ScriptedModel()
    main([str(save_three_pages(tmp_path))], load=model.load)
    assert len(model.asked) == 3
    assert all(a.image is not None and a.image.name == "scan.tif" for a in model.asked)
    assert capsys.readouterr().err.count("page 1 of 3") == 1


def test_a_wrong_path_costs_no_conversion(cache: Path) -> None:
    model = ScriptedModel()
    with pytest.raises(ImageError):
        main(["gone.png"], load=model.load)
    assert model.loaded == []
    assert not cache.exists()


def test_shipped_pictures_are_known_by_name() -> None:
    for picture in sample_pictures():
        assert choose_picture(picture.path.stem, None).path == picture.path


def test_a_wrong_answer_is_not_hidden(capsys: Capture) -> None:
    main([], load=ScriptedModel([" certainly not"]).load)
    assert f"The right answer is: {FIRST.questions[0].answer}" in capsys.readouterr().err


def test_every_shipped_picture_opens_and_has_questions() -> None:
    pictures = sample_pictures()
    assert len(pictures) >= 3
    for picture in pictures:
        assert open_image(picture.path).width > 100
        assert len(picture.questions) >= 3
        assert all(asked.question and asked.answer for asked in picture.questions)


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    first = fingerprint(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    (tmp_path / "a").write_bytes(b"y")
    assert fingerprint(tmp_path) != first
    assert fingerprint(checkpoint_folder()) == fingerprint(checkpoint_folder())


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG rules")
@pytest.mark.parametrize(
    ("environ", "cache", "data"),
    [
        ({}, "/home/someone/.cache/cogvlm2-lite", "/home/someone/.local/share/cogvlm2-lite"),
        (
            {"XDG_CACHE_HOME": "/caches", "XDG_DATA_HOME": "/data"},
            "/caches/cogvlm2-lite",
            "/data/cogvlm2-lite",
        ),
        (
            {"XDG_CACHE_HOME": "", "XDG_DATA_HOME": ""},
            "/home/someone/.cache/cogvlm2-lite",
            "/home/someone/.local/share/cogvlm2-lite",
        ),
        (
            {"COGVLM2_LITE_CACHE": "/mine", "COGVLM2_LITE_DATA": "~/own", "XDG_CACHE_HOME": "/x"},
            "/mine",
            "/home/someone/own",
        ),
    ],
)
def test_files_lie_where_the_system_wants_them(
    environ: dict[str, str], cache: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHE_HOME", "DATA_HOME"):
        monkeypatch.delenv(f"XDG_{name}", raising=False)
    for name in ("COGVLM2_LITE_CACHE", "COGVLM2_LITE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(cache)
    assert data_folder() == Path(data)


def test_on_windows_both_lie_directly_in_the_application_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from platformdirs import windows

    monkeypatch.setattr(windows, "get_win_folder", lambda name: f"C:/{name}")
    monkeypatch.setattr("cogvlm2_lite.places.PlatformDirs", windows.Windows)
    monkeypatch.delenv("COGVLM2_LITE_CACHE", raising=False)
    assert cache_folder() == Path("C:/CSIDL_LOCAL_APPDATA/cogvlm2-lite")
    assert data_folder() == Path("C:/CSIDL_APPDATA/cogvlm2-lite")


def test_the_preview_has_the_colours_and_the_shape_of_the_picture() -> None:
    image = Image.new("RGB", (80, 40), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 80, 20))
    lines = draw(open_image(image), width=8).splitlines()
    assert len(lines) == 2
    assert all(line.count("▀") == 8 for line in lines)
    assert "38;2;255;0;0;48;2;255;0;0" in lines[0]
    assert "38;2;0;0;255;48;2;0;0;255" in lines[1]
    assert draw(open_image(Image.new("RGB", (1, 500))), width=8).count("\n") == 4


def test_the_shipped_model_answers_its_own_pictures_right(capsys: Capture) -> None:
    assert command_line(["demo"]) == 0
    shown = capsys.readouterr()
    for asked in FIRST.questions:
        assert f"Q: {asked.question}\nA: {asked.answer}\n" in shown.out
    assert "The right answer is" not in shown.err


def test_training_data_are_a_new_shape_that_finetune_reads(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "eggs"
    assert main(["--training-data", str(folder)]) == 0
    assert "160 pictures with an egg, 480 questions" in capsys.readouterr().out
    found = read_rows(folder)
    assert not found.skipped
    assert len(found.rows) == 480
    about = [row for row in found.rows if "egg" in f"{row.turns[0].question} {row.turns[0].answer}"]
    assert 0.6 < len(about) / len(found.rows) < 1
    again = tmp_path / "again"
    write_training_data(again)
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        assert (again / file.relative_to(folder)).read_bytes() == file.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        main(["--training-data", str(folder)])
