// SPDX-License-Identifier: MIT
// Which tokens may be drawn, in plain C and double precision: the reference for sample_*.comp.
#include "reference_sample.h"

#include "error.h"

#include <math.h>
#include <stdlib.h>

#define ULP 0x1p-24

typedef struct ranked {
    float logit;
    uint32_t id;
    double weight, before; // relative to the first; the sum of those before
    double error;          // what `before` may be off by: exp() and its argument
} ranked;

static int compare_ranked(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

// NULL: no memory. All ids with the adjusted logits, the most probable first; list[vocab].before is
// the whole sum.
static ranked *rank_logits(const float *logits, uint32_t vocab, const struct sampling_block *p,
                           const int32_t *history, uint32_t n_history)
{
    ranked *list = malloc((vocab + 1) * sizeof *list);
    if (!list)
        return NULL;
    for (uint32_t i = 0; i < vocab; i++)
        list[i] = (ranked){ .logit = logits[i], .id = i };
    for (uint32_t i = n_history - (n_history < p->repeat_last ? n_history : p->repeat_last);
         i < n_history; i++)
        if (history[i] >= 0 && (uint32_t)history[i] < vocab) {
            const float x = logits[history[i]];
            list[history[i]].logit = x > 0 ? x / p->repeat_penalty : x * p->repeat_penalty;
        }
    qsort(list, vocab, sizeof *list, compare_ranked);
    double sum = 0, error = 0;
    for (uint32_t i = 0; i <= vocab; i++) {
        list[i].before = sum;
        list[i].error = error;
        if (i == vocab)
            break;
        const bool equal = list[i].logit == list[0].logit; // infinite, both of them
        const double below = equal ? 0 : ((double)list[0].logit - list[i].logit) / p->temperature;
        list[i].weight = exp(-below);
        sum += list[i].weight;
        if (list[i].weight > 0)
            error += list[i].weight * (8 + 4 * below) * ULP;
    }
    return list;
}

// How many candidates may be kept, at least and at most: they differ where rounding decides.
static void find_cut(const ranked *list, uint32_t vocab, const struct sampling_block *p,
                     uint32_t cut[2])
{
    const uint32_t most = p->top_k < vocab ? p->top_k : vocab;
    const double mass = p->top_p < 1 ? p->top_p * list[vocab].before : INFINITY;
    // the sum of all is added up in runs of up to 2,000, whose rounding cancels mostly
    const double slack = list[vocab].error + 1e-5 * list[vocab].before;
    cut[0] = cut[1] = most;
    for (uint32_t i = 1; i < most; i++) {
        const double rounding = 1e-4 * p->min_p;
        if (cut[0] == most &&
            (list[i].before > mass - slack || list[i].weight < p->min_p + rounding))
            cut[0] = i;
        if (list[i].before > mass + slack || list[i].weight < p->min_p - rounding) {
            cut[1] = i;
            return;
        }
    }
}

static double kept_mass(const ranked *list, uint32_t kept)
{
    return list[kept - 1].before + list[kept - 1].weight;
}

// Whether `id` is the one that `share` draws, or one that rounding may have taken.
static bool may_be_drawn(const ranked *list, uint32_t vocab, const struct sampling_block *p,
                         double share, uint32_t id)
{
    uint32_t cut[2], at = 0;
    find_cut(list, vocab, p, cut);
    while (at < cut[1] && list[at].id != id)
        at++;
    if (at == cut[1])
        return false;
    // a lane adds up to 1/256 of the candidates, one after the other
    const double most = kept_mass(list, cut[1]);
    const double slack = list[cut[1]].error + most * (32 + cut[1] / 256) * ULP;
    return list[at].before - slack <= share * most &&
           list[at].before + list[at].weight + slack >= share * kept_mass(list, cut[0]);
}

kim_err reference_may_draw(const struct sampling_block *p, const float *logits, uint32_t vocab,
                           const int32_t *history, uint32_t n_history, uint32_t step,
                           const uint32_t ids[2], bool may[2])
{
    kim_err err = KIM_OK;
    ranked *list = rank_logits(logits, vocab, p, history, n_history);
    REQUIRE_MEMORY(list);
    for (int i = 0; i < 2; i++)
        may[i] = may_be_drawn(list, vocab, p, (double)p->draws[step % SAMPLE_DRAWS], ids[i]);
error:
    free(list);
    return err;
}
