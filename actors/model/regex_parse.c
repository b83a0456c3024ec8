/* Text to a tree to a program.
 *
 * The tree has a node per literal, class, repeat, group or list; the program is emitted from
 * it, a repeat {n,m} by emitting its operand several times. Both walks recurse at most
 * REGEX_DEPTH groups deep, whatever the input, and emission counts its steps, so that repeats
 * of repeats of nothing end. */
#include "model/regex_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_NODES = REGEX_PATTERN + 8, MAX_SETS = REGEX_PATTERN, MAX_STEPS = 32 * REGEX_STATES };
enum { NONE = UINT16_MAX, UNBOUNDED = UINT16_MAX };

enum node_kind { NODE_SET, NODE_CONCAT, NODE_ALTERNATE, NODE_REPEAT };

struct node {
    enum node_kind kind;
    uint16_t child;    /* first operand, or NONE; SET: the set */
    uint16_t next;     /* the operand after this one in its parent's list, or NONE */
    uint16_t min, max; /* REPEAT */
};

struct parser {
    const uint8_t *start, *p, *end;
    struct node nodes[MAX_NODES];
    uint16_t n_nodes;
    struct regex_program *prog;
    bool ignores_case;
    unsigned depth, steps;
    char *why;
};

PRINTF_LIKE(2, 3) static err_t fail(const struct parser *ps, const char *fmt, ...)
{
    int n = snprintf(ps->why, 96, "at %zu: ", (size_t)(ps->p - ps->start) + 1);
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(ps->why + n, 96 - (size_t)n, fmt,
                    args); /* cut if longer: it is for people */
    va_end(args);
    return ERR_OF(MODEL_PATTERN);
}

static bool at(const struct parser *ps, char c)
{
    return ps->p < ps->end && *ps->p == (uint8_t)c;
}

static bool take(struct parser *ps, char c)
{
    if (!at(ps, c))
        return false;
    ps->p++;
    return true;
}

static bool take_text(struct parser *ps, const char *text)
{
    size_t n = strlen(text);

    if ((size_t)(ps->end - ps->p) < n || memcmp(ps->p, text, n) != 0)
        return false;
    ps->p += n;
    return true;
}

/* ---- sets of bytes ---- */

static void set_add(struct regex_set *s, unsigned from, unsigned to)
{
    for (unsigned c = from; c <= to; c++)
        s->bits[c >> 6] |= (uint64_t)1 << (c & 63);
}

static void set_invert(struct regex_set *s)
{
    for (size_t i = 0; i < 4; i++)
        s->bits[i] = ~s->bits[i];
}

static void set_merge(struct regex_set *s, const struct regex_set *other)
{
    for (size_t i = 0; i < 4; i++)
        s->bits[i] |= other->bits[i];
}

static void set_fold(struct regex_set *s)
{
    for (unsigned c = 'a'; c <= 'z'; c++) {
        if (regex_set_has(s, (uint8_t)c) || regex_set_has(s, (uint8_t)(c - 32))) {
            set_add(s, c, c);
            set_add(s, c - 32, c - 32);
        }
    }
}

/* \d \w \s and their opposites. False if `c` names no class. */
static bool class_of(uint8_t c, struct regex_set *out)
{
    struct regex_set s = {{0}};

    switch (c | 0x20) {
    case 'd':
        set_add(&s, '0', '9');
        break;
    case 'w':
        set_add(&s, '0', '9');
        set_add(&s, 'a', 'z');
        set_add(&s, 'A', 'Z');
        set_add(&s, '_', '_');
        break;
    case 's':
        set_add(&s, '\t', '\n');
        set_add(&s, '\f', '\r');
        set_add(&s, ' ', ' ');
        break;
    default: /* the pattern is from outside */
        return false;
    }
    if ((c & 0x20) == 0)
        set_invert(&s);
    *out = s;
    return true;
}

static int hex_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that an escape stands for; the parser is behind the backslash. */
static err_t parse_escaped_byte(struct parser *ps, uint8_t *out)
{
    static const char names[] = "tnrfv", bytes[] = "\t\n\r\f\v";
    const char *known;
    uint8_t c;

    if (ps->p == ps->end)
        return fail(ps, "a backslash at the end");
    c = *ps->p;
    known = c != 0 ? strchr(names, c) : NULL;
    if (known != NULL) {
        *out = (uint8_t)bytes[known - names];
    } else if (c == 'x') {
        int high = ps->end - ps->p > 2 ? hex_of(ps->p[1]) : -1;
        int low = high >= 0 ? hex_of(ps->p[2]) : -1;

        if (low < 0)
            return fail(ps, "\\x needs two hex digits");
        *out = (uint8_t)(high << 4 | low);
        ps->p += 2;
    } else if (c >= '1' && c <= '9') {
        return fail(ps, "back references are not supported");
    } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') {
        return fail(ps, "\\%c is not supported", c);
    } else if (c == '0') {
        return fail(ps, "\\0 is not supported");
    } else {
        *out = c;
    }
    ps->p++;
    return OK;
}

static const struct {
    const char *name, *ranges; /* pairs of bytes */
} posix_classes[] = {
    {"[:alpha:]", "azAZ"},   {"[:digit:]", "09"},      {"[:alnum:]", "azAZ09"},
    {"[:upper:]", "AZ"},     {"[:lower:]", "az"},      {"[:xdigit:]", "09afAF"},
    {"[:space:]", "\t\r  "}, {"[:word:]", "azAZ09__"}, {"[:punct:]", "!/:@[`{~"},
};

static bool take_posix(struct parser *ps, struct regex_set *out)
{
    for (size_t i = 0; i < sizeof(posix_classes) / sizeof(posix_classes[0]); i++) {
        if (!take_text(ps, posix_classes[i].name))
            continue;
        for (const char *r = posix_classes[i].ranges; *r != '\0'; r += 2)
            set_add(out, (uint8_t)r[0], (uint8_t)r[1]);
        return true;
    }
    return false;
}

/* One end of a range in brackets: a byte, plain or escaped. */
static err_t parse_bracket_byte(struct parser *ps, uint8_t *out)
{
    if (ps->p == ps->end)
        return fail(ps, "[ without ]");
    if (take(ps, '\\'))
        return parse_escaped_byte(ps, out);
    *out = *ps->p++;
    return OK;
}

static err_t parse_bracket_item(struct parser *ps, struct regex_set *s)
{
    struct regex_set class;
    uint8_t from, to;

    if (take_posix(ps, s))
        return OK;
    if (at(ps, '[') && ps->end - ps->p > 1 && ps->p[1] == ':')
        return fail(ps, "not a known [:class:]");
    if (at(ps, '\\') && ps->end - ps->p > 1 && class_of(ps->p[1], &class)) {
        set_merge(s, &class);
        ps->p += 2;
        return OK;
    }
    TRY(parse_bracket_byte(ps, &from));
    to = from;
    if (at(ps, '-') && ps->end - ps->p > 1 && ps->p[1] != ']') {
        ps->p++;
        TRY(parse_bracket_byte(ps, &to));
        if (to < from)
            return fail(ps, "a range that runs backwards");
    }
    set_add(s, from, to);
    return OK;
}

/* Behind [. */
static err_t parse_bracket(struct parser *ps, struct regex_set *out)
{
    struct regex_set s = {{0}};
    bool is_inverse = take(ps, '^'), is_first = true;

    while (is_first || !at(ps, ']')) { /* a ] in the first place is a literal */
        if (ps->p == ps->end)
            return fail(ps, "[ without ]");
        TRY(parse_bracket_item(ps, &s));
        is_first = false;
    }
    ps->p++;
    if (ps->ignores_case)
        set_fold(&s);
    if (is_inverse)
        set_invert(&s);
    *out = s;
    return OK;
}

/* ---- the tree ---- */

static err_t new_node(struct parser *ps, enum node_kind kind, uint16_t child, uint16_t *out)
{
    if (ps->n_nodes == MAX_NODES)
        return fail(ps, "too large");
    ps->nodes[ps->n_nodes] = (struct node){.kind = kind, .child = child, .next = NONE};
    *out = ps->n_nodes++;
    return OK;
}

static err_t new_set(struct parser *ps, const struct regex_set *s, uint16_t *out)
{
    uint16_t i;

    for (i = 0; i < ps->prog->n_sets; i++)
        if (memcmp(&ps->prog->sets[i], s, sizeof(*s)) == 0)
            break;
    if (i == ps->prog->n_sets) {
        if (i == MAX_SETS)
            return fail(ps, "too large");
        ps->prog->sets[ps->prog->n_sets++] = *s;
    }
    return new_node(ps, NODE_SET, i, out);
}

static err_t parse_alternatives(struct parser *ps, uint16_t *out);

/* Behind (. */
static err_t parse_group(struct parser *ps, uint16_t *out)
{
    if (take(ps, '?') && !take(ps, ':')) {
        if (!take_text(ps, "P<"))
            return fail(ps,
                        "(? is only known as (?:x), (?P<name>x), and (?i) at the very start");
        while (ps->p < ps->end && !at(ps, '>'))
            ps->p++;
        if (!take(ps, '>'))
            return fail(ps, "(?P< without >");
    }
    if (++ps->depth > REGEX_DEPTH)
        return fail(ps, "more than %d groups within each other", REGEX_DEPTH);
    TRY(parse_alternatives(ps, out));
    ps->depth--;
    if (!take(ps, ')'))
        return fail(ps, "( without )");
    return OK;
}

/* A literal, class, group or dot: what a repeat can follow. */
static err_t parse_atom(struct parser *ps, uint16_t *out)
{
    struct regex_set s = {{0}};
    uint8_t c = *ps->p;

    if (c == '*' || c == '+' || c == '?' || c == '{')
        return fail(ps, "nothing to repeat before %c", c);
    ps->p++;
    if (c == '(')
        return parse_group(ps, out);
    if (c == '[') {
        TRY(parse_bracket(ps, &s));
        return new_set(ps, &s, out);
    }
    if (c == '.') {
        set_add(&s, '\n', '\n');
        set_invert(&s);
        return new_set(ps, &s, out);
    }
    if (c == '\\') {
        if (ps->p < ps->end && class_of(*ps->p, &s)) {
            ps->p++;
            return new_set(ps, &s, out);
        }
        TRY(parse_escaped_byte(ps, &c));
    }
    set_add(&s, c, c);
    if (ps->ignores_case)
        set_fold(&s);
    return new_set(ps, &s, out);
}

static err_t parse_number(struct parser *ps, uint16_t *out)
{
    unsigned v = 0;

    if (ps->p == ps->end || *ps->p < '0' || *ps->p > '9')
        return fail(ps, "{ needs numbers: {n}, {n,} or {n,m}");
    while (ps->p < ps->end && *ps->p >= '0' && *ps->p <= '9') {
        v = v * 10 + (unsigned)(*ps->p++ - '0');
        if (v > REGEX_REPEAT)
            return fail(ps, "a number above %d in braces", REGEX_REPEAT);
    }
    *out = (uint16_t)v;
    return OK;
}

/* Behind {. */
static err_t parse_braces(struct parser *ps, uint16_t *min, uint16_t *max)
{
    TRY(parse_number(ps, min));
    *max = *min;
    if (take(ps, ',')) {
        *max = UNBOUNDED;
        if (!at(ps, '}'))
            TRY(parse_number(ps, max));
    }
    if (!take(ps, '}'))
        return fail(ps, "{ without }");
    return *max < *min ? fail(ps, "a range that runs backwards") : OK;
}

static err_t parse_repeats(struct parser *ps, uint16_t *atom)
{
    while (ps->p < ps->end) {
        uint16_t min = 0, max = UNBOUNDED, node = NONE;

        if (take(ps, '+'))
            min = 1;
        else if (take(ps, '?'))
            max = 1;
        else if (take(ps, '{'))
            TRY(parse_braces(ps, &min, &max));
        else if (!take(ps, '*'))
            return OK;
        (void)take(ps, '?'); /* lazy: no difference where the whole text must match */
        TRY(new_node(ps, NODE_REPEAT, *atom, &node));
        ps->nodes[node].min = min;
        ps->nodes[node].max = max;
        *atom = node;
        if (at(ps, '*') || at(ps, '+') || at(ps, '{'))
            return fail(ps, "a repeat of a repeat; put the first into a group");
    }
    return OK;
}

/* Appends `node` to the list of `parent`; *last is the end of that list. */
static void append(struct parser *ps, uint16_t parent, uint16_t *last, uint16_t node)
{
    if (*last == NONE)
        ps->nodes[parent].child = node;
    else
        ps->nodes[*last].next = node;
    *last = node;
}

static err_t parse_sequence(struct parser *ps, uint16_t *out)
{
    uint16_t list = NONE, last = NONE, atom = NONE;

    TRY(new_node(ps, NODE_CONCAT, NONE, &list));
    while (ps->p < ps->end && !at(ps, '|') && !at(ps, ')')) {
        if (at(ps, '^')) {
            if (ps->depth > 0 || last != NONE)
                return fail(ps, "^ is only known at the very start");
            ps->p++;
            continue;
        }
        if (at(ps, '$')) {
            if (ps->depth > 0 || (ps->end - ps->p > 1 && ps->p[1] != '|'))
                return fail(ps, "$ is only known at the very end");
            ps->p++;
            continue;
        }
        TRY(parse_atom(ps, &atom));
        TRY(parse_repeats(ps, &atom));
        append(ps, list, &last, atom);
    }
    *out = list;
    return OK;
}

static err_t parse_alternatives(struct parser *ps, uint16_t *out)
{
    uint16_t list = NONE, last = NONE, sequence = NONE;

    TRY(new_node(ps, NODE_ALTERNATE, NONE, &list));
    do {
        TRY(parse_sequence(ps, &sequence));
        append(ps, list, &last, sequence);
    } while (take(ps, '|'));
    *out = list;
    return OK;
}

/* ---- the program ---- */

static err_t emit(struct parser *ps, enum regex_op op, unsigned x, unsigned y, uint16_t *where)
{
    if (ps->prog->n_inst == REGEX_STATES)
        return fail(ps, "too large: more than %d states", REGEX_STATES);
    *where = ps->prog->n_inst;
    ps->prog->inst[ps->prog->n_inst++] =
        (struct regex_inst){(uint16_t)op, (uint16_t)x, (uint16_t)y};
    return OK;
}

static err_t emit_node(struct parser *ps, uint16_t at_node);

/* x{min,max}: x min times, then optional ones, or a loop. */
static err_t emit_repeat(struct parser *ps, const struct node *n)
{
    uint16_t split = 0, first_skip = NONE, jump;

    for (unsigned i = 0; i < n->min; i++)
        TRY(emit_node(ps, n->child));
    if (n->max == UNBOUNDED) {
        TRY(emit(ps, REGEX_OP_SPLIT, 0, 0, &split));
        TRY(emit_node(ps, n->child));
        TRY(emit(ps, REGEX_OP_JUMP, split, 0, &jump));
        ps->prog->inst[split].x = (uint16_t)(split + 1);
        ps->prog->inst[split].y = ps->prog->n_inst;
        return OK;
    }
    for (unsigned i = n->min; i < n->max;
         i++) { /* the skips are chained through y until patched */
        TRY(emit(ps, REGEX_OP_SPLIT, ps->prog->n_inst + 1U, first_skip, &split));
        first_skip = split;
        TRY(emit_node(ps, n->child));
    }
    while (first_skip != NONE) {
        uint16_t before = ps->prog->inst[first_skip].y;

        ps->prog->inst[first_skip].y = ps->prog->n_inst;
        first_skip = before;
    }
    return OK;
}

static err_t emit_alternate(struct parser *ps, const struct node *n)
{
    uint16_t jumps = NONE, split = 0, jump = 0;

    for (uint16_t i = n->child; i != NONE; i = ps->nodes[i].next) {
        if (ps->nodes[i].next == NONE) {
            TRY(emit_node(ps, i));
            break;
        }
        TRY(emit(ps, REGEX_OP_SPLIT, ps->prog->n_inst + 1U, 0, &split));
        TRY(emit_node(ps, i));
        TRY(emit(ps, REGEX_OP_JUMP, jumps, 0, &jump)); /* chained through x until patched */
        jumps = jump;
        ps->prog->inst[split].y = ps->prog->n_inst;
    }
    while (jumps != NONE) {
        uint16_t before = ps->prog->inst[jumps].x;

        ps->prog->inst[jumps].x = ps->prog->n_inst;
        jumps = before;
    }
    return OK;
}

static err_t emit_node(struct parser *ps, uint16_t at_node)
{
    const struct node *n = &ps->nodes[at_node];
    uint16_t where;

    if (++ps->steps > MAX_STEPS)
        return fail(ps, "too large: repeats of repeats");
    switch (n->kind) {
    case NODE_SET:
        return emit(ps, REGEX_OP_SET, n->child, 0, &where);
    case NODE_CONCAT:
        for (uint16_t i = n->child; i != NONE; i = ps->nodes[i].next)
            TRY(emit_node(ps, i));
        return OK;
    case NODE_ALTERNATE:
        return emit_alternate(ps, n);
    case NODE_REPEAT:
        return emit_repeat(ps, n);
    }
    bug("a kind that is not in the enum", __FILE__, __LINE__);
}

static err_t parse_all(struct parser *ps)
{
    uint16_t root = NONE, match;

    ps->ignores_case = take_text(ps, "(?i)");
    TRY(parse_alternatives(ps, &root));
    if (ps->p < ps->end)
        return fail(ps, ") without (");
    TRY(emit_node(ps, root));
    return emit(ps, REGEX_OP_MATCH, 0, 0, &match);
}

/* Gives back what was taken for the largest program. */
static void shrink(struct regex_program *prog)
{
    void *inst = realloc(prog->inst, prog->n_inst * sizeof(*prog->inst));
    void *sets =
        prog->n_sets > 0 ? realloc(prog->sets, prog->n_sets * sizeof(*prog->sets)) : NULL;

    if (inst != NULL)
        prog->inst = inst;
    if (sets != NULL)
        prog->sets = sets;
}

static err_t parse_with(struct parser *ps, slice_t pattern, struct regex_program *out,
                        char why[96])
{
    out->inst = calloc(REGEX_STATES, sizeof(*out->inst));
    out->sets = calloc(pattern.n + 1, sizeof(*out->sets)); /* a byte makes at most one set */
    if (out->inst == NULL || out->sets == NULL)
        return ERR_OF(NOMEM);
    ps->start = ps->p = pattern.p;
    ps->end = pattern.p + pattern.n;
    ps->prog = out;
    ps->why = why;
    return parse_all(ps);
}

err_t regex_parse(slice_t pattern, struct regex_program *out, char why[96])
{
    struct parser *ps;
    err_t e;

    why[0] = '\0';
    memset(out, 0, sizeof(*out));
    if (pattern.n > REGEX_PATTERN) {
        (void)snprintf(why, 96, "longer than %d bytes", REGEX_PATTERN);
        return ERR_OF(MODEL_PATTERN);
    }
    if (pattern.n == 0)
        pattern = SLICE_LIT("");
    ps = calloc(1, sizeof(*ps));
    e = ps != NULL ? parse_with(ps, pattern, out, why) : ERR_OF(NOMEM);
    free(ps);
    if (e == OK) {
        shrink(out);
        return OK;
    }
    free(out->inst);
    free(out->sets);
    memset(out, 0, sizeof(*out));
    return e;
}
