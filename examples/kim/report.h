// SPDX-License-Identifier: MIT
// What is made of the rows of a benchmark, as -o json prints them: JSON, a comparison with an older
// run, a page in HTML. The same for kim bench model, kim bench kernels, and files of both.
//
// What is missing in a row is left out, so that rows of other versions are read too.
#ifndef KIM_REPORT_H
#define KIM_REPORT_H

#include "bench.h"

extern struct poptOption report_options[]; // --compare, --output-file

// To be called before anything is measured: reads the file of --compare, and checks it and the
// options. kind: "model" or "kernel": what the old rows have to be; NULL: either. Returns
// STATUS_OK, or a status with the sentence printed.
int report_check(bench_format format, const char *kind);

// Prints rows as JSON or HTML, to --output-file where that is given. With --compare the old figures
// stand beside the new ones; for BENCH_MD and BENCH_CSV, whose table is the caller's, only these
// are printed. rows: is freed. Returns STATUS_OK or STATUS_FAILED.
int report_print(cJSON *rows, bench_format format);

int command_report(int argc, const char **argv); // kim bench report

// ---- rows

double row_number(const cJSON *row, const char *key);    // not a number: there is none
const char *row_text(const cJSON *row, const char *key); // "": there is none
bool row_is_kernel(const cJSON *row);

// ---- comparison: report_compare.c

// Adds to each row what it is compared with, where `old` has the same test: an object `compare` of
// old, old_stddev, new, new_stddev, ratio of the speeds (above 1: faster), p, verdict.
// Says on stderr where device, driver or model are other ones.
void compare_rows(cJSON *rows, const cJSON *old);

// The rows side by side, as a table of Markdown.
void compare_print(const cJSON *rows, const cJSON *old);

// What a row is called in tables: "pp512 @ d4096", "matmul Q4_K m=4096 k=14336 n=1 half".
void row_name(const cJSON *row, strbuf *out);

// ---- the page: report_html.c and report_plots.c

void report_html(const cJSON *rows, strbuf *out);

const char *format_seconds(double seconds, char buffer[32]); // "12.3 us"; returns buffer

void html_text(strbuf *out, const char *text); // escaped, also for attributes

// The operations of all rows with their colours, those that take most of the time first.
typedef struct palette palette;
palette *palette_create(const cJSON *rows);
void palette_destroy(palette *p);

// All commands of a trace, or kernels, of one text and one row together.
typedef struct spot {
    const cJSON *row, *first; // first: the command, or the kernel's row
    uint32_t row_index;
    strbuf text;
    uint32_t count;
    double seconds, flop, bytes; // of all
    double share;                // of the row's time; of a kernel 0
} spot;

// [*count], by row and falling time; free with spots_free.
spot *spots_find(const cJSON *rows, uint32_t *count);
void spots_free(spot *spots, uint32_t count);

// Each adds a figure; the roofline nothing, where there is no spot to show.
void plot_roofline(const cJSON *rows, const spot *spots, uint32_t count, const palette *colours,
                   strbuf *out);
void plot_layers(const cJSON *trace, const palette *colours, strbuf *out);
void plot_legend(const palette *colours, strbuf *out);

#endif
