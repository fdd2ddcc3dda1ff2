"""The main path: from a question about a picture to a stream of events, in eight steps.

An answer is a generator. It yields events and, where it needs the logits of the next token, the
token to run: `scheduler.py` runs it together with those of other answers and sends the logits back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import cast

import torch
from msgspec import structs
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.engine.adapters import AdapterKey
from cogvlm2_lite.engine.choose import RepetitionGuard, StopTexts, TokenChooser
from cogvlm2_lite.engine.chunk import make_chunk, split_prompt
from cogvlm2_lite.engine.drafts import MOST_DRAFT, NO_DRAFT, Draft, Drafter, EarlierAnswers
from cogvlm2_lite.engine.json_text import JsonAnswer, JsonGrammar
from cogvlm2_lite.engine.logprobs import LogprobQueue, logprobs_of
from cogvlm2_lite.engine.overflow import check_finite
from cogvlm2_lite.engine.prefix_cache import CachedPrompt, CacheSlot, GeneratedTokens, PictureCache
from cogvlm2_lite.engine.replan import (
    MAX_REPLANS_PER_ANSWER,
    MAY_BE_OUT_OF_MEMORY,
    Replanner,
    out_of_memory,
)
from cogvlm2_lite.engine.runtime import Cancelled, Result, Runtime, Steps, Token
from cogvlm2_lite.errors import PromptTooLongError, UsageError
from cogvlm2_lite.events import (
    COARSE_PICTURE,
    Cancel,
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    PictureOpened,
    Prefilled,
    Progress,
    PromptScored,
    Replanned,
    Streaming,
    TextDelta,
    TokenLogprobs,
    TurnsDropped,
)
from cogvlm2_lite.inputs.image import OpenedImage, pixel_values
from cogvlm2_lite.inputs.prompt import PromptIds, encode_prompt
from cogvlm2_lite.inputs.tokenizer import StreamDecoder, Tokenizer
from cogvlm2_lite.memory.plan import MemoryPlan
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text

_SCORED_ROWS = 8
"""Tokens of a prompt whose logits are computed at a time: 4 MiB with 128,256 tokens."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question.

    image          the conversation's picture, or None
    history        earlier (question, answer) pairs, oldest first
    template       "chat", "vqa" or "base"; None: the one the checkpoint names
    continue_from  the text of an answer to continue; continue_ids are its tokens
    prompt_ids     the tokens of the whole text, in place of question, history and template
    score_prompt   report the log probability of each token of the prompt
    score_last     report that of the last tokens of the prompt only, so many; unlike for
                   score_prompt, what is cached of the prompt before them is used
    adapter        name of the adapter that answers; None: none does
    draft_text     a text that the answer probably resembles, such as OCR text of the picture;
                   it changes the speed only, never the answer
    """

    question: str
    image: OpenedImage | None = None
    history: Sequence[tuple[str, str]] = ()
    sampling: Sampling = field(default_factory=Sampling)
    template: str | None = None
    continue_from: str = ""
    continue_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    score_prompt: bool = False
    score_last: int = 0
    adapter: str | None = None
    draft_text: str = ""

    @property
    def scores(self) -> bool:
        return self.score_prompt or self.score_last > 0


@dataclass(kw_only=True)
class _Tally:
    """What Finished will report."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    completion_tokens: int = 0
    feed: _Feed | None = None
    encode_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


AnswerSteps = Generator[Event | Token, Sequence[Tensor] | None, Result]
"""The work on an answer. For each Token that it yields, it receives the logits [vocab] after the
token and after the first tokens of its draft, as many as were computed, or None to end the answer.
Between two yields other answers may use the device."""

Propose = Callable[[], Draft]


@dataclass(kw_only=True)
class _Feed:
    """How the tokens of an answer get into its cache.

    position  RoPE position of the last one
    ready     drafted tokens that are computed, with the logits after each of them. The cache has
              them behind its `length`: it counts one when the answer takes it
    """

    slot: CacheSlot
    cancel: Cancel
    adapter: str | None
    position: int
    ready: deque[tuple[int, Tensor]] = field(default_factory=deque)
    passes: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A question as token ids, and the tokens of an answer that is continued.

    adapter  what keys and values depend on, of the adapter that answers
    """

    request: Request
    prompt: PromptIds
    continue_ids: tuple[int, ...]
    adapter: AdapterKey

    @property
    def picture(self) -> str | None:
        """The picture's sha256."""
        return self.request.image.sha256 if self.request.image else None

    @property
    def picture_key(self) -> str | None:
        """What identifies the picture's keys and values."""
        return None if self.picture is None else self.adapter.of_picture(self.picture)


class Answers:
    """Answers questions with a runtime, a tokenizer, and the pictures kept between questions."""

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: Tokenizer,
        replanner: Replanner,
        pictures: PictureCache,
        *,
        speculation: bool = True,
    ) -> None:
        self.runtime = runtime
        self.tokenizer = tokenizer
        self.pictures = pictures
        self.speculation = speculation
        self._replanner = replanner
        self._earlier = EarlierAnswers()
        self._draftable: dict[int, bool] = {}

    @cached_property
    def _json_grammar(self) -> JsonGrammar:
        return JsonGrammar(self.tokenizer, self.runtime.config.eos_token_ids)

    def prepare(self, request: Request) -> Prepared:
        """Step 3: return a question as token ids.

        Raises PromptTooLongError if it, or the answer that is continued, fills the context;
        UsageError if it asks for JSON and llguidance is not installed, or for an unknown adapter.
        """
        adapters = self.runtime.adapters
        adapters.check(request.adapter)
        if request.sampling.as_json:
            self._json_grammar.begin(request.sampling.json_schema)  # fails before work begins
        prompt = encode_prompt(
            self.tokenizer,
            self.runtime.config,
            request.question,
            history=request.history,
            has_image=request.image is not None,
            template=request.template or adapters.template(request.adapter),
            max_new_tokens=request.sampling.max_new_tokens,
            context=self.runtime.plan.context,
            given_ids=self._checked_ids(request.prompt_ids),
        )
        continue_ids = self._ids_to_continue(request)
        if continue_ids and len(continue_ids) >= prompt.room:
            raise PromptTooLongError(
                "The context is full: the answer has {count} tokens and can't continue.",
                hint="Ask a new question; the oldest turns are then left out.",
                count=len(continue_ids),
            )
        return Prepared(
            request=request,
            prompt=prompt,
            continue_ids=tuple(continue_ids),
            adapter=adapters.key(request.adapter),
        )

    def steps(self, prepared: Prepared, slot: CacheSlot, cancel: Cancel) -> AnswerSteps[None]:
        """Answer a question in a slot; the last event is Finished, also after a cancel."""
        # Steps 1 and 4, opening the picture and planning the memory, are done by the caller.
        prompt, continue_ids = prepared.prompt, prepared.continue_ids
        if prompt.dropped_turns:
            yield TurnsDropped(count=prompt.dropped_turns)
        image = prepared.request.image
        coarse = image is not None and self.runtime.coarse_pictures
        if image is not None and (image.notices or image.pages > 1 or coarse):
            notices = (*image.notices, COARSE_PICTURE) if coarse else image.notices
            yield PictureOpened(page=image.page, pages=image.pages, notices=notices)
        yield from _report_streaming(self.runtime.plan, image is not None)
        tally = _Tally(token_ids=list(continue_ids))
        try:
            logits = yield from self._fill_cache(prepared, slot, cancel, tally)
            reason = yield from self._decode(logits, prepared, slot, cancel, tally)
        except Cancelled:
            reason = FinishReason.CANCELLED
            # The text that is continued is not lost if the answer is cancelled before it continues.
            tally.text = tally.text or self.tokenizer.decode(list(continue_ids))
        self._keep_picture(slot)
        if prepared.picture is not None and tally.token_ids:
            self._earlier.note(prepared.picture, tally.token_ids)
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
            decode_passes=tally.feed.passes if tally.feed else 0,
            draft_tokens=tally.feed.drafted if tally.feed else 0,
            accepted_tokens=tally.feed.accepted if tally.feed else 0,
            activations="int8" if coarse else "auto",
        )

    def decode(
        self, tokens: Sequence[Token], slots: Sequence[CacheSlot]
    ) -> Generator[Event, None, list[list[Tensor]]]:
        """Run one token of each of several answers, and its draft; return the logits of each."""
        step = partial(self.runtime.decode_steps, tokens)
        return (yield from self._with_replanning(step, *slots))

    def _checked_ids(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return tokens of a prompt. Raises UsageError for one that the model does not have."""
        vocab = self.runtime.config.vocab_size
        if any(not 0 <= token < vocab for token in ids):
            raise UsageError(
                "{param} has a token that is not between 0 and {most}.",
                param="prompt",
                most=vocab - 1,
            )
        return ids

    def _ids_to_continue(self, request: Request) -> list[int]:
        """Return the tokens of the answer that is continued; the text decides if they disagree."""
        ids = list(request.continue_ids)
        ends = self.runtime.config.eos_token_ids
        known = all(0 <= i < self.runtime.config.vocab_size and i not in ends for i in ids)
        if known and self.tokenizer.decode(ids) == request.continue_from:
            return ids
        return self.tokenizer.encode(request.continue_from)

    def _fill_cache(
        self, prepared: Prepared, slot: CacheSlot, cancel: Cancel, tally: _Tally
    ) -> AnswerSteps[Tensor]:
        """Compute the prompt, and after it the answer that is continued; return the last logits.

        Tokens of an answer are computed by decode steps, several at a time, as when they were
        generated: a prefill's keys and values may differ in the last bit, and the answer may
        continue differently.

        Returns  [vocab]
        """
        prompt, continue_ids = prepared.prompt, prepared.continue_ids
        held = 0
        if slot.generated is not None:
            held = slot.generated.common(prompt, prepared.picture, continue_ids, prepared.adapter)
        if held:
            slot.cache.truncate(prompt.tokens + held)
            assert slot.generated is not None
            del slot.generated.tokens[held:]
            yield Prefilled(tokens=0, reused_tokens=prompt.tokens + held, seconds=0.0)
            logits = None
        else:
            logits = yield from self._prefill(prepared, slot, cancel, tally)
            slot.generated = GeneratedTokens.after(prompt, prepared.picture, prepared.adapter)
        began = time.perf_counter()
        feed = _feed_of(prepared, slot, cancel, held)
        for number, token in enumerate(continue_ids[held:], held + 1):
            known = continue_ids[number : number + MOST_DRAFT]
            logits = yield from self._feed(token, feed, partial(Draft.known, known))
            if logits is None:
                raise Cancelled
            yield Progress(phase="prefill", done=number, total=len(continue_ids))
        tally.prefill_s += time.perf_counter() - began
        assert logits is not None
        return logits

    def _feed(self, token: int, feed: _Feed, propose: Propose) -> AnswerSteps[Tensor | None]:
        """Put a token of the answer into the cache; return the logits [vocab] after it.

        propose  returns the tokens that may follow; called only if a decode step is needed
        None: the answer ends, and the token is not in the cache.
        """
        slot = feed.slot
        assert slot.generated is not None
        self._keep_picture(slot)
        if feed.ready and feed.ready[0][0] == token:
            if feed.cancel.is_set:  # otherwise the scheduler looks
                return None
            _, logits = feed.ready.popleft()
            slot.cache.advance(1)
            feed.accepted += 1
        else:
            feed.ready.clear()
            draft = propose()
            rows = yield Token(
                token=token,
                position=feed.position + 1,
                cache=slot.cache,
                adapter=feed.adapter,
                draft=draft.tokens,
                chances=draft.chances,
            )
            if rows is None:
                return None
            logits, *following = rows
            feed.ready.extend(zip(draft.tokens, following, strict=False))
            feed.passes += 1
            feed.drafted += len(following)
        feed.position += 1
        slot.generated.tokens.append(token)
        return logits

    def _keep_picture(self, slot: CacheSlot) -> None:
        """Copy a slot's new picture into the picture cache, where other answers may wait for it."""
        if slot.new_picture is not None:
            (picture, tokens), slot.new_picture = slot.new_picture, None
            self.pictures.put(picture, slot.cache, tokens)

    def _prefill(
        self, prepared: Prepared, slot: CacheSlot, cancel: Cancel, tally: _Tally
    ) -> Generator[Event, None, Tensor]:
        """Steps 2, 5 and 6: compute the prompt into the cache; return the last logits [vocab]."""
        if cancel.is_set:
            raise Cancelled
        prompt, image, adapter = prepared.prompt, prepared.request.image, prepared.request.adapter
        slot.generated = slot.new_picture = None
        scores, first = prepared.request.scores, self._first_scored(prepared)
        reused = first
        if first > 1:
            reused = yield from self._restore(prepared, slot)
        if reused >= first:  # logits are not kept, so those of scored tokens are computed
            slot.clear()
            slot.cache.truncate(0)
            reused = 0
        scored: list[TokenLogprobs] = []
        features = None
        if image is not None:
            began = time.perf_counter()
            if not reused:
                features = yield from self._with_replanning(
                    partial(self._encode, image, slot, cancel, adapter), slot
                )
                check_finite(features, self.runtime.dtype)
            tally.encode_s = time.perf_counter() - began
            yield ImageEncoded(
                image_tokens=prompt.image_tokens, seconds=tally.encode_s, reused=bool(reused)
            )
        began = time.perf_counter()
        hidden = None
        parts = list(split_prompt(prompt, reused))
        for number, (start, end) in enumerate(parts):
            chunk = make_chunk(prompt, start, end)
            # Nothing of an earlier chunk may be alive: the plan has no room for it.
            hidden, seen = None, None
            if chunk.has_image:
                seen, features = features, None
            prefill = partial(self.runtime.prefill, chunk, seen, slot.cache, cancel, adapter)
            hidden = yield from self._with_replanning(
                partial(_one_of, prefill, number, len(parts)), slot
            )
            slot.cached = CachedPrompt.of(prompt, prepared.picture, end, prepared.adapter)
            if scores:
                check_finite(hidden, self.runtime.dtype)
                scored += yield from self._score(prepared, hidden, (start, first), slot, cancel)
            if prepared.picture_key and chunk.has_image:
                slot.new_picture = (prepared.picture_key, end)
                # From a GPU it is copied over the bus: the first token does not wait for that.
                if self.runtime.plan.devices[0].budget.in_ram:
                    self._keep_picture(slot)
        assert hidden is not None
        if scores:
            yield self._prompt_scored(prepared, tuple(scored))
        # A copy of the last row: the view would keep the rows of the whole chunk in memory.
        copy = partial(hidden[:, -1:].clone)
        row = yield from self._with_replanning(partial(_at_once, copy), slot)
        del hidden, copy
        last = partial(self.runtime.compute_logits, row)
        logits = yield from self._with_replanning(partial(_at_once, last), slot)
        # What overflowed in an earlier chunk is in the keys and values that these logits have seen.
        check_finite(logits, self.runtime.dtype)
        tally.prefill_s = time.perf_counter() - began
        yield Prefilled(
            tokens=prompt.tokens - reused, reused_tokens=reused, seconds=tally.prefill_s
        )
        return logits[0, -1]

    def _score(
        self,
        prepared: Prepared,
        hidden: Tensor,
        places: tuple[int, int],
        slot: CacheSlot,
        cancel: Cancel,
    ) -> Generator[Event, None, list[TokenLogprobs]]:
        """Return the logprobs of the text tokens that follow the positions of a chunk.

        hidden  [1, tokens, hidden] of the chunk
        places  positions in the prompt: of the chunk's first token, and of the first scored one
        """
        prompt, scored = prepared.prompt, list[TokenLogprobs]()
        start, first = places
        ids, types = prompt.input_ids[0].tolist(), prompt.token_type_ids[0]
        top = prepared.request.sampling.logprobs or 0
        for begin in range(max(first - 1 - start, 0), hidden.shape[1], _SCORED_ROWS):
            if cancel.is_set:
                raise Cancelled
            rows = hidden[:, begin : begin + _SCORED_ROWS]
            work = partial(self._logits_in_ram, rows)
            for place, logits in enumerate(
                (yield from self._with_replanning(partial(_at_once, work), slot)), start + begin + 1
            ):
                if place < prompt.tokens and types[place] == 0:
                    scored.append(logprobs_of(self.tokenizer, logits, ids[place], top))
            yield Progress(phase="prefill", done=start + begin, total=prompt.tokens)
        return scored

    def _logits_in_ram(self, rows: Tensor) -> list[Tensor]:
        """Return the logits [vocab] of each row of hidden [1, rows, hidden], in host memory."""
        logits = self.runtime.logits_of_rows(rows)
        return backend_of(rows.device).fetch(logits)

    def _first_scored(self, prepared: Prepared) -> int:
        """Return the position of the first token with a logprob; behind the prompt: none has."""
        request, tokens = prepared.request, prepared.prompt.tokens
        if request.score_prompt:
            return 1
        return max(tokens - request.score_last, 1) if request.score_last else tokens + 1

    def _prompt_scored(self, prepared: Prepared, tokens: tuple[TokenLogprobs, ...]) -> PromptScored:
        prompt, given = prepared.prompt, prepared.request.prompt_ids
        bos = self.runtime.config.bos_token_id
        text = prompt.input_ids[0, 1 + prompt.image_tokens :].tolist()
        return PromptScored(
            text=self.tokenizer.decode(text),
            tokens=tokens,
            begins=self.tokenizer.token_name(bos) if given[:1] == (bos,) else "",
        )

    def _with_replanning(
        self, work: Callable[[], Steps[Result]], *slots: CacheSlot
    ) -> Generator[Progress | Replanned, None, Result]:
        """Run work for answers; if memory runs out, replan and run it again.

        Failed work leaves nothing behind: a cache counts tokens only at the end of a run.
        """
        while True:
            try:
                return (yield from work())
            except MAY_BE_OUT_OF_MEMORY as error:
                spent = any(slot.replans == MAX_REPLANS_PER_ANSWER for slot in slots)
                if spent or not out_of_memory(error):
                    raise
            # Outside of the handler, because the error keeps the tensors of the failed work alive.
            for slot in slots:
                slot.replans += 1
            yield self._replan()

    def _replan(self) -> Replanned:
        replanned = self._replanner.replan()
        self.pictures.resize(self.runtime.plan.picture_cache_bytes)
        return replanned

    def _restore(self, prepared: Prepared, slot: CacheSlot) -> Generator[Event, None, int]:
        """Put what is kept of the prompt into the cache; return its length in tokens."""
        prompt, picture, key = prepared.prompt, prepared.picture, prepared.picture_key
        length = slot.cached.common(prompt, picture, prepared.adapter)
        kept = None
        if key and not length:
            kept = self.pictures.get(key, slot.cache, 1 + prompt.image_tokens)
        if not length:
            # A new picture is encoded in the memory of the old conversation's cache.
            slot.clear()
        if kept is not None:
            restore = partial(slot.cache.restore, kept)
            yield from self._with_replanning(partial(_at_once, restore), slot)
            length = kept.tokens
        slot.cache.truncate(length)
        slot.cached = CachedPrompt.of(prompt, picture, length, prepared.adapter)
        return length

    def _encode(
        self, image: OpenedImage, slot: CacheSlot, cancel: Cancel, adapter: str | None
    ) -> Generator[Progress, None, Tensor]:
        if not self.runtime.plan.caches_stay:
            self.runtime.free_cache(slot.cache)
        pixels = torch.from_numpy(pixel_values(image, self.runtime.config.vision))
        return (yield from self.runtime.encode(pixels, cancel, adapter))

    def _drafter(
        self, prepared: Prepared, text_ids: Sequence[int], form: JsonAnswer | None
    ) -> Drafter | None:
        """Return what proposes the next tokens of an answer; None: it would be of no use."""
        if not self.runtime.takes_drafts:
            return None
        earlier = self._earlier.of(prepared.picture) if prepared.picture else ()
        return Drafter(
            self.tokenizer,
            texts=[text_ids, *earlier],
            resembled=prepared.request.draft_text,
            draftable=self._is_draftable,
            required=None if form is None else form.required_after,
            allowed=None if form is None else form.count_allowed,
        )

    def _is_draftable(self, token: int) -> bool:
        """Return whether a token has text. Others never continue an answer."""
        found = self._draftable.get(token)
        if found is None:
            config = self.runtime.config
            known = token < config.vocab_size and token not in config.eos_token_ids
            found = known and bool(self.tokenizer.token_bytes(token))
            self._draftable[token] = found
        return found

    def _decode(
        self,
        logits: Tensor,
        prepared: Prepared,
        slot: CacheSlot,
        cancel: Cancel,
        tally: _Tally,
    ) -> AnswerSteps[FinishReason]:
        """Step 7: generate the answer token by token, after the text that is continued.

        logits  [vocab], those of the first token
        """
        prompt, continue_ids, sampling = (
            prepared.prompt,
            prepared.continue_ids,
            prepared.request.sampling,
        )
        # 1. What watches or limits the answer: sampling, stop texts, repetition, JSON, room.
        text_ids = prompt.input_ids[prompt.token_type_ids == 0].tolist()
        chooser = TokenChooser(sampling, text_ids, logits.device)
        decoder, stops, guard = (
            StreamDecoder(self.tokenizer),
            StopTexts(sampling.stop),
            _guard(sampling),
        )
        logprobs = LogprobQueue(self.tokenizer, sampling.logprobs)
        form = None
        if sampling.as_json:
            form = self._json_grammar.begin(sampling.json_schema)
        feed = tally.feed = _feed_of(prepared, slot, cancel, len(continue_ids))
        room = min(sampling.max_new_tokens, prompt.room - len(continue_ids))
        reason = FinishReason.LENGTH
        # 2. All of them process the continued text first, as if this loop had generated it.
        chooser.note(continue_ids)
        drafter = self._drafter(prepared, text_ids, form) if self.speculation else None
        for token in continue_ids:
            shown, _ = stops.push(decoder.push(token))
            tally.text += shown
            if form is not None:
                form.push(token)
            if drafter is not None:  # looks at the form
                drafter.push(token)
            if guard is not None:
                guard.push(token)
        if tally.text:
            yield TextDelta(text=tally.text)
        # 3. One token per round: choose it, emit its text, check whether the answer ends, and run
        #    the decode step that yields the next logits.
        began = time.perf_counter()
        while room > 0:
            allowed = form.allowed(len(logits)) if form else None
            choose = partial(
                chooser.choose_and_fetch, logits, allowed, with_logits=sampling.logprobs is not None
            )
            token, logits = yield from self._with_replanning(partial(_at_once, choose), slot)
            tally.completion_tokens += 1
            if token in self.runtime.config.eos_token_ids:
                if prepared.request.score_prompt:
                    logprobs.note(logits, token, "")
                reason = FinishReason.EOS
                break
            tally.token_ids.append(token)
            text = decoder.push(token)
            logprobs.note(logits, token, text)
            shown, stopped = stops.push(text)
            yield from _delta(shown, tally, logprobs)
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
            propose: Propose = lambda: NO_DRAFT  # noqa: E731 - the other case is a partial
            if drafter is not None:
                drafter.push(token)
                propose = partial(
                    drafter.propose, min(MOST_DRAFT, room - tally.completion_tokens - 1)
                )
            following = yield from self._feed(token, feed, propose)
            if following is None:
                reason = FinishReason.CANCELLED
                break
            logits = following
        # 4. Emit the text that was held back.
        text = decoder.finish()
        logprobs.note_text(text)
        shown, stopped = stops.push(text)
        yield from _delta(shown if stopped else shown + stops.finish(), tally, logprobs)
        if prepared.request.score_prompt and (silent := logprobs.without_text()):
            # Who scores texts counts one entry per token, also for the end token.
            yield TextDelta(text="", tokens=silent)
        tally.decode_s = time.perf_counter() - began
        yield from _explain(reason, prompt.room - len(continue_ids), sampling)
        return FinishReason.STOP if stopped else reason


def _one_of(work: Callable[[], Steps[Result]], number: int, count: int) -> Steps[Result]:
    """Run one of several works, and count its steps over all of them.

    number  of works that are done
    """
    steps = work()
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return cast(Result, end.value)
        done = number * step.total + step.done
        yield structs.replace(step, done=done, total=count * step.total)


def _at_once(work: Callable[[], Result]) -> Steps[Result]:
    """Wrap work that reports no progress."""
    yield from ()
    return work()


def _feed_of(prepared: Prepared, slot: CacheSlot, cancel: Cancel, generated: int) -> _Feed:
    """Return what feeds the tokens behind the prompt and `generated` tokens of the answer."""
    last = int(prepared.prompt.position_ids[0, -1]) + generated
    return _Feed(slot=slot, cancel=cancel, adapter=prepared.request.adapter, position=last)


def _guard(sampling: Sampling) -> RepetitionGuard | None:
    return RepetitionGuard() if sampling.repetition_guard else None


def _delta(text: str, tally: _Tally, logprobs: LogprobQueue) -> Iterator[TextDelta]:
    if text:
        tally.text += text
        yield TextDelta(text=text, tokens=logprobs.release(text))


def _report_streaming(plan: MemoryPlan, with_picture: bool) -> Iterator[Streaming]:
    """Report streamed bytes and how often they are copied: streaming is never hidden."""
    sums = plan.streamed_bytes()
    picture = 0
    if with_picture:
        streamed = sums.get(Phase.ENCODE, 0) + sums.get(Phase.PREFILL_IMAGE, 0)
        picture = streamed + plan.reloaded_bytes()
    prompt = sums.get(Phase.PREFILL_TEXT, 0)
    token = sums.get(Phase.DECODE, 0)
    if picture or prompt or token:
        yield Streaming(picture_bytes=picture, prompt_bytes=prompt, token_bytes=token)


def _explain(reason: FinishReason, room: int, sampling: Sampling) -> Iterator[Notice]:
    """Explain why the answer ended if the text alone does not show it."""
    if reason is FinishReason.REPETITION:
        yield Notice(text=Text("The answer began to repeat itself and was stopped."))
    if reason is FinishReason.LENGTH and room <= sampling.max_new_tokens:
        yield Notice(text=Text("The context is full, so the answer ends here."))
