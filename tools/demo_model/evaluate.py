"""Exact match per task on held-out pictures, by teacher forcing.

An answer counts when every token of it and the end token have the highest logit; this equals
greedy decoding of the same weights.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from safetensors.torch import load_file
from tokenizers import Tokenizer

from tools.demo_model.batches import Encoder, make_batch, make_encoder
from tools.demo_model.network import Dims, Weights, encode_patches, project
from tools.demo_model.objectives import answer_logits

TEXT_TOKENS = 104
IMAGES_PER_BATCH = 48


@dataclass(frozen=True, kw_only=True)
class Score:
    """How many questions of one task there were and how many were answered exactly.

    commonest  how often the commonest true answer occurs: what a constant answer would score
    """

    task: str
    questions: int
    right: int
    commonest: int

    @property
    def exact_match(self) -> float:
        """Fraction of exact answers."""
        return self.right / max(1, self.questions)


def evaluate(weights: Weights, dims: Dims, encoder: Encoder, seed: int, images: int) -> list[Score]:
    """Score held-out questions about `images` pictures, sorted by task."""
    answers: dict[str, Counter[str]] = {}
    right: Counter[str] = Counter()
    dtype = weights["model.vision.boi"].dtype
    for start in range(0, images, IMAGES_PER_BATCH):
        count = min(IMAGES_PER_BATCH, images - start)
        batch = make_batch("held-out", seed * 1000 + start, count, TEXT_TOKENS, dims, encoder)
        text = batch.text
        assert text is not None
        with torch.inference_mode():
            seen = encode_patches(weights, dims, batch.patches.to(dtype))
            features = project(weights, dims, seen)
            logits, _ = answer_logits(weights, dims, text, features, encoder.bos)
        wrong = (logits.argmax(-1) != text.answer_ids).long()
        errors = torch.zeros(len(text.asked), dtype=torch.long).index_add_(0, text.owner, wrong)
        for one, error in zip(text.asked, errors.tolist(), strict=True):
            answers.setdefault(one.task, Counter())[one.answer] += 1
            right[one.task] += error == 0
    return [
        Score(task=task, questions=given.total(), right=right[task], commonest=max(given.values()))
        for task, given in sorted(answers.items())
    ]


def summarise(scores: list[Score]) -> Score:
    """Join all tasks."""
    return Score(
        task="all",
        questions=sum(score.questions for score in scores),
        right=sum(score.right for score in scores),
        commonest=max(score.commonest for score in scores),
    )


def _row(score: Score) -> dict[str, object]:
    return {
        "task": score.task,
        "questions": score.questions,
        "exact_match": round(score.exact_match, 4),
        "constant_answer": round(score.commonest / score.questions, 4),
    }


def main() -> None:
    """Score a checkpoint folder and print a table, or write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="checkpoint folder with tokenizer.json")
    parser.add_argument("--seed", type=int, default=9001, help="seed of the held-out questions")
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    options = parser.parse_args()
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[options.dtype]
    stored = load_file(options.folder / "model.safetensors")
    weights = {name: tensor.to(dtype) for name, tensor in stored.items()}
    encoder = make_encoder(Tokenizer.from_file(str(options.folder / "tokenizer.json")))
    scores = evaluate(weights, Dims(), encoder, options.seed, options.images)
    total = summarise(scores)
    for score in (*scores, total):
        print(f"{score.task:32} {score.questions:6d} {100 * score.exact_match:6.1f} %")
    if options.json:
        rows = [_row(score) for score in (*scores, total)]
        content = {
            "what": "exact match by teacher forcing on held-out pictures and strings",
            "dtype": options.dtype, "seed": options.seed, "images": options.images, "tasks": rows,
        }  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
