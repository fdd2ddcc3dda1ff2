"""How long the questions of a benchmark will take, before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.engine.outlook import Outlook
from cogvlm2_lite.evaluate.work import Expected

ANSWER_TOKENS: Mapping[str, int] = {
    "textvqa": 5, "docvqa": 8, "chartqa": 4, "ocrbench": 12, "mmmu": 3, "mmvet": 120,
    "mmbench": 3, "mmbench_cn": 3, "vqa": 5,
}  # fmt: skip
"""Tokens of a typical answer, for the expected time."""


def expected(outlook: Outlook, tokens: float, texts: float = 1) -> Expected:
    """Return the expected seconds of a picture and a question.

    tokens  of an answer, as in ANSWER_TOKENS
    texts   that are computed for a question: itself, and those whose loss is measured
    """
    picture_s = outlook.seconds(Phase.ENCODE) + outlook.seconds(Phase.PREFILL_IMAGE)
    question_s = texts * outlook.seconds(Phase.PREFILL_TEXT)
    return Expected(
        picture_s=picture_s, question_s=question_s + tokens * outlook.seconds(Phase.DECODE)
    )
