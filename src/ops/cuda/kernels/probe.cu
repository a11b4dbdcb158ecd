// Attention of one query to the tokens of each item: of MAP pooling's, the same for every item, or of each item's own.
#include "primitives.cuh"

// Threads of a block, which has one item and one head.
constexpr int PROBE_THREADS = 256;
constexpr int PROBE_LARGEST_DIM = 128;

// `query` is [items, width], with `stride` values from one item's to the next: 0 where all have the same.
// `kv` is [rows, 2 * width], `offsets` the first row of each item and, last, the number of rows. `pooled` gets
// [items, width]; `maps` gets for each item [heads, tokens], items one after another: first scores, then weights.
// The grid is (items, heads); `scale` is that of the scores times log2(e).
// Shared memory: 8 * dim + 8 floats.
template <class T>
__device__ __forceinline__ void probe(const T* query, const T* kv, const uint32_t* offsets, float* pooled, float* maps,
                                      int heads, int dim, int stride, float scale) {
    constexpr int WARPS = PROBE_THREADS / 32, PARTS = PROBE_LARGEST_DIM / 32;
    SIGLIP_SHARED(float, partial);
    float* shared = partial + WARPS * dim;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int item = blockIdx.x, head = blockIdx.y;
    const size_t start = offsets[item];
    const int length = offsets[item + 1] - offsets[item];
    const int width = heads * dim;
    const T* keys = kv + start * 2 * width + head * dim;
    const T* values = keys + width;
    float* map = maps + start * heads + static_cast<size_t>(head) * length;

    float q[PARTS];
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        const int d = lane + 32 * part;
        q[part] = d < dim ? to_float(query[static_cast<size_t>(item) * stride + head * dim + d]) * scale : 0.0f;
    }
    float most = -INFINITY;
    for (int token = warp; token < length; token += WARPS) {
        const T* key = keys + static_cast<size_t>(token) * 2 * width;
        float score = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            const int d = lane + 32 * part;
            if (d < dim) score += q[part] * to_float(key[d]);
        }
        score = warp_sum(score);
        if (lane == 0) map[token] = score;
        most = fmaxf(most, score);
    }
    if (lane == 0) shared[warp] = most;
    __syncthreads();
    for (int i = 0; i < WARPS; ++i) most = fmaxf(most, shared[i]);
    __syncthreads();
    float sum = 0.0f;
    for (int token = threadIdx.x; token < length; token += PROBE_THREADS) sum += exp2f(map[token] - most);
    sum = warp_sum(sum);
    if (lane == 0) shared[warp] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int i = 0; i < WARPS; ++i) sum += shared[i];
    const float inverse = 1.0f / sum;
    for (int token = threadIdx.x; token < length; token += PROBE_THREADS) {
        map[token] = exp2f(map[token] - most) * inverse;
    }
    __syncthreads();
    float out[PARTS] = {};
    for (int token = warp; token < length; token += WARPS) {
        const T* value = values + static_cast<size_t>(token) * 2 * width;
        const float weight = map[token];
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            const int d = lane + 32 * part;
            if (d < dim) out[part] += weight * to_float(value[d]);
        }
    }
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        const int d = lane + 32 * part;
        if (d < dim) partial[warp * dim + d] = out[part];
    }
    __syncthreads();
    for (int d = threadIdx.x; d < dim; d += PROBE_THREADS) {
        float total = 0.0f;
        for (int i = 0; i < WARPS; ++i) total += partial[i * dim + d];
        pooled[static_cast<size_t>(item) * width + head * dim + d] = total;
    }
}

#define SIGLIP_PROBE(suffix, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(PROBE_THREADS)                                                       \
        probe_##suffix(const T* query, const T* kv, const uint32_t* offsets, float* pooled, float* maps, int heads,   \
                       int dim, int stride, float scale) {                                                            \
        probe<T>(query, kv, offsets, pooled, maps, heads, dim, stride, scale);                                        \
    }
SIGLIP_PROBE(f32, float)
SIGLIP_PROBE(f16, __half)
SIGLIP_PROBE(bf16, __nv_bfloat16)
