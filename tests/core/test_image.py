"""Pictures that people really have, and files that only look like pictures."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cogvlm2_lite.architectures.architecture import VisionConfig
from cogvlm2_lite.errors import ImageError, UsageError
from cogvlm2_lite.inputs.image import OpenedImage, open_image, pixel_values
from cogvlm2_lite.inputs.limits import ImageLimits
from tests.helpers.packed import load_packed

_PACKED = load_packed(Path(__file__).parents[1] / "golden" / "preprocess_golden.safetensors.xz")
GOLDEN = {name: tensor.numpy() for name, tensor in _PACKED.items()}
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]
RED, WHITE = (255, 0, 0), (255, 255, 255)


def vision_of(image_size: int) -> VisionConfig:
    return VisionConfig(
        image_size=image_size, patch_size=14, in_channels=3, hidden_size=64, num_heads=2,
        num_hidden_layers=2, intermediate_size=128, layer_norm_eps=1e-6,
        num_positions=(image_size // 14) ** 2 + 1,
    )  # fmt: skip


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Left half red, right half blue: shows every turn and mirror."""
    image = Image.new("RGB", (width, height), (0, 0, 255))
    image.paste(RED, (0, 0, width // 2, height))
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        tail = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + tail

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def failure(source: str | Path | bytes, limits: ImageLimits | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(source, limits=limits) if limits else open_image(source)
    message = caught.value.message
    assert "\n" not in message
    assert message.endswith(".")
    assert caught.value.hint
    return caught.value


def near(opened: OpenedImage, x: int, y: int, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(opened.rgb[y, x].astype(int) - colour).max() <= 8)


@pytest.mark.parametrize("case", range(4))
def test_preprocessing_equals_the_released_one_bit_for_bit(case: int) -> None:
    opened = open_image(Image.fromarray(GOLDEN[f"{case}.rgb_hwc_uint8"]))
    values = pixel_values(opened, vision_of(84))
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(
        values.view(np.uint32), GOLDEN[f"{case}.pixel_values_84"][None].view(np.uint32)
    )


def test_preprocessing_at_the_real_size_equals_the_released_one_bit_for_bit() -> None:
    opened = open_image(Image.fromarray(GOLDEN["1344.rgb_hwc_uint8"]))
    values = pixel_values(opened, vision_of(1344))
    assert values.shape == (1, 3, 1344, 1344)
    rows = np.ascontiguousarray(values[0][:, [0, 671, 1343]])
    np.testing.assert_array_equal(
        rows.view(np.uint32), GOLDEN["1344.pixel_rows_0_671_1343"].view(np.uint32)
    )
    assert np.abs(values.astype(np.float64)).mean() == GOLDEN["1344.mean_abs"][0]


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_opens_from_path_bytes_and_pillow(kind: str, tmp_path: Path) -> None:
    data = encoded(halves(), kind)
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(data)
    with Image.open(BytesIO(data)) as image:
        results = [open_image(data), open_image(path), open_image(str(path)), open_image(image)]
    assert {r.sha256 for r in results} == {results[0].sha256}
    assert results[0].format == {"WEBP": "WebP"}.get(kind, kind)
    assert results[1].name == path.name
    assert (results[0].width, results[0].height) == (40, 20)
    assert near(results[0], 2, 10, RED)
    assert near(results[0], 37, 10, (0, 0, 255))


@pytest.mark.parametrize("name", ["my holiday.png", "照片 один.png", "żółw😀.png", "no_extension"])
def test_names_with_spaces_and_other_scripts_open(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    halves().save(path, "PNG")
    assert open_image(str(path)).name == name


def test_the_content_decides_and_not_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "really_a_jpeg.png"
    path.write_bytes(encoded(halves(), "JPEG"))
    assert open_image(path).format == "JPEG"


def test_the_same_pixels_have_the_same_sha_under_any_lossless_format() -> None:
    shas = {open_image(encoded(halves(), kind)).sha256 for kind in ("PNG", "BMP", "TIFF")}
    assert len(shas) == 1


def test_the_sha_tells_shapes_and_pixels_apart() -> None:
    tall = Image.new("RGB", (2, 8))
    wide = Image.new("RGB", (8, 2))
    other = Image.new("RGB", (8, 2), (0, 0, 1))
    assert len({open_image(image).sha256 for image in (tall, wide, other)}) == 3


def test_the_pixels_of_an_opened_picture_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        open_image(halves()).rgb[0, 0] = 1


def test_a_pillow_picture_is_left_as_it_was() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    open_image(image)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (255, 0, 0, 0)


# Where the red half of `halves` must be after a person's viewer has turned the picture.
@pytest.mark.parametrize(
    ("orientation", "size", "red", "blue"),
    [
        (1, (40, 20), (2, 10), (37, 10)),
        (2, (40, 20), (37, 10), (2, 10)),
        (3, (40, 20), (37, 10), (2, 10)),
        (4, (40, 20), (2, 10), (37, 10)),
        (5, (20, 40), (10, 2), (10, 37)),
        (6, (20, 40), (10, 2), (10, 37)),
        (7, (20, 40), (10, 37), (10, 2)),
        (8, (20, 40), (10, 37), (10, 2)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_with_an_exif_turn_is_upright(
    kind: str,
    orientation: int,
    size: tuple[int, int],
    red: tuple[int, int],
    blue: tuple[int, int],
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(halves(), kind, exif=exif))
    assert (opened.width, opened.height) == size
    assert near(opened, *red, RED)
    assert near(opened, *blue, (0, 0, 255))


def test_mirrored_turns_are_told_from_plain_ones() -> None:
    corner = Image.new("RGB", (40, 20))
    corner.paste(RED, (0, 0, 10, 10))  # upper left as stored
    found = {}
    for orientation in (5, 6, 7, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        rgb = open_image(encoded(corner, "PNG", exif=exif)).rgb
        found[orientation] = tuple(int(i) for i in np.argwhere(rgb[:, :, 0] > 0).min(axis=0))
    assert found == {5: (0, 0), 6: (0, 10), 7: (30, 10), 8: (30, 0)}


def test_the_exif_turn_can_be_ignored_as_the_released_demos_do() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = open_image(encoded(halves(), "JPEG", exif=exif), upright=False)
    assert (opened.width, opened.height) == opened.original_size == (40, 20)


def test_damaged_exif_does_not_hide_a_good_picture() -> None:
    data = encoded(halves(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert open_image(data).width == 40


def test_sixteen_bit_greys_are_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(4, axis=0)
    for kind in ("PNG", "TIFF"):
        rgb = open_image(encoded(Image.fromarray(ramp), kind)).rgb
        assert (rgb[0, :, 0] == np.arange(256)).all()


def test_floating_point_greys_between_zero_and_one_are_scaled() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, axis=0)
    rgb = open_image(encoded(Image.fromarray(ramp), "TIFF")).rgb
    assert (rgb[0, :, 0] == np.arange(256)).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.0, 7.0]], dtype=np.float32),
        np.array([[0.0, np.nan]], dtype=np.float32),
        np.array([[0, 70000]], dtype=np.int32),
        np.array([[0, -1]], dtype=np.int32),
    ],
)
def test_greys_without_a_known_range_are_refused(values: np.ndarray) -> None:
    assert "black" in failure(encoded(Image.fromarray(values), "TIFF")).message


def test_cmyk_looks_as_it_should() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        assert near(open_image(encoded(cmyk, kind)), 4, 4, RED)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "HSV", "LAB"])
def test_other_modes_open(mode: str) -> None:
    image = Image.new("RGB", (8, 8), WHITE)
    if mode == "LAB":
        image = Image.new("LAB", (8, 8), (255, 128, 128))
    assert near(open_image(image.convert(mode)), 4, 4, WHITE)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparent_parts_are_white(mode: str) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image = {
        "RGBA": clear,
        "LA": Image.new("LA", (8, 8), (0, 0)),
        "PA": clear.convert("PA"),
        "La": Image.new("LA", (8, 8), (0, 0)).convert("La"),
        "RGBa": clear.convert("RGBa"),
    }[mode]
    assert near(open_image(image), 4, 4, WHITE)


def test_half_transparent_red_is_pink() -> None:
    assert near(open_image(Image.new("RGBA", (4, 4), (255, 0, 0, 128))), 1, 1, (255, 127, 127))


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    for transparency in (1, bytes([255, 0])):
        data = encoded(image, "PNG", transparency=transparency)
        assert near(open_image(data), 4, 4, WHITE)


def test_a_transparent_sixteen_bit_grey_is_white() -> None:
    values = np.array([[0, 5000]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), "PNG", transparency=5000)
    assert open_image(data).rgb[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_pages_and_frames_are_counted_and_chosen(kind: str) -> None:
    frames = [halves() for _ in range(3)]
    frames[1].paste((0, 255, 0), (0, 0, 30, 20))
    frames[2].paste(WHITE, (0, 0, 30, 20))
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    first = open_image(data)
    assert near(first, 4, 4, RED)
    assert (first.page, first.pages) == (1, 3)
    assert f"This is {'page' if kind == 'TIFF' else 'frame'} 1 of 3" in first.notices[0]
    second = open_image(data, page=2)
    assert near(second, 4, 4, (0, 255, 0))
    assert (second.page, second.pages, second.notices) == (2, 3, ())
    with pytest.raises(ImageError, match="has 3 pages, so page 4") as caught:
        open_image(data, page=4)
    assert caught.value.hint == "Choose a page from 1 to 3."
    with pytest.raises(UsageError):
        open_image(data, page=0)


def test_a_picture_alone_has_one_page() -> None:
    for source in (encoded(halves(), "PNG"), halves()):
        opened = open_image(source, page=1)
        assert (opened.page, opened.pages, opened.notices) == (1, 1, ())
        with pytest.raises(ImageError, match="only one page") as caught:
            open_image(source, page=2)
        assert caught.value.hint == "Choose page 1."


def test_a_telephone_jpeg_with_a_second_picture_behind_it_gives_the_first() -> None:
    opened = open_image(
        encoded(halves(), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    )
    assert (opened.format, opened.width, opened.pages, opened.notices) == ("JPEG", 40, 1, ())


def test_an_opened_picture_is_given_back() -> None:
    opened = open_image(halves())
    assert open_image(opened) is opened


def test_one_pixel_and_very_long_pictures_open() -> None:
    for size in ((1, 1), (1, 5000), (5000, 1)):
        opened = open_image(encoded(Image.new("RGB", size, RED), "PNG"))
        assert pixel_values(opened, vision_of(84)).shape == (1, 3, 84, 84)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "nothing.png"
    path.touch()
    assert failure(path).message == "nothing.png is empty (0 bytes)."
    assert "empty" in failure(b"").message


def test_a_text_file_with_a_picture_ending_is_called_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    for text in ("These are my notes.\n" * 90, "我的笔记" * 500, "x"):
        path.write_text(text, encoding="utf-8")
        assert failure(path).message == "notes.png is a text file, not a picture."


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    assert "is a folder" in failure(tmp_path).message
    assert "There is no file" in failure(tmp_path / "gone.jpg").message
    assert "gone.jpg" in failure(str(tmp_path / "gone.jpg")).message
    assert failure("a\0b").message
    assert failure("x" * 5000).message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in failure(tmp_path / "pipe.png").message


def test_web_addresses_are_not_opened() -> None:
    for address in ("https://example.org/a.png", "HTTP://example.org", "data:image/png;base64,AA"):
        assert "web address" in failure(address).message


@pytest.mark.parametrize("source", [None, 5, bytearray(b"x"), np.zeros((4, 4, 3))])
def test_a_source_of_another_type_is_named(source: Any) -> None:
    with pytest.raises(UsageError, match=type(source).__name__):
        open_image(source)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x00\x00\x00\x18ftypisom" + bytes(40), "video"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg />", "SVG"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"8BPS\x00\x01" + bytes(20), "Photoshop"),
        (b"qoif" + bytes(20), "QOI"),
        (bytes(128) + b"DICM" + bytes(20), "DICOM"),
        (b"DDS \x7c" + bytes(20), "DirectDraw"),
        (b"PK\x03\x04" + bytes(20), "ZIP"),
        (b"\x00\x00\x01\x00" + bytes(20), "icon"),
        (bytes(range(256)), "no known picture format"),
    ],
)
def test_foreign_files_are_called_by_their_name(data: bytes, word: str) -> None:
    assert word in failure(data).message


def test_other_formats_that_pillow_knows_are_never_decoded() -> None:
    for kind in ("ICO", "PPM", "TGA", "PCX", "DDS", "JPEG2000"):
        if kind in Image.SAVE:
            failure(encoded(Image.new("RGB", (16, 16)), kind))


def test_the_size_in_pixels_is_checked_before_decoding() -> None:
    message = failure(png_header(20_000, 7_000)).message
    assert "20000 x 7000" in message
    assert "130 million" in message
    assert "130 million" in failure(png_header(60_000, 60_000)).message  # Pillow's own limit
    opened = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert failure(opened, ImageLimits(max_pixels=99))
    assert open_image(opened, limits=ImageLimits(max_pixels=100)).width == 10


def test_the_size_of_the_file_is_checked_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    with path.open("wb") as stream:
        stream.truncate(600 * 1024**2)  # sparse
    assert "600 MiB" in failure(path).message
    assert "512 MiB" in failure(path).message


def test_pillow_warnings_do_not_leak() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.info["transparency"] = bytes([255, 0])
    large = png_header(10_000, 10_000)  # more than Pillow's own warning level
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        open_image(palette)
        failure(large)
    assert seen == []


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {}),
    ("GIF", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
]  # fmt: skip
SAMPLES = [encoded(halves(), kind, **options) for kind, options in KINDS]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    length=st.integers(0, 3000),
)
def test_a_mutated_file_gives_a_picture_or_one_clear_sentence(
    data: bytes, edits: list[tuple[int, int]], length: int
) -> None:
    changed = bytearray(data)
    for place, value in edits:
        changed[place % len(changed)] = value
    with contextlib.suppress(ImageError):
        opened = open_image(bytes(changed[:length]))
        assert opened.rgb.dtype == np.uint8
        assert opened.rgb.shape[2] == 3
