// SPDX-License-Identifier: MIT
// What the subcommands of kim share: errors, arguments, opening a device, a model and a session.
#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

common_options given;
volatile sig_atomic_t interrupts;

// ---------------------------------------------------------------------------------- errors

static bool progress_shown; // a progress bar stands on the terminal's last line

void progress_clear(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = false;
}

static void print_sentence(const char *format, va_list args)
{
    progress_clear();
    fputs("kim: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

int fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_sentence(format, args);
    va_end(args);
    return STATUS_FAILED;
}

int fail_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_sentence(format, args);
    va_end(args);
    return STATUS_USAGE;
}

int fail_library(void)
{
    return fail("%s", kim_error_text());
}

void *checked(void *pointer)
{
    if (!pointer) {
        fail("out of memory");
        exit(STATUS_FAILED);
    }
    return pointer;
}

// ------------------------------------------------------------------------------- arguments

struct poptOption model_options[] = {
    { "model", 'm', POPT_ARG_STRING, &given.model, 0,
      "the GGUF file, or the folder of a model as published; without it, KIM_MODEL", "MODEL" },
    { "mmproj", '\0', POPT_ARG_STRING, &given.mmproj, 0,
      "the projector that goes with a GGUF file, to see pictures", "FILE" },
    { "quantize", '\0', POPT_ARG_STRING, &given.quantize, 0,
      "make unquantised weights q8_0 or q4_0 while loading", "TYPE" },
    POPT_TABLEEND,
};

struct poptOption synthetic_options[] = {
    { "synthetic", '\0', POPT_ARG_STRING, &given.synthetic, 0,
      "in place of a model: made-up weights in the shapes of a published size, such as 4b:q4_0 or "
      "27b:q4_k_m; +vision behind it: with the vision part, +pure: all matrices of one type",
      "SIZE:TYPE" },
    POPT_TABLEEND,
};

struct poptOption device_options[] = {
    { "device", '\0', POPT_ARG_STRING, &given.device, 0,
      "index, part of the name, or UUID, as `kim devices` shows them; without it, KIM_DEVICE, "
      "else the best one",
      "D" },
    { "memory-mode", '\0', POPT_ARG_STRING, &given.memory_mode, 0,
      "how shaders reach memory: auto, address or table", "MODE" },
    { "memory-cap", '\0', POPT_ARG_STRING, &given.memory_cap, 0,
      "never take more of the device's memory than this, such as 900M or 2.5G", "BYTES" },
    { "validation", '\0', POPT_ARG_NONE, &given.validation, 0,
      "run under Vulkan's validation layers; fail if they find anything", NULL },
    { "verbose", 'v', POPT_ARG_NONE, &given.verbose, 0, "show the library's log", NULL },
    POPT_TABLEEND,
};

struct poptOption session_options[] = {
    { "context", '\0', POPT_ARG_INT, &given.context, 0,
      "positions there are for the conversation; 0: as many as the model has, at most 8192", "N" },
    { "batch", '\0', POPT_ARG_INT, &given.batch, 0, "prompt tokens run together; 0: 512", "N" },
    POPT_TABLEEND,
};

struct poptOption draft_options[] = {
    { "model-draft", '\0', POPT_ARG_STRING, &given.model_draft, 0,
      "a smaller model of the same vocabulary guesses tokens ahead, and the model checks several "
      "in "
      "one step: the same answers, sooner",
      "MODEL" },
    { "lookup", '\0', POPT_ARG_NONE, &given.lookup, 0,
      "guess what has followed the last tokens before in the conversation", NULL },
    { "draft-max", '\0', POPT_ARG_INT, &given.draft_most, 0,
      "guess at most N tokens a step (7, which is the most)", "N" },
    { "draft-min", '\0', POPT_ARG_INT, &given.draft_least, 0,
      "guess at least N tokens a step where it can be done (0: only what makes it faster)", "N" },
    POPT_TABLEEND,
};

static void print_help(const arguments *a, poptContext context)
{
    printf("%s\n\n", a->purpose);
    poptSetOtherOptionHelp(context, a->synopsis);
    poptPrintHelp(context, stdout, 0);
    if (a->notes)
        printf("\n%s", a->notes);
}

static int bad_option(const arguments *a, poptContext context, int code)
{
    const char *option = poptBadOption(context, POPT_BADOPTION_NOALIAS);
    int length = (int)strcspn(option, "=");
    const char *value = option[length] ? option + length + 1 : option; // popt's for numbers
    switch (code) {
    case POPT_ERROR_BADOPT:
        return fail_usage("there is no option %.*s here; `%s --help` lists them", length, option,
                          a->command);
    case POPT_ERROR_NOARG:
        return fail_usage("%.*s needs a value; see `%s --help`", length, option, a->command);
    case POPT_ERROR_UNWANTEDARG: return fail_usage("%.*s takes no value", length, option);
    case POPT_ERROR_BADNUMBER:
        return fail_usage("\"%s\" is not a number; see `%s --help`", value, a->command);
    case POPT_ERROR_OVERFLOW:
        return fail_usage("%s is out of range; see `%s --help`", value, a->command);
    default: return fail_usage("%.*s: %s", length, option, poptStrerror(code));
    }
}

static int take_operands(const arguments *a, poptContext context)
{
    const char **operands = poptGetArgs(context);
    if (!operands)
        return STATUS_GO_ON;
    if (a->operand)
        *a->operand = checked(strdup(*operands++));
    if (*operands)
        return fail_usage("%s does not take \"%s\"; see `%s --help`", a->command, *operands,
                          a->command);
    return STATUS_GO_ON;
}

int arguments_parse(const arguments *a, int argc, const char **argv)
{
    enum { HELP = 1 };
    struct poptOption help_options[] = {
        { "help", 'h', POPT_ARG_NONE, NULL, HELP, "show this", NULL },
        POPT_TABLEEND,
    };
    struct poptOption table[] = {
        INCLUDE_OPTIONS(a->options, NULL),
        INCLUDE_OPTIONS(help_options, NULL),
        POPT_TABLEEND,
    };
    argv[0] = a->command; // popt's help names it
    poptContext context = checked(poptGetContext("kim", argc, argv, table, 0));
    int code = poptGetNextOpt(context);
    int status = STATUS_GO_ON;
    if (code == HELP) {
        print_help(a, context);
        status = STATUS_OK;
    } else if (code < -1) {
        status = bad_option(a, context, code);
    } else {
        status = take_operands(a, context);
    }
    poptFreeContext(context);
    if (status == STATUS_GO_ON && (!option_in_range("--context", given.context, 0, INT_MAX) ||
                                   !option_in_range("--batch", given.batch, 0, INT_MAX) ||
                                   !option_in_range("--draft-max", given.draft_most, 0, 7) ||
                                   !option_in_range("--draft-min", given.draft_least, 0, 7)))
        status = STATUS_USAGE;
    if (status == STATUS_GO_ON && (given.draft_most || given.draft_least) && !given.model_draft &&
        !given.lookup)
        status = fail_usage("--draft-max and --draft-min are for --model-draft and --lookup, and "
                            "neither is given");
    return status;
}

bool option_in_range(const char *option, double value, double low, double high)
{
    if (value >= low && value <= high) // false for a NaN
        return true;
    if (high >= INT_MAX)
        fail_usage("%s is %g; it must be at least %g", option, value, low);
    else
        fail_usage("%s is %g; it must be from %g to %g", option, value, low, high);
    return false;
}

int parse_ids(const char *what, const char *text, int32_t **ids, uint32_t *count)
{
    static const char between[] = " \t\r\n,[]";
    size_t room = 64, n = 0;
    int32_t *list = checked(malloc(room * sizeof *list));
    const char *at = text + strspn(text, between);
    while (*at) {
        char *end;
        errno = 0;
        long value = strtol(at, &end, 10);
        if (end == at || (*end && !strchr(between, *end)) || errno || value < 0 ||
            value > INT32_MAX || n == UINT32_MAX) {
            int length = (int)strcspn(at, between);
            fail("%s: \"%.*s\" is not a token id", what, length < 40 ? length : 40, at);
            free(list);
            return STATUS_FAILED;
        }
        if (n == room)
            list = checked(realloc(list, (room *= 2) * sizeof *list));
        list[n++] = (int32_t)value;
        at = end + strspn(end, between);
    }
    *ids = list;
    *count = (uint32_t)n;
    return STATUS_OK;
}

// "900M", "2.5G", "1000000", also with iB or B behind.
static bool parse_bytes(const char *from, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    size_t digits = strspn(from, "0123456789.");
    char *end;
    double value = strtod(from, &end);
    if (!digits || end != from + digits)
        return false;
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        value = ldexp(value, 10 * (int)(unit - units + 1));
        end++;
        if (*end == 'i')
            end++;
    }
    if (*end == 'B')
        end++;
    if (*end || value < 1 || value >= 0x1p63)
        return false;
    *bytes = (uint64_t)value;
    return true;
}

// ---------------------------------------------------------------------------------- opening

static void log_line(void *user, kim_log_level level, const char *line)
{
    (void)user;
    if (level > (given.verbose ? KIM_LOG_DEBUG : KIM_LOG_WARNING))
        return;
    static const char *const names[] = { "error: ", "warning: ", "", "" };
    fail("%s%s", names[level], line);
}

const char *model_path(void)
{
    const char *path = given.model ? given.model : getenv("KIM_MODEL");
    if (path && *path)
        return path;
    fail_usage("no model: name a GGUF file with -m MODEL or in KIM_MODEL");
    return NULL;
}

int gpu_params(kim_gpu_params *params)
{
    static const char *const modes[] = {
        [KIM_MEMORY_AUTO] = "auto", [KIM_MEMORY_ADDRESS] = "address", [KIM_MEMORY_TABLE] = "table"
    };
    const char *device = given.device ? given.device : getenv("KIM_DEVICE");
    *params = (kim_gpu_params){
        .device = device && *device ? device : NULL,
        .validation = given.validation != 0,
        .log = log_line,
    };
    if (given.memory_cap && !parse_bytes(given.memory_cap, &params->memory_cap))
        return fail_usage("--memory-cap is \"%s\"; it must be bytes such as 900M or 2.5G",
                          given.memory_cap);
    if (!given.memory_mode)
        return STATUS_OK;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        params->memory_mode = (kim_memory_mode)i;
        if (strcmp(given.memory_mode, modes[i]) == 0)
            return STATUS_OK;
    }
    return fail_usage("--memory-mode is \"%s\"; it must be auto, address or table",
                      given.memory_mode);
}

kim_err list_devices(kim_device_info **infos, uint32_t *count)
{
    *infos = NULL;
    *count = 0;
    kim_err err = kim_list_devices(NULL, count);
    if (err)
        return err;
    uint32_t room = *count;
    *infos = checked(calloc((size_t)room + 1, sizeof **infos));
    err = kim_list_devices(*infos, count);
    if (err) {
        free(*infos);
        *infos = NULL;
        *count = 0;
    }
    if (*count > room)
        *count = room;
    return err;
}

const char *name_of_device_type(kim_device_type type)
{
    switch (type) {
    case KIM_DEVICE_INTEGRATED: return "integrated";
    case KIM_DEVICE_DISCRETE: return "discrete";
    case KIM_DEVICE_VIRTUAL: return "virtual";
    case KIM_DEVICE_CPU: return "CPU";
    case KIM_DEVICE_OTHER: break;
    }
    return "other";
}

int open_gpu(opened *o)
{
    kim_gpu_params params;
    int status = gpu_params(&params);
    if (status != STATUS_OK)
        return status;
    params.tuning = o->tuning;
    return kim_gpu_create(&o->gpu, &params) ? fail_library() : STATUS_OK;
}

// The last line of the terminal: the label, a bar, the percentage and what stands right of it.
static void draw_line(const char *label, double share, const char *right)
{
    struct winsize window;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 ? window.ws_col : 80;
    int room = columns - 9 - (int)strlen(right);
    int label_width = room < 16 ? 8 : room < 48 ? room - 8 : 40;
    label_width = (int)strlen(label) < label_width ? (int)strlen(label) : label_width;
    int width = room - label_width;
    width = width < 8 ? 8 : width > 48 ? 48 : width;
    int full = (int)(share * width);
    bool plain = !*style_dim(stderr);
    progress_shown = true;
    fprintf(stderr, "\r\033[K%.*s ", label_width, label);
    for (int i = 0; i < width && share >= 0; i++) {
        if (i == full)
            fputs(style_dim(stderr), stderr);
        fputs(plain ? (i < full ? "#" : ".") : "\u2501", stderr);
    }
    if (share >= 0)
        fprintf(stderr, "%s %3d%%  ", style_end(stderr), (int)(share * 100));
    fputs(right, stderr);
}

void progress_draw(const char *label, uint64_t done, uint64_t total, const char *tail)
{
    char done_text[32], total_text[32], right[128];
    if (total)
        snprintf(right, sizeof right, "%s of %s%s", format_bytes(done, done_text),
                 format_bytes(total, total_text), tail);
    else
        snprintf(right, sizeof right, "%s%s", format_bytes(done, done_text), tail);
    draw_line(label, total ? (double)done / (double)total : -1, right);
}

void progress_share(const char *label, uint64_t done, uint64_t total)
{
    draw_line(label, total ? (double)done / (double)total : 0, "");
}

typedef struct progress {
    const char *label; // NULL: not shown
    double drawn;      // when it was last drawn
} progress;

static bool progress_step(void *user, uint64_t done, uint64_t total)
{
    progress *p = user;
    double now = now_seconds();
    if (p->label && (now - p->drawn > 0.05 || done == total)) {
        progress_draw(p->label, done, total, "");
        p->drawn = now;
    }
    return interrupts == 0;
}

static int open_file(kim_gpu *gpu, kim_model **out, const char *path, kim_model_params params)
{
    const char *file = path ? path : params.synthetic ? params.synthetic : params.mmproj;
    const char *slash = strrchr(file, '/');
    char label[64];
    snprintf(label, sizeof label, "loading %s", slash && slash[1] ? slash + 1 : file);
    progress p = { .label = gpu && isatty(STDERR_FILENO) ? label : NULL };
    params.progress = progress_step;
    params.progress_user = &p;
    kim_err err = kim_model_open(out, gpu, path, &params);
    progress_clear();
    return err ? fail_library() : STATUS_OK;
}

// path: NULL: the encoder of --mmproj alone, or --synthetic
static int load_model(opened *o, const char *path)
{
    return open_file(o->gpu, &o->model, path,
                     (kim_model_params){
                         .mmproj = given.mmproj,
                         .quantize = given.quantize,
                         .synthetic = given.synthetic,
                         .session = o->expected,
                     });
}

int open_model(opened *o)
{
    if (given.synthetic && given.model)
        return fail_usage("there are both a model, \"%s\", and --synthetic", given.model);
    if (given.synthetic)
        return load_model(o, NULL);
    const char *path = model_path();
    return path ? load_model(o, path) : STATUS_USAGE;
}

int open_encoder(opened *o)
{
    return load_model(o, NULL);
}

int open_session(opened *o, uint32_t context)
{
    kim_session_params params = {
        .context = context,
        .batch = (uint32_t)given.batch,
        .lookup = given.lookup != 0,
        .draft_most = (uint32_t)given.draft_most,
        .draft_least = (uint32_t)given.draft_least,
    };
    if (given.model_draft) {
        const kim_model_params draft = { .quantize = given.quantize };
        const int status = open_file(o->gpu, &o->draft, given.model_draft, draft);
        if (status != STATUS_OK)
            return status;
        params.draft = o->draft;
    }
    return kim_session_create(&o->session, o->model, &params) ? fail_library() : STATUS_OK;
}

int close_all(opened *o, int status)
{
    kim_session_destroy(&o->session);
    kim_model_destroy(&o->draft);
    kim_model_destroy(&o->model);
    uint32_t messages = o->gpu ? kim_gpu_validation_messages(o->gpu) : 0;
    kim_gpu_destroy(&o->gpu);
    if (messages)
        status = fail("the validation layers gave %u messages", messages);
    return status;
}
