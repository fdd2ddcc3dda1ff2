"""Measure how many times faster `evaluate` is than one `ask` per question.

    python -m benchmarks.evaluate [--questions 96]

A model of random weights whose shapes make weights large compared with a picture, as they are for
the 19B model on a GPU, gets questions about the drawn pictures of demo-vqa. Everything resident,
and with the smallest memory in which eight conversations fit, so that most weights are streamed:

  evaluate  all questions, as the command asks them
  ask       each question with a model that is opened for it, as `ask` does; without the start of
            Python and torch, and with it

One thread, CPU time; the files are in the system's cache. The answers are equal. Counted are also
the bytes of weights that are loaded, which do not depend on the computer. Writes
benchmarks/results/evaluate.json.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.synthetic_19b import write_checkpoint  # noqa: E402
from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.engine.answer import Request  # noqa: E402
from cogvlm2_lite.engine.model import Model, open_model  # noqa: E402
from cogvlm2_lite.engine.outlook import context_for  # noqa: E402
from cogvlm2_lite.errors import DoesNotFitError  # noqa: E402
from cogvlm2_lite.evaluate.answers import SavedAnswers  # noqa: E402
from cogvlm2_lite.evaluate.find import find_data  # noqa: E402
from cogvlm2_lite.evaluate.subsets import choose  # noqa: E402
from cogvlm2_lite.evaluate.work import Planned, Question, ask_all, questions_of  # noqa: E402
from cogvlm2_lite.events import Cancel, Finished, ImageEncoded  # noqa: E402
from cogvlm2_lite.forecast.table import plan_as_dict  # noqa: E402
from cogvlm2_lite.memory.plan import DeviceBudget  # noqa: E402
from cogvlm2_lite.sampling import Sampling  # noqa: E402
from cogvlm2_lite.units import GIB, MIB  # noqa: E402
from cogvlm2_lite.worker.client import Outcome  # noqa: E402
from cogvlm2_lite.worker.protocol import Ask, Loaded  # noqa: E402
from tests.helpers.worker_engine import FakeEngine  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "evaluate.json"
PARALLEL = 8
TOKENS = 4
"""Of an answer: random weights find no end."""


def main() -> int:
    """Measure both memories and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=96)
    count = parser.parse_args().questions
    torch.set_num_threads(1)
    data = find_data("demo-vqa")
    questions = questions_of(data, choose(data, count, 0), "vlmevalkit")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        nbytes = write_model(folder)
        context = context_for(folder, [question.query.text for question in questions], TOKENS)
        tight, start_s = least_bytes(folder, context), ask_command_s()
        evaluate(folder, questions[:2], context, 8 * GIB)  # the files are in the system's cache now
        report = {
            "machine": describe_machine(),
            "load_average": os.getloadavg()[0],
            "model_bytes": nbytes,
            "questions": len(questions),
            "pictures": len({question.picture for question in questions}),
            "answer_tokens": TOKENS,
            "parallel": PARALLEL,
            "one_ask_command_s": start_s,
            "resident": measure(folder, questions, context, 8 * GIB, start_s),
            "streamed": {
                "memory_bytes": tight,
                **measure(folder, questions, context, tight, start_s),
            },
        }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    return 0


def write_model(folder: Path) -> int:
    """Write a model of random weights with the demo's tokenizer; return its bytes."""
    config = json.loads((checkpoint_folder() / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_attention_heads": 8,
        "num_multi_query_heads": 2,
        "num_hidden_layers": 12,
    }
    config["vision_config"] |= {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_heads": 8,
        "num_hidden_layers": 12,
    }
    nbytes = write_checkpoint(folder, config, seed=0)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(checkpoint_folder() / name, folder)
    return nbytes


def open_with(folder: Path, context: int, parallel: int, nbytes: int) -> Model:
    """Open the model on the CPU within a budget."""
    return open_model(
        folder,
        compute=choose_compute("cpu", "bfloat16"),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=nbytes)],
        context=context,
        parallel=parallel,
    )


def least_bytes(folder: Path, context: int) -> int:
    """Return the smallest budget for PARALLEL conversations, to the MiB."""
    low, high = 0, 8 * GIB // MIB
    while high - low > 1:
        middle = (low + high) // 2
        try:
            fits = open_with(folder, context, PARALLEL, middle * MIB).plan.parallel == PARALLEL
        except DoesNotFitError:
            fits = False
        low, high = (low, middle) if fits else (middle, high)
    return high * MIB


def measure(
    folder: Path, questions: tuple[Question, ...], context: int, nbytes: int, start_s: float
) -> dict[str, Any]:
    """Return the times and loaded bytes of `evaluate` and of one `ask` per question.

    start_s  of one `ask` command with a small model
    """
    all_at_once, answers = evaluate(folder, questions, context, nbytes)
    one_by_one, expected = ask_each(folder, questions, context, nbytes)
    assert answers == expected, "the answers differ"
    return {
        "evaluate": all_at_once,
        "ask": one_by_one,
        "times_as_fast": one_by_one["seconds"] / all_at_once["seconds"],
        "times_as_fast_with_start": (one_by_one["seconds"] + len(questions) * start_s)
        / (all_at_once["seconds"] + start_s),
        "times_fewer_bytes": one_by_one["loaded_bytes"] / all_at_once["loaded_bytes"],
    }


class InProcess(FakeEngine):
    """A model in this process, on a thread of its own, which answers several questions at once."""

    def __init__(self, model: Model) -> None:
        super().__init__(parallel=model.plan.parallel)
        self.model = model
        self.become_ready()
        self.loaded = Loaded(
            plan=plan_as_dict(model.plan),
            compute="cpu, bfloat16: measured",
            context=model.plan.context,
            image_tokens=model.config.vision.image_tokens,
            parallel=model.plan.parallel,
        )
        self.encoded = 0
        self._asks: queue.SimpleQueue[tuple[Ask, Callable[[Outcome], None]] | None]
        self._asks = queue.SimpleQueue()
        self._delivered: dict[int, Callable[[Outcome], None]] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        self._asks.put((ask, deliver))
        return ask.request

    def close(self) -> None:
        """End the thread."""
        self._asks.put(None)
        self._thread.join()

    def _work(self) -> None:
        engine = self.model.engine
        while True:
            while not engine.full and (not engine.busy or not self._asks.empty()):
                asked = self._asks.get()
                if asked is None:
                    return
                ask, deliver = asked
                self._delivered[ask.request] = deliver
                engine.begin(ask.request, _request(ask), Cancel())
            for number, outcome in engine.turn():
                assert not isinstance(outcome, Exception), outcome
                self.encoded += isinstance(outcome, ImageEncoded) and not outcome.reused
                self._delivered[number](outcome)


def _request(ask: Ask) -> Request:
    from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
    from cogvlm2_lite.worker.main import _picture

    return Request(
        question=ask.question,
        image=_picture(ask, DEFAULT_LIMITS),
        sampling=ask.sampling,
        template=ask.template,
    )


def evaluate(
    folder: Path, questions: tuple[Question, ...], context: int, nbytes: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Ask all questions as the command does; return the measurement and the answers."""
    began = time.process_time()
    model = open_with(folder, context, PARALLEL, nbytes)
    engine = InProcess(model)
    with tempfile.TemporaryDirectory() as output:
        saved = SavedAnswers(Path(output))
        planned = Planned(questions=questions, known={})
        for _ in ask_all(engine, planned, saved, max_new_tokens=TOKENS):
            pass
        seconds = time.process_time() - began
        answers = {name: each.answer for name, each in saved.newest().items()}
    engine.close()
    return {
        "seconds": seconds,
        "loaded_bytes": model.runtime.residency.read_bytes,
        "pictures_encoded": engine.encoded,
    }, answers


def ask_each(
    folder: Path, questions: tuple[Question, ...], context: int, nbytes: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Open the model again for each question; return the measurement and the answers."""
    sampling = Sampling(max_new_tokens=TOKENS, repetition_guard=False)
    began, loaded, answers = time.process_time(), 0, {}
    for question in questions:
        model = open_with(folder, context, 1, nbytes)
        *_, last = model.answer(
            question.query.text,
            question.item.pictures[0].read(),
            sampling=sampling,
            template=question.query.template,
        )
        assert isinstance(last, Finished)
        answers[question.item.id] = last.text.strip()
        loaded += model.runtime.residency.read_bytes
    return {
        "seconds": time.process_time() - began,
        "loaded_bytes": loaded,
        "pictures_encoded": len(questions),
    }, answers


def ask_command_s() -> float:
    """Return the CPU time of one `cogvlm2-lite ask` with the demo model, its start included."""
    picture = checkpoint_folder().parent / "pictures" / "sign.png"
    command = [sys.executable, "-m", "cogvlm2_lite", "ask", "demo", str(picture), "What is it?"]
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


if __name__ == "__main__":
    sys.exit(main())
