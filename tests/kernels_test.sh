#!/bin/sh
# SPDX-License-Identifier: MIT
# kim selftest and kim bench kernels from outside: exit codes, sentences, what JSON and CSV hold.
# usage: kernels_test.sh TESTS_DIR MODEL KIM
tests=$1
kim=$3
. "$tests/command_support.sh"

run "$kim" selftest --op matmull
shows 2 "there is no operation called 'matmull'" err
run "$kim" selftest --op norm --type q4_0
shows 0 '^all [0-9]+ right$' out
run "$kim" selftest --op matmul_norm --type q4_0 $validation
shows 0 '^all [12] right$' out
run "$kim" selftest --op norm --json $validation
for key in device device_uuid driver build right wrong kernels; do
    shows 0 "^	\"$key\":	" out
done
check 'each kernel with its figures' [ "$(grep -c '"error_bound":' "$dir/out")" = \
    "$(grep -c '"right":	true' "$dir/out")" ]

for wrong in '--size 3b' '--op x' '--type q9' '--way slow' '--columns 0' '-r 0' '-o xml'; do
    run "$kim" bench kernels $wrong
    check "bench kernels $wrong is bad usage" [ "$status" = 2 ]
done
run "$kim" bench kernels --op norm --columns 1,3 -r 2
shows 0 '^4 kernels of 270m' out
shows 0 '^\| norm +\| +\| first norm +\| +0 \| +640 \| +3 \|' out
shows 0 '^measured peaks: copy [0-9.]+ GB/s, fp32 [0-9.]+ GFLOP/s' out
shows 0 'UUID [0-9a-f-]+' out
run "$kim" bench kernels --size 1b --op matmul_norm --type q8_0 -r 2 -o json $validation
for key in kind op type label size rows width columns mode way checked error error_bound avg_s \
    stddev_s cpu_s samples_s flop bytes gflops bandwidth_gbs share_of_peak bound registers spills \
    clock_mhz peak_copy_gbs peak_fp32_gflops device device_uuid driver build; do
    shows 0 "^		\"$key\":	" out
done
check 'two products with norms in a layer' [ "$(grep -c '"checked":	true' "$dir/out")" = 2 ]
run "$kim" bench kernels --op geglu --columns 2 -r 1 -o csv
shows 0 '^kind,op,type,label,size,rows,width,columns,.*,device,device_uuid,driver,build$' out
shows 0 '^"kernel","geglu","",' out
finish
