// SPDX-License-Identifier: MIT
// The vocabulary and the BPE over it.
//
// Ids equal those of the published tokenizer.json, whose list of merges is this: for every piece,
// all its splits in two pieces, ordered by the score of the whole, then the longer left half first.
// So a merge needs no list, only the whole in a hash table, and its place in the order is (score,
// characters of the left half, position). Two things keep the work small:
// - Runs of spaces are pieces of user-defined type. Their merges come before all others, which
//   comes to cutting a run from the left into the longest pieces; that is done without merging.
// - Where no piece continues from a byte b with a space, no merge crosses "b ", and the text on
// both
//   sides can be merged apart. In Gemma 3 that holds for every byte but '>'.
// Spaces and U+2581 are one symbol to BPE. It is ' ' here, which is also how ids are decoded;
// only added tokens tell the two apart, because they are looked for in the text as it is.
#include "tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "utf8.h"

#define NONE UINT32_MAX
#define MAX_PIECE UINT16_MAX // bytes; candidate.left_inverse and .bytes have 16 bits

static const char space_mark[] = "\xE2\x96\x81"; // U+2581
enum { SPACE_MARK = sizeof space_mark - 1, MAX_RUN = 255, MAX_ENDS = TOKENIZER_MOST_ENDS - 2 };

typedef enum token_kind {
    KIND_ORDINARY,
    KIND_ADDED,   // cut out of the text
    KIND_SPECIAL, // the same, and no text
    KIND_BYTE,
    KIND_UNUSED,
} token_kind;

typedef struct added_token {
    const char *text;
    uint32_t length;
    int32_t id;
} added_token;

struct tokenizer {
    uint32_t count;
    uint32_t *offsets; // [count + 1] of the texts in bytes
    char *bytes;       // decoded texts, one after the other
    uint8_t *kinds;    // [count] token_kind
    uint32_t *orders;  // [count] the score, turned so that the lowest comes first

    int32_t *table; // [table_mask + 1] ids of ordinary pieces and of runs of spaces; -1: empty
    uint32_t table_mask;
    uint32_t longest;     // bytes of the longest piece in the table
    uint32_t longest_run; // all lengths of runs of spaces from 2 to this are pieces; 1: none is
    bool goes_on[256];    // some ordinary piece has a space after this byte

    added_token *added; // [n_added] sorted by text, then by id
    uint32_t n_added;
    uint32_t added_first[257]; // where those that begin with a byte begin in `added`
    char *run_text;            // U+2581 as often as in the longest run of them

    int32_t byte_ids[256];
    tokenizer_ids ids;
    int32_t ends[MAX_ENDS]; // [n_ends] that the file names
    uint32_t n_ends;
    uint32_t draw_limit;
};

static const char *token_text(const tokenizer *t, int32_t id, uint32_t *length)
{
    *length = t->offsets[id + 1] - t->offsets[id];
    return t->bytes + t->offsets[id];
}

static bool text_is(gguf_string text, const char *other)
{
    size_t length = strlen(other);
    return text.length == length && !memcmp(text.data, other, length);
}

// ------------------------------------------------------------------------------ hash table

static uint32_t hash_text(const char *text, uint32_t length)
{
    const uint64_t factor = 0x9E3779B97F4A7C15; // 2^64 / golden ratio
    uint64_t hash = length, word;
    for (; length >= 8; length -= 8, text += 8) {
        memcpy(&word, text, 8);
        hash = (hash ^ word) * factor;
        hash ^= hash >> 29;
    }
    word = 0;
    for (uint32_t i = 0; i < length; i++)
        word = word << 8 | (unsigned char)text[i];
    hash = (hash ^ word) * factor;
    return (uint32_t)(hash >> 32);
}

static int32_t table_find(const tokenizer *t, const char *text, uint32_t length)
{
    if (length > t->longest)
        return -1;
    for (uint32_t slot = hash_text(text, length);; slot++) {
        int32_t id = t->table[slot & t->table_mask];
        if (id < 0)
            return -1;
        uint32_t found;
        const char *piece = token_text(t, id, &found);
        if (found == length && !memcmp(piece, text, length))
            return id;
    }
}

// Of two ids with one text the first is kept.
static void table_add(tokenizer *t, int32_t id)
{
    uint32_t length;
    const char *text = token_text(t, id, &length);
    if (table_find(t, text, length) >= 0)
        return;
    uint32_t slot = hash_text(text, length);
    while (t->table[slot & t->table_mask] >= 0)
        slot++;
    t->table[slot & t->table_mask] = id;
}

static bool is_spaces(const char *text, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++) {
        if (text[i] != ' ')
            return false;
    }
    return length > 0;
}

static kim_err make_table(tokenizer *t)
{
    kim_err err = KIM_OK;
    uint64_t slots = 2;
    while (slots < t->count + (uint64_t)t->count / 2)
        slots *= 2;
    t->table = malloc(slots * sizeof *t->table);
    REQUIRE_MEMORY(t->table);
    memset(t->table, 0xFF, slots * sizeof *t->table);
    t->table_mask = (uint32_t)(slots - 1);

    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t length;
        const char *text = token_text(t, (int32_t)i, &length);
        if (t->kinds[i] == KIND_ADDED ? !is_spaces(text, length) : t->kinds[i] != KIND_ORDINARY)
            continue;
        if (t->longest < length)
            t->longest = length;
        table_add(t, (int32_t)i);
        for (uint32_t k = 1; k < length && t->kinds[i] == KIND_ORDINARY; k++) {
            if (text[k] == ' ')
                t->goes_on[(unsigned char)text[k - 1]] = true;
        }
    }
    if (table_find(t, " ", 1) < 0)
        FAIL(KIM_ERR_FORMAT, "the vocabulary has no token for a space (U+2581)");

    char spaces[MAX_RUN + 1];
    memset(spaces, ' ', sizeof spaces);
    t->longest_run = 1;
    while (t->longest_run < MAX_RUN) {
        int32_t id = table_find(t, spaces, t->longest_run + 1);
        if (id < 0 || t->kinds[id] != KIND_ADDED)
            break;
        t->longest_run++;
    }
    return KIM_OK;
error:
    return err;
}

// --------------------------------------------------------------------------- added tokens

static int compare_added(const void *left, const void *right)
{
    const added_token *a = left, *b = right;
    uint32_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, shorter);
    if (order)
        return order;
    if (a->length != b->length)
        return a->length < b->length ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static kim_err make_added(tokenizer *t)
{
    kim_err err = KIM_OK;
    uint32_t n = 0, longest_run = 0, length;
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->kinds[i] != KIND_ADDED && t->kinds[i] != KIND_SPECIAL)
            continue;
        n++;
        const char *text = token_text(t, (int32_t)i, &length);
        if (is_spaces(text, length) && longest_run < length)
            longest_run = length;
    }
    t->added = malloc((n + 1) * sizeof *t->added);
    t->run_text = malloc(SPACE_MARK * (size_t)longest_run + 1);
    REQUIRE_MEMORY(t->added && t->run_text);
    for (uint32_t i = 0; i < longest_run; i++)
        memcpy(t->run_text + SPACE_MARK * (size_t)i, space_mark, SPACE_MARK);

    for (uint32_t i = 0; i < t->count; i++) {
        if (t->kinds[i] != KIND_ADDED && t->kinds[i] != KIND_SPECIAL)
            continue;
        const char *text = token_text(t, (int32_t)i, &length);
        bool run = is_spaces(text, length);
        t->added[t->n_added++] = (added_token){
            .text = run ? t->run_text : text,
            .length = run ? SPACE_MARK * length : length,
            .id = (int32_t)i,
        };
    }
    qsort(t->added, t->n_added, sizeof *t->added, compare_added);
    for (uint32_t i = 0; i < t->n_added; i++)
        t->added_first[(unsigned char)t->added[i].text[0] + 1] = i + 1;
    for (uint32_t b = 1; b <= 256; b++) {
        if (t->added_first[b] < t->added_first[b - 1])
            t->added_first[b] = t->added_first[b - 1];
    }
    return KIM_OK;
error:
    return err;
}

// The first of added[low .. high - 1] whose byte `depth` is `byte` or more. All are longer.
static uint32_t lower_bound(const tokenizer *t, uint32_t low, uint32_t high, uint32_t depth,
                            uint32_t byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((unsigned char)t->added[middle].text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The longest added token that the text begins with; NULL: none. length: at least 1
static const added_token *match_added(const tokenizer *t, const char *text, size_t length)
{
    const added_token *best = NULL;
    unsigned char byte = (unsigned char)text[0];
    uint32_t low = t->added_first[byte], high = t->added_first[byte + 1];
    for (uint32_t depth = 1; low < high; depth++) { // those in the range share `depth` bytes
        if (t->added[low].length == depth)
            best = &t->added[low];
        while (low < high && t->added[low].length == depth)
            low++;
        if (depth == length)
            break;
        byte = (unsigned char)text[depth];
        low = lower_bound(t, low, high, depth, byte);
        high = lower_bound(t, low, high, depth, byte + 1u);
    }
    return best;
}

// -------------------------------------------------------------------------------- creation

static kim_err classify(const tokenizer_params *p, uint32_t i, uint8_t *kind)
{
    static const char *const special[] = {
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
    };
    gguf_string text = p->texts[i];
    if (text.length > MAX_PIECE)
        return kim_fail(KIM_ERR_FORMAT, "token %u has %llu bytes, the most there can be is %u", i,
                        (unsigned long long)text.length, MAX_PIECE);
    if (text.length == 0 && p->types[i] != TOKEN_UNUSED)
        return kim_fail(KIM_ERR_FORMAT, "token %u is empty", i);
    if (!isfinite(p->scores[i]))
        return kim_fail(KIM_ERR_FORMAT, "token %u has a score that is not a finite number", i);

    bool looks_unused = text.length > 7 && !memcmp(text.data, "<unused", 7);
    switch (p->types[i]) {
    case TOKEN_NORMAL: *kind = KIND_ORDINARY; break;
    case TOKEN_UNKNOWN: *kind = KIND_SPECIAL; break;
    case TOKEN_CONTROL:
        *kind = looks_unused || text_is(text, "<mask>") ? KIND_ADDED : KIND_SPECIAL;
        break;
    case TOKEN_USER_DEFINED: *kind = KIND_ADDED; break;
    case TOKEN_UNUSED: *kind = KIND_UNUSED; break;
    case TOKEN_BYTE: *kind = KIND_BYTE; break;
    default:
        return kim_fail(KIM_ERR_FORMAT, "token %u has type %d, types are 1 to 6", i, p->types[i]);
    }
    for (size_t k = 0; k < sizeof special / sizeof *special; k++) {
        if (text_is(text, special[k]))
            *kind = KIND_SPECIAL;
    }
    return KIM_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

// "<0x0A>"
static kim_err add_byte(tokenizer *t, gguf_string text, uint32_t i, char *byte)
{
    int high = text.length == 6 ? hex_digit(text.data[3]) : -1;
    int low = text.length == 6 ? hex_digit(text.data[4]) : -1;
    if (high < 0 || low < 0 || memcmp(text.data, "<0x", 3) || text.data[5] != '>')
        return kim_fail(KIM_ERR_FORMAT, "token %u is of type byte, but its text is not as <0x0A>",
                        i);
    int32_t *id = &t->byte_ids[high * 16 + low];
    if (*id >= 0)
        return kim_fail(KIM_ERR_FORMAT, "tokens %d and %u are the same byte", *id, i);
    *id = (int32_t)i;
    *byte = (char)(high * 16 + low);
    return KIM_OK;
}

uint32_t tokenizer_copy_marked(char *out, const char *text, size_t length)
{
    char *o = out;
    for (size_t i = 0; i < length;) {
        if (text[i] == space_mark[0] && length - i >= SPACE_MARK &&
            !memcmp(text + i, space_mark, SPACE_MARK)) {
            *o++ = ' ';
            i += SPACE_MARK;
        } else {
            *o++ = text[i++];
        }
    }
    return (uint32_t)(o - out);
}

// A user-defined run is of U+2581 in the tokenizer, of spaces in most files.
static bool is_run(gguf_string text)
{
    for (uint64_t i = 0; i < text.length;) {
        if (text.data[i] == ' ')
            i++;
        else if (text.length - i >= SPACE_MARK && !memcmp(text.data + i, space_mark, SPACE_MARK))
            i += SPACE_MARK;
        else
            return false;
    }
    return true;
}

// Lowest first; equal for -0 and 0.
static uint32_t order_of_score(float score)
{
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

static kim_err copy_tokens(tokenizer *t, const tokenizer_params *p)
{
    kim_err err = KIM_OK;
    uint64_t total = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        TRY(classify(p, i, &t->kinds[i]));
        total += p->texts[i].length;
    }
    if (total > UINT32_MAX)
        FAIL(KIM_ERR_FORMAT, "the texts of the tokens have %llu bytes, the most there can be is %u",
             (unsigned long long)total, UINT32_MAX);
    t->bytes = malloc(total + 1);
    REQUIRE_MEMORY(t->bytes);

    uint32_t used = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        gguf_string text = p->texts[i];
        t->offsets[i] = used;
        t->orders[i] = order_of_score(p->scores[i]);
        if (t->kinds[i] == KIND_BYTE) {
            TRY(add_byte(t, text, i, t->bytes + used));
            used++;
        } else if (t->kinds[i] == KIND_ORDINARY || (t->kinds[i] == KIND_ADDED && is_run(text))) {
            used += tokenizer_copy_marked(t->bytes + used, text.data, text.length);
        } else if (text.length) {
            memcpy(t->bytes + used, text.data, text.length);
            used += (uint32_t)text.length;
        }
    }
    t->offsets[p->count] = used;
    for (int byte = 0; byte < 256; byte++) {
        if (t->byte_ids[byte] < 0)
            FAIL(KIM_ERR_FORMAT, "the vocabulary has no byte token <0x%02X>", byte);
    }
error:
    return err;
}

static int32_t find_special(const tokenizer *t, const char *text)
{
    const added_token *match = match_added(t, text, strlen(text));
    bool whole = match && match->length == strlen(text);
    return whole && t->kinds[match->id] == KIND_SPECIAL ? match->id : -1;
}

// An id that the file names. It must be no text.
static kim_err check_named(const tokenizer *t, const char *name, int32_t id)
{
    if (id >= 0 && (uint32_t)id >= t->count)
        return kim_fail(KIM_ERR_FORMAT, "%s is %d, but there are only %u tokens", name, id,
                        t->count);
    if (id >= 0 && t->kinds[id] != KIND_SPECIAL)
        return kim_fail(KIM_ERR_FORMAT, "%s is %d, which is not a special token", name, id);
    return KIM_OK;
}

kim_err tokenizer_add_end(tokenizer *t, int32_t id)
{
    kim_err err = KIM_OK;
    TRY(check_named(t, "the end-of-text token", id));
    if (t->n_ends == MAX_ENDS)
        FAIL(KIM_ERR_FORMAT, "more than %d end-of-text tokens are named", MAX_ENDS);
    t->ends[t->n_ends++] = id;
error:
    return err;
}

static kim_err find_ids(tokenizer *t, const tokenizer_params *p)
{
    kim_err err = KIM_OK;
    t->ids = (tokenizer_ids){
        .bos = find_special(t, "<bos>"),
        .eos = find_special(t, "<eos>"),
        .start_of_turn = find_special(t, "<start_of_turn>"),
        .end_of_turn = find_special(t, "<end_of_turn>"),
        .start_of_image = find_special(t, "<start_of_image>"),
        .end_of_image = find_special(t, "<end_of_image>"),
        .image_soft_token = find_special(t, "<image_soft_token>"),
    };
    TRY(check_named(t, "the beginning-of-text token", p->bos));
    if (p->eos >= 0)
        TRY(tokenizer_add_end(t, p->eos));
    if (p->bos >= 0)
        t->ids.bos = p->bos;
    if (t->ids.eos < 0) // files of chat models often name <end_of_turn>: the text goes first
        t->ids.eos = p->eos;
    if (t->ids.bos < 0)
        FAIL(KIM_ERR_FORMAT, "the vocabulary has no <bos> and no beginning-of-text token is named");
    if (t->ids.eos < 0)
        FAIL(KIM_ERR_FORMAT, "the vocabulary has no <eos> and no end-of-text token is named");

    t->draw_limit = t->count;
    while (t->draw_limit > 1 && (t->kinds[t->draw_limit - 1] == KIND_UNUSED ||
                                 (int32_t)t->draw_limit - 1 == t->ids.image_soft_token))
        t->draw_limit--;
error:
    return err;
}

kim_err tokenizer_create(tokenizer **out, const tokenizer_params *params)
{
    kim_err err = KIM_OK;
    *out = NULL;
    tokenizer *t = calloc(1, sizeof *t);
    REQUIRE_MEMORY(t);
    if (params->count == 0 || params->count > INT32_MAX / 4)
        FAIL(KIM_ERR_FORMAT, "the vocabulary has %u tokens, there must be 1 to %d", params->count,
             INT32_MAX / 4);
    t->count = params->count;
    t->offsets = malloc(((size_t)t->count + 1) * sizeof *t->offsets);
    t->kinds = malloc(t->count);
    t->orders = malloc(t->count * sizeof *t->orders);
    REQUIRE_MEMORY(t->offsets && t->kinds && t->orders);
    memset(t->byte_ids, 0xFF, sizeof t->byte_ids);
    TRY(copy_tokens(t, params));
    TRY(make_table(t));
    TRY(make_added(t));
    TRY(find_ids(t, params));
    *out = t;
    return KIM_OK;
error:
    tokenizer_destroy(&t);
    return err;
}

void tokenizer_destroy(tokenizer **t)
{
    if (!*t)
        return;
    free((*t)->offsets);
    free((*t)->bytes);
    free((*t)->kinds);
    free((*t)->orders);
    free((*t)->table);
    free((*t)->added);
    free((*t)->run_text);
    free(*t);
    *t = NULL;
}

// -------------------------------------------------------------------------------------- BPE

typedef struct symbol {
    uint32_t start, bytes; // bytes is 0 when it has been merged into one to its left
    uint32_t characters;
    uint32_t previous, next; // NONE at the ends
    int32_t id;              // -1: no piece; becomes byte tokens
} symbol;

typedef struct candidate {
    uint32_t order;        // of the piece that the merge gives
    uint16_t left_inverse; // 65535 - characters of the left symbol
    uint16_t bytes;        // of the piece
    uint32_t left;         // symbol
    int32_t id;            // of the piece
} candidate;

typedef struct workspace {
    char *text;
    symbol *symbols;
    uint32_t n_symbols, room;
    candidate *heap; // [2 * room] the next merge at 0: n - 1 pairs, and each merge makes one more
    uint32_t n_heap;
} workspace;

static kim_err make_room(workspace *w, uint32_t room)
{
    kim_err err = KIM_OK;
    if (room <= w->room)
        return KIM_OK;
    if (room < 2 * w->room)
        room = 2 * w->room;
    free(w->symbols); // between chunks: nothing is in them
    free(w->heap);
    w->room = 0;
    w->symbols = malloc(room * sizeof *w->symbols);
    w->heap = malloc(2 * (size_t)room * sizeof *w->heap);
    REQUIRE_MEMORY(w->symbols && w->heap);
    w->room = room;
error:
    return err;
}

static bool comes_before(const candidate *a, const candidate *b)
{
    if (a->order != b->order)
        return a->order < b->order;
    if (a->left_inverse != b->left_inverse)
        return a->left_inverse < b->left_inverse;
    return a->left < b->left;
}

static void heap_push(workspace *w, candidate fresh)
{
    uint32_t at = w->n_heap++;
    while (at > 0 && comes_before(&fresh, &w->heap[(at - 1) / 2])) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = fresh;
}

static candidate heap_pop(workspace *w)
{
    candidate top = w->heap[0], last = w->heap[--w->n_heap];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= w->n_heap)
            break;
        if (child + 1 < w->n_heap && comes_before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!comes_before(&w->heap[child], &last))
            break;
        w->heap[at] = w->heap[child];
        at = child;
    }
    w->heap[at] = last;
    return top;
}

static void add_symbol(const tokenizer *t, workspace *w, uint32_t start, uint32_t bytes,
                       uint32_t characters)
{
    int32_t id = characters ? table_find(t, w->text + start, bytes) : -1;
    uint32_t at = w->n_symbols++;
    w->symbols[at] = (symbol){ start, bytes, characters, at ? at - 1 : NONE, NONE, id };
    if (at)
        w->symbols[at - 1].next = at;
}

static void make_symbols(const tokenizer *t, workspace *w, uint32_t start, uint32_t end)
{
    w->n_symbols = 0;
    while (start < end) {
        size_t used;
        if (w->text[start] == ' ') {
            uint32_t run = 1;
            while (run < t->longest_run && start + run < end && w->text[start + run] == ' ')
                run++;
            used = run;
            add_symbol(t, w, start, run, run);
        } else {
            bool valid = utf8_next(w->text + start, end - start, &used) == UTF8_CHARACTER;
            add_symbol(t, w, start, (uint32_t)used, valid);
        }
        start += (uint32_t)used;
    }
}

// Puts the merge of a symbol and its right neighbour into the heap, if it gives a piece.
static void propose(const tokenizer *t, workspace *w, uint32_t left)
{
    const symbol *a = &w->symbols[left];
    if (a->next == NONE || a->id < 0 || w->symbols[a->next].id < 0)
        return;
    uint32_t bytes = a->bytes + w->symbols[a->next].bytes;
    int32_t id = table_find(t, w->text + a->start, bytes);
    if (id < 0)
        return;
    heap_push(w, (candidate){
                     .order = t->orders[id],
                     .left_inverse = (uint16_t)(UINT16_MAX - a->characters),
                     .bytes = (uint16_t)bytes,
                     .left = left,
                     .id = id,
                 });
}

// A candidate is stale when one of its symbols has changed since. Symbols only grow to the right
// or vanish, so the left one being there and the two having the piece's length means neither has.
static void merge_symbols(const tokenizer *t, workspace *w)
{
    w->n_heap = 0;
    for (uint32_t i = 0; i < w->n_symbols; i++)
        propose(t, w, i);
    while (w->n_heap) {
        candidate best = heap_pop(w);
        symbol *a = &w->symbols[best.left];
        if (a->bytes == 0 || a->next == NONE)
            continue;
        symbol *b = &w->symbols[a->next];
        if (a->bytes + b->bytes != best.bytes)
            continue;
        a->bytes = best.bytes;
        a->characters += b->characters;
        a->id = best.id;
        a->next = b->next;
        b->bytes = 0;
        if (a->next != NONE)
            w->symbols[a->next].previous = best.left;
        if (a->previous != NONE)
            propose(t, w, a->previous);
        propose(t, w, best.left);
    }
}

static kim_err encode_chunk(const tokenizer *t, workspace *w, uint32_t start, uint32_t end,
                            token_list *list)
{
    kim_err err = KIM_OK;
    TRY(make_room(w, end - start));
    make_symbols(t, w, start, end);
    merge_symbols(t, w);
    for (uint32_t i = 0; i != NONE; i = w->symbols[i].next) {
        const symbol *s = &w->symbols[i];
        if (s->id >= 0) {
            TRY(token_list_push(list, s->id));
            continue;
        }
        // The text has ' ' for U+2581, but a space is always a piece and never comes here.
        for (uint32_t k = 0; k < s->bytes; k++)
            TRY(token_list_push(list, t->byte_ids[(unsigned char)w->text[s->start + k]]));
    }
error:
    return err;
}

// Text without added tokens.
static kim_err encode_segment(const tokenizer *t, workspace *w, const char *text, size_t length,
                              token_list *list)
{
    uint32_t end = tokenizer_copy_marked(w->text, text, length), start = 0;
    for (uint32_t i = 1; i <= end; i++) {
        bool cut = i == end || (w->text[i] == ' ' && w->text[i - 1] != ' ' &&
                                !t->goes_on[(unsigned char)w->text[i - 1]]);
        if (!cut)
            continue;
        kim_err err = encode_chunk(t, w, start, i, list);
        if (err)
            return err;
        start = i;
    }
    return KIM_OK;
}

kim_err tokenizer_append(const tokenizer *t, const char *text, size_t length, bool special,
                         token_list *list)
{
    kim_err err = KIM_OK;
    workspace w = { 0 };
    if (length > INT32_MAX)
        FAIL(KIM_ERR_ARGUMENT, "the text has %llu bytes, at most %d can be tokenized at once",
             (unsigned long long)length, INT32_MAX);
    if (length == 0)
        return KIM_OK;
    w.text = malloc(length);
    REQUIRE_MEMORY(w.text);

    size_t done = 0;
    for (size_t i = 0; i < length;) {
        const added_token *match = match_added(t, text + i, length - i);
        if (!match) {
            i++;
            continue;
        }
        // as in the published tokenizer, a special token that stays text hides those within it
        if (special || t->kinds[match->id] != KIND_SPECIAL) {
            TRY(encode_segment(t, &w, text + done, i - done, list));
            TRY(token_list_push(list, match->id));
            done = i + match->length;
        }
        i += match->length;
    }
    TRY(encode_segment(t, &w, text + done, length - done, list));
error:
    free(w.text);
    free(w.symbols);
    free(w.heap);
    return err;
}

kim_err tokenizer_encode(const tokenizer *t, const char *text, size_t length, bool special,
                         int32_t **ids, uint32_t *count)
{
    token_list list = { 0 };
    *ids = NULL;
    *count = 0;
    kim_err err = tokenizer_append(t, text, length, special, &list);
    if (err) {
        free(list.ids);
        return err;
    }
    *ids = list.ids;
    *count = list.count;
    return KIM_OK;
}

kim_err token_list_push(token_list *list, int32_t id)
{
    if (list->count == list->room) {
        if (list->room > UINT32_MAX / 2)
            return kim_fail(KIM_ERR_NO_MEMORY, "a list of tokens has more than 2^31 of them");
        uint32_t room = list->room ? list->room * 2 : 64;
        int32_t *ids = realloc(list->ids, room * sizeof *ids);
        if (!ids)
            return kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
        list->ids = ids;
        list->room = room;
    }
    list->ids[list->count++] = id;
    return KIM_OK;
}

// ---------------------------------------------------------------------------------- queries

int32_t tokenizer_find(const tokenizer *t, const char *text, uint32_t length)
{
    return table_find(t, text, length);
}

bool tokenizer_is_piece(const tokenizer *t, int32_t id)
{
    return t->kinds[id] == KIND_ORDINARY;
}

const char *tokenizer_bytes(const tokenizer *t, int32_t id, bool special, size_t *length)
{
    *length = 0;
    if (id < 0 || (uint32_t)id >= t->count)
        return "";
    if (!special && (t->kinds[id] == KIND_SPECIAL || t->kinds[id] == KIND_UNUSED))
        return "";
    uint32_t n;
    const char *text = token_text(t, id, &n);
    *length = n;
    return text;
}

uint32_t tokenizer_vocab(const tokenizer *t)
{
    return t->count;
}

uint32_t tokenizer_draw_limit(const tokenizer *t)
{
    return t->draw_limit;
}

const tokenizer_ids *tokenizer_get_ids(const tokenizer *t)
{
    return &t->ids;
}

uint32_t tokenizer_list_ends(const tokenizer *t, int32_t ids[TOKENIZER_MOST_ENDS])
{
    const int32_t known[] = { t->ids.eos, t->ids.end_of_turn };
    uint32_t n = t->n_ends;
    memcpy(ids, t->ends, n * sizeof *ids);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i] >= 0)
            ids[n++] = known[i];
    return n;
}

bool tokenizer_ends(const tokenizer *t, int32_t id)
{
    int32_t ends[TOKENIZER_MOST_ENDS];
    const uint32_t n = tokenizer_list_ends(t, ends);
    for (uint32_t i = 0; i < n; i++)
        if (id == ends[i])
            return true;
    return false;
}
