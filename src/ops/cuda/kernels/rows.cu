// Whole rows put where they belong: token embeddings, repeated tables, chosen rows, means, and changes of type.
#include "primitives.cuh"

// Threads of a block.
constexpr int ROWS_THREADS = 256;

#define SIGLIP_STEP                                                                                  \
    const size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;                 \
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x

// y[r] = tokens[ids[r]] + positions[r % context], rows of `width`; the sum is rounded once, to T.
template <class T>
__device__ __forceinline__ void embed(const uint32_t* ids, const T* tokens, const T* positions, T* y, size_t rows,
                                      int context, int width) {
    SIGLIP_STEP;
    constexpr int SIZE = Vector<T>::SIZE;
    if (width % SIZE == 0 && is_aligned(tokens) && is_aligned(positions) && is_aligned(y)) {
        const size_t columns = width / SIZE;
        for (size_t i = first; i < rows * columns; i += step) {
            const size_t row = i / columns, column = i % columns;
            Vector<T> t = reinterpret_cast<const Vector<T>*>(tokens)[ids[row] * columns + column];
            const Vector<T> p = reinterpret_cast<const Vector<T>*>(positions)[row % context * columns + column];
#pragma unroll
            for (int j = 0; j < SIZE; ++j) t.values[j] = from_float<T>(to_float(t.values[j]) + to_float(p.values[j]));
            reinterpret_cast<Vector<T>*>(y)[i] = t;
        }
    } else {
        for (size_t i = first; i < rows * width; i += step) {
            const size_t row = i / width, column = i % width;
            const float token = to_float(tokens[static_cast<size_t>(ids[row]) * width + column]);
            y[i] = from_float<T>(token + to_float(positions[row % context * width + column]));
        }
    }
}

// `x` of `size` values, `count` times one after another.
template <class T>
__device__ __forceinline__ void repeat(const T* x, T* y, size_t size, size_t count) {
    SIGLIP_STEP;
    constexpr int SIZE = Vector<T>::SIZE;
    if (size % SIZE == 0 && is_aligned(x) && is_aligned(y)) {
        for (size_t i = first; i < size * count / SIZE; i += step) {
            reinterpret_cast<Vector<T>*>(y)[i] = reinterpret_cast<const Vector<T>*>(x)[i % (size / SIZE)];
        }
    } else {
        for (size_t i = first; i < size * count; i += step) y[i] = x[i % size];
    }
}

// y[r] = x[offsets[r + 1] - 1]: the last row of each item, rows of `width`.
template <class T>
__device__ __forceinline__ void last_rows(const T* x, const uint32_t* offsets, T* y, size_t items, int width) {
    SIGLIP_STEP;
    for (size_t i = first; i < items * width; i += step) {
        const size_t row = offsets[i / width + 1] - 1;
        y[i] = x[row * width + i % width];
    }
}

// y[r] = the mean of rows offsets[r] to offsets[r + 1] of x, summed in f32 in their order.
template <class T>
__device__ __forceinline__ void mean_rows(const T* x, const uint32_t* offsets, T* y, size_t items, int width) {
    SIGLIP_STEP;
    for (size_t i = first; i < items * width; i += step) {
        const size_t item = i / width, column = i % width;
        const size_t begin = offsets[item], end = offsets[item + 1];
        float sum = 0.0f;
        for (size_t row = begin; row < end; ++row) sum += to_float(x[row * width + column]);
        y[i] = from_float<T>(sum / static_cast<float>(end - begin));
    }
}

template <class From, class To>
__device__ __forceinline__ void convert(const From* x, To* y, size_t count) {
    SIGLIP_STEP;
    for (size_t i = first; i < count; i += step) y[i] = from_float<To>(to_float(x[i]));
}

#define SIGLIP_ROWS(suffix, T)                                                                                 \
    extern "C" __global__ void __launch_bounds__(ROWS_THREADS)                                                 \
        embed_##suffix(const uint32_t* ids, const T* tokens, const T* positions, T* y, size_t rows,            \
                       int context, int width) {                                                               \
        embed<T>(ids, tokens, positions, y, rows, context, width);                                             \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(ROWS_THREADS)                                                 \
        repeat_##suffix(const T* x, T* y, size_t size, size_t count) {                                         \
        repeat<T>(x, y, size, count);                                                                          \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(ROWS_THREADS)                                                 \
        last_rows_##suffix(const T* x, const uint32_t* offsets, T* y, size_t items, int width) {               \
        last_rows<T>(x, offsets, y, items, width);                                                             \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(ROWS_THREADS)                                                 \
        mean_rows_##suffix(const T* x, const uint32_t* offsets, T* y, size_t items, int width) {               \
        mean_rows<T>(x, offsets, y, items, width);                                                             \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(ROWS_THREADS)                                                 \
        widen_##suffix(const T* x, float* y, size_t count) {                                                   \
        convert<T, float>(x, y, count);                                                                        \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(ROWS_THREADS)                                                 \
        round_##suffix(const float* x, T* y, size_t count) {                                                   \
        convert<float, T>(x, y, count);                                                                        \
    }
SIGLIP_ROWS(f32, float)
SIGLIP_ROWS(f16, __half)
SIGLIP_ROWS(bf16, __nv_bfloat16)
