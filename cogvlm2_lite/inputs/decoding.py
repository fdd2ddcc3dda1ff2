"""Decodes picture files: one function for each format that needs more than Pillow does.

Sizes are checked before anything is decoded. Every problem becomes an ImageError with one sentence.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from os import SEEK_END
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.inputs import bmp, early_end, failures, tiff, visible
from cogvlm2_lite.inputs.colour import PRIMARIES, BrokenProfileError, is_srgb, profile_of
from cogvlm2_lite.inputs.formats import missing_package
from cogvlm2_lite.inputs.limits import ImageLimits
from cogvlm2_lite.inputs.png import PngFile, read_png
from cogvlm2_lite.inputs.tiff_tags import BrokenTiffError
from cogvlm2_lite.text import Text

# Exceptions that Pillow's readers raise on damaged files. OSError, SyntaxError, ValueError,
# TypeError and OverflowError occurred with 400,000 mutated files; Pillow's source has the others.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    EOFError, RuntimeError, AssertionError, struct.error, zlib.error, BrokenTiffError,
)  # fmt: skip
_PILLOW = threading.RLock()
"""Python 3.11 has one list of warning filters per process, and Pillow's limits are global, too: one
thread at a time may change them."""

_MOSTLY = 0.5
_DAMAGE = Text("The file is damaged: parts of the picture may be wrong.")
_ORIENTATION = 0x0112
_PILLOW_FORMATS = {"WebP": "WEBP", "HEIC": "HEIF"}
_LINEAR, _SRGB_CURVE, _PQ, _HLG = 8, 13, 16, 18
_VIDEO_CURVES = (1, 6, 14, 15)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded picture, before its colors are converted and transparency is resolved.

    image            of any mode
    alpha            mode L; None if the image's mode contains it, or if the picture is opaque
    kind             "JPEG", "PNG", ...
    original_size    (width, height) as stored
    profile          the color profile; empty for sRGB
    orientation      EXIF's number, 1 to 8
    significant_bits of samples of 16 bits, if they are fewer; else 0
    page, pages      the page or frame that was read, from 1, and how many there are
    notices          what a person would not expect
    """

    image: Image.Image
    alpha: Image.Image | None = None
    kind: str
    original_size: tuple[int, int]
    profile: bytes = b""
    orientation: int = 1
    significant_bits: int = 0
    page: int = 1
    pages: int = 1
    notices: tuple[Text, ...] = ()


@contextmanager
def pillow(limits: ImageLimits) -> Iterator[None]:
    """Set Pillow's limits, and keep its warnings from users, while a picture is decoded."""
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS
        # Pillow rejects twice as many: a JPEG of that size is read at half its size.
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def decode_file(stream: BinaryIO, name: str, page: int | None, limits: ImageLimits) -> Decoded:
    """Return the picture in an open file. Raises ImageError."""
    head = stream.read(1024)
    kind = failures.picture_kind(head)
    if not kind:
        raise failures.unreadable(head, name)
    if missing_package(kind):
        raise failures.package_missing(name, kind)
    decode = _DECODERS.get(kind, _other)
    file = _File(stream=stream, name=name, kind=kind, head=head, page=page, limits=limits)
    size: tuple[int, int] | None = None
    try:
        return decode(file)
    except Image.DecompressionBombError:
        raise failures.too_many_pixels(name, None, limits) from None
    except tiff.VariantError as error:
        raise failures.unknown_variant(name, kind, error.variant) from error
    except BrokenTiffError as error:
        if error.end > (length := stream.seek(0, SEEK_END)):
            raise failures.ends_early(name, kind, length, error.end) from error
        raise failures.damaged(name, kind) from error
    except MemoryError as error:
        raise failures.too_little_memory(name, file.size) from error
    except DECODER_ERRORS as error:
        size = file.size if file.size != (0, 0) else None
        raise failures.damaged(name, kind, size) from error


@dataclass(kw_only=True)
class _File:
    """An open file, and what is known of it; `size` is set when it is."""

    stream: BinaryIO
    name: str
    kind: str
    head: bytes
    page: int | None
    limits: ImageLimits
    size: tuple[int, int] = (0, 0)

    def open(self, stream: BinaryIO, *, most: int | None = None) -> Image.Image:
        """Open the file, or a repaired copy of it, in Pillow and check the size."""
        stream.seek(0)
        image = Image.open(stream, formats=self._formats())
        self.size = image.size
        failures.check_size(image.size, self.name, self.limits, most=most)
        return image

    def _formats(self) -> tuple[str, ...]:
        if self.kind == "HEIC":
            register_heic()
        return (_PILLOW_FORMATS.get(self.kind, self.kind),)

    def whole(self) -> bytes:
        """Return all bytes of the file."""
        self.stream.seek(0)
        return self.stream.read()

    def early_end(self, missing: float) -> tuple[Text, ...]:
        """Return the notice for a file that ends early. Raises ImageError if most is missing."""
        if missing >= _MOSTLY:
            raise failures.mostly_missing(self.name, missing)
        if missing == 0:
            return ()
        if missing < 0.01:
            return (Text("The file ends early or is damaged: less than 1% is missing."),)
        return (
            Text(
                "The file ends early or is damaged: {percent}% of the picture is missing.",
                percent=round(missing * 100),
            ),
        )


def register_heic() -> None:
    """Let Pillow open HEIC files."""
    import pillow_heif  # an optional package, which takes a moment to load

    pillow_heif.register_heif_opener(thumbnails=False)


def _jpeg(file: _File) -> Decoded:
    """Decode a JPEG file: one that ends early, too, and a very large one at half its size."""
    notices: tuple[Text, ...] = ()
    failures.check_page(file.page, 1, file.name)
    try:
        image = _open_jpeg(file, file.stream)
        image.load()
    except DECODER_ERRORS as error:
        data = file.whole()
        variant = early_end.jpeg_variant(data)
        if variant:
            raise failures.unknown_variant(file.name, file.kind, variant) from error
        image, notices = _repaired_jpeg(file, data)
    if image.size != file.size:
        notices += (
            Text(
                "The picture has {count} million pixels; it was read at half its width and height.",
                count=round(file.size[0] * file.size[1] / 1e6),
            ),
        )
    return Decoded(
        image=image, kind=file.kind, original_size=file.size, notices=notices,
        profile=_profile(image), orientation=_orientation_of(image.info.get("exif")),
    )  # fmt: skip


def _repaired_jpeg(file: _File, data: bytes) -> tuple[Image.Image, tuple[Text, ...]]:
    """Return what can be read of a JPEG file that ends early or has a flaw, with a notice."""
    ended = early_end.ended_jpeg(data)
    for copy in (ended, early_end.bare_jpeg(ended)):
        with suppress(*DECODER_ERRORS):
            image = _open_jpeg(file, BytesIO(copy))
            image.load()
            notices = file.early_end(early_end.grey_share(image))
            if not notices and early_end.is_progressive(data):
                notices = (Text("The file ends early: details of the picture may be missing."),)
            return image, notices
    # The decoder gives up at some place in the data. What it has read so far is kept.
    with _allow_early_end():
        image = _open_jpeg(file, BytesIO(ended))
        image.load()
    missing = max(early_end.grey_share(image), early_end.constant_share(image))
    return image, file.early_end(missing) or (_DAMAGE,)


def _open_jpeg(file: _File, stream: BinaryIO) -> Image.Image:
    """Open a JPEG file. One above the limit is decoded at half its size, which needs a quarter.

    Nothing that the model could see is lost: it sees 1344 by 1344 pixels.
    """
    image = file.open(stream, most=2 * file.limits.max_pixels)
    width, height = image.size
    if width * height > file.limits.max_pixels:
        image.draft(image.mode, (width // 2, height // 2))
        failures.check_size(image.size, file.name, file.limits)
    return image


def _png(file: _File) -> Decoded:
    """Decode a PNG file or an animation; flaws in chunks without pixels do not matter."""
    png = read_png(file.stream)
    if png.chunks and png.chunks[0].kind == b"CgBI":
        raise failures.unknown_variant(file.name, file.kind, Text("Apple's CgBI extension"))
    opened: Decoded | None = None
    if png.ended and not png.flawed:
        with suppress(*DECODER_ERRORS):
            opened = _frames(file, file.open(file.stream))
    repaired = opened is None
    if opened is None:
        opened = _repaired_png(file, png)
    _, _, depth, color_type = png.header()
    transparent = opened.image.info.get("transparency")
    if color_type == 0 and depth in (2, 4) and isinstance(transparent, int):
        # Pillow scales greys of 2 and 4 bits to 8, but not the transparent one.
        opened.image.info["transparency"] = transparent * 255 // ((1 << depth) - 1)
    bits, alpha_bits = png.significant_bits()
    if 0 < bits < 16 and depth == 16 and opened.pages == 1:
        opened = replace(opened, image=_small_samples(file, png, opened.image, bits, alpha_bits))
    profile, notice = _png_profile(png)
    orientation = opened.orientation
    if repaired and b"eXIf" in png.colors:
        orientation = _orientation_of(png.colors[b"eXIf"])
    return replace(
        opened, profile=profile, orientation=orientation,
        significant_bits=bits, notices=opened.notices + notice,
    )  # fmt: skip


def _small_samples(
    file: _File, png: PngFile, image: Image.Image, bits: int, alpha_bits: int
) -> Image.Image:
    """Return a picture of 16 bits in color, or with alpha, whose samples are not scaled to 16 bits.

    Pillow keeps the upper 8 bits of these, which leaves such a picture almost black. Greys alone
    are read with all bits (`wide_grey`).
    """
    if image.mode not in ("RGB", "RGBA") or "transparency" in image.info:
        return image
    upper = np.asarray(image)
    if upper[..., :3].max() > ((1 << bits) - 1) >> 8:
        return image
    # Pillow has no name for both bytes of a sample, but one for the lower ones.
    with _allow_early_end():
        again = file.open(png.pixels_only(animated=False))
        if not isinstance(again, ImageFile.ImageFile) or not again.tile:
            return image
        stored = again.tile[0].args
        lower_bytes = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
        if stored not in lower_bytes:
            return image
        again.tile = [again.tile[0]._replace(args=lower_bytes[stored])]
        lower = np.asarray(again)
    if stored == "LA;16B":
        lower = lower[..., [1, 1, 1, 3]]
    values = upper.astype(np.uint16) << 8 | lower
    top = np.full(values.shape[2], _top_of(values[..., :3], bits), dtype=np.float32)
    if values.shape[2] == 4 and 0 < alpha_bits < 16:
        top[3] = _top_of(values[..., 3], alpha_bits)
    scaled = np.rint(values * (np.float32(255) / top))
    return Image.fromarray(np.minimum(scaled, 255).astype(np.uint8))


def _repaired_png(file: _File, png: PngFile) -> Decoded:
    """Decode a PNG file that ends early, or that has a flaw in a chunk without pixels."""
    missing = png.missing_share()
    notices = file.early_end(missing)
    for animated in (True, False):
        with suppress(*DECODER_ERRORS), _allow_early_end(missing > 0):
            opened = _frames(file, file.open(png.pixels_only(animated=animated)))
            return replace(opened, notices=notices + opened.notices)
    # The decoder gives up at some place in the data. What it has read so far is kept.
    with _allow_early_end():
        opened = _frames(file, file.open(png.pixels_only(animated=False)))
    return replace(opened, notices=(notices or (_DAMAGE,)) + opened.notices)


def _png_profile(png: PngFile) -> tuple[bytes, tuple[Text, ...]]:
    """Return the color profile of a PNG file, in the order of precedence of its specification."""
    try:
        code = png.color_code()
        if code is not None and code[0] in PRIMARIES:
            return _coded_profile(*code)
        if png.has_profile:
            profile = png.profile()
            return profile, () if profile else (BROKEN_PROFILE,)
        found = png.gamma_and_primaries()
        if found is None or is_srgb(found[1], found[0]):
            return b"", ()
        return profile_of(found[1], found[0]), ()
    except BrokenProfileError:
        return b"", (BROKEN_PROFILE,)


def _coded_profile(primaries: int, curve: int) -> tuple[bytes, tuple[Text, ...]]:
    """Return the profile of colors that are given by their numbers in ITU-T H.273."""
    if curve in (_PQ, _HLG):
        return b"", (
            Text("The picture has a high dynamic range; its brightness is an approximation."),
        )
    gamma = {_LINEAR: 1.0, 4: 2.2, 5: 2.8}.get(curve, 0.0)
    if is_srgb(PRIMARIES[primaries], gamma):
        return b"", ()
    return profile_of(PRIMARIES[primaries], gamma), ()


BROKEN_PROFILE = Text("The color profile of the picture is damaged and was ignored.")


def _tiff(file: _File) -> Decoded:
    """Decode a page of a TIFF file."""
    pages = tiff.find_pages(file.stream)
    failures.check_page(file.page, len(pages), file.name)
    page = pages[(file.page or 1) - 1]
    file.size = tiff.page_size(page)
    failures.check_size(file.size, file.name, file.limits)
    decoded = tiff.decode_page(file.stream, page)
    notices = file.early_end(decoded.missing)
    if file.page is None and len(pages) > 1:
        notices += (Text("This is page 1 of {pages}; the others were not read.", pages=len(pages)),)
    return Decoded(
        image=decoded.image, alpha=decoded.alpha, kind=file.kind, original_size=file.size,
        profile=decoded.profile, orientation=decoded.orientation, page=file.page or 1,
        pages=len(pages), notices=notices,
    )  # fmt: skip


def _webp(file: _File) -> Decoded:
    """Decode a WebP file or animation."""
    try:
        return _frames(file, file.open(file.stream))
    except DECODER_ERRORS:
        data, missing = early_end.padded_webp(file.whole())
        if missing == 0:
            raise
        notices = file.early_end(missing)
        opened = _frames(file, file.open(BytesIO(data)))
        return replace(opened, notices=notices + opened.notices)


def _bmp(file: _File) -> Decoded:
    """Decode a BMP file. Pillow reads the usual forms, our own code the others."""
    if not file.head.startswith(b"BM"):
        whole = bmp.with_file_header(file.whole())
        file.stream, file.head = BytesIO(whole), whole[: len(file.head)]
    header = bmp.read_header(file.head)
    one_bit_alpha = header is not None and header.bits == 16 and header.masks[3] != 0
    if not one_bit_alpha:
        with suppress(*DECODER_ERRORS):
            return _frames(file, file.open(file.stream))
    if header is None:
        raise failures.damaged(file.name, file.kind)
    file.size = (header.width, header.height)
    failures.check_size(file.size, file.name, file.limits)
    failures.check_page(file.page, 1, file.name)
    if header.is_read_here:
        pixels, missing = bmp.decode(file.whole(), header)
        notices = file.early_end(missing)
        return Decoded(
            image=Image.fromarray(np.ascontiguousarray(pixels)), kind=file.kind,
            original_size=file.size, notices=notices,
        )  # fmt: skip
    if header.compression not in (1, 2):
        raise tiff.VariantError(header.variant)
    return _cut(file)


def _gif(file: _File) -> Decoded:
    """Decode a GIF file or animation."""
    try:
        return _frames(file, file.open(file.stream))
    except DECODER_ERRORS:
        if file.size == (0, 0):
            raise
        return _cut(file)


def _cut(file: _File) -> Decoded:
    """Decode a file that ends early: the rows at its end have one value."""
    with _allow_early_end():
        opened = _frames(file, file.open(file.stream))
    notices = file.early_end(early_end.constant_share(opened.image))
    return replace(opened, notices=notices + opened.notices)


def _other(file: _File) -> Decoded:
    """Decode a file of a format that Pillow or its plugin reads completely."""
    return _frames(file, file.open(file.stream))


@contextmanager
def _allow_early_end(allowed: bool = True) -> Iterator[None]:
    """Let Pillow keep the rows that it could decode of a file that ends early."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = allowed
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _frames(file: _File, image: Image.Image) -> Decoded:
    """Load the chosen frame of an animation, or a picture that has one frame only."""
    pages = _count_pages(image)
    failures.check_page(file.page, pages, file.name)
    page = file.page or image.tell() + 1
    notices: tuple[Text, ...] = ()
    if file.page is not None and pages > 1:
        image.seek(file.page - 1)
        failures.check_size(image.size, file.name, file.limits)
    drawn = None
    if file.kind == "GIF" and isinstance(image, ImageFile.ImageFile) and image.tile:
        drawn = image.tile[0].extents
    image.load()
    profile, orientation = _profile(image), _orientation_of(image.info.get("exif"))
    animation = image
    if drawn is not None and image.tell() == 0 and drawn != (0, 0, *image.size):
        image = _clear_around(image, drawn)
    if file.page is None and pages > 1:
        image, page = _frame_with_content(animation, image, pages, file.limits)
        notices = (_frame_notice(file.kind, page, pages),)
    return Decoded(
        image=image, kind=file.kind, original_size=image.size, profile=profile,
        orientation=orientation, page=page, pages=pages, notices=notices,
    )  # fmt: skip


def _clear_around(image: Image.Image, drawn: tuple[int, int, int, int]) -> Image.Image:
    """Return a frame that is transparent outside of the part that it draws."""
    clear = Image.new("RGBA", image.size, (0, 0, 0, 0))
    clear.paste(image.convert("RGBA").crop(drawn), drawn)
    clear.info = image.info
    return clear


def _count_pages(image: Image.Image) -> int:
    """Return the number of pages or frames; 1 if those after the first can't be found."""
    try:
        return int(getattr(image, "n_frames", 1))
    except DECODER_ERRORS:
        return 1


def _frame_with_content(
    image: Image.Image, start: Image.Image, pages: int, limits: ImageLimits
) -> tuple[Image.Image, int]:
    """Return the first frame, or if it shows almost nothing, the frame with most to see.

    start  the first frame, which is loaded
    Frames are compared until as many pixels were decoded as one picture may have.
    """
    page = image.tell() + 1
    first = visible.small_copy(start)
    if not visible.is_faint(first):
        return start, page
    best, best_detail = start.copy(), 4 * visible.detail(first)
    for number in range(1, min(pages, limits.max_pixels // (image.width * image.height)) + 1):
        try:
            image.seek(number - 1)
            image.load()
        except DECODER_ERRORS:
            break
        seen = visible.small_copy(image)
        if not visible.is_faint(seen) and visible.detail(seen) > best_detail:
            best, best_detail, page = image.copy(), visible.detail(seen), number
    return best, page


def _frame_notice(kind: str, page: int, pages: int) -> Text:
    if kind == "HEIC":
        return Text(
            "This is picture {page} of {pages} in the file; the others were not read.",
            page=page,
            pages=pages,
        )
    if page == 1:
        return Text("This is frame 1 of {pages} of an animation.", pages=pages)
    return Text(
        "The first frame of the animation shows nothing; this is frame {page} of {pages}, which "
        "shows most.",
        page=page,
        pages=pages,
    )


def _profile(image: Image.Image) -> bytes:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else b""


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a picture in memory; 1 (none) if the data are damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DECODER_ERRORS:
        return 1


def _orientation_of(data: object) -> int:
    """Return the orientation in EXIF data; 1 (none) without any and if they are damaged.

    Pillow would also find one in XMP data and in texts of ImageMagick. Browsers ignore these.
    """
    if not isinstance(data, bytes):
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        return int(exif.get(_ORIENTATION, 1))
    except DECODER_ERRORS:
        return 1


def wide_grey(image: Image.Image, name: str, significant_bits: int) -> Image.Image:
    """Return greys of 16 bits, or floating-point greys from 0 to 1, scaled to 8 bits.

    Pillow's own conversion clips everything above 255 to white. With a transparent value, the
    result has mode LA.
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
    if 1 < significant_bits < 16:
        top = _top_of(values, significant_bits)
    grey = np.rint(values.astype(np.float32) * np.float32(255 / top)).astype(np.uint8)
    result = Image.fromarray(grey)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        result.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return result


def _top_of(values: np.ndarray, bits: int) -> float:
    """Return the value of white in samples of 16 bits of which fewer are significant.

    The PNG specification wants them scaled to all 16 bits. Some cameras and scanners store the
    small numbers: then none is above their range, and some are no multiples of the step between
    scaled ones.
    """
    top = (1 << bits) - 1
    small = values.max() <= top and bool((values & ((1 << (16 - bits)) - 1)).any())
    return float(top) if small else 65535.0


_DECODERS = {
    "JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "WebP": _webp, "BMP": _bmp, "GIF": _gif,
}  # fmt: skip
