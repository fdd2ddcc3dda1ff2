"""Many pictures: each one's trouble is its own, and what was answered stays answered."""

from __future__ import annotations

import csv
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from msgspec import structs
from PIL import Image

from cogvlm2_lite.batch.work import (
    CSV,
    JSONL,
    BatchProgress,
    Paused,
    PictureStarted,
    Resumed,
    Task,
    run_batch,
)
from cogvlm2_lite.cli.batch import main
from cogvlm2_lite.control import Control
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import DoesNotFitError, EngineError, ImageError, UsageError
from cogvlm2_lite.events import Finished, FinishReason, TextDelta
from cogvlm2_lite.worker.client import EngineState, Outcome
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.evaluating import STREAMED
from tests.helpers.worker_engine import FakeEngine

SHIPPED = checkpoint_folder().parent / "pictures"


class ScriptedEngine(FakeEngine):
    """Answers with the picture's size in bytes; some pictures have a fate of their own.

    "slow" pictures are answered when `parallel` of them are under way, the last one first; after a
    restart, at once.
    """

    def __init__(
        self, fates: dict[bytes, str] | None = None, *, parallel: int = 1, streamed: bool = False
    ) -> None:
        super().__init__(parallel=parallel)
        self.become_ready()
        if streamed:
            assert self.loaded is not None
            self.loaded = structs.replace(self.loaded, plan=STREAMED)
        self.fates = fates or {}
        self.under_way: list[int] = []
        """How many other questions were in progress when each one came."""
        self.closed = 0
        self.most_under_way = 0
        self._open: dict[int, tuple[Ask, Callable[[Outcome], None]]] = {}

    @property
    def images(self) -> list[bytes]:
        """The pictures that were asked about, in order."""
        return [ask.image or b"" for ask in self.asked]

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        if self.state is EngineState.DEAD:
            raise EngineError("The engine was killed.")
        self.asked.append(ask)
        self.under_way.append(len(self._open))
        self._open[ask.request] = ask, deliver
        self.most_under_way = max(self.most_under_way, len(self._open))
        assert len(self._open) <= self._parallel
        fate = self.fates.get(ask.image or b"", "")
        if fate == "deadly":
            self.state = EngineState.DEAD
        if fate == "slow" and not self.restarts and len(self._open) < self._parallel:
            return ask.request
        everything = fate in ("deadly", "slow")
        for request in [*reversed(self._open)] if everything else [ask.request]:
            self._answer(*self._open.pop(request))
        return ask.request

    def _answer(self, ask: Ask, deliver: Callable[[Outcome], None]) -> None:
        assert ask.image is not None
        fate = self.fates.get(ask.image, "")
        if self.state is EngineState.DEAD:
            deliver(EngineError("The engine was killed."))
            return
        if fate == "broken":
            deliver(ImageError("The picture is damaged.", hint="Save it again."))
            return
        loops = fate == "loop" and ask.sampling.temperature == 0
        reason = FinishReason.REPETITION if loops else FinishReason.EOS
        text = " round and round" if loops else f" {len(ask.image)} bytes"
        deliver(TextDelta(text=text))
        end = Finished(
            text=text, reason=reason, prompt_tokens=1, image_tokens=1, completion_tokens=2,
            encode_s=0, prefill_s=0, decode_s=0,
        )  # fmt: skip
        deliver(end)

    def cancel(self, request: int) -> None:
        self.closed += 1


def pictures(folder: Path, count: int = 3) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    found = []
    for number in range(count):
        file = folder / f"p{number}.png"
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(file)
        found.append(file.read_bytes())
    return found


def run(folder: Path, engine: ScriptedEngine, **rest: object) -> list[BatchProgress]:
    output = rest.pop("output", folder)
    task = Task(folder=folder, question="What?", output=output, **rest)  # type: ignore[arg-type]
    return [each for each in run_batch(task, engine) if isinstance(each, BatchProgress)]


def test_every_answer_is_saved_in_three_forms(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    steps = run(tmp_path, ScriptedEngine())
    assert [(s.done, s.total, s.failed) for s in steps] == [(1, 3, 0), (2, 3, 0), (3, 3, 0)]
    assert (tmp_path / "p1.txt").read_text() == f"{len(data[1])} bytes\n"
    rows = [json.loads(line) for line in (tmp_path / JSONL).read_text().splitlines()]
    assert [row["picture"] for row in rows] == ["p0.png", "p1.png", "p2.png"]
    with (tmp_path / CSV).open(encoding="utf-8-sig", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["answer"] for row in table] == [f"{len(d)} bytes" for d in data]


def test_what_is_answered_is_not_asked_again(tmp_path: Path) -> None:
    pictures(tmp_path)
    run(tmp_path, ScriptedEngine())
    pictures(tmp_path, 4)
    again = ScriptedEngine()
    steps = run(tmp_path, again)
    assert len(again.asked) == 1
    assert (steps[-1].skipped, steps[-1].done) == (3, 4)
    everything = ScriptedEngine()
    run(tmp_path, everything, overwrite=True)
    assert len(everything.asked) == 4


def test_another_question_is_asked_about_all(tmp_path: Path) -> None:
    pictures(tmp_path)
    run(tmp_path, ScriptedEngine())
    engine = ScriptedEngine()
    list(run_batch(Task(folder=tmp_path, question="Why?", output=tmp_path), engine))
    assert len(engine.asked) == 3


def test_one_pictures_trouble_is_its_own_and_it_is_tried_again(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    engine = ScriptedEngine({data[0]: "broken", data[1]: "deadly"})
    steps = run(tmp_path, engine)
    assert [s.answered.error for s in steps] == [
        "The picture is damaged. Save it again.",
        "The engine was killed.",
        "",
    ]
    assert engine.restarts == 1
    assert not (tmp_path / "p0.txt").exists()
    healed = ScriptedEngine()
    run(tmp_path, healed)
    assert healed.images == data[:2]


def test_an_answer_that_ran_in_circles_is_tried_once_more(tmp_path: Path) -> None:
    data = pictures(tmp_path, 1)
    engine = ScriptedEngine({data[0]: "loop"})
    [step] = run(tmp_path, engine)
    assert step.answered.answer == f"{len(data[0])} bytes"
    assert [ask.sampling.temperature > 0 for ask in engine.asked] == [False, True]
    engine.asked.clear()
    [step] = run(tmp_path, engine, overwrite=True, retry=False)
    assert (step.answered.reason, len(engine.asked)) == ("repetition", 1)


def test_the_command_passes_the_template_on(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    engine = ScriptedEngine()
    options = ["demo", str(tmp_path), "--question", "What?", "--template", "vqa"]
    assert main(options, start=lambda _: nullcontext(engine)) == 0
    assert [ask.template for ask in engine.asked] == ["vqa"]


def test_the_text_beside_a_picture_is_its_draft_and_no_answer_is_asked_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pictures(tmp_path / "scans")
    (tmp_path / "scans" / "p0.txt").write_text("OCR text\n\f")
    (tmp_path / "scans" / "p1.txt").write_bytes(data[1])
    engine = ScriptedEngine({data[0]: "loop"})
    options = ["demo", str(tmp_path / "scans"), "--question", "What?", "--json"]
    options += ["--output", str(tmp_path)]
    drafts = ["--draft-text-suffix", ".txt"]
    assert main([*options, *drafts], start=lambda _: nullcontext(engine)) == 0
    assert [ask.draft_text for ask in engine.asked] == ["OCR text", "OCR text", "", ""]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "Pictures with a draft text: 2 of 3." in lines[0]["notes"]
    notices = [line["answered"]["notices"] for line in lines if line["event"] == "answered"]
    assert [len(each) for each in notices] == [0, 1, 0]
    assert "It is a picture (PNG)" in notices[1][0]
    assert main(options, start=lambda _: nullcontext(ScriptedEngine())) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["total"] == 3
    assert (tmp_path / "scans" / "p0.txt").read_text() == "OCR text\n\f"


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    pictures(tmp_path)
    run(tmp_path, ScriptedEngine())
    file = tmp_path / JSONL
    file.write_bytes(file.read_bytes()[:-20])
    engine = ScriptedEngine()
    run(tmp_path, engine)
    assert len(engine.asked) == 1
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 3


def test_a_foreign_file_of_that_name_is_refused_and_left_alone(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / JSONL).write_text('{"theirs": 1}\n')
    with pytest.raises(UsageError, match="did not write"):
        run(tmp_path, ScriptedEngine())
    assert (tmp_path / JSONL).read_text() == '{"theirs": 1}\n'


def test_answers_go_elsewhere_and_captions_get_their_words(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 1)
    (tmp_path / "in" / "deep").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "deep" / "x.jpg")
    out = tmp_path / "out"
    run(
        tmp_path / "in",
        ScriptedEngine(),
        output=out,
        next_to_pictures=False,
        recursive=True,
        prefix="a, ",
    )
    assert (out / "deep" / "x.txt").read_text().startswith("a, ")
    assert not list((tmp_path / "in").rglob("*.txt"))


def test_the_command_lists_refuses_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pictures(tmp_path)
    engine = ScriptedEngine({data[2]: "broken"})

    def start(options: LoadOptions) -> AbstractContextManager[ScriptedEngine]:
        return nullcontext(engine)

    arguments = ["demo", str(tmp_path), "--question", "What?"]
    assert main([*arguments, "--dry-run"], start=start) == 0
    assert capsys.readouterr().out.count(".png") == 3
    assert main([*arguments, "--json"], start=start) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = ["plan", "loading", *["asking", "answered"] * 3, "finished"]
    assert [line["event"] for line in lines] == kinds
    assert lines[0]["pictures"] == ["p0.png", "p1.png", "p2.png"]
    assert lines[-1]["failed"] == 1
    with pytest.raises(UsageError, match="empty"):
        main(["demo", str(tmp_path), "--question", " "], start=start)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no pictures"):
        main(["demo", str(tmp_path / "empty"), "--question", "x"], start=start)


def test_a_pause_holds_before_the_next_picture_and_a_stop_keeps_what_is_done(
    tmp_path: Path,
) -> None:
    pictures(tmp_path)
    engine, control = ScriptedEngine(), Control()
    task = Task(folder=tmp_path, question="What?", output=tmp_path)
    events = run_batch(task, engine, control=control)
    assert next(events) == PictureStarted(picture="p0.png")
    control.pause()
    assert isinstance(next(events), BatchProgress)
    assert isinstance(next(events), Paused)
    assert len(engine.asked) == 1
    control.resume()
    assert isinstance(next(events), Resumed)
    assert next(events) == PictureStarted(picture="p1.png")
    control.stop()
    assert list(events) == []  # the answer under way is closed and not kept
    assert engine.closed == 1
    assert len((tmp_path / JSONL).read_text().splitlines()) == 1
    assert (tmp_path / CSV).read_text(encoding="utf-8-sig").splitlines()[1].startswith("p0.png,")


# --- several at once ------------------------------------------------------------------------------


def answers(folder: Path) -> list[dict[str, object]]:
    """The lines of answers.jsonl without the times, which differ from run to run."""
    rows = [json.loads(line) for line in (folder / JSONL).read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_as_many_pictures_are_under_way_as_the_engine_answers_and_files_keep_their_order(
    tmp_path: Path,
) -> None:
    data = pictures(tmp_path, 6)
    run(tmp_path, ScriptedEngine())
    expected = answers(tmp_path)
    engine = ScriptedEngine(dict.fromkeys(data, "slow"), parallel=3)
    steps = run(tmp_path, engine, overwrite=True)
    assert engine.most_under_way == 3
    assert [step.answered.picture for step in steps] == [f"p{n}.png" for n in range(6)]
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6]
    assert answers(tmp_path)[6:] == expected


def test_of_several_under_way_only_the_deadly_picture_fails(tmp_path: Path) -> None:
    data = pictures(tmp_path, 5)
    engine = ScriptedEngine({data[0]: "slow", data[1]: "deadly", data[3]: "broken"}, parallel=3)
    steps = run(tmp_path, engine)
    assert [step.answered.error for step in steps] == [
        "",
        "The engine was killed.",
        "",
        "The picture is damaged. Save it again.",
        "",
    ]
    assert engine.restarts == 2  # when it died, and when the deadly one was asked about alone


def test_with_streamed_weights_questions_go_in_waves(tmp_path: Path) -> None:
    data = pictures(tmp_path, 7)
    engine = ScriptedEngine(dict.fromkeys(data, "slow"), parallel=3, streamed=True)
    engine.fates[data[6]] = ""  # alone in its wave, it is answered at once
    steps = run(tmp_path, engine)
    assert engine.under_way == [0, 1, 2, 0, 1, 2, 0]
    assert [step.answered.error for step in steps] == [""] * 7


def test_the_time_left_counts_what_the_questions_in_progress_have_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures(tmp_path, 9)
    now = 0.0

    class Timed(ScriptedEngine):
        def _answer(self, ask: Ask, deliver: Callable[[Outcome], None]) -> None:
            nonlocal now
            now += 10.0 if ask.image in (data[2], data[5], data[8]) else 0.0
            super()._answer(ask, deliver)

    monkeypatch.setattr("cogvlm2_lite.batch.work.time.monotonic", lambda: now)
    steps = run(tmp_path, Timed(dict.fromkeys(data, "slow"), parallel=3))
    # Three pictures take 10 s together, so the last six take 20 s.
    assert [step.seconds_left for step in steps][2] == pytest.approx(20.0)
    assert all(step.seconds_left <= 25.0 for step in steps)
    assert steps[-1].seconds_left == 0.0


def test_a_pause_begins_after_all_pictures_under_way(tmp_path: Path) -> None:
    pictures(tmp_path, 4)
    control = Control()
    task = Task(folder=tmp_path, question="What?", output=tmp_path)
    events = run_batch(task, ScriptedEngine(parallel=2), control=control)
    assert [next(events), next(events)] == [
        PictureStarted(picture="p0.png"),
        PictureStarted(picture="p1.png"),
    ]
    control.pause()
    assert [type(next(events)) for _ in range(3)] == [BatchProgress, BatchProgress, Paused]
    control.resume()
    assert isinstance(next(events), Resumed)
    assert [type(each) for each in events].count(BatchProgress) == 2


def test_a_stop_keeps_an_answer_that_came_before_its_turn(tmp_path: Path) -> None:
    data = pictures(tmp_path, 4)
    engine, control = ScriptedEngine({data[0]: "slow"}, parallel=2), Control()
    task = Task(folder=tmp_path, question="What?", output=tmp_path)
    events = run_batch(task, engine, control=control)
    for name in ("p0.png", "p1.png", "p2.png"):
        assert next(events) == PictureStarted(picture=name)
    control.stop()
    (step,) = events
    assert isinstance(step, BatchProgress)
    assert step.answered.picture == "p1.png"
    assert engine.closed == 2
    assert [row["picture"] for row in answers(tmp_path)] == ["p1.png"]
    run(tmp_path, ScriptedEngine())
    assert len(answers(tmp_path)) == 4


def test_the_demo_model_answers_several_pictures_at_once_as_one_by_one(tmp_path: Path) -> None:
    command = ["demo", str(SHIPPED), "--question", "How many shapes are there?", "--no-text"]
    for name, parallel in (("1", ["--parallel", "1"]), ("many", [])):
        assert main([*command, "--output", str(tmp_path / name), *parallel]) == 0
    assert answers(tmp_path / "many") == answers(tmp_path / "1")
    assert len(answers(tmp_path / "1")) == len(list(SHIPPED.glob("*.png")))


def at_once(tmp_path: Path, count: int, *more: str) -> tuple[int, int | None]:
    """Return the conversations and the context that `batch` asks the engine for."""
    pictures(tmp_path, count)
    found = []

    def start(options: LoadOptions) -> AbstractContextManager[ScriptedEngine]:
        found.append((options.parallel, options.context))
        return nullcontext(ScriptedEngine(parallel=options.parallel))

    command = ["demo", str(tmp_path), "--question", "What?", "--overwrite", *more]
    assert main([*command, "--device", "cpu"], start=start) == 0
    return found[0]


def test_as_many_pictures_are_asked_about_at_once_as_memory_allows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_once(tmp_path, 9)[0] == 8
    assert "To ask: 9 of 9 pictures, 8 at once." in capsys.readouterr().err
    assert at_once(tmp_path, 9, "--parallel", "1")[0] == 1
    assert "9 of 9 pictures." in capsys.readouterr().err
    assert at_once(tmp_path, 9, "--parallel", "3")[0] == 3
    roomy, tight = [
        at_once(tmp_path, 9, "--ram", size, "--max-new-tokens", "64")[0]
        for size in ("2GiB", "427MiB")
    ]
    assert roomy == 8
    assert tight < 8
    at_once(tmp_path, 9, "--ram", "427MiB", "--max-new-tokens", "64", "--parallel", "32")
    assert "Memory suffices for" in capsys.readouterr().err


def test_no_more_are_asked_about_at_once_than_there_are_pictures(tmp_path: Path) -> None:
    assert [at_once(tmp_path, count)[0] for count in (1, 2, 3, 5)] == [1, 2, 4, 8]


def test_the_cache_is_as_long_as_the_question_and_its_answer_need(tmp_path: Path) -> None:
    short, long = (at_once(tmp_path, 1, "--max-new-tokens", n)[1] for n in ("64", "512"))
    assert short is not None
    assert long is not None
    assert 64 < short <= long
    assert at_once(tmp_path, 1, "--context", "100")[1] == 100


def test_orders_come_as_lines_and_their_end_stops() -> None:
    control = Control()
    control.follow(["pause\n", "nonsense\n"])
    assert control.stopped
    assert not control.paused  # nothing waits for an owner who is gone
    control = Control()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    listener = threading.Thread(target=control.follow, args=(iter(lines.get, ""),))
    listener.start()
    lines.put("pause\n")
    while not control.paused:
        time.sleep(0.001)
    lines.put("resume\n")
    control.wait()
    assert not control.stopped
    lines.put("")
    listener.join()


def test_only_the_named_pictures_are_asked_about(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    engine = ScriptedEngine()
    steps = run(tmp_path, engine, only=("p2.png", "gone.png", "p2.png"))
    assert engine.images == [data[2]]
    assert [step.answered.error for step in steps] == [
        "",
        "gone.png can't be read: No such file or directory.",
    ]
    for name in ("../p1.png", str(tmp_path.parent / "p1.png")):
        with pytest.raises(UsageError, match="is not a path below"):
            run(tmp_path, engine, only=(name,))


def test_outputs_can_be_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    run(tmp_path, ScriptedEngine(), texts=False, table=False)
    assert sorted(f.name for f in tmp_path.iterdir()) == [JSONL, "p0.png"]


def test_a_text_file_that_can_not_be_written_is_the_pictures_error(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "p0.txt").mkdir()
    steps = run(tmp_path, ScriptedEngine())
    assert steps[0].answered.error.startswith("The text file can't be written")
    assert steps[1].answered.error == ""


def test_a_book_that_can_not_be_written_ends_the_work(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 2)
    out = tmp_path / "out"
    events = run_batch(Task(folder=tmp_path / "in", question="?", output=out), ScriptedEngine())
    next(events)
    out.write_text("a file where the folder should be")
    with pytest.raises(DoesNotFitError, match=r"answers\.jsonl can't be written"):
        next(events)
    with pytest.raises(UsageError, match="can't be read"):
        run(tmp_path / "in", ScriptedEngine(), output=out)


def test_nothing_is_loaded_when_all_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path)
    run(tmp_path, ScriptedEngine())

    def start(options: LoadOptions) -> AbstractContextManager[ScriptedEngine]:
        raise AssertionError("loaded")

    assert main(["demo", str(tmp_path), "--question", "What?", "--json"], start=start) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["picture"] for row in lines[0]["known"]] == ["p0.png", "p1.png", "p2.png"]
    assert lines[-1] == {"event": "finished", "total": 3, "failed": 0, "left": 0}


def test_a_program_gets_errors_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path), "--question", "What?", "--json"]) == 2
    line = json.loads(capsys.readouterr().out)
    assert line["event"] == "error"
    assert "has no pictures" in line["message"]
    assert main(["demo", str(tmp_path), "--question", "x", "--only", "gone", "--json"]) == 2
    assert "gone can't be read" in json.loads(capsys.readouterr().out)["message"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_the_demo_model_goes_on_after_a_kill(tmp_path: Path) -> None:
    for number in range(3):
        for file in SHIPPED.glob("*.png"):
            (tmp_path / f"{number}-{file.name}").write_bytes(file.read_bytes())
    (tmp_path / "0-broken.png").write_bytes(b"not a picture")
    command = [
        sys.executable, "-m", "cogvlm2_lite", "batch", "demo", str(tmp_path),
        "--question", "How many shapes are there?", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answers = 0
    while answers < 3:
        answers += json.loads(process.stdout.readline())["event"] == "answered"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.2)
    before = (tmp_path / JSONL).read_bytes()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1  # the broken one
    after = (tmp_path / JSONL).read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert after.startswith(whole)
    rows = [json.loads(line) for line in after.splitlines()]
    good = [row["picture"] for row in rows if not row["error"]]
    assert sorted(good) == sorted(f.name for f in tmp_path.glob("*.png") if "broken" not in f.name)
    assert (tmp_path / "1-shapes.txt").read_text() == "4\n"
