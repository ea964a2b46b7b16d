// SPDX-License-Identifier: MIT
// kim bench model: its options, and the list of tests.
#include "bench.h"
#include "report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct {
    char *prompts, *gens, *depths, **pairs, *sessions;
    int n_images, repeats;
    char *format;
    int trace;
} options = { .repeats = 5 };

static struct poptOption table[] = {
    INCLUDE_OPTIONS(model_options, NULL),
    INCLUDE_OPTIONS(synthetic_options, NULL),
    { "prompt", 'p', POPT_ARG_STRING, &options.prompts, 0,
      "tokens of the prompt (512; 0: no such test)", "N,..." },
    { "gen", 'n', POPT_ARG_STRING, &options.gens, 0,
      "tokens decoded one by one (128; 0: no such test)", "N,..." },
    { "pg", '\0', POPT_ARG_ARGV | POPT_ARGFLAG_ONEDASH, &options.pairs, 0,
      "a prompt and then tokens one by one, as one test; may be given again", "P,N" },
    { "depth", 'd', POPT_ARG_STRING, &options.depths, 0,
      "tokens that are there before each test (0)", "N,..." },
    { "images", 'i', POPT_ARG_INT, &options.n_images, 0,
      "pictures encoded at once, where the model sees (0: no such test)", "N" },
    { "sessions", 'b', POPT_ARG_STRING, &options.sessions, 0,
      "sessions decoded together, each with the tokens of the test (1)", "N,..." },
    { "repeats", 'r', POPT_ARG_INT, &options.repeats, 0,
      "measured runs of each test, after one that is not counted (5)", "N" },
    { "output", 'o', POPT_ARG_STRING, &options.format, 0, "md, csv, json or html (md)", "FORMAT" },
    { "trace", '\0', POPT_ARG_NONE, &options.trace, 0,
      "run a step of each test once more, and show each of its commands: on stderr with md and "
      "csv, "
      "else in what is printed; html always has it",
      NULL },
    INCLUDE_OPTIONS(report_options, NULL),
    INCLUDE_OPTIONS(session_options, NULL),
    INCLUDE_OPTIONS(draft_options, NULL),
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

// ------------------------------------------------------------------------------------ the tests

enum { MOST_TOKENS = 1 << 24 };

int bench_read_values(const char *option, const char *text, const char *otherwise,
                      bench_values *out)
{
    const char *at = text ? text : otherwise;
    for (out->count = 0;; at++) {
        char *end;
        errno = 0;
        const long value = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || errno || value < 0 || value > MOST_TOKENS ||
            out->count == BENCH_MOST_VALUES)
            return fail_usage("%s is \"%s\"; it must be numbers from 0 to %d with commas between, "
                              "%d at most",
                              option, text, MOST_TOKENS, BENCH_MOST_VALUES);
        out->list[out->count++] = (uint32_t)value;
        at = end;
        if (!*at)
            return STATUS_OK;
    }
}

typedef struct tests {
    bench_values prompts, gens, depths, sessions;
    bench_values pairs[BENCH_MOST_VALUES]; // of two each
    uint32_t n_pairs;
} tests;

static int read_tests(tests *t)
{
    int status = bench_read_values("-p", options.prompts, "512", &t->prompts);
    if (status == STATUS_OK)
        status = bench_read_values("-n", options.gens, "128", &t->gens);
    if (status == STATUS_OK)
        status = bench_read_values("-d", options.depths, "0", &t->depths);
    if (status == STATUS_OK)
        status = bench_read_values("-b", options.sessions, "1", &t->sessions);
    for (uint32_t i = 0; status == STATUS_OK && i < t->sessions.count; i++)
        if (!option_in_range("-b", (int)t->sessions.list[i], 1, BENCH_MOST_SESSIONS))
            return STATUS_USAGE;
        else if (t->sessions.list[i] > 1 && (given.lookup || given.model_draft))
            return fail_usage("--lookup and --model-draft are for one session, and -b asks for %u",
                              t->sessions.list[i]);
    for (char **pair = options.pairs; status == STATUS_OK && pair && *pair; pair++) {
        bench_values *v = &t->pairs[t->n_pairs++];
        status = bench_read_values("-pg", *pair, NULL, v);
        if (status == STATUS_OK && (v->count != 2 || !v->list[0] || !v->list[1]))
            return fail_usage("-pg is \"%s\"; it must be tokens of the prompt, a comma, and tokens "
                              "decoded, both above 0",
                              *pair);
        if (t->n_pairs == BENCH_MOST_VALUES)
            break;
    }
    return status;
}

static void add_row(bench *b, bench_row row)
{
    if (!row.n_prompt && !row.n_gen && !row.n_images)
        return;
    b->rows = checked(realloc(b->rows, (b->n_rows + 1) * sizeof *b->rows));
    b->rows[b->n_rows++] = row;
}

// All tests of a depth.
static void list_rows_of(bench *b, const tests *t, uint32_t depth, uint32_t sessions)
{
    for (uint32_t i = 0; i < t->prompts.count; i++)
        add_row(b, (bench_row){
                       .n_prompt = t->prompts.list[i], .n_depth = depth, .n_sessions = sessions });
    for (uint32_t i = 0; i < t->gens.count; i++)
        add_row(b,
                (bench_row){ .n_gen = t->gens.list[i], .n_depth = depth, .n_sessions = sessions });
    for (uint32_t i = 0; i < t->n_pairs; i++)
        add_row(b, (bench_row){ .n_prompt = t->pairs[i].list[0],
                                .n_gen = t->pairs[i].list[1],
                                .n_depth = depth,
                                .n_sessions = sessions });
}

// In the order of llama-bench: all tests of a depth, then those of the next.
static void list_rows(bench *b, const tests *t)
{
    for (uint32_t s = 0; s < t->sessions.count; s++)
        for (uint32_t d = 0; d < t->depths.count; d++)
            list_rows_of(b, t, t->depths.list[d], t->sessions.list[s]);
    add_row(b, (bench_row){ .n_images = (uint32_t)options.n_images, .n_sessions = 1 });
}

static uint32_t most_positions(const bench *b)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const uint32_t n = b->rows[i].n_depth + b->rows[i].n_prompt + b->rows[i].n_gen;
        most = n > most ? n : most;
    }
    return most;
}

// -------------------------------------------------------------------------------------- command

static int check_options(bench_format *format)
{
    if (!option_in_range("-i", options.n_images, 0, 1 << 12) ||
        !option_in_range("-r", options.repeats, 1, 10000))
        return STATUS_USAGE;
    const int status = bench_format_find(options.format, BENCH_MD, format);
    return status == STATUS_OK ? report_check(*format, "model") : status;
}

// Any ids do: what is computed does not depend on them. Fixed, so that two runs are the same.
static void make_tokens(bench *b, uint32_t count)
{
    uint32_t state = 2463534242u;
    b->tokens = checked(malloc(count * sizeof *b->tokens));
    for (uint32_t i = 0; i < count; i++) {
        state ^= state << 13; // xorshift32, Marsaglia 2003
        state ^= state >> 17;
        state ^= state << 5;
        b->tokens[i] = (int32_t)(state % b->info.vocab);
    }
    b->tokens[0] = b->info.bos;
}

static int open_bench(bench *b)
{
    const uint32_t positions = most_positions(b) + (options.trace ? 2 : 0); // see bench_trace.c
    b->started = now_seconds();
    int status = open_gpu(&b->o);
    if (status == STATUS_OK)
        status = open_model(&b->o);
    if (status == STATUS_OK)
        status = open_session(&b->o, given.context ? (uint32_t)given.context : positions);
    if (status != STATUS_OK)
        return status;
    kim_plan plan;
    const kim_session_params params = session_params(kim_session_context(b->o.session));
    if (kim_model_plan(b->o.model, b->o.gpu, &params, &plan))
        return fail_library();
    b->info = *kim_model_get_info(b->o.model);
    if (b->o.draft)
        b->draft = *kim_model_get_info(b->o.draft);
    kim_model_get_load_stats(b->o.model, &b->load);
    kim_gpu_get_stats(b->o.gpu, &b->made);
    b->batch = given.batch ? (uint32_t)given.batch : 512;
    b->weights = plan.weights;
    b->sensors = sensors_open(kim_gpu_info(b->o.gpu));
    if (options.n_images && !b->info.vision)
        return fail("this model cannot see pictures; give the mmproj file that was published with "
                    "it, with --mmproj, or +vision behind the name of a synthetic one");
    make_tokens(b, positions);
    return STATUS_OK;
}

static int measure_all(bench *b)
{
    for (uint32_t i = 0; i < b->n_rows; i++)
        if (bench_measure(b, &b->rows[i]))
            return fail_library();
    for (uint32_t i = 0; options.trace && i < b->n_rows; i++)
        if (bench_trace(b, &b->rows[i]))
            return fail_library();
    b->memory_peak = kim_gpu_memory_peak(b->o.gpu);
    return bench_measure_peaks(b) ? fail_library() : STATUS_OK;
}

static void free_bench(bench *b)
{
    for (uint32_t i = 0; i < b->n_rows; i++) {
        cJSON_Delete(b->rows[i].trace);
        free(b->rows[i].samples_ns);
        free(b->rows[i].samples_ts);
        free(b->rows[i].samples_ttft_ns);
    }
    free(b->rows);
    free(b->tokens);
    sensors_close(b->sensors);
}

static int bench_model(int argc, const char **argv)
{
    static tests wanted;
    bench_format format = BENCH_MD;
    bench b = { .start_to_first_token = NAN };
    int status = arguments_parse(
        &(arguments){
            .command = "kim bench model",
            .synopsis = "-m MODEL | --synthetic SIZE:TYPE [OPTION...]",
            .purpose =
                "Measures how fast a prompt is read (pp), how fast tokens are decoded (tg), and\n"
                "how fast pictures are encoded (img), as mean and standard deviation of the\n"
                "repeats, and what of the device's own measured peaks that is.",
            .notes =
                "GB/s counts the weights once a step, a batch of the prompt or one token, and\n"
                "the keys and values that it sees; not with drafts. Peaks are measured after the "
                "tests.\n"
                "With --lookup or --model-draft the tokens of tg are decoded with guesses ahead,\n"
                "as in kim chat. How many are right depends on the text: here it is what the\n"
                "model says after <bos>, or after random tokens (-pg, -d), most probable token by\n"
                "token.\n",
            .options = table,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    status = check_options(&format);
    if (status == STATUS_OK)
        status = read_tests(&wanted);
    if (status != STATUS_OK)
        return status;
    if (!given.synthetic && !model_path())
        return STATUS_USAGE;
    list_rows(&b, &wanted);
    if (!b.n_rows)
        return fail_usage("-p, -n and -i are all 0: there is nothing to measure");
    b.repeats = (uint32_t)options.repeats;
    options.trace |= format == BENCH_HTML;
    b.print_trace = format == BENCH_MD || format == BENCH_CSV;
    status = open_bench(&b);
    if (status == STATUS_OK)
        status = measure_all(&b);
    if (status == STATUS_OK && (format == BENCH_MD || format == BENCH_CSV))
        status = bench_print(&b, format);
    if (status == STATUS_OK)
        status = report_print(bench_json(&b), format);
    free_bench(&b);
    return close_all(&b.o, status);
}

int command_bench(int argc, const char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "model") == 0)
        return bench_model(argc - 1, argv + 1);
    if (strcmp(what, "kernels") == 0)
        return bench_kernels(argc - 1, argv + 1);
    if (strcmp(what, "report") == 0)
        return command_report(argc - 1, argv + 1);
    if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0) {
        puts("Usage: kim bench model|kernels|report [OPTION...]\n\n"
             "  model      prompt and decode speed of a model\n"
             "  kernels    each operation at the shapes of a model\n"
             "  report     a page of what was measured before\n\n"
             "`kim bench model --help` tells more.");
        return STATUS_OK;
    }
    if (!*what)
        return fail_usage("kim bench needs to know what to measure: `kim bench model` or `kim "
                          "bench kernels`");
    return fail_usage("there is no benchmark \"%s\"; there are `kim bench model`, `kim bench "
                      "kernels` and `kim bench report`",
                      what);
}
