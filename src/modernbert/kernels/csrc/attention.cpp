#include "attention.h"

#include <algorithm>
#include <cmath>

#include "tiles.h"

namespace modernbert {
namespace {

// Keys of a block: a window of 64 on each side of a panel fits, and the scores, 10 kB, in the first cache.
constexpr int64_t KEYS = LANES == 16 ? 176 : 160;
constexpr int64_t NUM_PANELS = LANES == 16 ? 4 : 6;

// What a panel of queries carries from a block of keys to the next.
struct Panel {
    float *queries;  // [K, TILE_COLUMNS], or [K / 2, TILE_COLUMNS] pairs
    float *sums;     // [K, TILE_COLUMNS], of values
    Floats most[2], total[2];
    int64_t first;   // query, inside the sequence
    bool is_new;
};

struct Scratch {
    float *scores;  // [KEYS, TILE_COLUMNS]
    float *pairs;   // [KEYS / 2, K]: of bfloat16 values, those of two keys side by side
    Panel panels[NUM_PANELS];

    Scratch(float *memory, int64_t size) : scores(memory), pairs(memory + KEYS * TILE_COLUMNS) {
        memory = pairs + KEYS / 2 * size;
        for (Panel &panel : panels) {
            panel.queries = memory;
            panel.sums = memory + size * TILE_COLUMNS;
            memory += 2 * size * TILE_COLUMNS;
        }
    }
};

// Lanes behind the sequence hold its neighbour's queries; what comes of them is not stored.
void load_queries(const float *from, int64_t size, int num_lanes, float *to) {
    for (int64_t lane = 0; lane < num_lanes; lane += 8)
        for (int64_t k = 0; k < size; k += 8)
            transpose_eight(from + lane * size + k, size, to + k * TILE_COLUMNS + lane, TILE_COLUMNS);
}

template <int VECTORS>
void hide_far_keys(float *scores, const Panel &panel, int64_t first_key, int64_t num_keys, int64_t window) {
    Floats lane;
    for (int i = 0; i < LANES; i++) lane[i] = float(i);
    for (int64_t key = 0; key < num_keys; key++) {
        const int64_t away = first_key + key - panel.first;  // from the first query
        if (away >= VECTORS * LANES - 1 - window && away <= window) continue;  // all lanes see it
        for (int v = 0; v < VECTORS; v++) {
            float *at = scores + key * TILE_COLUMNS + v * LANES;
            const Floats distance = absolute(lane + float(v * LANES) - float(away));
            store(at, distance <= float(window) ? load(at) : splat(-INFINITY));
        }
    }
}

#if defined(__AVX512BF16__)
// Two rows of bfloat16 as one of pairs: the first row's numbers are the lower halves.
void pair_rows(const uint16_t *first, const uint16_t *second, int64_t size, float *to) {
    for (int64_t k = 0; k < size; k += LANES) {
        const __m512i high = second ? (__m512i)widened(second + k) : _mm512_setzero_si512();
        const __m512i low = _mm512_srli_epi32((__m512i)widened(first + k), 16);
        _mm512_storeu_si512(to + k, _mm512_or_si512(high, low));
    }
}

// The values of a block, two keys side by side; behind an odd number there are zeros.
void pair_values(const float *values, int64_t size, int64_t num_keys, float *to) {
    const uint16_t *rows = reinterpret_cast<const uint16_t *>(values);
    for (int64_t key = 0; key < num_keys; key += 2)
        pair_rows(rows + key * size, key + 1 < num_keys ? rows + (key + 1) * size : nullptr, size, to + key / 2 * size);
}

// The same of the softmax's weights, a vector of them a key, where they lie.
void pair_weights(float *scores, int64_t num_keys) {
    for (int64_t key = 0; key < num_keys; key += 2) {
        const Floats low = load(scores + key * TILE_COLUMNS);
        const Floats high = key + 1 < num_keys ? load(scores + (key + 1) * TILE_COLUMNS) : Floats{};
        // Not below 0, so half a unit is added to round to the nearest.
        const Ints rounded = (Ints)low + 0x8000, above = ((Ints)high + 0x8000) & int32_t(0xffff0000);
        store(scores + key / 2 * TILE_COLUMNS, (Floats)((__m512i)above | _mm512_srli_epi32((__m512i)rounded, 16)));
    }
}
#endif

template <typename Kind, int VECTORS>
void meet(const Heads &heads, Panel &panel, const float *keys, const float *values, int64_t first_key,
          int64_t num_keys, float *scores) {
    const int64_t size = heads.head_dim, depth = size / Kind::SIZE;
    product<Kind, VECTORS, false>(keys, depth, num_keys, panel.queries, TILE_COLUMNS, depth, scores, TILE_COLUMNS,
                                  false);
    if (heads.window >= 0) hide_far_keys<VECTORS>(scores, panel, first_key, num_keys, heads.window);
    for (int v = 0; v < VECTORS; v++) {
        float *column = scores + v * LANES;
        Floats most = panel.is_new ? load(column) : panel.most[v];
        for (int64_t key = 0; key < num_keys; key++) most = larger(load(column + key * TILE_COLUMNS), most);
        Floats total{};
        for (int64_t key = 0; key < num_keys; key++) {
            const Floats weight = exp2(load(column + key * TILE_COLUMNS) - most);
            store(column + key * TILE_COLUMNS, weight);
            total += weight;
        }
        if (!panel.is_new) {
            const Floats shrunk = exp2(panel.most[v] - most);
            total += panel.total[v] * shrunk;
            for (int64_t k = 0; k < size; k++) {
                float *at = panel.sums + k * TILE_COLUMNS + v * LANES;
                store(at, load(at) * shrunk);
            }
        }
        panel.most[v] = most;
        panel.total[v] = total;
#if defined(__AVX512BF16__)
        if constexpr (Kind::SIZE == 2) pair_weights(column, num_keys);
#endif
    }
    product<Kind, VECTORS, true>(values, size, size, scores, TILE_COLUMNS, (num_keys + Kind::SIZE - 1) / Kind::SIZE,
                                 panel.sums, TILE_COLUMNS, !panel.is_new);
    panel.is_new = false;
}

template <int VECTORS>
void write(const Heads &heads, const Panel &panel, int64_t num_queries, float *to) {
    const int64_t size = heads.head_dim;
    for (int v = 0; v < VECTORS; v++) {
        const Floats factor = 1.0f / panel.total[v];
        for (int64_t k = 0; k < size; k++) {
            float *at = panel.sums + k * TILE_COLUMNS + v * LANES;
            store(at, load(at) * factor);
        }
    }
    for (int64_t lane = 0; lane < num_queries; lane += 8)
        for (int64_t k = 0; k < size; k += 8) {
            const float *from = panel.sums + k * TILE_COLUMNS + lane;
            float *rows = to + lane * heads.out_stride + k;
            if (lane + 8 <= num_queries) {
                transpose_eight(from, TILE_COLUMNS, rows, heads.out_stride);
                continue;
            }
            float turned[64];
            transpose_eight(from, TILE_COLUMNS, turned, 8);
            for (int64_t i = 0; i < num_queries - lane; i++)
                std::copy(turned + i * 8, turned + i * 8 + 8, rows + i * heads.out_stride);
        }
}

// Whether the queries from `first` on fill one vector or less: the other one is then left out.
bool is_half(int64_t first, int64_t end) { return end - first <= LANES; }

// The panels from query `first` on, all keys that any of them sees, block by block. A row is `depth` floats or pairs.
template <typename Kind>
void attend_panels(const Heads &heads, int32_t head, int64_t start, int64_t length, int64_t first, int64_t end,
                   Scratch &scratch) {
    const int64_t size = heads.head_dim, num_panels = (end - first + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int64_t depth = size / Kind::SIZE, base = (head * heads.num_rows + start) * depth;
    for (int64_t i = 0; i < num_panels; i++) {
        Panel &panel = scratch.panels[i];
        panel.first = first + i * TILE_COLUMNS;
        panel.is_new = true;
        load_queries(heads.queries + base + panel.first * depth, depth,
                     is_half(panel.first, end) ? LANES : TILE_COLUMNS, panel.queries);
    }
    int64_t low = 0, high = length;
    if (heads.window >= 0) {
        low = std::max<int64_t>(0, first - heads.window);
        high = std::min(length, end + heads.window);
    }
    for (int64_t key = low; key < high; key += KEYS) {
        const int64_t num_keys = std::min(KEYS, high - key);
        const float *keys = heads.keys + base + key * depth, *values = heads.values + base + key * depth;
#if defined(__AVX512BF16__)
        if constexpr (Kind::SIZE == 2) {
            pair_values(values, size, num_keys, scratch.pairs);
            values = scratch.pairs;
        }
#endif
        for (int64_t i = 0; i < num_panels; i++) {
            Panel &panel = scratch.panels[i];
            is_half(panel.first, end) ? meet<Kind, 1>(heads, panel, keys, values, key, num_keys, scratch.scores)
                                      : meet<Kind, 2>(heads, panel, keys, values, key, num_keys, scratch.scores);
        }
    }
    for (int64_t i = 0; i < num_panels; i++) {
        const Panel &panel = scratch.panels[i];
        float *to = heads.out + (start + panel.first) * heads.out_stride + head * size;
        const int64_t num_queries = std::min<int64_t>(TILE_COLUMNS, end - panel.first);
        is_half(panel.first, end) ? write<1>(heads, panel, num_queries, to)
                                  : write<2>(heads, panel, num_queries, to);
    }
}

template <typename Kind>
void attend_as(const Heads &heads, int32_t head, int64_t start, int64_t length, int64_t first, int64_t end,
               Scratch &scratch) {
    if (heads.window < 0 || heads.window >= length - 1) {
        Heads all = heads;
        all.window = -1;
        return attend_panels<Kind>(all, head, start, length, first, end, scratch);
    }
    // Panels of a local layer see different keys: each goes alone, or most of its scores would be hidden.
    for (int64_t query = first; query < end; query += TILE_COLUMNS)
        attend_panels<Kind>(heads, head, start, length, query, std::min<int64_t>(query + TILE_COLUMNS, end), scratch);
}

}  // namespace

const int64_t ATTENTION_ROWS = NUM_PANELS * TILE_COLUMNS;

int64_t attention_scratch_floats(int32_t head_dim) {
    return KEYS * TILE_COLUMNS + KEYS / 2 * head_dim + NUM_PANELS * 2 * head_dim * TILE_COLUMNS;
}

void attend(const Heads &heads, int32_t head, int64_t start, int64_t length, int64_t first, int64_t end,
            float *memory) {
    Scratch scratch(memory, heads.head_dim);
#if defined(__AVX512BF16__)
    if (heads.is_bf16) return attend_as<OfPairs>(heads, head, start, length, first, end, scratch);
#endif
    attend_as<OfFloats>(heads, head, start, length, first, end, scratch);
}

}  // namespace modernbert
