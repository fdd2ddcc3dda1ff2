// The names of primitives.cuh for the CPU: a block's threads are fibers that take turns in a random order.
//
// A fiber runs until it waits for its block or its warp. Shared memory holds NaNs when a block begins, so what was
// never written shows. Matrix tiles are in the registers that PTX's tables of mma.m16n8k16 name.
// Thread, block and memory orders that a GPU may choose are chosen at random; the time it takes says nothing.

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };

#define KERNEL(...) static void
#define DEVICE static inline
#define METHOD inline

namespace emulated {

const int SHARED_BYTES = 48 * 1024, STACK_BYTES = 64 * 1024;

enum Wait { NOTHING, BLOCK, WARP, ENDED };

struct Fiber {
  ucontext_t context;  // where it begins
  jmp_buf place;       // where it waits: a jump is much faster than setcontext, which calls the system
  bool begun;
  Wait wait;
  const char* operation;
};

struct Turn {  // what a warp's lanes bring to an operation that they do together
  const void* given[32];
  void* taken[32];
};

static std::vector<Fiber> fibers;
static std::vector<Turn> turns;
static jmp_buf scheduler;
static int current, block[2];
alignas(16) static char memory[SHARED_BYTES];
static std::mt19937 random;
static const char* fault = nullptr;

static void wait(Wait kind, const char* operation) {
  Fiber& fiber = fibers[current];
  fiber.wait = kind;
  fiber.operation = operation;
  if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}

// Returns when the fiber waits or ends.
__attribute__((noinline)) static void resume(int index) {
  current = index;
  if (_setjmp(scheduler)) return;
  Fiber& fiber = fibers[index];
  if (fiber.begun) _longjmp(fiber.place, 1);
  fiber.begun = true;
  setcontext(&fiber.context);
}

// Runs `together` once, when all lanes of the warp have come to the same operation.
template <class Together>
static void with_warp(const char* operation, const void* given, void* taken, Together together) {
  const int first = current / 32 * 32;
  Turn& turn = turns[current / 32];
  turn.given[current % 32] = given;
  turn.taken[current % 32] = taken;
  int here = 1;
  for (int i = first; i < first + 32; i++) {
    if (i == current) continue;
    if (fibers[i].wait == WARP && std::strcmp(fibers[i].operation, operation)) fault = "lanes of a warp wait for different operations";
    here += fibers[i].wait == WARP;
  }
  if (here < 32) return wait(WARP, operation);
  together(turn);
  for (int i = first; i < first + 32; i++) fibers[i].wait = NOTHING;
}

template <class Arguments>
struct Launch {
  static void (*kernel)(Arguments);
  static const Arguments* arguments;
  static void enter() {
    kernel(*arguments);
    fibers[current].wait = ENDED;
    _longjmp(scheduler, 1);
  }
};
template <class Arguments> void (*Launch<Arguments>::kernel)(Arguments);
template <class Arguments> const Arguments* Launch<Arguments>::arguments;

// Returns nullptr, or what is wrong with the kernel.
template <class Arguments>
static const char* run(void (*kernel)(Arguments), const void* arguments, int blocks_x, int blocks_y, int threads, int shared_bytes, int seed) {
  Launch<Arguments>::kernel = kernel;
  Launch<Arguments>::arguments = static_cast<const Arguments*>(arguments);
  random.seed(seed);
  fault = nullptr;
  std::vector<int> order(blocks_x * blocks_y);
  for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int>(i);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<char> stacks(static_cast<size_t>(threads) * STACK_BYTES);
  fibers.assign(threads, Fiber());
  turns.assign((threads + 31) / 32, Turn());
  std::vector<int> ready;
  for (int which : order) {
    block[0] = which % blocks_x, block[1] = which / blocks_x;
    std::memset(memory, 0xff, SHARED_BYTES);
    for (int i = 0; i < threads; i++) {
      getcontext(&fibers[i].context);
      fibers[i].context.uc_stack.ss_sp = &stacks[static_cast<size_t>(i) * STACK_BYTES];
      fibers[i].context.uc_stack.ss_size = STACK_BYTES;
      fibers[i].context.uc_link = nullptr;
      fibers[i].wait = NOTHING, fibers[i].begun = false;
      makecontext(&fibers[i].context, Launch<Arguments>::enter, 0);
    }
    for (;;) {
      ready.clear();
      int ended = 0, at_barrier = 0;
      for (int i = 0; i < threads; i++) {
        if (fibers[i].wait == NOTHING) ready.push_back(i);
        ended += fibers[i].wait == ENDED;
        at_barrier += fibers[i].wait == BLOCK;
      }
      if (fault) return fault;
      if (ended == threads) break;
      if (ready.empty()) {
        if (ended + at_barrier < threads) return "threads wait for each other for ever";
        if (ended) return "threads ended while others wait for the block";
        for (auto& fiber : fibers) fiber.wait = NOTHING;
        continue;
      }
      // Everyone who can go on does so once, in a random order.
      std::shuffle(ready.begin(), ready.end(), random);
      for (int i : ready) {
        if (fibers[i].wait != NOTHING) continue;
        resume(i);
      }
    }
    for (int i = shared_bytes; i < SHARED_BYTES; i++)
      if (memory[i] != static_cast<char>(0xff)) return "a thread wrote behind the block's shared memory";
  }
  return nullptr;
}

}  // namespace emulated

DEVICE int thread_index() { return emulated::current; }
DEVICE int block_x() { return emulated::block[0]; }
DEVICE int block_y() { return emulated::block[1]; }
DEVICE char* shared() { return emulated::memory; }
DEVICE void barrier() { emulated::wait(emulated::BLOCK, "barrier"); }

template <class T>
DEVICE T shuffle_xor(T value, int mask) {
  T result = T();
  emulated::with_warp("shuffle", &value, &result, [mask](emulated::Turn& turn) {
    for (int lane = 0; lane < 32; lane++)
      *static_cast<T*>(turn.taken[lane]) = *static_cast<const T*>(turn.given[lane ^ mask]);
  });
  return result;
}

DEVICE uint2 stream(const uint2* from) { return *from; }
DEVICE uint4 stream(const uint4* from) { return *from; }
DEVICE u32 masked(u32 x, u32 mask, u32 more) { return (x & mask) | more; }
DEVICE float fused(float a, float b, float c) { return std::fma(a, b, c); }
DEVICE float times(float a, float b) { return a * b; }
DEVICE float plus(float a, float b) { return a + b; }
DEVICE float quotient(float a, float b) { return a / b; }
DEVICE float nearest(float x) { return std::nearbyint(x); }
DEVICE int smaller(int a, int b) { return a < b ? a : b; }
DEVICE float larger(float a, float b) { return std::fmax(a, b); }
DEVICE float magnitude(float x) { return std::fabs(x); }
DEVICE float infinity() { return INFINITY; }
DEVICE float inverse_root(float x) { return 1.0f / std::sqrt(x); }
DEVICE float exponential(float x) { return std::exp(x); }

DEVICE u32 permute(u32 a, u32 b, u32 selector) {
  const u64 bytes = static_cast<u64>(b) << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; i++) result |= static_cast<u32>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return result;
}

DEVICE float to_float(u16 x) {
#if BF16
  const u32 bits = static_cast<u32>(x) << 16;
  float wide;
  std::memcpy(&wide, &bits, 4);
  return wide;
#else
  _Float16 half;
  std::memcpy(&half, &x, 2);
  return static_cast<float>(half);
#endif
}

DEVICE u16 to_half(float x) {
#if BF16
  u32 bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return 0x7fff;
  return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#else
  const _Float16 half = static_cast<_Float16>(x);
  u16 bits;
  std::memcpy(&bits, &half, 2);
  return bits;
#endif
}

DEVICE u32 pack(float low, float high) { return to_half(low) | static_cast<u32>(to_half(high)) << 16; }

DEVICE u32 difference(u32 a, u32 b) {
  return pack(to_float(a & 0xffff) - to_float(b & 0xffff), to_float(a >> 16) - to_float(b >> 16));
}

DEVICE void multiply_tiles(float (&sums)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  struct Given { u32 a[4], b[2]; } given = {{a0, a1, a2, a3}, {b0, b1}};
  emulated::with_warp("mma", &given, sums, [](emulated::Turn& turn) {
    static float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
      const Given& g = *static_cast<const Given*>(turn.given[lane]);
      const int group = lane >> 2, pair = 2 * (lane & 3);
      for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 4; i++) a[group + 8 * (i & 1)][pair + half + 8 * (i >> 1)] = to_float(g.a[i] >> 16 * half & 0xffff);
        for (int i = 0; i < 2; i++) b[pair + half + 8 * i][group] = to_float(g.b[i] >> 16 * half & 0xffff);
      }
    }
    for (int lane = 0; lane < 32; lane++) {
      float* c = static_cast<float*>(turn.taken[lane]);
      for (int i = 0; i < 4; i++) {
        double sum = c[i];
        for (int k = 0; k < 16; k++) sum += static_cast<double>(a[(lane >> 2) + 8 * (i >> 1)][k]) * b[k][2 * (lane & 3) + (i & 1)];
        c[i] = static_cast<float>(sum);
      }
    }
  });
}

#define EMULATED_KERNEL(name, Arguments)                                                                              \
  extern "C" const char* run_##name(const void* arguments, int blocks_x, int blocks_y, int threads, int shared_bytes, int seed) { \
    return emulated::run<Arguments>(name, arguments, blocks_x, blocks_y, threads, shared_bytes, seed);                 \
  }
