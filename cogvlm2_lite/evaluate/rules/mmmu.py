"""MMMU: the letter of a choice question, and whether the answer to an open question is right."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cogvlm2_lite.evaluate.rules import given, mmbench

DISCIPLINES: Mapping[str, tuple[str, ...]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
"""The subjects of each discipline, in the order of the official table."""

CHOICE = "multiple-choice"

_MARKS = ",.!?;:'"
_FEW_WORDS = 5
"""In answers with more words, the text of an option counts."""

Value = str | float
"""What an open answer is compared as."""


def official_choice(*, response: object, options: Sequence[object]) -> dict[str, str | None]:
    """Return the letter that the official program reads; None where it takes a random one."""
    return {"letter": choose(given(response), lettered(options))}


def vlmevalkit_choice(*, response: object, options: Sequence[object]) -> dict[str, str | None]:
    """Return the letter that VLMEvalKit reads without a judge."""
    return mmbench.vlmevalkit(prediction=response, options=lettered(options))


def vlmevalkit_2024_choice(*, response: object, options: Sequence[object]) -> dict[str, str | None]:
    """Return the letter that VLMEvalKit read in 2024."""
    return mmbench.vlmevalkit_2024(prediction=response, options=lettered(options))


def lettered(options: Sequence[object]) -> dict[str, str]:
    """Return options by their letters. Raises ValueError for more than there are letters."""
    if len(options) > len(string.ascii_uppercase):
        raise ValueError(f"{len(options)} options are more than there are letters")
    return dict(zip(string.ascii_uppercase, map(str, options), strict=False))


def choose(response: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of a response by the official rules, or None if it has no letter.

    The last of several letters counts, also if it is the one that the response rejects.
    """
    for mark in _MARKS:
        response = response.strip(mark)
    response = f" {response} "
    for form in ("({})", " {} "):
        if found := _last(response, {letter: form.format(letter) for letter in options}):
            return found
    if len(response.split()) <= _FEW_WORDS:
        return None
    return _last(response.lower(), {letter: text.lower() for letter, text in options.items()})


def _last(response: str, texts: Mapping[str, str]) -> str | None:
    """Return the letter whose text occurs last; the first letter of equals; None if none occurs."""
    places = {letter: response.rfind(text) for letter, text in texts.items()}
    best = max(places, key=places.__getitem__, default=None)
    return None if best is None or places[best] < 0 else best


def official_open(*, response: object, answer: object) -> bool:
    """Return whether the official program counts the response to an open question as right."""
    return is_right(given(response), answer)


def vlmevalkit_open(*, response: object, answer: object) -> bool:
    """Return whether VLMEvalKit counts it: the answer is option A, and "Other Answers" is B.

    A list of answers becomes its Python text, which hardly any response contains.
    """
    return mmbench.choose(str(response), _as_options(answer)).letter == "A"


def vlmevalkit_2024_open(*, response: object, answer: object) -> bool:
    """Return whether VLMEvalKit counted it in 2024."""
    return mmbench.choose_2024(str(response), _as_options(answer)).letter == "A"


def _as_options(answer: object) -> dict[str, str]:
    return {"A": str(answer), "B": "Other Answers"}


def is_right(response: str, answer: object) -> bool:
    """Return whether a response contains a text of the answer, or a number that equals it."""
    answers = answer if isinstance(answer, list | tuple) else [answer]
    wanted = [value for text in answers for value in _values(str(text))]
    texts = [value for value in wanted if isinstance(value, str)]
    numbers = [value for value in wanted if not isinstance(value, str)]
    return any(
        any(text in value for text in texts) if isinstance(value, str) else value in numbers
        for value in parse_open(response)
    )


def parse_open(response: str) -> list[Value]:
    """Return the texts and numbers of a response that are compared with the answer."""
    rests = _rests(response)
    numbers = [number for rest in rests for number in _numbers(rest)]
    return list(dict.fromkeys(value for text in [*rests, *numbers] for value in _values(text)))


_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")


def _rests(response: str) -> list[str]:
    """Return the ends of the lines that may hold the answer; the whole response without any."""
    response = response.strip().strip(".").lower()
    lines = response.split("\n")
    found = []
    for number, line in enumerate(lines):
        indicators = (*_INDICATORS, "=") if number == len(lines) - 1 else _INDICATORS
        rest = _shortest(
            line.rpartition(indicator)[2].strip() for indicator in indicators if indicator in line
        )
        if rest and rest not in _TRIVIAL:
            found.append(rest)
    return found or [response]


def _shortest(rests: Iterable[str]) -> str:
    """Return the shortest rest. The next replaces an empty one, as in the official program."""
    best = ""
    for rest in rests:
        if not best or len(rest) < len(best):
            best = rest
    return best


_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""Numbers with groups of digits, with an exponent, and others."""


def _numbers(text: str) -> list[str]:
    return [number for pattern in _NUMBERS for number in pattern.findall(text)]


def _values(text: str) -> list[Value]:
    """Return a number rounded to two places, or a text in lower case.

    A single character has a blank on either side, so that it does not match inside of words.
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def subject_of(question: str) -> str:
    """Return the subject in a question's id, such as "validation_Art_Theory_12"."""
    return "_".join(question.split("_")[1:-1])


def official_total(
    *, answers: Mapping[str, Mapping[str, Any]], predictions: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Return the official table: number and accuracy by subject, by discipline and overall.

    answers      by id: question_type and ground_truth
    predictions  by id: the letter, or the text for an open question
    Questions without a prediction are not counted, as in the official program. Raises ValueError
    for a prediction to a question that its subject does not have.
    """
    known = {subject_of(question) for question in answers}
    right: dict[str, list[bool]] = {}
    for question, prediction in predictions.items():
        subject = subject_of(question)
        if subject not in known or not any(subject in group for group in DISCIPLINES.values()):
            continue
        if question not in answers:
            raise ValueError(f"there is no question {question}")
        right.setdefault(subject, []).append(_counts(answers[question], prediction))
    table: dict[str, dict[str, float]] = {}
    for discipline, subjects in DISCIPLINES.items():
        there = [subject for subject in subjects if subject in right]
        table[f"Overall-{discipline}"] = _row([right[subject] for subject in there])
        table |= {subject: _row([right[subject]]) for subject in there}
    table["Overall"] = _row(list(right.values()))
    return table


def _counts(answer: Mapping[str, Any], prediction: object) -> bool:
    truth = answer["ground_truth"]
    if answer["question_type"] != CHOICE:
        return is_right(given(prediction), truth)
    return prediction in truth if isinstance(truth, list) else prediction == truth


def _row(subjects: Sequence[Sequence[bool]]) -> dict[str, float]:
    number = sum(map(len, subjects))
    return {"num": number, "acc": round(_mean(subjects), 3) if number else 0}


def _mean(subjects: Sequence[Sequence[bool]]) -> float:
    """Return the mean over all questions, in the order of operations of the official program."""
    number = sum(map(len, subjects))
    return sum(sum(one) / len(one) * len(one) for one in subjects) / number
