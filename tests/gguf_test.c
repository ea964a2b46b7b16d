// SPDX-License-Identifier: MIT
// The GGUF reader on good files and on every way a file can be bad.
#include "host/gguf.h"
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// The code, and a part of the sentence.
static void expect(kim_err got, kim_err code, const char *part, const char *what)
{
    CHECK(got == code, "%s: got \"%s\" (%s), expected \"%s\"", what, kim_err_name(got),
          kim_error_text(), kim_err_name(code));
    CHECK(strstr(kim_error_text(), part), "%s: got \"%s\", expected \"%s\"", what, kim_error_text(),
          part);
}

// -------------------------------------------------------------------------- a file in memory

typedef struct builder {
    uint8_t bytes[4096];
    size_t n;
} builder;

static void put(builder *b, const void *data, size_t n)
{
    CHECK(n <= sizeof b->bytes - b->n, "builder is full");
    memcpy(b->bytes + b->n, data, n);
    b->n += n;
}

static void put_u32(builder *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static void put_u64(builder *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static void put_string(builder *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static void put_key(builder *b, const char *name, gguf_type type, const void *value, size_t n)
{
    put_string(b, name);
    put_u32(b, type);
    put(b, value, n);
}

static void put_array(builder *b, const char *name, gguf_type type, uint64_t count,
                      const void *items, size_t n)
{
    put_string(b, name);
    put_u32(b, GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, count);
    put(b, items, n);
}

static void put_tensor(builder *b, const char *name, uint32_t n_dims, const uint64_t *ne,
                       uint32_t type, uint64_t offset)
{
    put_string(b, name);
    put_u32(b, n_dims);
    for (uint32_t d = 0; d < n_dims; d++)
        put_u64(b, ne[d]);
    put_u32(b, type);
    put_u64(b, offset);
}

enum { GOOD_KEYS = 23, GOOD_TENSORS = 3 };

// Every kind of value, and three tensors: the last ends with the file.
static builder make_good(uint32_t version)
{
    builder b = { .n = 0 };
    put(&b, "GGUF", 4);
    put_u32(&b, version);
    put_u64(&b, GOOD_TENSORS);
    put_u64(&b, GOOD_KEYS);

    put_key(&b, "general.alignment", GGUF_U32, &(uint32_t){ 64 }, 4);
    put_key(&b, "v.u8", GGUF_U8, &(uint8_t){ 200 }, 1);
    put_key(&b, "v.i8", GGUF_I8, &(int8_t){ -100 }, 1);
    put_key(&b, "v.u16", GGUF_U16, &(uint16_t){ 60000 }, 2);
    put_key(&b, "v.i16", GGUF_I16, &(int16_t){ -30000 }, 2);
    put_key(&b, "v.u32", GGUF_U32, &(uint32_t){ 4000000000u }, 4);
    put_key(&b, "v.i32", GGUF_I32, &(int32_t){ -2000000000 }, 4);
    put_key(&b, "v.u64", GGUF_U64, &(uint64_t){ UINT64_MAX }, 8);
    put_key(&b, "v.u64.small", GGUF_U64, &(uint64_t){ 7 }, 8);
    put_key(&b, "v.i64", GGUF_I64, &(int64_t){ -5 }, 8);
    put_key(&b, "v.f32", GGUF_F32, &(float){ 1.5f }, 4);
    put_key(&b, "v.f64", GGUF_F64, &(double){ -2.25 }, 8);
    put_key(&b, "v.f64.huge", GGUF_F64, &(double){ 1e300 }, 8);
    put_key(&b, "v.f32.nan", GGUF_F32, &(uint32_t){ 0x7fc00000 }, 4);
    put_key(&b, "v.true", GGUF_BOOL, &(uint8_t){ 1 }, 1);
    put_key(&b, "v.string", GGUF_STRING, "\5\0\0\0\0\0\0\0he\0lo", 13);
    put_array(&b, "a.i32", GGUF_I32, 3, &(int32_t[]){ 1, -2, 3 }, 12);
    put_array(&b, "a.u8", GGUF_U8, 2, "\xff\1", 2);
    put_array(&b, "a.u64", GGUF_U64, 2, &(uint64_t[]){ 9, 1ull << 40 }, 16);
    put_array(&b, "a.f32", GGUF_F32, 2, &(float[]){ 0.5f, -4 }, 8);
    put_array(&b, "a.bool", GGUF_BOOL, 2, "\0\1", 2);
    put_array(&b, "a.strings", GGUF_STRING, 2, "\2\0\0\0\0\0\0\0ab\0\0\0\0\0\0\0\0", 18);
    put_array(&b, "a.empty", GGUF_F32, 0, "", 0);

    put_tensor(&b, "t.f32", 2, (uint64_t[]){ 4, 2 }, 0, 0);     // 32 bytes
    put_tensor(&b, "t.q8", 3, (uint64_t[]){ 64, 1, 3 }, 8, 64); // 204
    put_tensor(&b, "t.iq2", 1, (uint64_t[]){ 256 }, 16, 320);   // 66
    while (b.n % 64 != 0)
        put(&b, "", 1);
    for (uint32_t i = 0; i < 320 + 66; i++)
        put(&b, &(uint8_t){ (uint8_t)i }, 1);
    return b;
}

// Opens a copy of exactly these bytes, so that ASan sees a read beyond them.
static kim_err open_copy(const builder *b, size_t n, gguf **out, void **copy)
{
    *copy = malloc(n + (n == 0));
    CHECK(*copy, "out of memory");
    memcpy(*copy, b->bytes, n);
    kim_err err = gguf_open_memory(out, *copy, n, "x.gguf");
    if (err) {
        CHECK(!*out, "an object after an error");
        CHECK(strncmp(kim_error_text(), "x.gguf: ", 8) == 0, "no file name: %s", kim_error_text());
        free(*copy);
    }
    return err;
}

// ------------------------------------------------------------------------------- good files

static void check_structure(const gguf *g, uint32_t version, const uint8_t *file, size_t n)
{
    CHECK(gguf_version(g) == version && gguf_file_bytes(g) == n, "version or size");
    CHECK(strcmp(gguf_path(g), "x.gguf") == 0, "path");
    CHECK(gguf_key_count(g) == GOOD_KEYS && gguf_tensor_count(g) == GOOD_TENSORS, "counts");
    CHECK(!gguf_key_at(g, GOOD_KEYS) && !gguf_tensor_at(g, GOOD_TENSORS), "beyond the end");
    for (uint32_t i = 0; i < GOOD_KEYS; i++)
        CHECK(gguf_find_key(g, gguf_key_at(g, i)->name) == gguf_key_at(g, i), "key %u", i);
    for (uint32_t i = 0; i < GOOD_TENSORS; i++)
        CHECK(gguf_find_tensor(g, gguf_tensor_at(g, i)->name) == gguf_tensor_at(g, i), "tensor");
    CHECK(!gguf_find_key(g, "v") && !gguf_find_key(g, "") && !gguf_find_tensor(g, "v.u8"),
          "found what is not there");

    const gguf_key *k = gguf_find_key(g, "a.strings");
    CHECK(k->type == GGUF_ARRAY && k->item_type == GGUF_STRING && k->count == 2 && k->bytes == 18,
          "a.strings");
    const gguf_tensor *t = gguf_find_tensor(g, "t.q8");
    CHECK(t->n_dims == 3 && t->ne[0] == 64 && t->ne[1] == 1 && t->ne[2] == 3 && t->ne[3] == 1,
          "shape");
    CHECK(t->bytes == 204 && t->type == 8, "type");
    CHECK(t->offset == n - 322 && (const uint8_t *)t->data == file + t->offset, "place");
    t = gguf_find_tensor(g, "t.iq2");
    CHECK(t->type == 16 && t->bytes == 66, "a type that cannot be computed with");
}

static void check_values(const gguf *g)
{
    uint32_t u = 1;
    int32_t i = 1;
    float f = 1;
    bool yes = false, found = true;
    gguf_string s;
    CHECK_OK(gguf_get_u32(g, "v.absent", &u, &found));
    CHECK(!found && u == 1, "an absent key");
    CHECK_OK(gguf_get_u32(g, "v.u8", &u, &found));
    CHECK(found && u == 200, "v.u8");
    CHECK_OK(gguf_get_u32(g, "v.u16", &u, NULL));
    CHECK(u == 60000, "v.u16");
    CHECK_OK(gguf_get_u32(g, "v.u32", &u, NULL));
    CHECK(u == 4000000000u, "v.u32");
    CHECK_OK(gguf_get_u32(g, "v.u64.small", &u, NULL));
    CHECK(u == 7, "v.u64.small");
    CHECK_OK(gguf_get_i32(g, "v.i8", &i, NULL));
    CHECK(i == -100, "v.i8");
    CHECK_OK(gguf_get_i32(g, "v.i16", &i, NULL));
    CHECK(i == -30000, "v.i16");
    CHECK_OK(gguf_get_i32(g, "v.i32", &i, NULL));
    CHECK(i == -2000000000, "v.i32");
    CHECK_OK(gguf_get_i32(g, "v.i64", &i, NULL));
    CHECK(i == -5, "v.i64");
    CHECK_OK(gguf_get_f32(g, "v.f32", &f, NULL));
    CHECK(f == 1.5f, "v.f32");
    CHECK_OK(gguf_get_f32(g, "v.f64", &f, NULL));
    CHECK(f == -2.25f, "v.f64");
    CHECK_OK(gguf_get_bool(g, "v.true", &yes, &found));
    CHECK(yes && found, "v.true");
    CHECK_OK(gguf_get_string(g, "v.string", &s, NULL));
    CHECK(s.length == 5 && memcmp(s.data, "he\0lo", 5) == 0, "v.string");
}

static void check_arrays(const gguf *g)
{
    int32_t *i;
    float *f;
    gguf_string *s;
    uint64_t n;
    bool found;
    CHECK_OK(gguf_get_array_i32(g, "a.i32", &i, &n, &found));
    CHECK(found && n == 3 && i[0] == 1 && i[1] == -2 && i[2] == 3, "a.i32");
    free(i);
    CHECK_OK(gguf_get_array_i32(g, "a.u8", &i, &n, NULL));
    CHECK(n == 2 && i[0] == 255 && i[1] == 1, "a.u8");
    free(i);
    CHECK_OK(gguf_get_array_f32(g, "a.f32", &f, &n, NULL));
    CHECK(n == 2 && f[0] == 0.5f && f[1] == -4, "a.f32");
    free(f);
    CHECK_OK(gguf_get_array_strings(g, "a.strings", &s, &n, NULL));
    CHECK(n == 2 && s[0].length == 2 && memcmp(s[0].data, "ab", 2) == 0 && s[1].length == 0,
          "a.strings");
    free(s);
    CHECK_OK(gguf_get_array_f32(g, "a.empty", &f, &n, &found));
    CHECK(found && n == 0 && !f, "a.empty");
    CHECK_OK(gguf_get_array_f32(g, "a.absent", &f, &n, &found));
    CHECK(!found && n == 0 && !f, "a.absent");
}

static void check_wrong_types(const gguf *g)
{
    uint32_t u = 1;
    int32_t i = 1, *is;
    float f = 1, *fs;
    bool yes = true, found = true;
    gguf_string s = { 0 }, *ss;
    uint64_t n;
    expect(gguf_get_u32(g, "v.string", &u, &found), KIM_ERR_FORMAT,
           "x.gguf: key 'v.string' is a value of type string, expected an integer",
           "u32 of string");
    expect(gguf_get_u32(g, "v.f32", &u, NULL), KIM_ERR_FORMAT, "type f32, expected an integer",
           "u32 of f32");
    expect(gguf_get_u32(g, "a.i32", &u, NULL), KIM_ERR_FORMAT, "is an array of type i32",
           "u32 of array");
    expect(gguf_get_u32(g, "v.i8", &u, NULL), KIM_ERR_FORMAT,
           "key 'v.i8' is -100, expected an integer from 0 to 4294967295", "u32 of -100");
    expect(gguf_get_u32(g, "v.u64", &u, NULL), KIM_ERR_FORMAT, "expected an integer from 0",
           "u32 of u64");
    expect(gguf_get_i32(g, "v.u32", &i, NULL), KIM_ERR_FORMAT, "is 4000000000, expected",
           "i32 of u32");
    expect(gguf_get_f32(g, "v.u8", &f, NULL), KIM_ERR_FORMAT, "type u8, expected an f32 or f64",
           "f32 of u8");
    expect(gguf_get_f32(g, "v.f64.huge", &f, NULL), KIM_ERR_FORMAT, "is 1e+300, expected a finite",
           "f32 of 1e300");
    expect(gguf_get_f32(g, "v.f32.nan", &f, NULL), KIM_ERR_FORMAT, "is nan, expected a finite",
           "f32 of nan");
    expect(gguf_get_bool(g, "v.u8", &yes, NULL), KIM_ERR_FORMAT, "type u8, expected a bool",
           "bool of u8");
    expect(gguf_get_string(g, "v.u8", &s, NULL), KIM_ERR_FORMAT, "type u8, expected a string",
           "string of u8");
    expect(gguf_get_array_i32(g, "a.strings", &is, &n, NULL), KIM_ERR_FORMAT,
           "is an array of type string, expected an array, each item of it an integer", "array");
    CHECK(!is && n == 0, "an array after an error");
    expect(gguf_get_array_i32(g, "a.u64", &is, &n, NULL), KIM_ERR_FORMAT,
           "key 'a.u64', item 1, is 1099511627776, expected", "array out of range");
    expect(gguf_get_array_f32(g, "v.f32", &fs, &n, NULL), KIM_ERR_FORMAT,
           "is a value of type f32, expected an array", "array of value");
    expect(gguf_get_array_strings(g, "a.bool", &ss, &n, NULL), KIM_ERR_FORMAT,
           "is an array of type bool", "strings of bool");
    CHECK(u == 1 && i == 1 && f == 1 && yes && found && !s.data, "changed by an error");
}

static void test_good(uint32_t version)
{
    builder b = make_good(version);
    gguf *g;
    void *copy;
    CHECK_OK(open_copy(&b, b.n, &g, &copy));
    check_structure(g, version, copy, b.n);
    check_values(g);
    check_arrays(g);
    check_wrong_types(g);
    file_release(gguf_mapping(g), 0, gguf_file_bytes(g)); // no file: nothing happens
    gguf_close(&g);
    CHECK(!g, "not NULL after closing");
    gguf_close(&g);
    free(copy);
}

// Nothing but a header is a valid file.
static void test_empty(void)
{
    builder b = { .n = 0 };
    gguf *g;
    void *copy;
    put(&b, "GGUF\3\0\0\0", 8);
    put_u64(&b, 0);
    put_u64(&b, 0);
    CHECK_OK(open_copy(&b, b.n, &g, &copy));
    CHECK(!gguf_find_key(g, "x") && !gguf_find_tensor(g, "x"), "found in an empty file");
    gguf_close(&g);
    free(copy);
}

// -------------------------------------------------------------------------------- bad files

typedef struct corruption {
    const char *name; // of a key or a tensor; "": the start of the file
    int at;           // bytes after the name; negative: before it
    int width;        // of what is overwritten
    uint64_t value;
    kim_err code;
    const char *part; // of the sentence
} corruption;

// After a key's name: u32 type, value; or u32 type, u32 item type, u64 count, items.
// After a tensor's name: u32 dims, u64 shape[dims], u32 type, u64 offset.
static const corruption corruptions[] = {
    { "", 0, 1, 'X', KIM_ERR_FORMAT, "is no GGUF file" },
    { "", 4, 4, 1, KIM_ERR_UNSUPPORTED, "version 1, expected 2 or 3" },
    { "", 4, 4, 4, KIM_ERR_UNSUPPORTED, "version 4, expected 2 or 3" },
    { "", 4, 4, 0, KIM_ERR_UNSUPPORTED, "version 0, expected 2 or 3" },
    { "", 4, 4, 0x03000000, KIM_ERR_UNSUPPORTED, "is a big-endian GGUF file" },
    { "", 8, 8, UINT64_MAX, KIM_ERR_FORMAT, "18446744073709551615 tensors, expected at most" },
    { "", 8, 8, 2000, KIM_ERR_FORMAT, "2000 tensors, more than fit in the file's" },
    { "", 16, 8, UINT64_MAX, KIM_ERR_FORMAT, "18446744073709551615 keys, expected at most" },
    { "", 16, 8, 2000, KIM_ERR_FORMAT, "2000 keys, more than fit in the file's" },
    { "", 16, 8, GOOD_KEYS + 1, KIM_ERR_FORMAT, "tensor number 0" },
    { "", 16, 8, GOOD_KEYS - 1, KIM_ERR_FORMAT, "tensor 'a.empty' has 9 dimensions" },
    { "v.u8", -12, 8, UINT64_MAX, KIM_ERR_FORMAT,
      "key number 1 has a string of 184467440737095516" },
    { "v.u8", -12, 8, 60000, KIM_ERR_FORMAT, "inside key number 1: it is truncated or corrupt" },
    { "v.u8", -12, 8, 0, KIM_ERR_FORMAT, "key number 1 has a name that is empty" },
    { "v.u8", -1, 1, 0, KIM_ERR_FORMAT,
      "key number 1 has a name that is empty or has a zero byte" },
    { "v.u8", 0, 4, 13, KIM_ERR_FORMAT,
      "key 'v.u8' has a value of type 13, expected a type below" },
    { "v.u8", 0, 4, UINT32_MAX, KIM_ERR_FORMAT, "key 'v.u8' has a value of type 4294967295" },
    { "v.true", 4, 1, 2, KIM_ERR_FORMAT, "key 'v.true' has a bool of value 2, expected 0 or 1" },
    { "a.bool", 17, 1, 255, KIM_ERR_FORMAT, "key 'a.bool' has a bool of value 255" },
    { "v.string", 4, 8, 1u << 24, KIM_ERR_FORMAT, "inside key 'v.string': it is truncated" },
    { "v.string", 4, 8, UINT64_MAX - 7, KIM_ERR_FORMAT, "key 'v.string' has a string of 18446744" },
    { "a.i32", 4, 4, GGUF_ARRAY, KIM_ERR_FORMAT, "key 'a.i32' is an array of arrays" },
    { "a.i32", 4, 4, 99, KIM_ERR_FORMAT, "key 'a.i32' has a value of type 99" },
    { "a.i32", 8, 8, UINT64_MAX / 4 + 2, KIM_ERR_FORMAT, "items, expected at most" },
    { "a.i32", 8, 8, 1u << 26, KIM_ERR_FORMAT, "inside key 'a.i32': it is truncated" },
    { "a.strings", 8, 8, 1u << 26, KIM_ERR_FORMAT, "key 'a.strings'" },
    { "a.strings", 16, 8, 1u << 20, KIM_ERR_FORMAT, "inside key 'a.strings': it is truncated" },
    { "v.u64", -5, 5, 0x3233752e76, KIM_ERR_FORMAT, "key 'v.u32' is there twice" },
    { "general.alignment", 4, 4, 0, KIM_ERR_FORMAT, "'general.alignment' is 0, expected" },
    { "general.alignment", 4, 4, 48, KIM_ERR_FORMAT, "is 48, expected a power of two" },
    { "general.alignment", 4, 4, 1u << 31, KIM_ERR_FORMAT, "is 2147483648, expected" },
    { "general.alignment", 0, 4, GGUF_F32, KIM_ERR_FORMAT, "type f32, expected an integer" },
    { "t.q8", -12, 8, 256, KIM_ERR_FORMAT, "tensor number 1 has a string of 256 bytes" },
    { "t.q8", 0, 4, 0, KIM_ERR_FORMAT, "tensor 't.q8' has 0 dimensions, expected 1 to 4" },
    { "t.q8", 0, 4, 5, KIM_ERR_FORMAT, "tensor 't.q8' has 5 dimensions" },
    { "t.q8", 4, 8, 0, KIM_ERR_FORMAT, "tensor 't.q8' has 0 elements in dimension 0" },
    { "t.q8", 4, 8, 48, KIM_ERR_FORMAT, "rows of 48 elements, expected a multiple of 32" },
    { "t.q8", 12, 8, UINT64_MAX, KIM_ERR_FORMAT, "a shape of more than 2^63 elements" },
    { "t.q8", 12, 8, 1ull << 56, KIM_ERR_FORMAT, "a shape of more than 2^63 elements" },
    { "t.q8", 12, 8, 1ull << 50, KIM_ERR_FORMAT, "more than fit in the file's" },
    { "t.q8", 12, 8, 2, KIM_ERR_FORMAT, "408 bytes at 64 of the data, beyond the end of the file" },
    { "t.iq2", 16, 8, 256, KIM_ERR_FORMAT, "tensor 't.q8' and tensor 't.iq2' overlap" },
    { "t.q8", 28, 4, 4, KIM_ERR_UNSUPPORTED,
      "tensor 't.q8' has type number 4, which is not known" },
    { "t.q8", 28, 4, UINT32_MAX, KIM_ERR_UNSUPPORTED, "has type number 4294967295" },
    { "t.q8", 32, 8, 65, KIM_ERR_FORMAT, "offset 65, expected a multiple of the alignment 64" },
    { "t.q8", 32, 8, 0, KIM_ERR_FORMAT, "tensor 't.f32' and tensor 't.q8' overlap" },
    { "t.q8", 32, 8, 1u << 20, KIM_ERR_FORMAT, "tensor 't.q8' has 204 bytes at 1048576" },
    { "t.q8", 32, 8, UINT64_MAX - 63, KIM_ERR_FORMAT, "beyond the end of the file" },
    { "t.iq2", -5, 5, 0x3233662e74, KIM_ERR_FORMAT, "tensor 't.f32' is there twice" },
};

// Where the name stands in the file, length included, so that no prefix of another is found.
static size_t find_record(const builder *b, const char *name)
{
    uint64_t length = strlen(name);
    for (size_t at = 0; at + 8 + length <= b->n; at++) {
        if (memcmp(b->bytes + at, &length, 8) == 0 && memcmp(b->bytes + at + 8, name, length) == 0)
            return at + 8;
    }
    CHECK(false, "no record '%s'", name);
    return 0;
}

static void test_corruptions(void)
{
    for (size_t i = 0; i < sizeof corruptions / sizeof *corruptions; i++) {
        const corruption *c = &corruptions[i];
        builder b = make_good(3);
        size_t at = 0;
        if (*c->name)
            at = find_record(&b, c->name) + strlen(c->name);
        memcpy(b.bytes + (ptrdiff_t)at + c->at, &c->value, (size_t)c->width);
        gguf *g;
        void *copy;
        char what[64];
        snprintf(what, sizeof what, "corruption %zu of '%s'", i, c->name);
        expect(open_copy(&b, b.n, &g, &copy), c->code, c->part, what);
    }
}

// Control characters of a file never reach the terminal.
static void test_label(void)
{
    builder b = make_good(3);
    size_t at = find_record(&b, "t.iq2");
    memcpy(b.bytes + at, "t\x1b[2J", 5);
    b.bytes[at + 5] = 9; // dimensions
    gguf *g;
    void *copy;
    expect(open_copy(&b, b.n, &g, &copy), KIM_ERR_FORMAT, "tensor 't?[2J' has 9 dimensions",
           "a name with an escape");
}

static void test_truncations(void)
{
    builder b = make_good(3);
    gguf *g;
    void *copy;
    for (size_t n = 0; n < b.n; n++) {
        kim_err err = open_copy(&b, n, &g, &copy);
        CHECK(err == KIM_ERR_FORMAT, "truncated to %zu bytes: %s", n, kim_err_name(err));
        CHECK(n < 4 || strstr(kim_error_text(), "truncated"), "truncated to %zu bytes: %s", n,
              kim_error_text());
    }
    CHECK_OK(open_copy(&b, b.n, &g, &copy));
    gguf_close(&g);
    free(copy);
}

// Without the key, data begins at a multiple of 32.
static void test_default_alignment(void)
{
    builder b = { .n = 0 };
    gguf *g;
    void *copy;
    put(&b, "GGUF\2\0\0\0", 8);
    put_u64(&b, 1);
    put_u64(&b, 0);
    put_tensor(&b, "t", 1, (uint64_t[]){ 2 }, 0, 32);
    uint64_t base = (b.n + 31) / 32 * 32;
    while (b.n < base + 32 + 8)
        put(&b, "", 1);
    CHECK_OK(open_copy(&b, b.n, &g, &copy));
    CHECK(gguf_find_tensor(g, "t")->offset == base + 32, "offset");
    gguf_close(&g);
    free(copy);
}

// Any byte changed to anything: an error or a file, no more is asked.
static void test_mutations(void)
{
    const builder good = make_good(3);
    uint64_t state = 88172645463325252u; // xorshift64
    for (int i = 0; i < 20000; i++) {
        builder b = good;
        for (int k = 0; k < 1 + i % 3; k++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b.bytes[(state >> 8) % (b.n - 386)] = (uint8_t)(state >> 48);
        }
        gguf *g;
        void *copy;
        if (open_copy(&b, b.n, &g, &copy) == KIM_OK) {
            gguf_close(&g);
            free(copy);
        }
    }
}

// ------------------------------------------------------------------------------------ on disk

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(data, 1, n, file) == n && fclose(file) == 0, "%s: cannot write", path);
}

static void expect_file(const char *path, kim_err code, const char *part)
{
    gguf *g;
    expect(gguf_open(&g, path), code, part, path);
    CHECK(!g && strncmp(kim_error_text(), path, strlen(path)) == 0, "no file name: %s",
          kim_error_text());
}

static void test_files(void)
{
    char folder[] = "/tmp/kim_gguf_XXXXXX", path[64];
    CHECK(mkdtemp(folder), "cannot make a folder in /tmp");
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    gguf *g;
    expect_file(path, KIM_ERR_FILE, "cannot open: No such file or directory");
    expect_file(folder, KIM_ERR_FILE, "is a folder, expected a file");
    expect_file("/dev/null", KIM_ERR_FILE, "is a device or a pipe, expected a file");
    write_file(path, "", 0);
    expect_file(path, KIM_ERR_FILE, "the file is empty");
    write_file(path, "PK\3\4 not a model", 17);
    expect_file(path, KIM_ERR_FORMAT, "is no GGUF file: it does not begin with \"GGUF\"");
    CHECK(chmod(path, 0) == 0, "chmod");
    if (geteuid() != 0) // root may read everything
        expect_file(path, KIM_ERR_FILE, "cannot open: Permission denied");
    CHECK(chmod(path, 0600) == 0, "chmod");

    builder b = make_good(3);
    write_file(path, b.bytes, b.n);
    CHECK_OK(gguf_open(&g, path));
    const gguf_tensor *t = gguf_find_tensor(g, "t.iq2");
    for (int i = 0; i < 2; i++) { // again after the pages have been given back
        CHECK(memcmp(t->data, b.bytes + t->offset, t->bytes) == 0, "data");
        file_release(gguf_mapping(g), t->offset, t->bytes);
        file_release(gguf_mapping(g), UINT64_MAX, 1);
        file_release(gguf_mapping(g), 1, UINT64_MAX);
    }
    gguf_close(&g);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0, "cannot clean up %s", folder);
}

// A real file: all that is in it can be computed with.
static void test_model(const char *path)
{
    gguf *g;
    gguf_string *tokens, architecture = { 0 };
    uint64_t n, end = 0;
    CHECK_OK(gguf_open(&g, path));
    CHECK(gguf_tensor_count(g) == 236, "%u tensors, expected 236", gguf_tensor_count(g));
    for (uint32_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        CHECK(weight_type_find(t->type), "%s: unsupported type", t->name);
        end = t->offset + t->bytes > end ? t->offset + t->bytes : end;
    }
    CHECK(gguf_file_bytes(g) - end < 32, "the tensors end before the file");
    CHECK_OK(gguf_get_string(g, "general.architecture", &architecture, NULL));
    CHECK(architecture.length == 6 && memcmp(architecture.data, "gemma3", 6) == 0, "architecture");
    CHECK_OK(gguf_get_array_strings(g, "tokenizer.ggml.tokens", &tokens, &n, NULL));
    CHECK(n == 262144 && tokens[2].length == 5 && memcmp(tokens[2].data, "<bos>", 5) == 0,
          "tokens");
    free(tokens);
    gguf_close(&g);
}

int main(int argc, char **argv)
{
    test_good(2);
    test_good(3);
    test_empty();
    test_corruptions();
    test_label();
    test_truncations();
    test_default_alignment();
    test_mutations();
    test_files();
    if (argc > 2 && access(argv[2], R_OK) == 0)
        test_model(argv[2]);
    return 0;
}
