// SPDX-License-Identifier: MIT
// Kimberlite: Gemma 3 on any GPU with a Vulkan driver. This header is the manual.
//
// General rules, said once:
// - A function that can fail returns kim_err; 0 is success. On failure nothing was changed unless
//   it says so, the `out` pointer is left NULL, and kim_error_text() has the sentence.
// - Params structs: zero-initialised is the default. NULL for a params pointer is the same.
// - Objects are destroyed by their own _destroy, which takes a pointer to the pointer, accepts NULL
//   inside, and sets it to NULL. An object must outlive what was made from it:
//   gpu > model > session and batch, and model > images encoded for it.
// - The library never prints, never exits, and keeps no pointer to what the caller passed, except
//   callbacks and their `user`.
// - A gpu and a model may be used from several threads; one session, and one image that is being
//   prepared or encoded, from one thread at a time.
#ifndef KIMBERLITE_H
#define KIMBERLITE_H

#include "base.h"
#include "devices.h" // kim_gpu: list devices, choose one, open it
#include "trace.h"   // what is run on it, command by command

#ifdef __cplusplus
extern "C" {
#endif

#define KIM_VERSION "0.1.0"

typedef struct kim_model kim_model;
typedef struct kim_image kim_image;
typedef struct kim_session kim_session;
typedef struct kim_session_params kim_session_params;

// ------------------------------------------------------------------------------------ model

typedef struct kim_model_params {
    // Called often while loading; returning false stops with KIM_ERR_CANCELLED. NULL: not called.
    bool (*progress)(void *user, uint64_t bytes_done, uint64_t bytes_total);
    void *progress_user;
    const char *mmproj; // the projector that goes with a GGUF file; NULL: the model cannot see
    const char
        *quantize; // "q8_0", "q4_0": makes the text's matrices in F32, F16 and BF16 so; NULL: no
    // A model of no file, with the shapes of a published size, the types of a quantisation, and
    // made-up weights: its speed and memory are those of the real one. "SIZE:TYPE", such as
    // "4b:q4_0" or "27b:q4_k_m"; kim_model_open names the sizes and types there are where it is
    // neither. After it "+vision": with the vision part; "+pure": no mix, all matrices of one type.
    // There is no tokenizer: ids go in and logits come out. NULL: no
    const char *synthetic;
    // The session that will be made first: its pipelines are made while the weights are brought to
    // the device. NULL: they are made with the session
    const kim_session_params *session;
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
    uint64_t file_bytes; // of a synthetic model: what its tensors would take in a file
    uint32_t tensors;
    int32_t bos, eos, end_of_turn;
    bool vision;           // pictures can be read; the rest is 0 or -1 if not
    uint32_t image_size;   // pixels of a side that the encoder sees
    uint32_t image_patch;  // pixels of a side of a patch
    uint32_t image_tokens; // soft tokens of a tile
    uint32_t vision_layers, vision_hidden;
    int32_t start_of_image, end_of_image;
    int32_t image_token; // that stands for each soft token; maybe not below vocab
} kim_model_info;

typedef struct kim_tensor_info {
    const char *name; // valid as long as the model
    const char *type; // "Q4_K"
    uint32_t dims;
    uint64_t shape[4]; // as the file has it: shape[0] is the row length
    uint64_t bytes;    // in the file
} kim_tensor_info;

// Opens a GGUF file, or a folder as published (config.json, tokenizer.json, safetensors files), and
// puts its weights on the device.
// With gpu NULL the weights stay in the file: information, tensors, plan and tokenizer only.
//
// path: NULL: the vision part alone, of params->mmproj: pictures can be prepared and encoded; there
//       is no text. Or params->synthetic names the model, with neither path nor mmproj
KIM_API kim_err kim_model_open(kim_model **out, kim_gpu *gpu, const char *path,
                               const kim_model_params *params);
KIM_API void kim_model_destroy(kim_model **model);
KIM_API const kim_model_info *kim_model_get_info(const kim_model *model);

// index: below kim_model_info.tensors, in file order; those of an mmproj come last
KIM_API kim_err kim_model_get_tensor(const kim_model *model, uint32_t index, kim_tensor_info *out);

// Where the time of kim_model_open went. How long it took to make pipelines, meanwhile or with a
// session, is in kim_gpu_get_stats.
typedef struct kim_load_stats {
    double open_seconds;   // files mapped and read, all shapes checked, every tensor placed
    double upload_seconds; // memory taken, weights packed and brought to the device
    uint64_t upload_bytes; // that they take there
} kim_load_stats;
KIM_API void kim_model_get_load_stats(const kim_model *model, kim_load_stats *out);

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

// ---------------------------------------------------------------------------------- pictures

// Decodes a picture: PNG, JPEG, and WebP where the build has it, turned as its EXIF says.
// It belongs to no model yet.
KIM_API kim_err kim_image_open(kim_image **out, const char *path);

// name: stands for the file in errors; NULL: "the picture"
KIM_API kim_err kim_image_decode(kim_image **out, const void *bytes, size_t length,
                                 const char *name);

// channels: 3 (RGB) or 4 (the fourth is dropped)   stride: bytes from row to row; 0: width *
// channels
KIM_API kim_err kim_image_from_pixels(kim_image **out, const void *pixels, uint32_t width,
                                      uint32_t height, uint32_t channels, size_t stride);
KIM_API void kim_image_destroy(kim_image **image);

// Pan and scan: besides the whole picture the model sees crops of a long one.
typedef struct kim_pan_and_scan {
    bool on;
    uint32_t min_crop;  // pixels of the shorter side of a crop; 0: the model's (256)
    uint32_t max_crops; // 0: the model's (4)
    float ratio;        // of the sides, from which on there are crops; 0: the model's (1.2)
} kim_pan_and_scan;

typedef struct kim_image_info {
    uint32_t width, height; // as decoded
    uint32_t tiles;         // what the model sees: the picture and its crops; 0: not prepared
    uint32_t tile_size;     // pixels of a tile's side
    uint32_t tile_tokens;   // soft tokens of a tile
    bool encoded;
} kim_image_info;
KIM_API void kim_image_get_info(const kim_image *image, kim_image_info *out);

// Makes what the model's encoder sees of the picture: resized tiles. Works without a gpu.
// crops: NULL: none
KIM_API kim_err kim_image_prepare(kim_image *image, kim_model *model,
                                  const kim_pan_and_scan *crops);

// The pixels of one tile of a prepared picture: [3, tile_size, tile_size], as the encoder gets
// them.
KIM_API kim_err kim_image_get_pixels(const kim_image *image, uint32_t tile, float *pixels);
// The same as [tile_size, tile_size, 3] bytes, to look at. Valid until the image is prepared anew.
KIM_API const uint8_t *kim_image_get_rgb(const kim_image *image, uint32_t tile);

// Runs the encoder for pictures, as many tiles at once as memory allows. One that was not prepared
// for this model is, without crops. Tiles whose pixels were encoded before, in whatever picture,
// cost nothing while the model remembers them.
//
// progress: called with the layers done and the layers there are, of all tiles; false:
//           KIM_ERR_CANCELLED. NULL: not called
KIM_API kim_err kim_images_encode(kim_model *model, kim_image *const *images, uint32_t count,
                                  bool (*progress)(void *user, uint64_t done, uint64_t total),
                                  void *user);

// The soft tokens of one tile of an encoded picture: [tile_tokens, kim_model_info.hidden].
KIM_API const float *kim_image_get_soft_tokens(const kim_image *image, uint32_t tile);

// What the encoder has done since the model was opened.
typedef struct kim_vision_stats {
    uint64_t tiles, remembered; // encoded; found among those encoded before
    double seconds;             // on the device
    double operations;          // floating-point, of its products
} kim_vision_stats;
KIM_API void kim_model_get_vision_stats(const kim_model *model, kim_vision_stats *out);

// ----------------------------------------------------------------------------------- prompts

// One message of a conversation. role: "system" (first only), "user", "assistant".
//
// The last pictures stand where the text has <start_of_image>, in order; those that there are more
// of stand before the text. Other special tokens in the text are plain text.
typedef struct kim_message {
    const char *role;
    const char *text;               // zero-terminated UTF-8
    const kim_image *const *images; // [n_images] encoded
    uint32_t n_images;
} kim_message;

// The ids of a whole conversation as Gemma 3's chat template gives them, <bos> first, ending with
// the opening of the model's turn. A system text is put before the first user text. Pictures are
// laid out as the published processor does it: each soft token is kim_model_info.image_token.
// ids: free with kim_free
KIM_API kim_err kim_chat_tokens(const kim_model *model, const kim_message *messages, uint32_t count,
                                int32_t **ids, uint32_t *n_ids);

// A text with pictures, which stand as in kim_message.
typedef struct kim_text {
    const char *text; // [length] any bytes
    size_t length;
    bool special; // special tokens in the text become their ids; false: plain text
    const kim_image *const *images; // [n_images] encoded
    uint32_t n_images;
} kim_text;

// The ids of a text with pictures, <bos> first, without any template.
// ids: free with kim_free
KIM_API kim_err kim_prompt_tokens(const kim_model *model, const kim_text *text, int32_t **ids,
                                  uint32_t *n_ids);

// Tokens with the pictures among them.
typedef struct kim_prompt {
    const int32_t *tokens; // [count]
    uint32_t count;
    const kim_image *const
        *images;       // [n_images] in the order of their soft tokens; encoded for this
    uint32_t n_images; // model. A tile has tile_tokens times image_token in a row
    // Called after each batch with tokens read and tokens to read; false: KIM_ERR_CANCELLED.
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;
} kim_prompt;

KIM_API void kim_free(void *pointer);

// --------------------------------------------------------------------------------- session

// What keys and values are kept in.
typedef enum kim_kv_type {
    KIM_KV_F16 = 0,
    KIM_KV_Q8_0, // 8 bits and a scale for each 32: 56% of the memory, at a small loss
} kim_kv_type;

struct kim_session_params {
    uint32_t context; // positions; 0: the smaller of the model's and 8192
    uint32_t batch;   // prompt tokens run together; 0: 512. At least a picture's soft tokens,
                      // where the model sees: they see each other
    kim_kv_type kv_type;

    // Speculative decoding: kim_session_answer guesses some tokens ahead, and checks them in one
    // step, which reads the weights once. The tokens are those that it would draw without, with the
    // same seed; only that where two are as probable as each other up to rounding, the other one
    // may come. How many are guessed follows from how often they are right and from the time that
    // steps take; where it does not pay, there are none. The device waits for the host once for a
    // step with guesses, else never.
    kim_model *draft;     // a smaller model of the same vocabulary on the same gpu, which guesses;
                          // it must outlive the session. Text only. NULL: none
    bool lookup;          // what followed the last tokens where they stood before is a guess
    uint32_t draft_most;  // tokens guessed for a step, at most 7, and fewer than batch; 0: 7
    uint32_t draft_least; // at least so many, even if that is slower, where there are any; 0: none
};

// Memory on the device, exact to the byte.
typedef struct kim_plan {
    uint64_t weights;
    uint64_t kv_local, kv_global; // K and V of the session's layers
    uint64_t activations;         // everything else of one session
    uint64_t draft;               // of kim_session_params.draft all of these, without its weights
    uint64_t vision_weights,
        vision_activations; // of the encoder; the latter once, for all sessions
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

// The tokens read so far: [kim_session_position]; a soft token is image_token. Valid until the
// session is next changed.
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
    float next_logprob; // of the token that does follow; 0 for the last, and before a soft token
} kim_score;

// As kim_session_append, with pictures; the session shares what it needs of them, so they may be
// destroyed.
//
// scores: [count] or NULL: scores[i] is about what follows tokens[i]
// After a failure on the device, or a stop by `progress`, the tokens are as before, without logits.
KIM_API kim_err kim_session_read(kim_session *session, const kim_prompt *prompt, kim_score *scores);

// Makes the session hold just this prompt, from its first token: what it holds already of the
// beginning, the same tokens and the same pictures, is kept and the rest is read. The last token is
// always read, for its logits.
//
// reused: set to the tokens that were kept; NULL: not wanted
// After a failure on the device, or a stop by `progress`, the session holds a beginning of the
// prompt, without logits.
KIM_API kim_err kim_session_continue(kim_session *session, const kim_prompt *prompt,
                                     uint32_t *reused);

// The logits after the last token: [kim_model_info.vocab]. NULL before the first append, after a
// cut, or where a failure left none. Valid until the session is next changed.
KIM_API const float *kim_session_logits(const kim_session *session);

// Forgets all tokens from `position` on; the next append continues there.
// position: 0 .. kim_session_position, and not within a picture. Free within the last `batch`
// tokens; further back the local layers have overwritten what they need, and the kept tokens are
// read again.
KIM_API kim_err kim_session_cut(kim_session *session, uint32_t position);

// A second session with the same past; both go on independently.
KIM_API kim_err kim_session_fork(kim_session **out, const kim_session *session);

// Writes the session to a file (a temporary name, then a rename: an existing file is replaced
// whole or not at all), and reads it back into a session of the same model and type of keys and
// values, and of at least its size. A load that the device fails leaves the session empty.
KIM_API kim_err kim_session_save(const kim_session *session, const char *path);
KIM_API kim_err kim_session_load(kim_session *session, const char *path);

// Work given to the device since the session was made.
typedef struct kim_session_stats {
    uint64_t dispatches, submits, barriers;
    uint32_t decode_dispatches; // of one single-token step
    uint32_t decode_submits;
    // With drafts, else 0: steps that drew a token or several, and of the tokens that were drafted
    // how many were right.
    uint64_t answer_steps, drafted, accepted;
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

typedef struct kim_answer_token {
    int32_t id;
    float logprob; // natural, before penalty and temperature
} kim_answer_token;

typedef struct kim_answer_params {
    uint32_t most;        // tokens at most; 0: as many as the context has room for
    const int32_t *stops; // [n_stops] ids that end the answer, which are not given out, nor read;
    uint32_t n_stops;     // at most 16. NULL: those of kim_token_ends
    // Called with each token, while the device goes on; false ends the answer after it. NULL: none.
    // It must not change the session.
    bool (*token)(void *user, const kim_answer_token *token);
    void *user;
} kim_answer_params;

typedef enum kim_answer_end {
    KIM_ANSWER_STOP,    // a stop token was drawn
    KIM_ANSWER_LENGTH,  // there are as many tokens as were asked for
    KIM_ANSWER_CONTEXT, // the context is full
    KIM_ANSWER_CALLER,  // the callback said so
} kim_answer_end;

// Draws tokens from the session's logits and reads them, one after the other, as kim_sample and
// kim_session_append by turns would; but the drawing is done on the device, which never waits for
// the host. Afterwards the session has read all tokens that were given out; it has logits unless a
// stop was drawn after them.
//
// end: set to why the answer ended; NULL: not wanted
// After a failure the session holds what it held before, without logits.
KIM_API kim_err kim_session_answer(kim_session *session, kim_sampler *sampler,
                                   const kim_answer_params *params, kim_answer_end *end);

// ------------------------------------------------------------------ many sessions together

// A fixed number of sessions of one model. Requests are answered in them as they come, those that
// are being answered all in the same steps: the weights are read once for all. Each has its own
// sampling; what it answers does not depend on the others.
//
// One prompt is read at a time, in the order of the requests, in pieces between the steps. When an
// answer has ended, its session is kept until its place is needed, the one that was not used for
// longest first. A request that begins as another session does, kept or not, the same tokens and
// pictures, starts from a copy of that, or from that itself where nothing is lost by it. Where the
// other one went on for more than about `batch` tokens since, its local layers have overwritten
// what would be needed, and the prompt is read from its first token.
//
// kim_batch_add and kim_batch_cancel may be called from any thread at any time, also from the
// callbacks; all else from one thread at a time, which calls the callbacks, and not from these.
typedef struct kim_batch kim_batch;

typedef struct kim_batch_params {
    uint32_t sessions; // running and kept, at most; 0: 4, at most 64
    uint32_t context;  // positions of each; 0: as in kim_session_params
    uint32_t batch;    // prompt tokens run together while nothing is answered; as there
    uint32_t piece;    // the same while something is, between two steps; 0: as many as the device
                       // was measured to read in wait_ms, a power of two from 32 on. A picture is
                       // never parted: where it is longer, it is a piece of its own
    uint32_t wait_ms;  // how long answers wait for such a piece, about; 0: 100
    kim_kv_type kv_type;
} kim_batch_params;

// What a request came to.
typedef struct kim_request_end {
    kim_err err;        // 0: it did not fail
    const char *error;  // the sentence that goes with it; valid during the call
    kim_answer_end end; // of one that did not fail: why. KIM_ANSWER_CALLER also if it was cancelled
    uint32_t prompt_tokens, reused_tokens; // the latter: of the prompt, those of another session
    uint32_t answer_tokens;                // given out
} kim_request_end;

typedef struct kim_request {
    // At least one position of the context must be left for the answer. Tokens are copied, pictures
    // shared. `progress` returning false ends the request as a cancellation does.
    kim_prompt prompt;
    kim_sampling sampling;
    kim_answer_params answer; // its `user` is that of `ended` too
    // Called once, when it has ended, however that was; but not by kim_batch_destroy. NULL: none
    void (*ended)(void *user, const kim_request_end *end);
} kim_request;

// Takes memory on the device for all sessions at once, as kim_batch_plan says.
KIM_API kim_err kim_batch_create(kim_batch **out, kim_model *model, const kim_batch_params *params);
KIM_API void kim_batch_destroy(kim_batch **batch);

// As kim_model_plan; what is said of a session there is of all of them together.
KIM_API kim_err kim_batch_plan(const kim_model *model, const kim_gpu *gpu,
                               const kim_batch_params *params, kim_plan *out);

// Queues a request. What is wrong with it is said here, and harms no other.
//
// id: set to what kim_batch_cancel takes, before any callback of the request is called; NULL: not
//     wanted
KIM_API kim_err kim_batch_add(kim_batch *batch, const kim_request *request, uint64_t *id);

// Ends a request within the next step. False: it has ended already, or never was.
KIM_API bool kim_batch_cancel(kim_batch *batch, uint64_t id);

// One step: at most one token of each answer that runs is given out, and one piece of a prompt is
// read. The device goes on with the next step when this returns.
//
// idle: set to whether no request is left; NULL: not wanted
// After a failure all requests have ended with it, nothing is kept, and new ones may be added.
KIM_API kim_err kim_batch_step(kim_batch *batch, bool *idle);

// Steps until no request is left.
KIM_API kim_err kim_batch_run(kim_batch *batch);

typedef struct kim_batch_stats {
    uint32_t waiting, reading, answering; // requests now
    uint64_t prompt_tokens;               // read; since the batch was made, as all that follows
    uint64_t reused_tokens;               // that did not have to be
    uint64_t answer_tokens;               // given out
    uint64_t pieces, steps;               // of prompts; of answers
    uint64_t recorded; // steps that had to be recorded, since the answers were others than before
    uint64_t dispatches, submits, barriers;
    uint32_t step_dispatches, step_submits; // of the last step of answers
} kim_batch_stats;
KIM_API void kim_batch_get_stats(const kim_batch *batch, kim_batch_stats *out);

#ifdef __cplusplus
}
#endif
#endif
