/* Prints multiply-adds per nanosecond of one thread, from registers, as lines "name number". Compiled
 * by benchmarks/avx2.py: cc -O2. */

#include <immintrin.h>
#include <stdio.h>
#include <time.h>

#define TIMES 4000000
#define AVX2 __attribute__((target("avx2,fma"), noinline))

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

/* 12 independent sums, so that latency does not matter. */
#define TWELVE(one) one(1) one(2) one(3) one(4) one(5) one(6) one(7) one(8) one(9) one(10) one(11) one(12)
#define REGISTERS \
    "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12"

#define KERNEL(name, one)                                                                         \
    AVX2 static double name(int numbers)                                                          \
    {                                                                                             \
        __asm__ volatile(TWELVE(CLEAR) "vpxor %%xmm14, %%xmm14, %%xmm14" ::: REGISTERS, "xmm14"); \
        const double begin = seconds();                                                           \
        for (int i = 0; i < TIMES; i++)                                                           \
            __asm__ volatile(TWELVE(one) "" ::: REGISTERS, "xmm13");                              \
        return 12.0 * numbers * TIMES / (seconds() - begin) / 1e9;                                \
    }

#define CLEAR(i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"
#define FMA(i) "vfmadd231ps %%ymm14, %%ymm14, %%ymm" #i "\n\t"
#define MADD(i) "vpmaddwd %%ymm14, %%ymm14, %%ymm13\n\tvpaddd %%ymm13, %%ymm" #i ", %%ymm" #i "\n\t"
#define VNNI(i) "%{vex%} vpdpwssd %%ymm14, %%ymm14, %%ymm" #i "\n\t"

KERNEL(float_sums, FMA)
KERNEL(integer_sums, MADD)
#ifdef AVX_VNNI
KERNEL(vnni_sums, VNNI)
#endif

int main(void)
{
    float_sums(8); /* the clock rises */
    printf("float32 %.2f\n", float_sums(8));
    printf("avx2 %.2f\n", integer_sums(16));
#ifdef AVX_VNNI
    printf("avx-vnni %.2f\n", vnni_sums(16));
#endif
    return 0;
}
