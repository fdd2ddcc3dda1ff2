/* What the C kernels share: a 4-bit matrix as it is stored, and a few words for the compiler. */

#ifndef COGVLM2_LITE_MATRIX_H
#define COGVLM2_LITE_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#define UNIT 64 /* weights decoded at a time; the groups of a matrix hold a whole number of them */

/* gcc and clang on x86-64; elsewhere the library is built, and reports that it runs nothing. */
#if defined(__GNUC__) && defined(__x86_64__)
#define ON_X86 1
#include <immintrin.h>
#define INLINE static inline __attribute__((always_inline))
#else
#define ON_X86 0
#endif

/* The scales, one for each group, are float32 or, with double quantization, 8-bit codes: scale =
 * scale_map[code] * outer_scale + scale_offset. The caller lays this out, too (matrix.py). */
typedef struct {
    const uint8_t *codes;       /* [rows, columns / 2], two a byte, the first in the high half */
    const float *levels;        /* [16] */
    const float *scales;        /* [rows, columns / group], or NULL */
    const uint8_t *scale_codes; /* [rows, columns / group], where there are no scales */
    const float *outer_scales;  /* one for 256 scales, counted over the whole matrix */
    const float *scale_map;     /* [256] */
    int64_t rows, columns, group;
    float scale_offset;
} Matrix;

#endif
