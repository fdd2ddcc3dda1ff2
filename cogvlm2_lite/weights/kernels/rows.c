/* Multiplying a few rows with large matrices: what decoding does for every token.
 *
 * Such a product reads each weight once, so the limit is how fast memory can be read. 4-bit
 * matrices are read as they are stored (bitsandbytes' layout: row after row, two codes a byte, the
 * first in the high half), without a second copy: a row of 16 levels in a register turns codes into
 * numbers by a permutation, and the inputs are put into the order in which codes come out of bytes.
 *
 * Two versions of each function stand below, for AVX512-BF16 (products of bfloat16 pairs) and for
 * AVX2 with FMA (float32). Both are compiled wherever this file is, and the caller asks
 * `rows_level` which one this processor runs. Both sum in float32; an output row is summed by one
 * thread, in an order that depends on nothing else, so results do not depend on the number of
 * threads or of other input rows.
 *
 * Plain C, called through ctypes (kernels/rows.py); sizes are checked there.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INPUTS 4   /* input rows in one pass over the weights; more leave the L1 cache */
#define UNIT 64        /* weights decoded at a time; groups hold a whole number of them */
#define ROWS_AT_ONCE 2 /* matrix rows that share the reading of inputs */
#define PIECE 16       /* matrix rows that one thread takes at a time */
#define AHEAD 2048     /* bytes between asking memory for weights and using them */
#define MAX_UNITS 1024 /* the widest matrix has 65,536 columns */

/* Built by gcc and clang; other compilers give a library that runs nowhere. */
#if defined(__GNUC__) && defined(__x86_64__)
#define ON_X86 1
#include <immintrin.h>
#else
#define ON_X86 0
#endif

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")))
#define AVX2 __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline))

/* A 4-bit matrix as it is stored. Its scales, one for each group, are float32 (plain) or, with
 * double quantization, 8-bit codes, 256 of which share a float32. */
typedef struct {
    const uint8_t *codes; /* [rows, columns / 2] */
    const float *levels;  /* [16] */
    const float *plain;   /* [rows, columns / group], or NULL */
    const uint8_t *scale_codes;
    const float *outer; /* one for 256 scales, counted over the whole matrix */
    const float *map;   /* [256] */
    float offset;
    int64_t columns, group;
} Matrix;

#if ON_X86

/* ---- small things ------------------------------------------------------------------------ */

INLINE uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

AVX2 INLINE float sum_of_8(__m256 v)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
}

INLINE float one_scale(const Matrix *w, int64_t index)
{
    if (w->plain)
        return w->plain[index];
    /* Product and sum round one after the other, as in bitsandbytes: the build forbids fusing. */
    return w->map[w->scale_codes[index]] * w->outer[index >> 8] + w->offset;
}

/* Give the scale of each unit of a row as float32. */
AVX2 static void widen_scales(const Matrix *w, int64_t row, float *out)
{
    const int64_t groups = w->columns / w->group, repeats = w->group / UNIT;
    const int64_t first = row * groups;
    int64_t i = 0;
    if (repeats == 1 && w->plain) {
        memcpy(out, w->plain + first, (size_t)groups * sizeof(float));
        return;
    }
    const __m256 offset = _mm256_set1_ps(w->offset);
    while (repeats == 1 && i + 8 <= groups) {
        const int64_t index = first + i;
        if ((index & 255) > 248) { /* these eight have two outer scales */
            for (int64_t j = 0; j < 8; j++)
                out[i + j] = one_scale(w, index + j);
        } else {
            const __m256i codes = _mm256_cvtepu8_epi32(
                _mm_loadl_epi64((const __m128i *)(w->scale_codes + index)));
            const __m256 found = _mm256_i32gather_ps(w->map, codes, 4);
            const __m256 product = _mm256_mul_ps(found, _mm256_set1_ps(w->outer[index >> 8]));
            _mm256_storeu_ps(out + i, _mm256_add_ps(product, offset));
        }
        i += 8;
    }
    for (; i < groups; i++)
        for (int64_t j = 0; j < repeats; j++)
            out[i * repeats + j] = one_scale(w, first + i);
}

/* ---- AVX512-BF16 ------------------------------------------------------------------------- */

/* Put the inputs of 128 columns in the order in which codes come out of 64 bytes: of every four
 * columns first all the second ones, then the first, fourth and third. What stands behind the last
 * column is zero. */
static void order_bf16(const uint16_t *x, int64_t columns, uint16_t *out)
{
    static const int column_of[4] = {1, 0, 3, 2};
    for (int64_t start = 0; start < columns; start += 2 * UNIT)
        for (int part = 0; part < 4; part++)
            for (int i = 0; i < 32; i++) {
                const int64_t column = start + 4 * i + column_of[part];
                out[start + 32 * part + i] = column < columns ? x[column] : 0;
            }
}

/* Add 128 products for each pair of a matrix row and an input row. The halves of a row's 64 bytes
 * may have different scales. */
AVX512 INLINE void add_bytes(const __m512i *bytes, const __m512 *scales, __m512i table,
                             const uint16_t *x, int64_t stride, int rows, int inputs, __m512 *sums)
{
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        /* A lane of 16 bits holds four codes. The permutation looks at 5 bits of a lane, and the
         * table has its 16 levels twice, so the fifth bit, part of the next code, is harmless. */
        const __m512i all = bytes[r];
        const __m512bh a = (__m512bh)_mm512_permutexvar_epi16(all, table);
        const __m512bh b = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(all, 4), table);
        const __m512bh c = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(all, 8), table);
        const __m512bh d = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(all, 12), table);
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const uint16_t *here = x + m * stride;
            /* Two short chains: one of four would wait for itself. */
            __m512 one = _mm512_dpbf16_ps(_mm512_setzero_ps(), a,
                                          (__m512bh)_mm512_loadu_si512(here));
            __m512 two = _mm512_dpbf16_ps(_mm512_setzero_ps(), c,
                                          (__m512bh)_mm512_loadu_si512(here + 64));
            one = _mm512_dpbf16_ps(one, b, (__m512bh)_mm512_loadu_si512(here + 32));
            two = _mm512_dpbf16_ps(two, d, (__m512bh)_mm512_loadu_si512(here + 96));
            sums[r * inputs + m] =
                _mm512_fmadd_ps(_mm512_add_ps(one, two), scales[r], sums[r * inputs + m]);
        }
    }
}

/* Some rows of the matrix with some rows of inputs. */
AVX512 INLINE void block_bf16(const uint8_t *codes, int64_t row_bytes, const float *scales,
                              __m512i table, const uint16_t *x, int64_t units, int64_t stride,
                              int rows, int inputs, float *out, int64_t out_stride)
{
    __m512 sums[ROWS_AT_ONCE * MAX_INPUTS], wide[ROWS_AT_ONCE];
    __m512i bytes[ROWS_AT_ONCE];
#pragma GCC unroll 8
    for (int i = 0; i < rows * inputs; i++)
        sums[i] = _mm512_setzero_ps();
    const __mmask16 second = 0xff00;
    const uint8_t *next = codes + (rows == 1 ? AHEAD : rows * row_bytes);
    int64_t unit = 0;
    for (; unit + 2 <= units; unit += 2) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            const uint8_t *here = codes + r * row_bytes + unit * (UNIT / 2);
            /* The rows lie behind each other: ask for the next ones from front to back. */
            _mm_prefetch((const char *)(next + (unit / 2 * rows + r) * 64), _MM_HINT_T0);
            const float *pair = scales + r * MAX_UNITS + unit;
            bytes[r] = _mm512_loadu_si512(here);
            wide[r] = _mm512_mask_broadcastss_ps(_mm512_set1_ps(pair[0]), second,
                                                 _mm_load_ss(pair + 1));
        }
        add_bytes(bytes, wide, table, x + unit * UNIT, stride, rows, inputs, sums);
    }
    if (unit < units) {
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            bytes[r] = _mm512_maskz_loadu_epi8(0xffffffffu,
                                               codes + r * row_bytes + unit * (UNIT / 2));
            wide[r] = _mm512_set1_ps(scales[r * MAX_UNITS + unit]);
        }
        add_bytes(bytes, wide, table, x + unit * UNIT, stride, rows, inputs, sums);
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++)
            out[m * out_stride + r] = _mm512_reduce_add_ps(sums[r * inputs + m]);
}

AVX512 static void rows_bf16(const Matrix *w, const uint16_t *x, int64_t stride, int inputs,
                             int64_t begin, int64_t end, float *out, int64_t out_stride)
{
    uint16_t levels[32];
    for (int i = 0; i < 32; i++)
        levels[i] = to_bf16(w->levels[i & 15]);
    const __m512i table = _mm512_loadu_si512(levels);
    float scales[ROWS_AT_ONCE * MAX_UNITS];
    const int64_t row_bytes = w->columns / 2, units = w->columns / UNIT;
    int64_t row = begin;
    while (row < end) {
        const int now = end - row < ROWS_AT_ONCE ? 1 : ROWS_AT_ONCE;
        for (int r = 0; r < now; r++)
            widen_scales(w, row + r, scales + r * MAX_UNITS);
        switch (now * 16 + inputs) {
#define CASE(r, n)                                                                                \
    case r * 16 + n:                                                                              \
        block_bf16(w->codes + row * row_bytes, row_bytes, scales, table, x, units, stride, r, n,  \
                   out + row, out_stride);                                                        \
        break;
            CASE(2, 1) CASE(2, 2) CASE(2, 3) CASE(2, 4)
            CASE(1, 1) CASE(1, 2) CASE(1, 3) CASE(1, 4)
#undef CASE
        }
        row += now;
    }
}

/* ---- AVX2 -------------------------------------------------------------------------------- */

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

AVX2 INLINE void row_f32(const uint8_t *codes, const float *scales, const __m256i *bytes,
                         const float *x, int64_t units, int64_t stride, int inputs, float *out)
{
    __m256 sums[MAX_INPUTS], even[4], odd[4];
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        sums[m] = _mm256_setzero_ps();
    const __m256i nibbles = _mm256_set1_epi8(15);
    for (int64_t unit = 0; unit < units; unit++) {
        const uint8_t *here = codes + unit * (UNIT / 2);
        _mm_prefetch((const char *)(here + AHEAD), _MM_HINT_T0);
        const __m256i pairs = _mm256_loadu_si256((const __m256i *)here);
        look_up(_mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibbles), bytes, even);
        look_up(_mm256_and_si256(pairs, nibbles), bytes, odd);
        const __m256 scale = _mm256_set1_ps(scales[unit]);
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const float *inputs_here = x + m * stride + unit * UNIT;
            const __m256 a = add_32(even, inputs_here, _mm256_setzero_ps());
            const __m256 b = add_32(odd, inputs_here + 32, _mm256_setzero_ps());
            sums[m] = _mm256_fmadd_ps(_mm256_add_ps(a, b), scale, sums[m]);
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < inputs; m++)
        out[m] = sum_of_8(sums[m]);
}

AVX2 static void rows_f32(const Matrix *w, const float *x, int64_t stride, int inputs,
                          int64_t begin, int64_t end, float *out, int64_t out_stride)
{
    __m256i bytes[4];
    for (int part = 0; part < 4; part++) {
        uint8_t of_levels[32];
        for (int i = 0; i < 32; i++)
            of_levels[i] = ((const uint8_t *)&w->levels[i & 15])[part];
        bytes[part] = _mm256_loadu_si256((const __m256i *)of_levels);
    }
    float scales[MAX_UNITS], sums[MAX_INPUTS] = {0};
    for (int64_t row = begin; row < end; row++) {
        const uint8_t *codes = w->codes + row * (w->columns / 2);
        widen_scales(w, row, scales);
        switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        row_f32(codes, scales, bytes, x, w->columns / UNIT, stride, n, sums);                 \
        break;
            CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
        }
        for (int m = 0; m < inputs; m++)
            out[m * out_stride + row] = sums[m];
    }
}

/* ---- plain bfloat16 matrices ------------------------------------------------------------- */

AVX512 INLINE void dense_row(const uint16_t *row, const uint16_t *x, int64_t columns, int inputs,
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

AVX512 static void dense_rows(const uint16_t *weight, const uint16_t *x, int64_t columns,
                              int inputs, int64_t begin, int64_t end, float *out,
                              int64_t out_stride)
{
    float sums[MAX_INPUTS] = {0};
    for (int64_t row = begin; row < end; row++) {
        const uint16_t *here = weight + row * columns;
        switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        dense_row(here, x, columns, n, sums);                                                     \
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

/* 0: nothing here runs on this processor. 1: the AVX2 functions do. 2: AVX512-BF16 too. */
int rows_level(void)
{
#if ON_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bf16"))
        return 2;
    return 1;
#else
    return 0;
#endif
}

/* out[inputs, rows] = x[inputs, columns] times the transposed 4-bit matrix.
 * x: bfloat16 at level 2, float32 at level 1. Returns 0, or 1 when there was no memory. */
int rows_four_bit(int level, int64_t rows, int64_t columns, int64_t group,
                         const uint8_t *codes, const float *levels, const float *plain,
                         const uint8_t *scale_codes, const float *outer, const float *map,
                         float offset, const void *x, int64_t inputs, float *out, int threads)
{
#if ON_X86
    const Matrix w = {codes, levels, plain, scale_codes, outer, map, offset, columns, group};
    const int64_t stride = (columns + 2 * UNIT - 1) / (2 * UNIT) * (2 * UNIT);
    const size_t size = level == 2 ? sizeof(uint16_t) : sizeof(float);
    char *room = malloc((size_t)(inputs * stride) * size + 64);
    if (!room)
        return 1;
    /* Loads that cross a cache line cost twice. */
    char *ordered = room + (64 - (uintptr_t)room % 64);
    for (int64_t m = 0; m < inputs; m++) {
        if (level == 2)
            order_bf16((const uint16_t *)x + m * columns, columns,
                       (uint16_t *)ordered + m * stride);
        else
            order_f32((const float *)x + m * columns, columns, (float *)ordered + m * stride);
    }
    const int64_t pieces = (rows + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t begin = piece * PIECE;
        const int64_t end = begin + PIECE < rows ? begin + PIECE : rows;
        for (int64_t m = 0; m < inputs; m += MAX_INPUTS) {
            const int now = (int)(inputs - m < MAX_INPUTS ? inputs - m : MAX_INPUTS);
            if (level == 2)
                rows_bf16(&w, (const uint16_t *)ordered + m * stride, stride, now, begin, end,
                          out + m * rows, rows);
            else
                rows_f32(&w, (const float *)ordered + m * stride, stride, now, begin, end,
                         out + m * rows, rows);
        }
    }
    free(room);
    return 0;
#else
    (void)level, (void)rows, (void)columns, (void)group, (void)codes, (void)levels;
    (void)plain, (void)scale_codes, (void)outer, (void)map, (void)offset, (void)x, (void)inputs;
    (void)out, (void)threads;
    return 1;
#endif
}

/* The same for a plain bfloat16 matrix; level 2 only. */
void rows_dense(int64_t rows, int64_t columns, const uint16_t *weight, const uint16_t *x,
                       int64_t inputs, float *out, int threads)
{
#if ON_X86
    const int64_t pieces = (rows + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t begin = piece * PIECE;
        const int64_t end = begin + PIECE < rows ? begin + PIECE : rows;
        for (int64_t m = 0; m < inputs; m += MAX_INPUTS)
            dense_rows(weight, x + m * columns, columns,
                       (int)(inputs - m < MAX_INPUTS ? inputs - m : MAX_INPUTS), begin, end,
                       out + m * rows, rows);
    }
#else
    (void)rows, (void)columns, (void)weight, (void)x, (void)inputs, (void)out, (void)threads;
#endif
}
