/* Products of bytes (bytes.h) with AVX512-VNNI: one instruction multiplies four columns of 16 rows
 * of the matrix by four inputs, which it broadcasts from memory. As in bytes_256.c, 128 is added to
 * the bytes of the matrix.
 */

#include "bytes_512.h"

#if ON_X86

#define ROW_BYTES (256 << 10) /* stay in the L2 cache */

AVX512 static void convert_512(const Matrix *w, int64_t row, int64_t count, int64_t unit,
                               const Rows *out)
{
    convert_rows_512(w, row, count, unit, 1, out);
}

/* In assembler, so that this instruction broadcasts the inputs: compilers load all of them first,
 * for which there are not enough registers. */
AVX512 INLINE void add_products(__m512i *sums, __m512i rows, const int8_t *x)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sums) : "v"(rows), "m"(*(const int8_t(*)[4])x));
}

/* Multiply a set of inputs by one block of a set of rows; see multiply_tile in bytes_256.c. */
AVX512 INLINE void multiply_set(const uint8_t *rows, int64_t units, const int8_t *x,
                                const float *steps, const int32_t *flips, const float *row_steps,
                                float *sums)
{
    __m512i a[SET];
#pragma GCC unroll 16
    for (int m = 0; m < SET; m++)
        a[m] = _mm512_set1_epi32(flips[m]);
    for (int64_t unit = 0; unit < units; unit++, x += SET * UNIT)
#pragma GCC unroll 2
        for (int i = 0; i < UNIT; i += 4, rows += SET * 4) {
            const __m512i four = _mm512_load_si512(rows);
#pragma GCC unroll 16
            for (int m = 0; m < SET; m++)
                add_products(a + m, four, x + m * UNIT + i);
        }
    const __m512 step = _mm512_loadu_ps(row_steps);
#pragma GCC unroll 16
    for (int m = 0; m < SET; m++) {
        const __m512 both = _mm512_mul_ps(_mm512_set1_ps(steps[m]), step);
        _mm512_storeu_ps(sums + m * SET, _mm512_fmadd_ps(_mm512_cvtepi32_ps(a[m]), both,
                                                         _mm512_loadu_ps(sums + m * SET)));
    }
}

AVX512 static void multiply_512(const Rows *rows, const Inputs *inputs, int64_t set, int64_t unit,
                                float *sums)
{
    for (int64_t half = 0; half < 2; half++, sums += SET * SET)
        for (int64_t block = 0; block < rows->blocks; block++) {
            const int64_t start = block * BLOCK_UNITS;
            const int64_t units = smaller(BLOCK_UNITS, rows->units - start);
            const int8_t *x = (const int8_t *)inputs->bytes +
                              ((set + half) * inputs->units + unit + start) * SET * UNIT;
            const int64_t at =
                ((set + half) * inputs->blocks + unit / BLOCK_UNITS + block) * SET;
            for (int64_t i = 0; i < rows->sets; i++)
                multiply_set((const uint8_t *)rows->bytes + (i * rows->units + start) * SET * UNIT,
                             units, x, inputs->steps + at, inputs->flips + at,
                             rows->steps + (i * rows->blocks + block) * SET,
                             sums + i * SET * PAIR_OF_SETS);
        }
}

const ByteVersion bytes_512 = {
    .row_bytes = ROW_BYTES, .convert = convert_512, .multiply = multiply_512};

#endif
