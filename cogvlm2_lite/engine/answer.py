"""The main path: from a question about a picture to a stream of events, in eight steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from cogvlm2_lite.engine.json_text import JsonAnswer
from cogvlm2_lite.engine.recall import Known, PictureCache, Spoken
from cogvlm2_lite.engine.runtime import Cancelled, Chunk, Result, Runtime, Steps
from cogvlm2_lite.engine.sampling import RepetitionGuard, Sampling, StopTexts, TokenChooser
from cogvlm2_lite.engine.scores import ScoreLedger
from cogvlm2_lite.engine.tighten import (
    DEVICE_ERROR,
    MOST_PER_ANSWER,
    OUT_OF_MEMORY,
    Tightener,
    device_lost,
    out_of_memory,
)
from cogvlm2_lite.errors import PromptTooLongError, UsageError
from cogvlm2_lite.events import (
    Cancel,
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    Prefilled,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TurnsDropped,
)
from cogvlm2_lite.inputs.image import OpenedImage, pixel_values
from cogvlm2_lite.inputs.prompt import PromptIds, choose_vision_expert, encode_prompt
from cogvlm2_lite.inputs.tokenizer import StreamDecoder, Tokenizer
from cogvlm2_lite.memory.phases import Phase
from cogvlm2_lite.memory.plan import MemoryPlan
from cogvlm2_lite.memory.work import PREFILL_CHUNK
from cogvlm2_lite.model.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question.

    image     the conversation's picture, or None
    history   earlier (question, answer) pairs, oldest first
    template  "chat", "vqa" or "base"; None: the one the checkpoint names
    begun     what the answer has said already, and begun_ids the tokens that said it
    """

    question: str
    image: OpenedImage | None = None
    history: Sequence[tuple[str, str]] = ()
    sampling: Sampling = field(default_factory=Sampling)
    template: str | None = None
    begun: str = ""
    begun_ids: tuple[int, ...] = ()


@dataclass(kw_only=True)
class _Tally:
    """What Finished will tell."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    completion_tokens: int = 0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


class Engine:
    """A runtime, a tokenizer, and what is kept between questions."""

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: Tokenizer,
        tightener: Tightener,
        pictures: PictureCache,
    ) -> None:
        self.runtime = runtime
        self.tokenizer = tokenizer
        self._tightener = tightener
        self._tightened = 0
        self.pictures = pictures
        self._cache: KVCache = runtime.new_cache()
        self._known = Known()
        self._spoken: Spoken | None = None
        self._busy = False

    def answer(self, request: Request, cancel: Cancel) -> Iterator[Event]:
        """Answer a question; the last event is Finished, also after a cancel.

        Raises what the inputs raise (PromptTooLongError, ...), UsageError while another answer is
        under way (the cache belongs to one at a time), and DeviceError when the GPU is lost.
        """
        if self._busy:
            raise UsageError("The model is answering another question.", hint="Wait, or cancel it.")
        self._busy = True
        self._tightened = 0
        try:
            yield from self._answer(request, cancel)
        except DEVICE_ERROR as error:
            raise device_lost(error) from error
        finally:
            self._busy = False

    def forget(self) -> None:
        """Give the key/value cache back; kept pictures stay known."""
        self._cache.release()
        self._known = Known()
        self._spoken = None

    def _answer(self, request: Request, cancel: Cancel) -> Iterator[Event]:
        # Steps 1 and 4, opening the picture and planning the memory, were the caller's.
        prompt = encode_prompt(  # step 3
            self.tokenizer,
            self.runtime.config,
            request.question,
            history=request.history,
            has_image=request.image is not None,
            template=request.template,
            max_new_tokens=request.sampling.max_new_tokens,
            context=self.runtime.plan.context,
        )
        if prompt.dropped_turns:
            yield TurnsDropped(count=prompt.dropped_turns)
        yield from _tell_streaming(self.runtime.plan, request.image is not None)
        begun = self._begun_ids(request)
        if begun and len(begun) >= prompt.room:
            raise PromptTooLongError(
                f"The context is full: the answer has {len(begun)} tokens and can't go on.",
                hint="Ask a new question; the oldest turns make room for it.",
            )
        tally = _Tally(token_ids=list(begun))
        try:
            logits = yield from self._go_on(prompt, request.image, begun, cancel, tally)
            reason = yield from self._write(logits, prompt, begun, request.sampling, cancel, tally)
        except Cancelled:
            reason = FinishReason.CANCELLED
            # What was said before the break is not lost when it is stopped before it goes on.
            tally.text = tally.text or self.tokenizer.decode(begun)
        yield Finished(
            text=tally.text,
            reason=reason,
            prompt_tokens=prompt.tokens,
            image_tokens=prompt.image_tokens,
            completion_tokens=tally.completion_tokens,
            encode_s=tally.encode_s,
            prefill_s=tally.prefill_s,
            decode_s=tally.decode_s,
            token_ids=tuple(tally.token_ids),
        )

    def _begun_ids(self, request: Request) -> list[int]:
        """Give the tokens that the answer has already; the text decides where they disagree."""
        ids = list(request.begun_ids)
        ends = self.runtime.config.eos_token_ids
        known = all(0 <= i < self.runtime.config.vocab_size and i not in ends for i in ids)
        if known and self.tokenizer.decode(ids) == request.begun:
            return ids
        return self.tokenizer.encode(request.begun)

    def _go_on(
        self,
        prompt: PromptIds,
        image: OpenedImage | None,
        begun: Sequence[int],
        cancel: Cancel,
        tally: _Tally,
    ) -> Generator[Event, None, Tensor]:
        """Bring the prompt into the cache, and behind it what the answer has already; gives the
        last scores [vocab].

        Tokens of an answer are read one by one as they were written: together their keys and values
        might differ in the last bit, and the answer go on in other words.
        """
        picture = image.sha256 if image else None
        held = self._spoken.common(prompt, picture, begun) if self._spoken else 0
        if held:
            self._cache.truncate(prompt.tokens + held)
            assert self._spoken is not None
            del self._spoken.tokens[held:]
            yield Prefilled(tokens=0, reused_tokens=prompt.tokens + held, seconds=0.0)
            logits = None
        else:
            logits = yield from self._read(prompt, image, cancel, tally)
            self._spoken = Spoken.behind(prompt, picture)
        began, position = time.perf_counter(), int(prompt.position_ids[0, -1])
        for number, token in enumerate(begun[held:], held + 1):
            if cancel.is_set:
                raise Cancelled
            logits = yield from self._feed(token, position + number)
            yield Progress(phase="prefill", done=number, total=len(begun))
        tally.prefill_s += time.perf_counter() - began
        assert logits is not None
        return logits

    def _feed(self, token: int, position: int) -> Generator[Event, None, Tensor]:
        """Put a token of the answer into the cache; gives the scores [vocab] behind it."""
        step = partial(self.runtime.decode_one_token, token, position, self._cache)
        logits = yield from self._surviving(partial(_at_once, step))
        assert self._spoken is not None
        self._spoken.tokens.append(token)
        return logits

    def _read(
        self, prompt: PromptIds, image: OpenedImage | None, cancel: Cancel, tally: _Tally
    ) -> Generator[Event, None, Tensor]:
        """Steps 2, 5 and 6: bring the prompt into the cache; gives the last scores [vocab]."""
        picture = image.sha256 if image else None
        self._spoken = None
        reused = yield from self._recall(prompt, picture)
        features = None
        if image is not None:
            began = time.perf_counter()
            if not reused:
                features = yield from self._surviving(partial(self._encode, image, cancel))
            tally.encode_s = time.perf_counter() - began
            yield ImageEncoded(
                image_tokens=prompt.image_tokens, seconds=tally.encode_s, reused=bool(reused)
            )
        began = time.perf_counter()
        hidden = None
        for start, end in pieces_of(prompt, reused):
            chunk = chunk_of(prompt, start, end)
            seen = features if chunk.has_image else None
            hidden = yield from self._surviving(
                partial(self.runtime.prefill, chunk, seen, self._cache, cancel)
            )
            self._known = Known.of(prompt, picture, end)
            if picture and chunk.has_image:
                self.pictures.put(picture, self._cache, end)
        assert hidden is not None
        last = hidden[:, -1:]
        logits = yield from self._surviving(partial(_at_once, partial(self.runtime.score, last)))
        tally.prefill_s = time.perf_counter() - began
        yield Prefilled(
            tokens=prompt.tokens - reused, reused_tokens=reused, seconds=tally.prefill_s
        )
        return logits[0, -1]

    def _surviving(self, work: Callable[[], Steps[Result]]) -> Generator[Event, None, Result]:
        """Do work, and when memory runs out, do it again under a tighter plan.

        Work that failed has left nothing behind: the cache counts tokens only at the end of a run.
        """
        while True:
            try:
                return (yield from work())
            except (*OUT_OF_MEMORY, *DEVICE_ERROR) as error:
                if not out_of_memory(error) or self._tightened == MOST_PER_ANSWER:
                    raise
            # Outside of the handler: the error holds on to the tensors of what failed.
            self._tightened += 1
            yield self._tighten()

    def _tighten(self) -> Replanned:
        replanned = self._tightener.tighten()
        self.pictures.resize(self.runtime.plan.picture_cache_bytes)
        return replanned

    def _recall(self, prompt: PromptIds, picture: str | None) -> Generator[Event, None, int]:
        """Put what is known of the prompt into the cache; gives its length in tokens."""
        length = self._known.common(prompt, picture)
        kept = None
        if picture and not length:
            kept = self.pictures.get(picture, self._cache, 1 + prompt.image_tokens)
        if not length:
            # A new picture is encoded where the cache of the old conversation was.
            self.forget()
        if kept is not None:
            yield from self._surviving(partial(_at_once, partial(self._cache.restore, kept)))
            length = kept.tokens
        self._cache.truncate(length)
        self._known = Known.of(prompt, picture, length)
        return length

    def _encode(self, image: OpenedImage, cancel: Cancel) -> Generator[Progress, None, Tensor]:
        pixels = torch.from_numpy(pixel_values(image, self.runtime.config.vision))
        return (yield from self.runtime.encode(pixels, cancel))

    def _write(
        self,
        logits: Tensor,
        prompt: PromptIds,
        begun: Sequence[int],
        sampling: Sampling,
        cancel: Cancel,
        tally: _Tally,
    ) -> Generator[Event, None, FinishReason]:
        """Step 7: produce the answer token by token, behind what it has already."""
        text_ids = prompt.input_ids[prompt.token_type_ids == 0].tolist()
        chooser = TokenChooser(sampling, text_ids, logits.device)
        decoder, stops, guard = (
            StreamDecoder(self.tokenizer),
            StopTexts(sampling.stop),
            _guard(sampling),
        )
        ledger = ScoreLedger(self.tokenizer, sampling.logprobs)
        form = None
        if sampling.json_object:
            form = JsonAnswer(self.tokenizer, frozenset(self.runtime.config.eos_token_ids))
        position = int(prompt.position_ids[0, -1]) + len(begun)
        room = min(sampling.max_new_tokens, prompt.room - len(begun))
        reason = FinishReason.LENGTH
        chooser.note(begun, logits)
        for token in begun:
            shown, _ = stops.push(decoder.push(token))
            tally.text += shown
            if form is not None:
                form.push(token)
            if guard is not None:
                guard.push(token)
        if tally.text:
            yield TextDelta(text=tally.text)
        began = time.perf_counter()
        while room > 0:
            token = chooser.choose(logits, form.allows if form else None)
            tally.completion_tokens += 1
            if token in self.runtime.config.eos_token_ids:
                reason = FinishReason.EOS
                break
            tally.token_ids.append(token)
            text = decoder.push(token)
            ledger.note(logits, token, text)
            shown, stopped = stops.push(text)
            yield from _delta(shown, tally, ledger)
            tally.decode_s = time.perf_counter() - began
            if stopped:
                return FinishReason.STOP
            if form is not None and form.push(token):
                reason = FinishReason.EOS
                break
            if guard is not None and guard.push(token):
                reason = FinishReason.REPETITION
                break
            if tally.completion_tokens >= room:
                break
            if cancel.is_set:
                reason = FinishReason.CANCELLED
                break
            position += 1
            logits = yield from self._feed(token, position)
        text = decoder.finish()
        ledger.note_text(text)
        shown, stopped = stops.push(text)
        yield from _delta(shown if stopped else shown + stops.finish(), tally, ledger)
        tally.decode_s = time.perf_counter() - began
        yield from _explain(reason, prompt.room - len(begun), sampling)
        return FinishReason.STOP if stopped else reason


def pieces_of(prompt: PromptIds, start: int) -> Iterator[tuple[int, int]]:
    """Cut a prompt from `start` on into runs (start, end) that go through the decoder together.

    They end at the prompt's boundaries, and long texts are cut further, always at the same places:
    how a text was cut may show in the last bit of its keys and values.
    """
    for end in (*prompt.boundaries, prompt.tokens):
        longest = end if prompt.image_tokens and not start else PREFILL_CHUNK
        while start < end:
            yield start, min(start + longest, end)
            start = min(start + longest, end)


def _at_once(work: Callable[[], Result]) -> Steps[Result]:
    """Make work that tells no progress."""
    yield from ()
    return work()


def chunk_of(prompt: PromptIds, start: int, end: int) -> Chunk:
    """Cut a piece out of a prompt; its experts follow from the whole prompt's token types."""
    types, positions = prompt.token_type_ids, prompt.position_ids
    vision = choose_vision_expert(types)

    def cut(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values[:, start:end].copy())

    return Chunk(
        input_ids=cut(prompt.input_ids),
        image_mask=cut(types == 1),
        vision_mask=cut(vision),
        position_ids=cut(positions),
        highest=int(positions[:, start:end].max()),
        has_image=bool((types[:, start:end] == 1).any()),
    )


def _guard(sampling: Sampling) -> RepetitionGuard | None:
    return RepetitionGuard() if sampling.repetition_guard else None


def _delta(text: str, tally: _Tally, ledger: ScoreLedger) -> Iterator[TextDelta]:
    if text:
        tally.text += text
        yield TextDelta(text=text, tokens=ledger.hand_on(text))


def _tell_streaming(plan: MemoryPlan, with_picture: bool) -> Iterator[Streaming]:
    """Offloading is never hidden: say what comes over the bus, and how often."""
    sums = plan.streamed_bytes()
    picture = 0
    if with_picture:
        streamed = sums.get(Phase.ENCODE, 0) + sums.get(Phase.PREFILL_IMAGE, 0)
        picture = streamed + plan.returning_bytes()
    prompt = sums.get(Phase.PREFILL_TEXT, 0)
    token = sums.get(Phase.DECODE, 0)
    if picture or prompt or token:
        yield Streaming(picture_bytes=picture, prompt_bytes=prompt, token_bytes=token)


def _explain(reason: FinishReason, room: int, sampling: Sampling) -> Iterator[Notice]:
    """Say in words what a person would otherwise have to guess."""
    if reason is FinishReason.REPETITION:
        yield Notice(text="The answer began to repeat itself and was stopped.")
    if reason is FinishReason.LENGTH and room <= sampling.max_new_tokens:
        yield Notice(text="The context is full, so the answer ends here.")
