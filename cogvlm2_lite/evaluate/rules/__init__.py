"""The rules of the benchmarks: how their authors, and VLMEvalKit, score one answer.

One module per benchmark. Nothing here reads a file. The names of rule sets:

official         the program of the benchmark's authors, or of its competition
vlmevalkit       VLMEvalKit of 2026-08 (e8e78f05)
vlmevalkit_2024  VLMEvalKit of 2024-05-25 (45751449), when it first had CogVLM2

The functions of official rules take texts only and raise ValueError for a missing answer, where the
programs of the authors fail. Those of VLMEvalKit take a missing answer as the text "None".
"""

from __future__ import annotations

OFFICIAL = "official"
VLMEVALKIT = "vlmevalkit"
VLMEVALKIT_2024 = "vlmevalkit_2024"


def given(answer: object) -> str:
    """Return an answer, which must be a text. Raises ValueError."""
    if not isinstance(answer, str):
        raise ValueError(f"the official rules need the text of an answer, not {answer!r}")
    return answer


def references(answers: object) -> list[str]:
    """Return the texts of references: a text is a list of one. Raises ValueError for others."""
    if isinstance(answers, str):
        return [answers]
    if not isinstance(answers, list | tuple):
        raise ValueError(f"references must be a list, not {answers!r}")
    return [str(answer) for answer in answers]
