#!/bin/sh
# One line a slide: name, mean and brightest grey value as shares of the full scale.
set -eu
scale=$(sed -n 's/^full_scale: *//p' /in/parameters.yaml)
: > /out/table/slides.tsv
for slide in /in/images/*.pgm; do
    name=$(basename "$slide" .pgm)
    echo "reading $name"
    awk -v name="$name" -v scale="$scale" '
        NR == 1 && $1 != "P2" { print name ": not a plain PGM" > "/dev/stderr"; exit 1 }
        NR > 3 { for (i = 1; i <= NF; i++) { sum += $i; n++; if ($i > top) top = $i } }
        END { if (n) printf "%s\t%.4f\t%.4f\n", name, sum / n / scale, top / scale }
    ' "$slide" >> /out/table/slides.tsv
done
awk '{ print $1 "\t" ($2 == "spot") }' /in/truth/truth.txt > /out/truth/truth.tsv
echo "full scale $scale, $(wc -l < /out/table/slides.tsv) slides" > /out/metadata/made_from.txt
