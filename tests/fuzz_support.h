// SPDX-License-Identifier: MIT
// What the fuzz targets share.
#ifndef KIM_FUZZ_SUPPORT_H
#define KIM_FUZZ_SUPPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void require(bool condition)
{
    if (!condition)
        abort();
}

static volatile uint8_t sink;

// Reads each byte, so that ASan sees those that are not there.
static inline void touch(const void *data, uint64_t bytes)
{
    const uint8_t *p = data;
    uint8_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++)
        sum ^= p[i];
    sink = sum;
}

#endif
