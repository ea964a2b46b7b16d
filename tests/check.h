// SPDX-License-Identifier: MIT
// A test ends at its first failed check, with a sentence on stderr.
#ifndef KIM_CHECK_H
#define KIM_CHECK_H

#include "host/base.h"

#include <stdio.h>
#include <stdlib.h>

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

#endif
