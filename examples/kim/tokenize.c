// SPDX-License-Identifier: MIT
// kim tokenize: stdin to token ids, or ids back to text.
#include "common.h"

#include <stdlib.h>

static struct {
    int json, decode, no_special;
} options;

static struct poptOption table[] = {
    INCLUDE_OPTIONS(model_options, NULL),
    { "decode", 'd', POPT_ARG_NONE, &options.decode, 0, "stdin is ids; give the text", NULL },
    { "no-special", '\0', POPT_ARG_NONE, &options.no_special, 0,
      "special tokens typed in the text are plain text; of ids, they are left out", NULL },
    { "json", '\0', POPT_ARG_NONE, &options.json, 0, "an array of ids; with --decode, a string",
      NULL },
    POPT_TABLEEND,
};

static int encode(const kim_model *model, const strbuf *input)
{
    int32_t *ids = NULL;
    uint32_t count = 0;
    if (kim_tokenize(model, input->data, input->length, !options.no_special, &ids, &count))
        return fail_library();
    int32_t bos = kim_model_get_info(model)->bos;
    int status;
    if (options.json) {
        cJSON *array = checked(cJSON_CreateArray());
        cJSON_AddItemToArray(array, cJSON_CreateNumber(bos));
        for (uint32_t i = 0; i < count; i++)
            cJSON_AddItemToArray(array, cJSON_CreateNumber(ids[i]));
        status = print_json(array);
    } else {
        char id[16];
        strbuf line = { 0 };
        strbuf_add(&line, id, (size_t)snprintf(id, sizeof id, "%d", (int)bos));
        for (uint32_t i = 0; i < count; i++)
            strbuf_add(&line, id, (size_t)snprintf(id, sizeof id, " %d", (int)ids[i]));
        strbuf_add(&line, "\n", 1);
        status = output_write(line.data, line.length) ? STATUS_OK : STATUS_FAILED;
        strbuf_free(&line);
    }
    kim_free(ids);
    return status;
}

static int print_text(const strbuf *bytes)
{
    if (!options.json)
        return output_write(bytes->data, bytes->length) ? STATUS_OK : STATUS_FAILED;
    char *valid = valid_utf8(bytes->data, bytes->length);
    int status = print_json(checked(cJSON_CreateString(valid)));
    free(valid);
    return status;
}

static int decode(const kim_model *model, const strbuf *input)
{
    int32_t *ids;
    uint32_t count;
    if (parse_ids("stdin", input->data, &ids, &count) != STATUS_OK)
        return STATUS_FAILED;
    const kim_model_info *info = kim_model_get_info(model);
    int status = STATUS_OK;
    strbuf bytes = { 0 };
    strbuf_add(&bytes, "", 0);
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        if ((uint32_t)ids[i] >= info->vocab) {
            status = fail("stdin: there is no token %d; the model has ids below %u", (int)ids[i],
                          info->vocab);
        } else if (i > 0 || ids[i] != info->bos) { // the first <bos> is not of the text
            size_t length;
            const char *piece = kim_token_bytes(model, ids[i], !options.no_special, &length);
            strbuf_add(&bytes, piece, length);
        }
    }
    if (status == STATUS_OK)
        status = print_text(&bytes);
    strbuf_free(&bytes);
    free(ids);
    return status;
}

int command_tokenize(int argc, const char **argv)
{
    int status = arguments_parse(
        &(arguments){
            .command = "kim tokenize",
            .synopsis = "-m MODEL [--decode] [--no-special] [--json] < FILE",
            .purpose =
                "Reads bytes from stdin and gives their token ids, <bos> first; or the reverse.\n"
                "Needs no GPU.",
            .options = table,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    opened o = { 0 };
    strbuf input = { 0 };
    status = open_model(&o);
    if (status == STATUS_OK && !read_file("-", &input))
        status = STATUS_FAILED;
    if (status == STATUS_OK)
        status = options.decode ? decode(o.model, &input) : encode(o.model, &input);
    strbuf_free(&input);
    return close_all(&o, status);
}
