#include "bytes.h"

#include <cmath>
#include <cstring>

namespace modernbert {
namespace {

#if defined(__AVX512BW__)
typedef __m512i Words;
inline Words widened(const int8_t *from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
}
inline Words pair_everywhere(const int16_t *from) {
    int32_t pair;
    std::memcpy(&pair, from, 4);
    return _mm512_set1_epi32(pair);
}
inline Ints added(Ints sums, Words a, Words b) { return sums + (Ints)_mm512_madd_epi16(a, b); }
inline void round_to_words(Floats x, int16_t *to) {
    const __m256i words = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)x));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), words);
}
#else
typedef __m256i Words;
inline Words widened(const int8_t *from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
}
inline Words pair_everywhere(const int16_t *from) {
    int32_t pair;
    std::memcpy(&pair, from, 4);
    return _mm256_set1_epi32(pair);
}
inline Ints added(Ints sums, Words a, Words b) { return sums + (Ints)_mm256_madd_epi16(a, b); }
inline void round_to_words(Floats x, int16_t *to) {
    const __m256i whole = _mm256_cvtps_epi32((__m256)x);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), words);
}
#endif

template <int ROWS>
__attribute__((always_inline)) inline void tile_of_bytes(const int16_t *numbers, int64_t stride, const float *row_scales,
                                                         int64_t pairs, const int8_t *panel, const float *column_scales,
                                                         float *to) {
    Ints sums[ROWS][2] = {};
    for (int64_t k = 0; k < pairs; k++) {
        const Words first = widened(panel + k * 2 * TILE_COLUMNS);
        const Words second = widened(panel + k * 2 * TILE_COLUMNS + TILE_COLUMNS);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; row++) {
            const Words pair = pair_everywhere(numbers + row * stride + 2 * k);
            sums[row][0] = added(sums[row][0], pair, first);
            sums[row][1] = added(sums[row][1], pair, second);
        }
    }
    const Floats scale0 = load(column_scales), scale1 = load(column_scales + LANES);
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++) {
        store(to + row * TILE_COLUMNS, to_floats(sums[row][0]) * (scale0 * row_scales[row]));
        store(to + row * TILE_COLUMNS + LANES, to_floats(sums[row][1]) * (scale1 * row_scales[row]));
    }
}

}  // namespace

void to_numbers(const float *x, int64_t x_stride, int64_t num_rows, int64_t depth, int16_t *numbers, float *scales) {
    const int64_t stride = numbers_stride(depth);
    const float most = float(most_number(depth));
    for (int64_t row = 0; row < num_rows; row++, x += x_stride, numbers += stride) {
        Floats largest{}, nothing{};  // the latter is NaN where any is no number: a maximum leaves that out
        for (int64_t k = 0; k < depth; k += LANES) {
            largest = larger(absolute(load(x + k)), largest);
            nothing += load(x + k) * 0.0f;
        }
        const float sum = sum_of(nothing);
        const float top = largest_of(largest);
        scales[row] = sum == 0.0f ? top / most : NAN;
        // Rounding to the nearest does not lead past `most`, which is whole.
        const float factor = top > 0.0f && sum == 0.0f ? most / top : 0.0f;
        for (int64_t k = 0; k < depth; k += LANES) round_to_words(load(x + k) * factor, numbers + k);
        std::memset(numbers + depth, 0, size_t(stride - depth) * 2);
    }
}

void sum_bytes(const int16_t *numbers, const float *row_scales, int64_t num_rows, int64_t depth, const int8_t *panel,
               const float *column_scales, float *sums) {
    const int64_t stride = numbers_stride(depth), pairs = (depth + 1) / 2;
    int64_t row = 0;
    for (; row + TILE_ROWS <= num_rows; row += TILE_ROWS)
        tile_of_bytes<TILE_ROWS>(numbers + row * stride, stride, row_scales + row, pairs, panel, column_scales,
                                 sums + row * TILE_COLUMNS);
    const int16_t *last = numbers + row * stride;
    switch (num_rows - row) {
#define LAST(ROWS)                                                                                                   \
    case ROWS:                                                                                                       \
        if constexpr (ROWS < TILE_ROWS)                                                                              \
            tile_of_bytes<ROWS>(last, stride, row_scales + row, pairs, panel, column_scales, sums + row * TILE_COLUMNS); \
        break;
        LAST(1) LAST(2) LAST(3) LAST(4) LAST(5) LAST(6) LAST(7) LAST(8) LAST(9) LAST(10) LAST(11) LAST(12) LAST(13)
#undef LAST
    }
}

}  // namespace modernbert
