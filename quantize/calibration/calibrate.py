"""Calibrate a checkpoint block by block: fit the rounding of linear layers to their inputs.

One block's weights, the Hessians of its inputs and the activations of one sample are in memory at a
time; the activations of all samples between two blocks are on disk. The inputs of each block are
the outputs of the rounded blocks before it. The results are kept in the working folder, and
`pipeline.py` writes them in place of round to nearest:

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
from collections.abc import Callable, Iterator, Sequence
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
from cogvlm2_lite.engine.activations import FolderActivations
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, StageVisit
from cogvlm2_lite.engine.replan import out_of_memory
from cogvlm2_lite.errors import ConversionError, DoesNotFitError, UsageError
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.samples.pixels import SamplePixels
from cogvlm2_lite.samples.samples import Sample
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, format_bytes
from cogvlm2_lite.weights.catalog import NF4_GROUP, Catalog
from cogvlm2_lite.weights.slots import Linear, Vector
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.writer import write_file_durably
from quantize.calibration.batched import BatchRounder, Problem, rounded_together
from quantize.calibration.gptq import (
    Calibration,
    RoundedMatrix,
    as_read,
    expected_error,
    levels,
    output_error,
    round_matrix,
    round_to_nearest,
)
from quantize.calibration.network import Network
from quantize.calibration.stages import ModelStage, model_stages
from quantize.calibration.statistics import HeldOutInputs, Hessian, ObservedWeight
from quantize.events import Calibrated, CalibrationProgress
from quantize.int8 import int8_values
from quantize.job import CALIBRATION_FOLDER
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

_Observed = tuple[Linear, ObservedWeight]


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

    nearest_error  error of round to nearest
    error          error of the better one
    reason         why round to nearest is kept; "" if it is not
    """

    def __init__(self, seen: ObservedWeight, how: Calibration) -> None:
        self._seen, self._how = seen, how
        self.weight = seen.dequantize(torch.float32)
        self._held_out = seen.check.inputs
        self.best = round_to_nearest(self.weight, double_quant=how.double_quant)
        self.error = self.nearest_error = self.error_of(self.best.values)
        self.reason: str = ""

    @property
    def can_compare(self) -> bool:
        return 0 < self.nearest_error < float("inf")

    def error_of(self, values: Tensor) -> float:
        """Return the mean squared error of the outputs."""
        change = self.weight - values
        if self._held_out is None:  # nothing was held out
            return expected_error(change, self._seen.fit.matrix())
        return output_error(change, self._held_out)

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
        self._rounder: BatchRounder | None = None
        if task.compute.backend.launches_kernels:
            self._rounder = BatchRounder(self._network.device)

    @torch.inference_mode()
    def run(self) -> Iterator[CalibrationProgress | Calibrated]:
        """Calibrate; yield a row per matrix and progress per block.

        Raises ConversionError when the working folder holds another calibration.
        """
        stages = model_stages(self._network)
        self._resume()
        walk = LayerMajorWalk(stages, self._network.load_weights, self._activations)
        began, first = time.monotonic(), self._activations.done
        if walk.forward:
            self._check_room()
        with closing(self._activations):
            for number in walk.forward:
                self._rounding_s, entered = 0.0, time.monotonic()
                with walk.visit(number) as visit:
                    # 1  Run all samples, collect the inputs of the matrices, and round these.
                    yield from self._calibrate(stages[number], visit)
                    # 2  Run the samples again through the rounded block, so that the next block is
                    #    fitted to inputs that contain its errors.
                    if number + 1 < len(stages):  # the outputs of the last one are not used
                        for key in visit.keys:
                            visit.advance(key)
                done = number + 1
                now = time.monotonic()
                left = (now - began) / (done - first) * (len(stages) - done)
                yield CalibrationProgress(
                    done=done,
                    total=len(stages),
                    block=stages[number].name,
                    error_ratio=round(self._ratio(), 4),
                    seconds_left=round(left, 1),
                    look_s=round(now - entered - self._rounding_s, 3),
                    round_s=round(self._rounding_s, 3),
                )

    # --- one block --------------------------------------------------------------------------------

    def _calibrate(self, stage: ModelStage, visit: StageVisit) -> Iterator[Calibrated]:
        """Collect the inputs of a stage's matrices and round the matrices; yield their rows."""
        chosen = [linear for linear in stage.matrices if linear.name in self._task.chosen]
        if not chosen:
            return
        with SourceFiles(drop=False) as files:
            for linear in chosen:
                refuse_zeros_in(self._task.catalog.tensors[linear.name], files)
        observed = [self._observe(linear, stage.rows) for linear in chosen]
        for group, key in zip(stage.groups, visit.keys, strict=True):
            for seen in observed:
                seen.held_out = is_held_out(group)
            visit.output(key)
        pairs = list(zip(chosen, observed, strict=True))
        in_ram = self._fits_in_ram([linear.in_features for linear in chosen])
        for linear, seen in pairs:
            if in_ram:
                seen.fit.keep()
            else:
                seen.fit.spill(self._work / "hessians" / linear.name)
        for batch in self._batches(pairs):
            began = time.monotonic()
            rows = self._round(batch)
            for _, seen in batch:
                seen.fit.forget()
            self._rounding_s += time.monotonic() - began
            yield from rows

    def _fits_in_ram(self, widths: Sequence[int]) -> bool:
        """Return whether the Hessians of a stage can stay in RAM next to what rounding needs."""
        needed = _ROUNDING_HESSIANS * 4 * max(widths) ** 2
        if not self._task.compute.backend.uses_ram:
            needed = sum(4 * width**2 for width in widths)
        return psutil.virtual_memory().available >= needed + SPARE_RAM_BYTES

    def _batches(self, pairs: Sequence[_Observed]) -> list[list[_Observed]]:
        """Return the matrices that are rounded together: those of one shape, on a GPU."""
        if self._rounder is None:
            return [[pair] for pair in pairs]
        shapes = [(linear.out_features, linear.in_features) for linear, _ in pairs]
        return [[pairs[place] for place in batch] for batch in rounded_together(shapes)]

    def _observe(self, linear: Linear, rows: Callable[[Part], int]) -> ObservedWeight:
        """Put a weight that collects its inputs into a slot.

        rows  returns how many inputs the matrices of a part will have
        """
        assert linear.stored is not None
        task = self._task
        expected = rows(task.catalog.tensors[linear.name].spec.part)
        fit_every = max(-(-expected // task.max_inputs), 1)
        check_every = max(-(-expected // (HOLD_OUT_EVERY * task.max_held_out_inputs)), 1)
        seen = ObservedWeight(
            inner=linear.stored,
            fit=Hessian(linear.in_features, self._network.device, every=fit_every),
            check=HeldOutInputs(every=check_every),
        )
        linear.stored = seen
        return seen

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
        return [row for pair in batch for row in self._round([pair])]

    def _try_to_round(self, batch: Sequence[_Observed]) -> list[Calibrated]:
        how = self._task.how
        judges = [_Judge(seen, how) for _, seen in batch]
        problems = [
            Problem(weight=judge.weight, hessian=seen.fit.matrix, inputs=seen.fit.count)
            for judge, (_, seen) in zip(judges, batch, strict=True)
            if judge.can_compare
        ]
        tried = iter(self._rounded(problems))
        rows = []
        for judge, (linear, seen) in zip(judges, batch, strict=True):
            judge.compare(next(tried) if judge.can_compare else None)
            rows.append(self._finish(linear, seen, judge))
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

    def _finish(self, linear: Linear, seen: ObservedWeight, judge: _Judge) -> Calibrated:
        """Save what was decided of a matrix, and put it into the slot."""
        row = Calibrated(
            tensor=linear.name,
            inputs=seen.fit.count,
            error=judge.error,
            nearest_error=judge.nearest_error,
            int8_error=judge.error_of(int8_values(judge.weight))
            if judge.nearest_error > 0
            else 0.0,
            kept="nearest" if judge.reason else "calibrated",
            reason=judge.reason,
        )
        best = judge.best
        bias = None
        if not judge.reason:
            bias = self._correct_bias(linear, judge.weight - best.values, seen)
        self._rows[row.tensor] = row
        self._save_matrix(linear.name, best, row)
        if bias is not None:
            assert linear.bias is not None
            self._save(Path("biases", linear.bias.name), {"bias": bias.cpu()}, {})
            linear.bias.value = bias.to(self._network.device, self._network.dtype)
        linear.stored = DenseWeight(weight=best.values.to(self._network.dtype))
        return row

    def _correct_bias(self, linear: Linear, change: Tensor, seen: ObservedWeight) -> Tensor | None:
        """Return the bias minus the mean error of the outputs; None for a layer without a bias."""
        if linear.bias is None:
            return None
        bias = self._source_bias(linear.bias)
        corrected = bias.float() + (change @ seen.fit.mean).cpu()
        return corrected.to(bias.dtype)

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
        """Disk space needed in addition to the result: the activations between two blocks (twice),
        codes and scales of all matrices, and the Hessians of a layer."""
        tensors = self._task.catalog.tensors
        weights = sum(tensors[name].spec.numel for name in self._task.chosen)
        scales = 4 * weights // NF4_GROUP
        layer: dict[tuple[object, ...], int] = {}
        for name in self._task.chosen:
            spec = tensors[name].spec
            place = (spec.block, spec.part in (Part.VISION, Part.PROJECTOR), spec.block is None)
            layer[place] = layer.get(place, 0) + 4 * spec.shape[1] ** 2
        hessians = max(layer.values(), default=0)
        return 2 * self._network.activation_bytes + weights // 2 + scales + hessians

    # --- progress and checks ----------------------------------------------------------------------

    def _ratio(self) -> float:
        """Return the mean ratio of a matrix's error to that of round to nearest."""
        measured = [row for row in self._rows.values() if 0 < row.nearest_error < float("inf")]
        ratios = [row.error / row.nearest_error for row in measured]
        return sum(ratios) / len(ratios) if ratios else 1.0


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
