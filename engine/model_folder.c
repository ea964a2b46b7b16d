// SPDX-License-Identifier: MIT
// A folder as published: config.json and the other settings, tokenizer.json, safetensors files.
#include "model_files.h"

#include "host/error.h"
#include "host/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CROPS = 64 };

// ---------------------------------------------------------------------------------------- names

typedef struct name_pair {
    const char *published, *gguf;
} name_pair;

// A part of a model: tensors by themselves, and those of layers.
typedef struct name_map {
    const char *layers, *blocks;          // what stands before a layer's number
    const name_pair *single, *of_a_layer; // end with NULL
} name_map;

static const name_pair text_single[] = {
    { "embed_tokens.weight", "token_embd.weight" },
    { "norm.weight", "output_norm.weight" },
    { "lm_head.weight", "output.weight" },
    { NULL, NULL },
};
static const name_pair text_layer[] = {
    { "input_layernorm.weight", "attn_norm.weight" },
    { "self_attn.q_proj.weight", "attn_q.weight" },
    { "self_attn.k_proj.weight", "attn_k.weight" },
    { "self_attn.v_proj.weight", "attn_v.weight" },
    { "self_attn.o_proj.weight", "attn_output.weight" },
    { "self_attn.q_norm.weight", "attn_q_norm.weight" },
    { "self_attn.k_norm.weight", "attn_k_norm.weight" },
    { "post_attention_layernorm.weight", "post_attention_norm.weight" },
    { "pre_feedforward_layernorm.weight", "ffn_norm.weight" },
    { "mlp.gate_proj.weight", "ffn_gate.weight" },
    { "mlp.up_proj.weight", "ffn_up.weight" },
    { "mlp.down_proj.weight", "ffn_down.weight" },
    { "post_feedforward_layernorm.weight", "post_ffw_norm.weight" },
    { NULL, NULL },
};
static const name_pair vision_single[] = {
    { "embeddings.patch_embedding.weight", "v.patch_embd.weight" },
    { "embeddings.patch_embedding.bias", "v.patch_embd.bias" },
    { "embeddings.position_embedding.weight", "v.position_embd.weight" },
    { "post_layernorm.weight", "v.post_ln.weight" },
    { "post_layernorm.bias", "v.post_ln.bias" },
    { NULL, NULL },
};
static const name_pair vision_layer[] = {
    { "layer_norm1.weight", "ln1.weight" },
    { "layer_norm1.bias", "ln1.bias" },
    { "layer_norm2.weight", "ln2.weight" },
    { "layer_norm2.bias", "ln2.bias" },
    { "self_attn.q_proj.weight", "attn_q.weight" },
    { "self_attn.q_proj.bias", "attn_q.bias" },
    { "self_attn.k_proj.weight", "attn_k.weight" },
    { "self_attn.k_proj.bias", "attn_k.bias" },
    { "self_attn.v_proj.weight", "attn_v.weight" },
    { "self_attn.v_proj.bias", "attn_v.bias" },
    { "self_attn.out_proj.weight", "attn_out.weight" },
    { "self_attn.out_proj.bias", "attn_out.bias" },
    { "mlp.fc1.weight", "ffn_up.weight" },
    { "mlp.fc1.bias", "ffn_up.bias" },
    { "mlp.fc2.weight", "ffn_down.weight" },
    { "mlp.fc2.bias", "ffn_down.bias" },
    { NULL, NULL },
};
static const name_pair projector_single[] = {
    { "mm_input_projection_weight", "mm.input_projection.weight" },
    { "mm_soft_emb_norm.weight", "mm.soft_emb_norm.weight" },
    { NULL, NULL },
};
static const name_map text_names = { "layers.", "blk.", text_single, text_layer };
static const name_map vision_names = { "encoder.layers.", "v.blk.", vision_single, vision_layer };
static const name_map projector_names = { NULL, NULL, projector_single, NULL };

// Steps over `prefix`, if the name begins with it.
static bool skip(const char **name, const char *prefix)
{
    const size_t length = strlen(prefix);
    if (strncmp(*name, prefix, length))
        return false;
    *name += length;
    return true;
}

static const char *find_pair(const name_pair *pairs, const char *name)
{
    while (pairs->published && strcmp(pairs->published, name))
        pairs++;
    return pairs->gguf;
}

static bool map_name(const name_map *map, const char *name, char *to, size_t room)
{
    const char *found;
    if (!map->layers || !skip(&name, map->layers)) {
        found = find_pair(map->single, name);
        return found && snprintf(to, room, "%s", found) < (int)room;
    }
    const size_t digits = strspn(name, "0123456789");
    found = digits && digits < 6 && name[digits] == '.'
                ? find_pair(map->of_a_layer, name + digits + 1)
                : NULL;
    return found &&
           snprintf(to, room, "%s%.*s.%s", map->blocks, (int)digits, name, found) < (int)room;
}

// The names before the parts have changed with transformers' versions: all that there were are
// read.
static bool rename_tensor(void *user, const char *name, char *to, size_t room)
{
    (void)user;
    skip(&name, "model.");
    if (skip(&name, "multi_modal_projector.") || skip(&name, "multimodal_projector."))
        return map_name(&projector_names, name, to, room);
    const bool tower = skip(&name, "vision_tower.");
    if (skip(&name, "vision_model.") || tower)
        return map_name(&vision_names, name, to, room);
    if (skip(&name, "language_model."))
        skip(&name, "model.");
    return map_name(&text_names, name, to, room);
}

// ------------------------------------------------------------------------------------- settings

// A document of the folder; NULL: there is no such file.
static kim_err open_settings(const char *folder, const char *name, json_document **out)
{
    kim_err err = KIM_OK;
    *out = NULL;
    char *path = file_in_folder(folder, name);
    REQUIRE_MEMORY(path);
    if (file_find(path) != FILE_ABSENT)
        TRY(json_open(out, path));
error:
    free(path);
    return err;
}

static kim_err read_size(const json_place *object, const char *name, uint32_t *value,
                         uint32_t fallback)
{
    *value = fallback;
    return json_get_u32(object, name, value, NULL);
}

// The defaults are those of the published configuration classes.
static kim_err read_vision(model_files *f, const json_place *top, const json_place *vision)
{
    kim_err err = KIM_OK;
    encoder_shape *s = &f->shape;
    const char *type = "siglip_vision_model", *act = "gelu_pytorch_tanh";
    uint32_t channels;
    TRY(json_get_text(vision, "model_type", &type, NULL));
    TRY(json_get_text(vision, "hidden_act", &act, NULL));
    TRY(read_size(vision, "num_channels", &channels, 3));
    if (strcmp(type, "siglip_vision_model") || strcmp(act, "gelu_pytorch_tanh") || channels != 3)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: vision_config has the model_type %.40s, the hidden_act %.40s and %u channels; "
             "only siglip_vision_model, gelu_pytorch_tanh and 3 are supported",
             top->path, type, act, channels);
    TRY(read_size(vision, "image_size", &s->image, 224));
    TRY(read_size(vision, "patch_size", &s->patch, 16));
    TRY(read_size(vision, "hidden_size", &s->hidden, 768));
    TRY(read_size(vision, "intermediate_size", &s->feed_forward, 3072));
    TRY(read_size(vision, "num_hidden_layers", &s->layers, 12));
    TRY(read_size(vision, "num_attention_heads", &s->heads, 12));
    TRY(read_size(top, "mm_tokens_per_image", &s->tokens, 256));
    s->eps = 1e-6f;
    TRY(json_get_f32(vision, "layer_norm_eps", &s->eps, NULL));
    s->text_hidden = f->arch.hidden;
    f->vision = f->text;
error:
    return err;
}

// The ids in the config are those of the vocabulary.
static kim_err check_image_ids(const model_files *f, const json_place *top)
{
    kim_err err = KIM_OK;
    const tokenizer_ids *ids = tokenizer_get_ids(f->tokens);
    const struct {
        const char *name, *text;
        uint32_t fallback;
        int32_t id;
    } tokens[] = {
        { "boi_token_index", "<start_of_image>", 255999, ids->start_of_image },
        { "eoi_token_index", "<end_of_image>", 256000, ids->end_of_image },
        { "image_token_index", "<image_soft_token>", 262144, ids->image_soft_token },
    };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        uint32_t id;
        TRY(read_size(top, tokens[i].name, &id, tokens[i].fallback));
        if ((int64_t)id != tokens[i].id)
            FAIL(KIM_ERR_FORMAT, "%s: %s is %u, but %s has the id %d in tokenizer.json", top->path,
                 tokens[i].name, id, tokens[i].text, tokens[i].id);
    }
error:
    return err;
}

static kim_err read_config(model_files *f, const json_place *top, json_place *vision)
{
    kim_err err = KIM_OK;
    const char *type = "";
    json_place text = *top;
    *vision = json_find(top, "vision_config");
    TRY(json_get_text(top, "model_type", &type, NULL));
    if (!strcmp(type, "gemma3")) {
        TRY(json_get_object(top, "text_config", &text));
        TRY(json_get_object(top, "vision_config", vision));
        if (!text.value)
            FAIL(KIM_ERR_FORMAT, "%s: text_config is missing", top->path);
    } else if (strcmp(type, "gemma3_text")) {
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: model_type is '%.40s'; only gemma3 and gemma3_text are supported", top->path,
             type);
    }
    TRY(architecture_read_config(&f->arch, &text));
error:
    return err;
}

// -------------------------------------------------------------------------------- preprocessing

static kim_err read_colours(const json_place *p, const char *name, float *to)
{
    kim_err err = KIM_OK;
    json_place list;
    uint32_t n = 0;
    TRY(json_get_array(p, name, &list));
    for (const json *v = json_first(list.value); v; v = json_next(v), n++) {
        double value;
        if (n == 3 || !json_number(v, &value))
            break;
        to[n] = (float)value;
    }
    if (list.value && (n != 3 || json_count(list.value) != 3))
        FAIL(KIM_ERR_FORMAT, "%s: %s is not of 3 numbers", p->path, list.name);
error:
    return err;
}

// What is done here with every picture, and cannot be switched off.
static kim_err check_steps(const json_place *p)
{
    static const char *const steps[] = { "do_resize", "do_rescale", "do_normalize" };
    kim_err err = KIM_OK;
    uint32_t resample;
    float factor = 1.0f / 255;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        bool on = true;
        TRY(json_get_bool(p, steps[i], &on, NULL));
        if (!on)
            FAIL(KIM_ERR_UNSUPPORTED, "%s: %s is false; only true is supported", p->path, steps[i]);
    }
    TRY(read_size(p, "resample", &resample, 2));
    TRY(json_get_f32(p, "rescale_factor", &factor, NULL));
    if (resample != 2 || fabsf(factor * 255 - 1) > 1e-6f)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: resample is %u and rescale_factor %g; only 2 (bilinear) and 1/255 are supported",
             p->path, resample, (double)factor);
error:
    return err;
}

static kim_err read_pixels(model_files *f, const json_place *p)
{
    kim_err err = KIM_OK;
    json_place size;
    uint32_t width, height;
    TRY(check_steps(p));
    TRY(json_get_object(p, "size", &size));
    TRY(read_size(&size, "width", &width, f->shape.image));
    TRY(read_size(&size, "height", &height, f->shape.image));
    if (width != f->shape.image || height != f->shape.image)
        FAIL(KIM_ERR_FORMAT,
             "%s: size is %u x %u, but vision_config.image_size in config.json is %u", p->path,
             width, height, f->shape.image);
    TRY(read_colours(p, "image_mean", f->shape.mean));
    TRY(read_colours(p, "image_std", f->shape.std));
    TRY(json_get_bool(p, "do_pan_and_scan", &f->crops.on, NULL));
    TRY(json_get_u32(p, "pan_and_scan_min_crop_size", &f->crops.min_crop, NULL));
    TRY(json_get_u32(p, "pan_and_scan_max_num_crops", &f->crops.max_crops, NULL));
    TRY(json_get_f32(p, "pan_and_scan_min_ratio_to_activate", &f->crops.ratio, NULL));
    if (f->crops.max_crops > MAX_CROPS)
        FAIL(KIM_ERR_FORMAT, "%s: pan_and_scan_max_num_crops is %u; at most %d is expected",
             p->path, f->crops.max_crops, MAX_CROPS);
error:
    return err;
}

// preprocessor_config.json; since transformers 5 it is a part of processor_config.json.
static kim_err read_processor(model_files *f, const char *folder)
{
    kim_err err = KIM_OK;
    json_document *old = NULL, *d = NULL;
    json_place p;
    uint32_t tokens;
    model_files_default_pixels(f);
    TRY(open_settings(folder, "processor_config.json", &d));
    if (d) {
        p = json_top(d);
        TRY(read_size(&p, "image_seq_length", &tokens, f->shape.tokens));
        if (tokens != f->shape.tokens)
            FAIL(KIM_ERR_FORMAT,
                 "%s: image_seq_length is %u, but mm_tokens_per_image in config.json is %u", p.path,
                 tokens, f->shape.tokens);
        const json_place top = p;
        TRY(json_get_object(&top, "image_processor", &p));
        TRY(read_pixels(f, &p));
    }
    TRY(open_settings(folder, "preprocessor_config.json", &old));
    if (old) {
        p = json_top(old);
        TRY(read_pixels(f, &p));
    }
error:
    json_close(&old);
    json_close(&d);
    return err;
}

// ------------------------------------------------------------------------------------ tokenizer

// The ids of one end, or of several.
static kim_err add_ends(tokenizer *t, const json_document *d)
{
    kim_err err = KIM_OK;
    const json_place top = json_top(d), ends = json_find(&top, "eos_token_id");
    const json *v = json_is_array(ends.value) ? json_first(ends.value) : ends.value;
    while (v) {
        uint64_t id;
        if (!json_integer(v, INT32_MAX, &id))
            FAIL(KIM_ERR_FORMAT, "%s: %s is not an id or an array of ids", top.path, ends.name);
        err = tokenizer_add_end(t, (int32_t)id);
        if (err) {
            kim_fail_prefix(err, top.path);
            goto error;
        }
        v = json_is_array(ends.value) ? json_next(v) : NULL;
    }
error:
    return err;
}

static kim_err read_tokenizer(model_files *f, const char *folder)
{
    kim_err err = KIM_OK;
    json_document *generation = NULL;
    char *path = file_in_folder(folder, "tokenizer.json");
    REQUIRE_MEMORY(path);
    TRY(tokenizer_create_from_json(&f->tokens, path));
    TRY(open_settings(folder, "generation_config.json", &generation));
    if (generation)
        TRY(add_ends(f->tokens, generation));
error:
    free(path);
    json_close(&generation);
    return err;
}

// In a file of its own, or among the tokenizer's settings.
static kim_err find_chat_template(model_files *f, const char *folder)
{
    static const char *const names[] = { "chat_template.jinja", "chat_template.json" };
    kim_err err = KIM_OK;
    json_document *d = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = file_in_folder(folder, names[i]);
        REQUIRE_MEMORY(path);
        f->chat |= file_find(path) != FILE_ABSENT;
        free(path);
    }
    TRY(open_settings(folder, "tokenizer_config.json", &d));
    if (d) {
        const json_place top = json_top(d);
        f->chat |= json_find(&top, "chat_template").value != NULL;
    }
error:
    json_close(&d);
    return err;
}

// ---------------------------------------------------------------------------------------- whole

static void name_after_folder(model_files *f, const char *folder)
{
    size_t end = strlen(folder), begin;
    while (end > 1 && folder[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && folder[begin - 1] != '/';)
        begin--;
    snprintf(f->name, sizeof f->name, "%.*s", (int)(end - begin < 127 ? end - begin : 127),
             folder + begin);
}

static void count_bytes(model_files *f)
{
    for (uint32_t i = 0; i < tensors_count(f->text); i++)
        f->bytes += tensors_at(f->text, i)->bytes;
}

kim_err model_folder_read(model_files *f, const char *folder)
{
    kim_err err = KIM_OK;
    json_document *config = NULL;
    json_place vision;
    char *path = file_in_folder(folder, "config.json");
    REQUIRE_MEMORY(path);
    TRY(json_open(&config, path));
    const json_place top = json_top(config);
    f->norm_add = 1;
    name_after_folder(f, folder);
    TRY(read_config(f, &top, &vision));
    TRY(tensors_from_folder(&f->text, folder, rename_tensor, NULL));
    count_bytes(f);
    TRY(read_tokenizer(f, folder));
    TRY(find_chat_template(f, folder));
    if (vision.value) {
        TRY(read_vision(f, &top, &vision));
        TRY(read_processor(f, folder));
        TRY(check_image_ids(f, &top));
    }
error:
    free(path);
    json_close(&config);
    return err;
}
