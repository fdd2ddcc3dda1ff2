"""--activations int8: what it changes, what it does not, and where it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import cogvlm2_lite
from cogvlm2_lite.cli.compare import main as compare
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import (
    COARSE_PICTURE,
    Cancel,
    Event,
    Finished,
    PictureOpened,
    TextDelta,
    TokenLogprobs,
)
from cogvlm2_lite.inputs.image import open_image, pixel_values
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from quantize.recipe import QuantizeOptions
from tests.core.test_scheduler import answer_all
from tests.helpers.conversion import quantize

PICTURE = checkpoint_folder().parent / "pictures" / "chart.png"
QUESTION = "How many bars are there?"

_KERNELS = choose_kernels(torch.device("cpu"), torch.float32)
pytestmark = pytest.mark.skipif(not _KERNELS.multiplies_bytes, reason=_KERNELS.reason)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in NF4."""
    target = tmp_path_factory.mktemp("nf4") / "demo"
    quantize(checkpoint_folder(), target, QuantizeOptions())
    return target


def opened(
    folder: Path,
    *,
    budget: int = 1 << 30,
    context: int | None = None,
    parallel: int = 1,
    speculation: bool = True,
    coarse: bool = True,
) -> Model:
    return open_model(
        folder,
        compute=choose_compute("cpu", "float32"),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=budget)],
        context=context,
        parallel=parallel,
        speculation=speculation,
        coarse_pictures=coarse,
    )


def features(model: Model) -> torch.Tensor:
    pixels = torch.from_numpy(pixel_values(open_image(PICTURE), model.config.vision))
    return run(model.runtime.encode(pixels, Cancel()))


def finished(model: Model, picture: Path | None) -> Finished:
    *_, last = model.answer(QUESTION, picture)
    assert isinstance(last, Finished)
    return last


def test_a_picture_is_close_to_what_it_was_and_text_is_the_same(folder: Path) -> None:
    coarse, exact = opened(folder), opened(folder, coarse=False)
    ours, theirs = features(coarse), features(exact)
    error = float((ours - theirs).norm() / theirs.norm())
    assert 1e-4 < error < 0.1
    assert finished(coarse, None).token_ids == finished(exact, None).token_ids


def test_a_picture_has_the_same_bits_with_little_memory_and_other_threads(folder: Path) -> None:
    expected = features(opened(folder))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(features(opened(folder)), expected)
    finally:
        torch.set_num_threads(threads)
    small = opened(folder, budget=38 << 20, context=512)
    assert small.plan.devices[0].streams
    assert torch.equal(features(small), expected)


def test_answers_have_the_same_logprobs_in_every_way(folder: Path) -> None:
    """With little memory, without drafts, and next to another answer."""

    def answer(model: Model) -> list[Event]:
        asked = Sampling(max_new_tokens=6, logprobs=2)
        events = model.answer("Name every colour.", PICTURE, sampling=asked)
        return [event for event in events if isinstance(event, (TextDelta, TokenLogprobs))]

    expected = answer(opened(folder))
    assert answer(opened(folder, budget=38 << 20, context=512)) == expected
    assert answer(opened(folder, speculation=False)) == expected
    together = opened(folder, parallel=2)
    asked = Request(question=QUESTION, image=open_image(PICTURE))
    for outcomes in answer_all(together.engine, [asked, asked]).outcomes.values():
        last = outcomes[-1]
        assert isinstance(last, Finished)
        assert last.token_ids == finished(opened(folder), PICTURE).token_ids


def test_the_answer_names_it(folder: Path) -> None:
    model = cogvlm2_lite.load(folder, "cpu", activations="int8")
    events = list(model.answer(QUESTION, PICTURE))
    [about] = [event for event in events if isinstance(event, PictureOpened)]
    assert about.notices == (COARSE_PICTURE,)
    assert isinstance(events[-1], Finished)
    assert events[-1].activations == "int8"
    assert finished(model, None).activations == "auto"
    assert finished(cogvlm2_lite.load(folder, "cpu"), PICTURE).activations == "auto"


def test_pictures_on_disk_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    kept = (tmp_path, 1 << 30)
    for activations, files in (("auto", 1), ("int8", 2), ("int8", 2)):
        model = cogvlm2_lite.load(folder, "cpu", activations=activations, pictures=kept)
        finished(model, PICTURE)
        assert len(list(tmp_path.glob("*.safetensors"))) == files


def test_compare_measures_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare([str(folder), "--activations", "int8", "--count", "4", "--json"]) == 0
    kl = json.loads(capsys.readouterr().out)["kl_mean"]["value"]
    assert 0 < kl < 0.05


def test_where_it_is_impossible_or_has_no_effect(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = cogvlm2_lite.load(checkpoint_folder(), "cpu", activations="int8")
    assert [w for w in dense.warnings if "--activations int8 has no effect" in str(w)]
    with pytest.raises(UsageError, match="Unknown value 'int4' for activations"):
        cogvlm2_lite.load(folder, "cpu", activations="int4")
    monkeypatch.setattr(
        "cogvlm2_lite.weights.kernels.choice.KernelChoice.multiplies_bytes", property(lambda _: 0)
    )
    with pytest.raises(UsageError, match="need a CPU and this program's C kernels"):
        cogvlm2_lite.load(folder, "cpu", activations="int8")
