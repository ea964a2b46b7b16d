// SPDX-License-Identifier: MIT
// JSON documents, read with cJSON. It checks neither how much there is nor whether names repeat.
#include "json.h"

#include "error.h"
#include "file.h"

#include <cjson/cJSON.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_BYTES = 1 << 28,
    MAX_DEPTH = 64,
    MAX_VALUES = 1 << 23, // a value takes about 100 bytes
};

struct json_document {
    char *path;
    cJSON *root;
};

// ----------------------------------------------------------------------------------- checks

static uint64_t line_of(const char *text, uint64_t at)
{
    uint64_t line = 1;
    for (uint64_t i = 0; i < at; i++)
        line += text[i] == '\n';
    return line;
}

// Steps over the string that begins at text[at]; the parser finds out whether it is a right one.
static kim_err skip_string(const char *text, uint64_t length, uint64_t *at)
{
    uint64_t i = *at + 1;
    while (i < length && text[i] != '"') {
        if (length - i >= 6 && !memcmp(text + i, "\\u0000", 6))
            return kim_fail(KIM_ERR_FORMAT, "line %" PRIu64 " has a string with a zero character",
                            line_of(text, i));
        i += text[i] == '\\' ? 2 : 1;
    }
    *at = i;
    return KIM_OK;
}

// What the parser will make of it at most, before it makes it.
static kim_err check_amount(const char *text, uint64_t length)
{
    kim_err err = KIM_OK;
    uint32_t depth = 0, values = 1;
    if (length > MAX_BYTES)
        FAIL(KIM_ERR_FORMAT, "has %" PRIu64 " bytes, expected at most %d", length, MAX_BYTES);
    const char *zero = memchr(text, 0, length);
    if (zero)
        FAIL(KIM_ERR_FORMAT, "line %" PRIu64 " has a zero byte",
             line_of(text, (uint64_t)(zero - text)));
    for (uint64_t i = 0; i < length; i++) {
        switch (text[i]) {
        case '"': TRY(skip_string(text, length, &i)); break;
        case '{':
        case '[':
            values++;
            if (++depth > MAX_DEPTH)
                FAIL(KIM_ERR_FORMAT, "line %" PRIu64 " is nested in more than %d levels",
                     line_of(text, i), MAX_DEPTH);
            break;
        case '}':
        case ']': depth -= depth > 0; break;
        case ',': values++; break;
        }
        if (values > MAX_VALUES)
            FAIL(KIM_ERR_FORMAT, "has more than %d values", MAX_VALUES);
    }
error:
    return err;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static kim_err check_object(const cJSON *object)
{
    kim_err err = KIM_OK;
    size_t n = 0;
    const char **names = malloc((json_count(object) + 1) * sizeof *names);
    REQUIRE_MEMORY(names);
    for (const cJSON *v = object->child; v; v = v->next)
        names[n++] = v->string;
    qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 1; i < n; i++) {
        if (!strcmp(names[i - 1], names[i]))
            FAIL(KIM_ERR_FORMAT, "the name %.80s is there twice in one object", names[i]);
    }
error:
    free(names);
    return err;
}

// No object has a name twice. At most MAX_DEPTH deep.
static kim_err check_names(const cJSON *list)
{
    kim_err err = KIM_OK;
    if (cJSON_IsObject(list))
        TRY(check_object(list));
    for (const cJSON *v = list->child; v; v = v->next) {
        if (v->child)
            TRY(check_names(v));
    }
error:
    return err;
}

static kim_err parse(json_document *d, const char *text, uint64_t length)
{
    kim_err err = KIM_OK;
    const char *end = text;
    TRY(check_amount(text, length));
    d->root = cJSON_ParseWithLengthOpts(text, (size_t)length, &end, false);
    uint64_t at = (uint64_t)(end - text);
    if (!d->root)
        FAIL(KIM_ERR_FORMAT, "line %" PRIu64 " is no JSON", line_of(text, at));
    while (at < length && strchr(" \t\r\n", text[at]) && text[at])
        at++;
    if (at < length)
        FAIL(KIM_ERR_FORMAT, "line %" PRIu64 " goes on after the end of the JSON",
             line_of(text, at));
    TRY(check_names(d->root));
error:
    return err;
}

// ----------------------------------------------------------------------------------- opening

kim_err json_open_memory(json_document **out, const void *text, uint64_t length, const char *name)
{
    kim_err err = KIM_OK;
    *out = NULL;
    json_document *d = calloc(1, sizeof *d);
    REQUIRE_MEMORY(d);
    d->path = malloc(strlen(name) + 1);
    REQUIRE_MEMORY(d->path);
    strcpy(d->path, name);
    err = parse(d, text, length);
    if (err) {
        kim_fail_prefix(err, name);
        goto error;
    }
    *out = d;
    return KIM_OK;
error:
    json_close(&d);
    return err;
}

kim_err json_open(json_document **out, const char *path)
{
    file_mapping file;
    *out = NULL;
    kim_err err = file_map(&file, path);
    if (err)
        return err;
    err = json_open_memory(out, file.data, file.size, path);
    file_unmap(&file);
    return err;
}

void json_close(json_document **d)
{
    if (!*d)
        return;
    cJSON_Delete((*d)->root);
    free((*d)->path);
    free(*d);
    *d = NULL;
}

// ------------------------------------------------------------------------------------ values

const json *json_first(const json *list)
{
    return list ? list->child : NULL;
}

const json *json_next(const json *value)
{
    return value->next;
}

const char *json_name(const json *value)
{
    return value->string ? value->string : "";
}

const char *json_text(const json *value)
{
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

bool json_is_object(const json *value)
{
    return cJSON_IsObject(value);
}

bool json_is_array(const json *value)
{
    return cJSON_IsArray(value);
}

bool json_is_true(const json *value)
{
    return cJSON_IsTrue(value);
}

bool json_is_false(const json *value)
{
    return cJSON_IsFalse(value);
}

uint64_t json_count(const json *list)
{
    uint64_t n = 0;
    for (const json *v = json_first(list); v; v = v->next)
        n++;
    return n;
}

bool json_number(const json *value, double *out)
{
    if (!cJSON_IsNumber(value))
        return false;
    *out = value->valuedouble;
    return true;
}

bool json_integer(const json *value, uint64_t most, uint64_t *out)
{
    const double v = cJSON_IsNumber(value) ? value->valuedouble : -1;
    if (!(v >= 0 && v <= (double)most && v <= 0x1p53 && floor(v) == v))
        return false;
    *out = (uint64_t)v;
    return true;
}

// ------------------------------------------------------------------------------------ places

json_place json_top(const json_document *d)
{
    return (json_place){ .value = d->root, .path = d->path };
}

json_place json_find(const json_place *object, const char *name)
{
    json_place p = { .path = object->path };
    snprintf(p.name, sizeof p.name, "%.60s%s%.50s", object->name, *object->name ? "." : "", name);
    for (const json *v = json_is_object(object->value) ? json_first(object->value) : NULL; v;
         v = v->next) {
        if (!strcmp(v->string, name))
            p.value = cJSON_IsNull(v) ? NULL : v;
    }
    return p;
}

static kim_err fail_type(const json_place *p, const char *expected)
{
    return kim_fail(KIM_ERR_FORMAT, "%s: %s is not %s", p->path, p->name, expected);
}

kim_err json_get_u32(const json_place *object, const char *name, uint32_t *value, bool *found)
{
    const json_place p = json_find(object, name);
    uint64_t v = *value;
    if (found)
        *found = p.value != NULL;
    if (p.value && !json_integer(p.value, UINT32_MAX, &v))
        return fail_type(&p, "an integer of 0 to 4294967295");
    *value = (uint32_t)v;
    return KIM_OK;
}

kim_err json_get_f32(const json_place *object, const char *name, float *value, bool *found)
{
    const json_place p = json_find(object, name);
    if (found)
        *found = p.value != NULL;
    if (!p.value)
        return KIM_OK;
    if (!cJSON_IsNumber(p.value) || !(fabs(p.value->valuedouble) <= (double)FLT_MAX))
        return fail_type(&p, "a finite number");
    *value = (float)p.value->valuedouble;
    return KIM_OK;
}

kim_err json_get_bool(const json_place *object, const char *name, bool *value, bool *found)
{
    const json_place p = json_find(object, name);
    if (found)
        *found = p.value != NULL;
    if (!p.value)
        return KIM_OK;
    if (!cJSON_IsBool(p.value))
        return fail_type(&p, "true or false");
    *value = json_is_true(p.value);
    return KIM_OK;
}

kim_err json_get_text(const json_place *object, const char *name, const char **value, bool *found)
{
    const json_place p = json_find(object, name);
    if (found)
        *found = p.value != NULL;
    if (!p.value)
        return KIM_OK;
    if (!json_text(p.value))
        return fail_type(&p, "a string");
    *value = json_text(p.value);
    return KIM_OK;
}

kim_err json_get_object(const json_place *object, const char *name, json_place *value)
{
    *value = json_find(object, name);
    return value->value && !json_is_object(value->value) ? fail_type(value, "an object") : KIM_OK;
}

kim_err json_get_array(const json_place *object, const char *name, json_place *value)
{
    *value = json_find(object, name);
    return value->value && !json_is_array(value->value) ? fail_type(value, "an array") : KIM_OK;
}
