"""Write docs/quantization.md from benchmarks/results/: python tools/write_quantization_docs.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CALIBRATION = ROOT / "benchmarks" / "results" / "calibration.json"
RESULT = ROOT / "benchmarks" / "results" / "formats.json"
PAGE = ROOT / "docs" / "quantization.md"

_BAR = 28


def write() -> None:
    """Write the page."""
    PAGE.write_text(current(), encoding="utf-8")


def current() -> str:
    """Give the text that the results ask for."""
    formats, calibration = (
        json.loads(file.read_text(encoding="utf-8")) for file in (RESULT, CALIBRATION)
    )
    return render(formats, calibration)


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
that is drawn when no pictures are given, and unlike the pictures asked about here; the other
calibrated rows took pictures and questions like them, from the split that training saw. The
projector was chosen for int8 because of its row without calibration, on the same questions.

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
it is 5. Three samples in four are fitted to, the fourth judges.

| | demo model | harder twin |
| --- | ---: | ---: |
{_ingredients(calibration)}
On the twin, plain FP4 is nearer to the original than plain NF4 (its row): with such outliers the
order of the two formats is not settled either. There it is the order of the columns that brings
nearly all of the gain; on the demo model compensation alone brings it, and scale search adds
nothing that these brackets could show.

## What can be read from it

- Calibrated on pictures like those asked about, the same bytes have
  {_span(rows["NF4, calibrated"]["against_plain"])} times the KL of plain NF4 and
  {_span(rows["NF4, calibrated"]["against_fp4"])} times that of FP4.
- Calibrated on the built-in set, which is unlike those pictures, they have
  {_span(rows["NF4, calibrated, built-in set"]["against_plain"])} times that of plain NF4, and on
  one of the seeds more than plain NF4. Samples held out guard every matrix, and nothing guards the
  whole: measure with `compare`, and calibrate on pictures like your own.
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
`quantization_report.html` shows both. The result is plain NF4 (Dettmers and others,
arXiv 2305.14314), which every reader and kernel runs unchanged. The code is
`quantize/compensate.py`, `observe.py` and `calibrate.py`.

## What this page cannot tell

What calibration gains at full size, and what it costs there as a whole: neither the weights nor a
GPU were at hand. One figure, measured once by hand on made-up numbers: a matrix of 5,376 x 1,792
(the vision tower's) was rounded in 27.8 s on two cores, 5.2 CPU-seconds per million weights. At
that rate the 18.4 thousand million weights take about 13 hours of two such cores for the rounding
alone, so a GPU or patience is wanted; the work can be stopped and goes on.
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
