/* feed-state STATE_DIR POD...: makes what the broker would have made for the collector.
 *
 * STATE_DIR/broker/curve.key, STATE_DIR/broker/mesh.db with a link key for each default/POD and a feed key "ops",
 * STATE_DIR/pods/POD/link.key. Prints the keys as JSON. For tests only.
 */
#include "kit/mailbox.h"
#include "store/mesh.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void check(err_t err, const char *what)
{
    if (err == OK)
        return;
    fprintf(stderr, "feed-state: %s: %s\n", what, err->name);
    exit(1);
}

static void make_dir(const char *path)
{
    if (mkdir(path, 0700) != 0 && access(path, F_OK) != 0)
        check(ERR_OF(OS), path);
}

static void write_pair(const char *path, const char *public_key, const char *secret_key)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || dprintf(fd, "%s\n%s\n", public_key, secret_key) != 82)
        check(ERR_OF(OS), path);
    close(fd);
}

int main(int argc, char **argv)
{
    char public_key[MAILBOX_KEY_TEXT], secret_key[MAILBOX_KEY_TEXT], path[600];
    struct mesh *m = NULL;
    bool was_fresh;

    if (argc < 2)
        return 64;
    make_dir(argv[1]);
    snprintf(path, sizeof(path), "%s/broker", argv[1]);
    make_dir(path);
    check(mesh_open(argv[1], &m, &was_fresh), "mesh.db");
    check(mailbox_keypair(public_key, secret_key), "key");
    snprintf(path, sizeof(path), "%s/broker/curve.key", argv[1]);
    write_pair(path, public_key, secret_key);
    printf("{\"server_key\": \"%s\", \"pods\": {", public_key);
    check(mesh_begin(m, &(struct mesh_author){.author = SLICE_LIT("test")}), "begin");
    snprintf(path, sizeof(path), "%s/pods", argv[1]);
    make_dir(path);
    for (int i = 2; i < argc; i++) {
        check(mailbox_keypair(public_key, secret_key), "key");
        check(mesh_put_link_key(m, &(struct mesh_key){.public_key = slice_str(public_key),
                                                      .ns = SLICE_LIT("default"),
                                                      .service_account = slice_str(argv[i]),
                                                      .pod = slice_str(argv[i])}),
              "link key");
        snprintf(path, sizeof(path), "%s/pods/%s", argv[1], argv[i]);
        make_dir(path);
        snprintf(path, sizeof(path), "%s/pods/%s/link.key", argv[1], argv[i]);
        write_pair(path, public_key, secret_key);
        printf("%s\"%s\": {\"public_key\": \"%s\", \"secret_key\": \"%s\"}", i > 2 ? ", " : "",
               argv[i], public_key, secret_key);
    }
    check(mailbox_keypair(public_key, secret_key), "key");
    check(mesh_put_feed_key(m, &(struct mesh_feed_key){.name = SLICE_LIT("ops"),
                                                       .public_key = slice_str(public_key)}),
          "feed key");
    check(mesh_commit(m), "commit");
    mesh_close(&m);
    printf("}, \"feed\": {\"public_key\": \"%s\", \"secret_key\": \"%s\"}}\n", public_key, secret_key);
    return 0;
}
