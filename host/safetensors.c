// SPDX-License-Identifier: MIT
// The safetensors reader. Layout of a file, little-endian:
//   u64 length of the header, the header, the data
// The header is a JSON object: of each tensor's name
//   {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}
// with offsets into the data, and of "__metadata__" anything.
#include "safetensors.h"

#include "error.h"
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 100000000, // of the specification
    MAX_TENSORS = 1 << 16,
    MAX_NAME = 255,
};

static const struct {
    const char *name;
    uint32_t bits, ggml;
} dtypes[] = {
    { "F64", 64, 28 },
    { "F32", 32, 0 },
    { "F16", 16, 1 },
    { "BF16", 16, 30 },
    { "I64", 64, 27 },
    { "I32", 32, 26 },
    { "I16", 16, 25 },
    { "I8", 8, 24 },
    { "U64", 64, UINT32_MAX },
    { "U32", 32, UINT32_MAX },
    { "U16", 16, UINT32_MAX },
    { "U8", 8, UINT32_MAX },
    { "BOOL", 8, UINT32_MAX },
    { "C64", 64, UINT32_MAX },
    { "F8_E5M2", 8, UINT32_MAX },
    { "F8_E4M3", 8, UINT32_MAX },
    { "F8_E8M0", 8, UINT32_MAX },
    { "F6_E2M3", 6, UINT32_MAX },
    { "F6_E3M2", 6, UINT32_MAX },
    { "F4", 4, UINT32_MAX },
};

struct safetensors {
    char *path;
    file_mapping mapping; // zero when the memory is the caller's
    const uint8_t *data;
    uint64_t size;
    json_document *header; // names are in it
    safetensor *tensors;   // [count] by offset
    const safetensor **by_name;
    uint32_t count;
};

// What a tensor has in the header.
static kim_err read_dtype(const json_place *t, safetensor *out, uint32_t *bits)
{
    kim_err err = KIM_OK;
    const char *name = NULL;
    TRY(json_get_text(t, "dtype", &name, NULL));
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (!strcmp(dtypes[i].name, name)) {
            out->dtype = dtypes[i].name;
            out->ggml = dtypes[i].ggml;
            *bits = dtypes[i].bits;
        }
    }
    if (!out->dtype)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: the tensor %s has no dtype that is known", t->path,
             out->name);
error:
    return err;
}

static kim_err read_shape(const json_place *t, safetensor *out, uint64_t *elements)
{
    kim_err err = KIM_OK;
    json_place shape;
    *elements = 1;
    TRY(json_get_array(t, "shape", &shape));
    if (!shape.value)
        FAIL(KIM_ERR_FORMAT, "%s: the tensor %s has no shape", t->path, out->name);
    for (const json *v = json_first(shape.value); v; v = json_next(v)) {
        uint64_t n;
        if (out->n_dims == SAFETENSORS_MAX_DIMS)
            FAIL(KIM_ERR_UNSUPPORTED, "%s: the tensor %s has more than %d dimensions", t->path,
                 out->name, SAFETENSORS_MAX_DIMS);
        if (!json_integer(v, 1ull << 53, &n))
            FAIL(KIM_ERR_FORMAT, "%s: the tensor %s has a shape that is not of integers", t->path,
                 out->name);
        if (n && *elements > (1ull << 56) / n)
            FAIL(KIM_ERR_FORMAT, "%s: the tensor %s has a shape of more than 2^56 elements",
                 t->path, out->name);
        out->shape[out->n_dims++] = n;
        *elements *= n;
    }
error:
    return err;
}

// base: where the data begins
static kim_err read_offsets(const safetensors *s, const json_place *t, uint64_t base,
                            safetensor *out)
{
    kim_err err = KIM_OK;
    json_place offsets;
    uint64_t begin = 0, end = 0;
    const json *v;
    TRY(json_get_array(t, "data_offsets", &offsets));
    v = json_first(offsets.value);
    if (!v || !json_integer(v, 1ull << 53, &begin) || !(v = json_next(v)) ||
        !json_integer(v, 1ull << 53, &end) || json_next(v))
        FAIL(KIM_ERR_FORMAT, "%s: the tensor %s has data_offsets that are not two integers",
             s->path, out->name);
    if (begin > end || end > s->size - base)
        FAIL(KIM_ERR_FORMAT,
             "%s: the tensor %s has the bytes %" PRIu64 " to %" PRIu64
             " of the data, which has %" PRIu64 ": it is truncated or corrupt",
             s->path, out->name, begin, end, s->size - base);
    out->data = s->data + base + begin;
    out->bytes = end - begin;
error:
    return err;
}

// Printable ASCII, so that errors can show it.
static bool is_name(const char *name)
{
    size_t n = 0;
    while (name[n] > ' ' && name[n] <= '~')
        n++;
    return n > 0 && n <= MAX_NAME && !name[n];
}

static kim_err read_tensor(safetensors *s, const json *value, uint64_t base)
{
    kim_err err = KIM_OK;
    safetensor *out = &s->tensors[s->count++];
    uint32_t bits = 0;
    uint64_t elements;
    json_place t = { .value = value, .path = s->path };
    out->name = json_name(value);
    if (!is_name(out->name))
        FAIL(KIM_ERR_FORMAT,
             "%s: tensor number %" PRIu32
             " has a name that is not 1 to %d letters, digits and signs",
             s->path, s->count - 1, MAX_NAME);
    if (!json_is_object(value))
        FAIL(KIM_ERR_FORMAT, "%s: the tensor %s is not an object in the header", s->path,
             out->name);
    snprintf(t.name, sizeof t.name, "%s", out->name);
    TRY(read_dtype(&t, out, &bits));
    TRY(read_shape(&t, out, &elements));
    TRY(read_offsets(s, &t, base, out));
    if (elements * bits % 8 || elements * bits / 8 != out->bytes)
        FAIL(KIM_ERR_FORMAT,
             "%s: the tensor %s has %" PRIu64 " elements of %s but %" PRIu64 " bytes", s->path,
             out->name, elements, out->dtype, out->bytes);
error:
    return err;
}

static int compare_data(const void *a, const void *b)
{
    const safetensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); // empty ones first
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const safetensor *const *)a)->name, (*(const safetensor *const *)b)->name);
}

// The tensors stand one after the other, from the first byte of the data to the last.
static kim_err check_coverage(safetensors *s, uint64_t base)
{
    kim_err err = KIM_OK;
    const uint8_t *at = s->data + base;
    qsort(s->tensors, s->count, sizeof *s->tensors, compare_data);
    for (uint32_t i = 0; i < s->count; i++) {
        const safetensor *t = &s->tensors[i];
        if (t->data != at)
            FAIL(KIM_ERR_FORMAT, "%s: the tensor %s begins at byte %" PRIu64 " of the data, %s",
                 s->path, t->name, (uint64_t)(t->data - s->data) - base,
                 t->data < at ? "inside another one" : "after bytes of no tensor");
        at += t->bytes;
    }
    if (at != s->data + s->size)
        FAIL(KIM_ERR_FORMAT, "%s: has %" PRIu64 " bytes after the last tensor", s->path,
             (uint64_t)(s->data + s->size - at));
    for (uint32_t i = 0; i < s->count; i++)
        s->by_name[i] = &s->tensors[i];
    qsort(s->by_name, s->count, sizeof *s->by_name, compare_names);
error:
    return err;
}

static kim_err parse(safetensors *s)
{
    kim_err err = KIM_OK;
    uint64_t length;
    if (s->size < sizeof length)
        FAIL(KIM_ERR_FORMAT, "%s: has %" PRIu64 " bytes: it is no safetensors file", s->path,
             s->size);
    memcpy(&length, s->data, sizeof length);
    if (length > MAX_HEADER || length > s->size - sizeof length)
        FAIL(KIM_ERR_FORMAT,
             "%s: has a header of %" PRIu64
             " bytes, expected at most %d and inside the file's %" PRIu64
             ": it is no safetensors file, truncated or corrupt",
             s->path, length, MAX_HEADER, s->size);
    TRY(json_open_memory(&s->header, s->data + sizeof length, length, s->path));
    const json_place top = json_top(s->header);
    if (!json_is_object(top.value))
        FAIL(KIM_ERR_FORMAT, "%s: the header is not an object", s->path);
    const uint64_t n = json_count(top.value);
    if (n > MAX_TENSORS)
        FAIL(KIM_ERR_FORMAT, "%s: has %" PRIu64 " tensors, expected at most %d", s->path, n,
             MAX_TENSORS);
    s->tensors = calloc(n + 1, sizeof *s->tensors);
    s->by_name = calloc(n + 1, sizeof *s->by_name);
    REQUIRE_MEMORY(s->tensors && s->by_name);
    for (const json *v = json_first(top.value); v; v = json_next(v)) {
        if (strcmp(json_name(v), "__metadata__"))
            TRY(read_tensor(s, v, sizeof length + length));
    }
    TRY(check_coverage(s, sizeof length + length));
error:
    return err;
}

static kim_err create(safetensors **out, const char *path)
{
    kim_err err = KIM_OK;
    safetensors *s = calloc(1, sizeof *s);
    REQUIRE_MEMORY(s);
    s->path = malloc(strlen(path) + 1);
    if (s->path)
        strcpy(s->path, path);
    *out = s;
    REQUIRE_MEMORY(s->path);
error:
    return err;
}

kim_err safetensors_open_memory(safetensors **out, const void *data, uint64_t size,
                                const char *name)
{
    kim_err err = KIM_OK;
    safetensors *s = NULL;
    *out = NULL;
    TRY(create(&s, name));
    s->data = data;
    s->size = size;
    TRY(parse(s));
    *out = s;
    return KIM_OK;
error:
    safetensors_close(&s);
    return err;
}

kim_err safetensors_open(safetensors **out, const char *path)
{
    kim_err err = KIM_OK;
    safetensors *s = NULL;
    *out = NULL;
    TRY(create(&s, path));
    TRY(file_map(&s->mapping, path));
    s->data = s->mapping.data;
    s->size = s->mapping.size;
    TRY(parse(s));
    *out = s;
    return KIM_OK;
error:
    safetensors_close(&s);
    return err;
}

void safetensors_close(safetensors **sp)
{
    safetensors *s = *sp;
    if (!s)
        return;
    json_close(&s->header);
    free(s->tensors);
    free(s->by_name);
    free(s->path);
    file_unmap(&s->mapping);
    free(s);
    *sp = NULL;
}

const char *safetensors_path(const safetensors *s)
{
    return s->path;
}

const file_mapping *safetensors_mapping(const safetensors *s)
{
    return &s->mapping;
}

uint32_t safetensors_count(const safetensors *s)
{
    return s->count;
}

const safetensor *safetensors_at(const safetensors *s, uint32_t index)
{
    return index < s->count ? &s->tensors[index] : NULL;
}

const safetensor *safetensors_find(const safetensors *s, const char *name)
{
    const safetensor wanted = { .name = name }, *key = &wanted;
    const safetensor **found =
        bsearch(&key, s->by_name, s->count, sizeof *s->by_name, compare_names);
    return found ? *found : NULL;
}
