/* Products of bytes (bytes.h) on 256-bit registers: AVX-VNNI and AVX2.
 *
 * With AVX-VNNI one instruction multiplies four columns of 8 rows of the matrix by four inputs,
 * twice as many as of 16-bit integers. One of its factors must have no sign: 128 is added to the
 * bytes of the matrix, and 128 times the sum of the inputs is subtracted at the start.
 *
 * AVX2 multiplies bytes no faster than 16-bit integers: its instruction for bytes adds pairs of
 * products in 16 bits, so it must be given the signs apart, and a second instruction must widen the
 * sums. So bytes become 16-bit integers there, and the gain is only the one of fewer conversions to
 * float32.
 */

#include "bytes.h"

#if ON_X86
#include <string.h>

#define AVX2 __attribute__((target("avx2,fma")))

/* Older compilers and assemblers do not know AVX-VNNI. */
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define HAS_AVX_VNNI 1
#else
#define HAS_AVX_VNNI 0
#endif

#define LANES 8
#define MOST_TILE 6           /* inputs multiplied at a time: their sums take 12 of 16 registers */
#define ROW_BYTES (256 << 10) /* stay in the L2 cache */

/* ---- the matrix as bytes -------------------------------------------------------------------- */

/* Convert 8 levels; the results have 32 bits. */
AVX2 INLINE __m256i times(__m256 levels, __m256 ratio)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(levels, ratio));
}

/* Convert a unit of a row of a 4-bit matrix. levels: all 16, two registers. */
AVX2 INLINE void convert_4_bit(const uint8_t *codes, const __m256 *levels, float ratio,
                               __m256i flip, __m256i *out)
{
    /* 1. The table of the group, twice. Packing works within 128-bit halves. */
    const __m256 all = _mm256_set1_ps(ratio);
    const __m256i words = _mm256_packs_epi32(times(levels[0], all), times(levels[1], all));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
    __m256i table = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words, words), order);
    table = _mm256_xor_si256(table, flip);
    /* 2. Look up: the high half of a byte is the first of a pair. */
    const __m256i nibbles = _mm256_set1_epi8(15), bytes = _mm256_loadu_si256((const void *)codes);
    const __m256i first =
        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibbles));
    const __m256i second = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, nibbles));
    const __m256i a = _mm256_unpacklo_epi8(first, second);
    const __m256i b = _mm256_unpackhi_epi8(first, second);
    out[0] = _mm256_permute2x128_si256(a, b, 0x20);
    out[1] = _mm256_permute2x128_si256(a, b, 0x31);
}

/* Convert a unit of a row of an int8 matrix. */
AVX2 INLINE void convert_int8(const uint8_t *codes, float ratio, __m256i flip, __m256i *out)
{
    const __m256 all = _mm256_set1_ps(ratio);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256i part[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const __m128i eight = _mm_loadl_epi64((const void *)(codes + 32 * i + 8 * k));
            part[k] = times(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight)), all);
        }
        const __m256i words = _mm256_packs_epi32(part[0], part[1]);
        const __m256i words2 = _mm256_packs_epi32(part[2], part[3]);
        out[i] = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words, words2), order);
        out[i] = _mm256_xor_si256(out[i], flip);
    }
}

/* Transpose 8 rows of 8 numbers of 32 bits. */
AVX2 INLINE void transpose_8(__m256i *r)
{
    __m256i t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        r[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    memcpy(r, t, sizeof(t));
}

/* Write a unit of 16 rows in the order of `Rows`. unit: [16][UNIT] bytes */
AVX2 INLINE void write_unit(const int8_t *unit, int words, char *out)
{
#pragma GCC unroll 4
    for (int part = 0; part < 4; part++) {
        const int row = part / 2 * LANES, column = part % 2 * 32;
        __m256i r[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++)
            r[i] = _mm256_load_si256((const void *)(unit + (row + i) * UNIT + column));
        transpose_8(r);
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) {
            const int quad = column / 4 + i;
            if (!words) {
                _mm256_store_si256((void *)(out + (quad * SET + row) * 4), r[i]);
                continue;
            }
            const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(r[i], 8), 8);
            _mm256_store_si256((void *)(out + (2 * quad * SET + row) * 4), even);
            _mm256_store_si256((void *)(out + ((2 * quad + 1) * SET + row) * 4),
                               _mm256_srai_epi16(r[i], 8));
        }
    }
}

/* Return the scales of up to 8 units of a row; others are 0. */
AVX2 INLINE __m256 scales_of_units(const Matrix *w, int64_t row, int64_t unit, int64_t units)
{
    const int64_t first = row * (w->columns / w->group) + unit * UNIT / w->group;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)units), lanes);
    if (w->group != UNIT) {
        float scales[BLOCK_UNITS] = {0};
        for (int64_t i = 0; i < units; i++)
            scales[i] = one_scale(w, row * (w->columns / w->group) + (unit + i) * UNIT / w->group);
        return _mm256_loadu_ps(scales);
    }
    if (w->scales)
        return _mm256_maskload_ps(w->scales + first, there);
    /* 256 scales share an outer scale; these may belong to two of them. */
    uint64_t eight = 0;
    memcpy(&eight, w->scale_codes + first, (size_t)units);
    const __m256i codes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)eight));
    const int64_t outer = first >> 8, next = (first + units - 1) >> 8;
    const __m256i later = _mm256_cmpgt_epi32(lanes, _mm256_set1_epi32((int)(255 - first % 256)));
    const __m256 factor =
        _mm256_blendv_ps(_mm256_set1_ps(w->outer_scales[outer]),
                         _mm256_set1_ps(w->outer_scales[next]), _mm256_castsi256_ps(later));
    /* Product and sum are rounded separately, as in one_scale. */
    const __m256 product = _mm256_mul_ps(_mm256_i32gather_ps(w->scale_map, codes, 4), factor);
    return _mm256_and_ps(_mm256_add_ps(product, _mm256_set1_ps(w->scale_offset)),
                         _mm256_castsi256_ps(there));
}

AVX2 void find_ratios(const Matrix *w, int64_t row, int64_t count, int64_t unit, int64_t units,
                      float (*ratios)[BLOCK_UNITS], float *steps)
{
    const float top = most_level(w);
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    memset(steps, 0, SET * sizeof(float));
    memset(ratios, 0, SET * sizeof(*ratios));
    for (int64_t i = 0; i < count; i++) {
        const __m256 scales = scales_of_units(w, row + i, unit, units);
        /* As integers, magnitudes have the same order, and NaN is above infinity. */
        const __m256i sizes = _mm256_and_si256(_mm256_castps_si256(scales), magnitude);
        __m128i most =
            _mm_max_epi32(_mm256_castsi256_si128(sizes), _mm256_extracti128_si256(sizes, 1));
        most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0x4e));
        most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0xb1));
        const float factor = factor_of(top * _mm_cvtss_f32(_mm_castsi128_ps(most)), steps + i);
        if (factor != 0)
            _mm256_storeu_ps(ratios[i], _mm256_mul_ps(scales, _mm256_set1_ps(factor)));
    }
}

AVX2 INLINE void convert_set(const Matrix *w, int64_t first, int64_t count, int64_t unit,
                             int64_t units, int64_t blocks, int four_bit, __m256i flip, int words,
                             char *out, float *steps)
{
    const int64_t unit_bytes = four_bit ? UNIT / 2 : UNIT, pitch = w->columns / UNIT * unit_bytes;
    __m256 levels[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    if (four_bit)
        memcpy(levels, w->levels, sizeof(levels));
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * BLOCK_UNITS, some = smaller(BLOCK_UNITS, units - start);
        float ratios[SET][BLOCK_UNITS];
        find_ratios(w, first, count, unit + start, some, ratios, steps + block * SET);
        for (int64_t k = 0; k < some; k++, out += SET * UNIT << words) {
            __m256i bytes[SET][UNIT / 32];
            for (int64_t i = 0; i < SET; i++) {
                const uint8_t *codes =
                    w->codes + (first + i) * pitch + (unit + start + k) * unit_bytes;
                if (i >= count)
                    bytes[i][0] = bytes[i][1] = flip;
                else if (four_bit)
                    convert_4_bit(codes, levels, ratios[i][k], flip, bytes[i]);
                else
                    convert_int8(codes, ratios[i][k], flip, bytes[i]);
            }
            write_unit((const int8_t *)bytes, words, out);
        }
    }
}

AVX2 INLINE void convert_256(const Matrix *w, int64_t row, int64_t count, int64_t unit, int flip,
                             int words, const Rows *out)
{
    const __m256i flips = _mm256_set1_epi8(flip ? -128 : 0);
    for (int64_t set = 0; set < out->sets; set++) {
        const int64_t first = row + set * SET, some = larger(0, smaller(SET, count - set * SET));
        char *bytes = (char *)out->bytes + (set * out->units * SET * UNIT << words);
        float *steps = out->steps + set * out->blocks * SET;
        if (w->levels)
            convert_set(w, first, some, unit, out->units, out->blocks, 1, flips, words, bytes,
                        steps);
        else
            convert_set(w, first, some, unit, out->units, out->blocks, 0, flips, words, bytes,
                        steps);
    }
}

AVX2 static void convert_avx2(const Matrix *w, int64_t row, int64_t count, int64_t unit,
                              const Rows *out)
{
    convert_256(w, row, count, unit, 0, 1, out);
}

AVX2 static void convert_avx_vnni(const Matrix *w, int64_t row, int64_t count, int64_t unit,
                                  const Rows *out)
{
    convert_256(w, row, count, unit, 1, 0, out);
}

/* ---- products ----------------------------------------------------------------------------- */

/* Add the products of 4 columns (with AVX2 of 2) to sums. In assembler, because compilers move
 * these instructions so far that the sums no longer fit into the registers. */
AVX2 INLINE __m256i add_products(__m256i sums, __m256i rows, __m256i inputs, int vnni)
{
#if HAS_AVX_VNNI
    if (vnni) {
        __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(rows), "x"(inputs));
        return sums;
    }
#endif
    (void)vnni;
    __m256i products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sums), "=&x"(products)
            : "x"(rows), "x"(inputs));
    return sums;
}

/* Return 4 bytes in all lanes. In assembler for the same reason. */
AVX2 INLINE __m256i broadcast(const char *four)
{
    __m256i all;
    __asm__ volatile("vpbroadcastd %1, %0" : "=x"(all) : "m"(*(const char(*)[4])four));
    return all;
}

/* Multiply some inputs by one block of a set of rows. `count` and `vnni` are constants in every
 * caller.
 *
 * rows   [quads][16][4 bytes]
 * x      the first of these inputs in the first unit; UNIT numbers to the next input, 16 of them to
 *        the next unit
 * sums   [count][16] */
AVX2 INLINE void multiply_tile(const char *rows, int64_t units, const char *x, const float *steps,
                               const int32_t *flips, const float *row_steps, float *sums,
                               int count, int vnni)
{
    const int64_t input_bytes = vnni ? UNIT : 2 * UNIT;
    __m256i a[MOST_TILE], b[MOST_TILE];
#pragma GCC unroll 6
    for (int m = 0; m < count; m++)
        a[m] = b[m] = vnni ? _mm256_set1_epi32(flips[m]) : _mm256_setzero_si256();
    for (int64_t unit = 0; unit < units; unit++, x += SET * input_bytes)
#pragma GCC unroll 4
        for (int i = 0; i < input_bytes; i += 4, rows += SET * 4) {
            const __m256i first = _mm256_load_si256((const void *)rows);
            const __m256i second = _mm256_load_si256((const void *)(rows + 32));
#pragma GCC unroll 6
            for (int m = 0; m < count; m++) {
                const __m256i four = broadcast(x + m * input_bytes + i);
                a[m] = add_products(a[m], first, four, vnni);
                b[m] = add_products(b[m], second, four, vnni);
            }
        }
    const __m256 step = _mm256_loadu_ps(row_steps), step2 = _mm256_loadu_ps(row_steps + LANES);
#pragma GCC unroll 6
    for (int m = 0; m < count; m++) {
        const __m256 mine = _mm256_set1_ps(steps[m]);
        float *to = sums + m * SET, *to2 = to + LANES;
        _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(a[m]), _mm256_mul_ps(mine, step),
                                             _mm256_loadu_ps(to)));
        _mm256_storeu_ps(to2, _mm256_fmadd_ps(_mm256_cvtepi32_ps(b[m]), _mm256_mul_ps(mine, step2),
                                              _mm256_loadu_ps(to2)));
    }
}

AVX2 INLINE void multiply_256(const Rows *rows, const Inputs *inputs, int64_t set, int64_t unit,
                              float *sums, int vnni)
{
    const int64_t unit_bytes = vnni ? SET * UNIT : 2 * SET * UNIT;
    for (int64_t half = 0; half < 2; half++, sums += SET * SET)
        for (int64_t block = 0; block < rows->blocks; block++) {
            const int64_t start = block * BLOCK_UNITS;
            const int64_t units = smaller(BLOCK_UNITS, rows->units - start);
            const char *x = (const char *)inputs->bytes +
                            ((set + half) * inputs->units + unit + start) * unit_bytes;
            const int64_t at =
                ((set + half) * inputs->blocks + unit / BLOCK_UNITS + block) * SET;
            for (int64_t i = 0; i < rows->sets; i++) {
                const char *here =
                    (const char *)rows->bytes + (i * rows->units + start) * unit_bytes;
                const float *steps = rows->steps + (i * rows->blocks + block) * SET;
                float *to = sums + i * SET * PAIR_OF_SETS;
                int64_t m = 0;
#define TILE(count)                                                                               \
    multiply_tile(here, units, x + m * (unit_bytes / SET), inputs->steps + at + m,                \
                  inputs->flips + at + m, steps, to + m * SET, count, vnni);                      \
    m += count;
                TILE(6) TILE(5) TILE(5)
#undef TILE
            }
        }
}

AVX2 static void multiply_avx2(const Rows *rows, const Inputs *inputs, int64_t set, int64_t unit,
                               float *sums)
{
    multiply_256(rows, inputs, set, unit, sums, 0);
}

AVX2 static void multiply_avx_vnni(const Rows *rows, const Inputs *inputs, int64_t set,
                                   int64_t unit, float *sums)
{
    multiply_256(rows, inputs, set, unit, sums, 1);
}

const ByteVersion bytes_avx2 = {.words = 1,
                                .row_bytes = ROW_BYTES,
                                .convert = convert_avx2,
                                .multiply = multiply_avx2};

const ByteVersion bytes_avx_vnni = {
    .row_bytes = ROW_BYTES, .convert = convert_avx_vnni, .multiply = multiply_avx_vnni};

#endif
