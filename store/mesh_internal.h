/* What the files of mesh.h share. Private to store/. */
#ifndef STORE_MESH_INTERNAL_H
#define STORE_MESH_INTERNAL_H

#include "store/db.h"
#include "store/mesh.h"
#include "store/mesh_schema.h"

struct mesh {
    struct db db;
    uint64_t epoch, revision;
    bool is_topology; /* the open transaction wrote a row that makes a revision */
    int64_t at_ms;    /* of the open transaction */
    char author[129], reason[513];
};

/* The first two arguments of every statement that writes topology; notes that there is a
 * revision. */
#define MESH_STAMP(m) (int64_t) mesh_stamp(m), (m)->at_ms

static inline uint64_t mesh_stamp(struct mesh *m)
{
    m->is_topology = true;
    return m->revision + 1;
}

#endif
