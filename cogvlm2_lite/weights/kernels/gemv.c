/* Few rows of float32 inputs times a 4-bit matrix in float32 throughout (GEMV), and a dequantizer,
 * whose result torch multiplies by many rows.
 *
 * Other products with 4-bit matrices are in integer.c.
 *
 * A GEMV reads each weight once, so memory bandwidth is the limit. 4-bit matrices are read in their
 * stored layout (bitsandbytes': row after row, two codes per byte, the first in the high half),
 * without a second copy. The 16 levels are in registers, in which an instruction looks up codes.
 * The inputs are rearranged once into the order in which codes are extracted from bytes.
 *
 * The functions are compiled on every x86-64 machine; the level (matrix.h) determines which of them
 * are used. An output row is summed by one thread in a fixed order, so results do not depend on the
 * number of threads or on the other input rows.
 *
 * Called through ctypes (kernels/gemv.py); sizes are checked there.
 */

#include <stdlib.h>

#include "matrix.h"

#define MAX_INPUTS 4     /* input rows per pass over the weights; more do not fit into L1 */
#define ROW_BLOCK 16     /* matrix rows that one thread processes at a time */
#define AHEAD_BYTES 6144 /* distance between prefetching weights and using them */
#define AHEAD_ROWS 8     /* the same for scales, in rows */
#define MAX_UNITS 1024   /* the widest matrix has 65,536 columns */

#define AVX512                                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,"            \
                          "avx512bf16,avx2,fma")))
#define AVX2 __attribute__((target("avx2,fma")))

#if ON_X86

/* ---- helpers ----------------------------------------------------------------------------- */

AVX2 INLINE float sum_of_8(__m256 v)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
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

/* ---- float32 inputs ---------------------------------------------------------------------- */

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

/* Multiply the units of a row whose scales are in one table. */
AVX2 INLINE void part_f32(const uint8_t *codes, Scales scales, const __m256i *bytes,
                          const float *x, int64_t columns, int inputs, __m256 *sums)
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
            const float *inputs_here = x + m * columns + unit * UNIT;
            const __m256 a = add_32(even, inputs_here, _mm256_setzero_ps());
            const __m256 b = add_32(odd, inputs_here + 32, _mm256_setzero_ps());
            sums[m] = _mm256_fmadd_ps(_mm256_add_ps(a, b), scale, sums[m]);
        }
    }
}

/* Multiply one row by some rows of inputs. `inputs` is a constant in every caller, so that the
 * compiler keeps the sums in registers. */
AVX2 INLINE void row_f32(const Matrix *w, int64_t row, const __m256i *bytes, const float *x,
                         int inputs, Room *room, float *out)
{
    __m256 sums[MAX_INPUTS];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        sums[m] = _mm256_setzero_ps();
    const uint8_t *codes = w->codes + row * (w->columns / 2);
    for (Scales scales = {0}; scales.end < w->columns / UNIT;) {
        scales = find_scales(w, row, scales.end, room);
        part_f32(codes, scales, bytes, x, w->columns, inputs, sums);
    }
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        out[m * w->rows + row] = sum_of_8(sums[m]);
}

/* Multiply rows by some rows of inputs. */
AVX2 static void rows_f32(const Matrix *w, const float *x, int inputs, int64_t begin, int64_t end,
                          float *out)
{
    /* A look-up returns bytes, so there is one table per byte of a level: 16 entries, twice. */
    __m256i bytes[4];
    for (int part = 0; part < 4; part++) {
        uint8_t of_levels[32];
        for (int i = 0; i < 32; i++)
            of_levels[i] = ((const uint8_t *)w->levels)[(i & 15) * 4 + part];
        bytes[part] = _mm256_loadu_si256((const __m256i *)of_levels);
    }
    Room room = {.outer = -1};
    switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        for (int64_t row = begin; row < end; row++)                                               \
            row_f32(w, row, bytes, x, n, &room, out);                                             \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
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
            /* Round to the nearest, ties to even, as torch does; the instruction for it would flush denormals to zero. */
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

/* out[inputs, rows] = x[inputs, columns] times the transposed 4-bit matrix, all in float32. Returns
 * 0, or 1 if no memory could be allocated. */
int gemv_four_bit(const Matrix *w, const float *x, int64_t inputs, float *out, int threads)
{
#if ON_X86
    const int64_t rows = w->rows, columns = w->columns;
    /* 1. Rearrange the inputs. */
    float *ordered = aligned_alloc(64, (size_t)(inputs * columns + UNIT) * sizeof(float));
    if (!ordered)
        return 1;
    for (int64_t m = 0; m < inputs; m++)
        order_f32(x + m * columns, columns, ordered + m * columns);
    /* 2. Blocks of matrix rows on all threads, each by up to MAX_INPUTS input rows at a time. */
    const int64_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t begin = block * ROW_BLOCK;
        const int64_t end = begin + ROW_BLOCK < rows ? begin + ROW_BLOCK : rows;
        for (int64_t m = 0; m < inputs; m += MAX_INPUTS) {
            const int now = (int)(inputs - m < MAX_INPUTS ? inputs - m : MAX_INPUTS);
            rows_f32(w, ordered + m * columns, now, begin, end, out + m * rows);
        }
    }
    free(ordered);
    return 0;
#else
    (void)w, (void)x, (void)inputs, (void)out, (void)threads;
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
