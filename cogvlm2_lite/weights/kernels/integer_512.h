/* Shared by the versions for AVX512 and AMX: the scales of 16 rows, and results. */

#ifndef COGVLM2_LITE_INTEGER_512_H
#define COGVLM2_LITE_INTEGER_512_H

#include "avx512.h"
#include "integer.h"

#if ON_X86

#define AVX512                                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma")))
#define LANES 16 /* numbers of 32 bits in a register; a block has as many rows of the matrix */

/* Find the scales of 16 rows from `row` on, the last of which may be missing.
 * out   [units][16], aligned: lanes are rows; 0 for missing rows
 * room  [16][64] float32, aligned */
AVX512 void scales_of_block(const Matrix *w, int64_t row, float *out, float *room);

/* Write the sums of some rows (the lanes of `rows`), from `row` on, for one input. */
AVX512 INLINE void write_lanes(const Product *p, int64_t input, int64_t row, __mmask16 rows,
                               __m512 sums)
{
    const int64_t place = input * p->w->rows + row;
    if (p->wide) {
        _mm512_mask_storeu_ps((float *)p->out + place, rows, sums);
        return;
    }
    /* Round as write_result does; the instruction for it would flush denormals to zero. */
    const __m512i bits = _mm512_castps_si512(sums);
    const __mmask16 no_number = _mm512_cmp_ps_mask(sums, sums, _CMP_UNORD_Q);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i half_step = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_mask_mov_epi32(_mm512_add_epi32(bits, half_step), no_number,
                                                  _mm512_set1_epi32(0x7fc00000));
    _mm256_mask_storeu_epi16((uint16_t *)p->out + place, rows,
                             _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

INLINE __mmask16 lanes_of(int64_t rows)
{
    return (__mmask16)(rows >= LANES ? 0xffff : (1u << rows) - 1);
}

#endif
#endif
