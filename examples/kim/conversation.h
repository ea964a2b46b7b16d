// SPDX-License-Identifier: MIT
// The conversation of kim chat: its messages, their tokens, and the file they are saved in.
#ifndef KIM_CONVERSATION_H
#define KIM_CONVERSATION_H

#include "pictures.h"

typedef enum conversation_mode {
    MODE_TEMPLATE, // turns, as Gemma 3's chat template has them
    MODE_CONTINUE, // one running text, which the model continues
} conversation_mode;

// Where a picture stands in a text.
#define IMAGE_MARK "<start_of_image>"

// "template", "continue"
const char *conversation_mode_name(conversation_mode mode);
bool conversation_mode_parse(const char *name, conversation_mode *mode);

typedef struct conversation_message {
    bool assistant; // else the user's
    char *text;     // has <start_of_image> for each of its pictures
    pictures seen;  // of the user's
} conversation_message;

typedef struct conversation {
    conversation_mode mode;
    char *system; // NULL: none
    conversation_message *messages;
    uint32_t count, room;
} conversation;

void conversation_free(conversation *c);

// seen: emptied, the message has them; NULL: none. Those for which the text has no <start_of_image>
// stand before it.
void conversation_add(conversation *c, bool assistant, const char *text, pictures *seen);
// Takes the last message away.
void conversation_drop(conversation *c);
// text: NULL or "": none
void conversation_set_system(conversation *c, const char *text);

// All images of it, in order, which stay its own: [*count], free the list with free().
kim_image **conversation_images(const conversation *c, uint32_t *count);

// The tokens of all of it, up to where the model goes on; all pictures must be encoded.
// ids: free with kim_free()
kim_err conversation_tokens(const conversation *c, const kim_model *model, int32_t **ids,
                            uint32_t *count);

// Each prints its sentence and returns false when it fails; a file or `c` is then as it was.
bool conversation_save(const conversation *c, const char *path);
bool conversation_load(conversation *c, kim_model *model, const char *path);

#endif
