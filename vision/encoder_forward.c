// SPDX-License-Identifier: MIT
// The encoder's forward pass: pixels of patches to soft tokens, as dispatches in streams.
#include "encoder_parts.h"

#include "host/error.h"
#include "host/matmul_ways.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ROWS 4096 // patches encoded at once, unless a single tile has more

static uint64_t most_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// ------------------------------------------------------------------------------------- memory

// Words that the largest tensor of one tile takes, of those in scratch.wide.
static uint64_t wide_words(const encoder *e)
{
    const encoder_shape *s = &e->shape;
    const uint64_t row = most_of(3ull * s->hidden, s->feed_forward);
    return most_of((uint64_t)e->side * e->side * row, (uint64_t)s->tokens * s->text_hidden);
}

// For traces.
static void name_tensors(scratch *s)
{
    s->pixels.name = "pixels";
    s->x.name = "x";
    s->h.name = "h";
    s->wide.name = "wide"; // qkv, or what feed-forward made, or soft tokens
    s->packed.name = "packed";
    s->soft.name = "soft tokens";
}

kim_err scratch_place(scratch *s, const encoder *e)
{
    kim_err err = KIM_OK;
    const encoder_shape *shape = &e->shape;
    const uint32_t patches = e->side * e->side;
    const uint64_t limit = e->weights.block_limit;
    const uint64_t largest = 4 * most_of(wide_words(e), (uint64_t)patches * e->patch_width);
    memset(s, 0, sizeof *s);
    pool_init(&s->upload, "pixels", POOL_UPLOAD, limit);
    pool_init(&s->device, "activations of the encoder", POOL_DEVICE, limit);
    pool_init(&s->readback, "soft tokens for the host", POOL_READBACK, limit);
    if (largest > limit)
        FAIL(KIM_ERR_DEVICE_MEMORY,
             "a picture of %u pixels needs %.1f MiB in one piece, and this device reaches %.1f MiB",
             shape->image, (double)largest / 1048576.0, (double)limit / 1048576.0);
    s->tiles = patches < MOST_ROWS ? MOST_ROWS / patches : 1;
    while (s->tiles * largest > limit)
        s->tiles--;
    const uint64_t row = (uint64_t)s->tiles * patches * 4; // bytes of a column
    TRY(pool_place(&s->upload, row * e->patch_width, &s->pixels));
    TRY(pool_place(&s->device, row * shape->hidden, &s->x));
    TRY(pool_place(&s->device, row * shape->hidden, &s->h));
    TRY(pool_place(&s->device, 4 * s->tiles * wide_words(e), &s->wide));
    const uint64_t widest = most_of(most_of(shape->hidden, shape->feed_forward), e->patch_width);
    const uint64_t packed = matmul_packed_bytes(e->gpu, (uint32_t)widest, s->tiles * patches);
    if (packed)
        TRY(pool_place(&s->device, packed, &s->packed));
    TRY(pool_place(&s->readback, 4ull * s->tiles * shape->tokens * shape->text_hidden, &s->soft));
    name_tensors(s);
    return KIM_OK;
error:
    scratch_destroy(s);
    return err;
}

void scratch_destroy(scratch *s)
{
    pool_destroy(&s->upload);
    pool_destroy(&s->device);
    pool_destroy(&s->readback);
    memset(s, 0, sizeof *s);
}

// -------------------------------------------------------------------------------------- layers

typedef struct forward {
    stream *st;
    const encoder *e;
    uint32_t tiles, rows;
    span pixels, x, h, qkv, up; // of scratch, cut to the rows
} forward;

static span cut(const span *s, uint64_t rows, uint64_t width)
{
    return span_part(s, 0, rows * width * 4);
}

// What becomes of a product.
typedef enum after { STORE, GELU, ADD } after;

// Without its spans: x and y.
static matmul_params product_of(const affine *a, uint32_t x_width, uint32_t columns, after then)
{
    return (matmul_params){
        .w = &a->w,
        .x_width = x_width,
        .columns = columns,
        .bias = &a->bias,
        .gelu = then == GELU,
        .add = then == ADD,
    };
}

static const span *packed(const forward *f)
{
    return f->e->scratch.packed.bytes ? &f->e->scratch.packed : NULL;
}

static kim_err product(const forward *f, const affine *a, const span *x, const span *y, after then)
{
    matmul_params p = product_of(a, a->w.width, f->rows, then);
    p.x = x;
    p.y = y;
    p.packed = packed(f);
    return op_matmul(f->st, &p);
}

static kim_err norm(const forward *f, const layer_norm *n)
{
    return op_layer_norm(f->st, &(layer_norm_params){
                                    .x = &f->x,
                                    .w = &n->w,
                                    .b = &n->b,
                                    .y = &f->h,
                                    .rows = f->rows,
                                    .width = f->e->shape.hidden,
                                    .eps = f->e->shape.eps,
                                });
}

// x = patches * w + bias + positions
static kim_err embed(const forward *f)
{
    kim_err err = KIM_OK;
    const encoder *e = f->e;
    const uint64_t bytes = e->positions.bytes;
    for (uint32_t i = 0; i < f->tiles; i++) {
        const span to = span_part(&f->x, i * bytes, bytes);
        TRY(stream_copy(f->st, &to, &e->positions));
    }
    matmul_params p = product_of(&e->patch, e->patch_width, f->rows, ADD);
    p.x = &f->pixels;
    p.y = &f->x;
    p.packed = packed(f);
    TRY(op_matmul(f->st, &p));
error:
    return err;
}

static kim_err attention(const forward *f)
{
    const encoder_shape *s = &f->e->shape;
    const uint32_t head = s->hidden / s->heads;
    return op_attention_full(f->st, &(attention_full_params){
                                        .qkv = &f->qkv,
                                        .y = &f->h,
                                        .heads = s->heads,
                                        .head = head,
                                        .images = f->tiles,
                                        .rows = f->rows / f->tiles,
                                        .scale = 1 / sqrtf((float)head),
                                    });
}

static kim_err layer(const forward *f, const encoder_layer *w)
{
    kim_err err = KIM_OK;
    TRY(norm(f, &w->before_attention));
    TRY(product(f, &w->qkv, &f->h, &f->qkv, STORE));
    TRY(attention(f));
    TRY(product(f, &w->out, &f->h, &f->x, ADD));
    TRY(norm(f, &w->before_feed_forward));
    TRY(product(f, &w->up, &f->h, &f->up, GELU));
    TRY(product(f, &w->down, &f->up, &f->x, ADD));
error:
    return err;
}

// The pooled patches, normed and projected.
static kim_err soft_tokens(const forward *f)
{
    kim_err err = KIM_OK;
    const encoder *e = f->e;
    const encoder_shape *s = &e->shape;
    const uint32_t rows = f->tiles * s->tokens;
    const span pooled = cut(&f->x, rows, s->hidden), normed = cut(&f->h, rows, s->hidden);
    const span soft = cut(&e->scratch.wide, rows, s->text_hidden);
    const span back = cut(&e->scratch.soft, rows, s->text_hidden);
    TRY(norm(f, &e->after));
    TRY(op_average_pool(f->st, &(average_pool_params){
                                   .x = &f->h,
                                   .y = &pooled,
                                   .images = f->tiles,
                                   .side = e->side,
                                   .pool = e->pool,
                                   .width = s->hidden,
                               }));
    TRY(op_norm(f->st, &(norm_params){
                           .x = &pooled,
                           .w = &e->norm_soft,
                           .h = &normed,
                           .rows = rows,
                           .width = s->hidden,
                           .eps = s->eps,
                       }));
    TRY(op_matmul(f->st, &(matmul_params){
                             .w = &e->project,
                             .x = &normed,
                             .x_width = s->hidden,
                             .y = &soft,
                             .packed = packed(f),
                             .columns = rows,
                         }));
    TRY(stream_copy(f->st, &back, &soft));
error:
    return err;
}

// ------------------------------------------------------------------------------------ recording

void encoder_products(const encoder *e, uint32_t tiles, matmul_params *list)
{
    const uint32_t rows = tiles * e->side * e->side, hidden = e->shape.hidden;
    *list++ = product_of(&e->patch, e->patch_width, rows, ADD);
    for (uint32_t i = 0; i < e->shape.layers; i++) {
        const encoder_layer *w = &e->layers[i];
        *list++ = product_of(&w->qkv, hidden, rows, STORE);
        *list++ = product_of(&w->out, hidden, rows, ADD);
        *list++ = product_of(&w->up, hidden, rows, GELU);
        *list++ = product_of(&w->down, e->shape.feed_forward, rows, ADD);
    }
    *list =
        (matmul_params){ .w = &e->project, .x_width = hidden, .columns = tiles * e->shape.tokens };
}

static kim_err record_layer(const encoder *e, stream *st, uint32_t tiles, uint32_t i)
{
    kim_err err = KIM_OK;
    const scratch *s = &e->scratch;
    const uint32_t rows = tiles * e->side * e->side, hidden = e->shape.hidden;
    const forward f = {
        .st = st,
        .e = e,
        .tiles = tiles,
        .rows = rows,
        .pixels = cut(&s->pixels, rows, e->patch_width),
        .x = cut(&s->x, rows, hidden),
        .h = cut(&s->h, rows, hidden),
        .qkv = cut(&s->wide, rows, 3 * hidden),
        .up = cut(&s->wide, rows, e->shape.feed_forward),
    };
    TRY(stream_reset(st));
    stream_set_section(st, "patches", UINT32_MAX);
    if (i == 0)
        TRY(embed(&f));
    stream_set_section(st, "vision layer", i);
    TRY(layer(&f, &e->layers[i]));
    stream_set_section(st, "soft tokens", UINT32_MAX);
    if (i + 1 == e->shape.layers)
        TRY(soft_tokens(&f));
error:
    return err;
}

kim_err encoder_record(const encoder *e, encoder_run *r, uint32_t tiles)
{
    kim_err err = KIM_OK;
    r->tiles = 0;
    if (!r->streams) {
        r->streams = calloc(e->shape.layers, sizeof *r->streams);
        REQUIRE_MEMORY(r->streams);
    }
    for (uint32_t i = 0; i < e->shape.layers; i++) {
        if (!r->streams[i])
            TRY(stream_create(&r->streams[i], e->gpu));
        TRY(record_layer(e, r->streams[i], tiles, i));
    }
    r->tiles = tiles;
error:
    return err;
}

void encoder_run_destroy(encoder_run *r, const encoder *e)
{
    for (uint32_t i = 0; r->streams && i < e->shape.layers; i++)
        stream_destroy(&r->streams[i]);
    free(r->streams);
    memset(r, 0, sizeof *r);
}
