// SPDX-License-Identifier: MIT
// One file over HTTP: FILE.part grows, is checked, and gets its name when it is whole.
#include "download.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_REDIRECTS = 10,
    MAX_RETRY_AFTER = 300,     // seconds
    ENOUGH_PROGRESS = 1 << 20, // bytes after which a cut connection is not counted as a failed try
};

typedef char hex_digest[2 * SHA256_DIGEST_SIZE + 1];

// The headers of one answer. The linked ones are of the first answer in a chain of redirects that
// has them: the hub's own, which knows the file; what stores it does not.
typedef struct answer {
    long status;
    bool redirects, over, no_repository;
    bool has_length, has_range;
    uint64_t length, range_first, range_total; // of the body; of Content-Range
    char etag[200], modified[64];
    uint64_t linked_size;
    hex_digest linked_sha256;
} answer;

// Which file FILE.part is a part of; kept in FILE.part.info, a line each.
typedef struct version {
    char identity[200];  // the same for the same bytes; "" when the server says nothing of the kind
    char validator[200]; // for If-Range; "": none that it may be used with
    uint64_t total;      // 0: not known
} version;

typedef enum outcome {
    UNDECIDED,
    COMPLETE,
    TRY_AGAIN, // with `reason`
    FAILED,    // the sentence is printed
} outcome;

typedef struct transfer {
    const download *d;
    char *host, *part, *info;
    CURL *curl;
    char detail[CURL_ERROR_SIZE];
    int file;      // of FILE.part; -1: only the headers are wanted
    uint64_t have; // bytes in it, all in `hash`
    struct sha256_ctx hash;
    version v; // of what is in it
    answer a;
    outcome outcome; // of this try, once a callback has decided it
    char reason[300];
    bool at_once;        // the next try need not wait
    bool reached;        // a server has answered before
    double heard, drawn; // when the last byte came; when the bar was drawn
    uint64_t drawn_have;
    double speed; // bytes a second
} transfer;

char *download_host(const char *url)
{
    const char *start = strstr(url, "://");
    start = start ? start + 3 : url;
    size_t length = strcspn(start, "/?#");
    const char *at = memrchr(start, '@', length); // a password before it is nobody's business
    if (at)
        length -= (size_t)(at + 1 - start);
    return checked(strndup(at ? at + 1 : start, length));
}

// The host of the connection at hand: after redirects another than the first.
static const char *host_at_hand(transfer *t)
{
    char *url = NULL;
    if (curl_easy_getinfo(t->curl, CURLINFO_EFFECTIVE_URL, &url) == CURLE_OK && url) {
        free(t->host);
        t->host = download_host(url);
    }
    return t->host;
}

static void hash_hex(const struct sha256_ctx *hash, hex_digest hex)
{
    struct sha256_ctx copy = *hash; // the digest ends a context
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(&copy, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

static void draw(transfer *t, const char *verb, uint64_t done, uint64_t total)
{
    double now = now_seconds(), seconds = now - t->drawn;
    if (seconds < 0.1 || !isatty(STDERR_FILENO))
        return;
    double speed = done > t->drawn_have ? (double)(done - t->drawn_have) / seconds : 0;
    t->speed = t->speed > 0 ? 0.9 * t->speed + 0.1 * speed : speed;
    t->drawn = now;
    t->drawn_have = done;
    char label[300], tail[80], bytes[32];
    snprintf(label, sizeof label, "%s%s", verb, t->d->name);
    int length = snprintf(tail, sizeof tail, "  %s/s", format_bytes((uint64_t)t->speed, bytes));
    double left = total && t->speed > 0 ? (double)(total - done) / t->speed : 0;
    if (left > 0 && left < 360000)
        snprintf(tail + length, sizeof tail - (size_t)length, "  %d:%02d left", (int)left / 60,
                 (int)left % 60);
    progress_draw(label, done, total, tail);
}

static void begin_drawing(transfer *t, uint64_t done)
{
    t->drawn = now_seconds();
    t->drawn_have = done;
    t->speed = 0;
}

// ------------------------------------------------------------------------------- FILE.part

static int fail_write(const transfer *t, int code)
{
    if (code == ENOSPC || code == EDQUOT || code == EFBIG)
        return fail("there is no space for more of %s: %s; what is there is kept, and the same "
                    "command goes on from it",
                    t->part, strerror(code));
    return fail("%s could not be written: %s", t->part, strerror(code));
}

// Hashes what is in `file` from its start. Returns STATUS_OK, or STATUS_FAILED with the sentence.
static int hash_file(transfer *t, int file, const char *path, uint64_t length)
{
    static uint8_t block[1 << 18];
    sha256_init(&t->hash);
    begin_drawing(t, 0);
    for (uint64_t at = 0; at < length;) {
        ssize_t n = pread(file, block, sizeof block, (off_t)at);
        if (n <= 0)
            return fail("%s could not be read: %s", path, n ? strerror(errno) : "it got shorter");
        sha256_update(&t->hash, (size_t)n, block);
        at += (uint64_t)n;
        draw(t, "checking ", at, length);
        if (interrupts)
            return fail("stopped");
    }
    progress_clear();
    return STATUS_OK;
}

static bool read_line(char **at, char *line, size_t size)
{
    size_t length = strcspn(*at, "\n");
    if (length >= size || (*at)[length] != '\n')
        return false;
    memcpy(line, *at, length);
    line[length] = '\0';
    *at += length + 1;
    return true;
}

static bool read_info(transfer *t)
{
    strbuf text;
    char total[32];
    if (access(t->info, F_OK) != 0 || !read_file(t->info, &text))
        return false;
    char *at = text.data;
    bool whole = read_line(&at, t->v.identity, sizeof t->v.identity) &&
                 read_line(&at, t->v.validator, sizeof t->v.validator) &&
                 read_line(&at, total, sizeof total) && t->v.identity[0];
    t->v.total = whole ? strtoull(total, NULL, 10) : 0;
    strbuf_free(&text);
    return whole;
}

static int write_info(const transfer *t)
{
    char text[500];
    int length = snprintf(text, sizeof text, "%s\n%s\n%llu\n", t->v.identity, t->v.validator,
                          (unsigned long long)t->v.total);
    return write_file(t->info, text, (size_t)length) ? STATUS_OK : STATUS_FAILED;
}

static int begin_anew(transfer *t)
{
    t->have = 0;
    t->v = (version){ 0 };
    sha256_init(&t->hash);
    return ftruncate(t->file, 0) == 0 ? STATUS_OK : fail_write(t, errno);
}

// Opens FILE.part, alone, and takes up what is in it.
static int open_part(transfer *t)
{
    struct stat opened_as, found;
    t->file = open(t->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (t->file < 0 || fstat(t->file, &opened_as) != 0)
        return fail("%s could not be opened: %s", t->part, strerror(errno));
    if (!S_ISREG(opened_as.st_mode))
        return fail("%s is no plain file", t->part);
    // the name is looked at again: the other one may have finished meanwhile
    if (flock(t->file, LOCK_EX | LOCK_NB) != 0 || stat(t->part, &found) != 0 ||
        found.st_ino != opened_as.st_ino)
        return fail("another kim is fetching %s to the same place", t->d->name);
    t->have = (uint64_t)opened_as.st_size;
    if (!read_info(t) || (t->v.total && t->have > t->v.total))
        return begin_anew(t);
    if (t->v.total && t->have == t->v.total) { // at least one byte can be asked for
        t->have--;
        if (ftruncate(t->file, (off_t)t->have) != 0)
            return fail_write(t, errno);
    }
    return hash_file(t, t->file, t->part, t->have);
}

static size_t take_body(char *bytes, size_t size, size_t count, void *user)
{
    transfer *t = user;
    size_t left = size * count;
    if (t->v.total && left > t->v.total - t->have) {
        fail("%s sends more of %s than the %llu bytes it should have", host_at_hand(t), t->d->name,
             (unsigned long long)t->v.total);
        t->outcome = FAILED;
        return 0;
    }
    sha256_update(&t->hash, left, (const uint8_t *)bytes);
    while (left) {
        ssize_t n = pwrite(t->file, bytes, left, (off_t)t->have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fail_write(t, errno);
            t->outcome = FAILED;
            return 0;
        }
        bytes += n;
        left -= (size_t)n;
        t->have += (uint64_t)n;
    }
    t->heard = now_seconds();
    return size * count;
}

// -------------------------------------------------------------------------------- the answer

static void copy_value(char *to, size_t size, const char *value, size_t length)
{
    snprintf(to, size, "%.*s", length < size ? (int)length : 0, value);
}

static void take_header(answer *a, const char *name, size_t name_length, const char *value,
                        size_t length)
{
    char number[64];
    unsigned long long first, last, total;
    copy_value(number, sizeof number, value, length);
#define IS(text) (name_length == sizeof(text) - 1 && strncasecmp(name, text, name_length) == 0)
    if (IS("Location")) {
        a->redirects = a->status >= 300 && a->status < 400;
    } else if (IS("ETag")) {
        copy_value(a->etag, sizeof a->etag, value, length);
    } else if (IS("Last-Modified")) {
        copy_value(a->modified, sizeof a->modified, value, length);
    } else if (IS("Content-Length") && isdigit((unsigned char)number[0])) {
        a->has_length = true;
        a->length = strtoull(number, NULL, 10);
    } else if (IS("Content-Range")) {
        a->has_range = sscanf(number, "bytes %llu-%llu/%llu", &first, &last, &total) == 3;
        a->range_first = a->has_range ? first : 0;
        a->range_total = a->has_range ? total : 0;
    } else if (IS("X-Error-Code")) {
        a->no_repository = strcmp(number, "RepoNotFound") == 0;
    } else if (IS("X-Linked-Size") && isdigit((unsigned char)number[0]) && !a->linked_size) {
        a->linked_size = strtoull(number, NULL, 10);
    } else if (IS("X-Linked-Etag") && !a->linked_sha256[0] && length == sizeof(hex_digest) + 1 &&
               strspn(value + 1, "0123456789abcdef") == length - 2) { // in quotes
        copy_value(a->linked_sha256, sizeof a->linked_sha256, value + 1, length - 2);
    }
#undef IS
}

static version version_of(const answer *a)
{
    version v = { .total = a->has_range ? a->range_total : a->has_length ? a->length : 0 };
    snprintf(v.identity, sizeof v.identity, "%s",
             a->linked_sha256[0] ? a->linked_sha256
             : a->etag[0]        ? a->etag
                                 : a->modified);
    if (a->etag[0] == '"') // a weak one, W/"...", may not be used
        memcpy(v.validator, a->etag, sizeof v.validator);
    if (!v.total)
        v.total = a->linked_size;
    return v;
}

// What the server says of the file must be what is known of it. Prints the sentence.
static bool is_as_expected(transfer *t, const version *v)
{
    const download *d = t->d;
    uint64_t size = d->size ? d->size : t->a.linked_size;
    if (d->sha256 && t->a.linked_sha256[0] && strcmp(d->sha256, t->a.linked_sha256) != 0) {
        fail("%s has another version of %s: its SHA-256 is %s, expected was %s", host_at_hand(t),
             d->name, t->a.linked_sha256, d->sha256);
        return false;
    }
    if (size && v->total && v->total != size) {
        fail("%s has %llu bytes at %s, but should have %llu", d->name, (unsigned long long)v->total,
             host_at_hand(t), (unsigned long long)size);
        return false;
    }
    return true;
}

static bool has_space(const transfer *t, uint64_t needed)
{
    struct statvfs disk;
    char needed_text[32], free_text[32];
    if (fstatvfs(t->file, &disk) != 0)
        return true; // writing will tell
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (needed <= available)
        return true;
    fail("there is no space for %s: %s are needed, %s are free where %s is", t->d->name,
         format_bytes(needed, needed_text), format_bytes(available, free_text), t->part);
    return false;
}

static outcome refuse_status(transfer *t)
{
    const char *host = host_at_hand(t), *name = t->d->name;
    long status = t->a.status;
    if (t->a.no_repository) { // said with 401
        fail("%s has no such repository, or a private one, as that of %s (HTTP %ld)", host, name,
             status);
        return FAILED;
    }
    switch (status) {
    case 401:
    case 403:
        fail(t->d->token
                 ? "%s does not let this token have %s (HTTP %ld): accept the model's terms "
                   "on its page there, with the account of the token in HF_TOKEN"
                 : "%s does not give %s to everybody (HTTP %ld): accept the model's terms on "
                   "its page there, make a token, and put it in HF_TOKEN",
             host, name, status);
        return FAILED;
    case 404:
    case 410: fail("there is no %s at %s (HTTP %ld)", name, host, status); return FAILED;
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
        snprintf(t->reason, sizeof t->reason, "%s answered HTTP %ld", host, status);
        return TRY_AGAIN;
    case 416: // the part is not a part of what is there
        snprintf(t->reason, sizeof t->reason, "%s has no more of it than %llu bytes", host,
                 (unsigned long long)t->have);
        return begin_anew(t) == STATUS_OK ? TRY_AGAIN : FAILED;
    default: fail("%s answered HTTP %ld for %s", host, status, name); return FAILED;
    }
}

// Decides by the headers whether the body that follows belongs behind what there is, or replaces
// it. Returns UNDECIDED to have the body.
static outcome judge_answer(transfer *t)
{
    const answer *a = &t->a;
    if (a->status != 200 && a->status != 206)
        return refuse_status(t);
    version v = version_of(a);
    if (!is_as_expected(t, &v))
        return FAILED;
    if (!v.total)
        v.total = t->d->size;
    if (t->file < 0) {
        t->v = v;
        return COMPLETE;
    }
    bool whole = a->status == 200;
    bool same = strcmp(v.identity, t->v.identity) == 0 && v.total == t->v.total;
    if (t->have && !same)
        snprintf(t->reason, sizeof t->reason, "%s has changed at %s since a part was fetched",
                 t->d->name, host_at_hand(t));
    else if (t->have && whole)
        snprintf(t->reason, sizeof t->reason, "%s does not give %s from the middle on",
                 host_at_hand(t), t->d->name);
    else if (!whole && !(a->has_range && a->range_first == t->have))
        snprintf(t->reason, sizeof t->reason, "%s sends other bytes than were asked for",
                 host_at_hand(t));
    if (t->reason[0]) {
        fail("%s: starting anew", t->reason);
        if (begin_anew(t) != STATUS_OK)
            return FAILED;
        t->at_once = true;
        if (!whole)
            return TRY_AGAIN;
    }
    t->v = v;
    if ((v.total && !has_space(t, v.total - t->have)) || write_info(t) != STATUS_OK)
        return FAILED;
    return UNDECIDED;
}

static size_t take_header_line(char *line, size_t size, size_t count, void *user)
{
    transfer *t = user;
    answer *a = &t->a;
    size_t length = size * count, end = length;
    t->heard = now_seconds();
    if (a->over) // trailers
        return length;
    while (end && isspace((unsigned char)line[end - 1]))
        end--;
    if (length > 5 && memcmp(line, "HTTP/", 5) == 0) {
        answer next = { .linked_size = a->linked_size };
        memcpy(next.linked_sha256, a->linked_sha256, sizeof next.linked_sha256);
        *a = next;
        curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &a->status);
        t->reached = true;
        return length;
    }
    if (end) {
        const char *colon = memchr(line, ':', end);
        size_t value = colon ? (size_t)(colon - line) + 1 : end;
        while (value < end && isspace((unsigned char)line[value]))
            value++;
        if (colon)
            take_header(a, line, (size_t)(colon - line), line + value, end - value);
        return length;
    }
    if (a->status < 200 || a->redirects)
        return length;
    a->over = true;
    t->outcome = judge_answer(t);
    return t->outcome == UNDECIDED ? length : 0;
}

// ------------------------------------------------------------------------------------- tries

static int watch(void *user, curl_off_t total, curl_off_t done, curl_off_t up, curl_off_t sent)
{
    (void)total, (void)done, (void)up, (void)sent;
    transfer *t = user;
    if (t->a.over && t->file >= 0)
        draw(t, "", t->have, t->v.total);
    curl_off_t connected = 0;
    curl_easy_getinfo(t->curl, CURLINFO_PRETRANSFER_TIME_T, &connected);
    if (connected && now_seconds() - t->heard > t->d->stall) {
        snprintf(t->reason, sizeof t->reason, "%s sent nothing for %g s", host_at_hand(t),
                 t->d->stall);
        t->outcome = TRY_AGAIN;
    }
    return interrupts || t->outcome != UNDECIDED;
}

static outcome fail_stopped(const transfer *t)
{
    char have[32], total[32];
    if (t->file >= 0 && t->have && t->v.total)
        fail("stopped; %s of %s are kept in %s, and the same command goes on from there",
             format_bytes(t->have, have), format_bytes(t->v.total, total), t->part);
    else
        fail("stopped");
    return FAILED;
}

// What curl says where no callback has decided.
static outcome judge_failure(transfer *t, CURLcode code)
{
    const char *host = host_at_hand(t);
    const char *detail = t->detail[0] ? t->detail : curl_easy_strerror(code);
    char have[32], total[32];
    snprintf(t->reason, sizeof t->reason, "%s: %s", host, detail);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        if (!t->reached)
            fail("the host %s is not found: is there a network?", host);
        return t->reached ? TRY_AGAIN : FAILED;
    case CURLE_COULDNT_RESOLVE_PROXY:
        fail("the proxy for %s that the environment names is not found", host);
        return FAILED;
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
        if (!t->reached)
            fail("the host %s cannot be reached: %s", host, detail);
        return t->reached ? TRY_AGAIN : FAILED;
    case CURLE_SSL_CONNECT_ERROR:
        if (t->reached)
            return TRY_AGAIN;
        // fall through
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
        fail("there is no safe connection to %s: %s", host, detail);
        return FAILED;
    case CURLE_TOO_MANY_REDIRECTS:
        fail("%s redirects more than %d times: given up", host, MAX_REDIRECTS);
        return FAILED;
    case CURLE_UNSUPPORTED_PROTOCOL:
        fail("the redirect to %s is not followed: it is neither http: nor https:, or http: after "
             "https:",
             host);
        return FAILED;
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
        snprintf(t->reason, sizeof t->reason, "%s ended the connection after %s of %s%s%.100s",
                 host, format_bytes(t->have, have),
                 t->v.total ? format_bytes(t->v.total, total) : "an unknown length",
                 code == CURLE_RECV_ERROR ? ": " : "", code == CURLE_RECV_ERROR ? detail : "");
        return TRY_AGAIN;
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM: return TRY_AGAIN;
    default: fail("%s could not be fetched from %s: %s", t->d->name, host, detail); return FAILED;
    }
}

static outcome try_once(transfer *t)
{
    char range[32], condition[240];
    bool resumes = t->file >= 0 && t->have > 0;
    if (resumes && !t->v.identity[0]) { // what comes could be of another version
        if (begin_anew(t) != STATUS_OK)
            return FAILED;
        resumes = false;
    }
    struct curl_slist *headers = checked(curl_slist_append(NULL, "Accept-Encoding: identity"));
    snprintf(range, sizeof range, "%llu-", (unsigned long long)t->have);
    snprintf(condition, sizeof condition, "If-Range: %s", t->v.validator);
    if (resumes && t->v.validator[0])
        headers = checked(curl_slist_append(headers, condition));
    curl_easy_setopt(t->curl, CURLOPT_RANGE, resumes ? range : NULL);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, headers);
    t->a = (answer){ 0 };
    t->outcome = UNDECIDED;
    t->at_once = false;
    t->detail[0] = t->reason[0] = '\0';
    t->heard = now_seconds();
    begin_drawing(t, t->have);
    CURLcode code = curl_easy_perform(t->curl);
    curl_slist_free_all(headers);
    if (t->outcome != UNDECIDED)
        return t->outcome;
    if (interrupts)
        return fail_stopped(t);
    if (code == CURLE_OK && t->v.total && t->have < t->v.total)
        code = CURLE_PARTIAL_FILE; // it had no length of its own
    return code == CURLE_OK ? COMPLETE : judge_failure(t, code);
}

static outcome sleep_seconds(const transfer *t, double seconds)
{
    double end = now_seconds() + seconds;
    for (double left = seconds; left > 0 && !interrupts; left = end - now_seconds()) {
        struct timespec pause = { .tv_sec = (time_t)left,
                                  .tv_nsec = (long)((left - (double)(time_t)left) * 1e9) };
        nanosleep(&pause, NULL); // a signal ends it
    }
    return interrupts ? fail_stopped(t) : TRY_AGAIN;
}

static outcome try_until_complete(transfer *t)
{
    const download *d = t->d;
    double wait = d->wait;
    for (int tries = 1;; tries++) {
        uint64_t before = t->have;
        outcome o = try_once(t);
        if (o != TRY_AGAIN)
            return o;
        if (t->have >= before + ENOUGH_PROGRESS) {
            tries = 1;
            wait = d->wait;
        }
        if (tries >= d->tries) {
            fail("%s could not be fetched: %s (try %d of %d)%s", d->name, t->reason, tries,
                 d->tries, t->have ? "; the same command goes on from what is there" : "");
            return FAILED;
        }
        if (t->at_once)
            continue;
        curl_off_t asked = 0;
        curl_easy_getinfo(t->curl, CURLINFO_RETRY_AFTER, &asked);
        if (asked > MAX_RETRY_AFTER) {
            fail("%s, and asks to come back in %lld s", t->reason, (long long)asked);
            return FAILED;
        }
        double pause = (double)asked > wait ? (double)asked : wait;
        fail("%s; trying again in %g s", t->reason, pause);
        if (sleep_seconds(t, pause) != TRY_AGAIN)
            return FAILED;
        wait *= 2;
    }
}

static int open_curl(transfer *t)
{
    const download *d = t->d;
    bool secure = strncasecmp(d->url, "https:", 6) == 0;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    t->curl = checked(curl_easy_init());
    curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, t->detail);
    curl_easy_setopt(t->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->curl, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(t->curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(t->curl, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(t->curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(t->curl, CURLOPT_USERAGENT, "kim/" KIM_VERSION);
    curl_easy_setopt(t->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(d->stall * 1000));
    curl_easy_setopt(t->curl, CURLOPT_BUFFERSIZE, 1L << 18);
    curl_easy_setopt(t->curl, CURLOPT_HEADERFUNCTION, take_header_line);
    curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFOFUNCTION, watch);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFODATA, t);
    if (d->token) { // as curl's own credentials, which it keeps to the first host
        curl_easy_setopt(t->curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(t->curl, CURLOPT_XOAUTH2_BEARER, d->token);
    }
    if (curl_easy_setopt(t->curl, CURLOPT_URL, d->url) != CURLE_OK)
        return fail("out of memory");
    return STATUS_OK;
}

// ----------------------------------------------------------------------------------- the whole

// The checksum to be had: the one that is known, else the hub's. NULL: there is none.
static const char *expected_sha256(const transfer *t)
{
    return t->d->sha256 ? t->d->sha256 : t->a.linked_sha256[0] ? t->a.linked_sha256 : NULL;
}

static int print_done(const transfer *t, const char *what, uint64_t bytes)
{
    char text[32];
    printf("%s: %s, %s, %s\n", t->d->name, what, format_bytes(bytes, text),
           expected_sha256(t) ? "SHA-256 is right" : "no checksum to compare with");
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}

// A file that is there is compared, and never replaced.
static int check_file(transfer *t, int file, uint64_t length)
{
    const download *d = t->d;
    uint64_t size = d->size;
    hex_digest hex;
    if (!d->sha256) {
        if (open_curl(t) != STATUS_OK || try_until_complete(t) != COMPLETE)
            return STATUS_FAILED;
        size = t->v.total;
    }
    bool same = !size || length == size;
    if (same && expected_sha256(t)) {
        if (hash_file(t, file, d->path, length) != STATUS_OK)
            return STATUS_FAILED;
        hash_hex(&t->hash, hex);
        same = strcmp(hex, expected_sha256(t)) == 0;
    }
    if (!same)
        return fail("%s is there already and is not what was to be fetched: move or delete it, and "
                    "pull again",
                    d->path);
    return print_done(t, "is there", length);
}

// A page of HTML can come from a proxy, or from an address that is not of the file itself.
static bool is_gguf(const transfer *t)
{
    size_t length = strlen(t->d->path);
    char magic[4];
    return length < 5 || strcasecmp(t->d->path + length - 5, ".gguf") != 0 ||
           (pread(t->file, magic, 4, 0) == 4 && memcmp(magic, "GGUF", 4) == 0);
}

static int remove_part(const transfer *t)
{
    unlink(t->info);
    unlink(t->part);
    return STATUS_FAILED;
}

// FILE.part is complete: checks it, and gives it its name.
static int finish(transfer *t)
{
    const download *d = t->d;
    hex_digest hex;
    const char *expected = expected_sha256(t);
    hash_hex(&t->hash, hex);
    if (expected && strcmp(hex, expected) != 0) {
        fail("%s is damaged and was removed: its SHA-256 is %s, expected was %s", t->part, hex,
             expected);
        return remove_part(t);
    }
    if (!is_gguf(t)) {
        fail("what %s sent for %s is no GGUF file and was removed", host_at_hand(t), d->name);
        return remove_part(t);
    }
    if (fsync(t->file) != 0)
        return fail_write(t, errno);
    if (!can_replace(d->path))
        return STATUS_FAILED;
    if (rename(t->part, d->path) != 0)
        return fail("%s could not be given its name: %s", t->part, strerror(errno));
    unlink(t->info);
    char *folder = checked(strdup(d->path)), *slash = strrchr(folder, '/');
    if (slash)
        slash[1] = '\0';
    int directory = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
        (void)fsync(directory); // the content is safe; the name is on most file systems
        close(directory);
    }
    free(folder);
    return print_done(t, "fetched", t->have);
}

static int fetch(transfer *t)
{
    int status = open_part(t);
    if (status != STATUS_OK)
        return status;
    status = open_curl(t);
    if (status == STATUS_OK && try_until_complete(t) != COMPLETE)
        status = STATUS_FAILED;
    progress_clear();
    if (status == STATUS_OK)
        status = finish(t);
    else if (!t->have)
        remove_part(t); // an empty part is of no use
    return status;
}

static char *with_suffix(const char *path, const char *suffix)
{
    strbuf text = { 0 };
    strbuf_add(&text, path, strlen(path));
    strbuf_add(&text, suffix, strlen(suffix));
    return text.data;
}

int download_file(const download *d)
{
    transfer t = { .d = d,
                   .file = -1,
                   .host = download_host(d->url),
                   .part = with_suffix(d->path, ".part"),
                   .info = with_suffix(d->path, ".part.info") };
    struct stat found;
    int status, file = open(d->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 && errno == ENOENT)
        status = fetch(&t);
    else if (file < 0 || fstat(file, &found) != 0)
        status = fail("%s could not be opened: %s", d->path, strerror(errno));
    else if (!S_ISREG(found.st_mode))
        status = fail("%s is no plain file", d->path);
    else
        status = check_file(&t, file, (uint64_t)found.st_size);
    if (file >= 0)
        close(file);
    if (t.file >= 0)
        close(t.file);
    curl_easy_cleanup(t.curl);
    free(t.host);
    free(t.part);
    free(t.info);
    return status;
}
