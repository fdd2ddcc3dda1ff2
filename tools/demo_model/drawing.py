"""Draw the three kinds of pictures of the demo model: scenes of shapes, signs, bar charts.

All coordinates are fractions of the side of a square picture, x to the right, y down.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from PIL import Image, ImageDraw, ImageFont

from tools.demo_model.words import CHARACTERS, COLORS, SHAPES

FONT_FILES = (
    ("font_roboto", "Roboto-Medium.ttf"),
    ("font_roboto", "Roboto-Black.ttf"),
    ("font_source_serif_pro", "SourceSerifPro-Bold.ttf"),
    ("font_source_serif_pro", "SourceSerifPro-Semibold.ttf"),
)
FONT_COUNT = len(FONT_FILES) + 1  # the last one is built into Pillow
WHITE = (255, 255, 255)
CHART_LEFT, CHART_RIGHT, CHART_TOP, CHART_BOTTOM = 0.08, 0.94, 0.10, 0.92
CHART_LEVELS = 9

Rgb = tuple[int, int, int]

KINDS = ("", *CHARACTERS, *SHAPES, "bar")
COLOR_NAMES = ("", *COLORS)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is drawn in one rectangle: the training label of the patches under it."""

    left: float
    top: float
    right: float
    bottom: float
    kind: str
    color: str
    index: int
    value: int = 0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One shape of a scene: its name, colour, grid cell (0..8), centre and radius."""

    name: str
    color: str
    cell: int
    x: float
    y: float
    radius: float

    @property
    def row(self) -> int:
        """Row of the grid, 0 is the top."""
        return self.cell // 3

    @property
    def column(self) -> int:
        """Column of the grid, 0 is the left."""
        return self.cell % 3


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One to five shapes in a 3x3 grid, in reading order."""

    background: Rgb
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A short string. With a panel colour the text is white and the panel has the colour."""

    background: Rgb
    text: str
    font: int
    color: str
    on_panel: bool
    x: float
    y: float
    width: float
    cap_height: float

    @property
    def is_number(self) -> bool:
        """Whether the string is made of digits."""
        return self.text.isdigit()


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of a chart: its colour and its value, 1 to 9."""

    color: str
    value: int


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Two to five bars of different colours, from left to right."""

    background: Rgb
    bars: tuple[Bar, ...]
    width: float
    labelled: bool


Picture = Scene | Sign | Chart


@lru_cache(maxsize=512)
def load_font(font: int, size_px: int) -> ImageFont.FreeTypeFont:
    """Open font number `font` at a size in pixels; needs the PyPI packages of the README."""
    if font == len(FONT_FILES):
        built_in = ImageFont.load_default(size_px)
        assert isinstance(built_in, ImageFont.FreeTypeFont)
        return built_in
    package, name = FONT_FILES[font]
    path = str(files(package).joinpath("files", name))
    return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def text_widths(text: str, font: int) -> tuple[float, ...]:
    """Where each character starts and the last one ends, in units of the cap height."""
    face = load_font(font, 200)
    cap_px = -face.getbbox("H", anchor="ls")[1]
    return tuple(face.getlength(text[:end]) / cap_px for end in range(len(text) + 1))


def draw(picture: Picture, side_px: int) -> Image.Image:
    """Draw a picture: RGB, side_px x side_px."""
    image = Image.new("RGB", (side_px, side_px), picture.background)
    pen = ImageDraw.Draw(image)
    if isinstance(picture, Scene):
        for shape in picture.shapes:
            _draw_shape(pen, shape, side_px)
    elif isinstance(picture, Sign):
        _draw_sign(pen, picture, side_px)
    else:
        _draw_chart(pen, picture, side_px)
    return image


def draw_smooth(picture: Picture, side_px: int) -> Image.Image:
    """Draw at four times the side and shrink, for pictures that people look at."""
    return draw(picture, 4 * side_px).resize((side_px, side_px), Image.Resampling.LANCZOS)


def marks(picture: Picture) -> list[Mark]:
    """List what is drawn where, for the dense training labels."""
    if isinstance(picture, Scene):
        return [_shape_mark(shape) for shape in picture.shapes]
    if isinstance(picture, Sign):
        return _sign_marks(picture)
    return _chart_marks(picture)


def _outline(name: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Corners of a shape that is a polygon, in the units of x, y and radius."""
    if name == "star":
        return [
            (x + scale * math.sin(turn), y - scale * math.cos(turn))
            for turn, scale in (
                (math.pi * corner / 5, radius * (0.45 if corner % 2 else 1.1))
                for corner in range(10)
            )
        ]
    arm = radius * 0.36
    offsets = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
        "diamond": [(0.0, -1.1), (0.8, 0.0), (0.0, 1.1), (-0.8, 0.0)],
    }
    if name == "cross":
        steps = [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1)]
        steps += [(1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]
        return [
            (x + (arm if abs(dx) == 1 else radius) * (1 if dx > 0 else -1),
             y + (arm if abs(dy) == 1 else radius) * (1 if dy > 0 else -1))
            for dx, dy in steps
        ]  # fmt: skip
    return [(x + dx * radius, y + dy * radius) for dx, dy in offsets[name]]


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Shape, side_px: int) -> None:
    x, y, radius = shape.x * side_px, shape.y * side_px, shape.radius * side_px
    color = COLORS[shape.color]
    if shape.name == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    else:
        pen.polygon(_outline(shape.name, x, y, radius), fill=color)


def _draw_sign(pen: ImageDraw.ImageDraw, sign: Sign, side_px: int) -> None:
    color = COLORS[sign.color]
    if sign.on_panel:
        across, up = sign.width / 2 + 0.055, sign.cap_height * 0.5 + 0.08
        corners = (sign.x - across, sign.y - up, sign.x + across, sign.y + up)
        box = tuple(side_px * corner for corner in corners)
        pen.rounded_rectangle(box, radius=0.05 * side_px, fill=color)
    face = _sign_font(sign, side_px)
    left, base = sign.x - sign.width / 2, sign.y + sign.cap_height / 2
    ink = WHITE if sign.on_panel else color
    pen.text((left * side_px, base * side_px), sign.text, fill=ink, font=face, anchor="ls")


def _sign_font(sign: Sign, side_px: int) -> ImageFont.FreeTypeFont:
    reference = load_font(sign.font, 200)
    cap_px = -reference.getbbox("H", anchor="ls")[1]
    return load_font(sign.font, round(200 * sign.cap_height * side_px / cap_px))


def _draw_chart(pen: ImageDraw.ImageDraw, chart: Chart, side_px: int) -> None:
    thin = max(1, side_px // 224)
    for level in range(CHART_LEVELS + 1):
        y = _level(level) * side_px
        pen.line((CHART_LEFT * side_px, y, CHART_RIGHT * side_px, y), (205, 205, 210), thin)
    axis = (60, 60, 66)
    for mark in _chart_marks(chart):
        box = tuple(side_px * edge for edge in (mark.left, mark.top, mark.right, mark.bottom))
        pen.rectangle(box, fill=COLORS[mark.color])
        if chart.labelled:
            face = load_font(1, round(0.085 * side_px))
            middle = (mark.left + mark.right) / 2 * side_px
            pen.text((middle, (mark.top - 0.012) * side_px), str(mark.value),
                     fill=axis, font=face, anchor="ms")  # fmt: skip
    base = CHART_BOTTOM * side_px
    pen.line((CHART_LEFT * side_px, base, CHART_RIGHT * side_px, base), axis, 3 * thin)


def _level(value: int) -> float:
    return CHART_BOTTOM - (CHART_BOTTOM - CHART_TOP) * value / CHART_LEVELS


def _shape_mark(shape: Shape) -> Mark:
    return Mark(
        left=shape.x - shape.radius, right=shape.x + shape.radius,
        top=shape.y - shape.radius, bottom=shape.y + shape.radius,
        kind=shape.name, color=shape.color, index=shape.cell,
    )  # fmt: skip


def _sign_marks(sign: Sign) -> list[Mark]:
    edges = text_widths(sign.text, sign.font)
    left, top = sign.x - sign.width / 2, sign.y - sign.cap_height / 2
    return [
        Mark(
            left=left + edges[place] * sign.cap_height,
            right=left + edges[place + 1] * sign.cap_height,
            top=top,
            bottom=top + sign.cap_height,
            kind=character,
            color=sign.color,
            index=place,
        )
        for place, character in enumerate(sign.text)
    ]


def _chart_marks(chart: Chart) -> list[Mark]:
    pitch = (CHART_RIGHT - CHART_LEFT) / len(chart.bars)
    found = []
    for place, bar in enumerate(chart.bars):
        middle = CHART_LEFT + pitch * (place + 0.5)
        half = chart.width * pitch / 2
        found.append(
            Mark(
                left=middle - half,
                right=middle + half,
                top=_level(bar.value),
                bottom=CHART_BOTTOM,
                kind="bar",
                color=bar.color,
                index=place,
                value=bar.value,
            )
        )
    return found
