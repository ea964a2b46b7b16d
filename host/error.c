// SPDX-License-Identifier: MIT
// The text of the last error, one buffer a thread.
#include "error.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char text[1024];

kim_err kim_fail(kim_err code, const char *fmt, ...)
{
    char fresh[sizeof text]; // the arguments may point into `text`
    va_list args;
    va_start(args, fmt);
    vsnprintf(fresh, sizeof fresh, fmt, args);
    va_end(args);
    // what a file has for a name must not steer a terminal, or make two lines of one
    for (unsigned char *c = (unsigned char *)fresh; *c; c++) {
        if (*c < ' ' || *c == 0x7f)
            *c = '?';
        else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) // C1 in UTF-8
            *c = c[1] = '?';
    }
    memcpy(text, fresh, sizeof text);
    return code;
}

kim_err kim_fail_prefix(kim_err code, const char *prefix)
{
    char old[sizeof text];
    memcpy(old, text, sizeof text);
    return kim_fail(code, "%s: %s", prefix, old);
}

const char *kim_error_text(void)
{
    return text;
}

const char *kim_err_name(kim_err err)
{
    switch (err) {
    case KIM_OK: return "ok";
    case KIM_ERR_ARGUMENT: return "wrong argument";
    case KIM_ERR_NO_MEMORY: return "out of host memory";
    case KIM_ERR_DEVICE_MEMORY: return "out of device memory";
    case KIM_ERR_FILE: return "file error";
    case KIM_ERR_FORMAT: return "wrong file format";
    case KIM_ERR_UNSUPPORTED: return "unsupported";
    case KIM_ERR_NO_VULKAN: return "no Vulkan";
    case KIM_ERR_NO_DEVICE: return "no device";
    case KIM_ERR_DEVICE_LOST: return "device lost";
    case KIM_ERR_VULKAN: return "Vulkan error";
    case KIM_ERR_CONTEXT_FULL: return "context full";
    case KIM_ERR_CANCELLED: return "cancelled";
    }
    return "unknown error";
}
