// Tiles of a matrix as a warp holds them for the tensor cores: `lane / 4` is a row of its tile and
// `lane % 4` a pair of columns.

typedef unsigned int Two;  // two neighbouring values

__device__ Two two(const T* place) { return *reinterpret_cast<const Two*>(place); }
__device__ Two two(float first, float second) {
    return (Two)down(first) | (Two)down(second) << 16;
}
__device__ int lane() { return threadIdx.x % 32; }

// sum += a b, with tiles a [16, 16] and b [16, 8].
__device__ void multiply(float (&sum)[4], const Two (&a)[4], const Two (&b)[2]) {
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

// Store two neighbouring values.
__device__ void put(T* place, float first, float second) {
    *reinterpret_cast<Two*>(place) = two(first, second);
}
__device__ void put(float* place, float first, float second) {
    *reinterpret_cast<float2*>(place) = make_float2(first, second);
}
