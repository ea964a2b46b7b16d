// SPDX-License-Identifier: MIT
// The tokenizer against ids of the published one, its errors, decoding, and UTF-8 streams.
//   tokenizer_test TESTS_FOLDER [MODEL]
#include "engine/kimberlite.h"
#include "engine/tokenizer.h"
#include "text_support.h"

// ------------------------------------------------------------------------------------ UTF-8

static size_t feed_all(const char *text, size_t length, size_t step, char *out)
{
    kim_utf8 state = { 0 };
    size_t written = 0;
    for (size_t at = 0; at < length; at += step) {
        size_t n = length - at < step ? length - at : step;
        written += kim_utf8_feed(&state, text + at, n, out + written);
    }
    written += kim_utf8_feed(&state, NULL, 0, out + written);
    CHECK(state.n_held == 0, "bytes are held after the flush");
    return written;
}

static void test_utf8(void)
{
#define R "\xEF\xBF\xBD"
    static const char *const cases[][2] = {
        { "plain", "plain" },
        { "\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA4\x96", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA4\x96" },
        { "\x80", R },
        { "a\xFF\xFE", "a" R R },
        { "\xC0\xAF", R R },             // overlong
        { "\xE0\x80\xAF", R R R },       // overlong
        { "\xED\xA0\x80", R R R },       // surrogate
        { "\xF4\x90\x80\x80", R R R R }, // above U+10FFFF
        { "\xF5", R },
        { "\xE2\x82", R },
        { "\xE2\x82"
          "A",
          R "A" },
        { "\xE2\x28\xA1", R "(" R },
        { "\xF0\x9F\xA4\xE2\x82\xAC", R "\xE2\x82\xAC" },
        { "\xF0\x9F\xF0\x9F\xA4\x96\xF0", R "\xF0\x9F\xA4\x96" R },
        { "\xC3\xC3\xA9", R "\xC3\xA9" },
        { "\xEF\xBF\xBF\xF4\x8F\xBF\xBF", "\xEF\xBF\xBF\xF4\x8F\xBF\xBF" },
    };
#undef R
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t step = 1; step <= 8; step++) {
            char out[64];
            size_t n = feed_all(cases[i][0], strlen(cases[i][0]), step, out);
            CHECK(n == strlen(cases[i][1]) && !memcmp(out, cases[i][1], n),
                  "case %zu by %zu: \"%.*s\"", i, step, (int)n, out);
        }
    }
    for (int i = 0; i < 20000; i++) { // how the bytes are cut makes no difference
        static const unsigned char some[] = { 'a',  0x80, 0x90, 0xA0, 0xBF, 0xC3, 0xE0,
                                              0xE2, 0xED, 0xEF, 0xF0, 0xF4, 0xFF };
        char text[16], whole[64], cut[64];
        for (size_t k = 0; k < sizeof text; k++)
            text[k] = (char)some[random_below(sizeof some)];
        size_t n = feed_all(text, sizeof text, sizeof text, whole);
        CHECK(n <= 3 * (sizeof text + 4), "more written than there must be room for");
        CHECK(n == feed_all(text, sizeof text, 1 + random_below(5), cut) && !memcmp(whole, cut, n),
              "bytes cut differently give different text");
    }
}

// ------------------------------------------------------------------------- small vocabulary

static void expect(const tokenizer *t, const char *text, size_t length, bool special,
                   const int32_t *expected, uint32_t n_expected)
{
    int32_t *ids;
    uint32_t n;
    CHECK_OK(tokenizer_encode(t, text, length, special, &ids, &n));
    CHECK(n == n_expected, "\"%.*s\": %u ids, expected %u", (int)length, text, n, n_expected);
    for (uint32_t i = 0; i < n; i++)
        CHECK(ids[i] == expected[i], "\"%.*s\": id %u is %d, expected %d", (int)length, text, i,
              ids[i], expected[i]);
    free(ids);
}

static void test_small(void)
{
    static small_vocabulary v;
    tokenizer *t;
    size_t length;
    small_vocabulary_make(&v);
    CHECK_OK(tokenizer_create(&t, &v.params));
#define ID(text) small_vocabulary_find(&v, text)
#define EXPECT(text, special, ...)                                                                 \
    expect(t, text, sizeof text - 1, special, (const int32_t[]){ __VA_ARGS__ },                    \
           sizeof((const int32_t[]){ __VA_ARGS__ }) / sizeof(int32_t))
    EXPECT("the the", true, ID("the"), ID("\xE2\x96\x81the"));
    EXPECT("      ing", true, ID("    "), ID("  "), ID("ing"));
    EXPECT("     the", true, ID("    "), ID("\xE2\x96\x81the"));
    EXPECT("aaaaa", true, ID("aa"), ID("aaa")); // "aa" twice first, then the right with "a"
    EXPECT("<b>\n\n\n", true, ID("<b>"), ID("\n\n"), ID("\n"));
    EXPECT("a<eos>", true, ID("a"), ID("<eos>"));
    EXPECT("<eo", false, ID("<0x3C>"), ID("e"), ID("o"));
    EXPECT("\xC3\xA9", true, ID("<0xC3>"), ID("<0xA9>"));
    EXPECT("<unused0>", false, ID("<unused0>"));
    int32_t *ids;
    uint32_t n;
    CHECK_OK(tokenizer_encode(t, "<eos>", 5, false, &ids, &n));
    CHECK(n == 5 && ids[0] == ID("<0x3C>"), "a special token as text");
    free(ids);
    CHECK_OK(tokenizer_encode(t, NULL, 0, true, &ids, &n));
    CHECK(n == 0, "no text has ids");
    free(ids);
    CHECK(tokenizer_vocab(t) == v.params.count, "size");
    CHECK(tokenizer_draw_limit(t) == v.params.count, "draw limit");
    CHECK(tokenizer_ends(t, ID("<eos>")) && tokenizer_ends(t, ID("<end_of_turn>")), "ends");
    CHECK(!tokenizer_ends(t, -1) && !tokenizer_ends(t, ID("a")), "does not end");
    CHECK(*tokenizer_bytes(t, ID("<0xC3>"), false, &length) == '\xC3' && length == 1, "a byte");
    tokenizer_bytes(t, ID("<eos>"), false, &length);
    CHECK(length == 0, "a special token has bytes");
    CHECK(!memcmp(tokenizer_bytes(t, ID("<eos>"), true, &length), "<eos>", 5) && length == 5,
          "a special token has no bytes");
    tokenizer_bytes(t, (int32_t)v.params.count, true, &length);
    CHECK(length == 0, "an id outside has bytes");
    tokenizer_bytes(t, -1, true, &length);
    CHECK(length == 0, "an id outside has bytes");
    tokenizer_destroy(&t);
    tokenizer_destroy(&t);
}

// Files that are odd, but right or forgivable.
static void test_odd_files(void)
{
    static small_vocabulary v;
    tokenizer *t;
    small_vocabulary_make(&v);
    int32_t start = ID("<start_of_turn>");
    v.types[start] = TOKEN_NORMAL; // as in Google's QAT files
    v.texts[ID("   ")] = (gguf_string){ "\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81", 9 };
    uint32_t n = v.params.count;
    v.texts[n] = (gguf_string){ "<image_soft_token>", 18 };
    v.types[n] = TOKEN_CONTROL;
    v.texts[n + 1] = (gguf_string){ "[PAD]", 5 };
    v.types[n + 1] = TOKEN_UNUSED;
    v.texts[n + 2] = (gguf_string){ "", 0 };
    v.types[n + 2] = TOKEN_UNUSED;
    v.params.count = n + 3;
    v.params.eos = ID("<end_of_turn>");
    CHECK_OK(tokenizer_create(&t, &v.params));
    EXPECT("<start_of_turn>he", true, start, ID("he"));
    EXPECT("   \xE2\x96\x81\xE2\x96\x81<image_soft_token>", true, start + 5, start + 4, (int32_t)n);
    CHECK(tokenizer_get_ids(t)->eos == ID("<eos>"), "<eos> is not the end");
    CHECK(tokenizer_get_ids(t)->image_soft_token == (int32_t)n, "image token");
    CHECK(tokenizer_get_ids(t)->start_of_image == -1, "start of image");
    CHECK(tokenizer_draw_limit(t) == n && tokenizer_vocab(t) == n + 3, "draw limit");
    tokenizer_destroy(&t);
}
#undef EXPECT

static void expect_refused(void (*spoil)(small_vocabulary *v), const char *words)
{
    static small_vocabulary v;
    tokenizer *t;
    small_vocabulary_make(&v);
    spoil(&v);
    CHECK_FAILS(tokenizer_create(&t, &v.params), KIM_ERR_FORMAT, words);
    CHECK(!t, "a tokenizer after a failure");
}

static void no_tokens(small_vocabulary *v)
{
    v->params.count = 0;
}
static void wrong_type(small_vocabulary *v)
{
    v->types[9] = 7;
}
static void nan_score(small_vocabulary *v)
{
    v->scores[9] = 0.0f / 0.0f;
}
static void empty_text(small_vocabulary *v)
{
    v->texts[9].length = 0;
}
static void long_text(small_vocabulary *v)
{
    v->texts[9].length = 1u << 20;
}
static void bad_byte(small_vocabulary *v)
{
    v->byte_texts[9][3] = 'g';
}
static void same_byte(small_vocabulary *v)
{
    v->byte_texts[9][4] = '8';
}
static void no_byte(small_vocabulary *v)
{
    v->types[small_vocabulary_find(v, "<0x41>")] = 1;
}
static void no_bos(small_vocabulary *v)
{
    v->texts[2].data = "<BOS>";
}
static void no_eos(small_vocabulary *v)
{
    v->texts[1].data = "<EOS>";
}
static void bos_outside(small_vocabulary *v)
{
    v->params.bos = 100000;
}
static void eos_is_text(small_vocabulary *v)
{
    v->params.eos = small_vocabulary_find(v, "the");
}
static void no_space(small_vocabulary *v)
{
    v->texts[small_vocabulary_find(v, "\xE2\x96\x81")].data = "abc";
}

static void test_refused(void)
{
    expect_refused(no_tokens, "0 tokens");
    expect_refused(wrong_type, "token 9 has type 7");
    expect_refused(nan_score, "token 9 has a score");
    expect_refused(empty_text, "token 9 is empty");
    expect_refused(long_text, "token 9 has 1048576 bytes");
    expect_refused(bad_byte, "not as <0x0A>");
    expect_refused(same_byte, "the same byte");
    expect_refused(no_byte, "no byte token <0x41>");
    expect_refused(no_bos, "no <bos>");
    expect_refused(no_eos, "no <eos>");
    expect_refused(bos_outside, "beginning-of-text token is 100000");
    expect_refused(eos_is_text, "not a special token");
    expect_refused(no_space, "no token for a space");
}

// ------------------------------------------------------------------------------------- file

typedef struct writer {
    uint8_t bytes[32768];
    size_t n;
} writer;

static void put(writer *w, const void *data, size_t n)
{
    CHECK(w->n + n <= sizeof w->bytes, "no room");
    memcpy(w->bytes + w->n, data, n);
    w->n += n;
}

static void put_string(writer *w, const char *text, uint64_t length)
{
    put(w, &length, 8);
    put(w, text, length);
}

static void put_key(writer *w, const char *name, uint32_t type)
{
    put_string(w, name, strlen(name));
    put(w, &type, 4);
}

static void put_array(writer *w, const char *name, uint32_t type, uint64_t count)
{
    put_key(w, name, GGUF_ARRAY);
    put(w, &type, 4);
    put(w, &count, 8);
}

// What is told apart in the files of test_files().
typedef struct file_case {
    const char *model;
    uint32_t fewer_scores, fewer_types;
    int32_t eos;
    bool space_prefix;
} file_case;

// The small vocabulary as a GGUF file of a little-endian machine.
static kim_err open_file(const file_case *c, tokenizer **t)
{
    static small_vocabulary v;
    writer w = { .n = 0 };
    small_vocabulary_make(&v);
    const uint32_t count = v.params.count, version = 3;
    const uint64_t n_tensors = 0, n_keys = 6;
    put(&w, "GGUF", 4);
    put(&w, &version, 4);
    put(&w, &n_tensors, 8);
    put(&w, &n_keys, 8);
    put_key(&w, "tokenizer.ggml.model", GGUF_STRING);
    put_string(&w, c->model, strlen(c->model));
    put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, count);
    for (uint32_t i = 0; i < count; i++)
        put_string(&w, v.texts[i].data, v.texts[i].length);
    put_array(&w, "tokenizer.ggml.scores", GGUF_F32, count - c->fewer_scores);
    put(&w, v.scores, (count - c->fewer_scores) * sizeof *v.scores);
    put_array(&w, "tokenizer.ggml.token_type", GGUF_I32, count - c->fewer_types);
    put(&w, v.types, (count - c->fewer_types) * sizeof *v.types);
    put_key(&w, "tokenizer.ggml.eos_token_id", GGUF_I32);
    put(&w, &c->eos, 4);
    put_key(&w, "tokenizer.ggml.add_space_prefix", GGUF_BOOL);
    put(&w, &c->space_prefix, 1);

    gguf *g;
    CHECK_OK(gguf_open_memory(&g, w.bytes, w.n, "small.gguf"));
    kim_err err = tokenizer_create_from_gguf(t, g);
    gguf_close(&g);
    return err;
}

static void test_files(void)
{
    tokenizer *t;
    CHECK_OK(open_file(&(file_case){ "llama", .eos = 6 }, &t));
    CHECK(tokenizer_ends(t, 6) && tokenizer_get_ids(t)->eos == 1, "<eos> or the file's end");
    tokenizer_destroy(&t);
    static const struct {
        file_case file;
        kim_err code;
        const char *words;
    } cases[] = {
        { { "gpt2", .eos = 1 }, KIM_ERR_UNSUPPORTED, "\"gpt2\", only \"llama\"" },
        { { "llama", .fewer_scores = 1, .eos = 1 }, KIM_ERR_FORMAT, "scores has" },
        { { "llama", .fewer_types = 2, .eos = 1 }, KIM_ERR_FORMAT, "token_type has" },
        { { "llama", .eos = -2 }, KIM_ERR_FORMAT, "eos_token_id is -2" },
        { { "llama", .eos = 9999 }, KIM_ERR_FORMAT, "small.gguf: the end-of-text token is 9999" },
        { { "llama", .eos = 1, .space_prefix = true }, KIM_ERR_UNSUPPORTED, "add_space_prefix" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_FAILS(open_file(&cases[i].file, &t), cases[i].code, cases[i].words);
        CHECK(strstr(kim_error_text(), "small.gguf: "), "\"%s\" names no file", kim_error_text());
        CHECK(!t, "a tokenizer after a failure");
    }
}

// ------------------------------------------------------------------------- real vocabulary

// Text as decoding gives it back: U+2581 is a space to the tokenizer.
static size_t with_spaces(const char *text, size_t length, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (length - i >= 3 && !memcmp(text + i, "\xE2\x96\x81", 3)) {
            out[n++] = ' ';
            i += 2;
        } else {
            out[n++] = text[i];
        }
    }
    return n;
}

// Decoding the ids gives the text; as a stream it gives whole characters only.
static void check_decoding(const tokenizer *t, const char *text, size_t length, const int32_t *ids,
                           uint32_t n, bool valid)
{
    char *expected = malloc(length + 1), *bytes = malloc(length + 1),
         *out = malloc(3 * length + 999);
    CHECK(expected && bytes && out, "out of memory");
    size_t n_expected = with_spaces(text, length, expected), n_bytes = 0, n_out = 0;
    kim_utf8 state = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        size_t piece_length, used;
        const char *piece = tokenizer_bytes(t, ids[i], true, &piece_length);
        CHECK(n_bytes + piece_length <= n_expected, "\"%.99s\" decodes to more", text);
        memcpy(bytes + n_bytes, piece, piece_length);
        n_bytes += piece_length;
        size_t fresh = piece_length ? kim_utf8_feed(&state, piece, piece_length, out + n_out) : 0;
        for (size_t k = 0; k < fresh; k += used) { // each piece of the stream stands on its own
            kim_utf8 single = { 0 };
            char again[4096];
            used = fresh - k < 256 ? fresh - k : 256;
            while (k + used < fresh && ((unsigned char)out[n_out + k + used] & 0xC0) == 0x80)
                used++;
            CHECK(kim_utf8_feed(&single, out + n_out + k, used, again) == used && !single.n_held &&
                      !memcmp(again, out + n_out + k, used),
                  "\"%.99s\": part of a character in the stream", text);
        }
        n_out += fresh;
    }
    CHECK(n_bytes == n_expected && !memcmp(bytes, expected, n_bytes), "\"%.99s\" decodes wrongly",
          text);
    if (valid)
        CHECK(state.n_held == 0 && n_out == n_expected && !memcmp(out, expected, n_out),
              "\"%.99s\": the stream differs", text);
    free(expected);
    free(bytes);
    free(out);
}

static void test_published(const tokenizer *t, const char *folder)
{
    fixture f = fixture_open(folder, "tokenizer.bin", "KTOK");
    uint32_t count = fixture_u32(&f);
    CHECK(count >= 500, "only %u texts", count);
    for (uint32_t i = 0; i < count; i++) {
        bool special = fixture_u32(&f);
        uint32_t repeat = fixture_u32(&f), length = fixture_u32(&f), n_expected = fixture_u32(&f);
        const char *once = fixture_bytes(&f, length);
        char *text = malloc((size_t)repeat * length + 1);
        CHECK(text, "out of memory");
        for (uint32_t k = 0; k < repeat; k++)
            memcpy(text + (size_t)k * length, once, length);
        length *= repeat;
        text[length] = '\0';

        int32_t *ids;
        uint32_t n;
        CHECK_OK(tokenizer_encode(t, text, length, special, &ids, &n));
        for (uint32_t k = 0; k < n_expected; k++) {
            int32_t expected = (int32_t)fixture_u32(&f);
            CHECK(k < n && ids[k] == expected, "text %u \"%.99s\": id %u is %d, expected %d", i,
                  text, k, k < n ? ids[k] : -1, expected);
        }
        CHECK(n == n_expected, "text %u \"%.99s\": %u ids, expected %u", i, text, n, n_expected);
        check_decoding(t, text, length, ids, n, true);
        free(ids);
        free(text);
    }
    fixture_close(&f);
    printf("%u texts\n", count);
}

// Bytes that are no UTF-8 become byte tokens, and what is beside them is as if it stood alone.
static void test_invalid(const tokenizer *t)
{
    static const char *const bad[] = {
        "\xFF",     "\x80",         "\xC0\xAF",         "\xED\xA0\x80",
        "\xE2\x96", "\xF0\x9F\xA4", "\xF4\x90\x80\x80", "\xC3"
    };
    static const char *const good[] = { "a",  " the", "hello",    "\n\n",
                                        "  ", "<b>",  "\xC3\xA9", "\xE2\x96\x81\xE2\x96\x81",
                                        "\t", "12" };
    for (int i = 0; i < 5000; i++) {
        token_list expected = { 0 };
        char text[256];
        size_t length = 0;
        for (uint32_t k = 0; k < 8; k++) {
            const char *part = good[random_below(sizeof good / sizeof *good)];
            CHECK_OK(tokenizer_append(t, part, strlen(part), true, &expected));
            memcpy(text + length, part, strlen(part));
            length += strlen(part);
            part = bad[random_below(sizeof bad / sizeof *bad)];
            for (const char *b = part; *b; b++)
                CHECK_OK(token_list_push(&expected, 238 + (unsigned char)*b));
            memcpy(text + length, part, strlen(part));
            length += strlen(part);
        }
        expect(t, text, length, true, expected.ids, expected.count);
        check_decoding(t, text, length, expected.ids, expected.count, false);
        free(expected.ids);
    }
    for (int i = 0; i < 5000; i++) { // any bytes come back
        char text[64];
        size_t length = 1 + random_below(sizeof text);
        for (size_t k = 0; k < length; k++)
            text[k] = (char)(random_below(3) ? "<eos>ab \n\xE2\x96\x81"[random_below(12)]
                                             : (int)random_below(256));
        int32_t *ids;
        uint32_t n;
        CHECK_OK(tokenizer_encode(t, text, length, i % 2, &ids, &n));
        check_decoding(t, text, length, ids, n, false);
        free(ids);
    }
}

static void time_text(const tokenizer *t, const char *name, const char *unit, size_t length)
{
    char *text = malloc(length);
    CHECK(text, "out of memory");
    size_t unit_length = strlen(unit);
    for (size_t i = 0; i < length; i++)
        text[i] = unit[i % unit_length];
    int32_t *ids;
    uint32_t n;
    double start = seconds_now();
    CHECK_OK(tokenizer_encode(t, text, length, true, &ids, &n));
    double seconds = seconds_now() - start;
    printf("%-7s %7zu bytes: %7u ids, %6.1f ms, %5.1f MB/s\n", name, length, n, 1e3 * seconds,
           1e-6 * (double)length / seconds);
    check_decoding(t, text, length, ids, n, false);
    free(ids);
    free(text);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1, "usage: tokenizer_test TESTS_FOLDER [MODEL]");
    test_utf8();
    test_small();
    test_odd_files();
    test_refused();
    test_files();
    tokenizer *t = model_tokenizer(argc, argv);
    const tokenizer_ids *ids = tokenizer_get_ids(t);
    CHECK(ids->eos == 1 && ids->bos == 2 && ids->start_of_turn == 105 && ids->end_of_turn == 106 &&
              ids->start_of_image == 255999 && ids->end_of_image == 256000,
          "the special tokens have other ids");
    CHECK(tokenizer_draw_limit(t) == 262144, "draw limit %u", tokenizer_draw_limit(t));
    test_published(t, argv[1]);
    test_invalid(t);
    for (size_t length = 100000; length <= 1000000; length *= 10) {
        time_text(t, "a", "a", length);
        time_text(t, "spaces", " ", length);
        time_text(t, "English", "The model reads 32 tokens, then it's asked: \"What next?\"\n",
                  length);
        time_text(t, "Chinese", "\xE6\x88\x91\xE8\x83\xBD\xE5\x90\x9E\xE4\xB8\x8B\xE7\x8E\xBB",
                  length);
    }
    tokenizer_destroy(&t);
    return 0;
}
