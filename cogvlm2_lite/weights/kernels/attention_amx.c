/* Attention of many queries with AMX: the vision tower, and prefill (see attention_many.h). Tiles
 * and vectors are computed by different parts of the processor, so products and the softmax of three
 * blocks of keys alternate.
 */

#include "attention_many.h"

#if HAS_AMX
/* gcc must not move it between the loads of other tiles. */
AMX INLINE void weigh(int n, const float *scores, Softmax *s, uint16_t *weights)
{
    weigh_two(n, scores, s, weights);
    IN_ORDER;
}

/* Multiply 32 rows by 32 columns over 32 numbers, and replace some scores by weights (from part n
 * on, if softmax is not NULL). */
AMX INLINE void multiply_and_weigh(const uint16_t *rows, const uint16_t *columns, int n,
                                   const float *scores, Softmax *softmax, uint16_t *weights)
{
    if (rows) {
        _tile_loadd(4, rows, 64);
        _tile_loadd(6, columns, 64);
        _tile_dpbf16ps(0, 4, 6);
    }
    if (softmax)
        weigh(n, scores, softmax, weights);
    if (rows) {
        _tile_loadd(7, columns + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (softmax)
        weigh(n + 1, scores, softmax, weights);
    if (rows) {
        _tile_loadd(5, rows + TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
    }
    if (softmax)
        weigh(n + 2, scores, softmax, weights);
    if (rows)
        _tile_dpbf16ps(3, 5, 7);
    if (softmax)
        weigh(n + 3, scores, softmax, weights);
}

/* Multiply the values of a block of keys by the weights `old`, and add the products to the results.
 * Meanwhile replace the scores of 64 keys by weights. values or softmax: NULL if there is nothing
 * to do. */
AMX INLINE void values_and_weights(const uint16_t *values, const uint16_t *old, int64_t high,
                                   float *results, const float *scores, Softmax *softmax,
                                   uint16_t *weights)
{
    for (int n = 0; n < MOST_HIGH; n += 2, results += 4 * SIDE * SIDE) {
        const int both = n + 2 <= high / SIDE;
        if (values) {
            _tile_loadd(0, results, 64);
            _tile_loadd(1, results + 256, 64);
        }
        if (values && both) {
            _tile_loadd(2, results + 512, 64);
            _tile_loadd(3, results + 768, 64);
        }
        for (int p = 0; p < PANELS; p++, old += 2 * TILE) {
            const int part = (n / 2 * PANELS + p) * 4;
            if (!values || both) {
                multiply_and_weigh(values, old, part, scores, softmax, weights);
                values += values ? 2 * TILE : 0;
                continue;
            }
            _tile_loadd(4, values, 64);
            _tile_loadd(6, old, 64);
            _tile_dpbf16ps(0, 4, 6);
            if (softmax) {
                weigh(part, scores, softmax, weights);
                weigh(part + 1, scores, softmax, weights);
            }
            _tile_loadd(7, old + TILE, 64);
            _tile_dpbf16ps(1, 4, 7);
            if (softmax) {
                weigh(part + 2, scores, softmax, weights);
                weigh(part + 3, scores, softmax, weights);
            }
            values += TILE;
        }
        old -= PANELS * 2 * TILE;
        if (values) {
            _tile_stored(0, results, 64);
            _tile_stored(1, results + 256, 64);
        }
        if (values && both) {
            _tile_stored(2, results + 512, 64);
            _tile_stored(3, results + 768, 64);
        }
    }
}

/* Replace the scores of the second 64 keys of a block by weights. Meanwhile write the scores of
 * another group: of 32 keys each time those that were replaced before. */
AMX INLINE void scores_and_weights(const uint16_t *keys, const uint16_t *queries, float *scores,
                                   Softmax *softmax, uint16_t *weights)
{
    for (int p = 0; p < PANELS; p++) {
        if (keys) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
#pragma GCC unroll 4
        for (int i = 0; i < DEEP / STEP; i++) {
            multiply_and_weigh(keys, queries + i * 2 * TILE, (p * DEEP / STEP + i) * 4,
                               scores + KEYS / 2 * PAIR, softmax, weights + KEYS / 2 * PAIR);
            keys += keys ? 2 * TILE : 0;
        }
        if (keys) {
            float *here = scores + p * PAIR * PAIR;
            _tile_stored(0, here, 128);
            _tile_stored(1, here + SIDE, 128);
            _tile_stored(2, here + SIDE * PAIR, 128);
            _tile_stored(3, here + SIDE * PAIR + SIDE, 128);
        }
    }
}

/* One round: the products with the values for the oldest item, the weights of the one before, and
 * the scores of the newest. Tiles and vectors are computed by different parts of the processor, so
 * that their instructions alternate. */
AMX static void one_round(const Attention *a, const Tiles *t, const Item *oldest, const Item *middle,
                          Item *newest, Softmax *softmax, float *scores, const uint16_t *old,
                          uint16_t *weights)
{
    const int64_t high = high_of(a->width);
    const uint16_t *values = NULL, *keys = NULL, *queries = NULL;
    float *results = NULL;
    if (oldest->group) {
        if (oldest->rescale)
            rescale(oldest, high);
        values = t->values + oldest->first * high;
        results = oldest->group->results;
    }
    if (newest->group) {
        keys = t->keys + newest->first * DEEP;
        queries = newest->group->queries;
    }
    /* A copy in registers. */
    Softmax here = *softmax, *s = &here;
    IN_ORDER;
    if (values && middle->group)
        values_and_weights(values, old, high, results, scores, s, weights);
    else if (values)
        values_and_weights(values, old, high, results, NULL, NULL, NULL);
    else if (middle->group)
        values_and_weights(NULL, NULL, high, NULL, scores, s, weights);
    if (keys && middle->group)
        scores_and_weights(keys, queries, scores, s, weights);
    else if (keys)
        scores_and_weights(keys, queries, scores, NULL, NULL);
    else if (middle->group)
        scores_and_weights(NULL, NULL, scores, s, weights);
    IN_ORDER;
    if (middle->group) {
        _mm512_store_ps(middle->group->sums, here.sums[0]);
        _mm512_store_ps(middle->group->sums + SIDE, here.sums[1]);
    }
    if (newest->group) {
        const Group *g = newest->group;
        if (newest->first + KEYS > g->all)
            hide(scores, newest->first, g->last);
        begin_softmax(g, scores, newest, softmax);
    }
}

/* Add all keys to what the groups have. */
AMX static void add_by_tiles(const Attention *a, const Tiles *t, int64_t furthest, const Group *group,
                         int64_t groups, float *scores, uint16_t *weights)
{
    begin_tiles();
    Item items[3] = {{.group = NULL}, {.group = NULL}, {.group = NULL}};
    Softmax softmax = {.factor = _mm512_set1_ps(a->scale * 1.44269504f)};
    int64_t round = 0;
    for (int64_t begin = 0; begin < furthest; begin += MANY_KEYS)
        for (int64_t n = 0; n < groups; n++) {
            const int64_t end = smaller(begin + MANY_KEYS, group[n].seen);
            for (int64_t first = begin; first < end; first += KEYS, round++) {
                items[round % 3] = (Item){.group = &group[n], .first = first};
                one_round(a, t, &items[(round + 1) % 3], &items[(round + 2) % 3],
                          &items[round % 3], &softmax, scores,
                          weights + round % 2 * KEYS * PAIR,
                          weights + (round + 1) % 2 * KEYS * PAIR);
            }
        }
    for (int64_t end = round + 2; round < end; round++) {
        items[round % 3].group = NULL;
        one_round(a, t, &items[(round + 1) % 3], &items[(round + 2) % 3], &items[round % 3],
                  &softmax, scores, weights + round % 2 * KEYS * PAIR,
                  weights + (round + 1) % 2 * KEYS * PAIR);
    }
    end_tiles();
}
#endif /* HAS_AMX */

/* out = softmax(q k' scale) v for each head, in bfloat16. room: a buffer of attention_many_room
 * bytes. The caller checks cpu_level first. */
void attention_amx(const Attention *a, void *room, int threads)
{
#if HAS_AMX
    attend(a, room, threads, add_by_tiles);
#else
    (void)a, (void)room, (void)threads;
#endif
}
