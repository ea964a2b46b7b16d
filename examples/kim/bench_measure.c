// SPDX-License-Identifier: MIT
// kim bench model: runs the tests and works out their figures.
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ------------------------------------------------------------------------------ what a row costs

// Work of a row, by the shapes of the model.
typedef struct cost {
    double bytes, operations;
    uint32_t steps;
} cost;

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

// Adds one step: `rows` tokens from `position` on, and the logits of the last, of each of some
// sessions.
static void add_step(const bench *b, cost *c, uint32_t position, uint32_t rows, bool logits,
                     uint32_t sessions)
{
    const kim_model_info *i = &b->info;
    const double q = (double)i->heads * i->head_size, kv = (double)i->kv_heads * i->head_size;
    const double layer = 2.0 * i->hidden * (q + kv) + 3.0 * i->hidden * i->feed_forward;
    const uint32_t global = i->window ? i->layers / i->window_pattern : i->layers;
    const uint32_t local = i->layers - global, end = position + rows;
    double seen = 0; // keys, of all layers and rows
    for (uint32_t p = position; p < end; p++)
        seen += (double)global * (p + 1) + (double)local * least(p + 1, i->window);
    const double read = (double)global * end + (double)local * least(end, i->window + rows - 1);
    c->operations += sessions * (2.0 * layer * i->layers * rows + 4.0 * q * seen);
    if (logits)
        c->operations += 2.0 * i->vocab * i->hidden * sessions;
    const bool q8 = given.cache_type && !strcmp(given.cache_type, "q8_0");
    const double element = q8 ? 1 + 4.0 / 32 : 2; // bytes; 8 bits with a scale for each 32
    c->bytes += (double)b->weights + 2 * element * kv * read * sessions;
    c->steps++;
}

static cost cost_of(const bench *b, const bench_row *r)
{
    cost c = { 0 };
    for (uint32_t i = 0; i < r->n_sessions; i++)
        for (uint32_t done = 0, rows; done < r->n_prompt; done += rows) {
            rows = least(r->n_prompt - done, b->batch);
            add_step(b, &c, r->n_depth + done, rows, done + rows == r->n_prompt, 1);
        }
    for (uint32_t i = 0; i < r->n_gen; i++)
        add_step(b, &c, r->n_depth + r->n_prompt + i, 1, true, r->n_sessions);
    return c;
}

// -------------------------------------------------------------------------------------- running

// What the session holds is always as long as a beginning of b->tokens.
kim_err bench_prepare(const bench *b, uint32_t depth)
{
    kim_session *s = b->o.session;
    kim_err err = KIM_OK;
    // further back than a batch, the rings of local layers would have to be read again
    const uint32_t position = kim_session_position(s);
    const uint32_t kept = position > depth && position - depth <= b->batch ? depth
                          : position <= depth                              ? position
                                                                           : 0;
    err = kim_session_cut(s, kept);
    if (!err && kept < depth)
        err = kim_session_append(s, b->tokens + kept, depth - kept);
    return err;
}

static kim_err draw_first(const bench *b)
{
    kim_sampler *sampler = NULL;
    int32_t id;
    kim_err err = kim_sampler_create(&sampler, &(kim_sampling){ .greedy = true });
    if (!err)
        err = kim_sample(sampler, b->o.session, &id, NULL);
    kim_sampler_destroy(&sampler);
    return err;
}

// Reads n tokens, each drawn after the one before: the most probable. Where there is nothing to
// draw from, the first is `first`.
static kim_err answer(const bench *b, const int32_t *first, uint32_t n)
{
    kim_session *s = b->o.session;
    kim_sampler *sampler = NULL;
    kim_err err = kim_sampler_create(&sampler, &(kim_sampling){ .greedy = true });
    if (!err && !kim_session_logits(s)) {
        err = kim_session_append(s, first, 1);
        n--;
    }
    const int32_t none = 0;
    if (!err && n) // it ends nowhere
        err =
            kim_session_answer(s, sampler, &(kim_answer_params){ .most = n, .stops = &none }, NULL);
    kim_sampler_destroy(&sampler);
    return err;
}

moment take_moment(const bench *b)
{
    kim_gpu_stats stats;
    kim_gpu_get_stats(b->o.gpu, &stats);
    return (moment){ now_seconds(), stats.wait_seconds };
}

void add_time(run_result *out, moment from, moment to)
{
    out->seconds += to.now - from.now;
    out->waited += to.waited - from.waited;
}

static kim_session_stats work_of(const bench *b)
{
    kim_session_stats work;
    kim_batch_stats together;
    if (!b->together) {
        kim_session_get_stats(b->o.session, &work);
        return work;
    }
    kim_batch_get_stats(b->together, &together);
    return (kim_session_stats){ .dispatches = together.dispatches,
                                .submits = together.submits,
                                .barriers = together.barriers };
}

// The token that is drawn after a prompt is in the time to the first token only.
static kim_err run_tokens(bench *b, const bench_row *r, run_result *out)
{
    kim_session *s = b->o.session;
    const int32_t *tokens = b->tokens + r->n_depth;
    kim_err err = KIM_OK;
    if (r->n_prompt) {
        const moment start = take_moment(b);
        err = kim_session_append(s, tokens, r->n_prompt);
        add_time(out, start, take_moment(b));
        if (!err)
            err = draw_first(b);
        out->first_token = now_seconds() - start.now;
        if (isnan(b->start_to_first_token) && !r->n_depth)
            b->start_to_first_token = now_seconds() - b->started;
    }
    const bool alone = !kim_session_logits(s); // the first token is read apart
    const uint64_t before = work_of(b).answer_steps;
    const moment start = take_moment(b);
    if (!err && r->n_gen)
        err = answer(b, &tokens[r->n_prompt], r->n_gen);
    add_time(out, start, take_moment(b));
    const uint32_t steps = (uint32_t)(work_of(b).answer_steps - before);
    if (steps) // there are drafts
        out->steps = (r->n_prompt + b->batch - 1) / b->batch + steps + alone;
    return err;
}

// Noise that was not seen before.
static kim_err make_picture(kim_image **out, uint32_t size)
{
    static uint32_t state = 88172645u;
    const size_t bytes = (size_t)size * size * 3;
    uint8_t *pixels = checked(malloc(bytes));
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525u + 1013904223u; // Numerical Recipes
        pixels[i] = (uint8_t)(state >> 24);
    }
    kim_err err = kim_image_from_pixels(out, pixels, size, size, 3, 0);
    free(pixels);
    return err;
}

kim_err bench_encode(const bench *b, uint32_t count, double *seconds)
{
    kim_image **images = checked(calloc(count, sizeof(kim_image *)));
    kim_err err = KIM_OK;
    for (uint32_t i = 0; !err && i < count; i++)
        err = make_picture(&images[i], b->info.image_size);
    const double start = now_seconds();
    if (!err)
        err = kim_images_encode(b->o.model, images, count, NULL, NULL);
    if (seconds)
        *seconds = now_seconds() - start;
    for (uint32_t i = 0; i < count; i++)
        kim_image_destroy(&images[i]);
    free(images);
    return err;
}

static kim_err run_images(const bench *b, bench_row *r, run_result *out)
{
    kim_vision_stats before, after;
    kim_model_get_vision_stats(b->o.model, &before);
    kim_err err = bench_encode(b, r->n_images, &out->seconds);
    kim_model_get_vision_stats(b->o.model, &after);
    r->gflops = (after.operations - before.operations) / (after.seconds - before.seconds) * 1e-9;
    return err;
}

static kim_err run_row(bench *b, bench_row *r, run_result *out)
{
    *out = (run_result){ .first_token = NAN };
    kim_err err = r->n_images         ? KIM_OK
                  : r->n_sessions > 1 ? bench_prepare_sessions(b, r)
                                      : bench_prepare(b, r->n_depth);
    if (err)
        return err;
    const kim_session_stats before = work_of(b);
    sensors_begin(b->sensors);
    err = r->n_images         ? run_images(b, r, out)
          : r->n_sessions > 1 ? bench_run_sessions(b, r, out)
                              : run_tokens(b, r, out);
    sensors_end(b->sensors, &out->joules, &out->clock_mhz);
    out->work = work_of(b);
    out->work.dispatches -= before.dispatches;
    out->work.barriers -= before.barriers;
    out->work.submits -= before.submits;
    out->work.answer_steps -= before.answer_steps;
    out->work.drafted -= before.drafted;
    out->work.accepted -= before.accepted;
    return err;
}

// -------------------------------------------------------------------------------------- figures

double bench_mean(const double *values, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += values[i];
    return sum / n;
}

double bench_deviation(const double *values, uint32_t n)
{
    const double mean = bench_mean(values, n);
    double squares = 0;
    for (uint32_t i = 0; i < n; i++)
        squares += (values[i] - mean) * (values[i] - mean);
    return n > 1 ? sqrt(squares / (n - 1)) : 0;
}

static void name_row(const bench *b, bench_row *r)
{
    int used = 0;
    if (r->n_images)
        used = snprintf(r->test, sizeof r->test, "img%u x %u", b->info.image_size, r->n_images);
    if (r->n_prompt)
        used = snprintf(r->test, sizeof r->test, "pp%u", r->n_prompt);
    if (r->n_gen)
        used += snprintf(r->test + used, sizeof r->test - (size_t)used, "%stg%u",
                         r->n_prompt ? "+" : "", r->n_gen);
    if (r->n_depth)
        used += snprintf(r->test + used, sizeof r->test - (size_t)used, " @ d%u", r->n_depth);
    if (r->n_sessions > 1)
        snprintf(r->test + used, sizeof r->test - (size_t)used, " x %u", r->n_sessions);
}

kim_err bench_measure(bench *b, bench_row *r)
{
    const uint32_t n = b->repeats;
    const uint32_t tokens =
        r->n_images ? r->n_images * b->info.image_tokens : (r->n_prompt + r->n_gen) * r->n_sessions;
    cost c = cost_of(b, r);
    double host = 0, joules = 0, clock = 0, steps = 0, drafted = 0, accepted = 0;
    name_row(b, r);
    r->samples_ns = checked(calloc(n, sizeof *r->samples_ns));
    r->samples_ts = checked(calloc(n, sizeof *r->samples_ts));
    r->samples_ttft_ns = checked(calloc(n, sizeof *r->samples_ttft_ns));
    run_result result;
    kim_err err = run_row(b, r, &result); // warms up and is not counted
    for (uint32_t i = 0; !err && i < n; i++) {
        err = run_row(b, r, &result);
        r->samples_ns[i] = result.seconds * 1e9;
        r->samples_ts[i] = tokens / result.seconds;
        r->samples_ttft_ns[i] = result.first_token * 1e9;
        host += result.seconds - result.waited;
        joules += result.joules;
        clock += result.clock_mhz;
        steps += result.steps ? result.steps : c.steps;
        drafted += (double)result.work.drafted;
        accepted += (double)result.work.accepted;
    }
    kim_batch_destroy(&b->together);
    if (err)
        return err;
    c.steps = result.steps ? result.steps : c.steps;
    r->avg_ns = bench_mean(r->samples_ns, n);
    r->stddev_ns = bench_deviation(r->samples_ns, n);
    r->avg_ts = bench_mean(r->samples_ts, n);
    r->stddev_ts = bench_deviation(r->samples_ts, n);
    r->avg_ts_session = r->avg_ts / r->n_sessions;
    r->ttft_ms = bench_mean(r->samples_ttft_ns, n) * 1e-6;
    r->joules_per_token = joules / n / tokens;
    r->clock_mhz = clock / n;
    r->drafted = result.work.answer_steps ? drafted : NAN;
    r->accepted = result.work.answer_steps ? accepted : NAN;
    r->drafts_right = accepted / drafted;
    if (r->n_images) {
        r->bandwidth_gbs = r->dispatches_per_step = r->barriers_per_step = r->submits_per_step =
            r->host_us_per_step = NAN;
        return KIM_OK;
    }
    r->bandwidth_gbs = drafted > 0 ? NAN : c.bytes / r->avg_ns; // of plain steps
    r->gflops = drafted > 0 ? NAN : c.operations / r->avg_ns;
    r->dispatches_per_step = (double)result.work.dispatches / c.steps;
    r->barriers_per_step = (double)result.work.barriers / c.steps;
    r->submits_per_step = (double)result.work.submits / c.steps;
    r->host_us_per_step = host * 1e6 / steps;
    return KIM_OK;
}

kim_err bench_measure_peaks(bench *b)
{
    kim_session_destroy(&b->o.session);
    kim_model_destroy(&b->o.draft);
    kim_model_destroy(&b->o.model);
    // under validation layers they would be those of the layers
    kim_err err =
        given.validation ? KIM_ERR_DEVICE_MEMORY : kim_gpu_measure_peaks(b->o.gpu, b->peaks);
    if (err == KIM_ERR_DEVICE_MEMORY) { // a cap, or other programs: the rest is worth printing
        for (int i = 0; i < KIM_PEAK_COUNT; i++)
            b->peaks[i] = NAN;
        err = KIM_OK;
    }
    for (uint32_t i = 0; i < b->n_rows; i++) {
        bench_row *r = &b->rows[i];
        r->copy_share = r->bandwidth_gbs * 1e9 / b->peaks[KIM_PEAK_COPY];
        r->fp32_share = r->gflops * 1e9 / b->peaks[KIM_PEAK_FP32];
    }
    return err;
}
