// SPDX-License-Identifier: MIT
// The figures of a report, as SVG: a roofline, and the time of each layer.
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ------------------------------------------------------------------------ operations and colours

enum { MOST_COLOURS = 9, REST = 9, MOST_NAMES = 64 }; // --c9 is that of the rest

typedef struct counted {
    const char *name; // of the rows
    double seconds;
} counted;

struct palette {
    counted list[MOST_NAMES];
    uint32_t count;
};

static const char *operation_of(const cJSON *item)
{
    return row_text(item, row_is_kernel(item) ? "op" : "operation");
}

static void count_operation(palette *p, const cJSON *item)
{
    const char *name = operation_of(item);
    const double seconds = row_number(item, row_is_kernel(item) ? "avg_s" : "seconds");
    uint32_t i = 0;
    while (i < p->count && strcmp(p->list[i].name, name) != 0)
        i++;
    if (i == MOST_NAMES)
        return;
    if (i == p->count)
        p->list[p->count++].name = name;
    p->list[i].seconds += seconds > 0 ? seconds : 0;
    for (; i && p->list[i].seconds > p->list[i - 1].seconds; i--) {
        const counted swap = p->list[i];
        p->list[i] = p->list[i - 1];
        p->list[i - 1] = swap;
    }
}

palette *palette_create(const cJSON *rows)
{
    palette *p = checked(calloc(1, sizeof *p));
    const cJSON *row, *event;
    cJSON_ArrayForEach(row, rows)
    {
        if (row_is_kernel(row))
            count_operation(p, row);
        cJSON_ArrayForEach(event, cJSON_GetObjectItemCaseSensitive(row, "trace"))
            count_operation(p, event);
    }
    return p;
}

void palette_destroy(palette *p)
{
    free(p);
}

static uint32_t colour_of(const palette *p, const char *name)
{
    for (uint32_t i = 0; i < p->count && i < MOST_COLOURS; i++)
        if (strcmp(p->list[i].name, name) == 0)
            return i;
    return REST;
}

void plot_legend(const palette *p, strbuf *out)
{
    strbuf_printf(out, "<div class=\"legend\">");
    for (uint32_t i = 0; i < p->count && i < MOST_COLOURS; i++) {
        strbuf_printf(out, "<span><i style=\"background:var(--c%u)\"></i>", i);
        html_text(out, p->list[i].name);
        strbuf_printf(out, "</span>");
    }
    if (p->count > MOST_COLOURS)
        strbuf_printf(out, "<span><i style=\"background:var(--c%d)\"></i>the rest</span>", REST);
    strbuf_printf(out, "</div>\n");
}

// ------------------------------------------------------------------------------------------ spots

static void add_to_spot(spot *s, const cJSON *item)
{
    const double seconds = row_number(item, row_is_kernel(item) ? "avg_s" : "seconds");
    s->count++;
    s->seconds += seconds;
    s->flop += row_number(item, "flop");
    s->bytes += row_is_kernel(item) ? row_number(item, "bytes")
                                    : row_number(item, "read") + row_number(item, "written");
}

static int by_row_and_time(const void *a, const void *b)
{
    const spot *x = a, *y = b;
    if (x->row_index != y->row_index)
        return x->row_index < y->row_index ? -1 : 1;
    return x->seconds > y->seconds ? -1 : x->seconds < y->seconds;
}

// The spot of this text among those from `first` on; a new one, if there is none.
static spot *spot_at(spot **list, uint32_t first, uint32_t *count, const char *text)
{
    for (uint32_t i = first; i < *count; i++)
        if (strcmp((*list)[i].text.data, text) == 0)
            return &(*list)[i];
    *list = checked(realloc(*list, (*count + 1) * sizeof **list));
    spot *s = &(*list)[(*count)++];
    *s = (spot){ 0 };
    strbuf_add(&s->text, text, strlen(text));
    return s;
}

spot *spots_find(const cJSON *rows, uint32_t *count)
{
    spot *list = NULL;
    const cJSON *row, *event;
    uint32_t index = 0;
    *count = 0;
    cJSON_ArrayForEach(row, rows)
    {
        const uint32_t first = *count;
        double seconds = 0;
        if (row_is_kernel(row)) {
            strbuf name = { 0 };
            row_name(row, &name);
            spot *s = spot_at(&list, first, count, name.data ? name.data : "");
            strbuf_free(&name);
            s->first = row;
            add_to_spot(s, row);
        }
        cJSON_ArrayForEach(event, cJSON_GetObjectItemCaseSensitive(row, "trace"))
        {
            spot *s = spot_at(&list, first, count, row_text(event, "text"));
            s->first = s->first ? s->first : event;
            add_to_spot(s, event);
        }
        for (uint32_t i = first; i < *count; i++)
            seconds += list[i].seconds;
        for (uint32_t i = first; i < *count; i++) {
            list[i].row = row;
            list[i].row_index = index;
            list[i].share = row_is_kernel(row) ? 0 : list[i].seconds / seconds;
        }
        index++;
    }
    if (*count)
        qsort(list, *count, sizeof *list, by_row_and_time);
    return list;
}

void spots_free(spot *spots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        strbuf_free(&spots[i].text);
    free(spots);
}

const char *format_seconds(double seconds, char buffer[32])
{
    if (seconds < 1e-3)
        snprintf(buffer, 32, "%.1f us", seconds * 1e6);
    else if (seconds < 1)
        snprintf(buffer, 32, "%.2f ms", seconds * 1e3);
    else
        snprintf(buffer, 32, "%.2f s", seconds);
    return buffer;
}

// --------------------------------------------------------------------------------------- roofline

enum { WIDTH = 1040, HEIGHT = 540, LEFT = 70, RIGHT = 24, TOP = 18, BOTTOM = 52 };

// The plane of a roofline: decades of flop/byte and of GFLOP/s.
typedef struct plane {
    double x0, x1, y0, y1;
} plane;

static double place_x(const plane *p, double value)
{
    return LEFT + (log10(value) - p->x0) / (p->x1 - p->x0) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const plane *p, double value)
{
    return HEIGHT - BOTTOM - (log10(value) - p->y0) / (p->y1 - p->y0) * (HEIGHT - TOP - BOTTOM);
}

static bool can_be_shown(const spot *s)
{
    return s->flop > 0 && s->bytes > 0 && s->seconds > 0;
}

// The fastest peak of the rows, in GFLOP/s; 0: none was measured.
static double highest_roof(const cJSON *row)
{
    const cJSON *item;
    double most = 0;
    cJSON_ArrayForEach(
        item, row) if (cJSON_IsNumber(item) && strncmp(item->string, "peak_", 5) == 0 &&
                       strstr(item->string, "_gflops")) most = fmax(most, item->valuedouble);
    return most;
}

static plane plane_of(const cJSON *row, const spot *spots, uint32_t count)
{
    plane p = { INFINITY, -INFINITY, INFINITY, -INFINITY };
    const double copy = row_number(row, "peak_copy_gbs"), roof = highest_roof(row);
    for (uint32_t i = 0; i < count; i++) {
        if (!can_be_shown(&spots[i]))
            continue;
        const double x = spots[i].flop / spots[i].bytes;
        const double y = spots[i].flop / spots[i].seconds * 1e-9;
        p = (plane){ fmin(p.x0, x), fmax(p.x1, x), fmin(p.y0, y), fmax(p.y1, y) };
    }
    if (copy > 0 && roof > 0) { // with some of the flat part
        p.x1 = fmax(p.x1, roof / copy * 4);
        p.y1 = fmax(p.y1, roof * 1.3);
    }
    return (plane){ floor(log10(p.x0) * 2 - 0.2) / 2, ceil(log10(p.x1) * 2 + 0.2) / 2,
                    floor(log10(p.y0) * 2 - 0.2) / 2, ceil(log10(p.y1) * 2 + 0.2) / 2 };
}

static void add_axes(const plane *p, strbuf *out)
{
    for (int i = (int)ceil(p->x0); i <= (int)floor(p->x1); i++) {
        const double x = place_x(p, pow(10, i));
        strbuf_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", x,
                      x, TOP, HEIGHT - BOTTOM);
        strbuf_printf(out,
                      "<text class=\"dim\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n",
                      x, HEIGHT - BOTTOM + 18, pow(10, i));
    }
    for (int i = (int)ceil(p->y0); i <= (int)floor(p->y1); i++) {
        const double y = place_y(p, pow(10, i));
        strbuf_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>",
                      LEFT, WIDTH - RIGHT, y, y);
        strbuf_printf(out,
                      "<text class=\"dim\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                      LEFT - 8, y + 4, pow(10, i));
    }
    strbuf_printf(out,
                  "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">operations for each byte "
                  "read or written (flop / byte)</text>\n",
                  (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12);
    strbuf_printf(out,
                  "<text transform=\"translate(16 %d) rotate(-90)\" text-anchor=\"middle\">"
                  "speed (GFLOP/s)</text>\n",
                  (TOP + HEIGHT - BOTTOM) / 2);
}

// The slope of the copy bandwidth up to the highest roof, and each roof from the slope on.
static void add_roofs(const plane *p, const cJSON *row, strbuf *out)
{
    const double copy = row_number(row, "peak_copy_gbs"), most = highest_roof(row);
    const double right = pow(10, p->x1);
    const cJSON *item;
    if (!(copy > 0))
        return;
    const double end = fmin(most > 0 ? most / copy : right, right);
    const double begin = fmax(pow(10, p->x0), pow(10, p->y0) / copy);
    const double slope = atan2(place_y(p, copy * end) - place_y(p, copy * begin),
                               place_x(p, end) - place_x(p, begin));
    strbuf_printf(out, "<path class=\"roof\" d=\"M%.1f %.1fL%.1f %.1f\"/>", place_x(p, begin),
                  place_y(p, copy * begin), place_x(p, end), place_y(p, copy * end));
    const double middle = pow(10, log10(begin) * 0.45 + log10(end) * 0.55);
    strbuf_printf(out,
                  "<text class=\"dim\" transform=\"translate(%.1f %.1f) rotate(%.1f)\" "
                  "text-anchor=\"middle\">copy %.1f GB/s</text>\n",
                  place_x(p, middle), place_y(p, copy * middle) - 8, slope * 57.29578, copy);
    cJSON_ArrayForEach(item, row)
    {
        if (!cJSON_IsNumber(item) || strncmp(item->string, "peak_", 5) != 0 ||
            !strstr(item->string, "_gflops") || !(item->valuedouble > 0))
            continue;
        const double y = place_y(p, item->valuedouble);
        strbuf_printf(out, "<path class=\"roof\" d=\"M%.1f %.1fH%d\"/>",
                      place_x(p, item->valuedouble / copy), y, WIDTH - RIGHT);
        strbuf_printf(out, "<text class=\"dim\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
                      WIDTH - RIGHT - 4, y - 7);
        strbuf name = { 0 };
        strbuf_add(&name, item->string + 5, strcspn(item->string + 5, "_"));
        html_text(out, name.data);
        strbuf_free(&name);
        strbuf_printf(out, " %.1f GFLOP/s</text>\n", item->valuedouble);
    }
}

// The form of a mark tells the test.
static void add_shape(uint32_t form, double x, double y, double r, strbuf *out)
{
    const double d = r * 0.886, t = r * 1.2; // about the circle's area
    switch (form % 4) {
    case 0: strbuf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"", x, y, r); break;
    case 1:
        strbuf_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"", x - d,
                      y - d, 2 * d, 2 * d);
        break;
    case 2:
        strbuf_printf(out, "<path d=\"M%.1f %.1fl%.1f %.1fh%.1fz\"", x, y - t, t, 1.8 * t, -2 * t);
        break;
    default:
        strbuf_printf(out, "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\"", x, y - t, t, t,
                      -t, t, -t, -t);
    }
}

static void add_spot(const plane *p, const spot *s, uint32_t form, uint32_t colour, strbuf *out)
{
    const double speed = s->flop / s->seconds * 1e-9, each = s->flop / s->bytes;
    char time[32];
    add_shape(form, place_x(p, each), place_y(p, speed), 5 + 11 * sqrt(s->share), out);
    strbuf_printf(out, " class=\"mark\" fill=\"var(--c%u)\" fill-opacity=\".8\"><title>", colour);
    html_text(out, s->text.data);
    if (*row_text(s->row, "test")) {
        strbuf_printf(out, " &#10;");
        html_text(out, row_text(s->row, "test"));
        strbuf_printf(out, ": %u times, %.1f%% of the step", s->count, s->share * 100);
    }
    strbuf_printf(out, " &#10;%.3g GFLOP/s, %.3g GB/s, %.3g flop/byte &#10;%s each", speed,
                  s->bytes / s->seconds * 1e-9, each, format_seconds(s->seconds / s->count, time));
    if (!isnan(row_number(s->first, "share_of_peak")))
        strbuf_printf(out, ", %.0f%% of the roof", row_number(s->first, "share_of_peak") * 100);
    strbuf_printf(out, "</title></%s>\n",
                  form % 4 == 0   ? "circle"
                  : form % 4 == 1 ? "rect"
                                  : "path");
}

// Texts at the spots that take most of the time, where there is room for them.
static void add_names(const plane *p, const spot *spots, uint32_t count, strbuf *out)
{
    enum { MOST = 12 };
    double xs[MOST], ys[MOST];
    uint32_t n = 0;
    for (uint32_t i = 0; i < count && n < MOST; i++) {
        const spot *s = &spots[i];
        if (!can_be_shown(s) || s->share < 0.04)
            continue;
        const double x = place_x(p, s->flop / s->bytes) + 9 + 11 * sqrt(s->share);
        const double y = place_y(p, s->flop / s->seconds * 1e-9) + 4;
        bool room = true;
        for (uint32_t k = 0; k < n; k++)
            room &= fabs(ys[k] - y) > 13 || fabs(xs[k] - x) > 230;
        if (!room)
            continue;
        xs[n] = x;
        ys[n++] = y;
        const bool left = x + 220 > WIDTH - RIGHT; // of the mark
        strbuf_printf(out, "<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
                      left ? x - 2 * (9 + 11 * sqrt(s->share)) : x, y, left ? "end" : "start");
        html_text(out, s->text.data);
        strbuf_printf(out, "</text>\n");
    }
}

// Which form stands for which test.
static void add_forms(const cJSON *rows, strbuf *out)
{
    const cJSON *row;
    uint32_t form = 0;
    strbuf_printf(out, "<div class=\"legend\">");
    cJSON_ArrayForEach(row, rows)
    {
        if (cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(row, "trace"))) {
            strbuf_printf(out, "<span><svg viewBox=\"0 0 14 14\" style=\"display:inline;width:14px;"
                               "min-width:14px;vertical-align:-2px;margin-right:6px\">");
            add_shape(form, 7, 7, 5, out);
            strbuf_printf(out, " fill=\"var(--roof)\"/></svg>");
            html_text(out, row_text(row, "test"));
            strbuf_printf(out, "</span>");
        }
        form++;
    }
    strbuf_printf(out, "</div>\n");
}

void plot_roofline(const cJSON *rows, const spot *spots, uint32_t count, const palette *colours,
                   strbuf *out)
{
    uint32_t shown = 0;
    for (uint32_t i = 0; i < count; i++)
        shown += can_be_shown(&spots[i]);
    if (!shown)
        return;
    const plane p = plane_of(rows->child, spots, count);
    strbuf_printf(out,
                  "<h2>Roofline</h2>\n<p>What each operation reaches, and what this device "
                  "could reach at best: below the slope it waits for memory, below a flat roof "
                  "for arithmetic. Bytes count each tensor once; caches may hold some of them, "
                  "so a mark can be above the slope. Of a step, the area of a mark grows "
                  "with its share of the time.</p>\n");
    if (isnan(row_number(rows->child, "peak_copy_gbs")))
        strbuf_printf(out,
                      "<p>The peaks of this device were not measured: there is no roof.</p>\n");
    plot_legend(colours, out);
    add_forms(rows, out);
    strbuf_printf(out,
                  "<figure class=\"panel\"><svg viewBox=\"0 0 %d %d\" role=\"img\" "
                  "aria-label=\"roofline\">\n",
                  WIDTH, HEIGHT);
    add_axes(&p, out);
    add_roofs(&p, rows->child, out);
    for (uint32_t i = 0; i < count; i++)
        if (can_be_shown(&spots[i]))
            add_spot(&p, &spots[i], row_is_kernel(spots[i].row) ? 0 : spots[i].row_index,
                     colour_of(colours, operation_of(spots[i].first)), out);
    add_names(&p, spots, count, out);
    strbuf_printf(out, "</svg></figure>\n");
}

// ----------------------------------------------------------------------------------- layer by
// layer

enum { BAR = 17, STEP = 21, NAMES = 120, FIGURES = 110 };

// A part of a bar. Returns where it ends.
static double add_part(double x, double y, double width, uint32_t colour, const strbuf *title,
                       double seconds, double share, strbuf *out)
{
    char time[32];
    strbuf_printf(out,
                  "<rect class=\"mark\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" "
                  "fill=\"var(--c%u)\"><title>",
                  x, y, width, BAR, colour);
    html_text(out, title->data);
    strbuf_printf(out, " &#10;%s, %.1f%% of the step</title></rect>\n",
                  format_seconds(seconds, time), share * 100);
    return x + width;
}

// The operation, and the tensors that it reads and writes.
static void describe(const cJSON *event, strbuf *out)
{
    const cJSON *tensor;
    strbuf_printf(out, "%s: ", row_text(event, "text"));
    for (int written = 0; written < 2; written++) {
        const char *between = written ? " \u2192 " : "";
        cJSON_ArrayForEach(tensor, cJSON_GetObjectItemCaseSensitive(event, "tensors"))
        {
            if ((row_number(tensor, "written") > 0) != written)
                continue;
            strbuf_printf(out, "%s%s", between, row_text(tensor, "name"));
            between = ", ";
        }
    }
}

static double seconds_of(const cJSON *event)
{
    const double seconds = row_number(event, "seconds");
    return seconds > 0 ? seconds : 0;
}

// Whether a bar begins with the event: it is of another section than the one before.
static bool begins(const cJSON *event, const cJSON *first)
{
    return event == first ||
           strcmp(row_text(event, "section"), row_text(event->prev, "section")) != 0 ||
           row_number(event, "run") != row_number(event->prev, "run");
}

// All of the step in one bar, an operation a part.
static void add_total(const cJSON *trace, const palette *colours, double total, strbuf *out)
{
    const double width = WIDTH - NAMES - FIGURES;
    double x = NAMES, rest = total;
    char time[32];
    const cJSON *event;
    strbuf_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">the step</text>\n", NAMES - 10,
                  STEP - 7);
    for (uint32_t i = 0; i < colours->count && i < MOST_COLOURS; i++) {
        double seconds = 0;
        cJSON_ArrayForEach(event, trace) if (strcmp(operation_of(event), colours->list[i].name) ==
                                             0) seconds += seconds_of(event);
        rest -= seconds;
        strbuf title = { 0 };
        strbuf_printf(&title, "%s", colours->list[i].name);
        if (seconds > 0)
            x = add_part(x, 1, seconds / total * width, i, &title, seconds, seconds / total, out);
        strbuf_free(&title);
    }
    strbuf title = { 0 };
    strbuf_printf(&title, "the rest");
    if (rest > total * 1e-9)
        x = add_part(x, 1, rest / total * width, REST, &title, rest, rest / total, out);
    strbuf_free(&title);
    strbuf_printf(out, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", x + 8, STEP - 7,
                  format_seconds(total, time));
}

// What the bar that begins with the event takes.
static double bar_seconds(const cJSON *event, const cJSON *first)
{
    double sum = 0;
    do {
        sum += seconds_of(event);
        event = event->next;
    } while (event && !begins(event, first));
    return sum;
}

// The bars have the scale of the longest layer. What is no layer may be longer by far: "output".
static bool sets_scale(const cJSON *event)
{
    const char *section = row_text(event, "section");
    const size_t n = strlen(section);
    return n && section[n - 1] >= '0' && section[n - 1] <= '9';
}

// The bar that begins with the event. scale: seconds of a whole one. Returns what follows it.
static const cJSON *add_bar(const cJSON *event, const cJSON *first, const palette *colours,
                            double scale, double total, int y, strbuf *out)
{
    const double seconds = bar_seconds(event, first);
    const bool longer = seconds > scale * 1.000001;
    char time[32];
    double x = NAMES;
    strbuf_printf(out, "<text class=\"dim\" x=\"%d\" y=\"%d\" text-anchor=\"end\">", NAMES - 10,
                  y + 13);
    html_text(out, row_text(event, "section"));
    strbuf_printf(out, "</text>\n");
    do {
        strbuf title = { 0 };
        describe(event, &title);
        x = add_part(x, y,
                     seconds_of(event) / (longer ? seconds : scale) * (WIDTH - NAMES - FIGURES),
                     colour_of(colours, operation_of(event)), &title, seconds_of(event),
                     seconds_of(event) / total, out);
        strbuf_free(&title);
        event = event->next;
    } while (event && !begins(event, first));
    strbuf_printf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%d\">%s%s</text>\n", x + 8, y + 13,
                  format_seconds(seconds, time), longer ? ", cut" : "");
    return event;
}

void plot_layers(const cJSON *trace, const palette *colours, strbuf *out)
{
    double total = 0, layer = 0, most = 0;
    int bars = 0, y = STEP + 8;
    const cJSON *event;
    cJSON_ArrayForEach(event, trace)
    {
        total += seconds_of(event);
        if (!begins(event, trace->child))
            continue;
        bars++;
        most = fmax(most, bar_seconds(event, trace->child));
        if (sets_scale(event))
            layer = fmax(layer, bar_seconds(event, trace->child));
    }
    if (!(total > 0)) {
        strbuf_printf(out, "<p>This device has no time stamps.</p>\n");
        return;
    }
    strbuf_printf(out,
                  "<figure class=\"panel\"><svg viewBox=\"0 0 %d %d\" role=\"img\" "
                  "aria-label=\"time of each layer\">\n",
                  WIDTH, STEP * (bars + 1) + 8);
    add_total(trace, colours, total, out);
    for (event = trace->child; event; y += STEP)
        event = add_bar(event, trace->child, colours, layer > 0 ? layer : most, total, y, out);
    strbuf_printf(out, "</svg></figure>\n");
}
