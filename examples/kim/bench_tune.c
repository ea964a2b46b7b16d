// SPDX-License-Identifier: MIT
// kim bench kernels --tune: what was tried to choose between variants, and why one won.
#include "bench_cells.h"

#include <math.h>
#include <string.h>

cJSON *tuning_json(const kim_tuning *t)
{
    cJSON *rows = checked(cJSON_CreateArray());
    for (uint32_t i = 0; i < t->count; i++) {
        const kim_tuning_row *r = &t->rows[i];
        cJSON *row = checked(cJSON_CreateObject());
        cJSON_AddStringToObject(row, "choice", r->choice);
        cJSON_AddStringToObject(row, "candidate", r->candidate);
        if (isnan(r->seconds))
            cJSON_AddNullToObject(row, "seconds");
        else
            cJSON_AddNumberToObject(row, "seconds", r->seconds);
        cJSON_AddBoolToObject(row, "chosen", r->chosen);
        cJSON_AddStringToObject(row, "problem", r->problem);
        cJSON_AddItemToArray(rows, row);
    }
    return rows;
}

// The time of the chosen candidate of the same choice; not a number: there is none.
static double chosen_seconds(const kim_tuning *t, const char *choice)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (t->rows[i].chosen && !strcmp(t->rows[i].choice, choice))
            return t->rows[i].seconds;
    return NAN;
}

static void print_tuning(const kim_gpu *gpu, const kim_tuning *t)
{
    const kim_device_info *d = kim_gpu_info(gpu);
    printf("%s, %s, UUID %s, kim %s\n\n", d->name, d->driver, d->uuid, KIM_VERSION);
    printf("| choice       | candidate      |      time | of the chosen |      |\n");
    printf("|--------------|----------------|----------:|--------------:|------|\n");
    for (uint32_t i = 0; i < t->count; i++) {
        const kim_tuning_row *r = &t->rows[i];
        if (r->problem[0])
            printf("| %-12s | %-14s |         - |             - | wrong: %s |\n", r->choice,
                   r->candidate, r->problem);
        else
            printf("| %-12s | %-14s | %6.3f ms | %13.2f | %s |\n", r->choice, r->candidate,
                   r->seconds * 1e3, r->seconds / chosen_seconds(t, r->choice),
                   r->chosen ? "won " : "    ");
    }
    printf(
        "\nA time is that of some products; each candidate was compared with plain C first. What "
        "won is\nkept beside the compiled pipelines, for this device, driver and build.\n");
}

int bench_tune(bench_format format)
{
    opened o = { .tuning = KIM_TUNING_NOW };
    kim_tuning tuning;
    if (format != BENCH_MD && format != BENCH_JSON)
        return fail_usage("with --tune the output is md or json");
    int status = open_gpu(&o);
    if (status == STATUS_OK) {
        kim_gpu_get_tuning(o.gpu, &tuning);
        if (format == BENCH_JSON)
            status = print_json(tuning_json(&tuning));
        else
            print_tuning(o.gpu, &tuning);
    }
    return close_all(&o, status);
}
