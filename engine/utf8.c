// SPDX-License-Identifier: MIT
// UTF-8: one step through bytes, and the joining of tokens that end within a character.
#include "utf8.h"

#include <string.h>

#include "kimberlite.h"

utf8_status utf8_next(const char *bytes, size_t length, size_t *used)
{
    const unsigned char *b = (const unsigned char *)bytes;
    *used = 1;
    if (b[0] < 0x80)
        return UTF8_CHARACTER;
    if (b[0] < 0xC2 || b[0] > 0xF4)
        return UTF8_INVALID;

    size_t size = b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
    // the second byte's range excludes overlong forms, surrogates, and what is above U+10FFFF
    unsigned char low = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < size; i++) {
        if (i == length)
            return UTF8_UNFINISHED;
        if (b[i] < low || b[i] > high)
            return UTF8_INVALID;
        *used = i + 1;
        low = 0x80;
        high = 0xBF;
    }
    return UTF8_CHARACTER;
}

static size_t put_replacement(char *out)
{
    memcpy(out, "\xEF\xBF\xBD", 3); // U+FFFD
    return 3;
}

size_t kim_utf8_feed(kim_utf8 *state, const char *bytes, size_t length, char *out)
{
    size_t written = 0, used;
    if (length == 0) {
        if (state->n_held)
            written = put_replacement(out);
        state->n_held = 0;
        return written;
    }

    while (state->n_held && length) {
        state->held[state->n_held] = *bytes;
        utf8_status status = utf8_next(state->held, state->n_held + 1, &used);
        if (status == UTF8_INVALID) { // what is held ends here; the new byte begins something else
            written += put_replacement(out + written);
            state->n_held = 0;
            break;
        }
        bytes++;
        length--;
        state->n_held++;
        if (status == UTF8_CHARACTER) {
            memcpy(out + written, state->held, used);
            written += used;
            state->n_held = 0;
        }
    }

    while (length) {
        utf8_status status = utf8_next(bytes, length, &used);
        if (status == UTF8_UNFINISHED) {
            memcpy(state->held, bytes, used);
            state->n_held = (uint32_t)used;
        } else if (status == UTF8_CHARACTER) {
            memcpy(out + written, bytes, used);
            written += used;
        } else {
            written += put_replacement(out + written);
        }
        bytes += used;
        length -= used;
    }
    return written;
}
