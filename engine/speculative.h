// SPDX-License-Identifier: MIT
// Speculative decoding: drafts of an answer's next tokens, and steps that check several at once.
// Internal to engine/.
#ifndef KIM_SPECULATIVE_H
#define KIM_SPECULATIVE_H

#include "answer.h"

#define DRAFT_MOST 7  // a product of up to eight columns reads its weights once
#define LOOKUP_MOST 8 // tokens of the longest run that is looked up

typedef struct speculation speculation;

// Fills in the defaults and checks what of the parameters is for drafts.
kim_err speculation_params_fill(const kim_model *m, kim_session_params *p);

// Rows of logits that a step draws from at most: 1 where there are no drafts.
uint32_t speculation_rows(const kim_session_params *p);

// Bytes on the device, besides the session's own.
// p: filled in
kim_err speculation_plan(const kim_gpu *gpu, const kim_session_params *p, uint64_t *bytes);

// Sets out to NULL where there are to be no drafts.
// p: filled in
kim_err speculation_create(speculation **out, const kim_model *m, const kim_session_params *p);
void speculation_destroy(speculation **sp);

// Begins an answer: the session's tokens are those before it.
void speculation_begin(speculation *sp, const kim_session *s, bool greedy);

// How many tokens to draft for the next step, if it comes after what the host has seen; 0: none.
uint32_t speculation_choose(speculation *sp, const generation *g);

// Drafts as many as were chosen last, and gives the stream that checks them; nothing may run.
kim_err speculation_draft(speculation *sp, const generation *g, uint32_t drafts, stream **check);

// Waits for the drafts that were handed in.
kim_err speculation_wait(speculation *sp);

// A step is done: takes the tokens that it drew, and learns how right drafts are and what they
// cost.
//
// before: tokens that there were drawn then
kim_err speculation_learn(speculation *sp, const generation *g, const running_step *step,
                          uint32_t before);

void speculation_get_stats(const speculation *sp, kim_session_stats *out); // adds them

// ---- speculative_choice.c: what depends on numbers alone

// The longest run of tokens, up to LOOKUP_MOST, that the text ends with and that stands in it
// before as well, where it does so last. Returns its length, 0 if there is none; after: what
// follows it
uint32_t lookup_find(const int32_t *text, uint32_t count, uint32_t *after);

// What is known of speeds and of drafts; zero-initialised is nothing.
typedef struct draft_estimates {
    double seconds[DRAFT_MOST + 2];    // of a step, by its rows; [0]: of the model for a draft. 0:
                                       // not known
    uint32_t samples[DRAFT_MOST + 2];  // of these; the first is not used: a driver compiles then
    double agreement[LOOKUP_MOST + 1]; // share of right drafts: by the model, and by the length of
                                       // the run that was looked up
} draft_estimates;

void estimates_init(draft_estimates *e);

// rows: 0: of the model
void estimates_add_time(draft_estimates *e, uint32_t rows, double seconds);

// The first `right` of some drafts were right, and the next one wrong if `wrong`.
// source: 0: the model, else the length of the run
void estimates_add_drafts(draft_estimates *e, uint32_t source, uint32_t right, bool wrong);

// The number of drafts, up to `most`, by which tokens come fastest, and how many a second.
uint32_t estimates_best(const draft_estimates *e, uint32_t source, uint32_t most, double *rate);

#endif
