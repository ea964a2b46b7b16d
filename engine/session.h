// SPDX-License-Identifier: MIT
// A session: its memory on the device, its tokens, its streams. Internal to engine/.
#ifndef KIM_SESSION_H
#define KIM_SESSION_H

#include "model.h"

#define MOST_SESSIONS 64 // decoded together
#define SCORE_ROWS 16    // rows of logits made at once when a prompt is scored

// All memory of a session, placed by session_place; nothing is allocated on the device before
// every size is known.
typedef struct session_memory {
    pool local, global;    // K and V
    pool activations;      // on the device
    pool upload, readback; // what the host writes, and reads
    kv_cache *kv;          // [layers]
    span x;                // [batch, hidden] the residual
    span h;                // [batch, hidden] after a norm
    span qkv;              // [batch, (heads + 2 kv_heads) head]
    span attended;         // [batch, heads head]
    span made;             // [batch, hidden] what attention or feed-forward made
    span gate_up;          // [batch, 2 feed_forward], only where gate and up differ in type
    span gated;            // [batch, feed_forward]
    span packed;           // [batch] columns of a product, where this device packs them
    span partial;          // of attention over split keys
    span counter;          // a word, 0 between dispatches; see op_matmul_norm
    span logits;           // [SCORE_ROWS, vocab]
    span scores;           // [batch, 4]
    span control;          // CONTROL_ROW(batch + 1, 0) words
    span history;          // [context + 1] tokens by position, for what draws the next
    span sampling;         // struct sampling_block
    span sample_scratch;   // [rows that are drawn from at once] sample_scratch_bytes
    span results;          // [SAMPLE_SLOTS, 4] tokens drawn
    span soft;             // [batch, hidden] rows of pictures; bytes 0 where the model sees none
    span logits_back;      // [vocab]
    span scores_back;      // [batch, 4]
} session_memory;

// The soft tokens of a tile, from position `first` on. They are always read in one batch.
typedef struct session_picture {
    uint32_t first;
    soft_tile *tile; // a user of it
} session_picture;

// Zero-initialised is empty.
typedef struct session_pictures {
    session_picture *list; // by position
    uint32_t count, room;
} session_pictures;

// What a recorded stream computes after the layers.
typedef enum step_output {
    STEP_NOTHING,        // a part of a prompt that goes on
    STEP_LOGITS,         // of the last token
    STEP_SCORES,         // of all tokens, and the logits of the last
    STEP_ON_DEVICE,      // logits of the last token, which the host does not read
    STEP_ROWS_ON_DEVICE, // the same of all tokens, at most SCORE_ROWS
} step_output;

// A stream and what it was recorded for.
typedef struct step_stream {
    stream *st;
    uint32_t rows;   // 0: nothing
    uint32_t scored; // tokens the control block held when scores were recorded
    step_output output;
} step_stream;

// What draws answers; see session_answer.c.
typedef struct answer_streams {
    stream *first;    // draws from the logits that the host has
    stream *steps[2]; // read a token and draw the next
    bool recorded, greedy;
} answer_streams;

struct kim_session {
    kim_model *model;
    kim_session_params params; // filled in
    uint32_t context, batch;
    session_memory memory;
    step_stream decode; // one token
    step_stream prompt; // the last shape of batch
    answer_streams answer;
    struct speculation *speculation; // NULL: no drafts
    int32_t *tokens;                 // [context]
    session_pictures pictures;
    uint32_t position;
    uint32_t written; // one beyond the highest position whose K and V were written: positions below
                      // written - rows of a ring are overwritten there
    uint32_t loaded;  // position at which the session was loaded from a file, which has one window
                      // of a ring and nothing before; 0: it was not
    bool has_logits;
};

// The defaults filled in and the ranges checked.
kim_err session_params_fill(const kim_model *m, const kim_session_params *given,
                            kim_session_params *out);

// Places all memory. gpu: NULL for no limit on a block
kim_err session_place(session_memory *mem, const kim_model *m, const kim_gpu *gpu,
                      const kim_session_params *p);
void session_memory_destroy(session_memory *mem);

// Places many sessions that share all but what is their own: K and V, control block and what draws
// tokens. Their activations are for one step at a time: of up to p->batch rows, or a row of each.
//
// shared: has the pools, and stays where it is; without K and V and all else that is one session's
// each:   [n] zeros before; set to what a session of its own would have, without the pools
kim_err session_place_many(session_memory *shared, session_memory *each, uint32_t n,
                           const kim_model *m, const kim_gpu *gpu, const kim_session_params *p);
kim_err session_memory_commit(session_memory *mem, kim_gpu *gpu);
kim_err session_memory_zero(session_memory *mem, stream *st); // with an empty stream, left so
// kv: of one session
kim_plan session_memory_plan(const session_memory *mem, const kv_cache *kv, const kim_model *model);

// Makes all pipelines that a session needs now and at once, not one by one in the middle of an
// answer; those that exist already are skipped. session.c
//
// p: filled in by session_params_fill
kim_err session_make_pipelines(const kim_model *m, const kim_session_params *p);

// Records one step of `rows` tokens into an empty stream. forward.c
//
// scored: with STEP_SCORES, the tokens the control block will hold: rows, or one more
kim_err forward_record(stream *st, const kim_model *m, const session_memory *mem, uint32_t rows,
                       step_output output, uint32_t scored);

// The same for one token each of n sessions of session_place_many. Leaves logits [n, vocab].
kim_err forward_record_each(stream *st, const kim_model *m, const session_memory *const *each,
                            uint32_t n);

// ---- pictures: session_pictures.c

kim_err session_pictures_add(session_pictures *p, uint32_t first, soft_tile *tile);
// Forgets those from `position` on.
void session_pictures_cut(session_pictures *p, uint32_t position);
void session_pictures_destroy(session_pictures *p);

// The picture that has this position; NULL: text.
const session_picture *session_pictures_at(const session_pictures *p, uint32_t position);

// Finds where each tile of the prompt's images has its soft tokens, and checks all tokens.
//
// out: empty; set to them, at the positions from `position` on
kim_err session_pictures_find(session_pictures *out, const kim_model *m, const kim_prompt *prompt,
                              uint32_t position);

// Tokens that the session holds and a prompt for position 0 begins with, pictures whole.
uint32_t session_common(const kim_session *s, const kim_prompt *prompt,
                        const session_pictures *pictures);

// Writes the control block of the rows from the session's position on, and the soft tokens.
//
// next: tokens[rows] exists: the one after the batch
void session_write_rows(const kim_session *s, const int32_t *tokens, uint32_t rows, bool next);

// Whether the rings of the local layers have all that a token at `position` sees.
bool session_rings_hold(const kim_session *s, uint32_t position);

// Checks that the session can go on from here and lets it: after a cut too far back for the rings,
// the kept tokens are read again.
kim_err session_restore_rings(kim_session *s);

// Copies the K and V that a token at `position` sees to another session of the same shape; the
// rings must hold them. Adds to the stream. session_file.c
kim_err session_copy_kv(stream *st, const kim_session *to, const kim_session *from,
                        uint32_t position);

// ---- drawing on the device: session_answer.c

// What op_sample needs of a session whose logits are those of its memory.
sample_params session_sample_of(const kim_session *s, bool greedy);

// Writes the sampling block for step 0. stops: NULL: the tokens that end an answer
void session_write_sampling(const kim_session *s, const kim_sampler *sampler, const int32_t *stops,
                            uint32_t n_stops);

// Takes what step `step` drew and has left; the steps are taken in order. The sampler moves on.
kim_err session_take_result(const kim_session *s, kim_sampler *sampler, uint32_t step,
                            kim_answer_token *out, bool *stop);

#endif
