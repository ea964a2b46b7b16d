// SPDX-License-Identifier: MIT
// The next token from logits; kim_sample() is this on a session's.
#ifndef KIM_SAMPLER_H
#define KIM_SAMPLER_H

#include "kimberlite.h"

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

#endif
