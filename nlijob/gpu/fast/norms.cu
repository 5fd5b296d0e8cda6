// RMS norms of values in some columns of a wider matrix: of what is added to a residual, and of all
// heads of query, or of key, together. A block computes one token.

// out = (y + bias) * scale * weight, where scale is 1 / the root mean square of y + bias. bias may be
// null.
extern "C" __global__ void __launch_bounds__(1024)
    rms(const T* y, long stride, const T* bias, const T* weight, float epsilon, T* out,
        long out_stride, float* scales, int width) {
    long row = blockIdx.x;
    int c = threadIdx.x * 8;
    bool within = c < width;
    float v[8] = {}, squares = 0.f;
    if (within) {
        Eight a = at(y, row * stride + c), b = {};
        if (bias) b = at(bias, c);
        EACH {
            v[i] = up(a.of[i]) + up(b.of[i]);
            squares += v[i] * v[i];
        }
    }
    float scale = rsqrtf(block_sums(squares, 0.f).x / width + epsilon);
    if (within) {
        Eight a, w = at(weight, c);
        EACH a.of[i] = down(v[i] * scale * up(w.of[i]));
        at(out, row * out_stride + c) = a;
    }
    if (threadIdx.x == 0) scales[row] = scale;
}

// y = gradient of y through rms, given d_out.
extern "C" __global__ void __launch_bounds__(1024)
    rms_gradient(T* y, long stride, const T* bias, const float* scales, const T* weight,
                 const T* d_out, long d_stride, int width) {
    long row = blockIdx.x;
    int c = threadIdx.x * 8;
    bool within = c < width;
    float scale = scales[row], grad[8], normal[8], products = 0.f;
    if (within) {
        Eight a = at(y, row * stride + c), d = at(d_out, row * d_stride + c), w = at(weight, c), b = {};
        if (bias) b = at(bias, c);
        EACH {
            grad[i] = up(d.of[i]) * up(w.of[i]);
            normal[i] = (up(a.of[i]) + up(b.of[i])) * scale;
            products += grad[i] * normal[i];
        }
    }
    float along = block_sums(products, 0.f).x / width;
    if (within) {
        Eight a;
        EACH a.of[i] = down(scale * (grad[i] - normal[i] * along));
        at(y, row * stride + c) = a;
    }
}
