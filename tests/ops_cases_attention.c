// SPDX-License-Identifier: MIT
// rope, attention and combine: shapes, windows, rings that have wrapped, splits, extreme scores.
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops_pipelines.h"
#include "host/reference_dequant.h"
#include "host/reference_ops.h"

#define ALL_KEYS UINT32_MAX // a window without end

typedef enum score_kind {
    SCORES_NORMAL,
    SCORES_HUGE,   // of tens of thousands: exp must not overflow, one key takes all
    SCORES_EQUAL,  // the mean of the values
    SCORES_BEYOND, // of queries beyond the range of fp16
} score_kind;

static const char *const score_names[] = { "normal", "huge", "equal", "beyond" };

typedef struct heads_case {
    head_shape shape;
    uint32_t cache_rows, window, rows, position;
    score_kind scores;
    uint32_t picture, picture_rows; // rows of the step that see each other
    kv_type kv;
} heads_case;

static const char *const kv_names[KV_TYPES] = { "f16", "q8" };

static uint32_t qkv_width(const head_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head;
}

static reference_heads heads_of(const heads_case *p)
{
    return (reference_heads){
        .heads = p->shape.heads,
        .kv_heads = p->shape.kv_heads,
        .head = p->shape.head,
        .cache_rows = p->cache_rows,
        .window = p->window,
        .q8 = p->kv == KV_Q8,
    };
}

static kv_cache place_cache(ops_case *c, const heads_case *p)
{
    const uint64_t bytes = kv_cache_bytes(p->kv, &p->shape, p->cache_rows);
    return (kv_cache){
        .k = case_place(c, bytes),
        .v = case_place(c, bytes),
        .rows = p->cache_rows,
        .window = p->window,
        .type = p->kv,
    };
}

// ---------------------------------------------------------------------------------- attention

// What queries see is random, below 2; of the rest K is poison and V is zero, as ops.h wants it.
static void fill_cache(const heads_case *p, const kv_cache *cache)
{
    const reference_heads h = heads_of(p);
    const uint32_t seen = p->position + 1 < p->window ? p->position + 1 : p->window;
    memset(case_data(&cache->v), 0, cache->v.bytes);
    for (uint32_t head = 0; head < h.kv_heads; head++)
        for (uint32_t at = p->position + 1 - seen; at < p->position + p->rows; at++)
            for (uint32_t d = 0; d < h.head; d++) {
                const uint64_t scale_at = reference_scale_at(&h, head, at, d);
                reference_put_cached(&h, case_data(&cache->k), reference_k_at(&h, head, at, d),
                                     scale_at, ops_half(ops_uniform(-2, 2)));
                reference_put_cached(&h, case_data(&cache->v), reference_v_at(&h, head, at, d),
                                     scale_at, ops_half(ops_uniform(-2, 2)));
            }
}

// Of eleven bits, so that matrices of fp16 have the same queries: what rounding them loses is seen
// with whole models.
static void fill_queries(const heads_case *p, float *qkv)
{
    static const double scales[] = {
        [SCORES_NORMAL] = 0.3, [SCORES_HUGE] = 2000, [SCORES_EQUAL] = 0, [SCORES_BEYOND] = 1e9
    };
    const uint64_t n = (uint64_t)p->shape.heads * p->shape.head;
    for (uint32_t r = 0; r < p->rows; r++) {
        float *q = qkv + (uint64_t)r * qkv_width(&p->shape);
        ops_fill_normal(q, n, scales[p->scores]);
        for (uint64_t i = 0; i < n; i++)
            q[i] = ops_eleven_bits(q[i]);
    }
}

static bool in_picture(const heads_case *p, uint32_t row)
{
    return row >= p->picture && row - p->picture < p->picture_rows;
}

// The keys that a row sees: its window, and what comes later of its picture.
static void keys_seen(const heads_case *p, uint32_t row, uint32_t keys[2])
{
    const uint32_t at = p->position + row;
    keys[0] = at + 1 < p->window ? 0 : at + 1 - p->window;
    keys[1] = at;
    if (in_picture(p, row))
        keys[1] = p->position + p->picture + p->picture_rows - 1;
}

static void fill_control(const heads_case *p, uint32_t *control)
{
    control[CONTROL_POSITION] = p->position;
    for (uint32_t r = 0; r < p->rows; r++)
        control[CONTROL_ROW(r, CONTROL_ROW_AHEAD)] =
            in_picture(p, r) ? p->picture + p->picture_rows - 1 - r : 0;
}

static void check_row(ops_case *c, const heads_case *p, const float *qkv, const kv_cache *cache,
                      const float *y, uint32_t row)
{
    const reference_heads h = heads_of(p);
    const uint32_t head = h.head;
    double want[256], spread;
    uint32_t keys[2];
    keys_seen(p, row, keys);
    for (uint32_t i = 0; i < h.heads; i++) {
        const float *q = qkv + (uint64_t)row * qkv_width(&p->shape) + i * head;
        MUST(reference_attention(&h, q, case_data(&cache->k), case_data(&cache->v),
                                 i / (h.heads / h.kv_heads), keys, want, &spread));
        const double tolerance =
            reference_attention_tolerance(spread, attention_in_tiles(c->run->gpu, p->rows));
        for (uint32_t d = 0; d < head; d++) {
            const uint64_t at = ((uint64_t)row * h.heads + i) * head + d;
            case_check(c, "y", at, y[at], want[d], tolerance);
        }
    }
}

static void attention_case(ops_run *run, const heads_case *p)
{
    ops_case c;
    const head_shape *s = &p->shape;
    const bool tiles = attention_in_tiles(run->gpu, p->rows), nv = run->gpu->attention_nv;
    case_begin(&c, run,
               "attention%s%s %s %u:%u heads of %u, window %d of %u, %u rows at %u, %s scores",
               tiles ? " by matrices" : "", tiles && nv ? " of NV" : "", kv_names[p->kv], s->heads,
               s->kv_heads, s->head, (int)p->window, p->cache_rows, p->rows, p->position,
               score_names[p->scores]);
    run->tiles += tiles && !nv;
    run->tiles_nv += tiles && nv;
    const span qkv = case_place_floats(&c, (uint64_t)p->rows * qkv_width(s));
    const kv_cache cache = place_cache(&c, p);
    const span control = case_place_floats(&c, CONTROL_ROW(p->rows, 0));
    const span partial = case_place(&c, attention_partial_bytes(s, p->cache_rows, 1));
    const span y = case_place_floats(&c, (uint64_t)p->rows * s->heads * s->head);
    case_commit(&c);
    fill_control(p, case_data(&control));
    fill_cache(p, &cache);
    fill_queries(p, case_data(&qkv));
    MUST(op_attention(run->st, &(attention_params){
                                   .qkv = &qkv,
                                   .control = &control,
                                   .cache = &cache,
                                   .partial = &partial,
                                   .y = &y,
                                   .shape = *s,
                                   .rows = p->rows,
                               }));
    case_run(&c);
    const float *got = case_data(&y);
    for (uint64_t i = 0; i < y.bytes / 4; i++) // all of them are there
        case_check(&c, "y", i, got[i], 0, 2.01);
    for (uint32_t r = 0; r < p->rows; r++) // some of many are exact
        if (p->rows <= 8 || r < 2 || r + 2 >= p->rows || r % 29 == 16)
            check_row(&c, p, case_data(&qkv), &cache, got, r);
    case_end(&c);
}

static void attention_cases(ops_run *run)
{
    static const heads_case cases[] = {
        // the 270M and 1B: four heads share one; queries of one, of two and of many rows
        { { 4, 1, 256 }, 1024, 512, 1, 0, SCORES_NORMAL, 0, 0, 0 },
        { { 4, 1, 256 }, 1024, 512, 1, 5000, SCORES_HUGE, 0, 0, 0 },
        { { 4, 1, 256 }, 1024, 512, 2, 511, SCORES_NORMAL, 0, 0, 0 },
        { { 4, 1, 256 }, 1024, 512, 7, 1020, SCORES_NORMAL, 0, 0, 0 },
        { { 4, 1, 256 }, 1024, 512, 37, 0, SCORES_NORMAL, 0, 0, 0 },
        { { 4, 1, 256 }, 1024, 512, 37, 2040, SCORES_EQUAL, 0, 0, 0 },
        // windows that end inside a block, rings that have wrapped
        { { 2, 2, 64 }, 256, 100, 1, 37, SCORES_NORMAL, 0, 0, 0 },
        { { 2, 2, 64 }, 256, 100, 130, 700, SCORES_NORMAL, 0, 0, 0 },
        { { 2, 2, 64 }, 192, 1, 16, 300, SCORES_NORMAL, 0, 0, 0 },
        { { 2, 2, 64 }, 256, 64, 130, 0, SCORES_HUGE, 0, 0, 0 },
        { { 2, 2, 64 }, 256, 64, 33, 90, SCORES_BEYOND, 0, 0, 0 },
        // the other ratios and sizes of heads
        { { 4, 2, 80 }, 256, 100, 37, 200, SCORES_NORMAL, 0, 0, 0 },
        { { 6, 2, 96 }, 256, ALL_KEYS, 1, 90, SCORES_NORMAL, 0, 0, 0 },
        { { 6, 2, 96 }, 256, 100, 37, 999, SCORES_EQUAL, 0, 0, 0 },
        { { 8, 2, 128 }, 256, 100, 1, 300, SCORES_NORMAL, 0, 0, 0 },
        { { 8, 2, 128 }, 256, 100, 16, 300, SCORES_NORMAL, 0, 0, 0 },
        { { 4, 2, 128 }, 256, 100, 37, 300, SCORES_NORMAL, 5, 20, 0 },
        { { 8, 1, 64 }, 256, 100, 37, 300, SCORES_NORMAL, 0, 0, 0 },
        { { 32, 1, 64 }, 256, 100, 1, 300, SCORES_NORMAL, 0, 0, 0 },
        { { 32, 1, 64 }, 256, 100, 7, 300, SCORES_NORMAL, 0, 0, 0 },
        // all positions, with and without splits, with fewer keys than splits
        { { 4, 1, 64 }, 4096, ALL_KEYS, 1, 0, SCORES_NORMAL, 0, 0, 0 },
        { { 4, 1, 64 }, 4096, ALL_KEYS, 1, 700, SCORES_HUGE, 0, 0, 0 },
        { { 4, 1, 64 }, 4096, ALL_KEYS, 7, 4000, SCORES_NORMAL, 0, 0, 0 },
        { { 4, 1, 64 }, 4096, ALL_KEYS, 16, 4000, SCORES_EQUAL, 0, 0, 0 },
        { { 4, 1, 256 }, 1536, 1536, 1, 1300, SCORES_EQUAL, 0, 0, 0 },
        { { 2, 1, 128 }, 1152, 1024, 1, 3000, SCORES_NORMAL, 0, 0, 0 },
        // pictures: in the middle, at both ends, longer than the window, over the end of the ring
        { { 4, 1, 256 }, 1024, 512, 300, 900, SCORES_NORMAL, 20, 256, 0 },
        { { 8, 4, 256 }, 256, 64, 100, 0, SCORES_NORMAL, 0, 49, 0 },
        { { 2, 2, 64 }, 256, 16, 130, 200, SCORES_HUGE, 30, 100, 0 },
        { { 2, 2, 64 }, 192, 1, 40, 170, SCORES_NORMAL, 3, 36, 0 },
        { { 4, 2, 80 }, 256, ALL_KEYS, 37, 200, SCORES_EQUAL, 30, 7, 0 },
        { { 4, 1, 64 }, 4096, ALL_KEYS, 8, 4000, SCORES_NORMAL, 2, 4, 0 },
    };
    const bool tiles = run->gpu->attention_tiles;
    for (uint32_t i = 0; i < KV_TYPES * sizeof cases / sizeof *cases; i++) {
        heads_case p = cases[i / KV_TYPES];
        p.kv = i % KV_TYPES;
        run->gpu->attention_tiles = false;
        if (!run->matrices && (!run->quick || i % 3 == 0))
            attention_case(run, &p);
        run->gpu->attention_tiles = run->gpu->has_attention_tiles;
        // a CPU driver compiles these for seconds: quickly, small heads (and one that takes
        // K and V in two turns), and a type in each mode
        const bool small = p.shape.head <= (run->gpu->address ? 128 : 80) && p.shape.head != 96 &&
                           p.kv == (run->gpu->address ? KV_Q8 : KV_F16);
        if (attention_in_tiles(run->gpu, p.rows) && (small || !run->quick)) {
            attention_case(run, &p);
            run->gpu->attention_nv = run->gpu->has_attention_nv;
            if (run->gpu->attention_nv && (!run->quick || p.shape.heads <= 4))
                attention_case(run, &p);
            run->gpu->attention_nv = false;
        }
    }
    run->gpu->attention_tiles = tiles;
}

// Keys are split as for a GPU of many compute units: more splits than a CPU takes.
static void many_splits_cases(ops_run *run)
{
    static const heads_case cases[] = {
        { { 4, 1, 64 }, 4096, ALL_KEYS, 1, 130, SCORES_NORMAL, 0, 0, KV_F16 },
        { { 4, 1, 64 }, 4096, ALL_KEYS, 7, 4000, SCORES_NORMAL, 0, 0, KV_Q8 },
        { { 4, 1, 256 }, 1024, 512, 2, 1500, SCORES_HUGE, 0, 0, KV_F16 },
    };
    kim_device_info *info = &run->gpu->info, kept = *info;
    info->type = KIM_DEVICE_DISCRETE;
    info->compute_units = 40;
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++)
        attention_case(run, &cases[i]);
    *info = kept;
}

// --------------------------------------------------------------------------------------- rope

typedef struct rope_tensors {
    span qkv, w_q, w_k, rotation, control;
    kv_cache cache;
    float *before; // qkv as it was
} rope_tensors;

static const double rope_eps = 1e-6, rope_scale = 0.0625;

static double largest_of(const double *x, uint32_t n)
{
    double largest = 0;
    for (uint32_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(x[i]));
    return largest;
}

static void check_rope_head(ops_case *c, const heads_case *p, const rope_tensors *t, uint32_t row,
                            uint32_t head)
{
    const head_shape *s = &p->shape;
    const reference_heads h = heads_of(p);
    const uint64_t at = (uint64_t)row * qkv_width(s) + head * s->head;
    const float *after = (const float *)case_data(&t->qkv) + at;
    const bool is_q = head < s->heads, is_v = head >= s->heads + s->kv_heads;
    const uint32_t kv_head = is_v ? head - s->heads - s->kv_heads : head - s->heads;
    const span *cache = is_v ? &t->cache.v : &t->cache.k;
    double x[256], largest = 0;
    for (uint32_t d = 0; d < s->head; d++)
        x[d] = t->before[at + d];
    if (!is_v) {
        reference_norm(x, x, case_data(is_q ? &t->w_q : &t->w_k), s->head, rope_eps);
        largest = largest_of(x, s->head);
        reference_rotate(x, s->head, p->position + row, 1e6, 8);
    }
    for (uint32_t d = 0; d < s->head; d++) {
        // the norm, and two turns by rounded cosines: 16 * 2^-24 of the pair
        const double error = ldexp(16, -24) * largest;
        if (is_q) {
            case_check(c, "q", at + d, after[d], x[d] * rope_scale, error * rope_scale);
            continue;
        }
        case_check(c, "qkv", at + d, after[d], t->before[at + d], 0);
        const uint64_t in_cache = is_v ? reference_v_at(&h, kv_head, p->position + row, d)
                                       : reference_k_at(&h, kv_head, p->position + row, d);
        const double stored = reference_cached(
            &h, case_data(cache), in_cache, reference_scale_at(&h, kv_head, p->position + row, d));
        case_check(c, is_v ? "v" : "k", at + d, stored, x[d],
                   2 * error + reference_cache_tolerance(&h, x, d));
    }
}

// Of the positions of other rows nothing is written.
static void check_untouched(ops_case *c, const heads_case *p, const rope_tensors *t)
{
    const reference_heads h = heads_of(p);
    const uint32_t others[2] = { p->position + p->rows, p->position + p->cache_rows };
    const uint64_t k = reference_written(&h, case_data(&t->cache.k), false, others),
                   v = reference_written(&h, case_data(&t->cache.v), true, others);
    case_check(c, "elements of other positions written", 0, (double)(k + v), 0, 0);
}

static void place_rope(ops_case *c, const heads_case *p, rope_tensors *t, uint64_t control_words)
{
    const head_shape *s = &p->shape;
    t->qkv = case_place_floats(c, (uint64_t)p->rows * qkv_width(s));
    t->w_q = case_place_floats(c, s->head);
    t->w_k = case_place_floats(c, s->head);
    t->rotation = case_place_floats(c, (uint64_t)rope_table_rows(p->position + p->rows) * s->head);
    t->control = case_place_floats(c, control_words);
    t->cache = place_cache(c, p);
}

static void fill_rope(const heads_case *p, rope_tensors *t, double scale)
{
    const head_shape *s = &p->shape;
    const uint64_t n = (uint64_t)p->rows * qkv_width(s);
    ops_fill_normal(case_data(&t->qkv), n, scale);
    ops_fill_normal(case_data(&t->w_q), s->head, 1);
    ops_fill_normal(case_data(&t->w_k), s->head, 1);
    rope_table_fill(case_data(&t->rotation), p->position + p->rows, s->head, 1e6, 8);
    ((uint32_t *)case_data(&t->control))[CONTROL_POSITION] = p->position;
}

static rope_params rope_params_of(const heads_case *p, const rope_tensors *t)
{
    return (rope_params){
        .qkv = &t->qkv,
        .w_q = &t->w_q,
        .w_k = &t->w_k,
        .rotation = &t->rotation,
        .control = &t->control,
        .cache = &t->cache,
        .shape = p->shape,
        .rows = p->rows,
        .eps = (float)rope_eps,
        .q_scale = (float)rope_scale,
    };
}

static void rope_case(ops_run *run, const heads_case *p)
{
    ops_case c;
    rope_tensors t;
    const head_shape *s = &p->shape;
    case_begin(&c, run, "rope %s %u:%u heads of %u, %u rows at %u of %u", kv_names[p->kv], s->heads,
               s->kv_heads, s->head, p->rows, p->position, p->cache_rows);
    place_rope(&c, p, &t, CONTROL_ROWS);
    case_commit(&c);
    fill_rope(p, &t, 40);
    float *qkv = case_data(&t.qkv);
    memset(qkv, 0, s->head * sizeof(float)); // a head of zeros, and one of zeros but for one block
    memset(qkv + (uint64_t)qkv_width(s) - s->head, 0, (s->head - 32) * sizeof(float));
    t.before = malloc(t.qkv.bytes);
    memcpy(t.before, case_data(&t.qkv), t.qkv.bytes);
    const rope_params params = rope_params_of(p, &t);
    MUST(op_rope(run->st, &params));
    case_run(&c);
    for (uint32_t r = 0; r < p->rows; r++)
        for (uint32_t head = 0; head < s->heads + 2 * s->kv_heads; head++)
            check_rope_head(&c, p, &t, r, head);
    check_untouched(&c, p, &t);
    case_end(&c);
    free(t.before);
}

static void rope_cases(ops_run *run)
{
    static const heads_case cases[] = {
        { .shape = { 4, 1, 256 }, .cache_rows = 128, .rows = 1, .position = 0 },
        { .shape = { 4, 1, 256 }, .cache_rows = 128, .rows = 37, .position = 250 },
        { .shape = { 2, 2, 64 }, .cache_rows = 192, .rows = 130, .position = 1000 },
        { .shape = { 4, 2, 80 }, .cache_rows = 128, .rows = 2, .position = 511 },
        { .shape = { 6, 2, 96 }, .cache_rows = 128, .rows = 3, .position = 131070 },
        { .shape = { 8, 2, 128 }, .cache_rows = 128, .rows = 7, .position = 32760 },
        { .shape = { 32, 1, 64 }, .cache_rows = 64, .rows = 2, .position = 63 },
    };
    for (uint32_t i = 0; i < KV_TYPES * sizeof cases / sizeof *cases; i++) {
        heads_case p = cases[i / KV_TYPES];
        p.kv = i % KV_TYPES;
        rope_case(run, &p);
    }
}

// ------------------------------------------------------------------------- rope and attention

// q as rope leaves it, in double precision
static void turned_query(const heads_case *p, const rope_tensors *t, uint32_t head, double *q)
{
    const uint32_t n = p->shape.head;
    for (uint32_t d = 0; d < n; d++)
        q[d] = t->before[head * n + d];
    reference_norm(q, q, case_data(&t->w_q), n, rope_eps);
    reference_rotate(q, n, p->position, 1e6, 8);
    for (uint32_t d = 0; d < n; d++)
        q[d] *= rope_scale;
}

// y follows from what the cache holds now, which is checked apart. To check_row's error of a score
// comes that of q, 16 * 2^-24 of its largest element for each.
static void check_attended(ops_case *c, const heads_case *p, const rope_tensors *t, const float *y)
{
    const reference_heads h = heads_of(p);
    uint32_t keys[2];
    keys_seen(p, 0, keys);
    for (uint32_t i = 0; i < h.heads; i++) {
        double q[256], want[256], spread, largest = 0;
        float rounded[256];
        turned_query(p, t, i, q);
        for (uint32_t d = 0; d < h.head; d++) {
            rounded[d] = (float)q[d];
            largest = fmax(largest, fabs(q[d]));
        }
        MUST(reference_attention(&h, rounded, case_data(&t->cache.k), case_data(&t->cache.v),
                                 i / (h.heads / h.kv_heads), keys, want, &spread));
        const double of_score = ldexp(8, -24) * spread + ldexp(16, -24) * largest * 4 * h.head;
        for (uint32_t d = 0; d < h.head; d++)
            case_check(c, "y", i * h.head + d, y[i * h.head + d], want[d],
                       4 * fmin(1, of_score) + ldexp(128, -24));
    }
}

static void attention_rope_case(ops_run *run, const heads_case *p)
{
    ops_case c;
    rope_tensors t;
    const head_shape *s = &p->shape;
    case_begin(&c, run, "attention with rope %s %u:%u heads of %u, window %d of %u, at %u",
               kv_names[p->kv], s->heads, s->kv_heads, s->head, (int)p->window, p->cache_rows,
               p->position);
    place_rope(&c, p, &t, CONTROL_ROW(1, 0));
    const span partial = case_place(&c, attention_partial_bytes(s, p->cache_rows, 1));
    const span y = case_place_floats(&c, (uint64_t)s->heads * s->head);
    case_commit(&c);
    fill_rope(p, &t, 0.7);
    fill_control(p, case_data(&t.control));
    // the past; of the newest position, what the ring held before
    const heads_case past = { .shape = *s,
                              .cache_rows = p->cache_rows,
                              .window = p->window,
                              .position = p->position,
                              .rows = 1,
                              .kv = p->kv };
    fill_cache(&past, &t.cache);
    t.before = malloc(t.qkv.bytes);
    memcpy(t.before, case_data(&t.qkv), t.qkv.bytes);
    const rope_params rope = rope_params_of(p, &t);
    MUST(op_attention_rope(run->st,
                           &(attention_params){
                               .qkv = &t.qkv,
                               .control = &t.control,
                               .cache = &t.cache,
                               .partial = &partial,
                               .y = &y,
                               .shape = *s,
                               .rows = 1,
                           },
                           &rope));
    case_run(&c);
    for (uint32_t head = s->heads; head < s->heads + 2 * s->kv_heads; head++)
        check_rope_head(&c, p, &t, 0, head);
    check_attended(&c, p, &t, case_data(&y));
    case_end(&c);
    free(t.before);
}

static void attention_rope_cases(ops_run *run)
{
    static const heads_case cases[] = {
        { .shape = { 4, 1, 256 }, .cache_rows = 1024, .window = 512, .position = 0 },
        { .shape = { 4, 1, 256 }, .cache_rows = 1024, .window = 512, .position = 1023 },
        { .shape = { 4, 1, 256 }, .cache_rows = 1024, .window = 512, .position = 5056 },
        { .shape = { 2, 2, 64 }, .cache_rows = 192, .window = 1, .position = 300 },
        { .shape = { 2, 2, 64 }, .cache_rows = 256, .window = 64, .position = 63 },
        { .shape = { 4, 2, 80 }, .cache_rows = 256, .window = 100, .position = 200 },
        { .shape = { 6, 2, 96 }, .cache_rows = 256, .window = 100, .position = 64 },
        { .shape = { 8, 2, 128 }, .cache_rows = 256, .window = 100, .position = 320 },
        { .shape = { 32, 1, 64 }, .cache_rows = 256, .window = 100, .position = 300 },
        // all positions, split: one key, fewer keys than splits, the newest alone in its split
        { .shape = { 4, 1, 64 }, .cache_rows = 4096, .window = ALL_KEYS, .position = 0 },
        { .shape = { 4, 1, 64 }, .cache_rows = 4096, .window = ALL_KEYS, .position = 128 },
        { .shape = { 4, 1, 256 }, .cache_rows = 4096, .window = ALL_KEYS, .position = 4032 },
        { .shape = { 2, 1, 128 }, .cache_rows = 1152, .window = 1024, .position = 3000 },
    };
    for (uint32_t i = 0; i < KV_TYPES * sizeof cases / sizeof *cases; i++) {
        heads_case p = cases[i / KV_TYPES];
        p.rows = 1;
        p.kv = i % KV_TYPES;
        if (!run->quick || i % 3 == 0)
            attention_rope_case(run, &p);
        run->gpu->attention_quads = run->gpu->has_attention_quads;
        const bool slow = run->again && p.shape.head > 80;    // lavapipe, up to a minute
        if (run->gpu->attention_quads && !slow && i % 3 == 1) // CPU drivers take seconds for one
            attention_rope_case(run, &p);
        run->gpu->attention_quads = false;
    }
}

void cases_attention(ops_run *run)
{
    attention_cases(run);
    if (run->matrices)
        return;
    many_splits_cases(run);
    rope_cases(run);
    attention_rope_cases(run);
}
