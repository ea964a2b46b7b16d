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

// ------------------------------------------------------------------------------------- random

uint32_t ops_random(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u; // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du) >> 32);
}

double ops_uniform(double low, double high)
{
    return low + (high - low) * ops_random() / 4294967296.0;
}

double ops_normal(void)
{
    double sum = -6; // of twelve uniform ones: variance 1
    for (int i = 0; i < 12; i++)
        sum += ops_uniform(0, 1);
    return sum;
}

void ops_fill_normal(float *out, uint64_t n, double scale)
{
    for (uint64_t i = 0; i < n; i++)
        out[i] = (float)(scale * ops_normal());
}

uint16_t ops_half(double x)
{
    const uint16_t sign = x < 0 ? 0x8000 : 0;
    int exponent;
    x = fabs(x);
    if (x == 0)
        return sign;
    (void)frexp(x, &exponent); // x in [2^(exponent - 1), 2^exponent)
    if (exponent - 1 < -14)
        return sign | (uint16_t)nearbyint(ldexp(x, 24));
    const double mantissa = nearbyint(ldexp(x, 11 - exponent)); // 1024 .. 2048
    const uint32_t bits = (uint32_t)((exponent + 13) << 10) + (uint32_t)mantissa;
    return sign | (uint16_t)(bits > 0x7c00 ? 0x7c00 : bits);
}

// ------------------------------------------------------------------------------------ weights

// Byte offsets of the halves in a block that scale it.
static uint32_t scale_offsets(const weight_type *type, uint32_t offsets[2])
{
    const bool two = !strcmp(type->name, "Q4_1") || !strcmp(type->name, "Q5_1") ||
                     !strcmp(type->name, "Q4_K") || !strcmp(type->name, "Q5_K");
    offsets[0] = type->half_offset > 0 ? (uint32_t)type->half_offset : 0;
    offsets[1] = 2;
    if (!strcmp(type->name, "Q2_K")) {
        offsets[0] = 80;
        offsets[1] = 82;
        return 2;
    }
    return two ? 2 : 1;
}

static void put_half(uint8_t *at, double x)
{
    const uint16_t bits = ops_half(x);
    memcpy(at, &bits, 2);
}

static void fill_plain(const weight_type *type, uint8_t *at, weight_kind kind)
{
    const double x = kind == WEIGHTS_TINY ? ldexp(ops_normal(), -20) : ops_normal() * 0.05;
    const float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (type->ggml == 0) {
        memcpy(at, &bits, 4);
    } else if (type->ggml == 1) {
        put_half(at, x);
    } else {
        const uint16_t top = (uint16_t)(bits >> 16);
        memcpy(at, &top, 2);
    }
}

void ops_fill_weights(const weight_type *type, uint8_t *rows, uint64_t n_rows, uint32_t width,
                      weight_kind kind)
{
    const uint64_t bytes = n_rows * weight_row_bytes(type, width);
    const uint32_t element = type->block_bytes / type->block;
    if (type->block_bytes % type->block == 0) {
        for (uint64_t at = 0; at < bytes; at += element)
            fill_plain(type, rows + at, kind);
        return;
    }
    uint32_t offsets[2];
    const uint32_t n = scale_offsets(type, offsets);
    for (uint64_t at = 0; at < bytes; at++)
        rows[at] = (uint8_t)(ops_random() >> 24);
    for (uint64_t at = 0; at < bytes; at += type->block_bytes)
        for (uint32_t i = 0; i < n; i++) {
            double scale = ldexp(ops_uniform(-1, 1), -(int)(ops_random() % 8) - 4);
            if (kind == WEIGHTS_TINY)
                scale = ops_random() % 3 ? ldexp(ops_uniform(-1, 1), -18) : 0;
            put_half(rows + at + offsets[i], scale);
        }
}
