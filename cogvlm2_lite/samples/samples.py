"""Pictures with questions and answers, for calibration and for comparing models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.inputs.formats import readable_suffixes
from cogvlm2_lite.inputs.image import ImageSource, OpenedImage, open_image
from cogvlm2_lite.inputs.prompt import choose_vision_expert, derive_position_ids, encode_prompt
from cogvlm2_lite.inputs.tokenizer import Tokenizer

_QUESTIONS = ("Describe this image in detail.", "请详细描述这张图片。")
"""Asked alternately about pictures without a question."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question, with its picture and answer if there are any.

    image    a file, bytes or a PIL image; None for text alone
    answer   may be empty; see `after_mark` for the space before it
    picture  the sha256 of the decoded picture, if it is known; see `identified`
    template the prompt template; None: the checkpoint's own
    """

    question: str
    answer: str = ""
    image: ImageSource | None = None
    history: tuple[tuple[str, str], ...] = ()
    picture: str | None = None
    template: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleTokens:
    """A sample as the model reads it, its answer included.

    input_ids, token_type_ids, position_ids  [1, tokens] int64
    vision_mask  [1, tokens] bool, True for the vision expert
    scored       first position whose next token belongs to the answer; the last without an answer
    """

    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    vision_mask: NDArray[np.bool_]
    scored: int

    @property
    def targets(self) -> NDArray[np.int64]:
        """The answer's tokens, [positions]; empty without an answer."""
        return self.input_ids[0, self.scored + 1 :]


def read_samples(source: Path) -> list[Sample]:
    """Read samples from a folder of pictures or a JSONL file.

    A line of JSONL is {"image": file, "question": text, "answer": text}; image (relative to the
    JSONL file) and answer may be missing. Pictures of a folder are sorted by name.
    Raises UsageError for anything else; pictures are not opened yet.
    """
    if source.is_dir():
        return list(_from_folder(source))
    if not source.is_file():
        raise UsageError(
            "There is no folder or file {file}.",
            hint="Use a folder of pictures, or a .jsonl file of objects with image, question and "
            "answer.",
            file=source,
        )
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("{file} can't be read as text: {why}.", file=source, why=error) from error
    found = [
        _from_line(line, f"{source.name}, line {number}", source.parent)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise UsageError("{file} has no samples.", hint="Use at least eight samples.", file=source)
    return found


def _from_folder(folder: Path) -> Iterator[Sample]:
    suffixes = readable_suffixes()
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in suffixes)
    if not files:
        raise UsageError(
            "{folder} has no pictures ({kinds}).",
            hint="Use the folder that directly contains them; subfolders are not searched.",
            folder=folder,
            kinds=", ".join(suffixes),
        )
    for number, file in enumerate(files):
        yield Sample(image=file, question=_QUESTIONS[number % len(_QUESTIONS)])


def _from_line(line: str, where: str, folder: Path) -> Sample:
    try:
        content: Any = json.loads(line)
    except ValueError as error:
        raise UsageError("{where} is not JSON: {why}.", where=where, why=error) from error
    known = {"image", "question", "answer"}
    if not isinstance(content, dict) or not set(content) <= known or "question" not in content:
        raise UsageError(
            "{where} is not an object with question and, if needed, image and answer.",
            hint="Like {example}.",
            where=where,
            example='{"image": "invoice.png", "question": "What is the sum?", "answer": "9"}',
        )
    if not all(isinstance(value, str) for value in content.values()):
        raise UsageError("image, question and answer must be strings in {where}.", where=where)
    image = folder / content["image"] if content.get("image") else None
    return Sample(question=content["question"], answer=content.get("answer", ""), image=image)


def identified(
    samples: Sequence[Sample], *, decoded: Callable[[OpenedImage], object] = lambda _: None
) -> list[Sample]:
    """Return the samples with the hashes of their pictures.

    decoded  called with each picture while it is decoded

    Large pictures take long to decode, and many of them need too much memory to stay decoded. So
    each file is decoded once for its hash, however many samples show it, and again only when its
    pixels are needed, unless `decoded` keeps them (SamplePixels). Raises ImageError.
    """
    known: dict[str | int, str] = {}

    def hash_of(image: ImageSource) -> str:
        key = source_key(image)
        if key not in known:
            picture = open_image(image)
            decoded(picture)
            known[key] = picture.sha256
        return known[key]

    return [
        sample
        if sample.image is None or sample.picture is not None
        else replace(sample, picture=hash_of(sample.image))
        for sample in samples
    ]


def source_key(image: ImageSource) -> str | int:
    """Return a key that is equal for the same file, and for the same picture in memory."""
    return str(image) if isinstance(image, str | Path) else id(image)


def in_fixed_order(
    samples: Sequence[Sample], *, decoded: Callable[[OpenedImage], object] = lambda _: None
) -> list[Sample]:
    """Return samples sorted by content, those of one picture together, with identified pictures.

    decoded  as for `identified`

    The same samples then give the same result in any order.
    """

    def key(sample: Sample) -> tuple[str, str]:
        return sample.picture or "", json.dumps([sample.question, sample.answer, sample.history])

    return sorted(identified(samples, decoded=decoded), key=key)


def identify_samples(samples: Sequence[Sample]) -> str:
    """Return a hash of everything in the samples, including the decoded pictures."""
    digest = hashlib.sha256()
    for sample in identified(samples):
        content = [sample.picture or "", sample.question, sample.answer, sample.history]
        digest.update(json.dumps(content).encode() + b"\n")
    return digest.hexdigest()


def opened(sample: Sample) -> OpenedImage | None:
    """Return the opened picture of a sample; raises ImageError."""
    return None if sample.image is None else open_image(sample.image)


def after_mark(answer: str) -> str:
    """Return an answer as it follows "Answer:", with the space that past turns have there."""
    return answer if answer[:1].isspace() else f" {answer}"


def tokenize(sample: Sample, tokenizer: Tokenizer, config: ModelConfig) -> SampleTokens:
    """Return the prompt as the engine builds it, followed by the answer and its end token.

    An answer that is too long for the context is cut off. Raises PromptTooLongError.
    """
    prompt = encode_prompt(
        tokenizer,
        config,
        sample.question,
        history=sample.history,
        has_image=sample.image is not None,
        template=sample.template,
        max_new_tokens=1,
    )
    end = config.eos_token_ids[0]
    answer = (
        [*tokenizer.encode(after_mark(sample.answer)), end][: prompt.room] if sample.answer else []
    )
    tail = np.array([answer], dtype=np.int64).reshape(1, -1)
    ids = np.hstack([prompt.input_ids, tail])
    types = np.hstack([prompt.token_type_ids, np.zeros_like(tail)])
    return SampleTokens(
        input_ids=ids,
        token_type_ids=types,
        position_ids=derive_position_ids(types),
        vision_mask=choose_vision_expert(types),
        scored=prompt.tokens - 1,
    )
