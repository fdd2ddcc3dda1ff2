/* Products of integers (integer.h) on 256-bit registers, for processors with AVX2 or AVX-VNNI.
 *
 * A register holds a pair of neighbouring columns of 8 rows of the matrix: two 16-bit integers in
 * each of its lanes of 32 bits. One instruction multiplies them by a pair of inputs, which is
 * broadcast from memory, and adds the two products of each lane; with AVX-VNNI it also adds them to
 * the sums. So a register has the sums of 8 rows of the matrix, which are converted to float32 and
 * multiplied by their scales together.
 *
 * - For several inputs, a panel of 16 rows of the matrix and a few units is decoded into the L1
 *   cache in that order, and multiplied by all inputs, up to 6 at a time: their sums take 12 of the
 *   16 registers. The float32 sums of all inputs stay in the L2 cache from panel to panel.
 * - Up to 5 or 8 inputs are multiplied while the matrix is decoded, because the order of a panel takes
 *   longer than their products. There, a register holds columns of two rows, one in each half, and
 *   the lanes of a row's sums are added up after each unit.
 *
 * Processors with three ports for such instructions (Intel) do 1.5 products and additions of
 * registers per cycle with AVX2, and 2 with AVX-VNNI, beside 2 of float32 with half as many numbers.
 * On a Xeon of 2023, from registers, that was 65, 93 and 46 multiply-adds per nanosecond.
 */

#include "integer.h"

#if ON_X86

#define AVX2 __attribute__((target("avx2,fma")))

/* Older compilers and assemblers do not know AVX-VNNI. */
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define HAS_AVX_VNNI 1
#else
#define HAS_AVX_VNNI 0
#endif

#define LANES 8             /* rows of the matrix in a register */
#define PANEL_ROWS 16       /* rows of the matrix in a panel: two registers */
#define PANEL_UNITS 8       /* units of a panel, which has 16 KiB then */
#define PAIRS (UNIT / 2)    /* pairs of columns in a unit */
#define MOST_TILE 6         /* inputs multiplied at a time */
#define FEW_AVX2 5          /* up to this many inputs are multiplied without panels: more need too */
#define FEW_AVX_VNNI 8      /* many registers */
#define INPUTS_AT_ONCE 256  /* inputs for which a panel is decoded; their sums stay in the L2 cache */
#define BAND 128            /* rows of the matrix for which a part of many inputs is read once */
#define BAND_INPUTS 32      /* from this many inputs on */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Add products of pairs to sums. In assembler, because compilers move these instructions so far
 * that the sums no longer fit into the registers, and take twice the time. */
AVX2 INLINE __m256i add_products(__m256i sums, __m256i a, __m256i b, int vnni)
{
#if HAS_AVX_VNNI
    if (vnni) {
        __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sums) : "x"(a), "x"(b));
        return sums;
    }
#endif
    (void)vnni;
    __m256i products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sums), "=&x"(products)
            : "x"(a), "x"(b));
    return sums;
}

/* Return a pair of inputs in all lanes. In assembler for the same reason: compilers load the pairs
 * of all inputs first. */
AVX2 INLINE __m256i broadcast(const int16_t *pair)
{
    __m256i all;
    __asm__ volatile("vpbroadcastd %1, %0" : "=x"(all) : "m"(*(const int16_t(*)[2])pair));
    return all;
}

/* Return 8 numbers twice. `in_place`: where it is written. */
AVX2 INLINE __m256i load_twice(const int16_t *eight, int in_place)
{
    __m256i twice;
    if (!in_place)
        return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)eight));
    __asm__ volatile("vbroadcasti128 %1, %0" : "=x"(twice) : "m"(*(const __m128i *)eight));
    return twice;
}

/* ---- decoding ----------------------------------------------------------------------------- */

/* The lower and the upper bytes of the levels, for look-ups by code; each table twice. */
typedef struct {
    __m256i low, high;
} Tables;

AVX2 INLINE Tables tables_of(const Matrix *w)
{
    uint8_t low[16] = {0}, high[16] = {0};
    for (int i = 0; w->integer_levels && i < 16; i++) {
        low[i] = (uint8_t)w->integer_levels[i];
        high[i] = (uint8_t)(w->integer_levels[i] >> 8);
    }
    return (Tables){_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                    _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)high))};
}

/* Load 16 bytes of each of two rows. */
AVX2 INLINE __m256i load_two(const uint8_t *first, const uint8_t *second)
{
    const __m128i low = _mm_loadu_si128((const __m128i *)first);
    const __m128i high = _mm_loadu_si128((const __m128i *)second);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* Look up the levels of 32 codes, in the order of the codes within each half of a register. */
AVX2 INLINE void look_up(__m256i codes, const Tables *tables, __m256i *out)
{
    const __m256i low = _mm256_shuffle_epi8(tables->low, codes);
    const __m256i high = _mm256_shuffle_epi8(tables->high, codes);
    out[0] = _mm256_unpacklo_epi8(low, high);
    out[1] = _mm256_unpackhi_epi8(low, high);
}

/* Decode 4 bytes of each of 8 rows, which are in the lanes of `bytes`: for each pair of columns
 * write the pairs of the 8 rows. These are 4 pairs of columns, or 2 of an int8 matrix. */
AVX2 INLINE void decode_lanes(__m256i bytes, const Tables *tables, int four_bit, int16_t *out)
{
    const int step = 2 * PANEL_ROWS;
    if (!four_bit) {
        /* Bytes 0 and 1 become the lower halves of 16 bits, 2 and 3 the upper ones. */
        const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
        bytes = _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order));
        const __m256i first = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
        _mm256_store_si256((__m256i *)out, first);
        _mm256_store_si256((__m256i *)(out + step), _mm256_srai_epi16(bytes, 8));
        return;
    }
    /* 1. Transpose the bytes of 4 rows, so that a lane has the same byte of 4 rows. */
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    bytes = _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order));
    /* 2. Codes: the high half of a byte is the first of a pair. */
    const __m256i nibbles = _mm256_set1_epi8(15);
    const __m256i a = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibbles);
    const __m256i b = _mm256_and_si256(bytes, nibbles);
    /* 3. Levels. */
    __m256i levels[4];
    look_up(_mm256_unpacklo_epi8(a, b), tables, levels);
    look_up(_mm256_unpackhi_epi8(a, b), tables, levels + 2);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        _mm256_store_si256((__m256i *)(out + i * step), levels[i]);
}

/* Decode some units of 16 rows into a panel: for each pair of columns the pairs of 16 rows. */
AVX2 INLINE void decode_panel(const uint8_t *const *rows, int64_t bytes, const Tables *tables,
                              int four_bit, int16_t *panel)
{
    for (int half = 0; half < 2; half++) {
        const uint8_t *const *r = rows + half * LANES;
        int16_t *out = panel + half * 2 * LANES;
        for (int64_t at = 0; at < bytes; at += 16) {
            /* Rows 0 to 3 are in the lower half of a register, 4 to 7 in the upper one. In both,
             * transpose 4 x 4 lanes. */
            const __m256i a = load_two(r[0] + at, r[4] + at), b = load_two(r[1] + at, r[5] + at);
            const __m256i c = load_two(r[2] + at, r[6] + at), d = load_two(r[3] + at, r[7] + at);
            const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
            const __m256i ab2 = _mm256_unpackhi_epi32(a, b), cd2 = _mm256_unpackhi_epi32(c, d);
            const __m256i lanes[4] = {
                _mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab2, cd2), _mm256_unpackhi_epi64(ab2, cd2)};
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++, out += (four_bit ? 4 : 2) * 2 * PANEL_ROWS)
                decode_lanes(lanes[i], tables, four_bit, out);
        }
    }
}

/* The scales of all 256 codes, for one outer scale. */
typedef struct {
    int64_t outer; /* its index, or -1 */
    float values[256];
} ScaleTable;

/* Write the scale of each unit of a row, PANEL_ROWS numbers apart. Every 256 scales share an outer
 * scale: the values of all 256 codes are computed once for it, instead of for every scale. */
AVX2 INLINE void find_scales(const Matrix *w, int64_t row, ScaleTable *table, float *out)
{
    const int64_t groups = w->columns / w->group, repeats = w->group / UNIT, first = row * groups;
    if (w->scales || repeats > 1) {
        for (int64_t i = 0; i < groups; i++) {
            const float scale = one_scale(w, first + i);
            for (int64_t k = 0; k < repeats; k++, out += PANEL_ROWS)
                *out = scale;
        }
        return;
    }
    const uint8_t *codes = w->scale_codes + first;
    for (int64_t i = 0; i < groups;) {
        const int64_t outer = (first + i) >> 8, end = smaller(((outer + 1) << 8) - first, groups);
        if (table->outer != outer) {
            const __m256 factor = _mm256_set1_ps(w->outer_scales[outer]);
            const __m256 offset = _mm256_set1_ps(w->scale_offset);
            for (int k = 0; k < 256; k += 8) {
                const __m256 product = _mm256_mul_ps(_mm256_loadu_ps(w->scale_map + k), factor);
                _mm256_storeu_ps(table->values + k, _mm256_add_ps(product, offset));
            }
            table->outer = outer;
        }
        for (; i + 8 <= end; i += 8, out += 8 * PANEL_ROWS)
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++)
                out[k * PANEL_ROWS] = table->values[codes[i + k]];
        for (; i < end; i++, out += PANEL_ROWS)
            *out = table->values[codes[i]];
    }
}

/* ---- several inputs ----------------------------------------------------------------------- */

/* Multiply a panel by some inputs. `count` and `vnni` are constants in every caller.
 *
 * x       [units, stride, UNIT], from the first of these inputs on
 * steps   [units, stride]
 * scales  [units, PANEL_ROWS]
 * sums    [inputs, PANEL_ROWS], added to */
AVX2 INLINE void multiply_tile(const int16_t *panel, int64_t units, const int16_t *x,
                               const float *steps, int64_t stride, const float *scales,
                               float *sums, int count, int vnni)
{
    for (int64_t unit = 0; unit < units; unit++) {
        /* 1. Products of integers. */
        __m256i a[MOST_TILE], b[MOST_TILE];
#pragma GCC unroll 6
        for (int m = 0; m < count; m++)
            a[m] = b[m] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int i = 0; i < PAIRS; i++) {
            const __m256i *w = (const __m256i *)(panel + i * 2 * PANEL_ROWS);
            const __m256i first = _mm256_load_si256(w), second = _mm256_load_si256(w + 1);
#pragma GCC unroll 6
            for (int m = 0; m < count; m++) {
                const __m256i pair = broadcast(x + m * UNIT + 2 * i);
                a[m] = add_products(a[m], first, pair, vnni);
                b[m] = add_products(b[m], second, pair, vnni);
            }
        }
        /* 2. Times the unit's factors. */
        const __m256 scale = _mm256_load_ps(scales), scale2 = _mm256_load_ps(scales + LANES);
#pragma GCC unroll 6
        for (int m = 0; m < count; m++) {
            const __m256 step = _mm256_set1_ps(steps[m]);
            float *to = sums + m * PANEL_ROWS, *to2 = to + LANES;
            _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(a[m]),
                                                _mm256_mul_ps(scale, step), _mm256_load_ps(to)));
            _mm256_store_ps(to2, _mm256_fmadd_ps(_mm256_cvtepi32_ps(b[m]),
                                                 _mm256_mul_ps(scale2, step), _mm256_load_ps(to2)));
        }
        panel += PAIRS * 2 * PANEL_ROWS;
        x += stride * UNIT;
        steps += stride;
        scales += PANEL_ROWS;
    }
}

/* Multiply a panel by inputs, in tiles of nearly equal size. */
AVX2 INLINE void multiply_panel(const int16_t *panel, int64_t units, const int16_t *x,
                                const float *steps, int64_t stride, int64_t inputs,
                                const float *scales, float *sums, int vnni)
{
    for (int64_t tiles = (inputs + MOST_TILE - 1) / MOST_TILE; tiles > 0; tiles--) {
        const int64_t now = (inputs + tiles - 1) / tiles;
        switch (now) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        multiply_tile(panel, units, x, steps, stride, scales, sums, n, vnni);                     \
        break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#undef CASE
        }
        x += now * UNIT;
        steps += now;
        sums += now * PANEL_ROWS;
        inputs -= now;
    }
}

/* Write the results of some inputs. sums: [panels, inputs, PANEL_ROWS] */
AVX2 INLINE void write_sums(const Product *p, const float *sums, int64_t first, int64_t inputs,
                            int64_t begin, int64_t end)
{
    for (int64_t input = 0; input < inputs; input++)
        for (int64_t row = begin; row < end; row += PANEL_ROWS) {
            const float *from = sums + ((row - begin) * inputs + input * PANEL_ROWS);
            if (p->wide && row + PANEL_ROWS <= end) {
                float *to = (float *)p->out + (first + input) * p->w->rows + row;
                memcpy(to, from, PANEL_ROWS * sizeof(float));
                continue;
            }
            for (int64_t i = 0; i < PANEL_ROWS && row + i < end; i++)
                write_result(p, first + input, row + i, from[i]);
        }
}

/* The buffers of a thread, in its room. Of the scales of a band and of the sums of INPUTS_AT_ONCE
 * inputs, the parts of one panel are next to each other. */
typedef struct {
    float *scales;  /* [panels, units, PANEL_ROWS] */
    float *sums;    /* [panels, inputs, PANEL_ROWS] */
    int16_t *panel; /* [PANEL_UNITS, PAIRS, PANEL_ROWS, 2] */
} Room;

/* Return the rows of a band if there are enough of them to keep all threads busy. */
static int64_t widest_band(const Product *p)
{
    return p->inputs < BAND_INPUTS ? PANEL_ROWS : BAND;
}

AVX2 INLINE void multiply_several(const Product *p, int64_t begin, int64_t end, const Room *room,
                                  const Tables *tables, int four_bit, int vnni)
{
    const Matrix *w = p->w;
    const int64_t units = p->units, unit_bytes = four_bit ? UNIT / 2 : UNIT;
    const int64_t pitch = units * unit_bytes, panels = (end - begin + PANEL_ROWS - 1) / PANEL_ROWS;
    const int16_t *x = p->arranged;
    const float *steps = (const float *)(x + p->inputs * units * UNIT);
    int64_t now;
    for (int64_t first = 0; first < p->inputs; first += now) {
        /* Equal parts of the inputs. */
        const int64_t left = p->inputs - first, parts = (left + INPUTS_AT_ONCE - 1) / INPUTS_AT_ONCE;
        now = (left + parts - 1) / parts;
        memset(room->sums, 0, (size_t)(panels * now * PANEL_ROWS) * sizeof(float));
        for (int64_t unit = 0; unit < units; unit += PANEL_UNITS) {
            const int64_t these = smaller(PANEL_UNITS, units - unit), bytes = these * unit_bytes;
            for (int64_t i = 0; i < panels; i++) {
                /* 1. Rows after the last one repeat it; their results are not written. */
                const uint8_t *rows[PANEL_ROWS];
                for (int k = 0; k < PANEL_ROWS; k++)
                    rows[k] = w->codes + smaller(begin + i * PANEL_ROWS + k, end - 1) * pitch +
                              unit * unit_bytes;
                /* 2. Prefetch the next panel; if it is the only one, the next band sequentially. */
                const uint8_t *next = w->codes + end * pitch + unit * unit_bytes * PANEL_ROWS;
                for (int k = 0; k < PANEL_ROWS; k++)
                    for (int64_t at = 0; at < bytes; at += 64)
                        _mm_prefetch((const char *)(panels > 1 ? rows[k] + PANEL_ROWS * pitch + at
                                                               : next + k * bytes + at),
                                     _MM_HINT_T1);
                /* 3. Decode this panel and multiply it by all these inputs. */
                decode_panel(rows, bytes, tables, four_bit, room->panel);
                multiply_panel(room->panel, these, x + (unit * p->inputs + first) * UNIT,
                               steps + unit * p->inputs + first, p->inputs, now,
                               room->scales + (i * units + unit) * PANEL_ROWS,
                               room->sums + i * now * PANEL_ROWS, vnni);
            }
        }
        write_sums(p, room->sums, first, now, begin, end);
    }
}

/* ---- few inputs --------------------------------------------------------------------------- */

/* Rearrange an input in the order in which codes are extracted from bytes. Of each 32 columns: 0, 2
 * to 14, then 16 to 30, 1 to 15, and 17 to 31. */
static void arrange_few(const int16_t *integers, int64_t columns, int16_t *out)
{
    for (int64_t start = 0; start < columns; start += 32)
        for (int i = 0; i < 32; i++)
            out[start + i] = integers[start + i % 16 * 2 + i / 16];
}

/* Decode 32 columns of two rows, in the order of arrange_few. */
AVX2 INLINE void decode_two(const uint8_t *first, const uint8_t *second, const Tables *tables,
                            int four_bit, __m256i *out)
{
    if (four_bit) {
        const __m256i nibbles = _mm256_set1_epi8(15), bytes = load_two(first, second);
        look_up(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibbles), tables, out);
        look_up(_mm256_and_si256(bytes, nibbles), tables, out + 2);
        return;
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m256i bytes = load_two(first + 16 * i, second + 16 * i);
        out[i] = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
        out[2 + i] = _mm256_srai_epi16(bytes, 8);
    }
}

/* Return the sums of 8 rows, in order. sums: four lanes each of rows 0 and 4, 1 and 5, 2 and 6, 3
 * and 7. */
AVX2 INLINE __m256i add_lanes(const __m256i *sums)
{
    __m256i half[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        half[i] = _mm256_add_epi32(_mm256_blend_epi32(sums[2 * i], sums[2 * i + 1], 0xcc),
                                   _mm256_alignr_epi8(sums[2 * i + 1], sums[2 * i], 8));
    const __m256 a = _mm256_castsi256_ps(half[0]), b = _mm256_castsi256_ps(half[1]);
    return _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)),
                            _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd)));
}

/* Multiply 8 rows by few inputs, and prefetch as many bytes from `prefetch` on.
 *
 * x        [count, units, UNIT]
 * steps    [count, units]
 * scales   [units, PANEL_ROWS], of which 8 are used
 * totals   [count] registers with the results of 8 rows */
AVX2 INLINE void multiply_rows(const uint8_t *const *r, int64_t units, const Tables *tables,
                               const int16_t *x, const float *steps, const float *scales,
                               const uint8_t *prefetch, int count, int four_bit, int vnni,
                               __m256 *totals)
{
    const int64_t half_bytes = four_bit ? UNIT / 4 : UNIT / 2;
    __m256 total[FEW_AVX_VNNI];
#pragma GCC unroll 8
    for (int m = 0; m < count; m++)
        total[m] = _mm256_setzero_ps();
    for (int64_t unit = 0; unit < units; unit++, prefetch += 2 * LANES * half_bytes) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            if (four_bit ? i < 4 : 1)
                _mm_prefetch((const char *)(prefetch + 64 * i), _MM_HINT_T0);
        /* 1. Products of integers. */
        __m256i sums[FEW_AVX_VNNI][4];
#pragma GCC unroll 8
        for (int m = 0; m < count; m++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                sums[m][i] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int part = 0; part < 8; part++) {
            /* Of one or two inputs, a half is used for all rows while it is in registers; of more,
             * only the sums of two rows fit into the registers. */
            const int half = count > 2 ? part % 2 : part / 4;
            const int i = count > 2 ? part / 2 : part % 4;
            const int64_t at = (2 * unit + half) * half_bytes;
            const int16_t *here = x + unit * UNIT + half * (UNIT / 2);
            __m256i levels[4];
            decode_two(r[i] + at, r[i + 4] + at, tables, four_bit, levels);
#pragma GCC unroll 8
            for (int m = 0; m < count; m++)
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) {
                    const __m256i twice = load_twice(here + m * units * UNIT + k * 8, count > 2);
                    sums[m][i] = add_products(sums[m][i], levels[k], twice, vnni);
                }
        }
        /* 2. Times the unit's factors. */
        const __m256 scale = _mm256_load_ps(scales + unit * PANEL_ROWS);
#pragma GCC unroll 8
        for (int m = 0; m < count; m++) {
            const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(steps[m * units + unit]));
            total[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(add_lanes(sums[m])), factor, total[m]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < count; m++)
        totals[m] = total[m];
}

AVX2 INLINE void multiply_few(const Product *p, int64_t begin, int64_t end, const Room *room,
                              const Tables *tables, int count, int four_bit, int vnni)
{
    const int64_t units = p->units, pitch = units * (four_bit ? UNIT / 2 : UNIT);
    const int16_t *x = p->arranged;
    const float *steps = (const float *)(x + p->inputs * units * UNIT);
    for (int64_t first = begin; first < end; first += LANES) {
        /* Rows after the last one repeat it; their results are not written. */
        const uint8_t *rows[LANES];
        for (int i = 0; i < LANES; i++)
            rows[i] = p->w->codes + smaller(first + i, end - 1) * pitch;
        const int64_t place = first - begin;
        const float *scales = room->scales + place / PANEL_ROWS * units * PANEL_ROWS;
        __m256 totals[FEW_AVX_VNNI];
        multiply_rows(rows, units, tables, x, steps, scales + place % PANEL_ROWS,
                      p->w->codes + (first + LANES) * pitch, count, four_bit, vnni, totals);
        for (int m = 0; m < count; m++) {
            float results[LANES];
            _mm256_storeu_ps(results, totals[m]);
            for (int i = 0; i < LANES && first + i < end; i++)
                write_result(p, m, first + i, results[i]);
        }
    }
}

/* ---- the versions ------------------------------------------------------------------------- */

/* `arranged` has integers, then steps: [inputs, units, ...] for few inputs, else [units, inputs,
 * ...], so that the inputs of a tile are next to each other. */
static int64_t bytes_256(const Product *p)
{
    return p->inputs * p->units * (UNIT * (int64_t)sizeof(int16_t) + (int64_t)sizeof(float));
}

INLINE void arrange_256(const Product *p, int64_t input, const int16_t *integers,
                        const float *steps, int64_t few)
{
    int16_t *out = p->arranged;
    float *out_steps = (float *)(out + p->inputs * p->units * UNIT);
    if (p->inputs <= few) {
        arrange_few(integers, p->units * UNIT, out + input * p->units * UNIT);
        memcpy(out_steps + input * p->units, steps, (size_t)p->units * sizeof(float));
        return;
    }
    for (int64_t unit = 0; unit < p->units; unit++) {
        const int64_t place = unit * p->inputs + input;
        memcpy(out + place * UNIT, integers + unit * UNIT, UNIT * sizeof(int16_t));
        out_steps[place] = steps[unit];
    }
}

static int64_t band_256(const Product *p, int threads)
{
    int64_t band = widest_band(p);
    while (band > PANEL_ROWS && p->w->rows < 4 * threads * band)
        band /= 2;
    return band;
}

static int64_t room_256(const Product *p)
{
    const int64_t inputs = smaller(p->inputs, INPUTS_AT_ONCE);
    return widest_band(p) * (p->units + inputs) * (int64_t)sizeof(float) +
           PANEL_UNITS * UNIT * PANEL_ROWS * (int64_t)sizeof(int16_t);
}

AVX2 INLINE void multiply_256(const Product *p, int64_t begin, int64_t end, void *room,
                              int four_bit, int vnni)
{
    const int64_t panels = (end - begin + PANEL_ROWS - 1) / PANEL_ROWS;
    Room here = {.scales = room};
    here.sums = here.scales + panels * p->units * PANEL_ROWS;
    here.panel = (int16_t *)(here.sums + panels * smaller(p->inputs, INPUTS_AT_ONCE) * PANEL_ROWS);
    ScaleTable table = {.outer = -1};
    for (int64_t i = 0; i < panels * PANEL_ROWS; i++)
        find_scales(p->w, smaller(begin + i, end - 1), &table,
                    here.scales + i / PANEL_ROWS * p->units * PANEL_ROWS + i % PANEL_ROWS);
    const Tables tables = tables_of(p->w);
    switch (vnni || p->inputs <= FEW_AVX2 ? p->inputs : 0) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        multiply_few(p, begin, end, &here, &tables, n, four_bit, vnni);                           \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
    default:
        multiply_several(p, begin, end, &here, &tables, four_bit, vnni);
    }
}

static void arrange_avx2(const Product *p, int64_t input, const int16_t *integers,
                         const float *steps)
{
    arrange_256(p, input, integers, steps, FEW_AVX2);
}

static void arrange_avx_vnni(const Product *p, int64_t input, const int16_t *integers,
                             const float *steps)
{
    arrange_256(p, input, integers, steps, FEW_AVX_VNNI);
}

/* Two calls each, so that the compiler specializes the functions. */
AVX2 static void multiply_avx2(const Product *p, int64_t begin, int64_t end, void *room)
{
    if (p->w->integer_levels)
        multiply_256(p, begin, end, room, 1, 0);
    else
        multiply_256(p, begin, end, room, 0, 0);
}

AVX2 static void multiply_avx_vnni(const Product *p, int64_t begin, int64_t end, void *room)
{
    if (p->w->integer_levels)
        multiply_256(p, begin, end, room, 1, 1);
    else
        multiply_256(p, begin, end, room, 0, 1);
}

const Version integer_avx2 = {.bytes = bytes_256,
                              .arrange = arrange_avx2,
                              .room = room_256,
                              .band = band_256,
                              .multiply = multiply_avx2};

const Version integer_avx_vnni = {.bytes = bytes_256,
                                  .arrange = arrange_avx_vnni,
                                  .room = room_256,
                                  .band = band_256,
                                  .multiply = multiply_avx_vnni};

#endif /* ON_X86 */
