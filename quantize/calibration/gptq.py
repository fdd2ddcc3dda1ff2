"""Round one matrix to NF4 so that its outputs, not its weights, change least.

The result is plain NF4: the same codes, groups and scales that every reader knows; only their
values differ from round to nearest. Three steps, each of which was measured to help
(docs/quantization.md):

1  a scale for each group, searched with both signs: the 16 levels are not symmetric, so a negative
   scale offers another grid, and every reader multiplies by it all the same;
2  error compensation column by column, the most important columns first: what rounding a column
   does to the output is taken back by the columns still to come (GPTQ, arXiv 2210.17323);
3  passes of coordinate descent over the codes: each code is chosen again, given all others.

The measure is the squared error of the outputs, tr(D H D^T) for a change D of the weights. H, [in,
in], is the mean of x x^T over the inputs: up to a factor of 2 the Hessian of that error, and called
so in the literature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from cogvlm2_lite.weights.catalog import NF4_GROUP
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, expand_scales, nest_scales

_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of the largest magnitude of a group that are tried as its scale."""
_REFITS = 2
_BLOCK = 128
"""Columns whose updates of the rest are gathered into one product."""
_WIDE = 512
"""Rows of a square matrix that are moved or inverted at a time."""
_INPUTS = 1024
"""Inputs that an error is measured on at a time."""
_CELLS = 64
"""In which -1 to 1 is cut to find a level."""
_SEARCHED = 2**18
"""Weights whose scales are searched at a time: what is made of them stays in a core's cache."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a matrix is rounded; the defaults were chosen by measurement.

    damping  added to the diagonal of the Hessian, as a share of its mean: at least this, and
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
    weight: Tensor, hessian: Callable[[], Tensor], inputs: int, how: Calibration | None = None
) -> RoundedMatrix:
    """Round a matrix for the inputs it meets.

    weight  [rows, columns] floating, columns a multiple of 64
    hessian  gives [columns, columns] float32: the mean of x x^T over its inputs. At 15,360 columns
            it takes 0.9 GB, so it is asked for twice and not held while its factor is computed
    inputs  how many inputs the mean was taken over
    Raises ArithmeticError when the Hessian is not finite or cannot be inverted; round to nearest
    is right then.
    """
    how = how or Calibration()
    weight = weight.float()
    # 1  What the inputs say: which columns matter, and how the error of one spreads to others.
    importance, order, factor = _prepare(hessian(), inputs, how)
    # 2  A scale for each group. They are fixed before any code, because readers share one scale
    #    among 64 weights and double quantization changes it once more.
    scales = search_scales(weight, importance, how)
    # 3  Codes. From here on columns lie as rows, so that the work on one column reads memory in
    #    order.
    target = weight.t().contiguous()
    grid = as_read(scales, double_quant=how.double_quant).t().repeat_interleave(NF4_GROUP, dim=0)
    if factor is not None:
        codes = _gptq(target, factor, grid, order)
        del factor
    else:
        codes = nearest_codes(target, grid)
    # 4  GPTQ decides each code once, before it knows the later ones; go over all of them again.
    #    The Hessian is asked for anew: damping changes it in place, and the factor took its room.
    if how.descents:
        damped = damp(hessian(), inputs, how.damping)
        for _ in range(how.descents):
            if not _coordinate_descent(target, damped, grid, codes):
                break
    values = (levels(codes) * grid).t().contiguous()
    return RoundedMatrix(codes=codes.t().contiguous(), scales=scales, values=values)


def round_to_nearest(weight: Tensor, *, double_quant: bool) -> RoundedMatrix:
    """Return a matrix rounded as plain NF4 does."""
    weight = weight.float()
    scales = weight.view(weight.shape[0], -1, NF4_GROUP).abs().amax(dim=2)
    grid = as_read(scales, double_quant=double_quant)
    codes = nearest_codes(weight, scales.repeat_interleave(NF4_GROUP, dim=1))
    values = levels(codes) * grid.repeat_interleave(NF4_GROUP, dim=1)
    return RoundedMatrix(codes=codes, scales=scales, values=values)


def output_error(change: Tensor, inputs: Tensor) -> float:
    """Return the mean squared output of a change of the weights, summed over the outputs.

    change [rows, columns], inputs [count, columns]; 0 without inputs
    """
    total = 0.0
    for begin in range(0, len(inputs), _INPUTS):
        some = inputs[begin : begin + _INPUTS]
        total += float((some.float() @ change.t()).square().sum(dtype=torch.float64))
    return total / max(len(inputs), 1)


def expected_error(change: Tensor, hessian: Tensor) -> float:
    """Return the same from the inputs' Hessian [columns, columns]: tr(D H D^T)."""
    return float(((change @ hessian) * change).sum(dtype=torch.float64))


def damp(hessian: Tensor, inputs: int, least: float) -> Tensor:
    """Add to the diagonal of a Hessian so that it can be inverted; more for fewer inputs.

    With as many inputs as columns a Hessian is mostly noise off its diagonal; measured, the best
    share of the mean is about a quarter of columns / inputs. Columns that never had an input get
    the mean. Raises ArithmeticError for one that is not finite or all zero.

    hessian  [columns, columns] float32, changed in place and returned
    """
    columns = hessian.shape[0]
    mean = float(hessian.diagonal().mean())
    # The sum is finite only if all numbers are (or it overflows, which is as bad), in no memory.
    if not torch.isfinite(hessian.sum()) or not mean > 0:
        raise ArithmeticError("the inputs' Hessian is not finite or all zero")
    share = max(least, 0.25 * columns / max(inputs, 1))
    diagonal = hessian.diagonal()
    diagonal += share * mean
    return hessian


# --- levels and codes -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """Tables that find the nearest level without a search.

    levels  [16] the values of the codes
    bounds  [16] the middle between a code's level and the next; the last is infinite
    cells   [64] the code at the lower edge of each 64th of -1 to 1; no cell holds two bounds
    """

    levels: Tensor
    bounds: Tensor
    cells: Tensor


@cache
def _tables(device: torch.device) -> _Tables:
    known = torch.tensor(NF4_LEVELS)
    bounds = (known[1:] + known[:-1]) / 2
    edges = torch.arange(_CELLS) / (_CELLS // 2) - 1
    return _Tables(
        levels=known.to(device),
        bounds=torch.cat((bounds, torch.tensor([float("inf")]))).to(device),
        cells=torch.bucketize(edges, bounds).to(torch.int32).to(device),
    )


def levels(codes: Tensor) -> Tensor:
    """Return the levels of codes, float32."""
    return _look_up(_tables(codes.device).levels, codes.to(torch.int32))


def nearest_codes(weight: Tensor, grid: Tensor) -> Tensor:
    """Return the code of the nearest level of each weight, uint8.

    weight, grid  of one shape; grid holds each weight's scale, which may be negative or zero
    """
    return _nearest(weight, _safe(grid)).to(torch.uint8)


def _safe(grid: Tensor) -> Tensor:
    """Return scales that can be divided by: those near zero become tiny ones."""
    return torch.where(grid.abs() < _TINY, torch.full_like(grid, _TINY), grid)


def _nearest(weight: Tensor, grid: Tensor) -> Tensor:
    """Return the nearest codes, int32; no scale is zero. A tie goes to the lower level."""
    tables, half = _tables(weight.device), _CELLS // 2
    ratio = weight / grid
    # The cell of 64 that the ratio lies in narrows it down to two levels; one comparison decides.
    cell = (ratio * half).add_(half).clamp_(0, _CELLS - 1).to(torch.int32)
    low = _look_up(tables.cells, cell)
    return low.add_(ratio > _look_up(tables.bounds, low))


def _look_up(table: Tensor, places: Tensor) -> Tensor:
    """Return table[places]; indexing as such is five times slower (2.5 and 0.5 ns a number)."""
    return table.index_select(0, places.flatten()).view(places.shape)


def as_read(scales: Tensor, *, double_quant: bool) -> Tensor:
    """Return scales as a reader will see them, after double quantization if there is any."""
    if not double_quant:
        return scales
    nested = nest_scales(scales.flatten().cpu())
    read = expand_scales(
        nested.absmax, nested.nested_absmax, nested.nested_map, nested.nested_offset
    )
    return read.view(scales.shape).to(scales.device)


# --- the three steps ------------------------------------------------------------------------------


def search_scales(weight: Tensor, importance: Tensor, how: Calibration) -> Tensor:
    """Return the scale of each group that rounds it best, weighted by its columns' importance.

    weight [rows, columns] float32, importance [columns]; returns [rows, columns / 64] float32
    """
    heavy = importance.view(1, -1, NF4_GROUP)
    step = max(_SEARCHED // weight.shape[1], 1)
    places = range(0, len(weight), step)
    return torch.cat([_search_rows(weight[n : n + step], heavy, how) for n in places])


def _search_rows(weight: Tensor, heavy: Tensor, how: Calibration) -> Tensor:
    """Return the scales of some rows; heavy [1, groups, 64].

    Starting scales of several sizes and both signs, and from each a few rounds of: choose the
    nearest codes, then the scale that fits these codes best. Neither step raises the error, but
    where they end depends on the start, hence several.
    """
    groups = weight.view(len(weight), -1, NF4_GROUP)
    largest = groups.abs().amax(dim=2)
    if not how.search:
        return largest
    weighted = heavy * groups
    best, least = largest, torch.full_like(largest, float("inf"))
    for sign in (1.0, -1.0) if how.signed else (1.0,):
        for share in _SHRINK:
            scale = sign * share * largest
            for _ in range(_REFITS + 1):
                found = levels(_nearest(groups, _safe(scale).unsqueeze(2)))
                # heavy * (groups - found * scale)^2, multiplied out but for what never changes.
                top = (weighted * found).sum(dim=2)
                bottom = (heavy * found.square()).sum(dim=2)
                error = scale * (scale * bottom - 2 * top)
                better = error < least
                # The scale of least squares for these codes is the start of the next round.
                best, least = torch.where(better, scale, best), torch.where(better, error, least)
                scale = top / bottom.clamp(min=_TINY)
    return best


def _prepare(
    hessian: Tensor, inputs: int, how: Calibration
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each column's importance, the order in which columns are rounded, and the factor that
    spreads their errors (None without GPTQ)."""
    damped = damp(hessian, inputs, how.damping)
    importance = damped.diagonal().clone()
    order = torch.arange(len(damped), device=damped.device)
    if not how.compensate:
        return importance, order, None
    if how.ordered:
        order = importance.argsort(descending=True, stable=True)
    return importance, order, _inverse_factor(damped, order)


def _inverse_factor(hessian: Tensor, order: Tensor) -> Tensor:
    """Return the upper U with U^T U = the inverse of hessian[order][:, order].

    Flipped in both directions, the Hessian is L L^T; flipped back, L is upper, and U is its
    inverse. So one factorisation and one triangular inverse do, in two matrices' memory. Raises
    ArithmeticError if there is none.
    """
    # 1  Reorder and flip, some rows at a time: advanced indexing of all would take a third matrix.
    back = order.flip(0)
    turned = torch.empty_like(hessian)
    for begin in range(0, len(back), _WIDE):
        turned[begin : begin + _WIDE] = hessian[back[begin : begin + _WIDE]][:, back]
    # 2  L, the Cholesky factor.
    lower, failed = torch.linalg.cholesky_ex(turned)
    if failed:
        raise ArithmeticError("the inputs' Hessian can't be inverted")
    del turned
    # 3  Its inverse, which is U when it is flipped back.
    _invert_lower(lower)
    if not torch.isfinite(lower.sum()):
        raise ArithmeticError("the inverse of the inputs' Hessian has no square root")
    factor: Tensor = lower.flip(0, 1)
    return factor


def _invert_lower(lower: Tensor) -> None:
    """Turn a lower triangular matrix into its inverse, in place.

    By halves: the inverse of [[A, 0], [B, C]] is [[A', 0], [-C' B A', C']].
    """
    size = len(lower)
    if size <= _WIDE:
        eye = torch.eye(size, device=lower.device)
        lower.copy_(torch.linalg.solve_triangular(lower.clone(), eye, upper=False))
        return
    half = size // 2
    above, left, below = lower[:half, :half], lower[half:, :half], lower[half:, half:]
    _invert_lower(above)
    _invert_lower(below)
    left.copy_(below @ (left @ above)).neg_()


def _gptq(target: Tensor, factor: Tensor, grid: Tensor, order: Tensor) -> Tensor:
    """Return codes chosen by GPTQ: column after column, each one's error spread over later ones.

    Rounding column j leaves an error e. Among all changes of the columns still to come, the one
    that takes back most of what e does to the outputs is -e / U[j, j] * U[j, later], where U is the
    factor of the inverse Hessian. Columns go in blocks of 128: within a block each error is spread
    at once, and over the columns behind it all errors of the block in one product, which is what
    makes the work fast.

    target, grid  [columns, rows]; factor [columns, columns] in the order of rounding
    Returns codes [columns, rows] uint8
    """
    columns = len(target)
    rest, scales = target[order], _safe(grid[order])
    codes = torch.empty_like(rest, dtype=torch.uint8)
    errors = torch.empty_like(rest[:_BLOCK])
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        for column in range(begin, end):
            now, scale, spread = rest[column], scales[column], factor[column]
            # 1  Round what the column has become through the errors before it.
            code = _nearest(now, scale)
            codes[column] = code
            # 2  Its error, divided by U[j, j] so that the row of U can be used as it is.
            error = errors[column - begin]
            torch.sub(now, levels(code) * scale, out=error)
            error /= spread[column]
            # 3  Spread it over the rest of the block.
            rest[column + 1 : end].addr_(spread[column + 1 : end], error, alpha=-1)
        # 4  Spread the errors of the whole block over all columns behind it.
        rest[end:].addmm_(factor[begin:end, end:].t(), errors[: end - begin], alpha=-1)
    # 5  Back from the order of rounding to the order of columns.
    back = torch.empty_like(codes)
    back[order] = codes
    return back


def _coordinate_descent(target: Tensor, hessian: Tensor, grid: Tensor, codes: Tensor) -> bool:
    """Choose every code again, column after column, given all others; return if any changed.

    target, grid  [columns, rows]
    codes         [columns, rows], changed in place. The error never grows: each column goes to the
                  minimum of a parabola, rounded to the grid.
    """
    columns, changed = len(target), False
    grid = _safe(grid)
    change = target - levels(codes) * grid
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        # 1  The gradient of the error for the block's columns, [columns of the block, rows].
        pull = hessian[begin:end] @ change
        for column in range(begin, end):
            scale, left = grid[column], change[column]
            value = target[column] - left
            # 2  With all other columns fixed the error is a parabola; round its minimum.
            wanted = value + pull[column - begin] / hessian[column, column]
            code = _nearest(wanted, scale)
            better = target[column] - levels(code) * scale
            move = left - better
            codes[column], change[column] = code, better
            # 3  Update the gradient of the block's later columns; other blocks compute theirs anew.
            later = hessian[column, column + 1 : end]
            pull[column - begin + 1 :].addr_(later, move, alpha=-1)
            changed = changed or bool(move.any())
    return changed
