// SPDX-License-Identifier: MIT
// The conversation of kim chat: its messages, their tokens, and the file they are saved in.
#include "conversation.h"

#include <stdlib.h>
#include <string.h>

static const char file_format[] = "kimberlite conversation";
enum { FILE_VERSION = 1 };

static const char *const mode_names[] = {
    [MODE_TEMPLATE] = "template", [MODE_CONTINUE] = "continue"
};

const char *conversation_mode_name(conversation_mode mode)
{
    return mode_names[mode];
}

bool conversation_mode_parse(const char *name, conversation_mode *mode)
{
    for (int i = MODE_TEMPLATE; i <= MODE_CONTINUE; i++) {
        if (strcmp(name, mode_names[i]) == 0) {
            *mode = (conversation_mode)i;
            return true;
        }
    }
    return false;
}

void conversation_free(conversation *c)
{
    while (c->count)
        conversation_drop(c);
    free(c->messages);
    free(c->system);
    *c = (conversation){ 0 };
}

static uint32_t count_marks(const char *text)
{
    uint32_t n = 0;
    for (; (text = strstr(text, IMAGE_MARK)); text += strlen(IMAGE_MARK))
        n++;
    return n;
}

// So messages can be joined, and each picture stays in its own.
static char *marked(const char *text, uint32_t n_pictures)
{
    strbuf whole = { 0 };
    for (uint32_t n = count_marks(text); n < n_pictures; n++)
        strbuf_add(&whole, IMAGE_MARK, strlen(IMAGE_MARK));
    strbuf_add(&whole, text, strlen(text));
    return whole.data;
}

void conversation_add(conversation *c, bool assistant, const char *text, pictures *seen)
{
    if (c->count == c->room) {
        c->room = 2 * c->room + 8;
        c->messages = checked(realloc(c->messages, c->room * sizeof *c->messages));
    }
    conversation_message *m = &c->messages[c->count++];
    *m = (conversation_message){ .assistant = assistant,
                                 .text = marked(text, seen ? seen->count : 0) };
    if (seen)
        pictures_move(&m->seen, seen);
}

void conversation_drop(conversation *c)
{
    if (c->count) {
        free(c->messages[--c->count].text);
        pictures_free(&c->messages[c->count].seen);
    }
}

void conversation_set_system(conversation *c, const char *text)
{
    char *copy = text && *text ? checked(strdup(text)) : NULL;
    free(c->system);
    c->system = copy;
}

// ---------------------------------------------------------------------------------- tokens

kim_image **conversation_images(const conversation *c, uint32_t *count)
{
    kim_image **images;
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->count; i++)
        n += c->messages[i].seen.count;
    images = checked(calloc((size_t)n + 1, sizeof(kim_image *)));
    *count = 0;
    for (uint32_t i = 0; i < c->count; i++)
        for (uint32_t k = 0; k < c->messages[i].seen.count; k++)
            images[(*count)++] = c->messages[i].seen.list[k].image;
    return images;
}

// Special tokens that the user typed are text here too, but for the places of pictures.
static kim_err continue_tokens(const conversation *c, const kim_model *model,
                               kim_image *const *seen, uint32_t n_seen, int32_t **ids,
                               uint32_t *count)
{
    strbuf text = { 0 };
    strbuf_add(&text, "", 0);
    for (uint32_t i = 0; i < c->count; i++)
        strbuf_add(&text, c->messages[i].text, strlen(c->messages[i].text));
    kim_err err = kim_prompt_tokens(model,
                                    &(kim_text){
                                        .text = text.data,
                                        .length = text.length,
                                        .images = (const kim_image *const *)seen,
                                        .n_images = n_seen,
                                    },
                                    ids, count);
    strbuf_free(&text);
    return err;
}

// The template wants the roles in turn: what one of them said in several pieces is joined.
static kim_err template_tokens(const conversation *c, const kim_model *model,
                               kim_image *const *seen, int32_t **ids, uint32_t *count)
{
    kim_message *turns = checked(calloc((size_t)c->count + 1, sizeof *turns));
    strbuf *texts = checked(calloc((size_t)c->count + 1, sizeof *texts));
    uint32_t n = 0, n_texts = 0, n_seen = 0;
    if (c->system)
        turns[n++] = (kim_message){ .role = "system", .text = c->system };
    for (uint32_t i = 0; i < c->count; i++) {
        if (i == 0 || c->messages[i].assistant != c->messages[i - 1].assistant) {
            turns[n].images = (const kim_image *const *)seen + n_seen;
            turns[n++].role = c->messages[i].assistant ? "assistant" : "user";
            n_texts++;
        }
        strbuf_add(&texts[n_texts - 1], c->messages[i].text, strlen(c->messages[i].text));
        turns[n - 1].text = texts[n_texts - 1].data;
        turns[n - 1].n_images += c->messages[i].seen.count;
        n_seen += c->messages[i].seen.count;
    }
    kim_err err = kim_chat_tokens(model, turns, n, ids, count);
    for (uint32_t i = 0; i < n_texts; i++)
        strbuf_free(&texts[i]);
    free(texts);
    free(turns);
    return err;
}

kim_err conversation_tokens(const conversation *c, const kim_model *model, int32_t **ids,
                            uint32_t *count)
{
    uint32_t n;
    kim_image **images = conversation_images(c, &n);
    kim_err err = c->mode == MODE_CONTINUE ? continue_tokens(c, model, images, n, ids, count)
                                           : template_tokens(c, model, images, ids, count);
    free(images);
    return err;
}

// ------------------------------------------------------------------------------------ file

// A picture is saved by the name of its file, and what the model was shown of it.
static void add_pictures(cJSON *message, const pictures *seen)
{
    if (!seen->count)
        return;
    cJSON *list = cJSON_AddArrayToObject(message, "images");
    for (uint32_t i = 0; i < seen->count; i++) {
        const shown *p = &seen->list[i];
        char *absolute = realpath(p->path, NULL);
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "file", absolute ? absolute : p->path);
        cJSON_AddBoolToObject(object, "pan_and_scan", p->crops.on);
        cJSON_AddNumberToObject(object, "min_crop", p->crops.min_crop);
        cJSON_AddNumberToObject(object, "max_crops", p->crops.max_crops);
        cJSON_AddNumberToObject(object, "pan_ratio", (double)p->crops.ratio);
        cJSON_AddItemToArray(list, object);
        free(absolute);
    }
}

bool conversation_save(const conversation *c, const char *path)
{
    cJSON *json = checked(cJSON_CreateObject());
    cJSON_AddStringToObject(json, "format", file_format);
    cJSON_AddNumberToObject(json, "version", FILE_VERSION);
    cJSON_AddStringToObject(json, "mode", mode_names[c->mode]);
    cJSON_AddStringToObject(json, "system", c->system ? c->system : "");
    cJSON *messages = cJSON_AddArrayToObject(json, "messages");
    for (uint32_t i = 0; i < c->count; i++) {
        cJSON *message = cJSON_CreateObject();
        cJSON_AddStringToObject(message, "role", c->messages[i].assistant ? "assistant" : "user");
        cJSON_AddStringToObject(message, "text", c->messages[i].text);
        add_pictures(message, &c->messages[i].seen);
        cJSON_AddItemToArray(messages, message);
    }
    char *printed = checked(cJSON_Print(json));
    cJSON_Delete(json);
    bool saved = write_file(path, printed, strlen(printed));
    cJSON_free(printed);
    return saved;
}

static const char *string_field(const cJSON *object, const char *name)
{
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return value ? value : "";
}

// A count in a saved picture: 0 where there is none, or it is none.
static double number_field(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(value) && value->valuedouble > 0 && value->valuedouble < 1e6
               ? value->valuedouble
               : 0;
}

// NULL, or what is wrong.
static const char *read_pictures(pictures *seen, kim_model *model, const cJSON *message)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(message, "images"), *one;
    if (list && !cJSON_IsArray(list))
        return "the pictures of a message are no list";
    cJSON_ArrayForEach(one, list)
    {
        const kim_pan_and_scan crops = {
            .on = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(one, "pan_and_scan")),
            .min_crop = (uint32_t)number_field(one, "min_crop"),
            .max_crops = (uint32_t)number_field(one, "max_crops"),
            .ratio = (float)number_field(one, "pan_ratio"),
        };
        if (!*string_field(one, "file"))
            return "a picture has no name of a file";
        if (pictures_add(seen, model, string_field(one, "file"), &crops) != STATUS_OK)
            return "a picture of it cannot be shown";
    }
    return NULL;
}

static const char *read_messages(conversation *c, kim_model *model, const cJSON *json)
{
    const cJSON *messages = cJSON_GetObjectItemCaseSensitive(json, "messages");
    const cJSON *message;
    if (!cJSON_IsArray(messages))
        return "it has no list of messages";
    cJSON_ArrayForEach(message, messages)
    {
        const char *role = string_field(message, "role");
        bool assistant = strcmp(role, "assistant") == 0;
        if (!assistant && strcmp(role, "user") != 0)
            return "a message is neither of the user nor of the assistant";
        if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(message, "text")))
            return "a message has no text";
        pictures seen = { 0 };
        const char *problem = read_pictures(&seen, model, message);
        conversation_add(c, assistant, string_field(message, "text"), &seen);
        if (problem)
            return problem;
    }
    return c->count && c->messages[0].assistant ? "its first message is not of the user" : NULL;
}

static const char *read_conversation(conversation *c, kim_model *model, const cJSON *json)
{
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(json, "version");
    if (!json || strcmp(string_field(json, "format"), file_format) != 0)
        return "it is no conversation saved by kim chat";
    if (!cJSON_IsNumber(version) || version->valueint != FILE_VERSION)
        return "it is of another version of kim chat";
    if (!conversation_mode_parse(string_field(json, "mode"), &c->mode))
        return "its mode is neither template nor continue";
    conversation_set_system(c, string_field(json, "system"));
    return read_messages(c, model, json);
}

bool conversation_load(conversation *c, kim_model *model, const char *path)
{
    strbuf file = { 0 };
    if (!read_file(path, &file))
        return false;
    conversation fresh = { 0 };
    cJSON *json = cJSON_ParseWithLength(file.data, file.length);
    const char *problem = read_conversation(&fresh, model, json);
    cJSON_Delete(json);
    strbuf_free(&file);
    if (problem) {
        conversation_free(&fresh);
        fail("%s cannot be loaded: %s", path, problem);
        return false;
    }
    conversation_free(c);
    *c = fresh;
    return true;
}
