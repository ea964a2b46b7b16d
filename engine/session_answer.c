// SPDX-License-Identifier: MIT
// Answers: tokens are drawn on the device, which goes on with the next step meanwhile.
//
// Step 0 draws from the logits there are, step i > 0 reads token i - 1 and draws token i. The two
// streams of the steps take turns, so that one runs while the host looks at what the other left and
// hands it in again: nothing is recorded, and the device never waits for the host. What the host
// has not seen yet when an answer ends was in vain: at most STEPS_AHEAD steps.
#include "session.h"

#include "sampler.h"

#include "host/error.h"

#include <string.h>

#define STEPS_AHEAD 2

typedef struct generation {
    kim_session *s;
    kim_sampler *sampler;
    const kim_answer_params *params;
    uint32_t position;  // at which token 0 will stand
    uint32_t most;      // tokens that will be given out at most
    bool to_the_end;    // the context has no room for more
    uint32_t submitted; // steps
    uint32_t given;     // tokens given out
} generation;

static kim_err check(const kim_session *s, const kim_sampler *sampler, const kim_answer_params *p)
{
    if (!s || !sampler || !p)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_session_answer: no session, sampler or params");
    if (!s->has_logits)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_session_answer: the session has no logits; read a "
                                          "token first");
    if (p->stops && p->n_stops > SAMPLING_MAX_STOPS)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_session_answer: %u stop tokens, expected at most %u",
                        p->n_stops, SAMPLING_MAX_STOPS);
    return KIM_OK;
}

static sample_params sample_of(const kim_session *s, bool greedy)
{
    const session_memory *mem = &s->memory;
    return (sample_params){
        .logits = &mem->logits,
        .control = &mem->control,
        .history = &mem->history,
        .sampling = &mem->sampling,
        .scratch = &mem->sample_scratch,
        .results = &mem->results,
        .vocab = s->model->files.draw_limit,
        .greedy = greedy,
    };
}

// The streams of a greedy answer differ from those of others.
static kim_err record(kim_session *s, bool greedy)
{
    kim_err err = KIM_OK;
    answer_streams *a = &s->answer;
    const sample_params sample = sample_of(s, greedy);
    const span logits = span_part(&s->memory.logits, 0, s->memory.logits_back.bytes);
    if (a->recorded && a->greedy == greedy)
        return KIM_OK;
    a->recorded = false;
    TRY(stream_reset(a->first));
    stream_set_section(a->first, "sampling", UINT32_MAX);
    TRY(stream_copy(a->first, &logits, &s->memory.logits_back));
    TRY(op_sample(a->first, &sample));
    for (uint32_t i = 0; i < STEPS_AHEAD; i++) {
        TRY(stream_reset(a->steps[i]));
        TRY(forward_record(a->steps[i], s->model, &s->memory, 1, STEP_ON_DEVICE, 0));
        stream_set_section(a->steps[i], "sampling", UINT32_MAX);
        TRY(op_sample(a->steps[i], &sample));
    }
    a->recorded = true;
    a->greedy = greedy;
error:
    return err;
}

static stream *stream_of(const kim_session *s, uint32_t step)
{
    return step ? s->answer.steps[step % STEPS_AHEAD] : s->answer.first;
}

static void write_state(const generation *g)
{
    const session_memory *mem = &g->s->memory;
    uint32_t *control = span_map(&mem->control);
    struct sampling_block *sampling = span_map(&mem->sampling);
    control[CONTROL_POSITION] = g->position - 1; // of the row whose logits these are
    control[CONTROL_STEP] = control[CONTROL_STOPPED] = 0;
    memcpy(span_map(&mem->history), g->s->tokens, g->position * sizeof *g->s->tokens);
    int32_t ends[TOKENIZER_MOST_ENDS];
    const int32_t *stops = g->params->stops;
    sampling->n_stops = g->params->n_stops;
    if (!stops) {
        const tokenizer *t = g->s->model->tokens;
        sampling->n_stops = t ? tokenizer_list_ends(t, ends) : 0;
        stops = ends;
    }
    memcpy(sampling->stops, stops, sampling->n_stops * sizeof *sampling->stops);
    sampler_fill_block(g->sampler, sampling, 0, SAMPLE_DRAWS);
}

static kim_err submit_next(generation *g)
{
    kim_err err = KIM_OK;
    if (g->submitted == g->most)
        return KIM_OK;
    stream *st = stream_of(g->s, g->submitted);
    stream_set_position(st, g->position + g->submitted - 1); // step 0 reads none
    TRY(stream_submit(st));
    g->submitted++;
error:
    return err;
}

// Takes what step `g->given` drew. The random numbers of steps that run are not changed: they are
// written again as they are.
static kim_err take_result(const generation *g, kim_answer_token *out, bool *stop)
{
    const session_memory *mem = &g->s->memory;
    const uint32_t step = g->given;
    const uint32_t *result =
        (const uint32_t *)span_map(&mem->results) + (uint64_t)(step % SAMPLE_SLOTS) * 4;
    const uint32_t status = result[SAMPLE_RESULT_STATUS];
    if (result[SAMPLE_RESULT_MARK] != step + 1)
        return kim_fail(KIM_ERR_VULKAN,
                        "the device left no token of step %u (found a mark of %u): its driver is "
                        "broken",
                        step, result[SAMPLE_RESULT_MARK]);
    if (status == SAMPLE_ODD || status == SAMPLE_NOTHING)
        return sampler_fail_logits(status == SAMPLE_ODD, result[SAMPLE_RESULT_ID],
                                   g->s->model->files.draw_limit);
    memcpy(&out->id, &result[SAMPLE_RESULT_ID], sizeof out->id);
    memcpy(&out->logprob, &result[SAMPLE_RESULT_LOGPROB], sizeof out->logprob);
    *stop = status == SAMPLE_STOP;
    sampler_consume(g->sampler, 1);
    if ((step + 1) % (SAMPLE_DRAWS / 2) == 0)
        sampler_fill_block(g->sampler, span_map(&mem->sampling), step + 1, SAMPLE_DRAWS);
    return KIM_OK;
}

static kim_err run(generation *g, kim_answer_end *end)
{
    kim_err err = KIM_OK;
    const kim_answer_params *p = g->params;
    kim_session *s = g->s;
    *end = g->to_the_end ? KIM_ANSWER_CONTEXT : KIM_ANSWER_LENGTH;
    for (uint32_t i = 0; i < STEPS_AHEAD; i++)
        TRY(submit_next(g));
    while (g->given < g->most) {
        kim_answer_token token;
        bool stop = false;
        TRY(stream_wait(stream_of(s, g->given)));
        TRY(take_result(g, &token, &stop));
        if (stop) {
            *end = KIM_ANSWER_STOP;
            break;
        }
        s->tokens[g->position + g->given++] = token.id;
        TRY(submit_next(g));
        if (p->token && !p->token(p->user, &token)) {
            *end = KIM_ANSWER_CALLER;
            break;
        }
    }
error:
    return err;
}

// Waits for what still runs, and leaves the session as if the tokens given out had been appended.
static kim_err settle(generation *g, bool stopped)
{
    kim_err err = KIM_OK;
    kim_session *s = g->s;
    for (uint32_t i = 0; i < STEPS_AHEAD; i++)
        TRY(stream_wait(s->answer.steps[i]));
    if (s->written < g->position + g->submitted)
        s->written = g->position + g->submitted;
    s->position = g->position + g->given;
    s->has_logits = !g->given;
    if (!g->given || stopped) // a stop was drawn from the logits of the last token: it is read
        return KIM_OK;
    const int32_t last = s->tokens[--s->position];
    TRY(kim_session_append(s, &last, 1));
error:
    return err;
}

kim_err kim_session_answer(kim_session *s, kim_sampler *sampler, const kim_answer_params *p,
                           kim_answer_end *end)
{
    kim_err err = KIM_OK;
    kim_answer_end ended;
    TRY(check(s, sampler, p));
    const uint32_t room = s->context - s->position;
    generation g = {
        .s = s,
        .sampler = sampler,
        .params = p,
        .position = s->position,
        .most = p->most && p->most <= room ? p->most : room,
        .to_the_end = !p->most || p->most > room,
    };
    TRY(record(s, sampler_is_greedy(sampler)));
    write_state(&g);
    err = run(&g, &ended);
    if (err) {
        for (uint32_t i = 0; i < STEPS_AHEAD; i++)
            (void)stream_wait(s->answer.steps[i]); // the first error is the one that counts
        s->position = g.position;
        s->written = UINT32_MAX; // the rings hold what is not known: they are made again
        s->has_logits = false;
        return err;
    }
    TRY(settle(&g, ended == KIM_ANSWER_STOP));
    if (end)
        *end = ended;
error:
    return err;
}
