// A kernel over whole rows: a residual sum with the norm that follows it.

#define THREADS 256

struct AddNorm {
  const u16* x;       // [rows, columns]
  const u16* added;   // [rows, columns], or null
  const u16* weight;  // [columns]
  u16* sum;           // [rows, columns]: x + added; unused without `added`
  u16* out;           // [rows, columns]: the RMS norm of the sum, times weight
  int columns;
  float epsilon;
};

// Returns the sum over the block, the same in every thread. Shared memory: a number for each warp.
DEVICE float sum_of_block(float x) {
  float* warps = (float*)shared();
  for (int mask = 16; mask; mask /= 2) x += shuffle_xor(x, mask);
  if ((thread_index() & 31) == 0) warps[thread_index() >> 5] = x;
  barrier();
  float sum = 0;
  for (int warp = 0; warp < THREADS / 32; warp++) sum += warps[warp];
  return sum;
}

KERNEL(THREADS) add_norm(AddNorm p) {
  const long long row = (long long)block_x() * p.columns;
  float squares = 0;
  for (int i = thread_index(); i < p.columns; i += THREADS) {
    float x = to_float(p.x[row + i]);
    if (p.added) {
      const u16 both = to_half(x + to_float(p.added[row + i]));
      p.sum[row + i] = both;
      x = to_float(both);
    }
    squares = fused(x, x, squares);
  }
  const float factor = inverse_root(sum_of_block(squares) / p.columns + p.epsilon);
  const u16* from = p.added ? p.sum : p.x;  // each thread reads what it wrote itself
  for (int i = thread_index(); i < p.columns; i += THREADS)
    p.out[row + i] = to_half(times(to_float(p.weight[i]), times(to_float(from[row + i]), factor)));
}
