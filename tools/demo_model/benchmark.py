"""Write the benchmark that ships with the demo model: held-out questions in VLMEvalKit's TSV form.

    python tools/demo_model/benchmark.py cogvlm2_lite/demo/demo-vqa.tsv

The questions are the first of the held-out split with a seed that was used for nothing else; the
model's answers play no part in the choice. Pictures have a palette, to keep the file small.
"""

import argparse
import base64
import csv
import sys
from collections.abc import Iterator
from io import BytesIO, StringIO
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image

from tools.demo_model.drawing import Chart, Picture, Scene
from tools.demo_model.drawing import draw as draw_picture
from tools.demo_model.generator import samples

SEED = 16
PICTURES = 44
QUESTIONS = 6
"""Drawn for each picture; those that need no picture, or an earlier turn, are left out."""
SIDE_PX = 224
COLORS = 24
COLUMNS = ("index", "image", "question", "answer", "category", "l2-category")


def rows() -> Iterator[dict[str, str]]:
    """Yield the rows: the first of each picture has it, the others name that row."""
    index = 0
    for sample in islice(samples("held-out", SEED, QUESTIONS), PICTURES):
        holder = ""
        for asked in sample.conversations:
            if not asked.sees_picture or asked.history:
                continue
            yield {
                "index": str(index),
                "image": holder or base64.b64encode(png(draw(sample.picture))).decode(),
                "question": asked.question,
                "answer": asked.answer.strip(),
                "category": kind_of(sample.picture),
                "l2-category": "Chinese" if asked.task.endswith("(zh)") else "English",
            }
            holder = holder or str(index)
            index += 1


def draw(picture: Picture) -> Image.Image:
    """Draw a picture with a palette of few colours."""
    plain = draw_picture(picture, SIDE_PX)
    return plain.quantize(COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def png(image: Image.Image) -> bytes:
    """Return the bytes of a PNG file."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def kind_of(picture: Picture) -> str:
    """Name what a picture shows."""
    if isinstance(picture, Scene):
        return "shapes"
    return "chart" if isinstance(picture, Chart) else "sign"


def table() -> str:
    """Return the content of the file."""
    buffer = StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows())
    return buffer.getvalue()


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write the demo benchmark.")
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text(table(), encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
