// SPDX-License-Identifier: MIT
// Speculative decoding: several tokens of an answer in one step.
//
// A step reads the last token and k drafts after it, k + 1 rows in one forward pass, and draws a
// token by the logits of each row, with the random number that belongs to its place. As long as a
// draft is what is drawn, the next row's draw is that of plain decoding; the first draw that
// differs from its draft is the last one that counts. So whatever the drafts are, the tokens are
// those of plain decoding with the same seed, and their distribution is the model's own; only that
// products and attention of several rows are added up in another order than of one. K and V of
// wrong drafts lie beyond the position, and are overwritten.
//
// Drafts are looked up in the text, or made by the session of a smaller model: it reads the one or
// two tokens that it has not read and draws k tokens with the random numbers that the step will
// use, which agree more often than its most probable tokens would. All of it is handed in at once:
// the host waits for a step with its drafts once.
//
// What a step with k drafts takes, in dispatches: one to take over a model's drafts; embedding and
// norm; eight for a layer (q/k/v, rope, attention, output, norm, gate and up, down, norm), nine
// with a long context; the logits; then one if greedy, else four. And k steps of the smaller model,
// of five dispatches a layer. In bytes: the weights once; K and V that are seen, once; the logits
// of k + 1 rows, written and read on the device. The host gets k + 1 results of 16 bytes. In
// memory: for drawing, 2.1 MB a row with 262,144 ids, draft_most + 1 times.
#include "speculative.h"

#include "sampler.h"

#include "host/error.h"

#include <stdlib.h>
#include <string.h>

enum { BY_MODEL = 0 }; // a source; others are lengths of runs

// A stream that is recorded when it is first needed.
typedef struct lazy_stream {
    stream *st;
    bool recorded;
} lazy_stream;

struct speculation {
    kim_session *draft; // of the smaller model; NULL: none
    bool lookup;
    uint32_t most, least;

    int32_t *text; // [count] of [context]: the session's tokens without those of pictures
    uint32_t count;
    bool foreign; // has a token that the draft model does not know

    uint32_t same;    // tokens of the draft's session that are known to be those of the text
    lazy_stream pair; // of the draft: reads two tokens, draws one
    stream *drafting[DRAFT_MOST]; // [n_drafting] of the step that runs
    uint32_t n_drafting;

    uint32_t source;                          // of the drafts that were chosen last
    uint32_t found, found_after, found_count; // a run that was looked up, in a text of so many

    lazy_stream checks[2][DRAFT_MOST + 1]; // [drafts of a model][drafts]
    bool greedy;                           // all these streams are

    draft_estimates estimates;
    uint64_t steps, drafted, accepted;
};

// ---------------------------------------------------------------------------------- creation

static const char *model_name(const kim_model *m)
{
    return m->info.name[0] ? m->info.name : m->info.size[0] ? m->info.size : "the model";
}

// Models of one vocabulary: the same bytes for every id that is drawn.
static kim_err check_vocabularies(const kim_model *m, const kim_model *draft)
{
    const uint32_t count = m->files.draw_limit, other = draft->files.draw_limit;
    if (count != other)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "%s cannot draft for %s: it has a vocabulary of %u tokens, not of %u",
                        model_name(draft), model_name(m), other, count);
    for (uint32_t i = 0; m->tokens && draft->tokens && i < count; i++) {
        size_t n, k;
        const char *a = tokenizer_bytes(m->tokens, (int32_t)i, true, &n);
        const char *b = tokenizer_bytes(draft->tokens, (int32_t)i, true, &k);
        if (n != k || memcmp(a, b, n))
            return kim_fail(KIM_ERR_ARGUMENT,
                            "%s cannot draft for %s: token %u is \"%.*s\" there and \"%.*s\" here",
                            model_name(draft), model_name(m), i, (int)k, b, (int)n, a);
    }
    return KIM_OK;
}

kim_err speculation_params_fill(const kim_model *m, kim_session_params *p)
{
    if (!p->draft_most)
        p->draft_most = DRAFT_MOST;
    if (p->draft_most > DRAFT_MOST)
        return kim_fail(KIM_ERR_ARGUMENT, "drafts of %u tokens were asked for; at most %u are made",
                        p->draft_most, DRAFT_MOST);
    if (p->draft_least > p->draft_most)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "drafts of at least %u and at most %u tokens were asked for",
                        p->draft_least, p->draft_most);
    if (!p->draft)
        return KIM_OK;
    if (p->draft->gpu != m->gpu)
        return kim_fail(KIM_ERR_ARGUMENT, "%s cannot draft for %s: it is on another gpu",
                        model_name(p->draft), model_name(m));
    const kim_err err = model_check_text(p->draft);
    return err ? err : check_vocabularies(m, p->draft);
}

uint32_t speculation_rows(const kim_session_params *p)
{
    return p->draft || p->lookup ? p->draft_most + 1 : 1;
}

// The session of the draft model has the same room, as far as it was made for it.
static kim_session_params draft_params(const kim_session_params *p)
{
    const uint32_t most = p->draft->arch.context;
    return (kim_session_params){
        .context = p->context < most ? p->context : most,
        .batch = p->batch,
    };
}

kim_err speculation_plan(const kim_gpu *gpu, const kim_session_params *p, uint64_t *bytes)
{
    kim_err err = KIM_OK;
    *bytes = 0;
    if (!p->draft)
        return KIM_OK;
    const kim_session_params params = draft_params(p);
    kim_plan plan;
    TRY(kim_model_plan(p->draft, gpu, &params, &plan));
    *bytes = plan.kv_local + plan.kv_global + plan.activations;
error:
    return err;
}

kim_err speculation_create(speculation **out, const kim_model *m, const kim_session_params *p)
{
    kim_err err = KIM_OK;
    *out = NULL;
    if (!p->draft && !p->lookup)
        return KIM_OK;
    speculation *sp = calloc(1, sizeof *sp);
    REQUIRE_MEMORY(sp);
    sp->lookup = p->lookup;
    sp->most = p->draft_most < p->batch - 1 ? p->draft_most : p->batch - 1;
    sp->least = p->draft_least < sp->most ? p->draft_least : sp->most;
    sp->text = malloc(p->context * sizeof *sp->text);
    REQUIRE_MEMORY(sp->text);
    estimates_init(&sp->estimates);
    if (p->draft) {
        const kim_session_params params = draft_params(p);
        TRY(kim_session_create(&sp->draft, p->draft, &params));
        TRY(stream_create(&sp->pair.st, m->gpu));
    }
    *out = sp;
    return KIM_OK;
error:
    speculation_destroy(&sp);
    return err;
}

void speculation_destroy(speculation **spp)
{
    speculation *sp = *spp;
    if (!sp)
        return;
    for (uint32_t i = 0; i <= DRAFT_MOST; i++) {
        stream_destroy(&sp->checks[false][i].st);
        stream_destroy(&sp->checks[true][i].st);
    }
    stream_destroy(&sp->pair.st);
    kim_session_destroy(&sp->draft);
    free(sp->text);
    free(sp);
    *spp = NULL;
}

// ---------------------------------------------------------------------------------- the text

static void add_token(speculation *sp, int32_t id)
{
    sp->text[sp->count++] = id;
    sp->foreign |= sp->draft && (uint32_t)id >= sp->draft->model->arch.vocab;
}

void speculation_begin(speculation *sp, const kim_session *s, bool greedy)
{
    sp->count = sp->same = sp->n_drafting = sp->found_count = 0;
    sp->foreign = false;
    for (uint32_t i = 0; i < s->position; i++)
        if (!session_pictures_at(&s->pictures, i))
            add_token(sp, s->tokens[i]);
    for (uint32_t i = 0; i <= DRAFT_MOST && greedy != sp->greedy; i++)
        sp->checks[false][i].recorded = sp->checks[true][i].recorded = sp->pair.recorded = false;
    sp->greedy = greedy;
}

// ------------------------------------------------------------------------------------ choice

// Drafts that the model could make.
static uint32_t model_most(const speculation *sp, uint32_t most)
{
    const kim_session *d = sp->draft;
    if (!d || sp->foreign || sp->count >= d->context)
        return 0;
    return most < d->context - sp->count ? most : d->context - sp->count;
}

uint32_t speculation_choose(speculation *sp, const generation *g)
{
    const uint32_t left = g->most - g->drawn - 1;
    const uint32_t most = sp->most < left ? sp->most : left;
    if (sp->lookup && sp->found_count != sp->count) {
        sp->found = lookup_find(sp->text, sp->count, &sp->found_after);
        sp->found_count = sp->count;
    }
    const uint32_t looked_up = sp->found_count == sp->count && sp->found ? most : 0;
    const uint32_t modelled = model_most(sp, most);
    uint32_t drafts = 0;
    sp->source = looked_up ? sp->found : BY_MODEL;
    if (sp->estimates.samples[1] > 1) {
        double rate, other_rate;
        drafts =
            estimates_best(&sp->estimates, sp->source, looked_up ? looked_up : modelled, &rate);
        const uint32_t others = estimates_best(&sp->estimates, BY_MODEL, modelled, &other_rate);
        if (looked_up && other_rate > rate) {
            drafts = others;
            sp->source = BY_MODEL;
        }
    }
    const uint32_t least = sp->least < most ? sp->least : most;
    const uint32_t there = sp->source == BY_MODEL ? modelled : looked_up;
    return drafts >= least ? drafts : least < there ? least : there;
}

// ------------------------------------------------------------------------------------ drafts

static void draft_by_lookup(const speculation *sp, const generation *g, uint32_t drafts)
{
    const session_memory *mem = &g->s->memory;
    uint32_t *control = span_map(&mem->control);
    int32_t *history = (int32_t *)span_map(&mem->history) + g->position + g->drawn;
    for (uint32_t i = 0; i < drafts; i++) {
        // where the run goes on into the end of the text, what follows is what has followed
        const uint32_t at = sp->found_after + i % (sp->count - sp->found_after);
        history[i] = sp->text[at];
        control[CONTROL_ROW(1 + i, CONTROL_ROW_TOKEN)] = (uint32_t)sp->text[at];
        control[CONTROL_ROW(1 + i, CONTROL_ROW_AHEAD)] = 0;
    }
}

// Makes the draft's session hold the text but for its last one or two tokens, which are left to the
// stream that draws.
static kim_err follow(speculation *sp)
{
    kim_err err = KIM_OK;
    kim_session *d = sp->draft;
    uint32_t same = sp->same;
    while (same < d->position && same + 1 < sp->count && d->tokens[same] == sp->text[same])
        same++;
    TRY(kim_session_cut(d, same));
    TRY(session_restore_rings(d));
    if (sp->count - same > 2)
        TRY(kim_session_append(d, sp->text + same, sp->count - same - 1));
    memcpy((int32_t *)span_map(&d->memory.history) + sp->same, sp->text + sp->same,
           (sp->count - sp->same) * sizeof *sp->text);
    sp->same = d->position;
error:
    return err;
}

static kim_err record_pair(speculation *sp)
{
    kim_err err = KIM_OK;
    const kim_session *d = sp->draft;
    sample_params sample = session_sample_of(d, sp->greedy);
    sample.first_row = 1;
    if (sp->pair.recorded)
        return KIM_OK;
    TRY(stream_reset(sp->pair.st));
    TRY(forward_record(sp->pair.st, d->model, &d->memory, 2, STEP_ON_DEVICE, 0));
    TRY(op_sample(sp->pair.st, &sample));
    sp->pair.recorded = true;
error:
    return err;
}

static kim_err draft_by_model(speculation *sp, const generation *g, uint32_t drafts)
{
    kim_err err = KIM_OK;
    kim_session *d = sp->draft;
    TRY(follow(sp));
    TRY(answer_record(d, sp->greedy));
    const uint32_t rows = sp->count - d->position;
    uint32_t *control = span_map(&d->memory.control);
    struct sampling_block *sampling = span_map(&d->memory.sampling);
    if (rows > 1)
        TRY(record_pair(sp));
    control[CONTROL_STEP] = g->drawn;
    control[CONTROL_STOPPED] = 0;
    session_write_rows(d, sp->text + d->position, rows, false);
    sampling->n_stops = 0;
    sampler_fill_block(g->sampler, sampling, g->given, g->drawn - g->given + drafts);
    if (d->written < sp->count + drafts - 1)
        d->written = sp->count + drafts - 1;
    for (uint32_t i = 0; i < drafts; i++) {
        stream *st = i == 0 && rows > 1 ? sp->pair.st : d->answer.steps[i % STEPS_AHEAD];
        TRY(stream_submit(st));
        sp->drafting[sp->n_drafting++] = st;
    }
error:
    return err;
}

static kim_err record_check(speculation *sp, const kim_session *s, uint32_t drafts)
{
    kim_err err = KIM_OK;
    const session_memory *mem = &s->memory;
    lazy_stream *check = &sp->checks[sp->source == BY_MODEL][drafts];
    if (check->recorded)
        return KIM_OK;
    if (!check->st)
        TRY(stream_create(&check->st, s->model->gpu));
    TRY(stream_reset(check->st));
    if (sp->source == BY_MODEL)
        TRY(op_propose(check->st, &(propose_params){
                                      .from_control = &sp->draft->memory.control,
                                      .from_history = &sp->draft->memory.history,
                                      .control = &mem->control,
                                      .history = &mem->history,
                                      .drafts = drafts,
                                  }));
    TRY(forward_record(check->st, s->model, mem, 1 + drafts, STEP_ROWS_ON_DEVICE, 0));
    const span logits = span_part(&mem->logits, 0, (1 + drafts) * mem->logits_back.bytes);
    sample_params sample = session_sample_of(s, sp->greedy);
    sample.logits = &logits;
    sample.rows = 1 + drafts;
    TRY(op_sample(check->st, &sample));
    check->recorded = true;
error:
    return err;
}

kim_err speculation_draft(speculation *sp, const generation *g, uint32_t drafts, stream **check)
{
    kim_err err = KIM_OK;
    TRY(record_check(sp, g->s, drafts));
    if (sp->source == BY_MODEL)
        TRY(draft_by_model(sp, g, drafts));
    else
        draft_by_lookup(sp, g, drafts);
    *check = sp->checks[sp->source == BY_MODEL][drafts].st;
error:
    return err;
}

// In their order: time stamps are of use only so. The last two streams are those that took turns.
kim_err speculation_wait(speculation *sp)
{
    kim_err err = KIM_OK;
    const uint32_t n = sp->n_drafting;
    for (uint32_t i = 0; i < n; i++)
        if (sp->drafting[i] == sp->pair.st || i + STEPS_AHEAD >= n) {
            const kim_err one = stream_wait(sp->drafting[i]);
            err = err ? err : one;
        }
    if (n && !err) {
        stream_stats stats;
        stream_get_stats(sp->drafting[n - 1], &stats);
        estimates_add_time(&sp->estimates, 0, stats.last_seconds);
    }
    sp->n_drafting = 0;
    return err;
}

// ------------------------------------------------------------------------------- what came of it

// The draft's session has read its drafts but the last.
static kim_err take_drafts(speculation *sp, uint32_t drafts, uint32_t before)
{
    kim_err err = KIM_OK;
    kim_session *d = sp->draft;
    const uint32_t *result;
    for (uint32_t i = d->position; i < sp->count; i++)
        d->tokens[i] = sp->text[i];
    for (uint32_t i = 0; i + 1 < drafts; i++) {
        TRY(answer_result(d, before + i, &result));
        memcpy(&d->tokens[sp->count + i], &result[SAMPLE_RESULT_ID], sizeof *d->tokens);
    }
    sp->same = sp->count;
    d->position = sp->count + drafts - 1;
    d->has_logits = false;
error:
    return err;
}

kim_err speculation_learn(speculation *sp, const generation *g, const running_step *step,
                          uint32_t before)
{
    kim_err err = KIM_OK;
    const uint32_t drawn = g->drawn - before; // and a stop, maybe
    const uint32_t drafts = step->rows > 1 ? step->rows - 1 : 0;
    const int32_t *ids = g->s->tokens + g->position + before;
    stream_stats stats;
    stream_get_stats(step->st, &stats);
    if (step->rows)
        estimates_add_time(&sp->estimates, step->rows, stats.last_seconds);
    if (drafts) {
        const uint32_t right = drawn + g->stopped - 1;
        estimates_add_drafts(&sp->estimates, sp->source, right, right < drafts && !g->stopped);
        sp->drafted += drafts;
        sp->accepted += right;
        if (sp->source == BY_MODEL)
            TRY(take_drafts(sp, drafts, before));
    }
    // a run that was looked up says what it would have drafted
    if (sp->found && sp->found_count == sp->count && (!drafts || sp->source == BY_MODEL) && drawn) {
        const bool right = ids[0] == sp->text[sp->found_after];
        estimates_add_drafts(&sp->estimates, sp->found, right, !right);
    }
    if (!drafts && sp->draft) // the model does not: what was bad may be better by now
        sp->estimates.agreement[BY_MODEL] += (1 - sp->estimates.agreement[BY_MODEL]) / 256;
    for (uint32_t i = 0; i < drawn; i++)
        add_token(sp, ids[i]);
    sp->steps++;
error:
    return err;
}

void speculation_get_stats(const speculation *sp, kim_session_stats *out)
{
    kim_session_stats draft = { 0 };
    stream_stats one;
    if (sp->draft)
        kim_session_get_stats(sp->draft, &draft);
    out->dispatches += draft.dispatches;
    out->submits += draft.submits;
    out->barriers += draft.barriers;
    for (uint32_t i = 0; i <= 2 * DRAFT_MOST + 1; i++) {
        const lazy_stream *l =
            i ? &sp->checks[i / (DRAFT_MOST + 1)][i % (DRAFT_MOST + 1)] : &sp->pair;
        if (!l->st)
            continue;
        stream_get_stats(l->st, &one);
        out->dispatches += one.dispatches;
        out->submits += one.submits;
        out->barriers += one.barriers;
    }
    out->answer_steps = sp->steps;
    out->drafted = sp->drafted;
    out->accepted = sp->accepted;
}
