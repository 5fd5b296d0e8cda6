// Causal attention within each segment of a pack, with one kernel in each direction. Segments are
// short: a block computes one head of one segment, and holds all of it in shared memory. Compiled
// for heads of width HEAD, of which 2 * HALF values are rotated, and an adapter of rank RANK.
// GROUP query heads share a head of keys and values. Where FINAL is 1, queries, keys and values come
// final, as `finish_heads` writes them, and the gradients of keys and values are written for each
// query head: gated.cu sums them.
// Products are of 16-bit values, sums in float32.
//
// With a shared prefix, which only the first segment contains, a block puts the prefix's rows
// before its own and computes their final keys and values again: that is faster than waiting for
// another block. Its gradient of the prefix goes to a buffer that `prefix_gradients` sums.
//
// A warp computes 16 queries at a time and, backward, 16 keys; `lane / 4` is a row of its tile and
// `lane % 4` a pair of columns, which is the tensor cores' layout.

#define LINE (HEAD + 8)  // a row in shared memory; padded so that rows lie in different banks
#define B_LINE (RANK + 8)
#define STEPS (HEAD / 16)
#define COLUMNS (HEAD / 8)
#define LOG2_E 1.4426950408889634f

// First column of a block's queries (part 0), keys (1) or values (2) in y; `width` is the queries'.
__device__ int column_of(int part, int width) {
    if (part == 0) return blockIdx.y * HEAD;
    return width + (part - 1) * (width / GROUP) + blockIdx.y / GROUP * HEAD;
}

// 16 rows of a matrix in shared memory, as the left factor of products.
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

// Row (counted from `first`) and column (counted from `tile`) of value i of a lane's part of a tile
// [16, 16]. Macros, because functions compile to different code than was measured.
#define ROW(first, i) (first + lane() / 4 + i % 4 / 2 * 8)
#define COLUMN(tile, i) (tile + i / 4 * 8 + lane() % 4 * 2 + i % 2)

// d = x y', where x and y have 16 rows each.
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

// sum += p y, with a tile p [16, 16] as written by `against`, and 16 rows of y.
__device__ void onto(float (&sum)[COLUMNS][4], const float (&p)[2][4], const T* y) {
    Two a[4] = {two(p[0][0], p[0][1]), two(p[0][2], p[0][3]), two(p[1][0], p[1][1]),
                two(p[1][2], p[1][3])};
    unsigned place = __cvta_generic_to_shared(y + lane() % 16 * LINE);
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
        Two b[2];
        load_right_factor(b, place + 16 * n);
        multiply(sum[n], a, b);
    }
}

// Start copying 16 bytes from global to shared memory; `fetched` waits for them.
__device__ void fetch(T* to, const T* from) {
    copy_16_bytes(__cvta_generic_to_shared(to), from);
}
__device__ void fetched() {
    await_copies();
    __syncthreads();
}

// The rows of a block: the prefix's `shared` rows if another segment contains them, then the rows of
// its own segment.
struct Segment {
    int begin, shared, length, tile;  // `tile`: first row of the first tile with rows of its own
    __device__ Segment(const int* bounds, int prefix) {
        begin = bounds[blockIdx.x];
        int own = bounds[blockIdx.x + 1] - begin;
        shared = blockIdx.x && own ? prefix : 0;
        length = shared + own;
        tile = shared / 16 * 16;
    }
    __device__ int token(int row) const { return row < shared ? row : begin + row - shared; }
    __device__ int padded() const { return (length + 15) / 16 * 16; }
};

// Addresses of a token's final values; the prefix has its values in a buffer of its own.
struct Completed {
    const T *prefix_values, *y;
    int prefix, width;
    long stride;
    __device__ const T* operator()(int token) const {
        return token < prefix ? prefix_values + (long)token * 3 * width : y + token * stride;
    }
};

// Fetch a head's rows of a segment, from row `first` on, and pad with zero rows to a multiple of
// 16. `from` returns the address of a token's values.
template <class From>
__device__ void fetch_rows(T* into, const From& from, const Segment& rows, int first) {
    for (int i = threadIdx.x; i < (rows.padded() - first) * COLUMNS; i += blockDim.x) {
        int row = first + i / COLUMNS, c = i % COLUMNS * 8;
        if (row < rows.length)
            fetch(into + row * LINE + c, from(rows.token(row)) + c);
        else
            at(into, row * LINE + c) = Eight{};
    }
}

// Products of 16 rows' input with the adapter's As, for query, key and value.
struct Inner {
    Two of[3][RANK / 16 + !RANK][4] = {};
    __device__ Inner(const T* inner, long stride, int first, const Segment& rows) {
        int row = first + lane() / 4;
        const T* place[2] = {inner + rows.token(row) * stride + lane() % 4 * 2,
                             inner + rows.token(row + 8) * stride + lane() % 4 * 2};
#pragma unroll
        for (int i = 0; i < 3 * (RANK / 16) * 4; ++i)
            if (row + i % 2 * 8 < rows.length)
                of[i / 4 / (RANK / 16 + !RANK)][i / 4 % (RANK / 16 + !RANK)][i % 4] =
                    two(place[i % 2] + i / 4 * 16 + i % 4 / 2 * 8);
    }
};

// Compute 16 rows of final queries (part 0), keys (1) or values (2) in place: add inner b' and the
// bias, then rotate. Everything is in shared memory; `cosine` and `sine` begin at the first row.
__device__ void complete(T* tile, int part, const Inner& inner, const T* b, const T* bias,
                         const T* cosine, const T* sine) {
    int pair = lane() % 4 * 2;
    float sum[COLUMNS][4] = {};
#pragma unroll
    for (int step = 0; step < RANK / 16; ++step) {
        const T* from = b + lane() / 4 * B_LINE + step * 16 + pair;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
            Two of[2] = {two(from + 8 * n * B_LINE), two(from + 8 * n * B_LINE + 8)};
            multiply(sum[n], inner.of[part][step], of);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = lane() / 4 + 8 * half;
        T* place = tile + row * LINE + pair;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
            Two y = two(place + 8 * n), add = two(bias + 8 * n + pair);
            sum[n][2 * half] += up((T)y) + up((T)add);
            sum[n][2 * half + 1] += up((T)(y >> 16)) + up((T)(add >> 16));
        }
        if (part < 2) {
#pragma unroll
            for (int n = 0; n < HALF / 8; ++n) {
                Two cos = two(cosine + row * HALF + 8 * n + pair);
                Two sin = two(sine + row * HALF + 8 * n + pair);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float &x = sum[n][2 * half + i], &z = sum[n + HALF / 8][2 * half + i];
                    float c = up((T)(cos >> 16 * i)), s = up((T)(sin >> 16 * i)), turned = x * s;
                    x = x * c - z * s;
                    z = z * c + turned;
                }
            }
        }
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
            *reinterpret_cast<Two*>(place + 8 * n) = two(sum[n][2 * half], sum[n][2 * half + 1]);
    }
}

// Store a warp's 16 rows, from row `least` on, times `scale`. `to`: address of token 0's values.
template <class To>
__device__ void store(const float (&d)[COLUMNS][4], float scale, To* to, long stride, int first,
                      int least, const Segment& rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = first + lane() / 4 + 8 * half;
        if (row < least || row >= rows.length) continue;
        To* place = to + rows.token(row) * stride + lane() % 4 * 2;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
            put(place + 8 * n, d[n][2 * half] * scale, d[n][2 * half + 1] * scale);
    }
}

// Store the rows of a warp's 16 that belong to the prefix in d_prefix [prefix, 2 width].
__device__ void store_prefix(const float (&d)[COLUMNS][4], float scale, float* d_prefix, int width,
                             int first, int prefix) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = first + lane() / 4 + 8 * half;
        if (row >= prefix) continue;
        float* place = d_prefix + (long)row * 2 * width + lane() % 4 * 2;
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
            *reinterpret_cast<float2*>(place + 8 * n) =
                make_float2(d[n][2 * half] * scale, d[n][2 * half + 1] * scale);
    }
}

// Turn gradients of rotated values into gradients of the values before rotation.
__device__ void rotate_back(float (&d)[COLUMNS][4], const T* cosine, const T* sine, int first,
                            const Segment& rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = first + lane() / 4 + 8 * half;
        if (row >= rows.length) continue;
#pragma unroll
        for (int n = 0; n < HALF / 8; ++n) {
            long angle = (long)rows.token(row) * HALF + 8 * n + lane() % 4 * 2;
            Two cos = two(cosine + angle), sin = two(sine + angle);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float &x = d[n][2 * half + i], &z = d[n + HALF / 8][2 * half + i];
                float c = up((T)(cos >> 16 * i)), s = up((T)(sin >> 16 * i)), turned = x * s;
                x = x * c + z * s;
                z = z * c - turned;
            }
        }
    }
}

// Sum and maximum over the four lanes that share a row.
__device__ float row_sum(float value) {
    value += __shfl_xor_sync(~0u, value, 1);
    return value + __shfl_xor_sync(~0u, value, 2);
}
__device__ float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, 1));
    return fmaxf(value, __shfl_xor_sync(~0u, value, 2));
}

// Write zeros to a head's values of `count` tokens.
template <class To>
__device__ void clear(To* to, long stride, int count) {
    for (int i = threadIdx.x; i < count * (HEAD / 2); i += blockDim.x)
        put(to + (long)(i / (HEAD / 2)) * stride + i % (HEAD / 2) * 2, 0.f, 0.f);
}

// out [tokens, width] = attention; logs [heads, tokens] = log-sum-exp of each query's scores.
// y [tokens, 3 width] has queries, keys and values before adapter, bias and rotation; `low_rank` has
// the products of their input with the As. With `keep`, the final queries, keys and values are
// written to y, and the prefix's to prefix_values [prefix, 3 width]. row_count: the number of segments
// that are rows, or a null pointer if all are; for the others, out is 0.
extern "C" __global__ void __launch_bounds__(MAX_THREADS)
    attend(T* y, long stride, const T* low_rank, const T* b, long b_part, long b_stride,
           const T* bias, const T* cosine, const T* sine, const int* bounds, const int* row_count,
           int prefix, float scaling, T* out, float* logs, T* prefix_values, int width, long tokens,
           int keep) {
    extern __shared__ __align__(16) T memory[];
    Segment rows(bounds, prefix);
    int padded = rows.padded(), column = blockIdx.y * HEAD;
    if (row_count && blockIdx.x >= *row_count) {
        clear(out + column + (long)rows.begin * width, width, rows.length - rows.shared);
        return;
    }
    T *q = memory, *k = q + padded * LINE, *v = k + padded * LINE;
    T *cosines = v + padded * LINE, *sines = cosines + padded * HALF;
    T *biases = sines + padded * HALF, *beside = biases + 3 * HEAD;
    for (int part = 0; part < 3; ++part) {
        auto from = [=](int token) { return y + token * stride + column_of(part, width); };
        fetch_rows(q + part * padded * LINE, from, rows, part ? 0 : rows.tile);
    }
#if FINAL
    fetched();
#else
    for (int i = threadIdx.x * 8; i < rows.length * HALF; i += blockDim.x * 8) {
        long angle = (long)rows.token(i / HALF) * HALF + i % HALF;
        fetch(cosines + i, cosine + angle);
        fetch(sines + i, sine + angle);
    }
    for (int i = threadIdx.x * 8; i < 3 * HEAD; i += blockDim.x * 8)
        fetch(biases + i, bias + i / HEAD * width + column + i % HEAD);
    for (int i = threadIdx.x * 8; i < 3 * HEAD * RANK; i += blockDim.x * 8) {
        int row = i / (RANK + !RANK), c = i % (RANK + !RANK), part = row / HEAD;
        fetch(beside + row * B_LINE + c, b + part * b_part + (column + row % HEAD) * b_stride + c);
    }
    Inner inner(low_rank, stride, threadIdx.x / 32 * 16, rows);  // while the copies are under way
    fetched();
    for (int first = threadIdx.x / 32 * 16; first < rows.length; first += blockDim.x / 2) {
        if (first >= blockDim.x / 2) inner = Inner(low_rank, stride, first, rows);
#pragma unroll
        for (int part = 0; part < 3; ++part)
            if (part || first >= rows.tile)
                complete(q + (part * padded + first) * LINE, part, inner,
                         beside + part * HEAD * B_LINE, biases + part * HEAD,
                         cosines + first * HALF, sines + first * HALF);
    }
    __syncthreads();
    if (keep) {
        int own = rows.length - rows.shared;
        for (int i = threadIdx.x; i < 3 * own * COLUMNS; i += blockDim.x) {
            int part = i / (own * COLUMNS), row = rows.shared + i / COLUMNS % own;
            int token = rows.token(row), c = i % COLUMNS * 8;
            T* to = token < prefix ? prefix_values + (long)token * 3 * width : y + token * stride;
            at(to, part * width + column + c) = at(q, (part * padded + row) * LINE + c);
        }
    }
#endif

    for (int first = rows.tile + threadIdx.x / 32 * 16; first < rows.length; first += blockDim.x / 2) {
        Rows queries(q + first * LINE);
        float most[2] = {-1e30f, -1e30f}, sum[2] = {0.f, 0.f}, of[COLUMNS][4] = {};
        float s[2][4];
        for (int tile = 0; tile <= first; tile += 16) {
            against(s, queries, k + tile * LINE);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                int key = COLUMN(tile, i);
                int query = ROW(first, i);
                if (key <= query) most[i % 4 / 2] = fmaxf(most[i % 4 / 2], s[i / 4][i % 4]);
            }
        }
        most[0] = row_max(most[0]);
        most[1] = row_max(most[1]);
        for (int tile = 0; tile <= first; tile += 16) {
            against(s, queries, k + tile * LINE);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                int key = COLUMN(tile, i);
                int query = ROW(first, i);
                float& p = s[i / 4][i % 4];
                p = key <= query ? exp2f((p - most[i % 4 / 2]) * (scaling * LOG2_E)) : 0.f;
                sum[i % 4 / 2] += p;
            }
            onto(of, s, v + tile * LINE);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            sum[half] = row_sum(sum[half]);
            int row = first + lane() / 4 + 8 * half;
            if (row >= rows.shared && row < rows.length && lane() % 4 == 0)
                logs[blockIdx.y * tokens + rows.token(row)] = most[half] * scaling + logf(sum[half]);
            float share = 1.f / sum[half];
#pragma unroll
            for (int n = 0; n < COLUMNS; ++n) {
                of[n][2 * half] *= share;
                of[n][2 * half + 1] *= share;
            }
        }
        store(of, 1.f, out + column, width, first, rows.shared, rows);
    }
}

// Replace y's queries, keys and values by the gradients of `attend`'s input, given d_out. y, out,
// logs and prefix_values are as `attend` wrote them. The gradients of the prefix's keys and values
// go, for each segment, to d_prefix [segments, prefix, 2 width] instead; where FINAL is 1, those of
// other tokens go to d_own [tokens, 2 width], with as many heads as queries have. The gradients of
// segments that are no rows are 0.
extern "C" __global__ void __launch_bounds__(MAX_THREADS)
    attend_backward(T* y, long stride, const T* cosine, const T* sine, const int* bounds,
                    const int* row_count, int prefix, float scaling, const T* out, const float* logs,
                    const T* prefix_values, const T* d_out, long d_stride, float* d_prefix,
                    float* d_own, int width, long tokens) {
    extern __shared__ __align__(16) T memory[];
    Segment rows(bounds, prefix);
    int padded = rows.padded(), column = blockIdx.y * HEAD;
    T *q = memory, *k = q + padded * LINE, *v = k + padded * LINE, *g = v + padded * LINE;
    float* log = reinterpret_cast<float*>(g + padded * LINE);
    float* delta = log + padded;  // product of each query's output and its gradient
    y += column;
    d_out += column;
    d_prefix += (long)blockIdx.x * prefix * 2 * width + column;
    if (row_count && blockIdx.x >= *row_count) {
        int own = rows.length - rows.shared;
        clear(y + rows.begin * stride, stride, own);
        for (int part = 0; part < 2; ++part) {
            if (own) clear(d_prefix + part * width, 2 * width, prefix);
#if FINAL
            clear(d_own + column + part * width + (long)rows.begin * 2 * width, 2 * width, own);
#else
            clear(y + (part + 1) * width + rows.begin * stride, stride, own);
#endif
        }
        return;
    }
    for (int part = 0; part < 3; ++part) {
#if FINAL
        auto from = [=](int token) { return y - column + token * stride + column_of(part, width); };
#else
        Completed from{prefix_values + part * width + column, y + part * width, prefix, width,
                       stride};
#endif
        fetch_rows(q + part * padded * LINE, from, rows, part ? 0 : rows.tile);
    }
    auto of_out = [=](int token) { return d_out + token * d_stride; };
    fetch_rows(g, of_out, rows, rows.tile);
    for (int row = rows.tile + threadIdx.x; row < padded; row += blockDim.x) {
        float total = 0.f;
        long token = rows.token(row);
        if (row < rows.length) {
#pragma unroll
            for (int c = 0; c < HEAD; c += 8) {
                Eight a = at(out, token * width + column + c), b = at(d_out, token * d_stride + c);
                EACH total += up(a.of[i]) * up(b.of[i]);
            }
        }
        delta[row] = total;
        log[row] = row < rows.length ? logs[blockIdx.y * tokens + token] : 0.f;
    }
    fetched();

    float s[2][4], d[2][4];
    for (int first = rows.tile + threadIdx.x / 32 * 16; first < rows.length; first += blockDim.x / 2) {
        Rows queries(q + first * LINE), grads(g + first * LINE);
        float d_query[COLUMNS][4] = {};
        for (int tile = 0; tile <= first; tile += 16) {
            against(s, queries, k + tile * LINE);
            against(d, grads, v + tile * LINE);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                int key = COLUMN(tile, i);
                int query = ROW(first, i);
                float& value = s[i / 4][i % 4];
                float p = exp2f((value * scaling - log[query]) * LOG2_E);
                value = key <= query ? p * (d[i / 4][i % 4] - delta[query]) : 0.f;
            }
            onto(d_query, s, k + tile * LINE);
        }
        if (!FINAL) rotate_back(d_query, cosine, sine, first, rows);
        store(d_query, scaling, y, stride, first, rows.shared, rows);
    }
    for (int first = threadIdx.x / 32 * 16; first < rows.length; first += blockDim.x / 2) {
        Rows keys(k + first * LINE), values(v + first * LINE);
        float d_key[COLUMNS][4] = {}, d_value[COLUMNS][4] = {};
        for (int tile = max(first, rows.tile); tile < rows.length; tile += 16) {
            against(s, keys, q + tile * LINE);
            against(d, values, g + tile * LINE);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                int query = COLUMN(tile, i);
                int key = ROW(first, i);
                bool looks = key <= query && query >= rows.shared;
                float& p = s[i / 4][i % 4];
                p = looks ? exp2f((p * scaling - log[query]) * LOG2_E) : 0.f;
                d[i / 4][i % 4] = p * (d[i / 4][i % 4] - delta[query]);
            }
            onto(d_value, s, g + tile * LINE);
            onto(d_key, d, q + tile * LINE);
        }
        if (!FINAL) rotate_back(d_key, cosine, sine, first, rows);
        if (first < prefix) {
            store_prefix(d_key, scaling, d_prefix, width, first, prefix);
            store_prefix(d_value, 1.f, d_prefix + width, width, first, prefix);
        }
#if FINAL
        store(d_key, scaling, d_own + column, 2 * width, first, prefix, rows);
        store(d_value, 1.f, d_own + width + column, 2 * width, first, prefix, rows);
#else
        store(d_key, scaling, y + width, stride, first, prefix, rows);
        store(d_value, 1.f, y + 2 * width, stride, first, prefix, rows);
#endif
    }
}

// Write the prefix's gradients of keys and values to y: the sums of d_prefix over all segments.
extern "C" __global__ void __launch_bounds__(MAX_THREADS)
    prefix_gradients(T* y, long stride, const float* d_prefix, const int* bounds, int segments,
                     int prefix, int width) {
    long row = blockIdx.x;
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
    if (c >= 2 * width) return;
    float sum[8] = {};
    for (int segment = 0; segment < segments; ++segment) {
        if (bounds[segment] == bounds[segment + 1]) continue;
        const float4* from =
            reinterpret_cast<const float4*>(d_prefix + (segment * prefix + row) * 2 * width + c);
        float4 a = from[0], b = from[1];
        float more[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        EACH sum[i] += more[i];
    }
    Eight total;
    EACH total.of[i] = down(sum[i]);
    at(y, row * stride + width + c) = total;
}
