// SPDX-License-Identifier: MIT
// norm, geglu and score: odd sizes, zeros, values of hundreds of thousands, ties.
#include "ops_cases.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/reference_ops.h"

// --------------------------------------------------------------------------------------- norm

typedef struct norm_tensors {
    span o, w_post, x, w, h;
    double *x_want, *error; // the residual after it, and what it may be off by
} norm_tensors;

// x += rms(o) * w_post
static void add_reference(const norm_tensors *t, uint32_t rows, uint32_t width, double eps)
{
    const float *o = case_data(&t->o), *x = case_data(&t->x);
    double *normed = malloc(width * sizeof *normed);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t i = 0; i < width; i++)
            normed[i] = o[r * width + i];
        reference_norm(normed, normed, case_data(&t->w_post), width, eps);
        for (uint32_t i = 0; i < width; i++) {
            const uint32_t at = r * width + i;
            t->x_want[at] = (double)x[at] + normed[i];
            t->error[at] = ldexp(32, -24) * fabs(normed[i]) + ldexp(1, -24) * fabs(t->x_want[at]);
        }
    }
    free(normed);
}

// The sum of squares and inversesqrt are within 32 * 2^-24; an error of x is scaled with it.
static void check_norm(ops_case *c, const norm_tensors *t, uint32_t rows, uint32_t width,
                       double eps)
{
    const float *x = case_data(&t->x), *h = case_data(&t->h), *w = case_data(&t->w);
    double *want = malloc(width * sizeof *want);
    for (uint32_t r = 0; r < rows; r++) {
        double squares = 0;
        for (uint32_t i = 0; i < width; i++)
            squares += t->x_want[r * width + i] * t->x_want[r * width + i];
        const double scale = 1 / sqrt(squares / width + eps);
        reference_norm(want, t->x_want + (uint64_t)r * width, w, width, eps);
        for (uint32_t i = 0; i < width; i++) {
            const uint32_t at = r * width + i;
            case_check(c, "x", at, x[at], t->x_want[at], t->error[at]);
            case_check(c, "h", at, h[at], want[i],
                       ldexp(32, -24) * fabs(want[i]) +
                           2 * t->error[at] * scale * fabs((double)w[i]));
        }
    }
    free(want);
}

static void norm_case(ops_run *run, uint32_t rows, uint32_t width, bool add, double x_scale)
{
    ops_case c;
    norm_tensors t;
    const uint64_t n = (uint64_t)rows * width;
    const double eps = 1e-6;
    case_begin(&c, run, "norm%s %u rows of %u, x to %g", add ? " add" : "", rows, width, x_scale);
    t.o = case_place_floats(&c, n);
    t.w_post = case_place_floats(&c, width);
    t.x = case_place_floats(&c, n);
    t.w = case_place_floats(&c, width);
    t.h = case_place_floats(&c, n);
    case_commit(&c);
    t.x_want = malloc(n * sizeof *t.x_want);
    t.error = calloc(n, sizeof *t.error);
    float *x = case_data(&t.x);
    ops_fill_normal(x, n, x_scale);
    memset(x + (rows - 1) * width, 0, width * sizeof *x); // the last row: zeros
    ops_fill_normal(case_data(&t.w), width, 2);
    for (uint64_t i = 0; i < n; i++)
        t.x_want[i] = x[i];
    if (add) {
        ops_fill_normal(case_data(&t.o), n, 30);
        ops_fill_normal(case_data(&t.w_post), width, 5);
        add_reference(&t, rows, width, eps);
    }
    MUST(op_norm(run->st, &(norm_params){
                              .o = add ? &t.o : NULL,
                              .w_post = add ? &t.w_post : NULL,
                              .x = &t.x,
                              .w = &t.w,
                              .h = &t.h,
                              .rows = rows,
                              .width = width,
                              .eps = (float)eps,
                          }));
    case_run(&c);
    check_norm(&c, &t, rows, width, eps);
    case_end(&c);
    free(t.x_want);
    free(t.error);
}

// -------------------------------------------------------------------------------------- geglu

static void geglu_case(ops_run *run, uint32_t rows, uint32_t width, double scale)
{
    ops_case c;
    case_begin(&c, run, "geglu %u rows of %u, x to %g", rows, width, scale);
    const span x = case_place_floats(&c, 2ull * rows * width);
    const span y = case_place_floats(&c, (uint64_t)rows * width);
    case_commit(&c);
    float *xs = case_data(&x);
    ops_fill_normal(xs, 2ull * rows * width, scale);
    xs[0] = 0;
    MUST(op_geglu(run->st, &x, &y, rows, width));
    case_run(&c);
    const float *got = case_data(&y);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < width; i++) {
            const double gate = xs[2ull * r * width + i], up = xs[(2ull * r + 1) * width + i];
            // far below zero 1 - 1 / (exp(2u) + 1) has an absolute error of one rounding;
            // a denormal result may be zero
            case_check(&c, "y", (uint64_t)r * width + i, got[(uint64_t)r * width + i],
                       reference_gelu(gate) * up, ldexp(8, -24) * fabs(gate * up) + ldexp(1, -126));
        }
    case_end(&c);
}

// -------------------------------------------------------------------------------------- score

typedef enum logits_kind { LOGITS_NORMAL, LOGITS_EQUAL, LOGITS_FAR, LOGITS_TIED } logits_kind;

static void fill_logits(float *logits, uint64_t n, uint32_t vocab, logits_kind kind)
{
    for (uint64_t i = 0; i < n; i++)
        logits[i] = kind == LOGITS_EQUAL ? -7.25f
                    : kind == LOGITS_FAR ? (float)ops_uniform(-3e38, 1e4)
                                         : (float)ops_normal() * 5;
    if (kind == LOGITS_TIED) // two best ones: the lower id counts
        for (uint64_t row = 0; row < n; row += vocab)
            logits[row + vocab / 3] = logits[row + vocab / 2] = 40;
}

static void score_case(ops_run *run, uint32_t rows, uint32_t vocab, uint32_t first,
                       logits_kind kind)
{
    ops_case c;
    const uint32_t tokens = first + rows; // the last row has no next token
    case_begin(&c, run, "score %u rows of %u, kind %d", rows, vocab, (int)kind);
    const span logits = case_place_floats(&c, (uint64_t)rows * vocab);
    const span control = case_place_floats(&c, CONTROL_ROW(tokens, 0));
    const span scores = case_place_floats(&c, 4ull * rows);
    case_commit(&c);
    float *x = case_data(&logits);
    fill_logits(x, (uint64_t)rows * vocab, vocab, kind);
    uint32_t *words = case_data(&control);
    for (uint32_t i = 0; i < tokens; i++)
        words[CONTROL_ROW(i, CONTROL_ROW_TOKEN)] = i + 1 == tokens  ? vocab - 1
                                                   : i == first + 2 ? CONTROL_SOFT
                                                                    : ops_random() % vocab;
    MUST(
        op_score(run->st, &logits, &control, &scores, vocab, (uint32_t[3]){ rows, first, tokens }));
    case_run(&c);
    for (uint32_t r = 0; r < rows; r++, x += vocab) {
        const float *got = (const float *)case_data(&scores) + 4ull * r;
        uint32_t best = 0, id;
        for (uint32_t i = 1; i < vocab; i++)
            if (x[i] > x[best])
                best = i;
        memcpy(&id, &got[0], sizeof id);
        const double log_sum = reference_log_sum(x, vocab);
        case_check(&c, "best id", r, id, best, 0);
        case_check(&c, "best", r, got[1], x[best], 0);
        // a sum of `vocab` numbers, of which a lane adds up to vocab / 8 one after the other
        case_check(&c, "log sum", r, got[2], log_sum, 1e-4 + ldexp(2, -24) * fabs(log_sum));
        const uint32_t next =
            r + 1 < rows ? words[CONTROL_ROW(first + r + 1, CONTROL_ROW_TOKEN)] : CONTROL_SOFT;
        case_check(&c, "next", r, got[3], next == CONTROL_SOFT ? 0 : x[next], 0);
    }
    case_end(&c);
}

void cases_rows(ops_run *run)
{
    static const uint32_t widths[] = { 4, 36, 640, 1152, 2560, 5376 };
    for (uint32_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (uint32_t add = 0; add < 2; add++) {
            norm_case(run, 1 + i * 2, widths[i], add, 1);
            norm_case(run, 2, widths[i], add, 3e5);
        }
    geglu_case(run, 1, 2048, 3);
    geglu_case(run, 3, 37, 3e5);
    geglu_case(run, 2, 130, 1e-20);
    score_case(run, 1, 5, 0, LOGITS_NORMAL);
    score_case(run, 3, 1000, 2, LOGITS_TIED);
    score_case(run, 2, 1003, 0, LOGITS_EQUAL);
    score_case(run, 2, 77, 1, LOGITS_FAR);
    score_case(run, run->quick ? 1 : 2, 262144, 0, LOGITS_NORMAL);
    score_case(run, 1, 262144, 0, LOGITS_EQUAL);
}
