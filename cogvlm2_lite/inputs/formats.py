"""The kinds of picture files, their suffixes, and the package that a kind needs.

Folders, file dialogs and drops choose files by these suffixes. What a file really is decides its
content (`inputs/image.py`), so a picture with another suffix opens, too. No Pillow here: the window
and `--help` read these lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from cogvlm2_lite.text import Text

SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        "PNG": (".png", ".apng"),
        "WebP": (".webp",),
        "BMP": (".bmp", ".dib"),
        "GIF": (".gif",),
        "TIFF": (".tif", ".tiff"),
        "AVIF": (".avif", ".avifs"),
        "HEIC": (".heic", ".heif", ".hif"),
    }
)
"""Suffixes in lower case of the kinds that this program decodes. AVIF and HEIC need a package."""

PACKAGES: Mapping[str, str] = MappingProxyType({"AVIF": "pillow", "HEIC": "pillow-heif"})
"""The package that a kind needs; Pillow is there, but may be built without AVIF."""

FOREIGN_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        suffix: kind
        for kind, suffixes in (
            ("JPEG XL", ".jxl"),
            ("JPEG 2000", ".jp2 .j2k .j2c .jpc .jpx .jpf"),
            (Text("camera raw"), ".dng .cr2 .cr3 .crw .nef .nrw .arw .orf .rw2 .raf .pef .srw"),
            ("Photoshop", ".psd .psb"),
            ("SVG", ".svg .svgz"),
            ("PDF", ".pdf"),
            ("PostScript", ".ps .eps .ai"),
            (Text("icon"), ".ico .cur .icns"),
            ("Netpbm", ".ppm .pgm .pbm .pnm .pam"),
            ("TGA", ".tga"),
            ("OpenEXR", ".exr"),
            ("Radiance HDR", ".hdr"),
            ("GIMP", ".xcf"),
            ("DjVu", ".djvu"),
            ("JPEG XR", ".jxr .wdp .hdp"),
            ("QOI", ".qoi"),
            ("DICOM", ".dcm"),
            ("DDS", ".dds"),
            (Text("video"), ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .3gp"),
        )
        for suffix in suffixes.split()
    }
)
"""Suffixes in lower case of pictures and videos that this program does not decode, by kind."""


def kind_of(name: str | Path) -> str:
    """Return the kind of a picture file by its suffix, such as "JPEG"; "" for other files."""
    suffix = Path(name).suffix.lower()
    return next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), "")


def missing_package(kind: str) -> str:
    """Return the name of the package that is missing to decode a kind; "" if none is."""
    if kind == "AVIF":
        spec = find_spec("PIL")  # looks, and imports nothing
        folders = (spec.submodule_search_locations or ()) if spec else ()
        present = any(any(Path(folder).glob("_avif.*")) for folder in folders)
    else:
        present = kind != "HEIC" or find_spec("pillow_heif") is not None
    return "" if present else PACKAGES[kind]


def readable_suffixes() -> tuple[str, ...]:
    """Return the suffixes, in lower case, of the pictures that can be decoded on this machine."""
    return tuple(
        suffix
        for kind, suffixes in SUFFIXES.items()
        if not missing_package(kind)
        for suffix in suffixes
    )
