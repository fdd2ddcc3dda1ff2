"""How long the questions will take, and how many to ask at once, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_gpus
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.evaluate.work import Expected, Question
from cogvlm2_lite.forecast.machine import Machine, cpu_machine, find_machine
from cogvlm2_lite.forecast.preview import PlanPreview, folder_subject, preview
from cogvlm2_lite.memory.budget import read_allowance
from cogvlm2_lite.memory.plan import Offload

ANSWER_TOKENS: Mapping[str, int] = {
    "textvqa": 5, "docvqa": 8, "chartqa": 4, "ocrbench": 12, "mmmu": 3, "mmvet": 120,
    "mmbench": 3, "mmbench_cn": 3, "vqa": 5,
}  # fmt: skip
"""Tokens of a typical answer, for the expected time."""

_PARALLEL = (8, 4, 2, 1)
"""Numbers of conversations to try if --parallel is not given."""
_PARALLEL_STREAMED = (16, 8, 4, 2, 1)
"""The same if weights are streamed: each further one saves a pass over them."""
_MORE_STREAMED = 1.25
"""How much more may be streamed for more conversations at once."""
_TEMPLATE_TOKENS = 64
_STEP = 256


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What to expect of a model on this computer.

    parallel  conversations at once
    """

    parallel: int
    preview: PlanPreview

    def expected(self, benchmark: str) -> Expected:
        """Return the expected seconds of a picture and a question of a benchmark."""
        return self.expected_of(ANSWER_TOKENS[benchmark])

    def expected_of(self, tokens: float, texts: float = 1) -> Expected:
        """Return the expected seconds of a picture and a question.

        tokens  of an answer
        texts   that are computed for a question: itself, and those whose loss is measured
        """
        seconds = {phase: self._seconds(phase) for phase in self.preview.expected.seconds}
        each = seconds[Phase.DECODE] / self.parallel
        return Expected(
            picture_s=seconds.get(Phase.ENCODE, 0.0) + seconds.get(Phase.PREFILL_IMAGE, 0.0),
            question_s=texts * seconds[Phase.PREFILL_TEXT] + tokens * each,
        )

    def _seconds(self, phase: Phase) -> float:
        """Return the time of a phase. Weights that are copied serve all questions of a wave."""
        found = self.preview.expected
        copied = sum(
            sum(unit.nbytes for unit in arrivals.ram) / rates.bus_bytes_per_s
            + sum(unit.nbytes for unit in arrivals.disk) / rates.disk_bytes_per_s
            for arrivals, rates in zip(found.arrivals[phase], found.rates, strict=True)
        )
        seconds = found.seconds[phase]
        if phase is Phase.DECODE or not self.preview.plan.streams or copied < seconds / 2:
            return seconds
        return max(seconds / self.parallel, seconds - copied)


def look_ahead(options: LoadOptions, parallel: int | None) -> Outlook:
    """Return what to expect of a model folder with these options.

    parallel  as asked for; None: as many as fit without streaming more weights for it

    Raises DoesNotFitError as plan_memory does, and CheckpointError.
    """
    machine = _machine(options)
    subject = folder_subject(options.folder, options.folder.name)

    def plan(count: int) -> PlanPreview:
        return preview(
            subject,
            machine,
            context=options.context,
            offload=Offload(options.offload),
            eight_bit_cache=options.kv == "int8",
            parallel=count,
        )

    single = plan(1)
    if parallel is not None:
        found = plan(parallel)
        return Outlook(parallel=found.plan.parallel, preview=found)
    streamed = _streamed_bytes(single)
    for count in _PARALLEL_STREAMED if single.plan.streams else _PARALLEL:
        found = single if count == 1 else plan(count)
        if found.plan.parallel == count and _streamed_bytes(found) <= _MORE_STREAMED * streamed:
            break
    return Outlook(parallel=found.plan.parallel, preview=found)


def _streamed_bytes(found: PlanPreview) -> int:
    return sum(found.plan.streamed_bytes().values())


def _machine(options: LoadOptions) -> Machine:
    """Return this computer. --vram is a limit for its GPUs and describes no other one."""
    allowance = read_allowance(options.vram, options.ram)
    gpus, _ = choose_gpus(options.device)
    return find_machine(options.device, allowance) if gpus else cpu_machine(allowance)


def context_for(folder: Path, questions: Iterable[Question], max_new_tokens: int) -> int:
    """Return a length of the key/value cache that every question and its answer fit in.

    A shorter cache leaves memory for more conversations at once. A token has at least one byte, so
    the bytes of a query are more than its tokens. Answers do not depend on the length.
    """
    config = read_config(folder)
    longest = max((len(q.query.text.encode("utf-8", "replace")) for q in questions), default=0)
    needed = 1 + config.vision.image_tokens + _TEMPLATE_TOKENS + longest + max_new_tokens
    return min(-(-needed // _STEP) * _STEP, config.max_position_embeddings)
