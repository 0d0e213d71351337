// Vectors of floats, written once for every width: 8 lanes with AVX2, 16 with AVX-512.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace modernbert {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef float LooseFloats __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float Eight __attribute__((vector_size(32)));
typedef float LooseEight __attribute__((vector_size(32), aligned(4), may_alias));

inline Floats load(const float *from) { return *reinterpret_cast<const LooseFloats *>(from); }
inline void store(float *to, Floats x) { *reinterpret_cast<LooseFloats *>(to) = x; }
inline Floats splat(float x) { return Floats{} + x; }

// bfloat16 are the upper halves of floats.
inline Floats widened(const uint16_t *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
#else
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16);
#endif
}

// Numbers of the caller: floats or bfloat16.
struct Given {
    const void *at;
    bool is_bf16;
    Floats vector(int64_t i) const {
        return is_bf16 ? widened((const uint16_t *)at + i) : load((const float *)at + i);
    }
    float operator[](int64_t i) const {
        if (!is_bf16) return ((const float *)at)[i];
        const uint32_t bits = uint32_t(((const uint16_t *)at)[i]) << 16;
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
    }
};

// To the nearest, ties to even; a NaN stays one.
inline uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#if defined(__AVX512BF16__)
constexpr bool HAS_BF16 = true;
inline void store_bf16(uint16_t *to, Floats x) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
#else
constexpr bool HAS_BF16 = false;
#endif

inline Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#endif
}

inline Floats smaller(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_min_ps((__m512)a, (__m512)b);
#else
    return (Floats)_mm256_min_ps((__m256)a, (__m256)b);
#endif
}

inline Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

inline float sum_of(Floats x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

inline float largest_of(Floats x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
}

inline Floats absolute(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

// 2 ** x to about one part in 10^7; 0 below -126, where numbers would lose bits; x must stay below 127.
// A NaN stays one: whoever diverged must see it.
inline Floats exp2(Floats x) {
    // Added to this, x is rounded to a whole number, whose bits, with the exponent's offset of 127, come last.
    const float shift = 12582912.0f + 127.0f;
    Floats shifted = x + shift;
    Floats rest = x - (shifted - shift);  // in [-1/2, 1/2]
    Floats power = (Floats)((Ints)shifted << 23);
    // Coefficients by least squares over the interval, weighted for relative error: 2e-9 before rounding.
    Floats y = splat(1.5337577e-4f);
    y = y * rest + 1.3399860e-3f;
    y = y * rest + 9.6185195e-3f;
    y = y * rest + 5.5503290e-2f;
    y = y * rest + 2.4022647e-1f;
    y = y * rest + 6.9314721e-1f;
    y = y * rest + 1.0f;
    return x < -126.0f ? Floats{} : y * power;
}

constexpr float LOG2_E = 1.44269504088896340736f;

// Of two numbers, one of them NaN, the processor's minimum gives the second.
inline Floats exp_below_88(Floats x) { return exp2(smaller(splat(87.0f), x) * LOG2_E); }
inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exp_below_88(-x)); }

// x times the share of a normal distribution below x, to 3e-7: max(x, 0) - |x| tail(|x|), where the tail is
// exp(-x^2 / 2) times a polynomial in 1 / (1 + p |x| / sqrt(2)): the form of Abramowitz and Stegun 7.1.26, with its p
// and three more coefficients, fitted for relative error. 1 + erf(x) would lose the bits of the tail.
inline Floats gelu(Floats x) {
    const Floats away = absolute(x);
    const Floats t = 1.0f / (1.0f + 0.23164189f * away);
    Floats y = splat(-7.032975330e-02f);
    y = y * t + 2.472806571e-01f;
    y = y * t - 2.009332544e-01f;
    y = y * t + 2.245523314e-01f;
    y = y * t + 1.394378882e-02f;
    y = y * t + 1.025236053e-01f;
    y = y * t + 9.044201138e-02f;
    y = y * t + 9.252068234e-02f;
    return larger(Floats{}, x) - away * (t * y * exp2(x * x * -0.72134752f));
}

inline Floats tanh(Floats x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

// Rows of eight numbers become columns. Strides count floats.
inline void transpose_eight(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    Eight r[8], s[8];
    for (int i = 0; i < 8; i++) r[i] = *reinterpret_cast<const LooseEight *>(from + i * from_stride);
    for (int i = 0; i < 4; i++) {
        s[2 * i] = __builtin_shufflevector(r[2 * i], r[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        s[2 * i + 1] = __builtin_shufflevector(r[2 * i], r[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 2; i++) {
        Eight a = s[4 * i], b = s[4 * i + 1], c = s[4 * i + 2], d = s[4 * i + 3];
        r[4 * i] = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
        r[4 * i + 1] = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
        r[4 * i + 2] = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
        r[4 * i + 3] = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i++) {
        Eight low = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        Eight high = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
        *reinterpret_cast<LooseEight *>(to + i * to_stride) = low;
        *reinterpret_cast<LooseEight *>(to + (i + 4) * to_stride) = high;
    }
}

}  // namespace modernbert
