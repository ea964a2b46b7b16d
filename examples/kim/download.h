// SPDX-License-Identifier: MIT
// One file over HTTP to its place on the disk: resumed, checked, whole or not there at all.
#ifndef KIM_DOWNLOAD_H
#define KIM_DOWNLOAD_H

#include "common.h"

// What is to be fetched, and where to.
typedef struct download {
    const char *url;    // http: or https:
    const char *path;   // of the file when it is complete; until then `path`.part
    const char *name;   // in sentences
    const char *sha256; // 64 lower-case hexadecimal digits; NULL: what the server says, if it does
    uint64_t size;      // 0: what the server says
    const char *token;  // sent to the host of `url` and to no other; NULL: none

    int tries;    // in a row that brought next to nothing
    double wait;  // seconds before the second try, doubled before each further one
    double stall; // seconds without a byte after which a connection is given up
} download;

// What the host is called in sentences, "huggingface.co". Free with free().
char *download_host(const char *url);

// Fetches the file, or only checks it when it is there.
//
// FILE.part and FILE.part.info hold what has been fetched of which version; a later call goes on
// from there when the server still has that version, and begins anew when it has another.
// Returns STATUS_OK, or STATUS_FAILED with the sentence printed.
int download_file(const download *d);

#endif
