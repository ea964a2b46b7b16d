// SPDX-License-Identifier: MIT
// The vocabulary in a tokenizer.json. It is SentencePiece's, exported: every merge of two tokens to
// a token is in the list of merges, in the order of the ids of what they make. That is checked
// here, and then the list is not needed: an id is its own score.
#include "tokenizer.h"

#include "host/error.h"
#include "host/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MERGE = 1024 }; // bytes; the longest published has 93

typedef struct vocabulary {
    gguf_string *texts; // [room]
    float *scores;
    int32_t *types;
    uint32_t count, room;
} vocabulary;

// --------------------------------------------------------------------------------- the settings

// A value that must be this text, or, with NULL, absent, false, 0 or empty.
static kim_err check_text(const json_place *object, const char *name, const char *expected)
{
    const json_place p = json_find(object, name);
    const char *text = json_text(p.value);
    uint64_t zero;
    if (expected ? text && !strcmp(text, expected)
                 : !p.value || (text && !*text) || json_is_false(p.value) ||
                       json_integer(p.value, 0, &zero))
        return KIM_OK;
    return kim_fail(KIM_ERR_UNSUPPORTED, "%s: %s is %.40s; only %s is supported", p.path, p.name,
                    text      ? text
                    : p.value ? "set"
                              : "absent",
                    expected ? expected : "none");
}

// Spaces become U+2581, and nothing else happens to the text.
static kim_err check_settings(const json_place *top, json_place *model)
{
    kim_err err = KIM_OK;
    json_place normalizer, splitter, pattern;
    TRY(json_get_object(top, "model", model));
    TRY(check_text(model, "type", "BPE"));
    if (!json_is_true(json_find(model, "byte_fallback").value))
        FAIL(KIM_ERR_UNSUPPORTED, "%s: model.byte_fallback is not true", top->path);
    TRY(check_text(model, "ignore_merges", NULL));
    TRY(check_text(model, "dropout", NULL));
    TRY(check_text(model, "continuing_subword_prefix", NULL));
    TRY(check_text(model, "end_of_word_suffix", NULL));

    TRY(json_get_object(top, "normalizer", &normalizer));
    TRY(check_text(&normalizer, "type", "Replace"));
    TRY(json_get_object(&normalizer, "pattern", &pattern));
    TRY(check_text(&pattern, "String", " "));
    TRY(check_text(&normalizer, "content", "\xE2\x96\x81"));

    TRY(json_get_object(top, "pre_tokenizer", &splitter));
    if (splitter.value) { // at spaces, of which there are none any more
        TRY(check_text(&splitter, "type", "Split"));
        TRY(check_text(&splitter, "invert", NULL));
        TRY(json_get_object(&splitter, "pattern", &pattern));
        TRY(check_text(&pattern, "String", " "));
    }
error:
    return err;
}

// ---------------------------------------------------------------------------------- the tokens

static kim_err make_room(vocabulary *v, const json *tokens, const json *added)
{
    kim_err err = KIM_OK;
    for (; tokens; tokens = json_next(tokens))
        v->room++;
    for (; added; added = json_next(added))
        v->room++;
    v->texts = calloc(v->room + 1, sizeof *v->texts);
    v->scores = calloc(v->room + 1, sizeof *v->scores);
    v->types = calloc(v->room + 1, sizeof *v->types);
    REQUIRE_MEMORY(v->texts && v->scores && v->types);
    for (uint32_t i = 0; i < v->room; i++) {
        v->texts[i] = (gguf_string){ "", 0 };
        v->scores[i] = -(float)i; // exact up to 2^24; there are not as many values in a file
        v->types[i] = TOKEN_UNUSED;
    }
error:
    return err;
}

static kim_err add_token(vocabulary *v, const char *path, const char *text, const json *id,
                         int32_t type)
{
    kim_err err = KIM_OK;
    uint64_t i;
    if (!id || !json_integer(id, v->room - 1, &i))
        FAIL(KIM_ERR_FORMAT, "%s: the id of the token '%.40s' is not an integer below %u", path,
             text, v->room);
    const bool taken = v->types[i] != TOKEN_UNUSED;
    const bool same = v->texts[i].length == strlen(text) && !strcmp(v->texts[i].data, text);
    // an added token may be in the vocabulary too
    if (taken && (!same || type == TOKEN_NORMAL || type == TOKEN_BYTE))
        FAIL(KIM_ERR_FORMAT, "%s: the tokens '%.40s' and '%.40s' both have the id %u", path,
             v->texts[i].data, text, (uint32_t)i);
    v->texts[i] = (gguf_string){ text, strlen(text) };
    v->types[i] = type;
    if (v->count <= i)
        v->count = (uint32_t)i + 1;
error:
    return err;
}

static bool is_byte(const char *text)
{
    return strlen(text) == 6 && !memcmp(text, "<0x", 3) && text[5] == '>';
}

static kim_err add_added(vocabulary *v, const char *path, const json *item)
{
    static const char *const flags[] = { "single_word", "lstrip", "rstrip", "normalized" };
    kim_err err = KIM_OK;
    const json_place token = { .value = item, .path = path, .name = "added_tokens" };
    const char *text = NULL;
    bool special = false;
    TRY(json_get_text(&token, "content", &text, NULL));
    TRY(json_get_bool(&token, "special", &special, NULL));
    if (!text || !*text)
        FAIL(KIM_ERR_FORMAT, "%s: one of added_tokens has no content", path);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool set = false;
        TRY(json_get_bool(&token, flags[i], &set, NULL));
        if (set)
            FAIL(KIM_ERR_UNSUPPORTED, "%s: the added token '%.40s' is %s, which is not supported",
                 path, text, flags[i]);
    }
    TRY(add_token(v, path, text, json_find(&token, "id").value,
                  special ? TOKEN_CONTROL : TOKEN_USER_DEFINED));
error:
    return err;
}

static kim_err read_tokens(vocabulary *v, const json_place *top, const json_place *model)
{
    kim_err err = KIM_OK;
    json_place tokens, added;
    TRY(json_get_object(model, "vocab", &tokens));
    TRY(json_get_array(top, "added_tokens", &added));
    if (!json_first(tokens.value))
        FAIL(KIM_ERR_FORMAT, "%s: model.vocab is missing or empty", top->path);
    TRY(make_room(v, json_first(tokens.value), json_first(added.value)));
    for (const json *t = json_first(tokens.value); t; t = json_next(t))
        TRY(add_token(v, top->path, json_name(t), t,
                      is_byte(json_name(t)) ? TOKEN_BYTE : TOKEN_NORMAL));
    for (const json *t = json_first(added.value); t; t = json_next(t))
        TRY(add_added(v, top->path, t));
error:
    return err;
}

// ---------------------------------------------------------------------------------- the merges

typedef struct merges {
    const tokenizer *t;
    const char *path;
    int32_t last;       // what the last merge made; -1: no ordinary piece yet
    uint32_t last_left; // bytes of its left half
    uint32_t count;     // of ordinary pieces
} merges;

// Its halves one after the other: ["a", "b"], or "a b".
static kim_err read_merge(const char *path, const json *item, char *text, uint32_t *left,
                          uint32_t *length)
{
    const json *first = json_first(item), *second = first ? json_next(first) : NULL;
    const char *a = json_text(json_is_array(item) ? first : item), *b = json_text(second);
    const char *space = a && !json_is_array(item) ? strchr(a, ' ') : NULL;
    if (space)
        b = space + 1;
    const size_t a_length = space ? (size_t)(space - a) : a ? strlen(a) : 0;
    if (!a || !b || !a_length || !*b || a_length + strlen(b) > MAX_MERGE)
        return kim_fail(KIM_ERR_FORMAT,
                        "%s: one of model.merges is not of two texts of together %d "
                        "bytes at most",
                        path, MAX_MERGE);
    *left = tokenizer_copy_marked(text, a, a_length);
    *length = *left + tokenizer_copy_marked(text + *left, b, strlen(b));
    return KIM_OK;
}

static kim_err check_merge(merges *m, const json *item)
{
    kim_err err = KIM_OK;
    char text[MAX_MERGE];
    uint32_t left = 0, length = 0;
    TRY(read_merge(m->path, item, text, &left, &length));
    const int32_t whole = tokenizer_find(m->t, text, length);
    // What makes an added token, or is made of one, never happens: these are cut out before.
    if (whole < 0 || tokenizer_find(m->t, text, left) < 0 ||
        tokenizer_find(m->t, text + left, length - left) < 0)
        return KIM_OK;
    const bool piece = tokenizer_is_piece(m->t, whole);
    // runs of spaces go first, then the ids, of one id the longer left half
    if (piece ? whole < m->last || (whole == m->last && left >= m->last_left) : m->last >= 0)
        FAIL(
            KIM_ERR_UNSUPPORTED,
            "%s: the merge that makes token %d comes after one that makes token %d; only the order "
            "of SentencePiece is supported",
            m->path, whole, m->last);
    if (piece) {
        m->last = whole;
        m->last_left = left;
        m->count++;
    }
error:
    return err;
}

// Ways to make a piece of two that BPE knows.
static uint32_t count_splits(const tokenizer *t, const char *text, size_t length)
{
    uint32_t count = 0;
    for (uint32_t k = 1; k < length; k++) {
        const bool inside = ((unsigned char)text[k] & 0xC0) == 0x80; // a character
        if (!inside && tokenizer_find(t, text, k) >= 0)
            count += tokenizer_find(t, text + k, (uint32_t)length - k) >= 0;
    }
    return count;
}

static kim_err check_merges(const tokenizer *t, const json_place *model)
{
    kim_err err = KIM_OK;
    merges m = { .t = t, .path = model->path, .last = -1 };
    json_place list;
    uint32_t expected = 0;
    TRY(json_get_array(model, "merges", &list));
    for (const json *item = json_first(list.value); item; item = json_next(item))
        TRY(check_merge(&m, item));
    for (uint32_t i = 0; i < tokenizer_vocab(t); i++) {
        size_t length;
        const char *text = tokenizer_bytes(t, (int32_t)i, false, &length);
        if (!tokenizer_is_piece(t, (int32_t)i))
            continue;
        if (length > MAX_MERGE)
            FAIL(KIM_ERR_UNSUPPORTED, "%s: token %u has %zu bytes; at most %d are supported",
                 model->path, i, length, MAX_MERGE);
        expected += count_splits(t, text, length);
    }
    if (m.count != expected)
        FAIL(
            KIM_ERR_UNSUPPORTED,
            "%s: model.merges has %u merges of ordinary tokens, but there are %u ways to make them "
            "of two; only all of them, as of SentencePiece, are supported",
            m.path, m.count, expected);
error:
    return err;
}

kim_err tokenizer_create_from_json(tokenizer **out, const char *path)
{
    kim_err err = KIM_OK;
    json_document *d = NULL;
    vocabulary v = { 0 };
    json_place model;
    *out = NULL;
    TRY(json_open(&d, path));
    const json_place top = json_top(d);
    TRY(check_settings(&top, &model));
    TRY(read_tokens(&v, &top, &model));
    err = tokenizer_create(out, &(tokenizer_params){ .count = v.count,
                                                     .texts = v.texts,
                                                     .scores = v.scores,
                                                     .types = v.types,
                                                     .bos = -1,
                                                     .eos = -1 });
    if (err) {
        kim_fail_prefix(err, path);
        goto error;
    }
    TRY(check_merges(*out, &model));
error:
    if (err)
        tokenizer_destroy(out);
    free(v.texts);
    free(v.scores);
    free(v.types);
    json_close(&d);
    return err;
}
