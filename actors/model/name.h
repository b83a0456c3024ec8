/* Names: of identities, of services, and of the targets that requests are sent to. */
#ifndef MODEL_NAME_H
#define MODEL_NAME_H

#include "model/errors.h"

#include "kit/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define NAME_MAX_LABEL 63
#define NAME_MAX_HOST  253

/* RFC 1123: a-z 0-9 and -, not at the ends, 1..63 bytes. Lower case only, as in Kubernetes. */
bool name_is_label(slice_t s);
/* Labels joined by dots, at most 253 bytes. */
bool name_is_host(slice_t s);
/* As name_is_host, or "*." and then one. */
bool name_is_host_or_wildcard(slice_t s);
/* RFC 9110 token, 1..max bytes: header names and methods. */
bool name_is_token(slice_t s, size_t max);
/* "10.0.0.1" or "fd77::1" without brackets, zone or port. */
bool name_is_ip(slice_t s);

/* ---- identities: SA.NS.serviceaccount.identity.CONTROL-NS.TRUST-DOMAIN ---- */

struct name_identity {
    slice_t service_account, namespace, control_namespace, trust_domain;
};

/* Writes the identity with a NUL. MODEL_NAME if a part is not valid or the whole is longer than
 * 253. */
MUST_USE err_t name_identity_make(const struct name_identity *parts,
                                  char out[NAME_MAX_HOST + 1]);

/* The parts point into `text`. MODEL_NAME if it is not such a name. */
MUST_USE err_t name_identity_parse(slice_t text, struct name_identity *out);

/* ---- targets: what a connection or request is meant for ---- */

enum name_target_kind {
    NAME_TARGET_IP,      /* an address: host is its canonical text */
    NAME_TARGET_SERVICE, /* may be a service of the mesh: namespace and name are set */
    NAME_TARGET_HOST     /* any other host name */
};

struct name_target {
    enum name_target_kind kind;
    bool is_ipv6;
    char host[NAME_MAX_HOST +
              1]; /* lower case, no trailing dot; IPv6 without brackets, shortest form */
    uint16_t port;
    char namespace[NAME_MAX_LABEL + 1]; /* SERVICE */
    char name[NAME_MAX_LABEL + 1];      /* SERVICE */
};

/* Parses IP:PORT, [IPv6]:PORT or NAME:PORT; without a port default_port counts, and 0 makes
 * that an error. NAME, NAME.NS, NAME.NS.svc and NAME.NS.svc.cluster.local are services (NAME
 * alone in default_namespace; two labels may be a public name too: the broker knows).
 * MODEL_NAME. */
MUST_USE err_t name_target_parse(slice_t text, slice_t default_namespace, uint16_t default_port,
                                 struct name_target *out);

/* The one spelling of a target, used as topic: services as NAME.NS.svc.cluster.local:PORT, IPv6
 * in brackets. At most 253 + 8 bytes. */
#define NAME_TARGET_TEXT 272
void name_target_format(const struct name_target *t, char out[NAME_TARGET_TEXT]);

/* An authority (host[:port], IPv6 in brackets) without its port and trailing dot. Whole if odd.
 */
slice_t name_host_of(slice_t authority);

#endif
