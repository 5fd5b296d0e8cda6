// The elementwise parts of a decoder layer with RMS norms and grouped queries, each in one pass over
// memory. As in kernels.cu, eight neighbouring values are read and written at once.

// total = x + z + bias (just x if z is null; bias may be null); normed = total * scale * weight, where
// scale is 1 / its root mean square. A block computes one token.
extern "C" __global__ void __launch_bounds__(1024)
    residual_rms(const T* x, const T* z, long z_stride, const T* bias, const T* weight,
                 float epsilon, T* total, T* normed, float* scales, int width) {
    long row = blockIdx.x;
    int c = threadIdx.x * 8;
    bool within = c < width;
    Eight a = {}, w;
    float squares = 0.f;
    if (within) {
        a = at(x, row * width + c);
        w = at(weight, c);
        if (z) {
            Eight b = at(z, row * z_stride + c), d = {};
            if (bias) d = at(bias, c);
            EACH a.of[i] = down(up(a.of[i]) + up(b.of[i]) + up(d.of[i]));
            at(total, row * width + c) = a;
        }
        EACH squares += up(a.of[i]) * up(a.of[i]);
    }
    float scale = rsqrtf(block_sums(squares, 0.f).x / width + epsilon);
    if (within) {
        EACH a.of[i] = down(up(a.of[i]) * scale * up(w.of[i]));
        at(normed, row * width + c) = a;
    }
    if (threadIdx.x == 0) scales[row] = scale;
}

// out = residual + gradient of x through residual_rms's norm, given d_normed.
extern "C" __global__ void __launch_bounds__(1024)
    rms_backward(const T* x, const float* scales, const T* weight, const T* d_normed, long d_stride,
                 const T* residual, long residual_stride, T* out, long out_stride, int width) {
    long row = blockIdx.x;
    int c = threadIdx.x * 8;
    bool within = c < width;
    float scale = scales[row], grad[8], normal[8], products = 0.f;
    Eight r;
    if (within) {
        Eight a = at(x, row * width + c), w = at(weight, c), d = at(d_normed, row * d_stride + c);
        r = at(residual, row * residual_stride + c);
        EACH {
            grad[i] = up(d.of[i]) * up(w.of[i]);
            normal[i] = up(a.of[i]) * scale;
            products += grad[i] * normal[i];
        }
    }
    float along = block_sums(products, 0.f).x / width;
    if (within) {
        EACH r.of[i] = down(up(r.of[i]) + scale * (grad[i] - normal[i] * along));
        at(out, row * out_stride + c) = r;
    }
}

// A warp has one head of a token; a lane has eight of its values, or none.
__device__ float warp_sum(float value) {
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    return value;
}

// Rotate a head's values in pairs (i, i + half), by the angle or back (sign 1 or -1).
__device__ void rotate(float (&v)[8], int c, int half, float sign, const T* cosine, const T* sine) {
    bool is_first = c < half;
    int partner = (threadIdx.x % 32 + (is_first ? half / 8 : -half / 8)) & 31;
    float other[8];
    EACH other[i] = __shfl_sync(~0u, v[i], partner);
    if (c >= 2 * half) return;
    int place = is_first ? c : c - half;
    Eight cos = at(cosine, place), sin = at(sine, place);
    float turn = is_first ? -sign : sign;
    EACH v[i] = v[i] * up(cos.of[i]) + turn * other[i] * up(sin.of[i]);
}

// Add the bias to query, key and value of a token, side by side in y; normalise each head of query
// and key, if there are weights for that, and rotate them. A block computes one token.
extern "C" __global__ void __launch_bounds__(1024)
    complete_heads(const T* y, long stride, const T* bias, const T* query_weight,
                   const T* key_weight, float epsilon, const T* cosine, const T* sine, T* out,
                   long out_stride, int heads, int kv_heads, int head, int half) {
    long row = blockIdx.x;
    int c = threadIdx.x % 32 * 8;
    bool within = c < head;
    for (int h = threadIdx.x / 32; h < heads + 2 * kv_heads; h += blockDim.x / 32) {
        bool is_value = h >= heads + kv_heads;
        if (is_value && !bias && y == out) break;  // nothing changes
        const T* weight = is_value ? nullptr : h < heads ? query_weight : key_weight;
        float v[8] = {}, squares = 0.f;
        if (within) {
            Eight a = at(y, row * stride + h * head + c), b = {};
            if (bias) b = at(bias, h * head + c);
            EACH v[i] = up(a.of[i]) + up(b.of[i]);
            EACH squares += v[i] * v[i];
        }
        if (weight) {
            float scale = rsqrtf(warp_sum(squares) / head + epsilon);
            Eight w = {};
            if (within) w = at(weight, c);
            EACH v[i] *= scale * up(w.of[i]);
        }
        if (!is_value) rotate(v, c, half, 1.f, cosine + row * half, sine + row * half);
        if (within) {
            Eight a;
            EACH a.of[i] = down(v[i]);
            at(out, row * out_stride + h * head + c) = a;
        }
    }
}

// Add `count` times eight neighbouring values, `stride` apart, from where bounds say that a segment
// has tokens (all, if bounds are null). The others are read as well, so that no read waits for
// another; they may hold anything.
__device__ void add(float (&sum)[8], const float* from, int count, long stride, const int* bounds) {
#pragma unroll 8
    for (int n = 0; n < count; ++n, from += stride) {
        float4 a = reinterpret_cast<const float4*>(from)[0];
        float4 b = reinterpret_cast<const float4*>(from)[1];
        bool counts = !bounds || bounds[n] < bounds[n + 1];
        float more[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        EACH sum[i] += counts ? more[i] : 0.f;
    }
}

// Write the gradient of complete_heads's input to y, which has that input where heads are normalised.
// d_query: gradient of its queries. d_own [tokens, 2 * group * kv_heads * head]: gradients of its keys
// and of its values, for each of the `group` query heads that use them; those of the first `prefix`
// tokens are in d_prefix [segments, prefix, ...] instead, for each segment that has tokens.
extern "C" __global__ void __launch_bounds__(1024)
    head_gradients(const T* d_query, long d_stride, const float* d_own, const float* d_prefix,
                   const int* bounds, int segments, int prefix, int group, const T* bias,
                   const T* query_weight, const T* key_weight, float epsilon, const T* cosine,
                   const T* sine, T* y, long stride, int heads, int kv_heads, int head, int half) {
    long row = blockIdx.x;
    int c = threadIdx.x % 32 * 8, columns = group * kv_heads * head;
    bool within = c < head;
    for (int h = threadIdx.x / 32; h < heads + 2 * kv_heads; h += blockDim.x / 32) {
        bool is_value = h >= heads + kv_heads;
        const T* weight = is_value ? nullptr : h < heads ? query_weight : key_weight;
        float d[8] = {};
        if (within && h < heads) {
            Eight a = at(d_query, row * d_stride + h * head + c);
            EACH d[i] = up(a.of[i]);
        } else if (within) {
            int of_kind = h - heads - is_value * kv_heads;
            long column = is_value * columns + of_kind * group * head + c;
            if (row >= prefix)
                add(d, d_own + row * 2 * columns + column, group, head, nullptr);
            else
                for (int g = 0; g < group; ++g, column += head)
                    add(d, d_prefix + row * 2 * columns + column, segments,
                        (long)prefix * 2 * columns, bounds);
        }
        if (!is_value) rotate(d, c, half, -1.f, cosine + row * half, sine + row * half);
        if (weight) {
            float normal[8] = {}, squares = 0.f, along = 0.f;
            Eight a = {}, b = {}, w = {};
            if (within) {
                a = at(y, row * stride + h * head + c);
                w = at(weight, c);
                if (bias) b = at(bias, h * head + c);
            }
            EACH normal[i] = up(a.of[i]) + up(b.of[i]);
            EACH squares += normal[i] * normal[i];
            float scale = rsqrtf(warp_sum(squares) / head + epsilon);
            EACH {
                d[i] *= up(w.of[i]);
                normal[i] *= scale;
                along += d[i] * normal[i];
            }
            along = warp_sum(along) / head;
            EACH d[i] = scale * (d[i] - normal[i] * along);
        }
        if (within) {
            Eight a;
            EACH a.of[i] = down(d[i]);
            at(y, row * stride + h * head + c) = a;
        }
    }
}
