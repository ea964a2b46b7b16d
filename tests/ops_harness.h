// SPDX-License-Identifier: MIT
// The harness of the operation tests: tensors with guards, random numbers, comparison.
#ifndef OPS_HARNESS_H
#define OPS_HARNESS_H

#include <stdio.h>

#include "host/matmul_ways.h"
#include "host/ops.h"
#include "host/ops_fill.h"

// A device in one memory mode, and what was found on it.
typedef struct ops_run {
    kim_gpu *gpu;
    stream *st;
    bool quick;
    bool again;    // every weight type went through the other memory mode: now one in four
    bool matrices; // of attention, only what goes by the device's matrices
    uint32_t cases, failures;
    uint32_t tiles, tiles_nv;  // cases of attention by matrices: KHR's, and NV's second version
    double error[MATMUL_WAYS]; // the largest relative error of a product's outputs, of each way
} ops_run;

// One case: its tensors stand in memory that the host reads and writes as well, each between
// guards. All of it is poison (every byte 0xff: not a number as f32 and as f16) until something is
// written.
#define CASE_TENSORS 24
typedef struct ops_case {
    ops_run *run;
    char name[200];
    pool tensors;
    span spans[CASE_TENSORS];
    uint32_t n_spans;
    bool failed;
    double worst;   // error / tolerance
    double seconds; // of the run, pipelines that CPU drivers compile in it included
} ops_case;

// Ends the program with the error's text if a call of the library failed.
void must(kim_err err, const char *what);
#define MUST(call) must(call, #call)

void case_begin(ops_case *c, ops_run *run, const char *fmt, ...) KIM_PRINTF(3, 4);
span case_place(ops_case *c, uint64_t bytes);
span case_place_floats(ops_case *c, uint64_t n);
void case_commit(ops_case *c);
void *case_data(const span *s);

// Runs the stream and checks that no byte between the tensors has changed.
void case_run(ops_case *c);

// |got - want| <= tolerance, for element `at` of what `part` names. Counts; prints the first few.
void case_check(ops_case *c, const char *part, uint64_t at, double got, double want,
                double tolerance);
void case_end(ops_case *c);

#endif
