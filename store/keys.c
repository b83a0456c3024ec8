#include "store/keys.h"

#include "kit/log.h"
#include "store/db.h"
#include "store/mesh.h"
#include "store/mesh_schema.h"

#include <stdlib.h>

struct keys {
    sqlite3 *sql;
    sqlite3_stmt *find;
};

err_t keys_open(const char *state_dir, struct keys **out)
{
    struct keys *k = calloc(1, sizeof *k);
    struct key_owner nobody;
    if (k == NULL)
        return ERR_OF(NOMEM);
    err_t e = db_open_reader(state_dir, MESH_FILE, MESH_APPLICATION_ID, &k->sql);
    if (e == OK) {
        int rc = sqlite3_prepare_v3(k->sql, mesh_sql[MS_KEY_FIND], -1,
                                    SQLITE_PREPARE_PERSISTENT, &k->find, NULL);
        e = db_error(rc);
        if (rc == SQLITE_ERROR)
            e = ERR_OF(STORE_ABSENT); /* the file is there, its schema is not yet */
    }
    if (e != OK) {
        keys_close(&k);
        return e;
    }
    (void)keys_find(k, "", &nobody); /* opens the log and its index */
    *out = k;
    return OK;
}

void keys_close(struct keys **k)
{
    if (*k == NULL)
        return;
    (void)sqlite3_finalize((*k)->find);
    (void)sqlite3_close((*k)->sql);
    free(*k);
    *k = NULL;
}

bool keys_find(struct keys *k, const char *public_key, struct key_owner *out)
{
    memset(out, 0, sizeof *out);
    db_bind(k->find, "z", public_key);
    int rc = sqlite3_step(k->find);
    if (rc == SQLITE_ROW) {
        out->kind = db_i64(k->find, 0) == 1 ? KEY_LINK : KEY_FEED;
        if (!slice_to_cstr(db_text(k->find, 1), out->ns, sizeof out->ns) ||
            !slice_to_cstr(db_text(k->find, 2), out->name, sizeof out->name))
            out->kind = KEY_UNKNOWN;
    } else if (rc != SQLITE_DONE) {
        log_warn("key not looked up", "error=%s", db_error(rc)->name);
    }
    (void)sqlite3_reset(k->find);
    (void)sqlite3_clear_bindings(k->find);
    return out->kind != KEY_UNKNOWN;
}
