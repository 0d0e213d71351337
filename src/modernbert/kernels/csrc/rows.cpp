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
    const Given weight{norm.weight, norm.is_bf16 != 0}, bias{norm.bias, norm.is_bf16 != 0};
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
        if (norm.weight) x *= weight.vector(i);
        if (norm.bias) x += bias.vector(i);
        store(to + i, x);
    }
}

void narrow_row(const float *from, uint16_t *to, int32_t size) {
    for (int32_t i = 0; i < size; i++) to[i] = to_bf16(from[i]);
}

void embed_row(const ModelSpec &model, int64_t token, int64_t position, int64_t type, float *to) {
    const int64_t size = model.hidden_size;
    const bool is_bf16 = model.is_bf16 != 0;
    const Given tokens{model.tokens, is_bf16}, types{model.token_types, is_bf16}, positions{model.positions, is_bf16};
    const int64_t place = (position + model.position_offset) * size;
    for (int64_t i = 0; i < size; i += LANES) {
        Floats x = tokens.vector(token * size + i);
        if (model.num_token_types) x += types.vector(type * size + i);
        if (model.num_positions) x += positions.vector(place + i);
        store(to + i, x);
    }
    norm_row(model.embedding_norm, to, to, model.hidden_size);
}

}  // namespace modernbert
