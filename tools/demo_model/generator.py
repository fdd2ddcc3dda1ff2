"""Pictures with questions, endless and the same for a seed; the project's evaluation uses it.

The two splits never share a seed, and no string of two or more characters that is drawn
or asked in the held-out split occurs in the training split.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image

from tools.demo_model.drawing import (
    FONT_COUNT,
    Bar,
    Chart,
    Picture,
    Scene,
    Shape,
    Sign,
    text_widths,
)
from tools.demo_model.drawing import draw as draw_picture
from tools.demo_model.questions import Conversation, converse, random_string
from tools.demo_model.words import COLORS, SHAPES

Split = Literal["train", "held-out"]
KIND_SHARES = {"scene": 0.36, "sign": 0.40, "chart": 0.24}
SIGN_COLORS = tuple(color for color in COLORS if color != "yellow")
PANEL_COLORS = tuple(color for color in SIGN_COLORS if color != "pink")
SIDES_PX = (224, 224, 224, 224, 224, 224, 280, 336, 448)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture, what it shows, and conversations about it or beside it."""

    picture: Picture
    image: Image.Image
    conversations: list[Conversation]


def samples(
    split: Split,
    seed: int,
    questions: int,
    shares: dict[str, float] | None = None,
    focus: dict[str, float] | None = None,
) -> Iterator[Sample]:
    """Yield samples without end, each with `questions` conversations.

    seed     the same seed gives the same samples
    shares   how often each kind of picture comes; KIND_SHARES if not given
    focus    factors on how often the named builders of questions.py are taken
    """
    random = Random(f"{split} {seed}")
    held_out = split == "held-out"
    while True:
        picture = random_picture(random, held_out, shares or KIND_SHARES)
        image = draw_picture(picture, random.choice(SIDES_PX))
        asked = converse(random, picture, questions, held_out, focus or {}) if questions else []
        yield Sample(picture=picture, image=image, conversations=asked)


def random_picture(random: Random, held_out: bool, shares: dict[str, float]) -> Picture:
    """Draw one picture's content."""
    kind = random.choices(list(shares), list(shares.values()))[0]
    if kind == "scene":
        return random_scene(random)
    if kind == "sign":
        return random_sign(random, held_out)
    return random_chart(random)


def _light(random: Random) -> tuple[int, int, int]:
    red, green, blue = (random.randint(226, 255) for _ in range(3))
    return red, green, blue


def random_scene(random: Random) -> Scene:
    """One to five shapes; in half of the scenes colours and shapes repeat."""
    count = random.randint(1, 5)
    few = random.random() < 0.5
    colors = random.sample(list(COLORS), 2) if few else list(COLORS)
    names = random.sample(SHAPES, 2) if few and random.random() < 0.6 else list(SHAPES)
    cells = sorted(random.sample(range(9), count))
    return Scene(
        background=_light(random),
        shapes=tuple(_random_shape(random, cell, colors, names) for cell in cells),
    )


def _random_shape(random: Random, cell: int, colors: list[str], names: list[str]) -> Shape:
    radius = random.uniform(0.095, 0.135)
    slack = 1 / 6 - 1.1 * radius
    return Shape(
        name=random.choice(names), color=random.choice(colors), cell=cell, radius=radius,
        x=(cell % 3 + 0.5) / 3 + random.uniform(-slack, slack),
        y=(cell // 3 + 0.5) / 3 + random.uniform(-slack, slack),
    )  # fmt: skip


def random_sign(random: Random, held_out: bool) -> Sign:
    """A number, a real word or random letters, as large as the width allows or smaller."""
    digits = random.random() < 0.36
    real_word = random.random() < 0.6
    text = random_string(random, digits=digits, real_word=real_word, held_out=held_out)
    font = random.randrange(FONT_COUNT)
    on_panel = random.random() < 0.5
    cap_height = min(random.uniform(0.21, 0.32), 0.85 / text_widths(text, font)[-1])
    width = text_widths(text, font)[-1] * cap_height
    aside, up = 0.46 - width / 2, 0.40 - cap_height / 2
    return Sign(
        background=_light(random), text=text, font=font, on_panel=on_panel,
        color=random.choice(PANEL_COLORS if on_panel else SIGN_COLORS),
        x=0.5 + random.uniform(-aside, aside) * 0.6, y=0.5 + random.uniform(-up, up) * 0.6,
        width=width, cap_height=cap_height,
    )  # fmt: skip


def random_chart(random: Random) -> Chart:
    """Two to five bars of different colours."""
    count = random.randint(2, 5)
    return Chart(
        background=_light(random), labelled=random.random() < 0.5,
        bars=tuple(
            Bar(color=color, value=random.randint(1, 9))
            for color in random.sample(list(COLORS), count)
        ),
        width=random.uniform(0.55, 0.8),
    )  # fmt: skip
