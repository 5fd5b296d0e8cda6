// The heads of attention made final, for adapters of rank RANK. Compiled for heads of width HEAD, of
// which 2 * HALF values are rotated. Products are of 16-bit values, sums in float32.

#define COLUMNS (HEAD / 8)

// Complete query, key and value of 16 tokens in a warp, one head: add inner b' to y and the bias,
// normalise queries and keys if there are weights for that, and rotate them. y [tokens, columns] has
// the heads side by side; `low_rank` the products of their input with the As. b [columns, ranks]: the
// Bs; those of queries, keys and values begin at the given ranks, or at -1 if there are none. `out`
// may be y; y gets the values before bias and norm of heads that are normalised.
extern "C" __global__ void __launch_bounds__(128)
    finish_heads(T* y, long stride, const T* low_rank, const T* b, long b_stride, int query_rank,
                 int key_rank, int value_rank, const T* bias, const T* query_weight,
                 const T* key_weight, float epsilon, const T* cosine, const T* sine, T* out,
                 long out_stride, int heads, int kv_heads, int tokens) {
    int h = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32, pair = lane() % 4 * 2;
    if (h >= heads + 2 * kv_heads) return;
    int part = (h >= heads) + (h >= heads + kv_heads), column = h * HEAD;
    int rank = part == 0 ? query_rank : part == 1 ? key_rank : value_rank;
    const T* weight = part == 0 ? query_weight : part == 1 ? key_weight : nullptr;
    long row[2] = {blockIdx.x * 16 + lane() / 4, blockIdx.x * 16 + lane() / 4 + 8};
    float sum[COLUMNS][4] = {};
    if (rank >= 0) {
#pragma unroll
        for (int step = 0; step < RANK / 16; ++step) {
            int place = rank + 16 * step + pair;
            Two a[4] = {};
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (row[i % 2] < tokens) a[i] = two(low_rank + row[i % 2] * stride + place + i / 2 * 8);
#pragma unroll
            for (int n = 0; n < COLUMNS; ++n) {
                const T* from = b + (column + 8 * n + lane() / 4) * b_stride + place;
                Two of[2] = {two(from), two(from + 8)};
                multiply(sum[n], a, of);
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (row[half] >= tokens) continue;  // all four lanes of a row
        T* from = y + row[half] * stride + column + pair;
        float squares = 0.f;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
            float &x = sum[n][2 * half], &z = sum[n][2 * half + 1];
            Two had = two(from + 8 * n);
            x += up((T)had);
            z += up((T)(had >> 16));
            if (weight && rank >= 0) put(from + 8 * n, x, z);
            if (bias) {
                Two add = two(bias + column + 8 * n + pair);
                x += up((T)add);
                z += up((T)(add >> 16));
            }
            squares += x * x + z * z;
        }
        if (weight) {
            unsigned lanes = 0xFu << lane() / 4 * 4;
            squares += __shfl_xor_sync(lanes, squares, 1);
            squares += __shfl_xor_sync(lanes, squares, 2);
            float scale = rsqrtf(squares / HEAD + epsilon);
#pragma unroll
            for (int n = 0; n < COLUMNS; ++n) {
                Two w = two(weight + 8 * n + pair);
                sum[n][2 * half] *= scale * up((T)w);
                sum[n][2 * half + 1] *= scale * up((T)(w >> 16));
            }
        }
        if (part < 2) {
#pragma unroll
            for (int n = 0; n < HALF / 8; ++n) {
                Two cos = two(cosine + row[half] * HALF + 8 * n + pair);
                Two sin = two(sine + row[half] * HALF + 8 * n + pair);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float &x = sum[n][2 * half + i], &z = sum[n + HALF / 8][2 * half + i];
                    float c = up((T)(cos >> 16 * i)), s = up((T)(sin >> 16 * i)), turned = x * s;
                    x = x * c - z * s;
                    z = z * c + turned;
                }
            }
        }
        T* to = out + row[half] * out_stride + column + pair;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
            put(to + 8 * n, sum[n][2 * half], sum[n][2 * half + 1]);
    }
}
