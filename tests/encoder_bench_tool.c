// SPDX-License-Identifier: MIT
// The encoder of the published shape with made-up weights: seconds, GFLOP/s, memory.
//
//   encoder_bench_tool TESTS_FOLDER [--device D] [--mode address|table] [--limit N]
//
// --limit: pictures encoded after each other; 0: 1
#include "vision_support.h"

#include <math.h>

// Numbers from -scale to scale, in a type of which they are the bits.
static void fill(const gguf_tensor *t, float scale, float bias)
{
    static uint64_t state = 88172645463325252u; // xorshift64
    const uint64_t count = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    uint16_t *halves = (uint16_t *)(uintptr_t)t->data;
    float *floats = (float *)(uintptr_t)t->data;
    // F16: a random sign and mantissa with the exponent of the scale's half
    const uint16_t exponent = (uint16_t)((int)lrintf(log2f(scale / 2)) + 15) << 10;
    for (uint64_t i = 0; i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (t->type == 1)
            halves[i] = (uint16_t)((state >> 16 & 0x83FF) | exponent);
        else
            floats[i] = (float)(int32_t)(state >> 32) * 0x1p-31f * scale + bias;
    }
}

// The file in memory, with weights under which activations keep their size.
static uint8_t *make_file(const char *path, gguf **out)
{
    FILE *file = fopen(path, "rb");
    CHECK(file, "%s cannot be opened", path);
    fseek(file, 0, SEEK_END);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(size);
    CHECK(data && fread(data, 1, size, file) == size, "%s cannot be read", path);
    fclose(file);
    CHECK_OK(gguf_open_memory(out, data, size, "the made-up encoder"));
    for (uint32_t i = 0; i < gguf_tensor_count(*out); i++) {
        const gguf_tensor *t = gguf_tensor_at(*out, i);
        const bool patch = !strcmp(t->name, "v.patch_embd.weight");
        const bool norm = strstr(t->name, "ln") || strstr(t->name, "norm");
        if (norm)
            fill(t, 0.25f, strstr(t->name, "weight") ? 1 : 0);
        else
            fill(t, 1.5f / sqrtf((float)(patch ? t->ne[0] * t->ne[1] * t->ne[2] : t->ne[0])), 0);
    }
    return data;
}

static bool show(void *user, uint64_t done, uint64_t total)
{
    const double *start = user;
    fprintf(stderr, "\rlayer %llu of %llu, %.0f s ", (unsigned long long)done,
            (unsigned long long)total, seconds_now() - *start);
    return true;
}

static void encode(encoder *e, const encoder_shape *s)
{
    const uint64_t floats = (uint64_t)s->tokens * s->text_hidden;
    const vision_picture p = { .width = s->image, .height = s->image };
    uint8_t *rgb = vision_pixels(&p);
    float *soft = malloc(floats * sizeof *soft);
    CHECK(soft, "out of memory");
    double seconds_before, operations_before, seconds, operations, squares = 0;
    encoder_get_speed(e, &seconds_before, &operations_before);
    double start = seconds_now();
    CHECK_OK(encoder_encode(e, rgb, 1, soft, show, &start));
    const double wall = seconds_now() - start;
    encoder_get_speed(e, &seconds, &operations);
    seconds -= seconds_before;
    operations -= operations_before;
    for (uint64_t i = 0; i < floats; i++)
        squares += (double)soft[i] * (double)soft[i];
    CHECK(isfinite(squares) && squares > 0, "the soft tokens are no numbers, or none");
    fprintf(stderr, "\r");
    printf("one picture: %.2f s on the device, %.2f s in all, %.1f GFLOP, %.1f GFLOP/s; "
           "soft tokens deviate by %.2f\n",
           seconds, wall, operations * 1e-9, operations / seconds * 1e-9,
           sqrt(squares / (double)floats));
    free(rgb);
    free(soft);
}

int main(int argc, char **argv)
{
    model_options o = { 0 };
    small_vision v;
    gguf *file;
    tensors *files;
    encoder *e;
    uint64_t weights, activations;
    model_options_read(&o, argc, argv);
    kim_gpu *gpu = model_gpu(&o);
    vision_plan_open(&v, o.tests_folder);
    uint8_t *data = make_file(v.mmproj_path, &file);
    CHECK_OK(tensors_from_gguf(&files, file));
    double start = seconds_now();
    CHECK_OK(encoder_create(&e, gpu, files, &v.shape, 0, NULL, NULL));
    printf("loaded in %.1f s\n", seconds_now() - start);
    tensors_destroy(&files);
    gguf_close(&file);
    free(data);
    for (uint32_t i = 0; i < (o.limit ? o.limit : 1); i++)
        encode(e, &v.shape);
    encoder_plan(e, &weights, &activations);
    printf("device memory: peak %.1f MB; planned: weights %.1f MB, all else %.1f MB\n",
           (double)kim_gpu_memory_peak(gpu) * 1e-6, (double)weights * 1e-6,
           (double)activations * 1e-6);
    encoder_destroy(&e);
    small_vision_close(&v);
    model_gpu_finish(&gpu);
    return 0;
}
