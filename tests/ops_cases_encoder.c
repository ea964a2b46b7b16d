// SPDX-License-Identifier: MIT
// layer_norm, average_pool and attention_full: odd sizes, large means, extreme scores, many images.
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>

#include "host/ops_pipelines.h"
#include "host/reference_ops.h"

// --------------------------------------------------------------------------------- layer_norm

// What the mean and the variance are off by is relative to the size of x, that is to its mean where
// that is large: 16 * 2^-24 of it, in units of the deviation.
static void layer_norm_case(ops_run *run, uint32_t rows, uint32_t width, double mean, double spread)
{
    ops_case c;
    const uint64_t n = (uint64_t)rows * width;
    const double eps = 1e-6;
    case_begin(&c, run, "layer norm %u rows of %u, %g +- %g", rows, width, mean, spread);
    const span x = case_place_floats(&c, n);
    const span w = case_place_floats(&c, width), b = case_place_floats(&c, width);
    const span y = case_place_floats(&c, n);
    case_commit(&c);
    float *xs = case_data(&x), *ws = case_data(&w), *bs = case_data(&b);
    ops_fill_normal(xs, n, spread);
    for (uint64_t i = 0; i < n; i++)
        xs[i] += (float)mean;
    for (uint32_t i = 0; i < width; i++) // the last row: all the same
        xs[(rows - 1) * width + i] = (float)mean;
    ops_fill_normal(ws, width, 2);
    ops_fill_normal(bs, width, 3);
    MUST(op_layer_norm(run->st, &(layer_norm_params){
                                    .x = &x,
                                    .w = &w,
                                    .b = &b,
                                    .y = &y,
                                    .rows = rows,
                                    .width = width,
                                    .eps = (float)eps,
                                }));
    case_run(&c);
    const float *got = case_data(&y);
    double *want = malloc(width * sizeof *want);
    for (uint32_t r = 0; r < rows; r++) {
        const double deviation = r + 1 < rows ? spread : sqrt(eps);
        reference_layer_norm(want, xs + (uint64_t)r * width, ws, bs, width, eps);
        for (uint32_t i = 0; i < width; i++) {
            const double w_size = fabs((double)ws[i]), b_size = fabs((double)bs[i]);
            const double tolerance =
                ldexp(16, -24) * (w_size * (fabs(mean) / deviation + 4) + b_size);
            case_check(&c, "y", (uint64_t)r * width + i, got[(uint64_t)r * width + i], want[i],
                       tolerance);
        }
    }
    case_end(&c);
    free(want);
}

// ------------------------------------------------------------------------------- average_pool

static void average_pool_case(ops_run *run, uint32_t images, uint32_t side, uint32_t pool_size,
                              uint32_t width)
{
    ops_case c;
    const uint32_t across = side / pool_size;
    case_begin(&c, run, "average pool of %u images of %u x %u by %u, width %u", images, side, side,
               pool_size, width);
    const span x = case_place_floats(&c, (uint64_t)images * side * side * width);
    const span y = case_place_floats(&c, (uint64_t)images * across * across * width);
    case_commit(&c);
    float *xs = case_data(&x);
    ops_fill_normal(xs, (uint64_t)images * side * side * width, 100);
    MUST(op_average_pool(run->st, &(average_pool_params){
                                      .x = &x,
                                      .y = &y,
                                      .images = images,
                                      .side = side,
                                      .pool = pool_size,
                                      .width = width,
                                  }));
    case_run(&c);
    const float *got = case_data(&y);
    for (uint32_t at = 0; at < images * across * across * width; at++) {
        const uint32_t i = at % width, column = at / width % across;
        const uint32_t row = at / width / across; // of all images
        double sum = 0, size = 0;
        for (uint32_t p = 0; p < pool_size * pool_size; p++) {
            const uint32_t from = row * pool_size + p / pool_size;
            const double value =
                xs[((uint64_t)from * side + column * pool_size + p % pool_size) * width + i];
            sum += value;
            size += fabs(value);
        }
        const double n = (double)pool_size * pool_size;
        case_check(&c, "y", at, got[at], sum / n, ldexp(pool_size + 2, -24) * size / n);
    }
    case_end(&c);
}

// ----------------------------------------------------------------------------- attention_full

typedef struct full_case {
    uint32_t heads, head, images, rows;
    double q_scale; // 0: all scores are equal; of hundreds: one key takes all
} full_case;

static void check_query(ops_case *c, const full_case *p, const float *qkv, const float *y,
                        uint32_t row)
{
    const uint32_t width = p->heads * p->head;
    const float *first = qkv + (uint64_t)(row - row % p->rows) * 3 * width; // of its image
    const reference_full shape = { 3 * width, p->rows, p->head, 1 / sqrt(p->head) };
    double want[256], spread;
    for (uint32_t h = 0; h < p->heads; h++) {
        const uint32_t at = h * p->head;
        MUST(reference_attention_full(&shape, qkv + (uint64_t)row * 3 * width + at,
                                      first + width + at, first + 2ull * width + at, want,
                                      &spread));
        const double tolerance =
            reference_full_tolerance(spread, p->head, attention_in_tiles(c->run->gpu, p->rows));
        for (uint32_t d = 0; d < p->head; d++)
            case_check(c, "y", (uint64_t)row * width + at + d, y[(uint64_t)row * width + at + d],
                       want[d], tolerance);
    }
}

static void full_attention_case(ops_run *run, const full_case *p)
{
    ops_case c;
    const uint32_t width = p->heads * p->head;
    const uint64_t n = (uint64_t)p->images * p->rows;
    const bool tiles = attention_in_tiles(run->gpu, p->rows), nv = run->gpu->attention_nv;
    case_begin(&c, run, "full attention%s%s %u heads of %u, %u images of %u rows, q to %g",
               tiles ? " by matrices" : "", tiles && nv ? " of NV" : "", p->heads, p->head,
               p->images, p->rows, p->q_scale);
    run->tiles += tiles && !nv;
    run->tiles_nv += tiles && nv;
    const span qkv = case_place_floats(&c, n * 3 * width), y = case_place_floats(&c, n * width);
    case_commit(&c);
    float *xs = case_data(&qkv);
    ops_fill_normal(xs, n * 3 * width, 1);
    for (uint64_t r = 0; r < n; r++)
        for (uint32_t i = 0; i < width; i++)
            xs[r * 3 * width + i] *= (float)p->q_scale;
    MUST(op_attention_full(run->st, &(attention_full_params){
                                        .qkv = &qkv,
                                        .y = &y,
                                        .heads = p->heads,
                                        .head = p->head,
                                        .images = p->images,
                                        .rows = p->rows,
                                        .scale = (float)(1 / sqrt(p->head)),
                                    }));
    case_run(&c);
    const uint32_t step = n > 100 ? 13 : 1;
    for (uint32_t r = 0; r < n; r++)
        if (r % step == 0 || r + 2 >= n)
            check_query(&c, p, xs, case_data(&y), r);
    case_end(&c);
}

void cases_full_attention(ops_run *run)
{
    static const full_case full[] = {
        // the published shape, with rows that are no multiple of any block
        { 2, 72, 2, 100, 1 }, { 1, 72, 1, 1, 1 },  { 1, 72, 3, 17, 300 }, { 2, 72, 1, 300, 0 },
        { 3, 32, 2, 65, 30 }, { 2, 64, 1, 64, 1 }, { 1, 36, 1, 15, 1 },   { 1, 96, 1, 33, 3 },
        { 2, 128, 1, 70, 3 }, { 1, 256, 2, 9, 3 },
    };
    kim_gpu *g = run->gpu;
    const bool tiles = g->attention_tiles;
    g->attention_tiles = g->has_attention_tiles;
    const bool nv_too = g->has_attention_nv && (!run->quick || g->address);
    for (uint32_t nv = 0; nv <= nv_too; nv++) {
        g->attention_nv = nv;
        for (uint32_t i = 0; i < sizeof full / sizeof *full; i++)
            if (attention_in_tiles(g, full[i].rows) && (full[i].head == 72 || !run->quick))
                full_attention_case(run, &full[i]);
    }
    g->attention_tiles = g->attention_nv = false;
    if (run->matrices) {
        g->attention_tiles = tiles;
        return;
    }
    // lavapipe's compiler takes a minute over large heads in table mode
    const bool slow = run->quick || (g->pass && !g->address);
    for (uint32_t i = 0; i < sizeof full / sizeof *full; i++)
        if (!slow || full[i].head <= 72)
            full_attention_case(run, &full[i]);
    if (!g->pass && g->info.type == KIM_DEVICE_CPU) {
        // as it is on GPUs, where several lanes share a query
        g->info.type = KIM_DEVICE_DISCRETE;
        for (uint32_t i = 0; i < sizeof full / sizeof *full; i++)
            full_attention_case(run, &full[i]);
        g->info.type = KIM_DEVICE_CPU;
    }
    g->attention_tiles = tiles;
}

void cases_encoder(ops_run *run)
{
    layer_norm_case(run, 3, 4, 0, 1);
    layer_norm_case(run, 2, 36, -5, 1);
    layer_norm_case(run, 7, 1152, 0, 1e-3);
    layer_norm_case(run, 3, 1152, 3000, 1);
    layer_norm_case(run, 2, 2560, -1e5, 3e5);
    average_pool_case(run, 1, 8, 4, 36);
    average_pool_case(run, 2, 6, 3, 4);
    average_pool_case(run, 3, 5, 1, 20);
    average_pool_case(run, 1, 7, 7, 516);
}
