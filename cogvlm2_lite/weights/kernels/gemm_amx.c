/* AMX GEMM: many rows of inputs times a 4-bit matrix, for encoding a picture and for prefill.
 *
 * AMX multiplies a tile of 16 x 32 bfloat16 numbers by one of 32 x 16 and adds the products to 16 x
 * 16 float32 sums. In the second factor two neighbours along the summed dimension must be adjacent
 * in memory. The matrix is the first factor, because its stored order fits: two codes of a byte are
 * neighbours of one row. The inputs are the second factor and are rearranged once. The result is
 * transposed, so it is transposed back when it is written.
 *
 * The weights of 256 matrix rows and 256 columns are dequantized at a time. They stay in the L2
 * cache while they are multiplied by up to 1024 inputs, and so do the sums. For each group the 16
 * levels are multiplied by the scale and rounded to bfloat16, as bitsandbytes does; weights are
 * then looked up among these 16 values.
 *
 * A sum depends only on its own row and input. Its order of summation does not depend on the number
 * of threads or of inputs.
 *
 * Called through ctypes (kernels/gemm_amx.py); sizes are checked there.
 */

#define _GNU_SOURCE /* syscall */
#include "amx.h"

#define BAND 256                  /* matrix rows dequantized at a time */
#define DEEP 256                  /* matrix columns dequantized at a time */
#define MOST_INPUTS 1024          /* most inputs multiplied by the dequantized weights */
#define MOST_BYTES (16 << 20)     /* most bytes of inputs rearranged at a time */
#define MOST_THREAD_BYTES (12 << 20) /* of all threads together; the memory plan assumes both */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static int64_t bytes_of_a_thread(int64_t at_once)
{
    return BAND * DEEP * 2 + BAND * at_once * 4;
}

/* Return the number of inputs to process at a time: equal shares, whole pairs of tiles. */
static int64_t inputs_at_once(int64_t inputs, int64_t columns, int threads)
{
    const int64_t of_sums = MOST_THREAD_BYTES / threads - bytes_of_a_thread(0);
    int64_t most = smaller(MOST_BYTES / (columns * 2), of_sums / (BAND * 4)) / PAIR * PAIR;
    most = most < PAIR ? PAIR : smaller(most, MOST_INPUTS);
    const int64_t shares = (inputs + most - 1) / most;
    return rounded((inputs + shares - 1) / shares, PAIR);
}

/* Return the bytes of the buffer `room` that gemm_amx_four_bit needs. */
int64_t gemm_amx_room(int64_t columns, int64_t inputs, int threads)
{
    const int64_t at_once = inputs_at_once(inputs, columns, threads);
    return at_once * columns * 2 + threads * bytes_of_a_thread(at_once) + 64;
}

#if HAS_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* Rearrange 32 inputs, all columns, into tiles of pairs: for each 32 columns two tiles of 16
 * inputs. Missing inputs become zeros. */
AMX static void rearrange(const uint16_t *x, int64_t columns, int64_t inputs, uint16_t *out)
{
    for (int64_t k = 0; k < columns; k += STEP)
        for (int64_t half = 0; half < PAIR; half += SIDE) {
            __m512i r[SIDE];
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++)
                r[i] = half + i < inputs ? _mm512_loadu_si512(x + (half + i) * columns + k)
                                         : _mm512_setzero_si512();
            transpose(r);
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++)
                _mm512_store_si512(out + i * STEP, r[i]);
            out += TILE;
        }
}

/* Dequantize `deep` columns of a band of rows into tiles: for each 32 rows and each 32 columns two
 * tiles of 16 rows. Missing rows become zeros. */
AMX static void dequantize(const Matrix *w, int64_t row, int64_t band, int64_t column,
                             int64_t deep, uint16_t *out)
{
    const __m512 levels = _mm512_loadu_ps(w->levels);
    for (int64_t n = 0; n < band; n++) {
        uint16_t *to = out + n / PAIR * PAIR * deep + n % PAIR * STEP;
        if (row + n >= w->rows) {
            for (int64_t k = 0; k < deep; k += STEP)
                _mm512_store_si512(to + k * PAIR, _mm512_setzero_si512());
            continue;
        }
        const uint8_t *codes = w->codes + ((row + n) * w->columns + column) / 2;
        const float *scales = w->scales + (row + n) * (w->columns / w->group);
        for (int64_t k = 0; k < deep; k += UNIT) {
            _mm_prefetch((const char *)(codes + (DEEP + k) / 2), _MM_HINT_T1);
            const __m512 scale = _mm512_set1_ps(scales[(column + k) / w->group]);
            const __m256i half = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(levels, scale));
            /* The table is stored twice, so that the fifth bit of an index has no effect. */
            const __m512i table = _mm512_broadcast_i64x4(half);
#pragma GCC unroll 2
            for (int64_t i = k; i < k + UNIT; i += STEP) {
                const __m128i pairs = _mm_loadu_si128((const __m128i *)(codes + i / 2));
                const __m512i wide = _mm512_cvtepu8_epi32(pairs);
                const __m512i index =
                    _mm512_or_si512(_mm512_srli_epi32(wide, 4), _mm512_slli_epi32(wide, 16));
                _mm512_store_si512(to + i * PAIR, _mm512_permutexvar_epi16(index, table));
            }
        }
    }
}

/* Multiply 32 rows by 32 inputs over some columns. sums: four tiles; overwritten if first, else
 * added to. */
AMX INLINE void multiply(const uint16_t *rows, const uint16_t *inputs, int64_t deep, int first,
                           float *sums)
{
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + 256, 64);
        _tile_loadd(2, sums + 512, 64);
        _tile_loadd(3, sums + 768, 64);
    }
    for (int64_t k = 0; k < deep; k += STEP) {
        _tile_loadd(4, rows, 64);
        _tile_loadd(6, inputs, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, rows + TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(7, inputs + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
        rows += 2 * TILE;
        inputs += 2 * TILE;
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
}

/* Transpose the sums of 32 rows and 16 inputs, add the bias, round, and write those that are inside
 * the result. Each input's 32 results are one write: a full cache line. */
AMX static void write_sums(const float *upper, const float *lower, int64_t rows, int64_t inputs,
                             const __m512 *bias, uint16_t *out, int64_t out_stride)
{
    __m512i a[SIDE], b[SIDE];
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        a[i] = _mm512_load_si512(upper + i * SIDE);
    transpose(a);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        b[i] = _mm512_load_si512(lower + i * SIDE);
    transpose(b);
    const __mmask32 there = (__mmask32)(((uint64_t)1 << smaller(rows, PAIR)) - 1);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        if (i < inputs) {
            const __m512 first = _mm512_add_ps(_mm512_castsi512_ps(a[i]), bias[0]);
            const __m512 second = _mm512_add_ps(_mm512_castsi512_ps(b[i]), bias[1]);
            _mm512_mask_storeu_epi16(out + i * out_stride, there,
                                     (__m512i)_mm512_cvtne2ps_pbh(second, first));
        }
}

AMX static __m512 bias_of(const uint16_t *bias, int64_t rows)
{
    if (!bias || rows <= 0)
        return _mm512_setzero_ps();
    const __mmask16 there = (__mmask16)((1u << smaller(rows, SIDE)) - 1);
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, bias));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* Multiply a band of rows by all rearranged inputs, and write the results. */
AMX static void multiply_band(const Matrix *w, int64_t row, int64_t band,
                                const uint16_t *arranged, int64_t inputs, const uint16_t *bias,
                                uint16_t *out, char *room)
{
    uint16_t *weights = (uint16_t *)room;
    float *sums = (float *)(room + BAND * DEEP * 2);
    const int64_t pairs = (inputs + PAIR - 1) / PAIR, padded = rounded(band, PAIR);
    /* 1. Dequantize 256 columns, then multiply them by all inputs. */
    for (int64_t k = 0; k < w->columns; k += DEEP) {
        const int64_t deep = smaller(DEEP, w->columns - k);
        dequantize(w, row, padded, k, deep, weights);
        for (int64_t m = 0; m < pairs; m++)
            for (int64_t n = 0; n < padded / PAIR; n++)
                multiply(weights + n * PAIR * deep, arranged + (m * w->columns + k) * PAIR, deep,
                         k == 0, sums + (m * (padded / PAIR) + n) * 4 * SIDE * SIDE);
    }
    /* 2. The sums of all columns are complete: write them. */
    for (int64_t n = 0; n < band; n += PAIR) {
        const uint16_t *here = bias ? bias + row + n : NULL;
        const __m512 add[2] = {bias_of(here, band - n),
                               bias_of(here ? here + SIDE : NULL, band - n - SIDE)};
        for (int64_t m = 0; m < pairs; m++) {
            const float *four = sums + (m * padded + n) * PAIR;
            for (int64_t half = 0; half < 2; half++) {
                const int64_t input = m * PAIR + half * SIDE;
                write_sums(four + half * SIDE * SIDE, four + (2 + half) * SIDE * SIDE, band - n,
                           inputs - input, add, out + input * w->rows + row + n, w->rows);
            }
        }
    }
}
#endif /* HAS_AMX */

/* Return 1 if this processor has AMX for bfloat16 and the system permits its use, else 0. */
int gemm_amx_works(void)
{
#if HAS_AMX
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1))
        return 0;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512bf16"))
        return 0;
    /* A process must ask Linux for permission, because tiles add 8 KiB to each thread's state. */
    const long ask_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, ask_permission, tile_data) == 0;
#else
    return 0;
#endif
}

/* out[inputs, rows] = x[inputs, columns] times the transposed 4-bit matrix, plus the bias.
 * scales: float32, one per group, also if the matrix stores them as codes. x, bias (or NULL) and
 * out: bfloat16. room: a buffer of gemm_amx_room bytes. */
void gemm_amx_four_bit(const Matrix *matrix, const float *scales, const uint16_t *x,
                       int64_t inputs, const uint16_t *bias, uint16_t *out, void *room,
                       int threads)
{
#if HAS_AMX
    Matrix w = *matrix;
    w.scales = scales;
    const int64_t rows = w.rows, columns = w.columns;
    const int64_t at_once = inputs_at_once(inputs, columns, threads);
    char *start = (char *)room + (64 - (uintptr_t)room % 64) % 64;
    uint16_t *arranged = (uint16_t *)start;
    char *rooms = start + at_once * columns * 2;
    /* Smaller bands if there would be too few of them to keep all threads busy. */
    int64_t band = BAND;
    while (band > 64 && rows < 4 * threads * band)
        band /= 2;
    const int64_t bands = (rows + band - 1) / band;
    for (int64_t first = 0; first < inputs; first += at_once) {
        const int64_t now = smaller(at_once, inputs - first);
        const int64_t pairs = (now + PAIR - 1) / PAIR;
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
#ifdef _OPENMP
            const int me = omp_get_thread_num();
#else
            const int me = 0;
#endif
            begin_tiles();
#pragma omp for schedule(static)
            for (int64_t m = 0; m < pairs; m++)
                rearrange(x + (first + m * PAIR) * columns, columns, now - m * PAIR,
                          arranged + m * PAIR * columns);
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < bands; i++)
                multiply_band(&w, i * band, smaller(band, rows - i * band), arranged, now, bias,
                              out + first * rows, rooms + me * bytes_of_a_thread(at_once));
            end_tiles();
        }
    }
#else
    (void)matrix, (void)scales, (void)x, (void)inputs, (void)bias, (void)out, (void)room;
    (void)threads;
#endif
}
