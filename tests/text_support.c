// SPDX-License-Identifier: MIT
// For the tests of text: fixtures, a small vocabulary, and that of a model file.
#include "text_support.h"

#include <time.h>

uint32_t random_u32(void)
{
    static uint64_t state = 88172645463325252u; // xorshift64
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

uint32_t random_below(uint32_t end)
{
    return (uint32_t)((uint64_t)random_u32() * end >> 32);
}

fixture fixture_open(const char *tests_folder, const char *name, const char *magic)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/fixtures/%s", tests_folder, name);
    FILE *file = fopen(path, "rb");
    CHECK(file, "%s cannot be opened", path);
    fseek(file, 0, SEEK_END);
    fixture f = { .size = (size_t)ftell(file) };
    rewind(file);
    f.data = malloc(f.size);
    CHECK(f.data && fread(f.data, 1, f.size, file) == f.size, "%s cannot be read", path);
    fclose(file);
    CHECK(!memcmp(fixture_bytes(&f, 4), magic, 4), "%s does not begin with %s", path, magic);
    return f;
}

void fixture_close(fixture *f)
{
    CHECK(f->at == f->size, "the fixture has %zu bytes too many", f->size - f->at);
    free(f->data);
}

const char *fixture_bytes(fixture *f, size_t length)
{
    CHECK(length <= f->size - f->at, "the fixture ends early");
    f->at += length;
    return (const char *)f->data + f->at - length;
}

uint32_t fixture_u32(fixture *f)
{
    const uint8_t *b = (const uint8_t *)fixture_bytes(f, 4);
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void add_token(small_vocabulary *v, const char *text, float score, int32_t type)
{
    uint32_t i = v->params.count++;
    v->texts[i] = (gguf_string){ text, strlen(text) };
    v->scores[i] = score;
    v->types[i] = type;
}

void small_vocabulary_make(small_vocabulary *v)
{
    static const char *const control[] = { "<pad>",     "<eos>",           "<bos>",        "<unk>",
                                           "<unused0>", "<start_of_turn>", "<end_of_turn>" };
    static const char *const added[] = { "\n", "\n\n", "  ", "   ", "    ", "<b>", "</b>" };
    static const char *const pieces[] = {
        "\xE2\x96\x81t", "he", "\xE2\x96\x81the", "in", "ing", "th", "the", "aa", "aaa", "er", "ab",
    };
    memset(v, 0, sizeof *v);
    v->params = (tokenizer_params){
        .texts = v->texts, .scores = v->scores, .types = v->types, .bos = -1, .eos = -1
    };
    for (size_t i = 0; i < sizeof control / sizeof *control; i++)
        add_token(v, control[i], -1000, TOKEN_CONTROL);
    for (size_t i = 0; i < sizeof added / sizeof *added; i++)
        add_token(v, added[i], -1000, TOKEN_USER_DEFINED);
    for (unsigned i = 0; i < 256; i++) {
        snprintf(v->byte_texts[i], sizeof v->byte_texts[i], "<0x%02X>", i);
        add_token(v, v->byte_texts[i], 0, TOKEN_BYTE);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        add_token(v, pieces[i], -(float)i, TOKEN_NORMAL);
    add_token(v, "\xE2\x96\x81", -100, TOKEN_NORMAL);
    for (size_t i = 0; i < 26; i++) {
        static const char letters[] = "a\0b\0c\0d\0e\0f\0g\0h\0i\0j\0k\0l\0m\0n\0o\0p\0q\0r\0s\0t\0"
                                      "u\0v\0w\0x\0y\0z";
        add_token(v, letters + 2 * i, -101 - (float)i, TOKEN_NORMAL);
    }
}

int32_t small_vocabulary_find(const small_vocabulary *v, const char *text)
{
    for (uint32_t i = 0; i < v->params.count; i++) {
        if (v->texts[i].length == strlen(text) && !memcmp(v->texts[i].data, text, strlen(text)))
            return (int32_t)i;
    }
    return -1;
}

tokenizer *model_tokenizer(int argc, char **argv)
{
    FILE *file = argc > 2 ? fopen(argv[2], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "skipped in part: no model %s\n", argc > 2 ? argv[2] : "given");
        exit(77);
    }
    fclose(file);

    gguf *g;
    tokenizer *t;
    CHECK_OK(gguf_open(&g, argv[2]));
    double start = seconds_now();
    CHECK_OK(tokenizer_create_from_gguf(&t, g));
    printf("created in %.0f ms\n", 1e3 * (seconds_now() - start));
    gguf_close(&g); // nothing of it is kept
    return t;
}

double seconds_now(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
