// SPDX-License-Identifier: MIT
// A benchmark as a page of HTML: one file, which needs no other and no network.
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char style[] =
    ":root{--bg:#fbfbfa;--panel:#fff;--fg:#1c2024;--dim:#60646c;--line:#e0e1e6;--roof:#60646c;\n"
    "--good:#18794e;--bad:#ca244d;--c0:#3e63dd;--c1:#e5711d;--c2:#30a46c;--c3:#d6409f;--c4:#0d9bb5;"
    "\n"
    "--c5:#b8870b;--c6:#8347b9;--c7:#e5484d;--c8:#6e7f22;--c9:#8b8d98}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#111113;--panel:#19191b;--fg:#edeef0;\n"
    "--dim:#a0a3ab;--line:#303236;--roof:#b0b4ba;--good:#3dd68c;--bad:#ff9592;--c0:#7b93f5;\n"
    "--c1:#ff8b3e;--c2:#3dd68c;--c3:#ef6bbd;--c4:#2fc8e0;--c5:#e2b33c;--c6:#b98af0;--c7:#ff7377;\n"
    "--c8:#a8bf4a;--c9:#777b84}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\n"
    "main{max-width:1240px;margin:0 auto;padding:28px 20px 60px}\n"
    "h1{font-size:26px;margin:0 0 4px;letter-spacing:-.01em}\n"
    "h2{font-size:18px;margin:36px 0 10px}\n"
    "h3{font-size:15px;margin:22px 0 6px}\n"
    "p,figcaption{color:var(--dim);max-width:78ch;margin:6px 0}\n"
    ".panel{background:var(--panel);border:1px solid var(--line);border-radius:10px;\n"
    "padding:14px 16px;overflow-x:auto;margin:0}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:16px 0}\n"
    "dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}"
    "\n"
    "th,td{padding:5px 10px;text-align:right;white-space:nowrap;\n"
    "border-bottom:1px solid var(--line)}\n"
    "th{color:var(--dim);font-weight:500;cursor:pointer;vertical-align:bottom}\n"
    "tr:last-child td{border-bottom:0}tbody tr:hover{background:var(--bg)}\n"
    ".t{text-align:left}.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}\n"
    "svg{display:block;width:100%;height:auto;min-width:640px;font:12px system-ui,sans-serif}\n"
    "svg text{fill:var(--fg)}svg .dim{fill:var(--dim)}\n"
    ".grid{stroke:var(--line)}.roof{stroke:var(--roof);stroke-width:1.75;fill:none}\n"
    "svg .name{paint-order:stroke;stroke:var(--panel);stroke-width:3.5px}\n"
    ".mark{stroke:var(--panel);stroke-width:1}.mark:hover{stroke:var(--fg);stroke-width:2}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 2px;font-size:13px}\n"
    ".legend span{white-space:nowrap}\n"
    ".legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px}\n"
    "summary{cursor:pointer;color:var(--dim);margin:8px 0}\n";

// A click on a column's head sorts by it: numbers by data-v, texts by themselves.
static const char script[] =
    "for(const th of document.querySelectorAll('th'))th.onclick=()=>{\n"
    "const "
    "i=th.cellIndex,body=th.closest('table').tBodies[0],up=th.dataset.up=th.dataset.up==1?0:1;\n"
    "const v=r=>{const c=r.cells[i],n=c.dataset.v;return n===undefined?c.textContent:n===''?"
    "-Infinity:+n};\n"
    "[...body.rows].sort((a,b)=>{const x=v(a),y=v(b);return(x>y?1:x===y?0:-1)*(up==1?-1:1)})"
    ".forEach(r=>body.append(r))};\n";

void html_text(strbuf *out, const char *text)
{
    for (; *text; text++) {
        const char *const escaped = *text == '<'   ? "&lt;"
                                    : *text == '>' ? "&gt;"
                                    : *text == '&' ? "&amp;"
                                    : *text == '"' ? "&quot;"
                                                   : NULL;
        if (escaped)
            strbuf_add(out, escaped, strlen(escaped));
        else if ((unsigned char)*text >= ' ')
            strbuf_add(out, text, 1);
    }
}

// ----------------------------------------------------------------------------------------- tables

typedef struct column {
    const char *title, *key;
    const char *deviation; // key of what stands behind a ±
    double scale;
    int decimals; // -1: two digits, however small it is
    const char *unit, *help;
} column;

static const column model_columns[] = {
    { "t/s", "avg_ts", "stddev_ts", 1, 2, "", "tokens a second; of pictures, soft tokens" },
    { "first token", "ttft_ms", NULL, 1, 1, " ms", "from the prompt's start to the first token" },
    { "GB/s", "bandwidth_gbs", NULL, 1, 1, "",
      "weights once a step, and the keys and values seen" },
    { "of copy", "copy_share", NULL, 100, 0, "%", "of the measured copy bandwidth" },
    { "GFLOP/s", "gflops", NULL, 1, 1, "", "of the products" },
    { "of fp32", "fp32_share", NULL, 100, 0, "%", "of the measured fp32 peak" },
    { "dispatches", "dispatches_per_step", NULL, 1, 1, "", "of a step" },
    { "barriers", "barriers_per_step", NULL, 1, 1, "", "of a step" },
    { "submits", "submits_per_step", NULL, 1, 2, "", "of a step" },
    { "host", "host_us_per_step", NULL, 1, 0, " us", "of a step, not waiting for the device" },
    { "energy", "joules_per_token", NULL, 1, 3, " J", "of a token" },
    { "clock", "clock_mhz", NULL, 1, 0, " MHz", "mean while it ran" },
    { "drafts right", "drafts_right", NULL, 100, 0, "%", "of the tokens that were guessed" },
};

static const column kernel_columns[] = {
    { "time", "avg_s", "stddev_s", 1e6, 2, " us", "of one dispatch, by time stamps" },
    { "GFLOP/s", "gflops", NULL, 1, 1, "", "" },
    { "GB/s", "bandwidth_gbs", NULL, 1, 1, "", "" },
    { "of peak", "share_of_peak", NULL, 100, 0, "%", "of the roof above it" },
    { "registers", "registers", NULL, 1, 0, "", "as the driver says" },
    { "spills", "spills", NULL, 1, 0, "", "as the driver says" },
    { "error", "error", NULL, 1, -1, "", "largest, against the reference" },
};

// Whether one of the rows of the kind has the figure.
static bool has_figure(const cJSON *rows, bool kernels, const char *key)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, rows) if (row_is_kernel(row) == kernels &&
                                      !isnan(row_number(row, key))) return true;
    return false;
}

static void add_figure(strbuf *out, const cJSON *row, const column *c)
{
    const double value = row_number(row, c->key) * c->scale;
    if (isnan(value)) {
        strbuf_printf(out, "<td data-v=\"\" class=\"dim\">n/a</td>");
        return;
    }
    strbuf_printf(out, "<td data-v=\"%g\">", value);
    if (c->decimals < 0)
        strbuf_printf(out, "%.2g", value);
    else
        strbuf_printf(out, "%.*f", c->decimals, value);
    if (c->deviation && !isnan(row_number(row, c->deviation)))
        strbuf_printf(out, " <span class=\"dim\">\u00b1 %.*f</span>", c->decimals,
                      row_number(row, c->deviation) * c->scale);
    strbuf_printf(out, "%s</td>", c->unit);
}

static void add_rows(const cJSON *rows, bool kernels, const column *columns, size_t n, strbuf *out)
{
    const cJSON *row;
    strbuf_printf(out, "<div class=\"panel\"><table><thead><tr><th class=\"t\">%s</th>",
                  kernels ? "kernel" : "test");
    for (size_t i = 0; i < n; i++)
        if (has_figure(rows, kernels, columns[i].key))
            strbuf_printf(out, "<th title=\"%s\">%s</th>", columns[i].help, columns[i].title);
    if (kernels)
        strbuf_printf(out, "<th class=\"t\" title=\"the roof that is nearest\">bound by</th>"
                           "<th class=\"t\">checked</th>");
    strbuf_printf(out, "</tr></thead><tbody>\n");
    cJSON_ArrayForEach(row, rows)
    {
        strbuf name = { 0 };
        if (row_is_kernel(row) != kernels)
            continue;
        row_name(row, &name);
        strbuf_printf(out, "<tr><td class=\"t\">");
        html_text(out, name.data);
        strbuf_printf(out, "</td>");
        strbuf_free(&name);
        for (size_t i = 0; i < n; i++)
            if (has_figure(rows, kernels, columns[i].key))
                add_figure(out, row, &columns[i]);
        if (kernels) {
            const cJSON *checked_item = cJSON_GetObjectItemCaseSensitive(row, "checked");
            strbuf_printf(out, "<td class=\"t\">");
            html_text(out, row_text(row, "bound"));
            strbuf_printf(out, "</td><td class=\"t %s</td>",
                          cJSON_IsFalse(checked_item)  ? "bad\">wrong"
                          : cJSON_IsTrue(checked_item) ? "good\">right"
                                                       : "dim\">no");
        }
        strbuf_printf(out, "</tr>\n");
    }
    strbuf_printf(out, "</tbody></table></div>\n");
}

static bool has_kind(const cJSON *rows, bool kernels)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, rows) if (row_is_kernel(row) == kernels) return true;
    return false;
}

static void add_tests(const cJSON *rows, strbuf *out)
{
    if (!has_kind(rows, false))
        return;
    strbuf_printf(out, "<h2>Tests</h2>\n");
    add_rows(rows, false, model_columns, sizeof model_columns / sizeof *model_columns, out);
}

static void add_kernels(const cJSON *rows, strbuf *out)
{
    if (!has_kind(rows, true))
        return;
    strbuf_printf(out, "<h2>Kernels</h2>\n");
    add_rows(rows, true, kernel_columns, sizeof kernel_columns / sizeof *kernel_columns, out);
}

static void add_comparison(const cJSON *rows, strbuf *out)
{
    const cJSON *row, *c;
    bool any = false;
    cJSON_ArrayForEach(row, rows) any |= cJSON_HasObjectItem(row, "compare");
    if (!any)
        return;
    strbuf_printf(out,
                  "<h2>Compared with an older run</h2>\n<div class=\"panel\"><table><thead><tr>"
                  "<th class=\"t\">test</th><th>old</th><th>new</th><th>speed</th><th>p</th>"
                  "<th class=\"t\">verdict</th></tr></thead><tbody>\n");
    cJSON_ArrayForEach(row, rows)
    {
        if (!(c = cJSON_GetObjectItemCaseSensitive(row, "compare")))
            continue;
        const bool kernel = row_is_kernel(row);
        const char *unit = kernel ? " us" : " t/s", *verdict = row_text(c, "verdict");
        const column figures[] = {
            { .key = "old", .deviation = "old_stddev", .scale = kernel ? 1e6 : 1, 2, unit, "" },
            { .key = "new", .deviation = "new_stddev", .scale = kernel ? 1e6 : 1, 2, unit, "" },
            { .key = "ratio", .scale = 1, 3, "", "" },
            { .key = "p", .scale = 1, -1, "", "" },
        };
        strbuf name = { 0 };
        row_name(row, &name);
        strbuf_printf(out, "<tr><td class=\"t\">");
        html_text(out, name.data);
        strbuf_free(&name);
        strbuf_printf(out, "</td>");
        for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
            add_figure(out, c, &figures[i]);
        strbuf_printf(out, "<td class=\"t %s\">",
                      strcmp(verdict, "faster") == 0   ? "good"
                      : strcmp(verdict, "slower") == 0 ? "bad"
                                                       : "dim");
        html_text(out, verdict);
        strbuf_printf(out, "</td></tr>\n");
    }
    strbuf_printf(out, "</tbody></table></div>\n<p>Speed: new over old. p: Welch's t-test of the "
                       "samples, two-sided.</p>\n");
}

// ------------------------------------------------------------------------------------------ facts

static void add_fact(strbuf *out, const char *name, const char *value)
{
    if (!*value)
        return;
    strbuf_printf(out, "<dt>%s</dt><dd>", name);
    html_text(out, value);
    strbuf_printf(out, "</dd>\n");
}

// Every "peak_copy_gbs" or "peak_fp32_gflops" of a row.
static void add_peaks(const cJSON *row, strbuf *out)
{
    const cJSON *item;
    strbuf text = { 0 };
    cJSON_ArrayForEach(item, row)
    {
        int n = 0, end = 0;
        char what[32];
        if (!cJSON_IsNumber(item) || !(item->valuedouble > 0) ||
            strncmp(item->string, "peak_", 5) != 0)
            continue;
        if (sscanf(item->string, "peak_%31[a-z0-9]_%n", what, &n) != 1 || !n)
            continue;
        end = strcmp(item->string + n, "gbs") == 0;
        strbuf_printf(&text, "%s%s %.1f %s", text.length ? ", " : "", what, item->valuedouble,
                      end ? "GB/s" : "GFLOP/s");
    }
    if (text.length)
        add_fact(out, "Measured peaks", text.data);
    strbuf_free(&text);
}

static void add_facts(const cJSON *rows, strbuf *out)
{
    const cJSON *first = rows->child, *row;
    char bytes[32], clocks[64] = "";
    double low = INFINITY, high = 0;
    cJSON_ArrayForEach(row, rows)
    {
        const double clock = row_number(row, "clock_mhz");
        low = clock < low ? clock : low;
        high = clock > high ? clock : high;
    }
    if (high > 0)
        snprintf(clocks, sizeof clocks, "%.0f to %.0f MHz, means of the tests", low, high);
    strbuf_printf(out, "<dl>\n");
    add_fact(out, "Device", row_text(first, "device"));
    add_fact(out, "UUID", row_text(first, "device_uuid"));
    add_fact(out, "Driver", row_text(first, "driver"));
    add_fact(out, "Clock", clocks);
    add_peaks(first, out);
    add_fact(out, "Model", row_text(first, "model"));
    if (row_number(first, "model_bytes") > 0)
        add_fact(out, "Weights", format_bytes((uint64_t)row_number(first, "model_bytes"), bytes));
    if (row_number(first, "memory_peak_bytes") > 0)
        add_fact(out, "Memory, at most",
                 format_bytes((uint64_t)row_number(first, "memory_peak_bytes"), bytes));
    add_fact(out, "Build", row_text(first, "build"));
    strbuf_printf(out, "</dl>\n");
}

// ----------------------------------------------------------------------------------------- traces

static void add_operations(const spot *spots, uint32_t n, const cJSON *row, strbuf *out)
{
    strbuf_printf(out, "<details><summary>The operations of this step</summary>"
                       "<div class=\"panel\"><table><thead><tr><th class=\"t\">operation</th>"
                       "<th>times</th><th>together</th><th>of the step</th><th>each</th>"
                       "<th>GB/s</th><th>GFLOP/s</th></tr></thead><tbody>\n");
    for (uint32_t i = 0; i < n; i++) {
        const spot *s = &spots[i];
        char all[32], each[32];
        if (s->row != row)
            continue;
        strbuf_printf(out, "<tr><td class=\"t\">");
        html_text(out, s->text.data);
        strbuf_printf(out,
                      "</td><td data-v=\"%u\">%u</td><td data-v=\"%g\">%s</td>"
                      "<td data-v=\"%g\">%.1f%%</td><td data-v=\"%g\">%s</td>",
                      s->count, s->count, s->seconds, format_seconds(s->seconds, all), s->share,
                      s->share * 100, s->seconds / s->count,
                      format_seconds(s->seconds / s->count, each));
        strbuf_printf(out, "<td data-v=\"%g\">%.1f</td><td data-v=\"%g\">%.1f</td></tr>\n",
                      s->bytes / s->seconds * 1e-9, s->bytes / s->seconds * 1e-9,
                      s->flop / s->seconds * 1e-9, s->flop / s->seconds * 1e-9);
    }
    strbuf_printf(out, "</tbody></table></div></details>\n");
}

static void add_traces(const cJSON *rows, const spot *spots, uint32_t n, const palette *colours,
                       strbuf *out)
{
    const cJSON *row, *trace;
    bool any = false;
    cJSON_ArrayForEach(row, rows)
    {
        trace = cJSON_GetObjectItemCaseSensitive(row, "trace");
        if (!cJSON_GetArraySize(trace))
            continue;
        if (!any) {
            strbuf_printf(
                out, "<h2>Time on the device, layer by layer</h2>\n<p>A step of each "
                     "test, run once more with a time stamp after each command: the last "
                     "batch of a prompt, the last token of an answer, all of the pictures.</p>\n");
            plot_legend(colours, out);
        }
        any = true;
        strbuf_printf(out, "<h3>");
        html_text(out, row_text(row, "test"));
        strbuf_printf(out, "</h3>\n");
        plot_layers(trace, colours, out);
        add_operations(spots, n, row, out);
    }
}

void report_html(const cJSON *rows, strbuf *out)
{
    uint32_t n;
    spot *spots = spots_find(rows, &n);
    palette *colours = palette_create(rows);
    const bool kernels = has_kind(rows, true), models = has_kind(rows, false);
    const char *const title = kernels && models ? "kim bench"
                              : kernels         ? "kim bench kernels"
                                                : "kim bench model";
    strbuf_printf(out,
                  "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                  "<meta name=\"viewport\" content=\"width=device-width\"/>\n"
                  "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>%s: ",
                  title);
    html_text(out, row_text(rows->child, "device"));
    strbuf_printf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>%s</h1>\n",
                  style, title);
    add_facts(rows, out);
    add_tests(rows, out);
    plot_roofline(rows, spots, n, colours, out);
    add_traces(rows, spots, n, colours, out);
    add_kernels(rows, out);
    add_comparison(rows, out);
    strbuf_printf(out, "</main>\n<script>\n//<![CDATA[\n%s//]]>\n</script>\n</body>\n</html>\n",
                  script);
    palette_destroy(colours);
    spots_free(spots, n);
}
