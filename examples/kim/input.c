// SPDX-License-Identifier: MIT
// Where kim chat reads what the user types: a terminal with line editing and history, or a pipe.
#include "input.h"

#include <errno.h>
#include <histedit.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum {
    HISTORY_KEPT = 1000,
    HISTORY_MOST = 2000, // entries in the file before it is cut to HISTORY_KEPT
};

static const char quotes[] = "\"\"\"";

struct input {
    EditLine *edit; // NULL: plain lines
    History *history;
    char *history_path; // NULL: kept nowhere
    bool colored;
    const char *prompt; // of the line that is read now
    char *line;         // of getline
    size_t room;
};

// ---------------------------------------------------------------------------------- history

// Makes the folders above the last slash. What fails here shows when the file is opened.
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

static char *find_history_path(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    strbuf path = { 0 };
    if (cache && *cache == '/') { // the specification has relative ones ignored
        strbuf_add(&path, cache, strlen(cache));
    } else if (home && *home == '/') {
        strbuf_add(&path, home, strlen(home));
        strbuf_add(&path, "/.cache", 7);
    } else {
        return NULL;
    }
    strbuf_add(&path, "/kimberlite/chat_history", 24);
    make_folders(path.data);
    return path.data;
}

static FILE *open_history(const char *path, const char *mode)
{
    mode_t mask = umask(0077); // it is nobody else's
    FILE *file = fopen(path, mode);
    umask(mask);
    return file;
}

// Adds a line to memory and to the end of the file, where other chats may add theirs.
static void remember(input *in, const char *line)
{
    HistEvent event;
    if (history(in->history, &event, H_ENTER, line) <= 0 || !in->history_path)
        return;
    FILE *file = open_history(in->history_path, "a");
    if (!file)
        return;
    fseek(file, 0, SEEK_END); // an empty file gets its first line from libedit
    history(in->history, &event, H_NSAVE_FP, (size_t)0, file); // from the 0th on, the newest
    fclose(file);
}

// A history that cannot be read or written is no reason to stop: it is gone with the program.
static void load_history(input *in)
{
    HistEvent event;
    in->history = checked(history_init());
    history(in->history, &event, H_SETSIZE, HISTORY_KEPT);
    history(in->history, &event, H_SETUNIQUE, 1);
    in->history_path = find_history_path();
    if (!in->history_path || history(in->history, &event, H_LOAD, in->history_path) < HISTORY_MOST)
        return;
    strbuf fresh = { 0 };
    strbuf_add(&fresh, in->history_path, strlen(in->history_path));
    strbuf_add(&fresh, ".new", 4);
    FILE *file = open_history(fresh.data, "w");
    bool saved = file && history(in->history, &event, H_SAVE_FP, file) > 0;
    if (file && (fclose(file) != 0 || !saved || rename(fresh.data, in->history_path) != 0))
        unlink(fresh.data);
    strbuf_free(&fresh);
}

// --------------------------------------------------------------------------------- terminal

// One byte of the terminal. -1: Ctrl-C, 0: end, 1: read
static int read_byte(unsigned char *byte)
{
    for (;;) {
        ssize_t n = read(STDIN_FILENO, byte, 1);
        if (n >= 0)
            return (int)n;
        if (errno != EINTR || interrupts)
            return -1;
    }
}

// libedit's own reader starts anew after a signal; this one lets Ctrl-C end the line.
static int read_character(EditLine *edit, wchar_t *character)
{
    (void)edit;
    mbstate_t state = { 0 };
    for (;;) {
        unsigned char byte;
        int n = read_byte(&byte);
        if (n != 1)
            return n;
        size_t used = mbrtowc(character, (const char *)&byte, 1, &state);
        if (used == (size_t)-1) { // not UTF-8
            *character = 0xfffd;
            return 1;
        }
        if (used != (size_t)-2)
            return 1;
    }
}

// What is pasted comes between two marks and goes into the line as it is, line breaks too.
static unsigned char paste(EditLine *edit, int key)
{
    (void)key;
    static const char end[] = "\033[201~";
    strbuf text = { 0 };
    strbuf_add(&text, "", 0);
    unsigned char byte;
    while (read_byte(&byte) == 1) {
        char c = (char)(byte == '\r' ? '\n' : byte);
        strbuf_add(&text, &c, 1);
        if (text.length >= 6 && memcmp(text.data + text.length - 6, end, 6) == 0) {
            text.data[text.length - 6] = '\0';
            break;
        }
    }
    int failed = el_insertstr(edit, text.data);
    strbuf_free(&text);
    return failed ? CC_ERROR : CC_REFRESH;
}

// Plain and with colours; libedit takes what is between two \1 to have no width.
static const char *const first_prompt[] = { "> ", "\1\033[1m\1> \1\033[0m\1" };
static const char *const more_prompt[] = { ". ", "\1\033[2m\1. \1\033[0m\1" };

static char *prompt_text(EditLine *edit)
{
    void *data;
    el_get(edit, EL_CLIENTDATA, &data);
    return (char *)(uintptr_t)((input *)data)->prompt;
}

// The wide functions: the others leave copies of the strings behind.
static void bind_keys(EditLine *edit)
{
    static const wchar_t *const keys[][2] = {
        { L"\033[200~", L"kim-paste" },         { L"^R", L"em-inc-search-prev" },
        { L"\033[3~", L"ed-delete-next-char" }, { L"\033[H", L"ed-move-to-beg" },
        { L"\033[F", L"ed-move-to-end" },       { L"\033[1~", L"ed-move-to-beg" },
        { L"\033[4~", L"ed-move-to-end" },      { L"\033[1;5C", L"em-next-word" },
        { L"\033[1;5D", L"ed-prev-word" },
    };
    el_wset(edit, EL_ADDFN, L"kim-paste", L"insert what is pasted", paste);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        el_wset(edit, EL_BIND, keys[i][0], keys[i][1], NULL);
}

input *input_open(void)
{
    input *in = checked(calloc(1, sizeof *in));
    if (!isatty(STDIN_FILENO))
        return in;
    // With the answers redirected, what is typed is shown on the other stream.
    in->edit = el_init("kim", stdin, isatty(STDOUT_FILENO) ? stdout : stderr, stderr);
    if (!in->edit)
        return in;
    load_history(in);
    el_set(in->edit, EL_CLIENTDATA, in);
    el_set(in->edit, EL_PROMPT_ESC, prompt_text, '\1');
    in->colored = *style_bold(stdout) != '\0';
    el_set(in->edit, EL_EDITOR, "emacs");
    el_set(in->edit, EL_SIGNAL, 1);
    el_set(in->edit, EL_HIST, history, in->history);
    el_set(in->edit, EL_GETCFN, read_character);
    bind_keys(in->edit);
    el_source(in->edit, NULL); // the user's ~/.editrc
    return in;
}

void input_close(input **in)
{
    if (!*in)
        return;
    if ((*in)->history)
        history_end((*in)->history);
    if ((*in)->edit)
        el_end((*in)->edit);
    free((*in)->history_path);
    free((*in)->line);
    free(*in);
    *in = NULL;
}

// ------------------------------------------------------------------------------------ lines

static void set_paste_marks(bool on)
{
    int terminal = isatty(STDOUT_FILENO) ? STDOUT_FILENO : STDERR_FILENO;
    (void)!write(terminal, on ? "\033[?2004h" : "\033[?2004l", 8);
}

static input_result edit_line(input *in, const char **line, size_t *length)
{
    int n = 0;
    for (;;) {
        interrupts = 0;
        set_paste_marks(true);
        *line = el_gets(in->edit, &n);
        set_paste_marks(false);
        bool typed = el_line(in->edit)->lastchar > el_line(in->edit)->buffer;
        if (!interrupts || !typed)
            break;
        fputs("\033[J^C\n", stderr); // drops what was typed
    }
    if (interrupts)
        return INPUT_INTERRUPTED;
    if (!*line || n <= 0)
        return INPUT_END;
    if (n > 1)
        remember(in, *line);
    *length = (size_t)n;
    return INPUT_MESSAGE;
}

static input_result plain_line(input *in, const char **line, size_t *length)
{
    ssize_t n = getline(&in->line, &in->room, stdin);
    *line = in->line;
    *length = n > 0 ? (size_t)n : 0;
    return n > 0 ? INPUT_MESSAGE : interrupts ? INPUT_INTERRUPTED : INPUT_END;
}

// A line without its end, which is 0 or 1 byte long.
static input_result read_line(input *in, const char *prompt, const char **line, size_t *length)
{
    in->prompt = prompt;
    input_result result = in->edit ? edit_line(in, line, length) : plain_line(in, line, length);
    if (result == INPUT_MESSAGE && (*line)[*length - 1] == '\n')
        --*length;
    return result;
}

input_result input_read(input *in, strbuf *message)
{
    const char *line;
    size_t length;
    *message = (strbuf){ 0 };
    strbuf_add(message, "", 0);
    input_result result = read_line(in, first_prompt[in->colored], &line, &length);
    if (result != INPUT_MESSAGE)
        return result;
    if (length < 3 || memcmp(line, quotes, 3) != 0) {
        strbuf_add(message, line, length);
        return INPUT_MESSAGE;
    }
    line += 3;
    length -= 3;
    for (bool first = true;; first = false) {
        bool last = length >= 3 && memcmp(line + length - 3, quotes, 3) == 0;
        strbuf_add(message, line, last ? length - 3 : length);
        if (last)
            return INPUT_MESSAGE;
        if (!first || length) // nothing for a line that is only the opening
            strbuf_add(message, "\n", 1);
        result = read_line(in, more_prompt[in->colored], &line, &length);
        if (result != INPUT_MESSAGE)
            return result;
    }
}
