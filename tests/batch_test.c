// SPDX-License-Identifier: MIT
// Many sessions together: each answers as it does alone, whatever comes and goes beside it.
//
//   batch_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation]
//              [--limit N]
//
// Texts are those of the built-in model, which was trained: no rounding turns its words.
#include "model_support.h"

#include <math.h>
#include <pthread.h>

#include "engine/batch.h"

enum { MOST_IDS = 512, MOST_TOKENS = 256 };

typedef struct scene {
    kim_gpu *gpu;
    kim_model *model;
    kim_image *shapes, *stars;
    int32_t image_token;
    uint32_t image_tokens;
    kim_kv_type kv;
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
    const kim_request r = request_of(a);
    a->batch = batch;
    a->n = a->ends = 0;
    CHECK_OK(kim_batch_add(batch, &r, &a->id));
}

static kim_batch *new_batch(const scene *s, kim_batch_params params)
{
    kim_batch *batch = NULL;
    kim_plan plan;
    const uint64_t before = kim_gpu_memory_used(s->gpu);
    params.kv_type = s->kv;
    CHECK_OK(kim_batch_plan(s->model, s->gpu, &params, &plan));
    CHECK_OK(kim_batch_create(&batch, s->model, &params));
    const uint64_t taken = kim_gpu_memory_used(s->gpu) - before;
    CHECK(taken == plan.kv_local + plan.kv_global + plan.activations,
          "%llu bytes were taken, other than planned", (unsigned long long)taken);
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
    CHECK_OK(kim_session_create(&session, s->model,
                                &(kim_session_params){ .context = context, .kv_type = s->kv }));
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
        CHECK(a->got[i] == want.got[i], "%s: token %u is %d, alone %d (%g, %g)", a->name, i,
              a->got[i], want.got[i], (double)a->logprobs[i], (double)want.logprobs[i]);
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

// most: tokens of each, of fewer that see nothing; 0: to their ends
static void test_together(const scene *s, uint32_t most)
{
    const uint32_t n = most ? 4 : 6;
    static const char *const texts[] = {
        "What do you see?", "Hello! Who are you?",       "What do you see?",
        "What can you do?", "How many stars are there?", "Tell me about colours and shapes.",
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
    kim_batch *batch =
        new_batch(s, (kim_batch_params){ .sessions = 3, .context = 128, .piece = 16 });
    for (uint32_t i = 0; i < n; i++) {
        q[i] = (asked){ .name = texts[i], .sampling = samplings[i] };
        q[i].image = most ? NULL : i == 0 ? s->shapes : i == 2 || i == 4 ? s->stars : NULL;
        q[i].most = i == 5 ? 5 : most;
        ask_one(s, &q[i], texts[i]);
    }
    q[0].on_token = add_other, q[0].other = &q[3];
    if (n == 6) {
        q[3].on_end = add_at_end, q[3].other = &q[4];
        q[1].on_token = add_other, q[1].other = &q[5];
    }
    for (uint32_t i = 0; i < 3; i++)
        add(batch, &q[i]);
    CHECK_OK(kim_batch_run(batch));
    for (uint32_t i = 0; i < n; i++)
        check_as_alone(s, &q[i], 128, true);
    kim_batch_destroy(&batch);
}

// ------------------------------------------------------------------------------------- how it ends

static const int32_t never[1]; // no stops

static void cancel_other(asked *a)
{
    const asked *other = a->other;
    if (a->n == 4)
        CHECK(kim_batch_cancel(a->batch, other->id), "%s has ended already", other->name);
}

static void check_cancelled(const scene *s, const asked *a, uint32_t context)
{
    CHECK(a->ends == 1 && !a->end.err && a->end.end == KIM_ANSWER_CALLER,
          "%s: ended %u times, by %d", a->name, a->ends, a->end.end);
    if (a->n)
        check_as_alone(s, a, context, false);
}

static void test_ends(const scene *s)
{
    static const char *const names[] = {
        "to the end of the context", "has enough", "cancels", "is cancelled",
        "cancelled while it waits",  "goes on"
    };
    printf("ends\n");
    kim_batch *batch = new_batch(s, (kim_batch_params){ .sessions = 4, .context = 48 });
    for (uint32_t i = 0; i < 6; i++) {
        q[i] = (asked){ .name = names[i], .sampling = { .seed = i + 1 }, .stops = never };
        ask_one(s, &q[i], i % 2 ? "What is this?" : "Hello! Tell me about stars.");
    }
    q[1].enough = 7;
    q[2].on_token = cancel_other, q[2].other = &q[3];
    for (uint32_t i = 0; i < 6; i++)
        add(batch, &q[i]);
    CHECK(kim_batch_cancel(batch, q[4].id), "a request that waits cannot be cancelled");
    CHECK(!kim_batch_cancel(batch, 99), "a request that never was can be cancelled");
    CHECK_OK(kim_batch_run(batch));
    CHECK(!kim_batch_cancel(batch, q[0].id), "a request that has ended can be cancelled");
    CHECK(q[0].end.end == KIM_ANSWER_CONTEXT && q[0].count + q[0].n == 48,
          "%u tokens in a context of 48, end %d", q[0].count + q[0].n, q[0].end.end);
    CHECK(q[1].end.end == KIM_ANSWER_CALLER && q[1].n == 7, "%u tokens were enough", q[1].n);
    CHECK(q[3].n >= 2 && q[3].n <= 6, "%u tokens of the one that was cancelled", q[3].n);
    CHECK(!q[4].n, "%u tokens of the one that waited", q[4].n);
    for (uint32_t i = 0; i < 6; i++) {
        if (i == 3 || i == 4 || i == 1)
            check_cancelled(s, &q[i], 48);
        else
            check_as_alone(s, &q[i], 48, true);
    }
    kim_batch_destroy(&batch);
}

static bool stop_reading(void *user, uint64_t done, uint64_t total)
{
    CHECK(done < total, "%llu of %llu tokens were read", (unsigned long long)done,
          (unsigned long long)total);
    return ++*(uint32_t *)user < 2;
}

// Requests that fail, fail alone.
static void test_errors(const scene *s)
{
    printf("errors\n");
    kim_batch *batch = new_batch(s, (kim_batch_params){ .sessions = 2, .context = 96, .piece = 4 });
    for (uint32_t i = 0; i < 3; i++) {
        q[i] = (asked){ .name = i ? "is stopped while it is read" : "goes on beside errors",
                        .sampling = { .greedy = true } };
        ask_one(s, &q[i], "What can you do?");
    }
    add(batch, &q[0]);
    CHECK_OK(kim_batch_step(batch, NULL));
    kim_request r = request_of(&q[1]);
    const int32_t bad[] = { 2, -7 };
    r.prompt.tokens = bad, r.prompt.count = 2;
    CHECK_FAILS(kim_batch_add(batch, &r, NULL), KIM_ERR_ARGUMENT, "-7");
    r = request_of(&q[1]), r.prompt.count = 96;
    CHECK_FAILS(kim_batch_add(batch, &r, NULL), KIM_ERR_CONTEXT_FULL, "96");
    r = request_of(&q[1]), r.sampling.top_p = 2;
    CHECK_FAILS(kim_batch_add(batch, &r, NULL), KIM_ERR_ARGUMENT, "top_p");
    r = request_of(&q[1]), r.answer.stops = q[1].ids, r.answer.n_stops = 17;
    CHECK_FAILS(kim_batch_add(batch, &r, NULL), KIM_ERR_ARGUMENT, "17");
    r = request_of(&q[1]), r.prompt.images = (const kim_image *const[]){ s->stars };
    r.prompt.n_images = 1;
    CHECK_FAILS(kim_batch_add(batch, &r, NULL), KIM_ERR_ARGUMENT, "more of them");
    // of other tokens, so that none of them is kept: it is read in pieces of 4
    uint32_t pieces = 0;
    memset(q[1].ids, 0, q[1].count * sizeof *q[1].ids);
    r = request_of(&q[1]), r.prompt.progress = stop_reading, r.prompt.progress_user = &pieces;
    CHECK_OK(kim_batch_add(batch, &r, NULL));
    CHECK_OK(kim_batch_run(batch));
    CHECK(pieces == 2, "%u pieces were read after the prompt was stopped at the second", pieces);
    check_cancelled(s, &q[1], 96);
    check_as_alone(s, &q[0], 96, true);
    kim_batch_destroy(&batch);
    const kim_batch_params many = { .sessions = 65 };
    CHECK_FAILS(kim_batch_create(&batch, s->model, &many), KIM_ERR_ARGUMENT, "65");
}

// -------------------------------------------------------------------------------------------
// pieces

// Where the pieces of a prompt ended.
typedef struct borders {
    uint32_t at[64], count;
} borders;

static bool note_border(void *user, uint64_t done, uint64_t total)
{
    borders *b = user;
    CHECK(b->count < 64 && done <= total, "%llu of %llu tokens", (unsigned long long)done,
          (unsigned long long)total);
    b->at[b->count++] = (uint32_t)done;
    return true;
}

// None is longer than `piece`, but where a picture is longer, and none parts the picture.
static void check_borders(const borders *b, uint32_t piece, uint32_t image_at, uint32_t tokens)
{
    for (uint32_t i = 0, from = 0; i < b->count; from = b->at[i++]) {
        CHECK(b->at[i] <= image_at || b->at[i] >= image_at + tokens,
              "a piece ends at %u, within the picture at %u", b->at[i], image_at);
        CHECK(b->at[i] - from <= piece || (from == image_at && b->at[i] == image_at + tokens),
              "a piece of %u tokens at %u", b->at[i] - from, from);
    }
}

// A long prompt with a picture at the border of two pieces.
static void ask_long(const scene *s, asked *a, const asked *filler, uint32_t length)
{
    a->image = s->shapes;
    ask_one(s, a, "What do you see?");
    const uint32_t tail = a->count - 4; // the picture is in it
    memmove(&a->ids[length - tail], &a->ids[4], tail * sizeof *a->ids);
    for (uint32_t i = 4; i < length - tail; i++)
        a->ids[i] = filler->ids[i % 7 + 1];
    a->count = length;
}

// A long prompt holds up what is answered by no more than a piece: every step gives a token.
static void test_pieces(const scene *s, uint32_t piece, uint32_t length)
{
    borders pieces = { .count = 0 };
    uint32_t image_at = 0, steps = 0;
    printf("pieces of %u\n", piece);
    kim_batch *batch =
        new_batch(s, (kim_batch_params){ .sessions = 2, .context = 256, .piece = piece });
    for (uint32_t i = 0; i < 2; i++)
        q[i] = (asked){ .name = i ? "long" : "short", .sampling = { .seed = 5 }, .stops = never };
    ask_one(s, &q[0], "Hello!");
    ask_long(s, &q[1], &q[0], length);
    q[0].most = 40, q[1].most = 8;
    while (q[1].ids[image_at] != s->image_token)
        image_at++;
    CHECK(image_at / piece < (image_at + s->image_tokens - 1) / piece,
          "no border is in the picture");
    add(batch, &q[0]);
    do
        CHECK_OK(kim_batch_step(batch, NULL));
    while (q[0].n < 3);
    const uint32_t before = q[0].n;
    kim_request r = request_of(&q[1]);
    r.prompt.progress = note_border, r.prompt.progress_user = &pieces;
    CHECK_OK(kim_batch_add(batch, &r, NULL));
    for (; !q[1].n; steps++)
        CHECK_OK(kim_batch_step(batch, NULL));
    const uint32_t tokens = q[0].n - before;
    printf("  %u tokens in %u pieces, meanwhile %u steps, %u tokens\n", length, pieces.count, steps,
           tokens);
    check_borders(&pieces, piece, image_at, s->image_tokens);
    CHECK(pieces.at[pieces.count - 1] == length, "the last piece ends at %u",
          pieces.at[pieces.count - 1]);
    CHECK(tokens == steps && steps == pieces.count + 1, "%u tokens came in %u steps", tokens,
          steps);
    CHECK_OK(kim_batch_run(batch));
    // alone, both, alone: for each of the two streams
    const uint64_t recorded = stats_of(batch).recorded;
    CHECK(recorded <= 6, "%llu steps were recorded for three sets of answers",
          (unsigned long long)recorded);
    for (uint32_t i = 0; i < 2; i++)
        check_as_alone(s, &q[i], 256, true);
    kim_batch_destroy(&batch);
}

static void check_sizes(void)
{
    static const struct {
        uint32_t before;
        double rate;
        uint32_t size;
    } cases[] = {
        { 64, 0, 64 },      { 64, 640, 64 },   { 64, 639, 32 },   { 64, 10, 32 },
        { 64, 1599, 64 },   { 64, 1600, 128 }, { 64, 5000, 256 }, { 256, 2560, 256 },
        { 256, 2559, 128 }, { 256, 100, 32 },  { 64, 1e9, 512 },  { 512, 1e9, 512 },
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint32_t size = batch_piece_size(cases[i].before, cases[i].rate, 0.1, 512);
        CHECK(size == cases[i].size, "after pieces of %u, at %g tokens a second: %u, not %u",
              cases[i].before, cases[i].rate, size, cases[i].size);
    }
}

// What the device is said to read a second after each piece.
static bool change_rate(void *user, uint64_t done, uint64_t total)
{
    asked *a = user;
    borders *b = a->other;
    a->batch->rate = done == 64 ? 2000 : done == 192 ? 10 : a->batch->rate;
    return note_border(b, done, total);
}

// Pieces are as long as the device reads in the time that answers may wait.
static void test_rate(const scene *s)
{
    static const uint32_t ends[] = { 32, 64, 192, 224, 240 };
    enum { ENDS = sizeof ends / sizeof *ends, LENGTH = 240 };
    borders pieces = { .count = 0 };
    printf("pieces by rates\n");
    check_sizes();
    kim_batch *batch = new_batch(s, (kim_batch_params){ .sessions = 2, .context = 256 });
    for (uint32_t i = 0; i < 2; i++)
        q[i] = (asked){ .name = i ? "long" : "short", .sampling = { .seed = 5 }, .stops = never };
    ask_one(s, &q[0], "Hello!");
    ask_one(s, &q[1], "What can you do?");
    const uint32_t tail = q[1].count - 1;
    memmove(&q[1].ids[LENGTH - tail], &q[1].ids[1], tail * sizeof *q[1].ids);
    for (uint32_t i = 1; i < LENGTH - tail; i++)
        q[1].ids[i] = q[0].ids[i % 7 + 1];
    q[1].count = LENGTH;
    q[0].most = 40, q[1].most = 8;
    add(batch, &q[0]);
    while (q[0].n < 3)
        CHECK_OK(kim_batch_step(batch, NULL));
    batch->rate = 400, batch->rate_is_given = true;
    q[1].batch = batch, q[1].other = &pieces;
    kim_request r = request_of(&q[1]);
    r.prompt.progress = change_rate, r.prompt.progress_user = &q[1];
    CHECK_OK(kim_batch_add(batch, &r, NULL));
    CHECK_OK(kim_batch_run(batch));
    CHECK(pieces.count == ENDS, "%u pieces, not %d", pieces.count, ENDS);
    for (uint32_t i = 0; i < ENDS; i++)
        CHECK(pieces.at[i] == ends[i], "piece %u ends at %u, not %u", i, pieces.at[i], ends[i]);
    for (uint32_t i = 0; i < 2; i++)
        check_as_alone(s, &q[i], 256, true);
    batch->rate = 0, batch->rate_is_given = false;
    memset(q[1].ids, 0, sizeof q[1].ids); // so that nothing is kept
    add(batch, &q[1]);
    CHECK_OK(kim_batch_run(batch));
    CHECK(batch->rate > 0, "nothing was measured");
    kim_batch_destroy(&batch);
}

// --------------------------------------------------------------------------------------------
// reuse

// How many tokens of a prompt another request and its answer begin with, where all was read.
static uint32_t common(const asked *a, const asked *before)
{
    uint32_t n = 0;
    while (n + 1 < a->count && n < before->count + before->n &&
           a->ids[n] == (n < before->count ? before->ids[n] : before->got[n - before->count]))
        n++;
    return n;
}

static void run_one(const scene *s, kim_batch *batch, asked *a, uint32_t reused)
{
    const uint64_t before = stats_of(batch).prompt_tokens;
    add(batch, a);
    CHECK_OK(kim_batch_run(batch));
    check_as_alone(s, a, 256, true);
    CHECK(a->end.reused_tokens == reused, "%s: %u tokens were kept, not %u", a->name,
          a->end.reused_tokens, reused);
    CHECK(stats_of(batch).prompt_tokens - before == a->count - reused,
          "%s: %llu tokens were read, not %u", a->name,
          (unsigned long long)(stats_of(batch).prompt_tokens - before), a->count - reused);
}

static char answer_text[1024];

static const char *text_of(const scene *s, const asked *a)
{
    size_t used = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        size_t length;
        const char *bytes = kim_token_bytes(s->model, a->got[i], false, &length);
        CHECK(used + length < sizeof answer_text, "a long answer");
        memcpy(answer_text + used, bytes, length);
        used += length;
    }
    answer_text[used] = 0;
    return answer_text;
}

static const char rules[] = "Look at the picture and say what is there. Count the shapes that are "
                            "red, and those that are blue, and tell me where they are. ";

static void ask_with_rules(const scene *s, asked *a, const char *question)
{
    char text[512];
    snprintf(text, sizeof text, "%s%s", rules, question);
    ask_one(s, a, text);
}

static void test_reuse(const scene *s)
{
    printf("reuse\n");
    kim_batch *batch =
        new_batch(s, (kim_batch_params){ .sessions = 2, .context = 256, .piece = 16 });
    for (uint32_t i = 0; i < 8; i++)
        q[i] = (asked){ .sampling = { .greedy = true }, .image = s->shapes };
    q[0].name = "a conversation";
    ask_one(s, &q[0], "What do you see?");
    run_one(s, batch, &q[0], 0);
    q[1].name = "it goes on";
    ask(s, &q[1], 3,
        (const char *const[]){ "What do you see?", text_of(s, &q[0]),
                               "How many red shapes are there?" });
    CHECK(common(&q[1], &q[0]) == q[0].count + q[0].n, "the answer is read as other tokens");
    run_one(s, batch, &q[1], q[0].count + q[0].n);
    q[2].name = "the same once more: its last token is read";
    q[2] = (asked){
        .name = q[2].name, .sampling = q[1].sampling, .image = q[1].image, .count = q[1].count
    };
    memcpy(q[2].ids, q[1].ids, sizeof q[1].ids);
    run_one(s, batch, &q[2], q[1].count - 1); // a copy: the one before lives on
    q[3].name = "another picture";
    q[3].image = s->stars;
    ask_one(s, &q[3], "What do you see?");
    uint32_t image_at = 0;
    while (q[3].ids[image_at] != s->image_token)
        image_at++;
    run_one(s, batch, &q[3], image_at);
    kim_batch_destroy(&batch);

    // two conversations with the same beginning, in two slots of three; then the first goes on
    batch = new_batch(s, (kim_batch_params){ .sessions = 3, .context = 256, .piece = 16 });
    q[4].name = "rules";
    ask_with_rules(s, &q[4], "What is in the middle?");
    run_one(s, batch, &q[4], 0);
    q[5].name = "the same rules";
    ask_with_rules(s, &q[5], "How many are there?");
    const uint32_t same = common(&q[5], &q[4]);
    CHECK(same >= 40, "the rules are %u tokens", same);
    run_one(s, batch, &q[5], same);
    q[6].name = "the first goes on";
    char first[512];
    snprintf(first, sizeof first, "%sWhat is in the middle?", rules);
    ask(s, &q[6], 3, (const char *const[]){ first, text_of(s, &q[4]), "Where is the star?" });
    CHECK(common(&q[6], &q[4]) == q[4].count + q[4].n, "the answer is read as other tokens");
    run_one(s, batch, &q[6], q[4].count + q[4].n);
    // beside one that is being answered, from what it has read
    q[4].name = "rules, beside";
    q[5].name = "rules, from one that is being answered";
    q[4].ids[30] = q[5].ids[30] = q[5].ids[31]; // so that no kept one is as long
    q[4].stops = q[5].stops = never;
    q[4].most = 40, q[5].most = 9;
    q[4].on_token = add_other, q[4].other = &q[5];
    add(batch, &q[4]);
    CHECK_OK(kim_batch_run(batch));
    check_as_alone(s, &q[4], 256, true);
    check_as_alone(s, &q[5], 256, true);
    CHECK(q[5].end.reused_tokens == same, "%u tokens were kept, not %u", q[5].end.reused_tokens,
          same);
    kim_batch_destroy(&batch);
}

// Of two slots, a third conversation takes the one that was not used for longest.
static void test_oldest(const scene *s)
{
    static const char *const texts[] = { "What do you see?", "Hello!", "What can you do?" };
    printf("the oldest goes\n");
    kim_batch *batch = new_batch(s, (kim_batch_params){ .sessions = 2, .context = 256 });
    for (uint32_t i = 0; i < 5; i++) {
        q[i] =
            (asked){ .name = i < 3 ? "one after the other" : "goes on", .sampling = { .seed = 1 } };
        if (i < 3)
            ask_one(s, &q[i], texts[i]);
        else // the second goes on, then the first
            ask(s, &q[i], 3,
                (const char *const[]){ texts[4 - i], text_of(s, &q[4 - i]), "Thank you." });
        add(batch, &q[i]);
        CHECK_OK(kim_batch_run(batch));
        check_as_alone(s, &q[i], 256, true);
    }
    CHECK(q[3].end.reused_tokens == q[1].count + q[1].n, "of the second, %u tokens were kept",
          q[3].end.reused_tokens);
    CHECK(q[4].end.reused_tokens < q[0].count, "of the first, %u tokens were kept",
          q[4].end.reused_tokens);
    kim_batch_destroy(&batch);
}

// ------------------------------------------------------------------------------------ small rings

// Local layers that see 16 positions: what has gone on too far is not gone on from.
static void test_rings(scene *of, const char *tests_folder)
{
    // tokens of the one before that the prompt begins with, and those that can be kept of them
    static const struct {
        const char *name;
        uint32_t begins, count, kept;
    } cases[] = {
        { "from nothing", 0, 200, 0 },
        { "goes back too far", 90, 120, 0 },
        { "of the first one, copied", 190, 220, 190 },
        { "of the copy, copied again", 200, 210, 200 },
        { "of the second one", 150, 180, 90 },
    };
    small_model m;
    scene s = *of;
    printf("small rings%s\n", s.kv == KIM_KV_Q8_0 ? " in 8 bits" : "");
    small_model_open(&m, tests_folder, "4b", s.gpu);
    s.model = m.model;
    kim_batch *batch = new_batch(
        &s, (kim_batch_params){ .sessions = 5, .context = 256, .batch = 32, .piece = 16 });
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        q[i] = (asked){ .name = cases[i].name,
                        .sampling = { .greedy = true },
                        .stops = never,
                        .count = cases[i].count,
                        .most = 10 };
        for (uint32_t k = 0; k < cases[i].count; k++)
            q[i].ids[k] = m.ids[k < cases[i].begins ? k : (k * 7 + i) % m.count];
        if (i == 0)
            memcpy(q[i].ids, m.ids, sizeof *m.ids * cases[i].count);
        run_one(&s, batch, &q[i], cases[i].kept);
    }
    kim_batch_destroy(&batch);
    small_model_close(&m);
}

// ---------------------------------------------------------------------------------------- threads

static bool in_time; // the one that was cancelled had not ended

static void *add_all(void *argument)
{
    kim_batch *batch = argument;
    for (uint32_t i = 1; i < 8; i++) {
        add(batch, &q[i]);
        if (i == 5)
            in_time = kim_batch_cancel(batch, q[i].id);
    }
    return NULL;
}

// Requests come from another thread while this one steps.
static void test_threads(const scene *s)
{
    pthread_t thread;
    bool idle = false;
    printf("threads\n");
    kim_batch *batch =
        new_batch(s, (kim_batch_params){ .sessions = 4, .context = 64, .piece = 16 });
    for (uint32_t i = 0; i < 8; i++) {
        q[i] = (asked){ .name = "of another thread", .sampling = { .seed = i + 1 } };
        ask_one(s, &q[i], i % 2 ? "What can you do?" : "Hello!");
    }
    add(batch, &q[0]);
    CHECK(!pthread_create(&thread, NULL, add_all, batch), "no thread can be made");
    for (uint32_t i = 0; i < 20 || !idle; i++)
        CHECK_OK(kim_batch_step(batch, &idle));
    pthread_join(thread, NULL);
    CHECK_OK(kim_batch_run(batch));
    if (in_time)
        check_cancelled(s, &q[5], 64);
    for (uint32_t i = 0; i < 8; i++)
        if (i != 5 || !in_time)
            check_as_alone(s, &q[i], 64, true);
    kim_batch_destroy(&batch);
}

static void scene_open(scene *s, const char *tests_folder, bool pictures)
{
    char model[512], mmproj[512], path[512];
    kim_image *images[2];
    snprintf(model, sizeof model, "%s/../examples/demo/demo.gguf", tests_folder);
    snprintf(mmproj, sizeof mmproj, "%s/../examples/demo/demo-mmproj.gguf", tests_folder);
    CHECK_OK(kim_model_open(&s->model, s->gpu, model, &(kim_model_params){ .mmproj = mmproj }));
    snprintf(path, sizeof path, "%s/../examples/demo/samples/shapes.png", tests_folder);
    CHECK_OK(kim_image_open(&s->shapes, path));
    snprintf(path, sizeof path, "%s/../examples/demo/samples/stars.png", tests_folder);
    CHECK_OK(kim_image_open(&s->stars, path));
    images[0] = s->shapes;
    images[1] = s->stars;
    if (pictures)
        CHECK_OK(kim_images_encode(s->model, images, 2, NULL, NULL));
    s->image_token = kim_model_get_info(s->model)->image_token;
    s->image_tokens = kim_model_get_info(s->model)->image_tokens;
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
    scene_open(&s, o.tests_folder, !o.limit);
    test_together(&s, o.limit);
    if (o.limit) // a slow driver: that its shaders do the same is what matters
        goto done;
    test_ends(&s);
    test_errors(&s);
    test_pieces(&s, 16, 196);
    test_pieces(&s, 5, 60);
    test_rate(&s);
    test_reuse(&s);
    test_oldest(&s);
    test_rings(&s, o.tests_folder);
    s.kv = KIM_KV_Q8_0;
    test_rings(&s, o.tests_folder);
    s.kv = KIM_KV_F16;
    test_threads(&s);
done:
    scene_close(&s);
    model_gpu_finish(&s.gpu);
    return 0;
}
