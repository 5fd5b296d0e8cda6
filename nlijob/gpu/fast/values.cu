// The element type T (FLOAT32, BFLOAT16 or FLOAT16 is defined), and eight neighbouring values.
// Arithmetic is in float32.

#if defined(FLOAT32)
typedef float T;
__device__ float up(T value) { return value; }
__device__ T down(float value) { return value; }
#elif defined(BFLOAT16)
typedef unsigned short T;
__device__ float up(T value) { return __uint_as_float((unsigned)value << 16); }
__device__ T down(float value) {
    T bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#else
typedef unsigned short T;
__device__ float up(T value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
    return wide;
}
__device__ T down(float value) {
    T bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

#define EACH for (int i = 0; i < 8; ++i)

struct __align__(16) Eight {
    T of[8];
};

__device__ Eight& at(T* base, long place) { return *reinterpret_cast<Eight*>(base + place); }
__device__ const Eight& at(const T* base, long place) {
    return *reinterpret_cast<const Eight*>(base + place);
}
