#include "wire/descriptor.h"

/* ---- the fields of every record and message ---- */

/* clang-format off */
/* Lists point at records that may come later in the table, so all of them are announced first. */
#define RECORD(name, doc)                           static const struct wire_record record_##name;
#define MESSAGE(name, code, version, from, to, doc) static const struct wire_record record_##name;
#include "wire/messages.def"

#define FIELDS_BEGIN(name)                                                                         \
    static const struct wire_field *fields_##name(size_t *n)                                       \
    {                                                                                              \
        typedef struct wire_##name self;                                                           \
        static const struct wire_field fields[] = {
#define FIELD(name, kind, max)                                                                     \
    {#name, WIRE_KIND_##kind, max, offsetof(self, name), 0, NULL},

#define RECORD(name, doc)                           FIELDS_BEGIN(name)
#define MESSAGE(name, code, version, from, to, doc) FIELDS_BEGIN(name)
#define U8(name, doc)                               FIELD(name, U8, 0)
#define U16(name, doc)                              FIELD(name, U16, 0)
#define U32(name, doc)                              FIELD(name, U32, 0)
#define U64(name, doc)                              FIELD(name, U64, 0)
#define I64(name, doc)                              FIELD(name, I64, 0)
#define BOOL(name, doc)                             FIELD(name, BOOL, 0)
#define TEXT(name, max, doc)                        FIELD(name, TEXT, max)
#define BYTES(name, max, doc)                       FIELD(name, BYTES, max)
#define LIST(name, record, max, doc)                                                               \
    {#name, WIRE_KIND_LIST, max, offsetof(self, name), offsetof(self, n_##name), &record_##record},
#define END(name)                                                                                  \
        };                                                                                         \
        *n = sizeof(fields) / sizeof(fields[0]);                                                   \
        return fields;                                                                             \
    }
#include "wire/messages.def"

#define RECORD_OF(name)                                                                            \
    static const struct wire_record record_##name = {#name, sizeof(struct wire_##name),            \
                                                     fields_##name};
#define RECORD(name, doc)                           RECORD_OF(name)
#define MESSAGE(name, code, version, from, to, doc) RECORD_OF(name)
#include "wire/messages.def"

static const struct wire_record *const records[] = {
#define RECORD(name, doc) &record_##name,
#include "wire/messages.def"
};

static const struct wire_desc descs[] = {
#define MESSAGE(name, code, version, from, to, doc)                                                \
    {WIRE_##name, version, WIRE_ROLE_##from, WIRE_ROLE_##to, &record_##name},
#include "wire/messages.def"
};

/* clang-format on */

const struct wire_desc *wire_descs(size_t *n)
{
    *n = sizeof(descs) / sizeof(descs[0]);
    return descs;
}

const struct wire_record *const *wire_records(size_t *n)
{
    *n = sizeof(records) / sizeof(records[0]);
    return records;
}

const struct wire_desc *wire_desc_of(unsigned code)
{
    /* The compiler turns a dense switch per conversation into jump tables. */
    enum {
#define MESSAGE(name, code, version, from, to, doc) INDEX_##name,
#include "wire/messages.def"
        INDEX_COUNT
    };

    switch (code) {
#define MESSAGE(name, code, version, from, to, doc)                                            \
    case code:                                                                                 \
        return &descs[INDEX_##name];
#include "wire/messages.def"
    default: /* from a peer: any number may come */
        return NULL;
    }
}
