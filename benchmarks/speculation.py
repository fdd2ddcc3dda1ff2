"""Measure how much speculation gains: acceptance and speed apart, then both together.

    python -m benchmarks.speculation times [--layers 32] [--repeats 5]
    python -m benchmarks.speculation texts --vocabulary FILE
    python -m benchmarks.speculation replay [--layers 8] [--repeats 3]
    python -m benchmarks.speculation demo
    python -m benchmarks.speculation prose

times   decode steps for 1 to 32 rows with random NF4 weights in the shapes of the 19B model,
        resident and streamed from memory: a pass with a draft has as many rows as tokens
texts   the engine answers with known texts (speculation_texts.py) in place of a model: how many
        passes it needs with its own drafts, and how long they take by the times above
replay  the passes that `texts` recorded, run with the random weights, in turn with the same tokens
        one by one
demo    passes of the demo model, and its answers with and without drafts
prose   CPU time of the demo model's free answers, in turn with and without drafts: it is so small
        that the time of finding drafts shows

FILE is a vocabulary in tiktoken's form. Llama 3's, which CogVLM2 uses, begins with the 100,256
tokens of cl100k_base, and adds 28,000 for other languages than English. One thread, CPU time.
Each part writes its key of benchmarks/results/speculation.json.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import speculation_texts as pages  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.streamed_decode import smallest  # noqa: E402
from benchmarks.synthetic_decoder import synthetic_decoder  # noqa: E402
from cogvlm2_lite.architectures.architecture import Phase  # noqa: E402
from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.engine.answer import Answers, Request  # noqa: E402
from cogvlm2_lite.engine.model import Model, load  # noqa: E402
from cogvlm2_lite.engine.runtime import Runtime, Token, run  # noqa: E402
from cogvlm2_lite.engine.scheduler import Engine  # noqa: E402
from cogvlm2_lite.events import Cancel, Finished, Progress, TextDelta  # noqa: E402
from cogvlm2_lite.inputs.tokenizer import Tokenizer  # noqa: E402
from cogvlm2_lite.memory.plan import Workload  # noqa: E402
from cogvlm2_lite.sampling import Sampling  # noqa: E402
from cogvlm2_lite.units import GIB  # noqa: E402
from tools.demo_model.generator import samples  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "speculation.json"
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
FILLED = 400
"""Tokens in the cache: a question and a part of the answer."""

CONTEXT = 1024
REPLAYED = 12
"""Passes of each text that are run with random weights."""

DISKS = {"NVMe, 3 GB/s": 3e9, "SATA, 0.5 GB/s": 0.5e9}
WRONG = 0.1
"""Share of wrong letters in the draft texts."""

SEEDS = range(5)
Times = dict[int, float]
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 splits a text before it joins bytes."""


def main() -> int:
    """Measure one part and write its key of the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("times", "texts", "replay", "demo", "prose"))
    parser.add_argument("--layers", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vocabulary", type=Path, help="without it: the demo model's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    match options.part:
        case "times":
            found = measure_times(options.layers or 32, options.repeats)
        case "texts":
            found = measure_texts(report["times"], options.vocabulary)
        case "replay":
            found = measure_replay(report["texts"], options.layers or 8, options.repeats)
        case "demo":
            found = measure_demo()
        case _:
            found = measure_prose(options.repeats)
    report[options.part] = found
    RESULT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(_short(found), indent=1, ensure_ascii=False))
    return 0


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """Return a part without the recorded passes."""
    return {
        name: _short(value) if isinstance(value, dict) else value
        for name, value in found.items()
        if name != "passes"
    }


# --- times of passes ------------------------------------------------------------------------------


def measure_times(layers: int, repeats: int) -> dict[str, Any]:
    """Return the times of passes by rows: resident, and with all layers streamed from memory."""
    runtime, plan = synthetic_decoder(
        layers, Workload(context=CONTEXT, with_picture=False), nbytes=16 * GIB
    )
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "load_average": os.getloadavg()[0],
        "layers": layers,
        "context": FILLED,
        "repeats": repeats,
        "resident_ms": pass_times(runtime, repeats),
    }
    runtime.follow(smallest(plan))
    report["streamed_ms"] = pass_times(runtime, repeats)
    report["streamed_bytes"] = runtime.plan.streamed_bytes()[Phase.DECODE]
    return report


def pass_times(runtime: Runtime, repeats: int) -> dict[str, float]:
    """Return the median CPU time of a pass in ms, by its rows; all sizes are measured in turn."""
    found: dict[int, list[float]] = {rows: [] for rows in ROWS}
    passes = Passes(runtime)
    for number in range(repeats + 1):
        for rows in ROWS:
            passes.restart()
            took = passes.seconds(rows, 0)
            if number:  # the first round is a warm-up
                found[rows].append(1000 * took)
    return {str(rows): statistics.median(times) for rows, times in found.items()}


class Passes:
    """Runs passes of one conversation with tokens that mean nothing."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._cache = runtime, runtime.new_cache()
        self._cache.reserve(FILLED)
        self._cache.advance(FILLED)

    def restart(self) -> None:
        """Forget the tokens of earlier passes."""
        self._cache.truncate(FILLED)

    def seconds(self, rows: int, accepted: int) -> float:
        """Return the CPU time of a pass, of whose draft so many tokens are accepted."""
        draft = (17,) * (rows - 1)
        token = Token(
            token=17,
            position=self._cache.length,
            cache=self._cache,
            draft=draft,
            chances=(1.0,) * len(draft),
        )
        began = time.process_time()
        run(self._runtime.decode_steps([token]))
        took = time.process_time() - began
        self._cache.advance(accepted)
        return took


def seconds_of(times: Times, rows: int) -> float:
    """Return the time of a pass, between those that were measured."""
    below = max(each for each in times if each <= rows)
    above = min(each for each in times if each >= rows)
    share = (rows - below) / (above - below) if above > below else 0.0
    return times[below] + share * (times[above] - times[below])


# --- texts in place of a model --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question whose answer is known.

    read    the text that an OCR program has read, without wrong letters; "": none
    alike   whether its wrong letters look like the right ones
    schema  of an answer in JSON; "": it is free
    """

    question: str
    answer: str
    read: str = ""
    alike: bool = True
    history: tuple[tuple[str, str], ...] = ()
    schema: str = ""


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_SCHEMA = _object(
    invoice_number=_TEXT,
    date=_TEXT,
    customer=_object(name=_TEXT, city=_TEXT),
    items={
        "type": "array",
        "items": _object(
            article=_TEXT, quantity={"type": "integer"}, unit_price=_NUMBER, total=_NUMBER
        ),
    },
    sum=_NUMBER,
    currency=_TEXT,
)
_WRITE = "Write down the text in the picture."
_CELLS = pages.TABLE.replace("| --- | --- | --- | --- | --- |\n", "")
TASKS = {
    "a letter in English, OCR text": Task(question=_WRITE, answer=pages.LETTER, read=pages.LETTER),
    "the same letter, any wrong letters": Task(
        question=_WRITE, answer=pages.LETTER, read=pages.LETTER, alike=False
    ),
    "an article in English, OCR text": Task(
        question=_WRITE, answer=pages.ARTICLE, read=pages.ARTICLE
    ),
    "a reminder in English, OCR text": Task(
        question=_WRITE, answer=pages.REMINDER, read=pages.REMINDER
    ),
    "a notice in Chinese, OCR text": Task(
        question="写出图中的文字。", answer=pages.NOTICE_ZH, read=pages.NOTICE_ZH
    ),
    "a table": Task(question="Write the table in Markdown.", answer=pages.TABLE),
    "a table, OCR text": Task(
        question="Write the table in Markdown.",
        answer=pages.TABLE,
        read=_CELLS.replace("|", " "),
    ),
    "a table, OCR text with single spaces": Task(
        question="Write the table in Markdown.", answer=pages.TABLE, read=_CELLS.replace("| ", "")
    ),
    "JSON with a schema": Task(
        question="Write the invoice as JSON.", answer=pages.JSON, schema=json.dumps(_SCHEMA)
    ),
    "JSON with a schema, OCR text": Task(
        question="Write the invoice as JSON.",
        answer=pages.JSON,
        read=pages.INVOICE,
        schema=json.dumps(_SCHEMA),
    ),
    "a second question": Task(
        question="Why was the lift out of service, and why did the service charge rise?",
        answer=pages.SECOND_ANSWER,
        history=((_WRITE, pages.LETTER.strip()),),
    ),
    "prose": Task(question="Describe the picture.", answer=pages.PROSE),
}


class KnownText:
    """Stands in for a runtime whose model answers with known tokens.

    passes   rows and tokens of each decode step so far: those of the draft that are right, and one
    seconds  of them, by the times that were measured
    """

    def __init__(self, runtime: Runtime, tokenizer: Tokenizer, times: Times) -> None:
        end = tokenizer.vocab_size - 1
        self.config = replace(
            runtime.config,
            vocab_size=end + 1,
            eos_token_ids=(end,),
            bos_token_id=end - 1,
            pad_token_id=end,
        )
        self.passes: list[tuple[int, int]] = []
        self.seconds = 0.0
        self._runtime, self._times = runtime, times
        self._answer: list[int] = []
        self._prompt = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def begin(self, answer: list[int]) -> None:
        """Set the tokens of the next answer."""
        self._answer = [*answer, self.config.eos_token_ids[0]]
        self.passes, self.seconds = [], 0.0

    def prefill(self, chunk: Any, *rest: Any) -> Generator[Progress, None, Tensor]:
        """Count the tokens of a chunk."""
        yield from ()
        cache = rest[1]
        cache.reserve(cache.length + chunk.tokens)
        cache.advance(chunk.tokens)
        self._prompt = cache.length
        return torch.zeros(1, chunk.tokens, 8)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """Return logits [1, 1, vocab] of the answer's first token."""
        return self._logits(0)[None, None]

    def decode_steps(
        self, tokens: Sequence[Token]
    ) -> Generator[Progress, None, list[list[Tensor]]]:
        """Return the logits after a token and after its draft."""
        yield from ()
        (token,) = tokens
        place = token.cache.length - self._prompt
        token.cache.reserve(token.cache.length + 1 + len(token.draft))
        token.cache.advance(1)
        expected = self._answer[place + 1 : place + 1 + len(token.draft)]
        right = 0
        while right < len(expected) and expected[right] == token.draft[right]:
            right += 1
        rows = 1 + len(token.draft)
        self.passes.append((rows, right + 1))
        self.seconds += seconds_of(self._times, rows)
        return [[self._logits(place + 1 + min(number, right)) for number in range(rows)]]

    def _logits(self, place: int) -> Tensor:
        logits = torch.zeros(self.config.vocab_size)
        logits[self._answer[min(place, len(self._answer) - 1)]] = 1.0
        return logits


def measure_texts(times: dict[str, Any], vocabulary: Path | None) -> dict[str, Any]:
    """Return passes and times of every task, for resident and for streamed weights."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = (
            Tokenizer.from_folder(checkpoint_folder())
            if vocabulary is None
            else read_vocabulary(vocabulary, Path(folder))
        )
    report: dict[str, Any] = {
        "vocabulary": tokenizer.vocab_size,
        "wrong_letters": WRONG,
        "seeds": len(SEEDS),
        "places": {},
    }
    for name, known in _places(times).items():
        model = load("demo", device="cpu", dtype="float32")
        stand_in = KnownText(model.runtime, tokenizer, known)
        report["places"][name] = {
            title: measure_task(model, stand_in, tokenizer, task) for title, task in TASKS.items()
        }
        if name != "resident":  # only those are replayed
            for found in report["places"][name].values():
                del found["passes"]
    return report


def _places(times: dict[str, Any]) -> dict[str, Times]:
    """Return the times of passes by where the weights are; disks are computed, not measured."""
    resident, streamed = (
        {int(rows): ms / 1000 for rows, ms in times[name].items()}
        for name in ("resident_ms", "streamed_ms")
    )
    disks = {
        disk: {rows: max(s, times["streamed_bytes"] / rate) for rows, s in streamed.items()}
        for disk, rate in DISKS.items()
    }
    return {"resident": resident, "streamed from memory": streamed, **disks}


def measure_task(
    model: Model, stand_in: KnownText, tokenizer: Tokenizer, task: Task
) -> dict[str, Any]:
    """Return passes and gain of a task, as medians over the seeds of the wrong letters."""
    found: list[dict[str, Any]] = []
    for seed in SEEDS if task.read else [0]:
        draft = pages.with_wrong_letters(task.read, WRONG, seed, alike=task.alike)
        # A schema allows no space before the object; other answers begin with one.
        begin = "" if task.schema else " "
        answer = tokenizer.encode(begin + task.answer.strip())
        stand_in.begin(answer)
        answers = Answers(
            cast(Runtime, stand_in), tokenizer, model.replanner, model.pictures, speculation=True
        )
        engine = Engine(answers, clock=lambda: stand_in.seconds)
        request = Request(
            question=task.question,
            history=task.history,
            draft_text=draft,
            sampling=Sampling(max_new_tokens=2000, json_schema=task.schema, repetition_guard=False),
        )
        began = time.process_time()
        *_, last = engine.answer(request, Cancel())
        own_s = time.process_time() - began
        assert isinstance(last, Finished)
        assert last.token_ids == tuple(answer), "the engine changed an answer"
        tokens, passes = len(answer), stand_in.passes
        found.append(
            {
                "tokens": tokens,
                "passes": passes[: 1 + REPLAYED],
                "tokens_per_pass": tokens / len(passes),
                "rows_per_pass": statistics.mean(rows for rows, _ in passes),
                "times_as_fast": tokens * seconds_of(stand_in._times, 1) / stand_in.seconds,
                "own_ms_per_token": 1000 * own_s / tokens,
            }
        )
    found.sort(key=lambda one: float(one["times_as_fast"]))
    return found[len(found) // 2]


def read_vocabulary(file: Path, folder: Path) -> Tokenizer:
    """Return a tokenizer with the vocabulary of a file of tiktoken, split as Llama 3 splits."""
    ranks = {}
    for line in file.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    letters = _letters_of_bytes()
    named = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        pairs = [(left, right) for left, right in halves if left in ranks and right in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(named[left], named[right]) for left, right in pairs]
    vocabulary = {named[token]: rank for token, rank in ranks.items()}
    fast = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    fast.save(str(folder / "tokenizer.json"))
    return Tokenizer.from_folder(folder)


def _letters_of_bytes() -> dict[int, str]:
    """Return the letter with which a byte-level BPE writes each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in plain)
    return {byte: chr(byte) for byte in plain} | {b: chr(256 + n) for n, b in enumerate(others)}


# --- both together --------------------------------------------------------------------------------


def measure_replay(texts: dict[str, Any], layers: int, repeats: int) -> dict[str, Any]:
    """Return how many times as fast the recorded passes are as single tokens, measured in turn."""
    runtime, _ = synthetic_decoder(
        layers, Workload(context=CONTEXT, with_picture=False), nbytes=16 * GIB
    )
    passes = Passes(runtime)
    return {
        "machine": describe_machine(),
        "load_average": os.getloadavg()[0],
        "layers": layers,
        "repeats": repeats,
        "passes": REPLAYED,
        "gains": {
            title: gain_of(passes, list(islice(found["passes"], 1, 1 + REPLAYED)), repeats)
            for title, found in texts["places"]["resident"].items()
        },
    }


def gain_of(passes: Passes, recorded: list[tuple[int, int]], repeats: int) -> dict[str, float]:
    """Return the gain of recorded passes: the median of pairs, and the range."""
    single = [(1, 1)] * sum(tokens for _, tokens in recorded)
    ratios = []
    for number in range(repeats + 1):
        one_by_one, together = (_replay(passes, kind) for kind in (single, recorded))
        if number:
            ratios.append(one_by_one / together)
    return {
        "times_as_fast": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def _replay(passes: Passes, recorded: list[tuple[int, int]]) -> float:
    passes.restart()
    return sum(passes.seconds(rows, tokens - 1) for rows, tokens in recorded)


# --- the demo model -------------------------------------------------------------------------------


def measure_demo() -> dict[str, Any]:
    """Return passes and tokens of the demo model's answers, by kind of question."""
    on, off = (
        load("demo", device="cpu", dtype="float32", speculation=speculation)
        for speculation in (True, False)
    )
    on.engine.clock = _pass_clock(on)
    kinds: dict[str, list[tuple[int, int]]] = {}
    for sample in islice(samples("held-out", 11, 6), 40):
        for talk in sample.conversations:
            image = sample.image if talk.sees_picture else None
            ask = partial(_ask, question=talk.question, image=image, history=talk.history)
            plain = ask(off)
            if len(plain.token_ids) < 8:
                continue
            wrong = pages.with_wrong_letters(plain.text, WRONG, 1)
            drafted = {
                "no draft text": "",
                "10 % wrong letters": wrong,
                "its own answer": plain.text,
            }
            for kind, text in drafted.items():
                found = ask(on, draft_text=text)
                assert found.token_ids == plain.token_ids, "speculation changed an answer"
                kinds.setdefault(kind, []).append((found.completion_tokens, found.decode_passes))
    return {
        kind: {
            "answers": len(counts),
            "tokens_per_pass": sum(tokens for tokens, _ in counts) / sum(p for _, p in counts),
        }
        for kind, counts in kinds.items()
    }


def measure_prose(repeats: int) -> dict[str, Any]:
    """Return passes and CPU time of free answers, with and without drafts in turn.

    Both models are new in each round, so that no earlier answer about a picture is known.
    """
    pairs: list[tuple[float, float]] = []
    tokens, passes = 0, {True: 0, False: 0}
    for number in range(repeats):
        models = {
            speculation: load("demo", device="cpu", dtype="float32", speculation=speculation)
            for speculation in (True, False)
        }
        for sample in islice(samples("held-out", 11, 6), 60):
            for talk in sample.conversations:
                image = sample.image if talk.sees_picture else None
                spent: dict[bool, float] = {}
                found: dict[bool, Finished] = {}
                for speculation in (True, False) if number % 2 else (False, True):
                    spent[speculation], found[speculation] = _decoding(
                        models[speculation], talk.question, image, talk.history
                    )
                assert found[True].token_ids == found[False].token_ids, "an answer was changed"
                count = len(found[True].token_ids)
                if count < 8:
                    continue
                pairs.append((1000 * spent[True] / count, 1000 * spent[False] / count))
                tokens += count
                for speculation, end in found.items():
                    passes[speculation] += end.decode_passes
    return {
        "machine": describe_machine(),
        "load_average": os.getloadavg()[0],
        "answers": len(pairs),
        "tokens": tokens,
        "passes_on": passes[True],
        "passes_off": passes[False],
        "ms_per_token": statistics.median(on for on, _ in pairs),
        "ms_per_token_off": statistics.median(off for _, off in pairs),
        "more_ms_per_token": statistics.median(on - off for on, off in pairs),
    }


def _decoding(model: Model, question: str, image: Any, history: Any) -> tuple[float, Finished]:
    """Return the CPU time behind the first token of an answer, and its end."""
    began = None
    last: Any = None
    sampling = Sampling(max_new_tokens=64)
    for last in model.answer(question, image, history, sampling=sampling):
        if began is None and isinstance(last, TextDelta):
            began = time.process_time()
    assert began is not None
    assert isinstance(last, Finished)
    return time.process_time() - began, last


def _pass_clock(model: Model) -> Callable[[], float]:
    """Return a clock that counts decode steps: as if the weights were streamed, rows cost nothing.

    The demo model is so small that its own times say nothing.
    """
    return lambda: float(model.runtime.residency.steps)


def _ask(
    model: Model, *, question: str, image: Any, history: Any, draft_text: str = ""
) -> Finished:
    sampling = Sampling(max_new_tokens=64)
    *_, last = model.answer(question, image, history, sampling=sampling, draft_text=draft_text)
    assert isinstance(last, Finished)
    return last


if __name__ == "__main__":
    sys.exit(main())
