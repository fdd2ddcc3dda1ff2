"""NF4 arithmetic: bit for bit what bitsandbytes computes on CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cogvlm2_lite.errors import ConversionError
from cogvlm2_lite.weights.footprint import can_pack
from cogvlm2_lite.weights.kernels.bitsandbytes_cpu import BitsandbytesCpu, open_bitsandbytes
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix
from cogvlm2_lite.weights.kernels.nf4 import (
    FP4_LEVELS,
    NF4_LEVELS,
    dequantize_by_byte,
    dequantize_reference,
    dynamic_map,
    expand_scales,
    nest_scales,
    quantize_nf4,
    quantize_rows,
)
from cogvlm2_lite.weights.kernels.packed import pack, pack_scales

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = (
    (1, 64), (3, 64), (33, 128), (128, 192), (512, 1792),  # whole groups in each row
    (7, 100), (33, 66), (96, 588),  # groups that cross rows
    (5, 7), (1, 1), (1, 3), (31, 33), (3, 65537),  # an odd tail
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """bitsandbytes' mean of the scales depends on torch's thread count; ours does not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def library() -> BitsandbytesCpu:
    try:
        return open_bitsandbytes()
    except OSError as error:
        pytest.skip(f"no library of bitsandbytes: {error}")


def random(shape: tuple[int, int], dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 0.02).to(dtype)


def assert_as_bitsandbytes(weight: Tensor, group: int) -> None:
    from bitsandbytes.functional import quantize_4bit

    codes, state = quantize_4bit(
        weight, blocksize=group, compress_statistics=True, quant_type="nf4"
    )
    ours = quantize_nf4(weight, group=group)
    assert torch.equal(ours.codes, codes)
    assert torch.equal(ours.absmax, state.absmax)
    assert ours.nested_absmax is not None
    assert torch.equal(ours.nested_absmax, state.state2.absmax)
    assert ours.nested_map is not None
    assert torch.equal(ours.nested_map, state.state2.code)
    assert ours.nested_offset == state.offset.item()
    codes, state = quantize_4bit(weight, blocksize=group, quant_type="nf4")
    ours = quantize_nf4(weight, group=group, double_quant=False)
    assert torch.equal(ours.codes, codes)
    assert torch.equal(ours.absmax, state.absmax)


def test_levels_and_maps_are_those_of_bitsandbytes() -> None:
    from bitsandbytes.functional import create_dynamic_map, get_4bit_type

    assert get_4bit_type("nf4", device="cpu").tolist() == list(NF4_LEVELS)
    assert get_4bit_type("fp4", device="cpu").tolist() == list(FP4_LEVELS)
    assert torch.equal(dynamic_map(), create_dynamic_map())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [64, 128])
def test_random_weights_round_as_in_bitsandbytes(
    shape: tuple[int, int], dtype: torch.dtype, group: int
) -> None:
    assert_as_bitsandbytes(random(shape, dtype), group)


@pytest.mark.parametrize("group", [32, 256, 512, 1024, 2048, 4096])
def test_every_group_size_rounds_as_in_bitsandbytes(group: int) -> None:
    assert_as_bitsandbytes(random((96, 1792), torch.bfloat16), group)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_weights_round_as_in_bitsandbytes(dtype: torch.dtype) -> None:
    weight = random((64, 512), dtype)
    weight[0] = 0
    weight[1, :64] = 0
    weight[2] = torch.finfo(dtype).max
    weight[3] = -torch.finfo(dtype).max
    weight[4] = torch.finfo(dtype).tiny
    weight[5] = 1e-39  # below what float32 can invert; a denormal, or 0 in float16
    weight[6, ::2] = -0.0
    weight[7] = torch.arange(512).to(dtype)
    weight[8, 5] = 1000
    weight[9] = weight[9, 0]
    assert_as_bitsandbytes(weight, 64)
    assert_as_bitsandbytes(torch.zeros(64, 64, dtype=dtype), 64)
    assert_as_bitsandbytes(torch.full((64, 64), 0.5, dtype=dtype), 64)


def test_weights_on_a_boundary_round_as_in_bitsandbytes() -> None:
    levels = torch.tensor(NF4_LEVELS)
    bounds = (levels[:-1] + levels[1:]) / 2
    near = [bounds, bounds.nextafter(torch.tensor(2.0)), bounds.nextafter(torch.tensor(-2.0))]
    weight = torch.cat([*near, levels, -levels, torch.zeros(64 * 2 - 77)]).view(2, 64)
    weight[:, 0] = 1.0  # the scale of the group, so the others stay what they are
    assert_as_bitsandbytes(weight, 64)


def near(values: Tensor, scale: Tensor) -> Tensor:
    """Return products and their float32 neighbours, where the last bit of a product decides."""
    middle = values * scale
    up, down = torch.tensor(float("inf")), torch.tensor(float("-inf"))
    return torch.cat([middle, middle.nextafter(up), middle.nextafter(down)])


@pytest.mark.parametrize("size", [64, 46])
def test_the_last_bit_of_a_scaled_weight_is_that_of_bitsandbytes(size: int) -> None:
    """It multiplies whole groups by 1 / scale and divides the tail (here of 46) by the scale."""
    from bitsandbytes.functional import quantize_4bit

    levels = torch.tensor(NF4_LEVELS)
    bounds = (levels[:-1] + levels[1:]) / 2
    generator = torch.Generator().manual_seed(7)
    for scale in torch.rand(300, generator=generator) + 0.1:
        weight = torch.zeros(1, size)
        weight[0, :46] = torch.cat([scale.view(1), near(bounds, scale)])
        theirs, _ = quantize_4bit(weight, quant_type="nf4")
        assert torch.equal(quantize_nf4(weight, double_quant=False).codes, theirs)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    group=st.sampled_from([32, 64, 128]),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_matrix_rounds_as_in_bitsandbytes(
    rows: int, columns: int, group: int, exponent: int, seed: int, dtype: torch.dtype
) -> None:
    assert_as_bitsandbytes(random((rows, columns), dtype, seed) * 2.0**exponent, group)


@pytest.mark.parametrize("columns", [192, 1792])
def test_runs_of_rows_give_the_whole_matrix(columns: int) -> None:
    weight = random((100, columns), torch.bfloat16)
    whole_codes, whole_absmax = quantize_rows(weight)
    runs = [quantize_rows(run) for run in weight.split(7)]
    assert torch.equal(torch.cat([codes for codes, _ in runs]), whole_codes)
    assert torch.equal(torch.cat([absmax for _, absmax in runs]), whole_absmax)


def test_rounding_does_not_change_the_weights_and_takes_any_strides() -> None:
    weight = random((128, 96), torch.float32)
    before = weight.clone()
    transposed = quantize_nf4(weight.t())
    assert torch.equal(weight, before)
    assert torch.equal(transposed.codes, quantize_nf4(weight.t().contiguous()).codes)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("place", [0, 70000])
def test_a_weight_that_is_no_number_is_refused(bad: float, place: int) -> None:
    weight = random((10, 7001), torch.float32)
    weight.view(-1)[place] = bad
    with pytest.raises(ConversionError, match="infinite or not a number"):
        quantize_nf4(weight)


def test_nested_scales_do_not_depend_on_the_thread_count() -> None:
    absmax = torch.rand(200_001, generator=torch.Generator().manual_seed(3)) + 0.01
    one = nest_scales(absmax)
    torch.set_num_threads(2)
    try:
        two = nest_scales(absmax)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert one.nested_offset == two.nested_offset
    assert torch.equal(one.absmax, two.absmax)


def test_many_scales_nest_as_in_bitsandbytes() -> None:
    from bitsandbytes.functional import quantize_blockwise

    generator = torch.Generator().manual_seed(5)
    for absmax in (
        torch.rand(300_000, generator=generator),
        torch.randn(100_001, generator=generator).abs() ** 3,
        torch.rand(65_536, generator=generator) * 1e-30,
    ):
        centred = absmax - absmax.mean()
        codes, state = quantize_blockwise(centred, blocksize=SCALE_GROUP)
        ours = nest_scales(absmax)
        assert torch.equal(ours.absmax, codes)
        assert torch.equal(ours.nested_absmax, state.absmax)


def test_the_last_bit_of_a_nested_scale_is_that_of_bitsandbytes() -> None:
    from bitsandbytes.functional import quantize_blockwise

    edges = (torch.arange(65535, dtype=torch.float64) + 0.5) / 32767.5 - 1
    generator = torch.Generator().manual_seed(8)
    outer = torch.rand(2000, generator=generator) + 0.1
    picked = edges[torch.randint(0, 65535, (2000, 64), generator=generator)].float()
    blocks = torch.zeros(2000, SCALE_GROUP)
    blocks[:, 0] = outer
    blocks[:, 1:193] = torch.stack([near(v, s) for v, s in zip(picked, outer, strict=True)])
    blocks[:, 193] = -blocks.sum(dim=1)  # towards a mean of 0, which would move the others
    absmax = blocks.view(-1)
    absmax = absmax - absmax.mean()
    codes, _ = quantize_blockwise(absmax - absmax.mean(), blocksize=SCALE_GROUP)
    assert torch.equal(nest_scales(absmax).absmax, codes)


# --- back to plain weights ------------------------------------------------------------------------


def scales_of(arrays: FourBitMatrix) -> Tensor:
    assert arrays.nested_absmax is not None
    assert arrays.nested_map is not None
    assert arrays.nested_offset is not None
    return expand_scales(
        arrays.absmax, arrays.nested_absmax, arrays.nested_map, arrays.nested_offset
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_is_what_bitsandbytes_dequantizes(dtype: torch.dtype) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = random((96, 1792), dtype)
    codes, state = quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    theirs = dequantize_4bit(codes, state)
    arrays = quantize_nf4(weight)
    ours = dequantize_reference(
        arrays.codes, scales_of(arrays), levels=torch.tensor(NF4_LEVELS), group=64,
        out=torch.empty(96, 1792, dtype=dtype),
    )  # fmt: skip
    assert torch.equal(ours, theirs)


def test_rounding_again_what_was_rounded_changes_nothing() -> None:
    weight = random((64, 256), torch.float32)
    codes, absmax = quantize_rows(weight)
    levels = torch.tensor(NF4_LEVELS)
    plain = dequantize_reference(codes, absmax, levels=levels, group=64, out=torch.empty(64, 256))
    again, absmax_again = quantize_rows(plain)
    assert torch.equal(codes, again)
    assert torch.equal(absmax, absmax_again)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [64, 256])
@pytest.mark.parametrize("levels", [NF4_LEVELS, FP4_LEVELS])
def test_every_dequantization_equals_the_reference(
    library: BitsandbytesCpu,
    shape: tuple[int, int],
    dtype: torch.dtype,
    group: int,
    levels: tuple[float, ...],
) -> None:
    codes, absmax = quantize_rows(random(shape, torch.float32), group=group)
    values = torch.tensor(levels)
    expected = dequantize_reference(
        codes, absmax, levels=values, group=group, out=torch.empty(shape, dtype=dtype)
    )
    plain = dequantize_by_byte(
        codes, absmax, levels=values, group=group, out=torch.empty(shape, dtype=dtype)
    )
    assert torch.equal(plain, expected)
    guard = torch.full((expected.numel() + 64,), 7.0, dtype=dtype)
    out = guard[: expected.numel()].view(shape)
    quant_type = "nf4" if levels is NF4_LEVELS else "fp4"
    library.dequantize(codes, absmax, out, quant_type=quant_type, group=group)
    assert torch.equal(out, expected)
    assert (guard[expected.numel() :] == 7).all()


@pytest.mark.parametrize("groups", [1, 255, 256, 257, 5000])
def test_scales_of_the_library_equal_the_plain_ones(library: BitsandbytesCpu, groups: int) -> None:
    nested = nest_scales(torch.rand(groups, generator=torch.Generator().manual_seed(1)))
    given = (nested.absmax, nested.nested_absmax, nested.nested_map, nested.nested_offset)
    out = torch.empty(groups)
    library.expand_scales(*given, out)
    assert torch.equal(out, expand_scales(*given))


def test_the_library_is_never_given_too_small_a_buffer(library: BitsandbytesCpu) -> None:
    codes, absmax = quantize_rows(random((4, 64), torch.float32))
    out = torch.empty(4, 64)
    with pytest.raises(AssertionError, match="127 elements, 128 needed"):
        library.dequantize(codes[:-1], absmax, out, quant_type="nf4", group=64)
    with pytest.raises(AssertionError, match="3 elements, 4 needed"):
        library.dequantize(codes, absmax[:3], out, quant_type="nf4", group=64)
    with pytest.raises(AssertionError):
        library.dequantize(codes, absmax, torch.empty(64, 4).t(), quant_type="nf4", group=64)


@pytest.mark.parametrize("shape", [(32, 64), (96, 128), (256, 1792), (4096, 192)])
def test_the_packed_copy_is_that_of_bitsandbytes(shape: tuple[int, int]) -> None:
    from bitsandbytes.functional import _convert_weight_packed_for_cpu, quantize_4bit

    weight = random(shape, torch.bfloat16)
    codes, state = quantize_4bit(weight, quant_type="nf4")
    absmax, before = state.absmax.clone(), codes.clone()
    ours = pack(codes.view(-1), *shape)
    assert torch.equal(codes, before)
    theirs, packed_state = _convert_weight_packed_for_cpu(codes, state)
    assert torch.equal(ours, theirs)
    assert torch.equal(pack_scales(absmax, shape[0]), packed_state.absmax)


def test_shapes_that_do_not_fit_the_packed_layout_are_known() -> None:
    assert can_pack(128256, 4096, 64)
    assert not can_pack(33, 64, 64)
    assert not can_pack(32, 100, 64)
