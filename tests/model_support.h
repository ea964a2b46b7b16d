// SPDX-License-Identifier: MIT
// For the tests of whole models: their options, a device, small models with made-up weights.
#ifndef MODEL_SUPPORT_H
#define MODEL_SUPPORT_H

#include "engine/kimberlite.h"
#include "host/matmul_ways.h"
#include "text_support.h"

// TESTS_FOLDER MODEL [--device D] [--mode address|table] [--validation] [--limit N] [--odd N]
// [--single N] [--prompts N] [--way few|float|dot|half|int8] [--attention matrices|nv] [--kv
// f16|q8_0]; KIM_VALIDATION in the environment is --validation.
typedef struct model_options {
    const char *tests_folder, *model_path, *device;
    kim_memory_mode mode;
    bool validation;
    bool way_given;              // --way; else the device's default
    matmul_way way;              // to multiply many columns
    bool attention_matrices;     // also where that is not the device's default
    bool attention_nv;           // of those, NV's second version
    kim_kv_type kv;              // of sessions
    uint32_t limit, odd, single; // tokens: in batches of 512, in odd batches, one by one
    uint32_t prompts;            // short ones
} model_options;

// The defaults are what `o` has. Ends the program with 2 if the arguments are wrong.
void model_options_read(model_options *o, int argc, char **argv);

// Ends the test as skipped if there is no such device.
kim_gpu *model_gpu(const model_options *o);

// Destroys the gpu; the test has failed if the validation layers said anything.
void model_gpu_finish(kim_gpu **gpu);

// Prints a measured figure and its limit. Above it, or not a number: counted as a failure.
void check_figure(const char *what, double value, double limit);
uint32_t failed_figures(void);

// [count] of a fixture; free with free()
int32_t *fixture_ids(fixture *f, uint32_t count);
float *fixture_floats(fixture *f, uint64_t count);

// log(sum(exp(logits)))
double log_sum(const float *logits, uint32_t count);
int32_t highest(const float *logits, uint32_t count);

// Writes the GGUF file that a fixture describes from here on; path: set to a new one in /tmp
enum { SMALL_PATH = 32 };
void small_file_write(fixture *f, char path[SMALL_PATH]);

// A model of fixtures/make_small_models.py, and what the reference says about it.
typedef struct small_model {
    kim_model *model;
    kim_model_info expected; // what is read from the keys; the rest is 0
    uint32_t count;          // tokens
    int32_t *ids;            // [count]
    float *next;             // [count]: log-probability of ids[i + 1]; the last is 0
    int32_t *first;          // [count]: the most probable token after ids[i]
    float *gap;              // [count]: by how much, before the second
    uint32_t positions;      // where all logits are known
    int32_t *position;       // [positions]
    float *logits;           // [positions, vocab]
} small_model;

// Writes the model to a file, opens it, and removes the file.
void small_model_open(small_model *s, const char *tests_folder, const char *name, kim_gpu *gpu);
void small_model_close(small_model *s);

// Opens a file of a published shape without weights: nothing can be computed with it.
kim_model *plan_model_open(const char *tests_folder, const char *name);

#endif
