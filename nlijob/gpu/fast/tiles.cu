// Tiles of a matrix as a warp holds them for the tensor cores: `lane / 4` is a row of its tile and
// `lane % 4` a pair of columns.

typedef unsigned int Two;  // two neighbouring values

__device__ Two two(const T* place) { return *reinterpret_cast<const Two*>(place); }
__device__ Two two(float first, float second) {
    return (Two)down(first) | (Two)down(second) << 16;
}
__device__ int lane() { return threadIdx.x % 32; }

// Store two neighbouring values.
__device__ void put(T* place, float first, float second) {
    *reinterpret_cast<Two*>(place) = two(first, second);
}
__device__ void put(float* place, float first, float second) {
    *reinterpret_cast<float2*>(place) = make_float2(first, second);
}
