"""Measures how far a model's next-token probabilities are from another's, on a benchmark."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.compare import CompareProgress, Open, compare
from cogvlm2_lite.evaluate.items import plain_rgb
from cogvlm2_lite.evaluate.job import Job
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.work import Question
from cogvlm2_lite.inputs.image import opened_image
from cogvlm2_lite.samples.samples import Sample

_SHARE = 10
"""One in so many pictures takes part: both models encode each of them again."""
MOST_PICTURES = 32
"""Pictures that take part at most."""


def measure_kl(
    reference: Path, other: Path, job: Job, answers: Mapping[str, Answered], open_model: Open
) -> Generator[CompareProgress, None, Measured | None]:
    """Return the mean KL divergence of `other` from `reference`; yields CompareProgress.

    answers  of the reference: both models read them as the text that follows

    Returns None if no question has an answer with text. Raises what `compare` raises.
    """
    samples = list(_samples(job, answers))
    if not samples:
        return None
    found = yield from compare(reference, other, samples, open_model)
    return found.summary.kl_mean


def _samples(job: Job, answers: Mapping[str, Answered]) -> Iterator[Sample]:
    pictures: dict[str, list[Question]] = {}
    for question in job.planned.questions:
        answered = answers.get(question.item.id)
        if question.picture and answered and answered.answer and not answered.error:
            pictures.setdefault(question.picture, []).append(question)
    count = min(max(len(pictures) // _SHARE, 1), MOST_PICTURES)
    for questions in islice(pictures.values(), count):
        picture = questions[0].item.pictures[0]
        try:
            rgb = plain_rgb(picture.read(), picture.name)
        except ImageError:
            continue
        image = opened_image(
            np.array(rgb, dtype=np.uint8),
            format="memory",
            original_size=rgb.size,
            name=picture.name,
        )
        for question in questions:
            yield Sample(
                question=question.query.text,
                answer=answers[question.item.id].answer,
                image=image,
                template=question.query.template,
            )
