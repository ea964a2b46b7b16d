// SPDX-License-Identifier: MIT
// Operations: one launch function each. They add dispatches to a stream and own nothing.
#include "ops.h"

#include "ops_pipelines.h"

#include <assert.h>
#include <math.h>

// ------------------------------------------------------------------------------------ matmul

// Where the parts of a product write, and their share of the bias.
static uint64_t part_offset(const linear *w, const linear_part *part)
{
    return (uint64_t)(w->paired ? part->first / 2 : part->first) * 4;
}

static uint32_t product_width(const linear *w)
{
    return w->paired ? w->rows / 2 : w->rows;
}

// The columns of x that a product reads, and those of y that it makes: bytes.
static uint64_t read_bytes(const matmul_params *p)
{
    return 4ull * p->columns * p->w->width;
}

static span_use use_of_y(const matmul_params *p, const linear_part *part, const span *y)
{
    const uint64_t bytes = 4ull * p->columns * (p->w->paired ? part->rows / 2 : part->rows);
    return p->add ? CHANGES(*y, bytes) : WRITES_SOME(*y, bytes);
}

static dispatch_note matmul_note(const char *name, const matmul_params *p, const linear_part *part)
{
    return (dispatch_note){
        .op = { .name = name,
                .type = part->type->name,
                .sizes = { { "m", part->rows }, { "k", p->w->width }, { "n", p->columns } } },
        .flop = 2.0 * part->rows * p->w->width * p->columns,
    };
}

// norm, counter: NULL, or what follows in the same dispatch
static kim_err matmul_few(stream *st, const matmul_params *p, const linear_part *part,
                          const norm_params *norm, const span *counter)
{
    const linear *w = p->w;
    const uint32_t flags = matmul_flags(p, part) | (norm ? MATMUL_NORM : 0);
    assert(!w->paired || !(flags & ~(uint32_t)MATMUL_TAIL));
    const pipeline_key key = matmul_pipeline(stream_gpu(st), part, w->paired, p->columns, flags);
    const uint64_t y_offset = part_offset(w, part);
    const span y_part = span_part(p->y, y_offset, p->y->bytes - y_offset);
    const uint32_t at_once = key.constants[MATMUL_COLUMNS];
    const uint32_t columns =
        p->columns < MATMUL_SPAN ? divide_up(p->columns, at_once) * at_once : MATMUL_SPAN;
    struct matmul_args args = {
        .x = span_handle(p->x),
        .w = span_handle(&part->w),
        .y = handle_part(st, p->y, y_offset),
        .bias = p->bias ? handle_part(st, p->bias, part->first * 4ull) : 0,
        .rows = part->rows,
        .blocks = part->blocks,
        .columns = p->columns,
        .x_stride = p->x_width,
        .y_stride = product_width(w),
    };
    span_use accesses[8] = { READS_SOME(*p->x, read_bytes(p)), READS(part->w),
                             use_of_y(p, part, &y_part) };
    uint32_t n = 3;
    if (p->bias)
        accesses[n++] = READS_SOME(*p->bias, 4ull * part->rows);
    if (norm) {
        const uint64_t row = 4ull * norm->width;
        args.eps = norm->eps;
        args.residual = span_handle(norm->x);
        args.w_post = span_handle(norm->w_post);
        args.w_norm = span_handle(norm->w);
        args.h = span_handle(norm->h);
        args.counter = span_handle(counter);
        accesses[n++] = CHANGES(*norm->x, row);
        accesses[n++] = READS(*norm->w_post);
        accesses[n++] = READS(*norm->w);
        accesses[n++] = WRITES_SOME(*norm->h, row);
        accesses[n++] = CHANGES(*counter, 4);
    }
    const dispatch d = {
        .key = key,
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { columns / key.constants[MATMUL_COLUMNS],
                    divide_up(part->rows, WEIGHT_GROUP * key.constants[MATMUL_GROUPS] *
                                              key.constants[MATMUL_SETS]),
                    divide_up(p->columns, MATMUL_SPAN) },
        .work = 2.0 * part->rows * w->width * p->columns,
        .accesses = accesses,
        .n_accesses = n,
        .joined = part != w->parts,
        .note = matmul_note(norm ? "matmul+norms" : "matmul", p, part),
    };
    return stream_dispatch(st, &d);
}

// Where the scales of packed columns stand: after the columns, in fp16 or in int8.
static uint64_t packed_scales(const matmul_params *p, matmul_way way)
{
    return (uint64_t)divide_up(p->w->width, 32) * 32 * p->columns * (way == MATMUL_HALF ? 2 : 1);
}

static uint64_t packed_bytes(const matmul_params *p, matmul_way way)
{
    const uint64_t scales = way == MATMUL_HALF ? 1 : divide_up(p->w->width, 32); // of a column
    return packed_scales(p, way) + 4 * scales * p->columns;
}

static kim_err pack(stream *st, const matmul_params *p, matmul_way way)
{
    const uint32_t blocks = divide_up(p->w->width, 32);
    const pipeline_key key = pack_pipeline(stream_gpu(st), way);
    const struct pack_args args = {
        .x = span_handle(p->x),
        .to = span_handle(p->packed),
        .scales = handle_part(st, p->packed, packed_scales(p, way)),
        .columns = p->columns,
        .width = p->w->width,
        .x_stride = p->x_width,
    };
    const span_use accesses[] = { READS_SOME(*p->x, read_bytes(p)),
                                  WRITES_SOME(*p->packed, packed_bytes(p, way)) };
    const dispatch d = {
        .key = key,
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { way == MATMUL_HALF ? p->columns : divide_up(p->columns, key.constants[0]),
                    way == MATMUL_HALF ? 1 : blocks, 1 },
        .work = 2.0 * p->w->width * p->columns,
        .accesses = accesses,
        .n_accesses = 2,
        .note = { .op = { "pack",
                          way == MATMUL_HALF ? "f16" : "int8",
                          { { "k", p->w->width }, { "n", p->columns } } },
                  .flop = 2.0 * p->w->width * p->columns },
    };
    return stream_dispatch(st, &d);
}

static const char *const matmul_tile_names[MATMUL_WAYS] = {
    [MATMUL_FLOAT] = "matmul tiles float",
    [MATMUL_DOT] = "matmul tiles dot",
    [MATMUL_HALF] = "matmul matrices half",
    [MATMUL_INT8] = "matmul matrices int8",
};

// joined: as in dispatch
static kim_err matmul_tiles(stream *st, const matmul_params *p, const linear_part *part,
                            matmul_way way, bool joined)
{
    const linear *w = p->w;
    const bool packed = matmul_way_packs(way);
    const span *x = packed ? p->packed : p->x;
    const uint32_t flags = matmul_flags(p, part);
    assert(!w->paired || !(flags & ~(uint32_t)MATMUL_TAIL));
    const pipeline_key key =
        matmul_tile_pipeline(stream_gpu(st), way, part->type, flags | (w->paired ? MATMUL_GLU : 0));
    const uint64_t y_offset = part_offset(w, part);
    const span y_part = span_part(p->y, y_offset, p->y->bytes - y_offset);
    const struct matmul_tile_args args = {
        .x = span_handle(x),
        .x_scales = packed ? handle_part(st, x, packed_scales(p, way)) : 0,
        .w = span_handle(&part->w),
        .y = handle_part(st, p->y, y_offset),
        .bias = p->bias ? handle_part(st, p->bias, part->first * 4ull) : 0,
        .rows = part->rows,
        .blocks = part->blocks,
        .columns = p->columns,
        .x_stride = p->x_width,
        .y_stride = product_width(w),
    };
    const span_use accesses[] = {
        READS_SOME(*x, packed ? packed_bytes(p, way) : read_bytes(p)),
        READS(part->w),
        use_of_y(p, part, &y_part),
        READS_SOME(p->bias ? *p->bias : *x, 4ull * part->rows),
    };
    const dispatch d = {
        .key = key,
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { divide_up(part->rows, key.constants[TILE_ROWS]),
                    divide_up(p->columns, key.constants[TILE_COLUMNS]), 1 },
        .work = 2.0 * part->rows * w->width * p->columns,
        .accesses = accesses,
        .n_accesses = p->bias ? 4 : 3,
        .joined = joined,
        .note = matmul_note(matmul_tile_names[way], p, part),
    };
    return stream_dispatch(st, &d);
}

kim_err op_matmul(stream *st, const matmul_params *p)
{
    kim_err err = KIM_OK;
    matmul_way packed = MATMUL_FEW;
    assert(p->x_width >= p->w->width && p->x_width % 4 == 0);
    for (uint32_t i = 0; i < p->w->n_parts; i++) {
        const linear_part *part = &p->w->parts[i];
        const matmul_way way =
            matmul_way_of(stream_gpu(st), part->type, p->columns, p->packed != NULL);
        if (way == MATMUL_FEW) {
            TRY(matmul_few(st, p, part, NULL, NULL));
            continue;
        }
        const bool again = matmul_way_packs(way) && way != packed; // parts may go different ways
        if (again)
            TRY(pack(st, p, packed = way));
        TRY(matmul_tiles(st, p, part, way, i > 0 && !again));
    }
error:
    return err;
}

kim_err op_matmul_norm(stream *st, const matmul_params *p, const norm_params *norm,
                       const span *counter)
{
    kim_err err = KIM_OK;
    assert(norm->o == p->y && norm->rows == p->columns && norm->width == p->w->rows);
    if (p->columns == 1 && p->w->n_parts == 1 && !p->bias)
        return matmul_few(st, p, p->w->parts, norm, counter);
    TRY(op_matmul(st, p));
    TRY(op_norm(st, norm));
error:
    return err;
}

kim_err op_embed(stream *st, const embed_params *p)
{
    kim_err err = KIM_OK;
    const linear *w = p->w;
    const uint64_t rows = 4ull * p->columns * w->width;
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const linear_part *part = &w->parts[i];
        const struct embed_args args = {
            .w = span_handle(&part->w),
            .control = span_handle(p->control),
            .soft = p->soft ? span_handle(p->soft) : 0,
            .y = span_handle(p->y),
            .first = part->first,
            .rows = part->rows,
            .blocks = part->blocks,
            .width = w->width,
            .scale = p->scale,
        };
        const uint64_t row_bytes = weight_row_bytes(part->type, w->width);
        const span_use accesses[] = {
            // which part has the rows is not known: as if all had as many; no row is soft
            READS_SOME(part->w, row_bytes * p->columns / w->n_parts),
            READS_SOME(*p->control, 8ull * p->columns),
            WRITES_SOME(*p->y, rows / w->n_parts),
            READS_SOME(p->soft ? *p->soft : *p->control, 0),
        };
        const dispatch d = {
            .key = embed_pipeline(stream_gpu(st), part->type),
            .args = &args,
            .args_bytes = sizeof args,
            .groups = { p->columns, 1, 1 },
            .work = (double)p->columns * w->width,
            .accesses = accesses,
            .n_accesses = 4,
            .joined = i > 0,
            .note = { .op = { "embed",
                              part->type->name,
                              { { "width", w->width }, { "rows", p->columns } } },
                      .flop = (double)p->columns * w->width / w->n_parts },
        };
        TRY(stream_dispatch(st, &d));
    }
error:
    return err;
}

// -------------------------------------------------------------------------------------- norm

kim_err op_norm(stream *st, const norm_params *p)
{
    const struct norm_args args = {
        .o = p->o ? span_handle(p->o) : 0,
        .w_post = p->o ? span_handle(p->w_post) : 0,
        .x = span_handle(p->x),
        .w = span_handle(p->w),
        .h = span_handle(p->h),
        .width = p->width,
        .eps = p->eps,
    };
    const uint64_t rows = 4ull * p->rows * p->width;
    span_use accesses[5] = { READS(*p->w), WRITES_SOME(*p->h, rows), READS_SOME(*p->x, rows) };
    uint32_t n = 3;
    if (p->o) {
        accesses[2] = CHANGES(*p->x, rows);
        accesses[n++] = READS_SOME(*p->o, rows);
        accesses[n++] = READS(*p->w_post);
    }
    const dispatch d = {
        .key = norm_pipeline(stream_gpu(st), p->o != NULL),
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { p->rows, 1, 1 },
        .work = 10.0 * p->rows * p->width,
        .accesses = accesses,
        .n_accesses = n,
        .note = { .op = { p->o ? "norm+add+norm" : "norm",
                          NULL,
                          { { "width", p->width }, { "rows", p->rows } } },
                  .flop = (p->o ? 9.0 : 4.0) * p->rows * p->width },
    };
    return stream_dispatch(st, &d);
}

kim_err op_layer_norm(stream *st, const layer_norm_params *p)
{
    const struct layer_norm_args args = {
        .x = span_handle(p->x),
        .w = span_handle(p->w),
        .b = span_handle(p->b),
        .y = span_handle(p->y),
        .width = p->width,
        .eps = p->eps,
    };
    const uint64_t rows = 4ull * p->rows * p->width;
    const span_use accesses[] = { READS_SOME(*p->x, rows), READS(*p->w), READS(*p->b),
                                  WRITES_SOME(*p->y, rows) };
    const dispatch d = {
        .key = layer_norm_pipeline(stream_gpu(st)),
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { p->rows, 1, 1 },
        .work = 10.0 * p->rows * p->width,
        .accesses = accesses,
        .n_accesses = 4,
        .note = { .op = { "layer norm", NULL, { { "width", p->width }, { "rows", p->rows } } },
                  .flop = 7.0 * p->rows * p->width },
    };
    return stream_dispatch(st, &d);
}

// ---------------------------------------------------------------------------------- attention

uint32_t rope_table_rows(uint32_t context)
{
    return ROPE_LOW + divide_up(context, ROPE_LOW);
}

void rope_table_fill(float *table, uint32_t context, uint32_t head, double base, double factor)
{
    const uint32_t rows = rope_table_rows(context);
    for (uint32_t j = 0; j < head / 2; j++) {
        // The frequency is rounded to fp32 as in the reference implementations; angles are not.
        const double frequency = (float)(1.0 / (float)pow(base, 2.0 * j / head)) / factor;
        for (uint32_t r = 0; r < rows; r++) {
            const double position = r < ROPE_LOW ? r : (double)(r - ROPE_LOW) * ROPE_LOW;
            float *pair = &table[((size_t)r * (head / 2) + j) * 2];
            pair[0] = (float)cos(position * frequency);
            pair[1] = (float)sin(position * frequency);
        }
    }
}

uint64_t kv_group_bytes(kv_type type, uint32_t head)
{
    return KEY_GROUP * (type == KV_Q8 ? head + 4ull * divide_up(head, KV_BLOCK) : 2ull * head);
}

// Of K, or of V, of all kv heads.
static uint64_t kv_position_bytes(kv_type type, const head_shape *shape)
{
    return kv_group_bytes(type, shape->head) / KEY_GROUP * shape->kv_heads;
}

uint64_t kv_cache_bytes(kv_type type, const head_shape *shape, uint32_t rows)
{
    return kv_group_bytes(type, shape->head) * (rows / KEY_GROUP) * shape->kv_heads;
}

kim_err op_rope(stream *st, const rope_params *p)
{
    const head_shape *s = &p->shape;
    const struct rope_args args = {
        .qkv = span_handle(p->qkv),
        .w_q = span_handle(p->w_q),
        .w_k = span_handle(p->w_k),
        .rotation = span_handle(p->rotation),
        .k_cache = span_handle(&p->cache->k),
        .v_cache = span_handle(&p->cache->v),
        .control = span_handle(p->control),
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .cache_rows = p->cache->rows,
        .eps = p->eps,
        .q_scale = p->q_scale,
    };
    const uint64_t row = 4ull * p->rows * s->head;
    const uint64_t stored = p->rows * kv_position_bytes(p->cache->type, s);
    const span_use accesses[] = {
        { .span = *p->qkv,
          .write = true,
          .read = row * (s->heads + 2 * s->kv_heads),
          .written = row * s->heads },
        READS(*p->w_q),
        READS(*p->w_k),
        READS_SOME(*p->rotation, 2 * row),
        READS_SOME(*p->control, 8ull * p->rows),
        WRITES_SOME(p->cache->k, stored),
        WRITES_SOME(p->cache->v, stored),
    };
    const dispatch d = {
        .key = rope_pipeline(stream_gpu(st), p->cache->type, s->head),
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { s->heads + 2 * s->kv_heads, p->rows, 1 },
        .work = 10.0 * p->rows * (s->heads + 2 * s->kv_heads) * s->head,
        .accesses = accesses,
        .n_accesses = 7,
        .note = { .op = { "rope+store",
                          NULL,
                          { { "heads", s->heads },
                            { "kv", s->kv_heads },
                            { "head", s->head },
                            { "rows", p->rows } } },
                  .flop = 7.0 * p->rows * (s->heads + s->kv_heads) * s->head },
    };
    return stream_dispatch(st, &d);
}

static uint32_t keys_seen(const kv_cache *c)
{
    return c->window < c->rows ? c->window : c->rows;
}

uint64_t attention_partial_bytes(const head_shape *s, uint32_t cache_rows, uint32_t sessions)
{
    const uint64_t rows = sessions > SPLIT_ROWS ? sessions : SPLIT_ROWS;
    return rows * s->heads * attention_most_splits(cache_rows) * (s->head + 2) * 4;
}

// Joins the splits.
static kim_err combine(stream *st, const attention_params *p, uint32_t splits)
{
    const head_shape *s = &p->shape;
    const struct combine_args args = {
        .partial = span_handle(p->partial),
        .y = span_handle(p->y),
        .splits = splits,
    };
    const uint64_t values = 4ull * p->rows * s->heads;
    const span_use accesses[] = { READS_SOME(*p->partial, values * (s->head + 2) * splits),
                                  WRITES_SOME(*p->y, values * s->head) };
    const dispatch d = {
        .key = combine_pipeline(stream_gpu(st), s->head),
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { p->rows * s->heads, 1, 1 },
        .work = 2.0 * p->rows * s->heads * s->head * splits,
        .accesses = accesses,
        .n_accesses = 2,
        .note = { .op = { "combine",
                          NULL,
                          { { "heads", s->heads },
                            { "head", s->head },
                            { "splits", splits },
                            { "rows", p->rows } } },
                  .flop = 2.0 * p->rows * s->heads * s->head * splits },
    };
    return stream_dispatch(st, &d);
}

// rope: NULL, or what is done before
// splits: set to those that are left in p->partial, to be joined if there are more than one
static kim_err attention(stream *st, const attention_params *p, const rope_params *rope,
                         uint32_t *splits)
{
    const head_shape *s = &p->shape;
    const uint32_t keys = keys_seen(p->cache);
    const bool tiles = attention_in_tiles(stream_gpu(st), p->rows);
    const pipeline_key key =
        tiles ? attention_tile_pipeline(stream_gpu(st), p->cache->type, s)
              : attention_pipeline(stream_gpu(st), p->cache->type, s,
                                   (const uint32_t[2]){ p->rows, keys }, rope != NULL);
    const uint32_t group = key.constants[ATTENTION_GROUP];
    *splits = tiles ? 1 : key.constants[ATTENTION_SPLITS];
    const span *to = *splits > 1 ? p->partial : p->y;
    const struct attention_args args = {
        .qkv = span_handle(p->qkv),
        .k_cache = span_handle(&p->cache->k),
        .v_cache = span_handle(&p->cache->v),
        .y = span_handle(to),
        .control = span_handle(p->control),
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .rows = p->rows,
        .cache_rows = p->cache->rows,
        .window = p->cache->window,
        .w_q = rope ? span_handle(rope->w_q) : 0,
        .w_k = rope ? span_handle(rope->w_k) : 0,
        .rotation = rope ? span_handle(rope->rotation) : 0,
        .eps = rope ? rope->eps : 0,
        .q_scale = rope ? rope->q_scale : 0,
    };
    const uint64_t row = 4ull * p->rows * s->head, key_bytes = kv_position_bytes(p->cache->type, s);
    span_use accesses[8] = {
        READS_SOME(*p->qkv, row * s->heads),
        READS_SOME(*p->control, 8ull * p->rows),
        WRITES_SOME(*to, *splits > 1 ? 4ull * p->rows * s->heads * *splits * (s->head + 2)
                                     : row * s->heads),
        READS_SOME(p->cache->k, 0),
        READS_SOME(p->cache->v, 0),
    };
    accesses[3].read_per_key = accesses[4].read_per_key = key_bytes;
    uint32_t n = 5;
    if (rope) {
        accesses[0].read += row * 2 * s->kv_heads;
        accesses[3].write = accesses[4].write = true;
        accesses[3].written = accesses[4].written = key_bytes * p->rows;
        accesses[n++] = READS(*rope->w_q);
        accesses[n++] = READS(*rope->w_k);
        accesses[n++] = READS_SOME(*rope->rotation, 2 * row);
    }
    const dispatch d = {
        .key = key,
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { divide_up(p->rows, key.constants[ATTENTION_QUERIES] / group), s->heads / group,
                    *splits },
        .work = 4.0 * p->rows * s->heads * s->head * keys,
        .accesses = accesses,
        .n_accesses = n,
        .note = { .op = { rope ? "rope+attention" : "attention",
                          NULL,
                          { { "heads", s->heads },
                            { "kv", s->kv_heads },
                            { "head", s->head },
                            { "rows", p->rows } } },
                  .flop = rope ? 7.0 * p->rows * (s->heads + s->kv_heads) * s->head : 0,
                  .flop_per_key = 4.0 * s->heads * s->head,
                  .rows = p->rows,
                  .window = keys },
    };
    return stream_dispatch(st, &d);
}

kim_err op_attention(stream *st, const attention_params *p)
{
    kim_err err = KIM_OK;
    uint32_t splits;
    TRY(attention(st, p, NULL, &splits));
    if (splits > 1)
        TRY(combine(st, p, splits));
error:
    return err;
}

kim_err op_attention_rope(stream *st, const attention_params *p, const rope_params *rope)
{
    const attention_session only = { p->control, p->cache };
    assert(p->rows == 1);
    return op_attention_rope_each(st, p, rope, &only);
}

kim_err op_attention_rope_each(stream *st, const attention_params *p, const rope_params *rope,
                               const attention_session *sessions)
{
    kim_err err = KIM_OK;
    const head_shape *s = &p->shape;
    const uint64_t y_bytes = 4ull * s->heads * s->head;
    const uint64_t qkv_bytes = y_bytes + 8ull * s->kv_heads * s->head;
    uint32_t splits = 1;
    for (uint32_t i = 0; i < p->rows; i++) {
        const kv_cache *cache = sessions[i].cache;
        const uint64_t partial_bytes =
            attention_splits(stream_gpu(st), s, keys_seen(cache), 1) * (y_bytes + 8ull * s->heads);
        const span qkv = span_part(p->qkv, i * qkv_bytes, qkv_bytes);
        const span y = span_part(p->y, i * y_bytes, y_bytes);
        const span partial = span_part(p->partial, i * partial_bytes, partial_bytes);
        const attention_params one = { .qkv = &qkv,
                                       .control = sessions[i].control,
                                       .cache = cache,
                                       .partial = &partial,
                                       .y = &y,
                                       .shape = *s,
                                       .rows = 1 };
        TRY(attention(st, &one, rope, &splits));
    }
    if (splits > 1)
        TRY(combine(st, p, splits));
error:
    return err;
}

kim_err op_attention_full(stream *st, const attention_full_params *p)
{
    const bool tiles = attention_in_tiles(stream_gpu(st), p->rows);
    const pipeline_key key = tiles ? attention_full_tile_pipeline(stream_gpu(st), p->head)
                                   : attention_full_pipeline(stream_gpu(st), p->head);
    const uint32_t queries =
        tiles ? key.constants[ATTENTION_QUERIES] : key.constants[0] / key.constants[FULL_PARTS];
    const struct attention_full_args args = {
        .qkv = span_handle(p->qkv),
        .y = span_handle(p->y),
        .heads = p->heads,
        .rows = p->rows,
        .scale = p->scale,
    };
    const uint64_t rows = 4ull * p->images * p->rows * p->heads * p->head;
    const span_use accesses[] = { READS_SOME(*p->qkv, 3 * rows), WRITES_SOME(*p->y, rows) };
    const dispatch d = {
        .key = key,
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { divide_up(p->rows, queries), p->heads, p->images },
        .work = 4.0 * p->images * p->heads * p->rows * p->rows * p->head,
        .accesses = accesses,
        .n_accesses = 2,
        .note = { .op = { "attention full",
                          NULL,
                          { { "heads", p->heads },
                            { "head", p->head },
                            { "rows", p->rows },
                            { "images", p->images } } },
                  .flop = 4.0 * p->images * p->heads * p->rows * p->rows * p->head },
    };
    return stream_dispatch(st, &d);
}

// --------------------------------------------------------------------------------------- rest

kim_err op_average_pool(stream *st, const average_pool_params *p)
{
    const uint32_t tokens = p->side / p->pool * (p->side / p->pool);
    const struct average_pool_args args = {
        .x = span_handle(p->x),
        .y = span_handle(p->y),
        .side = p->side,
        .pool = p->pool,
        .width = p->width,
    };
    const uint64_t out = 4ull * p->images * tokens * p->width;
    const span_use accesses[] = { READS_SOME(*p->x, out * p->pool * p->pool),
                                  WRITES_SOME(*p->y, out) };
    const dispatch d = {
        .key = average_pool_pipeline(stream_gpu(st)),
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { tokens, p->images, 1 },
        .work = (double)p->images * p->side * p->side * p->width,
        .accesses = accesses,
        .n_accesses = 2,
        .note = { .op = { "average pool",
                          NULL,
                          { { "side", p->side },
                            { "pool", p->pool },
                            { "width", p->width },
                            { "images", p->images } } },
                  .flop = (double)p->images * p->side * p->side * p->width },
    };
    return stream_dispatch(st, &d);
}

kim_err op_geglu(stream *st, const span *x, const span *y, uint32_t rows, uint32_t width)
{
    const pipeline_key key = geglu_pipeline(stream_gpu(st));
    const struct geglu_args args = {
        .x = span_handle(x),
        .y = span_handle(y),
        .width = width,
    };
    const uint64_t out = 4ull * rows * width;
    const span_use accesses[] = { READS_SOME(*x, 2 * out), WRITES_SOME(*y, out) };
    const dispatch d = {
        .key = key,
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { divide_up(width, key.constants[0]), rows, 1 },
        .work = 20.0 * rows * width,
        .accesses = accesses,
        .n_accesses = 2,
        .note = { .op = { "geglu", NULL, { { "width", width }, { "rows", rows } } },
                  .flop = 10.0 * rows * width },
    };
    return stream_dispatch(st, &d);
}

kim_err op_score(stream *st, const span *logits, const span *control, const span *scores,
                 uint32_t vocab, const uint32_t rows_first_tokens[3])
{
    const struct score_args args = {
        .logits = span_handle(logits),
        .control = span_handle(control),
        .scores = span_handle(scores),
        .vocab = vocab,
        .first = rows_first_tokens[1],
        .tokens = rows_first_tokens[2],
    };
    const uint64_t rows = rows_first_tokens[0];
    const span_use accesses[] = { READS_SOME(*logits, 4 * rows * vocab),
                                  READS_SOME(*control, 8 * rows), WRITES_SOME(*scores, 16 * rows) };
    const dispatch d = {
        .key = score_pipeline(),
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { rows_first_tokens[0], 1, 1 },
        .work = 20.0 * rows_first_tokens[0] * vocab,
        .accesses = accesses,
        .n_accesses = 3,
        .note = { .op = { "score", NULL, { { "vocab", vocab }, { "rows", rows_first_tokens[0] } } },
                  .flop = 4.0 * rows_first_tokens[0] * vocab },
    };
    return stream_dispatch(st, &d);
}
