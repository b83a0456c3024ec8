/* The errors of weft-tls (tbl/errors.h). */
#ifndef TLS_TLS_ERR_H
#define TLS_TLS_ERR_H

#include "kit/err.h"

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "tls/tbl/errors.h"
#undef ERR

#endif
