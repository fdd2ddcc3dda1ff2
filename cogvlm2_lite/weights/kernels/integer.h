/* Products of integers: what every version of them computes, and how a version is added.
 *
 * A unit is 64 columns. The result for one row of the matrix and one row of inputs is
 *
 *     sum = 0
 *     for each unit, in ascending order:
 *         sum = fma(float(S), scale * step, sum)
 *
 * in float32, where S is the exact 32-bit sum of the 64 products of an integer of the inputs and
 * one of the matrix, and scale * step is rounded to float32 once.
 *
 * - The integers of the inputs have magnitudes up to 4096. Their step is 2^(e - 11) for each unit,
 *   where e is the exponent of the largest magnitude of the unit. Inputs are divided by it and
 *   rounded to the nearest integer, ties to even. `step` is that power of two times the matrix's
 *   `level_step`. A unit with an infinity or NaN has integers 0 and the step NaN.
 * - The integers of the matrix have magnitudes up to 8191: `integer_levels` of its codes, or the
 *   codes themselves of an int8 matrix. So |S| <= 64 * 4096 * 8191 < 2^31.
 *
 * Exact sums do not depend on the order of summation, so every version returns the same bits, for
 * any number of rows of inputs and of threads: integer.c has the definition in plain C, and the
 * tests compare every version with it. A version may split the integers into bytes, for example,
 * and add up the sums of byte products with wrapping 32-bit arithmetic.
 */

#ifndef COGVLM2_LITE_INTEGER_H
#define COGVLM2_LITE_INTEGER_H

#include <string.h>

#include "matrix.h"

#define ROW_BLOCK 16 /* a thread processes a multiple of this many rows of the matrix */

/* One call: out[inputs, rows of w] = inputs times the transposed matrix.
 *
 * w->columns is a multiple of w->group, which is a multiple of UNIT; at most 65,536 columns. */
typedef struct {
    const Matrix *w;
    int64_t inputs;
    int64_t units;  /* w->columns / UNIT */
    void *arranged; /* the inputs, in the order of the version; aligned to 64 bytes */
    void *out;      /* [inputs, w->rows], float32 if `wide`, else bfloat16 */
    int wide;
} Product;

/* One implementation.
 *
 * `integer_product` calls, with the same Product except for `arranged`:
 *   1. bytes: once, to allocate `arranged`, which it fills with zeros.
 *   2. arrange: once for each row of inputs, on any thread.
 *   3. enter: once on each thread.
 *   4. multiply: for all rows of the matrix, in bands on all threads.
 *   5. leave: once on each thread. */
typedef struct {
    /* Return the bytes of `arranged`. */
    int64_t (*bytes)(const Product *p);
    /* Write one row of inputs to `arranged`.
     * integers  [w->columns], in the order of the columns
     * steps     [units] */
    void (*arrange)(const Product *p, int64_t input, const int16_t *integers, const float *steps);
    /* Return the bytes of `room`, a buffer for each thread. May be NULL: no buffer. */
    int64_t (*room)(const Product *p);
    /* Return how many rows of the matrix a call of `multiply` gets, a multiple of ROW_BLOCK. May be
     * NULL: ROW_BLOCK. */
    int64_t (*band)(const Product *p, int threads);
    /* Multiply the rows of the matrix from `begin` to `end` by all inputs, and write the results.
     * room  aligned to 64 bytes; not initialized */
    void (*multiply)(const Product *p, int64_t begin, int64_t end, void *room);
    void (*enter)(void), (*leave)(void); /* may be NULL */
} Version;

extern const Version integer_plain;
#if ON_X86
extern const Version integer_avx2, integer_avx_vnni; /* integer_256.c */
extern const Version integer_512;
#endif

/* Write one result. */
INLINE void write_result(const Product *p, int64_t input, int64_t row, float sum)
{
    const int64_t place = input * p->w->rows + row;
    if (p->wide) {
        ((float *)p->out)[place] = sum;
        return;
    }
    /* Round to the nearest, ties to even, as torch does. */
    uint32_t bits;
    memcpy(&bits, &sum, sizeof(bits));
    ((uint16_t *)p->out)[place] =
        sum != sum ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
