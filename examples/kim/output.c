// SPDX-License-Identifier: MIT
// Text buffers, files, and what goes to stdout.
#include "common.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void strbuf_add(strbuf *t, const char *bytes, size_t length)
{
    if (t->length + length + 1 > t->room) {
        t->room = 2 * (t->length + length) + 64;
        t->data = checked(realloc(t->data, t->room));
    }
    memcpy(t->data + t->length, bytes, length);
    t->length += length;
    t->data[t->length] = '\0';
}

void strbuf_printf(strbuf *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    char *text = checked(malloc((size_t)n + 1));
    vsnprintf(text, (size_t)n + 1, format, again);
    strbuf_add(t, text, (size_t)n);
    free(text);
    va_end(again);
    va_end(args);
}

void strbuf_free(strbuf *t)
{
    free(t->data);
    *t = (strbuf){ 0 };
}

bool read_file(const char *path, strbuf *out)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "stdin" : path;
    FILE *file = standard ? stdin : fopen(path, "rb");
    if (!file) {
        fail("%s: %s", name, strerror(errno));
        return false;
    }
    char block[1 << 16];
    size_t n;
    *out = (strbuf){ 0 };
    strbuf_add(out, "", 0);
    while ((n = fread(block, 1, sizeof block, file)) > 0)
        strbuf_add(out, block, n);
    int code = ferror(file) ? errno : 0;
    if (!standard)
        fclose(file);
    if (code) {
        fail("%s: %s", name, strerror(code));
        strbuf_free(out);
    }
    return code == 0;
}

bool can_replace(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || S_ISREG(info.st_mode))
        return true;
    fail("%s is %s: it cannot be replaced by a saved file", path,
         S_ISDIR(info.st_mode) ? "a folder" : "no plain file");
    return false;
}

// Writes a new file next to `path` and gives it its place. Returns 0 or an errno.
static int replace_file(const char *path, const char *bytes, size_t length)
{
    struct stat old;
    mode_t mask = umask(0);
    umask(mask);
    mode_t mode = stat(path, &old) == 0 ? old.st_mode & 07777 : 0666 & ~mask;
    strbuf temporary = { 0 };
    strbuf_add(&temporary, path, strlen(path));
    strbuf_add(&temporary, ".XXXXXX", 7);
    int file = mkstemp(temporary.data);
    int code = file < 0 ? errno : 0;
    while (!code && length) {
        ssize_t n = write(file, bytes, length);
        if (n < 0 && errno != EINTR)
            code = errno;
        if (n > 0) {
            bytes += n;
            length -= (size_t)n;
        }
    }
    if (!code && (fchmod(file, mode) != 0 || fsync(file) != 0))
        code = errno;
    if (file >= 0 && close(file) != 0 && !code)
        code = errno;
    if (!code && rename(temporary.data, path) != 0)
        code = errno;
    if (file >= 0 && code)
        unlink(temporary.data);
    strbuf_free(&temporary);
    return code;
}

bool write_file(const char *path, const char *bytes, size_t length)
{
    if (!can_replace(path))
        return false;
    char *target = realpath(path, NULL); // a link stays a link
    int code = replace_file(target ? target : path, bytes, length);
    free(target);
    if (code)
        fail("%s could not be written: %s", path, strerror(code));
    return code == 0;
}

// ---------------------------------------------------------------------------------- output

static int output_error; // errno of the first write to stdout that failed

bool output_flush(void)
{
    errno = 0;
    if (!output_error && (fflush(stdout) != 0 || ferror(stdout)))
        output_error = errno ? errno : EIO;
    return output_error == 0;
}

bool output_write(const char *bytes, size_t length)
{
    errno = 0;
    if (output_flush() && fwrite(bytes, 1, length, stdout) != length)
        output_error = errno ? errno : EIO;
    return output_flush();
}

int output_finish(int status)
{
    output_flush();
    if (fclose(stdout) != 0 && !output_error)
        output_error = errno;
    if (output_error && output_error != EPIPE)
        fail("the results could not be written: %s", strerror(output_error));
    return output_error ? STATUS_FAILED : status;
}

int print_json(cJSON *json)
{
    char *printed = checked(cJSON_Print(json));
    cJSON_Delete(json);
    bool written = output_write(printed, strlen(printed));
    cJSON_free(printed);
    putchar('\n');
    return written && output_flush() ? STATUS_OK : STATUS_FAILED;
}

cJSON *json_float(float value)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%.9g", (double)value);
    return cJSON_CreateNumber(strtod(digits, NULL));
}

const char *format_bytes(uint64_t bytes, char buffer[32])
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1000 && unit < 4; unit++)
        value /= 1024;
    int decimals = !unit || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    snprintf(buffer, 32, "%.*f %s", decimals, value, units[unit]);
    return buffer;
}

char *valid_utf8(const char *bytes, size_t length)
{
    kim_utf8 state = { 0 };
    char *valid = checked(malloc(3 * (length + 4) + 3 * 4 + 1));
    size_t n = length ? kim_utf8_feed(&state, bytes, length, valid) : 0;
    n += kim_utf8_feed(&state, NULL, 0, valid + n);
    valid[n] = '\0';
    return valid;
}

void print_quoted(FILE *file, const char *bytes, size_t length)
{
    char *valid = valid_utf8(bytes, length);
    fputc('"', file);
    for (const char *at = valid; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '\n')
            fputs("\\n", file);
        else if (c == '"' || c == '\\')
            fprintf(file, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(file, "\\x%02x", c);
        else
            fputc(c, file);
    }
    fputc('"', file);
    free(valid);
}

static const char *style(FILE *file, const char *sequence)
{
    const char *no_color = getenv("NO_COLOR");
    return isatty(fileno(file)) && !(no_color && *no_color) ? sequence : "";
}

const char *style_dim(FILE *file)
{
    return style(file, "\033[2m");
}

const char *style_bold(FILE *file)
{
    return style(file, "\033[1m");
}

const char *style_end(FILE *file)
{
    return style(file, "\033[0m");
}

double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
