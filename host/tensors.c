// SPDX-License-Identifier: MIT
// The tensors of one model under one set of names.
#include "tensors.h"

#include "error.h"
#include "weight_quantize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tensors {
    char *path;
    file_tensor *items; // [count] in the order of the files
    uint32_t count;
    const file_tensor **by_name; // [count]
    void *owner;
    void (*destroy)(void *owner);
};

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const file_tensor *const *)a)->name, (*(const file_tensor *const *)b)->name);
}

static kim_err sort_names(tensors *t)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < t->count; i++)
        t->by_name[i] = &t->items[i];
    qsort(t->by_name, t->count, sizeof *t->by_name, compare_names);
    for (uint32_t i = 1; i < t->count; i++) {
        const file_tensor *a = t->by_name[i - 1], *b = t->by_name[i];
        if (!strcmp(a->name, b->name))
            FAIL(KIM_ERR_FORMAT, "%s: there are two tensors that are %s, in %s and %s", t->path,
                 a->name, a->path, b->path);
    }
error:
    return err;
}

kim_err tensors_create(tensors **out, const char *path, file_tensor *items, uint32_t count,
                       void *owner, void (*destroy)(void *owner))
{
    kim_err err = KIM_OK;
    *out = NULL;
    tensors *t = calloc(1, sizeof *t);
    if (!t) {
        free(items);
        if (owner)
            destroy(owner);
    }
    REQUIRE_MEMORY(t);
    *t = (tensors){ .items = items, .count = count, .owner = owner, .destroy = destroy };
    t->path = malloc(strlen(path) + 1);
    t->by_name = calloc(count + 1, sizeof *t->by_name);
    REQUIRE_MEMORY(t->path && t->by_name);
    strcpy(t->path, path);
    TRY(sort_names(t));
    *out = t;
    return KIM_OK;
error:
    tensors_destroy(&t);
    return err;
}

kim_err tensors_from_gguf(tensors **out, const gguf *g)
{
    kim_err err = KIM_OK;
    const uint32_t count = gguf_tensor_count(g);
    *out = NULL;
    file_tensor *items = calloc(count + 1, sizeof *items);
    REQUIRE_MEMORY(items);
    for (uint32_t i = 0; i < count; i++) {
        const gguf_tensor *from = gguf_tensor_at(g, i);
        items[i] = (file_tensor){
            .name = from->name,
            .type = from->type,
            .n_dims = from->n_dims,
            .bytes = from->bytes,
            .data = from->data,
            .file = gguf_mapping(g),
            .path = gguf_path(g),
        };
        memcpy(items[i].ne, from->ne, sizeof from->ne);
    }
    TRY(tensors_create(out, gguf_path(g), items, count, NULL, NULL));
error:
    return err;
}

void tensors_destroy(tensors **tp)
{
    tensors *t = *tp;
    if (!t)
        return;
    free(t->path);
    free(t->items);
    free(t->by_name);
    if (t->owner)
        t->destroy(t->owner);
    free(t);
    *tp = NULL;
}

const char *tensors_path(const tensors *t)
{
    return t->path;
}

uint32_t tensors_count(const tensors *t)
{
    return t->count;
}

const file_tensor *tensors_at(const tensors *t, uint32_t index)
{
    return index < t->count ? &t->items[index] : NULL;
}

const file_tensor *tensors_find(const tensors *t, const char *name)
{
    const file_tensor wanted = { .name = name }, *key = &wanted;
    const file_tensor **found =
        bsearch(&key, t->by_name, t->count, sizeof *t->by_name, compare_names);
    return found ? *found : NULL;
}

// "640 x 4 x 4", as one of rows and their lengths
static const char *describe_shape(const file_tensor *t, char text[96])
{
    int used = snprintf(text, 96, "%llu", (unsigned long long)t->ne[0]);
    for (uint32_t d = 1; d < t->n_dims; d++)
        used += snprintf(text + used, 96 - (size_t)used, " x %llu", (unsigned long long)t->ne[d]);
    return text;
}

kim_err tensors_expect(const tensors *t, const char *name, uint64_t width, uint64_t rows,
                       const file_tensor **out)
{
    char shape[96];
    const file_tensor *f = tensors_find(t, name);
    if (!f)
        return kim_fail(KIM_ERR_FORMAT, "%s: the tensor %s is missing", t->path, name);
    if (f->ne[0] != width || f->ne[1] * f->ne[2] * f->ne[3] != rows) // fits: it is in the file
        return kim_fail(
            KIM_ERR_FORMAT, "%s: the tensor %s has the shape %s; %llu x %llu is expected", f->path,
            name, describe_shape(f, shape), (unsigned long long)width, (unsigned long long)rows);
    *out = f;
    return KIM_OK;
}

static kim_err check_plain(const file_tensor *t)
{
    return weight_is_plain(t->type)
               ? KIM_OK
               : kim_fail(KIM_ERR_UNSUPPORTED,
                          "%s: the tensor %s is of type %s; F32, F16 or BF16 is expected", t->path,
                          t->name, tensor_type_find(t->type)->name);
}

kim_err tensors_expect_plain(const tensors *t, const char *name, uint64_t width, uint64_t rows,
                             const file_tensor **out)
{
    const kim_err err = tensors_expect(t, name, width, rows, out);
    return err ? err : check_plain(*out);
}

kim_err file_tensor_read(const file_tensor *t, float *out)
{
    const kim_err err = check_plain(t);
    const uint64_t rows = t->ne[1] * t->ne[2] * t->ne[3];
    for (uint64_t r = 0; !err && r < rows; r++)
        weight_to_floats(
            t->type, weight_row_at(weight_type_find(t->type), t->data, t->distinct, t->ne[0], r),
            t->ne[0], out + r * t->ne[0]);
    return err;
}
