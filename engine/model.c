// SPDX-License-Identifier: MIT
// A model: opened from a GGUF file, checked, placed, and put on the device.
#include "model.h"

#include "chat_template.h"

#include "host/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ------------------------------------------------------------------------- finding the tensors

// A tensor of a shape that the architecture demands; width 0: any.
static kim_err find_tensor(const gguf *g, const char *name, uint64_t width, uint64_t rows,
                           const gguf_tensor **out)
{
    const gguf_tensor *t = gguf_find_tensor(g, name);
    if (!t)
        return kim_fail(KIM_ERR_FORMAT, "%s: the tensor %s is missing", gguf_path(g), name);
    if (t->ne[0] != width || (rows && t->ne[1] != rows) || t->ne[2] != 1 || t->ne[3] != 1)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s: the tensor %s has the shape %llu x %llu x %llu x %llu; "
                        "%llu x %llu is expected",
                        gguf_path(g), name, (unsigned long long)t->ne[0],
                        (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                        (unsigned long long)t->ne[3], (unsigned long long)width,
                        (unsigned long long)(rows ? rows : t->ne[1]));
    *out = t;
    return KIM_OK;
}

static kim_err find_matrix(const gguf *g, const char *name, uint32_t width, uint32_t rows,
                           matrix_source *out)
{
    kim_err err = KIM_OK;
    const gguf_tensor *t;
    TRY(find_tensor(g, name, width, rows, &t));
    *out = (matrix_source){ .name = t->name, .data = t->data, .rows = rows };
    TRY(gguf_weight_type(g, t, &out->type));
error:
    return err;
}

// A norm: f32 in every file there is.
static kim_err find_norm(const gguf *g, const char *name, uint32_t width, const gguf_tensor **out)
{
    kim_err err = KIM_OK;
    TRY(find_tensor(g, name, width, 1, out));
    if ((*out)->type != 0)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: the tensor %s is of type %s; F32 is expected", gguf_path(g),
             name, tensor_type_find((*out)->type)->name);
error:
    return err;
}

// --------------------------------------------------------------------------------- placing

typedef struct layer_names {
    char name[48];
} layer_names;

static const char *layer_name(layer_names *n, uint32_t layer, const char *what)
{
    snprintf(n->name, sizeof n->name, "blk.%u.%s.weight", layer, what);
    return n->name;
}

static kim_err place_norm(kim_model *m, const char *name, uint32_t width, span *out)
{
    kim_err err = KIM_OK;
    const gguf_tensor *t;
    TRY(find_norm(m->file, name, width, &t));
    TRY(pool_place(&m->weights, width * 4ull, out));
error:
    return err;
}

static kim_err place_layer(kim_model *m, uint32_t i)
{
    kim_err err = KIM_OK;
    const architecture *a = &m->arch;
    const gguf *g = m->file;
    layer_weights *w = &m->layers[i];
    const uint32_t q = a->heads * a->head, kv = a->kv_heads * a->head;
    matrix_source s[3];
    layer_names n;
    TRY(place_norm(m, layer_name(&n, i, "attn_norm"), a->hidden, &w->norm_attention));
    TRY(find_matrix(g, layer_name(&n, i, "attn_q"), a->hidden, q, &s[0]));
    TRY(find_matrix(g, layer_name(&n, i, "attn_k"), a->hidden, kv, &s[1]));
    TRY(find_matrix(g, layer_name(&n, i, "attn_v"), a->hidden, kv, &s[2]));
    TRY(linear_place(&w->qkv, &m->weights, s, 3, a->hidden, false));
    TRY(place_norm(m, layer_name(&n, i, "attn_q_norm"), a->head, &w->norm_q));
    TRY(place_norm(m, layer_name(&n, i, "attn_k_norm"), a->head, &w->norm_k));
    TRY(find_matrix(g, layer_name(&n, i, "attn_output"), q, a->hidden, &s[0]));
    TRY(linear_place(&w->o, &m->weights, s, 1, q, false));
    TRY(place_norm(m, layer_name(&n, i, "post_attention_norm"), a->hidden,
                   &w->norm_post_attention));
    TRY(place_norm(m, layer_name(&n, i, "ffn_norm"), a->hidden, &w->norm_feed_forward));
    TRY(find_matrix(g, layer_name(&n, i, "ffn_gate"), a->hidden, a->feed_forward, &s[0]));
    TRY(find_matrix(g, layer_name(&n, i, "ffn_up"), a->hidden, a->feed_forward, &s[1]));
    TRY(linear_place(&w->gate_up, &m->weights, s, 2, a->hidden, true));
    TRY(find_matrix(g, layer_name(&n, i, "ffn_down"), a->feed_forward, a->hidden, &s[0]));
    TRY(linear_place(&w->down, &m->weights, s, 1, a->feed_forward, false));
    TRY(place_norm(m, layer_name(&n, i, "post_ffw_norm"), a->hidden, &w->norm_post_feed_forward));
error:
    return err;
}

static uint64_t rotation_bytes(const architecture *a)
{
    return (uint64_t)rope_table_rows(a->context) * (a->head / 2) * 8;
}

// Checks every tensor against the architecture and gives each its place. Allocates nothing on a
// device.
static kim_err place_weights(kim_model *m)
{
    kim_err err = KIM_OK;
    architecture *a = &m->arch;
    matrix_source s;
    const gguf_tensor *t;
    m->layers = calloc(a->layers, sizeof *m->layers);
    REQUIRE_MEMORY(m->layers);
    TRY(find_tensor(m->file, "token_embd.weight", a->hidden, 0, &t));
    if (t->ne[1] < tokenizer_vocab(m->tokens) || t->ne[1] > 1u << 24)
        FAIL(KIM_ERR_FORMAT,
             "%s: the tensor token_embd.weight has %llu rows for a vocabulary of %u "
             "tokens",
             gguf_path(m->file), (unsigned long long)t->ne[1], tokenizer_vocab(m->tokens));
    a->vocab = (uint32_t)t->ne[1];
    if (gguf_find_tensor(m->file, "output.weight"))
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: has a tensor output.weight; in Gemma 3 the output is the "
             "embedding",
             gguf_path(m->file));
    TRY(find_matrix(m->file, "token_embd.weight", a->hidden, a->vocab, &s));
    TRY(linear_place(&m->embedding, &m->weights, &s, 1, a->hidden, false));
    TRY(place_norm(m, "output_norm.weight", a->hidden, &m->norm_output));
    TRY(pool_place(&m->weights, rotation_bytes(a), &m->rotation_local));
    TRY(pool_place(&m->weights, rotation_bytes(a), &m->rotation_global));
    for (uint32_t i = 0; i < a->layers; i++)
        TRY(place_layer(m, i));
error:
    return err;
}

// -------------------------------------------------------------------------------- uploading

static kim_err upload_norm(uploader *u, const kim_model *m, const char *name, const span *to)
{
    const gguf_tensor *t = gguf_find_tensor(m->file, name);
    return upload_bytes(u, to, t->data, to->bytes);
}

static kim_err upload_layer(uploader *u, const kim_model *m, uint32_t i)
{
    kim_err err = KIM_OK;
    const layer_weights *w = &m->layers[i];
    layer_names n;
    TRY(upload_norm(u, m, layer_name(&n, i, "attn_norm"), &w->norm_attention));
    TRY(upload_norm(u, m, layer_name(&n, i, "attn_q_norm"), &w->norm_q));
    TRY(upload_norm(u, m, layer_name(&n, i, "attn_k_norm"), &w->norm_k));
    TRY(upload_norm(u, m, layer_name(&n, i, "post_attention_norm"), &w->norm_post_attention));
    TRY(upload_norm(u, m, layer_name(&n, i, "ffn_norm"), &w->norm_feed_forward));
    TRY(upload_norm(u, m, layer_name(&n, i, "post_ffw_norm"), &w->norm_post_feed_forward));
    TRY(upload_linear(u, &w->qkv));
    TRY(upload_linear(u, &w->o));
    TRY(upload_linear(u, &w->gate_up));
    TRY(upload_linear(u, &w->down));
error:
    return err;
}

static kim_err upload_rotation(uploader *u, const architecture *a, double base, double factor,
                               const span *to)
{
    kim_err err = KIM_OK;
    float *table = malloc(to->bytes);
    REQUIRE_MEMORY(table);
    rope_table_fill(table, a->context, a->head, base, factor);
    TRY(upload_bytes(u, to, table, to->bytes));
error:
    free(table);
    return err;
}

static kim_err upload_weights(kim_model *m, const kim_model_params *p)
{
    kim_err err = KIM_OK;
    uploader *u = NULL;
    const architecture *a = &m->arch;
    const gguf_tensor *first = gguf_tensor_at(m->file, 0);
    const file_mapping file = { (const uint8_t *)first->data - first->offset,
                                gguf_file_bytes(m->file) };
    TRY(pool_commit(&m->weights, m->gpu));
    TRY(uploader_create(&u, m->gpu, &file, p->progress, p->progress_user, pool_bytes(&m->weights)));
    TRY(upload_linear(u, &m->embedding));
    TRY(upload_norm(u, m, "output_norm.weight", &m->norm_output));
    TRY(upload_rotation(u, a, a->base_local, 1.0, &m->rotation_local));
    TRY(upload_rotation(u, a, a->base_global, a->factor_global, &m->rotation_global));
    for (uint32_t i = 0; i < a->layers; i++)
        TRY(upload_layer(u, m, i));
    TRY(uploader_finish(u));
error:
    uploader_destroy(&u);
    return err;
}

// ------------------------------------------------------------------------------ public functions

static void copy_string(const gguf *g, const char *key, char *to, size_t room)
{
    gguf_string s = { "", 0 };
    if (gguf_get_string(g, key, &s, NULL)) // not a string: as if it were absent
        return;
    snprintf(to, room, "%.*s", (int)(s.length < room ? s.length : room - 1), s.data);
}

static void fill_info(kim_model *m)
{
    const architecture *a = &m->arch;
    const tokenizer_ids *ids = tokenizer_get_ids(m->tokens);
    kim_model_info *i = &m->info;
    snprintf(i->architecture, sizeof i->architecture, "gemma3");
    snprintf(i->size, sizeof i->size, "%s", architecture_size(a));
    copy_string(m->file, "general.name", i->name, sizeof i->name);
    i->chat = gguf_find_key(m->file, "tokenizer.chat_template") != NULL;
    i->layers = a->layers;
    i->hidden = a->hidden;
    i->feed_forward = a->feed_forward;
    i->heads = a->heads;
    i->kv_heads = a->kv_heads;
    i->head_size = a->head;
    i->vocab = a->vocab;
    i->window = a->window;
    while (a->window && i->window_pattern < a->layers && a->is_local[i->window_pattern])
        i->window_pattern++;
    i->window_pattern += a->window ? 1 : 0;
    i->context = a->context;
    i->rms_eps = a->eps;
    i->rope_base_global = a->base_global;
    i->rope_base_local = a->base_local;
    i->rope_factor_global = a->factor_global;
    i->attention_scale = a->q_scale;
    i->file_bytes = gguf_file_bytes(m->file);
    i->tensors = gguf_tensor_count(m->file);
    for (uint32_t t = 0; t < i->tensors; t++) {
        const uint64_t *ne = gguf_tensor_at(m->file, t)->ne;
        i->parameters += ne[0] * ne[1] * ne[2] * ne[3];
    }
    i->bos = ids->bos;
    i->eos = ids->eos;
    i->end_of_turn = ids->end_of_turn;
}

kim_err kim_model_open(kim_model **out, kim_gpu *gpu, const char *path,
                       const kim_model_params *params)
{
    static const kim_model_params defaults;
    kim_err err = KIM_OK;
    kim_model *m = NULL;
    if (!out || !path)
        FAIL(KIM_ERR_ARGUMENT, "kim_model_open: out or path is NULL");
    *out = NULL;
    m = calloc(1, sizeof *m);
    REQUIRE_MEMORY(m);
    m->gpu = gpu;
    pool_init(&m->weights, "weights", POOL_DEVICE, gpu ? pool_limit_of(gpu) : 0);
    TRY(gguf_open(&m->file, path));
    TRY(architecture_read(&m->arch, m->file));
    TRY(tokenizer_create_from_gguf(&m->tokens, m->file));
    TRY(place_weights(m));
    fill_info(m);
    if (gpu)
        TRY(upload_weights(m, params ? params : &defaults));
    *out = m;
    return KIM_OK;
error:
    kim_model_destroy(&m);
    return err;
}

void kim_model_destroy(kim_model **model)
{
    if (!model || !*model)
        return;
    kim_model *m = *model;
    for (uint32_t i = 0; m->layers && i < m->arch.layers; i++) {
        linear_destroy(&m->layers[i].qkv);
        linear_destroy(&m->layers[i].o);
        linear_destroy(&m->layers[i].gate_up);
        linear_destroy(&m->layers[i].down);
    }
    linear_destroy(&m->embedding);
    pool_destroy(&m->weights);
    free(m->layers);
    tokenizer_destroy(&m->tokens);
    architecture_destroy(&m->arch);
    gguf_close(&m->file);
    free(m);
    *model = NULL;
}

const kim_model_info *kim_model_get_info(const kim_model *model)
{
    return &model->info;
}

kim_err kim_model_get_tensor(const kim_model *model, uint32_t index, kim_tensor_info *out)
{
    if (!model || !out || index >= model->info.tensors)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_model_get_tensor: there is no tensor %u", index);
    const gguf_tensor *t = gguf_tensor_at(model->file, index);
    *out = (kim_tensor_info){
        .name = t->name,
        .type = tensor_type_find(t->type)->name,
        .dims = t->n_dims,
        .bytes = t->bytes,
    };
    memcpy(out->shape, t->ne, sizeof out->shape);
    return KIM_OK;
}

kim_err kim_tokenize(const kim_model *model, const char *text, size_t length, bool special,
                     int32_t **ids, uint32_t *count)
{
    if (!model || (!text && length) || !ids || !count)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_tokenize: an argument is NULL");
    return tokenizer_encode(model->tokens, text, length, special, ids, count);
}

const char *kim_token_bytes(const kim_model *model, int32_t id, bool special, size_t *length)
{
    return tokenizer_bytes(model->tokens, id, special, length);
}

bool kim_token_ends(const kim_model *model, int32_t id)
{
    return tokenizer_ends(model->tokens, id);
}

kim_err kim_chat_tokens(const kim_model *model, const kim_message *messages, uint32_t count,
                        int32_t **ids, uint32_t *n_ids)
{
    if (!model || !messages || !count || !ids || !n_ids)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_chat_tokens: an argument is NULL, or there is no "
                                          "message");
    return chat_tokens(model->tokens, messages, count, ids, n_ids);
}

void kim_free(void *pointer)
{
    free(pointer);
}
