// SPDX-License-Identifier: MIT
// The safetensors files of a folder as one set of tensors.
#include "error.h"
#include "json.h"
#include "safetensors.h"
#include "tensors.h"
#include "weight_quantize.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_FILES = 1024,
    MAX_NAME = 64, // of a tensor, renamed
};

typedef struct shards {
    json_document *index;              // NULL: one file
    safetensors *files[MAX_FILES];     // [count]
    const char *file_names[MAX_FILES]; // in the index
    uint32_t count;
    char (*names)[MAX_NAME]; // of the tensors
} shards;

static void shards_destroy(void *owner)
{
    shards *s = owner;
    for (uint32_t i = 0; i < s->count; i++)
        safetensors_close(&s->files[i]);
    json_close(&s->index);
    free(s->names);
    free(s);
}

static kim_err open_file(shards *s, const char *folder, const char *name)
{
    kim_err err = KIM_OK;
    char *path = file_in_folder(folder, name);
    REQUIRE_MEMORY(path);
    TRY(safetensors_open(&s->files[s->count], path));
    s->file_names[s->count++] = name;
error:
    free(path);
    return err;
}

// In the folder itself.
static bool is_file_name(const char *name)
{
    return *name && *name != '.' && strlen(name) < 256 && !strpbrk(name, "/\\:");
}

// The tensor that an entry of the index tells of, in the file that it names.
static kim_err read_entry(shards *s, const char *folder, const json *entry, const char *index)
{
    kim_err err = KIM_OK;
    const char *name = json_text(entry);
    if (!name || !is_file_name(name))
        FAIL(KIM_ERR_FORMAT,
             "%s: the file of the tensor %.80s is not the name of a file in the folder", index,
             json_name(entry));
    uint32_t i = s->count;
    while (i > 0 && strcmp(s->file_names[i - 1], name))
        i--;
    if (i == 0) {
        if (s->count == MAX_FILES)
            FAIL(KIM_ERR_UNSUPPORTED, "%s: names more than %d files", index, MAX_FILES);
        TRY(open_file(s, folder, name));
        i = s->count;
    }
    if (!safetensors_find(s->files[i - 1], json_name(entry)))
        FAIL(KIM_ERR_FORMAT, "%s: the tensor %.80s is not in %s, where it is said to be", index,
             json_name(entry), name);
error:
    return err;
}

static kim_err read_index(shards *s, const char *folder, const char *path)
{
    kim_err err = KIM_OK;
    json_place map;
    TRY(json_open(&s->index, path));
    const json_place top = json_top(s->index);
    TRY(json_get_object(&top, "weight_map", &map));
    if (!json_first(map.value))
        FAIL(KIM_ERR_FORMAT, "%s: the object weight_map is missing or empty", path);
    for (const json *v = json_first(map.value); v; v = json_next(v))
        TRY(read_entry(s, folder, v, path));
error:
    return err;
}

static kim_err open_files(shards *s, const char *folder)
{
    kim_err err = KIM_OK;
    char *single = file_in_folder(folder, "model.safetensors");
    char *index = file_in_folder(folder, "model.safetensors.index.json");
    REQUIRE_MEMORY(single && index);
    if (file_find(single) != FILE_ABSENT)
        TRY(open_file(s, folder, "model.safetensors"));
    else if (file_find(index) != FILE_ABSENT)
        TRY(read_index(s, folder, index));
    else
        FAIL(KIM_ERR_FILE,
             "%s: the folder has neither model.safetensors nor "
             "model.safetensors.index.json",
             folder);
error:
    free(single);
    free(index);
    return err;
}

static kim_err convert(const safetensors *s, const safetensor *from, const char *name,
                       file_tensor *out)
{
    kim_err err = KIM_OK;
    *out = (file_tensor){
        .name = name,
        .type = from->ggml,
        .n_dims = from->n_dims,
        .ne = { 1, 1, 1, 1 },
        .bytes = from->bytes,
        .data = from->data,
        .file = safetensors_mapping(s),
        .path = safetensors_path(s),
    };
    if (!weight_is_plain(from->ggml))
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: the tensor %s has the dtype %s; F32, F16 or BF16 is expected", out->path,
             from->name, from->dtype);
    if (from->n_dims < 1 || from->n_dims > 4 || from->bytes == 0)
        FAIL(KIM_ERR_FORMAT,
             "%s: the tensor %s has %u dimensions and %llu bytes; 1 to 4 dimensions "
             "and some bytes are expected",
             out->path, from->name, from->n_dims, (unsigned long long)from->bytes);
    for (uint32_t d = 0; d < from->n_dims; d++)
        out->ne[d] = from->shape[from->n_dims - 1 - d];
error:
    return err;
}

kim_err tensors_from_folder(tensors **out, const char *folder,
                            bool (*rename)(void *user, const char *name, char *to, size_t room),
                            void *user)
{
    kim_err err = KIM_OK;
    file_tensor *items = NULL;
    uint32_t most = 0, count = 0;
    *out = NULL;
    shards *s = calloc(1, sizeof *s);
    REQUIRE_MEMORY(s);
    TRY(open_files(s, folder));
    for (uint32_t i = 0; i < s->count; i++)
        most += safetensors_count(s->files[i]);
    items = calloc(most + 1, sizeof *items);
    s->names = calloc(most + 1, sizeof *s->names);
    REQUIRE_MEMORY(items && s->names);
    for (uint32_t i = 0; i < s->count; i++) {
        for (uint32_t k = 0; k < safetensors_count(s->files[i]); k++) {
            const safetensor *from = safetensors_at(s->files[i], k);
            if (!rename(user, from->name, s->names[count], MAX_NAME))
                continue;
            TRY(convert(s->files[i], from, s->names[count], &items[count]));
            count++;
        }
    }
    return tensors_create(out, folder, items, count, s, shards_destroy);
error:
    free(items);
    if (s)
        shards_destroy(s);
    return err;
}
