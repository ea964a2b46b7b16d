// SPDX-License-Identifier: MIT
// libFuzzer target: any bytes as a safetensors file; everything in it is read.
//   clang -fsanitize=fuzzer,address,undefined ...; safetensors_fuzz TESTS_FOLDER/corpus/safetensors
#include "host/safetensors.h"

#include "fuzz_support.h"

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
