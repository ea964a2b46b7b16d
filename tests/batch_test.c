// SPDX-License-Identifier: MIT
// Many sessions together: each answers as it does alone, whatever comes and goes beside it.
//
//   batch_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation]
//
// Texts are those of the built-in model, which was trained: no rounding turns its words.
#include "model_support.h"

#include <math.h>
#include <pthread.h>

enum { MOST_IDS = 512, MOST_TOKENS = 256 };

typedef struct scene {
    kim_gpu *gpu;
    kim_model *model;
    kim_image *shapes, *stars;
    uint32_t image_tokens;
} scene;

// A request, and what came of it.
typedef struct asked {
    const char *name;
    int32_t ids[MOST_IDS];
    uint32_t count;
    const kim_image *image; // NULL: none
    kim_sampling sampling;
    uint32_t most, enough; // enough: the callback ends the answer; 0: it does not
    const int32_t *stops;
    uint32_t n_stops;
    void (*on_token)(struct asked *a); // after each
    void (*on_end)(struct asked *a);
    void *other; // of these two

    kim_batch *batch;
    uint64_t id;
    int32_t got[MOST_TOKENS];
    float logprobs[MOST_TOKENS];
    uint32_t n, ends;
    kim_request_end end;
    char error[256];
} asked;

static bool take(void *user, const kim_answer_token *token)
{
    asked *a = user;
    CHECK(!a->ends, "%s: a token after the end", a->name);
    CHECK(a->n < MOST_TOKENS, "%s: more tokens than there can be", a->name);
    a->got[a->n] = token->id;
    a->logprobs[a->n++] = token->logprob;
    if (a->on_token)
        a->on_token(a);
    return a->n != a->enough;
}

static void ended(void *user, const kim_request_end *end)
{
    asked *a = user;
    CHECK(end->answer_tokens == a->n, "%s: %u tokens are said to be given out, not %u", a->name,
          end->answer_tokens, a->n);
    snprintf(a->error, sizeof a->error, "%s", end->error);
    a->end = *end;
    a->ends++;
    if (a->on_end)
        a->on_end(a);
}

static kim_request request_of(asked *a)
{
    return (kim_request){
        .prompt = { .tokens = a->ids,
                    .count = a->count,
                    .images = &a->image,
                    .n_images = a->image != NULL },
        .sampling = a->sampling,
        .answer = { .most = a->most,
                    .stops = a->stops,
                    .n_stops = a->n_stops,
                    .token = take,
                    .user = a },
        .ended = ended,
    };
}

static void add(kim_batch *batch, asked *a)
{
    const kim_request request = request_of(a);
    a->batch = batch;
    a->n = a->ends = 0;
    CHECK_OK(kim_batch_add(batch, &request, &a->id));
}

static kim_batch *new_batch(const scene *s, kim_batch_params params)
{
    kim_batch *batch = NULL;
    CHECK_OK(kim_batch_create(&batch, s->model, &params));
    return batch;
}

static kim_batch_stats stats_of(const kim_batch *batch)
{
    kim_batch_stats stats;
    kim_batch_get_stats(batch, &stats);
    return stats;
}

// Turns of a conversation: the user's and the model's by turns, the picture with the first.
static void ask(const scene *s, asked *a, uint32_t turns, const char *const *texts)
{
    kim_message messages[8] = { 0 };
    int32_t *ids;
    for (uint32_t i = 0; i < turns; i++) {
        messages[i].role = i % 2 ? "assistant" : "user";
        messages[i].text = texts[i];
    }
    messages[0].images = &a->image;
    messages[0].n_images = a->image != NULL;
    CHECK_OK(kim_chat_tokens(s->model, messages, turns, &ids, &a->count));
    CHECK(a->count <= MOST_IDS, "%s: a prompt of %u tokens", a->name, a->count);
    memcpy(a->ids, ids, a->count * sizeof *ids);
    kim_free(ids);
}

static void ask_one(const scene *s, asked *a, const char *text)
{
    ask(s, a, 1, &text);
}

// What a session of its own answers.
static void answer_alone(const scene *s, const asked *a, uint32_t context, asked *want)
{
    kim_session *session = NULL;
    kim_sampler *sampler = NULL;
    *want = *a;
    want->n = want->ends = 0;
    want->on_token = NULL;
    const kim_request r = request_of(want);
    CHECK_OK(kim_session_create(&session, s->model, &(kim_session_params){ .context = context }));
    CHECK_OK(kim_session_read(session, &r.prompt, NULL));
    CHECK_OK(kim_sampler_create(&sampler, &a->sampling));
    CHECK_OK(kim_session_answer(session, sampler, &r.answer, &want->end.end));
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&session);
}

// As many tokens of the answer as were given out; all of it with the same end, if `whole`.
static void check_as_alone(const scene *s, const asked *a, uint32_t context, bool whole)
{
    static asked want;
    double worst = 0;
    answer_alone(s, a, context, &want);
    CHECK(a->ends == 1, "%s: it ended %u times", a->name, a->ends);
    CHECK(!a->end.err, "%s: failed: %s", a->name, a->error);
    CHECK(!whole || (a->n == want.n && a->end.end == want.end.end),
          "%s: %u tokens and end %d, not %u and %d", a->name, a->n, a->end.end, want.n,
          want.end.end);
    CHECK(a->n <= want.n, "%s: %u tokens, alone %u", a->name, a->n, want.n);
    for (uint32_t i = 0; i < a->n; i++) {
        CHECK(a->got[i] == want.got[i], "%s: token %u is %d, alone %d (%g, %g)", a->name, i, a->got[i],
              want.got[i], (double)a->logprobs[i], (double)want.logprobs[i]);
        worst = fmax(worst, fabs((double)a->logprobs[i] - (double)want.logprobs[i]));
    }
    printf("  %-40s %3u read, %3u kept, %3u tokens, end %d, off by %.2g\n", a->name,
           a->count - a->end.reused_tokens, a->end.reused_tokens, a->n, a->end.end, worst);
    CHECK(worst < 0.02, "%s: log-probabilities are off by %g", a->name, worst);
}

static void add_other(asked *a)
{
    if (a->n == 3)
        add(a->batch, a->other);
}

static void add_at_end(asked *a)
{
    add(a->batch, a->other);
}

static asked q[8];

static void test_together(const scene *s)
{
    static const char *const texts[] = {
        "What do you see?", "Hello! Who are you?", "What do you see?", "What can you do?",
        "How many stars are there?", "Tell me about colours and shapes.",
    };
    static const kim_sampling samplings[] = {
        { .greedy = true },
        { .seed = 1 },
        { .seed = 2, .temperature = 1.5f, .top_k = UINT32_MAX, .top_p = 0.9f },
        { .seed = 3, .min_p = 0.05f, .repeat_penalty = 1.3f, .repeat_last = 20 },
        { .greedy = true },
        { .seed = 4, .temperature = 0.7f },
    };
    printf("together\n");
    kim_batch *batch = new_batch(s, (kim_batch_params){ .sessions = 3, .context = 128, .piece = 16 });
    for (uint32_t i = 0; i < 6; i++) {
        q[i] = (asked){ .name = texts[i], .sampling = samplings[i] };
        q[i].image = i == 0 ? s->shapes : i == 2 || i == 4 ? s->stars : NULL;
        q[i].most = i == 5 ? 5 : 0;
        ask_one(s, &q[i], texts[i]);
    }
    q[0].on_token = add_other, q[0].other = &q[3];
    q[3].on_end = add_at_end, q[3].other = &q[4];
    q[1].on_token = add_other, q[1].other = &q[5];
    for (uint32_t i = 0; i < 3; i++)
        add(batch, &q[i]);
    CHECK_OK(kim_batch_run(batch));
    for (uint32_t i = 0; i < 6; i++)
        check_as_alone(s, &q[i], 128, true);
    kim_batch_destroy(&batch);
}

static void scene_open(scene *s, const char *tests_folder)
{
    char model[512], mmproj[512], picture[512];
    kim_image *images[2];
    snprintf(model, sizeof model, "%s/../examples/demo/demo.gguf", tests_folder);
    snprintf(mmproj, sizeof mmproj, "%s/../examples/demo/demo-mmproj.gguf", tests_folder);
    CHECK_OK(kim_model_open(&s->model, s->gpu, model, &(kim_model_params){ .mmproj = mmproj }));
    snprintf(picture, sizeof picture, "%s/../examples/demo/samples/shapes.png", tests_folder);
    CHECK_OK(kim_image_open(&s->shapes, picture));
    snprintf(picture, sizeof picture, "%s/../examples/demo/samples/stars.png", tests_folder);
    CHECK_OK(kim_image_open(&s->stars, picture));
    images[0] = s->shapes;
    images[1] = s->stars;
    CHECK_OK(kim_images_encode(s->model, images, 2, NULL, NULL));
}

static void scene_close(scene *s)
{
    kim_image_destroy(&s->shapes);
    kim_image_destroy(&s->stars);
    kim_model_destroy(&s->model);
}

int main(int argc, char **argv)
{
    model_options o = { 0 };
    scene s = { 0 };
    model_options_read(&o, argc, argv);
    s.gpu = model_gpu(&o);
    scene_open(&s, o.tests_folder);
    test_together(&s);
    (void)stats_of;
    scene_close(&s);
    model_gpu_finish(&s.gpu);
    return 0;
}
