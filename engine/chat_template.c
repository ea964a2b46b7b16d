// SPDX-License-Identifier: MIT
// Gemma 3's chat template:
//
//     <bos>
//     <start_of_turn>user\n[system text\n\n]text<end_of_turn>\n      the system's with the first
//     user <start_of_turn>model\ntext<end_of_turn>\n                      the assistant
//     ...
//     <start_of_turn>model\n
//
// and its processor's layout of a picture:
//
//     \n\n<start_of_image>(soft tokens)<end_of_image>\n\n
//
// with pan and scan "Here is the original image " and the picture, then " and here are some crops
// to help you see better " and the crops with spaces between.
//
// What stands between two special tokens is tokenized as one text, so that newlines at the seams
// join as they do when the published tokenizer is given the whole.
#include "chat_template.h"

#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "host/error.h"

static const char image_marker[] = "<start_of_image>";

typedef struct text_span {
    const char *text;
    size_t length;
} text_span;

// Bytes of the space that the text begins with, or ends with if `at_end`; 0: none. These are the
// characters that Python's str.strip() takes, which is Jinja's trim.
static size_t space_at(text_span s, bool at_end)
{
    static const char *const spaces[] = {
        "\t",           "\n",           "\v",           "\f",           "\r",
        "\x1C",         "\x1D",         "\x1E",         "\x1F",         " ",
        "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
        "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
        "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
        "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80",
    };
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        size_t n = strlen(spaces[i]);
        if (n <= s.length && !memcmp(s.text + (at_end ? s.length - n : 0), spaces[i], n))
            return n;
    }
    return 0;
}

static text_span trim(const char *text)
{
    text_span s = { text, strlen(text) };
    for (size_t n; (n = space_at(s, false)) > 0; s.length -= n)
        s.text += n;
    for (size_t n; (n = space_at(s, true)) > 0;)
        s.length -= n;
    return s;
}

// Roles and their order.
static kim_err check_messages(const kim_message *messages, uint32_t count)
{
    static const char *const names[] = { "system", "user", "assistant" };
    bool system = count && messages[0].role && !strcmp(messages[0].role, "system");
    if (count <= system)
        return kim_fail(KIM_ERR_ARGUMENT, "the conversation has no user message");
    for (uint32_t i = 0; i < count; i++) {
        if (!messages[i].role || !messages[i].text)
            return kim_fail(KIM_ERR_ARGUMENT, "message %u of the conversation has no %s", i + 1,
                            messages[i].role ? "text" : "role");
        if (messages[i].n_images && !messages[i].images)
            return kim_fail(KIM_ERR_ARGUMENT, "message %u of the conversation lacks its pictures",
                            i + 1);
        const char *role = messages[i].role;
        const char *expected = system && i == 0 ? names[0] : names[1 + (i - system) % 2];
        if (strcmp(role, names[0]) && strcmp(role, names[1]) && strcmp(role, names[2]))
            return kim_fail(KIM_ERR_ARGUMENT,
                            "message %u of the conversation has the role \"%.32s\", roles are "
                            "system, user, and assistant",
                            i + 1, role);
        if (strcmp(role, expected))
            return kim_fail(KIM_ERR_ARGUMENT,
                            "message %u of the conversation is of the %s, expected the %s: after "
                            "an optional system message user and assistant take turns",
                            i + 1, role, expected);
    }
    return KIM_OK;
}

// ------------------------------------------------------------------------------------ writer

// Tokens, and text that is to become some once it is whole.
typedef struct writer {
    const kim_model *m;
    bool special; // special tokens in the text become their ids
    token_list list;
    char *text;
    size_t length, room;
} writer;

static kim_err write_text(writer *w, const char *text, size_t length)
{
    kim_err err = KIM_OK;
    if (w->length + length > w->room) {
        const size_t room = 2 * w->room + length + 64;
        char *grown = realloc(w->text, room);
        REQUIRE_MEMORY(grown);
        w->text = grown;
        w->room = room;
    }
    if (length)
        memcpy(w->text + w->length, text, length);
    w->length += length;
error:
    return err;
}

static kim_err write_string(writer *w, const char *text)
{
    return write_text(w, text, strlen(text));
}

static kim_err flush_text(writer *w)
{
    kim_err err = KIM_OK;
    if (w->length)
        TRY(tokenizer_append(w->m->tokens, w->text, w->length, w->special, &w->list));
    w->length = 0;
error:
    return err;
}

static kim_err write_id(writer *w, int32_t id)
{
    kim_err err = KIM_OK;
    TRY(flush_text(w));
    TRY(token_list_push(&w->list, id));
error:
    return err;
}

static kim_err write_tile(writer *w)
{
    kim_err err = KIM_OK;
    const kim_model_info *info = &w->m->info;
    TRY(write_string(w, "\n\n"));
    TRY(write_id(w, info->start_of_image));
    for (uint32_t i = 0; i < info->image_tokens; i++)
        TRY(write_id(w, info->image_token));
    TRY(write_id(w, info->end_of_image));
    TRY(write_string(w, "\n\n"));
error:
    return err;
}

static kim_err write_image(writer *w, const kim_image *image)
{
    kim_err err = KIM_OK;
    if (!image || image->model != w->m || !image->soft)
        FAIL(KIM_ERR_ARGUMENT, "a picture of the prompt was not encoded for this model");
    if (image->tiles.count > 1)
        TRY(write_string(w, "Here is the original image "));
    TRY(write_tile(w));
    for (uint32_t i = 1; i < image->tiles.count; i++) {
        TRY(write_string(w, i == 1 ? " and here are some crops to help you see better " : " "));
        TRY(write_tile(w));
    }
error:
    return err;
}

static const char *find_marker(text_span s)
{
    const size_t n = sizeof image_marker - 1;
    for (size_t i = 0; i + n <= s.length; i++)
        if (!memcmp(s.text + i, image_marker, n))
            return s.text + i;
    return NULL;
}

// A text with pictures where it marks them, those without a mark before it.
static kim_err write_with_images(writer *w, text_span text, const kim_image *const *images,
                                 uint32_t n_images)
{
    kim_err err = KIM_OK;
    uint32_t marks = 0, next = 0;
    const char *const end = text.text + text.length, *mark;
    for (text_span rest = text; marks < n_images && (mark = find_marker(rest)); marks++) {
        rest.text = mark + sizeof image_marker - 1;
        rest.length = (size_t)(end - rest.text);
    }
    while (next < n_images - marks)
        TRY(write_image(w, images[next++]));
    for (; next < n_images; next++) {
        mark = find_marker(text);
        TRY(write_text(w, text.text, (size_t)(mark - text.text)));
        TRY(write_image(w, images[next]));
        text.text = mark + sizeof image_marker - 1;
        text.length = (size_t)(end - text.text);
    }
    TRY(write_text(w, text.text, text.length));
error:
    return err;
}

// <start_of_turn>role\n[prefix\n\n]text<end_of_turn>\n
static kim_err write_turn(writer *w, const kim_message *message, const char *prefix)
{
    kim_err err = KIM_OK;
    const tokenizer_ids *special = tokenizer_get_ids(w->m->tokens);
    TRY(write_id(w, special->start_of_turn));
    TRY(write_string(w, strcmp(message->role, "assistant") ? "user\n" : "model\n"));
    if (prefix) {
        TRY(write_string(w, prefix));
        TRY(write_string(w, "\n\n"));
    }
    TRY(write_with_images(w, trim(message->text), message->images, message->n_images));
    TRY(write_id(w, special->end_of_turn));
    TRY(write_string(w, "\n"));
error:
    return err;
}

// Hands out the ids after success, and frees what is left in any case.
static kim_err writer_end(writer *w, kim_err err, int32_t **ids, uint32_t *n_ids)
{
    if (!err)
        err = flush_text(w);
    if (err)
        free(w->list.ids);
    *ids = err ? NULL : w->list.ids;
    *n_ids = err ? 0 : w->list.count;
    free(w->text);
    return err;
}

kim_err chat_tokens(const kim_model *m, const kim_message *messages, uint32_t count, int32_t **ids,
                    uint32_t *n_ids)
{
    kim_err err = KIM_OK;
    writer w = { .m = m };
    const tokenizer_ids *special = tokenizer_get_ids(m->tokens);
    if (special->start_of_turn < 0 || special->end_of_turn < 0)
        FAIL(KIM_ERR_UNSUPPORTED,
             "the model's vocabulary has no <start_of_turn> and <end_of_turn>: it cannot converse");
    TRY(check_messages(messages, count));
    TRY(write_id(&w, special->bos));
    const uint32_t first = !strcmp(messages[0].role, "system");
    for (uint32_t i = first; i < count; i++)
        TRY(write_turn(&w, &messages[i], first && i == first ? messages[0].text : NULL));
    TRY(write_id(&w, special->start_of_turn));
    TRY(write_string(&w, "model\n"));
error:
    return writer_end(&w, err, ids, n_ids);
}

kim_err prompt_tokens(const kim_model *m, const kim_text *text, int32_t **ids, uint32_t *n_ids)
{
    kim_err err = KIM_OK;
    writer w = { .m = m, .special = text->special };
    TRY(write_id(&w, tokenizer_get_ids(m->tokens)->bos));
    TRY(write_with_images(&w, (text_span){ text->text, text->length }, text->images,
                          text->n_images));
error:
    return writer_end(&w, err, ids, n_ids);
}
