// SPDX-License-Identifier: MIT
// matmul and embed: every weight type and shape, mixed types, matrices in several parts, worst
// cases.
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops_pipelines.h"
#include "host/reference_dequant.h"
#include "host/reference_ops.h"

#define WORST_X 1e6 // as x_scale: see fill_columns

// One matrix on the device and what it means.
typedef struct test_matrix {
    linear l;
    pool pool;
    uint8_t *bytes; // as a file has them
    float *w;       // [rows, width], as the device multiplies: paired rows alternate
    float *largest; // [rows] |w|
    weight_kind kind;
    char name[100];
} test_matrix;

typedef struct matrix_params {
    const weight_type *types[LINEAR_MAX_SOURCES];
    uint32_t rows[LINEAR_MAX_SOURCES];
    uint32_t n;
    uint32_t width;
    bool paired;
    weight_kind kind;
    uint64_t block_limit;
} matrix_params;

static void fill_matrix(test_matrix *m, const matrix_params *p, matrix_source *sources)
{
    uint64_t bytes = 0, at = 0;
    uint32_t rows = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        bytes += weight_row_bytes(p->types[i], p->width) * p->rows[i];
        rows += p->rows[i];
    }
    m->bytes = malloc(bytes);
    m->w = malloc((uint64_t)rows * p->width * sizeof *m->w);
    m->largest = calloc(rows, sizeof *m->largest);
    for (uint32_t i = 0, row = 0; i < p->n; i++) {
        const uint64_t row_bytes = weight_row_bytes(p->types[i], p->width);
        ops_fill_weights(p->types[i], m->bytes + at, p->rows[i], p->width, p->kind);
        sources[i] = (matrix_source){
            .name = "w", .type = p->types[i], .data = m->bytes + at, .rows = p->rows[i]
        };
        for (uint32_t r = 0; r < p->rows[i]; r++, row++) {
            const uint32_t to = p->paired ? 2 * r + i : row;
            float *w = m->w + (uint64_t)to * p->width;
            reference_dequant(p->types[i]->ggml, m->bytes + at + r * row_bytes, w, p->width);
            for (uint32_t k = 0; k < p->width; k++)
                m->largest[to] = fmaxf(m->largest[to], fabsf(w[k]));
        }
        at += row_bytes * p->rows[i];
    }
}

static void matrix_create(test_matrix *m, const ops_run *run, const matrix_params *p)
{
    matrix_source sources[LINEAR_MAX_SOURCES];
    uploader *u = NULL;
    memset(m, 0, sizeof *m);
    m->kind = p->kind;
    fill_matrix(m, p, sources);
    size_t used = 0;
    for (uint32_t i = 0; i < p->n; i++)
        used += (size_t)snprintf(m->name + used, sizeof m->name - used, "%s[%u] ",
                                 p->types[i]->name, p->rows[i]);
    snprintf(m->name + used, sizeof m->name - used, "x %u%s%s", p->width,
             p->paired ? " paired" : "", p->kind == WEIGHTS_TINY ? " tiny" : "");

    pool_init(&m->pool, "weights", POOL_DEVICE, p->block_limit);
    MUST(linear_place(&m->l, &m->pool, sources, p->n, p->width, p->paired));
    MUST(pool_commit(&m->pool, run->gpu));
    for (uint32_t i = 0; i < m->pool.n_blocks; i++)
        if (m->pool.blocks[i].mapped) // what is not uploaded must not be read
            memset(m->pool.blocks[i].mapped, 0xff, m->pool.blocks[i].bytes);
    MUST(uploader_create(&u, run->gpu, NULL, NULL, pool_bytes(&m->pool)));
    MUST(upload_linear(u, &m->l));
    MUST(uploader_finish(u));
    uploader_destroy(&u);
}

static void matrix_destroy(test_matrix *m)
{
    linear_destroy(&m->l);
    pool_destroy(&m->pool);
    free(m->bytes);
    free(m->w);
    free(m->largest);
}

static uint32_t padded_width(const linear *l)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < l->n_parts; i++) {
        const uint32_t width = l->parts[i].blocks * l->parts[i].type->block;
        most = width > most ? width : most;
    }
    return most;
}

static matmul_way way_of_row(const ops_run *run, const test_matrix *m, uint32_t row,
                             uint32_t columns)
{
    uint32_t i = m->l.n_parts - 1;
    while (m->l.parts[i].first > row)
        i--;
    return matmul_way_of(run->gpu, m->l.parts[i].type, columns, true);
}

// The products of all columns, and how far each may be off; [columns, rows] both.
static void reference_products(const ops_run *run, const test_matrix *m, const float *xs,
                               uint32_t stride, uint32_t columns, double *want, double *tolerance)
{
    const uint32_t rows = m->l.rows, width = m->l.width;
    reference_matmul(want, xs, stride, m->w, rows, width, columns);
    for (uint32_t i = 0; i < columns; i++) {
        const float *x = xs + (uint64_t)i * stride;
        for (uint32_t r = 0; r < rows; r++)
            tolerance[(uint64_t)i * rows + r] = reference_product_tolerance(
                way_of_row(run, m, r, columns), x, m->w + (uint64_t)r * width, width);
    }
}

// Keeps the relative error of plain products of random weights, for the record.
static void note_error(ops_run *run, const test_matrix *m, const float *got, const double *want,
                       uint32_t columns)
{
    const uint64_t n = (uint64_t)m->l.rows * columns;
    double error = 0, size = 0;
    for (uint64_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += want[i] * want[i];
    }
    double *const kept = &run->error[way_of_row(run, m, 0, columns)];
    *kept = fmax(*kept, sqrt(error / size));
}

static void check_products(ops_case *c, const test_matrix *m, const float *got, const double *want,
                           const double *tolerances, uint32_t columns)
{
    const uint32_t rows = m->l.rows;
    for (uint32_t i = 0; i < columns; i++) {
        if (!m->l.paired) {
            for (uint64_t at = (uint64_t)i * rows; at < (uint64_t)(i + 1) * rows; at++)
                case_check(c, "y", at, got[at], want[at], tolerances[at]);
            continue;
        }
        for (uint32_t r = 0; r < rows / 2; r++) {
            const uint64_t at = (uint64_t)i * rows + 2 * r;
            const double gate = want[at], up = want[at + 1];
            case_check(c, "y", (uint64_t)i * rows / 2 + r, got[(uint64_t)i * (rows / 2) + r],
                       reference_gelu(gate) * up,
                       reference_glu_tolerance(gate, up, tolerances[at], tolerances[at + 1]));
        }
    }
}

// Room for packed columns, where the way that is chosen packs.
static const span *place_packed(ops_case *c, uint32_t width, uint32_t columns, span *room)
{
    const uint64_t bytes = matmul_packed_bytes(c->run->gpu, width, columns);
    if (!bytes)
        return NULL;
    *room = case_place(c, bytes);
    return room;
}

// Columns of normal numbers; here and there of zeros, and to worst_cases also of denormals, with
// one element a billion times the others, and beyond all that fp16 holds.
static void fill_columns(float *xs, uint32_t stride, uint32_t used, const test_matrix *m,
                         uint32_t columns, double scale)
{
    for (uint32_t i = 0; i < columns; i++) {
        float *x = xs + (uint64_t)i * stride;
        const bool worst = scale == WORST_X;
        memset(x, 0, used * sizeof *x);
        if (i % 8 != 5)
            ops_fill_normal(x, m->l.width,
                            !worst       ? scale
                            : i % 8 == 1 ? 1e6
                            : i % 8 == 3 ? 1e-40
                            : i % 8 == 6 ? 1e25
                                         : 1e-3);
        if (worst && i % 8 == 2)
            x[ops_random() % m->l.width] = 1e6f;
    }
}

static void matmul_case(ops_run *run, const test_matrix *m, uint32_t columns, double x_scale)
{
    ops_case c;
    const uint32_t rows = m->l.rows, width = m->l.width;
    const uint32_t y_width = m->l.paired ? rows / 2 : rows, used = padded_width(&m->l);
    const uint32_t stride = used + 4; // what is beyond the last block is never read
    case_begin(&c, run, "matmul %s, %u columns, x to %g, %s", m->name, columns, x_scale,
               matmul_way_name(way_of_row(run, m, 0, columns)));
    const span x = case_place_floats(&c, (uint64_t)stride * columns);
    const span y = case_place_floats(&c, (uint64_t)y_width * columns);
    span room;
    const span *packed = place_packed(&c, width, columns, &room);
    case_commit(&c);
    float *xs = case_data(&x);
    double *want = malloc((uint64_t)rows * columns * sizeof *want);
    double *tolerances = malloc((uint64_t)rows * columns * sizeof *tolerances);
    fill_columns(xs, stride, used, m, columns, x_scale);
    reference_products(run, m, xs, stride, columns, want, tolerances);
    MUST(op_matmul(run->st, &(matmul_params){
                                .w = &m->l,
                                .x = &x,
                                .x_width = stride,
                                .y = &y,
                                .columns = columns,
                                .packed = packed,
                            }));
    case_run(&c);
    check_products(&c, m, case_data(&y), want, tolerances, columns);
    if (!m->l.paired && m->kind == WEIGHTS_RANDOM && x_scale == 1)
        note_error(run, m, case_data(&y), want, columns);
    case_end(&c);
    free(tolerances);
    free(want);
}

// What a product does besides, of which x holds just its columns: where the last block of a row
// goes beyond them, a row is multiplied with the begin of the next one, and the last with nothing.
typedef struct epilogue_case {
    bool bias, gelu, add;
    uint32_t columns;
} epilogue_case;

static void epilogue_case_run(ops_run *run, const test_matrix *m, const epilogue_case *p)
{
    ops_case c;
    const uint32_t rows = m->l.rows, width = m->l.width, columns = p->columns;
    const uint64_t n = (uint64_t)rows * columns;
    case_begin(&c, run, "matmul %s, %u parts, %u columns%s%s%s, %s", m->name, m->l.n_parts, columns,
               p->bias ? ", bias" : "", p->gelu ? ", gelu" : "", p->add ? ", add" : "",
               matmul_way_name(way_of_row(run, m, 0, columns)));
    const span x = case_place_floats(&c, (uint64_t)width * columns);
    const span bias = case_place_floats(&c, rows);
    const span y = case_place_floats(&c, n);
    span room;
    const span *packed = place_packed(&c, width, columns, &room);
    case_commit(&c);
    float *xs = case_data(&x), *biases = case_data(&bias), *ys = case_data(&y);
    double *want = malloc(n * sizeof *want), *tolerances = malloc(n * sizeof *tolerances);
    float *before = malloc(n * sizeof *before);
    ops_fill_normal(xs, (uint64_t)width * columns, 1);
    if (p->bias)
        ops_fill_normal(biases, rows, 2);
    if (p->add)
        ops_fill_normal(ys, n, 10);
    memcpy(before, ys, n * sizeof *before);
    reference_products(run, m, xs, width, columns, want, tolerances);
    MUST(op_matmul(run->st, &(matmul_params){
                                .w = &m->l,
                                .x = &x,
                                .x_width = width,
                                .y = &y,
                                .columns = columns,
                                .packed = packed,
                                .bias = p->bias ? &bias : NULL,
                                .gelu = p->gelu,
                                .add = p->add,
                            }));
    case_run(&c);
    for (uint64_t at = 0; at < n; at++) {
        double value = want[at] + (p->bias ? (double)biases[at % rows] : 0);
        double tolerance = tolerances[at] + ldexp(2, -24) * fabs(value);
        if (p->gelu) { // |gelu'| < 1.13
            tolerance = 1.13 * tolerance + ldexp(8, -24) * fabs(value);
            value = reference_gelu(value);
        }
        if (p->add) {
            value += (double)before[at];
            tolerance += ldexp(2, -24) * fabs(value);
        }
        case_check(&c, "y", at, ys[at], value, tolerance);
    }
    case_end(&c);
    free(want);
    free(tolerances);
    free(before);
}

static void matmul_cases(ops_run *run, const matrix_params *p, const uint32_t *columns, uint32_t n,
                         double x_scale)
{
    test_matrix m;
    matrix_create(&m, run, p);
    for (uint32_t i = 0; i < n; i++)
        matmul_case(run, &m, columns[i], x_scale);
    matrix_destroy(&m);
}

static void embed_case(ops_run *run, const matrix_params *p, uint32_t columns)
{
    ops_case c;
    test_matrix m;
    const double scale = 25.298221588134766;
    matrix_create(&m, run, p);
    const uint32_t width = m.l.width, rows = m.l.rows;
    case_begin(&c, run, "embed %s, %u parts, %u columns", m.name, m.l.n_parts, columns);
    const span control = case_place_floats(&c, CONTROL_ROW(columns, 0));
    const span soft = case_place_floats(&c, (uint64_t)width * columns);
    const span y = case_place_floats(&c, (uint64_t)width * columns);
    case_commit(&c);
    uint32_t *words = case_data(&control);
    for (uint32_t i = 0; i < columns; i++)
        words[CONTROL_ROW(i, CONTROL_ROW_TOKEN)] = i == 0   ? 0
                                                   : i == 1 ? rows - 1
                                                   : i == 3 ? CONTROL_SOFT
                                                            : ops_random() % rows;
    ops_fill_normal(case_data(&soft), (uint64_t)width * columns, 300000);
    MUST(op_embed(run->st, &(embed_params){
                               .w = &m.l,
                               .control = &control,
                               .soft = &soft,
                               .y = &y,
                               .columns = columns,
                               .scale = (float)scale,
                           }));
    case_run(&c);
    const float *got = case_data(&y), *as_is = case_data(&soft);
    for (uint32_t i = 0; i < columns; i++)
        for (uint32_t k = 0; k < width; k++) {
            const uint64_t at = (uint64_t)i * width + k;
            const uint32_t token = words[CONTROL_ROW(i, CONTROL_ROW_TOKEN)];
            if (token == CONTROL_SOFT)
                case_check(&c, "y", at, got[at], as_is[at], 0);
            else // a product, a sum of two parts and another product: three roundings
                case_check(&c, "y", at, got[at], (double)m.w[(uint64_t)token * width + k] * scale,
                           ldexp(4, -24) * (double)m.largest[token] * scale + ldexp(1, -120));
        }
    case_end(&c);
    matrix_destroy(&m);
}

static bool by_256(const weight_type *type)
{
    return type->block == 256;
}

static bool plain(const weight_type *type)
{
    return type->block_bytes % type->block == 0;
}

// One column and many are different loops of the shader; the counts between them are tested with
// one type, because CPU drivers take a second to compile a pipeline.
static void type_cases(ops_run *run, const weight_type *type)
{
    const uint32_t few[] = { 1, 33 };
    matrix_params p = { .types = { type }, .n = 1, .rows = { 37 } };
    p.width = by_256(type) ? 512 : plain(type) ? 100 : 96;
    matmul_cases(run, &p, few, 2, 1);
    embed_case(run, &p, 5);
    if (plain(type)) {
        p.width = 36; // most of the second block is padding
        matmul_cases(run, &p, few, 2, 1);
        embed_case(run, &p, 2);
    }
    p.kind = WEIGHTS_TINY;
    matmul_cases(run, &p, few, 2, 3e5);
    p.kind = WEIGHTS_RANDOM;
    p.rows[0] = 48;
    p.width = 2560;
    matmul_cases(run, &p, few, run->quick ? 1 : 2, 3e5);
    if (!by_256(type) && !run->quick) {
        p.width = 640;
        matmul_cases(run, &p, few, 2, 1);
        p.width = 1152;
        matmul_cases(run, &p, few, 2, 1);
    }
    p = (matrix_params){ .types = { type, type }, .n = 2, .rows = { 50, 50 }, .paired = true };
    p.width = by_256(type) ? 256 : 64;
    matmul_cases(run, &p, few, type->ggml == 6 ? 2 : 1, 0.5); // Q5_0: the 270M's
}

static const weight_type *named(const char *name)
{
    uint32_t i = 0;
    while (strcmp(weight_types[i].name, name))
        i++;
    return &weight_types[i];
}

static void parts_cases(ops_run *run)
{
    const uint32_t columns[] = { 1, 5 };
    const weight_type *q4 = named("Q4_K"), *q5 = named("Q5_0"), *q8 = named("Q8_0");
    const matrix_params cases[] = {
        // q, k and v of three types; of two; of one, whose rows share a part
        { .types = { q5, q8, q4 }, .rows = { 64, 32, 32 }, .n = 3, .width = 256 },
        { .types = { q5, q5, q8 }, .rows = { 48, 16, 16 }, .n = 3, .width = 256 },
        { .types = { q8, q8, q8 }, .rows = { 56, 24, 24 }, .n = 3, .width = 256 },
        // gate and up of two types: the outputs stand one after the other
        { .types = { q5, q8 }, .rows = { 32, 32 }, .n = 2, .width = 64 },
        // blocks of a few groups of rows: several parts
        { .types = { q8 }, .rows = { 150 }, .n = 1, .width = 128, .block_limit = 3 * 4608 },
        { .types = { q8, q8 },
          .rows = { 75, 75 },
          .n = 2,
          .width = 128,
          .paired = true,
          .block_limit = 2 * 4608 },
        { .types = { q4, q8 }, .rows = { 96, 64 }, .n = 2, .width = 256, .block_limit = 2 * 9216 },
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++)
        matmul_cases(run, &cases[i], columns, 2, 1);
    embed_case(run, &cases[4], 9);
}

static void epilogue_cases(ops_run *run)
{
    static const char *const names[] = { "F32", "F16", "BF16", "Q8_0", "Q4_K" };
    static const epilogue_case cases[] = {
        { .bias = true, .columns = 33 },
        { .bias = true, .gelu = true, .columns = 33 },
        { .bias = true, .add = true, .columns = 33 },
        { .bias = true, .add = true, .columns = 1 },
        { .columns = 1 },
        { .gelu = true, .add = true, .columns = 5 },
    };
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
        const weight_type *type = named(names[i]);
        test_matrix m;
        matrix_params p = { .types = { type, type }, .rows = { 37, 20 }, .n = 2 };
        p.width = plain(type) ? 588 : 256; // patches of 14 x 14; 18.4 blocks
        matrix_create(&m, run, &p);
        for (uint32_t j = 0; j < sizeof cases / sizeof *cases; j++)
            if (j < 3 || i < 2)
                epilogue_case_run(run, &m, &cases[j]);
        matrix_destroy(&m);
    }
    // several parts: the bias goes along
    test_matrix m;
    matrix_params p = { .types = { named("Q8_0") }, .rows = { 150 }, .n = 1, .width = 128 };
    p.block_limit = 3 * 4608;
    matrix_create(&m, run, &p);
    epilogue_case_run(run, &m, &cases[2]);
    matrix_destroy(&m);
    // a feed-forward of the published size: 134.5 blocks
    p = (matrix_params){ .types = { named("F16") }, .rows = { 33 }, .n = 1, .width = 4304 };
    matrix_create(&m, run, &p);
    epilogue_case_run(run, &m, &cases[2]);
    matrix_destroy(&m);
}

// ---------------------------------------------------------------------------- with the norms

typedef struct normed_tensors {
    span x, y, residual, w_post, w_norm, h, counter;
    double *before; // the residual
} normed_tensors;

// Against y as the device has it, which is checked apart. The sum of squares and inversesqrt are
// within 32 * 2^-24.
static void check_norms(ops_case *c, const normed_tensors *t, uint32_t rows, double eps)
{
    const float *y = case_data(&t->y), *residual = case_data(&t->residual), *h = case_data(&t->h);
    double *normed = malloc(rows * sizeof *normed), *want = malloc(rows * sizeof *want);
    for (uint32_t r = 0; r < rows; r++)
        normed[r] = y[r];
    reference_norm(normed, normed, case_data(&t->w_post), rows, eps);
    for (uint32_t r = 0; r < rows; r++) {
        t->before[r] += normed[r];
        case_check(c, "residual", r, residual[r], t->before[r],
                   ldexp(32, -24) * fabs(normed[r]) + ldexp(2, -24) * fabs(t->before[r]));
        t->before[r] = residual[r];
    }
    reference_norm(want, t->before, case_data(&t->w_norm), rows, eps);
    for (uint32_t r = 0; r < rows; r++)
        case_check(c, "h", r, h[r], want[r], ldexp(32, -24) * fabs(want[r]));
    case_check(c, "counter", 0, *(uint32_t *)case_data(&t->counter), 0, 0);
    free(normed);
    free(want);
}

static void norm_case(ops_run *run, const test_matrix *m)
{
    ops_case c;
    normed_tensors t;
    const uint32_t rows = m->l.rows, width = m->l.width;
    const double eps = 1e-6;
    double *want = malloc(rows * sizeof *want), *tolerances = malloc(rows * sizeof *tolerances);
    case_begin(&c, run, "matmul %s, %u parts, then norms", m->name, m->l.n_parts);
    t.x = case_place_floats(&c, width);
    t.y = case_place_floats(&c, rows);
    t.residual = case_place_floats(&c, rows);
    t.w_post = case_place_floats(&c, rows);
    t.w_norm = case_place_floats(&c, rows);
    t.h = case_place_floats(&c, rows);
    t.counter = case_place_floats(&c, 1);
    case_commit(&c);
    t.before = malloc(rows * sizeof *t.before);
    float *xs = case_data(&t.x), *residual = case_data(&t.residual);
    ops_fill_normal(xs, width, 1);
    ops_fill_normal(residual, rows, 3e5);
    ops_fill_normal(case_data(&t.w_post), rows, 5);
    ops_fill_normal(case_data(&t.w_norm), rows, 2);
    memset(case_data(&t.counter), 0, 4);
    for (uint32_t r = 0; r < rows; r++)
        t.before[r] = residual[r];
    reference_products(run, m, xs, width, 1, want, tolerances);
    MUST(op_matmul_norm(
        run->st,
        &(matmul_params){ .w = &m->l, .x = &t.x, .x_width = width, .y = &t.y, .columns = 1 },
        &(norm_params){
            .o = &t.y,
            .w_post = &t.w_post,
            .x = &t.residual,
            .w = &t.w_norm,
            .h = &t.h,
            .rows = 1,
            .width = rows,
            .eps = (float)eps,
        },
        &t.counter));
    for (uint32_t again = 0; again < 2; again++) { // it is left as it was found
        MUST(stream_submit(run->st));
        MUST(stream_wait(run->st));
        check_products(&c, m, case_data(&t.y), want, tolerances, 1);
        check_norms(&c, &t, rows, eps);
    }
    case_run(&c);
    case_end(&c);
    free(t.before);
    free(want);
    free(tolerances);
}

static void norm_cases(ops_run *run)
{
    const matrix_params cases[] = {
        { .types = { named("F32") }, .rows = { 4 }, .n = 1, .width = 32 },
        { .types = { named("Q8_0") }, .rows = { 16 }, .n = 1, .width = 64 },
        { .types = { named("Q5_0") }, .rows = { 640 }, .n = 1, .width = 1024 },
        { .types = { named("Q6_K") }, .rows = { 2560 }, .n = 1, .width = 256 },
        { .types = { named("Q4_K") }, .rows = { 84 }, .n = 1, .width = 2048 },
        // in parts: two dispatches, and more
        { .types = { named("Q8_0") }, .rows = { 152 }, .n = 1, .width = 128, .block_limit = 13824 },
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_matrix m;
        matrix_create(&m, run, &cases[i]);
        norm_case(run, &m);
        matrix_destroy(&m);
    }
}

// --------------------------------------------------------------------------------- of few rows

// How many lanes share a sum: by rows and columns, for the device's units and what was measured.
static void check_slices(ops_run *run)
{
    static const struct {
        uint32_t rows, width, columns, units, shape, slices, groups;
    } cases[] = {
        { 2560, 2560, 1, 96, 0, 8, 1 },                                  // as was measured
        { 262144, 640, 1, 96, 3, 8, 2 }, { 2048, 2560, 1, 96, 0, 8, 1 }, // not twice as many
        { 1024, 2560, 1, 96, 0, 16, 1 }, { 1024, 2560, 1, 96, 1, 8, 1 },
        { 256, 2560, 1, 96, 0, 32, 1 }, // of a workgroup there are 256 at most
        { 256, 2560, 1, 96, 4, 32, 1 }, // more workgroups instead of twice the groups
        { 256, 640, 1, 96, 0, 16, 1 },  // ten chunks
        { 256, 2560, 8, 96, 0, 32, 1 },  { 1024, 2560, 1, 16, 0, 8, 1 }, // few units have enough
        { 256, 2560, 1, 8, 0, 16, 1 },   { 16, 32, 1, 96, 0, 8, 1 },
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const weight_type *type = named("Q8_0");
        const linear_part part = { .type = type,
                                   .rows = cases[i].rows,
                                   .blocks = cases[i].width / type->block };
        run->gpu->info.compute_units = cases[i].units;
        run->gpu->few_shape = cases[i].shape;
        const pipeline_key key = matmul_pipeline(run->gpu, &part, false, cases[i].columns, 0);
        const uint32_t slices = key.constants[MATMUL_SLICES], groups = key.constants[MATMUL_GROUPS];
        if (slices == cases[i].slices && groups == cases[i].groups)
            continue;
        printf("%u rows of %u, %u columns, %u units: %u lanes and %u groups, not %u and %u\n",
               cases[i].rows, cases[i].width, cases[i].columns, cases[i].units, slices, groups,
               cases[i].slices, cases[i].groups);
        run->failures++;
    }
}

// As on a large GPU: up to 32 lanes share a sum.
static void few_rows_cases(ops_run *run)
{
    static const uint32_t columns[] = { 1, 2 };
    kim_gpu *g = run->gpu;
    const kim_device_info kept = g->info;
    const VkPhysicalDeviceLimits limits = g->limits;
    const uint32_t kept_shape = g->few_shape;
    const bool passes = g->pass;
    g->info.type = KIM_DEVICE_DISCRETE;
    g->pass = false;
    g->limits.maxComputeWorkGroupInvocations = g->limits.maxComputeSharedMemorySize = UINT32_MAX;
    check_slices(run);
    // what a device may lack: 256 rows of 2,560 would take 32 lanes
    const weight_type *q8 = named("Q8_0");
    const linear_part part = { .type = q8, .rows = 256, .blocks = 2560 / q8->block };
    g->info.compute_units = 96;
    g->few_shape = 0;
    g->limits.maxComputeWorkGroupInvocations = 128;
    run->failures += matmul_pipeline(g, &part, false, 1, 0).constants[MATMUL_SLICES] != 16;
    g->limits.maxComputeWorkGroupInvocations = UINT32_MAX;
    g->limits.maxComputeSharedMemorySize = 16384; // 256 lanes of 8 columns: 17,412 bytes
    run->failures += matmul_pipeline(g, &part, false, 8, 0).constants[MATMUL_SLICES] != 16;
    g->limits = limits;
    matrix_params p = { .types = { named("Q4_K") }, .rows = { 37 }, .n = 1, .width = 2560 };
    matmul_cases(run, &p, columns, 1, 1);
    p = (matrix_params){ .types = { named("Q8_0") }, .rows = { 37 }, .n = 1, .width = 2560 };
    matmul_cases(run, &p, columns, 2, 1);
    p = (matrix_params){ .types = { named("Q8_0") }, .rows = { 256 }, .n = 1, .width = 640 };
    matmul_cases(run, &p, columns, 1, 1);
    p = (matrix_params){ .types = { named("Q8_0"), named("Q8_0") },
                         .rows = { 50, 50 },
                         .n = 2,
                         .width = 544,
                         .paired = true };
    matmul_cases(run, &p, columns, 1, 0.5);
    p = (matrix_params){ .types = { named("Q5_0") }, .rows = { 640 }, .n = 1, .width = 2048 };
    test_matrix m;
    matrix_create(&m, run, &p);
    norm_case(run, &m);
    matrix_destroy(&m);
    g->info = kept;
    g->few_shape = kept_shape;
    g->pass = passes;
}

void cases_weights(ops_run *run)
{
    few_rows_cases(run);
    norm_cases(run);
    epilogue_cases(run);
    for (uint32_t i = run->again; i < WEIGHT_TYPE_COUNT; i += run->again ? 4 : 1)
        type_cases(run, &weight_types[i]);
    parts_cases(run);
    uint32_t every[18];
    for (uint32_t i = 0; i < 18; i++)
        every[i] = i < 17 ? i + 1 : 130;
    matrix_params p = { .types = { named("Q5_0") }, .rows = { 83 }, .n = 1, .width = 320 };
    matmul_cases(run, &p, every, 18, 1);
    p = (matrix_params){ .types = { named("Q8_0") }, .rows = { 4098 }, .n = 1, .width = 64 };
    matmul_cases(run, &p, every, 3, 1);
    p.types[0] = named("F16");
    matmul_cases(run, &p, every, 1, 1);
}

// --------------------------------------------------------------------- many columns, every way

// Rows and columns that are no multiples of a tile, in more than one tile both ways.
static void many_type_cases(ops_run *run, const weight_type *type)
{
    const uint32_t columns[] = { 33, 70 };
    matrix_params p = { .types = { type }, .n = 1, .rows = { 150 } };
    p.width = by_256(type) ? 512 : plain(type) ? 100 : 96;
    matmul_cases(run, &p, columns, 2, 1);
    matmul_cases(run, &p, columns, 1, WORST_X);
    p.rows[0] = 37;
    p.kind = WEIGHTS_TINY;
    matmul_cases(run, &p, columns, 1, 3e5);
    p.kind = WEIGHTS_RANDOM;
    if (!run->quick) {
        p.width = 2560;
        matmul_cases(run, &p, columns, 1, 1);
    }
    p = (matrix_params){ .types = { type, type }, .n = 2, .rows = { 50, 50 }, .paired = true };
    p.width = by_256(type) ? 256 : 64;
    if (type->ggml == 6 || type->ggml == 1 || type->ggml == 12) // Q5_0, F16, Q4_K
        matmul_cases(run, &p, columns, 1, 0.5);
}

static void many_epilogue_cases(ops_run *run)
{
    static const char *const names[] = { "F32", "F16", "Q8_0" };
    static const epilogue_case cases[] = {
        { .bias = true, .gelu = true, .columns = 33 },
        { .bias = true, .add = true, .columns = 65 },
    };
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
        const weight_type *type = named(names[i]);
        test_matrix m;
        matrix_params p = { .types = { type, type }, .rows = { 37, 20 }, .n = 2 };
        p.width = plain(type) ? 588 : 256;
        matrix_create(&m, run, &p);
        for (uint32_t j = 0; j < sizeof cases / sizeof *cases; j++)
            epilogue_case_run(run, &m, &cases[j]);
        matrix_destroy(&m);
    }
}

// Several parts, of types that go different ways: the columns are packed again in between.
static void many_parts_cases(ops_run *run)
{
    const uint32_t columns[] = { 40 };
    const weight_type *f32 = named("F32"), *f16 = named("F16");
    const weight_type *q6 = named("Q6_K"), *q8 = named("Q8_0");
    const matrix_params cases[] = {
        { .types = { q8, f16, q8 }, .rows = { 64, 24, 16 }, .n = 3, .width = 128 },
        { .types = { q6, f32, q8 }, .rows = { 20, 33, 16 }, .n = 3, .width = 256 },
        { .types = { q8 }, .rows = { 150 }, .n = 1, .width = 128, .block_limit = 3 * 4608 },
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++)
        matmul_cases(run, &cases[i], columns, 1, 1);
}

void cases_many_columns(ops_run *run)
{
    const matmul_way before = run->gpu->matmul_way;
    for (matmul_way way = MATMUL_FLOAT; way < MATMUL_WAYS; way++) {
        if (matmul_way_set(run->gpu, way)) {
            run->failures += run->gpu->matmul_ways >> way & 1; // else the device does not have it
            continue;
        }
        run->failures += !(run->gpu->matmul_ways >> way & 1);
        for (uint32_t i = run->again; i < WEIGHT_TYPE_COUNT; i += run->again ? 4 : 1)
            if (matmul_way_of(run->gpu, &weight_types[i], 33, true) == way)
                many_type_cases(run, &weight_types[i]);
        many_epilogue_cases(run);
        many_parts_cases(run);
    }
    MUST(matmul_way_set(run->gpu, before));
}
