// SPDX-License-Identifier: MIT
// Answers drawn on the device are those of kim_sample and kim_session_append by turns, and leave
// the session as those would, however they end.
//
//   session_answer_test TESTS_FOLDER [--device D] [--mode address|table] [--validation] [--limit N]
// --limit: tokens of an answer, 24 to 64
#include "model_support.h"

#include <math.h>

// The same tokens in other batches: other roundings of K and V to fp16, as in small_models_test.c.
#define SAME_LOGITS 0.1

enum { BATCH = 32, CONTEXT = 400, START = 90, MOST = 64 }; // rings of 64 positions wrap

static const int32_t none[1]; // no stops
static uint32_t most;         // tokens of an answer, at most MOST

typedef struct answer {
    int32_t ids[CONTEXT];
    float logprobs[CONTEXT];
    uint32_t count, enough; // enough: the callback ends the answer; 0: it does not
} answer;

static bool take(void *user, const kim_answer_token *token)
{
    answer *a = user;
    CHECK(a->count < CONTEXT, "more tokens than positions");
    a->ids[a->count] = token->id;
    a->logprobs[a->count++] = token->logprob;
    return a->count != a->enough;
}

static kim_session *begin(const small_model *m, uint32_t context)
{
    kim_session *s = NULL;
    CHECK_OK(kim_session_create(&s, m->model,
                                &(kim_session_params){ .context = context, .batch = BATCH }));
    CHECK_OK(kim_session_append(s, m->ids, START));
    return s;
}

static kim_sampler *sampler_of(kim_sampling params)
{
    kim_sampler *s = NULL;
    CHECK_OK(kim_sampler_create(&s, &params));
    return s;
}

static kim_answer_end answer_of(kim_session *s, kim_sampler *sampler, answer *a,
                                kim_answer_params params)
{
    kim_answer_end end;
    a->count = 0;
    params.token = take;
    params.user = a;
    CHECK_OK(kim_session_answer(s, sampler, &params, &end));
    return end;
}

// By turns on the host.
static void answer_on_host(kim_session *s, kim_sampler *sampler, answer *a, uint32_t count)
{
    for (a->count = 0; a->count < count; a->count++) {
        CHECK_OK(kim_sample(sampler, s, &a->ids[a->count], &a->logprobs[a->count]));
        CHECK_OK(kim_session_append(s, &a->ids[a->count], 1));
    }
}

// The session holds the start and these tokens, and goes on as a fresh one that read them.
static void check_left(const small_model *m, kim_session *s, const answer *a, const char *what)
{
    const uint32_t n = START + a->count;
    CHECK(kim_session_position(s) == n, "%s: the position is %u, not %u", what,
          kim_session_position(s), n);
    CHECK(!memcmp(kim_session_tokens(s), m->ids, START * sizeof *m->ids) &&
              !memcmp(kim_session_tokens(s) + START, a->ids, a->count * sizeof *a->ids),
          "%s: the tokens are others", what);
    kim_session *fresh = begin(m, CONTEXT);
    if (a->count)
        CHECK_OK(kim_session_append(fresh, a->ids, a->count));
    if (!kim_session_logits(s) || n + 1 < kim_session_context(s)) {
        CHECK_OK(kim_session_append(s, &m->ids[START], 1));
        CHECK_OK(kim_session_append(fresh, &m->ids[START], 1));
    }
    double worst = 0;
    for (uint32_t i = 0; i < m->expected.vocab; i++)
        worst = fmax(worst,
                     fabs((double)kim_session_logits(s)[i] - (double)kim_session_logits(fresh)[i]));
    CHECK(worst <= SAME_LOGITS, "%s: logits are off by %g", what, worst);
    printf("  %-44s %3u tokens, logits after it off by %.2g\n", what, a->count, worst);
    kim_session_destroy(&fresh);
}

static void check_equal(const answer *got, const answer *want, uint32_t count, const char *what)
{
    CHECK(got->count == count, "%s: %u tokens, not %u", what, got->count, count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(got->ids[i] == want->ids[i], "%s: token %u is %d, not %d", what, i, got->ids[i],
              want->ids[i]);
        CHECK(fabs((double)got->logprobs[i] - (double)want->logprobs[i]) < 1e-4,
              "%s: the log-probability of token %u is %g, not %g", what, i,
              (double)got->logprobs[i], (double)want->logprobs[i]);
    }
}

static void test_same(const small_model *m)
{
    static const struct {
        const char *name;
        kim_sampling params;
    } cases[] = {
        { "greedy", { .greedy = true } },
        { "the published defaults", { .seed = 1 } },
        { "warm, top-p", { .seed = 2, .temperature = 1.5f, .top_k = UINT32_MAX, .top_p = 0.9f } },
        { "min-p and a penalty",
          { .seed = 3, .min_p = 0.05f, .repeat_penalty = 1.3f, .repeat_last = 20 } },
    };
    printf("as on the host\n");
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answer host, device = { .count = 0 };
        kim_session *s = begin(m, CONTEXT), *by_turns = begin(m, CONTEXT);
        kim_sampler *a = sampler_of(cases[i].params), *b = sampler_of(cases[i].params);
        answer_on_host(by_turns, a, &host, 2 * most);
        // in two parts: the sampler goes on where it was
        const kim_answer_params params = { .most = most, .stops = none };
        kim_answer_end end = answer_of(s, b, &device, params);
        CHECK(end == KIM_ANSWER_LENGTH, "%s: the answer ended by %d", cases[i].name, end);
        check_equal(&device, &host, most, cases[i].name);
        CHECK(kim_session_logits(s), "%s: there are no logits", cases[i].name);
        answer rest = { .count = 0 };
        (void)answer_of(s, b, &rest, params);
        memcpy(&device.ids[most], rest.ids, most * sizeof *rest.ids);
        memcpy(&device.logprobs[most], rest.logprobs, most * sizeof *rest.logprobs);
        device.count = 2 * most;
        check_equal(&device, &host, 2 * most, cases[i].name);
        check_left(m, s, &device, cases[i].name);
        kim_sampler_destroy(&a);
        kim_sampler_destroy(&b);
        kim_session_destroy(&s);
        kim_session_destroy(&by_turns);
    }
}

// The first token that is not among those before it.
static uint32_t first_new(const answer *a, uint32_t from)
{
    for (uint32_t i = from; i < a->count; i++) {
        bool seen = false;
        for (uint32_t j = 0; j < i; j++)
            seen |= a->ids[j] == a->ids[i];
        if (!seen)
            return i;
    }
    CHECK(false, "the answer has no token that is new");
    return 0;
}

static void test_ends(const small_model *m)
{
    const kim_sampling sampling = { .seed = 4, .temperature = 2, .top_k = UINT32_MAX, .top_p = 1 };
    answer whole = { .count = 0 }, got = { .count = 0 };
    printf("ends\n");
    kim_session *s = begin(m, CONTEXT);
    kim_sampler *sampler = sampler_of(sampling);
    (void)answer_of(s, sampler, &whole, (kim_answer_params){ .most = most, .stops = none });
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&s);

    const uint32_t stops[] = { 0, first_new(&whole, 1), first_new(&whole, 20) };
    for (uint32_t i = 0; i < 3; i++) {
        const int32_t ids[] = { whole.ids[stops[i]], 0x7fffffff };
        s = begin(m, CONTEXT);
        sampler = sampler_of(sampling);
        const kim_answer_end end = answer_of(
            s, sampler, &got, (kim_answer_params){ .most = most, .stops = ids, .n_stops = 2 });
        CHECK(end == KIM_ANSWER_STOP, "the answer ended by %d, not by the stop token", end);
        check_equal(&got, &whole, stops[i], "up to a stop token");
        check_left(m, s, &got, "up to a stop token");
        kim_sampler_destroy(&sampler);
        kim_session_destroy(&s);
    }
    for (got.enough = 1; got.enough < 8; got.enough += 3) {
        s = begin(m, CONTEXT);
        sampler = sampler_of(sampling);
        const kim_answer_end end =
            answer_of(s, sampler, &got, (kim_answer_params){ .stops = none });
        CHECK(end == KIM_ANSWER_CALLER, "the answer ended by %d, not by the caller", end);
        check_equal(&got, &whole, got.enough, "until the caller has enough");
        check_left(m, s, &got, "until the caller has enough");
        kim_sampler_destroy(&sampler);
        kim_session_destroy(&s);
    }
    got.enough = 0;
    s = begin(m, START + 13);
    sampler = sampler_of(sampling);
    kim_answer_end end = answer_of(s, sampler, &got, (kim_answer_params){ .stops = none });
    CHECK(end == KIM_ANSWER_CONTEXT, "the answer ended by %d, not by the context", end);
    check_equal(&got, &whole, 13, "to the end of the context");
    check_left(m, s, &got, "to the end of the context");
    end = answer_of(s, sampler, &got, (kim_answer_params){ .most = 5, .stops = none });
    CHECK(end == KIM_ANSWER_CONTEXT && !got.count, "a full session gave %u tokens", got.count);
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&s);
}

// An answer, cut and forked: what was drawn in vain has harmed nothing.
static void test_around(const small_model *m)
{
    answer a = { .count = 0 }, b = { .count = 0 };
    printf("before and after\n");
    kim_session *s = begin(m, CONTEXT), *forked = NULL;
    kim_sampler *sampler = sampler_of((kim_sampling){ .greedy = true });
    const kim_answer_params params = { .most = 10, .stops = none };
    (void)answer_of(s, sampler, &a, params);
    CHECK_OK(kim_session_fork(&forked, s));
    (void)answer_of(s, sampler, &a, params);
    (void)answer_of(forked, sampler, &b, params);
    check_equal(&b, &a, 10, "of a fork");
    CHECK_OK(kim_session_cut(s, START));
    CHECK_FAILS(kim_session_answer(s, sampler, &params, NULL), KIM_ERR_ARGUMENT, "no logits");
    CHECK_OK(kim_session_cut(s, START - 1));
    CHECK_OK(kim_session_append(s, &m->ids[START - 1], 1));
    a.enough = 2;
    (void)answer_of(s, sampler, &a, params);
    check_left(m, s, &a, "after a cut");
    const kim_answer_params many = { .stops = m->ids, .n_stops = 17 };
    CHECK_FAILS(kim_session_answer(s, sampler, &many, NULL), KIM_ERR_ARGUMENT, "17");
    CHECK_FAILS(kim_session_answer(s, NULL, &params, NULL), KIM_ERR_ARGUMENT, "sampler");
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&s);
    kim_session_destroy(&forked);
}

int main(int argc, char **argv)
{
    model_options o = { .limit = MOST };
    small_model m;
    model_options_read(&o, argc, argv);
    CHECK(o.limit >= 24 && o.limit <= MOST, "an answer cannot be of %u tokens here", o.limit);
    most = o.limit;
    kim_gpu *gpu = model_gpu(&o);
    small_model_open(&m, o.tests_folder, "4b", gpu);
    test_same(&m);
    test_ends(&m);
    test_around(&m);
    small_model_close(&m);
    model_gpu_finish(&gpu);
    return 0;
}
