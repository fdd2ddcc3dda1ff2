"""Opens pictures safely and converts them to the input of the vision tower.

JPEG, PNG, WebP, BMP, GIF and TIFF are decoded, AVIF and HEIC where a package for them is installed
(docs/pictures.md). Size limits are checked before anything is decoded, and every problem raises an
ImageError with one sentence.

This differs from the released demos, which only call `convert("RGB")`: pictures are rotated by
their EXIF tag, colors are converted to sRGB by an embedded profile, and transparent pictures are
composited on white (light ones on black or grey). So the model sees what a person sees. Dropping
the alpha channel would show whatever color is stored in transparent pixels, which for screenshots
with transparency is often black on black.
"""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cogvlm2_lite.architectures.architecture import VisionConfig
from cogvlm2_lite.errors import ImageError, UsageError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs import failures
from cogvlm2_lite.inputs.colour import BrokenProfileError, convert_to_srgb
from cogvlm2_lite.inputs.decoding import (
    BROKEN_PROFILE,
    DECODER_ERRORS,
    Decoded,
    decode_file,
    exif_orientation,
    pillow,
    wide_grey,
)
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS, ImageLimits
from cogvlm2_lite.inputs.visible import nothing_to_see, on_ground, squashed
from cogvlm2_lite.text import Text

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_FORMAT_NAMES = {"WEBP": "WebP", "MPO": "JPEG", "HEIF": "HEIC"}
_UNNAMED = Text("The picture")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class OpenedImage:
    """A decoded picture.

    rgb            [height, width, 3] uint8, read-only
    sha256         hash of size and pixels: equal for the same picture under any name or format
    format         "JPEG", "PNG", ... or "memory" for a picture that was not read from a file
    original_size  (width, height) as stored, before rotation
    name           file name for messages, in one line; "The picture" without a file
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
    too large or in another format, or has no such page, and UsageError for a source of
    another type.
    """
    if page is not None and page < 1:
        raise UsageError("Pages are counted from 1, not from {page}.", page=page)
    if isinstance(source, OpenedImage):
        return source
    if isinstance(source, Image.Image):
        return _from_pillow(source, upright, page, limits)
    if isinstance(source, bytes):
        failures.check_file_size(len(source), _UNNAMED, limits)
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
            return _from_stream(stream, escape_line(path.name), upright, page, limits)
    except OSError as error:
        raise failures.no_access(escape_line(path.name), error) from error


def pixel_values(opened: OpenedImage, vision: VisionConfig) -> NDArray[np.float32]:
    """Return the input of the vision tower, bit for bit as the released preprocessing computes it.

    The picture is resized to a square with Pillow's antialiased bicubic filter on 8-bit values (the
    aspect ratio is not kept: the model was trained this way), divided by 255 and normalised, in
    float32.

    Returns [1, 3, image_size, image_size] float32
    """
    return normalise_pixels(resize_pixels(opened, vision.image_size))


def resize_pixels(opened: OpenedImage, side: int) -> NDArray[np.uint8]:
    """Return the picture as a square, the first half of pixel_values: [side, side, 3] uint8."""
    resized = Image.fromarray(opened.rgb).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def normalise_pixels(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the second half of pixel_values: [height, width, 3] -> [1, 3, height, width]."""
    # Contiguous before the arithmetic: numpy would keep the transposed order in its results.
    scaled = np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32)
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
    name = escape_line(path.name or str(path))
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError(
            "There is no file {file!r}.", hint="Check the spelling of the path.", file=str(path)
        ) from None
    except (OSError, ValueError) as error:
        raise failures.no_access(name, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(
            "{file} is a folder, not a picture.", hint="Choose one file in it.", file=name
        )
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("{file} is not a regular file.", hint=failures.USE_ANOTHER, file=name)
    failures.check_file_size(status.st_size, name, limits)
    return path


def _from_stream(
    stream: BinaryIO, name: str, upright: bool, page: int | None, limits: ImageLimits
) -> OpenedImage:
    """Decode an open file."""
    with pillow(limits):
        return _finish(decode_file(stream, name, page, limits), name, upright)


def _from_pillow(
    image: Image.Image, upright: bool, page: int | None, limits: ImageLimits
) -> OpenedImage:
    """Convert a picture that the caller already has; it is not changed."""
    file_name = getattr(image, "filename", "")
    name: str = _UNNAMED
    if isinstance(file_name, str) and file_name:
        name = escape_line(Path(file_name).name)
    failures.check_page(page, 1, name)
    failures.check_size(image.size, name, limits)
    kind = _FORMAT_NAMES.get(image.format or "memory", image.format or "memory")
    with pillow(limits):
        try:
            image.load()
            profile = image.info.get("icc_profile")
            decoded = Decoded(
                image=image,
                kind=kind,
                original_size=image.size,
                profile=profile if isinstance(profile, bytes) else b"",
                orientation=exif_orientation(image),
            )
        except MemoryError as error:
            raise failures.too_little_memory(name, image.size) from error
        except DECODER_ERRORS as error:
            raise failures.damaged(name, kind, image.size) from error
        return _finish(decoded, name, upright)


def _finish(decoded: Decoded, name: str, upright: bool) -> OpenedImage:
    """Return a decoded picture as a person sees it: upright, in sRGB, on a ground."""
    try:
        rgb, alpha, broken = _to_srgb(decoded, name)
        rgb, ground = on_ground(rgb, alpha)
        turn = _TURNS.get(decoded.orientation) if upright else None
        pixels = np.array(rgb if turn is None else rgb.transpose(turn), dtype=np.uint8)
    except MemoryError as error:
        raise failures.too_little_memory(name, decoded.original_size) from error
    height, width, _ = pixels.shape
    nothing = None if ground is not None else nothing_to_see(pixels)
    notices = (broken, ground, nothing, squashed(width, height))
    return opened_image(
        pixels,
        format=decoded.kind,
        original_size=decoded.original_size,
        name=name,
        page=decoded.page,
        pages=decoded.pages,
        notices=decoded.notices + tuple(notice for notice in notices if notice is not None),
    )


def opened_image(
    pixels: NDArray[np.uint8],
    *,
    format: str,
    original_size: tuple[int, int],
    name: str,
    page: int = 1,
    pages: int = 1,
    notices: tuple[Text, ...] = (),
) -> OpenedImage:
    """Return pixels [height, width, 3] as an opened picture; they become read-only."""
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False
    height, width, _ = pixels.shape
    digest = hashlib.sha256(f"{width}x{height} RGB\n".encode())
    digest.update(pixels.data)
    return OpenedImage(
        rgb=pixels, sha256=digest.hexdigest(), format=format, original_size=original_size,
        name=name, page=page, pages=pages, notices=notices,
    )  # fmt: skip


def _to_srgb(decoded: Decoded, name: str) -> tuple[Image.Image, Image.Image | None, Text | None]:
    """Return a picture of any mode as RGB in sRGB, its alpha, and a notice of a broken profile."""
    image = decoded.image
    if image.mode.startswith(("I", "F")):
        image = wide_grey(image, name, decoded.significant_bits)
    base, alpha = _split(image)
    if decoded.alpha is not None:
        alpha = decoded.alpha
    notice = None
    if decoded.profile:
        try:
            base = convert_to_srgb(base, decoded.profile)
        except BrokenProfileError:
            notice = BROKEN_PROFILE
    return base.convert("RGB"), alpha, notice


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colors of a picture, in mode L, RGB or CMYK where possible, and its alpha."""
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if image.mode in ("1", "L"):  # kept grey: a profile may be for greys only
        if not image.has_transparency_data:
            return image.convert("L"), None
        layer = image.convert("LA")
        return layer.getchannel("L"), layer.getchannel("A")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return layer.convert("RGB"), layer.getchannel("A")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB"), None
