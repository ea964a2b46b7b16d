#!/bin/sh
# SPDX-License-Identifier: MIT
# The command and pictures, with the built-in model: options, layouts, files, sentences.
# usage: pictures_test.sh TESTS_DIR MODEL KIM
tests=$1
model=$2
kim=$3
. "$tests/command_support.sh"
demo=$tests/../examples/demo
picture=$demo/samples/shapes.png
other=$demo/samples/stars.png
sees="-m $demo/demo.gguf --mmproj $demo/demo-mmproj.gguf $validation"

# ids COMMAND...: the ids of the prompt, one a line, in $dir/ids
ids() {
    run "$kim" logits $sees -n 0 --json "$@"
    shows 0 prompt_ids out
    tr -d ' \n\t' <"$dir/out" | sed 's/.*"prompt_ids":\[\([^]]*\)\].*/\1/' | tr ',' '\n' >"$dir/ids"
    echo >>"$dir/ids"
}

# count ID: how often it stands in the last prompt
count() {
    grep -cx "$1" "$dir/ids"
}

image_checks() {
    run "$kim" image "$picture" $sees --npy "$dir/a.npy" --png "$dir/a.png" --soft "$dir/s.npy"
    shows 0 "^picture +384 x 384" out
    check 'NumPy' grep -aq "NUMPY.*'shape': (1, 3, 96, 96)" "$dir/a.npy"
    check 'all pixels' [ "$(wc -c <"$dir/a.npy")" = $((128 + 4 * 3 * 96 * 96)) ]
    check 'soft tokens' grep -aq "'shape': (1, [0-9]*, [0-9]*)" "$dir/s.npy"
    # what was written is of the model's size already: seen again it is the same
    run "$kim" image "$dir/a.png" --mmproj "$demo/demo-mmproj.gguf" --npy "$dir/b.npy"
    shows 0 '96 x 96' out
    check 'the same pixels' cmp -s "$dir/a.npy" "$dir/b.npy"
    run "$kim" image "$dir/a.png" $sees --soft "$dir/t.npy"
    check 'the same soft tokens' cmp -s "$dir/s.npy" "$dir/t.npy"
    run "$kim" image "$tests/corpus/picture/jpeg-1x40.jpg" $sees --pan-and-scan --min-crop 1
    shows 0 '5 tiles of 96' out
    sentence 2 'no picture' "$kim" image $sees
    sentence 2 'belong to --pan-and-scan' "$kim" image "$picture" $sees --max-crops 2
    sentence 1 'no-such.png' "$kim" image "$dir/no-such.png" $sees
    sentence 1 'kim_test.sh: .*(PNG|picture)' "$kim" image "$tests/kim_test.sh" $sees
    head -c 2000 "$picture" >"$dir/cut.png"
    sentence 1 'cut.png: ' "$kim" image "$dir/cut.png" $sees
}

layout_checks() {
    run "$kim" inspect $sees --json
    shows 0 '"vision"' out
    soft=$(sed -n 's/.*"soft_token":[^0-9]*\([0-9]*\).*/\1/p' "$dir/out")
    begin=$(sed -n 's/.*"start_of_image":[^0-9]*\([0-9]*\).*/\1/p' "$dir/out")
    tokens=$(sed -n 's/.*"soft_tokens":[^0-9]*\([0-9]*\).*/\1/p' "$dir/out")
    ids -p 'What is it?' --image "$picture"
    check 'one picture' [ "$(count "$begin"):$(count "$soft")" = "1:$tokens" ]
    ids -p '<start_of_image>Is it like <start_of_image>?' --image "$picture" --image "$other"
    check 'two pictures' [ "$(count "$begin"):$(count "$soft")" = "2:$((2 * tokens))" ]
    ids --raw -p 'A<start_of_image>B' --image "$picture"
    check 'a picture in plain text' [ "$(count "$soft")" = "$tokens" ]
    run "$kim" logits $sees -p 'What is it?' --image "$picture" -n 2 --json
    check 'soft tokens have no likelihood' [ "$(grep -o null "$dir/out" | wc -l)" = "$tokens" ]
    sentence 1 'soft token' "$kim" logits $sees --ids "2,$soft,$soft" -n 0
    ids -p 'What is it?' --image "$picture"
    sentence 1 'soft tokens for 0|more of them' "$kim" logits $sees --ids 2,3,4 -n 0 --image "$picture"
}

chat_checks() {
    run "$kim" chat $sees -q --greedy -p 'What do you see?' --image "$picture"
    shows 0 '^I see ' out
    printf '%s\n' 'What do you see?' "/image $other" 'How many stars are there?' '/stats' \
        "/save $dir/talk" '/clear' "/load $dir/talk" '/regen' >"$dir/lines"
    "$kim" chat -i $sees --greedy --image "$picture" <"$dir/lines" >"$dir/out" 2>"$dir/err"
    status=$? command_line='a conversation about two pictures'
    shows 0 'goes with your next message' err
    shows 0 '^pictures +2 tiles encoded' err
    check 'the same answer after /load' [ "$(sed -n 2p "$dir/out")" = "$(sed -n 3p "$dir/out")" ]
    check 'the names of the pictures are saved' grep -q 'stars.png' "$dir/talk"
    printf '%s\n' "/image $dir/no-such.png" 'Hello' >"$dir/lines"
    "$kim" chat -i $sees -q --greedy <"$dir/lines" >"$dir/out" 2>"$dir/err"
    status=$? command_line='a picture that is not there'
    shows 1 '^kim: .*no-such.png' err
    check 'the conversation goes on' [ -s "$dir/out" ]
}

# Models and projectors that do not go together.
pair_checks() {
    sentence 1 'not a projector' "$kim" chat -m "$demo/demo.gguf" --mmproj "$demo/demo.gguf" -p x
    sentence 1 'is a projector' "$kim" chat -m "$demo/demo-mmproj.gguf" -p x
    sentence 1 'cannot see pictures; .*--mmproj' "$kim" chat -m "$demo/demo.gguf" -p x \
        --image "$picture" $validation
    [ -r "$model" ] || return
    sentence 1 'of width .* has 640' "$kim" chat -m "$model" --mmproj "$demo/demo-mmproj.gguf" -p x
}

image_checks
layout_checks
chat_checks
pair_checks
finish
