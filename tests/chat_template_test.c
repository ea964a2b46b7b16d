// SPDX-License-Identifier: MIT
// The chat template against the published one, and its errors.
//   chat_template_test TESTS_FOLDER [MODEL]
#include "engine/chat_template.h"
#include "text_support.h"

static void test_errors(void)
{
    static small_vocabulary v;
    tokenizer *t;
    int32_t *ids;
    uint32_t n;
    kim_message m[3] = { { "user", "the" }, { "assistant", "in" }, { "user", "he" } };
    small_vocabulary_make(&v);
    CHECK_OK(tokenizer_create(&t, &v.params));
    CHECK_OK(chat_tokens(t, m, 3, &ids, &n));
    CHECK(ids[0] == small_vocabulary_find(&v, "<bos>"), "no <bos> first");
    free(ids);

    CHECK_FAILS(chat_tokens(t, m, 0, &ids, &n), KIM_ERR_ARGUMENT, "no user message");
    CHECK(!ids && !n, "ids after a failure");
    m[0].role = "system";
    CHECK_FAILS(chat_tokens(t, m, 1, &ids, &n), KIM_ERR_ARGUMENT, "no user message");
    CHECK_FAILS(chat_tokens(t, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "message 2");
    m[0].role = "assistant";
    CHECK_FAILS(chat_tokens(t, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "expected the user");
    m[0].role = "user";
    m[1].role = "user";
    CHECK_FAILS(chat_tokens(t, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "expected the assistant");
    m[1].role = "system";
    CHECK_FAILS(chat_tokens(t, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "of the system");
    m[1].role = "tool";
    CHECK_FAILS(chat_tokens(t, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "\"tool\"");
    m[1].role = NULL;
    CHECK_FAILS(chat_tokens(t, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "no role");
    m[1] = (kim_message){ "assistant", NULL };
    CHECK_FAILS(chat_tokens(t, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "no text");
    tokenizer_destroy(&t);

    v.texts[small_vocabulary_find(&v, "<end_of_turn>")] = (gguf_string){ "<end>", 5 };
    CHECK_OK(tokenizer_create(&t, &v.params));
    CHECK_FAILS(chat_tokens(t, m, 1, &ids, &n), KIM_ERR_UNSUPPORTED, "cannot converse");
    tokenizer_destroy(&t);
}

static void test_published(const tokenizer *t, const char *folder)
{
    static const char *const roles[] = { "system", "user", "assistant" };
    fixture f = fixture_open(folder, "chat_template.bin", "KCHT");
    uint32_t count = fixture_u32(&f);
    CHECK(count >= 30, "only %u conversations", count);
    for (uint32_t i = 0; i < count; i++) {
        kim_message messages[16];
        char *texts[16];
        uint32_t n_messages = fixture_u32(&f), n_expected = fixture_u32(&f);
        CHECK(n_messages <= 16, "conversation %u has %u messages", i, n_messages);
        for (uint32_t k = 0; k < n_messages; k++) {
            messages[k].role = roles[fixture_u32(&f) % 3];
            uint32_t length = fixture_u32(&f);
            texts[k] = calloc(1, length + 1);
            CHECK(texts[k], "out of memory");
            memcpy(texts[k], fixture_bytes(&f, length), length);
            messages[k].text = texts[k];
        }
        int32_t *ids;
        uint32_t n;
        CHECK_OK(chat_tokens(t, messages, n_messages, &ids, &n));
        CHECK(n == n_expected, "conversation %u \"%s\": %u ids, expected %u", i, texts[0], n,
              n_expected);
        for (uint32_t k = 0; k < n; k++) {
            int32_t expected = (int32_t)fixture_u32(&f);
            CHECK(ids[k] == expected, "conversation %u \"%s\": id %u is %d, expected %d", i,
                  texts[0], k, ids[k], expected);
        }
        free(ids);
        for (uint32_t k = 0; k < n_messages; k++)
            free(texts[k]);
    }
    fixture_close(&f);
    printf("%u conversations\n", count);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1, "usage: chat_template_test TESTS_FOLDER [MODEL]");
    test_errors();
    tokenizer *t = model_tokenizer(argc, argv);
    test_published(t, argv[1]);
    tokenizer_destroy(&t);
    return 0;
}
