/* The processes of a pod and of a control plane, as data (tbl/processes.h). */
#ifndef SUPERVISOR_TABLE_H
#define SUPERVISOR_TABLE_H

#include "kit/slice.h"

#include <stdbool.h>

enum table_kind { TABLE_POD, TABLE_CONTROL };

struct process_row {
    enum table_kind kind;
    const char *name;     /* of the executable */
    unsigned start_stage; /* started when all of the stages below are ready */
    unsigned drain_stage; /* drained when all of the stages below have ended */
    bool is_worker;       /* as many as settings.workers */
    const char *fds;      /* names of what it inherits, space between; nothing else is passed on */
    bool hears_others;    /* gets "process NAME PID RESTARTS STATE" lines */
};

extern const struct process_row process_rows[];
extern const unsigned process_rows_n;

/* "pod" or "control". False leaves *out untouched. */
bool table_parse_kind(const char *text, enum table_kind *out);
const char *table_kind_name(enum table_kind kind);

/* Whether the row inherits descriptors of this name. */
bool process_inherits(const struct process_row *row, const char *fd_name);

#endif
