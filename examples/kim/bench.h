// SPDX-License-Identifier: MIT
// The parts of kim bench model: what is measured, on what, and how it is printed.
#ifndef KIM_BENCH_H
#define KIM_BENCH_H

#include "common.h"

enum { BENCH_MOST_SESSIONS = 64 };

// A figure that could not be had is not a number.
typedef struct bench_row {
    char test[64];                               // as llama-bench names it: "pp512 @ d4096"
    uint32_t n_prompt, n_gen, n_images, n_depth; // tokens, tokens, pictures, tokens
    uint32_t n_sessions;                         // that each have them, decoded together

    double *samples_ns, *samples_ts, *samples_ttft_ns; // [repeats]; the last only of prompts
    double avg_ns, stddev_ns, avg_ts, stddev_ts;       // ts: of all sessions
    double avg_ts_session;
    double ttft_ms;       // from the prompt's start to its first drawn token, mean
    double bandwidth_gbs; // weights once a step, and the keys and values that it sees
    double copy_share;    // of KIM_PEAK_COPY
    double gflops;        // of the products
    double fp32_share;    // of KIM_PEAK_FP32
    double dispatches_per_step, barriers_per_step, submits_per_step;
    double host_us_per_step; // not waiting for the device
    double joules_per_token;
    double clock_mhz;         // while it ran, mean
    double drafted, accepted; // of the runs with drafts: guessed tokens, and those that were right
    double drafts_right;      // their share
    cJSON *trace;             // of bench_trace; NULL: none
} bench_row;

typedef struct bench {
    opened o;
    kim_model_info info, draft; // draft: of --model-draft
    kim_load_stats load;
    kim_gpu_stats made; // when the session was there
    int32_t *tokens;    // [positions] <bos>, then random: always those of these positions
    uint32_t repeats, batch;
    uint64_t weights, vision_weights; // bytes on the device
    uint64_t memory_peak;
    double started;              // now_seconds when the device was opened
    double start_to_first_token; // seconds
    kim_batch *together;         // of the row under way, if it has several sessions
    double peaks[KIM_PEAK_COUNT];
    struct sensors *sensors;
    bool print_trace; // on stderr, as it runs
    bench_row *rows;  // [n_rows]
    uint32_t n_rows;
} bench;

// One measured run of a row: what it took, as differences.
typedef struct run_result {
    double seconds, first_token; // the latter from the start; not a number without a prompt
    double waited, joules, clock_mhz;
    uint32_t steps; // of several sessions, and with drafts; 0: as the row's tokens come to
    kim_session_stats work;
} run_result;

// A moment: of the clock, and of the time spent waiting for the device.
typedef struct moment {
    double now, waited;
} moment;
moment take_moment(const bench *b);
void add_time(run_result *out, moment from, moment to);

// A run of several sessions: before what is measured, and that. bench_sessions.c
kim_err bench_prepare_sessions(bench *b, const bench_row *row);
kim_err bench_run_sessions(bench *b, const bench_row *row, run_result *out);

// Fills everything of a row but the shares of peaks. bench_measure.c
kim_err bench_measure(bench *b, bench_row *row);

// The peaks of the device and what follows from them. Closes session and model first: their memory
// is needed.
kim_err bench_measure_peaks(bench *b);

// The mean of some figures, and their standard deviation; 0 of one alone.
double bench_mean(const double *values, uint32_t n);
double bench_deviation(const double *values, uint32_t n);

// Leaves the session with `depth` tokens read.
kim_err bench_prepare(const bench *b, uint32_t depth);

// Encodes pictures that were not seen before. seconds: of the encoding alone; NULL: not wanted
kim_err bench_encode(const bench *b, uint32_t count, double *seconds);

// Runs a step of a measured row once more, and keeps its trace. bench_trace.c
kim_err bench_trace(bench *b, bench_row *row);

typedef enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON, BENCH_HTML } bench_format;

// The format of a name, or, for NULL, `otherwise`. Returns STATUS_OK or STATUS_USAGE.
int bench_format_find(const char *name, bench_format otherwise, bench_format *out);

// Prints the rows as a table or as CSV. Returns STATUS_OK or STATUS_FAILED. bench_output.c
int bench_print(const bench *b, bench_format format);

// The rows as -o json prints them. Takes their traces.
cJSON *bench_json(bench *b);

enum { BENCH_MOST_VALUES = 64 };

typedef struct bench_values {
    uint32_t list[BENCH_MOST_VALUES];
    uint32_t count;
} bench_values;

// "512,1024", each from 0 to 2^24. text: NULL: `otherwise`. Returns STATUS_OK, or STATUS_USAGE with
// the sentence printed.
int bench_read_values(const char *option, const char *text, const char *otherwise,
                      bench_values *out);

int bench_kernels(int argc, const char **argv); // kim bench kernels
int bench_tune(bench_format format);            // kim bench kernels --tune

// ---- energy and clocks, where the system shows them: bench_sensors.c

typedef struct sensors sensors;

// Finds what there is for a device; never NULL.
sensors *sensors_open(const kim_device_info *device);
void sensors_close(sensors *s);

// Measures between begin and end, in a thread. What the system does not show is not a number.
void sensors_begin(sensors *s);
void sensors_end(sensors *s, double *joules, double *clock_mhz);

// Where the energy comes from, such as "RAPL package-0"; "" if it is not shown.
const char *sensors_source(const sensors *s);

#endif
