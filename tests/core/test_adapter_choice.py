"""--adapter [NAME=]FOLDER[:WEIGHT]: every form is read as the person who wrote it means it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.adapter_choice import AdapterChoice, read_choices


def read(text: str) -> tuple[str, str, float]:
    (choice,) = read_choices([text], add_up=False)
    return choice.name, str(choice.folder), choice.weight


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("out", ("out", "out", 1.0)),
        ("runs/out", ("out", "runs/out", 1.0)),
        ("runs/out/", ("out", "runs/out", 1.0)),
        ("/data/out:0.5", ("out", "/data/out", 0.5)),
        ("out:-1", ("out", "out", -1.0)),
        ("out:+.5", ("out", "out", 0.5)),
        ("out:1e-1", ("out", "out", 0.1)),
        ("out:0", ("out", "out", 0.0)),
        ("mine=out", ("mine", "out", 1.0)),
        ("mine=runs/out:2", ("mine", "runs/out", 2.0)),
        ("my invoices=out", ("my invoices", "out", 1.0)),
        ("发票=out:0.25", ("发票", "out", 0.25)),
        ("v1:b=out", ("v1:b", "out", 1.0)),
        ("runs/lr=2e-4", ("lr=2e-4", "runs/lr=2e-4", 1.0)),
        ("mine=runs/lr=2e-4", ("mine", "runs/lr=2e-4", 1.0)),
        ("mine=runs/lr=2e-4:0.5", ("mine", "runs/lr=2e-4", 0.5)),
        ("runs/a:b", ("a:b", "runs/a:b", 1.0)),
        ("mine=C:\\x", ("mine", "C:\\x", 1.0)),
        ("mine=C:\\x:0.5", ("mine", "C:\\x", 0.5)),
        ("mine=C:/runs/x:0.5", ("mine", "C:/runs/x", 0.5)),
    ],
)
def test_a_text_is_read_as_what_it_looks_like(text: str, meant: tuple[str, str, float]) -> None:
    assert read(text) == meant


@pytest.mark.parametrize("text", ["C:\\x", "C:\\runs\\lr=2e-4", "D:x", "C:/5"])
def test_the_colon_of_a_drive_is_no_weight(text: str) -> None:
    assert read(text)[1:] == (text, 1.0)


@pytest.mark.parametrize(
    ("folders", "text", "meant"),
    [
        (["out:0.5"], "out:0.5", ("out:0.5", "out:0.5", 1.0)),
        (["out:0.5", "out"], "out:0.5", ("out:0.5", "out:0.5", 1.0)),
        (["a=b"], "a=b", ("a=b", "a=b", 1.0)),
        (["a=b", "b"], "a=b", ("a=b", "a=b", 1.0)),
        (["b:2"], "a=b:2", ("a", "b:2", 1.0)),
        (["b:2", "b"], "a=b:2", ("a", "b:2", 1.0)),
        (["a=b"], "a=b:2", ("a=b", "a=b", 2.0)),
        (["b:2"], "a=b:2:3", ("a", "b:2", 3.0)),
        (["b=c"], "a=b=c", ("a", "b=c", 1.0)),
        (["D:5"], "D:5", ("D:5", "D:5", 1.0)),
        (["a"], "a:2", ("a", "a", 2.0)),
    ],
)
def test_a_folder_that_exists_is_meant(
    here: Path, folders: list[str], text: str, meant: tuple[str, str, float]
) -> None:
    for folder in folders:
        (here / folder).mkdir()
    assert read(text) == meant


def test_the_name_of_a_folder_is_found_and_the_home_folder_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "run7" / "inner").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    monkeypatch.chdir(here / "run7" / "inner")
    assert read("..") == ("run7", "..", 1.0)
    assert read(".")[0] == "inner"
    assert read("x=~/run7:2") == ("x", str(here / "run7"), 2.0)
    (here / "latest").symlink_to(here / "run7")
    assert read("~/latest")[0] == "latest"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out:nan", "between -10 and 10, not nan"),
        ("out:-inf", "between -10 and 10, not -inf"),
        ("out:1e400", "between -10 and 10, not 1e400"),
        ("out:11", "between -10 and 10, not 11"),
        ("base=out", "can't be called 'base'"),
        ("runs/Base", "can't be called 'Base'"),
        ("/", "'' can't be the name"),
        ("a\nb=out", "can't be the name"),
        ("x" * 300 + "=out", "can't be the name"),
        ("runs/\udcff", "can't be the name"),
    ],
)
def test_a_name_or_weight_that_can_not_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as found:
        read(text)
    assert message in found.value.text


def test_equal_names_are_added_up_only_if_somebody_gave_them() -> None:
    assert read_choices(["x=a", "y=b", "x=cc:2"], add_up=False) == (
        AdapterChoice(name="x", folder=Path("a")),
        AdapterChoice(name="y", folder=Path("b")),
        AdapterChoice(name="x", folder=Path("cc"), weight=2.0),
    )
    for texts in (["r1/out", "r2/out"], ["r1/out", "out=r2"], ["out", "out"]):
        with pytest.raises(UsageError, match="Two adapters are called 'out'"):
            read_choices(texts, add_up=False)
    together = read_choices(["r1/out", "r2/out", "x=b:0.5"], add_up=True)
    assert [choice.name for choice in together] == ["out+x"] * 3
    assert [choice.weight for choice in together] == [1.0, 1.0, 0.5]
