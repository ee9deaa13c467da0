# SPDX-License-Identifier: MIT
# Fields, associative arrays, text: mawk -f words.awk FILE
{
    for (i = 1; i <= NF; i++) {
        n[substr($i, 1, 3)]++
        sum += $i * i
    }
    gsub(/7/, "seven")
    len += length($0)
}
END {
    for (w in n) most = n[w] > most ? n[w] : most
    printf "%d %.0f %d\n", most, sum, len
}
