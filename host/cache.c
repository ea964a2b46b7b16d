// SPDX-License-Identifier: MIT
// The folder of what can be made again: compiled pipelines, measured choices.
#include "cache.h"

#include <stdio.h>
#include <stdlib.h>
#ifdef _WIN32
#    include <direct.h>
#    define make_folder(path) _mkdir(path)
#else
#    include <sys/stat.h>
#    define make_folder(path) mkdir(path, 0700)
#endif

void cache_path(const char *dir, const char *name, char *path, size_t size)
{
    char folder[400];
    if (dir) {
        snprintf(folder, sizeof folder, "%s", dir);
    } else {
#ifdef _WIN32
        const char *base = getenv("LOCALAPPDATA");
        snprintf(folder, sizeof folder, "%s%s", base ? base : "", base ? "/kimberlite" : "");
#else
        const char *base = getenv("XDG_CACHE_HOME");
        const char *home = getenv("HOME");
        if (base && base[0])
            snprintf(folder, sizeof folder, "%s/kimberlite", base);
        else
            snprintf(folder, sizeof folder, "%s%s", home ? home : "",
                     home ? "/.cache/kimberlite" : "");
#endif
    }
    path[0] = 0;
    if (!folder[0])
        return;
    for (char *at = folder + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            (void)make_folder(folder);
            *at = '/';
        }
    (void)make_folder(folder);
    snprintf(path, size, "%s/%s", folder, name);
}

uint64_t cache_hash(uint64_t hash, const void *data, uint64_t n)
{
    const uint8_t *bytes = data;
    for (uint64_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}
