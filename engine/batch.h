// SPDX-License-Identifier: MIT
// Many sessions on one model: requests, the slots that answer them, and the streams they share.
// Internal to engine/.
//
// A slot is a session whose activations and streams are those of the batch. What the device does is
// in the order of its queue: a piece of a prompt, a copy of K and V, a step of answers each begin
// when what was handed in before is done. The host runs ahead of it by two steps and one piece;
// what it writes for a slot, it writes when nothing that uses the slot is under way.
#ifndef KIM_BATCH_H
#define KIM_BATCH_H

#include "session.h"

#include <pthread.h>
#include <stdatomic.h>

#define BATCH_AHEAD 2  // steps of answers
#define PIECE_FIRST 64 // tokens of a piece of a prompt, before anything was measured

typedef struct batch_slot batch_slot;

typedef struct request {
    struct request *next; // in the order they came
    uint64_t id;
    kim_request given; // of the prompt the tokens are a copy and there are no images; `stops`
                       // points to those below, or is NULL
    int32_t stops[SAMPLING_MAX_STOPS];
    session_pictures pictures; // of the prompt
    kim_sampler *sampler;
    uint32_t most;   // tokens of the answer
    bool to_the_end; // the context has no room for more
    atomic_bool cancelled;
    batch_slot *slot; // NULL: it waits
    uint32_t reused;
    uint32_t submitted; // steps of the answer; the first is that of the last piece of the prompt
    uint32_t answered;  // tokens given out
} request;

struct batch_slot {
    kim_session s; // its position: tokens that are known and have their K and V when what was
                   // handed in so far is done
    request *r;    // NULL: the session is kept
    uint64_t step; // the last one of the batch that had it
    uint64_t used; // kim_batch.clock when it was last; 0: never
};

// One of the steps of answers that are under way.
typedef struct batch_step {
    stream *st;
    uint32_t n; // rows; 0: nothing was recorded
    batch_slot *slots[MOST_SESSIONS];
    bool greedy[MOST_SESSIONS];
    uint32_t index[MOST_SESSIONS]; // of this run, the step of each one's own answer
} batch_step;

struct kim_batch {
    kim_model *model;
    kim_batch_params params; // filled in
    session_memory shared;
    batch_slot *slots; // [params.sessions]
    uint64_t clock;

    batch_step steps[BATCH_AHEAD];
    uint64_t submitted, collected; // steps of answers: number n, from 1 on, is in steps[n % 2]

    stream *prompt; // a piece
    struct {
        batch_slot *slot;
        uint32_t rows; // 0: nothing
        bool last, greedy;
    } recorded;          // what it was recorded for
    uint32_t running;    // rows of the piece under way; 0: none
    double rate;         // tokens a second that the device read, in the last piece of 32
                         // tokens or more; 0: not known
    bool rate_is_given;  // by a test: nothing is measured
    uint32_t piece;      // tokens of one while something is answered, if params.piece is 0
    batch_slot *reading; // whose prompt is being read
    batch_slot *first;   // whose first token is drawn by the piece under way
    stream *copy;

    pthread_mutex_t lock; // of the next two
    request *requests;    // all that have not ended
    uint64_t last_id;

    kim_batch_stats stats; // what is counted as it happens
};

// ---- batch_place.c

// Gives a request that waits a slot, and lets the session there begin with what it has in common
// with some other one. Does nothing while no slot is free.
kim_err batch_place(kim_batch *b, request *r);

// ---- batch_run.c

// Hands in the next step of all answers that go on. submitted: whether there are any
kim_err batch_submit_step(kim_batch *b, bool *submitted);

// Waits for the oldest step under way, and gives out its tokens.
kim_err batch_collect_step(kim_batch *b);

// Tokens of a piece that is to take so many seconds, after pieces of `before`: a power of two from
// 32 on, and a larger one only where it fits with some to spare, since each size is recorded anew.
// rate: tokens a second; 0: not known. most: from there on it does not grow
uint32_t batch_piece_size(uint32_t before, double rate, double seconds, uint32_t most);

// Waits for the piece under way, and gives out the token that was drawn after the last one.
kim_err batch_wait_piece(kim_batch *b);

// Hands in the next piece of b->reading.
kim_err batch_submit_piece(kim_batch *b);

// Ends a request: its session is kept. batch.c
void batch_end(kim_batch *b, request *r, kim_err failed, kim_answer_end end);

#endif
