"""Run several forms of the model together, block by block, and compare their logits.

A variant names a form for some of its matrices; the others are the source's. All variants go
through a block while its weights are in memory, and variants that have been equal up to here share
their activations. So a hundred variants that each change one matrix take far less work than a
hundred models: each variant is computed only from its matrix to the end.

    NAME/state.json     the identity of the variants, and how many stages are done
    NAME/activations-N  the inputs of stage N, for each distinct state (engine/activations.py)
    NAME/found          the result
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from cogvlm2_lite.engine.activations import FolderActivations
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, StageVisit
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.evaluate.metrics import TokenComparison
from cogvlm2_lite.units import format_bytes
from cogvlm2_lite.weights.slots import Linear, WeightSlot
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.writer import write_file_durably
from quantize.calibration.network import Network
from quantize.calibration.stages import ModelStage, model_stages
from quantize.events import Measuring

SOURCE, NEAREST, CALIBRATED, INT8 = "source", "nearest", "calibrated", "int8"
"""Forms of a matrix: as it is in the source, round to nearest, calibrated NF4, int8."""

_ROWS = 32
"""Positions whose logits are computed at a time: 16 MB of float32 for the 19B's vocabulary."""

_FLOPS_OF_A_RUN = 1e7
"""Fixed work per block and input (reading, writing, starting), for the estimate of the time left.
Without it a stage without matrices would count as no work."""

Forms = Mapping[str, str]
"""Tensor name to form; a matrix that is missing is the source's."""

ValuesInForm = Callable[[str, str, Tensor], tuple[Tensor, Tensor | None]]
"""Takes a matrix's name, its form and the source's values; returns the values in that form, and a
bias that replaces the source's, or None."""


@dataclass(frozen=True)
class Variant:
    """One form of the whole model."""

    name: str
    forms: Forms


class VariantWalk:
    """Takes variants through the network; `run` resumes after the last finished stage.

    variants  the first is the reference that the others are compared with
    folder    for the activations and the result of this walk alone
    identity  of the matrices' forms; a folder with another identity is started again
    questions compare the tokens of the prompt after the picture too, not only those of the answer
    """

    def __init__(
        self,
        network: Network,
        variants: Sequence[Variant],
        values_in_form: ValuesInForm,
        folder: Path,
        identity: str,
        *,
        questions: bool = False,
    ) -> None:
        self._network, self.variants, self._values_in_form = network, variants, values_in_form
        self._folder, self._questions = folder, questions
        named = [identity, questions, [[v.name, dict(sorted(v.forms.items()))] for v in variants]]
        self._identity = hashlib.sha256(json.dumps(named).encode()).hexdigest()
        self._stages = model_stages(network)

    @torch.inference_mode()
    def run(self) -> Iterator[Measuring]:
        """Walk; yield progress. Afterwards `comparisons` returns the result."""
        activations = FolderActivations(self._folder, self._identity)
        same = activations.earlier_identity == self._identity
        if same and self._found_file.exists():
            return
        if same:
            activations.resume()
        else:
            activations.restart()
        stages, paths = self._stages, self._paths()
        if not activations.done:
            self._check_room(paths, activations)
        work = [
            self._cost(stage, path) + _FLOPS_OF_A_RUN * len(set(path)) * len(stage.keys)
            for stage, path in zip(stages, paths, strict=True)
        ]
        began, before = time.monotonic(), sum(work[: activations.done])
        total = len(stages) + 1
        with closing(activations):
            walk = LayerMajorWalk(stages, self._network.load_weights, activations)
            for number in walk.forward:
                with walk.visit(number) as visit:
                    self._advance(stages[number], visit, paths)
                spent, now = time.monotonic() - began, sum(work[: number + 1])
                yield Measuring(
                    done=number + 1,
                    total=total,
                    block=stages[number].name,
                    seconds_left=round(spent / max(now - before, 1.0) * (sum(work) - now), 1),
                )
            self._score(activations, paths[-1])
        yield Measuring(done=total, total=total, block="scores", seconds_left=0.0)

    def comparisons(self) -> dict[str, TokenComparison]:
        """Return the comparison of every other variant with the first, by name."""
        columns = load_file(self._found_file)
        shared = {
            "reference_right": columns["reference_right"].numpy(),
            "answer": columns["answer"].numpy(),
            "picture": columns["picture"].numpy(),
        }
        return {
            variant.name: TokenComparison(
                kl=columns["kl"][number].numpy(),
                agree=columns["agree"][number].numpy(),
                other_right=columns["other_right"][number].numpy(),
                **shared,
            )
            for number, variant in enumerate(self.variants[1:])
        }

    @property
    def flops(self) -> float:
        """Operations of all matrix products of the walk, without attention."""
        stages = self._stages
        return sum(self._cost(s, path) for s, path in zip(stages, self._paths(), strict=True))

    # --- which variants share activations ---------------------------------------------------------

    def _paths(self) -> list[list[int]]:
        """Return for each stage the state of each variant after it.

        Variants with equal numbers are in the same state: all their matrices up to here are equal,
        so their activations are equal too. A state is identified by the state before the stage and
        the forms of the stage's matrices: equal activations stay equal after equal matrices.
        """
        states, found = [0] * len(self.variants), []
        for stage in self._stages:
            numbers: dict[tuple[object, ...], int] = {}
            keys = [(s, self._key(stage, v)) for s, v in zip(states, self.variants, strict=True)]
            states = [numbers.setdefault(key, len(numbers)) for key in keys]
            found.append(states)
        return found

    def _key(self, stage: ModelStage, variant: Variant) -> tuple[tuple[str, str], ...]:
        forms = ((m.name, variant.forms.get(m.name, SOURCE)) for m in stage.matrices)
        return tuple((name, form) for name, form in forms if form != SOURCE)

    @staticmethod
    def _cost(stage: ModelStage, path: Sequence[int]) -> float:
        """Return the floating-point operations of a stage."""
        weights = sum(m.in_features * m.out_features for m in stage.matrices)
        return 2.0 * weights * stage.share * stage.tokens * len(set(path))

    # --- stages -----------------------------------------------------------------------------------

    def _advance(
        self, stage: ModelStage, visit: StageVisit, paths: Sequence[Sequence[int]]
    ) -> None:
        """Take every distinct state of all samples through a stage."""
        path = paths[visit.number]
        before = paths[visit.number - 1] if visit.number else [0] * len(self.variants)
        # 1  For each state, compute one of the variants that share it.
        todo: dict[int, tuple[int, Variant]] = {}
        for state, earlier, variant in zip(path, before, self.variants, strict=True):
            todo.setdefault(state, (earlier, variant))
        # 2  Sort states by the forms of this block, so that each form is made only once.
        order = sorted(todo, key=lambda state: (self._key(stage, todo[state][1]), state))
        # 3  Compute each state from the activations of the state before it.
        forms = _Forms(self._network, stage.slots, self._values_in_form)
        for state in order:
            earlier, variant = todo[state]
            forms.apply(dict(self._key(stage, variant)))
            for sample, _ in visit.keys:
                visit.advance((sample, state), earlier)

    def _score(self, activations: FolderActivations, path: Sequence[int]) -> None:
        """Compare the log-probabilities of every variant with the first, at the answers' tokens."""
        head, last = self._network.parts.decoder.head, activations.done
        keys = [v.forms.get(head.lm_head.name, SOURCE) for v in self.variants]
        states = list(zip(path, keys, strict=True))
        rows: dict[str, list[Tensor]] = {name: [] for name in _COLUMNS}
        with self._network.load_weights(head):
            forms = _Forms(self._network, list(head.slots()), self._values_in_form)

            def score(key: tuple[int, str], sample: int, some: Sequence[int]) -> Tensor:
                state, form = key
                forms.apply({head.lm_head.name: form} if form != SOURCE else {})
                hidden = activations.read(last, (sample, state))[:, some]
                return head(self._network.put(hidden))[0].double().log_softmax(-1)

            for sample in range(len(self._network.samples)):
                positions, targets = self._scored_positions(sample)
                for begin in range(0, len(positions), _ROWS):
                    some = positions[begin : begin + _ROWS]
                    words = targets[begin : begin + _ROWS]
                    reference = score(states[0], sample, some)
                    compared = {
                        key: _compare(reference, score(key, sample, some), words)
                        for key in sorted(set(states[1:]), key=lambda key: (key[1], key[0]))
                    }
                    others = [compared[key] for key in states[1:]]
                    self._append(rows, reference, others, words, sample)
        columns = {name: torch.cat(parts, dim=-1).contiguous() for name, parts in rows.items()}
        write_file_durably(self._found_file, save(columns))
        activations.finish(last + 1)

    def _scored_positions(self, sample: int) -> tuple[list[int], Tensor]:
        """Return the positions whose next token is compared, and these tokens.

        A sample without an answer has one position, where its answer would begin; its token is -1.
        """
        tokens = self._network.tokens[sample]
        ids = torch.from_numpy(tokens.input_ids[0])
        first, last = tokens.scored, len(ids) - 1
        if self._questions:
            shown = tokens.token_type_ids[0].nonzero()[0]
            first = int(shown[-1]) if len(shown) else 0
        words = ids[first + 1 :]
        if not len(tokens.targets):
            last, words = last + 1, torch.cat((words, torch.tensor([-1])))
        return list(range(first, last)), words

    def _append(
        self,
        rows: dict[str, list[Tensor]],
        reference: Tensor,
        compared: Sequence[tuple[Tensor, Tensor, Tensor]],
        words: Tensor,
        sample: int,
    ) -> None:
        """Append the results for some tokens of a sample, for all variants."""
        kl, agree, right = (torch.stack(column) for column in zip(*compared, strict=True))
        picture = self._network.picture_of[sample]
        owner = len(self._network.pictures) + sample if picture is None else picture
        first = reference.argmax(-1).cpu()
        found = {
            "kl": kl,
            "agree": agree,
            "other_right": right,
            "reference_right": (words < 0) | (first == words),
            "answer": torch.full((len(words),), sample),
            "picture": torch.full((len(words),), owner),
        }
        for name, values in found.items():
            rows[name].append(values)

    # --- files ------------------------------------------------------------------------------------

    @property
    def _found_file(self) -> Path:
        return self._folder / "found"

    def _check_room(self, paths: Sequence[Sequence[int]], activations: FolderActivations) -> None:
        """Raise DoesNotFitError before any work if the disk is too small for the activations."""
        states = max(len(set(path)) for path in paths)
        needed = 2 * states * self._network.activation_bytes
        if activations.room_bytes < needed:
            raise DoesNotFitError(
                "Measuring {count} variants needs {size} of scratch space in {folder}, which has "
                "{free} free.",
                hint="Free some space, use fewer samples (--samples), or use another disk.",
                count=len(self.variants),
                size=format_bytes(needed),
                folder=self._folder,
                free=format_bytes(activations.free_bytes),
            )


_COLUMNS = ("kl", "agree", "other_right", "reference_right", "answer", "picture")


def _compare(reference: Tensor, other: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare log-probabilities [positions, vocab] with the reference's.

    words  [positions] the correct tokens; for -1 it is the reference's first choice
    Returns KL(reference || other), whether both choose the same token, and whether the other
    chooses the correct one, each [positions] on the CPU
    """
    kl = (reference.exp() * (reference - other)).sum(-1).clamp(min=0).cpu()
    first, choice = reference.argmax(-1).cpu(), other.argmax(-1).cpu()
    return kl, choice == first, choice == torch.where(words < 0, first, words)


class _Forms:
    """Changes the forms of matrices that are in memory."""

    def __init__(
        self, network: Network, slots: Sequence[WeightSlot], values_in_form: ValuesInForm
    ) -> None:
        self._network, self._slots, self._values_in_form = network, slots, values_in_form
        self._now: dict[str, str] = {}

    def apply(self, forms: Mapping[str, str]) -> None:
        """Change matrices to these forms; those that are not named become the source's."""
        for slot in self._slots:
            if not isinstance(slot, Linear):
                continue
            form = forms.get(slot.name, SOURCE)
            if form == self._now.get(slot.name, SOURCE):
                continue
            self._network.fill([slot] if slot.bias is None else [slot, slot.bias])
            self._now[slot.name] = form
            if form != SOURCE:
                self._change(slot, form)

    def _change(self, linear: Linear, form: str) -> None:
        assert linear.stored is not None
        net = self._network
        values, bias = self._values_in_form(
            linear.name, form, linear.stored.dequantize(torch.float32)
        )
        linear.stored = DenseWeight(weight=values.to(net.device, net.dtype))
        if bias is not None and linear.bias is not None:
            linear.bias.value = net.put(bias)
