/* Shared by the C kernels: a 4-bit matrix in its stored layout, and compiler attributes. */

#ifndef COGVLM2_LITE_MATRIX_H
#define COGVLM2_LITE_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#define UNIT 64 /* weights decoded at a time; each group of a matrix is a whole number of units */

/* gcc and clang on x86-64. Elsewhere the library builds too, but gemv_level returns 0. */
#if defined(__GNUC__) && defined(__x86_64__)
#define ON_X86 1
#include <immintrin.h>
#define INLINE static inline __attribute__((always_inline))
#else
#define ON_X86 0
#endif

/* There is one scale per group: a float32 or, with double quantization, an 8-bit code: scale =
 * scale_map[code] * outer_scale + scale_offset. matrix.py declares the same struct. */
typedef struct {
    const uint8_t *codes;       /* [rows, columns / 2], two per byte, the first in the high half */
    const float *levels;        /* [16] */
    const float *scales;        /* [rows, columns / group], or NULL */
    const uint8_t *scale_codes; /* [rows, columns / group], if scales is NULL */
    const float *outer_scales;  /* one per 256 scales, counted over the whole matrix */
    const float *scale_map;     /* [256] */
    int64_t rows, columns, group;
    float scale_offset;
} Matrix;

#endif
