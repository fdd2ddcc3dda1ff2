"""What every fake of a worker engine has: its state, and numbers for requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.worker.client import EngineState, News, Outcome, ignore_news
from cogvlm2_lite.worker.protocol import Ask, Loaded


class FakeEngine:
    """A WorkerEngine without a process, ready as soon as it is started.

    Its subclasses say in `submit` and `cancel` what becomes of an answer.
    """

    def __init__(self, options: LoadOptions | None = None, *, parallel: int = 1) -> None:
        self.options = options or LoadOptions(folder=Path("nowhere"))
        self.on_news: Callable[[News], None] = ignore_news
        self.state = EngineState.STOPPED
        self.loaded: Loaded | None = None
        self.reason = ""
        self.pid: int | None = None
        self.asked: list[Ask] = []
        self.starts = 0
        self.restarts = 0
        self._parallel = parallel
        self._numbers = 0

    def start(self) -> None:
        self.starts += 1
        self.become_ready()

    def become_ready(self) -> None:
        self.loaded = Loaded(
            plan={"peak_bytes": 17},
            compute="cpu",
            context=64,
            image_tokens=9,
            parallel=self._parallel,
        )
        self.state, self.reason = EngineState.READY, ""

    def wait_ready(self, timeout_s: float | None = None) -> Loaded:
        assert self.loaded is not None
        return self.loaded

    def stop(self, timeout_s: float = 5.0) -> None:
        self.state, self.loaded = EngineState.STOPPED, None

    def restart(self) -> None:
        self.restarts += 1
        self.stop()
        self.start()

    def unload(self) -> None:
        self.state, self.loaded = EngineState.EMPTY, None

    def reload(self) -> None:
        self.become_ready()

    def new_request(self) -> int:
        self._numbers += 1
        return self._numbers

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        raise NotImplementedError

    def cancel(self, request: int) -> None:
        raise NotImplementedError
