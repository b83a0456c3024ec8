/* Options: a loop over argv and a loop over the table. */
#include "cli/opts.h"

#include "kit/settings.h"
#include "kit/slice.h"

#include <string.h>

static const struct opt *opt_find(const struct opt *table, slice_t name)
{
    for (const struct opt *o = table; o->kind != OPT_END; o++)
        if (slice_is_str(name, o->name))
            return o;
    return NULL;
}

static const struct opt *opt_find_letter(const struct opt *table, char letter)
{
    for (const struct opt *o = table; o->kind != OPT_END; o++)
        if (o->letter != 0 && o->letter == letter)
            return o;
    return NULL;
}

static err_t opt_take(const struct opt *o, const char *value, struct trouble *why)
{
    struct opt_list *many = o->into;
    uint64_t number = 0;

    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)o->into = true;
        return OK;
    case OPT_TEXT:
        *(const char **)o->into = value;
        return OK;
    case OPT_MANY:
        if (many->n == OPT_LIST_MAX)
            return trouble_set(why, ERR_OF(USAGE), "--%s: more than %d of them", o->name,
                               OPT_LIST_MAX);
        many->at[many->n++] = value;
        return OK;
    case OPT_MS:
        if (!settings_parse_ms(value, o->into))
            return trouble_set(why, ERR_OF(USAGE), "--%s: %s is no duration (e.g. 30s, 500ms)",
                               o->name, value);
        return OK;
    case OPT_U32:
        if (!slice_to_u64(slice_str(value), &number) || number > UINT32_MAX)
            return trouble_set(why, ERR_OF(USAGE), "--%s: %s is no whole number", o->name,
                               value);
        *(uint32_t *)o->into = (uint32_t)number;
        return OK;
    case OPT_END:
        break;
    }
    return ERR_OF(USAGE);
}

/* Finds the option in `arg`; *value is what stands behind '=', or NULL. */
static const struct opt *opt_match(const struct opt *table, const char *arg, const char **value)
{
    const char *eq = strchr(arg, '=');

    *value = NULL;
    if (arg[1] != '-')
        return arg[1] != '\0' && arg[2] == '\0' ? opt_find_letter(table, arg[1]) : NULL;
    if (eq == NULL)
        return opt_find(table, slice_str(arg + 2));
    *value = eq + 1;
    return opt_find(table, slice(arg + 2, (size_t)(eq - arg) - 2));
}

/* "-" alone means standard input; "-- text" is SQL that begins with a comment. */
static bool opt_is_one(const char *arg)
{
    if (arg[0] != '-' || arg[1] == '\0')
        return false;
    return arg[1] != '-' || (arg[2] != ' ' && arg[2] != '\n');
}

err_t opts_parse(const struct opt *table, int *argc, char **argv, int *rest,
                 struct trouble *why)
{
    bool has_rest = false;
    int kept = 1;
    int i = 1;

    if (rest != NULL)
        *rest = -1;
    for (; i < *argc; i++) {
        const struct opt *o;
        const char *value;

        if (strcmp(argv[i], "--") == 0) {
            has_rest = true;
            i++;
            break;
        }
        if (!opt_is_one(argv[i])) {
            argv[kept++] = argv[i];
            continue;
        }
        o = opt_match(table, argv[i], &value);
        if (o == NULL)
            return trouble_set(why, ERR_OF(USAGE), "unknown option %s", argv[i]);
        if (o->kind == OPT_FLAG && value != NULL)
            return trouble_set(why, ERR_OF(USAGE), "--%s takes no value", o->name);
        if (o->kind != OPT_FLAG && value == NULL) {
            if (i + 1 >= *argc)
                return trouble_set(why, ERR_OF(USAGE), "--%s needs a value (%s)", o->name,
                                   o->value);
            value = argv[++i];
        }
        TRY(opt_take(o, value, why));
    }
    if (rest != NULL && has_rest)
        *rest = i;
    if (rest == NULL)
        for (; i < *argc; i++)
            argv[kept++] = argv[i];
    *argc = kept;
    return OK;
}

void opts_print(const struct opt *table, FILE *to)
{
    for (const struct opt *o = table; o->kind != OPT_END; o++) {
        char left[64];

        if (o->letter != 0)
            (void)snprintf(left, sizeof left, "-%c, --%s%s%s", o->letter, o->name,
                           o->value != NULL ? " " : "", o->value != NULL ? o->value : "");
        else
            (void)snprintf(left, sizeof left, "--%s%s%s", o->name, o->value != NULL ? " " : "",
                           o->value != NULL ? o->value : "");
        fprintf(to, "  %-28s %s\n", left, o->help);
    }
}
