// SPDX-License-Identifier: MIT
// Weights on the CPU: plain ones to f32, and f32 to the quantised types that are made while
// loading.
#ifndef KIM_WEIGHT_QUANTIZE_H
#define KIM_WEIGHT_QUANTIZE_H

#include "weight_types.h"

#include <stdbool.h>

// F32, F16 and BF16.
bool weight_is_plain(uint32_t ggml);

// The nearest half float, of two the even one.
uint16_t half_of_float(float f);

// ggml: a plain type   in: [n] at any alignment
void weight_to_floats(uint32_t ggml, const void *in, uint64_t n, float *out);

// The type of this name, in lower case as in "q8_0", that weight_quantize makes; NULL: there is
// none.
const weight_type *weight_quantized_find(const char *name);

// A row, with the rounding of GGML's reference: equal to it to the last bit.
//
// type: of weight_quantized_find   in: [n] whole blocks; what is not finite gives anything
void weight_quantize(const weight_type *type, const float *in, uint64_t n, void *out);

#endif
