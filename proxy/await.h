/* Waiting for the application: a pod takes traffic only after its program listens.
 *
 * Every served port is tried until it has accepted one TCP connection, which is closed at once;
 * ports one after the other, at each of the pod's addresses in turn (those that inbound
 * connections are made to; never the loopback address instead). The pause between two rounds
 * grows from 20 ms to 500 ms, by a quarter each: who starts fast is found fast, and a slow
 * starter waits at most a quarter longer than it took. It is tried for ever. What has accepted
 * once is never tried again.
 *
 * States:  PAUSE --timer--> DIALLING --accepted, last port--> DONE
 *            ^                  |------accepted---> DIALLING (next port)
 *            '---refused at every address
 *
 * Connections are made with a `net` of its own, so that the proxy's counters of connections
 * tell of traffic only. */
#ifndef PROXY_AWAIT_H
#define PROXY_AWAIT_H

#include "kit/err.h"
#include "kit/slice.h"

#include <netinet/in.h>
#include <stdint.h>

#define AWAIT_PORTS_MAX 64
#define AWAIT_FIRST_MS  20
#define AWAIT_LAST_MS   500
#define AWAIT_TELL_MS   10000

struct await;
struct event_base;

struct await_conf {
    struct event_base *base;
    slice_t serves; /* as WEFT_SERVES: SERVICE:PORT[/PROTOCOL] comma list; read during the call */
    const struct sockaddr_storage *addresses; /* of the pod; lent; none: 127.0.0.1 */
    size_t n_addresses;
    const struct sockaddr_storage *target; /* instead of all the above (WEFT_INBOUND_TARGET) */
    uint64_t connect_ms;                   /* longest attempt */
    /* The port it has waited for since AWAIT_TELL_MS or longer, whenever that changes; 0 at the
     * end if there was one. May be NULL. */
    void (*waiting)(void *arg, uint16_t port);
    void (*done)(void *arg); /* once, from the loop; await_stop may be called there */
    void *arg;
};

/* Begins; nothing is called before this returns. BAD_SETTING: serves is not understood. */
MUST_USE err_t await_start(const struct await_conf *conf, struct await **out);
void await_stop(struct await **a); /* NULL is fine */

#endif
