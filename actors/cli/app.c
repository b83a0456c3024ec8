/* From root in the root namespace to the person's program, in one child, in this order:
 * network, mounts, user, parent-death signal, exec. */
#include "cli/app.h"

#include "cli/netns.h"
#include "cli/pod.h"
#include "kit/slice.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

static err_t app_take(struct app_conf *c, const struct passwd *pw, uid_t uid, gid_t gid,
                      struct trouble *why)
{
    c->uid = pw != NULL ? pw->pw_uid : uid;
    c->gid = pw != NULL ? pw->pw_gid : gid;
    c->user = pw != NULL ? pw->pw_name : NULL;
    c->home = pw != NULL ? pw->pw_dir : NULL;
    if (c->uid == POD_UID)
        return trouble_set(why, ERR_OF(USAGE),
                           "uid %d is Weft's own: what it sends is not captured by the mesh",
                           POD_UID);
    return OK;
}

err_t app_user(struct app_conf *c, const char *user, struct trouble *why)
{
    const char *sudo_uid = getenv("SUDO_UID"), *sudo_gid = getenv("SUDO_GID");
    const struct passwd *pw = NULL;
    uint64_t uid = getuid(), gid = getgid();

    if (user == NULL) {
        if (uid == 0 && slice_to_u64(slice_str(sudo_uid), &uid) &&
            !slice_to_u64(slice_str(sudo_gid), &gid))
            gid = uid;
        if (uid > INT32_MAX || gid > INT32_MAX)
            return trouble_set(why, ERR_OF(USAGE),
                               "SUDO_UID or SUDO_GID is no number of a user");
        return app_take(c, getpwuid((uid_t)uid), (uid_t)uid, (gid_t)gid, why);
    }
    if (slice_to_u64(slice_str(user), &uid)) {
        if (uid > INT32_MAX)
            return trouble_set(why, ERR_OF(USAGE), "--user %s: no number of a user", user);
        return app_take(c, getpwuid((uid_t)uid), (uid_t)uid, (gid_t)uid, why);
    }
    pw = getpwnam(user);
    if (pw == NULL)
        return trouble_set(why, ERR_OF(USAGE), "--user %s: there is no such user", user);
    return app_take(c, pw, 0, 0, why);
}

static bool app_mounts(const struct app_conf *c)
{
    if (unshare(CLONE_NEWNS) != 0)
        return false;
    /* Nothing mounted here is seen outside; what is mounted outside later is seen here. */
    if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) != 0)
        return false;
    return mount(c->hosts, "/etc/hosts", NULL, MS_BIND, NULL) == 0;
}

static bool app_become(const struct app_conf *c)
{
    if (geteuid() == c->uid && getuid() == c->uid)
        return true;
    if (c->user != NULL ? initgroups(c->user, c->gid) != 0 : setgroups(0, NULL) != 0)
        return false;
    if (setresgid(c->gid, c->gid, c->gid) != 0 || setresuid(c->uid, c->uid, c->uid) != 0)
        return false;
    if (c->user != NULL) {
        (void)setenv("USER", c->user, 1);
        (void)setenv("LOGNAME", c->user, 1);
        (void)setenv("HOME", c->home, 1);
    }
    return true;
}

static void app_child(const struct app_conf *c, pid_t parent)
{
    const char *step = "network namespace";
    struct trouble why = {{0}};
    sigset_t none;

    if (netns_enter(c->netns, &why) == OK) {
        step = "mount of /etc/hosts";
        if (app_mounts(c)) {
            step = "change of user";
            if (app_become(c)) {
                step = NULL;
            }
        }
    }
    if (step != NULL) {
        fprintf(stderr, "weft: %s: %s\n", step, strerror(errno));
        _exit(125);
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(125);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGTTOU, SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(c->argv[0], c->argv);
    fprintf(stderr, "weft: %s: %s\n", c->argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

pid_t app_start(const struct app_conf *c, struct trouble *why)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == 0)
        app_child(c, parent);
    if (pid < 0)
        (void)trouble_errno(why, "fork");
    return pid;
}
