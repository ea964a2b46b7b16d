// SPDX-License-Identifier: MIT
// A model: what its files say, and its weights on one device. Internal to engine/.
#ifndef KIM_MODEL_H
#define KIM_MODEL_H

#include "image.h"
#include "model_files.h"

#include "host/linear.h"
#include "host/ops.h"

typedef struct layer_weights {
    span norm_attention; // (hidden)  f32, as are all norms
    linear qkv;          // (heads * head + 2 * kv_heads * head, hidden): rows q, k, v
    span norm_q, norm_k; // (head)
    linear o;            // (hidden, heads * head): heads * head differs from hidden in every size
    span norm_post_attention; // (hidden)
    span norm_feed_forward;   // (hidden)
    linear gate_up; // (2 * feed_forward, hidden): rows gate 0, up 0, gate 1, ... if paired
    linear down;    // (hidden, feed_forward)
    span norm_post_feed_forward; // (hidden)
} layer_weights;

struct kim_model {
    kim_gpu *gpu; // NULL: information only
    model_files files;
    const tokenizer *tokens;     // of the files; NULL: none
    architecture arch;           // of the files, and the vocabulary
    const weight_type *quantize; // what plain matrices of the text become; NULL: they stay
    kim_model_info info;
    kim_load_stats load;
    pool weights; // of the text
    layer_weights *layers;
    linear embedding;                     // (vocab, hidden), and the output: they are tied
    span norm_output;                     // (hidden)
    span rotation_local, rotation_global; // see rope.comp
    encoder *vision;                      // NULL: the model cannot see
    image_cache images;                   // tiles encoded before
};

// A model that was opened as a projector alone is an error: it has no text.
kim_err model_check_text(const kim_model *m);

#endif
