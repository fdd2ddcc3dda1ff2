"""Calibration of whole checkpoints: smaller errors in the same bytes, and the same ones again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cogvlm2_lite.errors import ConversionError, DoesNotFitError, UsageError
from cogvlm2_lite.inputs.image import ImageSource, OpenedImage, open_image, pixel_values
from cogvlm2_lite.samples import samples as samples_module
from cogvlm2_lite.samples.drawn import drawn_samples
from cogvlm2_lite.samples.pixels import SamplePixels
from cogvlm2_lite.samples.samples import Sample, identify_samples, in_fixed_order, read_samples
from cogvlm2_lite.weights.manifest import MANIFEST_NAME
from quantize.calibration import calibrate as calibration
from quantize.command import main
from quantize.events import Calibrated, CalibrationProgress, Event
from quantize.pipeline import convert
from quantize.recipe import Keep, QuantizeOptions
from quantize.report import PAGE_NAME, REPORT_NAME
from quantize.verify import verify
from tests.helpers.calibration import DEMO, SETTINGS, calibrate_with, made_samples, run
from tests.helpers.conversion import CHECKPOINT, QUICK, hashes, open_catalog, quantize
from tests.helpers.transformers_tree import both_logits, load_tree


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    target = tmp_path_factory.mktemp("calibrated") / "nf4"
    return target, run(target, made_samples())


def test_the_same_bytes_carry_a_smaller_error(
    calibrated: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    folder, events = calibrated
    rows = [event for event in events if isinstance(event, Calibrated)]
    assert rows
    assert all(row.error <= row.nearest_error for row in rows)
    assert sum(row.kept == "calibrated" for row in rows) > 0.8 * len(rows)
    plain = tmp_path / "plain"
    quantize(CHECKPOINT, plain, QuantizeOptions(shard_bytes=300_000))
    sizes = [{f.name: f.stat().st_size for f in d.glob("*.safetensors")} for d in (folder, plain)]
    assert sizes[0] == sizes[1]


def test_progress_counts_every_block_and_ends(calibrated: tuple[Path, list[Event]]) -> None:
    progress = [e for e in calibrated[1] if isinstance(e, CalibrationProgress)]
    total = progress[0].total
    assert [event.done for event in progress] == list(range(1, total + 1))
    assert progress[-1].seconds_left == 0
    assert 0 < progress[-1].error_ratio < 1


def test_the_report_lies_in_the_folder_and_the_folder_verifies(
    calibrated: tuple[Path, list[Event]],
) -> None:
    folder, events = calibrated
    report = json.loads((folder / REPORT_NAME).read_text())
    rows = {e.tensor: e for e in events if isinstance(e, Calibrated)}
    decided = [row["calibration"] for row in report["matrices"] if row["calibration"]]
    assert {row["tensor"] for row in decided} == set(rows)
    for row in decided:
        assert Calibrated(**row) == rows[row["tensor"]]
    page = (folder / PAGE_NAME).read_text(encoding="utf-8")
    assert "against round to nearest" in page
    assert all(f"<td>{name}</td>" in page for name in rows)
    *_, last = verify(folder)
    assert getattr(last, "ok", False)
    assert not (folder / "calibration").exists()


@pytest.mark.parametrize("stop_after", [1, 4, 9, 14])
def test_a_stopped_calibration_goes_on_with_the_same_numbers(
    calibrated: tuple[Path, list[Event]], tmp_path: Path, stop_after: int
) -> None:
    target, seen = tmp_path / "nf4", 0
    with closing(convert(CHECKPOINT, target, SETTINGS, QUICK, calibrate_with(made_samples()))) as w:
        for event in w:
            seen += isinstance(event, Calibrated | CalibrationProgress)
            if seen == stop_after:
                break
    assert not target.exists()
    run(target, made_samples())
    assert hashes(target) == hashes(calibrated[0])


def test_the_order_of_the_samples_does_not_matter(
    calibrated: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    shuffled = made_samples()
    Random(1).shuffle(shuffled)
    run(tmp_path / "nf4", in_fixed_order(shuffled))
    assert hashes(tmp_path / "nf4") == hashes(calibrated[0])


def test_other_samples_can_not_continue_a_calibration(tmp_path: Path) -> None:
    target = tmp_path / "nf4"
    with closing(convert(CHECKPOINT, target, SETTINGS, QUICK, calibrate_with(made_samples()))) as w:
        for event in w:
            if isinstance(event, CalibrationProgress):
                break
    other = calibrate_with(made_samples(), "other samples")
    with pytest.raises(ConversionError, match="a test, but now it is other samples"):
        list(convert(CHECKPOINT, target, SETTINGS, QUICK, other))


def test_transformers_loads_a_calibrated_folder_and_agrees(
    calibrated: tuple[Path, list[Event]],
) -> None:
    folder = calibrated[0]
    for ours, theirs in both_logits(folder, load_tree(folder), "float32"):
        assert (ours - theirs).abs().max() < 2e-4 * ours.abs().max()


def test_a_disk_without_room_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Room for the result, which is checked first, but not for activations and codes as well.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**5))
    monkeypatch.setattr("quantize.pipeline._free_bytes", lambda _: 10**12)
    with pytest.raises(DoesNotFitError, match=r"Calibration needs .* of scratch"):
        run(tmp_path / "nf4", made_samples())


def test_kept_matrices_are_not_calibrated(tmp_path: Path) -> None:
    keep = (Keep(pattern="vision-tower", kind="int8"),)
    events = run(tmp_path / "nf4", made_samples(), QuantizeOptions(calibration="a test", keep=keep))
    names = [event.tensor for event in events if isinstance(event, Calibrated)]
    assert names
    assert not any("model.vision.transformer" in name for name in names)


def test_a_poisoned_layer_falls_back_to_nearest_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*_: object) -> None:
        raise ArithmeticError("the inputs' second hessian can't be inverted")

    monkeypatch.setattr(calibration, "round_matrix", poisoned)
    events = run(tmp_path / "nf4", made_samples())
    rows = [event for event in events if isinstance(event, Calibrated)]
    assert all(row.kept == "nearest" and "inverted" in row.reason for row in rows)
    plain = tmp_path / "plain"
    quantize(CHECKPOINT, plain, QuantizeOptions(shard_bytes=SETTINGS.shard_bytes))
    for file in plain.glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "nf4" / file.name).read_bytes()


def test_weights_that_give_no_numbers_do_not_stop_the_others(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in CHECKPOINT.iterdir():
        if file.suffix == ".json":
            (source / file.name).write_bytes(file.read_bytes())
        else:
            tensors = load_file(file)
            for name in tensors:
                if name == "model.layers.0.input_layernorm.weight":
                    tensors[name] = torch.full_like(tensors[name], float("nan"))
            save_file(tensors, source / file.name, {"format": "pt"})
    work = convert(source, tmp_path / "nf4", SETTINGS, QUICK, calibrate_with(made_samples()))
    rows = {e.tensor: e for e in work if isinstance(e, Calibrated)}
    assert rows["model.layers.0.self_attn.language_expert_query_key_value.weight"].reason
    tower = [row for name, row in rows.items() if name.startswith("model.vision.transformer")]
    assert any(row.kept == "calibrated" for row in tower)


def test_text_alone_leaves_the_vision_parts_nearest(tmp_path: Path) -> None:
    samples = [Sample(question=f"What is {n}?", answer=" it") for n in range(12)]
    rows = [e for e in run(tmp_path / "nf4", samples) if isinstance(e, Calibrated)]
    for row in rows:
        sees = "vision" not in row.tensor
        assert (row.kept == "calibrated") == sees or "held out" in row.reason
    assert all(row.inputs == 0 for row in rows if "vision" in row.tensor)


def test_each_expert_is_thinned_by_its_own_tokens(
    calibrated: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    """Many words and few patches here: the patches must not be thinned because of the words."""
    few = calibrate_with(made_samples(), max_inputs=150)
    thinned = list(convert(CHECKPOINT, tmp_path / "nf4", SETTINGS, QUICK, few))
    inputs = [
        {e.tensor: e.inputs for e in events if isinstance(e, Calibrated)}
        for events in (calibrated[1], thinned)
    ]
    words, patches = (
        f"model.layers.0.mlp.{expert}_mlp.up_proj.weight" for expert in ("language", "vision")
    )
    assert inputs[0][words] > 400 > 150 > inputs[1][words]
    assert inputs[0][patches] == inputs[1][patches] > 60


def test_few_held_out_inputs_decide_as_many_would(
    calibrated: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    few = calibrate_with(made_samples(), max_held_out_inputs=40)
    events = convert(CHECKPOINT, tmp_path / "q", SETTINGS, QUICK, few)
    found = {e.tensor: e for e in events if isinstance(e, Calibrated)}
    many = {e.tensor: e for e in calibrated[1] if isinstance(e, Calibrated)}
    assert any(found[name].nearest_error != row.nearest_error for name, row in many.items())
    for name, row in many.items():
        assert 0.3 * row.nearest_error < found[name].nearest_error < 3 * row.nearest_error


@pytest.mark.slow
def test_the_command_calibrates_the_demo_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(DEMO), str(tmp_path / "d"), "--calibrate", "built-in", "--samples", "8"]) == 0
    shown = capsys.readouterr()
    assert "of round to nearest" in shown.err
    assert "Calibrating takes about " in shown.out
    settings = json.loads((tmp_path / "d" / MANIFEST_NAME).read_text())["settings"]
    assert settings["rounding"].startswith("calibrated: 8 samples, ")


def test_too_few_samples_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(DEMO), str(tmp_path / "d"), "--calibrate", "built-in", "--samples", "3"]) == 2
    assert "Too few samples to calibrate with: 3" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_picture_is_decoded_once_for_its_hash_and_for_all_passes_over_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[str] = Counter()
    made = made_samples()

    def count(image: ImageSource) -> OpenedImage:
        assert isinstance(image, Path)
        decoded[image.name] += 1
        return open_image(image)

    monkeypatch.setattr(samples_module, "open_image", count)
    samples = []
    for number, sample in enumerate(made):
        if isinstance(sample.image, Image.Image):
            file = tmp_path / f"{number // 2}.png"  # two questions about most pictures
            if not file.exists():
                sample.image.save(file)
            samples.append(replace(sample, image=file, picture=None))
    pictures = len({sample.image for sample in samples if sample.image is not None})
    room = (pictures - 2) * 84 * 84 * 3
    with SamplePixels(84, tmp_path, most_bytes=room) as pixels:
        found = in_fixed_order(samples, decoded=pixels.keep)
        identify_samples(found)
        assert set(decoded.values()) == {1}
        calibrate = calibrate_with(found, pixels=pixels)
        assert list(convert(CHECKPOINT, tmp_path / "nf4", SETTINGS, QUICK, calibrate))
    # The last two had no room: they are decoded again for the calibration and, if they are held
    # out, for the evaluation.
    again = sorted(decoded.values())[-2:]
    assert sorted(decoded.values()) == [1] * (pictures - 2) + again
    assert min(again) > 1


@pytest.mark.parametrize("side", [84, 1344])
def test_kept_pixels_are_those_of_the_picture_bit_for_bit(tmp_path: Path, side: int) -> None:
    vision = replace(open_catalog(CHECKPOINT).config.vision, image_size=side)
    [sample, *_] = made_samples(4)
    assert sample.image is not None
    with SamplePixels(side, tmp_path) as pixels:
        pixels.keep(open_image(sample.image))
        found = pixels.values(replace(sample, image=None))  # it can't be decoded again
    assert found.dtype == np.float32
    assert np.array_equal(found, pixel_values(open_image(sample.image), vision))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cogvlm2_lite.samples.pixels.tempfile.TemporaryFile", full)
    [sample, *_] = made_samples(4)
    with SamplePixels(84, tmp_path) as pixels:
        assert pixels.values(sample).shape == (1, 3, 84, 84)
        assert np.array_equal(pixels.values(sample), pixels.values(sample))


# --- samples --------------------------------------------------------------------------------------


def test_samples_are_read_from_lines_and_folders(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert [s.image for s in read_samples(tmp_path)] == [tmp_path / "a.jpg", tmp_path / "b.png"]
    lines = tmp_path / "s.jsonl"
    lines.write_text('{"image": "b.png", "question": "q", "answer": "a"}\n\n{"question": "t"}\n')
    assert read_samples(lines) == [
        Sample(question="q", answer="a", image=tmp_path / "b.png"),
        Sample(question="t"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no samples"),
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 is not an object"),
        ('{"question": 3}', "must be strings"),
        ('{"question": "q", "picture": "x"}', "is not an object with question"),
    ],
)
def test_lines_that_are_no_samples_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_samples(tmp_path / "s.jsonl")


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no pictures"):
        read_samples(tmp_path)
    with pytest.raises(UsageError, match="There is no folder or file"):
        read_samples(tmp_path / "missing")


def test_drawn_samples_are_the_same_for_a_seed_and_longer_sets_begin_alike() -> None:
    short, long = drawn_samples(10), drawn_samples(25)
    assert [(s.question, s.answer) for s in short] == [(s.question, s.answer) for s in long[:10]]
    assert [s.image is None for s in short] == [n % 5 == 4 for n in range(10)]
    assert {s.question.isascii() for s in long} == {True, False}
    assert in_fixed_order(short) == in_fixed_order(list(reversed(short)))
    again, others = drawn_samples(25), drawn_samples(25, seed=1)
    assert identify_samples(long) == identify_samples(again) != identify_samples(others)


def test_every_draw_has_as_many_dark_pictures_of_a_kind_as_another() -> None:
    for seed in (0, 5):
        screenshots = [n for n in range(90) if n % 11 == 9 and n % 5 != 4]
        drawn = drawn_samples(90, seed)
        images = [drawn[number].image for number in screenshots]
        papers = [
            np.asarray(image.convert("L"))[-1, -1]
            for image in images
            if isinstance(image, Image.Image)
        ]
        dark = sum(int(paper < 100) for paper in papers)
        assert abs(dark - len(papers) / 2) <= 1


def test_drawn_samples_are_of_all_kinds_in_both_languages() -> None:
    asked = Counter(s.question for s in drawn_samples(300) if s.image is not None)
    in_english = {
        "Read all text in this image.", "What does the sign say?", "What is the sum of all prices?",
        "What is the highest value, and where?", "What do you see, row by row?",
        "Describe this picture.",
    }  # fmt: skip
    assert all(asked[question] >= 8 for question in in_english)
    assert sum(number for question, number in asked.items() if not question.isascii()) > 80
