#!/bin/sh
set -eu
[ -s /in/metadata/made_from.txt ] || { echo "no metadata" >&2; exit 3; }
cut -f1 /in/table/slides.tsv | sort > /tmp/slides
cut -f1 /in/truth/truth.tsv | sort > /tmp/truth
if [ "$(cat /tmp/slides)" != "$(cat /tmp/truth)" ]; then
    echo "slides and truth do not speak of the same slides" >&2
    exit 4
fi
echo "$(wc -l < /tmp/slides) slides are sane"
