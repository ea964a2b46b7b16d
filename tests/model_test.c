// SPDX-License-Identifier: MIT
// Gemma 3 270M against the reference implementation in fp32: a long running text, short prompts in
// several languages, greedy continuations; in batches and token by token.
//
//   model_test TESTS_FOLDER MODEL [--device D] [--mode address|table] [--validation]
//              [--limit N] [--odd N] [--single N] [--prompts N] [--way few|float|dot|half|int8]
//              [--attention matrices|nv] [--kv f16|q8_0]
//
// --limit:   tokens of the running text read in batches of 512  (default: all)
// --odd:     in batches of 37                                   (default: 700; 0: none)
// --single:  one by one                                         (default: 600; 0: none)
// --prompts: how many of the short prompts                      (default: all; 0: none)
//
// --way:     how many columns are multiplied; dot and int8 round, and have wider limits
// --kv:      how K and V are kept; q8_0 rounds, and has wider limits
//
// 512 positions make a window; batches of 37 and of 1 have rings of 576, which wrap in less.
#include "model_support.h"

#include <math.h>

static double most_nll = 0.1;       // percent that the mean negative log-likelihood may be off
static double most_different = 0.5; // percent of positions that may have another first token
static kim_kv_type kv_type;
static double tie = 0.05; // nats between the reference's two best: the other may be taken
#define ENOUGH 1000 // positions that a percentage is taken of; of fewer, one tie would be too much

typedef struct sequence {
    uint32_t prompt, count; // tokens given, and with those generated after them
    int32_t *ids;
    float *next;
    int32_t *first;
    float *first_logprob;
    int32_t *second;
    float *second_logprob;
} sequence;

static uint32_t read_fixture(const char *tests_folder, sequence **out)
{
    fixture f = fixture_open(tests_folder, "model_270m.bin", "KREF");
    const uint32_t n = fixture_u32(&f);
    sequence *all = calloc(n, sizeof *all);
    CHECK(all, "out of memory");
    for (sequence *s = all; s < all + n; s++) {
        s->prompt = fixture_u32(&f);
        s->count = fixture_u32(&f);
        s->ids = fixture_ids(&f, s->count);
        s->next = fixture_floats(&f, s->count);
        s->first = fixture_ids(&f, s->count);
        s->first_logprob = fixture_floats(&f, s->count);
        s->second = fixture_ids(&f, s->count);
        s->second_logprob = fixture_floats(&f, s->count);
    }
    fixture_close(&f);
    *out = all;
    return n;
}

static void free_fixture(sequence *all, uint32_t n)
{
    for (sequence *s = all; s < all + n; s++) {
        free(s->ids);
        free(s->next);
        free(s->first);
        free(s->first_logprob);
        free(s->second);
        free(s->second_logprob);
    }
    free(all);
}

// ---------------------------------------------------------------------------------- comparison

typedef struct totals {
    double nll, reference_nll, worst, seconds;
    uint32_t scored, positions, different;
    uint32_t wrong; // different where the reference has no tie
} totals;

// scores: of the first n tokens
static void add_scores(totals *t, const sequence *s, uint32_t n, const kim_score *scores)
{
    for (uint32_t i = 0; i < n; i++) {
        t->positions++;
        const bool different = scores[i].top != s->first[i];
        t->different += different;
        t->wrong += different && s->first_logprob[i] - s->second_logprob[i] > (float)tie;
        if (i + 1 == n)
            break;
        const double error = fabs((double)scores[i].next_logprob - (double)s->next[i]);
        if (!(error <= t->worst))
            t->worst = error;
        t->nll -= (double)scores[i].next_logprob;
        t->reference_nll -= (double)s->next[i];
        t->scored++;
    }
}

static void check_totals(const char *name, const totals *t)
{
    char what[128];
    printf("%s: %u tokens, %.1f s, %.1f tokens/s\n", name, t->positions, t->seconds,
           t->positions / t->seconds);
    printf(
        "  mean negative log-likelihood %.6f, reference %.6f; a token's is off by at most %.4f\n",
        t->nll / t->scored, t->reference_nll / t->scored, t->worst);
    snprintf(what, sizeof what, "mean negative log-likelihood off by, %%");
    check_figure(what, 100 * fabs(t->nll / t->reference_nll - 1), most_nll);
    snprintf(what, sizeof what, "another first token (%u positions), %%", t->different);
    if (t->positions >= ENOUGH)
        check_figure(what, 100.0 * t->different / t->positions, most_different);
    check_figure("another first token where there is no tie", t->wrong, 0);
}

static kim_session *new_session(kim_model *model, uint32_t context, uint32_t batch)
{
    kim_session *session = NULL;
    CHECK_OK(kim_session_create(
        &session, model,
        &(kim_session_params){ .context = context, .batch = batch, .kv_type = kv_type }));
    return session;
}

static void test_batches(kim_model *model, const sequence *s, uint32_t limit, uint32_t batch)
{
    const uint32_t n = limit < s->count ? limit : s->count;
    kim_session *session = new_session(model, n, batch);
    kim_score *scores = malloc(n * sizeof *scores);
    CHECK(scores, "out of memory");
    totals t = { .seconds = -seconds_now() };
    CHECK_OK(kim_session_read(session, &(kim_prompt){ .tokens = s->ids, .count = n }, scores));
    t.seconds += seconds_now();
    add_scores(&t, s, n, scores);
    char name[64];
    snprintf(name, sizeof name, "running text in batches of %u", batch);
    check_totals(name, &t);
    free(scores);
    kim_session_destroy(&session);
}

static void test_single(kim_model *model, const sequence *s, uint32_t limit)
{
    const uint32_t n = limit < s->count ? limit : s->count;
    const uint32_t vocab = kim_model_get_info(model)->vocab;
    kim_session *session = new_session(model, n, 1);
    kim_score *scores = malloc(n * sizeof *scores);
    CHECK(scores, "out of memory");
    totals t = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        const double start = seconds_now();
        CHECK_OK(kim_session_append(session, s->ids + i, 1));
        t.seconds += seconds_now() - start;
        const float *logits = kim_session_logits(session);
        CHECK(logits, "there are no logits");
        const double sum = log_sum(logits, vocab);
        const int32_t top = highest(logits, vocab);
        scores[i] = (kim_score){ .top = top, .top_logprob = (float)((double)logits[top] - sum) };
        if (i + 1 < n)
            scores[i].next_logprob = (float)((double)logits[s->ids[i + 1]] - sum);
    }
    add_scores(&t, s, n, scores);
    check_totals("running text, one token at a time", &t);
    free(scores);
    kim_session_destroy(&session);
}

// ------------------------------------------------------------------------------- short prompts

// Scores each prompt and the reference's continuation.
static void test_prompts(kim_model *model, const sequence *all, uint32_t n)
{
    totals t = { .seconds = -seconds_now() };
    kim_session *session = new_session(model, 128, 512);
    for (const sequence *s = all; s < all + n; s++) {
        kim_score scores[128];
        CHECK(s->count <= 128, "a short prompt has %u tokens", s->count);
        CHECK_OK(kim_session_cut(session, 0));
        CHECK_OK(kim_session_read(session, &(kim_prompt){ .tokens = s->ids, .count = s->count },
                                  scores));
        add_scores(&t, s, s->count, scores);
    }
    t.seconds += seconds_now();
    char name[64];
    snprintf(name, sizeof name, "%u short prompts", n);
    check_totals(name, &t);
    kim_session_destroy(&session);
}

// Continues as the sampler says; returns the tokens that were compared.
static uint32_t test_greedy(kim_session *session, kim_sampler *sampler, const sequence *s,
                            uint32_t *wrong)
{
    CHECK_OK(kim_session_cut(session, 0));
    CHECK_OK(kim_session_append(session, s->ids, s->prompt));
    for (uint32_t i = s->prompt; i < s->count; i++) {
        const double gap = (double)s->first_logprob[i - 1] - (double)s->second_logprob[i - 1];
        int32_t id;
        float logprob;
        CHECK_OK(kim_sample(sampler, session, &id, &logprob));
        if (id != s->ids[i]) {
            const bool tied = gap <= tie;
            printf(
                "  token %u of the prompt of %u tokens: %d, not %d; the reference's two best are "
                "%.4f apart%s\n",
                i - s->prompt, s->prompt, (int)id, (int)s->ids[i], gap, tied ? ", a tie" : "");
            *wrong += !tied;
            return i - s->prompt;
        }
        CHECK(fabs((double)logprob - (double)s->first_logprob[i - 1]) < 0.2,
              "the log-probability of token %u is %g, not %g", i, (double)logprob,
              (double)s->first_logprob[i - 1]);
        CHECK_OK(kim_session_append(session, &id, 1));
    }
    return s->count - s->prompt;
}

static void test_continuations(kim_model *model, const sequence *all, uint32_t n)
{
    kim_session *session = new_session(model, 128, 512);
    kim_sampler *sampler = NULL;
    uint32_t compared = 0, wrong = 0;
    printf("greedy continuations of %u prompts\n", n);
    CHECK_OK(kim_sampler_create(&sampler, &(kim_sampling){ .greedy = true }));
    for (const sequence *s = all; s < all + n; s++)
        compared += test_greedy(session, sampler, s, &wrong);
    printf("  %u tokens are the reference's\n", compared);
    check_figure("continuations that part from it at no tie", wrong, 0);
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&session);
}

// ---------------------------------------------------------------------------------------- main

static void test_memory(kim_model *model, kim_gpu *gpu)
{
    kim_plan plan;
    CHECK_OK(kim_model_plan(model, gpu, NULL, &plan));
    check_figure("weights on the device, % of the file",
                 100.0 * (double)plan.weights / (double)kim_model_get_info(model)->file_bytes, 105);
}

int main(int argc, char **argv)
{
    model_options o = { .limit = UINT32_MAX, .odd = 700, .single = 600, .prompts = UINT32_MAX };
    model_options_read(&o, argc, argv);
    kv_type = o.kv;
    if (o.way == MATMUL_DOT || o.way == MATMUL_INT8 || o.kv == KIM_KV_Q8_0) {
        most_nll = 0.5;
        most_different = 3;
        tie = INFINITY; // of what int8 makes different, the percentage above is the measure
    }
    FILE *file = o.model_path ? fopen(o.model_path, "rb") : NULL;
    if (!file) {
        fprintf(stderr, "skipped: no model %s\n", o.model_path ? o.model_path : "given");
        return 77;
    }
    fclose(file);

    kim_gpu *gpu = model_gpu(&o);
    kim_model *model = NULL;
    sequence *all;
    const uint32_t n = read_fixture(o.tests_folder, &all);
    const double start = seconds_now();
    CHECK_OK(kim_model_open(&model, gpu, o.model_path, NULL));
    printf("model opened in %.1f s\n", seconds_now() - start);
    test_memory(model, gpu);
    const uint32_t prompts = o.prompts < n - 1 ? o.prompts : n - 1;
    if (prompts) {
        test_continuations(model, all + 1, prompts);
        test_prompts(model, all + 1, prompts);
    }
    if (o.limit)
        test_batches(model, all, o.limit, 512);
    if (o.odd)
        test_batches(model, all, o.odd, 37);
    if (o.single)
        test_single(model, all, o.single);
    free_fixture(all, n);
    kim_model_destroy(&model);
    model_gpu_finish(&gpu);
    CHECK(!failed_figures(), "%u figures are worse than their limits", failed_figures());
    return 0;
}
