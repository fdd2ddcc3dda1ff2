// Kernels over whole rows: a residual sum with the norm that follows it, and the index of the largest logit.

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

struct Largest {
  const u16* logits;  // [rows, columns]
  long long* out;     // [rows]: of equal logits the first
  int columns;
};

KERNEL(THREADS) largest(Largest p) {
  float* values = (float*)shared();
  int* indices = (int*)(shared() + 4 * THREADS);
  const u16* logits = p.logits + (long long)block_x() * p.columns;
  const int thread = thread_index();
  float best = -infinity();
  int where = thread < p.columns ? thread : 0;
  for (int i = thread; i < p.columns; i += THREADS) {
    const float x = to_float(logits[i]);
    if (x > best) best = x, where = i;
  }
  values[thread] = best, indices[thread] = where;
  for (int half = THREADS / 2; half; half /= 2) {
    barrier();
    if (thread < half) {
      const float x = values[thread + half];
      const int i = indices[thread + half];
      if (x > values[thread] || (x == values[thread] && i < indices[thread])) values[thread] = x, indices[thread] = i;
    }
  }
  if (thread == 0) p.out[block_x()] = indices[0];
}
