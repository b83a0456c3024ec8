/* Services' own addresses, and the hosts file that gives applications their names. */
#ifndef CONTROL_SERVICES_H
#define CONTROL_SERVICES_H

#include "broker/control/control.h"

/* Reads settings.service_cidr (BAD_SETTING) and the services in the store. */
MUST_USE err_t services_load(struct control *c);
void services_free(struct control *c);

struct service_entry *services_find(struct control *c, const char *ns, const char *name);
struct service_entry *services_by_address(struct control *c, const char *ip);

/* Within an open transaction: the service's row, with its address if it has one already, else
 * with the one it asks for in `wanted` (IPv4; "" none; passed over if it is taken), else with a
 * free one. ports: JSON for the row. NO_FREE_ADDRESS | errors of the store | NOMEM */
MUST_USE err_t services_stage_put(struct control *c, const char *ns, const char *name,
                                  bool is_of_session, slice_t wanted, slice_t ports);
MUST_USE err_t services_stage_drop(struct control *c, const char *ns, const char *name);
/* After the commit, or instead of it. */
void services_accept(struct control *c);
void services_abandon(struct control *c);

/* Rewrites STATE/hosts in place (it is bind-mounted into pods) if services changed since. */
void services_write_hosts(struct control *c);

#endif
