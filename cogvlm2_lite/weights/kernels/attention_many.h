/* Attention of many queries in bfloat16, for the vision tower and prefill: what the versions with AMX
 * (attention_amx.c) and with AVX512-BF16 (attention_512.c) share.
 *
 * Everything is computed transposed: scores [keys, queries], then results [head_dim, queries]. So
 * the lanes of a vector are queries, and the maximum, the sum and every scaling of the softmax need
 * no work across lanes. Keys are the first factor as they are stored, queries the second.
 *
 * 1. The keys and values of a head are rearranged into tiles once, for all queries: keys are padded
 *    to whole tiles, values are transposed.
 * 2. A thread takes a block of queries and goes through the keys, 128 at a time. Their tiles stay
 *    in the L2 cache for all queries of the block; the scores of 32 queries stay in the L1 cache.
 * 3. The softmax is computed in float32, online: sums and results are rescaled when later keys have
 *    much larger scores. Its exponentials are rounded to bfloat16 for the product with the values, as
 *    torch does.
 *
 * A query's result depends only on the keys that it sees: not on the other queries, the number of
 * threads, or keys behind those that it sees.
 *
 * Called through ctypes (kernels/attention_many.py); sizes are checked there.
 */

#ifndef COGVLM2_LITE_ATTENTION_MANY_H
#define COGVLM2_LITE_ATTENTION_MANY_H

#include "amx.h"
#include "avx512.h"

#define KEYS 128                /* keys whose scores are computed at a time: 16 KiB of scores */
#define MANY_KEYS 1024          /* keys that go through the L2 cache at a time */
#define PANELS (KEYS / PAIR)
#define MOST_HIGH 8             /* tiles of 16 numbers of a head */
#define MOST_POWER 8.0f         /* exponentials are at most two to this power */
#define DEEP 128                /* most numbers of a head; keys and queries are padded to it */
#define BLOCK_GROUPS 16         /* about so many groups of 32 queries make a block */
#define MOST_GROUPS 24          /* and never more */
#define HIDDEN (-1e30f)         /* the score of a key that a query does not see */

/* Strides count numbers, not bytes; the numbers of a head are adjacent. */
typedef struct {
    const uint16_t *q, *k, *v;
    uint16_t *out;
    int64_t q_head, q_token, k_head, k_token, v_head, v_token, out_head, out_token;
    int64_t heads, group; /* heads of keys and values; query heads that share one */
    int64_t queries, keys, width;
    int64_t causal; /* the queries are the last tokens of the keys, and see none behind */
    float scale;
} Attention;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static int64_t high_of(int64_t width) { return rounded(width, SIDE); }

/* Of a group of 32 queries: themselves, results, maxima, sums and last keys. */
static int64_t bytes_of_a_group(int64_t width)
{
    return PAIR * (DEEP * 2 + high_of(width) * 4 + 3 * 4);
}

static int64_t bytes_of_a_thread(int64_t width)
{
    return KEYS * PAIR * (4 + 2 * 2) + MOST_GROUPS * bytes_of_a_group(width);
}

static int64_t bytes_of_keys(int64_t keys, int64_t width)
{
    return rounded(keys, KEYS) * (DEEP + high_of(width)) * 2;
}

/* Return the bytes of the buffer `room`. */
INLINE int64_t room_of(int64_t keys, int64_t width, int threads)
{
    return bytes_of_keys(keys, width) + threads * bytes_of_a_thread(width) + 64;
}

#if ON_X86
#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

#ifdef _OPENMP
#include <omp.h>
#endif

/* The keys and values of one head as tiles, in the order in which they are multiplied. Keys: of 32
 * at a time, for each 32 numbers of a head two tiles of 16 keys. Values: of 128 keys at a time, for
 * each 32 numbers of a head, for each 32 keys, two tiles of 16 numbers with the keys along rows. */
typedef struct {
    uint16_t *keys, *values;
} Tiles;

/* What a thread computes for 32 queries. */
typedef struct {
    uint16_t *queries; /* for each 32 numbers of a head two tiles of 16 queries */
    float *results;    /* for each 16 numbers of a head two tiles of 16 queries */
    float *most, *sums;
    int64_t seen, all; /* keys that at least one, and that each of them sees */
    int32_t *last;     /* the last key that each query sees */
} Group;

BF16 INLINE __mmask32 first_of(int64_t count)
{
    return count >= STEP ? 0xffffffffu : (__mmask32)(((uint64_t)1 << (count < 0 ? 0 : count)) - 1);
}

BF16 static void arrange_keys(const Attention *a, int64_t head, int64_t first, uint16_t *out)
{
    const uint16_t *k = a->k + head * a->k_head;
    for (int64_t d = 0; d < DEEP; d += STEP) {
        const __mmask32 there = first_of(a->width - d);
        for (int64_t i = first; i < first + PAIR; i++, out += STEP)
            _mm512_store_si512(out, i < a->keys
                                        ? _mm512_maskz_loadu_epi16(there, k + i * a->k_token + d)
                                        : _mm512_setzero_si512());
    }
}

BF16 static void arrange_values(const Attention *a, int64_t head, int64_t first, uint16_t *values)
{
    const uint16_t *v = a->v + head * a->v_head;
    const int64_t high = high_of(a->width), panel = first % KEYS / PAIR;
    uint16_t *block = values + (first - first % KEYS) * high;
    for (int64_t d = 0; d < a->width; d += SIDE) {
        const int64_t n = d / PAIR * 2, wide = smaller(2, high / SIDE - n);
        uint16_t *out = block + n * TILE * (KEYS / PAIR) + (panel * wide + d / SIDE % 2) * TILE;
        const __mmask16 there = (__mmask16)first_of(a->width - d);
        __m512i r[SIDE];
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++) {
            const int64_t key = first + 2 * i;
            __m512i low = _mm512_setzero_si512(), high = low;
            if (key < a->keys)
                low = _mm512_cvtepu16_epi32(
                    _mm256_maskz_loadu_epi16(there, v + key * a->v_token + d));
            if (key + 1 < a->keys)
                high = _mm512_cvtepu16_epi32(
                    _mm256_maskz_loadu_epi16(there, v + (key + 1) * a->v_token + d));
            r[i] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
        }
        transpose_16(r);
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++)
            _mm512_store_si512(out + i * STEP, r[i]);
    }
}

/* Queries are numbered over all heads of a group: the tokens of the first head, of the second, ...
 * Return where the numbers of one begin. */
BF16 INLINE const uint16_t *query_at(const Attention *a, int64_t head, int64_t number)
{
    const int64_t member = number / a->queries;
    return a->q + (head * a->group + member) * a->q_head + number % a->queries * a->q_token;
}

BF16 static void begin_group(const Attention *a, int64_t head, int64_t first, const Group *g)
{
    const int64_t count = a->group * a->queries;
    uint16_t *out = g->queries;
    for (int64_t d = 0; d < DEEP; d += STEP) {
        const __mmask32 there = first_of(a->width - d);
        for (int64_t half = first; half < first + PAIR; half += SIDE, out += TILE) {
            __m512i r[SIDE];
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++)
                r[i] = half + i < count
                           ? _mm512_maskz_loadu_epi16(there, query_at(a, head, half + i) + d)
                           : _mm512_setzero_si512();
            transpose_16(r);
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++)
                _mm512_store_si512(out + i * STEP, r[i]);
        }
    }
    for (int64_t i = 0; i < high_of(a->width) * PAIR; i += 16)
        _mm512_store_ps(g->results + i, _mm512_setzero_ps());
    for (int i = 0; i < PAIR; i += 16) {
        _mm512_store_ps(g->most + i, _mm512_set1_ps(HIDDEN));
        _mm512_store_ps(g->sums + i, _mm512_setzero_ps());
    }
}

/* 2^x for x <= 0, within 8e-5: its exponentials are rounded to bfloat16, whose step is 4e-3. */
BF16 INLINE __m512 power_of_two(__m512 x)
{
    const __m512 part = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(part, _mm512_set1_ps(0.07802454f), _mm512_set1_ps(0.2260672f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(0.69583349f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(0.99992523f));
    return _mm512_scalef_ps(p, x);
}

/* Hide keys behind the last one that a query sees. */
BF16 INLINE void hide(float *scores, int64_t first, const int32_t *last)
{
    const __m512i left = _mm512_load_si512(last), right = _mm512_load_si512(last + SIDE);
    const __m512 hidden = _mm512_set1_ps(HIDDEN);
    for (int i = 0; i < KEYS; i++) {
        const __m512i key = _mm512_set1_epi32((int)(first + i));
        _mm512_mask_store_ps(scores + i * PAIR, _mm512_cmpgt_epi32_mask(key, left), hidden);
        _mm512_mask_store_ps(scores + i * PAIR + SIDE, _mm512_cmpgt_epi32_mask(key, right),
                             hidden);
    }
}

/* One block of keys and one group of queries. */
typedef struct {
    const Group *group; /* NULL: nothing to do */
    int64_t first;      /* the first of its keys */
    __m512 by[2];       /* what the earlier results and sums are multiplied by */
    int rescale;        /* 0: by 1 */
} Item;

/* The exponentials to the base 2 of score * factor + minus, and their sums. */
typedef struct {
    __m512 factor, minus[2], sums[2];
} Softmax;

/* Replace the scores of two keys and 16 queries by weights in bfloat16, the two keys next to each
 * other. n: which of the 64 such parts of 64 keys. */
BF16 INLINE void weigh_two(int n, const float *scores, Softmax *s, uint16_t *weights)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9,
                                           24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
                                           16, 0);
    const int half = n % 2, pair = n / 2;
    const float *two = scores + pair * 2 * PAIR + half * SIDE;
    const __m512 e0 =
        power_of_two(_mm512_fmadd_ps(_mm512_load_ps(two), s->factor, s->minus[half]));
    const __m512 e1 =
        power_of_two(_mm512_fmadd_ps(_mm512_load_ps(two + PAIR), s->factor, s->minus[half]));
    s->sums[half] = _mm512_add_ps(s->sums[half], _mm512_add_ps(e0, e1));
    _mm512_store_si512(weights + (pair / SIDE * 2 + half) * TILE + pair % SIDE * STEP,
                       _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(e1, e0)));
}

/* Choose what is subtracted from a group's scores. It stays as long as no exponential can become
 * larger than 2^8: rescaling is rare then. */
BF16 INLINE void begin_softmax(const Group *g, const float *scores, Item *item, Softmax *s)
{
    __m512 most[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        most[i] = _mm512_load_ps(scores + i * SIDE);
    for (int i = 4 * SIDE; i < KEYS * PAIR; i += 4 * SIDE)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            most[j] = _mm512_max_ps(most[j], _mm512_load_ps(scores + i + j * SIDE));
    item->rescale = 0;
    for (int half = 0; half < 2; half++) {
        const __m512 before = _mm512_load_ps(g->most + half * SIDE);
        const __m512 now = _mm512_max_ps(most[half], most[half + 2]);
        const __m512 more = _mm512_mul_ps(_mm512_sub_ps(now, before), s->factor);
        const __mmask16 changed =
            _mm512_cmp_ps_mask(more, _mm512_set1_ps(MOST_POWER), _CMP_GT_OQ);
        const __m512 chosen = _mm512_mask_mov_ps(before, changed, now);
        item->by[half] = _mm512_mask_mov_ps(
            _mm512_set1_ps(1.0f), changed,
            power_of_two(_mm512_sub_ps(_mm512_setzero_ps(), more)));
        item->rescale |= changed;
        s->minus[half] = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(chosen, s->factor));
        s->sums[half] =
            _mm512_mul_ps(_mm512_load_ps(g->sums + half * SIDE), item->by[half]);
        _mm512_store_ps(g->most + half * SIDE, chosen);
    }
}

BF16 INLINE void rescale(const Item *item, int64_t high)
{
    for (int64_t n = 0; n < high * PAIR; n += 2 * SIDE * SIDE)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            float *tile = item->group->results + n + half * SIDE * SIDE;
#pragma GCC unroll 16
            for (int i = 0; i < SIDE * SIDE; i += SIDE)
                _mm512_store_ps(tile + i, _mm512_mul_ps(_mm512_load_ps(tile + i), item->by[half]));
        }
}

/* Add all keys, of which the last `furthest` is seen, to what the groups have. */
typedef void AddKeys(const Attention *a, const Tiles *t, int64_t furthest, const Group *group,
                     int64_t groups, float *scores, uint16_t *weights);

/* Divide by the sums, round, transpose and write the results of 32 queries. */
BF16 static void write_group(const Attention *a, int64_t head, int64_t first, const Group *g)
{
    const int64_t count = a->group * a->queries;
    for (int half = 0; half < 2; half++) {
        const __m512 by =
            _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_load_ps(g->sums + half * SIDE));
        for (int64_t d = 0; d < a->width; d += SIDE) {
            const __mmask16 there = (__mmask16)first_of(a->width - d);
            const float *tile = g->results + (d / SIDE * 2 + half) * SIDE * SIDE;
            __m512i r[SIDE];
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++)
                r[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(tile + i * SIDE), by));
            transpose_16(r);
#pragma GCC unroll 16
            for (int i = 0; i < SIDE; i++) {
                const int64_t number = first + half * SIDE + i;
                if (number < count) {
                    const int64_t member = number / a->queries, token = number % a->queries;
                    uint16_t *to = a->out + (head * a->group + member) * a->out_head +
                                   token * a->out_token + d;
                    _mm256_mask_storeu_epi16(
                        to, there, (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(r[i])));
                }
            }
        }
    }
}

/* Compute the results of up to MOST_GROUPS groups of 32 queries, from query `first` on. */
BF16 static void attend_block(const Attention *a, const Tiles *t, int64_t head, int64_t first,
                             int64_t groups, char *room, AddKeys *add_keys)
{
    const int64_t count = a->group * a->queries, high = high_of(a->width);
    float *scores = (float *)room;
    uint16_t *weights = (uint16_t *)(room + KEYS * PAIR * 4);
    char *of_groups = room + KEYS * PAIR * 8;
    int64_t furthest = 0;
    Group group[MOST_GROUPS] = {{0}}; /* some compilers warn otherwise */
    for (int64_t n = 0; n < groups; n++) {
        char *here = of_groups + n * bytes_of_a_group(a->width);
        Group *g = &group[n];
        g->queries = (uint16_t *)here;
        g->results = (float *)(here + PAIR * DEEP * 2);
        g->most = g->results + PAIR * high;
        g->sums = g->most + PAIR;
        g->last = (int32_t *)(g->sums + PAIR);
        g->seen = 0, g->all = a->keys;
        for (int i = 0; i < PAIR; i++) {
            const int64_t number = smaller(first + n * PAIR + i, count - 1);
            const int64_t sees =
                a->causal ? a->keys - a->queries + number % a->queries + 1 : a->keys;
            g->last[i] = (int32_t)(sees - 1);
            g->seen = sees > g->seen ? sees : g->seen;
            g->all = smaller(g->all, sees);
        }
        furthest = g->seen > furthest ? g->seen : furthest;
        begin_group(a, head, first + n * PAIR, g);
    }
    add_keys(a, t, furthest, group, groups, scores, weights);
    for (int64_t n = 0; n < groups; n++)
        write_group(a, head, first + n * PAIR, &group[n]);
}

/* Return the number of groups of 32 queries in a block: equal shares, as many for each thread. */
static int64_t groups_at_once(int64_t groups, int threads)
{
    const int64_t per_thread = (int64_t)threads * BLOCK_GROUPS;
    const int64_t blocks = (groups + per_thread - 1) / per_thread * threads;
    return (groups + blocks - 1) / blocks;
}

/* out = softmax(q k' scale) v for each head, in bfloat16. room: a buffer of room_of bytes. */
BF16 static void attend(const Attention *a, void *room, int threads, AddKeys *add_keys)
{
    const int64_t padded = rounded(a->keys, KEYS);
    char *start = (char *)room + (64 - (uintptr_t)room % 64) % 64;
    const Tiles tiles = {(uint16_t *)start, (uint16_t *)start + padded * DEEP};
    char *rooms = start + bytes_of_keys(a->keys, a->width);
    const int64_t count = a->group * a->queries, groups = (count + PAIR - 1) / PAIR;
    const int64_t at_once = groups_at_once(groups, threads);
    const int64_t blocks = (groups + at_once - 1) / at_once;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#ifdef _OPENMP
        const int me = omp_get_thread_num();
#else
        const int me = 0;
#endif
        for (int64_t head = 0; head < a->heads; head++) {
#pragma omp for schedule(static)
            for (int64_t key = 0; key < padded; key += PAIR) {
                arrange_keys(a, head, key, tiles.keys + key * DEEP);
                arrange_values(a, head, key, tiles.values);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < blocks; i++)
                attend_block(a, &tiles, head, i * at_once * PAIR,
                             smaller(at_once, groups - i * at_once),
                             rooms + me * bytes_of_a_thread(a->width), add_keys);
        }
    }
}
#endif /* ON_X86 */

#endif
