// SPDX-License-Identifier: MIT
// Kernels of an encoder of pictures: layer_norm, average_pool, attention_full.
#include "kernel_parts.h"

#include "reference_ops.h"

#include <math.h>
#include <stdlib.h>

#define MOST_PRODUCTS (8u << 20) // of a query and a key, that a check makes
#define MOST_ROWS 64             // of a norm or pool, that it looks at
#define EPS 1e-6

// ---------------------------------------------------------------------------------- layer_norm

enum { X, Y, W, B };

static kim_err place_layer_norm(kernel *k)
{
    kim_err err = KIM_OK;
    const uint64_t n = (uint64_t)k->p.columns * k->p.width;
    TRY(kernel_place_floats(k, n));
    TRY(kernel_place_floats(k, n));
    TRY(kernel_place_floats(k, k->p.width));
    TRY(kernel_place_floats(k, k->p.width));
    k->flop = 8.0 * (double)n;
    k->bytes = 8.0 * (double)n;
error:
    return err;
}

// The last of several rows is all the same.
static kim_err fill_layer_norm(kernel *k)
{
    const uint32_t width = k->p.width, last = k->p.columns - 1;
    float *x = kernel_data(k, X);
    ops_fill_normal(x, (uint64_t)k->p.columns * width, 1);
    for (uint64_t i = 0; i < (uint64_t)k->p.columns * width; i++)
        x[i] += (float)k->p.mean;
    for (uint32_t i = 0; i < width && last; i++)
        x[(uint64_t)last * width + i] = (float)k->p.mean;
    ops_fill_normal(kernel_data(k, W), width, 2);
    ops_fill_normal(kernel_data(k, B), width, 3);
    return KIM_OK;
}

static kim_err record_layer_norm(kernel *k, uint32_t copy)
{
    (void)copy;
    return op_layer_norm(k->st, &(layer_norm_params){
                                    .x = &k->spans[X],
                                    .w = &k->spans[W],
                                    .b = &k->spans[B],
                                    .y = &k->spans[Y],
                                    .rows = k->p.columns,
                                    .width = k->p.width,
                                    .eps = (float)EPS,
                                });
}

// What the mean and the variance are off by is relative to the size of x, that is to its mean where
// that is large: 16 * 2^-24 of it, in units of the deviation.
static kim_err check_layer_norm(kernel *k)
{
    kim_err err = KIM_OK;
    const uint32_t width = k->p.width, rows = k->p.columns;
    const float *x = kernel_data(k, X), *y = kernel_data(k, Y);
    const float *w = kernel_data(k, W), *b = kernel_data(k, B);
    double *want = malloc(width * sizeof *want);
    REQUIRE_MEMORY(want);
    for (uint32_t r = 0; r < rows; r = kernel_next(r, rows, MOST_ROWS)) {
        const double deviation = r + 1 < rows || rows == 1 ? 1 : sqrt(EPS);
        reference_layer_norm(want, x + (uint64_t)r * width, w, b, width, EPS);
        for (uint32_t i = 0; i < width; i++) {
            const double w_size = fabs((double)w[i]), b_size = fabs((double)b[i]);
            const uint64_t at = (uint64_t)r * width + i;
            kernel_compare(k, "y", at, y[at], want[i],
                           ldexp(16, -24) * (w_size * (fabs(k->p.mean) / deviation + 4) + b_size));
        }
    }
error:
    free(want);
    return err;
}

static pipeline_key pipeline_of_layer_norm(const kernel *k)
{
    return layer_norm_pipeline(k->gpu);
}

const kernel_class kernel_layer_norm = {
    .name = "layer_norm",
    .place = place_layer_norm,
    .fill = fill_layer_norm,
    .record = record_layer_norm,
    .check = check_layer_norm,
    .pipeline = pipeline_of_layer_norm,
};

// -------------------------------------------------------------------------------- average_pool

static uint32_t across(const kernel *k)
{
    return k->p.side / k->p.pool;
}

static kim_err place_average_pool(kernel *k)
{
    kim_err err = KIM_OK;
    const uint64_t image = (uint64_t)k->p.images * k->p.width;
    const uint64_t in = image * k->p.side * k->p.side, out = image * across(k) * across(k);
    TRY(kernel_place_floats(k, in));
    TRY(kernel_place_floats(k, out));
    k->flop = (double)in;
    k->bytes = 4.0 * (double)(in + out);
error:
    return err;
}

static kim_err fill_average_pool(kernel *k)
{
    ops_fill_normal(kernel_data(k, X), k->spans[X].bytes / 4, 100);
    return KIM_OK;
}

static kim_err record_average_pool(kernel *k, uint32_t copy)
{
    (void)copy;
    return op_average_pool(k->st, &(average_pool_params){
                                      .x = &k->spans[X],
                                      .y = &k->spans[Y],
                                      .images = k->p.images,
                                      .side = k->p.side,
                                      .pool = k->p.pool,
                                      .width = k->p.width,
                                  });
}

static kim_err check_average_pool(kernel *k)
{
    const kernel_params *p = &k->p;
    const float *x = kernel_data(k, X), *y = kernel_data(k, Y);
    const uint32_t n = across(k), rows = p->images * n * n;
    for (uint32_t r = 0; r < rows; r = kernel_next(r, rows, MOST_ROWS)) {
        const uint32_t image = r / (n * n), top = r / n % n * p->pool, left = r % n * p->pool;
        for (uint32_t i = 0; i < p->width; i++) {
            double sum = 0, size = 0;
            for (uint32_t j = 0; j < p->pool * p->pool; j++) {
                const uint64_t from =
                    ((uint64_t)image * p->side + top + j / p->pool) * p->side + left + j % p->pool;
                sum += (double)x[from * p->width + i];
                size += fabs((double)x[from * p->width + i]);
            }
            const double of = (double)p->pool * p->pool;
            kernel_compare(k, "y", (uint64_t)r * p->width + i, y[(uint64_t)r * p->width + i],
                           sum / of, ldexp(p->pool + 2, -24) * size / of);
        }
    }
    return KIM_OK;
}

static pipeline_key pipeline_of_average_pool(const kernel *k)
{
    return average_pool_pipeline(k->gpu);
}

const kernel_class kernel_average_pool = {
    .name = "average_pool",
    .place = place_average_pool,
    .fill = fill_average_pool,
    .record = record_average_pool,
    .check = check_average_pool,
    .pipeline = pipeline_of_average_pool,
};

// ------------------------------------------------------------------------------ attention_full

static uint32_t full_width(const kernel *k)
{
    return k->p.heads.heads * k->p.heads.head;
}

static kim_err place_full(kernel *k)
{
    kim_err err = KIM_OK;
    const uint64_t n = (uint64_t)k->p.images * k->p.columns * full_width(k);
    TRY(kernel_place_floats(k, 3 * n));
    TRY(kernel_place_floats(k, n));
    k->flop = 4.0 * (double)n * k->p.columns;
    k->bytes = 16.0 * (double)n;
error:
    return err;
}

static kim_err fill_full(kernel *k)
{
    const uint32_t width = full_width(k);
    float *x = kernel_data(k, X);
    ops_fill_normal(x, k->spans[X].bytes / 4, 1);
    for (uint64_t r = 0; r < (uint64_t)k->p.images * k->p.columns; r++)
        for (uint32_t i = 0; i < width; i++)
            x[r * 3 * width + i] *= (float)kernel_spread(k);
    return KIM_OK;
}

static kim_err record_full(kernel *k, uint32_t copy)
{
    (void)copy;
    return op_attention_full(k->st, &(attention_full_params){
                                        .qkv = &k->spans[X],
                                        .y = &k->spans[Y],
                                        .heads = k->p.heads.heads,
                                        .head = k->p.heads.head,
                                        .images = k->p.images,
                                        .rows = k->p.columns,
                                        .scale = (float)(1 / sqrt(k->p.heads.head)),
                                    });
}

static kim_err check_full(kernel *k)
{
    kim_err err = KIM_OK;
    const uint32_t width = full_width(k), rows = k->p.columns, head = k->p.heads.head;
    const uint32_t all = k->p.images * rows * k->p.heads.heads;
    const uint32_t most = MOST_PRODUCTS / (rows * head) + 8;
    const reference_full shape = { 3 * width, rows, head, 1 / sqrt(head) };
    const float *x = kernel_data(k, X), *y = kernel_data(k, Y);
    for (uint64_t i = 0; i < k->spans[Y].bytes / 4; i++)
        if (!(fabsf(y[i]) <= 6)) // as all values are
            kernel_compare(k, "y", i, y[i], 0, 6);
    for (uint32_t i = 0; i < all; i = kernel_next(i, all, most)) {
        const uint32_t row = i / k->p.heads.heads, at = i % k->p.heads.heads * head;
        const float *first = x + (uint64_t)(row - row % rows) * 3 * width + at; // of its image
        double want[256], spread;
        TRY(reference_attention_full(&shape, x + (uint64_t)row * 3 * width + at, first + width,
                                     first + 2ull * width, want, &spread));
        for (uint32_t d = 0; d < head; d++)
            kernel_compare(k, "y", (uint64_t)row * width + at + d,
                           y[(uint64_t)row * width + at + d], want[d],
                           reference_full_tolerance(spread));
    }
error:
    return err;
}

static pipeline_key pipeline_of_full(const kernel *k)
{
    return attention_full_pipeline(k->gpu, k->p.heads.head);
}

const kernel_class kernel_attention_full = {
    .name = "attention_full",
    .place = place_full,
    .fill = fill_full,
    .record = record_full,
    .check = check_full,
    .pipeline = pipeline_of_full,
};
