"""The engine's own process: reads commands from standard input, writes reports to standard output.

    python -m cogvlm2_lite.worker.main

One thread reads commands, so that a cancel arrives while an answer is computed. One thread sends
heartbeats. One thread decodes pictures while other answers are computed. The main thread does the
work: as many answers at once as the plan has room for, and other commands between them. The process
exits when its owner is gone.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import queue
import signal
import sys
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cogvlm2_lite import events
from cogvlm2_lite.devices import prepare_threads
from cogvlm2_lite.engine.quick_start import open_quickly
from cogvlm2_lite.errors import (
    CogVLM2LiteError,
    DeviceError,
    DoesNotFitError,
    EngineError,
    UsageError,
)
from cogvlm2_lite.forecast.table import plan_as_dict
from cogvlm2_lite.inputs.failures import check_size
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.inputs.limits import ImageLimits
from cogvlm2_lite.inputs.sheet import PictureFile, open_sheet
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.heartbeat import HEARTBEAT_S, StepTimer
from cogvlm2_lite.worker.protocol import (
    Ask,
    CancelRequest,
    DecodedImage,
    Emitted,
    Failed,
    Heartbeat,
    Load,
    Loaded,
    LoadFailed,
    Loading,
    Report,
    Shutdown,
    Unload,
    Unloaded,
    read_message,
    write_message,
)

if TYPE_CHECKING:
    from cogvlm2_lite.engine.model import Model
    from cogvlm2_lite.engine.options import LoadOptions
    from cogvlm2_lite.engine.scheduler import Engine

_Work = Load | Ask | Unload | Shutdown


@dataclass(frozen=True, kw_only=True)
class _Decoding:
    """A picture that a thread decodes, with the limits that it is decoded with."""

    future: Future[OpenedImage | None]
    limits: ImageLimits


@dataclass(frozen=True, kw_only=True)
class _Opened:
    model: Model
    limits: ImageLimits


class Worker:
    """Carries out the commands of one stream and writes reports to another."""

    def __init__(self, commands: BinaryIO, reports: BinaryIO) -> None:
        self._commands = commands
        self._reports = reports
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._cancels: dict[int, events.Cancel] = {}
        self._pictures: dict[int, _Decoding] = {}
        self._decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
        self._waiting: _Work | None = None
        self._opened: _Opened | None = None
        self._busy = False
        self._emitted = 0
        self._write_lock = threading.Lock()

    def run(self) -> None:
        """Work until Shutdown; raises SystemExit when the GPU is lost."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        while True:
            work = self._next_work()
            match work:
                case Shutdown():
                    return
                case Unload():
                    self._close()
                    self._send(Unloaded())
                case Load():
                    self._load(work)
                case Ask():
                    self._begin(work)
                case None:
                    self._continue_answers()

    def _next_work(self) -> _Work | None:
        """Return the next command; None: continue the current answers.

        Commands keep their order. As many questions are started as there are cache slots; the
        others wait until the current answers have ended. While there are current answers, they also
        wait for their pictures to be decoded.
        """
        engine = self._engine
        busy = self._busy = engine is not None and engine.busy
        if self._waiting is None:
            with suppress(queue.Empty):
                self._waiting = self._work.get(block=not busy)
        if engine is not None and busy and not self._may_begin(engine, self._waiting):
            return None
        work, self._waiting = self._waiting, None
        self._busy = True
        return work

    def _may_begin(self, engine: Engine, work: _Work | None) -> bool:
        """Return whether a command is a question that can begin next to the current answers."""
        if not isinstance(work, Ask) or engine.full:
            return False
        decoding = self._pictures.get(work.request)
        return decoding is None or decoding.future.done()

    @property
    def _engine(self) -> Engine | None:
        return None if self._opened is None else self._opened.model.engine

    def _listen(self) -> None:
        """Dispatch commands; when the owner is gone, exit even in the middle of a computation."""
        while (message := self._next()) is not None:
            match message:
                case CancelRequest():
                    if flag := self._cancels.get(message.request):
                        flag.set()
                case Ask():
                    self._cancels[message.request] = events.Cancel()
                    self._decode(message)
                    self._work.put(message)
                case Load() | Unload() | Shutdown():
                    self._work.put(message)
        os._exit(0)

    def _decode(self, ask: Ask) -> None:
        """Decode a question's picture on the thread for pictures."""
        opened = self._opened
        if ask.image is not None and opened is not None:
            future = self._decoder.submit(_picture, ask, opened.limits)
            self._pictures[ask.request] = _Decoding(future=future, limits=opened.limits)

    def _next(self) -> object:
        try:
            return read_message(self._commands)
        except (EngineError, OSError):
            return None

    def _send(self, report: Report) -> None:
        with self._write_lock:
            write_message(self._reports, report)

    def send_heartbeats(self) -> None:
        """Send a heartbeat every second until the owner is gone."""
        timer, pause = StepTimer(), threading.Event()
        while not pause.wait(HEARTBEAT_S):
            kind, steps = self._progress()
            timer.look(kind, steps, busy=self._busy)
            try:
                self._send(Heartbeat(stalled_s=timer.stalled_s, plausible_s=timer.plausible_s))
            except (OSError, ValueError):
                return

    def _progress(self) -> tuple[str, int]:
        """Return the kind of the current step, and the number of steps so far.

        Events count too: a step that is replayed as a CUDA graph walks no blocks.
        """
        opened = self._opened
        if opened is None:
            return "load", self._emitted
        residency = opened.model.runtime.residency
        return str(residency.current_phase), residency.steps + self._emitted

    def _close(self) -> None:
        """Free the model's memory, and return it to the system for other programs."""
        if self._opened is None:
            return
        backend, self._opened = self._opened.model.compute.backend, None
        gc.collect()  # a model and its engine may refer to each other
        backend.release_unused()

    def _load(self, load: Load) -> None:
        self._close()
        try:
            self._opened = _open(load.options)
            if load.warm_up:
                self._warm_up(self._opened.model)
            self._send(_describe(self._opened.model))
        except CogVLM2LiteError as error:
            self._send(_load_failed(error))
        except Exception as error:  # noqa: BLE001 - the outer edge of a process
            self._send(_load_failed(_fault(error)))

    def _warm_up(self, model: Model) -> None:
        for step in model.preload():
            self._emitted += 1  # progress, for the heartbeat
            self._send(Loading(done_bytes=step.nbytes, total_bytes=step.total_nbytes))

    def _begin(self, ask: Ask) -> None:
        try:
            self._ask(ask)
        except CogVLM2LiteError as error:
            self._fail(ask.request, error)
        except Exception as error:  # noqa: BLE001 - the outer edge of a process
            self._fail(ask.request, _fault(error))

    def _ask(self, ask: Ask) -> None:
        decoding = self._pictures.pop(ask.request, None)
        if self._opened is None:
            raise UsageError("No model is loaded.", hint="Load one first.")
        from cogvlm2_lite.engine.answer import Request

        limits = self._opened.limits
        if decoding is not None and decoding.limits == limits:
            image = decoding.future.result()
        else:  # the model was loaded after the question arrived
            image = _picture(ask, limits)
        request = Request(
            question=ask.question,
            image=image,
            history=ask.history,
            sampling=ask.sampling,
            template=ask.template,
            continue_from=ask.continue_from,
            continue_ids=ask.continue_ids,
            prompt_ids=ask.prompt_ids,
            score_prompt=ask.score_prompt,
            score_last=ask.score_last,
            adapter=self._opened.model.adapter if ask.adapter is None else ask.adapter or None,
            draft_text=ask.draft_text,
        )
        self._opened.model.engine.begin(ask.request, request, self._cancels[ask.request])

    def _continue_answers(self) -> None:
        """Continue the current answers for one turn of the scheduler."""
        assert self._engine is not None
        lost = None
        for request, outcome in self._engine.turn():
            self._emitted += 1
            match outcome:
                case DeviceError():
                    lost = outcome
                    self._fail(request, outcome)
                case CogVLM2LiteError():
                    self._fail(request, outcome)
                case Exception():
                    self._fail(request, _fault(outcome))
                case _:
                    if isinstance(outcome, events.Finished):
                        self._cancels.pop(request, None)
                    self._send(Emitted(request=request, event=outcome))
        if lost is not None:
            # This process can't use the GPU any more; the owner starts another one.
            raise SystemExit(1)

    def _fail(self, request: int, error: CogVLM2LiteError) -> None:
        self._cancels.pop(request, None)
        self._send(
            Failed(
                request=request,
                kind=type(error).__name__,
                message=error.message,
                hint=error.hint,
                param=error.param,
            )
        )


def _picture(ask: Ask, limits: ImageLimits) -> OpenedImage | None:
    """Return the picture of a question, which may be a sheet of several; None: it has none."""
    if ask.image is None:
        return None
    if ask.decoded is not None:
        return _of_pixels(ask.image, ask.decoded, limits)
    if not ask.sheet:
        return open_image(ask.image, upright=ask.upright, page=ask.page, limits=limits)
    files, begin = [], 0
    for one in ask.sheet:
        files.append(PictureFile(data=ask.image[begin : begin + one.nbytes], page=one.page))
        begin += one.nbytes
    return open_sheet(files, upright=ask.upright, limits=limits)


def _of_pixels(data: bytes, known: DecodedImage, limits: ImageLimits) -> OpenedImage:
    """Return a picture that was decoded before.

    Raises ImageError, and UsageError for pixels of another size.
    """
    if len(data) != 3 * known.width * known.height:
        raise UsageError(
            "The picture has {count} bytes, which are not {width} by {height} pixels.",
            count=len(data), width=known.width, height=known.height,
        )  # fmt: skip
    check_size((known.width, known.height), Text("The picture"), limits)
    pixels = np.frombuffer(data, np.uint8).reshape(known.height, known.width, 3)
    return OpenedImage(
        rgb=pixels, sha256=known.sha256, format=known.format, original_size=known.original_size,
        name=Text("The picture"), page=known.page, pages=known.pages, notices=known.notices,
    )  # fmt: skip


def _open(options: LoadOptions) -> _Opened:
    model = open_quickly(options)
    _ = model.engine  # raises now, not at the first question, if the folder has no tokenizer
    return _Opened(model=model, limits=ImageLimits(max_pixels=options.max_picture_pixels))


def _describe(model: Model) -> Loaded:
    compute = model.compute
    kind = str(compute.dtype).removeprefix("torch.")
    return Loaded(
        plan=plan_as_dict(model.plan),
        compute=f"{compute.device}, {kind}: {compute.reason}",
        context=model.plan.context,
        image_tokens=model.config.vision.image_tokens,
        parallel=model.plan.parallel,
        warnings=model.warnings,
        adapters=model.adapters,
        adapter_remarks=model.adapter_remarks,
    )


def _load_failed(error: CogVLM2LiteError) -> LoadFailed:
    return LoadFailed(
        kind=type(error).__name__, message=error.message, hint=error.hint, param=error.param
    )


def _fault(error: Exception) -> CogVLM2LiteError:
    """Return an error for the owner; the traceback is printed to the log only."""
    from cogvlm2_lite.engine.replan import out_of_memory

    if out_of_memory(error) or isinstance(error, MemoryError):
        return DoesNotFitError(
            "There is not enough memory to continue.", hint="Close other programs and try again."
        )
    traceback.print_exception(error)
    return EngineError(
        "The engine has an internal error; the log of the program has the details.",
        hint="Please report it with the log and the output of `cogvlm2-lite doctor`.",
    )


def main() -> None:
    """Use standard input and output for the protocol, and replace them for everything else.

    What a library prints goes to standard error, so it can't corrupt a frame.
    """
    commands = os.fdopen(os.dup(0), "rb")
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner handles Ctrl-C
    faulthandler.enable()
    prepare_threads()
    worker = Worker(commands, reports)
    threading.Thread(target=worker.send_heartbeats, name="heartbeat", daemon=True).start()
    try:
        worker.run()
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
