/* Attention over the cache for the tokens of a decode step: a few queries share a head's keys and
 * values.
 *
 * A call computes consecutive tokens of one sequence: a token, and perhaps its drafts. Each sees the
 * keys up to its own. Keys and values are read from memory once, in blocks that stay in the L2 cache
 * for all tokens. For each block and token: the products with the keys, an online softmax (rescaled
 * when a later block has a larger score), and the weighted sum of the values. A token's blocks, and
 * so its bits, do not depend on the other tokens. A head is computed by one thread, so results do not
 * depend on the number of threads, either.
 *
 * The block's values are prefetched while the first token's keys are multiplied, and the next block's
 * keys while its values are summed. Both prefetches are sequential.
 *
 * There are two versions: AVX512 for bfloat16 and heads of 128, and AVX2 for float32 and heads of
 * other sizes; attention_tokens_amx.c has one for AMX. All intermediate results are float32. 8-bit keys and values are dequantized a block at
 * a time, into the numbers that the cache returns elsewhere (kv_cache.py).
 *
 * Called through ctypes (kernels/attention.py), which checks sizes and the level of instructions.
 */

#include <stdlib.h>
#include <string.h>

#include "avx512.h"
#include "matrix.h"

#define HEAD_DIM 128  /* of the AVX512 version */
#define QUERIES 4     /* queries of a head computed together: as many as fit into registers */
#define KEY_BLOCK 256 /* keys per block: their scores fit into the L1 cache */

#if ON_X86
/* Up to QUERIES queries of one token and head, and what the blocks so far have given. */
typedef struct {
    const void *q;     /* [queries, head_dim] */
    float *out;        /* [queries, head_dim] */
    void *query;       /* [QUERIES, head_dim], a copy of q; missing queries are zeros */
    float *sums;       /* [QUERIES, head_dim], in the order of the version */
    int64_t keys;      /* keys that the token sees */
    int queries;
    float largest[16]; /* the largest score of each query, and the sum of its weights; in each lane */
    float total[16];   /* of a register that has scores of the query */
} Unit;

/* One block of keys and values. */
typedef struct {
    const void *k, *v;      /* [keys, head_dim] */
    const void *next_k;     /* the next keys, to prefetch them; NULL: prefetch nothing */
    int keys, head_dim;
    float scale;
} Block;

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")))

/* Return the sums of four registers in one register. */
AVX512 INLINE __m128 sum_four(__m512 a, __m512 b, __m512 c, __m512 d)
{
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)),
                                     _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* Return the even elements of 32 bfloat16 numbers as float32; `odd` returns the odd ones. This is
 * cheaper than widening them in order, and a dot product does not need the order. */
AVX512 INLINE __m512 even(__m512i pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

AVX512 INLINE __m512 odd(__m512i pairs)
{
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

/* scores[key][query] = scale * q times the keys, padded with very small scores to a multiple of 4
 * keys. Prefetches as many bytes from `prefetch` on, if it is not NULL. Products are computed in float32: the bfloat16
 * dot product has half its rate on some processors, and the same rate on the others. */
AVX512 static void score(const uint16_t (*q)[HEAD_DIM], const uint16_t *k, int keys,
                         float scale, float (*scores)[QUERIES], const uint16_t *prefetch)
{
    __m512 query[QUERIES][8];
#pragma GCC unroll 4
    for (int m = 0; m < QUERIES; m++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            query[m][2 * i] = even(_mm512_loadu_si512(&q[m][32 * i]));
            query[m][2 * i + 1] = odd(_mm512_loadu_si512(&q[m][32 * i]));
        }
    const __m128 scales = _mm_set1_ps(scale);
    for (int key = 0; key < keys; key++) {
        const uint16_t *here = k + (int64_t)key * HEAD_DIM;
        __m512 sums[QUERIES];
#pragma GCC unroll 4
        for (int m = 0; m < QUERIES; m++)
            sums[m] = _mm512_setzero_ps();
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (prefetch)
                _mm_prefetch((const char *)(prefetch + (int64_t)key * HEAD_DIM + 32 * i),
                             _MM_HINT_T0);
            const __m512i pairs = _mm512_loadu_si512(here + 32 * i);
            const __m512 a = even(pairs), b = odd(pairs);
#pragma GCC unroll 4
            for (int m = 0; m < QUERIES; m++) {
                sums[m] = _mm512_fmadd_ps(query[m][2 * i], a, sums[m]);
                sums[m] = _mm512_fmadd_ps(query[m][2 * i + 1], b, sums[m]);
            }
        }
        const __m128 four = sum_four(sums[0], sums[1], sums[2], sums[3]);
        _mm_storeu_ps(scores[key], _mm_mul_ps(scales, four));
    }
    for (int key = keys; key % 4; key++)
        _mm_storeu_ps(scores[key], _mm_set1_ps(-1e30f));
}

/* Return in each lane the maximum over the lanes of the same query (every fourth lane). */
AVX512 INLINE __m512 max_of_query(__m512 x)
{
    x = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, _MM_SHUFFLE(1, 0, 3, 2)));
    return _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, _MM_SHUFFLE(2, 3, 0, 1)));
}

/* Return in each lane the sum over the lanes of the same query (every fourth lane). */
AVX512 INLINE __m512 sum_of_query(__m512 x)
{
    x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, _MM_SHUFFLE(1, 0, 3, 2)));
    return _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, _MM_SHUFFLE(2, 3, 0, 1)));
}

/* Replace a block's scores by their softmax weights relative to the largest score so far. Returns
 * the factor by which earlier sums must be multiplied. A register holds the scores of four keys for
 * four queries. */
AVX512 INLINE __m512 softmax_block(float *scores, int count, __m512 *largest, __m512 *sum)
{
    __m512 most = *largest;
    for (int i = 0; i < count; i += 16)
        most = _mm512_max_ps(most, _mm512_loadu_ps(scores + i));
    most = max_of_query(most);
    __m512 total = _mm512_setzero_ps();
    for (int i = 0; i < count; i += 16) {
        const __m512 weight = exp_512(_mm512_sub_ps(_mm512_loadu_ps(scores + i), most));
        _mm512_storeu_ps(scores + i, weight);
        total = _mm512_add_ps(total, weight);
    }
    const __m512 rescale = exp_512(_mm512_sub_ps(*largest, most));
    *sum = _mm512_fmadd_ps(*sum, rescale, sum_of_query(total));
    *largest = most;
    return rescale;
}

/* sums[query] = rescale[query] * sums[query] + weights times the values. In each 32 elements of
 * sums the even ones come before the odd ones. Prefetches as many bytes from `prefetch` on, if it is
 * not NULL. */
AVX512 static void add_values(const uint16_t *v, int keys, float (*weights)[QUERIES],
                              const float *rescale, float (*sums)[HEAD_DIM],
                              const uint16_t *prefetch)
{
    for (int half = 0; half < HEAD_DIM; half += HEAD_DIM / 2) {
        __m512 total[QUERIES][4];
#pragma GCC unroll 4
        for (int m = 0; m < QUERIES; m++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                total[m][i] = _mm512_mul_ps(_mm512_set1_ps(rescale[m]),
                                            _mm512_loadu_ps(&sums[m][half + 16 * i]));
        for (int key = 0; key < keys; key++) {
            const uint16_t *here = v + (int64_t)key * HEAD_DIM + half;
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                if (prefetch) {
                    _mm_prefetch((const char *)prefetch, _MM_HINT_T0);
                    prefetch += 32;
                }
                const __m512i pairs = _mm512_loadu_si512(here + 32 * i);
                const __m512 a = even(pairs), b = odd(pairs);
#pragma GCC unroll 4
                for (int m = 0; m < QUERIES; m++) {
                    const __m512 weight = _mm512_set1_ps(weights[key][m]);
                    total[m][2 * i] = _mm512_fmadd_ps(weight, a, total[m][2 * i]);
                    total[m][2 * i + 1] = _mm512_fmadd_ps(weight, b, total[m][2 * i + 1]);
                }
            }
        }
#pragma GCC unroll 4
        for (int m = 0; m < QUERIES; m++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                _mm512_storeu_ps(&sums[m][half + 16 * i], total[m][i]);
    }
}

/* Add a block to a unit: 1. the scores, 2. their weights, 3. the weighted sum of the values. */
AVX512 static void block_512(Unit *unit, const Block *block)
{
    float scores[KEY_BLOCK][QUERIES], rescale[16];
    __m512 largest = _mm512_loadu_ps(unit->largest), total = _mm512_loadu_ps(unit->total);
    score(unit->query, block->k, block->keys, block->scale, scores,
          block->next_k ? block->v : NULL);
    _mm512_storeu_ps(rescale,
                     softmax_block(scores[0], (block->keys + 3) / 4 * 16, &largest, &total));
    add_values(block->v, block->keys, scores, rescale, (float(*)[HEAD_DIM])unit->sums,
               block->next_k);
    _mm512_storeu_ps(unit->largest, largest);
    _mm512_storeu_ps(unit->total, total);
}

/* Return the place of element i in the sums of block_512. */
static int place_512(int i) { return i / 32 * 32 + i % 2 * 16 + i % 32 / 2; }

/* ---- AVX2: float32 ------------------------------------------------------------------------- */

#define AVX2 __attribute__((target("avx2,fma")))

/* As exp_512. */
AVX2 INLINE __m256 exp_256(__m256 x)
{
    x = _mm256_max_ps(x, _mm256_set1_ps(-87.0f));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 720);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23)));
}

/* Multiply QUERIES queries by one or two keys: products[key] has the sums of the queries. */
AVX2 INLINE void score_keys_256(const float *q, const float *k, int head_dim, int keys,
                                __m128 *products)
{
    __m256 sums[2][QUERIES];
#pragma GCC unroll 2
    for (int key = 0; key < keys; key++)
#pragma GCC unroll 4
        for (int m = 0; m < QUERIES; m++)
            sums[key][m] = _mm256_setzero_ps();
    for (int i = 0; i < head_dim; i += 8) {
        __m256 here[2];
#pragma GCC unroll 2
        for (int key = 0; key < keys; key++)
            here[key] = _mm256_loadu_ps(k + key * head_dim + i);
#pragma GCC unroll 4
        for (int m = 0; m < QUERIES; m++) {
            const __m256 query = _mm256_loadu_ps(q + m * head_dim + i);
#pragma GCC unroll 2
            for (int key = 0; key < keys; key++)
                sums[key][m] = _mm256_fmadd_ps(query, here[key], sums[key][m]);
        }
    }
#pragma GCC unroll 2
    for (int key = 0; key < keys; key++) {
        const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(sums[key][0], sums[key][1]),
                                           _mm256_hadd_ps(sums[key][2], sums[key][3]));
        products[key] =
            _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
    }
}

/* scores[key][query], padded with very small scores to a multiple of 2 keys. */
AVX2 static void score_256(const float *q, const Block *block, float (*scores)[QUERIES])
{
    const float *k = block->k;
    const int head_dim = block->head_dim, row_bytes = head_dim * 4;
    const char *prefetch = block->next_k ? block->v : NULL;
    const __m128 scale = _mm_set1_ps(block->scale);
    __m128 products[2];
    for (int key = 0; key < block->keys; key += 2) {
        const int now = block->keys - key < 2 ? 1 : 2;
        if (prefetch)
            for (int i = 0; i < now * row_bytes; i += 64)
                _mm_prefetch(prefetch + (int64_t)key * row_bytes + i, _MM_HINT_T0);
        if (now == 2)
            score_keys_256(q, k + (int64_t)key * head_dim, head_dim, 2, products);
        else
            score_keys_256(q, k + (int64_t)key * head_dim, head_dim, 1, products);
        _mm_storeu_ps(scores[key], _mm_mul_ps(scale, products[0]));
        _mm_storeu_ps(scores[key + 1],
                      now == 2 ? _mm_mul_ps(scale, products[1]) : _mm_set1_ps(-1e30f));
    }
}

/* As softmax_block; a register holds the scores of two keys for four queries. */
AVX2 INLINE __m256 softmax_256(float *scores, int count, __m256 *largest, __m256 *sum)
{
    __m256 most = *largest;
    for (int i = 0; i < count; i += 8)
        most = _mm256_max_ps(most, _mm256_loadu_ps(scores + i));
    most = _mm256_max_ps(most, _mm256_permute2f128_ps(most, most, 1));
    __m256 total = _mm256_setzero_ps();
    for (int i = 0; i < count; i += 8) {
        const __m256 weight = exp_256(_mm256_sub_ps(_mm256_loadu_ps(scores + i), most));
        _mm256_storeu_ps(scores + i, weight);
        total = _mm256_add_ps(total, weight);
    }
    const __m256 rescale = exp_256(_mm256_sub_ps(*largest, most));
    total = _mm256_add_ps(total, _mm256_permute2f128_ps(total, total, 1));
    *sum = _mm256_fmadd_ps(*sum, rescale, total);
    *largest = most;
    return rescale;
}

/* sums[query] = rescale[query] * sums[query] + weights times the values, 16 elements at a time. */
AVX2 static void add_values_256(const Block *block, float (*weights)[QUERIES],
                                const float *rescale, float *sums)
{
    const char *prefetch = block->next_k;
    for (int i = 0; i < block->head_dim; i += 16) {
        __m256 total[QUERIES][2];
#pragma GCC unroll 4
        for (int m = 0; m < QUERIES; m++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++)
                total[m][half] =
                    _mm256_mul_ps(_mm256_set1_ps(rescale[m]),
                                  _mm256_loadu_ps(sums + m * block->head_dim + i + 8 * half));
        for (int key = 0; key < block->keys; key++) {
            const float *here = (const float *)block->v + (int64_t)key * block->head_dim + i;
            const __m256 a = _mm256_loadu_ps(here), b = _mm256_loadu_ps(here + 8);
            if (prefetch) {
                _mm_prefetch(prefetch, _MM_HINT_T0);
                prefetch += 64;
            }
#pragma GCC unroll 4
            for (int m = 0; m < QUERIES; m++) {
                const __m256 weight = _mm256_broadcast_ss(&weights[key][m]);
                total[m][0] = _mm256_fmadd_ps(weight, a, total[m][0]);
                total[m][1] = _mm256_fmadd_ps(weight, b, total[m][1]);
            }
        }
#pragma GCC unroll 4
        for (int m = 0; m < QUERIES; m++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++)
                _mm256_storeu_ps(sums + m * block->head_dim + i + 8 * half, total[m][half]);
    }
}

AVX2 static void block_256(Unit *unit, const Block *block)
{
    float scores[KEY_BLOCK][QUERIES], rescale[8];
    __m256 largest = _mm256_loadu_ps(unit->largest), total = _mm256_loadu_ps(unit->total);
    score_256(unit->query, block, scores);
    _mm256_storeu_ps(rescale,
                     softmax_256(scores[0], (block->keys + 1) / 2 * 8, &largest, &total));
    add_values_256(block, scores, rescale, unit->sums);
    _mm256_storeu_ps(unit->largest, largest);
    _mm256_storeu_ps(unit->total, total);
}

/* ---- 8-bit keys and values ------------------------------------------------------------------- */

/* out = codes * scale of their key, rounded to the type of `out`. */
AVX512 static void dequantize_512(const int8_t *codes, const float *scales, int keys, uint16_t *out)
{
    for (int key = 0; key < keys; key++) {
        const __m512 scale = _mm512_set1_ps(scales[key]);
        for (int i = key * HEAD_DIM; i < (key + 1) * HEAD_DIM; i += 16) {
            const __m128i here = _mm_loadu_si128((const __m128i *)(codes + i));
            const __m512 wide = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(here));
            _mm256_storeu_si256((__m256i *)(out + i),
                                (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(wide, scale)));
        }
    }
}

AVX2 static void dequantize_256(const int8_t *codes, const float *scales, int keys, int head_dim,
                                float *out)
{
    for (int key = 0; key < keys; key++) {
        const __m256 scale = _mm256_set1_ps(scales[key]);
        for (int i = key * head_dim; i < (key + 1) * head_dim; i += 8) {
            const __m128i here = _mm_loadl_epi64((const __m128i *)(codes + i));
            const __m256 wide = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(here));
            _mm256_storeu_ps(out + i, _mm256_mul_ps(wide, scale));
        }
    }
}

/* ---- a head ---------------------------------------------------------------------------------- */

/* The keys, or values, of a head: numbers, or 8-bit codes with one scale for each key. */
typedef struct {
    const char *numbers;
    const float *scales; /* NULL: the numbers are not codes */
} Rows;

/* Return the keys or values of a block; codes are dequantized into `room`. */
static const void *rows_of(Rows rows, int wide, int64_t begin, int keys, int head_dim, void *room)
{
    if (!rows.scales)
        return rows.numbers + begin * head_dim * (wide ? 4 : 2);
    const int8_t *codes = (const int8_t *)rows.numbers + begin * head_dim;
    if (wide)
        dequantize_256(codes, rows.scales + begin, keys, head_dim, room);
    else
        dequantize_512(codes, rows.scales + begin, keys, room);
    return room;
}

/* Compute all units of a head; `keys` is the largest number of keys that one of them sees. next_k:
 * the keys of the next head, to prefetch them. */
static void attend_head(Unit *units, int64_t count, Rows k, Rows v, int64_t keys,
                        const char *next_k, int head_dim, float scale, int wide, char *room)
{
    const int64_t item = wide ? 4 : 2, block_bytes = KEY_BLOCK * head_dim * item;
    for (int64_t i = 0; i < count; i++) {
        Unit *unit = units + i;
        memset(unit->query, 0, (size_t)(QUERIES * head_dim * item));
        memcpy(unit->query, unit->q, (size_t)(unit->queries * head_dim * item));
        memset(unit->sums, 0, (size_t)(QUERIES * head_dim) * sizeof(float));
        for (int lane = 0; lane < 16; lane++) {
            unit->largest[lane] = -1e30f;
            unit->total[lane] = 0;
        }
    }
    for (int64_t begin = 0; begin < keys; begin += KEY_BLOCK) {
        const int most = (int)(keys - begin < KEY_BLOCK ? keys - begin : KEY_BLOCK);
        Block block = {
            .k = rows_of(k, wide, begin, most, head_dim, room),
            .v = rows_of(v, wide, begin, most, head_dim, room + block_bytes),
            .head_dim = head_dim,
            .scale = scale,
        };
        /* Only the first unit prefetches. A prefetch behind the last key does no harm. */
        if (!k.scales)
            block.next_k =
                begin + KEY_BLOCK < keys ? (const char *)block.k + block_bytes : next_k;
        for (int64_t i = 0; i < count; i++) {
            const int64_t left = units[i].keys - begin;
            if (left <= 0)
                continue;
            block.keys = (int)(left < KEY_BLOCK ? left : KEY_BLOCK);
            if (wide)
                block_256(units + i, &block);
            else
                block_512(units + i, &block);
            block.next_k = NULL;
        }
    }
    for (int64_t i = 0; i < count; i++)
        for (int m = 0; m < units[i].queries; m++)
            for (int d = 0; d < head_dim; d++)
                units[i].out[m * head_dim + d] =
                    units[i].sums[m * head_dim + (wide ? d : place_512(d))] / units[i].total[m];
}
#endif /* ON_X86 */

/* out[tokens, heads, queries, head_dim] = attention of q, of the same shape, over the keys and values
 * of one sequence. The first token sees `keys` keys, each further one sees one more.
 *
 * wide: q, k and v are float32 (AVX2, head_dim a multiple of 16), else bfloat16 (AVX512, head_dim
 * 128). k_scales and v_scales: NULL, or the scales of each head's keys, one per key; then k and v are
 * 8-bit codes. stride, scale_stride: distance between heads, in numbers. Returns 1 if there is no
 * memory for the intermediate results, else 0. */
int attention_tokens(int64_t tokens, int64_t heads, int64_t queries, int64_t head_dim, int64_t keys,
                     int64_t stride, const void *q, const void *k, const void *v,
                     const float *k_scales, const float *v_scales, int64_t scale_stride,
                     float scale, float *out, int wide, int threads)
{
    int failed = 0;
#if ON_X86
    const int64_t item = wide ? 4 : 2, stored = k_scales ? 1 : item, at_once = QUERIES;
    const int64_t parts = (queries + at_once - 1) / at_once, count = tokens * parts;
    const int64_t query_bytes = QUERIES * head_dim * item, sum_bytes = QUERIES * head_dim * 4;
    const int64_t block_bytes = k_scales ? KEY_BLOCK * head_dim * item : 0;
    const int64_t room_bytes =
        2 * block_bytes + count * (query_bytes + sum_bytes + (int64_t)sizeof(Unit));
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t head = 0; head < heads; head++) {
        char *room = malloc((size_t)room_bytes);
        if (!room) {
#pragma omp atomic write
            failed = 1;
            continue;
        }
        char *here = room + 2 * block_bytes;
        Unit *units = (Unit *)(here + count * (query_bytes + sum_bytes));
        for (int64_t i = 0; i < count; i++) {
            const int64_t token = i / parts, m = i % parts * at_once;
            const int64_t place = ((token * heads + head) * queries + m) * head_dim;
            units[i] = (Unit){
                .q = (const char *)q + place * item,
                .out = out + place,
                .query = here + i * query_bytes,
                .sums = (float *)(here + count * query_bytes + i * sum_bytes),
                .keys = keys + token,
                .queries = (int)(queries - m < at_once ? queries - m : at_once),
            };
        }
        const Rows these = {(const char *)k + head * stride * stored,
                            k_scales ? k_scales + head * scale_stride : NULL};
        const Rows those = {(const char *)v + head * stride * stored,
                            v_scales ? v_scales + head * scale_stride : NULL};
        attend_head(units, count, these, those, keys + tokens - 1,
                    these.numbers + stride * stored, (int)head_dim, scale, wide, room);
        free(room);
    }
#else
    (void)tokens, (void)heads, (void)queries, (void)head_dim, (void)keys, (void)stride, (void)q;
    (void)k, (void)v, (void)k_scales, (void)v_scales, (void)scale_stride, (void)scale, (void)out;
    (void)wide, (void)threads;
#endif
    return failed;
}
