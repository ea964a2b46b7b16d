// SPDX-License-Identifier: MIT
// A conversation to ids, as Gemma 3's chat template and the published tokenizer give them.
#ifndef KIM_CHAT_TEMPLATE_H
#define KIM_CHAT_TEMPLATE_H

#include "kimberlite.h"

// kim_chat_tokens(): <bos>, every message as a turn, the opening of the model's turn. Texts are
// trimmed as the template does, except the system's.
//
// messages: [count] one "system" at most, first; then "user" and "assistant" in turn, "user" first
// ids:      free()
// A vocabulary without <start_of_turn> and <end_of_turn> is KIM_ERR_UNSUPPORTED.
kim_err chat_tokens(const kim_model *m, const kim_message *messages, uint32_t count, int32_t **ids,
                    uint32_t *n_ids);

// kim_prompt_tokens()
kim_err prompt_tokens(const kim_model *m, const kim_text *text, int32_t **ids, uint32_t *n_ids);

#endif
