// SPDX-License-Identifier: MIT
// Kimberlite: Gemma 3 on any GPU with a Vulkan driver. This header is the manual.
//
// General rules, said once:
// - A function that can fail returns kim_err; 0 is success. On failure nothing was changed, the
//   `out` pointer is left NULL, and kim_error_text() has the sentence.
// - Params structs: zero-initialised is the default. NULL for a params pointer is the same.
// - Objects are destroyed by their own _destroy, which takes a pointer to the pointer, accepts NULL
//   inside, and sets it to NULL. An object must outlive what was made from it:
//   gpu > model > session.
// - The library never prints, never exits, and keeps no pointer to what the caller passed, except
//   callbacks and their `user`.
// - A gpu and a model may be used from several threads; one session from one thread at a time.
#ifndef KIMBERLITE_H
#define KIMBERLITE_H

#include "base.h"
#include "devices.h" // kim_gpu: list devices, choose one, open it

#ifdef __cplusplus
extern "C" {
#endif

#define KIM_VERSION "0.1.0"

typedef struct kim_model kim_model;
typedef struct kim_session kim_session;

// ------------------------------------------------------------------------------------ model

typedef struct kim_model_params {
    // Called often while loading; returning false stops with KIM_ERR_CANCELLED. NULL: not called.
    bool (*progress)(void *user, uint64_t bytes_done, uint64_t bytes_total);
    void *progress_user;
} kim_model_params;

typedef struct kim_model_info {
    char architecture[32]; // "gemma3"
    char name[128];        // general.name of the file, "" if absent
    char size[16];         // "270M", "1B", "4B", "12B", "27B", or "" for other shapes
    bool chat;             // tuned for conversation; false: a pre-trained model that continues text
    uint32_t layers, hidden, feed_forward, heads, kv_heads, head_size, vocab;
    uint32_t window;         // keys a local layer sees, itself included; 0: all layers are global
    uint32_t window_pattern; // every such-th layer is global
    uint32_t context;        // the most positions the model was made for
    float rms_eps, rope_base_global, rope_base_local, rope_factor_global, attention_scale;
    uint64_t parameters; // weights, the tied embedding counted once
    uint64_t file_bytes;
    uint32_t tensors;
    int32_t bos, eos, end_of_turn;
} kim_model_info;

typedef struct kim_tensor_info {
    const char *name; // valid as long as the model
    const char *type; // "Q4_K"
    uint32_t dims;
    uint64_t shape[4]; // as the file has it: shape[0] is the row length
    uint64_t bytes;    // in the file
} kim_tensor_info;

// Opens a GGUF file and puts its weights on the device.
// With gpu NULL the weights stay in the file: information, tensors, plan and tokenizer only.
KIM_API kim_err kim_model_open(kim_model **out, kim_gpu *gpu, const char *path,
                               const kim_model_params *params);
KIM_API void kim_model_destroy(kim_model **model);
KIM_API const kim_model_info *kim_model_get_info(const kim_model *model);

// index: below kim_model_info.tensors, in file order
KIM_API kim_err kim_model_get_tensor(const kim_model *model, uint32_t index, kim_tensor_info *out);

// ---------------------------------------------------------------------------------- tokens

// Text to ids, as the published tokenizer does it. Never adds <bos>.
//
// text:    [length] bytes, any bytes at all; invalid UTF-8 becomes byte tokens
// special: "<start_of_turn>" and the like in the text become their special ids; false: plain text
// ids:     set to [*count] ids; free with kim_free
KIM_API kim_err kim_tokenize(const kim_model *model, const char *text, size_t length, bool special,
                             int32_t **ids, uint32_t *count);

// The bytes of one token; special tokens give "" unless `special`. Not zero-terminated, may be part
// of a character. Valid as long as the model.
KIM_API const char *kim_token_bytes(const kim_model *model, int32_t id, bool special,
                                    size_t *length);

// True for the tokens that end an answer: <eos>, <end_of_turn>.
KIM_API bool kim_token_ends(const kim_model *model, int32_t id);

// Joins the bytes of tokens to text and holds back the bytes of an unfinished character.
// Zero-initialised is empty.
typedef struct kim_utf8 {
    char held[4];
    uint32_t n_held;
} kim_utf8;

// Adds bytes and gives what is complete. Invalid bytes become U+FFFD.
//
// bytes, length: input; length 0 flushes: what is held comes out as U+FFFD
// out:           room for 3 * (length + 4) bytes; not zero-terminated
// Returns the bytes written.
KIM_API size_t kim_utf8_feed(kim_utf8 *state, const char *bytes, size_t length, char *out);

// One message of a conversation. role: "system" (first only), "user", "assistant".
typedef struct kim_message {
    const char *role;
    const char *text; // zero-terminated UTF-8; special tokens in it are plain text
} kim_message;

// The ids of a whole conversation as Gemma 3's chat template gives them, <bos> first, ending with
// the opening of the model's turn. A system text is put before the first user text.
// ids: free with kim_free
KIM_API kim_err kim_chat_tokens(const kim_model *model, const kim_message *messages, uint32_t count,
                                int32_t **ids, uint32_t *n_ids);

KIM_API void kim_free(void *pointer);

// --------------------------------------------------------------------------------- session

typedef struct kim_session_params {
    uint32_t context; // positions; 0: the smaller of the model's and 8192
    uint32_t batch;   // prompt tokens run together; 0: 512
} kim_session_params;

// Memory on the device, exact to the byte.
typedef struct kim_plan {
    uint64_t weights;
    uint64_t kv_local, kv_global; // K and V of the session's layers
    uint64_t activations;         // everything else of one session
    uint64_t total;
    uint32_t kv_local_rows; // positions a local layer keeps
} kim_plan;

// What the model and one session take. Works without a gpu; with one, its limits are used.
KIM_API kim_err kim_model_plan(const kim_model *model, const kim_gpu *gpu,
                               const kim_session_params *params, kim_plan *out);

KIM_API kim_err kim_session_create(kim_session **out, kim_model *model,
                                   const kim_session_params *params);
KIM_API void kim_session_destroy(kim_session **session);

KIM_API uint32_t kim_session_position(const kim_session *session); // tokens read so far
KIM_API uint32_t kim_session_context(const kim_session *session);  // positions there are

// The tokens read so far: [kim_session_position]. Valid until the session is next changed.
KIM_API const int32_t *kim_session_tokens(const kim_session *session);

// Reads n more tokens into the session and leaves the logits of the last one.
// The K and V of earlier tokens are reused.
//
// tokens: [n] ids, 0 <= id < kim_model_info.vocab
// n:      1 .. free positions, else KIM_ERR_CONTEXT_FULL with the numbers in the text
KIM_API kim_err kim_session_append(kim_session *session, const int32_t *tokens, uint32_t n);

// About the distribution after one token.
typedef struct kim_score {
    int32_t top;        // the most probable next token
    float top_logprob;  // its log-probability (natural)
    float next_logprob; // of the token that does follow; 0 for the last
} kim_score;

// As kim_session_append, and scores every position: scores[i] is about what follows tokens[i].
// scores: [n]
KIM_API kim_err kim_session_append_scored(kim_session *session, const int32_t *tokens, uint32_t n,
                                          kim_score *scores);

// The logits after the last token: [kim_model_info.vocab]. NULL before the first append or after a
// cut. Valid until the session is next changed.
KIM_API const float *kim_session_logits(const kim_session *session);

// Forgets all tokens from `position` on; the next append continues there.
// position: 0 .. kim_session_position. Free within the last `batch` tokens; further back the local
// layers have overwritten what they need, and the kept tokens are read again.
KIM_API kim_err kim_session_cut(kim_session *session, uint32_t position);

// A second session with the same past; both go on independently.
KIM_API kim_err kim_session_fork(kim_session **out, const kim_session *session);

// Writes the session to a file (a temporary name, then a rename: an existing file is replaced
// whole or not at all), and reads it back into a session of the same model and of at least its
// size.
KIM_API kim_err kim_session_save(const kim_session *session, const char *path);
KIM_API kim_err kim_session_load(kim_session *session, const char *path);

// Work given to the device since the session was made.
typedef struct kim_session_stats {
    uint64_t dispatches, submits, barriers;
    uint32_t decode_dispatches; // of one single-token step
    uint32_t decode_submits;
} kim_session_stats;
KIM_API void kim_session_get_stats(const kim_session *session, kim_session_stats *out);

// -------------------------------------------------------------------------------- sampling

// Zero-initialised: the published defaults of Gemma 3 (temperature 1, top-k 64, top-p 0.95).
// Order: repetition penalty, temperature, softmax, top-k, top-p, min-p, draw.
typedef struct kim_sampling {
    bool greedy;          // take the most probable; the rest is not used
    float temperature;    // 0: 1.0
    uint32_t top_k;       // 0: 64; UINT32_MAX: all
    float top_p;          // 0: 0.95; 1: all
    float min_p;          // keep p >= min_p * the highest; 0: off
    float repeat_penalty; // 0 or 1: off; divides positive logits, multiplies negative ones
    uint32_t repeat_last; // tokens looked back at; 0: 64
    uint64_t seed;        // 0: taken from the system
} kim_sampling;

typedef struct kim_sampler kim_sampler;
KIM_API kim_err kim_sampler_create(kim_sampler **out, const kim_sampling *params);
KIM_API void kim_sampler_destroy(kim_sampler **sampler);

// Draws the next token from the session's logits. Ids above the tokenizer's are never drawn.
// id: set to the token; logprob: its natural log-probability before any of the above; NULL: not
// wanted
KIM_API kim_err kim_sample(kim_sampler *sampler, const kim_session *session, int32_t *id,
                           float *logprob);

#ifdef __cplusplus
}
#endif
#endif
