/* Who a CURVE public key belongs to, read from mesh.db by a process that does not own it (the
 * collector).
 *
 * keys_open reads once, so that the files are open before the process is confined; call it
 * before, and again after a while if it says STORE_ABSENT (the broker has not made its database
 * yet). The process needs STATE_DIR/broker readable, and writable for the shared index of the
 * log ("mesh.db-shm").
 */
#ifndef STORE_KEYS_H
#define STORE_KEYS_H

#include "kit/err.h"
#include "store/store_err.h"

#include <stdbool.h>

struct keys;

enum key_kind { KEY_UNKNOWN, KEY_LINK, KEY_FEED };

struct key_owner {
    enum key_kind kind;
    char ns[64];    /* link */
    char name[254]; /* link: pod; feed: the subscriber's name */
};

MUST_USE err_t keys_open(const char *state_dir, struct keys **out);
void keys_close(struct keys **k); /* NULL is fine */

/* Looks the Z85 key up (waits at most 100 ms). False if it is unknown, revoked, or cannot be
 * read. */
bool keys_find(struct keys *k, const char *public_key, struct key_owner *out);

#endif
