// SPDX-License-Identifier: MIT
// Where a request goes: the slot it takes, and the session that it starts from.
#include "batch.h"

#include "host/error.h"

#include <string.h>

#define COPY_LEAST 32 // tokens: fewer are read anew rather than copied

// Nothing of it is under way on the device, nor will be. The pieces of prompts have been waited
// for.
static bool is_free(const kim_batch *b, const batch_slot *slot)
{
    return !slot->r && slot->step <= b->collected;
}

static kim_prompt prompt_of(const request *r)
{
    return (kim_prompt){ .tokens = r->given.prompt.tokens, .count = r->given.prompt.count };
}

// The slot whose session has the most in common with a request; of equal ones one that can be taken
// over, and of these the one that loses the least.
// same: set to the tokens in common that can be gone on from; NULL is returned where there are none
static batch_slot *find_source(const kim_batch *b, const request *r, uint32_t *same)
{
    const kim_prompt prompt = prompt_of(r);
    batch_slot *best = NULL;
    *same = 0;
    for (uint32_t i = 0; i < b->params.sessions; i++) {
        batch_slot *slot = &b->slots[i];
        const uint32_t n = session_common(&slot->s, &prompt, &r->pictures);
        if (!n || n < *same || !session_rings_hold(&slot->s, n))
            continue;
        if (n == *same &&
            (!is_free(b, slot) || (is_free(b, best) && best->s.position <= slot->s.position)))
            continue;
        best = slot;
        *same = n;
    }
    return best;
}

// The free slot that was not used for longest; NULL: none is free.
static batch_slot *find_oldest(const kim_batch *b)
{
    batch_slot *best = NULL;
    for (uint32_t i = 0; i < b->params.sessions; i++)
        if (is_free(b, &b->slots[i]) && (!best || b->slots[i].used < best->used))
            best = &b->slots[i];
    return best;
}

// The first `n` tokens of one session become those of another.
static kim_err copy_session(kim_batch *b, kim_session *to, const kim_session *from, uint32_t n)
{
    kim_err err = KIM_OK;
    TRY(kim_session_cut(to, 0));
    TRY(stream_reset(b->copy));
    TRY(session_copy_kv(b->copy, to, from, n));
    TRY(stream_submit(b->copy));
    memcpy(to->tokens, from->tokens, n * sizeof *to->tokens);
    for (uint32_t i = 0; i < from->pictures.count && from->pictures.list[i].first < n; i++)
        TRY(session_pictures_add(&to->pictures, from->pictures.list[i].first,
                                 from->pictures.list[i].tile));
    to->position = to->written = to->loaded = n;
error:
    return err;
}

// What the device needs before the prompt is read.
static kim_err start(kim_batch *b, batch_slot *slot, request *r, uint32_t same)
{
    kim_err err = KIM_OK;
    kim_session *s = &slot->s;
    const kim_prompt prompt = prompt_of(r);
    for (uint32_t i = 0; i < r->pictures.count; i++)
        if (r->pictures.list[i].first >= same)
            TRY(session_pictures_add(&s->pictures, r->pictures.list[i].first,
                                     r->pictures.list[i].tile));
    memcpy(s->tokens, prompt.tokens, prompt.count * sizeof *s->tokens);
    memcpy(span_map(&s->memory.history), prompt.tokens, prompt.count * sizeof *s->tokens);
    session_write_sampling(s, r->sampler, r->given.answer.stops, r->given.answer.n_stops);
    slot->r = r;
    slot->used = ++b->clock;
    r->slot = slot;
    r->reused = same;
    b->reading = slot;
    b->stats.reused_tokens += same;
error:
    return err;
}

kim_err batch_place(kim_batch *b, request *r)
{
    kim_err err = KIM_OK;
    uint32_t same;
    batch_slot *from = find_source(b, r, &same), *slot = find_oldest(b);
    if (!slot)
        return KIM_OK;
    if (from && is_free(b, from) && same == from->s.position) // it goes on there: nothing is lost
        slot = from;
    if (!from || (slot != from && same < COPY_LEAST))
        same = 0;
    if (slot == from || !same) {
        TRY(kim_session_cut(&slot->s, same));
    } else {
        TRY(copy_session(b, &slot->s, &from->s, same));
        from->used = ++b->clock;
    }
    TRY(start(b, slot, r, same));
error:
    return err;
}
