"""A plan in words and numbers: the sentence says what a person will notice, the tables add up."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.forecast.machine import Machine
from cogvlm2_lite.forecast.preview import PlanPreview, preview, released_subject
from cogvlm2_lite.forecast.rates import Cpu, Rates, named_card
from cogvlm2_lite.forecast.table import about, draw_table, plan_as_dict
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, parse_bytes

CARD = named_card("4060").rates
CPU = Cpu(cores=8, has_bf16=True, has_avx512=True).rates
UNITS = {"B": 0.5, "KiB": 512, "MiB": 512 * 1024}


def shown(
    *gib: float, ram_gib: float = 64, rates: Rates = CARD, picture: bool = True
) -> PlanPreview:
    budgets = tuple(
        DeviceBudget(
            device="cpu" if rates is CPU else f"GPU {index}" if len(gib) > 1 else "GPU",
            device_bytes=int(size * GIB),
            host_bytes=0 if rates is CPU else int(ram_gib * GIB),
            in_ram=rates is CPU,
            origin=Text("some free"),
        )
        for index, size in enumerate(gib)
    )
    machine = Machine(label="it", budgets=budgets, rates=(rates,) * len(gib))
    return preview(released_subject(COGVLM2.released), machine, with_picture=picture)


def test_a_card_that_holds_everything_is_reported() -> None:
    assert re.fullmatch(
        r"Everything stays on the GPU, about \d+ tokens/s\. The answer to a question about a new "
        r"picture starts after about \d+ s\.",
        shown(16).sentence,
    )


def test_eight_gib_decode_on_the_gpu_and_copy_vision_weights() -> None:
    sentence = shown(7.6).sentence
    assert sentence.startswith("Decoding runs entirely on the GPU, about ")
    assert re.search(
        r"For each new picture 3\.\d\d GiB are copied from RAM \(the vision tower, the projector, "
        r"\d+ of 32 vision experts\), while the computation runs\.",
        sentence,
    )


def test_the_cost_of_copying_is_reported_in_seconds() -> None:
    slow = replace(CARD, bus_bytes_per_s=0.2e9)
    found = shown(7.6, rates=slow)
    everything = shown(16, rates=slow)
    more = found.expected.first_token_s - everything.expected.first_token_s
    assert more > 5
    assert f"), which takes about {about(more)} more." in found.sentence


def test_streaming_for_every_token_comes_first() -> None:
    sentence = shown(4).sentence
    assert re.match(
        r"For each token \S+ \S+ are copied from RAM \(\d+ of 32 language experts\), so about \S+ "
        r"tokens/s\. For each new picture ",
        sentence,
    )


def test_disk_is_named_next_to_ram() -> None:
    assert re.search(
        r"are copied from RAM \(.*\) and \S+ GiB from disk \(the vision tower, the projector, .*\)",
        shown(4, ram_gib=3).sentence,
    )
    assert "from RAM" not in shown(6, rates=CPU).sentence
    assert "are read from disk (" in shown(6, rates=CPU).sentence


def test_ram_and_several_gpus_are_named_as_places() -> None:
    assert shown(64, rates=CPU).sentence.startswith("Everything stays in RAM, ")
    assert shown(7, 7).sentence.startswith("Everything stays on the 2 GPUs, ")


def test_without_pictures_no_picture_is_spoken_of() -> None:
    found = shown(6, picture=False)
    assert "picture" not in found.sentence
    assert "An answer starts after about" in found.sentence
    assert "vision" not in draw_table(found.plan, found.expected)


@pytest.mark.parametrize("gib", [3, 4, 6, 8, 12, 24])
def test_the_columns_of_the_table_add_up(gib: float) -> None:
    found = shown(gib)
    rows = draw_table(found.plan, found.expected).splitlines()
    heads = rows[2].split("  ")
    assert [head.strip() for head in heads if head.strip()] == [
        "encode", "prefill with picture", "prefill of text", "decode",
    ]  # fmt: skip
    cells = {row[2:27].strip(): re.split(r"\s{2,}", row[27:].strip()) for row in rows[3:]}
    parts = [cells[name] for name in cells if not name.startswith(("in memory", "from", "expect"))]
    for column in range(4):
        texts = [row[column] for row in parts if len(row) == 4 and row[column][-1] == "B"]
        total = sum(parse_bytes(text) for text in texts)
        peak = parse_bytes(cells["in memory"][column])
        assert abs(total - peak) < 0.01 * peak + 0.01 * GIB
    assert len({len(row) for row in rows[2:-2] if "GiB" in row}) == 1
    assert all(len(row) <= 100 for row in rows)


def test_the_table_tells_where_weights_come_from_and_how_long_it_takes() -> None:
    found = shown(4, ram_gib=5)
    table = draw_table(found.plan, found.expected)
    assert "from RAM: language expert" in table
    assert "from disk: vision tower" in table
    assert "some free" in table
    assert re.search(r"\n  expected +\S+ s ", table)
    assert table.rstrip().endswith("per token")
    bare = draw_table(found.plan)
    assert "streamed: language expert" in bare
    assert "expected" not in bare


def test_two_gpus_get_a_table_each_and_one_line_of_times() -> None:
    found = shown(5, 7)
    table = draw_table(found.plan, found.expected)
    assert "GPU 0: " in table
    assert "GPU 1: " in table
    assert table.count("expected") == 1


def test_the_json_holds_the_same_bytes_as_the_plan() -> None:
    found = shown(4, ram_gib=5)
    written = json.loads(json.dumps(plan_as_dict(found.plan, found.expected)))
    (device,) = written["devices"]
    assert device["budget_bytes"] == 4 * GIB
    for phase, plan in zip(device["phases"], found.plan.devices[0].phases, strict=True):
        assert sum(phase["resident_bytes"].values()) == plan.resident_bytes
        assert sum(phase["streamed_bytes"].values()) == plan.streamed_bytes
        (arrivals,) = found.expected.arrivals[plan.phase]
        assert sum(phase["from_ram_bytes"].values()) == sum(u.nbytes for u in arrivals.ram)
        assert sum(phase["from_disk_bytes"].values()) == sum(u.nbytes for u in arrivals.disk)
    assert written["expected"]["tokens_per_s"] == found.expected.tokens_per_s
    assert written["expected"]["rates"][0]["source"] == "stated: RTX 4060 8 GB"
    assert "expected" not in plan_as_dict(found.plan)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12 ms"), (0.0949, "95 ms"), (0.4, "0.4 s"), (9.94, "9.9 s"), (9.97, "10 s"),
     (59.4, "59 s"), (59.6, "1 min 00 s"), (262, "4 min 20 s")],
)  # fmt: skip
def test_expected_durations_pretend_no_precision(seconds: float, text: str) -> None:
    assert about(seconds) == text
