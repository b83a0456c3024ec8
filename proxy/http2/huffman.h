/* The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B), reading only: what we write
 * goes between pods of one cluster and is written plain, which costs less than the bytes it
 * saves. */
#ifndef PROXY_HTTP2_HUFFMAN_H
#define PROXY_HTTP2_HUFFMAN_H

#include "kit/slice.h"

#include <sys/types.h>

/* The most bytes that n coded bytes can become: the shortest code has five bits. */
#define HUFFMAN_ROOM(n) ((n)*8 / 5 + 1)

/* Decodes into `out`, which has HUFFMAN_ROOM(in.n) bytes. The number of bytes written, or -1: a
 * code that does not exist, the end-of-string symbol, or padding that is longer than seven bits
 * or not all ones. */
ssize_t huffman_decode(slice_t in, uint8_t *out);

#endif
