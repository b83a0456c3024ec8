/* msgpack values appended to a buf (packed by msgpack-c). For feed messages, which are maps;
 * messages between our processes go through wire_encode. Errors: those of buf_add. */
#ifndef WIRE_WRITER_H
#define WIRE_WRITER_H

#include "kit/buf.h"
#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

MUST_USE err_t wire_put_array(struct buf *out, size_t n);
MUST_USE err_t wire_put_map(struct buf *out, size_t n); /* n pairs follow */
MUST_USE err_t wire_put_u64(struct buf *out, uint64_t v);
MUST_USE err_t wire_put_i64(struct buf *out, int64_t v);
MUST_USE err_t wire_put_f64(struct buf *out, double v);
MUST_USE err_t wire_put_bool(struct buf *out, bool v);
MUST_USE err_t wire_put_nil(struct buf *out);
MUST_USE err_t wire_put_text(struct buf *out, slice_t s);
MUST_USE err_t wire_put_bytes(struct buf *out, slice_t s);

#endif
