/* Running the program: sets of positions, all at once, remembered as states of a table that
 * grows as it is used (a lazy DFA). The table is bounded: the text that fills it is matched
 * without it, and the next one starts with an empty table. */
#include "model/regex.h"

#include "model/regex_priv.h"

#include <stdlib.h>

enum { TABLE_STATES = 128 };
enum {
    STEP_DEAD = 0,
    STEP_UNKNOWN = UINT16_MAX
}; /* table state 0 is the one without positions */

/* A set of positions in order of insertion (sparse set: constant-time look-up, no clearing). */
struct positions {
    uint16_t n;
    uint16_t *dense, *sparse; /* n_inst of each, within regex.scratch */
};

struct table_state {
    uint16_t next[256];
    uint16_t n;
    bool is_match; /* MATCH is among the positions */
    uint16_t at[]; /* sorted positions of SET instructions */
};

struct regex {
    struct regex_program prog;
    struct positions now, then;
    uint16_t *stack, *sorted;                /* n_inst of each, within scratch */
    uint16_t *scratch;                       /* owned */
    uint64_t mark[REGEX_STATES / 64];        /* positions as bits */
    struct table_state *table[TABLE_STATES]; /* owned; made as they are met */
    uint16_t n_table, start;                 /* start: table state of the empty text */
};

static bool positions_have(const struct positions *s, uint16_t at)
{
    uint16_t i = s->sparse[at];

    return i < s->n && s->dense[i] == at;
}

static void positions_put(struct positions *s, uint16_t at)
{
    s->sparse[at] = s->n;
    s->dense[s->n++] = at;
}

/* Adds `at` and all that can be reached from it without taking a byte. Each position is put at
 * most once, and pushed by at most two others. */
static void follow(struct regex *re, struct positions *into, uint16_t at)
{
    unsigned top = 0;

    if (positions_have(into, at))
        return;
    positions_put(into, at);
    re->stack[top++] = at;
    while (top > 0) {
        const struct regex_inst *i = &re->prog.inst[re->stack[--top]];
        uint16_t to[2] = {i->x, i->y};
        unsigned n = i->op == REGEX_OP_SPLIT ? 2 : i->op == REGEX_OP_JUMP ? 1 : 0;

        for (unsigned k = 0; k < n; k++) {
            if (positions_have(into, to[k]))
                continue;
            positions_put(into, to[k]);
            re->stack[top++] = to[k];
        }
    }
}

/* then = what is reached from now by taking c. */
static void advance(struct regex *re, uint8_t c)
{
    re->then.n = 0;
    for (uint16_t k = 0; k < re->now.n; k++) {
        uint16_t at = re->now.dense[k];
        const struct regex_inst *i = &re->prog.inst[at];

        if (i->op == REGEX_OP_SET && regex_set_has(&re->prog.sets[i->x], c))
            follow(re, &re->then, (uint16_t)(at + 1));
    }
}

static bool has_match(const struct regex *re, const struct positions *s)
{
    return positions_have(s,
                          (uint16_t)(re->prog.n_inst - 1)); /* MATCH is the last instruction */
}

/* ---- without the table ---- */

static bool simulate(struct regex *re, slice_t text)
{
    re->now.n = 0;
    follow(re, &re->now, 0);
    for (size_t i = 0; i < text.n && re->now.n > 0; i++) {
        advance(re, text.p[i]);
        re->now.n = 0;
        for (uint16_t k = 0; k < re->then.n; k++)
            positions_put(&re->now, re->then.dense[k]);
    }
    return re->now.n > 0 && has_match(re, &re->now);
}

/* ---- with it ---- */

static void table_empty(struct regex *re)
{
    for (uint16_t i = 0; i < re->n_table; i++)
        free(re->table[i]);
    re->n_table = 0;
}

/* The positions of `s` that matter later, sorted, into re->sorted; their number. */
static uint16_t distill(struct regex *re, const struct positions *s)
{
    uint16_t n = 0;

    memset(re->mark, 0, sizeof(re->mark));
    for (uint16_t k = 0; k < s->n; k++)
        if (re->prog.inst[s->dense[k]].op == REGEX_OP_SET)
            re->mark[s->dense[k] >> 6] |= (uint64_t)1 << (s->dense[k] & 63);
    for (unsigned w = 0; w < REGEX_STATES / 64; w++)
        for (uint64_t bits = re->mark[w]; bits != 0; bits &= bits - 1)
            re->sorted[n++] = (uint16_t)(w * 64 + (unsigned)__builtin_ctzll(bits));
    return n;
}

/* The table's state for these positions, made if it is new. False: the table is full or memory
 * is. */
static bool table_state_of(struct regex *re, const struct positions *s, uint16_t *out)
{
    uint16_t n = distill(re, s);
    size_t bytes = n * sizeof(re->sorted[0]);
    bool is_match = s->n > 0 && has_match(re, s);
    struct table_state *st;

    for (uint16_t i = 0; i < re->n_table; i++) {
        st = re->table[i];
        if (st->n == n && st->is_match == is_match && memcmp(st->at, re->sorted, bytes) == 0) {
            *out = i;
            return true;
        }
    }
    if (re->n_table == TABLE_STATES || (st = malloc(sizeof(*st) + bytes)) == NULL)
        return false;
    memcpy(st->at, re->sorted, bytes);
    st->n = n;
    st->is_match = is_match;
    memset(st->next, 0xff, sizeof(st->next)); /* STEP_UNKNOWN */
    re->table[re->n_table] = st;
    *out = re->n_table++;
    return true;
}

/* Makes the dead state and the start state. False without memory. */
static bool table_begin(struct regex *re)
{
    uint16_t dead;

    re->now.n = 0;
    if (!table_state_of(re, &re->now, &dead))
        return false;
    BUG_ON(dead != STEP_DEAD);
    follow(re, &re->now, 0);
    if (table_state_of(re, &re->now, &re->start))
        return true;
    table_empty(re);
    return false;
}

/* Computes state -> c. False if the table is full. */
static bool table_step(struct regex *re, uint16_t state, uint8_t c, uint16_t *out)
{
    const struct table_state *st = re->table[state];

    re->now.n = 0;
    for (uint16_t k = 0; k < st->n; k++)
        positions_put(&re->now, st->at[k]);
    advance(re, c);
    if (!table_state_of(re, &re->then, out))
        return false;
    re->table[state]->next[c] = *out;
    return true;
}

/* One run through the table. False if it could not be finished with the table. */
static bool table_run(struct regex *re, slice_t text, bool *is_match)
{
    uint16_t state = re->start;

    for (size_t i = 0; i < text.n && state != STEP_DEAD; i++) {
        uint16_t next = re->table[state]->next[text.p[i]];

        if (next == STEP_UNKNOWN && !table_step(re, state, text.p[i], &next))
            return false;
        state = next;
    }
    *is_match = re->table[state]->is_match;
    return true;
}

bool regex_matches(struct regex *re, slice_t text)
{
    bool is_match;

    if (text.n > REGEX_TEXT)
        return false;
    if (re->n_table == 0 && !table_begin(re))
        return simulate(re, text);
    if (table_run(re, text, &is_match))
        return is_match;
    /* Full: this text goes the slow way, the next one finds an empty table. */
    table_empty(re);
    return simulate(re, text);
}

/* The arrays that are as long as the program. */
static err_t make_scratch(struct regex *re)
{
    size_t n = re->prog.n_inst;

    re->scratch =
        calloc(6 * n, sizeof(*re->scratch)); /* zeroed: sparse sets read before they write */
    if (re->scratch == NULL)
        return ERR_OF(NOMEM);
    re->now.dense = re->scratch;
    re->now.sparse = re->scratch + n;
    re->then.dense = re->scratch + 2 * n;
    re->then.sparse = re->scratch + 3 * n;
    re->stack = re->scratch + 4 * n;
    re->sorted = re->scratch + 5 * n;
    return OK;
}

err_t regex_new(slice_t pattern, struct regex **out, char why[96])
{
    struct regex *re = calloc(1, sizeof(*re));
    err_t e;

    why[0] = '\0';
    if (re == NULL)
        return ERR_OF(NOMEM);
    e = regex_parse(pattern, &re->prog, why);
    if (e == OK)
        e = make_scratch(re);
    if (e != OK) {
        regex_free(&re);
        return e;
    }
    *out = re;
    return OK;
}

void regex_free(struct regex **re)
{
    if (*re == NULL)
        return;
    table_empty(*re);
    free((*re)->scratch);
    free((*re)->prog.inst);
    free((*re)->prog.sets);
    free(*re);
    *re = NULL;
}
