"""Pictures that were read wrongly or called damaged: each is read as a person sees it, or refused.

tests/pictures/README.md says which programs wrote the files.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.inputs.colour import PRIMARIES, SRGB, profile_of
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.inputs.limits import ImageLimits
from cogvlm2_lite.inputs.tiff_samples import unpack
from cogvlm2_lite.inputs.tiles import tiles

PICTURES = Path(__file__).parents[1] / "pictures"
TIFFS = sorted((PICTURES / "tiff").glob("*.tif"))
SIGN = Image.open(PICTURES / "sign.png")
SIGN.load()  # which closes the file
"""What every file in tests/pictures/tiff shows, some of them in greys."""
ROAD = np.asarray(Image.open(next(p.path for p in sample_pictures() if p.path.stem == "sign")))
"""What the other files show."""


def difference(opened: OpenedImage, right: np.ndarray) -> int:
    return int(np.abs(opened.rgb.astype(int) - right[..., :3]).max())


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes, *, sound: bool = True) -> bytes:
    check = zlib.crc32(kind + data) ^ (not sound)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """A PNG file with one more chunk after its header."""
    return data[:33] + extra + data[33:]


def sign_png(mode: str = "RGB") -> bytes:
    return encoded(SIGN.convert(mode), "PNG")


@pytest.mark.parametrize(
    "path", [p for p in TIFFS if not p.stem.startswith("refused")], ids=lambda p: p.stem
)
def test_a_form_of_tiff_is_read_as_its_writer_meant_it(path: Path) -> None:
    grey = path.stem.startswith("grey")
    right = np.asarray((SIGN.convert("L") if grey else SIGN).convert("RGB"))
    most = 12 if "jpeg" in path.stem else 5 if "cielab" in path.stem else 1
    opened = open_image(path)
    assert difference(opened, right) <= most
    assert opened.notices == ()


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("complex", "complex numbers"), ("jpeg2000", "compression JPEG 2000"),
        ("jpegxl", "compression JPEG XL"), ("lerc", "compression LERC"),
        ("webp", "compression WebP"),
        ("float_without_range", "floating-point samples of 32 bits whose black"),
        ("int16_without_range", "signed 16-bit samples whose black"),
    ],
)  # fmt: skip
def test_a_form_of_tiff_that_is_not_read_is_refused_by_name(name: str, variant: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(PICTURES / "tiff" / f"refused_{name}.tif")
    assert f"with {variant}" in caught.value.message
    assert "damaged" not in caught.value.message


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_ordinary_tiffs_have_the_pixels_that_pillow_reads(
    mode: str, compression: str | None
) -> None:
    image = SIGN.convert("L").convert(mode) if mode == "I;16" else SIGN.convert(mode)
    data = encoded(image, "TIFF", compression=compression)
    with Image.open(BytesIO(data)) as read:
        right = read if mode == "I;16" else read.convert("RGB")
        pixels = np.asarray(right).astype(int)
    if mode == "I;16":
        pixels = np.rint(pixels * (255 / 65535))[..., None].repeat(3, axis=2)
    assert difference(open_image(data), pixels) == 0


def test_samples_of_any_number_of_bits_are_unpacked() -> None:
    for bits in range(1, 65):
        random = np.random.default_rng(bits).integers(0, 1 << 63, 11, dtype=np.uint64)
        values = [int(v) >> max(0, 63 - bits) for v in random]
        row = "".join(f"{v:0{bits}b}" for v in values)
        row += "0" * (-len(row) % 8)
        data = int(row, 2).to_bytes(len(row) // 8, "big")
        rows = np.frombuffer(data * 2, dtype=np.uint8).reshape(2, -1)
        assert unpack(rows, 11, bits, "u", ">").tolist() == [values, values], bits


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_pages_are_read(compression: str) -> None:
    image = SIGN.convert("L").point(lambda v: 255 * (v > 128)).convert("1")
    data = encoded(image, "TIFF", compression=compression)
    assert difference(open_image(data), np.asarray(image.convert("RGB"))) == 0


def test_smaller_copies_in_a_tiff_are_no_pages() -> None:
    info = {254: 1}  # NewSubfileType: a reduced copy
    small = SIGN.resize((10, 10))
    small.encoderinfo = {"tiffinfo": info}
    stream = BytesIO()
    SIGN.save(stream, "TIFF", save_all=True, append_images=[small])
    opened = open_image(stream.getvalue())
    assert (opened.pages, opened.notices) == (1, ())


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tIME", b"\x07\xea\x01\x01\0\0\0", sound=False),
        chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"zTXt", b"workflow\0\0broken"),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", bytes(32)),
        chunk(b"sBIT", b""),
        chunk(b"acTL", b"\0"),
    ],
    ids=[
        "wrong checksum", "long text", "compressed text", "text bomb", "broken text",
        "international text", "broken EXIF", "short pHYs", "short gAMA", "impossible cHRM",
        "short sBIT", "short acTL",
    ],
)  # fmt: skip
def test_a_flaw_beside_the_pixels_of_a_png_does_not_matter(extra: bytes) -> None:
    assert difference(open_image(with_chunk(sign_png(), extra)), np.asarray(SIGN)) == 0


def test_an_exif_turn_survives_a_flaw_beside_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = with_chunk(encoded(SIGN, "PNG", exif=exif), chunk(b"tIME", b"", sound=False))
    assert difference(open_image(data), np.asarray(SIGN.rotate(180))) == 0


def test_a_profile_above_one_mebibyte_is_used_and_a_broken_one_reported() -> None:
    large = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    large += np.random.default_rng(0).bytes(1_500_000)
    large = struct.pack(">I", len(large)) + large[4:]
    body = b"icc\0\0" + zlib.compress(large)
    opened = open_image(with_chunk(sign_png(), chunk(b"iCCP", body)))
    assert (difference(opened, np.asarray(SIGN)), opened.notices) == (0, ())
    for broken in (b"icc\0\0" + zlib.compress(b"no profile" * 50), b"icc\0\0no zlib", b"x"):
        opened = open_image(with_chunk(sign_png(), chunk(b"iCCP", broken)))
        assert difference(opened, np.asarray(SIGN)) == 0
        assert "color profile" in opened.notices[0]


def test_the_pictures_that_people_sent_show_the_sign() -> None:
    for name, most in (("badcrc_time.png", 0), ("icc_swapped.png", 2), ("no_eoi.jpg", 60)):
        opened = open_image(PICTURES / name)
        assert difference(opened, ROAD) <= most, name
        assert opened.notices == (), name


def test_an_early_end_is_reported_with_its_share() -> None:
    opened = open_image(PICTURES / "cut2pct.jpg")
    assert opened.notices == ("The file ends early or is damaged: 11% of the picture is missing.",)
    assert np.abs(opened.rgb[:380].astype(int) - ROAD[:380]).mean() < 3


@pytest.mark.parametrize("height", [194, 199, 200, 208])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_jpeg_that_ends_in_its_last_row_of_blocks_is_reported(
    height: int, subsampling: int
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (height, 160, 3), dtype=np.uint8)
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))
    data = encoded(image, "JPEG", quality=90, subsampling=subsampling)
    assert "ends early" in open_image(data[: int(len(data) * 0.975)]).notices[0]
    assert open_image(data[:-2]).notices == ()  # only the end mark is missing


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_that_ends_early_is_read_if_most_is_there(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    opened = open_image(data[: int(len(data) * 0.9)])
    assert "The file ends early or is damaged: " in opened.notices[0]
    share = int(opened.notices[0].split("%")[0].split()[-1])
    assert 3 <= share <= 25
    with pytest.raises(ImageError, match=r"damaged.*(of the picture is missing|at least)"):
        open_image(data[: int(len(data) * 0.4)])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_compressed_tiff_that_ends_early_is_read(compression: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(noise), "TIFF", compression=compression))
    data[-len(data) // 10 :] = b""
    if struct.unpack_from("<I", data, 4)[0] < len(data):  # the directory may be at the end
        assert "ends early" in open_image(bytes(data)).notices[0]
    else:
        with pytest.raises(ImageError, match="should have at least"):
            open_image(bytes(data))


def test_a_flaw_in_the_pixels_of_a_png_leaves_the_rows_before_it() -> None:
    rows = bytearray(b"".join(b"\0" + row.tobytes() for row in np.asarray(SIGN)))
    rows[30 * 121] = 9  # no filter has this number
    data = sign_png()
    header = data[:33]
    body = chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    opened = open_image(header + body)
    assert "parts of the picture may be wrong" in opened.notices[0]
    assert (opened.rgb[:30] == np.asarray(SIGN)[:30]).all()


def test_a_tiny_tiff_that_claims_many_pixels_is_refused_at_once() -> None:
    for compression in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate"):
        data = bytearray(encoded(SIGN, "TIFF", compression=compression))
        start = struct.unpack_from("<I", data, 4)[0]
        for entry in range(start + 2, start + 2 + 24, 12):  # width and height come first
            struct.pack_into("<HII", data, entry + 2, 4, 1, 11_000)
        with pytest.raises(ImageError, match=r"should have at least|ends early"):
            open_image(bytes(data))


def test_zeros_at_the_end_of_a_download_count_as_missing() -> None:
    data = encoded(Image.fromarray(ROAD), "JPEG", quality=95)
    cut = len(data) // 5
    opened = open_image(data[:-cut] + bytes(cut))
    assert "of the picture is missing" in opened.notices[0]


def test_a_jpeg_of_an_unknown_variant_is_refused_by_name() -> None:
    data = bytearray(encoded(SIGN, "JPEG"))
    start = data.index(b"\xff\xc0")
    for change, variant in (
        ((1, 0xC3), "lossless"),
        ((4, 12), "12 bits"),
    ):
        other = bytearray(data)
        other[start + change[0]] = change[1]
        with pytest.raises(ImageError, match=variant) as caught:
            open_image(bytes(other))
        assert "damaged" not in caught.value.message


def bmp(bits: int, masks: tuple[int, ...], pixels: bytes, compression: int = 3) -> bytes:
    """A BMP file of two by one pixels with bit masks."""
    info = struct.pack("<IiiHHIIiiII", 56, 2, 1, 1, bits, compression, 0, 0, 0, 0, 0)
    info += struct.pack("<4I", *masks)
    head = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + len(info))
    return (head + info + pixels).ljust(80, b"\0")


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (bmp(16, (0xF00, 0xF0, 0xF, 0), struct.pack("<HH", 0x0F80, 0x008F)),
         [[255, 136, 0], [0, 136, 255]]),
        (bmp(16, (0x7C00, 0x3E0, 0x1F, 0x8000), struct.pack("<HH", 0xFC00, 0x001F)),
         [[255, 0, 0], [255, 255, 255]]),
        (bmp(32, (0x3FF, 0xFFC00, 0x3FF00000, 0), struct.pack("<II", 0x3FF, 0x200 << 20)),
         [[255, 0, 0], [0, 0, 128]]),
    ],
    ids=["4 bits", "one bit of alpha", "10 bits"],
)  # fmt: skip
def test_a_bmp_with_unusual_masks_is_read(data: bytes, right: list[list[int]]) -> None:
    assert open_image(data).rgb[0].tolist() == right


def test_a_bmp_of_an_unknown_variant_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match="compression JPEG"):
        open_image(bmp(24, (0, 0, 0, 0), bytes(20), compression=4))


def test_around_a_gif_frame_smaller_than_its_canvas_is_white() -> None:
    data = bytearray(encoded(Image.new("P", (8, 8), 0), "GIF"))
    data[6:8] = struct.pack("<H", 16)
    opened = open_image(bytes(data))
    assert opened.rgb[0, 0].tolist() == [0, 0, 0]
    assert opened.rgb[0, 15].tolist() == [255, 255, 255]


WIDE = profile_of(PRIMARIES[12], 2.2)  # Display P3


def converted(image: Image.Image, profile: bytes) -> np.ndarray:
    """What littleCMS makes of colors, asked in another way than the decoder does."""
    made = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"),
        outputMode="RGB",
    )  # fmt: skip
    assert made is not None
    return np.asarray(made).astype(int)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_color_profile_is_applied(kind: str) -> None:
    if kind == "AVIF" and ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow has no AVIF")
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    data = encoded(SIGN, kind, icc_profile=WIDE, **options)
    with Image.open(BytesIO(data)) as stored:
        right = converted(stored.convert("RGB"), WIDE)
    assert difference(open_image(data), right) <= 1
    assert difference(open_image(data), np.asarray(SIGN)) > 20


def test_a_profile_of_srgb_changes_no_bit() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (sign_png(), encoded(SIGN, "PNG", icc_profile=profile)):
        assert open_image(data).sha256 == open_image(SIGN).sha256
    assert open_image(encoded(SIGN, "PNG", icc_profile=profile_of(SRGB, 0))).notices == ()


def test_a_profile_of_transparent_and_of_indexed_colors_is_applied() -> None:
    solid = SIGN.convert("RGBA")
    indexed = SIGN.quantize(64)
    right = converted(SIGN, WIDE)
    assert difference(open_image(encoded(solid, "PNG", icc_profile=WIDE)), right) <= 1
    right = converted(indexed.convert("RGB"), WIDE)
    assert difference(open_image(encoded(indexed, "PNG", icc_profile=WIDE)), right) <= 1


def test_a_profile_for_another_kind_of_colors_is_reported() -> None:
    cmyk = SIGN.convert("CMYK")
    opened = open_image(encoded(cmyk, "TIFF", icc_profile=WIDE))
    assert "color profile" in opened.notices[0]
    assert difference(opened, np.asarray(cmyk.convert("RGB"))) == 0


def test_gamma_and_primaries_of_a_png_count_as_a_profile() -> None:
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    right = converted(SIGN, profile_of(SRGB, 1.0))
    assert difference(open_image(with_chunk(sign_png(), gamma)), right) <= 1
    usual = chunk(b"gAMA", struct.pack(">I", 45455))
    right = converted(SIGN, profile_of(SRGB, 2.2))
    assert difference(open_image(with_chunk(sign_png(), usual)), right) <= 1
    stated = usual + chunk(b"sRGB", b"\0")
    assert difference(open_image(with_chunk(sign_png(), stated)), np.asarray(SIGN)) == 0
    wide = chunk(b"cICP", bytes([12, 13, 0, 1]))
    right = converted(SIGN, profile_of(PRIMARIES[12], 0))
    assert difference(open_image(with_chunk(sign_png(), wide)), right) <= 1


def test_twelve_significant_bits_in_a_png_are_scaled_by_their_range() -> None:
    grey = np.asarray(SIGN.convert("L"))
    stored = Image.fromarray(np.rint(grey * (4095 / 255)).astype(np.uint16))
    data = with_chunk(encoded(stored, "PNG"), chunk(b"sBIT", b"\x0c"))
    assert difference(open_image(data), grey[..., None]) <= 1
    scaled = Image.fromarray(grey.astype(np.uint16) * 257 // 16 * 16)
    data = with_chunk(encoded(scaled, "PNG"), chunk(b"sBIT", b"\x0c"))
    assert difference(open_image(data), grey[..., None]) <= 1


def png_of_16_bits(samples: np.ndarray, color_type: int, extra: bytes) -> bytes:
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples))
    parts = ((b"IHDR", header), (b"sBIT", extra), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


@pytest.mark.parametrize("most", [4095, 65535])
@pytest.mark.parametrize("color_type", [2, 4, 6])
@pytest.mark.parametrize("alpha_bits", [12, 16])
def test_twelve_significant_bits_of_colors_and_of_alpha_are_scaled(
    most: int, color_type: int, alpha_bits: int
) -> None:
    right = np.asarray(SIGN if color_type != 4 else SIGN.convert("L").convert("RGB"))
    colors = right[..., :1] if color_type == 4 else right
    samples = np.rint(colors * (4095 / 255)).astype(np.uint16) * (1 if most == 4095 else 16)
    bits = bytes([12] * colors.shape[2])
    if color_type != 2:
        opaque = 65535 if most == 65535 else (1 << alpha_bits) - 1
        solid = np.full((*right.shape[:2], 1), opaque, dtype=np.uint16)
        samples, bits = np.concatenate([samples, solid], axis=2), bits + bytes([alpha_bits])
    opened = open_image(png_of_16_bits(samples, color_type, bits))
    assert difference(opened, right) <= 1
    assert opened.notices == ()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits_is_white(bits: int) -> None:
    top = (1 << bits) - 1
    values = np.tile(np.arange(8, dtype=np.uint8) * top // 7, (8, 1))
    clear = int(values[0, 3]) if bits > 1 else 0
    stored = np.packbits(
        np.unpackbits(values[..., None], axis=2)[..., -bits:].reshape(8, -1), axis=1
    )
    header = struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in stored))
    parts = (
        (b"IHDR", header), (b"tRNS", struct.pack(">H", clear)), (b"IDAT", rows), (b"IEND", b""),
    )  # fmt: skip
    opened = open_image(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    if bits > 1:  # of two greys, white is left, and so the ground is black
        right = np.where(values == clear, 255, np.rint(values * (255 / top)))
        assert difference(opened, right[..., None]) == 0
    else:
        assert "shown on black" in opened.notices[0]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_a_profile_for_greys_fits_pictures_of_two_greys_and_with_transparency(mode: str) -> None:
    profile = gamma_of_greys(1.0)
    image = SIGN.convert("L").convert(mode)
    options = {} if mode != "L" else {"transparency": int(np.asarray(image)[0, 0])}
    opened = open_image(encoded(image, "PNG", icc_profile=profile, **options))
    assert opened.notices == ()
    if mode != "1":
        plain = open_image(encoded(image, "PNG", **options))
        assert (opened.rgb.astype(int) - plain.rgb).max() > 20
    fax = encoded(SIGN.convert("1"), "TIFF", compression="group4", icc_profile=profile)
    assert open_image(fax).notices == ()


def gamma_of_greys(gamma: float) -> bytes:
    """A color profile (ICC.1:2001) of greys."""
    tags = (
        (b"wtpt", struct.pack(">4s4x3i", b"XYZ ", 0xF6D6, 0x10000, 0xD32D)),
        (b"kTRC", struct.pack(">4s4xIHxx", b"curv", 1, round(gamma * 256))),
    )
    directory, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        directory += struct.pack(">4sII", name, 156 + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s12s4s28x3I", 156 + len(body), b"", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"",
        b"acsp", 0xF6D6, 0x10000, 0xD32D,
    )  # fmt: skip
    return head.ljust(128, b"\0") + directory + body


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_bitmap_without_the_header_of_a_file_is_read(mode: str) -> None:
    image = SIGN.convert(mode)
    opened = open_image(encoded(image, "DIB"))
    assert opened.format == "BMP"
    assert difference(opened, np.asarray(image.convert("RGB"))) == 0


def test_light_content_on_a_transparent_ground_is_shown() -> None:
    opened = open_image(PICTURES / "white_logo.png")
    assert opened.rgb.min() == 0
    assert opened.rgb.max() == 255
    assert "shown on black" in opened.notices[0]
    both = np.zeros((60, 120, 4), dtype=np.uint8)
    both[10:50:8, 5:55] = (255, 255, 255, 255)
    both[10:50:8, 65:115] = (0, 0, 0, 255)
    opened = open_image(Image.fromarray(both))
    assert "shown on grey" in opened.notices[0]


def test_a_usual_logo_and_a_window_with_round_corners_stay_on_white() -> None:
    logo = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    logo.paste((20, 60, 160, 255), (20, 20, 60, 60))
    window = Image.new("RGBA", (80, 80), (255, 255, 255, 255))
    window.paste((0, 0, 0, 255), (10, 30, 70, 34))
    window.paste((0, 0, 0, 0), (0, 0, 3, 3))
    for image in (logo, window):
        opened = open_image(image)
        assert opened.rgb[0, 0].tolist() == [255, 255, 255]
        assert opened.notices == ()


def test_nothing_to_see_is_reported() -> None:
    assert "transparent" in open_image(PICTURES / "alpha0.png").notices[0]
    assert "one color" in open_image(Image.new("RGB", (50, 50), (9, 9, 9))).notices[0]
    dot = Image.new("RGB", (500, 500))
    dot.putpixel((333, 77), (255, 255, 255))
    assert open_image(dot).notices == ()


def test_an_animation_that_fades_in_shows_its_frame_with_content() -> None:
    opened = open_image(PICTURES / "fade_in.gif")
    assert opened.page == opened.pages == 2
    assert "this is frame 2 of 2" in opened.notices[0]
    assert difference(opened, ROAD) <= 16
    first = open_image(PICTURES / "fade_in.gif", page=1)
    assert (first.page, first.rgb.min()) == (1, 255)


@pytest.mark.parametrize(("size", "told"), [((299, 100), 0), ((300, 100), 1), ((100, 320), 1)])
def test_extreme_shapes_are_reported(size: tuple[int, int], told: int) -> None:
    image = SIGN.resize(size)
    notices = open_image(image).notices
    assert len(notices) == told
    if told:
        assert ("as wide as tall" if size[0] > size[1] else "as tall as wide") in notices[0]


def test_tiles_cover_a_long_picture_with_overlaps() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 90, 3), dtype=np.uint8)
    opened = open_image(Image.fromarray(pixels))
    parts = tiles(opened)
    assert all(part.width == part.height == 90 for part in parts)
    assert (parts[0].rgb == pixels[:90]).all()
    assert (parts[-1].rgb == pixels[-90:]).all()
    starts = [
        next(y for y in range(911) if (pixels[y : y + 90] == part.rgb).all()) for part in parts
    ]
    assert all(11 <= 90 - (b - a) <= 30 for a, b in pairwise(starts))
    wide = open_image(Image.fromarray(pixels.transpose(1, 0, 2)))
    assert [p.sha256 for p in tiles(wide)] == [
        open_image(Image.fromarray(p.rgb.transpose(1, 0, 2))).sha256 for p in parts
    ]
    square = open_image(SIGN)
    assert tiles(square) == [square]


def test_a_jpeg_above_the_limit_is_read_at_half_its_size() -> None:
    limits = ImageLimits(max_pixels=40 * 40 - 1)
    opened = open_image(encoded(SIGN, "JPEG", quality=95), limits=limits)
    assert (opened.width, opened.height, opened.original_size) == (20, 20, (40, 40))
    assert "half its width and height" in opened.notices[0]
    right = np.asarray(SIGN.resize((20, 20), Image.Resampling.BOX)).astype(int)
    assert np.abs(opened.rgb - right).mean() < 6
    for data, most in ((encoded(SIGN, "JPEG"), 799), (sign_png(), 1599)):
        with pytest.raises(ImageError, match="more than"):
            open_image(data, limits=ImageLimits(max_pixels=most))


def test_a_heic_picture_is_read_or_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cogvlm2_lite.inputs.decoding.missing_package", lambda kind: "pillow-heif")
        with pytest.raises(ImageError, match="pillow-heif") as caught:
            open_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
        assert "cogvlm2-lite[heic]" in caught.value.hint
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded(SIGN, "HEIF", quality=-1)
    opened = open_image(data)
    assert opened.format == "HEIC"
    assert np.abs(opened.rgb.astype(int) - np.asarray(SIGN)).mean() < 4
