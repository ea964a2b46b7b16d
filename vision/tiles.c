// SPDX-License-Identifier: MIT
// Pan and scan, and the resampling of PIL's BILINEAR for pictures of 8 bits: a triangle that widens
// with the factor of reduction, in fixed point, along rows and along columns, with 8 bits between.
#include "tiles.h"

#include "host/error.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_BITS = 22 }; // of fixed point in a weight; 255 times the sum of all fits in 31 bits

// Where the values of one output come from, for all outputs along one side.
typedef struct axis {
    uint32_t most;    // inputs of one output
    uint32_t *first;  // [outputs] input
    uint32_t *count;  // [outputs] of inputs, at most `most`
    int32_t *weights; // [outputs, most]
} axis;

static void axis_destroy(axis *a)
{
    free(a->first);
    free(a->count);
    free(a->weights);
}

// The order of these operations is PIL's: another one would round some weights differently.
static void set_weights(int32_t *weights, double *exact, uint32_t first, uint32_t count,
                        double center, double support)
{
    double sum = 0, factor = 1 / support;
    for (uint32_t i = 0; i < count; i++) {
        double distance = fabs((first + i - center + 0.5) * factor);
        exact[i] = distance < 1 ? 1 - distance : 0;
        sum += exact[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        if (sum != 0)
            exact[i] /= sum;
        weights[i] = (int32_t)(0.5 + exact[i] * (1 << WEIGHT_BITS));
    }
}

static kim_err axis_create(axis *a, uint32_t inputs, uint32_t outputs)
{
    kim_err err = KIM_OK;
    double step = (double)inputs / outputs, support = step < 1 ? 1 : step;
    uint32_t most = 2 * (uint32_t)ceil(support) + 1;
    *a = (axis){ .most = most };
    a->first = malloc(outputs * sizeof *a->first);
    a->count = malloc(outputs * sizeof *a->count);
    a->weights = malloc((size_t)outputs * most * sizeof *a->weights);
    double *exact = malloc(most * sizeof *exact);
    REQUIRE_MEMORY(a->first && a->count && a->weights && exact);
    for (uint32_t o = 0; o < outputs; o++) {
        double center = (o + 0.5) * step;
        int32_t first = (int32_t)(center - support + 0.5), end = (int32_t)(center + support + 0.5);
        a->first[o] = first < 0 ? 0 : (uint32_t)first;
        a->count[o] = ((uint32_t)end > inputs ? inputs : (uint32_t)end) - a->first[o];
        set_weights(a->weights + (size_t)o * most, exact, a->first[o], a->count[o], center,
                    support);
    }
error:
    free(exact);
    return err;
}

// The rounding of a great many weights may add up to more than 1.
static uint8_t round_weighted(uint32_t sum)
{
    sum = (sum + (1u << (WEIGHT_BITS - 1))) >> WEIGHT_BITS;
    return sum > 255 ? 255 : (uint8_t)sum;
}

// row: [pixels, 3]   out: [size, 3]
static void resample_row(const axis *a, uint32_t size, const uint8_t *row, uint8_t *out)
{
    for (uint32_t o = 0; o < size; o++, out += 3) {
        const int32_t *weights = a->weights + (size_t)o * a->most;
        const uint8_t *in = row + (size_t)a->first[o] * 3;
        uint32_t r = 0, g = 0, b = 0;
        for (uint32_t i = 0; i < a->count[o]; i++, in += 3) {
            uint32_t weight = (uint32_t)weights[i];
            r += weight * in[0];
            g += weight * in[1];
            b += weight * in[2];
        }
        out[0] = round_weighted(r);
        out[1] = round_weighted(g);
        out[2] = round_weighted(b);
    }
}

// rows: of n values, `stride` bytes apart; row r lies at r % ring   sums: [n] room   out: [n]
static void resample_columns(const axis *a, uint32_t o, const uint8_t *rows, uint32_t ring,
                             size_t stride, uint32_t n, uint32_t *sums, uint8_t *out)
{
    memset(sums, 0, n * sizeof *sums);
    for (uint32_t i = 0; i < a->count[o]; i++) {
        uint32_t weight = (uint32_t)a->weights[(size_t)o * a->most + i];
        const uint8_t *row = rows + (a->first[o] + i) % ring * stride;
        for (uint32_t k = 0; k < n; k++)
            sums[k] += weight * row[k];
    }
    for (uint32_t k = 0; k < n; k++)
        out[k] = round_weighted(sums[k]);
}

// A part of a picture.
typedef struct region {
    const uint8_t *rgb;
    uint32_t width, height;
    size_t stride;
} region;

// PIL 13 began to resample the columns of tall pictures first, since that is faster. The rounding
// between the passes makes the results differ, by 1 in about every tenth value.
static bool is_columns_first(const region *from, uint32_t size)
{
    int64_t less_height = (int64_t)from->height - size, less_width = (int64_t)from->width - size;
    return less_height > 0 && less_height > 2 * less_width;
}

// Equal sides need no case of their own: their weights are 1 and 0.
// out: [size, size, 3]
static kim_err resample(uint8_t *out, uint32_t size, const region *from)
{
    kim_err err = KIM_OK;
    axis x = { 0 }, y = { 0 };
    bool columns_first = is_columns_first(from, size);
    uint32_t n = 3 * (columns_first ? from->width : size), done = 0;
    uint8_t *rows = NULL;
    uint32_t *sums = NULL;
    TRY(axis_create(&x, from->width, size));
    TRY(axis_create(&y, from->height, size));
    // Between the passes lie one row, or those of one output row: few enough to stay in the cache.
    rows = malloc((size_t)(columns_first ? 1 : y.most) * n);
    sums = malloc(n * sizeof *sums);
    REQUIRE_MEMORY(rows && sums);
    for (uint32_t o = 0; o < size; o++, out += (size_t)3 * size) {
        if (columns_first) {
            resample_columns(&y, o, from->rgb, from->height, from->stride, n, sums, rows);
            resample_row(&x, size, rows, out);
            continue;
        }
        for (; done < y.first[o] + y.count[o]; done++)
            resample_row(&x, size, from->rgb + done * from->stride,
                         rows + (size_t)(done % y.most) * n);
        resample_columns(&y, o, rows, y.most, n, n, sums, out);
    }
error:
    axis_destroy(&x);
    axis_destroy(&y);
    free(rows);
    free(sums);
    return err;
}

// -------------------------------------------------------------------------------- pan and scan

// The crops of the reference: along the longer side, all of one size but the last, which may be
// shorter. 0: none.
// size: of a crop along the longer side
static uint32_t plan_crops(uint32_t width, uint32_t height, const pan_and_scan *options,
                           uint32_t *size)
{
    uint32_t min_crop = options->min_crop ? options->min_crop : 256;
    uint32_t max_crops = options->max_crops ? options->max_crops : 4;
    float activate = options->ratio != 0 ? options->ratio : 1.2f;
    uint32_t longer = width > height ? width : height, shorter = width > height ? height : width;
    // The reference compares in double precision, with 1.2 and not 1.2f: of the ratios that
    // pictures can have, none but 6/5 itself becomes 1.2f.
    double ratio = (double)longer / shorter;
    if (!options->on || (float)ratio < activate)
        return 0;
    uint32_t count = (uint32_t)floor(ratio + 0.5);
    if (longer / min_crop < count)
        count = longer / min_crop;
    if (count < 2)
        count = 2;
    if (count > max_crops)
        count = max_crops;
    *size = (longer + count - 1) / count;
    return (*size < shorter ? *size : shorter) < min_crop ? 0 : count;
}

static kim_err check_arguments(const picture *p, uint32_t size, const pan_and_scan *options)
{
    if (!p->rgb || !p->width || !p->height)
        return kim_fail(KIM_ERR_ARGUMENT, "there is no picture");
    if (!size || size > TILES_MOST_SIZE)
        return kim_fail(KIM_ERR_ARGUMENT, "tiles of %" PRIu32 " pixels a side, expected 1 to %u",
                        size, TILES_MOST_SIZE);
    if (options->max_crops > TILES_MOST_CROPS)
        return kim_fail(KIM_ERR_ARGUMENT, "%" PRIu32 " crops (max_crops), expected at most %u",
                        options->max_crops, TILES_MOST_CROPS);
    if (!(options->ratio >= 0))
        return kim_fail(KIM_ERR_ARGUMENT, "a ratio of sides of %g, expected a positive one",
                        (double)options->ratio);
    return KIM_OK;
}

kim_err tiles_make(tiles *out, const picture *p, uint32_t size, const pan_and_scan *options)
{
    kim_err err = KIM_OK;
    static const pan_and_scan off = { 0 };
    *out = (tiles){ 0 };
    options = options ? options : &off;
    TRY(check_arguments(p, size, options));
    uint32_t crop = 0, crops = plan_crops(p->width, p->height, options, &crop);
    uint32_t longer = p->width > p->height ? p->width : p->height;
    if (crops && (uint64_t)crop * (crops - 1) >= longer)
        FAIL(KIM_ERR_ARGUMENT,
             "%" PRIu32 " crops of %" PRIu32 " pixels leave nothing of %" PRIu32
             " for the last (min_crop is too small)",
             crops, crop, longer);
    out->size = size;
    out->count = 1 + crops;
    size_t bytes = (size_t)size * size * 3, stride = (size_t)p->width * 3;
    out->rgb = malloc(bytes * out->count);
    REQUIRE_MEMORY(out->rgb);
    TRY(resample(out->rgb, size, &(region){ p->rgb, p->width, p->height, stride }));
    for (uint32_t i = 0; i < crops; i++) {
        uint32_t at = crop * i, length = longer - at < crop ? longer - at : crop;
        region r = { p->rgb, p->width, p->height, stride };
        if (p->width >= p->height) {
            r.rgb += (size_t)at * 3;
            r.width = length;
        } else {
            r.rgb += at * stride;
            r.height = length;
        }
        TRY(resample(out->rgb + (i + 1) * bytes, size, &r));
    }
    return KIM_OK;
error:
    tiles_destroy(out);
    return err;
}

void tiles_destroy(tiles *t)
{
    free(t->rgb);
    *t = (tiles){ 0 };
}

// ------------------------------------------------------------------------------- normalisation

void tile_normalise(const uint8_t *rgb, uint32_t size, const float mean[3], const float std[3],
                    float *out)
{
    size_t pixels = (size_t)size * size;
    for (uint32_t c = 0; c < 3; c++) {
        float values[256];
        for (uint32_t v = 0; v < 256; v++) {
            float scaled = (float)(v * (1.0 / 255)); // the product is of doubles there
            values[v] = (scaled - mean[c]) / std[c];
        }
        for (size_t i = 0; i < pixels; i++)
            out[c * pixels + i] = values[rgb[3 * i + c]];
    }
}
