#!/bin/sh
# SPDX-License-Identifier: MIT
# The command from outside: exit codes, sentences, shapes of its output, files that stay whole.
# usage: kim_test.sh TESTS_DIR MODEL KIM      (as root also a full disk; else a limit stands for it)
tests=$1
model=$2
kim=$3
[ -r "$model" ] || { echo "no model at $model"; exit 77; }
. "$tests/command_support.sh"

# ---------------------------------------------------------------------------------- helpers

# converse LINES OPTION...: a conversation typed from a pipe
converse() {
    lines=$1
    shift
    printf '%s\n' "$lines" >"$dir/lines"
    "$kim" chat -i -q -m "$model" --greedy -n 6 $validation "$@" \
        <"$dir/lines" >"$dir/out" 2>"$dir/err"
    status=$?
    command_line="chat -i $* with: $(echo "$lines" | tr '\n' '|')"
}

# patch FILE OFFSET BYTES: BYTES as printf takes them
patch() {
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# offset TEXT: where it first stands in the model
offset() {
    head -c 16777216 "$model" | grep -abo -m1 -F "$1" | head -n 1 | cut -d: -f1
}

# ------------------------------------------------------------------------- the command line

usage_checks() {
    run "$kim"
    shows 2 '^Usage: kim COMMAND' err
    run "$kim" help
    shows 0 '^  chat ' out
    run "$kim" --version
    shows 0 '^kim [0-9]+\.[0-9]+\.[0-9]+$' out
    for command in chat logits image tokenize inspect devices "bench model" pull; do
        run "$kim" $command --help
        shows 0 "^Usage: kim $command " out
        sentence 2 'no option --no-such-flag' "$kim" $command --no-such-flag
    done
    run "$kim" help logits
    shows 0 '^Usage: kim logits ' out
    sentence 2 'no command "fly"' "$kim" fly
    sentence 2 'no option --loud' "$kim" --loud
    sentence 2 'kim bench model' "$kim" bench
    sentence 2 'no benchmark "speed"' "$kim" bench speed
    sentence 2 '--model needs a value|-m needs a value' "$kim" chat -m
    sentence 2 'does not take "extra"' "$kim" devices extra
    sentence 2 'takes no value' "$kim" devices --json=yes
    sentence 2 'no model.*KIM_MODEL' "$kim" chat -p x
    sentence 2 '"many" is not a number' "$kim" chat -m "$model" --context many
    sentence 2 'out of range' "$kim" chat -m "$model" -n 99999999999
    sentence 2 '--context is -5' "$kim" chat -m "$model" --context -5
    sentence 2 "--cache-type: .*'q4'" "$kim" chat -m "$model" --cache-type q4
    sentence 2 '--draft-max is 8' "$kim" chat -m "$model" -p x --lookup --draft-max 8
    sentence 2 '--model-draft and --lookup' "$kim" chat -m "$model" -p x --draft-max 3
    sentence 2 '--top-p is 1.5' "$kim" chat -m "$model" -p x --top-p 1.5
    sentence 2 '--temp is nan' "$kim" chat -m "$model" -p x --temp nan
    sentence 2 '--mode is "verse"' "$kim" chat -m "$model" -p x --mode verse
    sentence 2 '--memory-cap is "1X"' "$kim" chat -m "$model" -p x --memory-cap 1X
    sentence 2 '--memory-mode is "magic"' "$kim" logits -m "$model" -p x --memory-mode magic
    sentence 2 'the prompt is empty' "$kim" chat -m "$model"
    sentence 2 'no prompt' "$kim" logits -m "$model"
    sentence 2 'more than one prompt' "$kim" logits -m "$model" -p x --ids 2
    sentence 2 '"two" is not a token id' "$kim" logits -m "$model" --ids 2,two
    sentence 2 '-b is 65' "$kim" bench model -m "$model" -b 2,65
    sentence 2 '--lookup and --model-draft are for one session' \
        "$kim" bench model -m "$model" -b 1,2 --lookup
    sentence 2 '--model-draft and --lookup' "$kim" bench model -m "$model" --draft-min 2
    sentence 2 '-o is "xml"' "$kim" bench model -m "$model" -o xml
    sentence 2 '-p is "5,x"' "$kim" bench model -m "$model" -p 5,x
    sentence 2 '-pg is "5"' "$kim" bench model -m "$model" -pg 5
    sentence 2 'nothing to measure' "$kim" bench model -m "$model" -p 0,0 -n 0
    sentence 1 "no synthetic model '5b:q4_0'.* 270m, 1b, .* q4_k_m, " \
        "$kim" bench model --synthetic 5b:q4_0
    sentence 2 'both a model' "$kim" inspect "$model" --synthetic 4b:q4_0
}

# ------------------------------------------------------------------------------ a file's content

# A copy with all of the metadata, and zeros for weights that take no room on the disk.
hollow_model() {
    head -c 16777216 "$model" >"$1"
    truncate -s "$size" "$1"
}

# bad_model PATTERN OFFSET BYTES: the model with those bytes is refused, wherever it is opened
bad_model() {
    hollow_model "$dir/bad.gguf"
    patch "$dir/bad.gguf" "$2" "$3"
    sentence 1 "$1" "$kim" inspect "$dir/bad.gguf"
}

file_checks() {
    size=$(wc -c <"$model")
    sentence 1 'no-such.gguf' "$kim" inspect "$dir/no-such.gguf"
    sentence 1 "$dir" "$kim" inspect "$dir"
    : >"$dir/empty.gguf"
    sentence 1 'empty.gguf' "$kim" inspect "$dir/empty.gguf"
    echo 'This is a text, and no model at all.' >"$dir/text.gguf"
    sentence 1 'text.gguf.*GGUF' "$kim" inspect "$dir/text.gguf"
    for length in 3 20 1000 4000000 $((size / 2)) $((size - 1)); do
        head -c "$length" "$model" >"$dir/short.gguf"
        sentence 1 'short.gguf' "$kim" inspect "$dir/short.gguf"
    done
    sentence 1 'short.gguf' "$kim" tokenize -m "$dir/short.gguf"
    rm "$dir/short.gguf"
    bad_model 'bad.gguf.*version' 4 '\143\0\0\0'
    bad_model 'bad.gguf' 8 '\377\377\377\377\377\377\377\377'  # tensors
    bad_model 'bad.gguf' 16 '\377\377\377\377\377\377\377\177' # keys
    bad_model 'bad.gguf' 24 '\377\377\377\377\377\377\377\377' # the first key's length
    bad_model 'bad.gguf.*(gemmaX|architecture)' \
        $(($(offset general.architecture) + 20 + 4 + 8 + 5)) X
    tensor=$(offset blk.5.attn_q.weight)
    bad_model 'bad.gguf.*blk\.5\.attn_q\.weight' $((tensor + 6)) X # its name: it is missing
    bad_model 'bad.gguf.*blk\.5\.attn_q\.weight' $((tensor + 19)) '\011' # its dimensions
    bad_model 'bad.gguf.*blk\.5\.attn_q\.weight' $((tensor + 23)) '\0\1' # its shape
    bad_model 'bad.gguf.*blk\.5\.attn_q\.weight' $((tensor + 39)) '\143' # its type
    bad_model 'bad.gguf.*blk\.5\.attn_q\.weight' $((tensor + 43)) \
        '\0\377\377\377\377\377\377\177' # its place
    rm "$dir/bad.gguf"
}

# --------------------------------------------------------------------------------- without a GPU

no_gpu_checks() {
    # an `env` of its own: the variables of the test's driver are not for this
    none="env VK_ICD_FILENAMES=$dir/none.json VK_DRIVER_FILES=$dir/none.json"
    sentence 1 'Vulkan' $none "$kim" devices
    sentence 1 'Vulkan' $none "$kim" chat -m "$model" -p x
    sentence 1 'Vulkan' $none "$kim" logits -m "$model" -p x
    sentence 1 'Vulkan' $none "$kim" bench model -m "$model"
    run $none "$kim" inspect "$model"
    shows 0 '^  total +[0-9]+ bytes' out
    shows 0 '^No plan for a device: .*Vulkan' out
    run $none "$kim" inspect "$model" --json
    for key in architecture layers quantisations tensors tokenizer plan no_devices; do
        shows 0 "^	\"$key\":	" out
    done
    shows 0 '"name":	"blk.17.attn_q.weight"' out
    printf 'Hello world!' | $none "$kim" tokenize -m "$model" >"$dir/out" 2>"$dir/err"
    status=$? command_line=tokenize
    shows 0 '^2 9259 1902 236888$' out
}

tokenize_checks() {
    command_line=tokenize status=0
    printf 'a   b' | "$kim" tokenize -m "$model" --json >"$dir/out" 2>"$dir/err"
    check 'JSON is an array of ids' [ "$(cat "$dir/out")" = '[2, 236746, 139, 236763]' ]
    printf '<start_of_turn>user\nHi<end_of_turn>\n' | "$kim" tokenize -m "$model" >"$dir/out"
    check 'special tokens are recognised' [ "$(cat "$dir/out")" = '2 105 2364 107 10979 106 107' ]
    printf '<end_of_turn>' | "$kim" tokenize -m "$model" --no-special >"$dir/out"
    check 'or are plain text' [ "$(cut -c1-6 "$dir/out")" = '2 2365' -o \
        "$(grep -c '\b106\b' "$dir/out")" = 0 ]
    # every byte there is, in a text that is no UTF-8
    awk 'BEGIN { for (i = 0; i < 256; i++) printf "\\%03o", i }' >"$dir/escapes"
    printf "$(cat "$dir/escapes")" >"$dir/bytes"
    "$kim" tokenize -m "$model" <"$dir/bytes" >"$dir/ids"
    "$kim" tokenize -m "$model" --decode <"$dir/ids" >"$dir/back"
    check 'any bytes come back' cmp "$dir/bytes" "$dir/back"
    echo '[2, 9259, 1902]' | "$kim" tokenize -m "$model" --decode --json >"$dir/out"
    check 'ids to a JSON string' [ "$(cat "$dir/out")" = '"Hello world"' ]
    echo '2 frog' >"$dir/lines"
    "$kim" tokenize -m "$model" --decode <"$dir/lines" >"$dir/out" 2>"$dir/err"
    status=$?
    shows 1 '^kim: stdin: "frog" is not a token id$' err
    echo '2 999999999' | "$kim" tokenize -m "$model" --decode >"$dir/out" 2>"$dir/err"
    status=$?
    shows 1 '^kim: stdin: there is no token 999999999' err
}

# ------------------------------------------------------------------------------------- output

pipe_checks() {
    sentence 1 'could not be written: No space' sh -c "'$kim' inspect '$model' --json >/dev/full"
    sentence 1 'could not be written: No space' sh -c "'$kim' devices >/dev/full"
    sentence 1 'could not be written' sh -c "'$kim' devices >&-"
    for command in "inspect $model --json" devices --help "chat -q -m $model -n 200 -p Once"; do
        command_line="$command, into a closed pipe"
        { sleep 0.3; "$kim" $command 2>"$dir/err"; echo $? >"$dir/status"; } | : >"$dir/out"
        status=$(cat "$dir/status")
        check 'a closed pipe ends it quietly' [ "$status" = 1 -a ! -s "$dir/err" ]
    done
}

# -------------------------------------------------------------------------------- with a device

device_checks() {
    run "$kim" devices
    shows 0 '<- default' out
    run "$kim" devices --json
    shows 0 '"default":	true' out
    shows 0 '"buffer_device_address":	(true|false)' out
    shows 0 '"subgroup_quads":	(true|false)' out
    uuid=$(sed -n 's/.*"uuid":	"\(.*\)",/\1/p' "$dir/out" | head -n 1)
    sentence 1 'no-such-device' "$kim" chat -m "$model" -p x --device no-such-device
    sentence 1 '99' "$kim" logits -m "$model" -p x --device 99
    sentence 1 'no-such-device' "$kim" inspect "$model" --device no-such-device
    sentence 1 'memory|cap' "$kim" chat -m "$model" -p x --memory-cap 1M
    run "$kim" inspect "$model" --device "$uuid" --context 32768
    shows 0 '^On device [0-9]+, ' out
    run "$kim" inspect "$model" --cache-type q8_0 --json
    shows 0 '"plan_cache_type":	"q8_0"' out
    sentence 1 'context|positions' "$kim" logits -m "$model" --raw -p 'one two three' --context 2
    sentence 1 'id|vocab' "$kim" logits -m "$model" --ids 2,999999999 -n 1
}

logits_checks() {
    text='The capital of France is'
    run "$kim" logits -m "$model" --raw -p "$text" -n 3 --top 2 --json $validation
    for key in prompt_ids nll steps; do
        shows 0 "^	\"$key\":	\[" out
    done
    ids=$(sed -n 's/^	"prompt_ids":	\(.*\),$/\1/p' "$dir/out")
    check 'the prompt is as tokenize has it' \
        [ "$ids" = "$(printf '%s' "$text" | "$kim" tokenize -m "$model" --json)" ]
    check 'an nll for each token after the first' [ "$(echo "$ids" | tr -cd , | wc -c)" = \
        "$(sed -n 's/^	"nll":	\(.*\),$/\1,/p' "$dir/out" | tr -cd , | wc -c)" ]
    check 'three steps' [ "$(grep -c '"text":' "$dir/out")" = 3 ]
    steps=$(sed -n 's/^			"id":	\(.*\),/\1/p' "$dir/out")
    check 'with two of the best' [ "$(grep -c '"logprob":' "$dir/out")" = 9 ]
    run "$kim" logits -m "$model" --ids "$ids" -n 3 --top 0 --json --batch 1 $validation
    check 'token by token the same' \
        [ "$steps" = "$(sed -n 's/^			"id":	\(.*\),/\1/p' "$dir/out")" ]
    run "$kim" logits -m "$model" -p Hello -n 1 --cache-type q8_0 $validation
    shows 0 '^prompt: [0-9]+ tokens, mean negative log-likelihood' out
    run "$kim" bench model -m "$model" -p 16 -n 4 -r 2 -o json $validation
    for key in test n_prompt n_gen n_depth avg_ns stddev_ns samples_ns avg_ts stddev_ts samples_ts \
        ttft_ms samples_ttft_ns bandwidth_gbs copy_share gflops fp32_share dispatches_per_step \
        barriers_per_step submits_per_step host_us_per_step joules_per_token clock_mhz \
        load_open_s load_pipelines_s load_upload_s load_upload_bytes start_to_first_token_s \
        memory_peak_bytes peak_copy_gbs peak_fp32_gflops device device_uuid driver build; do
        shows 0 "^		\"$key\":	" out
    done
    shows 0 '"test":	"tg4"' out
    run "$kim" bench model --synthetic 270m:q4_0 -p 4,2 -n 0 -pg 2,1 -d 0,3 -r 1 -o csv
    shows 0 '^test,n_prompt,.*,peak_copy_gbs,.*,device_uuid,driver,build$' out
    for name in pp4 pp2 pp2+tg1 'pp4 @ d3' 'pp2 @ d3' 'pp2+tg1 @ d3'; do
        check "a row $name" [ "$(grep -c "^\"$name\",[0-9]" "$dir/out")" = 1 ]
    done
    run "$kim" bench model -m "$tests/../examples/demo/demo.gguf" -p 4 -n 3 -pg 4,2 -d 0,5 -b 2 -r 1 \
        -o csv
    for name in 'pp4 x 2' 'tg3 x 2' 'pp4+tg2 x 2' 'pp4 @ d5 x 2' 'tg3 @ d5 x 2' \
        'pp4+tg2 @ d5 x 2'; do
        check "a row $name" [ "$(grep -c "^\"$name\",[0-9]" "$dir/out")" = 1 ]
    done
    demo=$tests/../examples/demo/demo.gguf
    run "$kim" bench model -m "$demo" -p 4 -n 12 -r 1 -o json --model-draft "$demo" --draft-min 2 \
        $validation
    shows 0 '"test":	"tg12"' out
    shows 0 '"draft_n":	[1-9]' out
    shows 0 '"drafts_right":	1,' out # of the same model all are
    shows 0 '"model_draft":	"Kimberlite demo"' out
    check 'none of a prompt' [ "$(grep -c '"draft_n":	null' "$dir/out")" = 1 ]
    run "$kim" bench model -m "$demo" -p 0 -n 32 -r 1 --lookup --draft-min 2 $validation
    shows 0 '^\| Kimberlite demo .*\| tg32 .* [0-9]+% \|$' out
    shows 0 '^drafts: looked up, [0-9]+ of [1-9][0-9]* right$' out
    run "$kim" inspect --synthetic 27b:q4_k_m+vision
    shows 0 'synthetic 27b:q4_k_m\+vision .*27B' out
    shows 0 ' F16 +163 ' out
}

chat_checks() {
    run "$kim" chat -m "$model" -p 'Once upon a time' --greedy -n 6 --stats $validation
    shows 0 '^loading   files read in [0-9.]+ s, [0-9]+ MiB brought .* pipelines made in' err
    shows 0 '^\[ prompt [0-9.]+ tok/s \| answer [0-9.]+ tok/s \| context [0-9]+/[0-9]+ \]$' err
    shows 0 'pre-trained' err
    cp "$dir/out" "$dir/once"
    run "$kim" chat -m "$model" -p 'Once upon a time' --greedy -n 6 --model-draft "$model" \
        --draft-min 2 --stats $validation
    check 'an answer with drafts is the same' cmp "$dir/once" "$dir/out"
    shows 0 'tok/s \| 100% of [0-9]+ drafts right \| context' err
    shows 0 '^drafts    [0-9]+ of [0-9]+ right; answers took [0-9]+ steps' err
    sentence 1 'Kimberlite demo cannot draft for Gemma 3 270m' "$kim" chat -m "$model" -p x -q \
        --model-draft "$tests/../examples/demo/demo.gguf"
    echo 'Once upon a time' | "$kim" chat -q -m "$model" --greedy -n 6 >"$dir/out" 2>"$dir/err"
    status=$?
    check 'a pipe is answered as -p is' cmp "$dir/once" "$dir/out"
    converse '/images cat.png'
    shows 1 '^kim: there is no command /images; /help lists them' err
    converse '/image cat.png'
    shows 1 '^kim: this model cannot see pictures; .*--mmproj' err
    converse '/help'
    shows 0 '^  /regen ' err
    converse "Once upon a time
/regen
/stats"
    shows 0 '^context ' err
    check '/regen, greedy, gives the same' \
        [ "$(head -n 1 "$dir/out")" = "$(tail -n 1 "$dir/out")" -a -s "$dir/out" ]
    converse '"""
first line
second line
"""' --mode template
    check 'one answer to several lines' [ "$(grep -c . "$dir/out")" -ge 1 ]
    awk 'BEGIN { for (i = 0; i < 400; i++) printf "word " }' >"$dir/long"
    converse "/read $dir/long
tell me" --context 64
    shows 1 '^kim: with this message there are [0-9]+ tokens, [0-9]+ more than .*64' err
    check 'what does not fit is not answered' [ ! -s "$dir/out" ]
    for bad in "/read $dir/none" "/load $dir/none" "/load $dir/once" "/save $dir/none/f" \
        "/save $dir" "/save /dev/full" "/load" "/mode verse"; do
        converse "$bad"
        shows 1 '^kim: ' err
    done
    check '/dev/full is as it was' [ -c /dev/full ]
}

# At a terminal, which script(1) makes where it is installed.
terminal_checks() {
    has_terminal || return
    printf 'Once upon a time\r/stats\r/exit\r' | TERM=xterm \
        script -qec "'$kim' chat -m '$model' --greedy -n 6" "$dir/screen" >"$dir/out" 2>"$dir/err"
    status=$? command_line='chat at a terminal'
    shows 0 '^.*\[ prompt [0-9.]+ tok/s \| answer [0-9.]+ tok/s \| context' out
    shows 0 'loading .*%' out
    shows 0 'dispatches' out
    check 'what was typed is remembered' \
        grep -q 'Once.040upon' "$dir/cache/kimberlite/chat_history"
}

save_checks() {
    converse "Once upon a time
/save $dir/talk
/exit"
    shows 0 'saved to' err
    converse "Once upon a time

/exit"
    go_on=$(tail -n 1 "$dir/out")
    converse "/load $dir/talk

/exit"
    shows 0 '2 messages' err
    check 'a loaded conversation goes on as the first would' \
        [ "$(tail -n 1 "$dir/out")" = "$go_on" -a -n "$go_on" ]
    head -c 100 "$dir/talk.kv" >"$dir/part" && mv "$dir/part" "$dir/talk.kv"
    converse "/load $dir/talk

/exit"
    shows 0 'read again' err
    check 'also when its K and V are damaged' [ "$(tail -n 1 "$dir/out")" = "$go_on" ]
    head -c 60 "$dir/talk" >"$dir/half"
    converse "/load $dir/half"
    shows 1 '^kim: .*half cannot be loaded' err
}

# full_disk FOLDER: saving there fails, in one sentence, and what is there stays whole
full_disk() {
    echo precious >"$dir/precious"
    for file in talk talk.kv; do
        cp "$dir/precious" "$1/$file"
    done
    before=$(ls -A "$1")
    fill "$1"
    converse "Once upon a time
/save $1/talk"
    shows 1 "^kim: .*talk.*(space|large|written)" err
    unfill
    check 'an existing file stays whole' cmp -s "$dir/precious" "$1/talk"
    check 'and so does the one beside it' cmp -s "$dir/precious" "$1/talk.kv"
    check 'nothing else is left' [ "$(ls -A "$1")" = "$before" ]
}

disk_checks() {
    mkdir "$dir/disk"
    if mount -t tmpfs -o size=64k none "$dir/disk" 2>/dev/null; then
        fill() { dd if=/dev/zero of="$1/fill" bs=1k count=100 status=none 2>/dev/null; }
        unfill() { rm -f "$dir/disk/fill"; }
        full_disk "$dir/disk"
        # room for the conversation, none for its K and V
        rm -f "$dir/disk"/*
        cp "$dir/precious" "$dir/disk/talk.kv"
        converse "Once upon a time
/save $dir/disk/talk"
        shows 1 '^kim: .*talk is saved, but not what the model computed for it' err
        check 'the conversation is there' grep -q 'Once upon a time' "$dir/disk/talk"
        check 'the old K and V too' cmp -s "$dir/precious" "$dir/disk/talk.kv"
        umount "$dir/disk"
    else
        echo "no tmpfs can be mounted here: the full disk while saving is not checked"
    fi
}

usage_checks
file_checks
no_gpu_checks
tokenize_checks
device_checks
pipe_checks
logits_checks
chat_checks
terminal_checks
save_checks
disk_checks
finish
