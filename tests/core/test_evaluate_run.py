"""Asking a benchmark's questions: nothing is lost, nothing is asked twice, nothing is mixed."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import socket
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.evaluate import main
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import DoesNotFitError, EngineError, UsageError
from cogvlm2_lite.evaluate.answers import Answered, SavedAnswers
from cogvlm2_lite.evaluate.find import find_data
from cogvlm2_lite.evaluate.items import plain_rgb
from tests.helpers.evaluating import (
    ScriptedAnswers,
    answer_to,
    no_engine,
    png,
    starting,
    text_vqa,
)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def evaluate(engine: ScriptedAnswers | None, *words: str, model: str = "demo") -> tuple[int, str]:
    """Run the command on TextVQA_VAL.tsv; return the exit code and standard output."""
    out = io.StringIO()
    code = main(
        [model, "textvqa", "--data", "TextVQA_VAL.tsv", *words],
        start=no_engine if engine is None else starting(engine),
        console=Console(out, io.StringIO()),
    )
    return code, out.getvalue()


RUN = Path("evaluate/demo/textvqa")


def saved(folder: Path = RUN) -> dict[str, Answered]:
    return SavedAnswers(folder).newest()


def texts(folder: Path = RUN) -> dict[str, str]:
    return {name: answered.answer for name, answered in saved(folder).items()}


def lines(folder: Path = RUN) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


# --- what is asked --------------------------------------------------------------------------------


def test_questions_about_a_picture_follow_each_other_and_never_overlap(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    single = ScriptedAnswers()
    assert evaluate(single)[0] == 0
    pictures = [ask.decoded.sha256 for ask in single.asked if ask.decoded]
    assert len(pictures) == 15
    assert len([p for before, p in pairwise(["", *pictures]) if p != before]) == 5
    assert texts() == {str(n): answer_to(f"What is {n}?") for n in range(15)}
    several = ScriptedAnswers(parallel=3)
    assert evaluate(several, "--output", "several", "--parallel", "3")[0] == 0
    assert texts(Path("several")) == texts()
    assert max(map(len, several.together)) == 3
    assert all(len(set(each)) == len(each) for each in several.together)
    assert len(several.encoded) == 5
    assert several.late > 0


def test_with_streamed_weights_questions_go_in_waves(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    engine = ScriptedAnswers(parallel=4, streamed=True)
    assert evaluate(engine, "--parallel", "4")[0] == 0
    assert engine.late == 0
    # Pictures that the engine has come before new ones: 4 pictures, three waves, then the last one.
    assert [len(each) for each in engine.together] == [1, 2, 3, 4] * 3 + [1, 1, 1]
    assert len(engine.encoded) == 5


def test_the_prompt_and_the_settings_reach_the_engine(tmp_path: Path) -> None:
    text_vqa(tmp_path, pictures=1, each=1)
    engine = ScriptedAnswers()
    evaluate(engine)
    evaluate(engine, "--protocol", "vqa-template", "--output", "b", "--max-new-tokens", "9")
    first, second = engine.asked
    assert first.question == "What is 0?\nAnswer the question using a single word or phrase."
    assert (first.template, first.sampling.max_new_tokens) == ("chat", 64)
    assert (second.question, second.template) == ("What is 0?", "vqa")
    assert second.sampling.max_new_tokens == 9
    assert {each.sampling.temperature for each in engine.asked} == {0.0}
    assert not any(each.sampling.repetition_guard for each in engine.asked)
    assert [line["template"] for line in lines(Path("b"))] == ["vqa"]


def test_pictures_reach_the_engine_as_stored(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4)
    turned, clear = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(turned, "JPEG", exif=exif)
    Image.fromarray(pixels, "RGBA").save(clear, "PNG")
    for data in (turned.getvalue(), clear.getvalue()):
        text_vqa(tmp_path, pictures=1, each=1)
        file = tmp_path / "TextVQA_VAL.tsv"
        old, new = (base64.b64encode(each).decode() for each in (png(0), data))
        file.write_text(file.read_text().replace(old, new))
        engine = ScriptedAnswers()
        evaluate(engine, "--restart")
        (ask,) = engine.asked
        assert ask.decoded is not None
        assert (ask.decoded.width, ask.decoded.height) == (6, 4)
        assert ask.image == plain_rgb(data).tobytes()
    assert ask.image == pixels[..., :3].tobytes()  # alpha is dropped


def test_a_limit_takes_a_part_and_a_larger_one_continues(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    first, more, rest = ScriptedAnswers(), ScriptedAnswers(), ScriptedAnswers()
    assert evaluate(first, "--limit", "4")[0] == 0
    before = lines()
    assert len(before) == 6  # two whole pictures
    assert evaluate(more, "--limit", "8")[0] == 0
    assert lines()[:6] == before
    assert len(more.asked) == 3
    assert evaluate(rest)[0] == 0
    assert len(rest.asked) == 6
    assert evaluate(None, "--limit", "4")[0] == 0  # all of them are answered
    assert json.loads((RUN / "run.json").read_text())["limit"] == 4


def test_a_dry_run_asks_and_writes_nothing(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    assert evaluate(None, "--dry-run")[0] == 0
    assert not (tmp_path / "evaluate").exists()


# --- a break --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_kills_change_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text_vqa(tmp_path, pictures=15, each=3)
    assert evaluate(ScriptedAnswers(), "--output", "unbroken")[0] == 0
    broken = tmp_path / "broken"
    kills = 0
    for number in range(20):
        goal = (number + 1) * 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a child of a process with threads
            child = os.fork()
        if not child:
            try:
                # A kill takes nothing from the system's memory.
                monkeypatch.setattr(os, "fsync", lambda _: None)
                evaluate(ScriptedAnswers(wait_s=0.003), "--output", "broken")
            finally:
                os._exit(0)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            file = broken / "answers.jsonl"
            if file.exists() and file.read_bytes().count(b"\n") >= goal:
                break
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
    assert kills == 20
    assert evaluate(ScriptedAnswers(), "--output", "broken")[0] == 0
    assert texts(broken) == texts(tmp_path / "unbroken")
    scores = [(tmp_path / name / "scores.json").read_bytes() for name in ("broken", "unbroken")]
    assert scores[0] == scores[1]
    assert len(lines(broken)) == 45  # nothing was asked twice that was saved


def test_a_line_that_is_cut_anywhere_is_asked_again(tmp_path: Path) -> None:
    text_vqa(tmp_path, pictures=1, each=3)
    evaluate(ScriptedAnswers())
    file = RUN / "answers.jsonl"
    whole, expected = file.read_bytes(), texts()
    begins = whole[:-1].rindex(b"\n") + 1
    for end in range(begins, len(whole), 67):
        file.write_bytes(whole[:end])
        engine = ScriptedAnswers()
        assert evaluate(engine)[0] == 0
        assert len(engine.asked) == 1
        assert texts() == expected


def test_ctrl_c_keeps_the_answers_so_far(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(ScriptedAnswers(stops_at=8))
    assert len(saved()) == 7
    engine = ScriptedAnswers()
    assert evaluate(engine)[0] == 0
    assert len(engine.asked) == 8


def test_a_full_disk_is_one_sentence_and_the_rest_can_be_asked_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_vqa(tmp_path)
    synced = 0

    def fsync(number: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 5:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(DoesNotFitError, match=r"No space left") as seen:
            evaluate(ScriptedAnswers())
    assert "run the same command to resume" in seen.value.hint
    assert evaluate(ScriptedAnswers())[0] == 0
    assert len(saved()) == 15


def test_an_engine_that_dies_costs_only_the_question_that_it_died_on(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    for parallel in (1, 4):
        output = Path(f"out{parallel}")
        engine = ScriptedAnswers(parallel=parallel, kills=["What is 6?"])
        code, _ = evaluate(engine, "--output", str(output), "--parallel", str(parallel))
        assert code == 1
        assert [name for name, each in saved(output).items() if each.error] == ["6"]
        assert "crashed" in saved(output)["6"].error
        again = ScriptedAnswers()
        assert evaluate(again, "--output", str(output))[0] == 0
        assert [ask.question.partition("\n")[0] for ask in again.asked] == ["What is 6?"]


def test_an_engine_that_dies_again_and_again_ends_the_run(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    engine = ScriptedAnswers(kills=["What"])
    with pytest.raises(EngineError, match="crashed"):
        evaluate(engine)
    assert engine.restarts == 4
    assert evaluate(ScriptedAnswers())[0] == 0


def test_a_broken_picture_is_an_error_of_its_questions(tmp_path: Path) -> None:
    text_vqa(tmp_path, broken=[2])
    engine = ScriptedAnswers()
    assert evaluate(engine)[0] == 1
    failed = [name for name, each in saved().items() if each.error]
    assert sorted(failed, key=int) == ["2", "7", "12"]
    assert len(engine.asked) == 12
    scores = json.loads((RUN / "scores.json").read_text())
    assert scores["asked"] == 15
    assert scores["counts"]["errors"] == 3
    assert scores["value"] == pytest.approx(80.0)
    again = ScriptedAnswers()
    assert evaluate(again)[0] == 1  # the picture is looked at again, and still broken
    assert again.asked == []


# --- other settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--protocol", "vqa-template"], ("vlmevalkit", "vqa-template")),
        (["--seed", "3"], ("0", "3")),
        (["--max-new-tokens", "7"], ("64", "7")),
        (["--dtype", "float32"], ("auto", "float32")),
        (["--kv", "int8"], ("full", "int8")),
        (["--activations", "int8"], ("auto", "int8")),
        (["--rope", "exact"], ("reference", "exact")),
    ],
)
def test_other_settings_are_refused_with_both_values(
    tmp_path: Path, words: list[str], values: tuple[str, str]
) -> None:
    text_vqa(tmp_path, pictures=1)
    evaluate(ScriptedAnswers())
    before = lines()
    with pytest.raises(UsageError) as seen:
        evaluate(None, *words)
    assert all(value in seen.value.message for value in values), seen.value.message
    assert "--restart" in seen.value.hint
    assert "--output" in seen.value.hint
    assert lines() == before
    engine = ScriptedAnswers()
    assert evaluate(engine, *words, "--restart")[0] == 0
    assert len(engine.asked) == 3
    kept = RUN / "answers-before-restart.jsonl"
    assert [json.loads(line) for line in kept.read_text().splitlines()] == before


def test_another_model_and_other_data_are_refused_with_both_values(tmp_path: Path) -> None:
    text_vqa(tmp_path, pictures=1)
    evaluate(ScriptedAnswers(), "--output", "out")
    other = tmp_path / "other"
    shutil.copytree(checkpoint_folder(), other)
    config = other / "config.json"
    config.write_text(config.read_text() + "\n")
    old = json.loads(Path("out/run.json").read_text())
    with pytest.raises(UsageError) as seen:
        evaluate(None, "--output", "out", model=str(other))
    assert old["model_id"] in seen.value.message
    assert str(other) in seen.value.message
    file = tmp_path / "TextVQA_VAL.tsv"
    file.write_text(file.read_text().replace("What is 1?", "What was 1?"))
    with pytest.raises(UsageError) as seen:
        evaluate(None, "--output", "out")
    assert old["files"][0]["md5"] in seen.value.message
    assert find_data("textvqa", file).files[0].md5 in seen.value.message


def test_answers_on_another_device_are_not_mixed(tmp_path: Path) -> None:
    text_vqa(tmp_path)
    evaluate(ScriptedAnswers(), "--limit", "3")
    values = json.loads((RUN / "run.json").read_text())
    assert values["compute"] == "cpu, float32"
    (RUN / "run.json").write_text(json.dumps({**values, "compute": "cuda:0, bfloat16"}))
    with pytest.raises(UsageError, match=r"cuda:0, bfloat16.*cpu, float32"):
        evaluate(ScriptedAnswers())


def test_a_changed_query_is_asked_again(tmp_path: Path) -> None:
    text_vqa(tmp_path, pictures=1)
    evaluate(ScriptedAnswers())
    file = RUN / "answers.jsonl"
    file.write_text(file.read_text().replace("What is 1?", "What was 1?"))
    engine = ScriptedAnswers()
    assert evaluate(engine)[0] == 0
    assert [ask.question.partition("\n")[0] for ask in engine.asked] == ["What is 1?"]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"model": 3}', b"\xff\xfe", b'{"files": [1]}', b"[" * 2000]
)
def test_a_damaged_run_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    text_vqa(tmp_path, pictures=1)
    RUN.mkdir(parents=True)
    (RUN / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.json can't be read") as seen:
        evaluate(None)
    assert "--restart" in seen.value.hint


def test_answers_without_a_run_file_are_refused(tmp_path: Path) -> None:
    text_vqa(tmp_path, pictures=1)
    evaluate(ScriptedAnswers())
    (RUN / "run.json").unlink()
    with pytest.raises(UsageError, match=r"has answers, but no run\.json"):
        evaluate(None)


def test_a_foreign_answers_file_is_kept(tmp_path: Path) -> None:
    text_vqa(tmp_path, pictures=1)
    evaluate(ScriptedAnswers())
    file = RUN / "answers.jsonl"
    file.write_text('{"id": "1", "mine": true}\n')
    with pytest.raises(UsageError, match="lines that evaluate did not write"):
        evaluate(None)
    assert file.read_text() == '{"id": "1", "mine": true}\n'


# --- scores ---------------------------------------------------------------------------------------


def test_scoring_needs_no_model_and_no_network_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_vqa(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    evaluate(ScriptedAnswers())
    first = (RUN / "scores.json").read_bytes(), (RUN / "answers.jsonl").read_bytes()
    report = (RUN / "report.html").read_bytes()
    assert evaluate(None, "--score-only")[0] == 0
    assert evaluate(None, "--score-only", model="gone/demo")[0] == 0
    assert evaluate(None, "--score-only", model=str(RUN))[0] == 0
    assert ((RUN / "scores.json").read_bytes(), (RUN / "answers.jsonl").read_bytes()) == first
    assert (RUN / "report.html").read_bytes() == report
    assert json.loads(first[0])["value"] == pytest.approx(100.0)
    with pytest.raises(UsageError, match="vqa-template"):
        evaluate(None, "--score-only", "--protocol", "vqa-template")
    with pytest.raises(UsageError, match="no run in evaluate/nothing/textvqa"):
        evaluate(None, "--score-only", model="nothing")
