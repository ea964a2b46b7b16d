// SPDX-License-Identifier: MIT
// How long commands take on a device, and how much of them goes into one submit.
#include "pacing.h"

#include "error.h"

#include <math.h>
#include <stdlib.h>

#define FIRST_NS_PER_WORK 0.1    // before anything is measured: 10 GFLOP/s
#define FIRST_NS (SUBMIT_NS / 8) // expected by that, of a kind in a submit
#define GROWTH 8        // times what was seen of a kind at once goes into the next submit, at most
#define SHORTEST_NS 1e3 // time stamps may be coarse

typedef struct pace {
    uint64_t key;
    double ns_per_work;
    double seen_ns;   // the most that it took in one submit, when last learnt; 0: not measured
    double in_submit; // expected of what is in the submit at hand
    double expected, measured, most_ns; // of submits since the last pacing_learn
} pace;

struct pacing {
    pace *kinds;
    uint32_t count, room;
    double ns; // expected of the submit at hand
};

kim_err pacing_create(pacing **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? KIM_OK : kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
}

void pacing_destroy(pacing **p)
{
    if (*p)
        free((*p)->kinds);
    free(*p);
    *p = NULL;
}

kim_err pacing_kind(pacing *p, uint64_t key, uint32_t *kind)
{
    kim_err err = KIM_OK;
    for (*kind = 0; *kind < p->count; ++*kind)
        if (p->kinds[*kind].key == key)
            return KIM_OK;
    if (p->count == p->room) {
        const uint32_t room = 2 * p->room + 32;
        pace *kinds = realloc(p->kinds, room * sizeof *kinds);
        REQUIRE_MEMORY(kinds);
        p->kinds = kinds;
        p->room = room;
    }
    p->kinds[p->count++] = (pace){ .key = key, .ns_per_work = FIRST_NS_PER_WORK };
error:
    return err;
}

bool pacing_knows(const pacing *p, uint32_t kind)
{
    return p->kinds[kind].seen_ns > 0;
}

double pacing_expected(const pacing *p, const paced_command *c)
{
    return c->work * p->kinds[c->kind].ns_per_work;
}

void pacing_begin(pacing *p)
{
    p->ns = 0;
    for (uint32_t i = 0; i < p->count; i++)
        p->kinds[i].in_submit = 0;
}

void pacing_add(pacing *p, const paced_command *c, uint64_t units)
{
    pace *k = &p->kinds[c->kind];
    const double ns = c->work * k->ns_per_work * (double)units / (double)c->units;
    k->in_submit += ns;
    p->ns += ns;
}

uint64_t pacing_fit(pacing *p, const paced_command *c, uint64_t left)
{
    const pace *k = &p->kinds[c->kind];
    const double most = (k->seen_ns > 0 ? GROWTH * k->seen_ns : FIRST_NS) - k->in_submit;
    const double room = fmin(SUBMIT_NS - p->ns, most);
    const double unit = c->work * k->ns_per_work / (double)c->units;
    uint64_t n = left;
    if (unit * (double)left > room) {
        if (p->ns > 0)
            return 0;
        n = room > unit ? (uint64_t)(room / unit) : 1;
        if (n > c->row)
            n -= n % c->row;
    }
    pacing_add(p, c, n);
    return n;
}

void pacing_took(pacing *p, double ns)
{
    const double ratio = fmax(ns, SHORTEST_NS) / p->ns;
    for (uint32_t i = 0; i < p->count && p->ns > 0; i++) {
        pace *k = &p->kinds[i];
        k->expected += k->in_submit;
        k->measured += k->in_submit * ratio;
        k->most_ns = fmax(k->most_ns, k->in_submit * ratio);
    }
}

void pacing_learn(pacing *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        pace *k = &p->kinds[i];
        if (k->expected > 0) {
            k->ns_per_work *= k->measured / k->expected;
            k->seen_ns = k->most_ns;
        }
        k->expected = k->measured = k->most_ns = 0;
    }
}
