// SPDX-License-Identifier: MIT
// Kernels of a text layer's heads: rope, attention, and both in one.
#include "kernel_parts.h"

#include "reference_dequant.h"
#include "reference_ops.h"

#include <math.h>
#include <string.h>

#define MOST_PRODUCTS (16u << 20) // of a query and a key, that a check makes
#define LEAST_HEADS 8             // that it looks at
#define MOST_ROWS 32              // of rope, that it looks at
#define EPS 1e-6
#define Q_SCALE 0.0625
#define BASE 1e6
#define FACTOR 8
#define RANDOM_HALVES 8191 // a prime

enum { QKV, CONTROL, K, V, PARTIAL, Y, W_Q, W_K, ROTATION };

static uint32_t qkv_width(const kernel *k)
{
    return (k->p.heads.heads + 2 * k->p.heads.kv_heads) * k->p.heads.head;
}

static reference_heads shape_of(const kernel *k)
{
    return (reference_heads){
        .heads = k->p.heads.heads,
        .kv_heads = k->p.heads.kv_heads,
        .head = k->p.heads.head,
        .cache_rows = k->p.cache_rows,
        .window = k->p.window,
        .q8 = k->p.kv == KV_Q8,
    };
}

// The keys that a row sees, the first and the last.
static void keys_seen(const kernel *k, uint32_t row, uint32_t keys[2])
{
    keys[1] = k->p.position + row;
    keys[0] = keys[1] + 1 < k->p.window ? 0 : keys[1] + 1 - k->p.window;
}

static kim_err place_heads(kernel *k)
{
    kim_err err = KIM_OK;
    const kernel_params *p = &k->p;
    const head_shape *s = &p->heads;
    const uint64_t cache = kv_cache_bytes(p->kv, s, p->cache_rows);
    TRY(kernel_place_floats(k, (uint64_t)p->columns * qkv_width(k)));
    TRY(kernel_place_floats(k, CONTROL_ROW(p->columns, 0)));
    TRY(kernel_place(k, cache));
    TRY(kernel_place(k, cache));
    TRY(kernel_place(k, attention_partial_bytes(s, p->cache_rows, 1)));
    TRY(kernel_place_floats(k, (uint64_t)p->columns * s->heads * s->head));
    TRY(kernel_place_floats(k, s->head));
    TRY(kernel_place_floats(k, s->head));
    TRY(kernel_place_floats(k, (uint64_t)rope_table_rows(p->position + p->columns) * s->head));
error:
    return err;
}

// Bytes of a position's K and V.
static double position_bytes(const kernel *k)
{
    const head_shape *s = &k->p.heads;
    return 2.0 * s->kv_heads * (double)kv_group_bytes(k->p.kv, s->head) / KEY_GROUP;
}

static kim_err place_rope(kernel *k)
{
    const double n = (double)k->p.columns * qkv_width(k);
    k->flop = 10 * n;
    // q is read and written; k and v are read, and written to the cache
    const double q = (double)k->p.columns * k->p.heads.heads * k->p.heads.head;
    k->bytes = 8 * q + 4 * (n - q) + k->p.columns * position_bytes(k);
    return place_heads(k);
}

static kim_err place_attention(kernel *k)
{
    const kernel_params *p = &k->p;
    const head_shape *s = &p->heads;
    uint32_t first[2], last[2] = { 0 };
    double pairs = 0; // of a query and a key that it sees
    for (uint32_t r = 0; r < p->columns; r++) {
        keys_seen(k, r, last);
        pairs += last[1] - last[0] + 1;
    }
    keys_seen(k, 0, first);
    const double seen = last[1] - first[0] + 1;
    k->flop = 4 * pairs * s->heads * s->head;
    k->bytes =
        seen * position_bytes(k) + 4.0 * p->columns * (s->heads * s->head + (double)qkv_width(k));
    k->cache = K;
    k->cold_bytes = p->columns <= 8 ? (uint64_t)(seen * position_bytes(k)) : 0;
    return place_heads(k);
}

// What queries see is random; of the rest K is poison and V is zero, as ops.h wants it.
static void fill_cache(kernel *k)
{
    const reference_heads h = shape_of(k);
    void *keys = kernel_data(k, K), *values = kernel_data(k, V);
    uint16_t random[RANDOM_HALVES];
    const uint32_t at = k->p.position, seen = at + 1 < k->p.window ? at + 1 : k->p.window,
                   end = at + (k->p.op == KERNEL_ATTENTION ? k->p.columns : 0);
    uint32_t next = 0;
    for (uint32_t i = 0; i < RANDOM_HALVES; i++)
        random[i] = ops_half(ops_uniform(-2, 2));
    memset(values, 0, k->spans[V].bytes);
    for (uint32_t head = 0; head < h.kv_heads; head++)
        for (uint32_t j = at + 1 - seen; j < end; j++)
            for (uint32_t d = 0; d < h.head; d++) {
                const uint64_t scale_at = reference_scale_at(&h, head, j, d);
                reference_put_cached(&h, keys, reference_k_at(&h, head, j, d), scale_at,
                                     random[next++ % RANDOM_HALVES]);
                reference_put_cached(&h, values, reference_v_at(&h, head, j, d), scale_at,
                                     random[next++ % RANDOM_HALVES]);
            }
}

static void fill_heads(kernel *k)
{
    const kernel_params *p = &k->p;
    const double spread = p->op == KERNEL_ROPE ? 40 : p->op == KERNEL_ATTENTION ? 0.3 : 0.7;
    uint32_t *control = kernel_data(k, CONTROL);
    ops_fill_normal(kernel_data(k, QKV), (uint64_t)p->columns * qkv_width(k),
                    spread * kernel_spread(k));
    float *qkv = kernel_data(k, QKV); // so that matrices of fp16 have the same queries
    for (uint64_t i = 0; p->op == KERNEL_ATTENTION && i < k->spans[QKV].bytes / 4; i++)
        qkv[i] = ops_eleven_bits(qkv[i]);
    ops_fill_normal(kernel_data(k, W_Q), p->heads.head, 1);
    ops_fill_normal(kernel_data(k, W_K), p->heads.head, 1);
    rope_table_fill(kernel_data(k, ROTATION), p->position + p->columns, p->heads.head, BASE,
                    FACTOR);
    control[CONTROL_POSITION] = p->position;
    for (uint32_t r = 0; r < p->columns; r++)
        control[CONTROL_ROW(r, CONTROL_ROW_AHEAD)] = 0;
    if (p->op != KERNEL_ROPE)
        fill_cache(k);
}

static kv_cache cache_of(const kernel *k, uint32_t copy)
{
    return (kv_cache){
        .k = copy ? k->caches[copy][0] : k->spans[K],
        .v = copy ? k->caches[copy][1] : k->spans[V],
        .rows = k->p.cache_rows,
        .window = k->p.window,
        .type = k->p.kv,
    };
}

static rope_params rope_params_of(const kernel *k, const kv_cache *cache)
{
    return (rope_params){
        .qkv = &k->spans[QKV],
        .w_q = &k->spans[W_Q],
        .w_k = &k->spans[W_K],
        .rotation = &k->spans[ROTATION],
        .control = &k->spans[CONTROL],
        .cache = cache,
        .shape = k->p.heads,
        .rows = k->p.columns,
        .eps = (float)EPS,
        .q_scale = (float)Q_SCALE,
    };
}

static attention_params attention_params_of(const kernel *k, const kv_cache *cache)
{
    return (attention_params){
        .qkv = &k->spans[QKV],
        .control = &k->spans[CONTROL],
        .cache = cache,
        .partial = &k->spans[PARTIAL],
        .y = &k->spans[Y],
        .shape = k->p.heads,
        .rows = k->p.columns,
    };
}

static kim_err record_rope(kernel *k, uint32_t copy)
{
    const kv_cache cache = cache_of(k, copy);
    const rope_params p = rope_params_of(k, &cache);
    return op_rope(k->st, &p);
}

static kim_err record_attention(kernel *k, uint32_t copy)
{
    const kv_cache cache = cache_of(k, copy);
    const attention_params p = attention_params_of(k, &cache);
    return op_attention(k->st, &p);
}

static kim_err record_attention_rope(kernel *k, uint32_t copy)
{
    const kv_cache cache = cache_of(k, copy);
    const attention_params p = attention_params_of(k, &cache);
    const rope_params rope = rope_params_of(k, &cache);
    return op_attention_rope(k->st, &p, &rope);
}

// ---------------------------------------------------------------------------------------- rope

// A head of q or k as rope leaves it, but for the scale of q. Returns its largest element before
// the rotation.
static double turn(const kernel *k, uint32_t row, uint32_t head, double *x)
{
    const head_shape *s = &k->p.heads;
    const float *from = (const float *)kernel_before(k, QKV) + (uint64_t)row * qkv_width(k);
    double largest = 0;
    for (uint32_t d = 0; d < s->head; d++)
        x[d] = from[head * s->head + d];
    reference_norm(x, x, kernel_data(k, head < s->heads ? W_Q : W_K), s->head, EPS);
    for (uint32_t d = 0; d < s->head; d++)
        largest = fmax(largest, fabs(x[d]));
    reference_rotate(x, s->head, k->p.position + row, BASE, FACTOR);
    return largest;
}

// What is stored of a head of k or v. The norm, and two turns by rounded cosines: 16 * 2^-24 of the
// pair, and in 8 bits as much again of the largest of the block.
static void check_stored(kernel *k, uint32_t row, uint32_t head)
{
    const head_shape *s = &k->p.heads;
    const reference_heads h = shape_of(k);
    const bool is_v = head >= s->heads + s->kv_heads;
    const uint32_t kv_head = (head - s->heads) % s->kv_heads, at = k->p.position + row;
    const float *from = (const float *)kernel_before(k, QKV) + (uint64_t)row * qkv_width(k);
    double x[256];
    const double error = is_v ? 0 : ldexp(h.q8 ? 32 : 16, -24) * turn(k, row, head, x);
    for (uint32_t d = 0; d < s->head && is_v; d++)
        x[d] = from[head * s->head + d];
    for (uint32_t d = 0; d < s->head; d++) {
        const double got = reference_cached(&h, kernel_data(k, is_v ? V : K),
                                            is_v ? reference_v_at(&h, kv_head, at, d)
                                                 : reference_k_at(&h, kv_head, at, d),
                                            reference_scale_at(&h, kv_head, at, d));
        kernel_compare(k, is_v ? "v" : "k", (uint64_t)row * s->head + d, got, x[d],
                       error + reference_cache_tolerance(&h, x, d));
    }
}

static void check_query(kernel *k, uint32_t row, uint32_t head)
{
    const uint32_t n = k->p.heads.head;
    const uint64_t at = (uint64_t)row * qkv_width(k) + head * n;
    double x[256];
    const double largest = turn(k, row, head, x);
    for (uint32_t d = 0; d < n; d++)
        kernel_compare(k, "q", at + d, ((const float *)kernel_data(k, QKV))[at + d], x[d] * Q_SCALE,
                       ldexp(16, -24) * largest * Q_SCALE);
}

// Of all rows every element is written, and of other positions nothing.
static void check_written(kernel *k, uint32_t cache)
{
    const reference_heads h = shape_of(k);
    const uint32_t at = k->p.position, end = at + k->p.columns;
    const void *bytes = kernel_data(k, cache);
    const uint64_t all = (uint64_t)k->p.columns * h.kv_heads * h.head,
                   rows = reference_written(&h, bytes, cache == V, (uint32_t[]){ at, end }),
                   others = reference_written(&h, bytes, cache == V,
                                              (uint32_t[]){ end, at + k->p.cache_rows });
    kernel_compare(k, "elements written", 0, (double)rows, (double)all, 0);
    kernel_compare(k, "elements of other positions written", 0, (double)others, 0, 0);
}

static kim_err check_rope(kernel *k)
{
    const head_shape *s = &k->p.heads;
    const uint32_t rows = k->p.columns;
    for (uint32_t r = 0; r < rows; r = kernel_next(r, rows, MOST_ROWS)) {
        for (uint32_t head = 0; head < s->heads; head++)
            check_query(k, r, head);
        for (uint32_t head = s->heads; head < s->heads + 2 * s->kv_heads; head++)
            check_stored(k, r, head);
    }
    check_written(k, K);
    check_written(k, V);
    return KIM_OK;
}

static pipeline_key pipeline_of_rope(const kernel *k)
{
    return rope_pipeline(k->gpu, k->p.kv, k->p.heads.head);
}

const kernel_class kernel_rope = {
    .name = "rope",
    .place = place_rope,
    .fill = fill_heads,
    .record = record_rope,
    .check = check_rope,
    .pipeline = pipeline_of_rope,
};

// ----------------------------------------------------------------------------------- attention

static void check_finite(kernel *k)
{
    const float *y = kernel_data(k, Y);
    for (uint64_t i = 0; i < k->spans[Y].bytes / 4; i++)
        if (!(fabsf(y[i]) <= 2.01f)) // as all values are
            kernel_compare(k, "y", i, y[i], 0, 2.01);
}

// How many heads of all rows are compared.
static uint32_t heads_to_check(const kernel *k)
{
    uint32_t keys[2];
    keys_seen(k, k->p.columns - 1, keys);
    const uint32_t most = MOST_PRODUCTS / ((keys[1] - keys[0] + 1) * k->p.heads.head);
    return most > LEAST_HEADS ? most : LEAST_HEADS;
}

static kim_err check_attention(kernel *k)
{
    kim_err err = KIM_OK;
    const reference_heads h = shape_of(k);
    const uint32_t all = k->p.columns * h.heads, most = heads_to_check(k);
    const bool tiles = attention_in_tiles(k->gpu, k->p.columns);
    const float *y = kernel_data(k, Y);
    check_finite(k);
    for (uint32_t i = 0; i < all; i = kernel_next(i, all, most)) {
        const uint32_t row = i / h.heads, head = i % h.heads;
        const float *q =
            (const float *)kernel_data(k, QKV) + (uint64_t)row * qkv_width(k) + head * h.head;
        double want[256], spread;
        uint32_t keys[2];
        keys_seen(k, row, keys);
        TRY(reference_attention(&h, q, kernel_data(k, K), kernel_data(k, V),
                                head / (h.heads / h.kv_heads), keys, want, &spread));
        for (uint32_t d = 0; d < h.head; d++)
            kernel_compare(k, "y", (uint64_t)i * h.head + d, y[(uint64_t)i * h.head + d], want[d],
                           reference_attention_tolerance(spread, tiles));
    }
error:
    return err;
}

static uint32_t most_keys(const kernel *k)
{
    return k->p.window < k->p.cache_rows ? k->p.window : k->p.cache_rows;
}

static pipeline_key pipeline_of_attention(const kernel *k)
{
    const uint32_t rows_keys[2] = { k->p.columns, most_keys(k) };
    return attention_in_tiles(k->gpu, k->p.columns)
               ? attention_tile_pipeline(k->gpu, k->p.kv, &k->p.heads)
               : attention_pipeline(k->gpu, k->p.kv, &k->p.heads, rows_keys, false);
}

const kernel_class kernel_attention = {
    .name = "attention",
    .place = place_attention,
    .fill = fill_heads,
    .record = record_attention,
    .check = check_attention,
    .pipeline = pipeline_of_attention,
};

// y follows from what the cache holds now, which is checked apart. To a score's error comes that of
// q, 16 * 2^-24 of its largest element for each.
static kim_err check_attention_rope(kernel *k)
{
    kim_err err = KIM_OK;
    const reference_heads h = shape_of(k);
    const uint32_t most = heads_to_check(k);
    const float *y = kernel_data(k, Y);
    uint32_t keys[2];
    keys_seen(k, 0, keys);
    check_finite(k);
    for (uint32_t head = h.heads; head < h.heads + 2 * h.kv_heads; head++)
        check_stored(k, 0, head);
    for (uint32_t head = 0; head < h.heads; head = kernel_next(head, h.heads, most)) {
        double q[256], want[256], spread;
        float rounded[256];
        const double largest = Q_SCALE * turn(k, 0, head, q);
        for (uint32_t d = 0; d < h.head; d++)
            rounded[d] = (float)(q[d] * Q_SCALE);
        TRY(reference_attention(&h, rounded, kernel_data(k, K), kernel_data(k, V),
                                head / (h.heads / h.kv_heads), keys, want, &spread));
        // a pair's length is at most sqrt(2) of its largest
        const double of_q = ldexp(16, -24) * 1.5 * largest * 4 * h.head;
        for (uint32_t d = 0; d < h.head; d++)
            kernel_compare(k, "y", head * h.head + d, y[head * h.head + d], want[d],
                           reference_attention_tolerance(spread, false) + 4 * fmin(1, of_q));
    }
error:
    return err;
}

static pipeline_key pipeline_of_attention_rope(const kernel *k)
{
    const uint32_t rows_keys[2] = { 1, most_keys(k) };
    return attention_pipeline(k->gpu, k->p.kv, &k->p.heads, rows_keys, true);
}

const kernel_class kernel_attention_rope = {
    .name = "attention_rope",
    .place = place_attention,
    .fill = fill_heads,
    .record = record_attention_rope,
    .check = check_attention_rope,
    .pipeline = pipeline_of_attention_rope,
};
