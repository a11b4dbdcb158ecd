// Every kernel of src/ops/cuda/kernels against the same sum in f64, over odd shapes. `run` builds and starts it.
//
// Inputs are rounded to the kernel's type first, so that what is measured is the kernel. A tolerance is relative to
// the largest result of the case; for bf16 and f16 it is a few roundings of the result (2^-8, 2^-11) and, in attention,
// of the weights, which tensor cores take in 16 bits.
#include "../../../src/ops/cuda/kernels/attention.cu"
#include "../../../src/ops/cuda/kernels/attention_plain.cu"
#include "../../../src/ops/cuda/kernels/elementwise.cu"
#include "../../../src/ops/cuda/kernels/norm.cu"
#include "../../../src/ops/cuda/kernels/probe.cu"
#include "../../../src/ops/cuda/kernels/rows.cu"

#include <map>
#include <string>

using emulate::Index;
using emulate::launch;

static uint64_t state = 1;
// Uniform in [-1, 1).
static float uniform() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
}

// An array on the "device": values of T with a protected page behind them.
template <class T>
struct Array {
    T* data;
    size_t size;
    explicit Array(size_t size) : data(reinterpret_cast<T*>(emulate::guarded(size * sizeof(T)))), size(size) {}
    static Array random(size_t size, float scale) {
        Array a(size);
        for (size_t i = 0; i < size; ++i) a.data[i] = from_float<T>(uniform() * scale);
        return a;
    }
    double operator[](size_t i) const { return to_float(data[i]); }
};

static int cases = 0, failures = 0;
static std::map<std::string, double> worst;

template <class T>
static void check(const std::string& kernel, const std::string& shape, const T* got, const std::vector<double>& want,
                  double tolerance) {
    double largest = 1e-30, difference = 0.0;
    size_t at = 0;
    for (size_t i = 0; i < want.size(); ++i) {
        largest = std::max(largest, fabs(want[i]));
        const double d = fabs(static_cast<double>(to_float(got[i])) - want[i]);
        // NaN is the largest difference.
        if (!(d <= difference)) difference = d == d ? d : INFINITY, at = i;
    }
    const double relative = difference / largest;
    worst[kernel] = std::max(worst[kernel], relative);
    ++cases;
    if (!(relative <= tolerance)) {
        ++failures;
        printf("FAIL: %s, %s: relative difference %.3g at %zu (%g instead of %g), allowed %.3g\n", kernel.c_str(),
               shape.c_str(), relative, at, static_cast<double>(to_float(got[at])), want[at], tolerance);
    }
}

template <class T>
struct Kernels;

#define KERNELS(suffix, T, rounding)                                                                        \
    template <>                                                                                             \
    struct Kernels<T> {                                                                                     \
        static constexpr auto norm = layer_norm_##suffix;                                                   \
        static constexpr auto end = epilogue_##suffix;                                                      \
        static constexpr auto pixels = normalize_##suffix;                                                  \
        static constexpr auto plain = attention_plain_##suffix;                                             \
        static constexpr auto pool = probe_##suffix;                                                        \
        static constexpr auto embed = embed_##suffix;                                                       \
        static constexpr auto repeat = repeat_##suffix;                                                     \
        static constexpr auto last = last_rows_##suffix;                                                    \
        static constexpr auto mean = mean_rows_##suffix;                                                    \
        static constexpr auto widen = widen_##suffix;                                                       \
        static constexpr auto round = round_##suffix;                                                       \
        static std::string name(const char* kernel) { return std::string(kernel) + " " #suffix; }           \
        /* Half the distance between neighbours of 1. */                                                    \
        static constexpr double ROUNDING = rounding;                                                        \
    };
KERNELS(f32, float, 0x1p-24)
KERNELS(f16, __half, 0x1p-11)
KERNELS(bf16, __nv_bfloat16, 0x1p-8)

template <class T>
static void norms() {
    const int widths[] = {1, 7, 33, 64, 72, 100, 768, 770, 1152, 1536};
    for (int rows = 1; rows <= 70; rows += rows < 6 ? 1 : 13) {
        for (int width : widths) {
            auto x = Array<T>::random(static_cast<size_t>(rows) * width, 2.0f);
            // A mean far from zero is what a careless variance fails on.
            for (size_t i = 0; i < x.size; ++i) x.data[i] = from_float<T>(to_float(x.data[i]) + 8.0f);
            auto w = Array<T>::random(width, 1.0f), b = Array<T>::random(width, 1.0f);
            Array<T> y(x.size);
            std::vector<double> want(x.size);
            for (int r = 0; r < rows; ++r) {
                double mean = 0.0, squares = 0.0;
                for (int i = 0; i < width; ++i) mean += x[r * width + i] / width;
                for (int i = 0; i < width; ++i) squares += pow(x[r * width + i] - mean, 2) / width;
                for (int i = 0; i < width; ++i) {
                    want[r * width + i] = (x[r * width + i] - mean) / sqrt(squares + 1e-6) * w[i] + b[i];
                }
            }
            launch({unsigned(rows + NORM_ROWS - 1) / NORM_ROWS, 1, 1}, 32 * NORM_ROWS, 0, rows % 2 == 0, [&] {
                Kernels<T>::norm(x.data, w.data, b.data, y.data, rows, width, 1e-6f);
            });
            check(Kernels<T>::name("layer_norm"), std::to_string(rows) + " x " + std::to_string(width), y.data, want,
                  Kernels<T>::ROUNDING + 2e-6);
        }
    }
}

template <class T>
static void epilogues() {
    const int shapes[][2] = {{1, 1}, {3, 7}, {5, 64}, {17, 100}, {70, 36}, {2, 1152}};
    for (const auto& [rows, columns] : shapes) {
        for (int activation = 0; activation < 3; ++activation) {
            for (int parts = 0; parts < 4; ++parts) {
                const size_t size = static_cast<size_t>(rows) * columns;
                auto y = Array<T>::random(size, 4.0f), b = Array<T>::random(columns, 1.0f);
                auto r = Array<T>::random(size, 1.0f);
                std::vector<double> want(size);
                for (size_t i = 0; i < size; ++i) {
                    double v = y[i] + (parts & 1 ? b[i % columns] : 0.0);
                    if (activation == ACTIVATION_GELU_TANH) {
                        v = 0.5 * v * (1.0 + tanh(sqrt(2.0 / M_PI) * (v + 0.044715 * v * v * v)));
                    } else if (activation == ACTIVATION_GELU_ERF) {
                        v = 0.5 * v * (1.0 + erf(v / sqrt(2.0)));
                    }
                    want[i] = v + (parts & 2 ? r[i] : 0.0);
                }
                launch({2, 1, 1}, ELEMENTWISE_THREADS, 0, parts % 2 == 0, [&] {
                    Kernels<T>::end(y.data, parts & 1 ? b.data : nullptr, parts & 2 ? r.data : nullptr, activation,
                                    rows, columns);
                });
                const std::string shape = std::to_string(rows) + " x " + std::to_string(columns) + ", activation " +
                                          std::to_string(activation) + ", parts " + std::to_string(parts);
                check(Kernels<T>::name("epilogue"), shape, y.data, want, Kernels<T>::ROUNDING + 1e-6);
            }
        }
    }
}

template <class T>
static void pixels() {
    auto table = Array<float>::random(3 * 256, 1.0f);
    for (size_t count : {3, 6, 9, 12, 768, 771, 588 * 5, 3 * 1000, 3 * 999}) {
        auto bytes = reinterpret_cast<uint8_t*>(emulate::guarded(count));
        for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>((uniform() + 1.0f) * 127.9f);
        Array<T> y(count);
        std::vector<double> want(count);
        for (size_t i = 0; i < count; ++i) want[i] = table[i % 3 * 256 + bytes[i]];
        launch({2, 1, 1}, ELEMENTWISE_THREADS, 3 * 256 * sizeof(float), count % 2 == 0,
               [&] { Kernels<T>::pixels(bytes, table.data, y.data, count); });
        check(Kernels<T>::name("normalize"), std::to_string(count), y.data, want, Kernels<T>::ROUNDING);
    }
}

// Blocks of queries, as Segments::tiles cuts them.
static Array<uint32_t> tiles(const std::vector<int>& lengths, unsigned& count) {
    std::vector<uint32_t> all;
    uint32_t start = 0;
    for (int length : lengths) {
        for (int first = 0; first < length; first += ATTENTION_QUERIES) {
            all.insert(all.end(), {start, uint32_t(length), uint32_t(first)});
        }
        start += length;
    }
    count = all.size() / 3;
    Array<uint32_t> out(all.size());
    std::copy(all.begin(), all.end(), out.data);
    return out;
}

template <class T>
static std::vector<double> attention_in_f64(const Array<T>& qkv, const std::vector<int>& lengths, int heads, int dim) {
    const size_t width = size_t(heads) * dim, stride = 3 * width;
    std::vector<double> y(qkv.size / 3);
    size_t start = 0;
    for (int length : lengths) {
        for (int head = 0; head < heads; ++head) {
            for (int i = 0; i < length; ++i) {
                const size_t q = (start + i) * stride + head * dim;
                std::vector<double> scores(length);
                double most = -INFINITY, sum = 0.0;
                for (int j = 0; j < length; ++j) {
                    const size_t k = (start + j) * stride + width + head * dim;
                    for (int d = 0; d < dim; ++d) scores[j] += qkv[q + d] * qkv[k + d];
                    scores[j] /= sqrt(double(dim));
                    most = std::max(most, scores[j]);
                }
                for (double& s : scores) sum += s = exp(s - most);
                for (int j = 0; j < length; ++j) {
                    const size_t v = (start + j) * stride + 2 * width + head * dim;
                    for (int d = 0; d < dim; ++d) y[(start + i) * width + head * dim + d] += scores[j] / sum * qkv[v + d];
                }
            }
        }
        start += length;
    }
    return y;
}

static std::string describe(const std::vector<int>& lengths, int heads, int dim) {
    std::string text = std::to_string(heads) + " heads of " + std::to_string(dim) + ", segments";
    for (int length : lengths) text += " " + std::to_string(length);
    return text;
}

// Queries and keys of up to `scale`, as large as to make the softmax anything from even to nearly one-hot.
template <class T>
static Array<T> projections(const std::vector<int>& lengths, int heads, int dim, float scale) {
    size_t rows = 0;
    for (int length : lengths) rows += length;
    return Array<T>::random(rows * 3 * heads * dim, scale);
}

template <class T, int DIM>
static void attentions(void (*kernel)(const T*, T*, const uint32_t*, int, float), const std::vector<int>& lengths,
                       int heads, float size, bool backwards) {
    auto qkv = projections<T>(lengths, heads, DIM, size);
    Array<T> y(qkv.size / 3);
    unsigned count;
    auto cut = tiles(lengths, count);
    constexpr int LD = (DIM + 15) / 16 * 16 + 8;
    launch({count, unsigned(heads), 1}, ATTENTION_THREADS, 2 * ATTENTION_KEYS * LD * sizeof(T), backwards,
           [&] { kernel(qkv.data, y.data, cut.data, heads, LOG2_E / sqrtf(DIM)); });
    check(Kernels<T>::name("attention"), describe(lengths, heads, DIM), y.data,
          attention_in_f64(qkv, lengths, heads, DIM), 2.5 * Kernels<T>::ROUNDING);
}

template <class T>
static void attentions_plain(const std::vector<int>& lengths, int heads, int dim, float size, bool backwards) {
    auto qkv = projections<T>(lengths, heads, dim, size);
    Array<T> y(qkv.size / 3);
    unsigned count;
    auto cut = tiles(lengths, count);
    const size_t shared = (PLAIN_QUERIES * dim + PLAIN_KEYS * (2 * dim + 1)) * sizeof(float);
    launch({count, unsigned(heads), ATTENTION_QUERIES / PLAIN_QUERIES}, PLAIN_THREADS, shared, backwards,
           [&] { Kernels<T>::plain(qkv.data, y.data, cut.data, heads, dim, LOG2_E / sqrtf(dim)); });
    check(Kernels<T>::name("attention_plain"), describe(lengths, heads, dim), y.data,
          attention_in_f64(qkv, lengths, heads, dim), Kernels<T>::ROUNDING + 4e-6);
}

template <class T>
static void probes(const std::vector<int>& lengths, int heads, int dim, bool own, bool backwards) {
    size_t rows = 0;
    for (int length : lengths) rows += length;
    const size_t width = size_t(heads) * dim, items = lengths.size();
    const size_t stride = own ? width : 0;
    auto query = Array<T>::random(own ? items * width : width, 1.0f), kv = Array<T>::random(rows * 2 * width, 2.0f);
    Array<uint32_t> offsets(items + 1);
    offsets.data[0] = 0;
    for (size_t i = 0; i < items; ++i) offsets.data[i + 1] = offsets.data[i] + lengths[i];
    Array<float> pooled(items * width), maps(rows * heads);
    std::vector<double> want(pooled.size), weights;
    for (size_t item = 0; item < items; ++item) {
        for (int head = 0; head < heads; ++head) {
            std::vector<double> scores(lengths[item]);
            double most = -INFINITY, sum = 0.0;
            for (int j = 0; j < lengths[item]; ++j) {
                const size_t k = (offsets.data[item] + j) * 2 * width + head * dim;
                for (int d = 0; d < dim; ++d) scores[j] += query[item * stride + head * dim + d] * kv[k + d];
                scores[j] /= sqrt(double(dim));
                most = std::max(most, scores[j]);
            }
            for (double& s : scores) sum += s = exp(s - most);
            for (int j = 0; j < lengths[item]; ++j) {
                const size_t v = (offsets.data[item] + j) * 2 * width + width + head * dim;
                for (int d = 0; d < dim; ++d) want[item * width + head * dim + d] += scores[j] / sum * kv[v + d];
                weights.push_back(scores[j] / sum);
            }
        }
    }
    launch({unsigned(items), unsigned(heads), 1}, PROBE_THREADS, (PROBE_THREADS / 32) * (dim + 1) * sizeof(float),
           backwards, [&] {
               Kernels<T>::pool(query.data, kv.data, offsets.data, pooled.data, maps.data, heads, dim,
                                int(stride), LOG2_E / sqrtf(dim));
           });
    const std::string shape = describe(lengths, heads, dim);
    check(Kernels<T>::name("probe, pooled,"), shape, pooled.data, want, 4e-6);
    check(Kernels<T>::name("probe, maps,"), shape, maps.data, weights, 4e-6);
}

template <class T>
static void rows() {
    for (int width : {1, 7, 8, 64, 100, 1152}) {
        const size_t vocab = 11, context = 5, count = 3 * context;
        auto tokens = Array<T>::random(vocab * width, 2.0f), positions = Array<T>::random(context * width, 1.0f);
        Array<uint32_t> ids(count), offsets(4);
        const uint32_t ends[] = {0, 1, 6, 15};
        for (int i = 0; i < 4; ++i) offsets.data[i] = ends[i];
        for (size_t i = 0; i < count; ++i) ids.data[i] = (7 * i + 3) % vocab;
        Array<T> y(count * width), last(3 * width), mean(3 * width), rounded(count * width);
        Array<float> wide(count * width);
        std::vector<double> want(count * width), want_last(3 * width), want_mean(3 * width), values(count * width);
        for (size_t i = 0; i < want.size(); ++i) {
            const size_t row = i / width, column = i % width;
            want[i] = tokens[ids.data[row] * width + column] + positions[row % context * width + column];
        }
        const std::string shape = std::to_string(width) + " wide";
        auto run = [&](const std::function<void()>& body) { launch({3, 1, 1}, ROWS_THREADS, 0, width % 2 == 0, body); };
        run([&] { Kernels<T>::embed(ids.data, tokens.data, positions.data, y.data, count, context, width); });
        check(Kernels<T>::name("embed"), shape, y.data, want, Kernels<T>::ROUNDING);
        for (size_t i = 0; i < values.size(); ++i) values[i] = y[i];
        for (int item = 0; item < 3; ++item) {
            for (int c = 0; c < width; ++c) {
                want_last[item * width + c] = values[(ends[item + 1] - 1) * width + c];
                for (size_t r = ends[item]; r < ends[item + 1]; ++r) {
                    want_mean[item * width + c] += values[r * width + c] / (ends[item + 1] - ends[item]);
                }
            }
        }
        run([&] { Kernels<T>::last(y.data, offsets.data, last.data, 3, width); });
        check(Kernels<T>::name("last_rows"), shape, last.data, want_last, 0.0);
        run([&] { Kernels<T>::mean(y.data, offsets.data, mean.data, 3, width); });
        check(Kernels<T>::name("mean_rows"), shape, mean.data, want_mean, Kernels<T>::ROUNDING + 1e-6);
        run([&] { Kernels<T>::widen(y.data, wide.data, count * width); });
        check(Kernels<T>::name("widen"), shape, wide.data, values, 0.0);
        run([&] { Kernels<T>::round(wide.data, rounded.data, count * width); });
        check(Kernels<T>::name("round"), shape, rounded.data, values, 0.0);
        Array<T> many(4 * vocab * width);
        std::vector<double> repeated(many.size);
        for (size_t i = 0; i < many.size; ++i) repeated[i] = tokens[i % (vocab * width)];
        run([&] { Kernels<T>::repeat(tokens.data, many.data, vocab * width, 4); });
        check(Kernels<T>::name("repeat"), shape, many.data, repeated, 0.0);
    }
}

// The emulation's own roundings and fragments on numbers worked out by hand.
static void shim() {
    auto equal = [](const char* what, double got, double want) {
        ++cases;
        if (got != want) ++failures, printf("FAIL: %s: %g instead of %g\n", what, got, want);
    };
    equal("bf16 to nearest", to_float(__float2bfloat16_rn(1.0f + 0x1.8p-8f)), 1.0 + 0x1p-7);
    equal("bf16 ties to even, down", to_float(__float2bfloat16_rn(1.0f + 0x1p-8f)), 1.0);
    equal("bf16 ties to even, up", to_float(__float2bfloat16_rn(1.0f + 0x3p-8f)), 1.0 + 0x1p-6);
    equal("f16 ties to even", to_float(__float2half_rn(1.0f + 0x1p-11f)), 1.0);
    // a = row + 1 in column 3 alone, b = 10 (column + 1) in row 3 alone: c = (row + 1) 10 (column + 1).
    float c[16][8];
    launch({1, 1, 1}, 32, 16, false, [&] {
        const int group = threadIdx.x / 4, in = threadIdx.x % 4;
        uint32_t a[4] = {}, b0 = 0;
        if (in == 1) {
            a[0] = pack2<__half>(0.0f, group + 1.0f);
            a[1] = pack2<__half>(0.0f, group + 9.0f);
            b0 = pack2<__half>(0.0f, 10.0f * (group + 1));
        }
        float d[4] = {};
        mma_16816<__half>(d, a, b0, 0);
        for (int i = 0; i < 4; ++i) c[group + 8 * (i / 2)][2 * in + i % 2] = d[i];
    });
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < 8; ++column) equal("mma", c[row][column], 10.0 * (row + 1) * (column + 1));
    }
}

template <class T, int DIM>
static void all_attentions(void (*kernel)(const T*, T*, const uint32_t*, int, float)) {
    attentions<T, DIM>(kernel, {1, 15, 16, 17, 63, 64, 65, 196}, 2, 1.0f, false);
    attentions<T, DIM>(kernel, {130, 1, 256, 33}, 1, 3.0f, true);
    attentions<T, DIM>(kernel, {48, 80, 1, 1}, 3, 8.0f, false);
}

int main() {
    shim();
    norms<float>(), norms<__half>(), norms<__nv_bfloat16>();
    epilogues<float>(), epilogues<__half>(), epilogues<__nv_bfloat16>();
    pixels<float>(), pixels<__half>(), pixels<__nv_bfloat16>();
    rows<float>(), rows<__half>(), rows<__nv_bfloat16>();
    for (int dim : {8, 64, 72, 96, 100, 128}) {
        const std::vector<int> lengths = {1, 15, 16, 17, 33, 70};
        attentions_plain<float>(lengths, 2, dim, 1.0f, false);
        attentions_plain<__half>(lengths, 1, dim, 4.0f, true);
        attentions_plain<__nv_bfloat16>(lengths, 1, dim, 2.0f, false);
        const std::vector<int> items = {1, 7, 8, 9, 64, 196, 257, 729};
        probes<float>(items, 2, dim, false, false);
        probes<float>(items, 3, dim, true, true);
        probes<__half>(items, 1, dim, false, true);
        probes<__nv_bfloat16>(items, 2, dim, true, true);
    }
    attentions_plain<float>({196, 256}, 1, 64, 1.0f, true);
    all_attentions<__half, 64>(attention_f16_64);
    all_attentions<__half, 72>(attention_f16_72);
    all_attentions<__half, 96>(attention_f16_96);
    all_attentions<__nv_bfloat16, 64>(attention_bf16_64);
    all_attentions<__nv_bfloat16, 72>(attention_bf16_72);
    all_attentions<__nv_bfloat16, 96>(attention_bf16_96);
    attentions<__nv_bfloat16, 72>(attention_bf16_72, {729, 17}, 1, 1.0f, true);

    for (const auto& [kernel, difference] : worst) printf("%-24s largest relative difference %.2g\n", kernel.c_str(), difference);
    printf("%d checks, %d failed\n", cases, failures);
    return failures == 0 ? 0 : 1;
}
