"""Compares two model folders: their sizes, and their next-token probabilities."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.config import read_config
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.replan import MAY_BE_OUT_OF_MEMORY, out_of_memory
from cogvlm2_lite.engine.runtime import Result, Steps
from cogvlm2_lite.errors import CheckpointError, DoesNotFitError, UsageError
from cogvlm2_lite.evaluate.metrics import Summary, TokenComparison, summarise
from cogvlm2_lite.evaluate.score import Reference, prepare
from cogvlm2_lite.events import Finished, Progress
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.samples.samples import Sample
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.catalog import Catalog

ANSWER_TOKENS = 64
"""Maximum length of the answers that the reference writes itself."""

Open = Callable[[Path], Model]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """The sizes of a folder's tensors.

    nbytes           of all tensors in the files, companions included
    bits_per_weight  over all weights, those that stay in 16 bits included
    kinds            bytes by storage kind
    parts            bytes by part of the model
    """

    nbytes: int
    bits_per_weight: float
    kinds: dict[str, int]
    parts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class CompareProgress:
    """The progress of the comparison.

    model         the folder that is measured now
    share         of this folder's work, 0 to 1
    seconds_left  of this folder's work
    """

    model: Path
    share: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result. The reference wrote `written` of the answers; the others were given.

    notices  how pictures were read, where a person would not expect it, with their names
    adapter  acted on the other model; None: none did
    """

    reference: Path
    other: Path
    weights: tuple[Weight, Weight]
    written: int
    summary: Summary
    tokens: TokenComparison
    notices: tuple[Text, ...] = ()
    adapter: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what `compare --json` prints; docs/format.md describes it."""
        names = (str(self.reference), str(self.other))
        other = {"folder": names[1], **dataclasses.asdict(self.weights[1])}
        return {
            "reference": {"folder": names[0], **dataclasses.asdict(self.weights[0])},
            "other": other if self.adapter is None else {**other, "adapter": self.adapter},
            "answers_written_by_reference": self.written,
            **self.summary.as_dict(),
            "notices": list(self.notices),
        }


def compare(
    reference: Path, other: Path, samples: Sequence[Sample], open_model: Open
) -> Generator[CompareProgress, None, Comparison]:
    """Compare `other` with `reference` on the answers of samples; yields CompareProgress.

    The two models are never in memory at the same time. For a sample without an answer the
    reference writes one, greedily. Raises UsageError for folders that can't be compared,
    CheckpointError, ImageError.
    """
    (found,) = yield from compare_each(reference, other, samples, open_model, [None])
    return found


def compare_each(
    reference: Path,
    other: Path,
    samples: Sequence[Sample],
    open_model: Open,
    adapters: Sequence[str | None],
    open_reference: Open | None = None,
) -> Generator[CompareProgress, None, list[Comparison]]:
    """Do the same as `compare` with `other` and each of its adapters.

    adapters        their names; None: without an adapter
    open_reference  opens the reference; None: `open_model` does
    """
    config = check_comparable(reference, other)
    catalogs = [Catalog.open(folder, read_config(folder)) for folder in (reference, other)]
    tokenizer = Tokenizer.from_folder(reference)
    open_reference = _without_adapter(open_reference or open_model)
    with_answers = yield from _answered(reference, samples, open_reference)
    asked = prepare(with_answers, tokenizer, config)
    with Reference(asked, config) as kept:
        yield from _with(reference, open_reference, kept.fill)
        measured = yield from _with(other, open_model, partial(_with_each, kept, adapters))
    notices = tuple(
        Text("{file}: {notice}", file=escape_line(one.image.name), notice=notice)
        for one in asked
        if one.image is not None
        for notice in one.image.notices
    )
    return [
        Comparison(
            reference=reference,
            other=other,
            weights=(weigh(catalogs[0]), weigh(catalogs[1])),
            written=sum(not sample.answer for sample in samples),
            summary=summarise(tokens),
            tokens=tokens,
            notices=notices,
            adapter=adapter,
        )
        for adapter, tokens in zip(adapters, measured, strict=True)
    ]


def _without_adapter(open_model: Open) -> Open:
    def opened(folder: Path) -> Model:
        model = open_model(folder)
        model.adapter = None
        return model

    return opened


def _with_each(
    kept: Reference, adapters: Sequence[str | None], model: Model
) -> Steps[list[TokenComparison]]:
    """Compare the model with each adapter; yields Progress over all of them."""
    found = []
    for number, adapter in enumerate(adapters):
        model.adapter = adapter
        steps = kept.compare(model)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                found.append(end.value)
                break
            done = number * step.total + step.done
            yield structs.replace(step, done=done, total=len(adapters) * step.total)
    return found


def check_comparable(reference: Path, other: Path) -> ModelConfig:
    """Return the config of both folders; UsageError if tokenizers or shapes differ."""
    ours, theirs = read_config(reference), read_config(other)
    mine, other_values = ours.numbers(), theirs.numbers()
    for name in mine:
        if mine[name] != other_values[name]:
            raise UsageError(
                "{reference} and {other} have different architectures: {name} is {value} in the "
                "first and {found} in the second.",
                hint="Compare a checkpoint with folders that were made from it.",
                reference=reference,
                other=other,
                name=name,
                value=mine[name],
                found=other_values[name],
            )
    if _tokenizer_hash(reference) != _tokenizer_hash(other):
        raise UsageError(
            "{reference} and {other} have different tokenizers, so their answers can't be "
            "compared.",
            hint="Compare a checkpoint with folders that were made from it.",
            reference=reference,
            other=other,
        )
    return ours


def weigh(catalog: Catalog) -> Weight:
    """Return the sizes of a folder."""
    kinds: dict[str, int] = {}
    for tensor in catalog.tensors.values():
        kinds[tensor.kind] = kinds.get(tensor.kind, 0) + tensor.nbytes
    weights = sum(tensor.spec.numel for tensor in catalog.tensors.values())
    return Weight(
        nbytes=catalog.nbytes,
        bits_per_weight=8 * catalog.nbytes / weights,
        kinds=dict(sorted(kinds.items())),
        parts={part.value: nbytes for part, nbytes in catalog.bytes_by_part().items()},
    )


def _tokenizer_hash(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(
            "{file} can't be read: {why}.",
            hint="Copy it from where the weights came from.",
            file=folder / "tokenizer.json",
            why=error.strerror or error,
        ) from error


def _with(
    folder: Path, open_model: Open, work: Callable[[Model], Steps[Result]]
) -> Generator[CompareProgress, None, Result]:
    """Open a folder, work with the model, and release its memory."""
    model = open_model(folder)
    try:
        return (yield from _timed(folder, work(model)))
    except MAY_BE_OUT_OF_MEMORY as error:
        if not out_of_memory(error):
            raise
        raise DoesNotFitError(
            "Memory ran out while {folder} was used: {why}",
            hint="Close other programs, or allow less with --vram or --ram: more is then streamed.",
            folder=folder.name,
            why=error,
        ) from error
    finally:
        model.runtime.residency.release()


def _answered(
    reference: Path, samples: Sequence[Sample], open_model: Open
) -> Generator[CompareProgress, None, list[Sample]]:
    """Let the reference answer samples without an answer; drop those that get an empty one."""
    missing = sum(not sample.answer for sample in samples)
    if not missing:
        return list(samples)
    model, began, done = open_model(reference), time.monotonic(), 0
    found: list[Sample] = []
    for sample in samples:
        if sample.answer:
            found.append(sample)
            continue
        answer = _write(model, sample)
        if answer:
            found.append(dataclasses.replace(sample, answer=answer))
        done += 1
        spent = time.monotonic() - began
        left = spent / done * (missing - done)
        yield CompareProgress(model=reference, share=done / missing, seconds_left=left)
    model.runtime.residency.release()
    return found


def _write(model: Model, sample: Sample) -> str:
    sampling = Sampling(max_new_tokens=ANSWER_TOKENS)
    *_, last = model.answer(sample.question, sample.image, sample.history, sampling=sampling)
    assert isinstance(last, Finished)
    return last.text


def _timed(folder: Path, steps: Steps[Result]) -> Generator[CompareProgress, None, Result]:
    """Pass on the steps of the work, with the expected remaining time."""
    began = time.monotonic()
    while True:
        try:
            progress: Progress = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        spent = time.monotonic() - began
        left = spent / progress.done * (progress.total - progress.done)
        yield CompareProgress(model=folder, share=progress.done / progress.total, seconds_left=left)
