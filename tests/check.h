// SPDX-License-Identifier: MIT
// A test ends at its first failed check, with a sentence on stderr.
#ifndef KIM_CHECK_H
#define KIM_CHECK_H

#include "host/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, "\n");                                                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_OK(call) CHECK((call) == KIM_OK, "%s: %s", #call, kim_error_text())

// The call fails with this code and these words in its sentence.
#define CHECK_FAILS(call, code, words)                                                             \
    do {                                                                                           \
        kim_err got_ = (call);                                                                     \
        CHECK(got_ == (code), "%s: \"%s\", expected \"%s\"", #call, kim_err_name(got_),            \
              kim_err_name(code));                                                                 \
        CHECK(strstr(kim_error_text(), words), "%s: \"%s\" does not say \"%s\"", #call,            \
              kim_error_text(), words);                                                            \
    } while (0)

#endif
