"""A set of pictures with questions that is drawn, so that nobody needs pictures to calibrate.

Pages of text, tables, bar charts and scenes of shapes, with questions in English and Chinese whose
answers are known. Drawn with Pillow's own font, which has no Chinese letters: Chinese is in the
questions and answers only.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw, ImageFont

from cogvlm2_lite.evaluate.samples import Sample

_SIDE = 896
_WORDS = (
    "invoice", "total", "river", "window", "account", "letter", "garden", "number", "meeting",
    "winter", "report", "station", "price", "music", "delivery", "table", "paper", "morning",
    "result", "machine", "travel", "summer", "budget", "teacher", "market", "weather", "harbour",
)  # fmt: skip
_COLORS = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "orange": "橙色", "purple": "紫色",
    "black": "黑色",
}  # fmt: skip
_SHAPES = {"circle": "圆形", "square": "正方形", "triangle": "三角形"}

Drawn = tuple[Image.Image, str, str]


def drawn_samples(count: int, seed: int = 0) -> list[Sample]:
    """Draw so many samples; the same seed gives the same ones, and a longer set begins alike."""
    random = Random(f"calibration {seed}")
    kinds: tuple[Callable[[Random], Drawn], ...] = (_page, _scene, _chart, _table)
    found = []
    for number in range(count):
        image, question, answer = kinds[number % len(kinds)](random)
        # Every fifth sample is text alone: an expert that sees only text needs some.
        if number % 5 == 4:
            found.append(_text(random))
        else:
            found.append(Sample(image=image, question=question, answer=answer))
    return found


def _canvas(random: Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    paper = random.choice(("white", "#f6f1e4", "#eef3f8", "#202428"))
    image = Image.new("RGB", (_SIDE, random.choice((_SIDE, 672, 1200))), paper)
    return image, ImageDraw.Draw(image)


def _ink(image: Image.Image) -> str:
    corner = image.getpixel((0, 0))
    assert isinstance(corner, tuple)
    return "#f0f0f0" if sum(corner) < 300 else "#1a1a1a"


def _page(random: Random) -> Drawn:
    image, draw = _canvas(random)
    size = random.randint(24, 56)
    font, y, lines = ImageFont.load_default(size), 40, []
    while y < image.height - 2 * size:
        line = " ".join(random.choices(_WORDS, k=max(900 // (size * 4), 2))).capitalize() + "."
        draw.text((40, y), line, font=font, fill=_ink(image))
        lines.append(line)
        y += round(size * 1.6)
    if random.random() < 0.5:
        return image, "Read all text in this image.", "\n".join(lines)
    return image, "第一行写的是什么?", lines[0]


def _table(random: Random) -> Drawn:
    image, draw = _canvas(random)
    font = ImageFont.load_default(34)
    rows = [(random.choice(_WORDS), random.randint(1, 999)) for _ in range(random.randint(3, 8))]
    for number, (word, price) in enumerate(rows):
        y = 60 + 70 * number
        draw.text((60, y), word, font=font, fill=_ink(image))
        draw.text((560, y), f"{price}.00", font=font, fill=_ink(image))
        draw.line((50, y + 52, 840, y + 52), fill="#888888", width=2)
    word, price = random.choice(rows)
    total = sum(price for _, price in rows)
    if random.random() < 0.5:
        return image, "What is the sum of all prices?", f"The sum of all prices is {total}.00."
    first = next(p for w, p in rows if w == word)
    return image, f"{word}的价格是多少?", f"{word}的价格是{first}.00。"


def _chart(random: Random) -> Drawn:
    image, draw = _canvas(random)
    font = ImageFont.load_default(28)
    names = random.sample(_WORDS, random.randint(3, 6))
    values = [random.randint(5, 100) for _ in names]
    floor, width = image.height - 110, 780 // len(names)
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        x = 60 + width * number
        height = round(value / 100 * (floor - 80))
        color = random.choice(list(_COLORS))
        draw.rectangle((x, floor - height, x + width - 24, floor), fill=color)
        draw.text((x, floor - height - 36), str(value), font=font, fill=_ink(image))
        draw.text((x, floor + 12), name, font=font, fill=_ink(image))
    top = names[values.index(max(values))]
    if random.random() < 0.5:
        answer = f"The highest bar is {top}, at {max(values)}."
        return image, "Which bar is the highest, and what is its value?", answer
    return image, "这张图表有几根柱子?", f"这张图表有{len(names)}根柱子。"


def _scene(random: Random) -> Drawn:
    image, draw = _canvas(random)
    shown = []
    for column in range(random.randint(1, 4)):
        color, shape = random.choice(list(_COLORS)), random.choice(list(_SHAPES))
        left, top = 40 + 210 * column, random.randint(60, image.height - 260)
        box = (left, top, left + 180, top + 180)
        if shape == "circle":
            draw.ellipse(box, fill=color)
        elif shape == "square":
            draw.rectangle(box, fill=color)
        else:
            draw.polygon([(left, top + 180), (left + 90, top), (left + 180, top + 180)], fill=color)
        shown.append((color, shape))
    if random.random() < 0.5:
        named = ", ".join(f"a {color} {shape}" for color, shape in shown)
        return image, "What do you see, from left to right?", f"From left to right: {named}."
    named = "、".join(f"{_COLORS[color]}{_SHAPES[shape]}" for color, shape in shown)
    return image, "从左到右有什么?", f"从左到右有{named}。"


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
