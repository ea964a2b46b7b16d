// SPDX-License-Identifier: MIT
// Text to ids and back: the SentencePiece BPE of Gemma 3, with ids equal to the published
// tokenizer's.
//
// A vocabulary has ordinary pieces, which BPE builds; 256 byte pieces for what they do not cover;
// and added tokens, which are cut out of the text before BPE sees it, the leftmost and longest
// first. Some added tokens are special: they steer the model and are no text. They are the known
// ones of Gemma 3 (<bos>, <start_of_turn>, ...) whatever type the file gives them, for published
// files have it wrong, and all others of type control. <unused0> and the like, and <mask>, are
// of type control in files but ordinary added tokens in the published tokenizer, and so here.
//
// Immutable once made: any number of threads may use one.
#ifndef KIM_TOKENIZER_H
#define KIM_TOKENIZER_H

#include "host/gguf.h"

typedef struct tokenizer tokenizer;

// tokenizer.ggml.token_type
typedef enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    TOKEN_UNUSED,
    TOKEN_BYTE,
} token_type;

typedef struct tokenizer_params {
    uint32_t count;
    const gguf_string *texts; // [count] a space is U+2581; in runs of user-defined ones also ' '
    const float *scores;      // [count] the merge with the highest comes first
    const int32_t *types;     // [count] token_type
    int32_t bos, eos;         // -1: those with the texts <bos> and <eos>
} tokenizer_params;

// Everything in `params` is checked; what is wrong is KIM_ERR_FORMAT. Nothing of it is kept.
kim_err tokenizer_create(tokenizer **out, const tokenizer_params *params);

// From the keys tokenizer.ggml.*; the gguf may be closed afterwards. Errors name the file.
kim_err tokenizer_create_from_gguf(tokenizer **out, const gguf *g);

// From a tokenizer.json, whose ids and order of merges must be those of SentencePiece.
kim_err tokenizer_create_from_json(tokenizer **out, const char *path);

void tokenizer_destroy(tokenizer **t);

// Names a further token that ends an answer. It must be special.
kim_err tokenizer_add_end(tokenizer *t, int32_t id);

// A list of ids that grows. Zero-initialised is empty; free(ids) ends it.
typedef struct token_list {
    int32_t *ids;
    uint32_t count, room;
} token_list;

kim_err token_list_push(token_list *list, int32_t id);

// Adds the ids of a text to a list, and no <bos>. After a failure the list has an unknown part of
// them.
//
// text:    [length] any bytes; those that are no UTF-8 become byte tokens; up to 2^31 - 1
// special: special tokens in the text become their ids; false: they are plain text
// Time is O(n log n).
kim_err tokenizer_append(const tokenizer *t, const char *text, size_t length, bool special,
                         token_list *list);

// As above, as a new array. ids: free(); NULL if there are none
kim_err tokenizer_encode(const tokenizer *t, const char *text, size_t length, bool special,
                         int32_t **ids, uint32_t *count);

// The bytes of one id, with spaces as ' ': not zero-terminated, maybe part of a character, valid as
// long as the tokenizer. Special tokens and unused ids have none unless `special`; an id outside
// the vocabulary has none.
const char *tokenizer_bytes(const tokenizer *t, int32_t id, bool special, size_t *length);

// Ids of the vocabulary: 0 .. vocab - 1.
uint32_t tokenizer_vocab(const tokenizer *t);

// Ids below this one may be drawn: rows that only fill the vocabulary up, and <image_soft_token>,
// which stand at its end, are not. Their logits are noise.
uint32_t tokenizer_draw_limit(const tokenizer *t);

// The special tokens that have a meaning here. -1: not in the vocabulary; bos and eos always are.
typedef struct tokenizer_ids {
    int32_t bos, eos;
    int32_t start_of_turn, end_of_turn;
    int32_t start_of_image, end_of_image, image_soft_token;
} tokenizer_ids;

const tokenizer_ids *tokenizer_get_ids(const tokenizer *t);

// The tokens that end an answer: <eos>, <end_of_turn>, and what the file names as its end. One may
// be there twice.
#define TOKENIZER_MOST_ENDS 16
uint32_t tokenizer_list_ends(const tokenizer *t, int32_t ids[TOKENIZER_MOST_ENDS]); // how many
bool tokenizer_ends(const tokenizer *t, int32_t id);

// ------------------------------------------------------------- for those who read the files

// Copies a text with U+2581 turned to ' ', which is how texts are kept here; returns the bytes
// written.
uint32_t tokenizer_copy_marked(char *out, const char *text, size_t length);

// The id that BPE has for a text that it does not split: of an ordinary piece or a run of spaces.
// -1: none.
int32_t tokenizer_find(const tokenizer *t, const char *text, uint32_t length);

bool tokenizer_is_piece(const tokenizer *t, int32_t id); // an ordinary one

#endif
