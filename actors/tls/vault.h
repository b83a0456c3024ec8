/* Memory that outlives weft-tls: the pod's key, its certificate and the trust anchors.
 *
 * The supervisor makes it (memfd_secret where the kernel has it: never on disk, never swapped,
 * not readable by the kernel's own crash dumps, gone with the pod) and hands the descriptor
 * "vault" to every generation of weft-tls. What is stored is whole or not there: a shelf has
 * two places, the new content is written to the other one and becomes the newest by one store
 * of its generation.
 */
#ifndef TLS_VAULT_H
#define TLS_VAULT_H

#include "kit/err.h"
#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define VAULT_SIZE (64 * 1024) /* what an empty descriptor is given; it may be larger already  \
                                */
#define VAULT_SIZE_MIN (16 * 1024)

struct vault;

enum vault_shelf {
    VAULT_CURRENT, /* what is in force: key, chain, anchors */
    VAULT_PENDING, /* what was asked for and not answered yet: key, CSR, token id, token secret
                    */
    VAULT_SHELVES
};

#define VAULT_PARTS 4
enum vault_current_part { VAULT_KEY, VAULT_CHAIN, VAULT_ANCHORS, VAULT_UNUSED };
enum vault_pending_part { VAULT_NEW_KEY, VAULT_CSR, VAULT_TOKEN_ID, VAULT_TOKEN_SECRET };

/* Maps the descriptor and closes it. fd < 0: private memory, which works but does not outlive
 * us. Memory that is not ours (other version, damaged header) is wiped and begun anew. OS |
 * VAULT_FULL | NOMEM. */
MUST_USE err_t vault_open(int fd, struct vault **out);
/* Unmaps; the content stays for the next process. */
void vault_close(struct vault **v);
bool vault_survives(const struct vault *v); /* it was opened on a descriptor */

/* Replaces the content of a shelf. VAULT_FULL: too long, the shelf is as before. */
MUST_USE err_t vault_store(struct vault *v, enum vault_shelf shelf,
                           const slice_t parts[VAULT_PARTS]);
/* The newest whole content; slices into the vault, valid until the shelf is stored or wiped.
 * False: empty. */
MUST_USE bool vault_load(const struct vault *v, enum vault_shelf shelf,
                         slice_t parts[VAULT_PARTS]);
/* Empties the shelf and overwrites what was there. */
void vault_wipe(struct vault *v, enum vault_shelf shelf);

/* For tests: the mapped bytes. */
slice_t vault_bytes(const struct vault *v);

#endif
