"""What a person wants to know of a run before it starts. No weight is read here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cogvlm2_lite.devices import Compute, choose_compute
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune.data import Example, steps_of_epoch, talks
from cogvlm2_lite.finetune.expect import (
    EstimatedTokens,
    Expected,
    RunSize,
    TalkSize,
    expect,
    plan_training,
    training_of,
)
from cogvlm2_lite.finetune.gather import Gathered, Tell, tell_nobody
from cogvlm2_lite.finetune.picture_files import default_limit
from cogvlm2_lite.finetune.sides import Sides
from cogvlm2_lite.finetune.task import TrainingTask
from cogvlm2_lite.forecast.machine import Machine, cpu_machine
from cogvlm2_lite.forecast.preview import PlannedModel
from cogvlm2_lite.forecast.rates import gpu_rates
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.memory.budget import Allowance, cpu_budget, free_ram_bytes, gpu_budgets
from cogvlm2_lite.memory.plan import MemoryPlan, Offload
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.rows.labels import Encodes
from cogvlm2_lite.rows.read import Skipped
from cogvlm2_lite.text import Text


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a person wants to know of a run before it starts.

    rows, pictures  that can be used
    space           whether answers begin with a space; None: not decided yet
    space_losses    mean loss of the first two answer tokens without and with a space; None: not
                    measured
    expected        memory, seconds and disk
    place           the device, such as "cuda:0 (RTX 4060)"
    replayed, old   answers of the replayed data that are learnt, and that are held out
    removed         answers that are not learnt, because their pictures are held out
    resumed         steps of an earlier run that are done
    remarks         what a person would not expect of how the data were read
    """

    form: str
    rows: int
    pictures: int
    learnt: tuple[Example, ...]
    held_out: tuple[Example, ...]
    replayed: int
    old: int
    removed: int
    skipped: tuple[Skipped, ...]
    space: bool | None
    space_losses: tuple[float, float] | None
    numbers: int
    longest: int
    steps: int
    epochs: int
    rate: float
    expected: Expected
    place: str
    resumed: int = 0
    remarks: tuple[Text, ...] = ()

    @property
    def plan(self) -> MemoryPlan:
        return self.expected.plan


def survey(
    task: TrainingTask, subject: PlannedModel, machine: Machine, tell: Tell = tell_nobody
) -> Survey:
    """Read the data, and return what to expect of a run; no weight is read and nothing is written.

    subject  the model, which need not be on disk
    machine  the computer to plan for

    Whether answers begin with a space is not measured. Raises UsageError for data or settings that
    can't be used, and DoesNotFitError.
    """
    task.settings.check()
    config = subject.config
    tokenizer: Encodes = EstimatedTokens()
    if (task.model / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_folder(task.model)
    data = Gathered(task, config, tokenizer, tell)
    plan, training = plan_run(task, subject, machine, data)
    space = None if task.answer_space == "auto" else task.answer_space == "yes"
    sides = data.sides(space=space is True)
    return Survey(
        **survey_facts(task, subject, machine, data, plan, training, sides),
        space=space,
        space_losses=None,
    )


def training_compute(task: TrainingTask) -> Compute:
    """Return the device and number type. Raises UsageError for a GPU without bfloat16."""
    compute = choose_compute(task.device, task.dtype)
    if compute.dtype == torch.float16:
        raise UsageError(
            "{device} has no bfloat16, and small gradients are lost in float16.",
            hint="Use --dtype float32.",
            device=compute.gpus[0].name if compute.gpus else compute.device,
        )
    return compute


def machine_of(compute: Compute, allowance: Allowance) -> Machine:
    """Return one device of this computer: its first GPU, or the CPU."""
    free, itemsize = free_ram_bytes(), compute.dtype.itemsize
    if not compute.gpus:
        return replace(
            cpu_machine(allowance),
            budgets=(cpu_budget(allowance, free),),
            itemsize=itemsize,
        )
    gpu = compute.gpus[0]
    return Machine(
        label=f"{gpu.device} ({gpu.name})",
        budgets=gpu_budgets([gpu], allowance, free),
        rates=(gpu_rates(gpu.name, gpu.total_bytes),),
        itemsize=itemsize,
    )


def plan_run(
    task: TrainingTask, subject: PlannedModel, machine: Machine, data: Gathered
) -> tuple[MemoryPlan, Training]:
    """Return the memory plan of a run on one device. Raises DoesNotFitError.

    The form of answers is not known yet; a space more or less does not change the plan.
    """
    examples = data.all
    training = training_of(
        subject.config,
        task.settings,
        talk_sizes(examples),
        pictures=len({e.group for e in examples if e.sample.picture is not None}),
    )
    plan = plan_training(
        subject.config,
        subject.weigh(itemsize=machine.itemsize, packed=False, on_gpu=not machine.in_ram),
        machine.budgets[0],
        training,
        itemsize=machine.itemsize,
        offload=Offload(task.offload),
    )
    return plan, training


def survey_facts(
    task: TrainingTask,
    subject: PlannedModel,
    machine: Machine,
    data: Gathered,
    plan: MemoryPlan,
    training: Training,
    sides: Sides,
) -> dict[str, Any]:
    """Return the fields of a survey that do not depend on weights."""
    settings = task.settings
    learnt, held_out, again = sides.learnt, sides.held_out, sides.replayed
    examples = data.plain
    groups = talks([*learnt, *again])
    epochs = settings.epochs_for(len(steps_of_epoch(groups, settings.step, settings.seed, 0)))
    steps = sum(
        len(steps_of_epoch(groups, settings.step, settings.seed, epoch)) for epoch in range(epochs)
    )
    run = RunSize(
        learnt=tuple(talk_sizes([*learnt, *again])),
        held_out=tuple(talk_sizes([*held_out, *sides.old])),
        epochs=epochs,
        steps=steps,
    )
    expected = expect(
        subject.config,
        plan,
        training,
        run,
        machine.rates[0],
        itemsize=machine.itemsize,
        stored=subject.weigh(itemsize=machine.itemsize, packed=False, on_gpu=not machine.in_ram),
        cache_bytes=cache_of(task)[1],
    )
    return {
        "form": data.form,
        "rows": len({(e.row.source, e.row.line) for e in examples}),
        "pictures": len({e.group for e in examples if e.sample.picture is not None}),
        "learnt": tuple(learnt),
        "held_out": tuple(held_out),
        "replayed": len(again),
        "old": len(sides.old),
        "removed": sides.removed,
        "skipped": tuple(data.skipped),
        "numbers": training.numbers,
        "longest": max(example.sample.input_ids.shape[1] for example in (*learnt, *held_out)),
        "steps": steps,
        "epochs": epochs,
        "rate": settings.learning_rate(subject.config),
        "expected": expected,
        "place": machine.label,
        "remarks": data.remarks,
    }


def talk_sizes(examples: Sequence[Example]) -> list[TalkSize]:
    """Return the sizes of the examples about each picture, and of each one without a picture."""
    sizes = []
    for group in talks(examples):
        pictured = group[0].sample.picture is not None
        for talk in [group] if pictured else [[example] for example in group]:
            samples = [example.sample for example in talk]
            # Bos belongs to the prefix.
            prefix = 1 + int(samples[0].token_type_ids.sum()) if pictured else 0
            sizes.append(
                TalkSize(
                    ends=tuple(sample.input_ids.shape[1] - prefix for sample in samples),
                    labels=sum(len(sample.label_positions) for sample in samples),
                    has_picture=pictured,
                )
            )
    return sizes


def cache_of(task: TrainingTask) -> tuple[Path, int]:
    """Return the folder for pictures, and how many bytes it may have."""
    folder = task.cache or task.out / "training" / "cache"
    limit = default_limit(_free_bytes(folder)) if task.cache_bytes is None else task.cache_bytes
    return folder, limit


def _free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is or will be."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free
