#include "model/code.h"

static const struct code_info infos[CODE_COUNT] = {
#define CODE(id, name, http, grpc, closes, proxy_status, what, remedy)                         \
    [CODE_##name] = {#id, #name, http, grpc, closes, #proxy_status, what, remedy},
#include "model/tbl/codes.h"
#undef CODE
};

const struct code_info *code_info(enum code code)
{
    unsigned i = (unsigned)code;

    return &infos[i == CODE_NONE || i >= CODE_COUNT ? CODE_INTERNAL : i];
}

enum code code_find(slice_t text)
{
    for (unsigned i = CODE_NONE + 1; i < CODE_COUNT; i++) {
        slice_t id = slice_str(infos[i].id);

        if (slice_is_nocase(text, id) || slice_is_nocase(text, slice_skip(id, 1)) ||
            slice_is_nocase(text, slice_str(infos[i].name)))
            return (enum code)i;
    }
    return CODE_NONE;
}

enum code code_of_tls(slice_t reason)
{
    static const struct {
        const char *reason;
        enum code code;
    } reasons[] = {
        {"NO_CERTIFICATE_YET", CODE_NO_CERTIFICATE},
        {"UNKNOWN_ISSUER", CODE_UNKNOWN_ISSUER},
        {"WRONG_IDENTITY", CODE_WRONG_IDENTITY},
        {"EXPIRED", CODE_EXPIRED},
        {"NO_CLIENT_CERTIFICATE", CODE_NO_CLIENT_CERT},
        {"ALERT", CODE_TLS_ALERT},
        {"TIMEOUT", CODE_TLS_TIMEOUT},
    };

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (slice_is_str(reason, reasons[i].reason))
            return reasons[i].code;
    return CODE_TLS_FAILED;
}
