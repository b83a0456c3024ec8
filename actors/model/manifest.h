/* What people write, YAML (several documents) or JSON, as a list of objects.
 *
 * The subset of YAML that Kubernetes manifests use. Refused with the line: anchors and aliases
 * (they can make a small text enormous), tags, keys that are no plain text, keys given twice,
 * and what is over a limit. Plain scalars are read as YAML 1.2 does: yes, no, on and off are
 * text, 0123 is text. A List (kind: List with items) counts as its items.
 */
#ifndef MODEL_MANIFEST_H
#define MODEL_MANIFEST_H

#include "model/why.h"

#include "kit/slice.h"

#include <jansson.h>

#define MANIFEST_TEXT    (4U * 1024U * 1024U)
#define MANIFEST_OBJECTS 4096
#define MANIFEST_DEPTH   32
#define MANIFEST_NODES   200000 /* values of all documents together */

struct manifest_place;

struct manifest_object {
    json_t *json;                 /* owned; an object */
    unsigned line;                /* where it begins, from 1; 0 unknown */
    size_t first_place, n_places; /* private: into manifest.places */
    size_t item;                  /* private: 1 + its index in the List it came from, or 0 */
};

struct manifest {
    struct manifest_object *objects; /* owned */
    size_t n;
    struct manifest_place *places; /* private: which path is on which line */
    size_t n_places;
    char *names;
    size_t n_names;
};

/* MODEL_SYNTAX or MODEL_LIMIT with why->reason and why->line; NOMEM. No objects at all is fine.
 */
MUST_USE err_t manifest_parse(slice_t text, struct manifest **out, struct why *why);
void manifest_free(struct manifest **m);

/* The line of the value at `path` ("spec.rules[0].name") of an object, or of the closest value
 * around it; 0 if unknown (JSON text). */
unsigned manifest_line(const struct manifest *m, size_t object, const char *path);

/* One JSON value from text, under the same limits, duplicate keys refused. Caller: json_decref.
 */
MUST_USE err_t manifest_parse_json(slice_t text, json_t **out, struct why *why);

#endif
