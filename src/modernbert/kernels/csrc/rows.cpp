#include "rows.h"

#include <cmath>
#include <cstring>

#include "vectors.h"

namespace modernbert {

void norm_row(const NormSpec &norm, const float *from, float *to, int32_t size) {
    if (norm.kind == NO_NORM) {
        if (from != to) std::memcpy(to, from, size * sizeof(float));
        return;
    }
    float mean = 0.0f;
    if (norm.kind == LAYER_NORM) {
        Floats sum{};
        for (int32_t i = 0; i < size; i += LANES) sum += load(from + i);
        mean = sum_of(sum) / float(size);
    }
    // The mean first, then the squares of what is left: one pass over both would lose bits where the mean is large.
    Floats squares{};
    for (int32_t i = 0; i < size; i += LANES) {
        const Floats x = load(from + i) - mean;
        squares += x * x;
    }
    // Squares that overflow would make all zero, and hide from whoever diverged that they did.
    const float variance = sum_of(squares) / float(size);
    const float factor = std::isfinite(variance) ? 1.0f / std::sqrt(variance + norm.eps) : NAN;
    for (int32_t i = 0; i < size; i += LANES) {
        Floats x = (load(from + i) - mean) * factor;
        if (norm.weight) x *= load(norm.weight + i);
        if (norm.bias) x += load(norm.bias + i);
        store(to + i, x);
    }
}

void embed_row(const ModelSpec &model, int64_t token, int64_t position, int64_t type, float *to) {
    const int64_t size = model.hidden_size;
    const float *of_token = model.tokens + token * size;
    const float *of_type = model.num_token_types ? model.token_types + type * size : nullptr;
    const float *of_position =
        model.num_positions ? model.positions + (position + model.position_offset) * size : nullptr;
    for (int64_t i = 0; i < size; i += LANES) {
        Floats x = load(of_token + i);
        if (of_type) x += load(of_type + i);
        if (of_position) x += load(of_position + i);
        store(to + i, x);
    }
    norm_row(model.embedding_norm, to, to, model.hidden_size);
}

}  // namespace modernbert
