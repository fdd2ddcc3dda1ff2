"""The benchmarks: names, files, published numbers, and how long an answer may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cogvlm2_lite.evaluate.rules import mmmu


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark.

    name       as on the command line
    title      for people
    max_new_tokens  ceiling of an answer
    questions  of the whole set (MMBench: without rotations); None for a user's own questions
    pictures   how many different ones the whole set has, about
    stratum    the label that a subset keeps in proportion; "" for none
    """

    name: str
    title: str
    max_new_tokens: int
    questions: int | None = None
    pictures: int | None = None
    stratum: str = ""


BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            name="textvqa", title="TextVQA", max_new_tokens=64, questions=5000, pictures=3166
        ),
        Benchmark(name="docvqa", title="DocVQA", max_new_tokens=128, questions=5349, pictures=1286),
        Benchmark(
            name="chartqa", title="ChartQA", max_new_tokens=64, questions=2500, pictures=1500,
            stratum="split",
        ),
        Benchmark(
            name="ocrbench", title="OCRBench", max_new_tokens=256, questions=1000, pictures=930,
            stratum="category",
        ),
        Benchmark(
            name="mmmu", title="MMMU", max_new_tokens=256, questions=900, pictures=900,
            stratum="subject",
        ),
        Benchmark(name="mmvet", title="MM-Vet", max_new_tokens=1024, questions=218, pictures=200),
        Benchmark(
            name="mmbench", title="MMBench", max_new_tokens=256, questions=1164, pictures=1164,
            stratum="category",
        ),
        Benchmark(
            name="mmbench_cn", title="MMBench-CN", max_new_tokens=256, questions=1164,
            pictures=1164, stratum="category",
        ),
        Benchmark(name="vqa", title="VQA", max_new_tokens=64, stratum="category"),
    )
}  # fmt: skip
"""By name. "vqa" has the demo's questions and a user's own."""

DEMO = "demo-vqa"
"""The benchmark that ships with the package."""

NAMES = (*(name for name in BENCHMARKS if name != "vqa"), DEMO)
"""What the command line takes."""

CEILINGS: Mapping[str, int] = {name: one.max_new_tokens for name, one in BENCHMARKS.items()}
"""Tokens of an answer, at most, by benchmark."""

PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "cogvlm2-llama3-chat-19B": {
        "textvqa": 84.2, "docvqa": 92.3, "chartqa": 81.0, "ocrbench": 756, "mmmu": 44.3,
        "mmvet": 60.4, "mmbench": 80.5,
    },
    "cogvlm2-llama3-chinese-chat-19B": {
        "textvqa": 85.0, "docvqa": 88.4, "chartqa": 74.7, "ocrbench": 780, "mmmu": 42.8,
        "mmvet": 60.5, "mmbench": 78.9,
    },
}  # fmt: skip
"""The table of CogVLM2's README (2024-05-20), by released model. Split, prompt and decoding are not
published. OCRBench in hits of 1000, the others in points."""


DISCIPLINES: Mapping[str, str] = {
    subject: discipline for discipline, names in mmmu.DISCIPLINES.items() for subject in names
}
"""MMMU: the discipline of each subject."""


OCRBENCH_CATEGORIES = frozenset(
    (
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Digit String Recognition",
        "Non-Semantic Text Recognition",
        "Scene Text-centric VQA",
        "Doc-oriented VQA",
        "Key Information Extraction",
        "Handwritten Mathematical Expression Recognition",
    )
)
MMVET_CAPABILITIES = frozenset(("rec", "ocr", "know", "gen", "spat", "math"))


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """A published file.

    md5      of all its published editions
    instead  for a file without answers: the one that has them
    """

    benchmark: str
    md5: tuple[str, ...] = ()
    instead: str = ""


def _known(benchmark: str, *md5: str, instead: str = "") -> KnownFile:
    return KnownFile(benchmark=benchmark, md5=md5, instead=instead)


KNOWN_FILES: Mapping[str, KnownFile] = {
    "TextVQA_VAL.tsv": _known("textvqa", "b233b31f551bbf4056f2f955da3a92cd"),
    "DocVQA_VAL.tsv": _known("docvqa", "d5ee77e1926ff10690d469c56b73eabf"),
    "DocVQA_TEST.tsv": _known(
        "docvqa", "6a2f28cac26ef2d3447374e8c6f6c8e9", instead="DocVQA_VAL.tsv"
    ),
    "ChartQA_TEST.tsv": _known("chartqa", "c902e0aa9be5582a7aad6dcf52734b42"),
    "OCRBench.tsv": _known("ocrbench", "e953d98a987cc6e26ef717b61260b778"),
    "OCRBench.json": _known("ocrbench", "617c348b05f3cd1500417d550b6242ea"),
    "MMMU_DEV_VAL.tsv": _known(
        "mmmu", "585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"
    ),
    "MMMU_TEST.tsv": _known("mmmu", "c19875d11a2d348d07e5eb4bdf33166d", instead="MMMU_DEV_VAL.tsv"),
    "MMVet.tsv": _known("mmvet", "748aa6d4aa9d4de798306a63718455e3"),
    "MMBench_DEV_EN.tsv": _known("mmbench", "b6caf1133a01c6bb705cf753bb527ed8"),
    "MMBench_DEV_CN.tsv": _known("mmbench_cn", "08b8fc3324a5ed74155350f57be69fbd"),
    "MMBench_DEV_EN_V11.tsv": _known("mmbench", "30c05be8f2f347a50be25aa067248184"),
    "MMBench_DEV_CN_V11.tsv": _known("mmbench_cn", "593f9b5f6bea453d870a798b34ae4f37"),
    "MMBench_TEST_EN.tsv": _known(
        "mmbench", "6939fadb0ce626fefc0bdc9c64efc528", instead="MMBench_DEV_EN.tsv"
    ),
    "MMBench_TEST_CN.tsv": _known(
        "mmbench_cn", "7e1239baf0ee4c8b513e19705a0f317e", instead="MMBench_DEV_CN.tsv"
    ),
    "MMBench_TEST_EN_V11.tsv": _known(
        "mmbench", "8d1a704e791df6f5d9fb3ef782b65365", instead="MMBench_DEV_EN_V11.tsv"
    ),
    "MMBench_TEST_CN_V11.tsv": _known(
        "mmbench_cn", "156e6569f9547afb16603eca16e85373", instead="MMBench_DEV_CN_V11.tsv"
    ),
}
"""By name, in the order in which they are looked for. VLMEvalKit's TSV files, and OCRBench's JSON.

V11 of the two tests had other files before 2026-06-18, whose whole md5 is not known."""
