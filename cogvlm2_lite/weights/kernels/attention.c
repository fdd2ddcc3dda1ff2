/* Attention of one token: a few queries that share a head's keys and values.
 *
 * Every key and value is read once, in blocks whose scores fit into the L1 cache. For each block:
 * the products with the keys, an online softmax (rescaled when a later block has a larger score),
 * and the weighted sum of the values.
 *
 * The block's values are prefetched while keys are multiplied, and the next block's keys while
 * values are summed. Both prefetches are sequential; the values are summed in two halves, each of
 * which reads every other pair of cache lines.
 *
 * Keys and values are bfloat16; all intermediate results are float32. A head is computed by one
 * thread, so results do not depend on the number of threads.
 *
 * AVX512-BF16 only; the caller checks gemv_level (gemv.c) first.
 */

#include <string.h>

#include "matrix.h"

#define HEAD_DIM 128
#define QUERIES 4     /* queries of a head computed together: as many as fit into registers */
#define KEY_BLOCK 256 /* keys per block: their scores fit into the L1 cache */

#if ON_X86
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")))

/* e^x for x <= 0, within 2 units in the last place: 2^n times a polynomial of the remainder. */
AVX512 INLINE __m512 exp_ps(__m512 x)
{
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

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
 * keys. Prefetches as many bytes from `prefetch` on. Products are computed in float32: the bfloat16
 * dot product has half its rate on some processors, and the same rate on the others. */
AVX512 static void score(const uint16_t q[QUERIES][HEAD_DIM], const uint16_t *k, int keys,
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
            _mm_prefetch((const char *)(prefetch + (int64_t)key * HEAD_DIM + 32 * i), _MM_HINT_T0);
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
        const __m512 weight = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + i), most));
        _mm512_storeu_ps(scores + i, weight);
        total = _mm512_add_ps(total, weight);
    }
    const __m512 rescale = exp_ps(_mm512_sub_ps(*largest, most));
    *sum = _mm512_fmadd_ps(*sum, rescale, sum_of_query(total));
    *largest = most;
    return rescale;
}

/* sums[query] = rescale[query] * sums[query] + weights times the values. In each 32 elements of
 * sums the even ones come before the odd ones. Prefetches as many bytes from `prefetch` on. */
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
                _mm_prefetch((const char *)prefetch, _MM_HINT_T0);
                prefetch += 32;
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

/* Attention of up to QUERIES queries of one head; missing queries are zeros. next_k: the keys of
 * the next head, to prefetch them. */
AVX512 static void attend_head(const uint16_t *q, const uint16_t *k, const uint16_t *v,
                               int64_t keys, float scale, int queries, const uint16_t *next_k,
                               float *out)
{
    uint16_t query[QUERIES][HEAD_DIM] = {{0}};
    float scores[KEY_BLOCK][QUERIES], sums[QUERIES][HEAD_DIM] = {{0}};
    float rescale[16], total[16];
    __m512 largest = _mm512_set1_ps(-1e30f), sum = _mm512_setzero_ps();
    memcpy(query, q, (size_t)queries * sizeof(query[0]));
    for (int64_t begin = 0; begin < keys; begin += KEY_BLOCK) {
        /* 1. Scores of the block. 2. Their weights. 3. The weighted sum of the values. */
        const int now = (int)(keys - begin < KEY_BLOCK ? keys - begin : KEY_BLOCK);
        const int64_t next = begin + KEY_BLOCK;
        score(query, k + begin * HEAD_DIM, now, scale, scores, v + begin * HEAD_DIM);
        _mm512_storeu_ps(rescale, softmax_block(scores[0], (now + 3) / 4 * 16, &largest, &sum));
        add_values(v + begin * HEAD_DIM, now, scores, rescale, sums,
                   next < keys ? k + next * HEAD_DIM : next_k);
    }
    /* 4. Divide by the sum of weights, and restore the order of the elements in each 32. */
    _mm512_storeu_ps(total, sum);
    for (int m = 0; m < queries; m++)
        for (int i = 0; i < HEAD_DIM; i++)
            out[m * HEAD_DIM + i] =
                sums[m][i / 32 * 32 + i % 2 * 16 + i % 32 / 2] / total[m];
}
#endif /* ON_X86 */

/* out[heads, queries, 128] = attention of q[heads, queries, 128] over k and v[heads, keys, 128].
 * stride: distance between the heads of k and v, in numbers. */
void attention_token(int64_t heads, int64_t queries, int64_t keys, int64_t stride,
                     const uint16_t *q, const uint16_t *k, const uint16_t *v, float scale,
                     float *out, int threads)
{
#if ON_X86
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t head = 0; head < heads; head++) {
        for (int64_t m = 0; m < queries; m += QUERIES) {
            const int now = (int)(queries - m < QUERIES ? queries - m : QUERIES);
            const int64_t place = (head * queries + m) * HEAD_DIM;
            attend_head(q + place, k + head * stride, v + head * stride, keys, scale, now,
                        k + (head + 1) * stride, out + place);
        }
    }
#else
    (void)heads, (void)queries, (void)keys, (void)stride, (void)q, (void)k, (void)v;
    (void)scale, (void)out, (void)threads;
#endif
}
