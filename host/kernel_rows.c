// SPDX-License-Identifier: MIT
// Kernels of single rows: norm, geglu, score; and the copy of memory.
#include "kernel_parts.h"

#include "reference_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ROWS 64 // that a check looks at
#define MOST_SCORED 4
#define EPS 1e-6

// ---------------------------------------------------------------------------------------- norm

enum { X, W, H, O, W_POST };

static kim_err place_norm(kernel *k)
{
    kim_err err = KIM_OK;
    const uint64_t n = (uint64_t)k->p.columns * k->p.width;
    TRY(kernel_place_floats(k, n));
    TRY(kernel_place_floats(k, k->p.width));
    TRY(kernel_place_floats(k, n));
    if (k->p.add_norm) {
        TRY(kernel_place_floats(k, n));
        TRY(kernel_place_floats(k, k->p.width));
    }
    k->flop = (k->p.add_norm ? 8.0 : 4.0) * (double)n;
    k->bytes = (k->p.add_norm ? 16.0 : 8.0) * (double)n;
error:
    return err;
}

static kim_err fill_norm(kernel *k)
{
    const uint32_t width = k->p.width, last = k->p.columns - 1;
    const uint64_t n = (uint64_t)k->p.columns * width;
    float *x = kernel_data(k, X);
    ops_fill_normal(x, n, kernel_spread(k));
    if (last)
        memset(x + (uint64_t)last * width, 0, width * sizeof *x);
    ops_fill_normal(kernel_data(k, W), width, 2);
    if (k->p.add_norm) {
        ops_fill_normal(kernel_data(k, O), n, 30);
        ops_fill_normal(kernel_data(k, W_POST), width, 5);
    }
    return KIM_OK;
}

static kim_err record_norm(kernel *k, uint32_t copy)
{
    (void)copy;
    return op_norm(k->st, &(norm_params){
                              .o = k->p.add_norm ? &k->spans[O] : NULL,
                              .w_post = k->p.add_norm ? &k->spans[W_POST] : NULL,
                              .x = &k->spans[X],
                              .w = &k->spans[W],
                              .h = &k->spans[H],
                              .rows = k->p.columns,
                              .width = k->p.width,
                              .eps = (float)EPS,
                          });
}

// One row. The sum of squares and inversesqrt are within 32 * 2^-24. h is that of x as the device
// has it.
static void check_norm_row(kernel *k, uint32_t row, double *want)
{
    const uint32_t width = k->p.width;
    const uint64_t at = (uint64_t)row * width;
    const float *x = (const float *)kernel_data(k, X) + at,
                *h = (const float *)kernel_data(k, H) + at;
    const float *before = (const float *)kernel_before(k, X) + at;
    for (uint32_t i = 0; i < width; i++)
        want[i] = k->p.add_norm ? (double)((const float *)kernel_data(k, O))[at + i] : 0;
    if (k->p.add_norm)
        reference_norm(want, want, kernel_data(k, W_POST), width, EPS);
    for (uint32_t i = 0; i < width; i++) {
        const double sum = before[i] + want[i];
        kernel_compare(k, "x", at + i, x[i], sum,
                       ldexp(32, -24) * fabs(want[i]) +
                           (k->p.add_norm ? ldexp(1, -24) * fabs(sum) : 0));
        want[i] = x[i];
    }
    reference_norm(want, want, kernel_data(k, W), width, EPS);
    for (uint32_t i = 0; i < width; i++)
        kernel_compare(k, "h", at + i, h[i], want[i], ldexp(32, -24) * fabs(want[i]));
}

static kim_err check_norm(kernel *k)
{
    kim_err err = KIM_OK;
    const uint32_t rows = k->p.columns;
    double *want = malloc(k->p.width * sizeof *want);
    REQUIRE_MEMORY(want);
    for (uint32_t r = 0; r < rows; r = kernel_next(r, rows, MOST_ROWS))
        check_norm_row(k, r, want);
error:
    free(want);
    return err;
}

static pipeline_key pipeline_of_norm(const kernel *k)
{
    return norm_pipeline(k->gpu, k->p.add_norm);
}

const kernel_class kernel_norm = {
    .name = "norm",
    .place = place_norm,
    .fill = fill_norm,
    .record = record_norm,
    .check = check_norm,
    .pipeline = pipeline_of_norm,
};

// --------------------------------------------------------------------------------------- geglu

enum { GATED, Y };

static kim_err place_geglu(kernel *k)
{
    kim_err err = KIM_OK;
    const uint64_t n = (uint64_t)k->p.columns * k->p.width;
    TRY(kernel_place_floats(k, 2 * n));
    TRY(kernel_place_floats(k, n));
    k->flop = 12.0 * (double)n;
    k->bytes = 12.0 * (double)n;
error:
    return err;
}

static kim_err fill_geglu(kernel *k)
{
    ops_fill_normal(kernel_data(k, GATED), 2ull * k->p.columns * k->p.width, kernel_spread(k));
    return KIM_OK;
}

static kim_err record_geglu(kernel *k, uint32_t copy)
{
    (void)copy;
    return op_geglu(k->st, &k->spans[GATED], &k->spans[Y], k->p.columns, k->p.width);
}

// Far below zero 1 - 1 / (exp(2u) + 1) has an absolute error of one rounding; a denormal result may
// be zero.
static kim_err check_geglu(kernel *k)
{
    const uint32_t width = k->p.width, rows = k->p.columns;
    const float *x = kernel_data(k, GATED), *y = kernel_data(k, Y);
    for (uint32_t r = 0; r < rows; r = kernel_next(r, rows, MOST_ROWS))
        for (uint32_t i = 0; i < width; i++) {
            const double gate = x[2ull * r * width + i], up = x[(2ull * r + 1) * width + i];
            const uint64_t at = (uint64_t)r * width + i;
            kernel_compare(k, "y", at, y[at], reference_gelu(gate) * up,
                           ldexp(8, -24) * fabs(gate * up) + ldexp(1, -126));
        }
    return KIM_OK;
}

static pipeline_key pipeline_of_geglu(const kernel *k)
{
    return geglu_pipeline(k->gpu);
}

const kernel_class kernel_geglu = {
    .name = "geglu",
    .place = place_geglu,
    .fill = fill_geglu,
    .record = record_geglu,
    .check = check_geglu,
    .pipeline = pipeline_of_geglu,
};

// --------------------------------------------------------------------------------------- score

enum { LOGITS, CONTROL, SCORES };

static kim_err place_score(kernel *k)
{
    kim_err err = KIM_OK;
    const uint64_t n = (uint64_t)k->p.columns * k->p.width;
    TRY(kernel_place_floats(k, n));
    TRY(kernel_place_floats(k, CONTROL_ROW(k->p.columns + 1, 0)));
    TRY(kernel_place_floats(k, 4ull * k->p.columns));
    k->flop = 4.0 * (double)n;
    k->bytes = 4.0 * (double)n;
error:
    return err;
}

// Two logits of each row are the highest: the lower id counts.
static kim_err fill_score(kernel *k)
{
    const uint32_t rows = k->p.columns, vocab = k->p.width;
    uint32_t *control = kernel_data(k, CONTROL);
    float *x = kernel_data(k, LOGITS);
    ops_fill_normal(x, (uint64_t)rows * vocab, 5 * kernel_spread(k));
    for (uint32_t r = 0; r < rows; r++, x += vocab)
        x[vocab / 3] = x[vocab / 2] = (float)(40 * kernel_spread(k));
    for (uint32_t r = 0; r <= rows; r++)
        control[CONTROL_ROW(r, CONTROL_ROW_TOKEN)] = ops_random() % vocab;
    return KIM_OK;
}

static kim_err record_score(kernel *k, uint32_t copy)
{
    (void)copy;
    const uint32_t rows = k->p.columns;
    return op_score(k->st, &k->spans[LOGITS], &k->spans[CONTROL], &k->spans[SCORES], k->p.width,
                    (uint32_t[3]){ rows, 0, rows + 1 });
}

static kim_err check_score(kernel *k)
{
    const uint32_t rows = k->p.columns, vocab = k->p.width;
    const uint32_t *control = kernel_data(k, CONTROL);
    for (uint32_t r = 0; r < rows; r = kernel_next(r, rows, MOST_SCORED)) {
        const float *x = (const float *)kernel_data(k, LOGITS) + (uint64_t)r * vocab;
        const float *got = (const float *)kernel_data(k, SCORES) + 4ull * r;
        const double log_sum = reference_log_sum(x, vocab);
        uint32_t best = 0, id;
        for (uint32_t i = 1; i < vocab; i++)
            best = x[i] > x[best] ? i : best;
        memcpy(&id, &got[0], sizeof id);
        kernel_compare(k, "best id", r, id, best, 0);
        kernel_compare(k, "best", r, got[1], x[best], 0);
        // a sum of `vocab` numbers, of which a lane adds up to vocab / 8 one after the other
        kernel_compare(k, "log sum", r, got[2], log_sum, 1e-4 + ldexp(2, -24) * fabs(log_sum));
        kernel_compare(k, "next", r, got[3], x[control[CONTROL_ROW(r + 1, CONTROL_ROW_TOKEN)]], 0);
    }
    return KIM_OK;
}

static pipeline_key pipeline_of_score(const kernel *k)
{
    (void)k;
    return score_pipeline();
}

const kernel_class kernel_score = {
    .name = "score",
    .place = place_score,
    .fill = fill_score,
    .record = record_score,
    .check = check_score,
    .pipeline = pipeline_of_score,
};

// ---------------------------------------------------------------------------------------- copy

enum { FROM, TO };

static kim_err place_copy(kernel *k)
{
    kim_err err = KIM_OK;
    const uint64_t n = (uint64_t)k->p.columns * k->p.width;
    TRY(kernel_place_floats(k, n));
    TRY(kernel_place_floats(k, n));
    k->bytes = 8.0 * (double)n;
error:
    return err;
}

static kim_err fill_copy(kernel *k)
{
    uint32_t *words = kernel_data(k, FROM);
    for (uint64_t i = 0; i < k->spans[FROM].bytes / 4; i++)
        words[i] = (uint32_t)i * 2654435761u; // all different
    return KIM_OK;
}

static kim_err record_copy(kernel *k, uint32_t copy)
{
    (void)copy;
    return stream_copy(k->st, &k->spans[TO], &k->spans[FROM]);
}

static kim_err check_copy(kernel *k)
{
    const uint32_t *from = kernel_data(k, FROM), *to = kernel_data(k, TO);
    uint64_t i = 0;
    const uint64_t n = k->spans[TO].bytes / 4;
    while (i + 1 < n && to[i] == from[i])
        i++;
    kernel_compare(k, "word", i, to[i], from[i], 0);
    return KIM_OK;
}

const kernel_class kernel_copy = {
    .name = "copy",
    .place = place_copy,
    .fill = fill_copy,
    .record = record_copy,
    .check = check_copy,
};
