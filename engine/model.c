// SPDX-License-Identifier: MIT
// A model: opened from its files, checked, placed, and put on the device.
#include "session.h"

#include "chat_template.h"

#include "host/clock.h"
#include "host/error.h"
#include "host/threads.h"
#include "host/weight_quantize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --------------------------------------------------------------------------------- placing

// The norms of a layer: vectors in f32.
static const struct layer_norm {
    const char *name;
    size_t offset; // in layer_weights
    bool of_head;  // as wide as a head; false: as the hidden state
} layer_norms[] = {
    { "attn_norm", offsetof(layer_weights, norm_attention), false },
    { "attn_q_norm", offsetof(layer_weights, norm_q), true },
    { "attn_k_norm", offsetof(layer_weights, norm_k), true },
    { "post_attention_norm", offsetof(layer_weights, norm_post_attention), false },
    { "ffn_norm", offsetof(layer_weights, norm_feed_forward), false },
    { "post_ffw_norm", offsetof(layer_weights, norm_post_feed_forward), false },
};

enum { N_LAYER_NORMS = sizeof layer_norms / sizeof *layer_norms };

static span *norm_of(layer_weights *w, uint32_t which)
{
    return (span *)((char *)w + layer_norms[which].offset);
}

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
    const file_tensor *t;
    TRY(tensors_expect_plain(m->files.text, name, width, 1, &t));
    TRY(pool_place(&m->weights, width * 4ull, out));
    out->name = t->name;
error:
    return err;
}

static kim_err find_matrix(const kim_model *m, const char *name, uint32_t width, uint32_t rows,
                           matrix_source *out)
{
    kim_err err = matrix_find(m->files.text, name, width, rows, out);
    if (!err && m->quantize)
        matrix_quantize(out, width, m->quantize);
    return err;
}

static kim_err place_matrices(kim_model *m, uint32_t i)
{
    kim_err err = KIM_OK;
    const architecture *a = &m->arch;
    layer_weights *w = &m->layers[i];
    const uint32_t q = a->heads * a->head, kv = a->kv_heads * a->head;
    matrix_source s[3];
    layer_names n;
    TRY(find_matrix(m, layer_name(&n, i, "attn_q"), a->hidden, q, &s[0]));
    TRY(find_matrix(m, layer_name(&n, i, "attn_k"), a->hidden, kv, &s[1]));
    TRY(find_matrix(m, layer_name(&n, i, "attn_v"), a->hidden, kv, &s[2]));
    TRY(linear_place(&w->qkv, &m->weights, s, 3, a->hidden, false));
    TRY(find_matrix(m, layer_name(&n, i, "attn_output"), q, a->hidden, &s[0]));
    TRY(linear_place(&w->o, &m->weights, s, 1, q, false));
    TRY(find_matrix(m, layer_name(&n, i, "ffn_gate"), a->hidden, a->feed_forward, &s[0]));
    TRY(find_matrix(m, layer_name(&n, i, "ffn_up"), a->hidden, a->feed_forward, &s[1]));
    TRY(linear_place(&w->gate_up, &m->weights, s, 2, a->hidden, true));
    TRY(find_matrix(m, layer_name(&n, i, "ffn_down"), a->feed_forward, a->hidden, &s[0]));
    TRY(linear_place(&w->down, &m->weights, s, 1, a->feed_forward, false));
error:
    return err;
}

static kim_err place_layer(kim_model *m, uint32_t i)
{
    kim_err err = KIM_OK;
    layer_names n;
    for (uint32_t k = 0; k < N_LAYER_NORMS; k++)
        TRY(place_norm(m, layer_name(&n, i, layer_norms[k].name),
                       layer_norms[k].of_head ? m->arch.head : m->arch.hidden,
                       norm_of(&m->layers[i], k)));
    TRY(place_matrices(m, i));
error:
    return err;
}

static uint64_t rotation_bytes(const architecture *a)
{
    return (uint64_t)rope_table_rows(a->context) * (a->head / 2) * 8;
}

static kim_err place_embedding(kim_model *m)
{
    kim_err err = KIM_OK;
    architecture *a = &m->arch;
    matrix_source s;
    const file_tensor *t = tensors_find(m->files.text, "token_embd.weight");
    // the ids after those that can be drawn may be without a row: <image_soft_token> of text models
    const uint32_t least = m->files.draw_limit;
    if (t && (t->ne[1] < least || t->ne[1] > 1u << 24))
        FAIL(KIM_ERR_FORMAT,
             "%s: the tensor token_embd.weight has %llu rows for a vocabulary of %u tokens",
             t->path, (unsigned long long)t->ne[1], least);
    a->vocab = t ? (uint32_t)t->ne[1] : least;
    TRY(find_matrix(m, "token_embd.weight", a->hidden, a->vocab, &s));
    TRY(linear_place(&m->embedding, &m->weights, &s, 1, a->hidden, false));
    const file_tensor *output = tensors_find(m->files.text, "output.weight");
    if (output && (output->type != t->type || output->bytes != t->bytes ||
                   memcmp(output->data, t->data, t->bytes)))
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: has a tensor output.weight; in Gemma 3 the output is the embedding",
             output->path);
error:
    return err;
}

// Checks every tensor against the architecture and gives each its place. Allocates nothing on a
// device.
static kim_err place_weights(kim_model *m)
{
    kim_err err = KIM_OK;
    const architecture *a = &m->arch;
    m->layers = calloc(a->layers, sizeof *m->layers);
    REQUIRE_MEMORY(m->layers);
    TRY(place_embedding(m));
    TRY(place_norm(m, "output_norm.weight", a->hidden, &m->norm_output));
    TRY(pool_place(&m->weights, rotation_bytes(a), &m->rotation_local));
    TRY(pool_place(&m->weights, rotation_bytes(a), &m->rotation_global));
    m->rotation_local.name = "rotation local";
    m->rotation_global.name = "rotation global";
    for (uint32_t i = 0; i < a->layers; i++)
        TRY(place_layer(m, i));
error:
    return err;
}

// -------------------------------------------------------------------------------- uploading

static kim_err upload_norm(uploader *u, const kim_model *m, const char *name, const span *to)
{
    kim_err err = KIM_OK;
    float *values = malloc(to->bytes);
    REQUIRE_MEMORY(values);
    TRY(file_tensor_read(tensors_find(m->files.text, name), values));
    for (uint64_t i = 0; i < to->bytes / sizeof *values; i++)
        values[i] += m->files.norm_add;
    TRY(upload_bytes(u, to, values, to->bytes));
error:
    free(values);
    return err;
}

static kim_err upload_layer(uploader *u, const kim_model *m, uint32_t i)
{
    kim_err err = KIM_OK;
    layer_weights *w = &m->layers[i];
    layer_names n;
    for (uint32_t k = 0; k < N_LAYER_NORMS; k++)
        TRY(upload_norm(u, m, layer_name(&n, i, layer_norms[k].name), norm_of(w, k)));
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

// The text's weights come first, then the encoder's, as one progress.
typedef struct load_progress {
    const kim_model_params *params;
    uint64_t before, total;
} load_progress;

static bool report_progress(void *user, uint64_t done, uint64_t total)
{
    const load_progress *p = user;
    (void)total;
    return p->params->progress(p->params->progress_user, p->before + done, p->total);
}

static kim_err upload_weights(kim_model *m, load_progress *progress)
{
    kim_err err = KIM_OK;
    uploader *u = NULL;
    const architecture *a = &m->arch;
    TRY(pool_commit(&m->weights, m->gpu));
    TRY(uploader_create(&u, m->gpu, progress->params->progress ? report_progress : NULL, progress,
                        pool_bytes(&m->weights)));
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

// gpu: NULL: the vision part is checked and planned only
static kim_err create_encoder(kim_model *m, kim_gpu *gpu, load_progress *progress)
{
    encoder_destroy(&m->vision);
    if (!m->files.vision)
        return KIM_OK;
    return encoder_create(&m->vision, gpu, m->files.vision, &m->files.shape, m->files.norm_add,
                          progress && progress->params->progress ? report_progress : NULL,
                          progress);
}

typedef struct session_pipelines {
    const kim_model *m;
    kim_session_params params;
} session_pipelines;

static kim_err make_pipelines(void *user)
{
    const session_pipelines *p = user;
    return session_make_pipelines(p->m, &p->params);
}

static kim_err load(kim_model *m, const kim_model_params *params)
{
    kim_err err = KIM_OK;
    load_progress progress = { .params = params, .total = pool_bytes(&m->weights) };
    uint64_t weights = 0, activations;
    const double start = clock_seconds();
    side_work pipelines = { 0 };
    session_pipelines to_make = { .m = m };
    if (params->session && m->files.text) {
        TRY(session_params_fill(m, params->session, &to_make.params));
        side_work_begin(&pipelines, make_pipelines, &to_make);
    }
    if (m->vision)
        encoder_plan(m->vision, &weights, &activations);
    progress.total += weights;
    if (m->files.text)
        TRY(upload_weights(m, &progress));
    progress.before = pool_bytes(&m->weights);
    TRY(create_encoder(m, m->gpu, &progress));
    progress.before = progress.total; // what only fills up the space between weights
    if (params->progress && !report_progress(&progress, 0, 0))
        FAIL(KIM_ERR_CANCELLED, "loading was cancelled");
    m->load.upload_bytes = progress.total;
    m->load.upload_seconds = clock_seconds() - start;
error:
    return side_work_end(&pipelines, err);
}

// ------------------------------------------------------------------------------ public functions

static void count_tensors(kim_model_info *i, const tensors *t)
{
    i->tensors += tensors_count(t);
    for (uint32_t n = 0; n < tensors_count(t); n++) {
        const uint64_t *ne = tensors_at(t, n)->ne;
        i->parameters += ne[0] * ne[1] * ne[2] * ne[3];
    }
}

static void fill_encoder_info(kim_model *m)
{
    const encoder_shape *s = &m->files.shape;
    kim_model_info *i = &m->info;
    i->vision = true;
    i->image_size = s->image;
    i->image_patch = s->patch;
    i->image_tokens = s->tokens;
    i->vision_layers = s->layers;
    i->vision_hidden = s->hidden;
}

static void fill_vision_info(kim_model *m)
{
    const tokenizer_ids *ids = &m->files.ids;
    kim_model_info *i = &m->info;
    i->start_of_image = i->end_of_image = i->image_token = -1;
    if (!m->vision)
        return;
    fill_encoder_info(m);
    i->start_of_image = ids->start_of_image;
    i->end_of_image = ids->end_of_image;
    // GGUF files may leave it out: it is the first id after those of the text
    i->image_token =
        ids->image_soft_token >= 0 ? ids->image_soft_token : (int32_t)m->files.draw_limit;
}

// What is known without a text: as of a model of which nothing else is known.
static void fill_projector_info(kim_model *m)
{
    kim_model_info *i = &m->info;
    snprintf(i->architecture, sizeof i->architecture, "gemma3");
    i->hidden = m->files.shape.text_hidden;
    i->file_bytes = m->files.bytes;
    count_tensors(i, m->files.projector);
    i->bos = i->eos = i->end_of_turn = i->start_of_image = i->end_of_image = i->image_token = -1;
    fill_encoder_info(m);
}

static void fill_info(kim_model *m)
{
    const architecture *a = &m->arch;
    const tokenizer_ids *ids = &m->files.ids;
    kim_model_info *i = &m->info;
    snprintf(i->architecture, sizeof i->architecture, "gemma3");
    snprintf(i->size, sizeof i->size, "%s", architecture_size(a));
    snprintf(i->name, sizeof i->name, "%s", m->files.name);
    i->chat = m->files.chat;
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
    i->file_bytes = m->files.bytes;
    count_tensors(i, m->files.text);
    if (m->files.projector)
        count_tensors(i, m->files.projector);
    i->bos = ids->bos;
    i->eos = ids->eos;
    i->end_of_turn = ids->end_of_turn;
    fill_vision_info(m);
}

static kim_err find_quantize(kim_model *m, const char *name)
{
    kim_err err = KIM_OK;
    m->quantize = name ? weight_quantized_find(name) : NULL;
    if (name && !m->quantize)
        FAIL(KIM_ERR_ARGUMENT,
             "weights cannot be quantised to '%.32s'; q8_0 and q4_0 are supported", name);
error:
    return err;
}

kim_err kim_model_open(kim_model **out, kim_gpu *gpu, const char *path,
                       const kim_model_params *params)
{
    static const kim_model_params defaults;
    kim_err err = KIM_OK;
    kim_model *m = NULL;
    const double start = clock_seconds();
    if (!params)
        params = &defaults;
    if (!out || (!path && !params->mmproj && !params->synthetic))
        FAIL(KIM_ERR_ARGUMENT, "kim_model_open: out is NULL, or there is neither path nor mmproj");
    if (params->synthetic && (path || params->mmproj))
        FAIL(KIM_ERR_ARGUMENT,
             "kim_model_open: a synthetic model has no file; '%s' is one too many",
             path ? path : params->mmproj);
    *out = NULL;
    m = calloc(1, sizeof *m);
    REQUIRE_MEMORY(m);
    m->gpu = gpu;
    image_cache_init(&m->images);
    pool_init(&m->weights, "weights", POOL_DEVICE, gpu ? pool_limit_of(gpu) : 0);
    TRY(find_quantize(m, params->quantize));
    TRY(params->synthetic ? model_synthetic_open(&m->files, params->synthetic)
                          : model_files_open(&m->files, path, params->mmproj));
    m->tokens = m->files.tokens;
    m->arch = m->files.arch;
    if (m->files.text)
        TRY(place_weights(m));
    TRY(create_encoder(m, NULL, NULL));
    if (m->files.text)
        fill_info(m);
    else
        fill_projector_info(m);
    m->load.open_seconds = clock_seconds() - start;
    if (gpu)
        TRY(load(m, params));
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
    encoder_destroy(&m->vision);
    image_cache_destroy(&m->images);
    pool_destroy(&m->weights);
    free(m->layers);
    model_files_close(&m->files);
    free(m);
    *model = NULL;
}

const kim_model_info *kim_model_get_info(const kim_model *model)
{
    return &model->info;
}

void kim_model_get_load_stats(const kim_model *model, kim_load_stats *out)
{
    *out = model->load;
}

kim_err model_check_text(const kim_model *m)
{
    return m->files.text
               ? KIM_OK
               : kim_fail(KIM_ERR_ARGUMENT,
                          "%s: was opened alone, and a projector has no text; open the model "
                          "that it goes with",
                          tensors_path(m->files.vision));
}

// A text too, but one of ids alone, is an error.
static kim_err check_tokenizer(const kim_model *m)
{
    const kim_err err = model_check_text(m);
    return err || m->tokens ? err
                            : kim_fail(KIM_ERR_ARGUMENT,
                                       "%s: has no tokenizer; ids are all that it reads and gives",
                                       tensors_path(m->files.text));
}

kim_err kim_model_get_tensor(const kim_model *model, uint32_t index, kim_tensor_info *out)
{
    if (!model || !out || index >= model->info.tensors)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_model_get_tensor: there is no tensor %u", index);
    const uint32_t of_text = model->files.text ? tensors_count(model->files.text) : 0;
    const file_tensor *t = index < of_text ? tensors_at(model->files.text, index)
                                           : tensors_at(model->files.projector, index - of_text);
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
    const kim_err err = check_tokenizer(model);
    return err ? err : tokenizer_encode(model->tokens, text, length, special, ids, count);
}

const char *kim_token_bytes(const kim_model *model, int32_t id, bool special, size_t *length)
{
    *length = 0;
    return model->tokens ? tokenizer_bytes(model->tokens, id, special, length) : "";
}

bool kim_token_ends(const kim_model *model, int32_t id)
{
    return model->tokens && tokenizer_ends(model->tokens, id);
}

kim_err kim_chat_tokens(const kim_model *model, const kim_message *messages, uint32_t count,
                        int32_t **ids, uint32_t *n_ids)
{
    if (!model || !messages || !count || !ids || !n_ids)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_chat_tokens: an argument is NULL, or there is no "
                                          "message");
    const kim_err err = check_tokenizer(model);
    return err ? err : chat_tokens(model, messages, count, ids, n_ids);
}

kim_err kim_prompt_tokens(const kim_model *model, const kim_text *text, int32_t **ids,
                          uint32_t *n_ids)
{
    if (!model || !text || (!text->text && text->length) || (!text->images && text->n_images) ||
        !ids || !n_ids)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_prompt_tokens: an argument is NULL");
    const kim_err err = check_tokenizer(model);
    return err ? err : prompt_tokens(model, text, ids, n_ids);
}

void kim_free(void *pointer)
{
    free(pointer);
}
