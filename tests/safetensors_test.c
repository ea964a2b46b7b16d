// SPDX-License-Identifier: MIT
// The safetensors reader over the seeds of its fuzz target, and in detail over some of them.
//   safetensors_test TESTS_FOLDER
#include "check.h"
#include "host/safetensors.h"

#include <dirent.h>

static const char *folder;

static kim_err open_seed(safetensors **s, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/corpus/safetensors/%s", folder, name);
    return safetensors_open(s, path);
}

static void check_good(const safetensors *s, const char *name)
{
    const uint8_t *at = safetensors_count(s) ? safetensors_at(s, 0)->data : NULL;
    for (uint32_t i = 0; i < safetensors_count(s); i++) {
        const safetensor *t = safetensors_at(s, i);
        CHECK(safetensors_find(s, t->name) == t, "%s: %s is not found", name, t->name);
        CHECK(t->data == at, "%s: %s is not where the last one ends", name, t->name);
        at += t->bytes;
    }
    const file_mapping *file = safetensors_mapping(s);
    CHECK(!at || at == file->data + file->size, "%s: bytes are left", name);
    CHECK(!safetensors_find(s, "nothing") && !safetensors_at(s, safetensors_count(s)),
          "%s: a tensor that is not there", name);
}

// good-*: open; bad-*: one sentence that begins with the file.
static void test_seeds(void)
{
    char path[4096];
    uint32_t good = 0, bad = 0;
    snprintf(path, sizeof path, "%s/corpus/safetensors", folder);
    DIR *d = opendir(path);
    CHECK(d, "%s cannot be read", path);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        safetensors *s;
        if (e->d_name[0] == '.')
            continue;
        const kim_err err = open_seed(&s, e->d_name);
        if (!strncmp(e->d_name, "good", 4)) {
            CHECK(!err, "%s", kim_error_text());
            check_good(s, e->d_name);
            safetensors_close(&s);
            good++;
        } else {
            CHECK(err == KIM_ERR_FORMAT || err == KIM_ERR_UNSUPPORTED || err == KIM_ERR_FILE,
                  "%s: %s", e->d_name, kim_err_name(err));
            CHECK(!s && !strncmp(kim_error_text(), folder, strlen(folder)) &&
                      !strchr(kim_error_text(), '\n'),
                  "%s: %s", e->d_name, kim_error_text());
            bad++;
        }
    }
    closedir(d);
    CHECK(good >= 20 && bad >= 30, "only %u good and %u bad seeds", good, bad);
}

static void test_values(void)
{
    safetensors *s;
    CHECK_OK(open_seed(&s, "good.safetensors"));
    CHECK(safetensors_count(s) == 6, "%u tensors", safetensors_count(s));
    const safetensor *t = safetensors_find(s, "a.weight");
    CHECK(t && t->n_dims == 2 && t->shape[0] == 3 && t->shape[1] == 5 && t->bytes == 30 &&
              t->ggml == 30 && !strcmp(t->dtype, "BF16") && t->data[1] == 37,
          "a.weight");
    t = safetensors_find(s, "c");
    CHECK(t && t->ggml == UINT32_MAX && t->bytes == 7, "c");
    t = safetensors_find(s, "scalar");
    CHECK(t && t->n_dims == 0 && t->bytes == 4, "scalar");
    t = safetensors_find(s, "none");
    CHECK(t && t->n_dims == 2 && t->bytes == 0, "none");
    safetensors_close(&s);
}

static void test_sentences(void)
{
    static const struct {
        const char *name, *words;
    } cases[] = {
        { "bad-cut-7", "has 7 bytes: it is no safetensors file" },
        { "bad-cut-100", "it is no safetensors file, truncated or corrupt" },
        { "bad-longer", "has 1 bytes after the last tensor" },
        { "bad-length-cap", "has a header of 100000001 bytes" },
        { "bad-no-json", "line 1 is no JSON" },
        { "bad-array", "the header is not an object" },
        { "bad-rest", "goes on after the end" },
        { "bad-deep", "more than 64 levels" },
        { "bad-zero", "a string with a zero character" },
        { "bad-utf8", "has a name that is not" },
        { "bad-twice", "the name a is there twice" },
        { "bad-field-twice", "the name dtype is there twice" },
        { "bad-dtype", "the tensor a has no dtype that is known" },
        { "bad-dtype-kind", "a.dtype is not a string" },
        { "bad-shape-wraps", "more than 2^56 elements" },
        { "bad-shape", "the tensor a has 5 elements of F32 but 16 bytes" },
        { "bad-offsets-hole", "after bytes of no tensor" },
        { "bad-overlap", "the tensor b begins at byte 2 of the data, inside another one" },
        { "bad-same-place", "inside another one" },
        { "bad-bits", "the tensor a has 3 elements of F4 but 1 bytes" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        safetensors *s;
        snprintf(name, sizeof name, "%s.safetensors", cases[i].name);
        const kim_err err = open_seed(&s, name);
        CHECK(err && strstr(kim_error_text(), cases[i].words), "%s: \"%s\" does not say \"%s\"",
              name, kim_error_text(), cases[i].words);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc > 1, "usage: safetensors_test TESTS_FOLDER");
    folder = argv[1];
    test_seeds();
    test_values();
    test_sentences();
    return 0;
}
