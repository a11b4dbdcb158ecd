// Self-attention within segments without tensor cores, in f32 inside: f32 towers, GPUs before compute capability 8.0,
// and head dims that attention.cu does not have, up to 128.
#include "primitives.cuh"

// Queries of a block and keys of one step; a warp has a quarter of the queries.
constexpr int PLAIN_QUERIES = 16;
constexpr int PLAIN_KEYS = 32;
constexpr int PLAIN_THREADS = 128;
constexpr int PLAIN_LARGEST_DIM = 128;

// As attention(), with `dim` values a head. A tile of 64 queries is cut once more: the grid is (tiles, heads, 4).
// Shared memory: PLAIN_QUERIES * dim + PLAIN_KEYS * (2 * dim + 1) floats.
template <class T>
__device__ __forceinline__ void attention_plain(const T* qkv, T* y, const uint32_t* tiles, int heads, int dim,
                                                float scale) {
    constexpr int OWN = PLAIN_QUERIES / (PLAIN_THREADS / 32), PARTS = PLAIN_LARGEST_DIM / 32;
    SIGLIP_SHARED(float, query);
    // One more column, so that lanes, which have a key each, read different banks.
    const int key_stride = dim + 1;
    float* key = query + PLAIN_QUERIES * dim;
    float* value = key + PLAIN_KEYS * key_stride;

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t* tile = tiles + 3 * blockIdx.x;
    const size_t start = tile[0];
    const int length = tile[1], first = tile[2] + blockIdx.z * PLAIN_QUERIES;
    if (first >= length) return;
    const int queries = min(PLAIN_QUERIES, length - first);
    const int width = heads * dim;
    const size_t stride = 3 * static_cast<size_t>(width);
    const T* head = qkv + start * stride + blockIdx.y * dim;

    for (int i = threadIdx.x; i < PLAIN_QUERIES * dim; i += PLAIN_THREADS) {
        const int row = i / dim;
        query[i] = row < queries ? to_float(head[(first + row) * stride + i % dim]) * scale : 0.0f;
    }
    float out[OWN][PARTS] = {}, maximum[OWN], sum[OWN] = {};
    for (int own = 0; own < OWN; ++own) maximum[own] = -INFINITY;
    for (int from = 0; from < length; from += PLAIN_KEYS) {
        __syncthreads();
        for (int i = threadIdx.x; i < PLAIN_KEYS * dim; i += PLAIN_THREADS) {
            const int row = i / dim, column = i % dim;
            const T* at = head + (from + row) * stride + column;
            const bool inside = from + row < length;
            key[row * key_stride + column] = inside ? to_float(at[width]) : 0.0f;
            value[i] = inside ? to_float(at[2 * width]) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int own = 0; own < OWN; ++own) {
            const float* q = query + (warp * OWN + own) * dim;
            float score = 0.0f;
#pragma unroll 4
            for (int d = 0; d < dim; ++d) score += q[d] * key[lane * key_stride + d];
            if (from + lane >= length) score = -INFINITY;
            const float most = fmaxf(maximum[own], warp_max(score));
            const float weight = exp2f(score - most), shrink = exp2f(maximum[own] - most);
            maximum[own] = most;
            sum[own] = sum[own] * shrink + warp_sum(weight);
#pragma unroll
            for (int part = 0; part < PARTS; ++part) out[own][part] *= shrink;
#pragma unroll 4
            for (int j = 0; j < PLAIN_KEYS; ++j) {
                const float share = __shfl_sync(ALL_LANES, weight, j);
#pragma unroll
                for (int part = 0; part < PARTS; ++part) {
                    const int d = lane + 32 * part;
                    if (d < dim) out[own][part] += share * value[j * dim + d];
                }
            }
        }
    }
#pragma unroll
    for (int own = 0; own < OWN; ++own) {
        const int row = warp * OWN + own;
        if (row >= queries) continue;
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            const int d = lane + 32 * part;
            if (d < dim) {
                y[(start + first + row) * width + blockIdx.y * dim + d] = from_float<T>(out[own][part] / sum[own]);
            }
        }
    }
}

#define SIGLIP_ATTENTION_PLAIN(suffix, T)                                                              \
    extern "C" __global__ void __launch_bounds__(PLAIN_THREADS) attention_plain_##suffix(              \
        const T* qkv, T* y, const uint32_t* tiles, int heads, int dim, float scale) {                  \
        attention_plain<T>(qkv, y, tiles, heads, dim, scale);                                          \
    }
SIGLIP_ATTENTION_PLAIN(f32, float)
SIGLIP_ATTENTION_PLAIN(f16, __half)
SIGLIP_ATTENTION_PLAIN(bf16, __nv_bfloat16)
