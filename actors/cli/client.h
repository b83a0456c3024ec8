/* One conversation with weft-broker over broker.sock: ask, wait for the answer with the same
 * id. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "cli/mesh.h"
#include "wire/wire.h"

#include <stdint.h>

#define CLIENT_WAIT_MS 10000

struct client;

/* Opens the mailbox; NO_MESH if the control plane's supervisor does not live. */
MUST_USE err_t client_open(const struct mesh *m, struct client **out, struct trouble *why);
void client_close(struct client **c);

/* Sends `body` (a request whose first field is its id; the id is set here) and waits up to
 * wait_ms. OK: *answer is decoded, of code `want`, valid until the next ask or close (no
 * wire_msg_done by the caller). REFUSED: the broker said no, `why` has its words. NOT_READY: no
 * answer in time. */
MUST_USE err_t client_ask(struct client *c, enum wire_code code, void *body,
                          enum wire_code want, uint32_t wait_ms, const struct wire_msg **answer,
                          struct trouble *why);

/* client_open + client_ask for commands that ask once: loads the mesh from its run directory,
 * too. */
MUST_USE err_t client_begin(const char *run, struct mesh *m, struct client **out,
                            struct trouble *why);

/* "root" or "SUDO_USER (root)": whom the mesh's history names as the author of a change. */
void client_author(char out[128]);

#endif
