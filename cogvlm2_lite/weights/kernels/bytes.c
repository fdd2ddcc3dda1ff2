/* Products of bytes (bytes.h): the conversion of inputs, the definition in plain C, and the order in
 * which the other versions multiply.
 *
 * A band of rows of the matrix is converted to bytes once and multiplied by all inputs, two sets at
 * a time; so converting takes little of the time of many inputs. Wide matrices are cut into parts of
 * their columns. Then the float32 sums of a band are kept for all inputs.
 *
 * Called through ctypes (kernels/byte_products.py); sizes are checked there.
 */

#include "bytes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define MOST_BYTES (14 << 20)   /* most bytes of inputs that are arranged at a time */
#define THREAD_BYTES (13 << 20) /* of all threads together, if the bands can be low enough */
#define MOST_UNITS 64           /* of a part of the columns; half of it with many threads */
#define CUT_INPUTS 1024         /* inputs whose sums are kept, if the columns are cut; the same */
#define FEW_THREADS 16          /* up to so many threads have much memory each */
#define MOST_BAND 256           /* rows of the matrix */
#define MOST_THREADS 64

/* ---- inputs ------------------------------------------------------------------------------- */

INLINE uint32_t bits_of(const void *x, int wide, int64_t i)
{
    return wide ? ((const uint32_t *)x)[i] : (uint32_t)((const uint16_t *)x)[i] << 16;
}

INLINE float number_of(uint32_t bits)
{
    float number;
    memcpy(&number, &bits, sizeof(number));
    return number;
}

/* Convert one block of inputs: bytes, step, and the sum of the bytes. x: float32 if `wide`, else
 * bfloat16. */
static void convert_plain(const void *x, int wide, int64_t columns, int8_t *out, float *step,
                          int32_t *sum)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < columns; i++) {
        const uint32_t magnitude = bits_of(x, wide, i) & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    const float factor = factor_of(number_of(most), step);
    *sum = 0;
    for (int64_t i = 0; i < columns; i++) {
        out[i] = (int8_t)(factor == 0 ? 0 : lrintf(number_of(bits_of(x, wide, i)) * factor));
        *sum += out[i];
    }
}

#if ON_X86
#define AVX2 __attribute__((target("avx2,fma")))

AVX2 INLINE __m256i load_8(const void *x, int wide, int64_t i)
{
    if (wide)
        return _mm256_loadu_si256((const __m256i *)((const float *)x + i));
    const __m128i *here = (const __m128i *)((const uint16_t *)x + i);
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(here)), 16);
}

/* The same with AVX2. */
AVX2 INLINE void convert_256(const void *x, int wide, int64_t columns, int8_t *out, float *step,
                             int32_t *sum)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), ones = _mm256_set1_epi16(1);
    __m256i most = _mm256_setzero_si256(), sums = _mm256_setzero_si256();
    for (int64_t i = 0; i < columns; i += 8)
        most = _mm256_max_epi32(most, _mm256_and_si256(load_8(x, wide, i), magnitude));
    __m128i top = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
    top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
    const float single = factor_of(_mm_cvtss_f32(_mm_castsi128_ps(top)), step);
    *sum = 0;
    if (single == 0) {
        memset(out, 0, (size_t)columns);
        return;
    }
    const __m256 factor = _mm256_set1_ps(single);
    /* Packing works within 128-bit halves; the permutation restores the order. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int64_t i = 0; i < columns; i += 32) {
        __m256i part[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            part[k] = _mm256_cvtps_epi32(
                _mm256_mul_ps(_mm256_castsi256_ps(load_8(x, wide, i + 8 * k)), factor));
        const __m256i a = _mm256_packs_epi32(part[0], part[1]);
        const __m256i b = _mm256_packs_epi32(part[2], part[3]);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
        _mm256_storeu_si256((__m256i *)(out + i),
                            _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order));
    }
    __m128i all = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    all = _mm_add_epi32(all, _mm_shuffle_epi32(all, 0x4e));
    all = _mm_add_epi32(all, _mm_shuffle_epi32(all, 0xb1));
    *sum = _mm_cvtsi128_si32(all);
}

/* Convert one row of inputs and write it to its place. */
AVX2 static void arrange(const void *x, int wide, int words, int64_t input, const Inputs *out)
{
    const int64_t set = input / SET, place = input % SET;
    for (int64_t block = 0; block < out->blocks; block++) {
        const int64_t unit = block * BLOCK_UNITS, units = smaller(BLOCK_UNITS, out->units - unit);
        const int64_t step = (set * out->blocks + block) * SET + place;
        const int64_t size = wide ? sizeof(float) : sizeof(uint16_t);
        const void *here = (const char *)x + unit * UNIT * size;
        int8_t bytes[BLOCK];
        int32_t sum;
        if (wide)
            convert_256(here, 1, units * UNIT, bytes, out->steps + step, &sum);
        else
            convert_256(here, 0, units * UNIT, bytes, out->steps + step, &sum);
        out->flips[step] = -128 * sum;
        for (int64_t i = 0; i < units; i++) {
            const int64_t to = ((set * out->units + unit + i) * SET + place) * UNIT;
            if (!words) {
                memcpy((int8_t *)out->bytes + to, bytes + i * UNIT, UNIT);
                continue;
            }
            const __m256i order = _mm256_broadcastsi128_si256(
                _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
            for (int k = 0; k < UNIT; k += 16) {
                const __m128i some = _mm_loadu_si128((const __m128i *)(bytes + i * UNIT + k));
                _mm256_storeu_si256((__m256i *)((int16_t *)out->bytes + to + k),
                                    _mm256_shuffle_epi8(_mm256_cvtepi8_epi16(some), order));
            }
        }
    }
}
#endif

/* ---- results ------------------------------------------------------------------------------ */

/* One call. */
typedef struct {
    const Matrix *w;
    const ByteVersion *version;
    const float *bias; /* [rows of w], or NULL */
    int wide;
    void *out; /* [inputs, rows of w], float32 if `wide`, else bfloat16 */
    int64_t inputs;
} Call;

INLINE void write_result(const Call *call, int64_t input, int64_t row, float sum)
{
    const int64_t place = input * call->w->rows + row;
    const float result = call->bias ? sum + call->bias[row] : sum;
    if (call->wide) {
        ((float *)call->out)[place] = result;
        return;
    }
    /* Round to the nearest, ties to even, as torch does. */
    uint32_t bits;
    memcpy(&bits, &result, sizeof(bits));
    ((uint16_t *)call->out)[place] =
        result != result ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#if ON_X86
/* Write the results of 16 rows of the matrix. */
AVX2 INLINE void write_16(const Call *call, int64_t input, int64_t row, const float *sums)
{
    __m256i halves[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256 sum = _mm256_loadu_ps(sums + 8 * i);
        if (call->bias)
            sum = _mm256_add_ps(sum, _mm256_loadu_ps(call->bias + row + 8 * i));
        const __m256i bits = _mm256_castps_si256(sum);
        if (call->wide) {
            float *to = (float *)call->out + input * call->w->rows + row + 8 * i;
            _mm256_storeu_ps(to, sum);
            continue;
        }
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i more = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        const __m256 near = _mm256_castsi256_ps(_mm256_add_epi32(bits, more));
        const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
        halves[i] = _mm256_srli_epi32(
            _mm256_castps_si256(_mm256_blendv_ps(near, nan, _mm256_cmp_ps(sum, sum, 3))), 16);
    }
    if (call->wide)
        return;
    const __m256i both = _mm256_packus_epi32(halves[0], halves[1]);
    uint16_t *to = (uint16_t *)call->out + input * call->w->rows + row;
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(both, 0xd8));
}

/* Write the sums of two sets of inputs, from `input` on, and of a band. */
AVX2 static void write_sums(const Call *call, int64_t input, int64_t row, int64_t end,
                            const float *sums)
{
    for (int64_t i = 0; i < PAIR_OF_SETS && input + i < call->inputs; i++)
        for (int64_t at = row; at < end; at += SET) {
            const float *here = sums + ((at - row) * PAIR_OF_SETS + i * SET);
            if (at + SET <= end)
                write_16(call, input + i, at, here);
            else
                for (int64_t k = 0; at + k < end; k++)
                    write_result(call, input + i, at + k, here[k]);
        }
}
#endif

/* ---- plain C: the definition -------------------------------------------------------------- */

/* Find the scales of up to 8 units of a row, which are one block, and return the factor of the
 * block. Write its step. */
static float row_factor(const Matrix *w, float top, int64_t row, int64_t unit, int64_t units,
                        float *scales, float *step)
{
    float most = 0;
    for (int64_t i = 0; i < units; i++) {
        scales[i] = one_scale(w, row * (w->columns / w->group) + (unit + i) * UNIT / w->group);
        const float size = scales[i] < 0 ? -scales[i] : scales[i];
        most = size > most || size != size ? size : most;
    }
    return factor_of(top * most, step);
}

/* The bytes and steps of one row of the matrix. */
static void row_plain(const Matrix *w, int64_t row, int8_t *bytes, float *steps)
{
    const float top = most_level(w);
    const int64_t units = w->columns / UNIT;
    for (int64_t unit = 0; unit < units; unit += BLOCK_UNITS) {
        const int64_t some = smaller(BLOCK_UNITS, units - unit);
        float scales[BLOCK_UNITS];
        const float factor =
            row_factor(w, top, row, unit, some, scales, steps + unit / BLOCK_UNITS);
        for (int64_t i = unit * UNIT; i < (unit + some) * UNIT; i++) {
            const int64_t place = row * w->columns + i;
            const uint8_t code = w->levels ? w->codes[place / 2] : w->codes[place];
            const float level = !w->levels ? (float)(int8_t)code
                                           : w->levels[i % 2 ? code & 15 : code >> 4];
            const float ratio = scales[i / UNIT - unit] * factor;
            bytes[i] = (int8_t)(factor == 0 ? 0 : lrintf(level * ratio));
        }
    }
}

/* Room for the bytes and steps of all inputs and of one row. */
static int64_t bytes_plain(const Matrix *w, int64_t inputs)
{
    return (inputs + 1) * (w->columns + blocks_of(w->columns) * (int64_t)sizeof(float));
}

static void product_plain(const Call *call, const void *x, char *room)
{
    const Matrix *w = call->w;
    const int64_t columns = w->columns, blocks = blocks_of(columns), inputs = call->inputs;
    const int64_t size = call->wide ? sizeof(float) : sizeof(uint16_t);
    float *steps = (float *)room, *row_steps = steps + inputs * blocks;
    int8_t *bytes = (int8_t *)(row_steps + blocks), *row_bytes = bytes + inputs * columns;
    for (int64_t input = 0; input < inputs; input++)
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t place = input * columns + block * BLOCK;
            int32_t sum;
            convert_plain((const char *)x + place * size, call->wide,
                          smaller(BLOCK, columns - block * BLOCK), bytes + place,
                          steps + input * blocks + block, &sum);
        }
    for (int64_t row = 0; row < w->rows; row++) {
        row_plain(w, row, row_bytes, row_steps);
        for (int64_t input = 0; input < inputs; input++) {
            float sum = 0;
            for (int64_t block = 0; block < blocks; block++) {
                int32_t products = 0;
                for (int64_t i = block * BLOCK; i < smaller((block + 1) * BLOCK, columns); i++)
                    products += bytes[input * columns + i] * row_bytes[i];
                const float step = steps[input * blocks + block] * row_steps[block];
                sum = fmaf((float)products, step, sum);
            }
            write_result(call, input, row, sum);
        }
    }
}

/* ---- the order of the other versions ------------------------------------------------------- */

#if ON_X86
static const ByteVersion *version_of(int level)
{
    switch (level) {
    case LEVEL_AVX2:
        return &bytes_avx2;
    case LEVEL_AVX_VNNI:
        return &bytes_avx_vnni;
    case LEVEL_AVX512_VNNI:
    case LEVEL_AVX512:
        return &bytes_512;
    case LEVEL_AMX:
        return &bytes_amx;
    default:
        return NULL;
    }
}

/* How a call is divided. */
typedef struct {
    int64_t inputs;      /* arranged at a time, a multiple of PAIR_OF_SETS */
    int64_t units, cuts; /* of a part of the columns, whole blocks; the number of parts */
    int64_t band;        /* rows of the matrix at a time, a multiple of PAIR_OF_SETS */
    int64_t item;        /* bytes of a number */
    int64_t arranged, thread; /* bytes of all inputs, and of a thread */
} Shares;

static int64_t thread_bytes(const Shares *s)
{
    const int64_t sums = s->cuts > 1 ? s->inputs : PAIR_OF_SETS;
    const int64_t blocks = (s->units + BLOCK_UNITS - 1) / BLOCK_UNITS;
    return rounded(s->band * (s->units * UNIT * s->item + (blocks + sums) * 4), 64);
}

static Shares shares_of(const Matrix *w, const ByteVersion *version, int64_t inputs, int threads)
{
    const int64_t units = w->columns / UNIT, blocks = blocks_of(w->columns);
    const int less = threads > FEW_THREADS, most_units = MOST_UNITS >> less;
    Shares s = {.item = version->words ? 2 : 1};
    s.cuts = (units + most_units - 1) / most_units;
    s.units = smaller(units, (blocks + s.cuts - 1) / s.cuts * BLOCK_UNITS);
    s.cuts = (units + s.units - 1) / s.units;
    /* 1. Inputs: equal shares. */
    const int64_t each = w->columns * s.item + blocks * 8;
    int64_t most = larger(MOST_BYTES / each / PAIR_OF_SETS, 1) * PAIR_OF_SETS;
    if (s.cuts > 1)
        most = smaller(most, CUT_INPUTS >> less);
    const int64_t parts = (inputs + most - 1) / most;
    s.inputs = rounded((inputs + parts - 1) / parts, PAIR_OF_SETS);
    s.arranged = rounded(s.inputs * each, 64);
    /* 2. Rows: as many as fit, and enough bands to keep all threads busy. */
    const int64_t fitting = version->row_bytes / (s.units * UNIT * s.item);
    const int64_t fair = threads > 1 ? w->rows / (4 * threads) : w->rows;
    s.band = smaller(MOST_BAND, smaller(fitting, rounded(fair, PAIR_OF_SETS)));
    s.band = larger(1, s.band / PAIR_OF_SETS) * PAIR_OF_SETS;
    while (s.band > PAIR_OF_SETS && threads * thread_bytes(&s) > THREAD_BYTES)
        s.band -= PAIR_OF_SETS;
    s.thread = thread_bytes(&s);
    return s;
}

/* Multiply a band of rows by all inputs. */
static void multiply_band(const Call *call, const Shares *s, const Inputs *x, int64_t row,
                          char *room)
{
    const Matrix *w = call->w;
    const int64_t end = smaller(row + s->band, w->rows), sets = rounded(end - row, 32) / SET;
    const int64_t pairs = (call->inputs + PAIR_OF_SETS - 1) / PAIR_OF_SETS;
    const int64_t size = sets * SET * PAIR_OF_SETS; /* sums of two sets of inputs */
    float *sums = (float *)(room + s->band * s->units * UNIT * s->item);
    Rows rows = {.bytes = room, .sets = sets};
    rows.steps = sums + (s->cuts > 1 ? s->inputs : PAIR_OF_SETS) * s->band;
    for (int64_t cut = 0; cut < s->cuts; cut++) {
        const int64_t unit = cut * s->units;
        rows.units = smaller(s->units, x->units - unit);
        rows.blocks = (rows.units + BLOCK_UNITS - 1) / BLOCK_UNITS;
        call->version->convert(w, row, end - row, unit, &rows);
        for (int64_t pair = 0; pair < pairs; pair++) {
            float *here = sums + (s->cuts > 1 ? pair * size : 0);
            if (cut == 0)
                memset(here, 0, (size_t)size * sizeof(float));
            call->version->multiply(&rows, x, 2 * pair, unit, here);
            if (cut == s->cuts - 1)
                write_sums(call, pair * PAIR_OF_SETS, row, end, here);
        }
    }
}
#endif

static char *allocate(int64_t bytes)
{
    return aligned_alloc(64, (size_t)rounded(bytes + 1, 64));
}

/* Return the bytes that byte_product allocates. */
int64_t byte_product_bytes(const Matrix *w, int level, int64_t inputs, int threads)
{
#if ON_X86
    const ByteVersion *version = version_of(level);
    if (version) {
        threads = (int)smaller(threads, MOST_THREADS);
        const Shares s = shares_of(w, version, inputs, threads);
        return s.arranged + threads * s.thread;
    }
#endif
    (void)level, (void)threads;
    return bytes_plain(w, inputs);
}

/* out[inputs, rows] = x[inputs, columns] times the transposed matrix, plus the bias. x and out are
 * bfloat16, or float32 if `wide`; bias: float32 or NULL. w->columns is a multiple of w->group, which
 * is a multiple of UNIT. level: see matrix.h; not above what the processor supports. Returns 0, or
 * 1 if no memory could be allocated. */
int byte_product(const Matrix *w, int level, int wide, const void *x, int64_t inputs,
                 const float *bias, void *out, int threads)
{
    Call call = {.w = w, .bias = bias, .wide = wide, .out = out, .inputs = inputs};
#if ON_X86
    const ByteVersion *version = call.version = version_of(level);
    if (version) {
        threads = (int)smaller(threads, MOST_THREADS);
        const Shares s = shares_of(w, version, inputs, threads);
        const int64_t size = wide ? sizeof(float) : sizeof(uint16_t);
        char *arranged = allocate(s.arranged), *rooms = allocate(threads * s.thread);
        if (!arranged || !rooms) {
            free(arranged);
            free(rooms);
            return 1;
        }
        Inputs all = {.bytes = arranged, .units = w->columns / UNIT,
                      .blocks = blocks_of(w->columns)};
        all.steps = (float *)(arranged + s.inputs * w->columns * s.item);
        all.flips = (int32_t *)(all.steps + s.inputs * all.blocks);
        for (int64_t first = 0; first < inputs; first += s.inputs) {
            call.inputs = smaller(s.inputs, inputs - first);
            call.out = (char *)out + first * w->rows * size;
            if (call.inputs % PAIR_OF_SETS)
                memset(arranged, 0, (size_t)s.arranged);
#pragma omp parallel num_threads(threads) if (threads > 1)
            {
#ifdef _OPENMP
                const int me = omp_get_thread_num();
#else
                const int me = 0;
#endif
                if (version->enter)
                    version->enter();
#pragma omp for schedule(static)
                for (int64_t i = 0; i < call.inputs; i++)
                    arrange((const char *)x + (first + i) * w->columns * size, wide,
                            version->words, i, &all);
#pragma omp for schedule(dynamic, 1)
                for (int64_t row = 0; row < w->rows; row += s.band)
                    multiply_band(&call, &s, &all, row, rooms + me * s.thread);
                if (version->leave)
                    version->leave();
            }
        }
        free(arranged);
        free(rooms);
        return 0;
    }
#endif
    (void)level, (void)threads;
    char *room = allocate(bytes_plain(w, inputs));
    if (!room)
        return 1;
    product_plain(&call, x, room);
    free(room);
    return 0;
}
