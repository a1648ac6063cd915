# Shares of slides, spots and clear slides that were called right; mistakes stay at the site.
FNR == NR { truth[$1] = $2; next }
{
    called = ($2 >= 0.5)
    slides++
    of[truth[$1]]++
    if (called == truth[$1]) { right++; right_of[truth[$1]]++ }
    else print $1 "\t" truth[$1] "\t" $2 > "/local/mistakes.tsv"
}
END {
    if (slides == 0) { print "no predictions" > "/dev/stderr"; exit 1 }
    printf "slides: %d\naccuracy: %.4f\n", slides, right / slides > "/metrics/metrics.yaml"
    printf "sensitivity: %.4f\n", right_of[1] / of[1] > "/metrics/metrics.yaml"
    printf "specificity: %.4f\n", right_of[0] / of[0] > "/metrics/metrics.yaml"
}
