// Layer normalisation over rows: a warp a row, sums in f32.
#include "primitives.cuh"

// Warps of a block, so rows of a block.
constexpr int NORM_ROWS = 4;

// y = (x - mean) / sqrt(variance + eps) * weight + bias, each row of `width` values.
//
// The row is read three times; the second and third reading are of the first-level cache. The variance is the mean of
// the squared differences, not the difference of means, which f32 would not survive.
template <class T>
__device__ __forceinline__ void layer_norm(const T* x, const T* weight, const T* bias, T* y, int rows, int width,
                                           float eps) {
    const int lane = threadIdx.x % 32;
    const int row = blockIdx.x * NORM_ROWS + threadIdx.x / 32;
    if (row >= rows) return;
    x += static_cast<size_t>(row) * width;
    y += static_cast<size_t>(row) * width;
    constexpr int SIZE = Vector<T>::SIZE;
    if (width % SIZE == 0 && is_aligned(x) && is_aligned(y) && is_aligned(weight) && is_aligned(bias)) {
        const int count = width / SIZE;
        auto vx = reinterpret_cast<const Vector<T>*>(x);
        float sum = 0.0f;
        for (int i = lane; i < count; i += 32) {
            const Vector<T> v = vx[i];
#pragma unroll
            for (int j = 0; j < SIZE; ++j) sum += to_float(v.values[j]);
        }
        const float mean = warp_sum(sum) / width;
        float squares = 0.0f;
        for (int i = lane; i < count; i += 32) {
            const Vector<T> v = vx[i];
#pragma unroll
            for (int j = 0; j < SIZE; ++j) {
                const float d = to_float(v.values[j]) - mean;
                squares += d * d;
            }
        }
        const float inverse = rsqrtf(warp_sum(squares) / width + eps);
        auto vw = reinterpret_cast<const Vector<T>*>(weight);
        auto vb = reinterpret_cast<const Vector<T>*>(bias);
        for (int i = lane; i < count; i += 32) {
            const Vector<T> v = vx[i], w = vw[i], b = vb[i];
            Vector<T> out;
#pragma unroll
            for (int j = 0; j < SIZE; ++j) {
                const float normal = (to_float(v.values[j]) - mean) * inverse;
                out.values[j] = from_float<T>(normal * to_float(w.values[j]) + to_float(b.values[j]));
            }
            reinterpret_cast<Vector<T>*>(y)[i] = out;
        }
    } else {
        float sum = 0.0f;
        for (int i = lane; i < width; i += 32) sum += to_float(x[i]);
        const float mean = warp_sum(sum) / width;
        float squares = 0.0f;
        for (int i = lane; i < width; i += 32) {
            const float d = to_float(x[i]) - mean;
            squares += d * d;
        }
        const float inverse = rsqrtf(warp_sum(squares) / width + eps);
        for (int i = lane; i < width; i += 32) {
            const float normal = (to_float(x[i]) - mean) * inverse;
            y[i] = from_float<T>(normal * to_float(weight[i]) + to_float(bias[i]));
        }
    }
}

#define SIGLIP_LAYER_NORM(suffix, T)                                                                         \
    extern "C" __global__ void __launch_bounds__(32 * NORM_ROWS)                                             \
        layer_norm_##suffix(const T* x, const T* weight, const T* bias, T* y, int rows, int width, float eps) { \
        layer_norm<T>(x, weight, bias, y, rows, width, eps);                                                 \
    }
SIGLIP_LAYER_NORM(f32, float)
SIGLIP_LAYER_NORM(f16, __half)
SIGLIP_LAYER_NORM(bf16, __nv_bfloat16)
