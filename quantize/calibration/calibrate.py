"""Calibrate a checkpoint block by block: fit the rounding of linear layers to their inputs.

Two streams of activations go through the model: those of the original network, and those of the
network that is rounded so far. Inside a block, matrices are rounded one after another (`steps.py`).
Each of them is fitted so that its outputs on the rounded network's inputs are what the original
network computes there; so it also corrects errors of the matrices before it. With
`Calibration.targets` ROUNDED there is only the second stream, and a block is rounded at once.

The weights of one part of a block, the Hessians of its inputs and the activations of one sample are
in memory at a time; the activations of all samples between two parts are on disk. The results are
kept in the working folder, and `pipeline.py` writes them in place of round to nearest:

    calibration/state.json         the identity of the calibration, and how many stages are done
    calibration/activations-N      the inputs of stage N (engine/activations.py)
    calibration/matrices/NAME      codes, scales and the errors of one matrix
    calibration/biases/NAME        a corrected bias

A stage is done when its files are on the disk and state.json counts it, so a killed run resumes
with the same numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part
from cogvlm2_lite.devices import Compute
from cogvlm2_lite.engine.activations import FolderActivations, Key
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, StageVisit
from cogvlm2_lite.engine.replan import out_of_memory
from cogvlm2_lite.errors import ConversionError, DoesNotFitError, UsageError
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.samples.pixels import SamplePixels
from cogvlm2_lite.samples.samples import Sample
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, format_bytes
from cogvlm2_lite.weights.catalog import NF4_GROUP, Catalog
from cogvlm2_lite.weights.slots import Linear, StoredWeight, Vector
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.writer import write_file_durably
from quantize.calibration.batched import BatchRounder, Problem, rounded_together
from quantize.calibration.gptq import (
    ORIGINAL,
    ROUNDED,
    Calibration,
    RoundedMatrix,
    as_read,
    distance,
    expected_error,
    levels,
    output_error,
    round_matrix,
    round_to_nearest,
    shifted,
)
from quantize.calibration.network import Network
from quantize.calibration.stages import ModelStage, model_stages
from quantize.calibration.statistics import (
    HeldOutInputs,
    HeldOutPairs,
    Hessian,
    ObservedWeight,
    PairMoments,
)
from quantize.calibration.steps import RoundingStage, SharedInputs, rounding_stages
from quantize.calibration.token_weights import TokenWeights, weighing_bytes
from quantize.events import TOKEN_WEIGHTS, Calibrated, CalibrationProgress
from quantize.int8 import int8_values
from quantize.job import CALIBRATION_FOLDER
from quantize.recipe import BY_GRADIENT
from quantize.source import SourceFiles, refuse_zeros_in

HOLD_OUT_EVERY = 4
"""Every fourth picture (or sample without one) is held out: it evaluates and is not fitted to."""
MIN_SAMPLES = 8
MAX_INPUTS = 65_536
"""Inputs of a matrix that its Hessian is made of. Measured: more change nothing."""

MAX_HELD_OUT_INPUTS = 2048
"""Held-out inputs that evaluate a matrix."""

_ROUNDING_HESSIANS = 4
"""Matrices of the size of a Hessian for which rounding on the CPU needs memory, and its weights."""
SPARE_RAM_BYTES = 2 * GIB
"""RAM that is left for other programs when Hessians stay in RAM."""

_ORIGINAL, _ROUNDED = 0, 1
"""The two streams, as parts of a sample's key."""
_ROWS = 2048
"""Rows of a sample whose inputs are computed together."""
ACTIVATIONS = {ORIGINAL: 6, ROUNDED: 2}
"""Activations of all samples that are on disk at most, as a multiple of those between two blocks.
With two streams a part of a block reads one tensor of each, and may write two."""


@dataclass(kw_only=True)
class _SeenPairs:
    """The pairs of inputs of matrices in both streams.

    fit    of the samples that rounding is fitted to
    check  of held-out samples
    """

    fit: PairMoments
    check: HeldOutPairs


_Seen = ObservedWeight | _SeenPairs


@dataclass(frozen=True)
class _Observed:
    """A matrix whose inputs are collected.

    stored  the original matrix, which is in the slot until the first attempt to round it
    """

    linear: Linear
    seen: _Seen
    stored: StoredWeight

    @staticmethod
    def of(linear: Linear, seen: _Seen) -> _Observed:
        """Take the original matrix from the slot."""
        assert linear.stored is not None
        return _Observed(linear, seen, linear.stored)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is calibrated.

    samples              with pictures that open; samples about one picture follow each other
    chosen               names of the matrices that become NF4
    folder               the working folder of the conversion
    identity             must be equal for earlier work to be resumed
    max_inputs           inputs of a matrix that its Hessian is made of
    max_held_out_inputs  held-out inputs that evaluate a matrix
    pixels               the pictures that are decoded already; None: decode them when needed
    """

    catalog: Catalog
    samples: Sequence[Sample]
    tokenizer: Tokenizer
    chosen: frozenset[str]
    how: Calibration
    compute: Compute
    folder: Path
    identity: str
    max_inputs: int = MAX_INPUTS
    max_held_out_inputs: int = MAX_HELD_OUT_INPUTS
    pixels: SamplePixels | None = None


class CalibratedWeights:
    """The results of a calibration, which the pipeline reads when it writes.

    dropped  matrices that are stored in another way than it decided
    """

    def __init__(self, folder: Path, dropped: frozenset[str] = frozenset()) -> None:
        self._folder = folder / CALIBRATION_FOLDER
        self._dropped = dropped

    def matrix(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Return codes [rows, columns / 2] uint8 as they are stored, and scales [groups] float32;
        None where round to nearest is kept."""
        file = self._folder / "matrices" / name
        if name in self._dropped or not file.exists():
            return None
        with safe_open(file, "pt") as content:
            if content.metadata()["kept"] == "nearest":
                return None
            return content.get_tensor("codes"), content.get_tensor("scales").flatten()

    def values(self, name: str, *, double_quant: bool) -> Tensor | None:
        """Return a matrix dequantized as readers will, float32; None when rounded to nearest."""
        found = self.matrix(name)
        if found is None:
            return None
        packed, scales = found
        codes = torch.stack((packed >> 4, packed & 15), dim=2).flatten(1)
        read = as_read(scales.view(len(codes), -1), double_quant=double_quant)
        return levels(codes) * read.repeat_interleave(NF4_GROUP, dim=1)

    def bias(self, name: str) -> Tensor | None:
        """Return a corrected bias in the source's type; None when it does not change."""
        file = self._folder / "biases" / name
        matrix = name.removesuffix(".bias") + ".weight"
        if matrix in self._dropped or not file.exists():
            return None
        with safe_open(file, "pt") as content:
            found: Tensor = content.get_tensor("bias")
        return found

    def rows(self, catalog: Catalog) -> list[Calibrated]:
        """Return what was decided for every matrix, in the model's order."""
        files = (self._folder / "matrices" / name for name in catalog.tensors)
        found = []
        for file in (file for file in files if file.exists()):
            with safe_open(file, "pt") as content:
                found.append(Calibrated(**json.loads(content.metadata()["row"])))
        return found


class _Judge:
    """Compares a calibrated matrix with round to nearest, on the held-out inputs.

    weight         the original matrix
    target         what is rounded: the original matrix, or the one whose outputs on the rounded
                   network's inputs are closest to the original's; an error if it can't be computed
    nearest_error  error of round to nearest
    error          error of the better one
    reason         why round to nearest is kept; "" if it is not
    """

    def __init__(self, observed: _Observed, how: Calibration) -> None:
        seen = observed.seen
        self._seen, self._how = seen, how
        self.weight = observed.stored.dequantize(torch.float32)
        self.target: Tensor | ArithmeticError = self.weight
        self._inputs: Tensor | None
        self._wanted: Tensor | None = None
        if isinstance(seen, _SeenPairs):
            self.target = self._shifted(seen.fit)
            pairs = seen.check.pairs
            self._inputs = None if pairs is None else pairs[1]
            if pairs is not None:
                self._wanted = pairs[0].float() @ self.weight.t()
        else:
            self._inputs = seen.check.inputs
        self.best = round_to_nearest(self.weight, double_quant=how.double_quant)
        self.error = self.nearest_error = self.error_of(self.best.values)
        self.reason: str = ""

    def _shifted(self, fit: PairMoments) -> Tensor | ArithmeticError:
        try:
            return shifted(self.weight, fit.shift, fit.matrix, fit.count)
        except ArithmeticError as error:
            return error

    @property
    def can_compare(self) -> bool:
        return 0 < self.nearest_error < float("inf")

    def error_of(self, values: Tensor) -> float:
        """Return the mean squared distance of the outputs from what they should be."""
        if self._inputs is None:  # nothing was held out
            goal = self.weight if isinstance(self.target, ArithmeticError) else self.target
            return expected_error(goal - values, self._seen.fit.matrix())
        if self._wanted is not None:
            return distance(values, self._inputs, self._wanted)
        return output_error(self.weight - values, self._inputs)

    def int8_error(self) -> float:
        """Return what int8 leaves of the error.

        It is in proportion to the changes of the outputs on the same inputs. The distance from the
        original also contains the errors of the matrices before, which int8 does not remove.
        """
        if not self.nearest_error > 0:
            return 0.0
        int8 = int8_values(self.weight)
        if self._wanted is None:
            return self.error_of(int8)
        assert self._inputs is not None
        own, others = (
            output_error(self.weight - values, self._inputs) for values in (self.best.values, int8)
        )
        return self.error * others / own if own > 0 else 0.0

    def compare(self, tried: RoundedMatrix | ArithmeticError | None) -> None:
        """Keep the better of both.

        tried  the calibrated matrix, or why there is none; None if nothing can be compared
        """
        if tried is None:
            self.reason = Text("no sample reached it")
        elif isinstance(tried, ArithmeticError):
            self.reason = Text(tried.args[0])
        elif (error := self.error_of(tried.values)) < self.error:
            self.best, self.error = tried, error
        else:
            self.reason = Text("round to nearest is better on the held-out samples")


class Calibrator:
    """Carries out a task; `run` resumes after the last finished stage."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._network = Network(
            task.catalog,
            task.samples,
            task.tokenizer,
            device=torch.device(task.compute.device),
            dtype=task.compute.dtype,
            pixels=task.pixels,
        )
        self._work = task.folder / CALIBRATION_FOLDER
        self._activations = FolderActivations(self._work, task.identity)
        self._rows: dict[str, Calibrated] = {}
        self._rounding_s = 0.0
        self._weights: TokenWeights | None = None
        self._rounder: BatchRounder | None = None
        if task.compute.backend.launches_kernels:
            self._rounder = BatchRounder(self._network.device)

    @torch.inference_mode()
    def run(self) -> Iterator[CalibrationProgress | Calibrated]:
        """Calibrate; yield a row per matrix and progress per block or part of a block.

        Raises ConversionError when the working folder holds another calibration.
        """
        two_streams = self._task.how.targets == ORIGINAL
        stages: Sequence[ModelStage] = model_stages(self._network)
        if two_streams:
            stages = rounding_stages(self._network)
        self._resume()
        walk = LayerMajorWalk(stages, self._network.load_weights, self._activations)
        if walk.forward:
            self._check_room()
        if walk.forward and two_streams and self._task.how.token_weights == BY_GRADIENT:
            self._weights = yield from self._weigh()
        work = [_work(stage) for stage in stages]
        began, before = time.monotonic(), sum(work[: self._activations.done])
        with closing(self._activations):
            for number in walk.forward:
                self._rounding_s, entered = 0.0, time.monotonic()
                stage, last = stages[number], number + 1 == len(stages)
                with walk.visit(number) as visit:
                    # Collect the inputs of the matrices, round these, and run the samples through
                    # the rounded block, so that the next one is fitted to inputs that contain its
                    # errors. The outputs of the last one are not used.
                    if isinstance(stage, RoundingStage):
                        yield from self._round_in_turn(stage, visit, advance=not last)
                    else:
                        yield from self._round_at_once(stage, visit, advance=not last)
                done = number + 1
                now = time.monotonic()
                finished = sum(work[:done])
                left = (now - began) / (finished - before) * (sum(work) - finished)
                yield CalibrationProgress(
                    done=done,
                    total=len(stages),
                    block=stages[number].name,
                    error_ratio=round(self._ratio(), 4),
                    seconds_left=round(left, 1),
                    look_s=round(now - entered - self._rounding_s, 3),
                    round_s=round(self._rounding_s, 3),
                )

    def _weigh(self) -> Generator[CalibrationProgress, None, TokenWeights]:
        """Compute the weights of all tokens; yield progress."""
        task = self._task
        network = Network(
            task.catalog,
            task.samples,
            task.tokenizer,
            device=self._network.device,
            dtype=torch.float32,
            pixels=task.pixels,
        )
        held_out = frozenset(filter(is_held_out, range(len(task.samples))))
        weights = TokenWeights(network, self._work / "token_weights", held_out)
        began = time.monotonic()
        for done, total in weights.compute():
            spent = time.monotonic() - began
            yield CalibrationProgress(
                done=done,
                total=total,
                block=TOKEN_WEIGHTS,
                error_ratio=1.0,
                seconds_left=round(spent / done * (total - done), 1),
                look_s=round(spent, 3),
                round_s=0.0,
            )
        return weights

    # --- one block, matrices in turn --------------------------------------------------------------

    def _round_in_turn(
        self, stage: RoundingStage, visit: StageVisit, *, advance: bool
    ) -> Iterator[Calibrated]:
        """Round the matrices of a stage one after another; yield their rows."""
        streams = _Streams()
        for shared in stage.rounds:
            found = [(each, self._chosen(each.linears)) for each in shared]
            wanted = [(each, chosen) for each, chosen in found if chosen]
            if not wanted:
                continue
            seen = [self._new_pairs(chosen[0].in_features) for _, chosen in wanted]
            for group, key in zip(stage.groups, visit.keys, strict=True):
                held_out = is_held_out(group)
                for (each, _), some in zip(wanted, seen, strict=True):
                    every = self._thinning(stage.rows(each.part))[held_out]
                    weights = None
                    if self._weights is not None and not held_out:
                        weights = self._weights.of(stage, each, key)[::every]
                    self._collect(
                        each, some, visit, key, streams, every, weights, held_out=held_out
                    )
            streams.use(_ORIGINAL)
            matrices = [
                _Observed.of(linear, some)
                for (_, chosen), some in zip(wanted, seen, strict=True)
                for linear in chosen
            ]
            streams.add(each.linear for each in matrices)
            yield from self._round_observed(matrices)
            streams.rounded(each.linear for each in matrices)
        if advance:
            for sample, _ in visit.keys:
                for stream in (_ORIGINAL, _ROUNDED):
                    streams.use(stream)
                    visit.advance((sample, stream))

    def _collect(
        self,
        shared: SharedInputs,
        seen: _SeenPairs,
        visit: StageVisit,
        key: Key,
        streams: _Streams,
        every: int,
        weights: Tensor | None,
        *,
        held_out: bool,
    ) -> None:
        """Add the inputs of a sample in both streams; use one of `every` rows.

        weights  of the rows that are used; None: all are equal
        """
        stored = [visit.input((key[0], stream)) for stream in (_ORIGINAL, _ROUNDED)]
        hidden = [self._network.put(each)[0] for each in stored if each is not None]
        numbers = shared.rows(key)
        if numbers is None:
            numbers = torch.arange(len(hidden[0]), device=self._network.device)
        used = numbers[::every]
        for begin in range(0, len(used), _ROWS):
            here = slice(begin, begin + _ROWS)
            some, made = used[here], []
            for stream in (_ORIGINAL, _ROUNDED):
                streams.use(stream)
                made.append(shared.make(hidden[stream][some]))
            original, x = made
            if held_out:
                seen.check.add(original, x)
            else:
                seen.fit.add(original, x, None if weights is None else weights[here])

    def _new_pairs(self, columns: int) -> _SeenPairs:
        return _SeenPairs(fit=PairMoments(columns, self._network.device), check=HeldOutPairs())

    # --- one block, all matrices at once ----------------------------------------------------------

    def _round_at_once(
        self, stage: ModelStage, visit: StageVisit, *, advance: bool
    ) -> Iterator[Calibrated]:
        """Collect the inputs of a stage's matrices and round the matrices; yield their rows."""
        chosen = self._chosen(stage.matrices)
        if chosen:
            observed = [self._observe(linear, stage.rows) for linear in chosen]
            for group, key in zip(stage.groups, visit.keys, strict=True):
                for seen in observed:
                    seen.held_out = is_held_out(group)
                visit.output(key)
            for linear, seen in zip(chosen, observed, strict=True):
                linear.stored = seen.inner
            yield from self._round_observed(list(map(_Observed.of, chosen, observed)))
        if advance:
            for key in visit.keys:
                visit.advance(key)

    # --- both -------------------------------------------------------------------------------------

    def _chosen(self, linears: Sequence[Linear]) -> list[Linear]:
        """Return those matrices that are calibrated, after a check of their files."""
        chosen = [linear for linear in linears if linear.name in self._task.chosen]
        with SourceFiles(drop=False) as files:
            for linear in chosen:
                refuse_zeros_in(self._task.catalog.tensors[linear.name], files)
        return chosen

    def _round_observed(self, observed: Sequence[_Observed]) -> Iterator[Calibrated]:
        """Round matrices whose inputs are collected; yield their rows."""
        # Some matrices share their inputs.
        fits = {id(each.seen.fit): (each.linear, each.seen.fit) for each in observed}.values()
        widths = [
            linear.in_features
            for linear, fit in fits
            for _ in range(1 + isinstance(fit, PairMoments))
        ]
        in_ram = self._fits_in_ram(widths)
        for linear, fit in fits:
            if in_ram:
                fit.keep()
            else:
                fit.spill(self._work / "hessians" / linear.name)
        last = {id(each.seen.fit): each for each in observed}
        for batch in self._batches(observed):
            began = time.monotonic()
            rows = self._round(batch)
            for each in batch:
                if last[id(each.seen.fit)] is each:
                    each.seen.fit.forget()
            self._rounding_s += time.monotonic() - began
            yield from rows

    def _fits_in_ram(self, widths: Sequence[int]) -> bool:
        """Return whether the Hessians of a stage can stay in RAM next to what rounding needs."""
        needed = _ROUNDING_HESSIANS * 4 * max(widths) ** 2
        if not self._task.compute.backend.uses_ram:
            needed = sum(4 * width**2 for width in widths)
        return psutil.virtual_memory().available >= needed + SPARE_RAM_BYTES

    def _batches(self, observed: Sequence[_Observed]) -> list[list[_Observed]]:
        """Return the matrices that are rounded together: those of one shape, on a GPU."""
        if self._rounder is None:
            return [[each] for each in observed]
        shapes = [(each.linear.out_features, each.linear.in_features) for each in observed]
        return [[observed[place] for place in batch] for batch in rounded_together(shapes)]

    def _observe(self, linear: Linear, rows: Callable[[Part], int]) -> ObservedWeight:
        """Put a weight that collects its inputs into a slot.

        rows  returns how many inputs the matrices of a part will have
        """
        assert linear.stored is not None
        part = self._task.catalog.tensors[linear.name].spec.part
        fit_every, check_every = self._thinning(rows(part))
        seen = ObservedWeight(
            inner=linear.stored,
            fit=Hessian(linear.in_features, self._network.device, every=fit_every),
            check=HeldOutInputs(every=check_every),
        )
        linear.stored = seen
        return seen

    def _thinning(self, expected: int) -> tuple[int, int]:
        """Return of how many inputs one is used: to fit, and to evaluate.

        expected  number of inputs of all samples
        """
        task = self._task
        return (
            max(-(-expected // task.max_inputs), 1),
            max(-(-expected // (HOLD_OUT_EVERY * task.max_held_out_inputs)), 1),
        )

    def _round(self, batch: Sequence[_Observed]) -> list[Calibrated]:
        """Round matrices, and put the better of calibrated and nearest into their slots.

        If memory runs out, they are rounded one by one, with the same result. Raises what torch
        raises if it runs out for a single matrix.
        """
        try:
            return self._try_to_round(batch)
        except RuntimeError as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
        if self._rounder is not None:
            self._rounder.forget()
        self._task.compute.backend.release_unused()
        return [row for each in batch for row in self._round([each])]

    def _try_to_round(self, batch: Sequence[_Observed]) -> list[Calibrated]:
        how = self._task.how
        judges = [_Judge(each, how) for each in batch]
        problems = [
            Problem(weight=judge.target, hessian=each.seen.fit.matrix, inputs=each.seen.fit.count)
            for judge, each in zip(judges, batch, strict=True)
            if judge.can_compare and isinstance(judge.target, Tensor)
        ]
        rounded = iter(self._rounded(problems))
        rows = []
        for judge, each in zip(judges, batch, strict=True):
            tried: RoundedMatrix | ArithmeticError | None = None
            if judge.can_compare:
                target = judge.target
                tried = next(rounded) if isinstance(target, Tensor) else target
            judge.compare(tried)
            rows.append(self._finish(each.linear, each.seen, judge))
        return rows

    def _rounded(self, problems: Sequence[Problem]) -> list[RoundedMatrix | ArithmeticError]:
        how = self._task.how
        if self._rounder is not None:
            return self._rounder.round(problems, how) if problems else []
        found: list[RoundedMatrix | ArithmeticError] = []
        for problem in problems:
            try:
                found.append(round_matrix(problem.weight, problem.hessian, problem.inputs, how))
            except ArithmeticError as error:
                found.append(error)
        return found

    def _finish(self, linear: Linear, seen: _Seen, judge: _Judge) -> Calibrated:
        """Save what was decided of a matrix, and put it into the slot."""
        row = Calibrated(
            tensor=linear.name,
            inputs=seen.fit.count,
            error=judge.error,
            nearest_error=judge.nearest_error,
            int8_error=judge.int8_error(),
            kept="nearest" if judge.reason else "calibrated",
            reason=judge.reason,
        )
        best = judge.best
        bias = None
        if not judge.reason:
            bias = self._correct_bias(linear, judge.weight, best.values, seen)
        self._rows[row.tensor] = row
        self._save_matrix(linear.name, best, row)
        if bias is not None:
            assert linear.bias is not None
            self._save(Path("biases", linear.bias.name), {"bias": bias.cpu()}, {})
            linear.bias.value = bias.to(self._network.device, self._network.dtype)
        linear.stored = DenseWeight(weight=best.values.to(self._network.dtype))
        return row

    def _correct_bias(
        self, linear: Linear, weight: Tensor, values: Tensor, seen: _Seen
    ) -> Tensor | None:
        """Return the bias minus the mean error of the outputs; None for a layer without a bias."""
        if linear.bias is None:
            return None
        if isinstance(seen, _SeenPairs):
            missing = weight @ seen.fit.original_mean - values @ seen.fit.mean
        else:
            missing = (weight - values) @ seen.fit.mean
        bias = self._source_bias(linear.bias)
        return (bias.float() + missing.cpu()).to(bias.dtype)

    def _source_bias(self, bias: Vector) -> Tensor:
        stored = self._task.catalog.tensors[bias.name]
        with safe_open(stored.pieces["weight"].file, "pt") as content:
            found: Tensor = content.get_tensor(bias.name)
        return found

    # --- files ------------------------------------------------------------------------------------

    def _save_matrix(self, name: str, rounded: RoundedMatrix, row: Calibrated) -> None:
        tensors = {}
        if row.kept == "calibrated":
            codes = (rounded.codes[:, ::2] << 4) | rounded.codes[:, 1::2]
            tensors = {"codes": codes.cpu(), "scales": rounded.scales.cpu()}
        text = json.dumps(row.values())
        self._save(Path("matrices", name), tensors, {"kept": row.kept, "row": text})

    def _save(self, place: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        file = self._work / place
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_file_durably(file, save(whole, metadata or None))

    def _resume(self) -> None:
        """Load the state after the last finished stage; reject that of another calibration."""
        earlier = self._activations.earlier_identity
        if earlier not in (None, self._task.identity):
            raise ConversionError(
                "{folder} was started with {old}, but now it is {new}.",
                hint="Use the same samples and options as before, or add --restart.",
                folder=self._work,
                old=earlier,
                new=self._task.identity,
            )
        self._activations.resume()
        rows = CalibratedWeights(self._task.folder).rows(self._task.catalog)
        self._rows = {row.tensor: row for row in rows}

    def _check_room(self) -> None:
        """Raise DoesNotFitError before any work if the disk is too small for the scratch files."""
        needed, activations = self.scratch_bytes, self._activations
        if activations.room_bytes < needed:
            raise DoesNotFitError(
                "Calibration needs {size} of scratch space in {folder}, which has {free} free.",
                hint="Free some space, use fewer samples (--samples), or use another disk.",
                size=format_bytes(needed),
                folder=self._work,
                free=format_bytes(activations.free_bytes),
            )

    @property
    def scratch_bytes(self) -> int:
        """Disk space needed in addition to the result: the activations between two stages, codes
        and scales of all matrices, and the Hessians of a layer."""
        tensors = self._task.catalog.tensors
        weights = sum(tensors[name].spec.numel for name in self._task.chosen)
        scales = 4 * weights // NF4_GROUP
        layer: dict[tuple[object, ...], int] = {}
        for name in self._task.chosen:
            spec = tensors[name].spec
            place = (spec.block, spec.part in (Part.VISION, Part.PROJECTOR), spec.block is None)
            layer[place] = layer.get(place, 0) + 4 * spec.shape[1] ** 2
        hessians = max(layer.values(), default=0)
        targets = self._task.how.targets
        if targets == ORIGINAL:
            hessians *= 2  # and as many shifts
        activations = ACTIVATIONS[targets] * self._network.activation_bytes
        needed = activations + weights // 2 + scales + hessians
        if self._task.how.token_weights == BY_GRADIENT:
            needed += weighing_bytes(self._network)
        return needed

    # --- progress and checks ----------------------------------------------------------------------

    def _ratio(self) -> float:
        """Return the mean ratio of a matrix's error to that of round to nearest."""
        measured = [row for row in self._rows.values() if 0 < row.nearest_error < float("inf")]
        ratios = [row.error / row.nearest_error for row in measured]
        return sum(ratios) / len(ratios) if ratios else 1.0


class _Streams:
    """Puts the weights of one of the two streams into the slots of matrices."""

    def __init__(self) -> None:
        self._forms: dict[Linear, list[tuple[StoredWeight | None, Tensor | None]]] = {}

    def add(self, linears: Iterable[Linear]) -> None:
        """Remember the weights in the slots as those of the original."""
        for linear in linears:
            self._forms[linear] = [_content(linear)] * 2

    def rounded(self, linears: Iterable[Linear]) -> None:
        """Remember the weights in the slots as those of the rounded network."""
        for linear in linears:
            self._forms[linear][_ROUNDED] = _content(linear)

    def use(self, stream: int) -> None:
        """Put the weights of a stream into the slots."""
        for linear, forms in self._forms.items():
            linear.stored, bias = forms[stream]
            if linear.bias is not None:
                linear.bias.value = bias


def _content(linear: Linear) -> tuple[StoredWeight | None, Tensor | None]:
    return linear.stored, None if linear.bias is None else linear.bias.value


def _work(stage: ModelStage) -> float:
    """Return about how many operations a stage takes; only their proportions count."""
    work = 1e6 * (1 + len(stage.keys))  # reading, writing and attention
    for linear in stage.matrices:
        weights = linear.in_features * linear.out_features
        work += weights * (4.0 * stage.tokens * stage.share + 10.0 * linear.in_features + 1e4)
    return work


def is_held_out(number: int) -> bool:
    """Return whether a picture, or a sample without one, is held out and not fitted to."""
    return number % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1


def check_samples(samples: Sequence[Sample]) -> None:
    """Raise UsageError for too few samples to hold some out."""
    if len(samples) < MIN_SAMPLES:
        raise UsageError(
            "Too few samples to calibrate with: {count}.",
            hint="Use at least {least}; 64 is a good number. Or use --calibrate built-in.",
            count=len(samples),
            least=MIN_SAMPLES,
        )
