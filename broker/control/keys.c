#include "broker/control/keys.h"

#include "kit/clock.h"
#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE       "broker/curve.key"
#define REFUSED_LOG_MS 60000u

/* ---- our own pair ---- */

static err_t own_write(struct control *c, const char *path)
{
    char temp[560], text[2 * MAILBOX_KEY_TEXT + 2];
    TRY(mailbox_keypair(c->public_key, c->secret_key));
    int n = snprintf(text, sizeof text, "%s\n%s\n", c->public_key, c->secret_key);
    (void)snprintf(temp, sizeof temp, "%s.new", path);
    (void)unlink(temp);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return ERR_OF(OS);
    bool is_good = write(fd, text, (size_t)n) == n && fsync(fd) == 0;
    is_good = close(fd) == 0 && is_good && rename(temp, path) == 0;
    explicit_bzero(text, sizeof text);
    return is_good ? OK : ERR_OF(OS);
}

static err_t own_read(struct control *c, int fd)
{
    char text[2 * MAILBOX_KEY_TEXT + 2], check[MAILBOX_KEY_TEXT];
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        return ERR_OF(NOT_ALLOWED);
    ssize_t n = read(fd, text, sizeof text);
    err_t e = ERR_OF(MALFORMED);
    if (n == 82 && text[40] == '\n' && text[81] == '\n') {
        memcpy(c->public_key, text, 40);
        memcpy(c->secret_key, text + 41, 40);
        e = mailbox_public_of(c->secret_key, check);
        if (e == OK && strcmp(check, c->public_key) != 0)
            e = ERR_OF(MALFORMED);
    }
    explicit_bzero(text, sizeof text);
    return e;
}

err_t keys_load_own(struct control *c)
{
    char path[512];
    int n = snprintf(path, sizeof path, "%s/" KEY_FILE, c->set->state_dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return ERR_OF(BAD_SETTING);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    err_t e = OK;
    if (fd >= 0) {
        e = own_read(c, fd);
        (void)close(fd);
    } else {
        e = errno == ENOENT ? own_write(c, path) : ERR_OF(OS);
    }
    if (e != OK)
        log_error("key of the broker not usable", "path=%s error=%s", path, e->name);
    return e;
}

/* ---- tables ---- */

struct link_key *keys_find(struct control *c, const char *public_key)
{
    struct link_key *k;
    HASH_FIND_STR(c->keys, public_key, k);
    return k;
}

struct link_key *keys_add(struct control *c, const char *public_key, const char *ns,
                          const char *service_account, const char *pod)
{
    struct link_key *k = keys_find(c, public_key);
    if (k == NULL) {
        k = calloc(1, sizeof *k);
        if (k == NULL)
            return NULL;
        (void)snprintf(k->public_key, sizeof k->public_key, "%s", public_key);
        HASH_ADD_STR(c->keys, public_key, k);
    }
    (void)snprintf(k->ns, sizeof k->ns, "%s", ns);
    (void)snprintf(k->service_account, sizeof k->service_account, "%s", service_account);
    (void)snprintf(k->pod, sizeof k->pod, "%s", pod);
    return k;
}

void keys_remove(struct control *c, struct link_key *k)
{
    HASH_DEL(c->keys, k);
    free(k);
}

struct join_token *keys_add_token(struct control *c, const struct mesh_token *t)
{
    struct join_token *j = calloc(1, sizeof *j);
    if (j == NULL)
        return NULL;
    bool is_good =
        slice_to_cstr(t->id, j->id, sizeof j->id) &&
        slice_to_cstr(t->public_key, j->public_key, sizeof j->public_key) &&
        slice_to_cstr(t->ns, j->ns, sizeof j->ns) &&
        slice_to_cstr(t->service_account, j->service_account, sizeof j->service_account) &&
        slice_to_cstr(t->used_by, j->used_by, sizeof j->used_by);
    struct join_token *twin = NULL;
    HASH_FIND(by_id, c->tokens_by_id, j->id, strlen(j->id), twin);
    if (!is_good || twin != NULL) {
        free(j);
        return twin;
    }
    j->expires_ms = t->expires_ms;
    HASH_ADD(by_id, c->tokens_by_id, id[0], strlen(j->id), j);
    HASH_ADD(by_key, c->tokens_by_key, public_key[0], strlen(j->public_key), j);
    return j;
}

static void token_remove(struct control *c, struct join_token *j)
{
    HASH_DELETE(by_id, c->tokens_by_id, j);
    HASH_DELETE(by_key, c->tokens_by_key, j);
    free(j);
}

static void load_key(void *arg, const struct mesh_key *row)
{
    char key[MAILBOX_KEY_TEXT], ns[64], sa[254], pod[254];
    if (slice_to_cstr(row->public_key, key, sizeof key) &&
        slice_to_cstr(row->ns, ns, sizeof ns) &&
        slice_to_cstr(row->service_account, sa, sizeof sa) &&
        slice_to_cstr(row->pod, pod, sizeof pod))
        (void)keys_add(arg, key, ns, sa, pod);
}

static void load_token(void *arg, const struct mesh_token *row)
{
    (void)keys_add_token(arg, row);
}

err_t keys_load(struct control *c)
{
    TRY(mesh_each_link_key(c->mesh, load_key, c));
    return mesh_each_token(c->mesh, (int64_t)clock_wall_ms(), load_token, c);
}

void keys_free(struct control *c)
{
    struct link_key *k, *k_next;
    struct join_token *j, *j_next;
    HASH_ITER(hh, c->keys, k, k_next)
    keys_remove(c, k);
    HASH_ITER(by_id, c->tokens_by_id, j, j_next)
    token_remove(c, j);
    explicit_bzero(c->secret_key, sizeof c->secret_key);
}

/* ---- admission ---- */

bool keys_allow(void *arg, const struct mailbox_peer *peer, char user[64])
{
    struct control *c = arg;
    struct join_token *j = NULL;
    if (!peer->is_ipc) {
        if (keys_find(c, peer->key) != NULL) {
            (void)snprintf(user, 64, "L%s", peer->key);
            return true;
        }
        HASH_FIND(by_key, c->tokens_by_key, peer->key, strlen(peer->key), j);
        if (j != NULL && j->expires_ms > (int64_t)clock_wall_ms()) {
            (void)snprintf(user, 64, "T%s", j->id);
            return true;
        }
    }
    c->count.refused_keys++;
    c->refused_since++;
    (void)snprintf(c->refused_last, sizeof c->refused_last, "%s %.46s", peer->key,
                   peer->address != NULL ? peer->address : "");
    return false;
}

struct link_key *keys_of_user(struct control *c, const char *user)
{
    return user[0] == 'L' ? keys_find(c, user + 1) : NULL;
}

struct join_token *keys_token_of_user(struct control *c, const char *user)
{
    struct join_token *j = NULL;
    if (user[0] == 'T')
        HASH_FIND(by_id, c->tokens_by_id, user + 1, strlen(user + 1), j);
    return j != NULL && j->expires_ms > (int64_t)clock_wall_ms() ? j : NULL;
}

void keys_tick(struct control *c)
{
    struct join_token *j, *next;
    HASH_ITER(by_id, c->tokens_by_id, j, next)
    if (j->expires_ms <= (int64_t)clock_wall_ms())
        token_remove(c, j);
    if (c->refused_since == 0 ||
        (c->refused_logged_ms != 0 && clock_now_ms() - c->refused_logged_ms < REFUSED_LOG_MS))
        return;
    control_event(c, "KEY_REFUSED", c->refused_last,
                  "%llu connection(s) with a key that is not registered",
                  (unsigned long long)c->refused_since);
    c->refused_since = 0;
    c->refused_logged_ms = clock_now_ms();
}
