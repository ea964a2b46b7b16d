// SPDX-License-Identifier: MIT
// kim pull: a published model, or any file, to a folder of models.
#include "download.h"
#include "pull.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static struct {
    char *what, *folder, *hub, *sha256;
    int list, json, tries;
    double wait, stall;
} options = { .tries = 5, .wait = 1, .stall = 30 };

static struct poptOption table[] = {
    { "list", 'l', POPT_ARG_NONE, &options.list, 0, "show the models there are names for", NULL },
    { "json", '\0', POPT_ARG_NONE, &options.json, 0, "show them as JSON, with their files", NULL },
    { "to", 't', POPT_ARG_STRING, &options.folder, 0,
      "the folder; without it, kimberlite/models in XDG_CACHE_HOME or ~/.cache", "FOLDER" },
    { "sha256", '\0', POPT_ARG_STRING, &options.sha256, 0,
      "with a URL: the checksum the file must have", "HEX" },
    { "hub", '\0', POPT_ARG_STRING, &options.hub, 0,
      "where named models are (https://huggingface.co)", "URL" },
    { "tries", '\0', POPT_ARG_INT, &options.tries, 0, "give up after so many failures in a row (5)",
      "N" },
    { "wait", '\0', POPT_ARG_DOUBLE, &options.wait, 0,
      "seconds before the second try, doubled for each further one (1)", "S" },
    { "stall", '\0', POPT_ARG_DOUBLE, &options.stall, 0,
      "seconds without a byte after which a connection is given up (30)", "S" },
    POPT_TABLEEND,
};

static const char notes[] =
    "Environment:\n"
    "  HF_TOKEN               your token, sent to the hub only; gated models need one: accept\n"
    "                         their terms on their page, then make a token in your settings\n"
    "  http_proxy, https_proxy, no_proxy\n"
    "                         as curl reads them\n\n"
    "What was fetched before it stopped stays in FILE.part; the same command goes on from there.\n"
    "A file that is there is checked, and not fetched again.\n";

static char *join(const char *a, const char *b, const char *c)
{
    strbuf text = { 0 };
    strbuf_add(&text, a, strlen(a));
    strbuf_add(&text, b, strlen(b));
    strbuf_add(&text, c, strlen(c));
    return text.data;
}

// -------------------------------------------------------------------------------- the table

static char *file_url(const pull_model *m, const pull_file *f)
{
    char *repository = join(options.hub, "/", m->repository);
    char *revision = join(repository, "/resolve/", m->revision ? m->revision : "main");
    char *url = join(revision, "/", f->path);
    free(repository);
    free(revision);
    return url;
}

static void add_file(cJSON *files, const pull_model *m, const pull_file *f, const char *role)
{
    if (!f->path)
        return;
    cJSON *object = cJSON_CreateObject();
    char *url = file_url(m, f);
    cJSON_AddStringToObject(object, "role", role);
    cJSON_AddStringToObject(object, "file", f->save_as ? f->save_as : f->path);
    cJSON_AddStringToObject(object, "url", url);
    if (f->size)
        cJSON_AddNumberToObject(object, "bytes", (double)f->size);
    if (f->sha256)
        cJSON_AddStringToObject(object, "sha256", f->sha256);
    cJSON_AddItemToArray(files, object);
    free(url);
}

static int list_json(void)
{
    cJSON *json = checked(cJSON_CreateArray());
    for (int i = 0; i < n_pull_models; i++) {
        const pull_model *m = &pull_models[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "name", m->name);
        cJSON_AddStringToObject(object, "repository", m->repository);
        cJSON_AddBoolToObject(object, "gated", m->gated);
        cJSON_AddBoolToObject(object, "pictures", m->projector.path != NULL);
        cJSON *files = cJSON_AddArrayToObject(object, "files");
        add_file(files, m, &m->text, "text");
        add_file(files, m, &m->projector, "projector");
        cJSON_AddItemToArray(json, object);
    }
    return print_json(json);
}

static const char *size_text(const pull_file *f, char buffer[32])
{
    if (!f->path)
        return "-";
    return f->size ? format_bytes(f->size, buffer) : "?";
}

static int list_models(void)
{
    char text[32], projector[32];
    printf("%-23s %-10s %-10s %s\n", "name", "text", "projector", "repository");
    for (int i = 0; i < n_pull_models; i++) {
        const pull_model *m = &pull_models[i];
        printf("%-23s %-10s %-10s %s%s\n", m->name, size_text(&m->text, text),
               size_text(&m->projector, projector), m->repository,
               m->gated ? " (needs a token)" : "");
    }
    puts("\nA model with a projector sees pictures. `kim pull NAME` fetches one, `kim pull URL` "
         "any file;\n`kim pull --help` tells where to, and what a token is.");
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}

// --------------------------------------------------------------------------------- fetching

static void stop(int number)
{
    (void)number;
    interrupts++;
}

static char *default_folder(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache == '/') // the specification has relative ones ignored
        return join(cache, "", "/kimberlite/models");
    if (home && *home == '/')
        return join(home, "/.cache", "/kimberlite/models");
    fail_usage("there is no HOME: name a folder with --to FOLDER");
    return NULL;
}

static int make_folder(const char *folder)
{
    char *path = checked(strdup(folder));
    int code = 0;
    for (char *at = path + 1; !code; at++) {
        char end = *at;
        if (end && end != '/')
            continue;
        *at = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            code = errno;
        *at = end;
        if (!end)
            break;
    }
    free(path);
    struct stat info;
    if (!code && (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)))
        code = ENOTDIR;
    return code ? fail("the folder %s could not be made: %s", folder, strerror(code)) : STATUS_OK;
}

// Scheme, host and port.
static size_t origin_length(const char *url)
{
    const char *host = strstr(url, "://");
    return host ? (size_t)(host + 3 - url) + strcspn(host + 3, "/?#") : 0;
}

// The token, if `url` is at the hub. Returns false with the sentence printed when it is unusable.
static bool choose_token(const char *url, const char **token)
{
    const char *value = getenv("HF_TOKEN");
    size_t origin = origin_length(options.hub);
    *token = NULL;
    if (!value || !*value || origin != origin_length(url) ||
        strncasecmp(url, options.hub, origin) != 0)
        return true;
    for (const char *at = value; *at; at++) {
        if (*at <= ' ' || *at > '~') {
            fail("HF_TOKEN holds a character that no token has: is there a space or a line end?");
            return false;
        }
    }
    *token = value;
    return true;
}

// Leaves the path of the file, to be freed.
static int fetch(const char *folder, const char *name, download d, char **path)
{
    *path = join(folder, "/", name);
    d.path = *path;
    d.name = name;
    d.tries = options.tries;
    d.wait = options.wait;
    d.stall = options.stall;
    return choose_token(d.url, &d.token) ? download_file(&d) : STATUS_FAILED;
}

static int fetch_listed(const char *folder, const pull_model *m, const pull_file *f, char **path)
{
    char *url = file_url(m, f);
    int status = fetch(folder, f->save_as ? f->save_as : f->path,
                       (download){ .url = url, .size = f->size, .sha256 = f->sha256 }, path);
    free(url);
    return status;
}

// In quotes where the shell would take it for something else.
static void print_word(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "/._-+,:@%";
    if (word[strspn(word, plain)] == '\0') {
        fputs(word, stdout);
        return;
    }
    putchar('\'');
    for (; *word; word++) {
        if (*word == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*word);
    }
    putchar('\'');
}

static int print_command(const char *model, const char *projector)
{
    fputs("\nkim chat -m ", stdout);
    print_word(model);
    if (projector) {
        fputs(" --mmproj ", stdout);
        print_word(projector);
    }
    putchar('\n');
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}

static int pull_named(const char *folder, const pull_model *m)
{
    char *model = NULL, *projector = NULL;
    int status = fetch_listed(folder, m, &m->text, &model);
    if (status == STATUS_OK && m->projector.path)
        status = fetch_listed(folder, m, &m->projector, &projector);
    if (status == STATUS_OK)
        status = print_command(model, projector);
    free(model);
    free(projector);
    return status;
}

// The last part of the path of a URL, without escapes. NULL, with the sentence printed.
static char *name_of_url(const char *url)
{
    char *scheme = NULL, *path = NULL, *name = NULL;
    CURLU *parts = checked(curl_url());
    if (curl_url_set(parts, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_PATH, &path, CURLU_URLDECODE) != CURLUE_OK) {
        fail_usage("\"%s\" is no address of a file", url);
    } else if (strcasecmp(scheme, "https") != 0 && strcasecmp(scheme, "http") != 0) {
        fail_usage("%s: addresses are not fetched, only https: and http:", scheme);
    } else {
        const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
        if (*last && *last != '.' && strlen(last) < NAME_MAX - 16)
            name = checked(strdup(last));
        else
            fail_usage("%s does not end with the name of a file", url);
    }
    curl_free(scheme);
    curl_free(path);
    curl_url_cleanup(parts);
    return name;
}

static int pull_url(const char *folder, const char *name, const char *url)
{
    char *path = NULL;
    int status = fetch(folder, name, (download){ .url = url, .sha256 = options.sha256 }, &path);
    if (status == STATUS_OK) {
        bool projector = strncasecmp(name, "mmproj", 6) == 0;
        status = projector ? print_command("MODEL", path) : print_command(path, NULL);
    }
    free(path);
    return status;
}

static const pull_model *find_model(const char *name)
{
    for (int i = 0; i < n_pull_models; i++) {
        if (strcasecmp(name, pull_models[i].name) == 0)
            return &pull_models[i];
    }
    fail_usage("there is no model \"%s\"; `kim pull --list` shows those there are", name);
    return NULL;
}

static int check_options(void)
{
    static char hub[] = "https://huggingface.co";
    if (!options.hub)
        options.hub = hub;
    size_t length = strlen(options.hub);
    if (length && options.hub[length - 1] == '/')
        options.hub[length - 1] = '\0';
    if (strncasecmp(options.hub, "https://", 8) != 0 && strncasecmp(options.hub, "http://", 7) != 0)
        return fail_usage("--hub is \"%s\"; it must begin with https: or http:", options.hub);
    for (char *at = options.sha256; at && *at; at++)
        *at |= ('A' <= *at && *at <= 'Z') ? 'a' - 'A' : 0;
    if (options.sha256 &&
        (strlen(options.sha256) != 64 || strspn(options.sha256, "0123456789abcdef") != 64))
        return fail_usage("--sha256 is \"%s\"; it must be 64 hexadecimal digits", options.sha256);
    if (!option_in_range("--tries", options.tries, 1, 1000) ||
        !option_in_range("--wait", options.wait, 0, 3600) ||
        !option_in_range("--stall", options.stall, 0.1, 3600))
        return STATUS_USAGE;
    return STATUS_OK;
}

static int pull(const char *what)
{
    bool is_url = strchr(what, ':') != NULL;
    const pull_model *model = is_url ? NULL : find_model(what);
    char *name = is_url ? name_of_url(what) : NULL;
    if (!model && !name)
        return STATUS_USAGE;
    if (options.sha256 && !is_url) {
        free(name);
        return fail_usage("--sha256 goes with a URL; %s has checksums of its own", what);
    }
    char *folder = options.folder ? join(options.folder, "", "") : default_folder();
    int status = folder ? make_folder(folder) : STATUS_USAGE;
    struct sigaction on_interrupt = { .sa_handler = stop, .sa_flags = (int)SA_RESETHAND };
    sigaction(SIGINT, &on_interrupt, NULL); // the second time it ends the program
    signal(SIGXFSZ, SIG_IGN);               // too long a file is seen as an error of writing
    if (status == STATUS_OK)
        status = is_url ? pull_url(folder, name, what) : pull_named(folder, model);
    free(folder);
    free(name);
    return status;
}

int command_pull(int argc, const char **argv)
{
    int status = arguments_parse(
        &(arguments){
            .command = "kim pull",
            .synopsis = "NAME | URL | --list [OPTION...]",
            .purpose =
                "Fetches a published model and its projector by name, or one file by its URL,\n"
                "checks what came, and prints the command that talks with it.",
            .notes = notes,
            .options = table,
            .operand = (const char **)&options.what,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    status = check_options();
    if (status != STATUS_OK)
        return status;
    if (options.what && (options.list || options.json))
        return fail_usage("the list is of all models: kim pull takes --list or --json alone");
    if (options.json)
        return list_json();
    return options.what ? pull(options.what) : list_models();
}
