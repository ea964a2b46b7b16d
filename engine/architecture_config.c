// SPDX-License-Identifier: MIT
// The hyper-parameters from a config.json. Published ones leave out what the configuration class
// has as its default; both the names of transformers 4 and those of 5 are read.
#include "architecture.h"

#include "host/error.h"

#include <math.h>
#include <string.h>

// Things that the published models do not have, and that are not done here.
static kim_err check_kind(const json_place *c)
{
    static const struct {
        const char *name;
        const char *expected; // NULL: false, 0 or absent
    } kinds[] = {
        { "model_type", "gemma3_text" },     { "hidden_activation", "gelu_pytorch_tanh" },
        { "attention_bias", NULL },          { "use_bidirectional_attention", NULL },
        { "final_logit_softcapping", NULL }, { "attn_logit_softcapping", NULL },
    };
    kim_err err = KIM_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const json_place p = json_find(c, kinds[i].name);
        const char *text = json_text(p.value);
        uint64_t zero;
        if (!p.value)
            continue;
        if (kinds[i].expected ? !text || strcmp(text, kinds[i].expected)
                              : !json_is_false(p.value) && !json_integer(p.value, 0, &zero))
            FAIL(KIM_ERR_UNSUPPORTED, "%s: %s is %.40s; only %s is supported", p.path, p.name,
                 text ? text : "set", kinds[i].expected ? kinds[i].expected : "none");
    }
error:
    return err;
}

static kim_err read_positive(const json_place *c, const char *name, float *value, float fallback)
{
    kim_err err = KIM_OK;
    const json_place p = json_find(c, name);
    *value = fallback;
    TRY(json_get_f32(c, name, value, NULL));
    TRY(architecture_check_positive(p.path, p.name, *value));
error:
    return err;
}

// "default", or "linear" with a factor.
static kim_err read_scaling(const json_place *rope, float *factor)
{
    kim_err err = KIM_OK;
    const char *type = "default";
    TRY(json_get_text(rope, "type", &type, NULL)); // the older name
    TRY(json_get_text(rope, "rope_type", &type, NULL));
    *factor = 1.0f;
    if (!strcmp(type, "linear"))
        TRY(read_positive(rope, "factor", factor, 1.0f));
    else if (strcmp(type, "default"))
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: %s.rope_type is %.40s; only default and linear are supported", rope->path,
             rope->name, type);
error:
    return err;
}

static kim_err read_rope(architecture *a, const json_place *c)
{
    kim_err err = KIM_OK;
    float factor_local;
    json_place both, global, local, scaling;
    TRY(json_get_object(c, "rope_parameters", &both)); // transformers 5
    TRY(json_get_object(&both, "full_attention", &global));
    TRY(json_get_object(&both, "sliding_attention", &local));
    if (both.value && !global.value && !local.value)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: %s has neither full_attention nor sliding_attention; both kinds of layers are "
             "expected to have their own",
             both.path, both.name);
    TRY(json_get_object(c, "rope_scaling", &scaling)); // transformers 4, with what follows
    TRY(read_positive(c, "rope_theta", &a->base_global, 1e6f));
    TRY(read_positive(c, "rope_local_base_freq", &a->base_local, 1e4f));
    TRY(read_positive(&global, "rope_theta", &a->base_global, a->base_global));
    TRY(read_positive(&local, "rope_theta", &a->base_local, a->base_local));
    TRY(read_scaling(scaling.value ? &scaling : &global, &a->factor_global));
    TRY(read_scaling(&local, &factor_local));
    if (factor_local != 1.0f)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: %s has a factor of %g; only 1 is supported", local.path,
             local.name, (double)factor_local);
error:
    return err;
}

// The kind of every layer, or a number: every such-th layer is global.
static kim_err read_pattern(architecture *a, const json_place *c)
{
    kim_err err = KIM_OK;
    uint32_t every = 6, i = 0;
    json_place types;
    TRY(json_get_u32(c, "_sliding_window_pattern", &every, NULL));
    TRY(json_get_u32(c, "sliding_window_pattern", &every, NULL));
    TRY(architecture_check_size(c->path, "sliding_window_pattern", every, UINT32_MAX));
    TRY(architecture_make_pattern(a, every));
    TRY(json_get_array(c, "layer_types", &types));
    for (const json *v = json_first(types.value); v; v = json_next(v), i++) {
        const char *text = json_text(v);
        const bool local = text && !strcmp(text, "sliding_attention");
        if (!local && (!text || strcmp(text, "full_attention")))
            FAIL(KIM_ERR_UNSUPPORTED,
                 "%s: item %u of %s is not sliding_attention or full_attention", c->path, i,
                 types.name);
        if (i < a->layers)
            a->is_local[i] = local && a->window;
    }
    if (types.value && i != a->layers)
        FAIL(KIM_ERR_FORMAT, "%s: %s has %u items; %u are expected, one a layer", c->path,
             types.name, i, a->layers);
error:
    return err;
}

kim_err architecture_read_config(architecture *a, const json_place *text)
{
    kim_err err = KIM_OK;
    float scalar;
    memset(a, 0, sizeof *a);
    TRY(check_kind(text));
    for (uint32_t i = 0; i < ARCHITECTURE_FIELDS; i++) {
        const architecture_field *f = &architecture_fields[i];
        const json_place p = json_find(text, f->name);
        uint32_t *value = (uint32_t *)((char *)a + f->offset);
        if (!p.value && !f->fallback)
            FAIL(KIM_ERR_FORMAT, "%s: %s is missing", p.path, p.name);
        *value = f->fallback;
        TRY(json_get_u32(text, f->name, value, NULL));
        TRY(architecture_check_size(p.path, p.name, *value, f->most));
    }
    TRY(read_positive(text, "rms_norm_eps", &a->eps, 1e-6f));
    a->window = 4096;
    TRY(json_get_u32(text, "sliding_window", &a->window, NULL));
    TRY(architecture_finish(a, text->path));
    TRY(read_rope(a, text));
    TRY(read_pattern(a, text));
    TRY(read_positive(text, "query_pre_attn_scalar", &scalar, 256));
    a->q_scale = 1.0f / sqrtf(scalar);
    return KIM_OK;
error:
    architecture_destroy(a);
    return err;
}
