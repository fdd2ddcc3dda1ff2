"""Which storage kinds a budget may choose: none that is slow where the result runs, and lm_head's
only if it is asked to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.errors import UsageError
from quantize.budget import parse_budget
from quantize.calibration.evaluation import HeldOutEvaluation, MatrixGroup
from quantize.command import main
from quantize.job import Identity
from quantize.pipeline import _limit, _notes
from quantize.recipe import (
    AUTO,
    BY_BUDGET,
    GPU_TARGET,
    QuantizeOptions,
    Recipe,
    choose_head,
    make_recipe,
)
from quantize.report import REPORT_NAME, write_reports
from tests.helpers.calibration import calibrate_with, made_samples
from tests.helpers.conversion import CHECKPOINT, open_catalog

CATALOG = open_catalog(CHECKPOINT)
HEAD = "lm_head.weight"
ANY = QuantizeOptions(calibration="a test", budget=parse_budget("+0%"))


def recipe_of(settings: QuantizeOptions) -> Recipe:
    return make_recipe(CATALOG, settings)


def spent(settings: QuantizeOptions, folder: Path, kl: dict[str, float]) -> dict[str, str]:
    """Return what a budget chooses if the matrices cause this KL, or 0.001 where none is named."""
    recipe = recipe_of(settings)
    limit = _limit(recipe)
    assert limit is not None
    task = calibrate_with(made_samples(8))(recipe, folder)
    evaluation = HeldOutEvaluation(task, recipe, limit, folder)
    names = [tensor.name for tensor in recipe.tensors if tensor.kind == "nf4"]
    units = [MatrixGroup(name=n, matrices=(n,), kl=kl.get(n, 0.001)) for n in names]
    kinds = evaluation.spend(units, limit)
    assert make_recipe(CATALOG, settings, kinds).nbytes <= limit
    return kinds


@pytest.mark.parametrize("budget", ["+5%", "+30%"])
def test_for_a_gpu_a_budget_chooses_no_int8(tmp_path: Path, budget: str) -> None:
    cpu = replace(ANY, budget=parse_budget(budget))
    gpu = replace(cpu, target=GPU_TARGET)
    assert "int8" in spent(cpu, tmp_path, {}).values()
    chosen = spent(gpu, tmp_path, {})
    assert set(chosen.values()) == {"dense"}
    assert any("in 16 bits" in str(note) for note in _notes(CHECKPOINT, recipe_of(gpu), 10**9))
    assert not any("as int8" in str(note) for note in _notes(CHECKPOINT, recipe_of(gpu), 10**9))


def test_the_target_is_recorded(tmp_path: Path) -> None:
    gpu = replace(ANY, target=GPU_TARGET)
    assert gpu.to_json()["target"] == "gpu"
    assert "target" not in ANY.to_json()  # folders of earlier versions stay valid
    report = write_reports(recipe_of(gpu), [])[REPORT_NAME].decode()
    assert '"target": "gpu"' in report
    assert '"budget": "+0%"' in report


def test_unfinished_work_goes_on_for_another_target() -> None:
    one, other = (
        Identity(tool="t", source={}, settings=settings.to_json())
        for settings in (ANY, replace(ANY, target=GPU_TARGET))
    )
    assert one.changes(other) == {"target"}


@pytest.mark.parametrize(("lm_head", "budget", "found"), [
    (AUTO, None, "bf16"), (AUTO, "+5%", "bf16"), (AUTO, "+0%", "bf16"), (AUTO, "1GiB", "bf16"),
    (AUTO, "below", BY_BUDGET), ("bf16", "below", "bf16"), ("int8", "below", "int8"),
    (BY_BUDGET, "+5%", BY_BUDGET),
])  # fmt: skip
def test_lm_head_keeps_16_bits_unless_the_budget_is_smaller(
    lm_head: str, budget: str | None, found: str
) -> None:
    if budget == "below":
        budget = str(recipe_of(ANY).nbytes - 1)
    asked = replace(ANY, lm_head=lm_head, budget=parse_budget(budget) if budget else None)
    settings = choose_head(CATALOG, asked)
    assert settings.lm_head == found
    assert replace(settings, lm_head=lm_head) == asked


def test_a_budget_chooses_lm_head_by_what_it_costs(tmp_path: Path) -> None:
    same_size = replace(ANY, lm_head=BY_BUDGET)
    assert _limit(recipe_of(same_size)) == recipe_of(ANY).nbytes
    assert spent(same_size, tmp_path, {HEAD: 1.0})[HEAD] in ("int8", "dense")
    assert HEAD not in spent(same_size, tmp_path, {HEAD: 1e-9})
    gpu = replace(same_size, target=GPU_TARGET, budget=parse_budget("+1%"))
    assert spent(gpu, tmp_path, {HEAD: 1.0})[HEAD] == "dense"
    small = replace(same_size, budget=parse_budget(str(recipe_of(same_size).nbytes)))
    assert spent(small, tmp_path, {HEAD: 1.0}) == {}


def test_nothing_but_lm_head_changes_with_it() -> None:
    kinds = [
        {t.name: t.kind for t in recipe_of(settings).tensors if t.source.spec.role is Role.LINEAR}
        for settings in (ANY, replace(ANY, lm_head=BY_BUDGET))
    ]
    assert [some.pop(HEAD) for some in kinds] == ["dense", "nf4"]
    assert kinds[0] == kinds[1]


def test_a_budget_below_everything_names_what_is_left_to_do() -> None:
    settings = replace(ANY, budget=parse_budget("1000"))
    with pytest.raises(UsageError, match=r"but plain NF4 takes") as caught:
        _limit(recipe_of(settings))
    assert "--lm-head budget" in str(caught.value.hint)


def test_lm_head_by_budget_needs_a_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(CHECKPOINT), str(tmp_path / "q"), "--calibrate", "none"]
    assert main([*words, "--lm-head", "budget"]) == 2
    assert "--lm-head budget needs calibration" in capsys.readouterr().err
