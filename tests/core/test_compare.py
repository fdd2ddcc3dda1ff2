"""Comparing two folders: the model's own numbers, in less memory, and no foreign pairs."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import cogvlm2_lite
from benchmarks.fp4_folder import fp4_weights, write_fp4
from cogvlm2_lite.cli.compare import main
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.errors import DoesNotFitError, OutputError, UsageError
from cogvlm2_lite.evaluate import score
from cogvlm2_lite.evaluate.compare import Comparison, compare
from cogvlm2_lite.evaluate.matrices import matrix_errors
from cogvlm2_lite.evaluate.metrics import log_softmax
from cogvlm2_lite.evaluate.score import Reference, prepare
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.files import is_sealed, sealed_page
from cogvlm2_lite.inputs.image import open_image, pixel_values
from cogvlm2_lite.samples.samples import Sample, tokenize
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.reader import Reader
from cogvlm2_lite.weights.slots import Linear
from tests.helpers.adapters import TOWER, random_adapter
from tests.helpers.answers import opened
from tests.helpers.folders import random_folder
from tests.helpers.pages import save_three_pages
from tools.demo_model.generator import samples as drawn

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def questions() -> list[Sample]:
    """Two pictures with three conversations each, some of them without the picture."""
    return [
        Sample(
            image=one.image if talk.sees_picture else None,
            question=talk.question,
            answer=talk.answer,
            history=talk.history,
        )
        for one in islice(drawn("held-out", 3, 3), 2)
        for talk in one.conversations
    ]


@pytest.fixture(scope="module")
def fp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fp4(checkpoint_folder(), tmp_path_factory.mktemp("models") / "fp4")


def result(steps: Iterator[object]) -> Comparison:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Comparison = end.value
            return found


def collect(model: Model, samples: list[Sample]) -> list[np.ndarray]:
    """Return each sample's log-probabilities at its answer."""
    asked = prepare(samples, model.engine.tokenizer, model.config)
    rows: dict[int, list[np.ndarray]] = {}
    for number, _, found in run(score.answer_logprobs(model, asked, Cancel())):
        rows.setdefault(number, []).append(found)
    return [np.concatenate(rows[number]) for number in sorted(rows)]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """One that acts behind the picture, and one everywhere, also on the vision tower."""
    root, demo = tmp_path_factory.mktemp("adapters"), checkpoint_folder()
    words = random_adapter(root / "words", demo, seed=1, acts_on=BEHIND_PICTURE)
    tower = random_adapter(root / "tower", demo, seed=2, parts=TOWER)
    return str(words), f"{tower}:0.1"


@pytest.mark.parametrize("adapter", [None, "words", "tower"])
def test_shared_pictures_and_turned_loops_give_what_forward_gives(
    questions: list[Sample], adapters: tuple[str, str], adapter: str | None
) -> None:
    model = cogvlm2_lite.load("demo", "cpu", "float32", adapters=adapters)
    model.adapter = adapter
    found = collect(model, questions)
    for sample, ours in zip(questions, found, strict=True):
        tokens = tokenize(sample, model.engine.tokenizer, model.config)
        features = None
        if sample.image is not None:
            pixels = pixel_values(open_image(sample.image), model.config.vision)
            features = model.encode_image(torch.from_numpy(pixels))
        whole = model.forward(
            torch.from_numpy(tokens.input_ids),
            torch.from_numpy(tokens.token_type_ids),
            None,
            features,
        )
        theirs = log_softmax(whole[0].numpy())[tokens.scored : -1]
        assert ours == pytest.approx(theirs, abs=2e-4)


def test_streaming_and_many_waves_change_no_bit(questions: list[Sample], tmp_path: Path) -> None:
    folder = random_folder(tmp_path / "random")
    whole = opened(folder)
    expected = collect(whole, questions)
    small = opened(folder, 36 * MIB)
    assert any(phase.streamed for phase in small.plan.devices[0].phases)
    for ours, theirs in zip(collect(small, questions), expected, strict=True):
        assert np.array_equal(ours, theirs)
    assert small.runtime.residency.streamed_bytes > 0
    asked = prepare(questions, whole.engine.tokenizer, whole.config)
    with Reference(asked, whole.config, tmp_path, wave_bytes=1) as kept:
        assert len(kept.waves) > 1
        run(kept.fill(whole))
        assert run(kept.compare(small)).kl.max() < 1e-10
        assert [file.name for file in tmp_path.iterdir()] == ["random"]  # kept without a name


def test_a_folder_does_not_differ_from_itself(questions: list[Sample]) -> None:
    found = result(compare(checkpoint_folder(), checkpoint_folder(), questions, opened))
    assert found.summary.kl_mean.value < 1e-10
    assert (found.summary.top1.value, found.summary.changed.value) == (1.0, 0.0)
    assert found.summary.reference_exact.value > 0.5  # the demo model knows most answers
    assert found.weights[0] == found.weights[1]
    assert found.weights[0].bits_per_weight == pytest.approx(16, rel=1e-3)


def test_answers_that_nobody_gave_are_written_by_the_reference(questions: list[Sample]) -> None:
    bare = [dataclasses.replace(sample, answer="") for sample in questions[:2]]
    found = result(compare(checkpoint_folder(), checkpoint_folder(), bare, opened))
    assert found.written == 2
    # Its own greedy answers are, word for word, what it would say next.
    assert found.summary.reference_exact.value == 1.0


def test_an_fp4_folder_is_known_by_its_tensors_and_read_as_bitsandbytes_reads_it(
    fp4: Path,
) -> None:
    ours = Catalog.open(fp4, read_config(fp4))
    source = Catalog.open(checkpoint_folder(), read_config(checkpoint_folder()))
    stored = next(t for t in ours.tensors.values() if t.kind == "fp4")
    assert stored.quant is not None
    assert not stored.quant.nested
    rows, columns = stored.spec.shape
    slot = Linear(stored.spec.name, columns, rows)
    WeightLoader(ours, device=torch.device("cpu"), dtype=torch.bfloat16).fill(slot)
    plain = Reader(source).read(source.tensors[stored.spec.name])["weight"]
    assert slot.stored is not None
    assert torch.equal(slot.stored.dequantize(torch.bfloat16), fp4_weights(plain.clone()))


def test_an_fp4_folder_answers_and_differs_a_little(fp4: Path, questions: list[Sample]) -> None:
    found = result(compare(checkpoint_folder(), fp4, questions, opened))
    assert 0 < found.summary.kl_mean.value < 0.5
    assert found.summary.kl_p99.value > found.summary.kl_mean.value
    assert found.weights[1].kinds["fp4"] > 0
    assert found.weights[1].nbytes < found.weights[0].nbytes / 2


def test_folders_of_other_shapes_or_words_are_refused(tmp_path: Path, fp4: Path) -> None:
    other = random_folder(tmp_path / "random", layers=2)
    with pytest.raises(UsageError, match="different architectures: vision is"):
        result(compare(checkpoint_folder(), other, [], opened))
    words = shutil.copytree(fp4, tmp_path / "words")
    content = json.loads((words / "tokenizer.json").read_text(encoding="utf-8"))
    (words / "tokenizer.json").write_text(json.dumps(content | {"version": "2"}), encoding="utf-8")
    with pytest.raises(UsageError, match="different tokenizers"):
        result(compare(checkpoint_folder(), words, [], opened))


def test_the_command_prints_a_table_or_one_json_object(
    fp4: Path, tmp_path: Path, capsys: Capture
) -> None:
    save_three_pages(tmp_path)
    (tmp_path / "asked.jsonl").write_text(
        json.dumps({"image": "scan.tif", "question": "What is in the picture?", "answer": " red"})
        + "\n"
        + json.dumps({"question": "What is 1 plus 2?"})
    )
    options = ["demo", str(fp4), "--samples", str(tmp_path / "asked.jsonl"), "--device", "cpu"]
    assert main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"] == 2
    assert any(notice.startswith("scan.tif: ") for notice in found["notices"])
    assert found["answers_written_by_reference"] == 1
    assert found["other"]["kinds"].keys() == {"dense", "fp4"}
    assert found["kl_mean"]["low"] <= found["kl_mean"]["value"] <= found["kl_mean"]["high"]
    assert main(options) == 0
    shown = capsys.readouterr()
    table = shown.out
    assert shown.err.count("page 1 of 3") == 1
    assert "99th percentile of KL" in table
    assert "2 answers about 2 pictures" in table


def test_adapters_are_compared_with_their_model_side_by_side(
    adapters: tuple[str, str], fp4: Path, tmp_path: Path, capsys: Capture
) -> None:
    samples = tmp_path / "asked.jsonl"
    samples.write_text(json.dumps({"question": "What is 1 plus 2?", "answer": " 3"}) + "\n")
    given = ["--samples", str(samples), "--device", "cpu", "--dtype", "float32"]
    words, tower = adapters
    options = ["demo", "--adapter", words, "--adapter", f"none={words}:0", "--adapter", tower]
    assert main([*options, *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["other"]["adapter"] for one in found] == ["words", "none", "tower"]
    kl = [one["kl_mean"]["value"] for one in found]
    assert kl[0] > 1e-3
    assert kl[1] < 1e-12
    assert kl[2] > 1e-6
    assert main([*options, *given]) == 0
    heads, *lines = [line for line in capsys.readouterr().out.splitlines() if "  " in line][2:]
    assert heads.split() == ["versus", "A", "words", "none", "tower"]
    (same,) = [line for line in lines if line.startswith("same top-1")]
    assert same.split()[3] == "100.00%"
    # With a second folder, the adapter acts on that one.
    assert main(["demo", str(fp4), "--adapter", f"none={words}:0", *given, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["other"]["folder"], one["other"]["adapter"]) == (str(fp4), "none")
    assert one["kl_mean"]["value"] > 0


def test_one_model_alone_and_a_page_of_adapters_are_refused(adapters: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="nothing to compare demo with"):
        main(["demo"])
    with pytest.raises(UsageError, match="can't be combined with --adapter"):
        main(["demo", "--adapter", adapters[0], "--html", "a.html"])
    with pytest.raises(UsageError, match="Two adapters are called 'words'"):
        main(["demo", "--adapter", adapters[0], "--adapter", adapters[0]])


def test_a_count_of_nothing_is_refused(fp4: Path) -> None:
    with pytest.raises(UsageError, match="--count must be 1 or more"):
        main(["demo", str(fp4), "--count", "0"])


def test_matrices_are_compared_in_the_models_order_and_kept_ones_are_equal(fp4: Path) -> None:
    catalogs = [Catalog.open(f, read_config(f)) for f in (checkpoint_folder(), fp4)]
    found = list(matrix_errors(*catalogs))
    order = list(catalogs[1].tensors)
    assert [order.index(one.name) for one in found] == sorted(order.index(o.name) for o in found)
    assert {one.error for one in found if one.kind == "dense"} == {0.0}
    one = next(one for one in found if one.kind == "fp4")
    plain = Reader(catalogs[0]).read(catalogs[0].tensors[one.name])["weight"].clone().float()
    rounded = fp4_weights(plain)
    assert one.error == pytest.approx(float((rounded - plain).norm() / plain.norm()), rel=1e-3)


def test_the_page_needs_nothing_from_elsewhere_and_its_drawings_are_well_formed(
    fp4: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "page.html"
    options = ["demo", str(fp4), "--device", "cpu", "--count", "3", "--html", str(file)]
    assert main(options) == 0
    assert str(file) in capsys.readouterr().err
    page = file.read_text(encoding="utf-8")
    assert "http" not in page
    assert "<script" not in page
    assert "prefers-color-scheme:dark" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2
    bars = [r for r in ElementTree.fromstring(drawings[0]).iter("rect") if r.get("height") == "14"]
    assert len(bars) == 14  # A and B for each of seven parts
    dots = [c for c in ElementTree.fromstring(drawings[1]).iter("circle") if c.get("r") == "3"]
    layers = read_config(fp4)
    assert len(dots) == layers.vision.num_hidden_layers + 2 * layers.num_hidden_layers
    assert page.count("<td>fp4</td>") > len(dots)


def test_a_folders_name_cannot_write_into_the_page(fp4: Path, tmp_path: Path) -> None:
    named = shutil.copytree(fp4, tmp_path / "<b>bold")
    assert main(["demo", str(named), "--count", "1", "--html", str(tmp_path / "p.html")]) == 0
    assert "<b>bold" not in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_a_page_without_a_place_is_refused_before_the_work(fp4: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        main(["demo", str(fp4), "--html", str(tmp_path / "none" / "p.html")])
    with pytest.raises(UsageError, match="it is a folder"):
        main(["demo", str(fp4), "--html", str(tmp_path)])


def test_the_result_is_shown_if_the_page_cannot_be_written(
    fp4: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cogvlm2_lite.cli.compare.write_whole", full)
    with pytest.raises(OutputError, match=r"p\.html can't be written: No space left"):
        main(["demo", str(fp4), "--count", "1", "--html", str(tmp_path / "p.html")])
    assert "mean KL" in capsys.readouterr().out


def test_a_page_replaces_only_one_that_nobody_edited(fp4: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(sealed_page("<p>an earlier comparison</p>\n"))
    options = ["demo", str(fp4), "--device", "cpu", "--count", "1", "--html", str(file)]
    assert main(options) == 0
    made = file.read_bytes()
    assert b"earlier" not in made
    assert is_sealed(made)
    for theirs in (b"<p>mine</p>", b"", made.replace(b"nats", b"nuts"), made + b"<!-- note -->"):
        file.write_bytes(theirs)
        with pytest.raises(UsageError, match="already exists"):
            main(options)
        assert file.read_bytes() == theirs


def test_memory_that_runs_out_is_told_in_a_sentence(questions: list[Sample]) -> None:
    def tight(folder: Path) -> Model:
        model = opened(folder)
        model.runtime.arenas[0].limit_bytes = MIB
        return model

    with pytest.raises(DoesNotFitError, match="Memory ran out while checkpoint was used"):
        result(compare(checkpoint_folder(), checkpoint_folder(), questions, tight))
