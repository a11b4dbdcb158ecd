// Self-attention within the segments of a packed batch, on tensor cores: bf16 and f16, head dims 64, 72 and 96.
//
// A block computes 64 queries of one segment and one head, a warp 16 of them, over blocks of 64 keys with a running
// maximum and sum in f32 (Dao et al. 2022), so that scores stay in registers. Queries, keys and values are read out of
// the packed `qkv` [rows, 3 * width] as they lie. Fragments are as the PTX ISA draws them for mma.m16n8k16: with
// group = lane / 4 and pair = 2 * (lane % 4), a lane holds of the 16x8 result rows `group` and `group + 8`, columns
// `pair` and `pair + 1`.
#include "primitives.cuh"

// Queries of a block, as Rust cuts them; keys of one step; threads.
constexpr int ATTENTION_QUERIES = 64;
constexpr int ATTENTION_KEYS = 64;
constexpr int ATTENTION_THREADS = 128;

#if defined(SIGLIP_TENSOR_CORES)
// `DIM` values of up to 64 rows to shared memory, rows `LD` apart, columns from `DIM` to `PADDED` and rows from
// `valid` on as zeros. Ends one group of asynchronous copies.
template <class T, int DIM, int PADDED, int LD>
__device__ __forceinline__ void load_rows(T* shared, const T* global, size_t stride, int valid) {
    constexpr int CHUNKS = PADDED / 8;
    for (int i = threadIdx.x; i < 64 * CHUNKS; i += ATTENTION_THREADS) {
        const int row = i / CHUNKS, column = i % CHUNKS * 8;
        const bool inside = row < valid && column < DIM;
        async_copy_16(shared + row * LD + column, inside ? global + row * stride + column : global, inside);
    }
    async_commit();
}
#endif

// `tiles` holds three numbers a block of queries: first row and length of the segment, first query within it. The grid
// is (tiles, heads). `scale` is that of the scores times log2(e).
template <class T, int DIM>
__device__ __forceinline__ void attention(const T* qkv, T* y, const uint32_t* tiles, int heads, float scale) {
#if defined(SIGLIP_TENSOR_CORES)
    constexpr int PADDED = (DIM + 15) / 16 * 16;
    // An odd number of 16-byte chunks: the eight rows that ldmatrix reads at once lie in different banks.
    constexpr int LD = PADDED + 8;
    constexpr int STEPS = PADDED / 16, OUT = DIM / 8;
    SIGLIP_SHARED(T, keys);
    T* values = keys + ATTENTION_KEYS * LD;

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int group = lane / 4, pair = lane % 4 * 2;
    const uint32_t* tile = tiles + 3 * blockIdx.x;
    const size_t start = tile[0];
    const int length = tile[1], first = tile[2];
    const int queries = min(ATTENTION_QUERIES, length - first);
    const int width = heads * DIM;
    const size_t stride = 3 * static_cast<size_t>(width);
    const T* head = qkv + start * stride + blockIdx.y * DIM;

    // The queries pass through the keys' place into registers.
    load_rows<T, DIM, PADDED, LD>(keys, head + first * stride, stride, queries);
    async_wait<0>();
    __syncthreads();
    uint32_t q[STEPS][4];
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        ldmatrix_x4(q[k], keys + (warp * 16 + lane % 16) * LD + k * 16 + lane / 16 * 8);
    }
    __syncthreads();
    load_rows<T, DIM, PADDED, LD>(keys, head + width, stride, min(ATTENTION_KEYS, length));

    // Warps past the last query take part in the loads and barriers only.
    const bool busy = warp * 16 < queries;
    float out[OUT][4] = {};
    float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    for (int from = 0; from < length; from += ATTENTION_KEYS) {
        const int valid = min(ATTENTION_KEYS, length - from);
        async_wait<0>();
        // The keys are here, and nobody needs the last values any more.
        __syncthreads();
        load_rows<T, DIM, PADDED, LD>(values, head + 2 * width + from * stride, stride, valid);

        float s[8][4] = {};
        if (busy) {
#pragma unroll
            for (int k = 0; k < STEPS; ++k) {
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    if (n * 16 >= valid) continue;
                    uint32_t b[4];
                    const int row = n * 16 + lane % 8 + lane / 16 * 8;
                    ldmatrix_x4(b, keys + row * LD + k * 16 + lane / 8 % 2 * 8);
                    mma_16816<T>(s[2 * n], q[k], b[0], b[1]);
                    mma_16816<T>(s[2 * n + 1], q[k], b[2], b[3]);
                }
            }
        }
        __syncthreads();
        const int next = from + ATTENTION_KEYS;
        if (next < length) {
            load_rows<T, DIM, PADDED, LD>(keys, head + width + next * stride, stride,
                                          min(ATTENTION_KEYS, length - next));
        } else {
            // An empty group, so that the wait below counts the same.
            async_commit();
        }

        if (busy) {
            if (valid < ATTENTION_KEYS) {
#pragma unroll
                for (int n = 0; n < 8; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        if (n * 8 + pair + i % 2 >= valid) s[n][i] = -INFINITY;
                    }
                }
            }
            // The first step has a key at least: the maximum is finite from then on.
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float most = maximum[half];
#pragma unroll
                for (int n = 0; n < 8; ++n) most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
                most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
                most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
                const float shrink = exp2f((maximum[half] - most) * scale);
                maximum[half] = most;
                float total = 0.0f;
#pragma unroll
                for (int n = 0; n < 8; ++n) {
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; ++i) {
                        s[n][i] = exp2f((s[n][i] - most) * scale);
                        total += s[n][i];
                    }
                }
                // A lane sums its own columns; the four of a row are added at the end.
                sum[half] = sum[half] * shrink + total;
#pragma unroll
                for (int n = 0; n < OUT; ++n) {
                    out[n][2 * half] *= shrink;
                    out[n][2 * half + 1] *= shrink;
                }
            }
        }
        async_wait<1>();
        // The values are here.
        __syncthreads();
        if (busy) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                if (k * 16 >= valid) continue;
                // Two results side by side are what the next product takes on its left.
                const uint32_t a[4] = {pack2<T>(s[2 * k][0], s[2 * k][1]), pack2<T>(s[2 * k][2], s[2 * k][3]),
                                       pack2<T>(s[2 * k + 1][0], s[2 * k + 1][1]),
                                       pack2<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
                for (int n = 0; n < OUT; n += 2) {
                    uint32_t b[4];
                    const int row = k * 16 + lane % 16;
                    ldmatrix_x4_trans(b, values + row * LD + n * 8 + lane / 16 * 8);
                    mma_16816<T>(out[n], a, b[0], b[1]);
                    if (n + 1 < OUT) mma_16816<T>(out[n + 1], a, b[2], b[3]);
                }
            }
        }
    }
    if (!busy) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float total = sum[half];
        total += __shfl_xor_sync(ALL_LANES, total, 1);
        total += __shfl_xor_sync(ALL_LANES, total, 2);
        const float inverse = 1.0f / total;
        const int query = warp * 16 + group + 8 * half;
        if (query >= queries) continue;
        T* row = y + (start + first + query) * width + blockIdx.y * DIM;
#pragma unroll
        for (int n = 0; n < OUT; ++n) {
            *reinterpret_cast<uint32_t*>(row + n * 8 + pair) =
                pack2<T>(out[n][2 * half] * inverse, out[n][2 * half + 1] * inverse);
        }
    }
#endif
}

#define SIGLIP_ATTENTION(suffix, T, DIM)                                                          \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS) attention_##suffix##_##DIM( \
        const T* qkv, T* y, const uint32_t* tiles, int heads, float scale) {                      \
        attention<T, DIM>(qkv, y, tiles, heads, scale);                                           \
    }
SIGLIP_ATTENTION(f16, __half, 64)
SIGLIP_ATTENTION(f16, __half, 72)
SIGLIP_ATTENTION(f16, __half, 96)
SIGLIP_ATTENTION(bf16, __nv_bfloat16, 64)
SIGLIP_ATTENTION(bf16, __nv_bfloat16, 72)
SIGLIP_ATTENTION(bf16, __nv_bfloat16, 96)
