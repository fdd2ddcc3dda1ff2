"""Everything before the first step: reads the data, decides the form of answers, makes the run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import Compute, choose_compute
from cogvlm2_lite.engine.model import load
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.finetune.adapter_folder import TOOL, Facts
from cogvlm2_lite.finetune.data import (
    Example,
    Pictures,
    check_skipped,
    first_tokens,
    make_examples,
    steps_of_epoch,
    talks,
)
from cogvlm2_lite.finetune.evaluation import Answer, HeldOut
from cogvlm2_lite.finetune.expect import (
    EstimatedTokens,
    Expected,
    RunSize,
    TalkSize,
    expect,
    plan_training,
    training_of,
)
from cogvlm2_lite.finetune.held_out import finished, mean_loss
from cogvlm2_lite.finetune.learn import SAVE_STEPS, Conduct, Run, new_pairs
from cogvlm2_lite.finetune.network import LearningNetwork, weight_sizes
from cogvlm2_lite.finetune.picture_files import PictureFiles, default_limit
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.sides import Sides, divide, held_out_file
from cogvlm2_lite.finetune.state import RunFolder
from cogvlm2_lite.forecast.machine import Machine, cpu_machine
from cogvlm2_lite.forecast.preview import PlannedModel
from cogvlm2_lite.forecast.rates import gpu_rates
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.memory.budget import (
    Allowance,
    cpu_budget,
    free_ram_bytes,
    gpu_budgets,
    read_allowance,
)
from cogvlm2_lite.memory.plan import MemoryPlan, Offload
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.rows.held_out import NAME, write_held_out
from cogvlm2_lite.rows.labels import Encodes, Labeller
from cogvlm2_lite.rows.read import Row, Rows, Skipped, read_rows
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.adapter import read_adapter
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.identity import identify_base
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.writer import write_file_durably

_SPACE_ROWS = 32
"""Answers whose first tokens decide whether answers begin with a space."""


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """What to learn, from what, and where to.

    replay        rows of the old kind, mixed in so that old abilities stay; None: none
    replay_share  share of them that is used, 0 to 1
    answer_space  "auto", "yes" or "no"
    vram, ram     memory that may be used, as in `load`; None: what is free
    offload       "auto" or "never"
    patience      evaluations without a lower held-out loss after which the run stops
    adapter_dtype of the adapter's file, "float32" or "bfloat16"
    cache         folder for what is computed of pictures; None: in `out`
    cache_bytes   limit for it; None: a fifth of the free disk; 0: nothing is stored
    answers       held-out questions that are answered at each evaluation
    """

    model: Path
    data: Path
    out: Path
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    form: str | None = None
    labels: str | None = None
    ask: tuple[str, ...] = ()
    held_out: str = "10%"
    replay: Path | None = None
    replay_share: float = 1.0
    template: str | None = None
    answer_space: str = "auto"
    max_tokens: int | None = None
    upright: bool = True
    allow_skipped: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    vram: str | None = None
    ram: str | None = None
    offload: str = "auto"
    rope: str = "reference"
    restart: bool = False
    save_every: int = SAVE_STEPS
    patience: int | None = None
    adapter_dtype: str = "float32"
    cache: Path | None = None
    cache_bytes: int | None = None
    answers: int = 0


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


@dataclass(frozen=True, kw_only=True)
class Prepared(Survey):
    """A run that is ready, and what a person wants to know of it before it starts."""

    run: Run


Tell = Callable[[int, int], None]
"""Is told how many rows of how many are read."""


def _tell_nobody(done: int, total: int) -> None:
    """Do nothing."""


def survey(
    task: TrainingTask, subject: PlannedModel, machine: Machine, tell: Tell = _tell_nobody
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
    data = _Data(task, config, tokenizer, tell)
    plan, training = _plan(task, subject, machine, data)
    space = None if task.answer_space == "auto" else task.answer_space == "yes"
    sides = data.sides(space=space is True)
    return Survey(
        **_facts(task, subject, machine, data, plan, training, sides),
        space=space,
        space_losses=None,
    )


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


def prepare(task: TrainingTask, tell: Tell = _tell_nobody) -> Prepared:
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
        weigh=lambda itemsize, _: weight_sizes(catalog, compute.dtype),
    )
    # 1. Samples in both forms, of which one is used.
    data = _Data(task, config, Tokenizer.from_folder(task.model), tell)
    plan, training = _plan(task, subject, machine, data)
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
    fingerprint = _fingerprint([*learnt, *again], [*held_out, *sides.old])
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
            data_fingerprint=fingerprint,
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
            "data": fingerprint,
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
    _write_skipped(folder.folder / "skipped.jsonl", data.skipped)
    rows_held_out = (example.row for example in held_out)
    write_held_out(folder.folder / NAME, rows_held_out, upright=task.upright)
    run.resume()
    return Prepared(
        **_facts(task, subject, machine, data, plan, training, sides),
        run=run,
        space=space,
        space_losses=losses,
        resumed=run.place.step,
    )


def _picture_files(
    task: TrainingTask, catalog: Catalog, compute: Compute, training: Training
) -> PictureFiles | None:
    """Return the store for pictures on the disk; None if it has no room or features change."""
    folder, limit = _cache_of(task)
    if training.tower or limit <= 0:
        return None
    kernels = choose_kernels(compute.device, compute.dtype).name
    numbers = (str(compute.dtype), task.rope, compute.device.type, kernels)
    files = PictureFiles(folder, f"{catalog.fingerprint()} {numbers}", limit)
    config = catalog.config
    nbytes = config.vision.image_tokens * config.hidden_size * compute.dtype.itemsize
    files.reserve(training.pictures, nbytes)
    return files


def _cache_of(task: TrainingTask) -> tuple[Path, int]:
    """Return the folder for pictures, and how many bytes it may have."""
    folder = task.cache or task.out / "training" / "cache"
    limit = default_limit(_free_bytes(folder)) if task.cache_bytes is None else task.cache_bytes
    return folder, limit


def _free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is or will be."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


class _Data:
    """The rows of a task as examples, with and without a space before answers.

    Raises UsageError if too many rows can't be used, or none can, or if nothing is left to learn.
    """

    def __init__(
        self, task: TrainingTask, config: ModelConfig, tokenizer: Encodes, tell: Tell
    ) -> None:
        self._task = task
        self._without, self._with_space = (
            Labeller(
                tokenizer,
                config,
                template=task.template,
                space=space,
                max_tokens=task.max_tokens,
            )
            for space in (False, True)
        )
        self._file = held_out_file(task.held_out)
        self._pictures = Pictures(config.vision, upright=task.upright)
        rows = read_rows(task.data, form=task.form, labels=task.labels, ask=task.ask)
        paths = (self._file, task.replay)
        self._others = [
            None if path is None else read_rows(path, labels=task.labels, ask=task.ask)
            for path in paths
        ]
        self.form, self.remarks = rows.form, rows.remarks
        self.plain, self.skipped = self._usable(rows, task.data, self._without, tell)
        self.spaced, _ = _examples(rows.rows, self._with_space, self._pictures)
        more: list[list[Example]] = []
        for other, path in zip(self._others, paths, strict=True):
            made: list[Example] = []
            lost: list[Skipped] = []
            if other is not None and path is not None:
                made, lost = self._usable(other, path, self._with_space, tell)
            more.append(made)
            self.skipped += lost
        self.all = [*self.spaced, *more[0], *more[1]]
        # Nothing to learn from is refused before any weights are loaded.
        self._divide(self.plain, None if self._file is None else more[0], more[1])

    def sides(self, *, space: bool) -> Sides:
        """Return what is learnt, held out and replayed, in one of the forms."""
        labeller = self._with_space if space else self._without
        measured, replay = (
            None if other is None else _examples(other.rows, labeller, self._pictures)[0]
            for other in self._others
        )
        task = self._task
        replay = _share_of(replay or [], task.replay_share, task.settings.seed)
        return self._divide(self.spaced if space else self.plain, measured, replay)

    def _divide(
        self,
        examples: Sequence[Example],
        measured: Sequence[Example] | None,
        replay: Sequence[Example],
    ) -> Sides:
        task = self._task
        return divide(examples, measured, replay, task.held_out, task.settings.seed)

    def _usable(
        self, rows: Rows, file: Path, labeller: Labeller, tell: Tell
    ) -> tuple[list[Example], list[Skipped]]:
        """Return the examples of rows, and what is skipped of them.

        Raises UsageError if there are none, or if too many are skipped.
        """
        made, skipped = _examples(rows.rows, labeller, self._pictures, tell)
        skipped = [*rows.skipped, *skipped]
        check_skipped(rows, skipped, allowed=self._task.allow_skipped)
        if not made:
            raise UsageError(
                "{file} has no rows that can be used.",
                hint="Rows need an answer, and a picture that can be opened.",
                file=file,
            )
        return made, skipped


def _plan(
    task: TrainingTask, subject: PlannedModel, machine: Machine, data: _Data
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
        subject.weigh(machine.itemsize, False),
        machine.budgets[0],
        training,
        itemsize=machine.itemsize,
        offload=Offload(task.offload),
    )
    return plan, training


def _facts(
    task: TrainingTask,
    subject: PlannedModel,
    machine: Machine,
    data: _Data,
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
        stored=subject.weigh(machine.itemsize, False),
        cache_bytes=_cache_of(task)[1],
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


def _examples(
    rows: Sequence[Row], labeller: Labeller, pictures: Pictures, tell: Tell = _tell_nobody
) -> tuple[list[Example], list[Skipped]]:
    made: list[Example] = []
    skipped: list[Skipped] = []
    for each in make_examples(_counted(rows, tell), labeller, pictures):
        if isinstance(each, Example):
            made.append(each)
        else:
            skipped.append(each)
    return made, skipped


def _counted(rows: Sequence[Row], tell: Tell) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield row
        tell(number, len(rows))


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


def _share_of(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Return the examples of a share of the pictures."""
    groups = sorted({example.group for example in examples})
    groups.sort(key=lambda key: hashlib.sha256(f"replay {seed}|{key}".encode()).digest())
    kept = set(groups[: round(len(groups) * share)])
    return [example for example in examples if example.group in kept]


def _fingerprint(learnt: Sequence[Example], held_out: Sequence[Example]) -> str:
    """Return a hash of all tokens, labels and pictures, in their order."""
    digest = hashlib.sha256()
    for name, examples in (("learnt", learnt), ("held out", held_out)):
        digest.update(name.encode())
        for example in examples:
            sample = example.sample
            key = "" if sample.picture is None else sample.picture.key
            digest.update(f"{key} {sample.input_ids.tolist()} {sample.labels.tolist()}".encode())
    return digest.hexdigest()


def _write_skipped(file: Path, skipped: Sequence[Skipped]) -> None:
    lines = [
        json.dumps(
            {
                "source": each.source,
                "line": each.line,
                "reason": each.reason.value,
                "detail": each.detail,
            },
            ensure_ascii=False,
        )
        for each in skipped
    ]
    write_file_durably(file, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
