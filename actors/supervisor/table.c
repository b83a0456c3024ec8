#include "supervisor/table.h"

#include <string.h>

const struct process_row process_rows[] = {
#define PROCESS(kind, name, start, drain, worker, fds, hears)                                      \
    {TABLE_##kind, name, start, drain, worker, fds, hears},
#include "supervisor/tbl/processes.h"
};
const unsigned process_rows_n = sizeof(process_rows) / sizeof(process_rows[0]);

bool table_parse_kind(const char *text, enum table_kind *out)
{
    if (strcmp(text, "pod") != 0 && strcmp(text, "control") != 0)
        return false;
    *out = strcmp(text, "pod") == 0 ? TABLE_POD : TABLE_CONTROL;
    return true;
}

const char *table_kind_name(enum table_kind kind)
{
    return kind == TABLE_POD ? "pod" : "control";
}

bool process_inherits(const struct process_row *row, const char *fd_name)
{
    size_t n = strlen(fd_name);

    if (n == 0)
        return false;
    for (const char *at = row->fds; *at != '\0'; at += strcspn(at, " ")) {
        at += strspn(at, " ");
        if (strcspn(at, " ") == n && memcmp(at, fd_name, n) == 0)
            return true;
    }
    return false;
}
