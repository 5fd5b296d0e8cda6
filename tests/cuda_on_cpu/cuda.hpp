// CUDA for kernels that run on a CPU; compiled before their source, in place of `instructions.cu`.
//
// One thread of the CPU runs all threads of a block as fibers, and one block after the other. A
// fiber goes on until it needs other threads: until a barrier, an exchange between lanes or a
// product of tiles. A GPU may run threads and blocks in any order, so that the caller chooses
// whether the first or the last go first. Shared memory begins as NaNs, and an asynchronous copy
// takes place when it is waited for, as late as it may on a GPU.

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(most)
#define __align__(bytes) alignas(bytes)

struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static float2 make_float2(float x, float y) { return {x, y}; }
static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static uint3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" {  // <cmath> takes longer to compile than a kernel
float expf(float), exp2f(float), logf(float), sqrtf(float), fmaxf(float, float);
}
static float rsqrtf(float x) { return 1.f / sqrtf(x); }
static float __expf(float x) { return expf(x); }
static float __fdividef(float x, float y) { return x / y; }
static unsigned __umulhi(unsigned x, unsigned y) { return (std::uint64_t)x * y >> 32; }
static float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
static int max(int x, int y) { return x > y ? x : y; }

namespace cpu {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr std::size_t STACK = 128 << 10, MOST_SHARED = 256 << 10;
constexpr std::size_t GUARD = 64 << 20, MARGIN = 4096;  // inaccessible, and to be left unchanged

// What a lane waits for together with others.
struct Meeting {
    unsigned place = 0;  // line of the source; 0 while it does not wait
    unsigned lanes = 0;  // those that take part
    void* given = nullptr;
    void (*work)(const Meeting*) = nullptr;  // for all lanes at once, once they are there
};

struct Copy {
    void* to;
    const void* from;
};

struct Fiber {
    enum { RUNS, IN_WARP, AT_BARRIER, ENDED } state;
    bool is_new;
    ucontext_t start;
    jmp_buf place;
    Meeting meeting;
    std::vector<Copy> copies;
};

static std::vector<Fiber> fibers;
static char *stacks, *shared, *shared_end;  // pages after the end are inaccessible
static void (*kernel)(void**);
static void** arguments;
static jmp_buf scheduler;
static sigjmp_buf fault;
static char message[300];

static Fiber& self() { return fibers[threadIdx.x]; }

// ---------------------------------------------------------------- faults

[[noreturn]] static void fail(const char* what) {
    std::snprintf(message, sizeof message, "%s", what);
    siglongjmp(fault, 1);
}

static void on_signal(int number, siginfo_t* info, void*) {
    if (number == SIGILL || number == SIGTRAP)  // from the compiler's checks
        fail("an address is no multiple of its value's size, or an index is outside of an array");
    std::snprintf(message, sizeof message, "access to address %p", info->si_addr);
    siglongjmp(fault, 1);
}

// ---------------------------------------------------------------- fibers

static void wait_as(decltype(Fiber::state) state) {
    Fiber& fiber = self();
    fiber.state = state;
    if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}

static void enter() {
    kernel(arguments);
    self().state = Fiber::ENDED;
    _longjmp(scheduler, 1);
}

static void resume(unsigned thread) {
    threadIdx = {thread, 0, 0};
    Fiber& fiber = self();
    if (_setjmp(scheduler)) return;
    if (!fiber.is_new) _longjmp(fiber.place, 1);
    fiber.is_new = false;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks + thread * STACK;
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, enter, 0);
    setcontext(&fiber.start);
}

// Do the work of lanes that wait for each other, where all have come. Lanes that ended do not count.
static bool meet(unsigned first, unsigned count) {
    Meeting all[WARP];
    unsigned running = 0;
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = fibers[first + i];
        if (fiber.state == Fiber::IN_WARP) all[i] = fiber.meeting;
        if (fiber.state != Fiber::ENDED) running |= 1u << i;
    }
    bool any = false;
    for (unsigned i = 0; i < count; ++i) {
        if (!all[i].place) continue;
        Meeting together[WARP];
        unsigned there = 0, lanes = all[i].lanes & running;
        for (unsigned j = 0; j < count; ++j)
            if (lanes >> j & 1 && all[j].place == all[i].place && all[j].lanes == all[i].lanes) {
                there |= 1u << j;
                together[j] = all[j];
            }
        if (there != lanes) continue;
        all[i].work(together);
        for (unsigned j = 0; j < count; ++j)
            if (lanes >> j & 1) {
                fibers[first + j].state = Fiber::RUNS;
                all[j] = Meeting();
            }
        any = true;
    }
    return any;
}

// Let a warp's lanes run until all of them have ended or wait for other warps.
static bool run_warp(unsigned first, bool reversed) {
    unsigned left = fibers.size() - first, count = left < WARP ? left : WARP;
    bool any = false;
    do {
        for (unsigned i = 0; i < count; ++i) {
            unsigned thread = first + (reversed ? count - 1 - i : i);
            if (fibers[thread].state != Fiber::RUNS) continue;
            resume(thread);
            any = true;
        }
    } while (meet(first, count));
    return any;
}

static void run_block(bool reversed) {
    for (Fiber& fiber : fibers) {
        fiber.state = Fiber::RUNS;
        fiber.is_new = true;
        fiber.copies.clear();
    }
    std::memset(shared - MARGIN, 0xFF, shared_end - shared + MARGIN);
    unsigned warps = (fibers.size() + WARP - 1) / WARP;
    for (bool any = true; any;) {
        any = false;
        for (unsigned i = 0; i < warps; ++i)
            any |= run_warp((reversed ? warps - 1 - i : i) * WARP, reversed);
        unsigned missing = 0;
        for (Fiber& fiber : fibers) missing += fiber.state == Fiber::IN_WARP;
        if (missing) fail("lanes of a warp wait for others that do not come");
        for (Fiber& fiber : fibers)
            if (fiber.state == Fiber::AT_BARRIER) fiber.state = Fiber::RUNS;
    }
    for (const char* place = shared - MARGIN; place < shared; ++place)
        if (*place != (char)0xFF) fail("writes before shared memory");
}

static char* new_pages(std::size_t size) {
    return (char*)mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

// Run a kernel with blocks [x, y]; returns what went wrong, or null.
static const char* run(void (*body)(void**), void** given, unsigned x, unsigned y, unsigned threads,
                       std::size_t shared_bytes, bool reversed) {
    if (!stacks) {
        stacks = new_pages(MOST_THREADS * STACK);
        shared_end = new_pages(MOST_SHARED + GUARD) + MOST_SHARED;
        mprotect(shared_end, GUARD, PROT_NONE);
    }
    shared = shared_end - (shared_bytes + 15) / 16 * 16;
    kernel = body;
    arguments = given;
    fibers.resize(threads);
    gridDim = {x, y, 1};
    blockDim = {threads, 1, 1};
    const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    struct sigaction old[4], own = {};
    own.sa_sigaction = on_signal;
    own.sa_flags = SA_SIGINFO;
    for (int i = 0; i < 4; ++i) sigaction(numbers[i], &own, &old[i]);
    bool failed = sigsetjmp(fault, 1);
    for (unsigned i = 0; i < x * y && !failed; ++i) {
        unsigned block = reversed ? x * y - 1 - i : i;
        blockIdx = {block % x, block / x, 0};
        run_block(reversed);
    }
    for (int i = 0; i < 4; ++i) sigaction(numbers[i], &old[i], nullptr);
    if (!failed) return nullptr;
    std::size_t used = std::strlen(message);
    std::snprintf(message + used, sizeof message - used, ", in thread %u of block (%u, %u)",
                  threadIdx.x, blockIdx.x, blockIdx.y);
    return message;
}

// ---------------------------------------------------------------- what lanes do together

static void together(unsigned place, unsigned lanes, void* given, void (*work)(const Meeting*)) {
    if (!(lanes >> threadIdx.x % WARP & 1)) fail("a lane does not name itself");
    self().meeting = {place, lanes, given, work};
    wait_as(Fiber::IN_WARP);
}

struct Exchange {
    float value, got;
    unsigned from;
};

static float exchange(unsigned place, unsigned lanes, float value, unsigned from) {
    Exchange own = {value, 0.f, from % WARP};
    together(place, lanes, &own, [](const Meeting* all) {
        for (unsigned i = 0; i < WARP; ++i) {
            if (!all[i].place) continue;
            Exchange& to = *(Exchange*)all[i].given;
            const Meeting& other = all[to.from];
            to.got = other.place ? ((Exchange*)other.given)->value : __uint_as_float(~0u);
        }
    });
    return own.got;
}

struct Product {
    float* sum;
    const unsigned *a, *b;
};

static float widened(unsigned bits);  // the lower 16 bits, as the element type

// As "Matrix Fragments for mma.m16n8k16 with floating point type" in the PTX ISA.
static void multiply_tiles(const Meeting* all) {
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < WARP; ++lane) {
        const Product& of = *(const Product*)all[lane].given;
        for (unsigned i = 0; i < 4; ++i)
            for (unsigned j = 0; j < 2; ++j)
                a[lane / 4 + i % 2 * 8][lane % 4 * 2 + j + i / 2 * 8] = widened(of.a[i] >> 16 * j);
        for (unsigned i = 0; i < 2; ++i)
            for (unsigned j = 0; j < 2; ++j)
                b[lane % 4 * 2 + j + i * 8][lane / 4] = widened(of.b[i] >> 16 * j);
    }
    for (unsigned lane = 0; lane < WARP; ++lane) {
        const Product& of = *(const Product*)all[lane].given;
        for (unsigned i = 0; i < 4; ++i) {
            unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            for (unsigned k = 0; k < 16; ++k) of.sum[i] += a[row][k] * b[k][column];
        }
    }
}

struct Load {
    unsigned* tile;
    unsigned row;
};

// As ldmatrix .m8n8.x2.trans: lane 8 i + k has the address of row k of tile i.
static void load_tiles(const Meeting* all) {
    for (unsigned lane = 0; lane < WARP; ++lane)
        for (unsigned i = 0; i < 2; ++i) {
            unsigned both = 0;
            for (unsigned j = 0; j < 2; ++j) {
                unsigned row = ((const Load*)all[8 * i + lane % 4 * 2 + j].given)->row;
                if (row % 16) fail("a row of ldmatrix does not begin at a multiple of 16 bytes");
                both |= (unsigned)((const unsigned short*)(shared + row))[lane / 4] << 16 * j;
            }
            ((const Load*)all[lane].given)->tile[i] = both;
        }
}

}  // namespace cpu

static void __syncthreads() { cpu::wait_as(cpu::Fiber::AT_BARRIER); }
static float __shfl_sync(unsigned lanes, float value, unsigned from,
                         unsigned place = __builtin_LINE()) {
    return cpu::exchange(place, lanes, value, from);
}
static float __shfl_xor_sync(unsigned lanes, float value, unsigned step,
                             unsigned place = __builtin_LINE()) {
    return cpu::exchange(place, lanes, value, threadIdx.x % cpu::WARP ^ step);
}
static unsigned __cvta_generic_to_shared(const void* place) {
    return (const char*)place - cpu::shared;
}

// ---------------------------------------------------------------- instructions.cu

static float from_half(unsigned short bits) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
static unsigned short to_half(float value) {
    _Float16 narrow = value;
    unsigned short bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    return bits;
}
static unsigned short to_bfloat16(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return 0x7FFF;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;  // to the nearest, or the even one
}

static float cpu::widened(unsigned bits) {
#if defined(BFLOAT16)
    return __uint_as_float(bits << 16);
#else
    return from_half(bits);
#endif
}
static void multiply(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    cpu::Product given = {sum, a, b};
    cpu::together(1, ~0u, &given, cpu::multiply_tiles);
}
static void load_right_factor(unsigned (&tile)[2], unsigned row) {
    cpu::Load given = {tile, row};
    cpu::together(2, ~0u, &given, cpu::load_tiles);
}
static void copy_16_bytes(unsigned to, const void* from) {
    if (to % 16 || (std::uintptr_t)from % 16) cpu::fail("a copy's address is no multiple of 16");
    cpu::self().copies.push_back({cpu::shared + to, from});
}
static void await_copies() {
    for (const cpu::Copy& copy : cpu::self().copies) std::memcpy(copy.to, copy.from, 16);
    cpu::self().copies.clear();
}
