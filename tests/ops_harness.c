// SPDX-License-Identifier: MIT
// The harness of the operation tests: tensors with guards, random numbers, comparison.
#include "ops_harness.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GUARD_BYTES 256
#define POISON 0xff

void must(kim_err err, const char *what)
{
    if (!err)
        return;
    fprintf(stderr, "%s: %s\n", what, kim_error_text());
    exit(1);
}

void case_begin(ops_case *c, ops_run *run, const char *fmt, ...)
{
    va_list args;
    memset(c, 0, sizeof *c);
    c->run = run;
    va_start(args, fmt);
    vsnprintf(c->name, sizeof c->name, fmt, args);
    va_end(args);
    pool_init(&c->tensors, "tensors", POOL_READBACK, run->gpu->block_limit);
    span guard;
    MUST(pool_place(&c->tensors, GUARD_BYTES, &guard));
}

span case_place(ops_case *c, uint64_t bytes)
{
    span guard;
    if (c->n_spans == CASE_TENSORS) {
        fprintf(stderr, "%s: too many tensors\n", c->name);
        exit(1);
    }
    span *s = &c->spans[c->n_spans++];
    MUST(pool_place(&c->tensors, bytes, s));
    MUST(pool_place(&c->tensors, GUARD_BYTES, &guard));
    return *s;
}

span case_place_floats(ops_case *c, uint64_t n)
{
    return case_place(c, n * sizeof(float));
}

void case_commit(ops_case *c)
{
    MUST(pool_commit(&c->tensors, c->run->gpu));
    for (uint32_t i = 0; i < c->tensors.n_blocks; i++)
        memset(c->tensors.blocks[i].mapped, POISON, c->tensors.blocks[i].bytes);
}

void *case_data(const span *s)
{
    return span_map(s);
}

static void fail(ops_case *c, const char *fmt, ...) KIM_PRINTF(2, 3);
static void fail(ops_case *c, const char *fmt, ...)
{
    if (!c->failed)
        c->run->failures++;
    c->failed = true;
    va_list args;
    va_start(args, fmt);
    printf("FAILED %s: ", c->name);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
}

static bool inside(const ops_case *c, uint32_t block, uint64_t at)
{
    for (uint32_t i = 0; i < c->n_spans; i++) {
        const span *s = &c->spans[i];
        if (s->block == block && at >= s->offset && at - s->offset < s->bytes)
            return true;
    }
    return false;
}

void case_run(ops_case *c)
{
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    MUST(stream_submit(c->run->st));
    MUST(stream_wait(c->run->st));
    clock_gettime(CLOCK_MONOTONIC, &end);
    c->seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    for (uint32_t i = 0; i < c->tensors.n_blocks; i++) {
        const uint8_t *bytes = c->tensors.blocks[i].mapped;
        for (uint64_t at = 0; at < c->tensors.blocks[i].bytes; at++)
            if (bytes[at] != POISON && !inside(c, i, at)) {
                fail(c, "byte %llu outside of all tensors was written", (unsigned long long)at);
                return;
            }
    }
}

void case_check(ops_case *c, const char *part, uint64_t at, double got, double want,
                double tolerance)
{
    const double error = fabs(got - want);
    if (error <= tolerance) {
        if (tolerance > 0)
            c->worst = fmax(c->worst, error / tolerance);
        return;
    }
    if (!c->failed)
        fail(c, "%s[%llu] is %.9g, expected %.9g within %.3g", part, (unsigned long long)at, got,
             want, tolerance);
}

void case_end(ops_case *c)
{
    c->run->cases++;
    MUST(stream_reset(c->run->st)); // its commands name memory that goes now
    pool_destroy(&c->tensors);
    if (getenv("KIM_TEST_VERBOSE"))
        printf("%s %s: %.2f of the tolerance, %.3f s\n", c->failed ? "failed" : "ok", c->name,
               c->worst, c->seconds);
}
