/* The person's program inside the pod: its namespace, its /etc/hosts, its user, its terminal.
 */
#ifndef CLI_APP_H
#define CLI_APP_H

#include "cli/trouble.h"

#include <sys/types.h>

struct app_conf {
    char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    const char *netns;
    const char *hosts; /* file to be seen as /etc/hosts */
    uid_t uid;
    gid_t gid;
    const char *user; /* for supplementary groups, HOME, USER; NULL: only uid and gid */
    const char *home;
};

/* Fills uid, gid, user and home: `user` is a name or a number, NULL means whoever called
 * (behind sudo: SUDO_UID). The uid of Weft's own processes is refused: its traffic is not
 * captured. The strings live until the next call of getpw*. */
MUST_USE err_t app_user(struct app_conf *c, const char *user, struct trouble *why);

/* Starts it as a child in the caller's process group (so that the terminal's signals reach it),
 * to be killed when the caller ends. The child's pid, or -1 with the reason. Not found: exit
 * code 127 of the child, not executable: 126, anything before that: 125 with a line on standard
 * error. */
pid_t app_start(const struct app_conf *c, struct trouble *why);

#endif
