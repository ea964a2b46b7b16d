// SPDX-License-Identifier: MIT
// Traces: the part that is not the streams'.
#include "trace.h"

#include "gpu.h"

#include <stdio.h>

void kim_gpu_set_trace(kim_gpu *gpu, kim_trace_fn trace, void *user)
{
    gpu->trace = trace;
    gpu->trace_user = user;
    gpu->trace_runs = 0;
}

void kim_operation_text(const kim_operation *o, char text[128])
{
    const char *type = o->type ? o->type : "";
    int n = snprintf(text, 128, "%s%s%s", o->name, *type ? " " : "", type);
    for (int i = 0; i < KIM_TRACE_SIZES && o->sizes[i].name && n < 128; i++)
        n += snprintf(text + n, 128 - (size_t)n, " %s=%u", o->sizes[i].name, o->sizes[i].value);
}
