"""Draws a set of pictures with questions, so that calibration needs no pictures of the user.

Pages of text, signs, tables, charts, scenes of shapes and landscapes, with questions in English and
Chinese whose answers are known. Contents are as small as on a full page and as large as the
picture: with one size alone, rounding is fitted to a few frequencies of the patches (see
docs/quantization.md). Drawn with Pillow's own font, which has no Chinese letters: Chinese is in the
questions and answers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont

from cogvlm2_lite.samples.samples import Sample

_SIDES = ((896, 896), (896, 672), (672, 896), (1200, 800), (800, 1200))
_WORDS = (
    "invoice", "total", "river", "window", "account", "letter", "garden", "number", "meeting",
    "winter", "report", "station", "price", "music", "delivery", "table", "paper", "morning",
    "result", "machine", "travel", "summer", "budget", "teacher", "market", "weather", "harbour",
)  # fmt: skip
_COLORS = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "orange": "橙色", "purple": "紫色",
    "black": "黑色", "yellow": "黄色", "white": "白色", "gray": "灰色", "brown": "棕色",
}  # fmt: skip
_SHAPES = {"circle": "圆形", "square": "正方形", "triangle": "三角形", "ring": "圆环"}
_TIMES = {
    "day": ("白天", (96, 150, 220), (206, 226, 244)),
    "evening": ("傍晚", (70, 60, 110), (240, 150, 90)),
    "night": ("夜晚", (8, 10, 30), (36, 44, 80)),
}
_GREEN = (70, 120, 60)

Rgb = tuple[int, int, int]
Drawn = tuple[Image.Image, str, str]


def drawn_samples(count: int, seed: int = 0) -> list[Sample]:
    """Return `count` drawn samples. A seed always gives the same ones, also as part of more."""
    return [_sample(Random(f"calibration {seed} {number}"), number) for number in range(count)]


def _sample(random: Random, number: int) -> Sample:
    # Every fifth sample is text alone: an expert that sees only text needs some.
    if number % 5 == 4:
        return _text(random)
    kinds: tuple[Callable[[Random], Drawn], ...] = (
        _page, _scene, _chart, _sign, _table, _landscape,
    )  # fmt: skip
    image, question, answer = kinds[number % len(kinds)](random)
    return Sample(image=image, question=question, answer=answer)


def _canvas(random: Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    low, high = (8, 64) if random.random() < 0.25 else (200, 255)
    paper = tuple(random.randint(low, high) for _ in range(3))
    image = Image.new("RGB", random.choice(_SIDES), paper)
    return image, ImageDraw.Draw(image)


def _paper(image: Image.Image) -> Rgb:
    corner = image.getpixel((0, 0))
    assert isinstance(corner, tuple)
    red, green, blue = corner[:3]
    return red, green, blue


def _ink(image: Image.Image) -> str:
    return "#f0f0f0" if sum(_paper(image)) < 300 else "#1a1a1a"


def _colors(random: Random, image: Image.Image, count: int) -> list[str]:
    """Return at most seven different colours, without the three most similar to the paper."""
    paper = _luminance(_paper(image))
    near = sorted(_COLORS, key=lambda c: abs(_luminance(ImageColor.getrgb(c)) - paper))
    return random.sample(near[3:], count)


def _luminance(color: tuple[int, ...]) -> float:
    red, green, blue = color[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _between(random: Random, low: float, high: float) -> float:
    """Return a random size, with every octave equally likely."""
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _page(random: Random) -> Drawn:
    image, draw = _canvas(random)
    size = _between(random, 18, 90)
    font, margin = ImageFont.load_default(size), image.width // 20
    y, lines = float(margin), list[str]()
    while y < image.height - margin - size and len(lines) < 24:
        words = random.choices(_WORDS, k=max(round(image.width / (size * 4.4)), 1))
        lines.append(" ".join(words).capitalize() + ".")
        draw.text((margin, y), lines[-1], font=font, fill=_ink(image))
        y += size * 1.6
    if random.random() < 0.5:
        return image, "Read all text in this image.", "\n".join(lines)
    return image, "第一行写的是什么?", lines[0]


def _sign(random: Random) -> Drawn:
    """Draw a word or number alone or with up to three smaller ones, in colours or on panels."""
    image, draw = _canvas(random)
    count = random.randint(1, 4)
    paper, place, said = _paper(image), image.height / count, []
    for row, color in enumerate(_colors(random, image, count)):
        word = random.choice((random.choice(_WORDS).upper(), str(random.randint(1, 9999))))
        wide = _between(random, 0.15, 0.85) * image.width
        size = min(wide / ImageFont.load_default(100).getlength(word) * 100, 0.6 * place)
        font = ImageFont.load_default(size)
        left, top, right, bottom = font.getbbox(word)
        edge = size / 5
        x = random.uniform(edge, image.width - (right - left) - edge)
        y = row * place + random.uniform(edge, place - (bottom - top) - edge)
        on_panel = random.random() < 0.5
        if on_panel:
            panel = (x - edge, y - edge, x + right - left + edge, y + bottom - top + edge)
            draw.rectangle(panel, fill=color)
        draw.text((x - left, y - top), word, font=font, fill=paper if on_panel else color)
        said.append(word)
    if random.random() < 0.5:
        return image, "What does the sign say?", f"The sign says {' '.join(said)}."
    return image, "牌子上写着什么?", f"牌子上写着{' '.join(said)}。"


def _table(random: Random) -> Drawn:
    image, draw = _canvas(random)
    names = random.sample(_WORDS, random.randint(2, 10))
    rows = [(name, random.randint(1, 999)) for name in names]
    step = 0.92 * image.height / len(rows)
    font = ImageFont.load_default(min(step * 0.6, image.width / 14))
    for number, (word, price) in enumerate(rows):
        y = 0.04 * image.height + step * number
        draw.text((0.06 * image.width, y), word, font=font, fill=_ink(image))
        draw.text((0.62 * image.width, y), f"{price}.00", font=font, fill=_ink(image))
        under = y + step * 0.85
        draw.line((0.05 * image.width, under, 0.95 * image.width, under), fill="#888888", width=2)
    word, price = random.choice(rows)
    total = sum(price for _, price in rows)
    if random.random() < 0.5:
        return image, "What is the sum of all prices?", f"The sum of all prices is {total}.00."
    return image, f"{word}的价格是多少?", f"{word}的价格是{price}.00。"


def _chart(random: Random) -> Drawn:
    image, draw = _canvas(random)
    names = random.sample(_WORDS, random.randint(2, 7))
    values = [random.randint(5, 100) for _ in names]
    colors = _colors(random, image, len(names))
    size = min(0.2 * image.width / len(names), 40)
    font = ImageFont.load_default(size)
    step, floor = 0.92 * image.width / len(names), 0.88 * image.height
    points = []
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        x, top = 0.04 * image.width + step * number, floor - value / 100 * 0.76 * image.height
        points.append((x + step * 0.4, top))
        draw.text((x, top - size * 1.3), str(value), font=font, fill=_ink(image))
        draw.text((x, floor + 12), name, font=font, fill=_ink(image))
    bars = random.random() < 0.7
    if bars:
        for (x, top), color in zip(points, colors, strict=True):
            draw.rectangle((x - step * 0.4, top, x + step * 0.4, floor), fill=color)
    else:
        draw.line(points, fill=colors[0], width=random.randint(3, 14), joint="curve")
    if random.random() < 0.5:
        where = names[values.index(max(values))]
        answer = f"The highest value is {max(values)}, at {where}."
        return image, "What is the highest value, and where?", answer
    kind = "柱子" if bars else "数据点"
    return image, f"这张图表有几个{kind}?", f"这张图表有{len(names)}个{kind}。"


def _scene(random: Random) -> Drawn:
    image, draw = _canvas(random)
    columns, rows = random.randint(1, 4), random.randint(1, 3)
    places = random.sample(range(columns * rows), random.randint(1, min(columns * rows, 7)))
    wide, high = image.width / columns, image.height / rows
    shown = []
    for place, color in zip(sorted(places), _colors(random, image, len(places)), strict=True):
        shape = random.choice(list(_SHAPES))
        side = _between(random, 0.25, 0.95) * min(wide, high)
        left = place % columns * wide + random.uniform(0, wide - side)
        top = place // columns * high + random.uniform(0, high - side)
        box = (left, top, left + side, top + side)
        if shape == "circle":
            draw.ellipse(box, fill=color)
        elif shape == "ring":
            draw.ellipse(box, outline=color, width=max(round(side / 6), 2))
        elif shape == "square":
            draw.rectangle(box, fill=color)
        else:
            corners = [(left, top + side), (left + side / 2, top), (left + side, top + side)]
            draw.polygon(corners, fill=color)
        shown.append((color, shape))
    color, shape = random.choice(shown)
    if random.random() < 0.3:
        return image, f"What shape is {color}?", f"The {shape} is {color}."
    if random.random() < 0.5:
        named = ", ".join(f"one {color} {shape}" for color, shape in shown)
        return image, "What do you see, row by row?", f"Row by row: {named}."
    named = "、".join(f"{_COLORS[color]}{_SHAPES[shape]}" for color, shape in shown)
    return image, "从上到下有什么?", f"从上到下有{named}。"


def _landscape(random: Random) -> Drawn:
    """Draw what photographs have and drawings lack: soft edges, shades, grain, low contrast."""
    width, height = random.choice(_SIDES)
    time = random.choice(list(_TIMES))
    in_chinese, zenith, horizon = _TIMES[time]
    shade = Image.linear_gradient("L").resize((width, height))
    image = Image.composite(
        Image.new("RGB", shade.size, horizon), Image.new("RGB", shade.size, zenith), shade
    )
    draw = ImageDraw.Draw(image)
    radius = _between(random, 0.02, 0.12) * width
    x, y = random.uniform(0.1, 0.9) * width, random.uniform(0.1, 0.4) * height
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="#f6eec8")
    hills = random.randint(1, 4)
    for hill in range(hills):
        base = (0.45 + 0.5 * hill / hills) * height
        waves = [(random.uniform(1, 9), random.uniform(0, 6)) for _ in range(3)]
        ridge = [
            (x, base + sum(0.08 * height / f * math.sin(f * 3 * x / width + p) for f, p in waves))
            for x in range(0, width + 8, 8)
        ]
        light = (1 - 0.6 * hill / hills) * random.uniform(0.5, 0.9)
        green = tuple(round(light * (h + g) / 2) for h, g in zip(horizon, _GREEN, strict=True))
        draw.polygon([(0, height), *ridge, (width, height)], fill=green)
    image = image.filter(ImageFilter.GaussianBlur(_between(random, 0.7, 6)))
    grain = _grain(random, (width // 4, height // 4)).resize((width, height))
    image = ImageChops.add(image, Image.merge("RGB", (grain,) * 3), offset=-128)
    if random.random() < 0.5:
        many = f"{hills} hills" if hills > 1 else "one hill"
        return image, "Describe this picture.", f"A landscape with {many}, by {time}."
    return image, "描述这张图片。", f"{in_chinese}的风景,有{hills}座山。"


def _grain(random: Random, size: tuple[int, int]) -> Image.Image:
    """Return noise around 128, always the same for a seed (unlike Pillow's effect_noise)."""
    strength = random.randint(2, 24)
    table = [128 + round((value - 127.5) / 127.5 * strength) for value in range(256)]
    return Image.frombytes("L", size, random.randbytes(size[0] * size[1])).point(table)


def _text(random: Random) -> Sample:
    a, b = random.randint(2, 99), random.randint(2, 99)
    word = random.choice(_WORDS)
    return random.choice(
        (
            Sample(question=f"What is {a} plus {b}?", answer=f"{a} plus {b} is {a + b}."),
            Sample(question=f"{a}加{b}等于多少?", answer=f"{a}加{b}等于{a + b}。"),
            Sample(
                question=f"Write a short sentence with the word {word}.",
                answer=f"The {word} was ready in the morning, as everybody had hoped.",
            ),
        )
    )
