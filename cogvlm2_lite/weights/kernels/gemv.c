/* Multiplying a few rows with large matrices: what decoding does for every token. For many rows,
 * which torch multiplies: making matrices plain.
 *
 * Such a product reads each weight once, so the limit is how fast memory can be read. 4-bit
 * matrices are read as they are stored (bitsandbytes' layout: row after row, two codes a byte, the
 * first in the high half), without a second copy: a row of 16 levels in a register turns codes into
 * numbers by a permutation, and the inputs are put into the order in which codes come out of bytes.
 *
 * Bfloat16 inputs are multiplied as whole numbers. The levels become 15-bit numbers (half a step is
 * 3e-5 of the largest level, where rounding them to bfloat16 moves one by up to 2e-3 of itself).
 * Every 64 inputs share a power of two: those within a factor of 64 of the largest keep all their
 * bits, smaller ones are rounded at 2^-13 of its power of two. Products of 16-bit numbers are summed
 * in 32 bits without rounding, one group at a time, and groups in float32. Of the 16-bit products
 * twice as many fit into a register as of float32, and on a Xeon of 2023 three times as many are
 * done in the same time as of bfloat16.
 *
 * Memory must be read in one stream: two rows at once share the reading of inputs, but then the
 * processor's own prefetching loses its thread at every page, and that costs more. Inputs must stay
 * in the L1 cache, though, of which weights that stream through leave them a third: where they did
 * not, memory was read a quarter slower. So (AVX512) a block of rows is multiplied in pieces, as
 * wide as the inputs that have room, while the next block is asked for byte after byte.
 *
 * Versions stand below for AVX512-VNNI and for AVX2. Float32 inputs have one of their own (AVX2),
 * which rounds nothing beyond float32. All are compiled wherever this file is, and the caller asks
 * `gemv_level` which ones this processor runs. An output row is summed by one thread, in an order
 * that depends on nothing else, so results do not depend on the number of threads or of other input
 * rows.
 *
 * Plain C, called through ctypes (kernels/gemv.py); sizes are checked there.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "matrix.h"

#define MAX_INPUTS 4   /* input rows in one pass over the weights; more leave the L1 cache */
#define ROW_BLOCK 16       /* matrix rows that one thread takes at a time */
#define PIECE 128      /* units of a row that are taken at a time, divided by the input rows */
#define AHEAD 6144     /* bytes between asking memory for weights and using them */
#define ROWS_AHEAD 8   /* the same for the few bytes of scales, in matrix rows */
#define MAX_UNITS 1024 /* the widest matrix has 65,536 columns */
#define ONE 16384      /* the largest level as a whole number */

#define AVX512                                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,"            \
                          "avx512bf16,avx2,fma")))
#define AVX2 __attribute__((target("avx2,fma")))

#if ON_X86

/* ---- small things ------------------------------------------------------------------------ */

/* To the nearest, ties to even, as torch rounds. */
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

INLINE float one_scale(const Matrix *w, int64_t index)
{
    if (w->scales)
        return w->scales[index];
    /* Product and sum round one after the other, as in bitsandbytes: the build forbids fusing. */
    return w->scale_map[w->scale_codes[index]] * w->outer_scales[index >> 8] + w->scale_offset;
}

/* ---- bfloat16 inputs as whole numbers ---------------------------------------------------- */

/* 16 levels as whole numbers, and what one of them is worth. */
static float whole_levels(const float *levels, int16_t *out)
{
    float most = 0;
    for (int i = 0; i < 16; i++)
        most = fabsf(levels[i]) > most ? fabsf(levels[i]) : most;
    for (int i = 0; i < 16; i++)
        out[i] = (int16_t)(most > 0 ? lrintf(levels[i] / most * ONE) : 0);
    return most / ONE;
}

/* 2^exponent, from -126 to 127. */
INLINE float power_of_2(int exponent)
{
    const uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    return power;
}

/* Turn each unit of bfloat16 inputs into whole numbers of at most 14 bits and what one is worth,
 * a power of two times that of a level. A group's sum stays below 2^31 then: each of its lanes adds 8
 * products of at most 2^14 * 16320. A unit with an infinity or NaN is worth NaN. */
AVX2 static void whole_inputs(const uint16_t *x, int64_t columns, float level, int16_t *out,
                              float *worth)
{
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    for (int64_t unit = 0; unit < columns / UNIT; unit++, x += UNIT, out += UNIT) {
        __m256i part[4], most = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            part[i] = _mm256_loadu_si256((const __m256i *)(x + 16 * i));
            most = _mm256_max_epu16(most, _mm256_and_si256(part[i], magnitude));
        }
        __m128i top = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        /* The smallest of the complements is what the processor can search for. */
        const int largest =
            0xffff - (_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(top, _mm_set1_epi16(-1)))) &
                      0xffff);
        int exponent = (largest >> 7) - 127;
        if (exponent == 128) { /* infinity or NaN */
            memset(out, 0, UNIT * sizeof(int16_t));
            worth[unit] = NAN;
            continue;
        }
        /* Below, the factor would be no float32 any more; the numbers only lose bits. */
        exponent = exponent < -100 ? -100 : exponent;
        worth[unit] = level * power_of_2(exponent - 13);
        const __m256 factor = _mm256_set1_ps(power_of_2(13 - exponent));
        for (int i = 0; i < 4; i++) {
            const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(part[i]));
            const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(part[i], 1));
            const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(low, 16));
            const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(high, 16));
            const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(a, factor)),
                                                    _mm256_cvtps_epi32(_mm256_mul_ps(b, factor)));
            /* Packing works within halves. */
            _mm256_storeu_si256((__m256i *)(out + 16 * i), _mm256_permute4x64_epi64(both, 0xd8));
        }
    }
}

/* Inputs of a few rows, ready to be multiplied. */
typedef struct {
    const int16_t *numbers; /* [inputs, stride], in the order of the version that multiplies */
    const float *worth;     /* [inputs, stride / UNIT], what one of a unit is worth */
    int64_t stride;
} Inputs;

/* ---- AVX512-VNNI ------------------------------------------------------------------------- */

/* Put the inputs of 128 columns in the order in which codes come out of 64 bytes: of every four
 * columns first all the second ones, then the first, fourth and third. Behind the last column stand
 * zeros up to the next 128. */
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

/* The meanings of 256 scale codes, with the four bytes of each number apart. */
typedef struct {
    uint8_t bytes[4][256];
} Meanings;

/* The scales of a few units of a row, each times what one of the input's numbers is worth. */
typedef struct {
    float of_input[MAX_INPUTS][PIECE + UNIT];
} Factors;

/* Look up 64 scale codes, of which the first `count` are there, from the scale `index` on. */
AVX512 INLINE void look_up_scales(const Matrix *w, const Meanings *meanings, int64_t index,
                                  int64_t count, __m512 *out)
{
    /* Bytes are joined within quarters of a register: these quarters become 16 scales in a row. */
    const __m512i turn =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const uint8_t *here = w->scale_codes + index;
    const __mmask64 there = count < 64 ? (1ull << count) - 1 : ~0ull;
    const __m512i codes = _mm512_permutexvar_epi32(turn, _mm512_maskz_loadu_epi8(there, here));
    const __mmask64 high = _mm512_movepi8_mask(codes);
    __m512i bytes[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i part[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            part[k] = _mm512_loadu_si512(meanings->bytes[i] + 64 * k);
        bytes[i] = _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(part[0], codes, part[1]), high,
                                        _mm512_permutex2var_epi8(part[2], codes, part[3]));
    }
    const __m512i a = _mm512_unpacklo_epi8(bytes[0], bytes[1]);
    const __m512i b = _mm512_unpackhi_epi8(bytes[0], bytes[1]);
    const __m512i c = _mm512_unpacklo_epi8(bytes[2], bytes[3]);
    const __m512i d = _mm512_unpackhi_epi8(bytes[2], bytes[3]);
    const __m512i found[4] = {_mm512_unpacklo_epi16(a, c), _mm512_unpackhi_epi16(a, c),
                              _mm512_unpacklo_epi16(b, d), _mm512_unpackhi_epi16(b, d)};
    /* 256 scales share a factor; these may belong to two such groups. */
    const int64_t group = index >> 8, left = ((group + 1) << 8) - index;
    const __mmask64 next = left < count ? ~0ull << left : 0;
    const __m512 factor = _mm512_set1_ps(w->outer_scales[group]);
    const __m512 next_factor = _mm512_set1_ps(w->outer_scales[left < count ? group + 1 : group]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 mine = _mm512_mask_mov_ps(factor, (__mmask16)(next >> 16 * i), next_factor);
        /* Rounded one after the other, as in one_scale. */
        out[i] = _mm512_add_ps(_mm512_mul_ps(_mm512_castsi512_ps(found[i]), mine),
                               _mm512_set1_ps(w->scale_offset));
    }
}

/* Work out the factors of some units of a row. */
AVX512 INLINE void find_factors(const Matrix *w, const Meanings *meanings, int64_t row,
                                int64_t begin, int64_t end, const Inputs *x, int inputs,
                                Factors *factors)
{
    const int64_t groups = w->columns / w->group, repeats = w->group / UNIT;
    const int64_t first = row * groups;
    for (int64_t unit = begin; unit < end; unit += 64) {
        const int64_t count = end - unit < 64 ? end - unit : 64;
        __m512 scales[4];
        if (repeats == 1 && !w->scales) {
            /* A block ahead; what lies there serves every input row. */
            _mm_prefetch((const char *)(w->scale_codes + first + unit + ROW_BLOCK * groups),
                         _MM_HINT_T0);
            look_up_scales(w, meanings, first + unit, count, scales);
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
                const float *worth = x->worth + m * (x->stride / UNIT) + unit + 16 * i;
                _mm512_storeu_ps(factors->of_input[m] + unit - begin + 16 * i,
                                 _mm512_mul_ps(scales[i], _mm512_loadu_ps(worth)));
            }
    }
}

/* Add 128 products with each input row. The halves of the 64 bytes belong to different units. */
AVX512 INLINE void add_bytes(__m512i all, __m512i table, const int16_t *const *x,
                             const Factors *factors, int64_t unit, int inputs, __m512 *sums)
{
    /* A lane of 16 bits holds four codes. The permutation looks at 5 bits of a lane, and the table
     * has its 16 levels twice, so the fifth bit, part of the next code, is harmless. */
    const __m512i a = _mm512_permutexvar_epi16(all, table);
    const __m512i b = _mm512_permutexvar_epi16(_mm512_srli_epi16(all, 4), table);
    const __m512i c = _mm512_permutexvar_epi16(_mm512_srli_epi16(all, 8), table);
    const __m512i d = _mm512_permutexvar_epi16(_mm512_srli_epi16(all, 12), table);
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++) {
        const int16_t *here = x[m] + unit * UNIT;
        const float *factor = factors->of_input[m] + unit;
        const __m512 both = _mm512_mask_broadcastss_ps(_mm512_set1_ps(factor[0]), 0xff00,
                                                       _mm_load_ss(factor + 1));
        __m512i sum = _mm512_madd_epi16(a, _mm512_loadu_si512(here));
        sum = _mm512_dpwssd_epi32(sum, b, _mm512_loadu_si512(here + 32));
        sum = _mm512_dpwssd_epi32(sum, c, _mm512_loadu_si512(here + 64));
        sum = _mm512_dpwssd_epi32(sum, d, _mm512_loadu_si512(here + 96));
        sums[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, sums[m]);
    }
}

/* Some units of a row with some rows of inputs; asks for as many bytes from `soon` on. */
AVX512 INLINE void piece_512(const uint8_t *codes, int64_t units, __m512i table,
                             const int16_t *const *x, const Factors *factors, int inputs,
                             const uint8_t *soon, __m512 *totals)
{
    __m512 sums[MAX_INPUTS];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        sums[m] = totals[m];
    int64_t unit = 0;
    for (; unit + 2 <= units; unit += 2) {
        _mm_prefetch((const char *)(soon + unit * (UNIT / 2)), _MM_HINT_T0);
        add_bytes(_mm512_loadu_si512(codes + unit * (UNIT / 2)), table, x, factors, unit, inputs,
                  sums);
    }
    if (unit < units) /* the last one of a row; what stands behind it is multiplied with zeros */
        add_bytes(_mm512_maskz_loadu_epi8(0xffffffffu, codes + unit * (UNIT / 2)), table, x,
                  factors, unit, inputs, sums);
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        totals[m] = sums[m];
}

/* A block of rows with some rows of inputs. While a piece is multiplied, the factors of the next
 * one are worked out: there are two places for them. */
AVX512 INLINE void block_512(const Matrix *w, __m512i table, const Meanings *meanings,
                             const Inputs *x, int inputs, int64_t begin, int64_t end, uint16_t *out)
{
    const int64_t units = w->columns / UNIT, pitch = w->columns / 2, most = PIECE / inputs;
    const int64_t pieces = (units + most - 1) / most;
    const int64_t width = (units + 2 * pieces - 1) / (2 * pieces) * 2;
    __m512 totals[ROW_BLOCK][MAX_INPUTS];
    for (int row = 0; row < ROW_BLOCK; row++)
        for (int m = 0; m < MAX_INPUTS; m++)
            totals[row][m] = _mm512_setzero_ps();
    Factors factors[2];
    find_factors(w, meanings, begin, 0, width < units ? width : units, x, inputs, factors);
    const uint8_t *soon = w->codes + end * pitch;
    int now = 0;
    for (int64_t unit = 0; unit < units; unit += width) {
        const int64_t stop = unit + width < units ? unit + width : units;
        const int64_t after = stop + width < units ? stop + width : units;
        const int16_t *numbers[MAX_INPUTS];
        for (int m = 0; m < inputs; m++)
            numbers[m] = x->numbers + m * x->stride + unit * UNIT;
        for (int64_t row = begin; row < end; row++, now = !now) {
            if (row + 1 < end)
                find_factors(w, meanings, row + 1, unit, stop, x, inputs, factors + !now);
            else
                find_factors(w, meanings, begin, stop, after, x, inputs, factors + !now);
            piece_512(w->codes + row * pitch + unit * (UNIT / 2), stop - unit, table, numbers,
                      factors + now, inputs, soon, totals[row - begin]);
            soon += (stop - unit) * (UNIT / 2);
        }
    }
    for (int64_t row = begin; row < end; row++)
        for (int m = 0; m < inputs; m++)
            out[m * w->rows + row] = to_bf16(_mm512_reduce_add_ps(totals[row - begin][m]));
}

AVX512 static void gemv_512(const Matrix *w, const int16_t *levels, const Meanings *meanings,
                            const Inputs *x, int inputs, int64_t begin, int64_t end, uint16_t *out)
{
    const __m512i table = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)levels));
    switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        block_512(w, table, meanings, x, n, begin, end, out);                                     \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
}

/* ---- scales of a row ---------------------------------------------------------------------- */

/* Where the scales of some units of a row are: each has a code, whose meaning stands in a table, or,
 * without codes, the table has one entry for each unit. */
typedef struct {
    const float *table;
    const uint8_t *codes;
    int64_t begin, end; /* units */
} Scales;

INLINE float scale_of(const Scales *scales, int64_t unit)
{
    return scales->codes ? scales->table[scales->codes[unit]] : scales->table[unit];
}

/* Room for the scales of one thread. */
typedef struct {
    int64_t outer; /* whose meanings `meaning` has, or -1 */
    float meaning[256], wide[MAX_UNITS];
} Room;

/* Find the scales of a row from a unit on, as far as one table reaches, in whole pairs of units
 * unless the row ends. A code means another number in every 256 scales: the meanings are worked out
 * there once, instead of for every scale. */
AVX2 static Scales find_scales(const Matrix *w, int64_t row, int64_t unit, Room *room)
{
    const int64_t units = w->columns / UNIT, groups = w->columns / w->group;
    const int64_t repeats = w->group / UNIT, first = row * groups;
    if (unit == 0) {
        const char *here = w->scales ? (const char *)(w->scales + first)
                                    : (const char *)(w->scale_codes + first);
        const int64_t size = groups * (w->scales ? (int64_t)sizeof(float) : 1);
        for (int64_t i = 0; i < size; i += 64)
            _mm_prefetch(here + ROWS_AHEAD * size + i, _MM_HINT_T0);
    }
    if (repeats > 1) {
        for (int64_t i = 0; i < units; i++)
            room->wide[i] = one_scale(w, first + i / repeats);
        return (Scales){room->wide, NULL, 0, units};
    }
    if (w->scales)
        return (Scales){w->scales + first, NULL, 0, units};
    const int64_t outer = (first + unit) >> 8, left = ((outer + 1) << 8) - first;
    const int64_t end = left < units ? left - (left & 1) : units;
    if (end <= unit) { /* a pair with a scale on either side of the border */
        room->wide[unit] = one_scale(w, first + unit);
        room->wide[unit + 1] = one_scale(w, first + unit + 1);
        return (Scales){room->wide, NULL, unit, unit + 2};
    }
    if (room->outer != outer) {
        const __m256 factor = _mm256_set1_ps(w->outer_scales[outer]), offset = _mm256_set1_ps(w->scale_offset);
        for (int i = 0; i < 256; i += 8) {
            const __m256 product = _mm256_mul_ps(_mm256_loadu_ps(w->scale_map + i), factor);
            _mm256_storeu_ps(room->meaning + i, _mm256_add_ps(product, offset));
        }
        room->outer = outer;
    }
    return (Scales){room->meaning, w->scale_codes + first, unit, end};
}

/* ---- AVX2, whole numbers ----------------------------------------------------------------- */

/* Put the inputs of a unit in the order in which levels come out of the bytes' look-ups: first
 * those of the high halves, of bytes 0 to 7 and 16 to 23, then of the others. */
static void order_256(const int16_t *x, int64_t columns, int16_t *out)
{
    for (int64_t start = 0; start < columns; start += UNIT)
        for (int i = 0; i < UNIT / 2; i++) {
            const int byte = i % 8 + i / 8 % 2 * 16 + i / 16 * 8;
            out[start + i] = x[start + 2 * byte];
            out[start + 32 + i] = x[start + 2 * byte + 1];
        }
}

/* Look up 32 codes (bytes of 0 to 15) byte by byte of the levels, join the bytes, multiply. */
AVX2 INLINE void levels_of(__m256i codes, __m256i low, __m256i high, __m256i *out)
{
    const __m256i a = _mm256_shuffle_epi8(low, codes), b = _mm256_shuffle_epi8(high, codes);
    out[0] = _mm256_unpacklo_epi8(a, b);
    out[1] = _mm256_unpackhi_epi8(a, b);
}

AVX2 INLINE void part_256(const uint8_t *codes, Scales scales, __m256i low, __m256i high,
                          const Inputs *x, int inputs, __m256 *sums)
{
    __m256i levels[4];
    const __m256i nibbles = _mm256_set1_epi8(15);
    for (int64_t unit = scales.begin; unit < scales.end; unit++) {
        const uint8_t *here = codes + unit * (UNIT / 2);
        _mm_prefetch((const char *)(here + AHEAD), _MM_HINT_T1);
        const __m256i pairs = _mm256_loadu_si256((const __m256i *)here);
        levels_of(_mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibbles), low, high, levels);
        levels_of(_mm256_and_si256(pairs, nibbles), low, high, levels + 2);
        const float scale = scale_of(&scales, unit);
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const __m256i *numbers = (const __m256i *)(x->numbers + m * x->stride + unit * UNIT);
            const __m256 factor = _mm256_set1_ps(scale * x->worth[m * (x->stride / UNIT) + unit]);
            const __m256i a = _mm256_add_epi32(_mm256_madd_epi16(levels[0], numbers[0]),
                                               _mm256_madd_epi16(levels[1], numbers[1]));
            const __m256i b = _mm256_add_epi32(_mm256_madd_epi16(levels[2], numbers[2]),
                                               _mm256_madd_epi16(levels[3], numbers[3]));
            const __m256 sum = _mm256_cvtepi32_ps(_mm256_add_epi32(a, b));
            sums[m] = _mm256_fmadd_ps(sum, factor, sums[m]);
        }
    }
}

AVX2 INLINE void row_256(const Matrix *w, int64_t row, __m256i low, __m256i high, const Inputs *x,
                         int inputs, Room *room, uint16_t *out)
{
    __m256 sums[MAX_INPUTS];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        sums[m] = _mm256_setzero_ps();
    const uint8_t *codes = w->codes + row * (w->columns / 2);
    for (Scales scales = {0}; scales.end < w->columns / UNIT;) {
        scales = find_scales(w, row, scales.end, room);
        if (scales.codes)
            part_256(codes, scales, low, high, x, inputs, sums);
        else
            part_256(codes, scales, low, high, x, inputs, sums);
    }
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        out[m * w->rows + row] = to_bf16(sum_of_8(sums[m]));
}

AVX2 static void rows_256(const Matrix *w, const int16_t *levels, const Inputs *x, int inputs,
                          int64_t begin, int64_t end, uint16_t *out)
{
    uint8_t parts[2][32];
    for (int i = 0; i < 32; i++) {
        parts[0][i] = (uint8_t)(levels[i & 15] & 255);
        parts[1][i] = (uint8_t)((uint16_t)levels[i & 15] >> 8);
    }
    const __m256i low = _mm256_loadu_si256((const __m256i *)parts[0]);
    const __m256i high = _mm256_loadu_si256((const __m256i *)parts[1]);
    Room room = {.outer = -1};
    switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        for (int64_t row = begin; row < end; row++)                                               \
            row_256(w, row, low, high, x, n, &room, out);                                         \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
}

/* ---- AVX2, float32 inputs ---------------------------------------------------------------- */

/* Put the inputs of a unit in the order in which levels come out of the bytes' look-ups. */
static void order_f32(const float *x, int64_t columns, float *out)
{
    for (int64_t start = 0; start < columns; start += UNIT)
        for (int i = 0; i < UNIT / 2; i++) {
            const int byte = i / 8 * 4 + i % 4 + i / 4 % 2 * 16;
            out[start + i] = x[start + 2 * byte];
            out[start + 32 + i] = x[start + 2 * byte + 1];
        }
}

/* Look up 32 codes (bytes of 0 to 15) byte by byte of the float32 levels, and join the bytes. */
AVX2 INLINE void look_up(__m256i codes, const __m256i *bytes, __m256 *out)
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
                          const float *x, int64_t stride, int inputs, __m256 *sums)
{
    __m256 even[4], odd[4];
    const __m256i nibbles = _mm256_set1_epi8(15);
    for (int64_t unit = scales.begin; unit < scales.end; unit++) {
        const uint8_t *here = codes + unit * (UNIT / 2);
        _mm_prefetch((const char *)(here + AHEAD), _MM_HINT_T1);
        const __m256i pairs = _mm256_loadu_si256((const __m256i *)here);
        look_up(_mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibbles), bytes, even);
        look_up(_mm256_and_si256(pairs, nibbles), bytes, odd);
        const __m256 scale = _mm256_set1_ps(scale_of(&scales, unit));
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const float *inputs_here = x + m * stride + unit * UNIT;
            const __m256 a = add_32(even, inputs_here, _mm256_setzero_ps());
            const __m256 b = add_32(odd, inputs_here + 32, _mm256_setzero_ps());
            sums[m] = _mm256_fmadd_ps(_mm256_add_ps(a, b), scale, sums[m]);
        }
    }
}

AVX2 INLINE void row_f32(const Matrix *w, int64_t row, const __m256i *bytes, const float *x,
                         int64_t stride, int inputs, Room *room, float *out)
{
    __m256 sums[MAX_INPUTS];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        sums[m] = _mm256_setzero_ps();
    const uint8_t *codes = w->codes + row * (w->columns / 2);
    for (Scales scales = {0}; scales.end < w->columns / UNIT;) {
        scales = find_scales(w, row, scales.end, room);
        part_f32(codes, scales, bytes, x, stride, inputs, sums);
    }
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        out[m * w->rows + row] = sum_of_8(sums[m]);
}

AVX2 static void rows_f32(const Matrix *w, const float *x, int64_t stride, int inputs,
                          int64_t begin, int64_t end, float *out)
{
    __m256i bytes[4];
    for (int part = 0; part < 4; part++) {
        uint8_t of_levels[32];
        for (int i = 0; i < 32; i++)
            of_levels[i] = ((const uint8_t *)&w->levels[i & 15])[part];
        bytes[part] = _mm256_loadu_si256((const __m256i *)of_levels);
    }
    Room room = {.outer = -1};
    switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        for (int64_t row = begin; row < end; row++)                                               \
            row_f32(w, row, bytes, x, stride, n, &room, out);                                     \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
}

/* ---- making rows plain -------------------------------------------------------------------- */

/* A row in bfloat16: at each scale the 16 levels are worked out once, and then looked up. */
AVX512 static void dequantize_row_512(const Matrix *w, int64_t row, Room *room, uint16_t *out)
{
    const __m512 levels = _mm512_loadu_ps(w->levels);
    const uint8_t *codes = w->codes + row * (w->columns / 2);
    for (Scales scales = {0}; scales.end < w->columns / UNIT;) {
        scales = find_scales(w, row, scales.end, room);
        for (int64_t unit = scales.begin; unit < scales.end; unit++) {
            const __m512 scaled = _mm512_mul_ps(levels, _mm512_set1_ps(scale_of(&scales, unit)));
            /* Rounded as to_bf16 does; the instruction for it takes small numbers for zeros. */
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
                /* A byte's high half is the first weight. A fifth bit is harmless, as in add_bytes. */
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

/* A row in float32. */
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
                /* The look-up takes 3 bits; the fourth chooses between two, as their sign. */
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

/* ---- plain bfloat16 matrices ------------------------------------------------------------- */

AVX512 INLINE void gemv_dense_row(const uint16_t *row, const uint16_t *x, int64_t columns, int inputs,
                             float *out)
{
    __m512 first[MAX_INPUTS], second[MAX_INPUTS];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        first[m] = second[m] = _mm512_setzero_ps();
    for (int64_t i = 0; i < columns; i += UNIT) {
        _mm_prefetch((const char *)(row + i) + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)(row + i) + AHEAD + 64, _MM_HINT_T0);
        const __m512bh a = (__m512bh)_mm512_loadu_si512(row + i);
        const __m512bh b = (__m512bh)_mm512_loadu_si512(row + i + 32);
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const uint16_t *here = x + m * columns + i;
            first[m] = _mm512_dpbf16_ps(first[m], a, (__m512bh)_mm512_loadu_si512(here));
            second[m] = _mm512_dpbf16_ps(second[m], b, (__m512bh)_mm512_loadu_si512(here + 32));
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        out[m] = _mm512_reduce_add_ps(_mm512_add_ps(first[m], second[m]));
}

AVX512 static void gemv_dense_rows(const uint16_t *weight, const uint16_t *x, int64_t columns,
                              int inputs, int64_t begin, int64_t end, float *out,
                              int64_t out_stride)
{
    float sums[MAX_INPUTS] = {0};
    for (int64_t row = begin; row < end; row++) {
        const uint16_t *here = weight + row * columns;
        switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        gemv_dense_row(here, x, columns, n, sums);                                                     \
        break;
            CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
        }
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++)
            out[m * out_stride + row] = sums[m];
    }
}
#endif /* ON_X86 */

/* ---- what is called from outside --------------------------------------------------------- */

/* 0: nothing here runs on this processor. 1: the AVX2 functions do. 2: the AVX512 ones too. */
int gemv_level(void)
{
#if ON_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512bf16"))
        return 2;
    return 1;
#else
    return 0;
#endif
}

#if ON_X86
static int64_t padded(int64_t columns)
{
    return (columns + 2 * UNIT - 1) / (2 * UNIT) * (2 * UNIT);
}

/* Loads that cross a cache line cost twice. */
static void *aligned(void *room)
{
    return (char *)room + (64 - (uintptr_t)room % 64);
}

static int four_bit_bf16(int level, const Matrix *w, const uint16_t *x, int64_t inputs,
                         uint16_t *out, int threads)
{
    const int64_t rows = w->rows, columns = w->columns, stride = padded(columns);
    int16_t levels[16];
    const float of_level = whole_levels(w->levels, levels);
    const int64_t units = stride / UNIT;
    /* Zeros: what stands behind the last unit is read, and multiplied with nothing. */
    void *room = calloc((size_t)((inputs + 1) * stride) * sizeof(int16_t) +
                            (size_t)(inputs * units + 64) * sizeof(float) + 64,
                        1);
    if (!room)
        return 1;
    int16_t *numbers = aligned(room), *plain = numbers + inputs * stride;
    float *worth = (float *)(plain + stride);
    for (int64_t m = 0; m < inputs; m++) {
        whole_inputs(x + m * columns, columns, of_level, plain, worth + m * units);
        (level == 2 ? order_512 : order_256)(plain, columns, numbers + m * stride);
    }
    Meanings meanings;
    for (int i = 0; level == 2 && w->scale_map && i < 256; i++)
        for (int part = 0; part < 4; part++)
            meanings.bytes[part][i] = ((const uint8_t *)(w->scale_map + i))[part];
    const int64_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t begin = block * ROW_BLOCK;
        const int64_t end = begin + ROW_BLOCK < rows ? begin + ROW_BLOCK : rows;
        for (int64_t m = 0; m < inputs; m += MAX_INPUTS) {
            const int now = (int)(inputs - m < MAX_INPUTS ? inputs - m : MAX_INPUTS);
            const Inputs some = {numbers + m * stride, worth + m * units, stride};
            if (level == 2)
                gemv_512(w, levels, &meanings, &some, now, begin, end, out + m * rows);
            else
                rows_256(w, levels, &some, now, begin, end, out + m * rows);
        }
    }
    free(room);
    return 0;
}

static int four_bit_f32(const Matrix *w, const float *x, int64_t inputs, float *out, int threads)
{
    const int64_t rows = w->rows, columns = w->columns, stride = padded(columns);
    void *room = malloc((size_t)(inputs * stride) * sizeof(float) + 64);
    if (!room)
        return 1;
    float *ordered = aligned(room);
    for (int64_t m = 0; m < inputs; m++)
        order_f32(x + m * columns, columns, ordered + m * stride);
    const int64_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t begin = block * ROW_BLOCK;
        const int64_t end = begin + ROW_BLOCK < rows ? begin + ROW_BLOCK : rows;
        for (int64_t m = 0; m < inputs; m += MAX_INPUTS)
            rows_f32(w, ordered + m * stride, stride,
                     (int)(inputs - m < MAX_INPUTS ? inputs - m : MAX_INPUTS), begin, end,
                     out + m * rows);
    }
    free(room);
    return 0;
}
#endif /* ON_X86 */

/* out[inputs, rows] = x[inputs, columns] times the transposed 4-bit matrix. x and out are bfloat16,
 * or float32 if `wide`. Returns 0, or 1 when there was no memory. */
int gemv_four_bit(const Matrix *w, int level, int wide, const void *x, int64_t inputs, void *out,
                  int threads)
{
#if ON_X86
    return wide ? four_bit_f32(w, x, inputs, out, threads)
                : four_bit_bf16(level, w, x, inputs, out, threads);
#else
    (void)w, (void)level, (void)wide, (void)x, (void)inputs, (void)out, (void)threads;
    return 1;
#endif
}

/* Make the rows from `begin` to `end` of a 4-bit matrix plain, in float32 if `wide`, else in
 * bfloat16 (level 2 only): each level times its scale, rounded once. */
void dequantize_four_bit(const Matrix *w, int wide, int64_t begin, int64_t end, void *out, int threads)
{
#if ON_X86
    const int64_t blocks = (end - begin + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        Room room = {.outer = -1};
        for (int64_t row = begin + block * ROW_BLOCK; row < end && row < begin + (block + 1) * ROW_BLOCK;
             row++) {
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

/* The same as gemv_four_bit for a plain bfloat16 matrix; level 2 only. */
void gemv_dense(int64_t rows, int64_t columns, const uint16_t *weight, const uint16_t *x,
                int64_t inputs, float *out, int threads)
{
#if ON_X86
    const int64_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t begin = block * ROW_BLOCK;
        const int64_t end = begin + ROW_BLOCK < rows ? begin + ROW_BLOCK : rows;
        for (int64_t m = 0; m < inputs; m += MAX_INPUTS)
            gemv_dense_rows(weight, x + m * columns, columns,
                       (int)(inputs - m < MAX_INPUTS ? inputs - m : MAX_INPUTS), begin, end,
                       out + m * rows, rows);
    }
#else
    (void)rows, (void)columns, (void)weight, (void)x, (void)inputs, (void)out, (void)threads;
#endif
}
