"""`evaluate` on rows of pictures with answers: what is asked, saved, resumed and reported."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cogvlm2_lite
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.evaluate import main
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import DataError, UsageError
from cogvlm2_lite.evaluate.find import is_benchmark
from cogvlm2_lite.evaluate.row_data import Asker, DataOptions, Form, read_row_data
from cogvlm2_lite.events import (
    Cancel,
    CandidateToken,
    Finished,
    FinishReason,
    PromptScored,
    TokenLogprobs,
)
from cogvlm2_lite.finetune.data import Pictures, make_examples
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainedPair
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.rows.held_out import write_held_out
from cogvlm2_lite.rows.labels import Labeller
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.adapter import read_adapter
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.adapters import random_adapter
from tests.helpers.evaluating import ScriptedAnswers, no_engine, png, starting, text_vqa

DEMO = checkpoint_folder()
HEAD = "Question: "


class RowEngine(ScriptedAnswers):
    """Answers rows from a script; every token of a scored text has the same loss.

    script  the answer to a question by adapter ("" for the base model), else "no"
    losses  of a token by adapter
    """

    def __init__(
        self,
        script: Mapping[str, str] = {},
        losses: Mapping[str, float] = {},
        *,
        stops_at: int | None = None,
        kills: Sequence[str] = (),
    ) -> None:
        super().__init__(stops_at=stops_at, kills=kills)
        self.script, self.losses = script, losses

    def _outcomes(self, ask: Ask) -> list[Outcome]:
        first, *rest = super()._outcomes(ask)
        end = rest[-1] if rest else None
        if not isinstance(end, Finished):
            return [first, *rest]
        if ask.score_last:
            loss = self.losses.get(ask.adapter or "", 2.0)
            chosen = CandidateToken(token="x", data=None, logprob=-loss)
            tokens = (TokenLogprobs(chosen=chosen),) * ask.score_last
            return [first, PromptScored(text="", tokens=tokens), end]
        answer = self.script.get(ask.adapter or "", "no")
        finished = Finished(
            text=f" {answer}", reason=FinishReason.EOS, prompt_tokens=12, image_tokens=9,
            completion_tokens=2, encode_s=0.0, prefill_s=0.1, decode_s=0.1,
        )  # fmt: skip
        return [first, finished]


Start = Callable[[LoadOptions], AbstractContextManager[WorkerEngine]]


def run(*words: object, start: Start = no_engine) -> tuple[int, str, str]:
    """Run the command; return the exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    code = main([str(word) for word in words], start=start, console=Console(out, err))
    return code, out.getvalue(), err.getvalue()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_rows(folder: Path, rows: Sequence[Mapping[str, object]], *, pictures: int = 8) -> Path:
    """Write pictures 0.png, 1.png, ... and rows.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        (folder / f"{number}.png").write_bytes(png(number))
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def plain_rows(folder: Path, *, pictures: int = 8, each: int = 2) -> Path:
    """Write rows with some questions about each picture, whose answer is yes."""
    rows = [
        {"image": f"{number}.png", "question": f"Is it {turn}?", "answer": "yes"}
        for turn in range(each)
        for number in range(pictures)
    ]
    return write_rows(folder, rows, pictures=pictures)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "mine"
    return random_adapter(
        folder, DEMO, seed=1, acts_on=BEHIND_PICTURE, answer_space=True, template="chat"
    )


# --- side by side ---------------------------------------------------------------------------------


def test_base_and_adapter_stand_side_by_side(tmp_path: Path, adapter: Path) -> None:
    rows = plain_rows(tmp_path / "d")
    engine = RowEngine({"mine": "Yes"}, {"": 2.0, "mine": 0.5})
    code, out, _ = run("demo", rows, "--adapter", adapter, "--json", start=starting(engine))
    found = events(out)
    assert code == 0
    assert [each["event"] for each in found if each["event"] != "answered"] == [
        "plan", "plan", "loading", "scored", "scored", "compared", "finished",
    ]  # fmt: skip
    assert [each["column"] for each in found[:2]] == ["base", "mine"]
    # One model is loaded for both, and all questions about a picture follow each other.
    assert engine.starts == 1
    assert [each.name for each in engine.options.adapters] == ["mine"]
    shown = [ask.decoded.sha256 for ask in engine.asked if ask.decoded]
    assert len(shown) == (3 + 2) * 16  # an answer and two losses, an answer and one loss
    assert [a for a, b in zip(shown, [*shown[1:], ""], strict=True) if a != b] == list(
        dict.fromkeys(shown)
    )
    base, mine, compared = found[-4:-1]
    assert base["measures"]["exact_match"]["value"] == 0
    assert mine["measures"]["exact_match"]["value"] == 100
    assert base["measures"]["loss"] == {"value": 2, "low": 2, "high": 2}
    assert mine["measures"]["loss"]["value"] == pytest.approx(0.5)
    assert mine["measures"]["perplexity"]["value"] == pytest.approx(1.6487, abs=1e-4)
    assert (compared["base"], compared["column"]) == ("base", "mine")
    assert compared["differences"]["loss"]["value"] == pytest.approx(-1.5)
    assert compared["differences"]["loss"]["verdict"] == "lower"
    assert compared["differences"]["exact_match"]["verdict"] == "a gain is shown"
    assert found[-1] == {"event": "finished", "total": 32, "failed": 0, "left": 0}


def test_the_tables_and_files_have_every_column(tmp_path: Path, adapter: Path) -> None:
    rows = write_rows(
        tmp_path / "d",
        [
            {"image": "0.png", "question": "Read it", "answer": '{"total": 12}'},
            {"image": "1.png", "question": "<b>What?</b>", "answer": "<script>alert(1)</script>"},
        ],
    )
    engine = RowEngine({"": '{"total": 11}', "a b": '{"total": 12.0}'})
    code, out, err = run("demo", rows, "--adapter", f"a b={adapter}", start=starting(engine))
    assert code == 0
    assert "2 rows (JSON, questions and answers), at most 64 tokens per answer." in err
    assert "To ask (base, a b): 4 about 2 pictures" in err
    assert "exact match" in out
    assert "a b versus base" in out
    folder = tmp_path / "evaluate" / "demo" / "rows"
    assert {file.name for file in folder.iterdir() if not file.name.startswith(".")} == {
        "a-b", "base", "report.html", "rows.jsonl", "scores.json",
    }  # fmt: skip
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [(line["line"], line["picture"]) for line in lines] == [(1, "0.png"), (2, "1.png")]
    assert lines[0]["columns"]["a b"]["json_fields"] == 1
    assert lines[0]["columns"]["base"] == {
        "answer": '{"total": 11}', "reason": "eos", "error": "", "exact_match": 0.0,
        "anls": pytest.approx(12 / 13), "relaxed_accuracy": 0.0, "token_f1": 0.5,
        "rouge_l": 0.5, "ended": 1.0, "json_valid": 1.0, "json_fields": 0.0, "tokens": 2.0,
        "loss": 2.0,
    }  # fmt: skip
    assert "json_valid" not in lines[1]["columns"]["base"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("data:image/jpeg") == 2
    saved = json.loads((folder / "scores.json").read_text())
    assert saved["columns"]["a b"]["measures"]["json_fields"]["value"] == 100
    before = (folder / "scores.json").read_bytes(), (folder / "rows.jsonl").read_bytes()
    assert run("demo", rows, "--adapter", f"a b={adapter}", "--score-only")[1] == out
    assert before == ((folder / "scores.json").read_bytes(), (folder / "rows.jsonl").read_bytes())


def test_an_adapter_that_is_added_later_is_asked_alone(tmp_path: Path, adapter: Path) -> None:
    rows = plain_rows(tmp_path / "d")
    run("demo", rows, start=starting(RowEngine()))
    engine = RowEngine()
    run("demo", rows, "--adapter", adapter, start=starting(engine))
    assert {ask.adapter for ask in engine.asked} == {"mine"}
    engine = RowEngine()
    second = ("--adapter", adapter, "--adapter", f"half={adapter}:0.5")
    _, _, err = run("demo", rows, *second, start=starting(engine))
    assert {ask.adapter for ask in engine.asked} == {"half"}
    assert [each.name for each in engine.options.adapters] == ["half"]
    assert "32 are answered already. To ask (base, mine, half): 16 about 8 pictures" in err


def test_without_an_adapter_the_loss_is_that_of_the_form_that_the_model_expects(
    tmp_path: Path,
) -> None:
    rows = plain_rows(tmp_path / "d", each=1)
    _, out, _ = run("demo", rows, "--json", start=starting(ExpectsSpace()))
    scored = events(out)[-2]
    assert scored["column"] == "base"
    assert scored["loss_form"] == "with a space"
    assert scored["measures"]["loss"]["value"] == 1
    assert "compared" not in {each["event"] for each in events(out)}


def test_the_base_model_is_measured_in_the_form_of_each_adapter(
    tmp_path: Path, adapter: Path
) -> None:
    plain = random_adapter(tmp_path / "plain", DEMO, seed=2, answer_space=False, template="vqa")
    rows = plain_rows(tmp_path / "d", pictures=2)
    words = ("--adapter", adapter, "--adapter", plain)
    engine = RowEngine()
    _, out, _ = run("demo", rows, *words, "--json", start=starting(engine))
    plans = [each for each in events(out) if each["event"] == "plan"]
    assert [(each["column"], each["template"]) for each in plans] == [
        ("base", "chat"), ("base (vqa)", "vqa"), ("mine", "chat"), ("plain", "vqa"),
    ]  # fmt: skip
    compared = [each for each in events(out) if each["event"] == "compared"]
    assert [(each["column"], each["base"]) for each in compared] == [
        ("mine", "base"), ("plain", "base (vqa)"),
    ]  # fmt: skip
    asked = {ask.question for ask in engine.asked if ask.adapter == "plain" and ask.question}
    assert asked == {"Question: Is it 0? Short answer:", "Question: Is it 1? Short answer:"}


class ExpectsSpace(RowEngine):
    """Expects a space before the answer " yes"."""

    def _outcomes(self, ask: Ask) -> list[Outcome]:
        spaced = Tokenizer.from_folder(DEMO).encode(" yes")
        given = list(ask.prompt_ids[-1 - len(spaced) : -1])
        self.losses = dict.fromkeys(("", "mine"), 1.0 if given == spaced else 3.0)
        return super()._outcomes(ask)


def test_an_adapter_that_does_not_say_how_its_answers_begin_is_measured_in_both_forms(
    tmp_path: Path, adapter: Path
) -> None:
    foreign = tmp_path / "mine"
    shutil.copytree(adapter, foreign)
    (foreign / "cogvlm2_lite_adapter.json").unlink()
    rows = plain_rows(tmp_path / "d", pictures=3, each=1)
    _, out, _ = run("demo", rows, "--adapter", foreign, "--json", start=starting(ExpectsSpace()))
    scored = [each for each in events(out) if each["event"] == "scored"]
    assert [(each["loss_form"], each["measures"]["loss"]["value"]) for each in scored] == [
        ("with a space", 1), ("with a space", 1),
    ]  # fmt: skip


# --- what is asked --------------------------------------------------------------------------------


def test_the_last_answer_is_asked_with_its_past_and_every_trained_answer_has_a_loss(
    tmp_path: Path,
) -> None:
    talk = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "<image>\nWhat?"},
        {"role": "assistant", "content": "A bus", "loss": False},
        {"role": "user", "content": "Color?"},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "Wheels?"},
        {"role": "assistant", "content": "four big ones"},
    ]
    rows = write_rows(tmp_path / "d", [{"image": "0.png", "messages": talk}])
    engine = RowEngine()
    run("demo", rows, start=starting(engine))
    question, *scored = engine.asked
    text = "Question: Be short.\nWhat? Answer: A bus\nQuestion: Color? Answer: red\nQuestion: "
    assert (question.question, question.template) == (f"{text}Wheels? Answer:", "base")
    tokenizer = Tokenizer.from_folder(DEMO)
    ends = [read_config(DEMO).eos_token_ids[0]]
    asked = [(list(ask.prompt_ids), ask.score_last) for ask in scored]
    expected = []
    for space in ("", " "):
        for question_text, answer in (
            ("Question: Be short.\nWhat? Answer: A bus\nQuestion: Color? Answer:", "red"),
            (f"{text}Wheels? Answer:", "four big ones"),
        ):
            labels = [*tokenizer.encode(space + answer), *ends]
            expected.append(([*tokenizer.encode(question_text), *labels], len(labels)))
    assert asked == expected


def test_the_loss_is_that_which_finetune_computes(tmp_path: Path, adapter: Path) -> None:
    """Of the engine, with the adapter behind a cached picture, and of the training network."""
    rows = plain_rows(tmp_path / "d", pictures=1, each=2)
    config = read_config(DEMO)
    found = read_row_data(rows, DataOptions())
    asker, form = Asker(DEMO, config), Form(template="chat", spaces=(True,))
    model = cogvlm2_lite.load(DEMO, device="cpu", dtype="float32", adapter=adapter)
    ours = []
    for item in found.data.items:
        question = asker.question(item, found.rows[item.id], form)
        (text,) = question.scored
        request = Request(
            question="",
            image=open_image(tmp_path / "d" / "0.png"),
            sampling=Sampling(max_new_tokens=1),
            prompt_ids=text.ids,
            score_last=text.last,
            adapter="mine",
        )
        for event in model.engine.answer(request, Cancel()):
            if isinstance(event, PromptScored):
                ours.append(-sum(token.chosen.logprob for token in event.tokens))
    read = read_adapter(adapter, config)
    labeller = Labeller(Tokenizer.from_folder(DEMO), config, template="chat", space=True)
    pictures = Pictures(config.vision, upright=True)
    samples = [each.sample for each in make_examples(list(found.rows.values()), labeller, pictures)]
    network = LearningNetwork.for_samples(
        Catalog.open(DEMO, config),
        {n: TrainedPair(down=p.down, up=p.up * p.scale) for n, p in read.pairs.items()},
        samples,
        scale=1.0,
        acts_on=read.acts_on,
        compute=choose_compute("cpu", "float32"),
        rope=RopeMode("reference"),
    )
    assert ours == pytest.approx(network.losses(samples), rel=1e-4)


def test_pictures_are_turned_as_finetune_turns_them(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "d", [{"image": "x.jpg", "question": "What?", "answer": "a"}])
    image = Image.fromarray(np.zeros((10, 30, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "d" / "x.jpg", exif=exif)
    engine = RowEngine()
    run("demo", rows, start=starting(engine))
    assert engine.asked[0].decoded is not None
    assert (engine.asked[0].decoded.width, engine.asked[0].decoded.height) == (10, 30)
    with pytest.raises(UsageError, match="pictures as stored"):
        run("demo", rows, "--as-stored")
    engine = RowEngine()
    run("demo", rows, "--as-stored", "--output", "other", start=starting(engine))
    assert engine.asked[0].decoded is not None
    assert (engine.asked[0].decoded.width, engine.asked[0].decoded.height) == (30, 10)


def _ndjson(folder: Path) -> Path:
    return plain_rows(folder, pictures=1, each=1).rename(folder / "rows.ndjson")


def _csv(folder: Path, name: str, tab: str) -> Path:
    plain_rows(folder, pictures=1)
    file = folder / name
    file.write_text(f'image{tab}question{tab}answer\n0.png{tab}"Is it 0?"{tab}yes\n')
    return file


def _tsv_with_index(folder: Path) -> Path:
    plain_rows(folder, pictures=1)
    file = folder / "mine.tsv"
    file.write_text("index\timage\tquestion\tanswer\n1\t0.png\tIs it 0?\tyes\n")
    return file


def _json_list(folder: Path) -> Path:
    plain_rows(folder, pictures=1)
    file = folder / "rows.json"
    file.write_text('[{"image": "0.png", "question": "Is it 0?", "answer": "yes"}]')
    return file


def _captions(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(png(0))
    (folder / "a.txt").write_text("yes\n")
    return folder


def _sft(folder: Path) -> Path:
    for name in ("images", "labels_en"):
        (folder / name).mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(png(0))
    talk = [{"role": "user", "content": "Is it 0?"}, {"role": "assistant", "content": "yes"}]
    (folder / "labels_en" / "a.json").write_text(json.dumps({"conversations": talk}))
    return folder


def _metadata(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(png(0))
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "yes"}\n')
    return folder


def _kohya(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(png(0))
    (folder / "metadata.json").write_text('{"a.png": {"caption": "yes"}}')
    return folder


def _batch(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(png(0))
    lines = (
        {"picture": "a.png", "question": "Is it 0?", "answer": "yes", "error": ""},
        {"picture": "gone.png", "question": "Is it 0?", "answer": "", "error": "failed"},
    )
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


DESCRIBE = "Describe this image in detail."


@pytest.mark.parametrize(
    ("write", "question"),
    [
        (lambda folder: plain_rows(folder, pictures=1, each=1), "Is it 0?"),
        (_ndjson, "Is it 0?"),
        (_json_list, "Is it 0?"),
        (lambda folder: _csv(folder, "rows.csv", ","), "Is it 0?"),
        (lambda folder: _csv(folder, "rows.tsv", "\t"), "Is it 0?"),
        (_tsv_with_index, "Is it 0?"),
        (_captions, DESCRIBE),
        (_sft, "Is it 0?"),
        (_metadata, DESCRIBE),
        (_kohya, DESCRIBE),
        (_batch, "Is it 0?"),
    ],
)
def test_every_form_that_finetune_reads_is_evaluated(
    tmp_path: Path, write: Callable[[Path], Path], question: str
) -> None:
    source = write(tmp_path / "d")
    engine = RowEngine({"": "yes"})
    code, out, _ = run("demo", source, "--json", start=starting(engine))
    assert code == 0
    assert engine.asked[0].question == f"Question: {question} Answer:"
    assert engine.asked[0].decoded is not None
    scored = next(each for each in events(out) if each["event"] == "scored")
    assert (scored["asked"], scored["measures"]["exact_match"]["value"]) == (1, 100)


def test_files_of_benchmarks_are_benchmarks_as_before(tmp_path: Path) -> None:
    assert is_benchmark(text_vqa(tmp_path / "vqa"))
    assert is_benchmark(tmp_path / "vqa")
    own = tmp_path / "own.tsv"
    picture = base64.b64encode(png(0)).decode()
    own.write_text(f"index\timage\tquestion\tanswer\n1\t{picture}\tWhat?\ta\n")
    assert is_benchmark(own)
    assert is_benchmark(tmp_path / "gone.parquet")
    assert not is_benchmark(plain_rows(tmp_path / "d"))
    assert not is_benchmark(tmp_path / "d")


def test_the_held_out_rows_of_a_training_are_data(tmp_path: Path) -> None:
    rows = list(read_row_data(plain_rows(tmp_path / "d"), DataOptions()).rows.values())
    file = tmp_path / "my-adapter" / "training" / "held_out.jsonl"
    file.parent.mkdir(parents=True)
    write_held_out(file, rows[:3], upright=False)
    engine = RowEngine()
    code, _, err = run("demo", file, start=starting(engine))
    assert code == 0
    assert "3 rows (held-out rows of finetune)" in err
    assert (tmp_path / "evaluate" / "demo" / "my-adapter-held_out" / "report.html").is_file()
    assert engine.asked[0].question == "Question: Is it 0? Answer:"


def test_captions_are_asked_with_ones_own_question(tmp_path: Path) -> None:
    engine = RowEngine()
    run("demo", _captions(tmp_path / "d"), "--ask", "What is it?", start=starting(engine))
    assert engine.asked[0].question == "Question: What is it? Answer:"


# --- interruptions, failures, mistakes ------------------------------------------------------------


def answers_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_bytes().splitlines()]


def test_a_stopped_run_continues_and_ends_as_an_unbroken_one(tmp_path: Path, adapter: Path) -> None:
    rows = plain_rows(tmp_path / "d")
    words = ("demo", rows, "--adapter", adapter)
    with pytest.raises(KeyboardInterrupt):
        run(*words, "--output", "broken", start=starting(RowEngine(stops_at=30)))
    base = answers_of(tmp_path / "broken" / "base")
    assert 0 < len(base) < 16
    # A kill cuts a line off.
    file = tmp_path / "broken" / "mine" / "answers.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    engine = RowEngine()
    assert run(*words, "--output", "broken", start=starting(engine))[0] == 0
    assert len(engine.asked) < 2 * 32
    run(*words, "--output", "unbroken", start=starting(RowEngine()))
    for name in ("scores.json", "rows.jsonl"):
        assert (tmp_path / "broken" / name).read_bytes() == (
            tmp_path / "unbroken" / name
        ).read_bytes()
    assert run(*words, "--output", "broken")[0] == 0  # nothing is left to ask


def test_answers_of_other_settings_are_refused(tmp_path: Path, adapter: Path) -> None:
    rows = plain_rows(tmp_path / "d", pictures=2)
    mine = tmp_path / "mine"
    shutil.copytree(adapter, mine)
    words = ("demo", rows, "--adapter", mine)
    run(*words, start=starting(RowEngine()))
    with pytest.raises(UsageError, match="--max-new-tokens 64, and now it is 9"):
        run(*words, "--max-new-tokens", "9")
    random_adapter(mine, DEMO, seed=5, answer_space=True, template="chat")
    with pytest.raises(UsageError, match="made with the model demo"):
        run(*words)
    code, _, err = run(*words, "--restart", start=starting(RowEngine()))
    assert code == 0
    assert "The old answers are now in" in err
    plain_rows(tmp_path / "d", pictures=2, each=3)
    with pytest.raises(UsageError, match="the data with the md5"):
        run(*words)


def test_a_picture_that_can_not_be_read_fails_alone(tmp_path: Path) -> None:
    rows = plain_rows(tmp_path / "d", pictures=3, each=1)
    (tmp_path / "d" / "1.png").write_bytes(png(1)[:40])
    code, out, err = run("demo", rows, start=starting(RowEngine({"": "yes"})))
    assert code == 1
    assert "rows.jsonl:2: " in err
    assert "1 of 3 questions failed" in out
    scores = json.loads((tmp_path / "evaluate/demo/rows/scores.json").read_text())
    assert scores["columns"]["base"]["measures"]["exact_match"]["value"] == pytest.approx(200 / 3)


def test_a_question_that_ends_the_engine_fails_alone(tmp_path: Path) -> None:
    rows = plain_rows(tmp_path / "d", pictures=3, each=1)
    lines = rows.read_text().splitlines()
    lines[1] = lines[1].replace("Is it 0?", "Is it deadly?")
    rows.write_text("\n".join(lines))
    engine = RowEngine({"": "yes"}, kills=["deadly"])
    code, _, err = run("demo", rows, start=starting(engine))
    assert code == 1
    assert engine.restarts == 1
    assert "rows.jsonl:2: The engine's process crashed." in err


def test_rows_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "d",
        [
            {"image": "0.png", "question": "What?", "answer": "a"},
            {"image": "gone.png", "question": "What?", "answer": "a"},
            {"image": "1.png", "question": "What?", "answer": "<|end_of_text|>"},
            {"image": "1.png", "question": "What?", "answer": " "},
        ],
    )
    _, _, err = run("demo", rows, start=starting(RowEngine()))
    assert "1 row (JSON, questions and answers)" in err
    for reason in ("1 picture missing", "1 special token in the text", "1 empty answer"):
        assert reason in err
    lines = (tmp_path / "evaluate/demo/rows/skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["line"] for line in lines} == {2, 3, 4}
    rows.write_text('{"image": "gone.png", "question": "What?", "answer": "a"}\n')
    with pytest.raises(DataError, match="no rows that can be used: 1 picture missing"):
        run("demo", rows, "--output", "other")


def test_a_part_is_chosen_by_picture_and_a_larger_one_contains_it(tmp_path: Path) -> None:
    rows = plain_rows(tmp_path / "d", pictures=8, each=2)
    engine = RowEngine()
    _, _, err = run("demo", rows, "--answers", "5", start=starting(engine))
    assert "6 of 16 rows (JSON, questions and answers), chosen with seed 0" in err
    assert len({ask.decoded.sha256 for ask in engine.asked if ask.decoded}) == 3
    _, _, err = run("demo", rows, "--answers", "9", start=starting(RowEngine()))
    assert "6 are answered already. To ask (base): 4 about 2 pictures" in err


def test_a_part_has_as_many_rows_as_were_asked_for_where_some_can_not_be_used(
    tmp_path: Path,
) -> None:
    rows = [
        {"image": f"{n}.png", "question": "What?", "answer": "<|end_of_text|>" if n % 2 else "a"}
        for n in range(8)
    ]
    file = write_rows(tmp_path / "d", rows)
    _, _, err = run("demo", file, "--answers", "3", start=starting(RowEngine()))
    assert "3 of 8 rows" in err
    assert "special token in the text" in err


def test_case_may_count(tmp_path: Path) -> None:
    rows = plain_rows(tmp_path / "d", pictures=2)
    _, out, _ = run("demo", rows, "--json", start=starting(RowEngine({"": "YES"})))
    assert events(out)[-2]["measures"]["exact_match"]["value"] == 100
    _, out, _ = run("demo", rows, "--json", "--case")
    assert events(out)[-2]["measures"]["exact_match"]["value"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rows.jsonl", "--protocol", "vlmevalkit"), "--protocol is for benchmarks"),
        (("rows.jsonl", "--against", "demo"), "--against is for benchmarks"),
        (("rows.jsonl", "--export"), "--export is for benchmarks"),
        (("rows.jsonl", "demo-vqa"), "demo-vqa is a benchmark"),
        (("demo-vqa", "--case"), "--case is for rows"),
        (("rows.jsonl", "--adapter", "gone"), "There is no adapter folder gone"),
        (("gone.jsonl",), "Unknown benchmark 'gone.jsonl'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_loaded(
    tmp_path: Path, words: Sequence[str], message: str
) -> None:
    plain_rows(tmp_path)
    with pytest.raises(cogvlm2_lite.errors.CogVLM2LiteError, match=message):
        run("demo", *words)
    assert not (tmp_path / "evaluate").exists()


def test_adapters_whose_answers_would_share_a_folder_are_refused(
    tmp_path: Path, adapter: Path
) -> None:
    rows = plain_rows(tmp_path)
    for names in (("a b", "a-b"), ("Mine", "mine")):
        words = [word for name in names for word in ("--adapter", f"{name}={adapter}")]
        with pytest.raises(UsageError, match="would be in the same folder"):
            run("demo", rows, *words)


def test_a_dry_run_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    rows = plain_rows(tmp_path / "d")
    assert run("demo", rows, "--dry-run")[0] == 0
    assert not (tmp_path / "evaluate").exists()
