// SPDX-License-Identifier: MIT
// Two runs of a benchmark side by side, and whether they differ by more than they vary.
#include "report.h"

#include <math.h>
#include <string.h>

#define SIGNIFICANT 0.01 // there are often a hundred rows: at 0.05, five would differ by chance

// ------------------------------------------------------------------------------- Welch's t-test

// The continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22).
static double beta_fraction(double x, double a, double b)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 / fmax(1 - (a + b) * x / (a + 1), tiny), sum = d;
    for (int m = 1; m < 500; m++) {
        double step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1 + step * d;
        c = 1 + step / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        sum *= d * c;
        step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 + step * d;
        c = 1 + step / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        sum *= d * c;
        if (fabs(d * c - 1) < 1e-12)
            break;
    }
    return sum;
}

// The regularised incomplete beta function I_x(a, b).
static double beta_share(double x, double a, double b)
{
    if (x <= 0 || x >= 1)
        return x <= 0 ? 0 : 1;
    const double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a
                                     : 1 - front * beta_fraction(1 - x, b, a) / b;
}

typedef struct samples {
    double mean, deviation;
    int count;
} samples;

static samples samples_of(const cJSON *row)
{
    const char *key = row_is_kernel(row) ? "samples_s" : "samples_ts";
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(row, key), *item;
    samples s = { row_number(row, row_is_kernel(row) ? "avg_s" : "avg_ts"), NAN, 0 };
    double sum = 0, squares = 0;
    cJSON_ArrayForEach(item, list)
    {
        sum += item->valuedouble;
        s.count++;
    }
    if (s.count)
        s.mean = sum / s.count;
    if (s.count < 2)
        return s;
    cJSON_ArrayForEach(item, list) squares +=
        (item->valuedouble - s.mean) * (item->valuedouble - s.mean);
    s.deviation = sqrt(squares / (s.count - 1));
    return s;
}

// How probable means as far apart as these are, or further, if there is no difference: two-sided.
// Not a number where there are too few samples.
static double welch(const samples *x, const samples *y)
{
    if (x->count < 2 || y->count < 2)
        return NAN;
    const double a = x->deviation * x->deviation / x->count;
    const double b = y->deviation * y->deviation / y->count;
    if (a + b <= 0)
        return x->mean == y->mean ? 1 : 0;
    const double t2 = (x->mean - y->mean) * (x->mean - y->mean) / (a + b);
    const double freedom = (a + b) * (a + b) / (a * a / (x->count - 1) + b * b / (y->count - 1));
    return beta_share(freedom / (freedom + t2), freedom / 2, 0.5);
}

// ------------------------------------------------------------------------------------ comparison

static void add_comparison(cJSON *row, const cJSON *old)
{
    const samples now = samples_of(row), before = samples_of(old);
    const double ratio = row_is_kernel(row) ? before.mean / now.mean : now.mean / before.mean;
    const double p = welch(&before, &now);
    cJSON *to = checked(cJSON_AddObjectToObject(row, "compare"));
    cJSON_AddNumberToObject(to, "old", before.mean);
    cJSON_AddNumberToObject(to, "old_stddev", before.deviation);
    cJSON_AddNumberToObject(to, "new", now.mean);
    cJSON_AddNumberToObject(to, "new_stddev", now.deviation);
    cJSON_AddNumberToObject(to, "ratio", ratio);
    cJSON_AddNumberToObject(to, "p", p);
    cJSON_AddStringToObject(to, "verdict",
                            isnan(p)           ? "too few samples"
                            : p >= SIGNIFICANT ? "no difference"
                            : ratio > 1        ? "faster"
                                               : "slower");
}

// The row of the same name; NULL: there is none.
static const cJSON *find_row(const cJSON *rows, const cJSON *wanted)
{
    strbuf name = { 0 };
    const cJSON *row, *found = NULL;
    row_name(wanted, &name);
    cJSON_ArrayForEach(row, rows)
    {
        strbuf other = { 0 };
        row_name(row, &other);
        if (!found && row_is_kernel(row) == row_is_kernel(wanted) &&
            strcmp(name.data, other.data) == 0)
            found = row;
        strbuf_free(&other);
    }
    strbuf_free(&name);
    return found;
}

static void warn_of_others(const cJSON *row, const cJSON *old)
{
    static const struct {
        const char *key, *what;
    } same[] = {
        { "device", "device" },
        { "device_uuid", "device" },
        { "driver", "driver" },
        { "model", "model" },
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const char *a = row_text(old, same[i].key), *b = row_text(row, same[i].key);
        if (strcmp(a, b) == 0)
            continue;
        fprintf(stderr, "kim: warning: the old run is of another %s: %s, now %s\n", same[i].what,
                *a ? a : "none", *b ? b : "none");
        if (i == 0)
            i++; // its UUID is another one too
    }
}

void compare_rows(cJSON *rows, const cJSON *old)
{
    cJSON *row;
    bool warned = false;
    cJSON_ArrayForEach(row, rows)
    {
        const cJSON *before = find_row(old, row);
        if (!before)
            continue;
        if (!warned)
            warn_of_others(row, before);
        warned = true;
        add_comparison(row, before);
    }
    if (!warned)
        fprintf(stderr, "kim: warning: the old run has none of the tests of this one\n");
}

static void print_figures(const cJSON *row, const cJSON *c)
{
    const char *const keys[] = { "old", "new" }, *const deviations[] = { "old_stddev",
                                                                         "new_stddev" };
    const double scale = row_is_kernel(row) ? 1e6 : 1; // us, and tokens a second
    for (int i = 0; i < 2; i++) {
        char text[64];
        const double deviation = row_number(c, deviations[i]);
        if (isnan(deviation))
            snprintf(text, sizeof text, "%.2f", scale * row_number(c, keys[i]));
        else
            snprintf(text, sizeof text, "%.2f \u00b1 %.2f", scale * row_number(c, keys[i]),
                     scale * deviation);
        printf(" %*s |", isnan(deviation) ? 20 : 21, text); // the sign takes two bytes
    }
    const double p = row_number(c, "p");
    printf(" %6.3f |", row_number(c, "ratio"));
    if (isnan(p))
        printf(" %7s |", "n/a");
    else
        printf(" %7.2g |", p);
    printf(" %s |\n", row_text(c, "verdict"));
}

// Rows of `rows` that `others` does not have.
static void print_alone(const cJSON *rows, const cJSON *others, const char *what)
{
    const cJSON *row;
    bool first = true;
    cJSON_ArrayForEach(row, rows)
    {
        strbuf name = { 0 };
        if (find_row(others, row))
            continue;
        row_name(row, &name);
        printf("%s%s", first ? what : ", ", name.data);
        strbuf_free(&name);
        first = false;
    }
    if (!first)
        putchar('\n');
}

void compare_print(const cJSON *rows, const cJSON *old)
{
    const cJSON *row = rows->child, *c;
    printf("\n| %-40s | %20s | %20s | %6s | %7s | %-13s |\n", "test",
           row_is_kernel(row) ? "old us" : "old t/s", row_is_kernel(row) ? "new us" : "new t/s",
           "speed", "p", "");
    puts("| ---------------------------------------- | -------------------: | "
         "-------------------: | -----: | ------: | ------------- |");
    cJSON_ArrayForEach(row, rows)
    {
        strbuf name = { 0 };
        if (!(c = cJSON_GetObjectItemCaseSensitive(row, "compare")))
            continue;
        row_name(row, &name);
        printf("| %-40s |", name.data);
        strbuf_free(&name);
        print_figures(row, c);
        if (!output_flush())
            return;
    }
    print_alone(rows, old, "\nnot in the old run: ");
    print_alone(old, rows, "\nonly in the old run: ");
    printf(
        "\nspeed: new over old. p: Welch's t-test of the samples, two-sided; a difference counts "
        "below %g.\nold build: %s\nnew build: %s\n",
        SIGNIFICANT, row_text(old->child, "build"), row_text(rows->child, "build"));
}
