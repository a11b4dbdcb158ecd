// What is done to each value alone: the end of a linear layer where cuBLASLt cannot do it, and bytes to pixels.
#include "primitives.cuh"

// Threads of a block.
constexpr int ELEMENTWISE_THREADS = 256;

// As `activation` numbers them; anything else is none.
constexpr int ACTIVATION_GELU_TANH = 1;
constexpr int ACTIVATION_GELU_ERF = 2;

__device__ __forceinline__ float activate(float x, int activation) {
    if (activation == ACTIVATION_GELU_TANH) {
        const float inner = 0.79788456080286535588f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.0f + tanhf(inner));
    }
    if (activation == ACTIVATION_GELU_ERF) return 0.5f * x * (1.0f + erff(x * 0.70710678118654752440f));
    return x;
}

// y = activation(y + bias) + residual in place; `bias` (of `columns`) and `residual` (of y's shape) may be null.
template <class T>
__device__ __forceinline__ void epilogue(T* y, const T* bias, const T* residual, int activation, size_t rows,
                                         int columns) {
    constexpr int SIZE = Vector<T>::SIZE;
    const size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    const size_t total = rows * columns;
    // A null pointer is aligned.
    if (columns % SIZE == 0 && is_aligned(y) && is_aligned(bias) && is_aligned(residual)) {
        for (size_t i = first; i < total / SIZE; i += step) {
            Vector<T> v = reinterpret_cast<const Vector<T>*>(y)[i];
            Vector<T> b = {}, r = {};
            if (bias) b = reinterpret_cast<const Vector<T>*>(bias)[i % (columns / SIZE)];
            if (residual) r = reinterpret_cast<const Vector<T>*>(residual)[i];
#pragma unroll
            for (int j = 0; j < SIZE; ++j) {
                const float x = to_float(v.values[j]) + (bias ? to_float(b.values[j]) : 0.0f);
                v.values[j] = from_float<T>(activate(x, activation) + (residual ? to_float(r.values[j]) : 0.0f));
            }
            reinterpret_cast<Vector<T>*>(y)[i] = v;
        }
    } else {
        for (size_t i = first; i < total; i += step) {
            const float x = to_float(y[i]) + (bias ? to_float(bias[i % columns]) : 0.0f);
            y[i] = from_float<T>(activate(x, activation) + (residual ? to_float(residual[i]) : 0.0f));
        }
    }
}

// y[i] = table[channel][bytes[i]], channels innermost; `table` is 3 x 256 and `count` a multiple of 3.
// Threads take four bytes at a time; both pointers are those of whole allocations, so aligned.
template <class T>
__device__ __forceinline__ void normalize(const uint8_t* bytes, const float* table, T* y, size_t count) {
    SIGLIP_SHARED(float, values);
    for (int i = threadIdx.x; i < 3 * 256; i += blockDim.x) values[i] = table[i];
    __syncthreads();
    struct __align__(4) Bytes {
        uint8_t values[4];
    };
    struct __align__(4 * sizeof(T)) Out {
        T values[4];
    };
    const size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    for (size_t i = first; i < count / 4; i += step) {
        const Bytes in = reinterpret_cast<const Bytes*>(bytes)[i];
        // 4 i mod 3 is i mod 3.
        int channel = static_cast<int>(i % 3);
        Out out;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            out.values[j] = from_float<T>(values[channel * 256 + in.values[j]]);
            channel = channel == 2 ? 0 : channel + 1;
        }
        reinterpret_cast<Out*>(y)[i] = out;
    }
    const size_t rest = count / 4 * 4 + first;
    if (rest < count) y[rest] = from_float<T>(values[rest % 3 * 256 + bytes[rest]]);
}

#define SIGLIP_ELEMENTWISE(suffix, T)                                                                           \
    extern "C" __global__ void __launch_bounds__(ELEMENTWISE_THREADS)                                           \
        epilogue_##suffix(T* y, const T* bias, const T* residual, int activation, size_t rows, int columns) {   \
        epilogue<T>(y, bias, residual, activation, rows, columns);                                              \
    }                                                                                                           \
    extern "C" __global__ void __launch_bounds__(ELEMENTWISE_THREADS)                                           \
        normalize_##suffix(const uint8_t* bytes, const float* table, T* y, size_t count) {                      \
        normalize<T>(bytes, table, y, count);                                                                   \
    }
SIGLIP_ELEMENTWISE(f32, float)
SIGLIP_ELEMENTWISE(f16, __half)
SIGLIP_ELEMENTWISE(bf16, __nv_bfloat16)
