// SPDX-License-Identifier: MIT
// What a batch gives the device: steps of all answers together, and pieces of prompts.
#include "batch.h"

#include "sampler.h"

#include "host/error.h"

#include <string.h>

#define PIECE_LEAST 32    // tokens: a shorter piece reads the weights just as often
#define PIECE_MARGIN 1.25 // by how much a longer piece has to fit

// ------------------------------------------------------------------------------- what comes out

// A step has read every token before the one that it drew.
static void update_position(batch_slot *slot)
{
    const request *r = slot->r;
    const uint32_t read = r->answered < r->submitted ? r->answered : r->submitted - 1;
    slot->s.position = r->given.prompt.count + read;
}

// Gives out what the steps of an answer up to number `last` drew. They are done.
static void give_out(kim_batch *b, batch_slot *slot, uint32_t last)
{
    request *r = slot->r;
    const kim_answer_params *p = &r->given.answer;
    while (r->answered <= last) {
        kim_answer_token token;
        bool stop = false;
        const kim_err err = session_take_result(&slot->s, r->sampler, r->answered, &token, &stop);
        if (err || stop) {
            batch_end(b, r, err, KIM_ANSWER_STOP);
            return;
        }
        slot->s.tokens[r->given.prompt.count + r->answered++] = token.id;
        update_position(slot);
        b->stats.answer_tokens++;
        const bool enough = p->token && !p->token(p->user, &token);
        if (enough || r->answered == r->most) {
            batch_end(b, r, KIM_OK,
                      enough          ? KIM_ANSWER_CALLER
                      : r->to_the_end ? KIM_ANSWER_CONTEXT
                                      : KIM_ANSWER_LENGTH);
            return;
        }
    }
}

// ------------------------------------------------------------------------------ steps of answers

static bool goes_on(const batch_slot *slot)
{
    return slot->r && slot->r->submitted && slot->r->submitted < slot->r->most;
}

static kim_err record_step(kim_batch *b, batch_step *step)
{
    kim_err err = KIM_OK;
    const session_memory *each[MOST_SESSIONS];
    sample_params samples[MOST_SESSIONS];
    const uint32_t n = step->n;
    step->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        each[i] = &step->slots[i]->s.memory;
        samples[i] = session_sample_of(&step->slots[i]->s, step->greedy[i]);
        samples[i].logits_at = i * (b->model->arch.vocab * 4ull);
    }
    TRY(stream_reset(step->st));
    TRY(forward_record_each(step->st, b->model, each, n));
    TRY(op_sample_each(step->st, samples, n));
    step->n = n;
    b->stats.recorded++;
error:
    return err;
}

kim_err batch_submit_step(kim_batch *b, bool *submitted)
{
    kim_err err = KIM_OK;
    batch_step *step = &b->steps[(b->submitted + 1) % BATCH_AHEAD];
    bool same = true;
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->params.sessions; i++) {
        batch_slot *slot = &b->slots[i];
        if (!goes_on(slot))
            continue;
        const bool greedy = sampler_is_greedy(slot->r->sampler);
        same &= n < step->n && step->slots[n] == slot && step->greedy[n] == greedy;
        step->slots[n] = slot;
        step->greedy[n++] = greedy;
    }
    *submitted = n > 0;
    if (!n)
        return KIM_OK;
    if (!same || n != step->n) {
        step->n = n;
        TRY(record_step(b, step));
    }
    TRY(stream_submit(step->st));
    b->submitted++;
    b->stats.steps++;
    for (uint32_t i = 0; i < n; i++) {
        batch_slot *slot = step->slots[i];
        step->index[i] = slot->r->submitted++;
        slot->step = b->submitted;
        update_position(slot);
        const uint32_t written = slot->r->given.prompt.count + slot->r->submitted;
        if (slot->s.written < written)
            slot->s.written = written;
    }
error:
    return err;
}

kim_err batch_collect_step(kim_batch *b)
{
    kim_err err = KIM_OK;
    batch_step *step = &b->steps[(b->collected + 1) % BATCH_AHEAD];
    TRY(stream_wait(step->st));
    b->collected++;
    for (uint32_t i = 0; i < step->n; i++)
        if (step->slots[i]->r) // else it ended, and this was in vain
            give_out(b, step->slots[i], step->index[i]);
error:
    return err;
}

// ------------------------------------------------------------------------------ pieces of prompts

uint32_t batch_piece_size(uint32_t before, double rate, double seconds, uint32_t most)
{
    const double fits = rate * seconds;
    uint32_t size = before;
    while (rate > 0 && size > PIECE_LEAST && size > fits)
        size /= 2;
    while (size < most && 2 * PIECE_MARGIN * size <= fits)
        size *= 2;
    return size;
}

// Tokens of the next piece, at most.
static uint32_t most_rows(kim_batch *b)
{
    bool answering = false;
    for (uint32_t i = 0; i < b->params.sessions; i++)
        answering |= b->slots[i].r && b->slots[i].r->submitted;
    if (!answering)
        return b->params.batch;
    if (b->params.piece)
        return b->params.piece;
    b->piece = batch_piece_size(b->piece, b->rate, b->params.wait_ms * 1e-3, b->params.batch);
    return b->piece < b->params.batch ? b->piece : b->params.batch;
}

// Tokens of the next piece: `most`, but no picture is parted.
static uint32_t piece_rows(const kim_session *s, uint32_t most, uint32_t left)
{
    if (left <= most)
        return left;
    const session_picture *p = session_pictures_at(&s->pictures, s->position + most);
    return !p ? most : p->first > s->position ? p->first - s->position : p->tile->tokens;
}

// The last piece draws the first token.
static kim_err record_piece(kim_batch *b, batch_slot *slot, uint32_t rows, bool last)
{
    kim_err err = KIM_OK;
    const bool greedy = sampler_is_greedy(slot->r->sampler);
    if (b->recorded.rows == rows && b->recorded.slot == slot && b->recorded.last == last &&
        (!last || b->recorded.greedy == greedy))
        return KIM_OK;
    b->recorded.rows = 0;
    TRY(stream_reset(b->prompt));
    TRY(forward_record(b->prompt, b->model, &slot->s.memory, rows,
                       last ? STEP_ON_DEVICE : STEP_NOTHING, 0));
    if (last) {
        sample_params sample = session_sample_of(&slot->s, greedy);
        sample.first_row = rows - 1;
        TRY(op_sample(b->prompt, &sample));
    }
    b->recorded.slot = slot;
    b->recorded.rows = rows;
    b->recorded.last = last;
    b->recorded.greedy = greedy;
error:
    return err;
}

kim_err batch_submit_piece(kim_batch *b)
{
    kim_err err = KIM_OK;
    batch_slot *slot = b->reading;
    kim_session *s = &slot->s;
    request *r = slot->r;
    const kim_prompt *prompt = &r->given.prompt;
    uint32_t *control = span_map(&s->memory.control);
    const uint32_t left = prompt->count - s->position;
    const uint32_t rows = piece_rows(s, most_rows(b), left);
    TRY(record_piece(b, slot, rows, rows == left));
    session_write_rows(s, prompt->tokens + s->position, rows, false);
    control[CONTROL_STEP] = control[CONTROL_STOPPED] = 0;
    TRY(stream_submit(b->prompt));
    b->running = rows;
    s->position += rows;
    if (s->written < s->position)
        s->written = s->position;
    b->stats.pieces++;
    b->stats.prompt_tokens += rows;
    if (rows == left) {
        r->submitted = 1;
        b->first = slot;
        b->reading = NULL;
    }
    if (prompt->progress && !prompt->progress(prompt->progress_user, s->position, prompt->count))
        batch_end(b, r, KIM_OK, KIM_ANSWER_CALLER);
error:
    return err;
}

// A short last piece says little.
static void learn_rate(kim_batch *b)
{
    stream_stats stats;
    stream_get_stats(b->prompt, &stats);
    if (b->running >= PIECE_LEAST && stats.last_seconds > 0 && !b->rate_is_given)
        b->rate = b->running / stats.last_seconds;
    b->running = 0;
}

kim_err batch_wait_piece(kim_batch *b)
{
    kim_err err = KIM_OK;
    batch_slot *slot = b->first;
    TRY(stream_wait(b->prompt));
    learn_rate(b);
    b->first = NULL;
    if (slot)
        give_out(b, slot, 0);
error:
    return err;
}
