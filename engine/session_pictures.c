// SPDX-License-Identifier: MIT
// Pictures among the tokens of a session: where they are, and what the device is told of them.
#include "session.h"

#include "host/error.h"

#include <stdlib.h>
#include <string.h>

kim_err session_pictures_add(session_pictures *p, uint32_t first, soft_tile *tile)
{
    kim_err err = KIM_OK;
    if (p->count == p->room) {
        const uint32_t room = 2 * p->room + 4;
        session_picture *list = realloc(p->list, room * sizeof *list);
        REQUIRE_MEMORY(list);
        p->list = list;
        p->room = room;
    }
    p->list[p->count++] = (session_picture){ first, soft_tile_share(tile) };
error:
    return err;
}

void session_pictures_cut(session_pictures *p, uint32_t position)
{
    while (p->count && p->list[p->count - 1].first >= position)
        soft_tile_release(&p->list[--p->count].tile);
}

void session_pictures_destroy(session_pictures *p)
{
    session_pictures_cut(p, 0);
    free(p->list);
    *p = (session_pictures){ 0 };
}

const session_picture *session_pictures_at(const session_pictures *p, uint32_t position)
{
    uint32_t low = 0, high = p->count; // the first that begins after `position`
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (p->list[middle].first > position)
            high = middle;
        else
            low = middle + 1;
    }
    const session_picture *before = low ? &p->list[low - 1] : NULL;
    return before && position - before->first < before->tile->tokens ? before : NULL;
}

// ----------------------------------------------------------------------------------- a prompt

// The tiles of a prompt's images, one after the other.
typedef struct tile_cursor {
    const kim_prompt *prompt;
    uint32_t image, tile;
} tile_cursor;

static soft_tile *next_tile(tile_cursor *c)
{
    while (c->image < c->prompt->n_images) {
        const kim_image *image = c->prompt->images[c->image];
        if (c->tile < image->tiles.count)
            return image->soft[c->tile++];
        c->image++;
        c->tile = 0;
    }
    return NULL;
}

static uint32_t run_length(const kim_prompt *p, uint32_t first, int32_t id)
{
    uint32_t n = 0;
    while (first + n < p->count && p->tokens[first + n] == id)
        n++;
    return n;
}

static kim_err check_prompt(const kim_model *m, const kim_prompt *p)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < p->n_images; i++)
        if (!p->images || !p->images[i] || p->images[i]->model != m || !p->images[i]->soft)
            FAIL(KIM_ERR_ARGUMENT, "picture %u of the prompt was not encoded for this model",
                 i + 1);
    for (uint32_t i = 0; i < p->count; i++)
        if ((p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= m->arch.vocab) &&
            !(m->vision && p->tokens[i] == m->info.image_token))
            FAIL(KIM_ERR_ARGUMENT, "token %u is %d; ids are 0 to %u", i, (int)p->tokens[i],
                 m->arch.vocab - 1);
error:
    return err;
}

kim_err session_pictures_find(session_pictures *out, const kim_model *m, const kim_prompt *prompt,
                              uint32_t position)
{
    kim_err err = KIM_OK;
    tile_cursor cursor = { .prompt = prompt };
    soft_tile *tile;
    TRY(check_prompt(m, prompt));
    for (uint32_t i = 0; m->vision && i < prompt->count; i++) {
        const uint32_t n = run_length(prompt, i, m->info.image_token);
        if (!n)
            continue;
        tile = next_tile(&cursor);
        if (!tile)
            FAIL(KIM_ERR_ARGUMENT, "token %u is a soft token, and no picture is left for it", i);
        if (n != tile->tokens)
            FAIL(KIM_ERR_ARGUMENT,
                 "there are %u soft tokens in a row from token %u on; a picture of this model has "
                 "%u, and something else between it and the next",
                 n, i, tile->tokens);
        TRY(session_pictures_add(out, position + i, tile));
        i += n - 1;
    }
    tile = next_tile(&cursor);
    if (tile)
        FAIL(KIM_ERR_ARGUMENT,
             "the prompt has soft tokens for %u pictures and crops, and more of "
             "them were given",
             out->count);
    return KIM_OK;
error:
    session_pictures_destroy(out);
    return err;
}

uint32_t session_common(const kim_session *s, const kim_prompt *prompt,
                        const session_pictures *pictures)
{
    uint32_t same = 0;
    while (same < s->position && same + 1 < prompt->count &&
           s->tokens[same] == prompt->tokens[same]) {
        const session_picture *have = session_pictures_at(&s->pictures, same);
        const session_picture *want = session_pictures_at(pictures, same);
        const bool equal =
            have && want ? have->first == want->first && soft_tile_equal(have->tile, want->tile)
                         : !have && !want;
        const uint32_t end = want ? want->first + want->tile->tokens : same + 1;
        if (!equal || end > s->position || end >= prompt->count)
            break;
        same = end;
    }
    return same;
}

// -------------------------------------------------------------------------------- the device

void session_write_rows(const kim_session *s, const int32_t *tokens, uint32_t rows, bool next)
{
    uint32_t *control = span_map(&s->memory.control);
    uint8_t *soft = s->memory.soft.bytes ? span_map(&s->memory.soft) : NULL;
    const size_t row_bytes = s->model->arch.hidden * sizeof(float);
    control[CONTROL_POSITION] = s->position;
    for (uint32_t r = 0; r < rows + next; r++) {
        const uint32_t position = s->position + r;
        const session_picture *p = session_pictures_at(&s->pictures, position);
        const uint32_t at = p ? position - p->first : 0;
        control[CONTROL_ROW(r, CONTROL_ROW_TOKEN)] = p ? CONTROL_SOFT : (uint32_t)tokens[r];
        control[CONTROL_ROW(r, CONTROL_ROW_AHEAD)] = p ? p->tile->tokens - 1 - at : 0;
        if (p && r < rows)
            memcpy(soft + r * row_bytes, (const uint8_t *)p->tile->rows + at * row_bytes,
                   row_bytes);
    }
}
