/* Products of integers (integer.h) with AVX512-VNNI.
 *
 * A register holds two neighbouring 16-bit integers of each of 16 rows of the matrix. One
 * instruction multiplies them by two integers of the inputs, which is a pair broadcast from memory,
 * and adds both products to the 16 sums. So a matrix is decoded once for up to 16 inputs, and the
 * sums are multiplied by the scales of 16 rows at a time. For more inputs, a panel of 16 rows and a
 * few units is decoded into the L1 cache and multiplied by several sets of 16 inputs.
 *
 * To decode, 4 bytes of each of 16 rows are brought into a register; shifts and a permutation
 * instruction then look up levels. The codes that one look-up finds are not neighbours in the
 * matrix, so the inputs are written in the order in which they are found.
 *
 * With few inputs memory bandwidth is the limit, and memory must be read in one sequential stream:
 * the hardware prefetcher restarts at every page, and 16 rows at a time are in 16 pages. So the
 * next block of rows is prefetched from its first byte to its last while a block is multiplied.
 */

#include "integer_512.h"

#if ON_X86

#define MOST_SET 16          /* inputs that are multiplied at a time: their sums are in registers */
#define PANEL_UNITS 8        /* units decoded into a panel of 16 KiB, which stays in the L1 cache */
#define PANEL_SETS 4         /* most sets that use a panel; their totals are on the stack */
#define PAIRS (UNIT / 2)     /* registers for a unit, each with a pair of columns of 16 rows */
#define BAND_BLOCKS 8        /* blocks of rows that one call multiplies, if there are many inputs */
#define L2_BYTES (640 << 10) /* of inputs that stay in the L2 cache */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- scales ------------------------------------------------------------------------------- */

/* Look up `count` scale codes, up to 64, from the scale `index` on. 64 at a time take 8
 * permutations of bytes and 8 joins of registers for each quarter of scale_map; one at a time, each
 * would be a load that depends on another load. */
AVX512 INLINE void look_up_scales(const Matrix *w, const __m512i (*split)[4], int64_t index,
                                  int64_t count, float *out)
{
    /* 1. Load the codes in an order that step 3 reverses: it joins bytes within quarters of a
     *    register, and each quarter must produce consecutive scales. */
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const uint8_t *here = w->scale_codes + index;
    const __mmask64 there = count < 64 ? (1ull << count) - 1 : ~0ull;
    const __m512i codes = _mm512_permutexvar_epi32(order, _mm512_maskz_loadu_epi8(there, here));
    /* 2. Byte i of all 64 numbers. A permutation addresses 128 entries, so one reads the lower half
     *    of the table, one the upper half, and the code's highest bit selects. */
    const __mmask64 high = _mm512_movepi8_mask(codes);
    __m512i bytes[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        bytes[i] = _mm512_mask_mov_epi8(
            _mm512_permutex2var_epi8(split[i][0], codes, split[i][1]), high,
            _mm512_permutex2var_epi8(split[i][2], codes, split[i][3]));
    /* 3. Join bytes 0 to 3 into float32. */
    const __m512i a = _mm512_unpacklo_epi8(bytes[0], bytes[1]);
    const __m512i b = _mm512_unpackhi_epi8(bytes[0], bytes[1]);
    const __m512i c = _mm512_unpacklo_epi8(bytes[2], bytes[3]);
    const __m512i d = _mm512_unpackhi_epi8(bytes[2], bytes[3]);
    const __m512i found[4] = {_mm512_unpacklo_epi16(a, c), _mm512_unpackhi_epi16(a, c),
                              _mm512_unpacklo_epi16(b, d), _mm512_unpackhi_epi16(b, d)};
    /* 4. Multiply by the outer scale and add the offset. 256 scales share an outer scale; these 64
     *    may belong to two of them. */
    const int64_t group = index >> 8, left = ((group + 1) << 8) - index;
    const __mmask64 next = left < count ? ~0ull << left : 0;
    const __m512 factor = _mm512_set1_ps(w->outer_scales[group]);
    const __m512 next_factor = _mm512_set1_ps(w->outer_scales[left < count ? group + 1 : group]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 mine = _mm512_mask_mov_ps(factor, (__mmask16)(next >> 16 * i), next_factor);
        /* Product and sum are rounded separately, as in one_scale. */
        const __m512 product = _mm512_mul_ps(_mm512_castsi512_ps(found[i]), mine);
        _mm512_store_ps(out + 16 * i, _mm512_add_ps(product, _mm512_set1_ps(w->scale_offset)));
    }
}

/* Split scale_map into one table for each of the four bytes of a float32. A table of 256 bytes fits
 * into four registers, in which a permutation looks up 64 codes at once. */
AVX512 INLINE void split_map(const Matrix *w, __m512i (*split)[4])
{
    uint8_t bytes[4][256] __attribute__((aligned(64)));
    for (int part = 0; part < 4; part++)
        for (int i = 0; i < 256; i += 16) {
            const __m512i numbers = _mm512_loadu_si512(w->scale_map + i);
            _mm_store_si128((__m128i *)(bytes[part] + i),
                            _mm512_cvtepi32_epi8(_mm512_srli_epi32(numbers, (unsigned)(8 * part))));
        }
    memcpy(split, bytes, sizeof(bytes));
}

AVX512 void scales_of_block(const Matrix *w, int64_t row, float *out, float *room)
{
    const int64_t groups = w->columns / w->group, repeats = w->group / UNIT;
    const int64_t rows = smaller(LANES, w->rows - row);
    __m512i split[4][4] = {0};
    if (!w->scales)
        split_map(w, split);
    for (int64_t group = 0; group < groups; group += 64) {
        const int64_t count = smaller(64, groups - group);
        /* 1. Up to 64 scales of each row. */
        for (int64_t i = 0; i < rows; i++) {
            const int64_t first = (row + i) * groups + group;
            if (w->scales) {
                /* Prefetch the scales of the same row in the next block. */
                for (int64_t k = 0; k < count; k += 16)
                    _mm_prefetch((const char *)(w->scales + first + k + LANES * groups),
                                 _MM_HINT_T1);
                memcpy(room + i * 64, w->scales + first, (size_t)count * sizeof(float));
            } else {
                _mm_prefetch((const char *)(w->scale_codes + first + LANES * groups), _MM_HINT_T1);
                look_up_scales(w, (const __m512i(*)[4])split, first, count, room + i * 64);
            }
        }
        /* 2. Transpose them; a group of several units repeats its scale. */
        for (int64_t k = 0; k < count; k += LANES) {
            __m512i r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                r[i] = i < rows ? _mm512_load_si512(room + i * 64 + k) : _mm512_setzero_si512();
            transpose_16(r);
            if (repeats == 1 && count - k >= LANES) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    _mm512_store_si512(out + i * LANES, r[i]);
                out += LANES * LANES;
                continue;
            }
            __m512i some[LANES];
            memcpy(some, r, sizeof(some));
            for (int64_t i = 0; i < smaller(LANES, count - k); i++)
                for (int64_t repeat = 0; repeat < repeats; repeat++, out += LANES)
                    _mm512_store_si512(out, some[i]);
        }
    }
}

/* ---- inputs ------------------------------------------------------------------------------- */

/* Inputs are multiplied in sets of equal size. For each set there are, for each unit, the integers
 * of all its inputs; behind all sets, for each set and unit, their steps. */
static int64_t sets_of(const Product *p)
{
    return (p->inputs + MOST_SET - 1) / MOST_SET;
}

static int64_t set_size(const Product *p)
{
    return (p->inputs + sets_of(p) - 1) / sets_of(p);
}

static int64_t bytes_512(const Product *p)
{
    return sets_of(p) * set_size(p) * p->units * (UNIT * 2 + 4);
}

AVX512 static void arrange_512(const Product *p, int64_t input, const int16_t *integers,
                               const float *steps)
{
    const int64_t size = set_size(p), set = input / size, place = input % size;
    int16_t *out = (int16_t *)p->arranged + (set * size * p->units + place) * UNIT;
    float *out_steps = (float *)((int16_t *)p->arranged + sets_of(p) * size * p->units * UNIT) +
                       set * size * p->units + place;
    /* The order in which look_up finds codes: of every 8 columns, or of every 4 of int8. */
    const __m128i four_bit = _mm_setr_epi8(2, 3, 10, 11, 0, 1, 8, 9, 6, 7, 14, 15, 4, 5, 12, 13);
    const __m128i int8 = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    const __m512i order = _mm512_broadcast_i32x4(p->w->integer_levels ? four_bit : int8);
    for (int64_t unit = 0; unit < p->units; unit++) {
        for (int half = 0; half < UNIT; half += 32) {
            const __m512i some = _mm512_loadu_si512(integers + unit * UNIT + half);
            _mm512_store_si512(out + unit * size * UNIT + half, _mm512_shuffle_epi8(some, order));
        }
        out_steps[unit * size] = steps[unit];
    }
}

/* ---- products ----------------------------------------------------------------------------- */

/* Add the products of a pair of integers of each row and a pair of inputs. In assembler, so that
 * the pair is broadcast by this instruction: compilers load the pairs of all inputs first, for
 * which there are not enough registers. */
AVX512 INLINE void add_products(__m512i *sums, __m512i pairs, const int16_t *x)
{
    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(*sums) : "v"(pairs), "m"(*(const int16_t(*)[2])x));
}

/* Load 16 bytes of each of 16 rows, which are `pitch` bytes apart, and transpose them: register i
 * has the bytes from 4 * i on, and its lanes are rows. */
AVX512 INLINE void load_lanes(const uint8_t *codes, int64_t pitch, __m512i *out)
{
    __m512i a[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const uint8_t *here = codes + i * pitch;
        a[i] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)here));
        a[i] = _mm512_mask_broadcast_i32x4(a[i], 0x00f0,
                                           _mm_loadu_si128((const __m128i *)(here + 4 * pitch)));
        a[i] = _mm512_mask_broadcast_i32x4(a[i], 0x0f00,
                                           _mm_loadu_si128((const __m128i *)(here + 8 * pitch)));
        a[i] = _mm512_mask_broadcast_i32x4(a[i], 0xf000,
                                           _mm_loadu_si128((const __m128i *)(here + 12 * pitch)));
    }
    const __m512i b = _mm512_unpacklo_epi32(a[0], a[1]), c = _mm512_unpackhi_epi32(a[0], a[1]);
    const __m512i d = _mm512_unpacklo_epi32(a[2], a[3]), e = _mm512_unpackhi_epi32(a[2], a[3]);
    out[0] = _mm512_unpacklo_epi64(b, d);
    out[1] = _mm512_unpackhi_epi64(b, d);
    out[2] = _mm512_unpacklo_epi64(c, e);
    out[3] = _mm512_unpackhi_epi64(c, e);
}

/* Decode 4 bytes of each of 16 rows: 4 pairs of columns, or 2 of int8. */
AVX512 INLINE void decode(__m512i lanes, __m512i table, int bits, __m512i *pairs)
{
    if (bits == 4) {
        /* A lane holds 8 codes; shifts by 0, 4, 8 and 12 bits move two of them to the lowest bits
         * of its halves. A permutation reads 5 bits, and the table has its 16 levels twice, so the
         * fifth, of the next code, has no effect. */
        pairs[0] = _mm512_permutexvar_epi16(lanes, table);
        pairs[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(lanes, 4), table);
        pairs[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(lanes, 8), table);
        pairs[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(lanes, 12), table);
    } else {
        pairs[0] = _mm512_srai_epi16(_mm512_slli_epi16(lanes, 8), 8);
        pairs[1] = _mm512_srai_epi16(lanes, 8);
    }
}

/* Multiply a block of 16 rows by a set of inputs. `inputs` and `bits` are constants in every
 * caller, so that the compiler keeps the sums in registers.
 *
 * codes     the first row of the block; `pitch` bytes from row to row
 * prefetch  where the codes of the next block start */
AVX512 INLINE void multiply_set(const uint8_t *codes, int64_t pitch, int64_t units, __m512i table,
                                const float *scales, const int16_t *x, const float *steps,
                                int inputs, int bits, const uint8_t *prefetch, __m512 *out)
{
    /* A sum waits for the previous instruction on it, so few inputs have several sums each. */
    enum { PARTS = 4 };
    const int parts = inputs == 1 ? 4 : inputs <= 3 ? 2 : 1, unit_bytes = UNIT * bits / 8;
    __m512 totals[MOST_SET];
#pragma GCC unroll 16
    for (int m = 0; m < inputs; m++)
        totals[m] = _mm512_setzero_ps();
    for (int64_t unit = 0; unit < units; unit++) {
        /* 1. Prefetch as many bytes as are used into the L2 cache, and the next cache line of each
         *    row from there. */
#pragma GCC unroll 16
        for (int i = 0; i < LANES * unit_bytes; i += 64)
            _mm_prefetch((const char *)(prefetch + i), _MM_HINT_T1);
        prefetch += LANES * unit_bytes;
        if (bits == 8 || unit % 2 == 0)
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                _mm_prefetch((const char *)(codes + i * pitch + 64), _MM_HINT_T0);
        /* 2. 64 products for each row and input. */
        __m512i sums[MOST_SET][PARTS];
#pragma GCC unroll 16
        for (int m = 0; m < inputs; m++)
#pragma GCC unroll 4
            for (int k = 0; k < parts; k++)
                sums[m][k] = _mm512_setzero_si512();
#pragma GCC unroll 1
        for (int start = 0; start < unit_bytes; start += 16) {
            __m512i lanes[4];
            load_lanes(codes + start, pitch, lanes);
            const int16_t *here = x + start * (8 / bits);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m512i pairs[4];
                decode(lanes[i], table, bits, pairs);
#pragma GCC unroll 4
                for (int k = 0; k < 16 / bits; k++)
#pragma GCC unroll 16
                    for (int m = 0; m < inputs; m++)
                        add_products(&sums[m][k % parts], pairs[k],
                                     here + m * UNIT + i * (32 / bits) + 2 * k);
            }
        }
        /* 3. One conversion and multiplication for 16 rows. */
        const __m512 scale = _mm512_load_ps(scales);
#pragma GCC unroll 16
        for (int m = 0; m < inputs; m++) {
            __m512i sum = sums[m][0];
#pragma GCC unroll 4
            for (int k = 1; k < parts; k++)
                sum = _mm512_add_epi32(sum, sums[m][k]);
            const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(steps[m]));
            totals[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, totals[m]);
        }
        codes += unit_bytes;
        scales += LANES;
        x += inputs * UNIT;
        steps += inputs;
    }
#pragma GCC unroll 16
    for (int m = 0; m < inputs; m++)
        out[m] = totals[m];
}

/* The functions for each number of inputs. */
typedef void (*Multiply)(const uint8_t *codes, int64_t pitch, int64_t units, __m512i table,
                         const float *scales, const int16_t *x, const float *steps,
                         const uint8_t *prefetch, __m512 *out);

#define DEFINE(inputs, bits)                                                                      \
    AVX512 static void multiply_##inputs##_##bits(                                                \
        const uint8_t *codes, int64_t pitch, int64_t units, __m512i table, const float *scales,   \
        const int16_t *x, const float *steps, const uint8_t *prefetch, __m512 *out)               \
    {                                                                                             \
        multiply_set(codes, pitch, units, table, scales, x, steps, inputs, bits, prefetch, out);  \
    }
#define FOR_EACH(F, bits)                                                                         \
    F(1, bits) F(2, bits) F(3, bits) F(4, bits) F(5, bits) F(6, bits) F(7, bits) F(8, bits)       \
    F(9, bits) F(10, bits) F(11, bits) F(12, bits) F(13, bits) F(14, bits) F(15, bits) F(16, bits)
FOR_EACH(DEFINE, 4)
FOR_EACH(DEFINE, 8)
#define NAME(inputs, bits) multiply_##inputs##_##bits,
static const Multiply FUNCTIONS[2][MOST_SET] = {{FOR_EACH(NAME, 4)}, {FOR_EACH(NAME, 8)}};

/* ---- more than one set of inputs ----------------------------------------------------------- */

/* Decode some units of 16 rows. panel: [units][PAIRS] */
AVX512 INLINE void fill_panel(const uint8_t *codes, int64_t pitch, int64_t units, __m512i table,
                              int bits, __m512i *panel)
{
    for (int64_t start = 0; start < units * UNIT * bits / 8; start += 16) {
        __m512i lanes[4];
        load_lanes(codes + start, pitch, lanes);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m512i pairs[4];
            decode(lanes[i], table, bits, pairs);
#pragma GCC unroll 4
            for (int k = 0; k < 16 / bits; k++)
                _mm512_store_si512(panel++, pairs[k]);
        }
    }
}

/* Multiply a panel by a set of inputs, and add to `totals`. Prefetch `ahead` bytes for each
 * unit. */
AVX512 INLINE void multiply_panel(const __m512i *panel, int64_t units, const float *scales,
                                  const int16_t *x, const float *steps, int inputs,
                                  const uint8_t *prefetch, int64_t ahead, __m512 *totals)
{
    for (int64_t unit = 0; unit < units; unit++) {
        for (int64_t i = 0; i < ahead; i += 64)
            _mm_prefetch((const char *)(prefetch + i), _MM_HINT_T1);
        prefetch += ahead;
        __m512i sums[MOST_SET];
#pragma GCC unroll 16
        for (int m = 0; m < inputs; m++)
            sums[m] = _mm512_setzero_si512();
#pragma GCC unroll 2
        for (int pair = 0; pair < PAIRS; pair++) {
            const __m512i both = _mm512_load_si512(panel + pair);
#pragma GCC unroll 16
            for (int m = 0; m < inputs; m++)
                add_products(&sums[m], both, x + m * UNIT + 2 * pair);
        }
        const __m512 scale = _mm512_load_ps(scales);
#pragma GCC unroll 16
        for (int m = 0; m < inputs; m++) {
            const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(steps[m]));
            totals[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[m]), factor, totals[m]);
        }
        panel += PAIRS;
        scales += LANES;
        x += inputs * UNIT;
        steps += inputs;
    }
}

/* The functions for each number of inputs in one of several sets, 9 to 16. */
typedef void (*MultiplyPanel)(const __m512i *panel, int64_t units, const float *scales,
                              const int16_t *x, const float *steps, const uint8_t *prefetch,
                              int64_t ahead, __m512 *totals);

#define DEFINE_PANEL(inputs)                                                                      \
    AVX512 static void multiply_panel_##inputs(                                                   \
        const __m512i *panel, int64_t units, const float *scales, const int16_t *x,               \
        const float *steps, const uint8_t *prefetch, int64_t ahead, __m512 *totals)               \
    {                                                                                             \
        multiply_panel(panel, units, scales, x, steps, inputs, prefetch, ahead, totals);          \
    }
#define FOR_EACH_PANEL(F) F(9) F(10) F(11) F(12) F(13) F(14) F(15) F(16)
FOR_EACH_PANEL(DEFINE_PANEL)
#define NAME_PANEL(inputs) multiply_panel_##inputs,
static const MultiplyPanel PANEL_FUNCTIONS[] = {FOR_EACH_PANEL(NAME_PANEL)};

/* Multiply a block of 16 rows by `count` sets of inputs, which have `size` inputs each. The codes
 * are decoded once for all of them.
 *
 * x, steps  of the first of these sets
 * totals    [count * size] */
AVX512 static void multiply_sets(const uint8_t *codes, int64_t pitch, int64_t units, __m512i table,
                                 const float *scales, const int16_t *x, const float *steps,
                                 int64_t size, int64_t count, int bits, const uint8_t *prefetch,
                                 __m512 *totals)
{
    const MultiplyPanel multiply = PANEL_FUNCTIONS[size - 9];
    const int64_t unit_bytes = UNIT * bits / 8;
    __m512i panel[PANEL_UNITS * PAIRS];
    for (int64_t i = 0; i < count * size; i++)
        totals[i] = _mm512_setzero_ps();
    for (int64_t unit = 0; unit < units; unit += PANEL_UNITS) {
        const int64_t some = smaller(PANEL_UNITS, units - unit);
        if (bits == 4)
            fill_panel(codes + unit * unit_bytes, pitch, some, table, 4, panel);
        else
            fill_panel(codes + unit * unit_bytes, pitch, some, table, 8, panel);
        for (int64_t set = 0; set < count; set++) {
            const int64_t place = (set * units + unit) * size;
            /* With the first set, prefetch as many bytes of the next block as were decoded. */
            multiply(panel, some, scales + unit * LANES, x + place * UNIT, steps + place,
                     prefetch + unit * LANES * unit_bytes, set == 0 ? LANES * unit_bytes : 0,
                     totals + set * size);
        }
    }
}

/* Return how many sets of inputs are multiplied one after another by all blocks of a band: those
 * whose integers stay in the L2 cache. Of one or two sets it is all, so that up to 32 inputs always
 * need a matrix decoded once. */
static int64_t sets_at_once(const Product *p)
{
    const int64_t fitting = L2_BYTES / (set_size(p) * p->w->columns * (int64_t)sizeof(int16_t));
    return sets_of(p) <= 2 ? sets_of(p) : larger(1, smaller(PANEL_SETS, fitting));
}

/* With many inputs, a call multiplies several blocks of rows, so that inputs are read once for all
 * of them from where all inputs are. */
static int64_t band_512(const Product *p, int threads)
{
    if (sets_of(p) <= sets_at_once(p))
        return LANES;
    return larger(1, smaller(BAND_BLOCKS, p->w->rows / LANES / threads)) * LANES;
}

/* A thread's buffer: scales [blocks][units][16], room for scales [16][64], and a block of codes. */
static int64_t room_512(const Product *p)
{
    return (BAND_BLOCKS * p->units + UNIT) * LANES * 4 +
           (p->w->rows % LANES ? LANES * p->w->columns : 0);
}

AVX512 static void multiply_512(const Product *p, int64_t begin, int64_t end, void *room)
{
    const Matrix *w = p->w;
    const int four_bit = w->integer_levels != NULL, bits = four_bit ? 4 : 8;
    const int64_t pitch = w->columns * bits / 8, size = set_size(p), sets = sets_of(p);
    const int64_t blocks = (end - begin + LANES - 1) / LANES;
    /* 1. The scales of all blocks. */
    float *scales = room, *scratch = scales + BAND_BLOCKS * p->units * LANES;
    for (int64_t block = 0; block < blocks; block++)
        scales_of_block(w, begin + block * LANES, scales + block * p->units * LANES, scratch);
    /* 2. Copy an incomplete block, so that it can be read as if it was complete. */
    const int64_t rest = (end - begin) % LANES;
    uint8_t *copy = (uint8_t *)(scratch + UNIT * LANES);
    if (rest) {
        memcpy(copy, w->codes + (end - rest) * pitch, (size_t)(rest * pitch));
        memset(copy + rest * pitch, 0, (size_t)((LANES - rest) * pitch));
    }
    __m512i table = _mm512_setzero_si512();
    if (four_bit)
        table = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)w->integer_levels));
    /* 3. Multiply some sets of inputs by each block. The last set may have missing inputs, which
     *    are zeros. The next block is prefetched. */
    const int16_t *x = p->arranged;
    const float *steps = (const float *)(x + sets * size * p->units * UNIT);
    for (int64_t set = 0; set < sets; set += sets_at_once(p)) {
        const int64_t count = smaller(sets_at_once(p), sets - set), place = set * size * p->units;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = begin + block * LANES, rows = smaller(LANES, end - row);
            const uint8_t *codes = rows < LANES ? copy : w->codes + row * pitch;
            const uint8_t *prefetch = w->codes + (row + rows) * pitch;
            const float *here = scales + block * p->units * LANES;
            __m512 sums[PANEL_SETS * MOST_SET];
            if (count == 1)
                FUNCTIONS[!four_bit][size - 1](codes, pitch, p->units, table, here,
                                               x + place * UNIT, steps + place, prefetch, sums);
            else
                multiply_sets(codes, pitch, p->units, table, here, x + place * UNIT, steps + place,
                              size, count, bits, prefetch, sums);
            for (int64_t m = 0; m < smaller(count * size, p->inputs - set * size); m++)
                write_lanes(p, set * size + m, row, lanes_of(rows), sums[m]);
        }
    }
}

const Version integer_512 = {.bytes = bytes_512,
                             .arrange = arrange_512,
                             .room = room_512,
                             .band = band_512,
                             .multiply = multiply_512};

#endif
