"""Draw the pictures that ship with the demo model, and write three questions about each.

Each is the first held-out picture of its seed that fits a rule on its content; the model's
answers play no part in the choice.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.demo_model.drawing import Chart, Picture, Scene, Sign, draw_smooth
from tools.demo_model.generator import KIND_SHARES, random_picture
from tools.demo_model.questions import (
    Builder,
    Conversation,
    Dice,
    ask_bar_value,
    ask_chart_turn,
    ask_color,
    ask_compare,
    ask_count,
    ask_extreme_bar,
    ask_letter,
    ask_relation,
    ask_scene_caption,
    ask_scene_turn,
    ask_sign_caption,
    ask_sign_color,
    ask_sign_turn,
    ask_text,
    ask_where,
)
from tools.demo_model.tokenizer import write_json
from tools.demo_model.words import WORDS

SIDE_PX = 448
SEED = 31


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A file, the rule its picture must fit, and the questions: builder and language."""

    file: str
    fits: Callable[[Picture], bool]
    asks: tuple[tuple[Builder, bool], ...]


def _is_full_scene(picture: Picture) -> bool:
    return isinstance(picture, Scene) and len({shape.name for shape in picture.shapes}) >= 4


def _is_small_scene(picture: Picture) -> bool:
    return isinstance(picture, Scene) and len({shape.name for shape in picture.shapes}) == 3


def _is_word_sign(picture: Picture) -> bool:
    return (
        isinstance(picture, Sign)
        and picture.on_panel
        and picture.text in WORDS
        and len(picture.text) == 4
    )


def _is_number(picture: Picture) -> bool:
    return isinstance(picture, Sign) and picture.is_number and len(picture.text) == 3


def _is_chart(picture: Picture) -> bool:
    if not isinstance(picture, Chart) or picture.labelled:
        return False
    values = [bar.value for bar in picture.bars]
    return len(values) == 4 and len(set(values)) == 4


def _is_labelled_chart(picture: Picture) -> bool:
    return isinstance(picture, Chart) and picture.labelled and len(picture.bars) == 5


CHOICES = (
    Choice(file="shapes.png", fits=_is_full_scene,
           asks=((ask_count, False), (ask_where, True), (ask_scene_turn, False))),
    Choice(file="three-shapes.png", fits=_is_small_scene,
           asks=((ask_scene_caption, False), (ask_relation, False), (ask_color, True))),
    Choice(file="sign.png", fits=_is_word_sign,
           asks=((ask_text, False), (ask_sign_color, True), (ask_sign_turn, False))),
    Choice(file="number.png", fits=_is_number,
           asks=((ask_text, False), (ask_letter, False), (ask_sign_caption, True))),
    Choice(file="chart.png", fits=_is_chart,
           asks=((ask_bar_value, False), (ask_extreme_bar, True), (ask_chart_turn, False))),
    Choice(file="labelled-chart.png", fits=_is_labelled_chart,
           asks=((ask_compare, False), (ask_bar_value, True), (ask_chart_turn, False))),
)  # fmt: skip


def find_picture(choice: Choice, random: Random) -> Picture:
    """The first held-out picture that fits."""
    while True:
        picture = random_picture(random, True, KIND_SHARES)
        if choice.fits(picture):
            return picture


def ask(build: Builder, chinese: bool, picture: Picture, random: Random) -> Conversation:
    """The first question of this kind that the picture allows."""
    while True:
        asked = build(Dice(random=random, chinese=chinese, held_out=True), picture)
        if asked is not None:
            return asked


def write_pictures(folder: Path) -> None:
    """Write the PNG files and pictures.json."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for choice in CHOICES:
        random = Random(f"shipped {choice.file} {SEED}")
        picture = find_picture(choice, random)
        draw_smooth(picture, SIDE_PX).save(folder / choice.file, optimize=True)
        asked = [ask(build, chinese, picture, random) for build, chinese in choice.asks]
        listed.append({"file": choice.file, "questions": [_row(one) for one in asked]})
    write_json(folder / "pictures.json", {"pictures": listed})


def _row(asked: Conversation) -> dict[str, object]:
    """One question with its true answer and the turns that come before it."""
    history = [list(turn) for turn in asked.history]
    return {"question": asked.question, "answer": asked.answer, "history": history}


def main() -> None:
    """Write the shipped pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures that ship with the demo.")
    parser.add_argument("folder", type=Path)
    write_pictures(parser.parse_args().folder)


if __name__ == "__main__":
    main()
