"""Draws a set of pictures with questions, so that calibration needs no pictures of the user.

Pages of text, scenes of shapes, charts, signs, tables, photographs of landscapes, screenshots and
diagrams, with questions in English and Chinese whose answers are known. Contents are as small as on
a full page and as large as the picture: with one size alone, rounding is fitted to a few
frequencies of the patches (see docs/quantization.md). Every kind of picture appears equally often,
and sizes, papers and questions are spread evenly over the pictures of a kind, so that one draw is
like another. Drawn with Pillow's own font, which has no Chinese letters: Chinese is in the
questions and answers only.
"""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from cogvlm2_lite.samples.samples import Sample

_SIDES = ((896, 896), (896, 672), (672, 896), (1200, 800), (800, 1200))
_WORDS = {
    "invoice": "发票", "total": "总计", "river": "河流", "window": "窗户", "account": "账户",
    "letter": "信", "garden": "花园", "number": "数字", "meeting": "会议", "winter": "冬天",
    "report": "报告", "station": "车站", "price": "价格", "music": "音乐", "delivery": "送货",
    "table": "桌子", "paper": "纸", "morning": "早晨", "result": "结果", "machine": "机器",
    "travel": "旅行", "summer": "夏天", "budget": "预算", "teacher": "老师", "market": "市场",
    "weather": "天气", "harbour": "港口", "open": "打开", "bread": "面包", "exit": "出口",
    "milk": "牛奶", "sale": "促销", "hotel": "酒店", "bus": "公交车", "apple": "苹果",
}  # fmt: skip
_COLORS = {
    "red": ("红色", 0.99, 0.85, 0.85), "blue": ("蓝色", 0.61, 0.80, 0.80),
    "green": ("绿色", 0.36, 0.75, 0.60), "orange": ("橙色", 0.08, 0.90, 0.95),
    "purple": ("紫色", 0.78, 0.65, 0.60), "black": ("黑色", 0.60, 0.20, 0.10),
    "yellow": ("黄色", 0.14, 0.85, 0.95), "white": ("白色", 0.10, 0.03, 0.98),
    "gray": ("灰色", 0.60, 0.05, 0.50), "brown": ("棕色", 0.07, 0.70, 0.45),
    "pink": ("粉色", 0.93, 0.45, 0.97), "teal": ("青色", 0.49, 0.75, 0.60),
}  # fmt: skip
"""Name -> name in Chinese, and hue, saturation and value (0 to 1) around which they vary."""
_SHAPES = {
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "ring": "圆环", "star": "星形",
    "diamond": "菱形", "cross": "十字", "hexagon": "六边形",
}  # fmt: skip
_CORNERS = {"triangle": 3, "diamond": 4, "hexagon": 6}
_PLACES = (("top", "上"), ("middle", "中"), ("bottom", "下")), (
    ("left", "左"), ("center", "中"), ("right", "右"),
)  # fmt: skip
_TIMES = {
    "day": ("白天", (96, 150, 220), (206, 226, 244)),
    "evening": ("傍晚", (70, 60, 110), (240, 150, 90)),
    "night": ("夜晚", (8, 10, 30), (36, 44, 80)),
}
_GREEN = (70, 120, 60)

Rgb = tuple[int, int, int]
Drawn = tuple[Image.Image, str, str]
Asked = tuple[str, str]


def drawn_samples(count: int, seed: int = 0) -> list[Sample]:
    """Return `count` drawn samples. A seed always gives the same ones, also as part of more."""
    return [_sample(seed, number) for number in range(count)]


class _Dice(Random):
    """Random numbers of one sample, and numbers that are spread evenly over the samples of a seed.

    number  of the sample
    turn    how many earlier numbers belong to the same kind of picture
    """

    def __init__(self, seed: int, number: int, turn: int) -> None:
        super().__init__(f"calibration {seed} {number}")
        self._seed, self._turn = seed, turn

    def evenly(self, purpose: str) -> float:
        """Return a number from 0 to 1; over the samples of a kind, all parts are equally frequent.

        An additive recurrence with a random start (Weyl's sequence): consecutive samples differ by
        the golden ratio, so any number of them covers the range better than random numbers do.
        """
        start = Random(f"{purpose} {self._seed}").random()
        golden = (math.sqrt(5) - 1) / 2
        return math.fmod(start + self._turn * golden, 1)

    def size(self, low: float, high: float) -> float:
        """Return a size that is spread evenly, with every octave equally likely."""
        found: float = low * (high / low) ** self.evenly("size")
        return found

    def word(self) -> str:
        return self.choice(list(_WORDS))

    def some_words(self, count: int) -> list[str]:
        """Return different words."""
        return self.sample(list(_WORDS), count)

    @property
    def asks_main(self) -> bool:
        """Whether the main question is asked: about every other picture of a kind."""
        return self._turn % 2 == 0

    def ask(self, main: Asked, *others: Asked) -> Asked:
        """Return a question and its answer: the main one, one in Chinese, or any."""
        if self.asks_main:
            return main
        chinese = [asked for asked in others if not asked[0].isascii()]
        in_chinese = self._turn % 4 == 1 or self.random() < 0.5
        return self.choice(chinese if in_chinese else others)


def _sample(seed: int, number: int) -> Sample:
    place = number % len(_KINDS)
    draw, before = _KINDS[place], number // len(_KINDS) * _KINDS.count(_KINDS[place])
    dice = _Dice(seed, number, before + _KINDS[:place].count(draw))
    # Every fifth sample is text alone: an expert that sees only text needs some.
    if number % 5 == 4:
        question, answer = _text(dice)
        return Sample(question=question, answer=answer)
    image, question, answer = draw(dice)
    return Sample(image=image, question=question, answer=answer)


# --- paper, ink and colours -----------------------------------------------------------------------


def _canvas(dice: _Dice, dark: float = 0.15) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a plain picture: dark with this probability, else white or nearly white."""
    low, high = (8, 64) if dice.evenly("paper") < dark else (218, 255)
    paper = tuple(dice.randint(low, high) for _ in range(3))
    image = Image.new("RGB", dice.choice(_SIDES), paper)
    return image, ImageDraw.Draw(image)


def _paper(image: Image.Image) -> Rgb:
    corner = image.getpixel((0, 0))
    assert isinstance(corner, tuple)
    red, green, blue = corner[:3]
    return red, green, blue


def _ink(image: Image.Image) -> str:
    return "#f0f0f0" if sum(_paper(image)) < 300 else "#1a1a1a"


def _colors(dice: _Dice, image: Image.Image, count: int) -> dict[str, Rgb]:
    """Return different colours by name, without the three most similar to the paper."""
    paper = _luminance(_paper(image))
    found = {name: _color(dice, name) for name in _COLORS}
    near = sorted(found, key=lambda name: abs(_luminance(found[name]) - paper))
    return {name: found[name] for name in dice.sample(near[3:], count)}


def _color(dice: Random, name: str) -> Rgb:
    """Return a shade of a colour."""
    _, hue, saturation, value = _COLORS[name]
    red, green, blue = colorsys.hsv_to_rgb(
        (hue + dice.uniform(-0.015, 0.015)) % 1,
        min(saturation * dice.uniform(0.8, 1.15), 1),
        min(value * dice.uniform(0.88, 1.1), 1),
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def _luminance(color: Rgb) -> float:
    red, green, blue = color
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _mixed(color: Rgb, other: Rgb, share: float) -> Rgb:
    """Return a colour between two."""
    red, green, blue = (
        round((1 - share) * a + share * b) for a, b in zip(color, other, strict=True)
    )
    return red, green, blue


# --- kinds of pictures ----------------------------------------------------------------------------


def _page(dice: _Dice) -> Drawn:
    """Draw lines of text, clean or like a scan: skewed, with grain and shadows."""
    image, draw = _canvas(dice)
    size = dice.size(18, 100)
    font, margin = ImageFont.load_default(size), image.width // 20
    y, lines = float(margin), list[str]()
    # A copy of a full page would be as many tokens as all other answers together.
    most = dice.choice((4, 8)) if dice.asks_main else dice.choice((4, 12, 24))
    while y < image.height - margin - size and len(lines) < most:
        words = dice.choices(list(_WORDS), k=max(round(image.width / (size * 4.4)), 1))
        lines.append(" ".join(words).capitalize() + ".")
        bold = round(size / 24) if len(lines) == 1 else 0
        draw.text((margin, y), lines[-1], font=font, fill=_ink(image), stroke_width=bold)
        y += size * 1.6
    if dice.evenly("scan") < 0.35:
        turned = image.rotate(
            dice.uniform(-3, 3), Image.Resampling.BICUBIC, fillcolor=_paper(image)
        )
        shade = Image.linear_gradient("L").resize(image.size).point(lambda v: 200 + v * 55 // 255)
        image = _photographed(dice, ImageChops.multiply(turned, Image.merge("RGB", (shade,) * 3)))
    return image, *dice.ask(
        ("Read all text in this image.", "\n".join(lines)),
        ("第一行写的是什么?", lines[0]),
        ("How many lines of text are there?", f"There are {len(lines)} lines of text."),
        ("What is the last line?", f"The last line is: {lines[-1]}"),
        ("请抄写前三行文字。", "\n".join(lines[:3])),
    )


def _sign(dice: _Dice) -> Drawn:
    """Draw a word or number alone or with up to three smaller ones, in colours or on panels."""
    image, draw = _canvas(dice)
    count = dice.choice((1, 1, 1, 2, 4))
    paper, place, said = _paper(image), image.height / count, []
    colors = _colors(dice, image, count)
    for row, color in enumerate(colors.values()):
        word = dice.choice((dice.word().upper(), str(dice.randint(1, 9999)), dice.word().title()))
        wide = (dice.uniform(0.15, 0.85) if row else dice.size(0.3, 0.9)) * image.width
        size = min(wide / ImageFont.load_default(100).getlength(word) * 100, 0.5 * place)
        font, bold = (
            ImageFont.load_default(size),
            dice.choice((0, round(size / dice.uniform(14, 24)))),
        )
        left, top, right, bottom = font.getbbox(word)
        edge = size / dice.uniform(4, 8)
        x = dice.uniform(edge, image.width - (right - left) - edge)
        y = row * place + dice.uniform(edge, place - (bottom - top) - edge)
        on_panel = dice.random() < 0.5
        if on_panel:
            panel = (x - edge, y - edge, x + right - left + edge, y + bottom - top + edge)
            draw.rounded_rectangle(panel, dice.choice((0, edge, 2 * edge)), fill=color)
        fill = paper if on_panel else color
        draw.text((x - left, y - top), word, font=font, fill=fill, stroke_width=bold)
        said.append(word)
    first = next(iter(colors))
    return image, *dice.ask(
        ("What does the sign say?", f"The sign says {' '.join(said)}."),
        ("牌子上写着什么?", f"牌子上写着{' '.join(said)}。"),
        (f"Which colour belongs to {said[0]}?", f"The colour of {said[0]} is {first}."),
        (f"{said[0]}是什么颜色?", f"{said[0]}是{_COLORS[first][0]}的。"),
        ("How many words do you see?", f"{count}." if count > 1 else "One word."),
    )


def _table(dice: _Dice) -> Drawn:
    image, draw = _canvas(dice)
    names = dice.some_words(2 + int(9 * dice.evenly("rows")))
    rows = [(name, dice.randint(1, 999)) for name in names]
    step = 0.92 * image.height / len(rows)
    font = ImageFont.load_default(min(step * 0.6, image.width / 14))
    for number, (word, price) in enumerate(rows):
        y = 0.04 * image.height + step * number
        draw.text((0.06 * image.width, y), word, font=font, fill=_ink(image))
        draw.text((0.62 * image.width, y), f"{price}.00", font=font, fill=_ink(image))
        under = y + step * 0.85
        draw.line((0.05 * image.width, under, 0.95 * image.width, under), fill="#888888", width=2)
    word, price = dice.choice(rows)
    total = sum(price for _, price in rows)
    listed = ", ".join(f'"{name}": {each}' for name, each in rows)
    return image, *dice.ask(
        ("What is the sum of all prices?", f"The sum of all prices is {total}.00."),
        (f"{word}的价格是多少?", f"{word}的价格是{price}.00。"),
        (f"How much does {word} cost?", f"{word} costs {price}.00."),
        ("Return this table as JSON.", f"{{{listed}}}"),
        ("这张表有几行?", f"这张表有{len(rows)}行。"),
    )


def _chart(dice: _Dice) -> Drawn:
    """Draw bars or a line on an axis, or a pie; with and without names."""
    image, draw = _canvas(dice)
    names = dice.some_words(2 + int(6 * dice.evenly("values")))
    values = [dice.randint(5, 100) for _ in names]
    colors = _colors(dice, image, len(names))
    kind = ("bars", "bars", "bars", "bars", "bars", "line", "pie")[int(7 * dice.evenly("chart"))]
    named = kind != "bars" or dice.random() < 0.4
    size = min(dice.uniform(0.2, 0.3) * image.width / len(names), 90)
    if kind == "pie":
        _pie(image, draw, size, names, values, list(colors.values()))
    else:
        _axes(dice, image, draw, size, names if named else [""] * len(names), values, colors, kind)
    labels = names if named else list(colors)
    in_chinese = names if named else [_COLORS[color][0] for color in colors]
    high, low, one = (
        values.index(max(values)),
        values.index(min(values)),
        dice.randrange(len(names)),
    )
    return image, *dice.ask(
        (
            "What is the highest value, and where?",
            f"The highest value is {max(values)}, at {labels[high]}.",
        ),
        ("这张图表有几个值?", f"这张图表有{len(names)}个值。"),
        (f"What is the value of {labels[one]}?", f"{values[one]}."),
        (f"{in_chinese[one]}的值是多少?", f"{in_chinese[one]}的值是{values[one]}。"),
        ("Which value is the lowest?", f"{labels[low]} has the lowest value, {min(values)}."),
        (
            f"Is {labels[high]} more than {labels[low]}?",
            f"Yes, {labels[high]} has {max(values)} and {labels[low]} has {min(values)}.",
        ),
    )


def _pie(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    size: float,
    names: Sequence[str],
    values: Sequence[int],
    colors: Sequence[Rgb],
) -> None:
    font, radius, angle = ImageFont.load_default(size), 0.42 * min(image.size), 0.0
    x, y = image.width / 2, image.height / 2
    box = (x - radius, y - radius, x + radius, y + radius)
    for name, value, color in zip(names, values, colors, strict=True):
        more = 360 * value / sum(values)
        draw.pieslice(box, angle, angle + more, fill=color)
        turn = math.radians(angle + more / 2)
        at = (x + 0.7 * radius * math.cos(turn), y + 0.7 * radius * math.sin(turn))
        draw.text(at, f"{name} {value}", font=font, fill=_contrast(color), anchor="mm")
        angle += more


def _axes(
    dice: _Dice,
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    size: float,
    names: Sequence[str],
    values: Sequence[int],
    colors: dict[str, Rgb],
    kind: str,
) -> None:
    """Draw an axis with lines above it, somewhere in the picture, and bars or a line on it."""
    font, ink = ImageFont.load_default(size), _ink(image)
    # 1  The frame: an axis in another place in each chart, and lines that are thin or wide.
    low, most = (0.78, 0.88) if any(names) else (0.85, 0.97)
    floor = (low + (most - low) * dice.evenly("floor")) * image.height
    left, right = dice.uniform(0.03, 0.16) * image.width, dice.uniform(0.84, 0.97) * image.width
    high = floor - dice.uniform(0.04, 0.12) * image.height - size
    gray = _mixed(_paper(image), (128, 128, 128), dice.uniform(0.1, 0.6))
    lines, width = dice.choice((0, 4, 6, 10)), round(dice.size(1, 6))
    for line in range(1, lines + 1):
        y = floor - line / lines * high
        draw.line((left, y, right, y), fill=gray, width=width)
    # 2  The values, each with its number above it.
    step, bold = (right - left) / len(values), dice.choice((0, round(size / 16)))
    numbered = any(names) or dice.random() < 0.7
    wide, tops = dice.uniform(0.25, 0.48) * step, list[tuple[float, float]]()
    for number, (value, color) in enumerate(zip(values, colors.values(), strict=True)):
        x, top = left + step * (number + 0.5), floor - value / 100 * high
        tops.append((x, top))
        if kind == "bars":
            draw.rectangle((x - wide, top, x + wide, floor), fill=color)
        at = (x, top - 0.7 * size)
        if numbered:
            draw.text(at, str(value), font=font, fill=ink, anchor="mm", stroke_width=bold)
        draw.text((x, floor + 0.9 * size), names[number], font=font, fill=ink, anchor="mm")
    if kind == "line":
        draw.line(tops, fill=next(iter(colors.values())), width=dice.randint(3, 14), joint="curve")
    draw.line((left, floor, right, floor), fill=ink, width=round(dice.uniform(4, 14)))


def _contrast(color: Rgb) -> str:
    """Return white or black, whichever can be read on a colour."""
    return "#ffffff" if _luminance(color) < 140 else "#101010"


def _scene(dice: _Dice) -> Drawn:
    """Draw one to seven shapes on a grid."""
    image, draw = _canvas(dice)
    columns, rows = dice.randint(1, 4), dice.randint(1, 3)
    places = dice.sample(range(columns * rows), dice.randint(1, min(columns * rows, 7)))
    wide, high = image.width / columns, image.height / rows
    shown = []
    for place, (color, rgb) in zip(
        sorted(places), _colors(dice, image, len(places)).items(), strict=True
    ):
        shape = dice.choice(list(_SHAPES))
        side = math.exp(dice.uniform(math.log(0.25), math.log(0.95))) * min(wide, high)
        left = place % columns * wide + dice.uniform(0, wide - side)
        top = place // columns * high + dice.uniform(0, high - side)
        _shape(draw, shape, (left, top), side, rgb)
        row, column = (
            int(3 * (top + side / 2) / image.height),
            int(3 * (left + side / 2) / image.width),
        )
        where = _PLACES[0][min(row, 2)], _PLACES[1][min(column, 2)]
        shown.append((color, shape, where))
    color, shape, (row_name, column_name) = dice.choice(shown)
    named = ", ".join(f"one {color} {shape}" for color, shape, _ in shown)
    in_chinese = "、".join(f"{_COLORS[color][0]}{_SHAPES[shape]}" for color, shape, _ in shown)
    count = len(shown)
    return image, *dice.ask(
        ("What do you see, row by row?", f"Row by row: {named}."),
        (f"What shape is {color}?", f"The {shape} is {color}."),
        ("从上到下有什么?", f"从上到下有{in_chinese}。"),
        (
            "How many shapes are there?",
            f"There {'is one shape' if count == 1 else f'are {count} shapes'}.",
        ),
        ("图中有几个图形?", f"图中有{count}个图形。"),
        (f"Where is the {color} {shape}?", f"It is at the {row_name[0]} {column_name[0]}."),
        (f"{_COLORS[color][0]}的{_SHAPES[shape]}在哪里?", f"在{row_name[1]}{column_name[1]}部。"),
        (f"What colour is the {shape}?", f"The {shape} is {color}."),
    )


def _shape(
    draw: ImageDraw.ImageDraw, shape: str, corner: tuple[float, float], side: float, color: Rgb
) -> None:
    left, top = corner
    box = (left, top, left + side, top + side)
    x, y, radius = left + side / 2, top + side / 2, side / 2
    if shape == "circle":
        draw.ellipse(box, fill=color)
    elif shape == "ring":
        draw.ellipse(box, outline=color, width=max(round(side / 6), 2))
    elif shape == "square":
        draw.rectangle(box, fill=color)
    elif shape == "cross":
        third = side / 3
        draw.rectangle((left + third, top, left + 2 * third, top + side), fill=color)
        draw.rectangle((left, top + third, left + side, top + 2 * third), fill=color)
    else:
        points = []
        count = 10 if shape == "star" else _CORNERS[shape]
        for number in range(count):
            turn = 2 * math.pi * number / count - math.pi / 2
            far = radius * (0.42 if shape == "star" and number % 2 else 1)
            points.append((x + far * math.cos(turn), y + far * math.sin(turn)))
        draw.polygon(points, fill=color)


def _diagram(dice: _Dice) -> Drawn:
    """Draw boxes with words and arrows from each to the next, as on slides."""
    image, draw = _canvas(dice)
    count = 2 + int(3 * dice.evenly("boxes"))
    names, ink = dice.some_words(count), _ink(image)
    colors = list(_colors(dice, image, count).values())
    high, wide = 0.92 * image.height / count, dice.size(0.3, 0.85) * image.width
    filled, middle, size = dice.random() < 0.6, image.width / 2, min(0.24 * high, wide / 6)
    font = ImageFont.load_default(size)
    for number, (name, color) in enumerate(zip(names, colors, strict=True)):
        top = 0.04 * image.height + number * high
        box = (middle - wide / 2, top, middle + wide / 2, top + 0.62 * high)
        fill = color if filled else None
        draw.rounded_rectangle(box, 0.1 * high, fill=fill, outline=color, width=6)
        on = _contrast(color) if filled else ink
        draw.text((middle, top + 0.31 * high), name.title(), font=font, fill=on, anchor="mm")
        if number + 1 < count:
            low, tip = top + 0.66 * high, top + 0.97 * high
            draw.line((middle, low, middle, tip), fill=ink, width=6)
            head = 0.1 * high
            draw.polygon(
                [(middle, tip), (middle - head, tip - head), (middle + head, tip - head)], ink
            )
    place = dice.randrange(count - 1)
    before, after = names[place], names[place + 1]
    return image, *dice.ask(
        (f"Which step follows {before}?", f"{after.title()} follows {before}."),
        ("How many boxes does the diagram have?", f"It has {count} boxes."),
        (f"{before}之后是哪一步?", f"{before}之后是{after}。"),
        (
            "Explain this diagram.",
            f"The diagram goes from {names[0]} to {' and then to '.join(names[1:])}.",
        ),
        ("第一个框里写着什么?", f"第一个框里写着{names[0].title()}。"),
    )


def _screenshot(dice: _Dice) -> Drawn:
    """Draw a window with a title, a list at its side, lines of text and a button."""
    image, draw = _canvas(dice, dark=0.5)
    paper, ink = _paper(image), _ink(image)
    bar, side = _mixed(paper, (128, 128, 128), 0.25), _mixed(paper, (128, 128, 128), 0.12)
    size = dice.size(16, 56)
    font = ImageFont.load_default(size)
    title, button = dice.word().title(), dice.word().title()
    color, rgb = next(iter(_colors(dice, image, 1).items()))
    left = 0.26 * image.width
    draw.rectangle((0, 0, left, image.height), fill=side)
    draw.rectangle((0, 0, image.width, 2 * size), fill=bar)
    draw.text((0.02 * image.width, size), title, font=font, fill=ink, anchor="lm")
    entries = list[str]()
    while (y := (3 + 2 * len(entries)) * size) < image.height - size and len(entries) < 9:
        entries.append(dice.word())
        draw.text((0.02 * image.width, y), entries[-1], font=font, fill=ink, anchor="lm")
    for line in range(dice.randint(1, 8)):
        if (y := (3 + 1.5 * line) * size) < image.height - 5 * size:
            text = " ".join(
                dice.choices(list(_WORDS), k=max(int(0.7 * image.width / (4.4 * size)), 1))
            )
            draw.text((left + size, y), text, font=font, fill=ink, anchor="lm")
    wide = font.getlength(button) + 2 * size
    box = (
        image.width - wide - size,
        image.height - 3.2 * size,
        image.width - size,
        image.height - size,
    )
    draw.rounded_rectangle(box, size / 3, fill=rgb)
    on = _contrast(rgb)
    draw.text(
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), button, font=font, fill=on, anchor="mm"
    )
    return image, *dice.ask(
        ("What is written on the button?", f"The button says {button}."),
        ("What is the title of this window?", f"The title is {title}."),
        ("按钮上写着什么?", f"按钮上写着{button}。"),
        ("What colour is the button?", f"The button is {color}."),
        ("List the entries on the left.", "\n".join(f"- {entry}" for entry in entries)),
        ("窗口的标题是什么?", f"窗口的标题是{title}。"),
    )


def _landscape(dice: _Dice) -> Drawn:
    """Draw what photographs have and drawings lack: soft edges, shades, grain, low contrast."""
    width, height = dice.choice(_SIDES)
    time = list(_TIMES)[int(3 * dice.evenly("time"))]
    in_chinese, zenith, horizon = _TIMES[time]
    shade = Image.linear_gradient("L").resize((width, height))
    image = Image.composite(
        Image.new("RGB", shade.size, horizon), Image.new("RGB", shade.size, zenith), shade
    )
    draw = ImageDraw.Draw(image)
    radius = dice.size(0.02, 0.16) * width
    x, y = dice.uniform(0.1, 0.9) * width, dice.uniform(0.1, 0.4) * height
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="#f6eec8")
    hills = dice.randint(1, 4)
    for hill in range(hills):
        base = (0.45 + 0.5 * hill / hills) * height
        waves = [(dice.uniform(1, 9), dice.uniform(0, 6)) for _ in range(3)]
        ridge = [
            (x, base + sum(0.08 * height / f * math.sin(f * 3 * x / width + p) for f, p in waves))
            for x in range(0, width + 8, 8)
        ]
        light = (1 - 0.6 * hill / hills) * dice.uniform(0.5, 0.9)
        green = tuple(round(light * (h + g) / 2) for h, g in zip(horizon, _GREEN, strict=True))
        draw.polygon([(0, height), *ridge, (width, height)], fill=green)
    image = _photographed(dice, image)
    many = f"{hills} hills" if hills > 1 else "one hill"
    return image, *dice.ask(
        ("Describe this picture.", f"A landscape with {many}, by {time}."),
        ("描述这张图片。", f"{in_chinese}的风景,有{hills}座山。"),
        ("Is it day or night?", f"It is {time}."),
        ("Is there text in this picture?", "No, there is no text in this picture."),
        ("图中有几座山?", f"图中有{hills}座山。"),
    )


def _photographed(dice: _Dice, image: Image.Image) -> Image.Image:
    """Return a picture with soft edges, grain and the artefacts of JPEG."""
    image = image.filter(ImageFilter.GaussianBlur(math.exp(dice.uniform(-0.4, 1.4))))
    grain = _grain(dice, (image.width // 4, image.height // 4)).resize(image.size)
    image = ImageChops.add(image, Image.merge("RGB", (grain,) * 3), offset=-128)
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=dice.randint(25, 90))
    with Image.open(stored) as read:
        return read.convert("RGB")


def _grain(dice: Random, size: tuple[int, int]) -> Image.Image:
    """Return noise around 128, always the same for a seed (unlike Pillow's effect_noise)."""
    strength = dice.randint(2, 24)
    table = [128 + round((value - 127.5) / 127.5 * strength) for value in range(256)]
    return Image.frombytes("L", size, dice.randbytes(size[0] * size[1])).point(table)


# --- text alone -----------------------------------------------------------------------------------


def _text(dice: _Dice) -> Asked:
    a, b = dice.randint(2, 99), dice.randint(2, 99)
    word, other = dice.some_words(2)
    few = dice.some_words(dice.randint(2, 5))
    return dice.choice(
        (
            (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
            (f"{a}加{b}等于多少?", f"{a}加{b}等于{a + b}。"),
            (f"{a} - {b} = ?", f"{a - b}"),
            (
                f"Is {a} larger than {b}?",
                f"{'Yes' if a > b else 'No'}, {a} is {'' if a > b else 'not '}larger than {b}.",
            ),
            (
                f"Write a short sentence with the word {word}.",
                f"The {word} was ready in the morning, as everybody had hoped.",
            ),
            (f"用“{_WORDS[word]}”写一个句子。", f"大家都希望{_WORDS[word]}明天会更好。"),
            (f"How do you say {word} in Chinese?", f"{word} in Chinese is {_WORDS[word]}."),
            (f"{_WORDS[word]}用英语怎么说?", f"{_WORDS[word]}的英语是{word}。"),
            (f"How many letters does the word {word} have?", f"{word} has {len(word)} letters."),
            (f"Spell {word}.", "-".join(word.upper())),
            (f"Which comes first in a dictionary, {word} or {other}?", min(word, other)),
            (f"Repeat: {' '.join(few)}", " ".join(few)),
            ("Hello! Who are you?", "I am a model that answers questions about pictures and text."),
            ("你好,你能做什么?", "你好!我可以描述图片,也可以回答关于图片和文字的问题。"),
            (
                f"Write a list of {len(few)} words.",
                "\n".join(f"{n}. {w}" for n, w in enumerate(few, 1)),
            ),
            (
                f"Write a Python function that adds {a}.",
                f"def add(value):\n    return value + {a}",
            ),
        )
    )


_KINDS: tuple[Callable[[_Dice], Drawn], ...] = (
    _scene, _chart, _sign, _page, _scene, _chart, _sign, _table, _landscape, _screenshot, _diagram,
)  # fmt: skip
"""Half are few large things on plain paper, whose inputs differ most from those of full pages and
photographs. Their number and 5 have no common divisor, so texts alone replace all kinds equally."""
