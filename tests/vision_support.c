// SPDX-License-Identifier: MIT
// The small models that see, of fixtures/make_small_vision.py, and what the reference says.
#include "vision_support.h"

#include <unistd.h>

static float read_float(fixture *f)
{
    const uint32_t bits = fixture_u32(f);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static char *read_string(fixture *f)
{
    const uint32_t length = fixture_u32(f);
    char *text = malloc(length + 1);
    CHECK(text, "out of memory");
    memcpy(text, fixture_bytes(f, length), length);
    text[length] = 0;
    return text;
}

static void *read_ids(fixture *f, uint32_t *count)
{
    *count = fixture_u32(f);
    return fixture_ids(f, *count);
}

static encoder_shape read_shape(fixture *f)
{
    encoder_shape s = { 0 };
    uint32_t *const sizes[] = { &s.image,  &s.patch, &s.hidden, &s.feed_forward,
                                &s.layers, &s.heads, &s.tokens, &s.text_hidden };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        *sizes[i] = fixture_u32(f);
    s.eps = read_float(f);
    for (int c = 0; c < 3; c++)
        s.mean[c] = read_float(f);
    for (int c = 0; c < 3; c++)
        s.std[c] = read_float(f);
    return s;
}

static void read_picture(fixture *f, vision_picture *p)
{
    p->width = fixture_u32(f);
    p->height = fixture_u32(f);
    p->seed = fixture_u32(f);
    p->pan_and_scan = fixture_u32(f);
    p->tiles = fixture_u32(f);
    p->stride = fixture_u32(f);
    p->values = fixture_u32(f);
    p->sums = (uint32_t *)fixture_ids(f, p->tiles);
    p->soft = fixture_floats(f, p->values);
}

static void read_conversation(fixture *f, vision_conversation *c, uint32_t vocab)
{
    c->name = read_string(f);
    c->text = read_string(f);
    c->picture = read_ids(f, &c->pictures);
    c->ids = read_ids(f, &c->count);
    c->following = read_ids(f, &c->next);
    c->logits = fixture_floats(f, (uint64_t)c->next * vocab);
    c->gap = fixture_floats(f, c->next);
    c->logprob = fixture_floats(f, c->count);
}

void small_vision_open(small_vision *v, const char *tests_folder, const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "vision_%s.bin", name);
    fixture f = fixture_open(tests_folder, file, "KVIS");
    small_file_write(&f, v->text_path);
    small_file_write(&f, v->mmproj_path);
    v->shape = read_shape(&f);
    v->vocab = fixture_u32(&f);
    v->soft = (int32_t)fixture_u32(&f);
    v->n_pictures = fixture_u32(&f);
    v->pictures = calloc(v->n_pictures, sizeof *v->pictures);
    CHECK(v->pictures, "out of memory");
    for (uint32_t i = 0; i < v->n_pictures; i++)
        read_picture(&f, &v->pictures[i]);
    v->n_conversations = fixture_u32(&f);
    v->conversations = calloc(v->n_conversations, sizeof *v->conversations);
    CHECK(v->conversations, "out of memory");
    for (uint32_t i = 0; i < v->n_conversations; i++)
        read_conversation(&f, &v->conversations[i], v->vocab);
    fixture_close(&f);
}

void vision_plan_open(small_vision *v, const char *tests_folder)
{
    fixture f = fixture_open(tests_folder, "plan_vision.bin", "KVIS");
    memset(v, 0, sizeof *v);
    small_file_write(&f, v->mmproj_path);
    v->shape = read_shape(&f);
    fixture_close(&f);
}

void small_vision_close(small_vision *v)
{
    unlink(v->text_path);
    unlink(v->mmproj_path);
    for (uint32_t i = 0; i < v->n_pictures; i++) {
        free(v->pictures[i].sums);
        free(v->pictures[i].soft);
    }
    for (uint32_t i = 0; i < v->n_conversations; i++) {
        vision_conversation *c = &v->conversations[i];
        free(c->name);
        free(c->text);
        free(c->picture);
        free(c->ids);
        free(c->following);
        free(c->logits);
        free(c->gap);
        free(c->logprob);
    }
    free(v->pictures);
    free(v->conversations);
}

// `picture` of the script
uint8_t *vision_pixels(const vision_picture *p)
{
    uint8_t *pixels = malloc(3ull * p->width * p->height), *out = pixels;
    CHECK(pixels, "out of memory");
    for (uint32_t y = 0; y < p->height; y++)
        for (uint32_t x = 0; x < p->width; x++)
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t h =
                    x * 0x9E3779B1u ^ y * 0x85EBCA77u ^ (c + 3 * p->seed + 1) * 0xC2B2AE3Du;
                h = (h ^ h >> 15) * 0x2C1B3C6Du;
                h ^= h >> 12;
                const uint32_t v = x * (c + p->seed % 5 + 1) / 3 + y * (4 - c) / 2 +
                                   ((x / 37 ^ y / 23) & 1) * 90 + (h & 31);
                *out++ = (uint8_t)(v & 256 ? 255 - (v & 255) : v & 255);
            }
    return pixels;
}
