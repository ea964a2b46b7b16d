// SPDX-License-Identifier: MIT
// Traces of the device as text and as JSON.
#include "trace.h"

#include <math.h>
#include <string.h>

void trace_section_text(const char *section, uint32_t index, char text[64])
{
    if (index == UINT32_MAX)
        snprintf(text, 64, "%s", section);
    else
        snprintf(text, 64, "%s %u", section, index);
}

// "x, blk.0.attn_q.weight -> qkv": what is only read, and what is written.
static void print_tensors(FILE *file, const kim_trace_event *e)
{
    bool first = true;
    for (uint32_t i = 0; i < e->n_tensors; i++) {
        if (e->tensors[i].written || !e->tensors[i].read)
            continue;
        fprintf(file, "%s%s", first ? "" : ", ", e->tensors[i].name);
        first = false;
    }
    const char *between = " -> ";
    for (uint32_t i = 0; i < e->n_tensors; i++) {
        if (!e->tensors[i].written)
            continue;
        fprintf(file, "%s%s", between, e->tensors[i].name);
        between = ", ";
    }
}

static const char *const use_names[] = {
    [KIM_TRACE_READS] = "reads", [KIM_TRACE_WRITES] = "writes", [KIM_TRACE_CHANGES] = "changes"
};

static void print_barrier(FILE *file, const kim_trace_event *e)
{
    if (e->barrier.tensor)
        fprintf(file, "      barrier: %s, %u %s -> %u %s\n", e->barrier.tensor, e->barrier.after,
                use_names[e->barrier.before], e->command, use_names[e->barrier.now]);
    else
        fputs("      barrier: the validation layers want it\n", file);
}

void trace_print(void *to, const kim_trace_event *e)
{
    static char shown[64]; // the section that the last line was of
    FILE *file = to;
    char section[64], operation[128], read[32], written[32], time[32] = "n/a", rate[32] = "";
    if (!e->command) {
        fprintf(file, "run %llu\n", (unsigned long long)e->run);
        shown[0] = '\0';
    }
    trace_section_text(e->section, e->section_index, section);
    if (strcmp(section, shown) != 0)
        fprintf(file, "  %s\n", section);
    memcpy(shown, section, sizeof shown);
    if (e->barrier.there)
        print_barrier(file, e);
    kim_operation_text(&e->operation, operation);
    if (!isnan(e->seconds))
        snprintf(time, sizeof time, "%.1f us", e->seconds * 1e6);
    if (e->seconds > 0)
        snprintf(rate, sizeof rate, "%.1f GB/s",
                 (double)(e->read + e->written) / e->seconds * 1e-9);
    fprintf(file, "%5u %12s %10s in %10s out %10s  %-48s ", e->command, time,
            format_bytes(e->read, read), format_bytes(e->written, written), rate, operation);
    print_tensors(file, e);
    fputc('\n', file);
}

static const char *const kind_names[] = {
    [KIM_TRACE_DISPATCH] = "dispatch", [KIM_TRACE_COPY] = "copy", [KIM_TRACE_FILL] = "fill"
};

static cJSON *tensors_json(const kim_trace_event *e)
{
    cJSON *list = checked(cJSON_CreateArray());
    for (uint32_t i = 0; i < e->n_tensors; i++) {
        cJSON *tensor = checked(cJSON_CreateObject());
        cJSON_AddStringToObject(tensor, "name", e->tensors[i].name);
        cJSON_AddNumberToObject(tensor, "read", (double)e->tensors[i].read);
        cJSON_AddNumberToObject(tensor, "written", (double)e->tensors[i].written);
        cJSON_AddItemToArray(list, tensor);
    }
    return list;
}

cJSON *trace_json(const kim_trace_event *e)
{
    cJSON *json = checked(cJSON_CreateObject());
    char text[128];
    cJSON_AddNumberToObject(json, "run", (double)e->run);
    cJSON_AddNumberToObject(json, "command", e->command);
    cJSON_AddNumberToObject(json, "submit", e->submit);
    cJSON_AddStringToObject(json, "kind", kind_names[e->kind]);
    trace_section_text(e->section, e->section_index, text);
    cJSON_AddStringToObject(json, "section", text);
    cJSON_AddStringToObject(json, "operation", e->operation.name);
    if (e->operation.type)
        cJSON_AddStringToObject(json, "type", e->operation.type);
    kim_operation_text(&e->operation, text);
    cJSON_AddStringToObject(json, "text", text);
    cJSON *sizes = checked(cJSON_AddObjectToObject(json, "sizes"));
    for (int i = 0; i < KIM_TRACE_SIZES && e->operation.sizes[i].name; i++)
        cJSON_AddNumberToObject(sizes, e->operation.sizes[i].name, e->operation.sizes[i].value);
    const double groups[3] = { e->groups[0], e->groups[1], e->groups[2] };
    if (e->kind == KIM_TRACE_DISPATCH)
        cJSON_AddItemToObject(json, "groups", cJSON_CreateDoubleArray(groups, 3));
    cJSON_AddNumberToObject(json, "flop", e->flop);
    cJSON_AddNumberToObject(json, "read", (double)e->read);
    cJSON_AddNumberToObject(json, "written", (double)e->written);
    cJSON_AddNumberToObject(json, "seconds", e->seconds); // null if there is none
    cJSON_AddItemToObject(json, "tensors", tensors_json(e));
    if (!e->barrier.there)
        return json;
    cJSON *barrier = checked(cJSON_AddObjectToObject(json, "barrier"));
    if (!e->barrier.tensor)
        return json;
    cJSON_AddStringToObject(barrier, "tensor", e->barrier.tensor);
    cJSON_AddNumberToObject(barrier, "after", e->barrier.after);
    cJSON_AddStringToObject(barrier, "before", use_names[e->barrier.before]);
    cJSON_AddStringToObject(barrier, "now", use_names[e->barrier.now]);
    return json;
}
