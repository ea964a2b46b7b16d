// SPDX-License-Identifier: MIT
// The sampler: distributions against those computed directly, every filter, and odd logits.
//   sampler_test TESTS_FOLDER
#include <math.h>

#include "engine/sampler.h"
#include "text_support.h"

enum { DRAWS = 200000, SMALL = 12 };

static const float logits[SMALL] = { 1.0f, -2.0f, 3.0f, 0.5f, 2.5f,  -40.0f,
                                     0.0f, 3.0f,  1.5f, 2.0f, -1.0f, 0.25f };

static kim_sampler *make(kim_sampling params)
{
    kim_sampler *s;
    if (!params.seed)
        params.seed = 12345;
    CHECK_OK(kim_sampler_create(&s, &params));
    return s;
}

// Draws often and compares with the probabilities (not normalised) by chi-square. Its mean is the
// number of free classes f, its deviation sqrt(2 f): the bound is some 6 deviations off.
static void check_distribution(const char *name, kim_sampling params, const double *expected,
                               const int32_t *history, uint32_t n_history)
{
    kim_sampler *s = make(params);
    uint32_t seen[SMALL] = { 0 };
    for (int i = 0; i < DRAWS; i++) {
        int32_t id;
        CHECK_OK(sampler_draw(s, logits, SMALL, history, n_history, &id, NULL));
        CHECK(id >= 0 && id < SMALL, "%s: id %d", name, id);
        seen[id]++;
    }
    kim_sampler_destroy(&s);
    double sum = 0, chi = 0, classes = 0;
    for (int i = 0; i < SMALL; i++)
        sum += expected[i];
    for (int i = 0; i < SMALL; i++) {
        double mean = DRAWS * expected[i] / sum;
        CHECK(expected[i] > 0 || !seen[i], "%s: %d was filtered out, but drawn", name, i);
        if (mean > 1) {
            chi += (seen[i] - mean) * (seen[i] - mean) / mean;
            classes++;
        }
    }
    CHECK(chi < classes + 6 * sqrt(2 * classes) + 6, "%s: chi-square %.1f over %.0f classes", name,
          chi, classes);
}

// exp(logit / temperature) of those the filters keep, by the plainest means.
static void expect(const kim_sampling *p, const float *x, double *out)
{
    double total = 0, before = 0, highest = 0;
    bool done[SMALL] = { false };
    for (int i = 0; i < SMALL; i++) {
        total += exp(x[i] / p->temperature);
        highest = fmax(highest, exp(x[i] / p->temperature));
        out[i] = 0;
    }
    for (uint32_t rank = 0; rank < SMALL; rank++) {
        int best = -1;
        for (int i = 0; i < SMALL; i++) {
            if (!done[i] && (best < 0 || x[i] > x[best]))
                best = i;
        }
        done[best] = true;
        double w = exp(x[best] / p->temperature);
        if (rank < p->top_k && before <= p->top_p * total && w >= p->min_p * highest)
            out[best] = w;
        before += w;
    }
}

static void test_distributions(void)
{
    static const struct {
        const char *name;
        kim_sampling params;
    } cases[] = {
        { "all", { .temperature = 1, .top_k = UINT32_MAX, .top_p = 1 } },
        { "all but one", { .temperature = 1, .top_k = SMALL - 1, .top_p = 1 } },
        { "hot", { .temperature = 3, .top_k = UINT32_MAX, .top_p = 1 } },
        { "cold", { .temperature = 0.3f, .top_k = UINT32_MAX, .top_p = 1 } },
        { "top-k 4", { .temperature = 1, .top_k = 4, .top_p = 1 } },
        { "top-k 1 of two equal", { .temperature = 1, .top_k = 1, .top_p = 1 } },
        { "top-p", { .temperature = 1, .top_k = UINT32_MAX, .top_p = 0.8f } },
        { "top-p tiny", { .temperature = 1, .top_k = UINT32_MAX, .top_p = 1e-9f } },
        { "min-p", { .temperature = 1, .top_k = UINT32_MAX, .top_p = 1, .min_p = 0.3f } },
        { "min-p 1", { .temperature = 1, .top_k = UINT32_MAX, .top_p = 1, .min_p = 1 } },
        { "all three", { .temperature = 1.5f, .top_k = 6, .top_p = 0.9f, .min_p = 0.25f } },
        { "published", { .temperature = 1, .top_k = 64, .top_p = 0.95f } },
    };
    double expected[SMALL];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect(&cases[i].params, logits, expected);
        check_distribution(cases[i].name, cases[i].params, expected, NULL, 0);
    }
    expect(&cases[11].params, logits, expected);
    check_distribution("defaults", (kim_sampling){ 0 }, expected, NULL, 0);
}

static void test_penalty(void)
{
    kim_sampling p = { .temperature = 1, .top_k = SMALL, .top_p = 1, .repeat_penalty = 2 };
    const int32_t history[] = { 4, 2, 1, 2, 2, 99, -1, 6 };
    double expected[SMALL];
    float x[SMALL];
    memcpy(x, logits, sizeof x);
    x[2] /= 2;
    x[4] /= 2;
    x[1] *= 2;
    expect(&p, x, expected);
    check_distribution("penalty", p, expected, history, 8);
    p.repeat_last = 6;
    x[4] = logits[4];
    expect(&p, x, expected);
    check_distribution("penalty on the last 6", p, expected, history, 8);
    p.greedy = true;
    kim_sampler *s = make(p);
    int32_t id;
    CHECK_OK(sampler_draw(s, logits, SMALL, history, 8, &id, NULL));
    CHECK(id == 2, "greedy takes %d: the rest is not used", id);
    kim_sampler_destroy(&s);
}

static void test_logprob(void)
{
    kim_sampling cases[] = { { .greedy = true },
                             { 0 },
                             { .temperature = 0.7f, .top_k = 3 },
                             { .repeat_penalty = 1.3f },
                             { .top_p = 1, .top_k = UINT32_MAX } };
    const int32_t history[] = { 2, 7 };
    double total = 0;
    for (int i = 0; i < SMALL; i++)
        total += exp(logits[i]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kim_sampler *s = make(cases[i]);
        for (int k = 0; k < 100; k++) {
            int32_t id;
            float logprob;
            CHECK_OK(sampler_draw(s, logits, SMALL, history, 2, &id, &logprob));
            CHECK(fabs(logprob - (logits[id] - log(total))) < 1e-5, "logprob of %d is %g", id,
                  (double)logprob);
        }
        kim_sampler_destroy(&s);
    }
}

static void test_seeds(void)
{
    kim_sampling all = { .temperature = 2, .top_p = 1, .seed = 7 };
    kim_sampler *a = make(all), *b = make(all), *other, *random[2];
    all.seed = 8;
    other = make(all);
    all.seed = 0;
    CHECK_OK(kim_sampler_create(&random[0], &all));
    CHECK_OK(kim_sampler_create(&random[1], &all));
    int differ_other = 0, differ_random = 0;
    for (int i = 0; i < 200; i++) {
        int32_t id[5];
        CHECK_OK(sampler_draw(a, logits, SMALL, NULL, 0, &id[0], NULL));
        CHECK_OK(sampler_draw(b, logits, SMALL, NULL, 0, &id[1], NULL));
        CHECK_OK(sampler_draw(other, logits, SMALL, NULL, 0, &id[2], NULL));
        CHECK_OK(sampler_draw(random[0], logits, SMALL, NULL, 0, &id[3], NULL));
        CHECK_OK(sampler_draw(random[1], logits, SMALL, NULL, 0, &id[4], NULL));
        CHECK(id[0] == id[1], "one seed gives different ids");
        differ_other += id[0] != id[2];
        differ_random += id[3] != id[4];
    }
    CHECK(differ_other && differ_random, "different seeds give the same ids");
    kim_sampler_destroy(&a);
    kim_sampler_destroy(&b);
    kim_sampler_destroy(&other);
    kim_sampler_destroy(&random[0]);
    kim_sampler_destroy(&random[1]);
    kim_sampler_destroy(&a);
}

static void test_odd_logits(void)
{
    kim_sampling cases[] = { { .greedy = true },
                             { 0 },
                             { .top_k = UINT32_MAX, .top_p = 1 },
                             { .min_p = 0.1f, .repeat_penalty = 1.5f },
                             { .temperature = 1e-40f, .top_k = 5 },
                             { .temperature = 1e38f, .top_k = 5 } };
    const int32_t history[] = { 0, 1, 2 };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kim_sampler *s = make(cases[i]);
        bool seen[4] = { false };
        int32_t id;
        float logprob;
        const float nan[4] = { 1, 2, NAN, 3 }, none[2] = { -INFINITY, -INFINITY };
        CHECK_FAILS(sampler_draw(s, nan, 4, history, 3, &id, NULL), KIM_ERR_VULKAN, "token 2");
        CHECK_FAILS(sampler_draw(s, none, 2, history, 3, &id, NULL), KIM_ERR_VULKAN, "all 2");
        for (int k = 0; k < 500; k++) {
            const float low[4] = { -INFINITY, -1, -INFINITY, -1.5f };
            CHECK_OK(sampler_draw(s, low, 4, history, 3, &id, &logprob));
            CHECK((id == 1 || id == 3) && isfinite(logprob), "-infinity: id %d", id);
            const float high[4] = { 3, INFINITY, -INFINITY, INFINITY };
            CHECK_OK(sampler_draw(s, high, 4, history, 3, &id, &logprob));
            CHECK((id == 1 || id == 3) && fabs(logprob - log(0.5)) < 1e-6, "infinity: id %d %g", id,
                  (double)logprob);
            const float flat[4] = { -3e38f, 3e38f, 3e38f, 3e38f };
            CHECK_OK(sampler_draw(s, flat, 4, NULL, 0, &id, &logprob));
            seen[id] = true;
            CHECK(id > 0 || cases[i].temperature > 1, "the largest numbers: id %d", id);
        }
        CHECK(seen[1] && (cases[i].greedy || (seen[2] && seen[3])), "equal logits are drawn");
        const float one[1] = { -5 };
        CHECK_OK(sampler_draw(s, one, 1, history, 3, &id, &logprob));
        CHECK(id == 0 && logprob == 0, "one token");
        kim_sampler_destroy(&s);
    }
}

static void test_refused(void)
{
    static const struct {
        kim_sampling params;
        const char *words;
    } cases[] = {
        { { .temperature = -1 }, "temperature is -1" },
        { { .temperature = NAN }, "temperature is " },
        { { .temperature = INFINITY }, "temperature is inf" },
        { { .top_p = 1.5f }, "top_p is 1.5, expected 0 to 1" },
        { { .min_p = -0.5f }, "min_p" },
        { { .repeat_penalty = -2 }, "repeat_penalty" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kim_sampler *s;
        CHECK_FAILS(kim_sampler_create(&s, &cases[i].params), KIM_ERR_ARGUMENT, cases[i].words);
        CHECK(!s, "a sampler after a failure");
    }
}

// The probability is that of plain sums, and the rank is below what top-k keeps.
static void check_large(const kim_sampling *p, const float *x, int n)
{
    kim_sampler *s = make(*p);
    for (int k = 0; k < 5; k++) {
        int32_t id;
        float logprob;
        CHECK_OK(sampler_draw(s, x, (uint32_t)n, NULL, 0, &id, &logprob));
        uint32_t rank = 0, most = p->greedy ? 1 : p->top_k ? p->top_k : 64;
        double total = 0;
        for (int i = 0; i < n; i++) {
            rank += x[i] > x[id] || (x[i] == x[id] && i < id);
            total += exp((double)x[i] - x[id]);
        }
        CHECK(rank < most, "rank %u was drawn, top-k is %u", rank, most);
        CHECK(fabs(logprob + log(total)) < 1e-5, "logprob of %d is %g, expected %g", id,
              (double)logprob, -log(total));
    }
    kim_sampler_destroy(&s);
}

// Vocabularies of the real size, and of every size that the loops cut differently.
static void test_large(void)
{
    enum { VOCAB = 262144, REPEATS = 50 };
    float *x = malloc(VOCAB * sizeof *x);
    CHECK(x, "out of memory");
    for (int i = 0; i < VOCAB; i++) { // normal with deviation 3, many of them equal
        float sum = 0;
        for (int k = 0; k < 12; k++)
            sum += (float)random_below(1024) / 1024;
        x[i] = 3 * (sum - 6);
    }
    x[5] = -INFINITY;
    x[6] = -3e38f;
    x[7] = -80;
    static const kim_sampling cases[] = { { .greedy = true },
                                          { 0 },
                                          { .temperature = 0.5f },
                                          { .top_k = 1000, .top_p = 1 },
                                          { .top_k = 200000, .top_p = 0.9f },
                                          { .top_k = UINT32_MAX },
                                          { .top_k = UINT32_MAX, .top_p = 1, .min_p = 0.05f },
                                          { .top_k = UINT32_MAX, .top_p = 1 } };
    kim_sampler *s;
    int32_t id;
    float logprob;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_large(&cases[i], x, VOCAB);
        for (int n = 1; n < 70; n++)
            check_large(&cases[i], x + 8, n);
        s = make(cases[i]);
        double start = seconds_now();
        for (int k = 0; k < REPEATS; k++)
            CHECK_OK(sampler_draw(s, x, VOCAB, NULL, 0, &id, &logprob));
        printf("case %zu: %.2f ms a draw\n", i, 1e3 * (seconds_now() - start) / REPEATS);
        kim_sampler_destroy(&s);
    }
    s = make((kim_sampling){ 0 });
    x[777] = INFINITY;
    CHECK_OK(sampler_draw(s, x, VOCAB, NULL, 0, &id, &logprob));
    CHECK(id == 777 && logprob == 0, "infinity: id %d %g", id, (double)logprob);
    x[200001] = NAN;
    CHECK_FAILS(sampler_draw(s, x, VOCAB, NULL, 0, &id, NULL), KIM_ERR_VULKAN, "token 200001");
    kim_sampler_destroy(&s);
    free(x);
}

int main(void)
{
    test_distributions();
    test_penalty();
    test_logprob();
    test_seeds();
    test_odd_logits();
    test_refused();
    test_large();
    return 0;
}
