/* The order of confinement. What belongs to a thread (no_new_privs, capabilities, Landlock) is done in
 * every thread by the same function; what belongs to the process comes after it; seccomp, which goes to
 * all threads at once, is last because it forbids all the rest. */
#include "kit/confine_priv.h"
#include "kit/log.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool landlock_is_on;

bool confine_has_landlock(void)
{
    return landlock_is_on;
}

struct thread_part {
    int landlock; /* ruleset or -1 */
    bool has_tsync;
    const char *failed; /* the step that failed in some thread */
    int why;
};

/* No capability, now or by exec. Dropping from the bounding set needs CAP_SETPCAP and is done as far as
 * it goes: without capabilities and with no_new_privs nothing can come back anyway. */
static bool drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];

    for (unsigned long cap = 0; cap <= 63; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            break;
    (void)prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                       SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                       SECBIT_NO_CAP_AMBIENT_RAISE |
                                       SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
                0, 0, 0);
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    memset(none, 0, sizeof(none));
    return syscall(SYS_capset, &head, none) == 0;
}

/* Runs in every thread: system calls only, no memory, no log. */
static void enter_thread(void *arg)
{
    struct thread_part *t = arg;
    bool has_tsync = false;

    if (t->failed != NULL)
        return;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        t->failed = "no_new_privs";
    else if (!drop_capabilities())
        t->failed = "capabilities";
    else if (t->landlock >= 0 && !t->has_tsync &&
             confine_landlock_enter(t->landlock, &has_tsync) != OK)
        t->failed = "landlock";
    t->why = t->failed != NULL ? errno : 0;
    t->has_tsync = t->has_tsync || has_tsync;
}

static err_t enter_threads(const struct confine_spec *spec)
{
    struct thread_part t = {.landlock = -1};
    err_t err = OK;

    TRY(confine_landlock_open(spec, &t.landlock));
    /* The others first: what runs a function in them may need what we forbid ourselves. */
    if (spec->each_thread != NULL)
        err = spec->each_thread(enter_thread, &t);
    if (err == OK)
        enter_thread(&t);
    if (t.landlock >= 0)
        (void)close(t.landlock);
    if (err == OK && t.failed == NULL) {
        landlock_is_on = t.landlock >= 0;
        return OK;
    }
    log_error("confinement failed", "step=%s errno=%s", t.failed != NULL ? t.failed : "threads",
              strerror(t.why));
    return ERR_OF(CONFINE);
}

static err_t set_limit(int which, const char *name, uint64_t value)
{
    struct rlimit old, limit = {value, value};

    if (value == 0)
        return OK;
    if (getrlimit((__rlimit_resource_t)which, &old) == 0 && old.rlim_max < value)
        limit = (struct rlimit){old.rlim_max, old.rlim_max}; /* tighter already */
    if (setrlimit((__rlimit_resource_t)which, &limit) == 0)
        return OK;
    log_error("confinement failed", "step=%s errno=%s", name, strerror(errno));
    return ERR_OF(CONFINE);
}

err_t confine_enter(const struct confine_spec *spec)
{
    bool is_spawner = (spec->needs & CONFINE_SPAWN) != 0;

    TRY(set_limit(RLIMIT_NOFILE, "max_files", spec->max_files));
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (is_spawner) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
            return ERR_OF(CONFINE);
    } else {
        TRY(enter_threads(spec));
    }
#if WEFT_SANITIZED
    return OK; /* the leak checker traces us and needs more calls and memory than we allow */
#else
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return ERR_OF(CONFINE);
    TRY(set_limit(RLIMIT_AS, "max_memory", spec->max_memory));
    return confine_seccomp_enter(spec);
#endif
}
