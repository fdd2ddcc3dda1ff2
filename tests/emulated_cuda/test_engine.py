"""The engine on emulated GPUs: the same answers in every order of the queued work.

The model has random weights and five blocks. The expected answers are those of the emulated GPU
with plenty of memory, where work runs immediately.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.backends import pinned
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine import cuda_graph
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import Cancelled, run
from cogvlm2_lite.errors import CheckpointError, DoesNotFitError
from cogvlm2_lite.events import (
    Cancel,
    Event,
    Finished,
    ImageEncoded,
    Prefilled,
    Replanned,
    TextDelta,
)
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory import work
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan
from cogvlm2_lite.memory.residency import Residency
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.adapter import Adapter, read_adapter
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import GraphRecord, Order, RuleError, Stream
from tests.helpers.adapters import TOWER, random_adapter
from tests.helpers.answers import picture
from tests.helpers.drafts import use
from tests.helpers.folders import random_folder
from tests.helpers.goldens import make_chunk

PLENTY = 1 << 30
ORDERS = [(Order.LATE, 0), (Order.RANDOM, 1), (Order.RANDOM, 2)]


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the ring of pinned buffers turn, and the budgets mean something, for small weights."""
    monkeypatch.setattr(pinned, "RING_BYTES", 1 << 14)
    monkeypatch.setattr(work, "KERNEL_SCRATCH_BYTES", 1 << 14)


@dataclass(frozen=True)
class Known:
    """The model, what it answers, and the memory with which it streams all it can."""

    folder: Path
    texts: list[str]
    least_bytes: int
    most_bytes: int

    def budget(self, share: float) -> int:
        return int(self.least_bytes + (self.most_bytes - self.least_bytes) * share)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = random_folder(tmp_path_factory.mktemp("models") / "random")
    with patch.object(work, "KERNEL_SCRATCH_BYTES", 1 << 14), emulated_cuda():
        model = opened(folder)
        most = model.plan.peak_bytes
        low, high = 0, most
        while high - low > 4096:
            middle = (low + high) // 2
            try:
                opened(folder, middle)
            except DoesNotFitError:
                low = middle
            else:
                high = middle
        return Known(folder, texts(model), high, most)


def opened(folder: Path, *budgets: int, dtype: str = "bfloat16", **options: Any) -> Model:
    return open_model(
        folder,
        compute=choose_compute("cuda", dtype),
        budgets=[
            DeviceBudget(device=f"cuda:{index}", device_bytes=nbytes, host_bytes=PLENTY)
            for index, nbytes in enumerate(budgets or (PLENTY,))
        ],
        **options,
    )


def text(model: Model, **sampling: Any) -> str:
    values = {"max_new_tokens": 8, "repetition_guard": False, **sampling}
    *_, last = model.answer("What?", picture(1), sampling=Sampling(**values))
    assert isinstance(last, Finished)
    return last.text


def texts(model: Model) -> list[str]:
    return [text(model), text(model, repetition_penalty=1.3)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_no_order_of_the_work_changes_an_answer(
    known: Known, share: float, order: Order, seed: int
) -> None:
    with emulated_cuda(order=order, seed=seed) as machine:
        model = opened(known.folder, known.budget(share))
        assert model.plan.streams == (share < 1)
        assert texts(model) == known.texts
        assert model.runtime.graphs is not None
        assert model.runtime.graphs.trouble == ""
        # With little memory decoding streams, too, and then there is no graph.
        assert (model.runtime.graphs.replays == 0) == (share < 0.4)
        assert machine.peak[0] <= known.budget(share) + (64 << 10)


@pytest.mark.parametrize(
    ("order", "seed", "kv"), [(Order.LATE, 0, KVKind.FULL), (Order.RANDOM, 1, KVKind.INT8)]
)
def test_drafts_change_no_answer_where_weights_are_streamed(
    known: Known, order: Order, seed: int, kv: KVKind
) -> None:
    sampling = Sampling(max_new_tokens=10, repetition_guard=False, logprobs=1)
    with emulated_cuda():
        model = opened(known.folder, kv=kv)
        assert not model.runtime.takes_drafts  # its steps are graphs
        *events, end = model.answer("What?", picture(1), sampling=sampling)
        expected = [event for event in events if isinstance(event, TextDelta)]
        assert isinstance(end, Finished)
    with emulated_cuda(order=order, seed=seed) as machine:
        model = opened(known.folder, known.budget(0.1), kv=kv)
        assert model.runtime.takes_drafts
        use(model, end.token_ids, "some")
        *events, last = model.answer("What?", picture(1), sampling=sampling)
        assert [event for event in events if isinstance(event, TextDelta)] == expected
        assert isinstance(last, Finished)
        assert last.token_ids == end.token_ids
        assert last.accepted_tokens > 0
        assert machine.peak[0] <= known.budget(0.1) + (64 << 10)


# --- controls: faults that must be seen -----------------------------------------------------------


def _do_not_wait(upload: pinned.PinnedUpload) -> None:
    """Overwrite weights that queued work still reads."""


def _reuse_at_once(upload: pinned.PinnedUpload) -> Any:
    if len(upload._ring) < 2:
        upload._ring.append(upload._new_buffer())
        return upload._ring[-1]
    upload._turn = 1 - upload._turn
    return upload._ring[upload._turn]


def _leave_at_once(upload: pinned.PinnedUpload, *error: Any) -> None:
    upload._context.__exit__(*error)


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("wait_for_computing", _do_not_wait),
        ("_next_buffer", _reuse_at_once),
        ("__exit__", _leave_at_once),
    ],
)
def test_a_missing_wait_is_seen(known: Known, method: str, fault: Callable[..., Any]) -> None:
    wrong = False
    with patch.object(pinned.PinnedUpload, method, fault), emulated_cuda(order=Order.LATE):
        model = opened(known.folder, known.budget(0))
        try:
            wrong = texts(model) != known.texts
        except CheckpointError:  # what was uploaded is no valid weight
            wrong = True
    assert wrong


def scores(
    model: Model, steps: int = 8, cache: KVCache | None = None, *, release_at: int = -1
) -> list[Tensor]:
    """Return the scores of decode steps; all weights are released before one of them."""
    ids = torch.arange(20)[None] + 10
    chunk, cache = make_chunk(ids, torch.zeros_like(ids)), cache or model.runtime.new_cache()
    cache.truncate(0)
    run(model.runtime.prefill(chunk, None, cache, Cancel()))
    found = []
    for step in range(steps):
        if step == release_at:
            model.runtime.residency.release()
        found.append(model.runtime.decode_one_token(40 + step, 20 + step, cache).cpu())
    return found


def test_a_graph_of_released_weights_is_seen(known: Known) -> None:
    """The key of a graph has the residency's version; without it, it reads a slab that is gone."""
    unchanged = property(lambda residency: 1, lambda residency, value: None)
    with emulated_cuda(order=Order.LATE):
        right = scores(opened(known.folder), release_at=5)
        with patch.object(Residency, "version", unchanged, create=True):
            wrong = scores(opened(known.folder), release_at=5)
    # The step behind the release loads the weights again; the next one repeats the graph.
    assert all(map(torch.equal, right[:6], wrong[:6]))
    assert not torch.equal(right[6], wrong[6])


# --- pace -----------------------------------------------------------------------------------------


def test_the_host_is_at_most_three_blocks_ahead(known: Known) -> None:
    """So progress, a cancel and the longest step, by which a hang is found, are those of the GPU.

    Without a limit, the whole encoding was queued, and the first wait for a value took its time.
    """
    with emulated_cuda(order=Order.LATE) as machine:
        model, stream = opened(known.folder), machine.default_stream(0)
        runtime, side = model.runtime, model.config.vision.image_size
        pixels, ids = torch.zeros(1, 3, side, side), torch.arange(20)[None] + 10
        chunk = make_chunk(ids, torch.zeros_like(ids))
        for _ in range(2):  # the first pass loads the weights
            for work in (
                runtime.encode(pixels, Cancel()),
                runtime.prefill(chunk, None, runtime.new_cache(), Cancel()),
            ):
                machine.finish()
                queued, waiting = [stream.queued], []
                for _ in work:
                    queued.append(stream.queued)
                    waiting.append(stream.waiting)
                assert len(waiting) == 5
                block = max(after - before for before, after in pairwise(queued[1:]))
                assert max(waiting[2:]) <= 3 * block
                cancelled = runtime.encode(pixels, cancel := Cancel())
                for _ in range(3):
                    next(cancelled)
                cancel.set()
                with pytest.raises(Cancelled):
                    next(cancelled)


# --- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.8, "top_p": 0.9, "seed": 3},
        {"temperature": 0.8, "top_k": 5, "seed": 3},
        {"frequency_penalty": 0.5, "presence_penalty": 0.3},
        {"logprobs": 3},
        {"json_object": True},
    ],
    ids=lambda sampling: "-".join(sampling),
)
def test_sampling_is_the_same_while_streaming(known: Known, sampling: dict[str, Any]) -> None:
    with emulated_cuda():
        expected = text(opened(known.folder), **sampling)
    with emulated_cuda(order=Order.LATE):
        assert text(opened(known.folder, known.budget(0)), **sampling) == expected


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.8, "top_p": 0.9, "top_k": 50, "seed": 3, "repetition_penalty": 1.3},
        {"frequency_penalty": 0.5, "presence_penalty": 0.3, "logprobs": 3},
        {"temperature": 0.8, "seed": 3, "json_object": True},
    ],
    ids=lambda sampling: "-".join(sampling) or "greedy",
)
def test_the_host_waits_once_for_a_token(known: Known, sampling: dict[str, Any]) -> None:
    """For the token, together with what is reported of its logits."""
    with emulated_cuda() as machine:
        model, waits = opened(known.folder), []
        for most in (8, 2, 8):  # the first answer loads weights and captures a graph
            machine.syncs.clear()
            values = Sampling(max_new_tokens=most, repetition_guard=False, **sampling)
            *_, last = model.answer("What?", picture(1), sampling=values)
            assert isinstance(last, Finished)
            del machine.syncs["aten.exponential_.default"]  # the emulated generator is the CPU's
            waits.append((sum(machine.syncs.values()), last.completion_tokens))
        (few, less), (many, more) = waits[1:]
        assert more > less
        assert many - few == more - less


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kv", list(KVKind))
def test_number_types_and_kinds_of_cache(known: Known, dtype: str, kv: KVKind) -> None:
    with emulated_cuda():
        expected = text(opened(known.folder, dtype=dtype, kv=kv))
    with emulated_cuda(order=Order.RANDOM, seed=5):
        assert text(opened(known.folder, known.budget(0.7), dtype=dtype, kv=kv)) == expected


def test_two_gpus(known: Known) -> None:
    for share in (1.0, 0.6):
        with emulated_cuda(devices=2, order=Order.LATE) as machine:
            model = opened(known.folder, *2 * [known.budget(share)])
            assert all(device.blocks for device in model.plan.devices)
            assert texts(model) == known.texts
            assert min(machine.peak) > 0


def test_several_answers_at_once_are_those_of_each_alone(known: Known) -> None:
    with emulated_cuda(order=Order.RANDOM, seed=1):
        model = opened(known.folder, parallel=3)
        sampling = Sampling(max_new_tokens=8, repetition_guard=False)
        for number in range(3):
            image = open_image(picture(number))
            request = Request(question=f"What {number}?", image=image, sampling=sampling)
            model.engine.begin(number, request, Cancel())
        found: dict[int, str] = {}
        while model.engine.busy:
            for number, event in model.engine.turn():
                assert not isinstance(event, Exception)
                if isinstance(event, Finished):
                    found[number] = event.text
    with emulated_cuda():
        model = opened(known.folder)
        for number in range(3):
            *_, last = model.answer(f"What {number}?", picture(number), sampling=sampling)
            assert last.text == found[number]


@pytest.fixture(scope="module")
def adapters(known: Known, tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, ...]:
    root, config = tmp_path_factory.mktemp("adapters"), read_config(known.folder)
    words = random_adapter(root / "words", known.folder, seed=1, acts_on=BEHIND_PICTURE)
    tower = random_adapter(root / "tower", known.folder, seed=2, parts=TOWER)
    return tuple(read_adapter(folder, config) for folder in (words, tower))


def asked(model: Model, names: list[str | None]) -> list[str]:
    """Return the answers of adapters in one run, one for each slot."""
    sampling = Sampling(max_new_tokens=7, repetition_guard=False)
    model.engine.clock = lambda: 0.0  # a decode step after each prompt
    found: dict[int, str] = {}
    for number, name in enumerate(names):
        request = Request(question="What?", sampling=sampling, adapter=name)
        model.engine.begin(number, request, Cancel())
    while model.engine.busy:
        for number, event in model.engine.turn():
            assert not isinstance(event, Exception)
            if isinstance(event, Finished):
                found[number] = event.text
    return [found[number] for number in sorted(found)]


def test_adapters_in_one_run_answer_as_each_does_alone(
    known: Known, adapters: tuple[Adapter, ...]
) -> None:
    names = [None, "words", "tower"]
    with emulated_cuda():
        model = opened(known.folder, adapters=adapters)
        expected = [text for name in names for text in asked(model, [name])]
    assert len(set(expected)) == 3
    with emulated_cuda(order=Order.RANDOM, seed=3):
        model = opened(known.folder, adapters=adapters, parallel=3)
        assert asked(model, names) == expected
        assert model.runtime.graphs is not None
        assert model.runtime.graphs.replays > 0
        # In a slot whose graph belongs to another adapter.
        assert asked(model, names[::-1]) == expected[::-1]


# --- graphs ---------------------------------------------------------------------------------------


def graphs_of(model: Model) -> GraphCache:
    assert model.runtime.graphs is not None
    assert model.runtime.graphs.trouble == ""
    return model.runtime.graphs


def short_texts(model: Model, count: int) -> list[str]:
    """Return the answers to short questions, each of which is a new conversation."""
    sampling = Sampling(max_new_tokens=4, repetition_guard=False)
    return [
        last.text
        for number in range(count)
        for last in model.answer(f"What {number}?", sampling=sampling)
        if isinstance(last, Finished)
    ]


def test_short_questions_share_one_graph(known: Known) -> None:
    """With buffers that went with a conversation, each of them captured one and replayed once."""
    with emulated_cuda(order=Order.LATE) as machine:
        model = opened(known.folder)
        found = short_texts(model, 10)
        assert machine.captures == graphs_of(model).captures == 1
        assert graphs_of(model).replays == 10 * 3 - 2
    with emulated_cuda():
        plain = opened(known.folder)
        plain.runtime.graphs = None
        assert len(short_texts(plain, 1)) == 1
        assert found == short_texts(opened(known.folder), 10)


@pytest.mark.parametrize("most", [2, 16])
def test_a_conversation_has_a_graph_for_each_window(
    known: Known, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are on one stream, and if there are too many, all of them go (RuleError otherwise)."""
    monkeypatch.setattr(KVCache, "GROWTH", 4)
    with emulated_cuda():
        expected = scores(opened(known.folder), 14)
    monkeypatch.setattr(cuda_graph, "MOST_GRAPHS", most)
    with emulated_cuda(order=Order.LATE) as machine:
        model = opened(known.folder)
        cache = model.runtime.new_cache(lasting=True)
        for _ in range(2):
            found = scores(model, 14, cache)
            assert all(map(torch.equal, found, expected))
        # 14 tokens behind 20 have four windows.
        assert machine.captures == graphs_of(model).captures == (4 if most == 16 else 8)


def test_a_graph_that_goes_alone_is_seen(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: with it goes the memory in which cuBLAS works on the stream of the others."""
    monkeypatch.setattr(KVCache, "GROWTH", 4)
    with emulated_cuda():
        model = opened(known.folder)
        cache = model.runtime.new_cache(lasting=True)
        for _ in range(2):
            scores(model, 14, cache)
        [owned] = graphs_of(model)._owned.values()
        del owned.graphs[next(iter(owned.graphs))]
        with pytest.raises(RuleError, match="workspace"):
            scores(model, 14, cache)


class Owner:
    """Something to which graphs belong."""


def test_graphs_go_with_their_owners_and_streams_come_back() -> None:
    with emulated_cuda() as machine:
        device = torch.device("cuda", 0)
        new_capture = backend_of(device).graph_capture(device)
        assert new_capture is not None
        graphs, numbers, kept = GraphCache(new_capture), torch.ones(4, device=device), Owner()

        def third(owner: Owner) -> list[float]:
            found = [graphs.run(owner, "key", lambda: numbers * 2) for _ in range(3)][-1]
            return list(found.tolist())

        assert third(kept) == [2.0] * 4
        for _ in range(40):  # torch has 32 streams
            assert third(Owner()) == [2.0] * 4
        assert machine.captures == 41
        assert third(kept) == [2.0] * 4
        assert graphs.replays == 41 + 3
        more = [Owner() for _ in range(20)]  # all at once: some have no stream, and no graph
        assert all(third(owner) == [2.0] * 4 for owner in more)
        assert machine.captures == 41 + cuda_graph.MOST_OWNERS - 1


def test_a_new_plan_releases_graphs(known: Known) -> None:
    with emulated_cuda() as machine:
        model = opened(known.folder)
        expected = short_texts(model, 2)
        assert graphs_of(model).captures == 1
        held = machine.held[0]
        model.replanner.replan()
        [owned] = graphs_of(model)._owned.values()
        assert not owned.graphs
        assert machine.held[0] < held
        assert short_texts(model, 2) == expected


def test_a_graph_is_tried_again_with_a_new_plan(known: Known) -> None:
    def no_memory(record: GraphRecord, stream: Stream, pool: int | None) -> Any:
        raise cublas()

    with emulated_cuda() as machine:
        model = opened(known.folder)
        with patch.object(machine, "capture", no_memory):
            expected = short_texts(model, 2)
        assert model.runtime.graphs is not None
        assert model.runtime.graphs.trouble == "there is no memory for a graph"
        model.runtime.follow(model.plan)
        assert short_texts(model, 2) == expected
        assert graphs_of(model).captures == 1


def test_a_cache_that_the_plan_has_no_room_for_leaves_for_a_new_picture(known: Known) -> None:
    with (
        patch.object(MemoryPlan, "caches_stay", new=False),
        emulated_cuda(order=Order.LATE) as machine,
    ):
        model = opened(known.folder)
        assert text(model) == known.texts[0]
        assert short_texts(model, 1)
        [slot] = model.engine.slots
        held, version = machine.held[0], slot.cache.version
        model.pictures.clear()
        with (
            patch.object(model.runtime, "encode", side_effect=ZeroDivisionError),
            pytest.raises(ZeroDivisionError),
        ):
            text(model)
        assert machine.held[0] < held - slot.cache.prefix_bytes(500)
        assert text(model) == known.texts[0]
        assert slot.cache.version > version


def test_a_forward_pass_has_the_memory_of_idle_conversations(known: Known) -> None:
    ids = torch.arange(300)[None] % 90 + 10
    with emulated_cuda() as machine:
        model = opened(known.folder, known.most_bytes)
        assert text(model) == known.texts[0]
        model.forward(ids)
        assert text(model) == known.texts[0]
        assert machine.peak[0] <= known.most_bytes + (64 << 10)


# --- keeping pictures -----------------------------------------------------------------------------


def test_a_new_picture_is_kept_after_the_first_token(known: Known) -> None:
    """In groups of layers: one wait for each, where each layer's keys and values had one."""
    with emulated_cuda(order=Order.LATE) as machine:
        model = opened(known.folder)
        put, waits = model.pictures.put, list[int]()

        def counted(*args: Any) -> None:
            before = sum(machine.syncs.values())
            put(*args)
            waits.append(sum(machine.syncs.values()) - before)

        with patch.object(model.pictures, "put", counted):
            for event in model.answer("What?", picture(1)):
                if isinstance(event, Prefilled):
                    assert not waits
                    assert not model.pictures.nbytes
        assert waits == [2 * 2]  # keys and values of five layers, four at a time
        assert model.pictures.nbytes
        model.engine.slots[0].clear()
        events = list(model.answer("What?", picture(1), sampling=Sampling(max_new_tokens=8)))
        assert any(isinstance(event, ImageEncoded) and event.reused for event in events)
        assert isinstance(events[-1], Finished)
        assert events[-1].text == known.texts[0]


def test_a_cancelled_answer_keeps_its_picture(known: Known) -> None:
    with emulated_cuda(order=Order.LATE):
        model, cancel = opened(known.folder), Cancel()
        for event in model.answer("What?", picture(1), cancel=cancel):
            if isinstance(event, Prefilled):
                cancel.set()
        assert model.pictures.nbytes


# --- memory ---------------------------------------------------------------------------------------


SHORT = Sampling(
    max_new_tokens=3, repetition_guard=False, temperature=0.8, top_p=0.9, top_k=50, seed=3,
    logprobs=2, repetition_penalty=1.3, frequency_penalty=0.5, presence_penalty=0.3,
)  # fmt: skip


@dataclass(frozen=True)
class Sites:
    """Where an answer allocates memory of the GPU.

    numbers  of one allocation of each line of the engine and of the cache, and of a few of the
             blocks, among those of an answer
    events   of the answer when nothing fails
    """

    numbers: tuple[int, ...]
    events: list[Event]


def asked_afresh(model: Model, plan: MemoryPlan) -> list[Event]:
    """Ask with a plan when nothing of an earlier answer is left but the weights."""
    if model.plan is not plan:
        model.runtime.follow(plan)
    model.engine.slots[0].clear()
    model.pictures.clear()
    assert model.runtime.graphs is not None
    model.runtime.graphs.forget_all()  # a graph allocates nothing
    model.runtime.graphs.trouble = ""
    return list(model.answer("What?", picture(1), sampling=SHORT))


@pytest.fixture(scope="module")
def sites(known: Known) -> Sites:
    with patch.object(work, "KERNEL_SCRATCH_BYTES", 1 << 14), emulated_cuda() as machine:
        model = opened(known.folder)
        asked_afresh(model, model.plan)  # loads the weights
        found: dict[tuple[str, ...], list[int]] = {}
        before, account = machine.allocations, machine.account

        def noted(device: int, nbytes: int) -> None:
            if nbytes > 0:
                stack = traceback.extract_stack()
                lines = [f"{f.filename}:{f.lineno}" for f in stack if "cogvlm2_lite" in f.filename]
                in_block = "/engine/" not in lines[-1] and "kv_cache" not in lines[-1]
                site = ("block",) if in_block else tuple(lines[-2:])
                found.setdefault(site, []).append(machine.allocations + 1 - before)
            account(device, nbytes)

        with patch.object(machine, "account", noted):
            events = asked_afresh(model, model.plan)
    blocks = found.pop(("block",))
    numbers = [*(each[-1] for each in found.values()), *blocks[5 :: len(blocks) // 4]]
    return Sites(tuple(sorted(numbers)), events)


def cublas() -> Exception:
    return RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    )


@pytest.mark.parametrize("failure", [None, cublas])
def test_a_failed_allocation_changes_no_answer(
    known: Known, sites: Sites, failure: Callable[[], Exception] | None
) -> None:
    """At every place of an answer: encoding, prefill, keeping the picture, decoding, choosing."""
    with emulated_cuda() as machine:
        model = opened(known.folder)
        plan, failed, replanned = model.plan, 0, 0
        asked_afresh(model, plan)
        machine.failure = failure
        for number in sites.numbers[1 if failure else 0 :: 2]:
            machine.fail_at = machine.allocations + number
            events = asked_afresh(model, plan)
            failed += machine.allocations >= machine.fail_at
            assert [e for e in events if isinstance(e, TextDelta)] == [
                e for e in sites.events if isinstance(e, TextDelta)
            ], number
            assert isinstance(events[-1], Finished)
            replanned += any(isinstance(event, Replanned) for event in events)
        assert failed > 5
        assert replanned > 3
