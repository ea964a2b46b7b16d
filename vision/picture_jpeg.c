// SPDX-License-Identifier: MIT
// JPEG: segments of a marker (0xff and a code) and, for most, a length and data; after the start of
// a scan (SOS) come compressed pixels up to the next marker. What is handed to stb_image holds only
// checked segments, with the colours marked so that it understands them as libjpeg does.
#include "picture_formats.h"

#include "host/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    SOF0 = 0xc0, // frames: baseline, extended, progressive
    SOF1 = 0xc1,
    SOF2 = 0xc2,
    DHT = 0xc4, // Huffman tables
    DAC = 0xcc, // arithmetic coding
    RST0 = 0xd0,
    RST7 = 0xd7,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    DQT = 0xdb, // quantisation tables
    DNL = 0xdc, // number of lines, already known from the frame
    DRI = 0xdd, // restart interval
    APP0 = 0xe0,
    APP1 = 0xe1,
    APP14 = 0xee,
    APP15 = 0xef,
    COM = 0xfe,
    MOST_SCANS = 100, // a sensible progressive file has about ten
    MOST_CODES = 255, // of a Huffman table; JPEG of 8 bits has use for 176
};

typedef struct component {
    uint8_t id, h, v, table;
    uint32_t blocks_x, blocks_y;
    bool seen; // in a scan that starts its values
} component;

typedef struct jpeg {
    const uint8_t *bytes;
    uint64_t length, at;
    uint32_t width, height;
    uint32_t n; // components; 0: no frame yet
    component components[4];
    uint32_t mcus_x, mcus_y; // minimum coded units of interleaved scans
    bool progressive;
    bool quantisation[4], huffman[2][4]; // tables that are there; DC, AC
    bool jfif;
    int adobe; // its colour transform; -1: no Adobe segment
    uint32_t interval, scans, orientation;
    uint64_t data;   // bytes of compressed pixels
    uint8_t *clean;  // the file for stb_image
    size_t clean_at; // bytes in it
} jpeg;

static void put(jpeg *j, const void *data, size_t n)
{
    memcpy(j->clean + j->clean_at, data, n);
    j->clean_at += n;
}

// data: without its length
static void put_segment(jpeg *j, uint32_t marker, const uint8_t *data, uint32_t n)
{
    put(j, (const uint8_t[]){ 0xff, marker & 255, (n + 2) >> 8, (n + 2) & 255 }, 4);
    put(j, data, n);
}

static kim_err fail_truncated(const jpeg *j)
{
    return kim_fail(KIM_ERR_FORMAT,
                    "the file ends at byte %" PRIu64
                    ", without the end-of-image marker: it is truncated",
                    j->length);
}

static kim_err fail_segment(const char *name, uint32_t n)
{
    return kim_fail(KIM_ERR_FORMAT, "a segment %s of %" PRIu32 " bytes is damaged", name, n);
}

// ------------------------------------------------------------------------------------- tables

static kim_err read_quantisation(jpeg *j, const uint8_t *data, uint32_t n)
{
    for (uint32_t at = 0, size; at < n; at += size) {
        uint32_t precision = data[at] >> 4, id = data[at] & 15;
        size = precision ? 129 : 65;
        if (precision > 1 || id > 3 || size > n - at)
            return fail_segment("DQT", n);
        j->quantisation[id] = true;
    }
    put_segment(j, DQT, data, n);
    return KIM_OK;
}

static kim_err read_huffman(jpeg *j, const uint8_t *data, uint32_t n)
{
    for (uint32_t at = 0, size; at < n; at += size) {
        uint32_t class = data[at] >> 4, id = data[at] & 15, codes = 0, left = 1;
        if (class > 1 || id > 3 || n - at < 17)
            return fail_segment("DHT", n);
        for (uint32_t bits = 1; bits <= 16; bits++) {
            uint32_t of_length = data[at + bits];
            codes += of_length;
            left *= 2;
            if (codes > MOST_CODES || of_length > left)
                return fail_segment("DHT", n);
            left -= of_length;
        }
        size = 17 + codes;
        if (size > n - at)
            return fail_segment("DHT", n);
        j->huffman[class][id] = true;
    }
    put_segment(j, DHT, data, n);
    return KIM_OK;
}

// -------------------------------------------------------------------------------------- frame

static uint32_t divide_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

static kim_err set_blocks(jpeg *j)
{
    uint32_t most_h = 1, most_v = 1;
    for (uint32_t i = 0; i < j->n; i++) {
        component *c = &j->components[i];
        most_h = c->h > most_h ? c->h : most_h;
        most_v = c->v > most_v ? c->v : most_v;
    }
    for (uint32_t i = 0; i < j->n; i++) {
        component *c = &j->components[i];
        if (most_h % c->h || most_v % c->v)
            return kim_fail(KIM_ERR_UNSUPPORTED,
                            "sampling factors %ux%u and %" PRIu32 "x%" PRIu32
                            " in one JPEG, expected ones that divide each other",
                            c->h, c->v, most_h, most_v);
        c->blocks_x = divide_up(divide_up(j->width * c->h, most_h), 8);
        c->blocks_y = divide_up(divide_up(j->height * c->v, most_v), 8);
    }
    j->mcus_x = divide_up(j->width, 8 * most_h);
    j->mcus_y = divide_up(j->height, 8 * most_v);
    return KIM_OK;
}

static kim_err read_frame(jpeg *j, uint32_t marker, const uint8_t *data, uint32_t n)
{
    if (j->n || n < 6 || n != 6 + 3u * data[5])
        return fail_segment("SOF", n);
    if (data[0] != 8)
        return kim_fail(KIM_ERR_UNSUPPORTED, "a JPEG of %u bits a channel, expected 8", data[0]);
    j->progressive = marker == SOF2;
    j->height = read_be16(data + 1);
    j->width = read_be16(data + 3);
    kim_err err = picture_check_size(j->width, j->height);
    if (err)
        return err;
    if (data[5] != 1 && data[5] != 3 && data[5] != 4)
        return kim_fail(KIM_ERR_UNSUPPORTED, "a JPEG of %u channels, expected 1, 3, or 4", data[5]);
    j->n = data[5];
    uint8_t clean[6 + 3 * 4];
    memcpy(clean, data, n);
    for (uint32_t i = 0; i < j->n; i++) {
        const uint8_t *d = data + 6 + 3 * i;
        component *c = &j->components[i];
        *c = (component){ .id = d[0], .h = d[1] >> 4, .v = d[1] & 15, .table = d[2] };
        if (!c->h || c->h > 4 || !c->v || c->v > 4 || c->table > 3)
            return fail_segment("SOF", n);
        for (uint32_t k = 0; k < i; k++) {
            if (j->components[k].id == c->id)
                return fail_segment("SOF", n);
        }
        clean[6 + 3 * i] = (uint8_t)(1 + i); // stb_image takes some ids for colours
    }
    put_segment(j, marker, clean, n);
    return set_blocks(j);
}

// -------------------------------------------------------------------------------------- scans

// scan: its part of the segment   clean: the same for stb_image
static kim_err read_scan_component(jpeg *j, const uint8_t *scan, bool dc, bool ac, uint8_t *clean,
                                   const component **out)
{
    uint32_t i = 0, dc_table = scan[1] >> 4, ac_table = scan[1] & 15;
    while (i < j->n && j->components[i].id != scan[0])
        i++;
    if (i == j->n || dc_table > 3 || ac_table > 3)
        return kim_fail(KIM_ERR_FORMAT, "a scan (SOS) names a channel or table that is not there");
    component *c = &j->components[i];
    if (!j->quantisation[c->table] || (dc && !j->huffman[0][dc_table]) ||
        (ac && !j->huffman[1][ac_table]))
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "a JPEG without the tables (DQT, DHT) that its pixels need");
    clean[0] = (uint8_t)(1 + i);
    *out = c;
    return KIM_OK;
}

// The compressed pixels after SOS. A missing restart marker would leave the rest of the scan grey.
static kim_err read_scan_data(jpeg *j, uint64_t mcus)
{
    size_t start = j->at;
    uint64_t restarts = 0;
    for (;; j->at++) {
        const uint8_t *p = memchr(j->bytes + j->at, 0xff, j->length - j->at);
        if (!p || p + 1 == j->bytes + j->length)
            return fail_truncated(j);
        j->at = (size_t)(p - j->bytes);
        if (p[1] >= RST0 && p[1] <= RST7)
            restarts++;
        else if (p[1] != 0 && p[1] != 0xff)
            break;
    }
    put(j, j->bytes + start, j->at - start);
    j->data += j->at - start;
    uint64_t expected = j->interval ? (mcus - 1) / j->interval : 0;
    if (restarts < expected)
        return kim_fail(KIM_ERR_FORMAT,
                        "a scan has %" PRIu64 " restart markers, expected %" PRIu64
                        ": it is incomplete",
                        restarts, expected);
    return KIM_OK;
}

static kim_err read_scan(jpeg *j, const uint8_t *data, uint32_t n)
{
    if (!j->n || n < 6 || data[0] < 1 || data[0] > j->n || n != 4 + 2u * data[0])
        return fail_segment("SOS", n);
    if (++j->scans > MOST_SCANS)
        return kim_fail(KIM_ERR_UNSUPPORTED, "a JPEG of more than %d scans", MOST_SCANS);
    uint32_t count = data[0], first = data[n - 3], high = data[n - 1] >> 4;
    bool dc = (!j->progressive || first == 0) && high == 0; // as opposed to a refinement
    bool ac = !j->progressive || first > 0;
    const component *c = NULL;
    uint8_t clean[4 + 2 * 4];
    memcpy(clean, data, n);
    bool in_scan[4] = { false };
    for (uint32_t i = 0; i < count; i++) {
        kim_err err = read_scan_component(j, data + 1 + 2 * i, dc, ac, clean + 1 + 2 * i, &c);
        if (err)
            return err;
        if (in_scan[c - j->components])
            return fail_segment("SOS", n);
        in_scan[c - j->components] = true;
        j->components[c - j->components].seen |= dc;
    }
    put_segment(j, SOS, clean, n);
    return read_scan_data(j, count == 1 ? (uint64_t)c->blocks_x * c->blocks_y
                                        : (uint64_t)j->mcus_x * j->mcus_y);
}

// ----------------------------------------------------------------------------------- segments

static void read_application(jpeg *j, uint32_t marker, const uint8_t *data, uint32_t n)
{
    if (marker == APP0 && n >= 14 && !memcmp(data, "JFIF", 5))
        j->jfif = true;
    if (marker == APP1 && n >= 6 && !memcmp(data, "Exif\0\0", 6))
        j->orientation = exif_orientation(data, n);
    if (marker == APP14 && n >= 12 && !memcmp(data, "Adobe", 5))
        j->adobe = data[11];
}

static kim_err read_segment(jpeg *j, uint32_t marker, const uint8_t *data, uint32_t n)
{
    switch (marker) {
    case DQT: return read_quantisation(j, data, n);
    case DHT: return read_huffman(j, data, n);
    case SOF0:
    case SOF1:
    case SOF2: return read_frame(j, marker, data, n);
    case SOS: return read_scan(j, data, n);
    case DRI:
        if (n != 2)
            return fail_segment("DRI", n);
        j->interval = read_be16(data);
        put_segment(j, DRI, data, n);
        return KIM_OK;
    case DNL:
    case COM: return KIM_OK;
    default: break;
    }
    if (marker >= APP0 && marker <= APP15) {
        read_application(j, marker, data, n);
        return KIM_OK;
    }
    if (marker > SOF2 && marker < RST0)
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "a lossless, hierarchical, or arithmetic-coded JPEG (marker 0x%02" PRIx32
                        "), expected a baseline or progressive one",
                        marker);
    return kim_fail(KIM_ERR_FORMAT, "unknown marker 0x%02" PRIx32 " at byte %" PRIu64, marker,
                    j->at);
}

// Bytes between segments are skipped, as libjpeg does.
static kim_err read_segments(jpeg *j)
{
    j->at = 2;
    for (;;) {
        const uint8_t *p = memchr(j->bytes + j->at, 0xff, j->length - j->at);
        while (p && p + 1 < j->bytes + j->length && p[1] == 0xff)
            p++;
        if (!p || j->length - (size_t)(p - j->bytes) < 2)
            return fail_truncated(j);
        j->at = (size_t)(p - j->bytes) + 2;
        uint32_t marker = p[1];
        if (marker == EOI)
            return KIM_OK;
        if (marker <= 1) // 0: no marker, but a byte 0xff; 1: for private use
            continue;
        if (marker >= RST0 && marker <= SOI)
            return kim_fail(KIM_ERR_FORMAT,
                            "marker 0x%02" PRIx32 " at byte %" PRIu64 ", outside a scan", marker,
                            j->at);
        if (j->length - j->at < 2)
            return fail_truncated(j);
        uint32_t n = read_be16(j->bytes + j->at);
        if (n < 2)
            return kim_fail(KIM_ERR_FORMAT, "a segment of %" PRIu32 " bytes at byte %" PRIu64, n,
                            j->at);
        if (n > j->length - j->at)
            return fail_truncated(j);
        const uint8_t *data = j->bytes + j->at + 2;
        j->at += n;
        kim_err err = read_segment(j, marker, data, n - 2);
        if (err)
            return err;
    }
}

// Every channel must be there, and no smaller a file than its blocks take at one bit each, so that
// it cannot cost a large picture's memory and time.
static kim_err check_data(const jpeg *j)
{
    if (!j->n)
        return kim_fail(KIM_ERR_FORMAT, "a JPEG without a frame (SOF)");
    uint64_t blocks = 0;
    for (uint32_t i = 0; i < j->n; i++) {
        const component *c = &j->components[i];
        if (!c->seen)
            return kim_fail(KIM_ERR_FORMAT, "a JPEG without pixels for channel %" PRIu32, i);
        blocks += (uint64_t)c->blocks_x * c->blocks_y;
    }
    if (j->data * 8 < blocks)
        return kim_fail(KIM_ERR_FORMAT,
                        "%" PRIu32 " x %" PRIu32 " pixels need at least %" PRIu64
                        " bytes of data, the scans have %" PRIu64,
                        j->width, j->height, blocks / 8, j->data);
    return KIM_OK;
}

// Which colours the channels are, as libjpeg decides it; stb_image goes by Adobe's segment. Four
// channels without one may be CMYK either way round, so they are refused.
static kim_err mark_colours(jpeg *j)
{
    int transform = -1; // YCbCr
    const component *c = j->components;
    if (j->n == 3 && !j->jfif) {
        bool letters = c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B';
        if (j->adobe == 0 || (j->adobe < 0 && letters))
            transform = 0; // RGB
    }
    if (j->n == 4) {
        transform = j->adobe; // 0: CMYK, 2: YCCK
        if (transform != 0 && transform != 2)
            return kim_fail(KIM_ERR_UNSUPPORTED,
                            "a JPEG of four channels that does not tell their colours, expected "
                            "Adobe's CMYK or YCCK");
    }
    uint8_t adobe[12] = { 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, (uint8_t)transform };
    if (transform >= 0)
        put_segment(j, APP14, adobe, sizeof adobe);
    return KIM_OK;
}

kim_err jpeg_decode(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length)
{
    kim_err err = KIM_OK;
    *out = (picture){ 0 };
    jpeg j = { .bytes = bytes, .length = length, .adobe = -1, .orientation = 1 };
    j.clean = malloc(length + 16); // all but mark_colours' segment is copied
    REQUIRE_MEMORY(j.clean);
    put(&j, (const uint8_t[]){ 0xff, SOI }, 2);
    TRY(read_segments(&j));
    TRY(check_data(&j));
    TRY(mark_colours(&j));
    put(&j, (const uint8_t[]){ 0xff, EOI }, 2);
    *orientation = j.orientation;
    TRY(stb_decode(out, j.clean, j.clean_at, j.width, j.height));
error:
    free(j.clean);
    return err;
}
