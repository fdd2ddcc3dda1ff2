"""Several adapters in one loaded model: each conversation gets exactly what it would get alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
import torch

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.engine.model import Model, load_with, open_model
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.engine.runtime import Token, run
from cogvlm2_lite.errors import AdapterError, DoesNotFitError, UsageError
from cogvlm2_lite.events import Cancel, Event, ImageEncoded, Prefilled, TextDelta
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.adapter import read_adapter
from cogvlm2_lite.weights.adapter_choice import AdapterChoice, read_choices
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from cogvlm2_lite.weights.adapter_sum import add_up, read_adapters, weighted
from cogvlm2_lite.worker.main import Worker
from cogvlm2_lite.worker.protocol import (
    Ask,
    Emitted,
    Failed,
    Load,
    Loaded,
    Message,
    Shutdown,
    encode,
    read_message,
)
from tests.helpers.adapters import TOWER, random_adapter
from tests.helpers.answers import finished, picture
from tests.helpers.asking import SilentAfter
from tests.helpers.folders import random_folder
from tests.helpers.goldens import make_chunk
from tests.helpers.graphs import repeat

NAMES = (None, "first", "second", "tower")
CHOSEN = Sampling(max_new_tokens=6, repetition_guard=False, logprobs=2)


Said = tuple[tuple[int, ...], list[float]]


@dataclass(frozen=True)
class Made:
    """A model folder, and its adapters: two that act behind the picture, and one everywhere."""

    folder: Path
    first: Path
    second: Path
    tower: Path

    @property
    def texts(self) -> list[str]:
        return [str(self.first), f"second={self.second}:0.5", str(self.tower)]

    def options(self, *texts: str, parallel: int = 1, pictures: Path | None = None) -> LoadOptions:
        return LoadOptions(
            folder=self.folder,
            device="cpu",
            dtype="float32",
            parallel=parallel,
            context=256,
            pictures=None if pictures is None else (pictures, 1 << 30),
            adapters=read_choices(texts or self.texts, add_up=False),
        )

    def load(self, *texts: str, parallel: int = 1, pictures: Path | None = None) -> Model:
        return load_with(self.options(*texts, parallel=parallel, pictures=pictures))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("adapters")
    folder = random_folder(root / "model")
    return Made(
        folder=folder,
        first=random_adapter(root / "first", folder, seed=1, acts_on=BEHIND_PICTURE),
        second=random_adapter(root / "two", folder, seed=2, acts_on=BEHIND_PICTURE, rank=5),
        tower=random_adapter(root / "tower", folder, seed=3, parts=TOWER),
    )


@pytest.fixture
def model(made: Made) -> Model:
    return made.load()


@pytest.fixture(scope="module")
def alone(made: Made) -> Callable[[Request], Said]:
    """Return what a request gets from a model that has answered nothing before."""
    found: dict[object, Said] = {}

    def answer(asked: Request) -> Said:
        key = (asked.adapter, asked.image is None, asked.question)
        if key not in found:
            found[key] = said(ask(made.load(), asked))
        return found[key]

    return answer


def request(name: str | None, question: str = "What?", seed: int | None = 1) -> Request:
    image = None if seed is None else open_image(picture(seed))
    return Request(question=question, image=image, sampling=CHOSEN, adapter=name)


def ask(model: Model, asked: Request) -> list[Event]:
    return list(model.engine.answer(asked, Cancel()))


def said(events: Iterable[Event]) -> Said:
    """Return the tokens of an answer and their exact log probabilities."""
    events = list(events)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    chances = [one.logprob for delta in deltas for token in delta.tokens for one in token.top]
    return finished(events).token_ids, chances


def together(model: Model, requests: Sequence[Request]) -> list[Said]:
    engine, events = model.engine, [list[Event]() for _ in requests]
    for number, each in enumerate(requests):
        engine.begin(number, each, Cancel())
    while engine.busy:
        for number, outcome in engine.turn():
            assert not isinstance(outcome, Exception), outcome
            events[number].append(outcome)
    return [said(one) for one in events]


@pytest.mark.parametrize("seed", [1, None], ids=["picture", "text"])
def test_base_and_adapters_in_one_run_answer_as_each_does_alone(
    made: Made, alone: Callable[[Request], Said], seed: int | None
) -> None:
    requests = [request(name, seed=seed) for name in (*NAMES, "first")]
    model = made.load(parallel=5)
    assert model.plan.parallel == 5
    expected = [alone(each) for each in requests]
    plain = cogvlm2_lite.load(made.folder, device="cpu", dtype="float32", context=256)
    assert expected[0] == said(ask(plain, requests[0]))  # to the bit what it is without adapters
    assert len({str(one) for one in expected[:4]}) == 4
    assert together(model, requests) == expected
    assert together(model, requests[::-1]) == expected[::-1]  # other slots, and what they hold


def test_one_loaded_adapter_answers_as_one_of_several(
    made: Made, alone: Callable[[Request], Said]
) -> None:
    for name, text in zip(("first", "second", "tower"), made.texts, strict=True):
        assert said(ask(made.load(text), request(name))) == alone(request(name))


def test_streamed_weights_bring_all_adapters_with_them(
    made: Made, alone: Callable[[Request], Said]
) -> None:
    config = read_config(made.folder)
    choices = read_choices(made.texts, add_up=False)
    adapters = read_adapters(choices, config, base=None, any_base=False)

    def within(nbytes: int) -> Model | None:
        try:
            return open_model(
                made.folder,
                compute=choose_compute("cpu", "float32"),
                budgets=[DeviceBudget(device="cpu:0", in_ram=True, device_bytes=nbytes)],
                context=256,
                parallel=4,
                adapters=adapters,
            )
        except DoesNotFitError:
            return None

    tight = next(
        found
        for mib in itertools.count(4)
        if (found := within(mib << 20)) is not None and found.plan.parallel == 4
    )
    assert tight.plan.devices[0].phase(Phase.DECODE).streamed
    requests = [request(name) for name in NAMES]
    assert together(tight, requests) == [alone(each) for each in requests]


def test_the_plan_has_the_bytes_of_all_loaded_adapters(made: Made, model: Model) -> None:
    plain = cogvlm2_lite.load(made.folder, device="cpu", dtype="float32", context=256)
    config = read_config(made.folder)
    added = sum(
        4 * pair.numel
        for folder in (made.first, made.second, made.tower)
        for pair in read_adapter(folder, config).pairs.values()
    )
    for each in (plain, model):
        list(each.warm_up())
    # Everything but the tower's part is needed for every token.
    ask(plain, request(None)), ask(model, request(None))
    assert model.runtime.residency.steps
    held = [sum(a.held_bytes for a in each.runtime.arenas) for each in (plain, model)]
    assert held[1] - held[0] == added


def reused(events: Iterable[Event]) -> tuple[bool, int]:
    """Return whether the picture was known, and how many tokens of the prompt were."""
    events = list(events)
    (picture,) = [event.reused for event in events if isinstance(event, ImageEncoded)] or [True]
    (tokens,) = [event.reused_tokens for event in events if isinstance(event, Prefilled)]
    return picture, tokens


def test_a_picture_is_shared_by_what_acts_behind_it_and_by_nothing_else(model: Model) -> None:
    prefix = 1 + model.config.vision.image_tokens
    expected = [
        ("first", (False, 0)),
        ("second", (True, prefix)),
        (None, (True, prefix)),
        ("tower", (False, 0)),
        ("tower", (True, prefix)),
        ("first", (True, prefix)),
        (None, (True, prefix)),
    ]
    for number, (name, known) in enumerate(expected):
        events = ask(model, request(name, f"Question {number}?"))
        assert (name, reused(events)) == (name, known)


def test_a_conversation_that_changes_its_adapter_computes_its_text_again(made: Made) -> None:
    model, fresh = made.load(), made.load()
    past = [("a?", "b"), ("c?", "d")]
    asked = replace(request("first"), history=past)
    ask(model, asked)
    prefix = 1 + model.config.vision.image_tokens
    assert reused(ask(model, asked))[1] > prefix
    other = replace(asked, adapter="second")
    events = ask(model, other)
    assert reused(events) == (True, prefix)
    assert said(events) == said(ask(fresh, other))
    text = replace(request("first", seed=None), history=past)
    ask(model, text)
    events = ask(model, replace(text, adapter=None))
    assert reused(events) == (True, 0)
    assert said(events) == said(ask(fresh, replace(text, adapter=None)))


def test_pictures_on_disk_are_those_of_the_adapter_that_acted(made: Made, tmp_path: Path) -> None:
    plain = made.load(str(made.first), pictures=tmp_path)
    assert not reused(ask(plain, request("first")))[0]
    again = made.load(f"x={made.second}", pictures=tmp_path)
    assert reused(ask(again, request("x")))[0]
    everywhere = made.load(f"x={made.tower}", pictures=tmp_path)
    assert not reused(ask(everywhere, request("x")))[0]
    weaker = made.load(f"x={made.tower}:0.5", pictures=tmp_path)
    assert not reused(ask(weaker, request("x")))[0]
    same = made.load(str(made.tower), pictures=tmp_path)
    assert reused(ask(same, request("tower")))[0]


def test_a_continued_answer_keeps_its_adapter(made: Made) -> None:
    whole = finished(ask(made.load(), request("second")))
    model = made.load()
    short = replace(CHOSEN, max_new_tokens=3)
    cut = finished(ask(model, replace(request("second"), sampling=short)))
    rest = replace(
        request("second"),
        sampling=short,
        continue_from=cut.text,
        continue_ids=cut.token_ids,
    )
    other = finished(ask(model, replace(rest, adapter="first")))
    assert finished(ask(model, rest)).token_ids == whole.token_ids
    assert other.token_ids != whole.token_ids


def test_a_graph_belongs_to_the_adapters_of_its_rows(model: Model) -> None:
    model.runtime.graphs = GraphCache(lambda: repeat)
    runtime, ids = model.runtime, torch.arange(9)[None] + 10
    caches = []
    for name in NAMES:
        caches.append(runtime.new_cache())
        chunk = make_chunk(ids, torch.zeros_like(ids))
        run(runtime.prefill(chunk, None, caches[-1], Cancel(), name))

    def steps(names: Sequence[str | None]) -> list[torch.Tensor]:
        tokens = [
            Token(token=40, position=9, cache=cache, adapter=name)
            for cache, name in zip(caches, names, strict=True)
        ]
        for _ in range(4):
            logits = runtime.decode_each(tokens)
            alone = [runtime.decode_one_token(40, 10, cache) for cache in caches]
            assert len(alone) == len(logits)
            for cache in caches:
                cache.truncate(9)
        return logits

    first = steps(NAMES)
    assert runtime.graphs is not None
    assert runtime.graphs.replays
    turned = (*NAMES[1:], None)
    expected = GraphCache(lambda: repeat)
    recorded, runtime.graphs = steps(turned), expected
    assert not any(map(torch.equal, first, recorded))
    assert all(map(torch.equal, recorded, steps(turned)))


# --- choosing -------------------------------------------------------------------------------------


def test_a_model_answers_with_the_adapter_that_is_set(
    made: Made, model: Model, alone: Callable[[Request], Said]
) -> None:
    assert (model.adapters, model.adapter) == (("first", "second", "tower"), "first")
    found: dict[str | None, Said] = {}
    for name in (*NAMES, "first"):
        model.adapter = name
        answer = said(model.answer("What?", picture(1), sampling=CHOSEN))
        assert found.setdefault(name, answer) == answer == alone(request(name))
    with pytest.raises(UsageError, match="no adapter 'third'") as error:
        model.adapter = "third"
    assert error.value.hint == "Choose one of base, first, second, tower."
    with pytest.raises(UsageError, match="no adapter 'third'"):
        ask(model, request("third"))
    plain = cogvlm2_lite.load(made.folder, device="cpu", dtype="float32", adapters=["x=first"][:0])
    assert (plain.adapters, plain.adapter) == ((), None)


def test_an_adapter_answers_in_the_template_that_it_learnt(made: Made, tmp_path: Path) -> None:
    learnt = random_adapter(tmp_path / "vqa", made.folder, seed=1, template="vqa")
    model = made.load(str(learnt), str(made.tower))

    def length(name: str | None, template: str | None = None) -> int:
        return finished(ask(model, replace(request(name), template=template))).prompt_tokens

    assert length("vqa") == length(None, "vqa") != length(None) == length("tower")
    assert length("vqa", "chat") == length(None, "chat")


def test_a_question_to_the_worker_names_its_adapter(
    made: Made, alone: Callable[[Request], Said]
) -> None:
    names = {1: "second", 2: "", 3: None, 4: "third"}
    asks = [
        Ask(request=number, question="What?", sampling=CHOSEN, adapter=name)
        for number, name in names.items()
    ]
    work: list[Message] = [Load(options=made.options(parallel=2)), *asks, Shutdown()]
    reports = BytesIO()
    Worker(SilentAfter(b"".join(map(encode, work))), reports).run()
    reports.seek(0)
    events: dict[int, list[Event]] = {number: [] for number in names}
    for message in iter(lambda: read_message(reports), None):
        match message:
            case Loaded():
                assert message.adapters == ("first", "second", "tower")
                assert [str(remark) for remark in message.adapter_remarks] == [
                    f"The adapter {name} does not say for which model it was made."
                    for name in ("first", "two", "tower")
                ]
            case Emitted():
                events[message.request].append(message.event)
            case Failed():
                assert message.request == 4
                assert "no adapter 'third'" in str(message.message)
    for number, meant in ((1, "second"), (2, None), (3, "first")):
        assert said(events[number]) == alone(request(meant, seed=None))


# --- sums -----------------------------------------------------------------------------------------


def test_equal_names_are_added_up(made: Made) -> None:
    model = made.load(f"x={made.first}", f"x={made.second}:0.5")
    assert model.adapters == ("x",)
    config = read_config(made.folder)
    pairs = [read_adapter(folder, config).pairs for folder in (made.first, made.second)]
    choices = read_choices([f"x={made.first}", f"x={made.second}:0.5"], add_up=False)
    (both,) = read_adapters(choices, config, base=None, any_base=False)
    for name, pair in both.pairs.items():
        one, two = pairs[0][name], pairs[1][name]
        assert pair.rank == one.rank + two.rank
        expected = one.up @ one.down * one.scale + two.up @ two.down * two.scale * 0.5
        assert torch.allclose(pair.up @ pair.down * pair.scale, expected, atol=1e-5)
    alone = said(ask(made.load(str(made.first)), request("first")))
    assert said(ask(model, request("x"))) != alone


def test_an_adapter_and_its_negative_add_up_to_nothing(made: Made) -> None:
    adapter = read_adapter(made.tower, read_config(made.folder))
    none = add_up([adapter, weighted(adapter, -1)])
    for pair in none.pairs.values():
        assert float((pair.up @ pair.down).abs().max()) < 1e-5


def test_adapters_that_act_on_different_rows_are_not_added_up(made: Made) -> None:
    with pytest.raises(AdapterError, match="x can't be added up"):
        made.load(f"x={made.first}", f"x={made.tower}")


def test_every_adapter_is_checked_before_anything_is_loaded(made: Made, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="There is no adapter folder"):
        made.load(str(made.first), str(tmp_path / "nowhere"))
    choice = AdapterChoice(name="x", folder=tmp_path)
    with pytest.raises(AdapterError, match=r"has no adapter_config\.json"):
        load_with(LoadOptions(folder=made.folder, device="cpu", adapters=(choice,)))
