// SPDX-License-Identifier: MIT
// Synthetic models: shapes, types and bytes as the published files have them, sane values, and a
// model that runs.
//
//   synthetic_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation]
//
// MODEL: the published 270M in Q4_K_M, whose tensors are those of 270m:q4_k_m
#include "model_support.h"

#include "engine/model_files.h"
#include "host/reference_dequant.h"

#include <math.h>
#include <unistd.h>

static kim_model *open_synthetic(kim_gpu *gpu, const char *name)
{
    kim_model *m;
    CHECK_OK(kim_model_open(&m, gpu, NULL, &(kim_model_params){ .synthetic = name }));
    return m;
}

// --------------------------------------------------------------------------------------- shapes

typedef struct shape {
    const char *name;
    uint64_t layers, hidden, feed_forward, heads, kv_heads, head, context, window;
    double scale, factor;
} shape;

static const shape shapes[] = {
    { "270m", 18, 640, 2048, 4, 1, 256, 32768, 512, 1.0 / 16, 1 },
    { "1b", 26, 1152, 6912, 4, 1, 256, 32768, 512, 1.0 / 16, 1 },
    { "4b", 34, 2560, 10240, 8, 4, 256, 131072, 1024, 1.0 / 16, 8 },
    { "12b", 48, 3840, 15360, 16, 8, 256, 131072, 1024, 1.0 / 16, 8 },
    { "27b", 62, 5376, 21504, 32, 16, 128, 131072, 1024, 0.07715167, 8 },
};

static const struct type {
    const char *name;
    uint32_t block, bytes, ggml;
} types[] = {
    { "F32", 1, 4, 0 },       { "F16", 1, 2, 1 },       { "BF16", 1, 2, 30 },
    { "Q4_0", 32, 18, 2 },    { "Q4_1", 32, 20, 3 },    { "Q5_0", 32, 22, 6 },
    { "Q5_1", 32, 24, 7 },    { "Q8_0", 32, 34, 8 },    { "Q2_K", 256, 84, 10 },
    { "Q3_K", 256, 110, 11 }, { "Q4_K", 256, 144, 12 }, { "Q5_K", 256, 176, 13 },
    { "Q6_K", 256, 210, 14 }, { "IQ4_NL", 32, 18, 20 }, { "IQ4_XS", 256, 136, 23 },
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_TYPES = sizeof types / sizeof *types };

static const char *const names[] = { "f32",    "f16",    "bf16",   "q4_0",   "q4_1",   "q5_0",
                                     "q5_1",   "q8_0",   "q2_k",   "q3_k_s", "q3_k_m", "q3_k_l",
                                     "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",   "iq4_nl",
                                     "iq4_xs", "q3_k",   "q4_k",   "q5_k" };

enum { N_NAMES = sizeof names / sizeof *names };

static uint32_t type_named(const char *name)
{
    for (uint32_t i = 0; i < N_TYPES; i++)
        if (!strcmp(types[i].name, name))
            return i;
    CHECK(false, "there is no type %s", name);
    return 0;
}

// The elements of a tensor of the text by its name.
static uint64_t elements_of(const shape *s, const char *name)
{
    const uint64_t q = s->heads * s->head, kv = s->kv_heads * s->head;
    const struct {
        const char *what;
        uint64_t elements;
    } parts[] = {
        { "attn_norm", s->hidden },
        { "attn_q_norm", s->head },
        { "attn_k_norm", s->head },
        { "post_attention_norm", s->hidden },
        { "ffn_norm", s->hidden },
        { "post_ffw_norm", s->hidden },
        { "attn_q", s->hidden * q },
        { "attn_k", s->hidden * kv },
        { "attn_v", s->hidden * kv },
        { "attn_output", s->hidden * q },
        { "ffn_gate", s->hidden * s->feed_forward },
        { "ffn_up", s->hidden * s->feed_forward },
        { "ffn_down", s->hidden * s->feed_forward },
    };
    if (!strcmp(name, "token_embd.weight"))
        return 262144 * s->hidden;
    if (!strcmp(name, "output_norm.weight"))
        return s->hidden;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *at = strstr(name, parts[i].what);
        if (at && !strcmp(at + strlen(parts[i].what), ".weight") && at[-1] == '.')
            return parts[i].elements;
    }
    CHECK(false, "there is no tensor %s in the text", name);
    return 0;
}

// Both tables of rotations: 256 low positions and every 256th, a pair of f32 each.
static uint64_t rotation_bytes(const shape *s)
{
    return 2 * (256 + s->context / 256) * (s->head / 2) * 8;
}

static void check_info(const shape *s, const kim_model_info *i)
{
    CHECK(i->layers == s->layers && i->hidden == s->hidden && i->feed_forward == s->feed_forward &&
              i->heads == s->heads && i->kv_heads == s->kv_heads && i->head_size == s->head &&
              i->context == s->context && i->window == s->window && i->window_pattern == 6 &&
              i->vocab == 262144,
          "%s has another shape", s->name);
    CHECK(fabs((double)i->attention_scale / s->scale - 1) < 1e-6 &&
              fabs((double)i->rope_factor_global - s->factor) < 1e-6 &&
              i->rope_base_global == 1e6f && i->rope_base_local == 1e4f && i->rms_eps == 1e-6f,
          "%s has other scales", s->name);
    CHECK(strcasecmp(i->size, s->name) == 0, "%s is of the size '%s'", s->name, i->size);
}

// What is added where a tensor, of rows in groups of 16, is split into blocks of at most 1 GiB,
// each of which begins at a multiple of 256.
static uint64_t split_bytes(const kim_tensor_info *t)
{
    const uint64_t groups = t->shape[1] / 16, group = t->bytes / groups;
    const uint64_t most = (1ull << 30) / group;
    const uint64_t full = groups / most, rest = groups % most * group;
    const uint64_t all = full * ((most * group + 255) / 256 * 256) + (rest + 255) / 256 * 256;
    return all - t->bytes;
}

// Every tensor has the elements of the specification, and all bytes add up.
static void check_bytes(const shape *s, const kim_model *m)
{
    const kim_model_info *info = kim_model_get_info(m);
    uint64_t bytes = 0, elements = 0, placed = rotation_bytes(s);
    CHECK(info->tensors == 13 * s->layers + 2, "%u tensors", info->tensors);
    for (uint32_t i = 0; i < info->tensors; i++) {
        kim_tensor_info t;
        CHECK_OK(kim_model_get_tensor(m, i, &t));
        const struct type *type = &types[type_named(t.type)];
        const uint64_t n = elements_of(s, t.name);
        CHECK(t.shape[0] * t.shape[1] == n && t.shape[0] % type->block == 0,
              "%s of %s is %llu x %llu", t.name, info->name, (unsigned long long)t.shape[0],
              (unsigned long long)t.shape[1]);
        CHECK(t.bytes == n / type->block * type->bytes, "%s takes %llu bytes", t.name,
              (unsigned long long)t.bytes);
        bytes += t.bytes;
        elements += n;
        placed += t.bytes;
        if (!strcmp(t.name, "token_embd.weight")) // no other is that large
            placed += split_bytes(&t);
    }
    kim_plan plan;
    CHECK_OK(kim_model_plan(m, NULL, NULL, &plan));
    CHECK(info->file_bytes == bytes && info->parameters == elements, "%s: %llu bytes, not %llu",
          info->name, (unsigned long long)info->file_bytes, (unsigned long long)bytes);
    CHECK(plan.weights == placed, "%s: weights are planned with %llu bytes, not %llu", info->name,
          (unsigned long long)plan.weights, (unsigned long long)placed);
}

static void test_bytes(void)
{
    for (uint32_t i = 0; i < N_SHAPES; i++)
        for (uint32_t k = 0; k < 2 * N_NAMES; k++) {
            char name[40];
            snprintf(name, sizeof name, "%s:%s%s", shapes[i].name, names[k / 2],
                     k % 2 ? "+pure" : "");
            kim_model *m = open_synthetic(NULL, name);
            check_info(&shapes[i], kim_model_get_info(m));
            check_bytes(&shapes[i], m);
            kim_model_destroy(&m);
        }
}

// Published files of these names are larger by their header with the vocabulary, 6.5 MB.
static void test_published(void)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } files[] = {
        { "270m:q8_0", 291545600 },   { "1b:q4_0", 720425600 },      { "1b:q4_k_m", 806058240 },
        { "1b:q8_0", 1069306368 },    { "4b:q4_k_m", 2489757856 },   { "4b:Q8_0", 4130226336 },
        { "12B:Q4_K_M", 7300574976 }, { "27b:q4_k_m", 16546404736 },
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        kim_model *m = open_synthetic(NULL, files[i].name);
        const double rest = (double)files[i].bytes - (double)kim_model_get_info(m)->file_bytes;
        CHECK(rest > 6.5e6 && rest < 6.6e6, "%s: the published file has %.0f bytes more",
              files[i].name, rest);
        kim_model_destroy(&m);
    }
}

// ---------------------------------------------------------------------------------------- mixes

// Tensors of each type, counted by hand from the quantiser's rule: 4B has whole blocks of 256
// everywhere and two query heads a key/value head; the rows of the hidden size of 270M are not
// whole, and it has four.
static void test_mixes(void)
{
    static const struct {
        const char *name;
        struct {
            const char *type;
            uint32_t tensors;
        } counts[5];
    } mixes[] = {
        { "4b:q2_k", { { "F32", 205 }, { "Q2_K", 136 }, { "Q3_K", 102 }, { "Q6_K", 1 } } },
        { "4b:q3_k_s", { { "F32", 205 }, { "Q3_K", 238 }, { "Q6_K", 1 } } },
        { "4b:q3_k_m",
          { { "F32", 205 }, { "Q3_K", 136 }, { "Q4_K", 98 }, { "Q5_K", 4 }, { "Q6_K", 1 } } },
        { "4b:q3_k_l", { { "F32", 205 }, { "Q3_K", 136 }, { "Q5_K", 102 }, { "Q6_K", 1 } } },
        { "4b:q4_k_s", { { "F32", 205 }, { "Q4_K", 230 }, { "Q5_K", 8 }, { "Q6_K", 1 } } },
        { "4b:q4_k_m", { { "F32", 205 }, { "Q4_K", 204 }, { "Q6_K", 35 } } },
        { "4b:q4_k", { { "F32", 205 }, { "Q4_K", 204 }, { "Q6_K", 35 } } },
        { "4b:q5_k_s", { { "F32", 205 }, { "Q5_K", 238 }, { "Q6_K", 1 } } },
        { "4b:q5_k_m", { { "F32", 205 }, { "Q5_K", 204 }, { "Q6_K", 35 } } },
        { "4b:q6_k", { { "F32", 205 }, { "Q6_K", 239 } } },
        { "4b:iq4_xs", { { "F32", 205 }, { "IQ4_XS", 234 }, { "Q5_K", 4 }, { "Q6_K", 1 } } },
        { "4b:q4_0", { { "F32", 205 }, { "Q4_0", 238 }, { "Q6_K", 1 } } },
        { "4b:q8_0", { { "F32", 205 }, { "Q8_0", 239 } } },
        { "4b:bf16", { { "F32", 205 }, { "BF16", 239 } } },
        { "4b:q4_0+pure", { { "F32", 205 }, { "Q4_0", 239 } } },
        { "4b:q4_k+pure", { { "F32", 205 }, { "Q4_K", 239 } } },
        { "270m:q4_0", { { "F32", 109 }, { "Q4_0", 126 }, { "Q8_0", 1 } } },
        { "270m:q2_k",
          { { "F32", 109 }, { "IQ4_NL", 72 }, { "Q5_0", 18 }, { "Q3_K", 36 }, { "Q8_0", 1 } } },
        { "270m:iq4_nl",
          { { "F32", 109 }, { "IQ4_NL", 106 }, { "Q5_1", 18 }, { "Q5_K", 2 }, { "Q8_0", 1 } } },
        { "270m:q6_k+pure", { { "F32", 109 }, { "Q8_0", 91 }, { "Q6_K", 36 } } },
    };
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        kim_model *m = open_synthetic(NULL, mixes[i].name);
        uint32_t counts[N_TYPES] = { 0 }, wanted[N_TYPES] = { 0 };
        for (uint32_t k = 0; k < 5 && mixes[i].counts[k].type; k++)
            wanted[type_named(mixes[i].counts[k].type)] = mixes[i].counts[k].tensors;
        for (uint32_t k = 0; k < kim_model_get_info(m)->tensors; k++) {
            kim_tensor_info t;
            CHECK_OK(kim_model_get_tensor(m, k, &t));
            counts[type_named(t.type)]++;
        }
        for (uint32_t k = 0; k < N_TYPES; k++)
            CHECK(counts[k] == wanted[k], "%s has %u tensors of type %s, not %u", mixes[i].name,
                  counts[k], types[k].name, wanted[k]);
        kim_model_destroy(&m);
    }
}

// Tensor by tensor as the real file.
static void test_real(const char *path)
{
    if (!path || access(path, R_OK)) {
        printf("no model to compare 270m:q4_k_m with\n");
        return;
    }
    kim_model *real, *made = open_synthetic(NULL, "270m:q4_k_m");
    CHECK_OK(kim_model_open(&real, NULL, path, NULL));
    const uint32_t n = kim_model_get_info(real)->tensors;
    CHECK(kim_model_get_info(made)->tensors == n, "the real file has %u tensors", n);
    for (uint32_t i = 0; i < n; i++) {
        kim_tensor_info want, got = { .name = "" };
        CHECK_OK(kim_model_get_tensor(real, i, &want));
        for (uint32_t k = 0; k < n && strcmp(got.name, want.name); k++)
            CHECK_OK(kim_model_get_tensor(made, k, &got));
        CHECK(!strcmp(got.name, want.name) && !strcmp(got.type, want.type) &&
                  got.dims == want.dims && !memcmp(got.shape, want.shape, sizeof got.shape),
              "the real file has %s as %s; here it is another type or shape", want.name, want.type);
    }
    kim_model_destroy(&real);
    kim_model_destroy(&made);
}

// --------------------------------------------------------------------------------------- vision

// As the published projector in F16: 439 tensors, and a header of less than 100 kB.
static void test_vision(void)
{
    kim_model *m = open_synthetic(NULL, "4b:q4_0+vision"), *text = open_synthetic(NULL, "4b:q4_0");
    const kim_model_info *i = kim_model_get_info(m);
    const double rest =
        851251104.0 - (double)(i->file_bytes - kim_model_get_info(text)->file_bytes);
    kim_plan plan;
    CHECK_OK(kim_model_plan(m, NULL, NULL, &plan));
    CHECK(i->tensors == kim_model_get_info(text)->tensors + 439, "%u tensors", i->tensors);
    CHECK(rest > 0 && rest < 1e5, "the published projector has %.0f bytes more", rest);
    CHECK(i->vision && i->image_size == 896 && i->image_patch == 14 && i->image_tokens == 256 &&
              i->vision_layers == 27 && i->vision_hidden == 1152 && i->start_of_image == 255999 &&
              i->end_of_image == 256000 && i->image_token == 262144,
          "the vision part has another shape");
    // f16 matrices, and in f32 the patch matrix, whose rows of 588 end inside a block, the
    // positions, biases and norms
    const uint64_t h = 1152, f = 4304, matrices = 27 * (4 * h * h + 2 * h * f);
    const uint64_t vectors = 27 * (9 * h + f) + 4 * h + 4096 * h;
    const uint64_t tail = 27 * h * (4320 - f) * 2; // rows of 4304 fill their last block up
    const double all =
        2.0 * (double)(matrices + h * 2560) + 4.0 * (double)(vectors + h * 608) + (double)tail;
    CHECK((double)plan.vision_weights >= all && (double)plan.vision_weights < all + 300 * 256,
          "the vision part is planned with %llu bytes, not %.0f and what aligns it",
          (unsigned long long)plan.vision_weights, all);
    kim_model_destroy(&m);
    kim_model_destroy(&text);
}

// --------------------------------------------------------------------------------------- values

// Rows spread by about 1/14 around 0 and differ from each other; those of norms are about 1.
static void test_values(void)
{
    enum { WIDTH = 5376, ROWS = 64 };
    static float row[WIDTH], before[WIDTH];
    for (uint32_t t = 0; t < N_TYPES; t++) {
        char name[40];
        model_files f;
        const file_tensor *matrix = NULL;
        snprintf(name, sizeof name, "27b:%s+pure", types[t].name);
        CHECK_OK(model_synthetic_open(&f, name));
        CHECK_OK(tensors_expect(f.text, "blk.61.ffn_gate.weight", WIDTH, 21504, &matrix));
        CHECK(matrix->type == types[t].ggml, "%s is of type %u", name, matrix->type);
        double sum = 0, squares = 0;
        for (uint32_t r = 0; r < ROWS; r++) {
            reference_dequant(matrix->type,
                              weight_row_at(weight_type_find(matrix->type), matrix->data,
                                            matrix->distinct, WIDTH, 21503 - r),
                              row, WIDTH);
            for (uint32_t i = 0; i < WIDTH; i++) {
                sum += (double)row[i];
                squares += (double)row[i] * (double)row[i];
            }
            CHECK(!r || memcmp(row, before, sizeof row), "%s: rows are equal", types[t].name);
            memcpy(before, row, sizeof row);
        }
        const double n = (double)WIDTH * ROWS, deviation = sqrt(squares / n);
        CHECK(fabs(sum / n) < 0.1 * deviation && deviation > 0.04 && deviation < 0.1,
              "%s: weights have a mean of %g and spread by %g", types[t].name, sum / n, deviation);
        model_files_close(&f);
    }
}

// ------------------------------------------------------------------------------------------ run

static void check_logits(const kim_session *s, uint32_t vocab)
{
    const float *logits = kim_session_logits(s);
    double sum = 0, squares = 0;
    CHECK(logits, "there are no logits");
    for (uint32_t i = 0; i < vocab; i++) {
        CHECK(isfinite(logits[i]), "logit %u is %g", i, (double)logits[i]);
        sum += (double)logits[i];
        squares += (double)logits[i] * (double)logits[i];
    }
    const double deviation = sqrt(squares / vocab - sum / vocab * (sum / vocab));
    CHECK(deviation > 0.1 && deviation < 30, "the logits spread by %g", deviation);
}

static void test_run(const model_options *o, const char *name)
{
    static const int32_t prompt[] = { 2, 9259, 1902, 236888, 262143, 0, 7 };
    enum { N = sizeof prompt / sizeof *prompt };
    kim_gpu *gpu = model_gpu(o);
    kim_model *m = open_synthetic(gpu, name);
    kim_session *s;
    kim_sampler *sampler;
    kim_load_stats load;
    kim_gpu_stats stats;
    kim_plan plan;
    const kim_session_params params = { .context = 64, .batch = 8 };
    CHECK_OK(kim_model_plan(m, gpu, &params, &plan));
    CHECK_OK(kim_session_create(&s, m, &params));
    CHECK(kim_gpu_memory_used(gpu) == plan.total, "%llu bytes are used, %llu were planned",
          (unsigned long long)kim_gpu_memory_used(gpu), (unsigned long long)plan.total);
    kim_model_get_load_stats(m, &load);
    kim_gpu_get_stats(gpu, &stats);
    CHECK(load.upload_bytes == plan.weights && load.open_seconds > 0 && load.upload_seconds > 0,
          "%llu bytes were loaded", (unsigned long long)load.upload_bytes);
    CHECK(stats.pipelines > 4 && stats.pipeline_seconds > 0, "%u pipelines were made",
          stats.pipelines);
    CHECK_OK(kim_session_append(s, prompt, N));
    check_logits(s, kim_model_get_info(m)->vocab);
    CHECK_OK(kim_sampler_create(&sampler, &(kim_sampling){ .greedy = true }));
    for (uint32_t i = 0; i < 3; i++) {
        int32_t id;
        CHECK_OK(kim_sample(sampler, s, &id, NULL));
        CHECK(id >= 0 && id < 262144, "the token %d was drawn", id);
        CHECK_OK(kim_session_append(s, &id, 1));
        check_logits(s, kim_model_get_info(m)->vocab);
    }
    kim_gpu_get_stats(gpu, &stats);
    CHECK(stats.wait_seconds > 0, "nobody waited for the device");
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&s);
    kim_model_destroy(&m);
    model_gpu_finish(&gpu);
}

// --------------------------------------------------------------------------------------- errors

static void refuse(const char *name)
{
    kim_model *m;
    CHECK_FAILS(kim_model_open(&m, NULL, NULL, &(kim_model_params){ .synthetic = name }),
                KIM_ERR_ARGUMENT, "there is no synthetic model '");
    for (uint32_t i = 0; i < N_SHAPES; i++)
        CHECK(strstr(kim_error_text(), shapes[i].name), "%s is not in: %s", shapes[i].name,
              kim_error_text());
    for (uint32_t i = 0; i + 3 < N_NAMES; i++)
        CHECK(strstr(kim_error_text(), names[i]), "%s is not in: %s", names[i], kim_error_text());
    CHECK(!m, "there is a model");
}

static void test_errors(void)
{
    static const char *const bad[] = {
        "",
        "4b",
        ":",
        "4b:",
        ":q4_0",
        "5b:q4_0",
        "4b:q4",
        "4b:q4_k_x",
        "4b:q4_0:",
        "4b:q4_0+",
        "4b:q4_0+big",
        "4b:q4_0+pure+pure",
        "4b:q6_k_m",
        "4b:iq4_xs_m",
        "4b: q4_0",
        "1b:f16+vision",
        "4b:f",
        "4b:q4_0 and much more text than any name of a model could have, by far, and more",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse(bad[i]);
    kim_model *m;
    int32_t *ids;
    uint32_t count;
    size_t length;
    kim_model_params params = { .synthetic = "270m:q4_0" };
    CHECK_FAILS(kim_model_open(&m, NULL, "file.gguf", &params), KIM_ERR_ARGUMENT,
                "'file.gguf' is one too many");
    params.mmproj = "mmproj.gguf";
    CHECK_FAILS(kim_model_open(&m, NULL, NULL, &params), KIM_ERR_ARGUMENT,
                "'mmproj.gguf' is one too many");
    m = open_synthetic(NULL, "270m:q4_0");
    const kim_message message = { .role = "user", .text = "Hello" };
    const kim_text text = { .text = "Hello", .length = 5 };
    CHECK_FAILS(kim_tokenize(m, "a", 1, false, &ids, &count), KIM_ERR_ARGUMENT,
                "synthetic 270m:q4_0: has no tokenizer");
    CHECK_FAILS(kim_chat_tokens(m, &message, 1, &ids, &count), KIM_ERR_ARGUMENT,
                "has no tokenizer");
    CHECK_FAILS(kim_prompt_tokens(m, &text, &ids, &count), KIM_ERR_ARGUMENT, "has no tokenizer");
    CHECK(!*kim_token_bytes(m, 5, true, &length) && !length, "a token has a text");
    kim_model_destroy(&m);
}

int main(int argc, char **argv)
{
    model_options o = { 0 };
    model_options_read(&o, argc, argv);
    test_bytes();
    test_published();
    test_mixes();
    test_real(o.model_path);
    test_vision();
    test_values();
    test_errors();
    test_run(&o, "270m:q4_0");
    return failed_figures() != 0;
}
