// SPDX-License-Identifier: MIT
// Kernels with weights: products, products with the norms after them, embeddings.
#include "kernel_parts.h"

#include "reference_dequant.h"
#include "reference_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DISTINCT_ROWS 4093       // a prime: rows of one tile are all different
#define WHOLE_BYTES (4u << 20)   // weights up to this are all random
#define SECOND_BLOCK 17          // where the second matrix of a pair begins in the run
#define MOST_PRODUCTS (8u << 20) // multiplications that a check makes
#define MOST_COLUMNS 24          // of many, that a check looks at
#define EPS 1e-6                 // of norms
#define EMBED_SCALE 25.298221588134766

enum { X, Y, BIAS, PACKED };
enum { RESIDUAL = 2, W_POST, W_NORM, H, COUNTER };
enum { CONTROL, SOFT, EMBEDDED };

// ------------------------------------------------------------------------------------- weights

static uint32_t source_rows(const kernel *k)
{
    return k->p.paired ? k->p.rows / 2 : k->p.rows;
}

static const uint8_t *source_data(const kernel *k, uint32_t source)
{
    const kernel_params *p = &k->p;
    if (k->distinct)
        return k->weights + (uint64_t)source * SECOND_BLOCK * p->type->block_bytes;
    return k->weights + source * source_rows(k) * weight_row_bytes(p->type, p->width);
}

static kim_err make_weights(kernel *k)
{
    kim_err err = KIM_OK;
    const kernel_params *p = &k->p;
    const uint64_t bytes = p->rows * weight_row_bytes(p->type, p->width);
    const uint64_t blocks = weight_row_blocks(p->type, p->width) + DISTINCT_ROWS + SECOND_BLOCK;
    k->distinct = bytes > WHOLE_BYTES ? DISTINCT_ROWS : 0;
    k->weights = malloc(k->distinct ? blocks * p->type->block_bytes : bytes);
    REQUIRE_MEMORY(k->weights);
    if (k->distinct)
        ops_fill_weights(p->type, k->weights, 1, (uint32_t)blocks * p->type->block, p->weights);
    else
        ops_fill_weights(p->type, k->weights, p->rows, p->width, p->weights);
error:
    return err;
}

kim_err kernel_place_matrix(const kernel *k, linear *l, pool *p)
{
    matrix_source sources[2];
    const uint32_t n = k->p.paired ? 2 : 1;
    for (uint32_t i = 0; i < n; i++)
        sources[i] = (matrix_source){
            .name = k->class->name,
            .type = k->p.type,
            .data = source_data(k, i),
            .distinct = k->distinct,
            .rows = source_rows(k),
        };
    return linear_place(l, p, sources, n, k->p.width, k->p.paired);
}

static kim_err upload_matrix(kernel *k)
{
    kim_err err = KIM_OK;
    uploader *u = NULL;
    TRY(make_weights(k));
    TRY(kernel_place_matrix(k, k->matrices, &k->first));
    TRY(pool_commit(&k->first, k->gpu));
    TRY(uploader_create(&u, k->gpu, NULL, NULL, pool_bytes(&k->first)));
    TRY(upload_linear(u, k->matrices));
    TRY(uploader_finish(u));
error:
    uploader_destroy(&u);
    return err;
}

// A row as the device multiplies with it; to: [width]
static void dequant_row(const kernel *k, uint32_t row, float *to)
{
    const kernel_params *p = &k->p;
    const uint32_t source = p->paired ? row & 1 : 0, at = p->paired ? row / 2 : row;
    reference_dequant(p->type->ggml,
                      weight_row_at(p->type, source_data(k, source), k->distinct, p->width, at), to,
                      p->width);
}

// Columns of normal numbers, every eighth of zeros; of extreme ones some are denormals, some beyond
// what fp16 holds, some have one element a billion times the others.
static void fill_columns(kernel *k)
{
    const kernel_params *p = &k->p;
    for (uint32_t c = 0; c < p->columns; c++) {
        float *x = (float *)kernel_data(k, X) + (uint64_t)c * p->width;
        const double spread = !p->extreme  ? kernel_spread(k)
                              : c % 8 == 1 ? 1e6
                              : c % 8 == 3 ? 1e-40
                              : c % 8 == 6 ? 1e25
                                           : 1e-3;
        if (c % 8 == 5)
            memset(x, 0, p->width * sizeof *x);
        else
            ops_fill_normal(x, p->width, spread);
        if (p->extreme && c % 8 == 2)
            x[ops_random() % p->width] = 1e6f;
    }
}

// ------------------------------------------------------------------------------------- products

static uint32_t outputs(const kernel *k)
{
    return source_rows(k);
}

static kim_err place_product(kernel *k)
{
    kim_err err = KIM_OK;
    const kernel_params *p = &k->p;
    const uint64_t n = (uint64_t)outputs(k) * p->columns;
    TRY(upload_matrix(k));
    TRY(kernel_place_floats(k, (uint64_t)p->width * p->columns));
    TRY(kernel_place_floats(k, n));
    k->flop = 2.0 * p->rows * p->width * p->columns;
    k->cold_bytes = weight_packed_bytes(p->type, p->rows, p->width);
    k->bytes = (double)k->cold_bytes + 4.0 * p->width * p->columns + 4.0 * (double)n;
error:
    return err;
}

static kim_err place_matmul(kernel *k)
{
    kim_err err = KIM_OK;
    const kernel_params *p = &k->p;
    const uint64_t packed = matmul_packed_bytes(k->gpu, p->width, p->columns);
    k->way = matmul_way_of(k->gpu, p->type, p->columns, packed > 0);
    TRY(place_product(k));
    TRY(kernel_place_floats(k, p->rows));
    if (packed)
        TRY(kernel_place(k, packed));
error:
    return err;
}

static void fill_matmul(kernel *k)
{
    fill_columns(k);
    ops_fill_normal(kernel_data(k, BIAS), k->p.rows, 2);
    if (k->p.add)
        ops_fill_normal(kernel_data(k, Y), (uint64_t)outputs(k) * k->p.columns, 10);
}

static matmul_params matmul_params_of(const kernel *k, uint32_t copy)
{
    const kernel_params *p = &k->p;
    return (matmul_params){
        .w = &k->matrices[copy],
        .x = &k->spans[X],
        .x_width = p->width,
        .y = &k->spans[Y],
        .columns = p->columns,
        .packed = p->op == KERNEL_MATMUL && k->n_spans > PACKED ? &k->spans[PACKED] : NULL,
        .bias = p->bias ? &k->spans[BIAS] : NULL,
        .gelu = p->gelu,
        .add = p->add,
    };
}

static kim_err record_matmul(kernel *k, uint32_t copy)
{
    const matmul_params params = matmul_params_of(k, copy);
    return op_matmul(k->st, &params);
}

static pipeline_key pipeline_of_matmul(const kernel *k)
{
    const matmul_params params = matmul_params_of(k, 0);
    const kernel_params *p = &k->p;
    const uint32_t flags = matmul_flags(&params, k->matrices->parts);
    if (k->way == MATMUL_FEW)
        return matmul_pipeline(k->gpu, k->matrices->parts, p->paired, p->columns, flags);
    return matmul_tile_pipeline(k->gpu, k->way, p->type, flags | (p->paired ? MATMUL_GLU : 0));
}

// A product in double precision, and what the device's may be off by.
typedef struct product {
    double value, bound;
} product;

static product make_product(const kernel *k, const float *w, uint32_t column)
{
    const uint32_t width = k->p.width;
    const float *x = (const float *)kernel_data(k, X) + (uint64_t)column * width;
    product out = { .bound = reference_product_tolerance(k->way, x, w, width) };
    reference_matmul(&out.value, x, width, w, 1, width, 1);
    return out;
}

// One output, of a row of weights or a pair of them.
static void check_product(kernel *k, const float *w, uint32_t row, uint32_t column)
{
    const kernel_params *p = &k->p;
    const uint64_t at = (uint64_t)column * outputs(k) + row;
    const float got = ((const float *)kernel_data(k, Y))[at];
    product y = make_product(k, w, column);
    if (p->paired) {
        const product up = make_product(k, w + p->width, column);
        kernel_compare(k, "y", at, got, reference_gelu(y.value) * up.value,
                       reference_glu_tolerance(y.value, up.value, y.bound, up.bound));
        return;
    }
    if (p->bias)
        y.value += ((const float *)kernel_data(k, BIAS))[row];
    y.bound += ldexp(2, -24) * fabs(y.value);
    if (p->gelu) { // |gelu'| < 1.13
        y.bound = 1.13 * y.bound + ldexp(8, -24) * fabs(y.value);
        y.value = reference_gelu(y.value);
    }
    if (p->add) {
        y.value += ((const float *)kernel_before(k, Y))[at];
        y.bound += ldexp(2, -24) * fabs(y.value);
    }
    kernel_compare(k, "y", at, got, y.value, y.bound);
}

static kim_err check_products(kernel *k)
{
    kim_err err = KIM_OK;
    const kernel_params *p = &k->p;
    const uint64_t all = (uint64_t)p->rows * p->columns * p->width;
    const uint32_t columns =
        all <= MOST_PRODUCTS || p->columns < MOST_COLUMNS ? p->columns : MOST_COLUMNS;
    const uint32_t rows = MOST_PRODUCTS / (columns * p->width) + 16;
    float *w = malloc(2ull * p->width * sizeof *w);
    REQUIRE_MEMORY(w);
    for (uint32_t r = 0; r < outputs(k); r = kernel_next(r, outputs(k), rows)) {
        for (uint32_t i = 0; i <= p->paired; i++)
            dequant_row(k, p->paired ? 2 * r + i : r, w + (uint64_t)i * p->width);
        for (uint32_t c = 0; c < p->columns; c = kernel_next(c, p->columns, columns))
            check_product(k, w, r, c);
    }
error:
    free(w);
    return err;
}

const kernel_class kernel_matmul = {
    .name = "matmul",
    .place = place_matmul,
    .fill = fill_matmul,
    .record = record_matmul,
    .check = check_products,
    .pipeline = pipeline_of_matmul,
};

// ----------------------------------------------------------------------------- and norms after

static kim_err place_matmul_norm(kernel *k)
{
    kim_err err = KIM_OK;
    k->way = MATMUL_FEW;
    TRY(place_product(k));
    for (uint32_t i = RESIDUAL; i <= H; i++)
        TRY(kernel_place_floats(k, k->p.rows));
    TRY(kernel_place_floats(k, 1));
    k->bytes += 5 * 4.0 * k->p.rows;
error:
    return err;
}

static void fill_matmul_norm(kernel *k)
{
    fill_columns(k);
    ops_fill_normal(kernel_data(k, RESIDUAL), k->p.rows, 3e5);
    ops_fill_normal(kernel_data(k, W_POST), k->p.rows, 5);
    ops_fill_normal(kernel_data(k, W_NORM), k->p.rows, 2);
    memset(kernel_data(k, COUNTER), 0, 4);
}

static kim_err record_matmul_norm(kernel *k, uint32_t copy)
{
    const matmul_params params = matmul_params_of(k, copy);
    return op_matmul_norm(k->st, &params,
                          &(norm_params){
                              .o = &k->spans[Y],
                              .w_post = &k->spans[W_POST],
                              .x = &k->spans[RESIDUAL],
                              .w = &k->spans[W_NORM],
                              .h = &k->spans[H],
                              .rows = 1,
                              .width = k->p.rows,
                              .eps = (float)EPS,
                          },
                          &k->spans[COUNTER]);
}

// Against y as the device has it. The sum of squares and inversesqrt are within 32 * 2^-24.
static kim_err check_matmul_norm(kernel *k)
{
    kim_err err = KIM_OK;
    const uint32_t n = k->p.rows;
    const float *y = kernel_data(k, Y), *residual = kernel_data(k, RESIDUAL);
    const float *h = kernel_data(k, H), *before = kernel_before(k, RESIDUAL);
    double *normed = malloc(n * sizeof *normed);
    REQUIRE_MEMORY(normed);
    TRY(check_products(k));
    for (uint32_t r = 0; r < n; r++)
        normed[r] = y[r];
    reference_norm(normed, normed, kernel_data(k, W_POST), n, EPS);
    for (uint32_t r = 0; r < n; r++) {
        const double want = before[r] + normed[r];
        kernel_compare(k, "residual", r, residual[r], want,
                       ldexp(32, -24) * fabs(normed[r]) + ldexp(2, -24) * fabs(want));
    }
    for (uint32_t r = 0; r < n; r++)
        normed[r] = residual[r];
    reference_norm(normed, normed, kernel_data(k, W_NORM), n, EPS);
    for (uint32_t r = 0; r < n; r++)
        kernel_compare(k, "h", r, h[r], normed[r], ldexp(32, -24) * fabs(normed[r]));
    kernel_compare(k, "counter", 0, *(const uint32_t *)kernel_data(k, COUNTER), 0, 0);
error:
    free(normed);
    return err;
}

static pipeline_key pipeline_of_matmul_norm(const kernel *k)
{
    return matmul_pipeline(k->gpu, k->matrices->parts, false, 1, MATMUL_NORM);
}

const kernel_class kernel_matmul_norm = {
    .name = "matmul_norm",
    .place = place_matmul_norm,
    .fill = fill_matmul_norm,
    .record = record_matmul_norm,
    .check = check_matmul_norm,
    .pipeline = pipeline_of_matmul_norm,
};

// ----------------------------------------------------------------------------------- embeddings

static kim_err place_embed(kernel *k)
{
    kim_err err = KIM_OK;
    const kernel_params *p = &k->p;
    const uint64_t n = (uint64_t)p->width * p->columns;
    TRY(upload_matrix(k));
    TRY(kernel_place_floats(k, CONTROL_ROW(p->columns, 0)));
    TRY(kernel_place_floats(k, n));
    TRY(kernel_place_floats(k, n));
    k->flop = (double)n;
    k->bytes = (double)(weight_row_bytes(p->type, p->width) * p->columns) + 4.0 * (double)n;
error:
    return err;
}

static void fill_embed(kernel *k)
{
    const kernel_params *p = &k->p;
    uint32_t *words = kernel_data(k, CONTROL);
    for (uint32_t c = 0; c < p->columns; c++)
        words[CONTROL_ROW(c, CONTROL_ROW_TOKEN)] = c == 0   ? 0
                                                   : c == 1 ? p->rows - 1
                                                   : c == 3 ? CONTROL_SOFT
                                                            : ops_random() % p->rows;
    ops_fill_normal(kernel_data(k, SOFT), (uint64_t)p->width * p->columns, 3e5);
}

static kim_err record_embed(kernel *k, uint32_t copy)
{
    return op_embed(k->st, &(embed_params){
                               .w = &k->matrices[copy],
                               .control = &k->spans[CONTROL],
                               .soft = &k->spans[SOFT],
                               .y = &k->spans[EMBEDDED],
                               .columns = k->p.columns,
                               .scale = (float)EMBED_SCALE,
                           });
}

// A product, a sum of two parts and another product: three roundings.
static kim_err check_embed(kernel *k)
{
    kim_err err = KIM_OK;
    const kernel_params *p = &k->p;
    const uint32_t *words = kernel_data(k, CONTROL);
    const float *y = kernel_data(k, EMBEDDED), *soft = kernel_data(k, SOFT);
    float *w = malloc(p->width * sizeof *w);
    REQUIRE_MEMORY(w);
    for (uint32_t c = 0; c < p->columns; c++) {
        const uint32_t token = words[CONTROL_ROW(c, CONTROL_ROW_TOKEN)];
        const bool is_soft = token == CONTROL_SOFT;
        double largest = 0;
        if (!is_soft)
            dequant_row(k, token, w);
        for (uint32_t i = 0; i < p->width && !is_soft; i++)
            largest = fmax(largest, fabs((double)w[i]));
        for (uint32_t i = 0; i < p->width; i++) {
            const uint64_t at = (uint64_t)c * p->width + i;
            kernel_compare(k, "y", at, y[at], is_soft ? soft[at] : w[i] * EMBED_SCALE,
                           is_soft ? 0 : ldexp(4, -24) * largest * EMBED_SCALE + ldexp(1, -120));
        }
    }
error:
    free(w);
    return err;
}

static pipeline_key pipeline_of_embed(const kernel *k)
{
    return embed_pipeline(k->gpu, k->p.type);
}

const kernel_class kernel_embed = {
    .name = "embed",
    .place = place_embed,
    .fill = fill_embed,
    .record = record_embed,
    .check = check_embed,
    .pipeline = pipeline_of_embed,
};
