"""A budget is spent and the whole model evaluated: the result is never worse than plain NF4."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from cogvlm2_lite.errors import ConversionError, UsageError
from cogvlm2_lite.evaluate.metrics import TokenComparison
from cogvlm2_lite.weights.manifest import MANIFEST_NAME
from quantize.budget import ByteBudget, parse_budget
from quantize.calibration.calibrate import CalibratedWeights
from quantize.calibration.evaluation import HeldOutEvaluation
from quantize.calibration.variants import NEAREST, VariantWalk
from quantize.command import main
from quantize.events import Calibrated, Evaluated, Event, Measuring, Progress, Upgraded
from quantize.job import partial_folder
from quantize.pipeline import convert
from quantize.report import PAGE_NAME, REPORT_NAME
from quantize.verify import verify
from tests.helpers.calibration import DEMO, SETTINGS, calibrate_with, made_samples, run
from tests.helpers.conversion import CHECKPOINT, QUICK, hashes, load_all, open_catalog, quantize

MORE = replace(SETTINGS, budget=parse_budget("+10%"))


def evaluated(events: list[Event]) -> Evaluated:
    (found,) = (event for event in events if isinstance(event, Evaluated))
    return found


@pytest.fixture(scope="module")
def plain_nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("plain") / "nf4"
    quantize(CHECKPOINT, target, replace(SETTINGS, calibration=""))
    return target


@pytest.fixture(scope="module")
def bought(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event], Path]:
    """A folder made with a budget, its events, and what calibrating left."""
    place = tmp_path_factory.mktemp("bought")
    effort = replace(QUICK, work=place / "work")
    work = convert(CHECKPOINT, place / "q", MORE, effort, calibrate_with(made_samples()))
    return place / "q", list(work), place / "work"


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def test_a_budget_is_spent_and_not_overspent(
    bought: tuple[Path, list[Event], Path], plain_nf4: Path
) -> None:
    folder, events, _ = bought
    assert 1.05 * size(plain_nf4) < size(folder) <= 1.10 * size(plain_nf4)
    rows = [event for event in events if isinstance(event, Upgraded)]
    catalog = open_catalog(folder)
    assert rows
    assert {row.tensor: row.kind for row in rows} == {
        name: tensor.kind for name, tensor in catalog.tensors.items() if tensor.kind == "int8"
    }
    report = json.loads((folder / REPORT_NAME).read_text())
    remarks = {row["tensor"]: row["remark"] for row in report["matrices"]}
    assert all(remarks[row.tensor] == "--budget +10%" for row in rows)
    *_, last = verify(folder)
    assert getattr(last, "ok", False)


def test_what_it_bought_is_told_and_in_the_report(bought: tuple[Path, list[Event], Path]) -> None:
    folder, events, _ = bought
    told = evaluated(events)
    assert told.result["kl_mean"]["value"] < told.calibrated["kl_mean"]["value"]
    assert told.calibrated["kl_mean"]["value"] < told.plain["kl_mean"]["value"]
    assert told.of_plain is not None
    assert told.of_plain["low"] <= told.of_plain["value"] <= told.of_plain["high"]
    assert (told.upgraded, told.dropped) == (sum(isinstance(e, Upgraded) for e in events), "")
    assert told.result_bytes == size(folder)
    report = json.loads((folder / REPORT_NAME).read_text())
    assert Evaluated(**report["judged"]) == told
    assert [unit["matrices"] for unit in report["units"]] == [
        [row["tensor"]] for row in report["matrices"] if row["calibration"]
    ]
    assert "Effect on the answers" in (folder / PAGE_NAME).read_text(encoding="utf-8")


def test_the_units_that_were_bought_are_those_that_gain_most_per_byte(
    bought: tuple[Path, list[Event], Path],
) -> None:
    """Not the whole knapsack, but its sense: what is left gains less per byte than what is not."""
    report = json.loads((bought[0] / REPORT_NAME).read_text())
    stored = {row["tensor"]: row["storage"] for row in report["matrices"]}
    weights = {n: t.spec.numel for n, t in open_catalog(CHECKPOINT).tensors.items()}
    rates: dict[str, list[float]] = {"int8": [], "nf4": []}
    for unit in report["units"]:
        rates[stored[unit["name"]]].append(unit["kl"] / weights[unit["name"]])
    assert float(np.mean(rates["int8"])) > 2 * float(np.mean(rates["nf4"]))


def test_upgraded_matrices_have_the_biases_of_the_source(
    bought: tuple[Path, list[Event], Path],
) -> None:
    folder = bought[0]
    source, made = load_all(CHECKPOINT), load_all(folder)
    kinds = {name: tensor.kind for name, tensor in open_catalog(folder).tensors.items()}
    seen = set()
    for name in (n for n in source if n.endswith(".bias")):
        matrix = name.removesuffix(".bias") + ".weight"
        if kinds.get(matrix) in ("int8", "nf4"):
            equal = torch.equal(source[name], made[name])
            assert equal or kinds[matrix] == "nf4"
            seen.add((kinds[matrix], equal))
    assert {("int8", True), ("nf4", False)} <= seen


def test_another_budget_calibrates_and_measures_no_unit_again(
    bought: tuple[Path, list[Event], Path], tmp_path: Path, plain_nf4: Path
) -> None:
    settings = replace(SETTINGS, budget=parse_budget("+25%"))
    effort = replace(QUICK, work=bought[2])
    work = convert(CHECKPOINT, tmp_path / "q", settings, effort, calibrate_with(made_samples()))
    events = list(work)
    assert not any(isinstance(event, Calibrated) for event in events)
    once = sum(isinstance(event, Measuring) for event in events)
    assert once == sum(isinstance(event, Measuring) for event in bought[1]) // 3
    assert 1.10 * size(plain_nf4) < size(tmp_path / "q") <= 1.25 * size(plain_nf4)
    # The same again from nothing: the kept work is as good.
    fresh = convert(CHECKPOINT, tmp_path / "f", settings, QUICK, calibrate_with(made_samples()))
    list(fresh)
    assert hashes(tmp_path / "q") == hashes(tmp_path / "f")


@pytest.mark.parametrize("stop_after", [16, 22, 30, 36])
def test_stopped_at_any_moment_it_goes_on_with_the_same_bytes(
    bought: tuple[Path, list[Event], Path], tmp_path: Path, stop_after: int
) -> None:
    target, seen = tmp_path / "q", 0
    with closing(convert(CHECKPOINT, target, MORE, QUICK, calibrate_with(made_samples()))) as w:
        for event in w:
            seen += isinstance(event, Calibrated | Measuring | Evaluated)
            if seen == stop_after:
                break
    assert not target.exists()
    events = run(target, made_samples(), MORE)
    assert evaluated(events) == evaluated(bought[1])
    assert hashes(target) == hashes(bought[0])


def test_unfinished_work_goes_on_under_another_budget(
    bought: tuple[Path, list[Event], Path], tmp_path: Path
) -> None:
    target = tmp_path / "q"
    other = replace(SETTINGS, budget=parse_budget("+40%"))
    with closing(convert(CHECKPOINT, target, other, QUICK, calibrate_with(made_samples()))) as w:
        for event in w:
            if isinstance(event, Progress):
                break
    assert list(partial_folder(target).glob("model-*"))
    events = run(target, made_samples(), MORE)
    assert not any(isinstance(event, Calibrated) for event in events)
    assert hashes(target) == hashes(bought[0])


def test_without_a_budget_the_bytes_are_those_of_plain_nf4(tmp_path: Path, plain_nf4: Path) -> None:
    events = run(tmp_path / "q", made_samples())
    assert size(tmp_path / "q") == size(plain_nf4)
    told = evaluated(events)
    assert told.result == told.calibrated
    assert told.upgraded == 0
    assert json.loads((tmp_path / "q" / REPORT_NAME).read_text())["units"] == []


def test_everything_fits_into_a_large_budget(tmp_path: Path) -> None:
    settings = replace(SETTINGS, budget=parse_budget("1GiB"))
    events = run(tmp_path / "q", made_samples(), settings)
    kinds = {t.kind for t in open_catalog(tmp_path / "q").tensors.values()}
    assert kinds <= {"dense", "nf4"}
    assert evaluated(events).result["kl_mean"]["value"] < 1e-9


# --- the fail-safe --------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, sample: str, factor: float = 3.0) -> None:
    """Make calibrated matrices whose name holds `sample` useless."""
    values = CalibratedWeights.values

    def spoiled(self: Any, name: str, *, double_quant: bool) -> Tensor | None:
        found = values(self, name, double_quant=double_quant)
        return found if found is None or sample not in name else found * factor

    monkeypatch.setattr(CalibratedWeights, "values", spoiled)


def test_a_part_that_makes_the_whole_worse_goes_back_to_nearest(
    tmp_path: Path, plain_nf4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "model.vision.transformer")
    events = run(tmp_path / "q", made_samples())
    told = evaluated(events)
    assert told.dropped == "vision tower"
    assert told.calibrated["kl_mean"]["value"] > told.plain["kl_mean"]["value"]
    assert told.result["kl_mean"]["value"] <= told.plain["kl_mean"]["value"]
    assert "Round to nearest was kept for vision tower" in told.remarks
    made, plain = load_all(tmp_path / "q"), load_all(plain_nf4)
    for name, tensor in plain.items():
        if name.startswith("model.vision.transformer"):
            assert torch.equal(made[name], tensor), name
    assert any(not torch.equal(made[name], tensor) for name, tensor in plain.items())
    report = json.loads((tmp_path / "q" / REPORT_NAME).read_text())
    tower = [r for r in report["matrices"] if "vision.transformer" in r["tensor"]]
    assert all("better for the whole model" in row["remark"] for row in tower)


def test_when_no_single_part_helps_everything_is_plain_nf4(
    tmp_path: Path, plain_nf4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "", factor=3.0)
    events = run(tmp_path / "q", made_samples(), MORE)
    told = evaluated(events)
    assert told.dropped == "everything"
    assert told.upgraded == 0
    assert told.result == told.plain
    made, plain = load_all(tmp_path / "q"), load_all(plain_nf4)
    assert made.keys() == plain.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in plain.items())


def test_samples_that_hold_nothing_out_measure_nothing_and_report_nothing(tmp_path: Path) -> None:
    """All about one picture: it is the first, which is fitted to."""
    pictured = next(sample for sample in made_samples() if sample.image is not None)
    samples = [replace(pictured, question=f"What is {n}?") for n in range(8)]
    events = run(tmp_path / "q", samples)
    assert not any(isinstance(event, Evaluated) for event in events)
    assert json.loads((tmp_path / "q" / REPORT_NAME).read_text())["judged"] is None


# --- units ----------------------------------------------------------------------------------------


def make_evaluation(
    folder: Path, kind: type[HeldOutEvaluation] = HeldOutEvaluation
) -> HeldOutEvaluation:
    from quantize.recipe import make_recipe

    recipe = make_recipe(open_catalog(CHECKPOINT), SETTINGS)
    return kind(calibrate_with(made_samples(40))(recipe, folder), recipe, None, folder)


def test_units_are_matrices_where_that_is_cheap_and_blocks_where_it_is_not(
    tmp_path: Path,
) -> None:
    held_out = make_evaluation(tmp_path)
    named, samples = held_out.choose_units()
    assert all(matrices == (name,) for name, matrices in named.items())
    assert samples == held_out.held_out
    blocks, fewer = held_out.choose_units(min_flops=0.0)
    assert set(blocks) == {
        "vision tower 0", "vision tower 1", "projector", "language expert 0", "language expert 1",
        "vision expert 0", "vision expert 1",
    }  # fmt: skip
    assert sorted(name for some in blocks.values() for name in some) == sorted(named)
    assert len(fewer) <= len(samples)
    _, fewest = held_out.choose_units(min_flops=0.0, max_share=0.0)
    assert len(fewest) <= len(fewer)
    assert len(fewest) >= 4


def tokens(kl: list[float]) -> TokenComparison:
    flags = np.ones(len(kl), dtype=np.bool_)
    number = np.arange(len(kl))
    return TokenComparison(
        kl=np.array(kl), agree=flags, reference_right=flags, other_right=flags,
        answer=number, picture=number,
    )  # fmt: skip


class MeasuresNothing(HeldOutEvaluation):
    def make_walk(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("nothing may be tried")


def test_a_plain_model_without_numbers_decides_nothing(tmp_path: Path) -> None:
    held_out = make_evaluation(tmp_path, MeasuresNothing)
    steps = held_out.check(tokens([float("nan")]), tokens([float("nan")]), {})
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value[0].nearest == frozenset()


# --- the command ----------------------------------------------------------------------------------


def test_a_budget_without_samples_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(CHECKPOINT), str(tmp_path / "q"), "--calibrate", "none"]
    assert main([*words, "--budget", "+5%"]) == 2
    assert "--budget needs calibration" in capsys.readouterr().err
    assert main([*words, "--work", str(tmp_path / "w")]) == 2
    assert "--work needs calibration" in capsys.readouterr().err


def test_a_budget_that_is_too_small_is_refused_before_the_work(tmp_path: Path) -> None:
    settings = replace(SETTINGS, budget=ByteBudget(text="4bits", bits=4.0))
    with pytest.raises(UsageError, match=r"A budget of 4bits is .*, but plain NF4 takes"):
        run(tmp_path / "q", made_samples(), settings)
    assert list(tmp_path.iterdir()) == []


def test_another_budget_in_the_same_place_is_refused_with_both(
    bought: tuple[Path, list[Event], Path],
) -> None:
    settings = replace(SETTINGS, budget=parse_budget("+25%"))
    with pytest.raises(ConversionError, match=r'budget "\+10%", but now it is "\+25%"'):
        run(bought[0], made_samples(), settings)


@pytest.mark.slow
def test_the_command_spends_a_budget_and_shows_what_it_bought(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(DEMO), str(tmp_path / "d"), "--calibrate", "built-in", "--samples", "16"]
    assert main([*words, "--budget", "+5%"]) == 0
    shown = capsys.readouterr()
    assert "The budget leaves" in shown.out
    assert "held-out samples:" in shown.out
    assert "The result has 0." in shown.out
    assert "matrices are stored in more bits (" in shown.out
    settings = json.loads((tmp_path / "d" / MANIFEST_NAME).read_text())["settings"]
    assert settings["budget"] == "+5%"


def test_the_reference_of_every_walk_is_the_source(tmp_path: Path) -> None:
    held_out = make_evaluation(tmp_path)
    walk = held_out.make_walk(held_out.held_out, [], tmp_path / "w")
    assert isinstance(walk, VariantWalk)
    assert [variant.forms for variant in walk.variants] == [{}]
    assert set(held_out.forms(NEAREST).values()) == {NEAREST}
