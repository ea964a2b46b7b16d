// SPDX-License-Identifier: MIT
// A session in a file: its tokens and the K and V that the next token can see.
//
// All numbers little-endian: the header; the tokens, i32; the logits, f32, if there are any; the
// first positions of the pictures, u32, then the soft tokens of each, f32; then for every layer and
// kv head, K and V of the positions kept, in groups of KEY_GROUP positions as they stand in the
// cache. A local layer keeps its window, a global one all. So a session goes into another one of
// the same model with another size of context or batch.
#include "session.h"

#include "host/error.h"
#include "host/file.h"

#include <stdlib.h>
#include <string.h>

#define FILE_VERSION 3

typedef struct session_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint32_t layers, hidden, heads, kv_heads, head, vocab, window; // must be the model's
    uint32_t has_logits, n_pictures;
    uint32_t image_tokens; // soft tokens of a picture; 0: the model cannot see
    uint32_t quantize; // GGML's number of what weights became while loading, plus 1; 0: they stayed
    uint32_t kv_type;  // kim_kv_type: 0 for f16
    uint64_t model_bytes; // size of the files of the text
    uint64_t position;
    uint64_t payload_bytes;
    uint64_t hash; // of this header with 0 here, then of the payload
} session_header;

// Of the files of the text: a projector does not change what was computed of it.
static uint64_t text_bytes(const model_files *f)
{
    return f->bytes - (f->vision_file ? gguf_file_bytes(f->vision_file) : 0);
}

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
        .image_tokens = s->model->info.image_tokens,
        .has_logits = s->has_logits,
        .n_pictures = s->pictures.count,
        .quantize = s->model->quantize ? s->model->quantize->ggml + 1 : 0,
        .model_bytes = text_bytes(&s->model->files),
        .kv_type = (uint32_t)s->kv_type,
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

static uint64_t layer_bytes(const kim_session *s, uint32_t layer, uint64_t position)
{
    uint32_t first, end;
    const kv_cache *c = &s->memory.kv[layer];
    const architecture *a = &s->model->arch;
    kept_groups(c, position, &first, &end);
    return 2ull * (end - first) * kv_group_bytes(c->type, a->head) * a->kv_heads;
}

// Bytes of the soft tokens of one picture.
static uint64_t picture_bytes(const kim_session *s)
{
    return 4ull * s->model->info.image_tokens * s->model->arch.hidden;
}

static uint64_t payload_bytes(const kim_session *s, const session_header *h)
{
    uint64_t sum = h->position * 4 + (h->has_logits ? s->model->arch.vocab * 4ull : 0);
    sum += h->n_pictures * (4 + picture_bytes(s));
    for (uint32_t i = 0; i < s->model->arch.layers; i++)
        sum += layer_bytes(s, i, h->position);
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
    const uint64_t group_bytes = kv_group_bytes(c->type, a->head);
    const uint64_t at = ((uint64_t)head * groups_in_cache + slot) * group_bytes;
    return (kv_run){ span_part(of, at, n * group_bytes), n };
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

kim_err session_copy_kv(stream *st, const kim_session *to, const kim_session *from,
                        uint32_t position)
{
    kim_err err = KIM_OK;
    const architecture *a = &from->model->arch;
    for (uint32_t i = 0; i < a->layers; i++) {
        const kv_cache *x = &to->memory.kv[i], *y = &from->memory.kv[i];
        uint32_t first, end;
        kept_groups(y, position, &first, &end);
        for (uint32_t head = 0; head < a->kv_heads; head++)
            for (uint32_t g = first, n; g < end; g += n) {
                const kv_run k = run_at(a, y, &y->k, head, g, end);
                const kv_run v = run_at(a, y, &y->v, head, g, end);
                const kv_run to_k = run_at(a, x, &x->k, head, g, end);
                const kv_run to_v = run_at(a, x, &x->v, head, g, end);
                TRY(stream_copy(st, &to_k.in_cache, &k.in_cache));
                TRY(stream_copy(st, &to_v.in_cache, &v.in_cache));
                n = k.groups;
            }
    }
error:
    return err;
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
    for (uint32_t i = 0; i < s->pictures.count; i++)
        TRY(write_payload(w, &s->pictures.list[i].first, 4));
    for (uint32_t i = 0; i < s->pictures.count; i++)
        TRY(write_payload(w, s->pictures.list[i].tile->rows, picture_bytes(s)));
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
    TRY(session_restore_rings(s));
    s->prompt.rows = 0;
    TRY(file_writer_open(&w.file, path));
    TRY(create_staging(s, s->position, POOL_READBACK, &staging, &buffer));
    // The hash stands in the header, before what it is of: once to know it, once to write.
    session_header h = header_for(s);
    h.payload_bytes = payload_bytes(s, &h);
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

static const char *kv_name(uint32_t type)
{
    return type == KIM_KV_F16 ? "f16" : type == KIM_KV_Q8_0 ? "q8_0" : "a type of a newer version";
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
    if (h->quantize != want.quantize)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s: is a session of this model with weights that were quantised otherwise "
                        "while loading",
                        path);
    if (h->kv_type != want.kv_type)
        return kim_fail(
            KIM_ERR_FORMAT,
            "%s: is a session with keys and values in %s, and this one keeps them in %s", path,
            kv_name(h->kv_type), kv_name(want.kv_type));
    if (h->position > s->context)
        return kim_fail(KIM_ERR_CONTEXT_FULL, "%s: has %llu tokens; this session has room for %u",
                        path, (unsigned long long)h->position, s->context);
    if (h->n_pictures && (!want.image_tokens || h->image_tokens != want.image_tokens))
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "%s: has pictures of %u soft tokens each, and this model takes pictures of "
                        "%u (0: it was opened without its mmproj file)",
                        path, h->image_tokens, want.image_tokens);
    if (h->n_pictures && h->n_pictures > h->position / want.image_tokens)
        return kim_fail(KIM_ERR_FORMAT, "%s: is damaged: %u pictures in %llu tokens", path,
                        h->n_pictures, (unsigned long long)h->position);
    if (h->payload_bytes != payload_bytes(s, h) || h->payload_bytes != file->size - sizeof *h)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s: is damaged: %llu bytes after the header, %llu are "
                        "expected",
                        path, (unsigned long long)(file->size - sizeof *h),
                        (unsigned long long)payload_bytes(s, h));
    return KIM_OK;
}

// Where the parts of a file's payload begin.
typedef struct payload {
    const uint8_t *tokens, *logits, *firsts, *soft, *kv;
} payload;

static payload payload_parts(const kim_session *s, const session_header *h, const uint8_t *data)
{
    payload p = { .tokens = data };
    p.logits = p.tokens + h->position * 4;
    p.firsts = p.logits + (h->has_logits ? s->model->arch.vocab * 4ull : 0);
    p.soft = p.firsts + h->n_pictures * 4ull;
    p.kv = p.soft + h->n_pictures * picture_bytes(s);
    return p;
}

static kim_err check_hash(const kim_session *s, const session_header *h, const payload *p,
                          const char *path)
{
    session_header plain = *h;
    plain.hash = 0;
    uint64_t hash = hash_add(0, &plain, sizeof plain);
    hash = hash_add(hash, p->tokens, h->position * 4);
    if (h->has_logits)
        hash = hash_add(hash, p->logits, s->model->arch.vocab * 4ull);
    for (uint32_t i = 0; i < h->n_pictures; i++)
        hash = hash_add(hash, p->firsts + i * 4ull, 4);
    for (uint32_t i = 0; i < h->n_pictures; i++)
        hash = hash_add(hash, p->soft + i * picture_bytes(s), picture_bytes(s));
    const uint8_t *at = p->kv;
    for (uint32_t i = 0; i < s->model->arch.layers; i++) {
        hash = hash_add(hash, at, layer_bytes(s, i, h->position));
        at += layer_bytes(s, i, h->position);
    }
    return hash == h->hash
               ? KIM_OK
               : kim_fail(KIM_ERR_FORMAT, "%s: is damaged: its checksum is wrong", path);
}

static uint32_t read_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, 4);
    return value;
}

// Every token is in the vocabulary, or a soft token of the next picture.
static kim_err check_tokens(const kim_session *s, const session_header *h, const payload *p,
                            const char *path)
{
    uint64_t end = 0; // of the last picture so far
    uint32_t n = 0;
    for (uint64_t i = 0; i < h->position; i++) {
        const uint32_t id = read_u32(p->tokens + i * 4);
        if (i >= end && n < h->n_pictures && read_u32(p->firsts + n * 4ull) == i) {
            end = i + h->image_tokens;
            n++;
        }
        if (i < end ? id != (uint32_t)s->model->info.image_token : id >= s->model->arch.vocab)
            return kim_fail(KIM_ERR_FORMAT, "%s: is damaged: token %llu is %d", path,
                            (unsigned long long)i, (int)id);
    }
    return n == h->n_pictures && end <= h->position
               ? KIM_OK
               : kim_fail(KIM_ERR_FORMAT, "%s: is damaged: its pictures are not in its tokens",
                          path);
}

static kim_err load_pictures(session_pictures *out, const kim_session *s, const session_header *h,
                             const payload *p)
{
    kim_err err = KIM_OK;
    soft_tile *tile = NULL;
    for (uint32_t i = 0; i < h->n_pictures; i++) {
        tile = soft_tile_create(h->image_tokens, s->model->arch.hidden, NULL, 0);
        REQUIRE_MEMORY(tile);
        memcpy(tile->rows, p->soft + i * picture_bytes(s), picture_bytes(s));
        TRY(session_pictures_add(out, read_u32(p->firsts + i * 4ull), tile));
        soft_tile_release(&tile);
    }
    return KIM_OK;
error:
    soft_tile_release(&tile);
    session_pictures_destroy(out);
    return err;
}

kim_err kim_session_load(kim_session *session, const char *path)
{
    kim_err err = KIM_OK;
    kim_session *s = session;
    file_mapping file = { 0 };
    pool staging = { 0 };
    span buffer;
    session_header h;
    session_pictures pictures = { 0 };
    if (!session || !path)
        FAIL(KIM_ERR_ARGUMENT, "kim_session_load: session or path is NULL");
    TRY(file_map(&file, path));
    TRY(check_header(s, &file, path, &h));
    const payload p = payload_parts(s, &h, file.data + sizeof h);
    TRY(check_hash(s, &h, &p, path));
    TRY(check_tokens(s, &h, &p, path));
    TRY(load_pictures(&pictures, s, &h, &p));
    TRY(create_staging(s, h.position, POOL_UPLOAD, &staging, &buffer));

    // From here on the session's past is replaced; a failure of the device leaves it empty.
    s->prompt.rows = 0;
    s->position = s->written = s->loaded = 0;
    s->has_logits = false;
    session_pictures_cut(&s->pictures, 0);
    const uint8_t *at = p.kv;
    for (uint32_t i = 0; i < s->model->arch.layers; i++) {
        const uint64_t bytes = layer_bytes(s, i, h.position);
        memcpy(span_map(&buffer), at, bytes);
        TRY(copy_layer(s, i, h.position, &buffer, true));
        at += bytes;
    }
    TRY(stream_reset(s->prompt.st));
    memcpy(s->tokens, p.tokens, h.position * 4);
    if (h.has_logits)
        memcpy(span_map(&s->memory.logits_back), p.logits, s->model->arch.vocab * 4ull);
    session_pictures_destroy(&s->pictures);
    s->pictures = pictures;
    pictures = (session_pictures){ 0 };
    s->position = (uint32_t)h.position;
    // A file holds just one window: going back from here means reading the tokens again.
    s->written = s->loaded = s->position;
    s->has_logits = h.has_logits;
error:
    if (staging.gpu)
        (void)stream_reset(s->prompt.st);
    pool_destroy(&staging);
    session_pictures_destroy(&pictures);
    file_unmap(&file);
    return err;
}
