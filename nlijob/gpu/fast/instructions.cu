// The instructions that CUDA's C++ has no name for. Every source begins with this file, and nothing
// else contains PTX: tests replace it to run the kernels on a CPU.

__device__ float from_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ unsigned short to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
__device__ unsigned short to_bfloat16(float value) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// sum += a b, with tiles a [16, 16] and b [16, 8] of 16-bit values, two in each number.
__device__ void multiply(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(BFLOAT16)
#define KINDS "f32.bf16.bf16.f32"
#else
#define KINDS "f32.f16.f16.f32"
#endif
    asm("mma.sync.aligned.m16n8k16.row.col." KINDS
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Read a tile [16, 8] of 16-bit values for `multiply`; `row`: address of a row in shared memory, in
// each of the first 16 lanes.
__device__ void load_right_factor(unsigned (&tile)[2], unsigned row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(tile[0]), "=r"(tile[1])
                 : "r"(row));
}

// Start copying 16 bytes from global memory to an address in shared memory.
__device__ void copy_16_bytes(unsigned to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// Wait for this thread's copies.
__device__ void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

