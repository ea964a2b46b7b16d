// SPDX-License-Identifier: MIT
// Drawing tokens on a device: what engine/sampler.c draws by the same random numbers.
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sampler.h"
#include "host/reference_ops.h"
#include "host/reference_sample.h"

#define PROMPT 20   // tokens that are there before
#define MAX_STEPS 4 // rows of the control block
#define ULP 0x1p-24

typedef enum logits_kind {
    LOGITS_NORMAL, // deviation 3
    LOGITS_FLAT,   // deviation 0.2
    LOGITS_EQUAL,
    LOGITS_TIED, // two highest, and many equal to others
    LOGITS_FAR,  // over the whole range of numbers
    LOGITS_INFINITE,
    LOGITS_SPREAD, // a high one in each part of the vocabulary that a device joins first
} logits_kind;

typedef struct sample_setup {
    const char *name;
    kim_sampling sampling;
    logits_kind kind;
    uint32_t vocab, steps, runs; // steps are recorded together, and run so often; 0: 64, once
    uint32_t first_row;
} sample_setup;

typedef struct sample_tensors {
    span logits, control, history, sampling, scratch, results;
    uint32_t vocab, position; // of the row whose logits these are
} sample_tensors;

// ---------------------------------------------------------------------------------- the case

static void fill_logits(float *x, uint32_t vocab, logits_kind kind)
{
    for (uint32_t i = 0; i < vocab; i++) {
        x[i] = (float)ops_normal() * (kind == LOGITS_FLAT ? 0.2f : 3);
        if (kind == LOGITS_EQUAL)
            x[i] = -7.25f;
        if (kind == LOGITS_TIED)
            x[i] = i % 2 ? roundf(x[i]) : i % 4 ? 0.0f : -0.0f;
        if (kind == LOGITS_FAR)
            x[i] = (float)ops_uniform(-3e38, 3e38);
        if (kind == LOGITS_INFINITE && i % 3)
            x[i] = -INFINITY;
        if (kind == LOGITS_SPREAD) // both of runs of ids and of every eighth one
            x[i] = x[i] * 0.1f + (i % SAMPLE_LEAST_CHUNK == i / SAMPLE_LEAST_CHUNK % 8 ? 9 : 0);
    }
    if (kind == LOGITS_TIED)
        x[vocab / 3] = x[vocab / 2] = 14;
    if (kind == LOGITS_FAR)
        x[vocab / 3] = INFINITY;
}

static void place(ops_case *c, sample_tensors *t, uint32_t vocab, uint32_t steps)
{
    t->vocab = vocab;
    t->logits = case_place_floats(c, vocab + 3);
    t->control = case_place_floats(c, CONTROL_ROW(MAX_STEPS, 0));
    t->history = case_place_floats(c, PROMPT + steps);
    t->sampling = case_place(c, sizeof(struct sampling_block));
    t->scratch = case_place(c, sample_scratch_bytes(vocab));
    t->results = case_place_floats(c, SAMPLE_SLOTS * 4);
    case_commit(c);
    float *x = case_data(&t->logits);
    for (uint32_t i = vocab; i < vocab + 3; i++)
        x[i] = 1e30f; // never drawn
    memset(case_data(&t->scratch), 0, t->scratch.bytes);
}

// The control block and the tokens before; first_row: of the step
static void start(const sample_tensors *t, uint32_t first_row)
{
    uint32_t *control = case_data(&t->control);
    int32_t *history = case_data(&t->history);
    const float *x = case_data(&t->logits);
    uint32_t best = 0;
    for (uint32_t i = 1; i < t->vocab; i++)
        best = x[i] > x[best] ? i : best;
    control[CONTROL_POSITION] = t->position - first_row;
    control[CONTROL_STEP] = control[CONTROL_STOPPED] = 0;
    for (uint32_t i = 0; i < PROMPT; i++)
        history[i] = (int32_t)(i % 5 == 0 ? best : ops_random() % t->vocab);
    history[PROMPT / 2] = -1; // a soft token of a picture
    ((struct sampling_block *)case_data(&t->sampling))->n_stops = 0;
}

static void record(ops_run *run, const sample_tensors *t, uint32_t first_row, bool greedy)
{
    MUST(op_sample(run->st, &(sample_params){
                                .logits = &t->logits,
                                .control = &t->control,
                                .history = &t->history,
                                .sampling = &t->sampling,
                                .scratch = &t->scratch,
                                .results = &t->results,
                                .vocab = t->vocab,
                                .first_row = first_row,
                                .greedy = greedy,
                            }));
}

// What stands in the control block after `done` steps, the last of which drew `id`.
static void check_control(ops_case *c, const sample_tensors *t, uint32_t done, uint32_t position,
                          uint32_t id, bool stopped)
{
    const uint32_t *control = case_data(&t->control);
    case_check(c, "position", 0, control[CONTROL_POSITION], position, 0);
    case_check(c, "step", 0, control[CONTROL_STEP], done, 0);
    case_check(c, "stopped", 0, control[CONTROL_STOPPED], stopped, 0);
    case_check(c, "token", 0, control[CONTROL_ROW(0, CONTROL_ROW_TOKEN)], id, 0);
    case_check(c, "ahead", 0, control[CONTROL_ROW(0, CONTROL_ROW_AHEAD)], 0, 0);
    for (uint32_t i = CONTROL_ROW(1, 0); i < CONTROL_ROW(MAX_STEPS, 0); i++)
        case_check(c, "other rows", i, control[i], UINT32_MAX, 0);
}

typedef struct draws {
    bool greedy;
    kim_sampler *ahead; // fills the block
    kim_sampler *host;  // draws
    double log_sum;
    uint32_t drawn, different;
} draws;

// One step: its result, the token in the history, and what the host draws.
static void check_step(ops_case *c, const sample_tensors *t, draws *d, uint32_t step)
{
    const float *x = case_data(&t->logits);
    const int32_t *history = case_data(&t->history);
    const uint32_t *result = (const uint32_t *)case_data(&t->results) + step % SAMPLE_SLOTS * 4;
    const uint32_t id = result[SAMPLE_RESULT_ID], n_history = PROMPT + step;
    float logprob;
    int32_t wanted;
    case_check(c, "mark", step, result[SAMPLE_RESULT_MARK], step + 1, 0);
    case_check(c, "status", step, result[SAMPLE_RESULT_STATUS], SAMPLE_OK, 0);
    case_check(c, "history", step, history[n_history], id, 0);
    MUST(sampler_draw(d->host, x, t->vocab, history, n_history, &wanted, NULL));
    d->drawn++;
    d->different += (uint32_t)wanted != id;
    if (id >= t->vocab) {
        case_check(c, "id", step, id, wanted, 0);
        return;
    }
    memcpy(&logprob, &result[SAMPLE_RESULT_LOGPROB], sizeof logprob);
    const double want = d->log_sum == INFINITY ? 0 : x[id] - d->log_sum;
    case_check(c, "logprob", step, logprob, want, 2e-5 + 4 * ULP * fabs(want));
    if ((uint32_t)wanted == id)
        return;
    if (d->greedy) {
        case_check(c, "greedy id", step, id, wanted, 0);
        return;
    }
    bool may[2];
    MUST(reference_may_draw(case_data(&t->sampling), x, t->vocab, history, n_history, step,
                            (uint32_t[2]){ id, (uint32_t)wanted }, may));
    if (!may[0])
        case_check(c, "id", step, id, wanted, 0);
    if (!may[1])
        case_check(c, "id of the host", step, wanted, id, 0);
}

static draws make_draws(const sample_setup *s, const float *logits)
{
    draws d = { .greedy = s->sampling.greedy };
    kim_sampling sampling = s->sampling;
    sampling.seed = 1 + ops_random();
    MUST(kim_sampler_create(&d.ahead, &sampling));
    MUST(kim_sampler_create(&d.host, &sampling));
    d.log_sum = s->kind == LOGITS_FAR ? INFINITY : reference_log_sum(logits, s->vocab);
    return d;
}

static void sample_case(ops_run *run, const sample_setup *s)
{
    ops_case c;
    sample_tensors t = { .position = PROMPT - 1 };
    const uint32_t steps = s->steps ? s->steps : SAMPLE_DRAWS, runs = s->runs ? s->runs : 1;
    case_begin(&c, run, "sample %s of %u", s->name, s->vocab);
    place(&c, &t, s->vocab, steps * runs);
    fill_logits(case_data(&t.logits), s->vocab, s->kind);
    start(&t, s->first_row);
    draws d = make_draws(s, case_data(&t.logits));
    struct sampling_block *block = case_data(&t.sampling);
    for (uint32_t i = 0; i < steps; i++)
        record(run, &t, i ? 0 : s->first_row, s->sampling.greedy);
    for (uint32_t r = 0; r < runs && !c.failed; r++) {
        sampler_fill_block(d.ahead, block, r * steps, steps);
        case_run(&c);
        sampler_consume(d.ahead, steps);
        for (uint32_t i = r * steps; i < (r + 1) * steps && !c.failed; i++)
            check_step(&c, &t, &d, i);
    }
    const int32_t *history = case_data(&t.history);
    check_control(&c, &t, steps * runs, t.position + steps * runs,
                  (uint32_t)history[t.position + steps * runs], false);
    // Rounding decides rarely; of a quarter of a million nearly equal ones, more often.
    case_check(&c, "draws other than the host's", 0, d.different, 0,
               s->vocab > 100000 ? d.drawn : 1 + d.drawn / 500);
    if (getenv("KIM_TEST_VERBOSE") && d.different)
        printf("%s: %u of %u draws are not the host's\n", c.name, d.different, d.drawn);
    kim_sampler_destroy(&d.ahead);
    kim_sampler_destroy(&d.host);
    case_end(&c);
}

// ------------------------------------------------------------------------------------ drafts

// What a draw from a row by the host is, given the drafts before it: the id, or that of a stop.
static int32_t draw_on_host(kim_sampler *s, const sample_tensors *t, uint32_t row, uint32_t stride)
{
    const float *x = case_data(&t->logits);
    int32_t id;
    MUST(sampler_draw(s, x + row * stride, t->vocab, case_data(&t->history), PROMPT + row, &id,
                      NULL));
    return id;
}

// A step of several rows: the first `right` drafts are what is drawn, the next one is not, and
// those after it are again, which must not count. stop: the row whose token is a stop; none: rows
static void drafts_case(ops_run *run, const kim_sampling *params, uint32_t rows, uint32_t right,
                        uint32_t stop)
{
    enum { VOCAB = 4099, STRIDE = VOCAB + 5, MOST_ROWS = 8 };
    ops_case c;
    sample_tensors t = { .vocab = VOCAB, .position = PROMPT - 1 };
    case_begin(&c, run, "sample %u rows, %u right, stop %u, %s", rows, right, stop,
               params->greedy ? "greedy" : "drawn");
    t.logits = case_place_floats(&c, rows * STRIDE);
    t.control = case_place_floats(&c, CONTROL_ROW(MOST_ROWS + 1, 0));
    t.history = case_place_floats(&c, PROMPT + MOST_ROWS);
    t.sampling = case_place(&c, sizeof(struct sampling_block));
    t.scratch = case_place(&c, rows * sample_scratch_bytes(VOCAB));
    t.results = case_place_floats(&c, SAMPLE_SLOTS * 4);
    case_commit(&c);
    memset(case_data(&t.scratch), 0, t.scratch.bytes);
    float *x = case_data(&t.logits);
    for (uint32_t r = 0; r < rows; r++) {
        fill_logits(x + r * STRIDE, VOCAB, LOGITS_NORMAL);
        for (uint32_t i = VOCAB; i < STRIDE; i++)
            x[r * STRIDE + i] = 1e30f; // never drawn
    }
    start(&t, 0);
    uint32_t *control = case_data(&t.control);
    int32_t *history = case_data(&t.history);
    struct sampling_block *block = case_data(&t.sampling);
    kim_sampler *s;
    MUST(kim_sampler_create(&s, params));
    const uint32_t first = SAMPLE_DRAWS - 2; // the random numbers begin anew within the step
    control[CONTROL_STEP] = first;
    sampler_fill_block(s, block, first, SAMPLE_DRAWS);
    int32_t drawn[MOST_ROWS];
    for (uint32_t r = 0; r < rows; r++) {
        drawn[r] = draw_on_host(s, &t, r, STRIDE);
        const bool wrong = r == right;
        history[PROMPT + r] = wrong ? (drawn[r] + 1) % VOCAB : drawn[r];
        if (r + 1 < rows) {
            control[CONTROL_ROW(r + 1, CONTROL_ROW_TOKEN)] = (uint32_t)history[PROMPT + r];
            control[CONTROL_ROW(r + 1, CONTROL_ROW_AHEAD)] = 0;
        } else {
            history[PROMPT + r] = -1;
        }
    }
    block->n_stops = 2;
    block->stops[0] = VOCAB;
    block->stops[1] = stop < rows ? (uint32_t)drawn[stop] : VOCAB;
    const bool stopped = stop <= right && stop < rows;
    const uint32_t taken = stopped ? stop + 1 : right < rows - 1 ? right + 1 : rows;
    MUST(op_sample(run->st, &(sample_params){
                                .logits = &t.logits,
                                .control = &t.control,
                                .history = &t.history,
                                .sampling = &t.sampling,
                                .scratch = &t.scratch,
                                .results = &t.results,
                                .vocab = VOCAB,
                                .rows = rows,
                                .greedy = params->greedy,
                            }));
    case_run(&c);
    const uint32_t *results = case_data(&t.results);
    for (uint32_t i = 0; i < SAMPLE_SLOTS; i++) {
        const uint32_t n = (i + SAMPLE_SLOTS - first % SAMPLE_SLOTS) % SAMPLE_SLOTS;
        const uint32_t *result = results + i * 4;
        if (n >= taken) {
            case_check(&c, "other results", i, result[SAMPLE_RESULT_MARK], UINT32_MAX, 0);
            continue;
        }
        const uint32_t status = n + 1 < taken ? SAMPLE_AGREED : stopped ? SAMPLE_STOP : SAMPLE_OK;
        const double logprob =
            (double)x[n * STRIDE + (uint32_t)drawn[n]] - reference_log_sum(x + n * STRIDE, VOCAB);
        float got;
        memcpy(&got, &result[SAMPLE_RESULT_LOGPROB], sizeof got);
        case_check(&c, "id", n, result[SAMPLE_RESULT_ID], drawn[n], 0);
        case_check(&c, "mark", n, result[SAMPLE_RESULT_MARK], first + n + 1, 0);
        case_check(&c, "status", n, result[SAMPLE_RESULT_STATUS], status, 0);
        case_check(&c, "logprob", n, (double)got, logprob, 2e-5 + 4 * ULP * fabs(logprob));
        case_check(&c, "history", n, history[PROMPT + n], drawn[n], 0);
    }
    case_check(&c, "position", 0, control[CONTROL_POSITION], t.position + taken, 0);
    case_check(&c, "step", 0, control[CONTROL_STEP], first + taken, 0);
    case_check(&c, "stopped", 0, control[CONTROL_STOPPED], stopped, 0);
    case_check(&c, "token", 0, control[CONTROL_ROW(0, CONTROL_ROW_TOKEN)], drawn[taken - 1], 0);
    kim_sampler_destroy(&s);
    case_end(&c);
}

// Pearson's statistic of counts against softmax(logits).
static double chi_square(const uint32_t *counts, const float *logits, uint32_t vocab)
{
    const double log_sum = reference_log_sum(logits, vocab);
    double all = 0, statistic = 0;
    for (uint32_t i = 0; i < vocab; i++)
        all += counts[i];
    for (uint32_t i = 0; i < vocab; i++) {
        const double expected = all * exp((double)logits[i] - log_sum);
        statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    return statistic;
}

// A draft, right or wrong, leaves the distributions of the first token and, where the first is as
// the draft, of the second what they are: thousands of steps of two rows. Had both rows the same
// random number, or had a right draft a chance of its own to be taken, the statistics would be
// hundreds; of seven degrees of freedom they are above 40 once in a million times.
static void distribution_case(ops_run *run)
{
    enum { VOCAB = 8, STEPS = SAMPLE_DRAWS / 2, RUNS = 100, DRAFT = 3 };
    static const float logits[2][VOCAB] = {
        { 0.5f, -0.3f, 0.1f, 1.6f, 0, -0.8f, 0.7f, 0.2f },
        { -0.2f, 0.9f, 0.4f, 0.3f, -0.6f, 0, 1.1f, -0.1f },
    };
    uint32_t counts[2][VOCAB] = { { 0 } };
    ops_case c;
    sample_tensors t = { .vocab = VOCAB, .position = PROMPT - 1 };
    case_begin(&c, run, "sample the distribution");
    t.logits = case_place_floats(&c, 2 * VOCAB);
    t.control = case_place_floats(&c, CONTROL_ROW(3, 0));
    t.history = case_place_floats(&c, PROMPT + 2 * STEPS);
    t.sampling = case_place(&c, sizeof(struct sampling_block));
    t.scratch = case_place(&c, 2 * sample_scratch_bytes(VOCAB));
    t.results = case_place_floats(&c, SAMPLE_SLOTS * 4);
    case_commit(&c);
    memset(case_data(&t.scratch), 0, t.scratch.bytes);
    memcpy(case_data(&t.logits), logits, sizeof logits);
    uint32_t *control = case_data(&t.control);
    const uint32_t *results = case_data(&t.results);
    kim_sampler *s;
    MUST(kim_sampler_create(&s, &(kim_sampling){ .seed = 11, .top_k = UINT32_MAX, .top_p = 1 }));
    for (uint32_t i = 0; i < STEPS; i++)
        MUST(op_sample(run->st, &(sample_params){
                                    .logits = &t.logits,
                                    .control = &t.control,
                                    .history = &t.history,
                                    .sampling = &t.sampling,
                                    .scratch = &t.scratch,
                                    .results = &t.results,
                                    .vocab = VOCAB,
                                    .rows = 2,
                                }));
    for (uint32_t r = 0; r < RUNS; r++) {
        start(&t, 0);
        control[CONTROL_ROW(1, CONTROL_ROW_TOKEN)] = DRAFT;
        sampler_fill_block(s, case_data(&t.sampling), 0, SAMPLE_DRAWS);
        case_run(&c);
        sampler_consume(s, control[CONTROL_STEP]);
        bool second = false;
        for (uint32_t i = 0; i < control[CONTROL_STEP]; i++) {
            counts[second][results[i * 4 + SAMPLE_RESULT_ID] % VOCAB]++;
            second = results[i * 4 + SAMPLE_RESULT_STATUS] == SAMPLE_AGREED;
        }
    }
    case_check(&c, "chi-square of the first", 0, chi_square(counts[0], logits[0], VOCAB), 0, 40);
    case_check(&c, "chi-square of the second", 0, chi_square(counts[1], logits[1], VOCAB), 0, 40);
    case_check(&c, "seconds", 0, counts[0][DRAFT],
               counts[1][0] + counts[1][1] + counts[1][2] + counts[1][3] + counts[1][4] +
                   counts[1][5] + counts[1][6] + counts[1][7],
               0);
    if (getenv("KIM_TEST_VERBOSE"))
        printf("%s: %.1f, %.1f, %u drafts right\n", c.name, chi_square(counts[0], logits[0], VOCAB),
               chi_square(counts[1], logits[1], VOCAB), counts[0][DRAFT]);
    kim_sampler_destroy(&s);
    case_end(&c);
}

static void propose_case(ops_run *run, uint32_t drafts, uint32_t from_position)
{
    enum { ROOM = 40, POSITION = 11 };
    ops_case c;
    case_begin(&c, run, "propose %u drafts from %u", drafts, from_position);
    const span from_control = case_place_floats(&c, CONTROL_ROWS);
    const span from_history = case_place_floats(&c, ROOM);
    const span control = case_place_floats(&c, CONTROL_ROW(9, 0));
    const span history = case_place_floats(&c, ROOM);
    case_commit(&c);
    uint32_t *to = case_data(&control), *ids = case_data(&from_history);
    for (uint32_t i = 0; i < ROOM; i++)
        ids[i] = 1000 + i;
    ((uint32_t *)case_data(&from_control))[CONTROL_POSITION] = from_position;
    to[CONTROL_POSITION] = POSITION;
    MUST(op_propose(run->st, &(propose_params){ .from_control = &from_control,
                                                .from_history = &from_history,
                                                .control = &control,
                                                .history = &history,
                                                .drafts = drafts }));
    case_run(&c);
    const uint32_t *got = case_data(&history);
    for (uint32_t i = 0; i < ROOM; i++) {
        const bool new = i > POSITION &&i <= POSITION + drafts;
        case_check(&c, "history", i, got[i],
                   new ? 1000 + from_position - drafts + i - POSITION : UINT32_MAX, 0);
    }
    for (uint32_t r = 0; r < 9; r++) {
        const bool new = r >= 1 && r <= drafts;
        case_check(&c, "token", r, to[CONTROL_ROW(r, CONTROL_ROW_TOKEN)],
                   new ? 1000 + from_position - drafts + r : UINT32_MAX, 0);
        case_check(&c, "ahead", r, to[CONTROL_ROW(r, CONTROL_ROW_AHEAD)], new ? 0 : UINT32_MAX, 0);
    }
    case_check(&c, "position", 0, to[CONTROL_POSITION], POSITION, 0);
    case_end(&c);
}

static void cases_drafts(ops_run *run)
{
    // few candidates, whose weights are far from any random number's border
    const kim_sampling greedy = { .greedy = true };
    const kim_sampling drawn = { .seed = 5, .top_k = 20, .repeat_penalty = 1.5f };
    for (uint32_t right = 0; right < 8; right++) {
        drafts_case(run, &greedy, 8, right, 8);
        drafts_case(run, &drawn, 8, right, 8);
        drafts_case(run, &drawn, 8, 7, right);
    }
    drafts_case(run, &greedy, 2, 0, 2);
    drafts_case(run, &greedy, 2, 1, 0);
    drafts_case(run, &drawn, 3, 1, 2); // the stop is beyond the wrong draft
    distribution_case(run);
    for (uint32_t n = 1; n < 8; n += 3)
        propose_case(run, n, 17 + n);
}

// ----------------------------------------------------------------------------------- the end

// Three steps, of which the first ends with a stop token, or with nothing that can be drawn: the
// others change nothing.
static void end_case(ops_run *run, uint32_t vocab, uint32_t status, bool greedy)
{
    ops_case c;
    sample_tensors t = { .position = PROMPT - 1 };
    const uint32_t odd = vocab - vocab / 3, best = vocab / 2;
    case_begin(&c, run, "sample %s of %u ends with %u", greedy ? "greedy" : "", vocab, status);
    place(&c, &t, vocab, 4);
    float *x = case_data(&t.logits);
    fill_logits(x, vocab, LOGITS_NORMAL);
    x[best] = 60;
    for (uint32_t i = 0; i < vocab; i++)
        x[i] = status == SAMPLE_NOTHING ? -INFINITY : x[i];
    if (status == SAMPLE_ODD)
        x[odd] = x[vocab - 1] = copysignf(NAN, greedy ? -1 : 1);
    start(&t, 0);
    kim_sampler *s;
    MUST(kim_sampler_create(&s, &(kim_sampling){ .greedy = greedy, .seed = 3 }));
    struct sampling_block *block = case_data(&t.sampling);
    sampler_fill_block(s, block, 0, SAMPLE_DRAWS);
    block->n_stops = 2;
    block->stops[0] = vocab;
    block->stops[1] = best;
    uint32_t *control = case_data(&t.control);
    control[CONTROL_ROW(0, CONTROL_ROW_TOKEN)] = 5;
    control[CONTROL_ROW(0, CONTROL_ROW_AHEAD)] = 0;
    for (uint32_t i = 0; i < 3; i++)
        record(run, &t, 0, greedy);
    case_run(&c);
    const bool drawn = status == SAMPLE_STOP;
    check_control(&c, &t, 1, t.position + drawn, drawn ? best : 5, true);
    const uint32_t *result = case_data(&t.results), *history = case_data(&t.history);
    if (status != SAMPLE_NOTHING)
        case_check(&c, "id", 0, result[SAMPLE_RESULT_ID], drawn ? best : odd, 0);
    case_check(&c, "logprob", 0, result[SAMPLE_RESULT_LOGPROB], 0, 0); // the best has all of it
    case_check(&c, "mark", 0, result[SAMPLE_RESULT_MARK], 1, 0);
    case_check(&c, "status", 0, result[SAMPLE_RESULT_STATUS], status, 0);
    for (uint32_t i = 4; i < SAMPLE_SLOTS * 4; i++)
        case_check(&c, "other results", i, result[i], UINT32_MAX, 0);
    for (uint32_t i = 0; i < 3; i++)
        case_check(&c, "history", i, history[PROMPT + i], i == 0 && drawn ? best : UINT32_MAX, 0);

    // The scratch memory is as it was: what comes next is drawn as if nothing had been.
    fill_logits(x, vocab, LOGITS_NORMAL);
    x[best] = 60;
    block->n_stops = 0;
    control[CONTROL_STOPPED] = 0;
    case_run(&c);
    check_control(&c, &t, 4, t.position + drawn + 3, best, false);
    kim_sampler_destroy(&s);
    case_end(&c);
}

// --------------------------------------------------------------------------------- all cases

#define ALL .top_k = UINT32_MAX
static const sample_setup small[] = {
    { "greedy", { .greedy = true }, LOGITS_NORMAL, .vocab = 1003, .steps = 3 },
    { "greedy, all equal", { .greedy = true }, LOGITS_EQUAL, .vocab = 5001, .steps = 2 },
    { "greedy, tied", { .greedy = true }, LOGITS_TIED, .vocab = 40001, .steps = 2 },
    { "greedy, far", { .greedy = true }, LOGITS_FAR, .vocab = 77, .steps = 2 },
    { "one id", { 0 }, LOGITS_NORMAL, .vocab = 1, .steps = 2 },
    { "defaults", { 0 }, LOGITS_NORMAL, .vocab = 1003, .runs = 20 },
    { "defaults, flat", { 0 }, LOGITS_FLAT, .vocab = 5003, .first_row = 3 },
    { "defaults, all equal", { 0 }, LOGITS_EQUAL, .vocab = 3001, .steps = 8 },
    { "defaults, tied", { 0 }, LOGITS_TIED, .vocab = 2050 },
    { "defaults, far", { 0 }, LOGITS_FAR, .vocab = 555, .steps = 8 },
    { "defaults, infinite", { 0 }, LOGITS_INFINITE, .vocab = 2049 },
    { "top-p", { ALL, .top_p = 0.9f }, LOGITS_NORMAL, .vocab = 2500 },
    { "top-p, flat", { ALL, .top_p = 0.95f }, LOGITS_FLAT, .vocab = 2047, .steps = 16 },
    { "top-p 0.999", { ALL, .top_p = 0.999f }, LOGITS_NORMAL, .vocab = 1500 },
    { "top-p tiny", { ALL, .top_p = 1e-9f }, LOGITS_NORMAL, .vocab = 700, .steps = 8 },
    { "all", { ALL, .top_p = 1 }, LOGITS_NORMAL, .vocab = 3001, .steps = 16 },
    { "all, infinite", { ALL, .top_p = 1, .temperature = 5 }, LOGITS_INFINITE, .vocab = 901 },
    { "min-p", { ALL, .top_p = 1, .min_p = 0.05f }, LOGITS_NORMAL, .vocab = 1100 },
    { "min-p 1", { ALL, .top_p = 1, .min_p = 1 }, LOGITS_TIED, .vocab = 1100, .steps = 8 },
    { "penalty", { .repeat_penalty = 1.3f }, LOGITS_NORMAL, .vocab = 999, .steps = 24, .runs = 24 },
    { "penalty of 7", { .repeat_penalty = 2, .repeat_last = 7 }, LOGITS_NORMAL, .vocab = 17000 },
    { "reward", { .repeat_penalty = 0.9f, .temperature = 0.7f }, LOGITS_NORMAL, .vocab = 99 },
    { "temperature 0.1", { .temperature = 0.1f, .top_p = 1 }, LOGITS_NORMAL, .vocab = 4001 },
    { "temperature 5", { .temperature = 5, .top_k = 200 }, LOGITS_NORMAL, .vocab = 4001 },
    { "everything",
      { .temperature = 1.5f, .top_k = 40, .top_p = 0.8f, .min_p = 0.03f, .repeat_penalty = 1.1f },
      LOGITS_NORMAL,
      .vocab = 1234,
      .runs = 10 },
    { "top-k, spread", { .top_k = 10, .top_p = 1 }, LOGITS_SPREAD, .vocab = 40000 },
    { "top-k of all", { .top_k = 300, .top_p = 1 }, LOGITS_NORMAL, .vocab = 300 },
    { "top-k 1", { .top_k = 1 }, LOGITS_TIED, .vocab = 800, .steps = 4 },
    { "top-k 2", { .top_k = 2, .top_p = 1 }, LOGITS_TIED, .vocab = 800 },
};

static const sample_setup large[] = {
    { "greedy", { .greedy = true }, LOGITS_NORMAL, .vocab = 262144, .steps = 2 },
    { "defaults", { 0 }, LOGITS_NORMAL, .vocab = 262144, .steps = 4 },
    { "top-p", { ALL }, LOGITS_NORMAL, .vocab = 262144, .steps = 2 },
    { "all equal", { ALL, .top_p = 1 }, LOGITS_EQUAL, .vocab = 262144, .steps = 1 },
};

void cases_sample(ops_run *run)
{
    for (uint32_t i = 0; i < sizeof small / sizeof *small; i++)
        sample_case(run, &small[i]);
    for (uint32_t i = 0; i < sizeof large / sizeof *large - run->quick; i++)
        sample_case(run, &large[i]);
    cases_drafts(run);
    for (uint32_t status = SAMPLE_STOP; status <= SAMPLE_NOTHING; status++)
        for (uint32_t greedy = 0; greedy < 2; greedy++) {
            end_case(run, 9, status, greedy);
            end_case(run, 4100, status, greedy);
        }
}
