// SPDX-License-Identifier: MIT
// libFuzzer target: any bytes as a safetensors file; everything in it is read.
//   clang -fsanitize=fuzzer,address,undefined ...; safetensors_fuzz TESTS_FOLDER/corpus/safetensors
#include "host/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static volatile uint8_t sink;

// Reads each byte, so that ASan sees those that are not there.
static void touch(const void *data, uint64_t bytes)
{
    const uint8_t *p = data;
    uint8_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++)
        sum ^= p[i];
    sink = sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    safetensors *s;
    if (safetensors_open_memory(&s, data, size, "fuzz")) {
        require(!s && strncmp(kim_error_text(), "fuzz: ", 6) == 0);
        return 0;
    }
    const uint8_t *at = NULL;
    for (uint32_t i = 0; i < safetensors_count(s); i++) {
        const safetensor *t = safetensors_at(s, i);
        require(safetensors_find(s, t->name) == t && *t->name && *t->dtype);
        require(t->n_dims <= SAFETENSORS_MAX_DIMS && (!at || t->data == at));
        at = t->data + t->bytes;
        touch(t->data, t->bytes);
    }
    require(!at || at == data + size);
    safetensors_close(&s);
    return 0;
}
