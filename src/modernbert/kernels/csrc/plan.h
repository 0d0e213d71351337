// A plan: a model's matrices packed for the products, and what each layer is.
#pragma once
#include <cstdint>
#include <vector>

#include "interface.h"
#include "bytes.h"
#include "tiles.h"

namespace modernbert {

// Packed weights that were written to a file, as they lie in memory: blocks, each from a multiple of 64 bytes.
struct Mapped {
    const char *at;
    int64_t left;
    // Null where fewer bytes are left.
    const void *next(int64_t bytes);
};

// Memory of a plan: 64-byte aligned, freed with it; or a block of a file, which belongs to somebody else.
class Memory {
  public:
    Memory() = default;
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    Memory(Memory &&other) noexcept;
    ~Memory();
    // False where there is none.
    bool take(int64_t bytes);
    bool borrow(Mapped &mapped, int64_t bytes);
    template <typename T>
    T *as() const {
        return static_cast<T *>(start_);
    }
    int64_t bytes() const { return bytes_; }
    Block used() const { return {start_, used_}; }

  private:
    void *start_ = nullptr;
    int64_t bytes_ = 0;  // that are its own
    int64_t used_ = 0;
};

// Where a vector of queries, keys or values goes, and by which angles it is turned.
struct HeadVectors {
    int32_t which;      // 0 queries, 1 keys, 2 values; -1: nothing
    int32_t head;
    int32_t first, second;  // places inside the head of the two vectors of a panel
    int32_t second_which, second_head;
    int32_t angle;      // index of the first angle; -1: not turned
};

// Numbers of a matrix at some places, to see whether it has changed since.
constexpr int NUM_SAMPLES = 8;

// A linear layer, its columns in panels of TILE_COLUMNS, each panel as the inner loop reads it: [in / group, column,
// group], where a group is what one lane multiplies at a time.
struct PackedLinear {
    int32_t in = 0, out = 0, num_panels = 0;
    Products products = FLOAT32;
    Memory weights;  // [panel, in / group, column, group]: floats, pairs of bfloat16, or BYTES_OF_GROUP bytes
    Memory bias;     // [panel, column], null where there is none
    Memory scales;   // of 8-bit weights: [panel, column], and then as many int32, the sum of each column
    Given source{};
    float samples[NUM_SAMPLES] = {};

    // `rows[c]` is the row of the matrix that becomes column c, -1 for none. False where there is no memory for it, or
    // `mapped` holds another matrix.
    bool pack(const LinearSpec &spec, const std::vector<int32_t> &rows, Products products, Mapped *mapped = nullptr);
    bool is_current() const;
    int64_t bytes() const { return weights.bytes() + bias.bytes() + scales.bytes(); }
    int64_t num_groups() const { return (in + group() - 1) / group(); }
    // Of a panel's weights.
    int64_t panel_bytes() const;

  private:
    int group() const;
    template <typename Number, typename Convert>
    void fill(const std::vector<int32_t> &rows, Convert convert);
    void pack_bytes(const std::vector<int32_t> &rows);
};

struct Layer {
    LayerSpec spec;  // its matrices belong to the caller and are not looked at, but for `is_current`
    int32_t head_dim;
    PackedLinear qkv, attention_out, mlp_in, mlp_out;
    std::vector<HeadVectors> heads;  // one for each panel of qkv
};

struct Plan {
    ModelSpec spec;
    std::vector<Layer> layers;
    int32_t largest_in = 0;  // the widest input of any product
    bool has_bf16_heads = false;  // queries, keys and values are bfloat16

    // Packs the matrices, or takes them from `mapped` as they are.
    bool build(const ModelSpec &model, Mapped *mapped = nullptr);
    // What `build` finds in a Mapped, in its order.
    std::vector<Block> blocks() const;
    bool is_current() const;
    int64_t bytes() const;
};

// Columns as they come.
std::vector<int32_t> plain_columns(int32_t out);

}  // namespace modernbert
