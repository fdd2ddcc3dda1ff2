"""The engine in its own process: answers, cancels, and deaths at any moment."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from cogvlm2_lite.demo.shipped import checkpoint_folder, sample_pictures
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import (
    CheckpointError,
    CogVLM2LiteError,
    DeviceError,
    EngineError,
    ImageError,
    PromptTooLongError,
)
from cogvlm2_lite.events import (
    CandidateToken,
    Finished,
    FinishReason,
    PictureOpened,
    Replanned,
    TextDelta,
    TokenLogprobs,
)
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.server.run import remarks_of
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.worker import protocol
from cogvlm2_lite.worker.client import EngineProcess, EngineState, News, describe_exit
from cogvlm2_lite.worker.heartbeat import Patience
from cogvlm2_lite.worker.main import Worker
from cogvlm2_lite.worker.protocol import Ask, DecodedImage, Died, Emitted, Failed, Load, Loaded
from tests.helpers.asking import Answer, SilentAfter, ask
from tests.helpers.scripted_model import small_plan

SIGN = next(p.path for p in sample_pictures() if p.path.name == "sign.png")
QUESTION = "What is written on the sign?"
LONG = Sampling(max_new_tokens=400, temperature=1.5, seed=3, repetition_guard=False)
WAIT_S = 120.0


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess(LoadOptions(folder=checkpoint_folder(), dtype="float32")) as process:
        process.wait_ready(WAIT_S)
        yield process


def text_of(events: Iterator[object]) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta))


def finished(events: Iterator[object]) -> Finished:
    last = list(events)[-1]
    assert isinstance(last, Finished)
    return last


def test_the_process_gives_the_answer_of_the_library(engine: EngineProcess) -> None:
    import cogvlm2_lite

    model = cogvlm2_lite.load(checkpoint_folder(), dtype="float32")
    expected = finished(model.answer(QUESTION, SIGN))
    told = finished(ask(engine, QUESTION, SIGN.read_bytes()))
    assert (told.text, told.prompt_tokens, told.completion_tokens) == (
        expected.text,
        expected.prompt_tokens,
        expected.completion_tokens,
    )


def test_pixels_that_the_owner_decoded_are_the_same_picture(engine: EngineProcess) -> None:
    opened = open_image(SIGN)
    decoded = DecodedImage(
        width=opened.width, height=opened.height, sha256=opened.sha256, format=opened.format,
        original_size=opened.original_size,
    )  # fmt: skip
    file = finished(ask(engine, QUESTION, SIGN.read_bytes()))
    told = finished(
        Answer(
            engine,
            Ask(
                request=engine.new_request(), question=QUESTION, image=opened.rgb.tobytes(),
                decoded=decoded, sampling=Sampling(),
            ),
        )
    )  # fmt: skip
    assert (told.text, told.token_ids) == (file.text, file.token_ids)
    broken = Ask(request=engine.new_request(), question=QUESTION, image=b"few", decoded=decoded)
    with pytest.raises(CogVLM2LiteError, match="3 bytes"):
        finished(Answer(engine, broken))


def test_importing_the_owners_side_loads_no_torch() -> None:
    code = "import cogvlm2_lite.worker.client, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_lost_gpu_is_told_and_ends_the_process_so_that_another_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class LosingEngine:
        busy = full = False

        def begin(self, *_: object) -> None:
            self.busy = self.full = True

        def turn(self) -> Iterator[object]:
            yield 1, DeviceError("The GPU stopped working.", hint="Start again.")

    model = SimpleNamespace(
        engine=LosingEngine(),
        plan=small_plan(),
        compute=SimpleNamespace(device="cuda:0", dtype="torch.bfloat16", reason="it does"),
        config=SimpleNamespace(vision=SimpleNamespace(image_tokens=4)),
        warnings=(Text("A file is not complete."),),
        adapter=None,
        adapters=(),
        adapter_remarks=(),
    )
    monkeypatch.setattr("cogvlm2_lite.engine.model.load_with", lambda _: model)
    commands, reports = SilentAfter(), BytesIO()
    protocol.write_message(commands, Load(options=LoadOptions(folder=Path("anywhere"))))
    protocol.write_message(commands, Ask(request=1, question="What?"))
    commands.seek(0)
    with pytest.raises(SystemExit):
        Worker(commands, reports).run()
    reports.seek(0)
    loaded, failed = protocol.read_message(reports), protocol.read_message(reports)
    assert isinstance(loaded, Loaded)
    assert remarks_of(loaded) == ["A file is not complete."]
    assert failed == Failed(
        request=1,
        kind="DeviceError",
        message=Text("The GPU stopped working."),
        hint=Text("Start again."),
    )


class Conversation:
    """The pipe of an owner that sends commands one by one."""

    def __init__(self) -> None:
        self._sent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = b""

    def send(self, message: protocol.Command) -> None:
        self._sent.put(protocol.encode(message))

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._rest += self._sent.get()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class Reports(BytesIO):
    """The other pipe; notes what was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: queue.SimpleQueue[object] = queue.SimpleQueue()

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self.messages.put(protocol.read_message(BytesIO(data)))
        return len(data)


def test_answers_continue_while_the_picture_of_another_question_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = threading.Semaphore(0)

    class FirstAnswers:
        """The first answer ends when the other questions have begun."""

        full = False

        def __init__(self) -> None:
            self.begun: list[int] = []

        @property
        def busy(self) -> bool:
            return bool(self.begun)

        def begin(self, number: int, *_: object) -> None:
            self.begun.append(number)

        def turn(self) -> Iterator[object]:
            turns.release()
            if 3 in self.begun:
                yield from ((number, DeviceError("It ends.")) for number in self.begun)

    def decode(data: bytes, **_: object) -> None:
        assert turns.acquire(timeout=5.0), "the first answer does not continue"
        if data == b"damaged":
            raise ImageError("The picture is damaged.")

    model = SimpleNamespace(
        engine=FirstAnswers(), plan=small_plan(), warnings=(), adapter=None, adapters=(),
        compute=SimpleNamespace(device="cpu", dtype="torch.bfloat16", reason="it does"),
        config=SimpleNamespace(vision=SimpleNamespace(image_tokens=4)), adapter_remarks=(),
    )  # fmt: skip
    monkeypatch.setattr("cogvlm2_lite.engine.model.load_with", lambda _: model)
    monkeypatch.setattr("cogvlm2_lite.worker.main.open_image", decode)
    commands, reports = Conversation(), Reports()
    worker = Worker(cast(BinaryIO, commands), reports)

    def work() -> None:
        with suppress(SystemExit):
            worker.run()

    thread = threading.Thread(target=work)
    thread.start()
    commands.send(Load(options=LoadOptions(folder=Path("anywhere"))))
    assert isinstance(reports.messages.get(timeout=WAIT_S), Loaded)
    for number, image in ((1, None), (2, b"damaged"), (3, b"sound")):
        commands.send(Ask(request=number, question="What?", image=image))
    ends = [reports.messages.get(timeout=WAIT_S) for _ in range(3)]
    assert [(end.request, end.kind) for end in ends if isinstance(end, Failed)] == [
        (2, "ImageError"), (1, "DeviceError"), (3, "DeviceError"),
    ]  # fmt: skip
    thread.join()


def test_a_cancel_ends_a_long_answer(engine: EngineProcess) -> None:
    answer = ask(engine, "Hello", sampling=LONG)
    for event in answer:
        if isinstance(event, TextDelta):
            answer.cancel()
            break
    end = finished(answer)
    assert end.reason is FinishReason.CANCELLED
    assert end.completion_tokens < 200


def test_a_question_that_waits_can_be_cancelled_and_the_others_are_unharmed(
    engine: EngineProcess,
) -> None:
    first = ask(engine, "Hello", sampling=LONG)
    second = ask(engine, "Hello", sampling=LONG)
    third = ask(engine, QUESTION, SIGN.read_bytes())
    second.cancel()
    first.cancel()
    assert finished(first).reason is FinishReason.CANCELLED
    assert finished(second).reason is FinishReason.CANCELLED
    assert finished(third).reason is FinishReason.EOS


@pytest.mark.parametrize(
    ("question", "image", "kind"),
    [("What?", b"no picture", ImageError), ("word " * 9000, None, PromptTooLongError)],
)
def test_errors_cross_the_border_with_their_kind(
    engine: EngineProcess, question: str, image: bytes | None, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        list(ask(engine, question, image))
    assert str(caught.value)


def test_a_folder_that_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    with EngineProcess(LoadOptions(folder=tmp_path)) as process:
        with pytest.raises(CheckpointError):
            process.wait_ready(WAIT_S)
        assert process.state is EngineState.EMPTY


def test_unloading_gives_the_model_back_and_loading_again_answers() -> None:
    news: list[News] = []
    told = threading.Event()

    def note(item: News) -> None:
        news.append(item)
        if isinstance(item, protocol.Unloaded):
            told.set()

    with EngineProcess(LoadOptions(folder=checkpoint_folder()), on_news=note) as process:
        process.wait_ready(WAIT_S)
        process.unload()
        assert told.wait(WAIT_S)
        with pytest.raises(EngineError, match="no model loaded"):
            ask(process, "Hello")
        process.reload()
        process.wait_ready(WAIT_S)
        assert finished(ask(process, QUESTION, SIGN.read_bytes())).text
    assert [type(n) for n in news] == [Loaded, protocol.Unloaded, Loaded]


def test_warming_up_reports_the_bytes_and_ends_with_a_model_that_is_ready() -> None:
    news: list[News] = []
    options = LoadOptions(folder=checkpoint_folder())
    with EngineProcess(options, on_news=news.append, warm_up=True) as process:
        process.wait_ready(WAIT_S)
        *steps, last = news
        loading = [step for step in steps if isinstance(step, protocol.Loading)]
        assert isinstance(last, Loaded)
        assert len(loading) == len(steps) > 1
        done = [step.done_bytes for step in loading]
        assert done == sorted(done)
        assert {step.total_bytes for step in loading} == {done[-1]}
        assert done[-1] > 2_000_000, "most of the demo model's language part"
        assert finished(ask(process, QUESTION, SIGN.read_bytes())).text


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a POSIX signal")
@pytest.mark.parametrize("moment", range(3))
def test_a_kill_at_a_random_moment_ends_every_answer_and_a_restart_works(moment: int) -> None:
    died = threading.Event()

    def note(item: News) -> None:
        if isinstance(item, Died):
            died.set()

    process = EngineProcess(LoadOptions(folder=checkpoint_folder(), dtype="float32"), on_news=note)
    process.start()
    process.wait_ready(WAIT_S)
    waiting = ask(process, QUESTION, SIGN.read_bytes())
    answer = ask(process, "Hello", SIGN.read_bytes(), sampling=LONG)
    both = chain(waiting, answer)
    for _ in range(random.Random(moment).randrange(0, 12)):
        next(both)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"killed \(signal 9, SIGKILL\).*memory"):
        list(both)
    assert died.wait(WAIT_S)
    assert process.state is EngineState.DEAD
    with pytest.raises(EngineError, match="killed"):
        ask(process, "Hello")
    process.restart()
    process.wait_ready(WAIT_S)
    assert finished(ask(process, QUESTION, SIGN.read_bytes())).reason is FinishReason.EOS
    process.stop()
    assert process.pid is None


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a POSIX signal")
@pytest.mark.parametrize("idle", [False, True])
def test_a_process_that_stands_still_is_ended_with_the_reason(idle: bool) -> None:
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    patience = Patience(silence_s=6.0)
    process = EngineProcess(
        LoadOptions(folder=checkpoint_folder(), dtype="float32"),
        on_news=news.put,
        patience=patience,
    )
    process.start()
    assert isinstance(news.get(timeout=WAIT_S), Loaded)
    answer = ask(process, "Hello", sampling=LONG)
    if idle:
        answer.cancel()
        finished(answer)
    else:
        next(answer)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    if not idle:
        with pytest.raises(EngineError, match=r"stopped responding \(no message for \d+ s\)"):
            list(answer)
    died = news.get(timeout=WAIT_S)
    assert isinstance(died, Died)
    assert "stopped responding" in died.reason
    process.restart()
    process.wait_ready(WAIT_S)
    assert finished(ask(process, QUESTION, SIGN.read_bytes())).reason is FinishReason.EOS
    process.stop()


_STUCK = """
import threading
from cogvlm2_lite.worker import heartbeat
from cogvlm2_lite.worker import main as worker
from cogvlm2_lite.model.decoder import DecoderBlock
heartbeat.FIRST_STEP_S = 3.0
DecoderBlock.__call__ = lambda *_: threading.Event().wait()
worker.main()
"""

_SLOW = """
import threading
from cogvlm2_lite.worker import heartbeat
from cogvlm2_lite.worker import main as worker
from cogvlm2_lite.model.decoder import DecoderBlock
heartbeat.FIRST_STEP_S = 3.0
whole = DecoderBlock.__call__
def slow(self, x, step):
    threading.Event().wait(0.4)
    return whole(self, x, step)
DecoderBlock.__call__ = slow
worker.main()
"""


def changed_engine(script: str) -> EngineProcess:
    command = [sys.executable, "-P", "-c", script]
    return EngineProcess(LoadOptions(folder=checkpoint_folder()), command=command)


def test_a_step_that_never_ends_is_noticed_though_the_process_lives() -> None:
    with changed_engine(_STUCK) as engine:
        engine.wait_ready(WAIT_S)
        with pytest.raises(EngineError, match=r"responding \(one step took more than [45] s\)"):
            list(ask(engine, "Hello"))


def test_a_slow_answer_is_not_taken_for_hung() -> None:
    with changed_engine(_SLOW) as engine:
        engine.wait_ready(WAIT_S)
        # Four layers for the prompt and for each of two more tokens: more than 4 s.
        assert finished(ask(engine, "Hello", sampling=Sampling(max_new_tokens=3))).text


def test_the_process_leaves_with_its_owner() -> None:
    command = [sys.executable, "-m", "cogvlm2_lite.worker.main"]
    child = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=WAIT_S)
    assert child.returncode == 0


def test_a_process_that_speaks_nonsense_is_ended_and_named() -> None:
    command = [sys.executable, "-c", "import time; print('hello world', flush=True)"]
    process = EngineProcess(LoadOptions(folder=Path("x")), command=command)
    process.start()
    with pytest.raises(EngineError, match="can't be read"):
        process.wait_ready(WAIT_S)
    process.stop()


def test_exits_are_told_in_words() -> None:
    assert "memory runs out" in describe_exit(-9)
    assert "crashed (signal 11, SIGSEGV)" in describe_exit(-11)
    assert "exit code 3" in describe_exit(3)


LIKELIHOOD = CandidateToken(token="\\xe7", data=(0xE7,), logprob=-0.25)
SCORE = TokenLogprobs(chosen=LIKELIHOOD, top=(structs.replace(LIKELIHOOD, data=None), LIKELIHOOD))
MESSAGES: list[protocol.Message] = [
    Load(options=LoadOptions(folder=Path("a"), device="cpu", pictures=(Path("b"), 7))),
    Load(
        options=LoadOptions(
            folder=Path("a"),
            adapters=(AdapterChoice(name="\u7968", folder=Path("c=d"), weight=-0.5),),
        )
    ),
    Loaded(
        plan={"peak_bytes": 1},
        compute="cpu",
        context=1,
        image_tokens=1,
        adapters=("\u7968", "b"),
        adapter_remarks=(Text("The adapter {name} is zero.", name="b"),),
    ),
    Ask(request=3, question="\ud800 \U0001f600", image=b"\x00\xff", page=2, history=(("a", "b"),)),
    Ask(
        request=3,
        question="?",
        image=bytes(6),
        decoded=DecodedImage(
            width=2,
            height=1,
            sha256="a",
            format="PNG",
            original_size=(1, 2),
            page=2,
            pages=3,
            notices=(Text("page {page}", page=2),),
        ),
    ),
    Ask(
        request=4,
        question="",
        sampling=Sampling(stop=("x", "y"), seed=1),
        template="vqa",
        adapter="b",
    ),
    protocol.CancelRequest(request=4),
    protocol.Heartbeat(stalled_s=1.5, plausible_s=120.0),
    protocol.Failed(
        request=1, kind="ImageError", message=Text("{count} m", count=2), hint=Text("h")
    ),
    Emitted(
        request=1,
        event=PictureOpened(page=1, pages=3, notices=(Text("page 1 of {count}", count=3),)),
    ),
    Emitted(request=1, event=Replanned(text=Text("t"), budget_bytes=(1, 2))),
    Emitted(request=1, event=TextDelta(text="\u7684", tokens=(SCORE,))),
    Emitted(
        request=1,
        event=Finished(
            text="t",
            reason=FinishReason.EOS,
            prompt_tokens=1,
            image_tokens=0,
            completion_tokens=2,
            encode_s=0.0,
            prefill_s=0.1,
            decode_s=0.2,
        ),
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_survives_its_frame(message: protocol.Message) -> None:
    assert protocol.read_message(BytesIO(protocol.encode(message))) == message


BODIES = [json.loads(protocol.encode(message)[8:]) for message in MESSAGES[5:]]


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_with_one_kind_of_error(data: bytes) -> None:
    try:
        message = protocol.read_message(BytesIO(data))
    except EngineError:
        return
    assert message is None


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(BODIES),
    st.dictionaries(
        st.sampled_from(["what", "request", "event", "sampling", "question", "image"]),
        st.one_of(
            st.none(), st.integers(), st.text(max_size=5), st.sampled_from(["Ask", "Emitted"])
        ),
    ),
)
def test_mutated_messages_are_refused_or_read(base: dict[str, object], change: object) -> None:
    assert isinstance(change, dict)
    body = json.dumps({**base, **change}).encode()
    try:
        protocol.decode(body)
    except EngineError:
        return
