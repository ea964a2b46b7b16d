// SPDX-License-Identifier: MIT
// What the subcommands of kim share: their options, errors, output, files, and opening a model.
#ifndef KIM_COMMON_H
#define KIM_COMMON_H

#include "engine/kimberlite.h"

#include <cjson/cJSON.h>
#include <popt.h>
#include <signal.h>
#include <stdio.h>

// What a subcommand returns: the exit code of the program.
enum {
    STATUS_GO_ON = -1, // of arguments_parse only
    STATUS_OK = 0,
    STATUS_FAILED = 1,
    STATUS_USAGE = 2,
};

// The subcommands, each in a file of its name. argv[0] is the subcommand.
int command_bench(int argc, const char **argv);
int command_chat(int argc, const char **argv);
int command_devices(int argc, const char **argv);
int command_image(int argc, const char **argv);
int command_inspect(int argc, const char **argv);
int command_logits(int argc, const char **argv);
int command_pull(int argc, const char **argv);
int command_selftest(int argc, const char **argv);
int command_tokenize(int argc, const char **argv);

// ---------------------------------------------------------------------------------- errors

// Each prints `kim: sentence` on stderr and returns the status it is named for.
int fail(const char *format, ...) KIM_PRINTF(1, 2);
int fail_usage(const char *format, ...) KIM_PRINTF(1, 2);
int fail_library(void); // the sentence is kim_error_text()

// `pointer`; when it is NULL the program ends with "out of memory".
void *checked(void *pointer);

// ------------------------------------------------------------------------------- arguments

// The options that several subcommands have, as typed. popt's tables hold the addresses.
typedef struct common_options {
    char *model, *mmproj, *quantize, *synthetic;
    char *device, *memory_mode, *memory_cap;
    int context, batch;
    char *model_draft;
    int lookup, draft_most, draft_least;
    int verbose, validation;
} common_options;

extern common_options given;
extern struct poptOption model_options[];     // -m, --mmproj, --quantize
extern struct poptOption synthetic_options[]; // --synthetic
extern struct poptOption device_options[];    // --device, --memory-mode, …
extern struct poptOption session_options[];   // --context, --batch
extern struct poptOption draft_options[];     // --model-draft, --lookup, …

// One line of a table that includes another table.
#define INCLUDE_OPTIONS(table, title)                                                              \
    {                                                                                              \
        NULL, '\0', POPT_ARG_INCLUDE_TABLE, (table), 0, (title), NULL                              \
    }

typedef struct arguments {
    const char *command;  // "kim chat"
    const char *synopsis; // what follows it in the usage line
    const char *purpose;  // one sentence
    const char *notes;    // printed below the options; NULL: nothing
    struct poptOption *options;
    const char **operand; // where the only operand goes; NULL: the command takes none
} arguments;

// Reads the command line, or prints the help. Returns STATUS_GO_ON, or the status to end with.
int arguments_parse(const arguments *a, int argc, const char **argv);

// Checks what popt cannot: prints a sentence and returns false when value is not in [low, high].
bool option_in_range(const char *option, double value, double low, double high);

// Reads ids separated by blanks and commas, with or without the brackets of a JSON array.
// what: names the source in the sentence
// ids:  [*count], free with free()
// Returns STATUS_OK, or STATUS_FAILED with the sentence printed.
int parse_ids(const char *what, const char *text, int32_t **ids, uint32_t *count);

// --------------------------------------------------------------------------- text and files

// Bytes that grow. Zero-initialised is empty; `data` ends with a zero byte that is not counted.
typedef struct strbuf {
    char *data;
    size_t length, room;
} strbuf;

void strbuf_add(strbuf *t, const char *bytes, size_t length);
void strbuf_printf(strbuf *t, const char *format, ...) KIM_PRINTF(2, 3);
void strbuf_free(strbuf *t);

// Reads all of a file ("-": stdin). Prints the sentence and returns false when it cannot.
bool read_file(const char *path, strbuf *out);

// Replaces a file whole or not at all: temporary name, sync, rename.
// Prints the sentence and returns false when it cannot.
bool write_file(const char *path, const char *bytes, size_t length);

// True when path is a plain file or nothing yet; else prints the sentence. Renaming over a device
// or a pipe would destroy it.
bool can_replace(const char *path);

// ---------------------------------------------------------------------------------- output

// Hands what was printed to the system. False when that failed, now or before: stop printing.
// To be called at least once in 4 KiB: what stdio itself hands over loses the reason of a failure.
bool output_flush(void);

// Prints any amount, and flushes.
bool output_write(const char *bytes, size_t length);

// The last thing main does. Returns `status`, or STATUS_FAILED when output was lost; a closed pipe
// is not worth a sentence, a full disk is.
int output_finish(int status);

// Prints and frees. Returns STATUS_OK or STATUS_FAILED.
int print_json(cJSON *json);

// The float with as many digits as bring it back, not the 17 of a double.
cJSON *json_float(float value);

// "241 MiB". Returns buffer.
const char *format_bytes(uint64_t bytes, char buffer[32]);

// Bytes as a string of valid UTF-8, U+FFFD for what is none. Free with free().
// It ends early at a zero byte.
char *valid_utf8(const char *bytes, size_t length);

// Draws a bar with `label` before it and `tail` behind it on the last line of the terminal that
// stderr is; what fail prints next takes its place. total: 0 when it is not known
void progress_draw(const char *label, uint64_t done, uint64_t total, const char *tail);
void progress_share(const char *label, uint64_t done, uint64_t total); // without the bytes
void progress_clear(void);

// Prints the bytes of a token in quotes, without control characters.
void print_quoted(FILE *file, const char *bytes, size_t length);

// Escape sequences for a terminal; "" when the file is none, or NO_COLOR is set.
const char *style_dim(FILE *file);
const char *style_bold(FILE *file);
const char *style_end(FILE *file);

double now_seconds(void); // monotonic

// ---------------------------------------------------------------------------------- opening

// How often Ctrl-C was pressed; chat counts and resets it, elsewhere Ctrl-C ends the program.
extern volatile sig_atomic_t interrupts;

// The rows as an array.
cJSON *tuning_json(const kim_tuning *tuning);

// Every device of this machine: [*count], free with free(). Prints nothing.
kim_err list_devices(kim_device_info **infos, uint32_t *count);
const char *name_of_device_type(kim_device_type type);

typedef struct opened {
    kim_gpu *gpu;
    kim_model *model, *draft; // draft: NULL: none
    kim_session *session;
    kim_tuning_mode tuning;
    const kim_session_params *expected; // the session that follows the model; NULL: not known
} opened;

// The name of the model's file from -m or KIM_MODEL. NULL, with the sentence printed: none given.
const char *model_path(void);

// Fills params from the options. Returns STATUS_OK or STATUS_USAGE, with the sentence printed.
int gpu_params(kim_gpu_params *params);

// Each returns STATUS_OK, or a status with the sentence printed.
int open_gpu(opened *o);
int open_model(opened *o);   // on o->gpu; with none the weights stay in the file. That of
                             // --synthetic where the command has it and it is given
int open_encoder(opened *o); // only the encoder of --mmproj
int open_session(opened *o, uint32_t context); // with the model of --model-draft, if it is given

// Destroys what is open. Returns status, or STATUS_FAILED when --validation found something.
int close_all(opened *o, int status);

#endif
