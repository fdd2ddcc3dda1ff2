/* Shared by the kernels that use AMX: whether the compiler has it, tiles, and transposing.
 *
 * AMX multiplies a tile of 16 x 32 bfloat16 numbers by one of 32 x 16 and adds the products to 16 x
 * 16 float32 sums. In the second factor two neighbours along the summed dimension must be adjacent
 * in memory: its tile has 16 rows, one for each pair, and 16 pairs in a row.
 */

#ifndef COGVLM2_LITE_AMX_H
#define COGVLM2_LITE_AMX_H

#include "matrix.h"

#if ON_X86 && defined(__linux__) && defined(__has_include)
#if __has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>)
#define HAS_AMX 1
#endif
#endif
#ifndef HAS_AMX
#define HAS_AMX 0
#endif

#define SIDE 16            /* rows of a tile */
#define STEP 32            /* bfloat16 numbers in a row of a tile */
#define TILE (SIDE * STEP) /* bfloat16 numbers of a tile: as many bytes as 256 float32 */
#define PAIR (2 * SIDE)    /* rows, and columns, that are multiplied at a time */

#if HAS_AMX
#define AMX                                                                                      \
    __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} Shape;

/* All eight tiles have 16 rows of 64 bytes. Static, because gcc assumes that the instruction reads
 * only eight bytes, and does not write the other bytes of a variable on the stack. */
static const Shape SHAPE = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE},
};

AMX __attribute__((unused)) static void begin_tiles(void)
{
    _tile_loadconfig(&SHAPE);
}

/* Without this the system saves 8 KiB more at every switch of this thread. */
AMX __attribute__((unused)) static void end_tiles(void)
{
    _tile_release();
}

/* gcc does not know which memory a tile is loaded from. */
#define IN_ORDER __asm__ volatile("" ::: "memory")
#endif /* HAS_AMX */

#endif
