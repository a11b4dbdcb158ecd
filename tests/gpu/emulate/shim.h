// CUDA for a host compiler, as far as the kernels in src/ops/cuda/kernels need it: one block at a time, a fiber a
// thread. Warp instructions are computed from the fragment layouts that the PTX ISA documents, not from how the kernels
// use them.
//
// What it finds beyond wrong sums: reads of shared memory nobody wrote (NaN), of asynchronous copies not waited for
// (they happen as late as they may), beyond the end of an array or of shared memory (a protected page follows), and
// unaligned vectors; and most missing barriers, since the threads of a block run in either order and asynchronous copies
// happen as late or as soon as they may. What it cannot find: races that neither order shows, and anything about speed.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __align__(bytes) alignas(bytes)
#define SIGLIP_TENSOR_CORES 1

using std::max;
using std::min;

// ---- Element types ----------------------------------------------------------------------------------------------

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __half2float(__half x) {
    _Float16 value;
    memcpy(&value, &x.bits, 2);
    return static_cast<float>(value);
}
inline __half __float2half_rn(float x) {
    _Float16 value = static_cast<_Float16>(x);
    __half out;
    memcpy(&out.bits, &value, 2);
    return out;
}
inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return {0x7fff};
    // To nearest, ties to even.
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

namespace emulate {

inline float value_of(uint16_t bits, const __half*) { return __half2float(__half{bits}); }
inline float value_of(uint16_t bits, const __nv_bfloat16*) { return __bfloat162float(__nv_bfloat16{bits}); }
inline uint16_t bits_of(float x, const __half*) { return __float2half_rn(x).bits; }
inline uint16_t bits_of(float x, const __nv_bfloat16*) { return __float2bfloat16_rn(x).bits; }

[[noreturn]] inline void fail(const char* what) {
    printf("FAIL: %s\n", what);
    fflush(stdout);
    _Exit(1);
}

// ---- Memory that ends where a protected page begins --------------------------------------------------------------

// `bytes` rounded up to 16, aligned to 16, filled with ones: NaN in every type.
inline unsigned char* guarded(size_t bytes) {
    const size_t page = 4096, used = (bytes + 15) / 16 * 16, body = (used + page - 1) / page * page;
    auto base = static_cast<unsigned char*>(
        mmap(nullptr, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED || mprotect(base + page, body, PROT_READ | PROT_WRITE) != 0) fail("no memory");
    memset(base + page, 0xff, body);
    return base + page + body - used;
}

// ---- Threads ------------------------------------------------------------------------------------------------------

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

constexpr int MAX_THREADS = 256, STACK = 64 << 10;

enum State { RUNNING, AT_WARP, AT_BLOCK, DONE };

struct Copy {
    void* to;
    const void* from;
    bool valid;
};

struct Slot {
    unsigned char bytes[40];
};

struct Thread {
    ucontext_t first;
    jmp_buf at;
    bool started;
    State state;
    Index index;
    // Warp instructions so far: the two halves of the slots are used in turn.
    unsigned turn;
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
};

struct Machine {
    Thread threads[MAX_THREADS];
    unsigned char* stacks = nullptr;
    Slot slots[MAX_THREADS][2];
    Index block, grid, size;
    Thread* now = nullptr;
    int count = 0;
    jmp_buf scheduler;
    // Threads in descending order, and asynchronous copies at once instead of when they are waited for.
    bool backwards = false;
    const std::function<void()>* body = nullptr;
    unsigned char* shared = nullptr;
};

inline Machine machine;

inline void pause(State state) {
    Thread* self = machine.now;
    self->state = state;
    if (_setjmp(self->at) == 0) _longjmp(machine.scheduler, 1);
}

inline void enter() {
    (*machine.body)();
    machine.now->state = DONE;
    _longjmp(machine.scheduler, 1);
}

inline void resume(Thread& thread) {
    machine.now = &thread;
    if (_setjmp(machine.scheduler) != 0) return;
    if (thread.started) _longjmp(thread.at, 1);
    thread.started = true;
    setcontext(&thread.first);
}

inline void release(int from, int to, State state) {
    for (int i = from; i < to; ++i) {
        if (machine.threads[i].state == state) machine.threads[i].state = RUNNING;
    }
}

// Whether every thread of a range waits at a barrier of this kind, but for those that have ended.
inline bool all_at(int from, int to, State state) {
    bool any = false;
    for (int i = from; i < to; ++i) {
        const State s = machine.threads[i].state;
        if (s != state && s != DONE) return false;
        any = any || s == state;
    }
    return any;
}

inline void run_block() {
    Machine& m = machine;
    const bool backwards = m.backwards;
    for (int i = 0; i < m.count; ++i) {
        Thread& t = m.threads[i];
        getcontext(&t.first);
        t.first.uc_stack.ss_sp = m.stacks + static_cast<size_t>(i) * STACK;
        t.first.uc_stack.ss_size = STACK;
        t.first.uc_link = nullptr;
        makecontext(&t.first, enter, 0);
        t.started = false;
        t.state = RUNNING;
        t.turn = 0;
        t.index = {static_cast<unsigned>(i), 0, 0};
        t.open.clear();
        t.groups.clear();
    }
    const int warps = (m.count + 31) / 32;
    for (;;) {
        bool progress = false, live = false;
        for (int w = 0; w < warps; ++w) {
            const int warp = backwards ? warps - 1 - w : w, from = warp * 32, to = min(from + 32, m.count);
            // A warp runs until all of its lanes wait for other warps.
            for (bool moved = true; moved;) {
                moved = false;
                for (int i = from; i < to; ++i) {
                    Thread& t = m.threads[backwards ? to - 1 - (i - from) : i];
                    if (t.state == RUNNING) {
                        resume(t);
                        moved = progress = true;
                    }
                }
                if (all_at(from, to, AT_WARP)) {
                    // Warp instructions name all 32 lanes.
                    for (int i = from; i < to; ++i) {
                        if (m.threads[i].state == DONE) fail("a warp instruction without lanes that have ended");
                    }
                    release(from, to, AT_WARP);
                    moved = true;
                }
            }
        }
        for (int i = 0; i < m.count; ++i) live = live || m.threads[i].state != DONE;
        if (!live) return;
        if (all_at(0, m.count, AT_BLOCK)) {
            release(0, m.count, AT_BLOCK);
        } else if (!progress) {
            fail("deadlock: some threads of a block wait at a barrier that others never reach");
        }
    }
}

// Runs a kernel: `body` calls it with its arguments.
inline void launch(Index grid, int threads, size_t shared_bytes, bool backwards, const std::function<void()>& body) {
    Machine& m = machine;
    if (threads > MAX_THREADS || threads % 32 != 0) fail("a block of this size is not emulated");
    if (!m.stacks) m.stacks = static_cast<unsigned char*>(aligned_alloc(64, static_cast<size_t>(MAX_THREADS) * STACK));
    m.count = threads;
    m.size = {static_cast<unsigned>(threads), 1, 1};
    m.grid = grid;
    m.body = &body;
    m.backwards = backwards;
    m.shared = guarded(shared_bytes);
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                m.block = {x, y, z};
                memset(m.shared, 0xff, shared_bytes);
                run_block();
            }
        }
    }
}

// What every lane of the warp gives, once all have.
template <class T>
inline const Slot* exchange(const T& mine, unsigned& half) {
    static_assert(sizeof(T) <= sizeof(Slot), "a slot is too small");
    Thread* self = machine.now;
    const int me = static_cast<int>(self - machine.threads);
    half = self->turn++ % 2;
    memcpy(machine.slots[me][half].bytes, &mine, sizeof(T));
    pause(AT_WARP);
    return machine.slots[me / 32 * 32];
}

template <class T>
inline T given(const Slot* warp, unsigned half, int lane) {
    T value;
    memcpy(&value, (warp + 2 * lane)[half].bytes, sizeof(T));
    return value;
}

inline int lane() { return static_cast<int>(machine.now - machine.threads) % 32; }

}  // namespace emulate

#define threadIdx (emulate::machine.now->index)
#define blockIdx (emulate::machine.block)
#define gridDim (emulate::machine.grid)
#define blockDim (emulate::machine.size)
#define SIGLIP_SHARED(type, name) type* name = reinterpret_cast<type*>(emulate::machine.shared)

inline void __syncthreads() { emulate::pause(emulate::AT_BLOCK); }

inline float __shfl_sync(unsigned mask, float x, int from) {
    if (mask != 0xffffffffu) emulate::fail("a shuffle of some lanes only");
    unsigned half;
    const emulate::Slot* warp = emulate::exchange(x, half);
    return emulate::given<float>(warp, half, from % 32);
}

inline float __shfl_xor_sync(unsigned mask, float x, int lanes) {
    return __shfl_sync(mask, x, emulate::lane() ^ lanes);
}

// ---- Tensor cores -------------------------------------------------------------------------------------------------

template <class T>
inline uint32_t pack2(float low, float high) {
    return emulate::bits_of(low, static_cast<T*>(nullptr)) |
           static_cast<uint32_t>(emulate::bits_of(high, static_cast<T*>(nullptr))) << 16;
}

namespace emulate {

inline void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix of a row that is not aligned to 16 bytes");
    unsigned half;
    const Slot* warp = exchange(row, half);
    for (int matrix = 0; matrix < 4; ++matrix) {
        uint16_t two[2];
        for (int i = 0; i < 2; ++i) {
            // PTX ISA, ldmatrix: lane l has elements 2 (l % 4) and the next of row l / 4.
            int y = lane() / 4, x = lane() % 4 * 2 + i;
            if (transposed) std::swap(x, y);
            two[i] = static_cast<const uint16_t*>(given<const void*>(warp, half, matrix * 8 + y))[x];
        }
        r[matrix] = two[0] | static_cast<uint32_t>(two[1]) << 16;
    }
}

struct Fragments {
    uint32_t a[4], b[2];
};

}  // namespace emulate

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { emulate::ldmatrix(r, row, false); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { emulate::ldmatrix(r, row, true); }

template <class T>
inline void mma_16816(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    using namespace emulate;
    unsigned half;
    const Slot* warp = exchange(Fragments{{a[0], a[1], a[2], a[3]}, {b0, b1}}, half);
    auto part = [](uint32_t word, int upper) {
        return value_of(static_cast<uint16_t>(word >> 16 * upper), static_cast<T*>(nullptr));
    };
    // PTX ISA, matrix fragments for mma.m16n8k16 with 16-bit floats. With group = lane / 4 and in = lane % 4:
    // a_i: row = group for 0 <= i < 2 and 4 <= i < 6, else group + 8; column = 2 in + i % 2, + 8 for i >= 4
    // b_i: row = 2 in + i % 2, + 8 for i >= 2; column = group
    // c_i: row = group, + 8 for i >= 2; column = 2 in + i % 2
    const int column = lane() % 4 * 2;
    for (int i = 0; i < 4; ++i) {
        const int row = lane() / 4 + (i >= 2 ? 8 : 0), n = column + i % 2;
        double sum = c[i];
        for (int k = 0; k < 16; ++k) {
            const int in = k % 8 / 2;
            const auto left = given<Fragments>(warp, half, row % 8 * 4 + in);
            const auto right = given<Fragments>(warp, half, n * 4 + in);
            const int element = (k >= 8 ? 4 : 0) + (row >= 8 ? 2 : 0) + k % 2;
            sum += static_cast<double>(part(left.a[element / 2], element % 2)) * part(right.b[k >= 8], k % 2);
        }
        c[i] = static_cast<float>(sum);
    }
}

namespace emulate {

inline void copy_16(const Copy& copy) {
    if (copy.valid) {
        memcpy(copy.to, copy.from, 16);
    } else {
        memset(copy.to, 0, 16);
    }
}

}  // namespace emulate

inline void async_copy_16(void* shared, const void* global, bool valid) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0) {
        emulate::fail("cp.async of 16 bytes that are not aligned");
    }
    const emulate::Copy copy{shared, global, valid};
    if (emulate::machine.backwards) {
        emulate::copy_16(copy);
    } else {
        emulate::machine.now->open.push_back(copy);
    }
}

inline void async_commit() {
    auto* self = emulate::machine.now;
    self->groups.push_back(std::move(self->open));
    self->open.clear();
}

template <int pending>
inline void async_wait() {
    auto* self = emulate::machine.now;
    while (self->groups.size() > pending) {
        for (const auto& copy : self->groups.front()) emulate::copy_16(copy);
        self->groups.erase(self->groups.begin());
    }
}
