#include "broker/collector/owners.h"

#include "kit/hash.h"
#include "kit/log.h"
#include "store/keys.h"

#include <stdlib.h>

#define OWNERS_MAX 50000u /* pods that have connected; then the table is begun anew */

struct owner {
    UT_hash_handle hh;
    char key[MAILBOX_KEY_TEXT];
    char ns[64], pod[254];
};

struct owners {
    owners_find_fn *find;
    void *arg;
    struct owner *by_key;
};

err_t owners_new(owners_find_fn *find, void *arg, struct owners **out)
{
    struct owners *o = calloc(1, sizeof(*o));

    if (o == NULL)
        return ERR_OF(NOMEM);
    o->find = find;
    o->arg = arg;
    *out = o;
    return OK;
}

static void owner_drop(struct owners *o, struct owner *one)
{
    HASH_DEL(o->by_key, one);
    free(one);
}

void owners_free(struct owners **o)
{
    struct owner *one, *next;

    if (*o == NULL)
        return;
    HASH_ITER(hh, (*o)->by_key, one, next)
    owner_drop(*o, one);
    free(*o);
    *o = NULL;
}

static struct owner *owner_get(const struct owners *o, const char *key)
{
    struct owner *one = NULL;

    HASH_FIND_STR(o->by_key, key, one);
    return one;
}

/* Full means that 50,000 different keys have come: the oldest gives way; its messages are
 * refused until it connects again. */
static bool owner_put(struct owners *o, const char *key, const struct key_owner *found)
{
    struct owner *one = owner_get(o, key);

    if (one == NULL) {
        if (HASH_COUNT(o->by_key) >= OWNERS_MAX)
            owner_drop(o, o->by_key);
        one = calloc(1, sizeof(*one));
        if (one == NULL)
            return false;
        memcpy(one->key, key, sizeof(one->key));
        HASH_ADD_STR(o->by_key, key, one);
    }
    memcpy(one->ns, found->ns, sizeof(one->ns));
    memcpy(one->pod, found->name, sizeof(one->pod));
    return true;
}

static bool allow(struct owners *o, const struct mailbox_peer *peer, enum key_kind kind,
                  char user[64])
{
    struct key_owner found;

    if (!o->find(o->arg, peer->key, &found) || found.kind != kind) {
        log_warn("peer refused", "address=%s key=%.8s... wanted=%s", peer->address, peer->key,
                 kind == KEY_LINK ? "link" : "feed");
        return false;
    }
    memcpy(user, peer->key, MAILBOX_KEY_TEXT);
    log_debug("peer admitted", "address=%s owner=%s/%s", peer->address, found.ns, found.name);
    return kind == KEY_FEED || owner_put(o, peer->key, &found);
}

bool owners_allow_pod(struct owners *o, const struct mailbox_peer *peer, char user[64])
{
    return allow(o, peer, KEY_LINK, user);
}

bool owners_allow_subscriber(struct owners *o, const struct mailbox_peer *peer, char user[64])
{
    return allow(o, peer, KEY_FEED, user);
}

bool owners_is_pod(const struct owners *o, const char *user, slice_t ns, slice_t pod)
{
    const struct owner *one = owner_get(o, user);

    return one != NULL && slice_is_str(ns, one->ns) && slice_is_str(pod, one->pod);
}
