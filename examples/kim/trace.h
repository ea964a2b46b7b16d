// SPDX-License-Identifier: MIT
// Traces of the device as text and as JSON.
#ifndef KIM_EXAMPLES_TRACE_H
#define KIM_EXAMPLES_TRACE_H

#include "common.h"

// Prints a command on a line, and before it where a run or a section begins, and what it waits for.
// file: a FILE; a kim_trace_fn
void trace_print(void *file, const kim_trace_event *event);

// The names of its members are those of kim_trace_event; bytes are bytes, times seconds.
cJSON *trace_json(const kim_trace_event *event);

// "layer 3"
void trace_section_text(const char *section, uint32_t index, char text[64]);

#endif
