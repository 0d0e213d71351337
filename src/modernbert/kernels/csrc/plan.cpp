#include "plan.h"

#include <sys/mman.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace modernbert {

const void *Mapped::next(int64_t bytes) {
    const int64_t step = (bytes + 63) / 64 * 64;
    if (left < step) return nullptr;
    const void *block = at;
    at += step;
    left -= step;
    return block;
}

Memory::Memory(Memory &&other) noexcept
    : start_(std::exchange(other.start_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      used_(std::exchange(other.used_, 0)) {}

Memory::~Memory() {
    if (bytes_) std::free(start_);
}

bool Memory::borrow(Mapped &mapped, int64_t bytes) {
    start_ = const_cast<void *>(mapped.next(bytes));
    used_ = bytes;
    return start_ != nullptr;
}

bool Memory::take(int64_t bytes) {
    // Large pages: a product reads all of a matrix once, and would miss the table of small pages at each of them.
    const int64_t page = bytes >= (1 << 21) ? (1 << 21) : 64;
    bytes_ = (bytes + page - 1) / page * page;
    used_ = bytes;
    start_ = std::aligned_alloc(page, bytes_);
    if (start_ && page > 64) madvise(start_, bytes_, MADV_HUGEPAGE);
    return start_ != nullptr;
}

std::vector<int32_t> plain_columns(int32_t out) {
    std::vector<int32_t> rows((out + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS, -1);
    for (int32_t column = 0; column < out; column++) rows[column] = column;
    return rows;
}

namespace {

// Of a gated unit a panel holds a vector of the activated half and the vector that it is multiplied by.
std::vector<int32_t> gated_columns(int32_t out) {
    std::vector<int32_t> rows;
    for (int32_t start = 0; start < out / 2; start += LANES)
        for (int32_t half = 0; half < 2; half++)
            for (int32_t lane = 0; lane < LANES; lane++) rows.push_back(half * (out / 2) + start + lane);
    return rows;
}

struct HeadVector {
    int32_t which, head, place;
};

// Queries and keys: a panel holds the first numbers of some pairs, and the second ones, so that they are turned
// where they are computed. Interleaved pairs come apart for that; as they do so in queries and keys alike, their
// product stays what it is. What is not turned, and the values, goes two vectors a panel.
std::vector<int32_t> head_columns(const LayerSpec &spec, int32_t hidden, std::vector<HeadVectors> &panels) {
    const int32_t head_dim = hidden / spec.num_heads, half = spec.rotary_size / 2;
    std::vector<int32_t> rows;
    std::vector<HeadVector> plain;
    auto row_of = [&](int32_t which, int32_t head, int32_t number) {
        return which * hidden + head * head_dim + number;
    };
    for (int32_t which = 0; which < 3; which++)
        for (int32_t head = 0; head < spec.num_heads; head++) {
            const int32_t turned = which < 2 ? spec.rotary_size : 0;
            for (int32_t start = 0; start < turned / 2; start += LANES) {
                for (int32_t second = 0; second < 2; second++)
                    for (int32_t i = start; i < start + LANES; i++)
                        rows.push_back(row_of(which, head, spec.is_interleaved ? 2 * i + second : second * half + i));
                panels.push_back({which, head, start, half + start, which, head, start});
            }
            for (int32_t place = turned; place < head_dim; place += LANES) plain.push_back({which, head, place});
        }
    for (size_t i = 0; i < plain.size(); i += 2) {
        const bool is_pair = i + 1 < plain.size();
        const HeadVector first = plain[i], second = is_pair ? plain[i + 1] : HeadVector{-1, 0, 0};
        panels.push_back({first.which, first.head, first.place, second.place, second.which, second.head, -1});
        for (const HeadVector &vector : {first, second})
            for (int32_t lane = 0; lane < LANES; lane++)
                rows.push_back(vector.which < 0 ? -1 : row_of(vector.which, vector.head, vector.place + lane));
    }
    return rows;
}

// With 17 significant bits, so that 127 times it is exact: as in pretrained/quantized.py.
float short_scale(float scale) {
    uint32_t bits;
    std::memcpy(&bits, &scale, 4);
    bits = (bits + 64) & ~127u;
    std::memcpy(&scale, &bits, 4);
    return scale;
}

// All in the middle row: a look at a mapped file makes pages of it resident, up to a megabyte at each place.
int64_t sample_place(const PackedLinear &linear, int sample) {
    return int64_t(linear.out / 2) * linear.in + int64_t(linear.in) * (2 * sample + 1) / (2 * NUM_SAMPLES);
}

}  // namespace

int PackedLinear::group() const { return products == INT8 ? BYTES_OF_GROUP : products == BFLOAT16 ? 2 : 1; }

int64_t PackedLinear::panel_bytes() const {
    const int64_t of_number = products == INT8 ? 1 : products == BFLOAT16 ? 2 : 4;
    return num_groups() * group() * of_number * TILE_COLUMNS;
}

bool PackedLinear::pack(const LinearSpec &spec, const std::vector<int32_t> &rows, Products of, Mapped *mapped) {
    in = spec.in;
    out = spec.out;
    products = of;
    num_panels = int32_t(rows.size()) / TILE_COLUMNS;
    source = {spec.weight, spec.is_bf16 != 0};
    for (int sample = 0; sample < NUM_SAMPLES; sample++) samples[sample] = source[sample_place(*this, sample)];
    const int64_t of_floats = int64_t(rows.size()) * int64_t(sizeof(float));
    if (mapped) {
        if (spec.bias && !bias.borrow(*mapped, of_floats)) return false;
        if (!weights.borrow(*mapped, num_panels * panel_bytes())) return false;
        if (products == INT8 && !scales.borrow(*mapped, 2 * of_floats)) return false;
        const void *then = mapped->next(sizeof(samples));
        return then && std::memcmp(then, samples, sizeof(samples)) == 0;
    }
    if (spec.bias) {
        if (!bias.take(of_floats)) return false;
        const Given from{spec.bias, spec.is_bf16 != 0};
        for (size_t c = 0; c < rows.size(); c++) bias.as<float>()[c] = rows[c] < 0 ? 0.0f : from[rows[c]];
    }
    if (!weights.take(num_panels * panel_bytes())) return false;
    if (products == INT8 && !scales.take(2 * of_floats)) return false;
    if (products == INT8) pack_bytes(rows);
    else if (products == BFLOAT16) fill<uint16_t>(rows, [](float x, int32_t) { return to_bf16(x); });
    else fill<float>(rows, [](float x, int32_t) { return x; });
    return true;
}

template <typename Number, typename Convert>
void PackedLinear::fill(const std::vector<int32_t> &rows, Convert convert) {
    const int64_t size = group(), of_panel = panel_bytes() / int64_t(sizeof(Number));
    std::memset(weights.as<void>(), 0, size_t(num_panels * panel_bytes()));
    for (int32_t c = 0; c < int32_t(rows.size()); c++) {
        if (rows[c] < 0) continue;
        Number *to = weights.as<Number>() + c / TILE_COLUMNS * of_panel + c % TILE_COLUMNS * size;
        const int64_t first = int64_t(rows[c]) * in;
        for (int64_t k = 0; k < in; k++)
            to[k / size * TILE_COLUMNS * size + k % size] = convert(source[first + k], c);
    }
}

// Symmetric, a scale for each row of the matrix: its largest number becomes 127.
void PackedLinear::pack_bytes(const std::vector<int32_t> &rows) {
    float *scale = scales.as<float>();
    int32_t *sums = scales.as<int32_t>() + rows.size();
    std::memset(scale, 0, 2 * rows.size() * sizeof(float));
    for (size_t c = 0; c < rows.size(); c++) {
        if (rows[c] < 0) continue;
        float largest = 0.0f;
        bool is_number = true;
        for (int32_t k = 0; k < in; k++) {
            const float x = source[int64_t(rows[c]) * in + k];
            largest = std::fmax(largest, std::fabs(x));
            is_number = is_number && std::isfinite(x);
        }
        // A row that holds NaN or infinity gives NaN, as it would in floats.
        scale[c] = is_number ? short_scale(largest / 127.0f) : NAN;
    }
    fill<int8_t>(rows, [&](float x, int32_t c) {
        const bool is_some = scale[c] > 0.0f;  // not of a NaN
        const int8_t number = is_some ? int8_t(std::nearbyint(x / scale[c])) : int8_t(0);
        sums[c] += number;
        return number;
    });
}

bool PackedLinear::is_current() const {
    for (int sample = 0; sample < NUM_SAMPLES; sample++) {
        const float now = source[sample_place(*this, sample)];
        if (std::memcmp(&samples[sample], &now, sizeof(float)) != 0) return false;  // a NaN is equal to itself
    }
    return true;
}

bool Plan::build(const ModelSpec &model, Mapped *mapped) {
    spec = model;
    layers.resize(model.num_layers);
    const Products products = Products(model.products);
    has_bf16_heads = HAS_BF16 && products != FLOAT32;
    for (int32_t i = 0; i < model.num_layers; i++) {
        Layer &layer = layers[i];
        layer.spec = model.layers[i];
        const LayerSpec &from = layer.spec;
        layer.head_dim = model.hidden_size / from.num_heads;
        const auto columns = head_columns(from, model.hidden_size, layer.heads);
        const auto in_columns = from.is_gated ? gated_columns(from.mlp_in.out) : plain_columns(from.mlp_in.out);
        const auto attention_columns = plain_columns(from.attention_out.out);
        const auto out_columns = plain_columns(from.mlp_out.out);
        if (!layer.qkv.pack(from.qkv, columns, products, mapped) ||
            !layer.attention_out.pack(from.attention_out, attention_columns, products, mapped) ||
            !layer.mlp_in.pack(from.mlp_in, in_columns, products, mapped) ||
            !layer.mlp_out.pack(from.mlp_out, out_columns, products, mapped))
            return false;
        for (const PackedLinear *linear : {&layer.qkv, &layer.attention_out, &layer.mlp_in, &layer.mlp_out})
            largest_in = linear->in > largest_in ? linear->in : largest_in;
    }
    spec.layers = nullptr;  // the caller's list may be gone after this
    return !mapped || mapped->left == 0;
}

std::vector<Block> Plan::blocks() const {
    std::vector<Block> blocks;
    for (const Layer &layer : layers)
        for (const PackedLinear *linear : {&layer.qkv, &layer.attention_out, &layer.mlp_in, &layer.mlp_out}) {
            if (linear->bias.as<void>()) blocks.push_back(linear->bias.used());
            blocks.push_back(linear->weights.used());
            if (linear->products == INT8) blocks.push_back(linear->scales.used());
            blocks.push_back({linear->samples, sizeof(linear->samples)});
        }
    return blocks;
}

bool Plan::is_current() const {
    for (const Layer &layer : layers)
        for (const PackedLinear *linear : {&layer.qkv, &layer.attention_out, &layer.mlp_in, &layer.mlp_out})
            if (!linear->is_current()) return false;
    return true;
}

int64_t Plan::bytes() const {
    int64_t bytes = 0;
    for (const Layer &layer : layers)
        for (const PackedLinear *linear : {&layer.qkv, &layer.attention_out, &layer.mlp_in, &layer.mlp_out})
            bytes += linear->bytes();
    return bytes;
}

}  // namespace modernbert
