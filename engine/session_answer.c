// SPDX-License-Identifier: MIT
// Answers: tokens are drawn on the device, which goes on with the next step meanwhile.
//
// The first step draws from the logits there are, a further one reads the token that was drawn and
// draws the next. The two streams of the steps take turns, so that one runs while the host looks at
// what the other left and hands it in again: nothing is recorded, and the device never waits for
// the host. What the host has not seen yet when an answer ends was in vain: at most STEPS_AHEAD
// steps. Steps that check drafts are those of speculative.c.
#include "answer.h"

#include "sampler.h"
#include "speculative.h"

#include "host/error.h"

#include <string.h>

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

sample_params session_sample_of(const kim_session *s, bool greedy)
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

kim_err answer_record(kim_session *s, bool greedy)
{
    kim_err err = KIM_OK;
    answer_streams *a = &s->answer;
    const sample_params sample = session_sample_of(s, greedy);
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

void session_write_sampling(const kim_session *s, const kim_sampler *sampler, const int32_t *stops,
                            uint32_t n_stops)
{
    struct sampling_block *sampling = span_map(&s->memory.sampling);
    int32_t ends[TOKENIZER_MOST_ENDS];
    sampling->n_stops = n_stops;
    if (!stops) {
        const tokenizer *t = s->model->tokens;
        sampling->n_stops = t ? tokenizer_list_ends(t, ends) : 0;
        stops = ends;
    }
    memcpy(sampling->stops, stops, sampling->n_stops * sizeof *sampling->stops);
    sampler_fill_block(sampler, sampling, 0, SAMPLE_DRAWS);
}

static void write_state(const generation *g)
{
    const session_memory *mem = &g->s->memory;
    uint32_t *control = span_map(&mem->control);
    control[CONTROL_POSITION] = g->position - 1; // of the row whose logits these are
    control[CONTROL_STEP] = control[CONTROL_STOPPED] = 0;
    memcpy(span_map(&mem->history), g->s->tokens, g->position * sizeof *g->s->tokens);
    session_write_sampling(g->s, g->sampler, g->params->stops, g->params->n_stops);
}

// Hands in a step of `rows` tokens, the first of which is the last one drawn.
static kim_err submit(generation *g, stream *st, uint32_t rows)
{
    kim_err err = KIM_OK;
    kim_session *s = g->s;
    const uint32_t end = g->position + g->drawn + g->n_running - 1 + rows; // of what is written
    if (rows && s->written < end)
        s->written = end;
    stream_set_position(st, end - rows);
    TRY(stream_submit(st));
    g->running[g->n_running++] = (running_step){ st, rows };
    g->steps++;
error:
    return err;
}

// As many steps as are wanted now.
static kim_err hand_in(generation *g)
{
    kim_err err = KIM_OK;
    kim_session *s = g->s;
    while (!g->stopped && g->n_running < STEPS_AHEAD && g->drawn + g->n_running < g->most) {
        const uint32_t drafts =
            g->steps && s->speculation ? speculation_choose(s->speculation, g) : 0;
        if (drafts && g->n_running) // they follow what these draw
            break;
        if (drafts) {
            stream *st;
            TRY(speculation_draft(s->speculation, g, drafts, &st));
            TRY(submit(g, st, 1 + drafts));
            break;
        }
        TRY(submit(g, g->steps ? s->answer.steps[g->steps % STEPS_AHEAD] : s->answer.first,
                   g->steps ? 1 : 0));
    }
error:
    return err;
}

kim_err answer_result(const kim_session *s, uint32_t index, const uint32_t **out)
{
    const uint32_t *result =
        (const uint32_t *)span_map(&s->memory.results) + (uint64_t)(index % SAMPLE_SLOTS) * 4;
    const uint32_t status = result[SAMPLE_RESULT_STATUS];
    *out = result;
    if (result[SAMPLE_RESULT_MARK] != index + 1)
        return kim_fail(KIM_ERR_VULKAN,
                        "the device left no token of step %u (found a mark of %u): its driver is "
                        "broken",
                        index, result[SAMPLE_RESULT_MARK]);
    if (status == SAMPLE_ODD || status == SAMPLE_NOTHING)
        return sampler_fail_logits(status == SAMPLE_ODD, result[SAMPLE_RESULT_ID],
                                   s->model->files.draw_limit);
    return KIM_OK;
}

// Takes the drawn token: its random number is used up, and where half of them are, there are more.
// Those of steps that run are not changed: they are written again as they are.
static void consume(const kim_session *s, kim_sampler *sampler, const uint32_t *result,
                    uint32_t step, kim_answer_token *out)
{
    memcpy(&out->id, &result[SAMPLE_RESULT_ID], sizeof out->id);
    memcpy(&out->logprob, &result[SAMPLE_RESULT_LOGPROB], sizeof out->logprob);
    sampler_consume(sampler, 1);
    if ((step + 1) % (SAMPLE_DRAWS / 2) == 0)
        sampler_fill_block(sampler, span_map(&s->memory.sampling), step + 1, SAMPLE_DRAWS);
}

kim_err session_take_result(const kim_session *s, kim_sampler *sampler, uint32_t step,
                            kim_answer_token *out, bool *stop)
{
    const uint32_t *result;
    const kim_err err = answer_result(s, step, &result);
    if (err)
        return err;
    *stop = result[SAMPLE_RESULT_STATUS] == SAMPLE_STOP;
    consume(s, sampler, result, step, out);
    return KIM_OK;
}

// Waits for the oldest step and takes what it drew.
static kim_err take_step(generation *g)
{
    kim_err err = KIM_OK;
    kim_session *s = g->s;
    const running_step step = g->running[0];
    const uint32_t before = g->drawn;
    const uint32_t *result;
    if (s->speculation)
        TRY(speculation_wait(s->speculation));
    TRY(stream_wait(step.st));
    g->running[0] = g->running[1];
    g->n_running--;
    do {
        TRY(answer_result(s, g->drawn, &result));
        g->stopped = result[SAMPLE_RESULT_STATUS] == SAMPLE_STOP;
        if (!g->stopped)
            memcpy(&s->tokens[g->position + g->drawn++], &result[SAMPLE_RESULT_ID],
                   sizeof *s->tokens);
    } while (result[SAMPLE_RESULT_STATUS] == SAMPLE_AGREED);
    if (s->speculation)
        TRY(speculation_learn(s->speculation, g, &step, before));
error:
    return err;
}

// Gives out the next token that is there. False: the caller has enough.
static bool give(generation *g)
{
    const kim_answer_params *p = g->params;
    const uint32_t index = g->given++;
    const uint32_t *result =
        (const uint32_t *)span_map(&g->s->memory.results) + (uint64_t)(index % SAMPLE_SLOTS) * 4;
    kim_answer_token token;
    consume(g->s, g->sampler, result, index, &token);
    return !p->token || p->token(p->user, &token);
}

static kim_err run(generation *g, kim_answer_end *end)
{
    kim_err err = KIM_OK;
    *end = g->to_the_end ? KIM_ANSWER_CONTEXT : KIM_ANSWER_LENGTH;
    while (g->given < g->most) {
        TRY(hand_in(g));
        while (g->given < g->drawn)
            if (!give(g)) {
                *end = KIM_ANSWER_CALLER;
                return KIM_OK;
            }
        if (g->stopped) {
            sampler_consume(g->sampler, 1);
            *end = KIM_ANSWER_STOP;
            return KIM_OK;
        }
        if (g->given < g->most)
            TRY(take_step(g));
    }
error:
    return err;
}

static kim_err wait_for_running(const generation *g)
{
    kim_err err = KIM_OK;
    if (g->s->speculation)
        err = speculation_wait(g->s->speculation);
    for (uint32_t i = 0; i < g->n_running; i++) {
        const kim_err one = stream_wait(g->running[i].st);
        err = err ? err : one;
    }
    return err;
}

// Waits for what still runs, and leaves the session as if the tokens given out had been appended.
static kim_err settle(generation *g, bool stopped)
{
    kim_err err = KIM_OK;
    kim_session *s = g->s;
    TRY(wait_for_running(g));
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
    TRY(answer_record(s, sampler_is_greedy(sampler)));
    if (s->speculation)
        speculation_begin(s->speculation, s, sampler_is_greedy(sampler));
    write_state(&g);
    err = run(&g, &ended);
    if (err) {
        (void)wait_for_running(&g); // the first error is the one that counts
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
