// SPDX-License-Identifier: MIT
// Where kim chat reads what the user types: a terminal with line editing and history, or a pipe.
#ifndef KIM_INPUT_H
#define KIM_INPUT_H

#include "common.h"

typedef struct input input;

typedef enum input_result {
    INPUT_MESSAGE,
    INPUT_END,         // end of file
    INPUT_INTERRUPTED, // Ctrl-C on an empty line
} input_result;

// Editing and history where stdin is a terminal, plain lines elsewhere.
input *input_open(void);
void input_close(input **in);

// Reads a line, or several between two lines of """. message: set to it, free with strbuf_free
input_result input_read(input *in, strbuf *message);

#endif
