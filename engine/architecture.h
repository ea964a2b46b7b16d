// SPDX-License-Identifier: MIT
// The hyper-parameters of a Gemma 3 text model, from the keys of a GGUF file or from a config.json.
#ifndef KIM_ARCHITECTURE_H
#define KIM_ARCHITECTURE_H

#include "host/gguf.h"
#include "host/json.h"
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

// Read and check every value but the vocabulary's; errors name the file, the value, what was found
// and what is expected.
kim_err architecture_read(architecture *a, const gguf *g);

// text: the text_config of a config.json, or the whole of one of a text model
kim_err architecture_read_config(architecture *a, const json_place *text);

// Those of a published size, by its name in any case: "270m", "1b", "4b", "12b", "27b".
// KIM_ERR_ARGUMENT: there is none of this name.
kim_err architecture_make(architecture *a, const char *size);

void architecture_destroy(architecture *a);

// "270M", "1B", ... for a published shape, else "".
const char *architecture_size(const architecture *a);

// ------------------------------------------------------------------- shared by the two readers

// A size, what it is called in the two kinds of file, and its limits.
typedef struct architecture_field {
    size_t offset;     // in architecture, of a uint32_t
    uint32_t fallback; // of the published configuration class; 0: it must be there
    uint32_t most;
    const char *key, *name; // in a GGUF file after "gemma3.", in a config.json
} architecture_field;

enum { ARCHITECTURE_FIELDS = 7, ARCHITECTURE_MAX_WINDOW = 1 << 24 };
extern const architecture_field architecture_fields[ARCHITECTURE_FIELDS];

// path, name: for the error
kim_err architecture_check_size(const char *path, const char *name, uint32_t value, uint32_t most);
kim_err architecture_check_positive(const char *path, const char *name, float value);

// Checks the sizes against each other and sets embed_scale.
kim_err architecture_finish(architecture *a, const char *path);

// Allocates is_local: every `every`th layer is global, all if there is no window.
kim_err architecture_make_pattern(architecture *a, uint32_t every);

#endif
