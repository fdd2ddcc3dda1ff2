"""Round one matrix to NF4 so that its outputs, not its weights, change least.

The result is plain NF4: the same codes, groups and scales that every reader knows; only their
values differ from round to nearest. Three steps, each of which was measured to help
(docs/quantization.md):

1  a scale for each group, searched with both signs: the 16 levels are not symmetric, so a negative
   scale offers another grid, and every reader multiplies by it all the same;
2  error compensation column by column, the most important columns first: what rounding a column
   does to the output is taken back by the columns still to come (GPTQ, arXiv 2210.17323);
3  passes of coordinate descent over the codes: each code is chosen again, given all others.

The measure is the squared error of the outputs, tr(D H D^T) for a change D of the weights and the
inputs' second moment H, [in, in].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, expand_scales, nest_scales
from cogvlm2_lite.weights.names import NF4_GROUP

_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of the largest magnitude of a group that are tried as its scale."""
_REFITS = 2
_BLOCK = 128
"""Columns whose updates of the rest are gathered into one product."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a matrix is rounded; the defaults were chosen by measurement.

    damping  added to the diagonal of the second moment, as a share of its mean: at least this, and
             more where there are few inputs for the width (see `damp`)
    descents passes of coordinate descent after the compensation
    """

    signed: bool = True
    search: bool = True
    compensate: bool = True
    ordered: bool = True
    descents: int = 4
    damping: float = 0.01
    double_quant: bool = True


@dataclass(frozen=True, kw_only=True)
class RoundedMatrix:
    """A matrix on the NF4 grid.

    codes   [rows, columns] uint8, 0 to 15
    scales  [rows, columns / 64] float32, before double quantization; some may be negative
    values  [rows, columns] float32, what readers will see
    """

    codes: Tensor
    scales: Tensor
    values: Tensor


def round_matrix(
    weight: Tensor, moment: Tensor, inputs: int, how: Calibration | None = None
) -> RoundedMatrix:
    """Round a matrix for the inputs it meets.

    weight  [rows, columns] floating, columns a multiple of 64
    moment  [columns, columns] float32: the mean of x x^T over its inputs
    inputs  how many inputs the mean was taken over
    Raises ArithmeticError when the moment is not finite or cannot be inverted; round to nearest
    is right then.
    """
    how = how or Calibration()
    weight = weight.float()
    damped = damp(moment, inputs, how.damping)
    scales = search_scales(weight, damped.diagonal(), how)
    read = as_read(scales, double_quant=how.double_quant)
    grid = read.repeat_interleave(NF4_GROUP, dim=1)
    if how.compensate:
        codes = _compensate(weight, damped, grid, ordered=how.ordered)
    else:
        codes = nearest_codes(weight, grid)
    for _ in range(how.descents):
        changed = _descend(weight, damped, grid, codes)
        if not changed:
            break
    return RoundedMatrix(codes=codes, scales=scales, values=levels(codes) * grid)


def round_to_nearest(weight: Tensor, *, double_quant: bool) -> RoundedMatrix:
    """Round a matrix as plain NF4 does."""
    weight = weight.float()
    scales = weight.view(weight.shape[0], -1, NF4_GROUP).abs().amax(dim=2)
    grid = as_read(scales, double_quant=double_quant)
    codes = nearest_codes(weight, scales.repeat_interleave(NF4_GROUP, dim=1))
    values = levels(codes) * grid.repeat_interleave(NF4_GROUP, dim=1)
    return RoundedMatrix(codes=codes, scales=scales, values=values)


def output_error(change: Tensor, moment: Tensor) -> float:
    """Give the mean squared output of a change of the weights, summed over the outputs.

    change [rows, columns], moment [columns, columns]
    """
    return float(((change @ moment) * change).sum(dtype=torch.float64))


def damp(moment: Tensor, inputs: int, least: float) -> Tensor:
    """Make a second moment safe to invert, the more the fewer inputs it was made from.

    With as many inputs as columns a moment is mostly noise off its diagonal; measured, the best
    share of the mean is about a quarter of columns / inputs. Columns that never had an input get
    the mean. Raises ArithmeticError for one that is not finite or all zero.
    """
    columns = moment.shape[0]
    mean = float(moment.diagonal().mean())
    if not torch.isfinite(moment).all() or not mean > 0:
        raise ArithmeticError("the inputs' second moment is not finite or all zero")
    share = max(least, 0.25 * columns / max(inputs, 1))
    damped = moment.float().clone()
    diagonal = damped.diagonal()
    diagonal += share * mean
    return damped


# --- levels and codes -----------------------------------------------------------------------------


def levels(codes: Tensor) -> Tensor:
    """Look up the levels of codes, float32."""
    return torch.tensor(NF4_LEVELS, device=codes.device)[codes.to(torch.int32)]


def nearest_codes(weight: Tensor, grid: Tensor) -> Tensor:
    """Give the code of the nearest level of each weight, uint8.

    weight, grid  of one shape; grid holds each weight's scale, which may be negative or zero
    """
    known = torch.tensor(NF4_LEVELS, device=weight.device)
    safe = torch.where(grid.abs() < _TINY, torch.full_like(grid, _TINY), grid)
    codes: Tensor = torch.bucketize(weight / safe, (known[1:] + known[:-1]) / 2)
    return codes.to(torch.uint8)


def as_read(scales: Tensor, *, double_quant: bool) -> Tensor:
    """Give scales as a reader will see them, after double quantization if there is any."""
    if not double_quant:
        return scales
    nested = nest_scales(scales.flatten().cpu())
    read = expand_scales(
        nested.absmax, nested.nested_absmax, nested.nested_map, nested.nested_offset
    )
    return read.view(scales.shape).to(scales.device)


# --- the three steps ------------------------------------------------------------------------------


def search_scales(weight: Tensor, importance: Tensor, how: Calibration) -> Tensor:
    """Find the scale of each group that rounds it best, weighted by its columns' importance.

    weight [rows, columns] float32, importance [columns]; returns [rows, columns / 64] float32
    """
    rows, columns = weight.shape
    groups = weight.view(rows, -1, NF4_GROUP)
    heavy = importance.view(1, columns // NF4_GROUP, NF4_GROUP)
    largest = groups.abs().amax(dim=2)
    if not how.search:
        return largest
    best, least = largest, torch.full_like(largest, float("inf"))
    for sign in (1.0, -1.0) if how.signed else (1.0,):
        for share in _SHRINK:
            scale = sign * share * largest
            for _ in range(_REFITS + 1):
                found = levels(nearest_codes(groups, scale.unsqueeze(2).expand_as(groups)))
                error = (heavy * (groups - found * scale.unsqueeze(2)).square()).sum(dim=2)
                better = error < least
                best, least = torch.where(better, scale, best), torch.where(better, error, least)
                top = (heavy * groups * found).sum(dim=2)
                scale = top / (heavy * found.square()).sum(dim=2).clamp(min=_TINY)
    return best


def _compensate(weight: Tensor, moment: Tensor, grid: Tensor, *, ordered: bool) -> Tensor:
    """Round column after column; each one's error is spread over those still to come."""
    columns = weight.shape[1]
    order = torch.arange(columns, device=weight.device)
    if ordered:
        order = moment.diagonal().argsort(descending=True, stable=True)
    factor = _inverse_factor(moment[order][:, order])
    rest, scales = weight[:, order].clone(), grid[:, order]
    codes = torch.empty_like(rest, dtype=torch.uint8)
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        errors = torch.empty_like(rest[:, begin:end])
        for column in range(begin, end):
            now, scale = rest[:, column], scales[:, column]
            code = nearest_codes(now, scale)
            error = (now - levels(code) * scale) / factor[column, column]
            codes[:, column], errors[:, column - begin] = code, error
            rest[:, column:end] -= error.unsqueeze(1) * factor[column, column:end].unsqueeze(0)
        rest[:, end:] -= errors @ factor[begin:end, end:]
    back = torch.empty_like(codes)
    back[:, order] = codes
    return back


def _inverse_factor(moment: Tensor) -> Tensor:
    """Give the upper Cholesky factor of the inverse. Raises ArithmeticError if there is none."""
    lower, failed = torch.linalg.cholesky_ex(moment)
    if failed:
        raise ArithmeticError("the inputs' second moment can't be inverted")
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if failed or not torch.isfinite(factor).all():
        raise ArithmeticError("the inverse of the inputs' second moment has no square root")
    return factor


def _descend(weight: Tensor, moment: Tensor, grid: Tensor, codes: Tensor) -> bool:
    """Choose every code again, column after column, given all others; say if any changed.

    codes  changed in place. The error never grows: each column goes to the minimum of a parabola,
           rounded to the grid.
    """
    columns = weight.shape[1]
    pull = (weight - levels(codes) * grid) @ moment  # [rows, columns]
    any_changed = False
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        moves = torch.zeros_like(pull[:, begin:end])
        for column in range(begin, end):
            scale, code = grid[:, column], codes[:, column]
            value = levels(code) * scale
            better = nearest_codes(value + pull[:, column] / moment[column, column], scale)
            move = levels(better) * scale - value
            codes[:, column], moves[:, column - begin] = better, move
            pull[:, begin:end] -= move.unsqueeze(1) * moment[column, begin:end].unsqueeze(0)
        if moves.any():
            any_changed = True
            left = torch.cat((moment[begin:end, :begin], moment[begin:end, end:]), dim=1)
            update = moves @ left
            pull[:, :begin] -= update[:, :begin]
            pull[:, end:] -= update[:, begin:]
    return any_changed
