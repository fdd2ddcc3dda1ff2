"""Several pictures on one sheet with numbers."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.inputs.sheet import PictureFile, open_sheet

COLORS = [
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
    (240, 50, 230), (128, 128, 0), (0, 0, 128),
]  # fmt: skip


def file_of(size: tuple[int, int], color: tuple[int, int, int], kind: str = "PNG") -> PictureFile:
    stream = BytesIO()
    Image.new("RGB", size, color).save(stream, kind)
    return PictureFile(data=stream.getvalue())


def place(rgb: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the only rectangle of a color."""
    rows, columns = np.nonzero((rgb == color).all(-1))
    left, top = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) - left + 1, int(rows.max()) - top + 1
    assert width * height == len(rows)
    return left, top, width, height


@pytest.mark.parametrize("count", [2, 3, 5, 7, 9])
def test_every_picture_is_whole_in_its_shape_and_has_its_number_above_it(count: int) -> None:
    sizes = [(300 + 50 * i, 700 - 60 * i) for i in range(count)]
    files = [file_of(size, COLORS[i]) for i, size in enumerate(sizes)]
    sheet = open_sheet(files)
    assert (sheet.width, sheet.height) == (1344, 1344)
    found = [place(sheet.rgb, COLORS[i]) for i in range(count)]
    for (left, top, width, height), (w, h) in zip(found, sizes, strict=True):
        assert width / height == pytest.approx(w / h, rel=0.02)
        number = sheet.rgb[top - 44 : top, left : left + 52]
        assert (number == 255).all(-1).mean() > 0.5  # white paper
        assert 0.05 < (number < 90).all(-1).mean() < 0.5  # with a black digit
    centers = [(round((top + height / 2) / 60), left) for left, top, _, height in found]
    rows = sorted({row for row, _ in centers})
    assert centers == sorted(centers)  # the numbers go row by row
    assert len(rows) <= 3


def test_a_sheet_has_the_same_bits_each_time_and_other_ones_for_another_order() -> None:
    files = [PictureFile(data=sample.path.read_bytes()) for sample in sample_pictures()[:3]]
    first, again, other = (open_sheet(f) for f in (files, list(files), files[::-1]))
    assert first.sha256 == again.sha256
    assert np.array_equal(first.rgb, again.rgb)
    assert first.sha256 != other.sha256


def test_pictures_of_any_shape_and_size_are_found() -> None:
    files = [
        file_of((4000, 20), COLORS[0]),
        file_of((1, 1), COLORS[1]),
        file_of((9, 3000), COLORS[2]),
    ]
    sheet = open_sheet(files)
    assert not any("squashed" in notice for notice in sheet.notices)  # each keeps its shape
    for color in COLORS[:3]:
        assert (sheet.rgb == color).all(-1).sum() > 500


def test_notices_and_errors_name_the_picture() -> None:
    clear = BytesIO()
    Image.new("RGBA", (20, 20)).save(clear, "PNG")
    good = PictureFile(data=sample_pictures()[0].path.read_bytes())
    sheet = open_sheet([good, PictureFile(data=clear.getvalue())])
    [notice] = sheet.notices
    assert notice.startswith("Picture 2: Every pixel of the picture is transparent")
    with pytest.raises(ImageError, match=r"^Picture 2: "):
        open_sheet([good, PictureFile(data=good.data, page=7)])
    with pytest.raises(ImageError, match=r"^Picture 3: "):
        open_sheet([good, good, PictureFile(data=b"no picture")])


def test_pages_of_one_file_can_be_on_one_sheet() -> None:
    stream = BytesIO()
    first, second = (Image.new("RGB", (40, 30), color) for color in COLORS[:2])
    first.save(stream, "TIFF", save_all=True, append_images=[second])
    sheet = open_sheet([PictureFile(data=stream.getvalue(), page=n) for n in (1, 2)])
    assert place(sheet.rgb, COLORS[0])[1] < place(sheet.rgb, COLORS[1])[1]  # in two rows
