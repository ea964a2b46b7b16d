// SPDX-License-Identifier: MIT
// The groups of cases of the operation test.
#ifndef OPS_CASES_H
#define OPS_CASES_H

#include "ops_harness.h"

void cases_weights(ops_run *run);        // matmul and embed: every type, shape, mix and split
void cases_many_columns(ops_run *run);   // matmul in every way that the device has
void cases_attention(ops_run *run);      // rope, attention, combine
void cases_rows(ops_run *run);           // norm, geglu, score
void cases_sample(ops_run *run);         // drawing tokens
void cases_encoder(ops_run *run);        // layer_norm, average_pool
void cases_full_attention(ops_run *run); // of the encoder
void cases_peaks(ops_run *run);          // what peaks are measured with

#endif
