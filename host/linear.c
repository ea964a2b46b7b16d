// SPDX-License-Identifier: MIT
// Weight matrices on the device: placed, packed and uploaded from a mapped file.
#include "linear.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES (8u << 20)

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
        TRY(add_rows(l, p, sources[i].type, first, rows));
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
    const file_mapping *file;
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t done, total;
    pool staging; // unused where memory is unified
    span buffers[2];
    stream *copies[2]; // from buffers[i]
    uint32_t next;
};

kim_err uploader_create(uploader **out, kim_gpu *gpu, const file_mapping *file,
                        bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                        uint64_t total)
{
    kim_err err = KIM_OK;
    uploader *u = calloc(1, sizeof *u);
    REQUIRE_MEMORY(u);
    *u = (uploader){ .gpu = gpu, .file = file, .progress = progress, .user = user, .total = total };
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

// Where row `row` of the outputs begins in the file.
static const uint8_t *source_row(const linear *l, uint32_t row)
{
    if (l->paired) {
        const matrix_source *s = &l->sources[row & 1];
        return s->data + weight_row_bytes(s->type, l->width) * (row / 2);
    }
    uint32_t i = 0;
    while (row >= l->sources[i].rows)
        row -= l->sources[i++].rows;
    return l->sources[i].data + weight_row_bytes(l->sources[i].type, l->width) * row;
}

static void pack_group(const linear *l, const linear_part *part, uint32_t group, void *out)
{
    const void *rows[WEIGHT_GROUP];
    for (uint32_t r = 0; r < WEIGHT_GROUP; r++) {
        const uint32_t row = group * WEIGHT_GROUP + r;
        rows[r] = row < part->rows ? source_row(l, part->first + row) : NULL;
    }
    weight_pack(part->type, rows, l->width, out);
}

// Gives back the pages of the rows [first, end) of the outputs.
static void release_rows(const uploader *u, const linear *l, uint32_t first, uint32_t end)
{
    const uint32_t step = l->paired ? 2 : 1;
    for (uint32_t i = 0; i < step; i++) {
        const uint8_t *from = source_row(l, first + i), *last = source_row(l, end - step + i);
        const uint64_t row = weight_row_bytes(l->sources[0].type, l->width);
        if (last >= from) // else two sources in another order in the file: these pages stay
            file_release(u->file, (uint64_t)(from - u->file->data), (uint64_t)(last - from) + row);
    }
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
    for (uint32_t first = 0; first < groups; first += at_once) {
        const uint32_t n = groups - first < at_once ? groups - first : at_once;
        const span to = span_part(&part->w, first * group_bytes, n * group_bytes);
        void *at;
        TRY(begin_write(u, &to, &at));
        for (uint32_t g = 0; g < n; g++)
            pack_group(l, part, first + g, (uint8_t *)at + g * group_bytes);
        TRY(end_write(u, &to));
        const uint32_t end = (first + n) * WEIGHT_GROUP;
        release_rows(u, l, part->first + first * WEIGHT_GROUP,
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
