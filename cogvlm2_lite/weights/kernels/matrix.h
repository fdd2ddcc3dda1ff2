/* Shared by the C kernels: a 4-bit or int8 matrix in its stored layout, and compiler attributes. */

#ifndef COGVLM2_LITE_MATRIX_H
#define COGVLM2_LITE_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#define UNIT 64 /* weights decoded at a time; each group of a matrix is a whole number of units */

/* gcc and clang on x86-64. Elsewhere the library builds too, but cpu_level returns 0. */
#if defined(__GNUC__) && defined(__x86_64__)
#define ON_X86 1
#include <immintrin.h>
#define INLINE static inline __attribute__((always_inline))
#else
#define ON_X86 0
#define INLINE static inline
#endif

/* The levels of instructions: each has all functions of the lower ones. library.py has the same
 * numbers. */
enum {
    LEVEL_PLAIN = 0,       /* C without instructions of a certain processor; tests compare with it */
    LEVEL_AVX2 = 1,        /* AVX2 and FMA */
    LEVEL_AVX_VNNI = 2,    /* and AVX-VNNI: integer products on 256-bit registers */
    LEVEL_AVX512_VNNI = 3, /* AVX2, and AVX512 with VBMI and VNNI; not always AVX-VNNI */
    LEVEL_AVX512 = 4,      /* and AVX512-BF16 */
    LEVEL_AMX = 5,         /* and AMX for int8 and bfloat16 */
};

/* There is one scale per group: a float32 or, with double quantization, an 8-bit code: scale =
 * scale_map[code] * outer_scale + scale_offset. An int8 matrix has no levels, and float32 scales.
 * matrix.py declares the same struct. */
typedef struct {
    const uint8_t *codes;       /* [rows, columns / 2], two per byte, the first in the high half;
                                   int8: [rows, columns], one signed byte each */
    const float *levels;        /* [16]; int8: NULL */
    const float *scales;        /* [rows, columns / group], or NULL */
    const uint8_t *scale_codes; /* [rows, columns / group], if scales is NULL */
    const float *outer_scales;  /* one per 256 scales, counted over the whole matrix */
    const float *scale_map;     /* [256] */
    int64_t rows, columns, group;
    float scale_offset;
    float level_step;              /* the value of 1 in integer_levels; int8: 1 */
    const int16_t *integer_levels; /* [16], at most 8191; int8: NULL, the codes are the integers */
} Matrix;

INLINE float one_scale(const Matrix *w, int64_t index)
{
    if (w->scales)
        return w->scales[index];
    /* Product and sum are rounded separately, as in bitsandbytes: the build disables fusing. */
    return w->scale_map[w->scale_codes[index]] * w->outer_scales[index >> 8] + w->scale_offset;
}

#endif
