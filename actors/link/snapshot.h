/* What the pod knows of the mesh, on disk: STATE_DIR/snapshot.
 *
 *   "WEFTSNAP" | version u32 | epoch u64 | incarnation u64 | serving u8 | count u32
 *   count times: length of topic u16 | topic | revision u64 | length u32 | payload
 *   SHA-256 of all that
 * Numbers are little-endian. `serving` is believed only within the same incarnation of the pod:
 * a link that was killed does not take its pod out of service when it comes back. Written
 * beside and renamed; read whole or not at all; at most 80 MiB. Trust anchors and addresses, no
 * secret.
 */
#ifndef LINK_SNAPSHOT_H
#define LINK_SNAPSHOT_H

#include "link/link.h"

/* Fills the views. No file: OK. LINK_SNAPSHOT: damaged or of another version; nothing was
 * taken. */
MUST_USE err_t snapshot_load(struct link *l);

/* Writes if something changed and the last time is 2 s ago (or `now`). */
void snapshot_save(struct link *l, bool now);

#endif
