/* Products of integers (integer.h): the conversion of inputs, the definition in plain C, and the
 * choice of the version for a level of instructions.
 *
 * Called through ctypes (kernels/gemv.py); sizes are checked there.
 */

#include "integer.h"

#include <math.h>
#include <stdlib.h>
#if ON_X86
#include <cpuid.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#define MOST_BYTES (16 << 20) /* most bytes of inputs arranged at a time */
#define INPUT_BLOCK 32        /* inputs arranged at a time are a multiple of this */
#define LEAST_EXPONENT -100   /* below it the factor that divides by the step would overflow */
#define BITS 11               /* an input of exponent e becomes 2^11 to 2^12 steps of 2^(e - 11) */

int gemm_amx_works(void); /* gemm_amx.c */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* ---- inputs as integers ------------------------------------------------------------------- */

/* Return 2^exponent; exponent from -126 to 127. */
INLINE float power_of_2(int exponent)
{
    const uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    return power;
}

INLINE uint32_t bits_of(const void *x, int wide, int64_t i)
{
    return wide ? ((const uint32_t *)x)[i] : (uint32_t)((const uint16_t *)x)[i] << 16;
}

/* Convert a unit whose largest magnitude has this exponent: return the factor that divides by the
 * step, and write the step times `level_step`. Return 0 for infinity and NaN. */
INLINE float factor_of(int exponent, float level_step, float *step)
{
    if (exponent == 128) {
        *step = NAN;
        return 0;
    }
    exponent = exponent < LEAST_EXPONENT ? LEAST_EXPONENT : exponent;
    *step = power_of_2(exponent - BITS) * level_step;
    return power_of_2(BITS - exponent);
}

/* Convert a row of inputs, float32 if `wide`, else bfloat16. */
static void convert_plain(const void *x, int wide, int64_t units, float level_step, int16_t *out,
                          float *steps)
{
    for (int64_t unit = 0; unit < units; unit++) {
        uint32_t most = 0;
        for (int64_t i = unit * UNIT; i < (unit + 1) * UNIT; i++) {
            const uint32_t magnitude = bits_of(x, wide, i) & 0x7fffffff;
            most = magnitude > most ? magnitude : most;
        }
        const float factor = factor_of((int)(most >> 23) - 127, level_step, steps + unit);
        for (int64_t i = unit * UNIT; i < (unit + 1) * UNIT; i++) {
            const uint32_t bits = bits_of(x, wide, i);
            float number;
            memcpy(&number, &bits, sizeof(number));
            out[i] = (int16_t)(factor == 0 ? 0 : lrintf(number * factor));
        }
    }
}

#if ON_X86
/* The same with AVX2. */
__attribute__((target("avx2,fma"))) static void convert_256(const void *x, int wide, int64_t units,
                                                            float level_step, int16_t *out,
                                                            float *steps)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int64_t unit = 0; unit < units; unit++, out += UNIT) {
        /* 1. Load 64 inputs as float32. As integers without a sign they have the same order. */
        __m256i part[UNIT / 8], most = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int i = 0; i < UNIT / 8; i++) {
            const int64_t place = unit * UNIT + 8 * i;
            if (wide) {
                part[i] = _mm256_loadu_si256((const __m256i *)((const float *)x + place));
            } else {
                const __m128i *here = (const __m128i *)((const uint16_t *)x + place);
                part[i] = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(here)), 16);
            }
            most = _mm256_max_epi32(most, _mm256_and_si256(part[i], magnitude));
        }
        __m128i top = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
        top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
        /* 2. Its exponent determines the step. */
        const int exponent = (_mm_cvtsi128_si32(top) >> 23) - 127;
        const __m256 factor = _mm256_set1_ps(factor_of(exponent, level_step, steps + unit));
        if (exponent == 128) {
            memset(out, 0, UNIT * sizeof(int16_t));
            continue;
        }
        /* 3. Scale, round to the nearest integer, pack into 16 bits. */
#pragma GCC unroll 4
        for (int i = 0; i < UNIT / 16; i++) {
            const __m256 a = _mm256_mul_ps(_mm256_castsi256_ps(part[2 * i]), factor);
            const __m256 b = _mm256_mul_ps(_mm256_castsi256_ps(part[2 * i + 1]), factor);
            const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
            /* Packing works within 128-bit halves; the permutation restores the order. */
            _mm256_storeu_si256((__m256i *)(out + 16 * i), _mm256_permute4x64_epi64(both, 0xd8));
        }
    }
}
#endif

static void convert(int level, const void *x, int wide, int64_t units, float level_step,
                    int16_t *out, float *steps)
{
#if ON_X86
    if (level >= LEVEL_AVX2) {
        convert_256(x, wide, units, level_step, out, steps);
        return;
    }
#endif
    (void)level;
    convert_plain(x, wide, units, level_step, out, steps);
}

/* ---- plain C: the definition -------------------------------------------------------------- */

/* The inputs stay as they are: integers [inputs, columns], then steps [inputs, units]. */
static int64_t bytes_plain(const Product *p)
{
    return p->inputs * p->units * (UNIT * (int64_t)sizeof(int16_t) + (int64_t)sizeof(float));
}

static void arrange_plain(const Product *p, int64_t input, const int16_t *integers,
                          const float *steps)
{
    int16_t *all = p->arranged;
    float *all_steps = (float *)(all + p->inputs * p->units * UNIT);
    memcpy(all + input * p->units * UNIT, integers, (size_t)p->units * UNIT * sizeof(int16_t));
    memcpy(all_steps + input * p->units, steps, (size_t)p->units * sizeof(float));
}

static int32_t integer_of(const Matrix *w, int64_t row, int64_t column)
{
    const int64_t place = row * w->columns + column;
    if (!w->integer_levels)
        return ((const int8_t *)w->codes)[place];
    const uint8_t pair = w->codes[place / 2];
    return w->integer_levels[column % 2 ? pair & 15 : pair >> 4];
}

static void multiply_plain(const Product *p, int64_t begin, int64_t end, void *room)
{
    const Matrix *w = p->w;
    const int16_t *x = p->arranged;
    const float *steps = (const float *)(x + p->inputs * w->columns);
    (void)room;
    for (int64_t row = begin; row < end; row++)
        for (int64_t input = 0; input < p->inputs; input++) {
            float sum = 0;
            for (int64_t unit = 0; unit < p->units; unit++) {
                int32_t products = 0;
                for (int64_t i = unit * UNIT; i < (unit + 1) * UNIT; i++)
                    products += x[input * w->columns + i] * integer_of(w, row, i);
                const int64_t group = row * (w->columns / w->group) + unit * UNIT / w->group;
                const float factor = one_scale(w, group) * steps[input * p->units + unit];
                sum = fmaf((float)products, factor, sum);
            }
            write_result(p, input, row, sum);
        }
}

const Version integer_plain = {
    .bytes = bytes_plain, .arrange = arrange_plain, .multiply = multiply_plain};

/* ---- called from Python ------------------------------------------------------------------- */

static const Version *version_of(int level)
{
    switch (level) {
#if ON_X86
    case LEVEL_AVX2:
        return &integer_avx2;
    case LEVEL_AVX_VNNI:
        return &integer_avx_vnni;
    case LEVEL_AVX512_VNNI:
    case LEVEL_AVX512:
    case LEVEL_AMX:
        return &integer_512;
#endif
    default:
        return &integer_plain;
    }
}

static char *allocate(int64_t bytes)
{
    return aligned_alloc(64, (size_t)rounded(bytes + 1, 64));
}

/* Return the number of inputs that are arranged at a time. */
static int64_t most_inputs(const Matrix *w)
{
    return larger(MOST_BYTES / (w->columns * 2) / INPUT_BLOCK, 1) * INPUT_BLOCK;
}

/* Return the bytes of a thread's buffer, first for a row of integers, then as the version's room. */
static int64_t bytes_of_a_thread(const Version *version, const Product *p)
{
    const int64_t row_bytes = rounded(p->units * (UNIT * 2 + 4), 64);
    return larger(row_bytes, version->room ? rounded(version->room(p), 64) : 0);
}

/* Return the bytes that integer_product allocates. */
int64_t integer_bytes(const Matrix *w, int level, int64_t inputs, int threads)
{
    const Version *version = version_of(level);
    const Product p = {w, smaller(inputs, most_inputs(w)), w->columns / UNIT, NULL, NULL, 1};
    return version->bytes(&p) + threads * bytes_of_a_thread(version, &p);
}

/* out[inputs, rows] = x[inputs, columns] times the transposed matrix. x and out are bfloat16, or
 * float32 if `wide`. level: see matrix.h; not above what the processor supports. Returns 0, or 1 if
 * no memory could be allocated. */
int integer_product(const Matrix *w, int level, int wide, const void *x, int64_t inputs, void *out,
                    int threads)
{
    const Version *version = version_of(level);
    const int64_t units = w->columns / UNIT, size = wide ? sizeof(float) : sizeof(uint16_t);
    /* 1. One buffer for some inputs, and one for each thread. */
    const int64_t most = most_inputs(w);
    Product p = {w, smaller(inputs, most), units, NULL, NULL, wide};
    const int64_t thread_bytes = bytes_of_a_thread(version, &p);
    const int64_t band = version->band ? version->band(&p, threads) : ROW_BLOCK;
    const int64_t bands = (w->rows + band - 1) / band;
    char *arranged = allocate(version->bytes(&p));
    char *rooms = allocate(threads * thread_bytes);
    if (!arranged || !rooms) {
        free(arranged);
        free(rooms);
        return 1;
    }
    for (int64_t first = 0; first < inputs; first += most) {
        p.inputs = smaller(inputs - first, most);
        p.arranged = arranged;
        p.out = (char *)out + first * w->rows * size;
        memset(arranged, 0, (size_t)version->bytes(&p));
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
#ifdef _OPENMP
            const int me = omp_get_thread_num();
#else
            const int me = 0;
#endif
            char *room = rooms + me * thread_bytes;
            /* 2. Convert the inputs. */
#pragma omp for schedule(static)
            for (int64_t input = 0; input < p.inputs; input++) {
                int16_t *integers = (int16_t *)room;
                float *steps = (float *)(integers + w->columns);
                convert(level, (const char *)x + (first + input) * w->columns * size, wide, units,
                        w->level_step, integers, steps);
                version->arrange(&p, input, integers, steps);
            }
            /* 3. Multiply. */
            if (version->enter)
                version->enter();
#pragma omp for schedule(static)
            for (int64_t i = 0; i < bands; i++)
                version->multiply(&p, i * band, smaller((i + 1) * band, w->rows), room);
            if (version->leave)
                version->leave();
        }
    }
    free(arranged);
    free(rooms);
    return 0;
}

/* Return the highest level of instructions, up to `most`, that this processor and the system
 * support. */
int cpu_level(int most)
{
#if ON_X86
    unsigned a, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return LEVEL_PLAIN;
    if (most >= LEVEL_AVX512_VNNI && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("avx512vnni")) {
        if (most < LEVEL_AVX512 || !__builtin_cpu_supports("avx512bf16"))
            return LEVEL_AVX512_VNNI;
        const int has_int8_tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 25 & 1;
        return most >= LEVEL_AMX && has_int8_tiles && gemm_amx_works() ? LEVEL_AMX : LEVEL_AVX512;
    }
    /* Not every compiler knows this instruction set by name. */
    if (most >= LEVEL_AVX_VNNI && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1)
        return LEVEL_AVX_VNNI;
    return most >= LEVEL_AVX2 ? LEVEL_AVX2 : LEVEL_PLAIN;
#else
    (void)most;
    return LEVEL_PLAIN;
#endif
}
