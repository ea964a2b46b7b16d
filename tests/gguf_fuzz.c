// SPDX-License-Identifier: MIT
// libFuzzer target: any bytes as a GGUF file; everything in it is read, one tensor is packed.
//   clang -fsanitize=fuzzer,address,undefined ...; gguf_fuzz TESTS_FOLDER/corpus/gguf
#include "host/gguf.h"

#include "fuzz_support.h"

static void read_single_values(const gguf *g, const char *name)
{
    uint32_t u;
    int32_t i;
    float f;
    bool yes;
    gguf_string s;
    kim_err err = gguf_get_u32(g, name, &u, NULL);
    err = gguf_get_i32(g, name, &i, NULL) && err;
    err = gguf_get_f32(g, name, &f, NULL) && err;
    err = gguf_get_bool(g, name, &yes, NULL) && err;
    if (!gguf_get_string(g, name, &s, NULL))
        touch(s.data, s.length);
    require(!err || *kim_error_text());
}

static void read_arrays(const gguf *g, const char *name)
{
    int32_t *is;
    float *fs;
    gguf_string *ss;
    uint64_t n;
    if (!gguf_get_array_i32(g, name, &is, &n, NULL))
        touch(is, n * sizeof *is);
    free(is);
    if (!gguf_get_array_f32(g, name, &fs, &n, NULL))
        touch(fs, n * sizeof *fs);
    free(fs);
    if (!gguf_get_array_strings(g, name, &ss, &n, NULL)) {
        for (uint64_t i = 0; i < n; i++)
            touch(ss[i].data, ss[i].length);
    }
    free(ss);
}

static void pack_first_group(const gguf_tensor *t, const weight_type *type)
{
    uint64_t n_rows = t->ne[1] * t->ne[2] * t->ne[3];
    uint64_t row_bytes = weight_row_bytes(type, t->ne[0]);
    require(n_rows * row_bytes == t->bytes);
    const void *rows[WEIGHT_GROUP] = { NULL };
    for (uint64_t r = 0; r < WEIGHT_GROUP && r < n_rows; r++)
        rows[r] = (const uint8_t *)t->data + r * row_bytes;
    uint64_t bytes = weight_group_bytes(type, t->ne[0]);
    void *packed = malloc(bytes);
    if (packed) {
        weight_pack(type, rows, t->ne[0], packed);
        touch(packed, bytes);
    }
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gguf *g;
    if (gguf_open_memory(&g, data, size, "fuzz")) {
        require(!g && strncmp(kim_error_text(), "fuzz: ", 6) == 0);
        return 0;
    }
    for (uint32_t i = 0; i < gguf_key_count(g); i++) {
        const gguf_key *k = gguf_key_at(g, i);
        require(gguf_find_key(g, k->name) == k && *gguf_type_name(k->type));
        touch(k->data, k->bytes);
        read_single_values(g, k->name);
        read_arrays(g, k->name);
    }
    bool packed = false;
    for (uint32_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        const weight_type *type = weight_type_find(t->type);
        require(gguf_find_tensor(g, t->name) == t && tensor_type_find(t->type));
        require(t->offset <= size && t->bytes <= size - t->offset && t->bytes > 0);
        touch(t->data, t->bytes);
        if (type && !packed) {
            pack_first_group(t, type);
            packed = true;
        }
    }
    gguf_close(&g);
    return 0;
}
