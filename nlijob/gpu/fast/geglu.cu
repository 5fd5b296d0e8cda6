// The activation of a gated MLP that has GELU where swiglu has SiLU.

#define ROWS 4  // rows per thread
#define OF_ROWS \
    _Pragma("unroll") for (int r = 0; r < ROWS; ++r) if (first + r < rows)

// The tanh approximation of GELU equals v * sigmoid(2 * inner(v)).
__device__ float inner(float v) { return 0.7978845608028654f * (v + 0.044715f * v * v * v); }
__device__ float sigmoid(float v) { return __fdividef(1.f, 1.f + __expf(-v)); }

// out = gelu(gate) * up, where y has both side by side, `width` columns each.
extern "C" __global__ void geglu(const T* y, long stride, T* out, long out_stride, int width,
                                 int rows) {
    long first = blockIdx.y * ROWS;
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (c >= width) return;
    Eight g[ROWS], u[ROWS];
    OF_ROWS {
        g[r] = at(y, (first + r) * stride + c);
        u[r] = at(y, (first + r) * stride + width + c);
    }
    OF_ROWS {
        EACH {
            float v = up(g[r].of[i]);
            g[r].of[i] = down(v * sigmoid(2.f * inner(v)) * up(u[r].of[i]));
        }
        at(out, (first + r) * out_stride + c) = g[r];
    }
}

// y = gradient of y through geglu, given d_out.
extern "C" __global__ void geglu_backward(T* y, long stride, const T* d_out, long d_stride,
                                          int width, int rows) {
    long first = blockIdx.y * ROWS;
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (c >= width) return;
    Eight g[ROWS], u[ROWS], d[ROWS];
    OF_ROWS {
        g[r] = at(y, (first + r) * stride + c);
        u[r] = at(y, (first + r) * stride + width + c);
        d[r] = at(d_out, (first + r) * d_stride + c);
    }
    OF_ROWS {
        EACH {
            float v = up(g[r].of[i]), s = sigmoid(2.f * inner(v)), grad = up(d[r].of[i]);
            float slope = 1.5957691216057308f * (1.f + 0.134145f * v * v);
            g[r].of[i] = down(grad * up(u[r].of[i]) * (s + v * s * (1.f - s) * slope));
            u[r].of[i] = down(grad * v * s);
        }
        at(y, (first + r) * stride + c) = g[r];
        at(y, (first + r) * stride + width + c) = u[r];
    }
}
