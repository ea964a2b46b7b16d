// SPDX-License-Identifier: MIT
// For the tests of whole models: their options, a device, small models with made-up weights.
#include "model_support.h"

#include "host/gpu.h"

#include <math.h>
#include <unistd.h>

// -------------------------------------------------------------------------------- options, device

static void usage(const char *program)
{
    fprintf(
        stderr,
        "usage: %s TESTS_FOLDER [MODEL] [--device D] [--mode address|table] "
        "[--validation] [--way few|float|dot|half|int8] [--attention matrices|nv] [--kv f16|q8_0] "
        "[--limit N] [--odd N] [--single N] [--prompts N]\n",
        program);
    exit(2);
}

void model_options_read(model_options *o, int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0); // in order with stderr, in the log of a test too
    o->validation |= getenv("KIM_VALIDATION") != NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--validation")) {
            o->validation = true;
            continue;
        } else if (argv[i][0] != '-' && !o->tests_folder) {
            o->tests_folder = argv[i];
            continue;
        } else if (argv[i][0] != '-' && !o->model_path) {
            o->model_path = argv[i];
            continue;
        } else if (value && !strcmp(argv[i], "--device")) {
            o->device = value;
        } else if (value && !strcmp(argv[i], "--mode") && !strcmp(value, "address")) {
            o->mode = KIM_MEMORY_ADDRESS;
        } else if (value && !strcmp(argv[i], "--mode") && !strcmp(value, "table")) {
            o->mode = KIM_MEMORY_TABLE;
        } else if (value && !strcmp(argv[i], "--way") && matmul_way_find(value, &o->way)) {
            o->way_given = true;
        } else if (value && !strcmp(argv[i], "--attention") &&
                   (!strcmp(value, "matrices") || !strcmp(value, "nv"))) {
            o->attention_matrices = true;
            o->attention_nv = value[0] == 'n';
        } else if (value && !strcmp(argv[i], "--kv") &&
                   (!strcmp(value, "f16") || !strcmp(value, "q8_0"))) {
            o->kv = value[0] == 'q' ? KIM_KV_Q8_0 : KIM_KV_F16;
        } else if (value && !strcmp(argv[i], "--limit")) {
            o->limit = (uint32_t)strtoul(value, NULL, 10);
        } else if (value && !strcmp(argv[i], "--odd")) {
            o->odd = (uint32_t)strtoul(value, NULL, 10);
        } else if (value && !strcmp(argv[i], "--single")) {
            o->single = (uint32_t)strtoul(value, NULL, 10);
        } else if (value && !strcmp(argv[i], "--prompts")) {
            o->prompts = (uint32_t)strtoul(value, NULL, 10);
        } else {
            usage(argv[0]);
        }
        i++;
    }
    if (!o->tests_folder)
        usage(argv[0]);
}

static void print_log(void *user, kim_log_level level, const char *text)
{
    (void)user;
    if (level <= KIM_LOG_INFO)
        fprintf(stderr, "%s%s\n", level == KIM_LOG_ERROR ? "error: " : "", text);
}

kim_gpu *model_gpu(const model_options *o)
{
    kim_gpu *gpu = NULL;
    const kim_err err = kim_gpu_create(&gpu, &(kim_gpu_params){ .device = o->device,
                                                                .memory_mode = o->mode,
                                                                .validation = o->validation,
                                                                .log = print_log });
    if (err == KIM_ERR_NO_VULKAN || err == KIM_ERR_NO_DEVICE) {
        fprintf(stderr, "skipped: %s\n", kim_error_text());
        exit(77);
    }
    CHECK(!err, "kim_gpu_create: %s", kim_error_text());
    if (o->way_given)
        CHECK_OK(matmul_way_set(gpu, o->way));
    CHECK(!o->attention_matrices || gpu->has_attention_tiles,
          "this device has no matrices for attention");
    gpu->attention_tiles |= o->attention_matrices;
    CHECK(!o->attention_nv || gpu->has_attention_nv,
          "this device or this build has no NV cooperative matrix 2 for attention");
    gpu->attention_nv |= o->attention_nv;
    return gpu;
}

void model_gpu_finish(kim_gpu **gpu)
{
    const uint32_t messages = kim_gpu_validation_messages(*gpu);
    CHECK(!messages, "the validation layers have %u messages", messages);
    CHECK(!kim_gpu_memory_used(*gpu), "%llu bytes on the device were not given back",
          (unsigned long long)kim_gpu_memory_used(*gpu));
    kim_gpu_destroy(gpu);
}

// -------------------------------------------------------------------------------------- figures

static uint32_t failures;

void check_figure(const char *what, double value, double limit)
{
    const bool good = value <= limit; // false for what is not a number
    printf("  %-52s %-12.6g (at most %g)%s\n", what, value, limit, good ? "" : "  FAILED");
    fflush(stdout);
    failures += !good;
}

uint32_t failed_figures(void)
{
    return failures;
}

double log_sum(const float *logits, uint32_t count)
{
    const float most = logits[highest(logits, count)];
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += exp((double)logits[i] - (double)most);
    return (double)most + log(sum);
}

int32_t highest(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

// ------------------------------------------------------------------------------------- fixtures

static float fixture_float(fixture *f)
{
    const uint32_t bits = fixture_u32(f);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

int32_t *fixture_ids(fixture *f, uint32_t count)
{
    int32_t *ids = malloc(count * sizeof *ids);
    CHECK(ids, "out of memory");
    for (uint32_t i = 0; i < count; i++)
        ids[i] = (int32_t)fixture_u32(f);
    return ids;
}

float *fixture_floats(fixture *f, uint64_t count)
{
    float *values = malloc(count * sizeof *values);
    CHECK(values, "out of memory");
    for (uint64_t i = 0; i < count; i++)
        values[i] = fixture_float(f);
    return values;
}

// --------------------------------------------------------------- weights; see make_small_models.py

enum { ALIGNMENT = 32 };

typedef struct weight_stream {
    uint64_t index;
    uint32_t left; // bytes of `number` not yet given
    uint64_t number;
} weight_stream;

static uint8_t next_byte(weight_stream *s)
{
    if (!s->left) { // splitmix64
        uint64_t z = ++s->index * 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        s->number = z ^ z >> 31;
        s->left = 8;
    }
    return (uint8_t)(s->number >> 8 * (8 - s->left--));
}

static uint16_t next_u16(weight_stream *s)
{
    const uint8_t low = next_byte(s);
    return (uint16_t)(low | next_byte(s) << 8);
}

static void put(FILE *to, uint32_t value, uint32_t bytes, uint64_t *size)
{
    for (uint32_t i = 0; i < bytes; i++)
        putc((int)(value >> 8 * i & 255), to);
    *size += bytes;
}

static void put_float(FILE *to, float value, uint32_t bytes, uint64_t *size)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(to, bits >> (32 - 8 * bytes), bytes, size); // 2: the upper half is the bfloat16
}

// Blocks of 32: the scale, and bytes of quants
static void put_blocks(FILE *to, weight_stream *s, uint32_t count, uint32_t half, uint32_t bytes,
                       uint64_t *size)
{
    for (uint32_t i = 0; i < count / 32; i++) {
        put(to, half, 2, size);
        for (uint32_t j = 0; j < bytes; j++)
            put(to, next_byte(s), 1, size);
    }
}

// One tensor from the stream; returns its bytes, padding included.
static uint64_t put_run(FILE *to, weight_stream *s, fixture *f)
{
    const uint32_t type = fixture_u32(f), count = fixture_u32(f);
    const float scale = fixture_float(f), bias = fixture_float(f);
    const uint32_t half = fixture_u32(f);
    uint64_t size = 0;
    s->left = 0;
    switch (type) {
    case 0: // F32
        for (uint32_t i = 0; i < count; i++)
            put_float(to, (float)(int16_t)next_u16(s) * scale + bias, 4, &size);
        break;
    case 1: // F16
        for (uint32_t i = 0; i < count; i++)
            put(to, (next_u16(s) & 0x83FFu) | half, 2, &size);
        break;
    case 2: // Q4_0
        put_blocks(to, s, count, half, 16, &size);
        break;
    case 8: // Q8_0
        put_blocks(to, s, count, half, 32, &size);
        break;
    case 30: // BF16
        for (uint32_t i = 0; i < count; i++)
            put_float(to, (float)(int8_t)next_byte(s) * scale, 2, &size);
        break;
    default: CHECK(false, "the fixture has a tensor of type %u", type);
    }
    while (size % ALIGNMENT)
        put(to, 0, 1, &size);
    return size;
}

void small_file_write(fixture *f, char path[SMALL_PATH])
{
    strcpy(path, "/tmp/kim_model_XXXXXX");
    const int fd = mkstemp(path);
    CHECK(fd >= 0, "no file can be made in /tmp");
    FILE *to = fdopen(fd, "wb");
    CHECK(to, "%s cannot be opened", path);
    const uint32_t header = fixture_u32(f);
    fwrite(fixture_bytes(f, header), 1, header, to);
    const uint64_t data = (uint64_t)fixture_u32(f) * ALIGNMENT;
    const uint32_t runs = fixture_u32(f);
    uint64_t size = 0;
    weight_stream stream = { 0 };
    for (uint32_t i = 0; i < runs; i++)
        size += put_run(to, &stream, f);
    CHECK(!fflush(to) && !ferror(to), "%s cannot be written", path);
    CHECK(!runs || size == data, "the weights have %llu bytes, not %llu", (unsigned long long)size,
          (unsigned long long)data);
    // without weights: a hole in the file
    CHECK(!ftruncate(fd, (off_t)(header + data)), "%s cannot be made so large", path);
    fclose(to);
}

// Writes the file, opens it and removes it.
static kim_model *open_from_fixture(fixture *f, kim_gpu *gpu)
{
    char path[SMALL_PATH];
    kim_model *model = NULL;
    small_file_write(f, path);
    const kim_err err = kim_model_open(&model, gpu, path, NULL);
    unlink(path);
    CHECK(!err, "kim_model_open: %s", kim_error_text());
    return model;
}

static kim_model_info read_expected(fixture *f)
{
    kim_model_info i = { 0 };
    i.layers = fixture_u32(f);
    i.hidden = fixture_u32(f);
    i.feed_forward = fixture_u32(f);
    i.heads = fixture_u32(f);
    i.kv_heads = fixture_u32(f);
    i.head_size = fixture_u32(f);
    i.vocab = fixture_u32(f);
    i.window = fixture_u32(f);
    i.window_pattern = fixture_u32(f);
    i.rope_base_global = fixture_float(f);
    i.rope_base_local = fixture_float(f);
    i.rope_factor_global = fixture_float(f);
    i.attention_scale = fixture_float(f);
    return i;
}

void small_model_open(small_model *s, const char *tests_folder, const char *name, kim_gpu *gpu)
{
    char file[64];
    snprintf(file, sizeof file, "small_%s.bin", name);
    fixture f = fixture_open(tests_folder, file, "KSML");
    s->model = open_from_fixture(&f, gpu);
    s->expected = read_expected(&f);
    s->count = fixture_u32(&f);
    s->ids = fixture_ids(&f, s->count);
    s->next = fixture_floats(&f, s->count);
    s->first = fixture_ids(&f, s->count);
    s->gap = fixture_floats(&f, s->count);
    s->positions = fixture_u32(&f);
    s->position = fixture_ids(&f, s->positions);
    s->logits = fixture_floats(&f, (uint64_t)s->positions * s->expected.vocab);
    fixture_close(&f);
}

void small_model_close(small_model *s)
{
    kim_model_destroy(&s->model);
    free(s->ids);
    free(s->next);
    free(s->first);
    free(s->gap);
    free(s->position);
    free(s->logits);
}

kim_model *plan_model_open(const char *tests_folder, const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "plan_%s.bin", name);
    fixture f = fixture_open(tests_folder, file, "KSML");
    kim_model *model = open_from_fixture(&f, NULL);
    fixture_close(&f);
    return model;
}
