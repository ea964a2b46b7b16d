// SPDX-License-Identifier: MIT
// A small model that sees, written as every kind of files that a model comes in.
#include "files_support.h"

#include "host/json.h"
#include "host/weight_quantize.h"

#include <dirent.h>
#include <stdarg.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------ the model

static float next_value(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int)(*state >> 58) - 32) / 128.0f; // -1/4 .. 31/128: few bits
}

// shape: ne, ended by 0
static void add(small_files *s, const char *name, const char *published, const uint64_t *shape)
{
    CHECK(s->count < SMALL_MAX_TENSORS, "too many tensors");
    small_tensor *t = &s->tensors[s->count++];
    uint64_t state = s->count;
    *t = (small_tensor){ .ne = { 1, 1, 1, 1 }, .count = 1 };
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(t->published, sizeof t->published, "%s", published);
    t->vision = name[0] == 'v';
    t->projector = name[0] == 'm';
    for (; t->n_dims < 4 && shape[t->n_dims]; t->n_dims++) {
        t->ne[t->n_dims] = shape[t->n_dims];
        t->count *= shape[t->n_dims];
    }
    const bool rms = strstr(name, "norm") && !t->vision;
    const bool layer_norm = strstr(name, ".ln") || strstr(name, "post_ln");
    t->plus_one = rms;
    t->values = malloc(t->count * sizeof *t->values);
    CHECK(t->values, "out of memory");
    for (uint64_t i = 0; i < t->count; i++)
        t->values[i] = next_value(&state) + (rms || (layer_norm && strstr(name, "weight")) ? 1 : 0);
}

static void add_text(small_files *s)
{
    static const struct {
        const char *name, *published;
        uint64_t shape[3];
    } parts[] = {
#define Q (SMALL_HEADS * SMALL_HEAD)
        { "attn_norm", "input_layernorm", { SMALL_HIDDEN } },
        { "attn_q", "self_attn.q_proj", { SMALL_HIDDEN, Q } },
        { "attn_k", "self_attn.k_proj", { SMALL_HIDDEN, SMALL_HEAD } },
        { "attn_v", "self_attn.v_proj", { SMALL_HIDDEN, SMALL_HEAD } },
        { "attn_output", "self_attn.o_proj", { Q, SMALL_HIDDEN } },
        { "attn_q_norm", "self_attn.q_norm", { SMALL_HEAD } },
        { "attn_k_norm", "self_attn.k_norm", { SMALL_HEAD } },
        { "post_attention_norm", "post_attention_layernorm", { SMALL_HIDDEN } },
        { "ffn_norm", "pre_feedforward_layernorm", { SMALL_HIDDEN } },
        { "ffn_gate", "mlp.gate_proj", { SMALL_HIDDEN, SMALL_FEED_FORWARD } },
        { "ffn_up", "mlp.up_proj", { SMALL_HIDDEN, SMALL_FEED_FORWARD } },
        { "ffn_down", "mlp.down_proj", { SMALL_FEED_FORWARD, SMALL_HIDDEN } },
        { "post_ffw_norm", "post_feedforward_layernorm", { SMALL_HIDDEN } },
#undef Q
    };
    add(s, "token_embd.weight", "embed_tokens.weight", (uint64_t[]){ SMALL_HIDDEN, s->vocab, 0 });
    add(s, "output_norm.weight", "norm.weight", (uint64_t[]){ SMALL_HIDDEN, 0 });
    for (uint32_t i = 0; i < SMALL_LAYERS; i++) {
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            char name[64], published[96];
            snprintf(name, sizeof name, "blk.%u.%s.weight", i, parts[k].name);
            snprintf(published, sizeof published, "layers.%u.%s.weight", i, parts[k].published);
            add(s, name, published, parts[k].shape);
        }
    }
}

static void add_vision(small_files *s)
{
    static const struct {
        const char *name, *published;
        uint64_t rows, width; // 0: only a vector
    } parts[] = {
        { "ln1", "layer_norm1", SMALL_VISION_HIDDEN, 0 },
        { "attn_q", "self_attn.q_proj", SMALL_VISION_HIDDEN, SMALL_VISION_HIDDEN },
        { "attn_k", "self_attn.k_proj", SMALL_VISION_HIDDEN, SMALL_VISION_HIDDEN },
        { "attn_v", "self_attn.v_proj", SMALL_VISION_HIDDEN, SMALL_VISION_HIDDEN },
        { "attn_out", "self_attn.out_proj", SMALL_VISION_HIDDEN, SMALL_VISION_HIDDEN },
        { "ln2", "layer_norm2", SMALL_VISION_HIDDEN, 0 },
        { "ffn_up", "mlp.fc1", SMALL_VISION_FEED_FORWARD, SMALL_VISION_HIDDEN },
        { "ffn_down", "mlp.fc2", SMALL_VISION_HIDDEN, SMALL_VISION_FEED_FORWARD },
    };
    const uint64_t side = SMALL_IMAGE / SMALL_PATCH, hidden = SMALL_VISION_HIDDEN;
    add(s, "v.patch_embd.weight", "embeddings.patch_embedding.weight",
        (uint64_t[]){ SMALL_PATCH, SMALL_PATCH, 3, hidden });
    add(s, "v.patch_embd.bias", "embeddings.patch_embedding.bias", (uint64_t[]){ hidden, 0 });
    add(s, "v.position_embd.weight", "embeddings.position_embedding.weight",
        (uint64_t[]){ hidden, side * side, 0 });
    for (uint32_t i = 0; i < SMALL_VISION_LAYERS; i++) {
        for (size_t k = 0; k < 2 * sizeof parts / sizeof *parts; k++) {
            const uint64_t rows = parts[k / 2].rows, width = k % 2 ? 0 : parts[k / 2].width;
            const char *kind = k % 2 ? "bias" : "weight";
            char name[64], published[96];
            snprintf(name, sizeof name, "v.blk.%u.%s.%s", i, parts[k / 2].name, kind);
            snprintf(published, sizeof published, "encoder.layers.%u.%s.%s", i,
                     parts[k / 2].published, kind);
            add(s, name, published, (uint64_t[]){ width ? width : rows, width ? rows : 0, 0 });
        }
    }
    add(s, "v.post_ln.weight", "post_layernorm.weight", (uint64_t[]){ hidden, 0 });
    add(s, "v.post_ln.bias", "post_layernorm.bias", (uint64_t[]){ hidden, 0 });
    add(s, "mm.soft_emb_norm.weight", "mm_soft_emb_norm.weight", (uint64_t[]){ hidden, 0 });
    add(s, "mm.input_projection.weight", "mm_input_projection_weight",
        (uint64_t[]){ SMALL_HIDDEN, hidden, 0 });
}

// ---------------------------------------------------------------------------------- vocabulary

typedef struct words {
    json_document *document;
    gguf_string texts[512];
    int32_t types[512];
    uint32_t count;
} words;

static void add_word(words *w, const char *text, uint64_t id, int32_t type)
{
    CHECK(id < 512, "the vocabulary is too large");
    w->texts[id] = (gguf_string){ text, strlen(text) };
    w->types[id] = type;
    if (id >= w->count)
        w->count = (uint32_t)id + 1;
}

static void words_read(words *w, const char *tests_folder)
{
    char path[4096];
    uint64_t id = 0;
    memset(w, 0, sizeof *w);
    snprintf(path, sizeof path, "%s/fixtures/tokenizer_small.json", tests_folder);
    CHECK_OK(json_open(&w->document, path));
    const json_place top = json_top(w->document), model = json_find(&top, "model");
    for (const json *v = json_first(json_find(&model, "vocab").value); v; v = json_next(v)) {
        const char *text = json_name(v);
        CHECK(json_integer(v, 511, &id), "an id");
        add_word(w, text, id,
                 strncmp(text, "<0x", 3) || strlen(text) != 6 ? TOKEN_NORMAL : TOKEN_BYTE);
    }
    for (const json *v = json_first(json_find(&top, "added_tokens").value); v; v = json_next(v)) {
        const json_place token = { .value = v, .path = path };
        CHECK(json_integer(json_find(&token, "id").value, 511, &id), "an id");
        add_word(w, json_text(json_find(&token, "content").value), id,
                 json_is_true(json_find(&token, "special").value) ? TOKEN_CONTROL
                                                                  : TOKEN_USER_DEFINED);
    }
}

void small_files_make(small_files *s, const char *tests_folder)
{
    words w;
    memset(s, 0, sizeof *s);
    s->tests_folder = tests_folder;
    snprintf(s->folder, sizeof s->folder, "/tmp/kim_files_XXXXXX");
    CHECK(mkdtemp(s->folder), "no folder can be made in /tmp");
    words_read(&w, tests_folder);
    s->vocab = w.count;
    json_close(&w.document);
    add_text(s);
    add_vision(s);
}

void small_files_destroy(small_files *s)
{
    small_remove_folder(s);
    rmdir(s->folder);
    for (uint32_t i = 0; i < s->count; i++)
        free(s->tensors[i].values);
}

// ---------------------------------------------------------------------------------------- files

const char *small_path(const small_files *s, const char *name)
{
    static char paths[4][512];
    static uint32_t turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", s->folder, name);
    return path;
}

void small_write(const small_files *s, const char *name, const void *data, size_t size)
{
    FILE *file = fopen(small_path(s, name), "wb");
    CHECK(file && fwrite(data, 1, size, file) == size && !fclose(file), "%s cannot be written",
          name);
}

void small_remove_folder(const small_files *s)
{
    DIR *d = opendir(s->folder);
    CHECK(d, "%s cannot be read", s->folder);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (e->d_name[0] != '.')
            unlink(small_path(s, e->d_name));
    closedir(d);
}

// What is to be written.
typedef struct buffer {
    uint8_t *data;
    size_t size, room;
} buffer;

static void put(buffer *b, const void *data, size_t size)
{
    if (!size)
        return;
    if (b->size + size > b->room) {
        b->room = 2 * b->room + size;
        b->data = realloc(b->data, b->room);
        CHECK(b->data, "out of memory");
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void KIM_PRINTF(2, 3) print(buffer *b, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    CHECK(n >= 0 && n < (int)sizeof text, "the text is too long");
    put(b, text, (size_t)n);
}

static void finish(const small_files *s, const char *name, buffer *b)
{
    small_write(s, name, b->data, b->size);
    free(b->data);
    *b = (buffer){ 0 };
}

// Values as a tensor of this type.
static void put_values(buffer *b, const float *values, uint64_t count, uint32_t type, float add)
{
    if (type == 2 || type == 8) {
        const weight_type *t = weight_type_find(type);
        void *row = malloc(weight_row_bytes(t, count));
        CHECK(row, "out of memory");
        weight_quantize(t, values, count, row);
        put(b, row, weight_row_bytes(t, count));
        free(row);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        const float v = values[i] + add;
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        const uint32_t exponent = bits >> 23 & 255;
        const uint16_t half =
            (uint16_t)((bits >> 16 & 0x8000) | // exact: few bits, and no tiny ones
                       (exponent ? (exponent - 112) << 10 | (bits >> 13 & 1023) : 0));
        const uint16_t brain = (uint16_t)(bits >> 16);
        put(b,
            type == 0   ? (void *)&bits
            : type == 1 ? (void *)&half
                        : (void *)&brain,
            type == 0 ? 4 : 2);
    }
}

// ----------------------------------------------------------------------------------------- GGUF

static void put_string(buffer *b, const char *text, uint64_t length)
{
    put(b, &length, 8);
    put(b, text, length);
}

static void put_key(buffer *b, const char *name, uint32_t type, uint32_t *keys)
{
    put_string(b, name, strlen(name));
    put(b, &type, 4);
    ++*keys;
}

static void key_u32(buffer *b, const char *name, uint32_t value, uint32_t *keys)
{
    put_key(b, name, GGUF_U32, keys);
    put(b, &value, 4);
}

static void key_text(buffer *b, const char *name, const char *value, uint32_t *keys)
{
    put_key(b, name, GGUF_STRING, keys);
    put_string(b, value, strlen(value));
}

static void key_array(buffer *b, const char *name, uint32_t type, uint64_t count, uint32_t *keys)
{
    put_key(b, name, GGUF_ARRAY, keys);
    put(b, &type, 4);
    put(b, &count, 8);
}

static void key_words(buffer *b, const char *tests_folder, uint32_t *keys)
{
    words w;
    words_read(&w, tests_folder);
    key_text(b, "tokenizer.ggml.model", "llama", keys);
    key_array(b, "tokenizer.ggml.tokens", GGUF_STRING, w.count, keys);
    for (uint32_t i = 0; i < w.count; i++)
        put_string(b, w.texts[i].data, w.texts[i].length);
    key_array(b, "tokenizer.ggml.scores", GGUF_F32, w.count, keys);
    for (uint32_t i = 0; i < w.count; i++)
        put(b, &(float){ -(float)i }, 4);
    key_array(b, "tokenizer.ggml.token_type", GGUF_I32, w.count, keys);
    put(b, w.types, w.count * sizeof *w.types);
    json_close(&w.document);
}

// Small tensors stay F32; only whole blocks can be quantised.
static uint32_t type_of(const small_tensor *t, uint32_t type)
{
    const uint32_t block = tensor_type_find(type)->block;
    return t->n_dims == 1 || t->ne[0] % block ? 0 : type;
}

static const char *swapped_name(const small_tensor *t, char room[64])
{
    const char *up = strstr(t->name, "ffn_up"), *down = strstr(t->name, "ffn_down");
    if (!up && !down)
        return t->name;
    const char *at = up ? up : down;
    snprintf(room, 64, "%.*s%s%s", (int)(at - t->name), t->name, up ? "ffn_down" : "ffn_up",
             at + strlen(up ? "ffn_up" : "ffn_down"));
    return room;
}

// keys: [bytes] already written, `n_keys` of them
static void write_gguf(const small_files *s, const char *name, buffer *keys, uint32_t n_keys,
                       uint32_t type, bool text, bool swapped)
{
    buffer b = { 0 }, data = { 0 };
    char room[64];
    uint64_t count = 0;
    for (uint32_t i = 0; i < s->count; i++)
        count += (s->tensors[i].vision || s->tensors[i].projector) != text;
    put(&b, "GGUF\3\0\0\0", 8);
    put(&b, &count, 8);
    put(&b, &(uint64_t){ n_keys }, 8);
    put(&b, keys->data, keys->size);
    for (uint32_t i = 0; i < s->count; i++) {
        const small_tensor *t = &s->tensors[i];
        if ((t->vision || t->projector) == text)
            continue;
        const uint32_t own = type_of(t, type);
        const char *as = swapped ? swapped_name(t, room) : t->name;
        put_string(&b, as, strlen(as));
        put(&b, &t->n_dims, 4);
        put(&b, t->ne, 8 * t->n_dims);
        put(&b, &own, 4);
        put(&b, &(uint64_t){ data.size }, 8);
        put_values(&data, t->values, t->count, own, 0);
        while (data.size % 32)
            put(&data, "", 1);
    }
    while (b.size % 32)
        put(&b, "", 1);
    put(&b, data.data, data.size);
    free(data.data);
    free(keys->data);
    finish(s, name, &b);
}

void small_write_text(const small_files *s, const char *name, uint32_t type)
{
    buffer b = { 0 };
    uint32_t n = 0;
    key_text(&b, "general.architecture", "gemma3", &n);
    key_text(&b, "general.name", "small", &n);
    key_u32(&b, "gemma3.block_count", SMALL_LAYERS, &n);
    key_u32(&b, "gemma3.embedding_length", SMALL_HIDDEN, &n);
    key_u32(&b, "gemma3.feed_forward_length", SMALL_FEED_FORWARD, &n);
    key_u32(&b, "gemma3.attention.head_count", SMALL_HEADS, &n);
    key_u32(&b, "gemma3.attention.head_count_kv", 1, &n);
    key_u32(&b, "gemma3.attention.key_length", SMALL_HEAD, &n);
    key_u32(&b, "gemma3.attention.sliding_window", SMALL_WINDOW, &n);
    key_u32(&b, "gemma3.attention.sliding_window_pattern", 2, &n);
    key_u32(&b, "gemma3.context_length", 512, &n);
    put_key(&b, "gemma3.rope.scaling.factor", GGUF_F32, &n);
    put(&b, &(float){ 8 }, 4);
    key_text(&b, "tokenizer.chat_template", "{{ bos_token }}", &n);
    key_words(&b, s->tests_folder, &n);
    write_gguf(s, name, &b, n, type, true, false);
}

void small_write_projector(const small_files *s, const char *name, uint32_t type, bool swapped)
{
    buffer b = { 0 };
    uint32_t n = 0;
    key_text(&b, "general.architecture", "clip", &n);
    put_key(&b, "clip.has_vision_encoder", GGUF_BOOL, &n);
    put(&b, "\1", 1);
    key_text(&b, "clip.projector_type", "gemma3", &n);
    key_u32(&b, "clip.vision.image_size", SMALL_IMAGE, &n);
    key_u32(&b, "clip.vision.patch_size", SMALL_PATCH, &n);
    key_u32(&b, "clip.vision.embedding_length", SMALL_VISION_HIDDEN, &n);
    key_u32(&b, "clip.vision.feed_forward_length", SMALL_VISION_FEED_FORWARD, &n);
    key_u32(&b, "clip.vision.block_count", SMALL_VISION_LAYERS, &n);
    key_u32(&b, "clip.vision.attention.head_count", 2, &n);
    key_u32(&b, "clip.vision.projection_dim", SMALL_HIDDEN, &n);
    key_u32(&b, "clip.vision.projector.scale_factor", 2, &n);
    write_gguf(s, name, &b, n, type, false, swapped);
}

// --------------------------------------------------------------------------------------- folder

static const char *prefix_of(const small_tensor *t, small_names names)
{
    static const char *const prefixes[][3] = {
        [NAMES_OLD] = { "language_model.model.", "vision_tower.vision_model.",
                        "multi_modal_projector." },
        [NAMES_SAVED_BY_5] = { "language_model.model.", "vision_tower.", "multi_modal_projector." },
        [NAMES_NEW] = { "model.language_model.", "model.vision_tower.",
                        "model.multi_modal_projector." },
        [NAMES_TEXT] = { "model.", NULL, NULL },
    };
    return prefixes[names][t->vision ? 1 : t->projector ? 2 : 0];
}

static void write_shard(const small_files *s, const small_folder *f, const char *name,
                        uint32_t shard)
{
    const uint32_t type = !strcmp(f->dtype, "F32") ? 0 : !strcmp(f->dtype, "F16") ? 1 : 30;
    buffer header = { 0 }, data = { 0 }, b = { 0 };
    print(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = s->count; i-- > 0;) { // in another order than in GGUF files
        const small_tensor *t = &s->tensors[i];
        const char *prefix = prefix_of(t, f->names);
        if (!prefix || i % f->shards != shard)
            continue;
        const size_t begin = data.size;
        put_values(&data, t->values, t->count, type, t->plus_one ? -1 : 0);
        print(&header, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[", prefix, t->published, f->dtype);
        for (uint32_t d = t->n_dims; d-- > 0;)
            print(&header, "%llu%s", (unsigned long long)t->ne[d], d ? "," : "");
        print(&header, "],\"data_offsets\":[%zu,%zu]}", begin, data.size);
    }
    if (shard == 0) { // what no model needs
        print(&header,
              ",\"vision_tower.vision_model.head.probe\":{\"dtype\":\"U8\",\"shape\":[3],"
              "\"data_offsets\":[%zu,%zu]}",
              data.size, data.size + 3);
        put(&data, "abc", 3);
    }
    print(&header, "}");
    while (header.size % 8)
        print(&header, " ");
    put(&b, &(uint64_t){ header.size }, 8);
    put(&b, header.data, header.size);
    put(&b, data.data, data.size);
    free(header.data);
    free(data.data);
    finish(s, name, &b);
}

static void shard_name(const small_folder *f, uint32_t shard, char name[64])
{
    snprintf(name, 64, "model-%05u-of-%05u.safetensors", shard + 1, f->shards);
}

static void write_weights(const small_files *s, const small_folder *f)
{
    char name[64];
    if (f->shards == 1) {
        write_shard(s, f, "model.safetensors", 0);
        return;
    }
    buffer b = { 0 };
    print(&b, "{\"metadata\":{\"total_size\":0},\"weight_map\":{");
    for (uint32_t i = 0, n = 0; i < s->count; i++) {
        const char *prefix = prefix_of(&s->tensors[i], f->names);
        if (!prefix)
            continue;
        shard_name(f, i % f->shards, name);
        print(&b, "%s\"%s%s\":\"%s\"", n++ ? "," : "", prefix, s->tensors[i].published, name);
    }
    print(&b, "}}");
    finish(s, "model.safetensors.index.json", &b);
    for (uint32_t i = 0; i < f->shards; i++) {
        shard_name(f, i, name);
        write_shard(s, f, name, i);
    }
}

static void print_text_config(buffer *b, const small_folder *f)
{
    print(b,
          "\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,"
          "\"num_attention_heads\":%d,\"num_key_value_heads\":1,\"head_dim\":%d,"
          "\"sliding_window\":%d,\"max_position_embeddings\":512,\"query_pre_attn_scalar\":%d,",
          SMALL_HIDDEN, SMALL_FEED_FORWARD, SMALL_LAYERS, SMALL_HEADS, SMALL_HEAD, SMALL_WINDOW,
          SMALL_HEAD);
    if (f->new_config)
        print(b, "\"layer_types\":[\"sliding_attention\",\"full_attention\",\"sliding_attention\"],"
                 "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,"
                 "\"rope_theta\":1000000.0},\"sliding_attention\":{\"rope_type\":\"default\","
                 "\"rope_theta\":10000.0}},\"attention_bias\":false,"
                 "\"final_logit_softcapping\":null,\"hidden_activation\":\"gelu_pytorch_tanh\",");
    else
        print(b, "\"sliding_window_pattern\":2,\"rope_local_base_freq\":10000,"
                 "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},");
    print(b, "\"model_type\":\"gemma3_text\"");
}

static void write_config(const small_files *s, const small_folder *f)
{
    buffer b = { 0 };
    print(&b, "{");
    if (f->names != NAMES_TEXT)
        print(&b,
              "\"model_type\":\"gemma3\",\"boi_token_index\":%d,\"eoi_token_index\":%d,"
              "\"image_token_index\":%u,\"mm_tokens_per_image\":%d,"
              "\"vision_config\":{\"hidden_size\":%d,\"image_size\":%d,\"intermediate_size\":%d,"
              "\"num_attention_heads\":2,\"num_hidden_layers\":%d,\"patch_size\":%d,"
              "\"model_type\":\"siglip_vision_model\",\"vision_use_head\":false},"
              "\"text_config\":{",
              9, 10, s->vocab - 1, SMALL_TOKENS, SMALL_VISION_HIDDEN, SMALL_IMAGE,
              SMALL_VISION_FEED_FORWARD, SMALL_VISION_LAYERS, SMALL_PATCH);
    print_text_config(&b, f);
    print(&b, f->names != NAMES_TEXT ? "}}" : "}");
    finish(s, "config.json", &b);
}

void small_write_folder(const small_files *s, const small_folder *f)
{
    static const char pixels[] = "\"image_mean\":[0.5,0.5,0.5],\"image_std\":[0.5,0.5,0.5],"
                                 "\"do_pan_and_scan\":null,\"resample\":2,\"do_resize\":true,"
                                 "\"rescale_factor\":0.00392156862745098,"
                                 "\"size\":{\"height\":24,\"width\":24}";
    char path[4096];
    uint8_t *bytes = malloc(1 << 16);
    buffer b = { 0 };
    write_config(s, f);
    write_weights(s, f);
    snprintf(path, sizeof path, "%s/fixtures/tokenizer_small.json", s->tests_folder);
    FILE *file = fopen(path, "rb");
    CHECK(file && bytes, "%s cannot be opened", path);
    small_write(s, "tokenizer.json", bytes, fread(bytes, 1, 1 << 16, file));
    fclose(file);
    free(bytes);
    print(&b, "{\"eos_token_id\":[1,8],\"top_k\":64}");
    finish(s, "generation_config.json", &b);
    print(&b, "{\"chat_template\":\"{{ bos_token }}\"}");
    finish(s, "tokenizer_config.json", &b);
    print(&b,
          f->new_config ? "{\"image_seq_length\":%d,\"image_processor\":{%s}}" : "{\"n\":%d,%s}",
          SMALL_TOKENS, pixels);
    finish(s, f->new_config ? "processor_config.json" : "preprocessor_config.json", &b);
}

void small_edit(const small_files *s, const char *name, const char *find, const char *replace)
{
    const char *dot = strrchr(name, '.');
    const size_t skip = !strcmp(dot, ".safetensors") ? 8 : 0;
    FILE *file = fopen(small_path(s, name), "rb");
    CHECK(file, "%s cannot be opened", name);
    static uint8_t bytes[4 << 20];
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    uint8_t *at = memmem(bytes + skip, size - skip, find, strlen(find));
    CHECK(at, "%s has no %s", name, find);
    buffer b = { 0 };
    put(&b, bytes, (size_t)(at - bytes));
    put(&b, replace, strlen(replace));
    at += strlen(find);
    put(&b, at, size - (size_t)(at - bytes));
    if (skip) {
        uint64_t length;
        memcpy(&length, b.data, 8);
        length = length + strlen(replace) - strlen(find);
        memcpy(b.data, &length, 8);
    }
    finish(s, name, &b);
}
