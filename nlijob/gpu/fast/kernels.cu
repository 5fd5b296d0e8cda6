// The elementwise parts of a decoder layer, each in one pass over memory.
//
// Eight neighbouring values are read and written at once: widths and strides are multiples of
// eight. Strides count elements. A block computes one token unless stated otherwise.

#define ROWS 4  // rows per thread in kernels where a thread has the same columns of several rows
#define OF_ROWS \
    _Pragma("unroll") for (int r = 0; r < ROWS; ++r) if (first + r < rows)

// sum = x + z + bias (or just x if z is null); normed = its layer norm; stats = mean, 1 / std.
extern "C" __global__ void __launch_bounds__(1024)
    residual_norm(const T* x, const T* z, long z_stride, const T* bias, const T* weight,
                  const T* shift, float epsilon, T* sum, T* normed, float* stats, int width) {
    long row = blockIdx.x;
    int c = threadIdx.x * 8;
    bool within = c < width;
    Eight a = {}, w, s;
    float total = 0.f, squares = 0.f;
    if (within) {
        a = at(x, row * width + c);
        w = at(weight, c);
        s = at(shift, c);
        if (z) {
            Eight b = at(z, row * z_stride + c), d = at(bias, c);
            EACH a.of[i] = down(up(a.of[i]) + up(b.of[i]) + up(d.of[i]));
            at(sum, row * width + c) = a;
        }
        EACH total += up(a.of[i]);
    }
    float mean = block_sums(total, 0.f).x / width;
    if (within) EACH squares += (up(a.of[i]) - mean) * (up(a.of[i]) - mean);
    float scale = rsqrtf(block_sums(squares, 0.f).x / width + epsilon);
    if (within) {
        EACH a.of[i] = down((up(a.of[i]) - mean) * scale * up(w.of[i]) + up(s.of[i]));
        at(normed, row * width + c) = a;
    }
    if (threadIdx.x == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = scale;
    }
}

// out = residual + gradient of x through residual_norm's layer norm, given d_normed.
extern "C" __global__ void __launch_bounds__(1024)
    norm_backward(const T* x, const float* stats, const T* weight, const T* d_normed, long d_stride,
                  const T* residual, long residual_stride, T* out, long out_stride, int width) {
    long row = blockIdx.x;
    int c = threadIdx.x * 8;
    bool within = c < width;
    float mean = stats[2 * row], scale = stats[2 * row + 1];
    float grad[8], normal[8], grads = 0.f, products = 0.f;
    Eight r;
    if (within) {
        Eight a = at(x, row * width + c), w = at(weight, c), d = at(d_normed, row * d_stride + c);
        r = at(residual, row * residual_stride + c);
        EACH {
            grad[i] = up(d.of[i]) * up(w.of[i]);
            normal[i] = (up(a.of[i]) - mean) * scale;
            grads += grad[i];
            products += grad[i] * normal[i];
        }
    }
    float2 sums = block_sums(grads, products);
    if (within) {
        EACH r.of[i] = down(up(r.of[i]) +
                            scale * (grad[i] - sums.x / width - normal[i] * (sums.y / width)));
        at(out, row * out_stride + c) = r;
    }
}

// Add the bias to query, key and value of a token, side by side in y, and apply the rotary
// embedding to the first 2 * half values of each head of query and key, in pairs (i, i + half).
extern "C" __global__ void bias_rotate(T* y, long stride, const T* bias, const T* cosine,
                                       const T* sine, int width, int head, int half) {
    long row = blockIdx.x;
    for (int c = threadIdx.x * 8; c < 3 * width; c += blockDim.x * 8) {
        int place = c % head;
        T* here = y + row * stride;
        bool rotates = c < 2 * width && place < 2 * half;
        if (rotates && place >= half) continue;  // computed together with its partner
        Eight a = at(here, c), p = at(bias, c);
        if (!rotates) {
            EACH a.of[i] = down(up(a.of[i]) + up(p.of[i]));
            at(here, c) = a;
            continue;
        }
        Eight b = at(here, c + half), q = at(bias, c + half);
        Eight cos = at(cosine, row * half + place), sin = at(sine, row * half + place);
        EACH {
            float first = up(a.of[i]) + up(p.of[i]), second = up(b.of[i]) + up(q.of[i]);
            a.of[i] = down(first * up(cos.of[i]) - second * up(sin.of[i]));
            b.of[i] = down(second * up(cos.of[i]) + first * up(sin.of[i]));
        }
        at(here, c) = a;
        at(here, c + half) = b;
    }
}

// Rotate back the separate gradients of query, key and value, and write them side by side.
extern "C" __global__ void rotate_back(const T* query, const T* key, const T* value,
                                       const T* cosine, const T* sine, T* out, long stride,
                                       int width, int head, int half) {
    long row = blockIdx.x;
    for (int c = threadIdx.x * 8; c < 3 * width; c += blockDim.x * 8) {
        int part = c / width, inside = c % width, place = c % head;
        const T* from = (part == 0 ? query : part == 1 ? key : value) + row * width + inside;
        T* to = out + row * stride + c;
        bool rotates = part < 2 && place < 2 * half;
        if (rotates && place >= half) continue;
        Eight a = at(from, 0);
        if (rotates) {
            Eight b = at(from, half);
            Eight cos = at(cosine, row * half + place), sin = at(sine, row * half + place);
            EACH {
                float first = up(a.of[i]), second = up(b.of[i]);
                a.of[i] = down(first * up(cos.of[i]) + second * up(sin.of[i]));
                b.of[i] = down(second * up(cos.of[i]) - first * up(sin.of[i]));
            }
            at(to, half) = b;
        }
        at(to, 0) = a;
    }
}

// The tanh approximation of GELU equals v * sigmoid(2 * inner(v)).
__device__ float inner(float v) { return 0.7978845608028654f * (v + 0.044715f * v * v * v); }
__device__ float sigmoid(float v) { return __fdividef(1.f, 1.f + __expf(-v)); }

// out = gelu(u + bias), followed by the `more` columns of `beside`.
extern "C" __global__ void bias_gelu(const T* u, long u_stride, const T* bias, const T* beside,
                                     long beside_stride, int more, T* out, long out_stride,
                                     int width, int rows) {
    long first = blockIdx.y * ROWS;
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    Eight a[ROWS], b;
    if (c < width) {
        b = at(bias, c);
        OF_ROWS a[r] = at(u, (first + r) * u_stride + c);
        OF_ROWS EACH {
            float v = up(a[r].of[i]) + up(b.of[i]);
            a[r].of[i] = down(v * sigmoid(2.f * inner(v)));
        }
    } else if (c < width + more) {
        OF_ROWS a[r] = at(beside, (first + r) * beside_stride + c - width);
    }
    if (c < width + more) OF_ROWS at(out, (first + r) * out_stride + c) = a[r];
}

// u = gradient of u through bias_gelu, given d_out; beside = the last `more` columns of d_out.
extern "C" __global__ void gelu_backward(T* u, long u_stride, const T* bias, const T* d_out,
                                         long d_stride, T* beside, long beside_stride, int more,
                                         int width, int rows) {
    long first = blockIdx.y * ROWS;
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    Eight a[ROWS], b, d[ROWS];
    if (c >= width + more) return;
    OF_ROWS d[r] = at(d_out, (first + r) * d_stride + c);
    if (c >= width) {
        OF_ROWS at(beside, (first + r) * beside_stride + c - width) = d[r];
        return;
    }
    b = at(bias, c);
    OF_ROWS a[r] = at(u, (first + r) * u_stride + c);
    OF_ROWS EACH {
        float v = up(a[r].of[i]) + up(b.of[i]);
        float s = sigmoid(2.f * inner(v));
        float slope = 1.5957691216057308f * (1.f + 0.134145f * v * v);
        a[r].of[i] = down(up(d[r].of[i]) * (s + v * s * (1.f - s) * slope));
    }
    OF_ROWS at(u, (first + r) * u_stride + c) = a[r];
}

// out[j] = x * kept[j] * scale for each of n masks.
extern "C" __global__ void drop(const T* x, const unsigned char* kept, float scale, T* out,
                                long size, int n) {
    long place = ((long)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (place >= size) return;
    Eight a = at(x, place);
    for (int j = 0; j < n; ++j) {
        Eight o;
        EACH o.of[i] = kept[j * size + place + i] ? down(up(a.of[i]) * scale) : down(0.f);
        at(out, j * size + place) = o;
    }
}

// into += sum over j of parts[j] * kept[j] * scale.
extern "C" __global__ void add_kept(T* into, long stride, const T* parts, const unsigned char* kept,
                                    float scale, int n, long rows, int width) {
    long row = blockIdx.x;
    for (int c = threadIdx.x * 8; c < width; c += blockDim.x * 8) {
        Eight a = at(into, row * stride + c);
        float total[8];
        EACH total[i] = up(a.of[i]);
        for (int j = 0; j < n; ++j) {
            long place = (j * rows + row) * width + c;
            Eight p = at(parts, place);
            EACH total[i] += kept[place + i] ? up(p.of[i]) * scale : 0.f;
        }
        EACH a.of[i] = down(total[i]);
        at(into, row * stride + c) = a;
    }
}

// out [rows, width] = x * kept * scale, where the rows of x lie `stride` apart.
extern "C" __global__ void drop_rows(const T* x, long stride, const unsigned char* kept,
                                     float scale, T* out, int width) {
    long row = blockIdx.x;
    for (int c = threadIdx.x * 8; c < width; c += blockDim.x * 8) {
        Eight a = at(x, row * stride + c);
        long place = row * width + c;
        EACH a.of[i] = kept[place + i] ? down(up(a.of[i]) * scale) : down(0.f);
        at(out, place) = a;
    }
}
