// SPDX-License-Identifier: MIT
// The GGUF reader. Layout of a file, all little-endian:
//   "GGUF", u32 version, u64 tensors, u64 keys
//   each key:    string name, u32 type, value (arrays: u32 item type, u64 count, items)
//   each tensor: string name, u32 dims, u64 shape[dims], u32 type, u64 offset
//   padding to general.alignment, then the data that the offsets count from
// where a string is a u64 length and that many bytes.
#include "gguf.h"

#include "error.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Caps far above what real files have; within them, counts are also bounded by the file's size.
enum {
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 16,
    MAX_KEY_NAME = 65535, // of the specification
    MAX_TENSOR_NAME = 255,
    MAX_STRING = 1 << 24,
    MAX_ITEMS = 1 << 26,
    MAX_ALIGNMENT = 1 << 20,
};

// The fewest bytes these can take.
enum {
    MIN_KEY = 8 + 1 + 4 + 1,
    MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8,
};

// Sorted by name.
typedef struct name_entry {
    const char *name;
    uint32_t index;
} name_entry;

struct gguf {
    char *path;
    file_mapping mapping; // zero when the memory is the caller's
    const uint8_t *data;
    uint64_t size;
    uint32_t version, n_keys, n_tensors;
    gguf_key *keys;
    gguf_tensor *tensors;
    name_entry *keys_by_name, *tensors_by_name;
};

static const struct {
    const char *name;
    uint32_t bytes; // 0: not of a fixed size
} types[] = {
    [GGUF_U8] = { "u8", 1 },   [GGUF_I8] = { "i8", 1 },       [GGUF_U16] = { "u16", 2 },
    [GGUF_I16] = { "i16", 2 }, [GGUF_U32] = { "u32", 4 },     [GGUF_I32] = { "i32", 4 },
    [GGUF_F32] = { "f32", 4 }, [GGUF_BOOL] = { "bool", 1 },   [GGUF_STRING] = { "string", 0 },
    [GGUF_U64] = { "u64", 8 }, [GGUF_ARRAY] = { "array", 0 }, [GGUF_I64] = { "i64", 8 },
    [GGUF_F64] = { "f64", 8 },
};

enum { N_TYPES = sizeof types / sizeof *types };

const char *gguf_type_name(gguf_type type)
{
    return (uint32_t)type < N_TYPES ? types[type].name : "unknown type";
}

// ------------------------------------------------------------------------------------- cursor

// A place in the file, and what is being read there, for errors.
typedef struct cursor {
    const uint8_t *data;
    uint64_t size, at;
    const char *part; // "header", "key", "tensor"
    uint32_t index;
    const char *name; // NULL: not read yet
} cursor;

// For errors: "key 3", or "key 'x.y'" with what is not printable ASCII replaced.
typedef struct label {
    char text[128];
} label;

static label make_label(const char *part, uint32_t index, const char *name)
{
    label l;
    if (name) {
        int n = snprintf(l.text, sizeof l.text, "%s '%.80s%s'", part, name,
                         strlen(name) > 80 ? "..." : "");
        for (int i = 0; i < n; i++) {
            if (l.text[i] < 0x20 || l.text[i] > 0x7e)
                l.text[i] = '?';
        }
    } else if (strcmp(part, "header") == 0) {
        snprintf(l.text, sizeof l.text, "the header");
    } else {
        snprintf(l.text, sizeof l.text, "%s number %" PRIu32, part, index);
    }
    return l;
}

static label cursor_label(const cursor *c)
{
    return make_label(c->part, c->index, c->name);
}

static kim_err fail_truncated(const cursor *c)
{
    return kim_fail(KIM_ERR_FORMAT,
                    "the file ends at byte %" PRIu64 ", inside %s: it is truncated or corrupt",
                    c->size, cursor_label(c).text);
}

static kim_err read_bytes(cursor *c, void *out, size_t n)
{
    if (n > c->size - c->at)
        return fail_truncated(c);
    memcpy(out, c->data + c->at, n);
    c->at += n;
    return KIM_OK;
}

static kim_err read_u32(cursor *c, uint32_t *out)
{
    return read_bytes(c, out, sizeof *out);
}

static kim_err read_u64(cursor *c, uint64_t *out)
{
    return read_bytes(c, out, sizeof *out);
}

static kim_err read_string(cursor *c, gguf_string *out, uint64_t cap)
{
    uint64_t length = 0;
    kim_err err = read_u64(c, &length);
    if (err)
        return err;
    if (length > cap)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s has a string of %" PRIu64 " bytes, expected at most %" PRIu64,
                        cursor_label(c).text, length, cap);
    if (length > c->size - c->at)
        return fail_truncated(c);
    *out = (gguf_string){ (const char *)c->data + c->at, length };
    c->at += length;
    return KIM_OK;
}

// A name as a C string, to be freed; NULL on failure.
static kim_err read_name(cursor *c, const char **out, uint64_t cap)
{
    gguf_string s = { 0 };
    kim_err err = read_string(c, &s, cap);
    if (err)
        return err;
    if (s.length == 0 || memchr(s.data, 0, s.length))
        return kim_fail(KIM_ERR_FORMAT, "%s has a name that is empty or has a zero byte in it",
                        cursor_label(c).text);
    char *name = malloc(s.length + 1);
    if (!name)
        return kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
    memcpy(name, s.data, s.length);
    name[s.length] = 0;
    *out = c->name = name;
    return KIM_OK;
}

// --------------------------------------------------------------------------------------- keys

static kim_err check_type(const cursor *c, uint32_t type)
{
    if (type < N_TYPES)
        return KIM_OK;
    return kim_fail(KIM_ERR_FORMAT, "%s has a value of type %" PRIu32 ", expected a type below %d",
                    cursor_label(c).text, type, N_TYPES);
}

// Steps over the items of a key, and checks each.
static kim_err read_items(cursor *c, gguf_key *key)
{
    key->data = c->data + c->at;
    uint64_t begin = c->at, size = types[key->item_type].bytes;
    if (size > 0) {
        if (key->count > (c->size - c->at) / size)
            return fail_truncated(c);
        c->at += key->count * size;
    } else {
        for (uint64_t i = 0; i < key->count; i++) {
            gguf_string s;
            kim_err err = read_string(c, &s, MAX_STRING);
            if (err)
                return err;
        }
    }
    key->bytes = c->at - begin;
    for (uint64_t i = 0; key->item_type == GGUF_BOOL && i < key->count; i++) {
        if (key->data[i] > 1)
            return kim_fail(KIM_ERR_FORMAT, "%s has a bool of value %d, expected 0 or 1",
                            cursor_label(c).text, key->data[i]);
    }
    return KIM_OK;
}

static kim_err read_key(cursor *c, gguf_key *key)
{
    kim_err err;
    uint32_t type = 0;
    TRY(read_name(c, &key->name, MAX_KEY_NAME));
    TRY(read_u32(c, &type));
    TRY(check_type(c, type));
    key->type = key->item_type = (gguf_type)type;
    key->count = 1;
    if (type == GGUF_ARRAY) {
        TRY(read_u32(c, &type));
        TRY(check_type(c, type));
        if (type == GGUF_ARRAY)
            FAIL(KIM_ERR_FORMAT, "%s is an array of arrays, expected an array of plain values",
                 cursor_label(c).text);
        key->item_type = (gguf_type)type;
        TRY(read_u64(c, &key->count));
        if (key->count > MAX_ITEMS)
            FAIL(KIM_ERR_FORMAT, "%s is an array of %" PRIu64 " items, expected at most %d",
                 cursor_label(c).text, key->count, MAX_ITEMS);
    }
    TRY(read_items(c, key));
error:
    return err;
}

// ------------------------------------------------------------------------------------ tensors

// Shape and type to bytes.
static kim_err measure_tensor(const cursor *c, gguf_tensor *t)
{
    label l = cursor_label(c);
    const tensor_type *type = tensor_type_find(t->type);
    if (!type)
        return kim_fail(KIM_ERR_UNSUPPORTED, "%s has type number %" PRIu32 ", which is not known",
                        l.text, t->type);
    uint64_t elements = 1;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (t->ne[d] == 0)
            return kim_fail(KIM_ERR_FORMAT, "%s has 0 elements in dimension %" PRIu32, l.text, d);
        if (t->ne[d] > (uint64_t)INT64_MAX / elements)
            return kim_fail(KIM_ERR_FORMAT, "%s has a shape of more than 2^63 elements", l.text);
        elements *= t->ne[d];
    }
    if (t->ne[0] % type->block != 0)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s has rows of %" PRIu64 " elements, expected a multiple of %d, the block "
                        "of its type %s",
                        l.text, t->ne[0], type->block, type->name);
    uint64_t blocks = elements / type->block;
    if (blocks > c->size / type->block_bytes)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s has a shape of %" PRIu64 " elements of type %s, more than fit in the "
                        "file's %" PRIu64 " bytes: it is truncated or corrupt",
                        l.text, elements, type->name, c->size);
    t->bytes = blocks * type->block_bytes;
    return KIM_OK;
}

static kim_err read_tensor(cursor *c, gguf_tensor *t)
{
    kim_err err;
    TRY(read_name(c, &t->name, MAX_TENSOR_NAME));
    TRY(read_u32(c, &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > 4)
        FAIL(KIM_ERR_FORMAT, "%s has %" PRIu32 " dimensions, expected 1 to 4", cursor_label(c).text,
             t->n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d < t->n_dims)
            TRY(read_u64(c, &t->ne[d]));
    }
    TRY(read_u32(c, &t->type));
    TRY(read_u64(c, &t->offset));
    TRY(measure_tensor(c, t));
error:
    return err;
}

// From offsets in the data section, which begins at `base`, to places in the file.
static kim_err place_tensors(gguf *g, uint64_t base, uint64_t alignment)
{
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        gguf_tensor *t = &g->tensors[i];
        label l = make_label("tensor", i, t->name);
        if (t->offset % alignment != 0)
            return kim_fail(KIM_ERR_FORMAT,
                            "%s has offset %" PRIu64
                            ", expected a multiple of the alignment %" PRIu64,
                            l.text, t->offset, alignment);
        if (base > g->size || t->offset > g->size - base || t->bytes > g->size - base - t->offset)
            return kim_fail(KIM_ERR_FORMAT,
                            "%s has %" PRIu64 " bytes at %" PRIu64
                            " of the data, beyond the end of "
                            "the file at byte %" PRIu64 ": it is truncated or corrupt",
                            l.text, t->bytes, t->offset, g->size);
        t->offset += base;
        t->data = g->data + t->offset;
    }
    return KIM_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const gguf_tensor *x = *(const gguf_tensor *const *)a, *y = *(const gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static kim_err check_overlap(const gguf *g)
{
    kim_err err = KIM_OK;
    const gguf_tensor **sorted = malloc((g->n_tensors + 1) * sizeof *sorted);
    REQUIRE_MEMORY(sorted);
    for (uint32_t i = 0; i < g->n_tensors; i++)
        sorted[i] = &g->tensors[i];
    qsort(sorted, g->n_tensors, sizeof *sorted, compare_offsets);
    for (uint32_t i = 1; i < g->n_tensors; i++) {
        const gguf_tensor *a = sorted[i - 1], *b = sorted[i];
        if (b->offset - a->offset < a->bytes)
            FAIL(KIM_ERR_FORMAT, "%s and %s overlap in the file",
                 make_label("tensor", 0, a->name).text, make_label("tensor", 0, b->name).text);
    }
error:
    free(sorted);
    return err;
}

// -------------------------------------------------------------------------------------- names

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const name_entry *)a)->name, ((const name_entry *)b)->name);
}

// Sorts, and refuses a name that is there twice.
static kim_err sort_names(name_entry *entries, uint32_t count, const char *part)
{
    qsort(entries, count, sizeof *entries, compare_entries);
    for (uint32_t i = 1; i < count; i++) {
        if (strcmp(entries[i - 1].name, entries[i].name) == 0)
            return kim_fail(KIM_ERR_FORMAT, "%s is there twice",
                            make_label(part, 0, entries[i].name).text);
    }
    return KIM_OK;
}

// UINT32_MAX: not there
static uint32_t find_name(const name_entry *entries, uint32_t count, const char *name)
{
    const name_entry wanted = { name, 0 }, *found = NULL;
    if (count > 0)
        found = bsearch(&wanted, entries, count, sizeof *entries, compare_entries);
    return found ? found->index : UINT32_MAX;
}

// ------------------------------------------------------------------------------------- lookup

const char *gguf_path(const gguf *g)
{
    return g->path;
}

uint32_t gguf_version(const gguf *g)
{
    return g->version;
}

uint64_t gguf_file_bytes(const gguf *g)
{
    return g->size;
}

uint32_t gguf_key_count(const gguf *g)
{
    return g->n_keys;
}

uint32_t gguf_tensor_count(const gguf *g)
{
    return g->n_tensors;
}

const gguf_key *gguf_key_at(const gguf *g, uint32_t index)
{
    return index < g->n_keys ? &g->keys[index] : NULL;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, uint32_t index)
{
    return index < g->n_tensors ? &g->tensors[index] : NULL;
}

const gguf_key *gguf_find_key(const gguf *g, const char *name)
{
    return gguf_key_at(g, find_name(g->keys_by_name, g->n_keys, name));
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name)
{
    return gguf_tensor_at(g, find_name(g->tensors_by_name, g->n_tensors, name));
}

const file_mapping *gguf_mapping(const gguf *g)
{
    return &g->mapping;
}

// ------------------------------------------------------------------------------------ getters

#define BIT(type) (1u << (type))

enum {
    INTEGERS = BIT(GGUF_U8) | BIT(GGUF_I8) | BIT(GGUF_U16) | BIT(GGUF_I16) | BIT(GGUF_U32) |
               BIT(GGUF_I32) | BIT(GGUF_U64) | BIT(GGUF_I64),
    FLOATS = BIT(GGUF_F32) | BIT(GGUF_F64),
};

// Finds a key and checks its type. *key is NULL if it is absent.
//
// accepted: bits of types
// expected: what they are, for the error
static kim_err find_value(const gguf *g, const char *name, bool array, uint32_t accepted,
                          const char *expected, const gguf_key **key)
{
    const gguf_key *k = *key = gguf_find_key(g, name);
    if (!k || ((k->type == GGUF_ARRAY) == array && (BIT(k->item_type) & accepted)))
        return KIM_OK;
    return kim_fail(KIM_ERR_FORMAT, "%s is %s of type %s, expected %s%s",
                    make_label("key", 0, name).text, k->type == GGUF_ARRAY ? "an array" : "a value",
                    types[k->item_type].name, array ? "an array, each item of it " : "", expected);
}

// Values above INT64_MAX become that: no caller has it in range.
static int64_t load_integer(const gguf_key *key, uint64_t i)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    uint32_t size = types[key->item_type].bytes;
    memcpy(&v, key->data + i * size, size);
    switch (key->item_type) {
    case GGUF_U8: return v.u8;
    case GGUF_I8: return v.i8;
    case GGUF_U16: return v.u16;
    case GGUF_I16: return v.i16;
    case GGUF_U32: return v.u32;
    case GGUF_I32: return v.i32;
    case GGUF_U64: return v.u64 > INT64_MAX ? INT64_MAX : (int64_t)v.u64;
    default: return v.i64;
    }
}

// "key 'x'", or "key 'x', item 7," of an array.
static label item_label(const gguf_key *key, uint64_t i)
{
    label l = make_label("key", 0, key->name);
    size_t n = strlen(l.text);
    if (key->type == GGUF_ARRAY)
        snprintf(l.text + n, sizeof l.text - n, ", item %" PRIu64 ",", i);
    return l;
}

static kim_err read_integer(const gguf_key *key, uint64_t i, int64_t min, int64_t max,
                            int64_t *value)
{
    *value = load_integer(key, i);
    if (*value >= min && *value <= max)
        return KIM_OK;
    return kim_fail(KIM_ERR_FORMAT,
                    "%s is %" PRId64 ", expected an integer from %" PRId64 " to %" PRId64,
                    item_label(key, i).text, *value, min, max);
}

static kim_err read_float(const gguf_key *key, uint64_t i, float *value)
{
    double v;
    float f;
    if (key->item_type == GGUF_F64) {
        memcpy(&v, key->data + i * sizeof v, sizeof v);
    } else {
        memcpy(&f, key->data + i * sizeof f, sizeof f);
        v = (double)f;
    }
    if (!isfinite(v) || fabs(v) > (double)FLT_MAX)
        return kim_fail(KIM_ERR_FORMAT, "%s is %g, expected a finite f32", item_label(key, i).text,
                        v);
    *value = (float)v;
    return KIM_OK;
}

// The end of every public function: the file's name goes before the error.
static kim_err finish(const gguf *g, kim_err err, const gguf_key *key, bool *found)
{
    if (err)
        return kim_fail_prefix(err, g->path);
    if (found)
        *found = key != NULL;
    return KIM_OK;
}

static kim_err get_integer(const gguf *g, const char *name, int64_t min, int64_t max,
                           int64_t *value, const gguf_key **key)
{
    kim_err err = find_value(g, name, false, INTEGERS, "an integer", key);
    if (err || !*key)
        return err;
    return read_integer(*key, 0, min, max, value);
}

kim_err gguf_get_u32(const gguf *g, const char *name, uint32_t *value, bool *found)
{
    const gguf_key *key;
    int64_t v;
    kim_err err = get_integer(g, name, 0, UINT32_MAX, &v, &key);
    if (!err && key)
        *value = (uint32_t)v;
    return finish(g, err, key, found);
}

kim_err gguf_get_i32(const gguf *g, const char *name, int32_t *value, bool *found)
{
    const gguf_key *key;
    int64_t v;
    kim_err err = get_integer(g, name, INT32_MIN, INT32_MAX, &v, &key);
    if (!err && key)
        *value = (int32_t)v;
    return finish(g, err, key, found);
}

kim_err gguf_get_f32(const gguf *g, const char *name, float *value, bool *found)
{
    const gguf_key *key;
    kim_err err = find_value(g, name, false, FLOATS, "an f32 or f64", &key);
    if (!err && key)
        err = read_float(key, 0, value);
    return finish(g, err, key, found);
}

kim_err gguf_get_bool(const gguf *g, const char *name, bool *value, bool *found)
{
    const gguf_key *key;
    kim_err err = find_value(g, name, false, BIT(GGUF_BOOL), "a bool", &key);
    if (!err && key)
        *value = key->data[0] != 0;
    return finish(g, err, key, found);
}

// The strings of a key. They were walked when the file was opened; the checks are done again
// because others may write to the file meanwhile.
static kim_err read_strings(const gguf_key *key, gguf_string *values)
{
    cursor c = { .data = key->data, .size = key->bytes, .part = "key", .name = key->name };
    kim_err err = KIM_OK;
    for (uint64_t i = 0; i < key->count && !err; i++)
        err = read_string(&c, &values[i], MAX_STRING);
    return err;
}

kim_err gguf_get_string(const gguf *g, const char *name, gguf_string *value, bool *found)
{
    const gguf_key *key;
    kim_err err = find_value(g, name, false, BIT(GGUF_STRING), "a string", &key);
    if (!err && key)
        err = read_strings(key, value);
    return finish(g, err, key, found);
}

// Finds an array and allocates its items, of `size` bytes each.
static kim_err find_array(const gguf *g, const char *name, uint32_t accepted, const char *expected,
                          size_t size, const gguf_key **key, void **items)
{
    *items = NULL;
    kim_err err = find_value(g, name, true, accepted, expected, key);
    if (err || !*key || (*key)->count == 0)
        return err;
    *items = calloc((*key)->count, size);
    return *items ? KIM_OK : kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
}

// What an array getter hands out: the items, or nothing after an error.
static void *end_array(kim_err err, const gguf_key *key, void *items, uint64_t *count)
{
    if (err) {
        free(items);
        items = NULL;
    }
    *count = items ? key->count : 0;
    return items;
}

kim_err gguf_get_array_i32(const gguf *g, const char *name, int32_t **values, uint64_t *count,
                           bool *found)
{
    const gguf_key *key;
    void *items;
    kim_err err = find_array(g, name, INTEGERS, "an integer", sizeof **values, &key, &items);
    int32_t *to = items;
    for (uint64_t i = 0; !err && key && i < key->count; i++) {
        int64_t v;
        err = read_integer(key, i, INT32_MIN, INT32_MAX, &v);
        to[i] = (int32_t)v;
    }
    *values = end_array(err, key, items, count);
    return finish(g, err, key, found);
}

kim_err gguf_get_array_f32(const gguf *g, const char *name, float **values, uint64_t *count,
                           bool *found)
{
    const gguf_key *key;
    void *items;
    kim_err err = find_array(g, name, FLOATS, "an f32 or f64", sizeof **values, &key, &items);
    float *to = items;
    for (uint64_t i = 0; !err && key && i < key->count; i++)
        err = read_float(key, i, &to[i]);
    *values = end_array(err, key, items, count);
    return finish(g, err, key, found);
}

kim_err gguf_get_array_strings(const gguf *g, const char *name, gguf_string **values,
                               uint64_t *count, bool *found)
{
    const gguf_key *key;
    void *items;
    kim_err err = find_array(g, name, BIT(GGUF_STRING), "a string", sizeof **values, &key, &items);
    if (!err && key)
        err = read_strings(key, items);
    *values = end_array(err, key, items, count);
    return finish(g, err, key, found);
}

// ------------------------------------------------------------------------------------ opening

static kim_err check_count(const cursor *c, uint64_t count, uint64_t cap, uint64_t min_bytes,
                           const char *what)
{
    if (count > cap)
        return kim_fail(KIM_ERR_FORMAT,
                        "the header tells of %" PRIu64 " %s, expected at most %" PRIu64, count,
                        what, cap);
    if (count > (c->size - c->at) / min_bytes)
        return kim_fail(KIM_ERR_FORMAT,
                        "the header tells of %" PRIu64 " %s, more than fit in the file's %" PRIu64
                        " bytes: it is truncated or corrupt",
                        count, what, c->size);
    return KIM_OK;
}

static kim_err read_header(cursor *c, gguf *g)
{
    kim_err err;
    char magic[4];
    uint64_t n_tensors = 0, n_keys = 0;
    if (c->size < sizeof magic || memcmp(c->data, "GGUF", sizeof magic) != 0)
        FAIL(KIM_ERR_FORMAT, "is no GGUF file: it does not begin with \"GGUF\"");
    TRY(read_bytes(c, magic, sizeof magic));
    TRY(read_u32(c, &g->version));
    if (g->version != 0 && (g->version & 0xffff) == 0)
        FAIL(KIM_ERR_UNSUPPORTED, "is a big-endian GGUF file; only little-endian ones are read");
    if (g->version != 2 && g->version != 3)
        FAIL(KIM_ERR_UNSUPPORTED, "is a GGUF file of version %" PRIu32 ", expected 2 or 3",
             g->version);
    TRY(read_u64(c, &n_tensors));
    TRY(read_u64(c, &n_keys));
    TRY(check_count(c, n_tensors, MAX_TENSORS, MIN_TENSOR, "tensors"));
    TRY(check_count(c, n_keys, MAX_KEYS, MIN_KEY, "keys"));
    g->tensors = calloc(n_tensors + 1, sizeof *g->tensors);
    g->tensors_by_name = calloc(n_tensors + 1, sizeof *g->tensors_by_name);
    g->keys = calloc(n_keys + 1, sizeof *g->keys);
    g->keys_by_name = calloc(n_keys + 1, sizeof *g->keys_by_name);
    REQUIRE_MEMORY(g->tensors && g->tensors_by_name && g->keys && g->keys_by_name);
    g->n_tensors = (uint32_t)n_tensors;
    g->n_keys = (uint32_t)n_keys;
error:
    return err;
}

static kim_err parse(gguf *g)
{
    kim_err err;
    cursor c = { .data = g->data, .size = g->size, .part = "header" };
    TRY(read_header(&c, g));

    c.part = "key";
    for (c.index = 0; c.index < g->n_keys; c.index++) {
        c.name = NULL;
        TRY(read_key(&c, &g->keys[c.index]));
        g->keys_by_name[c.index] = (name_entry){ g->keys[c.index].name, c.index };
    }
    TRY(sort_names(g->keys_by_name, g->n_keys, "key"));

    int64_t alignment = 32;
    const gguf_key *key;
    TRY(get_integer(g, "general.alignment", 8, MAX_ALIGNMENT, &alignment, &key));
    if ((alignment & (alignment - 1)) != 0)
        FAIL(KIM_ERR_FORMAT, "key 'general.alignment' is %" PRId64 ", expected a power of two",
             alignment);

    c.part = "tensor";
    for (c.index = 0; c.index < g->n_tensors; c.index++) {
        c.name = NULL;
        TRY(read_tensor(&c, &g->tensors[c.index]));
        g->tensors_by_name[c.index] = (name_entry){ g->tensors[c.index].name, c.index };
    }
    TRY(sort_names(g->tensors_by_name, g->n_tensors, "tensor"));
    uint64_t mask = (uint64_t)alignment - 1;
    TRY(place_tensors(g, (c.at + mask) & ~mask, (uint64_t)alignment));
    TRY(check_overlap(g));
error:
    return err;
}

static kim_err create(gguf **out, const char *path)
{
    size_t length = strlen(path);
    gguf *g = calloc(1, sizeof *g);
    if (g)
        g->path = malloc(length + 1);
    if (!g || !g->path) {
        free(g);
        return kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
    }
    memcpy(g->path, path, length + 1);
    *out = g;
    return KIM_OK;
}

kim_err gguf_open(gguf **out, const char *path)
{
    gguf *g = NULL;
    *out = NULL;
    kim_err err;
    TRY(create(&g, path));
    TRY(file_map(&g->mapping, path));
    g->data = g->mapping.data;
    g->size = g->mapping.size;
    TRY(finish(g, parse(g), NULL, NULL));
    *out = g;
    return KIM_OK;
error:
    gguf_close(&g);
    return err;
}

kim_err gguf_open_memory(gguf **out, const void *data, uint64_t size, const char *name)
{
    gguf *g = NULL;
    *out = NULL;
    kim_err err;
    TRY(create(&g, name));
    g->data = data;
    g->size = size;
    TRY(finish(g, parse(g), NULL, NULL));
    *out = g;
    return KIM_OK;
error:
    gguf_close(&g);
    return err;
}

void gguf_close(gguf **g)
{
    gguf *o = *g;
    if (!o)
        return;
    for (uint32_t i = 0; i < o->n_keys; i++)
        free((char *)o->keys[i].name);
    for (uint32_t i = 0; i < o->n_tensors; i++)
        free((char *)o->tensors[i].name);
    free(o->keys);
    free(o->tensors);
    free(o->keys_by_name);
    free(o->tensors_by_name);
    free(o->path);
    file_unmap(&o->mapping);
    free(o);
    *g = NULL;
}
