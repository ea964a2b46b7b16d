// SPDX-License-Identifier: MIT
// Weight matrices on the device: placed, packed and uploaded from mapped files.
#include "linear.h"

#include "weight_quantize.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES (8u << 20)
#define MOST_GROUPS 65535 // of a part: what every device takes in one dimension of a dispatch

kim_err matrix_find(const tensors *t, const char *name, uint32_t width, uint32_t rows,
                    matrix_source *out)
{
    kim_err err = KIM_OK;
    const file_tensor *f;
    TRY(tensors_expect(t, name, width, rows, &f));
    *out = (matrix_source){
        .name = f->name, .data = f->data, .distinct = f->distinct, .rows = rows, .file = f->file
    };
    out->type = weight_type_find(f->type);
    if (!out->type)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: the tensor %s has type %s, expected one of F32, F16, BF16, Q4_0, Q4_1, Q5_0, "
             "Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS",
             f->path, name, tensor_type_find(f->type)->name);
error:
    return err;
}

void matrix_quantize(matrix_source *s, uint32_t width, const weight_type *to)
{
    if (!weight_is_plain(s->type->ggml) || width % to->block)
        return;
    s->file_type = s->type;
    s->type = to;
}

static kim_err add_part(linear *l, pool *p, const weight_type *type, uint32_t first, uint32_t rows)
{
    kim_err err = KIM_OK;
    linear_part *parts = realloc(l->parts, (l->n_parts + 1) * sizeof *parts);
    REQUIRE_MEMORY(parts);
    l->parts = parts;
    parts[l->n_parts] = (linear_part){
        .type = type,
        .first = first,
        .rows = rows,
        .blocks = (uint32_t)weight_row_blocks(type, l->width),
    };
    TRY(pool_place(p, weight_packed_bytes(type, rows, l->width), &parts[l->n_parts].w));
    l->n_parts++;
error:
    return err;
}

// Rows of one type, cut at the block limit.
static kim_err add_rows(linear *l, pool *p, const weight_type *type, uint32_t first, uint32_t rows)
{
    kim_err err = KIM_OK;
    const uint64_t group = weight_group_bytes(type, l->width);
    uint64_t most = p->block_limit / group * WEIGHT_GROUP;
    if (most > MOST_GROUPS * WEIGHT_GROUP)
        most = MOST_GROUPS * WEIGHT_GROUP;
    if (!most)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: 16 rows of %u weights do not fit in a block of %llu bytes",
             l->sources[0].name, l->width, (unsigned long long)p->block_limit);
    for (uint32_t done = 0; done < rows;) {
        const uint32_t n = rows - done < most ? rows - done : (uint32_t)most;
        TRY(add_part(l, p, type, first + done, n));
        done += n;
    }
error:
    return err;
}

kim_err linear_place(linear *l, pool *p, const matrix_source *sources, uint32_t n_sources,
                     uint32_t width, bool paired)
{
    kim_err err = KIM_OK;
    assert(n_sources && n_sources <= LINEAR_MAX_SOURCES && (!paired || n_sources == 2));
    *l = (linear){ .n_sources = n_sources, .width = width };
    memcpy(l->sources, sources, n_sources * sizeof *sources);
    l->paired = paired && sources[0].type == sources[1].type && sources[0].rows == sources[1].rows;
    uint32_t first = 0;
    for (uint32_t i = 0; i < n_sources;) {
        uint32_t rows = sources[i].rows, end = i + 1;
        while (end < n_sources && sources[end].type == sources[i].type)
            rows += sources[end++].rows;
        const uint32_t parts = l->n_parts;
        TRY(add_rows(l, p, sources[i].type, first, rows));
        for (uint32_t k = parts; k < l->n_parts; k++)
            l->parts[k].w.name = sources[i].name; // of the first, where there are several
        first += rows;
        i = end;
    }
    l->rows = first;
    return KIM_OK;
error:
    linear_destroy(l);
    return err;
}

void linear_destroy(linear *l)
{
    free(l->parts);
    memset(l, 0, sizeof *l);
}

struct uploader {
    kim_gpu *gpu;
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t done, total;
    pool staging; // unused where memory is unified
    span buffers[2];
    stream *copies[2]; // from buffers[i]
    uint32_t next;
    float *row;      // [width] of a matrix that is quantised
    uint8_t *blocks; // [WEIGHT_GROUP rows] of it
};

kim_err uploader_create(uploader **out, kim_gpu *gpu,
                        bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                        uint64_t total)
{
    kim_err err = KIM_OK;
    uploader *u = calloc(1, sizeof *u);
    REQUIRE_MEMORY(u);
    *u = (uploader){ .gpu = gpu, .progress = progress, .user = user, .total = total };
    if (!gpu->info.unified_memory) {
        pool_init(&u->staging, "staging", POOL_UPLOAD, 0);
        for (int i = 0; i < 2; i++) {
            TRY(pool_place(&u->staging, STAGING_BYTES, &u->buffers[i]));
            TRY(stream_create(&u->copies[i], gpu));
        }
        TRY(pool_commit(&u->staging, gpu));
    }
    *out = u;
    return KIM_OK;
error:
    uploader_destroy(&u);
    return err;
}

void uploader_destroy(uploader **up)
{
    uploader *u = *up;
    if (!u)
        return;
    stream_destroy(&u->copies[0]);
    stream_destroy(&u->copies[1]);
    pool_destroy(&u->staging);
    free(u->row);
    free(u->blocks);
    free(u);
    *up = NULL;
}

// Where the host writes the next bytes of `to`: in place, or in a staging buffer that is free.
static kim_err begin_write(uploader *u, const span *to, void **at)
{
    kim_err err = KIM_OK;
    *at = span_map(to);
    if (*at)
        return KIM_OK;
    TRY(stream_reset(u->copies[u->next]));
    *at = span_map(&u->buffers[u->next]);
error:
    return err;
}

static kim_err end_write(uploader *u, const span *to)
{
    kim_err err = KIM_OK;
    if (!span_map(to)) {
        TRY(stream_copy(u->copies[u->next], to, &u->buffers[u->next]));
        TRY(stream_submit(u->copies[u->next]));
        u->next = 1 - u->next;
    }
    u->done += to->bytes;
    if (u->progress && !u->progress(u->user, u->done, u->total))
        FAIL(KIM_ERR_CANCELLED, "loading was cancelled");
error:
    return err;
}

// Which matrix output row `*row` is of; makes *row a row of that.
static const matrix_source *source_of(const linear *l, uint32_t *row)
{
    uint32_t i = 0;
    if (l->paired) {
        i = *row & 1;
        *row /= 2;
    }
    for (; !l->paired && *row >= l->sources[i].rows; i++)
        *row -= l->sources[i].rows;
    return &l->sources[i];
}

// at: where in u->blocks the row goes, if it is quantised
static const void *read_row(uploader *u, const linear *l, uint32_t row, uint64_t at)
{
    const matrix_source *s = source_of(l, &row);
    const uint8_t *from =
        weight_row_at(s->file_type ? s->file_type : s->type, s->data, s->distinct, l->width, row);
    if (!s->file_type)
        return from;
    weight_to_floats(s->file_type->ggml, from, l->width, u->row);
    weight_quantize(s->type, u->row, l->width, u->blocks + at);
    return u->blocks + at;
}

static void pack_group(uploader *u, const linear *l, const linear_part *part, uint32_t group,
                       void *out)
{
    const void *rows[WEIGHT_GROUP];
    const uint64_t row_bytes = weight_row_bytes(part->type, l->width);
    for (uint32_t r = 0; r < WEIGHT_GROUP; r++) {
        const uint32_t row = group * WEIGHT_GROUP + r;
        rows[r] = row < part->rows ? read_row(u, l, part->first + row, r * row_bytes) : NULL;
    }
    weight_pack(part->type, rows, l->width, out);
}

// Gives back the pages of the output rows [first, end).
static void release_rows(const linear *l, uint32_t first, uint32_t end)
{
    const uint32_t every = l->paired ? 2 : 1; // a part of a pair has both of each two rows
    for (uint32_t i = 0, begin = 0; i < l->n_sources; i++) {
        const matrix_source *s = &l->sources[i];
        const uint64_t row_bytes =
            weight_row_bytes(s->file_type ? s->file_type : s->type, l->width);
        const uint32_t from = first / every > begin ? first / every - begin : 0;
        const uint32_t to = end / every > begin ? end / every - begin : 0;
        const uint32_t last = to < s->rows ? to : s->rows;
        if (s->file && from < last)
            file_release(s->file, (uint64_t)(s->data - s->file->data) + from * row_bytes,
                         (last - from) * row_bytes);
        begin += l->paired ? 0 : s->rows;
    }
}

// Room for the rows of a matrix that is quantised.
static kim_err make_room(uploader *u, const linear *l, const linear_part *part)
{
    kim_err err = KIM_OK;
    bool quantised = false;
    for (uint32_t i = 0; i < l->n_sources; i++)
        quantised |= l->sources[i].file_type != NULL;
    if (!quantised)
        return KIM_OK;
    float *row = realloc(u->row, l->width * sizeof *row);
    REQUIRE_MEMORY(row);
    u->row = row;
    uint8_t *blocks = realloc(u->blocks, weight_group_bytes(part->type, l->width));
    REQUIRE_MEMORY(blocks);
    u->blocks = blocks;
error:
    return err;
}

static kim_err upload_part(uploader *u, const linear *l, const linear_part *part)
{
    kim_err err = KIM_OK;
    const uint64_t group_bytes = weight_group_bytes(part->type, l->width);
    const uint32_t groups = (part->rows + WEIGHT_GROUP - 1) / WEIGHT_GROUP;
    uint32_t at_once = (uint32_t)(STAGING_BYTES / group_bytes);
    if (!at_once)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: rows of %u weights are too long", l->sources[0].name,
             l->width);
    TRY(make_room(u, l, part));
    for (uint32_t first = 0; first < groups; first += at_once) {
        const uint32_t n = groups - first < at_once ? groups - first : at_once;
        const span to = span_part(&part->w, first * group_bytes, n * group_bytes);
        void *at;
        TRY(begin_write(u, &to, &at));
        for (uint32_t g = 0; g < n; g++)
            pack_group(u, l, part, first + g, (uint8_t *)at + g * group_bytes);
        TRY(end_write(u, &to));
        const uint32_t end = (first + n) * WEIGHT_GROUP;
        release_rows(l, part->first + first * WEIGHT_GROUP,
                     part->first + (end < part->rows ? end : part->rows));
    }
error:
    return err;
}

kim_err upload_linear(uploader *u, const linear *l)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < l->n_parts; i++)
        TRY(upload_part(u, l, &l->parts[i]));
error:
    return err;
}

kim_err upload_bytes(uploader *u, const span *to, const void *data, uint64_t bytes)
{
    kim_err err = KIM_OK;
    for (uint64_t done = 0; done < bytes;) {
        const uint64_t n = bytes - done < STAGING_BYTES ? bytes - done : STAGING_BYTES;
        const span part = span_part(to, done, n);
        void *at;
        TRY(begin_write(u, &part, &at));
        memcpy(at, (const uint8_t *)data + done, n);
        TRY(end_write(u, &part));
        done += n;
    }
error:
    return err;
}

kim_err uploader_finish(uploader *u)
{
    kim_err err = KIM_OK;
    for (int i = 0; i < 2; i++)
        if (u->copies[i])
            TRY(stream_wait(u->copies[i]));
error:
    return err;
}
