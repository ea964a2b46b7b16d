// SPDX-License-Identifier: MIT
// Gemma 3's chat template:
//
//     <bos>
//     <start_of_turn>user\n[system text\n\n]text<end_of_turn>\n      the system's with the first
//     user <start_of_turn>model\ntext<end_of_turn>\n                      the assistant
//     ...
//     <start_of_turn>model\n
//
// What stands between two special tokens is tokenized as one text, so that newlines at the seams
// join as they do when the published tokenizer is given the whole.
#include "chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "host/error.h"

typedef struct span {
    const char *text;
    size_t length;
} span;

// Bytes of the space that the text begins with, or ends with if `at_end`; 0: none. These are the
// characters that Python's str.strip() takes, which is Jinja's trim.
static size_t space_at(span s, bool at_end)
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

static span trim(const char *text)
{
    span s = { text, strlen(text) };
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

// <start_of_turn>role\n[prefix\n\n]text<end_of_turn>\n
static kim_err add_turn(const tokenizer *t, const kim_message *message, const char *prefix,
                        token_list *list)
{
    kim_err err = KIM_OK;
    const tokenizer_ids *special = tokenizer_get_ids(t);
    const char *role = strcmp(message->role, "assistant") ? "user\n" : "model\n";
    span text = trim(message->text);
    size_t role_length = strlen(role), prefix_length = prefix ? strlen(prefix) : 0;
    char *whole = malloc(role_length + prefix_length + 2 + text.length), *end = whole;
    REQUIRE_MEMORY(whole);

    memcpy(end, role, role_length);
    end += role_length;
    if (prefix) {
        memcpy(end, prefix, prefix_length);
        memcpy(end + prefix_length, "\n\n", 2);
        end += prefix_length + 2;
    }
    memcpy(end, text.text, text.length);
    end += text.length;

    TRY(token_list_push(list, special->start_of_turn));
    TRY(tokenizer_append(t, whole, (size_t)(end - whole), false, list));
    TRY(token_list_push(list, special->end_of_turn));
    TRY(tokenizer_append(t, "\n", 1, false, list));
error:
    free(whole);
    return err;
}

kim_err chat_tokens(const tokenizer *t, const kim_message *messages, uint32_t count, int32_t **ids,
                    uint32_t *n_ids)
{
    kim_err err = KIM_OK;
    token_list list = { 0 };
    const tokenizer_ids *special = tokenizer_get_ids(t);
    static const char opening[] = "model\n";
    *ids = NULL;
    *n_ids = 0;

    if (special->start_of_turn < 0 || special->end_of_turn < 0)
        FAIL(KIM_ERR_UNSUPPORTED,
             "the model's vocabulary has no <start_of_turn> and <end_of_turn>: it cannot converse");
    TRY(check_messages(messages, count));
    TRY(token_list_push(&list, special->bos));
    uint32_t first = !strcmp(messages[0].role, "system");
    for (uint32_t i = first; i < count; i++)
        TRY(add_turn(t, &messages[i], first && i == first ? messages[0].text : NULL, &list));
    TRY(token_list_push(&list, special->start_of_turn));
    TRY(tokenizer_append(t, opening, sizeof opening - 1, false, &list));
    *ids = list.ids;
    *n_ids = list.count;
    return KIM_OK;
error:
    free(list.ids);
    return err;
}
