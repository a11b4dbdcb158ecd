// NVIDIA's libraries for a machine without a GPU, as far as the operations and the towers need them: memory is the
// host's, kernels run as in test.cpp, products are plain loops. What it checks is the host's side, in
// src/ops/cuda/*.rs: arguments and their order, grids, shared memory, addresses, layouts, that every value of a
// result is written, the order of streams and events, and graphs. `host` builds it and runs the tests over it.
//
// A stream is a queue. Nothing on it happens before somebody waits for it, so that pinned memory which is overwritten too
// early, or a result which is read too early, shows; with SIGLIP_EMULATE_ORDER=eager the copying streams (those that no
// kernel was ever put on) run at once instead, so that device memory which is overwritten too early shows. Memory that is
// freed is filled with ones in its turn and given out again. A capture keeps what is put on a stream; a graph's launch puts
// it on another. SIGLIP_EMULATE_FAULT breaks graphs: `capture`, `instantiate` and `launch` give errors, `empty` and `short`
// launch nothing or leave out one launch, `stale` takes over no input. Then nothing may come of it but a warning.
// SIGLIP_EMULATE_DEAF makes `computing` or `copying` streams wait for nothing. Then the tests must fail.
#include "../../../src/ops/cuda/kernels/attention.cu"
#include "../../../src/ops/cuda/kernels/attention_plain.cu"
#include "../../../src/ops/cuda/kernels/elementwise.cu"
#include "../../../src/ops/cuda/kernels/norm.cu"
#include "../../../src/ops/cuda/kernels/probe.cu"
#include "../../../src/ops/cuda/kernels/rows.cu"

#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace {

constexpr int OK = 0, NO_DEVICE = 100, ILLEGAL_STATE = 401, NOT_FOUND = 500, REFUSED = 801, CAPTURE_UNSUPPORTED = 900;
// cuBLASLt's.
constexpr int NOT_SUPPORTED = 15;
using Handle = void*;
using Task = std::function<void()>;
// Everything below is behind it: calls come from several threads.
std::recursive_mutex one_at_a_time;
using Lock = std::lock_guard<std::recursive_mutex>;
bool backwards = false;

bool fault(const char* name) {
    const char* wanted = getenv("SIGLIP_EMULATE_FAULT");
    return wanted && std::string(wanted) == name;
}

struct Kernel {
    int threads;
    // Takes the values of the arguments, which the caller need not keep.
    std::function<Task(void**)> bind;
};

template <class... Args, size_t... I>
Task spread(void (*kernel)(Args...), void** p, std::index_sequence<I...>) {
    auto values = std::make_tuple(*static_cast<Args*>(p[I])...);
    return [kernel, values] { std::apply(kernel, values); };
}

template <class... Args>
Kernel entry(int threads, void (*kernel)(Args...)) {
    return {threads, [kernel](void** p) { return spread(kernel, p, std::index_sequence_for<Args...>()); }};
}

// ---- Streams, events and graphs -----------------------------------------------------------------------------------

struct Stream {
    std::deque<Task> queue;
    // Tasks that were put on it and that have run.
    uint64_t put = 0, done = 0;
    bool computes = false, capturing = false;
    std::vector<Task> captured;
    // Freed memory by size, to be given out again.
    std::map<size_t, std::vector<uint64_t>> freed;
};

struct Event {
    Stream* stream = nullptr;
    uint64_t at = 0;
};

struct Graph {
    std::vector<Task> tasks;
};

std::map<uint64_t, size_t> sizes;
std::map<uint64_t, size_t> pinned;

bool is_pinned(const void* address) {
    const auto at = reinterpret_cast<uint64_t>(address);
    auto next = pinned.upper_bound(at);
    return next != pinned.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

void run_until(Stream* stream, uint64_t position) {
    while (stream->done < position) {
        if (stream->queue.empty()) emulate::fail("streams that wait for each other");
        Task task = std::move(stream->queue.front());
        stream->queue.pop_front();
        task();
        ++stream->done;
    }
}

void put(Stream* stream, Task task) {
    if (stream->capturing) {
        stream->captured.push_back(std::move(task));
        return;
    }
    stream->queue.push_back(std::move(task));
    ++stream->put;
    const char* order = getenv("SIGLIP_EMULATE_ORDER");
    if (!stream->computes && order && std::string(order) == "eager") run_until(stream, stream->put);
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
        {"probe_" #suffix, entry(PROBE_THREADS, probe_##suffix)},                               \
        {"embed_" #suffix, entry(ROWS_THREADS, embed_##suffix)},                                \
        {"repeat_" #suffix, entry(ROWS_THREADS, repeat_##suffix)},                              \
        {"last_rows_" #suffix, entry(ROWS_THREADS, last_rows_##suffix)},                        \
        {"mean_rows_" #suffix, entry(ROWS_THREADS, mean_rows_##suffix)},                        \
        {"widen_" #suffix, entry(ROWS_THREADS, widen_##suffix)},                                \
        {"round_" #suffix, entry(ROWS_THREADS, round_##suffix)}
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
// When the first stream is made: there is nothing to wait for.
API cuCtxSynchronize() { return OK; }
API cuDeviceGetDefaultMemPool(Handle* pool, int) { return *pool = reinterpret_cast<Handle>(32), OK; }
API cuMemPoolSetAttribute(Handle, int attribute, uint64_t* value) {
    if (attribute != 4 || *value != UINT64_MAX) emulate::fail("the release threshold of the pool");
    return OK;
}
API cuGetErrorString(int, const char** text) { return *text = "an error of the emulated driver", OK; }
static Stream* of(Handle stream) { return static_cast<Stream*>(stream); }
API cuStreamCreate(Handle* stream, unsigned) { return make(stream, Stream{}); }
API cuStreamDestroy_v2(Handle handle) {
    Lock lock(one_at_a_time);
    // What is on it is still done; events may name it, so that it stays.
    return run_until(of(handle), of(handle)->put), OK;
}
API cuStreamSynchronize(Handle handle) {
    Lock lock(one_at_a_time);
    if (of(handle)->capturing) return CAPTURE_UNSUPPORTED;
    return run_until(of(handle), of(handle)->put), OK;
}
API cuStreamWaitEvent(Handle handle, Handle event, unsigned) {
    Lock lock(one_at_a_time);
    if (of(handle)->capturing) return CAPTURE_UNSUPPORTED;
    // What a forgotten wait would do, of the streams that compute or of those that copy.
    const char* deaf = getenv("SIGLIP_EMULATE_DEAF");
    if (deaf && std::string(deaf) == (of(handle)->computes ? "computing" : "copying")) return OK;
    // Of the event's last recording, if there was one.
    const Event e = *static_cast<Event*>(event);
    if (e.stream && e.stream != of(handle)) put(of(handle), [e] { run_until(e.stream, e.at); });
    return OK;
}
API cuStreamIsCapturing(Handle handle, int* status) { return *status = of(handle)->capturing, OK; }
API cuEventCreate(Handle* event, unsigned) { return make(event, Event{}); }
API cuEventDestroy_v2(Handle event) { return delete static_cast<Event*>(event), OK; }
API cuEventRecord(Handle event, Handle stream) {
    Lock lock(one_at_a_time);
    if (of(stream)->capturing) return CAPTURE_UNSUPPORTED;
    return *static_cast<Event*>(event) = {of(stream), of(stream)->put}, OK;
}
API cuEventSynchronize(Handle event) {
    Lock lock(one_at_a_time);
    const Event e = *static_cast<Event*>(event);
    if (e.stream) run_until(e.stream, e.at);
    return OK;
}
// Algorithms take as long as their number says (`cublasLtMatmul`).
static double clock_ms = 0.0;
static std::map<std::pair<Stream*, uint64_t>, double> reached;
API cuEventElapsedTime_v2(float* ms, Handle from, Handle to) {
    Lock lock(one_at_a_time);
    const Event a = *static_cast<Event*>(from), b = *static_cast<Event*>(to);
    const auto at = [](const Event& e) {
        auto next = reached.upper_bound({e.stream, e.at});
        return next == reached.begin() || std::prev(next)->first.first != e.stream ? 0.0 : std::prev(next)->second;
    };
    return *ms = static_cast<float>(at(b) - at(a)), OK;
}

API cuMemAllocAsync(uint64_t* address, size_t bytes, Handle handle) {
    Lock lock(one_at_a_time);
    if (of(handle)->capturing) return CAPTURE_UNSUPPORTED;
    auto& freed = of(handle)->freed[bytes];
    if (!freed.empty()) {
        *address = freed.back();
        freed.pop_back();
    } else {
        *address = reinterpret_cast<uint64_t>(emulate::guarded(bytes));
    }
    return sizes[*address] = bytes, OK;
}
API cuMemFreeAsync(uint64_t address, Handle handle) {
    Lock lock(one_at_a_time);
    if (of(handle)->capturing) return CAPTURE_UNSUPPORTED;
    const auto known = sizes.find(address);
    if (known == sizes.end()) emulate::fail("memory is freed that was not given out");
    const size_t bytes = known->second;
    sizes.erase(known);
    put(of(handle), [=] { memset(reinterpret_cast<void*>(address), 0xff, bytes); });
    return of(handle)->freed[bytes].push_back(address), OK;
}
API cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    Lock lock(one_at_a_time);
    *address = emulate::guarded(bytes);
    return pinned[reinterpret_cast<uint64_t>(*address)] = bytes, OK;
}
API cuMemFreeHost(void* address) {
    Lock lock(one_at_a_time);
    return pinned.erase(reinterpret_cast<uint64_t>(address)), OK;
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Handle handle) {
    Lock lock(one_at_a_time);
    if (of(handle)->capturing) return CAPTURE_UNSUPPORTED;
    if (is_pinned(from)) {
        // Read when it is this copy's turn.
        put(of(handle), [=] { memcpy(reinterpret_cast<void*>(to), from, bytes); });
    } else {
        std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
        put(of(handle), [=] { memcpy(reinterpret_cast<void*>(to), staged.data(), bytes); });
    }
    return OK;
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Handle handle) {
    Lock lock(one_at_a_time);
    if (of(handle)->capturing) return CAPTURE_UNSUPPORTED;
    put(of(handle), [=] { memcpy(to, reinterpret_cast<void*>(from), bytes); });
    if (!is_pinned(to)) run_until(of(handle), of(handle)->put);
    return OK;
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Handle handle) {
    Lock lock(one_at_a_time);
    if (fault("stale")) return OK;
    return put(of(handle), [=] { memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); }), OK;
}
API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Handle handle) {
    Lock lock(one_at_a_time);
    return put(of(handle), [=] { memset(reinterpret_cast<void*>(to), value, bytes); }), OK;
}

API cuStreamBeginCapture_v2(Handle handle, int mode) {
    Lock lock(one_at_a_time);
    if (mode != 1) emulate::fail("a capture that other threads' calls can break");
    if (fault("capture")) return REFUSED;
    if (of(handle)->capturing) return ILLEGAL_STATE;
    return of(handle)->capturing = true, OK;
}
API cuStreamEndCapture(Handle handle, Handle* graph) {
    Lock lock(one_at_a_time);
    if (!of(handle)->capturing) return ILLEGAL_STATE;
    of(handle)->capturing = false;
    return make(graph, Graph{std::move(of(handle)->captured)});
}
API cuGraphInstantiateWithFlags(Handle* executable, Handle graph, unsigned long long flags) {
    if (flags != 0 || fault("instantiate")) return REFUSED;
    return make(executable, Graph{*static_cast<Graph*>(graph)});
}
API cuGraphDestroy(Handle graph) { return delete static_cast<Graph*>(graph), OK; }
API cuGraphExecDestroy(Handle graph) { return delete static_cast<Graph*>(graph), OK; }
API cuGraphLaunch(Handle graph, Handle handle) {
    Lock lock(one_at_a_time);
    if (fault("launch")) return 700;
    if (fault("empty")) return OK;
    const auto& tasks = static_cast<Graph*>(graph)->tasks;
    for (size_t i = 0; i < tasks.size(); ++i) {
        if (!(fault("short") && i == tasks.size() / 2)) put(of(handle), tasks[i]);
    }
    return OK;
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
                   unsigned shared, Handle stream, void** arguments, void**) {
    Lock lock(one_at_a_time);
    const auto& kernel = *static_cast<Kernel*>(function);
    if (by != 1 || bz != 1 || (kernel.threads != 0 && static_cast<int>(bx) != kernel.threads)) {
        emulate::fail("a kernel with another number of threads than it was written for");
    }
    if (shared > 48 << 10) emulate::fail("more shared memory than a kernel has without asking");
    if (kernel.threads == 0) gx = 1, bx = 32;
    of(stream)->computes = true;
    Task call = kernel.bind(arguments);
    put(of(stream), [=] {
        backwards = !backwards;
        emulate::launch({gx, gy, gz}, static_cast<int>(bx), shared, backwards, call);
    });
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
API cublasLtMatmulAlgoGetHeuristic(Handle, Handle product, Handle, Handle, Handle, Handle, Handle, int wanted,
                                   unsigned char* result, int* count) {
    // As on a GPU that has no fused ends, to see what is done without.
    const bool plain = static_cast<Product*>(product)->epilogue == 1;
    if (getenv("SIGLIP_EMULATE_NO_EPILOGUES") && !plain) return *count = 0, NOT_SUPPORTED;
    // Several, the best neither first nor last; the last needs more memory than there is and the first does not work.
    constexpr size_t SIZE = 64 + 8 + 4 + 4 + 16;
    const unsigned char milliseconds[] = {9, 5, 2, 7, 1};
    *count = 0;
    for (; *count < wanted && *count < 5; ++*count) {
        unsigned char* at = result + *count * SIZE;
        memset(at, 0, SIZE);
        // One alone is one that works.
        at[0] = wanted == 1 ? 5 : milliseconds[*count];
        const uint64_t workspace = *count == 4 ? 1ull << 40 : 0;
        memcpy(at + 64, &workspace, 8);
    }
    return OK;
}
API cublasLtMatmul(Handle, Handle product, const float* alpha, const void* a, Handle la, const void* b, Handle lb,
                   const float* beta, const void* c, Handle, void* d, Handle ld, const unsigned char* algorithm, void*,
                   size_t, Handle stream) {
    Lock lock(one_at_a_time);
    // Descriptions and factors are read now, operands when it is their turn.
    const auto p = *static_cast<Product*>(product);
    const auto x = *static_cast<Layout*>(la), y = *static_cast<Layout*>(lb), z = *static_cast<Layout*>(ld);
    if (*alpha != 1.0f || x.type != y.type || x.type != z.type) emulate::fail("a product of several types");
    const int took = algorithm[0];
    if (took == 9) return NOT_SUPPORTED;
    if (took != 5 && took != 2 && took != 7) emulate::fail("an algorithm that was not proposed");
    const float factor = *beta;
    of(stream)->computes = true;
    put(of(stream), [=] {
        if (x.type == 0) multiply<float>(p, a, x, b, y, factor, c, d, z);
        if (x.type == 2) multiply<__half>(p, a, x, b, y, factor, c, d, z);
        if (x.type == 14) multiply<__nv_bfloat16>(p, a, x, b, y, factor, c, d, z);
        clock_ms += took;
        reached[{of(stream), of(stream)->done + 1}] = clock_ms;
    });
    return OK;
}
