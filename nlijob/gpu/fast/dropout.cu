// Masks of dropout that follow from a value's place alone: its layer, row, position and column.

// Four random words for a counter and a key: Philox4x32-10 (Salmon et al., 2011, Parallel Random
// Numbers: As Easy as 1, 2, 3).
__device__ uint4 philox(uint4 c, uint2 key) {
    for (int round = 0; round < 10; ++round) {
        unsigned high = __umulhi(0xD2511F53u, c.x), low = 0xD2511F53u * c.x;
        unsigned high2 = __umulhi(0xCD9E8D57u, c.z), low2 = 0xCD9E8D57u * c.z;
        c = make_uint4(high2 ^ c.y ^ key.x, low2, high ^ c.w ^ key.y, low);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return c;
}

// kept [calls, tokens, width] = 1, or 0 for `dropped` of 65,536 values. rows, positions: of each
// token. key: seed (low, high) and step. call: number of each call. `like` is not read; its type
// chooses the kernel's. A thread computes eight columns, 16 bits for each.
extern "C" __global__ void __launch_bounds__(256)
    keep_by_row(const T* like, unsigned char* kept, const int* rows, const int* positions,
                const int* key, const int* call, int calls, int tokens, int width, int dropped) {
    long groups = (width + 7) / 8, place = (long)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= groups * tokens * calls) return;
    long line = place / groups;
    unsigned group = place % groups, number = call[line / tokens];
    int token = line % tokens;
    uint4 counter = make_uint4(number << 16 | group, positions[token], rows[token], key[2]);
    uint4 words = philox(counter, make_uint2(key[0], key[1]));
    unsigned of[4] = {words.x, words.y, words.z, words.w};
    unsigned char* to = kept + line * width + group * 8;
    if (width % 8 == 0) {
        unsigned bytes[2] = {0, 0};
        EACH bytes[i / 4] |= (unsigned)((of[i / 2] >> i % 2 * 16 & 0xFFFF) >= dropped) << i % 4 * 8;
        *reinterpret_cast<uint2*>(to) = make_uint2(bytes[0], bytes[1]);
    } else {
        EACH if (group * 8 + i < width) to[i] = (of[i / 2] >> i % 2 * 16 & 0xFFFF) >= dropped;
    }
}
