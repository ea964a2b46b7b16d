// SPDX-License-Identifier: MIT
// Models from their files: a GGUF file and a projector, a folder with one or several safetensors
// files, in three types, with the names of all times; settings left out; everything that can be
// wrong.
//   model_files_test TESTS_FOLDER [MODEL [TOKENIZER_JSON]]
// MODEL is not used; TOKENIZER_JSON is the published one, see fixtures/make_tokenizer.py.
#include "engine/model_files.h"
#include "files_support.h"
#include "host/json.h"

#include <math.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------- the same

static void check_values(const small_tensor *want, const file_tensor *got, float add)
{
    CHECK(got->n_dims == want->n_dims && !memcmp(got->ne, want->ne, sizeof want->ne),
          "%s has another shape", want->name);
    float *values = malloc(want->count * sizeof *values);
    CHECK(values, "out of memory");
    CHECK_OK(file_tensor_read(got, values));
    for (uint64_t i = 0; i < want->count; i++)
        CHECK(values[i] + (want->plus_one ? add : 0) == want->values[i], "%s[%llu] is %g, not %g",
              want->name, (unsigned long long)i, (double)values[i], (double)want->values[i]);
    free(values);
}

static void check_shape(const encoder_shape *s)
{
    CHECK(s->image == SMALL_IMAGE && s->patch == SMALL_PATCH && s->hidden == SMALL_VISION_HIDDEN &&
              s->feed_forward == SMALL_VISION_FEED_FORWARD && s->layers == SMALL_VISION_LAYERS &&
              s->heads == 2 && s->tokens == SMALL_TOKENS && s->text_hidden == SMALL_HIDDEN,
          "the encoder has another shape");
    CHECK(s->eps == 1e-6f, "the encoder's epsilon is %g", (double)s->eps);
    for (int c = 0; c < 3; c++)
        CHECK(s->mean[c] == 0.5f && s->std[c] == 0.5f, "other colours");
}

static void check_architecture(const architecture *a)
{
    CHECK(a->layers == SMALL_LAYERS && a->hidden == SMALL_HIDDEN &&
              a->feed_forward == SMALL_FEED_FORWARD && a->heads == SMALL_HEADS &&
              a->kv_heads == 1 && a->head == SMALL_HEAD && a->context == 512 &&
              a->window == SMALL_WINDOW,
          "the text has another shape");
    CHECK(a->eps == 1e-6f && a->base_global == 1e6f && a->base_local == 1e4f &&
              a->factor_global == 8 && a->q_scale == 0.125f && a->embed_scale == 8,
          "the text has other numbers");
    CHECK(a->is_local[0] && !a->is_local[1] && a->is_local[2], "other layers are local");
}

static void check_files(const small_files *s, const char *path, const char *mmproj, bool vision)
{
    model_files f;
    CHECK_OK(model_files_open(&f, path, mmproj));
    check_architecture(&f.arch);
    CHECK(!vision == !f.vision && f.chat, "the files are for something else");
    if (vision)
        check_shape(&f.shape);
    CHECK(!f.crops.on && (!vision || (f.crops.min_crop == 256 && f.crops.max_crops == 4)), "crops");
    for (uint32_t i = 0; i < s->count; i++) {
        const small_tensor *t = &s->tensors[i];
        const bool of_text = !t->vision && !t->projector;
        const tensors *in = of_text ? f.text : f.vision;
        const file_tensor *got = in ? tensors_find(in, t->name) : NULL;
        CHECK(!got == (!of_text && !vision), "%s is not there", t->name);
        if (got)
            check_values(t, got, f.norm_add);
    }
    const tokenizer_ids *ids = tokenizer_get_ids(f.tokens);
    CHECK(ids->bos == 2 && ids->eos == 1 && ids->start_of_turn == 7 && ids->start_of_image == 9 &&
              ids->end_of_image == 10 && ids->image_soft_token == (int32_t)s->vocab - 1,
          "other ids");
    CHECK(tokenizer_ends(f.tokens, 8) && tokenizer_ends(f.tokens, 1) &&
              !tokenizer_ends(f.tokens, 2),
          "other ends");
    model_files_close(&f);
}

static void test_same(const small_files *s)
{
    static const uint32_t types[] = { 0, 1, 30 };
    static const char *const dtypes[] = { "F32", "F16", "BF16" };
    for (uint32_t i = 0; i < 3; i++) {
        small_write_text(s, "text.gguf", types[i]);
        small_write_projector(s, "mmproj.gguf", types[i], false);
        check_files(s, small_path(s, "text.gguf"), small_path(s, "mmproj.gguf"), true);
        check_files(s, small_path(s, "text.gguf"), NULL, false);
    }
    for (uint32_t i = 0; i < 24; i++) {
        small_remove_folder(s);
        const small_folder f = { .dtype = dtypes[i % 3],
                                 .names = (small_names)(i / 3 % 4),
                                 .shards = i / 12 ? 3 : 1,
                                 .new_config = i & 1 };
        small_write_folder(s, &f);
        check_files(s, s->folder, NULL, f.names != NAMES_TEXT);
    }
    small_remove_folder(s);
}

// --------------------------------------------------------------------------------------- models

static void test_info(const small_files *s)
{
    static const struct {
        const char *quantize;
        uint64_t bits; // of 32 weights
    } cases[] = { { NULL, 32 * 16 }, { "q8_0", 34 * 8 }, { "q4_0", 18 * 8 } };
    kim_plan plans[3];
    small_write_folder(s, &(small_folder){ .dtype = "BF16", .shards = 1 });
    for (uint32_t i = 0; i < 3; i++) {
        kim_model *m;
        CHECK_OK(kim_model_open(&m, NULL, s->folder,
                                &(kim_model_params){ .quantize = cases[i].quantize }));
        const kim_model_info *info = kim_model_get_info(m);
        CHECK(info->vision && info->image_size == SMALL_IMAGE && info->image_patch == SMALL_PATCH &&
                  info->image_tokens == SMALL_TOKENS &&
                  info->vision_layers == SMALL_VISION_LAYERS &&
                  info->vision_hidden == SMALL_VISION_HIDDEN && info->start_of_image == 9 &&
                  info->end_of_image == 10 && info->image_token == (int32_t)s->vocab - 1,
              "what is said of pictures is wrong");
        CHECK(info->chat && info->vocab == s->vocab && info->tensors == s->count,
              "what is said of the model is wrong");
        CHECK(!strncmp(info->name, "kim_files_", 10), "the model's name is %s", info->name);
        kim_tensor_info t;
        CHECK_OK(kim_model_get_tensor(m, 0, &t));
        CHECK(!strcmp(t.type, "BF16"), "a tensor of type %s", t.type);
        CHECK_OK(kim_model_plan(m, NULL, NULL, &plans[i]));
        kim_model_destroy(&m);
    }
    // matrices of whole groups of 16 rows, and the embedding
    uint64_t weights = ((uint64_t)s->vocab + 15) / 16 * 16 * SMALL_HIDDEN;
    for (uint32_t i = 1; i < s->count; i++)
        if (!s->tensors[i].vision && !s->tensors[i].projector && s->tensors[i].n_dims == 2)
            weights += s->tensors[i].count;
    for (uint32_t i = 1; i < 3; i++) {
        const uint64_t less = weights / 32 * (cases[0].bits - cases[i].bits) / 8;
        const uint64_t got = plans[0].weights - plans[i].weights;
        // every part begins at a multiple of some bytes
        CHECK(got > less - 16384 && got < less + 16384, "%s takes %llu bytes less, not %llu",
              cases[i].quantize, (unsigned long long)got, (unsigned long long)less);
    }
    kim_model *m;
    CHECK_FAILS(kim_model_open(&m, NULL, s->folder, &(kim_model_params){ .quantize = "q3_k" }),
                KIM_ERR_ARGUMENT, "'q3_k'; q8_0 and q4_0");
    small_remove_folder(s);
}

// --------------------------------------------------------------------------------- left out, odd

#define LAYERS "\"num_hidden_layers\":7,\"hidden_size\":64,\"intermediate_size\":96"

static kim_err read_config(architecture *a, const char *text)
{
    json_document *d;
    CHECK_OK(json_open_memory(&d, text, strlen(text), "config.json"));
    const json_place top = json_top(d);
    const kim_err err = architecture_read_config(a, &top);
    json_close(&d);
    return err;
}

static void test_defaults(void)
{
    architecture a;
    CHECK_OK(read_config(&a, "{" LAYERS "}"));
    CHECK(a.heads == 8 && a.kv_heads == 4 && a.head == 256 && a.context == 131072 &&
              a.window == 4096 && a.eps == 1e-6f && a.base_global == 1e6f && a.base_local == 1e4f &&
              a.factor_global == 1 && a.q_scale == 0.0625f,
          "the defaults are wrong");
    for (uint32_t i = 0; i < 7; i++)
        CHECK(a.is_local[i] == (i != 5), "layer %u", i);
    architecture_destroy(&a);
    // as published for 4B, and for 27B with 62 layers
    CHECK_OK(read_config(&a, "{\"hidden_size\":2560,\"intermediate_size\":10240,"
                             "\"model_type\":\"gemma3_text\",\"num_hidden_layers\":34,"
                             "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
                             "\"sliding_window\":1024}"));
    CHECK(!strcmp(architecture_size(&a), "4B") && a.factor_global == 8 && a.window == 1024, "4B");
    architecture_destroy(&a);
    CHECK_OK(read_config(&a, "{\"head_dim\":128,\"hidden_size\":5376,\"intermediate_size\":21504,"
                             "\"num_attention_heads\":32,\"num_hidden_layers\":62,"
                             "\"num_key_value_heads\":16,\"query_pre_attn_scalar\":168,"
                             "\"rope_scaling\":{\"factor\":8,\"type\":\"linear\"},"
                             "\"sliding_window\":1024,\"_sliding_window_pattern\":6}"));
    CHECK(!strcmp(architecture_size(&a), "27B") && fabsf(a.q_scale - 0.07715167f) < 1e-7f &&
              a.factor_global == 8,
          "27B");
    architecture_destroy(&a);
}

static void test_configs(void)
{
    static const struct {
        const char *text;
        kim_err code;
        const char *words;
    } cases[] = {
        { "{\"hidden_size\":64}", KIM_ERR_FORMAT, "config.json: num_hidden_layers is missing" },
        { "{" LAYERS ",\"num_attention_heads\":0}", KIM_ERR_FORMAT,
          "num_attention_heads is 0; 1 to 1024" },
        { "{" LAYERS ",\"num_attention_heads\":-1}", KIM_ERR_FORMAT,
          "num_attention_heads is not an integer" },
        { "{" LAYERS ",\"head_dim\":1.5}", KIM_ERR_FORMAT, "head_dim is not an integer" },
        { "{" LAYERS ",\"head_dim\":\"256\"}", KIM_ERR_FORMAT, "head_dim is not an integer" },
        { "{" LAYERS ",\"head_dim\":20}", KIM_ERR_UNSUPPORTED, "the head size is 20" },
        { "{" LAYERS ",\"num_key_value_heads\":3}", KIM_ERR_FORMAT, "8 attention heads" },
        { "{" LAYERS ",\"sliding_window\":99999999}", KIM_ERR_FORMAT, "window is 99999999" },
        { "{" LAYERS ",\"sliding_window_pattern\":0}", KIM_ERR_FORMAT,
          "sliding_window_pattern is 0" },
        { "{" LAYERS ",\"layer_types\":[\"full_attention\"]}", KIM_ERR_FORMAT,
          "layer_types has 1 items; 7" },
        { "{" LAYERS ",\"layer_types\":[\"chunked_attention\"]}", KIM_ERR_UNSUPPORTED,
          "item 0 of layer_types" },
        { "{" LAYERS ",\"rope_scaling\":{\"rope_type\":\"yarn\"}}", KIM_ERR_UNSUPPORTED,
          "rope_scaling.rope_type is yarn" },
        { "{" LAYERS ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":-1}}", KIM_ERR_FORMAT,
          "rope_scaling.factor is -1" },
        { "{" LAYERS ",\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"linear\","
          "\"factor\":2}}}",
          KIM_ERR_UNSUPPORTED, "rope_parameters.sliding_attention has a factor of 2" },
        { "{" LAYERS ",\"rope_theta\":0}", KIM_ERR_FORMAT, "rope_theta is 0" },
        { "{" LAYERS ",\"rms_norm_eps\":1e999}", KIM_ERR_FORMAT, "rms_norm_eps is not a finite" },
        { "{" LAYERS ",\"rope_scaling\":8}", KIM_ERR_FORMAT, "rope_scaling is not an object" },
        { "{" LAYERS ",\"model_type\":\"gemma2\"}", KIM_ERR_UNSUPPORTED, "model_type is gemma2" },
        { "{" LAYERS ",\"hidden_activation\":\"silu\"}", KIM_ERR_UNSUPPORTED,
          "hidden_activation is silu" },
        { "{" LAYERS ",\"attention_bias\":true}", KIM_ERR_UNSUPPORTED, "attention_bias is set" },
        { "{" LAYERS ",\"final_logit_softcapping\":30.0}", KIM_ERR_UNSUPPORTED,
          "final_logit_softcapping is set" },
        { "{" LAYERS ",\"use_bidirectional_attention\":true}", KIM_ERR_UNSUPPORTED,
          "use_bidirectional_attention is set" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        architecture a;
        CHECK_FAILS(read_config(&a, cases[i].text), cases[i].code, cases[i].words);
        CHECK(!a.is_local, "something is left of a failure");
    }
}

// --------------------------------------------------------------------------------------- refused

#define INDEX "model.safetensors.index.json"
#define SHARD "model-00002-of-00003.safetensors"

// One thing is changed in a good folder. find: NULL: the file is removed
typedef struct folder_case {
    bool shards;
    const char *file, *find, *replace;
    kim_err code;
    const char *words;
} folder_case;

static const folder_case folder_cases[] = {
    { false, "config.json", NULL, NULL, KIM_ERR_FILE, "config.json: cannot open" },
    { false, "config.json", "\"gemma3\"", "\"gemma3n\"", KIM_ERR_UNSUPPORTED,
      "config.json: model_type is 'gemma3n'" },
    { false, "config.json", "\"gemma3\"", "\"\\u001b[31m\\n\"", KIM_ERR_UNSUPPORTED,
      "model_type is '?[31m?'" },
    { false, "config.json", "\"text_config\"", "\"txt_config\"", KIM_ERR_FORMAT,
      "text_config is missing" },
    { false, "config.json", "siglip_vision_model", "clip", KIM_ERR_UNSUPPORTED,
      "vision_config has the model_type clip" },
    { false, "config.json", "\"mm_tokens_per_image\":9", "\"mm_tokens_per_image\":8",
      KIM_ERR_FORMAT, "averaged to 8 soft tokens" },
    { false, "config.json", "\"boi_token_index\":9", "\"boi_token_index\":10", KIM_ERR_FORMAT,
      "boi_token_index is 10, but <start_of_image> has the id 9" },
    { false, "config.json", "\"hidden_size\":64,\"intermediate_size\":96", LAYERS, KIM_ERR_FORMAT,
      "the name num_hidden_layers is there twice" },
    { false, "config.json", "\"linear\"", "\"llama3\"", KIM_ERR_UNSUPPORTED,
      "text_config.rope_scaling.rope_type is llama3" },
    { false, "config.json", "{", "[", KIM_ERR_FORMAT, "config.json: line 1 is no JSON" },
    { false, "model.safetensors", NULL, NULL, KIM_ERR_FILE, "neither model.safetensors nor" },
    { false, "model.safetensors", "model.norm.weight", "model.norn.weight", KIM_ERR_FORMAT,
      "the tensor output_norm.weight is missing" },
    { false, "model.safetensors", "[96,64]", "[48,128]", KIM_ERR_FORMAT,
      "the tensor blk.2.ffn_up.weight has the shape 128 x 48; 64 x 96 is expected" },
    { false, "model.safetensors", "[96,64]", "[96,65]", KIM_ERR_FORMAT,
      "has 6240 elements of BF16 but 12288 bytes" },
    { false, "model.safetensors", "[96,64]", "[96,\"\"]", KIM_ERR_FORMAT,
      "has a shape that is not of integers" },
    { false, "model.safetensors", "[96,64]", "[9007199254740992,9007199254740992]", KIM_ERR_FORMAT,
      "more than 2^56 elements" },
    { false, "model.safetensors", "[96,64]", "[1,1,1,1,1,1,1,1,96,64]", KIM_ERR_UNSUPPORTED,
      "more than 8 dimensions" },
    { false, "model.safetensors", "[96,64]", "[1,1,1,96,64]", KIM_ERR_FORMAT,
      "layers.2.mlp.up_proj.weight has 5 dimensions" },
    { false, "model.safetensors", "\"BF16\",\"shape\":[96,64]", "\"I16\",\"shape\":[96,64]",
      KIM_ERR_UNSUPPORTED, "layers.2.mlp.up_proj.weight has the dtype I16" },
    { false, "model.safetensors", "\"BF16\",\"shape\":[96,64]", "\"Q16\",\"shape\":[96,64]",
      KIM_ERR_UNSUPPORTED, "layers.2.mlp.up_proj.weight has no dtype that is known" },
    { false, "model.safetensors", "\"dtype\":\"U8\"", "\"dtype\":\"F4\"", KIM_ERR_FORMAT,
      "head.probe has 3 elements of F4 but 3 bytes" },
    { false, "model.safetensors", "vision_tower.vision_model.head.probe", "lm_head.weight",
      KIM_ERR_UNSUPPORTED, "the tensor lm_head.weight has the dtype U8" },
    { false, "model.safetensors", "language_model.model.layers.0.mlp.up_proj.weight",
      "lm_head.weight", KIM_ERR_UNSUPPORTED, "has a tensor output.weight" },
    { false, "model.safetensors", "layers.0.mlp.up_proj.weight", "layers.1.mlp.up_proj.weight",
      KIM_ERR_FORMAT, "is there twice in one object" },
    { false, "model.safetensors", "language_model.model.layers.0.mlp.up_proj.weight",
      "model.layers.1.mlp.up_proj.weight", KIM_ERR_FORMAT,
      "there are two tensors that are blk.1.ffn_up.weight" },
    { false, "model.safetensors", "\"data_offsets\":[0,", "\"data_offsets\":[2,", KIM_ERR_FORMAT,
      "elements of BF16 but" },
    { false, "model.safetensors", "\"data_offsets\":[0,8192]", "\"data_offsets\":[8192,16384]",
      KIM_ERR_FORMAT, "after bytes of no tensor" },
    { false, "model.safetensors", "\"data_offsets\":[0,8192]", "\"data_offsets\":[0,8192,1]",
      KIM_ERR_FORMAT, "data_offsets that are not two integers" },
    { false, "model.safetensors", "\"data_offsets\":[0,8192]", "\"data_offsets\":[8192,0]",
      KIM_ERR_FORMAT, "it is truncated or corrupt" },
    { false, "tokenizer.json", NULL, NULL, KIM_ERR_FILE, "tokenizer.json: cannot open" },
    { false, "tokenizer.json", "\"BPE\"", "\"Unigram\"", KIM_ERR_UNSUPPORTED,
      "tokenizer.json: model.type is Unigram" },
    { false, "tokenizer.json", "\"byte_fallback\":true", "\"byte_fallback\":false",
      KIM_ERR_UNSUPPORTED, "byte_fallback is not true" },
    { false, "tokenizer.json", "\"Replace\"", "\"NFC\"", KIM_ERR_UNSUPPORTED,
      "normalizer.type is NFC" },
    { false, "tokenizer.json", "\"lstrip\":false", "\"lstrip\":true", KIM_ERR_UNSUPPORTED,
      "the added token '<pad>' is lstrip" },
    { false, "tokenizer.json", "\"<eos>\":1", "\"<eos>\":2", KIM_ERR_FORMAT,
      "tokens '<eos>' and '<bos>' both have the id 2" },
    { false, "tokenizer.json", "\"<eos>\":1", "\"<eos>\":99999", KIM_ERR_FORMAT,
      "the id of the token '<eos>' is not an integer below" },
    { false, "tokenizer.json", "[\"aa\",\"a\"]", "[\"a\",\"aa\"]", KIM_ERR_UNSUPPORTED,
      "only the order of SentencePiece" },
    { false, "tokenizer.json", "[\"aa\",\"a\"],", "", KIM_ERR_UNSUPPORTED,
      "only all of them, as of SentencePiece" },
    { false, "tokenizer.json", "[\"aa\",\"a\"]", "[\"aa\"]", KIM_ERR_FORMAT,
      "one of model.merges is not of two texts" },
    { false, "generation_config.json", "[1,8]", "[1,300]", KIM_ERR_FORMAT,
      "generation_config.json: the end-of-text token is 300, which is not a special" },
    { false, "generation_config.json", "[1,8]", "\"1\"", KIM_ERR_FORMAT,
      "eos_token_id is not an id" },
    { false, "preprocessor_config.json", "\"height\":24", "\"height\":25", KIM_ERR_FORMAT,
      "size is 24 x 25, but vision_config.image_size in config.json is 24" },
    { false, "preprocessor_config.json", "0.5,0.5]", "0.5]", KIM_ERR_FORMAT,
      "image_mean is not of 3 numbers" },
    { false, "preprocessor_config.json", "\"resample\":2", "\"resample\":3", KIM_ERR_UNSUPPORTED,
      "resample is 3" },
    { false, "preprocessor_config.json", "\"do_resize\":true", "\"do_resize\":false",
      KIM_ERR_UNSUPPORTED, "do_resize is false" },
    { true, SHARD, NULL, NULL, KIM_ERR_FILE, SHARD ": cannot open" },
    { true, SHARD, "model.norm.weight", "model.norn.weight", KIM_ERR_FORMAT,
      "model.norm.weight is not in " SHARD ", where it is said to be" },
    { true, INDEX, "\"weight_map\"", "\"map\"", KIM_ERR_FORMAT, "weight_map is missing" },
    { true, INDEX, "\"" SHARD "\"", "\"../" SHARD "\"", KIM_ERR_FORMAT,
      "is not the name of a file in the folder" },
    { true, INDEX, "\"" SHARD "\"", "7", KIM_ERR_FORMAT, "is not the name of a file" },
};

static void test_folders(const small_files *s)
{
    for (size_t i = 0; i < sizeof folder_cases / sizeof *folder_cases; i++) {
        const folder_case *c = &folder_cases[i];
        kim_model *m;
        small_remove_folder(s);
        small_write_folder(s, &(small_folder){ .dtype = "BF16", .shards = c->shards ? 3 : 1 });
        if (c->find)
            small_edit(s, c->file, c->find, c->replace);
        else
            unlink(small_path(s, c->file));
        CHECK_FAILS(kim_model_open(&m, NULL, s->folder, NULL), c->code, c->words);
        CHECK(!m && !strchr(kim_error_text(), '\n') && strstr(kim_error_text(), s->folder),
              "the sentence does not name the file: %s", kim_error_text());
    }
    small_remove_folder(s);
}

// The whole of a file of the folder.
static uint8_t *read_file(const small_files *s, const char *name, size_t *size)
{
    FILE *file = fopen(small_path(s, name), "rb");
    uint8_t *bytes = malloc(1 << 20);
    CHECK(file && bytes, "%s cannot be opened", name);
    *size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

// Every length that a file can be cut to, near its ends.
static void test_truncated(const small_files *s)
{
    small_write_folder(s, &(small_folder){ .dtype = "F16", .shards = 1 });
    size_t size;
    uint8_t *bytes = read_file(s, "model.safetensors", &size);
    for (size_t i = 0; i < 400; i++) {
        const size_t cut = i < 200 ? i : size - 400 + i;
        kim_model *m;
        small_write(s, "model.safetensors", bytes, cut);
        const kim_err err = kim_model_open(&m, NULL, s->folder, NULL);
        CHECK(err == (cut ? KIM_ERR_FORMAT : KIM_ERR_FILE), "%zu bytes: %s", cut, kim_error_text());
    }
    free(bytes);
    small_remove_folder(s);
}

// A number in a GGUF file, `skip` bytes after a name: of a key, after its type; of a tensor's type.
static void set_number(const small_files *s, const char *name, const char *key, size_t skip,
                       uint32_t value)
{
    size_t size;
    uint8_t *bytes = read_file(s, name, &size);
    uint8_t *at = memmem(bytes, size, key, strlen(key));
    CHECK(at, "%s has no key %s", name, key);
    memcpy(at + strlen(key) + skip, &value, 4);
    small_write(s, name, bytes, size);
    free(bytes);
}

// The published text models have no row for <image_soft_token>, the last id.
static void test_rows(small_files *s)
{
    kim_model *m;
    small_tensor *embedding = &s->tensors[0];
    for (uint32_t fewer = 1; fewer <= 2; fewer++) {
        embedding->ne[1]--;
        embedding->count -= SMALL_HIDDEN;
        small_write_folder(s, &(small_folder){ .dtype = "F16", .names = NAMES_TEXT, .shards = 1 });
        if (fewer == 2)
            CHECK_FAILS(kim_model_open(&m, NULL, s->folder, NULL), KIM_ERR_FORMAT,
                        "rows for a vocabulary of");
        else
            CHECK_OK(kim_model_open(&m, NULL, s->folder, NULL));
        kim_model_destroy(&m);
    }
    embedding->ne[1] += 2;
    embedding->count += 2 * SMALL_HIDDEN;
    small_remove_folder(s);
}

static void test_projectors(const small_files *s)
{
    static const struct {
        const char *find, *replace; // or a key, and NULL
        uint32_t value;
        kim_err code;
        const char *words;
    } cases[] = {
        { "gemma3", "gemma9", 0, KIM_ERR_UNSUPPORTED, "clip.projector_type is 'gemma9'" },
        { "vision_encoder", "vision_ancoder", 0, KIM_ERR_UNSUPPORTED, "has no vision encoder" },
        { "image_size", "image_site", 0, KIM_ERR_FORMAT, "the key clip.vision.image_size is miss" },
        { "mm.soft_emb_norm", "mm.soft_emb_nome", 0, KIM_ERR_FORMAT,
          "mmproj.gguf: the tensor mm.soft_emb_norm.weight is missing" },
        { "v.blk.1.ln2.bias", "v.blk.1.ln3.bias", 0, KIM_ERR_FORMAT,
          "the tensor v.blk.1.ln2.bias is missing" },
        { "clip.vision.projection_dim", NULL, 96, KIM_ERR_FORMAT,
          "is the projector of a model of width 96, but" },
        { "clip.vision.patch_size", NULL, 0, KIM_ERR_FORMAT, "in patches of 0" },
        { "clip.vision.patch_size", NULL, 8, KIM_ERR_FORMAT, "mmproj.gguf: pictures of 24" },
        { "clip.vision.projector.scale_factor", NULL, 4, KIM_ERR_FORMAT, "averaged by 4 x 4" },
        { "clip.vision.attention.head_count", NULL, 3, KIM_ERR_UNSUPPORTED,
          "mmproj.gguf: 3 heads" },
        { "clip.vision.embedding_length", NULL, 96, KIM_ERR_FORMAT, "has the shape" },
    };
    model_files f;
    kim_model *m;
    small_write_text(s, "text.gguf", 1);
    char text[512], projector[512];
    snprintf(text, sizeof text, "%s", small_path(s, "text.gguf"));
    snprintf(projector, sizeof projector, "%s", small_path(s, "mmproj.gguf"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        small_write_projector(s, "mmproj.gguf", 1, false);
        if (cases[i].replace)
            small_edit(s, "mmproj.gguf", cases[i].find, cases[i].replace);
        else
            set_number(s, "mmproj.gguf", cases[i].find, 4, cases[i].value);
        CHECK_FAILS(kim_model_open(&m, NULL, text, &(kim_model_params){ .mmproj = projector }),
                    cases[i].code, cases[i].words);
    }
    small_write_projector(s, "mmproj.gguf", 1, false);
    CHECK_FAILS(model_files_open(&f, projector, NULL), KIM_ERR_UNSUPPORTED,
                "mmproj.gguf: is a projector");
    CHECK_FAILS(model_files_open(&f, text, text), KIM_ERR_UNSUPPORTED,
                "text.gguf: is not a projector");
    CHECK_FAILS(model_files_open(&f, text, "/nowhere"), KIM_ERR_FILE, "/nowhere: cannot open");
    CHECK_FAILS(model_files_open(&f, s->folder, projector), KIM_ERR_ARGUMENT, "is a folder");
    CHECK(!f.text && !f.tokens, "something is left of a failure");
    CHECK_OK(kim_model_open(&m, NULL, NULL, &(kim_model_params){ .mmproj = projector }));
    CHECK(kim_model_get_info(m)->vision && kim_model_get_info(m)->image_size == SMALL_IMAGE,
          "a projector alone");
    kim_model_destroy(&m);
    set_number(s, "text.gguf", "blk.1.ffn_up.weight", 20, 25); // after the shape
    CHECK_FAILS(kim_model_open(&m, NULL, text, NULL), KIM_ERR_UNSUPPORTED,
                "text.gguf: the tensor blk.1.ffn_up.weight has type I16, expected one of F32");
    small_edit(s, "text.gguf", "<start_of_image>", "<start_of_onions");
    CHECK_FAILS(model_files_open(&f, text, projector), KIM_ERR_FORMAT,
                "no tokens <start_of_image>");
    small_remove_folder(s);
}

// ------------------------------------------------------------------------------------ tokenizer

// Equal to what the tokenizers package says; see make_tokenizer.py.
static void check_tokenizer(const char *tests_folder, const char *name, const char *path)
{
    tokenizer *t;
    const double start = seconds_now();
    CHECK_OK(tokenizer_create_from_json(&t, path));
    printf("%s: %.0f ms\n", path, 1e3 * (seconds_now() - start));
    fixture f = fixture_open(tests_folder, name, "KTOK");
    for (uint32_t left = fixture_u32(&f); left > 0; left--) {
        const bool special = fixture_u32(&f) != 0;
        const uint32_t repeat = fixture_u32(&f), length = fixture_u32(&f);
        const uint32_t expected = fixture_u32(&f);
        const char *text = fixture_bytes(&f, length);
        token_list list = { 0 };
        char *whole = malloc((size_t)repeat * length + 1);
        CHECK(whole, "out of memory");
        for (uint32_t i = 0; i < repeat; i++)
            memcpy(whole + (size_t)i * length, text, length);
        CHECK_OK(tokenizer_append(t, whole, (size_t)repeat * length, special, &list));
        CHECK(list.count == expected, "\"%.*s\": %u ids, expected %u", (int)length, text,
              list.count, expected);
        for (uint32_t i = 0; i < expected; i++) {
            const int32_t id = (int32_t)fixture_u32(&f);
            CHECK(list.ids[i] == id, "\"%.*s\": id %u is %d, expected %d", (int)length, text, i,
                  list.ids[i], id);
        }
        free(list.ids);
        free(whole);
    }
    fixture_close(&f);
    tokenizer_destroy(&t);
}

static void test_tokenizers(const char *tests_folder, const char *published)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/fixtures/tokenizer_small.json", tests_folder);
    check_tokenizer(tests_folder, "tokenizer_small.bin", path);
    if (published) // 33 MB: not in the tree
        check_tokenizer(tests_folder, "tokenizer.bin", published);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1, "usage: model_files_test TESTS_FOLDER [MODEL [TOKENIZER_JSON]]");
    static small_files s;
    small_files_make(&s, argv[1]);
    test_defaults();
    test_configs();
    test_same(&s);
    test_info(&s);
    test_folders(&s);
    test_truncated(&s);
    test_rows(&s);
    test_projectors(&s);
    test_tokenizers(argv[1], argc > 3 ? argv[3] : NULL);
    small_files_destroy(&s);
    return 0;
}
