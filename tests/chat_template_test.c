// SPDX-License-Identifier: MIT
// The chat template against the published one, and its errors.
//   chat_template_test TESTS_FOLDER [MODEL]
#include "engine/chat_template.h"
#include "engine/model.h"
#include "text_support.h"

static void test_errors(void)
{
    static small_vocabulary v;
    tokenizer *t;
    int32_t *ids;
    uint32_t n;
    kim_message m[3] = { { .role = "user", .text = "the" },
                         { .role = "assistant", .text = "in" },
                         { .role = "user", .text = "he" } };
    small_vocabulary_make(&v);
    CHECK_OK(tokenizer_create(&t, &v.params));
    kim_model model = { .tokens = t };
    CHECK_OK(chat_tokens(&model, m, 3, &ids, &n));
    CHECK(ids[0] == small_vocabulary_find(&v, "<bos>"), "no <bos> first");
    free(ids);

    CHECK_FAILS(chat_tokens(&model, m, 0, &ids, &n), KIM_ERR_ARGUMENT, "no user message");
    CHECK(!ids && !n, "ids after a failure");
    m[0].role = "system";
    CHECK_FAILS(chat_tokens(&model, m, 1, &ids, &n), KIM_ERR_ARGUMENT, "no user message");
    CHECK_FAILS(chat_tokens(&model, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "message 2");
    m[0].role = "assistant";
    CHECK_FAILS(chat_tokens(&model, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "expected the user");
    m[0].role = "user";
    m[1].role = "user";
    CHECK_FAILS(chat_tokens(&model, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "expected the assistant");
    m[1].role = "system";
    CHECK_FAILS(chat_tokens(&model, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "of the system");
    m[1].role = "tool";
    CHECK_FAILS(chat_tokens(&model, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "\"tool\"");
    m[1].role = NULL;
    CHECK_FAILS(chat_tokens(&model, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "no role");
    m[1] = (kim_message){ .role = "assistant" };
    CHECK_FAILS(chat_tokens(&model, m, 3, &ids, &n), KIM_ERR_ARGUMENT, "no text");
    tokenizer_destroy(&t);

    v.texts[small_vocabulary_find(&v, "<end_of_turn>")] = (gguf_string){ "<end>", 5 };
    CHECK_OK(tokenizer_create(&t, &v.params));
    model.tokens = t;
    CHECK_FAILS(chat_tokens(&model, m, 1, &ids, &n), KIM_ERR_UNSUPPORTED, "cannot converse");
    tokenizer_destroy(&t);
}

static void test_published(tokenizer *t, const char *folder)
{
    const kim_model model = { .tokens = t };
    static const char *const roles[] = { "system", "user", "assistant" };
    fixture f = fixture_open(folder, "chat_template.bin", "KCHT");
    uint32_t count = fixture_u32(&f);
    CHECK(count >= 30, "only %u conversations", count);
    for (uint32_t i = 0; i < count; i++) {
        kim_message messages[16] = { 0 };
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
        CHECK_OK(chat_tokens(&model, messages, n_messages, &ids, &n));
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

// A picture of two soft tokens. The ids are the published tokenizer's, given the whole string.
static void test_picture(tokenizer *t)
{
    static const int32_t expected[] = { 2,      105,    2364, 109,   255999, 262144,
                                        262144, 256000, 108,  82858, 672,    236761,
                                        106,    107,    105,  4368,  107 };
    soft_tile *soft[] = { soft_tile_create(2, 1, NULL, 0) };
    kim_model model = { .tokens = t };
    model.info.start_of_image = 255999;
    model.info.end_of_image = 256000;
    model.info.image_token = 262144;
    model.info.image_tokens = 2;
    const kim_image image = { .model = &model, .tiles = { .count = 1 }, .soft = soft };
    const kim_image *images[] = { &image, &image };
    static const char *const texts[] = { "Describe this.", " \n<start_of_image>Describe this. " };
    int32_t *ids;
    uint32_t n;
    for (uint32_t i = 0; i < 2; i++) { // before the text, and where the text has its mark
        const kim_message m = { .role = "user", .text = texts[i], .images = images, .n_images = 1 };
        CHECK_OK(chat_tokens(&model, &m, 1, &ids, &n));
        CHECK(n == sizeof expected / sizeof *expected && !memcmp(ids, expected, sizeof expected),
              "\"%s\" with a picture: other ids", texts[i]);
        free(ids);
    }
    // one mark for two pictures: the first stands before the text; a mark without one is text
    const kim_message two = { "user", "a <start_of_image> b", images, 2 };
    const kim_message none = { .role = "user", .text = "a <start_of_image> b" };
    CHECK_OK(chat_tokens(&model, &two, 1, &ids, &n));
    uint32_t marks = 0;
    for (uint32_t i = 0; i < n; i++)
        marks += ids[i] == 255999;
    CHECK(marks == 2 && ids[4] == 255999, "%u pictures, id 4 is %d", marks, (int)ids[4]);
    free(ids);
    CHECK_OK(chat_tokens(&model, &none, 1, &ids, &n));
    for (uint32_t i = 0; i < n; i++)
        CHECK(ids[i] != 255999, "a mark that a user typed became a token");
    free(ids);
    soft_tile_release(&soft[0]);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1, "usage: chat_template_test TESTS_FOLDER [MODEL]");
    test_errors();
    tokenizer *t = model_tokenizer(argc, argv);
    test_published(t, argv[1]);
    test_picture(t);
    tokenizer_destroy(&t);
    return 0;
}
