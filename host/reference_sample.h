// SPDX-License-Identifier: MIT
// Which tokens may be drawn, in plain C and double precision: the reference for sample_*.comp.
#ifndef KIM_REFERENCE_SAMPLE_H
#define KIM_REFERENCE_SAMPLE_H

#include "base.h"

#include "shaders/kim_shared.h"

#include <stdbool.h>

// Whether each of two ids is the one that the step's random number draws, or one that rounding may
// have taken instead. By the rule of op_sample; nothing of it is greedy.
//
// logits:  [vocab]
// history: [n_history] tokens so far, those that are none below 0
kim_err reference_may_draw(const struct sampling_block *p, const float *logits, uint32_t vocab,
                           const int32_t *history, uint32_t n_history, uint32_t step,
                           const uint32_t ids[2], bool may[2]);

#endif
