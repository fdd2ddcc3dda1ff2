"""Errors for pictures that can't be read: what the file is, and what to do next."""

from __future__ import annotations

import re
from math import ceil

from cogvlm2_lite.errors import ImageError, TooManyPixelsError
from cogvlm2_lite.inputs.limits import ImageLimits
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import format_bytes

USE_ANOTHER = "Open a JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF picture."
CONVERT = "Save it as JPEG or PNG with another program, then open that file."
SMALLER = "Save a smaller copy: the model sees 1344 by 1344 pixels."
GET_AGAIN = "Get the file again or save it again from the program that made it."


def check_file_size(size: int, name: str, limits: ImageLimits) -> None:
    """Raise ImageError for a file that is empty or larger than the limit."""
    if size == 0:
        raise ImageError("{file} is empty (0 bytes).", hint=GET_AGAIN, file=name)
    if size > limits.max_file_bytes:
        raise ImageError(
            "{file} has {size}, more than the {most} that a picture may have.",
            hint=SMALLER,
            file=name,
            size=format_bytes(size),
            most=format_bytes(limits.max_file_bytes),
        )


def check_size(
    size: tuple[int, int], name: str, limits: ImageLimits, *, most: int | None = None
) -> None:
    """Raise ImageError for a picture without pixels or with more than the limit."""
    width, height = size
    if width * height > (most or limits.max_pixels):
        raise too_many_pixels(name, size, limits)
    if width * height <= 0:
        raise ImageError(
            "{file} has no pixels ({width} x {height}).",
            hint=GET_AGAIN,
            file=name,
            width=width,
            height=height,
        )


def check_page(page: int | None, pages: int, name: str) -> None:
    """Raise ImageError if a file does not have a page."""
    if page is None or page <= pages:
        return
    message = (
        "{file} has only one page, so page {page} can't be read."
        if pages == 1
        else "{file} has {pages} pages, so page {page} can't be read."
    )
    hint = (
        Text("Choose page 1.")
        if pages == 1
        else Text("Choose a page from 1 to {pages}.", pages=pages)
    )
    raise ImageError(message, hint=hint, file=name, pages=pages, page=page)


def too_many_pixels(
    name: str, size: tuple[int, int] | None, limits: ImageLimits
) -> TooManyPixelsError:
    """Return the error for a picture above the limit; the size is None if it is not known."""
    most = round(limits.max_pixels / 1e6)
    if size is None:
        return TooManyPixelsError(
            "{file} has more than the {most} million pixels that a picture may have.",
            hint=SMALLER,
            file=name,
            most=most,
        )
    return TooManyPixelsError(
        "{file} has {width} x {height} pixels, more than the {most} million that a picture may "
        "have.",
        hint=SMALLER,
        file=name,
        width=size[0],
        height=size[1],
        most=most,
    )


def too_little_memory(name: str, size: tuple[int, int]) -> ImageError:
    """Return the error for a picture that could not be held in memory."""
    return ImageError(
        "{file} needs more memory than is free ({width} x {height} pixels).",
        hint=SMALLER,
        file=name,
        width=size[0],
        height=size[1],
    )


def damaged(name: str, kind: str, size: tuple[int, int] | None = None) -> ImageError:
    """Return the error for a picture whose pixels can't be decoded."""
    if size is None:
        return ImageError(
            "{file} is damaged: it starts as a {kind} picture, but can't be decoded.",
            hint=GET_AGAIN,
            file=name,
            kind=kind,
        )
    return ImageError(
        "{file} is damaged: it starts as a {kind} picture of {width} x {height} pixels, "
        "but the rest can't be decoded.",
        hint=GET_AGAIN,
        file=name,
        kind=kind,
        width=size[0],
        height=size[1],
    )


def mostly_missing(name: str, share: float) -> ImageError:
    """Return the error for a file that ends before half of its picture."""
    return ImageError(
        "{file} is damaged or ends early: {percent}% of the picture is missing.",
        hint=GET_AGAIN,
        file=name,
        percent=ceil(share * 100),
    )


def ends_early(name: str, kind: str, size: int, needed: int) -> ImageError:
    """Return the error for a file whose table of contents lies behind its end."""
    return ImageError(
        "{file} is damaged: it is a {kind} picture that should have at least {needed}, but has "
        "{size}.",
        hint=GET_AGAIN,
        file=name,
        kind=kind,
        needed=format_bytes(needed),
        size=format_bytes(size),
    )


def unknown_variant(name: str, kind: str, variant: Text) -> ImageError:
    """Return the error for a sound picture of a variant that is not read, with its name."""
    return ImageError(
        "{file} is a {kind} picture with {variant}, which this program does not read.",
        hint=CONVERT,
        file=name,
        kind=kind,
        variant=variant,
    )


def package_missing(name: str, kind: str) -> ImageError:
    """Return the error for a kind of picture whose decoder is not installed."""
    hint = (
        'Run: pip install "cogvlm2-lite[heic]", or save it as JPEG or PNG.'
        if kind == "HEIC"
        else "Run: pip install --upgrade pillow, or save it as JPEG or PNG."
    )
    return ImageError(
        "{file} is a picture in {kind}, and the package that reads them, {package}, is not "
        "installed with this ability.",
        hint=hint,
        file=name,
        kind=kind,
        package="pillow-heif" if kind == "HEIC" else "pillow",
    )


def no_access(name: str, error: OSError | ValueError) -> ImageError:
    """Return the error for a file that the system does not open."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ImageError(
        "{file} can't be read: {why}.",
        hint="Check the path and the permissions of the file.",
        file=name[:200],
        why=reason,
    )


def picture_kind(head: bytes) -> str:
    """Return the kind of a picture by its first bytes, such as "JPEG"; "" for other files."""
    for kind, pattern in _PICTURES:
        if re.match(pattern, head, re.DOTALL):
            return kind
    return _kind_of_brands(head)


def _kind_of_brands(head: bytes) -> str:
    """Return "AVIF" or "HEIC" by the brands in the first box of the file, or ""."""
    if head[4:8] != b"ftyp":
        return ""
    box = head[8 : min(int.from_bytes(head[:4], "big"), 256)] or head[8:12]
    brands = {box[i : i + 4] for i in range(0, len(box), 4) if i != 4}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else ""


def unreadable(head: bytes, name: str) -> ImageError:
    """Return the error for a file that is no picture this program reads, with its real type."""
    for kind, pattern in _FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            return ImageError(
                "{file} is {kind}, which this program does not open.",
                hint=CONVERT,
                file=name,
                kind=kind,
            )
    if head.startswith(_LFS):
        return ImageError(
            "{file} is a Git LFS pointer: the picture itself was not downloaded.",
            hint="Run `git lfs pull` in its folder, or download the file itself.",
            file=name,
        )
    if _is_text(head):
        message = (
            "What was read is text, not a picture."
            if isinstance(name, Text)  # the bytes have no name
            else "{file} is a text file, not a picture."
        )
        return ImageError(message, hint=USE_ANOTHER, file=name)
    return ImageError("{file} is in no known picture format.", hint=USE_ANOTHER, file=name)


def _is_text(head: bytes) -> bool:
    """Guess whether bytes are text: no control characters, and UTF-8 except for the last letter."""
    if re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        return False
    try:
        head[: max(len(head) - 3, 1)].decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 6
    return True


_PICTURES = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WebP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("TIFF", rb"II[*+]\x00|MM\x00[*+]"),
    ("BMP", rb"BM.{12}[\x0c-\x7f\x80-\xff]\x00\x00\x00"),
    # The same without the 14 bytes that a file has in front, as in the clipboard.
    (
        "BMP",
        rb"[\x28\x6c\x7c]\x00\x00\x00.{8}\x01\x00[\x01\x02\x04\x08\x10\x18\x20]\x00[\x00-\x06]\x00{3}",
    ),
)
_LFS = b"version https://git-lfs.github.com/spec/"
_HEIC_BRANDS = {
    b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1",
    b"mif2",
}  # fmt: skip
_FOREIGN = (
    (Text("a raw camera picture"), rb"II\*\x00.{4}CR\x02|IIU\x00|IIRO|IIRS|FUJIFILMCCD|FOVb"),
    (Text("a raw camera picture"), rb"....ftypcrx "),
    (Text("a video"), rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI "),
    (Text("a PDF document"), rb"\s*%PDF-"),
    (Text("an SVG drawing"), rb"(\xef\xbb\xbf)?\s*<(svg|[?!].*<svg)[\s>]"),
    (Text("a web page"), rb"(\xef\xbb\xbf)?\s*(?i:<(!doctype html|html))"),
    (Text("a Photoshop file"), rb"8BPS"),
    (Text("a JPEG XL picture"), rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
    (Text("a JPEG 2000 picture"), rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
    (Text("a JPEG XR picture"), rb"II\xbc\x01"),
    (Text("a Netpbm picture"), rb"P[1-7]\s"),
    (Text("an OpenEXR picture"), rb"v/1\x01"),
    (Text("a Radiance HDR picture"), rb"#\?(RADIANCE|RGBE)"),
    (Text("a DjVu document"), rb"AT&TFORM"),
    (Text("a GIMP picture"), rb"gimp xcf"),
    (Text("a ZIP archive or an office document"), rb"PK\x03\x04"),
    (Text("an icon file"), rb"\x00\x00[\x01\x02]\x00|icns"),
    (Text("a PostScript file"), rb"%!PS"),
    (Text("a QOI picture"), rb"qoif"),
    (Text("a DICOM picture"), rb".{128}DICM"),
    (Text("a DirectDraw texture"), rb"DDS "),
)
