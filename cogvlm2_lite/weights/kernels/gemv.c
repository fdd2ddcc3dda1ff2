/* GEMV: a few rows of inputs times a large matrix, as needed for every token in decoding. This file
 * also dequantizes matrices, which torch then multiplies by many rows.
 *
 * A GEMV reads each weight once, so memory bandwidth is the limit. 4-bit matrices are read in their
 * stored layout (bitsandbytes': row after row, two codes per byte, the first in the high half),
 * without a second copy. The 16 levels are in a register, in which a permutation instruction looks
 * up codes. The inputs are rearranged once into the order in which codes are extracted from bytes.
 *
 * Bfloat16 inputs are multiplied as integers. Levels become 15-bit integers: the rounding error is
 * 3e-5 of the largest level, while rounding a level to bfloat16 changes it by up to 2e-3 of itself.
 * Every 64 inputs share a power of two: inputs within a factor of 64 of the largest keep all their
 * bits, smaller ones are rounded at 2^-13 of its power of two. Products of 16-bit integers are
 * summed exactly in 32 bits, one group at a time; the groups are summed in float32. A register
 * holds twice as many 16-bit integers as float32 numbers, and a Xeon of 2023 computes three times
 * as many such products as bfloat16 products in the same time.
 *
 * Memory must be read in one sequential stream. Two matrix rows at a time would share the reads of
 * the inputs, but the hardware prefetcher restarts at every page, which takes longer. The inputs
 * must stay in the L1 cache, and the streamed weights leave them a third of it: when they did not
 * fit, memory was read a quarter slower. So (AVX512) a block of matrix rows is multiplied in pieces
 * of columns whose inputs fit, while the next block is prefetched sequentially.
 *
 * There are versions for AVX512-VNNI and for AVX2, and one for float32 inputs (AVX2), which
 * computes in float32 throughout. All are compiled on every x86-64 machine; the level
 * (matrix.h) determines which of them are used. An output row is summed by one thread in a fixed order, so
 * results do not depend on the number of threads or on the other input rows.
 *
 * Called through ctypes (kernels/gemv.py); sizes are checked there.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "matrix.h"

#define MAX_INPUTS 4     /* input rows per pass over the weights; more do not fit into L1 */
#define ROW_BLOCK 16     /* matrix rows that one thread processes at a time */
#define PIECE_UNITS 128  /* units of a row processed at a time, divided by the input rows */
#define AHEAD_BYTES 6144 /* distance between prefetching weights and using them */
#define AHEAD_ROWS 8     /* the same for scales, in rows */
#define MAX_UNITS 1024   /* the widest matrix has 65,536 columns */
#define MAX_LEVEL 16384  /* the largest level as an integer */

#define AVX512                                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,"            \
                          "avx512bf16,avx2,fma")))
#define AVX2 __attribute__((target("avx2,fma")))

#if ON_X86

/* ---- helpers ----------------------------------------------------------------------------- */

/* Round to the nearest, ties to even, as torch does. */
INLINE uint16_t to_bf16(float number)
{
    uint32_t bits;
    memcpy(&bits, &number, sizeof(bits));
    if (number != number)
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

AVX2 INLINE float sum_of_8(__m256 v)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
}

/* ---- bfloat16 inputs as integers ---------------------------------------------------------- */

/* Write 16 levels as integers, and return the value of one integer step. */
static float integer_levels(const float *levels, int16_t *out)
{
    float most = 0;
    for (int i = 0; i < 16; i++)
        most = fabsf(levels[i]) > most ? fabsf(levels[i]) : most;
    for (int i = 0; i < 16; i++)
        out[i] = (int16_t)(most > 0 ? lrintf(levels[i] / most * MAX_LEVEL) : 0);
    return most / MAX_LEVEL;
}

/* Return 2^exponent; exponent from -126 to 127. */
INLINE float power_of_2(int exponent)
{
    const uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    return power;
}

/* Convert each unit of bfloat16 inputs to integers of at most 14 bits, and compute the value of one
 * integer step: a power of two times that of the levels (`level`). Sums of a group then stay below
 * 2^31: each of its lanes adds 8 products of at most 2^14 * 16320. For a unit with an infinity or
 * NaN the step value is NaN. */
AVX2 static void integer_inputs(const uint16_t *x, int64_t columns, float level, int16_t *out,
                              float *step_values)
{
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    for (int64_t unit = 0; unit < columns / UNIT; unit++, x += UNIT, out += UNIT) {
        /* 1. The largest magnitude of 64 inputs. Without their sign bits, bfloat16 numbers compare
         *    as integers. */
        __m256i part[4], most = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            part[i] = _mm256_loadu_si256((const __m256i *)(x + 16 * i));
            most = _mm256_max_epu16(most, _mm256_and_si256(part[i], magnitude));
        }
        __m128i top =
            _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        /* The processor can find the minimum of 8 numbers: use it on the complements. */
        const int largest =
            0xffff - (_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(top, _mm_set1_epi16(-1)))) &
                      0xffff);
        /* 2. Its exponent determines the step, and the factor that divides by the step. */
        int exponent = (largest >> 7) - 127;
        if (exponent == 128) { /* infinity or NaN */
            memset(out, 0, UNIT * sizeof(int16_t));
            step_values[unit] = NAN;
            continue;
        }
        /* With a lower exponent the factor would overflow float32; such numbers only lose bits. */
        exponent = exponent < -100 ? -100 : exponent;
        step_values[unit] = level * power_of_2(exponent - 13);
        const __m256 factor = _mm256_set1_ps(power_of_2(13 - exponent));
        /* 3. Widen to float32, scale, round to the nearest integer, pack into 16 bits. */
        for (int i = 0; i < 4; i++) {
            const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(part[i]));
            const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(part[i], 1));
            const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(low, 16));
            const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(high, 16));
            const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(a, factor)),
                                                    _mm256_cvtps_epi32(_mm256_mul_ps(b, factor)));
            /* Packing works within 128-bit halves; the permutation restores the order. */
            _mm256_storeu_si256((__m256i *)(out + 16 * i), _mm256_permute4x64_epi64(both, 0xd8));
        }
    }
}

/* A few rows of inputs, rearranged for the version that multiplies them. */
typedef struct {
    const int16_t *integers;  /* [inputs, stride], from bfloat16 inputs */
    const float *step_values; /* [inputs, stride / UNIT], the value of one integer step per unit */
    const float *wide;        /* [inputs, stride], from float32 inputs */
    int64_t stride;
} Inputs;

/* ---- AVX512-VNNI ------------------------------------------------------------------------- */

/* Rearrange the inputs of 128 columns into the order in which codes are extracted from 64 bytes: of
 * every four columns first all the second ones, then the first, fourth and third. After the last
 * column there are zeros up to the next multiple of 128. */
AVX512 static void order_512(const int16_t *x, int64_t columns, int16_t *out)
{
    for (int64_t start = 0; start < columns; start += 2 * UNIT)
        for (int i = 0; i < 32; i++) {
            out[start + i] = x[start + 4 * i + 1];
            out[start + 32 + i] = x[start + 4 * i];
            out[start + 64 + i] = x[start + 4 * i + 3];
            out[start + 96 + i] = x[start + 4 * i + 2];
        }
}

/* scale_map with one table for each of the four bytes of a float32. A table of 256 bytes fits into
 * four registers, and a permutation of bytes looks up 64 codes in them at once. */
typedef struct {
    uint8_t bytes[4][256];
} SplitMap;

/* For each input row and unit: the scale of the weights times the step value of the input. */
typedef struct {
    float of_input[MAX_INPUTS][PIECE_UNITS + UNIT];
} Factors;

/* Look up 64 scale codes from the scale `index` on; only the first `count` exist. 64 at a time take
 * 8 permutations and 8 joins of registers; one at a time, each would be a load that depends on
 * another load. */
AVX512 INLINE void look_up_scales(const Matrix *w, const SplitMap *split, int64_t index,
                                  int64_t count, __m512 *out)
{
    /* 1. Load the codes in an order that step 3 reverses: it joins bytes within quarters of a
     *    register, and each quarter must produce consecutive scales. */
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const uint8_t *here = w->scale_codes + index;
    const __mmask64 there = count < 64 ? (1ull << count) - 1 : ~0ull;
    const __m512i codes = _mm512_permutexvar_epi32(order, _mm512_maskz_loadu_epi8(there, here));
    /* 2. Byte i of all 64 numbers. A permutation addresses 128 entries, so one reads the lower half
     *    of the table, one the upper half, and the code's highest bit selects. */
    const __mmask64 high = _mm512_movepi8_mask(codes);
    __m512i bytes[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i part[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            part[k] = _mm512_loadu_si512(split->bytes[i] + 64 * k);
        bytes[i] = _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(part[0], codes, part[1]), high,
                                        _mm512_permutex2var_epi8(part[2], codes, part[3]));
    }
    /* 3. Join bytes 0 to 3 into float32. */
    const __m512i a = _mm512_unpacklo_epi8(bytes[0], bytes[1]);
    const __m512i b = _mm512_unpackhi_epi8(bytes[0], bytes[1]);
    const __m512i c = _mm512_unpacklo_epi8(bytes[2], bytes[3]);
    const __m512i d = _mm512_unpackhi_epi8(bytes[2], bytes[3]);
    const __m512i found[4] = {_mm512_unpacklo_epi16(a, c), _mm512_unpackhi_epi16(a, c),
                              _mm512_unpacklo_epi16(b, d), _mm512_unpackhi_epi16(b, d)};
    /* 4. Multiply by the outer scale and add the offset. 256 scales share an outer scale; these 64
     *    may belong to two of them. */
    const int64_t group = index >> 8, left = ((group + 1) << 8) - index;
    const __mmask64 next = left < count ? ~0ull << left : 0;
    const __m512 factor = _mm512_set1_ps(w->outer_scales[group]);
    const __m512 next_factor = _mm512_set1_ps(w->outer_scales[left < count ? group + 1 : group]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 mine = _mm512_mask_mov_ps(factor, (__mmask16)(next >> 16 * i), next_factor);
        /* Product and sum are rounded separately, as in one_scale. */
        out[i] = _mm512_add_ps(_mm512_mul_ps(_mm512_castsi512_ps(found[i]), mine),
                               _mm512_set1_ps(w->scale_offset));
    }
}

/* Compute the factors of some units of a row. */
AVX512 INLINE void find_factors(const Matrix *w, const SplitMap *split, int64_t row,
                                int64_t begin, int64_t end, const Inputs *x, int inputs,
                                Factors *factors)
{
    const int64_t groups = w->columns / w->group, repeats = w->group / UNIT;
    const int64_t first = row * groups;
    for (int64_t unit = begin; unit < end; unit += 64) {
        const int64_t count = end - unit < 64 ? end - unit : 64;
        __m512 scales[4];
        if (repeats == 1 && !w->scales) {
            /* Prefetch the scales of the same row in the next block; all input rows use them. */
            _mm_prefetch((const char *)(w->scale_codes + first + unit + ROW_BLOCK * groups),
                         _MM_HINT_T0);
            look_up_scales(w, split, first + unit, count, scales);
        } else {
            float some[64] = {0};
            for (int64_t i = 0; i < count; i++)
                some[i] = one_scale(w, first + (unit + i) / repeats);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                scales[i] = _mm512_loadu_ps(some + 16 * i);
        }
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const float *step_values = x->step_values + m * (x->stride / UNIT) + unit + 16 * i;
                _mm512_storeu_ps(factors->of_input[m] + unit - begin + 16 * i,
                                 _mm512_mul_ps(scales[i], _mm512_loadu_ps(step_values)));
            }
    }
}

/* Add 128 products for each input row.
 *
 * all    64 bytes of codes; the lower 32 are one unit, the upper 32 the next
 * table  the 16 levels as 16-bit integers, twice
 * x      the integers of each input row
 * sums   for each input row, 16 float32 sums */
AVX512 INLINE void add_bytes(__m512i all, __m512i table, const int16_t *const *x,
                             const Factors *factors, int64_t unit, int inputs, __m512 *sums)
{
    /* 1. Levels. A lane of 16 bits holds four codes; shifts by 0, 4, 8 and 12 bits move each of
     *    them to the lowest bits. The permutation reads 5 bits of a lane, and the table has its 16
     *    levels twice, so the fifth bit, which belongs to the next code, has no effect. Codes in
     *    one register are then 4 columns apart, as are the inputs after order_512. */
    const __m512i a = _mm512_permutexvar_epi16(all, table);
    const __m512i b = _mm512_permutexvar_epi16(_mm512_srli_epi16(all, 4), table);
    const __m512i c = _mm512_permutexvar_epi16(_mm512_srli_epi16(all, 8), table);
    const __m512i d = _mm512_permutexvar_epi16(_mm512_srli_epi16(all, 12), table);
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++) {
        /* 2. Lanes 0 to 7 belong to the first unit, 8 to 15 to the next: one factor per half. */
        const int16_t *here = x[m] + unit * UNIT;
        const float *factor = factors->of_input[m] + unit;
        const __m512 both = _mm512_mask_broadcastss_ps(_mm512_set1_ps(factor[0]), 0xff00,
                                                       _mm_load_ss(factor + 1));
        /* 3. 4 x 32 products of 16-bit integers, summed exactly in 16 lanes of 32 bits, then one
         *    conversion and one multiplication for all of them. */
        __m512i sum = _mm512_madd_epi16(a, _mm512_loadu_si512(here));
        sum = _mm512_dpwssd_epi32(sum, b, _mm512_loadu_si512(here + 32));
        sum = _mm512_dpwssd_epi32(sum, c, _mm512_loadu_si512(here + 64));
        sum = _mm512_dpwssd_epi32(sum, d, _mm512_loadu_si512(here + 96));
        sums[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, sums[m]);
    }
}

/* Multiply some units of a row by some rows of inputs, and prefetch as many bytes from `prefetch`
 * on: 64 bytes for each 64 bytes that are used, so prefetching keeps pace with the computation.
 *
 * The sums of all input rows are in registers in this loop: 4 of 32, next to 4 of levels, the codes
 * and the table. That is why `inputs` is a constant in every caller. */
AVX512 INLINE void piece_512(const uint8_t *codes, int64_t units, __m512i table,
                             const int16_t *const *x, const Factors *factors, int inputs,
                             const uint8_t *prefetch, __m512 *totals)
{
    __m512 sums[MAX_INPUTS];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        sums[m] = totals[m];
    int64_t unit = 0;
    for (; unit + 2 <= units; unit += 2) {
        _mm_prefetch((const char *)(prefetch + unit * (UNIT / 2)), _MM_HINT_T0);
        add_bytes(_mm512_loadu_si512(codes + unit * (UNIT / 2)), table, x, factors, unit, inputs,
                  sums);
    }
    if (unit < units) /* the last unit of a row; the inputs after it are zeros */
        add_bytes(_mm512_maskz_loadu_epi8(0xffffffffu, codes + unit * (UNIT / 2)), table, x,
                  factors, unit, inputs, sums);
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        totals[m] = sums[m];
}

/* Multiply a block of 16 rows by some rows of inputs.
 *
 * The outer loop runs over pieces of the columns, the inner one over the rows of the block. So a
 * piece of the inputs (PIECE_UNITS / inputs units of 128 bytes for each input row, 16 KiB together)
 * is read 16 times from the L1 cache. The weights of the block were prefetched into the caches
 * while the previous block was multiplied, so reading them in short runs is not slower. The next
 * block is prefetched from memory sequentially, from its first byte to its last (`prefetch`).
 *
 * The factors of the next row are computed while this row is multiplied: their look-ups and the
 * products use different parts of the processor. So there are two buffers, `now` and `!now`. */
AVX512 INLINE void block_512(const Matrix *w, __m512i table, const SplitMap *split,
                             const Inputs *x, int inputs, int64_t begin, int64_t end, uint16_t *out)
{
    /* 1. Pieces of equal width, in whole pairs of units. */
    const int64_t units = w->columns / UNIT, pitch = w->columns / 2, most = PIECE_UNITS / inputs;
    const int64_t pieces = (units + most - 1) / most;
    const int64_t width = (units + 2 * pieces - 1) / (2 * pieces) * 2;
    /* 2. Each row keeps 16 sums per input row from piece to piece. */
    __m512 totals[ROW_BLOCK][MAX_INPUTS];
    for (int row = 0; row < ROW_BLOCK; row++)
        for (int m = 0; m < MAX_INPUTS; m++)
            totals[row][m] = _mm512_setzero_ps();
    Factors factors[2];
    find_factors(w, split, begin, 0, width < units ? width : units, x, inputs, factors);
    /* 3. Piece after piece, row after row. */
    const uint8_t *prefetch = w->codes + end * pitch;
    int now = 0;
    for (int64_t unit = 0; unit < units; unit += width) {
        const int64_t stop = unit + width < units ? unit + width : units;
        const int64_t after = stop + width < units ? stop + width : units;
        const int16_t *integers[MAX_INPUTS];
        for (int m = 0; m < inputs; m++)
            integers[m] = x->integers + m * x->stride + unit * UNIT;
        for (int64_t row = begin; row < end; row++, now = !now) {
            if (row + 1 < end)
                find_factors(w, split, row + 1, unit, stop, x, inputs, factors + !now);
            else
                find_factors(w, split, begin, stop, after, x, inputs, factors + !now);
            piece_512(w->codes + row * pitch + unit * (UNIT / 2), stop - unit, table, integers,
                      factors + now, inputs, prefetch, totals[row - begin]);
            prefetch += (stop - unit) * (UNIT / 2);
        }
    }
    /* 4. Add up the 16 sums of each row. */
    for (int64_t row = begin; row < end; row++)
        for (int m = 0; m < inputs; m++)
            out[m * w->rows + row] = to_bf16(_mm512_reduce_add_ps(totals[row - begin][m]));
}

AVX512 static void gemv_512(const Matrix *w, const int16_t *levels, const SplitMap *split,
                            const Inputs *x, int inputs, int64_t begin, int64_t end, uint16_t *out)
{
    const __m512i table = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)levels));
    switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        block_512(w, table, split, x, n, begin, end, out);                                     \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
}

/* ---- scales of a row ---------------------------------------------------------------------- */

/* The scales of some units of a row. With codes, the table is indexed by a unit's code; without, it
 * has one entry per unit. */
typedef struct {
    const float *table;
    const uint8_t *codes;
    int64_t begin, end; /* units */
} Scales;

INLINE float scale_of(const Scales *scales, int64_t unit)
{
    return scales->codes ? scales->table[scales->codes[unit]] : scales->table[unit];
}

/* The buffers of one thread for scales. */
typedef struct {
    int64_t outer; /* the outer scale for which `scale_of_code` was computed, or -1 */
    float scale_of_code[256], of_units[MAX_UNITS];
} Room;

/* Return the scales of a row from a unit on, up to the last unit that the same table covers; pairs
 * of units are not split unless the row ends. Every 256 scales share an outer scale: the values of
 * all 256 codes are computed once for it, instead of for every scale. */
AVX2 static Scales find_scales(const Matrix *w, int64_t row, int64_t unit, Room *room)
{
    const int64_t units = w->columns / UNIT, groups = w->columns / w->group;
    const int64_t repeats = w->group / UNIT, first = row * groups;
    if (unit == 0) {
        const char *here = w->scales ? (const char *)(w->scales + first)
                                    : (const char *)(w->scale_codes + first);
        const int64_t size = groups * (w->scales ? (int64_t)sizeof(float) : 1);
        for (int64_t i = 0; i < size; i += 64)
            _mm_prefetch(here + AHEAD_ROWS * size + i, _MM_HINT_T0);
    }
    if (repeats > 1) {
        for (int64_t i = 0; i < units; i++)
            room->of_units[i] = one_scale(w, first + i / repeats);
        return (Scales){room->of_units, NULL, 0, units};
    }
    if (w->scales)
        return (Scales){w->scales + first, NULL, 0, units};
    const int64_t outer = (first + unit) >> 8, left = ((outer + 1) << 8) - first;
    const int64_t end = left < units ? left - (left & 1) : units;
    if (end <= unit) { /* a pair whose scales have different outer scales */
        room->of_units[unit] = one_scale(w, first + unit);
        room->of_units[unit + 1] = one_scale(w, first + unit + 1);
        return (Scales){room->of_units, NULL, unit, unit + 2};
    }
    if (room->outer != outer) {
        const __m256 factor = _mm256_set1_ps(w->outer_scales[outer]);
        const __m256 offset = _mm256_set1_ps(w->scale_offset);
        for (int i = 0; i < 256; i += 8) {
            const __m256 product = _mm256_mul_ps(_mm256_loadu_ps(w->scale_map + i), factor);
            _mm256_storeu_ps(room->scale_of_code + i, _mm256_add_ps(product, offset));
        }
        room->outer = outer;
    }
    return (Scales){room->scale_of_code, w->scale_codes + first, unit, end};
}

/* ---- AVX2, integers ----------------------------------------------------------------------- */

/* Rearrange the inputs of a unit into the order in which levels are looked up: first the high
 * halves of bytes 0 to 7 and 16 to 23, then those of the others, then the low halves. */
static void order_256(const int16_t *x, int64_t columns, int16_t *out)
{
    for (int64_t start = 0; start < columns; start += UNIT)
        for (int i = 0; i < UNIT / 2; i++) {
            const int byte = i % 8 + i / 8 % 2 * 16 + i / 16 * 8;
            out[start + i] = x[start + 2 * byte];
            out[start + 32 + i] = x[start + 2 * byte + 1];
        }
}

/* Look up 32 codes (bytes from 0 to 15): lower and upper bytes of the levels, then join them. */
AVX2 INLINE void look_up_integers(__m256i codes, const __m256i *bytes, __m256i *out)
{
    const __m256i a = _mm256_shuffle_epi8(bytes[0], codes);
    const __m256i b = _mm256_shuffle_epi8(bytes[1], codes);
    out[0] = _mm256_unpacklo_epi8(a, b);
    out[1] = _mm256_unpackhi_epi8(a, b);
}

AVX2 INLINE void part_integers(const uint8_t *codes, Scales scales, const __m256i *bytes,
                               const Inputs *x, int inputs, __m256 *sums)
{
    __m256i levels[4];
    const __m256i nibbles = _mm256_set1_epi8(15);
    for (int64_t unit = scales.begin; unit < scales.end; unit++) {
        /* 1. The 64 levels of a unit, from the high halves of 32 bytes and then the low ones. */
        const uint8_t *here = codes + unit * (UNIT / 2);
        _mm_prefetch((const char *)(here + AHEAD_BYTES), _MM_HINT_T1);
        const __m256i pairs = _mm256_loadu_si256((const __m256i *)here);
        look_up_integers(_mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibbles), bytes, levels);
        look_up_integers(_mm256_and_si256(pairs, nibbles), bytes, levels + 2);
        /* 2. 64 products for each input row, exact in 32 bits, times the unit's factor. */
        const float scale = scale_of(&scales, unit);
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const __m256i *integers = (const __m256i *)(x->integers + m * x->stride + unit * UNIT);
            const float step_value = x->step_values[m * (x->stride / UNIT) + unit];
            const __m256 factor = _mm256_set1_ps(scale * step_value);
            const __m256i a = _mm256_add_epi32(_mm256_madd_epi16(levels[0], integers[0]),
                                               _mm256_madd_epi16(levels[1], integers[1]));
            const __m256i b = _mm256_add_epi32(_mm256_madd_epi16(levels[2], integers[2]),
                                               _mm256_madd_epi16(levels[3], integers[3]));
            const __m256 sum = _mm256_cvtepi32_ps(_mm256_add_epi32(a, b));
            sums[m] = _mm256_fmadd_ps(sum, factor, sums[m]);
        }
    }
}

/* ---- AVX2, float32 inputs ---------------------------------------------------------------- */

/* Rearrange the inputs of a unit into the order in which levels are looked up. */
static void order_f32(const float *x, int64_t columns, float *out)
{
    for (int64_t start = 0; start < columns; start += UNIT)
        for (int i = 0; i < UNIT / 2; i++) {
            const int byte = i / 8 * 4 + i % 4 + i / 4 % 2 * 16;
            out[start + i] = x[start + 2 * byte];
            out[start + 32 + i] = x[start + 2 * byte + 1];
        }
}

/* Look up 32 codes (bytes from 0 to 15): each of the four bytes of the levels, then join them. */
AVX2 INLINE void look_up_f32(__m256i codes, const __m256i *bytes, __m256 *out)
{
    const __m256i a = _mm256_shuffle_epi8(bytes[0], codes);
    const __m256i b = _mm256_shuffle_epi8(bytes[1], codes);
    const __m256i c = _mm256_shuffle_epi8(bytes[2], codes);
    const __m256i d = _mm256_shuffle_epi8(bytes[3], codes);
    const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpacklo_epi8(c, d);
    const __m256i low2 = _mm256_unpackhi_epi8(a, b), high2 = _mm256_unpackhi_epi8(c, d);
    out[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low, high));
    out[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low, high));
    out[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low2, high2));
    out[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low2, high2));
}

AVX2 INLINE __m256 add_32(const __m256 *weights, const float *x, __m256 sum)
{
    sum = _mm256_fmadd_ps(weights[0], _mm256_loadu_ps(x), sum);
    sum = _mm256_fmadd_ps(weights[1], _mm256_loadu_ps(x + 8), sum);
    sum = _mm256_fmadd_ps(weights[2], _mm256_loadu_ps(x + 16), sum);
    return _mm256_fmadd_ps(weights[3], _mm256_loadu_ps(x + 24), sum);
}

AVX2 INLINE void part_f32(const uint8_t *codes, Scales scales, const __m256i *bytes,
                          const Inputs *x, int inputs, __m256 *sums)
{
    __m256 even[4], odd[4];
    const __m256i nibbles = _mm256_set1_epi8(15);
    for (int64_t unit = scales.begin; unit < scales.end; unit++) {
        const uint8_t *here = codes + unit * (UNIT / 2);
        _mm_prefetch((const char *)(here + AHEAD_BYTES), _MM_HINT_T1);
        const __m256i pairs = _mm256_loadu_si256((const __m256i *)here);
        look_up_f32(_mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibbles), bytes, even);
        look_up_f32(_mm256_and_si256(pairs, nibbles), bytes, odd);
        const __m256 scale = _mm256_set1_ps(scale_of(&scales, unit));
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const float *inputs_here = x->wide + m * x->stride + unit * UNIT;
            const __m256 a = add_32(even, inputs_here, _mm256_setzero_ps());
            const __m256 b = add_32(odd, inputs_here + 32, _mm256_setzero_ps());
            sums[m] = _mm256_fmadd_ps(_mm256_add_ps(a, b), scale, sums[m]);
        }
    }
}

/* ---- AVX2, both --------------------------------------------------------------------------- */

/* Multiply one row by some rows of inputs, in parts whose scales are in one table. `inputs` and
 * `wide` are constants in every caller, so that the compiler specializes the function. */
AVX2 INLINE void row_256(const Matrix *w, int64_t row, const __m256i *bytes, const Inputs *x,
                         int inputs, int wide, Room *room, void *out)
{
    __m256 sums[MAX_INPUTS];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        sums[m] = _mm256_setzero_ps();
    const uint8_t *codes = w->codes + row * (w->columns / 2);
    for (Scales scales = {0}; scales.end < w->columns / UNIT;) {
        scales = find_scales(w, row, scales.end, room);
        if (wide)
            part_f32(codes, scales, bytes, x, inputs, sums);
        else if (scales.codes) /* two calls, so that the compiler specializes scale_of in each */
            part_integers(codes, scales, bytes, x, inputs, sums);
        else
            part_integers(codes, scales, bytes, x, inputs, sums);
    }
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++) {
        const float sum = sum_of_8(sums[m]);
        if (wide)
            ((float *)out)[m * w->rows + row] = sum;
        else
            ((uint16_t *)out)[m * w->rows + row] = to_bf16(sum);
    }
}

/* Multiply rows by some rows of inputs. levels: 16 float32 if `wide`, else 16 16-bit integers. */
AVX2 static void gemv_256(const Matrix *w, const void *levels, int wide, const Inputs *x,
                          int inputs, int64_t begin, int64_t end, void *out)
{
    /* A look-up returns bytes, so there is one table per byte of a level: 16 entries, twice. */
    const int size = wide ? 4 : 2;
    __m256i bytes[4] = {0};
    for (int part = 0; part < size; part++) {
        uint8_t of_levels[32];
        for (int i = 0; i < 32; i++)
            of_levels[i] = ((const uint8_t *)levels)[(i & 15) * size + part];
        bytes[part] = _mm256_loadu_si256((const __m256i *)of_levels);
    }
    Room room = {.outer = -1};
    switch (inputs + (wide ? MAX_INPUTS : 0)) {
#define CASE(n, is_wide)                                                                          \
    case n + is_wide * MAX_INPUTS:                                                                \
        for (int64_t row = begin; row < end; row++)                                               \
            row_256(w, row, bytes, x, n, is_wide, &room, out);                                    \
        break;
        CASE(1, 0) CASE(2, 0) CASE(3, 0) CASE(4, 0) CASE(1, 1) CASE(2, 1) CASE(3, 1) CASE(4, 1)
#undef CASE
    }
}

/* ---- dequantizing -------------------------------------------------------------------------- */

/* Dequantize a row to bfloat16: per scale, multiply the 16 levels once, then look up the codes. */
AVX512 static void dequantize_row_512(const Matrix *w, int64_t row, Room *room, uint16_t *out)
{
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const uint8_t *codes = w->codes + row * (w->columns / 2);
    for (Scales scales = {0}; scales.end < w->columns / UNIT;) {
        scales = find_scales(w, row, scales.end, room);
        for (int64_t unit = scales.begin; unit < scales.end; unit++) {
            const __m512 scaled = _mm512_mul_ps(levels, _mm512_set1_ps(scale_of(&scales, unit)));
            /* Round as to_bf16 does; the instruction for it would flush denormals to zero. */
            const __m512i bits = _mm512_castps_si512(scaled);
            const __mmask16 no_number = _mm512_cmp_ps_mask(scaled, scaled, _CMP_UNORD_Q);
            const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
            const __m512i half_step = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            const __m512i rounded = _mm512_mask_mov_epi32(
                _mm512_add_epi32(bits, half_step), no_number, _mm512_set1_epi32(0x7fc00000));
            const __m512i table = _mm512_broadcast_i64x4(
                _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                /* A byte's high half is the first weight. Bit 4 of an index has no effect. */
                const __m128i *here = (const __m128i *)(codes + unit * (UNIT / 2) + 16 * half);
                const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(here));
                const __m512i pairs =
                    _mm512_or_si512(_mm512_srli_epi32(bytes, 4), _mm512_slli_epi32(bytes, 16));
                _mm512_storeu_si512(out + unit * UNIT + 32 * half,
                                    _mm512_permutexvar_epi16(pairs, table));
            }
        }
    }
}

/* Dequantize a row to float32. */
AVX2 static void dequantize_row_256(const Matrix *w, int64_t row, Room *room, float *out)
{
    const __m128i nibbles = _mm_set1_epi8(15);
    const uint8_t *codes = w->codes + row * (w->columns / 2);
    for (Scales scales = {0}; scales.end < w->columns / UNIT;) {
        scales = find_scales(w, row, scales.end, room);
        for (int64_t unit = scales.begin; unit < scales.end; unit++) {
            const __m256 scale = _mm256_set1_ps(scale_of(&scales, unit));
            const __m256 low = _mm256_mul_ps(_mm256_loadu_ps(w->levels), scale);
            const __m256 high = _mm256_mul_ps(_mm256_loadu_ps(w->levels + 8), scale);
            float *there = out + unit * UNIT;
#pragma GCC unroll 4
            for (int i = 0; i < UNIT / 2; i += 8) {
                const uint8_t *here = codes + unit * (UNIT / 2) + i;
                const __m128i bytes = _mm_loadl_epi64((const __m128i *)here);
                const __m128i first = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibbles);
                const __m128i in_order = _mm_unpacklo_epi8(first, _mm_and_si128(bytes, nibbles));
                const __m256i a = _mm256_cvtepu8_epi32(in_order);
                const __m256i b = _mm256_cvtepu8_epi32(_mm_srli_si128(in_order, 8));
                /* The look-up uses 3 bits; the fourth, moved to the sign, selects the half. */
                _mm256_storeu_ps(there + 2 * i,
                                 _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, a),
                                                  _mm256_permutevar8x32_ps(high, a),
                                                  _mm256_castsi256_ps(_mm256_slli_epi32(a, 28))));
                _mm256_storeu_ps(there + 2 * i + 8,
                                 _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, b),
                                                  _mm256_permutevar8x32_ps(high, b),
                                                  _mm256_castsi256_ps(_mm256_slli_epi32(b, 28))));
            }
        }
    }
}
#endif /* ON_X86 */

/* ---- called from Python -------------------------------------------------------------------- */

#if ON_X86
static int64_t padded(int64_t columns)
{
    return (columns + 2 * UNIT - 1) / (2 * UNIT) * (2 * UNIT);
}

/* Return an address aligned to cache lines: loads that cross a line take twice the time. */
static void *aligned(void *room)
{
    return (char *)room + (64 - (uintptr_t)room % 64);
}

static int four_bit(const Matrix *w, int level, int wide, const void *x, int64_t inputs, void *out,
                    int threads)
{
    const int64_t rows = w->rows, columns = w->columns, stride = padded(columns);
    const int64_t units = stride / UNIT;
    const size_t size = wide ? sizeof(float) : sizeof(int16_t);
    /* 1. One buffer for everything. Zeros, because the inputs after the last unit are read too. */
    void *room = calloc((size_t)((inputs + 1) * stride) * size +
                            (size_t)(inputs * units + 64) * sizeof(float) + 64,
                        1);
    if (!room)
        return 1;
    char *ordered = aligned(room), *in_order = ordered + (size_t)(inputs * stride) * size;
    float *step_values = (float *)(in_order + (size_t)stride * size);
    /* 2. Convert and rearrange the inputs. */
    int16_t levels[16];
    const float of_level = wide ? 0 : integer_levels(w->levels, levels);
    for (int64_t m = 0; m < inputs; m++) {
        char *to = ordered + (size_t)(m * stride) * size;
        if (wide) {
            order_f32((const float *)x + m * columns, columns, (float *)to);
            continue;
        }
        int16_t *integers = (int16_t *)in_order;
        integer_inputs((const uint16_t *)x + m * columns, columns, of_level, integers,
                       step_values + m * units);
        (level >= LEVEL_AVX512 ? order_512 : order_256)(integers, columns, (int16_t *)to);
    }
    /* 3. The scale map by bytes, for look_up_scales. */
    SplitMap split;
    for (int i = 0; !wide && level >= LEVEL_AVX512 && w->scale_map && i < 256; i++)
        for (int part = 0; part < 4; part++)
            split.bytes[part][i] = ((const uint8_t *)(w->scale_map + i))[part];
    /* 4. Blocks of matrix rows on all threads, each by up to MAX_INPUTS input rows at a time. */
    const int64_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t begin = block * ROW_BLOCK;
        const int64_t end = begin + ROW_BLOCK < rows ? begin + ROW_BLOCK : rows;
        for (int64_t m = 0; m < inputs; m += MAX_INPUTS) {
            const int now = (int)(inputs - m < MAX_INPUTS ? inputs - m : MAX_INPUTS);
            const void *here = ordered + (size_t)(m * stride) * size;
            const Inputs some = {wide ? NULL : here, step_values + m * units, wide ? here : NULL,
                                 stride};
            if (wide)
                gemv_256(w, w->levels, 1, &some, now, begin, end, (float *)out + m * rows);
            else if (level >= LEVEL_AVX512)
                gemv_512(w, levels, &split, &some, now, begin, end, (uint16_t *)out + m * rows);
            else
                gemv_256(w, levels, 0, &some, now, begin, end, (uint16_t *)out + m * rows);
        }
    }
    free(room);
    return 0;
}
#endif /* ON_X86 */

/* out[inputs, rows] = x[inputs, columns] times the transposed 4-bit matrix. x and out are bfloat16,
 * or float32 if `wide`. Returns 0, or 1 if no memory could be allocated. */
int gemv_four_bit(const Matrix *w, int level, int wide, const void *x, int64_t inputs, void *out,
                  int threads)
{
#if ON_X86
    return four_bit(w, level, wide, x, inputs, out, threads);
#else
    (void)w, (void)level, (void)wide, (void)x, (void)inputs, (void)out, (void)threads;
    return 1;
#endif
}

/* Dequantize the rows from `begin` to `end` of a 4-bit matrix, to float32 if `wide`, else to
 * bfloat16 (AVX512 only): each level times its scale, rounded once. */
void dequantize_four_bit(const Matrix *w, int wide, int64_t begin, int64_t end, void *out,
                         int threads)
{
#if ON_X86
    const int64_t blocks = (end - begin + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        Room room = {.outer = -1};
        const int64_t first = begin + block * ROW_BLOCK;
        for (int64_t row = first; row < end && row < first + ROW_BLOCK; row++) {
            const int64_t place = (row - begin) * w->columns;
            if (wide)
                dequantize_row_256(w, row, &room, (float *)out + place);
            else
                dequantize_row_512(w, row, &room, (uint16_t *)out + place);
        }
    }
#else
    (void)w, (void)wide, (void)begin, (void)end, (void)out, (void)threads;
#endif
}
