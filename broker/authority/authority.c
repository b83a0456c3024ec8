#include "broker/authority/authority.h"

#include "model/name.h"

#include <openssl/asn1.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#define ERR(name, cls, text) ERR_DEFINE(name, cls, text)
#include "broker/authority/tbl/errors.h"
#undef ERR

bool authority_time(const ASN1_TIME *t, int64_t *out)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return false;
    *out = (int64_t)timegm(&tm) * 1000;
    return true;
}

bool authority_only_dns_name(const void *general_names, char out[254])
{
    const GENERAL_NAMES *names = general_names;
    const ASN1_STRING *text;
    slice_t s;
    int type;

    if (names == NULL || sk_GENERAL_NAME_num(names) != 1)
        return false;
    text = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, 0), &type);
    if (type != GEN_DNS)
        return false;
    s = slice(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
    return name_is_host(s) && slice_to_cstr(s, out, 254);
}

void authority_hex(const uint8_t *p, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = '\0';
}
