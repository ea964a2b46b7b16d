// SPDX-License-Identifier: MIT
// kim chat: a conversation in the terminal, or one answer for a script.
#include "conversation.h"
#include "input.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { OPEN_LIMIT = 256 }; // a text that is continued seldom ends by itself

static struct {
    char *prompt, *system, *mode;
    int interactive, quiet, stats, limit;
    int greedy, top_k;
    float temperature, top_p, min_p, repeat_penalty;
    long long seed;
} options = { .temperature = 1, .top_k = 64, .top_p = 0.95f, .repeat_penalty = 1 };

static struct poptOption table[] = {
    INCLUDE_OPTIONS(model_options, NULL),
    INCLUDE_OPTIONS(picture_options, NULL),
    { "prompt", 'p', POPT_ARG_STRING, &options.prompt, 0,
      "answer this and end; with -i: answer this first", "TEXT" },
    { "interactive", 'i', POPT_ARG_NONE, &options.interactive, 0,
      "stdin is lines typed one by one, also when it is no terminal", NULL },
    { "mode", '\0', POPT_ARG_STRING, &options.mode, 0,
      "template: turns of a conversation; continue: plain text that the model continues", "MODE" },
    { "system", '\0', POPT_ARG_STRING, &options.system, 0, "what the model is told beforehand",
      "TEXT" },
    { "predict", 'n', POPT_ARG_INT, &options.limit, 0,
      "at most N tokens an answer (0: until it ends; 256 where a text is continued)", "N" },
    { "quiet", 'q', POPT_ARG_NONE, &options.quiet, 0,
      "no greeting and no figures, only errors, on stderr", NULL },
    { "stats", '\0', POPT_ARG_NONE, &options.stats, 0, "at the end, what /stats shows", NULL },
    { "greedy", '\0', POPT_ARG_NONE, &options.greedy, 0, "always the most probable token", NULL },
    { "temp", '\0', POPT_ARG_FLOAT, &options.temperature, 0, "temperature (1; 0: greedy)", "T" },
    { "top-k", '\0', POPT_ARG_INT, &options.top_k, 0, "of the K most probable (64; 0: all)", "K" },
    { "top-p", '\0', POPT_ARG_FLOAT, &options.top_p, 0,
      "of the most probable that make up P (0.95)", "P" },
    { "min-p", '\0', POPT_ARG_FLOAT, &options.min_p, 0,
      "of those with at least P times the highest probability (0: off)", "P" },
    { "repeat-penalty", '\0', POPT_ARG_FLOAT, &options.repeat_penalty, 0,
      "make the last 64 tokens less probable (1: off)", "R" },
    { "seed", '\0', POPT_ARG_LONGLONG, &options.seed, 0, "the same answers each time (0: not)",
      "N" },
    INCLUDE_OPTIONS(session_options, NULL),
    INCLUDE_OPTIONS(draft_options, NULL),
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

// What the last answer took.
typedef struct turn {
    uint32_t prompt_tokens, answer_tokens; // computed for it
    uint64_t drafted, accepted;
    double picture_seconds, prompt_seconds, answer_seconds;
} turn;

typedef struct chat {
    opened o;
    kim_sampler *sampler;
    conversation talk;
    strbuf pending; // of /read: goes before the next message
    pictures seen;  // of /image: go with the next message
    turn last;
    int status; // of what failed last
    bool ended, lost;
} chat;

static void note(const char *format, ...) KIM_PRINTF(1, 2);

static void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(style_dim(stderr), stderr);
    vfprintf(stderr, format, args);
    fprintf(stderr, "%s\n", style_end(stderr));
    va_end(args);
}

static void library_failed(chat *c, kim_err err)
{
    c->status = fail_library();
    if (err == KIM_ERR_DEVICE_LOST)
        c->ended = c->lost = true; // with all that was on it
}

// Once stops the answer; a second time, or where nothing can be stopped, ends.
static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (++interrupts > 1) {
        (void)!write(STDERR_FILENO, "\n", 1);
        _exit(STATUS_FAILED);
    }
}

// -------------------------------------------------------------------------------- an answer

static bool go_on(void *user, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
    return interrupts == 0;
}

// Looks at the pictures that are new, and reads what the session has not read yet. Ctrl-C ends
// both.
static kim_err read_prompt(chat *c, uint32_t *too_many)
{
    int32_t *ids = NULL;
    kim_prompt prompt = { .progress = go_on };
    kim_image **images = conversation_images(&c->talk, &prompt.n_images);
    uint32_t reused = 0;
    kim_err err = pictures_encode(images, prompt.n_images, c->o.model, &c->last.picture_seconds);
    if (!err)
        err = conversation_tokens(&c->talk, c->o.model, &ids, &prompt.count);
    const uint32_t room = kim_session_context(c->o.session);
    if (!err && prompt.count >= room) {
        *too_many = prompt.count - room + 1;
        err = KIM_ERR_CONTEXT_FULL;
    }
    if (!err) {
        const double start = now_seconds();
        prompt.tokens = ids;
        prompt.images = (const kim_image *const *)images;
        err = kim_session_continue(c->o.session, &prompt, &reused);
        c->last.prompt_tokens = prompt.count - reused;
        c->last.prompt_seconds = now_seconds() - start;
    }
    kim_free(ids);
    free(images);
    return err;
}

// False, with the sentence printed, when the session does not hold all of it.
static bool read_conversation(chat *c)
{
    uint32_t too_many = 0, room = kim_session_context(c->o.session);
    kim_err err = read_prompt(c, &too_many);
    if (too_many)
        c->status = fail("with this message there are %u tokens, %u more than a context of %u "
                         "positions has room for; shorten it (/image alone takes pictures "
                         "back), begin anew, or start with a larger --context",
                         room + too_many - 1, too_many, room);
    else if (err && err != KIM_ERR_CANCELLED)
        library_failed(c, err);
    return !err && !interrupts;
}

// What a model writes must not steer the terminal: control characters other than tabs and line
// breaks are shown as U+FFFD there.
static void print_answer(const char *valid, size_t length)
{
    bool terminal = isatty(STDOUT_FILENO);
    for (size_t i = 0; i < length; i++) {
        unsigned char b = (unsigned char)valid[i];
        bool c1 = b == 0xc2 && i + 1 < length && (unsigned char)valid[i + 1] < 0xa0;
        bool control = (b < 0x20 && b != '\n' && b != '\t') || b == 0x7f;
        if (terminal && (c1 || control)) {
            fputs("\ufffd", stdout);
            i += c1;
        } else {
            putchar(b);
        }
    }
}

static bool print_token(chat *c, int32_t id, kim_utf8 *state, strbuf *answer)
{
    size_t length;
    const char *bytes = kim_token_bytes(c->o.model, id, false, &length);
    if (!length)
        return true;
    char *valid = checked(malloc(3 * (length + 4)));
    size_t n = kim_utf8_feed(state, bytes, length, valid);
    print_answer(valid, n);
    strbuf_add(answer, valid, n);
    free(valid);
    return output_flush();
}

typedef struct printing {
    chat *c;
    strbuf *answer;
    kim_utf8 state;
} printing;

static bool take_token(void *user, const kim_answer_token *token)
{
    printing *p = user;
    p->c->last.answer_tokens++;
    if (!print_token(p->c, token->id, &p->state, p->answer))
        p->c->ended = true; // nobody reads on
    return !p->c->ended && !interrupts;
}

static kim_err generate(chat *c, strbuf *answer)
{
    bool may_not_end = c->talk.mode == MODE_CONTINUE || !kim_model_get_info(c->o.model)->chat;
    printing p = { .c = c, .answer = answer };
    kim_answer_params params = {
        .most = options.limit ? (uint32_t)options.limit
                : may_not_end ? OPEN_LIMIT
                              : 0,
        .token = take_token,
        .user = &p,
    };
    kim_answer_end end = KIM_ANSWER_CALLER;
    char rest[3 * 4];
    kim_session_stats before, after;
    kim_session_get_stats(c->o.session, &before);
    double start = now_seconds();
    kim_err err = interrupts ? KIM_OK : kim_session_answer(c->o.session, c->sampler, &params, &end);
    if (!err && end == KIM_ANSWER_CONTEXT)
        note("\nthe context of %u positions is full: the answer stops here; begin anew, or start "
             "with a larger --context",
             kim_session_context(c->o.session));
    size_t n = kim_utf8_feed(&p.state, NULL, 0, rest);
    print_answer(rest, n);
    strbuf_add(answer, rest, n);
    c->last.answer_seconds = now_seconds() - start;
    kim_session_get_stats(c->o.session, &after);
    c->last.drafted = after.drafted - before.drafted;
    c->last.accepted = after.accepted - before.accepted;
    return err;
}

static double rate(uint32_t tokens, double seconds)
{
    return seconds > 0 ? tokens / seconds : 0;
}

// Answers the conversation as it stands and adds the answer to it. False: nothing was added.
static bool answer(chat *c)
{
    strbuf text = { 0 };
    strbuf_add(&text, "", 0);
    c->last = (turn){ 0 };
    interrupts = 0;
    if (!read_conversation(c)) {
        if (interrupts)
            note("stopped");
        strbuf_free(&text);
        return false;
    }
    kim_err err = generate(c, &text);
    // where Ctrl-C is shown, it stands on the line
    bool on_line = !text.length || text.data[text.length - 1] != '\n';
    if (on_line || (interrupts && isatty(STDOUT_FILENO)))
        putchar('\n');
    if (!output_flush())
        c->ended = true;
    if (err)
        library_failed(c, err);
    char pictures_text[40] = "", drafts_text[60] = "";
    if (c->last.picture_seconds > 0)
        snprintf(pictures_text, sizeof pictures_text, "picture %.1f s | ", c->last.picture_seconds);
    if (c->last.drafted)
        snprintf(drafts_text, sizeof drafts_text, " | %.0f%% of %llu drafts right",
                 100.0 * (double)c->last.accepted / (double)c->last.drafted,
                 (unsigned long long)c->last.drafted);
    if (!options.quiet)
        note("[ %sprompt %.1f tok/s | answer %.1f tok/s%s | context %u/%u ]", pictures_text,
             rate(c->last.prompt_tokens, c->last.prompt_seconds),
             rate(c->last.answer_tokens, c->last.answer_seconds), drafts_text,
             kim_session_position(c->o.session), kim_session_context(c->o.session));
    conversation_add(&c->talk, true, text.data, NULL);
    strbuf_free(&text);
    return true;
}

// Adds a message of the user and answers it. What cannot be answered is not kept.
static void say(chat *c, const strbuf *message)
{
    if (strlen(message->data) != message->length) {
        c->status = fail("the message has a zero byte: it is no text");
        return;
    }
    bool empty = !message->length && !c->pending.length && !c->seen.count;
    if (empty && (c->talk.mode == MODE_TEMPLATE || !c->talk.count))
        return;
    if (!empty) {
        strbuf whole = { 0 };
        strbuf_add(&whole, c->pending.data ? c->pending.data : "", c->pending.length);
        strbuf_add(&whole, message->data, message->length);
        conversation_add(&c->talk, false, whole.data, &c->seen);
        strbuf_free(&whole);
    }
    if (answer(c)) {
        strbuf_free(&c->pending);
    } else if (!empty) { // its pictures go with the next one
        pictures_move(&c->seen, &c->talk.messages[c->talk.count - 1].seen);
        conversation_drop(&c->talk);
    }
}

// --------------------------------------------------------------------------------- commands

static void chat_help(chat *c, const char *argument);

static void chat_clear(chat *c, const char *argument)
{
    (void)argument;
    while (c->talk.count)
        conversation_drop(&c->talk);
    strbuf_free(&c->pending);
    pictures_free(&c->seen);
    note("a new conversation");
}

static void chat_exit(chat *c, const char *argument)
{
    (void)argument;
    c->ended = true;
}

static void chat_mode(chat *c, const char *argument)
{
    if (*argument && !conversation_mode_parse(argument, &c->talk.mode))
        c->status = fail("there is no mode \"%s\": it is template or continue", argument);
    else
        note("mode %s", conversation_mode_name(c->talk.mode));
}

static void chat_read(chat *c, const char *argument)
{
    strbuf file;
    if (!*argument) {
        c->status = fail("/read needs the name of a file");
        return;
    }
    if (!read_file(argument, &file)) {
        c->status = STATUS_FAILED;
        return;
    }
    if (strlen(file.data) != file.length) {
        c->status = fail("%s has zero bytes: it is no text", argument);
    } else {
        strbuf_add(&c->pending, file.data, file.length);
        if (c->talk.mode == MODE_TEMPLATE)
            strbuf_add(&c->pending, "\n\n", 2);
        note("%s: %zu bytes go before your next message", argument, file.length);
    }
    strbuf_free(&file);
}

static bool take_picture(chat *c, const char *path)
{
    kim_image_info info;
    if (pictures_add(&c->seen, c->o.model, path, NULL) != STATUS_OK) {
        c->status = STATUS_FAILED;
        return false;
    }
    kim_image_get_info(c->seen.list[c->seen.count - 1].image, &info);
    note("%s: %u x %u, %u tokens; goes with your next message", path, info.width, info.height,
         info.tiles * info.tile_tokens);
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

// The word at `at` as terminals write a path that is dropped on them: quoted, with backslashes, or
// as file:// with percent signs. Returns where it ends; path: free with free().
static const char *dropped_path(const char *at, char **path)
{
    static const char scheme[] = "file://";
    const char quote = *at == '\'' || *at == '"' ? *at++ : 0;
    const bool url = strncmp(at, scheme, sizeof scheme - 1) == 0;
    char *out = *path = checked(malloc(strlen(at) + 1));
    if (url)
        at += sizeof scheme - 1;
    for (; *at && (quote ? *at != quote : !isspace((unsigned char)*at)); at++) {
        if (url && *at == '%' && hex_digit(at[1]) >= 0 && hex_digit(at[2]) >= 0) {
            *out++ = (char)(hex_digit(at[1]) << 4 | hex_digit(at[2]));
            at += 2;
            continue;
        }
        if (*at == '\\' && !quote && at[1])
            at++;
        *out++ = *at;
    }
    *out = '\0';
    return at + (quote && *at == quote);
}

static void chat_image(chat *c, const char *argument)
{
    char *path = NULL;
    if (!*argument) {
        note(c->seen.count ? "no picture goes with your next message"
                           : "/image FILE shows a picture with your next message");
        pictures_free(&c->seen);
        return;
    }
    if (access(argument, F_OK) != 0) // as it is, or as a terminal writes it
        dropped_path(argument, &path);
    take_picture(c, path ? path : argument);
    free(path);
}

static void chat_regen(chat *c, const char *argument)
{
    (void)argument;
    if (!c->talk.count || !c->talk.messages[c->talk.count - 1].assistant) {
        c->status = fail("there is no answer yet to be given anew");
        return;
    }
    char *old = checked(strdup(c->talk.messages[c->talk.count - 1].text));
    conversation_drop(&c->talk);
    if (!answer(c))
        conversation_add(&c->talk, true, old, NULL);
    free(old);
}

// The conversation is what counts; its K and V, in a file beside it, only save reading it again.
static char *state_path(const char *path)
{
    strbuf name = { 0 };
    strbuf_add(&name, path, strlen(path));
    strbuf_add(&name, ".kv", 3);
    return name.data;
}

static void chat_save(chat *c, const char *argument)
{
    if (!*argument) {
        c->status = fail("/save needs the name of a file");
        return;
    }
    if (!conversation_save(&c->talk, argument)) {
        c->status = STATUS_FAILED;
        return;
    }
    char *state = state_path(argument);
    if (!can_replace(state))
        c->status = STATUS_FAILED;
    else if (kim_session_save(c->o.session, state))
        c->status = fail("%s is saved, but not what the model computed for it: %s", argument,
                         kim_error_text());
    else
        note("saved to %s, and what the model computed for it to %s", argument, state);
    free(state);
}

static void chat_load(chat *c, const char *argument)
{
    if (!*argument) {
        c->status = fail("/load needs the name of a file");
        return;
    }
    if (!conversation_load(&c->talk, c->o.model, argument)) {
        c->status = STATUS_FAILED;
        return;
    }
    strbuf_free(&c->pending);
    pictures_free(&c->seen);
    note("%s: %u messages, mode %s", argument, c->talk.count, conversation_mode_name(c->talk.mode));
    char *state = state_path(argument);
    // One of another conversation does no harm: what differs is read again.
    if (access(state, F_OK) == 0 && kim_session_load(c->o.session, state))
        note("the conversation will be read again: %s", kim_error_text());
    free(state);
}

static void chat_stats(chat *c, const char *argument)
{
    (void)argument;
    char used[32], peak[32];
    kim_session_stats stats;
    kim_session_get_stats(c->o.session, &stats);
    note("messages  %u, mode %s", c->talk.count, conversation_mode_name(c->talk.mode));
    note("context   %u of %u positions", kim_session_position(c->o.session),
         kim_session_context(c->o.session));
    note("last      prompt %u tokens in %.2f s, answer %u tokens in %.2f s", c->last.prompt_tokens,
         c->last.prompt_seconds, c->last.answer_tokens, c->last.answer_seconds);
    kim_load_stats load;
    kim_gpu_stats made;
    kim_model_get_load_stats(c->o.model, &load);
    kim_gpu_get_stats(c->o.gpu, &made);
    note("loading   files read in %.2f s, %s brought to the device in %.2f s (%.2f GB/s), %u "
         "pipelines made in %.2f s",
         load.open_seconds, format_bytes(load.upload_bytes, used), load.upload_seconds,
         (double)load.upload_bytes / load.upload_seconds * 1e-9, made.pipelines,
         made.pipeline_seconds);
    kim_vision_stats vision;
    kim_model_get_vision_stats(c->o.model, &vision);
    if (vision.tiles)
        note("pictures  %llu tiles encoded in %.2f s (%.1f GFLOP/s), %llu more were remembered",
             (unsigned long long)vision.tiles, vision.seconds,
             vision.operations / vision.seconds * 1e-9, (unsigned long long)vision.remembered);
    if (stats.drafted)
        note("drafts    %llu of %llu right; answers took %llu steps",
             (unsigned long long)stats.accepted, (unsigned long long)stats.drafted,
             (unsigned long long)stats.answer_steps);
    note("memory    %s on the device, at most %s so far",
         format_bytes(kim_gpu_memory_used(c->o.gpu), used),
         format_bytes(kim_gpu_memory_peak(c->o.gpu), peak));
    note("work      %llu dispatches, %llu submits, %llu barriers; %u dispatches and %u submits a "
         "token",
         (unsigned long long)stats.dispatches, (unsigned long long)stats.submits,
         (unsigned long long)stats.barriers, stats.decode_dispatches, stats.decode_submits);
}

static void chat_system(chat *c, const char *argument)
{
    conversation_set_system(&c->talk, argument);
    if (!*argument)
        note("no system text");
    else if (c->talk.mode == MODE_CONTINUE)
        note("set; mode continue does not use it, see /mode");
    else
        note("set");
}

static const struct {
    const char *name, *argument, *purpose;
    void (*run)(chat *c, const char *argument);
} commands[] = {
    { "clear", "", "start a new conversation", chat_clear },
    { "image", " FILE", "show a picture with your next message; alone: none", chat_image },
    { "regen", "", "give the last answer anew", chat_regen },
    { "system", " TEXT", "what the model is told beforehand; alone: nothing", chat_system },
    { "mode", " MODE", "template: turns; continue: plain text that goes on", chat_mode },
    { "read", " FILE", "put a file's text before your next message", chat_read },
    { "save", " FILE", "save the conversation", chat_save },
    { "load", " FILE", "go on with a saved conversation", chat_load },
    { "stats", "", "speed, context and memory", chat_stats },
    { "help", "", "this list", chat_help },
    { "exit", "", "end, as Ctrl-D does", chat_exit },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void chat_help(chat *c, const char *argument)
{
    (void)argument;
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "  /%s%-*s %s\n", commands[i].name, 14 - (int)strlen(commands[i].name),
                commands[i].argument, commands[i].purpose);
    fputs("  \"\"\"            begins and ends a message of several lines\n"
          "  Ctrl-C         stops the answer; pressed twice, or at the prompt, ends\n",
          stderr);
    if (c->talk.mode == MODE_CONTINUE)
        fputs("  Enter          alone: the model goes on; a text is put right behind what is "
              "there\n",
              stderr);
}

static void run_chat_command(chat *c, char *line)
{
    size_t length = strcspn(line, " \t\n");
    char *argument = line + length + strspn(line + length, " \t\n");
    size_t end = strlen(argument);
    while (end && isspace((unsigned char)argument[end - 1]))
        argument[--end] = '\0';
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strlen(commands[i].name) == length - 1 &&
            strncmp(line + 1, commands[i].name, length - 1) == 0) {
            commands[i].run(c, argument);
            return;
        }
    }
    c->status = fail("there is no command %.*s; /help lists them, and a space before it makes it "
                     "a message",
                     (int)length, line);
}

// -------------------------------------------------------------------------- dropped pictures

static bool is_picture(const char *path)
{
    static const char *const endings[] = { ".png", ".jpg", ".jpeg", ".webp" };
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return access(path, R_OK) == 0;
    return false;
}

typedef enum reply { REPLY_YES, REPLY_NO, REPLY_STOP } reply;

static reply ask(const char *path)
{
    interrupts = 0;
    fprintf(stderr, "%sshow %s as a picture? [Y/n]%s ", style_dim(stderr), path, style_end(stderr));
    fflush(stderr);
    const int first = getchar();
    for (int rest = first; rest != '\n' && rest != EOF;)
        rest = getchar();
    if (first == EOF || interrupts) {
        clearerr(stdin);
        interrupts = 0;
        fputc('\n', stderr);
        return REPLY_STOP;
    }
    return first == '\n' || first == 'y' || first == 'Y' ? REPLY_YES : REPLY_NO;
}

// Puts the place of a picture where a message that was typed at a terminal has the path of one,
// after asking. False: there is nothing to say, or the user does not want to.
static bool take_dropped_pictures(chat *c, strbuf *message)
{
    const bool looks = isatty(STDIN_FILENO) && kim_model_get_info(c->o.model)->vision &&
                       strlen(message->data) == message->length;
    strbuf whole = { 0 };
    reply r = REPLY_NO;
    bool said = false, ok = true;
    for (const char *at = message->data; looks && ok && *at;) {
        char *path;
        const char *end = dropped_path(at, &path);
        const bool picture = is_picture(path);
        r = picture ? ask(path) : REPLY_NO;
        ok = r != REPLY_STOP && (r == REPLY_NO || take_picture(c, path));
        if (r == REPLY_YES)
            strbuf_add(&whole, IMAGE_MARK, strlen(IMAGE_MARK));
        else
            strbuf_add(&whole, at, (size_t)(end - at));
        said |= r == REPLY_NO;
        const size_t space = strspn(end, " \t\n");
        strbuf_add(&whole, end, space);
        at = end + space;
        free(path);
    }
    if (looks && ok && said) {
        strbuf_free(message);
        *message = whole;
    } else {
        strbuf_free(&whole);
    }
    return ok && (!looks || said);
}

// A command begins with a word that is no path.
static bool is_command(const char *line)
{
    return line[0] == '/' && isalpha((unsigned char)line[1]) &&
           !memchr(line + 1, '/', strcspn(line + 1, " \t\n"));
}

// ------------------------------------------------------------------------------------- chat

static void print_banner(const chat *c)
{
    const kim_model_info *info = kim_model_get_info(c->o.model);
    const kim_device_info *device = kim_gpu_info(c->o.gpu);
    note("%s on %s: %s", *info->name ? info->name : info->architecture, device->name,
         device->reason);
    if (info->chat)
        return;
    if (c->talk.mode == MODE_CONTINUE)
        note("this model is pre-trained: it continues your text (/mode template: turns all the "
             "same)");
    else
        note("this model is pre-trained: it was not tuned for turns (/mode continue: continues "
             "your text)");
}

static int converse(chat *c)
{
    input *in = input_open();
    if (!options.quiet)
        note("/help lists the commands, Ctrl-D ends");
    while (!c->ended) {
        strbuf message;
        input_result result = input_read(in, &message);
        if (result != INPUT_MESSAGE)
            c->ended = true;
        else if (is_command(message.data))
            run_chat_command(c, message.data);
        else if (take_dropped_pictures(c, &message))
            say(c, &message);
        if (result == INPUT_END && isatty(STDIN_FILENO))
            fputc('\n', stderr);
        strbuf_free(&message);
    }
    input_close(&in);
    // At a terminal each failure was seen and dealt with.
    return isatty(STDIN_FILENO) && !c->lost ? STATUS_OK : c->status;
}

static int answer_once(chat *c, const strbuf *prompt)
{
    say(c, prompt);
    return interrupts ? STATUS_FAILED : c->status;
}

// The first message of a conversation as if it had been typed.
static void open_conversation(chat *c, const strbuf *prompt)
{
    for (uint32_t i = 0; i < c->seen.count; i++)
        note("picture: %s", c->seen.list[i].path);
    note("> %s", prompt->data);
    say(c, prompt);
}

static int open_sampler(chat *c)
{
    kim_sampling sampling = {
        .greedy = options.greedy || options.temperature <= 0,
        .temperature = options.temperature,
        .top_k = options.top_k ? (uint32_t)options.top_k : UINT32_MAX,
        .top_p = options.top_p,
        .min_p = options.min_p,
        .repeat_penalty = options.repeat_penalty,
        .seed = (uint64_t)options.seed,
    };
    return kim_sampler_create(&c->sampler, &sampling) ? fail_library() : STATUS_OK;
}

static int check_options(chat *c)
{
    if (!option_in_range("-n", options.limit, 0, INT_MAX) ||
        !option_in_range("--temp", (double)options.temperature, 0, 100) ||
        !option_in_range("--top-k", options.top_k, 0, INT_MAX) ||
        !option_in_range("--top-p", (double)options.top_p, 1e-6, 1) ||
        !option_in_range("--min-p", (double)options.min_p, 0, 1) ||
        !option_in_range("--repeat-penalty", (double)options.repeat_penalty, 0.01, 100) ||
        !option_in_range("--seed", (double)options.seed, 0, 0x1p63))
        return STATUS_USAGE;
    if (options.mode && !conversation_mode_parse(options.mode, &c->talk.mode))
        return fail_usage("--mode is \"%s\"; it must be template or continue", options.mode);
    if (check_picture_options() != STATUS_OK)
        return STATUS_USAGE;
    return model_path() ? STATUS_OK : STATUS_USAGE;
}

// The prompt of one answer: of -p, or all of a stdin that is no terminal. A line break at its end
// is of the shell, not of the text.
static int take_prompt(strbuf *prompt)
{
    if (options.prompt)
        strbuf_add(prompt, options.prompt, strlen(options.prompt));
    else if (!read_file("-", prompt))
        return STATUS_FAILED;
    if (prompt->length && prompt->data[prompt->length - 1] == '\n')
        prompt->data[--prompt->length] = '\0';
    return prompt->length ? STATUS_OK : fail_usage("the prompt is empty");
}

static int run_chat(chat *c, const strbuf *prompt)
{
    const kim_session_params expected = { .context = (uint32_t)given.context,
                                          .batch = (uint32_t)given.batch };
    int status = open_gpu(&c->o);
    c->o.expected = &expected;
    if (status == STATUS_OK)
        status = open_model(&c->o);
    if (status == STATUS_OK)
        status = pictures_add_given(&c->seen, c->o.model);
    if (status == STATUS_OK)
        status = open_session(&c->o, (uint32_t)given.context);
    if (status == STATUS_OK)
        status = open_sampler(c);
    if (status != STATUS_OK)
        return status;
    if (!options.mode && !kim_model_get_info(c->o.model)->chat)
        c->talk.mode = MODE_CONTINUE;
    conversation_set_system(&c->talk, options.system);
    if (interrupts) // while it all was opened
        return STATUS_FAILED;
    if (!options.quiet)
        print_banner(c);
    const bool once = !options.interactive && prompt->length;
    if (!once && prompt->length)
        open_conversation(c, prompt);
    status = once ? answer_once(c, prompt) : converse(c);
    if (options.stats)
        chat_stats(c, "");
    return status;
}

int command_chat(int argc, const char **argv)
{
    int status = arguments_parse(
        &(arguments){
            .command = "kim chat",
            .synopsis = "-m MODEL [--mmproj F] [--image F]... [-p TEXT] [OPTION...]",
            .purpose =
                "Talks with a model. With -p, or with a stdin that is no terminal, it answers\n"
                "once and ends.",
            .notes =
                "The answer goes to stdout, all else to stderr. /help lists the commands of a\n"
                "conversation.\n",
            .options = table,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    chat c = { 0 };
    strbuf prompt = { 0 };
    status = check_options(&c);
    if (status == STATUS_OK && (options.prompt || (!options.interactive && !isatty(STDIN_FILENO))))
        status = take_prompt(&prompt);
    // No SA_RESTART: Ctrl-C ends a read.
    sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_interrupt }, NULL);
    if (status == STATUS_OK)
        status = run_chat(&c, &prompt);
    kim_sampler_destroy(&c.sampler);
    conversation_free(&c.talk);
    strbuf_free(&c.pending);
    pictures_free(&c.seen);
    strbuf_free(&prompt);
    return close_all(&c.o, status);
}
