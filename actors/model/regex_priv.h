/* Shared by regex_parse.c (text to program) and regex.c (running it). */
#ifndef MODEL_REGEX_PRIV_H
#define MODEL_REGEX_PRIV_H

#include "model/regex.h"

#include <stdint.h>

/* A set of bytes. */
struct regex_set {
    uint64_t bits[4];
};

enum regex_op {
    REGEX_OP_SET,   /* takes one byte of sets[x] and goes on behind itself */
    REGEX_OP_SPLIT, /* goes on at x and at y, taking nothing */
    REGEX_OP_JUMP,  /* goes on at x */
    REGEX_OP_MATCH
};

struct regex_inst {
    uint16_t op, x, y;
};

struct regex_program {
    struct regex_inst *inst; /* owned */
    struct regex_set *sets;  /* owned */
    uint16_t n_inst, n_sets;
};

static inline bool regex_set_has(const struct regex_set *s, uint8_t c)
{
    return (s->bits[c >> 6] >> (c & 63) & 1) != 0;
}

/* Fills the program; on failure nothing is held. Errors as regex_new. */
MUST_USE err_t regex_parse(slice_t pattern, struct regex_program *out, char why[96]);

#endif
