/* Prints what one thread of this processor reaches, as lines "instruction place rate": multiply-adds
 * per nanosecond, and for "read" and "prefetched" bytes per nanosecond. CPU time. Every product has
 * one operand that is loaded from the place: the L1 cache, the L2 cache or memory; "registers": none
 * is loaded. Instructions that the processor or the compiler lacks are left out.
 *
 * Compiled by benchmarks/machine_limits.py: cc -O2. Argument: "registers" leaves the others out.
 */

#define _GNU_SOURCE
#include <cpuid.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MEMORY ((size_t)1 << 30) /* more than most L3 caches hold */
#define TILE 1024
#define LEAST 1.5e-2 /* seconds of a measurement */

#if __has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>)
#define HAS_AMX 1
#endif

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* 12 independent sums, so that latency does not matter. Register 14 has the other operand. */
#define SIX(one, a, b, c, d, e, f) one(a) one(b) one(c) one(d) one(e) one(f)
#define TWELVE(one) SIX(one, 0, 1, 2, 3, 4, 5) SIX(one, 6, 7, 8, 9, 10, 11)
#define SUMS 12
#define CLOBBERS                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",      \
        "xmm11", "xmm13", "xmm14", "memory"

/* Run steps of 12 products. data to end is read again and again; steps: how many. */
#define KERNEL(name, width, vector, one, loaded)                                                  \
    static void name(const char *data, const char *end, long steps, int load)                     \
    {                                                                                             \
        const char *p = data;                                                                     \
        __asm__ volatile("vmovups (%0), %%" vector "14\n\t" TWELVE(CLEAR) ::"r"(p) : CLOBBERS);   \
        for (long i = 0; i < steps; i++) {                                                        \
            if (load)                                                                             \
                __asm__ volatile(TWELVE(loaded) ::"r"(p) : CLOBBERS);                             \
            else                                                                                  \
                __asm__ volatile(TWELVE(one) ::: CLOBBERS);                                       \
            p += SUMS * (width);                                                                  \
            p = p + SUMS * (width) > end ? data : p;                                              \
        }                                                                                         \
        __asm__ volatile("vzeroupper" ::: CLOBBERS);                                              \
    }

#define CLEAR(i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"
#define FMA(i) "vfmadd231ps %%ymm14, %%ymm14, %%ymm" #i "\n\t"
#define FMA_LOADED(i) "vfmadd231ps 32*" #i "(%0), %%ymm14, %%ymm" #i "\n\t"
#define ADD "vpaddd %%ymm13, %%ymm"
#define MADD(i) "vpmaddwd %%ymm14, %%ymm14, %%ymm13\n\t" ADD #i ", %%ymm" #i "\n\t"
#define MADD_LOADED(i) "vpmaddwd 32*" #i "(%0), %%ymm14, %%ymm13\n\t" ADD #i ", %%ymm" #i "\n\t"
#define VEX(i) "%{vex%} vpdpwssd %%ymm14, %%ymm14, %%ymm" #i "\n\t"
#define VEX_LOADED(i) "%{vex%} vpdpwssd 32*" #i "(%0), %%ymm14, %%ymm" #i "\n\t"
#define VNNI(i) "vpdpwssd %%zmm14, %%zmm14, %%zmm" #i "\n\t"
#define VNNI_LOADED(i) "vpdpwssd 64*" #i "(%0), %%zmm14, %%zmm" #i "\n\t"
#define BF16(i) "vdpbf16ps %%zmm14, %%zmm14, %%zmm" #i "\n\t"
#define BF16_LOADED(i) "vdpbf16ps 64*" #i "(%0), %%zmm14, %%zmm" #i "\n\t"
#define OR(i) "vpor %%ymm14, %%ymm" #i ", %%ymm" #i "\n\t"
#define OR_LOADED(i) "vpor 32*" #i "(%0), %%ymm" #i ", %%ymm" #i "\n\t"
#define OR_AHEAD(i) OR_LOADED(i) "prefetcht1 16384+32*" #i "(%0)\n\t"

KERNEL(run_read, 32, "ymm", OR, OR_LOADED)
KERNEL(run_prefetched, 32, "ymm", OR, OR_AHEAD)
KERNEL(run_fma, 32, "ymm", FMA, FMA_LOADED)
KERNEL(run_avx2, 32, "ymm", MADD, MADD_LOADED)
#if __has_include(<avxvnniintrin.h>)
KERNEL(run_avx_vnni, 32, "ymm", VEX, VEX_LOADED)
#else
#define run_avx_vnni NULL
#endif
#if __has_include(<avx512vnniintrin.h>)
KERNEL(run_avx512_vnni, 64, "zmm", VNNI, VNNI_LOADED)
#else
#define run_avx512_vnni NULL
#endif
#if __has_include(<avx512bf16intrin.h>)
KERNEL(run_avx512_bf16, 64, "zmm", BF16, BF16_LOADED)
#else
#define run_avx512_bf16 NULL
#endif

#if HAS_AMX
/* Four sums from two tiles of each factor: four tiles are loaded for four products. */
#define LOAD(place, tile) "tileloadd " #place "*1024(%0,%1,1), %%tmm" #tile "\n\t"
#define LOADS LOAD(0, 4) LOAD(1, 6) LOAD(2, 5) LOAD(3, 7)
#define PRODUCTS(one)                                                                             \
    one " %%tmm6, %%tmm4, %%tmm0\n\t" one " %%tmm7, %%tmm4, %%tmm1\n\t" one                       \
        " %%tmm6, %%tmm5, %%tmm2\n\t" one " %%tmm7, %%tmm5, %%tmm3\n\t"
#define TILES(name, one)                                                                          \
    static void name(const char *data, const char *end, long steps, int load)                     \
    {                                                                                             \
        const struct {                                                                            \
            uint8_t palette, start, reserved[14];                                                 \
            uint16_t row_bytes[16];                                                               \
            uint8_t rows[16];                                                                     \
        } shape = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}}; \
        const char *p = data;                                                                     \
        __asm__ volatile("ldtilecfg %0\n\t" ::"m"(shape));                                        \
        __asm__ volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\t"              \
                         "tilezero %%tmm3\n\t" LOADS ::"r"(p), "r"(64L) : "memory");              \
        for (long i = 0; i < steps; i++) {                                                        \
            if (load)                                                                             \
                __asm__ volatile(LOADS PRODUCTS(one) ::"r"(p), "r"(64L) : "memory");              \
            else                                                                                  \
                __asm__ volatile(PRODUCTS(one) ::: "memory");                                     \
            p += 4 * TILE;                                                                        \
            p = p + 4 * TILE > end ? data : p;                                                    \
        }                                                                                         \
        __asm__ volatile("tilerelease");                                                          \
    }
TILES(run_amx_bf16, "tdpbf16ps")
TILES(run_amx_int8, "tdpbssd")
#else
#define run_amx_bf16 NULL
#define run_amx_int8 NULL
#endif

typedef void Run(const char *data, const char *end, long steps, int load);

/* rate: multiply-adds, or bytes, of a step. step_bytes: what it loads. */
typedef struct {
    const char *name;
    Run *run;
    int works;
    double rate;
    size_t step_bytes;
} Instruction;

/* Return the rate per nanosecond. Earlier runs double the steps until they take long enough; then
 * the clock has risen, too. */
static double measure(const Instruction *one, const char *data, size_t bytes, int load)
{
    long steps = (long)(bytes / one->step_bytes);
    double took = 0;
    for (int enough = 0; enough < 2; enough += took >= LEAST) {
        steps *= took > 0 && !enough ? 2 : 1;
        const double begin = seconds();
        one->run(data, data + bytes, steps, load);
        took = seconds() - begin;
        if (bytes == MEMORY)
            break;
    }
    return one->rate * (double)steps / took / 1e9;
}

static size_t half_of_cache(int name, size_t otherwise)
{
    const long bytes = sysconf(name);
    return (bytes > 0 ? (size_t)bytes : otherwise) / 2;
}

/* A process must ask Linux for permission to use tiles. */
static int tiles_permitted(void)
{
    const long ask = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
}

int main(int count, char **arguments)
{
    unsigned a, b, c, d, a1 = 0, b1, c1, d1;
    const int only_registers = count > 1 && !strcmp(arguments[1], "registers");
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 1;
    if (a >= 1)
        __cpuid_count(7, 1, a1, b1, c1, d1);
    const int avx512 = __builtin_cpu_supports("avx512f");
    const int amx = avx512 && (d >> 24 & 1) && tiles_permitted();
    const Instruction all[] = {
        {"amx-bf16", run_amx_bf16, amx && (d >> 22 & 1), 4 * 16 * 16 * 32, 4 * TILE},
        {"amx-int8", run_amx_int8, amx && (d >> 25 & 1), 4 * 16 * 16 * 64, 4 * TILE},
        {"avx512-vnni", run_avx512_vnni, avx512 && (c >> 11 & 1), SUMS * 32, SUMS * 64},
        {"avx512-bf16", run_avx512_bf16, avx512 && (a1 >> 5 & 1), SUMS * 32, SUMS * 64},
        {"avx-vnni", run_avx_vnni, a1 >> 4 & 1, SUMS * 16, SUMS * 32},
        {"avx2", run_avx2, 1, SUMS * 16, SUMS * 32},
        {"float32", run_fma, 1, SUMS * 8, SUMS * 32},
        {"read", run_read, 1, SUMS * 32, SUMS * 32},
        {"prefetched", run_prefetched, 1, SUMS * 32, SUMS * 32},
    };
    const struct {
        const char *name;
        size_t bytes;
    } places[] = {
        {"registers", 1 << 14},
        {"L1", half_of_cache(_SC_LEVEL1_DCACHE_SIZE, 1 << 15)},
        {"L2", half_of_cache(_SC_LEVEL2_CACHE_SIZE, 1 << 19)},
        {"memory", MEMORY},
    };
    const size_t size = only_registers ? places[0].bytes : MEMORY;
    uint16_t *data = aligned_alloc(4096, size);
    if (!data)
        return 1;
    /* Normal numbers as bfloat16 and as float32. Zeros could be faster. */
    uint32_t random = 1;
    for (size_t i = 0; i < size / 2; i++) {
        random = random * 1664525 + 1013904223;
        data[i] = (uint16_t)(0x3f80 + (random >> 25) % 127);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const size_t count_of_places = all[i].works && all[i].run ? (only_registers ? 1 : 4) : 0;
        for (size_t place = 0; place < count_of_places; place++) {
            if (all[i].rate == all[i].step_bytes && place == 0) /* nothing is read */
                continue;
            printf("%s %s %.3f\n", all[i].name, places[place].name,
                   measure(&all[i], (const char *)data, places[place].bytes, place > 0));
        }
    }
    free(data);
    return 0;
}
