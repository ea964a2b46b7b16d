// SPDX-License-Identifier: MIT
// The vocabulary in the keys of a GGUF file.
#include "tokenizer.h"

#include "host/error.h"

#include <stdlib.h>
#include <string.h>

// Things that the published tokenizer of Gemma 3 does not do, and that are not done here.
static kim_err check_keys(const gguf *g)
{
    kim_err err = KIM_OK;
    gguf_string model = { 0 };
    bool found, space_prefix = false;
    TRY(gguf_get_string(g, "tokenizer.ggml.model", &model, &found));
    if (!found)
        FAIL(KIM_ERR_FORMAT, "%s: has no tokenizer: the key tokenizer.ggml.model is absent",
             gguf_path(g));
    if (model.length != 5 || memcmp(model.data, "llama", 5))
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: tokenizer.ggml.model is \"%.*s\", only \"llama\" (SentencePiece) is supported",
             gguf_path(g), model.length < 64 ? (int)model.length : 64, model.data);
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &space_prefix, NULL));
    if (space_prefix)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: tokenizer.ggml.add_space_prefix is true, only false is supported", gguf_path(g));
error:
    return err;
}

static kim_err check_count(const gguf *g, const char *name, uint64_t count, uint64_t n_tokens)
{
    if (count == n_tokens)
        return KIM_OK;
    return kim_fail(KIM_ERR_FORMAT, "%s: %s has %llu items, but tokenizer.ggml.tokens has %llu",
                    gguf_path(g), name, (unsigned long long)count, (unsigned long long)n_tokens);
}

static kim_err get_named(const gguf *g, const char *name, int32_t *id)
{
    bool found;
    kim_err err = gguf_get_i32(g, name, id, &found);
    if (!err && found && *id < 0)
        err = kim_fail(KIM_ERR_FORMAT, "%s: %s is %d, an id is 0 or more", gguf_path(g), name, *id);
    return err;
}

kim_err tokenizer_create_from_gguf(tokenizer **out, const gguf *g)
{
    kim_err err = KIM_OK;
    gguf_string *texts = NULL;
    float *scores = NULL;
    int32_t *types = NULL;
    uint64_t count, n_scores, n_types;
    tokenizer_params params = { .bos = -1, .eos = -1 };
    *out = NULL;

    TRY(check_keys(g));
    TRY(gguf_get_array_strings(g, "tokenizer.ggml.tokens", &texts, &count, NULL));
    TRY(gguf_get_array_f32(g, "tokenizer.ggml.scores", &scores, &n_scores, NULL));
    TRY(gguf_get_array_i32(g, "tokenizer.ggml.token_type", &types, &n_types, NULL));
    if (count == 0 || count > UINT32_MAX)
        FAIL(KIM_ERR_FORMAT, "%s: tokenizer.ggml.tokens has %llu items, expected a vocabulary",
             gguf_path(g), (unsigned long long)count);
    TRY(check_count(g, "tokenizer.ggml.scores", n_scores, count));
    TRY(check_count(g, "tokenizer.ggml.token_type", n_types, count));
    TRY(get_named(g, "tokenizer.ggml.bos_token_id", &params.bos));
    TRY(get_named(g, "tokenizer.ggml.eos_token_id", &params.eos));

    params.count = (uint32_t)count;
    params.texts = texts;
    params.scores = scores;
    params.types = types;
    err = tokenizer_create(out, &params);
    if (err)
        kim_fail_prefix(err, gguf_path(g));
error:
    free(texts);
    free(scores);
    free(types);
    return err;
}
