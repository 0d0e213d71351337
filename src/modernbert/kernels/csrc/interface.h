// The plain C interface of the native encoder: no torch headers, so that one built file serves every torch.
//
// A model goes in as pointers to its tensors and comes out as a plan: weights packed for the products, and the
// steps of a forward in order. A plan is run on a pack of tokens, by as many threads as the call says. Every
// function that can fail gives a code of `Status`; the caller has the words.
#pragma once
#include <cstdint>

// Raise it with every change of this file: kernels/native_library.py holds the number that it was written for.
#define MODERNBERT_NATIVE_VERSION 4

#define MODERNBERT_API __attribute__((visibility("default")))

extern "C" {

enum Status : int32_t {
    OK = 0,
    NO_MEMORY = 1,
    BAD_TOKEN = 2,       // a token id outside the vocabulary
    BAD_POSITION = 3,    // a position outside the tables
    BAD_BOUNDS = 4,      // cu_seqlens does not rise from 0 to the number of tokens, or by more than max_seqlen
    BAD_THREADS = 5,     // a number of threads outside 1 to 1024
    BAD_TOKEN_TYPE = 6,  // a token type outside its table
};

// What products are computed in. INT8: weights of 8 bits, a scale for each row of a matrix, and activations with a scale
// for each token: of 8 bits where the processor multiplies those (AVX-512 VNNI), else of 16.
enum Products : int32_t { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

enum NormKind : int32_t { NO_NORM = 0, LAYER_NORM = 1, RMS_NORM = 2 };
enum BlockKind : int32_t { PRE_NORM = 0, POST_NORM = 1, PARALLEL = 2 };
enum Activation : int32_t { IDENTITY = 0, GELU = 1, GELU_TANH = 2, RELU = 3, RELU2 = 4, SILU = 5, QUICK_GELU = 6,
                            SIGMOID = 7, TANH = 8 };

struct NormSpec {
    int32_t kind;
    float eps;
    const void *weight;  // [D]; kept by the caller, read at every forward
    const void *bias;    // [D] or null
    int32_t is_bf16;     // the two are bfloat16, else floats
};

struct LinearSpec {
    const void *weight;  // [out, in], row by row; read once
    const void *bias;    // [out] or null; read once
    int32_t in;
    int32_t out;
    int32_t is_bf16;  // the two are bfloat16, else floats
};

struct LayerSpec {
    int32_t block;       // BlockKind
    int32_t num_heads;
    int32_t window;      // keys seen on each side; -1: all of the sequence
    int32_t rotary_size; // numbers of each head that are turned, the first; 0: none
    int32_t is_interleaved;
    int32_t table;       // which of a call's rotary tables
    int32_t is_gated;    // a gated linear unit, its activated half first
    int32_t activation;  // Activation
    NormSpec attention_norm, mlp_norm;  // a parallel block has the first alone
    LinearSpec qkv, attention_out, mlp_in, mlp_out;
};

struct ModelSpec {
    int32_t hidden_size, vocab_size, num_layers;
    int32_t num_positions, position_offset;  // of the learned positions; 0: none
    int32_t num_token_types;                 // 0: none
    int32_t products;                        // Products
    int32_t is_bf16;                         // the tables are bfloat16, else floats
    const void *tokens, *positions, *token_types;  // tables [rows, D]; kept by the caller
    NormSpec embedding_norm, final_norm;
    const LayerSpec *layers;
};

struct RotaryTable {
    const float *cosine, *sine;  // [num_rows, rotary_size / 2]
    int64_t num_rows;
};

struct Pack {
    int64_t num_tokens, num_sequences, max_seqlen;
    const int64_t *token_ids, *position_ids;  // [T]
    const int64_t *token_types;               // [T] or null
    const int32_t *cu_seqlens;                // [S + 1]
    const RotaryTable *tables;
    int32_t is_out_bf16;  // hidden states are rounded to bfloat16, else floats
};

struct Block {
    const void *start;
    int64_t bytes;
};

MODERNBERT_API int32_t modernbert_version(void);
MODERNBERT_API int32_t modernbert_lanes(void);  // floats of a vector: sizes of a model must be multiples of it
MODERNBERT_API int32_t modernbert_has_bf16(void);  // whether products may be BFLOAT16: 1 or 0
// Null where memory does not suffice.
MODERNBERT_API void *modernbert_plan_new(const ModelSpec *model);
// The same from packed weights that were kept: the blocks of a plan, each from a multiple of 64 bytes. They stay the
// caller's, and must stay where they are until the plan is freed. Null where they are not those of this model.
MODERNBERT_API void *modernbert_plan_map(const ModelSpec *model, const void *start, int64_t bytes);
// How many blocks a plan's packed weights are; `blocks` takes the first `most` of them, and may be null if 0.
MODERNBERT_API int64_t modernbert_plan_blocks(const void *plan, Block *blocks, int64_t most);
MODERNBERT_API void modernbert_plan_free(void *plan);
MODERNBERT_API int64_t modernbert_plan_bytes(const void *plan);
// Whether the matrices still hold what was packed, by a look at some numbers of each: 1 or 0.
MODERNBERT_API int32_t modernbert_plan_is_current(const void *plan);
// Hidden states [T, D] into `out`; where a code names a bad value, its index goes into `where`.
MODERNBERT_API int32_t modernbert_forward(const void *plan, const Pack *pack, int32_t num_threads, void *out, int64_t *where);
// For tests and benchmarks: one product, x [rows, in] by a linear layer into out [rows, out].
MODERNBERT_API int32_t modernbert_linear(const LinearSpec *linear, int32_t products, const float *x, int64_t rows,
                          int32_t num_threads, float *out);
}
