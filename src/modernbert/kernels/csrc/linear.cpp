#include "linear.h"

#include "bytes.h"

namespace modernbert {
namespace {

// So much of a panel stays in the first cache while the rows of a block pass by it.
constexpr int64_t PANEL_BYTES = 20 * 1024;

int64_t depth_step(int64_t depth, int64_t bytes_of_one) {
    const int64_t num_steps = (depth * bytes_of_one + PANEL_BYTES - 1) / PANEL_BYTES;
    const int64_t step = (depth + num_steps - 1) / num_steps;
    return step + step % 2;
}

void sum_floats(const float *x, int64_t x_stride, int64_t num_rows, const float *panel, int64_t depth, float *sums) {
    const int64_t step = depth_step(depth, TILE_COLUMNS * 4);
    for (int64_t k = 0; k < depth; k += step)
        product<2, false>(x + k, x_stride, num_rows, panel + k * TILE_COLUMNS, TILE_COLUMNS,
                          depth - k < step ? depth - k : step, sums, TILE_COLUMNS, k > 0);
}

template <int ACTIVATION>
Floats apply(Floats x) {
    if constexpr (ACTIVATION == GELU) return gelu(x);
    if constexpr (ACTIVATION == GELU_TANH)
        return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));  // (1 + tanh y) / 2 = sigmoid(2 y)
    if constexpr (ACTIVATION == RELU) return larger(Floats{}, x);
    if constexpr (ACTIVATION == RELU2) return larger(Floats{}, x) * larger(Floats{}, x);
    if constexpr (ACTIVATION == SILU) return x * sigmoid(x);
    if constexpr (ACTIVATION == QUICK_GELU) return x * sigmoid(1.702f * x);
    if constexpr (ACTIVATION == SIGMOID) return sigmoid(x);
    if constexpr (ACTIVATION == TANH) return tanh(x);
    return x;
}

template <int ACTIVATION>
void activate(const float *sums, int64_t num_rows, const Finish &finish, int32_t panel, Floats b0, Floats b1) {
    for (int64_t row = 0; row < num_rows; row++, sums += TILE_COLUMNS) {
        Floats x = load(sums) + b0, y = load(sums + LANES) + b1;
        float *to = finish.out + row * finish.stride;
        if (finish.kind == Finish::GATE) {
            store(to + panel * LANES, apply<ACTIVATION>(x) * y);
        } else {
            store(to + panel * TILE_COLUMNS, apply<ACTIVATION>(x));
            store(to + panel * TILE_COLUMNS + LANES, apply<ACTIVATION>(y));
        }
    }
}

void activate(const float *sums, int64_t num_rows, const Finish &finish, int32_t panel, Floats b0, Floats b1) {
    switch (finish.activation) {
#define CASE(NAME) \
    case NAME:     \
        return activate<NAME>(sums, num_rows, finish, panel, b0, b1);
        CASE(IDENTITY) CASE(GELU) CASE(GELU_TANH) CASE(RELU) CASE(RELU2) CASE(SILU) CASE(QUICK_GELU)
        CASE(SIGMOID) CASE(TANH)
#undef CASE
    }
}

void to_heads(const float *sums, int64_t num_rows, const Finish &finish, int32_t panel, Floats b0, Floats b1) {
    const HeadVectors &place = finish.heads[panel];
    const int64_t size = finish.head_dim;
    float *first = finish.heads_out[place.which] + (place.head * finish.num_rows + finish.token) * size + place.first;
    float *second = place.second_which < 0 ? nullptr
                                           : finish.heads_out[place.second_which] +
                                                 (place.second_head * finish.num_rows + finish.token) * size +
                                                 place.second;
    for (int64_t row = 0; row < num_rows; row++, sums += TILE_COLUMNS) {
        Floats x = load(sums) + b0, y = load(sums + LANES) + b1;
        if (place.angle >= 0) {
            const int64_t angle = finish.positions[row] * finish.half + place.angle;
            const Floats cosine = load(finish.cosine + angle), sine = load(finish.sine + angle);
            const Floats turned = x * cosine - y * sine;
            y = y * cosine + x * sine;
            x = turned;
        }
        store(first + row * size, x);
        if (second) store(second + row * size, y);
    }
}

void finish_panel(const float *sums, int64_t num_rows, const Finish &finish, int32_t panel, const float *bias) {
    const Floats b0 = bias ? load(bias + panel * TILE_COLUMNS) : Floats{};
    const Floats b1 = bias ? load(bias + panel * TILE_COLUMNS + LANES) : Floats{};
    if (finish.kind == Finish::HEADS) return to_heads(sums, num_rows, finish, panel, b0, b1);
    if (finish.kind == Finish::ACTIVATE || finish.kind == Finish::GATE)
        return activate(sums, num_rows, finish, panel, b0, b1);
    for (int64_t row = 0; row < num_rows; row++, sums += TILE_COLUMNS) {
        float *to = finish.out + row * finish.stride + panel * TILE_COLUMNS;
        Floats x = load(sums) + b0, y = load(sums + LANES) + b1;
        if (finish.kind == Finish::ADD) {
            x += load(to);
            y += load(to + LANES);
        }
        store(to, x);
        store(to + LANES, y);
    }
}

}  // namespace


int64_t LinearScratch::floats(int32_t largest_in) {
    const int64_t numbers = int64_t(BLOCK_ROWS) * numbers_stride(largest_in) / 2;
    return (BLOCK_ROWS * TILE_COLUMNS + numbers + BLOCK_ROWS + 31) / 16 * 16;
}

LinearScratch LinearScratch::at(float *memory, int32_t largest_in) {
    float *scales = memory + BLOCK_ROWS * TILE_COLUMNS;
    (void)largest_in;
    return {memory, reinterpret_cast<int16_t *>(scales + (BLOCK_ROWS + 15) / 16 * 16), scales};
}

void linear(const float *x, int64_t x_stride, int64_t num_rows, const PackedLinear &weights, int32_t first,
            int32_t end, const Finish &finish, const LinearScratch &scratch) {
    const int64_t depth = weights.in;
    if (weights.is_int8) to_numbers(x, x_stride, num_rows, depth, scratch.numbers, scratch.scales);
    for (int32_t panel = first; panel < end; panel++) {
        if (weights.is_int8) {
            const int64_t pairs = (depth + 1) / 2;
            sum_bytes(scratch.numbers, scratch.scales, num_rows, depth,
                      weights.weights.as<int8_t>() + panel * pairs * 2 * TILE_COLUMNS,
                      weights.scales.as<float>() + panel * TILE_COLUMNS, scratch.sums);
        } else {
            sum_floats(x, x_stride, num_rows, weights.weights.as<float>() + panel * depth * TILE_COLUMNS, depth,
                       scratch.sums);
        }
        finish_panel(scratch.sums, num_rows, finish, panel, weights.bias.as<float>());
    }
}

}  // namespace modernbert
