"""Computes a model's next-token log-probabilities at every token of given answers.

Many pictures and questions go through the model layer by layer (`engine/layer_major.py`), so a
39 GB checkpoint that is streamed from disk is read once per wave of pictures, within the memory
plan.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.layer_major import PrefixGroup, encode_each, prefill_each
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.runtime import Steps
from cogvlm2_lite.errors import DoesNotFitError, FolderError, UsageError
from cogvlm2_lite.evaluate import metrics
from cogvlm2_lite.events import Cancel, Progress
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.samples.samples import Sample, SampleTokens, source_key, tokenize
from cogvlm2_lite.units import GIB, format_bytes

WAVE_BYTES = GIB
"""Of hidden states that are kept in host memory between two blocks."""
_ROWS = 32
"""Positions whose logits are computed at a time: 16 MB of float32 for the 19B vocabulary."""


@dataclass(frozen=True, kw_only=True)
class PictureSamples:
    """All samples about one picture, or one sample without a picture."""

    number: int
    """From 0, in the order of the samples."""
    image: OpenedImage | None
    answers: tuple[tuple[int, SampleTokens], ...]
    """Number of the sample, and its tokens."""

    @property
    def positions(self) -> int:
        """Number of answer tokens."""
        return sum(len(tokens.targets) for _, tokens in self.answers)

    def group(self, config: ModelConfig, features: torch.Tensor | None) -> PrefixGroup:
        """Return the samples split after the picture, which they share."""
        shared = 0 if self.image is None else 1 + config.vision.image_tokens
        prefix = None if self.image is None else _chunk(self.answers[0][1], 0, shared)
        suffixes = [_chunk(tokens, shared, tokens.input_ids.shape[1]) for _, tokens in self.answers]
        return PrefixGroup(prefix=prefix, features=features, suffixes=suffixes)


def prepare(
    samples: Sequence[Sample], tokenizer: Tokenizer, config: ModelConfig
) -> list[PictureSamples]:
    """Tokenize samples and group those about the same picture.

    Raises UsageError for a sample without answer, ImageError and PromptTooLongError.
    """
    found: dict[object, tuple[OpenedImage | None, list[tuple[int, SampleTokens]]]] = {}
    pictures: dict[str | int, OpenedImage] = {}  # many samples may show one file
    for number, sample in enumerate(samples):
        if not sample.answer:
            raise UsageError(
                "Sample {number} has no answer, so nothing can be measured.", number=number + 1
            )
        image = None
        if sample.image is not None:
            source = source_key(sample.image)
            image = pictures[source] = pictures.get(source) or open_image(sample.image)
        key = (number,) if image is None else image.sha256
        tokens = tokenize(sample, tokenizer, config)
        found.setdefault(key, (image, []))[1].append((number, tokens))
    return [
        PictureSamples(number=number, image=image, answers=tuple(answers))
        for number, (image, answers) in enumerate(found.values())
    ]


def answer_logprobs(
    model: Model, asked: Sequence[PictureSamples], cancel: Cancel
) -> Generator[Progress, None, Iterator[tuple[int, SampleTokens, NDArray[np.float64]]]]:
    """Run one wave with the adapter that the model has; yields Progress per block.

    Returns an iterator over the samples, some rows at a time: the sample's number, its tokens, and
    the log-probabilities [rows, vocab] at the answer's next positions.
    """
    runtime, config = model.runtime, model.config
    with torch.inference_mode():
        images = [one.image for one in asked if one.image is not None]
        features = iter(
            (yield from encode_each(runtime, images, cancel, model.adapter)) if images else []
        )
        groups = [one.group(config, None if one.image is None else next(features)) for one in asked]
        hidden = yield from prefill_each(runtime, groups, cancel, model.adapter)
    return _rows(model, asked, groups, hidden)


def _rows(
    model: Model,
    asked: Sequence[PictureSamples],
    groups: Sequence[PrefixGroup],
    hidden: Sequence[Sequence[torch.Tensor]],
) -> Iterator[tuple[int, SampleTokens, NDArray[np.float64]]]:
    for one, group, suffixes in zip(asked, groups, hidden, strict=True):
        for (number, tokens), suffix in zip(one.answers, suffixes, strict=True):
            first = tokens.scored - group.shared
            for start in range(first, first + len(tokens.targets), _ROWS):
                last = min(start + _ROWS, first + len(tokens.targets))
                with torch.inference_mode():
                    found = model.runtime.compute_logits(suffix[:, start:last])[0].cpu().numpy()
                yield number, tokens, metrics.log_softmax(found)


def waves_of(
    asked: Sequence[PictureSamples], config: ModelConfig, wave_bytes: int = WAVE_BYTES
) -> list[list[PictureSamples]]:
    """Return groups whose hidden states, at 4 bytes per number, fit into wave_bytes."""
    waves: list[list[PictureSamples]] = [[]]
    filled = 0
    for one in asked:
        vision = 0 if one.image is None else config.vision.num_positions * config.vision.hidden_size
        text = sum(tokens.input_ids.shape[1] for _, tokens in one.answers) * config.hidden_size
        nbytes = 4 * (vision + text)
        if waves[-1] and filled + nbytes > wave_bytes:
            waves.append([])
            filled = 0
        waves[-1].append(one)
        filled += nbytes
    return waves


class Reference:
    """A model's log-probabilities at every token of the answers, kept in a temporary file.

    A context manager; the file is deleted at the end.
    """

    def __init__(
        self,
        asked: Sequence[PictureSamples],
        config: ModelConfig,
        folder: Path | None = None,
        *,
        wave_bytes: int = WAVE_BYTES,
    ) -> None:
        """Create the file. Raises UsageError without an answer, DoesNotFitError without disk space.

        folder      of the file; None: the system's folder for temporary files
        wave_bytes  of hidden states that one wave keeps
        """
        self.waves = waves_of(asked, config, wave_bytes)
        self._asked = asked
        shape = (sum(one.positions for one in asked), config.vocab_size)
        if not shape[0]:
            raise UsageError("There is no sample with an answer.")
        try:
            _check_room(4 * shape[0] * shape[1], Path(folder or tempfile.gettempdir()))
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in __exit__
        except OSError as error:
            raise FolderError(
                "There is no folder for temporary files: {why}.",
                hint="Set the environment variable TMPDIR to a folder that can be written.",
                why=error.strerror,
            ) from error
        self._kept = np.memmap(self._file, dtype=np.float32, mode="w+", shape=shape)

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._kept
        self._file.close()

    def fill(self, model: Model, cancel: Cancel | None = None) -> Steps[None]:
        """Store the log-probabilities of the reference model; yields Progress over all waves."""
        place = 0
        for rows in self._over(model, cancel or Cancel()):
            if isinstance(rows, Progress):
                yield rows
                continue
            found = rows[2]
            self._kept[place : place + len(found)] = found
            place += len(found)

    def compare(self, model: Model, cancel: Cancel | None = None) -> Steps[metrics.TokenComparison]:
        """Compare another model with the reference; yields Progress over all waves."""
        columns: list[tuple[NDArray[np.float64], ...]] = []
        pictures = {number: one.number for one in self._asked for number, _ in one.answers}
        place, seen = 0, dict.fromkeys(pictures, 0)
        for rows in self._over(model, cancel or Cancel()):
            if isinstance(rows, Progress):
                yield rows
                continue
            number, tokens, given = rows
            kept = self._kept[place : place + len(given)]
            targets = tokens.targets[seen[number] : seen[number] + len(given)]
            place, seen[number] = place + len(given), seen[number] + len(given)
            # Rounded like the stored ones, so that equal models have a KL of zero.
            found = given.astype(np.float32)
            first, second = kept.argmax(-1), found.argmax(-1)
            columns.append(
                (
                    metrics.divergence(kept, found),
                    first == second,
                    first == targets,
                    second == targets,
                    np.full(len(found), number),
                    np.full(len(found), pictures[number]),
                )
            )
        kl, agree, ours, theirs, answer, picture = (
            np.concatenate(column) for column in zip(*columns, strict=True)
        )
        return metrics.TokenComparison(
            kl=kl,
            agree=agree.astype(np.bool_),
            reference_right=ours.astype(np.bool_),
            other_right=theirs.astype(np.bool_),
            answer=answer.astype(np.int64),
            picture=picture.astype(np.int64),
        )

    def _over(
        self, model: Model, cancel: Cancel
    ) -> Iterator[Progress | tuple[int, SampleTokens, NDArray[np.float64]]]:
        layers = model.config.vision.num_hidden_layers + model.config.num_hidden_layers
        total = layers * len(self.waves)
        for number, wave in enumerate(self.waves):
            steps, done = answer_logprobs(model, wave, cancel), number * layers
            while True:
                try:
                    progress = next(steps)
                except StopIteration as end:
                    yield from end.value
                    break
                done += 1
                yield Progress(
                    phase=progress.phase, done=done, total=total, held_bytes=progress.held_bytes
                )


def _check_room(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DoesNotFitError(
            "The answers of the reference need {size} in {folder}, which has {free} free.",
            hint="Use fewer samples, or set the variable TMPDIR to another folder.",
            size=format_bytes(needed),
            folder=folder,
            free=format_bytes(free),
        )


def _chunk(tokens: SampleTokens, start: int, end: int) -> Chunk:
    def cut(values: NDArray[np.int64] | NDArray[np.bool_]) -> torch.Tensor:
        return torch.from_numpy(values[:, start:end].copy())

    pictured = tokens.token_type_ids[:, start:end] == 1
    return Chunk(
        input_ids=cut(tokens.input_ids),
        image_mask=torch.from_numpy(pictured.copy()),
        vision_mask=cut(tokens.vision_mask),
        position_ids=cut(tokens.position_ids),
        highest=int(tokens.position_ids[:, start:end].max()),
        has_image=bool(pictured.any()),
    )
