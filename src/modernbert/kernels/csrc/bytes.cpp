#include "bytes.h"

#include <cmath>
#include <cstring>

namespace modernbert {
namespace {

// A vector of groups: of weights as they are multiplied, or one group of activations everywhere.
#if defined(__AVX512VNNI__)
typedef __m512i Groups;
inline Groups weights_at(const int8_t *from) { return _mm512_loadu_si512(from); }
inline Groups everywhere(int32_t group) { return _mm512_set1_epi32(group); }
inline Ints added(Ints sums, Groups a, Groups b) { return (Ints)_mm512_dpbusd_epi32((__m512i)sums, a, b); }
inline void store_rounded(Floats x, int32_t zero, Number *to) {
    const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32((__m512)x), _mm512_set1_epi32(zero));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_cvtepi32_epi8(whole));
}
#elif defined(__AVX512BW__)
typedef __m512i Groups;
inline Groups weights_at(const int8_t *from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
}
inline Groups everywhere(int32_t group) { return _mm512_set1_epi32(group); }
inline Ints added(Ints sums, Groups a, Groups b) { return sums + (Ints)_mm512_madd_epi16(a, b); }
inline void store_rounded(Floats x, int32_t, Number *to) {
    const __m256i words = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)x));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), words);
}
#else
typedef __m256i Groups;
inline Groups weights_at(const int8_t *from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
}
inline Groups everywhere(int32_t group) { return _mm256_set1_epi32(group); }
inline Ints added(Ints sums, Groups a, Groups b) { return sums + (Ints)_mm256_madd_epi16(a, b); }
inline void store_rounded(Floats x, int32_t, Number *to) {
    const __m256i whole = _mm256_cvtps_epi32((__m256)x);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), words);
}
#endif

constexpr int64_t BYTES_OF_VECTOR = BYTES_OF_GROUP * LANES;

template <int ROWS>
__attribute__((always_inline)) inline void tile_of_bytes(const Number *numbers, int64_t stride, const RowScale *rows,
                                                         int64_t num_groups, const int8_t *panel,
                                                         const float *column_scales, const int32_t *column_sums,
                                                         float *to) {
    Ints sums[ROWS][2] = {};
    for (int64_t k = 0; k < num_groups; k++, panel += 2 * BYTES_OF_VECTOR) {
        const Groups first = weights_at(panel), second = weights_at(panel + BYTES_OF_VECTOR);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; row++) {
            int32_t group;
            std::memcpy(&group, numbers + row * stride + k * BYTES_OF_GROUP, 4);
            const Groups x = everywhere(group);
            sums[row][0] = added(sums[row][0], x, first);
            sums[row][1] = added(sums[row][1], x, second);
        }
    }
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        const Floats scale = load(column_scales + v * LANES);
        Ints of_column;
        std::memcpy(&of_column, column_sums + v * LANES, sizeof(of_column));
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; row++)
            store(to + row * TILE_COLUMNS + v * LANES,
                  to_floats(sums[row][v] - of_column * rows[row].zero) * (scale * rows[row].scale));
    }
}

}  // namespace

void to_numbers(const float *x, int64_t x_stride, int64_t num_rows, int64_t depth, Number *numbers, RowScale *scales) {
    constexpr bool IS_BYTE = sizeof(Number) == 1;
    const int64_t stride = numbers_stride<Number>(depth);
    const float most = float(most_number(depth));
    for (int64_t row = 0; row < num_rows; row++, x += x_stride, numbers += stride) {
        Floats high{}, low{}, nothing{};  // the last is NaN where any is no number: a maximum leaves that out
        for (int64_t k = 0; k < depth; k += LANES) {
            const Floats numbers_here = load(x + k);
            high = larger(numbers_here, high);
            low = larger(-numbers_here, low);
            nothing += numbers_here * 0.0f;
        }
        const float above = largest_of(high), below = largest_of(low);
        const float range = IS_BYTE ? above + below : above > below ? above : below;
        const bool is_number = sum_of(nothing) == 0.0f && std::isfinite(range);
        // Rounding to the nearest does not lead past `most`, which is whole.
        const float factor = range > 0.0f && is_number ? most / range : 0.0f;
        const int32_t zero = IS_BYTE ? int32_t(std::nearbyint(below * factor)) : 0;
        scales[row] = {is_number ? range / most : NAN, zero};
        for (int64_t k = 0; k < depth; k += LANES) store_rounded(load(x + k) * factor, zero, numbers + k);
        std::memset(numbers + depth, 0, size_t(stride - depth) * sizeof(Number));
    }
}

void sum_bytes(const Number *numbers, const RowScale *rows, int64_t num_rows, int64_t depth, const int8_t *panel,
               const float *column_scales, const int32_t *column_sums, float *sums) {
    const int64_t stride = numbers_stride<Number>(depth);
    const int64_t num_groups = (depth + BYTES_OF_GROUP - 1) / BYTES_OF_GROUP;
    int64_t row = 0;
    for (; row + TILE_ROWS <= num_rows; row += TILE_ROWS)
        tile_of_bytes<TILE_ROWS>(numbers + row * stride, stride, rows + row, num_groups, panel, column_scales,
                                 column_sums, sums + row * TILE_COLUMNS);
    switch (num_rows - row) {
#define LAST(ROWS)                                                                                             \
    case ROWS:                                                                                                 \
        if constexpr (ROWS < TILE_ROWS)                                                                        \
            tile_of_bytes<ROWS>(numbers + row * stride, stride, rows + row, num_groups, panel, column_scales, \
                                column_sums, sums + row * TILE_COLUMNS);                                       \
        break;
        LAST(1) LAST(2) LAST(3) LAST(4) LAST(5) LAST(6) LAST(7) LAST(8) LAST(9) LAST(10) LAST(11) LAST(12) LAST(13)
#undef LAST
    }
}

}  // namespace modernbert
