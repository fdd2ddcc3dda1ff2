"""What a training run does when its loss, its disk or its GPU fails, and after a kill."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from cogvlm2_lite import events
from cogvlm2_lite.errors import DeviceError, DoesNotFitError, UsageError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.finetune import adapter_folder, state
from cogvlm2_lite.finetune.adapter_folder import Facts
from cogvlm2_lite.finetune.data import Example
from cogvlm2_lite.finetune.evaluation import Answer, HeldOut, evaluated_steps
from cogvlm2_lite.finetune.events import (
    Encoded,
    Evaluated,
    Interrupted,
    LearnEvent,
    Notice,
    Replanned,
    Sampled,
    Saved,
    StepDone,
)
from cogvlm2_lite.finetune.learn import Conduct, Run
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.state import RunFolder
from cogvlm2_lite.finetune.watch import Watch
from cogvlm2_lite.rows.read import Row, Turn
from cogvlm2_lite.text import Text
from tests.helpers.scripted_network import ScriptedNetwork

FACTS = Facts(
    base={}, base_name="demo", template="base", answer_space=True, data_fingerprint="d",
    answers=8, pictures=8,
)  # fmt: skip
ADAPTER = "adapter_model.safetensors"


def example(number: int) -> Example:
    ids = torch.tensor([[1, 5 + number, 7]])
    picture = TrainingPicture(key=f"p{number}", pixels=lambda: torch.zeros(1))
    labels = torch.tensor([[-100, -100, 7]])
    sample = TrainingSample(
        input_ids=ids, token_type_ids=torch.zeros_like(ids), labels=labels, picture=picture
    )
    row = Row(source="rows.jsonl", line=number, turns=(Turn(f"q{number}", f"a{number}"),))
    return Example(row=row, turn=1, sample=sample)


def make(
    out: Path, network: ScriptedNetwork, *, epochs: int = 2, step: int = 2, restart: bool = False,
    held_out: HeldOut | None = None, save_every: int = 50, patience: int | None = None,
    schedule: str = "cosine",
) -> Run:  # fmt: skip
    """Return a run of 4 steps an epoch."""
    folder = RunFolder(out)
    settings = TrainingSettings(epochs=epochs, step=step, rank=2, schedule=schedule)
    run = Run(
        folder,
        cast("LearningNetwork", network),
        settings,
        [example(number) for number in range(8)],
        HeldOut(examples=[example(number) for number in range(8, 10)])
        if held_out is None
        else held_out,
        FACTS,
        conduct=Conduct(save_every=save_every, patience=patience),
    )
    folder.open(
        {"data": "d", "epochs": epochs, "schedule": schedule, "step": step}, restart=restart
    )
    run.resume()
    return run


def all_of(run: Run, cancel: Cancel | None = None) -> list[LearnEvent]:
    return list(run.go(cancel or Cancel()))


def texts(events: list[LearnEvent]) -> list[str]:
    return [str(event.text) for event in events if isinstance(event, Notice)]


def files(out: Path) -> dict[str, bytes]:
    found = {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}
    entries = [json.loads(line) for line in found["training/log.jsonl"].decode().splitlines()]
    for entry in entries:
        for key in ("seconds", "time", "peak_bytes", "computed"):
            entry.pop(key, None)
    found["training/log.jsonl"] = json.dumps(entries).encode()
    return found


# --- losses that are not finite -------------------------------------------------------------------


def test_a_smaller_plan_is_reported_and_the_run_continues(tmp_path: Path) -> None:
    class Short(ScriptedNetwork):
        replanned: Callable[[events.Replanned], None]

        def accumulate(
            self, samples: Sequence[TrainingSample], dtype: torch.dtype | None = None
        ) -> float:
            if self.steps == 1:
                self.replanned(events.Replanned(text=Text("Memory ran out."), budget_bytes=(5,)))
            return super().accumulate(samples, dtype)

    found = list(make(tmp_path / "out", Short(), epochs=1).go(Cancel()))
    assert [e for e in found if isinstance(e, Replanned)] == [
        Replanned(step=2, text=Text("Memory ran out."), budget_bytes=(5,))
    ]
    assert sum(isinstance(e, StepDone) for e in found) == 4


def test_a_step_that_is_not_finite_is_repeated_in_float32(tmp_path: Path) -> None:
    network = ScriptedNetwork(
        lambda step, exact: math.nan if step == 3 and not exact else 1.0, dtype=torch.bfloat16
    )
    events = all_of(make(tmp_path, network))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert network.repeated == [3]
    assert [step.step for step in steps if step.repeated] == [3]
    assert all(math.isfinite(step.loss) and math.isfinite(step.grad_norm) for step in steps)
    assert texts(events) == []
    plain = make(tmp_path / "plain", ScriptedNetwork())
    all_of(plain)
    assert files(tmp_path)[ADAPTER] == (tmp_path / "plain" / ADAPTER).read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_stays_so_changes_nothing_and_is_named(tmp_path: Path, value: float) -> None:
    network = ScriptedNetwork(lambda step, exact: value if step == 2 else 1.0)
    run = make(tmp_path, network)
    work = run.go(Cancel())
    before: dict[str, torch.Tensor] = {}
    for event in work:
        if isinstance(event, StepDone) and event.step == 1:
            before = {name: tensor.clone() for name, tensor in run.tensors.items()}
        if isinstance(event, StepDone) and event.step == 2:
            assert all(torch.equal(run.tensors[name], each) for name, each in before.items())
        if isinstance(event, Notice):
            assert "Step 2 changed nothing" in event.text
            assert "rows.jsonl:" in event.text
    log = [json.loads(line) for line in (tmp_path / "training/log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in log if line.get("step") == 2] == [None]  # strict JSON
    assert run.place.bad == 1
    assert run.place.updates == 7


def test_a_run_with_such_a_step_resumes_to_the_bit(tmp_path: Path) -> None:
    def network(first: int) -> ScriptedNetwork:
        return ScriptedNetwork(lambda step, exact: math.nan if step + first == 2 else 1.0)

    all_of(make(tmp_path / "whole", network(0), save_every=1))
    work = make(tmp_path / "cut", network(0), save_every=1).go(Cancel())
    for event in work:
        if event == Saved(step=3):
            break
    work.close()
    all_of(make(tmp_path / "cut", network(3), save_every=1))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("is_bad", "last", "saved"),
    [(lambda step: step > 5, 8, 5), (lambda step: step % 3 != 1 and step > 2, 17, 16)],
    ids=["three in a row", "ten in all"],
)
def test_too_many_such_steps_stop_the_run_and_keep_the_last_good_state(
    tmp_path: Path, is_bad: Callable[[int], bool], last: int, saved: int
) -> None:
    network = ScriptedNetwork(lambda step, exact: math.nan if is_bad(step) else 1.0)
    run = make(tmp_path, network, epochs=10, save_every=1)
    with pytest.raises(UsageError) as found:
        all_of(run)
    assert f"the last was step {last} with the rows rows.jsonl:" in str(found.value)
    assert "--lr" in found.value.hint
    assert f"the state of step {saved} are kept" in found.value.hint
    kept = json.loads((tmp_path / "training" / "state.json").read_text())
    assert kept["place"]["step"] == saved
    assert (tmp_path / ADAPTER).is_file()


def test_numbers_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    run = make(tmp_path, ScriptedNetwork(), save_every=1)
    work = run.go(Cancel())
    for event in work:
        if isinstance(event, StepDone) and event.step == 3:
            next(iter(run.tensors.values())).fill_(math.inf)
            break
    with pytest.raises(UsageError, match=r"After step 3, numbers of .* are not finite"):
        list(work)
    assert json.loads((tmp_path / "training" / "state.json").read_text())["place"]["step"] == 2


# --- losses that show trouble ---------------------------------------------------------------------


def notices(losses: list[float], held_out: dict[int, float] | None = None) -> list[str]:
    watch, found = Watch(), []
    for step, loss in enumerate(losses, 1):
        found.append(watch.step(loss))
        if step in (held_out or {}):
            found.append(watch.evaluated(step, (held_out or {})[step]))
    return [str(text) for text in found if text is not None]


def test_a_loss_that_rises_for_20_steps_is_reported_once() -> None:
    assert notices([1.0] * 40 + [3.5] * 19) == []
    (text,) = notices([1.0] * 40 + [3.5] * 40)
    assert "above 3.50 for 20 steps, and was about 1.00 before" in text
    assert notices([1.0] * 40 + [2.9] * 40) == []


def test_a_held_out_loss_that_rises_three_times_is_reported() -> None:
    (text,) = notices([1.0] * 5, {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8, 5: 0.9})
    assert "risen at 3 evaluations. The adapter of step 1 is kept" in text
    assert notices([1.0] * 5, {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.6, 5: 0.7}) == []


def test_answers_that_are_learnt_by_heart_are_reported() -> None:
    (text,) = notices([0.01] * 30, {10: 0.5, 20: 0.6, 30: 0.7})
    assert "learnt by heart" in text
    assert notices([0.03] * 30, {10: 0.5, 20: 0.6}) == []
    assert notices([0.01] * 30, {10: 0.5, 20: 0.4}) == []


def test_patience_stops_and_the_best_adapter_is_kept(tmp_path: Path) -> None:
    losses = [2.0, 0.5, 0.9, 0.8, 0.7, 0.6]
    network = ScriptedNetwork(held_out=lambda number: losses[number])
    run = make(tmp_path, network, epochs=5, patience=2)
    events = all_of(run)
    assert [e.loss for e in events if isinstance(e, Evaluated)] == [2.0, 0.5, 0.9, 0.8]
    assert any("so the run stops. The adapter is that of step 4" in text for text in texts(events))
    own = json.loads((tmp_path / "cogvlm2_lite_adapter.json").read_text())
    assert own["steps"] == 4
    assert own["held_out"]["before"] == 2.0
    assert own["held_out"]["after"] == 0.5
    again = make(tmp_path, ScriptedNetwork(), epochs=5, patience=2)
    assert again.done
    assert [type(event) for event in all_of(again)] == []


def test_an_adapter_that_does_not_help_is_reported(tmp_path: Path) -> None:
    network = ScriptedNetwork(held_out=lambda number: 1.0 + number)
    events = all_of(make(tmp_path, network))
    assert "so it does not help" in texts(events)[-1]


def test_long_epochs_are_evaluated_more_often() -> None:
    assert evaluated_steps([0] * 3 + [1] * 3) == {0, 3, 6}
    assert evaluated_steps([0] * 500) == {0, 166, 333, 500}
    assert evaluated_steps([]) == {0}


# --- a full disk ----------------------------------------------------------------------------------


class FullDisk:
    """Lets every write of a run fail while `full` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        for module, name in (
            (state, "write_file_durably"), (state, "_write_tensors"),
            (adapter_folder, "write_adapter"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, self._failing(getattr(module, name)))

    def _failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return write


def test_a_full_disk_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of(make(tmp_path / "whole", ScriptedNetwork(), save_every=1))
    disk = FullDisk(monkeypatch)
    run = make(tmp_path / "out", ScriptedNetwork(), save_every=1)
    events = []
    for event in run.go(Cancel()):
        events.append(event)
        if isinstance(event, StepDone):
            disk.full = 2 <= event.step <= 5  # the best adapter is that of step 4
    told = texts(events)
    assert len(told) == 4  # one for each step that could not be saved
    assert "No space left on device. The training continues" in told[0]
    assert [e.step for e in events if isinstance(e, Saved)] == [1, 6, 7, 8]
    assert (tmp_path / "out" / ADAPTER).read_bytes() == (tmp_path / "whole" / ADAPTER).read_bytes()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_disk_that_stays_full_is_an_error_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    work = make(tmp_path, ScriptedNetwork(), save_every=1).go(Cancel())
    for event in work:
        if isinstance(event, StepDone) and event.step == 3:
            break
    disk.full = True
    steps: list[int] = []
    with pytest.raises(DoesNotFitError, match="could not be saved") as found:
        steps.extend(event.step for event in work if isinstance(event, StepDone))
    assert "state, of step 2" in found.value.hint
    assert steps == [4, 5, 6, 7, 8]
    disk.full = False
    again = make(tmp_path, ScriptedNetwork(), save_every=1)
    assert again.place.step == 2
    assert [e.step for e in all_of(again) if isinstance(e, Saved)][-1] == 8


def test_log_lines_wait_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = state.Lines(tmp_path / "log.jsonl")
    lines.add({"step": 1})

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        lines.add({"step": 2})
        assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n'  # no half line
    lines.add({"step": 3})
    assert [line["step"] for line in state.Lines(tmp_path / "log.jsonl").entries] == [1, 2, 3]


# --- a lost GPU -----------------------------------------------------------------------------------


def test_a_lost_gpu_is_an_error_that_names_the_saved_step(tmp_path: Path) -> None:
    def lose(step: int, exact: bool) -> float:
        if step == 4:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")
        return 1.0

    with pytest.raises(DeviceError, match="stopped working after step 3: CUDA error") as found:
        all_of(make(tmp_path, ScriptedNetwork(lose), save_every=2))
    assert "the last saved state, of step 2" in found.value.hint


# --- states ---------------------------------------------------------------------------------------


def test_two_states_stay_and_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    all_of(make(tmp_path / "whole", ScriptedNetwork(), save_every=1))
    all_of(make(tmp_path / "out", ScriptedNetwork(), save_every=1))
    training = tmp_path / "out" / "training"
    assert {f.name for f in training.glob("state-*")} == {
        "state-7.safetensors", "state-8.safetensors"
    }  # fmt: skip
    newest = training / "state-8.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    run = make(tmp_path / "out", ScriptedNetwork(), save_every=1)
    assert run.place.step == 7
    events = all_of(run)
    assert "state-8.safetensors is damaged. The run continues from step 7" in texts(events)[0]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    for each in training.glob("state-*"):
        each.write_bytes(b"?")
    with pytest.raises(UsageError, match="is damaged") as found:
        make(tmp_path / "out", ScriptedNetwork())
    assert "--restart" in found.value.hint


@pytest.mark.parametrize("name", ["state.json", "run.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"file": 1}', "\0\0"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str) -> None:
    all_of(make(tmp_path, ScriptedNetwork()))
    (tmp_path / "training" / name).write_text(content)
    with pytest.raises(UsageError, match=name if name == "state.json" else ".") as found:
        make(tmp_path, ScriptedNetwork())
    assert "--restart" in found.value.hint
    assert make(tmp_path, ScriptedNetwork(), restart=True).place.step == 0
    assert not (tmp_path / ADAPTER).exists()


def test_a_cut_log_line_and_temporary_files_are_dropped(tmp_path: Path) -> None:
    all_of(make(tmp_path / "whole", ScriptedNetwork(), save_every=2))
    work = make(tmp_path / "out", ScriptedNetwork(), save_every=2).go(Cancel())
    for event in work:
        if isinstance(event, StepDone) and event.step == 7:
            break
    work.close()
    with (tmp_path / "out" / "training" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 8, "lo')
    for name in ("training/state-8.safetensors.tmp", "last/x.tmp", ".cogvlm2-1.tmp"):
        (tmp_path / "out" / name).write_bytes(b"?")
    all_of(make(tmp_path / "out", ScriptedNetwork(), save_every=2))
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_epochs_are_added_only_with_a_constant_schedule(tmp_path: Path) -> None:
    all_of(make(tmp_path / "six", ScriptedNetwork(), epochs=3, schedule="constant"))
    all_of(make(tmp_path / "out", ScriptedNetwork(), epochs=2, schedule="constant"))
    more = make(tmp_path / "out", ScriptedNetwork(), epochs=3, schedule="constant")
    assert more.place.step == 8
    all_of(more)
    assert files(tmp_path / "out")[f"last/{ADAPTER}"] == files(tmp_path / "six")[f"last/{ADAPTER}"]
    with pytest.raises(UsageError, match="epochs = 3, not 2"):
        make(tmp_path / "out", ScriptedNetwork(), epochs=2, schedule="constant")
    all_of(make(tmp_path / "cosine", ScriptedNetwork(), epochs=2))
    with pytest.raises(UsageError, match="epochs = 2, not 3") as found:
        make(tmp_path / "cosine", ScriptedNetwork(), epochs=3)
    assert "--schedule constant" in found.value.hint


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_are_encoded_before_the_first_step_as_far_as_there_is_room(tmp_path: Path) -> None:
    network = ScriptedNetwork()
    events = all_of(make(tmp_path / "all", network))
    encoded = [event for event in events if isinstance(event, Encoded)]
    assert [(event.done, event.total) for event in encoded] == [(8, 10), (10, 10)]
    assert isinstance(events[2], Evaluated)
    assert sorted(network.known) == sorted(f"p{number}" for number in range(10))
    small = ScriptedNetwork()
    small.room = 5
    assert sum(isinstance(e, Encoded) for e in all_of(make(tmp_path / "some", small))) == 1
    again = make(tmp_path / "all", ScriptedNetwork())
    assert not any(isinstance(event, Encoded) for event in all_of(again))  # nothing is left to do


# --- answers and evaluations ----------------------------------------------------------------------


def asking(log: list[Path | None]) -> HeldOut:
    examples = [example(8), example(9)]

    def ask(adapter: Path | None) -> Generator[Answer, None, None]:
        log.append(adapter)
        for number in (8, 9):
            yield Answer(text=f"a{number}" if adapter else "?")

    return HeldOut(examples=examples, asked=examples, ask=ask)


def test_questions_are_answered_before_and_at_each_evaluation(tmp_path: Path) -> None:
    asked: list[Path | None] = []
    events = all_of(make(tmp_path, ScriptedNetwork(), held_out=asking(asked)))
    assert asked == [None, tmp_path / "last", tmp_path / "last"]
    sampled = [event for event in events if isinstance(event, Sampled)]
    assert [(e.step, e.number, e.answer) for e in sampled] == [
        (0, 0, "?"), (0, 1, "?"), (4, 0, "a8"), (4, 1, "a9"), (8, 0, "a8"), (8, 1, "a9"),
    ]  # fmt: skip
    lines = (tmp_path / "training" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 0, 4, 4, 8, 8]


@pytest.mark.parametrize("stop_at", [2, 5, 8, 10, 12, 15, 19])
def test_a_run_that_ends_after_any_event_ends_with_the_same_files(
    tmp_path: Path, stop_at: int
) -> None:
    def run(out: Path) -> Run:
        return make(out, ScriptedNetwork(), held_out=asking([]), save_every=3)

    all_of(run(tmp_path / "whole"))
    work = run(tmp_path / "cut").go(Cancel())
    for _ in range(stop_at):
        next(work, None)
    work.close()
    cancel = Cancel()
    for number, _ in enumerate(run(tmp_path / "cut").go(cancel)):
        if number == stop_at:
            cancel.set()
    all_of(run(tmp_path / "cut"))
    cut, whole = files(tmp_path / "cut"), files(tmp_path / "whole")
    assert cut.keys() - whole.keys() <= {f"training/state-{n}.safetensors" for n in range(9)}
    different = {name for name in whole if cut.get(name) != whole[name]}
    # A stop saves a state, so another one may be the last but one.
    assert {name for name in different if "/state" not in name} == set()
    assert cut["training/state-8.safetensors"] == whole["training/state-8.safetensors"]


def test_a_stop_during_an_evaluation_does_it_again(tmp_path: Path) -> None:
    all_of(make(tmp_path / "whole", ScriptedNetwork(), held_out=asking([])))
    cancel = Cancel()
    run = make(tmp_path / "out", ScriptedNetwork(), held_out=asking([]))
    events = []
    for event in run.go(cancel):
        events.append(event)
        if isinstance(event, Sampled) and event.step == 4:
            cancel.set()
    assert events[-1] == Interrupted(step=4, saved=4)
    assert not any(isinstance(event, Evaluated) and event.step == 4 for event in events)
    again = all_of(make(tmp_path / "out", ScriptedNetwork(), held_out=asking([])))
    assert [e.step for e in again if isinstance(e, Evaluated)] == [4, 8]
    assert (tmp_path / "out" / "training" / "samples.jsonl").read_bytes() == (
        tmp_path / "whole" / "training" / "samples.jsonl"
    ).read_bytes()


def test_the_loss_in_peft_is_measured_once_and_saved(tmp_path: Path) -> None:
    measured: list[Path] = []

    def loss(folder: Path) -> float:
        measured.append(folder)
        return 1.25

    def network() -> ScriptedNetwork:
        return ScriptedNetwork(held_out=lambda number: 1 - number / 10)

    held_out = HeldOut(examples=[example(8)], loss_in_peft=loss)
    events = all_of(make(tmp_path, network(), held_out=held_out))
    assert "In peft, where it acts on all tokens, the loss is 1.2500" in texts(events)[-1]
    own = json.loads((tmp_path / "cogvlm2_lite_adapter.json").read_text())
    assert own["held_out"] == {"before": 1.0, "after": 0.8, "after_in_peft": 1.25}
    all_of(make(tmp_path, network(), held_out=held_out))
    assert measured == [tmp_path]


def test_questions_that_can_not_be_answered_do_not_end_the_training(tmp_path: Path) -> None:
    def ask(adapter: Path | None) -> Generator[Answer, None, None]:
        if adapter is not None:
            raise DoesNotFitError("1 GiB more is needed.", hint="Close programs.")
        yield Answer(text="?")

    examples = [example(8)]
    held_out = HeldOut(examples=examples, asked=examples, ask=ask)
    events = all_of(make(tmp_path, ScriptedNetwork(), held_out=held_out))
    assert "could not be answered: 1 GiB more is needed. Close programs." in texts(events)[0]
    assert [e.step for e in events if isinstance(e, Evaluated)] == [0, 4, 8]
