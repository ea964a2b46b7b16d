// SPDX-License-Identifier: MIT
// kim bench model: what was measured, as a table, as CSV and as JSON.
#include "bench_cells.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *model_text(const kim_model_info *i)
{
    return *i->name ? i->name : *i->size ? i->size : i->architecture;
}

static void add_row(cells *c, const bench_row *r)
{
    cells_text(c, "test", r->test);
    cells_number(c, "n_prompt", r->n_prompt);
    cells_number(c, "n_gen", r->n_gen);
    cells_number(c, "n_images", r->n_images);
    cells_number(c, "n_depth", r->n_depth);
    cells_number(c, "n_sessions", r->n_sessions);
    cells_number(c, "avg_ns", r->avg_ns);
    cells_number(c, "stddev_ns", r->stddev_ns);
    cells_number(c, "avg_ts", r->avg_ts);
    cells_number(c, "stddev_ts", r->stddev_ts);
    cells_number(c, "avg_ts_session", r->avg_ts_session);
    cells_number(c, "ttft_ms", r->ttft_ms);
    cells_number(c, "bandwidth_gbs", r->bandwidth_gbs);
    cells_number(c, "copy_share", r->copy_share);
    cells_number(c, "gflops", r->gflops);
    cells_number(c, "fp32_share", r->fp32_share);
    cells_number(c, "dispatches_per_step", r->dispatches_per_step);
    cells_number(c, "barriers_per_step", r->barriers_per_step);
    cells_number(c, "submits_per_step", r->submits_per_step);
    cells_number(c, "host_us_per_step", r->host_us_per_step);
    cells_number(c, "joules_per_token", r->joules_per_token);
    cells_number(c, "clock_mhz", r->clock_mhz);
    cells_number(c, "draft_n", r->drafted); // as llama.cpp's server names them
    cells_number(c, "draft_n_accepted", r->accepted);
    cells_number(c, "drafts_right", r->drafts_right);
}

static void add_run(cells *c, const bench *b)
{
    cells_number(c, "n_batch", b->batch);
    cells_text(c, "type_k",
               given.cache_type ? given.cache_type : "f16"); // as llama-bench names them
    cells_text(c, "type_v", given.cache_type ? given.cache_type : "f16");
    cells_number(c, "lookup", given.lookup != 0);
    cells_text(c, "model_draft", given.model_draft ? model_text(&b->draft) : "");
    cells_number(c, "load_open_s", b->load.open_seconds);
    cells_number(c, "load_file_bytes", (double)b->info.file_bytes);
    cells_number(c, "load_pipelines_s", b->made.pipeline_seconds);
    cells_number(c, "load_pipelines", b->made.pipelines);
    cells_number(c, "load_upload_s", b->load.upload_seconds);
    cells_number(c, "load_upload_bytes", (double)b->load.upload_bytes);
    cells_number(c, "start_to_first_token_s", b->start_to_first_token);
    cells_number(c, "memory_peak_bytes", (double)b->memory_peak);
    cells_peaks(c, b->peaks);
    cells_text(c, "energy_source", sensors_source(b->sensors));
    cells_text(c, "model", model_text(&b->info));
    cells_number(c, "model_parameters", (double)b->info.parameters);
    cells_number(c, "model_bytes", (double)b->weights);
    cells_device(c, b->o.gpu);
}

static void fill_cells(const bench *b, const bench_row *r, cells *c)
{
    c->count = 0;
    add_row(c, r);
    add_run(c, b);
}

// ----------------------------------------------------------------------------------------- JSON

cJSON *bench_json(bench *b)
{
    cJSON *json = checked(cJSON_CreateArray());
    const int n = (int)b->repeats;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        bench_row *r = &b->rows[i];
        cells c;
        fill_cells(b, r, &c);
        cJSON *object = cells_json(&c);
        cJSON_AddItemToObject(object, "samples_ns", cJSON_CreateDoubleArray(r->samples_ns, n));
        cJSON_AddItemToObject(object, "samples_ts", cJSON_CreateDoubleArray(r->samples_ts, n));
        if (r->n_prompt)
            cJSON_AddItemToObject(object, "samples_ttft_ns",
                                  cJSON_CreateDoubleArray(r->samples_ttft_ns, n));
        if (r->trace)
            cJSON_AddItemToObject(object, "trace", r->trace);
        r->trace = NULL;
        cJSON_AddItemToArray(json, object);
    }
    return json;
}

// ---------------------------------------------------------------------------------------- table

static bool has_drafts(void)
{
    return given.lookup || given.model_draft;
}

static void print_table(const bench *b)
{
    static const struct column {
        const char *title;
        size_t offset; // in bench_row
        double scale;
        int decimals;
        const char *unit;
    } columns[] = {
        { "each t/s", offsetof(bench_row, avg_ts_session), 1, 2, "" },
        { "first token ms", offsetof(bench_row, ttft_ms), 1, 1, "" },
        { "GB/s", offsetof(bench_row, bandwidth_gbs), 1, 1, "" },
        { "of copy", offsetof(bench_row, copy_share), 100, 0, "%" },
        { "GFLOP/s", offsetof(bench_row, gflops), 1, 1, "" },
        { "of fp32", offsetof(bench_row, fp32_share), 100, 0, "%" },
        { "dispatches", offsetof(bench_row, dispatches_per_step), 1, 1, "" },
        { "barriers", offsetof(bench_row, barriers_per_step), 1, 1, "" },
        { "submits", offsetof(bench_row, submits_per_step), 1, 2, "" },
        { "host us", offsetof(bench_row, host_us_per_step), 1, 0, "" },
        { "J/token", offsetof(bench_row, joules_per_token), 1, 3, "" },
        { "MHz", offsetof(bench_row, clock_mhz), 1, 0, "" },
        { "drafts right", offsetof(bench_row, drafts_right), 100, 0, "%" }, // last: if there are
    };
    const int n_columns = sizeof columns / sizeof *columns - !has_drafts();
    char bytes[32], text[64];
    printf("| %-24s | %10s | %10s | %-16s | %18s |", "model", "size", "params", "test", "t/s");
    for (int i = 0; i < n_columns; i++)
        printf(" %9s |", columns[i].title);
    printf("\n| ------------------------ | ---------: | ---------: | ---------------- | "
           "-----------------: |");
    for (int i = 0; i < n_columns; i++)
        printf(" %.*s: |", (int)(strlen(columns[i].title) > 9 ? strlen(columns[i].title) - 1 : 8),
               "------------------------");
    putchar('\n');
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const bench_row *r = &b->rows[i];
        char speed[64], parameters[32];
        snprintf(speed, sizeof speed, "%.2f \u00b1 %.2f", r->avg_ts, r->stddev_ts);
        snprintf(parameters, sizeof parameters, "%.2f %c",
                 (double)b->info.parameters / (b->info.parameters < 1000000000 ? 1e6 : 1e9),
                 b->info.parameters < 1000000000 ? 'M' : 'B');
        // the sign takes two bytes and one column
        printf("| %-24s | %10s | %10s | %-16s | %19s |", model_text(&b->info),
               format_bytes(b->weights, bytes), parameters, r->test, speed);
        for (int k = 0; k < n_columns; k++) {
            const double value = *(const double *)((const char *)r + columns[k].offset);
            printf(" %*s |", (int)(strlen(columns[k].title) > 9 ? strlen(columns[k].title) : 9),
                   figure(value * columns[k].scale, columns[k].decimals, columns[k].unit, text));
        }
        putchar('\n');
    }
}

// What guesses, and how often it was right in all tests.
static void print_drafts(const bench *b)
{
    double drafted = 0, accepted = 0;
    for (uint32_t i = 0; i < b->n_rows; i++)
        if (b->rows[i].drafted > 0) {
            drafted += b->rows[i].drafted;
            accepted += b->rows[i].accepted;
        }
    printf("drafts: %s%s%s, %.0f of %.0f right\n", given.lookup ? "looked up" : "",
           given.lookup && given.model_draft ? " or of "
           : given.model_draft               ? "of "
                                             : "",
           given.model_draft ? model_text(&b->draft) : "", accepted, drafted);
}

static void print_notes(const bench *b)
{
    char bytes[32], text[32];
    puts("\nDispatches, barriers, submits and the host's time (not waiting for the device) are of "
         "a\n"
         "step: one token of each session, with drafts several, or a batch of a prompt; t/s is "
         "that\n"
         "of all sessions, of which there are N in a test \"x N\". Of pictures, tokens are soft "
         "tokens.\n"
         "With drafts there is no GB/s and no GFLOP/s: how much is read depends on them.");
    printf("\nload: open %.3f s (%s), %u pipelines %.3f s, upload %.3f s", b->load.open_seconds,
           format_bytes(b->info.file_bytes, bytes), b->made.pipelines, b->made.pipeline_seconds,
           b->load.upload_seconds);
    printf(" (%s, %.2f GB/s)", format_bytes(b->load.upload_bytes, bytes),
           (double)b->load.upload_bytes / b->load.upload_seconds * 1e-9);
    printf("; start to first token %s", figure(b->start_to_first_token, 3, " s\n", text));
    if (isnan(b->start_to_first_token))
        putchar('\n');
    if (has_drafts())
        print_drafts(b);
    printf("memory on the device: %s at most\n", format_bytes(b->memory_peak, bytes));
    print_peaks(b->peaks);
    printf("energy: %s\n", *sensors_source(b->sensors) ? sensors_source(b->sensors) : "n/a");
    print_device(b->o.gpu);
}

int bench_format_find(const char *name, bench_format otherwise, bench_format *out)
{
    static const char *const names[] = {
        [BENCH_MD] = "md", [BENCH_CSV] = "csv", [BENCH_JSON] = "json", [BENCH_HTML] = "html"
    };
    *out = otherwise;
    if (!name)
        return STATUS_OK;
    for (int i = BENCH_MD; i <= BENCH_HTML; i++) {
        *out = (bench_format)i;
        if (strcmp(name, names[i]) == 0)
            return STATUS_OK;
    }
    return fail_usage("-o is \"%s\"; it must be md, csv, json or html", name);
}

int bench_print(const bench *b, bench_format format)
{
    if (format == BENCH_MD) {
        print_table(b);
        print_notes(b);
    } else {
        for (uint32_t i = 0; i <= b->n_rows; i++) {
            cells c;
            fill_cells(b, i ? &b->rows[i - 1] : b->rows, &c);
            cells_print_csv(&c, i == 0);
        }
    }
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}
