// SPDX-License-Identifier: MIT
// The hyper-parameters of a Gemma 3 text model, from the keys of a GGUF file.
#include "architecture.h"

#include "host/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST 1048576 // of any size, so that products fit in 64 bits with room to spare

// Reads a key and checks its range.
//
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
    if (!*value || *value > most)
        FAIL(KIM_ERR_FORMAT, "%s: %s is %u; 1 to %u is expected", gguf_path(g), key, *value, most);
error:
    return err;
}

static kim_err read_positive(const gguf *g, const char *key, float *value, float fallback)
{
    kim_err err = KIM_OK;
    *value = fallback;
    TRY(gguf_get_f32(g, key, value, NULL));
    if (!(*value > 0) || !isfinite(*value))
        FAIL(KIM_ERR_FORMAT, "%s: %s is %g; a number above 0 is expected", gguf_path(g), key,
             (double)*value);
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

// Which layers see only a window: every sixth is global, unless the file says otherwise, as a
// number or as one flag a layer.
static kim_err read_pattern(architecture *a, const gguf *g)
{
    static const char *const key = "gemma3.attention.sliding_window_pattern";
    kim_err err = KIM_OK;
    uint32_t every = 6;
    a->is_local = calloc(a->layers, sizeof *a->is_local);
    REQUIRE_MEMORY(a->is_local);
    if (!a->window)
        return KIM_OK;
    const gguf_key *k = gguf_find_key(g, key);
    if (k && k->type == GGUF_ARRAY) {
        if (k->item_type != GGUF_BOOL || k->count != a->layers)
            FAIL(KIM_ERR_FORMAT, "%s: %s has %llu items of type %s; %u of type bool are expected",
                 gguf_path(g), key, (unsigned long long)k->count, gguf_type_name(k->item_type),
                 a->layers);
        for (uint32_t i = 0; i < a->layers; i++)
            a->is_local[i] = k->data[i] != 0;
        return KIM_OK;
    }
    TRY(read_size(g, key, &every, 6, LARGEST));
    for (uint32_t i = 0; i < a->layers; i++)
        a->is_local[i] = (i + 1) % every != 0;
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

static kim_err check_shape(const architecture *a, const gguf *g)
{
    if (a->heads % a->kv_heads)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s: %u attention heads cannot share %u key/value heads "
                        "evenly",
                        gguf_path(g), a->heads, a->kv_heads);
    if (a->head < 64 || a->head > 256 || a->head % 4)
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "%s: gemma3.attention.key_length is %u; 64 to 256 in "
                        "steps of 4 is supported",
                        gguf_path(g), a->head);
    if (a->hidden % 32 || a->feed_forward % 32 || a->heads * a->head % 32)
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "%s: hidden size %u, feed-forward size %u and heads "
                        "times head size %u must be multiples of 32",
                        gguf_path(g), a->hidden, a->feed_forward, a->heads * a->head);
    return KIM_OK;
}

kim_err architecture_read(architecture *a, const gguf *g)
{
    kim_err err = KIM_OK;
    uint32_t value_length;
    float softcap = 0;
    memset(a, 0, sizeof *a);
    TRY(check_architecture(g));
    // the defaults are those of the published configuration class
    TRY(read_size(g, "gemma3.block_count", &a->layers, 0, 1024));
    TRY(read_size(g, "gemma3.embedding_length", &a->hidden, 0, LARGEST));
    TRY(read_size(g, "gemma3.feed_forward_length", &a->feed_forward, 0, LARGEST));
    TRY(read_size(g, "gemma3.attention.head_count", &a->heads, 8, 1024));
    TRY(read_size(g, "gemma3.attention.head_count_kv", &a->kv_heads, 4, 1024));
    TRY(read_size(g, "gemma3.attention.key_length", &a->head, 256, 1024));
    TRY(read_size(g, "gemma3.attention.value_length", &value_length, a->head, 1024));
    TRY(read_size(g, "gemma3.context_length", &a->context, 131072, 1u << 24));
    TRY(read_positive(g, "gemma3.attention.layer_norm_rms_epsilon", &a->eps, 1e-6f));
    if (value_length != a->head)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: gemma3.attention.value_length is %u and key_length %u; equal "
             "ones are supported",
             gguf_path(g), value_length, a->head);
    // Files of other makers may leave the window out: then there is none.
    TRY(gguf_get_u32(g, "gemma3.attention.sliding_window", &a->window, NULL));
    if (a->window > 1u << 24)
        FAIL(KIM_ERR_FORMAT, "%s: gemma3.attention.sliding_window is %u; at most %u is expected",
             gguf_path(g), a->window, 1u << 24);
    TRY(gguf_get_f32(g, "gemma3.final_logit_softcapping", &softcap, NULL));
    if (softcap != 0)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: gemma3.final_logit_softcapping is %g; Gemma 3 has none, and "
             "it is not supported",
             gguf_path(g), (double)softcap);
    TRY(check_shape(a, g));
    TRY(read_rope(a, g));
    TRY(read_pattern(a, g));

    // 27B divides by the square root of hidden / heads = 168, all others by that of the head size;
    // no file says it, and 62 layers is how 27B is told.
    a->q_scale =
        1.0f / sqrtf(a->layers == 62 ? (float)a->hidden / (float)a->heads : (float)a->head);
    // The reference rounds this to the type of its weights, bfloat16 as published: 25.25 in place
    // of 25.298 for 270M. Here weights are exact in fp32, and so is this, as in the reference in
    // fp32.
    a->embed_scale = sqrtf((float)a->hidden);
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
    static const struct {
        uint32_t layers, hidden, feed_forward, heads;
        const char *name;
    } published[] = {
        { 18, 640, 2048, 4, "270M" },   { 26, 1152, 6912, 4, "1B" },
        { 34, 2560, 10240, 8, "4B" },   { 48, 3840, 15360, 16, "12B" },
        { 62, 5376, 21504, 32, "27B" },
    };
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++)
        if (a->layers == published[i].layers && a->hidden == published[i].hidden &&
            a->feed_forward == published[i].feed_forward && a->heads == published[i].heads)
            return published[i].name;
    return "";
}
