// Products of 1 to 8 rows with a stored matrix: out = x @ matrix.T, on tensor cores.
//
// A block computes 16 rows of the matrix; its warps share the columns. The stored codes are the left operand of the
// tensor cores, so each of the 8 columns of a tile is one row of x, and no row's result depends on the others. Four-bit
// codes become levels by a table in shared memory, two at a time. A group's sum is multiplied by its scale in float32,
// so that the rounding of the 16 levels is the only rounding of the weights.

#define WARPS 8
#define COPIES 8  // of the table, so that lanes seldom meet in one bank
#define MAP_PLACE (1024 * COPIES)  // of the scale maps in shared memory, behind the table
#define MAP_BYTES 1024
#define NESTED 0  // 4 bits, scales in double quantization
#define FLAT 1    // 4 bits, scales in float32
#define INT8 2
#define DENSE 3

struct Matrix {
  const u8* codes;         // [rows, columns] of 4, 8 or 16 bits; of two 4-bit codes the first is the high half
  const void* scales;      // [rows, columns / 64]: u8 if NESTED, else float; unused if DENSE
  const float* outer;      // [rows * columns / 64 / 256] if NESTED
};

struct Product {
  const u16* x;            // [inputs, columns]
  Matrix first;
  Matrix second;           // the result is silu(first) * second; unused in ordinary products
  const float* levels;     // [16] if 4 bits
  const float* scale_map;  // [256] of the first matrix, if NESTED
  const float* second_map;
  const u16* bias;         // [rows] or null
  u16* out;                // [inputs, rows]
  float offset;            // of the first matrix' scales, if NESTED
  float second_offset;
  int inputs, rows, columns;
};

// Shared memory: the table [256][COPIES], then the scale maps [256]; after the sums, partial sums [WARPS][16][8].
template <int KIND, bool GATED>
DEVICE void fill_tables(const Product& p) {
  const int thread = thread_index();
  if (KIND == NESTED || KIND == FLAT) {
    const u32 both = pack(p.levels[thread >> 4], p.levels[thread & 15]);
    for (int copy = 0; copy < COPIES; copy++) ((u32*)shared())[thread * COPIES + copy] = both;
  }
  if (KIND == NESTED) ((float*)(shared() + MAP_PLACE))[thread] = p.scale_map[thread];
  if (KIND == NESTED && GATED) ((float*)(shared() + MAP_PLACE + MAP_BYTES))[thread] = p.second_map[thread];
}

// Returns the two levels of byte `index` of a word. `copy` is the offset of this lane's copy of the table.
DEVICE u32 two_levels(u32 copy, u32 word, int index) {
  const int bits = 5;  // an entry and its copies take 32 bytes
  const u32 shifted = 8 * index > bits ? word >> (8 * index - bits) : word << (bits - 8 * index);
  return *(const u32*)(shared() + masked(shifted, 255u << bits, copy));
}

// 16 numbers of a group in this lane: pair 2 * j and 2 * j + 1 belong to product j of the group.
template <int KIND>
struct Lane {
  static const int BITS = KIND == DENSE ? 16 : KIND == INT8 ? 8 : 4;

  uint2 four;
  uint4 eight;
  uint4 wide[2];

  METHOD void load(const u8* from) {
    if (KIND == NESTED || KIND == FLAT) four = stream((const uint2*)from);
    if (KIND == INT8) eight = stream((const uint4*)from);
    if (KIND == DENSE) {
      wide[0] = stream((const uint4*)from);
      wide[1] = stream((const uint4*)from + 1);
    }
  }

  METHOD u32 pair(u32 copy, int index) const {
    if (KIND == NESTED || KIND == FLAT) return two_levels(copy, index < 4 ? four.x : four.y, index & 3);
    if (KIND == INT8) {
      const u32 word = index < 2 ? eight.x : index < 4 ? eight.y : index < 6 ? eight.z : eight.w;
      const u32 spread = permute(word, 0, index & 1 ? 0x4342 : 0x4140);
#if BF16  // 128 + the lower seven bits, minus 128, or 256 if the number is negative
      return difference(masked(spread, 0x007f007f, 0x43004300), masked(spread, 0x00800080, 0x43004300));
#else  // 1024 + (number + 128), minus 1152
      return difference((spread ^ 0x00800080) | 0x64006400, 0x64806480);
#endif
    }
    const uint4& half = wide[index >> 2];
    const int place = index & 3;
    return place == 0 ? half.x : place == 1 ? half.y : place == 2 ? half.z : half.w;
  }
};

// The scales of four groups of one row.
template <int KIND>
struct Scales {
  float of[4];

  METHOD void load(const Matrix& matrix, float offset, int map, int first) {  // number of the first group
    if (KIND == NESTED) {
      const u32 codes = *(const u32*)((const u8*)matrix.scales + first);
      const float outer = matrix.outer[first >> 8];
      for (int i = 0; i < 4; i++) {
        const u32 place = masked(i ? codes >> (8 * i - 2) : codes << 2, 1020, map);
        of[i] = fused(*(const float*)(shared() + place), outer, offset);
      }
    } else if (KIND != DENSE) {
      const float4 four = *(const float4*)((const float*)matrix.scales + first);
      of[0] = four.x, of[1] = four.y, of[2] = four.z, of[3] = four.w;
    }
  }
};

// Adds to sums what this warp's share of the columns gives; sums has the layout of multiply_tiles.
template <int KIND>
DEVICE void accumulate(const Product& p, const Matrix& matrix, float offset, int map, float (&sums)[4]) {
  const int lane = thread_index() & 31, warp = thread_index() >> 5;
  // Rows behind the last one repeat it; nobody writes their sums.
  const int row = smaller(block_x() * 16 + (lane >> 2), p.rows - 1), next = smaller(row + 8, p.rows - 1);
  const int begin = 16 * (lane & 3);
  const u32 copy = 4 * (lane % COPIES);
  // Columns of a tile without a row of x repeat the first row; nobody reads their sums.
  const u16* x = p.x + ((lane >> 2) < p.inputs ? (lane >> 2) * p.columns : 0) + 256 * warp + begin;
  const long long first = (long long)row * p.columns + 256 * warp;
  const u8* upper = matrix.codes + (first + begin) * Lane<KIND>::BITS / 8;
  const u8* lower = upper + (long long)(next - row) * p.columns * Lane<KIND>::BITS / 8;
  int group = (int)(first >> 6);
  const int down = (next - row) * (p.columns / 64);
  for (int column = 256 * warp; column < p.columns; column += 256 * WARPS) {
    Lane<KIND> a[4], b[4];
    Scales<KIND> above, below;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      a[i].load(upper + 8 * Lane<KIND>::BITS * i);
      b[i].load(lower + 8 * Lane<KIND>::BITS * i);
    }
    above.load(matrix, offset, map, group);
    below.load(matrix, offset, map, group + down);
    upper += 32 * WARPS * Lane<KIND>::BITS, lower += 32 * WARPS * Lane<KIND>::BITS, group += 4 * WARPS;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const uint4* inputs = (const uint4*)(x + 64 * i);
      const uint4 left = inputs[0], right = inputs[1];
      float total[4] = {0, 0, 0, 0};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const uint4& four = j < 2 ? left : right;
        multiply_tiles(total, a[i].pair(copy, 2 * j), b[i].pair(copy, 2 * j), a[i].pair(copy, 2 * j + 1),
                       b[i].pair(copy, 2 * j + 1), j & 1 ? four.z : four.x, j & 1 ? four.w : four.y);
      }
#pragma unroll
      for (int k = 0; k < 4; k++) {
        if (KIND == DENSE)
          sums[k] += total[k];
        else
          sums[k] = fused(total[k], k < 2 ? above.of[i] : below.of[i], sums[k]);
      }
    }
    x += 256 * WARPS;
  }
}

// Returns the block's result for one row of the matrix and one of x; each of the first 128 threads has one.
DEVICE float add_warps(const float (&sums)[4]) {
  float* partial = (float*)shared();
  const int thread = thread_index(), lane = thread & 31;
  float* mine = partial + (thread >> 5) * 128 + (lane >> 2) * 8 + 2 * (lane & 3);
  barrier();  // the tables are not needed any more
  mine[0] = sums[0], mine[1] = sums[1], mine[64] = sums[2], mine[65] = sums[3];
  barrier();
  float sum = 0;
  if (thread < 128)
    for (int warp = 0; warp < WARPS; warp++) sum += partial[128 * warp + thread];
  return sum;
}

DEVICE float rounded(float x) { return to_float(to_half(x)); }

template <int KIND, bool GATED>
DEVICE void compute(const Product& p) {
  fill_tables<KIND, GATED>(p);
  barrier();
  float sums[4] = {0, 0, 0, 0}, others[4] = {0, 0, 0, 0};
  accumulate<KIND>(p, p.first, p.offset, MAP_PLACE, sums);
  if (GATED) accumulate<KIND>(p, p.second, p.second_offset, MAP_PLACE + MAP_BYTES, others);
  float result = add_warps(sums);
  const float factor = GATED ? add_warps(others) : 0;
  const int input = thread_index() & 7, row = block_x() * 16 + (thread_index() >> 3);
  if (thread_index() >= 128 || input >= p.inputs || row >= p.rows) return;
  const long long place = (long long)input * p.rows + row;
  if (p.bias) result += to_float(p.bias[row]);
  if (GATED) {  // rounded where torch rounds
    const float gate = rounded(result);
    result = rounded(gate / (1.0f + exponential(-gate))) * rounded(factor);
  }
  p.out[place] = to_half(result);
}

KERNEL(32 * WARPS) product_nested(Product p) { compute<NESTED, false>(p); }
KERNEL(32 * WARPS) product_flat(Product p) { compute<FLAT, false>(p); }
KERNEL(32 * WARPS) product_int8(Product p) { compute<INT8, false>(p); }
KERNEL(32 * WARPS) product_dense(Product p) { compute<DENSE, false>(p); }
KERNEL(32 * WARPS) gated_nested(Product p) { compute<NESTED, true>(p); }
KERNEL(32 * WARPS) gated_flat(Product p) { compute<FLAT, true>(p); }
KERNEL(32 * WARPS) gated_int8(Product p) { compute<INT8, true>(p); }
