#include "forward.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "attention.h"
#include "linear.h"
#include "pool.h"
#include "rows.h"

namespace modernbert {
namespace {

// With fewer tokens for each thread than this, threads share out the columns of a product, so that weights are
// read once; with more they share out the tokens, and each takes its own from one attention to the next.
constexpr int64_t FEW_TOKENS = 48;
// Pieces a thread and phase, so that the last one is short.
constexpr int64_t PIECES = 6;
constexpr int64_t SMALL_ROWS = 8;

enum class Op { EMBED, NORM, NORM_ASIDE, QKV, ATTENTION_OUT, MLP_IN, MLP_OUT, NORM_OUT };

// A step that treats tokens one by one. `from_aside`: it reads what NORM_ASIDE wrote, and not x.
struct Step {
    Op op;
    const Layer *layer = nullptr;
    const NormSpec *norm = nullptr;
    bool from_aside = false;
};

typedef std::vector<Step> Section;  // the steps between two attentions

int64_t padded(int64_t size) { return (size + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS + 16; }

void before_attention(const Layer &layer, Section &section) {
    const NormSpec &norm = layer.spec.attention_norm;
    const bool is_normed = layer.spec.block != POST_NORM && norm.kind != NO_NORM;
    if (is_normed) section.push_back({Op::NORM_ASIDE, nullptr, &norm});
    section.push_back({Op::QKV, &layer, nullptr, is_normed});
}

void after_attention(const Layer &layer, Section &section) {
    const LayerSpec &spec = layer.spec;
    if (spec.block == PARALLEL) {  // the MLP reads what attention read: x before the sum
        const bool is_normed = spec.attention_norm.kind != NO_NORM;
        if (is_normed) section.push_back({Op::NORM_ASIDE, nullptr, &spec.attention_norm});
        section.push_back({Op::MLP_IN, &layer, nullptr, is_normed});
        section.push_back({Op::ATTENTION_OUT, &layer});
        section.push_back({Op::MLP_OUT, &layer});
        return;
    }
    section.push_back({Op::ATTENTION_OUT, &layer});
    const bool is_aside = spec.block == PRE_NORM && spec.mlp_norm.kind != NO_NORM;
    if (spec.block == POST_NORM) section.push_back({Op::NORM, nullptr, &spec.attention_norm});
    if (is_aside) section.push_back({Op::NORM_ASIDE, nullptr, &spec.mlp_norm});
    section.push_back({Op::MLP_IN, &layer, nullptr, is_aside});
    section.push_back({Op::MLP_OUT, &layer});
    if (spec.block == POST_NORM) section.push_back({Op::NORM, nullptr, &spec.mlp_norm});
}

std::vector<Section> sections_of(const Plan &plan) {
    std::vector<Section> sections(plan.layers.size() + 1);
    sections[0].push_back({Op::EMBED});
    for (size_t i = 0; i < plan.layers.size(); i++) {
        before_attention(plan.layers[i], sections[i]);
        after_attention(plan.layers[i], sections[i + 1]);
    }
    sections.back().push_back({Op::NORM_OUT, nullptr, &plan.spec.final_norm});
    return sections;
}

// Attention of some heads to some queries of a sequence.
struct Piece {
    int64_t start, length, first, end;
    int32_t head, end_head;
};

// Tokens of a block, and where it keeps what is between the steps.
struct Block {
    int64_t first, num_rows;
    float *aside, *inner;  // of the first token
};

const PackedLinear &matrix_of(const Step &step) {
    switch (step.op) {
        case Op::QKV: return step.layer->qkv;
        case Op::ATTENTION_OUT: return step.layer->attention_out;
        case Op::MLP_IN: return step.layer->mlp_in;
        default: return step.layer->mlp_out;
    }
}

bool is_product(Op op) { return op >= Op::QKV && op <= Op::MLP_OUT; }

class Forward {
  public:
    Forward(const Plan &plan, const Pack &pack, int num_threads, void *out)
        : plan_(plan), pack_(pack), num_threads_(num_threads), out_(out), sections_(sections_of(plan)) {
        stride_ = padded(plan.spec.hidden_size);
        for (const Layer &layer : plan.layers) inner_stride_ = std::max(inner_stride_, padded(layer.mlp_out.in));
        shares_columns_ = pack.num_tokens <= FEW_TOKENS * num_threads;
        plan_blocks();
    }

    Status run() {
        if (!take_memory()) return NO_MEMORY;
        plan_pieces();
        open_phases();
        const auto job = [](void *self, int thread) { static_cast<Forward *>(self)->work(thread); };
        return run_on_threads(num_threads_, job, this) ? OK : BAD_THREADS;
    }

  private:
    const Plan &plan_;
    const Pack &pack_;
    const int num_threads_;
    void *const out_;
    const std::vector<Section> sections_;
    int64_t stride_, inner_stride_ = 0;
    bool shares_columns_;
    int64_t num_tiles_, num_blocks_;
    float *x_, *mixed_, *heads_[3], *of_threads_;
    int64_t floats_of_a_thread_;
    std::vector<Piece> pieces_;
    std::unique_ptr<Phase[]> phases_;

    // Full blocks read weights least often. But where they keep a thread busy much longer than equal ones would,
    // as three blocks of one do beside two and a bit of another, all have as many tiles or one more.
    void plan_blocks() {
        constexpr int64_t MOST = BLOCK_ROWS / TILE_ROWS;
        num_tiles_ = (pack_.num_tokens + TILE_ROWS - 1) / TILE_ROWS;
        num_blocks_ = (num_tiles_ + MOST - 1) / MOST;
        if (shares_columns_) return;
        const int64_t rounds = num_tiles_ / MOST / num_threads_, others = num_tiles_ / MOST % num_threads_;
        const int64_t longest = (rounds + (others > 0)) * MOST + (others ? 0 : num_tiles_ % MOST);
        const int64_t equal = (num_tiles_ + num_threads_ - 1) / num_threads_;
        if (longest <= equal + equal / 32) num_tiles_ = num_blocks_ * MOST;
        else num_blocks_ = (num_blocks_ + num_threads_ - 1) / num_threads_ * num_threads_;
    }

    bool take_memory() {
        const int64_t rows = pack_.num_tokens, size = plan_.spec.hidden_size;
        int64_t head_dim = 0;
        for (const Layer &layer : plan_.layers) head_dim = std::max<int64_t>(head_dim, layer.head_dim);
        const int64_t of_heads = (rows * size + ROWS_BEHIND * head_dim + 15) / 16 * 16;
        const int64_t scratch_rows = shares_columns_ ? rows : BLOCK_ROWS;
        const int64_t of_block = scratch_rows * (stride_ + inner_stride_);
        const int64_t of_linear = LinearScratch::floats(plan_.largest_in);
        const int64_t of_attention = attention_scratch_floats(int32_t(head_dim));
        floats_of_a_thread_ = (of_block + std::max(of_linear, of_attention) + 1023) / 1024 * 1024;
        float *memory =
            scratch_memory(2 * rows * stride_ + 3 * of_heads + num_threads_ * floats_of_a_thread_);
        if (!memory) return false;
        x_ = memory;
        mixed_ = x_ + rows * stride_;
        for (int i = 0; i < 3; i++) heads_[i] = mixed_ + rows * stride_ + i * of_heads;
        // What lies behind the last row is read as queries, and not used.
        std::fill(heads_[0] + rows * size / (plan_.has_bf16_heads ? 2 : 1), heads_[0] + of_heads, 0.0f);
        of_threads_ = heads_[2] + of_heads;
        return true;
    }

    Block block_of(int thread, int64_t number) const {
        return tokens_of(thread, number * num_tiles_ / num_blocks_ * TILE_ROWS,
                         std::min((number + 1) * num_tiles_ / num_blocks_ * TILE_ROWS, pack_.num_tokens));
    }

    Block tokens_of(int thread, int64_t first, int64_t end) const {
        const int64_t scratch_rows = shares_columns_ ? pack_.num_tokens : BLOCK_ROWS;
        float *aside = of_threads_ + (shares_columns_ ? 0 : thread) * floats_of_a_thread_;
        float *inner = aside + scratch_rows * stride_;
        const int64_t row = shares_columns_ ? first : 0;
        return {first, end - first, aside + row * stride_, inner + row * inner_stride_};
    }

    float *rest_of(int thread) const {
        const int64_t scratch_rows = shares_columns_ ? pack_.num_tokens : BLOCK_ROWS;
        return of_threads_ + thread * floats_of_a_thread_ + scratch_rows * (stride_ + inner_stride_);
    }

    // Short sequences go several heads a piece, long ones in pieces of some queries, next to those that see the
    // same keys.
    void plan_pieces() {
        const int32_t num_heads = most_heads();
        const int64_t wanted = PIECES * num_threads_;
        for (int64_t s = 0; s < pack_.num_sequences; s++) {
            const int64_t start = pack_.cu_seqlens[s], length = pack_.cu_seqlens[s + 1] - start;
            const int64_t many = std::max<int64_t>(1, std::min<int64_t>(num_heads, 1024 / std::max<int64_t>(1, length)));
            const int64_t few = std::max<int64_t>(1, num_heads * pack_.num_sequences / wanted);
            const int32_t step = int32_t(std::min(many, few));
            for (int32_t head = 0; head < num_heads; head += step)
                for (int64_t first = 0; first < length; first += ATTENTION_ROWS)
                    pieces_.push_back({start, length, first, std::min(first + ATTENTION_ROWS, length), head,
                                       std::min(head + step, num_heads)});
        }
    }

    // Layers may differ in their number of heads; a piece leaves out those that a layer has not got.
    int32_t most_heads() const {
        int32_t most = 0;
        for (const Layer &layer : plan_.layers) most = std::max(most, layer.spec.num_heads);
        return most;
    }

    int64_t panels_a_piece(int64_t num_panels) const {
        const int64_t wanted = PIECES * num_threads_;
        return std::max<int64_t>(1, (num_panels * num_blocks_ + wanted - 1) / wanted);
    }

    int64_t pieces_of(const Step &step) const {
        if (!is_product(step.op)) return (pack_.num_tokens + SMALL_ROWS - 1) / SMALL_ROWS;
        const int64_t num_panels = matrix_of(step).num_panels, size = panels_a_piece(num_panels);
        return num_blocks_ * ((num_panels + size - 1) / size);
    }

    void open_phases() {
        size_t num_phases = plan_.layers.size();
        for (const Section &section : sections_) num_phases += shares_columns_ ? section.size() : 1;
        phases_ = std::make_unique<Phase[]>(num_phases);
        Phase *phase = phases_.get();
        for (size_t i = 0; i < sections_.size(); i++) {
            if (i) (phase++)->open(int32_t(pieces_.size()));
            if (!shares_columns_) (phase++)->open(int32_t(num_blocks_));
            else
                for (const Step &step : sections_[i]) (phase++)->open(int32_t(pieces_of(step)));
        }
    }

    void work(int thread) {
        Phase *phase = phases_.get();
        for (size_t i = 0; i < sections_.size(); i++) {
            if (i) {
                const Layer &layer = plan_.layers[i - 1];
                (phase++)->take_part([&](int32_t piece) { attend_piece(layer, pieces_[piece], rest_of(thread)); });
            }
            if (!shares_columns_) {
                (phase++)->take_part([&](int32_t number) {
                    const Block block = block_of(thread, number);
                    for (const Step &step : sections_[i]) do_step(step, block, 0, INT32_MAX, thread);
                });
                continue;
            }
            for (const Step &step : sections_[i])
                (phase++)->take_part([&](int32_t piece) { share_step(step, piece, thread); });
        }
    }

    void share_step(const Step &step, int32_t piece, int thread) {
        if (!is_product(step.op)) {
            const int64_t first = piece * SMALL_ROWS;
            const Block block = tokens_of(thread, first, std::min(first + SMALL_ROWS, pack_.num_tokens));
            return do_step(step, block, 0, 0, thread);
        }
        const int64_t size = panels_a_piece(matrix_of(step).num_panels);
        const int64_t first = piece / num_blocks_ * size;
        do_step(step, block_of(thread, piece % num_blocks_), int32_t(first), int32_t(first + size), thread);
    }

    void attend_piece(const Layer &layer, const Piece &piece, float *scratch) {
        const Heads heads{heads_[0], heads_[1], heads_[2], pack_.num_tokens, layer.spec.num_heads, layer.head_dim,
                          layer.spec.window, plan_.has_bf16_heads, mixed_, stride_};
        for (int32_t head = piece.head; head < std::min(piece.end_head, layer.spec.num_heads); head++)
            attend(heads, head, piece.start, piece.length, piece.first, piece.end, scratch);
    }

    // One step for the tokens of a block: of a product the panels `first` up to `end`.
    void do_step(const Step &step, const Block &block, int32_t first, int32_t end, int thread) {
        if (is_product(step.op)) {
            const PackedLinear &weights = matrix_of(step);
            return multiply(step, block, weights, first, std::min(end, weights.num_panels), thread);
        }
        const int32_t size = plan_.spec.hidden_size;
        for (int64_t i = 0; i < block.num_rows; i++) {
            const int64_t row = block.first + i;
            float *x = x_ + row * stride_;
            switch (step.op) {
                case Op::EMBED:
                    embed_row(plan_.spec, pack_.token_ids[row], pack_.position_ids[row],
                              pack_.token_types ? pack_.token_types[row] : 0, x);
                    break;
                case Op::NORM: norm_row(*step.norm, x, x, size); break;
                case Op::NORM_ASIDE: norm_row(*step.norm, x, block.aside + i * stride_, size); break;
                default: norm_out(*step.norm, x, row);
            }
        }
    }

    // Rounded here and not by torch, whose threads would spin for a while afterwards on cores that the next call needs.
    void norm_out(const NormSpec &norm, float *x, int64_t row) {
        const int32_t size = plan_.spec.hidden_size;
        if (!pack_.is_out_bf16) return norm_row(norm, x, static_cast<float *>(out_) + row * size, size);
        norm_row(norm, x, x, size);
        narrow_row(x, static_cast<uint16_t *>(out_) + row * size, size);
    }

    void multiply(const Step &step, const Block &block, const PackedLinear &weights, int32_t first, int32_t end,
                  int thread) {
        float *x = x_ + block.first * stride_;
        const float *from = step.from_aside ? block.aside : x;
        int64_t from_stride = stride_;
        Finish finish;
        finish.out = x;
        finish.stride = stride_;
        if (step.op == Op::QKV) {
            set_heads(finish, *step.layer, block);
        } else if (step.op == Op::MLP_IN) {
            finish.kind = step.layer->spec.is_gated ? Finish::GATE : Finish::ACTIVATE;
            finish.activation = step.layer->spec.activation;
            finish.out = block.inner;
            finish.stride = inner_stride_;
        } else {
            finish.kind = Finish::ADD;
            from = step.op == Op::ATTENTION_OUT ? mixed_ + block.first * stride_ : block.inner;
            from_stride = step.op == Op::ATTENTION_OUT ? stride_ : inner_stride_;
        }
        linear(from, from_stride, block.num_rows, weights, first, end, finish,
               LinearScratch::at(rest_of(thread)));
    }

    void set_heads(Finish &finish, const Layer &layer, const Block &block) {
        finish.kind = Finish::HEADS;
        finish.has_bf16_heads = plan_.has_bf16_heads;
        // The scale of the scores, and the change from e to 2 as the base of the softmax, go into the queries.
        finish.query_factor = LOG2_E / std::sqrt(float(layer.head_dim));
        finish.heads = layer.heads.data();
        std::copy(heads_, heads_ + 3, finish.heads_out);
        finish.num_rows = pack_.num_tokens;
        finish.token = block.first;
        finish.head_dim = layer.head_dim;
        finish.half = layer.spec.rotary_size / 2;
        finish.positions = pack_.position_ids + block.first;
        if (layer.spec.rotary_size) {
            finish.cosine = pack_.tables[layer.spec.table].cosine;
            finish.sine = pack_.tables[layer.spec.table].sine;
        }
    }
};

}  // namespace

Status check_pack(const Plan &plan, const Pack &pack, int64_t *where) {
    const ModelSpec &model = plan.spec;
    int64_t most_positions = model.num_positions ? model.num_positions : INT64_MAX;
    for (const Layer &layer : plan.layers)
        if (layer.spec.rotary_size)
            most_positions = std::min(most_positions, pack.tables[layer.spec.table].num_rows);
    for (int64_t i = 0; i < pack.num_tokens; i++) {
        *where = i;
        if (pack.token_ids[i] < 0 || pack.token_ids[i] >= model.vocab_size) return BAD_TOKEN;
        if (pack.position_ids[i] < 0 || pack.position_ids[i] >= most_positions) return BAD_POSITION;
        if (pack.token_types && model.num_token_types &&
            (pack.token_types[i] < 0 || pack.token_types[i] >= model.num_token_types))
            return BAD_TOKEN_TYPE;
    }
    for (int64_t s = 0; s <= pack.num_sequences; s++) {
        *where = s;
        const int64_t bound = pack.cu_seqlens[s], before = s ? pack.cu_seqlens[s - 1] : 0;
        if (bound < before || bound - before > pack.max_seqlen || (s == 0 && bound != 0) ||
            (s == pack.num_sequences && bound != pack.num_tokens))
            return BAD_BOUNDS;
    }
    return OK;
}

Status forward(const Plan &plan, const Pack &pack, int num_threads, void *out) {
    if (pack.num_tokens == 0) return OK;
    return Forward(plan, pack, num_threads, out).run();
}

Status linear_alone(const PackedLinear &weights, const float *x, int64_t num_rows, int num_threads, float *out) {
    struct Product {
        const PackedLinear &weights;
        const float *x;
        int64_t num_rows;
        float *out, *scratch;
        int64_t stride, of_thread;
        Phase phase;
    };
    const int64_t of_linear = LinearScratch::floats(weights.in), stride = padded(weights.out);
    float *scratch = scratch_memory((of_linear + BLOCK_ROWS * stride) * num_threads);
    if (!scratch) return NO_MEMORY;
    Product product{weights, x, num_rows, out, scratch, stride, of_linear + BLOCK_ROWS * stride, {}};
    product.phase.open(int32_t((num_rows + BLOCK_ROWS - 1) / BLOCK_ROWS));
    const auto job = [](void *what, int thread) {
        Product &p = *static_cast<Product *>(what);
        float *rest = p.scratch + thread * p.of_thread, *padded_out = rest + LinearScratch::floats(p.weights.in);
        p.phase.take_part([&](int32_t piece) {
            const int64_t first = int64_t(piece) * BLOCK_ROWS, num = std::min<int64_t>(BLOCK_ROWS, p.num_rows - first);
            Finish finish;
            finish.out = padded_out;
            finish.stride = p.stride;
            linear(p.x + first * p.weights.in, p.weights.in, num, p.weights, 0, p.weights.num_panels, finish,
                   LinearScratch::at(rest));
            for (int64_t row = 0; row < num; row++)
                std::copy(padded_out + row * p.stride, padded_out + row * p.stride + p.weights.out,
                          p.out + (first + row) * p.weights.out);
        });
    };
    return run_on_threads(num_threads, job, &product) ? OK : BAD_THREADS;
}

}  // namespace modernbert
