// Products of 8-bit weights and 16-bit activations: exact sums in 32 bits, and no saturation.
//
// Without VNNI, AVX2 multiplies bytes by bytes into sums of 16 bits, which overflow. Words by words go into sums
// of 32 bits at the same rate, twice that of floats, so the weights, a byte each in memory, are widened as they
// are loaded. The activations then have 16 bits too, and lose next to nothing.
//
// A sum over `depth` products stays below depth * 127 * level <= 2^31 - 1, and so do its parts, where
// level = most_number(depth): 32,767 up to a depth of 516, 22,016 at 768, 4,128 at 4,096.
#pragma once
#include "tiles.h"

namespace modernbert {

inline int32_t most_number(int64_t depth) {
    const int64_t most = 2147483647LL / (127 * depth);
    return int32_t(most < 32767 ? most : 32767);
}

// Words a row of activations: whole pairs, and not a multiple of what the first cache repeats itself after.
inline int64_t numbers_stride(int64_t depth) { return (depth + 31) / 32 * 32 + 32; }

// Rows of floats as numbers of 16 bits, and the scale of each row; `depth` is a multiple of LANES.
void to_numbers(const float *x, int64_t x_stride, int64_t num_rows, int64_t depth, int16_t *numbers, float *scales);

// sums[row, column] = row scale * column scale * sum over k of numbers[row, k] * panel[k, column]
void sum_bytes(const int16_t *numbers, const float *row_scales, int64_t num_rows, int64_t depth, const int8_t *panel,
               const float *column_scales, float *sums);

}  // namespace modernbert
