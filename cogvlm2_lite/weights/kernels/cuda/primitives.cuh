// What the kernels of this folder need of a GPU. tests/emulated_cuda/own_kernels/emulation.h has the same names for the CPU.
//
// Compiled by NVRTC, which has no headers: numbers of 16 bits are u16 here, and their arithmetic is PTX.
// BF16 is 1 for bfloat16 and 0 for float16.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__)
#define DEVICE __device__ __forceinline__
#define METHOD DEVICE

extern __shared__ __align__(16) char shared_memory[];

DEVICE int thread_index() { return threadIdx.x; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE char* shared() { return shared_memory; }

// Waits for all threads of the block.
DEVICE void barrier() { __syncthreads(); }

// Returns the value of the lane whose number differs in the bits of `mask`.
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }
DEVICE int shuffle_xor(int value, int mask) { return __shfl_xor_sync(~0u, value, mask); }

// Weights are read once per token: they need no place in the caches.
DEVICE uint2 stream(const uint2* from) { return __ldcs(from); }
DEVICE uint4 stream(const uint4* from) { return __ldcs(from); }

DEVICE u32 permute(u32 a, u32 b, u32 selector) { return __byte_perm(a, b, selector); }
// Returns x & mask | more in one instruction, which the compiler does not always find.
DEVICE u32 masked(u32 x, u32 mask, u32 more) {
  u32 result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(x), "r"(mask), "r"(more));
  return result;
}

DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// Products and sums that the compiler may not combine.
DEVICE float times(float a, float b) { return __fmul_rn(a, b); }
DEVICE float plus(float a, float b) { return __fadd_rn(a, b); }
DEVICE float nearest(float x) { return rintf(x); }
DEVICE float quotient(float a, float b) { return __fdiv_rn(a, b); }
DEVICE int smaller(int a, int b) { return min(a, b); }
DEVICE float larger(float a, float b) { return fmaxf(a, b); }
DEVICE float magnitude(float x) { return fabsf(x); }
DEVICE float infinity() { return __uint_as_float(0x7f800000); }
DEVICE float inverse_root(float x) { return rsqrtf(x); }
DEVICE float exponential(float x) { return expf(x); }

DEVICE u32 pack(float low, float high) {
  u32 both;
#if BF16
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
  u16 a, b;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(a) : "f"(low));
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(b) : "f"(high));
  both = a | (u32)b << 16;
#endif
  return both;
}

DEVICE u16 to_half(float x) { return (u16)pack(x, 0.0f); }

DEVICE float to_float(u16 x) {
#if BF16
  return __uint_as_float((u32)x << 16);
#else
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x));
  return wide;
#endif
}

// Returns a - b of each half.
DEVICE u32 difference(u32 a, u32 b) {
  u32 result;
#if BF16
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(b), "r"(0xbf80bf80u), "r"(a));
#else
  asm("sub.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
#endif
  return result;
}

// Adds a [16, 16] times b [16, 8] to sums [16, 8]; the layout is that of PTX's mma.m16n8k16.
DEVICE void multiply_tiles(float (&sums)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if BF16
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#elif __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else  // Turing multiplies [16, 8] tiles: half of the columns at a time
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a2), "r"(a3), "r"(b1));
#endif
}
