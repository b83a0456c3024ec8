/* docs/messages.md, made from the table. */
#ifndef WIRE_DOCUMENT_H
#define WIRE_DOCUMENT_H

#include "kit/buf.h"
#include "kit/err.h"

/* Appends the whole page as Markdown. NOMEM, TOO_BIG. */
MUST_USE err_t wire_document(struct buf *out);

#endif
