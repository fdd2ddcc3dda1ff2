// Attention of one new token: rotation, writing of its key and value, and attention over all keys.
//
// A block has one key/value head, the query heads that share it, and one of SPLITS ranges of keys; `merge` adds the
// ranges up. The ranges depend only on the number of keys, so no buffer's size changes a result.

#define HEAD 128
#define GROUP 4    // query heads per key/value head
#define SPLITS 16
#define TILE 256   // keys whose weights are in shared memory at a time
#define THREADS 256

struct Attention {
  const u16* qkv;        // [(kv_heads * GROUP + 2 * kv_heads) * HEAD]: queries, keys, values
  const void* cosines;   // [HEAD]: u16, or float if exact
  const void* sines;     // [HEAD]: the lower half is negative
  void* keys;            // [kv_heads, capacity, HEAD]: u16, or signed codes of 8 bits with scales
  void* values;
  float* key_scales;     // [kv_heads, capacity], or null
  float* value_scales;
  const long long* slot;  // index of the new token; those before it are in the buffers
  float* partial;        // [kv_heads, SPLITS, GROUP, HEAD + 2]: sums, then the maximum and the sum of the weights
  u16* out;              // [kv_heads * GROUP * HEAD]
  int kv_heads, capacity, exact;
};

struct Block {
  float queries[GROUP][HEAD];
  float key[HEAD];
  float value[HEAD];
  float weights[GROUP][TILE];
  float factor[GROUP], highest[GROUP], sum[GROUP];
  float halves[GROUP][HEAD];
};
static_assert(sizeof(Block) <= 10 * 1024, "sources.py has the shared memory of `attend`");

DEVICE float rounded(float x) { return to_float(to_half(x)); }

// Returns element `index` of a rotated head; rounded like torch's products and sums in the type of the table.
DEVICE float rotate(const Attention& p, const u16* head, int index) {
  const float x = to_float(head[index]), other = to_float(head[index ^ HEAD / 2]);
  if (p.exact)
    return rounded(plus(times(other, ((const float*)p.sines)[index]), times(x, ((const float*)p.cosines)[index])));
  const float c = to_float(((const u16*)p.cosines)[index]), s = to_float(((const u16*)p.sines)[index]);
  return rounded(plus(rounded(times(other, s)), rounded(times(x, c))));
}

// Writes one token's key or value, with one scale if the buffer has codes. Called by one warp.
DEVICE void store(const float* from, void* buffer, float* scales, long long token) {
  const int lane = thread_index() & 31;
  if (!scales) {
    for (int i = lane; i < HEAD; i += 32) ((u16*)buffer)[token * HEAD + i] = to_half(from[i]);
    return;
  }
  float highest = 0;
  for (int i = lane; i < HEAD; i += 32) highest = larger(highest, magnitude(from[i]));
  for (int mask = 16; mask; mask /= 2) highest = larger(highest, shuffle_xor(highest, mask));
  const float scale = larger(quotient(highest, 127.0f), 1e-12f);
  for (int i = lane; i < HEAD; i += 32)
    ((signed char*)buffer)[token * HEAD + i] = (signed char)nearest(quotient(from[i], scale));
  if (lane == 0) scales[token] = scale;
}

DEVICE float read(const void* buffer, bool has_scales, long long place) {
  return has_scales ? (float)((const signed char*)buffer)[place] : to_float(((const u16*)buffer)[place]);
}

// Reads four numbers at once; `place` is a multiple of four.
DEVICE void read_four(const void* buffer, bool has_scales, long long place, float (&numbers)[4]) {
  if (has_scales) {
    const u32 four = *(const u32*)((const char*)buffer + place);
    for (int i = 0; i < 4; i++) numbers[i] = (float)(signed char)(four >> 8 * i);
  } else {
    const uint2 four = *(const uint2*)((const u16*)buffer + place);
    for (int i = 0; i < 4; i++) numbers[i] = to_float((u16)((i < 2 ? four.x : four.y) >> 16 * (i & 1)));
  }
}

KERNEL(THREADS, 4) attend(Attention p) {
  Block& block = *(Block*)shared();
  const int thread = thread_index(), lane = thread & 31, warp = thread >> 5;
  const int head = block_x(), split = block_y();
  const long long slot = *p.slot, first = (long long)head * p.capacity;
  const int visible = (int)slot + 1, range = (visible + SPLITS - 1) / SPLITS;
  const int begin = split * range, end = begin + range < visible ? begin + range : visible;
  const bool has_scales = p.key_scales != 0;
  // 1. The rotated queries, and the new key and value, which one of the blocks writes.
  for (int i = thread; i < GROUP * HEAD; i += THREADS)
    block.queries[i / HEAD][i % HEAD] =
        rotate(p, p.qkv + (long long)(head * GROUP + i / HEAD) * HEAD, i % HEAD) * 0.08838834764831845f;
  if (begin <= slot && slot < end) {
    const u16* key = p.qkv + (long long)(p.kv_heads * GROUP + head) * HEAD;
    if (thread < HEAD) {
      block.key[thread] = rotate(p, key, thread);
      block.value[thread] = to_float(key[(long long)p.kv_heads * HEAD + thread]);
    }
    barrier();
    if (warp == 0) store(block.key, p.keys, p.key_scales, first + slot);
    if (warp == 1) store(block.value, p.values, p.value_scales, first + slot);
  }
  if (thread < GROUP) block.highest[thread] = -infinity(), block.sum[thread] = 0;
  barrier();
  float sums[GROUP] = {0, 0, 0, 0};
  for (int tile = begin; tile < end; tile += TILE) {
    const int keys = end - tile < TILE ? end - tile : TILE;
    // 2. Scores: a warp has a key at a time, a lane four numbers of it.
#pragma unroll 1
    for (int key = warp; key < keys; key += THREADS / 32) {
      const long long token = first + tile + key;
      float scores[GROUP] = {0, 0, 0, 0};
      float numbers[4];
      read_four(p.keys, has_scales, token * HEAD + 4 * lane, numbers);
      for (int i = 0; i < 4; i++)
        for (int q = 0; q < GROUP; q++) scores[q] = fused(block.queries[q][4 * lane + i], numbers[i], scores[q]);
      for (int q = 0; q < GROUP; q++) {
        for (int mask = 16; mask; mask /= 2) scores[q] += shuffle_xor(scores[q], mask);
        if (lane == 0) block.weights[q][key] = has_scales ? scores[q] * p.key_scales[token] : scores[q];
      }
    }
    barrier();
    // 3. Their softmax so far; a warp has a query head. What was added up before is scaled to the new maximum.
    if (warp < GROUP) {
      float highest = block.highest[warp], sum = 0;
      for (int key = lane; key < keys; key += 32) highest = larger(highest, block.weights[warp][key]);
      for (int mask = 16; mask; mask /= 2) highest = larger(highest, shuffle_xor(highest, mask));
      for (int key = lane; key < keys; key += 32) {
        const float weight = exponential(block.weights[warp][key] - highest);
        sum += weight;
        block.weights[warp][key] = has_scales ? weight * p.value_scales[first + tile + key] : weight;
      }
      for (int mask = 16; mask; mask /= 2) sum += shuffle_xor(sum, mask);
      if (lane == 0) {
        const float factor = exponential(block.highest[warp] - highest);
        block.factor[warp] = factor;
        block.sum[warp] = block.sum[warp] * factor + sum;
        block.highest[warp] = highest;
      }
    }
    barrier();
    // 4. Weighted sums of the values: a thread has one number of every other key.
    for (int q = 0; q < GROUP; q++) sums[q] *= block.factor[q];
#pragma unroll 4
    for (int key = thread / HEAD; key < keys; key += THREADS / HEAD) {
      const float number = read(p.values, has_scales, (first + tile + key) * HEAD + thread % HEAD);
      for (int q = 0; q < GROUP; q++) sums[q] = fused(block.weights[q][key], number, sums[q]);
    }
    barrier();
  }
  // 5. The two halves of the keys, and what `merge` needs.
  if (thread >= HEAD)
    for (int q = 0; q < GROUP; q++) block.halves[q][thread - HEAD] = sums[q];
  barrier();
  float* partial = p.partial + (long long)(head * SPLITS + split) * GROUP * (HEAD + 2);
  if (thread < HEAD)
    for (int q = 0; q < GROUP; q++) partial[q * (HEAD + 2) + thread] = sums[q] + block.halves[q][thread];
  if (thread < GROUP) {
    partial[thread * (HEAD + 2) + HEAD] = block.highest[thread];
    partial[thread * (HEAD + 2) + HEAD + 1] = block.sum[thread];
  }
}

// A block has one query head, a thread one number of it.
KERNEL(HEAD) merge(Attention p) {
  const int head = block_x(), thread = thread_index();
  const float* partial =
      p.partial + ((long long)(head / GROUP) * SPLITS * GROUP + head % GROUP) * (HEAD + 2);
  const int stride = GROUP * (HEAD + 2);
  float highest = -infinity(), sum = 0, total = 0;
  for (int split = 0; split < SPLITS; split++) highest = larger(highest, partial[split * stride + HEAD]);
  for (int split = 0; split < SPLITS; split++) {
    const float factor = exponential(partial[split * stride + HEAD] - highest);
    total += factor * partial[split * stride + HEAD + 1];
    sum += factor * partial[split * stride + thread];
  }
  p.out[head * HEAD + thread] = to_half(sum / total);
}
