"""A small benchmark on disk, and an engine that answers its questions at once."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from PIL import Image

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import EngineError
from cogvlm2_lite.events import Finished, FinishReason, ImageEncoded
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask, Loaded
from tests.helpers.worker_engine import FakeEngine

STREAMED = {"devices": [{"phases": [{"streamed_bytes": {"vision": 5}}]}]}


def png(number: int) -> bytes:
    """Return a small picture; another one for every number."""
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (number * 37 % 256, number % 256, 99)).save(out, "PNG")
    return out.getvalue()


def text_vqa(folder: Path, *, pictures: int = 5, each: int = 3, broken: Sequence[int] = ()) -> Path:
    """Write a TextVQA file with some questions about each picture, in an order that mixes them.

    broken  pictures whose bytes are cut off
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["index\timage\tquestion\tanswer"]
    for number in range(pictures * each):
        data = png(number % pictures)
        cut = b"no picture " * 9 if number % pictures in broken else data
        image = base64.b64encode(cut).decode()
        right = answer_to(f"What is {number}?")
        rows.append(f"{number}\t{image}\tWhat is {number}?\t{[right] * 10}")
    file = folder / "TextVQA_VAL.tsv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def mm_bench(folder: Path) -> Path:
    """Write an MMBench file of three questions; a rotation names the row that has its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["index\timage\tquestion\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit"]
    for number, count in ((1, 4), (2, 2), (3, 3)):
        for turn in range(count):
            image = str(number) if turn else base64.b64encode(png(number)).decode()
            options = [f"thing {(place + turn) % count}" for place in range(count)]
            cells = [*options, *[""] * (4 - count), "ABCD"[-turn % count]]
            index = number + 1_000_000 * turn
            row = [str(index), image, f"What is {number}?", *cells, "shapes", "FP-S", "dev"]
            rows.append("\t".join(row))
    file = folder / "MMBench_DEV_EN.tsv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def answer_to(question: str) -> str:
    """Return what ScriptedAnswers answers, whatever the words after the question's line."""
    return "w" + hashlib.sha256(question.partition("\n")[0].encode()).hexdigest()[:6]


class ScriptedAnswers(FakeEngine):
    """Answers at once; if it takes several questions, one by one, when no more of them come.

    kills     questions that end the engine, by a part of their text
    stops_at  number of the question at which Ctrl+C arrives
    streamed  whether weights are streamed
    wait_s    before each answer

    together  the pictures in progress, each time a question comes
    late      questions that came when one of their wave had been answered
    """

    def __init__(
        self,
        *,
        parallel: int = 1,
        kills: Sequence[str] = (),
        stops_at: int | None = None,
        streamed: bool = False,
        wait_s: float = 0.0,
    ) -> None:
        super().__init__(parallel=parallel)
        self.kills, self.stops_at, self.streamed, self.wait_s = kills, stops_at, streamed, wait_s
        self.together: list[list[str]] = []
        self.late = 0
        self.encoded: list[str] = []
        self._open: dict[int, tuple[Ask, Callable[[Outcome], None]]] = {}
        self._is_late = False
        self._timer: threading.Timer | None = None

    def become_ready(self) -> None:
        super().become_ready()
        self.loaded = Loaded(
            plan=STREAMED if self.streamed else {}, compute="cpu, float32: test", context=64,
            image_tokens=9, parallel=self._parallel,
        )  # fmt: skip

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        self.asked.append(ask)
        if self.stops_at == len(self.asked):
            raise KeyboardInterrupt
        self._open[ask.request] = (ask, deliver)
        self.together.append([_picture(each) for each, _ in self._open.values()])
        self.late += self._is_late
        if self._parallel == 1:
            self._answer()
        else:
            self._answer_soon()
        return ask.request

    def _answer_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(0.01, self._answer)
        self._timer.start()

    def _answer(self) -> None:
        """Answer the oldest question, and then the next."""
        ask, deliver = self._open.pop(min(self._open))
        self._is_late = bool(self._open)
        time.sleep(self.wait_s)
        outcomes = self._outcomes(ask)
        if isinstance(outcomes[0], EngineError):  # the others end with it
            self._open.clear()
        if self._open:
            self._answer_soon()
        for outcome in outcomes:
            deliver(outcome)

    def _outcomes(self, ask: Ask) -> list[Outcome]:
        if any(word in ask.question for word in self.kills):
            return [EngineError("The engine's process crashed.")]
        reused = _picture(ask) in self.encoded
        if not reused:
            self.encoded.append(_picture(ask))
        return [
            ImageEncoded(image_tokens=9, seconds=0.0 if reused else 0.5, reused=reused),
            Finished(
                text=f" {answer_to(ask.question)}\n", reason=FinishReason.EOS, prompt_tokens=12,
                image_tokens=9, completion_tokens=3, encode_s=0.0, prefill_s=0.1, decode_s=0.1,
            ),
        ]  # fmt: skip

    def cancel(self, request: int) -> None:
        self._open.pop(request, None)


def _picture(ask: Ask) -> str:
    return ask.decoded.sha256 if ask.decoded else ""


def starting(
    engine: FakeEngine,
) -> Callable[[LoadOptions], AbstractContextManager[WorkerEngine]]:
    """Return a `start` for the command that takes this engine."""

    def start(options: LoadOptions) -> AbstractContextManager[WorkerEngine]:
        engine.options = options
        engine.start()
        return nullcontext(engine)

    return start


def no_engine(options: LoadOptions) -> AbstractContextManager[WorkerEngine]:
    """Fail: nothing must be asked."""
    raise AssertionError(f"{options.folder} was loaded")
