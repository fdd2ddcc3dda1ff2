/* Attention of the tokens of a decode step with AMX. It does the same as attention.c, and computes
 * four times as many products in the same time: reading the cache stays the limit for some tokens.
 *
 * The queries of all tokens become the columns of tiles, 16 to a tile, and each column sees its own
 * number of keys. A column's result does not depend on the other columns: products of tiles are
 * independent, a key that a column does not see has exactly the weight 0, and blocks of keys are the
 * same for all columns. For each block of 256 keys:
 *
 * 1. The values are rearranged into tiles: two neighbouring keys become adjacent in memory.
 * 2. Scores [keys, columns]: the keys are the first factor, straight from the cache.
 * 3. An online softmax in float32; its lanes are columns. Each weight becomes the sum of two bfloat16
 *    numbers, which keep 16 of its 24 bits.
 * 4. The weighted sum of the values: the transposed weights are the first factor.
 *
 * Called through ctypes (kernels/attention.py); sizes are checked there.
 */

#include <stdlib.h>
#include <string.h>

#include "amx.h"
#include "avx512.h"

#define HEAD_DIM 128
#define KEY_BLOCK 256
#define DEEP (HEAD_DIM / STEP)    /* tiles along a head's numbers, for scores */
#define WIDE (HEAD_DIM / SIDE)    /* the same for results */
#define STEPS (KEY_BLOCK / STEP)  /* tiles along the keys of a block */

#if HAS_AMX
/* 16 columns: queries of some tokens. */
typedef struct {
    uint32_t query[DEEP][SIDE][SIDE]; /* pairs of a query's numbers, [pair][column] */
    float sums[SIDE][HEAD_DIM];       /* [column] */
    float largest[SIDE], total[SIDE]; /* the largest score so far, and the sum of weights */
    int32_t keys[SIDE];               /* keys that a column sees; at least one */
    int32_t most;                     /* of `keys` */
} Columns;

/* Buffers of a thread. */
typedef struct {
    uint16_t dequantized[2][KEY_BLOCK][HEAD_DIM];
    uint16_t last_keys[2 * SIDE][HEAD_DIM];   /* the last keys of a block, filled up with zeros */
    uint32_t values[STEPS][WIDE][SIDE][SIDE]; /* [key pair][number] */
    float scores[KEY_BLOCK][SIDE];
    uint32_t weights[STEPS][2][SIDE][SIDE];   /* [column][key pair]: upper and lower bits */
    float products[4][SIDE][SIDE];
} Room;

/* The keys, or values, of a head: numbers, or 8-bit codes with one scale for each key. */
typedef struct {
    const char *numbers;
    const float *scales; /* NULL: the numbers are not codes */
} Rows;

/* What is prefetched while a block is computed: the keys, then the values of the next block. */
typedef struct {
    const char *next[2];
    int lines[2];
} Ahead;

AMX INLINE void prefetch(Ahead *ahead, int lines)
{
    const int which = ahead->lines[0] <= 0;
    if (ahead->lines[which] <= 0)
        return;
    for (int i = 0; i < lines; i++)
        _mm_prefetch(ahead->next[which] + 64 * i, _MM_HINT_T1);
    ahead->next[which] += 64 * lines;
    ahead->lines[which] -= lines;
}

/* Return a block's keys or values as bfloat16; codes are dequantized into `room`. */
AMX static const uint16_t *numbers_of(Rows rows, int64_t begin, int keys,
                                      uint16_t (*room)[HEAD_DIM])
{
    if (!rows.scales)
        return (const uint16_t *)rows.numbers + begin * HEAD_DIM;
    const int8_t *codes = (const int8_t *)rows.numbers + begin * HEAD_DIM;
    for (int key = 0; key < keys; key++) {
        const __m512 scale = _mm512_set1_ps(rows.scales[begin + key]);
        for (int i = 0; i < HEAD_DIM; i += 16) {
            const __m128i here = _mm_loadu_si128((const __m128i *)(codes + key * HEAD_DIM + i));
            const __m512 wide = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(here));
            _mm256_storeu_si256((__m256i *)(room[key] + i),
                                (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(wide, scale)));
        }
    }
    return room[0];
}

/* Rearrange the values of a block; missing ones are zeros up to a whole step. */
AMX static void arrange_values(const uint16_t *v, int keys, uint32_t (*out)[WIDE][SIDE][SIDE],
                               Ahead *ahead)
{
    uint16_t order[32];
    for (int i = 0; i < 32; i++)
        order[i] = (uint16_t)(i / 2 + i % 2 * 32);
    const __m512i low = _mm512_loadu_si512(order);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int key = 0; key < (keys + STEP - 1) / STEP * STEP; key += 2) {
        const uint16_t *here = v + (int64_t)key * HEAD_DIM;
        uint32_t(*to)[SIDE][SIDE] = out[key / STEP];
#pragma GCC unroll 4
        for (int i = 0; i < DEEP; i++) {
            const __m512i a = key < keys ? _mm512_loadu_si512(here + STEP * i)
                                         : _mm512_setzero_si512();
            const __m512i b = key + 1 < keys ? _mm512_loadu_si512(here + HEAD_DIM + STEP * i)
                                             : _mm512_setzero_si512();
            prefetch(ahead, 1);
            _mm512_store_si512(to[2 * i][key % STEP / 2], _mm512_permutex2var_epi16(a, low, b));
            _mm512_store_si512(to[2 * i + 1][key % STEP / 2],
                               _mm512_permutex2var_epi16(a, high, b));
        }
    }
}

/* scores[key][column], not scaled. */
AMX static void multiply_keys(const Columns *columns, const uint16_t *k, int keys, Room *room,
                              Ahead *ahead)
{
    _tile_loadd(4, columns->query[0], 64);
    _tile_loadd(5, columns->query[1], 64);
    _tile_loadd(6, columns->query[2], 64);
    _tile_loadd(7, columns->query[3], 64);
    for (int key = 0; key < keys; key += 2 * SIDE) {
        const uint16_t *here = k + (int64_t)key * HEAD_DIM;
        if (keys - key < 2 * SIDE) { /* behind the last key may be the end of the cache */
            memset(room->last_keys, 0, sizeof(room->last_keys));
            memcpy(room->last_keys, here, (size_t)(keys - key) * HEAD_DIM * 2);
            here = room->last_keys[0];
        }
        /* Two tiles of keys in turn, because a product waits for the one before it. */
        const uint16_t *second = here + SIDE * HEAD_DIM;
        _tile_zero(0);
        _tile_zero(1);
        prefetch(ahead, 16);
        _tile_loadd(2, here, 2 * HEAD_DIM);
        _tile_dpbf16ps(0, 2, 4);
        _tile_loadd(3, second, 2 * HEAD_DIM);
        _tile_dpbf16ps(1, 3, 4);
        prefetch(ahead, 16);
        _tile_loadd(2, here + STEP, 2 * HEAD_DIM);
        _tile_dpbf16ps(0, 2, 5);
        _tile_loadd(3, second + STEP, 2 * HEAD_DIM);
        _tile_dpbf16ps(1, 3, 5);
        prefetch(ahead, 16);
        _tile_loadd(2, here + 2 * STEP, 2 * HEAD_DIM);
        _tile_dpbf16ps(0, 2, 6);
        _tile_loadd(3, second + 2 * STEP, 2 * HEAD_DIM);
        _tile_dpbf16ps(1, 3, 6);
        prefetch(ahead, 16);
        _tile_loadd(2, here + 3 * STEP, 2 * HEAD_DIM);
        _tile_dpbf16ps(0, 2, 7);
        _tile_loadd(3, second + 3 * STEP, 2 * HEAD_DIM);
        _tile_dpbf16ps(1, 3, 7);
        _tile_stored(0, room->scores[key], 64);
        _tile_stored(1, room->scores[key + SIDE], 64);
    }
}

AMX static void transpose_tile(uint32_t (*rows)[SIDE])
{
    __m512i r[SIDE];
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        r[i] = _mm512_load_si512(rows[i]);
    transpose_16(r);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        _mm512_store_si512(rows[i], r[i]);
}

/* Write the weights of a block's scores relative to the largest score so far. Returns the factor by
 * which earlier sums must be multiplied. */
AMX static __m512 softmax(Columns *columns, int64_t begin, int keys, float scale, Room *room,
                          Ahead *ahead)
{
    const __m512i seen = _mm512_loadu_si512(columns->keys);
    const __m512 before = _mm512_loadu_ps(columns->largest), factor = _mm512_set1_ps(scale);
    /* 1. Scale the scores, and find the largest. */
    __m512 most = before, total = _mm512_setzero_ps();
    for (int key = 0; key < keys; key++) {
        const __mmask16 sees = _mm512_cmpgt_epi32_mask(seen, _mm512_set1_epi32((int)begin + key));
        const __m512 score = _mm512_mul_ps(_mm512_load_ps(room->scores[key]), factor);
        _mm512_store_ps(room->scores[key], score);
        most = _mm512_mask_max_ps(most, sees, most, score);
    }
    /* 2. Weights of 32 keys, split into upper and lower bits, in pairs of keys; then transposed. */
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    for (int step = 0; step * STEP < keys; step++) {
        for (int pair = 0; pair < SIDE; pair++) {
            __m512i parts[2][2];
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                const int key = step * STEP + 2 * pair + i;
                const __mmask16 sees = _mm512_cmpgt_epi32_mask(
                    seen, _mm512_set1_epi32(key < keys ? (int)begin + key : INT32_MAX));
                prefetch(ahead, 3);
                const __m512 weight = _mm512_maskz_mov_ps(
                    sees, exp_512(_mm512_sub_ps(_mm512_load_ps(room->scores[key]), most)));
                total = _mm512_add_ps(total, weight);
                parts[0][i] = _mm512_and_si512(_mm512_castps_si512(weight), upper);
                parts[1][i] = _mm512_castps_si512(
                    _mm512_sub_ps(weight, _mm512_castsi512_ps(parts[0][i])));
            }
            const __m512i high =
                _mm512_or_si512(_mm512_srli_epi32(parts[0][0], 16), parts[0][1]);
            const __m512i low = _mm512_or_si512(_mm512_srli_epi32(parts[1][0], 16),
                                                _mm512_and_si512(parts[1][1], upper));
            _mm512_store_si512(room->weights[step][0][pair], high);
            _mm512_store_si512(room->weights[step][1][pair], low);
        }
        transpose_tile(room->weights[step][0]);
        transpose_tile(room->weights[step][1]);
    }
    const __m512 rescale = exp_512(_mm512_sub_ps(before, most));
    _mm512_storeu_ps(columns->largest, most);
    _mm512_storeu_ps(columns->total,
                     _mm512_fmadd_ps(_mm512_loadu_ps(columns->total), rescale, total));
    return rescale;
}

/* sums[column] = rescale[column] * sums[column] + weights times the values. */
AMX static void add_values(Columns *columns, int keys, const float *rescale, Room *room,
                           Ahead *ahead)
{
    const int steps = (keys + STEP - 1) / STEP;
    for (int half = 0; half < WIDE; half += 4) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int step = 0; step < steps; step++) {
            uint32_t(*values)[SIDE][SIDE] = room->values[step] + half;
            prefetch(ahead, 16);
            _tile_loadd(4, room->weights[step][0], 64);
            _tile_loadd(5, room->weights[step][1], 64);
            _tile_loadd(6, values[0], 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, values[1], 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(0, 5, 6);
            _tile_dpbf16ps(1, 5, 7);
            _tile_loadd(6, values[2], 64);
            _tile_dpbf16ps(2, 4, 6);
            _tile_loadd(7, values[3], 64);
            _tile_dpbf16ps(3, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, room->products[0], 64);
        _tile_stored(1, room->products[1], 64);
        _tile_stored(2, room->products[2], 64);
        _tile_stored(3, room->products[3], 64);
        for (int column = 0; column < SIDE; column++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                float *sums = columns->sums[column] + (half + i) * SIDE;
                const __m512 more = _mm512_load_ps(room->products[i][column]);
                _mm512_storeu_ps(sums, _mm512_fmadd_ps(_mm512_set1_ps(rescale[column]),
                                                       _mm512_loadu_ps(sums), more));
            }
    }
}

/* Compute all columns of a head. keys: the largest number that one of them sees. next_k, next_v: of
 * the next head, to prefetch them. */
AMX static void attend_head(Columns *columns, int64_t count, Rows k, Rows v, int64_t keys,
                            const char *next_k, const char *next_v, float scale, Room *room)
{
    const int64_t row_bytes = HEAD_DIM * (k.scales ? 1 : 2);
    float rescale[SIDE];
    begin_tiles();
    for (int64_t begin = 0; begin < keys; begin += KEY_BLOCK) {
        const int most = (int)(keys - begin < KEY_BLOCK ? keys - begin : KEY_BLOCK);
        const int64_t next = begin + KEY_BLOCK;
        const uint16_t *these = numbers_of(k, begin, most, room->dequantized[0]);
        const uint16_t *values = numbers_of(v, begin, most, room->dequantized[1]);
        const int lines = (int)(KEY_BLOCK * row_bytes / 64);
        Ahead ahead = {{next < keys ? k.numbers + next * row_bytes : next_k,
                        next < keys ? v.numbers + next * row_bytes : next_v},
                       {lines, lines}};
        arrange_values(values, most, room->values, &ahead);
        for (int64_t i = 0; i < count; i++) {
            const int64_t left = columns[i].most - begin;
            const int now = (int)(left < KEY_BLOCK ? left : KEY_BLOCK);
            if (left <= 0)
                continue;
            multiply_keys(columns + i, these, now, room, &ahead);
            _mm512_storeu_ps(rescale, softmax(columns + i, begin, now, scale, room, &ahead));
            add_values(columns + i, now, rescale, room, &ahead);
        }
    }
    end_tiles();
}
#endif /* HAS_AMX */

/* out[tokens, heads, queries, 128] = attention of q, of the same shape, over the keys and values of
 * one sequence, in bfloat16 (out: float32). The first token sees `keys` keys, each further one sees
 * one more.
 *
 * k_scales and v_scales: NULL, or the scales of each head's keys, one per key; then k and v are 8-bit
 * codes. stride, scale_stride: distance between heads, in numbers. Returns 1 if there is no memory
 * for the intermediate results, else 0. */
int attention_tokens_amx(int64_t tokens, int64_t heads, int64_t queries, int64_t keys,
                         int64_t stride, const uint16_t *q, const void *k, const void *v,
                         const float *k_scales, const float *v_scales, int64_t scale_stride,
                         float scale, float *out, int threads)
{
    int failed = 0;
#if HAS_AMX
    const int64_t all = tokens * queries, count = (all + SIDE - 1) / SIDE;
    const int64_t head_bytes = stride * (k_scales ? 1 : 2);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t head = 0; head < heads; head++) {
        const int64_t bytes = (int64_t)sizeof(Room) + count * (int64_t)sizeof(Columns);
        Room *room = aligned_alloc(64, (size_t)((bytes + 63) / 64 * 64));
        if (!room) {
#pragma omp atomic write
            failed = 1;
            continue;
        }
        Columns *columns = (Columns *)(room + 1);
        memset(columns, 0, (size_t)count * sizeof(Columns));
        /* 1. Arrange the queries. Columns behind the last one are zeros that see what it sees. */
        for (int64_t i = 0; i < count * SIDE; i++) {
            Columns *here = columns + i / SIDE;
            const int64_t query = i < all ? i : all - 1, column = i % SIDE;
            const int64_t place =
                ((query / queries * heads + head) * queries + query % queries) * HEAD_DIM;
            const int32_t sees = (int32_t)(keys + query / queries);
            here->largest[column] = -1e30f;
            here->keys[column] = sees;
            here->most = sees > here->most ? sees : here->most;
            for (int64_t pair = 0; i < all && pair < HEAD_DIM / 2; pair++)
                memcpy(&here->query[pair / SIDE][pair % SIDE][column], q + place + 2 * pair, 4);
        }
        /* 2. Go through the keys. */
        const Rows these = {(const char *)k + head * head_bytes,
                            k_scales ? k_scales + head * scale_stride : NULL};
        const Rows those = {(const char *)v + head * head_bytes,
                            v_scales ? v_scales + head * scale_stride : NULL};
        attend_head(columns, count, these, those, keys + tokens - 1, these.numbers + head_bytes,
                    those.numbers + head_bytes, scale, room);
        /* 3. Divide by the sums of weights. */
        for (int64_t i = 0; i < all; i++) {
            const Columns *here = columns + i / SIDE;
            float *to = out + ((i / queries * heads + head) * queries + i % queries) * HEAD_DIM;
            for (int d = 0; d < HEAD_DIM; d++)
                to[d] = here->sums[i % SIDE][d] / here->total[i % SIDE];
        }
        free(room);
    }
#else
    (void)tokens, (void)heads, (void)queries, (void)keys, (void)stride, (void)q, (void)k, (void)v;
    (void)k_scales, (void)v_scales, (void)scale_stride, (void)scale, (void)out, (void)threads;
#endif
    return failed;
}
