// SPDX-License-Identifier: MIT
// Weight matrices on the device: placed, packed and uploaded from mapped files.
#include "linear.h"

#include "threads.h"
#include "weight_quantize.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES (4u << 20) // of one buffer; each thread has two
#define MOST_UPLOAD_THREADS 8
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

// What one thread works with.
typedef struct packer {
    span buffers[2];   // unused where memory is unified
    stream *copies[2]; // from buffers[i]
    uint32_t next;
    float *row;      // [width] of a matrix that is quantised
    uint8_t *blocks; // [WEIGHT_GROUP rows] of it
} packer;

// Groups of rows that are packed at once.
typedef struct upload_piece {
    const linear *l;
    const linear_part *part;
    uint32_t first, count; // groups
} upload_piece;

struct uploader {
    kim_gpu *gpu;
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t reported, total;
    _Atomic uint64_t done;
    pool staging;
    packer *packers; // [n_packers]; the calling thread's is the first
    uint32_t n_packers;
    upload_piece *pieces; // [n_pieces], for uploader_finish
    uint32_t n_pieces, room;
};

kim_err uploader_create(uploader **out, kim_gpu *gpu,
                        bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                        uint64_t total)
{
    kim_err err = KIM_OK;
    const uint32_t processors = processor_count();
    uploader *u = calloc(1, sizeof *u);
    REQUIRE_MEMORY(u);
    *u = (uploader){ .gpu = gpu, .progress = progress, .user = user, .total = total };
    pool_init(&u->staging, "staging", POOL_UPLOAD, 0);
    u->n_packers = processors < MOST_UPLOAD_THREADS ? processors : MOST_UPLOAD_THREADS;
    u->packers = calloc(u->n_packers, sizeof *u->packers);
    REQUIRE_MEMORY(u->packers);
    for (uint32_t i = 0; i < 2 * u->n_packers && !gpu->info.unified_memory; i++) {
        packer *p = &u->packers[i / 2];
        TRY(pool_place(&u->staging, STAGING_BYTES, &p->buffers[i % 2]));
        TRY(stream_create(&p->copies[i % 2], gpu));
    }
    if (!gpu->info.unified_memory)
        TRY(pool_commit(&u->staging, gpu));
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
    for (uint32_t i = 0; u->packers && i < u->n_packers; i++) {
        stream_destroy(&u->packers[i].copies[0]);
        stream_destroy(&u->packers[i].copies[1]);
        free(u->packers[i].row);
        free(u->packers[i].blocks);
    }
    pool_destroy(&u->staging);
    free(u->packers);
    free(u->pieces);
    free(u);
    *up = NULL;
}

// Where the host writes the next bytes of `to`: in place, or in a staging buffer that is free.
static kim_err begin_write(packer *p, const span *to, void **at)
{
    kim_err err = KIM_OK;
    *at = span_map(to);
    if (*at)
        return KIM_OK;
    TRY(stream_reset(p->copies[p->next]));
    *at = span_map(&p->buffers[p->next]);
error:
    return err;
}

// Called by the thread that uploads.
static kim_err report(uploader *u)
{
    const uint64_t done = u->done;
    if (!u->progress || done <= u->reported)
        return KIM_OK;
    u->reported = done;
    return u->progress(u->user, done, u->total)
               ? KIM_OK
               : kim_fail(KIM_ERR_CANCELLED, "loading was cancelled");
}

static kim_err end_write(uploader *u, packer *p, const span *to)
{
    kim_err err = KIM_OK;
    if (!span_map(to)) {
        TRY(stream_copy(p->copies[p->next], to, &p->buffers[p->next]));
        TRY(stream_submit(p->copies[p->next]));
        p->next = 1 - p->next;
    }
    u->done += to->bytes;
    if (p == u->packers)
        TRY(report(u));
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

// at: where in p->blocks the row goes, if it is quantised
static const void *read_row(packer *p, const linear *l, uint32_t row, uint64_t at)
{
    const matrix_source *s = source_of(l, &row);
    const uint8_t *from =
        weight_row_at(s->file_type ? s->file_type : s->type, s->data, s->distinct, l->width, row);
    if (!s->file_type)
        return from;
    weight_to_floats(s->file_type->ggml, from, l->width, p->row);
    weight_quantize(s->type, p->row, l->width, p->blocks + at);
    return p->blocks + at;
}

static void pack_group(packer *p, const linear *l, const linear_part *part, uint32_t group,
                       void *out)
{
    const void *rows[WEIGHT_GROUP];
    const uint64_t row_bytes = weight_row_bytes(part->type, l->width);
    for (uint32_t r = 0; r < WEIGHT_GROUP; r++) {
        const uint32_t row = group * WEIGHT_GROUP + r;
        rows[r] = row < part->rows ? read_row(p, l, part->first + row, r * row_bytes) : NULL;
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
static kim_err make_room(packer *p, const linear *l, const linear_part *part)
{
    kim_err err = KIM_OK;
    bool quantised = false;
    for (uint32_t i = 0; i < l->n_sources; i++)
        quantised |= l->sources[i].file_type != NULL;
    if (!quantised)
        return KIM_OK;
    float *row = realloc(p->row, l->width * sizeof *row);
    REQUIRE_MEMORY(row);
    p->row = row;
    uint8_t *blocks = realloc(p->blocks, weight_group_bytes(part->type, l->width));
    REQUIRE_MEMORY(blocks);
    p->blocks = blocks;
error:
    return err;
}

static kim_err upload_groups(void *user, uint32_t index, uint32_t thread)
{
    kim_err err = KIM_OK;
    uploader *u = user;
    packer *p = &u->packers[thread];
    const upload_piece *piece = &u->pieces[index];
    const linear_part *part = piece->part;
    const uint64_t bytes = weight_group_bytes(part->type, piece->l->width);
    const span to = span_part(&part->w, piece->first * bytes, piece->count * bytes);
    const uint32_t end = (piece->first + piece->count) * WEIGHT_GROUP;
    void *at;
    TRY(make_room(p, piece->l, part));
    TRY(begin_write(p, &to, &at));
    for (uint32_t g = 0; g < piece->count; g++)
        pack_group(p, piece->l, part, piece->first + g, (uint8_t *)at + g * bytes);
    TRY(end_write(u, p, &to));
    release_rows(piece->l, part->first + piece->first * WEIGHT_GROUP,
                 part->first + (end < part->rows ? end : part->rows));
error:
    return err;
}

static kim_err add_piece(uploader *u, const upload_piece *piece)
{
    kim_err err = KIM_OK;
    if (u->n_pieces == u->room) {
        const uint32_t room = 2 * u->room + 256;
        upload_piece *pieces = realloc(u->pieces, room * sizeof *pieces);
        REQUIRE_MEMORY(pieces);
        u->pieces = pieces;
        u->room = room;
    }
    u->pieces[u->n_pieces++] = *piece;
error:
    return err;
}

kim_err upload_linear(uploader *u, const linear *l)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < l->n_parts; i++) {
        const linear_part *part = &l->parts[i];
        const uint32_t groups = (part->rows + WEIGHT_GROUP - 1) / WEIGHT_GROUP;
        const uint32_t most = (uint32_t)(STAGING_BYTES / weight_group_bytes(part->type, l->width));
        if (!most)
            FAIL(KIM_ERR_UNSUPPORTED, "%s: rows of %u weights are too long", l->sources[0].name,
                 l->width);
        for (uint32_t first = 0; first < groups; first += most)
            TRY(add_piece(u, &(upload_piece){
                                 .l = l,
                                 .part = part,
                                 .first = first,
                                 .count = groups - first < most ? groups - first : most,
                             }));
    }
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
        TRY(begin_write(u->packers, &part, &at));
        memcpy(at, (const uint8_t *)data + done, n);
        TRY(end_write(u, u->packers, &part));
        done += n;
    }
error:
    return err;
}

kim_err uploader_finish(uploader *u)
{
    kim_err err = KIM_OK;
    TRY(share_among_threads(u->n_pieces, u->n_packers, upload_groups, u));
    u->n_pieces = 0;
    for (uint32_t i = 0; i < 2 * u->n_packers; i++)
        if (u->packers[i / 2].copies[i % 2])
            TRY(stream_wait(u->packers[i / 2].copies[i % 2]));
    TRY(report(u));
error:
    return err;
}
