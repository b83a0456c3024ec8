/* The store's errors (tbl/errors.h) as err_t constants. */
#ifndef STORE_STORE_ERR_H
#define STORE_STORE_ERR_H

#include "kit/err.h"

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "store/tbl/errors.h"
#undef ERR

#endif
