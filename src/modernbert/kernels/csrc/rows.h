// What happens to the vector of a token alone: the embeddings and the norms. Sizes are multiples of LANES.
#pragma once
#include "interface.h"

namespace modernbert {

// from [D] to [D]; the two may be one. NO_NORM copies.
void norm_row(const NormSpec &norm, const float *from, float *to, int32_t size);

// A row in bfloat16.
void narrow_row(const float *from, uint16_t *to, int32_t size);

// The sum of a token's vectors, normed. `type` is 0 where a pack names none.
void embed_row(const ModelSpec &model, int64_t token, int64_t position, int64_t type, float *to);

}  // namespace modernbert
