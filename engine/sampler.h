// SPDX-License-Identifier: MIT
// The next token from logits; kim_sample() is this on a session's.
#ifndef KIM_SAMPLER_H
#define KIM_SAMPLER_H

#include "kimberlite.h"

#include "shaders/kim_shared.h"

// Draws as kim_sampling says. Top-p counts probabilities of the whole distribution, as Gemma's
// reference sampler: those that top-k took away are in it. The most probable token always stays.
// Of equal logits the lower id is the more probable. The same seed, logits and history give the
// same ids. Allocates for the largest `vocab` so far, nothing per call.
//
// logits:  [vocab] infinities are fine; one that is not a number, or all being -infinity, is
//          KIM_ERR_VULKAN
// vocab:   at least 1; ids are drawn below it
// history: [n_history] what the repetition penalty looks back at; ids outside are ignored
// logprob: natural log-probability before any filter; NULL: not wanted
// Time is O(vocab + kept log k).
kim_err sampler_draw(kim_sampler *s, const float *logits, uint32_t vocab, const int32_t *history,
                     uint32_t n_history, int32_t *id, float *logprob);

// The same on a device (op_sample): what it needs of the sampler for its steps from_step ..
// from_step + n - 1, other parameters and the random numbers. The stops are left alone. The numbers
// are still to come for the sampler: sampler_consume tells it how many were used.
//
// n: at most SAMPLE_DRAWS
void sampler_fill_block(const kim_sampler *s, struct sampling_block *block, uint32_t from_step,
                        uint32_t n);
void sampler_consume(kim_sampler *s, uint32_t n);
bool sampler_is_greedy(const kim_sampler *s);

// The error of logits that nothing can be drawn from: that of token `id` is not a number, or, if
// `odd` is not set, all are -infinity.
kim_err sampler_fail_logits(bool odd, uint32_t id, uint32_t vocab);

#endif
