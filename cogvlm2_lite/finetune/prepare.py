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
    talks,
)
from cogvlm2_lite.finetune.evaluation import Answer, HeldOut
from cogvlm2_lite.finetune.expect import TalkSize, plan_training, training_of
from cogvlm2_lite.finetune.held_out import finished, mean_loss
from cogvlm2_lite.finetune.learn import SAVE_STEPS, Conduct, Run, new_pairs
from cogvlm2_lite.finetune.network import LearningNetwork, weight_sizes
from cogvlm2_lite.finetune.picture_files import PictureFiles, default_limit
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.sides import divide, held_out_file
from cogvlm2_lite.finetune.state import RunFolder
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.memory.budget import cpu_budget, free_ram_bytes, gpu_budgets, read_allowance
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Offload
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.rows.held_out import NAME, write_held_out
from cogvlm2_lite.rows.labels import Labeller
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
class Prepared:
    """A run that is ready, and what a person wants to know of it before it starts.

    rows, pictures  that can be used
    space_losses  mean loss of the first two answer tokens without and with a space; None: not
                  measured
    resumed       steps of an earlier run that are done
    replayed, old  answers of the replayed data that are learnt, and that are held out
    removed       answers that are not learnt, because their pictures are held out
    remarks       what a person would not expect of how the data were read
    """

    run: Run
    form: str
    rows: int
    pictures: int
    learnt: tuple[Example, ...]
    held_out: tuple[Example, ...]
    replayed: int
    old: int
    removed: int
    skipped: tuple[Skipped, ...]
    space: bool
    space_losses: tuple[float, float] | None
    numbers: int
    longest: int
    resumed: int
    plan: MemoryPlan
    remarks: tuple[Text, ...] = ()


Tell = Callable[[int, int], None]
"""Is told how many rows of how many are read."""


def _tell_nobody(done: int, total: int) -> None:
    """Do nothing."""


def prepare(task: TrainingTask, tell: Tell = _tell_nobody) -> Prepared:
    """Read and check everything, measure the answers' form, and return the run.

    tell  is called while pictures are read, which takes long for large ones

    Raises UsageError for data or settings that can't be used, CheckpointError for a damaged model,
    and OSError if the folder can't be written.
    """
    settings = task.settings
    settings.check()
    config = read_config(task.model)
    tokenizer = Tokenizer.from_folder(task.model)
    compute = _compute(task)
    catalog = Catalog.open(task.model, config)
    file = held_out_file(task.held_out)
    pictures = Pictures(config.vision, upright=task.upright)
    rows = read_rows(task.data, form=task.form, labels=task.labels, ask=task.ask)
    others = [
        None if each is None else read_rows(each, labels=task.labels, ask=task.ask)
        for each in (file, task.replay)
    ]
    # 1. Samples in both forms, of which one is used.
    without, with_space = (_labeller(task, tokenizer, space=space) for space in (False, True))
    plain, skipped = _usable(task, rows, task.data, without, pictures, tell)
    spaced, _ = _examples(rows.rows, with_space, pictures)
    more: list[list[Example]] = []
    for other, path in zip(others, (file, task.replay), strict=True):
        made: list[Example] = []
        lost: list[Skipped] = []
        if other is not None and path is not None:
            # Their form is not known yet; a space more or less does not change the plan.
            made, lost = _usable(task, other, path, with_space, pictures, tell)
        more.append(made)
        skipped += lost
    again = more[1]
    # Nothing to learn from is refused before any weights are loaded.
    divide(plain, None if file is None else more[0], again, task.held_out, settings.seed)
    planned = [*spaced, *more[0], *again]
    training = training_of(
        config,
        settings,
        talk_sizes(planned),
        pictures=len({e.group for e in planned if e.sample.picture is not None}),
    )
    plan = plan_training(
        config,
        weight_sizes(catalog, compute.dtype),
        _budget(task, compute),
        training,
        itemsize=compute.dtype.itemsize,
        offload=Offload(task.offload),
    )
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
    space, losses = _choose_space(task.answer_space, plain, spaced, network)
    examples = spaced if space else plain
    # 2. Learnt and held-out ones.
    labeller = with_space if space else without
    measured, replay = (
        None if other is None else _examples(other.rows, labeller, pictures)[0] for other in others
    )
    replay = _share_of(replay or [], task.replay_share, settings.seed)
    sides = divide(examples, measured, replay, task.held_out, settings.seed)
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
    _write_skipped(folder.folder / "skipped.jsonl", skipped)
    rows_held_out = (example.row for example in held_out)
    write_held_out(folder.folder / NAME, rows_held_out, upright=task.upright)
    run.resume()
    return Prepared(
        run=run,
        form=rows.form,
        rows=len({(e.row.source, e.row.line) for e in examples}),
        pictures=len({e.group for e in examples if e.sample.picture is not None}),
        learnt=tuple(learnt),
        held_out=tuple(held_out),
        replayed=len(again),
        old=len(sides.old),
        removed=sides.removed,
        skipped=tuple(skipped),
        space=space,
        space_losses=losses,
        numbers=sum(p.down.numel() + p.up.numel() for p in network.pairs.values()),
        longest=max(example.sample.input_ids.shape[1] for example in examples),
        resumed=run.place.step,
        plan=plan,
        remarks=rows.remarks,
    )


def _picture_files(
    task: TrainingTask, catalog: Catalog, compute: Compute, training: Training
) -> PictureFiles | None:
    """Return the store for pictures on the disk; None if it has no room or features change."""
    folder = task.cache or task.out / "training" / "cache"
    limit = default_limit(_free_bytes(folder)) if task.cache_bytes is None else task.cache_bytes
    if training.tower or limit <= 0:
        return None
    kernels = choose_kernels(compute.device, compute.dtype).name
    numbers = (str(compute.dtype), task.rope, compute.device.type, kernels)
    files = PictureFiles(folder, f"{catalog.fingerprint()} {numbers}", limit)
    config = catalog.config
    nbytes = config.vision.image_tokens * config.hidden_size * compute.dtype.itemsize
    files.reserve(training.pictures, nbytes)
    return files


def _free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is or will be."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


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


def _compute(task: TrainingTask) -> Compute:
    """Return the device and number type. Raises UsageError for a GPU without bfloat16."""
    compute = choose_compute(task.device, task.dtype)
    if compute.dtype == torch.float16:
        raise UsageError(
            "{device} has no bfloat16, and small gradients are lost in float16.",
            hint="Use --dtype float32.",
            device=compute.gpus[0].name if compute.gpus else compute.device,
        )
    return compute


def _budget(task: TrainingTask, compute: Compute) -> DeviceBudget:
    """Return the memory that may be used on the one device of a run."""
    allowance, free = read_allowance(task.vram, task.ram), free_ram_bytes()
    if compute.gpus:
        return gpu_budgets(compute.gpus[:1], allowance, free)[0]
    return cpu_budget(allowance, free)


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


def _labeller(task: TrainingTask, tokenizer: Tokenizer, *, space: bool) -> Labeller:
    return Labeller(
        tokenizer,
        read_config(task.model),
        template=task.template,
        space=space,
        max_tokens=task.max_tokens,
    )


def _usable(
    task: TrainingTask, rows: Rows, file: Path, labeller: Labeller, pictures: Pictures, tell: Tell
) -> tuple[list[Example], list[Skipped]]:
    """Return the examples of rows, and what is skipped of them.

    Raises UsageError if there are none, or if too many are skipped.
    """
    made, skipped = _examples(rows.rows, labeller, pictures, tell)
    skipped = [*rows.skipped, *skipped]
    check_skipped(rows, skipped, allowed=task.allow_skipped)
    if not made:
        raise UsageError(
            "{file} has no rows that can be used.",
            hint="Rows need an answer, and a picture that can be opened.",
            file=file,
        )
    return made, skipped


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
