/* Processes seen through /proc: who they are, what they weigh, and how to end one for certain.
 *
 * A process number alone proves nothing (numbers are used again), so everything here works with
 * the pair of number and start time; a signal goes through a pidfd that was checked after it
 * was opened.
 */
#ifndef CLI_PROCS_H
#define CLI_PROCS_H

#include "cli/trouble.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_id {
    pid_t pid;
    uint64_t start; /* field 22 of /proc/PID/stat, clock ticks since boot */
};

#define PROCS_MAX 512

struct proc_list {
    struct proc_id at[PROCS_MAX];
    size_t n;
};

/* False if there is no such process (any more), a zombie counting as gone. */
bool proc_identify(pid_t pid, struct proc_id *out);
bool proc_is_alive(const struct proc_id *id);

/* Sends the signal if the process is still the same one. True: sent. */
bool proc_signal(const struct proc_id *id, int sig);

/* SIGTERM to all, up to `grace_ms` for them to go, SIGKILL to the rest, up to 2 s for that.
 * Returns how many are still there. Empty lists and processes that went meanwhile are fine. */
size_t proc_end_all(const struct proc_list *list, uint64_t grace_ms);

/* The processes whose network namespace is the one mounted at `netns_path` (never this
 * process). */
void proc_in_netns(const char *netns_path, struct proc_list *out);

/* The processes that are Weft's (executable weft-*) and whose WEFT_RUN_DIR lies at or below
 * `run_dir`. */
void proc_of_run_dir(const char *run_dir, struct proc_list *out);

/* The name of the executable without its directory, " (deleted)" cut off; "" if unknown. */
void proc_exe_name(pid_t pid, char out[64]);

/* Proportional set size from smaps_rollup in KiB; 0 if it cannot be read. */
uint64_t proc_pss_kib(pid_t pid);

/* "PID START" as one line, and back. */
#define PROC_ID_TEXT 48
void proc_print(const struct proc_id *id, char out[PROC_ID_TEXT]);
bool proc_parse(const char *text, struct proc_id *out);

#endif
