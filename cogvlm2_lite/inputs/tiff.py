"""Decodes a page of a TIFF file.

Pillow reads many forms of TIFF wrongly without a word: samples in planes, 10 or 12 bits, signed
numbers, alpha at 16 bits. So the samples are read here, in groups of strips or tiles, and converted
to 8 bits at once, so that little memory is needed. libtiff (in Pillow) does what only needs the
bytes: LZW and other compressions. Pillow reads the compressions that know pixels: JPEG and fax.

What is not read here is refused by its name; see docs/pictures.md.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from math import isfinite
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cogvlm2_lite.inputs.early_end import jpeg_variant
from cogvlm2_lite.inputs.tiff_samples import Samples, lab_to_srgb, to_bytes, undo_prediction, unpack
from cogvlm2_lite.inputs.tiff_tags import BrokenTiffError, Directory, Source, Tag, read_directories
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, MIB

_GROUP_BYTES = 16 * MIB
_MOST_GROUP_BYTES = GIB
_NONE, _LZW, _DEFLATE, _PACKBITS, _LZMA, _ZSTD = 1, 5, (8, 32946), 32773, 34925, 50000
_BYTE_COMPRESSIONS = {_NONE, _LZW, *_DEFLATE, _PACKBITS, _LZMA, _ZSTD}
_MOST_RATIO = {_NONE: 1, _PACKBITS: 64, _LZW: 3000, 8: 1100, 32946: 1100}
"""To how many bytes one byte can be decompressed at most."""
_OLD_JPEG, _JPEG = 6, 7
_PILLOW_COMPRESSIONS = {2, 3, 4, 32771, _OLD_JPEG, _JPEG}  # the first four are fax
_COMPRESSION_NAMES = {
    9: "JBIG", 10: "JBIG", 32766: "NeXT", 32767: "Sony", 32809: "ThunderScan", 32908: "Pixar",
    32909: "Pixar", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG",
    34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000", 34713: "Nikon", 34887: "LERC",
    34892: "lossy DNG",
    34933: "PNG", 22610: "JPEG XR", 34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = (
    0,
    1,
    2,
    3,
    5,
    6,
    8,
    9,
)
_COLORS = {
    _WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3,
    _ICC_LAB: 3,
}  # fmt: skip
_MODEL_NAMES = {4: "transparency mask", 10: "ITULAB", 32844: "LogL", 32845: "LogLuv"}
_RAW_MODELS = (32803, 34892)
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class VariantError(Exception):
    """A picture of a variant that this program does not read.

    variant  its name as a part of a sentence: "... with {variant}"
    """

    def __init__(self, variant: Text) -> None:
        super().__init__(str(variant))
        self.variant = variant


@dataclass(frozen=True, kw_only=True)
class TiffPage:
    """A decoded page.

    image        mode L, RGB or CMYK, without alpha; of any mode if Pillow read it
    alpha        mode L, or None
    profile      the embedded color profile; may be empty
    orientation  EXIF's number, 1 to 8
    missing      share of the pixels that the file does not have, 0 to 1; they are grey
    """

    image: Image.Image
    alpha: Image.Image | None
    profile: bytes
    orientation: int
    missing: float


def find_pages(stream: BinaryIO) -> list[Directory]:
    """Return the directories of the pages of a file.

    Smaller copies of a page and masks are left out. Raises BrokenTiffError for a file without
    pages, and VariantError for the raw data of a camera, whose "pages" are previews.
    """
    found = read_directories(Source(stream))
    pages = [directory for directory in found if directory.is_page and Tag.WIDTH in directory]
    raw = Tag.DNG_VERSION in found[0] or any(_model(d) in _RAW_MODELS for d in found)
    if raw or (not pages and Tag.SUB_DIRECTORIES in found[0]):
        raise VariantError(Text("raw camera data"))
    return pages or found


def page_size(page: Directory) -> tuple[int, int]:
    """Return the width and height of a page in pixels, as stored."""
    return page.integer(Tag.WIDTH), page.integer(Tag.HEIGHT)


def decode_page(stream: BinaryIO, page: Directory) -> TiffPage:
    """Decode a page whose size was checked.

    Raises VariantError for what is not read here, BrokenTiffError for impossible tags, and what
    Pillow raises.
    """
    layout = _layout(page)
    if layout.by_pillow:
        image = _load_with_pillow(stream, page, layout)
        profile = image.info.get("icc_profile", b"")
        # Pillow has already turned the picture.
        return TiffPage(image=image, alpha=None, profile=profile, orientation=1, missing=0.0)
    decoded = _Decoder(page.source, layout).decode()
    return TiffPage(
        image=Image.fromarray(decoded.colors, "CMYK" if layout.model == _CMYK else None),
        alpha=None if decoded.alpha is None else Image.fromarray(decoded.alpha),
        profile=b"" if layout.is_lab else page.data(Tag.COLOR_PROFILE),
        orientation=page.integer(Tag.ORIENTATION, 1),
        missing=decoded.missing,
    )


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What the tags of a page say, checked.

    bits, form       of each sample; form is "u", "i" or "f"
    samples, colors  for each pixel: all of them, and those that are not extra
    alpha            the place of alpha among the samples, or None
    planes           1, or the number of samples if each is stored alone
    chunk            (width, height) of a tile or strip
    across, down     number of tiles or strips
    places           (offset, bytes) of each: by plane, then row, then column
    units            YCbCr: (width, height) of the pixels that share one color
    """

    by_pillow: bool
    width: int
    height: int
    bits: int
    form: str
    order: str
    model: int
    compression: int
    predictor: int
    reverse_bits: bool
    samples: int
    colors: int
    alpha: int | None
    associated: bool
    planes: int
    tiled: bool
    chunk: tuple[int, int]
    places: tuple[tuple[int, int], ...]
    units: tuple[int, int]
    low: float | None
    high: float | None
    color_map: NDArray[np.uint8] | None
    luma: tuple[float, float, float]
    black_white: tuple[float, ...]
    jpeg_tables: bytes

    @property
    def is_lab(self) -> bool:
        return self.model in (_LAB, _ICC_LAB)

    @property
    def shared(self) -> bool:
        """Whether several pixels share one color (YCbCr with subsampling)."""
        return self.model == _YCBCR and self.units != (1, 1)

    @property
    def across(self) -> int:
        return -(-self.width // self.chunk[0])

    @property
    def down(self) -> int:
        return -(-self.height // self.chunk[1])

    @property
    def in_chunk(self) -> int:
        """Samples of a pixel that are stored together."""
        return 1 if self.planes > 1 else self.samples

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of a chunk; with shared colors, of one row of units."""
        if self.shared:
            across, down = self.units
            return -(-self.chunk[0] // across) * (across * down + 2)
        return -(-self.chunk[0] * self.in_chunk * self.bits // 8)

    @property
    def group_bytes(self) -> int:
        """Bytes of one row of tiles, or one strip, in all planes."""
        rows = self.stored_rows(self.chunk[1])
        return self.row_bytes * rows * self.across * self.planes

    def stored_rows(self, rows: int) -> int:
        """Return how many rows of bytes hold a number of rows of pixels."""
        return -(-rows // self.units[1]) if self.shared else rows


def _model(page: Directory) -> int:
    default = _RGB if page.integer(Tag.SAMPLES_PER_PIXEL, 1) >= 3 else _BLACK_IS_ZERO
    return page.integer(Tag.PHOTOMETRIC, default)


def _layout(page: Directory) -> _Layout:
    """Read and check the tags of a page."""
    width, height = page_size(page)
    samples = page.integer(Tag.SAMPLES_PER_PIXEL, 1)
    model, compression = _model(page), page.integer(Tag.COMPRESSION, _NONE)
    planes = samples if page.integer(Tag.PLANAR_CONFIGURATION, 1) == 2 else 1
    _check_names(model, compression)
    colors = _COLORS[model]
    if model == _CMYK and page.integer(Tag.INK_SET, 1) != 1:
        raise VariantError(Text("other inks than CMYK"))
    if not colors <= samples <= 64:
        raise BrokenTiffError("impossible number of samples")
    bits, form = _sample_type(page, samples, model)
    extra = page.integers(Tag.EXTRA_SAMPLES)
    alpha = next((i for i, kind in enumerate(extra) if kind in (1, 2)), None)
    if alpha is not None and colors + alpha >= samples:
        alpha = None
    predictor = page.integer(Tag.PREDICTOR, 1)
    units = (1, 1)
    if model == _YCBCR and compression in _BYTE_COMPRESSIONS:
        units = _units(page, bits, samples, planes, predictor)
    if predictor not in (1, 2, 3) or (predictor == 3 and form != "f"):
        raise VariantError(Text("predictor {number}", number=predictor))
    if predictor == 2 and bits not in (8, 16, 32, 64):
        raise VariantError(Text("predictor {number} and {bits} bits", number=predictor, bits=bits))
    tiled = Tag.TILE_WIDTH in page
    chunk = _chunk_size(page, tiled, width, height)
    by_pillow = compression in _PILLOW_COMPRESSIONS and not (planes > 1 and compression == _JPEG)
    if by_pillow and (bits not in (1, 8) or planes > 1):
        variant = _variant_of_jpeg(page) if compression == _JPEG else None
        raise VariantError(variant or Text("{bits} bits per sample in this form", bits=bits))
    low, high = _range(page, bits, form)
    layout = _Layout(
        by_pillow=by_pillow, width=width, height=height, bits=bits, form=form,
        order=page.source.order, model=model, compression=compression, predictor=predictor,
        reverse_bits=page.integer(Tag.FILL_ORDER, 1) == 2, samples=samples, colors=colors,
        alpha=None if alpha is None else colors + alpha,
        associated=alpha is not None and extra[alpha] == 1,
        planes=planes, tiled=tiled, chunk=chunk,
        places=() if by_pillow else _places(page, tiled), units=units, low=low, high=high,
        color_map=_color_map(page, bits) if model == _PALETTE and not by_pillow else None,
        luma=_luma(page), black_white=_black_white(page), jpeg_tables=page.data(Tag.JPEG_TABLES),
    )  # fmt: skip
    if compression == _NONE and not tiled and layout.down == 1:
        layout = _in_short_strips(layout)
    if not by_pillow and layout.group_bytes > _MOST_GROUP_BYTES:
        raise VariantError(Text("strips or tiles of more than 1 GiB"))
    return layout


def _in_short_strips(layout: _Layout) -> _Layout:
    """Return a layout in which a single strip of uncompressed rows is read in several pieces."""
    rows = max(1, _GROUP_BYTES // (layout.row_bytes * layout.planes)) * layout.units[1]
    if rows >= layout.height:
        return layout
    size = layout.stored_rows(rows) * layout.row_bytes
    all_bytes = layout.stored_rows(layout.height) * layout.row_bytes
    places = tuple(
        (offset + start, min(size, max(0, (all_bytes if count < 0 else count) - start)))
        for offset, count in layout.places[: layout.planes]
        for start in range(0, all_bytes, size)
    )
    return replace(layout, chunk=(layout.width, rows), places=places)


def _check_names(model: int, compression: int) -> None:
    if model in _RAW_MODELS:
        raise VariantError(Text("raw camera data"))
    if model not in _COLORS:
        raise VariantError(Text("colors of type {model}", model=_MODEL_NAMES.get(model, model)))
    if compression not in _BYTE_COMPRESSIONS | _PILLOW_COMPRESSIONS:
        name = _COMPRESSION_NAMES.get(compression, compression)
        raise VariantError(Text("compression {name}", name=name))


def _sample_type(page: Directory, samples: int, model: int) -> tuple[int, str]:
    """Return the bits of a sample, and "u", "i" or "f"."""
    bits = set(page.integers(Tag.BITS_PER_SAMPLE)[:samples]) or {1}
    forms = set(page.integers(Tag.SAMPLE_FORMAT)[:samples]) or {1}
    if len(bits) > 1 or len(forms) > 1:
        raise VariantError(Text("samples of different types"))
    (width,), (kind,) = bits, forms
    if kind in (5, 6):
        raise VariantError(Text("complex numbers"))
    form = {2: "i", 3: "f"}.get(kind, "u")
    allowed: Collection[int] = (16, 32, 64) if form == "f" else range(1, 65)
    if model in (_LAB, _ICC_LAB):
        # a and b are signed or not by the color model; the tag says so in some files only.
        form, allowed = "u", (8, 16)
    if model == _PALETTE:
        allowed = range(1, 17)
    if width not in allowed:
        raise VariantError(Text("{bits} bits per sample", bits=width))
    return width, form


def _units(
    page: Directory, bits: int, samples: int, planes: int, predictor: int
) -> tuple[int, int]:
    """Return how many pixels, across and down, share one color in YCbCr."""
    across, down = (*page.integers(Tag.YCBCR_SUBSAMPLING), 2, 2)[:2]
    if Tag.YCBCR_SUBSAMPLING in page and len(page.integers(Tag.YCBCR_SUBSAMPLING)) < 2:
        across, down = 2, 2
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise BrokenTiffError("impossible subsampling")
    if bits != 8 or ((across, down) != (1, 1) and (samples != 3 or planes > 1 or predictor != 1)):
        raise VariantError(Text("YCbCr colors in this form"))
    return across, down


def _chunk_size(page: Directory, tiled: bool, width: int, height: int) -> tuple[int, int]:
    if not tiled:
        rows = page.integer(Tag.ROWS_PER_STRIP, height)
        return width, min(rows, height) if rows > 0 else height
    across, down = page.integer(Tag.TILE_WIDTH), page.integer(Tag.TILE_LENGTH)
    if not (0 < across <= width + 65_536 and 0 < down <= height + 65_536):
        raise BrokenTiffError("impossible size of tiles")
    return across, down


def _places(page: Directory, tiled: bool) -> tuple[tuple[int, int], ...]:
    """Return the offset and bytes of each strip or tile; -1 bytes if the file does not say."""
    offsets = page.integers(Tag.TILE_OFFSETS) if tiled else ()
    counts = page.integers(Tag.TILE_BYTE_COUNTS) if tiled else ()
    offsets = offsets or page.integers(Tag.STRIP_OFFSETS)
    counts = counts or page.integers(Tag.STRIP_BYTE_COUNTS)
    if not offsets:
        raise BrokenTiffError("no strips", end=page.source.size + 1)
    counts += (-1,) * (len(offsets) - len(counts))
    return tuple(zip(offsets, counts, strict=False))


def _range(page: Directory, bits: int, form: str) -> tuple[float | None, float | None]:
    """Return the values of black and white, if the tags define them.

    The smallest and largest values of 8 bits are ignored: programs write those that occur.
    """
    lows = page.values(Tag.MIN_SAMPLE_VALUE)
    highs = page.values(Tag.MAX_SAMPLE_VALUE)
    if highs and bits > 8 and all(isfinite(v) for v in (*lows, *highs)):
        low, high = min(lows, default=0), max(highs)
        if low < high:
            return low, high
    if form == "u" and bits not in (32, 64):
        return 0, (1 << bits) - 1
    return None, None


def _color_map(page: Directory, bits: int) -> NDArray[np.uint8]:
    """Return the colors of a palette, [colors, 3]."""
    values = page.integers(Tag.COLOR_MAP)
    if len(values) != 3 << bits:
        raise BrokenTiffError("impossible palette")
    table = np.array(values, dtype=np.uint32).reshape(3, -1).T
    # Some old programs wrote 8 of the 16 bits.
    return np.ascontiguousarray(table >> (8 if table.max() > 255 else 0), dtype=np.uint8)


def _luma(page: Directory) -> tuple[float, float, float]:
    red, green, blue = (*page.values(Tag.YCBCR_COEFFICIENTS), 0, 0, 0)[:3]
    return (red, green, blue) if red > 0 and green > 0 and blue > 0 else (0.299, 0.587, 0.114)


def _black_white(page: Directory) -> tuple[float, ...]:
    values = page.values(Tag.REFERENCE_BLACK_WHITE)
    usable = len(values) == 6 and all(values[i] < values[i + 1] for i in (0, 2, 4))
    return values if usable else (0, 255, 128, 255, 128, 255)


def _load_with_pillow(stream: BinaryIO, page: Directory, layout: _Layout) -> Image.Image:
    """Decode a page in Pillow. Raises VariantError for unknown kinds of JPEG."""
    try:
        image = _open_with_pillow(stream, page)
        image.load()
    except (OSError, SyntaxError, ValueError, RuntimeError):
        if layout.compression == _OLD_JPEG:
            raise VariantError(Text("compression {name}", name="JPEG (old style)")) from None
        variant = _variant_of_jpeg(page) if layout.compression == _JPEG else None
        if variant is not None:
            raise VariantError(variant) from None
        raise
    return image


def _variant_of_jpeg(page: Directory) -> Text | None:
    """Return the name of the variant of a page's JPEG data, if libjpeg does not decode it."""
    offset, count = _places(page, Tag.TILE_WIDTH in page)[0]
    return jpeg_variant(page.source.read(offset, min(count, 65_536) if count > 0 else 65_536))


def _open_with_pillow(stream: BinaryIO, page: Directory) -> Image.Image:
    """Open a file in Pillow so that a page is the first one."""
    if page.offset != page.source.first:
        stream.seek(0)
        data = bytearray(stream.read())
        place, form = (8, "Q") if page.source.big else (4, "I")
        struct.pack_into(page.source.order + form, data, place, page.offset)
        stream = BytesIO(data)
    stream.seek(0)
    return Image.open(stream, formats=("TIFF",))


@dataclass(kw_only=True)
class _Decoded:
    """The result of the decoder: [height, width, colors] or [height, width], and alpha."""

    colors: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    missing: float = 0.0


class _Decoder:
    """Reads the strips or tiles of one page."""

    def __init__(self, source: Source, layout: _Layout) -> None:
        self._source = source
        self._layout = layout

    def decode(self) -> _Decoded:
        """Return the pixels of the page as 8-bit colors."""
        layout = self._layout
        self._check_stored_bytes()
        low, high = self._black_and_white()
        grey = layout.model in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
        shape = (layout.height, layout.width)
        many = 4 if layout.model == _CMYK else 3
        result = _Decoded(
            colors=np.empty(shape if grey else (*shape, many), dtype=np.uint8),
            alpha=None if layout.alpha is None else np.empty(shape, dtype=np.uint8),
        )
        lost_pixels = 0
        for first, samples, lost in self._groups():
            rows = slice(first, first + samples.shape[0])
            alpha = None
            if layout.alpha is not None and result.alpha is not None:
                alpha = to_bytes(
                    samples[:, :, layout.alpha], 0 if layout.form == "f" else low, high
                )
                result.alpha[rows] = alpha
            colors = self._colors(samples[:, :, : layout.colors], low, high)
            if alpha is not None and layout.associated:
                colors = _unmultiplied(colors, alpha, ink=layout.model == _CMYK)
            if lost.any():
                colors[lost] = 0 if layout.model == _CMYK else 128
                if result.alpha is not None:
                    result.alpha[rows][lost] = 255
                lost_pixels += int(np.count_nonzero(lost))
            result.colors[rows] = colors
        result.missing = lost_pixels / (layout.width * layout.height)
        return result

    def _check_stored_bytes(self) -> None:
        """Raise BrokenTiffError if the file is far too small for its pixels."""
        layout, size = self._layout, self._source.size
        most = _MOST_RATIO.get(layout.compression)
        if most is None or (0, 0) in layout.places:  # chunks of zeros are not stored
            return
        stored = sum(
            min(count if count >= 0 else size, max(0, size - offset))
            for offset, count in layout.places
        )
        needed = layout.group_bytes * layout.down // most
        if stored < needed // 2:
            raise BrokenTiffError("too few bytes", end=size + needed - stored)

    def _black_and_white(self) -> tuple[float, float]:
        """Return the values of black and white (of no ink and full ink).

        Raises VariantError if neither the tags nor the type of the samples define them.
        """
        layout = self._layout
        if layout.low is not None and layout.high is not None:
            return layout.low, layout.high
        unknown = VariantError(
            Text(
                {
                    "u": "{bits}-bit samples whose black and white are unknown",
                    "i": "signed {bits}-bit samples whose black and white are unknown",
                    "f": "floating-point samples of {bits} bits whose black and white are unknown",
                }[layout.form],
                bits=layout.bits,
            )
        )
        if layout.form == "i" and layout.bits not in (32, 64):
            raise unknown
        extremes = [(group.min(), group.max()) for _, group, _ in self._groups()]
        least, most = min(e[0] for e in extremes), max(e[1] for e in extremes)
        if layout.form == "f" and least >= 0 and most <= 1:  # in this form, NaN is refused, too
            return 0.0, 1.0
        # Programs store 16 bits in samples of 32. Numbers between the two ranges fit neither.
        tops = [(1 << bits) - 1 for bits in (16, 32, 64) if bits <= layout.bits]
        if layout.form == "i":
            tops[-1] >>= 1
        top = next((top for top in tops if most <= top), 0)
        if layout.form == "f" or least < 0 or (top > 65535 and most < top >> 4):
            raise unknown
        return 0, top

    def _colors(self, samples: Samples, low: float, high: float) -> NDArray[np.uint8]:
        """Return 8-bit colors of samples [rows, width, colors]."""
        layout = self._layout
        if layout.model == _PALETTE and layout.color_map is not None:
            return layout.color_map[samples[:, :, 0]]
        if layout.model == _YCBCR:
            return _ycbcr_to_rgb(to_bytes(samples, low, high), layout.luma, layout.black_white)
        if layout.is_lab:
            return lab_to_srgb(_lab(samples, layout.bits, signed=layout.model == _LAB))
        colors = to_bytes(samples, low, high)
        if layout.model == _WHITE_IS_ZERO:
            colors = 255 - colors
        return colors[:, :, 0] if layout.colors == 1 else colors

    def _groups(self) -> Iterator[tuple[int, Samples, NDArray[np.bool_]]]:
        """Yield groups of rows: the first row, samples [rows, width, samples], and lost pixels."""
        layout = self._layout
        count = max(1, _GROUP_BYTES // max(layout.group_bytes, 1))
        for first in range(0, layout.down, count):
            last = min(first + count, layout.down)
            planes = [self._plane(plane, first, last) for plane in range(layout.planes)]
            samples = np.concatenate([plane[0] for plane in planes], axis=2)
            lost = np.logical_or.reduce([plane[1] for plane in planes])
            # Whole pictures in one strip are frequent; their rows are converted in steps, too.
            step = max(1, _GROUP_BYTES // max(samples[0].nbytes, 1))
            for row in range(0, samples.shape[0], step):
                rows = slice(row, row + step)
                yield first * layout.chunk[1] + row, samples[rows], lost[rows]

    def _plane(self, plane: int, first: int, last: int) -> tuple[Samples, NDArray[np.bool_]]:
        """Return the samples of some rows of chunks in one plane, and which pixels are lost."""
        layout = self._layout
        each = layout.across * layout.down
        start = plane * each
        places = layout.places[start + first * layout.across : start + last * layout.across]
        places += ((self._source.size, 0),) * ((last - first) * layout.across - len(places))
        width, height = layout.chunk
        if layout.compression == _JPEG:
            rows, lost_rows = self._jpeg(places, last == layout.down)
        else:
            rows, lost_rows = self._bytes(places, last == layout.down)
        if layout.shared:
            samples = _spread(rows, layout.units, width, height, len(places))
            lost_rows = np.repeat(lost_rows.reshape(len(places), -1), layout.units[1], axis=1)
            lost_rows = lost_rows[:, :height].reshape(-1)
        else:
            if layout.predictor != 1:
                rows = undo_prediction(
                    rows, layout.predictor, layout.bits, layout.in_chunk, layout.order
                )
            form = "u" if layout.compression == _JPEG else layout.form
            samples = unpack(rows, width * layout.in_chunk, layout.bits, form, layout.order)
        samples = samples.reshape(last - first, layout.across, height, width, layout.in_chunk)
        samples = samples.transpose(0, 2, 1, 3, 4).reshape(
            (last - first) * height, layout.across * width, layout.in_chunk
        )
        lost = lost_rows.reshape(last - first, layout.across, height, 1).repeat(width, axis=3)
        lost = lost.transpose(0, 2, 1, 3).reshape((last - first) * height, layout.across * width)
        rest = layout.height - first * height
        return samples[:rest, : layout.width], lost[:rest, : layout.width]

    def _bytes(
        self, places: tuple[tuple[int, int], ...], at_end: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the decompressed rows of chunks, and which of them are lost."""
        layout = self._layout
        height = layout.stored_rows(layout.chunk[1])
        rows = np.zeros((len(places), height, layout.row_bytes), dtype=np.uint8)
        lost = np.zeros((len(places), height), dtype=np.bool_)
        heights = [height] * len(places)
        if at_end and not layout.tiled:  # the last strip has only the rows that are left
            left = layout.height - (layout.down - 1) * layout.chunk[1]
            heights[-1] = layout.stored_rows(left)
        whole = self._by_libtiff(places, heights) if self._needs_libtiff else None
        if whole is not None:
            rows.reshape(-1, layout.row_bytes)[: whole.shape[0]] = whole
            return rows.reshape(-1, layout.row_bytes), lost.reshape(-1)
        for number, (place, most) in enumerate(zip(places, heights, strict=True)):
            if place == (0, 0):  # a chunk of zeros that is not stored
                continue
            data = self._decompress(place, most)
            known = len(data) // layout.row_bytes
            flat = np.frombuffer(data, dtype=np.uint8, count=known * layout.row_bytes)
            rows[number, :known] = flat.reshape(known, layout.row_bytes)
            lost[number, known:most] = True
        return rows.reshape(-1, layout.row_bytes), lost.reshape(-1)

    @property
    def _needs_libtiff(self) -> bool:
        return self._layout.compression not in (_NONE, *_DEFLATE)

    def _stored(self, place: tuple[int, int], expected: int) -> bytes:
        """Return the bytes of a chunk as stored, their bits in the usual order."""
        offset, count = place
        plain = self._layout.compression == _NONE
        if count < 0 or (plain and count > expected):
            count = expected if plain else self._source.size
        data = self._source.read(offset, count)
        return data.translate(_REVERSED) if self._layout.reverse_bits else data

    def _decompress(self, place: tuple[int, int], rows: int) -> bytes:
        """Return the bytes of one chunk; fewer if it is cut or damaged."""
        layout = self._layout
        expected = rows * layout.row_bytes
        stored = self._stored(place, expected)
        if layout.compression == _NONE:
            return stored[:expected]
        if layout.compression in _DEFLATE:
            return _inflate(stored, expected)
        if layout.compression in (_LZW, _PACKBITS) and stored:
            # With zeros behind them, the codes of a cut chunk become rows of zeros.
            padded = self._libtiff([stored + bytes(2 * expected)], [rows])
            if padded is not None:
                filled = np.flatnonzero(padded.any(axis=1))
                return padded[: int(filled[-1]) if filled.size else 0].tobytes()
        return b""

    def _by_libtiff(
        self, places: tuple[tuple[int, int], ...], heights: list[int]
    ) -> NDArray[np.uint8] | None:
        """Decompress chunks together; None if one of them is cut or damaged."""
        stored = [
            self._stored(place, height * self._layout.row_bytes)
            for place, height in zip(places, heights, strict=True)
        ]
        complete = all(len(s) == c or c < 0 for s, (_, c) in zip(stored, places, strict=True))
        return self._libtiff(stored, heights) if complete and all(stored) else None

    def _libtiff(self, stored: list[bytes], heights: list[int]) -> NDArray[np.uint8] | None:
        layout = self._layout
        file = _grey_tiff(stored, layout.row_bytes, heights, layout.compression)
        return _grey_pixels(file, (sum(heights), layout.row_bytes))

    def _jpeg(
        self, places: tuple[tuple[int, int], ...], at_end: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the rows of chunks that are greys in JPEG: one plane of a picture."""
        layout = self._layout
        width, height = layout.chunk
        rows = np.zeros((len(places), height, width), dtype=np.uint8)
        lost = np.zeros((len(places), height), dtype=np.bool_)
        for number, place in enumerate(places):
            most = height
            if at_end and not layout.tiled and number == len(places) - 1:
                most = layout.height - (layout.down - 1) * height
            stored = self._stored(place, 0)
            file = _grey_tiff([stored], width, [most], _JPEG, layout.jpeg_tables)
            pixels = _grey_pixels(file, (most, width))
            if pixels is None:
                lost[number, :most] = True
            else:
                rows[number, :most] = pixels
        return rows.reshape(-1, width), lost.reshape(-1)


def _inflate(stored: bytes, most: int) -> bytes:
    """Return up to `most` bytes of a zlib stream, which may be cut or damaged."""
    unpacker = zlib.decompressobj()
    parts: list[bytes] = []
    length = 0
    try:
        for start in range(0, len(stored), 65_536):
            parts.append(unpacker.decompress(stored[start : start + 65_536], most - length))
            length += len(parts[-1])
            if length >= most or unpacker.eof:
                break
    except zlib.error:
        pass
    return b"".join(parts)


def _grey_tiff(
    stored: list[bytes], row_bytes: int, heights: list[int], compression: int, tables: bytes = b""
) -> bytes:
    """Return a TIFF file of 8-bit greys whose rows are the bytes of compressed chunks."""
    body = b"".join(stored)
    ends = np.cumsum([8, *map(len, stored)], dtype=np.uint64)
    entries: list[tuple[int, int, int, bytes]] = [
        (tag, 4, 1, struct.pack("<I", value))
        for tag, value in (
            (Tag.WIDTH, row_bytes), (Tag.HEIGHT, sum(heights)), (Tag.BITS_PER_SAMPLE, 8),
            (Tag.COMPRESSION, compression), (Tag.PHOTOMETRIC, 1), (Tag.SAMPLES_PER_PIXEL, 1),
            (Tag.ROWS_PER_STRIP, heights[0]),
        )
    ]  # fmt: skip
    many = len(stored)
    entries.append((Tag.STRIP_OFFSETS, 4, many, struct.pack(f"<{many}I", *map(int, ends[:-1]))))
    entries.append((Tag.STRIP_BYTE_COUNTS, 4, many, struct.pack(f"<{many}I", *map(len, stored))))
    if tables:
        entries.append((Tag.JPEG_TABLES, 7, len(tables), tables))
    directory, values = struct.pack("<H", len(entries)), b""
    behind = 8 + len(body) + 2 + 12 * len(entries) + 4
    for tag, kind, count, data in sorted(entries):
        field = data
        if len(data) > 4:
            field = struct.pack("<I", behind + len(values))
            values += data
        directory += struct.pack("<HHI4s", tag, kind, count, field)
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + body + directory + bytes(4) + values


def _grey_pixels(file: bytes, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Return the pixels of a file that `_grey_tiff` made; None if libtiff rejects its data."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # these are bytes, and their number was checked
    try:
        with Image.open(BytesIO(file), formats=("TIFF",)) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError):
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _spread(
    rows: NDArray[np.uint8], units: tuple[int, int], width: int, height: int, chunks: int
) -> NDArray[np.uint8]:
    """Return [rows, width, 3] of rows of units: values of Y, then Cb and Cr for all of them."""
    across, down = units
    cells = rows.reshape(chunks, -1, rows.shape[1] // (across * down + 2), across * down + 2)
    rows_of_cells, columns = cells.shape[1:3]
    luma = cells[..., :-2].reshape(chunks, rows_of_cells, columns, down, across)
    luma = luma.transpose(0, 1, 3, 2, 4).reshape(chunks, rows_of_cells * down, columns * across)
    color = cells[..., -2:].repeat(down, axis=1).repeat(across, axis=2)
    both = np.concatenate([luma[..., None], color], axis=3)
    return both[:, :height, :width].reshape(chunks * height, width, 3)


def _ycbcr_to_rgb(
    colors: NDArray[np.uint8], luma: tuple[float, float, float], black_white: tuple[float, ...]
) -> NDArray[np.uint8]:
    """Return RGB of YCbCr (TIFF 6.0, section 21)."""
    values = colors.astype(np.float32)
    tops = (255, 127, 127)
    y, blue, red = (
        (values[..., i] - black_white[2 * i])
        * (tops[i] / (black_white[2 * i + 1] - black_white[2 * i]))
        for i in range(3)
    )
    r = red * (2 - 2 * luma[0]) + y
    b = blue * (2 - 2 * luma[2]) + y
    g = (y - luma[2] * b - luma[0] * r) / luma[1]
    return np.asarray(np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, 255)), dtype=np.uint8)


def _lab(samples: Samples, bits: int, *, signed: bool) -> NDArray[np.float32]:
    """Return lightness from 0 to 100, a and b of CIELAB samples (TIFF 6.0, section 23)."""
    if signed:  # a and b are signed; all the bits count for lightness
        light = samples[..., 0] * np.float32(100 / ((1 << bits) - 1))
        other = samples[..., 1:].view(np.dtype(f"i{bits // 8}")).astype(np.float32)
        other /= 1 << (bits - 8)
    else:  # as in color profiles of version 2
        light = samples[..., 0] * np.float32(100 / (255 << (bits - 8)))
        other = samples[..., 1:].astype(np.float32) / np.float32(1 << (bits - 8)) - np.float32(128)
    return np.concatenate([light[..., None], other], axis=-1, dtype=np.float32)


def _unmultiplied(
    colors: NDArray[np.uint8], alpha: NDArray[np.uint8], *, ink: bool
) -> NDArray[np.uint8]:
    """Return colors that were stored multiplied by alpha as they are without it."""
    shape = alpha if colors.ndim == 2 else alpha[:, :, None]
    top = colors.astype(np.uint32) * 255 + shape // 2
    return np.asarray(np.minimum(top // np.maximum(shape, 1), 255), dtype=np.uint8)
