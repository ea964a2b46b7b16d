// SPDX-License-Identifier: MIT
// kim logits: the greedy continuation of a prompt with log-probabilities.
#include "pictures.h"
#include "trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOP_MOST = 1000 };

static struct {
    char *prompt, *prompt_file, *ids;
    int steps, top, raw, json, trace;
} options = { .steps = 16, .top = 5 };

static struct poptOption table[] = {
    INCLUDE_OPTIONS(model_options, NULL),
    INCLUDE_OPTIONS(picture_options, NULL),
    { "prompt", 'p', POPT_ARG_STRING, &options.prompt, 0, "the prompt", "TEXT" },
    { "prompt-file", '\0', POPT_ARG_STRING, &options.prompt_file, 0,
      "a file with the prompt (-: stdin)", "FILE" },
    { "ids", '\0', POPT_ARG_STRING, &options.ids, 0,
      "the prompt as token ids, taken exactly as given", "2,818,…" },
    { "raw", '\0', POPT_ARG_NONE, &options.raw, 0,
      "no chat template: the text with <bos> before it; special tokens in it are recognised",
      NULL },
    { "predict", 'n', POPT_ARG_INT, &options.steps, 0, "tokens to continue by (default 16)", "N" },
    { "top", '\0', POPT_ARG_INT, &options.top, 0,
      "the most probable tokens of each step (default 5)", "K" },
    { "json", '\0', POPT_ARG_NONE, &options.json, 0, "all numbers, for a program", NULL },
    { "trace", '\0', POPT_ARG_NONE, &options.trace, 0,
      "show each command of the device on stderr, as it has run", NULL },
    INCLUDE_OPTIONS(session_options, NULL),
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

typedef struct candidate {
    int32_t id;
    float logprob;
} candidate;

// One step of the continuation.
typedef struct step {
    candidate chosen;
    char *text;     // what became complete with this token
    candidate *top; // [n_top], falling
    uint32_t n_top;
} step;

typedef struct result {
    pictures seen;
    kim_image **images; // of `seen`
    int32_t *ids;       // [n_ids] of the prompt
    uint32_t n_ids;
    float *nll;  // [n_ids - 1] of a soft token NAN
    step *steps; // [n_steps]
    uint32_t n_steps;
} result;

// ---------------------------------------------------------------------------------- prompt

static kim_err text_ids(const kim_model *model, const strbuf *prompt, result *r)
{
    const kim_image *const *images = (const kim_image *const *)r->images;
    int32_t *ids;
    const kim_message message = {
        .role = "user", .text = prompt->data, .images = images, .n_images = r->seen.count
    };
    const kim_text text = { prompt->data, prompt->length, true, images, r->seen.count };
    kim_err err = options.raw ? kim_prompt_tokens(model, &text, &ids, &r->n_ids)
                              : kim_chat_tokens(model, &message, 1, &ids, &r->n_ids);
    if (err)
        return err;
    r->ids = checked(malloc(r->n_ids * sizeof *r->ids));
    memcpy(r->ids, ids, r->n_ids * sizeof *ids);
    kim_free(ids);
    return KIM_OK;
}

static int make_prompt(kim_model *model, result *r)
{
    double seconds;
    if (pictures_add_given(&r->seen, model) != STATUS_OK)
        return STATUS_FAILED;
    r->images = pictures_images(&r->seen);
    if (pictures_encode(r->images, r->seen.count, model, &seconds))
        return fail_library();
    if (options.ids)
        return STATUS_OK; // from check_options
    strbuf prompt = { 0 };
    if (options.prompt_file) {
        if (!read_file(options.prompt_file, &prompt))
            return STATUS_FAILED;
    } else {
        strbuf_add(&prompt, options.prompt, strlen(options.prompt));
    }
    int status = STATUS_OK;
    if (!options.raw && strlen(prompt.data) != prompt.length)
        status = fail("the prompt has a zero byte, which the chat template cannot take; use --raw");
    else if (text_ids(model, &prompt, r))
        status = fail_library();
    strbuf_free(&prompt);
    return status;
}

// -------------------------------------------------------------------------------- computing

// The log of the sum over all of e^logit.
static double log_sum(const float *logits, uint32_t n)
{
    float most = logits[0];
    for (uint32_t i = 1; i < n; i++)
        most = fmaxf(most, logits[i]);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - (double)most);
    return (double)most + log(sum);
}

static void find_top(step *s, const float *logits, uint32_t n)
{
    uint32_t most = (uint32_t)options.top < n ? (uint32_t)options.top : n;
    double total = log_sum(logits, n);
    s->top = checked(calloc(most + 1, sizeof *s->top));
    for (uint32_t i = 0; i < n && most; i++) {
        if (s->n_top == most && logits[i] <= s->top[most - 1].logprob)
            continue;
        uint32_t at = s->n_top < most ? s->n_top++ : most - 1;
        for (; at > 0 && s->top[at - 1].logprob < logits[i]; at--)
            s->top[at] = s->top[at - 1];
        s->top[at].id = (int32_t)i;
        s->top[at].logprob = logits[i];
    }
    for (uint32_t i = 0; i < s->n_top; i++)
        s->top[i].logprob = (float)((double)s->top[i].logprob - total);
}

static char *step_text(const kim_model *model, kim_utf8 *state, int32_t id, bool last)
{
    size_t length;
    const char *bytes = kim_token_bytes(model, id, true, &length);
    char *out = checked(malloc(3 * (length + 4) + 3 * 4 + 1));
    size_t n = length ? kim_utf8_feed(state, bytes, length, out) : 0;
    if (last && state->n_held)
        n += kim_utf8_feed(state, NULL, 0, out + n);
    out[n] = '\0';
    return out;
}

static kim_err run_steps(const opened *o, kim_sampler *sampler, result *r)
{
    kim_utf8 state = { 0 };
    uint32_t vocab = kim_model_get_info(o->model)->vocab;
    for (uint32_t i = 0; i < (uint32_t)options.steps; i++) {
        step *s = &r->steps[r->n_steps];
        kim_err err = kim_sample(sampler, o->session, &s->chosen.id, &s->chosen.logprob);
        if (err)
            return err;
        find_top(s, kim_session_logits(o->session), vocab);
        bool last = i + 1 == (uint32_t)options.steps || kim_token_ends(o->model, s->chosen.id);
        s->text = step_text(o->model, &state, s->chosen.id, last);
        r->n_steps++;
        if (last)
            break;
        err = kim_session_append(o->session, &s->chosen.id, 1);
        if (err)
            return err;
    }
    return KIM_OK;
}

static int compute(const opened *o, result *r)
{
    kim_score *scores = checked(calloc(r->n_ids, sizeof *scores));
    r->nll = checked(calloc(r->n_ids, sizeof *r->nll));
    r->steps = checked(calloc((size_t)options.steps + 1, sizeof *r->steps));
    kim_sampler *sampler = NULL;
    const kim_model_info *info = kim_model_get_info(o->model);
    const kim_prompt prompt = {
        .tokens = r->ids,
        .count = r->n_ids,
        .images = (const kim_image *const *)r->images,
        .n_images = r->seen.count,
    };
    kim_err err = kim_session_read(o->session, &prompt, scores);
    for (uint32_t i = 0; !err && i + 1 < r->n_ids; i++)
        r->nll[i] =
            info->vision && r->ids[i + 1] == info->image_token ? NAN : -scores[i].next_logprob;
    if (!err)
        err = kim_sampler_create(&sampler, &(kim_sampling){ .greedy = true });
    if (!err)
        err = run_steps(o, sampler, r);
    kim_sampler_destroy(&sampler);
    free(scores);
    return err ? fail_library() : STATUS_OK;
}

// --------------------------------------------------------------------------------- printing

static int print_result_json(const result *r)
{
    cJSON *json = checked(cJSON_CreateObject());
    cJSON *ids = cJSON_AddArrayToObject(json, "prompt_ids");
    for (uint32_t i = 0; i < r->n_ids; i++)
        cJSON_AddItemToArray(ids, cJSON_CreateNumber(r->ids[i]));
    cJSON *nll = cJSON_AddArrayToObject(json, "nll");
    for (uint32_t i = 0; i + 1 < r->n_ids; i++)
        cJSON_AddItemToArray(nll, isnan(r->nll[i]) ? cJSON_CreateNull() : json_float(r->nll[i]));
    cJSON *steps = cJSON_AddArrayToObject(json, "steps");
    for (uint32_t i = 0; i < r->n_steps; i++) {
        const step *s = &r->steps[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddNumberToObject(object, "id", s->chosen.id);
        cJSON_AddStringToObject(object, "text", s->text);
        cJSON_AddItemToObject(object, "logprob", json_float(s->chosen.logprob));
        cJSON *top = cJSON_AddArrayToObject(object, "top");
        for (uint32_t k = 0; k < s->n_top; k++) {
            cJSON *entry = cJSON_CreateObject();
            cJSON_AddNumberToObject(entry, "id", s->top[k].id);
            cJSON_AddItemToObject(entry, "logprob", json_float(s->top[k].logprob));
            cJSON_AddItemToArray(top, entry);
        }
        cJSON_AddItemToArray(steps, object);
    }
    return print_json(json);
}

static int print_result(const kim_model *model, const result *r)
{
    double sum = 0;
    uint32_t n = 0; // that are text
    for (uint32_t i = 0; i + 1 < r->n_ids; i++)
        if (!isnan(r->nll[i])) {
            sum += (double)r->nll[i];
            n++;
        }
    printf("prompt: %u tokens", r->n_ids);
    if (n)
        printf(", mean negative log-likelihood %.6f, perplexity %.4f", sum / n, exp(sum / n));
    printf("\n\n%6s %8s %10s  %s\n", "step", "id", "logprob", "text and the most probable tokens");
    for (uint32_t i = 0; i < r->n_steps && output_flush(); i++) {
        const step *s = &r->steps[i];
        printf("%6u %8d %10.5f  ", i + 1, (int)s->chosen.id, (double)s->chosen.logprob);
        print_quoted(stdout, s->text, strlen(s->text));
        for (uint32_t k = 0; k < s->n_top; k++) {
            size_t length;
            const char *bytes = kim_token_bytes(model, s->top[k].id, true, &length);
            fputs(k ? ", " : "    ", stdout);
            print_quoted(stdout, bytes, length);
            printf(" %.4f", (double)s->top[k].logprob);
        }
        putchar('\n');
    }
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}

static void result_free(result *r)
{
    for (uint32_t i = 0; i < r->n_steps; i++) {
        free(r->steps[i].text);
        free(r->steps[i].top);
    }
    free(r->steps);
    free(r->nll);
    free(r->ids);
    free(r->images);
    pictures_free(&r->seen);
}

static int check_options(result *r)
{
    int sources = (options.prompt != NULL) + (options.prompt_file != NULL) + (options.ids != NULL);
    if (sources != 1)
        return fail_usage("%s: one of -p, --prompt-file and --ids is needed",
                          sources ? "more than one prompt" : "no prompt");
    if (!option_in_range("-n", options.steps, 0, 1 << 24) ||
        !option_in_range("--top", options.top, 0, TOP_MOST))
        return STATUS_USAGE;
    if (options.ids && parse_ids("--ids", options.ids, &r->ids, &r->n_ids) != STATUS_OK)
        return STATUS_USAGE;
    if (options.ids && !r->n_ids)
        return fail_usage("--ids names no token");
    if (check_picture_options() != STATUS_OK)
        return STATUS_USAGE;
    return model_path() ? STATUS_OK : STATUS_USAGE;
}

int command_logits(int argc, const char **argv)
{
    int status = arguments_parse(
        &(arguments){
            .command = "kim logits",
            .synopsis =
                "-m MODEL [--mmproj F] [--image F]... (-p TEXT | --prompt-file F | --ids IDS)",
            .purpose = "Continues a prompt with the most probable tokens and gives the\n"
                       "log-probabilities (natural) of the prompt and of each step.",
            .notes = "Without --context there are as many positions as the prompt and the\n"
                     "continuation need.\n"
                     "The continuation ends early at a token that ends an answer; that one is\n"
                     "listed.\n",
            .options = table,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    opened o = { 0 };
    result r = { 0 };
    status = check_options(&r);
    if (status == STATUS_OK)
        status = open_gpu(&o);
    if (status == STATUS_OK)
        status = open_model(&o);
    if (status == STATUS_OK)
        status = make_prompt(o.model, &r);
    if (status == STATUS_OK)
        status = open_session(&o, given.context ? (uint32_t)given.context
                                                : r.n_ids + (uint32_t)options.steps);
    if (status == STATUS_OK && options.trace)
        kim_gpu_set_trace(o.gpu, trace_print, stderr);
    if (status == STATUS_OK)
        status = compute(&o, &r);
    if (status == STATUS_OK)
        status = options.json ? print_result_json(&r) : print_result(o.model, &r);
    result_free(&r);
    return close_all(&o, status);
}
