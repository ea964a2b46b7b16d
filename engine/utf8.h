// SPDX-License-Identifier: MIT
// One step through bytes that should be UTF-8.
#ifndef KIM_UTF8_H
#define KIM_UTF8_H

#include <stddef.h>

typedef enum utf8_status {
    UTF8_CHARACTER,  // one whole character
    UTF8_UNFINISHED, // the bytes end within a character that is right so far
    UTF8_INVALID,    // no character can begin like this
} utf8_status;

// What the first of `length` bytes begin. Overlong forms, surrogates and code points above U+10FFFF
// are invalid.
//
// length: at least 1
// used:   set to the bytes of the character, of its beginning, or of the longest part of a
//         character that an invalid sequence has ("maximal subpart" in the Unicode standard)
utf8_status utf8_next(const char *bytes, size_t length, size_t *used);

#endif
