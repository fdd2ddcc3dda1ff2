"""Everything before the first step: decides the form of answers, and makes the run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import Compute
from cogvlm2_lite.engine.model import load
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.finetune.adapter_folder import TOOL, Facts
from cogvlm2_lite.finetune.data import Example, first_tokens
from cogvlm2_lite.finetune.evaluation import Answer, HeldOut
from cogvlm2_lite.finetune.gather import Gathered, Tell, fingerprint, tell_nobody, write_skipped
from cogvlm2_lite.finetune.held_out import finished, mean_loss
from cogvlm2_lite.finetune.learn import Conduct, Run, new_pairs
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.picture_files import PictureFiles
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.state import RunFolder
from cogvlm2_lite.finetune.survey import (
    Survey,
    cache_of,
    machine_of,
    plan_run,
    survey_facts,
    training_compute,
)
from cogvlm2_lite.finetune.task import TrainingTask
from cogvlm2_lite.forecast.preview import PlannedModel
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.memory.budget import read_allowance
from cogvlm2_lite.memory.inventory import unit_sizes
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.rows.held_out import NAME, write_held_out
from cogvlm2_lite.weights.adapter import read_adapter
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.identity import identify_base
from cogvlm2_lite.weights.kernels.choice import choose_kernels

_SPACE_ROWS = 32
"""Answers whose first tokens decide whether answers begin with a space."""


@dataclass(frozen=True, kw_only=True)
class Prepared(Survey):
    """A run that is ready, and what a person wants to know of it before it starts."""

    run: Run


def prepare(task: TrainingTask, tell: Tell = tell_nobody) -> Prepared:
    """Read and check everything, measure the answers' form, and return the run.

    tell  is called while pictures are read, which takes long for large ones

    Raises UsageError for data or settings that can't be used, CheckpointError for a damaged model,
    and OSError if the folder can't be written.
    """
    settings = task.settings
    settings.check()
    config = read_config(task.model)
    compute = training_compute(task)
    catalog = Catalog.open(task.model, config)
    machine = machine_of(compute, read_allowance(task.vram, task.ram))
    subject = PlannedModel(
        name=task.model.name,
        config=config,
        weigh=partial(unit_sizes, catalog),
    )
    # 1. Samples in both forms, of which one is used.
    data = Gathered(task, config, Tokenizer.from_folder(task.model), tell)
    plan, training = plan_run(task, subject, machine, data)
    network = LearningNetwork(
        catalog,
        new_pairs(settings.matrices(config), settings.rank, settings.seed),
        scale=settings.alpha / settings.rank,
        acts_on=settings.acts_on,
        dtype=compute.dtype,
        rope=RopeMode(task.rope),
        plan=plan,
        training=training,
        files=_picture_files(task, catalog, compute, training),
    )
    space, losses = _choose_space(task.answer_space, data.plain, data.spaced, network)
    # 2. Learnt and held-out ones.
    sides = data.sides(space=space)
    learnt, held_out, again = sides.learnt, sides.held_out, sides.replayed
    of_data = fingerprint([*learnt, *again], [*held_out, *sides.old])
    base = identify_base(catalog, task.model)
    folder = RunFolder(task.out)
    run = Run(
        folder,
        network,
        settings,
        [*learnt, *again],
        _held_out(task, held_out, sides.old, compute),
        Facts(
            base=base.to_json(),
            base_name=task.model.name,
            template=task.template or config.template_version,
            answer_space=space,
            data_fingerprint=of_data,
            answers=len(learnt) + len(again),
            pictures=len({example.group for example in (*learnt, *again)}),
        ),
        conduct=Conduct(
            save_every=task.save_every,
            patience=task.patience,
            device=compute.device,
            adapter_dtype=_ADAPTER_DTYPES[task.adapter_dtype],
        ),
    )
    folder.open(
        {
            "base": base.source,
            "model": base.weights,
            "data": of_data,
            **_named(settings),
            "lr": run.rate,
            "epochs": run.epochs,
            "template": task.template or config.template_version,
            "answer_space": space,
            "dtype": str(compute.dtype),
            "rope": task.rope,
            "format_version": 1,
        },
        restart=task.restart,
        tool=TOOL,
    )
    write_skipped(folder.folder / "skipped.jsonl", data.skipped)
    rows_held_out = (example.row for example in held_out)
    write_held_out(folder.folder / NAME, rows_held_out, upright=task.upright)
    run.resume()
    return Prepared(
        **survey_facts(task, subject, machine, data, plan, training, sides),
        run=run,
        space=space,
        space_losses=losses,
        resumed=run.place.step,
    )


def _picture_files(
    task: TrainingTask, catalog: Catalog, compute: Compute, training: Training
) -> PictureFiles | None:
    """Return the store for pictures on the disk; None if it has no room or features change."""
    folder, limit = cache_of(task)
    if training.tower or limit <= 0:
        return None
    kernels = choose_kernels(compute.device, compute.dtype).name
    numbers = (str(compute.dtype), task.rope, compute.device.type, kernels)
    files = PictureFiles(folder, f"{catalog.fingerprint()} {numbers}", limit)
    config = catalog.config
    nbytes = config.vision.image_tokens * config.hidden_size * compute.dtype.itemsize
    files.reserve(training.pictures, nbytes)
    return files


_ADAPTER_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_OPTIONS = {
    "rate": "lr", "max_grad_norm": "clip", "rate_factor_up": "lr_b_factor",
}  # fmt: skip
"""Names of settings where a user knows another one."""


def _named(settings: TrainingSettings) -> dict[str, Any]:
    return {_OPTIONS.get(name, name): value for name, value in asdict(settings).items()}


def _held_out(
    task: TrainingTask,
    examples: Sequence[Example],
    old: Sequence[Example],
    compute: Compute,
) -> HeldOut:
    """Return what is measured during the run, with the engine that answers questions."""
    asked = examples[: task.answers]

    def ask(adapter: Path | None) -> Generator[Answer, None, None]:
        loaded = load(
            task.model, str(compute.device), task.dtype, task.rope, vram=task.vram, ram=task.ram,
            offload=task.offload, adapter=adapter, any_base=True,
        )  # fmt: skip
        for each in finished(loaded, asked, task.template, upright=task.upright):
            ended = each.reason is FinishReason.EOS
            yield Answer(text=each.text.strip(), ended=ended, tokens=each.completion_tokens)

    def loss_in_peft(folder: Path) -> float:
        config = read_config(task.model)
        adapter = replace(read_adapter(folder, config), acts_on=ALL_ROWS)
        return mean_loss(task.model, examples, adapter)

    return HeldOut(
        examples=examples,
        old=old,
        asked=asked,
        ask=ask,
        loss_in_peft=None if task.settings.acts_on == ALL_ROWS else loss_in_peft,
    )


def _choose_space(
    word: str, plain: Sequence[Example], spaced: Sequence[Example], network: LearningNetwork
) -> tuple[bool, tuple[float, float] | None]:
    """Return whether answers begin with a space, and the two measured losses.

    A wrong form costs much: 37 points on the demo model.
    """
    if word != "auto":
        return word == "yes", None
    some = (plain[:_SPACE_ROWS], spaced[:_SPACE_ROWS])
    samples = [first_tokens(example) for examples in some for example in examples]
    losses = network.losses(samples)
    counts = [len(sample.label_positions) for sample in samples]
    half = len(some[0])
    means = (
        sum(losses[:half]) / sum(counts[:half]),
        sum(losses[half:]) / sum(counts[half:]),
    )
    return means[1] < means[0], means  # a tie is without a space
