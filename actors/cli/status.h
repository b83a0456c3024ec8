/* The supervisor's table of processes: the file "status" in a run directory
 * (docs/operating.md). */
#ifndef CLI_STATUS_H
#define CLI_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STATUS_PROCESSES_MAX 32

struct status_process {
    char name[32];
    pid_t pid; /* 0: not running */
    char state[16];
    bool is_ready;
    uint32_t restarts;
    uint16_t waits_for_port; /* note app=waiting:PORT: the application does not listen; 0 none */
};

struct status {
    struct status_process at[STATUS_PROCESSES_MAX];
    size_t n;
    pid_t supervisor; /* 0 unknown */
};

/* False if there is no file or it does not look like one. Lines that are not understood are
 * skipped: it is written by an unprivileged process and read by root. */
bool status_read(const char *run_dir, struct status *out);

#endif
