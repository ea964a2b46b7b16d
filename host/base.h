// SPDX-License-Identifier: MIT
// What every layer shares: error codes, the text of the last error, the log callback.
#ifndef KIMBERLITE_BASE_H
#define KIMBERLITE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(KIM_SHARED)
#    ifdef KIM_BUILD
#        define KIM_API __declspec(dllexport)
#    else
#        define KIM_API __declspec(dllimport)
#    endif
#elif defined(__GNUC__)
#    define KIM_API __attribute__((visibility("default")))
#else
#    define KIM_API
#endif

#if defined(__GNUC__)
#    define KIM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#    define KIM_PRINTF(fmt, args)
#endif

#ifdef __cplusplus
extern "C" {
#endif

// What a call came to. 0 is success; after anything else kim_error_text() has one sentence
// that names what was wrong, what was found, and what was expected or can be done.
typedef enum kim_err {
    KIM_OK = 0,
    KIM_ERR_ARGUMENT,      // the caller broke the contract of the function
    KIM_ERR_NO_MEMORY,     // the host is out of memory
    KIM_ERR_DEVICE_MEMORY, // the device has too little memory, or the cap was reached
    KIM_ERR_FILE,          // a file could not be opened, read, or written
    KIM_ERR_FORMAT,        // a file's content is not what its format says
    KIM_ERR_UNSUPPORTED,   // valid, but not something this build or this device does
    KIM_ERR_NO_VULKAN,     // no Vulkan loader, or no driver
    KIM_ERR_NO_DEVICE,     // no device fits the choice, or none has the baseline
    KIM_ERR_DEVICE_LOST,   // the device stopped answering; everything on it is gone
    KIM_ERR_VULKAN,        // any other failure of a Vulkan call
    KIM_ERR_CONTEXT_FULL,  // the tokens do not fit in what is left of the session
    KIM_ERR_CANCELLED,     // a callback of the caller asked to stop
} kim_err;

typedef enum kim_log_level {
    KIM_LOG_ERROR = 0,
    KIM_LOG_WARNING,
    KIM_LOG_INFO,
    KIM_LOG_DEBUG,
} kim_log_level;

// Receives one line of text without a newline. May be called from any thread that calls the
// library. The text is valid during the call only.
typedef void (*kim_log_fn)(void *user, kim_log_level level, const char *text);

// The sentence of the last call that failed on this thread; "" when none has failed.
// Valid until the next failing call on the same thread. Never NULL.
KIM_API const char *kim_error_text(void);

// The name of a code, such as "device lost". Never NULL.
KIM_API const char *kim_err_name(kim_err err);

#ifdef __cplusplus
}
#endif
#endif
