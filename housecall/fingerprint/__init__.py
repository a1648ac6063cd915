"""The fingerprint of a dataset: one SHA-256 over contents, names, layout and which part is which.

Whether a fingerprint is the right one, and when to take it, is the caller's. The definition, from
which another implementation can be written (`b"..."` are bytes, `%d` is a decimal number):

1. A dataset has named parts, such as `data` and `labels`; each is a folder or a single file, and
   one folder may serve as several parts. Where a part lies does not count. A name is a byte string:
   a part's in UTF-8, a file's as the file system holds it (on POSIX; else UTF-8).
2. The *content digest* of a file of up to 64 MiB (67,108,864 bytes) is the SHA-256 of its bytes.
   A larger one is cut into pieces of 64 MiB, the last one shorter; its content digest is the
   SHA-256 over the 32-byte SHA-256 digests of the pieces, one after the other.
3. The *manifest* starts with the line `b"housecall fingerprint 1\\n"`. Then the parts follow,
   sorted by name (as bytes, as all sorting here).
4. A part gives `b"part %d:NAME folder\\n"` or `b"part %d:NAME file\\n"`; `%d` is the length of NAME
   in bytes, so that names may hold any byte. Then its entries follow, sorted by path.
5. An entry's path is relative to the part's folder, with `/` between names and none at either end.
   Every folder below (the empty ones too) gives `b"dir %d:PATH\\n"`, every file gives
   `b"file %d:PATH %d DIGEST\\n"`: the length of PATH in bytes, PATH, the file's size in bytes and
   its content digest in lower-case hexadecimal.
6. A part that is a file has one entry, whose path is the file's name.
7. A symbolic link counts as the file or folder it leads to, under the link's own name. It must
   stay inside the part's folder and must not lead to a folder that it lies in.
8. The fingerprint is `sha256:` and the SHA-256 of the manifest in lower-case hexadecimal.

Test vector: the part `data` is a folder with an empty folder `empty` and a file `scan/a.bin` of the
bytes `abc`; the part `labels` is a file `labels.csv` of the bytes `x,1` and a newline. Manifest::

    housecall fingerprint 1
    part 4:data folder
    dir 5:empty
    dir 4:scan
    file 10:scan/a.bin 3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
    part 6:labels file
    file 10:labels.csv 4 c70aa381191a9a81846a5180b91f09043fb10307d68f7b76483439b8cafa9000

Fingerprint: `sha256:3e953506e0f3efe1b9a88baa488966a671fe32b069b49a1bcddc52872fe38668`.

Threads: batches of files, and pieces of large files, are hashed by `threads` threads, which take a
batch at a time; the calling thread only gathers their digests, reports progress, writes the cache.

Rooms: `listing` (rules 1, 5 to 7), `hashing` (rule 2), `compute` (rules 3 to 5 and 8); `pool` and
`tally` are the threads and their gatherer, `cache` what is not read twice, `refusals` the noes.
"""

from __future__ import annotations

from housecall.fingerprint.cache import FingerprintCache
from housecall.fingerprint.compute import Fingerprint, fingerprint
from housecall.fingerprint.refusals import DataError
from housecall.fingerprint.tally import Progress

__all__ = ["DataError", "Fingerprint", "FingerprintCache", "Progress", "fingerprint"]
