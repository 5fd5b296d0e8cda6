// Causal attention within each segment of a pack, in one kernel each way, for short segments: a
// block has one head of one segment, and all of it in shared memory. Compiled for a head's width
// HEAD, of which 2 * HALF values are rotated. Products are of 16-bit values, sums in float32.
//
// y has query, key and value of each token side by side, without their bias and not rotated yet.
// A warp has 16 queries and, backward, 16 keys; `lane / 4` is a row of its tile and `lane % 4` a
// pair of columns, as the tensor cores' instruction lays them out.

#define LINE (HEAD + 8)  // of shared memory: rows then lie in different banks
#define STEPS (HEAD / 16)
#define COLUMNS (HEAD / 8)
#define LOG2_E 1.4426950408889634f

typedef unsigned int Two;  // values side by side

__device__ Two two(const T* place) { return *reinterpret_cast<const Two*>(place); }
__device__ Two two(float first, float second) {
    return (Two)down(first) | (Two)down(second) << 16;
}
__device__ int lane() { return threadIdx.x % 32; }

// sum += a b, of a tile of 16 rows and 16 columns and one of 16 rows and 8 columns.
__device__ void multiply(float (&sum)[4], const Two (&a)[4], const Two (&b)[2]) {
#if defined(BFLOAT16)
#define KINDS "f32.bf16.bf16.f32"
#else
#define KINDS "f32.f16.f16.f32"
#endif
    asm volatile("mma.sync.aligned.m16n8k16.row.col." KINDS
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 16 rows of a matrix in shared memory, to be multiplied from the left.
struct Rows {
    Two of[STEPS][4];
    __device__ explicit Rows(const T* tile) {
        const T* place = tile + lane() / 4 * LINE + lane() % 4 * 2;
#pragma unroll
        for (int step = 0; step < STEPS; ++step, place += 16) {
            of[step][0] = two(place);
            of[step][1] = two(place + 8 * LINE);
            of[step][2] = two(place + 8);
            of[step][3] = two(place + 8 * LINE + 8);
        }
    }
};

// d = x y', of 16 rows each.
__device__ void against(float (&d)[2][4], const Rows& x, const T* y) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
        const T* place = y + (8 * n + lane() / 4) * LINE + lane() % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; ++i) d[n][i] = 0.f;
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            Two b[2] = {two(place + 16 * step), two(place + 16 * step + 8)};
            multiply(d[n], x.of[step], b);
        }
    }
}

// sum += p y, of a tile p [16, 16] as `against` leaves it and 16 rows of y.
__device__ void onto(float (&sum)[COLUMNS][4], const float (&p)[2][4], const T* y) {
    Two a[4] = {two(p[0][0], p[0][1]), two(p[0][2], p[0][3]), two(p[1][0], p[1][1]),
                two(p[1][2], p[1][3])};
    unsigned place = __cvta_generic_to_shared(y + lane() % 16 * LINE);
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
        Two b[2];
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(b[0]), "=r"(b[1])
                     : "r"(place + 16 * n));
        multiply(sum[n], a, b);
    }
}

// A segment's rows of one head of query (part 0), key or value, with bias and rotated, for all
// to see; rows up to a multiple of 16 are zero.
__device__ void load(T* into, int part, const T* y, long stride, const T* bias, const T* cosine,
                     const T* sine, int begin, int length, int padded, int width) {
    int column = part * width + blockIdx.y * HEAD;
    for (int i = threadIdx.x; i < padded * COLUMNS; i += blockDim.x) {
        int row = i / COLUMNS, c = i % COLUMNS * 8;
        T* to = into + row * LINE + c;
        bool rotates = part < 2 && c < 2 * HALF;
        if (rotates && c >= HALF) continue;  // done with its partner
        Eight a = {}, b = {};
        if (row < length) {
            const T* from = y + (begin + row) * stride + column + c;
            Eight p = at(bias, column + c);
            a = at(from, 0);
            EACH a.of[i] = down(up(a.of[i]) + up(p.of[i]));
            if (rotates) {
                long angle = (long)(begin + row) * HALF + c;
                Eight q = at(bias, column + c + HALF), cos = at(cosine, angle),
                      sin = at(sine, angle);
                b = at(from, HALF);
                EACH {
                    float first = up(a.of[i]), second = up(b.of[i]) + up(q.of[i]);
                    a.of[i] = down(first * up(cos.of[i]) - second * up(sin.of[i]));
                    b.of[i] = down(second * up(cos.of[i]) + first * up(sin.of[i]));
                }
            }
        }
        at(to, 0) = a;
        if (rotates) at(to, HALF) = b;
    }
}

// The same of values that are as they should be.
__device__ void load(T* into, const T* from, int begin, int length, int padded, int width) {
    for (int i = threadIdx.x; i < padded * COLUMNS; i += blockDim.x) {
        int row = i / COLUMNS, c = i % COLUMNS * 8;
        Eight a = {};
        if (row < length) a = at(from, (long)(begin + row) * width + blockIdx.y * HEAD + c);
        at(into, row * LINE + c) = a;
    }
}

// A warp's 16 rows to memory, those that are within the segment.
__device__ void store(const float (&d)[COLUMNS][4], float scale, T* to, long stride, int begin,
                      int length) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = threadIdx.x / 32 * 16 + lane() / 4 + 8 * half;
        if (row >= length) continue;
        T* place = to + (begin + row) * stride + lane() % 4 * 2;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
            *reinterpret_cast<Two*>(place + 8 * n) =
                two(d[n][2 * half] * scale, d[n][2 * half + 1] * scale);
    }
}

// Gradients of rotated values as gradients of what was rotated.
__device__ void rotate_back(float (&d)[COLUMNS][4], const T* cosine, const T* sine, int begin,
                            int length) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int row = threadIdx.x / 32 * 16 + lane() / 4 + i / 2 * 8;
        if (row >= length) continue;
        long angle = (long)(begin + row) * HALF + lane() % 4 * 2 + i % 2;
#pragma unroll
        for (int n = 0; n < HALF / 8; ++n) {
            float first = d[n][i], second = d[n + HALF / 8][i];
            float cos = up(cosine[angle + 8 * n]), sin = up(sine[angle + 8 * n]);
            d[n][i] = first * cos + second * sin;
            d[n + HALF / 8][i] = second * cos - first * sin;
        }
    }
}

// Over the four lanes that have a row between them.
__device__ float row_sum(float value) {
    value += __shfl_xor_sync(~0u, value, 1);
    return value + __shfl_xor_sync(~0u, value, 2);
}
__device__ float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, 1));
    return fmaxf(value, __shfl_xor_sync(~0u, value, 2));
}

// out = the attention's; logs [heads, tokens] = the logarithm of each query's sum of exponentials.
extern "C" __global__ void attend(const T* y, long stride, const T* bias, const T* cosine,
                                  const T* sine, const int* bounds, float scaling, T* out,
                                  float* logs, int width, long tokens) {
    extern __shared__ __align__(16) T memory[];
    int begin = bounds[blockIdx.x], length = bounds[blockIdx.x + 1] - begin;
    int padded = (length + 15) / 16 * 16;
    T *q = memory, *k = q + padded * LINE, *v = k + padded * LINE;
    load(q, 0, y, stride, bias, cosine, sine, begin, length, padded, width);
    load(k, 1, y, stride, bias, cosine, sine, begin, length, padded, width);
    load(v, 2, y, stride, bias, cosine, sine, begin, length, padded, width);
    __syncthreads();
    int warp = threadIdx.x / 32, first = warp * 16;
    if (first >= length) return;

    Rows queries(q + first * LINE);
    float most[2] = {-1e30f, -1e30f}, sum[2] = {0.f, 0.f}, of[COLUMNS][4] = {};
    float s[2][4];
    for (int tile = 0; tile <= warp; ++tile) {
        against(s, queries, k + tile * 16 * LINE);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            int key = tile * 16 + i / 4 * 8 + lane() % 4 * 2 + i % 2;
            int query = first + lane() / 4 + i % 4 / 2 * 8;
            if (key <= query) most[i % 4 / 2] = fmaxf(most[i % 4 / 2], s[i / 4][i % 4]);
        }
    }
    most[0] = row_max(most[0]);
    most[1] = row_max(most[1]);
    for (int tile = 0; tile <= warp; ++tile) {
        against(s, queries, k + tile * 16 * LINE);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            int key = tile * 16 + i / 4 * 8 + lane() % 4 * 2 + i % 2;
            int query = first + lane() / 4 + i % 4 / 2 * 8;
            float& p = s[i / 4][i % 4];
            p = key <= query ? exp2f((p - most[i % 4 / 2]) * (scaling * LOG2_E)) : 0.f;
            sum[i % 4 / 2] += p;
        }
        onto(of, s, v + tile * 16 * LINE);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        sum[half] = row_sum(sum[half]);
        int row = first + lane() / 4 + 8 * half;
        if (row < length && lane() % 4 == 0)
            logs[blockIdx.y * tokens + begin + row] = most[half] * scaling + logf(sum[half]);
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
            of[n][2 * half] /= sum[half];
            of[n][2 * half + 1] /= sum[half];
        }
    }
    store(of, 1.f, out + blockIdx.y * HEAD, width, begin, length);
}

// y = its gradient, of d_out; out and logs are those of `attend`.
extern "C" __global__ void attend_backward(T* y, long stride, const T* bias, const T* cosine,
                                           const T* sine, const int* bounds, float scaling,
                                           const T* out, const float* logs, const T* d_out,
                                           int width, long tokens) {
    extern __shared__ __align__(16) T memory[];
    int begin = bounds[blockIdx.x], length = bounds[blockIdx.x + 1] - begin;
    int padded = (length + 15) / 16 * 16;
    T *q = memory, *k = q + padded * LINE, *v = k + padded * LINE, *g = v + padded * LINE;
    float* log = reinterpret_cast<float*>(g + padded * LINE);
    float* delta = log + padded;  // what a query's outputs and their gradients come to
    load(q, 0, y, stride, bias, cosine, sine, begin, length, padded, width);
    load(k, 1, y, stride, bias, cosine, sine, begin, length, padded, width);
    load(v, 2, y, stride, bias, cosine, sine, begin, length, padded, width);
    load(g, d_out, begin, length, padded, width);
    for (int row = threadIdx.x; row < padded; row += blockDim.x) {
        float total = 0.f;
        if (row < length) {
            long place = (long)(begin + row) * width + blockIdx.y * HEAD;
            for (int c = 0; c < HEAD; c += 8) {
                Eight a = at(out, place + c), b = at(d_out, place + c);
                EACH total += up(a.of[i]) * up(b.of[i]);
            }
        }
        delta[row] = total;
        log[row] = row < length ? logs[blockIdx.y * tokens + begin + row] : 0.f;
    }
    __syncthreads();
    int warp = threadIdx.x / 32, first = warp * 16;
    if (first >= length) return;
    T* mine = y + blockIdx.y * HEAD;
    float s[2][4], d[2][4];
    {
        Rows queries(q + first * LINE), grads(g + first * LINE);
        float d_query[COLUMNS][4] = {};
        for (int tile = 0; tile <= warp; ++tile) {
            against(s, queries, k + tile * 16 * LINE);
            against(d, grads, v + tile * 16 * LINE);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                int key = tile * 16 + i / 4 * 8 + lane() % 4 * 2 + i % 2;
                int query = first + lane() / 4 + i % 4 / 2 * 8;
                float& value = s[i / 4][i % 4];
                float p = exp2f((value * scaling - log[query]) * LOG2_E);
                value = key <= query ? p * (d[i / 4][i % 4] - delta[query]) : 0.f;
            }
            onto(d_query, s, k + tile * 16 * LINE);
        }
        rotate_back(d_query, cosine, sine, begin, length);
        store(d_query, scaling, mine, stride, begin, length);
    }
    Rows keys(k + first * LINE), values(v + first * LINE);
    float d_key[COLUMNS][4] = {}, d_value[COLUMNS][4] = {};
    for (int tile = warp; tile * 16 < length; ++tile) {
        against(s, keys, q + tile * 16 * LINE);
        against(d, values, g + tile * 16 * LINE);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            int query = tile * 16 + i / 4 * 8 + lane() % 4 * 2 + i % 2;
            int key = first + lane() / 4 + i % 4 / 2 * 8;
            float& p = s[i / 4][i % 4];
            p = key <= query ? exp2f((p * scaling - log[query]) * LOG2_E) : 0.f;
            d[i / 4][i % 4] = p * (d[i / 4][i % 4] - delta[query]);
        }
        onto(d_value, s, g + tile * 16 * LINE);
        onto(d_key, d, q + tile * 16 * LINE);
    }
    rotate_back(d_key, cosine, sine, begin, length);
    store(d_key, scaling, mine + width, stride, begin, length);
    store(d_value, 1.f, mine + 2 * width, stride, begin, length);
}
