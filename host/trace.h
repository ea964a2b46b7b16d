// SPDX-License-Identifier: MIT
// Traces: what is run on a device, command by command. Part of the public API;
// engine/kimberlite.h includes it.
#ifndef KIMBERLITE_TRACE_H
#define KIMBERLITE_TRACE_H

#include "devices.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KIM_TRACE_SIZES = 4, KIM_TRACE_TENSORS = 8 }; // at most

// What a command computes. The same text stands in the labels that RenderDoc, RGP and Nsight show.
typedef struct kim_operation {
    const char *name; // "matmul"
    const char *type; // of the weights, "Q4_K"; NULL: there are none
    struct {
        const char *name; // "rows"; NULL: there is none
        uint32_t value;
    } sizes[KIM_TRACE_SIZES];
} kim_operation;

// "matmul Q4_K m=2048 k=640 n=1"
KIM_API void kim_operation_text(const kim_operation *operation, char text[128]);

// A tensor that a command uses, and the bytes of it that are read and written, each once.
typedef struct kim_trace_tensor {
    const char *name; // weights have that of the file; where it has none it is that of its memory
    uint64_t read, written;
} kim_trace_tensor;

typedef enum kim_trace_kind { KIM_TRACE_DISPATCH, KIM_TRACE_COPY, KIM_TRACE_FILL } kim_trace_kind;

// What a command does with a tensor.
typedef enum kim_trace_use { KIM_TRACE_READS, KIM_TRACE_WRITES, KIM_TRACE_CHANGES } kim_trace_use;

// One command of a run. A run is a list of commands that is handed to the device at once, such as a
// step of a session; it is cut into submits.
typedef struct kim_trace_event {
    uint64_t run;     // 1, 2, ... since the trace was set
    uint32_t command; // 0, 1, ... of the run, in order
    uint32_t submit;  // 0, 1, ... of the run; that in which the command ended
    kim_trace_kind kind;
    const char *section;    // the part of the run: "layer"; "other": none was named
    uint32_t section_index; // of "layer", from 0; UINT32_MAX: it has no number
    kim_operation operation;
    uint32_t groups[3]; // workgroups of a dispatch

    // By the shapes, each operation of a formula as one. Keys that attention reads are counted from
    // the session's position; pictures' soft tokens that see ahead are not.
    double flop;
    uint64_t read, written; // of all tensors
    kim_trace_tensor tensors[KIM_TRACE_TENSORS];
    uint32_t n_tensors;

    // On the device, since what was before it had ended; so those of a run add up to its time. With
    // nothing to wait for it may have begun earlier. Not a number: the device has no time stamps.
    double seconds;

    // It waits for those before it, because it uses `tensor` after command `after` of the run has.
    struct {
        bool there;
        const char *tensor; // as command `after` has it. NULL: the validation layers want it
        uint32_t after;
        kim_trace_use before, now; // what `after` does with it, and what this command does
    } barrier;
} kim_trace_event;

// Called by the thread that hands in the work, when a submit has ended, for each command that ended
// with it. The event and its texts are valid during the call only.
typedef void (*kim_trace_fn)(void *user, const kim_trace_event *event);

// Traces what is run from now on, by all sessions and models of the gpu. Every submit is then
// waited for, so it is slower, but what is measured is the device's own time.
// Not thread-safe: nothing else uses the gpu meanwhile. The callback may end the trace.
//
// trace: NULL: no more
KIM_API void kim_gpu_set_trace(kim_gpu *gpu, kim_trace_fn trace, void *user);

#ifdef __cplusplus
}
#endif
#endif
