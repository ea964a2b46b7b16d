// SPDX-License-Identifier: MIT
// Streams of work: a list of dispatches with what each reads and writes, turned into commands.
//
// Barriers come from the list, here and nowhere else. A stream is recorded once and submitted as
// often as wanted; what changes from run to run stands in device memory. The list is cut into
// submits of at most SUBMIT_NS of device time (pacing.h), by the time that earlier runs took on
// this device; a long dispatch or copy is cut as well.
#ifndef KIM_STREAM_H
#define KIM_STREAM_H

#include "memory.h"
#include "pipeline.h"

typedef struct stream stream;

typedef struct span_use {
    span span;
    bool write;
    uint64_t read, written; // bytes, each once, for traces
    uint64_t read_per_key;  // bytes more for each key that attention reads, see dispatch_note
} span_use;

#define READS(s) ((span_use){ .span = (s), .read = (s).bytes })
#define WRITES(s) ((span_use){ .span = (s), .write = true, .written = (s).bytes })
// the same, where not all of the span is; and where it is read and then written
#define READS_SOME(s, n) ((span_use){ .span = (s), .read = (n) })
#define WRITES_SOME(s, n) ((span_use){ .span = (s), .write = true, .written = (n) })
#define CHANGES(s, n) ((span_use){ .span = (s), .write = true, .read = (n), .written = (n) })

// What a dispatch computes, for labels and traces. Nothing of it changes what is done.
typedef struct dispatch_note {
    kim_operation op; // static texts; without a name: the shader's
    double flop;
    // of attention: operations more for each key that a row sees; rows; keys that a row sees at
    // most. How many those are depends on stream_set_position.
    double flop_per_key;
    uint32_t rows, window;
} dispatch_note;

typedef struct dispatch {
    pipeline_key key;
    const void *args; // push constants, copied
    uint32_t args_bytes;
    uint32_t groups[3];
    double work; // any measure of its duration that is the same for all dispatches of its pipeline
    const span_use *accesses; // copied
    uint32_t n_accesses;
    bool joined; // a further part of the dispatch before: they do not wait for each other, because
                 // what they write is apart, though the spans overlap
    dispatch_note note;
} dispatch;

typedef struct stream_stats {
    uint64_t dispatches, submits, barriers; // submitted so far
    uint32_t list_dispatches, list_submits; // of the list as it stands
    double last_seconds;                    // device time of the last finished run
    double longest_submit;                  // seconds, of that run
} stream_stats;

kim_err stream_create(stream **out, kim_gpu *gpu);
void stream_destroy(stream **st); // waits for its work

// Empties the list. Waits for its work.
kim_err stream_reset(stream *st);

// Names what is added from now on, for labels and traces; a reset ends it.
//
// name:  static: "layer"
// index: its number; UINT32_MAX: it has none
void stream_set_section(stream *st, const char *name, uint32_t index);

// For traces: the position of row 0 in the runs that are handed in from now on.
void stream_set_position(stream *st, uint32_t position);

// Adding to the list; the order is the order of execution.
kim_err stream_dispatch(stream *st, const dispatch *d);
kim_err stream_copy(stream *st, const span *to, const span *from); // as many bytes as `to` has
kim_err stream_fill(stream *st, const span *to, uint32_t word);

// Hands the list to the device; may be called again for another run. Waits for the run before, and
// where something of the list has never been run on the device, for this run too.
kim_err stream_submit(stream *st);

// Waits for what was submitted; afterwards the host sees what was written.
kim_err stream_wait(stream *st);

kim_gpu *stream_gpu(const stream *st);
void stream_get_stats(const stream *st, stream_stats *out);

#endif
