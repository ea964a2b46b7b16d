#!/bin/sh
# SPDX-License-Identifier: MIT
# kim bench: comparisons, pages and traces.
# usage: bench_test.sh TESTS_DIR MODEL KIM
tests=$1
kim=$3
. "$tests/command_support.sh"
demo="-m $tests/../examples/demo/demo.gguf"
card='A <card> & \"co\"' # as JSON has it

# kernel SAMPLES FLOP OP: a row as kim bench kernels prints it, of as many samples, in seconds
kernel() {
    cat <<ROW
{"kind": "kernel", "op": "$3", "type": "Q4_K", "label": "attn_q", "size": "4b", "rows": 4096,
 "width": 14336, "columns": 1, "mode": "address", "way": "few", "checked": true, "error": 1e-6,
 "error_bound": 1e-4, "avg_s": 0.001, "stddev_s": 0.00002, "samples_s": [$1], "flop": $2,
 "bytes": 33000000, "gflops": 117.4, "bandwidth_gbs": 33, "share_of_peak": 0.52, "bound": "copy",
 "registers": 96, "spills": null, "peak_copy_gbs": 63.5, "peak_fp32_gflops": 2000,
 "device": "${device:-$card}", "device_uuid": "${uuid:-0}", "driver": "one",
 "build": "kimberlite"}
ROW
}

# model NAME SAMPLES: a row as kim bench model prints it
model() {
    cat <<ROW
{"test": "$1", "avg_ts": 1, "stddev_ts": 0, "samples_ts": [$2], "device": "card",
 "device_uuid": "${uuid:-0}", "driver": "${driver:-one}", "build": "kimberlite"}
ROW
}

# row NAME: its line of a comparison, without the blanks
row() {
    grep "^| $1  *|" "$dir/out" | tr -d ' '
}

# ------------------------------------------------------------------------------------ comparison

# The p of Welch's test are those of the integral of Student's density, computed apart.
compare_checks() {
    {
        echo "["
        model pp8 '100, 102, 98, 101, 99' && echo ,
        model pp16 '100, 102, 98, 101, 99' && echo ,
        model tg4 '7' && echo ,
        model 'pp8 @ d4' '50, 50, 50' && echo ,
        model gone '1, 2'
        echo "]"
    } >"$dir/old.json"
    {
        echo "["
        driver=two model pp8 '110, 111, 109, 112, 108' && echo ,
        model pp16 '101, 99, 103, 100, 102.5' && echo ,
        model tg4 '9' && echo ,
        model 'pp8 @ d4' '50, 50, 50' && echo ,
        model fresh '1, 2'
        echo "]"
    } >"$dir/new.json"
    run "$kim" bench report "$dir/new.json" --compare "$dir/old.json" -o md
    shows 0 '^kim: warning: the old run is of another driver: one, now two$' err
    check 'one warning' [ "$(wc -l <"$dir/err")" = 1 ]
    check 'what is faster' [ "$(row pp8)" = '|pp8|100.00±1.58|110.00±1.58|1.100|8.5e-06|faster|' ]
    check 'what does not differ' \
        [ "$(row pp16)" = '|pp16|100.00±1.58|101.10±1.67|1.011|0.32|nodifference|' ]
    check 'one sample' [ "$(row tg4)" = '|tg4|7.00|9.00|1.286|n/a|toofewsamples|' ]
    check 'no spread, and the same' \
        [ "$(row 'pp8 @ d4')" = '|pp8@d4|50.00±0.00|50.00±0.00|1.000|1|nodifference|' ]
    shows 0 '^not in the old run: fresh$' out
    shows 0 '^only in the old run: gone$' out
    run "$kim" bench report "$dir/old.json" --compare "$dir/new.json" -o json
    shows 0 '"verdict":	"slower"' out
    check 'a comparison for programs' [ "$(grep -c '"ratio":' "$dir/out")" = 4 ]

    { echo "[" && kernel '0.00100, 0.00102, 0.00098' 117440512 matmul && echo "]"; } >"$dir/k1.json"
    { echo "[" && device=B uuid=1 kernel '0.0015, 0.0011, 0.0013, 0.0016' 117440512 matmul &&
        echo "]"; } >"$dir/k2.json"
    run "$kim" bench report "$dir/k2.json" --compare "$dir/k1.json" -o json
    shows 0 '^kim: warning: the old run is of another device: A <card> & "co", now B$' err
    shows 0 '"p":	0.0422253' out
    shows 0 '"ratio":	0.7272' out
    shows 0 '"verdict":	"no difference"' out
}

refusal_checks() {
    run "$kim" bench report --help
    shows 0 '^Usage: kim bench report FILE ' out
    sentence 2 'no option --no-such-flag' "$kim" bench report --no-such-flag
    sentence 1 'none.json: No such file' "$kim" bench report "$dir/none.json"
    head -c 200 "$dir/old.json" >"$dir/part.json"
    sentence 1 'part.json is not JSON' "$kim" bench report "$dir/part.json"
    echo '{"test": "pp8"}' >"$dir/object.json"
    echo '[]' >"$dir/empty.json"
    echo '[{"test": "pp8"}, 7]' >"$dir/other.json"
    for bad in object empty other; do
        sentence 1 "$bad.json is JSON, but not what" "$kim" bench model $demo \
            --compare "$dir/$bad.json"
    done
    sentence 1 'k1.json is of kim bench kernels; .* kim bench model' "$kim" bench model $demo \
        --compare "$dir/k1.json"
    sentence 1 'k2.json is of another device' "$kim" bench report "$dir/k1.json" --with \
        "$dir/k2.json"
    sentence 2 'compare goes with' "$kim" bench model $demo -o csv --compare "$dir/old.json"
    sentence 2 'output-file goes with' "$kim" bench model $demo --output-file "$dir/page.html"
    sentence 2 'needs the file' "$kim" bench report
    sentence 2 'with --compare md' "$kim" bench report "$dir/old.json" -o md
    sentence 1 'is a folder' "$kim" bench report "$dir/old.json" --output-file "$dir"
}

# ------------------------------------------------------------------------------------------ pages

# well_formed FILE: every element ends, in the right order, and every attribute is in quotes
well_formed() {
    sed -e '/<!\[CDATA\[/,/\]\]>/d' "$1" | awk '
        BEGIN { RS = "<"; depth = 0; bad = 0 }
        NR == 1 || /^!DOCTYPE html>/ { next }
        {
            end = index($0, ">")
            if (!end) { bad++; next }
            tag = substr($0, 1, end - 1)
            text = substr($0, end + 1)
            if (gsub(/>/, "", text) || text ~ /&([^a-z#]|$)/ || text ~ /&[a-z#0-9]*[^a-z#0-9;]/)
                bad++
            if (tag ~ /^\//) {
                if (!depth || stack[depth--] != substr(tag, 2)) bad++
                next
            }
            rest = tag
            sub(/^[a-z0-9]+/, "", rest)
            while (sub(/^[ \n]+[-a-zA-Z0-9]+="[^"<]*"/, "", rest)) ;
            if (rest != "" && rest != "/") bad++
            if (rest == "/") next
            match(tag, /^[a-z0-9]+/)
            stack[++depth] = substr(tag, 1, RLENGTH)
        }
        END { exit bad || depth }'
}

# page_is_whole FILE: what every page has to be
page_is_whole() {
    check 'the page is well-formed' well_formed "$1"
    check 'it needs no other file' \
        [ "$(grep -cE '(src|href)=|url\(|@import|https?:|fetch\(' "$1")" = 0 ]
    check 'no figure is left out by accident' [ "$(grep -ciE '[">:, ](-?nan|-?inf)\b' "$1")" = 0 ]
    check 'it has a dark side' grep -q 'prefers-color-scheme:dark' "$1"
}

page_checks() {
    echo '<b><i>a</b></i>' >"$dir/wrong.html"
    check 'what is not well-formed is found' eval '! well_formed "$dir/wrong.html"'
    {
        echo "["
        kernel '0.001, 0.0011' 117440512 matmul && echo ,
        kernel '0.001, 0.0011' 2e12 attention && echo ,
        kernel '0.001, 0.0011' 0 copy
        echo "]"
    } >"$dir/kernels.json"
    run "$kim" bench report "$dir/kernels.json" --compare "$dir/k1.json"
    page_is_whole "$dir/out"
    shows 0 '<dd>A &lt;card&gt; &amp; &quot;co&quot;</dd>' out
    check 'a mark for each kernel that computes' [ "$(grep -c '<circle.*<title>' "$dir/out")" = 2 ]
    for text in 'copy 63\.5 GB/s' 'fp32 2000\.0 GFLOP/s' 'flop / byte' 'speed \(GFLOP/s\)' \
        '>matmul Q4_K attn_q 4b m=4096 k=14336 n=1 address few</td>' '>right<' '>no difference<'; do
        shows 0 "$text" out
    done
    run "$kim" bench report "$dir/kernels.json" --output-file "$dir/page.html"
    check 'a file instead of stdout' [ "$status" = 0 -a -s "$dir/page.html" -a ! -s "$dir/out" ]
    run "$kim" bench report "$dir/old.json" # nothing to plot
    page_is_whole "$dir/out"
}

# ------------------------------------------------------------------------------- with a device

trace_checks() {
    run "$kim" bench model $demo -p 8 -n 2 -r 2 -o json --trace --compare "$dir/old.json" \
        $validation --output-file "$dir/run.json"
    check 'a run' [ "$status" = 0 ]
    shows 0 'another device' err
    cp "$dir/run.json" "$dir/out"
    for key in trace run command submit kind section operation text sizes groups flop read written \
        seconds tensors barrier compare; do
        shows 0 "^	+\"$key\":	" out
    done
    layers=$(grep -o '"section":	"layer [0-9]*"' "$dir/out" | sort -u | wc -l)
    check 'each layer' [ "$layers" = "$("$kim" inspect ${demo#-m } --json |
        sed -n 's/^	"layers":	\([0-9]*\),/\1/p')" ]
    run "$kim" bench report "$dir/run.json"
    page_is_whole "$dir/out"
    for text in 'layer by layer' '<title>matmul Q8_0 m=[0-9]* k=[0-9]* n=1' '>embedding<' \
        "blk.0.ffn_down.weight"; do
        shows 0 "$text" out
    done
    check 'a bar for each layer of both tests' \
        [ "$(grep -cE '>layer [0-9]+</text>' "$dir/out")" = $((2 * layers)) ]
    run "$kim" bench model $demo -p 0 -n 2 -r 1 --trace $validation
    shows 0 '^trace of tg2$' err
    shows 0 '^ +[0-9]+ +[0-9.]+ us .* in .* out .*  embed Q8_0 width=[0-9]+ rows=1 ' err
    shows 0 '^  layer 1$' err
    shows 0 '^      barrier: ' err
    run "$kim" logits $demo --ids 2,5,7 -n 1 --trace --json $validation
    shows 0 '^	"steps":' out
    shows 0 '^ .* in .* out .*  embed Q8_0 width=[0-9]+ rows=3 .*token_embd.weight' err
    run "$kim" bench model $demo -p 4 -n 0 -r 1 -o html $validation
    page_is_whole "$dir/out"
    shows 0 '>pp4<' out
}

compare_checks
refusal_checks
page_checks
trace_checks
finish
