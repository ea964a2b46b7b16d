// SPDX-License-Identifier: MIT
// What kim bench model and kim bench kernels print alike: figures by their keys, as JSON and as
// CSV, and the device they are of.
#ifndef KIM_BENCH_CELLS_H
#define KIM_BENCH_CELLS_H

#include "bench.h"

// One figure or text of a row, for programs. The same list makes CSV and JSON.
typedef struct cell {
    const char *key;
    const char *text; // NULL: a number
    double number;    // not a number: there is none
} cell;

enum { MOST_CELLS = 64 };

typedef struct cells {
    cell list[MOST_CELLS];
    uint32_t count;
} cells;

void cells_number(cells *c, const char *key, double number);
void cells_text(cells *c, const char *key, const char *text); // not copied
void cells_peaks(cells *c, const double *peaks);
void cells_device(cells *c, const kim_gpu *gpu); // and the build

cJSON *cells_json(const cells *c);               // an object
void cells_print_csv(const cells *c, bool keys); // a line of the figures, or of their keys

// A figure with its decimals, "n/a" where there is none. Returns buffer.
const char *figure(double value, int decimals, const char *unit, char buffer[32]);

// Lines below a table.
void print_peaks(const double *peaks);
void print_device(const kim_gpu *gpu);

#endif
