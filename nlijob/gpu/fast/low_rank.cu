// What adapters with dropout add to the gradient of their input. Compiled for adapters of rank RANK.
// Products are of 16-bit values, sums in float32.

#define SPAN 32  // columns of a block
#define LINE (SPAN + 8)  // a row in shared memory; padded so that rows lie in different banks

// into [tokens, width] += scale times the sum of inner a, times its mask, over all adapters. inner
// [tokens, adapters * RANK]: the gradients of the inner values. a [adapters, RANK, width]. kept
// [adapters, tokens, width]: 1 where a value was kept, and 0. A warp computes 16 tokens; the As of a
// block's columns are in shared memory.
extern "C" __global__ void __launch_bounds__(64)
    add_low_rank(T* into, long stride, const T* inner, long inner_stride, const T* a, long a_adapter,
                 long a_stride, const unsigned char* kept, float scale, int adapters, int tokens,
                 int width) {
    extern __shared__ __align__(16) T memory[];
    int first = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * 16;
    int column = blockIdx.y * SPAN, pair = lane() % 4 * 2;
    for (int i = threadIdx.x * 8; i < adapters * RANK * SPAN; i += blockDim.x * 8) {
        int row = i / SPAN, c = i % SPAN;
        T* to = memory + row * LINE + c;
        if (column + c < width)
            copy_16_bytes(__cvta_generic_to_shared(to),
                          a + row / RANK * a_adapter + row % RANK * a_stride + column + c);
        else
            at(to, 0) = Eight{};
    }
    // all that is read comes under way before anything waits for it
    int row[2] = {first + lane() / 4, first + lane() / 4 + 8};
    Two had[2][SPAN / 8] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < SPAN / 8; ++n)
            if (row[half] < tokens && column + 8 * n < width)
                had[half][n] = two(into + row[half] * stride + column + 8 * n + pair);
    float total[SPAN / 8][4] = {};
    for (int adapter = 0; adapter < adapters; ++adapter) {
        Two of[RANK / 16][4] = {};
        unsigned short masks[2][SPAN / 8] = {};
#pragma unroll
        for (int i = 0; i < RANK / 4; ++i)
            if (row[i % 2] < tokens)
                of[i / 4][i % 4] = two(inner + row[i % 2] * inner_stride + adapter * RANK +
                                       i / 4 * 16 + i % 4 / 2 * 8 + pair);
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int n = 0; n < SPAN / 8; ++n)
                if (row[half] < tokens && column + 8 * n < width)
                    masks[half][n] = *reinterpret_cast<const unsigned short*>(
                        kept + ((long)adapter * tokens + row[half]) * width + column + 8 * n + pair);
        if (!adapter) {
            await_copies();
            __syncthreads();
        }
        float sum[SPAN / 8][4] = {};
#pragma unroll
        for (int step = 0; step < RANK / 16; ++step) {
            unsigned place =
                __cvta_generic_to_shared(memory + (adapter * RANK + 16 * step + lane() % 16) * LINE);
#pragma unroll
            for (int n = 0; n < SPAN / 8; ++n) {
                Two b[2];
                load_right_factor(b, place + 16 * n);
                multiply(sum[n], of[step], b);
            }
        }
#pragma unroll
        for (int i = 0; i < SPAN / 2; ++i)
            if (masks[i % 4 / 2][i / 4] >> i % 2 * 8 & 0xFF) total[i / 4][i % 4] += sum[i / 4][i % 4];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < SPAN / 8; ++n)
            if (row[half] < tokens && column + 8 * n < width)
                put(into + row[half] * stride + column + 8 * n + pair,
                    up((T)had[half][n]) + scale * total[n][2 * half],
                    up((T)(had[half][n] >> 16)) + scale * total[n][2 * half + 1]);
}
