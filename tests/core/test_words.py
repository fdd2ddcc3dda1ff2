"""What people type, paste and pipe: texts in any encoding, and names of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cogvlm2_lite.cli.words import as_text, dropped_path, file_in, line_as_text, looks_like_path
from cogvlm2_lite.errors import UsageError

posix = pytest.mark.skipif(os.name == "nt", reason="file names are text there")
Touch = Callable[[str | bytes], Path]


@pytest.fixture
def touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Touch:
    """Create an empty file in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)

    def create(name: str | bytes) -> Path:
        path = tmp_path / os.fsdecode(name)
        path.touch()
        return path

    return create


def raw(text: str, encoding: str) -> str:
    """Return what Python makes of an argument's bytes in a UTF-8 locale."""
    return os.fsdecode(text.encode(encoding))


@posix
@pytest.mark.parametrize(
    ("variable", "value", "encoding"),
    [
        ("LC_ALL", "zh_CN.GBK", "gbk"),
        ("LC_CTYPE", "zh_TW.Big5", "big5"),
        ("LANG", "ja_JP.eucJP", "euc_jp"),
        ("LANG", "zh_CN.GB18030@stroke", "gb18030"),
        ("PYTHONIOENCODING", "gbk:strict", "gbk"),
    ],
)
def test_a_text_is_decoded_by_the_locale_even_if_it_is_not_installed(
    touch: Touch, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, encoding: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert as_text(raw("這是什麼?" if "big5" in encoding else "你好", encoding)) in (
        "這是什麼?",
        "你好",
    )
    assert as_text("招牌上写着什么?") == "招牌上写着什么?"


@posix
def test_latin_1_is_decoded_by_a_locale_with_or_without_the_name_of_its_encoding(
    touch: Touch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("de_DE.ISO-8859-1", "de_DE@euro", "de_DE"):
        monkeypatch.setenv("LC_ALL", name)
        assert as_text(raw("Größe?", "latin-1")) == "Größe?"


@posix
@pytest.mark.parametrize("name", ["", "C", "POSIX", "C.UTF-8", "en_US.UTF-8", "xx_XX.no-such"])
def test_a_text_in_no_known_encoding_is_an_error_and_never_question_marks(
    touch: Touch, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("LC_ALL", name)
    for text in (raw("你好", "gbk"), os.fsdecode(b"caf\xe9?"), os.fsdecode(b"\xff" * 500)):
        with pytest.raises(UsageError, match="neither UTF-8 nor") as caught:
            as_text(text)
        assert "LC_ALL" in caught.value.hint
        assert len(caught.value.message) < 400
        caught.value.message.encode()  # shown with escapes


@posix
def test_a_half_surrogate_that_is_no_byte_is_an_error_too() -> None:
    with pytest.raises(UsageError):
        as_text("half \ud83d")


def test_a_piped_line_may_begin_with_a_byte_order_mark_and_is_not_utf_16() -> None:
    assert line_as_text("\ufeffWhat?") == "What?"
    with pytest.raises(UsageError) as caught:
        line_as_text("W\0h\0a\0t\0")
    assert "UTF-16" in caught.value.hint


@posix
@pytest.mark.parametrize(
    ("name", "pasted"),
    [
        ("it's.png", "'{folder}/it'\\''s.png'"),  # GNOME Terminal, Konsole
        ("it's.png", "'{folder}/it'\\''s.png' "),
        ("it's.png", "{folder}/it\\'s.png "),  # Terminal and iTerm2 on macOS, kitty
        ("it's.png", '"{folder}/it\'s.png"'),
        ("it's.png", "{folder}/it's.png"),
        ("a b.png", "'{folder}/a b.png'"),
        ("a b.png", "{folder}/a\\ b.png"),
        ("a b.png", "{folder}/a b.png"),
        ("a b.png", "  {folder}/a b.png  "),
        ("a b.png", "file://{folder}/a%20b.png"),
        ("a b.png", '"file://{folder}/a%20b.png"'),
        ("a b.png", "'FILE://localhost{folder}/a%20b.png' "),
        ("a b.png", "file:{folder}/a%20b.png"),
        ("100%20#1?.png", "file://{folder}/100%2520%231%3F.png"),
        ("a#b.png", "file://{folder}/a#b.png"),
        ("照片.png", "file://{folder}/%E7%85%A7%E7%89%87.png"),
        (b"\xff\xfe.png", "file://{folder}/%FF%FE.png"),
        ('say "hi" (1) & $x.png', '{folder}/say\\ \\"hi\\"\\ \\(1\\)\\ \\&\\ \\$x.png'),
        ("two\nlines.png", "$'{folder}/two\\nlines.png'"),
        ("two\nlines.png", "file://{folder}/two%0Alines.png"),
        (b"\xff'.png", "$'{folder}/\\377\\'.png'"),
        (b"\xe9.png", "$'{folder}/\\xe9.png'"),
        ("back\\slash.png", "{folder}/back\\\\slash.png"),
    ],
)
def test_a_dropped_path_is_read_as_terminals_write_it(
    touch: Touch, name: str | bytes, pasted: str
) -> None:
    path = touch(name)
    assert dropped_path(pasted.format(folder=path.parent)) == path
    assert file_in(pasted.format(folder=path.parent)) == path


@posix
@pytest.mark.parametrize(
    "name", ["'a b.png'", '"a.png"', "a\\ b.png", "a%20b.png", "~a.png", "~root", " a.png ", "~"]
)
def test_a_file_that_really_has_such_a_name_wins(touch: Touch, name: str) -> None:
    touch("a b.png")
    touch("a.png")
    path = touch(name)
    assert dropped_path(name).resolve() == path
    assert dropped_path(str(path)) == path


@posix
def test_a_folder_named_like_an_address_wins(touch: Touch, tmp_path: Path) -> None:
    folder = tmp_path / "file:" / "x"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    assert dropped_path("file:///x/a.png").resolve() == folder / "a.png"


def test_a_name_without_a_home_folder_stays_as_it_is() -> None:
    assert dropped_path("~nobody-here/x.png") == Path("~nobody-here/x.png")


@pytest.mark.parametrize(
    ("line", "is_path"),
    [
        ("file:///gone.png", True),
        ("'/tmp/gone.png'", True),
        ("/tmp/gone.png", True),
        ("C:\\gone.png", True),
        ("/save", False),
        ("/sav chat.md", False),
        ("/ is a slash", False),
        ("What is a/b?", False),
        ("files: what are they?", False),
    ],
)
def test_a_line_that_can_only_be_a_path_is_not_a_question(line: str, is_path: bool) -> None:
    assert looks_like_path(line) is is_path
