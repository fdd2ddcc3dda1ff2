"""Opens pictures safely and converts them to the input of the vision tower.

Only six formats are decoded: JPEG, PNG, WebP, BMP, GIF (first frame) and TIFF. Size limits are
checked before anything is decoded, and every problem raises an ImageError with one sentence.

This differs from the released demos, which only call `convert("RGB")`, in two ways: pictures are
rotated by their EXIF tag, and transparent ones are composited on white. So the model sees what a
person sees. Dropping the alpha channel would show whatever colour is stored in transparent pixels,
which for screenshots with transparency is often black on black.
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cogvlm2_lite.architectures.architecture import VisionConfig
from cogvlm2_lite.errors import ImageError, UsageError
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS, ImageLimits
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import format_bytes

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_FORMAT_NAMES = {"WEBP": "WebP", "MPO": "JPEG"}  # MPO: a JPEG followed by a second one for depth
_HINT = "Open a JPEG, PNG, WebP, BMP, GIF or TIFF picture."
_CONVERT = "Save it as JPEG or PNG with another program, then open that file."
_SMALLER = "Save a smaller copy: the model sees 1344 by 1344 pixels."
_DAMAGED = "Get the file again or save it again from the program that made it."
_UNNAMED = Text("The picture")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Exceptions that Pillow's readers raise on damaged files. OSError, SyntaxError, ValueError,
# TypeError and OverflowError occurred with 400,000 mutated files; Pillow's source has the others.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    EOFError, RuntimeError, AssertionError, struct.error, zlib.error,
)  # fmt: skip
_PILLOW_WARNINGS = threading.Lock()
"""Python 3.11 has one list of warning filters per process: one thread at a time may change it."""


@dataclass(frozen=True, kw_only=True)
class OpenedImage:
    """A decoded picture.

    rgb            [height, width, 3] uint8, read-only
    sha256         hash of size and pixels: equal for the same picture under any name or format
    format         "JPEG", "PNG", ... or "memory" for a picture that was not read from a file
    original_size  (width, height) as stored, before rotation
    name           file name for messages, or "The picture" if there is none
    page, pages    the page or frame that was read, from 1, and how many the file has
    notices        how the picture was read, where a person would not expect it
    """

    rgb: NDArray[np.uint8] = field(repr=False, compare=False)
    sha256: str
    format: str
    original_size: tuple[int, int]
    name: str
    page: int = 1
    pages: int = 1
    notices: tuple[Text, ...] = ()

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])


ImageSource = str | Path | bytes | Image.Image | OpenedImage
"""What `open_image` accepts."""


def open_image(
    source: ImageSource,
    *,
    upright: bool = True,
    page: int | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> OpenedImage:
    """Return the decoded picture of a path, of the bytes of a file, or of a PIL image.

    source   an OpenedImage is returned unchanged
    upright  rotate the picture by its EXIF tag, as every viewer does (TIFF is always rotated)
    page     the page of a TIFF file, or the frame of an animation, from 1; None: the first, with
             a notice if there are more

    Raises ImageError, with one sentence for the user, if the picture is missing, empty, damaged,
    too large or in none of the six formats, or has no such page, and UsageError for a source of
    another type.
    """
    if page is not None and page < 1:
        raise UsageError("Pages are counted from 1, not from {page}.", page=page)
    if isinstance(source, OpenedImage):
        return source
    if isinstance(source, Image.Image):
        return _from_pillow(source, upright, page, limits)
    if isinstance(source, bytes):
        check_file_size(len(source), _UNNAMED, limits)
        return _from_stream(BytesIO(source), _UNNAMED, upright, page, limits)
    if not isinstance(source, str | Path):
        raise UsageError(
            "{kind} can't be opened as a picture.",
            hint="Give a path, the bytes of a picture file, or a PIL image.",
            kind=type(source).__name__,
        )
    path = _existing_file(source, limits)
    try:
        with path.open("rb") as stream:
            return _from_stream(stream, path.name, upright, page, limits)
    except OSError as error:
        raise _no_access(path.name, error) from error


def pixel_values(opened: OpenedImage, vision: VisionConfig) -> NDArray[np.float32]:
    """Return the input of the vision tower, bit for bit as the released preprocessing computes it.

    The picture is resized to a square with Pillow's antialiased bicubic filter on 8-bit values (the
    aspect ratio is not kept: the model was trained this way), divided by 255 and normalised, in
    float32.

    Returns [1, 3, image_size, image_size] float32
    """
    side = vision.image_size
    resized = Image.fromarray(opened.rgb).resize((side, side), Image.Resampling.BICUBIC)
    # Contiguous before the arithmetic: numpy would keep the transposed order in its results.
    scaled = np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1), dtype=np.float32)
    scaled /= np.float32(255)
    scaled -= np.array(CLIP_MEAN, dtype=np.float32)[:, None, None]
    scaled /= np.array(CLIP_STD, dtype=np.float32)[:, None, None]
    return scaled[None]


def _existing_file(source: str | Path, limits: ImageLimits) -> Path:
    """Return the path of a readable file of acceptable size; raises ImageError otherwise."""
    if isinstance(source, str) and re.match(r"(?i)(https?|ftp|data|file):", source):
        raise ImageError(
            "The picture is a web address, which this program does not open.",
            hint="Save the picture to a file and use the path of that file.",
        )
    path = Path(source)
    name = path.name or str(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError(
            "There is no file {file!r}.", hint="Check the spelling of the path.", file=str(path)
        ) from None
    except (OSError, ValueError) as error:
        raise _no_access(name, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(
            "{file} is a folder, not a picture.", hint="Choose one file in it.", file=name
        )
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("{file} is not a regular file.", hint=_HINT, file=name)
    check_file_size(status.st_size, name, limits)
    return path


def check_file_size(size: int, name: str, limits: ImageLimits) -> None:
    """Raise ImageError for an empty or too large picture file."""
    if size == 0:
        raise ImageError("{file} is empty (0 bytes).", hint=_DAMAGED, file=name)
    if size > limits.max_file_bytes:
        raise ImageError(
            "{file} has {size}, more than the {most} that a picture may have.",
            hint=_SMALLER,
            file=name,
            size=format_bytes(size),
            most=format_bytes(limits.max_file_bytes),
        )


def _from_stream(
    stream: BinaryIO, name: str, upright: bool, page: int | None, limits: ImageLimits
) -> OpenedImage:
    """Decode one of the six formats from an open file."""
    with _PILLOW_WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(stream, formats=_FORMATS)
        except Image.DecompressionBombError:
            raise _too_many_pixels(name, None, limits) from None
        except _DECODER_ERRORS as error:
            stream.seek(0)
            raise _unreadable(stream.read(1024), name) from error
        with image:
            pages = _count_pages(image)
            _check_page(page, pages, name)
            if page is not None:
                _seek(image, page, name)
            opened = _decode(image, name, upright, limits)
            notices = _page_notices(image, pages) if page is None else ()
            return replace(opened, page=page or 1, pages=pages, notices=notices)


def _from_pillow(
    image: Image.Image, upright: bool, page: int | None, limits: ImageLimits
) -> OpenedImage:
    """Convert a picture that the caller already has; it is not changed."""
    file_name = getattr(image, "filename", "")
    name = Path(file_name).name if isinstance(file_name, str) and file_name else _UNNAMED
    _check_page(page, 1, name)
    with _PILLOW_WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _decode(image, name, upright, limits)


def _count_pages(image: Image.Image) -> int:
    """Return the number of pages or frames; 1 if those after the first can't be found."""
    if image.format == "MPO":  # the second picture is the other eye's view, or a map of depths
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except _DECODER_ERRORS:
        return 1


def _check_page(page: int | None, pages: int, name: str) -> None:
    if page is None or page <= pages:
        return
    message = (
        "{file} has only one page, so page {page} can't be read."
        if pages == 1
        else "{file} has {pages} pages, so page {page} can't be read."
    )
    raise ImageError(
        message, hint=Text("Choose a page from 1 to {pages}.", pages=pages), file=name,
        pages=pages, page=page,
    )  # fmt: skip


def _seek(image: Image.Image, page: int, name: str) -> None:
    try:
        image.seek(page - 1)
    except _DECODER_ERRORS as error:
        raise ImageError(
            "{file} is damaged: page {page} can't be read.", hint=_DAMAGED, file=name, page=page
        ) from error


def _page_notices(image: Image.Image, pages: int) -> tuple[Text, ...]:
    if pages == 1:
        return ()
    if image.format == "TIFF":
        return (Text("This is page 1 of {pages}; the others were not read.", pages=pages),)
    return (Text("This is frame 1 of {pages} of an animation.", pages=pages),)


def _decode(image: Image.Image, name: str, upright: bool, limits: ImageLimits) -> OpenedImage:
    """Load the pixels; return them as upright RGB on white."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(name, (width, height), limits)
    if width * height == 0:
        raise ImageError(
            "{file} has no pixels ({width} x {height}).",
            hint=_DAMAGED,
            file=name,
            width=width,
            height=height,
        )
    kind = _FORMAT_NAMES.get(image.format or "memory", image.format or "memory")
    try:
        image.load()
        turn = _TURNS.get(_exif_orientation(image)) if upright else None
        rgb = _to_rgb(image, name)
    except Image.DecompressionBombError:
        raise _too_many_pixels(name, None, limits) from None
    except MemoryError as error:
        raise ImageError(
            "{file} needs more memory than is free ({width} x {height} pixels).",
            hint=_SMALLER,
            file=name,
            width=width,
            height=height,
        ) from error
    except _DECODER_ERRORS as error:
        raise ImageError(
            "{file} is damaged: it starts as a {kind} picture of {width} x {height} pixels, "
            "but the rest can't be decoded.",
            hint=_DAMAGED,
            file=name,
            kind=kind,
            width=width,
            height=height,
        ) from error
    return _opened(rgb if turn is None else rgb.transpose(turn), kind, (width, height), name)


def _opened(rgb: Image.Image, kind: str, size: tuple[int, int], name: str) -> OpenedImage:
    pixels = np.array(rgb, dtype=np.uint8)
    pixels.flags.writeable = False
    digest = hashlib.sha256(f"{rgb.width}x{rgb.height} RGB\n".encode())
    digest.update(pixels.data)
    return OpenedImage(
        rgb=pixels, sha256=digest.hexdigest(), format=kind, original_size=size, name=name
    )


def _exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (none) if the EXIF data are damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _DECODER_ERRORS:
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Return a picture of any mode as RGB: wide greys scaled, transparency composited on white."""
    if image.mode.startswith(("I", "F")):
        return _wide_grey(image, name).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _wide_grey(image: Image.Image, name: str) -> Image.Image:
    """Return greys of 16 bit, or floating-point greys from 0 to 1, scaled to 8 bit.

    Pillow's own conversion clips everything above 255 to white.
    """
    values = np.asarray(image)
    kind, top = (Text("floating-point"), 1.0) if image.mode == "F" else (Text("32-bit"), 65535.0)
    if not (values.min() >= 0 and values.max() <= top):  # in this form NaN is rejected too
        raise ImageError(
            "{file} has {kind} grey values outside of 0 to {most}, so black and white are not "
            "defined.",
            hint="Save it with 8 or 16 bits per color.",
            file=name,
            kind=kind,
            most=round(top),
        )
    grey = np.rint(values.astype(np.float32) * np.float32(255 / top)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _too_many_pixels(name: str, size: tuple[int, int] | None, limits: ImageLimits) -> ImageError:
    most = round(limits.max_pixels / 1e6)
    if size is None:
        return ImageError(
            "{file} has more than the {most} million pixels that a picture may have.",
            hint=_SMALLER,
            file=name,
            most=most,
        )
    return ImageError(
        "{file} has {width} x {height} pixels, more than the {most} million that a picture may "
        "have.",
        hint=_SMALLER,
        file=name,
        width=size[0],
        height=size[1],
        most=most,
    )


def _unreadable(head: bytes, name: str) -> ImageError:
    """Return the error for a file that none of the six readers accepts, with its real type."""
    for kind, pattern in _KNOWN_PICTURES:
        if re.match(pattern, head, re.DOTALL):
            return ImageError(
                "{file} is damaged: it starts as a {kind} picture, but can't be decoded.",
                hint=_DAMAGED,
                file=name,
                kind=kind,
            )
    for kind, pattern in _KNOWN_FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            return ImageError(
                "{file} is {kind}, which this program does not open.",
                hint=_CONVERT,
                file=name,
                kind=kind,
            )
    if _is_text(head):
        return ImageError("{file} is a text file, not a picture.", hint=_HINT, file=name)
    return ImageError("{file} is in no known picture format.", hint=_HINT, file=name)


def _is_text(head: bytes) -> bool:
    """Guess whether bytes are text: no control characters, and UTF-8 except for the last letter."""
    if re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        return False
    try:
        head[: max(len(head) - 3, 1)].decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 6
    return True


def _no_access(name: str, error: OSError | ValueError) -> ImageError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ImageError(
        "{file} can't be read: {why}.",
        hint="Check the path and the permissions of the file.",
        file=name[:200],
        why=reason,
    )


_KNOWN_PICTURES = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG"),
    ("WebP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("TIFF", rb"II[*+]\x00|MM\x00[*+]"),
    ("BMP", rb"BM.{4}\x00\x00\x00\x00"),
)
_KNOWN_FOREIGN = (
    (Text("a HEIC picture"), rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)"),
    (Text("an AVIF picture"), rb"....ftyp(avif|avis)"),
    (Text("a video"), rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI "),
    (Text("a PDF document"), rb"\s*%PDF-"),
    (Text("an SVG drawing"), rb"(\xef\xbb\xbf)?\s*<(svg|[?!].*<svg)[\s>]"),
    (Text("a web page"), rb"(\xef\xbb\xbf)?\s*(?i:<(!doctype html|html))"),
    (Text("a Photoshop file"), rb"8BPS"),
    (Text("a JPEG XL picture"), rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
    (Text("a JPEG 2000 picture"), rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
    (Text("a ZIP archive or an office document"), rb"PK\x03\x04"),
    (Text("an icon file"), rb"\x00\x00[\x01\x02]\x00"),
    (Text("a PostScript file"), rb"%!PS"),
)
