// SPDX-License-Identifier: MIT
// The hyper-parameters of a Gemma 3 text model, from the keys of a GGUF file; and what every file's
// have in common.
#include "architecture.h"

#include "host/error.h"

#include <ctype.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST 1048576 // of any size, so that products fit in 64 bits with room to spare

typedef struct published {
    const char *name;
    uint32_t layers, hidden, feed_forward, heads, kv_heads, head, context, window;
    float factor_global;
} published;

static const published published_sizes[] = {
    { "270M", 18, 640, 2048, 4, 1, 256, 32768, 512, 1 },
    { "1B", 26, 1152, 6912, 4, 1, 256, 32768, 512, 1 },
    { "4B", 34, 2560, 10240, 8, 4, 256, 131072, 1024, 8 },
    { "12B", 48, 3840, 15360, 16, 8, 256, 131072, 1024, 8 },
    { "27B", 62, 5376, 21504, 32, 16, 128, 131072, 1024, 8 },
};

enum { N_PUBLISHED = sizeof published_sizes / sizeof *published_sizes };

const architecture_field architecture_fields[ARCHITECTURE_FIELDS] = {
    { offsetof(architecture, layers), 0, 1024, "block_count", "num_hidden_layers" },
    { offsetof(architecture, hidden), 0, LARGEST, "embedding_length", "hidden_size" },
    { offsetof(architecture, feed_forward), 0, LARGEST, "feed_forward_length",
      "intermediate_size" },
    { offsetof(architecture, heads), 8, 1024, "attention.head_count", "num_attention_heads" },
    { offsetof(architecture, kv_heads), 4, 1024, "attention.head_count_kv", "num_key_value_heads" },
    { offsetof(architecture, head), 256, 1024, "attention.key_length", "head_dim" },
    { offsetof(architecture, context), 131072, 1u << 24, "context_length",
      "max_position_embeddings" },
};

kim_err architecture_check_size(const char *path, const char *name, uint32_t value, uint32_t most)
{
    if (value && value <= most)
        return KIM_OK;
    return kim_fail(KIM_ERR_FORMAT, "%s: %s is %u; 1 to %u is expected", path, name, value, most);
}

kim_err architecture_check_positive(const char *path, const char *name, float value)
{
    if (value > 0 && isfinite(value))
        return KIM_OK;
    return kim_fail(KIM_ERR_FORMAT, "%s: %s is %g; a number above 0 is expected", path, name,
                    (double)value);
}

// fallback: the value if the key is absent; 0: it must be there
static kim_err read_size(const gguf *g, const char *key, uint32_t *value, uint32_t fallback,
                         uint32_t most)
{
    kim_err err = KIM_OK;
    bool found;
    *value = fallback;
    TRY(gguf_get_u32(g, key, value, &found));
    if (!found && !fallback)
        FAIL(KIM_ERR_FORMAT, "%s: the key %s is missing", gguf_path(g), key);
    TRY(architecture_check_size(gguf_path(g), key, *value, most));
error:
    return err;
}

static kim_err read_positive(const gguf *g, const char *key, float *value, float fallback)
{
    kim_err err = KIM_OK;
    *value = fallback;
    TRY(gguf_get_f32(g, key, value, NULL));
    TRY(architecture_check_positive(gguf_path(g), key, *value));
error:
    return err;
}

static kim_err check_architecture(const gguf *g)
{
    kim_err err = KIM_OK;
    gguf_string name = { "", 0 };
    bool found;
    TRY(gguf_get_string(g, "general.architecture", &name, &found));
    if (!found)
        FAIL(KIM_ERR_FORMAT, "%s: the key general.architecture is missing", gguf_path(g));
    if (name.length != 6 || memcmp(name.data, "gemma3", 6))
        FAIL(KIM_ERR_UNSUPPORTED, "%s: general.architecture is '%.*s'; only 'gemma3' is supported",
             gguf_path(g), (int)(name.length < 64 ? name.length : 64), name.data);
error:
    return err;
}

kim_err architecture_make_pattern(architecture *a, uint32_t every)
{
    kim_err err = KIM_OK;
    a->is_local = calloc(a->layers, sizeof *a->is_local);
    REQUIRE_MEMORY(a->is_local);
    for (uint32_t i = 0; a->window && i < a->layers; i++)
        a->is_local[i] = (i + 1) % every != 0;
error:
    return err;
}

// Which layers see only a window: every sixth is global, unless the file says otherwise, as a
// number or as one flag a layer.
static kim_err read_pattern(architecture *a, const gguf *g)
{
    static const char *const key = "gemma3.attention.sliding_window_pattern";
    kim_err err = KIM_OK;
    uint32_t every = 6;
    const gguf_key *k = gguf_find_key(g, key);
    const bool flags = k && k->type == GGUF_ARRAY;
    if (flags && (k->item_type != GGUF_BOOL || k->count != a->layers))
        FAIL(KIM_ERR_FORMAT, "%s: %s has %llu items of type %s; %u of type bool are expected",
             gguf_path(g), key, (unsigned long long)k->count, gguf_type_name(k->item_type),
             a->layers);
    if (!flags)
        TRY(read_size(g, key, &every, 6, LARGEST));
    TRY(architecture_make_pattern(a, every));
    for (uint32_t i = 0; flags && a->window && i < a->layers; i++)
        a->is_local[i] = k->data[i] != 0;
error:
    return err;
}

static kim_err read_rope(architecture *a, const gguf *g)
{
    kim_err err = KIM_OK;
    gguf_string type = { "linear", 6 };
    TRY(read_positive(g, "gemma3.rope.freq_base", &a->base_global, 1e6f));
    TRY(read_positive(g, "gemma3.rope.freq_base_swa", &a->base_local, 1e4f));
    TRY(read_positive(g, "gemma3.rope.scaling.factor", &a->factor_global, 1.0f));
    TRY(gguf_get_string(g, "gemma3.rope.scaling.type", &type, NULL));
    if (type.length == 4 && !memcmp(type.data, "none", 4))
        a->factor_global = 1.0f;
    else if (type.length != 6 || memcmp(type.data, "linear", 6))
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: gemma3.rope.scaling.type is '%.*s'; only 'linear' and 'none' "
             "are supported",
             gguf_path(g), (int)(type.length < 64 ? type.length : 64), type.data);
error:
    return err;
}

kim_err architecture_finish(architecture *a, const char *path)
{
    kim_err err = KIM_OK;
    if (a->heads % a->kv_heads)
        FAIL(KIM_ERR_FORMAT, "%s: %u attention heads cannot share %u key/value heads evenly", path,
             a->heads, a->kv_heads);
    if (a->head < 64 || a->head > 256 || a->head % 8)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: the head size is %u; 64 to 256 in steps of 8 is supported",
             path, a->head);
    if (a->hidden % 32 || a->feed_forward % 32 || a->heads * a->head % 32)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: hidden size %u, feed-forward size %u and heads times head size %u must be "
             "multiples of 32",
             path, a->hidden, a->feed_forward, a->heads * a->head);
    if (a->window > ARCHITECTURE_MAX_WINDOW)
        FAIL(KIM_ERR_FORMAT, "%s: the sliding window is %u; at most %d is expected", path,
             a->window, ARCHITECTURE_MAX_WINDOW);
    // The reference rounds this to the type of its weights, bfloat16 as published: 25.25 in place
    // of 25.298 for 270M. Here weights are exact in fp32, and so is this, as in the reference in
    // fp32.
    a->embed_scale = sqrtf((float)a->hidden);
error:
    return err;
}

// 27B divides by the square root of hidden / heads = 168, all others by that of the head size; no
// file says it, and 62 layers is how 27B is told.
static float q_scale_of(const architecture *a)
{
    return 1.0f / sqrtf(a->layers == 62 ? (float)a->hidden / (float)a->heads : (float)a->head);
}

kim_err architecture_read(architecture *a, const gguf *g)
{
    kim_err err = KIM_OK;
    uint32_t value_length;
    float softcap = 0;
    memset(a, 0, sizeof *a);
    TRY(check_architecture(g));
    for (uint32_t i = 0; i < ARCHITECTURE_FIELDS; i++) {
        const architecture_field *f = &architecture_fields[i];
        char key[64];
        snprintf(key, sizeof key, "gemma3.%s", f->key);
        TRY(read_size(g, key, (uint32_t *)((char *)a + f->offset), f->fallback, f->most));
    }
    TRY(read_size(g, "gemma3.attention.value_length", &value_length, a->head, 1024));
    if (value_length != a->head)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: gemma3.attention.value_length is %u and key_length %u; equal "
             "ones are supported",
             gguf_path(g), value_length, a->head);
    TRY(read_positive(g, "gemma3.attention.layer_norm_rms_epsilon", &a->eps, 1e-6f));
    // Files of other makers may leave the window out: then there is none.
    TRY(gguf_get_u32(g, "gemma3.attention.sliding_window", &a->window, NULL));
    TRY(gguf_get_f32(g, "gemma3.final_logit_softcapping", &softcap, NULL));
    if (softcap != 0)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: gemma3.final_logit_softcapping is %g; Gemma 3 has none, and "
             "it is not supported",
             gguf_path(g), (double)softcap);
    TRY(architecture_finish(a, gguf_path(g)));
    TRY(read_rope(a, g));
    TRY(read_pattern(a, g));

    a->q_scale = q_scale_of(a);
    return KIM_OK;
error:
    architecture_destroy(a);
    return err;
}

void architecture_destroy(architecture *a)
{
    free(a->is_local);
    a->is_local = NULL;
}

const char *architecture_size(const architecture *a)
{
    for (size_t i = 0; i < N_PUBLISHED; i++) {
        const published *p = &published_sizes[i];
        if (a->layers == p->layers && a->hidden == p->hidden &&
            a->feed_forward == p->feed_forward && a->heads == p->heads)
            return p->name;
    }
    return "";
}

static bool same_without_case(const char *a, const char *b)
{
    while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b))
        a++, b++;
    return !*a && !*b;
}

kim_err architecture_make(architecture *a, const char *size)
{
    kim_err err = KIM_OK;
    const published *p = published_sizes;
    while (p < published_sizes + N_PUBLISHED && !same_without_case(size, p->name))
        p++;
    if (p == published_sizes + N_PUBLISHED)
        FAIL(KIM_ERR_ARGUMENT, "there is no size '%.16s'", size);
    *a = (architecture){
        .layers = p->layers,
        .hidden = p->hidden,
        .feed_forward = p->feed_forward,
        .heads = p->heads,
        .kv_heads = p->kv_heads,
        .head = p->head,
        .vocab = 262144, // of GGUF files; the published folders of 4B and up have 64 rows more
        .context = p->context,
        .window = p->window,
        .eps = 1e-6f,
        .base_global = 1e6f,
        .base_local = 1e4f,
        .factor_global = p->factor_global,
    };
    a->q_scale = q_scale_of(a);
    TRY(architecture_finish(a, p->name));
    TRY(architecture_make_pattern(a, 6));
error:
    return err;
}
