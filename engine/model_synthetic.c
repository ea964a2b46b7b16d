// SPDX-License-Identifier: MIT
// Models of published shapes with made-up weights: anything can be timed without a download.
//
// Nothing is as large as a model here: for each type of weights there is one run of random blocks,
// and each row of a matrix is a part of it (weight_row_at). Weights spread by about 1/14 and norms
// by about 1, so with a norm before and after every product all numbers stay in range.
#include "model_files.h"

#include "host/error.h"
#include "host/weight_quantize.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// GGML's numbers.
enum {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    BF16 = 30,
};

// --------------------------------------------------------------------------------------- mixes

// Layers in which a matrix has another type than the rest.
typedef enum layer_choice {
    LAYERS_NONE = 0,
    LAYERS_ALL,
    LAYERS_MORE,         // the first and the last eighth, and every third one between
    LAYERS_FIRST_EIGHTH, // rounded down, as all such parts
    LAYERS_FIRST_16TH,
    LAYERS_FIRST_2,
    LAYERS_FIRST_4,
    LAYERS_IF_SHARED, // all, where four or more query heads share a key/value head
} layer_choice;

typedef struct type_rule {
    layer_choice layers;
    uint32_t type;
} type_rule;

// How llama.cpp's quantiser lays out the types of a file of this name, without an importance
// matrix. The first rule that applies decides; without one it is `base`.
typedef struct mix {
    const char *name;
    uint32_t base;
    type_rule v[2], down[2], output;
} mix;

static const mix mixes[] = {
    { .name = "f32", .base = F32 },
    { .name = "f16", .base = F16 },
    { .name = "bf16", .base = BF16 },
    { .name = "q4_0", .base = Q4_0 },
    { .name = "q4_1", .base = Q4_1 },
    { .name = "q5_0", .base = Q5_0 },
    { .name = "q5_1", .base = Q5_1 },
    { .name = "q8_0", .base = Q8_0 },
    { .name = "q2_k",
      .base = Q2_K,
      .v = { { LAYERS_IF_SHARED, Q4_K }, { LAYERS_ALL, Q3_K } },
      .down = { { LAYERS_ALL, Q3_K } },
      .output = { LAYERS_ALL, Q3_K } },
    { .name = "q3_k_s", .base = Q3_K },
    { .name = "q3_k_m",
      .base = Q3_K,
      .v = { { LAYERS_FIRST_2, Q5_K }, { LAYERS_ALL, Q4_K } },
      .down = { { LAYERS_FIRST_16TH, Q5_K }, { LAYERS_ALL, Q4_K } },
      .output = { LAYERS_ALL, Q4_K } },
    { .name = "q3_k_l",
      .base = Q3_K,
      .v = { { LAYERS_ALL, Q5_K } },
      .down = { { LAYERS_ALL, Q5_K } },
      .output = { LAYERS_ALL, Q5_K } },
    { .name = "q4_k_s",
      .base = Q4_K,
      .v = { { LAYERS_FIRST_4, Q5_K } },
      .down = { { LAYERS_FIRST_EIGHTH, Q5_K } } },
    { .name = "q4_k_m",
      .base = Q4_K,
      .v = { { LAYERS_MORE, Q6_K } },
      .down = { { LAYERS_MORE, Q6_K } } },
    { .name = "q5_k_s", .base = Q5_K },
    { .name = "q5_k_m",
      .base = Q5_K,
      .v = { { LAYERS_MORE, Q6_K } },
      .down = { { LAYERS_MORE, Q6_K } } },
    { .name = "q6_k", .base = Q6_K },
    { .name = "iq4_nl",
      .base = IQ4_NL,
      .v = { { LAYERS_IF_SHARED, Q5_K } },
      .down = { { LAYERS_FIRST_EIGHTH, Q5_K } } },
    { .name = "iq4_xs",
      .base = IQ4_XS,
      .v = { { LAYERS_IF_SHARED, Q5_K } },
      .down = { { LAYERS_FIRST_EIGHTH, Q5_K } } },
};

enum { N_MIXES = sizeof mixes / sizeof *mixes };

// The types q3_k, q4_k and q5_k alone mean what they mean to llama.cpp.
static const mix *find_mix(const char *name)
{
    char medium[16];
    const size_t length = strlen(name);
    snprintf(medium, sizeof medium, "%.13s_m", name);
    for (size_t i = 0; i < N_MIXES; i++)
        if (!strcmp(name, mixes[i].name) ||
            (length == 4 && name[2] == '_' && !strcmp(medium, mixes[i].name)))
            return &mixes[i];
    return NULL;
}

static bool rule_applies(layer_choice layers, uint32_t i, const architecture *a)
{
    const uint32_t n = a->layers;
    switch (layers) {
    case LAYERS_NONE: return false;
    case LAYERS_ALL: return true;
    case LAYERS_MORE: return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case LAYERS_FIRST_EIGHTH: return i < n / 8;
    case LAYERS_FIRST_16TH: return i < n / 16;
    case LAYERS_FIRST_2: return i < 2;
    case LAYERS_FIRST_4: return i < 4;
    case LAYERS_IF_SHARED: return a->heads / a->kv_heads >= 4;
    }
    return false;
}

// What stands in for a type whose blocks do not divide the rows.
static uint32_t type_for_width(uint32_t type, uint32_t width)
{
    if (width % weight_type_find(type)->block == 0)
        return type;
    switch (type) {
    case Q4_K: return Q5_0;
    case Q5_K: return Q5_1;
    case Q6_K: return Q8_0;
    default: return IQ4_NL;
    }
}

// --------------------------------------------------------------------------------------- blocks

// A prime: rows of one head, or of one tile of an output, are all different.
enum { DISTINCT_ROWS = 4093 };

// What random bytes are made weights with: `scale`, a half, and where a block has one an offset
// that makes their mean 0.
static const struct block_scales {
    uint32_t type;
    uint16_t scale_at, offset_at; // in the block; offset_at 0: none
    float scale, offset;
} block_scales[] = {
    { Q4_0, 0, 0, 0x1p-6f, 0 },
    { Q4_1, 0, 2, 0x1p-6f, -7.5f * 0x1p-6f },
    { Q5_0, 0, 0, 0x1p-7f, 0 },
    { Q5_1, 0, 2, 0x1p-7f, -15.5f * 0x1p-7f },
    { Q8_0, 0, 0, 0x1p-10f, 0 },
    { Q2_K, 80, 82, 0x1p-8f, 1.5f * 0x1p-8f },
    { Q3_K, 108, 0, 0x1p-9f, 0 },
    { Q4_K, 0, 2, 0x1p-12f, 7.5f * 0x1p-12f },
    { Q5_K, 0, 2, 0x1p-13f, 15.5f * 0x1p-13f },
    { Q6_K, 208, 0, 0x1p-14f, 0 },
    { IQ4_NL, 0, 0, 0x1p-10f, 0 },
    { IQ4_XS, 0, 0, 0x1p-14f, 0 },
};

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13; // xorshift32, Marsaglia 2003
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void fill_bytes(uint8_t *to, uint64_t bytes, uint32_t *state)
{
    for (uint64_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)(next_random(state) >> 24);
}

// mean: of numbers that spread by 1/8 at most
static void fill_plain(uint32_t type, uint8_t *to, uint64_t count, float mean, uint32_t *state)
{
    for (uint64_t i = 0; i < count; i++) {
        const float value =
            mean + ((float)(int32_t)(next_random(state) >> 8) - 0x1p23f) * (0.125f * 0x1p-23f);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        const uint16_t half = type == F16 ? half_of_float(value) : (uint16_t)(bits >> 16);
        if (type == F32)
            memcpy(to + 4 * i, &bits, sizeof bits);
        else
            memcpy(to + 2 * i, &half, sizeof half);
    }
}

static void fill_blocks(const weight_type *type, uint8_t *to, uint64_t blocks, uint32_t *state)
{
    if (weight_is_plain(type->ggml)) {
        fill_plain(type->ggml, to, blocks * type->block, 0, state);
        return;
    }
    const struct block_scales *s = block_scales;
    while (s->type != type->ggml)
        s++;
    const uint16_t scale = half_of_float(s->scale), offset = half_of_float(s->offset);
    fill_bytes(to, blocks * type->block_bytes, state);
    for (; blocks; blocks--, to += type->block_bytes) {
        memcpy(to + s->scale_at, &scale, sizeof scale);
        if (s->offset_at)
            memcpy(to + s->offset_at, &offset, sizeof offset);
    }
}

// -------------------------------------------------------------------------------------- tensors

typedef enum extent {
    NOTHING = 0, // of a vector: it has no rows
    HIDDEN,
    FEED_FORWARD,
    HEAD,
    QUERIES, // heads * head: differs from the hidden size
    KEYS,    // kv_heads * head
    VISION_HIDDEN,
    VISION_FEED_FORWARD,
    EXTENTS,
} extent;

typedef enum tensor_kind {
    NORM,   // f32, about 1
    VECTOR, // f32
    MATRIX,
    MATRIX_V,
    MATRIX_DOWN,
    MATRIX_OUTPUT,
} tensor_kind;

typedef struct tensor_shape {
    const char *name;
    extent width, rows;
    tensor_kind kind;
} tensor_shape;

// Of one layer, in the order and under the names of GGUF files.
static const tensor_shape text_layer[] = {
    { "attn_norm.weight", HIDDEN, NOTHING, NORM },
    { "ffn_down.weight", FEED_FORWARD, HIDDEN, MATRIX_DOWN },
    { "ffn_gate.weight", HIDDEN, FEED_FORWARD, MATRIX },
    { "ffn_up.weight", HIDDEN, FEED_FORWARD, MATRIX },
    { "post_attention_norm.weight", HIDDEN, NOTHING, NORM },
    { "post_ffw_norm.weight", HIDDEN, NOTHING, NORM },
    { "ffn_norm.weight", HIDDEN, NOTHING, NORM },
    { "attn_k_norm.weight", HEAD, NOTHING, NORM },
    { "attn_k.weight", HIDDEN, KEYS, MATRIX },
    { "attn_output.weight", QUERIES, HIDDEN, MATRIX_OUTPUT },
    { "attn_q_norm.weight", HEAD, NOTHING, NORM },
    { "attn_q.weight", HIDDEN, QUERIES, MATRIX },
    { "attn_v.weight", HIDDEN, KEYS, MATRIX_V },
};

static const tensor_shape vision_layer[] = {
    { "ln1.weight", VISION_HIDDEN, NOTHING, NORM },
    { "ln1.bias", VISION_HIDDEN, NOTHING, VECTOR },
    { "attn_q.weight", VISION_HIDDEN, VISION_HIDDEN, MATRIX },
    { "attn_q.bias", VISION_HIDDEN, NOTHING, VECTOR },
    { "attn_k.weight", VISION_HIDDEN, VISION_HIDDEN, MATRIX },
    { "attn_k.bias", VISION_HIDDEN, NOTHING, VECTOR },
    { "attn_v.weight", VISION_HIDDEN, VISION_HIDDEN, MATRIX },
    { "attn_v.bias", VISION_HIDDEN, NOTHING, VECTOR },
    { "attn_out.weight", VISION_HIDDEN, VISION_HIDDEN, MATRIX },
    { "attn_out.bias", VISION_HIDDEN, NOTHING, VECTOR },
    { "ln2.weight", VISION_HIDDEN, NOTHING, NORM },
    { "ln2.bias", VISION_HIDDEN, NOTHING, VECTOR },
    { "ffn_up.weight", VISION_HIDDEN, VISION_FEED_FORWARD, MATRIX },
    { "ffn_up.bias", VISION_FEED_FORWARD, NOTHING, VECTOR },
    { "ffn_down.weight", VISION_FEED_FORWARD, VISION_HIDDEN, MATRIX },
    { "ffn_down.bias", VISION_HIDDEN, NOTHING, VECTOR },
};

enum {
    N_TEXT_LAYER = sizeof text_layer / sizeof *text_layer,
    N_VISION_LAYER = sizeof vision_layer / sizeof *vision_layer,
    N_OTHERS = 8, // room for those that are of no layer
};

// What tensors point into.
typedef struct patterns {
    char (*names)[48];
    uint8_t *of_type[WEIGHT_TYPE_COUNT]; // blocks for all distinct rows of `longest` elements
    uint8_t *norm;                       // [longest] f32
    uint32_t longest;                    // row
    uint32_t state;                      // of the random numbers
} patterns;

typedef struct tensor_list {
    patterns *from;
    file_tensor *items; // [room]
    uint32_t count, room;
    const char *path; // for messages; outlives the tensors
    uint64_t bytes;   // of all items
} tensor_list;

static void patterns_destroy(void *user)
{
    patterns *p = user;
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++)
        free(p->of_type[i]);
    free(p->norm);
    free(p->names);
    free(p);
}

static kim_err list_create(tensor_list *l, const char *path, uint32_t room, uint32_t longest)
{
    kim_err err = KIM_OK;
    *l = (tensor_list){ .path = path, .room = room };
    l->from = calloc(1, sizeof *l->from);
    REQUIRE_MEMORY(l->from);
    l->from->longest = longest;
    l->from->state = 2463534242u;
    l->from->names = calloc(room, sizeof *l->from->names);
    l->items = calloc(room, sizeof *l->items);
    REQUIRE_MEMORY(l->from->names && l->items);
error:
    return err;
}

static void list_destroy(tensor_list *l)
{
    if (l->from)
        patterns_destroy(l->from);
    free(l->items);
    *l = (tensor_list){ 0 };
}

// Makes it the tensors of a model. Afterwards the list is empty.
static kim_err list_finish(tensor_list *l, tensors **out)
{
    const kim_err err = tensors_create(out, l->path, l->items, l->count, l->from, patterns_destroy);
    *l = (tensor_list){ 0 };
    return err;
}

static kim_err find_pattern(patterns *p, const weight_type *type, bool norm, const uint8_t **out)
{
    kim_err err = KIM_OK;
    uint8_t **pattern = norm ? &p->norm : &p->of_type[type - weight_types];
    const uint64_t blocks = weight_row_blocks(type, p->longest) + (norm ? 0 : DISTINCT_ROWS);
    if (!*pattern) {
        *pattern = malloc(blocks * type->block_bytes);
        REQUIRE_MEMORY(*pattern);
        if (norm)
            fill_plain(F32, *pattern, blocks * type->block, 1, &p->state);
        else
            fill_blocks(type, *pattern, blocks, &p->state);
    }
    *out = *pattern;
error:
    return err;
}

// ne: 0 from the first one on that the tensor does not have
static kim_err list_add(tensor_list *l, const char *name, uint32_t type, bool norm,
                        const uint32_t ne[4])
{
    kim_err err = KIM_OK;
    const weight_type *t = weight_type_find(type);
    file_tensor *f = &l->items[l->count];
    uint64_t rows = 1;
    assert(l->count < l->room);
    *f = (file_tensor){
        .name = l->from->names[l->count],
        .type = type,
        .ne = { ne[0], 1, 1, 1 },
        .n_dims = 1,
        .distinct = DISTINCT_ROWS,
        .path = l->path,
    };
    snprintf(l->from->names[l->count], sizeof *l->from->names, "%s", name);
    for (; f->n_dims < 4 && ne[f->n_dims]; f->n_dims++) {
        f->ne[f->n_dims] = ne[f->n_dims];
        rows *= ne[f->n_dims];
    }
    f->bytes = rows * weight_row_bytes(t, ne[0]);
    TRY(find_pattern(l->from, t, norm, &f->data));
    l->bytes += f->bytes;
    l->count++;
error:
    return err;
}

static kim_err list_add_matrix(tensor_list *l, const char *name, uint32_t type, uint32_t width,
                               uint32_t rows)
{
    return list_add(l, name, type, false, (const uint32_t[4]){ width, rows });
}

static kim_err list_add_vector(tensor_list *l, const char *name, bool norm, uint32_t width)
{
    return list_add(l, name, F32, norm, (const uint32_t[4]){ width });
}

// ----------------------------------------------------------------------------------------- text

// What a name stands for.
typedef struct synthetic {
    const mix *mix;
    bool pure;   // all matrices are of the mix's first type
    bool vision; // there is a vision part
} synthetic;

static uint32_t type_of(const synthetic *s, tensor_kind kind, uint32_t layer, uint32_t width,
                        const architecture *a)
{
    const mix *m = s->mix;
    const type_rule *rules = kind == MATRIX_V ? m->v : kind == MATRIX_DOWN ? m->down : &m->output;
    const uint32_t n = kind == MATRIX || s->pure ? 0 : kind == MATRIX_OUTPUT ? 1 : 2;
    uint32_t type = m->base;
    for (uint32_t i = n; i-- > 0;)
        if (rule_applies(rules[i].layers, layer, a))
            type = rules[i].type;
    return type_for_width(type, width);
}

// The embedding is the output too, and gets what the quantiser gives to outputs.
static uint32_t type_of_embedding(const synthetic *s, uint32_t width)
{
    const uint32_t base = s->mix->base;
    if (s->pure || weight_is_plain(base) || base == Q8_0)
        return type_for_width(base, width);
    return width % weight_type_find(base)->block ? Q8_0 : type_for_width(Q6_K, width);
}

static kim_err make_text(model_files *f, const synthetic *s)
{
    kim_err err = KIM_OK;
    const architecture *a = &f->arch;
    const uint32_t extents[EXTENTS] = {
        [HIDDEN] = a->hidden,           [FEED_FORWARD] = a->feed_forward, [HEAD] = a->head,
        [QUERIES] = a->heads * a->head, [KEYS] = a->kv_heads * a->head,
    };
    tensor_list l;
    TRY(list_create(&l, f->name, a->layers * N_TEXT_LAYER + N_OTHERS, a->feed_forward));
    TRY(list_add_matrix(&l, "token_embd.weight", type_of_embedding(s, a->hidden), a->hidden,
                        a->vocab));
    TRY(list_add_vector(&l, "output_norm.weight", true, a->hidden));
    for (uint32_t i = 0; i < a->layers * N_TEXT_LAYER; i++) {
        const tensor_shape *t = &text_layer[i % N_TEXT_LAYER];
        const uint32_t layer = i / N_TEXT_LAYER, width = extents[t->width];
        char name[48];
        snprintf(name, sizeof name, "blk.%u.%s", layer, t->name);
        if (t->kind == NORM)
            TRY(list_add_vector(&l, name, true, width));
        else
            TRY(list_add_matrix(&l, name, type_of(s, t->kind, layer, width, a), width,
                                extents[t->rows]));
    }
    f->bytes += l.bytes;
    TRY(list_finish(&l, &f->text));
error:
    list_destroy(&l);
    return err;
}

// --------------------------------------------------------------------------------------- vision

// The same for all sizes that see: SigLIP So400m/14, as the F16 files of the projectors have it.
static kim_err make_vision(model_files *f)
{
    kim_err err = KIM_OK;
    encoder_shape *s = &f->shape;
    *s = (encoder_shape){
        .image = 896,
        .patch = 14,
        .hidden = 1152,
        .feed_forward = 4304,
        .layers = 27,
        .heads = 16,
        .tokens = 256,
        .text_hidden = f->arch.hidden,
        .eps = 1e-6f,
    };
    model_files_default_pixels(f);
    const uint32_t extents[EXTENTS] = {
        [VISION_HIDDEN] = s->hidden,
        [VISION_FEED_FORWARD] = s->feed_forward,
    };
    const uint32_t side = s->image / s->patch;
    const uint32_t longest = s->text_hidden > s->feed_forward ? s->text_hidden : s->feed_forward;
    tensor_list l;
    TRY(list_create(&l, f->name, s->layers * N_VISION_LAYER + N_OTHERS, longest));
    TRY(list_add(&l, "v.patch_embd.weight", F32, false,
                 (const uint32_t[4]){ s->patch, s->patch, 3, s->hidden }));
    TRY(list_add_vector(&l, "v.patch_embd.bias", false, s->hidden));
    TRY(list_add_matrix(&l, "v.position_embd.weight", F32, s->hidden, side * side));
    for (uint32_t i = 0; i < s->layers * N_VISION_LAYER; i++) {
        const tensor_shape *t = &vision_layer[i % N_VISION_LAYER];
        char name[48];
        snprintf(name, sizeof name, "v.blk.%u.%s", i / N_VISION_LAYER, t->name);
        if (t->kind == MATRIX)
            TRY(list_add_matrix(&l, name, F16, extents[t->width], extents[t->rows]));
        else
            TRY(list_add_vector(&l, name, t->kind == NORM, extents[t->width]));
    }
    TRY(list_add_vector(&l, "v.post_ln.weight", true, s->hidden));
    TRY(list_add_vector(&l, "v.post_ln.bias", false, s->hidden));
    TRY(list_add_vector(&l, "mm.soft_emb_norm.weight", true, s->hidden));
    TRY(list_add_matrix(&l, "mm.input_projection.weight", F16, s->text_hidden, s->hidden));
    f->bytes += l.bytes;
    TRY(list_finish(&l, &f->projector));
    f->vision = f->projector;
error:
    list_destroy(&l);
    return err;
}

// ----------------------------------------------------------------------------------------- name

static kim_err fail_name(const char *name)
{
    char types[256];
    int used = 0;
    for (size_t i = 0; i < N_MIXES; i++)
        used += snprintf(types + used, sizeof types - (size_t)used, "%s%s",
                         !i                ? ""
                         : i + 1 < N_MIXES ? ", "
                                           : " and ",
                         mixes[i].name);
    return kim_fail(KIM_ERR_ARGUMENT,
                    "there is no synthetic model '%.40s': a size and a type are expected, as in "
                    "4b:q4_0; there are the sizes 270m, 1b, 4b, 12b and 27b, and the types %s; "
                    "+pure after it makes all matrices of one type, +vision adds the vision part "
                    "from 4b on",
                    name, types);
}

// Takes "+vision" and "+pure" off the end of a name.
static void take_suffixes(char *name, synthetic *s)
{
    for (char *plus; (plus = strrchr(name, '+'));) {
        bool *flag = !strcmp(plus, "+vision") ? &s->vision
                     : !strcmp(plus, "+pure") ? &s->pure
                                              : NULL;
        if (!flag || *flag)
            return;
        *flag = true;
        *plus = 0;
    }
}

static kim_err read_name(const char *given, architecture *a, synthetic *s)
{
    char name[64];
    size_t n = 0;
    for (; given[n] && n + 1 < sizeof name; n++)
        name[n] = (char)tolower((unsigned char)given[n]);
    name[n] = 0;
    take_suffixes(name, s);
    char *colon = strchr(name, ':');
    if (given[n] || !colon)
        return fail_name(given);
    *colon = 0;
    s->mix = find_mix(colon + 1);
    if (!s->mix || architecture_make(a, name))
        return fail_name(given);
    // the sizes that see are those with a factor, from 4B on
    return s->vision && a->factor_global == 1 ? fail_name(given) : KIM_OK;
}

kim_err model_synthetic_open(model_files *f, const char *name)
{
    kim_err err = KIM_OK;
    synthetic s = { 0 };
    memset(f, 0, sizeof *f);
    TRY(read_name(name, &f->arch, &s));
    snprintf(f->name, sizeof f->name, "synthetic %s", name);
    // as in the published tokenizer
    f->ids = (tokenizer_ids){
        .bos = 2,
        .eos = 1,
        .start_of_turn = 105,
        .end_of_turn = 106,
        .start_of_image = 255999,
        .end_of_image = 256000,
        .image_soft_token = 262144,
    };
    f->draw_limit = 262144;
    TRY(make_text(f, &s));
    if (s.vision)
        TRY(make_vision(f));
    return KIM_OK;
error:
    model_files_close(f);
    return err;
}
