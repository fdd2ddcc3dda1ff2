"""Round several matrices together, for devices on which starting an operation is what takes time.

GPTQ and coordinate descent choose one column after another, so a matrix of 15,360 columns is five
times 15,360 steps on short rows. A GPU computes such a step faster than it starts an operation.
This module does what `gptq.round_matrix` does, in another order:

- Matrices of one shape go through the steps of a column together.
- A step has five operations, the same for both methods. They write into fixed buffers, so the steps
  of 128 columns are captured once as a graph and started as one.
- Scales are searched in large pieces.

Rows of a matrix, and matrices, do not depend on each other: the operations of a step are
elementwise, and the products between the blocks are those of one matrix. So a matrix gets the same
codes alone and together with others. They may differ from those of `gptq.round_matrix` where a sum
rounds differently in the last bit.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.weights.catalog import NF4_GROUP
from quantize.calibration.gptq import (
    BLOCK,
    Calibration,
    RoundedMatrix,
    as_read,
    damp,
    level_tables,
    levels,
    nearest_codes,
    prepare,
    safe_scales,
    search_scales,
)

MAX_TOGETHER = 2**27
"""Weights that are rounded together: two of the largest matrices of the 19B model."""
OPERATIONS_PER_COLUMN = 5
"""Of a step, see `_ColumnBlock`."""
LAUNCHES_PER_BLOCK = 25
"""Operations that the host starts for each matrix and block of columns in a pass: the copies into
the buffers, the graph, and the products. A test counts them."""
_SHAPES = 4
"""Shapes whose buffers and graphs are kept: a layer has so many."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A matrix to round; the arguments of `gptq.round_matrix`.

    weight   [rows, columns] float32
    hessian  returns the mean of x x^T over its inputs, [columns, columns] float32
    inputs   number of inputs in that mean
    """

    weight: Tensor
    hessian: Callable[[], Tensor]
    inputs: int


def rounded_together(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Return which matrices of a layer are rounded together: their places in `shapes`."""
    found: list[list[int]] = []
    last: dict[tuple[int, ...], list[int]] = {}
    for place, shape in enumerate(shapes):
        most = max(MAX_TOGETHER // (shape[0] * shape[1]), 1)
        if len(last.setdefault(shape, [])) in (0, most):
            last[shape] = []
            found.append(last[shape])
        last[shape].append(place)
    return found


class BatchRounder:
    """Rounds matrices of one shape together; keeps the buffers and graphs of the last shapes."""

    def __init__(self, device: torch.device) -> None:
        new_capture = backend_of(device).graph_capture(device)
        self.graphs = None if new_capture is None else GraphCache(new_capture)
        self._device = device
        self._blocks: OrderedDict[tuple[int, int, int], _ColumnBlock] = OrderedDict()

    def forget(self) -> None:
        """Free the buffers and the graphs."""
        self._blocks.clear()
        if self.graphs is not None:
            self.graphs.forget_all()
        gc.collect()  # a block and its steps refer to each other

    def round(
        self, problems: Sequence[Problem], how: Calibration
    ) -> list[RoundedMatrix | ArithmeticError]:
        """Return the rounded matrices, or for each the reason why it can't be calibrated.

        problems  of one shape
        """
        results: list[RoundedMatrix | ArithmeticError | None] = [None] * len(problems)
        batch = _Batch(problems[0].weight.shape, self._device)
        members: list[int] = []
        # 1  The factor of each matrix, and the scales of all.
        for number, problem in enumerate(problems):
            try:
                batch.add(problem, how)
                members.append(number)
            except ArithmeticError as error:
                results[number] = error
        if members:
            batch.join(how)
            # 2  The codes, for all of them at each step.
            if how.gptq:
                self._gptq(batch)
            else:
                batch.round_to_nearest()
            # 3  Choose all of them again.
            if how.descents:
                batch.use_hessians(how)
            for _ in range(how.descents):
                if not self._descend(batch):
                    break
            for place, number in enumerate(members):
                results[number] = batch.result(place)
        return [result for result in results if result is not None]

    def _gptq(self, batch: _Batch) -> None:
        """Choose codes by GPTQ; see `gptq._gptq` for the method.

        The rows of a factor U are divided by U's diagonal. So the error of a column is spread as it
        is, and one operation less is needed for each column.
        """
        rest = batch.in_order()
        for begin in range(0, batch.columns, BLOCK):
            end = min(begin + BLOCK, batch.columns)
            block = self._block(end - begin, batch)
            block.given.copy_(rest[begin:end])
            for place, (factor, order) in enumerate(zip(batch.factors, batch.orders, strict=True)):
                groups = order[begin:end] // NF4_GROUP
                block.scale[:, place].copy_(batch.grid[:, place].index_select(0, groups))
                block.spread[:, :, place].copy_(factor[begin:end, begin:end])
            errors = self._run(block, descends=False)
            for place, (factor, order) in enumerate(zip(batch.factors, batch.orders, strict=True)):
                codes = block.codes[:, place].to(torch.uint8)
                batch.codes[:, place].index_copy_(0, order[begin:end], codes)
                rest[end:, place].addmm_(
                    factor[begin:end, end:].t(), errors[:, place], alpha=-1
                )  # the errors of the whole block, for all columns after it
        batch.factors.clear()

    def _descend(self, batch: _Batch) -> bool:
        """Choose every code again, given all others; return whether any changed.

        See `gptq._coordinate_descent`. Here each column has the value at which its error would be
        least, and moves of earlier columns change it by their share of the Hessian's diagonal.
        """
        changed = torch.zeros((), dtype=torch.bool, device=self._device)
        for begin in range(0, batch.columns, BLOCK):
            end = min(begin + BLOCK, batch.columns)
            block = self._block(end - begin, batch)
            before = batch.codes[begin:end]
            groups = batch.grid[begin // NF4_GROUP : -(-end // NF4_GROUP)]
            block.scale.view(len(groups), -1, *groups.shape[1:]).copy_(groups.unsqueeze(1))
            torch.mul(levels(before), block.scale, out=block.value)
            for place, hessian in enumerate(batch.hessians):
                torch.mm(hessian[begin:end], batch.change[:, place], out=block.pull)
                down = batch.downward[place, begin:end]
                block.spread[:, :, place].copy_(hessian[begin:end, begin:end] / down)
                block.given[:, place].copy_(block.pull / down.unsqueeze(1))
            torch.sub(block.value, block.given, out=block.given)
            self._run(block, descends=True)
            changed |= (block.codes != before).any()
            before.copy_(block.codes)
            torch.addcmul(
                batch.target[begin:end],
                levels(block.codes),
                block.scale,
                value=-1,
                out=batch.change[begin:end],
            )
        return bool(changed)

    def _block(self, width: int, batch: _Batch) -> _ColumnBlock:
        """Return the buffers for a block, and make them the last to be freed."""
        shape = (width, batch.count, batch.rows)
        if shape not in self._blocks:
            while len(self._blocks) >= _SHAPES:
                _, oldest = self._blocks.popitem(last=False)
                if self.graphs is not None:
                    self.graphs.forget(oldest.gptq)
                    self.graphs.forget(oldest.descent)
            self._blocks[shape] = _ColumnBlock(*shape, self._device)
        self._blocks.move_to_end(shape)
        return self._blocks[shape]

    def _run(self, block: _ColumnBlock, *, descends: bool) -> Tensor:
        """Return the errors of a block's columns; a repeated block runs as a graph."""
        work = block.descent if descends else block.gptq
        if self.graphs is None or self.graphs.trouble:
            return work.run()
        # The key must not refer to the block, or graphs would keep it and its buffers for ever.
        errors = self.graphs.run(work, len(block.given), work.run)
        # A graph that is not right has written into the buffers before it was found out.
        return work.run() if self.graphs.trouble else errors


class _Batch:
    """Matrices that are rounded together.

    target   [columns, matrices, rows] the weights, so that one column is contiguous
    grid     [groups, matrices, rows] scales as readers will see them, none of them zero
    codes    [columns, matrices, rows] uint8
    change   [columns, matrices, rows] the weights minus their rounded values
    factors  of the inverse Hessians, [columns, columns] in the order of rounding
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.rows, self.columns = shape
        self._device = device
        self._problems: list[Problem] = []
        self._importances: list[Tensor] = []
        self._scales: list[Tensor] = []
        self._read: list[Tensor] = []
        self.orders: list[Tensor] = []
        self.factors: list[Tensor] = []
        self.hessians: list[Tensor] = []

    @property
    def count(self) -> int:
        return len(self._problems)

    def add(self, problem: Problem, how: Calibration) -> None:
        """Add a matrix. Raises ArithmeticError if its Hessian can't be used."""
        importance, order, factor = prepare(problem.hessian(), problem.inputs, how)
        if factor is not None:
            factor /= factor.diagonal().clone().unsqueeze(1)
            self.factors.append(factor)
        self.orders.append(order)
        self._problems.append(problem)
        self._importances.append(importance)

    def join(self, how: Calibration) -> None:
        """Search the scales of all matrices, after the last one was added."""
        weights = torch.stack([problem.weight for problem in self._problems])
        self._scales = list(search_scales(weights, torch.stack(self._importances), how))
        self._read = [as_read(each, double_quant=how.double_quant) for each in self._scales]
        del weights
        self.grid = safe_scales(torch.stack([read.t() for read in self._read], dim=1))
        shape = (self.columns, self.count, self.rows)
        self.codes = torch.empty(shape, dtype=torch.uint8, device=self._device)

    def in_order(self) -> Tensor:
        """Return the columns of all matrices in their order of rounding."""
        pairs = zip(self._problems, self.orders, strict=True)
        return torch.stack([p.weight.index_select(1, order).t() for p, order in pairs], dim=1)

    def round_to_nearest(self) -> None:
        """Choose the nearest codes."""
        weights = torch.stack([problem.weight.t() for problem in self._problems], dim=1)
        self.codes.copy_(nearest_codes(weights, self._expanded()))

    def use_hessians(self, how: Calibration) -> None:
        """Read the Hessians again, and prepare what a descent needs."""
        self.hessians = [damp(p.hessian(), p.inputs, how.damping) for p in self._problems]
        # Where a column falls: the gradient's sign is turned by the negative diagonal.
        self.downward = -torch.stack([hessian.diagonal() for hessian in self.hessians])
        self.target = torch.stack([problem.weight.t() for problem in self._problems], dim=1)
        self.change = self.target - levels(self.codes) * self._expanded()

    def result(self, place: int) -> RoundedMatrix:
        """Return one of the rounded matrices."""
        codes = self.codes[:, place].t().contiguous()
        values = levels(codes) * self._read[place].repeat_interleave(NF4_GROUP, dim=1)
        return RoundedMatrix(codes=codes, scales=self._scales[place], values=values)

    def _expanded(self) -> Tensor:
        return self.grid.repeat_interleave(NF4_GROUP, dim=0)


class _ColumnBlock:
    """Fixed buffers for the columns of a block, and the steps that choose their codes.

    given   [columns, matrices, rows] what is rounded
    value   the same; a descent's values before it
    scale   the same
    codes   the same, int32
    errors  the same: what rounding leaves
    spread  [columns, columns, matrices] share of a column's error that the later ones take
    pull    [columns, rows] of one matrix
    """

    def __init__(self, width: int, count: int, rows: int, device: torch.device) -> None:
        def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.given, self.value, self.scale, self.errors, self._wanted = (
            buffer(width, count, rows) for _ in range(5)
        )
        self.codes = buffer(width, count, rows, dtype=torch.int32)
        self.spread = buffer(width, width, count)
        self.pull = buffer(width, rows)
        self._ratio, self._level = buffer(count, rows), buffer(count * rows)
        self._tables = level_tables(device)
        self._places = self.codes.view(width, -1)
        self._level_of_row = self._level.view(count, rows)
        # Views are made once: each takes about as long as starting an operation.
        self._columns = list(
            zip(self._wanted, self.value, self.scale, self.codes, self._places, self.errors,
                strict=True)
        )  # fmt: skip
        self._later = [
            (self._wanted[column:], self.spread[column - 1, column:].unsqueeze(2))
            for column in range(1, width)
        ]
        self.gptq = _Steps(partial(self._run, descends=False))
        self.descent = _Steps(partial(self._run, descends=True))

    def _run(self, *, descends: bool) -> Tensor:
        """Choose the codes of the columns one after another; return the errors.

        The error of a column is what was wanted minus what it became. In a descent it is the old
        value minus the new one: the move that later columns react to.
        """
        self._wanted.copy_(self.given)  # so that a graph may run again on the same input
        for number, (wanted, value, scale, code, place, error) in enumerate(self._columns):
            # 1  The nearest level of the column.
            torch.div(wanted, scale, out=self._ratio)
            torch.bucketize(self._ratio, self._tables.between, out_int32=True, out=code)
            torch.index_select(self._tables.levels, 0, place, out=self._level)
            # 2  Its error, and the shares of the later columns.
            before = value if descends else wanted
            torch.addcmul(before, self._level_of_row, scale, value=-1, out=error)
            if number < len(self._later):
                later, shares = self._later[number]
                later.addcmul_(shares, error, value=-1)
        return self.errors.clone()  # a graph is checked by comparing its result


@dataclass(frozen=True, eq=False)
class _Steps:
    """The steps of one method on the buffers of a block: what a graph belongs to."""

    run: Callable[[], Tensor]
