#include "interface.h"

#include <memory>
#include <new>

#include "forward.h"
#include "pool.h"

using namespace modernbert;

namespace {

struct Turn {
    Turn() { take_pool(); }
    ~Turn() { leave_pool(); }
};

bool is_possible(int32_t num_threads) { return num_threads >= 1 && num_threads <= 1024; }

}  // namespace

extern "C" {

int32_t modernbert_version(void) { return MODERNBERT_NATIVE_VERSION; }

int32_t modernbert_lanes(void) { return LANES; }

void *modernbert_plan_new(const ModelSpec *model) {
    try {
        auto plan = std::make_unique<Plan>();
        return plan->build(*model) ? plan.release() : nullptr;
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void *modernbert_plan_map(const ModelSpec *model, const void *start, int64_t bytes) {
    try {
        auto plan = std::make_unique<Plan>();
        Mapped mapped{static_cast<const char *>(start), bytes};
        return plan->build(*model, &mapped) ? plan.release() : nullptr;
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

int64_t modernbert_plan_blocks(const void *plan, Block *blocks, int64_t most) {
    const std::vector<Block> all = static_cast<const Plan *>(plan)->blocks();
    for (int64_t i = 0; i < most && i < int64_t(all.size()); i++) blocks[i] = all[i];
    return int64_t(all.size());
}

void modernbert_plan_free(void *plan) { delete static_cast<Plan *>(plan); }

int64_t modernbert_plan_bytes(const void *plan) { return static_cast<const Plan *>(plan)->bytes(); }

int32_t modernbert_plan_is_current(const void *plan) { return static_cast<const Plan *>(plan)->is_current(); }

int32_t modernbert_forward(const void *plan, const Pack *pack, int32_t num_threads, void *out, int64_t *where) {
    if (!is_possible(num_threads)) return BAD_THREADS;
    try {
        const Plan &whole = *static_cast<const Plan *>(plan);
        const Status status = check_pack(whole, *pack, where);
        if (status != OK) return status;
        const Turn turn;
        return forward(whole, *pack, num_threads, out);
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

int32_t modernbert_has_bf16(void) { return HAS_BF16; }

int32_t modernbert_linear(const LinearSpec *spec, int32_t products, const float *x, int64_t rows, int32_t num_threads,
                          float *out) {
    if (!is_possible(num_threads)) return BAD_THREADS;
    try {
        PackedLinear weights;
        if (!weights.pack(*spec, plain_columns(spec->out), Products(products))) return NO_MEMORY;
        const Turn turn;
        return linear_alone(weights, x, rows, num_threads, out);
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}
}
