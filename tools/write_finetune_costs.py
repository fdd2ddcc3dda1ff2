"""Write what training runs cost into docs/finetune.md: python tools/write_finetune_costs.py

Bytes come from the memory plan, seconds from the forecast of `finetune --plan`. Nothing is measured
here, except the comparison of the plan with a step's tensors (benchmarks/finetune_memory.py).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cogvlm2_lite.architectures.architecture import ModelConfig, Phase
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.finetune.expect import (
    Expected,
    RunSize,
    TalkSize,
    expect,
    needed_bytes,
    plan_training,
    training_of,
)
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.forecast.rates import Cpu, Rates, named_card
from cogvlm2_lite.forecast.table import about
from cogvlm2_lite.memory.inventory import UnitKey, sizes_of_quantized
from cogvlm2_lite.memory.plan import RESERVE_BYTES, DeviceBudget
from cogvlm2_lite.units import GIB, MIB

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "finetune.md"
RESULT = ROOT / "benchmarks" / "results" / "finetune_memory.json"
_BEGIN = "<!-- written by python tools/write_finetune_costs.py -->"
_END = "<!-- end of what is written by tools/write_finetune_costs.py -->"

_DESKTOP_BYTES = int(0.9 * GIB)
"""Video memory for a desktop and the driver."""
_RAM_BYTES = 32 * GIB
_QUESTION = TalkSize(ends=(100,), labels=50)
_PICTURES, _EPOCHS, _STEP = 1000, 3, 16


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A computer with 32 GiB of RAM: a card, or a CPU alone."""

    name: str
    budget: DeviceBudget
    rates: Rates
    itemsize: int = 2


def _card(name: str, gib: int | None = None) -> Machine:
    card = named_card(name)
    memory = gib or card.gib
    return Machine(
        name=f"{card.name}, {memory} GB",
        budget=DeviceBudget(
            device="cuda:0",
            device_bytes=memory * GIB - _DESKTOP_BYTES,
            host_bytes=_RAM_BYTES - RESERVE_BYTES,
        ),
        rates=card.rates,
    )


def _cpu(name: str, cpu: Cpu) -> Machine:
    budget = DeviceBudget(device="cpu", device_bytes=_RAM_BYTES - RESERVE_BYTES, in_ram=True)
    return Machine(name=name, budget=budget, rates=cpu.rates, itemsize=cpu.itemsize)


MACHINES = (
    _card("RTX 4060"),
    _card("RTX 3060"),
    _card("RTX 4070"),
    _card("RTX 4060 Ti"),
    _card("RTX 3090"),
    _card("RTX 4090"),
    _cpu("8 cores, AVX512-BF16", Cpu(cores=8, has_bf16=True, has_avx512=True)),
    _cpu("2 cores, AVX512-BF16", Cpu(cores=2, has_bf16=True, has_avx512=True)),
    _cpu("8 cores, AVX2", Cpu(cores=8, has_bf16=False, has_avx512=False)),
)
SETTINGS = tuple((preset, rank) for preset in ("words", "both", "tower") for rank in (16, 64))


@cache
def _config() -> ModelConfig:
    return parse_config(COGVLM2.released.raw)


@cache
def _sizes(itemsize: int) -> dict[UnitKey, int]:
    return sizes_of_quantized(_config(), itemsize=itemsize)


def forecast(
    machine: Machine, preset: str, rank: int, talk: TalkSize = _QUESTION, pictures: int = _PICTURES
) -> Expected | None:
    """Return what a run needs on a computer; None if it does not fit."""
    config = _config()
    settings = TrainingSettings(preset=preset, rank=rank, step=_STEP)
    talks = (talk,) * pictures
    training = training_of(config, settings, talks, pictures=pictures)
    sizes = _sizes(machine.itemsize)
    try:
        plan = plan_training(config, sizes, machine.budget, training, itemsize=machine.itemsize)
    except DoesNotFitError:
        return None
    steps = _EPOCHS * -(-pictures * len(talk.ends) // _STEP)
    run = RunSize(learnt=talks, held_out=(), epochs=_EPOCHS, steps=steps)
    disk = 20 * GIB
    return expect(
        config, plan, training, run, machine.rates, itemsize=machine.itemsize, stored=sizes,
        cache_bytes=disk,
    )  # fmt: skip


def render() -> str:
    """Return the section."""
    head = ("", *(f"`{preset}`, rank {rank}" for preset, rank in SETTINGS))
    found = {
        (machine.name, *setting): forecast(machine, *setting)
        for machine in MACHINES
        for setting in SETTINGS
    }
    lines = [
        _filled(_INTRODUCTION),
        "",
        _filled(_BYTES),
        "",
        *_table(
            head, [(m.name, *(_memory(found[m.name, *s]) for s in SETTINGS)) for m in MACHINES]
        ),
        "",
        _filled("Time of the whole run, and of a step without its pictures:"),
        "",
        *_table(head, [(m.name, *(_time(found[m.name, *s]) for s in SETTINGS)) for m in MACHINES]),
        "",
        _filled(_remark(found[MACHINES[3].name, "words", 16])),
    ]
    if RESULT.is_file():
        lines += ["", *_measured(json.loads(RESULT.read_text("utf-8")))]
    return "\n".join(lines)


_INTRODUCTION = (
    "These numbers are arithmetic: no GPU has run it. They are those of `finetune --plan` for "
    "the released model in 4 bits, 1,000 pictures with a question of 100 tokens each, 3 "
    "epochs, 16 answers in a step, 32 GiB of RAM, and 20 GiB of disk for what is kept of "
    "pictures. Of a card, 0.9 GiB is left for a desktop and the driver."
)
_BYTES = (
    "Memory that the phases need at most on the device, without weights that are kept only "
    "because there is room; in brackets the weights that are streamed twice in each wave of a "
    "step. A CPU's memory is the RAM, where trained numbers and stored activations are, too:"
)
_MEASURED = (
    "Measured: the tensors of a step on synthetic full-size layers (random NF4 weights, one "
    "block of the vision tower and two of the decoder, bfloat16, on a shared 2-core CPU; "
    "`benchmarks/finetune_memory.py`), next to the plan, without weights. The error is that "
    "of the planned peak with all layers and their weights. Seconds are those of the measured "
    "step with its few layers."
)


def _remark(words: Expected | None) -> str:
    assert words is not None
    encode, learn = words.phases[Phase.ENCODE], needed_bytes(words.plan)[Phase.LEARN]
    return (
        "Trained numbers, gradients and moments are always in RAM, 16 bytes each, and so are the "
        "inputs of blocks. So a card needs little more for rank 64 than for rank 16, and a step "
        "that is too large for the RAM is split into waves. On the RTX 4060 Ti, encoding takes "
        f"{about(encode.each_s)} a picture, once. Learning `words` needs {_gib(learn)}; the most "
        "is needed while keys and values of a picture are computed, with both experts."
    )


def _measured(report: Mapping[str, Any]) -> Iterator[str]:
    yield _filled(_MEASURED)
    yield ""
    head = ("preset, rank", "step", "planned", "measured", "error of the peak", "seconds")
    rows = []
    for each in report["cases"]:
        case = each["case"]
        pictures, answers = len(case["talks"]), case["talks"][0]
        step = f"{pictures} x {answers} answers of {case['tokens']} tokens"
        rows.append(
            (
                f"`{case['preset']}`, {case['rank']}",
                step,
                f"{each['planned_bytes'] / MIB:,.0f} MiB",
                f"{each['measured_bytes'] / MIB:,.0f} MiB",
                f"{100 * each['peak_error']:+.1f} %",
                f"{each['step_s']:.0f}",
            )
        )
    yield from _table(head, rows)


def _filled(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def _memory(found: Expected | None) -> str:
    if found is None:
        return "does not fit"
    streamed = found.plan.devices[0].phase(Phase.LEARN).streamed_bytes
    return _gib(found.peak_bytes) + (f" ({_gib(streamed)})" if streamed else "")


def _time(found: Expected | None) -> str:
    if found is None:
        return "-"
    return f"{_hours(found.seconds)}; {about(found.phases[Phase.LEARN].each_s)}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.1f} GiB"


def _table(head: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| --- |{' ---: |' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def write_page(page: str) -> str:
    """Return the page with a new section."""
    begin, end = page.index(_BEGIN) + len(_BEGIN), page.index(_END)
    return f"{page[:begin]}\n\n{render()}\n\n{page[end:]}"


if __name__ == "__main__":
    PAGE.write_text(write_page(PAGE.read_text("utf-8")), "utf-8")
