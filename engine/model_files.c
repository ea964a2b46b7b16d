// SPDX-License-Identifier: MIT
// The files of a model: which they are, and whether they go together.
#include "model_files.h"

#include "host/error.h"
#include "host/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_files_default_pixels(model_files *f)
{
    f->crops = (pan_and_scan){ .min_crop = 256, .max_crops = 4, .ratio = 1.2f };
    for (uint32_t c = 0; c < 3; c++)
        f->shape.mean[c] = f->shape.std[c] = 0.5f;
}

// ------------------------------------------------------------------------------------ projector

static bool is_text(gguf_string s, const char *text)
{
    return s.length == strlen(text) && !memcmp(s.data, text, s.length);
}

static bool is_projector(const gguf *g)
{
    gguf_string name = { "", 0 };
    return !gguf_get_string(g, "general.architecture", &name, NULL) && is_text(name, "clip");
}

static kim_err check_projector(const gguf *g)
{
    kim_err err = KIM_OK;
    gguf_string type = { "", 0 };
    bool found, vision = false;
    if (!is_projector(g))
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s: is not a projector (general.architecture is not 'clip'); the mmproj-*.gguf that "
             "goes with the model is expected",
             gguf_path(g));
    TRY(gguf_get_bool(g, "clip.has_vision_encoder", &vision, NULL));
    if (!vision)
        FAIL(KIM_ERR_UNSUPPORTED, "%s: has no vision encoder", gguf_path(g));
    TRY(gguf_get_string(g, "clip.projector_type", &type, &found));
    if (!found)
        TRY(gguf_get_string(g, "clip.vision.projector_type", &type, NULL));
    if (!is_text(type, "gemma3"))
        FAIL(KIM_ERR_UNSUPPORTED, "%s: clip.projector_type is '%.*s'; only 'gemma3' is supported",
             gguf_path(g), (int)(type.length < 64 ? type.length : 64), type.data);
error:
    return err;
}

static kim_err read_size(const gguf *g, const char *key, uint32_t *value)
{
    kim_err err = KIM_OK;
    bool found;
    TRY(gguf_get_u32(g, key, value, &found));
    if (!found)
        FAIL(KIM_ERR_FORMAT, "%s: the key %s is missing", gguf_path(g), key);
error:
    return err;
}

static kim_err read_colours(const gguf *g, const char *key, float *to)
{
    kim_err err = KIM_OK;
    float *values;
    uint64_t count;
    bool found;
    TRY(gguf_get_array_f32(g, key, &values, &count, &found));
    if (found && count != 3)
        FAIL(KIM_ERR_FORMAT, "%s: %s has %llu items; 3 are expected", gguf_path(g), key,
             (unsigned long long)count);
    if (found)
        memcpy(to, values, 3 * sizeof *to);
error:
    free(values);
    return err;
}

static kim_err read_projector(model_files *f, const char *path)
{
    kim_err err = KIM_OK;
    encoder_shape *s = &f->shape;
    uint32_t pool = 4;
    bool found;
    TRY(gguf_open(&f->vision_file, path));
    const gguf *g = f->vision_file;
    TRY(check_projector(g));
    TRY(tensors_from_gguf(&f->projector, g));
    f->vision = f->projector;
    f->bytes += gguf_file_bytes(g);
    model_files_default_pixels(f);
    TRY(read_size(g, "clip.vision.image_size", &s->image));
    TRY(read_size(g, "clip.vision.patch_size", &s->patch));
    TRY(read_size(g, "clip.vision.embedding_length", &s->hidden));
    TRY(read_size(g, "clip.vision.feed_forward_length", &s->feed_forward));
    TRY(read_size(g, "clip.vision.block_count", &s->layers));
    TRY(read_size(g, "clip.vision.attention.head_count", &s->heads));
    TRY(read_size(g, "clip.vision.projection_dim", &s->text_hidden));
    s->eps = 1e-6f;
    TRY(gguf_get_f32(g, "clip.vision.attention.layer_norm_epsilon", &s->eps, NULL));
    TRY(read_colours(g, "clip.vision.image_mean", s->mean));
    TRY(read_colours(g, "clip.vision.image_std", s->std));
    TRY(gguf_get_u32(g, "clip.vision.projector.scale_factor", &pool, &found));
    if (!s->patch || !pool || s->image / s->patch % pool || s->image / s->patch / pool > 256)
        FAIL(KIM_ERR_FORMAT,
             "%s: pictures of %u pixels in patches of %u cannot be averaged by %u x %u "
             "(clip.vision.projector.scale_factor) to 256 x 256 soft tokens or fewer",
             path, s->image, s->patch, pool, pool);
    s->tokens = s->image / s->patch / pool * (s->image / s->patch / pool);
error:
    return err;
}

// ----------------------------------------------------------------------------------------- text

static kim_err read_text(model_files *f, const char *path)
{
    kim_err err = KIM_OK;
    gguf_string name = { "", 0 };
    TRY(gguf_open(&f->text_file, path));
    const gguf *g = f->text_file;
    if (is_projector(g))
        FAIL(
            KIM_ERR_UNSUPPORTED,
            "%s: is a projector (general.architecture is 'clip'), not a model; open the model that "
            "it goes with, and this as its mmproj",
            path);
    TRY(architecture_read(&f->arch, g));
    TRY(tokenizer_create_from_gguf(&f->tokens, g));
    TRY(tensors_from_gguf(&f->text, g));
    if (!gguf_get_string(g, "general.name", &name, NULL)) // not a string: as if it were absent
        snprintf(f->name, sizeof f->name, "%.*s", (int)(name.length < 127 ? name.length : 127),
                 name.data);
    f->chat = gguf_find_key(g, "tokenizer.chat_template") != NULL;
    f->bytes += gguf_file_bytes(g);
error:
    return err;
}

static kim_err read_folder(model_files *f, const char *path, const char *mmproj)
{
    if (mmproj)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "%s: is a folder, which has its own vision part; %s is not expected", path,
                        mmproj);
#ifdef KIM_CJSON
    return model_folder_read(f, path);
#else
    (void)f;
    return kim_fail(KIM_ERR_UNSUPPORTED,
                    "%s: is a folder; this build opens GGUF files only, it was made without cJSON",
                    path);
#endif
}

static kim_err check_together(const model_files *f)
{
    kim_err err = KIM_OK;
    if (f->shape.text_hidden != f->arch.hidden)
        FAIL(KIM_ERR_FORMAT,
             "%s: is the projector of a model of width %u, but %s has %u: they do not go together",
             tensors_path(f->vision), f->shape.text_hidden, tensors_path(f->text), f->arch.hidden);
    if (f->ids.start_of_image < 0 || f->ids.end_of_image < 0)
        FAIL(
            KIM_ERR_FORMAT,
            "%s: has no tokens <start_of_image> and <end_of_image>, so pictures cannot be put into "
            "a text",
            tensors_path(f->text));
error:
    return err;
}

kim_err model_files_open(model_files *f, const char *path, const char *mmproj)
{
    kim_err err = KIM_OK;
    memset(f, 0, sizeof *f);
    if (!path) {
        TRY(read_projector(f, mmproj));
        return KIM_OK;
    }
    if (file_find(path) == FILE_FOLDER) {
        TRY(read_folder(f, path, mmproj));
    } else {
        TRY(read_text(f, path));
        if (mmproj)
            TRY(read_projector(f, mmproj));
    }
    f->ids = *tokenizer_get_ids(f->tokens);
    f->draw_limit = tokenizer_draw_limit(f->tokens);
    if (f->vision)
        TRY(check_together(f));
    return KIM_OK;
error:
    model_files_close(f);
    return err;
}

void model_files_close(model_files *f)
{
    tensors_destroy(&f->text);
    tensors_destroy(&f->projector);
    gguf_close(&f->text_file);
    gguf_close(&f->vision_file);
    tokenizer_destroy(&f->tokens);
    architecture_destroy(&f->arch);
    memset(f, 0, sizeof *f);
}
