// NVIDIA's libraries for a machine without a GPU, as far as the operations and the towers need them: memory is the
// host's, kernels run as in test.cpp, products are plain loops. What it checks is the host's side, in
// src/ops/cuda/*.rs: arguments and their order, grids, shared memory, addresses, layouts, and that every value of a
// result is written. `host` builds it and runs the tests over it.
#include "../../../src/ops/cuda/kernels/attention.cu"
#include "../../../src/ops/cuda/kernels/attention_plain.cu"
#include "../../../src/ops/cuda/kernels/elementwise.cu"
#include "../../../src/ops/cuda/kernels/norm.cu"
#include "../../../src/ops/cuda/kernels/probe.cu"

#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace {

constexpr int OK = 0, NO_DEVICE = 100, NOT_FOUND = 500, NOT_SUPPORTED = 15;
using Handle = void*;
std::mutex one_at_a_time;
bool backwards = false;

struct Kernel {
    int threads;
    std::function<void(void**)> call;
};

template <class... Args, size_t... I>
void spread(void (*kernel)(Args...), void** p, std::index_sequence<I...>) {
    kernel(*static_cast<Args*>(p[I])...);
}

template <class... Args>
Kernel entry(int threads, void (*kernel)(Args...)) {
    return {threads, [kernel](void** p) { spread(kernel, p, std::index_sequence_for<Args...>()); }};
}

// candle's own kernels, as far as towers need them: by one thread of the first block.
#define ONE_THREAD() \
    if (blockIdx.x != 0 || threadIdx.x != 0) return

// Where a value lies whose number is `i`; `strides` may be null for contiguous ones.
size_t at(size_t i, size_t rank, const size_t* dims, const size_t* strides) {
    if (!strides) return i;
    size_t offset = 0;
    for (size_t d = rank; d-- > 0; i /= dims[d]) offset += i % dims[d] * strides[d];
    return offset;
}

template <class From, class To>
void cast(size_t count, size_t rank, const size_t* info, const From* from, To* to) {
    ONE_THREAD();
    for (size_t i = 0; i < count; ++i) {
        to[i] = from_float<To>(to_float(from[at(i, rank, info, info ? info + rank : nullptr)]));
    }
}

template <class T>
void copy(size_t count, size_t rank, const size_t* info, const T* from, T* to) {
    cast(count, rank, info, from, to);
}

template <class T>
void add(size_t count, size_t rank, const size_t* info, const T* a, const T* b, T* to) {
    ONE_THREAD();
    for (size_t i = 0; i < count; ++i) {
        const size_t ia = at(i, rank, info, info ? info + rank : nullptr);
        const size_t ib = at(i, rank, info, info ? info + 2 * rank : nullptr);
        to[i] = from_float<T>(to_float(a[ia]) + to_float(b[ib]));
    }
}

template <class T>
void select(size_t count, size_t rank, const size_t* info, const uint32_t* ids, const T* from, T* to, size_t,
            size_t source, size_t selected, size_t right) {
    ONE_THREAD();
    // The layout is that of the ids; candle wants the table contiguous.
    if (rank != 1 || info[1] != 1) emulate::fail("ids that are not contiguous");
    for (size_t i = 0; i < count; ++i) {
        const size_t left = i / (selected * right), id = ids[i / right % selected];
        if (id >= source) emulate::fail("an index beyond the table");
        to[i] = from[(left * source + id) * right + i % right];
    }
}

template <class T>
void copy2d(const T* from, T* to, uint32_t rows, uint32_t columns, uint32_t from_stride, uint32_t to_stride) {
    ONE_THREAD();
    for (uint32_t i = 0; i < rows; ++i) {
        for (uint32_t j = 0; j < columns; ++j) to[i * to_stride + j] = from[i * from_stride + j];
    }
}

const std::map<std::string, Kernel>& kernels() {
#define TYPED(suffix)                                                                           \
    {"layer_norm_" #suffix, entry(32 * NORM_ROWS, layer_norm_##suffix)},                        \
        {"epilogue_" #suffix, entry(ELEMENTWISE_THREADS, epilogue_##suffix)},                   \
        {"normalize_" #suffix, entry(ELEMENTWISE_THREADS, normalize_##suffix)},                 \
        {"attention_plain_" #suffix, entry(PLAIN_THREADS, attention_plain_##suffix)},           \
        {"probe_" #suffix, entry(PROBE_THREADS, probe_##suffix)}
#define CANDLE(suffix, T)                                                                             \
    {"ucopy_" #suffix, entry(0, copy<T>)}, {"badd_" #suffix, entry(0, add<T>)},                       \
        {"is_u32_" #suffix, entry(0, select<T>)}, {"copy2d_" #suffix, entry(0, copy2d<T>)},           \
        {"cast_" #suffix "_f32", entry(0, cast<T, float>)}, {"cast_f32_" #suffix, entry(0, cast<float, T>)}
#define TENSOR_CORES(name) {#name, entry(ATTENTION_THREADS, name)}
    static const std::map<std::string, Kernel> all = {
        TYPED(f32), TYPED(f16), TYPED(bf16),
        TENSOR_CORES(attention_f16_64), TENSOR_CORES(attention_f16_72), TENSOR_CORES(attention_f16_96),
        TENSOR_CORES(attention_bf16_64), TENSOR_CORES(attention_bf16_72), TENSOR_CORES(attention_bf16_96),
        CANDLE(f32, float), CANDLE(f16, __half), CANDLE(bf16, __nv_bfloat16),
    };
    return all;
}

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t ld;
};
struct Product {
    int32_t transposed = 0, epilogue = 1;
    uint64_t bias = 0;
};

template <class T>
void multiply(const Product& p, const void* a, const Layout& la, const void* b, const Layout& lb, float beta,
              const void* c, void* d, const Layout& ld) {
    // Column-major, as cuBLAS: d (m x n) = aT b + beta c.
    const size_t m = ld.rows, n = ld.columns, k = la.rows;
    if (!p.transposed || la.columns != m || lb.rows != k || lb.columns != n) emulate::fail("a product of other shapes");
    auto read = [](const void* from, size_t rows, size_t columns, size_t stride) {
        std::vector<float> out(rows * columns);
        for (size_t j = 0; j < columns; ++j) {
            for (size_t i = 0; i < rows; ++i) out[j * rows + i] = to_float(static_cast<const T*>(from)[j * stride + i]);
        }
        return out;
    };
    const auto left = read(a, k, m, la.ld), right = read(b, k, n, lb.ld);
    for (size_t j = 0; j < n; ++j) {
        for (size_t i = 0; i < m; ++i) {
            float sums[16] = {};
            const float *x = &left[i * k], *y = &right[j * k];
            size_t l = 0;
            for (; l + 16 <= k; l += 16) {
                for (int s = 0; s < 16; ++s) sums[s] += x[l + s] * y[l + s];
            }
            double sum = 0.0;
            for (; l < k; ++l) sum += x[l] * y[l];
            for (float s : sums) sum += s;
            if (beta != 0.0f) sum += beta * to_float(static_cast<const T*>(c)[j * ld.ld + i]);
            if (p.epilogue & 4) sum += to_float(reinterpret_cast<const T*>(p.bias)[i]);
            if (p.epilogue & 32) sum = activate(static_cast<float>(sum), ACTIVATION_GELU_TANH);
            static_cast<T*>(d)[j * ld.ld + i] = from_float<T>(static_cast<float>(sum));
        }
    }
}

template <class T>
int make(Handle* out, T value) {
    *out = new T(value);
    return OK;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

// ---- The driver ---------------------------------------------------------------------------------------------------

API cuInit(unsigned) { return OK; }
// Two GPUs.
API cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal < 2 ? OK : NO_DEVICE; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    // Capability 9.0, and memory pools.
    *value = attribute == 75 ? 9 : attribute == 115 ? 1 : 0;
    return OK;
}
API cuDeviceComputeCapability(int* major, int* minor, int) { return *major = 9, *minor = 0, OK; }
API cuDevicePrimaryCtxRetain(Handle* context, int) { return *context = reinterpret_cast<Handle>(16), OK; }
API cuDevicePrimaryCtxRelease_v2(int) { return OK; }
static thread_local Handle current = nullptr;
API cuCtxGetCurrent(Handle* context) { return *context = current, OK; }
API cuCtxSetCurrent(Handle context) { return current = context, OK; }
API cuCtxSynchronize() { return OK; }
API cuDeviceGetDefaultMemPool(Handle* pool, int) { return *pool = reinterpret_cast<Handle>(32), OK; }
API cuMemPoolSetAttribute(Handle, int attribute, uint64_t* value) {
    if (attribute != 4 || *value != UINT64_MAX) emulate::fail("the release threshold of the pool");
    return OK;
}
API cuGetErrorString(int, const char** text) { return *text = "an error of the emulated driver", OK; }
API cuStreamCreate(Handle* stream, unsigned) { return *stream = reinterpret_cast<Handle>(48), OK; }
API cuStreamDestroy_v2(Handle) { return OK; }
API cuStreamSynchronize(Handle) { return OK; }
API cuStreamWaitEvent(Handle, Handle, unsigned) { return OK; }
API cuStreamIsCapturing(Handle, int* status) { return *status = 0, OK; }
API cuEventCreate(Handle* event, unsigned) { return *event = reinterpret_cast<Handle>(64), OK; }
API cuEventDestroy_v2(Handle) { return OK; }
API cuEventRecord(Handle, Handle) { return OK; }
API cuEventSynchronize(Handle) { return OK; }
// Nothing is given back: the tests are short, and what is used after it was freed would only be hidden.
API cuMemAllocAsync(uint64_t* address, size_t bytes, Handle) {
    return *address = reinterpret_cast<uint64_t>(emulate::guarded(bytes)), OK;
}
API cuMemFreeAsync(uint64_t, Handle) { return OK; }
API cuMemHostAlloc(void** address, size_t bytes, unsigned) { return *address = emulate::guarded(bytes), OK; }
API cuMemFreeHost(void*) { return OK; }
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Handle) {
    return memcpy(reinterpret_cast<void*>(to), from, bytes), OK;
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Handle) {
    return memcpy(to, reinterpret_cast<void*>(from), bytes), OK;
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Handle) {
    return memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), OK;
}
API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Handle) {
    return memset(reinterpret_cast<void*>(to), value, bytes), OK;
}
API cuModuleLoadData(Handle* module, const void*) { return *module = reinterpret_cast<Handle>(80), OK; }
API cuModuleUnload(Handle) { return OK; }
API cuModuleGetFunction(Handle* function, Handle, const char* name) {
    const auto found = kernels().find(name);
    if (found == kernels().end()) return NOT_FOUND;
    *function = const_cast<Kernel*>(&found->second);
    return OK;
}
API cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Handle, void** arguments, void**) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    const auto& kernel = *static_cast<Kernel*>(function);
    if (by != 1 || bz != 1 || (kernel.threads != 0 && static_cast<int>(bx) != kernel.threads)) {
        emulate::fail("a kernel with another number of threads than it was written for");
    }
    if (shared > 48 << 10) emulate::fail("more shared memory than a kernel has without asking");
    if (kernel.threads == 0) gx = 1, bx = 32;
    backwards = !backwards;
    emulate::launch({gx, gy, gz}, static_cast<int>(bx), shared, backwards, [&] { kernel.call(arguments); });
    return OK;
}

// ---- cuBLAS and cuRAND, which candle opens ------------------------------------------------------------------------

API cublasCreate_v2(Handle* handle) { return *handle = reinterpret_cast<Handle>(96), OK; }
API cublasDestroy_v2(Handle) { return OK; }
API cublasSetStream_v2(Handle, Handle) { return OK; }
API cublasDgemmStridedBatched() { return NOT_SUPPORTED; }
API cublasGemmStridedBatchedEx() { return NOT_SUPPORTED; }
API curandCreateGenerator(Handle* handle, int) { return *handle = reinterpret_cast<Handle>(112), OK; }
API curandDestroyGenerator(Handle) { return OK; }
API curandSetPseudoRandomGeneratorSeed(Handle, unsigned long long) { return OK; }
API curandSetStream(Handle, Handle) { return OK; }

// ---- cuBLASLt -----------------------------------------------------------------------------------------------------

API cublasLtCreate(Handle* handle) { return *handle = reinterpret_cast<Handle>(128), OK; }
API cublasLtDestroy(Handle) { return OK; }
API cublasLtMatmulDescCreate(Handle* out, int compute, int scale) {
    // CUBLAS_COMPUTE_32F and CUDA_R_32F.
    if (compute != 68 || scale != 0) emulate::fail("a product that is not summed in f32");
    return make(out, Product{});
}
API cublasLtMatmulDescDestroy(Handle handle) { return delete static_cast<Product*>(handle), OK; }
API cublasLtMatmulDescSetAttribute(Handle handle, int attribute, const void* value, size_t bytes) {
    auto* product = static_cast<Product*>(handle);
    if (attribute == 3 && bytes == 4) return memcpy(&product->transposed, value, 4), OK;
    if (attribute == 7 && bytes == 4) return memcpy(&product->epilogue, value, 4), OK;
    if (attribute == 8 && bytes == 8) return memcpy(&product->bias, value, 8), OK;
    return emulate::fail("an attribute of a product that is not known here"), NOT_SUPPORTED;
}
API cublasLtMatrixLayoutCreate(Handle* out, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    return make(out, Layout{type, rows, columns, ld});
}
API cublasLtMatrixLayoutDestroy(Handle handle) { return delete static_cast<Layout*>(handle), OK; }
API cublasLtMatmulPreferenceCreate(Handle* out) { return make(out, 0); }
API cublasLtMatmulPreferenceDestroy(Handle handle) { return delete static_cast<int*>(handle), OK; }
API cublasLtMatmulPreferenceSetAttribute(Handle, int attribute, const void*, size_t bytes) {
    const bool known = (attribute == 1 && bytes == 8) || (attribute >= 5 && attribute <= 8 && bytes == 4);
    if (!known) emulate::fail("a preference that is not known here");
    return OK;
}
API cublasLtMatmulAlgoGetHeuristic(Handle, Handle product, Handle, Handle, Handle, Handle, Handle, int,
                                   unsigned char* result, int* count) {
    // As on a GPU that has no fused ends, to see what is done without.
    const bool plain = static_cast<Product*>(product)->epilogue == 1;
    if (getenv("SIGLIP_EMULATE_NO_EPILOGUES") && !plain) return *count = 0, NOT_SUPPORTED;
    memset(result, 0, 64 + 8 + 4 + 4 + 16);
    return *count = 1, OK;
}
API cublasLtMatmul(Handle, Handle product, const float* alpha, const void* a, Handle la, const void* b, Handle lb,
                   const float* beta, const void* c, Handle, void* d, Handle ld, const void*, void*, size_t, Handle) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    const auto& p = *static_cast<Product*>(product);
    const auto &x = *static_cast<Layout*>(la), &y = *static_cast<Layout*>(lb), &z = *static_cast<Layout*>(ld);
    if (*alpha != 1.0f || x.type != y.type || x.type != z.type) emulate::fail("a product of several types");
    if (x.type == 0) multiply<float>(p, a, x, b, y, *beta, c, d, z);
    if (x.type == 2) multiply<__half>(p, a, x, b, y, *beta, c, d, z);
    if (x.type == 14) multiply<__nv_bfloat16>(p, a, x, b, y, *beta, c, d, z);
    return OK;
}
