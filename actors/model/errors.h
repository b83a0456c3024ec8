/* The errors of this layer (tbl/errors.h). */
#ifndef MODEL_ERRORS_H
#define MODEL_ERRORS_H

#include "kit/err.h"

#define ERR(name, cls, text) ERR_DECLARE(name)
#include "model/tbl/errors.h"
#undef ERR

#endif
