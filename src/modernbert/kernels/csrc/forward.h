// A forward: a pack of tokens through a plan.
#pragma once
#include "plan.h"

namespace modernbert {

// OK, or what is wrong with the pack and, in `where`, the index of the first value at fault.
Status check_pack(const Plan &plan, const Pack &pack, int64_t *where);

// Hidden states [T, D]; the pack has been checked.
Status forward(const Plan &plan, const Pack &pack, int num_threads, void *out);

// One product, for tests and benchmarks.
Status linear_alone(const PackedLinear &weights, const float *x, int64_t num_rows, int num_threads, float *out);

}  // namespace modernbert
