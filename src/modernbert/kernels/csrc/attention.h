// Softmax attention inside the sequences of a pack, global or within a window.
//
// Queries stand side by side in vectors, a lane each: a panel of them meets keys one by one, so that the softmax
// runs down the lanes and nothing is summed across them. Keys come in blocks; what was summed under an older
// maximum is scaled when a new one is found (Milakov and Gimelshein 2018, arXiv 1805.02867).
#pragma once
#include <cstdint>

namespace modernbert {

// Queries, keys and values [H, num_rows, K]; the scale of the scores and log2(e) are in the queries. Behind the
// last query there are ROWS_BEHIND rows that may be read.
struct Heads {
    const float *queries, *keys, *values;  // or bfloat16, if is_bf16: as many numbers in half the space
    int64_t num_rows;
    int32_t num_heads, head_dim;
    int32_t window;  // keys seen on each side; -1: all of the sequence
    bool is_bf16;
    float *out;      // [tokens, out_stride], a head after the other
    int64_t out_stride;
};

constexpr int ROWS_BEHIND = 64;

// Queries of a piece of work.
extern const int64_t ATTENTION_ROWS;

int64_t attention_scratch_floats(int32_t head_dim);

// The queries `first` up to `end` of a sequence of `length` tokens that begins at token `start`; `end` is
// `first` + ATTENTION_ROWS or the sequence's last.
void attend(const Heads &heads, int32_t head, int64_t start, int64_t length, int64_t first, int64_t end,
            float *scratch);

}  // namespace modernbert
