/* Attention of many queries with AVX512-BF16, without AMX: the vision tower, and prefill (see
 * attention_many.h).
 *
 * The tiles are those of AMX: a pair of neighbours of one row is broadcast, and multiplied by the
 * same pair of 16 columns. 8 rows and 32 columns have their sums in registers. With the
 * instruction for pairs of bfloat16 torch's products reached 205 multiply-adds per nanosecond on one
 * core of an AMD EPYC without AMX. Float32 does 32 per cycle at most, so it could not. On a Xeon
 * float32 is faster, but a Xeon with this instruction usually has AMX.
 */

#include "attention_many.h"

#include <string.h>

#define ROWS 8

/* Return the number of bytes of the buffer `room` of attention_512 and attention_amx. */
int64_t attention_many_room(int64_t keys, int64_t width, int threads)
{
    return room_of(keys, width, threads);
}

#if ON_X86
/* The sums of 8 rows and 32 columns. */
typedef struct {
    __m512 of[ROWS][2];
} Sums;

/* Add the products of `pairs` pairs of 8 rows, and of 32 columns in two tiles. */
BF16 INLINE void add_products(const uint16_t *rows, const uint16_t *columns, int pairs, Sums *s)
{
    for (int p = 0; p < pairs; p++, rows += 2, columns += STEP) {
        const __m512bh left = (__m512bh)_mm512_load_si512(columns);
        const __m512bh right = (__m512bh)_mm512_load_si512(columns + TILE);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            int32_t pair;
            memcpy(&pair, rows + i * STEP, sizeof pair);
            const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            s->of[i][0] = _mm512_dpbf16_ps(s->of[i][0], both, left);
            s->of[i][1] = _mm512_dpbf16_ps(s->of[i][1], both, right);
        }
    }
}

/* Write the scores of 128 keys and 32 queries. */
BF16 static void find_scores(const uint16_t *keys, const uint16_t *queries, int64_t width,
                             float *scores)
{
    for (int first = 0; first < KEYS; first += ROWS, scores += ROWS * PAIR) {
        const uint16_t *rows = keys + first / PAIR * PAIR * DEEP + first % PAIR * STEP;
        Sums s;
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++)
            s.of[i][0] = s.of[i][1] = _mm512_setzero_ps();
        for (int64_t d = 0; d < width; d += STEP)
            add_products(rows + d * PAIR, queries + d * PAIR, (int)smaller(width - d, STEP) / 2,
                         &s);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            _mm512_store_ps(scores + i * PAIR, s.of[i][0]);
            _mm512_store_ps(scores + i * PAIR + SIDE, s.of[i][1]);
        }
    }
}

/* Add the values of 128 keys, multiplied by the weights, to the results of 32 queries, which are
 * multiplied by `item->by` before. */
BF16 static void add_values(const uint16_t *values, const uint16_t *weights, int64_t width,
                            const Item *item)
{
    const int64_t high = high_of(width);
    for (int64_t d = 0; d < high; d += ROWS) {
        const int64_t n = d / PAIR * 2, wide = smaller(2, high / SIDE - n);
        const uint16_t *rows =
            values + n * TILE * PANELS + d / SIDE % 2 * TILE + d % SIDE * STEP;
        float *results = item->group->results + d / SIDE * 2 * SIDE * SIDE + d % SIDE * SIDE;
        Sums s;
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++)
                s.of[i][half] = _mm512_mul_ps(
                    _mm512_load_ps(results + half * SIDE * SIDE + i * SIDE), item->by[half]);
        for (int panel = 0; panel < PANELS; panel++)
            add_products(rows + panel * wide * TILE, weights + panel * 2 * TILE, SIDE, &s);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++)
                _mm512_store_ps(results + half * SIDE * SIDE + i * SIDE, s.of[i][half]);
    }
}

/* Add all keys to what the groups have. */
BF16 static void add_by_vectors(const Attention *a, const Tiles *t, int64_t furthest,
                                const Group *group, int64_t groups, float *scores,
                                uint16_t *weights)
{
    Softmax softmax = {.factor = _mm512_set1_ps(a->scale * 1.44269504f)};
    for (int64_t begin = 0; begin < furthest; begin += MANY_KEYS)
        for (int64_t n = 0; n < groups; n++) {
            const Group *g = &group[n];
            const int64_t end = smaller(begin + MANY_KEYS, g->seen);
            for (int64_t first = begin; first < end; first += KEYS) {
                Item item = {.group = g, .first = first};
                find_scores(t->keys + first * DEEP, g->queries, a->width, scores);
                if (first + KEYS > g->all)
                    hide(scores, first, g->last);
                begin_softmax(g, scores, &item, &softmax);
                for (int part = 0; part < KEYS; part++)
                    weigh_two(part, scores, &softmax, weights);
                _mm512_store_ps(g->sums, softmax.sums[0]);
                _mm512_store_ps(g->sums + SIDE, softmax.sums[1]);
                add_values(t->values + first * high_of(a->width), weights, a->width, &item);
            }
        }
}
#endif /* ON_X86 */

/* out = softmax(q k' scale) v for each head, in bfloat16. room: a buffer of attention_many_room
 * bytes. The caller checks cpu_level first. */
void attention_512(const Attention *a, void *room, int threads)
{
#if ON_X86
    attend(a, room, threads, add_by_vectors);
#else
    (void)a, (void)room, (void)threads;
#endif
}
