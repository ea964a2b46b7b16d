// SPDX-License-Identifier: MIT
// Sampling: repetition penalty, temperature, softmax, top-k, top-p, min-p, draw.
#ifdef _WIN32
#    define _CRT_RAND_S
#endif
#include "sampler.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#    include <sys/random.h>
#endif

#include "host/error.h"

typedef struct entry {
    float logit;
    int32_t id;
} entry;

struct kim_sampler {
    kim_sampling params; // defaults filled in
    uint64_t state;      // of the generator
    uint32_t room;
    entry *entries;  // [room]
    float *adjusted; // [room] logits after the penalty; NULL while it is off
};

// -------------------------------------------------------------------------------- creation

// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014 (SplitMix64). Any
// state is a good one, and seeds next to each other give unrelated numbers.
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

// In [0, 1), of 24 bits: a float holds it, and devices draw with the same number.
static float next_uniform(uint64_t *state)
{
    return (float)(next_random(state) >> 40) * 0x1p-24f;
}

static kim_err system_seed(uint64_t *seed)
{
#ifdef _WIN32
    unsigned low, high;
    bool ok = !rand_s(&low) && !rand_s(&high);
    *seed = ok ? (uint64_t)high << 32 | low : 0;
#else
    bool ok = !getentropy(seed, sizeof *seed);
#endif
    return ok ? KIM_OK
              : kim_fail(KIM_ERR_UNSUPPORTED, "the system gives no random numbers: pass a seed");
}

static kim_err check_range(const char *name, float value, float most)
{
    if (value >= 0 && value <= most && isfinite(value))
        return KIM_OK;
    if (isinf(most))
        return kim_fail(KIM_ERR_ARGUMENT, "%s is %g, expected 0 or more", name, (double)value);
    return kim_fail(KIM_ERR_ARGUMENT, "%s is %g, expected 0 to %g", name, (double)value,
                    (double)most);
}

kim_err kim_sampler_create(kim_sampler **out, const kim_sampling *params)
{
    kim_err err = KIM_OK;
    *out = NULL;
    kim_sampler *s = calloc(1, sizeof *s);
    REQUIRE_MEMORY(s);
    if (params)
        s->params = *params;
    kim_sampling *p = &s->params;
    TRY(check_range("temperature", p->temperature, INFINITY));
    TRY(check_range("top_p", p->top_p, 1));
    TRY(check_range("min_p", p->min_p, 1));
    TRY(check_range("repeat_penalty", p->repeat_penalty, INFINITY));
    if (p->temperature == 0)
        p->temperature = 1;
    if (p->top_k == 0)
        p->top_k = 64;
    if (p->top_p == 0)
        p->top_p = 0.95f;
    if (p->repeat_penalty == 0)
        p->repeat_penalty = 1;
    if (p->repeat_last == 0)
        p->repeat_last = 64;
    if (p->seed == 0)
        TRY(system_seed(&p->seed));
    s->state = p->seed;
    *out = s;
    return KIM_OK;
error:
    kim_sampler_destroy(&s);
    return err;
}

void kim_sampler_destroy(kim_sampler **sampler)
{
    if (!*sampler)
        return;
    free((*sampler)->entries);
    free((*sampler)->adjusted);
    free(*sampler);
    *sampler = NULL;
}

static kim_err make_room(kim_sampler *s, uint32_t vocab)
{
    kim_err err = KIM_OK;
    if (vocab <= s->room)
        return KIM_OK;
    s->room = 0;
    free(s->entries);
    free(s->adjusted);
    s->adjusted = NULL;
    s->entries = malloc(vocab * sizeof *s->entries);
    REQUIRE_MEMORY(s->entries);
    if (s->params.repeat_penalty != 1) {
        s->adjusted = malloc(vocab * sizeof *s->adjusted);
        REQUIRE_MEMORY(s->adjusted);
    }
    s->room = vocab;
error:
    return err;
}

// ----------------------------------------------------------------------------- distribution

// Loops over the vocabulary go by so many logits at once, each in a lane of its own: compilers turn
// that into vector instructions as it stands, at -O2 and without leave to reorder sums.
enum { LANES = 16 };

kim_err sampler_fail_logits(bool odd, uint32_t id, uint32_t vocab)
{
    if (odd)
        return kim_fail(KIM_ERR_VULKAN,
                        "the logit of token %u is not a number: the model's weights or the "
                        "device's arithmetic are broken",
                        id);
    return kim_fail(KIM_ERR_VULKAN,
                    "all %u logits are -infinity: the model's weights or the device's arithmetic "
                    "are broken",
                    vocab);
}

// The place of the highest logit, the first of equal ones.
static kim_err find_highest(const float *logits, uint32_t vocab, uint32_t *highest)
{
    float most[LANES];
    int32_t odd[LANES] = { 0 };
    for (uint32_t k = 0; k < LANES; k++)
        most[k] = -INFINITY;
    uint32_t i = 0, best = 0;
    for (; i + LANES <= vocab; i += LANES) {
        const float *x = logits + i;
        for (int k = 0; k < LANES; k++) {
            most[k] = x[k] > most[k] ? x[k] : most[k];
            odd[k] |= x[k] != x[k];
        }
    }
    for (; i < vocab; i++) {
        most[0] = logits[i] > most[0] ? logits[i] : most[0];
        odd[0] |= logits[i] != logits[i];
    }
    for (uint32_t k = 1; k < LANES; k++) {
        most[0] = most[k] > most[0] ? most[k] : most[0];
        odd[0] |= odd[k];
    }
    for (i = 0; odd[0]; i++) {
        if (isnan(logits[i]))
            return sampler_fail_logits(true, i, vocab);
    }
    if (most[0] == -INFINITY)
        return sampler_fail_logits(false, 0, vocab);
    while (logits[best] != most[0])
        best++;
    *highest = best;
    return KIM_OK;
}

// The probability relative to the highest one's. Equal ones compare first: infinity is allowed.
static float weight(float logit, float highest, float temperature)
{
    return logit == highest ? 1.0f : expf((logit - highest) / temperature);
}

// weight() of LANES logits, to 4e-6 of it, near the highest to 2e-7. Less than e^-86 counts as
// that.
static void weigh_lanes(float *restrict out, const float *restrict logits, float highest,
                        float temperature)
{
    const float round = 12582912; // 1.5 * 2^23: a float this large is a whole number
    const float scale = 1.442695041f / temperature, low = highest - 86 * temperature;
    for (int k = 0; k < LANES; k++) // apart from the next loop, or gcc 12 branches in it
        out[k] = logits[k] > low ? logits[k] : low;
    for (int k = 0; k < LANES; k++) {
        float power = (out[k] - highest) * scale; // the weight is 2^power
        float shifted = power + round;            // its low bits are the power, rounded
        float f = power - (shifted - round);      // in [-1/2, 1/2]
        float value = 0.00132647267f;             // minimax polynomial of 2^f
        value = value * f + 0.00967151268f;
        value = value * f + 0.0555073374f;
        value = value * f + 0.240222421f;
        value = value * f + 0.693146978f;
        value = value * f + 1;
        union {
            float number;
            uint32_t bits;
        } result = { value }, whole = { shifted };
        result.bits += whole.bits << 23; // into the exponent
        out[k] = result.number;
    }
}

static double sum_weights(const float *logits, uint32_t vocab, float highest, float temperature)
{
    double sum[LANES] = { 0 };
    float weights[LANES];
    uint32_t i = 0;
    // The plain loop does all where the floats around the highest logit are too coarse for this
    // temperature, or where it or the range is infinite.
    float least = (highest - 86 * temperature - highest) / temperature;
    bool fine = temperature > 1e-30f && least > -87 && least < -80;
    for (; fine && i + LANES <= vocab; i += LANES) {
        weigh_lanes(weights, logits + i, highest, temperature);
        for (int k = 0; k < LANES; k++)
            sum[k] += weights[k];
    }
    for (; i < vocab; i++)
        sum[0] += weight(logits[i], highest, temperature);
    for (int k = 1; k < LANES; k++)
        sum[0] += sum[k];
    return sum[0];
}

// The logits after the repetition penalty.
static const float *penalise(kim_sampler *s, const float *logits, uint32_t vocab,
                             const int32_t *history, uint32_t n_history)
{
    float penalty = s->params.repeat_penalty;
    if (penalty == 1)
        return logits;
    memcpy(s->adjusted, logits, vocab * sizeof *logits);
    uint32_t first = n_history > s->params.repeat_last ? n_history - s->params.repeat_last : 0;
    for (uint32_t i = first; i < n_history; i++) {
        int32_t id = history[i];
        if (id < 0 || (uint32_t)id >= vocab)
            continue;
        float logit = logits[id]; // from the original: a token seen twice is penalised once
        s->adjusted[id] = logit > 0 ? logit / penalty : logit * penalty;
    }
    return s->adjusted;
}

// ---------------------------------------------------------------------------------- filters

static bool more_probable(entry a, entry b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Restores the heap below `at`: the most probable first, or the least.
static void sift_down(entry *heap, uint32_t n, uint32_t at, bool most_first)
{
    entry moved = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && more_probable(heap[child + 1], heap[child]) == most_first)
            child++;
        if (more_probable(heap[child], moved) != most_first)
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void make_heap(entry *heap, uint32_t n, bool most_first)
{
    for (uint32_t at = n / 2; at-- > 0;)
        sift_down(heap, n, at, most_first);
}

// Puts the k most probable into entries[0 .. k - 1], in no order.
static void take_top_k(entry *entries, uint32_t k, const float *logits, uint32_t vocab)
{
    for (uint32_t i = 0; i < k; i++)
        entries[i] = (entry){ logits[i], (int32_t)i };
    if (k == vocab)
        return;
    make_heap(entries, k, false);
    for (uint32_t i = k; i < vocab; i++) {
        if (logits[i] > entries[0].logit) { // an equal one has the higher id: less probable
            entries[0] = (entry){ logits[i], (int32_t)i };
            sift_down(entries, k, 0, false);
        }
    }
}

// Moves the entries that top-p and min-p keep to the end of entries[0 .. n - 1], the most probable
// last, and returns how many. mass: the weight after which top-p ends
static uint32_t take_top_p(const kim_sampling *p, entry *entries, uint32_t n, float highest,
                           double mass)
{
    make_heap(entries, n, true);
    uint32_t kept = 0;
    for (double before = 0; kept < n; kept++) {
        entry next = entries[0];
        float w = weight(next.logit, highest, p->temperature);
        if (kept && (before > mass || w < p->min_p))
            break;
        before += w;
        uint32_t last = n - 1 - kept;
        entries[0] = entries[last];
        entries[last] = next;
        sift_down(entries, last, 0, true);
    }
    return kept;
}

// One of entries[first .. end - 1] by weight.
static int32_t draw(kim_sampler *s, uint32_t first, uint32_t end, float highest)
{
    const entry *e = s->entries;
    double kept = 0, sum = 0;
    for (uint32_t i = end; i-- > first;)
        kept += weight(e[i].logit, highest, s->params.temperature);
    double mark = kept * (double)next_uniform(&s->state); // [0, kept)
    uint32_t at = end;
    do
        sum += weight(e[--at].logit, highest, s->params.temperature);
    while (sum <= mark && at > first);
    return e[at].id;
}

// One of entries[0 .. k - 1], in any order before, by weight: no more of them are sorted than
// needed.
static int32_t draw_unfiltered(kim_sampler *s, uint32_t k, float highest)
{
    entry *e = s->entries;
    double kept = 0, sum = 0;
    for (uint32_t i = 0; i < k; i++)
        kept += weight(e[i].logit, highest, s->params.temperature);
    double mark = kept * (double)next_uniform(&s->state);
    make_heap(e, k, true);
    while ((sum += weight(e[0].logit, highest, s->params.temperature)) <= mark && k > 1) {
        e[0] = e[--k];
        sift_down(e, k, 0, true);
    }
    return e[0].id;
}

kim_err sampler_draw(kim_sampler *s, const float *logits, uint32_t vocab, const int32_t *history,
                     uint32_t n_history, int32_t *id, float *logprob)
{
    kim_err err = KIM_OK;
    const kim_sampling *p = &s->params;
    uint32_t best;
    TRY(find_highest(logits, vocab, &best));
    float raw_highest = logits[best];
    double raw_total = 0; // at temperature 1; 0: not known yet

    if (p->greedy) {
        *id = (int32_t)best;
    } else {
        TRY(make_room(s, vocab));
        const float *adjusted = penalise(s, logits, vocab, history, n_history);
        if (adjusted != logits)
            TRY(find_highest(adjusted, vocab, &best));
        float highest = adjusted[best];
        uint32_t k = p->top_k < vocab ? p->top_k : vocab;
        take_top_k(s->entries, k, adjusted, vocab);
        if (p->top_p < 1 || p->min_p > 0) {
            double mass = INFINITY;
            if (p->top_p < 1) {
                mass = sum_weights(adjusted, vocab, highest, p->temperature);
                if (adjusted == logits && p->temperature == 1)
                    raw_total = mass;
                mass *= p->top_p;
            }
            uint32_t kept = take_top_p(p, s->entries, k, highest, mass);
            *id = draw(s, k - kept, k, highest);
        } else {
            *id = draw_unfiltered(s, k, highest);
        }
    }
    if (logprob) {
        if (raw_total == 0)
            raw_total = sum_weights(logits, vocab, raw_highest, 1);
        // the difference of two infinities would be no number
        float below = logits[*id] == raw_highest ? 0 : logits[*id] - raw_highest;
        *logprob = below - (float)log(raw_total);
    }
error:
    return err;
}

// ----------------------------------------------------------------------------- on the device

// The places that the shaders know.
#define AT(field, word) _Static_assert(offsetof(struct sampling_block, field) == 4 * (word), #field)
AT(temperature, SAMPLING_TEMPERATURE);
AT(top_k, SAMPLING_TOP_K);
AT(top_p, SAMPLING_TOP_P);
AT(min_p, SAMPLING_MIN_P);
AT(repeat_penalty, SAMPLING_REPEAT_PENALTY);
AT(repeat_last, SAMPLING_REPEAT_LAST);
AT(n_stops, SAMPLING_N_STOPS);
AT(stops, SAMPLING_STOPS);
AT(draws, SAMPLING_DRAWS);

void sampler_fill_block(const kim_sampler *s, struct sampling_block *block, uint32_t from_step,
                        uint32_t n)
{
    const kim_sampling *p = &s->params;
    uint64_t state = s->state;
    block->temperature = p->temperature;
    block->top_k = p->top_k;
    block->top_p = p->top_p;
    block->min_p = p->min_p;
    block->repeat_penalty = p->repeat_penalty;
    block->repeat_last = p->repeat_last;
    for (uint32_t i = 0; i < n; i++)
        block->draws[(from_step + i) % SAMPLE_DRAWS] = next_uniform(&state);
}

void sampler_consume(kim_sampler *s, uint32_t n)
{
    for (uint32_t i = 0; i < n && !s->params.greedy; i++) // as sampler_draw does
        (void)next_random(&s->state);
}

bool sampler_is_greedy(const kim_sampler *s)
{
    return s->params.greedy;
}
