// The inner loop of every product: a few rows by two vectors of columns, held in registers.
//
// c[row][column] = sum over k of a[row, k] * b[k, column], with b laid out as it is read, two vectors for each k. A k
// is a float, or a pair of bfloat16 that are multiplied and summed at once.
// Sums run over k in order, whatever the number of rows: what a token gets does not depend on its neighbours.
#pragma once
#include "vectors.h"

namespace modernbert {

// Registers: ROWS * 2 sums, 2 of b, 1 of a: 16 with AVX2, 32 with AVX-512.
constexpr int TILE_ROWS = LANES == 16 ? 14 : 6;
constexpr int TILE_COLUMNS = 2 * LANES;

inline Floats everywhere(const float *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_set1_ps(*from);  // bits as they are: they may be a pair
#else
    return (Floats)_mm256_set1_ps(*from);
#endif
}

struct OfFloats {
    static constexpr int SIZE = 1;
    static Floats added(Floats sums, Floats x, Floats y) { return sums + x * y; }
};

#if defined(__AVX512BF16__)
struct OfPairs {
    static constexpr int SIZE = 2;
    static Floats added(Floats sums, Floats x, Floats y) {
        return (Floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)x, (__m512bh)y);
    }
};
#endif

template <typename Kind, int ROWS, int VECTORS, bool A_IS_TURNED>
__attribute__((always_inline)) inline void tile(const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                                                int64_t depth, float *c, int64_t c_stride, bool adds) {
    Floats sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            sums[row][v] = adds ? load(c + row * c_stride + v * LANES) : Floats{};
    for (int64_t k = 0; k < depth; k++) {
        Floats columns[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) columns[v] = load(b + k * b_stride + v * LANES);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; row++) {
            const Floats x = everywhere(A_IS_TURNED ? a + k * a_stride + row : a + row * a_stride + k);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sums[row][v] = Kind::added(sums[row][v], x, columns[v]);
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) store(c + row * c_stride + v * LANES, sums[row][v]);
}

// Any number of rows, in tiles. A_IS_TURNED: a's rows lie side by side, one k after the other.
template <typename Kind, int VECTORS, bool A_IS_TURNED>
void product(const float *a, int64_t a_stride, int64_t num_rows, const float *b, int64_t b_stride, int64_t depth,
             float *c, int64_t c_stride, bool adds) {
    const int64_t a_step = A_IS_TURNED ? 1 : a_stride;
    int64_t row = 0;
    for (; row + TILE_ROWS <= num_rows; row += TILE_ROWS)
        tile<Kind, TILE_ROWS, VECTORS, A_IS_TURNED>(a + row * a_step, a_stride, b, b_stride, depth, c + row * c_stride,
                                                    c_stride, adds);
    const float *last = a + row * a_step;
    float *to = c + row * c_stride;
    switch (num_rows - row) {
#define LAST(ROWS)                                                                                      \
    case ROWS:                                                                                          \
        if constexpr (ROWS < TILE_ROWS)                                                                 \
            tile<Kind, ROWS, VECTORS, A_IS_TURNED>(last, a_stride, b, b_stride, depth, to, c_stride, adds); \
        break;
        LAST(1) LAST(2) LAST(3) LAST(4) LAST(5) LAST(6) LAST(7) LAST(8) LAST(9) LAST(10) LAST(11) LAST(12) LAST(13)
#undef LAST
    }
}

}  // namespace modernbert
