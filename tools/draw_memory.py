"""Write the tables of docs/memory.md and draw its picture: python tools/draw_memory.py

Everything comes from the released shapes, so it is the same on every computer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.architectures.architecture import Part, Phase
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.forecast.machine import Machine
from cogvlm2_lite.forecast.preview import PlannedModel, PlanPreview, preview, released_subject
from cogvlm2_lite.forecast.rates import Cpu, gpu_rates, named_card
from cogvlm2_lite.forecast.table import about, rate
from cogvlm2_lite.forecast.text import text
from cogvlm2_lite.memory.budget import Allowance, assumed_budgets, cpu_budget
from cogvlm2_lite.memory.inventory import Unit, by_part
from cogvlm2_lite.memory.plan import PhasePlan
from cogvlm2_lite.units import GIB, format_bytes

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "memory.md"
PICTURE = ROOT / "docs" / "images" / "memory.svg"
BEGIN = "<!-- written by python tools/draw_memory.py -->"
END = "<!-- end of what is written by tools/draw_memory.py -->"

GPU_GIB = (24, 16, 12, 8, 6, 4)
HOST_GIB = 32
CPU_GIB = 16
CPU = Cpu(cores=8, has_bf16=True, has_avx512=True, has_gemv=True)
CAPPED = "RTX 4090"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One computer: its name in the drawing, and the plan for it."""

    title: str
    subject: PlannedModel
    machine: Machine
    found: PlanPreview

    @property
    def phases(self) -> tuple[PhasePlan, ...]:
        return self.found.plan.devices[0].phases

    @property
    def budget_bytes(self) -> int:
        return self.found.plan.devices[0].budget.device_bytes

    def arrivals(self, phase: Phase) -> tuple[Unit, ...]:
        """Return the units that are copied in for a phase."""
        (arrivals,) = self.found.expected.arrivals[phase]
        return arrivals.units


def cases() -> list[Case]:
    """Return the plans for all computers of the page."""
    found = [_case(f"{gib} GiB GPU", _gpu(gib)) for gib in GPU_GIB]
    return [*found, _case(f"CPU, {CPU_GIB} GiB RAM", _cpu())]


def _case(title: str, machine: Machine) -> Case:
    subject = released_subject(COGVLM2.released)
    return Case(title=title, subject=subject, machine=machine, found=preview(subject, machine))


def _gpu(gib: int, card: str = "") -> Machine:
    allowance = Allowance(vram=(gib * GIB,), ram=HOST_GIB * GIB)
    return Machine(
        label=f"a GPU with {gib} GiB, {HOST_GIB} GiB of RAM",
        budgets=assumed_budgets([gib * GIB], allowance, 0),
        rates=(named_card(card).rates if card else gpu_rates("", gib * GIB),),
    )


def _cpu() -> Machine:
    allowance = Allowance(ram=CPU_GIB * GIB)
    return Machine(
        label=f"a CPU with {CPU_GIB} GiB of RAM",
        budgets=(cpu_budget(allowance, 0, assumed=True),),
        rates=(CPU.rates,),
        itemsize=CPU.itemsize,
        packed=CPU.packs,
    )


def write_page(page: str, found: Sequence[Case]) -> str:
    """Return the page with its generated part replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{_tables(found)}\n{END}{after}"


def _tables(found: Sequence[Case]) -> str:
    details = "\n".join(_details(case) for case in found)
    return f"{_overview(found)}\n\n{_capped()}\n\n## The plans in full\n\n{details}"


def _overview(found: Sequence[Case]) -> str:
    head = "| | resident weights in decode | copied for a new picture | for a token | "
    head += "peak | first token about a new picture | tokens/s |"
    rows = [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for case in found:
        expected = case.found.expected
        decode = next(p for p in case.phases if p.phase is Phase.DECODE)
        picture = (*case.arrivals(Phase.ENCODE), *case.arrivals(Phase.PREFILL_IMAGE))
        cells = (
            case.title,
            format_bytes(decode.resident_bytes),
            _bytes(picture),
            _bytes(case.arrivals(Phase.DECODE)),
            format_bytes(case.found.plan.peak_bytes),
            about(expected.first_token_s),
            rate(expected.tokens_per_s),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _bytes(units: Iterable[Unit]) -> str:
    count = sum(unit.nbytes for unit in units)
    return format_bytes(count) if count else "nothing"


def _capped() -> str:
    """Return the effect of memory alone: one card's rates under all limits."""
    rows = [
        f"The effect of memory alone, with the rates of one card ({CAPPED}):",
        "",
        "| limit | " + " | ".join(f"{gib} GiB" for gib in GPU_GIB) + " |",
        "| --- |" + " ---: |" * len(GPU_GIB),
    ]
    found = [
        preview(released_subject(COGVLM2.released), _gpu(gib, CAPPED)).expected for gib in GPU_GIB
    ]
    words = " | ".join(about(expected.first_token_s) for expected in found)
    tokens = " | ".join(rate(expected.tokens_per_s) for expected in found)
    return "\n".join([*rows, f"| first token | {words} |", f"| tokens/s | {tokens} |"])


def _details(case: Case) -> str:
    shown = text(case.subject, case.machine, case.found)
    return f"### {case.title}\n\n```text\n{shown}```\n"


# The drawing. Lengths in pixels.

WIDTH, PANEL, TOP, PLOT, GAP = 1040, 248, 74, 250, 110
BAR, STEP = 40, 50
PIXELS_PER_GIB = PLOT / 16
COLUMNS = 4

COLOURS: Mapping[str, tuple[str, str]] = {
    "lm_head": ("head", "lm_head"),
    "language": ("language", "language experts"),
    "vision": ("vision", "vision experts"),
    "tower": ("tower", "vision tower, projector"),
    "cache": ("cache", "key/value cache"),
    "work": ("work", "activations, buffers"),
}
_KINDS = {
    Part.LM_HEAD: "lm_head",
    Part.NORMS: "lm_head",
    Part.LANGUAGE_EXPERT: "language",
    Part.VISION_EXPERT: "vision",
    Part.PROJECTOR: "tower",
    Part.VISION: "tower",
}
_LABELS = {
    Phase.ENCODE: ("encode", "picture"),
    Phase.PREFILL_IMAGE: ("prefill", "picture"),
    Phase.PREFILL_TEXT: ("prefill", "text"),
    Phase.DECODE: ("decode", "a token"),
}
_STYLE = """\
  text { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 12px;
         fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .small { font-size: 11px; fill: #59636e; }
  .paper { fill: #ffffff; }
  .axis { stroke: #d1d9e0; stroke-width: 1; }
  .budget { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 5 3; }
  .limit { fill: #cf222e; font-size: 11px; }
  .head { fill: #56b4e9; stroke: #56b4e9; } .language { fill: #0072b2; stroke: #0072b2; }
  .vision { fill: #e69f00; stroke: #e69f00; } .tower { fill: #009e73; stroke: #009e73; }
  .cache { fill: #cc79a7; stroke: #cc79a7; } .work { fill: #8c959f; stroke: #8c959f; }
  .used, .kept { stroke: none; } .kept { fill-opacity: 0.35; }
  .comes { fill-opacity: 0.12; stroke-width: 1.2; stroke-dasharray: 3 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .small { fill: #9198a1; } .paper { fill: #0d1117; }
    .axis { stroke: #3d444d; } .budget { stroke: #ff7b72; } .limit { fill: #ff7b72; }
  }"""


def draw(found: Sequence[Case]) -> str:
    """Draw the plans as bars, one panel for each computer, and the legend in the last cell."""
    height = 2 * (TOP + PLOT + GAP) - 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Memory of the 19B model in each phase, for seven computers">',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="6"/>',
    ]
    for index, case in enumerate(found):
        lines += _panel(case, *_corner(index))
    lines += _legend(*_corner(len(found)))
    return "\n".join([*lines, "</svg>", ""])


def _corner(index: int) -> tuple[float, float]:
    row, column = divmod(index, COLUMNS)
    return 28 + column * PANEL, row * (TOP + PLOT + GAP - 20) + 8


def _panel(case: Case, left: float, top: float) -> Iterator[str]:
    expected = case.found.expected
    base = top + TOP + PLOT
    yield _text(left, top + 20, case.title, "title")
    speed = f"{rate(expected.tokens_per_s)} tokens/s"
    yield _text(
        left, top + 38, f"{speed}, first token after {about(expected.first_token_s)}", "small"
    )
    yield _text(left, top + 55, f"budget {case.budget_bytes / GIB:.1f} GiB", "limit")
    for gib in (0, 4, 8, 12, 16):
        y = base - gib * PIXELS_PER_GIB
        yield f'<path class="axis" d="M{left:.1f} {y:.1f}h{4 * STEP + 4}"/>'
        yield _text(left - 5, y + 4, str(gib), "small", "end")
    for index, phase in enumerate(case.phases):
        yield from _bar(case, phase, left + 9 + index * STEP, base)
    y = base - case.budget_bytes / GIB * PIXELS_PER_GIB
    if y > base - PLOT:
        yield f'<path class="budget" d="M{left:.1f} {y:.1f}h{4 * STEP + 4}"/>'


def _bar(case: Case, plan: PhasePlan, left: float, base: float) -> Iterator[str]:
    y = base
    for kind, style, count in _pieces(case, plan):
        height = count / GIB * PIXELS_PER_GIB
        y -= height
        shape = f'x="{left:.1f}" y="{y:.2f}" width="{BAR}" height="{height:.2f}"'
        yield f'<rect class="{COLOURS[kind][0]} {style}" {shape}/>'
    for line, word in enumerate(_LABELS[plan.phase]):
        yield _text(left + BAR / 2, base + 15 + 13 * line, word, "small", "middle")
    yield _text(left + BAR / 2, base + 45, f"{plan.peak_bytes / GIB:.1f}", "", "middle")
    coming = sum(unit.nbytes for unit in case.arrivals(plan.phase))
    if coming:
        yield _text(left + BAR / 2, base + 60, f"+ {coming / GIB:.1f}", "small", "middle")


def _pieces(case: Case, plan: PhasePlan) -> Iterator[tuple[str, str, int]]:
    """Yield the pieces of a bar from below: kind, style, bytes."""
    arriving = case.arrivals(plan.phase)
    coming = {unit.key for unit in arriving}
    there = [unit for unit in plan.resident if unit.key not in coming]
    used = [unit for unit in there if unit.part in plan.parts]
    kept = [unit for unit in there if unit.part not in plan.parts]
    yield from _by_kind(used, "used")
    yield ("cache", "used", plan.cache_bytes)
    yield ("work", "used", plan.scratch_bytes + plan.buffer_bytes + plan.spare_bytes)
    yield from _by_kind(kept, "kept")
    yield from _by_kind(arriving, "comes")


def _by_kind(units: Iterable[Unit], style: str) -> Iterator[tuple[str, str, int]]:
    sums: dict[str, int] = {}
    for part, count in by_part(units).items():
        sums[_KINDS[part]] = sums.get(_KINDS[part], 0) + count
    return ((kind, style, count) for kind, count in sums.items())


def _legend(left: float, top: float) -> Iterator[str]:
    y = top + 20.0
    yield _text(left, y, "GiB in memory in each phase", "title")
    for style, name in COLOURS.values():
        y += 24
        yield f'<rect class="{style} used" x="{left}" y="{y - 11}" width="22" height="14"/>'
        yield _text(left + 32, y, name)
    y += 12
    for style, words in (
        ("used", "full: in memory, used in this phase"),
        ("kept", "pale: in memory, for later phases"),
        ("comes", "dashed: copied in for this phase"),
    ):
        y += 24
        yield f'<rect class="language {style}" x="{left}" y="{y - 11}" width="22" height="14"/>'
        yield _text(left + 32, y, words)
    y += 30
    yield f'<path class="budget" d="M{left} {y - 4}h22"/>'
    yield _text(left + 32, y, "the budget")
    y += 12
    for words in (
        "Below the bars: the peak, and what is copied in.",
        "Calculated from the released shapes and",
        "stated rates: no real weights and no GPU",
        "were available.",
    ):
        y += 18
        yield _text(left, y, words, "small")


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def main() -> None:
    """Write both files."""
    found = cases()
    PAGE.write_text(write_page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    main()
