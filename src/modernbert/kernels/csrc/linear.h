// A linear layer on a few rows: panel by panel through the inner loop, then what follows each number.
#pragma once
#include "plan.h"

namespace modernbert {

// Rows of a block: its inputs, 300 kB at a width of 768, stay in a core's second cache while the weights pass by.
constexpr int BLOCK_ROWS = LANES == 16 ? 98 : 96;

// What becomes of the sums. Rows count from the first of the call.
struct Finish {
    enum Kind { STORE, ADD, ACTIVATE, GATE, HEADS } kind = STORE;
    int32_t activation = 0;
    float *out = nullptr;  // [rows, stride]
    int64_t stride = 0;
    // HEADS: queries, keys and values [H, num_rows, K]; row 0 of the call is token `token`.
    const HeadVectors *heads = nullptr;
    void *heads_out[3] = {};
    bool has_bf16_heads = false;
    float query_factor = 1.0f;
    int64_t num_rows = 0, token = 0;
    int32_t head_dim = 0, half = 0;
    const int64_t *positions = nullptr;
    const float *cosine = nullptr, *sine = nullptr;
};

// What a thread needs beside its inputs and outputs.
struct LinearScratch {
    float *sums;        // [BLOCK_ROWS, TILE_COLUMNS]
    RowScale *scales;   // [BLOCK_ROWS]
    void *numbers;      // [BLOCK_ROWS, in]: activations as bfloat16 or for 8-bit products
    static int64_t floats(int32_t largest_in);
    static LinearScratch at(float *memory);
};

// x [num_rows, x_stride], panels `first` up to `end`; num_rows at most BLOCK_ROWS.
void linear(const float *x, int64_t x_stride, int64_t num_rows, const PackedLinear &weights, int32_t first,
            int32_t end, const Finish &finish, const LinearScratch &scratch);


}  // namespace modernbert
