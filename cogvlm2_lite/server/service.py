"""Connects the HTTP server to the engine's process: queue, time limits and restarts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

from cogvlm2_lite.errors import CogVLM2LiteError, EngineError
from cogvlm2_lite.events import Event, Finished, FinishReason, TextDelta, TurnsDropped
from cogvlm2_lite.server.api_errors import ApiError, api_error_of, context_error
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.metrics import Metrics
from cogvlm2_lite.server.request_queue import RequestQueue
from cogvlm2_lite.server.requests import AnswerRequest
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import EngineState, News, Outcome, WorkerEngine, error_of
from cogvlm2_lite.worker.protocol import (
    Ask,
    Died,
    Loaded,
    LoadFailed,
    SheetPicture,
    Unloaded,
)

_RESTART_DELAYS_S = (0.0, 0.0, 5.0, 30.0)
"""Delay before a restart, by the number of deaths without an answer in between."""


class Service:
    """Answers requests, as many at once as the engine does. Use it in one event loop only.

    on_load_failure  called if the model can't be loaded; `failure` then is the error
    on_loaded        called each time the model has been loaded
    on_died          called with the reason if the engine's process ended and is started again
    """

    def __init__(
        self,
        engine: WorkerEngine,
        limits: Limits,
        *,
        max_waiting: int,
        on_load_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.failure: CogVLM2LiteError | None = None
        self._engine = engine
        self._queue = RequestQueue(max_waiting)
        self._on_load_failure = on_load_failure
        self.on_loaded: Callable[[Loaded], None] = lambda _: None
        self.on_died: Callable[[Text], None] = lambda _: None
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._running: set[int] = set()
        self._draining = False
        self._reserved_bytes = 0
        self._keep_s: float | None = None
        self._unload_timer: asyncio.TimerHandle | None = None
        self._users = 0
        self._unloading = False
        self._on_demand = False
        self._deaths = 0
        self._answers_at_death = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> EngineState:
        return self._engine.state

    @property
    def loaded(self) -> Loaded | None:
        return None if self._unloading else self._engine.loaded

    @property
    def on_demand(self) -> bool:
        """Whether the model was unloaded, and the next request loads it again."""
        return self._on_demand and self._engine.state in (EngineState.EMPTY, EngineState.LOADING)

    @property
    def keep_s(self) -> float | None:
        """Seconds until the model is unloaded if no request comes; None: it stays."""
        timer = self._unload_timer
        if timer is None:
            return self._keep_s
        return max(timer.when() - asyncio.get_running_loop().time(), 0.0)

    @property
    def busy(self) -> bool:
        """Whether any request needs the model, also one that waits for it."""
        return bool(self._users or self._running)

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self) -> None:
        """Start the engine. Must be called in the event loop."""
        loop = asyncio.get_running_loop()

        def forward(news: News) -> None:
            _call(loop, lambda: self._take_news(news))

        self._engine.on_news = forward
        self._engine.start()

    async def stop(self) -> None:
        """End the engine's process."""
        self._keep_s = None
        self._schedule_unload()
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._engine.stop)

    async def drain(self, grace_s: float) -> None:
        """Accept no more requests; let those in progress finish, or end them after `grace_s`."""
        self._draining = True
        self._ready.set()  # requests that wait for the engine then fail
        if self._running:
            await self._until_idle(grace_s)
        for request in self._running:
            self._engine.cancel(request)
        if self._running:
            await self._until_idle(5.0)

    async def _until_idle(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self._running:
                    await self._until_changed()
        except TimeoutError:
            return

    def reserve(self, count: int) -> None:
        """Count bytes of a request; ApiError 429 if the total would be too large."""
        if self._reserved_bytes + count > self.limits.held_bytes:
            text = "The waiting requests already use too much memory."
            raise ApiError(429, text, "queue_full", retry_after=self._retry_after())
        self._reserved_bytes += count

    def release(self, count: int) -> None:
        """Subtract bytes that `reserve` counted."""
        self._reserved_bytes -= count

    def _retry_after(self) -> int:
        """Return an estimate, in seconds, of when the queue will be shorter."""
        rounds = (self.waiting + 1) / self._queue.slots
        return min(math.ceil(rounds * max(self.metrics.seconds_per_answer, 1.0)), 600)

    def check_ready(self, *, waits: bool = False) -> None:
        """Raise ApiError 503 with the reason if no request can be answered now.

        waits  the request waits until the model is loaded
        """
        if self._draining:
            raise ApiError(503, "The server is shutting down.", "shutting_down")
        state = self._engine.state
        loading = waits and state is EngineState.LOADING
        if state is not EngineState.READY and not loading and not self.on_demand:
            raise self._not_ready()

    def _not_ready(self) -> ApiError:
        if self._engine.state is EngineState.LOADING:
            return ApiError(503, "The model is loading.", "model_loading", retry_after=5)
        again = self._engine.state is EngineState.DEAD
        hint = "It is being restarted." if again else ""
        reason = self._engine.reason or "The model is not loaded."
        return api_error_of(EngineError(reason, hint=hint))

    async def answer(
        self, asked: AnswerRequest, peer: str, *, on_wait: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Event, None]:
        """Answer a request; yields the engine's events. Closing it frees the slot within one token.

        A request for several answers gets them one after another; each ends with Finished.

        on_wait  called if the request has to wait for other requests or for the engine

        Raises ApiError, also in the middle of an answer.
        """
        self.check_ready(waits=asked.waits)
        with self._use(asked.keep_s):
            for one in asked.each():
                self.check_ready(waits=asked.waits)
                async with aclosing(self._events(one, peer, on_wait)) as events:
                    async for event in events:
                        yield event

    async def load(
        self, asked: AnswerRequest, peer: str, *, on_wait: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Event, None]:
        """Load the model, or unload it if the request keeps it for 0 s; yields Finished.

        The parameters are those of `answer`.
        """
        if asked.keep_s != 0:
            self.check_ready(waits=True)
        with self._use(asked.keep_s):
            if asked.keep_s != 0:
                await self._until_ready(on_wait)
        while self._unloading:
            await self._until_changed()
        yield Finished(
            text="",
            reason=FinishReason.EOS,
            prompt_tokens=0,
            image_tokens=0,
            completion_tokens=0,
            encode_s=0.0,
            prefill_s=0.0,
            decode_s=0.0,
        )

    @contextmanager
    def _use(self, keep_s: float | None) -> Iterator[None]:
        """Keep the model in memory, and afterwards for `keep_s` if no other request comes."""
        self._keep_s = keep_s
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._schedule_unload()

    def _schedule_unload(self) -> None:
        """Unload the model when its time is over; requests in the engine come first."""
        if self._unload_timer is not None:
            self._unload_timer.cancel()
            self._unload_timer = None
        if self._keep_s is None or self.busy:
            return
        if self._keep_s == 0:
            self._unload()
        else:
            loop = asyncio.get_running_loop()
            self._unload_timer = loop.call_later(self._keep_s, self._unload)

    def _unload(self) -> None:
        self._unload_timer = None
        if self._engine.state is EngineState.READY and not self._unloading:
            self._unloading = self._on_demand = True
            self._engine.unload()

    async def _events(
        self, asked: AnswerRequest, peer: str, on_wait: Callable[[], None]
    ) -> AsyncGenerator[Event, None]:
        await self._queue.acquire(
            f"{peer} {asked.client}",
            retry_after=self._retry_after(),
            admitted=asked.follows,
            on_wait=on_wait,
        )
        running = _Running(self._engine, self._end)
        try:
            await self._until_ready(on_wait)
            running.begin(asked)
            self._running.add(running.request)
        except BaseException:
            self._queue.release()
            raise
        async with aclosing(running.events(self.limits.answer_s)) as events:
            given = asked.continue_from
            async for event in events:
                if isinstance(event, TurnsDropped) and not asked.truncate:
                    raise _too_long(event.count, running.context)
                self.metrics.watch(event)
                if isinstance(event, TextDelta) and given:
                    # The engine repeats the text that it continues; the client has it.
                    yield TextDelta(text=event.text.removeprefix(given), tokens=event.tokens)
                    given = ""
                else:
                    yield event

    async def _until_ready(self, on_wait: Callable[[], None]) -> None:
        """Wait while the engine restarts or loads; requests in the queue survive its death.

        A model that was unloaded is loaded again.
        """
        tried = False
        while True:
            if self._draining:
                self.check_ready()
            state = self._engine.state
            if state is EngineState.READY and not self._unloading:
                return
            if state is EngineState.EMPTY:
                if tried or not self._on_demand:
                    raise self._not_ready()
                self._reload()
                tried = True
            on_wait()
            self._ready.clear()
            await self._ready.wait()

    def _reload(self) -> None:
        try:
            self._engine.reload()
        except CogVLM2LiteError as error:  # its process has just ended
            raise api_error_of(error) from error

    async def _until_changed(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _end(self, request: int) -> None:
        """Free the slot of a request that the engine has finished, even if the client has left."""
        self._running.discard(request)
        self._changed.set()
        self._queue.release()
        self._schedule_unload()

    def _take_news(self, news: News) -> None:
        match news:
            case Loaded():
                self._on_demand = False
                self._queue.set_slots(news.parallel)
                self._ready.set()
                self.on_loaded(news)
                self._schedule_unload()
            case LoadFailed() if self._on_demand:
                self._ready.set()  # the requests that wait fail, and the next one tries again
            case LoadFailed():
                self.failure = error_of(news)
                self._ready.set()
                self._on_load_failure()
            case Unloaded():
                self._unloading = False
                self._changed.set()
                self._ready.set()
            case Died():
                self._unloading = False
                self._changed.set()
                self.metrics.add("engine_deaths_total")
                self._deaths = self._deaths + 1 if not self._answered_since() else 1
                if not self._draining:
                    self.on_died(news.reason)
                    self._begin_restart()

    def _answered_since(self) -> bool:
        """Return whether an answer was completed since the last death."""
        answered = self.metrics.answers
        since = answered > self._answers_at_death
        self._answers_at_death = answered
        return since

    def _begin_restart(self) -> None:
        task = asyncio.get_running_loop().create_task(self._restart())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _restart(self) -> None:
        await asyncio.sleep(_RESTART_DELAYS_S[min(self._deaths, len(_RESTART_DELAYS_S)) - 1])
        await asyncio.to_thread(self._engine.start)


class _Running:
    """A request in the engine. It ends when the engine ends it, not when the client leaves."""

    def __init__(self, engine: WorkerEngine, on_end: Callable[[int], None]) -> None:
        self.request = 0
        self._engine = engine
        self._on_end = on_end
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._over = False

    def begin(self, asked: AnswerRequest) -> None:
        """Send the question; ApiError if the engine rejects it."""
        loop = asyncio.get_running_loop()

        def deliver(outcome: Outcome) -> None:
            _call(loop, lambda: self._take(outcome))

        self.request = self._engine.new_request()
        files = [picture.data or b"" for picture in asked.pictures]
        sheet = asked.pictures if len(asked.pictures) > 1 else ()
        ask = Ask(
            request=self.request,
            question=asked.question,
            image=b"".join(files) if files else None,
            page=asked.pictures[0].page if files and not sheet else None,
            sheet=tuple(
                SheetPicture(nbytes=len(file), page=picture.page)
                for file, picture in zip(files, sheet, strict=False)
            ),
            history=asked.history,
            sampling=asked.sampling,
            template=asked.template,
            continue_from=asked.continue_from,
            prompt_ids=asked.prompt_ids,
            score_prompt=asked.scores_prompt,
            adapter=asked.adapter,
            draft_text=asked.draft_text,
        )
        try:
            self._engine.submit(ask, deliver)
        except CogVLM2LiteError as error:
            raise api_error_of(error, self.context) from error

    @property
    def context(self) -> int:
        """Tokens of question, picture and answer together."""
        loaded = self._engine.loaded
        return loaded.context if loaded else 0

    def _take(self, outcome: Outcome) -> None:
        self._outcomes.put_nowait(outcome)
        if isinstance(outcome, Finished | CogVLM2LiteError):
            self._over = True
            self._on_end(self.request)

    async def events(self, limit_s: float) -> AsyncGenerator[Event, None]:
        """Yield the events; after `limit_s` the answer is cancelled and ends with Finished."""
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(limit_s, self._engine.cancel, self.request)
        try:
            while True:
                outcome = await self._outcomes.get()
                if isinstance(outcome, CogVLM2LiteError):
                    raise api_error_of(outcome, self.context)
                yield outcome
                if isinstance(outcome, Finished):
                    return
        finally:
            alarm.cancel()
            if not self._over:
                self._engine.cancel(self.request)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Run a function in the loop's thread; do nothing if the loop is closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return


def _too_long(count: int, context: int) -> ApiError:
    text = Text(
        "The conversation is too long for it by its oldest turns ({count}). Leave them out, or "
        "send {option} to let the server do so.",
        count=count,
        option='"truncation": "auto"',
    )
    return context_error(context, text)
