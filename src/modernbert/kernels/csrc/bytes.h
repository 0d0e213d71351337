// Products of 8-bit weights and rounded activations: exact sums in 32 bits, and no saturation.
//
// Without VNNI, AVX2 multiplies bytes by bytes into sums of 16 bits, which overflow. Words by words go into sums
// of 32 bits at the same rate, twice that of floats, so the weights, a byte each in memory, are widened as they
// are loaded. The activations then have 16 bits too, and lose next to nothing. A sum over `depth` products stays
// below depth * 127 * level <= 2^31 - 1, and so do its parts, where level = most_number(depth): 32,767 up to a
// depth of 516, 22,016 at 768, 4,128 at 4,096.
//
// With AVX-512 VNNI bytes by bytes go into sums of 32 bits, at four times the rate of floats. Activations have 8
// bits there: 255 steps from the smallest number of a token to its largest, 0 among them. What 0 became is counted
// once for each weight, and taken off. A sum stays below depth * 127 * 255: any depth up to 66,000.
#pragma once
#include "tiles.h"

namespace modernbert {

#if defined(__AVX512VNNI__)
typedef uint8_t Number;
#else
typedef int16_t Number;
#endif

// Weights of a column that lie side by side, as many as a lane takes at a time.
constexpr int BYTES_OF_GROUP = 4 / sizeof(Number);

// What a row of activations was divided by, and what its 0 became.
struct RowScale {
    float scale;
    int32_t zero;
};

inline int32_t most_number(int64_t depth) {
    if constexpr (sizeof(Number) == 1) return 255;
    const int64_t most = 2147483647LL / (127 * depth);
    return int32_t(most < 32767 ? most : 32767);
}

// Numbers of a row of activations: whole groups, and not a multiple of what the first cache repeats itself after.
template <typename Of>
int64_t numbers_stride(int64_t depth) {
    constexpr int64_t LINE = 64 / sizeof(Of);
    return (depth + LINE - 1) / LINE * LINE + LINE;
}

// Rows of floats as numbers; `depth` is a multiple of LANES.
void to_numbers(const float *x, int64_t x_stride, int64_t num_rows, int64_t depth, Number *numbers, RowScale *scales);

// sums[row, column] = row scale * column scale * sum over k of (numbers[row, k] - zero[row]) * panel[k, column]
void sum_bytes(const Number *numbers, const RowScale *rows, int64_t num_rows, int64_t depth, const int8_t *panel,
               const float *column_scales, const int32_t *column_sums, float *sums);

}  // namespace modernbert
