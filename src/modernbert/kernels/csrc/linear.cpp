#include "linear.h"

#include "bytes.h"

namespace modernbert {
namespace {

// So much of a panel stays in the first cache while the rows of a block pass by it.
constexpr int64_t PANEL_BYTES = 20 * 1024;

int64_t depth_step(int64_t depth) {
    const int64_t num_steps = (depth * TILE_COLUMNS * 4 + PANEL_BYTES - 1) / PANEL_BYTES;
    const int64_t step = (depth + num_steps - 1) / num_steps;
    return step + step % 2;
}

// Strides and depth count what is multiplied at a time: floats or pairs.
template <typename Kind>
void sum(const float *x, int64_t x_stride, int64_t num_rows, const float *panel, int64_t depth, float *sums) {
    const int64_t step = depth_step(depth);
    for (int64_t k = 0; k < depth; k += step)
        product<Kind, 2, false>(x + k, x_stride, num_rows, panel + k * TILE_COLUMNS, TILE_COLUMNS,
                                depth - k < step ? depth - k : step, sums, TILE_COLUMNS, k > 0);
}

#if defined(__AVX512BF16__)
int64_t halves_stride(int64_t depth) { return numbers_stride<uint16_t>(depth); }

void to_halves(const float *x, int64_t x_stride, int64_t num_rows, int64_t depth, uint16_t *halves) {
    for (int64_t row = 0; row < num_rows; row++, x += x_stride, halves += halves_stride(depth))
        for (int64_t k = 0; k < depth; k += LANES) store_bf16(halves + k, load(x + k));
}
#endif

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

inline void store_as(float *to, Floats x) { store(to, x); }
#if defined(__AVX512BF16__)
inline void store_as(uint16_t *to, Floats x) { store_bf16(to, x); }
#endif

template <typename Stored>
void to_heads(const float *sums, int64_t num_rows, const Finish &finish, int32_t panel, Floats b0, Floats b1) {
    const HeadVectors &place = finish.heads[panel];
    const int64_t size = finish.head_dim;
    const auto at = [&](int32_t which, int32_t head, int32_t number) {
        return static_cast<Stored *>(finish.heads_out[which]) + (head * finish.num_rows + finish.token) * size + number;
    };
    Stored *first = at(place.which, place.head, place.first);
    Stored *second = place.second_which < 0 ? nullptr : at(place.second_which, place.second_head, place.second);
    const float factor0 = place.which == 0 ? finish.query_factor : 1.0f;
    const float factor1 = place.second_which == 0 ? finish.query_factor : 1.0f;
    for (int64_t row = 0; row < num_rows; row++, sums += TILE_COLUMNS) {
        Floats x = (load(sums) + b0) * factor0, y = (load(sums + LANES) + b1) * factor1;
        if (place.angle >= 0) {
            const int64_t angle = finish.positions[row] * finish.half + place.angle;
            const Floats cosine = load(finish.cosine + angle), sine = load(finish.sine + angle);
            const Floats turned = x * cosine - y * sine;
            y = y * cosine + x * sine;
            x = turned;
        }
        store_as(first + row * size, x);
        if (second) store_as(second + row * size, y);
    }
}

void finish_panel(const float *sums, int64_t num_rows, const Finish &finish, int32_t panel, const float *bias) {
    const Floats b0 = bias ? load(bias + panel * TILE_COLUMNS) : Floats{};
    const Floats b1 = bias ? load(bias + panel * TILE_COLUMNS + LANES) : Floats{};
    if (finish.kind == Finish::HEADS) {
#if defined(__AVX512BF16__)
        if (finish.has_bf16_heads) return to_heads<uint16_t>(sums, num_rows, finish, panel, b0, b1);
#endif
        return to_heads<float>(sums, num_rows, finish, panel, b0, b1);
    }
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
    const int64_t numbers = int64_t(BLOCK_ROWS) * numbers_stride<uint16_t>(largest_in) / 2;
    return (BLOCK_ROWS * TILE_COLUMNS + 2 * BLOCK_ROWS + numbers + 31) / 16 * 16;
}

LinearScratch LinearScratch::at(float *memory) {
    float *scales = memory + BLOCK_ROWS * TILE_COLUMNS;
    return {memory, reinterpret_cast<RowScale *>(scales), scales + (2 * BLOCK_ROWS + 15) / 16 * 16};
}

void linear(const float *x, int64_t x_stride, int64_t num_rows, const PackedLinear &weights, int32_t first,
            int32_t end, const Finish &finish, const LinearScratch &scratch) {
    const int64_t depth = weights.in, of_panel = weights.panel_bytes();
    Number *numbers = static_cast<Number *>(scratch.numbers);
    if (weights.products == INT8) to_numbers(x, x_stride, num_rows, depth, numbers, scratch.scales);
#if defined(__AVX512BF16__)
    if (weights.products == BFLOAT16) {
        to_halves(x, x_stride, num_rows, depth, static_cast<uint16_t *>(scratch.numbers));
        x = static_cast<const float *>(scratch.numbers);
        x_stride = halves_stride(depth) / 2;
    }
#endif
    for (int32_t number = first; number < end; number++) {
        const char *panel = weights.weights.as<char>() + number * of_panel;
        const float *floats = reinterpret_cast<const float *>(panel);
        if (weights.products == INT8) {
            const int64_t column = number * TILE_COLUMNS;
            sum_bytes(numbers, scratch.scales, num_rows, depth, reinterpret_cast<const int8_t *>(panel),
                      weights.scales.as<float>() + column,
                      weights.scales.as<int32_t>() + weights.num_panels * TILE_COLUMNS + column, scratch.sums);
        } else if (weights.products == FLOAT32) {
            sum<OfFloats>(x, x_stride, num_rows, floats, depth, scratch.sums);
        }
#if defined(__AVX512BF16__)
        if (weights.products == BFLOAT16)
            sum<OfPairs>(x, x_stride, num_rows, floats, weights.num_groups(), scratch.sums);
#endif
        finish_panel(scratch.sums, num_rows, finish, number, weights.bias.as<float>());
    }
}

}  // namespace modernbert
