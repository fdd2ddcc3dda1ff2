"""The lists of suffixes by which folders, dialogs and drops choose pictures."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from PIL import features

from cogvlm2_lite.inputs import formats


def test_every_suffix_belongs_to_one_kind() -> None:
    listed = [s for suffixes in formats.SUFFIXES.values() for s in suffixes]
    listed += formats.FOREIGN_SUFFIXES
    assert len(listed) == len(set(listed))
    assert all(s == s.lower() and s.startswith(".") for s in listed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.JPG", "JPEG"), ("a.b.jfif", "JPEG"), ("x.apng", "PNG"), ("x.dib", "BMP"),
     ("x.mpo", "JPEG"), ("x.jpe", "JPEG"), ("x.HEIC", "HEIC"), ("x.txt", ""),
     ("x", ""), (".png", "")],
)  # fmt: skip
def test_a_suffix_names_the_kind(name: str, kind: str) -> None:
    assert formats.kind_of(name) == kind


def test_kinds_without_their_package_are_not_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (formats.missing_package("AVIF") == "") == features.check("avif")
    assert formats.missing_package("PNG") == ""
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert formats.missing_package("HEIC") == "pillow-heif"
    assert ".heic" not in formats.readable_suffixes()
    monkeypatch.setattr(formats, "find_spec", importlib.util.find_spec)
    monkeypatch.setattr(formats, "missing_package", lambda kind: "")
    assert ".heic" in formats.readable_suffixes()


def test_the_lists_load_no_pillow() -> None:
    code = (
        "import sys; from cogvlm2_lite.inputs.formats import readable_suffixes; "
        "assert '.jpg' in readable_suffixes(); assert 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
