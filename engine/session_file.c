// SPDX-License-Identifier: MIT
// A session in a file: its tokens and the K and V that the next token can see.
//
// All numbers little-endian: the header; the tokens, i32; the logits, f32, if there are any; then
// for every layer and kv head, K and V of the positions kept, in groups of KEY_GROUP positions as
// they stand in the cache. A local layer keeps its window, a global one all. So a session goes into
// another one of the same model with another size of context or batch.
#include "session.h"

#include "host/error.h"
#include "host/file.h"

#include <stdlib.h>
#include <string.h>

#define FILE_VERSION 1

typedef struct session_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint32_t layers, hidden, heads, kv_heads, head, vocab, window; // must be the model's
    uint32_t has_logits;
    uint64_t model_bytes; // size of the model's file
    uint64_t position;
    uint64_t payload_bytes;
    uint64_t hash; // of this header with 0 here, then of the payload
} session_header;

static session_header header_for(const kim_session *s)
{
    const architecture *a = &s->model->arch;
    return (session_header){
        .magic = "KIMSESS",
        .version = FILE_VERSION,
        .header_bytes = sizeof(session_header),
        .layers = a->layers,
        .hidden = a->hidden,
        .heads = a->heads,
        .kv_heads = a->kv_heads,
        .head = a->head,
        .vocab = a->vocab,
        .window = a->window,
        .has_logits = s->has_logits,
        .model_bytes = s->model->info.file_bytes,
        .position = s->position,
    };
}

// Groups of positions [first, end) that a layer keeps for the token after the last.
static void kept_groups(const kv_cache *c, uint64_t position, uint32_t *first, uint32_t *end)
{
    const uint64_t oldest = position > c->window ? position - c->window : 0;
    *first = (uint32_t)(oldest / KEY_GROUP);
    *end = (uint32_t)((position + KEY_GROUP - 1) / KEY_GROUP);
}

// Bytes of one group of one kv head, the same for K and V.
static uint64_t group_bytes(const architecture *a)
{
    return 2ull * KEY_GROUP * a->head;
}

static uint64_t payload_bytes(const kim_session *s, uint64_t position, bool logits)
{
    const architecture *a = &s->model->arch;
    uint64_t sum = position * 4 + (logits ? a->vocab * 4ull : 0);
    for (uint32_t i = 0; i < a->layers; i++) {
        uint32_t first, end;
        kept_groups(&s->memory.kv[i], position, &first, &end);
        sum += 2ull * (end - first) * group_bytes(a) * a->kv_heads;
    }
    return sum;
}

// FNV-1a over 64-bit words, the rest by bytes: fast enough for gigabytes, and finds damage.
static uint64_t hash_add(uint64_t hash, const void *data, uint64_t n)
{
    const uint8_t *at = data;
    uint64_t word;
    for (; n >= 8; n -= 8, at += 8) {
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    for (; n; n--, at++)
        hash = (hash ^ *at) * 0x100000001b3u;
    return hash;
}

// A run of groups of one kv head of one layer, in the cache: contiguous, so short of a wrap.
typedef struct kv_run {
    span in_cache;
    uint32_t groups;
} kv_run;

static kv_run run_at(const architecture *a, const kv_cache *c, const span *of, uint32_t head,
                     uint32_t group, uint32_t end)
{
    const uint32_t groups_in_cache = c->rows / KEY_GROUP;
    const uint32_t slot = group % groups_in_cache;
    uint32_t n = end - group;
    if (n > groups_in_cache - slot)
        n = groups_in_cache - slot;
    const uint64_t at = ((uint64_t)head * groups_in_cache + slot) * group_bytes(a);
    return (kv_run){ span_part(of, at, n * group_bytes(a)), n };
}

// Moves K and V of one layer between the cache and consecutive bytes of a staging pool.
static kim_err copy_layer(const kim_session *s, uint32_t layer, uint64_t position,
                          const span *staging, bool to_cache)
{
    kim_err err = KIM_OK;
    const architecture *a = &s->model->arch;
    const kv_cache *c = &s->memory.kv[layer];
    stream *st = s->prompt.st;
    uint32_t first, end;
    uint64_t at = 0;
    kept_groups(c, position, &first, &end);
    TRY(stream_reset(st));
    for (uint32_t part = 0; part < 2; part++)
        for (uint32_t head = 0; head < a->kv_heads; head++)
            for (uint32_t g = first; g < end;) {
                const kv_run r = run_at(a, c, part ? &c->v : &c->k, head, g, end);
                const span outside = span_part(staging, at, r.in_cache.bytes);
                TRY(to_cache ? stream_copy(st, &r.in_cache, &outside)
                             : stream_copy(st, &outside, &r.in_cache));
                at += r.in_cache.bytes;
                g += r.groups;
            }
    TRY(stream_submit(st));
    TRY(stream_wait(st));
error:
    return err;
}

static uint64_t layer_bytes(const kim_session *s, uint32_t layer, uint64_t position)
{
    uint32_t first, end;
    kept_groups(&s->memory.kv[layer], position, &first, &end);
    return 2ull * (end - first) * group_bytes(&s->model->arch) * s->model->arch.kv_heads;
}

// A staging buffer for the largest layer.
static kim_err create_staging(const kim_session *s, uint64_t position, pool_use use, pool *p,
                              span *out)
{
    kim_err err = KIM_OK;
    uint64_t most = 16;
    for (uint32_t i = 0; i < s->model->arch.layers; i++)
        most = layer_bytes(s, i, position) > most ? layer_bytes(s, i, position) : most;
    pool_init(p, "a copy of K and V", use, most > GPU_BLOCK_LIMIT ? most : 0);
    TRY(pool_place(p, most, out));
    TRY(pool_commit(p, s->model->gpu));
error:
    return err;
}

typedef struct payload_writer {
    file_writer *file; // NULL: only hashes
    uint64_t hash;
} payload_writer;

static kim_err write_payload(payload_writer *w, const void *data, uint64_t bytes)
{
    w->hash = hash_add(w->hash, data, bytes);
    return w->file ? file_writer_write(w->file, data, bytes) : KIM_OK;
}

// The pieces are hashed in the same runs here and in check_payload.
static kim_err write_session(const kim_session *s, payload_writer *w, const span *staging)
{
    kim_err err = KIM_OK;
    TRY(write_payload(w, s->tokens, s->position * 4ull));
    if (s->has_logits)
        TRY(write_payload(w, kim_session_logits(s), s->model->arch.vocab * 4ull));
    for (uint32_t i = 0; i < s->model->arch.layers; i++) {
        TRY(copy_layer(s, i, s->position, staging, false));
        TRY(write_payload(w, span_map(staging), layer_bytes(s, i, s->position)));
    }
error:
    return err;
}

kim_err kim_session_save(const kim_session *session, const char *path)
{
    kim_err err = KIM_OK;
    pool staging = { 0 };
    span buffer;
    payload_writer w = { 0 };
    if (!session || !path)
        FAIL(KIM_ERR_ARGUMENT, "kim_session_save: session or path is NULL");
    kim_session *s = (kim_session *)session; // its prompt stream is borrowed for the copies
    s->prompt.rows = 0;
    TRY(session_restore_rings(s));
    TRY(file_writer_open(&w.file, path));
    TRY(create_staging(s, s->position, POOL_READBACK, &staging, &buffer));
    // The hash stands in the header, before what it is of: once to know it, once to write.
    session_header h = header_for(s);
    h.payload_bytes = payload_bytes(s, s->position, s->has_logits);
    payload_writer hash_only = { .hash = hash_add(0, &h, sizeof h) };
    TRY(write_session(s, &hash_only, &buffer));
    h.hash = hash_only.hash;
    TRY(file_writer_write(w.file, &h, sizeof h));
    TRY(write_session(s, &w, &buffer));
    TRY(stream_reset(s->prompt.st));
    TRY(file_writer_commit(&w.file));
error:
    file_writer_abandon(&w.file);
    if (staging.gpu)
        (void)stream_reset(((kim_session *)session)->prompt.st);
    pool_destroy(&staging);
    return err;
}

static kim_err check_header(const kim_session *s, const file_mapping *file, const char *path,
                            session_header *h)
{
    const session_header want = header_for(s);
    if (file->size < sizeof *h)
        return kim_fail(KIM_ERR_FORMAT, "%s: is %llu bytes long, too short for a saved session",
                        path, (unsigned long long)file->size);
    memcpy(h, file->data, sizeof *h);
    if (memcmp(h->magic, want.magic, sizeof h->magic))
        return kim_fail(KIM_ERR_FORMAT, "%s: is not a saved session", path);
    if (h->version != want.version || h->header_bytes != want.header_bytes)
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "%s: is a session of version %u; version %u is expected", path, h->version,
                        want.version);
    if (memcmp(&h->layers, &want.layers,
               offsetof(session_header, has_logits) - offsetof(session_header, layers)) ||
        h->model_bytes != want.model_bytes)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s: is a session of another model (%u layers of %u, file of "
                        "%llu bytes; this one has %u of %u, %llu bytes)",
                        path, h->layers, h->hidden, (unsigned long long)h->model_bytes, want.layers,
                        want.hidden, (unsigned long long)want.model_bytes);
    if (h->position > s->context)
        return kim_fail(KIM_ERR_CONTEXT_FULL, "%s: has %llu tokens; this session has room for %u",
                        path, (unsigned long long)h->position, s->context);
    if (h->payload_bytes != payload_bytes(s, h->position, h->has_logits) ||
        h->payload_bytes != file->size - sizeof *h)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s: is damaged: %llu bytes after the header, %llu are "
                        "expected",
                        path, (unsigned long long)(file->size - sizeof *h),
                        (unsigned long long)payload_bytes(s, h->position, h->has_logits));
    return KIM_OK;
}

static kim_err check_payload(const kim_session *s, const session_header *h, const uint8_t *data,
                             const char *path)
{
    session_header plain = *h;
    plain.hash = 0;
    uint64_t hash = hash_add(0, &plain, sizeof plain);
    hash = hash_add(hash, data, h->position * 4);
    const uint8_t *at = data + h->position * 4;
    if (h->has_logits) {
        hash = hash_add(hash, at, s->model->arch.vocab * 4ull);
        at += s->model->arch.vocab * 4ull;
    }
    for (uint32_t i = 0; i < s->model->arch.layers; i++) {
        hash = hash_add(hash, at, layer_bytes(s, i, h->position));
        at += layer_bytes(s, i, h->position);
    }
    if (hash != h->hash)
        return kim_fail(KIM_ERR_FORMAT, "%s: is damaged: its checksum is wrong", path);
    for (uint64_t i = 0; i < h->position; i++) {
        int32_t id;
        memcpy(&id, data + i * 4, 4);
        if (id < 0 || (uint32_t)id >= s->model->arch.vocab)
            return kim_fail(KIM_ERR_FORMAT, "%s: is damaged: token %llu is %d", path,
                            (unsigned long long)i, (int)id);
    }
    return KIM_OK;
}

kim_err kim_session_load(kim_session *session, const char *path)
{
    kim_err err = KIM_OK;
    kim_session *s = session;
    file_mapping file = { 0 };
    pool staging = { 0 };
    span buffer;
    session_header h;
    if (!session || !path)
        FAIL(KIM_ERR_ARGUMENT, "kim_session_load: session or path is NULL");
    TRY(file_map(&file, path));
    TRY(check_header(s, &file, path, &h));
    const uint8_t *at = file.data + sizeof h;
    TRY(check_payload(s, &h, at, path));
    TRY(create_staging(s, h.position, POOL_UPLOAD, &staging, &buffer));

    // From here on the session's past is replaced; a failure of the device leaves it empty.
    s->prompt.rows = 0;
    s->position = s->written = s->loaded = 0;
    s->has_logits = false;
    const uint8_t *const tokens = at;
    at += h.position * 4;
    const uint8_t *const logits = at;
    at += h.has_logits ? s->model->arch.vocab * 4ull : 0;
    for (uint32_t i = 0; i < s->model->arch.layers; i++) {
        const uint64_t bytes = layer_bytes(s, i, h.position);
        memcpy(span_map(&buffer), at, bytes);
        TRY(copy_layer(s, i, h.position, &buffer, true));
        at += bytes;
    }
    TRY(stream_reset(s->prompt.st));
    memcpy(s->tokens, tokens, h.position * 4);
    if (h.has_logits)
        memcpy(span_map(&s->memory.logits_back), logits, s->model->arch.vocab * 4ull);
    s->position = (uint32_t)h.position;
    // A file holds just one window: going back from here means reading the tokens again.
    s->written = s->loaded = s->position;
    s->has_logits = h.has_logits;
error:
    if (staging.gpu)
        (void)stream_reset(s->prompt.st);
    pool_destroy(&staging);
    file_unmap(&file);
    return err;
}
