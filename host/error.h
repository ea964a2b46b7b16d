// SPDX-License-Identifier: MIT
// Internal half of the error scheme: set the sentence, return the code.
#ifndef KIM_ERROR_H
#define KIM_ERROR_H

#include "base.h"

// Sets the sentence of kim_error_text() for this thread and returns `code`.
kim_err kim_fail(kim_err code, const char *fmt, ...) KIM_PRINTF(2, 3);

// Puts "`prefix`: " before the current sentence and returns `code`: adds the file to an error
// that was found further in.
kim_err kim_fail_prefix(kim_err code, const char *prefix);

// For functions with `kim_err err` and a single label `error`.
#define TRY(call)                                                                                  \
    do {                                                                                           \
        err = (call);                                                                              \
        if (err)                                                                                   \
            goto error;                                                                            \
    } while (0)

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        err = kim_fail(__VA_ARGS__);                                                               \
        goto error;                                                                                \
    } while (0)

#define REQUIRE_MEMORY(pointer)                                                                    \
    do {                                                                                           \
        if (!(pointer))                                                                            \
            FAIL(KIM_ERR_NO_MEMORY, "out of host memory");                                         \
    } while (0)

#endif
