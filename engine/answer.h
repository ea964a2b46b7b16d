// SPDX-License-Identifier: MIT
// An answer while it is being drawn: what session_answer.c and speculative.c share. Internal to
// engine/.
#ifndef KIM_ANSWER_H
#define KIM_ANSWER_H

#include "session.h"

#define STEPS_AHEAD 2

// A step that the device has or will come to.
typedef struct running_step {
    stream *st;
    uint32_t rows; // of tokens that it reads; 0: it draws from the logits there are
} running_step;

typedef struct generation {
    kim_session *s;
    kim_sampler *sampler;
    const kim_answer_params *params;
    uint32_t position;                 // at which token 0 will stand
    uint32_t most;                     // tokens that will be given out at most
    bool to_the_end;                   // the context has no room for more
    bool stopped;                      // a stop was drawn after the last token
    uint32_t drawn;                    // tokens the host has seen
    uint32_t given;                    // tokens given out
    uint32_t steps;                    // handed in
    running_step running[STEPS_AHEAD]; // [n_running] the oldest first
    uint32_t n_running;
} generation;

// Records the streams of single steps, where they are not so yet; greedy ones are others.
kim_err answer_record(kim_session *s, bool greedy);

// What draw number `index` of the answer left: [4], see SAMPLE_RESULT_ID. It is an error if there
// is nothing, or nothing could be drawn.
kim_err answer_result(const kim_session *s, uint32_t index, const uint32_t **result);

#endif
