/* Products of bytes (bytes.h) with AMX: a tile has 64 columns of 16 inputs, or of 16 rows of the
 * matrix. The sums of a block leave the tiles after 8 products of tiles. They become float32 between
 * the products of the next rows, because tiles and vectors are computed by different parts of the
 * processor.
 */

#include "amx.h"
#include "bytes_512.h"

#if ON_X86
#if HAS_AMX

#define AMX_INT8 __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq")))
#define BYTES_OF_TILE 1024
#define SUMS (4 * SET * SET) /* of four tiles */

/* The sums of four tiles that have left them, and what they are multiplied by. */
typedef struct {
    const int32_t *from; /* [2 sets of inputs][2 sets of rows][16][16] */
    const float *steps;  /* of the inputs: [2][..][16] */
    int64_t pitch;       /* to the steps of the second set */
    const float *row_steps, *row_steps_2;
    float *to, *to_2;    /* [2][16][16] of the first and of the second set of rows */
} Left;

/* Convert and add 8 of the 64 registers. */
AMX_INT8 INLINE void add_part(const Left *p, int part)
{
    const int half = part / 4, column = part / 2 % 2, first = part % 2 * 8;
    const __m512 step = _mm512_loadu_ps(column ? p->row_steps_2 : p->row_steps);
    const float *steps = p->steps + half * p->pitch + first;
    const int32_t *from = p->from + ((half * 2 + column) * SET + first) * SET;
    float *to = (column ? p->to_2 : p->to) + (half * SET + first) * SET;
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const __m512 both = _mm512_mul_ps(_mm512_set1_ps(steps[i]), step);
        const __m512 sums = _mm512_cvtepi32_ps(_mm512_load_si512(from + i * SET));
        _mm512_storeu_ps(to + i * SET,
                         _mm512_fmadd_ps(sums, both, _mm512_loadu_ps(to + i * SET)));
    }
}

AMX_INT8 static void multiply_amx(const Rows *rows, const Inputs *inputs, int64_t set,
                                  int64_t unit, float *sums)
{
    _Alignas(64) int32_t left_tiles[2][SUMS];
    Left left = {0};
    int turn = 0;
    const int64_t row_pitch = rows->units * BYTES_OF_TILE;
    const int64_t pitch = inputs->units * BYTES_OF_TILE;
    /* Meanwhile the next two sets of inputs are prefetched into the L2 cache: equally many lines with
     * every product of tiles, of each set. */
    const char *next = (const char *)inputs->bytes + ((set + 2) * inputs->units + unit) * BYTES_OF_TILE;
    const int64_t lines = 2 * SET / rows->sets;
    for (int64_t block = 0; block < rows->blocks; block++) {
        const int64_t start = block * BLOCK_UNITS;
        const int64_t units = smaller(BLOCK_UNITS, rows->units - start);
        const char *x =
            (const char *)inputs->bytes + (set * inputs->units + unit + start) * BYTES_OF_TILE;
        const float *steps =
            inputs->steps + (set * inputs->blocks + unit / BLOCK_UNITS + block) * SET;
        for (int64_t i = 0; i < rows->sets; i += 2, turn ^= 1) {
            const char *w = (const char *)rows->bytes + i * row_pitch + start * BYTES_OF_TILE;
            int part = 0;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int64_t k = 0; k < units; k++) {
                _tile_loadd(4, x + k * BYTES_OF_TILE, 64);
                _tile_loadd(6, w + k * BYTES_OF_TILE, 64);
                _tile_dpbssd(0, 4, 6);
                for (int64_t line = 0; line < lines; line++, next += 64) {
                    _mm_prefetch(next, _MM_HINT_T1);
                    _mm_prefetch(next + pitch, _MM_HINT_T1);
                }
                _tile_loadd(7, w + row_pitch + k * BYTES_OF_TILE, 64);
                _tile_dpbssd(1, 4, 7);
                _tile_loadd(5, x + pitch + k * BYTES_OF_TILE, 64);
                _tile_dpbssd(2, 5, 6);
                _tile_dpbssd(3, 5, 7);
                if (left.from)
                    add_part(&left, part++);
            }
            for (; left.from && part < 8; part++)
                add_part(&left, part);
            int32_t *to = left_tiles[turn];
            IN_ORDER;
            _tile_stored(0, to, 64);
            _tile_stored(1, to + SET * SET, 64);
            _tile_stored(2, to + 2 * SET * SET, 64);
            _tile_stored(3, to + 3 * SET * SET, 64);
            IN_ORDER;
            const float *row_steps = rows->steps + (i * rows->blocks + block) * SET;
            left = (Left){.from = to,
                          .steps = steps,
                          .pitch = inputs->blocks * SET,
                          .row_steps = row_steps,
                          .row_steps_2 = row_steps + rows->blocks * SET,
                          .to = sums + i * SET * PAIR_OF_SETS,
                          .to_2 = sums + (i + 1) * SET * PAIR_OF_SETS};
        }
    }
    for (int part = 0; left.from && part < 8; part++)
        add_part(&left, part);
}

AVX512 static void convert_amx(const Matrix *w, int64_t row, int64_t count, int64_t unit,
                               const Rows *out)
{
    convert_rows_512(w, row, count, unit, 0, out);
}

const ByteVersion bytes_amx = {.row_bytes = 1 << 20,
                               .convert = convert_amx,
                               .multiply = multiply_amx,
                               .enter = begin_tiles,
                               .leave = end_tiles};

#else
const ByteVersion bytes_amx = {0}; /* never chosen: gemm_amx_works returns 0 */
#endif
#endif
