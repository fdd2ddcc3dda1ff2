"""The questions of a benchmark, and where their pictures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.inputs import failures
from cogvlm2_lite.inputs.decoding import DECODER_ERRORS, pillow, register_heic
from cogvlm2_lite.inputs.formats import missing_package
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS, ImageLimits
from cogvlm2_lite.text import Text

MISSING_WORDS = frozenset(
    (
        "", "None", "N/A", "NA", "n/a", "null", "NULL", "nan", "NaN", "-nan", "-NaN", "<NA>",
        "#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
    )
)  # fmt: skip
"""Cells that pandas, and so VLMEvalKit, reads as missing: such an option or hint is not shown."""


class Picture(Protocol):
    """Where a picture is. Its bytes are read when they are needed."""

    @property
    def name(self) -> str:
        """The picture for messages, such as "TextVQA_VAL.tsv, index 34602"."""
        ...

    @property
    def key(self) -> str:
        """A text that is equal for the same picture within one benchmark's files."""
        ...

    def read(self) -> bytes:
        """Return the bytes of the picture file. Raises ImageError."""
        ...


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question.

    id        unique within the data
    group     MMBench: the id of the question that all its rotations share; otherwise the id
    question  as in the file
    hint      as in the file; "" without one
    options   letter -> text, as in the file; {} for open questions. `shown_options` are asked
    answers   the references; () where the file has none
    pictures  in the order of the file; the first is shown to the model
    labels    texts that a score is split by:
              chartqa   split: test_human, test_augmented
              docvqa    question_types, joined by commas, where the file has them
              mmbench   category, l2-category, split
              mmmu      subject, discipline, question_type (multiple-choice, open), split
              mmvet     capability, joined by commas: "ocr,math"
              ocrbench  category
              vqa       category and l2-category, where the file has them
    fields    what an export needs: `question_id` (textvqa: int; mmmu and mmvet: text),
              `questionId` (docvqa: int), `row`: the object of OCRBench.json, if the file has its
              keys
    """

    id: str
    group: str
    question: str
    hint: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown_options(self) -> Mapping[str, str]:
        """The options without those that VLMEvalKit reads as missing ("N/A", "None", ...)."""
        return {key: text for key, text in self.options.items() if text not in MISSING_WORDS}

    @property
    def shown_hint(self) -> str:
        """The hint, or "" where VLMEvalKit reads it as missing."""
        return "" if self.hint in MISSING_WORDS else self.hint


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file of a benchmark. `known`: whether its md5 is a published one; None: none is known."""

    path: Path
    size: int
    md5: str
    known: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """All questions of a benchmark's files.

    benchmark  as in benchmarks.BENCHMARKS; "vqa" for demo-vqa and for a user's own questions
    name       shown, and the name of the run's folder: "textvqa", "demo-vqa"
    notices    what a person should know about the files
    """

    benchmark: str
    name: str
    files: tuple[DataFile, ...]
    items: tuple[Item, ...]
    notices: tuple[Text, ...] = ()


def picture_key(item: Item) -> str:
    """Return a text that is equal for items that show the same picture; nothing is decoded."""
    return item.pictures[0].key if item.pictures else ""


def plain_rgb(data: bytes, name: str = "", *, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Return a picture as the reference programs see it: Image.open(...).convert("RGB").

    Unlike `ask`, this does not rotate by EXIF, drops transparency, and ignores color profiles.
    Raises ImageError for a picture that is damaged, cut, too large or of an unknown format.
    """
    name = name or Text("The picture")
    failures.check_file_size(len(data), name, limits)
    kind = failures.picture_kind(data[:1024])
    if not kind:
        raise failures.unreadable(data[:1024], name)
    if missing_package(kind):
        raise failures.package_missing(name, kind)
    size = (0, 0)
    with pillow(limits):
        try:
            if kind == "HEIC":
                register_heic()
            image = Image.open(BytesIO(data), formats=_formats(kind))
            size = image.size
            failures.check_size(size, name, limits)
            return image.convert("RGB")
        except Image.DecompressionBombError:
            raise failures.too_many_pixels(name, None, limits) from None
        except MemoryError as error:
            raise failures.too_little_memory(name, size) from error
        except DECODER_ERRORS as error:
            raise failures.damaged(name, kind, size if any(size) else None) from error


def _formats(kind: str) -> tuple[str, ...]:
    """Return Pillow's names for a kind of picture."""
    return {"WebP": ("WEBP",), "HEIC": ("HEIF",)}.get(kind, (kind,))


def read_picture_file(path: Path, name: str, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Return the bytes of a picture file. Raises ImageError."""
    try:
        with path.open("rb") as stream:
            failures.check_file_size(path.stat().st_size, name, limits)
            return stream.read(limits.max_file_bytes + 1)
    except OSError as error:
        raise failures.no_access(name, error) from error


def no_picture(name: str, why: str) -> ImageError:
    """Return the error for a picture whose bytes can't be found in its file."""
    return ImageError("{file} has no readable picture: {why}.", file=name, why=why)
