// The activation of a gated MLP: SwiGLU, or GeGLU where GELU is 1. As in kernels.cu, eight neighbouring
// values are read and written at once.

#define ROWS 4  // rows per thread, which has the same columns in all of them
#define OF_ROWS \
    _Pragma("unroll") for (int r = 0; r < ROWS; ++r) if (first + r < rows)

__device__ float sigmoid(float v) { return __fdividef(1.f, 1.f + __expf(-v)); }

// Both activations are v * sigmoid(inner(v)): GELU in its tanh approximation.
#if GELU
__device__ float inner(float v) { return 1.5957691216057308f * (v + 0.044715f * v * v * v); }
__device__ float slope(float v) { return 1.5957691216057308f * (1.f + 0.134145f * v * v); }
#else
__device__ float inner(float v) { return v; }
__device__ float slope(float) { return 1.f; }
#endif

// out = activation(gate) * up, where y has both side by side, `width` columns each.
extern "C" __global__ void gate(const T* y, long stride, T* out, long out_stride, int width,
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
            g[r].of[i] = down(v * sigmoid(inner(v)) * up(u[r].of[i]));
        }
        at(out, (first + r) * out_stride + c) = g[r];
    }
}

// y = gradient of y through `gate`, given d_out.
extern "C" __global__ void gate_backward(T* y, long stride, const T* d_out, long d_stride, int width,
                                         int rows) {
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
            float v = up(g[r].of[i]), s = sigmoid(inner(v)), grad = up(d[r].of[i]);
            g[r].of[i] = down(grad * up(u[r].of[i]) * s * (1.f + v * (1.f - s) * slope(v)));
            u[r].of[i] = down(grad * v * s);
        }
        at(y, (first + r) * stride + c) = g[r];
        at(y, (first + r) * stride + width + c) = u[r];
    }
}
