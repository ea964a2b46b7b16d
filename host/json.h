// SPDX-License-Identifier: MIT
// JSON documents: read whole, with cJSON, and trusted with nothing.
//
// Refused, besides what is no JSON: a name twice in one object, a string with a zero character in
// it, more than 64 levels, more than 2^23 values, more than 2^28 bytes. Every error names the file.
// What is handed out is valid as long as the document. Reading one from several threads is safe.
#ifndef KIM_JSON_H
#define KIM_JSON_H

#include "base.h"

typedef struct json_document json_document;
typedef struct cJSON json; // one value

kim_err json_open(json_document **out, const char *path);

// name: stands for the file in errors
kim_err json_open_memory(json_document **out, const void *text, uint64_t length, const char *name);
void json_close(json_document **d);

// Values by hand. NULL goes in as a value that has nothing.
const json *json_first(const json *list); // of an object or array; NULL: there is none
const json *json_next(const json *value); // in the same list
const char *json_name(const json *value); // in its object; "" in an array
const char *json_text(const json *value); // NULL: not a string
bool json_is_object(const json *value);
bool json_is_array(const json *value);
bool json_is_true(const json *value);
bool json_is_false(const json *value);

uint64_t json_count(const json *list); // values of an object or array

bool json_number(const json *value, double *out); // false: not a number

// False: not an integer of 0 .. most, which is 2^53 at the largest.
bool json_integer(const json *value, uint64_t most, uint64_t *out);

// A value, and what to call it in errors.
typedef struct json_place {
    const json *value; // NULL: absent, or null
    const char *path;  // of the file
    char name[120];    // "rope_scaling.factor"; "" at the top
} json_place;

json_place json_top(const json_document *d);

// The value of this name in an object; absent if it is none.
json_place json_find(const json_place *object, const char *name);

// Typed values of an object. An absent one is no error: *value, which may hold the default, stays
// as it is. One of another type or out of range is KIM_ERR_FORMAT.
// found: set to whether it is there; NULL: not wanted
kim_err json_get_u32(const json_place *object, const char *name, uint32_t *value, bool *found);
kim_err json_get_f32(const json_place *object, const char *name, float *value, bool *found);
kim_err json_get_bool(const json_place *object, const char *name, bool *value, bool *found);
kim_err json_get_text(const json_place *object, const char *name, const char **value, bool *found);

// An object in an object; absent if there is none.
kim_err json_get_object(const json_place *object, const char *name, json_place *value);
kim_err json_get_array(const json_place *object, const char *name, json_place *value);

#endif
