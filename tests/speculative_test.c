// SPDX-License-Identifier: MIT
// Answers with drafts are those without, token for token, whatever drafts and however they end.
//
//   speculative_test TESTS_FOLDER [--device D] [--mode address|table] [--validation] [--limit N]
// --limit: only the first N cases of samplings and drafts, and these with few tokens
#include "model_support.h"

#include <math.h>
#include <stdlib.h>

#include "engine/sampler.h"
#include "engine/speculative.h"

// What K and V in fp16 make of rounding in another order; see small_models_test.c.
#define SAME_LOGITS 0.1
// By how much logits differ between steps of one row and of several; measured: up to 0.003.
#define ROUNDING 0.01f

enum { BATCH = 8, CONTEXT = 300, START = 70, PART = 30 }; // rings of 64 positions wrap

static const int32_t none[1]; // no stops

typedef struct answer {
    int32_t ids[CONTEXT];
    float logprobs[CONTEXT];
    uint32_t count, enough; // enough: the callback ends the answer; 0: it does not
} answer;

// Who drafts.
typedef struct drafter {
    const char *name;
    kim_model *model;
    bool lookup;
    double least, most; // share of its drafts that are right, if as many as can be are made
} drafter;

static bool take(void *user, const kim_answer_token *token)
{
    answer *a = user;
    CHECK(a->count < CONTEXT, "more tokens than positions");
    a->ids[a->count] = token->id;
    a->logprobs[a->count++] = token->logprob;
    return a->count != a->enough;
}

// d: NULL: nobody; least: see kim_session_params
static kim_session *begin(const small_model *m, uint32_t context, const drafter *d, uint32_t least)
{
    kim_session *s = NULL;
    kim_session_params params = { .context = context, .batch = BATCH };
    if (d) {
        params.draft = d->model;
        params.lookup = d->lookup;
        params.draft_least = least;
    }
    CHECK_OK(kim_session_create(&s, m->model, &params));
    CHECK_OK(kim_session_append(s, m->ids, START));
    return s;
}

static kim_answer_end answer_of(kim_session *s, kim_sampler *sampler, answer *a,
                                kim_answer_params params)
{
    kim_answer_end end;
    params.token = take;
    params.user = a;
    CHECK_OK(kim_session_answer(s, sampler, &params, &end));
    return end;
}

static kim_sampler *sampler_of(kim_sampling params)
{
    kim_sampler *s = NULL;
    CHECK_OK(kim_sampler_create(&s, &params));
    return s;
}

// ------------------------------------------------------------------------------- what is equal

typedef struct candidate {
    double weight;
    float logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return x->logit != y->logit ? (x->logit > y->logit ? -1 : 1) : x->id - y->id;
}

// The logits after the start and the first n tokens, read so many at a time, without drafts.
static void find_logits(const small_model *m, const answer *a, uint32_t n, uint32_t at_once,
                        float *logits)
{
    kim_session *s = begin(m, CONTEXT, NULL, 0);
    for (uint32_t i = 0; i < n; i += at_once)
        CHECK_OK(kim_session_append(s, &a->ids[i], at_once < n - i ? at_once : n - i));
    memcpy(logits, kim_session_logits(s), m->expected.vocab * sizeof *logits);
    kim_session_destroy(&s);
}

// Whether token n may come instead of the one that plain decoding gave, because sums of several
// rows are rounded otherwise: by hand, from the logits and the random number. Tokens as probable as
// each other may change places among those in order.
static bool may_differ(const small_model *m, const answer *got, uint32_t n, kim_sampling p)
{
    enum { MOST_VOCAB = 512 };
    float logits[MOST_VOCAB];
    candidate list[MOST_VOCAB];
    struct sampling_block block;
    kim_sampler *sampler = sampler_of(p);
    const uint32_t vocab = m->expected.vocab;
    CHECK(vocab <= MOST_VOCAB, "a vocabulary of %u", vocab);
    find_logits(m, got, n, 1, logits);
    sampler_consume(sampler, n);
    sampler_fill_block(sampler, &block, 0, 1);
    kim_sampler_destroy(&sampler);
    if (p.greedy)
        return logits[highest(logits, vocab)] - logits[got->ids[n]] < 2 * ROUNDING;
    double all = 0, sum = 0, above = 0, up_to = 0;
    for (uint32_t i = 0; i < vocab; i++)
        list[i] = (candidate){ .logit = logits[i], .id = (int32_t)i };
    for (uint32_t i = START + n - block.repeat_last; i < START + n; i++) {
        const int32_t id = i < START ? m->ids[i] : got->ids[i - START];
        const float x = logits[id];
        list[id].logit = x > 0 ? x / block.repeat_penalty : x * block.repeat_penalty;
    }
    const float own = list[got->ids[n]].logit;
    qsort(list, vocab, sizeof *list, by_logit);
    for (uint32_t i = 0; i < vocab; i++)
        all += list[i].weight =
            exp(((double)list[i].logit - (double)list[0].logit) / (double)block.temperature);
    for (uint32_t i = 0; i < vocab && i < block.top_k && sum <= (double)block.top_p * all; i++) {
        sum += list[i].weight;
        above += list[i].logit > own + 2 * ROUNDING ? list[i].weight : 0; // more probable for sure
        up_to += list[i].logit >= own - 2 * ROUNDING ? list[i].weight : 0;
    }
    const double mark = (double)block.draws[0] * sum;
    const double slack = 4 * (double)ROUNDING / (double)block.temperature;
    return mark >= above * (1 - slack) && mark <= up_to * (1 + slack);
}

// How many tokens are the same: all, or up to one where both may come.
static uint32_t check_same(const small_model *m, const answer *got, const answer *want,
                           uint32_t count, kim_sampling p, const char *what)
{
    CHECK(got->count == count, "%s: %u tokens, not %u", what, got->count, count);
    for (uint32_t i = 0; i < count; i++) {
        if (got->ids[i] != want->ids[i]) {
            CHECK(may_differ(m, got, i, p), "%s: token %u is %d, not %d", what, i, got->ids[i],
                  want->ids[i]);
            printf("  %s: token %u differs at a tie\n", what, i);
            return i;
        }
        CHECK(fabs((double)got->logprobs[i] - (double)want->logprobs[i]) < SAME_LOGITS,
              "%s: the log-probability of token %u is %g, not %g", what, i,
              (double)got->logprobs[i], (double)want->logprobs[i]);
    }
    return count;
}

// The session holds the start and these tokens, and goes on as a fresh one that read them.
static void check_left(const small_model *m, kim_session *s, const answer *a, const char *what)
{
    float logits[512];
    const uint32_t n = START + a->count;
    CHECK(kim_session_position(s) == n, "%s: the position is %u, not %u", what,
          kim_session_position(s), n);
    CHECK(!memcmp(kim_session_tokens(s), m->ids, START * sizeof *m->ids) &&
              !memcmp(kim_session_tokens(s) + START, a->ids, a->count * sizeof *a->ids),
          "%s: the tokens are others", what);
    answer more = *a;
    if (!kim_session_logits(s) || n < kim_session_context(s)) {
        more.ids[more.count++] = m->ids[START];
        CHECK_OK(kim_session_append(s, &m->ids[START], 1));
    }
    find_logits(m, &more, more.count, BATCH, logits);
    double worst = 0;
    for (uint32_t i = 0; i < m->expected.vocab; i++)
        worst = fmax(worst, fabs((double)kim_session_logits(s)[i] - (double)logits[i]));
    CHECK(worst <= SAME_LOGITS, "%s: logits after it are off by %g", what, worst);
}

// ---------------------------------------------------------------------------------- the tests

static void test_lookup(void)
{
    static const struct {
        uint32_t count;
        int32_t text[20];
        uint32_t length, after;
    } cases[] = {
        { 0, { 0 }, 0, 0 },
        { 1, { 5 }, 0, 0 },
        { 4, { 1, 2, 3, 4 }, 0, 0 },
        { 2, { 5, 5 }, 1, 1 },
        { 5, { 7, 1, 7, 2, 7 }, 1, 3 },          // the last of equal ones
        { 8, { 1, 2, 9, 3, 2, 8, 1, 2 }, 2, 2 }, // the longest before the last
        { 6, { 1, 2, 1, 2, 1, 2 }, 4, 4 },       // a run may overlap the end
        { 18, { 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1, 1, 1, 1 }, 8, 9 }, // no longer than 8
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t after = 0;
        const uint32_t length = lookup_find(cases[i].text, cases[i].count, &after);
        CHECK(length == cases[i].length && after == cases[i].after,
              "case %u: a run of %u before %u, not of %u before %u", i, length, after,
              cases[i].length, cases[i].after);
    }
}

static uint32_t best_of(const draft_estimates *e, uint32_t source)
{
    double rate;
    return estimates_best(e, source, DRAFT_MOST, &rate);
}

// How many drafts pay, by hand: (1 + a + ... + a^k) / (seconds of k + 1 rows + k drafts).
static void test_estimates(void)
{
    draft_estimates e;
    estimates_init(&e);
    for (uint32_t rows = 0; rows <= DRAFT_MOST + 1; rows++) // as on a GPU: a row more costs 2%
        e.seconds[rows] = rows ? 1 + 0.02 * (rows - 1) : 0.2;
    e.agreement[0] = e.agreement[1] = 0.9;
    CHECK(best_of(&e, 1) == 7, "%u drafts for nothing, not 7", best_of(&e, 1));
    CHECK(best_of(&e, 0) == 6, "%u drafts at a fifth, not 6", best_of(&e, 0)); // 2.249; 5: 2.231
    e.agreement[0] = 0.2; // 1.2 / 1.22: slower than none
    CHECK(best_of(&e, 0) == 0, "%u drafts that are wrong, not 0", best_of(&e, 0));
    estimates_init(&e);
    for (uint32_t i = 0; i < 9; i++) // as where every row is computed in full
        for (uint32_t rows = 1; rows <= DRAFT_MOST + 1; rows++)
            estimates_add_time(&e, rows, rows);
    CHECK(best_of(&e, 1) == 0, "%u drafts where they save nothing, not 0", best_of(&e, 1));
    for (uint32_t i = 0; i < 200; i++)
        estimates_add_drafts(&e, 3, 3, true); // three of four
    CHECK(fabs(e.agreement[3] - 0.75) < 0.05, "an agreement of %g, not 0.75", e.agreement[3]);
}

typedef struct sampling {
    const char *name;
    kim_sampling params;
} sampling;
static const sampling samplings[] = {
    { "greedy", { .greedy = true } },
    { "the published defaults", { .seed = 6 } },
    { "cool, a penalty", { .seed = 2, .temperature = 0.7f, .repeat_penalty = 1.2f } },
};
enum { SAMPLINGS = sizeof samplings / sizeof *samplings };

// In two parts, so that the second begins with drafts out of step, and the sampler goes on.
static void answer_twice(kim_session *s, kim_sampling p, uint32_t part, answer *a)
{
    kim_sampler *sampler = sampler_of(p);
    const kim_answer_params params = { .most = part, .stops = none };
    a->count = a->enough = 0;
    for (uint32_t i = 0; i < 2; i++) {
        const kim_answer_end end = answer_of(s, sampler, a, params);
        CHECK(end == KIM_ANSWER_LENGTH, "the answer ended by %d", end);
    }
    kim_sampler_destroy(&sampler);
}

// An answer with drafts, at least so many a step, is the plain one.
//
// plain: of two parts
static void test_same(const small_model *m, const sampling *how, const answer *plain,
                      const drafter *d, uint32_t least)
{
    answer got;
    char what[80];
    kim_session_stats stats;
    snprintf(what, sizeof what, "%s, %s, %s", how->name, d->name, least ? "always" : "if it pays");
    kim_session *s = begin(m, CONTEXT, d, least);
    answer_twice(s, how->params, plain->count / 2, &got);
    const uint32_t same = check_same(m, &got, plain, plain->count, how->params, what);
    check_left(m, s, &got, what);
    kim_session_get_stats(s, &stats);
    const double right = stats.drafted ? (double)stats.accepted / (double)stats.drafted : 0;
    printf("  %-56s %2u tokens in %2llu steps, %3llu of %3llu drafts right\n", what, same,
           (unsigned long long)stats.answer_steps, (unsigned long long)stats.accepted,
           (unsigned long long)stats.drafted);
    CHECK(stats.accepted + stats.answer_steps == plain->count,
          "%s: steps and right drafts are not as many as tokens", what);
    CHECK(!least || (right >= d->least && right <= d->most),
          "%s: %.2f of the drafts were right, expected %.2f to %.2f", what, right, d->least,
          d->most);
    kim_session_destroy(&s);
}

// most: of the cases
static void test_all_same(const small_model *m, const drafter *drafters, uint32_t most)
{
    static const uint32_t cases[][3] = {
        // sampling, drafter, least
        { 0, 0, 7 }, { 1, 0, 7 }, { 2, 2, 7 }, { 0, 1, 7 }, { 0, 2, 7 }, { 0, 3, 7 },
        { 0, 0, 0 }, { 0, 1, 0 }, { 1, 3, 7 }, { 1, 2, 0 }, { 2, 3, 2 },
    };
    answer plain[SAMPLINGS];
    for (uint32_t i = 0; i < SAMPLINGS && i < most; i++) {
        kim_session *s = begin(m, CONTEXT, NULL, 0);
        answer_twice(s, samplings[i].params, most < UINT32_MAX ? 8 : PART, &plain[i]);
        kim_session_destroy(&s);
    }
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases && i < most; i++)
        test_same(m, &samplings[cases[i][0]], &plain[cases[i][0]], &drafters[cases[i][1]],
                  cases[i][2]);
}

// The first token from `from` on that is not among those before it.
static uint32_t first_new(const answer *a, uint32_t from)
{
    for (uint32_t i = from; i < a->count; i++) {
        uint32_t j = 0;
        while (j < i && a->ids[j] != a->ids[i])
            j++;
        if (j == i)
            return i;
    }
    CHECK(false, "the answer has no token that is new");
    return 0;
}

// An answer that ends after n tokens of `whole`, in one of four ways, is a part of it.
static void test_end(const small_model *m, const drafter *d, const answer *whole, kim_sampling p,
                     kim_answer_end how, uint32_t n)
{
    const int32_t stops[] = { whole->ids[n], 0x7fffffff };
    const bool stop = how == KIM_ANSWER_STOP;
    const uint32_t context = how == KIM_ANSWER_CONTEXT ? START + n : CONTEXT;
    answer got = { .enough = how == KIM_ANSWER_CALLER ? n : 0 };
    char what[40];
    snprintf(what, sizeof what, "an end by %d after %u tokens", how, n);
    kim_session *s = begin(m, context, d, DRAFT_MOST);
    kim_sampler *sampler = sampler_of(p), *other = sampler_of(p);
    const kim_answer_end end = answer_of(s, sampler, &got,
                                         (kim_answer_params){
                                             .most = how == KIM_ANSWER_LENGTH ? n : 0,
                                             .stops = stops,
                                             .n_stops = stop ? 2 : 0,
                                         });
    CHECK(end == how, "%s: it ended by %d", what, end);
    (void)check_same(m, &got, whole, n, p, what);
    check_left(m, s, &got, what);
    // the sampler is where plain decoding would have left it
    struct sampling_block block, plain;
    sampler_consume(other, n + stop);
    sampler_fill_block(other, &plain, 0, 1);
    sampler_fill_block(sampler, &block, 0, 1);
    CHECK(block.draws[0] == plain.draws[0], "%s: the sampler is elsewhere", what);
    kim_sampler_destroy(&other);
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&s);
}

// Within a run of right drafts: a stop, the caller, the count, the context.
static void test_ends(const small_model *m, const drafter *d)
{
    const kim_sampling p = { .seed = 4, .temperature = 2, .top_k = UINT32_MAX, .top_p = 1 };
    answer whole = { .count = 0 };
    kim_session *s = begin(m, CONTEXT, NULL, 0);
    kim_sampler *sampler = sampler_of(p);
    (void)answer_of(s, sampler, &whole, (kim_answer_params){ .most = PART, .stops = none });
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&s);
    for (uint32_t n = 0; n < 18; n += 4)
        test_end(m, d, &whole, p, KIM_ANSWER_STOP, first_new(&whole, n));
    for (uint32_t n = 1; n < 18; n += 4) {
        test_end(m, d, &whole, p, KIM_ANSWER_CALLER, n);
        test_end(m, d, &whole, p, KIM_ANSWER_LENGTH, n + 1);
        test_end(m, d, &whole, p, KIM_ANSWER_CONTEXT, n + 2);
    }
}

// A fork, a cut, another prompt: the draft's session finds its way.
static void test_around(const small_model *m, const drafter *d)
{
    const kim_sampling greedy = { .greedy = true };
    const kim_answer_params params = { .most = 20, .stops = none };
    answer a = { .count = 0 }, b = { .count = 0 }, plain = { .count = 0 };
    kim_sampler *sampler = sampler_of(greedy);
    kim_session *s = begin(m, CONTEXT, d, DRAFT_MOST), *forked = NULL;
    (void)answer_of(s, sampler, &a, params);
    CHECK_OK(kim_session_fork(&forked, s));
    b = a;
    (void)answer_of(s, sampler, &a, params);
    (void)answer_of(forked, sampler, &b, params);
    (void)check_same(m, &b, &a, 40, greedy, "of a fork");
    kim_session_destroy(&forked);
    CHECK_OK(kim_session_cut(s, 30));
    CHECK_OK(kim_session_append(s, m->ids + 30, START - 30));
    a.count = 0;
    (void)answer_of(s, sampler, &a, params);
    check_left(m, s, &a, "after a cut");
    kim_session_destroy(&s);
    s = begin(m, CONTEXT, NULL, 0);
    (void)answer_of(s, sampler, &plain, params);
    (void)check_same(m, &a, &plain, 20, greedy, "after a cut");
    kim_session_destroy(&s);
    kim_sampler_destroy(&sampler);
}

static void test_params(kim_gpu *gpu, const small_model *m, kim_model *foreign)
{
    kim_session *s = NULL;
    kim_plan plan, without;
    kim_session_params params = { .context = CONTEXT, .batch = BATCH };
    CHECK_OK(kim_model_plan(m->model, gpu, &params, &without));
    params.draft = m->model;
    CHECK_OK(kim_model_plan(m->model, gpu, &params, &plan));
    CHECK(plan.draft == without.total - without.weights, "%llu bytes are planned for the draft",
          (unsigned long long)plan.draft);
    const uint64_t before = kim_gpu_memory_used(gpu);
    CHECK_OK(kim_session_create(&s, m->model, &params));
    CHECK(kim_gpu_memory_used(gpu) - before == plan.total - plan.weights,
          "the memory is not what was planned");
    kim_session_destroy(&s);
    CHECK_FAILS(kim_session_create(&s, m->model, &(kim_session_params){ .draft = foreign }),
                KIM_ERR_ARGUMENT, "small 4b");
    CHECK(strstr(kim_error_text(), "Kimberlite demo"), "only one is named: %s", kim_error_text());
    CHECK_FAILS(kim_session_create(&s, m->model, &(kim_session_params){ .draft_most = 8 }),
                KIM_ERR_ARGUMENT, "at most 7");
    CHECK_FAILS(kim_session_create(&s, m->model,
                                   &(kim_session_params){ .draft_most = 2, .draft_least = 3 }),
                KIM_ERR_ARGUMENT, "at least 3 and at most 2");
}

// A conversation about a picture: the draft's session has the text alone.
static void test_picture(const char *tests_folder, kim_gpu *gpu, kim_model *draft)
{
    char model_path[300], mmproj[300], file[300];
    kim_model *model = NULL;
    kim_image *image = NULL;
    snprintf(model_path, sizeof model_path, "%s/../examples/demo/demo.gguf", tests_folder);
    snprintf(mmproj, sizeof mmproj, "%s/../examples/demo/demo-mmproj.gguf", tests_folder);
    snprintf(file, sizeof file, "%s/../examples/demo/samples/shapes.png", tests_folder);
    CHECK_OK(kim_model_open(&model, gpu, model_path, &(kim_model_params){ .mmproj = mmproj }));
    CHECK_OK(kim_image_open(&image, file));
    CHECK_OK(kim_images_encode(model, &image, 1, NULL, NULL));
    const kim_image *const images[] = { image };
    const kim_message message = { "user", "What do you see?", images, 1 };
    kim_prompt prompt = { .images = images, .n_images = 1 };
    int32_t *ids;
    CHECK_OK(kim_chat_tokens(model, &message, 1, &ids, &prompt.count));
    prompt.tokens = ids;
    answer a[2] = { { .count = 0 }, { .count = 0 } };
    kim_sampler *sampler = sampler_of((kim_sampling){ .greedy = true });
    for (uint32_t i = 0; i < 2; i++) {
        kim_session *s = NULL;
        kim_session_stats stats;
        CHECK_OK(kim_session_create(&s, model,
                                    &(kim_session_params){ .context = CONTEXT,
                                                           .draft = i ? draft : NULL,
                                                           .lookup = i,
                                                           .draft_least = i ? 3 : 0 }));
        CHECK_OK(kim_session_read(s, &prompt, NULL));
        (void)answer_of(s, sampler, &a[i], (kim_answer_params){ .most = 100 });
        kim_session_get_stats(s, &stats);
        CHECK(!i || stats.accepted > 0, "no draft was right");
        if (i)
            printf("  a picture: %u tokens in %llu steps, %llu of %llu drafts right\n", a[i].count,
                   (unsigned long long)stats.answer_steps, (unsigned long long)stats.accepted,
                   (unsigned long long)stats.drafted);
        kim_session_destroy(&s);
    }
    CHECK(a[0].count > 20 && a[0].count == a[1].count &&
              !memcmp(a[0].ids, a[1].ids, a[0].count * sizeof *a[0].ids),
          "the picture is described otherwise, in %u tokens and %u", a[0].count, a[1].count);
    kim_sampler_destroy(&sampler);
    kim_free(ids);
    kim_image_destroy(&image);
    kim_model_destroy(&model);
}

int main(int argc, char **argv)
{
    model_options o = { .limit = UINT32_MAX };
    small_model m, other;
    kim_model *demo = NULL;
    char path[300];
    model_options_read(&o, argc, argv);
    test_lookup();
    test_estimates();
    kim_gpu *gpu = model_gpu(&o);
    small_model_open(&m, o.tests_folder, "4b", gpu);
    small_model_open(&other, o.tests_folder, "head128", gpu);
    snprintf(path, sizeof path, "%s/../examples/demo/demo.gguf", o.tests_folder);
    CHECK_OK(kim_model_open(&demo, gpu, path, NULL));
    const drafter drafters[] = {
        { "the model itself", m.model, false, 0.85, 1 },
        { "another model", other.model, false, 0, 0.3 },
        { "look-up", NULL, true, 0, 1 },
        { "another model and look-up", other.model, true, 0, 1 },
    };
    const bool all = o.limit == UINT32_MAX;
    test_all_same(&m, drafters, o.limit);
    test_params(gpu, &m, demo);
    if (all) { // else ops_test has the ends within a step
        test_ends(&m, &drafters[0]);
        test_around(&m, &drafters[3]);
        test_picture(o.tests_folder, gpu, demo);
    }
    kim_model_destroy(&demo);
    small_model_close(&m);
    small_model_close(&other);
    model_gpu_finish(&gpu);
    return 0;
}
