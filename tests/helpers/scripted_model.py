"""Fakes for the command line: a model that says what it was told to, and a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import (
    Cancel,
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    PictureOpened,
    Prefilled,
    Progress,
    TextDelta,
)
from cogvlm2_lite.inputs.image import OpenedImage
from cogvlm2_lite.memory.inventory import sizes_of_quantized
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Workload, plan_memory
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.units import GIB
from cogvlm2_lite.weights.adapter_choice import names_of
from tests.helpers.shapes import REAL


def small_plan() -> MemoryPlan:
    """Plan the released model for a card of 8 GiB, a matter of milliseconds."""
    budget = DeviceBudget(device="cuda:0", device_bytes=8 * GIB)
    return plan_memory(REAL, sizes_of_quantized(REAL), [budget], Workload(context=8192))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asked the model."""

    question: str
    image: OpenedImage | None
    history: list[tuple[str, str]]
    sampling: Sampling | None
    template: str | None
    adapter: str | None = None
    draft_text: str = ""


@dataclass
class ScriptedModel:
    """Emits its answers in order, word by word; an error in the list is raised.

    during   called before each word, for what happens while the model speaks
    extra    events that come before the words
    """

    answers: Sequence[str | CogVLM2LiteError] = (" A red bus.",)
    during: Callable[[], None] = lambda: None
    extra: Sequence[Event] = ()
    asked: list[Asked] = field(default_factory=list)
    plan: MemoryPlan = field(default_factory=small_plan)
    remarks: Sequence[str] = ()
    loaded: list[LoadOptions] = field(default_factory=list)
    adapters: Sequence[str] = ()
    adapter: str | None = None

    def load(self, options: LoadOptions) -> ScriptedModel:
        """Stand in for the loader."""
        self.loaded.append(options)
        self.adapters = names_of(options.adapters)
        self.adapter = next(iter(self.adapters), None)
        return self

    def warm_up(self) -> Iterator[Progress]:
        """Have nothing to bring in."""
        return iter(())

    def answer(
        self,
        question: str,
        image: OpenedImage | None = None,
        history: Sequence[tuple[str, str]] = (),
        *,
        sampling: Sampling | None = None,
        template: str | None = None,
        cancel: Cancel | None = None,
        draft_text: str = "",
    ) -> Iterator[Event]:
        self.asked.append(
            Asked(
                question=question,
                image=image,
                history=[(question, answer) for question, answer in history],
                sampling=sampling,
                template=template,
                adapter=self.adapter,
                draft_text=draft_text,
            )
        )
        said = self.answers[(len(self.asked) - 1) % len(self.answers)]
        if isinstance(said, CogVLM2LiteError):
            raise said
        return self._speak(said, image, cancel or Cancel())

    def _speak(self, said: str, image: OpenedImage | None, cancel: Cancel) -> Iterator[Event]:
        yield from self.extra
        if image is not None:
            if image.notices or image.pages > 1:
                yield PictureOpened(page=image.page, pages=image.pages, notices=image.notices)
            yield Progress(phase="encode", done=1, total=2)
            yield ImageEncoded(image_tokens=11, seconds=1.5, reused=len(self.asked) > 1)
        yield Prefilled(tokens=21, reused_tokens=0, seconds=0.25)
        spoken = ""
        for word in said.replace(" ", "\0 ").split("\0"):
            self.during()
            if cancel.is_set:
                break
            spoken += word
            if word:
                yield TextDelta(text=word)
        yield Finished(
            text=spoken,
            reason=FinishReason.CANCELLED if cancel.is_set else FinishReason.EOS,
            prompt_tokens=21,
            image_tokens=11 if image else 0,
            completion_tokens=5,
            encode_s=1.5,
            prefill_s=0.25,
            decode_s=2.0,
        )


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True
