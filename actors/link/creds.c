#include "link/creds.h"

#include "kit/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE  "link.key"
#define KEY_LINES 82 /* two keys with line ends; then "joined\n" once it is so */
#define JOINED    "joined\n"

static bool key_path(const struct link *l, const char *suffix, char out[560])
{
    int n = snprintf(out, 560, "%s/" KEY_FILE "%s", l->set->state_dir, suffix);
    return n > 0 && n < 560;
}

static err_t write_key(struct link *l)
{
    char path[560], temp[560], text[KEY_LINES + sizeof JOINED];
    if (!key_path(l, "", path) || !key_path(l, ".new", temp))
        return ERR_OF(BAD_SETTING);
    int n = snprintf(text, sizeof text, "%s\n%s\n%s", l->public_key, l->secret_key,
                     l->has_joined ? JOINED : "");
    (void)unlink(temp);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool is_good = fd >= 0 && write(fd, text, (size_t)n) == n && fsync(fd) == 0;
    if (fd >= 0)
        is_good = close(fd) == 0 && is_good;
    explicit_bzero(text, sizeof text);
    return is_good && rename(temp, path) == 0 ? OK : ERR_OF(LINK_NO_KEY);
}

static err_t read_key(struct link *l, int fd)
{
    char text[KEY_LINES + sizeof JOINED], check[MAILBOX_KEY_TEXT];
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        return ERR_OF(LINK_NO_KEY);
    ssize_t n = read(fd, text, sizeof text);
    bool is_good = n >= KEY_LINES && text[40] == '\n' && text[81] == '\n';
    if (is_good) {
        memcpy(l->public_key, text, 40);
        memcpy(l->secret_key, text + 41, 40);
        l->has_joined = slice_is_str(slice(text + KEY_LINES, (size_t)n - KEY_LINES), JOINED);
        is_good =
            mailbox_public_of(l->secret_key, check) == OK && strcmp(check, l->public_key) == 0;
    }
    explicit_bzero(text, sizeof text);
    return is_good ? OK : ERR_OF(LINK_NO_KEY);
}

err_t creds_load(struct link *l)
{
    char path[560];
    if (!key_path(l, "", path))
        return ERR_OF(BAD_SETTING);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        TRY(mailbox_keypair(l->public_key, l->secret_key));
        return write_key(l);
    }
    err_t e = fd >= 0 ? read_key(l, fd) : ERR_OF(LINK_NO_KEY);
    if (fd >= 0)
        (void)close(fd);
    if (e != OK)
        log_error("key file not usable", "path=%s", path);
    return e;
}

static bool read_token(const struct link *l, struct wire_join *out)
{
    char text[WIRE_JOIN_TEXT + 8];
    int fd = l->set->join_token_file[0] != '\0'
                 ? open(l->set->join_token_file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
                 : -1;
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text);
    (void)close(fd);
    bool is_good = n > 0 && wire_join_parse(slice(text, (size_t)n), out);
    explicit_bzero(text, sizeof text);
    if (!is_good)
        log_warn("join token not usable", "path=%s", l->set->join_token_file);
    return is_good;
}

bool creds_has_token(const struct link *l)
{
    return l->set->join_token_file[0] != '\0' && access(l->set->join_token_file, R_OK) == 0;
}

void creds_choose(const struct link *l, unsigned attempt, struct creds_pair *out)
{
    struct wire_join join;
    out->is_token = false;
    bool is_turn = attempt % 2 == (l->has_joined ? 1u : 0u);
    if (is_turn && read_token(l, &join)) {
        wire_join_z85(join.secret, out->secret_key);
        out->is_token = mailbox_public_of(out->secret_key, out->public_key) == OK;
        explicit_bzero(&join, sizeof join);
    }
    if (!out->is_token) {
        memcpy(out->public_key, l->public_key, sizeof out->public_key);
        memcpy(out->secret_key, l->secret_key, sizeof out->secret_key);
    }
}

void creds_joined(struct link *l)
{
    if (l->has_joined)
        return;
    l->has_joined = true;
    err_t e = write_key(l);
    if (e != OK) /* the next start tries the token first, which the broker answers alike */
        log_warn("key file not written", "error=%s", e->name);
}

void creds_forget_token(struct link *l)
{
    const char *path = l->set->join_token_file;
    if (path[0] != '\0' && unlink(path) != 0 && errno != ENOENT)
        log_warn("join token not removed", "path=%s errno=%d", path, errno);
}
