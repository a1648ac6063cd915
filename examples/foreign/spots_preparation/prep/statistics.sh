#!/bin/sh
set -eu
spots=$(awk '$2 == 1' /in/truth/truth.tsv | wc -l)
awk -v spots="$spots" '
    { sum += $2 }
    END { printf "slides: %d\nspots: %d\nmean_brightness: %.4f\n", NR, spots, sum / NR }
' /in/table/slides.tsv > /out/statistics.yaml
