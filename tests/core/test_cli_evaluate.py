"""The command `evaluate`: its events, its comparisons, and the demo model from start to report."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.evaluate import main
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.model import load
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import DataError, DoesNotFitError, NoFolderError, UsageError
from cogvlm2_lite.evaluate import kl
from cogvlm2_lite.evaluate.compare import CompareProgress
from cogvlm2_lite.events import ImageEncoded
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask
from quantize.command import main as quantize
from tests.helpers.evaluating import ScriptedAnswers, mm_bench, no_engine, starting, text_vqa
from tests.helpers.worker_engine import FakeEngine


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text_vqa(tmp_path)


Start = Callable[[LoadOptions], AbstractContextManager[WorkerEngine]]


def run(*words: str, start: Start = no_engine, lines: Sequence[str] = ()) -> tuple[int, str, str]:
    """Run the command; return the exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    code = main(words, start=start, console=Console(out, err), control_lines=lines)
    return code, out.getvalue(), err.getvalue()


MINE = ("demo", "textvqa", "--data", "TextVQA_VAL.tsv")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_events_of_a_run() -> None:
    code, out, _ = run(*MINE, "--json", start=starting(ScriptedAnswers()))
    found = events(out)
    assert code == 0
    assert [each["event"] for each in found] == [
        "plan", "loading", *["answered"] * 15, "scored", "finished",
    ]  # fmt: skip
    assert found[0]["questions"] == found[0]["todo"] == 15
    assert (found[0]["pictures"], found[0]["folder"]) == (5, "evaluate/demo/textvqa")
    assert [each["done"] for each in found[2:17]] == list(range(1, 16))
    assert found[16]["seconds_left"] == 0
    assert found[17]["value"] == pytest.approx(100)
    assert Path(found[17]["report"]).is_file()
    assert found[18] == {"event": "finished", "total": 15, "failed": 0, "left": 0}
    _, out, _ = run(*MINE, "--json")
    assert [each["event"] for each in events(out)] == ["plan", "scored", "finished"]
    assert events(out)[0]["known"] == 15


def test_the_text_says_what_is_asked_and_what_came_out() -> None:
    code, out, err = run(*MINE, "--limit", "4", start=starting(ScriptedAnswers()))
    assert code == 0
    assert "6 of 15 questions, chosen with seed 0, protocol vlmevalkit, at most 64 tokens" in err
    assert "To ask: 6 about 2 pictures, 8 at once, about" in err
    assert "The answers go to evaluate/demo/textvqa." in err
    assert out.startswith("TextVQA: 100.0 points")
    assert "published, protocol unknown" in out
    assert "report: evaluate/demo/textvqa/report.html" in out
    _, _, err = run(*MINE, start=starting(ScriptedAnswers()))
    assert "6 are answered already. To ask: 9 about 3 pictures" in err


def test_an_error_is_an_event() -> None:
    code, out, _ = run("demo", "docvqa", "--data", ".", "--json")
    assert code == DataError.exit_code
    assert [each["event"] for each in events(out)] == ["error"]
    assert events(out)[0]["hint"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "textvqa", "--limit", "0"), "--limit must be 1 or more, not 0"),
        (("demo", "textvqa", "--max-new-tokens", "0"), "--max-new-tokens must be 1 or more"),
        (("demo", "textvqa", "--score-only", "--restart"), "--score-only can't be combined"),
        (("demo", "textvqa", "docvqa", "--grades", "x"), "--grades needs a single benchmark"),
        (("demo", "textvqa", "--predictions", "x", "--restart"), "--predictions can't be combined"),
        ((*MINE, "--parallel", "0"), "--parallel must be between 1 and"),
        ((*MINE, "--seed", "-1"), "--seed must be 0 or more"),
        (("demo", "textvqa", "textvqa", "--data", "TextVQA_VAL.tsv"), "textvqa is named twice"),
        ((*MINE, "--against", "demo"), "Both models have the name demo"),
        (("demo", "nonsense"), "Unknown benchmark 'nonsense'"),
    ],
)
def test_wrong_options_are_refused(words: Sequence[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(*words)


def test_a_missing_model_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NoFolderError):
        run("gone", *MINE[1:])
    assert not (tmp_path / "evaluate").exists()


def test_the_control_stops_the_work(tmp_path: Path) -> None:
    code, out, _ = run(
        *MINE, "--json", "--control", start=starting(ScriptedAnswers()), lines=["stop\n"]
    )
    assert code == 1
    assert events(out)[-1]["left"] == 15
    assert run(*MINE, start=starting(ScriptedAnswers()))[0] == 0


def test_two_commands_in_one_folder_are_refused(tmp_path: Path) -> None:
    class Nested(ScriptedAnswers):
        def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
            with pytest.raises(UsageError, match="Another evaluate is writing its answers"):
                run(*MINE)
            return super().submit(ask, deliver)

    assert run(*MINE, "--limit", "1", start=starting(Nested()))[0] == 0


# --- comparisons ----------------------------------------------------------------------------------


class Worse(ScriptedAnswers):
    """Answers some questions differently."""

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        changed = ask.question.startswith(("What is 3", "What is 1?"))
        other = Ask(**{name: getattr(ask, name) for name in ask.__struct_fields__})
        if changed:
            other = Ask(request=ask.request, question="other", image=ask.image, decoded=ask.decoded)
        return super().submit(other, deliver)


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "nf4"
    assert quantize([str(checkpoint_folder()), str(folder), "--json"]) == 0
    return folder


def either(nf4: Path) -> Start:
    """Start the engine that belongs to a folder: the 4-bit one is worse."""
    engines = {True: Worse(), False: ScriptedAnswers()}
    return lambda options: starting(engines[options.folder == nf4])(options)


def test_the_model_with_4_bits_is_compared_with_the_other_in_either_order(
    nf4: Path, tmp_path: Path
) -> None:
    words = ("textvqa", "--data", "TextVQA_VAL.tsv", "--json")
    _, out, _ = (
        run("demo", *words, "--against", str(nf4), "--score-only")
        if False
        else run("demo", *words, "--against", str(nf4), start=either(nf4))
    )
    found = events(out)
    assert [each["event"] for each in found if each["event"] != "answered"] == [
        "plan", "plan", "loading", "loading", "scored", "compared", "scored", "finished",
    ]  # fmt: skip
    (compared,) = [each for each in found if each["event"] == "compared"]
    assert (compared["a"], compared["b"]) == ("demo", str(nf4))
    assert compared["loss"] == pytest.approx(100 * 2 / 15)
    assert compared["changed"] == pytest.approx(2 / 15)
    assert compared["kl"]["value"] > 0  # of the demo model and its 4-bit folder
    # Both runs are finished now: nothing is loaded, and the divergence is not measured again.
    _, out, _ = run(str(nf4), *words, "--against", "demo")
    (again,) = [each for each in events(out) if each["event"] == "compared"]
    assert {**again, "kl": None} == {**compared, "kl": None}
    assert again["kl"] == compared["kl"]
    page = Path("evaluate/nf4/textvqa/report.html").read_text(encoding="utf-8")
    assert "13.3 points" in page


def test_finished_runs_are_compared_without_a_model(nf4: Path, tmp_path: Path) -> None:
    words = ("textvqa", "--data", "TextVQA_VAL.tsv")
    run("demo", *words, start=either(nf4))
    run(str(nf4), *words, start=either(nf4))
    code, out, _ = run("nf4", *words, "--score-only", "--against", "evaluate/demo/textvqa")
    assert code == 0
    assert "13.3 points" in out
    assert run("nf4", *words, "--score-only", "--against", "evaluate/demo")[1] == out
    assert run("nf4", *words, "--score-only", "--against", "demo")[1] == out
    with pytest.raises(UsageError, match="no run in evaluate/gone/textvqa"):
        run("nf4", *words, "--score-only", "--against", "gone")


def test_runs_that_were_asked_differently_are_not_compared(tmp_path: Path) -> None:
    run(*MINE, start=starting(ScriptedAnswers()))
    run(*MINE, "--output", "b", "--protocol", "vqa-template", start=starting(ScriptedAnswers()))
    with pytest.raises(UsageError, match=r"can't be compared.*vlmevalkit.*vqa-template"):
        run(*MINE, "--against", "b")


def test_a_run_is_not_compared_with_itself_or_with_none(tmp_path: Path) -> None:
    run(*MINE, start=starting(ScriptedAnswers()))
    with pytest.raises(UsageError, match="is the run of the model itself"):
        run(*MINE, "--against", "evaluate/demo/textvqa")
    mm_bench(tmp_path)
    with pytest.raises(UsageError, match=r"no run of mmbench in evaluate/demo"):
        run(
            "demo",
            "textvqa",
            "mmbench",
            "--data",
            ".",
            "--output",
            "b",
            "--against",
            "evaluate/demo",
        )


def test_a_divergence_that_cant_be_measured_costs_no_report(
    nf4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Iterator[CompareProgress]:
        yield CompareProgress(model=nf4, share=0.1, seconds_left=1.0)
        raise DoesNotFitError("There is no room.")

    monkeypatch.setattr(kl, "compare", fail)
    words = ("textvqa", "--data", "TextVQA_VAL.tsv", "--against", "demo")
    code, out, err = run(str(nf4), *words, start=either(nf4))
    assert code == 0
    assert "The KL divergence was not measured: There is no room." in err
    assert "13.3 points" in out


def test_several_benchmarks_have_a_folder_each(tmp_path: Path) -> None:
    other = text_vqa(tmp_path / "more", pictures=2)
    run("demo", str(other), "--output", "one", start=starting(ScriptedAnswers()))
    assert (tmp_path / "one" / "run.json").is_file()
    mm_bench(tmp_path / "more")
    words = ("demo", "textvqa", "mmbench", "--data", "more", "--output", "two")
    assert run(*words, start=starting(ScriptedAnswers()))[0] == 0
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"textvqa", "mmbench"}


# --- files of other programs ----------------------------------------------------------------------


def test_predictions_of_vlmevalkit_are_scored_without_a_model(tmp_path: Path) -> None:
    run(*MINE, "--export", start=starting(ScriptedAnswers()))
    exported = tmp_path / "evaluate/demo/textvqa/textvqa_vlmevalkit.tsv"
    code, out, _ = run("someone", *MINE[1:], "--predictions", str(exported), "--json")
    assert code == 0
    scored = events(out)[-2]
    assert scored["value"] == pytest.approx(100)
    assert scored["folder"] == "evaluate/someone/textvqa-predictions"


def test_a_file_without_answers_is_exported_and_gets_no_score(tmp_path: Path) -> None:
    file = mm_bench(tmp_path)
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    test = tmp_path / "MMBench_TEST_EN.tsv"
    test.write_text("\n".join("\t".join([*row[:7], *row[8:]]) for row in rows) + "\n")
    file.unlink()
    words = ("demo", "mmbench", "--data", str(test), "--output", "out")
    with pytest.raises(DataError, match="has no answers"):
        run(*words)
    code, out, err = run(*words, "--export", start=starting(ScriptedAnswers()))
    assert code == 0
    assert "mmbench: not scored, because the file has no answers." in out
    assert "Wrote out/mmbench_vlmevalkit.tsv." in err
    assert not Path("out/scores.json").exists()


# --- the real engine ------------------------------------------------------------------------------


class OneProcess(FakeEngine):
    """The demo model in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.model = load("demo", device="cpu", dtype="float32")
        self.encoded: list[bool] = []

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        assert ask.image is not None
        assert ask.decoded is not None
        size = (ask.decoded.width, ask.decoded.height)
        picture = Image.frombytes("RGB", size, ask.image)
        for event in self.model.answer(
            ask.question, picture, sampling=ask.sampling, template=ask.template
        ):
            if isinstance(event, ImageEncoded):
                self.encoded.append(event.reused)
            deliver(event)
        return ask.request


def test_a_picture_of_four_rows_is_encoded_once(tmp_path: Path) -> None:
    engine = OneProcess()

    def start(options: LoadOptions) -> AbstractContextManager[WorkerEngine]:
        engine.start()
        return nullcontext(engine)

    mm_bench(tmp_path)
    assert run("demo", "mmbench", "--data", ".", "--parallel", "1", start=start)[0] == 0
    assert len(engine.encoded) == 9
    assert engine.encoded.count(False) == 3
