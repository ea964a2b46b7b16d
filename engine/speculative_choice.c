// SPDX-License-Identifier: MIT
// Speculative decoding: drafts looked up in a text, and how many drafts pay off.
//
// A draft is right with a probability a, of its source; then k drafts make 1 + a + ... + a^k tokens
// of a step (Leviathan, Kalman and Matias 2023), which takes what a step of k + 1 rows was measured
// to take on this device, and the drafting.
#include "speculative.h"

#define FIRST_AGREEMENT 0.7 // assumed before anything is known
#define AGREEMENT_SHARE (1.0 / 16)
#define TIME_SHARE (1.0 / 8)
#define FORGET (1.0 / 1024) // of times that are not measured: what seemed slow is tried again

uint32_t lookup_find(const int32_t *text, uint32_t count, uint32_t *after)
{
    uint32_t best = 0;
    for (uint32_t end = count ? count - 1 : 0; end > 0 && best < LOOKUP_MOST; end--) {
        uint32_t length = 0;
        while (length < end && length < LOOKUP_MOST &&
               text[end - 1 - length] == text[count - 1 - length])
            length++;
        if (length > best) {
            best = length;
            *after = end;
        }
    }
    return best;
}

void estimates_init(draft_estimates *e)
{
    *e = (draft_estimates){ 0 };
    for (uint32_t i = 0; i <= LOOKUP_MOST; i++)
        e->agreement[i] = FIRST_AGREEMENT;
}

void estimates_add_time(draft_estimates *e, uint32_t rows, double seconds)
{
    double *known = &e->seconds[rows];
    for (uint32_t i = 1; i <= DRAFT_MOST + 1; i++)
        e->seconds[i] -= i == rows ? 0 : FORGET * e->seconds[i];
    if (!e->samples[rows]++ || seconds <= 0)
        return;
    if (*known > 0)
        *known += TIME_SHARE * ((seconds < 2 * *known ? seconds : 2 * *known) - *known);
    else
        *known = seconds;
}

void estimates_add_drafts(draft_estimates *e, uint32_t source, uint32_t right, bool wrong)
{
    double *a = &e->agreement[source];
    for (uint32_t i = 0; i < right; i++)
        *a += AGREEMENT_SHARE * (1 - *a);
    if (wrong)
        *a -= AGREEMENT_SHARE * *a;
}

// Of a step of so many rows; what is not known yet takes no longer than fewer rows do: it will be
// tried. Without time stamps all take the same, and drafting no time.
static double seconds_of(const draft_estimates *e, uint32_t rows)
{
    while (rows > 0 && e->seconds[rows] <= 0)
        rows--;
    return rows ? e->seconds[rows] : 1;
}

uint32_t estimates_best(const draft_estimates *e, uint32_t source, uint32_t most, double *rate)
{
    const double a = e->agreement[source], cost = source ? 0 : e->seconds[0];
    double tokens = 1, share = 1;
    uint32_t best = 0;
    *rate = 1 / seconds_of(e, 1);
    for (uint32_t k = 1; k <= most; k++) {
        tokens += share *= a;
        const double now = tokens / (seconds_of(e, k + 1) + k * cost);
        if (now > *rate) {
            *rate = now;
            best = k;
        }
    }
    return best;
}
