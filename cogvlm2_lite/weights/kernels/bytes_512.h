/* Shared by the products of bytes with AVX512 and AMX: the conversion of a matrix to bytes. */

#ifndef COGVLM2_LITE_BYTES_512_H
#define COGVLM2_LITE_BYTES_512_H

#include "avx512.h"
#include "bytes.h"

#if ON_X86

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")))

/* Convert a unit of a row of a 4-bit matrix. */
AVX512 INLINE __m512i convert_4_bit(const uint8_t *codes, __m512 levels, float ratio,
                                    __m512i flip)
{
    /* 1. The table of the group, in each quarter. */
    const __m512i numbers = _mm512_cvtps_epi32(_mm512_mul_ps(levels, _mm512_set1_ps(ratio)));
    const __m512i table = _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(numbers));
    /* 2. Codes: the high half of a byte is the first of a pair. */
    const __m512i wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)codes));
    const __m512i second = _mm512_and_si512(_mm512_slli_epi16(wide, 8), _mm512_set1_epi16(0x0f00));
    const __m512i both = _mm512_or_si512(_mm512_srli_epi16(wide, 4), second);
    return _mm512_xor_si512(_mm512_shuffle_epi8(table, both), flip);
}

/* Convert a unit of a row of an int8 matrix. */
AVX512 INLINE __m512i convert_int8(const uint8_t *codes, float ratio, __m512i flip)
{
    __m512i out = _mm512_setzero_si512();
#define QUARTER(i)                                                                                \
    {                                                                                             \
        const __m128i some = _mm_loadu_si128((const void *)(codes + 16 * i));                     \
        const __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(some));                    \
        const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(numbers, _mm512_set1_ps(ratio)));\
        out = _mm512_inserti32x4(out, _mm512_cvtepi32_epi8(rounded), i);                          \
    }
    QUARTER(0) QUARTER(1) QUARTER(2) QUARTER(3)
#undef QUARTER
    return _mm512_xor_si512(out, flip);
}

AVX512 INLINE void convert_set_512(const Matrix *w, int64_t first, int64_t count, int64_t unit,
                                   int64_t units, int64_t blocks, int four_bit, __m512i flip,
                                   int8_t *out, float *steps)
{
    const int64_t unit_bytes = four_bit ? UNIT / 2 : UNIT, pitch = w->columns / UNIT * unit_bytes;
    const __m512 levels = four_bit ? _mm512_loadu_ps(w->levels) : _mm512_setzero_ps();
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * BLOCK_UNITS, some = smaller(BLOCK_UNITS, units - start);
        float ratios[SET][BLOCK_UNITS];
        find_ratios(w, first, count, unit + start, some, ratios, steps + block * SET);
        for (int64_t k = 0; k < some; k++, out += SET * UNIT) {
            const uint8_t *codes = w->codes + first * pitch + (unit + start + k) * unit_bytes;
            __m512i r[SET];
#pragma GCC unroll 16
            for (int i = 0; i < SET; i++) {
                if (i >= count)
                    r[i] = flip;
                else if (four_bit)
                    r[i] = convert_4_bit(codes + i * pitch, levels, ratios[i][k], flip);
                else
                    r[i] = convert_int8(codes + i * pitch, ratios[i][k], flip);
            }
            transpose_16(r);
#pragma GCC unroll 16
            for (int i = 0; i < SET; i++)
                _mm512_store_si512(out + i * UNIT, r[i]);
        }
    }
}

/* ByteVersion.convert. With `flip` 128 is added to each byte. */
AVX512 INLINE void convert_rows_512(const Matrix *w, int64_t row, int64_t count, int64_t unit,
                                    int flip, const Rows *out)
{
    const __m512i flips = _mm512_set1_epi8(flip ? -128 : 0);
    for (int64_t set = 0; set < out->sets; set++) {
        const int64_t first = row + set * SET, some = larger(0, smaller(SET, count - set * SET));
        int8_t *bytes = (int8_t *)out->bytes + set * out->units * SET * UNIT;
        float *steps = out->steps + set * out->blocks * SET;
        if (w->levels)
            convert_set_512(w, first, some, unit, out->units, out->blocks, 1, flips, bytes, steps);
        else
            convert_set_512(w, first, some, unit, out->units, out->blocks, 0, flips, bytes, steps);
    }
}

#endif
#endif
