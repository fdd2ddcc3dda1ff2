/* Up to 32 rows of inputs times a dense matrix, as decoding needs for lm_head and for models that
 * are not quantized.
 *
 * The matrix is read from memory once for all inputs, so reading it is the limit. A block of matrix
 * rows is multiplied while the next block is prefetched into the L2 cache in the order of its
 * bytes; reading several rows at a time from memory would restart the hardware prefetcher at every
 * page.
 *
 * A result depends only on its own input and matrix row: it is summed in one fixed order, whatever
 * the number of inputs and threads. There are three versions, each with its own order: AMX and
 * AVX512 for bfloat16, AVX2 for float32. The processor decides which of them is used.
 *
 * Called through ctypes (kernels/dense_rows.py); sizes are checked there.
 */

#include <stdlib.h>
#include <string.h>

#include "amx.h"

#define TALL 4       /* matrix rows multiplied at a time without AMX */
#define WIDE_TALL 3  /* the same for float32 */
#define LINE 64      /* bytes that are prefetched at a time */
#define MOST 32      /* inputs multiplied in one pass over the matrix */
#define PIECE_BYTES 4096 /* of a row that are multiplied by all inputs at a time without AMX */
#define PIECE 512    /* columns that are prefetched at a time with AMX: 32 KiB of 32 rows */

#if ON_X86
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")))
#define AVX2 __attribute__((target("avx2,fma")))

/* What is prefetched while a block is multiplied: the next block, in the order of its bytes. */
typedef struct {
    const char *next, *end;
} Ahead;

INLINE void prefetch(Ahead *ahead, int lines)
{
    for (int i = 0; i < lines; i++) {
        _mm_prefetch(ahead->next, _MM_HINT_T1);
        ahead->next += ahead->next < ahead->end ? LINE : 0;
    }
}

/* Lines to prefetch for every 64 bytes of TALL rows in one of several passes over them: TALL of
 * them in all, spread over the passes. */
INLINE int lines_of_pass(int64_t pass, int64_t passes)
{
    const int64_t most = passes < TALL ? passes : TALL;
    return pass < most ? (int)((pass + 1) * TALL / most - pass * TALL / most) : 0;
}

/* ---- AVX512: bfloat16 ---------------------------------------------------------------------- */

/* Add the products of TALL rows and up to 4 inputs over some columns. A sum has 16 lanes; each adds
 * the products of every 16th pair of columns. lanes: the sums of earlier columns. */
AVX512 INLINE void tile_512(const uint16_t *const *w, const uint16_t *x, int64_t columns,
                            int64_t begin, int64_t end, int inputs, int lines, Ahead *ahead,
                            float *lanes)
{
    __m512 total[TALL][4];
#pragma GCC unroll 4
    for (int n = 0; n < TALL; n++)
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++)
            total[n][m] = _mm512_loadu_ps(lanes + (m * TALL + n) * 16);
    for (int64_t i = begin; i < end; i += 32) {
        __m512bh row[TALL];
        prefetch(ahead, lines);
#pragma GCC unroll 4
        for (int n = 0; n < TALL; n++)
            row[n] = (__m512bh)_mm512_loadu_si512(w[n] + i);
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++) {
            const __m512bh input = (__m512bh)_mm512_loadu_si512(x + m * columns + i);
#pragma GCC unroll 4
            for (int n = 0; n < TALL; n++)
                total[n][m] = _mm512_dpbf16_ps(total[n][m], row[n], input);
        }
    }
#pragma GCC unroll 4
    for (int n = 0; n < TALL; n++)
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++)
            _mm512_storeu_ps(lanes + (m * TALL + n) * 16, total[n][m]);
}

AVX512 static void multiply_512(const uint16_t *const *w, const uint16_t *x, int64_t columns,
                                int64_t begin, int64_t end, int inputs, int lines, Ahead *ahead,
                                float *lanes)
{
    switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        tile_512(w, x, columns, begin, end, n, lines, ahead, lanes);                              \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
}

/* ---- AVX2: float32 ------------------------------------------------------------------------- */

/* Do the same for float32, WIDE_TALL rows and up to 4 inputs: with the rows and an input these sums
 * take all 16 registers. A sum has 8 lanes; each adds the products of every 8th column. */
AVX2 INLINE void tile_256(const float *const *w, const float *x, int64_t columns, int64_t begin,
                          int64_t end, int inputs, int lines, Ahead *ahead, float *lanes)
{
    __m256 total[WIDE_TALL][4];
#pragma GCC unroll 4
    for (int n = 0; n < WIDE_TALL; n++)
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++)
            total[n][m] = _mm256_loadu_ps(lanes + (m * TALL + n) * 8);
    for (int64_t i = begin; i < end; i += 16) {
        prefetch(ahead, lines);
#pragma GCC unroll 2
        for (int64_t k = i; k < i + 16; k += 8) {
            __m256 row[WIDE_TALL];
#pragma GCC unroll 4
            for (int n = 0; n < WIDE_TALL; n++)
                row[n] = _mm256_loadu_ps(w[n] + k);
#pragma GCC unroll 4
            for (int m = 0; m < inputs; m++) {
                const __m256 input = _mm256_loadu_ps(x + m * columns + k);
#pragma GCC unroll 4
                for (int n = 0; n < WIDE_TALL; n++)
                    total[n][m] = _mm256_fmadd_ps(row[n], input, total[n][m]);
            }
        }
    }
#pragma GCC unroll 4
    for (int n = 0; n < WIDE_TALL; n++)
#pragma GCC unroll 4
        for (int m = 0; m < inputs; m++)
            _mm256_storeu_ps(lanes + (m * TALL + n) * 8, total[n][m]);
}

AVX2 static void multiply_256(const float *const *w, const float *x, int64_t columns,
                              int64_t begin, int64_t end, int inputs, int lines, Ahead *ahead,
                              float *lanes)
{
    switch (inputs) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        tile_256(w, x, columns, begin, end, n, lines, ahead, lanes);                              \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
}

/* Sum the lanes, 8 or 16, of each of TALL rows. */
AVX2 static void sum_lanes(const float *lanes, int count, float *sums)
{
    __m256 row[TALL];
#pragma GCC unroll 4
    for (int n = 0; n < TALL; n++) {
        row[n] = _mm256_loadu_ps(lanes + n * count);
        if (count == 16)
            row[n] = _mm256_add_ps(row[n], _mm256_loadu_ps(lanes + n * count + 8));
    }
    const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(row[0], row[1]),
                                       _mm256_hadd_ps(row[2], row[3]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
}

/* ---- a few matrix rows --------------------------------------------------------------------- */

/* Multiply TALL, or WIDE_TALL, matrix rows, from `row` on, by all inputs; out[input][row]. After the
 * last row of the matrix it is multiplied again. wide: float32 (AVX2), else bfloat16 (AVX512). The
 * columns are multiplied in pieces, so that those of the rows stay in the L1 cache for all inputs. */
static void multiply_rows(int wide, const char *w, const char *x, int64_t rows, int64_t columns,
                          int64_t inputs, int64_t row, float *out)
{
    const int64_t row_bytes = columns * (wide ? 4 : 2), tall = wide ? WIDE_TALL : TALL;
    const int64_t piece = PIECE_BYTES / (wide ? 4 : 2), count = wide ? 8 : 16;
    const int64_t passes = (inputs + 3) / 4;
    const int64_t next = row + tall < rows ? row + tall : rows;
    const int64_t last = next + tall < rows ? next + tall : rows;
    Ahead ahead = {w + next * row_bytes, w + last * row_bytes};
    const void *here[TALL];
    float lanes[MOST * TALL * 16], sums[TALL];
    memset(lanes, 0, (size_t)(inputs * TALL * count) * sizeof(float));
    for (int n = 0; n < TALL; n++)
        here[n] = w + (row + n < rows ? row + n : rows - 1) * row_bytes;
    for (int64_t begin = 0; begin < columns; begin += piece) {
        const int64_t end = columns - begin < piece ? columns : begin + piece;
        for (int64_t m = 0; m < inputs; m += 4) {
            const int now = (int)(inputs - m < 4 ? inputs - m : 4);
            const int lines = lines_of_pass(m / 4, passes);
            const char *some = x + m * row_bytes;
            float *to = lanes + m * TALL * count;
            if (wide)
                multiply_256((const float *const *)here, (const float *)some, columns, begin, end,
                             now, lines, &ahead, to);
            else
                multiply_512((const uint16_t *const *)here, (const uint16_t *)some, columns, begin,
                             end, now, lines, &ahead, to);
        }
    }
    for (int64_t m = 0; m < inputs; m++) {
        sum_lanes(lanes + m * TALL * count, (int)count, sums);
        for (int n = 0; n < tall && row + n < rows; n++)
            out[m * rows + row + n] = sums[n];
    }
}
#endif /* ON_X86 */

/* ---- AMX: bfloat16 ------------------------------------------------------------------------- */

#if HAS_AMX
/* Rearrange the inputs into tiles of pairs: for each 32 columns one tile for each 16 inputs, in which
 * pair p of input m is at [p][m]. Missing inputs are zeros, and stay so. */
static void rearrange(const uint16_t *x, int64_t columns, int64_t inputs, int64_t tiles,
                      uint32_t *out)
{
    for (int64_t m = 0; m < inputs; m++)
        for (int64_t k = 0; k < columns; k += STEP)
            for (int64_t pair = 0; pair < STEP / 2; pair++)
                memcpy(&out[((k / STEP * tiles + m / SIDE) * SIDE + pair) * SIDE + m % SIDE],
                       x + m * columns + k + 2 * pair, 4);
}

/* The prefetched part of the next rows: `rows` times `row_bytes`, which are `stride` bytes apart. */
typedef struct {
    const char *row;
    int64_t stride, row_bytes, place, rows;
} Piece;

AMX INLINE void prefetch_piece(Piece *piece, int lines)
{
    const int64_t together = (int64_t)lines * LINE;
    if (piece->rows > 0 && piece->place + together < piece->row_bytes) {
        for (int64_t i = 0; i < together; i += LINE)
            _mm_prefetch(piece->row + piece->place + i, _MM_HINT_T1);
        piece->place += together;
        return;
    }
    for (int i = 0; i < lines && piece->rows > 0; i++) {
        _mm_prefetch(piece->row + piece->place, _MM_HINT_T1);
        piece->place += LINE;
        if (piece->place >= piece->row_bytes) {
            piece->place = 0;
            piece->row += piece->stride;
            piece->rows--;
        }
    }
}

/* Multiply PAIR matrix rows, from `row` on, by up to MOST rearranged inputs. The matrix rows are the
 * first factor, straight from where they are stored. */
AMX static void pair_of_tiles(const uint16_t *w, const uint32_t *arranged, int64_t rows,
                              int64_t columns, int64_t tiles, int64_t row, float *sums)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int64_t stride = 2 * columns;
    const int64_t next = row + PAIR < rows - PAIR ? row + PAIR : rows - PAIR;
    const char *first = (const char *)(w + row * columns), *second = first + SIDE * stride;
    for (int64_t begin = 0; begin < columns; begin += PIECE) {
        /* While a piece is multiplied, the next one is prefetched: of these rows, or the first one of
         * the next rows. */
        const int64_t end = columns - begin < PIECE ? columns : begin + PIECE;
        const int64_t from = end < columns ? end : 0, here = end < columns ? row : next;
        const int64_t wide = columns - from < PIECE ? columns - from : PIECE;
        Piece piece = {(const char *)(w + here * columns + from), stride, 2 * wide, 0, PAIR};
        for (int64_t k = begin; k < end; k += STEP) {
            const uint32_t *input = arranged + k / STEP * tiles * SIDE * SIDE;
            prefetch_piece(&piece, PAIR / 4);
            _tile_loadd(4, first + 2 * k, stride);
            prefetch_piece(&piece, PAIR / 4);
            _tile_loadd(5, second + 2 * k, stride);
            prefetch_piece(&piece, PAIR / 4);
            _tile_loadd(6, input, 64);
            prefetch_piece(&piece, PAIR / 4);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 5, 6);
            if (tiles == 2) {
                _tile_loadd(7, input + SIDE * SIDE, 64);
                _tile_dpbf16ps(2, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
}

/* Multiply up to MOST inputs by all rows; at least PAIR rows. */
static void by_tiles(const uint16_t *w, const uint32_t *arranged, int64_t rows, int64_t columns,
                     int64_t inputs, float *out, int threads)
{
    const int64_t tiles = (inputs + SIDE - 1) / SIDE, blocks = (rows + PAIR - 1) / PAIR;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float sums[4 * SIDE * SIDE];
        begin_tiles();
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            /* The last block begins earlier, so that it is whole. Only its new rows are written. */
            const int64_t begin = block * PAIR;
            const int64_t row = begin + PAIR < rows ? begin : rows - PAIR;
            pair_of_tiles(w, arranged, rows, columns, tiles, row, sums);
            for (int64_t m = 0; m < inputs; m++)
                for (int64_t n = begin - row; n < PAIR; n++)
                    out[m * rows + row + n] =
                        sums[(m / SIDE * 2 + n / SIDE) * SIDE * SIDE + n % SIDE * SIDE + m % SIDE];
        }
        end_tiles();
    }
}
#endif /* HAS_AMX */

/* ---- called from Python -------------------------------------------------------------------- */

/* out[inputs, rows] = x[inputs, columns] times a transposed dense matrix; out is float32. Columns are
 * a multiple of 64. method: 0 float32 (AVX2), 1 bfloat16 (AVX512), 2 bfloat16 (AMX, at least PAIR
 * rows). Returns 1 if there is no memory for the rearranged inputs, else 0. */
int dense_rows(int64_t rows, int64_t columns, const void *weight, const void *x, int64_t inputs,
               float *out, int method, int threads)
{
#if ON_X86
    const int64_t row_bytes = columns * (method == 0 ? 4 : 2);
#if HAS_AMX
    const int64_t most = inputs < MOST ? inputs : MOST;
    const int64_t size = (most + SIDE - 1) / SIDE * SIDE * columns * 2;
    uint32_t *arranged = method == 2 ? aligned_alloc(64, (size_t)size) : NULL;
    if (method == 2 && !arranged)
        return 1;
#endif
    for (int64_t m = 0; m < inputs; m += MOST) {
        const int64_t now = inputs - m < MOST ? inputs - m : MOST;
        const char *some = (const char *)x + m * row_bytes;
#if HAS_AMX
        if (method == 2) {
            memset(arranged, 0, (size_t)size);
            rearrange((const uint16_t *)some, columns, now, (now + SIDE - 1) / SIDE, arranged);
            by_tiles(weight, arranged, rows, columns, now, out + m * rows, threads);
            continue;
        }
#endif
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int64_t row = 0; row < rows; row += method == 0 ? WIDE_TALL : TALL)
            multiply_rows(method == 0, weight, some, rows, columns, now, row, out + m * rows);
    }
#if HAS_AMX
    free(arranged);
#endif
#else
    (void)rows, (void)columns, (void)weight, (void)x, (void)inputs, (void)out, (void)method;
    (void)threads;
#endif
    return 0;
}
