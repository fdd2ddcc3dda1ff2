/* Products of bytes: what every version of them computes, and how a version is added. They are
 * coarser than the products of integer.h and are computed only where a person asks for 8-bit
 * activations.
 *
 * A block is 512 columns; the last one of a row may have fewer. The result for one row of the
 * matrix and one row of inputs is
 *
 *     sum = 0
 *     for each block, in ascending order:
 *         sum = fma(float(S), input_step * row_step, sum)
 *     result = sum + bias
 *
 * in float32, where S is the exact 32-bit sum of the products of a byte of the inputs and one of the
 * matrix, and input_step * row_step is rounded to float32 once.
 *
 * - An input becomes x * (127 / most), rounded to the nearest integer, ties to even, where `most` is
 *   the largest magnitude of the block, at least SMALLEST. Its step is most / 127. Each operation is
 *   rounded to float32.
 * - Of a row of the matrix, `most` is the product of the largest magnitude of a level and of a scale
 *   in this block, at least SMALLEST. For each group, ratio = scale * (127 / most), and a weight
 *   becomes level * ratio, rounded to the nearest integer, ties to even. The step is most / 127. The
 *   levels of an int8 matrix are its codes, of which the largest counts as 127; -128 stays within a
 *   byte. So a group's 16 levels become a table of 16 bytes.
 * - Where `most` is infinite or NaN, the integers are 0 and the step is NaN.
 *
 * |S| <= 512 * 127 * 128 < 2^24, so float(S) is exact. Exact sums do not depend on the order of
 * summation, so every version returns the same bits for any number of rows of inputs and of threads:
 * bytes.c has the definition in plain C, and the tests compare every version with it.
 */

#ifndef COGVLM2_LITE_BYTES_H
#define COGVLM2_LITE_BYTES_H

#include "matrix.h"

#define BLOCK 512             /* columns that share a step */
#define BLOCK_UNITS (BLOCK / UNIT)
#define SMALLEST 0x1p-100f    /* for smaller numbers 127 / most would overflow */
#define SET 16                /* inputs, or rows of the matrix, that are next to each other */
#define PAIR_OF_SETS (2 * SET)

/* The inputs of a call and their steps, in sets of 16; missing inputs are zeros.
 *
 * bytes  [sets][units][16][UNIT]: signed bytes. With `words` they are 16-bit integers instead, where
 *        of every four columns the order is 0, 2, 1, 3
 * steps  [sets][blocks][16]
 * flips  [sets][blocks][16]: -128 times the sum of the block's integers */
typedef struct {
    void *bytes;
    float *steps;
    int32_t *flips;
    int64_t units, blocks;
} Inputs;

/* Some rows and columns of the matrix.
 *
 * bytes  [sets of rows][units][UNIT / 4][16][4]: four neighbouring columns of 16 rows are next to
 *        each other. For VNNI 128 is added to each, so that they have no sign. With `words` they
 *        are pairs of 16-bit integers: [..][16][2] of columns 0 and 2, then of 1 and 3
 * steps  [sets of rows][blocks][16] */
typedef struct {
    void *bytes;
    float *steps;
    int64_t sets, units, blocks;
} Rows;

/* One implementation. */
typedef struct {
    int words;
    int64_t row_bytes; /* most bytes of `Rows` on one thread */
    /* Convert some rows and columns of the matrix.
     *
     * row, count  the first row, and how many there are; the others of out->sets become zeros
     * unit        the first unit; a block starts there */
    void (*convert)(const Matrix *w, int64_t row, int64_t count, int64_t unit, const Rows *out);
    /* Multiply two sets of inputs, from `set` on, by all of these rows, and add to `sums`.
     *
     * unit  the first unit of the rows among those of the inputs; a block starts there
     * sums  [sets of rows][2][16 inputs][16 rows] */
    void (*multiply)(const Rows *rows, const Inputs *inputs, int64_t set, int64_t unit,
                     float *sums);
    void (*enter)(void), (*leave)(void); /* on each thread; may be NULL */
} ByteVersion;

#if ON_X86
extern const ByteVersion bytes_avx2, bytes_avx_vnni; /* bytes_256.c */
extern const ByteVersion bytes_512, bytes_amx;       /* bytes_512.c, bytes_amx.c */

/* Find the steps of 16 rows and one block, and what levels are multiplied by in each unit. Those of
 * missing rows are 0. bytes_256.c
 *
 * row, count    the first row, and how many there are
 * unit, units   the first unit of the block, and how many it has */
void find_ratios(const Matrix *w, int64_t row, int64_t count, int64_t unit, int64_t units,
                 float (*ratios)[BLOCK_UNITS], float *steps);
#endif

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
INLINE int64_t blocks_of(int64_t columns) { return (columns + BLOCK - 1) / BLOCK; }

/* Return the factor 127 / most, and write the step. Return 0 for infinity and NaN. */
INLINE float factor_of(float most, float *step)
{
    if (!(most <= 3.40282347e38f)) {
        *step = __builtin_nanf("");
        return 0;
    }
    most = most < SMALLEST ? SMALLEST : most;
    *step = most / 127;
    return 127 / most;
}

/* Return the largest magnitude of a level. */
INLINE float most_level(const Matrix *w)
{
    float most = 0;
    if (!w->levels)
        return 127;
    for (int i = 0; i < 16; i++) {
        const float level = w->levels[i] < 0 ? -w->levels[i] : w->levels[i];
        most = level > most ? level : most;
    }
    return most;
}

#endif
