"""Draws training data for the demo model: pictures with a shape that it does not know, an egg.

Its other shapes and colours are there, too, so that questions about them stay answered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

NEW_SHAPE = "egg"
FILE = "eggs.jsonl"
_SIDE = 224
_PICTURES = 160
_QUESTIONS = 3
_COLORS = {
    "red": "#d62828", "green": "#2a9d46", "blue": "#2654d2", "yellow": "#f5cd1e",
    "orange": "#f47e16", "purple": "#7e34b2", "pink": "#f684be", "black": "#1c1c20",
}  # fmt: skip
_KNOWN_SHAPES = ("circle", "square", "triangle", "star", "diamond")
_PLACES = (
    "top left", "top center", "top right",
    "middle left", "center", "middle right",
    "bottom left", "bottom center", "bottom right",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """A shape in a place of a grid of 3 x 3, numbered along the rows."""

    name: str
    color: str
    place: int

    @property
    def words(self) -> str:
        return f"{_article(self.color)} {self.color} {self.name}"


def write_training_data(folder: Path, *, seed: int = 0) -> tuple[int, int]:
    """Write pictures and rows of questions and answers; return how many of both.

    folder  is made; the rows are in FILE, the pictures in `pictures`
    seed    the same seed draws the same pictures
    """
    random = Random(f"lesson {seed}")
    (folder / "pictures").mkdir(parents=True)
    rows: list[dict[str, str]] = []
    for number in range(_PICTURES):
        shapes = _scene(random)
        name = f"pictures/{number:04d}.png"
        _draw(shapes, random).save(folder / name)
        for question, answer in _asked(shapes, random):
            rows.append({"image": name, "question": question, "answer": answer})
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / FILE).write_text(text, "utf-8")
    return _PICTURES, len(rows)


def _scene(random: Random) -> list[_Shape]:
    """Return an egg and up to three known shapes, all of different colours, in reading order."""
    count = random.randint(1, 4)
    names = [NEW_SHAPE, *random.sample(_KNOWN_SHAPES, count - 1)]
    colors, places = random.sample(list(_COLORS), count), random.sample(range(9), count)
    made = [
        _Shape(name=name, color=color, place=place)
        for name, color, place in zip(names, colors, places, strict=True)
    ]
    return sorted(made, key=lambda shape: shape.place)


def _asked(shapes: Sequence[_Shape], random: Random) -> list[tuple[str, str]]:
    """Return different questions with their answers: at least two about the egg."""
    egg = next(shape for shape in shapes if shape.name == NEW_SHAPE)
    asked = random.sample(list(_about(egg, shapes, random)), _QUESTIONS - 1)
    more = [each for each in _about(random.choice(shapes), shapes, random) if each not in asked]
    return [*asked, random.choice(more)]


def _about(shape: _Shape, shapes: Sequence[_Shape], random: Random) -> Iterator[tuple[str, str]]:
    see = random.choice(("What is in the {}?", "What do you see in the {}?"))
    yield see.format(_PLACES[shape.place]), shape.words
    yield f"What color is the {shape.name}?", shape.color
    yield f"Where is the {shape.name}?", _PLACES[shape.place]
    yield f"Which shape is {shape.color}?", shape.name
    color = random.choice((shape.color, random.choice(list(_COLORS))))
    there = any(each.name == shape.name and each.color == color for each in shapes)
    yield f"Is there {_article(color)} {color} {shape.name}?", "yes" if there else "no"
    *others, last = (each.words for each in shapes)
    listed = f"{', '.join(others)} and {last}" if others else last
    yield "What is in the picture?", f"{listed[0].upper()}{listed[1:]}."


def _article(color: str) -> str:
    return "an" if color == "orange" else "a"


def _draw(shapes: Sequence[_Shape], random: Random) -> Image.Image:
    paper = tuple(random.randint(225, 255) for _ in range(3))
    image = Image.new("RGB", (_SIDE, _SIDE), paper)
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        radius = _SIDE * random.uniform(0.09, 0.15)
        x, y = (
            _SIDE * (cell + 0.5) / 3 + random.uniform(-6, 6)
            for cell in (shape.place % 3, shape.place // 3)
        )
        across = radius if shape.name == "circle" else 0.6 * radius
        if shape.name in (NEW_SHAPE, "circle"):
            pen.ellipse((x - across, y - radius, x + across, y + radius), fill=_COLORS[shape.color])
        else:
            corners = [(x + dx * radius, y + dy * radius) for dx, dy in _corners(shape.name)]
            pen.polygon(corners, fill=_COLORS[shape.color])
    return image


def _corners(name: str) -> list[tuple[float, float]]:
    if name == "star":
        turns = [(math.pi * n / 5, 0.45 if n % 2 else 1.1) for n in range(10)]
        return [(far * math.sin(turn), -far * math.cos(turn)) for turn, far in turns]
    return {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
        "diamond": [(0.0, -1.1), (0.8, 0.0), (0.0, 1.1), (-0.8, 0.0)],
    }[name]
