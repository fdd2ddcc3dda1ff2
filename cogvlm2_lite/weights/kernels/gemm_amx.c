/* AMX GEMM: many rows of inputs times a 4-bit matrix, for encoding a picture and for prefill.
 *
 * The matrix is the first factor of a tile product (amx.h), because its stored order fits: two codes
 * of a byte are neighbours of one row. The inputs are the second factor and are rearranged once. The
 * result is transposed, so it is transposed back when it is written.
 *
 * 256 inputs stay in the L2 cache. Meanwhile the matrix goes through in panels of 32 rows: while a
 * panel is multiplied, the next one is dequantized between the tile instructions, because tiles and
 * vectors are computed by different parts of the processor. Up to 2048 columns are summed in the
 * tiles at once; longer rows are cut, and the sums of 512 rows are kept meanwhile. For each group
 * the 16 levels are multiplied by the scale and rounded to bfloat16, as bitsandbytes does; weights
 * are then looked up among these 16 values.
 *
 * A sum depends only on its own row and input. Its order of summation does not depend on the number
 * of threads or of inputs.
 *
 * Called through ctypes (kernels/gemm_amx.py); sizes are checked there.
 */

#define _GNU_SOURCE /* syscall */
#include "amx.h"
#include "avx512.h"

#define MOST_INPUTS 256       /* inputs that stay in the L2 cache */
#define PANELS (MOST_INPUTS / PAIR)
#define ROWS_PER_STEP (PAIR / PANELS) /* rows dequantized while 32 inputs are multiplied */
#define MOST_BYTES (16 << 20) /* most bytes of inputs rearranged at a time */
#define FEW_THREADS 12        /* up to so many threads have much memory each */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Return the number of columns that are summed at once: equal shares, whole units. */
static int64_t columns_at_once(int64_t columns, int threads)
{
    const int64_t whole = threads <= FEW_THREADS ? 2048 : 512;
    if (columns <= whole)
        return columns;
    const int64_t most = threads <= FEW_THREADS ? 1024 : 512;
    const int64_t shares = (columns + most - 1) / most;
    return rounded((columns + shares - 1) / shares, UNIT);
}

/* Return the most panels whose sums a thread keeps. More if rows are cut: for each of them a part of
 * the inputs comes from the L3 cache. */
static int64_t panels_at_once(int64_t columns, int threads)
{
    if (threads > FEW_THREADS)
        return 3;
    return columns_at_once(columns, threads) < columns ? 16 : 8;
}

/* Return the number of inputs to process at a time: equal shares, whole pairs of tiles. */
static int64_t inputs_at_once(int64_t inputs, int64_t columns)
{
    const int64_t fit = MOST_BYTES / (columns * 2) / PAIR * PAIR;
    const int64_t most = fit < PAIR ? PAIR : smaller(fit, MOST_INPUTS);
    const int64_t shares = (inputs + most - 1) / most;
    return rounded((inputs + shares - 1) / shares, PAIR);
}

/* Two panels of dequantized weights, and sums. At most 12 MiB for all threads: the memory plan
 * (memory/work.py) assumes this and MOST_BYTES. */
static int64_t bytes_of_a_thread(int64_t columns, int threads)
{
    return 2 * PAIR * columns_at_once(columns, threads) * 2 +
           panels_at_once(columns, threads) * MOST_INPUTS * PAIR * 4;
}

/* Return the bytes of the buffer `room` that gemm_amx_four_bit needs. */
int64_t gemm_amx_room(int64_t columns, int64_t inputs, int threads)
{
    return inputs_at_once(inputs, columns) * columns * 2 +
           threads * bytes_of_a_thread(columns, threads) + 64;
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
            transpose_16(r);
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++)
                _mm512_store_si512(out + i * STEP, r[i]);
            out += TILE;
        }
}

/* 32 rows of a matrix and some of its columns, and where their weights are put: for each 32 columns
 * two tiles of 16 rows. */
typedef struct {
    int64_t row, column, deep;
    uint16_t *weights;
} Panel;

/* Dequantize 64 columns, from `k` on, of a panel's row n. A missing row becomes zeros. */
AMX INLINE void dequantize(const Matrix *w, const Panel *p, int64_t n, int64_t k)
{
    uint16_t *to = p->weights + n * STEP + k * PAIR;
    if (p->row + n >= w->rows) {
        _mm512_store_si512(to, _mm512_setzero_si512());
        _mm512_store_si512(to + STEP * PAIR, _mm512_setzero_si512());
        return;
    }
    const int64_t first = (p->row + n) * w->columns + p->column + k;
    const uint8_t *codes = w->codes + first / 2;
    _mm_prefetch((const char *)(codes + 256), _MM_HINT_T0);
    const __m512 scale = _mm512_set1_ps(w->scales[first / w->group]);
    const __m256i half =
        (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(w->levels), scale));
    /* The table is stored twice, so that the fifth bit of an index has no effect. */
    const __m512i table = _mm512_broadcast_i64x4(half);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m512i wide =
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + i * STEP / 2)));
        const __m512i index =
            _mm512_or_si512(_mm512_srli_epi32(wide, 4), _mm512_slli_epi32(wide, 16));
        _mm512_store_si512(to + i * STEP * PAIR, _mm512_permutexvar_epi16(index, table));
    }
}

AMX INLINE void multiply_step(const uint16_t *rows, const uint16_t *inputs)
{
    _tile_loadd(4, rows, 64);
    _tile_loadd(6, inputs, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, rows + TILE, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, inputs + TILE, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
}

/* Multiply 32 rows by 32 inputs over some columns, and dequantize four rows of the next panel from
 * row n on, if there is one. sums: four tiles; overwritten if first, else added to. */
AMX INLINE void multiply(const Matrix *w, const Panel *p, const uint16_t *inputs, int first,
                         float *sums, const Panel *next, int64_t n)
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
    const uint16_t *rows = p->weights;
    for (int64_t k = 0; k < p->deep; k += UNIT) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            multiply_step(rows, inputs);
            if (next && k < next->deep) {
                dequantize(w, next, n + 2 * i, k);
                dequantize(w, next, n + 2 * i + 1, k);
            }
            rows += 2 * TILE;
            inputs += 2 * TILE;
        }
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
    transpose_16(a);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        b[i] = _mm512_load_si512(lower + i * SIDE);
    transpose_16(b);
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

/* Multiply up to panels_at_once panels by all rearranged inputs, and write the results. */
AMX static void multiply_panels(const Matrix *w, int64_t row, int64_t count,
                                const uint16_t *arranged, int64_t inputs, const uint16_t *bias,
                                uint16_t *out, char *room, int threads)
{
    const int64_t most = columns_at_once(w->columns, threads);
    const int64_t pairs = (inputs + PAIR - 1) / PAIR, cuts = (w->columns + most - 1) / most;
    float *sums = (float *)(room + 2 * PAIR * most * 2);
    Panel panels[2];
    for (int64_t i = 0; i <= count * cuts; i++) {
        /* 1. The next panel; its rows that have no place between the products. */
        Panel *next = i < count * cuts ? &panels[i % 2] : NULL;
        if (next) {
            next->row = row + i % count * PAIR;
            next->column = i / count * most;
            next->deep = smaller(most, w->columns - next->column);
            next->weights = (uint16_t *)room + i % 2 * PAIR * most;
            const Panel *before = i ? &panels[(i + 1) % 2] : NULL;
            for (int64_t n = 0; n < PAIR; n++)
                for (int64_t k = !before || n >= pairs * ROWS_PER_STEP ? 0 : before->deep;
                     k < next->deep; k += UNIT)
                    dequantize(w, next, n, k);
            IN_ORDER;
        }
        if (!i)
            continue;
        /* 2. The products of the panel before. */
        const Panel *p = &panels[(i - 1) % 2];
        const int64_t number = (i - 1) % count, cut = (i - 1) / count;
        for (int64_t m = 0; m < pairs; m++) {
            float *four = sums + (number * pairs + m) * PAIR * PAIR;
            const uint16_t *from = arranged + (m * w->columns + p->column) * PAIR;
            if (next)
                multiply(w, p, from, !cut, four, next, m * ROWS_PER_STEP);
            else
                multiply(w, p, from, !cut, four, NULL, 0);
        }
        IN_ORDER;
    }
    /* 3. Write the sums, an input's of all panels together: its results are neighbours. */
    for (int64_t m = 0; m < 2 * pairs; m++)
        for (int64_t n = 0; n < count; n++) {
            const int64_t first = row + n * PAIR, height = w->rows - first, input = m * SIDE;
            const uint16_t *here = bias ? bias + first : NULL;
            const __m512 add[2] = {bias_of(here, height),
                                   bias_of(here ? here + SIDE : NULL, height - SIDE)};
            const float *upper = sums + (n * pairs + m / 2) * PAIR * PAIR + m % 2 * SIDE * SIDE;
            write_sums(upper, upper + 2 * SIDE * SIDE, height, inputs - input, add,
                       out + input * w->rows + first, w->rows);
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
    const int64_t at_once = inputs_at_once(inputs, columns);
    char *start = (char *)room + (64 - (uintptr_t)room % 64) % 64;
    uint16_t *arranged = (uint16_t *)start;
    char *rooms = start + at_once * columns * 2;
    /* Fewer panels if there would be too few shares to keep all threads busy. */
    const int64_t panels = (rows + PAIR - 1) / PAIR, fair = panels / (4 * threads);
    const int64_t share = fair < 1 ? 1 : smaller(fair, panels_at_once(columns, threads));
    const int64_t shares = (panels + share - 1) / share;
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
            for (int64_t i = 0; i < shares; i++)
                multiply_panels(&w, i * share * PAIR, smaller(share, panels - i * share), arranged,
                                now, bias, out + first * rows,
                                rooms + me * bytes_of_a_thread(columns, threads), threads);
            end_tiles();
        }
    }
#else
    (void)matrix, (void)scales, (void)x, (void)inputs, (void)bias, (void)out, (void)room;
    (void)threads;
#endif
}
