"""Round one matrix to NF4 so that its outputs, not its weights, change least.

The result is plain NF4, with the codes, groups and scales that every reader knows; only their
values differ from round to nearest. There are three steps, and measurements show that each one
helps (docs/quantization.md):

1  A scale for each group is searched, with both signs: the 16 levels are not symmetric, so a
   negative scale gives another grid, and every reader multiplies by it in the same way.
2  GPTQ (arXiv 2210.17323) rounds column by column, the most important columns first. The columns
   that are not rounded yet are changed to cancel the error at the outputs.
3  Passes of coordinate descent choose every code again, given all others.

The error that is minimised is the mean squared error of the outputs, tr(D H D^T) for a change D of
the weights. H, [in, in], is the mean of x x^T over the inputs x: up to a factor of 2 the Hessian of
that error, and called so in the literature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.weights.catalog import NF4_GROUP
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, expand_scales, nest_scales
from quantize.recipe import DEFAULT_TOKEN_WEIGHTS

_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of the largest magnitude of a group that are tried as its scale."""
_REFITS = 2
"""Least-squares updates of a scale from each start."""
BLOCK = 128
"""Columns whose errors reach the later columns in one product (the paper's lazy batch)."""
_WIDE = 512
"""Rows of a square matrix that are moved or inverted at a time."""
_INPUTS = 1024
"""Inputs whose output errors are computed at a time."""
_CELLS = 64
"""Intervals between -1 and 1 in the table that finds a level."""
SEARCHED = 2**18
"""Weights whose scales are searched at a time: the intermediate tensors stay in a core's cache."""
SEARCHED_FEW_LAUNCHES = 2**24
"""The same where an operation takes long to start: the intermediate tensors take 0.5 GiB."""
_TINY = 1e-12

ORIGINAL, ROUNDED = "original", "rounded"
"""Whose outputs a matrix should reproduce, see `Calibration`."""
_TARGET_DAMPING = 0.05
"""Least damping of the Hessian where it shifts a matrix towards the original's outputs."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a matrix is rounded; the defaults were chosen by measurement.

    signed    also try negative scales
    search    search the scale of each group; otherwise it is the largest magnitude
    gptq      spread each column's error over the columns that are not rounded yet
    ordered   GPTQ takes the most important columns first
    descents  passes of coordinate descent after GPTQ
    damping   added to the diagonal of the Hessian, as a share of its mean: at least this much, and
              more if there are few inputs for the width (see `damp`)
    targets   what the outputs should be: ORIGINAL, those of the original network, or ROUNDED, those
              of the unrounded matrix on inputs of the rounded network
    token_weights  UNIFORM, or BY_GRADIENT (`token_weights.py`), for the targets ORIGINAL
    """

    signed: bool = True
    search: bool = True
    gptq: bool = True
    ordered: bool = True
    descents: int = 4
    damping: float = 0.01
    double_quant: bool = True
    targets: str = ORIGINAL
    token_weights: str = DEFAULT_TOKEN_WEIGHTS

    @property
    def identity(self) -> str:
        """The text by which a working folder recognises these options.

        `gptq` was called `compensate` once, and folders of that time stay valid.
        """
        return repr(self).replace("gptq=", "compensate=")


@dataclass(frozen=True, kw_only=True)
class RoundedMatrix:
    """A matrix on the NF4 grid.

    codes   [rows, columns] uint8, 0 to 15
    scales  [rows, columns / 64] float32, before double quantization; some may be negative
    values  [rows, columns] float32, dequantized as readers will
    """

    codes: Tensor
    scales: Tensor
    values: Tensor


def round_matrix(
    weight: Tensor, hessian: Callable[[], Tensor], inputs: int, how: Calibration | None = None
) -> RoundedMatrix:
    """Return a matrix rounded for its inputs.

    weight  [rows, columns] floating, columns a multiple of 64
    hessian  returns the mean of x x^T over its inputs, [columns, columns] float32. At 15,360
            columns it takes 0.9 GB, so it is read twice and not held while its factor is computed
    inputs  number of inputs in that mean
    Raises ArithmeticError if the Hessian is not finite or cannot be inverted; use round to nearest
    then.
    """
    how = how or Calibration()
    weight = weight.float()
    # 1  From the Hessian: the importance of each column (its diagonal), the order in which GPTQ
    #    rounds columns, and the factor of its inverse that spreads errors over later columns.
    importance, order, factor = prepare(hessian(), inputs, how)
    # 2  A scale for each group of 64 weights in a row. Scales come before codes: GPTQ rounds the
    #    columns of a group one after another, in any order, and all of them use one scale.
    scales = search_scales(weight, importance, how)
    # 3  The codes. The matrix is transposed from here on, so that one column is contiguous in
    #    memory. The grid holds the scales as readers will see them, after double quantization.
    target = weight.t().contiguous()
    grid = as_read(scales, double_quant=how.double_quant).t().repeat_interleave(NF4_GROUP, dim=0)
    if factor is not None:
        codes = _gptq(target, factor, grid, order)
        del factor
    else:
        codes = nearest_codes(target, grid)
    # 4  GPTQ chooses each code before it knows the later ones, so choose all of them again. The
    #    Hessian is read again, because step 1 overwrote it.
    if how.descents:
        damped = damp(hessian(), inputs, how.damping)
        for _ in range(how.descents):
            if not _coordinate_descent(target, damped, grid, codes):
                break
    values = (levels(codes) * grid).t().contiguous()
    return RoundedMatrix(codes=codes.t().contiguous(), scales=scales, values=values)


def round_to_nearest(weight: Tensor, *, double_quant: bool) -> RoundedMatrix:
    """Return a matrix rounded to nearest, as plain NF4 is."""
    weight = weight.float()
    scales = weight.view(weight.shape[0], -1, NF4_GROUP).abs().amax(dim=2)
    grid = as_read(scales, double_quant=double_quant)
    codes = nearest_codes(weight, scales.repeat_interleave(NF4_GROUP, dim=1))
    values = levels(codes) * grid.repeat_interleave(NF4_GROUP, dim=1)
    return RoundedMatrix(codes=codes, scales=scales, values=values)


def shifted(
    weight: Tensor, shift: Callable[[], Tensor], hessian: Callable[[], Tensor], inputs: int
) -> Tensor:
    """Return the matrix whose outputs on the rounded network's inputs x are those of the original.

    Before this matrix, the rounded network has left the original by f - x. The least-squares matrix
    for W f is W' = W + W C (H + d I)^-1, where C is the mean of (f - x) x^T and H that of x x^T.

    weight   [rows, columns] float32
    shift, hessian  return C and H, [columns, columns] float32 each, as new copies
    inputs   number of inputs in the means
    Raises ArithmeticError if H can't be inverted.
    """
    moved = shift()
    if not moved.any():  # nothing before it was rounded
        return weight
    pulled = weight @ moved
    del moved
    lower, failed = torch.linalg.cholesky_ex(damp(hessian(), inputs, _TARGET_DAMPING))
    if failed:
        raise ArithmeticError("the inputs' Hessian can't be inverted")
    found = torch.cholesky_solve(pulled.t(), lower).t() + weight
    if not torch.isfinite(found.sum()):
        raise ArithmeticError("the inputs' Hessian can't be inverted")
    return found.contiguous()


def output_error(change: Tensor, inputs: Tensor) -> float:
    """Return the mean squared output of a change of the weights, summed over the outputs.

    change [rows, columns], inputs [count, columns]. Returns 0 without inputs.
    """
    total = 0.0
    for begin in range(0, len(inputs), _INPUTS):
        some = inputs[begin : begin + _INPUTS]
        total += float((some.float() @ change.t()).square().sum(dtype=torch.float64))
    return total / max(len(inputs), 1)


def distance(values: Tensor, inputs: Tensor, wanted: Tensor) -> float:
    """Return the mean squared distance of a matrix's outputs from others, summed over the outputs.

    values [rows, columns], inputs [count, columns], wanted [count, rows]
    """
    total = 0.0
    for begin in range(0, len(inputs), _INPUTS):
        some = slice(begin, begin + _INPUTS)
        apart = inputs[some].float() @ values.t() - wanted[some]
        total += float(apart.square().sum(dtype=torch.float64))
    return total / max(len(inputs), 1)


def expected_error(change: Tensor, hessian: Tensor) -> float:
    """Return the same error from the inputs' Hessian [columns, columns]: tr(D H D^T)."""
    return float(((change @ hessian) * change).sum(dtype=torch.float64))


def damp(hessian: Tensor, inputs: int, least: float) -> Tensor:
    """Add to the diagonal of a Hessian so that it can be inverted; more for fewer inputs.

    If there are only as many inputs as columns, most of a Hessian outside its diagonal is noise. In
    measurements the best addition was the mean of the diagonal times columns / inputs / 4. Raises
    ArithmeticError for a Hessian that is not finite or all zero.

    hessian  [columns, columns] float32, changed in place and returned
    """
    columns = hessian.shape[0]
    mean = float(hessian.diagonal().mean())
    # The sum is finite only if all numbers are (or it overflows, which is as bad). isfinite of the
    # whole would need memory for a mask.
    if not torch.isfinite(hessian.sum()) or not mean > 0:
        raise ArithmeticError("the inputs' Hessian is not finite or all zero")
    share = max(least, 0.25 * columns / max(inputs, 1))
    diagonal = hessian.diagonal()
    diagonal += share * mean
    return hessian


# --- levels and codes -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LevelTables:
    """Tables that find the nearest level without a search.

    levels  [16] the values of the codes
    between [15] the midpoints between a code's level and the next one
    bounds  [16] the same, and infinity
    cells   [64] the code at the lower edge of each of 64 equal intervals from -1 to 1; no interval
            contains two bounds
    few_launches  whether the device should search `between` in one operation instead
    """

    levels: Tensor
    between: Tensor
    bounds: Tensor
    cells: Tensor
    few_launches: bool


@cache
def level_tables(device: torch.device) -> LevelTables:
    """Return the tables of a device."""
    known = torch.tensor(NF4_LEVELS)
    bounds = (known[1:] + known[:-1]) / 2
    edges = torch.arange(_CELLS) / (_CELLS // 2) - 1
    return LevelTables(
        levels=known.to(device),
        between=bounds.to(device),
        bounds=torch.cat((bounds, torch.tensor([float("inf")]))).to(device),
        cells=torch.bucketize(edges, bounds).to(torch.int32).to(device),
        few_launches=backend_of(device).launches_kernels,
    )


def levels(codes: Tensor) -> Tensor:
    """Return the levels of codes, float32."""
    return _look_up(level_tables(codes.device).levels, codes.to(torch.int32))


def nearest_codes(weight: Tensor, grid: Tensor) -> Tensor:
    """Return the code of the nearest level of each weight, uint8.

    weight, grid  of one shape; grid holds each weight's scale, which may be negative or zero
    """
    return _nearest(weight, safe_scales(grid)).to(torch.uint8)


def safe_scales(grid: Tensor) -> Tensor:
    """Return scales that are safe to divide by: those near zero become 1e-12."""
    return torch.where(grid.abs() < _TINY, torch.full_like(grid, _TINY), grid)


def _nearest(weight: Tensor, grid: Tensor) -> Tensor:
    """Return the nearest codes, int32; no scale may be zero. Ties go to the lower level."""
    tables, half = level_tables(weight.device), _CELLS // 2
    ratio = weight / grid
    if tables.few_launches:
        return torch.bucketize(ratio, tables.between, out_int32=True)
    # The interval of the ratio leaves at most two levels; a comparison with their midpoint decides.
    cell = (ratio * half).add_(half).clamp_(0, _CELLS - 1).to(torch.int32)
    low = _look_up(tables.cells, cell)
    return low.add_(ratio > _look_up(tables.bounds, low))


def _look_up(table: Tensor, places: Tensor) -> Tensor:
    """Return table[places]; index_select takes 0.5 ns a number, advanced indexing 2.5 ns."""
    return table.index_select(0, places.flatten()).view(places.shape)


def as_read(scales: Tensor, *, double_quant: bool) -> Tensor:
    """Return scales as readers will see them: after double quantization, if it is used."""
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

    weight [rows, columns] float32, importance [columns]; returns [rows, columns / 64] float32. All
    three may have a dimension of several matrices in front.
    """
    heavy = importance.view(*importance.shape[:-1], 1, -1, NF4_GROUP)
    few, rows = level_tables(weight.device).few_launches, weight.shape[-2]
    step = max((SEARCHED_FEW_LAUNCHES if few else SEARCHED) // (weight.numel() // rows), 1)
    pieces = (weight[..., first : first + step, :] for first in range(0, rows, step))
    return torch.cat([_search_rows(piece, heavy, how) for piece in pieces], dim=-2)


def _search_rows(weight: Tensor, heavy: Tensor, how: Calibration) -> Tensor:
    """Return the scales of some rows; heavy [..., 1, groups, 64].

    Each start is a share of the group's largest magnitude with one of both signs. From each, two
    steps alternate: choose the nearest codes for the scale, then the scale that fits these codes
    best. Neither step raises the error, but they end in a local minimum that depends on the start;
    so several starts are tried and the best result is kept.
    """
    groups = weight.view(*weight.shape[:-1], -1, NF4_GROUP)
    largest = groups.abs().amax(dim=-1)
    if not how.search:
        return largest
    weighted = heavy * groups
    best, least = largest, torch.full_like(largest, float("inf"))
    for sign in (1.0, -1.0) if how.signed else (1.0,):
        for share in _SHRINK:
            scale = sign * share * largest
            for _ in range(_REFITS + 1):
                found = levels(_nearest(groups, safe_scales(scale).unsqueeze(-1)))
                # The error is the sum of heavy * (groups - found * scale)^2, expanded, without the
                # term heavy * groups^2, which does not depend on the scale.
                top = (weighted * found).sum(dim=-1)
                bottom = (heavy * found.square()).sum(dim=-1)
                error = scale * (scale * bottom - 2 * top)
                better = error < least
                # The least-squares scale for these codes is tried next.
                best, least = torch.where(better, scale, best), torch.where(better, error, least)
                scale = top / bottom.clamp(min=_TINY)
    return best


def prepare(hessian: Tensor, inputs: int, how: Calibration) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each column's importance, the order in which columns are rounded, and the factor that
    spreads their errors (None without GPTQ). Overwrites the Hessian."""
    damped = damp(hessian, inputs, how.damping)
    importance = damped.diagonal().clone()
    order = torch.arange(len(damped), device=damped.device)
    if not how.gptq:
        return importance, order, None
    if how.ordered:
        order = importance.argsort(descending=True, stable=True)
    return importance, order, inverse_factor(damped, order)


def inverse_factor(hessian: Tensor, order: Tensor) -> Tensor:
    """Return the upper triangular U with U^T U = the inverse of hessian[order][:, order].

    The paper takes the Cholesky factor of the inverse. Here the Hessian, flipped in both
    directions, is factored as L L^T; L flipped back is upper triangular, and U is its inverse. So
    one factorisation and one triangular inverse suffice, in the memory of two matrices. Raises
    ArithmeticError if the Hessian is not positive definite.
    """
    # 1  Reorder and flip, some rows at a time: indexing all rows at once would need a third matrix.
    back = order.flip(0)
    turned = torch.empty_like(hessian)
    for begin in range(0, len(back), _WIDE):
        turned[begin : begin + _WIDE] = hessian[back[begin : begin + _WIDE]][:, back]
    # 2  L, the Cholesky factor.
    lower, failed = torch.linalg.cholesky_ex(turned)
    if failed:
        raise ArithmeticError("the inputs' Hessian can't be inverted")
    del turned
    # 3  The inverse of L, which is U after flipping back.
    _invert_lower(lower)
    if not torch.isfinite(lower.sum()):
        raise ArithmeticError("the inverse of the inputs' Hessian has no square root")
    factor: Tensor = lower.flip(0, 1)
    return factor


def _invert_lower(lower: Tensor) -> None:
    """Turn a lower triangular matrix into its inverse, in place.

    Recursively by halves: the inverse of [[A, 0], [B, C]] is [[A', 0], [-C' B A', C']], where ' is
    the inverse. Only small blocks are solved; the rest are matrix products.
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
    """Return codes chosen by GPTQ: one column at a time, its error spread over the later columns.

    Rounding column j leaves an error e. Of all changes of the later columns, -e / U[j, j] *
    U[j, later] cancels most of the effect of e on the outputs, where U is the factor of the inverse
    Hessian. Columns are taken in blocks of 128: inside a block each error is spread immediately;
    for all columns after the block, the errors of the block are spread in one matrix product, which
    makes the work fast.

    target, grid  [columns, rows]; factor [columns, columns] in the order of rounding
    Returns codes [columns, rows] uint8
    """
    columns = len(target)
    rest, scales = target[order], safe_scales(grid[order])
    codes = torch.empty_like(rest, dtype=torch.uint8)
    errors = torch.empty_like(rest[:BLOCK])
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        for column in range(begin, end):
            now, scale, spread = rest[column], scales[column], factor[column]
            # 1  Round the column, which contains the errors spread by the columns before it.
            code = _nearest(now, scale)
            codes[column] = code
            # 2  Its error, divided by U[j, j] so that the row of U can be used as it is.
            error = errors[column - begin]
            torch.sub(now, levels(code) * scale, out=error)
            error /= spread[column]
            # 3  Spread it over the rest of the block.
            rest[column + 1 : end].addr_(spread[column + 1 : end], error, alpha=-1)
        # 4  Spread the errors of the whole block over all columns after it.
        rest[end:].addmm_(factor[begin:end, end:].t(), errors[: end - begin], alpha=-1)
    # 5  Restore the order of the columns.
    back = torch.empty_like(codes)
    back[order] = codes
    return back


def _coordinate_descent(target: Tensor, hessian: Tensor, grid: Tensor, codes: Tensor) -> bool:
    """Choose every code again, column by column, given all others; return whether any changed.

    target, grid  [columns, rows]
    codes         [columns, rows], changed in place. The error never grows: each weight moves to the
                  minimum of a parabola, rounded to the grid.
    """
    columns, changed = len(target), False
    grid = safe_scales(grid)
    change = target - levels(codes) * grid
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        # 1  The gradient of the error for the block's columns, [columns of the block, rows].
        pull = hessian[begin:end] @ change
        for column in range(begin, end):
            scale, left = grid[column], change[column]
            value = target[column] - left
            # 2  With all other columns fixed, the error is a parabola in this weight. Round its
            #    minimum, which is the nearest grid value to it because a parabola is symmetric.
            wanted = value + pull[column - begin] / hessian[column, column]
            code = _nearest(wanted, scale)
            better = target[column] - levels(code) * scale
            move = left - better
            codes[column], change[column] = code, better
            # 3  Update the gradient of the later columns in the block. Other blocks compute theirs
            #    from `change` when their turn comes.
            later = hessian[column, column + 1 : end]
            pull[column - begin + 1 :].addr_(later, move, alpha=-1)
            changed = changed or bool(move.any())
    return changed
