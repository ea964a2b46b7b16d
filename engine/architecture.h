// SPDX-License-Identifier: MIT
// The hyper-parameters of a Gemma 3 text model, from the keys of a GGUF file.
#ifndef KIM_ARCHITECTURE_H
#define KIM_ARCHITECTURE_H

#include "host/gguf.h"
#include "kimberlite.h"

typedef struct architecture {
    uint32_t layers, hidden, feed_forward, heads, kv_heads, head, vocab, context;
    uint32_t window; // 0: all layers are global
    bool *is_local;  // [layers]
    float eps;
    float base_global, base_local, factor_global; // RoPE
    float q_scale;                                // what q is multiplied with before q . k
    float embed_scale;                            // what embeddings are multiplied with
} architecture;

// Reads and checks every value; errors name the file, the key, what was found and what is expected.
kim_err architecture_read(architecture *a, const gguf *g);
void architecture_destroy(architecture *a);

// "270M", "1B", ... for a published shape, else "".
const char *architecture_size(const architecture *a);

#endif
