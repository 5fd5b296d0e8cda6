// The element type T (FLOAT32, BFLOAT16 or FLOAT16 is defined), and eight neighbouring values.
// Arithmetic is in float32.

#if defined(FLOAT32)
typedef float T;
__device__ float up(T value) { return value; }
__device__ T down(float value) { return value; }
#elif defined(BFLOAT16)
typedef unsigned short T;
__device__ float up(T value) { return __uint_as_float((unsigned)value << 16); }
__device__ T down(float value) { return to_bfloat16(value); }
#else
typedef unsigned short T;
__device__ float up(T value) { return from_half(value); }
__device__ T down(float value) { return to_half(value); }
#endif

#define EACH for (int i = 0; i < 8; ++i)

struct __align__(16) Eight {
    T of[8];
};

__device__ Eight& at(T* base, long place) { return *reinterpret_cast<Eight*>(base + place); }
__device__ const Eight& at(const T* base, long place) {
    return *reinterpret_cast<const Eight*>(base + place);
}

// Sums over the block, returned to every thread.
__device__ float2 block_sums(float first, float second) {
    __shared__ float2 of_warp[32];
    for (int step = 16; step; step /= 2) {
        first += __shfl_xor_sync(~0u, first, step);
        second += __shfl_xor_sync(~0u, second, step);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = make_float2(first, second);
    __syncthreads();
    float2 sums = make_float2(0.f, 0.f);
    for (int warp = 0; warp < (blockDim.x + 31) / 32; ++warp) {
        sums.x += of_warp[warp].x;
        sums.y += of_warp[warp].y;
    }
    return sums;
}
