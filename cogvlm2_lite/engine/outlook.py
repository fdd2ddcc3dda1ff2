"""How many questions to ask at once, and how long they will take, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_gpus
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.forecast.machine import Machine, cpu_machine, find_machine
from cogvlm2_lite.forecast.preview import PlanPreview, folder_subject, preview
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.budget import read_allowance
from cogvlm2_lite.memory.plan import Offload

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

    def seconds(self, phase: Phase) -> float:
        """Return the time of a phase for one question; 0 for a phase that the model lacks.

        In decoding it is a token of one conversation. Weights that are copied serve all questions
        of a wave.
        """
        found = self.preview.expected
        if phase not in found.seconds:
            return 0.0
        seconds = found.seconds[phase]
        if phase is Phase.DECODE:
            return seconds / self.parallel
        copied = sum(
            sum(unit.nbytes for unit in arrivals.ram) / rates.bus_bytes_per_s
            + sum(unit.nbytes for unit in arrivals.disk) / rates.disk_bytes_per_s
            for arrivals, rates in zip(found.arrivals[phase], found.rates, strict=True)
        )
        if not self.preview.plan.streams or copied < seconds / 2:
            return seconds
        return max(seconds / self.parallel, seconds - copied)


def look_ahead(options: LoadOptions, parallel: int | None, *, most: int | None = None) -> Outlook:
    """Return what to expect of a model folder with these options.

    parallel  as asked for; None: as many as fit without streaming more weights for it
    most      questions that there are; more at once are never chosen

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
            kv=KVKind(options.kv),
            parallel=count,
        )

    single = plan(1)
    if parallel is not None:
        found = single if parallel == 1 else plan(parallel)
        return Outlook(parallel=found.plan.parallel, preview=found)
    streamed, found = _streamed_bytes(single), single
    for count in _PARALLEL_STREAMED if single.plan.streams else _PARALLEL:
        if count > 1 and most is not None and count // 2 >= most:
            continue
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


def context_for(folder: Path, texts: Iterable[str], max_new_tokens: int) -> int:
    """Return a length of the key/value cache that a picture, each text and its answer fit in.

    A shorter cache leaves memory for more conversations at once. A token has at least one byte, so
    the bytes of a text are more than its tokens. Answers do not depend on the length.
    """
    config = read_config(folder)
    longest = max((len(text.encode("utf-8", "replace")) for text in texts), default=0)
    needed = 1 + config.vision.image_tokens + _TEMPLATE_TOKENS + longest + max_new_tokens
    return min(-(-needed // _STEP) * _STEP, config.max_position_embeddings)
